/**
 * Compaction: blocks out of pieces, and nobody notices.
 *
 * Goal: COMP-1 … COMP-7, F1, G3, G4. Method: address spaces that keep every n-th page on BoundsPort; requests for large
 * blocks; random fragmentation against the contents that were written; every invariant walk after each step.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { NO_PFN, type Pfn, type PhysAddr } from "../../kernel/types.ts";
import { EBUSY } from "../../kernel/uapi/errno.ts";
import { fragmentationScore } from "../../mm/extfrag.ts";
import { __GFP_NOWARN, GFP_ATOMIC, GFP_HIGHUSER_MOVABLE, GFP_KERNEL } from "../../mm/gfp.ts";
import { Z_NR_FREE, ZONE_DMA32 } from "../../mm/mmzone.ts";
import {
  COMPACT_FAIL,
  COMPACT_MIGRATE_SCANNED,
  COMPACT_STALL,
  COMPACT_SUCCESS,
  KCOMPACTD_WAKE,
  PGMIGRATE_SUCCESS,
} from "../../mm/vmstat.ts";
import { bootCompactionWorld, type CompactionWorld, expectPieces, pieces, va } from "../support/compaction_world.ts";
import { runs } from "../support/runs.ts";

const QUIET = GFP_KERNEL | __GFP_NOWARN;
const every =
  (n: number) =>
  (page: number): boolean =>
    page % n === 0;

/** As many pages as processes get on this machine, rounded down to 64. */
function promised(w: CompactionWorld): number {
  const mm = w.processMemory.createMm(w.ctx);
  let nrPages = 64;
  while (w.processMemory.brk(w.ctx, mm, va(nrPages + 64)) === va(nrPages + 64)) nrPages += 64;
  w.processMemory.mmPut(w.ctx, mm);
  return nrPages;
}

/** Memory in pieces: no block of order 4 or more is left for anybody. */
function fragmented(n = 8): { w: CompactionWorld; mm: PhysAddr; nrPages: number } {
  const w = bootCompactionWorld();
  const nrPages = promised(w);
  const mm = pieces(w, nrPages, 1000, every(n));
  // What the processes did not get is taken, so that what is free is between their pages.
  for (let order = 10; order >= 4; order--) {
    while (w.pageAlloc.tryAllocPages(w.ctx, order, GFP_ATOMIC | __GFP_NOWARN) !== NO_PFN);
  }
  return { w, mm, nrPages };
}

