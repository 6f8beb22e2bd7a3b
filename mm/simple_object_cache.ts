/**
 * simple_object_cache: an ObjectCacheLayer made from somebody's stock of numbers.
 *
 * A stock has numbers, takes them in and hands them out: what somebody writes to learn how magazines work. Here each
 * number in stock stands for one cached object. A free takes an unused number, notes the object and gives the number to
 * the stock; an allocation asks the stock for one. If it has none the object comes from the slabs, and if all numbers
 * are in use it goes back to them.
 *
 *   kmemCacheFree(obj) ─▶ number 7 is unused: object 7 is obj ─▶ stock.free(7)       ┐ each cache has a stock,
 *   kmemCacheAlloc()   ◀─ object 7, which is unused again     ◀─ stock.alloc() = 7   ┘ all CPUs share it
 *
 * Nothing is believed: what the other side hands out must be in stock. What is not is a bug of the other side, reported
 * through `onWrong`, which does not return (an oops).
 *
 *   SOC-1  a number that is handed out was in stock; "none" means that none is
 *
 * Which number stands for which object is noted beside the machine's RAM: this layer is for looking, not for measuring.
 * Context: as object_cache.ts. Locks: those of the other side.
 */

import { CYC_MAGAZINE_HIT } from "../kernel/arch/charges.ts";
import { type Context, type MaySleep, NULL, type PhysAddr } from "../kernel/types.ts";
import { __GFP_DIRECT_RECLAIM, __GFP_ZERO, type Gfp } from "./gfp.ts";
import { createObjectBulk, NOTHING_AT_HAND } from "./object_bulk.ts";
import type { KmemCacheAlloc, ObjectCacheLayer } from "./object_cache.ts";
import { createPassthroughLayer, type PassthroughDeps } from "./passthrough.ts";
import { createSlabCheck } from "./slab_check.ts";
import { cacheName, type KmemCache, NO_CACHE, NO_SLAB, OBJECT_CACHED, OBJECT_LIVE } from "./slab_descriptor.ts";

/** The other side: at first it has the numbers 1 … nrNumbers. Results of `alloc` are not believed. */
export interface NumberStock {
  /** A number, or 0. */
  alloc(ctx: Context): unknown;
  free(ctx: Context, number: number): void;
  /** CPU `cpu` is about to be switched off. */
  drain(ctx: Context, cpu: number): void;
}

export interface NumberStocks {
  /** Numbers of each stock, and how many of them lie together (for slabinfo). */
  readonly nrNumbers: number;
  readonly magazineSize: number;
  create(ctx: Context): NumberStock;
  /** Called with what is wrong with a result; throws. */
  onWrong(what: string, message: string): never;
}

interface Stocked {
  readonly stock: NumberStock;
  /** By number: the object and its state byte; 0 if the number is unused. */
  readonly objectOf: Float64Array;
  readonly stateOf: Float64Array;
  readonly unused: number[];
  /** Calls of the other side that have not returned: an interrupt at their end may make another one. */
  nrInside: number;
  nrAllocs: number;
  nrFrees: number;
}

