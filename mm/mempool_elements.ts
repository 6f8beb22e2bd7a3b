/**
 * struct mempool, and its elements: where they come from, what is one, and the mark of those in the reserve.
 *
 *   struct mempool, 80 bytes, by kmalloc:
 *
 *   | offset | field      | meaning                                                            | written under |
 *   |--------|------------|--------------------------------------------------------------------|---------------|
 *   | 0      | lock       | spinlock, irqsave; a leaf                                          |               |
 *   | 4, 8   | min, curr  | elements to keep; elements kept                                    | lock          |
 *   | 12     | elements   | granule of an array of min_nr granules                             | lock          |
 *   | 16     | kind       | POOL_CACHE, POOL_KMALLOC or POOL_PAGES                             | creation      |
 *   | 20     | what       | granule of the cache, bytes, or order                              | creation      |
 *   | 24     | wait       | queue of those who sleep                                           | wait.ts       |
 *   | 32     | out        | elements that callers hold                                         | atomic        |
 *   | 36     | zone       | __GFP_DMA or __GFP_DMA32, added to each mask                       | creation      |
 *   | 40, 48 | counters   | f64: elements handed out from the reserve, sleeps                  | lock          |
 *   | 56     | node       | list of all pools                                                  | list lock     |
 *   | 64     | magic      | tells a pool from any other block of memory                        | creation      |
 *
 * An element in the reserve is marked: a slab object's state byte says POOLED, a block of pages has a second holder. So
 * a free of it, by the pool or past it, is told at once, and nothing of it is lost. Context: any.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { bugOn } from "../kernel/bug.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { type Context, fromGranule, type MaySleep, type PhysAddr, physToPfn, toGranule } from "../kernel/types.ts";
import type { Gfp } from "./gfp.ts";
import { kmallocBucket } from "./kmalloc.ts";
import { ORDER_MASK, ORDER_SHIFT, type Pages, PG_ALLOCATED, PG_OWNER_BITS, PG_STATE } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { asCache, CACHE_FLAGS, CACHE_OBJECT_SIZE, NO_SLAB, OBJECT_LIVE, OBJECT_POOLED } from "./slab_descriptor.ts";
import { SLAB_KMALLOC } from "./slab_layout.ts";
import type { SlabSubsystem } from "./slab_subsystem.ts";

declare const mempoolBrand: unique symbol;
/** Address of a struct mempool. */
export type Mempool = PhysAddr & { readonly [mempoolBrand]: true };
export const NO_MEMPOOL = 0 as Mempool;
export const asMempool = (addr: number): Mempool => addr as Mempool;

export const MEMPOOL_BYTES = 80;
export const P_LOCK = 0;
export const P_MIN = 4;
export const P_CURR = 8;
export const P_ELEMENTS = 12;
export const P_KIND = 16;
export const P_WHAT = 20;
export const P_WAIT = 24;
export const P_OUT = 32;
export const P_ZONE = 36;
export const P_FROM_RESERVE = 40;
export const P_SLEEPS = 48;
export const P_NODE = 56;
export const P_MAGIC = 64;
export const MEMPOOL_MAGIC = 0x6d70_6f6c;

export const POOL_CACHE = 1;
export const POOL_KMALLOC = 2;
export const POOL_PAGES = 3;

export interface MempoolElements {
  /** An element from the allocator, with the pool's zone. */
  allocElement(ctx: Context, pool: Mempool, gfp: Gfp): MaySleep<PhysAddr>;
  /** Gives an unmarked element back to the allocator. */
  freeElement(ctx: Context, pool: Mempool, element: PhysAddr): void;
  /** Is this a live, unmarked element that the pool's allocator could have given? O(1). */
  isElement(pool: Mempool, element: PhysAddr): boolean;
  setMark(pool: Mempool, element: PhysAddr, isPooled: boolean): void;
  isMarked(pool: Mempool, element: PhysAddr): boolean;
  isPool(pool: Mempool): boolean;
}

