/**
 * Mappings of every kind: private, shared, of files, moved, resized, locked, advised.
 *
 * Goal: FMAP-1 … FMAP-4, MAP-1 … MAP-3, MRM-1, MRM-2, VMA-2, VMA-5, LCK-1, LCK-2, ADV-1, PFL-2, STK-1, ACC-1 … ACC-3,
 * ASID-1. Method: random programs over a family of processes and two files, against an oracle that keeps what each page
 * of each process should read; the auditor after each step, every byte at the end; then each rule by hand.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { USER_STACK_TOP } from "../../kernel/params.ts";
import { NO_PFN, NULL, type PhysAddr } from "../../kernel/types.ts";
import { EACCES, EAGAIN, EFAULT, EINVAL, ENOMEM, ENXIO } from "../../kernel/uapi/errno.ts";
import * as mman from "../../kernel/uapi/mman.ts";
import { PROT_NONE, PROT_READ, PROT_WRITE } from "../../kernel/uapi/mman.ts";
import { MM_ASID, MM_COMMITTED, MM_LOCKED_VM, MM_MAP_COUNT, MM_TOTAL_VM } from "../../mm/mm_struct.ts";
import { PG_MLOCKED } from "../../mm/page.ts";
import { NR_SHMEM } from "../../mm/vmstat.ts";
import { bootProcessWorld, type ProcessWorld } from "../support/process_world.ts";
import { runs } from "../support/runs.ts";

const PAGE = 4096;
const RW = PROT_READ | PROT_WRITE;
const BASE = 0x2000_0000;
const va = (page: number): number => BASE + page * PAGE;
const ANON = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS | mman.MAP_FIXED;
const UNLIMITED = Number.POSITIVE_INFINITY;

// ── The oracle ─────────────────────────────────────────────────────────────────────────────────────────────────────

interface OracleFile {
  readonly mapping: PhysAddr;
  readonly pages: Map<number, Uint8Array>;
  bytes: number;
}
interface OraclePage {
  prot: number;
  isLocked: boolean;
  readonly file: OracleFile | undefined;
  readonly isShared: boolean;
  readonly index: number;
  /** A private page that was stored to. */
  own: Uint8Array | undefined;
}
interface OracleProcess {
  readonly mm: PhysAddr;
  readonly pages: Map<number, OraclePage>;
}

const ZEROS = new Uint8Array(PAGE);
const NR_PAGES = 16;
const MAX_PROCESSES = 4;

/** What a page reads as; undefined: the access is refused. */
const contentOf = (page: OraclePage | undefined): Uint8Array | undefined => {
  if (page === undefined || page.prot === PROT_NONE) return undefined;
  if (page.own !== undefined) return page.own;
  if (page.file === undefined) return ZEROS;
  return page.index * PAGE >= page.file.bytes ? undefined : (page.file.pages.get(page.index) ?? ZEROS);
};

const filePage = (file: OracleFile, index: number): Uint8Array => {
  const bytes = file.pages.get(index) ?? new Uint8Array(PAGE);
  file.pages.set(index, bytes);
  return bytes;
};

