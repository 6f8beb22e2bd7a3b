/**
 * What a mask allows: who may sleep where, which zones, how deep into the reserves, and what is printed on failure.
 *
 * Goal: G2, G3, W4, W6, C4 for GFP_KERNEL and its kin, GFP_ATOMIC, GFP_NOWAIT, GFP_DMA, GFP_DMA32 in every context.
 * Method: tables. Contexts are made by the offsets of preempt_count and the interrupt flag; zones are emptied page by
 * page with per-CPU lists that hold one page, so that the exact page at which a class of request fails can be named.
 */

import { describe, expect, it } from "vitest";
import {
  type ContextTracking,
  HARDIRQ_OFFSET,
  NMI_OFFSET,
  PREEMPT_OFFSET,
  SOFTIRQ_DISABLE_OFFSET,
  SOFTIRQ_OFFSET,
} from "../../kernel/context.ts";
import { CYCLES_PER_SECOND } from "../../kernel/params.ts";
import type { Context, Pfn, PhysAddr } from "../../kernel/types.ts";
import {
  __GFP_DIRECT_RECLAIM,
  __GFP_DMA,
  __GFP_DMA32,
  __GFP_HIGH,
  __GFP_MEMALLOC,
  __GFP_NOMEMALLOC,
  __GFP_NOWARN,
  GFP_ATOMIC,
  GFP_KERNEL,
  GFP_NOFS,
  GFP_NOIO,
  GFP_NOWAIT,
  GFP_USER,
  gfpAllowsBlocking,
} from "../../mm/gfp.ts";
import {
  gfpZone,
  WMARK_MIN,
  Z_LOWMEM_RESERVE,
  Z_NR_FREE,
  Z_PCP_BATCH,
  Z_PCP_HIGH_MAX,
  Z_PCP_HIGH_MIN,
  ZONE_DMA,
  ZONE_DMA32,
} from "../../mm/mmzone.ts";
import { finish } from "../support/finish.ts";
import { bootMempoolWorld, type MempoolWorld } from "../support/mempool_world.ts";
import { bootPageLevel, type PageLevelMachine } from "../support/page_level.ts";

const MASKS: Readonly<Record<string, number>> = {
  GFP_KERNEL,
  GFP_NOIO,
  GFP_NOFS,
  GFP_USER,
  "GFP_KERNEL|GFP_DMA": GFP_KERNEL | __GFP_DMA,
  "GFP_KERNEL|GFP_DMA32": GFP_KERNEL | __GFP_DMA32,
  GFP_ATOMIC,
  GFP_NOWAIT,
  "GFP_ATOMIC|GFP_DMA": GFP_ATOMIC | __GFP_DMA,
  "GFP_ATOMIC|GFP_DMA32": GFP_ATOMIC | __GFP_DMA32,
};

interface Situation {
  readonly enter: (contexts: ContextTracking, ctx: Context) => () => void;
  readonly maySleep: boolean;
  /** The second and third line of the splat, as far as the situation decides them. */
  readonly splat?: string;
  readonly count?: string;
}

const counted =
  (offset: number) =>
  (contexts: ContextTracking, ctx: Context): (() => void) => {
    contexts.add(ctx, offset);
    return () => contexts.subtract(ctx, offset);
  };

const SITUATIONS: Readonly<Record<string, Situation>> = {
  "a task": { enter: counted(0), maySleep: true },
  "under a spinlock": {
    enter: counted(PREEMPT_OFFSET),
    maySleep: false,
    splat: "in_atomic(): 1, irqs_disabled(): 0",
    count: "preempt_count: 1, expected: 0",
  },
  "with interrupts off": {
    enter: (contexts, ctx) => {
      const irq = contexts.localIrqSave(ctx);
      return () => contexts.localIrqRestore(ctx, irq);
    },
    maySleep: false,
    splat: "in_atomic(): 0, irqs_disabled(): 1",
    count: "preempt_count: 0, expected: 0",
  },
  "with softirqs off": {
    enter: counted(SOFTIRQ_DISABLE_OFFSET),
    maySleep: false,
    splat: "in_atomic(): 1, irqs_disabled(): 0",
    count: "preempt_count: 200, expected: 0",
  },
  "in a softirq": {
    enter: counted(SOFTIRQ_OFFSET),
    maySleep: false,
    splat: "in_atomic(): 1, irqs_disabled(): 0",
    count: "preempt_count: 100, expected: 0",
  },
  "in a hardirq": {
    enter: counted(HARDIRQ_OFFSET),
    maySleep: false,
    splat: "in_atomic(): 1, irqs_disabled(): 0",
    count: "preempt_count: 10000, expected: 0",
  },
  "in an NMI": {
    enter: counted(NMI_OFFSET),
    maySleep: false,
    splat: "in_atomic(): 1, irqs_disabled(): 0",
    count: "preempt_count: 100000, expected: 0",
  },
};

