/**
 * Per-CPU page lists by themselves: the state word, what is counted under it, the fast mark beside it.
 *
 * Goal: PCP-1, PCP-5, PAGE-5, VMS-2, ZONE-1 are found broken when they are; W8's sizes are those of a model that halves
 * and adds at every step, although the lists halve alloc_factor late. Method: a machine of two CPUs with its auditors.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asPfn, NO_PFN, type Pfn } from "../../kernel/types.ts";
import { GFP_ATOMIC, GFP_HIGHUSER_MOVABLE, GFP_KERNEL } from "../../mm/gfp.ts";
import {
  Z_BOOST,
  Z_FAST_MARK,
  Z_FIRST,
  Z_MANAGED,
  Z_NONEMPTY,
  Z_NONEMPTY_ORDINARY,
  Z_PCP_BATCH,
  Z_PCP_HIGH_MAX,
  Z_PCP_HIGH_MIN,
  ZONE_DMA32,
  ZONE_NORMAL,
} from "../../mm/mmzone.ts";
import { FREE_COUNT_SHIFT, PCP_HELD, STOCK_MASK } from "../../mm/pcp_layout.ts";
import { NUMA_HIT, PCP_BUSY, PCP_REFILL, PGALLOC_DMA, PGFREE } from "../../mm/vmstat.ts";
import { bootPageLevel, type PageLevelMachine } from "../support/page_level.ts";

const stateOf = (m: PageLevelMachine, cpu = 0): number => m.machine.port.ld32(m.pcp.lockAddr(cpu, ZONE_DMA32));
const take = (m: PageLevelMachine, order = 0): Pfn => {
  const pfn = m.pageAlloc.tryAllocPages(m.ctx, order, GFP_KERNEL);
  expect(pfn).not.toBe(NO_PFN);
  return pfn;
};

describe("the state word", () => {
  it("PCP-5 lists that somebody holds are reported, with the holder, and drained by nobody", () => {
    const m = bootPageLevel();
    m.pageAlloc.freePages(m.ctx, take(m), 0);
    const atRest = stateOf(m);
    m.machine.port.st32(m.pcp.lockAddr(0, ZONE_DMA32), PCP_HELD + 1);
    expect(m.pcp.check()).toContain("PCP-5: the lists of CPU 0 zone 1 are held by CPU 1");
    expect(m.pcp.info(0, ZONE_DMA32).count).toBe(0);
    const busy = m.vmstat.event(PCP_BUSY);
    expect(m.pcp.drainCpu(m.ctx, 0)).toBe(0);
    expect(m.vmstat.event(PCP_BUSY)).toBe(busy + 1);
    m.machine.port.st32(m.pcp.lockAddr(0, ZONE_DMA32), atRest);
    m.expectNoLeak();
  });

  it("PCP-1 a wrong stock is reported", () => {
    const m = bootPageLevel();
    m.pageAlloc.freePages(m.ctx, take(m), 0);
    m.machine.port.st32(m.pcp.lockAddr(0, ZONE_DMA32), stateOf(m) + 1);
    expect(m.pcp.check()).toContain("PCP-1");
  });

  it("W8 free_count grows by the pages freed, up to 32 batches, and is halved by each allocation", () => {
    const m = bootPageLevel({ ramBytes: 64 * 1024 * 1024 });
    const batch = m.zones.field(ZONE_DMA32, Z_PCP_BATCH);
    // Nothing spills meanwhile.
    for (const field of [Z_PCP_HIGH_MIN, Z_PCP_HIGH_MAX]) m.zones.setField(ZONE_DMA32, field, 8000);
    const pages = Array.from({ length: 40 }, () => take(m, 3));
    let model = stateOf(m) >>> FREE_COUNT_SHIFT;
    for (const pfn of pages) {
      m.pageAlloc.freePages(m.ctx, pfn, 3);
      if (model < batch * 32) model += 8;
      expect(stateOf(m) >>> FREE_COUNT_SHIFT).toBe(model);
    }
    expect(model).toBeGreaterThanOrEqual(batch * 32);
    while (model > 0) {
      take(m);
      model >>>= 1;
      expect(stateOf(m) >>> FREE_COUNT_SHIFT).toBe(model);
    }
    expect(m.pageAlloc.check()).toBeNull();
  });

  it("W8 refills double while a CPU only allocates, and each free in between halves what comes next", () => {
    const m = bootPageLevel({ ramBytes: 64 * 1024 * 1024 });
    for (const field of [Z_PCP_HIGH_MIN, Z_PCP_HIGH_MAX]) m.zones.setField(ZONE_DMA32, field, 8000);
    m.zones.setField(ZONE_DMA32, Z_PCP_BATCH, 4);
    m.pageAlloc.drainAllPages(m.ctx);
    /** Allocates until the next refill; how many blocks it brought. */
    const nextRefill = (): number => {
      const before = m.vmstat.event(PCP_REFILL);
      while (m.vmstat.event(PCP_REFILL) === before) last = take(m);
      return (stateOf(m) & STOCK_MASK) + 1;
    };
    let last = NO_PFN;
    const first = nextRefill();
    const second = nextRefill();
    expect(second).toBe(first * 2);
    expect(nextRefill()).toBe(first * 4);
    // The factor is 3 now: one free makes it 1, and the next refill 2; two frees make it 0.
    m.pageAlloc.freePages(m.ctx, last, 0);
    expect(nextRefill()).toBe(first * 2);
    const kept = take(m);
    for (const pfn of [last, kept]) m.pageAlloc.freePages(m.ctx, pfn, 0);
    expect(nextRefill()).toBe(first);
  });
});

