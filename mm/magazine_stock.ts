/**
 * The stock of magazines of a cache: making them, draining them, reaping what is not needed, changing their size.
 *
 * 1. Magazines of one size are the objects of one internal cache, `magazine-N`, made when the first cache wants it. A
 *    magazine that a free needs is made here, and given back if the size has changed meanwhile (M3).
 *
 * 2. *Size* (M5, M6). A cache starts with the row of MAGAZINE_TYPES that fits its objects: many small ones, few large
 *    ones. If CPUs collide at its depot more than three times in an interval, magazines of the next row make the visits
 *    rarer: everything is purged, the row changed, the layer switched on again. It only grows, as far as the object's
 *    size allows: a machine that was busy once may be so again.
 *
 *      switch off (magsize 0 on all CPUs) ─▶ drain CPUs and depot ─▶ next row ─▶ switch on
 *
 *    While it is off, frees and allocations go to the slabs: an interrupt during the change finds a cache that works.
 *
 * 3. *Reaping* (M7, depot.ts): a tick destroys the magazines that two intervals did not need. Under memory pressure
 *    everything in the depots is taken; what CPUs have loaded stays with them.
 *
 *   MAG-9   the row of a cache never decreases, and its object is smaller than maxBuf of the row before            (M6)
 *   MAG-10  a magazine is of the size that its depot says: one that was made for another size is given back        (M3)
 *   MAG-11  after drainCpu() nothing is cached on that CPU
 *
 * Context: nothing here sleeps. drain, drainCpu of another CPU, and a change of size want that no other CPU is inside
 * the layer for this cache: so it is in one host thread; threads must stop the others.
 * Source: illumos kmem.c (kmem_cache_magazine_purge, _enable, _resize, kmem_depot_ws_reap, kmem_cache_update).
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { bugOn } from "../kernel/bug.ts";
import type { ContextTracking } from "../kernel/context.ts";
import {
  asPhys,
  type Context,
  fromGranule,
  NULL,
  type PhysAddr,
  type TaskContext,
  toGranule,
} from "../kernel/types.ts";
import { type Depot, EMPTY, FULL } from "./depot.ts";
import { GFP_NOWAIT } from "./gfp.ts";
import {
  CC_LOADED,
  CC_MAGSIZE,
  CC_PREVIOUS,
  CC_PROUNDS,
  createMagazineCpu,
  loadedRounds,
  MAGAZINE_ROUND_BYTES,
} from "./magazine_cpu.ts";
import { asCache, CACHE_CC, CACHE_SIZE, CC_SHIFT, type KmemCache, NO_CACHE } from "./slab_descriptor.ts";
import type { SlabLayer } from "./slab_layer.ts";
import { SLAB_INTERNAL } from "./slab_layout.ts";

/** M5. A cache uses the first row whose minBuf is smaller than its object; maxBuf bounds how far it may grow (M6). */
export interface MagazineType {
  readonly magsize: number;
  readonly minBuf: number;
  readonly maxBuf: number;
}

export const MAGAZINE_TYPES: readonly MagazineType[] = [
  { magsize: 1, minBuf: 3200, maxBuf: 65_536 },
  { magsize: 3, minBuf: 256, maxBuf: 32_768 },
  { magsize: 7, minBuf: 64, maxBuf: 16_384 },
  { magsize: 15, minBuf: 0, maxBuf: 8192 },
  { magsize: 31, minBuf: 0, maxBuf: 4096 },
  { magsize: 47, minBuf: 0, maxBuf: 2048 },
  { magsize: 63, minBuf: 0, maxBuf: 1024 },
  { magsize: 95, minBuf: 0, maxBuf: 512 },
  { magsize: 143, minBuf: 0, maxBuf: 0 },
];

/** M6: collisions at a depot within one interval that are not yet a reason for larger magazines. */
export const DEPOT_CONTENTION_LIMIT = 3;

/** Static memory of the layer: the granules of the caches of magazines, by type; what a depot needs. */
export const MAGAZINE_STATIC_BYTES = 48;
export const DEPOT_STATICS = 40;

/** Row of MAGAZINE_TYPES that a cache of objects `size` bytes apart starts with (M5). Pure. */
export const magazineTypeFor = (size: number): number => MAGAZINE_TYPES.findIndex(({ minBuf }) => size > minBuf);

/** Bytes of a magazine: the depot's words, and the rounds, of two words each. */
export const magazineBytes = (magsize: number): number => MAGAZINE_ROUND_BYTES * (1 + magsize);

