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
 * count per list in struct zone, the type of each pageblock. Nothing else. Invariants, walked by check():
 *
 *   BUD-1  a free block of order o starts at a multiple of 2^o                                        (B2)
 *   BUD-2  the first frame of a free block says PG_BUDDY, its order and its list; the others say nothing
 *   BUD-3  free blocks are disjoint and inside the zone
 *   BUD-4  no two free buddies of equal order stand side by side, unless their types must not merge   (B5)
 *   BUD-5  a block is on the list that its flags say, and each list is as long as its count
 *   BUD-6  nr_free = Σ over lists of count · 2^order, without ISOLATE; nr_free_cma, _highatomic too  (W9)
 *   BUD-7  below order 9, a block is on the list of its pageblock's type
 *
 * Locks: the zone's lock, interrupts off. Steps: O(MAX_PAGE_ORDER); takeRange, isolate, unisolate O(frames).
 *
 * Where Linux differs: free blocks are linked through `struct page` there as well; watermark boosting on a fragmenting
 * fallback (B11) is not done here because there is no kswapd to bring it down again. Knuth, TAOCP 1, 2.5 (algorithms R
 * and S); mm/page_alloc.c (__free_one_page, __rmqueue, try_to_steal_block).
 */

import { CYC_BUDDY_FIND, CYC_BUDDY_STEP } from "../kernel/arch/charges.ts";
import { asPfn, NO_PFN, type Pfn } from "../kernel/types.ts";
import { EBUSY, EINVAL } from "../kernel/uapi/errno.ts";
import { checkBuddy } from "./buddy_check.ts";
import { ALLOC_CMA, ALLOC_NOFRAGMENT, type FrameAllocator, type FrameAllocatorDeps } from "./frame_allocator.ts";
import {
  FALLBACKS,
  MIGRATE_CMA,
  MIGRATE_ISOLATE,
  MIGRATE_MOVABLE,
  MIGRATE_PCPTYPES,
  type Migratetype,
  migratetypeIsMergeable,
  NR_MIGRATETYPES,
} from "./migratetype.ts";
import {
  MAX_PAGE_ORDER,
  PAGEBLOCK_NR_PAGES,
  PAGEBLOCK_ORDER,
  Z_FREE_COUNT,
  Z_NR_FREE,
  Z_NR_FREE_CMA,
  Z_NR_FREE_HIGHATOMIC,
  Z_NR_FREE_LEAST,
  Z_SPANNED,
  Z_START_PFN,
} from "./mmzone.ts";
import {
  MT_MASK,
  MT_SHIFT,
  migratetypeOfFlags,
  ORDER_MASK,
  ORDER_SHIFT,
  orderOfFlags,
  PG_ALLOCATED,
  PG_BUDDY,
  PG_LRU,
  PG_PCP,
  PG_STATE,
  ZONE_MASK,
  ZONE_SHIFT,
} from "./page.ts";

/** B9: from this order on, even a movable request converts the pageblock that it falls back to. */
const CLAIM_MIN_ORDER = PAGEBLOCK_ORDER >>> 1;

/** What a freed block may have been: handed out directly, or through a per-CPU list. */
const PG_OUT = PG_ALLOCATED | PG_PCP;

/** Copies for the fast paths: why, see slab_objects.ts. */
const TOP_ORDER = MAX_PAGE_ORDER;
const BLOCK_ORDER = PAGEBLOCK_ORDER;
const BLOCK_PAGES = PAGEBLOCK_NR_PAGES;
const TYPES = NR_MIGRATETYPES;
const PCP_TYPES = MIGRATE_PCPTYPES;
const MOVABLE = MIGRATE_MOVABLE;
const CMA = MIGRATE_CMA;
const ISOLATED = MIGRATE_ISOLATE;
const NR_FREE = Z_NR_FREE;
const LEAST_FREE = Z_NR_FREE_LEAST;
const FREE_COUNTS = Z_FREE_COUNT;
const START_PFN = Z_START_PFN;
const SPANNED = Z_SPANNED;
const FREE = PG_BUDDY;
const OUT = PG_ALLOCATED;
const ORDER_AT = ORDER_SHIFT;
const OF_ORDER = ORDER_MASK;
const TYPE_AT = MT_SHIFT;
const TYPE_OF_SHIFTED = MT_MASK >>> MT_SHIFT;
const OF_ZONE = ZONE_MASK;
const NO_FRAGMENT = ALLOC_NOFRAGMENT;
const BORROWS = ALLOC_CMA;
const FIND_CYCLES = CYC_BUDDY_FIND;
const STEP_CYCLES = CYC_BUDDY_STEP;
const INVALID = -EINVAL;
const NONE = NO_PFN;
const toPfn = asPfn;

