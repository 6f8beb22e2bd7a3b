/**
 * The slab allocator: objects of one size, cut from slabs of pages. Bonwick's design of 1994.
 *
 * Theory.
 *
 * 1. A *cache* hands out objects of one type. It takes pages from the page allocator a *slab* at a time, 2^order pages,
 *    and cuts each slab into objects of equal size. Allocating pops an object off the free list of some slab, freeing
 *    pushes it back. So an object costs a few loads instead of a search, there is no space between objects to lose,
 *    and the pages of a type that is no longer used can be found and given back.
 *
 *      cache ─┬─ lists of slabs by use:   empty │ ¼ │ ½ │ ¾ │ 1⁻ │ full
 *             │                             │     │              │
 *             │                          struct slab ⇄ struct slab …
 *             │                             │ base, in use, free list, state of each object
 *             ▼                             ▼
 *          order, size, objects          pages:  |colour| obj 0 | obj 1 | … | obj n−1 | rest |
 *
 * 2. *Which slab?* One that is nearly full. Objects that die together tend to be born together; taking from the fullest
 *    slab leaves the emptier ones alone, and those drain until they can be returned. illumos keeps partial slabs in a
 *    tree ordered by use (M11). We keep four lists, one per quartile: O(1), and the order between two slabs of the same
 *    quartile matters little. Linux takes the first of one list.
 *
 * 3. *When to give pages back?* A slab whose last object returns is freed at once if the cache has min_partial slabs
 *    with room already (S5), else kept: a cache that oscillates around a slab boundary should not drag the page
 *    allocator along. shrink() returns every empty slab.
 *
 * 4. *Constructed objects* (M10, section 3 of Bonwick's paper). A constructor runs once for each object when its slab
 *    is made, not at each allocation; whoever frees an object returns it in constructed state. The link of the free
 *    list then lies behind the object instead of inside it (S7), or it would destroy what the constructor wrote.
 *
 * 5. *Colour* (M9). Slabs are page-aligned, so the same field of the first object of every slab would fall onto the
 *    same lines of the CPU's cache. The bytes left over at the end of a slab are used to shift the objects of
 *    successive slabs by multiples of the alignment.
 *
 * 6. *From an address to its object* (slab_objects.ts). Each frame of a slab has PG_SLAB and names its struct slab. The
 *    index follows by multiplication with a reciprocal. If index × size is not the offset, the pointer is interior. So
 *    a wild, interior or misaligned free is told in O(1), always, not in a debug mode.
 *
 * 7. *One byte of state per object*, in the struct slab, off the slab: free, live, or in a magazine. It makes a double
 *    free exact (also of an object that sits in a magazine) and lets a corrupted free list be rebuilt. A byte, not a
 *    bit: the state of an object is written by whoever owns the object, without the cache's lock; eight owners of one
 *    byte would need an atomic operation on every allocation. It costs 1.6 % for 64-byte objects, 0.4 % for 256.
 *
 * 8. *Descriptors of descriptors.* A struct slab comes from one of five internal caches, by size. The slabs of those
 *    carry their own struct slab in front of the objects (Bonwick's "small slab"), which ends the recursion. The
 *    descriptors of these five and of the cache `kmem_cache`, from which all others come, are static.
 *
 * Boot: createSlabLayer() may run before there is a page to be had; init() writes the static descriptors and needs
 * none either; the first createCache() takes the first slab.
 *
 *   SLAB-1  slabs of a cache are disjoint; each object lies inside its slab, aligned as promised (S2)
 *   SLAB-2  every frame of a slab has PG_SLAB and names the struct slab; no other frame has PG_SLAB
 *   SLAB-3  in use = number of states that are not FREE = objects − length of the free list
 *   SLAB-4  the free list visits exactly the objects whose state is FREE, each once
 *   SLAB-5  an object is handed out at most once between two frees
 *   SLAB-6  a slab is on the list that its use says, and nr_partial counts the slabs with room
 *   SLAB-7  constructor calls = slabs created × objects, for a cache with a constructor
 *   SLAB-8  slabs created − slabs destroyed = nr_slabs;  allocs − frees − flushed = objects in use         (M13)
 *   SLAB-9  NR_SLAB_RECLAIMABLE + NR_SLAB_UNRECLAIMABLE = Σ nr_slabs · 2^order + pages of large kmallocs
 *   SLAB-10 the byte behind the last state is FREE: a free of the address behind the last object fails the state test
 *   SLAB-11 a call that fails changes nothing but counters of failures
 *   SLAB-12 the pages of a SLAB_TYPESAFE_BY_RCU cache go back after a grace period; until then they are slab pages, and
 *           what is freed may be reused at once, but as an object of the same type
 *
 * Locks: the word of each cache, irqsave, covers its lists, counters and the free lists of its slabs. It is a leaf:
 * nothing is allocated, freed, constructed or printed under it (but the report of a broken free list).
 * Context: any, unless said otherwise; nothing here sleeps. Who may sleep is decided above, in object_cache.ts.
 *
 * Differences from Linux: no per-CPU slab (magazines take its place), no merging of similar caches, no fallback to a
 * smaller order when memory is fragmented (so num_objs = num_slabs × objperslab), off-slab states, colouring.
 * Source: J. Bonwick, "The Slab Allocator: An Object-Caching Kernel Memory Allocator", USENIX 1994; illumos kmem.c;
 * Linux mm/slub.c for the rules S4-S9.
 */

