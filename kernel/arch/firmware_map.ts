/**
 * The firmware memory map: which physical ranges are RAM, as a PC's e820 table tells the kernel.
 *
 *   0          640K  1M                                   RAM end or 0xfec00000          4G
 *   |  usable  |hole |  usable …                          |  MMIO hole                    |
 *
 * The simulated RAM is one buffer with physical base 0, and a buffer ends at 4 GiB in Node 20. So the MMIO hole below
 * 4 GiB costs its RAM: there is no "RAM above 4 GiB" where a PC would remap it.
 */

import { MAX_RAM_BYTES, PAGE_SIZE } from "../params.ts";

export const E820_RAM = 1;
export const E820_RESERVED = 2;

export interface FirmwareRegion {
  /** Half-open range of bytes `[start, end)`. */
  readonly start: number;
  readonly end: number;
  readonly type: typeof E820_RAM | typeof E820_RESERVED;
}

const LOW_RAM_END = 0x9_fc00;
const VGA_HOLE_START = 0xa_0000;
const HIGH_RAM_START = 0x10_0000;
/** Interrupt controllers and device windows live from here to 4 GiB. */
export const MMIO_BASE = 0xfec0_0000;

/** Map of a PC with `ramBytes` of RAM; `ramBytes` is a multiple of the page size, at most 4 GiB. */
export function pcFirmwareMap(ramBytes: number): readonly FirmwareRegion[] {
  if (ramBytes % PAGE_SIZE !== 0 || ramBytes <= HIGH_RAM_START || ramBytes > MAX_RAM_BYTES) {
    throw new Error(`firmware map: unusable RAM size ${ramBytes}`);
  }
  return [
    { start: 0, end: LOW_RAM_END, type: E820_RAM },
    { start: LOW_RAM_END, end: VGA_HOLE_START, type: E820_RESERVED },
    { start: 0xf_0000, end: HIGH_RAM_START, type: E820_RESERVED },
    { start: HIGH_RAM_START, end: Math.min(ramBytes, MMIO_BASE), type: E820_RAM },
    { start: MMIO_BASE, end: MAX_RAM_BYTES, type: E820_RESERVED },
  ];
}

/** One byte per page frame below `sizeBytes`: 1 where any byte of the frame is RAM. */
export function ramPageMap(map: readonly FirmwareRegion[], sizeBytes: number): Uint8Array {
  const pages = new Uint8Array(sizeBytes / PAGE_SIZE);
  for (const region of map) {
    if (region.type !== E820_RAM) continue;
    pages.fill(1, Math.floor(region.start / PAGE_SIZE), Math.ceil(region.end / PAGE_SIZE));
  }
  return pages;
}
