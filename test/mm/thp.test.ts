/**
 * Huge pages of processes.
 *
 * Goal: THP-1 … THP-4. Method: each way in (fault, collapse) and each way out (split by every call that edits entries),
 * with the checks of all address spaces after every step; random programs of a family of processes against an oracle of
 * words; the same programs without memory.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { USER_MMAP_TOP } from "../../kernel/params.ts";
import type { PhysAddr } from "../../kernel/types.ts";
import { EAGAIN, EINVAL } from "../../kernel/uapi/errno.ts";
import {
  MADV_COLLAPSE,
  MADV_DONTNEED,
  MADV_HUGEPAGE,
  MADV_NOHUGEPAGE,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  PROT_READ,
  PROT_WRITE,
} from "../../kernel/uapi/mman.ts";
import { GFP_HIGHUSER_MOVABLE } from "../../mm/gfp.ts";
import { MM_FAULTS } from "../../mm/mm_struct.ts";
import { NR_ANON_THPS, THP_COLLAPSE_ALLOC, THP_FAULT_ALLOC, THP_FAULT_FALLBACK, THP_SPLIT } from "../../mm/vmstat.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel } from "../support/boot_kernel.ts";
import { bootProcessWorld, type ProcessWorld } from "../support/process_world.ts";
import { runs } from "../support/runs.ts";

const PAGE = 4096;
const HUGE = 512 * PAGE;
const MIB = 2 ** 20;
const RW = PROT_READ | PROT_WRITE;
/** Two huge pages, aligned, with a page before them that belongs to the mapping, too. */
const BASE = Math.floor(USER_MMAP_TOP / HUGE) * HUGE - 16 * HUGE;

function world(ramBytes = 48 * MIB) {
  const w = bootProcessWorld({ ramBytes, debugTlb: true });
  w.machine.mmu.onStale((stale) => {
    throw new Error(`STL-1: ${JSON.stringify(stale)}`);
  });
  return w;
}

function mapped(w: ProcessWorld, bytes = 2 * HUGE, advice = MADV_HUGEPAGE): PhysAddr {
  const mm = w.processMemory.createMm(w.ctx);
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  expect(w.processMemory.mmap(w.ctx, mm, BASE, bytes, RW, flags)).toBe(BASE);
  expect(w.processMemory.madvise(w.ctx, mm, BASE, bytes, advice)).toBe(0);
  return mm;
}

const huge = (w: ProcessWorld): number => w.vmstat.item(NR_ANON_THPS);

