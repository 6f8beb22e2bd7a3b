/**
 * Magazines over time: their size (M6), what is reaped and when (M7, M8), memory pressure, CPUs that go offline,
 * objects freed on other CPUs, and every page allocation failing.
 *
 * Goal: M6, M7, M8, MAG-9 … MAG-12, PGA-5, REAP-1, REAP-2, with M13 (MAG-6) after each step. Method: a machine with
 * object allocators over the real page allocator; contention is made by letting the first try for a depot's lock, or
 * the first swap of a head, fail.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { PhysAddr } from "../../kernel/types.ts";
import { DEPOT_EMPTY, DEPOT_FULL, DEPOT_LOCK, type DepotKind } from "../../mm/depot.ts";
import { __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT } from "../../mm/gfp.ts";
import { MAGAZINE_TYPES, magazineTypeFor, mayGrow } from "../../mm/magazine_stock.ts";
import { type KmemCache, OBJECT_INTERNAL } from "../../mm/slab_descriptor.ts";
import { REAP_INTERVAL } from "../../mm/slab_reap.ts";
import { finish as finishSleep } from "../support/finish.ts";
import { bootObjectLevel, type ObjectLevelMachine } from "../support/object_level.ts";

const QUIET = GFP_ATOMIC | __GFP_NOWARN;
const KINDS: readonly DepotKind[] = ["locked", "lockfree"];

interface World extends ObjectLevelMachine {
  readonly cache: KmemCache;
  alloc(cpu: number): PhysAddr;
  free(cpu: number, object: PhysAddr): void;
  /** Frees `nr` new objects on a CPU: they fill magazines. */
  fill(cpu: number, nr: number): void;
  nextTick(): number;
}

function bootWorld(depot: DepotKind, size = 200): World {
  const m = bootObjectLevel("magazine", { depot, ramBytes: 16 * 1024 * 1024 });
  const cache = m.slab.kmemCacheCreate(m.ctx, { name: "watched", size, align: 8, flags: 0 });
  const { kmemCacheAllocAny, kmemCacheFree } = m.slab.layer;
  const alloc = (cpu: number): PhysAddr => kmemCacheAllocAny(m.contexts.taskContext(cpu), cache, QUIET) as PhysAddr;
  const free = (cpu: number, object: PhysAddr): void =>
    expect(kmemCacheFree(m.contexts.taskContext(cpu), cache, object)).toBe(0);
  return {
    ...m,
    cache,
    alloc,
    free,
    fill(cpu, nr) {
      const objects = Array.from({ length: nr }, () => alloc(cpu));
      for (const object of objects) free(cpu, object);
    },
    nextTick() {
      m.machine.harts.clock[0] = Math.max(m.machine.harts.clock[0] as number, m.slab.nextReap());
      return m.slab.reapTick(m.ctx);
    },
  };
}

const finish = (w: World, live: readonly PhysAddr[] = []): void => {
  for (const object of live) w.free(0, object);
  expect(w.slab.check()).toBeNull();
  expect(w.slab.kmemCacheDestroy(w.ctx, w.cache)).toBe(0);
  w.expectNoObjectLeak();
};

/** The end of a test that made caches of larger magazines: those stay. */
const finishGrown = (w: World): void => {
  expect(w.slab.check()).toBeNull();
  expect(w.slab.kmemCacheDestroy(w.ctx, w.cache)).toBe(0);
  w.slab.shrinkAll(w.ctx);
  expect(w.slab.check()).toBeNull();
  expect(w.pageAlloc.check()).toBeNull();
};

/** From now on every other swap at this cache's depot fails, `most` times at most; returns the undoing. */
function makeContended(w: World, most = Number.POSITIVE_INFINITY): () => void {
  const { port } = w.machine;
  const words = [DEPOT_LOCK, DEPOT_FULL, DEPOT_EMPTY].map((offset) => w.cache + offset);
  const original = port.cas;
  let hasFailed = false;
  let nrFailed = 0;
  port.cas = (addr, expected, desired) => {
    if (words.includes(addr) && !hasFailed && nrFailed < most) {
      hasFailed = true;
      nrFailed++;
      return expected === 0 ? 64 : 0;
    }
    hasFailed = false;
    return original.call(port, addr, expected, desired);
  };
  return () => {
    port.cas = original;
  };
}

const size = (w: World): number => w.slab.layer.stats(w.cache).magazineSize;

