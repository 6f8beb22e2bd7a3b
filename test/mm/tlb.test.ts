/**
 * Address-space tags, shoot-downs, and the detector of stale translations.
 *
 * Goal: ASID-1, ASID-2, STL-1, TLB-1 … TLB-4. Method: more address spaces than tags on two CPUs; changes of entries
 * with and without a flush on a checking MMU; who is interrupted, how often, and what it costs whom; when frames become
 * free; a whole kernel under fork, migration and mprotect with debug_tlb=on.
 */

import { describe, expect, it } from "vitest";
import { CYC_IPI, CYC_IRQ, CYC_TLB_FLUSH } from "../../kernel/arch/charges.ts";
import { IRQ_TLB_FLUSH } from "../../kernel/arch/irqchip.ts";
import type { StaleTranslation } from "../../kernel/arch/mmu.ts";
import { PTE_W } from "../../kernel/arch/mmu.ts";
import { USER_HEAP_BASE } from "../../kernel/params.ts";
import { type PhysAddr, PREEMPTED } from "../../kernel/types.ts";
import { MADV_DONTNEED, PROT_READ } from "../../kernel/uapi/mman.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { SYS_mmap, SYS_munmap } from "../../kernel/uapi/syscall.ts";
import { SHARED_ASID } from "../../mm/asid.ts";
import { MM_ASID, MM_PGD } from "../../mm/mm_struct.ts";
import { createTlbBatch } from "../../mm/tlb.ts";
import {
  NR_TLB_LOCAL_FLUSH_ALL,
  NR_TLB_LOCAL_FLUSH_ONE,
  NR_TLB_REMOTE_FLUSH,
  NR_TLB_REMOTE_FLUSH_RECEIVED,
} from "../../mm/vmstat.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { createLibc } from "../../userland/libc.ts";
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

