/**
 * Page tables: when they are made, when they go, and that nobody walks one that is gone.
 *
 * Goal: PGT-1 … PGT-4, STL-2, MRM-1. Method: mappings whose tables are counted before and after; random mappings with the
 * auditor after each step, on a checking MMU; a kernel that frees tables without a flush, which must be told; a move with
 * each of its allocations failing in turn.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { StaleTable } from "../../kernel/arch/mmu.ts";
import { asPfn, type Context, NO_PFN, NULL, type PhysAddr, pfnToPhys } from "../../kernel/types.ts";
import { ENOMEM } from "../../kernel/uapi/errno.ts";
import {
  MADV_DONTNEED,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  MREMAP_FIXED,
  MREMAP_MAYMOVE,
  PROT_READ,
  PROT_WRITE,
} from "../../kernel/uapi/mman.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { PG_TABLE } from "../../mm/page.ts";
import { createPageTables } from "../../mm/pgtable.ts";
import type { ProcessMemoryDeps } from "../../mm/process_memory.ts";
import { NR_PAGETABLE } from "../../mm/vmstat.ts";
import { bootProcessWorld, type ProcessWorld } from "../support/process_world.ts";

const PAGE = 4096;
const TABLE = 512 * PAGE;
const GIB = 512 * TABLE;
const RW = PROT_READ | PROT_WRITE;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
/** Aligned to all tables. */
const BASE = 5 * GIB;

/** A world whose MMU checks, and what it says. */
function world(overrideMemory: (deps: ProcessMemoryDeps) => Partial<ProcessMemoryDeps> = () => ({})) {
  const w = bootProcessWorld({ debugTlb: true }, undefined, overrideMemory);
  const stale: StaleTable[] = [];
  w.machine.mmu.onStaleTable(
    (found) => stale.push(found),
    (frame) => (w.pages.flags(asPfn(frame)) & PG_TABLE) !== 0,
  );
  w.machine.mmu.onStale((found) => {
    throw new Error(`STL-1: ${JSON.stringify(found)}`);
  });
  return { w, stale, pm: w.processMemory };
}
const map = ({ processMemory, ctx }: ProcessWorld, mm: PhysAddr, at: number, bytes: number): void =>
  expect(processMemory.mmap(ctx, mm, at, bytes, RW, ANON)).toBe(at);
/** Stores to the first and last page of a mapping, on both CPUs. */
const touch = (w: ProcessWorld, mm: PhysAddr, at: number, bytes: number): void => {
  for (const cpu of [0, 1])
    for (const va of [at, at + bytes - PAGE]) expect(w.poke(cpu, mm, va, va % 2 ** 32)).toBe(true);
};