const step = fc.record({
  kind: fc.oneof(
    { weight: 10, arbitrary: fc.constant("store" as const) },
    { weight: 5, arbitrary: fc.constantFrom("load" as const, "map" as const, "remap" as const) },
    { weight: 3, arbitrary: fc.constantFrom("fork" as const, "unmap" as const, "protect" as const, "drop" as const) },
    { weight: 2, arbitrary: fc.constantFrom("exit" as const, "lock" as const, "unlock" as const, "migrate" as const) },
    { weight: 2, arbitrary: fc.constantFrom("truncate" as const, "write" as const) },
  ),
  who: fc.nat(MAX_PROCESSES - 1),
  cpu: fc.nat(1),
  page: fc.nat(NR_PAGES - 1),
  nr: fc.integer({ min: 1, max: 5 }),
  to: fc.nat(NR_PAGES - 1),
  toNr: fc.integer({ min: 1, max: 6 }),
  prot: fc.constantFrom(RW, RW, PROT_READ, PROT_NONE),
  what: fc.constantFrom("anon", "shmem", "file 0", "file 1") as fc.Arbitrary<"anon" | "shmem" | "file 0" | "file 1">,
  isShared: fc.boolean(),
  offset: fc.nat(PAGE - 1),
  value: fc.nat(255),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

interface Play {
  readonly w: ProcessWorld;
  readonly processes: OracleProcess[];
  readonly files: readonly OracleFile[];
}

function map({ w, files }: Play, { mm, pages }: OracleProcess, s: Step): boolean {
  const isFile = s.what.startsWith("file");
  const isShared = s.what === "shmem" || (isFile && s.isShared);
  let file = isFile ? files[Number(s.what.slice(5))] : undefined;
  const flags = mman.MAP_FIXED | (isShared ? mman.MAP_SHARED : mman.MAP_PRIVATE) | (isFile ? 0 : mman.MAP_ANONYMOUS);
  const shown = file && { mapping: file.mapping, canRead: true, canWrite: true, offset: s.to * PAGE };
  if (w.processMemory.mmap(w.ctx, mm, va(s.page), s.nr * PAGE, s.prot, flags, shown) !== va(s.page)) return false;
  if (s.what === "shmem") file = { mapping: NULL, pages: new Map(), bytes: s.nr * PAGE };
  for (let i = 0; i < s.nr; i++) {
    const index = (isFile ? s.to : 0) + i;
    pages.set(s.page + i, { prot: s.prot, isLocked: false, file, isShared, index, own: undefined });
  }
  return true;
}

function remap({ w }: Play, { mm, pages }: OracleProcess, s: Step): boolean {
  const old = Array.from({ length: s.nr }, (_, i) => pages.get(s.page + i));
  const isFixed = s.isShared;
  const flags = mman.MREMAP_MAYMOVE | (isFixed ? mman.MREMAP_FIXED : 0);
  const result = w.processMemory.mremap(w.ctx, mm, va(s.page), s.nr * PAGE, s.toNr * PAGE, flags, va(s.to));
  const overlaps = isFixed && s.to < s.page + s.nr && s.page < s.to + s.toNr;
  if (overlaps) return result === -EINVAL;
  // Where one mapping ends the oracle does not know; a single page is in one.
  if (result === -EFAULT) return s.nr > 1 || old[0] === undefined;
  if (result < 0 || old.some((page) => page === undefined)) return false;
  const at = (result - BASE) / PAGE;
  if (isFixed ? at !== s.to : s.toNr <= s.nr && at !== s.page) return false;
  for (let i = 0; i < s.nr; i++) pages.delete(s.page + i);
  const last = old[s.nr - 1] as OraclePage;
  for (let i = 0; i < s.toNr; i++) {
    const more = { ...last, index: last.index + i - s.nr + 1, own: undefined };
    pages.set(at + i, old[i] ?? more);
  }
  return true;
}

function store({ w }: Play, { mm, pages }: OracleProcess, s: Step): boolean {
  const page = pages.get(s.page);
  const addr = w.addressOf(s.cpu, mm, va(s.page), true);
  const content = contentOf(page);
  if (page?.prot !== RW || content === undefined) return addr < 0;
  if (addr < 0) return false;
  w.machine.port.st8(addr + s.offset, s.value);
  if (page.isShared) filePage(page.file as OracleFile, page.index)[s.offset] = s.value;
  else {
    page.own ??= content.slice();
    page.own[s.offset] = s.value;
  }
  return true;
}

function truncate({ w, processes, files }: Play, s: Step): boolean {
  const file = files[s.who % 2] as OracleFile;
  file.bytes = s.toNr * PAGE - s.offset;
  for (const [index, bytes] of file.pages) {
    if (index * PAGE >= file.bytes) file.pages.delete(index);
    else if ((index + 1) * PAGE > file.bytes) bytes.fill(0, file.bytes - index * PAGE);
  }
  for (const { pages } of processes) {
    for (const page of pages.values()) {
      if (page.file === file && page.index * PAGE >= file.bytes) page.own = undefined;
    }
  }
  return w.processMemory.truncate(w.ctx, file.mapping, file.bytes) === 0;
}

const seen = (w: ProcessWorld, cpu: number, mm: PhysAddr, page: number): Uint8Array | undefined => {
  const addr = w.addressOf(cpu, mm, va(page), false);
  return addr < 0 ? undefined : w.machine.port.readBytes(addr, PAGE);
};
const agrees = (bytes: Uint8Array | undefined, page: OraclePage | undefined): boolean => {
  const content = contentOf(page);
  return content === undefined ? bytes === undefined : bytes?.every((byte, i) => byte === content[i]) === true;
};

/** One step; true if the world's answer agrees with the oracle's. */
function play(state: Play, s: Step): boolean {
  const { w, processes } = state;
  const process = processes[s.who % processes.length] as OracleProcess;
  const { mm, pages } = process;
  const pm = w.processMemory;
  const [addr, bytes] = [va(s.page), s.nr * PAGE];
  const touched = Array.from({ length: s.nr }, (_, i) => pages.get(s.page + i));
  const mapped = touched.filter((page) => page !== undefined);
  const isWhole = mapped.length === s.nr;
  switch (s.kind) {
    case "map":
      return map(state, process, s);
    case "remap":
      return remap(state, process, s);
    case "store":
      return store(state, process, s);
    case "load":
      return agrees(seen(w, s.cpu, mm, s.page), pages.get(s.page));
    case "unmap":
      for (let i = 0; i < s.nr; i++) pages.delete(s.page + i);
      return pm.munmap(w.ctx, mm, addr, bytes) === 0;
    case "protect":
      if (isWhole) for (const page of mapped) page.prot = s.prot;
      return pm.mprotect(w.ctx, mm, addr, bytes, s.prot) === (isWhole ? 0 : -ENOMEM);
    case "drop":
      if (mapped.some(({ isLocked }) => isLocked)) return true;
      for (const page of mapped) page.own = undefined;
      return pm.madvise(w.ctx, mm, addr, bytes, mman.MADV_DONTNEED) === (isWhole ? 0 : -ENOMEM);
    case "lock":
    case "unlock": {
      if (isWhole) for (const page of mapped) page.isLocked = s.kind === "lock";
      const result = s.kind === "lock" ? pm.mlock(w.ctx, mm, addr, bytes) : pm.munlock(w.ctx, mm, addr, bytes);
      return isWhole ? result === 0 || result === -EAGAIN : result === -ENOMEM;
    }
    case "fork": {
      if (processes.length === MAX_PROCESSES) return true;
      const child = pm.fork(w.ctx, mm);
      const copies = [...pages].map(
        ([at, page]) => [at, { ...page, isLocked: false, own: page.own?.slice() }] as const,
      );
      processes.push({ mm: child, pages: new Map(copies) });
      return child !== NULL;
    }
    case "exit":
      if (processes.length === 1) return true;
      processes.splice(processes.indexOf(process), 1);
      pm.mmPut(w.ctx, mm);
      return true;
    case "migrate": {
      const frame = w.frameOf(mm, addr);
      return frame === NO_PFN || w.mover.migratePage(w.ctx, frame) === 0;
    }
    case "truncate":
      return truncate(state, s);
    case "write": {
      const file = state.files[s.who % 2] as OracleFile;
      if (s.page * PAGE >= file.bytes) return true;
      filePage(file, s.page)[s.offset] = s.value;
      w.machine.port.st8(pm.files.obtain(w.ctx, file.mapping, s.page) * PAGE + s.offset, s.value);
      return true;
    }
  }
}

function violation(w: ProcessWorld, list: readonly Step[]): string | null {
  const files = [0, 1].map((): OracleFile => {
    const mapping = w.processMemory.files.create(w.ctx, 0);
    w.processMemory.files.setSize(mapping, 6 * PAGE);
    return { mapping, pages: new Map(), bytes: 6 * PAGE };
  });
  const state: Play = { w, files, processes: [{ mm: w.processMemory.createMm(w.ctx), pages: new Map() }] };
  for (const s of list) {
    if (!play(state, s)) return `wrong answer at ${JSON.stringify(s)}`;
    const problem = w.processMemory.checkAll();
    if (problem !== null) return `${problem} after ${JSON.stringify(s)}`;
  }
  w.expectSound();
  for (const { mm, pages } of state.processes) {
    for (const page of new Set([...pages.keys(), ...Array.from({ length: NR_PAGES + 6 }, (_, i) => i)])) {
      for (const cpu of [0, 1]) {
        if (!agrees(seen(w, cpu, mm, page), pages.get(page))) return `page ${page} is not what it should be`;
      }
    }
    w.processMemory.mmPut(w.ctx, mm);
  }
  for (const { mapping } of files) w.processMemory.files.put(w.ctx, mapping);
  return null;
}

describe("random programs", () => {
  it("FMAP, MAP, MRM, VMA, LCK, ADV: every page of every process reads what the oracle says", () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 90 }), (list) => {
        const w = bootProcessWorld();
        expect(violation(w, list)).toBeNull();
        w.expectNoLeak();
      }),
      { numRuns: runs(20, 50) },
    );
  });
});

