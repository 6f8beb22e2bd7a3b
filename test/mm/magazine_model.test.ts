/**
 * Magazines against M1, M2, M3 in their plainest form: from where each object comes, and to where it goes.
 *
 * Goal: M1 … M4, M13, MAG-1 … MAG-6 to the object. Method: random allocations and frees of one cache on three CPUs, over
 * both depots; a model with arrays for magazines says which object comes out whenever it comes from a magazine, and
 * where each of the counters stands.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CYC_MAGAZINE_HIT, CYC_MAGAZINE_SWAP } from "../../kernel/arch/charges.ts";
import type { PhysAddr } from "../../kernel/types.ts";
import { EINVAL } from "../../kernel/uapi/errno.ts";
import type { DepotKind } from "../../mm/depot.ts";
import { __GFP_NOWARN, __GFP_ZERO, GFP_ATOMIC, GFP_KERNEL } from "../../mm/gfp.ts";
import { CC_MAGSIZE } from "../../mm/magazine_cpu.ts";
import { MAGAZINE_TYPES, magazineTypeFor, mayGrow } from "../../mm/magazine_stock.ts";
import { CACHE_CC, type KmemCache } from "../../mm/slab_descriptor.ts";
import { bootObjectLevel, type ObjectLevelMachine } from "../support/object_level.ts";

const QUIET = GFP_ATOMIC | __GFP_NOWARN;
const NR_CPUS = 3;

interface Hand {
  loaded: number[] | null;
  previous: number[] | null;
}

/** M1, M2, M3. A magazine is an array of objects, the last one in goes first out. */
class NaiveMagazines {
  readonly hands: Hand[] = Array.from({ length: NR_CPUS }, () => ({ loaded: null, previous: null }));
  readonly full: number[][] = [];
  nrEmpty = 0;
  allocHits = 0;
  allocMisses = 0;
  fullLoads = 0;
  emptyLoads = 0;
  exchanges = 0;
  readonly #size: number;

  constructor(size: number) {
    this.#size = size;
  }

  /** The object that has to come out, or undefined: the slabs choose. */
  alloc(cpu: number): number | undefined {
    const hand = this.hands[cpu] as Hand;
    for (;;) {
      if ((hand.loaded?.length ?? 0) > 0) {
        this.allocHits++;
        return hand.loaded?.pop();
      }
      if ((hand.previous?.length ?? 0) > 0) {
        this.#exchange(hand);
        continue;
      }
      const full = this.full.pop();
      if (full === undefined) {
        this.allocMisses++;
        return undefined;
      }
      if (hand.previous !== null) this.nrEmpty++;
      hand.previous = hand.loaded;
      hand.loaded = full;
      this.fullLoads++;
    }
  }

  free(cpu: number, object: number): void {
    const hand = this.hands[cpu] as Hand;
    for (;;) {
      if (hand.loaded !== null && hand.loaded.length < this.#size) {
        hand.loaded.push(object);
        return;
      }
      if (hand.previous !== null && hand.previous.length === 0) {
        this.#exchange(hand);
        continue;
      }
      // One from the depot, or a new one: the same from here on.
      if (this.nrEmpty > 0) this.nrEmpty--;
      if (hand.previous !== null) this.full.push(hand.previous);
      hand.previous = hand.loaded;
      hand.loaded = [];
      this.emptyLoads++;
    }
  }

  #exchange(hand: Hand): void {
    [hand.loaded, hand.previous] = [hand.previous, hand.loaded];
    this.exchanges++;
  }

  cached(): number {
    const inHands = this.hands.flatMap(({ loaded, previous }) => [...(loaded ?? []), ...(previous ?? [])]);
    return inHands.length + this.full.flat().length;
  }
}

interface World {
  readonly m: ObjectLevelMachine;
  readonly cache: KmemCache;
  readonly naive: NaiveMagazines;
  readonly live: number[];
}

function world(depot: DepotKind, size: number): World {
  const m = bootObjectLevel("magazine", { depot });
  const cache = m.slab.kmemCacheCreate(m.ctx, { name: "modelled", size, align: 8, flags: 0 });
  const magsize = m.machine.port.ld32(cache + CACHE_CC + CC_MAGSIZE);
  return { m, cache, naive: new NaiveMagazines(magsize), live: [] };
}

function alloc({ m, cache, naive, live }: World, cpu: number): void {
  const { clock } = m.machine.harts;
  const [swaps, before] = [naive.exchanges + naive.fullLoads, clock[cpu] as number];
  const expected = naive.alloc(cpu);
  const object = m.slab.layer.kmemCacheAllocAny(m.contexts.taskContext(cpu), cache, QUIET) as number;
  expect(object).not.toBe(0);
  expect(live).not.toContain(object);
  if (expected !== undefined) {
    expect(object).toBe(expected);
    const cost = (clock[cpu] as number) - before;
    const isPlain = naive.exchanges + naive.fullLoads === swaps;
    if (isPlain) expect(cost).toBe(CYC_MAGAZINE_HIT);
    else expect(cost).toBeGreaterThanOrEqual(CYC_MAGAZINE_HIT + CYC_MAGAZINE_SWAP);
  }
  live.push(object);
}

