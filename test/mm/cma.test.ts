/**
 * The contiguous area: who may borrow there, how it is emptied, what happens when it cannot be.
 *
 * Goal: CMA-1 … CMA-5, B3, B9 (CMA step), W4 for requests that may not use it. Method: a machine with an area on
 * BoundsPort; borrowed by address spaces, pinned by the test; random grants and releases against a map of owners.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { USER_HEAP_BASE } from "../../kernel/params.ts";
import { asPfn, NO_PFN, type Pfn, type PhysAddr } from "../../kernel/types.ts";
import { EINVAL } from "../../kernel/uapi/errno.ts";
import { GFP_ATOMIC, GFP_HIGHUSER_MOVABLE, GFP_KERNEL } from "../../mm/gfp.ts";
import { MIGRATE_CMA } from "../../mm/migratetype.ts";
import { MAX_PAGE_ORDER, WMARK_MIN, Z_NR_FREE, Z_NR_FREE_CMA, ZONE_DMA32 } from "../../mm/mmzone.ts";
import { CMA_ALLOC_FAIL, CMA_ALLOC_SUCCESS, NR_CMA_USED, PGMIGRATE_SUCCESS } from "../../mm/vmstat.ts";
import { bootPageLevel } from "../support/page_level.ts";
import { bootProcessWorld, type ProcessWorld } from "../support/process_world.ts";

const MIB = 2 ** 20;
const PAGE = 4096;
const va = (page: number): number => USER_HEAP_BASE + page * PAGE;

/** Fills memory with address spaces of `pagesEach` until `stop` says so; word 0 of each page tells which it is. */
function borrow(w: ProcessWorld, nrMms: number, pagesEach: number): readonly PhysAddr[] {
  return Array.from({ length: nrMms }, (_, k) => {
    const mm = w.processMemory.createMm(w.ctx);
    expect(w.processMemory.brk(w.ctx, mm, va(pagesEach))).toBe(va(pagesEach));
    for (let i = 0; i < pagesEach; i++) expect(w.poke(k % 2, mm, va(i), k * 100_000 + i)).toBe(true);
    return mm;
  });
}

function expectContents(w: ProcessWorld, mms: readonly PhysAddr[], pagesEach: number): void {
  mms.forEach((mm, k) => {
    for (let i = 0; i < pagesEach; i++) for (const cpu of [0, 1]) expect(w.peek(cpu, mm, va(i))).toBe(k * 100_000 + i);
    expect(w.processMemory.check(mm)).toBeNull();
  });
}

const framesInArea = (w: ProcessWorld, mms: readonly PhysAddr[], pagesEach: number): number =>
  mms.reduce((sum, mm) => {
    for (let i = 0; i < pagesEach; i++) if (w.cma.contains(w.frameOf(mm, va(i)))) sum++;
    return sum;
  }, 0);

describe("the area", () => {
  it("CMA-4 is whole pageblocks in one zone, at the top, counted as managed and free", () => {
    const plain = bootPageLevel({ ramBytes: 24 * MIB });
    const w = bootProcessWorld({ cmaBytes: 3 * MIB });
    const { base, nrPages, nrUsed, maxChunk } = w.cma.stats();
    expect([nrPages, nrUsed, maxChunk]).toEqual([1024, 0, 1024]);
    expect(base % 512).toBe(0);
    expect(w.zones.zoneOfPfn(base)).toBe(ZONE_DMA32);
    expect(w.pageblocks.migratetype(base)).toBe(MIGRATE_CMA);
    expect(w.zones.totalFreeCma()).toBe(1024);
    expect(w.zones.totalCma()).toBe(1024);
    expect(w.cma.check()).toBeNull();
    // The area costs its bitmap, one page at most, and nothing else.
    expect(plain.zones.totalManaged() - w.zones.totalManaged()).toBeLessThanOrEqual(1);
    w.expectNoLeak();
  });

  it("does not exist when there is no room for it, or nobody asked", () => {
    for (const cmaBytes of [64 * MIB, 0]) {
      const w = bootProcessWorld({ cmaBytes });
      expect(w.cmaArea).toBeNull();
      expect(w.zones.totalCma()).toBe(0);
      expect(w.cma.alloc(w.ctx, 1, 0)).toBe(NO_PFN);
      expect(w.cma.release(w.ctx, asPfn(5000), 1)).toBe(-EINVAL);
      expect(w.cma.stats().nrPages).toBe(0);
      w.expectNoLeak();
    }
  });

  it("stays out of ZONE_MOVABLE, and goes below the 32-bit limit if it can", () => {
    const w = bootProcessWorld({ ramBytes: 48 * MIB, movableBytes: 8 * MIB, dma32LimitBytes: 32 * MIB });
    expect(w.zones.zoneOfPfn(w.cma.stats().base)).toBe(ZONE_DMA32);
    w.expectNoLeak();
  });
});

