/**
 * Goal: a page is on the list that its flags say, in the order in which it came, and every list is counted.
 * Method: a machine up to its page allocator; random operations against arrays as the oracle, the auditor after each.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asPfn, type Pfn } from "../../kernel/types.ts";
import { GFP_HIGHUSER_MOVABLE } from "../../mm/gfp.ts";
import {
  LRU_ACTIVE_ANON,
  LRU_ACTIVE_FILE,
  LRU_INACTIVE_ANON,
  LRU_INACTIVE_FILE,
  LRU_UNEVICTABLE,
  lruListOf,
} from "../../mm/lru.ts";
import { ZONE_DMA32 } from "../../mm/mmzone.ts";
import { PG_ACTIVE, PG_ANON, PG_LRU, PG_OWNER_BITS, PG_SWAPBACKED, PG_UNEVICTABLE } from "../../mm/page.ts";
import { NR_ISOLATED_ANON, NR_ISOLATED_FILE } from "../../mm/vmstat.ts";
import { bootPageLevel } from "../support/page_level.ts";

/** A page of a process. */
const ANON = PG_ANON | PG_SWAPBACKED;

const LISTS = [LRU_INACTIVE_ANON, LRU_ACTIVE_ANON, LRU_INACTIVE_FILE, LRU_ACTIVE_FILE, LRU_UNEVICTABLE];

function world() {
  const m = bootPageLevel();
  const { lru, pages, pageAlloc, ctx } = m;
  const newPage = (flags: number): Pfn => {
    const pfn = pageAlloc.tryAllocPages(ctx, 0, GFP_HIGHUSER_MOVABLE);
    pages.addFlags(pfn, flags);
    return pfn;
  };
  const freePage = (pfn: Pfn): void => {
    if ((pages.flags(pfn) & PG_LRU) !== 0) lru.remove(ctx, pfn);
    pages.clearFlags(pfn, PG_OWNER_BITS);
    expect(pageAlloc.freePages(ctx, pfn, 0)).toBe(0);
  };
  return { ...m, newPage, freePage };
}

/** A list from tail to head, by emptying it and filling it again. */
const contents = (w: ReturnType<typeof world>, list: number): number[] => {
  const out = new Int32Array(100);
  const nr = w.lru.isolateTail(w.ctx, ZONE_DMA32, list, 100, out);
  const all = Array.from(out.subarray(0, nr));
  for (const pfn of all) {
    w.lru.putBack(w.ctx, asPfn(pfn));
    w.pages.setRefcount(asPfn(pfn), w.pages.refcount(asPfn(pfn)) - 1);
  }
  return all;
};