describe("a request for a large block", () => {
  for (const gfp of [QUIET, GFP_HIGHUSER_MOVABLE | __GFP_NOWARN]) {
    it(`G3 order 9 is served by moving pages together, contents stay (gfp ${gfp.toString(16)})`, () => {
      const { w, mm, nrPages } = fragmented();
      expect(w.compaction.score()).toBeGreaterThan(90);
      const pfn = w.pageAlloc.tryAllocPages(w.ctx, 9, gfp);
      expect(pfn).not.toBe(NO_PFN);
      expect(pfn % 512).toBe(0);
      expect(w.vmstat.event(COMPACT_STALL)).toBe(1);
      expect(w.vmstat.event(COMPACT_SUCCESS)).toBe(1);
      expect(w.vmstat.event(PGMIGRATE_SUCCESS)).toBeGreaterThan(0);
      expectPieces(w, mm, nrPages, 1000, every(8));
      w.expectSound();
      expect(w.pageAlloc.freePages(w.ctx, pfn, 9)).toBe(0);
      w.processMemory.mmPut(w.ctx, mm);
      w.expectSound();
    });
  }

  it("the same request fails where nobody compacts, with as much memory free", () => {
    const { w, mm, nrPages } = fragmented();
    w.pageAlloc.onCompact({ direct: () => NO_PFN, wakeDaemon: () => {} });
    expect(w.zones.totalFree()).toBeGreaterThan(2000);
    expect(w.pageAlloc.tryAllocPages(w.ctx, 9, QUIET)).toBe(NO_PFN);
    expectPieces(w, mm, nrPages, 1000, every(8));
  });

  it("one after the other, until the pieces do not add up to a block any more; then all can be had again", () => {
    const { w, mm, nrPages } = fragmented();
    const got: Pfn[] = [];
    for (let misses = 0; misses < 80; ) {
      const pfn = w.pageAlloc.tryAllocPages(w.ctx, 9, QUIET);
      if (pfn === NO_PFN) misses++;
      else got.push(pfn);
      w.expectSound();
    }
    expect(got.length).toBeGreaterThanOrEqual(3);
    expectPieces(w, mm, nrPages, 1000, every(8));
    for (const pfn of got) w.pageAlloc.freePages(w.ctx, pfn, 9);
    w.processMemory.mmPut(w.ctx, mm);
    w.expectSound();
  });

  it("F1 lack of memory is not fragmentation: nothing is scanned", () => {
    const w = bootCompactionWorld();
    const nrPages = promised(w);
    const mm = pieces(w, nrPages, 1, () => true);
    while (w.pageAlloc.tryAllocPages(w.ctx, 3, GFP_ATOMIC | __GFP_NOWARN) !== NO_PFN);
    expect(w.pageAlloc.tryAllocPages(w.ctx, 9, QUIET)).toBe(NO_PFN);
    expect(w.vmstat.event(COMPACT_MIGRATE_SCANNED)).toBe(0);
    expect(w.vmstat.event(COMPACT_STALL)).toBe(0);
    w.processMemory.mmPut(w.ctx, mm);
  });

  it("G2 who may not wait is not made to: kcompactd is asked, and does it", () => {
    const { w, mm, nrPages } = fragmented();
    let woken = 0;
    w.compaction.onWanted(() => woken++);
    expect(w.pageAlloc.tryAllocPages(w.ctx, 9, GFP_ATOMIC | __GFP_NOWARN)).toBe(NO_PFN);
    expect(w.vmstat.event(COMPACT_STALL)).toBe(0);
    expect([woken > 0, w.compaction.hasWork()]).toEqual([true, true]);
    w.compaction.serveDaemon(w.ctx);
    expect(w.compaction.hasWork()).toBe(false);
    expect(w.vmstat.event(KCOMPACTD_WAKE)).toBe(1);
    expect(w.pageAlloc.tryAllocPages(w.ctx, 9, GFP_ATOMIC | __GFP_NOWARN)).not.toBe(NO_PFN);
    expectPieces(w, mm, nrPages, 1000, every(8));
    w.expectSound();
  });
});

describe("deferral", () => {
  it("COMP-6, G4 a scan that brings nothing is repeated after 2, 4, … 64 requests, and a success ends that", () => {
    const { w, mm, nrPages } = fragmented();
    // Every kept page is held: nothing can move.
    const held: Pfn[] = [];
    for (let i = 0; i < nrPages; i += 8) held.push(w.frameOf(mm, va(i)));
    for (const pfn of held) w.pages.setRefcount(pfn, 2);
    const scans: number[] = [];
    let seen = w.vmstat.event(COMPACT_STALL);
    for (let request = 0; request < 300; request++) {
      expect(w.pageAlloc.tryAllocPages(w.ctx, 9, QUIET)).toBe(NO_PFN);
      if (w.vmstat.event(COMPACT_STALL) !== seen) scans.push(request);
      seen = w.vmstat.event(COMPACT_STALL);
    }
    const gaps = scans.slice(1).map((request, i) => request - (scans[i] as number));
    expect(gaps.slice(0, 7)).toEqual([2, 4, 8, 16, 32, 64, 64]);
    expect(w.vmstat.event(COMPACT_FAIL)).toBe(scans.length);
    for (const pfn of held) w.pages.setRefcount(pfn, 1);
    let tries = 0;
    while (w.pageAlloc.tryAllocPages(w.ctx, 9, QUIET) === NO_PFN) expect(++tries).toBeLessThan(65);
    const after = w.vmstat.event(COMPACT_STALL);
    w.pageAlloc.tryAllocPages(w.ctx, 9, QUIET);
    expect(w.vmstat.event(COMPACT_STALL)).toBe(after + 1);
    w.expectSound();
  });
});

