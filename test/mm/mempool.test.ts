/**
 * Mempools (D6): who is asked in which order, what the reserve guarantees, who sleeps, and every misuse.
 *
 * Goal: MPL-1 … MPL-6, D6, G2. Method: a machine with object allocators, tasks and a page allocator that fails on
 * command, once or for good; random programs against a counting model; each bad pointer; each allocation of create and
 * resize failing.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CYCLES_PER_SECOND } from "../../kernel/params.ts";
import { asPhys, type PhysAddr, PREEMPTED } from "../../kernel/types.ts";
import { EBUSY, EINVAL, ENOMEM } from "../../kernel/uapi/errno.ts";
import {
  __GFP_DIRECT_RECLAIM,
  __GFP_DMA,
  __GFP_IO,
  __GFP_NOMEMALLOC,
  __GFP_NORETRY,
  __GFP_NOWARN,
  __GFP_ZERO,
  GFP_ATOMIC,
  GFP_KERNEL,
} from "../../mm/gfp.ts";
import type { MempoolSpec } from "../../mm/mempool.ts";
import type { Mempool } from "../../mm/mempool_elements.ts";
import { finish } from "../support/finish.ts";
import { bootMempoolWorld, type MempoolWorld } from "../support/mempool_world.ts";

const ALWAYS = __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN;
const SMALL = { ramBytes: 16 * 1024 * 1024, nrCpus: 2 };

/** Runs a generator of numbers to its end outside of any task. */
const now = <T extends number>(rest: Generator<number, T, void>): T => finish(rest as never) as T;
const create = (m: MempoolWorld, spec: MempoolSpec): Mempool => now(m.mempools.create(m.ctx, spec));

/** The three kinds of pools, each with two elements. */
const KINDS: Readonly<Record<string, (m: MempoolWorld) => MempoolSpec>> = {
  "a cache": (m) => ({
    minNr: 2,
    cache: m.slab.kmemCacheCreate(m.ctx, { name: "pool_cache", size: 200, align: 8, flags: 0 }),
  }),
  kmalloc: () => ({ minNr: 2, bytes: 300 }),
  "DMA memory": () => ({ minNr: 2, bytes: 300, zone: __GFP_DMA }),
  "whole pages": () => ({ minNr: 2, bytes: 3 * 4096 }),
};

/** Makes every allocation fail from now on, also those that magazines and slabs could serve. */
function exhaust(m: MempoolWorld, pool: Mempool): PhysAddr[] {
  m.failPageAllocation(1, true);
  const taken: PhysAddr[] = [];
  for (;;) {
    const before = m.mempools.info(pool).fromReserve;
    const element = m.mempools.alloc(m.ctx, pool, GFP_ATOMIC);
    expect(element).not.toBe(0);
    if (m.mempools.info(pool).fromReserve > before) {
      m.mempools.free(m.ctx, pool, element);
      return taken;
    }
    taken.push(element);
  }
}

