/**
 * kmalloc: memory by the byte, from thirteen size classes in three kinds of memory, or from the page allocator.
 *
 *   size ──▶ class     1…8 9…16 17…32 33…64 65…96 …128 …192 …256 …512 …1k …2k …4k …8k │ > 8 KiB: 2^order pages
 *   gfp  ──▶ kind      kmalloc-*    kmalloc-rcl-* (reclaimable)    dma-kmalloc-*       │ up to 4 MiB
 *
 * kfree() gets an address and nothing else: the frame says whether it lies in a slab (then the slab says which
 * cache), is the first of a large block, or is neither, and then the free is refused and reported.
 *
 *   one row of the lookup table per kind, in RAM: word ⌈size / 8⌉ for sizes up to 192, then one word per power of two:
 *
 *   | 0 | 1 … 24: kmalloc-8 … kmalloc-192 | 25: 256 | 26: 512 | 27: 1k | 28: 2k | 29: 4k | 30: 8k |
 *
 *   KMA-1  a block holds at least the size asked for and overlaps no other live block                      (S1)
 *   KMA-2  alignment: 8; of a power of two the size itself; else its largest power of two that divides     (S2)
 *   KMA-3  kmalloc(0) = ZERO_SIZE_PTR, which no load may follow; kfree(NULL), kfree(ZERO_SIZE_PTR) do nothing
 *   KMA-4  a size that is no integer in [0, 4 MiB] gives NULL, and so does n · size that overflows         (row 19)
 *   KMA-5  kfree() of anything but the start of a live block: a report, −EINVAL, nothing changed           (rows 8-10)
 *   KMA-6  a block of kmalloc(gfp with __GFP_ZERO) is zero up to ksize()
 *
 * Context: as the mask says (object_cache.ts). kfree any context. No lock of its own.
 * Differences from Linux: no cgroup copies and no randomised copies of the classes; a bad kfree() returns −EINVAL.
 * Source: mm/slab_common.c, mm/slub.c, include/linux/slab.h of Linux 6.12.
 */

import { CYC_PER_LINE } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { getOrder } from "../kernel/lib/bits.ts";
import { CACHE_LINE, PAGE_SIZE } from "../kernel/params.ts";
import {
  asPfn,
  asPhys,
  type Context,
  type MaySleep,
  NO_PFN,
  NULL,
  type Pfn,
  type PhysAddr,
  pfnToPhys,
  physToPfn,
  type Sleeping,
  type TaskContext,
  toGranule,
} from "../kernel/types.ts";
import { EINVAL } from "../kernel/uapi/errno.ts";
import {
  __GFP_COMP,
  __GFP_DMA,
  __GFP_HIGHMEM,
  __GFP_MOVABLE,
  __GFP_RECLAIMABLE,
  __GFP_ZERO,
  type AtomicGfp,
  type BlockingGfp,
  type Gfp,
} from "./gfp.ts";
import type { ObjectCacheLayer } from "./object_cache.ts";
import { orderOfFlags, type Pages, PG_LARGE_KMALLOC } from "./page.ts";
import {
  asCache,
  CACHE_OBJECT_SIZE,
  type CacheParams,
  type KmemCache,
  NO_CACHE,
  NO_SLAB,
  OBJECT_LIVE,
  RAM_GRANULES,
} from "./slab_descriptor.ts";
import type { SlabPages } from "./slab_layer.ts";
import { SLAB_CACHE_DMA, SLAB_KMALLOC, SLAB_PANIC, SLAB_RECLAIM_ACCOUNT } from "./slab_layout.ts";
import type { SlabObjects } from "./slab_objects.ts";
import { hexAddr, type SlabReports } from "./slab_report.ts";
import { KMALLOC_LARGE, NR_SLAB_UNRECLAIMABLE, type VmStat } from "./vmstat.ts";

/** What kmalloc(0) returns: not NULL, so that it is no failure, and in the page that nobody may touch. */
export const ZERO_SIZE_PTR = asPhys(16);
/** Largest size that comes from a class. */
export const KMALLOC_MAX_CACHE_SIZE = 2 * PAGE_SIZE;
/** Largest size of all: the largest block of the page allocator. */
export const KMALLOC_MAX_SIZE = 4 * 1024 * 1024;

/** S1, ascending. */
export const KMALLOC_SIZES: readonly number[] = [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192];
/** In which order the classes are made, and hence listed by slabinfo: Linux makes the two odd ones first. */
const CREATION_ORDER: readonly number[] = [96, 192, ...KMALLOC_SIZES.filter((size) => size !== 96 && size !== 192)];