describe("pages that processes share after a fork", () => {
  it("MIG-1 leave the area with all of their mappings: a driver gets it, every process reads what it wrote", () => {
    const w = bootProcessWorld({ ramBytes: 32 * MIB, cmaBytes: 4 * MIB });
    const nrPages = 900;
    // While the area is most of what is free it is borrowed first.
    const held: Pfn[] = [];
    const freeElsewhere = (): number => w.zones.totalFree() - w.zones.totalFreeCma();
    while (freeElsewhere() > 1000) held.push(w.pageAlloc.tryAllocPages(w.ctx, 5, GFP_ATOMIC | 0x2000));
    const parent = w.processMemory.createMm(w.ctx);
    for (const pfn of held.splice(40)) w.pageAlloc.freePages(w.ctx, pfn, 5);
    expect(w.processMemory.brk(w.ctx, parent, va(nrPages))).toBe(va(nrPages));
    for (let i = 0; i < nrPages; i++) expect(w.poke(0, parent, va(i), i)).toBe(true);
    for (const pfn of held) w.pageAlloc.freePages(w.ctx, pfn, 5);
    const family = [parent];
    for (let i = 0; i < 3; i++) family.push(w.processMemory.fork(w.ctx, family[i] as PhysAddr));
    expect(family.every((mm) => mm !== 0)).toBe(true);
    const borrowed = framesInArea(w, [parent], nrPages);
    expect(borrowed).toBeGreaterThan(0);
    // One child has pages of its own: every tenth.
    const writer = family[3] as PhysAddr;
    for (let i = 0; i < nrPages; i += 10) expect(w.poke(1, writer, va(i), 777_000 + i)).toBe(true);
    const pfn = w.cma.alloc(w.ctx, 1024, 0);
    expect(pfn).toBe(w.cma.stats().base);
    expect(framesInArea(w, family, nrPages)).toBe(0);
    family.forEach((mm) => {
      for (let i = 0; i < nrPages; i++) {
        const isOwn = mm === writer && i % 10 === 0;
        expect(w.peek(i & 1, mm, va(i))).toBe(isOwn ? 777_000 + i : i);
      }
      expect(w.processMemory.check(mm)).toBeNull();
    });
    for (let i = 1; i < nrPages; i += 10) expect(w.frameOf(writer, va(i))).toBe(w.frameOf(parent, va(i)));
    expect(w.vmstat.event(PGMIGRATE_SUCCESS)).toBeGreaterThanOrEqual(borrowed);
    w.expectSound();
    expect(w.cma.release(w.ctx, pfn, 1024)).toBe(0);
    for (const mm of family) w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });
});