for (const [kind, specOf] of Object.entries(KINDS)) {
  describe(`a mempool over ${kind}`, () => {
    const boot = (): { m: MempoolWorld; pool: Mempool; spec: MempoolSpec } => {
      const m = bootMempoolWorld(SMALL);
      const spec = specOf(m);
      return { m, pool: create(m, spec), spec };
    };
    const finishWorld = (m: MempoolWorld, pool: Mempool, spec: MempoolSpec, held: readonly PhysAddr[]): void => {
      m.failPageAllocation(0);
      for (const element of held) expect(m.mempools.free(m.ctx, pool, element)).toBe(0);
      expect(m.mempools.check()).toBeNull();
      expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
      if (spec.cache !== undefined) expect(m.slab.kmemCacheDestroy(m.ctx, spec.cache)).toBe(0);
      m.expectNoObjectLeak();
    };

    it("MPL-3 D6 with everything else failing, exactly min_nr elements can be had, from an interrupt too", () => {
      const { m, pool, spec } = boot();
      const taken = exhaust(m, pool);
      const irq = m.contexts.irqContext(1);
      const reserve = [m.mempools.alloc(irq, pool, GFP_ATOMIC), m.mempools.alloc(irq, pool, GFP_ATOMIC)];
      expect(new Set([...taken, ...reserve]).size).toBe(taken.length + 2);
      expect(reserve).not.toContain(0);
      expect(m.mempools.alloc(irq, pool, GFP_ATOMIC)).toBe(0);
      expect(m.mempools.info(pool)).toMatchObject({ currNr: 0, nrOut: taken.length + 2, sleeps: 0 });
      expect(m.log()).not.toContain("allocation failure");
      finishWorld(m, pool, spec, [...taken, ...reserve]);
    });

    it("MPL-4 frees refill the reserve before the allocator sees anything", () => {
      const { m, pool, spec } = boot();
      const taken = exhaust(m, pool);
      const reserve = [m.mempools.alloc(m.ctx, pool, GFP_ATOMIC), m.mempools.alloc(m.ctx, pool, GFP_ATOMIC)];
      for (const [i, element] of taken.slice(0, 2).entries()) {
        m.mempools.free(m.ctx, pool, element);
        expect(m.mempools.info(pool).currNr).toBe(i + 1);
        expect(m.mempools.check()).toBeNull();
        expect(m.slab.check()).toBeNull();
      }
      finishWorld(m, pool, spec, [...taken.slice(2), ...reserve]);
    });

    it("MPL-6 each bad free is reported, refused, and changes nothing", () => {
      const { m, pool, spec } = boot();
      const a = m.mempools.alloc(m.ctx, pool, GFP_ATOMIC);
      const b = m.mempools.alloc(m.ctx, pool, GFP_ATOMIC);
      const foreign = m.slab.kmalloc.kmalloc(m.ctx, 700, GFP_ATOMIC);
      expect(m.mempools.free(m.ctx, pool, b)).toBe(0);
      // Elements that are in the reserve: emptied and refilled with known ones.
      const taken = exhaust(m, pool);
      const [c, d] = [m.mempools.alloc(m.ctx, pool, GFP_ATOMIC), m.mempools.alloc(m.ctx, pool, GFP_ATOMIC)];
      m.mempools.free(m.ctx, pool, c);
      m.mempools.free(m.ctx, pool, d);
      const before = m.mempools.info(pool);
      for (const bad of [a + 8, a + 1, a + 0.5, -8, c, d, foreign, 0x10_0000, 2 ** 31, 2 ** 40, Number.NaN]) {
        expect(m.mempools.free(m.ctx, pool, asPhys(bad))).toBe(-EINVAL);
        expect(m.mempools.info(pool)).toEqual(before);
      }
      expect(m.mempools.free(m.ctx, pool, asPhys(0))).toBe(0);
      expect(m.log()).toContain("BUG: mempool_free of invalid pointer");
      // Past the pool as well: an element of the reserve is not the allocator's to take.
      const reports = m.printk.nextSeq();
      if (spec.bytes === 3 * 4096) expect(m.pageAlloc.freePages(m.ctx, (c / 4096) as never, 2)).toBe(-EINVAL);
      else expect(m.slab.kmalloc.kfree(m.ctx, c)).toBe(-EINVAL);
      expect(m.printk.nextSeq()).toBeGreaterThan(reports);
      expect(m.slab.check()).toBeNull();
      m.slab.kmalloc.kfree(m.ctx, foreign);
      finishWorld(m, pool, spec, [a, ...taken]);
    });

    it("MPL-5 destroying a pool with elements out is refused; resize moves the reserve up and down", () => {
      const { m, pool, spec } = boot();
      const a = m.mempools.alloc(m.ctx, pool, GFP_ATOMIC);
      expect(m.mempools.destroy(m.ctx, pool)).toBe(-EBUSY);
      expect(m.log()).toContain("mempool_destroy with 1 element(s) out");
      for (const minNr of [40, 3, 41, 1]) {
        expect(now(m.mempools.resize(m.ctx, pool, minNr))).toBe(0);
        expect(m.mempools.info(pool)).toMatchObject({ minNr, currNr: minNr, nrOut: 1 });
        expect(m.mempools.check()).toBeNull();
      }
      for (const bad of [0, -1, 1.5, 2 ** 30, Number.NaN]) {
        expect(now(m.mempools.resize(m.ctx, pool, bad))).toBe(-EINVAL);
      }
      finishWorld(m, pool, spec, [a]);
      expect(m.mempools.destroy(m.ctx, pool)).toBe(-EINVAL);
    });

    it("every N-th page allocation of create and resize fails, once and for good: nothing leaks", () => {
      let nrFailed = 0;
      for (const isPersistent of [false, true]) {
        for (let n = 1; n <= 12; n++) {
          const m = bootMempoolWorld(SMALL);
          const spec = specOf(m);
          m.slab.shrinkAll(m.ctx);
          m.failPageAllocation(n, isPersistent);
          const pool = create(m, spec);
          if (pool === 0) {
            nrFailed++;
            m.failPageAllocation(0);
            if (spec.cache !== undefined) expect(m.slab.kmemCacheDestroy(m.ctx, spec.cache)).toBe(0);
            m.expectNoObjectLeak();
            continue;
          }
          const result = now(m.mempools.resize(m.ctx, pool, 1500));
          expect([0, -ENOMEM]).toContain(result);
          expect(m.mempools.info(pool).minNr).toBe(result === 0 ? 1500 : 2);
          expect(m.mempools.check()).toBeNull();
          finishWorld(m, pool, spec, []);
        }
      }
      expect(nrFailed).toBeGreaterThan(0);
    });
  });
}