export function createSimpleObjectCache(deps: PassthroughDeps, stocks: NumberStocks): ObjectCacheLayer {
  const { machine, contexts, slabs, objects, miss } = deps;
  const { port } = machine;
  const { clock } = machine.harts;
  const { nrNumbers, magazineSize, onWrong } = stocks;
  const inner = createPassthroughLayer(deps);
  const { countStates } = createSlabCheck(port, deps.pages, objects);
  const caches = new Map<KmemCache, Stocked>();

  const nrCached = ({ unused }: Stocked): number => nrNumbers - unused.length;

  /** A number of the stock, which is unused from now on; 0 if it says that there is none. */
  const take = (ctx: Context, stocked: Stocked): number => {
    stocked.nrInside++;
    const number = stocked.stock.alloc(ctx);
    stocked.nrInside--;
    if (number === 0) {
      const nrFree = nrCached(stocked) - stocked.nrInside;
      if (nrFree > 0) onWrong("alloc", `says 0 though ${nrFree} objects are free`);
      return 0;
    }
    const isOne = typeof number === "number" && Number.isInteger(number) && number > 0 && number <= nrNumbers;
    if (!isOne) return onWrong("alloc", `hands out ${String(number)}: objects are 1 to ${nrNumbers}`);
    if (stocked.objectOf[number] === 0) onWrong("alloc", `hands out object ${number}, which is not free`);
    return number;
  };

  const attach = (ctx: Context, cache: KmemCache): void => {
    const stocked: Stocked = {
      stock: stocks.create(ctx),
      // At first all numbers are in stock and stand for nothing: they are taken out.
      objectOf: new Float64Array(nrNumbers + 1).fill(-1),
      stateOf: new Float64Array(nrNumbers + 1),
      unused: [],
      nrInside: 0,
      nrAllocs: 0,
      nrFrees: 0,
    };
    for (let number = take(ctx, stocked); number !== 0; number = take(ctx, stocked)) {
      stocked.objectOf[number] = 0;
      stocked.unused.push(number);
    }
    caches.set(cache, stocked);
  };

  /** An object of the stock, or NULL; its state is then `state`. */
  const fromStock = (ctx: Context, stocked: Stocked, state: number): PhysAddr => {
    const number = nrCached(stocked) === 0 ? 0 : take(ctx, stocked);
    if (number === 0) return NULL;
    const object = stocked.objectOf[number] as PhysAddr;
    port.st8(stocked.stateOf[number] as number, state);
    stocked.objectOf[number] = 0;
    stocked.unused.push(number);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_MAGAZINE_HIT;
    return object;
  };

  const allocPlain = (ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<PhysAddr> => {
    const stocked = caches.get(cache);
    const object = stocked === undefined ? NULL : fromStock(ctx, stocked, OBJECT_LIVE);
    if (object === NULL) return miss.allocMissed(ctx, cache, gfp);
    if (stocked !== undefined) stocked.nrAllocs++;
    return object;
  };

  const kmemCacheAllocAny = (ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<PhysAddr> => {
    if ((gfp & __GFP_DIRECT_RECLAIM) !== 0) contexts.mightSleep(ctx, "mm/simple_object_cache.ts:kmemCacheAlloc");
    if ((gfp & __GFP_ZERO) !== 0) return miss.allocZeroed(ctx, cache, gfp, allocPlain);
    return allocPlain(ctx, cache, gfp);
  };

  const freeFromSlab: ObjectCacheLayer["freeFromSlab"] = (ctx, slab, obj) => {
    const state = objects.stateOf(slab, obj);
    if (state === 0 || port.ld8(state) !== OBJECT_LIVE) return objects.reportBadFree(ctx, NO_CACHE, slab, obj);
    const stocked = caches.get(objects.cacheOfSlab(slab));
    const number = stocked?.unused.pop();
    if (stocked === undefined || number === undefined) return slabs.freeObject(ctx, objects.cacheOfSlab(slab), obj);
    port.st8(state, OBJECT_CACHED);
    stocked.objectOf[number] = obj;
    stocked.stateOf[number] = state;
    stocked.nrFrees++;
    stocked.nrInside++;
    stocked.stock.free(ctx, number);
    stocked.nrInside--;
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_MAGAZINE_HIT;
    return 0;
  };

  const kmemCacheFree: ObjectCacheLayer["kmemCacheFree"] = (ctx, cache, obj) => {
    const slab = objects.slabOf(obj);
    const isOurs = slab !== NO_SLAB && objects.cacheOfSlab(slab) === cache;
    return isOurs ? freeFromSlab(ctx, slab, obj) : inner.kmemCacheFree(ctx, cache, obj);
  };

  const drain = (ctx: Context, cache: KmemCache): number => {
    const stocked = caches.get(cache);
    let nr = 0;
    if (stocked === undefined) return 0;
    for (;;) {
      const object = fromStock(ctx, stocked, OBJECT_CACHED);
      if (object === NULL) return nr;
      slabs.flushObject(ctx, object);
      nr++;
    }
  };

  return {
    ...inner,
    attach,
    detach(ctx, cache) {
      drain(ctx, cache);
      caches.delete(cache);
    },
    kmemCacheAlloc: kmemCacheAllocAny as KmemCacheAlloc,
    kmemCacheAllocAny,
    kmemCacheFree,
    ...createObjectBulk(deps, { ...NOTHING_AT_HAND, allocOne: allocPlain, freeOne: kmemCacheFree }),
    freeFromSlab,
    drain,
    drainCpu(ctx, cache, cpu) {
      caches.get(cache)?.stock.drain(ctx, cpu);
      return 0;
    },
    stats(cache) {
      const stocked = caches.get(cache);
      if (stocked === undefined) return inner.stats(cache);
      const { nrAllocs: cpuAllocs, nrFrees: cpuFrees } = stocked;
      return { ...inner.stats(cache), cached: nrCached(stocked), cpuAllocs, cpuFrees, magazineSize };
    },
    check(cache) {
      const stocked = caches.get(cache);
      const expected = stocked === undefined ? 0 : nrCached(stocked);
      const nr = countStates(cache, OBJECT_CACHED);
      if (nr !== expected) return `cache ${cacheName(port, cache)}: ${nr} objects are cached, ${expected} in stock`;
      return slabs.check(cache);
    },
  };
}