function free({ m, cache, naive, live }: World, cpu: number, at: number): void {
  const [object] = live.splice(at % live.length, 1) as [number];
  naive.free(cpu, object);
  expect(m.slab.layer.kmemCacheFree(m.contexts.taskContext(cpu), cache, object as PhysAddr)).toBe(0);
}

function expectSame({ m, cache, naive, live }: World): void {
  const stats = m.slab.layer.stats(cache);
  expect(stats.cpuAllocs).toBe(naive.allocHits);
  expect(stats.fullLoads).toBe(naive.fullLoads);
  expect(stats.emptyLoads).toBe(naive.emptyLoads);
  const misses = naive.hands.reduce((sum, _, cpu) => sum + m.slab.layer.cpuStats(cache, cpu).allocMisses, 0);
  expect(misses).toBe(naive.allocMisses);
  const info = m.slab.slabInfo(cache);
  expect(info.cached).toBe(naive.cached());
  expect(info.activeObjects).toBe(live.length);
  naive.hands.forEach(({ loaded, previous }, cpu) => {
    expect(m.slab.layer.cpuStats(cache, cpu).cached).toBe((loaded?.length ?? 0) + (previous?.length ?? 0));
  });
}

const burst = fc.record({
  cpu: fc.nat(NR_CPUS - 1),
  isAlloc: fc.boolean(),
  nr: fc.constantFrom(1, 2, 3, 7, 8, 15, 16, 40),
  at: fc.nat(1000),
});

for (const depot of ["locked", "lockfree"] as const) {
  describe(`magazines over the ${depot} depot`, () => {
    it.each([64, 200, 1000])("M1 M2 M3 the same objects from the same places, objects of %i bytes", (size) => {
      fc.assert(
        fc.property(fc.array(burst, { minLength: 1, maxLength: 40 }), (bursts) => {
          const w = world(depot, size);
          for (const { cpu, isAlloc, nr, at } of bursts) {
            for (let i = 0; i < nr; i++) {
              if (isAlloc && w.live.length < 400) alloc(w, cpu);
              else if (!isAlloc && w.live.length > 0) free(w, cpu, at);
            }
            expectSame(w);
          }
          expect(w.m.slab.check()).toBeNull();
          while (w.live.length > 0) free(w, 0, 0);
          expectSame(w);
          expect(w.m.slab.kmemCacheDestroy(w.m.ctx, w.cache)).toBe(0);
          w.m.expectNoObjectLeak();
        }),
        { numRuns: 15 },
      );
    });
  });
}

