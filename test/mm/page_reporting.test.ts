/**
 * Free page reporting over the buddies.
 *
 * Goal: RPT-1 … RPT-4. Method: random allocations and frees on a machine of 32 MiB, with a host that keeps its own book
 * of what it was told. A walk over the frames says which free blocks of a pageblock and more are marked; what was handed
 * out since it was reported has to be reported again.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asPfn, asPhys, NO_PFN, type Pfn } from "../../kernel/types.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER, Z_LOCK } from "../../mm/mmzone.ts";
import { orderOfFlags, PG_BUDDY, PG_REPORTED, zoneOfFlags } from "../../mm/page.ts";
import { createPageReporting, PAGE_REPORTING_CAPACITY, type ReportBlocks } from "../../mm/page_reporting.ts";
import { bootPageLevel } from "../support/page_level.ts";

function world(ramBytes = 32 << 20) {
  const w = bootPageLevel({ ramBytes });
  const reporting = createPageReporting(w);
  const reports: [first: number, order: number][] = [];
  let [isHostThere, nrHeard, nrBatches] = [true, 0, 0];
  reporting.onFree(() => nrHeard++);
  const tell: ReportBlocks = (_ctx, frames, orders, nr) => {
    if (!isHostThere) return false;
    expect([nr > 0, nr <= PAGE_REPORTING_CAPACITY]).toEqual([true, true]);
    nrBatches++;
    for (let i = 0; i < nr; i++) {
      const [first, order] = [frames[i] as number, orders[i] as number];
      // RPT-1
      const flags = w.pages.flags(asPfn(first));
      expect([(flags & PG_BUDDY) !== 0, orderOfFlags(flags), order >= PAGEBLOCK_ORDER]).toEqual([true, order, true]);
      // The zone cannot change meanwhile.
      expect(w.machine.port.ld32(asPhys(w.zones.addr(zoneOfFlags(flags)) + Z_LOCK))).not.toBe(0);
      reports.push([first, order]);
    }
    return true;
  };
  /** A pass; the frames reported. */
  const reportAll = (): number => {
    let sum = 0;
    for (let from = 0; from >= 0; ) {
      const { next, nrFrames } = reporting.reportSome(w.ctx, from, tell);
      sum += nrFrames;
      from = next;
    }
    return sum;
  };
  /** Frames of free blocks of a pageblock and more: all, and those that are marked. */
  const large = (): { all: number; marked: number } => {
    const nr = { all: 0, marked: 0 };
    for (let pfn = 0; pfn < w.pages.nrFrames; pfn += PAGEBLOCK_NR_PAGES) {
      const flags = w.pages.flags(asPfn(pfn));
      if ((flags & PG_BUDDY) === 0 || orderOfFlags(flags) < PAGEBLOCK_ORDER) continue;
      nr.all += 1 << orderOfFlags(flags);
      if ((flags & PG_REPORTED) !== 0) nr.marked += 1 << orderOfFlags(flags);
    }
    return nr;
  };
  /** Frames of large free blocks that are not in `thrown`. */
  const newsOf = (thrown: ReadonlySet<number>): number => {
    let nr = 0;
    for (let pfn = 0; pfn < w.pages.nrFrames; pfn += PAGEBLOCK_NR_PAGES) {
      const flags = w.pages.flags(asPfn(pfn));
      if ((flags & PG_BUDDY) === 0 || orderOfFlags(flags) < PAGEBLOCK_ORDER) continue;
      for (let i = 0; i < 1 << orderOfFlags(flags); i++) if (!thrown.has(pfn + i)) nr++;
    }
    return nr;
  };
  const setHost = (isThere: boolean): void => {
    isHostThere = isThere;
  };
  return {
    w,
    reporting,
    reports,
    reportAll,
    large,
    newsOf,
    setHost,
    nrHeard: () => nrHeard,
    nrBatches: () => nrBatches,
  };
}

