/**
 * Files of reclaim and swap: /proc/swaps, and what can be tuned below /proc/sys/vm.
 *
 *   swappiness               0-200: how willingly anonymous memory goes before pages of files
 *   min_free_kbytes          what ordinary requests leave free; all marks follow (W1, W2)
 *   watermark_scale_factor   distance between the marks, in fractions of 10000 of a zone (W2)
 *
 * A value out of range is −EINVAL and changes nothing. Source: mm/page_alloc.c, kernel/sysctl.c.
 */

import type { SwapArea, Vmscan, Zones } from "../../../mm/index.ts";
import { MAX_SWAPPINESS } from "../../../mm/index.ts";
import type { FileRegistry } from "../../file.ts";
import { EINVAL } from "../../uapi/errno.ts";

const MAX_SCALE_FACTOR = 3000;

export interface VmFilesDeps {
  readonly area: SwapArea;
  readonly vmscan: Vmscan;
  readonly zones: Zones;
  readonly nrCpus: number;
}

export function registerVmFiles(registry: FileRegistry, { area, vmscan, zones, nrCpus }: VmFilesDeps): void {
  registry.registerText("/proc/swaps", { read: area.text });

  /** A file with one whole number in [min, max]. */
  const tunable = (name: string, min: number, max: number, get: () => number, set: (value: number) => void): void =>
    registry.registerText(`/proc/sys/vm/${name}`, {
      read: () => `${get()}\n`,
      *write(_task, text) {
        const word = text.trim();
        const value = /^\d{1,9}$/.test(word) ? Number(word) : -1;
        if (value < min || value > max) return -EINVAL;
        set(value);
        return 0;
      },
    });

  tunable("swappiness", 0, MAX_SWAPPINESS, vmscan.swappiness, vmscan.setSwappiness);
  // A quarter of memory: with more the marks would leave nothing to allocate.
  const maxFree = zones.totalManaged();
  tunable("min_free_kbytes", 0, maxFree, zones.minFreeKbytes, (kib) => zones.setupMarks(nrCpus, kib));
  tunable("watermark_scale_factor", 1, MAX_SCALE_FACTOR, zones.scaleFactor, (factor) =>
    zones.setupMarks(nrCpus, zones.minFreeKbytes(), factor),
  );
}
