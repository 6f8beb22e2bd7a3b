/**
 * Contiguous ranges: emptying given frames, whatever is in them now, and taking them.
 *
 *      [start, end)          free   process page   slab   free
 *      1. isolate            the pageblocks that the range touches: nothing new comes in         (buddy.ts, theory 6)
 *      2. drain              frames on per-CPU lists go back to the buddies
 *      3. migrate            process pages move elsewhere; anything else ends the attempt with −EBUSY
 *      4. take               every frame of the range is free now: out of the lists, one by one
 *      5. un-isolate         always; what was freed in the pageblocks goes back to their own lists
 *
 * The buddy serves blocks of at most 4 MiB, and after a while of running hardly those. A range taken in this way may be
 * of any size, at the price of copying what is in the way.
 *
 *   CTG-1  0: every frame of the range, and no other, is allocated, as a block of order 0 with one holder
 *   CTG-2  an error leaves no pageblock isolated and no page lost; pages that have moved stay where they are now
 *   CTG-3  nothing is isolated before each frame of the range has been seen to be free or movable
 *
 * Locks: the zone's lock, for one step at a time; interrupts are on in between. Context: process; never sleeps.
 * Source: mm/page_alloc.c (alloc_contig_range), mm/page_isolation.c. Linux tries each page five times, since another
 * CPU may hold it for a moment; here nothing else runs during a call, so a page that cannot move now will not.
 */

import type { Spinlocks } from "../kernel/spinlock.ts";
import { alignDown, alignUp, asPfn, asPhys, type Context, type Pfn } from "../kernel/types.ts";
import { EBUSY, EINVAL } from "../kernel/uapi/errno.ts";
import type { FrameAllocator } from "./frame_allocator.ts";
import { MIGRATE_ISOLATE } from "./migratetype.ts";
import { MAX_PAGE_ORDER, PAGEBLOCK_NR_PAGES, Z_LOCK, type Zones } from "./mmzone.ts";
import { orderOfFlags, type Pages, PG_ALLOCATED, PG_BUDDY, PG_PCP, PG_STATE } from "./page.ts";
import type { Pageblocks } from "./pageblock.ts";

/** Moves pages out of the way; mm/migrate.ts. */
export interface PageMover {
  /** Could the page in this frame move, as far as can be seen without trying? */
  isMovable(pfn: Pfn): boolean;
  /**
   * Moves it and frees the frame: 0, −EBUSY (it is held) or −ENOMEM (no frame to move to). `target`: the allocated
   * frame to move to, which stays the caller's if the page does not move; without one a frame is allocated.
   */
  migratePage(ctx: Context, pfn: Pfn, target?: Pfn): number;
}

export interface ContigRanges {
  /** Takes the frames `[start, end)`: 0, −EBUSY, −ENOMEM, or −EINVAL (not inside one zone). O(frames). */
  alloc(ctx: Context, start: Pfn, end: Pfn): number;
  /** Registers who moves pages; without it only free frames can be taken. */
  onMigrate(mover: PageMover): void;
}

export interface ContigRangeDeps {
  readonly spinlocks: Spinlocks;
  readonly pages: Pages;
  readonly pageblocks: Pageblocks;
  readonly zones: Zones;
  readonly frames: readonly FrameAllocator[];
  readonly drainAllPages: (ctx: Context) => number;
}

export function createContigRanges(deps: ContigRangeDeps): ContigRanges {
  const { spinlocks, pages, pageblocks, zones, frames, drainAllPages } = deps;
  const { spinLockIrqsave, spinUnlockIrqrestore } = spinlocks;
  let mover: PageMover | undefined;

  const withZoneLock = <T>(ctx: Context, zone: number, work: (buddy: FrameAllocator) => T): T => {
    const lock = asPhys(zones.addr(zone) + Z_LOCK);
    const irq = spinLockIrqsave(ctx, lock);
    const result = work(frames[zone] as FrameAllocator);
    spinUnlockIrqrestore(ctx, lock, irq);
    return result;
  };

  const flagsOf = (pfn: number): number => pages.flags(asPfn(pfn));

  /** First frame of the block that `pfn` lies in; `pfn` itself if it is in none. */
  const blockAround = (pfn: number): number => {
    for (let order = 0; order <= MAX_PAGE_ORDER; order++) {
      const start = pfn & ~((1 << order) - 1);
      const flags = flagsOf(start);
      if ((flags & PG_STATE) !== 0 && orderOfFlags(flags) >= order) return start;
    }
    return pfn;
  };

  const firstBlock = (start: number): number => alignDown(start, PAGEBLOCK_NR_PAGES);

  /** CTG-3: the first frame of the range that is in the way for good, or −1. */
  const findUnmovable = (start: number, end: number): number => {
    for (let pfn = start; pfn < end; ) {
      const block = blockAround(pfn);
      const flags = flagsOf(block);
      if ((flags & (PG_BUDDY | PG_PCP)) === 0) {
        const canMove = (flags & PG_ALLOCATED) !== 0 && mover?.isMovable(asPfn(block)) === true;
        if (!canMove) return pfn;
      }
      pfn = block + (1 << orderOfFlags(flags));
    }
    return -1;
  };

  const unisolateRange = (ctx: Context, zone: number, from: number, to: number): void => {
    for (let block = from; block < to; block += PAGEBLOCK_NR_PAGES) {
      withZoneLock(ctx, zone, (buddy) => buddy.unisolate(asPfn(block)));
    }
  };

  /** Isolates the pageblocks of `[from, to)`; −EBUSY if somebody else has isolated one of them. */
  const isolateRange = (ctx: Context, zone: number, from: number, to: number): number => {
    for (let block = from; block < to; block += PAGEBLOCK_NR_PAGES) {
      if (pageblocks.migratetype(asPfn(block)) === MIGRATE_ISOLATE) {
        unisolateRange(ctx, zone, from, block);
        return -EBUSY;
      }
      withZoneLock(ctx, zone, (buddy) => buddy.isolate(asPfn(block)));
    }
    return 0;
  };

  /** Moves every page of the range elsewhere. */
  const evacuate = (ctx: Context, start: number, end: number): number => {
    for (let pfn = start; pfn < end; ) {
      const block = blockAround(pfn);
      const flags = flagsOf(block);
      if ((flags & PG_BUDDY) !== 0) {
        pfn = block + (1 << orderOfFlags(flags));
        continue;
      }
      if (mover === undefined || (flags & PG_ALLOCATED) === 0) return -EBUSY;
      const result = mover.migratePage(ctx, asPfn(block));
      if (result !== 0) return result;
    }
    return 0;
  };

  const alloc = (ctx: Context, start: Pfn, end: Pfn): number => {
    const zone = zones.zoneOfPfn(start);
    if (zone < 0 || end <= start || zones.zoneOfPfn(asPfn(end - 1)) !== zone) return -EINVAL;
    if (findUnmovable(start, end) >= 0) return -EBUSY;
    const [from, to] = [firstBlock(start), alignUp(end, PAGEBLOCK_NR_PAGES)];
    let result = isolateRange(ctx, zone, from, to);
    if (result !== 0) return result;
    drainAllPages(ctx);
    result = evacuate(ctx, start, end);
    if (result === 0) result = withZoneLock(ctx, zone, (buddy) => buddy.takeRange(start, end));
    unisolateRange(ctx, zone, from, to);
    if (result !== 0) return result;
    for (let pfn = start as number; pfn < end; pfn++) pages.setRefcount(asPfn(pfn), 1);
    return 0;
  };

  return {
    alloc,
    onMigrate(newMover) {
      mover = newMover;
    },
  };
}
