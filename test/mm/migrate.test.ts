/**
 * Page migration: processes do not notice, and nothing is lost when it fails.
 *
 * Goal: MIG-1 … MIG-4, CTG-1 … CTG-3, RMAP-2. Method: address spaces over a small machine; random programs on two CPUs
 * against a map of what they have written, with ranges of frames emptied in between; planted faults must be caught.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { USER_HEAP_BASE } from "../../kernel/params.ts";
import { asPfn, type Context, NO_PFN, type Pfn, type PhysAddr } from "../../kernel/types.ts";
import { EBUSY, EINVAL, ENOMEM } from "../../kernel/uapi/errno.ts";
import { PROT_READ, PROT_WRITE } from "../../kernel/uapi/mman.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import type { MigrationDeps } from "../../mm/migrate.ts";
import { MIGRATE_ISOLATE } from "../../mm/migratetype.ts";
import { MM_ASID, MM_PGD } from "../../mm/mm_struct.ts";
import { PGMIGRATE_FAIL, PGMIGRATE_SUCCESS } from "../../mm/vmstat.ts";
import { bootProcessWorld, type ProcessWorld } from "../support/process_world.ts";
import { runs } from "../support/runs.ts";

const PAGE = 4096;
const va = (page: number): number => USER_HEAP_BASE + page * PAGE;

/** An address space with `nrPages` of heap, word 0 of page i holding `seed + i`. */
function filled(w: ProcessWorld, nrPages: number, seed: number): PhysAddr {
  const mm = w.processMemory.createMm(w.ctx);
  expect(w.processMemory.brk(w.ctx, mm, va(nrPages))).toBe(va(nrPages));
  for (let i = 0; i < nrPages; i++) expect(w.poke(0, mm, va(i), seed + i)).toBe(true);
  return mm;
}

function expectContents(w: ProcessWorld, mm: PhysAddr, nrPages: number, seed: number): void {
  for (let i = 0; i < nrPages; i++) {
    for (const cpu of [0, 1]) expect(w.peek(cpu, mm, va(i))).toBe(seed + i);
  }
  expect(w.processMemory.check(mm)).toBeNull();
}

const noIsolation = (w: ProcessWorld): boolean => {
  for (let pfn = 0; pfn < w.pages.nrFrames; pfn += 512) {
    if (w.pageblocks.migratetype(asPfn(pfn)) === MIGRATE_ISOLATE) return false;
  }
  return true;
};