describe("D6 the order of attempts", () => {
  it("without sleeping, then the reserve, then the full mask; each attempt with NOMEMALLOC, NORETRY, NOWARN", () => {
    const m = bootMempoolWorld(SMALL);
    const pool = create(m, { minNr: 1, bytes: 8192 + 1 });
    m.failPageAllocation(1, true);
    m.pageMasks.length = 0;
    const first = m.mempools.alloc(m.ctx, pool, GFP_KERNEL);
    // The reserve served it: the full mask was not tried.
    expect(first).not.toBe(0);
    expect(m.pageMasks).toEqual([(GFP_KERNEL | ALWAYS) & ~(__GFP_DIRECT_RECLAIM | __GFP_IO)]);
    m.pageMasks.length = 0;
    expect(m.mempools.alloc(m.ctx, pool, GFP_ATOMIC)).toBe(0);
    expect(m.pageMasks).toEqual([GFP_ATOMIC | ALWAYS]);
    m.pageMasks.length = 0;
    const rest = m.mempools.alloc(m.ctx, pool, GFP_KERNEL);
    expect(typeof rest).toBe("object");
    m.failPageAllocation(0);
    const second = finish(rest);
    expect(m.pageMasks).toEqual([(GFP_KERNEL | ALWAYS) & ~(__GFP_DIRECT_RECLAIM | __GFP_IO), GFP_KERNEL | ALWAYS]);
    m.mempools.free(m.ctx, pool, first as PhysAddr);
    m.mempools.free(m.ctx, pool, second);
    expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
    m.expectNoObjectLeak();
  });

  it("G2 a mask that may sleep is reported under a lock although memory is plenty; __GFP_ZERO is a bug", () => {
    const m = bootMempoolWorld(SMALL);
    const pool = create(m, { minNr: 1, bytes: 64 });
    m.contexts.preemptDisable(m.ctx);
    const element = m.mempools.allocAny(m.ctx, pool, GFP_KERNEL) as PhysAddr;
    m.contexts.preemptEnable(m.ctx);
    expect(m.log()).toContain("BUG: sleeping function called from invalid context at mm/mempool.ts:mempoolAlloc");
    expect(() => m.mempools.allocAny(m.ctx, pool, GFP_ATOMIC | __GFP_ZERO)).toThrow("__GFP_ZERO");
    m.mempools.free(m.ctx, pool, element);
    expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
    m.expectNoObjectLeak();
  });

  it("bad parameters give no pool", () => {
    const m = bootMempoolWorld(SMALL);
    const cache = m.slab.kmemCacheCreate(m.ctx, { name: "c", size: 64, align: 8, flags: 0 });
    const bad: MempoolSpec[] = [
      { minNr: 0, bytes: 64 },
      { minNr: -1, bytes: 64 },
      { minNr: 1.5, bytes: 64 },
      { minNr: 2 ** 30, bytes: 64 },
      { minNr: 1 },
      { minNr: 1, bytes: 0 },
      { minNr: 1, bytes: 5 * 2 ** 20 },
      { minNr: 1, bytes: Number.NaN },
      { minNr: 1, bytes: 64, zone: 3 },
      { minNr: 1, cache, bytes: 64 },
      { minNr: 1, cache, zone: __GFP_DMA },
    ];
    for (const spec of bad) expect(create(m, spec)).toBe(0);
    expect(m.mempools.destroy(m.ctx, 0 as Mempool)).toBe(-EINVAL);
    m.slab.kmemCacheDestroy(m.ctx, cache);
    m.expectNoObjectLeak();
  });
});