// ── One rule at a time ─────────────────────────────────────────────────────────────────────────────────────────────

const world = () => {
  const w = bootProcessWorld();
  return { w, pm: w.processMemory, mm: w.processMemory.createMm(w.ctx) };
};

describe("files", () => {
  it("PFL-2 a page beyond the end is −ENXIO; MAP-3 a file opened for reading is never writable through memory", () => {
    const { w, pm, mm } = world();
    const mapping = pm.files.create(w.ctx, 0);
    pm.files.setSize(mapping, 100);
    const readOnly = { mapping, canRead: true, canWrite: false, offset: 0 };
    const shared = mman.MAP_SHARED | mman.MAP_FIXED;
    expect(pm.mmap(w.ctx, mm, va(0), 2 * PAGE, RW, shared, readOnly)).toBe(-EACCES);
    expect(pm.mmap(w.ctx, mm, va(0), 2 * PAGE, PROT_READ, shared, readOnly)).toBe(va(0));
    expect(pm.mprotect(w.ctx, mm, va(0), PAGE, RW)).toBe(-EACCES);
    expect(w.peek(0, mm, va(0))).toBe(0);
    expect(pm.handleFault(w.ctx, mm, va(1), false)).toBe(-ENXIO);
    expect(pm.mmap(w.ctx, mm, va(4), PAGE, RW, mman.MAP_PRIVATE | mman.MAP_FIXED, readOnly)).toBe(va(4));
    expect(w.poke(0, mm, va(4), 9)).toBe(true);
    expect([w.peek(0, mm, va(0)), w.peek(0, mm, va(4))]).toEqual([0, 9]);
    pm.files.put(w.ctx, mapping);
    expect(w.peek(1, mm, va(4))).toBe(9);
    w.expectSound();
    pm.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });

  it("ACC-1 shared memory is promised once, however many map it, and goes with the last", () => {
    const { w, pm, mm } = world();
    const before = pm.field(mm, MM_COMMITTED);
    expect(pm.mmap(w.ctx, mm, va(0), 4 * PAGE, RW, mman.MAP_SHARED | mman.MAP_ANONYMOUS | mman.MAP_FIXED)).toBe(va(0));
    const child = pm.fork(w.ctx, mm);
    w.poke(0, child, va(2), 77);
    expect([w.peek(1, mm, va(2)), w.vmstat.item(NR_SHMEM), pm.field(mm, MM_COMMITTED)]).toEqual([77, 1, before]);
    w.expectSound();
    for (const each of [mm, child]) pm.mmPut(w.ctx, each);
    expect(w.vmstat.item(NR_SHMEM)).toBe(0);
    w.expectNoLeak();
  });
});