describe("a fault", () => {
  it("THP-1 THP-3 the first in 2 MiB brings 512 pages; 512 times fewer faults, the same memory", () => {
    const w = world();
    const mm = mapped(w);
    for (let page = 0; page < 1024; page++) expect(w.poke(page & 1, mm, BASE + page * PAGE, page)).toBe(true);
    expect(w.processMemory.field(mm, MM_FAULTS)).toBe(2);
    expect([huge(w), w.processMemory.rss(mm), w.vmstat.event(THP_FAULT_ALLOC)]).toEqual([2, 1024, 2]);
    w.expectSound();
    for (let page = 0; page < 1024; page++) expect(w.peek(page & 1, mm, BASE + page * PAGE)).toBe(page);
    expect(w.processMemory.munmap(w.ctx, mm, BASE, 2 * HUGE)).toBe(0);
    expect([huge(w), w.processMemory.rss(mm), w.vmstat.item(THP_SPLIT)]).toEqual([0, 0, 2]);
    w.processMemory.mmPut(w.ctx, mm);
    w.expectSound();
    w.expectNoLeak();
  });

  it("takes small pages without advice, against it, at the edges of a mapping, next to pages that are there", () => {
    const w = world();
    const { thp } = w.processMemory;
    const touched = (mm: PhysAddr, at: number): number => {
      w.poke(0, mm, at, 1);
      const [nr, present] = [huge(w), w.processMemory.rss(mm)];
      w.expectSound();
      w.processMemory.mmPut(w.ctx, mm);
      expect(present).toBe(nr === 0 ? 1 : 512);
      return nr;
    };
    expect(touched(mapped(w, HUGE, MADV_NOHUGEPAGE), BASE)).toBe(0);
    thp.setPolicy(0);
    expect(touched(mapped(w, HUGE, MADV_NOHUGEPAGE), BASE)).toBe(0);
    expect(touched(mapped(w, HUGE, 0), BASE)).toBe(1);
    expect(touched(mapped(w, HUGE - PAGE, 0), BASE)).toBe(0);
    thp.setPolicy(2);
    expect(touched(mapped(w), BASE)).toBe(0);
    thp.setPolicy(1);
    const mm = mapped(w);
    thp.setPolicy(2);
    w.poke(0, mm, BASE + 5 * PAGE, 1);
    thp.setPolicy(1);
    w.poke(0, mm, BASE, 1);
    expect([huge(w), w.processMemory.rss(mm)]).toEqual([0, 2]);
    // An empty table is no obstacle: it is the one that is set aside.
    expect(w.processMemory.madvise(w.ctx, mm, BASE, HUGE, MADV_DONTNEED)).toBe(0);
    w.poke(0, mm, BASE, 1);
    expect([huge(w), w.processMemory.rss(mm)]).toEqual([1, 512]);
    w.expectSound();
    w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });

  it("without a block of 2 MiB is an ordinary fault", () => {
    const w = world();
    const mm = mapped(w);
    const held: number[] = [];
    for (;;) {
      const pfn = w.pageAlloc.tryAllocPages(w.ctx, 9, GFP_HIGHUSER_MOVABLE);
      if (pfn === 0) break;
      held.push(pfn);
    }
    expect(w.poke(0, mm, BASE, 7)).toBe(true);
    expect([huge(w), w.processMemory.rss(mm), w.vmstat.event(THP_FAULT_FALLBACK)]).toEqual([0, 1, 1]);
    for (const pfn of held) w.pageAlloc.freePages(w.ctx, pfn as never, 9);
    w.expectSound();
    w.processMemory.mmPut(w.ctx, mm);
    w.expectNoLeak();
  });
});

describe("THP-2 what splits a huge page", () => {
  const calls: Readonly<Record<string, (w: ProcessWorld, mm: PhysAddr) => unknown>> = {
    "munmap of its middle": (w, mm) => w.processMemory.munmap(w.ctx, mm, BASE + 100 * PAGE, 50 * PAGE),
    "mprotect of a part": (w, mm) => w.processMemory.mprotect(w.ctx, mm, BASE + PAGE, PAGE, PROT_READ),
    "MADV_DONTNEED of a page": (w, mm) => w.processMemory.madvise(w.ctx, mm, BASE + 511 * PAGE, PAGE, MADV_DONTNEED),
    "mremap of a part": (w, mm) => w.processMemory.mremap(w.ctx, mm, BASE, 10 * PAGE, 10 * PAGE, 3, BASE + 8 * HUGE),
    "mlock of a part": (w, mm) => w.processMemory.mlock(w.ctx, mm, BASE, PAGE),
    "a move of one of its pages": (w, mm) => w.mover.migratePage(w.ctx, frameOf(w, mm, BASE + 3 * PAGE)),
    "what reclaim does to one of its pages": (w, mm) =>
      w.processMemory.rmap.referenced(w.ctx, frameOf(w, mm, BASE + 9 * PAGE)),
  };

  /** Looks without splitting. */
  const frameOf = (w: ProcessWorld, mm: PhysAddr, at: number) => {
    const addr = w.addressOf(0, mm, at, false);
    return Math.floor(addr / PAGE) as never;
  };

  for (const [name, call] of Object.entries(calls)) {
    it(name, () => {
      const w = world();
      const mm = mapped(w);
      for (let page = 0; page < 1024; page++) w.poke(page & 1, mm, BASE + page * PAGE, page + 1);
      call(w, mm);
      expect([huge(w), w.vmstat.item(THP_SPLIT)]).toEqual([1, 1]);
      w.expectSound();
      for (const page of [10, 11, 99, 150, 510, 512, 1023]) expect(w.peek(0, mm, BASE + page * PAGE)).toBe(page + 1);
      w.processMemory.mmPut(w.ctx, mm);
      w.expectSound();
      w.expectNoLeak();
    });
  }

  it("readers do not: mincore, a second touch, MAP_POPULATE", () => {
    const w = world();
    const mm = mapped(w);
    w.poke(0, mm, BASE, 1);
    expect(w.processMemory.mincore(w.ctx, mm, BASE, 2 * HUGE)).toEqual(
      Uint8Array.from({ length: 1024 }, (_, page) => (page < 512 ? 1 : 0)),
    );
    expect(w.processMemory.handleFault(w.ctx, mm, BASE + 7 * PAGE, true)).toBe(0);
    expect([huge(w), w.vmstat.item(THP_SPLIT)]).toEqual([1, 0]);
  });
});