describe("M2 M3 at the edges of a magazine", () => {
  it("one free and one allocation at a full, and at an empty, magazine exchange the two and stay away from the depot", () => {
    const w = world("locked", 200);
    for (let i = 0; i < 30; i++) alloc(w, 0);
    for (let i = 0; i < 30; i++) free(w, 0, 0);
    for (let i = 0; i < 200; i++) {
      alloc(w, 0);
      alloc(w, 0);
      free(w, 0, 0);
      free(w, 0, 0);
      expectSame(w);
    }
  });

  it("a free of another cache's object, or of none, changes neither magazine", () => {
    const w = world("locked", 200);
    for (let i = 0; i < 10; i++) alloc(w, 1);
    const other = w.m.slab.kmemCacheCreate(w.m.ctx, { name: "another", size: 200, align: 8, flags: 0 });
    const foreign = w.m.slab.layer.kmemCacheAllocAny(w.m.ctx, other, QUIET) as number;
    free(w, 1, 0);
    const freed = w.naive.hands[1]?.loaded?.[0] ?? 0;
    for (const bad of [foreign, freed, (w.live[0] as number) + 8, 0x10_0000, 2 ** 40]) {
      const ctx = w.m.contexts.taskContext(1);
      expect(w.m.slab.layer.kmemCacheFree(ctx, w.cache, bad as PhysAddr)).toBe(-EINVAL);
      expectSame(w);
    }
    expect(w.m.log()).toContain("cache_from_obj: Wrong slab cache. modelled but object is from another");
    expect(w.m.log()).toContain("outside of slab");
    expect(w.m.slab.check()).toBeNull();
  });

  it("draining says how many objects came back: of one CPU, of all, and of a cache that has none", () => {
    const w = world("locked", 200);
    const { layer } = w.m.slab;
    for (let i = 0; i < 60; i++) alloc(w, 0);
    for (let i = 0; i < 50; i++) free(w, i % NR_CPUS, 0);
    const inHand = (cpu: number): number => layer.cpuStats(w.cache, cpu).cached;
    const [first, all] = [inHand(0), w.naive.cached()];
    expect(first).toBeGreaterThan(0);
    expect(layer.drainCpu(w.m.ctx, w.cache, 0)).toBe(first);
    expect(layer.drainCpu(w.m.ctx, w.cache, 0)).toBe(0);
    expect(layer.drain(w.m.ctx, w.cache)).toBe(all - first);
    expect(layer.drain(w.m.ctx, w.cache)).toBe(0);
    expect(layer.stats(w.cache)).toMatchObject({ cached: 0, nrFull: 0, nrEmpty: 0, magazines: 0 });
    expect(w.m.slab.check()).toBeNull();
  });

  it("M7 reaping takes at most as many magazines as it is told, the rest later, and says how many", () => {
    const w = world("locked", 200);
    const { layer } = w.m.slab;
    for (let i = 0; i < 120; i++) alloc(w, 0);
    for (let i = 0; i < 120; i++) free(w, 0, 0);
    const inDepot = (): number => layer.stats(w.cache).nrFull + layer.stats(w.cache).nrEmpty;
    const nr = inDepot();
    expect(nr).toBeGreaterThan(4);
    expect(layer.reap(w.m.ctx, w.cache, 3, true)).toBe(3);
    expect(inDepot()).toBe(nr - 3);
    expect(layer.reap(w.m.ctx, w.cache, 1000, true)).toBe(nr - 3);
    expect(layer.reap(w.m.ctx, w.cache, 1000, true)).toBe(0);
    expect(w.m.slab.check()).toBeNull();
  });

  it("a zeroed object is zeroed, from a magazine as from a slab; a mask that may sleep is asked about at once", () => {
    const w = world("locked", 200);
    const { layer } = w.m.slab;
    const take = (): number => layer.kmemCacheAllocAny(w.m.ctx, w.cache, QUIET | __GFP_ZERO) as number;
    const isZero = (object: number): boolean => w.m.machine.port.readBytes(object, 200).every((byte) => byte === 0);
    const object = take();
    expect(isZero(object)).toBe(true);
    w.m.machine.port.fill(object, 0xee, 200);
    layer.kmemCacheFree(w.m.ctx, w.cache, object as PhysAddr);
    expect(take()).toBe(object);
    expect(isZero(object)).toBe(true);
    expect(w.m.log()).not.toContain("BUG");
    w.m.contexts.preemptDisable(w.m.ctx);
    layer.kmemCacheFree(w.m.ctx, w.cache, object as PhysAddr);
    layer.kmemCacheAllocAny(w.m.ctx, w.cache, GFP_KERNEL);
    w.m.contexts.preemptEnable(w.m.ctx);
    expect(w.m.log()).toContain("sleeping function called from invalid context at mm/magazine.ts:kmemCacheAlloc");
  });

  it("a cache that was never attached works without magazines, and asks for none", () => {
    const { m } = world("locked", 200);
    const { layer, slabs } = m.slab;
    const cache = slabs.createCache(m.ctx, { name: "bare", size: 200, align: 8, flags: 0 });
    const objects = Array.from({ length: 9 }, () => layer.kmemCacheAllocAny(m.ctx, cache, QUIET) as PhysAddr);
    for (const object of objects) expect(layer.kmemCacheFree(m.ctx, cache, object)).toBe(0);
    expect(layer.stats(cache)).toMatchObject({ cached: 0, magazines: 0, magazineSize: 0, fullLoads: 0, emptyLoads: 0 });
    expect(layer.cpuStats(cache, 0)).toMatchObject({ allocHits: 0, allocMisses: 9, freeHits: 0, freeMisses: 9 });
    expect([layer.drain(m.ctx, cache), layer.drainCpu(m.ctx, cache, 0), layer.tick(m.ctx, cache)]).toEqual([0, 0, 0]);
    expect(layer.reap(m.ctx, cache, 10, true)).toBe(0);
    expect(m.slab.check()).toBeNull();
  });

  it("M5 the borders of the rows", () => {
    const roundsFor = (size: number): number => MAGAZINE_TYPES[magazineTypeFor(size)]?.magsize ?? 0;
    expect([64, 65, 256, 257, 3200, 3201].map(roundsFor)).toEqual([15, 7, 7, 3, 3, 1]);
    // chunksize < maxbuf of the row that it is in.
    expect([16_383, 16_384, 16_385].map((size) => mayGrow(size, 2))).toEqual([true, false, false]);
  });

  it("M2 a magazine layer is filled by frees only: who only allocates has nothing at hand", () => {
    const w = world("locked", 64);
    for (let i = 0; i < 100; i++) alloc(w, i % NR_CPUS);
    expectSame(w);
    expect(w.naive.cached()).toBe(0);
    expect(w.naive.allocMisses).toBe(100);
  });
});
