/**
 * CMA: memory for devices that need much in one piece, lent to processes until then.
 *
 * A framebuffer or a camera wants megabytes of neighbouring frames. After some hours of running no such run is free;
 * memory set aside for it from the start would lie idle on most days. So an area is reserved at boot (`cma=16M`) and
 * handed to the buddies with a type of its own: only movable requests may borrow from it (B9). When a driver asks,
 * whatever borrowed there is moved out of the way (contig_range.ts, migrate.ts).
 *
 *     area      ░░░░░▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓░░░░░▒▒▒▒▒▒░░░░▒▒░░    ▓ given to drivers   ▒ borrowed by processes   ░ free
 *     bitmap    000001111111111111110000000000000000000    1: given to a driver
 *
 *   CMA-1  bit i is set ⇔ frame base + i is out to a driver
 *   CMA-2  used = number of set bits; granted − released = used, all in pages
 *   CMA-3  a grant is `nrPages` neighbouring frames inside the area, and its first frame is a multiple of 2^alignOrder
 *   CMA-4  every pageblock of the area has the type CMA, outside of a call
 *   CMA-5  a failed alloc changes nothing but where process pages are; a refused release changes nothing
 *
 * A candidate range that holds a page which cannot move gives −EBUSY, and the next one is tried, further up; every
 * other error ends the search. So one call tries each start of the area at most once.
 *
 * struct cma, 64 bytes of static memory: lock, used, next time to print; granted, failed, released as f64. The bitmap
 * is boot memory. Locks: the area's lock around the bitmap only. Context: process, interrupts on; alloc counts as a
 * call that may sleep (in Linux it does). Source: mm/cma.c, mm/cma_debug.c, mm/cma_sysfs.c.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { bitmapBytes, bitmapWeight, clearBit, findNextBit, findNextZeroBit, setBit } from "../kernel/lib/bitmap.ts";
import { CYCLES_PER_SECOND, PAGE_SIZE } from "../kernel/params.ts";
import { KERN_ERR, KERN_INFO, type Printk } from "../kernel/printk.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import {
  alignUp,
  asPhys,
  type Context,
  NO_PFN,
  NULL,
  type Pfn,
  type PhysAddr,
  pfnAdd,
  physToPfn,
  type TaskContext,
} from "../kernel/types.ts";
import { EBUSY, EINVAL, ENOMEM } from "../kernel/uapi/errno.ts";
import type { Memblock } from "./memblock.ts";
import { MIGRATE_CMA } from "./migratetype.ts";
import { PAGEBLOCK_NR_PAGES, ZONE_DMA, ZONE_DMA32, ZONE_NORMAL } from "./mmzone.ts";
import type { PageAllocator } from "./page_alloc.ts";
import type { Pageblocks } from "./pageblock.ts";
import { CMA_ALLOC_FAIL, CMA_ALLOC_SUCCESS, NR_CMA_USED, type VmStat } from "./vmstat.ts";

/** Size and alignment of an area are multiples of this: a whole number of pageblocks. */
const CMA_MIN_ALIGNMENT_BYTES = PAGEBLOCK_NR_PAGES * PAGE_SIZE;
/** Largest alignment that can be asked for: log2 of pages. */
const MAX_ALIGN_ORDER = 20;
const REPORT_INTERVAL = CYCLES_PER_SECOND;

/** A reserved area: what boot knows before there are zones. */
export interface CmaArea {
  readonly base: Pfn;
  readonly nrPages: number;
  readonly bitmap: PhysAddr;
}

type ZoneBounds = readonly (readonly [start: number, end: number])[];

/**
 * Reserves an area of `bytes`, rounded up to pageblocks, as high as possible in one zone (DMA32 first: devices with 32
 * address lines are meant). Null if there is no room; then nothing is reserved. Boot only.
 */
export function reserveCma(memblock: Memblock, bounds: ZoneBounds, bytes: number): CmaArea | null {
  const size = alignUp(bytes, CMA_MIN_ALIGNMENT_BYTES);
  for (const zone of [ZONE_DMA32, ZONE_NORMAL, ZONE_DMA]) {
    const [start, end] = bounds[zone] as readonly [number, number];
    if ((end - start) * PAGE_SIZE < size) continue;
    const window = { minAddr: start * PAGE_SIZE, maxAddr: end * PAGE_SIZE, topDown: true };
    const base = memblock.alloc(size, CMA_MIN_ALIGNMENT_BYTES, window);
    if (base === NULL) continue;
    const nrPages = size / PAGE_SIZE;
    const bitmap = base < start * PAGE_SIZE ? NULL : memblock.alloc(bitmapBytes(nrPages), 8, { topDown: false });
    if (bitmap !== NULL) return { base: physToPfn(base), nrPages, bitmap };
    memblock.free(base, size);
  }
  return null;
}

