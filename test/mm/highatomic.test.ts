/**
 * The high-order atomic reserve: when it grows, who may use it, how large it gets, and when it is given up.
 *
 * Goal: B10, HIA-1 … HIA-3, and W4 with a reserve. Method: a machine of 256 MiB (smaller ones have no reserve), one
 * zone brought below its low mark with large blocks; then requests of each class.
 */

import { describe, expect, it } from "vitest";
import { asPfn, asPhys, NO_PFN, type Pfn } from "../../kernel/types.ts";
import type { FrameAllocator } from "../../mm/frame_allocator.ts";
import { __GFP_DMA, __GFP_NOMEMALLOC, __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT } from "../../mm/gfp.ts";
import { createHighAtomic, highatomicCap } from "../../mm/highatomic.ts";
import { MIGRATE_HIGHATOMIC, MIGRATE_MOVABLE, MIGRATE_UNMOVABLE } from "../../mm/migratetype.ts";
import {
  WMARK_LOW,
  Z_LOCK,
  Z_MANAGED,
  Z_NR_FREE,
  Z_NR_FREE_HIGHATOMIC,
  Z_NR_RESERVED_HIGHATOMIC,
  ZONE_DMA32,
} from "../../mm/mmzone.ts";
import { bootPageLevel, type PageLevelMachine } from "../support/page_level.ts";

const QUIET_ATOMIC = GFP_ATOMIC | __GFP_NOWARN;
const QUIET_KERNEL = GFP_KERNEL | __GFP_NOWARN;

interface Low extends PageLevelMachine {
  /** Blocks held: [pfn, order]. */
  readonly held: (readonly [Pfn, number])[];
  take(order: number, gfp: number): Pfn;
  reserved(): number;
  freeHighatomic(): number;
  /** HIA-2. */
  checkReserve(): void;
  finish(): void;
}

/** A machine below its low mark: the fast path fails, the slow path still has something. */
function bootLow(): Low {
  const m = bootPageLevel({ ramBytes: 256 * 1024 * 1024, nrCpus: 1, port: "raw" });
  const held: (readonly [Pfn, number])[] = [];
  const take = (order: number, gfp: number): Pfn => {
    const pfn = m.pageAlloc.tryAllocPages(m.ctx, order, gfp);
    if (pfn !== 0) held.push([pfn, order]);
    return pfn;
  };
  const reserved = (): number => m.zones.field(ZONE_DMA32, Z_NR_RESERVED_HIGHATOMIC);
  // ZONE_DMA would help out.
  for (const order of [10, 6, 3, 0]) while (take(order, QUIET_KERNEL | __GFP_DMA) !== 0);
  const low = m.zones.wmark(ZONE_DMA32, WMARK_LOW);
  for (const order of [10, 8, 6, 4]) {
    while (m.zones.field(ZONE_DMA32, Z_NR_FREE) - (1 << order) > low) if (take(order, QUIET_KERNEL) === 0) break;
  }
  while (take(4, GFP_NOWAIT) !== 0 && m.zones.field(ZONE_DMA32, Z_NR_FREE) > low);
  m.pageAlloc.drainAllPages(m.ctx);
  return {
    ...m,
    held,
    take,
    reserved,
    freeHighatomic: () => m.zones.field(ZONE_DMA32, Z_NR_FREE_HIGHATOMIC),
    checkReserve() {
      let nr = 0;
      for (let pfn = 4096; pfn < m.pages.nrFrames; pfn += 512) {
        if (m.pageblocks.migratetype(asPfn(pfn)) === MIGRATE_HIGHATOMIC) nr += 512;
      }
      expect(reserved()).toBe(nr);
      expect(m.pageAlloc.check()).toBeNull();
    },
    finish() {
      for (const [pfn, order] of held) expect(m.pageAlloc.freePages(m.ctx, pfn, order)).toBe(0);
      m.expectNoLeak();
    },
  };
}

describe("B10 the cap", () => {
  it("HIA-1 one percent in whole pageblocks, nothing for a zone whose percent is less than a pageblock", () => {
    expect([0, 51_199, 51_200, 51_300, 102_400, 102_500].map(highatomicCap)).toEqual([0, 0, 512, 1024, 1024, 1536]);
  });

  it("a small machine has no reserve, whatever interrupts ask for", () => {
    const m = bootPageLevel({ ramBytes: 32 * 1024 * 1024, nrCpus: 1 });
    const got: Pfn[] = [];
    for (;;) {
      const pfn = m.pageAlloc.tryAllocPages(m.ctx, 3, QUIET_ATOMIC);
      if (pfn === 0) break;
      got.push(pfn);
    }
    expect(m.zones.field(ZONE_DMA32, Z_NR_RESERVED_HIGHATOMIC)).toBe(0);
    for (const pfn of got) m.pageAlloc.freePages(m.ctx, pfn, 3);
    m.expectNoLeak();
  });
});

