/**
 * The slab subsystem, assembled: slabs, per-CPU layer, kmalloc, and what /proc/slabinfo shows of them.
 *
 *   createSlabSubsystem(deps)     composition: wires the parts, touches no memory
 *   init(ctx)                     boot, once pages can be had: static caches, then the kmalloc classes
 *
 * Which per-CPU layer is in use is chosen here and stays, so that the calls through the seam stay monomorphic.
 *
 * Creating a cache, making the cache of its magazines and attaching it is one step, and so is destroying one: two CPUs
 * that create at once would otherwise both make `magazine-15`. The lock is Linux's slab_mutex; nothing sleeps under it.
 * Walking the list of caches (shrinkAll, check, slabinfo) takes no lock: where CPUs are threads, the others are
 * stopped meanwhile.
 *
 * slabinfo (S10): Linux counts objects in per-CPU slabs as active; we know which objects callers hold and count exactly
 * those, so active_objs is lower than a real kernel's for the same load. active_slabs = num_slabs, as there.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import type { ContextTracking } from "../kernel/context.ts";
import type { Printk } from "../kernel/printk.ts";
import { RATELIMIT_BYTES } from "../kernel/ratelimit.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { alignUp, type Context, type PhysAddr, physAdd, type TaskContext } from "../kernel/types.ts";
import { type AutoInit, initObjects } from "./auto_init.ts";
import { createLockedDepot, type Depot, type DepotKind } from "./depot.ts";
import { createLockfreeDepot } from "./depot_lockfree.ts";
import { createKmalloc, KMALLOC_STATIC_BYTES, type Kmalloc } from "./kmalloc.ts";
import { createMagazineLayer } from "./magazine.ts";
import { DEPOT_STATICS, MAGAZINE_STATIC_BYTES } from "./magazine_stock.ts";
import { type CpuCacheStats, createMissPath, type ObjectCacheLayer } from "./object_cache.ts";
import type { Pages } from "./page.ts";
import { createPassthroughLayer, type PassthroughDeps } from "./passthrough.ts";
import { createSlabLayer } from "./slab.ts";
import { CACHES_MUTEX, REAP_STATE, slabStaticBytes } from "./slab_caches.ts";
import { createSlabCheck } from "./slab_check.ts";
import {
  CACHE_ALIGN,
  CACHE_CPU_PARTIAL,
  CACHE_FLAGS,
  CACHE_HAS_CTOR,
  CACHE_MIN_PARTIAL,
  CACHE_NR_INUSE,
  CACHE_NR_PARTIAL,
  CACHE_NR_SLABS,
  CACHE_OBJECT_SIZE,
  CACHE_OBJECTS,
  CACHE_ORDER,
  CACHE_SIZE,
  type CacheParams,
  cacheName,
  type KmemCache,
  NO_CACHE,
} from "./slab_descriptor.ts";
import type { GracePeriods, SlabLayer, SlabPages } from "./slab_layer.ts";
import { createSlabObjects, type SlabObjects } from "./slab_objects.ts";
import { createSlabReap, type SlabReap } from "./slab_reap.ts";
import { createSlabReports } from "./slab_report.ts";
import { NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE, type VmStat } from "./vmstat.ts";

export type ObjectCacheKind = "magazine" | "passthrough";
/** The ObjectCacheLayer seam: another per-CPU layer than ours. */
export type ObjectCacheFactory = (deps: PassthroughDeps) => ObjectCacheLayer;

export interface SlabSubsystemDeps {
  readonly machine: Machine;
  readonly printk: Printk;
  readonly contexts: ContextTracking;
  readonly spinlocks: Spinlocks;
  readonly pages: Pages;
  readonly pageAlloc: SlabPages;
  readonly vmstat: VmStat;
  /** slabSubsystemStaticBytes(nrCpus) of zeroed static memory, on a cache line. */
  readonly statics: PhysAddr;
  /** The per-CPU layer; magazines unless told otherwise. */
  readonly objectCache?: ObjectCacheKind | ObjectCacheFactory;
  /** How the depots of magazines are guarded; by locks unless told otherwise. */
  readonly depot?: DepotKind;
  /** Are objects zeroed whether that was asked for or not? */
  readonly autoInit?: AutoInit | undefined;
  /** Puts something in front of the per-CPU layer: fault injection. */
  readonly wrapLayer?: ((layer: ObjectCacheLayer) => ObjectCacheLayer) | undefined;
}

/** One line of /proc/slabinfo and one directory of /sys/kernel/slab. */
export interface SlabInfo {
  readonly name: string;
  readonly activeObjects: number;
  readonly nrObjects: number;
  /** Bytes from one object to the next: slabinfo's <objsize>, sysfs' slab_size. */
  readonly size: number;
  /** Bytes asked for: sysfs' object_size. */
  readonly objectSize: number;
  readonly align: number;
  readonly objectsPerSlab: number;
  readonly order: number;
  readonly nrSlabs: number;
  /** Slabs with room. */
  readonly nrPartial: number;
  /** Objects at hand in magazines. */
  readonly cached: number;
  readonly minPartial: number;
  readonly cpuPartial: number;
  /** SLAB_… flags. */
  readonly flags: number;
  readonly hasCtor: boolean;
}

