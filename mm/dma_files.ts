/**
 * What DMA shows of itself under /sys: bounce buffers now; nothing is made before it is read.
 */

import type { FileRegistry } from "../kernel/file.ts";
import type { Swiotlb } from "./swiotlb.ts";

/** Registers the texts. Boot, once. */
export function registerDmaFiles(registry: FileRegistry, swiotlb: Swiotlb): void {
  const number = (path: string, value: () => number): void =>
    registry.registerText(path, { read: () => `${value()}\n` });
  number("/sys/kernel/debug/swiotlb/io_tlb_nslabs", swiotlb.nslabs);
  number("/sys/kernel/debug/swiotlb/io_tlb_used", swiotlb.used);
  number("/sys/kernel/debug/swiotlb/io_tlb_used_hiwater", swiotlb.usedHiwater);
}