const KMALLOC_NORMAL = 0;
const KMALLOC_RECLAIM = 1;
const KMALLOC_DMA = 2;
const KINDS: readonly (readonly [prefix: string, flags: number])[] = [
  ["kmalloc-", 0],
  ["kmalloc-rcl-", SLAB_RECLAIM_ACCOUNT],
  ["dma-kmalloc-", SLAB_CACHE_DMA],
];

const SMALL_MAX = 192;
const ROW_WORDS = 32;
const ROW_BYTES = ROW_WORDS * 4;
/** Word of the lookup row for sizes from 193: 8 = fls(255) is the first. */
const LARGE_INDEX = 25 - 8;
const LARGE_PAGES = KINDS.length * ROW_BYTES;
/** Static memory of kmalloc: the lookup rows and the number of pages in large blocks. */
export const KMALLOC_STATIC_BYTES = LARGE_PAGES + 8;

/** Copies for the fast path: why, see slab_objects.ts. */
const MAX_CACHE_SIZE = KMALLOC_MAX_CACHE_SIZE;
const SPECIAL_BITS = __GFP_DMA | __GFP_RECLAIMABLE;
const GRANULES = RAM_GRANULES;
const toCache = asCache;
const noSlab = NO_SLAB;

/** Word of the lookup row for an integer 1 ≤ size ≤ 8192. */
const lookupIndex = (size: number): number =>
  size <= SMALL_MAX ? (size + 7) >>> 3 : LARGE_INDEX + 32 - Math.clz32(size - 1);

/** S1: bytes that a request of `size` really gets; 0 for 0 and for what is refused. Pure. */
export function kmallocBucket(size: number): number {
  if (!Number.isInteger(size) || size < 1 || size > KMALLOC_MAX_SIZE) return 0;
  if (size > KMALLOC_MAX_CACHE_SIZE) return PAGE_SIZE * 2 ** getOrder(size);
  return KMALLOC_SIZES.find((bucket) => size <= bucket) as number;
}

const classSuffix = (size: number): string => (size < 1024 ? String(size) : `${size / 1024}k`);

export interface KmallocFunction {
  (ctx: TaskContext, size: number, gfp: BlockingGfp): MaySleep<PhysAddr>;
  (ctx: Context, size: number, gfp: AtomicGfp): PhysAddr;
}

export interface Kmalloc {
  /** Creates the classes. Boot, once, after the object caches work. */
  init(ctx: TaskContext): void;
  /** `size` bytes, 8-aligned at least; NULL if memory is short or the size impossible. O(1) up to 8 KiB. */
  readonly kmalloc: KmallocFunction;
  /** The same, zeroed. */
  readonly kzalloc: KmallocFunction;
  /** For masks known at run time only; a blocking mask in the wrong context is reported. */
  kmallocAny(ctx: Context, size: number, gfp: Gfp): MaySleep<PhysAddr>;
  /** n · size bytes; NULL if the product is impossible. */
  kmallocArray(ctx: Context, n: number, size: number, gfp: Gfp): MaySleep<PhysAddr>;
  /**
   * A block of at least `size` bytes with the content of `addr`, which it frees if it moves. krealloc(NULL, n)
   * allocates, krealloc(p, 0) frees and gives ZERO_SIZE_PTR. NULL: the old block is untouched.
   */
  krealloc(ctx: Context, addr: PhysAddr, size: number, gfp: Gfp): MaySleep<PhysAddr>;
  /** 0, or −EINVAL after a report (KMA-5). Frees objects of named caches, too. */
  kfree(ctx: Context, addr: PhysAddr): number;
  /** Usable bytes of a live block; 0 for NULL and ZERO_SIZE_PTR, and after a report for what is none. */
  ksize(ctx: Context, addr: PhysAddr): number;
  /** Pages in blocks above 8 KiB. */
  nrLargePages(): number;
}

export interface KmallocDeps {
  readonly machine: Machine;
  readonly pages: Pages;
  readonly pageAlloc: SlabPages;
  readonly vmstat: VmStat;
  readonly reports: SlabReports;
  readonly objects: SlabObjects;
  readonly layer: ObjectCacheLayer;
  /** Creates a cache and attaches it to the per-CPU layer. */
  readonly createCache: (ctx: TaskContext, params: CacheParams) => KmemCache;
  /** KMALLOC_STATIC_BYTES of zeroed static memory. */
  readonly statics: PhysAddr;
}

