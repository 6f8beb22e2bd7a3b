/**
 * Address spaces that share frames: fork, copy-on-write, reverse mapping.
 *
 * Goal: COW-1 … COW-3, RMAP-1 … RMAP-4, FRK-1, FRK-2, VMA-1 … VMA-4, MMAP-1 … MMAP-4, MIG-2. Method: random programs of
 * mmap, munmap, mprotect, store, load, fork, exit, migration over several processes and two CPUs, against an oracle
 * that keeps a copy of every page of every process; the auditor runs after each step, all bytes are compared at the
 * end. Planted faults must be caught; every allocation of a fork fails once.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { USER_HEAP_BASE } from "../../kernel/params.ts";
import { asPfn, NO_PFN, NULL, type Pfn, type PhysAddr } from "../../kernel/types.ts";
import { MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE } from "../../kernel/uapi/mman.ts";
import { MM_COW_FAULTS, MM_MAP_COUNT } from "../../mm/mm_struct.ts";
import { createPageRefs } from "../../mm/page_ref.ts";
import { createPageTables } from "../../mm/pgtable.ts";
import type { ProcessMemoryDeps } from "../../mm/process_memory.ts";
import { NR_ANON_MAPPED } from "../../mm/vmstat.ts";
import { bootProcessWorld, type ProcessWorld } from "../support/process_world.ts";
import { runs } from "../support/runs.ts";

const PAGE = 4096;
const RW = PROT_READ | PROT_WRITE;
const FLAGS = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
const BASE = USER_HEAP_BASE + 2 ** 30;
const va = (page: number): number => BASE + page * PAGE;

/** An address space with `nrPages` mapped, word 0 of page i holding `seed + i`. */
function filled(w: ProcessWorld, nrPages: number, seed: number): PhysAddr {
  const mm = w.processMemory.createMm(w.ctx);
  expect(w.processMemory.mmap(w.ctx, mm, va(0), nrPages * PAGE, RW, FLAGS)).toBe(va(0));
  for (let i = 0; i < nrPages; i++) expect(w.poke(0, mm, va(i), seed + i)).toBe(true);
  return mm;
}