describe("borrowing", () => {
  it("B9 unmovable, reclaimable and atomic requests never get a frame of the area; W4 nor count it", () => {
    const w = bootProcessWorld();
    const got: Pfn[] = [];
    for (const gfp of [GFP_KERNEL, GFP_KERNEL | 0x10, GFP_ATOMIC]) {
      for (let pfn = w.pageAlloc.tryAllocPages(w.ctx, 0, gfp); pfn !== NO_PFN; ) {
        expect(w.cma.contains(pfn)).toBe(false);
        got.push(pfn);
        pfn = w.pageAlloc.tryAllocPages(w.ctx, 0, gfp);
      }
      if (gfp !== GFP_KERNEL) continue;
      w.pageAlloc.drainAllPages(w.ctx);
      const rest = w.zones.field(ZONE_DMA32, Z_NR_FREE) - w.zones.field(ZONE_DMA32, Z_NR_FREE_CMA);
      expect(rest).toBeGreaterThanOrEqual(w.zones.wmark(ZONE_DMA32, WMARK_MIN));
    }
    expect(w.zones.totalFreeCma()).toBe(1024);
    w.expectSound();
    for (const pfn of got) w.pageAlloc.freePages(w.ctx, pfn, 0);
    w.expectNoLeak();
  });

  it("B9 a movable request takes from the area first while it holds more than half of what is free", () => {
    const w = bootProcessWorld({ ramBytes: 32 * MIB, cmaBytes: 4 * MIB });
    const held: Pfn[] = [];
    const ratio = (): number => w.zones.field(ZONE_DMA32, Z_NR_FREE_CMA) / w.zones.field(ZONE_DMA32, Z_NR_FREE);
    // Zone DMA32 has 16 MiB here: use up the rest until the area is most of what is free.
    while (ratio() <= 0.5) held.push(w.pageAlloc.tryAllocPages(w.ctx, 5, GFP_KERNEL));
    expect(w.cma.contains(w.pageAlloc.tryAllocPages(w.ctx, 5, GFP_KERNEL))).toBe(false);
    const borrowed = w.pageAlloc.tryAllocPages(w.ctx, 5, GFP_HIGHUSER_MOVABLE);
    expect(w.cma.contains(borrowed)).toBe(true);
    w.expectSound();
    // Back below one half: the own lists first again.
    w.pageAlloc.freePages(w.ctx, held.pop() as Pfn, 5);
    w.pageAlloc.freePages(w.ctx, held.pop() as Pfn, 5);
    expect(ratio()).toBeLessThanOrEqual(0.5);
    expect(w.cma.contains(w.pageAlloc.tryAllocPages(w.ctx, 5, GFP_HIGHUSER_MOVABLE))).toBe(false);
  });

  it("B3 the area does not merge with its neighbours, also when everything is free", () => {
    const w = bootProcessWorld({ cmaBytes: 2 * MIB });
    const { base } = w.cma.stats();
    // A pageblock of the area whose buddy pageblock is free: both stay blocks of order 9.
    expect(w.zones.totalFreeCma()).toBe(512);
    const buddy = asPfn(base ^ 512);
    expect(w.pageblocks.migratetype(buddy)).not.toBe(MIGRATE_CMA);
    expect(w.cma.release(w.ctx, w.cma.alloc(w.ctx, 512, 9), 512)).toBe(0);
    w.pageAlloc.drainAllPages(w.ctx);
    expect(w.zones.totalFreeCma()).toBe(512);
    w.expectSound();
  });

  it("promises to processes do not count on the area: a driver that takes it breaks none", () => {
    const w = bootProcessWorld({ cmaBytes: 4 * MIB });
    w.processMemory.account.setMode(2);
    w.processMemory.account.setRatio(100);
    const mm = w.processMemory.createMm(w.ctx);
    let nrPages = 0;
    while (w.processMemory.brk(w.ctx, mm, va(nrPages + 64)) === va(nrPages + 64)) nrPages += 64;
    expect(nrPages).toBeGreaterThan(1000);
    for (let i = 0; i < nrPages; i += 2) expect(w.poke(0, mm, va(i), i)).toBe(true);
    const pfn = w.cma.alloc(w.ctx, 1024, 0);
    expect(pfn).not.toBe(NO_PFN);
    for (let i = 1; i < nrPages; i += 2) expect(w.poke(0, mm, va(i), i)).toBe(true);
    for (let i = 0; i < nrPages; i++) expect(w.peek(1, mm, va(i))).toBe(i);
    w.cma.release(w.ctx, pfn, 1024);
    w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });
});

