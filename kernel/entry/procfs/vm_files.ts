/**
 * Files of reclaim and swap: /proc/swaps, and what can be tuned below /proc/sys/vm.
 *
 *   swappiness               0-200: how willingly anonymous memory goes before pages of files
 *   min_free_kbytes          what ordinary requests leave free; all marks follow (W1, W2)
 *   dirty_*                  when dirty pages of disks are written (mm/writeback.ts)
 *   drop_caches              writing 1 drops clean pages of disks, 2 empties the slab caches, 3 both
 *   watermark_scale_factor   distance between the marks, in fractions of 10000 of a zone (W2)
 *   watermark_boost_factor   most by which a fragmenting request raises them, the same of the high mark (B11)
 *   panic_on_oom, oom_kill_allocating_task, oom_dump_tasks: what happens when memory runs out (oom_kill.ts)
 *
 * /sys/kernel/mm/lru_gen/enabled says whether pages are aged in generations: 0x0001, or 0x0000 for the two lists. The
 * other bits of Linux, which stand for ways of walking page tables, are never set; the parameter is `reclaim=` at boot.
 *
 * A value out of range is −EINVAL and changes nothing. Source: mm/page_alloc.c, kernel/sysctl.c.
 */

import type { PageAllocator, ReclaimSubsystem, SlabSubsystem, VmStat, Zones } from "../../../mm/index.ts";
import {
  DIRTY_TUNABLES,
  DROP_CACHES,
  DROP_PAGECACHE,
  DROP_SLAB,
  MAX_SWAPPINESS,
  MULTI_GEN,
} from "../../../mm/index.ts";
import type { MemoryPort } from "../../arch/port.ts";
import type { FileRegistry } from "../../file.ts";
import { KERN_INFO, type Printk } from "../../printk.ts";
import { taskComm } from "../../task_struct.ts";
import { EINVAL } from "../../uapi/errno.ts";
import type { OomSetting } from "../oom_kill.ts";

const MAX_BOOST_FACTOR = 999_999_999;
const MAX_SCALE_FACTOR = 3000;

export interface VmFilesDeps extends Pick<ReclaimSubsystem, "area" | "vmscan" | "policy" | "writeback" | "diskCache"> {
  readonly port: MemoryPort;
  readonly slab: SlabSubsystem;
  readonly pageAlloc: Pick<PageAllocator, "drainAllPages">;
  readonly vmstat: VmStat;
  readonly printk: Printk;
  readonly zones: Zones;
  readonly nrCpus: number;
  readonly oomSettings: readonly OomSetting[];
}

export function registerVmFiles(registry: FileRegistry, deps: VmFilesDeps): void {
  const { area, vmscan, zones, nrCpus, policy, writeback } = deps;
  registry.registerText("/proc/swaps", { read: area.text });
  registry.registerText("/sys/kernel/mm/lru_gen/enabled", {
    read: () => (policy.name === MULTI_GEN ? "0x0001\n" : "0x0000\n"),
  });

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

  for (const { name, max, get, set } of deps.oomSettings) tunable(name, 0, max, get, set);
  tunable("swappiness", 0, MAX_SWAPPINESS, vmscan.swappiness, vmscan.setSwappiness);
  // A quarter of memory: with more the marks would leave nothing to allocate.
  const maxFree = zones.totalManaged();
  tunable("min_free_kbytes", 0, maxFree, zones.minFreeKbytes, (kib) => zones.setupMarks(nrCpus, kib));
  tunable("watermark_scale_factor", 1, MAX_SCALE_FACTOR, zones.scaleFactor, (factor) =>
    zones.setupMarks(nrCpus, zones.minFreeKbytes(), factor),
  );
  tunable("watermark_boost_factor", 0, MAX_BOOST_FACTOR, zones.boostFactor, zones.setBoostFactor);
  DIRTY_TUNABLES.forEach(([name, max], nr) => {
    tunable(
      name,
      0,
      max,
      () => writeback.tunable(nr),
      (value) => writeback.setTunable(nr, value),
    );
  });
  registerDropCaches(registry, deps);
}

/** A file that does something when 1, 2 or 3 is written to it, and then reads so. */
function registerDropCaches(registry: FileRegistry, deps: VmFilesDeps): void {
  const { port, writeback, diskCache, slab, pageAlloc, vmstat, printk } = deps;
  registry.registerText("/proc/sys/vm/drop_caches", {
    read: () => `${writeback.tunable(DROP_CACHES)}\n`,
    *write(task, text) {
      const what = /^[1-3]$/.test(text.trim()) ? Number(text) : 0;
      if (what === 0) return -EINVAL;
      writeback.setTunable(DROP_CACHES, what);
      if ((what & 1) !== 0) {
        diskCache.dropAll(task.ctx);
        vmstat.countEvents(task.ctx, DROP_PAGECACHE, 1);
      }
      if ((what & 2) !== 0) {
        slab.shrinkAll(task.ctx);
        vmstat.countEvents(task.ctx, DROP_SLAB, 1);
      }
      pageAlloc.drainAllPages(task.ctx);
      printk(KERN_INFO, `${taskComm(port, task.struct)} (${task.pid}): drop_caches: ${what}`);
      return 0;
    },
  });
}