describe("B10 reserving and giving up", () => {
  it("HIA-2 HIA-3 an atomic request of order > 0 served below `low` reserves its pageblock, others do not", () => {
    const m = bootLow();
    expect(m.take(0, QUIET_ATOMIC)).not.toBe(0);
    expect(m.take(1, QUIET_KERNEL)).not.toBe(0);
    expect(m.reserved()).toBe(0);
    const pfn = m.take(2, QUIET_ATOMIC);
    expect(pfn).not.toBe(0);
    expect(m.reserved()).toBe(512);
    expect(m.pageblocks.migratetype(pfn)).toBe(MIGRATE_HIGHATOMIC);
    m.pageAlloc.drainAllPages(m.ctx);
    m.checkReserve();
    expect(m.freeHighatomic()).toBeGreaterThan(0);
    // The next one comes from the reserve; a free goes back to it.
    const before = m.freeHighatomic();
    const next = m.take(4, QUIET_ATOMIC);
    expect(m.pageblocks.migratetype(next)).toBe(MIGRATE_HIGHATOMIC);
    expect(m.freeHighatomic()).toBe(before - 16);
    m.held.pop();
    m.pageAlloc.freePages(m.ctx, next, 4);
    m.pageAlloc.drainAllPages(m.ctx);
    expect(m.freeHighatomic()).toBe(before);
    m.checkReserve();
    m.finish();
  });

  it("HIA-1 the reserve never exceeds its cap", () => {
    const m = bootLow();
    const cap = highatomicCap(m.zones.field(ZONE_DMA32, Z_MANAGED));
    let most = 0;
    while (m.take(3, QUIET_ATOMIC) !== 0) most = Math.max(most, m.reserved());
    expect(cap).toBeGreaterThanOrEqual(512);
    expect(most).toBeLessThanOrEqual(cap);
    expect(most).toBeGreaterThan(0);
    m.checkReserve();
    m.finish();
  });

  it("G3 W4 GFP_NOWAIT leaves the reserve alone, a request that may sleep gets it before it fails", () => {
    const m = bootLow();
    m.take(2, QUIET_ATOMIC);
    // Without rights to reserves: for them free pages of the reserve are none, and it stays as it is above min.
    while (m.take(0, GFP_NOWAIT | __GFP_NOMEMALLOC) !== 0);
    m.pageAlloc.drainAllPages(m.ctx);
    expect(m.reserved()).toBe(512);
    const kept = m.freeHighatomic();
    expect(kept).toBeGreaterThan(64);
    let nr = 0;
    while (m.take(0, QUIET_KERNEL) !== 0) nr++;
    expect(nr).toBeGreaterThanOrEqual(kept - 64);
    expect(m.reserved()).toBe(0);
    m.checkReserve();
    m.finish();
  });

  it("keeps one pageblock of a zone unless forced", () => {
    const m = bootPageLevel({ ramBytes: 256 * 1024 * 1024, nrCpus: 1, port: "raw" });
    const highatomic = createHighAtomic(m.spinlocks, m.zones, m.pageblocks, m.frames);
    const block = m.pageAlloc.tryAllocPages(m.ctx, 10, GFP_KERNEL);
    highatomic.reserve(m.ctx, ZONE_DMA32, block, 10);
    expect(m.zones.field(ZONE_DMA32, Z_NR_RESERVED_HIGHATOMIC)).toBe(1024);
    m.pageAlloc.freePages(m.ctx, block, 10);
    expect(m.pageAlloc.check()).toBeNull();
    expect(m.zones.field(ZONE_DMA32, Z_NR_FREE_HIGHATOMIC)).toBe(1024);
    expect(highatomic.unreserve(m.ctx, ZONE_DMA32, MIGRATE_MOVABLE, false)).toBe(true);
    expect(highatomic.unreserve(m.ctx, ZONE_DMA32, MIGRATE_MOVABLE, false)).toBe(false);
    expect(m.zones.field(ZONE_DMA32, Z_NR_FREE_HIGHATOMIC)).toBe(512);
    expect(m.pageAlloc.check()).toBeNull();
    expect(highatomic.unreserve(m.ctx, ZONE_DMA32, MIGRATE_UNMOVABLE, true)).toBe(true);
    expect(highatomic.unreserve(m.ctx, ZONE_DMA32, MIGRATE_UNMOVABLE, true)).toBe(false);
    expect(m.zones.field(ZONE_DMA32, Z_NR_FREE_HIGHATOMIC)).toBe(0);
    m.expectNoLeak();
  });

  it("HIA-1 a block that would lead beyond the cap is reserved as far as the cap, one of a pageblock once", () => {
    const m = bootPageLevel({ ramBytes: 256 * 1024 * 1024, nrCpus: 1, port: "raw" });
    const highatomic = createHighAtomic(m.spinlocks, m.zones, m.pageblocks, m.frames);
    const reserved = (): number => m.zones.field(ZONE_DMA32, Z_NR_RESERVED_HIGHATOMIC);
    const types = (pfn: Pfn): number[] => [0, 512].map((i) => m.pageblocks.migratetype(asPfn(pfn + i)));
    const [a, b] = [0, 0].map(() => m.pageAlloc.tryAllocPages(m.ctx, 10, GFP_KERNEL)) as [Pfn, Pfn];
    const [typeOfA, typeOfB] = [types(a), types(b)];
    highatomic.reserve(m.ctx, ZONE_DMA32, a, 9);
    expect(reserved()).toBe(512);
    expect(types(a)).toEqual([MIGRATE_HIGHATOMIC, typeOfA[1]]);
    expect(highatomicCap(m.zones.field(ZONE_DMA32, Z_MANAGED))).toBe(1024);
    highatomic.reserve(m.ctx, ZONE_DMA32, b, 10);
    expect(reserved()).toBe(1024);
    expect(types(b)).toEqual([MIGRATE_HIGHATOMIC, typeOfB[1]]);
    for (const block of [a, b]) m.pageAlloc.freePages(m.ctx, block, 10);
    while (highatomic.unreserve(m.ctx, ZONE_DMA32, MIGRATE_MOVABLE, true));
    expect(reserved()).toBe(0);
    m.expectNoLeak();
  });

  it("a zone that has no reserve to give, or to get, is not locked", () => {
    const m = bootPageLevel({ ramBytes: 256 * 1024 * 1024, nrCpus: 2, port: "raw" });
    const highatomic = createHighAtomic(m.spinlocks, m.zones, m.pageblocks, m.frames);
    const lock = asPhys(m.zones.addr(ZONE_DMA32) + Z_LOCK);
    const block = m.pageAlloc.tryAllocPages(m.ctx, 10, GFP_KERNEL);
    const onCpu1 = m.contexts.taskContext(1);
    m.spinlocks.spinLock(onCpu1, lock);
    // The test can fail: a CPU that comes for this lock would wait for ever.
    expect(() => highatomic.reserve(m.ctx, ZONE_DMA32, block, 10)).toThrow("spinlock: lockup");
    m.contexts.preemptEnable(m.ctx);
    m.machine.harts.irqOn[0] = 1;
    for (const force of [false, true]) {
      expect(highatomic.unreserve(m.ctx, ZONE_DMA32, MIGRATE_MOVABLE, force)).toBe(false);
    }
    m.spinlocks.spinUnlock(onCpu1, lock);
    highatomic.reserve(m.ctx, ZONE_DMA32, block, 10);
    m.spinlocks.spinLock(onCpu1, lock);
    highatomic.reserve(m.ctx, ZONE_DMA32, block, 10);
    m.spinlocks.spinUnlock(onCpu1, lock);
    m.pageAlloc.freePages(m.ctx, block, 10);
    while (highatomic.unreserve(m.ctx, ZONE_DMA32, MIGRATE_MOVABLE, true));
    m.expectNoLeak();
  });

  it("HIA-2 a reserve that is all in use is not given up; a lower zone's is, down to the lowest", () => {
    const m = bootPageLevel({ ramBytes: 256 * 1024 * 1024, nrCpus: 1, port: "raw" });
    const highatomic = createHighAtomic(m.spinlocks, m.zones, m.pageblocks, m.frames);
    const reserved = (): number[] => [0, 1].map((zone) => m.zones.field(zone, Z_NR_RESERVED_HIGHATOMIC));
    const block = m.pageAlloc.tryAllocPages(m.ctx, 10, GFP_KERNEL);
    highatomic.reserve(m.ctx, ZONE_DMA32, block, 10);
    expect(highatomic.unreserve(m.ctx, ZONE_DMA32, MIGRATE_MOVABLE, true)).toBe(false);
    expect(reserved()).toEqual([0, 1024]);
    // A pageblock of ZONE_DMA, whose percent is less than that: as if it were larger.
    const frames = m.frames[0] as FrameAllocator;
    expect(frames.retype(asPfn(1024), MIGRATE_HIGHATOMIC)).toBe(true);
    m.zones.setField(0, Z_NR_RESERVED_HIGHATOMIC, 512);
    expect(highatomic.unreserve(m.ctx, ZONE_DMA32, MIGRATE_MOVABLE, false)).toBe(false);
    expect(highatomic.unreserve(m.ctx, ZONE_DMA32, MIGRATE_MOVABLE, true)).toBe(true);
    expect(reserved()).toEqual([0, 1024]);
    expect(frames.firstFree(MIGRATE_HIGHATOMIC)).toBe(NO_PFN);
    m.pageAlloc.freePages(m.ctx, block, 10);
    while (highatomic.unreserve(m.ctx, ZONE_DMA32, MIGRATE_MOVABLE, true));
    m.expectNoLeak();
  });
});
