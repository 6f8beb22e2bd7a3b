/**
 * The object-cache seam: kmem_cache_alloc and kmem_cache_free, and what they do when nothing is at hand.
 *
 *   kmemCacheAlloc ─▶ per-CPU layer: hit ─────────────────────────────▶ object                 (plain value)
 *                        │ miss
 *                        ▼
 *                     slab layer, growing by tryAllocPages ───────────▶ object                 (plain value)
 *                        │ no pages
 *                        ▼
 *                     allocPages with all the mask allows: splat and NULL, or the rest of the work as a generator
 *
 * G2: a blocking mask calls mightSleep() first, always, also when the object would have been at hand. The types say the
 * same at compile time: a blocking mask wants a TaskContext, and its result may have to be iterated.
 *
 *   OBJ-1  a mask without __GFP_DIRECT_RECLAIM never yields a generator
 *   OBJ-2  a failed allocation leaves no page, slab or object behind
 *   OBJ-3  __GFP_ZERO is refused by a cache with a constructor: zeroes are not its constructed state
 *   OBJ-4  a generator is returned only by who has to sleep: pages in hand are used at once, whoever takes the result
 *
 * Two implementations: magazine.ts, and passthrough.ts without a per-CPU layer. Both are judged by the conformance
 * suite test/conformance/object_layers.ts. Source: mm/slub.c (slab_alloc_node, ___slab_alloc, slab_out_of_memory).
 */

import { CYC_PER_LINE } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { CACHE_LINE } from "../kernel/params.ts";
import {
  asPhys,
  type Context,
  fromGranule,
  type MaySleep,
  NO_PFN,
  NULL,
  type Pause,
  type Pfn,
  type PhysAddr,
  type Sleeping,
  type TaskContext,
} from "../kernel/types.ts";
import { __GFP_DIRECT_RECLAIM, __GFP_NOWARN, __GFP_ZERO, type AtomicGfp, type BlockingGfp, type Gfp } from "./gfp.ts";
import type { ObjectBulk } from "./object_bulk.ts";
import { slabPageGfp } from "./slab.ts";
import {
  asCache,
  CACHE_DESCRIPTORS,
  CACHE_FLAGS,
  CACHE_HAS_CTOR,
  CACHE_OBJECT_SIZE,
  CACHE_ORDER,
  cacheName,
  type KmemCache,
  type Slab,
} from "./slab_descriptor.ts";
import type { SlabLayer, SlabPages } from "./slab_layer.ts";
import type { SlabReports } from "./slab_report.ts";

/** kmem_cache_alloc by kind of mask. */
export interface KmemCacheAlloc {
  (ctx: TaskContext, cache: KmemCache, gfp: BlockingGfp): MaySleep<PhysAddr>;
  (ctx: Context, cache: KmemCache, gfp: AtomicGfp): PhysAddr;
}

/** What a layer knows about a cache. Objects are counted where they are, operations since creation. */
export interface ObjectCacheStats {
  /** Objects that are free to callers but not back in their slabs. */
  readonly cached: number;
  /** Allocations and frees that the per-CPU layer served; the others are counted by the slab layer. */
  readonly cpuAllocs: number;
  readonly cpuFrees: number;
  /** Full and empty magazines fetched from the depot, and what is there now. */
  readonly fullLoads: number;
  readonly emptyLoads: number;
  readonly nrFull: number;
  readonly nrEmpty: number;
  /** Rounds of a magazine; 0 while the cache is not cached per CPU. */
  readonly magazineSize: number;
  /** Magazines of this cache, wherever they are. */
  readonly magazines: number;
  /** Times that a CPU found the depot in use, with magazines of this size (M6). */
  readonly contention: number;
}