describe("one page", () => {
  it("MIG-2 content, rights and columns are the same in another frame", () => {
    const w = bootProcessWorld();
    const mm = filled(w, 3, 100);
    w.processMemory.mprotect(w.ctx, mm, va(1), PAGE, PROT_READ);
    const before = w.frameOf(mm, va(1));
    expect(w.mover.isMovable(before)).toBe(true);
    expect(w.mover.migratePage(w.ctx, before)).toBe(0);
    const after = w.frameOf(mm, va(1));
    expect(after).not.toBe(before);
    expectContents(w, mm, 3, 100);
    expect(w.poke(1, mm, va(1), 5)).toBe(false);
    w.processMemory.mprotect(w.ctx, mm, va(1), PAGE, PROT_READ | PROT_WRITE);
    expect(w.poke(1, mm, va(1), 5)).toBe(true);
    expect([w.pages.index(after), w.pages.mapcount(after), w.pages.refcount(after)]).toEqual([va(1) / PAGE, 1, 1]);
    expect(w.vmstat.event(PGMIGRATE_SUCCESS)).toBe(1);
    w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });

  it("MIG-2 moves to the frame that the caller brings, and leaves it alone when the page is held", () => {
    const w = bootProcessWorld();
    const mm = filled(w, 2, 100);
    const target = w.pageAlloc.tryAllocPages(w.ctx, 0, GFP_KERNEL);
    const held = w.frameOf(mm, va(0));
    w.pages.setRefcount(held, 2);
    expect(w.mover.migratePage(w.ctx, held, target)).toBe(-EBUSY);
    w.pages.setRefcount(held, 1);
    expect(w.mover.migratePage(w.ctx, w.frameOf(mm, va(1)), target)).toBe(0);
    expect(w.frameOf(mm, va(1))).toBe(target);
    expectContents(w, mm, 2, 100);
    w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });

  it("MIG-4 a page with a second holder stays, and so do pages of the kernel", () => {
    const w = bootProcessWorld();
    const mm = filled(w, 2, 7);
    const pinned = w.frameOf(mm, va(0));
    const kernel = w.pageAlloc.tryAllocPages(w.ctx, 0, GFP_KERNEL);
    w.pages.setRefcount(pinned, 2);
    const free = w.zones.totalFree();
    for (const pfn of [pinned, kernel, asPfn(w.processMemory.field(mm, MM_PGD))]) {
      expect(w.mover.isMovable(pfn)).toBe(false);
      expect(w.mover.migratePage(w.ctx, pfn)).toBe(-EBUSY);
      expect(w.pageAlloc.allocContigRange(w.ctx, pfn, asPfn(pfn + 1))).toBe(-EBUSY);
    }
    expect(w.vmstat.event(PGMIGRATE_FAIL)).toBe(3);
    expect(w.zones.totalFree()).toBe(free);
    expect(w.frameOf(mm, va(0))).toBe(pinned);
    w.pages.setRefcount(pinned, 1);
    expectContents(w, mm, 2, 7);
    w.pageAlloc.freePages(w.ctx, kernel, 0);
    w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });

  it("MIG-1 a reverse mapping that leads elsewhere is a kernel bug, not a lost page", () => {
    const w = bootProcessWorld();
    const mm = filled(w, 2, 7);
    const pfn = w.frameOf(mm, va(1));
    w.pages.setIndex(pfn, va(0) / PAGE);
    expect(w.processMemory.check(mm)).toMatch(/^RMAP-2/);
    expect(() => w.mover.migratePage(w.ctx, pfn)).toThrow(/MIG-1/);
  });

  for (const [name, override] of [
    ["flushes no TLB", { flushPage: () => {} }],
    [
      "flushes one CPU only",
      (deps: MigrationDeps) => ({
        flushPage: (_ctx: Context, mm: PhysAddr, page: number) =>
          deps.machine.mmu.flushPage(0, deps.machine.port.ld32(mm + MM_ASID), page * PAGE),
      }),
    ],
  ] as const) {
    it(`MIG-3 a migration that ${name} is caught by what CPU 1 then reads`, () => {
      const w = bootProcessWorld({}, (deps) => (typeof override === "function" ? override(deps) : override));
      const mm = filled(w, 1, 1);
      expect(w.peek(1, mm, va(0))).toBe(1);
      expect(w.mover.migratePage(w.ctx, w.frameOf(mm, va(0)))).toBe(0);
      w.poke(0, mm, va(0), 2);
      const [seen0, seen1, inRam] = [
        w.peek(0, mm, va(0)),
        w.peek(1, mm, va(0)),
        w.machine.port.ld32(w.frameOf(mm, va(0)) * PAGE),
      ];
      expect(seen0 === 2 && seen1 === 2 && inRam === 2).toBe(false);
    });
  }
});