export interface CmaStats {
  readonly base: Pfn;
  /** Pages of the area, and those of them that are out to drivers. */
  readonly nrPages: number;
  readonly nrUsed: number;
  /** Longest run of pages that are not out to drivers. */
  readonly maxChunk: number;
  /** Pages granted, refused, taken back since boot. */
  readonly granted: number;
  readonly failed: number;
  readonly released: number;
}

export interface Cma {
  /**
   * `nrPages` ≥ 1 neighbouring frames whose first is a multiple of 2^alignOrder, each an allocated page of order 0;
   * NO_PFN, after a message unless `isQuiet`, if there is no such range or what is in it cannot move. Contents are
   * undefined. Process context; O(pages of the area).
   */
  alloc(ctx: TaskContext, nrPages: number, alignOrder: number, isQuiet?: boolean): Pfn;
  /** Gives a grant, or a part of one, back: 0, or −EINVAL if not all of these frames are out to drivers. */
  release(ctx: Context, pfn: Pfn, nrPages: number): number;
  /** Is the frame in the area? */
  contains(pfn: Pfn): boolean;
  stats(): CmaStats;
  /** CMA-2, CMA-4: the first violation, or null. O(pages of the area). */
  check(): string | null;
}

export interface CmaDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly spinlocks: Spinlocks;
  readonly printk: Printk;
  readonly vmstat: VmStat;
  readonly pageblocks: Pageblocks;
  readonly pageAlloc: PageAllocator;
  /** Null: there is no area, every request fails quietly. */
  readonly area: CmaArea | null;
  /** CMA_BYTES of zeroed static memory. */
  readonly state: PhysAddr;
}

export const CMA_BYTES = 64;
const C_LOCK = 0;
const C_USED = 4;
const C_NEXT_REPORT = 8;
const C_GRANTED = 16;
const C_FAILED = 24;
const C_RELEASED = 32;

/** `Cma` of a machine without an area. */
const NO_STATS: CmaStats = { base: NO_PFN, nrPages: 0, nrUsed: 0, maxChunk: 0, granted: 0, failed: 0, released: 0 };
const NO_CMA: Cma = {
  alloc: () => NO_PFN,
  release: () => -EINVAL,
  contains: () => false,
  stats: () => NO_STATS,
  check: () => null,
};

