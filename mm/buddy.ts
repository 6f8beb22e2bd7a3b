/**
 * The buddy allocator: power-of-two blocks of page frames that find their other half by one XOR.
 *
 * 1. Memory is cut into blocks of 2^order frames, order 0 … 10, each starting at a multiple of its size (B2). The
 *    *buddy* of a block is the other half of the block one order up: `pfn ^ (1 << order)` (B1). Both halves together
 *    start at `pfn & buddy`.
 *
 *        order 2   |           0           |           4           |
 *        order 1   |     0     |     2     |     4     |     6     |         buddy of 6 at order 1: 6 ^ 2 = 4
 *        order 0   |  0  |  1  |  2  |  3  |  4  |  5  |  6  |  7  |         buddy of 6 at order 0: 6 ^ 1 = 7
 *
 * 2. Allocation takes the smallest block that is large enough (B7) and halves it until it fits; the upper halves go
 *    to their free lists (B6):
 *
 *        alloc order 0 from the block 0..7:   [0 1 2 3 4 5 6 7] → 0 out, free: 1 | 2 3 | 4 5 6 7
 *
 * 3. Freeing merges: while the buddy is free *and of the same order* and of the same zone, take it off its list and
 *    go one order up (B3). At most ten steps each way, whatever the size of memory.
 *
 * 4. There are lists per order and per migrate type. A free block is on the list of its pageblock's type, so that
 *    pages that cannot move gather in few pageblocks. When the own lists are empty (B9) the ladder is: *claim* a
 *    foreign block, largest first, and convert its whole pageblock if enough of it is free or alike; else *steal* the
 *    smallest foreign block and leave the pageblock its type. Taking the largest first means that a pageblock is
 *    invaded once and for good instead of many times a little.
 *
 *    A movable request has one more place to go: the contiguous area (MIGRATE_CMA), after its own lists, and before
 *    them while the area holds more than half of what is free. Nobody else may, and pageblocks of the area are neither
 *    claimed nor merged with others.
 *
 * 5. A freed block goes to the head of its list (it is warm in the cache) unless its next-higher buddy is free too:
 *    then it is likely to merge soon and goes to the tail, so that it is not handed out in between (B4).
 *
 * 6. To empty a range (contiguous allocations), its pageblocks are *isolated*: their free blocks move to the lists of
 *    MIGRATE_ISOLATE, which nobody allocates from, and what is freed in them follows. Isolated frames are not counted
 *    as free. A free block that reaches over the edge of the pageblock is cut there first.
 *
 * State: page flags (PG_BUDDY, order and list type in the first frame of a free block), the links of page_list.ts, one
 * count per list and one bit beside it in struct zone, the type of each pageblock. Nothing else. Lists: buddy_lists.ts;
 * theory 4: buddy_fallback.ts; theory 6: buddy_range.ts. Invariants, walked by check():
 *
 *   BUD-1  a free block of order o starts at a multiple of 2^o                                        (B2)
 *   BUD-2  the first frame of a free block says PG_BUDDY, its order and its list; the others say nothing
 *   BUD-3  free blocks are disjoint and inside the zone
 *   BUD-4  no two free buddies of equal order stand side by side, unless their types must not merge   (B5)
 *   BUD-5  a block is on the list that its flags say, and each list is as long as its count
 *   BUD-6  nr_free = Σ over lists of count · 2^order, without ISOLATE; nr_free_cma, _highatomic too  (W9)
 *   BUD-7  below order 9, a block is on the list of its pageblock's type
 *   BUD-8  bit o of a type's word in struct zone is set if and only if its list of order o has a block; of the word of
 *          the ordinary types, if one of theirs has
 *
 * Locks: the zone's lock, interrupts off. Steps: O(MAX_PAGE_ORDER); takeRange, isolate, unisolate O(frames).
 *
 * Where Linux differs: free blocks are linked through `struct page` there as well. Knuth, TAOCP 1, 2.5 (algorithms R
 * and S); mm/page_alloc.c (__free_one_page, __rmqueue, try_to_steal_block).
 */