describe("MADV_COLLAPSE", () => {
  it("THP-4 makes one of 512 small pages, with their content; a page that is missing or shared is −EAGAIN", () => {
    const w = world();
    const { processMemory, ctx } = w;
    const mm = mapped(w, 2 * HUGE, 0);
    for (let page = 0; page < 511; page++) w.poke(page & 1, mm, BASE + page * PAGE, page + 1);
    expect(processMemory.madvise(ctx, mm, BASE, HUGE, MADV_COLLAPSE)).toBe(-EAGAIN);
    w.poke(0, mm, BASE + 511 * PAGE, 512);
    const child = processMemory.fork(ctx, mm);
    expect(processMemory.madvise(ctx, mm, BASE, HUGE, MADV_COLLAPSE)).toBe(-EAGAIN);
    processMemory.mmPut(ctx, child);
    expect(processMemory.madvise(ctx, mm, BASE, HUGE, MADV_COLLAPSE)).toBe(0);
    expect([huge(w), processMemory.rss(mm), w.vmstat.event(THP_COLLAPSE_ALLOC)]).toEqual([1, 512, 1]);
    w.expectSound();
    for (let page = 0; page < 512; page++) expect(w.peek(page & 1, mm, BASE + page * PAGE)).toBe(page + 1);
    expect(w.poke(1, mm, BASE, 99)).toBe(true);
    expect(processMemory.madvise(ctx, mm, BASE, HUGE, MADV_COLLAPSE)).toBe(0);
    expect(w.vmstat.event(THP_COLLAPSE_ALLOC)).toBe(1);
    expect(processMemory.mlock(ctx, mm, BASE, PAGE)).toBe(0);
    expect(processMemory.madvise(ctx, mm, BASE, HUGE, MADV_COLLAPSE)).toBe(0);
    expect(processMemory.mlock(ctx, mm, BASE, HUGE)).toBe(0);
    expect(processMemory.madvise(ctx, mm, BASE, HUGE, MADV_COLLAPSE)).toBe(-EINVAL);
    processMemory.mmPut(ctx, mm);
    w.expectSound();
    w.expectNoLeak();
  });
});