describe("MPL-2 whoever may sleep gets an element in the end", () => {
  it("eight tasks share two elements while nothing else can be had: all finish, none fails", () => {
    const m = bootMempoolWorld(SMALL);
    const pool = create(m, { minNr: 2, bytes: 3 * 4096 });
    m.failPageAllocation(1, true);
    let mostOut = 0;
    for (let i = 0; i < 8; i++) {
      m.spawn(`worker${i}`, function* (ctx) {
        for (let round = 0; round < 5; round++) {
          const got = m.mempools.alloc(ctx, pool, GFP_KERNEL);
          const element = typeof got === "object" ? yield* got : got;
          if (element === 0) return 1;
          mostOut = Math.max(mostOut, m.mempools.info(pool).nrOut);
          m.machine.harts.clock[ctx.cpu] = (m.machine.harts.clock[ctx.cpu] as number) + 300_000;
          yield PREEMPTED;
          m.mempools.free(ctx, pool, element);
        }
        return 0;
      });
    }
    expect([...m.runAll().values()]).toEqual(new Array(8).fill(0));
    const { sleeps, fromReserve, nrOut } = m.mempools.info(pool);
    expect({ fromReserve, nrOut, mostOut }).toEqual({ fromReserve: 40, nrOut: 0, mostOut: 2 });
    expect(sleeps).toBeGreaterThan(0);
    // A free wakes: nobody waited for the clock.
    expect(Math.max(...m.machine.harts.clock)).toBeLessThan(CYCLES_PER_SECOND);
    expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
    m.expectNoObjectLeak();
  });

  it("a sleeper asks the allocator again after 5 s, although nobody freed to the pool", () => {
    const m = bootMempoolWorld(SMALL);
    const pool = create(m, { minNr: 1, bytes: 3 * 4096 });
    m.failPageAllocation(1, true);
    const held = m.mempools.alloc(m.ctx, pool, GFP_ATOMIC);
    let gotAt = 0;
    m.spawn("sleeper", function* (ctx) {
      const got = m.mempools.alloc(ctx, pool, GFP_KERNEL);
      const element = typeof got === "object" ? yield* got : got;
      gotAt = m.machine.harts.clock[ctx.cpu] as number;
      return m.mempools.free(ctx, pool, element);
    });
    const other = m.spawn("memory_returns", function* (ctx) {
      yield* m.scheduler.sleepUntil(m.tasks.get(other.pid) as never, 12 * CYCLES_PER_SECOND);
      m.failPageAllocation(0);
      return ctx.cpu * 0;
    });
    expect([...m.runAll().values()]).toEqual([0, 0]);
    expect(gotAt / CYCLES_PER_SECOND).toBeGreaterThan(14.9);
    expect(gotAt / CYCLES_PER_SECOND).toBeLessThan(15.5);
    expect(m.mempools.info(pool).sleeps).toBe(3);
    m.mempools.free(m.ctx, pool, held);
    expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
    m.expectNoObjectLeak();
  });

  it("a pool somebody sleeps for is not destroyed", () => {
    const m = bootMempoolWorld(SMALL);
    const pool = create(m, { minNr: 1, bytes: 3 * 4096 });
    m.failPageAllocation(1, true);
    const held = m.mempools.alloc(m.ctx, pool, GFP_ATOMIC);
    m.spawn("sleeper", function* (ctx) {
      const got = m.mempools.alloc(ctx, pool, GFP_KERNEL);
      return m.mempools.free(ctx, pool, typeof got === "object" ? yield* got : got);
    });
    m.scheduler.step();
    expect(m.mempools.destroy(m.ctx, pool)).toBe(-EBUSY);
    m.mempools.free(m.contexts.irqContext(1), pool, held);
    m.runAll();
    expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
    m.expectNoObjectLeak();
  });
});