describe("ranges", () => {
  it("CTG-1 a range full of process pages is emptied and taken, whatever its size and ends", () => {
    const w = bootProcessWorld();
    const mm = filled(w, 1200, 1000);
    const frames = Array.from({ length: 1200 }, (_, i) => w.frameOf(mm, va(i)) as number);
    const middle = frames[600] as number;
    const [start, end] = [asPfn(middle - 37), asPfn(middle + 41)];
    expect(w.pageAlloc.allocContigRange(w.ctx, start, end)).toBe(0);
    for (let i = 0; i < 1200; i++) {
      const pfn = w.frameOf(mm, va(i));
      expect(pfn < start || pfn >= end).toBe(true);
    }
    expectContents(w, mm, 1200, 1000);
    expect(noIsolation(w)).toBe(true);
    w.expectSound();
    for (let pfn = start as number; pfn < end; pfn++) expect(w.pageAlloc.freePages(w.ctx, asPfn(pfn), 0)).toBe(0);
    w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });

  it("CTG-2 outside of memory, across zones, empty: −EINVAL and nothing happens", () => {
    const w = bootProcessWorld();
    const top = w.machine.port.sizeBytes / PAGE;
    for (const [start, end] of [
      [top - 4, top + 4],
      [4090, 4100],
      [5000, 5000],
      [5001, 5000],
    ] as const) {
      expect(w.pageAlloc.allocContigRange(w.ctx, asPfn(start), asPfn(end))).toBe(-EINVAL);
    }
    w.expectNoLeak();
  });

  it("CTG-2 the N-th allocation of a migration fails, for every N: contents whole, isolation undone, no page lost", () => {
    for (let n = 0; n < 24; n++) {
      let left = n;
      const w = bootProcessWorld({ ramBytes: 20 * 2 ** 20, cmaBytes: 2 ** 21 }, ({ pageAlloc }) => ({
        pageAlloc: {
          ...pageAlloc,
          tryAllocPages: (...args) => (left-- > 0 ? pageAlloc.tryAllocPages(...args) : NO_PFN),
        },
      }));
      const mm = filled(w, 150, 9);
      const frames = Array.from({ length: 150 }, (_, i) => w.frameOf(mm, va(i)));
      const nrWithin = (pfn: Pfn): number => frames.filter((other) => other >= pfn && other < pfn + 24).length;
      const start = frames.find((pfn) => nrWithin(pfn) === 24) ?? NO_PFN;
      const end = asPfn(start + 24);
      const free = w.zones.totalFree();
      expect(start).not.toBe(NO_PFN);
      expect(w.pageAlloc.allocContigRange(w.ctx, start, end)).toBe(-ENOMEM);
      w.pageAlloc.drainAllPages(w.ctx);
      expect(w.zones.totalFree()).toBeGreaterThanOrEqual(free);
      expect(noIsolation(w)).toBe(true);
      expectContents(w, mm, 150, 9);
      w.expectSound();
      w.processMemory.mmPut(w.ctx, mm);
      w.expectNoLeak();
    }
  });
});

// ── Random programs ────────────────────────────────────────────────────────────────────────────────────────────────

type Step =
  | {
      readonly kind: "write";
      readonly who: number;
      readonly cpu: number;
      readonly page: number;
      readonly value: number;
    }
  | {
      readonly kind: "read" | "drop" | "migrate" | "pin";
      readonly who: number;
      readonly cpu: number;
      readonly page: number;
    }
  | { readonly kind: "empty"; readonly at: number; readonly nr: number }
  | { readonly kind: "give"; readonly at: number };

const NR_PAGES = 96;
const who = fc.nat(2);
const cpu = fc.nat(1);
const page = fc.nat(NR_PAGES - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("write" as const), who, cpu, page, value: fc.nat(2 ** 31) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom("read" as const, "drop" as const, "migrate" as const),
      who,
      cpu,
      page,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("pin" as const), who, cpu, page }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("empty" as const),
      at: fc.nat(400),
      nr: fc.integer({ min: 1, max: 900 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("give" as const), at: fc.nat(100) }) },
);

interface Play {
  readonly mms: readonly PhysAddr[];
  readonly written: readonly Map<number, number>[];
  readonly pinned: Set<Pfn>;
  readonly ranges: (readonly [start: number, end: number])[];
}

