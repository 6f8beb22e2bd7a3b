/**
 * Goal: GEN-1 … GEN-3, LRU-1, LRU-2 of pages in generations: who comes where, who is the oldest, what counts as active.
 * Method: random operations against arrays that hold plain sequence numbers; damage that the auditor must find.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asPfn, type Pfn } from "../../kernel/types.ts";
import { GFP_HIGHUSER_MOVABLE } from "../../mm/gfp.ts";
import { LRU_ACTIVE_ANON, LRU_INACTIVE_ANON } from "../../mm/lru.ts";
import { Z_LRU_GEN, ZONE_DMA32 } from "../../mm/mmzone.ts";
import { PG_ACTIVE, PG_ANON, PG_LRU, PG_OWNER_BITS, PG_SWAPBACKED, PG_SWAPCACHE } from "../../mm/page.ts";
import { bootPageLevel } from "../support/page_level.ts";

/** A page of a process. */
const ANON = PG_ANON | PG_SWAPBACKED;

function world() {
  const m = bootPageLevel({ isMultiGen: true });
  const { pages, pageAlloc, lru, ctx } = m;
  return {
    ...m,
    newPage(flags: number): Pfn {
      const pfn = pageAlloc.tryAllocPages(ctx, 0, GFP_HIGHUSER_MOVABLE);
      pages.addFlags(pfn, flags);
      lru.add(ctx, pfn);
      return pfn;
    },
    freePage(pfn: Pfn): void {
      if ((pages.flags(pfn) & PG_LRU) !== 0) lru.remove(ctx, pfn);
      pages.clearFlags(pfn, PG_OWNER_BITS);
      pageAlloc.freePages(ctx, pfn, 0);
    },
  };
}

/** One kind of pages in the plainest form: for each generation its pages, the tail first. */
class Model {
  max = 1;
  min = 0;
  readonly gens = new Map<number, number[]>();
  gen(seq: number): number[] {
    const pages = this.gens.get(seq) ?? [];
    this.gens.set(seq, pages);
    return pages;
  }
  get all(): number[] {
    return [...this.gens.values()].flat();
  }
  drop(pfn: number): void {
    for (const pages of this.gens.values()) if (pages.includes(pfn)) pages.splice(pages.indexOf(pfn), 1);
  }
  retire(): void {
    while (this.max - this.min >= 2 && this.gen(this.min).length === 0) this.min++;
  }
  isDue(): boolean {
    const nrGens = this.max - this.min + 1;
    if (nrGens !== 3) return nrGens < 3;
    const total = this.all.length;
    return this.gen(this.max).length * 2 > total || this.gen(this.min).length * 4 < total;
  }
  advance(): void {
    if (this.all.length === 0) return;
    this.retire();
    for (let i = 0; i < 2 && this.isDue(); i++) {
      this.max++;
      this.retire();
    }
  }
  get nrActive(): number {
    return this.gen(this.max).length + this.gen(this.max - 1).length;
  }
}

describe("generations", () => {
  it("GEN-1 GEN-2 GEN-3 random operations agree with plain sequence numbers", () => {
    const op = fc.record({
      kind: fc.constantFrom("new", "new", "free", "activate", "deactivate", "rotate", "back", "used", "advance"),
      which: fc.nat(1000),
      isFile: fc.boolean(),
      flags: fc.constantFrom(0, PG_ACTIVE, PG_SWAPCACHE),
    });
    fc.assert(
      fc.property(fc.array(op, { maxLength: 80 }), (ops) => {
        const w = world();
        const { lru, ctx, pages } = w;
        const models = [new Model(), new Model()] as const;
        for (const { kind, which, isFile, flags } of ops) {
          const m = models[isFile ? 1 : 0];
          const pfn = asPfn(m.all[which % Math.max(1, m.all.length)] ?? 0);
          if (kind === "new") {
            const isRead = isFile || flags === PG_SWAPCACHE;
            m.gen(flags === PG_ACTIVE || !isRead ? m.max : m.max - 1).push(w.newPage(flags | (isFile ? 0 : ANON)));
          } else if (kind === "advance") {
            lru.advance(ctx, ZONE_DMA32, isFile);
            m.advance();
          } else if (pfn !== 0) {
            m.drop(pfn);
            if (kind === "free") w.freePage(pfn);
            else if (kind === "activate") lru.activate(ctx, pfn);
            else if (kind === "deactivate") lru.deactivate(ctx, pfn);
            else if (kind === "rotate") lru.rotate(ctx, pfn);
            else {
              lru.isolate(ctx, pfn);
              if (kind === "used") pages.addFlags(pfn, PG_ACTIVE);
              lru.putBack(ctx, pfn);
              pages.setRefcount(pfn, 1);
            }
            if (kind === "activate" || kind === "used") m.gen(m.max).push(pfn);
            else if (kind === "rotate") m.gen(m.min).unshift(pfn);
            else if (kind !== "free") m.gen(m.min).push(pfn);
          }
          expect(lru.check()).toBeNull();
          expect(lru.size(ZONE_DMA32, LRU_ACTIVE_ANON)).toBe(models[0].nrActive);
          expect(lru.size(ZONE_DMA32, LRU_INACTIVE_ANON)).toBe(models[0].all.length - models[0].nrActive);
        }
        for (const [kind, m] of models.entries()) {
          const out = new Int32Array(100);
          const nr = lru.isolateTail(ctx, ZONE_DMA32, lru.order.oldest(ZONE_DMA32, kind === 1), 100, out);
          expect(Array.from(out.subarray(0, nr))).toEqual(m.gen(m.min));
          for (const pfn of out.subarray(0, nr)) {
            lru.putBack(ctx, asPfn(pfn));
            pages.setRefcount(asPfn(pfn), 1);
          }
          for (const pfn of m.all) w.freePage(asPfn(pfn));
        }
        w.expectNoLeak();
      }),
      { numRuns: 60 },
    );
  });

  it("a page that nobody uses goes after two younger generations, one that is used when it comes up after four", () => {
    const w = world();
    const [old, used] = [w.newPage(ANON), w.newPage(ANON)];
    const out = new Int32Array(4);
    const oldest = (): number[] => {
      const nr = w.lru.isolateTail(w.ctx, ZONE_DMA32, w.lru.order.oldest(ZONE_DMA32, false), 4, out);
      return Array.from(out.subarray(0, nr));
    };
    w.lru.advance(w.ctx, ZONE_DMA32, false);
    expect(oldest()).toEqual([old, used]);
    w.pages.addFlags(used, PG_ACTIVE);
    for (const pfn of [old, used]) w.lru.putBack(w.ctx, pfn);
    expect(w.pages.flags(used) & PG_ACTIVE).toBe(0);
    expect(oldest()).toEqual([old]);
    w.lru.putBack(w.ctx, old);
    expect(w.lru.check()).toBeNull();
  });

  it("GEN-1 GEN-2 the auditor finds a wrong length and a generation outside of its window", () => {
    const w = world();
    w.newPage(ANON);
    const at = w.zones.addr(ZONE_DMA32) + Z_LRU_GEN;
    const { port } = w.machine;
    port.st32(at + 8 + 4, 7);
    expect(w.lru.check()).toMatch(/^GEN-2/);
    port.st32(at + 8 + 4, 1);
    expect(w.lru.check()).toBeNull();
    port.st32(at, 9);
    expect(w.lru.check()).toMatch(/^GEN-1/);
    port.st32(at, 8);
    port.st32(at + 4, 7);
    expect(w.lru.check()).toMatch(/^GEN-1: 1 pages in a generation before 7/);
  });
});