/** A buddy over the frames of one zone. */
export function createBuddy(deps: FrameAllocatorDeps): FrameAllocator {
  const { port, pages, lists, pageblocks, zoneAddr, firstHead, charge } = deps;
  const { rowAt, flagsAt, setFlagsAt } = pages;
  const counts = zoneAddr + FREE_COUNTS;
  const { migratetype } = pageblocks;
  const zoneBits = deps.zone << ZONE_SHIFT;
  const headOf = (order: number, type: number): number => firstHead + order * TYPES + type;

  /** freeCountAddr() of this zone. */
  const countAddr = (order: number, type: number): number => counts + (order * TYPES + type) * 4;
  const typeOf = (flags: number): number => (flags >>> TYPE_AT) & TYPE_OF_SHIFTED;

  for (let head = firstHead; head < firstHead + (TOP_ORDER + 1) * TYPES; head++) lists.init(head);

  const startPfn = (): number => port.ld32(zoneAddr + START_PFN);
  const endPfn = (): number => startPfn() + port.ld32(zoneAddr + SPANNED);

  // ── One block on, or off, its list ───────────────────────────────────────────────────────────────────────────────

  const link = (pfn: number, order: number, type: number, toTail: boolean): void => {
    setFlagsAt(rowAt(pfn), zoneBits | FREE | (order << ORDER_AT) | (type << TYPE_AT));
    const count = countAddr(order, type);
    port.st32(count, port.ld32(count) + 1);
    if (toTail) lists.addTail(headOf(order, type), pfn);
    else lists.addHead(headOf(order, type), pfn);
  };

  const unlink = (pfn: number, order: number, type: number): void => {
    lists.remove(pfn);
    const count = countAddr(order, type);
    port.st32(count, port.ld32(count) - 1);
    setFlagsAt(rowAt(pfn), zoneBits);
  };

  /** First block on a list, or 0. */
  const firstOn = (order: number, type: number): number => {
    const head = headOf(order, type);
    const row = lists.first(head);
    return row === head ? 0 : row;
  };

  /** BUD-6: `nrPages` frames came to, or (negative) left, the lists of `type`. */
  const account = (nrPages: number, type: number): void => {
    if (type === ISOLATED) return;
    port.st32(zoneAddr + NR_FREE, port.ld32(zoneAddr + NR_FREE) + nrPages);
    if (type < PCP_TYPES) return;
    const counter = zoneAddr + (type === CMA ? Z_NR_FREE_CMA : Z_NR_FREE_HIGHATOMIC);
    port.st32(counter, port.ld32(counter) + nrPages);
  };

  /** Remembers the worst moment. */
  const noteLeastFree = (): void => {
    const nrFree = port.ld32(zoneAddr + NR_FREE);
    if (nrFree < port.ld32(zoneAddr + LEAST_FREE)) port.st32(zoneAddr + LEAST_FREE, nrFree);
  };

  /** True if a free block of exactly `order` of this zone starts at `pfn` (B3): one masked compare. */
  const isFreeBlock = (pfn: number, order: number): boolean =>
    (flagsAt(rowAt(pfn)) & (OF_ZONE | FREE | OF_ORDER)) === (zoneBits | FREE | (order << ORDER_AT));

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
    for (let current = order; current <= TOP_ORDER; current++) {
      const pfn = firstOn(current, type);
      if (pfn === 0) continue;
      unlink(pfn, current, type);
      expand(pfn, order, current, type);
      return pfn;
    }
    return 0;
  };

  /** First type in the fallback order of `type` that has a block of `order`; −1 if none. */
  const fallbackWith = (order: number, type: number): number => {
    const row = FALLBACKS[type] as readonly Migratetype[];
    for (let i = 0; i < row.length; i++) {
      if (firstOn(order, row[i] as number) !== 0) return row[i] as number;
    }
    return -1;
  };

  /** B9: may a request of `type` try to convert the pageblock of a foreign block of `order`? */
  const mayClaim = (order: number, type: number): boolean => order >= CLAIM_MIN_ORDER || type !== MOVABLE;

  /** Takes over a foreign block with its pageblock, if enough of that is free or alike; 0 otherwise. */
  const claimBlock = (pfn: number, current: number, order: number, type: number, foreign: number): number => {
    if (current >= BLOCK_ORDER) {
      unlink(pfn, current, foreign);
      pageblocks.setRange(toPfn(pfn), current, type as Migratetype);
      expand(pfn, order, current, type);
      return pfn;
    }
    const blockStart = pfn & ~(BLOCK_PAGES - 1);
    if (blockStart < startPfn() || blockStart + BLOCK_PAGES > endPfn()) return 0;
    let free = 0;
    let movable = 0;
    for (let row = blockStart; row < blockStart + BLOCK_PAGES; ) {
      const flags = flagsAt(rowAt(row));
      if ((flags & FREE) !== 0) {
        free += 1 << orderOfFlags(flags);
        row += 1 << orderOfFlags(flags);
        continue;
      }
      if ((flags & PG_LRU) !== 0) movable++;
      row++;
    }
    const others = BLOCK_PAGES - free - movable;
    const alike = type === MOVABLE ? movable : foreign === MOVABLE ? others : 0;
    if (free + alike < BLOCK_PAGES / 2) return 0;
    retagPageblock(blockStart, type as Migratetype);
    return takeSmallest(order, type);
  };

  /** Moves the free blocks of one pageblock to the lists of `type`. */
  const moveFreeBlocks = (blockStart: number, type: Migratetype): void => {
    for (let row = blockStart; row < blockStart + BLOCK_PAGES; ) {
      const flags = flagsAt(rowAt(row));
      if ((flags & FREE) === 0) {
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
    pageblocks.setMigratetype(toPfn(blockStart), type);
  };

  /** B9, claim: the largest foreign block first. */
  const takeByClaiming = (order: number, type: number, allocFlags: number): number => {
    const lowest = (allocFlags & NO_FRAGMENT) !== 0 ? Math.max(order, BLOCK_ORDER) : order;
    for (let current = TOP_ORDER; current >= lowest; current--) {
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
    for (let current = order; current <= TOP_ORDER; current++) {
      const foreign = fallbackWith(current, type);
      if (foreign < 0) continue;
      const pfn = firstOn(current, foreign);
      unlink(pfn, current, foreign);
      expand(pfn, order, current, foreign);
      return pfn;
    }
    return 0;
  };

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
      pfn = takeByClaiming(order, migratetype, allocFlags);
      if (pfn === 0 && (allocFlags & NO_FRAGMENT) === 0) pfn = takeByStealing(order, migratetype);
    }
    return pfn === 0 ? NONE : handOut(pfn, order, migratetype);
  };

  /** B9: so that the area does not lie idle while the rest runs out. */
  const cmaIsMostOfFree = (): boolean => port.ld32(zoneAddr + Z_NR_FREE_CMA) > port.ld32(zoneAddr + NR_FREE) >>> 1;

  // ── Ranges ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Frees `[start, end)`, frames without state, as the largest aligned blocks that it consists of. */
  const freeFrames = (start: number, end: number, merge: boolean): void => {
    let pfn = start;
    while (pfn < end) {
      let order = 0;
      while (order < TOP_ORDER && pfn % (2 << order) === 0 && pfn + (2 << order) <= end) order++;
      const type = pageblocks.migratetype(toPfn(pfn));
      account(1 << order, type);
      if (merge) mergeAndLink(pfn, order, type);
      else link(pfn, order, type, false);
      pfn += 1 << order;
    }
  };

  const addFreeRange = (start: Pfn, end: Pfn): void => {
    for (let pfn = start as number; pfn < end; pfn++) {
      setFlagsAt(rowAt(pfn), flagsAt(rowAt(pfn)) & ~(PG_STATE | OF_ORDER | MT_MASK));
    }
    freeFrames(start, end, true);
  };

  /** First frame of the free block that covers `pfn`; 0 if the frame is not free. */
  const freeBlockAround = (pfn: number): number => {
    for (let order = 0; order <= TOP_ORDER; order++) {
      const start = pfn & ~((1 << order) - 1);
      if (start !== 0 && isFreeBlockAtLeast(start, order)) return start;
    }
    return 0;
  };
  const isFreeBlockAtLeast = (pfn: number, order: number): boolean => {
    const flags = flagsAt(rowAt(pfn));
    return (flags & (OF_ZONE | FREE)) === (zoneBits | FREE) && orderOfFlags(flags) >= order;
  };

  const takeRange = (start: Pfn, end: Pfn): number => {
    if (start >= end || start < startPfn() || end > endPfn()) return INVALID;
    for (let pfn = start as number; pfn < end; ) {
      const block = freeBlockAround(pfn);
      if (block === 0) return -EBUSY;
      pfn = block + (1 << orderOfFlags(flagsAt(rowAt(block))));
    }
    for (let pfn = start as number; pfn < end; ) {
      const block = freeBlockAround(pfn);
      const flags = flagsAt(rowAt(block));
      const blockEnd = block + (1 << orderOfFlags(flags));
      unlink(block, orderOfFlags(flags), migratetypeOfFlags(flags));
      account(block - blockEnd, migratetypeOfFlags(flags));
      // The block may reach over both ends of the range: give those parts back, unmerged.
      if (block < pfn) freeFrames(block, pfn, false);
      if (blockEnd > end) freeFrames(end, blockEnd, false);
      pfn = Math.min(blockEnd, end);
    }
    for (let pfn = start as number; pfn < end; pfn++) setFlagsAt(rowAt(pfn), zoneBits | OUT);
    noteLeastFree();
    return 0;
  };

  // ── Isolation ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Cuts a free block that reaches over the edges of the pageblock at `blockStart` into pageblocks. */
  const cutAtPageblock = (blockStart: number): void => {
    const block = freeBlockAround(blockStart);
    if (block === 0) return;
    const flags = flagsAt(rowAt(block));
    const end = block + (1 << orderOfFlags(flags));
    if (end - block <= BLOCK_PAGES) return;
    const type = migratetypeOfFlags(flags);
    unlink(block, orderOfFlags(flags), type);
    for (let part = block; part < end; part += BLOCK_PAGES) link(part, BLOCK_ORDER, type, false);
  };

  /** BUD-4: a pageblock that is free as a whole may merge with its neighbours under its new type. */
  const mergePageblock = (blockStart: number, type: Migratetype): void => {
    if (!isFreeBlock(blockStart, BLOCK_ORDER)) return;
    unlink(blockStart, BLOCK_ORDER, type);
    mergeAndLink(blockStart, BLOCK_ORDER, type);
  };

  const retype = (pfn: Pfn, type: Migratetype): boolean => {
    const blockStart = pfn & ~(BLOCK_PAGES - 1);
    if (blockStart < startPfn() || blockStart + BLOCK_PAGES > endPfn()) return false;
    cutAtPageblock(blockStart);
    retagPageblock(blockStart, type);
    mergePageblock(blockStart, type);
    return true;
  };

  const firstFree = (type: Migratetype): Pfn => {
    let pfn = 0;
    for (let order = 0; order <= TOP_ORDER && pfn === 0; order++) pfn = firstOn(order, type);
    return toPfn(pfn);
  };

  const isolate = (blockStart: Pfn): void => {
    if (pageblocks.migratetype(blockStart) === ISOLATED) return;
    cutAtPageblock(blockStart);
    moveFreeBlocks(blockStart, ISOLATED);
    pageblocks.isolate(blockStart);
    mergePageblock(blockStart, ISOLATED);
  };

  const unisolate = (blockStart: Pfn): void => {
    if (pageblocks.migratetype(blockStart) !== ISOLATED) return;
    cutAtPageblock(blockStart);
    pageblocks.restore(blockStart);
    const type = pageblocks.migratetype(blockStart);
    moveFreeBlocks(blockStart, type);
    mergePageblock(blockStart, type);
  };

  return {
    addFreeRange,
    allocBlock,
    freeBlock,
    takeRange,
    isolate,
    unisolate,
    retype,
    firstFree,
    nrFree: () => port.ld32(zoneAddr + NR_FREE),
    check: () => checkBuddy(deps),
  };
}
