/**
 * The list of caches: creating, finding, destroying them, and the six that are there from the start.
 *
 *   static memory │ lock │ next id │ head of the list │ kmem_cache │ slab-64 │ slab-128 │ … │ slab-576 │
 *
 *   kmem_cache   objects are the descriptors of all later caches
 *   slab-N       objects are struct slabs of up to N bytes; their own struct slab is in front of the objects
 *
 * A cache is created once and then never changes its geometry, so its descriptor is read without a lock.
 * Lock: one word for the list, irqsave; taken before, and never while holding, the lock of a cache.
 * Linux merges caches of equal shape under one name (slab_nomerge switches that off); here each cache is its own, so
 * that a leak is charged to who caused it.
 * Source: mm/slab_common.c (kmem_cache_create, kmem_cache_destroy), mm/slub.c (kmem_cache_init).
 */

import { bug } from "../kernel/bug.ts";
import { initListHead, listAdd, listDel, listNext } from "../kernel/lib/list.ts";
import { CACHE_LINE, PAGE_SIZE } from "../kernel/params.ts";
import {
  alignUp,
  asPhys,
  type Context,
  NULL,
  type PhysAddr,
  physAdd,
  type TaskContext,
  toGranule,
} from "../kernel/types.ts";
import { EBUSY, EEXIST, EINVAL, ENOMEM } from "../kernel/uapi/errno.ts";
import { GFP_KERNEL, type Gfp } from "./gfp.ts";
import {
  asCache,
  asSlab,
  CACHE_ALIGN,
  CACHE_COLOUR_MAX,
  CACHE_CPU_PARTIAL,
  CACHE_DESCRIPTORS,
  CACHE_FLAGS,
  CACHE_FREE_POINTER,
  CACHE_GEOMETRY,
  CACHE_HAS_CTOR,
  CACHE_ID,
  CACHE_MIN_PARTIAL,
  CACHE_NAME,
  CACHE_NODE,
  CACHE_NR_SLABS,
  CACHE_OBJECT_SIZE,
  CACHE_OBJECTS,
  CACHE_ORDER,
  CACHE_SIZE,
  type CacheParams,
  cacheBytes,
  cacheName,
  type KmemCache,
  LIST_EMPTY,
  MAX_CACHE_NAME,
  NO_CACHE,
  NR_SLAB_LISTS,
  OBJECT_FREE,
  OBJECT_INTERNAL,
  SLAB_BASE,
  SLAB_DESCRIPTOR_SIZES,
  SLAB_OBJECTS,
  SLAB_SIZE,
  SLAB_STATES,
  type Slab,
  slabBytes,
} from "./slab_descriptor.ts";
import type { CtorTable, SlabDeps } from "./slab_layer.ts";
import {
  calculateSizes,
  minPartialOf,
  SLAB_CACHE_DMA,
  SLAB_HWCACHE_ALIGN,
  SLAB_INTERNAL,
  SLAB_KMALLOC,
  SLAB_MAX_ORDER,
  SLAB_PANIC,
  SLAB_RECLAIM_ACCOUNT,
  SLAB_TYPESAFE_BY_RCU,
  type SlabLayout,
  slabGeometry,
} from "./slab_layout.ts";

const LIST_LOCK = 0;
const NEXT_ID = 4;
const LIST_HEAD = 8;
/** Offset in the static memory of the lock that makes creating and destroying a cache one step (slab_subsystem.ts). */
export const CACHES_MUTEX = 16;
/** What slab_reap.ts keeps there. */
export const REAP_STATE = 24;
const STATIC_CACHES = CACHE_LINE;

const MAX_OBJECT_BYTES = 4 * 1024 * 1024;
/** A slab is naturally aligned and at least one object large, and an object is a multiple of its alignment. */
const MAX_ALIGN = PAGE_SIZE * 2 ** SLAB_MAX_ORDER;
const KNOWN_FLAGS =
  SLAB_HWCACHE_ALIGN |
  SLAB_RECLAIM_ACCOUNT |
  SLAB_CACHE_DMA |
  SLAB_PANIC |
  SLAB_TYPESAFE_BY_RCU |
  SLAB_KMALLOC |
  SLAB_INTERNAL;

/** Static memory of the slab layer: the list and six descriptors. On a cache line, zeroed. */
export const slabStaticBytes = (nrCpus: number): number =>
  STATIC_CACHES + (1 + SLAB_DESCRIPTOR_SIZES.length) * cacheBytes(nrCpus);

export interface SlabCaches {
  init(ctx: TaskContext): void;
  createCache(ctx: TaskContext, params: CacheParams): KmemCache;
  destroyCache(ctx: TaskContext, cache: KmemCache): number;
  forEachCache(visit: (cache: KmemCache) => void): void;
}

/** What the list of caches needs from the allocator whose caches these are. */
export interface SlabOperations {
  allocObject(ctx: Context, cache: KmemCache, gfp: Gfp): PhysAddr;
  freeObject(ctx: Context, cache: KmemCache, obj: PhysAddr): number;
  shrink(ctx: Context, cache: KmemCache): number;
  readonly ctors: CtorTable;
}

