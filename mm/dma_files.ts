/**
 * What DMA shows of itself below /sys/kernel/debug: bounce buffers, and what dma-debug knows. Made when read.
 *
 *   swiotlb/   io_tlb_nslabs  io_tlb_used  io_tlb_used_hiwater
 *   dma-api/   disabled  error_count  all_errors*  num_errors*  num_free_entries  min_free_entries
 *              nr_total_entries  driver_filter*  dump                                        * writable
 *
 * and /sys/devices/<name>/pools, the dma_pools of a device while it has a driver.
 */

import type { FileRegistry } from "../kernel/file.ts";
import { EINVAL } from "../kernel/uapi/errno.ts";
import type { DmaDebug } from "./dma_debug.ts";
import type { DmaSubsystem } from "./dma_subsystem.ts";

const SWIOTLB = "/sys/kernel/debug/swiotlb";
const DMA_API = "/sys/kernel/debug/dma-api";

function registerDebugFiles(registry: FileRegistry, debug: DmaDebug): void {
  const show = (name: string, read: () => string): void => registry.registerText(`${DMA_API}/${name}`, { read });
  show("disabled", () => (debug.isDisabled() ? "Y\n" : "N\n"));
  show("error_count", () => `${debug.errorCount()}\n`);
  show("num_free_entries", () => `${debug.entries.numFree()}\n`);
  show("min_free_entries", () => `${debug.entries.minFree()}\n`);
  show("nr_total_entries", () => `${debug.entries.nrTotal()}\n`);
  show("dump", debug.dumpText);
  for (const name of ["all_errors", "num_errors"] as const) {
    registry.registerText(`${DMA_API}/${name}`, {
      read: () => `${debug.setting(name)}\n`,
      *write(_task, text) {
        if (!/^\d{1,9}\n?$/.test(text)) return -EINVAL;
        debug.setSetting(name, Number(text));
        return 0;
      },
    });
  }
  registry.registerText(`${DMA_API}/driver_filter`, {
    read: () => (debug.filterText() === "" ? "" : `${debug.filterText()}\n`),
    *write(_task, text) {
      debug.setFilter(text);
      return 0;
    },
  });
}

/** Registers the texts. Boot, once. */
export function registerDmaFiles(registry: FileRegistry, { dma, swiotlb, debug, onDevice }: DmaSubsystem): void {
  const number = (name: string, value: () => number): void =>
    registry.registerText(`${SWIOTLB}/${name}`, { read: () => `${value()}\n` });
  number("io_tlb_nslabs", swiotlb.nslabs);
  number("io_tlb_used", swiotlb.used);
  number("io_tlb_used_hiwater", swiotlb.usedHiwater);
  onDevice((dev, name, isNew) => {
    const path = `/sys/devices/${name}/pools`;
    if (!isNew) registry.unregisterText(path);
    else if (registry.text(path) === undefined) registry.registerText(path, { read: () => dma.poolsText(dev) });
  });
  if (debug !== null) registerDebugFiles(registry, debug);
}