describe("copy-on-write", () => {
  it("COW-3 RMAP-1 parent and child share every frame until one stores, and then only that page is copied", () => {
    const w = bootProcessWorld();
    const parent = filled(w, 8, 100);
    const before = w.vmstat.item(NR_ANON_MAPPED);
    const child = w.processMemory.fork(w.ctx, parent);
    expect(w.vmstat.item(NR_ANON_MAPPED)).toBe(before);
    const frame = w.frameOf(parent, va(3));
    expect([w.frameOf(child, va(3)), w.pages.mapcount(frame), w.pages.refcount(frame)]).toEqual([frame, 2, 2]);
    w.expectSound();
    w.poke(1, child, va(3), 5);
    expect([w.peek(0, parent, va(3)), w.peek(0, child, va(3))]).toEqual([103, 5]);
    expect([w.frameOf(parent, va(3)), w.pages.mapcount(frame)]).toEqual([frame, 1]);
    expect(w.vmstat.item(NR_ANON_MAPPED)).toBe(before + 1);
    w.expectSound();
    w.processMemory.mmPut(w.ctx, parent);
    for (let i = 0; i < 8; i++) expect(w.peek(1, child, va(i))).toBe(i === 3 ? 5 : 100 + i);
    w.expectSound();
    w.processMemory.mmPut(w.ctx, child);
    w.expectNoLeak();
  });

  it("COW-2 the last holder stores in place; one whose frame has another holder copies", () => {
    const w = bootProcessWorld();
    const parent = filled(w, 2, 1);
    const child = w.processMemory.fork(w.ctx, parent);
    w.processMemory.mmPut(w.ctx, child);
    const frames = [0, 1].map((i) => w.frameOf(parent, va(i)));
    w.pages.setRefcount(frames[1] as Pfn, 2);
    w.poke(0, parent, va(0), 10);
    w.poke(0, parent, va(1), 11);
    expect(w.frameOf(parent, va(0))).toBe(frames[0]);
    expect(w.frameOf(parent, va(1))).not.toBe(frames[1]);
    expect(w.machine.port.ld32((frames[1] as number) * PAGE)).toBe(2);
    expect(w.processMemory.field(parent, MM_COW_FAULTS)).toBe(1);
    // The other holder puts its reference: the frame that nobody maps any more goes.
    createPageRefs(w.pages, w.pageAlloc, w.lru).putPage(w.ctx, frames[1] as Pfn);
    w.processMemory.mmPut(w.ctx, parent);
    w.expectNoLeak();
  });

  it("FRK-2 a CPU that has the parent's translation with W faults after the fork", () => {
    const w = bootProcessWorld();
    const parent = filled(w, 1, 7);
    w.poke(1, parent, va(0), 7);
    const child = w.processMemory.fork(w.ctx, parent);
    w.poke(1, parent, va(0), 8);
    expect(w.peek(0, child, va(0))).toBe(7);
    for (const mm of [parent, child]) w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });

  it("COW-1 mprotect to writable does not make a shared frame writable", () => {
    const w = bootProcessWorld();
    const parent = filled(w, 1, 7);
    const child = w.processMemory.fork(w.ctx, parent);
    for (const prot of [PROT_READ, PROT_NONE, RW]) w.processMemory.mprotect(w.ctx, child, va(0), PAGE, prot);
    w.expectSound();
    expect(w.poke(0, child, va(0), 9)).toBe(true);
    expect(w.peek(0, parent, va(0))).toBe(7);
    for (const mm of [child, parent]) w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });

  it("MIG-2 RMAP-1 a frame that a family of six shares moves, and all six follow", () => {
    const w = bootProcessWorld();
    const family = [filled(w, 3, 50)];
    for (let i = 0; i < 5; i++) family.push(w.processMemory.fork(w.ctx, family[i] as PhysAddr));
    const frame = w.frameOf(family[0] as PhysAddr, va(1));
    expect([w.pages.mapcount(frame), w.mover.isMovable(frame)]).toEqual([6, true]);
    expect(w.mover.migratePage(w.ctx, frame)).toBe(0);
    const after = new Set(family.map((mm) => w.frameOf(mm, va(1))));
    expect([after.size, after.has(frame)]).toEqual([1, false]);
    w.expectSound();
    for (const mm of family) expect([w.peek(0, mm, va(1)), w.peek(1, mm, va(2))]).toEqual([51, 52]);
    for (const mm of family) w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });

  it("RMAP-1 tryToUnmap takes a frame from all its processes; VM_LOCKED keeps it", () => {
    const w = bootProcessWorld();
    const parent = filled(w, 1, 3);
    const child = w.processMemory.fork(w.ctx, parent);
    const { rmap } = w.processMemory;
    const frame = w.frameOf(parent, va(0));
    expect(rmap.referenced(w.ctx, frame)).toBe(2);
    expect(rmap.referenced(w.ctx, frame)).toBe(0);
    w.peek(1, child, va(0));
    expect(rmap.referenced(w.ctx, frame)).toBe(1);
    w.pages.setRefcount(frame, 3);
    expect(rmap.tryToUnmap(w.ctx, frame, 0)).toBe(0);
    expect([w.pages.mapcount(frame), w.pages.refcount(frame), w.pages.mapping(frame)]).toEqual([0, 1, 0]);
    w.expectSound();
    expect([w.peek(0, parent, va(0)), w.peek(0, child, va(0))]).toEqual([0, 0]);
    for (const mm of [child, parent]) w.processMemory.mmPut(w.ctx, mm);
  });

  it("FRK-1 the N-th allocation of a fork fails, for every N: no page lost, the parent is whole", () => {
    let nrFailed = 0;
    for (let n = 0; n < 40; n++) {
      let left = Number.POSITIVE_INFINITY;
      const w = bootProcessWorld(
        {},
        () => ({}),
        ({ pageAlloc, caches, pages, pageTables: _old, ...rest }) => {
          const tryAllocPages: typeof pageAlloc.tryAllocPages = (...args) =>
            left-- > 0 ? pageAlloc.tryAllocPages(...args) : NO_PFN;
          const allocVma: typeof caches.allocVma = (ctx) => (left-- > 0 ? caches.allocVma(ctx) : NULL);
          const allocMm: typeof caches.allocMm = (ctx) => (left-- > 0 ? caches.allocMm(ctx) : NULL);
          const failing = { ...pageAlloc, tryAllocPages };
          return {
            pageAlloc: failing,
            caches: { ...caches, allocVma, allocMm },
            pageTables: createPageTables(rest.machine.port, pages, failing, rest.vmstat),
          };
        },
      );
      const parent = filled(w, 5, 60);
      w.processMemory.mmap(w.ctx, parent, va(5000), 3 * PAGE, RW, FLAGS);
      for (let i = 0; i < 3; i++) w.poke(0, parent, va(5000 + i), i);
      w.processMemory.mprotect(w.ctx, parent, va(2), PAGE, PROT_READ);
      left = n;
      const child = w.processMemory.fork(w.ctx, parent);
      left = Number.POSITIVE_INFINITY;
      if (child === NULL) nrFailed++;
      w.expectSound();
      for (let i = 0; i < 5; i++) expect(w.peek(0, parent, va(i))).toBe(60 + i);
      expect(w.poke(1, parent, va(4), 1)).toBe(true);
      if (child !== NULL) w.processMemory.mmPut(w.ctx, child);
      w.processMemory.mmPut(w.ctx, parent);
      w.expectNoLeak();
    }
    expect(nrFailed).toBeGreaterThan(8);
    expect(nrFailed).toBeLessThan(40);
  });
});

