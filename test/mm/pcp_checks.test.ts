/**
 * Per-CPU page lists: check() can fail, a drain says how much it moved, counters are what was asked for.
 *
 * Goal: PCP-1, PCP-2, PCP-5, W7. Method: a page in a list, one link, flag or state word overwritten, check() read, the
 * old value put back; then exact numbers of requests on each CPU.
 */

import { describe, expect, it } from "vitest";
import { NO_PFN, type Pfn, physAdd } from "../../kernel/types.ts";
import { __GFP_DMA, GFP_ATOMIC } from "../../mm/gfp.ts";
import { ZONE_DMA, ZONE_DMA32 } from "../../mm/mmzone.ts";
import { PAGE_NEXT } from "../../mm/page.ts";
import { NUMA_HIT, PCP_BUSY, PGALLOC_DMA, PGFREE } from "../../mm/vmstat.ts";
import { bootPageLevel, type PageLevelMachine } from "../support/page_level.ts";

const boot = (): PageLevelMachine => bootPageLevel({ ramBytes: 32 * 1024 * 1024, nrCpus: 2 });
const take = (m: PageLevelMachine, cpu: number, order: number, gfp = GFP_ATOMIC as number): Pfn => {
  const pfn = m.pageAlloc.tryAllocPages(m.contexts.taskContext(cpu), order, gfp);
  expect(pfn).not.toBe(NO_PFN);
  return pfn;
};
const give = (m: PageLevelMachine, cpu: number, pfn: Pfn, order: number): void =>
  expect(m.pageAlloc.freePages(m.contexts.taskContext(cpu), pfn, order)).toBe(0);

/** A frame in the lists of a CPU and zone: one that was just freed there. */
function kept(cpu: number, order: number, gfp = GFP_ATOMIC as number): { m: PageLevelMachine; pfn: Pfn } {
  const m = boot();
  const pfn = take(m, cpu, order, gfp);
  give(m, cpu, pfn, order);
  expect(m.pcp.check()).toBeNull();
  return { m, pfn };
}
function withWord(m: PageLevelMachine, addr: number, change: (before: number) => number): string | null {
  const { port } = m.machine;
  const before = port.ld32(addr);
  port.st32(addr, change(before) >>> 0);
  const fault = m.pcp.check();
  port.st32(addr, before);
  expect(m.pcp.check()).toBeNull();
  return fault;
}

describe("check() of the per-CPU lists", () => {
  for (const [cpu, zone, gfp] of [
    [0, ZONE_DMA32, GFP_ATOMIC],
    [1, ZONE_DMA32, GFP_ATOMIC],
    [1, ZONE_DMA, GFP_ATOMIC | __GFP_DMA],
  ] as const) {
    it(`PCP-1 PCP-2 PCP-5 CPU ${cpu}, zone ${zone}: a link, each part of a frame's flags, the stock, the holder`, () => {
      for (const order of [0, 2]) {
        const { m, pfn } = kept(cpu, order, gfp);
        const row = m.pages.rowAt(pfn);
        const where = `CPU ${cpu} zone ${zone}`;
        const broken = withWord(m, row + PAGE_NEXT, (next) => next + 1);
        expect(broken).toMatch(new RegExp(`^PCP-1: list \\d+ of ${where} has broken links$`));
        const flags = m.pages.flags(pfn);
        // The bits of the state, the order and the zone; the others may be what they are.
        const noticed = Array.from({ length: 32 }, (_, bit) => {
          const fault = withWord(m, row, (old) => old ^ (2 ** bit));
          if (fault !== null)
            expect(fault).toBe(`PCP-2: frame ${pfn} has flags 0x${((flags ^ (2 ** bit)) >>> 0).toString(16)}`);
          return fault === null ? [] : [bit];
        }).flat();
        expect(noticed).toEqual([0, 1, 2, 3, 16, 17, 18, 19, 28, 29, 30]);
        const word = m.pcp.lockAddr(cpu, zone);
        const { count } = m.pcp.info(cpu, zone);
        expect(count).toBeGreaterThan(0);
        for (const by of [1, -1]) {
          const said = `PCP-1: ${where} holds ${count} pages, its stock says ${count + by}`;
          expect(withWord(m, word, (old) => old + by)).toBe(said);
        }
        for (const holder of [0, 1]) {
          const said = `PCP-5: the lists of ${where} are held by CPU ${holder}`;
          expect(withWord(m, word, () => 0xfff0_0000 + holder)).toBe(said);
        }
      }
    });
  }
});