describe("khugepaged", () => {
  it("KHP-1 KHP-2 a scan looks at pages_to_scan, goes on where it stopped, rests until a fault wants more", () => {
    const w = world();
    const { thp } = w.processMemory;
    const { scanner } = thp;
    const mm = mapped(w, 4 * HUGE);
    thp.setPolicy(2);
    for (let page = 0; page < 4 * 512; page++) w.poke(0, mm, BASE + page * PAGE, page);
    thp.setPolicy(1);
    scanner.setPagesToScan(1024);
    scanner.setSleepMillis(1);
    const scan = (now: number): number => {
      if (!scanner.lookAround(now)) return -1;
      while (scanner.scanStep(w.ctx));
      w.expectSound();
      return scanner.nrCollapsed();
    };
    expect(scan(1e9)).toBe(-1);
    scanner.wanted();
    expect(scan(1e9)).toBe(2);
    expect(scan(1e9 + 999_999)).toBe(-1);
    expect([scan(1e9 + 1e6), scanner.nrFullScans()]).toEqual([4, 0]);
    expect([scan(1e9 + 2e6), scanner.nrFullScans()]).toEqual([4, 1]);
    expect(scan(2e9)).toBe(-1);
    for (let page = 0; page < 4 * 512; page++) expect(w.peek(1, mm, BASE + page * PAGE)).toBe(page);
    // The address space of the cursor ends between two scans.
    scanner.wanted();
    const other = mapped(w, HUGE);
    w.processMemory.mmPut(w.ctx, mm);
    expect(scan(3e9)).toBe(4);
    w.processMemory.mmPut(w.ctx, other);
    w.expectNoLeak();
  });

  const sysfs = "/sys/kernel/mm/transparent_hugepage";
  const boot = (cmdline: string) =>
    bootKernel(Object.fromEntries(builtinPrograms()), { cmdline: `quiet debug_tlb=on ${cmdline}`, ramBytes: 64 * MIB });

  it("collapses what was touched in pieces; a program sees 512 times fewer faults with --huge", () => {
    const t = boot("transparent_hugepage=always");
    expect(
      t.run("/bin/sh", "-c", `echo 0 > ${sysfs}/khugepaged/scan_sleep_millisecs; memhog 16M --hold 900000000`),
    ).toBe(0);
    const collapsed = Number(t.kernel.readFile(`${sysfs}/khugepaged/pages_collapsed`));
    expect(collapsed).toBeGreaterThanOrEqual(6);
    expect(Number(t.kernel.readFile(`${sysfs}/khugepaged/full_scans`))).toBeGreaterThan(0);
    expect(t.kernel.readFile("/proc/vmstat")).toContain(`thp_collapse_alloc ${collapsed}\n`);
    expect(t.kernel.readFile("/proc/meminfo")).toMatch(/AnonHugePages: +0 kB/);
    expect(t.kernel.nrReports()).toBe(0);
    t.expectNoLeak();
  });

  it("the default is madvise; memhog --huge asks, AnonHugePages tells while it runs", () => {
    const t = boot("");
    expect(
      t.run("/bin/sh", "-c", "memhog 16M --huge --hold 3000000000 & sleep 1; grep AnonHuge /proc/meminfo; wait"),
    ).toBe(0);
    expect(t.kernel.readFile(`${sysfs}/enabled`)).toBe("always [madvise] never\n");
    expect(Number(/AnonHugePages: +(\d+) kB/.exec(t.output())?.[1])).toBeGreaterThanOrEqual(7 * 2048);
    expect(t.output()).toContain("memhog: 16384 KiB touched");
    t.expectNoLeak();
  });

  it("enabled takes one of its three words", () => {
    const t = boot("");
    t.run(
      "/bin/sh",
      "-c",
      ["never", "always", "perhaps"].map((word) => `echo ${word} > ${sysfs}/enabled; echo $?`).join("; "),
    );
    expect(t.output().match(/^\d+$/gm)).toEqual(["0", "0", "1"]);
    expect(t.kernel.readFile(`${sysfs}/enabled`)).toBe("[always] madvise never\n");
  });
});

// ── Random programs ────────────────────────────────────────────────────────────────────────────────────────────────

type Step = readonly [kind: string, who: number, page: number, nr: number];

const step: fc.Arbitrary<Step> = fc.tuple(
  fc.constantFrom("poke", "poke", "poke", "unmap", "map", "drop", "fork", "exit", "collapse", "fill", "move", "lock"),
  fc.nat(3),
  fc.nat(1023),
  fc.oneof(fc.integer({ min: 1, max: 8 }), fc.constant(512), fc.constant(1024)),
);

