/**
 * Automatic initialisation: memory is zeroed when it is handed out, or when it comes back, whether asked for or not.
 *
 * Theory. Memory that is handed out holds what its last owner left there. Whoever forgets to initialise a field, and
 * copies the structure to a program or to a device, gives away somebody else's data; and what was secret stays in RAM
 * until its page is written again. Two kernel parameters, as in Linux, put an end to one each:
 *
 *   init_on_alloc=1   every block of pages and every object is zero when it is handed out
 *   init_on_free=1    ... is zeroed when it is freed: also who reads RAM afterwards finds nothing
 *
 *          user A                    free                       user B
 *      ┌──────────────┐         ┌──────────────┐           ┌──────────────┐
 *      │ pw=sesame    │ ──────▶ │ pw=sesame    │ ────────▶ │ pw=sesame    │   neither
 *      │ pw=sesame    │ ──────▶ │ pw=sesame    │ ────────▶ │ 000000000    │   init_on_alloc=1
 *      │ pw=sesame    │ ──────▶ │ 000000000    │ ────────▶ │ 000000000    │   init_on_free=1
 *      └──────────────┘         └──────────────┘           └──────────────┘
 *
 * Both cost what zeroing costs, each time, and a page of a slab is zeroed as a page and again object by object. Neither
 * touches objects whose content is to survive: those of a cache with a constructor, and of one that readers may look
 * at after the free (SLAB_TYPESAFE_BY_RCU).
 *
 *   INI-1  with init_on_alloc no request is served with a byte that is not zero, but for caches as named above
 *   INI-2  with init_on_free the same holds of freed memory; what the allocators link there (S7) is their own
 *   INI-3  a free that is refused changes nothing: what may be freed is checked first
 *
 * The allocators themselves know nothing of it: these are wrappers, and without the parameters they are not there.
 * Not covered, as in Linux: elements that a mempool keeps in reserve, and memory of the boot allocator.
 * Source: mm/page_alloc.c (want_init_on_alloc, want_init_on_free), mm/slab.h (slab_want_init_on_alloc, _free).
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { Context, PhysAddr } from "../kernel/types.ts";
import { __GFP_ZERO } from "./gfp.ts";
import type { KmemCacheAllocBulk } from "./object_bulk.ts";
import type { KmemCacheAlloc, MissPath, ObjectCacheLayer } from "./object_cache.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { CACHE_FLAGS, CACHE_HAS_CTOR, type KmemCache, NO_SLAB, OBJECT_LIVE, type Slab } from "./slab_descriptor.ts";
import { SLAB_TYPESAFE_BY_RCU } from "./slab_layout.ts";
import type { SlabObjects } from "./slab_objects.ts";

export interface AutoInit {
  readonly onAlloc: boolean;
  readonly onFree: boolean;
}

/** `inner` with blocks of pages zeroed as `when` says. */
export function initPages(inner: PageAllocator, when: AutoInit): PageAllocator {
  const always = when.onAlloc ? __GFP_ZERO : 0;
  const allocPagesAny: PageAllocator["allocPagesAny"] = (ctx, order, gfp) =>
    inner.allocPagesAny(ctx, order, gfp | always);
  return {
    ...inner,
    allocPages: allocPagesAny as PageAllocator["allocPages"],
    allocPagesAny,
    tryAllocPages: (ctx, order, gfp) => inner.tryAllocPages(ctx, order, gfp | always),
    getFreePages: (ctx, order, gfp) => inner.getFreePages(ctx, order, gfp | always),
    freePages(ctx, pfn, order) {
      // INI-3
      if (when.onFree && inner.mayFree(pfn, order)) inner.zeroPages(ctx, pfn, order);
      return inner.freePages(ctx, pfn, order);
    },
  };
}

/** `inner` with objects zeroed as `when` says. */
export function initObjects(
  port: MemoryPort,
  objects: SlabObjects,
  miss: Pick<MissPath, "zeroObject">,
  inner: ObjectCacheLayer,
  when: AutoInit,
): ObjectCacheLayer {
  const isKept = (cache: KmemCache): boolean =>
    (port.ld32(cache + CACHE_FLAGS) & (CACHE_HAS_CTOR | SLAB_TYPESAFE_BY_RCU)) !== 0;

  /** INI-3: an object that is live, of its own cache. */
  const zeroFreed = (ctx: Context, slab: Slab, obj: PhysAddr): void => {
    const state = objects.stateOf(slab, obj);
    const cache = objects.cacheOfSlab(slab);
    if (state === 0 || port.ld8(state) !== OBJECT_LIVE || isKept(cache)) return;
    miss.zeroObject(ctx, cache, obj);
  };

  const kmemCacheAllocAny: ObjectCacheLayer["kmemCacheAllocAny"] = (ctx, cache, gfp) =>
    inner.kmemCacheAllocAny(ctx, cache, when.onAlloc && !isKept(cache) ? gfp | __GFP_ZERO : gfp);
  const kmemCacheAllocBulkAny: ObjectCacheLayer["kmemCacheAllocBulkAny"] = (ctx, cache, gfp, nr, into) =>
    inner.kmemCacheAllocBulkAny(ctx, cache, when.onAlloc && !isKept(cache) ? gfp | __GFP_ZERO : gfp, nr, into);

  const zeroFreedOf = (ctx: Context, cache: KmemCache, obj: PhysAddr): void => {
    const slab = when.onFree ? objects.slabOf(obj) : NO_SLAB;
    if (slab !== NO_SLAB && objects.cacheOfSlab(slab) === cache) zeroFreed(ctx, slab, obj);
  };

  return {
    ...inner,
    kmemCacheAllocBulk: kmemCacheAllocBulkAny as KmemCacheAllocBulk,
    kmemCacheAllocBulkAny,
    kmemCacheFreeBulk(ctx, cache, freed) {
      for (const obj of freed) zeroFreedOf(ctx, cache, obj);
      return inner.kmemCacheFreeBulk(ctx, cache, freed);
    },
    kmemCacheAlloc: kmemCacheAllocAny as KmemCacheAlloc,
    kmemCacheAllocAny,
    kmemCacheFree(ctx, cache, obj) {
      zeroFreedOf(ctx, cache, obj);
      return inner.kmemCacheFree(ctx, cache, obj);
    },
    freeFromSlab(ctx, slab, obj) {
      if (when.onFree) zeroFreed(ctx, slab, obj);
      return inner.freeFromSlab(ctx, slab, obj);
    },
  };
}