// ── Random programs ────────────────────────────────────────────────────────────────────────────────────────────────

const NR_PAGES = 14;
const MAX_PROCESSES = 5;

interface Step {
  readonly kind: "map" | "unmap" | "protect" | "store" | "load" | "fork" | "exit" | "migrate" | "drop";
  readonly who: number;
  readonly cpu: number;
  readonly page: number;
  readonly nr: number;
  readonly prot: number;
  readonly offset: number;
  readonly value: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.oneof(
    { weight: 12, arbitrary: fc.constant("store" as const) },
    { weight: 6, arbitrary: fc.constantFrom("load" as const, "fork" as const) },
    { weight: 4, arbitrary: fc.constantFrom("unmap" as const, "protect" as const, "map" as const) },
    { weight: 3, arbitrary: fc.constantFrom("exit" as const, "migrate" as const, "drop" as const) },
  ),
  who: fc.nat(MAX_PROCESSES - 1),
  cpu: fc.nat(1),
  page: fc.nat(NR_PAGES - 1),
  nr: fc.integer({ min: 1, max: 5 }),
  prot: fc.constantFrom(RW, RW, PROT_READ, PROT_NONE),
  offset: fc.nat(PAGE - 1),
  value: fc.nat(255),
});

interface OraclePage {
  prot: number;
  bytes: Uint8Array;
}
/** What a process should see: its mapped pages. */
interface OracleProcess {
  readonly mm: PhysAddr;
  readonly pages: Map<number, OraclePage>;
}

const freshPage = (prot: number): OraclePage => ({ prot, bytes: new Uint8Array(PAGE) });

/** Bytes of a user page as the process sees them; undefined: it may not. */
const bytesAt = (w: ProcessWorld, cpu: number, mm: PhysAddr, page: number): Uint8Array | undefined => {
  const addr = w.addressOf(cpu, mm, va(page), false);
  return addr < 0 ? undefined : w.machine.port.readBytes(addr, PAGE);
};

const agrees = (seen: Uint8Array | undefined, page: OraclePage | undefined): boolean =>
  page === undefined || page.prot === PROT_NONE
    ? seen === undefined
    : seen?.every((byte, i) => byte === page.bytes[i]) === true;

/** Pages of the step that are mapped, in order. */
const inRange = (process: OracleProcess, s: Step): number[] =>
  Array.from({ length: s.nr }, (_, i) => s.page + i).filter((page) => process.pages.has(page));

/** Does one step in the world and in the oracle; true if the world's answers agree. */
function play(w: ProcessWorld, processes: OracleProcess[], s: Step): boolean {
  const process = processes[s.who % processes.length] as OracleProcess;
  const { mm, pages } = process;
  const bytes = s.nr * PAGE;
  const mapped = inRange(process, s);
  switch (s.kind) {
    case "map":
      for (let i = 0; i < s.nr; i++) pages.set(s.page + i, freshPage(s.prot));
      return w.processMemory.mmap(w.ctx, mm, va(s.page), bytes, s.prot, FLAGS) === va(s.page);
    case "unmap":
      for (const page of mapped) pages.delete(page);
      return w.processMemory.munmap(w.ctx, mm, va(s.page), bytes) === 0;
    case "protect": {
      const isWhole = mapped.length === s.nr;
      if (isWhole) for (const page of mapped) (pages.get(page) as OraclePage).prot = s.prot;
      return (w.processMemory.mprotect(w.ctx, mm, va(s.page), bytes, s.prot) === 0) === isWhole;
    }
    case "drop": {
      const isWhole = mapped.length === s.nr;
      for (const page of mapped) (pages.get(page) as OraclePage).bytes.fill(0);
      return (w.processMemory.dropPages(w.ctx, mm, va(s.page), bytes) === 0) === isWhole;
    }
    case "store": {
      const page = pages.get(s.page);
      const addr = w.addressOf(s.cpu, mm, va(s.page), true);
      if (page?.prot !== RW) return addr < 0;
      page.bytes[s.offset] = s.value;
      if (addr >= 0) w.machine.port.st8(addr + s.offset, s.value);
      return addr >= 0;
    }
    case "load":
      return agrees(bytesAt(w, s.cpu, mm, s.page), pages.get(s.page));
    case "fork": {
      if (processes.length >= MAX_PROCESSES) return true;
      const child = w.processMemory.fork(w.ctx, mm);
      if (child === NULL) return false;
      const copies = [...pages].map(([at, page]) => [at, { prot: page.prot, bytes: page.bytes.slice() }] as const);
      processes.push({ mm: child, pages: new Map(copies) });
      return true;
    }
    case "exit":
      if (processes.length === 1) return true;
      processes.splice(processes.indexOf(process), 1);
      w.processMemory.mmPut(w.ctx, mm);
      return true;
    case "migrate": {
      const frame = w.frameOf(mm, va(s.page));
      return frame === NO_PFN || w.mover.migratePage(w.ctx, frame) === 0;
    }
  }
}

