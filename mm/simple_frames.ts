/**
 * simple_frames: a FrameAllocator made from one that only knows blocks: allocate, free, add a range.
 *
 * An allocator that somebody writes to learn, or to compare, has three functions and books of its own. The rest of the
 * kernel wants more: page flags, counters, a check. This adapter keeps those, and believes nothing: free blocks are
 * marked in the page flags by the rules of the buddy system, and what the other side hands out must lie in one of them.
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
import type { FrameAllocator, FrameAllocatorDeps } from "./frame_allocator.ts";
import { MIGRATE_MOVABLE, MIGRATE_PCPTYPES } from "./migratetype.ts";
import {
  freeCountAddr,
  MAX_PAGE_ORDER,
  NR_PAGE_ORDERS,
  Z_NR_FREE,
  Z_NR_FREE_LEAST,
  Z_SPANNED,
  Z_START_PFN,
} from "./mmzone.ts";
import {
  MT_MASK,
  MT_SHIFT,
  ORDER_MASK,
  ORDER_SHIFT,
  orderOfFlags,
  PG_ALLOCATED,
  PG_BUDDY,
  PG_PCP,
  PG_STATE,
  ZONE_MASK,
  ZONE_SHIFT,
} from "./page.ts";

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
  const zoneBits = deps.zone << ZONE_SHIFT;
  const flagsOf = (pfn: number): number => pages.flags(asPfn(pfn));
  const setFlags = (pfn: number, flags: number): void => pages.setFlags(asPfn(pfn), flags);
  const startPfn = (): number => port.ld32(zoneAddr + Z_START_PFN);
  const endPfn = (): number => startPfn() + port.ld32(zoneAddr + Z_SPANNED);
  const nrFree = (): number => port.ld32(zoneAddr + Z_NR_FREE);

  const isFreeBlock = (pfn: number, order: number): boolean =>
    (flagsOf(pfn) & (ZONE_MASK | PG_BUDDY | ORDER_MASK)) === (zoneBits | PG_BUDDY | (order << ORDER_SHIFT));

  const count = (order: number, delta: number): void => {
    const addr = freeCountAddr(zoneAddr, order, MIGRATE_MOVABLE);
    port.st32(addr, port.ld32(addr) + delta);
  };
  const mark = (pfn: number, order: number): void => {
    setFlags(pfn, zoneBits | PG_BUDDY | (order << ORDER_SHIFT) | (MIGRATE_MOVABLE << MT_SHIFT));
    count(order, 1);
  };
  const unmark = (pfn: number, order: number): void => {
    setFlags(pfn, zoneBits);
    count(order, -1);
  };

  /** A block becomes free in the marks: merged as far as it goes. */
  const release = (start: number, startOrder: number): void => {
    port.st32(zoneAddr + Z_NR_FREE, nrFree() + (1 << startOrder));
    let [pfn, order] = [start, startOrder];
    for (; order < MAX_PAGE_ORDER && isFreeBlock(pfn ^ (1 << order), order); order++) {
      unmark(pfn ^ (1 << order), order);
      pfn &= ~(1 << order);
    }
    mark(pfn, order);
  };

  /** Order of the free block that `[pfn, pfn + 2^order)` lies in, or −1. */
  const freeOrderAround = (pfn: number, order: number): number => {
    for (let around = order; around <= MAX_PAGE_ORDER; around++) {
      if (isFreeBlock(pfn & ~((1 << around) - 1), around)) return around;
    }
    return -1;
  };

  const largestFree = (): number => {
    for (let order = MAX_PAGE_ORDER; order >= 0; order--) {
      if (port.ld32(freeCountAddr(zoneAddr, order, MIGRATE_MOVABLE)) > 0) return order;
    }
    return -1;
  };

  const addFreeRange = (start: Pfn, end: Pfn): void => {
    for (let pfn = start as number; pfn < end; pfn++) setFlags(pfn, flagsOf(pfn) & ~(PG_STATE | ORDER_MASK | MT_MASK));
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
      if (largestFree() >= order) onWrong("allocBlock", "finds nothing although a block is free", pfn, order);
      return NO_PFN;
    }
    const isBlock = Number.isInteger(pfn) && pfn >= startPfn() && pfn + (1 << order) <= endPfn();
    if (!isBlock || pfn % (1 << order) !== 0) onWrong("allocBlock", "hands out what is no block", pfn, order);
    const around = freeOrderAround(pfn, order);
    if (around < 0) onWrong("allocBlock", "hands out frames that are not free", pfn, order);
    const whole = pfn & ~((1 << around) - 1);
    unmark(whole, around);
    for (let half = around - 1, at = whole; half >= order; half--) {
      const isUpper = (pfn & (1 << half)) !== 0;
      mark(isUpper ? at : at + (1 << half), half);
      if (isUpper) at += 1 << half;
    }
    setFlags(pfn, zoneBits | PG_ALLOCATED | (order << ORDER_SHIFT));
    port.st32(zoneAddr + Z_NR_FREE, nrFree() - (1 << order));
    if (nrFree() < port.ld32(zoneAddr + Z_NR_FREE_LEAST)) port.st32(zoneAddr + Z_NR_FREE_LEAST, nrFree());
    return asPfn(pfn);
  };

  const freeBlock = (pfn: Pfn, order: number): number => {
    if (order < 0 || order > MAX_PAGE_ORDER || pfn < startPfn() || pfn + (1 << order) > endPfn()) return -EINVAL;
    const flags = flagsOf(pfn);
    const isOut = (flags & (PG_ALLOCATED | PG_PCP)) !== 0 && (flags & ZONE_MASK) === zoneBits;
    if (!isOut || orderOfFlags(flags) !== order) return -EINVAL;
    if (simple.freeBlock(pfn, order) !== 0) onWrong("freeBlock", "refuses a block that is out", pfn, order);
    setFlags(pfn, zoneBits);
    release(pfn, order);
    return 0;
  };

  /** SFR: the marks add up to the counters. */
  const check = (): string | null => {
    const found = new Int32Array(NR_PAGE_ORDERS);
    let total = 0;
    for (let pfn = startPfn(); pfn < endPfn(); ) {
      const flags = flagsOf(pfn);
      const order = (flags & (PG_BUDDY | PG_ALLOCATED | PG_PCP)) === 0 ? 0 : orderOfFlags(flags);
      if ((flags & PG_BUDDY) !== 0) {
        found[order] = (found[order] as number) + 1;
        total += 1 << order;
      }
      pfn += 1 << order;
    }
    if (total !== nrFree()) return `SFR: ${total} frames are marked free, nr_free says ${nrFree()}`;
    for (let order = 0; order < NR_PAGE_ORDERS; order++) {
      const counted = port.ld32(freeCountAddr(zoneAddr, order, MIGRATE_MOVABLE));
      if (found[order] !== counted) return `SFR: ${found[order]} blocks of order ${order}, the counter says ${counted}`;
    }
    return null;
  };

  const firstFree = (): Pfn => NO_PFN;
  return {
    addFreeRange,
    allocBlock,
    freeBlock,
    takeRange: () => -EBUSY,
    isolate: () => {},
    unisolate: () => {},
    retype: () => false,
    firstFree,
    nrFree,
    check,
  };
}
