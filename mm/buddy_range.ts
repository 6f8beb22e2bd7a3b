/**
 * Given frames instead of any: handing ranges to the buddy, taking ranges out of it, isolating pageblocks.
 *
 * None of this is on the way of an ordinary request. It is what boot, contiguous allocations (contig_range.ts, cma.ts)
 * and the high-order atomic reserve (highatomic.ts) do with a zone (theory 6 of buddy.ts):
 *
 *      addFreeRange   reserved frames become the largest aligned blocks that they consist of
 *      takeRange      free blocks that reach over an end of the range are cut there
 *      isolate        the pageblock's free blocks go to lists that nobody allocates from; unisolate puts them back
 *      retype         the pageblock changes its type, and its free blocks their lists
 *
 * Locks: the zone's. Cost: O(frames).
 */

import { asPfn, NO_PFN, type Pfn } from "../kernel/types.ts";
import { EBUSY, EINVAL } from "../kernel/uapi/errno.ts";
import type { BuddyFallback } from "./buddy_fallback.ts";
import type { FreeLists } from "./buddy_lists.ts";
import type { FrameAllocator, FrameAllocatorDeps } from "./frame_allocator.ts";
import { MIGRATE_ISOLATE, type Migratetype } from "./migratetype.ts";
import { MAX_PAGE_ORDER, PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER } from "./mmzone.ts";
import { MT_MASK, migratetypeOfFlags, ORDER_MASK, orderOfFlags, PG_ALLOCATED, PG_STATE } from "./page.ts";

export type BuddyRanges = Pick<
  FrameAllocator,
  "addFreeRange" | "takeRange" | "isolate" | "unisolate" | "retype" | "firstFree"
>;

/** `mergeAndLink` as in buddy.ts. */
export function createBuddyRanges(
  { pages, pageblocks }: FrameAllocatorDeps,
  free: FreeLists,
  { moveFreeBlocks, retagPageblock }: BuddyFallback,
  mergeAndLink: (pfn: number, order: number, type: number) => void,
): BuddyRanges {
  const { rowAt, flagsAt, setFlagsAt } = pages;
  const { zoneBits, link, unlink, account, noteLeastFree, isFreeBlock, freeBlockAround, startPfn, endPfn } = free;

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
      setFlagsAt(rowAt(pfn), flagsAt(rowAt(pfn)) & ~(PG_STATE | ORDER_MASK | MT_MASK));
    }
    freeFrames(start, end, true);
  };

  const takeRange = (start: Pfn, end: Pfn): number => {
    if (start >= end || start < startPfn() || end > endPfn()) return -EINVAL;
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
    for (let pfn = start as number; pfn < end; pfn++) setFlagsAt(rowAt(pfn), zoneBits | PG_ALLOCATED);
    noteLeastFree();
    return 0;
  };

  /** Cuts a free block that reaches over the edges of the pageblock at `blockStart` into pageblocks. */
  const cutAtPageblock = (blockStart: number): void => {
    const block = freeBlockAround(blockStart);
    if (block === 0) return;
    const flags = flagsAt(rowAt(block));
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
    const order = free.smallestOf(0, type);
    return order < 0 ? NO_PFN : asPfn(free.firstOn(order, type));
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

  return { addFreeRange, takeRange, isolate, unisolate, retype, firstFree };
}