/** What one CPU did with a cache, and has of it. An object may be freed on another CPU than it came from. */
export interface CpuCacheStats {
  /** Allocations served by the CPU's magazines, and those that went on to the slabs (failed ones too). */
  readonly allocHits: number;
  readonly allocMisses: number;
  readonly freeHits: number;
  readonly freeMisses: number;
  /** Objects in the CPU's magazines. */
  readonly cached: number;
}

/** The seam. */
export interface ObjectCacheLayer extends ObjectBulk {
  /** Starts caching the objects of a new cache. A cache that is never attached works, uncached. */
  attach(ctx: TaskContext, cache: KmemCache): void;
  /** Ends it and returns everything it holds to the slabs: what must precede destroying the cache. */
  detach(ctx: TaskContext, cache: KmemCache): void;
  readonly kmemCacheAlloc: KmemCacheAlloc;
  /** The same for masks known at run time only; a blocking mask in the wrong context is reported. NULL on failure. */
  kmemCacheAllocAny(ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<PhysAddr>;
  /** 0, or −EINVAL after a report: not an object of this cache, not its start, not live. Any context. */
  kmemCacheFree(ctx: Context, cache: KmemCache, obj: PhysAddr): number;
  /** The same when the caller found the slab already (kfree): `obj` lies in its pages. */
  freeFromSlab(ctx: Context, slab: Slab, obj: PhysAddr): number;
  /**
   * Returns all cached objects of all CPUs to their slabs; their number. No other CPU may be inside this layer: in one
   * host thread none is; threads must stop them first.
   */
  drain(ctx: Context, cache: KmemCache): number;
  /**
   * The same for what one CPU has, which is the caller's own or is offline: nobody else may be inside the layer there.
   */
  drainCpu(ctx: Context, cache: KmemCache, cpu: number): number;
  /**
   * M7: returns magazines that are not needed to the slabs, at most `most`, all of the depot's if `everything`; their
   * number. Any context; O(rounds).
   */
  reap(ctx: Context, cache: KmemCache, most: number, everything: boolean): number;
  /** M6, M7: ends an interval; may change the size of magazines. Magazines that were reaped. Other CPUs as in drain. */
  tick(ctx: TaskContext, cache: KmemCache): number;
  cpuStats(cache: KmemCache, cpu: number): CpuCacheStats;
  stats(cache: KmemCache): ObjectCacheStats;
  /** Invariants of layer and slabs for one cache: the first violation, or null. O(objects). */
  check(cache: KmemCache): string | null;
}

export interface MissPathDeps {
  readonly machine: Machine;
  readonly pageAlloc: SlabPages;
  readonly slabs: SlabLayer;
  readonly reports: SlabReports;
}

/** What every implementation does after a miss and for a zeroed object. */
export interface MissPath {
  /** An object from the slabs, with all that the mask allows. NULL after the page allocator's splat and our word. */
  allocMissed(ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<PhysAddr>;
  /** `alloc` without __GFP_ZERO, then zeroes. OBJ-3. */
  allocZeroed(
    ctx: Context,
    cache: KmemCache,
    gfp: Gfp,
    alloc: (ctx: Context, cache: KmemCache, gfp: Gfp) => MaySleep<PhysAddr>,
  ): MaySleep<PhysAddr>;
  /** OBJ-3: may its objects be zeroed? If not, that is reported. */
  mayZero(ctx: Context, cache: KmemCache): boolean;
  /** Zeroes what its user may use of an object, and returns it; NULL for NULL. */
  zeroObject(ctx: Context, cache: KmemCache, obj: PhysAddr): PhysAddr;
}

export function createMissPath({ machine, pageAlloc, slabs, reports }: MissPathDeps): MissPath {
  const { port, harts } = machine;
  const { clock } = harts;

  const fail = (ctx: Context, cache: KmemCache, gfp: Gfp): PhysAddr => {
    if ((gfp & __GFP_NOWARN) === 0) reports.outOfMemory(ctx, cache, gfp);
    return NULL;
  };

  const getPages = (ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<Pfn> =>
    pageAlloc.allocPagesAny(ctx, port.ld32(cache + CACHE_ORDER), slabPageGfp(port, cache, gfp));

  /** The rest of a miss whose caller may sleep: pages, a struct slab for them, an object. */
  function* refill(ctx: TaskContext, cache: KmemCache, gfp: Gfp, first: MaySleep<Pfn>): Sleeping<PhysAddr> {
    for (let got = first; ; got = getPages(ctx, cache, gfp)) {
      const pfn = typeof got === "object" ? yield* got : got;
      if (pfn === NO_PFN) return fail(ctx, cache, gfp);
      while (!slabs.growWith(ctx, cache, pfn, gfp)) {
        // Pages but no struct slab: its cache needs a page, and makes its descriptors on it.
        const descriptors = asCache(fromGranule(port.ld32(cache + CACHE_DESCRIPTORS)));
        const more = getPages(ctx, descriptors, gfp);
        const extra = typeof more === "object" ? yield* more : more;
        if (extra === NO_PFN) {
          pageAlloc.freePages(ctx, pfn, port.ld32(cache + CACHE_ORDER));
          return fail(ctx, cache, gfp);
        }
        slabs.growWith(ctx, descriptors, extra, gfp);
      }
      const obj = slabs.allocObject(ctx, cache, gfp);
      // Else an interrupt took all objects of the new slab: once more.
      if (obj !== NULL) return obj;
    }
  }

  function* continueWith(first: Pause, rest: Sleeping<PhysAddr>): Sleeping<PhysAddr> {
    yield first;
    return yield* rest;
  }

  /** OBJ-4: `rest` up to its end or the first place where it really sleeps. */
  const startNow = (rest: Sleeping<PhysAddr>): MaySleep<PhysAddr> => {
    const step = rest.next();
    return step.done === true ? step.value : continueWith(step.value, rest);
  };

  const allocMissed = (ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<PhysAddr> => {
    const obj = slabs.allocObject(ctx, cache, gfp);
    if (obj !== NULL) return obj;
    const got = getPages(ctx, cache, gfp);
    if (got === NO_PFN) return fail(ctx, cache, gfp);
    if ((gfp & __GFP_DIRECT_RECLAIM) !== 0) return startNow(refill(ctx as TaskContext, cache, gfp, got));
    if (slabs.growWith(ctx, cache, got as Pfn, gfp)) return slabs.allocObject(ctx, cache, gfp);
    pageAlloc.freePages(ctx, got as Pfn, port.ld32(cache + CACHE_ORDER));
    return fail(ctx, cache, gfp);
  };

  const zeroObject = (ctx: Context, cache: KmemCache, obj: PhysAddr): PhysAddr => {
    if (obj === NULL) return NULL;
    const bytes = port.ld32(cache + CACHE_OBJECT_SIZE);
    port.fill(obj, 0, bytes);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_PER_LINE * Math.ceil(bytes / CACHE_LINE);
    return obj;
  };

  const mayZero = (ctx: Context, cache: KmemCache): boolean => {
    if ((port.ld32(cache + CACHE_FLAGS) & CACHE_HAS_CTOR) === 0) return true;
    reports.warning(ctx, `__GFP_ZERO on cache ${cacheName(port, cache)}, which has a constructor: refused`);
    return false;
  };

  function* zeroLater(ctx: Context, cache: KmemCache, rest: Sleeping<PhysAddr>): Sleeping<PhysAddr> {
    return zeroObject(ctx, cache, yield* rest);
  }

  return {
    allocMissed,
    mayZero,
    zeroObject,
    allocZeroed(ctx, cache, gfp, alloc) {
      if (!mayZero(ctx, cache)) return NULL;
      const got = alloc(ctx, cache, gfp & ~__GFP_ZERO);
      return typeof got === "object" ? zeroLater(ctx, cache, got) : zeroObject(ctx, cache, asPhys(got));
    },
  };
}