import { CYC_BUDDY_FIND, CYC_BUDDY_STEP } from "../kernel/arch/charges.ts";
import { asPfn, NO_PFN, type Pfn } from "../kernel/types.ts";
import { EINVAL } from "../kernel/uapi/errno.ts";
import { checkBuddy } from "./buddy_check.ts";
import { createBuddyFallback } from "./buddy_fallback.ts";
import { createFreeLists } from "./buddy_lists.ts";
import { createBuddyRanges } from "./buddy_range.ts";
import { ALLOC_CMA, type FrameAllocator, type FrameAllocatorDeps } from "./frame_allocator.ts";
import {
  MIGRATE_CMA,
  MIGRATE_MOVABLE,
  MIGRATE_PCPTYPES,
  type Migratetype,
  migratetypeIsMergeable,
} from "./migratetype.ts";
import { MAX_PAGE_ORDER, PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER, Z_NR_FREE, Z_NR_FREE_CMA } from "./mmzone.ts";
import { MT_MASK, MT_SHIFT, ORDER_MASK, ORDER_SHIFT, PG_ALLOCATED, PG_PCP, ZONE_MASK } from "./page.ts";

/** What a freed block may have been: handed out directly, or through a per-CPU list. */
const PG_OUT = PG_ALLOCATED | PG_PCP;

/** Copies for the fast paths: why, see slab_objects.ts. */
const TOP_ORDER = MAX_PAGE_ORDER;
const BLOCK_ORDER = PAGEBLOCK_ORDER;
const BLOCK_PAGES = PAGEBLOCK_NR_PAGES;
const PCP_TYPES = MIGRATE_PCPTYPES;
const MOVABLE = MIGRATE_MOVABLE;
const CMA = MIGRATE_CMA;
const NR_FREE = Z_NR_FREE;
const OUT = PG_ALLOCATED;
const ORDER_AT = ORDER_SHIFT;
const OF_ORDER = ORDER_MASK;
const TYPE_AT = MT_SHIFT;
const TYPE_OF_SHIFTED = MT_MASK >>> MT_SHIFT;
const OF_ZONE = ZONE_MASK;
const BORROWS = ALLOC_CMA;
const FIND_CYCLES = CYC_BUDDY_FIND;
const STEP_CYCLES = CYC_BUDDY_STEP;
const INVALID = -EINVAL;
const NONE = NO_PFN;
const toPfn = asPfn;