describe("proactive", () => {
  it("F1 is wanted above the high mark only, and ends at the low one", () => {
    const { w, mm, nrPages } = fragmented();
    let woken = 0;
    w.compaction.onWanted(() => woken++);
    w.compaction.setProactiveness(0);
    w.compaction.lookAround(1);
    expect(woken).toBe(0);
    w.compaction.setProactiveness(20);
    w.compaction.lookAround(2);
    expect(woken).toBe(1);
    w.compaction.lookAround(3);
    expect(woken).toBe(1);
    w.compaction.serveDaemon(w.ctx);
    expect(w.compaction.score()).toBeLessThanOrEqual(80);
    expectPieces(w, mm, nrPages, 1000, every(8));
    w.compaction.lookAround(1e9);
    expect(woken).toBe(1);
    w.expectSound();
  });

  it("a round that brings nothing makes the next 64 looks pass", () => {
    const { w, mm, nrPages } = fragmented();
    for (let i = 0; i < nrPages; i += 8) w.pages.setRefcount(w.frameOf(mm, va(i)), 2);
    let woken = 0;
    w.compaction.onWanted(() => woken++);
    for (let look = 1; look <= 66; look++) {
      w.compaction.lookAround(look * 1e9);
      if (w.compaction.hasWork()) w.compaction.serveDaemon(w.ctx);
    }
    expect(woken).toBe(2);
    expect(w.vmstat.event(PGMIGRATE_SUCCESS)).toBe(0);
  });

  it("the score is the share of free memory below the order, in percent", () => {
    expect(fragmentationScore([0, 0, 0], 2)).toBe(0);
    expect(fragmentationScore([4, 0, 1], 2)).toBe(50);
    expect(fragmentationScore([3, 0, 0, 3], 1)).toBe(11);
  });
});

describe("the whole zone", () => {
  it("COMP-2 content, rights and the number of free pages stay; free memory ends up in few blocks", () => {
    const { w, mm, nrPages } = fragmented();
    w.pageAlloc.drainAllPages(w.ctx);
    const free = w.zones.totalFree();
    w.compaction.compactAll(w.ctx);
    w.pageAlloc.drainAllPages(w.ctx);
    expect(w.zones.totalFree()).toBe(free);
    expect(w.compaction.score()).toBeLessThan(50);
    expectPieces(w, mm, nrPages, 1000, every(8));
    w.expectSound();
  });

  it("does nothing when there is nothing to do, and twice is as good as once", () => {
    const { w } = fragmented();
    w.compaction.compactAll(w.ctx);
    const moved = w.vmstat.event(PGMIGRATE_SUCCESS);
    const score = w.compaction.score();
    w.compaction.compactAll(w.ctx);
    expect(w.vmstat.event(PGMIGRATE_SUCCESS)).toBe(moved);
    expect(w.compaction.score()).toBe(score);
  });

  it("COMP-1 whichever page refuses to move, the free scanner keeps nothing and no content is lost", () => {
    for (let refused = 1; refused <= 150; refused += 7) {
      let nrTried = 0;
      const w = bootCompactionWorld({ ramBytes: 16 * 2 ** 20 }, (mover) => ({
        ...mover,
        migratePage: (ctx, pfn, target) => (nrTried++ === refused ? -EBUSY : mover.migratePage(ctx, pfn, target)),
      }));
      const mm = pieces(w, 1000, 5, every(3));
      w.compaction.compactAll(w.ctx);
      expect(nrTried).toBeGreaterThan(150);
      w.expectSound();
      expectPieces(w, mm, 1000, 5, every(3));
      w.processMemory.mmPut(w.ctx, mm);
      w.end();
      w.expectNoLeak();
    }
  });
});