/** May a cache of objects `size` bytes apart go on to the next row (M6)? Pure. */
export const mayGrow = (size: number, type: number): boolean => size < (MAGAZINE_TYPES[type] as MagazineType).maxBuf;

export interface MagazineStockDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly slabs: SlabLayer;
  readonly depot: Depot;
  /** MAGAZINE_STATIC_BYTES of zeroed static memory. */
  readonly statics: PhysAddr;
}

export interface MagazineStock {
  attach(ctx: TaskContext, cache: KmemCache): void;
  detach(ctx: TaskContext, cache: KmemCache): void;
  drain(ctx: Context, cache: KmemCache): number;
  drainCpu(ctx: Context, cache: KmemCache, cpu: number): number;
  /** Puts a new empty magazine into the depot; false if there can be none. */
  makeEmpty(ctx: Context, cache: KmemCache): boolean;
  /** Destroys up to `most` magazines of the depot that may go, or any of them if `everything`; their number. */
  reap(ctx: Context, cache: KmemCache, most: number, everything: boolean): number;
  /** M6, M7: ends an interval. Number of magazines destroyed. */
  tick(ctx: TaskContext, cache: KmemCache): number;
}

export function createMagazineStock({ machine, contexts, slabs, depot, statics }: MagazineStockDeps): MagazineStock {
  const { port } = machine;
  const { nrCpus } = machine.config;
  const { localIrqSave, localIrqRestore } = contexts;
  const { setLoaded, setPrevious, fold } = createMagazineCpu(port);
  const ccOf = (cache: KmemCache, cpu: number): number => cache + CACHE_CC + (cpu << CC_SHIFT);

  // ── Making and unmaking magazines ────────────────────────────────────────────────────────────────────────────────

  /** The cache of magazines of one type; NO_CACHE without memory for it. */
  const magazineCache = (ctx: TaskContext, type: number): KmemCache => {
    const known = port.ld32(statics + type * 4);
    if (known !== 0) return asCache(fromGranule(known));
    const { magsize } = MAGAZINE_TYPES[type] as MagazineType;
    const name = `magazine-${magsize}`;
    const cache = slabs.createCache(ctx, { name, size: magazineBytes(magsize), flags: SLAB_INTERNAL });
    port.st32(statics + type * 4, toGranule(cache));
    return cache;
  };

  const makeEmpty = (ctx: Context, cache: KmemCache): boolean => {
    const magazines = depot.magazines(cache);
    if (!depot.hasRoom(ctx, cache)) return false;
    const magazine = slabs.allocObject(ctx, magazines, GFP_NOWAIT);
    if (magazine === NULL) return false;
    const irq = localIrqSave(ctx);
    // MAG-10: an interrupt may have changed the size, or taken the last slot, while interrupts were on.
    const isWanted = depot.magazines(cache) === magazines && depot.adopt(ctx, cache, magazine);
    if (isWanted) depot.addEmpty(ctx, cache, magazine);
    localIrqRestore(ctx, irq);
    if (!isWanted) slabs.freeObject(ctx, magazines, magazine);
    return isWanted;
  };

  /** Returns the rounds of a magazine to their slabs and the magazine to its cache. Owned by the caller. */
  const unload = (ctx: Context, cache: KmemCache, magazine: PhysAddr, rounds: number): number => {
    for (let i = 1; i <= rounds; i++)
      slabs.flushObject(ctx, fromGranule(port.ld32(magazine + i * MAGAZINE_ROUND_BYTES)));
    depot.disown(ctx, cache, magazine);
    bugOn(slabs.freeObject(ctx, depot.magazines(cache), magazine) !== 0, "MAG-4: a magazine is not ours", magazine);
    return rounds;
  };

  // ── Draining ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The magazine is taken out with interrupts off and unloaded with them as they were. */
  const drainCpu = (ctx: Context, cache: KmemCache, cpu: number): number => {
    if (depot.magsize(cache) === 0) return 0;
    const cc = ccOf(cache, cpu);
    const irq = localIrqSave(ctx);
    fold(cc >>> 2);
    const [loaded, rounds] = [asPhys(port.ld32(cc + CC_LOADED)), loadedRounds(port, cc)];
    const [previous, prounds] = [asPhys(port.ld32(cc + CC_PREVIOUS)), port.ld32(cc + CC_PROUNDS)];
    setLoaded(cc >>> 2, NULL, -1);
    setPrevious(cc >>> 2, NULL, -1);
    localIrqRestore(ctx, irq);
    let nrObjects = 0;
    if (loaded !== NULL) nrObjects += unload(ctx, cache, loaded, rounds);
    if (previous !== NULL) nrObjects += unload(ctx, cache, previous, prounds);
    return nrObjects;
  };

  /** Destroys one magazine of the depot: objects returned; −1 if there is none. */
  const destroyOne = (ctx: Context, cache: KmemCache, isFull: boolean): number => {
    const irq = localIrqSave(ctx);
    const magazine = isFull ? depot.takeFull(ctx, cache, NULL) : depot.takeEmpty(ctx, cache, NULL);
    localIrqRestore(ctx, irq);
    return magazine === NULL ? -1 : unload(ctx, cache, magazine, isFull ? depot.magsize(cache) : 0);
  };

  const drain = (ctx: Context, cache: KmemCache): number => {
    if (depot.magsize(cache) === 0) return 0;
    let nrObjects = 0;
    for (let cpu = 0; cpu < nrCpus; cpu++) nrObjects += drainCpu(ctx, cache, cpu);
    for (const isFull of [FULL, EMPTY]) {
      for (let n = destroyOne(ctx, cache, isFull); n >= 0; n = destroyOne(ctx, cache, isFull)) nrObjects += n;
    }
    depot.release(ctx, cache);
    return nrObjects;
  };

  // ── Attaching, and changing the size ─────────────────────────────────────────────────────────────────────────────

  const setMagsize = (cache: KmemCache, magsize: number): void => {
    for (let cpu = 0; cpu < nrCpus; cpu++) port.st32(ccOf(cache, cpu) + CC_MAGSIZE, magsize);
  };

  /** Gives a cache without magazines the row `type`. Without memory for its magazines' cache it stays uncached. */
  const enable = (ctx: TaskContext, cache: KmemCache, type: number): void => {
    depot.prepare(ctx);
    const magazines = magazineCache(ctx, type);
    const magsize = magazines === NO_CACHE ? 0 : (MAGAZINE_TYPES[type] as MagazineType).magsize;
    depot.init(cache, type, magsize, magazines);
    for (let cpu = 0; cpu < nrCpus; cpu++) {
      setLoaded(ccOf(cache, cpu) >>> 2, NULL, -1);
      setPrevious(ccOf(cache, cpu) >>> 2, NULL, -1);
    }
    setMagsize(cache, magsize);
  };

  const purge = (ctx: TaskContext, cache: KmemCache): void => {
    setMagsize(cache, 0);
    drain(ctx, cache);
  };

  const detach = (ctx: TaskContext, cache: KmemCache): void => {
    purge(ctx, cache);
    depot.init(cache, 0, 0, NO_CACHE);
  };

  // ── Reaping ──────────────────────────────────────────────────────────────────────────────────────────────────────

  const reapList = (ctx: Context, cache: KmemCache, isFull: boolean, most: number): number => {
    let nr = 0;
    while (nr < most && destroyOne(ctx, cache, isFull) >= 0) nr++;
    return nr;
  };

  const reap = (ctx: Context, cache: KmemCache, most: number, everything: boolean): number => {
    if (depot.magsize(cache) === 0) return 0;
    if (everything) depot.updateWorkingSet(cache, true);
    let nr = 0;
    for (const isFull of [FULL, EMPTY]) {
      nr += reapList(ctx, cache, isFull, Math.min(depot.nrReapable(cache, isFull), most - nr));
    }
    return nr;
  };

  const tick = (ctx: TaskContext, cache: KmemCache): number => {
    if (depot.magsize(cache) === 0) return 0;
    const nr = reap(ctx, cache, Number.POSITIVE_INFINITY, false);
    depot.updateWorkingSet(cache, false);
    const type = depot.type(cache);
    const isContended = depot.takeContention(cache) > DEPOT_CONTENTION_LIMIT;
    // The next row's cache first: without memory for it everything stays as it is.
    if (isContended && mayGrow(port.ld32(cache + CACHE_SIZE), type) && magazineCache(ctx, type + 1) !== NO_CACHE) {
      purge(ctx, cache);
      enable(ctx, cache, type + 1);
    }
    return nr;
  };

  return {
    attach: (ctx, cache) => enable(ctx, cache, magazineTypeFor(port.ld32(cache + CACHE_SIZE))),
    detach,
    drain,
    drainCpu,
    makeEmpty,
    reap,
    tick,
  };
}

if (MAGAZINE_TYPES.length * 4 > DEPOT_STATICS) throw new Error("magazine_stock: statics overlap");