export function createSlabCaches(
  deps: SlabDeps,
  { allocObject, freeObject, shrink, ctors }: SlabOperations,
): SlabCaches {
  const { machine, spinlocks, reports, objects, statics } = deps;
  const { port } = machine;
  const { nrCpus } = machine.config;
  const LOCK = physAdd(statics, LIST_LOCK);
  const HEAD = physAdd(statics, LIST_HEAD);
  const staticCache = (index: number): KmemCache => asCache(statics + STATIC_CACHES + index * cacheBytes(nrCpus));
  const kmemCache = staticCache(0);

  const forEachCache = (visit: (cache: KmemCache) => void): void => {
    let node = listNext(port, HEAD);
    while (node !== HEAD) {
      // Before the visit: it may destroy the cache.
      const next = listNext(port, node);
      visit(asCache(node - CACHE_NODE));
      node = next;
    }
  };

  // ── Creating ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The internal cache whose objects can be struct slabs for `nrObjects` objects. */
  const descriptorCacheFor = (nrObjects: number): KmemCache => {
    const index = SLAB_DESCRIPTOR_SIZES.findIndex((bytes) => bytes >= slabBytes(nrObjects));
    if (index < 0) bug("slab: too many objects for a struct slab", nrObjects);
    return staticCache(1 + index);
  };

  /** Writes all fields of a descriptor that creation writes; the rest becomes 0. */
  const writeDescriptor = (cache: KmemCache, name: string, layout: SlabLayout, flags: number): void => {
    port.fill(cache, 0, cacheBytes(nrCpus));
    port.st32(cache + CACHE_FLAGS, flags);
    port.st32(cache + CACHE_OBJECT_SIZE, layout.objectSize);
    port.st32(cache + CACHE_SIZE, layout.size);
    port.st32(cache + CACHE_ALIGN, layout.align);
    port.st32(cache + CACHE_ORDER, layout.order);
    port.st32(cache + CACHE_OBJECTS, layout.objects);
    port.st32(cache + CACHE_FREE_POINTER, layout.freePointerOffset);
    // A slab above SLAB_MAX_ORDER holds one object, whose index is 0: slabGeometry() is not exact for it.
    port.st32(cache + CACHE_GEOMETRY, layout.order > SLAB_MAX_ORDER ? 0 : slabGeometry(layout.size));
    port.st32(cache + CACHE_MIN_PARTIAL, layout.minPartial);
    port.st32(cache + CACHE_CPU_PARTIAL, layout.cpuPartial);
    const leftover = Math.min(PAGE_SIZE * 2 ** layout.order - layout.objects * layout.size, PAGE_SIZE - 1);
    port.st32(cache + CACHE_COLOUR_MAX, leftover);
    spinlocks.init(cache, "&n->list_lock");
    port.st32(cache + CACHE_DESCRIPTORS, toGranule(descriptorCacheFor(layout.objects)));
    for (let list = LIST_EMPTY; list < NR_SLAB_LISTS; list++) initListHead(port, objects.listHead(cache, list));
    for (let i = 0; i < name.length; i++) port.st8(cache + CACHE_NAME + i, name.charCodeAt(i));
  };

  /** 0, or why a cache cannot be made of `params`. */
  const checkParams = ({ name, size, align = 0, flags = 0, ctor }: CacheParams): number => {
    if (!/^[!-~]+$/.test(name) || name.length > MAX_CACHE_NAME) return -EINVAL;
    if (!Number.isInteger(size) || size < 1 || size > MAX_OBJECT_BYTES) return -EINVAL;
    if (!Number.isInteger(align) || align < 0 || align > MAX_ALIGN || (align & (align - 1)) !== 0) return -EINVAL;
    if ((flags & ~KNOWN_FLAGS) !== 0) return -EINVAL;
    // The word behind the object, where its link goes, must still fit the largest block.
    const isLinkOutside = ctor !== undefined || (flags & SLAB_TYPESAFE_BY_RCU) !== 0;
    if (isLinkOutside && size > MAX_OBJECT_BYTES - PAGE_SIZE) return -EINVAL;
    return 0;
  };

  const isNameTaken = (name: string): boolean => {
    let isTaken = false;
    forEachCache((cache) => {
      if (cacheName(port, cache) === name) isTaken = true;
    });
    return isTaken;
  };

  /** Gives a written descriptor its number and puts it at the front of the list. Under the list's lock. */
  const publishLocked = (cache: KmemCache): void => {
    const id = port.ld32(statics + NEXT_ID);
    port.st32(statics + NEXT_ID, id + 1);
    port.st32(cache + CACHE_ID, id);
    initListHead(port, physAdd(cache, CACHE_NODE));
    listAdd(port, physAdd(cache, CACHE_NODE), HEAD);
  };

  const refuse = (ctx: Context, params: CacheParams, error: number): KmemCache => {
    reports.warning(ctx, `kmem_cache_create(${params.name}) failed with error ${error}`);
    if (((params.flags ?? 0) & SLAB_PANIC) !== 0) bug("slab: a cache that must be created was not, error", error);
    return NO_CACHE;
  };

  const createCache = (ctx: TaskContext, params: CacheParams): KmemCache => {
    const invalid = checkParams(params);
    if (invalid !== 0) return refuse(ctx, params, invalid);
    const { name, size, align = 0, flags = 0, ctor } = params;
    const hasCtor = ctor !== undefined;
    const layout = calculateSizes({ objectSize: size, align, flags, hasCtor }, { nrCpus });
    const cache = asCache(allocObject(ctx, kmemCache, GFP_KERNEL));
    if (cache === NO_CACHE) return refuse(ctx, params, -ENOMEM);
    writeDescriptor(cache, name, layout, flags | (hasCtor ? CACHE_HAS_CTOR : 0));

    const irq = spinlocks.spinLockIrqsave(ctx, LOCK);
    const isTaken = isNameTaken(name);
    if (!isTaken) publishLocked(cache);
    spinlocks.spinUnlockIrqrestore(ctx, LOCK, irq);
    if (isTaken) {
      freeObject(ctx, kmemCache, cache);
      return refuse(ctx, params, -EEXIST);
    }
    if (hasCtor) ctors[port.ld32(cache + CACHE_ID)] = ctor;
    return cache;
  };

  // ── Boot ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Objects of `size` bytes that share one page with their own struct slab. */
  const onSlabLayout = (size: number): SlabLayout => {
    let nrObjects = 1;
    while (alignUp(slabBytes(nrObjects + 1), CACHE_LINE) + (nrObjects + 1) * size <= PAGE_SIZE) nrObjects++;
    const layout = calculateSizes({ objectSize: size, align: CACHE_LINE, flags: 0, hasCtor: false }, { nrCpus });
    return { ...layout, order: 0, objects: nrObjects, minPartial: minPartialOf(size) };
  };

  const init = (ctx: TaskContext): void => {
    initListHead(port, HEAD);
    const irq = spinlocks.spinLockIrqsave(ctx, LOCK);
    const bytes = cacheBytes(nrCpus);
    const layout = calculateSizes({ objectSize: bytes, align: CACHE_LINE, flags: 0, hasCtor: false }, { nrCpus });
    writeDescriptor(kmemCache, "kmem_cache", layout, SLAB_INTERNAL);
    publishLocked(kmemCache);
    SLAB_DESCRIPTOR_SIZES.forEach((size, i) => {
      const cache = staticCache(1 + i);
      writeDescriptor(cache, `slab-${size}`, onSlabLayout(size), SLAB_INTERNAL);
      port.st32(cache + CACHE_COLOUR_MAX, 0);
      port.st32(cache + CACHE_DESCRIPTORS, 0);
      publishLocked(cache);
    });
    spinlocks.spinUnlockIrqrestore(ctx, LOCK, irq);
  };

  // ── Destroying ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** Names the objects that remain: at the time of a leak the addresses are what one has. */
  const listRemaining = (slab: Slab): void => {
    reports.slabLine(slab);
    for (let i = 0; i < port.ld32(slab + SLAB_OBJECTS); i++) {
      if (port.ld8(slab + SLAB_STATES + i) === OBJECT_FREE) continue;
      reports.objectLine(slab, port.ld32(slab + SLAB_BASE) + i * port.ld32(slab + SLAB_SIZE));
    }
  };

  const reportRemaining = (cache: KmemCache): void => {
    reports.cacheBug(cache, `Objects remaining in ${cacheName(port, cache)} on __kmem_cache_shutdown()`);
    for (let list = LIST_EMPTY + 1; list < NR_SLAB_LISTS; list++) {
      const head = objects.listHead(cache, list);
      for (let node = listNext(port, head); node !== head; node = listNext(port, node)) listRemaining(asSlab(node));
    }
  };

  /** Is `cache` a cache that somebody created, and not destroyed yet? The allocator's own stay. */
  const isDestroyable = (cache: KmemCache): boolean => {
    const slab = objects.slabOf(cache);
    if (slab === NULL || objects.cacheOfSlab(slab) !== kmemCache) return false;
    const state = objects.stateOf(slab, cache);
    if (state === 0 || port.ld8(state) !== OBJECT_INTERNAL) return false;
    return (port.ld32(cache + CACHE_FLAGS) & SLAB_INTERNAL) === 0;
  };

  const destroyCache = (ctx: TaskContext, cache: KmemCache): number => {
    if (!isDestroyable(cache)) {
      reports.warning(ctx, "kmem_cache_destroy: not a cache that can be destroyed");
      return -EINVAL;
    }
    shrink(ctx, cache);
    if (port.ld32(cache + CACHE_NR_SLABS) !== 0) {
      reportRemaining(cache);
      return -EBUSY;
    }
    const irq = spinlocks.spinLockIrqsave(ctx, LOCK);
    listDel(port, physAdd(cache, CACHE_NODE));
    spinlocks.spinUnlockIrqrestore(ctx, LOCK, irq);
    ctors[port.ld32(cache + CACHE_ID)] = undefined;
    return freeObject(ctx, kmemCache, asPhys(cache));
  };

  return { init, createCache, destroyCache, forEachCache };
}