export function createKmalloc(deps: KmallocDeps): Kmalloc {
  const { machine, pages, pageAlloc, vmstat, reports, objects, statics } = deps;
  const { port, harts } = machine;
  const { clock } = harts;
  const { slabOf, stateOf, cacheOfSlab } = objects;
  const { kmemCacheAllocAny, freeFromSlab } = deps.layer;

  const init = (ctx: TaskContext): void => {
    KINDS.forEach(([prefix, kindFlags], kind) => {
      const row = statics + kind * ROW_BYTES;
      const classes = new Map<number, number>();
      for (const size of CREATION_ORDER) {
        const name = prefix + classSuffix(size);
        // S2: the largest power of two that divides the size.
        const align = size & -size;
        const flags = kindFlags | SLAB_KMALLOC | SLAB_PANIC;
        classes.set(size, toGranule(deps.createCache(ctx, { name, size, align, flags })));
      }
      for (let size = 8; size <= SMALL_MAX; size += 8) {
        port.st32(row + lookupIndex(size) * 4, classes.get(kmallocBucket(size)) as number);
      }
      for (let size = 256; size <= KMALLOC_MAX_CACHE_SIZE; size *= 2) {
        port.st32(row + lookupIndex(size) * 4, classes.get(size) as number);
      }
    });
  };

  // ── Large blocks ─────────────────────────────────────────────────────────────────────────────────────────────────

  const accountLarge = (nrPages: number): void => {
    port.fetchAdd(statics + LARGE_PAGES, nrPages);
    vmstat.modItem(NR_SLAB_UNRECLAIMABLE, nrPages);
  };

  const finishLarge = (ctx: Context, pfn: Pfn, size: number): PhysAddr => {
    if (pfn === NO_PFN) return NULL;
    pages.addFlags(pfn, PG_LARGE_KMALLOC);
    pages.setPrivate(pfn, size);
    accountLarge(2 ** getOrder(size));
    vmstat.countEvents(ctx, KMALLOC_LARGE, 1);
    return pfnToPhys(pfn);
  };

  function* finishLargeLater(ctx: Context, size: number, rest: Sleeping<Pfn>): Sleeping<PhysAddr> {
    return finishLarge(ctx, yield* rest, size);
  }

  const kmallocLarge = (ctx: Context, size: number, gfp: Gfp): MaySleep<PhysAddr> => {
    const mask = gfp & ~(__GFP_COMP | __GFP_HIGHMEM | __GFP_MOVABLE);
    const got = pageAlloc.allocPagesAny(ctx, getOrder(size), mask);
    return typeof got === "object" ? finishLargeLater(ctx, size, got) : finishLarge(ctx, got, size);
  };

  const freeLarge = (ctx: Context, pfn: Pfn): number => {
    const order = orderOfFlags(pages.flags(pfn));
    pages.clearFlags(pfn, PG_LARGE_KMALLOC);
    pages.setPrivate(pfn, 0);
    accountLarge(-(2 ** order));
    return pageAlloc.freePages(ctx, pfn, order);
  };

  /** Frame of the large block that starts at `addr`; NO_PFN when none does. */
  const largeAt = (addr: number): Pfn => {
    const pfn = physToPfn(asPhys(addr));
    if (pfn * PAGE_SIZE !== addr || pfn >= pages.nrFrames) return NO_PFN;
    return (pages.flags(pfn) & PG_LARGE_KMALLOC) !== 0 ? pfn : NO_PFN;
  };

  // ── Allocating ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** S3: DMA before reclaimable. */
  const kindOf = (gfp: Gfp): number => ((gfp & __GFP_DMA) !== 0 ? KMALLOC_DMA : KMALLOC_RECLAIM);

  /** Everything that is no size of a class. */
  const kmallocOther = (ctx: Context, size: number, gfp: Gfp): MaySleep<PhysAddr> => {
    if (size === 0) return ZERO_SIZE_PTR;
    if (!Number.isInteger(size) || size < 0 || size > KMALLOC_MAX_SIZE) return NULL;
    return kmallocLarge(ctx, size, gfp);
  };

  const kmallocAny = (ctx: Context, size: number, gfp: Gfp): MaySleep<PhysAddr> => {
    // False for NaN, fractions and negative numbers too: those are not their own 32 unsigned bits.
    if (size >>> 0 !== size || (size - 1) >>> 0 >= MAX_CACHE_SIZE) return kmallocOther(ctx, size, gfp);
    const kind = (gfp & SPECIAL_BITS) === 0 ? KMALLOC_NORMAL : kindOf(gfp);
    const word = statics + kind * ROW_BYTES + (lookupIndex(size) << 2);
    const cache = toCache((port.ld32(word) & GRANULES) * 8);
    return kmemCacheAllocAny(ctx, cache, gfp);
  };

  const kmallocArray = (ctx: Context, n: number, size: number, gfp: Gfp): MaySleep<PhysAddr> => {
    // Each factor by itself: the product of two negative or two fractional numbers can look fine.
    if (!Number.isInteger(n) || !Number.isInteger(size) || n < 0 || size < 0) return NULL;
    return kmallocAny(ctx, n * size, gfp);
  };

  // ── Freeing ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Addresses outside slabs: nothing, a large block, or a bug. */
  const kfreeOther = (ctx: Context, addr: PhysAddr): number => {
    if (addr === NULL || addr === ZERO_SIZE_PTR) return 0;
    const pfn = largeAt(addr);
    if (pfn !== NO_PFN) return freeLarge(ctx, pfn);
    reports.addressBug(ctx, `kfree of invalid pointer ${hexAddr(addr)}`);
    return -EINVAL;
  };

  const kfree = (ctx: Context, addr: PhysAddr): number => {
    const slab = slabOf(addr);
    return slab === noSlab ? kfreeOther(ctx, addr) : freeFromSlab(ctx, slab, addr);
  };

  const ksize = (ctx: Context, addr: PhysAddr): number => {
    if (addr === NULL || addr === ZERO_SIZE_PTR) return 0;
    const slab = slabOf(addr);
    if (slab !== NO_SLAB) {
      const state = stateOf(slab, addr);
      if (state !== 0 && port.ld8(state) === OBJECT_LIVE) return port.ld32(cacheOfSlab(slab) + CACHE_OBJECT_SIZE);
      reports.objectBug(ctx, slab, addr, `Invalid object pointer ${hexAddr(addr)}`, "ksize() is 0");
      return 0;
    }
    const pfn = largeAt(addr);
    if (pfn !== NO_PFN) return PAGE_SIZE * 2 ** orderOfFlags(pages.flags(pfn));
    reports.addressBug(ctx, `ksize of invalid pointer ${hexAddr(addr)}`);
    return 0;
  };

  const moveBlock = (ctx: Context, from: PhysAddr, bytes: number, to: PhysAddr): PhysAddr => {
    if (to === NULL) return NULL;
    port.copy(to, from, bytes);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_PER_LINE * Math.ceil(bytes / CACHE_LINE);
    kfree(ctx, from);
    return to;
  };

  function* moveLater(ctx: Context, from: PhysAddr, bytes: number, rest: Sleeping<PhysAddr>): Sleeping<PhysAddr> {
    return moveBlock(ctx, from, bytes, yield* rest);
  }

  const krealloc = (ctx: Context, addr: PhysAddr, size: number, gfp: Gfp): MaySleep<PhysAddr> => {
    if (addr === NULL || addr === ZERO_SIZE_PTR) return kmallocAny(ctx, size, gfp);
    if (!Number.isInteger(size) || size < 0) return NULL;
    const oldSize = ksize(ctx, addr);
    if (oldSize === 0) return NULL;
    if (size === 0) {
      kfree(ctx, addr);
      return ZERO_SIZE_PTR;
    }
    if (size <= oldSize) return addr;
    const got = kmallocAny(ctx, size, gfp);
    return typeof got === "object" ? moveLater(ctx, addr, oldSize, got) : moveBlock(ctx, addr, oldSize, got);
  };

  return {
    init,
    kmalloc: kmallocAny as KmallocFunction,
    kzalloc: ((ctx: Context, size: number, gfp: Gfp) => kmallocAny(ctx, size, gfp | __GFP_ZERO)) as KmallocFunction,
    kmallocAny,
    kmallocArray,
    krealloc,
    kfree,
    ksize,
    nrLargePages: () => port.ld32(statics + LARGE_PAGES),
  };
}

if (asCache(0) !== NO_CACHE || asPfn(0) !== NO_PFN) throw new Error("kmalloc: an empty lookup word must mean none");
if (lookupIndex(KMALLOC_MAX_CACHE_SIZE) >= ROW_WORDS) throw new Error("kmalloc: a lookup row is too short");
if (lookupIndex(SMALL_MAX + 1) !== SMALL_MAX / 8 + 1) throw new Error("kmalloc: the lookup row has a gap");