/** One full magazine from the depot for each `magsize` objects: `visits` or a few more visits. */
function visitDepot(w: World, visits: number): void {
  const nr = (visits + 3) * size(w);
  w.fill(0, nr);
  const before = w.slab.layer.stats(w.cache);
  const objects = Array.from({ length: nr }, () => w.alloc(0));
  for (const object of objects) w.free(0, object);
  const after = w.slab.layer.stats(w.cache);
  expect(after.fullLoads + after.emptyLoads - before.fullLoads - before.emptyLoads).toBeGreaterThanOrEqual(visits);
}

for (const depot of KINDS) {
  describe(`with ${depot} depots`, () => {
    it("M3 a free that can exchange or fetch a magazine makes none", () => {
      const w = bootWorld(depot);
      const { magazineSize } = w.slab.layer.stats(w.cache);
      w.fill(0, 3 * magazineSize);
      const made = w.slab.layer.stats(w.cache).magazines;
      expect(made).toBe(3);
      // Each magazine is emptied, by way of `previous` and of the depot, and filled again in the same ways, from anywhere.
      for (const nr of [3 * magazineSize, 2 * magazineSize, magazineSize + 1, 1]) {
        w.fill(0, nr);
        expect(w.slab.layer.stats(w.cache).magazines).toBe(made);
      }
      finish(w);
    });

    it("G2 a mask that may not sleep says nothing under a lock, and one that may does", () => {
      const w = bootWorld(depot);
      w.contexts.preemptDisable(w.ctx);
      const { kmemCacheAllocAny } = w.slab.layer;
      const quiet = kmemCacheAllocAny(w.ctx, w.cache, GFP_NOWAIT) as PhysAddr;
      expect(w.log()).not.toContain("sleeping function");
      const loud = kmemCacheAllocAny(w.ctx, w.cache, GFP_KERNEL) as PhysAddr;
      w.contexts.preemptEnable(w.ctx);
      expect(w.log()).toContain("BUG: sleeping function called from invalid context at mm/magazine.ts:kmemCacheAlloc");
      finish(w, [quiet, loud]);
    });

    it("M6 MAG-9 contention makes magazines grow row by row, as far as the objects allow, and never back", () => {
      for (const objectSize of [200, 1500, 3000]) {
        const w = bootWorld(depot, objectSize);
        let type = magazineTypeFor(w.slab.slabInfo(w.cache).size);
        for (let tick = 0; tick < 12; tick++) {
          const undo = makeContended(w);
          visitDepot(w, 6);
          undo();
          expect(w.slab.layer.stats(w.cache).contention).toBeGreaterThan(3);
          w.nextTick();
          if (mayGrow(w.slab.slabInfo(w.cache).size, type)) type++;
          expect(size(w)).toBe((MAGAZINE_TYPES[type] as (typeof MAGAZINE_TYPES)[number]).magsize);
          expect(w.slab.check()).toBeNull();
        }
        expect(mayGrow(w.slab.slabInfo(w.cache).size, type)).toBe(false);
        for (let tick = 0; tick < 3; tick++) w.nextTick();
        expect(size(w)).toBe((MAGAZINE_TYPES[type] as (typeof MAGAZINE_TYPES)[number]).magsize);
        finishGrown(w);
      }
    });

    it("M6 three collisions in an interval are not enough, nor are more in two intervals", () => {
      const w = bootWorld(depot);
      const before = size(w);
      // So that later visits make no magazines.
      visitDepot(w, 6);
      for (let tick = 0; tick < 3; tick++) {
        const undo = makeContended(w, 3);
        visitDepot(w, 6);
        undo();
        expect(w.slab.layer.stats(w.cache).contention).toBe(3 * (tick + 1));
        w.nextTick();
        expect(size(w)).toBe(before);
      }
      const undo = makeContended(w, 4);
      visitDepot(w, 6);
      undo();
      w.nextTick();
      expect(size(w)).toBeGreaterThan(before);
      finish(w);
    });

    it("M6 without memory for the larger magazines' cache everything stays as it is", () => {
      const w = bootWorld(depot);
      const grow = (): void => {
        const undo = makeContended(w);
        visitDepot(w, 6);
        undo();
      };
      // magazine-15 is there from the start, magazine-31 is not.
      grow();
      w.nextTick();
      const before = size(w);
      expect(before).toBe(15);
      grow();
      w.failPageAllocation(1, true);
      // Use up what descriptors of caches are at hand.
      const spare: KmemCache[] = [];
      for (;;) {
        const made = w.slab.slabs.createCache(w.ctx, { name: `spare${spare.length}`, size: 8 });
        if (made === 0) break;
        spare.push(made);
      }
      w.nextTick();
      expect(size(w)).toBe(before);
      w.failPageAllocation(0);
      for (const made of spare) w.slab.slabs.destroyCache(w.ctx, made);
      finish(w);
    });

    it("MAG-10 a magazine made while its size changes is given back", () => {
      const w = bootWorld(depot);
      const live = Array.from({ length: 60 }, () => w.alloc(0));
      const undo = makeContended(w);
      visitDepot(w, 6);
      undo();
      const before = size(w);
      w.slab.layer.drain(w.ctx, w.cache);
      // The interval ends in the middle of a free, while that has interrupts on to get a magazine.
      const { port } = w.machine;
      const original = port.st8;
      let hasTicked = false;
      port.st8 = (addr, value) => {
        // The state byte of a magazine that is handed out.
        if (value === OBJECT_INTERNAL && !hasTicked) {
          hasTicked = true;
          w.nextTick();
        }
        original.call(port, addr, value);
      };
      w.free(0, live.pop() as PhysAddr);
      port.st8 = original;
      expect(hasTicked).toBe(true);
      expect(size(w)).toBeGreaterThan(before);
      finish(w, live);
    });

    it("M7 a tick takes what two intervals did not need, and leaves what one of them needed", () => {
      const w = bootWorld(depot);
      const magsize = size(w);
      w.fill(0, 12 * magsize);
      const stock = w.slab.layer.stats(w.cache).nrFull;
      expect(stock).toBeGreaterThan(8);
      // Interval 1 saw the stock grow from nothing: its least length is 0. Interval 2 needs three of them.
      w.nextTick();
      expect(w.slab.layer.stats(w.cache).nrFull).toBe(stock);
      const busy = Array.from({ length: 3 * magsize + w.slab.cpuStats(0).cached }, () => w.alloc(0));
      const least = w.slab.layer.stats(w.cache).nrFull;
      for (const object of busy) w.free(0, object);
      w.nextTick();
      expect(w.slab.layer.stats(w.cache).nrFull).toBe(stock);
      // Interval 3 needs none: min(least of 2, least of 3) go.
      w.nextTick();
      expect(w.slab.layer.stats(w.cache).nrFull).toBe(stock - least);
      // Interval 4 needs none either: the rest goes but for the interval that still remembers.
      w.nextTick();
      w.nextTick();
      expect(w.slab.layer.stats(w.cache).nrFull).toBe(0);
      // REAP-2
      expect(w.slab.layer.cpuStats(w.cache, 0).cached).toBeGreaterThan(0);
      finish(w);
    });

    it("M8 a tick waits for 15 s since the end of the one before; REAP-1 none begins inside another", () => {
      const w = bootWorld(depot);
      expect(w.nextTick()).toBeGreaterThanOrEqual(0);
      const { clock } = w.machine.harts;
      const end = clock[0] as number;
      expect(w.slab.nextReap()).toBe(end + REAP_INTERVAL);
      for (const wait of [0, 1, REAP_INTERVAL - 1]) {
        clock[0] = end + wait;
        expect(w.slab.reapTick(w.ctx)).toBe(-1);
      }
      clock[0] = end + REAP_INTERVAL;
      w.fill(0, 100);
      w.slab.layer.reap(w.ctx, w.cache, 0, true);
      let inner: number[] = [];
      const { port } = w.machine;
      const original = port.st8;
      port.st8 = (addr, value) => {
        if (inner.length === 0) {
          inner = [9];
          inner = [w.slab.reapTick(w.ctx), w.slab.reapForPages(w.contexts.irqContext(0), true)];
        }
        original.call(port, addr, value);
      };
      expect(w.slab.reapTick(w.ctx)).toBeGreaterThan(0);
      port.st8 = original;
      expect(inner).toEqual([-1, 0]);
      expect(w.slab.nrReapTicks()).toBe(2);
      finish(w);
    });

    it("MAG-11 a CPU drained in every state of its two magazines has nothing left, and comes back", () => {
      for (let nr = 0; nr <= 3 * 7 + 1; nr++) {
        const w = bootWorld(depot);
        const live = Array.from({ length: 40 }, () => w.alloc(1));
        for (const object of live.splice(0, nr)) w.free(1, object);
        if (nr % 3 === 1) live.push(w.alloc(1));
        w.slab.drainCpu(w.ctx, 1);
        w.pcp.drainCpu(w.ctx, 1);
        expect(w.slab.cpuStats(1).cached).toBe(0);
        for (let zone = 0; zone < 4; zone++) expect(w.pcp.info(1, zone).count).toBe(0);
        expect(w.slab.check()).toBeNull();
        expect(w.pageAlloc.check()).toBeNull();
        live.push(w.alloc(1));
        for (const object of live.splice(0, 5)) w.free(1, object);
        finish(w, live);
      }
    });

    it("MAG-12 objects allocated on one CPU and freed on another: per-CPU balances add up to what is live", () => {
      const step = fc.tuple(fc.nat(2), fc.nat(2), fc.nat(3));
      fc.assert(
        fc.property(fc.array(step, { maxLength: 150 }), (steps) => {
          const w = bootWorld(depot);
          const live: PhysAddr[] = [];
          for (const [from, to, action] of steps) {
            if (action > 0) live.push(w.alloc(from));
            else if (live.length > 0) w.free(to, live.shift() as PhysAddr);
          }
          const cpus = [0, 1, 2].map((cpu) => w.slab.layer.cpuStats(w.cache, cpu));
          const sum = (read: (one: (typeof cpus)[number]) => number): number =>
            cpus.reduce((all, one) => all + read(one), 0);
          expect(sum((one) => one.allocHits + one.allocMisses - one.freeHits - one.freeMisses)).toBe(live.length);
          expect(w.slab.check()).toBeNull();
          finish(w, live);
        }),
        { numRuns: 10 },
      );
    });

    it("PGA-5 an allocation does not fail while depots hold memory; GFP_NOWAIT gives up before that", () => {
      const w = bootWorld(depot, 2000);
      const objects: PhysAddr[] = [];
      for (let got = w.alloc(0); got !== 0; got = w.alloc(0)) objects.push(got);
      for (const object of objects) w.free(0, object);
      const before = w.slab.layer.stats(w.cache);
      expect(before.nrFull).toBeGreaterThan(50);
      const pages: PhysAddr[] = [];
      const takeAll = (gfp: number): number => {
        const nr = pages.length;
        for (;;) {
          const page = w.pageAlloc.tryAllocPages(w.ctx, 0, gfp);
          if (page === 0) return pages.length - nr;
          pages.push(page as number as PhysAddr);
        }
      };
      takeAll(GFP_NOWAIT);
      expect(w.slab.layer.stats(w.cache).nrFull).toBe(before.nrFull);
      expect(takeAll(GFP_KERNEL)).toBeGreaterThan(before.nrFull);
      expect(w.slab.layer.stats(w.cache)).toMatchObject({ nrFull: 0, nrEmpty: 0 });
      expect(w.slab.check()).toBeNull();
      for (const page of pages) w.pageAlloc.freePages(w.ctx, page as never, 0);
      finish(w);
    });

    it("PGA-5 in atomic context at most eight magazines are unloaded at a time", () => {
      const w = bootWorld(depot, 2000);
      w.fill(0, 120);
      const { nrFull } = w.slab.layer.stats(w.cache);
      w.slab.reapForPages(w.contexts.irqContext(0), true);
      expect(w.slab.layer.stats(w.cache).nrFull).toBeGreaterThanOrEqual(nrFull - 8);
      expect(w.slab.layer.stats(w.cache).nrFull).toBeLessThan(nrFull);
      w.slab.reapForPages(w.ctx, false);
      expect(w.slab.layer.stats(w.cache)).toMatchObject({ nrFull: 0, nrEmpty: 0 });
      finish(w);
    });

    it("every N-th page allocation fails, once and for good, with masks that may sleep: nothing leaks", () => {
      const sizes = [8, 64, 200, 700, 3000, 8192, 20_000];
      for (const isPersistent of [false, true]) {
        for (let n = 1; n <= 14; n += isPersistent ? 3 : 1) {
          const w = bootWorld(depot);
          w.slab.shrinkAll(w.ctx);
          w.failPageAllocation(n, isPersistent);
          const live: PhysAddr[] = [];
          const own: PhysAddr[] = [];
          let nrNull = 0;
          for (let i = 0; i < 80; i++) {
            const ctx = w.contexts.taskContext(i % 3);
            const gfp = i % 2 === 0 ? GFP_KERNEL | __GFP_NOWARN : QUIET;
            const got = finishSleep(w.slab.kmalloc.kmallocAny(ctx, sizes[i % sizes.length] as number, gfp));
            const object = w.alloc(i % 3);
            if (got === 0) nrNull++;
            else live.push(got);
            if (object !== 0) own.push(object);
            if (i % 5 === 4 && live.length > 0) w.slab.kmalloc.kfree(ctx, live.shift() as PhysAddr);
            if (i % 7 === 6 && own.length > 0) w.free((i + 1) % 3, own.shift() as PhysAddr);
          }
          if (isPersistent) expect(nrNull).toBeGreaterThan(0);
          expect(w.slab.check()).toBeNull();
          for (const addr of live) expect(w.slab.kmalloc.kfree(w.ctx, addr)).toBe(0);
          w.failPageAllocation(0);
          finish(w, own);
        }
      }
    });
  });
}