export interface MempoolElementsDeps {
  readonly machine: Machine;
  readonly pages: Pages;
  readonly pageAlloc: Pick<PageAllocator, "getFreePages" | "freePages">;
  readonly slab: Pick<SlabSubsystem, "kmalloc" | "layer" | "objects">;
}

export function createMempoolElements({ machine, pages, pageAlloc, slab }: MempoolElementsDeps): MempoolElements {
  const { port } = machine;
  const { kmalloc, layer, objects } = slab;
  const kindOf = (pool: Mempool): number => port.ld32(pool + P_KIND);
  const whatOf = (pool: Mempool): number => port.ld32(pool + P_WHAT);

  /** Address of the state byte of a slab object; 0 when there is none at `addr`. */
  const stateOf = (addr: PhysAddr): number => {
    const slab = objects.slabOf(addr);
    return slab === NO_SLAB ? 0 : objects.stateOf(slab, addr);
  };
  const hasState = (addr: PhysAddr, wanted: number): boolean => {
    const state = stateOf(addr);
    return state !== 0 && port.ld8(state) === wanted;
  };

  /** Of any number, as slabOf(). */
  const isBlock = (pool: Mempool, addr: PhysAddr): boolean => {
    const pfn = physToPfn(addr);
    if (addr >>> 0 !== addr || addr % PAGE_SIZE !== 0 || pfn >= pages.nrFrames) return false;
    const wanted = PG_ALLOCATED | (whatOf(pool) << ORDER_SHIFT);
    return (pages.flags(pfn) & (PG_STATE | PG_OWNER_BITS | ORDER_MASK)) === wanted && pages.refcount(pfn) === 1;
  };

  return {
    allocElement(ctx, pool, mask) {
      const what = whatOf(pool);
      const gfp = mask | port.ld32(pool + P_ZONE);
      if (kindOf(pool) === POOL_CACHE) return layer.kmemCacheAllocAny(ctx, asCache(fromGranule(what)), gfp);
      if (kindOf(pool) === POOL_KMALLOC) return kmalloc.kmallocAny(ctx, what, gfp);
      return pageAlloc.getFreePages(ctx, what, gfp);
    },
    freeElement(ctx, pool, element) {
      const what = whatOf(pool);
      let failed = 0;
      if (kindOf(pool) === POOL_CACHE) failed = layer.kmemCacheFree(ctx, asCache(fromGranule(what)), element);
      else if (kindOf(pool) === POOL_KMALLOC) failed = kmalloc.kfree(ctx, element);
      else failed = pageAlloc.freePages(ctx, physToPfn(element), what);
      bugOn(failed !== 0, "mempool: the allocator refuses an element that passed the checks", element);
    },
    isElement(pool, element) {
      if (kindOf(pool) === POOL_PAGES) return isBlock(pool, element);
      if (!hasState(element, OBJECT_LIVE)) return false;
      const cache = objects.cacheOfSlab(objects.slabOf(element));
      if (kindOf(pool) === POOL_CACHE) return toGranule(cache) === whatOf(pool);
      const isKmalloc = (port.ld32(cache + CACHE_FLAGS) & SLAB_KMALLOC) !== 0;
      return isKmalloc && port.ld32(cache + CACHE_OBJECT_SIZE) === kmallocBucket(whatOf(pool));
    },
    setMark(pool, element, isPooled) {
      if (kindOf(pool) === POOL_PAGES) pages.setRefcount(physToPfn(element), isPooled ? 2 : 1);
      else port.st8(stateOf(element), isPooled ? OBJECT_POOLED : OBJECT_LIVE);
    },
    isMarked: (pool, element) =>
      kindOf(pool) === POOL_PAGES ? pages.refcount(physToPfn(element)) === 2 : hasState(element, OBJECT_POOLED),
    isPool: (pool) => hasState(pool, OBJECT_LIVE) && port.ld32(pool + P_MAGIC) === MEMPOOL_MAGIC,
  };
}

if (P_MAGIC + 4 > MEMPOOL_BYTES || P_NODE % 8 !== 0 || P_WAIT % 8 !== 0) throw new Error("mempool: layout");