describe("alloc and release", () => {
  it("CMA-3 grants the whole area, larger than any block of the buddy, while processes fill it", () => {
    const w = bootProcessWorld({ ramBytes: 32 * MIB, cmaBytes: 6 * MIB });
    const mms = borrow(w, 3, 700);
    expect(framesInArea(w, mms, 700)).toBeGreaterThan(300);
    const { base } = w.cma.stats();
    expect(1536).toBeGreaterThan(2 ** MAX_PAGE_ORDER);
    expect(w.cma.alloc(w.ctx, 1536, 8)).toBe(base);
    expect(framesInArea(w, mms, 700)).toBe(0);
    expectContents(w, mms, 700);
    expect(w.vmstat.event(PGMIGRATE_SUCCESS)).toBeGreaterThan(300);
    expect(w.vmstat.item(NR_CMA_USED)).toBe(1536);
    expect(w.zones.totalFreeCma()).toBe(0);
    w.expectSound();
    expect(w.cma.release(w.ctx, base, 1536)).toBe(0);
    expectContents(w, mms, 700);
    for (const mm of mms) w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
    expect(w.zones.totalFreeCma()).toBe(1536);
  });

  it("CMA-3 keeps the alignment asked for", () => {
    const w = bootProcessWorld();
    const grants = [1, 3, 17, 64].map((nr, i) => ({ nr, pfn: w.cma.alloc(w.ctx, nr, 2 * i) }));
    grants.forEach(({ pfn }, i) => {
      expect(pfn % 2 ** (2 * i)).toBe(0);
    });
    for (const { nr, pfn } of grants) expect(w.cma.release(w.ctx, pfn, nr)).toBe(0);
    w.expectNoLeak();
  });

  it("a page that cannot move: the next range without it is taken", () => {
    const w = bootProcessWorld({ cmaBytes: 4 * MIB });
    const mms = borrow(w, 2, 900);
    const { base } = w.cma.stats();
    const inArea = mms
      .flatMap((mm) => Array.from({ length: 900 }, (_, i) => w.frameOf(mm, va(i))))
      .filter(w.cma.contains);
    const pinned = Math.min(...inArea.filter((pfn) => pfn >= base + 100)) as Pfn;
    w.pages.setRefcount(pinned, 2);
    const pfn = w.cma.alloc(w.ctx, 300, 0);
    expect(pfn).toBe(pinned >= base + 300 ? base : pinned + 1);
    expectContents(w, mms, 900);
    w.expectSound();
    expect(w.cma.alloc(w.ctx, 1024, 0)).toBe(NO_PFN);
    w.pages.setRefcount(pinned, 1);
    w.cma.release(w.ctx, pfn, 300);
    for (const mm of mms) w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });

  it("CMA-5 nothing fits: NO_PFN, Linux's message, everything as before", () => {
    const w = bootProcessWorld({ cmaBytes: 4 * MIB });
    const held = w.cma.alloc(w.ctx, 100, 0);
    expect(w.cma.alloc(w.ctx, 925, 0)).toBe(NO_PFN);
    expect(w.log()).toContain("cma: cma_alloc: reserved: alloc failed, req-size: 925 pages, ret: -12");
    expect(w.log()).toContain("cma: number of available pages: 924@100=> 924 free of 1024 total pages");
    const before = w.log();
    expect(w.cma.alloc(w.ctx, 925, 0, true)).toBe(NO_PFN);
    for (const nr of [0, -1, 1.5, Number.NaN]) expect(w.cma.alloc(w.ctx, nr, 0)).toBe(NO_PFN);
    expect(w.cma.alloc(w.ctx, 1, -1)).toBe(NO_PFN);
    expect(w.cma.alloc(w.ctx, 1, 40)).toBe(NO_PFN);
    expect(w.log()).toBe(before);
    expect(w.cma.stats()).toMatchObject({ nrUsed: 100, granted: 100, failed: 1850, released: 0 });
    expect([w.vmstat.event(CMA_ALLOC_SUCCESS), w.vmstat.event(CMA_ALLOC_FAIL)]).toEqual([1, 8]);
    w.cma.release(w.ctx, held, 100);
    w.expectNoLeak();
  });

  it("CMA-5 every page pinned: −EBUSY after one try of each range", () => {
    const w = bootProcessWorld({ cmaBytes: 2 * MIB });
    const held: Pfn[] = [];
    // Pages without an owner that could be moved away: as a driver of old would hold them.
    for (let pfn = w.pageAlloc.tryAllocPages(w.ctx, 0, GFP_HIGHUSER_MOVABLE); pfn !== NO_PFN; ) {
      held.push(pfn);
      pfn = w.pageAlloc.tryAllocPages(w.ctx, 0, GFP_HIGHUSER_MOVABLE);
    }
    expect(held.filter(w.cma.contains).length).toBeGreaterThan(400);
    expect(w.cma.alloc(w.ctx, 200, 0)).toBe(NO_PFN);
    expect(w.log()).toContain("req-size: 200 pages, ret: -16");
    w.expectSound();
    for (const pfn of held) w.pageAlloc.freePages(w.ctx, pfn, 0);
    w.expectNoLeak();
  });

  it("CMA-5 a release that is not of a grant is refused: outside, twice, more than was granted", () => {
    const w = bootProcessWorld();
    const { base } = w.cma.stats();
    const pfn = w.cma.alloc(w.ctx, 10, 0);
    for (const [at, nr] of [
      [base + 10, 1],
      [pfn, 11],
      [base - 1, 2],
      [base + 1020, 5],
      [pfn, 0],
      [pfn, 1.5],
    ] as const) {
      expect(w.cma.release(w.ctx, asPfn(at), nr)).toBe(-EINVAL);
    }
    expect(w.cma.release(w.ctx, pfn, 4)).toBe(0);
    expect(w.cma.release(w.ctx, pfn, 10)).toBe(-EINVAL);
    expect(w.cma.release(w.ctx, asPfn(pfn + 4), 6)).toBe(0);
    expect(w.cma.release(w.ctx, pfn, 10)).toBe(-EINVAL);
    w.expectNoLeak();
  });

  it("G2 alloc says that it may sleep, also when it need not", () => {
    const w = bootProcessWorld();
    w.contexts.preemptDisable(w.ctx);
    const pfn = w.cma.alloc(w.ctx, 1, 0);
    w.contexts.preemptEnable(w.ctx);
    expect(w.log()).toContain("BUG: sleeping function called from invalid context at mm/cma.ts:alloc");
    w.cma.release(w.ctx, pfn, 1);
  });
});