export interface SlabSubsystem extends SlabReap {
  /** Boot, once, when pages can be allocated: makes the static caches and the kmalloc classes. */
  init(ctx: TaskContext): void;
  readonly slabs: SlabLayer;
  readonly layer: ObjectCacheLayer;
  readonly objects: SlabObjects;
  readonly kmalloc: Kmalloc;
  /** Connects RCU: pages of SLAB_TYPESAFE_BY_RCU caches wait for a grace period. Boot. */
  deferFrees(rcu: GracePeriods): void;
  /** A new cache, cached per CPU; NO_CACHE after a printed reason. Task context. */
  kmemCacheCreate(ctx: TaskContext, params: CacheParams): KmemCache;
  /** Gives all memory of a cache back: 0; −EBUSY if objects are live (printed), −EINVAL if it is no such cache. */
  kmemCacheDestroy(ctx: TaskContext, cache: KmemCache): number;
  /** Drains every cache and frees every empty slab; pages freed. For reclaim and leak checks. O(caches + slabs). */
  shrinkAll(ctx: Context): number;
  /** Returns the objects that an offline CPU (or the caller's own) keeps to their slabs; their number. O(caches). */
  drainCpu(ctx: Context, cpu: number): number;
  /** What a CPU did in all caches together: how many allocations its magazines served, what it has. O(caches). */
  cpuStats(cpu: number): CpuCacheStats;
  /** Newest cache first, as Linux prints them. */
  forEachCache(visit: (cache: KmemCache) => void): void;
  slabInfo(cache: KmemCache): SlabInfo;
  /** Every invariant of every cache, SLAB-2 and SLAB-9 over all: the first violation, or null. O(RAM in slabs). */
  check(): string | null;
}

const magazineStatics = (nrCpus: number): number => alignUp(slabStaticBytes(nrCpus), 8);
const kmallocStatics = (nrCpus: number): number => magazineStatics(nrCpus) + MAGAZINE_STATIC_BYTES;
const reportStatics = (nrCpus: number): number => alignUp(kmallocStatics(nrCpus) + KMALLOC_STATIC_BYTES, 8);

/** Static memory of the whole subsystem. */
export const slabSubsystemStaticBytes = (nrCpus: number): number => reportStatics(nrCpus) + RATELIMIT_BYTES;

