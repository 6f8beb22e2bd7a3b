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

import { CYC_PER_LINE, CYC_ZERO_PAGE } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { CACHE_LINE, PAGE_SIZE } from "../kernel/params.ts";
import { type Context, type Pfn, type PhysAddr, pfnToPhys } from "../kernel/types.ts";
import { __GFP_ZERO } from "./gfp.ts";
import type { KmemCacheAlloc, ObjectCacheLayer } from "./object_cache.ts";
import { orderOfFlags, type Pages, PG_ALLOCATED, PG_OWNER_BITS, PG_STATE } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { CACHE_FLAGS, CACHE_HAS_CTOR, CACHE_OBJECT_SIZE, type KmemCache, OBJECT_LIVE } from "./slab_descriptor.ts";
import { SLAB_TYPESAFE_BY_RCU } from "./slab_layout.ts";
import type { SlabObjects } from "./slab_objects.ts";

export interface AutoInit {
  readonly onAlloc: boolean;
  readonly onFree: boolean;
}

/** `inner` with blocks of pages zeroed as `when` says. */
export function initPages(machine: Machine, pages: Pages, inner: PageAllocator, when: AutoInit): PageAllocator {
  const { port, harts } = machine;
  const { clock } = harts;
  const always = when.onAlloc ? __GFP_ZERO : 0;

  /** INI-3: the block is handed out as it says, and its caller is its only holder. */
  const mayFree = (pfn: Pfn, order: number): boolean => {
    if (pfn >>> 0 !== pfn || pfn === 0 || pfn >= pages.nrFrames) return false;
    const flags = pages.flags(pfn);
    const isOut = (flags & (PG_STATE | PG_OWNER_BITS)) === PG_ALLOCATED && orderOfFlags(flags) === order;
    return isOut && pages.refcount(pfn) === 1;
  };

  const zeroFreed = (ctx: Context, pfn: Pfn, order: number): void => {
    if (!mayFree(pfn, order)) return;
    port.fill(pfnToPhys(pfn), 0, PAGE_SIZE << order);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + (CYC_ZERO_PAGE << order);
  };

  const allocPagesAny: PageAllocator["allocPagesAny"] = (ctx, order, gfp) =>
    inner.allocPagesAny(ctx, order, gfp | always);
  return {
    ...inner,
    allocPages: allocPagesAny as PageAllocator["allocPages"],
    allocPagesAny,
    tryAllocPages: (ctx, order, gfp) => inner.tryAllocPages(ctx, order, gfp | always),
    getFreePages: (ctx, order, gfp) => inner.getFreePages(ctx, order, gfp | always),
    freePages(ctx, pfn, order) {
      if (when.onFree) zeroFreed(ctx, pfn, order);
      return inner.freePages(ctx, pfn, order);
    },
  };
}

/** `inner` with objects zeroed as `when` says. */
export function initObjects(
  machine: Machine,
  objects: SlabObjects,
  inner: ObjectCacheLayer,
  when: AutoInit,
): ObjectCacheLayer {
  const { port, harts } = machine;
  const { clock } = harts;
  const isKept = (cache: KmemCache): boolean =>
    (port.ld32(cache + CACHE_FLAGS) & (CACHE_HAS_CTOR | SLAB_TYPESAFE_BY_RCU)) !== 0;

  /** INI-3: an object that is live, of its own cache. */
  const zeroFreed = (ctx: Context, cache: KmemCache, obj: PhysAddr): void => {
    const state = objects.stateOf(objects.slabOf(obj), obj);
    if (state === 0 || port.ld8(state) !== OBJECT_LIVE || isKept(cache)) return;
    const bytes = port.ld32(cache + CACHE_OBJECT_SIZE);
    port.fill(obj, 0, bytes);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_PER_LINE * Math.ceil(bytes / CACHE_LINE);
  };

  const kmemCacheAllocAny: ObjectCacheLayer["kmemCacheAllocAny"] = (ctx, cache, gfp) =>
    inner.kmemCacheAllocAny(ctx, cache, when.onAlloc && !isKept(cache) ? gfp | __GFP_ZERO : gfp);
  return {
    ...inner,
    kmemCacheAlloc: kmemCacheAllocAny as KmemCacheAlloc,
    kmemCacheAllocAny,
    kmemCacheFree(ctx, cache, obj) {
      const slab = when.onFree ? objects.slabOf(obj) : 0;
      if (slab !== 0 && objects.cacheOfSlab(slab) === cache) zeroFreed(ctx, cache, obj);
      return inner.kmemCacheFree(ctx, cache, obj);
    },
    freeFromSlab(ctx, slab, obj) {
      if (when.onFree) zeroFreed(ctx, objects.cacheOfSlab(slab), obj);
      return inner.freeFromSlab(ctx, slab, obj);
    },
  };
}