describe("LRU lists", () => {
  it("LRU-1 the flags of a page decide about its list", () => {
    expect(lruListOf(0)).toBe(LRU_INACTIVE_FILE);
    expect(lruListOf(PG_ACTIVE)).toBe(LRU_ACTIVE_FILE);
    expect(lruListOf(ANON)).toBe(LRU_INACTIVE_ANON);
    expect(lruListOf(PG_SWAPBACKED | PG_ACTIVE)).toBe(LRU_ACTIVE_ANON);
    expect(lruListOf(ANON | PG_ACTIVE | PG_UNEVICTABLE)).toBe(LRU_UNEVICTABLE);
  });

  it("LRU-2 random operations agree with arrays, and the auditor is content after each", () => {
    const op = fc.record({
      kind: fc.constantFrom("new", "free", "activate", "deactivate", "rotate", "lock", "unlock", "isolate"),
      which: fc.nat(1000),
      flags: fc.constantFrom(0, PG_ACTIVE, ANON, ANON | PG_ACTIVE, PG_SWAPBACKED),
    });
    fc.assert(
      fc.property(fc.array(op, { maxLength: 60 }), (ops) => {
        const w = world();
        const { lru, ctx, pages } = w;
        /** Tail first. */
        const model: number[][] = LISTS.map(() => []);
        const all = (): number[] => model.flat();
        const drop = (pfn: number): void => {
          for (const list of model) if (list.includes(pfn)) list.splice(list.indexOf(pfn), 1);
        };
        const put = (pfn: number, isTail = false): void => {
          const list = model[lruListOf(pages.flags(asPfn(pfn)))] as number[];
          if (isTail) list.unshift(pfn);
          else list.push(pfn);
        };
        for (const { kind, which, flags } of ops) {
          const pfn = asPfn(all()[which % Math.max(1, all().length)] ?? 0);
          if (kind === "new") {
            const fresh = w.newPage(flags);
            lru.add(ctx, fresh);
            put(fresh);
          } else if (pfn === 0) continue;
          else {
            drop(pfn);
            if (kind === "free") w.freePage(pfn);
            if (kind === "activate") lru.activate(ctx, pfn);
            if (kind === "deactivate") lru.deactivate(ctx, pfn);
            if (kind === "rotate") lru.rotate(ctx, pfn);
            if (kind === "lock" || kind === "unlock") lru.setUnevictable(ctx, pfn, kind === "lock");
            if (kind === "isolate") {
              expect(lru.isolate(ctx, pfn)).toBe(true);
              expect(lru.isolate(ctx, pfn)).toBe(false);
              expect(pages.refcount(pfn)).toBe(2);
              lru.putBack(ctx, pfn);
              pages.setRefcount(pfn, 1);
            }
            if (kind !== "free") put(pfn, kind === "rotate");
          }
          expect(lru.check()).toBeNull();
          for (const list of LISTS) expect(lru.size(ZONE_DMA32, list)).toBe((model[list] as number[]).length);
        }
        for (const list of LISTS) expect(contents(w, list)).toEqual(model[list]);
        for (const pfn of all()) w.freePage(asPfn(pfn));
        w.expectNoLeak();
      }),
      { numRuns: 40 },
    );
  });

  it("LRU-3 an isolated page is counted as such by its kind, and has a holder more", () => {
    const w = world();
    const { lru, ctx, pages, vmstat } = w;
    const [anon, file] = [w.newPage(ANON), w.newPage(0)];
    lru.add(ctx, anon);
    lru.add(ctx, file);
    const out = new Int32Array(32);
    expect(lru.isolateTail(ctx, ZONE_DMA32, LRU_INACTIVE_ANON, 32, out)).toBe(1);
    expect(out[0]).toBe(anon);
    expect(lru.isolate(ctx, file)).toBe(true);
    expect([vmstat.item(NR_ISOLATED_ANON), vmstat.item(NR_ISOLATED_FILE)]).toEqual([1, 1]);
    expect([pages.refcount(anon), pages.flags(anon) & PG_LRU]).toEqual([2, 0]);
    // Locked into memory meanwhile: it is an anonymous page all the same.
    lru.setUnevictable(ctx, anon, true);
    lru.putBack(ctx, anon);
    lru.forget(ctx, file);
    expect([vmstat.item(NR_ISOLATED_ANON), vmstat.item(NR_ISOLATED_FILE)]).toEqual([0, 0]);
    expect(lru.size(ZONE_DMA32, LRU_UNEVICTABLE)).toBe(1);
    for (const pfn of [anon, file]) {
      pages.setRefcount(pfn, 1);
      w.freePage(pfn);
    }
    expect(lru.check()).toBeNull();
    w.expectNoLeak();
  });

  it("LRU-1 the auditor sees a page on the wrong list, and a flag without a list", () => {
    const w = world();
    const pfn = w.newPage(ANON);
    w.lru.add(w.ctx, pfn);
    w.pages.addFlags(pfn, PG_ACTIVE);
    expect(w.lru.check()).toContain("LRU-1");
    w.pages.clearFlags(pfn, PG_ACTIVE);
    const stray = w.newPage(PG_LRU);
    expect(w.lru.check()).toContain("LRU-1");
    w.pages.clearFlags(stray, PG_LRU);
    expect(() => w.lru.add(w.ctx, pfn)).toThrow("LRU-1");
  });
});
