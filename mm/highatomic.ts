/**
 * The high-order atomic reserve: pageblocks kept for interrupt handlers that need more than one page.
 *
 * An interrupt handler cannot wait for somebody to make a contiguous block. So when one such request had to go to the
 * slow path and was served, the pageblock that served it is *reserved*: its free pages move to lists of their own
 * (MIGRATE_HIGHATOMIC), which ordinary requests do not see. The reserve follows the load and needs no configuration;
 * it is at most one percent of a zone, and a zone of which one percent is less than a pageblock has none (B10).
 *
 *   atomic, order > 0, served below `low` ──▶ reserve ──▶ pageblock HIGHATOMIC ──▶ the next such request
 *                                                             │
 *   a request that may sleep is about to fail ──▶ unreserve ◀─┘   all but one pageblock; before giving up, that one too
 *
 *   HIA-1  pages in reserved pageblocks ≤ ALIGN(managed / 100, pageblock), and 0 if managed / 100 < pageblock
 *   HIA-2  reserved = 512 · pageblocks whose type is HIGHATOMIC                        (one that is isolated counts)
 *   HIA-3  the free pages on HIGHATOMIC lists are counted, and do not count for a request without reserves   (W4)
 *
 * Locks: the zone's lock, taken here. Context: any. Source: mm/page_alloc.c (reserve_highatomic_pageblock,
 * unreserve_highatomic_pageblock).
 */

import type { Spinlocks } from "../kernel/spinlock.ts";
import { asPhys, type Context, NO_PFN, type Pfn } from "../kernel/types.ts";
import type { FrameAllocator } from "./frame_allocator.ts";
import { MIGRATE_HIGHATOMIC, type Migratetype, migratetypeIsMergeable } from "./migratetype.ts";
import { PAGEBLOCK_NR_PAGES, Z_LOCK, Z_MANAGED, Z_NR_RESERVED_HIGHATOMIC, type Zones } from "./mmzone.ts";
import type { Pageblocks } from "./pageblock.ts";

export interface HighAtomic {
  /** The block at `pfn` has just served a request that may have a reserve: keeps its pageblocks for the next. */
  reserve(ctx: Context, zone: number, pfn: Pfn, order: number): void;
  /** Gives a pageblock of the zones up to `highest` to `type`, a zone's last one if `force`; false if none. */
  unreserve(ctx: Context, highest: number, type: Migratetype, force: boolean): boolean;
}

/** B10: most pages that the reserve of a zone of `managed` pages may have. Pure. */
export function highatomicCap(managed: number): number {
  const percent = Math.floor(managed / 100);
  return percent < PAGEBLOCK_NR_PAGES ? 0 : Math.ceil(percent / PAGEBLOCK_NR_PAGES) * PAGEBLOCK_NR_PAGES;
}

export function createHighAtomic(
  spinlocks: Spinlocks,
  zones: Zones,
  pageblocks: Pageblocks,
  frames: readonly FrameAllocator[],
): HighAtomic {
  const { spinLockIrqsave, spinUnlockIrqrestore } = spinlocks;
  const nrReserved = (zone: number): number => zones.field(zone, Z_NR_RESERVED_HIGHATOMIC);

  const reserveLocked = (zone: number, pfn: Pfn, order: number): void => {
    for (let block = pfn as number; block < pfn + (1 << order); block += PAGEBLOCK_NR_PAGES) {
      const type = pageblocks.migratetype(block as Pfn);
      if (nrReserved(zone) >= highatomicCap(zones.field(zone, Z_MANAGED)) || !migratetypeIsMergeable(type)) return;
      if (!(frames[zone] as FrameAllocator).retype(block as Pfn, MIGRATE_HIGHATOMIC)) return;
      zones.setField(zone, Z_NR_RESERVED_HIGHATOMIC, nrReserved(zone) + PAGEBLOCK_NR_PAGES);
    }
  };

  const unreserveLocked = (zone: number, type: Migratetype): boolean => {
    const free = (frames[zone] as FrameAllocator).firstFree(MIGRATE_HIGHATOMIC);
    if (free === NO_PFN || !(frames[zone] as FrameAllocator).retype(free, type)) return false;
    zones.setField(zone, Z_NR_RESERVED_HIGHATOMIC, nrReserved(zone) - PAGEBLOCK_NR_PAGES);
    return true;
  };

  return {
    reserve(ctx, zone, pfn, order) {
      // A look without the lock: most zones are too small for a reserve.
      if (nrReserved(zone) >= highatomicCap(zones.field(zone, Z_MANAGED))) return;
      const lock = asPhys(zones.addr(zone) + Z_LOCK);
      const irq = spinLockIrqsave(ctx, lock);
      reserveLocked(zone, pfn, order);
      spinUnlockIrqrestore(ctx, lock, irq);
    },
    unreserve(ctx, highest, type, force) {
      for (let zone = highest; zone >= 0; zone--) {
        const nr = nrReserved(zone);
        if (nr === 0 || (!force && nr <= PAGEBLOCK_NR_PAGES)) continue;
        const lock = asPhys(zones.addr(zone) + Z_LOCK);
        const irq = spinLockIrqsave(ctx, lock);
        const isGiven = unreserveLocked(zone, type);
        spinUnlockIrqrestore(ctx, lock, irq);
        if (isGiven) return true;
      }
      return false;
    },
  };
}