/** The four doors at which a mask arrives; each must say so at the top, whatever it has at hand. */
const DOORS: Readonly<Record<string, (m: MempoolWorld) => (ctx: Context, gfp: number) => void>> = {
  "mm/page_alloc.ts:allocPages": (m) => (ctx, gfp) => {
    m.pageAlloc.freePages(ctx, finish(m.pageAlloc.allocPagesAny(ctx, 0, gfp)) as Pfn, 0);
  },
  "mm/magazine.ts:kmemCacheAlloc": (m) => (ctx, gfp) => {
    m.slab.kmalloc.kfree(ctx, finish(m.slab.kmalloc.kmallocAny(ctx, 100, gfp)) as PhysAddr);
  },
  "mm/mempool.ts:mempoolAlloc": (m) => {
    const pool = finish(m.mempools.create(m.ctx, { minNr: 1, bytes: 100 }) as never) as never;
    return (ctx, gfp) => {
      m.mempools.free(ctx, pool, finish(m.mempools.allocAny(ctx, pool, gfp & ~(__GFP_DMA | __GFP_DMA32))));
    };
  },
};

describe("G2 a mask may sleep ⇔ it has __GFP_DIRECT_RECLAIM, and who may not sleep is told so at every door", () => {
  for (const [where, open] of Object.entries(DOORS)) {
    for (const [place, { enter, maySleep, splat, count }] of Object.entries(SITUATIONS)) {
      it(`${where} ${place}`, () => {
        const m = bootMempoolWorld({ ramBytes: 20 * 1024 * 1024, nrCpus: 2 });
        const use = open(m);
        for (const [name, gfp] of Object.entries(MASKS)) {
          expect(gfpAllowsBlocking(gfp)).toBe((gfp & __GFP_DIRECT_RECLAIM) !== 0);
          // Twice: the second time a magazine or list has something at hand.
          for (const round of [1, 2]) {
            m.machine.harts.clock[0] = (m.machine.harts.clock[0] as number) + 2 * CYCLES_PER_SECOND;
            const before = m.contexts.nrAtomicSleeps();
            const seq = m.printk.nextSeq();
            const leave = enter(m.contexts, m.ctx);
            use(m.ctx, gfp);
            leave();
            const text = m.printk
              .records(seq)
              .map((record) => record.text)
              .join("\n");
            const isWrong = !maySleep && gfpAllowsBlocking(gfp);
            expect([name, round, m.contexts.nrAtomicSleeps() > before]).toEqual([name, round, isWrong]);
            if (!isWrong) {
              expect(text).toBe("");
              continue;
            }
            expect(text).toContain(`BUG: sleeping function called from invalid context at ${where}`);
            expect(text).toContain(`${splat}, non_block: 0, pid: 0, name: swapper`);
            expect(text).toContain(count);
          }
        }
        expect(m.slab.check()).toBeNull();
        expect(m.pageAlloc.check()).toBeNull();
      });
    }
  }
});

/** A machine whose per-CPU lists take one page at a time, so that marks are met to the page. */
function bootExact(): PageLevelMachine {
  const m = bootPageLevel({ ramBytes: 32 * 1024 * 1024, nrCpus: 1 });
  for (const zone of [ZONE_DMA, ZONE_DMA32]) {
    for (const field of [Z_PCP_BATCH, Z_PCP_HIGH_MIN, Z_PCP_HIGH_MAX]) m.zones.setField(zone, field, 1);
  }
  return m;
}

const half = (min: number): number => min - (min >>> 1);
const threeEighths = (min: number): number => half(min) - (half(min) >>> 2);

/** W4: what a class of requests leaves of a zone with a given `min`, besides the lowmem reserve. */
const DEPTHS: readonly (readonly [name: string, gfp: number, left: (min: number) => number])[] = [
  ["GFP_KERNEL", GFP_KERNEL, (min) => min],
  ["GFP_NOIO", GFP_NOIO, (min) => min],
  ["GFP_NOWAIT", GFP_NOWAIT, (min) => min],
  ["GFP_KERNEL|__GFP_HIGH", GFP_KERNEL | __GFP_HIGH, half],
  ["GFP_ATOMIC|__GFP_NOMEMALLOC", GFP_ATOMIC | __GFP_NOMEMALLOC, half],
  ["GFP_ATOMIC", GFP_ATOMIC, threeEighths],
  ["GFP_KERNEL|MEMALLOC|NOMEMALLOC", GFP_KERNEL | __GFP_MEMALLOC | __GFP_NOMEMALLOC, (min) => min],
  ["GFP_KERNEL|__GFP_MEMALLOC", GFP_KERNEL | __GFP_MEMALLOC, () => 0],
];