describe("a drain", () => {
  it("W7 says how many pages it moved, and leaves lists that another CPU holds", () => {
    const m = boot();
    const held = [take(m, 0, 0), take(m, 0, 2), take(m, 0, 0, GFP_ATOMIC | __GFP_DMA)] as const;
    give(m, 0, held[0], 0);
    give(m, 0, held[1], 2);
    give(m, 0, held[2], 0);
    const stock = (cpu: number): number => [0, 1, 2].reduce((sum, zone) => sum + m.pcp.info(cpu, zone).count, 0);
    const before = stock(0);
    expect(before).toBeGreaterThanOrEqual(1 + 4 + 1);
    const free = m.zones.totalFree();
    const word = m.pcp.lockAddr(0, ZONE_DMA32);
    const { port } = m.machine;
    const state = port.ld32(word);
    const inDma32 = m.pcp.info(0, ZONE_DMA32).count;
    // Held by CPU 1 there is still something elsewhere; then held by CPU 0.
    for (const [holder, moved] of [
      [1, before - inDma32],
      [0, 0],
    ] as const) {
      port.st32(word, 0xfff0_0000 + holder);
      expect(m.pcp.info(0, ZONE_DMA32).count).toBe(0);
      expect(m.pcp.drainCpu(m.ctx, 0)).toBe(moved);
    }
    expect(m.vmstat.event(PCP_BUSY)).toBe(2);
    port.st32(word, state);
    expect(m.pcp.drainCpu(m.ctx, 0)).toBe(inDma32);
    expect([stock(0), m.pcp.drainCpu(m.ctx, 0), m.vmstat.event(PCP_BUSY)]).toEqual([0, 0, 2]);
    expect(m.zones.totalFree() - free).toBe(before);
    expect(m.pcp.check()).toBeNull();
    m.expectNoLeak();
  });

  it("W7 lists that another CPU takes between the look and the swap are left, and counted", () => {
    const { m } = kept(0, 0);
    const { port } = m.machine;
    const { cas } = port;
    const word = m.pcp.lockAddr(0, ZONE_DMA32);
    const wanted: number[] = [];
    port.cas = (addr, expected, desired) => {
      if (addr !== word) return cas.call(port, addr, expected, desired);
      wanted.push(desired);
      return 0xfff0_0001;
    };
    expect([m.pcp.drainCpu(m.contexts.taskContext(1), 0), m.vmstat.event(PCP_BUSY)]).toEqual([0, 1]);
    port.cas = cas;
    expect(wanted).toEqual([0xfff0_0001]);
    expect(m.pcp.drainCpu(m.ctx, 0)).toBeGreaterThan(0);
    m.expectNoLeak();
  });
});

describe("counters", () => {
  it("NUMA_HIT counts requests, PGALLOC of each zone and PGFREE pages, of all CPUs", () => {
    const m = boot();
    const events = (): number[] =>
      [NUMA_HIT, PGALLOC_DMA, PGALLOC_DMA + 1, PGALLOC_DMA + 2, PGFREE].map(m.vmstat.event);
    const before = events();
    const since = (): number[] => events().map((now, i) => now - (before[i] as number));
    const pages = [take(m, 0, 0), take(m, 1, 0), take(m, 1, 3), take(m, 0, 2), take(m, 0, 1, GFP_ATOMIC | __GFP_DMA)];
    expect(since()).toEqual([5, 2, 1 + 1 + 8 + 4, 0, 0]);
    [0, 0, 3, 2, 1].forEach((order, i) => {
      give(m, i % 2, pages[i] as Pfn, order);
    });
    expect(since()).toEqual([5, 2, 14, 0, 16]);
    m.expectNoLeak();
  });

  it("info() is stock, high mark and batch, and nothing but the stock changes with a page", () => {
    const m = boot();
    const pfn = take(m, 0, 0);
    const before = m.pcp.info(0, ZONE_DMA32);
    give(m, 0, pfn, 0);
    const after = m.pcp.info(0, ZONE_DMA32);
    expect([after.count - before.count, after.batch === before.batch, after.batch > 0]).toEqual([1, true, true]);
    expect(after.high).toBe(m.machine.port.ld32(physAdd(m.pcp.lockAddr(0, ZONE_DMA32), 4)));
    expect(m.pcp.info(1, ZONE_DMA32).count).toBe(0);
  });
});