/** A buddy over the frames of one zone. */
export function createBuddy(deps: FrameAllocatorDeps): FrameAllocator {
  const { port, pages, pageblocks, zoneAddr, charge } = deps;
  const { rowAt, flagsAt, setFlagsAt } = pages;
  const { migratetype } = pageblocks;
  const largeFreed = deps.largeFreed ?? (() => {});
  const lists = createFreeLists(deps);
  const { zoneBits, link, unlink, firstOn, smallestOf, account, noteLeastFree, isFreeBlock, startPfn, endPfn } = lists;
  const typeOf = (flags: number): number => (flags >>> TYPE_AT) & TYPE_OF_SHIFTED;

  // ── Freeing ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** B3, second half: at and above pageblock order, may blocks of these two types become one? */
  const mayMerge = (type: number, buddyType: number): boolean =>
    type === buddyType || (migratetypeIsMergeable(type) && migratetypeIsMergeable(buddyType));

  /** Merges upwards from a block that is on no list, and links the result. */
  const mergeAndLink = (pfn: number, order: number, type: number): void => {
    let cycles = FIND_CYCLES;
    while (order < TOP_ORDER) {
      const buddy = pfn ^ (1 << order);
      if (!isFreeBlock(buddy, order)) break;
      const buddyType = typeOf(flagsAt(rowAt(buddy)));
      if (order >= BLOCK_ORDER && !mayMerge(type, buddyType)) break;
      unlink(buddy, order, buddyType);
      if (order >= BLOCK_ORDER && buddyType !== type) pageblocks.setRange(toPfn(buddy), order, type as Migratetype);
      pfn &= buddy;
      order++;
      cycles += STEP_CYCLES;
    }
    charge(cycles);
    link(pfn, order, type, mergeIsLikely(pfn, order));
    if (order >= BLOCK_ORDER) largeFreed();
  };

  /** B4: is the buddy of the block one order up free already? Then this one may soon complete the pair. */
  const mergeIsLikely = (pfn: number, order: number): boolean => {
    if (order >= TOP_ORDER - 1) return false;
    const higher = pfn & ~(1 << order);
    return isFreeBlock(higher ^ (1 << (order + 1)), order + 1);
  };

  const freeBlock = (pfn: Pfn, order: number): number => {
    if (order < 0 || order > TOP_ORDER || pfn < startPfn() || pfn + (1 << order) > endPfn()) return INVALID;
    const flags = flagsAt(rowAt(pfn));
    // FRM-3: out, of this zone, with this order; an interior frame carries no state bit.
    if ((flags & PG_OUT) === 0 || (flags & (OF_ZONE | OF_ORDER)) !== (zoneBits | (order << ORDER_AT))) {
      return INVALID;
    }
    const type = migratetype(pfn);
    setFlagsAt(rowAt(pfn), zoneBits);
    if (order > BLOCK_ORDER && pageblocks.migratetype(toPfn(pfn + BLOCK_PAGES)) !== type) {
      // One of its pageblocks was isolated while the block was out.
      freeByPageblocks(pfn, order);
      return 0;
    }
    account(1 << order, type);
    mergeAndLink(pfn, order, type);
    return 0;
  };

  const freeByPageblocks = (pfn: number, order: number): void => {
    for (let part = pfn; part < pfn + (1 << order); part += BLOCK_PAGES) {
      const type = pageblocks.migratetype(toPfn(part));
      account(BLOCK_PAGES, type);
      mergeAndLink(part, BLOCK_ORDER, type);
    }
  };

  // ── Allocating ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** B6: cuts an unlinked block of order `high` down to `low`; the upper halves go to the lists of `type`. */
  const expand = (pfn: number, low: number, high: number, type: number): void => {
    let order = high;
    while (order > low) {
      order--;
      link(pfn + (1 << order), order, type, false);
    }
    charge(FIND_CYCLES + STEP_CYCLES * (high - low));
  };

  /** Marks an unlinked block from a list of `type` as handed out. */
  const handOut = (pfn: number, order: number, type: number): Pfn => {
    setFlagsAt(rowAt(pfn), zoneBits | OUT | (order << ORDER_AT));
    account(-(1 << order), type);
    noteLeastFree();
    return toPfn(pfn);
  };

  /** B7: the smallest sufficient block of the own type; 0 if there is none. The block is unlinked and cut. */
  const takeSmallest = (order: number, type: number): number => {
    const current = smallestOf(order, type);
    if (current < 0) return 0;
    const pfn = firstOn(current, type);
    unlink(pfn, current, type);
    expand(pfn, order, current, type);
    return pfn;
  };

  const fallback = createBuddyFallback(deps, lists, takeSmallest, expand);

  const allocBlock = (order: number, migratetype: Migratetype, allocFlags: number): Pfn => {
    if (order < 0 || order > TOP_ORDER) return NONE;
    const mayBorrow = (allocFlags & BORROWS) !== 0 && migratetype === MOVABLE;
    if (mayBorrow && cmaIsMostOfFree()) {
      const borrowed = takeSmallest(order, CMA);
      if (borrowed !== 0) return handOut(borrowed, order, CMA);
    }
    let pfn = takeSmallest(order, migratetype);
    if (pfn === 0 && mayBorrow) {
      const borrowed = takeSmallest(order, CMA);
      if (borrowed !== 0) return handOut(borrowed, order, CMA);
    }
    if (pfn === 0 && migratetype < PCP_TYPES) {
      pfn = fallback.take(order, migratetype, allocFlags);
    }
    return pfn === 0 ? NONE : handOut(pfn, order, migratetype);
  };

  /** B9: so that the area does not lie idle while the rest runs out. */
  const cmaIsMostOfFree = (): boolean => port.ld32(zoneAddr + Z_NR_FREE_CMA) > port.ld32(zoneAddr + NR_FREE) >>> 1;

  return {
    ...createBuddyRanges(deps, lists, fallback, mergeAndLink),
    allocBlock,
    freeBlock,
    nrFree: () => port.ld32(zoneAddr + NR_FREE),
    check: () => checkBuddy(deps),
  };
}
