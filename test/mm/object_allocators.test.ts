/**
 * Slabs, magazines and kmalloc over the real page allocator.
 *
 * Goal: SLAB-*, MAG-*, KMA-* and M13 after every operation; no overlap, no lost page, every bad free refused. Method:
 * random operations on three CPUs against a map of live blocks, with content stamps, over both per-CPU layers; every
 * N-th page allocation failing once.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asPhys, BLOCKED, type Context, NULL, type PhysAddr, type Sleeping } from "../../kernel/types.ts";
import { EBUSY, EINVAL } from "../../kernel/uapi/errno.ts";
import { __GFP_DMA, __GFP_NOWARN, __GFP_ZERO, GFP_ATOMIC, GFP_KERNEL } from "../../mm/gfp.ts";
import { createObjectBulk, NOTHING_AT_HAND } from "../../mm/object_bulk.ts";
import type { ObjectCacheKind } from "../../mm/slab_subsystem.ts";
import { bootObjectLevel, type ObjectLevelMachine } from "../support/object_level.ts";

const LAYERS: readonly ObjectCacheKind[] = ["magazine", "passthrough"];
const QUIET = GFP_ATOMIC | __GFP_NOWARN;

const alloc = (m: ObjectLevelMachine, cpu: number, bytes: number, gfp = QUIET): number =>
  m.slab.kmalloc.kmallocAny(m.contexts.taskContext(cpu), bytes, gfp) as number;
const free = (m: ObjectLevelMachine, cpu: number, addr: number): number =>
  m.slab.kmalloc.kfree(m.contexts.taskContext(cpu), asPhys(addr));

for (const layer of LAYERS) {
  describe(`object allocators with the ${layer} layer`, () => {
    it("KMA-1 SLAB-1 … SLAB-10 random kmalloc and kfree on three CPUs: no overlap, content kept, invariants after every step", () => {
      const step = fc.tuple(
        fc.nat(2),
        fc.constantFrom(1, 8, 16, 64, 96, 192, 500, 1024, 5000, 8192, 20_000),
        fc.nat(9),
      );
      fc.assert(
        fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
          const m = bootObjectLevel(layer);
          const live: { addr: number; bytes: number; stamp: number }[] = [];
          steps.forEach(([cpu, bytes, action], i) => {
            if (action < 6 || live.length === 0) {
              const addr = alloc(m, cpu, bytes);
              expect(addr).not.toBe(0);
              for (const other of live) {
                expect(addr + bytes <= other.addr || other.addr + other.bytes <= addr).toBe(true);
              }
              m.machine.port.fill(addr, i & 0xff, bytes);
              live.push({ addr, bytes, stamp: i & 0xff });
            } else {
              const victim = live.splice((action * 31) % live.length, 1)[0] as (typeof live)[number];
              const content = m.machine.port.readBytes(victim.addr, victim.bytes);
              expect(content.every((byte) => byte === victim.stamp)).toBe(true);
              expect(free(m, cpu, victim.addr)).toBe(0);
            }
            expect(m.slab.check()).toBeNull();
          });
          for (const { addr } of live) expect(free(m, 0, addr)).toBe(0);
          m.expectNoObjectLeak();
        }),
        { numRuns: 12 },
      );
    });

    it("S2 KMA-2 alignment: powers of two to their size, others to their largest power-of-two divisor", () => {
      const m = bootObjectLevel(layer);
      for (const bytes of [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192, 16_384]) {
        const addr = alloc(m, 0, bytes);
        expect(addr % Math.min(4096, bytes & -bytes)).toBe(0);
        free(m, 0, addr);
      }
      m.expectNoObjectLeak();
    });

    it("KMA-3 KMA-4 absurd sizes are refused without a word of complaint to the host", () => {
      const m = bootObjectLevel(layer);
      for (const bytes of [-1, 0.5, Number.NaN, 4 * 1024 * 1024 + 1, 2 ** 32, 2 ** 53, Number.POSITIVE_INFINITY]) {
        expect(alloc(m, 0, bytes)).toBe(0);
      }
      expect(alloc(m, 0, 0)).toBe(16);
      expect(free(m, 0, 16)).toBe(0);
      expect(free(m, 0, 0)).toBe(0);
      expect(m.slab.kmalloc.kmallocArray(m.ctx, 2 ** 30, 2 ** 30, QUIET)).toBe(0);
      m.expectNoObjectLeak();
    });

    const badFrees: Readonly<Record<string, (addr: number) => number>> = {
      "double free": (addr) => addr,
      "interior free": (addr) => addr + 8,
      "misaligned free": (addr) => addr + 3,
      "free of the next, never allocated object": (addr) => addr + 64 * 20,
      "free of a foreign page": () => 0x10_0000,
      "free outside RAM": () => 2 ** 40,
      "free of a fraction": (addr) => addr + 0.5,
    };
    for (const [name, target] of Object.entries(badFrees)) {
      it(`KMA-5 ${name} is reported, refused, and corrupts nothing`, () => {
        const m = bootObjectLevel(layer);
        const keep = alloc(m, 0, 64);
        const addr = alloc(m, 0, 64);
        if (name === "double free") expect(free(m, 0, addr)).toBe(0);
        const reportsBefore = m.printk.nextSeq();
        expect(free(m, 1, target(addr))).toBe(-EINVAL);
        expect(m.printk.nextSeq()).toBeGreaterThan(reportsBefore);
        expect(m.slab.check()).toBeNull();
        if (name !== "double free") expect(free(m, 0, addr)).toBe(0);
        expect(free(m, 0, keep)).toBe(0);
        m.expectNoObjectLeak();
      });
    }

    it("SLAB-7 constructors run once per object, objects come back constructed", () => {
      const m = bootObjectLevel(layer);
      let nrCalls = 0;
      const ctor = (object: PhysAddr): void => {
        nrCalls++;
        m.machine.port.st32(object, 0x600d);
      };
      const cache = m.slab.kmemCacheCreate(m.ctx, { name: "with_ctor", size: 100, align: 8, flags: 0, ctor });
      const { kmemCacheAllocAny, kmemCacheFree } = m.slab.layer;
      for (let round = 0; round < 50; round++) {
        const objects = Array.from({ length: 20 }, () => kmemCacheAllocAny(m.ctx, cache, QUIET) as PhysAddr);
        for (const object of objects) expect(m.machine.port.ld32(object)).toBe(0x600d);
        for (const object of objects) expect(kmemCacheFree(m.ctx, cache, object)).toBe(0);
      }
      expect(nrCalls).toBeLessThanOrEqual(80);
      expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(0);
      m.expectNoObjectLeak();
    });

    it("a cache with live objects is not destroyed, and says so", () => {
      const m = bootObjectLevel(layer);
      const cache = m.slab.kmemCacheCreate(m.ctx, { name: "busy", size: 40, align: 8, flags: 0 });
      const object = m.slab.layer.kmemCacheAllocAny(m.ctx, cache, QUIET) as PhysAddr;
      expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(-EBUSY);
      expect(m.log()).toContain("__kmem_cache_shutdown()");
      expect(m.slab.layer.kmemCacheFree(m.ctx, cache, object)).toBe(0);
      expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(0);
      m.expectNoObjectLeak();
    });

    it("an object freed to the wrong cache is refused", () => {
      const m = bootObjectLevel(layer);
      const make = (name: string) => m.slab.kmemCacheCreate(m.ctx, { name, size: 64, align: 8, flags: 0 });
      const [a, b] = [make("cache_a"), make("cache_b")];
      const object = m.slab.layer.kmemCacheAllocAny(m.ctx, a, QUIET) as PhysAddr;
      expect(m.slab.layer.kmemCacheFree(m.ctx, b, object)).toBe(-EINVAL);
      expect(m.slab.layer.kmemCacheFree(m.ctx, a, object)).toBe(0);
      expect(m.slab.kmemCacheDestroy(m.ctx, a)).toBe(0);
      expect(m.slab.kmemCacheDestroy(m.ctx, b)).toBe(0);
      m.expectNoObjectLeak();
    });

    it("SLAB-11 every N-th page allocation fails once: NULL, no leak, no oops", () => {
      const sizes = [8, 64, 100, 700, 3000, 8192, 30_000];
      for (let n = 1; n <= 16; n++) {
        const m = bootObjectLevel(layer);
        m.failPageAllocation(n);
        const live: number[] = [];
        for (let i = 0; i < 60; i++) {
          const addr = alloc(m, i % 3, sizes[i % sizes.length] as number);
          if (addr !== 0) live.push(addr);
        }
        expect(m.slab.check()).toBeNull();
        for (const addr of live) expect(free(m, 1, addr)).toBe(0);
        m.expectNoObjectLeak();
      }
    });

    it("KMA-6 __GFP_ZERO clears, GFP_DMA stays below 16 MiB, krealloc keeps the content", () => {
      const m = bootObjectLevel(layer);
      const dirty = alloc(m, 0, 256);
      m.machine.port.fill(dirty, 0xff, 256);
      free(m, 0, dirty);
      const clean = alloc(m, 0, 256, QUIET | __GFP_ZERO);
      expect(m.machine.port.readBytes(clean, 256).every((byte) => byte === 0)).toBe(true);
      const dma = alloc(m, 0, 512, QUIET | __GFP_DMA);
      expect(dma + 512).toBeLessThanOrEqual(16 * 1024 * 1024);
      m.machine.port.fill(clean, 0x5a, 256);
      const grown = m.slab.kmalloc.krealloc(m.ctx, asPhys(clean), 5000, QUIET) as number;
      expect(m.machine.port.readBytes(grown, 256).every((byte) => byte === 0x5a)).toBe(true);
      free(m, 0, grown);
      free(m, 0, dma);
      m.expectNoObjectLeak();
    });

    it("BULK-1 BULK-2 BULK-4 M13 bulk and single calls mixed: all or none, distinct, counted right after every step", () => {
      const step = fc.tuple(fc.nat(2), fc.constantFrom(0, 1, 3, 17, 40), fc.nat(9), fc.nat(12));
      fc.assert(
        fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
          const m = bootObjectLevel(layer);
          const { layer: objects } = m.slab;
          const cache = m.slab.kmemCacheCreate(m.ctx, { name: "bulk", size: 200 });
          const live = new Set<PhysAddr>();
          for (const [cpu, nr, action, failing] of steps) {
            const ctx = m.contexts.taskContext(cpu);
            if (action < 5) {
              const into: PhysAddr[] = [];
              m.failPageAllocation(failing < 3 ? failing : 0);
              const got = objects.kmemCacheAllocBulkAny(ctx, cache, QUIET | (action < 2 ? __GFP_ZERO : 0), nr, into);
              m.failPageAllocation(0);
              expect([0, nr]).toContain(got);
              if (got === 0) expect(into.every((obj) => obj === NULL)).toBe(true);
              for (const obj of got === 0 ? [] : into) {
                expect(live.has(obj)).toBe(false);
                if (action < 2) expect(m.machine.port.readBytes(obj, 200).every((byte) => byte === 0)).toBe(true);
                m.machine.port.fill(obj, 0xee, 200);
                live.add(obj);
              }
            } else {
              const freed = [...live].slice(0, nr);
              const first = freed[0];
              // BULK-4: one of them twice, and what is none: refused, the others are freed.
              const bad = action < 7 && first !== undefined ? [first, asPhys(first + 8)] : [];
              expect(objects.kmemCacheFreeBulk(ctx, cache, [...freed, ...bad])).toBe(bad.length > 0 ? -EINVAL : 0);
              for (const obj of freed) live.delete(obj);
            }
            expect(m.slab.check()).toBeNull();
            expect(m.slab.slabInfo(cache).activeObjects).toBe(live.size);
          }
          expect(objects.kmemCacheFreeBulk(m.ctx, cache, [...live])).toBe(0);
          expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(0);
          m.expectNoObjectLeak();
        }),
        { numRuns: 12 },
      );
    });

    it("BULK-1 OBJ-3 every N-th page allocation fails, for every N: 0 and nothing is out; a constructor refuses zeroes", () => {
      const m = bootObjectLevel(layer);
      const cache = m.slab.kmemCacheCreate(m.ctx, { name: "bulk", size: 900 });
      const { layer: objects } = m.slab;
      let nrFailed = 0;
      for (let nth = 1; ; nth++) {
        m.slab.shrinkAll(m.ctx);
        m.failPageAllocation(nth, true);
        const into: PhysAddr[] = [];
        const got = objects.kmemCacheAllocBulkAny(m.ctx, cache, QUIET, 60, into);
        m.failPageAllocation(0);
        expect(m.slab.check()).toBeNull();
        if (got === 60) {
          expect(objects.kmemCacheFreeBulk(m.ctx, cache, into)).toBe(0);
          break;
        }
        nrFailed++;
        expect(m.slab.slabInfo(cache).activeObjects).toBe(0);
      }
      expect(nrFailed).toBeGreaterThan(1);
      const constructed = m.slab.kmemCacheCreate(m.ctx, { name: "constructed", size: 64, ctor: () => {} });
      expect(objects.kmemCacheAllocBulkAny(m.ctx, constructed, QUIET | __GFP_ZERO, 3, [])).toBe(0);
    });

    it("G2 GFP_KERNEL under a spinlock is reported even when a magazine could serve it", () => {
      const m = bootObjectLevel(layer);
      free(m, 0, alloc(m, 0, 64));
      m.contexts.preemptDisable(m.ctx);
      const addr = m.slab.kmalloc.kmallocAny(m.ctx, 64, GFP_KERNEL) as number;
      m.contexts.preemptEnable(m.ctx);
      expect(m.log()).toContain("BUG: sleeping function called from invalid context");
      free(m, 0, addr);
      m.expectNoObjectLeak();
    });
  });
}

describe("bulk and magazines", () => {
  it("BULK-3 S10 what magazines hold is taken a magazine at a time, and is not active while it is there", () => {
    let nrSections = 0;
    const m = bootObjectLevel("magazine", {
      mutate: (parts) => ({
        ...parts,
        contexts: {
          ...parts.contexts,
          localIrqSave(ctx) {
            nrSections++;
            return parts.contexts.localIrqSave(ctx);
          },
        },
      }),
    });
    const { layer } = m.slab;
    const cache = m.slab.kmemCacheCreate(m.ctx, { name: "bulk", size: 200 });
    const { magazineSize } = layer.stats(cache);
    const nr = 4 * magazineSize;
    const objects: PhysAddr[] = [];
    expect(layer.kmemCacheAllocBulkAny(m.ctx, cache, QUIET, nr, objects)).toBe(nr);
    expect(m.slab.slabInfo(cache)).toMatchObject({ activeObjects: nr, cached: 0 });
    expect(layer.kmemCacheFreeBulk(m.ctx, cache, objects)).toBe(0);
    // S10: a real kernel counts objects at hand as active; ours counts what callers hold.
    expect(m.slab.slabInfo(cache)).toMatchObject({ activeObjects: 0, cached: nr });
    const { cpuAllocs } = layer.stats(cache);
    nrSections = 0;
    expect(layer.kmemCacheAllocBulkAny(m.ctx, cache, QUIET, nr, objects)).toBe(nr);
    expect(nrSections).toBeLessThanOrEqual(nr / magazineSize);
    expect([new Set(objects).size, layer.stats(cache).cpuAllocs - cpuAllocs]).toEqual([nr, nr]);
    expect(layer.kmemCacheFreeBulk(m.ctx, cache, objects)).toBe(0);
  });

  it("BULK-1 a caller that is killed while it sleeps for one object gives back the others", () => {
    const m = bootObjectLevel("magazine");
    const { layer } = m.slab;
    const cache = m.slab.kmemCacheCreate(m.ctx, { name: "bulk", size: 200 });
    let nrAsked = 0;
    function* afterSleep(ctx: Context): Sleeping<PhysAddr> {
      yield BLOCKED;
      return layer.kmemCacheAllocAny(ctx, cache, QUIET) as PhysAddr;
    }
    const bulk = createObjectBulk(
      { contexts: m.contexts, miss: { mayZero: () => true, zeroObject: (_ctx, _cache, obj) => obj } },
      {
        ...NOTHING_AT_HAND,
        allocOne: (ctx, of, gfp) => (nrAsked++ % 5 === 2 ? afterSleep(ctx) : layer.kmemCacheAllocAny(ctx, of, gfp)),
        freeOne: layer.kmemCacheFree,
      },
    );
    const into: PhysAddr[] = [];
    const start = () => bulk.kmemCacheAllocBulkAny(m.ctx, cache, QUIET, 5, into) as Sleeping<number>;
    const killed = start();
    expect([killed.next().value, m.slab.slabInfo(cache).activeObjects]).toEqual([BLOCKED, 2]);
    expect(() => killed.throw(new Error("SIGKILL"))).toThrow("SIGKILL");
    expect([m.slab.slabInfo(cache).activeObjects, into]).toEqual([0, [NULL, NULL]]);
    nrAsked = 0;
    const living = start();
    living.next();
    expect([living.next().value, m.slab.slabInfo(cache).activeObjects]).toEqual([5, 5]);
    expect(layer.kmemCacheFreeBulk(m.ctx, cache, into)).toBe(0);
    m.expectNoObjectLeak();
  });
});

describe("M4 the depot is visited at most once per magazine", () => {
  it("MAG-5 M4 alternating at a magazine's edge does not go to the depot each time", () => {
    const m = bootObjectLevel("magazine");
    const cache = m.slab.kmemCacheCreate(m.ctx, { name: "edge", size: 256, align: 8, flags: 0 });
    const { kmemCacheAllocAny, kmemCacheFree, stats } = m.slab.layer;
    const objects = Array.from({ length: 64 }, () => kmemCacheAllocAny(m.ctx, cache, QUIET) as PhysAddr);
    for (const object of objects) kmemCacheFree(m.ctx, cache, object);
    const before = stats(cache);
    for (let i = 0; i < 1000; i++) kmemCacheFree(m.ctx, cache, kmemCacheAllocAny(m.ctx, cache, QUIET) as PhysAddr);
    const after = stats(cache);
    expect(after.fullLoads + after.emptyLoads - before.fullLoads - before.emptyLoads).toBeLessThanOrEqual(2);
    expect(after.cpuAllocs - before.cpuAllocs).toBe(1000);
    expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(0);
    m.expectNoObjectLeak();
  });
});
