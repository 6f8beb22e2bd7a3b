/**
 * simple_frames: a FrameAllocator made from one that only knows blocks: allocate, free, add a range.
 *
 * An allocator that somebody writes to learn, or to compare, has three functions and books of its own. The rest of the
 * kernel wants more: page flags, counters, a check. This adapter keeps those, and believes nothing: it has the free
 * blocks on lists of its own (buddy_lists.ts), and what the other side hands out must lie in one of them.
 * What does not is a bug of the other side: it is reported through `onWrong`, which does not return (an oops).
 *
 *   SFR-1  what is handed out is aligned and was free; SFR-2 a refusal means that no free block is large enough
 *   SFR-3  a good free is taken
 *
 * Migrate types are not kept apart: all free blocks are movable. Ranges cannot be taken and pageblocks not isolated, so
 * there are no contiguous areas (cma) on it; CMA, HIGHATOMIC and ISOLATE requests find nothing.
 *
 * Context: as the seam (frame_allocator.ts). Steps: O(orders) beside those of the other side.
 */

import { asPfn, NO_PFN, type Pfn } from "../kernel/types.ts";
import { EBUSY, EINVAL } from "../kernel/uapi/errno.ts";
import { checkBuddy } from "./buddy_check.ts";
import { createFreeLists } from "./buddy_lists.ts";
import type { FrameAllocator, FrameAllocatorDeps } from "./frame_allocator.ts";
import { MIGRATE_MOVABLE, MIGRATE_PCPTYPES } from "./migratetype.ts";
import { MAX_PAGE_ORDER, Z_NR_FREE } from "./mmzone.ts";
import { MT_MASK, ORDER_MASK, ORDER_SHIFT, orderOfFlags, PG_ALLOCATED, PG_PCP, PG_STATE, ZONE_MASK } from "./page.ts";

/** The other side. Frames are frame numbers of the machine. */
export interface SimpleFrames {
  addFreeRange(start: number, end: number): void;
  /** First frame of a block, or −1. */
  allocBlock(order: number): number;
  /** 0, or negative if it refuses. */
  freeBlock(pfn: number, order: number): number;
}

/** Called with what is wrong with a claim; throws. */
export type OnWrong = (what: "allocBlock" | "freeBlock", message: string, pfn: number, order: number) => never;

export function createSimpleFrames(deps: FrameAllocatorDeps, simple: SimpleFrames, onWrong: OnWrong): FrameAllocator {
  const { port, pages, zoneAddr } = deps;
  const lists = createFreeLists(deps);
  const { zoneBits, startPfn, endPfn } = lists;
  const flagsOf = (pfn: number): number => pages.flags(asPfn(pfn));
  const link = (pfn: number, order: number): void => lists.link(pfn, order, MIGRATE_MOVABLE, false);
  const unlink = (pfn: number, order: number): void => lists.unlink(pfn, order, MIGRATE_MOVABLE);

  /** A block becomes free in our books: merged as far as it goes. */
  const release = (start: number, startOrder: number): void => {
    lists.account(1 << startOrder, MIGRATE_MOVABLE);
    let [pfn, order] = [start, startOrder];
    for (; order < MAX_PAGE_ORDER && lists.isFreeBlock(pfn ^ (1 << order), order); order++) {
      unlink(pfn ^ (1 << order), order);
      pfn &= ~(1 << order);
    }
    link(pfn, order);
  };

  /** Cuts `[pfn, pfn + 2^order)` out of the free block that starts at `whole`. */
  const take = (pfn: number, order: number, whole: number): void => {
    const wholeOrder = orderOfFlags(flagsOf(whole));
    unlink(whole, wholeOrder);
    for (let half = wholeOrder - 1, at = whole; half >= order; half--) {
      const isUpper = (pfn & (1 << half)) !== 0;
      link(isUpper ? at : at + (1 << half), half);
      if (isUpper) at += 1 << half;
    }
    pages.setFlags(asPfn(pfn), zoneBits | PG_ALLOCATED | (order << ORDER_SHIFT));
    lists.account(-(1 << order), MIGRATE_MOVABLE);
    lists.noteLeastFree();
  };

  const addFreeRange = (start: Pfn, end: Pfn): void => {
    for (let pfn = start as number; pfn < end; pfn++) {
      pages.setFlags(asPfn(pfn), flagsOf(pfn) & ~(PG_STATE | ORDER_MASK | MT_MASK));
    }
    for (let pfn = start as number; pfn < end; ) {
      let order = 0;
      while (order < MAX_PAGE_ORDER && pfn % (2 << order) === 0 && pfn + (2 << order) <= end) order++;
      release(pfn, order);
      pfn += 1 << order;
    }
    simple.addFreeRange(start, end);
  };

  const allocBlock = (order: number, migratetype: number): Pfn => {
    if (order < 0 || order > MAX_PAGE_ORDER || migratetype >= MIGRATE_PCPTYPES) return NO_PFN;
    const pfn = simple.allocBlock(order);
    if (pfn === -1) {
      const lying = lists.smallestOf(order, MIGRATE_MOVABLE);
      if (lying >= 0) onWrong("allocBlock", "finds nothing although a block is free", pfn, order);
      return NO_PFN;
    }
    const isBlock = Number.isInteger(pfn) && pfn >= startPfn() && pfn + (1 << order) <= endPfn();
    if (!isBlock || pfn % (1 << order) !== 0) onWrong("allocBlock", "hands out what is no block", pfn, order);
    const whole = lists.freeBlockAround(pfn);
    const isFree = whole !== 0 && whole + (1 << orderOfFlags(flagsOf(whole))) >= pfn + (1 << order);
    if (!isFree) onWrong("allocBlock", "hands out frames that are not free", pfn, order);
    take(pfn, order, whole);
    return asPfn(pfn);
  };

  const freeBlock = (pfn: Pfn, order: number): number => {
    if (order < 0 || order > MAX_PAGE_ORDER || pfn < startPfn() || pfn + (1 << order) > endPfn()) return -EINVAL;
    const flags = flagsOf(pfn);
    const isOut = (flags & (PG_ALLOCATED | PG_PCP)) !== 0 && (flags & ZONE_MASK) === zoneBits;
    if (!isOut || orderOfFlags(flags) !== order) return -EINVAL;
    if (simple.freeBlock(pfn, order) !== 0) onWrong("freeBlock", "refuses a block that is out", pfn, order);
    pages.setFlags(pfn, zoneBits);
    release(pfn, order);
    return 0;
  };

  return {
    addFreeRange,
    allocBlock,
    freeBlock,
    takeRange: () => -EBUSY,
    isolate: () => {},
    unisolate: () => {},
    retype: () => false,
    firstFree: () => NO_PFN,
    nrFree: () => port.ld32(zoneAddr + Z_NR_FREE),
    check: () => checkBuddy(deps),
  };
}
