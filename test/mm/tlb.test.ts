/**
 * Address-space tags and the detector of stale translations.
 *
 * Goal: ASID-1, ASID-2, STL-1, TLB-1. Method: more address spaces than tags on two CPUs; changes of entries with and
 * without a flush on a checking MMU; a whole kernel under fork, migration and mprotect with debug_tlb=on.
 */

import { describe, expect, it } from "vitest";
import type { StaleTranslation } from "../../kernel/arch/mmu.ts";
import { PTE_W } from "../../kernel/arch/mmu.ts";
import { USER_HEAP_BASE } from "../../kernel/params.ts";
import type { PhysAddr } from "../../kernel/types.ts";
import { SHARED_ASID } from "../../mm/asid.ts";
import { MM_ASID, MM_PGD } from "../../mm/mm_struct.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel } from "../support/boot_kernel.ts";
import { bootProcessWorld, type ProcessWorld } from "../support/process_world.ts";

const PAGE = 4096;
const va = USER_HEAP_BASE;

function space(w: ProcessWorld, value: number): PhysAddr {
  const mm = w.processMemory.createMm(w.ctx);
  expect(w.processMemory.brk(w.ctx, mm, va + PAGE)).toBe(va + PAGE);
  expect(w.poke(value & 1, mm, va, value)).toBe(true);
  return mm;
}

const asidOf = (w: ProcessWorld, mm: PhysAddr): number => w.processMemory.field(mm, MM_ASID);

describe("tags", () => {
  it("ASID-1 regression: a process that lives on does not share its tag with the 255th that is made after it", () => {
    const w = bootProcessWorld();
    const old = space(w, 1000);
    for (let i = 0; i < 600; i++) {
      const young = space(w, i);
      expect(asidOf(w, young)).not.toBe(asidOf(w, old));
      for (const cpu of [0, 1]) {
        expect(w.peek(cpu, old, va)).toBe(1000);
        expect(w.peek(cpu, young, va)).toBe(i);
      }
      w.processMemory.mmPut(w.ctx, young);
    }
    w.processMemory.mmPut(w.ctx, old);
    w.expectNoLeak();
  });

  it("ASID-2 more address spaces than tags: each reads its own, on every CPU, in any order", () => {
    const w = bootProcessWorld({ ramBytes: 128 * 2 ** 20 });
    const mms = Array.from({ length: 300 }, (_, i) => space(w, i));
    const asids = mms.map((mm) => asidOf(w, mm));
    const alone = asids.filter((asid) => asid !== SHARED_ASID);
    expect(new Set(alone).size).toBe(alone.length);
    expect(asids.filter((asid) => asid === SHARED_ASID).length).toBe(300 - (SHARED_ASID - 1));
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 900; i++) {
        const at = (i * 7 + round * 131) % 300;
        expect(w.peek(i & 1, mms[at] as PhysAddr, va)).toBe(at);
      }
    }
    for (const mm of mms) w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });
});

describe("debug_tlb", () => {
  function checking() {
    const w = bootProcessWorld({ debugTlb: true });
    const seen: StaleTranslation[] = [];
    w.machine.mmu.onStale((stale) => seen.push(stale));
    const mm = space(w, 5);
    const pte = w.pageTables.walk(w.ctx, w.processMemory.field(mm, MM_PGD) as never, va / PAGE, false);
    return { w, mm, pte, seen, asid: asidOf(w, mm) };
  }

  it("STL-1 an entry that is changed and not flushed is told, with what the TLB has and what the table has", () => {
    for (const change of [() => 0, (word: number) => word + (1 << 10), (word: number) => word & ~PTE_W]) {
      const { w, mm, pte, seen, asid } = checking();
      expect(w.poke(0, mm, va, 6)).toBe(true);
      const before = w.pageTables.readPte(pte);
      w.pageTables.writePte(pte, change(before));
      expect(w.poke(0, mm, va, 7)).toBe(true);
      expect(seen.length).toBeGreaterThan(0);
      expect(seen[0]).toMatchObject({
        cpu: 0,
        asid,
        va,
        cached: Math.floor(before / 1024) * PAGE,
        pte: change(before),
      });
      seen.length = 0;
      w.pageTables.writePte(pte, before);
      w.machine.mmu.flushPage(0, asid, va);
      expect(w.peek(0, mm, va)).toBe(7);
      expect(seen).toEqual([]);
    }
  });

  it("STL-1 a right that is added, and a page that is only read after its right to be written went, are no mistakes", () => {
    const { w, mm, pte, seen } = checking();
    w.pageTables.writePte(pte, w.pageTables.readPte(pte) & ~PTE_W);
    expect(w.peek(1, mm, va)).toBe(5);
    w.pageTables.writePte(pte, w.pageTables.readPte(pte) | PTE_W);
    expect(w.peek(1, mm, va)).toBe(5);
    expect(seen).toEqual([]);
  });

  it("is silent in a kernel that forks, moves pages and runs hundreds of programs; the same run without it is the same", () => {
    const script = `fragment 20M --hold 900000000 & ${"true; ".repeat(300)} sysctl vm.compact_memory=1; stress --ops 500; wait`;
    const run = (cmdline: string): string => {
      const t = bootKernel(Object.fromEntries(builtinPrograms()), { cmdline, ramBytes: 64 * 2 ** 20 });
      t.run("/bin/sh", "-c", script);
      expect(t.kernel.nrReports()).toBe(0);
      t.expectNoLeak();
      return `${t.output()}${t.kernel.now()}`;
    };
    expect(run("quiet debug_tlb=on")).toBe(run("quiet"));
  });
});
