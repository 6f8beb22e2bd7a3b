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
  freeCountAddr,
  MAX_PAGE_ORDER,
  PAGEBLOCK_NR_PAGES,
  PAGEBLOCK_ORDER,
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

/** A buddy over the frames of one zone. */
export function createBuddy(deps: FrameAllocatorDeps): FrameAllocator {
  const { port, pages, lists, pageblocks, zoneAddr, firstHead, charge } = deps;
  const { flagsBase } = pages;
  const zoneBits = deps.zone << ZONE_SHIFT;
  const headOf = (order: number, type: number): number => firstHead + order * NR_MIGRATETYPES + type;

  for (let head = firstHead; head < firstHead + (MAX_PAGE_ORDER + 1) * NR_MIGRATETYPES; head++) lists.init(head);

  const startPfn = (): number => port.ld32(zoneAddr + Z_START_PFN);
  const endPfn = (): number => startPfn() + port.ld32(zoneAddr + Z_SPANNED);

  // ── One block on, or off, its list ───────────────────────────────────────────────────────────────────────────────

  const link = (pfn: number, order: number, type: number, toTail: boolean): void => {
    port.st32(flagsBase + pfn * 4, zoneBits | PG_BUDDY | (order << ORDER_SHIFT) | (type << MT_SHIFT));
    const count = freeCountAddr(zoneAddr, order, type);
    port.st32(count, port.ld32(count) + 1);
    if (toTail) lists.addTail(headOf(order, type), pfn);
    else lists.addHead(headOf(order, type), pfn);
  };

  const unlink = (pfn: number, order: number, type: number): void => {
    lists.remove(pfn);
    const count = freeCountAddr(zoneAddr, order, type);
    port.st32(count, port.ld32(count) - 1);
    port.st32(flagsBase + pfn * 4, zoneBits);
  };

  /** First block on a list, or 0. */
  const firstOn = (order: number, type: number): number => {
    const head = headOf(order, type);
    const row = lists.first(head);
    return row === head ? 0 : row;
  };

  /** BUD-6: `nrPages` frames came to, or (negative) left, the lists of `type`. */
  const account = (nrPages: number, type: number): void => {
    if (type === MIGRATE_ISOLATE) return;
    port.st32(zoneAddr + Z_NR_FREE, port.ld32(zoneAddr + Z_NR_FREE) + nrPages);
    if (type < MIGRATE_PCPTYPES) return;
    const counter = zoneAddr + (type === MIGRATE_CMA ? Z_NR_FREE_CMA : Z_NR_FREE_HIGHATOMIC);
    port.st32(counter, port.ld32(counter) + nrPages);
  };

  /** Remembers the worst moment. */
  const noteLeastFree = (): void => {
    const nrFree = port.ld32(zoneAddr + Z_NR_FREE);
    if (nrFree < port.ld32(zoneAddr + Z_NR_FREE_LEAST)) port.st32(zoneAddr + Z_NR_FREE_LEAST, nrFree);
  };

  /** True if a free block of exactly `order` of this zone starts at `pfn` (B3): one masked compare. */
  const isFreeBlock = (pfn: number, order: number): boolean =>
    (port.ld32(flagsBase + pfn * 4) & (ZONE_MASK | PG_BUDDY | ORDER_MASK)) ===
    (zoneBits | PG_BUDDY | (order << ORDER_SHIFT));

  // ── Freeing ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** B3, second half: at and above pageblock order, may blocks of these two types become one? */
  const mayMerge = (type: number, buddyType: number): boolean =>
    type === buddyType || (migratetypeIsMergeable(type) && migratetypeIsMergeable(buddyType));

  /** Merges upwards from a block that is on no list, and links the result. */
  const mergeAndLink = (pfn: number, order: number, type: number): void => {
    let cycles = CYC_BUDDY_FIND;
    while (order < MAX_PAGE_ORDER) {
      const buddy = pfn ^ (1 << order);
      if (!isFreeBlock(buddy, order)) break;
      const buddyType = migratetypeOfFlags(port.ld32(flagsBase + buddy * 4));
      if (order >= PAGEBLOCK_ORDER && !mayMerge(type, buddyType)) break;
      unlink(buddy, order, buddyType);
      if (order >= PAGEBLOCK_ORDER && buddyType !== type) pageblocks.setRange(asPfn(buddy), order, type as Migratetype);
      pfn &= buddy;
      order++;
      cycles += CYC_BUDDY_STEP;
    }
    charge(cycles);
    link(pfn, order, type, mergeIsLikely(pfn, order));
  };

  /** B4: is the buddy of the block one order up free already? Then this one may soon complete the pair. */
  const mergeIsLikely = (pfn: number, order: number): boolean => {
    if (order >= MAX_PAGE_ORDER - 1) return false;
    const higher = pfn & ~(1 << order);
    return isFreeBlock(higher ^ (1 << (order + 1)), order + 1);
  };

  const freeBlock = (pfn: Pfn, order: number): number => {
    if (order < 0 || order > MAX_PAGE_ORDER || pfn < startPfn() || pfn + (1 << order) > endPfn()) return -EINVAL;
    const flags = port.ld32(flagsBase + pfn * 4);
    // FRM-3: out, of this zone, with this order; an interior frame carries no state bit.
    if ((flags & PG_OUT) === 0 || (flags & (ZONE_MASK | ORDER_MASK)) !== (zoneBits | (order << ORDER_SHIFT))) {
      return -EINVAL;
    }
    const type = pageblocks.migratetype(pfn);
    port.st32(flagsBase + pfn * 4, zoneBits);
    if (order > PAGEBLOCK_ORDER && pageblocks.migratetype(asPfn(pfn + PAGEBLOCK_NR_PAGES)) !== type) {
      // One of its pageblocks was isolated while the block was out.
      freeByPageblocks(pfn, order);
      return 0;
    }
    account(1 << order, type);
    mergeAndLink(pfn, order, type);
    return 0;
  };

  const freeByPageblocks = (pfn: number, order: number): void => {
    for (let part = pfn; part < pfn + (1 << order); part += PAGEBLOCK_NR_PAGES) {
      const type = pageblocks.migratetype(asPfn(part));
      account(PAGEBLOCK_NR_PAGES, type);
      mergeAndLink(part, PAGEBLOCK_ORDER, type);
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
    charge(CYC_BUDDY_FIND + CYC_BUDDY_STEP * (high - low));
  };

  /** Marks an unlinked block from a list of `type` as handed out. */
  const handOut = (pfn: number, order: number, type: number): Pfn => {
    port.st32(flagsBase + pfn * 4, zoneBits | PG_ALLOCATED | (order << ORDER_SHIFT));
    account(-(1 << order), type);
    noteLeastFree();
    return asPfn(pfn);
  };

  /** B7: the smallest sufficient block of the own type; 0 if there is none. The block is unlinked and cut. */
  const takeSmallest = (order: number, type: number): number => {
    for (let current = order; current <= MAX_PAGE_ORDER; current++) {
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
  const mayClaim = (order: number, type: number): boolean => order >= CLAIM_MIN_ORDER || type !== MIGRATE_MOVABLE;

  /** Takes over a foreign block with its pageblock, if enough of that is free or alike; 0 otherwise. */
  const claimBlock = (pfn: number, current: number, order: number, type: number, foreign: number): number => {
    if (current >= PAGEBLOCK_ORDER) {
      unlink(pfn, current, foreign);
      pageblocks.setRange(asPfn(pfn), current, type as Migratetype);
      expand(pfn, order, current, type);
      return pfn;
    }
    const blockStart = pfn & ~(PAGEBLOCK_NR_PAGES - 1);
    if (blockStart < startPfn() || blockStart + PAGEBLOCK_NR_PAGES > endPfn()) return 0;
    let free = 0;
    let movable = 0;
    for (let row = blockStart; row < blockStart + PAGEBLOCK_NR_PAGES; ) {
      const flags = port.ld32(flagsBase + row * 4);
      if ((flags & PG_BUDDY) !== 0) {
        free += 1 << orderOfFlags(flags);
        row += 1 << orderOfFlags(flags);
        continue;
      }
      if ((flags & PG_LRU) !== 0) movable++;
      row++;
    }
    const others = PAGEBLOCK_NR_PAGES - free - movable;
    const alike = type === MIGRATE_MOVABLE ? movable : foreign === MIGRATE_MOVABLE ? others : 0;
    if (free + alike < PAGEBLOCK_NR_PAGES / 2) return 0;
    retagPageblock(blockStart, type as Migratetype);
    return takeSmallest(order, type);
  };

  /** Moves the free blocks of one pageblock to the lists of `type`. */
  const moveFreeBlocks = (blockStart: number, type: Migratetype): void => {
    for (let row = blockStart; row < blockStart + PAGEBLOCK_NR_PAGES; ) {
      const flags = port.ld32(flagsBase + row * 4);
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

  const allocBlock = (order: number, migratetype: Migratetype, allocFlags: number): Pfn => {
    if (order < 0 || order > MAX_PAGE_ORDER) return NO_PFN;
    const mayBorrow = (allocFlags & ALLOC_CMA) !== 0 && migratetype === MIGRATE_MOVABLE;
    if (mayBorrow && cmaIsMostOfFree()) {
      const borrowed = takeSmallest(order, MIGRATE_CMA);
      if (borrowed !== 0) return handOut(borrowed, order, MIGRATE_CMA);
    }
    let pfn = takeSmallest(order, migratetype);
    if (pfn === 0 && mayBorrow) {
      const borrowed = takeSmallest(order, MIGRATE_CMA);
      if (borrowed !== 0) return handOut(borrowed, order, MIGRATE_CMA);
    }
    if (pfn === 0 && migratetype < MIGRATE_PCPTYPES) {
      pfn = takeByClaiming(order, migratetype, allocFlags);
      if (pfn === 0 && (allocFlags & ALLOC_NOFRAGMENT) === 0) pfn = takeByStealing(order, migratetype);
    }
    return pfn === 0 ? NO_PFN : handOut(pfn, order, migratetype);
  };

  /** B9: so that the area does not lie idle while the rest runs out. */
  const cmaIsMostOfFree = (): boolean => port.ld32(zoneAddr + Z_NR_FREE_CMA) > port.ld32(zoneAddr + Z_NR_FREE) >>> 1;

  // ── Ranges ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Frees `[start, end)`, frames without state, as the largest aligned blocks that it consists of. */
  const freeFrames = (start: number, end: number, merge: boolean): void => {
    let pfn = start;
    while (pfn < end) {
      let order = 0;
      while (order < MAX_PAGE_ORDER && pfn % (2 << order) === 0 && pfn + (2 << order) <= end) order++;
      const type = pageblocks.migratetype(asPfn(pfn));
      account(1 << order, type);
      if (merge) mergeAndLink(pfn, order, type);
      else link(pfn, order, type, false);
      pfn += 1 << order;
    }
  };

  const addFreeRange = (start: Pfn, end: Pfn): void => {
    for (let pfn = start as number; pfn < end; pfn++) {
      port.st32(flagsBase + pfn * 4, port.ld32(flagsBase + pfn * 4) & ~(PG_STATE | ORDER_MASK | MT_MASK));
    }
    freeFrames(start, end, true);
  };

  /** First frame of the free block that covers `pfn`; 0 if the frame is not free. */
  const freeBlockAround = (pfn: number): number => {
    for (let order = 0; order <= MAX_PAGE_ORDER; order++) {
      const start = pfn & ~((1 << order) - 1);
      if (start !== 0 && isFreeBlockAtLeast(start, order)) return start;
    }
    return 0;
  };
  const isFreeBlockAtLeast = (pfn: number, order: number): boolean => {
    const flags = port.ld32(flagsBase + pfn * 4);
    return (flags & (ZONE_MASK | PG_BUDDY)) === (zoneBits | PG_BUDDY) && orderOfFlags(flags) >= order;
  };

  const takeRange = (start: Pfn, end: Pfn): number => {
    if (start >= end || start < startPfn() || end > endPfn()) return -EINVAL;
    for (let pfn = start as number; pfn < end; ) {
      const block = freeBlockAround(pfn);
      if (block === 0) return -EBUSY;
      pfn = block + (1 << orderOfFlags(port.ld32(flagsBase + block * 4)));
    }
    for (let pfn = start as number; pfn < end; ) {
      const block = freeBlockAround(pfn);
      const flags = port.ld32(flagsBase + block * 4);
      const blockEnd = block + (1 << orderOfFlags(flags));
      unlink(block, orderOfFlags(flags), migratetypeOfFlags(flags));
      account(block - blockEnd, migratetypeOfFlags(flags));
      // The block may reach over both ends of the range: give those parts back, unmerged.
      if (block < pfn) freeFrames(block, pfn, false);
      if (blockEnd > end) freeFrames(end, blockEnd, false);
      pfn = Math.min(blockEnd, end);
    }
    for (let pfn = start as number; pfn < end; pfn++) port.st32(flagsBase + pfn * 4, zoneBits | PG_ALLOCATED);
    noteLeastFree();
    return 0;
  };

  // ── Isolation ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Cuts a free block that reaches over the edges of the pageblock at `blockStart` into pageblocks. */
  const cutAtPageblock = (blockStart: number): void => {
    const block = freeBlockAround(blockStart);
    if (block === 0) return;
    const flags = port.ld32(flagsBase + block * 4);
    const end = block + (1 << orderOfFlags(flags));
    if (end - block <= PAGEBLOCK_NR_PAGES) return;
    const type = migratetypeOfFlags(flags);
    unlink(block, orderOfFlags(flags), type);
    for (let part = block; part < end; part += PAGEBLOCK_NR_PAGES) link(part, PAGEBLOCK_ORDER, type, false);
  };

  /** BUD-4: a pageblock that is free as a whole may merge with its neighbours under its new type. */
  const mergePageblock = (blockStart: number, type: Migratetype): void => {
    if (!isFreeBlock(blockStart, PAGEBLOCK_ORDER)) return;
    unlink(blockStart, PAGEBLOCK_ORDER, type);
    mergeAndLink(blockStart, PAGEBLOCK_ORDER, type);
  };

  const retype = (pfn: Pfn, type: Migratetype): boolean => {
    const blockStart = pfn & ~(PAGEBLOCK_NR_PAGES - 1);
    if (blockStart < startPfn() || blockStart + PAGEBLOCK_NR_PAGES > endPfn()) return false;
    cutAtPageblock(blockStart);
    retagPageblock(blockStart, type);
    mergePageblock(blockStart, type);
    return true;
  };

  const firstFree = (type: Migratetype): Pfn => {
    let pfn = 0;
    for (let order = 0; order <= MAX_PAGE_ORDER && pfn === 0; order++) pfn = firstOn(order, type);
    return asPfn(pfn);
  };

  const isolate = (blockStart: Pfn): void => {
    if (pageblocks.migratetype(blockStart) === MIGRATE_ISOLATE) return;
    cutAtPageblock(blockStart);
    moveFreeBlocks(blockStart, MIGRATE_ISOLATE);
    pageblocks.isolate(blockStart);
    mergePageblock(blockStart, MIGRATE_ISOLATE);
  };

  const unisolate = (blockStart: Pfn): void => {
    if (pageblocks.migratetype(blockStart) !== MIGRATE_ISOLATE) return;
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
    nrFree: () => port.ld32(zoneAddr + Z_NR_FREE),
    check: () => checkBuddy(deps),
  };
}