import { CYC_SLAB_OBJECT, CYC_SLAB_SETUP_OBJECT } from "../kernel/arch/charges.ts";
import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import { initListHead, listAdd, listDel, listFirst } from "../kernel/lib/list.ts";
import {
  alignUp,
  asPfn,
  asPhys,
  type Context,
  fromGranule,
  NO_PFN,
  NULL,
  type Pfn,
  type PhysAddr,
  pfnToPhys,
  toGranule,
} from "../kernel/types.ts";
import { EINVAL } from "../kernel/uapi/errno.ts";
import {
  __GFP_COMP,
  __GFP_DMA,
  __GFP_DMA32,
  __GFP_HIGHMEM,
  __GFP_MOVABLE,
  __GFP_RECLAIMABLE,
  __GFP_ZERO,
  type Gfp,
} from "./gfp.ts";
import { PG_SLAB } from "./page.ts";
import { createSlabCaches } from "./slab_caches.ts";
import { createSlabCheck } from "./slab_check.ts";
import {
  asCache,
  asSlab,
  CACHE_ALIGN,
  CACHE_COLOUR,
  CACHE_COLOUR_MAX,
  CACHE_CTOR_CALLS,
  CACHE_DESCRIPTORS,
  CACHE_FLAGS,
  CACHE_FLUSHED,
  CACHE_GEOMETRY,
  CACHE_HAS_CTOR,
  CACHE_ID,
  CACHE_MIN_PARTIAL,
  CACHE_NR_PARTIAL,
  CACHE_NR_SLABS,
  CACHE_OBJECTS,
  CACHE_ORDER,
  CACHE_SIZE,
  CACHE_SLAB_ALLOCS,
  CACHE_SLAB_FREES,
  CACHE_SLABS_CREATED,
  CACHE_SLABS_DESTROYED,
  type KmemCache,
  LIST_EMPTY,
  LIST_FULLEST,
  liveState,
  NO_CACHE,
  NO_SLAB,
  OBJECT_CACHED,
  PRIVATE_IS_SLAB,
  SLAB_BASE,
  SLAB_CACHE,
  SLAB_FREELIST,
  SLAB_GEOMETRY,
  SLAB_INUSE,
  SLAB_OBJECTS,
  SLAB_PFN,
  SLAB_SIZE,
  SLAB_STATES,
  type Slab,
  slabBytes,
} from "./slab_descriptor.ts";
import {
  type CtorTable,
  type GracePeriods,
  type SlabDeps,
  type SlabLayer,
  STATIC_WAITING_PAGES,
} from "./slab_layer.ts";
import { SLAB_CACHE_DMA, SLAB_RECLAIM_ACCOUNT, SLAB_TYPESAFE_BY_RCU } from "./slab_layout.ts";
import { hexAddr } from "./slab_report.ts";
import { NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE } from "./vmstat.ts";

const PLACE_BITS = __GFP_DMA | __GFP_HIGHMEM | __GFP_DMA32 | __GFP_MOVABLE | __GFP_RECLAIMABLE;
const NOT_FOR_PAGES = PLACE_BITS | __GFP_ZERO | __GFP_COMP;