describe("the stack", () => {
  it("STK-1 grows to its limit, and never closer than 256 pages to the mapping below", () => {
    const { w, pm, mm } = world();
    const at = (page: number): number => USER_STACK_TOP - page * PAGE;
    const before = pm.field(mm, MM_TOTAL_VM);
    expect(w.poke(0, mm, at(900), 1)).toBe(true);
    expect(pm.field(mm, MM_TOTAL_VM)).toBe(before + 900 - 33);
    expect(pm.mmap(w.ctx, mm, at(1400), PAGE, RW, ANON)).toBe(at(1400));
    expect([w.poke(0, mm, at(1144), 1), w.poke(0, mm, at(1143), 1)]).toEqual([false, true]);
    pm.munmap(w.ctx, mm, at(1400), PAGE);
    expect([w.poke(0, mm, at(2049), 1), w.poke(0, mm, at(2048), 1)]).toEqual([false, true]);
    w.expectSound();
    pm.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });
});

describe("limits", () => {
  it("ACC-2 RLIMIT_AS, DATA and MEMLOCK bind to the page", () => {
    const { w, pm, mm } = world();
    const stack = pm.field(mm, MM_TOTAL_VM);
    const limits = { as: UNLIMITED, data: UNLIMITED, stack: 8 * 2 ** 20, memlock: UNLIMITED };
    const map = (page: number, nr: number, prot = RW): number => pm.mmap(w.ctx, mm, va(page), nr * PAGE, prot, ANON);
    pm.setLimits(mm, { ...limits, as: (stack + 5) * PAGE });
    expect([map(0, 6), map(0, 5), map(10, 1)]).toEqual([-ENOMEM, va(0), -ENOMEM]);
    pm.setLimits(mm, { ...limits, data: 6 * PAGE });
    expect([map(10, 2), map(10, 1), map(20, 3, PROT_READ)]).toEqual([-ENOMEM, va(10), va(20)]);
    expect(pm.mprotect(w.ctx, mm, va(20), PAGE, RW)).toBe(-ENOMEM);
    pm.setLimits(mm, { ...limits, memlock: 2 * PAGE });
    expect(pm.mlock(w.ctx, mm, va(0) + 5, 3 * PAGE)).toBe(-ENOMEM);
    expect(pm.mlock(w.ctx, mm, va(0) + 5, PAGE)).toBe(0);
    expect(pm.field(mm, MM_LOCKED_VM)).toBe(2);
    expect(w.pages.flags(w.frameOf(mm, va(1))) & PG_MLOCKED).toBe(PG_MLOCKED);
    expect(pm.mlockall(w.ctx, mm, mman.MCL_CURRENT)).toBe(-ENOMEM);
    w.expectSound();
    pm.munlockall(w.ctx, mm);
    expect(w.pages.flags(w.frameOf(mm, va(1))) & PG_MLOCKED).toBe(0);
    pm.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });

  it("ACC-3 mode 0 refuses the absurd, 1 nothing, 2 what passes the limit", () => {
    const { w, pm, mm } = world();
    const all = w.zones.totalManaged();
    const ask = (nr: number): boolean => {
      const addr = pm.mmap(w.ctx, mm, va(0), nr * PAGE, RW, ANON);
      return addr === va(0) && pm.munmap(w.ctx, mm, addr, nr * PAGE) === 0;
    };
    expect([ask(all), ask(all + 1)]).toEqual([true, false]);
    pm.account.setMode(1);
    expect(ask(4 * all)).toBe(true);
    pm.account.setMode(2);
    const room = pm.account.commitLimit() - pm.field(mm, MM_COMMITTED);
    expect([ask(room), ask(room + 1)]).toEqual([true, false]);
    pm.account.setRatio(100);
    expect(ask(room + 1)).toBe(true);
    pm.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });
});

