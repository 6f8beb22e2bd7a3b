/**
 * What a virtual machine tells its host about its memory, so that the host knows what it may ask for.
 *
 * One entry of the array is tag and value: u32 tag, u32 low, u32 high. Tags, units and names as in virtio (virtio 1.2,
 * 5.5.6.3; QEMU's guest-stats): sizes in bytes, events since boot.
 *
 * | tag | name             | meaning                                              |
 * |-----|------------------|------------------------------------------------------|
 * | 0 1 | swap-in, -out    | bytes that came from, and went to, swap              |
 * | 2 3 | major-, minor-faults |                                                  |
 * | 4   | free-memory      | bytes that nobody uses                               |
 * | 5   | total-memory     | bytes that the kernel manages                        |
 * | 6   | available-memory | bytes that could be had without swapping             |
 * | 7   | disk-caches      | bytes in the page cache                              |
 * | 10  | oom-kills        |                                                      |
 * | 11  | alloc-stalls     | times that somebody had to free memory to get some   |
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { PhysAddr } from "../kernel/types.ts";

export const STAT_FREE = 4;
export const STAT_AVAILABLE = 6;

/** Tags, in the order in which they are sent. */
export const GUEST_STATS = [
  [0, "swap-in"],
  [1, "swap-out"],
  [2, "major-faults"],
  [3, "minor-faults"],
  [STAT_FREE, "free-memory"],
  [5, "total-memory"],
  [STAT_AVAILABLE, "available-memory"],
  [7, "disk-caches"],
  [10, "oom-kills"],
  [11, "alloc-stalls"],
] as const;

export type GuestStat = (typeof GUEST_STATS)[number][1];
/** Values by name: bytes, or numbers of events. */
export type GuestMemory = Readonly<Record<GuestStat, number>>;

const ENTRY_BYTES = 12;
export const STATS_BYTES = GUEST_STATS.length * ENTRY_BYTES;

/** The driver's side: writes the array. */
export function writeStats(port: MemoryPort, at: PhysAddr, memory: GuestMemory): void {
  GUEST_STATS.forEach(([tag, name], i) => {
    const entry = at + i * ENTRY_BYTES;
    port.st32(entry, tag);
    port.st32(entry + 4, memory[name] % 2 ** 32);
    port.st32(entry + 8, Math.floor(memory[name] / 2 ** 32));
  });
}

/** The host's side: values by tag. */
export function readStats(bytes: Uint8Array): ReadonlyMap<number, number> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = new Map<number, number>();
  for (let at = 0; at + ENTRY_BYTES <= bytes.length; at += ENTRY_BYTES) {
    values.set(view.getUint32(at, true), view.getUint32(at + 8, true) * 2 ** 32 + view.getUint32(at + 4, true));
  }
  return values;
}