describe("VMS-2 events of what the lists serve", () => {
  it("are the sums over blocks, whichever way each took", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(1), fc.constantFrom(0, 1, 3, 4, 5, 9), fc.boolean()), { maxLength: 80 }),
        (ops) => {
          const m = bootPageLevel({ ramBytes: 48 * 1024 * 1024 });
          const zones = [0, 1, 2, 3];
          const now = () => ({
            pages: zones.map((zone) => m.vmstat.event(PGALLOC_DMA + zone)),
            hits: m.vmstat.event(NUMA_HIT),
            freed: m.vmstat.event(PGFREE),
          });
          const start = now();
          const model = { pages: [...start.pages], hits: start.hits, freed: start.freed };
          const live: (readonly [Pfn, number])[] = [];
          for (const [cpu, order, isFree] of ops) {
            const ctx = m.contexts.taskContext(cpu);
            if (isFree && live.length > 0) {
              const [pfn, freedOrder] = live.pop() as readonly [Pfn, number];
              m.pageAlloc.freePages(ctx, pfn, freedOrder);
              model.freed += 1 << freedOrder;
            } else {
              const pfn = m.pageAlloc.tryAllocPages(ctx, order, order % 2 === 0 ? GFP_ATOMIC : GFP_HIGHUSER_MOVABLE);
              if (pfn === NO_PFN) continue;
              live.push([pfn, order]);
              const zone = m.zones.zoneOfPfn(pfn);
              model.pages[zone] = (model.pages[zone] as number) + (1 << order);
              model.hits++;
            }
            expect(now()).toEqual(model);
          }
        },
      ),
      { numRuns: 20 },
    );
  });
});

describe("ZONE-1 the fast mark", () => {
  it("follows the fields that it is made from", () => {
    const m = bootPageLevel();
    const markOf = (): number => m.zones.field(ZONE_NORMAL, Z_FAST_MARK);
    expect(m.zones.field(ZONE_NORMAL, Z_FIRST)).toBe(ZONE_DMA32);
    const before = markOf();
    m.zones.setField(ZONE_DMA32, Z_BOOST, 17);
    expect(markOf()).toBe(before + 17);
    expect(m.zones.check()).toBeNull();
    m.zones.setupMarks(2, 4 * 1024);
    expect(markOf()).toBeGreaterThan(before + 17);
    expect(m.pageAlloc.check()).toBeNull();
  });

  it("a wrong one is reported; where no zone has memory nothing is served", () => {
    const m = bootPageLevel();
    m.machine.port.st32(m.zones.addr(ZONE_NORMAL) + Z_FAST_MARK, 1);
    expect(m.pageAlloc.check()).toContain("ZONE-1");
    for (const zone of [0, 1]) m.zones.setField(zone, Z_MANAGED, 0);
    expect(m.zones.check()).toBeNull();
    expect(m.pageAlloc.tryAllocPages(m.ctx, 0, GFP_KERNEL)).toBe(NO_PFN);
  });
});

it("BUD-8 a word of non-empty orders that is wrong in one bit is reported", () => {
  const m = bootPageLevel();
  const words = m.zones.addr(ZONE_DMA32) + Z_NONEMPTY;
  for (const offset of [0, 4, 8, Z_NONEMPTY_ORDINARY - Z_NONEMPTY]) {
    const sound = m.machine.port.ld32(words + offset);
    m.machine.port.st32(words + offset, sound ^ (1 << 6));
    expect(m.pageAlloc.check()).toContain("BUD-8");
    m.machine.port.st32(words + offset, sound);
  }
  expect(m.pageAlloc.check()).toBeNull();
});

it("PAGE-5 a page that is freed with something in its private word is reported", () => {
  const m = bootPageLevel();
  const pfn = take(m);
  m.pages.setPrivate(asPfn(pfn), 5);
  m.pageAlloc.freePages(m.ctx, pfn, 0);
  expect(m.pageAlloc.check()).toContain("PAGE-5");
});