export function createCma(deps: CmaDeps): Cma {
  const { area, machine, contexts, spinlocks, printk, vmstat, pageblocks, pageAlloc, state } = deps;
  if (area === null) return NO_CMA;
  const { port, harts } = machine;
  const { base, nrPages: nrArea, bitmap } = area;
  const lock = asPhys(state + C_LOCK);

  const withLock = <T>(ctx: Context, work: () => T): T => {
    const irq = spinlocks.spinLockIrqsave(ctx, lock);
    const result = work();
    spinlocks.spinUnlockIrqrestore(ctx, lock, irq);
    return result;
  };
  const add = (offset: number, pages: number): void => port.stF64(state + offset, port.ldF64(state + offset) + pages);
  const addUsed = (pages: number): void => {
    port.st32(state + C_USED, port.ld32(state + C_USED) + pages);
    vmstat.modItem(NR_CMA_USED, pages);
  };

  // ── The bitmap ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** First bit at or above `from` of a clear run of `nr` bits that starts aligned; −1 if there is none. */
  const findRun = (from: number, nr: number, alignOrder: number): number => {
    for (let bit = from; ; ) {
      bit = alignUp(base + bit, 2 ** alignOrder) - base;
      if (bit + nr > nrArea) return -1;
      const taken = findNextBit(port, bitmap, nrArea, bit);
      if (taken >= bit + nr) return bit;
      bit = taken + 1;
    }
  };
  const setRun = (bit: number, nr: number): void => {
    for (let i = bit; i < bit + nr; i++) setBit(port, bitmap, i);
    addUsed(nr);
  };
  const clearRun = (bit: number, nr: number): void => {
    for (let i = bit; i < bit + nr; i++) clearBit(port, bitmap, i);
    addUsed(-nr);
  };
  const isRunSet = (bit: number, nr: number): boolean => findNextZeroBit(port, bitmap, bit + nr, bit) === bit + nr;

  /** Calls `visit` with every run of clear bits. */
  const forEachRun = (visit: (bit: number, nr: number) => void): void => {
    for (let bit = findNextZeroBit(port, bitmap, nrArea, 0); bit < nrArea; ) {
      const end = findNextBit(port, bitmap, nrArea, bit);
      visit(bit, end - bit);
      bit = findNextZeroBit(port, bitmap, nrArea, end);
    }
  };

  // ── Allocating ───────────────────────────────────────────────────────────────────────────────────────────────────

  const report = (ctx: Context, nrPages: number, error: number): void => {
    const now = harts.clock[ctx.cpu] as number;
    if (now < port.ldF64(state + C_NEXT_REPORT)) return;
    port.stF64(state + C_NEXT_REPORT, now + REPORT_INTERVAL);
    printk(KERN_ERR, `cma: cma_alloc: reserved: alloc failed, req-size: ${nrPages} pages, ret: ${error}`);
    const parts: string[] = [];
    forEachRun((bit, nr) => {
      parts.push(`${nr}@${bit}`);
    });
    const nrFree = nrArea - port.ld32(state + C_USED);
    printk(KERN_INFO, `cma: number of available pages: ${parts.join("+")}=> ${nrFree} free of ${nrArea} total pages`);
  };

  const alloc = (ctx: TaskContext, nrPages: number, alignOrder: number, isQuiet = false): Pfn => {
    contexts.mightSleep(ctx, "mm/cma.ts:alloc");
    const isSound = Number.isInteger(nrPages) && nrPages > 0 && alignOrder >= 0 && alignOrder <= MAX_ALIGN_ORDER;
    let error = isSound ? -ENOMEM : -EINVAL;
    for (let from = 0; isSound; ) {
      const bit = withLock(ctx, () => {
        const found = findRun(from, nrPages, alignOrder);
        if (found >= 0) setRun(found, nrPages);
        return found;
      });
      if (bit < 0) break;
      const start = pfnAdd(base, bit);
      error = pageAlloc.allocContigRange(ctx, start, pfnAdd(start, nrPages));
      if (error === 0) {
        add(C_GRANTED, nrPages);
        vmstat.countEvents(ctx, CMA_ALLOC_SUCCESS, 1);
        return start;
      }
      withLock(ctx, () => clearRun(bit, nrPages));
      if (error !== -EBUSY) break;
      from = bit + 2 ** alignOrder;
    }
    add(C_FAILED, isSound ? nrPages : 0);
    vmstat.countEvents(ctx, CMA_ALLOC_FAIL, 1);
    if (!isQuiet) report(ctx, nrPages, error);
    return NO_PFN;
  };

  const release = (ctx: Context, pfn: Pfn, nrPages: number): number => {
    const bit = pfn - base;
    const isInside = Number.isInteger(nrPages) && nrPages > 0 && bit >= 0 && bit + nrPages <= nrArea;
    if (!isInside || !isRunSet(bit, nrPages)) {
      printk(KERN_ERR, `cma: cma_release: reserved: ${nrPages} pages at pfn ${pfn} are not out`);
      return -EINVAL;
    }
    for (let i = 0; i < nrPages; i++) pageAlloc.freePages(ctx, pfnAdd(pfn, i), 0);
    withLock(ctx, () => clearRun(bit, nrPages));
    add(C_RELEASED, nrPages);
    return 0;
  };

  const stats = (): CmaStats => {
    let maxChunk = 0;
    forEachRun((_, nr) => {
      maxChunk = Math.max(maxChunk, nr);
    });
    return {
      base,
      nrPages: nrArea,
      nrUsed: port.ld32(state + C_USED),
      maxChunk,
      granted: port.ldF64(state + C_GRANTED),
      failed: port.ldF64(state + C_FAILED),
      released: port.ldF64(state + C_RELEASED),
    };
  };

  const check = (): string | null => {
    const { nrUsed, granted, released } = stats();
    const weight = bitmapWeight(port, bitmap, nrArea);
    if (weight !== nrUsed) return `CMA-2: ${weight} bits are set, ${nrUsed} pages are used`;
    if (granted - released !== nrUsed) return `CMA-2: ${granted} − ${released} pages are not ${nrUsed}`;
    for (let i = 0; i < nrArea; i += PAGEBLOCK_NR_PAGES) {
      const type = pageblocks.migratetype(pfnAdd(base, i));
      if (type !== MIGRATE_CMA) return `CMA-4: the pageblock of frame ${base + i} has type ${type}`;
    }
    return null;
  };

  return { alloc, release, contains: (pfn) => pfn >= base && pfn < base + nrArea, stats, check };
}