describe("ranges", () => {
  it("VMA-2 VMA-5 protection there and back leaves one VMA; the highest gap that fits is found", () => {
    const { w, pm, mm } = world();
    const before = pm.field(mm, MM_MAP_COUNT);
    pm.mmap(w.ctx, mm, va(0), 9 * PAGE, RW, ANON);
    for (const page of [2, 6]) pm.mprotect(w.ctx, mm, va(page), PAGE, PROT_READ);
    expect(pm.field(mm, MM_MAP_COUNT)).toBe(before + 5);
    for (const page of [2, 6]) pm.mprotect(w.ctx, mm, va(page), PAGE, RW);
    expect(pm.field(mm, MM_MAP_COUNT)).toBe(before + 1);
    const anywhere = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS;
    const top = pm.mmap(w.ctx, mm, 0, 64 * PAGE, PROT_READ, anywhere);
    pm.munmap(w.ctx, mm, top + 10 * PAGE, 4 * PAGE);
    pm.munmap(w.ctx, mm, top + 30 * PAGE, 3 * PAGE);
    expect(pm.mmap(w.ctx, mm, 0, 4 * PAGE, RW, anywhere)).toBe(top + 10 * PAGE);
    expect(pm.mmap(w.ctx, mm, 0, 3 * PAGE, RW, anywhere)).toBe(top + 30 * PAGE);
    expect(pm.mmap(w.ctx, mm, 0, 4 * PAGE, RW, anywhere)).toBe(top - 4 * PAGE);
    pm.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });

  it("MRM-1 every allocation of a move fails once: the mapping stays with its pages", () => {
    for (let n = 0; n < 8; n++) {
      let left = UNLIMITED;
      const w = bootProcessWorld({}, undefined, ({ caches }) => ({
        caches: { ...caches, allocVma: (ctx) => (left-- > 0 ? caches.allocVma(ctx) : NULL) },
      }));
      const pm = w.processMemory;
      const mm = pm.createMm(w.ctx);
      pm.mmap(w.ctx, mm, va(0), 6 * PAGE, RW, ANON);
      for (let i = 0; i < 6; i++) w.poke(0, mm, va(i), 70 + i);
      left = n;
      const flags = mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED;
      const result = pm.mremap(w.ctx, mm, va(2), 2 * PAGE, 3 * PAGE, flags, va(1000));
      left = UNLIMITED;
      expect(result).toBe(n < 3 ? -ENOMEM : va(1000));
      w.expectSound();
      const moved = n < 3 ? va(2) : va(1000);
      expect([0, 1].map((i) => w.peek(1, mm, moved + i * PAGE))).toEqual([72, 73]);
      pm.mmPut(w.ctx, mm);
      w.expectNoLeak();
    }
  });

  it("ADV-1 mincore tells what is there; advice over a hole is −ENOMEM and serves the rest", () => {
    const { w, pm, mm } = world();
    for (const page of [0, 3]) pm.mmap(w.ctx, mm, va(page), 2 * PAGE, RW, ANON);
    for (const page of [1, 4]) w.poke(0, mm, va(page), 5);
    expect(pm.mincore(w.ctx, mm, va(0), 2 * PAGE)).toEqual(Uint8Array.of(0, 1));
    expect(pm.mincore(w.ctx, mm, va(0), 5 * PAGE)).toBe(-ENOMEM);
    expect(pm.madvise(w.ctx, mm, va(0), 5 * PAGE, mman.MADV_DONTNEED)).toBe(-ENOMEM);
    expect(pm.mincore(w.ctx, mm, va(3), 2 * PAGE)).toEqual(Uint8Array.of(0, 0));
    expect([pm.madvise(w.ctx, mm, va(0) + 1, PAGE, 4), pm.madvise(w.ctx, mm, va(0), PAGE, 99)]).toEqual([
      -EINVAL,
      -EINVAL,
    ]);
    expect(pm.msync(mm, va(0), PAGE, mman.MS_SYNC | mman.MS_ASYNC).error).toBe(-EINVAL);
    pm.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });

  it("ASID-1 300 address spaces that live at once do not see each other's memory", () => {
    const w = bootProcessWorld({ ramBytes: 48 * 2 ** 20 });
    const mms = Array.from({ length: 300 }, () => w.processMemory.createMm(w.ctx));
    for (const [i, mm] of mms.entries()) {
      w.processMemory.mmap(w.ctx, mm, va(0), PAGE, RW, ANON);
      w.poke(i % 2, mm, va(0), i);
    }
    for (const [i, mm] of mms.entries()) for (const cpu of [0, 1]) expect(w.peek(cpu, mm, va(0))).toBe(i);
    expect(w.processMemory.field(mms[299] as PhysAddr, MM_ASID)).toBeLessThan(256);
    for (const mm of mms) w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });
});
