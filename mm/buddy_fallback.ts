/**
 * When a type's own lists are empty: claiming foreign pageblocks, stealing foreign blocks (B9, theory 4 of buddy.ts).
 *
 *      wants UNMOVABLE, has none        MOVABLE pageblock, 300 of 512 frames free or alike
 *      1. claim   the largest foreign block; its whole pageblock becomes UNMOVABLE, all its free blocks change lists
 *      2. steal   the smallest foreign block; the pageblock stays MOVABLE and has one unmovable page in it for ever
 *
 * Claiming is tried from the largest order down, so that a pageblock is invaded once and for good instead of many times
 * a little; it needs half of the pageblock. Stealing is what is left.
 *
 * Locks: the zone's. Source: mm/page_alloc.c (__rmqueue_claim, __rmqueue_steal, try_to_claim_block).
 */

import { asPfn } from "../kernel/types.ts";
import type { FreeLists } from "./buddy_lists.ts";
import { ALLOC_NOFRAGMENT, type FrameAllocatorDeps } from "./frame_allocator.ts";
import { FALLBACKS, MIGRATE_MOVABLE, type Migratetype } from "./migratetype.ts";
import { MAX_PAGE_ORDER, PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER } from "./mmzone.ts";
import { migratetypeOfFlags, orderOfFlags, PG_BUDDY, PG_LRU, PG_STATE } from "./page.ts";

/** B9: from this order on, even a movable request converts the pageblock that it falls back to. */
const CLAIM_MIN_ORDER = PAGEBLOCK_ORDER >>> 1;

export interface BuddyFallback {
  /** Claims, else steals, a block for `type`; 0 if nobody has one. Unlinked and cut. O(frames of a pageblock). */
  take(order: number, type: number, allocFlags: number): number;
  /** Moves the free blocks of one pageblock to the lists of `type`. O(frames of a pageblock). */
  moveFreeBlocks(blockStart: number, type: Migratetype): void;
  /** The same, and gives the pageblock that type. */
  retagPageblock(blockStart: number, type: Migratetype): void;
}

/** `takeSmallest` and `expand` as in buddy.ts. */
export function createBuddyFallback(
  { pages, pageblocks, boost }: FrameAllocatorDeps,
  free: FreeLists,
  takeSmallest: (order: number, type: number) => number,
  expand: (pfn: number, low: number, high: number, type: number) => void,
): BuddyFallback {
  const { rowAt, flagsAt } = pages;
  const { link, unlink, firstOn, account, startPfn, endPfn } = free;

  /** First type in the fallback order of `type` that has a block of `order`; −1 if none. */
  const fallbackWith = (order: number, type: number): number => {
    const row = FALLBACKS[type] as readonly Migratetype[];
    for (let i = 0; i < row.length; i++) {
      if (firstOn(order, row[i] as number) !== 0) return row[i] as number;
    }
    return -1;
  };

  /** B9: may a request of `type` try to convert the pageblock of a foreign block of `order`? */
  const mayClaim = (order: number, type: number): boolean => order >= CLAIM_MIN_ORDER || type !== MIGRATE_MOVABLE;

  /**
   * Frames of a pageblock that a request of `type` would not have to share: free ones, and what is like it. No more is
   * counted than shows that there are too few.
   */
  const nrFreeOrAlike = (blockStart: number, type: number, foreign: number): number => {
    const end = blockStart + PAGEBLOCK_NR_PAGES;
    let nrSo = 0;
    for (let row = blockStart; row < end && nrSo + end - row >= PAGEBLOCK_NR_PAGES / 2; ) {
      const flags = flagsAt(rowAt(row));
      const isFree = (flags & PG_BUDDY) !== 0;
      const isMovable = !isFree && (flags & PG_LRU) !== 0;
      // The frames behind the first of a block have no flags (PAGE-2); on the lists of reclaim each has its own.
      const nr = (flags & PG_STATE) !== 0 && !isMovable ? Math.min(1 << orderOfFlags(flags), end - row) : 1;
      const isAlike = type === MIGRATE_MOVABLE ? isMovable : foreign === MIGRATE_MOVABLE && !isMovable;
      if (isFree || isAlike) nrSo += nr;
      row += nr;
    }
    return nrSo;
  };

  /** Takes over a foreign block with its pageblock, if enough of that is free or alike; 0 otherwise. */
  const claimBlock = (pfn: number, current: number, order: number, type: number, foreign: number): number => {
    if (current >= PAGEBLOCK_ORDER) {
      unlink(pfn, current, foreign);
      pageblocks.setRange(asPfn(pfn), current, type as Migratetype);
      expand(pfn, order, current, type);
      return pfn;
    }
    // Memory gets fragmented here: more of it is to be free, so that it happens less often.
    boost?.();
    const blockStart = pfn & ~(PAGEBLOCK_NR_PAGES - 1);
    if (blockStart < startPfn() || blockStart + PAGEBLOCK_NR_PAGES > endPfn()) return 0;
    if (nrFreeOrAlike(blockStart, type, foreign) < PAGEBLOCK_NR_PAGES / 2) return 0;
    retagPageblock(blockStart, type as Migratetype);
    return takeSmallest(order, type);
  };

  /** Moves the free blocks of one pageblock to the lists of `type`. */
  const moveFreeBlocks = (blockStart: number, type: Migratetype): void => {
    for (let row = blockStart; row < blockStart + PAGEBLOCK_NR_PAGES; ) {
      const flags = flagsAt(rowAt(row));
      if ((flags & PG_BUDDY) === 0) {
        row++;
        continue;
      }
      const order = orderOfFlags(flags);
      const oldType = migratetypeOfFlags(flags);
      unlink(row, order, oldType);
      account(-(1 << order), oldType);
      link(row, order, type, false);
      account(1 << order, type);
      row += 1 << order;
    }
  };

  /** The same, and gives the pageblock that type. */
  const retagPageblock = (blockStart: number, type: Migratetype): void => {
    moveFreeBlocks(blockStart, type);
    pageblocks.setMigratetype(asPfn(blockStart), type);
  };

  /** B9, claim: the largest foreign block first. */
  const takeByClaiming = (order: number, type: number, allocFlags: number): number => {
    const lowest = (allocFlags & ALLOC_NOFRAGMENT) !== 0 ? Math.max(order, PAGEBLOCK_ORDER) : order;
    for (let current = MAX_PAGE_ORDER; current >= lowest; current--) {
      if (!mayClaim(current, type)) break;
      const foreign = fallbackWith(current, type);
      if (foreign < 0) continue;
      const pfn = claimBlock(firstOn(current, foreign), current, order, type, foreign);
      if (pfn !== 0) return pfn;
    }
    return 0;
  };

  /** B9, steal: the smallest foreign block; its pageblock keeps its type. */
  const takeByStealing = (order: number, type: number): number => {
    for (let current = order; current <= MAX_PAGE_ORDER; current++) {
      const foreign = fallbackWith(current, type);
      if (foreign < 0) continue;
      const pfn = firstOn(current, foreign);
      unlink(pfn, current, foreign);
      expand(pfn, order, current, foreign);
      return pfn;
    }
    return 0;
  };

  return {
    take(order, type, allocFlags) {
      const claimed = takeByClaiming(order, type, allocFlags);
      return claimed === 0 && (allocFlags & ALLOC_NOFRAGMENT) === 0 ? takeByStealing(order, type) : claimed;
    },
    moveFreeBlocks,
    retagPageblock,
  };
}
