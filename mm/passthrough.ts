/**
 * The object-cache layer that caches nothing: every object comes from its slab and goes back to it at once.
 *
 * The slow twin of magazine.ts: what an allocator without a per-CPU layer costs, and the yardstick of the conformance
 * suite. Freed memory is on a free list immediately, which is what a hunt for a use after free wants.
 * Context: as object_cache.ts. Locks: the cache's word, inside the slab layer.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import type { ContextTracking } from "../kernel/context.ts";
import type { Context, MaySleep, PhysAddr } from "../kernel/types.ts";
import { __GFP_DIRECT_RECLAIM, __GFP_ZERO, type Gfp } from "./gfp.ts";
import { createObjectBulk, NOTHING_AT_HAND } from "./object_bulk.ts";
import type { KmemCacheAlloc, MissPath, ObjectCacheLayer } from "./object_cache.ts";
import type { Pages } from "./page.ts";
import { createSlabCheck } from "./slab_check.ts";
import { cacheName, type KmemCache, NO_CACHE, OBJECT_CACHED, OBJECT_LIVE } from "./slab_descriptor.ts";
import type { SlabLayer } from "./slab_layer.ts";
import type { SlabObjects } from "./slab_objects.ts";

export interface PassthroughDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly pages: Pages;
  readonly slabs: SlabLayer;
  readonly objects: SlabObjects;
  readonly miss: MissPath;
}

export function createPassthroughLayer(deps: PassthroughDeps): ObjectCacheLayer {
  const { machine, contexts, slabs, objects, miss } = deps;
  const { port } = machine;
  const { countStates } = createSlabCheck(port, deps.pages, objects);

  const kmemCacheAllocAny = (ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<PhysAddr> => {
    if ((gfp & __GFP_DIRECT_RECLAIM) !== 0) contexts.mightSleep(ctx, "mm/passthrough.ts:kmemCacheAlloc");
    if ((gfp & __GFP_ZERO) !== 0) return miss.allocZeroed(ctx, cache, gfp, miss.allocMissed);
    return miss.allocMissed(ctx, cache, gfp);
  };

  return {
    attach: () => {},
    detach: () => {},
    kmemCacheAlloc: kmemCacheAllocAny as KmemCacheAlloc,
    kmemCacheAllocAny,
    kmemCacheFree: slabs.freeObject,
    ...createObjectBulk(deps, { ...NOTHING_AT_HAND, allocOne: miss.allocMissed, freeOne: slabs.freeObject }),
    freeFromSlab(ctx, slab, obj) {
      const state = objects.stateOf(slab, obj);
      if (state === 0 || port.ld8(state) !== OBJECT_LIVE) return objects.reportBadFree(ctx, NO_CACHE, slab, obj);
      return slabs.freeObject(ctx, objects.cacheOfSlab(slab), obj);
    },
    drain: () => 0,
    drainCpu: () => 0,
    reap: () => 0,
    tick: () => 0,
    cpuStats: () => ({ allocHits: 0, allocMisses: 0, freeHits: 0, freeMisses: 0, cached: 0 }),
    stats: () => ({
      cached: 0,
      cpuAllocs: 0,
      cpuFrees: 0,
      fullLoads: 0,
      emptyLoads: 0,
      nrFull: 0,
      nrEmpty: 0,
      magazineSize: 0,
      magazines: 0,
      contention: 0,
    }),
    check(cache) {
      if (countStates(cache, OBJECT_CACHED) !== 0) return `cache ${cacheName(port, cache)}: an object is cached`;
      return slabs.check(cache);
    },
  };
}