describe("W4 W6 the exact page at which each class of request fails, zone by zone", () => {
  for (const [name, gfp, left] of DEPTHS) {
    for (const [zoneName, zoneBits] of [
      ["", 0],
      ["|GFP_DMA32", __GFP_DMA32],
      ["|GFP_DMA", __GFP_DMA],
    ] as const) {
      it(`${name}${zoneName}`, () => {
        const m = bootExact();
        const highest = gfpZone(gfp | zoneBits);
        const got: Pfn[] = [];
        const before = m.zones.field(ZONE_DMA32, Z_NR_FREE);
        for (;;) {
          const pfn = m.pageAlloc.tryAllocPages(m.ctx, 0, gfp | zoneBits);
          if (pfn === 0) break;
          got.push(pfn);
        }
        for (const zone of [ZONE_DMA, ZONE_DMA32]) {
          const free = m.zones.field(zone, Z_NR_FREE);
          if (zone > highest) expect(free).toBe(before);
          else if ((gfp & (__GFP_MEMALLOC | __GFP_NOMEMALLOC)) === __GFP_MEMALLOC) expect(free).toBe(0);
          else {
            const reserve = m.zones.field(zone, Z_LOWMEM_RESERVE + highest * 4);
            expect(free).toBe(left(m.zones.wmark(zone, WMARK_MIN)) + reserve);
          }
        }
        // The next page that comes back is had at once.
        m.pageAlloc.freePages(m.ctx, got.pop() as Pfn, 0);
        const again = m.pageAlloc.tryAllocPages(m.ctx, 0, gfp | zoneBits);
        expect(again).not.toBe(0);
        got.push(again);
        for (const pfn of got) m.pageAlloc.freePages(m.ctx, pfn, 0);
        m.expectNoLeak();
      });
    }
  }
});

describe("C4 a failure is reported, and the run goes on", () => {
  const empty = (m: PageLevelMachine): Pfn[] => {
    const got: Pfn[] = [];
    for (;;) {
      const pfn = m.pageAlloc.tryAllocPages(m.ctx, 0, GFP_ATOMIC | __GFP_MEMALLOC);
      if (pfn === 0) return got;
      got.push(pfn);
    }
  };

  it("GFP_ATOMIC in an interrupt: Linux's line, a stack, Mem-Info; at most one in ten seconds", () => {
    const m = bootExact();
    const got = empty(m);
    const irq = m.contexts.irqContext(0);
    const clock = m.machine.harts.clock;
    const reports = (): number => m.log().split("page allocation failure").length - 1;
    m.contexts.add(irq, HARDIRQ_OFFSET);
    expect(m.pageAlloc.allocPages(irq, 0, GFP_ATOMIC)).toBe(0);
    expect(m.log()).toContain(
      "swapper: page allocation failure: order:0, mode:0x820(GFP_ATOMIC), nodemask=(null),cpuset=/,mems_allowed=0\n",
    );
    for (const part of ["Call Trace:", "Mem-Info:", "free:0kB", "lowmem_reserve[]:"]) expect(m.log()).toContain(part);
    expect(m.pageAlloc.allocPages(irq, 3, GFP_ATOMIC)).toBe(0);
    clock[0] = (clock[0] as number) + 9 * CYCLES_PER_SECOND;
    expect(m.pageAlloc.allocPages(irq, 0, GFP_ATOMIC)).toBe(0);
    expect(reports()).toBe(1);
    clock[0] = (clock[0] as number) + 2 * CYCLES_PER_SECOND;
    expect(m.pageAlloc.allocPages(irq, 2, GFP_ATOMIC)).toBe(0);
    expect(reports()).toBe(2);
    expect(m.log()).toContain("order:2, mode:0x820(GFP_ATOMIC)");
    m.contexts.subtract(irq, HARDIRQ_OFFSET);
    for (const pfn of got) expect(m.pageAlloc.freePages(m.ctx, pfn, 0)).toBe(0);
    const after = m.pageAlloc.allocPages(irq, 3, GFP_ATOMIC);
    expect(after).not.toBe(0);
    m.pageAlloc.freePages(irq, after, 3);
    m.expectNoLeak();
  });

  it("__GFP_NOWARN and GFP_NOWAIT fail without a word", () => {
    const m = bootExact();
    const got = empty(m);
    for (const gfp of [GFP_NOWAIT, GFP_ATOMIC | __GFP_NOWARN, GFP_KERNEL | __GFP_NOWARN]) {
      expect(m.pageAlloc.allocPagesAny(m.ctx, 0, gfp)).toBe(0);
    }
    expect(m.log()).not.toContain("page allocation failure");
    for (const pfn of got) m.pageAlloc.freePages(m.ctx, pfn, 0);
    m.expectNoLeak();
  });
});