/** Plays the steps; the first disagreement as a sentence, or null. */
function violation(w: ProcessWorld, list: readonly Step[]): string | null {
  const first: OracleProcess = { mm: w.processMemory.createMm(w.ctx), pages: new Map() };
  w.processMemory.mmap(w.ctx, first.mm, va(0), NR_PAGES * PAGE, RW, FLAGS);
  for (let page = 0; page < NR_PAGES; page++) first.pages.set(page, freshPage(RW));
  const processes = [first];
  for (const s of list) {
    if (!play(w, processes, s)) return `wrong answer at ${JSON.stringify(s)}`;
    const problem = w.processMemory.checkAll();
    if (problem !== null) return problem;
  }
  w.expectSound();
  for (const { mm, pages } of processes) {
    for (let page = 0; page < NR_PAGES + 5; page++) {
      for (const cpu of [0, 1]) {
        if (!agrees(bytesAt(w, cpu, mm, page), pages.get(page))) return `page ${page} is not what it should be`;
      }
    }
  }
  for (const { mm } of processes) w.processMemory.mmPut(w.ctx, mm);
  return null;
}

const program = fc.array(step, { minLength: 10, maxLength: 80 });

describe("random programs of a family of processes", () => {
  it("COW-1 … COW-3, RMAP-1 … RMAP-4, MMAP-1 … MMAP-4: every process sees its own stores and what it inherited", () => {
    fc.assert(
      fc.property(program, (list) => {
        const w = bootProcessWorld();
        expect(violation(w, list)).toBeNull();
        w.expectNoLeak();
      }),
      { numRuns: runs(25, 60) },
    );
  });

  const mutants: Readonly<Record<string, (deps: ProcessMemoryDeps) => Partial<ProcessMemoryDeps>>> = {
    "leaves W in the parent's TLBs": ({ machine }) => ({
      machine: { ...machine, mmu: { ...machine.mmu, flushAsid: () => {} } },
    }),
    "copies nothing": ({ machine }) => ({
      machine: { ...machine, port: Object.create(machine.port, { copy: { value: () => {} } }) },
    }),
    "does not count entries": ({ pages }) => ({ pages: { ...pages, setMapcount: () => {} } }),
    "takes over frames with two entries": ({ pages }) => ({
      pages: { ...pages, mapcount: () => 1, refcount: () => 1 },
    }),
    "forgets which page a frame is": ({ pages }) => ({ pages: { ...pages, setIndex: () => {} } }),
    "puts no reference": ({ refs }) => ({ refs: { ...refs, putPage: () => {} } }),
  };
  for (const [name, overrideMemory] of Object.entries(mutants)) {
    it(`a kernel that ${name} is caught`, () => {
      const found = fc.sample(program, { numRuns: 40, seed: 5 }).some((list) => {
        try {
          const w = bootProcessWorld({}, () => ({}), overrideMemory);
          if (violation(w, list) !== null) return true;
          w.expectNoLeak();
          return false;
        } catch {
          return true;
        }
      });
      expect(found).toBe(true);
    });
  }
});

describe("VMAs", () => {
  it("VMA-2 VMA-4 splits keep the index of their pages, and a range mapped anew joins both sides", () => {
    const w = bootProcessWorld();
    const mm = filled(w, 9, 1);
    const count = (): number => w.processMemory.field(mm, MM_MAP_COUNT);
    const before = count();
    w.processMemory.munmap(w.ctx, mm, va(4), PAGE);
    expect(count()).toBe(before + 1);
    expect(w.processMemory.check(mm)).toBeNull();
    w.processMemory.mmap(w.ctx, mm, va(4), PAGE, RW, FLAGS);
    expect(count()).toBe(before);
    for (let i = 0; i < 9; i++) expect(w.peek(0, mm, va(i))).toBe(i === 4 ? 0 : 1 + i);
    expect(w.mover.migratePage(w.ctx, asPfn(w.frameOf(mm, va(7))))).toBe(0);
    w.expectSound();
    w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });
});