describe("shoot-downs", () => {
  /** An address space of `nrPages` that all four CPUs execute and have touched the first 64 pages of. */
  function onFourCpus(nrPages: number) {
    const w = bootProcessWorld({ nrCpus: 4 });
    w.machine.harts.online.fill(1);
    const mm = w.processMemory.createMm(w.ctx);
    w.processMemory.brk(w.ctx, mm, va + nrPages * PAGE);
    for (let page = 0; page < nrPages; page++) w.poke(0, mm, va + page * PAGE, page);
    for (let cpu = 0; cpu < 4; cpu++) {
      for (let page = 0; page < Math.min(64, nrPages); page++) w.peek(cpu, mm, va + page * PAGE);
    }
    const { clock } = w.machine.harts;
    const spent = (work: () => void): number[] => {
      const before = [...clock];
      work();
      return [...clock].map((now, cpu) => now - (before[cpu] as number));
    };
    /** CPU `cpu` takes what is pending. */
    const answer = (cpu: number): number => {
      clock[cpu] = Math.max(clock[cpu] as number, clock[0] as number);
      const line = w.machine.irqChip.acknowledge(cpu);
      if (line === IRQ_TLB_FLUSH) w.processMemory.tlb.interrupted(w.contexts.irqContext(cpu));
      if (line >= 0) w.machine.irqChip.complete(cpu, line);
      return line;
    };
    return { w, mm, tlb: w.processMemory.tlb, spent, answer, event: (id: number) => w.vmstat.event(id) };
  }

  it("TLB-1 TLB-4 one page on four CPUs: the sender pays and waits, the others pay when they take the interrupt", () => {
    const { w, mm, tlb, spent, answer, event } = onFourCpus(1);
    const ones = event(NR_TLB_LOCAL_FLUSH_ONE);
    const pte = w.pageTables.walk(w.ctx, w.processMemory.field(mm, MM_PGD) as never, va / PAGE, false);
    const word = w.pageTables.readPte(pte);
    w.pageTables.writePte(pte, 0);
    expect(spent(() => tlb.flushPage(w.ctx, mm, va / PAGE))).toEqual([
      CYC_TLB_FLUSH + 3 * CYC_IPI + CYC_IRQ + CYC_TLB_FLUSH,
      0,
      0,
      0,
    ]);
    for (let cpu = 0; cpu < 4; cpu++) expect(w.machine.mmu.translate(cpu, va, false)).toBe(-1);
    w.pageTables.writePte(pte, word);
    tlb.flushPage(w.ctx, mm, va / PAGE);
    w.machine.harts.clock.fill(w.machine.harts.clock[0] as number);
    // Two requests: the entry of the first is the interrupt's own.
    expect(spent(() => expect(answer(1)).toBe(IRQ_TLB_FLUSH))[1]).toBe(2 * CYC_TLB_FLUSH + CYC_IRQ);
    expect(spent(() => expect(answer(1)).toBe(-1))[1]).toBe(0);
    expect(answer(2)).toBe(IRQ_TLB_FLUSH);
    expect(tlb.received()).toEqual([0, 2, 2, 0]);
    expect(event(NR_TLB_REMOTE_FLUSH)).toBe(2);
    expect(event(NR_TLB_REMOTE_FLUSH_RECEIVED)).toBe(4);
    expect(event(NR_TLB_LOCAL_FLUSH_ONE) - ones).toBe(2);
  });

  it("TLB-3 a CPU that executes something else is not interrupted, and reads nothing old when it comes back", () => {
    const { w, mm, tlb, answer } = onFourCpus(2);
    const other = space(w, 77);
    for (const cpu of [1, 2]) w.processMemory.activate(cpu, cpu === 1 ? other : (0 as PhysAddr));
    expect(w.processMemory.dropPages(w.ctx, mm, va, PAGE)).toBe(0);
    expect([1, 2, 3].map((cpu) => answer(cpu))).toEqual([-1, -1, IRQ_TLB_FLUSH]);
    expect(tlb.received()).toEqual([0, 0, 0, 1]);
    for (let cpu = 0; cpu < 4; cpu++) expect(w.peek(cpu, mm, va)).toBe(0);
    expect(w.peek(1, other, va)).toBe(77);
    for (let cpu = 0; cpu < 4; cpu++) expect(w.peek(cpu, mm, va + PAGE)).toBe(1);
  });

  it("TLB-2 munmap, mprotect, mremap and fork of 1,000 pages interrupt each CPU once or twice, not 1,000 times", () => {
    const { w, mm, answer, event } = onFourCpus(1000);
    const requests = (work: () => unknown): number => {
      const before = event(NR_TLB_REMOTE_FLUSH);
      work();
      for (const cpu of [1, 2, 3]) answer(cpu);
      return event(NR_TLB_REMOTE_FLUSH) - before;
    };
    const all = event(NR_TLB_LOCAL_FLUSH_ALL);
    const { processMemory, ctx } = w;
    expect(requests(() => processMemory.mprotect(ctx, mm, va, 1000 * PAGE, PROT_READ))).toBe(1);
    expect(requests(() => processMemory.mmPut(ctx, processMemory.fork(ctx, mm)))).toBe(1);
    expect(event(NR_TLB_LOCAL_FLUSH_ALL) - all).toBe(2);
    // Once for the entries that moved, once for the tables that they have left.
    expect(requests(() => processMemory.mremap(ctx, mm, va, 1000 * PAGE, 1000 * PAGE, 3, 2 ** 31))).toBe(2);
    for (const page of [0, 63]) expect(w.peek(1, mm, 2 ** 31 + page * PAGE)).toBe(page);
    expect(requests(() => processMemory.munmap(ctx, mm, 2 ** 31, 1000 * PAGE))).toBe(2);
    expect(w.peek(1, mm, 2 ** 31)).toBeUndefined();
    expect(event(NR_TLB_REMOTE_FLUSH_RECEIVED)).toBe(3 * event(NR_TLB_REMOTE_FLUSH));
  });

  it("TLB-2 no frame is free while a TLB may know it", () => {
    const w = bootProcessWorld({ nrCpus: 2 }, undefined, (deps) => ({
      refs: {
        ...deps.refs,
        putPage(ctx, pfn) {
          const tags = deps.machine.mmu.tlbWords[0] as Int32Array;
          const frames = deps.machine.mmu.tlbWords[2] as Uint32Array;
          frames.forEach((base, slot) => {
            if (tags[slot] !== 0 && base / PAGE === pfn) seen.push(pfn);
          });
          deps.refs.putPage(ctx, pfn);
        },
      },
    }));
    const seen: number[] = [];
    const mm = w.processMemory.createMm(w.ctx);
    w.processMemory.brk(w.ctx, mm, va + 600 * PAGE);
    for (let page = 0; page < 600; page++) w.poke(page & 1, mm, va + page * PAGE, page);
    w.processMemory.activate(0, mm);
    expect(w.processMemory.madvise(w.ctx, mm, va, 600 * PAGE, MADV_DONTNEED)).toBe(0);
    expect(seen).toEqual([]);
    expect(w.processMemory.rss(mm)).toBe(0);
  });

  it("a batch of pages of several address spaces is one interrupt; a full one pays before it takes more", () => {
    const { w, mm, tlb, event } = onFourCpus(2);
    const batch = createTlbBatch();
    for (let i = 0; i < 3; i++) tlb.collect(w.ctx, batch, mm, va / PAGE + (i & 1));
    tlb.flushBatch(w.ctx, batch);
    expect(event(NR_TLB_REMOTE_FLUSH)).toBe(1);
    tlb.flushBatch(w.ctx, batch);
    expect(event(NR_TLB_REMOTE_FLUSH)).toBe(1);
    for (let i = 0; i < 65; i++) tlb.collect(w.ctx, batch, mm, va / PAGE);
    expect([batch.nr, event(NR_TLB_REMOTE_FLUSH)]).toEqual([1, 2]);
  });

  it("TLB-4 threads on four CPUs that unmap: /proc/interrupts and vmstat tell the same", () => {
    const t = bootKernel(
      {
        ...Object.fromEntries(builtinPrograms()),
        *"/bin/unmap"(env) {
          const libc = createLibc(env);
          const worker: Program = function* (inner) {
            for (let i = 0; i < 20; i++) {
              const at = inner.syscall(SYS_mmap, 0, 16 * PAGE, 3, 0x22, -1, 0) as number;
              for (let page = 0; page < 16; page++) inner.mem.st32(at + page * PAGE, page);
              yield PREEMPTED;
              inner.syscall(SYS_munmap, at, 16 * PAGE);
            }
            return 0;
          };
          const tids: number[] = [];
          for (let i = 0; i < 4; i++) tids.push(yield* libc.startThread(worker));
          for (const tid of tids) yield* libc.joinThread(tid);
          return 0;
        },
      },
      { nrCpus: 4, cmdline: "quiet debug_tlb=on" },
    );
    expect(t.run("/bin/unmap")).toBe(0);
    expect(t.run("/bin/sh", "-c", "grep TLB: /proc/interrupts; grep nr_tlb /proc/vmstat")).toBe(0);
    const counts = [...(/TLB: +(\d+) +(\d+) +(\d+) +(\d+) /.exec(t.output()) ?? [])].slice(1).map(Number);
    expect(counts.filter((n) => n > 0).length).toBe(4);
    const received = Number(/nr_tlb_remote_flush_received (\d+)/.exec(t.output())?.[1]);
    expect(counts.reduce((sum, n) => sum + n, 0)).toBe(received);
    expect(Number(/nr_tlb_remote_flush (\d+)/.exec(t.output())?.[1])).toBeGreaterThan(40);
    expect(t.kernel.nrReports()).toBe(0);
    t.expectNoLeak();
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
