/**
 * Pageblocks: ranges of 512 frames that hold pages of one mobility, as far as possible.
 *
 * One byte per pageblock in RAM: its migrate type. The type says on which free list a freed block goes (B3), so pages
 * of one kind stay together. Written under the zone's lock. Linux packs four bits each (mm/page_alloc.c).
 *
 *   bit   7   6-4        3   2-0
 *         –   type that  –   type now
 *             comes back
 *
 * A pageblock that is isolated remembers what it was, so that putting it back needs no knowledge of the caller.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { Pfn, PhysAddr } from "../kernel/types.ts";
import { MIGRATE_ISOLATE, type Migratetype } from "./migratetype.ts";
import { PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER } from "./mmzone.ts";

export interface Pageblocks {
  readonly bytes: number;
  migratetype(pfn: Pfn): Migratetype;
  setMigratetype(pfn: Pfn, type: Migratetype): void;
  /** Retags every pageblock of a block of order ≥ 9. */
  setRange(pfn: Pfn, order: number, type: Migratetype): void;
  /** Makes a pageblock ISOLATE; nothing if it is already. */
  isolate(pfn: Pfn): void;
  /** Gives an isolated pageblock the type back that it had. */
  restore(pfn: Pfn): void;
}

/** A copy for the fast path: why, see slab_objects.ts. */
const BLOCK_SHIFT = PAGEBLOCK_ORDER;
const TYPE_MASK = 0x7;
const SAVED_SHIFT = 4;

export const pageblockBytes = (nrFrames: number): number => Math.ceil(nrFrames / PAGEBLOCK_NR_PAGES);

/** View over one byte per pageblock at `base`, zeroed (all UNMOVABLE). */
export function createPageblocks(port: MemoryPort, base: PhysAddr, nrFrames: number): Pageblocks {
  const migratetype = (pfn: Pfn): Migratetype => (port.ld8(base + (pfn >>> BLOCK_SHIFT)) & TYPE_MASK) as Migratetype;
  return {
    bytes: pageblockBytes(nrFrames),
    migratetype,
    setMigratetype: (pfn, type) => port.st8(base + (pfn >>> PAGEBLOCK_ORDER), type),
    setRange(pfn, order, type) {
      const first = pfn >>> PAGEBLOCK_ORDER;
      for (let block = first; block < first + (1 << (order - PAGEBLOCK_ORDER)); block++) port.st8(base + block, type);
    },
    isolate(pfn) {
      const type = migratetype(pfn);
      if (type === MIGRATE_ISOLATE) return;
      port.st8(base + (pfn >>> PAGEBLOCK_ORDER), MIGRATE_ISOLATE | (type << SAVED_SHIFT));
    },
    restore: (pfn) => {
      const addr = base + (pfn >>> PAGEBLOCK_ORDER);
      port.st8(addr, (port.ld8(addr) >>> SAVED_SHIFT) & TYPE_MASK);
    },
  };
}