interface Process {
  mm: PhysAddr;
  /** Word 0 of each page; absent: not mapped. */
  words: Map<number, number>;
}

function violation(w: ProcessWorld, steps: readonly Step[]): string | null {
  const { processMemory, ctx } = w;
  const whole = Array.from({ length: 1024 }, (_, page) => [page, 0] as const);
  const processes: Process[] = [{ mm: mapped(w), words: new Map(whole) }];
  let stamp = 1;
  for (const [kind, who, page, most] of steps) {
    const process = processes[who % processes.length] as Process;
    const { mm, words } = process;
    const nr = Math.min(most, 1024 - page);
    const at = BASE + page * PAGE;
    const range = Array.from({ length: nr }, (_, i) => page + i);
    const cpu = stamp & 1;
    if (kind === "poke" && words.has(page) && w.poke(cpu, mm, at, ++stamp)) words.set(page, stamp);
    if (kind === "fill")
      for (const p of range) if (words.has(p) && w.poke(cpu, mm, BASE + p * PAGE, p)) words.set(p, p);
    if (kind === "unmap" && processMemory.munmap(ctx, mm, at, nr * PAGE) === 0) for (const p of range) words.delete(p);
    if (kind === "drop" && range.every((p) => words.has(p))) {
      if (processMemory.madvise(ctx, mm, at, nr * PAGE, MADV_DONTNEED) === 0) for (const p of range) words.set(p, 0);
    }
    if (kind === "map") {
      const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
      if (processMemory.mmap(ctx, mm, at, nr * PAGE, RW, flags) < 0) continue;
      for (const p of range) words.set(p, 0);
      processMemory.madvise(ctx, mm, at, nr * PAGE, MADV_HUGEPAGE);
    }
    if (kind === "collapse") processMemory.madvise(ctx, mm, BASE, 2 * HUGE, MADV_COLLAPSE);
    if (kind === "lock") processMemory.mlock(ctx, mm, at, PAGE);
    if (kind === "lock") processMemory.munlock(ctx, mm, at, PAGE);
    if (kind === "move" && words.has(page)) {
      const address = w.addressOf(cpu, mm, at, false);
      if (address >= 0) w.mover.migratePage(ctx, Math.floor(address / PAGE) as never);
    }
    if (kind === "fork" && processes.length < 3) {
      const child = processMemory.fork(ctx, mm);
      if (child !== 0) processes.push({ mm: child, words: new Map(words) });
    }
    if (kind === "exit" && processes.length > 1) {
      processMemory.mmPut(ctx, mm);
      processes.splice(processes.indexOf(process), 1);
    }
    const problem = processMemory.checkAll();
    if (problem !== null) return `${kind}: ${problem}`;
  }
  for (const { mm, words } of processes) {
    for (const [page, word] of words) {
      const got = w.peek(page & 1, mm, BASE + page * PAGE);
      if (got !== word && got !== undefined) return `THP-4: page ${page} is ${got}, not ${word}`;
    }
    processMemory.mmPut(ctx, mm);
  }
  return processMemory.checkAll();
}

describe("random programs", () => {
  const program = fc.array(step, { minLength: 5, maxLength: 30 });

  it("THP-4 with huge pages, each process reads what it wrote, and every check holds after every step", () => {
    fc.assert(
      fc.property(program, (steps) => {
        const w = world();
        expect(violation(w, steps)).toBeNull();
        w.expectSound();
        w.expectNoLeak();
      }),
      { numRuns: runs(15, 40) },
    );
  });

  it("THP-4 short of memory, too: what fails leaves nothing behind", () => {
    fc.assert(
      fc.property(program, (steps) => {
        const w = world(12 * MIB);
        expect(violation(w, steps)).toBeNull();
        w.expectSound();
        w.expectNoLeak();
      }),
      { numRuns: runs(10, 25) },
    );
  });
});
