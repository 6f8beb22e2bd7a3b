/**
 * The page allocator over real zones: watermarks, zones, per-CPU lists, bad frees, and the formulas W1-W3, W7.
 *
 * Goal: PGA-1 … PGA-4, PCP-1 … PCP-4 and W1 … W9. Method: a machine booted to its page allocator on BoundsPort.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asPfn, type Pfn } from "../../kernel/types.ts";
import { EINVAL } from "../../kernel/uapi/errno.ts";
import { __GFP_DMA, __GFP_ZERO, GFP_ATOMIC, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_NOWAIT } from "../../mm/gfp.ts";
import {
  gfpZone,
  lowmemReserves,
  minFreeKbytes,
  WMARK_MIN,
  Z_NR_FREE,
  ZONE_DMA,
  ZONE_DMA32,
  ZONE_MOVABLE,
  ZONE_NORMAL,
  zoneBatchsize,
  zoneHighsize,
  zoneWatermarks,
} from "../../mm/mmzone.ts";
import { PCP_HELD } from "../../mm/pcp_layout.ts";
import { bootPageLevel } from "../support/page_level.ts";

const MIB = 1024 * 1024;

describe("formulas of a recorded machine", () => {
  // A machine of 128 MiB: 3,840 pages managed in DMA and 16,384 in DMA32 when the marks were set.
  it("W1 min_free_kbytes", () => {
    expect(minFreeKbytes(4 * (3840 + 16_380))).toBe(1137);
    expect(minFreeKbytes(1)).toBe(128);
    expect(minFreeKbytes(2 ** 33)).toBe(262_144);
  });
  it("W2 watermarks", () => {
    const lowmem = 3840 + 16_380;
    expect(zoneWatermarks(ZONE_DMA, 3840, lowmem, 1137 >>> 2)).toEqual({ min: 53, low: 66, high: 79, promo: 92 });
    expect(zoneWatermarks(ZONE_DMA32, 16_380, lowmem, 1137 >>> 2)).toEqual({
      min: 230,
      low: 287,
      high: 344,
      promo: 401,
    });
    expect(zoneWatermarks(ZONE_MOVABLE, 0, lowmem, 284).min).toBe(32);
  });
  it("W3 lowmem_reserve", () => {
    expect(lowmemReserves([3840, 16_380, 0, 0])[0]).toEqual([0, 63, 63, 63, 63]);
    expect(lowmemReserves([3840, 16_380, 0, 0])[1]).toEqual([0, 0, 0, 0, 0]);
  });
  it("W7 batch and high of per-CPU lists", () => {
    expect([3840, 18_477, 262_144, 4_000_000].map(zoneBatchsize)).toEqual([1, 3, 63, 63]);
    expect(zoneHighsize(262_144, 1000, 63, 2)).toEqual({ min: 500, max: 16_384 });
  });
  it("W6 zone modifiers", () => {
    expect([0, 1, 2, 4, 8, 9, 10, 12].map(gfpZone)).toEqual([
      ZONE_NORMAL,
      ZONE_DMA,
      ZONE_NORMAL,
      ZONE_DMA32,
      ZONE_NORMAL,
      ZONE_DMA,
      ZONE_MOVABLE,
      ZONE_DMA32,
    ]);
    expect([3, 5, 6, 7, 11, 13, 14, 15].map(gfpZone)).toEqual(new Array(8).fill(-1));
  });
});

describe("allocation", () => {
  it("PGA-1 GFP_DMA is served from the first 16 MiB or not at all", () => {
    const m = bootPageLevel();
    const got: Pfn[] = [];
    for (;;) {
      const pfn = m.pageAlloc.tryAllocPages(m.ctx, 0, GFP_KERNEL | __GFP_DMA);
      if (pfn === 0) break;
      expect(pfn).toBeLessThan(4096);
      got.push(pfn);
    }
    expect(m.zones.field(ZONE_DMA32, Z_NR_FREE)).toBeGreaterThan(1000);
    for (const pfn of got) expect(m.pageAlloc.freePages(m.ctx, pfn, 0)).toBe(0);
    m.expectNoLeak();
  });

  it("PGA-2 W4 ordinary requests stop above min, GFP_ATOMIC goes deeper, __GFP_MEMALLOC to the end", () => {
    const m = bootPageLevel();
    const got: Pfn[] = [];
    const exhaust = (gfp: number): number => {
      for (;;) {
        const pfn = m.pageAlloc.tryAllocPages(m.ctx, 0, gfp);
        if (pfn === 0) break;
        got.push(pfn);
      }
      m.pageAlloc.drainAllPages(m.ctx);
      return m.zones.field(ZONE_DMA32, Z_NR_FREE);
    };
    const min = m.zones.wmark(ZONE_DMA32, WMARK_MIN);
    const afterKernel = exhaust(GFP_KERNEL);
    const afterAtomic = exhaust(GFP_ATOMIC);
    expect(afterKernel).toBeGreaterThanOrEqual(min);
    expect(afterAtomic).toBeLessThan(afterKernel);
    expect(afterAtomic).toBeGreaterThan(0);
    expect(exhaust(GFP_ATOMIC | 0x2_0000)).toBe(0);
    for (const pfn of got) expect(m.pageAlloc.freePages(m.ctx, pfn, 0)).toBe(0);
    m.expectNoLeak();
  });

  it("PGA-3 G2 a blocking mask under a spinlock is reported even though memory is plenty", () => {
    const m = bootPageLevel();
    m.contexts.preemptDisable(m.ctx);
    const pfn = m.pageAlloc.allocPages(m.ctx, 0, GFP_KERNEL) as Pfn;
    m.contexts.preemptEnable(m.ctx);
    expect(m.log()).toContain("BUG: sleeping function called from invalid context at mm/page_alloc.ts:allocPages");
    expect(m.log()).toContain("in_atomic(): 1, irqs_disabled(): 0, non_block: 0, pid: 0, name: swapper");
    expect(m.log()).toContain("preempt_count: 1, expected: 0");
    m.pageAlloc.freePages(m.ctx, pfn, 0);
    m.expectNoLeak();
  });

  it("C4 a failure prints the splat with the mask by name, and not with __GFP_NOWARN", () => {
    const m = bootPageLevel();
    const got: Pfn[] = [];
    for (let pfn = 1 as Pfn; pfn !== 0; ) {
      pfn = m.pageAlloc.allocPages(m.ctx, 10, GFP_NOWAIT);
      if (pfn !== 0) got.push(pfn);
    }
    expect(m.log()).not.toContain("page allocation failure");
    expect(m.pageAlloc.allocPages(m.ctx, 10, GFP_KERNEL)).toBe(0);
    expect(m.log()).toContain("swapper: page allocation failure: order:10, mode:0xcc0(GFP_KERNEL), nodemask=(null)");
    expect(m.log()).toContain("Mem-Info:");
    for (const pfn of got) m.pageAlloc.freePages(m.ctx, pfn, 10);
    m.expectNoLeak();
  });

  it("__GFP_ZERO clears all pages of a block", () => {
    const m = bootPageLevel();
    const dirty = m.pageAlloc.tryAllocPages(m.ctx, 3, GFP_KERNEL);
    m.machine.port.fill(dirty * 4096, 0xaa, 8 * 4096);
    m.pageAlloc.freePages(m.ctx, dirty, 3);
    const clean = m.pageAlloc.tryAllocPages(m.ctx, 3, GFP_KERNEL | __GFP_ZERO);
    expect(m.machine.port.readBytes(clean * 4096, 8 * 4096).every((byte) => byte === 0)).toBe(true);
    m.pageAlloc.freePages(m.ctx, clean, 3);
    m.expectNoLeak();
  });

  it("zones: dma32_limit makes a Normal zone, movablecore a Movable one that only movable pages use", () => {
    const m = bootPageLevel({ ramBytes: 64 * MIB, dma32LimitBytes: 32 * MIB, movableBytes: 16 * MIB });
    const kernel = m.pageAlloc.tryAllocPages(m.ctx, 0, GFP_KERNEL);
    const user = m.pageAlloc.tryAllocPages(m.ctx, 0, GFP_HIGHUSER_MOVABLE);
    expect(m.zones.zoneOfPfn(kernel)).toBe(ZONE_NORMAL);
    expect(m.zones.zoneOfPfn(user)).toBe(ZONE_MOVABLE);
    m.pageAlloc.freePages(m.ctx, kernel, 0);
    m.pageAlloc.freePages(m.ctx, user, 0);
    m.expectNoLeak();
  });
});

describe("bad frees are refused and reported", () => {
  const cases: Readonly<Record<string, (m: ReturnType<typeof bootPageLevel>, pfn: Pfn) => readonly [number, number]>> =
    {
      "double free": (m, pfn) => [pfn + m.pageAlloc.freePages(m.ctx, pfn, 2), 2],
      "interior free": (_, pfn) => [pfn + 1, 0],
      "wrong order": (_, pfn) => [pfn, 1],
      "free of a free page": (m) => [m.zones.field(ZONE_DMA32, 4) + 100, 0],
      "frame 0": () => [0, 0],
      "kernel image": () => [256, 0],
      "outside memory": () => [2 ** 22, 0],
      negative: () => [-1, 0],
      "a fraction": () => [5000.5, 0],
      "not a number": () => [Number.NaN, 0],
    };
  for (const [name, prepare] of Object.entries(cases)) {
    it(name, () => {
      const m = bootPageLevel();
      const block = m.pageAlloc.tryAllocPages(m.ctx, 2, GFP_KERNEL);
      const [pfn, order] = prepare(m, block);
      expect(m.pageAlloc.freePages(m.ctx, pfn as Pfn, order)).toBe(-EINVAL);
      expect(m.log()).toContain("BUG: Bad page state in process swapper");
      expect(m.pageAlloc.nrBadFrees()).toBe(1);
      if (name !== "double free") expect(m.pageAlloc.freePages(m.ctx, block, 2)).toBe(0);
      m.expectNoLeak();
    });
  }
});

describe("per-CPU lists", () => {
  it("W9 pages on them are not in NR_FREE_PAGES, and draining brings them back (PCP-4)", () => {
    const m = bootPageLevel();
    const before = m.zones.totalFree();
    const pfn = m.pageAlloc.tryAllocPages(m.ctx, 0, GFP_KERNEL);
    const held = m.pcp.info(0, ZONE_DMA32).count;
    expect(m.zones.totalFree()).toBe(before - 1 - held);
    m.pageAlloc.freePages(m.ctx, pfn, 0);
    expect(m.pcp.info(0, ZONE_DMA32).count).toBe(held + 1);
    m.expectNoLeak();
  });

  it("an interrupt that finds its CPU's lists busy takes from the buddy instead", () => {
    const m = bootPageLevel();
    const irq = m.contexts.irqContext(0);
    const first = m.pageAlloc.tryAllocPages(m.ctx, 0, GFP_KERNEL);
    const before = m.pcp.info(0, ZONE_DMA32).count;
    // Hold the lists, as an interrupted holder on this CPU would.
    const atRest = m.machine.port.ld32(m.pcp.lockAddr(0, ZONE_DMA32));
    m.machine.port.st32(m.pcp.lockAddr(0, ZONE_DMA32), PCP_HELD);
    const fromIrq = m.pageAlloc.tryAllocPages(irq, 0, GFP_ATOMIC);
    expect(fromIrq).not.toBe(0);
    expect(m.pageAlloc.freePages(irq, fromIrq, 0)).toBe(0);
    m.machine.port.st32(m.pcp.lockAddr(0, ZONE_DMA32), atRest);
    expect(m.pcp.info(0, ZONE_DMA32).count).toBe(before);
    m.pageAlloc.freePages(m.ctx, first, 0);
    m.expectNoLeak();
  });

  it("invariants hold under random traffic on four CPUs; nothing is lost", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(3), fc.nat(5), fc.nat(9)), { maxLength: 300 }), (steps) => {
        const m = bootPageLevel({ nrCpus: 4, ramBytes: 24 * MIB });
        const live: (readonly [Pfn, number])[] = [];
        for (const [cpu, order, action] of steps) {
          const ctx = m.contexts.taskContext(cpu);
          if (action < 5 || live.length === 0) {
            const pfn = m.pageAlloc.tryAllocPages(ctx, order, action % 2 === 0 ? GFP_KERNEL : GFP_HIGHUSER_MOVABLE);
            if (pfn !== 0) live.push([pfn, order]);
          } else {
            const [pfn, freed] = live.splice((action * 7) % live.length, 1)[0] as readonly [Pfn, number];
            expect(m.pageAlloc.freePages(ctx, pfn, freed)).toBe(0);
          }
        }
        expect(m.pageAlloc.check()).toBeNull();
        for (const [pfn, order] of live) m.pageAlloc.freePages(m.ctx, pfn, order);
        m.expectNoLeak();
      }),
      { numRuns: 15 },
    );
  });
});

describe("contiguous ranges", () => {
  it("allocContigRange takes free frames and gives them back one by one", () => {
    const m = bootPageLevel();
    const start = 6000;
    expect(m.pageAlloc.allocContigRange(m.ctx, asPfn(start), asPfn(start + 777))).toBe(0);
    for (let pfn = start; pfn < start + 777; pfn++) expect(m.pageAlloc.freePages(m.ctx, asPfn(pfn), 0)).toBe(0);
    m.expectNoLeak();
  });
});