describe("pages that processes share after a fork", () => {
  it("COMP-2 move once, with every mapping, and stay shared until somebody writes", () => {
    const w = bootCompactionWorld();
    const nrPages = 1600;
    const parent = pieces(w, nrPages, 1000, every(3));
    const children = [w.processMemory.fork(w.ctx, parent), w.processMemory.fork(w.ctx, parent)];
    expect(children.every((mm) => mm !== 0)).toBe(true);
    w.compaction.compactAll(w.ctx);
    const moved = w.vmstat.event(PGMIGRATE_SUCCESS);
    expect(moved).toBeGreaterThan(100);
    expect(moved).toBeLessThanOrEqual(Math.ceil(nrPages / 3));
    for (const mm of [parent, ...children]) expectPieces(w, mm, nrPages, 1000, every(3));
    for (let i = 0; i < nrPages; i += 3) {
      for (const mm of children) expect(w.frameOf(mm, va(i))).toBe(w.frameOf(parent, va(i)));
    }
    expect(w.poke(0, children[0] as PhysAddr, va(0), 5)).toBe(true);
    expect([w.peek(1, children[0] as PhysAddr, va(0)), w.peek(1, parent, va(0))]).toEqual([5, 1000]);
    w.expectSound();
    for (const mm of [parent, ...children]) w.processMemory.mmPut(w.ctx, mm);
    w.end();
    w.expectNoLeak();
  });
});

describe("random machines", () => {
  it("COMP-2, COMP-4 any fragmentation, any order, in any sequence: contents and invariants hold", () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant("take" as const), order: fc.integer({ min: 1, max: 10 }) }),
      fc.record({ kind: fc.constant("give" as const), which: fc.nat() }),
      fc.record({ kind: fc.constant("whole" as const) }),
      fc.record({ kind: fc.constant("proactive" as const) }),
      fc.record({ kind: fc.constant("drop" as const), from: fc.nat(2000), nr: fc.integer({ min: 1, max: 100 }) }),
      fc.record({ kind: fc.constant("touch" as const), from: fc.nat(2000), nr: fc.integer({ min: 1, max: 100 }) }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 9 }), fc.array(step, { minLength: 1, maxLength: 25 }), (n, steps) => {
        const w = bootCompactionWorld({ ramBytes: 24 * 2 ** 20, port: "bounds" });
        const nrPages = 2000;
        const mm = pieces(w, nrPages, 7, every(n));
        const there = new Set(Array.from({ length: nrPages }, (_, i) => i).filter(every(n)));
        const got: { pfn: Pfn; order: number }[] = [];
        for (const [index, s] of steps.entries()) {
          if (s.kind === "take") {
            const pfn = w.pageAlloc.tryAllocPages(w.ctx, s.order, QUIET);
            if (pfn !== NO_PFN) got.push({ pfn, order: s.order });
          } else if (s.kind === "give" && got.length > 0) {
            const [{ pfn, order }] = got.splice(s.which % got.length, 1) as [{ pfn: Pfn; order: number }];
            expect(w.pageAlloc.freePages(w.ctx, pfn, order)).toBe(0);
          } else if (s.kind === "whole") w.compaction.compactAll(w.ctx);
          else if (s.kind === "proactive") {
            w.compaction.lookAround(index * 1e9);
            w.compaction.serveDaemon(w.ctx);
          } else if (s.kind === "drop" || s.kind === "touch") {
            for (let i = s.from; i < Math.min(nrPages, s.from + s.nr); i++) {
              if (s.kind === "drop") {
                w.processMemory.dropPages(w.ctx, mm, va(i), 4096);
                there.delete(i);
              } else if (w.poke(0, mm, va(i), 7 + i)) there.add(i);
            }
          }
          w.expectSound();
        }
        expectPieces(w, mm, nrPages, 7, (i) => there.has(i));
        for (const { pfn, order } of got) w.pageAlloc.freePages(w.ctx, pfn, order);
        w.processMemory.mmPut(w.ctx, mm);
        w.end();
        w.expectNoLeak();
      }),
      { numRuns: runs(8, 15) },
    );
  });

  it("COMP-2 free pages of zone DMA32 are what they were when a run has ended", () => {
    const { w } = fragmented(3);
    w.pageAlloc.drainAllPages(w.ctx);
    const before = w.zones.field(ZONE_DMA32, Z_NR_FREE);
    for (let i = 0; i < 3; i++) w.compaction.compactAll(w.ctx);
    w.pageAlloc.drainAllPages(w.ctx);
    expect(w.zones.field(ZONE_DMA32, Z_NR_FREE)).toBe(before);
  });
});
