/**
 * Many objects of a cache in one call: kmem_cache_alloc_bulk and kmem_cache_free_bulk.
 *
 *   what the CPU's magazines and the depot have, a magazine at a time ─▶ the rest one by one ─▶ zeroes, if asked for
 *
 * Who fills a ring or builds a tree wants all of its objects or none: half of them is no use, and has to be given back
 * by somebody. A batch switches interrupts off once for a magazine's rounds, where single calls do so for each.
 *
 *   BULK-1  an allocation gives `nr` objects, or 0 and every object it had taken is back: also when its caller is
 *           killed while it sleeps for memory
 *   BULK-2  the objects are what as many single allocations would have given: distinct, live, constructed or zeroed
 *   BULK-3  interrupts are off for the rounds of one magazine at most
 *   BULK-4  a free refuses and reports what kmemCacheFree would, and frees all others
 *
 * Context: any; who may sleep as for single objects (object_cache.ts). The addresses are in an array of the caller's,
 * as in its registers. Fault injection counts one request for all of them, as Linux does.
 * Different from Linux: after a failure the array holds no stale addresses; a free in bulk says whether it refused any.
 * Source: mm/slub.c (kmem_cache_alloc_bulk_noprof, kmem_cache_free_bulk).
 */

import type { ContextTracking } from "../kernel/context.ts";
import { type Context, type MaySleep, NULL, type PhysAddr, type Sleeping, type TaskContext } from "../kernel/types.ts";
import { EINVAL } from "../kernel/uapi/errno.ts";
import { __GFP_DIRECT_RECLAIM, __GFP_ZERO, type AtomicGfp, type BlockingGfp, type Gfp } from "./gfp.ts";
import type { KmemCache } from "./slab_descriptor.ts";

/** kmem_cache_alloc_bulk by kind of mask: `nr` and the objects in `into`, or 0. `nr` 0 is 0. */
export interface KmemCacheAllocBulk {
  (ctx: TaskContext, cache: KmemCache, gfp: BlockingGfp, nr: number, into: PhysAddr[]): MaySleep<number>;
  (ctx: Context, cache: KmemCache, gfp: AtomicGfp, nr: number, into: PhysAddr[]): number;
}

export interface ObjectBulk {
  readonly kmemCacheAllocBulk: KmemCacheAllocBulk;
  /** The same for masks known at run time only. */
  kmemCacheAllocBulkAny(ctx: Context, cache: KmemCache, gfp: Gfp, nr: number, into: PhysAddr[]): MaySleep<number>;
  /** Frees all of `objects`: 0, or −EINVAL after a report for each that is none of this cache's or not live. */
  kmemCacheFreeBulk(ctx: Context, cache: KmemCache, objects: readonly PhysAddr[]): number;
}

/** What a layer knows about its objects at hand. */
export interface BulkParts {
  /** Puts at most `nr` objects at hand into `into` from its beginning; how many. Never sleeps, reports nothing. */
  takeMany(ctx: Context, cache: KmemCache, nr: number, into: PhysAddr[]): number;
  /** Keeps objects from `from` on, as far as that is quickly done: the index of the first that it did not. */
  keepMany(ctx: Context, cache: KmemCache, objects: readonly PhysAddr[], from: number): number;
  allocOne(ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<PhysAddr>;
  freeOne(ctx: Context, cache: KmemCache, obj: PhysAddr): number;
}

/** For layers that have nothing at hand. */
export const NOTHING_AT_HAND: Pick<BulkParts, "takeMany" | "keepMany"> = {
  takeMany: () => 0,
  keepMany: (_ctx, _cache, _objects, from) => from,
};

export interface BulkDeps {
  readonly contexts: Pick<ContextTracking, "mightSleep">;
  /** Of the miss path (object_cache.ts). */
  readonly miss: {
    mayZero(ctx: Context, cache: KmemCache): boolean;
    zeroObject(ctx: Context, cache: KmemCache, obj: PhysAddr): PhysAddr;
  };
}

export function createObjectBulk({ contexts, miss }: BulkDeps, parts: BulkParts): ObjectBulk {
  const kmemCacheFreeBulk = (ctx: Context, cache: KmemCache, objects: readonly PhysAddr[]): number => {
    let result = 0;
    for (let i = 0; i < objects.length; ) {
      const next = parts.keepMany(ctx, cache, objects, i);
      if (next === i && parts.freeOne(ctx, cache, objects[i++] as PhysAddr) !== 0) result = -EINVAL;
      if (next > i) i = next;
    }
    return result;
  };

  /** BULK-1 */
  const giveBack = (ctx: Context, cache: KmemCache, into: PhysAddr[], nr: number): number => {
    kmemCacheFreeBulk(ctx, cache, into.slice(0, nr));
    into.fill(NULL, 0, nr);
    return 0;
  };

  const finish = (ctx: Context, cache: KmemCache, gfp: Gfp, nr: number, into: readonly PhysAddr[]): number => {
    if ((gfp & __GFP_ZERO) === 0) return nr;
    for (let i = 0; i < nr; i++) miss.zeroObject(ctx, cache, into[i] as PhysAddr);
    return nr;
  };

  /** The rest of an allocation whose caller has to sleep: object `have` is on its way. */
  function* allocRest(
    ctx: Context,
    cache: KmemCache,
    gfp: Gfp,
    nr: number,
    into: PhysAddr[],
    have: number,
    first: Sleeping<PhysAddr>,
  ): Sleeping<number> {
    let [done, isUnwound] = [have, true];
    // A task that is killed while it sleeps here is unwound: what it has so far goes back.
    try {
      for (let got: MaySleep<PhysAddr> = first; ; got = parts.allocOne(ctx, cache, gfp & ~__GFP_ZERO)) {
        const obj = typeof got === "object" ? yield* got : got;
        if (obj === NULL) break;
        into[done++] = obj;
        if (done === nr) break;
      }
      isUnwound = false;
    } finally {
      if (isUnwound) giveBack(ctx, cache, into, done);
    }
    return done === nr ? finish(ctx, cache, gfp, nr, into) : giveBack(ctx, cache, into, done);
  }

  const kmemCacheAllocBulkAny: ObjectBulk["kmemCacheAllocBulkAny"] = (ctx, cache, gfp, nr, into) => {
    if ((gfp & __GFP_DIRECT_RECLAIM) !== 0) contexts.mightSleep(ctx, "mm/object_bulk.ts:kmemCacheAllocBulk");
    if ((gfp & __GFP_ZERO) !== 0 && !miss.mayZero(ctx, cache)) return 0;
    for (let done = parts.takeMany(ctx, cache, nr, into); done < nr; done++) {
      const got = parts.allocOne(ctx, cache, gfp & ~__GFP_ZERO);
      if (typeof got === "object") return allocRest(ctx, cache, gfp, nr, into, done, got);
      if (got === NULL) return giveBack(ctx, cache, into, done);
      into[done] = got;
    }
    return finish(ctx, cache, gfp, nr, into);
  };

  return {
    kmemCacheAllocBulk: kmemCacheAllocBulkAny as KmemCacheAllocBulk,
    kmemCacheAllocBulkAny,
    kmemCacheFreeBulk,
  };
}