export function createSlabSubsystem(deps: SlabSubsystemDeps): SlabSubsystem {
  const { machine, contexts, spinlocks, pages, pageAlloc, vmstat, statics } = deps;
  const { port } = machine;
  const { nrCpus } = machine.config;
  const reports = createSlabReports(machine, contexts, deps.printk, pages, physAdd(statics, reportStatics(nrCpus)));
  const objects = createSlabObjects(port, pages, reports);
  const slabs = createSlabLayer({ machine, spinlocks, pages, pageAlloc, vmstat, reports, objects, statics });
  const miss = createMissPath({ machine, pageAlloc, slabs, reports });
  const common = { machine, contexts, pages, slabs, objects, miss };
  const magazineStatic = physAdd(statics, magazineStatics(nrCpus));
  const createDepot = (): Depot =>
    deps.depot === "lockfree"
      ? createLockfreeDepot(machine, spinlocks, slabs, physAdd(magazineStatic, DEPOT_STATICS))
      : createLockedDepot(machine, spinlocks);
  const createLayer = (): ObjectCacheLayer => {
    if (typeof deps.objectCache === "function") return deps.objectCache(common);
    if (deps.objectCache === "passthrough") return createPassthroughLayer(common);
    return createMagazineLayer({ ...common, reports, depot: createDepot(), statics: magazineStatic });
  };
  const ownLayer = createLayer();
  const { autoInit, wrapLayer } = deps;
  const initLayer = autoInit === undefined ? ownLayer : initObjects(port, objects, miss, ownLayer, autoInit);
  const layer = wrapLayer === undefined ? initLayer : wrapLayer(initLayer);
  const mutex = physAdd(statics, CACHES_MUTEX);
  const kmemCacheCreate = (ctx: TaskContext, params: CacheParams): KmemCache => {
    spinlocks.spinLock(ctx, mutex);
    const cache = slabs.createCache(ctx, params);
    if (cache !== NO_CACHE) layer.attach(ctx, cache);
    spinlocks.spinUnlock(ctx, mutex);
    return cache;
  };

  const kmemCacheDestroy = (ctx: TaskContext, cache: KmemCache): number => {
    spinlocks.spinLock(ctx, mutex);
    const result = destroyLocked(ctx, cache);
    spinlocks.spinUnlock(ctx, mutex);
    return result;
  };

  const destroyLocked = (ctx: TaskContext, cache: KmemCache): number => {
    const wasCached = isCache(cache) && layer.stats(cache).magazineSize !== 0;
    if (wasCached) layer.detach(ctx, cache);
    const result = slabs.destroyCache(ctx, cache);
    if (wasCached && result !== 0) layer.attach(ctx, cache);
    return result;
  };

  const isCache = (cache: KmemCache): boolean => {
    let isFound = false;
    slabs.forEachCache((known) => {
      if (known === cache) isFound = true;
    });
    return isFound;
  };

  const kmalloc = createKmalloc({
    machine,
    pages,
    pageAlloc,
    vmstat,
    reports,
    objects,
    layer,
    createCache: kmemCacheCreate,
    statics: physAdd(statics, kmallocStatics(nrCpus)),
  });

  const slabInfo = (cache: KmemCache): SlabInfo => {
    const field = (offset: number): number => port.ld32(cache + offset);
    const { cached } = layer.stats(cache);
    return {
      name: cacheName(port, cache),
      activeObjects: field(CACHE_NR_INUSE) - cached,
      nrObjects: field(CACHE_NR_SLABS) * field(CACHE_OBJECTS),
      size: field(CACHE_SIZE),
      objectSize: field(CACHE_OBJECT_SIZE),
      align: field(CACHE_ALIGN),
      objectsPerSlab: field(CACHE_OBJECTS),
      order: field(CACHE_ORDER),
      nrSlabs: field(CACHE_NR_SLABS),
      nrPartial: field(CACHE_NR_PARTIAL),
      cached,
      minPartial: field(CACHE_MIN_PARTIAL),
      cpuPartial: field(CACHE_CPU_PARTIAL),
      flags: field(CACHE_FLAGS),
      hasCtor: (field(CACHE_FLAGS) & CACHE_HAS_CTOR) !== 0,
    };
  };

  const shrinkAll = (ctx: Context): number => {
    let nrPages = 0;
    slabs.forEachCache((cache) => {
      layer.drain(ctx, cache);
    });
    // Freeing a slab frees its struct slab, which may empty a slab of an internal cache that was visited before.
    for (let before = -1; before !== nrPages; ) {
      before = nrPages;
      slabs.forEachCache((cache) => {
        nrPages += slabs.shrink(ctx, cache);
      });
    }
    return nrPages;
  };

  const drainCpu = (ctx: Context, cpu: number): number => {
    let nrObjects = 0;
    spinlocks.spinLock(ctx, mutex);
    slabs.forEachCache((cache) => {
      nrObjects += layer.drainCpu(ctx, cache, cpu);
    });
    spinlocks.spinUnlock(ctx, mutex);
    return nrObjects;
  };

  const cpuStats = (cpu: number): CpuCacheStats => {
    const sum = { allocHits: 0, allocMisses: 0, freeHits: 0, freeMisses: 0, cached: 0 };
    slabs.forEachCache((cache) => {
      const one = layer.cpuStats(cache, cpu);
      sum.allocHits += one.allocHits;
      sum.allocMisses += one.allocMisses;
      sum.freeHits += one.freeHits;
      sum.freeMisses += one.freeMisses;
      sum.cached += one.cached;
    });
    return sum;
  };

  const { countSlabFrames } = createSlabCheck(port, pages, objects);

  const check = (): string | null => {
    let [fault, slabPages, magazines, magazinesInUse] = [null as string | null, 0, 0, 0];
    slabs.forEachCache((cache) => {
      fault ??= layer.check(cache);
      slabPages += port.ld32(cache + CACHE_NR_SLABS) * 2 ** port.ld32(cache + CACHE_ORDER);
      magazines += layer.stats(cache).magazines;
      if (cacheName(port, cache).startsWith("magazine-")) magazinesInUse += port.ld32(cache + CACHE_NR_INUSE);
    });
    if (fault !== null) return fault;
    const counted = vmstat.item(NR_SLAB_RECLAIMABLE) + vmstat.item(NR_SLAB_UNRECLAIMABLE);
    if (counted !== slabPages + kmalloc.nrLargePages()) return "SLAB-9: NR_SLAB items differ from the slabs' pages";
    if (countSlabFrames() !== slabPages + slabs.nrWaitingPages())
      return "SLAB-2: a frame is marked that belongs to no slab";
    return magazines === magazinesInUse ? null : "MAG-4: a magazine is lost";
  };

  return {
    init(ctx) {
      slabs.init(ctx);
      kmalloc.init(ctx);
    },
    slabs,
    layer,
    objects,
    kmalloc,
    deferFrees: slabs.deferFrees,
    kmemCacheCreate,
    kmemCacheDestroy,
    shrinkAll,
    drainCpu,
    cpuStats,
    ...createSlabReap({ machine, spinlocks, slabs, layer, mutex, state: physAdd(statics, REAP_STATE) }),
    forEachCache: slabs.forEachCache,
    slabInfo,
    check,
  };
}