// ── Against a map of owners ────────────────────────────────────────────────────────────────────────────────────────

type Step =
  | { readonly kind: "alloc"; readonly nr: number; readonly align: number }
  | { readonly kind: "release"; readonly at: number; readonly part: number }
  | { readonly kind: "touch"; readonly page: number; readonly value: number }
  | { readonly kind: "drop"; readonly page: number }
  | { readonly kind: "pin" | "unpin"; readonly page: number };

const NR_PAGES = 1100;
const page = fc.nat(NR_PAGES - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("alloc" as const),
      nr: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 200, max: 600 })),
      align: fc.nat(6),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("release" as const), at: fc.nat(50), part: fc.nat(3) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("touch" as const), page, value: fc.nat(2 ** 31) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("drop" as const), page }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom("pin" as const, "unpin" as const), page }) },
);

describe("random grants against a map of owners", () => {
  it("CMA-1 … CMA-5: no frame has two owners, refusals have a reason, processes keep what they wrote", () => {
    const run = (list: readonly Step[]): void => {
      const w = bootProcessWorld({ cmaBytes: 4 * MIB });
      const { base, nrPages } = w.cma.stats();
      const owner = new Uint8Array(nrPages);
      const grants: { pfn: number; nr: number }[] = [];
      const model = new Map<number, number>();
      const pinned = new Set<number>();
      const [mm] = borrow(w, 1, NR_PAGES);
      for (let i = 0; i < NR_PAGES; i++) model.set(i, i);
      const space = mm as PhysAddr;

      /** Could `nr` aligned frames be had, with what is out and pinned now? */
      const isPossible = (nr: number, align: number): boolean => {
        const blocked = Uint8Array.from(owner);
        for (const i of pinned) {
          const pfn = w.frameOf(space, va(i));
          if (w.cma.contains(pfn)) blocked[pfn - base] = 1;
        }
        for (let bit = 0; bit + nr <= nrPages; bit++) {
          if ((base + bit) % 2 ** align === 0 && !blocked.subarray(bit, bit + nr).includes(1)) return true;
        }
        return false;
      };

      const doStep = (s: Step): void => {
        switch (s.kind) {
          case "alloc": {
            const canHave = isPossible(s.nr, s.align);
            const pfn = w.cma.alloc(w.ctx, s.nr, s.align);
            expect(pfn !== NO_PFN).toBe(canHave);
            if (pfn === NO_PFN) return;
            expect(pfn % 2 ** s.align).toBe(0);
            for (let i = pfn - base; i < pfn - base + s.nr; i++) {
              expect(owner[i]).toBe(0);
              owner[i] = 1;
              expect(w.pages.refcount(asPfn(base + i))).toBe(1);
            }
            grants.push({ pfn, nr: s.nr });
            return;
          }
          case "release": {
            const grant = grants.splice(s.at % Math.max(1, grants.length), 1)[0];
            if (grant === undefined) return;
            const nr = Math.max(1, Math.floor((grant.nr * (s.part + 1)) / 4));
            expect(w.cma.release(w.ctx, asPfn(grant.pfn), nr)).toBe(0);
            owner.fill(0, grant.pfn - base, grant.pfn - base + nr);
            if (nr < grant.nr) grants.push({ pfn: grant.pfn + nr, nr: grant.nr - nr });
            return;
          }
          case "touch":
            expect(w.poke(0, space, va(s.page), s.value)).toBe(true);
            model.set(s.page, s.value);
            return;
          case "drop":
            if (pinned.has(s.page)) return;
            expect(w.processMemory.dropPages(w.ctx, space, va(s.page), PAGE)).toBe(0);
            model.delete(s.page);
            return;
          case "pin":
          case "unpin":
            if (!model.has(s.page)) return;
            w.pages.setRefcount(w.frameOf(space, va(s.page)), s.kind === "pin" ? 2 : 1);
            if (s.kind === "pin") pinned.add(s.page);
            else pinned.delete(s.page);
        }
      };

      for (const s of list) {
        doStep(s);
        w.expectSound();
        expect(w.cma.stats().nrUsed).toBe(owner.reduce((sum, bit) => sum + bit, 0));
      }
      for (let i = 0; i < NR_PAGES; i++) expect(w.peek(1, space, va(i))).toBe(model.get(i) ?? 0);
      for (const i of pinned) w.pages.setRefcount(w.frameOf(space, va(i)), 1);
      for (const { pfn, nr } of grants) expect(w.cma.release(w.ctx, asPfn(pfn), nr)).toBe(0);
      w.processMemory.mmPut(w.ctx, space);
      w.expectNoLeak();
    };
    fc.assert(fc.property(fc.array(step, { minLength: 4, maxLength: 30 }), run), { numRuns: 15 });
  });
});