describe("random programs against a counting model", () => {
  it("MPL-1 … MPL-6 after every step, with memory failing and recovering", () => {
    const step = fc.tuple(fc.nat(1), fc.nat(2), fc.nat(9));
    fc.assert(
      fc.property(fc.nat(2), fc.array(step, { maxLength: 80 }), (kind, steps) => {
        const m = bootMempoolWorld(SMALL);
        const spec = (Object.values(KINDS)[kind] as (typeof KINDS)[string])(m);
        const pool = create(m, { ...spec, minNr: 3 });
        const live: PhysAddr[] = [];
        let minNr = 3;
        let isBroken = false;
        for (const [cpu, context, action] of steps) {
          const ctx = context === 0 ? m.contexts.irqContext(cpu) : m.contexts.taskContext(cpu);
          if (action < 5) {
            const { currNr } = m.mempools.info(pool);
            const element = m.mempools.alloc(ctx, pool, GFP_ATOMIC);
            if (currNr > 0 || !isBroken) expect(element).not.toBe(0);
            if (element !== 0) {
              expect(live).not.toContain(element);
              live.push(element);
            }
          } else if (action < 8 && live.length > 0) {
            const { currNr } = m.mempools.info(pool);
            const element = live.splice((action * 13) % live.length, 1)[0] as PhysAddr;
            expect(m.mempools.free(ctx, pool, element)).toBe(0);
            expect(m.mempools.info(pool).currNr).toBe(Math.min(minNr, currNr + 1));
          } else if (action === 8) {
            isBroken = !isBroken;
            m.failPageAllocation(isBroken ? 1 : 0, true);
          } else {
            const wanted = 1 + (live.length % 6);
            if (now(m.mempools.resize(m.ctx, pool, wanted)) === 0) minNr = wanted;
          }
          expect(m.mempools.info(pool)).toMatchObject({ minNr, nrOut: live.length });
          expect(m.mempools.check()).toBeNull();
        }
        m.failPageAllocation(0);
        expect(m.slab.check()).toBeNull();
        for (const element of live) expect(m.mempools.free(m.ctx, pool, element)).toBe(0);
        expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
        if (spec.cache !== undefined) m.slab.kmemCacheDestroy(m.ctx, spec.cache);
        m.expectNoObjectLeak();
      }),
      { numRuns: 25 },
    );
  });
});