describe("munmap", () => {
  it("PGT-2 PGT-3 frees the tables that no neighbour needs, and counts them exactly", () => {
    const { w, pm, stale } = world();
    const mm = pm.createMm(w.ctx);
    const tables = (): number[] => [pm.nrTables(mm), w.vmstat.item(NR_PAGETABLE)];
    expect(tables()).toEqual([1, 1]);
    map(w, mm, BASE, 3 * TABLE);
    touch(w, mm, BASE, 3 * TABLE);
    expect(w.poke(0, mm, BASE + TABLE, 1)).toBe(true);
    // The root, one for the GiB, three for 2 MiB each.
    expect(tables()).toEqual([5, 5]);
    // A hole of a table and a bit: the table that the rest needs stays.
    expect(pm.munmap(w.ctx, mm, BASE + TABLE - PAGE, TABLE + 2 * PAGE)).toBe(0);
    expect(tables()).toEqual([4, 4]);
    w.expectSound();
    expect(pm.munmap(w.ctx, mm, BASE, TABLE - PAGE)).toBe(0);
    expect(tables()).toEqual([3, 3]);
    expect(pm.munmap(w.ctx, mm, BASE + 2 * TABLE + PAGE, TABLE - PAGE)).toBe(0);
    expect(tables()).toEqual([1, 1]);
    // Advice leaves them: the mapping will want them again.
    map(w, mm, BASE, TABLE);
    touch(w, mm, BASE, TABLE);
    expect(pm.madvise(w.ctx, mm, BASE, TABLE, MADV_DONTNEED)).toBe(0);
    expect(tables()).toEqual([3, 3]);
    w.expectSound();
    pm.mmPut(w.ctx, mm);
    expect([w.vmstat.item(NR_PAGETABLE), stale]).toEqual([0, []]);
    w.expectNoLeak();
  });

  it("PGT-3 PGT-4 STL-2 random mappings: no table without a VMA, none walked after it is gone", () => {
    const spot = fc.record({
      // Around borders of tables of both levels.
      at: fc.integer({ min: -6, max: 6 }).map((n) => BASE + n * (TABLE / 2)),
      nr: fc.integer({ min: 1, max: 1300 }),
      kind: fc.constantFrom("map", "map", "unmap", "unmap", "move", "drop"),
    });
    fc.assert(
      fc.property(fc.array(spot, { minLength: 4, maxLength: 20 }), (steps) => {
        const { w, pm, stale } = world();
        const mm = pm.createMm(w.ctx);
        for (const { at, nr, kind } of steps) {
          const bytes = nr * PAGE;
          if (kind === "unmap") pm.munmap(w.ctx, mm, at, bytes);
          else if (kind === "drop") pm.madvise(w.ctx, mm, at, bytes, MADV_DONTNEED);
          else if (kind === "move") {
            pm.mremap(w.ctx, mm, at, PAGE, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at + 8 * TABLE);
          } else {
            map(w, mm, at, bytes);
            touch(w, mm, at, bytes);
          }
          expect(pm.checkAll()).toBeNull();
        }
        pm.munmap(w.ctx, mm, BASE - GIB, 2 * GIB);
        expect([pm.nrTables(mm), stale]).toEqual([1, []]);
        pm.mmPut(w.ctx, mm);
        w.expectNoLeak();
      }),
      { numRuns: 25, seed: 20 },
    );
  });

  it("STL-2 a kernel that frees a table without a flush is told, also when the frame is no table any more", () => {
    const { w, pm, stale } = world(({ pageTables }) => ({
      pageTables: {
        ...pageTables,
        // Nothing is gathered: nothing flushes the address space.
        detach: (...args) =>
          pageTables.detach(...(args.slice(0, 5) as [never, number, number, number, number]), () => {}),
      },
    }));
    const mm = pm.createMm(w.ctx);
    map(w, mm, BASE, 2 * PAGE);
    touch(w, mm, BASE, 2 * PAGE);
    pm.munmap(w.ctx, mm, BASE, 2 * PAGE);
    map(w, mm, BASE, 2 * PAGE);
    expect(w.poke(0, mm, BASE, 7)).toBe(true);
    expect(stale.length).toBeGreaterThan(0);
    expect(stale[0]).toMatchObject({ cpu: 0, va: BASE, isWrite: true });
    // A frame that is given up while it hangs in the tables.
    stale.length = 0;
    const pmd = w.machine.port.ld32(pfnToPhys(asPfn(pm.field(mm, 12))) + 5 * 8) >>> 10;
    w.pages.clearFlags(asPfn(pmd), PG_TABLE);
    w.peek(1, mm, BASE + PAGE);
    expect(stale).toContainEqual({
      cpu: 1,
      asid: pm.field(mm, 20),
      va: BASE + PAGE,
      isWrite: false,
      table: pmd,
      current: pmd,
    });
  });
});

describe("mremap", () => {
  it("MRM-1 PGT-3 whichever of its allocations fails, the mapping stays, and no table is left over", () => {
    /** Allocations until one fails; −1: none does. */
    let left = -1;
    const { w, pm, stale } = world((deps) => {
      const tryAllocPages: typeof deps.pageAlloc.tryAllocPages = (...args) =>
        left >= 0 && left-- === 0 ? NO_PFN : deps.pageAlloc.tryAllocPages(...args);
      const pageAlloc = { ...deps.pageAlloc, tryAllocPages };
      const alloc = (ctx: Context): PhysAddr => {
        const pfn = tryAllocPages(ctx, 0, GFP_KERNEL);
        return pfn === NO_PFN ? NULL : pfnToPhys(pfn);
      };
      return {
        pageAlloc,
        pageTables: createPageTables(deps.machine.port, deps.pages, pageAlloc, deps.vmstat),
        caches: { ...deps.caches, allocVma: alloc },
      };
    });
    const mm = pm.createMm(w.ctx);
    const bytes = 3 * TABLE + 5 * PAGE;
    const [from, to] = [BASE + 7 * PAGE, BASE + 3 * GIB + 100 * PAGE];
    const places = [PAGE, TABLE - 8 * PAGE, TABLE, 2 * TABLE + 9 * PAGE, bytes - 2 * PAGE];
    map(w, mm, from, bytes);
    for (const place of places) expect(w.poke(0, mm, from + place, place)).toBe(true);
    const before = [pm.nrTables(mm), w.vmstat.item(NR_PAGETABLE)];
    let nrFailed = 0;
    for (let result = -ENOMEM; result < 0; ) {
      left = nrFailed;
      // Not the whole of it: the VMA is cut at both ends, too.
      result = pm.mremap(w.ctx, mm, from + PAGE, bytes - 2 * PAGE, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to);
      left = -1;
      expect(pm.checkAll()).toBeNull();
      if (result < 0) {
        nrFailed++;
        expect([result, pm.nrTables(mm), w.vmstat.item(NR_PAGETABLE)]).toEqual([-ENOMEM, ...before]);
        for (const place of places) expect(w.peek(1, mm, from + place)).toBe(place);
      }
    }
    // Two cuts, the new VMA, and tables: one of a GiB and four of 2 MiB.
    expect(nrFailed).toBe(8);
    for (const place of places.slice(0, -1)) expect(w.peek(0, mm, to + place - PAGE)).toBe(place);
    expect(stale).toEqual([]);
    pm.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });
});
