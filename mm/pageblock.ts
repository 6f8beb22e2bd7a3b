/**
 * Pageblocks: ranges of 512 frames that hold pages of one mobility, as far as possible.
 *
 * One byte per pageblock in RAM: its migrate type. The type says on which free list a freed block goes (B3), so pages
 * of one kind stay together. Written under the zone's lock. Linux packs four bits each (mm/page_alloc.c).
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { Pfn, PhysAddr } from "../kernel/types.ts";
import type { Migratetype } from "./migratetype.ts";
import { PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER } from "./mmzone.ts";

export interface Pageblocks {
  readonly bytes: number;
  migratetype(pfn: Pfn): Migratetype;
  setMigratetype(pfn: Pfn, type: Migratetype): void;
  /** Retags every pageblock of a block of order ≥ 9. */
  setRange(pfn: Pfn, order: number, type: Migratetype): void;
}

export const pageblockBytes = (nrFrames: number): number => Math.ceil(nrFrames / PAGEBLOCK_NR_PAGES);

/** View over one byte per pageblock at `base`, zeroed (all UNMOVABLE). */
export function createPageblocks(port: MemoryPort, base: PhysAddr, nrFrames: number): Pageblocks {
  return {
    bytes: pageblockBytes(nrFrames),
    migratetype: (pfn) => port.ld8(base + (pfn >>> PAGEBLOCK_ORDER)) as Migratetype,
    setMigratetype: (pfn, type) => port.st8(base + (pfn >>> PAGEBLOCK_ORDER), type),
    setRange(pfn, order, type) {
      const first = pfn >>> PAGEBLOCK_ORDER;
      for (let block = first; block < first + (1 << (order - PAGEBLOCK_ORDER)); block++) port.st8(base + block, type);
    },
  };
}