describe("free page reporting", () => {
  it("RPT-1 RPT-2 everything large that is free is reported, once", () => {
    // One zone; two, with more blocks than one report holds.
    for (const [mib, nrReports] of [[16, 1] as const, [256, 3] as const]) {
      const { w, reports, reportAll, large, nrBatches } = world(mib << 20);
      const { all } = large();
      expect(all).toBeGreaterThan(mib * 180);
      expect(reportAll()).toBe(all);
      expect(nrBatches()).toBe(nrReports);
      expect(large()).toEqual({ all, marked: all });
      expect(reports.reduce((sum, [, order]) => sum + 2 ** order, 0)).toBe(all);
      expect(new Set(reports.map(([first]) => first)).size).toBe(reports.length);
      expect(reportAll()).toBe(0);
      w.expectNoLeak();
    }
  });

  it("RPT-2 RPT-3 who takes a page and gives it back makes its block news, and is heard of", () => {
    const { w, reportAll, large, nrHeard } = world();
    reportAll();
    const heard = nrHeard();
    const pfn = w.pageAlloc.tryAllocPages(w.ctx, PAGEBLOCK_ORDER, GFP_KERNEL);
    const rest = large();
    expect(rest.all - rest.marked).toBe(PAGEBLOCK_NR_PAGES);
    w.pageAlloc.freePages(w.ctx, pfn, PAGEBLOCK_ORDER);
    expect(nrHeard()).toBe(heard + 1);
    // It has merged with its buddy.
    expect(reportAll()).toBe(2 * PAGEBLOCK_NR_PAGES);
    expect(large().marked).toBe(large().all);
  });

  it("RPT-4 a host that is gone has been told nothing", () => {
    const { reportAll, large, setHost } = world();
    setHost(false);
    expect([reportAll(), large().marked]).toEqual([0, 0]);
    setHost(true);
    expect(reportAll()).toBe(large().all);
  });

  it("RPT-1 … RPT-3 random requests: the mark is on what the host was told of and nobody has had since", () => {
    const step = fc.record({
      kind: fc.constantFrom("alloc", "alloc", "free", "free", "report", "drain"),
      order: fc.integer({ min: 0, max: 10 }),
      pick: fc.nat(1000),
    });
    fc.assert(
      fc.property(fc.array(step, { minLength: 10, maxLength: 80 }), (steps) => {
        const { w, reports, reportAll, newsOf, nrHeard } = world();
        const out: [Pfn, number][] = [];
        /** The host's book: frames that it threw away and that nobody was given since. */
        const thrown = new Set<number>();
        let heard = nrHeard();
        for (const { kind, order, pick } of steps) {
          if (kind === "alloc") {
            const pfn = w.pageAlloc.tryAllocPages(w.ctx, order, GFP_KERNEL);
            if (pfn !== NO_PFN) out.push([pfn, order]);
            for (let i = 0; pfn !== NO_PFN && i < 1 << order; i++) thrown.delete(pfn + i);
          } else if (kind === "free" && out.length > 0) {
            const [[pfn, had]] = out.splice(pick % out.length, 1) as [[Pfn, number]];
            w.pageAlloc.freePages(w.ctx, pfn, had);
          } else if (kind === "drain") w.pageAlloc.drainAllPages(w.ctx);
          else if (kind === "report") {
            const before = reports.length;
            reportAll();
            for (const [first, had] of reports.slice(before)) {
              for (let i = 0; i < 1 << had; i++) thrown.add(first + i);
            }
            heard = nrHeard();
          }
          // RPT-3: what the host does not know became free since the last pass. (Half of a block that was cut it knows.)
          if (newsOf(thrown) > 0) expect(nrHeard() > heard || reports.length === 0).toBe(true);
          for (const [pfn, had] of out) {
            for (let i = 0; i < 1 << had; i += 64) expect(thrown.has(pfn + i)).toBe(false);
          }
          for (let pfn = 0; pfn < w.pages.nrFrames; pfn += PAGEBLOCK_NR_PAGES) {
            const isMarked = (w.pages.flags(asPfn(pfn)) & (PG_BUDDY | PG_REPORTED)) === (PG_BUDDY | PG_REPORTED);
            if (isMarked) expect(thrown.has(pfn)).toBe(true);
          }
        }
        for (const [pfn, order] of out) w.pageAlloc.freePages(w.ctx, pfn, order);
        w.expectNoLeak();
      }),
      { numRuns: 60 },
    );
  });
});
