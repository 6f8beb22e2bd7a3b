/**
 * The FrameAllocator seam: who hands out the page frames of one zone.
 *
 * The page allocator above it (page_alloc.ts) chooses the zone, checks watermarks, holds the zone's lock and turns
 * frames into pages. A FrameAllocator keeps the free blocks of one zone and nothing else. It is crossed once per batch
 * by the per-CPU lists, and directly for blocks too large for them.
 *
 * What a caller may rely on (the conformance suite runs these over every implementation):
 *
 *   FRM-1  a block of order o starts at a multiple of 2^o and lies inside one range given by addFreeRange
 *   FRM-2  no frame is in two blocks that are out at the same time
 *   FRM-3  freeBlock of something that is not out with that order changes nothing and says −EINVAL
 *   FRM-4  when everything is freed again, as large a block as at the start can be had
 *   FRM-5  nrFree() = frames given − frames out, after every call; FRM-6 a refused allocation changes nothing
 *
 * Context: the caller holds the zone's lock with interrupts off. Nothing here sleeps or prints.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { Pfn, PhysAddr } from "../kernel/types.ts";
import type { Migratetype } from "./migratetype.ts";
import type { Pages } from "./page.ts";
import type { PageLists } from "./page_list.ts";
import type { Pageblocks } from "./pageblock.ts";

/** allocBlock: do not take a block of another migrate type from a pageblock that it could keep whole (B9). */
export const ALLOC_NOFRAGMENT = 0x100;
/** allocBlock: a movable request may borrow from the contiguous area. */
export const ALLOC_CMA = 0x80;

export interface FrameAllocator {
  /** Gives the frames `[start, end)` to the allocator. They are PG_RESERVED before. Boot and hot-add. */
  addFreeRange(start: Pfn, end: Pfn): void;
  /** A block of 2^order frames, preferably from lists of `migratetype`; NO_PFN if there is none. Steps O(orders). */
  allocBlock(order: number, migratetype: Migratetype, allocFlags: number): Pfn;
  /** Takes a block back: 0, or −EINVAL if no block of that order starts there and is out. Steps O(orders). */
  freeBlock(pfn: Pfn, order: number): number;
  /**
   * Takes exactly the free frames `[start, end)` out of the lists (contiguous ranges): 0, or −EBUSY if not all free.
   */
  takeRange(start: Pfn, end: Pfn): number;
  /**
   * Isolates the pageblock that starts at `pfn`: what is free in it, or is freed into it from now on, is not handed
   * out and not counted as free until `unisolate`. Nothing if it is isolated already. O(frames of a pageblock).
   */
  isolate(pfn: Pfn): void;
  /** Puts an isolated pageblock back into circulation with the type that it had; nothing if it is not isolated. */
  unisolate(pfn: Pfn): void;
  /**
   * Gives the pageblock that holds `pfn` another type, and its free blocks to the lists of that type; false, and
   * nothing happens, if the pageblock is not whole in this zone. O(frames of a pageblock).
   */
  retype(pfn: Pfn, type: Migratetype): boolean;
  /** First frame of a free block on a list of `migratetype`, the smallest order first; NO_PFN if there is none. */
  firstFree(migratetype: Migratetype): Pfn;
  /** Free frames. */
  nrFree(): number;
  /** Walks everything: the first violated invariant as a sentence, or null. O(frames). */
  check(): string | null;
}

/** What an implementation is built from. */
export interface FrameAllocatorDeps {
  readonly port: MemoryPort;
  readonly pages: Pages;
  readonly lists: PageLists;
  readonly pageblocks: Pageblocks;
  /** Number of the zone, and address of its struct, whose range is set. */
  readonly zone: number;
  readonly zoneAddr: PhysAddr;
  /** First of NR_PAGE_ORDERS × NR_MIGRATETYPES list-head rows that the zone may use. */
  readonly firstHead: number;
  /** B11: called before a pageblock of another type is claimed, the zone's lock held. */
  readonly boost?: () => void;
  /** RPT-3: called when a block of pageblock order or more has become free, the zone's lock held. */
  readonly largeFreed?: () => void;
  /** Adds virtual cycles to the running CPU. */
  readonly charge: (cycles: number) => void;
}

export type FrameAllocatorFactory = (deps: FrameAllocatorDeps) => FrameAllocator;