/** The mask for a cache's pages: from where is the cache's business, how hard to try the caller's. */
export function slabPageGfp(port: MemoryPort, cache: KmemCache, gfp: Gfp): Gfp {
  const flags = port.ld32(cache + CACHE_FLAGS);
  const zone = (flags & SLAB_CACHE_DMA) !== 0 ? __GFP_DMA : 0;
  const mobility = (flags & SLAB_RECLAIM_ACCOUNT) !== 0 ? __GFP_RECLAIMABLE : 0;
  return (gfp & ~NOT_FOR_PAGES) | zone | mobility;
}

export function createSlabLayer(deps: SlabDeps): SlabLayer {
  const { machine, spinlocks, pages, pageAlloc, vmstat, reports, objects, statics } = deps;
  const { port, harts } = machine;
  const { clock } = harts;
  const { spinLockIrqsave, spinUnlockIrqrestore } = spinlocks;
  const { slabOf, cacheOfSlab, stateOf, pop, push, listHead } = objects;
  const ctors: CtorTable = [];
  let gracePeriods: { readonly rcu: GracePeriods; readonly fn: number } | undefined;

  const count = (addr: number, n: number): void => port.stF64(addr, port.ldF64(addr) + n);
  const add = (addr: number, delta: number): void => port.st32(addr, port.ld32(addr) + delta);

  // ── Making and unmaking slabs ────────────────────────────────────────────────────────────────────────────────────

  /** M9: colour of the next slab. */
  const nextColour = (ctx: Context, cache: KmemCache): number => {
    const irq = spinLockIrqsave(ctx, cache);
    const colour = port.ld32(cache + CACHE_COLOUR);
    const next = colour + port.ld32(cache + CACHE_ALIGN);
    port.st32(cache + CACHE_COLOUR, next > port.ld32(cache + CACHE_COLOUR_MAX) ? 0 : next);
    spinUnlockIrqrestore(ctx, cache, irq);
    return colour;
  };

  const accountPages = (cache: KmemCache, sign: number): void => {
    const isReclaimable = (port.ld32(cache + CACHE_FLAGS) & SLAB_RECLAIM_ACCOUNT) !== 0;
    const nrPages = 2 ** port.ld32(cache + CACHE_ORDER);
    vmstat.modItem(isReclaimable ? NR_SLAB_RECLAIMABLE : NR_SLAB_UNRECLAIMABLE, sign * nrPages);
  };

  /** SLAB-2: marks the frames of a slab, or (with NO_SLAB) unmarks them. */
  const markFrames = (first: Pfn, order: number, slab: Slab): void => {
    for (let pfn = first as number; pfn < first + 2 ** order; pfn++) {
      if (slab === NO_SLAB) {
        pages.setPrivate(asPfn(pfn), 0);
        pages.clearFlags(asPfn(pfn), PG_SLAB);
      } else {
        pages.setPrivate(asPfn(pfn), (toGranule(slab) | PRIVATE_IS_SLAB) >>> 0);
        pages.addFlags(asPfn(pfn), PG_SLAB);
      }
    }
  };

  /** Number of constructor calls. Without the lock: nobody else knows the slab yet. */
  const construct = (cache: KmemCache, slab: Slab): number => {
    if ((port.ld32(cache + CACHE_FLAGS) & CACHE_HAS_CTOR) === 0) return 0;
    const ctor = ctors[port.ld32(cache + CACHE_ID)] as (object: PhysAddr) => void;
    const nrObjects = port.ld32(slab + SLAB_OBJECTS);
    const size = port.ld32(slab + SLAB_SIZE);
    for (let i = 0; i < nrObjects; i++) ctor(asPhys(port.ld32(slab + SLAB_BASE) + i * size));
    return nrObjects;
  };

  const growWith = (ctx: Context, cache: KmemCache, pfn: Pfn, gfp: Gfp): boolean => {
    const nrObjects = port.ld32(cache + CACHE_OBJECTS);
    const start = pfnToPhys(pfn);
    const descriptors = asCache(fromGranule(port.ld32(cache + CACHE_DESCRIPTORS)));
    let slab = asSlab(start);
    let base = start + alignUp(slabBytes(nrObjects), port.ld32(cache + CACHE_ALIGN));
    if (descriptors !== NO_CACHE) {
      slab = asSlab(allocObject(ctx, descriptors, gfp));
      if (slab === NO_SLAB) return false;
      base = start + nextColour(ctx, cache);
    }
    port.st32(slab + SLAB_CACHE, toGranule(cache));
    port.st32(slab + SLAB_BASE, base);
    port.st32(slab + SLAB_GEOMETRY, port.ld32(cache + CACHE_GEOMETRY));
    port.st32(slab + SLAB_SIZE, port.ld32(cache + CACHE_SIZE));
    port.st32(slab + SLAB_OBJECTS, nrObjects);
    port.st32(slab + SLAB_INUSE, 0);
    port.st32(slab + SLAB_PFN, pfn);
    port.fill(slab + SLAB_STATES, 0, nrObjects + 1);
    objects.threadFreeList(cache, slab);
    const nrConstructed = construct(cache, slab);
    markFrames(pfn, port.ld32(cache + CACHE_ORDER), slab);
    accountPages(cache, 1);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_SLAB_SETUP_OBJECT * nrObjects;

    const irq = spinLockIrqsave(ctx, cache);
    initListHead(port, slab);
    listAdd(port, slab, listHead(cache, LIST_EMPTY));
    add(cache + CACHE_NR_SLABS, 1);
    add(cache + CACHE_NR_PARTIAL, 1);
    count(cache + CACHE_SLABS_CREATED, 1);
    count(cache + CACHE_CTOR_CALLS, nrConstructed);
    spinUnlockIrqrestore(ctx, cache, irq);
    return true;
  };

  /** Takes an empty slab off its cache. Under the lock; destroySlab() follows without it. */
  const detachLocked = (cache: KmemCache, slab: Slab): void => {
    listDel(port, slab);
    add(cache + CACHE_NR_SLABS, -1);
    add(cache + CACHE_NR_PARTIAL, -1);
    count(cache + CACHE_SLABS_DESTROYED, 1);
  };

  const destroySlab = (ctx: Context, cache: KmemCache, slab: Slab): void => {
    const order = port.ld32(cache + CACHE_ORDER);
    const descriptors = asCache(fromGranule(port.ld32(cache + CACHE_DESCRIPTORS)));
    accountPages(cache, -1);
    const isDeferred = (port.ld32(cache + CACHE_FLAGS) & SLAB_TYPESAFE_BY_RCU) !== 0 && gracePeriods !== undefined;
    if (!isDeferred) returnPages(ctx, slab, order, descriptors);
    else {
      // The slab is on no list: its node is the rcu_head, and its free list has room for the order.
      port.st32(slab + SLAB_FREELIST, order);
      add(statics + STATIC_WAITING_PAGES, 2 ** order);
      gracePeriods?.rcu.callRcu(ctx, slab, gracePeriods.fn);
    }
  };

  /** The last step: nothing knows these frames as a slab any more. The cache may be gone by now. */
  const returnPages = (ctx: Context, slab: Slab, order: number, descriptors: KmemCache): void => {
    const pfn = asPfn(port.ld32(slab + SLAB_PFN));
    markFrames(pfn, order, NO_SLAB);
    if (descriptors !== NO_CACHE) bugOn(freeObject(ctx, descriptors, slab) !== 0, "slab: descriptor lost", slab);
    bugOn(pageAlloc.freePages(ctx, pfn, order) !== 0, "slab: the pages of a slab are not ours to free", pfn, order);
  };

  /** SLAB-12: a reader that still holds a pointer finds memory of the type, until the grace period is over. */
  const deferFrees = (rcu: GracePeriods): void => {
    const fn = rcu.registerRcuFn((ctx, head) => {
      const slab = asSlab(head);
      const order = port.ld32(slab + SLAB_FREELIST);
      add(statics + STATIC_WAITING_PAGES, -(2 ** order));
      // A struct slab that is off-slab is an object of an internal cache; one that is on-slab never comes here.
      returnPages(ctx, slab, order, cacheOfSlab(slabOf(slab)));
    });
    gracePeriods = { rcu, fn };
  };

  const shrink = (ctx: Context, cache: KmemCache): number => {
    let nrPages = 0;
    for (;;) {
      const irq = spinLockIrqsave(ctx, cache);
      const slab = asSlab(listFirst(port, listHead(cache, LIST_EMPTY)));
      if (slab !== NO_SLAB) detachLocked(cache, slab);
      spinUnlockIrqrestore(ctx, cache, irq);
      if (slab === NO_SLAB) return nrPages;
      nrPages += 2 ** port.ld32(cache + CACHE_ORDER);
      destroySlab(ctx, cache, slab);
    }
  };

  // ── Objects ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** M11, by quartiles: a slab with room, the fullest first. */
  const fullestSlab = (cache: KmemCache): Slab => {
    for (let list = LIST_FULLEST; list >= LIST_EMPTY; list--) {
      const slab = listFirst(port, listHead(cache, list));
      if (slab !== NULL) return asSlab(slab);
    }
    return NO_SLAB;
  };

  const allocFromSlabs = (ctx: Context, cache: KmemCache): PhysAddr => {
    const irq = spinLockIrqsave(ctx, cache);
    const slab = fullestSlab(cache);
    let obj = NULL;
    if (slab !== NO_SLAB) {
      obj = pop(ctx, cache, slab);
      count(cache + CACHE_SLAB_ALLOCS, 1);
    }
    spinUnlockIrqrestore(ctx, cache, irq);
    return obj;
  };

  const allocObject = (ctx: Context, cache: KmemCache, gfp: Gfp): PhysAddr => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_SLAB_OBJECT;
    for (;;) {
      const obj = allocFromSlabs(ctx, cache);
      if (obj !== NULL) return obj;
      const order = port.ld32(cache + CACHE_ORDER);
      const pfn = pageAlloc.tryAllocPages(ctx, order, slabPageGfp(port, cache, gfp));
      if (pfn === NO_PFN) return NULL;
      if (!growWith(ctx, cache, pfn, gfp)) {
        pageAlloc.freePages(ctx, pfn, order);
        return NULL;
      }
    }
  };

  const putBack = (ctx: Context, cache: KmemCache, slab: Slab, obj: PhysAddr, counter: number): void => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_SLAB_OBJECT;
    const irq = spinLockIrqsave(ctx, cache);
    const isLast = port.ld32(slab + SLAB_INUSE) === 1;
    const isSurplus = isLast && port.ld32(cache + CACHE_NR_PARTIAL) >= port.ld32(cache + CACHE_MIN_PARTIAL);
    push(cache, slab, obj);
    count(cache + counter, 1);
    if (isSurplus) detachLocked(cache, slab);
    spinUnlockIrqrestore(ctx, cache, irq);
    if (isSurplus) destroySlab(ctx, cache, slab);
  };

  const freeObject = (ctx: Context, cache: KmemCache, obj: PhysAddr): number => {
    const slab = slabOf(obj);
    if (slab === NO_SLAB) {
      reports.addressBug(ctx, `Attempt to free object(${hexAddr(obj)}) outside of slab`);
      return -EINVAL;
    }
    const state = stateOf(slab, obj);
    if (cacheOfSlab(slab) !== cache || state === 0 || port.ld8(state) !== liveState(port.ld32(cache + CACHE_FLAGS))) {
      return objects.reportBadFree(ctx, cache, slab, obj);
    }
    putBack(ctx, cache, slab, obj, CACHE_SLAB_FREES);
    return 0;
  };

  const flushObject = (ctx: Context, obj: PhysAddr): void => {
    const slab = slabOf(obj);
    bugOn(slab === NO_SLAB, "MAG-2: a round is no object", obj);
    const state = stateOf(slab, obj);
    bugOn(state === 0 || port.ld8(state) !== OBJECT_CACHED, "MAG-2: a round is not in state CACHED", obj);
    putBack(ctx, cacheOfSlab(slab), slab, obj, CACHE_FLUSHED);
  };

  const caches = createSlabCaches(deps, { allocObject, freeObject, shrink, ctors });
  const { check } = createSlabCheck(port, pages, objects);
  return {
    init: caches.init,
    createCache: caches.createCache,
    destroyCache: caches.destroyCache,
    forEachCache: caches.forEachCache,
    allocObject,
    freeObject,
    flushObject,
    growWith,
    shrink,
    deferFrees,
    nrWaitingPages: () => port.ld32(statics + STATIC_WAITING_PAGES),
    cacheOf: (addr) => {
      const slab = slabOf(addr);
      return slab === NO_SLAB ? NO_CACHE : cacheOfSlab(slab);
    },
    check,
  };
}
