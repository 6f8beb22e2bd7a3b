/**
 * The slab layer's seam: what stands between the page allocator and whoever caches objects per CPU.
 *
 *   kmalloc, kmem_cache_alloc ─▶ ObjectCacheLayer (magazine.ts, passthrough.ts) ─▶ SlabLayer (slab.ts) ─▶ pages
 *
 * It is crossed when a magazine is empty or full, not on the fast path. What both sides share besides these calls is
 * the layout of the two records in RAM (slab_descriptor.ts): the layer above reads and writes the state byte of an
 * object.
 *
 * Duties of an implementation: objects of a cache are disjoint and aligned; a constructor runs once per object and
 * slab; a state byte is LIVE from allocObject() to freeObject(), CACHED before flushObject(); whatever cannot be
 * freed is reported and refused. Duties of a caller: an object that it holds back from its slab is CACHED.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import type { Context, Pfn, PhysAddr, TaskContext } from "../kernel/types.ts";
import type { Gfp } from "./gfp.ts";
import type { Pages } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import type { CacheParams, KmemCache } from "./slab_descriptor.ts";
import type { SlabObjects } from "./slab_objects.ts";
import type { SlabReports } from "./slab_report.ts";
import type { VmStat } from "./vmstat.ts";

/** What slabs need of RCU (kernel/rcu.ts). */
export interface GracePeriods {
  registerRcuFn(fn: (ctx: Context, head: PhysAddr) => void): number;
  callRcu(ctx: Context, head: PhysAddr, fn: number): void;
}

/** Word of the static memory: pages that wait for a grace period. The rest of it is laid out in slab_caches.ts. */
export const STATIC_WAITING_PAGES = 24;

/** What slabs need of the page allocator. */
export type SlabPages = Pick<PageAllocator, "allocPagesAny" | "tryAllocPages" | "freePages">;

/**
 * The seam: caches of objects over pages. One conformance suite (test/conformance/object_layers.ts) judges all of them.
 */
export interface SlabLayer {
  /** Writes the static descriptors. Boot, once, before anything else here. */
  init(ctx: TaskContext): void;
  /** A new cache; NO_CACHE if the parameters are bad, the name is taken or memory is short (printed). O(caches). */
  createCache(ctx: TaskContext, params: CacheParams): KmemCache;
  /** Returns all pages of a cache and forgets it: 0; −EBUSY if objects remain, −EINVAL if it is none (printed). */
  destroyCache(ctx: TaskContext, cache: KmemCache): number;
  /** An object, in constructed state if the cache has a constructor; NULL if memory is short. Never sleeps. O(1). */
  allocObject(ctx: Context, cache: KmemCache, gfp: Gfp): PhysAddr;
  /** Takes back a live object: 0, or −EINVAL after a report (double, foreign, interior, wrong cache). O(1). */
  freeObject(ctx: Context, cache: KmemCache, obj: PhysAddr): number;
  /** Takes back an object that a magazine held (OBJECT_CACHED). O(1). */
  flushObject(ctx: Context, obj: PhysAddr): void;
  /** Makes a slab of the block at `pfn`; false, and the block is still the caller's, if no descriptor is to be had. */
  growWith(ctx: Context, cache: KmemCache, pfn: Pfn, gfp: Gfp): boolean;
  /** Frees all empty slabs of the cache; the number of pages that went back. O(empty slabs). */
  shrink(ctx: Context, cache: KmemCache): number;
  /** From now on pages of SLAB_TYPESAFE_BY_RCU caches wait for a grace period (SLAB-12). Boot. */
  deferFrees(rcu: GracePeriods): void;
  /** Pages that wait for one. */
  nrWaitingPages(): number;
  /** Cache of the object or slab that holds `addr`; NO_CACHE for any other number. O(1). */
  cacheOf(addr: number): KmemCache;
  /** Calls `visit` for each cache, newest first, as Linux lists them. */
  forEachCache(visit: (cache: KmemCache) => void): void;
  /** SLAB-1 … SLAB-8 and SLAB-10 of one cache: the first violation, or null. O(objects). */
  check(cache: KmemCache): string | null;
}

export interface SlabDeps {
  readonly machine: Machine;
  readonly spinlocks: Spinlocks;
  readonly pages: Pages;
  readonly pageAlloc: SlabPages;
  readonly vmstat: VmStat;
  readonly reports: SlabReports;
  readonly objects: SlabObjects;
  /** Zeroed static memory, slabStaticBytes(nrCpus) long, on a cache line. */
  readonly statics: PhysAddr;
}

/** Constructors by cache id: code cannot live in RAM. */
export type CtorTable = (((object: PhysAddr) => void) | undefined)[];