/** Does one step in the world and in the model; true if what the world says agrees. */
function play(w: ProcessWorld, { mms, written, pinned, ranges }: Play, s: Step): boolean {
  if (s.kind === "empty") {
    const near = w.frameOf(mms[0] as PhysAddr, va(0)) || w.frameOf(mms[1] as PhysAddr, va(0)) || 4600;
    const [start, end] = [Math.max(4096, near - s.at), Math.max(4097, near - s.at + s.nr)];
    const result = w.pageAlloc.allocContigRange(w.ctx, asPfn(start), asPfn(end));
    if (result === 0) ranges.push([start, end]);
    return result === 0 || result === -EBUSY || result === -ENOMEM || result === -EINVAL;
  }
  if (s.kind === "give") {
    const [start, end] = ranges.splice(s.at % Math.max(1, ranges.length), 1)[0] ?? [0, 0];
    for (let pfn = start; pfn < end; pfn++) w.pageAlloc.freePages(w.ctx, asPfn(pfn), 0);
    return true;
  }
  const mm = mms[s.who] as PhysAddr;
  const model = written[s.who] as Map<number, number>;
  const frame = w.frameOf(mm, va(s.page));
  switch (s.kind) {
    case "write":
      model.set(s.page, s.value);
      return w.poke(s.cpu, mm, va(s.page), s.value);
    case "read":
      return w.peek(s.cpu, mm, va(s.page)) === (model.get(s.page) ?? 0);
    case "drop":
      if (pinned.has(frame)) return true;
      model.delete(s.page);
      return w.processMemory.dropPages(w.ctx, mm, va(s.page), PAGE) === 0;
    case "pin":
      if (frame !== NO_PFN && pinned.size < 3) {
        pinned.add(frame);
        w.pages.setRefcount(frame, 2);
      }
      return true;
    case "migrate": {
      if (frame === NO_PFN) return true;
      return w.mover.migratePage(w.ctx, frame) === (pinned.has(frame) ? -EBUSY : 0);
    }
  }
}

/** Plays the steps; the first disagreement as a sentence, or null. */
function violation(w: ProcessWorld, steps: readonly Step[]): string | null {
  const mms = [0, 1, 2].map(() => {
    const mm = w.processMemory.createMm(w.ctx);
    w.processMemory.brk(w.ctx, mm, va(NR_PAGES));
    return mm;
  });
  const state: Play = { mms, written: mms.map(() => new Map<number, number>()), pinned: new Set(), ranges: [] };
  for (const s of steps) {
    if (!play(w, state, s)) return `wrong answer at ${JSON.stringify(s)}`;
    for (const mm of mms) {
      const problem = w.processMemory.check(mm);
      if (problem !== null) return problem;
    }
    w.expectSound();
    if (!noIsolation(w)) return "a pageblock is isolated";
  }
  for (const [i, mm] of mms.entries()) {
    for (const [where, value] of state.written[i] as Map<number, number>) {
      for (const on of [0, 1]) if (w.peek(on, mm, va(where)) !== value) return `page ${where} lost its content`;
    }
  }
  for (const pfn of state.pinned) w.pages.setRefcount(pfn, 1);
  for (const [start, end] of state.ranges) {
    for (let pfn = start; pfn < end; pfn++) w.pageAlloc.freePages(w.ctx, asPfn(pfn), 0);
  }
  for (const mm of mms) w.processMemory.mmPut(w.ctx, mm);
  return null;
}

const steps = fc.array(step, { minLength: 10, maxLength: 60 });

describe("random programs", () => {
  it("MIG-1 … MIG-4, CTG-1, CTG-2: three programs on two CPUs keep what they wrote while ranges are emptied", () => {
    fc.assert(
      fc.property(steps, (list) => {
        const w = bootProcessWorld();
        expect(violation(w, list)).toBeNull();
        w.expectNoLeak();
      }),
      { numRuns: runs(12, 25) },
    );
  });

  const mutants: Readonly<Record<string, (deps: MigrationDeps) => Partial<MigrationDeps>>> = {
    "forgets the TLBs": () => ({ flushPage: () => {} }),
    "copies nothing": ({ machine }) => ({
      machine: { ...machine, port: Object.create(machine.port, { copy: { value: () => {} } }) },
    }),
    "forgets the virtual page number": ({ pages }) => ({ pages: { ...pages, setIndex: () => {} } }),
  };
  for (const [name, override] of Object.entries(mutants)) {
    it(`a migration that ${name} is caught`, () => {
      const found = fc.sample(steps, { numRuns: 40, seed: 11 }).some((list) => {
        try {
          return violation(bootProcessWorld({}, override), list) !== null;
        } catch {
          return true;
        }
      });
      expect(found).toBe(true);
    });
  }
});
