/**
 * TLB shoot-down: making CPUs forget translations of an address space, and waiting until they have.
 *
 *   CPU 0: entry changed ─▶ own TLB ─▶ interrupt to CPU 1, 3 ─▶ waits ──────▶ frame may be freed
 *   CPU 1:                                └─▶ handler flushes ─┘      CPU 2: does not run it: flushes when it begins
 *
 * 1. *Whom.* An address space has a mask of the CPUs whose TLB may hold its entries (mm_struct, `cpus`). Those that
 *    execute it get an interrupt. One that does not, because another task runs there or none, is only taken out of the
 *    mask: `begin`, which every CPU calls before it executes an address space, flushes when the bit is not there.
 *
 * 2. *When.* On hardware the sender spins until the last handler has answered, for the frame must not be freed before.
 *    One host thread executes all CPUs here, and a CPU that is not executed stands between two instructions with
 *    interrupts on. So the sender flushes the other TLB on its behalf, at once, and the rest is accounts: the sender
 *    pays for each request (CYC_IPI), and once for the wait, which is as long as one handler, as they run side by side.
 *    The receiver has the interrupt pending, takes it at its next checkpoint, and pays for its handler then: entry,
 *    flush, and an entry more for each further request that came before it looked.
 *
 * 3. *How much.* Up to SINGLE_PAGE_CEILING pages are flushed one by one; for more, the whole address space is
 *    forgotten: it costs one flush, and walks (40 cycles each) for what is still needed of 256 entries.
 *
 * 4. *How often.* The interrupt is the expensive part, so who changes many entries collects (`Batch`, for pages of many
 *    address spaces; zap in memory.ts, for many pages of one) and flushes once. Frames wait until then.
 *
 *   TLB-1  after a flush no CPU translates the page by an entry that was read before the call
 *   TLB-2  a frame whose entry is gone is freed after the flush, however many are collected
 *   TLB-3  a CPU that is not in the mask of an address space flushes before it executes it
 *   TLB-4  every request is received once: nr_tlb_remote_flush_received = sum over CPUs of the line TLB
 *
 * State: per CPU three words in static memory: requests that wait, what their flushes cost, requests received.
 * Context: any but NMI. Linux: arch/x86/mm/tlb.c (flush_tlb_mm_range, leave_mm, tlb_gen), mm/mmu_gather.c,
 * mm/rmap.c (try_to_unmap_flush).
 */

import { CYC_IPI, CYC_IRQ, CYC_TLB_FLUSH } from "../kernel/arch/charges.ts";
import { IRQ_TLB_FLUSH } from "../kernel/arch/irqchip.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { asPhys, type Context, type IrqContext, type PhysAddr } from "../kernel/types.ts";
import { SHARED_ASID } from "./asid.ts";
import { MM_ASID, MM_CPUS, MM_PGD } from "./mm_struct.ts";
import {
  NR_TLB_LOCAL_FLUSH_ALL,
  NR_TLB_LOCAL_FLUSH_ONE,
  NR_TLB_REMOTE_FLUSH,
  NR_TLB_REMOTE_FLUSH_RECEIVED,
  type VmStat,
} from "./vmstat.ts";

/** Forgets virtual page number `page` of address space `mm` on every CPU. */
export type FlushPage = (ctx: Context, mm: PhysAddr, page: number) => void;

/** Flushes that are owed; all at once costs one interrupt a CPU. A full batch is to be flushed. */
export interface TlbBatch {
  nr: number;
  readonly mms: Float64Array;
  readonly pages: Float64Array;
}

export interface Tlb {
  readonly flushPage: FlushPage;
  /** Pages `[start, end)`. */
  flushRange(ctx: Context, mm: PhysAddr, start: number, end: number): void;
  flushMm(ctx: Context, mm: PhysAddr): void;
  /** Owes a flush of one page; a full batch is flushed first. */
  collect(ctx: Context, batch: TlbBatch, mm: PhysAddr, page: number): void;
  /** Pays what is owed. */
  flushBatch(ctx: Context, batch: TlbBatch): void;
  /** `cpu` is about to execute `mm` (TLB-3). */
  begin(cpu: number, mm: PhysAddr): void;
  /** The handler of IRQ_TLB_FLUSH. */
  interrupted(ctx: IrqContext): void;
  /** Shoot-downs received by each CPU. */
  received(): readonly number[];
}

/** Pages beyond which a whole address space is forgotten; Linux: tlb_single_page_flush_ceiling. */
const SINGLE_PAGE_CEILING = 33;
const BATCH_PAGES = 64;
const MAX_CPUS = 64;
/** Words of a CPU. */
const WAITING = 0;
const OWED_CYCLES = 4;
const RECEIVED = 8;
const CPU_BYTES = 16;
export const TLB_BYTES = MAX_CPUS * CPU_BYTES;

export const createTlbBatch = (): TlbBatch => ({
  nr: 0,
  mms: new Float64Array(BATCH_PAGES),
  pages: new Float64Array(BATCH_PAGES),
});

export interface TlbDeps {
  readonly machine: Machine;
  readonly vmstat: VmStat;
  /** TLB_BYTES of zeroed static memory. */
  readonly state: PhysAddr;
  /** Has the CPU nothing to execute? It keeps its last address space until it begins with another. */
  readonly isIdle?: (cpu: number) => boolean;
}

export function createTlb({ machine, vmstat, state, isIdle = () => false }: TlbDeps): Tlb {
  const { port, mmu, harts, irqChip } = machine;
  const { clock, satpRoot, nrCpus } = harts;
  const pay = (cpu: number, cycles: number): void => {
    clock[cpu] = (clock[cpu] as number) + cycles;
  };
  const wordOf = (cpu: number): number => state + cpu * CPU_BYTES;
  const add = (address: number, delta: number): void => port.st32(address, port.ld32(address) + delta);
  const maskOf = (mm: PhysAddr, cpu: number): PhysAddr => asPhys(mm + MM_CPUS + (cpu >>> 5) * 4);
  const isInMask = (mm: PhysAddr, cpu: number): boolean => ((port.ld32(maskOf(mm, cpu)) >>> (cpu & 31)) & 1) !== 0;

  /** Does the CPU have to be told now? If it may have entries but does not execute `mm`, later will do (TLB-3). */
  const mustFlush = (ctx: Context, mm: PhysAddr, cpu: number): boolean => {
    if (!isInMask(mm, cpu)) return false;
    if (satpRoot[cpu] === port.ld32(mm + MM_PGD) && (cpu === ctx.cpu || !isIdle(cpu))) return true;
    port.st32(maskOf(mm, cpu), (port.ld32(maskOf(mm, cpu)) & ~(1 << (cpu & 31))) >>> 0);
    return false;
  };

  /** One TLB forgets `[start, end)`; what that costs the CPU. */
  const forget = (cpu: number, mm: PhysAddr, start: number, end: number): number => {
    const asid = port.ld32(mm + MM_ASID);
    if (end - start > SINGLE_PAGE_CEILING) {
      mmu.flushAsid(cpu, asid);
      return CYC_TLB_FLUSH;
    }
    for (let page = start; page < end; page++) mmu.flushPage(cpu, asid, page * PAGE_SIZE);
    return CYC_TLB_FLUSH * (end - start);
  };

  const countLocal = (ctx: Context, nrPages: number): void => {
    if (nrPages > SINGLE_PAGE_CEILING) vmstat.countEvents(ctx, NR_TLB_LOCAL_FLUSH_ALL, 1);
    else vmstat.countEvents(ctx, NR_TLB_LOCAL_FLUSH_ONE, nrPages);
  };

  /** The interrupt to a CPU whose TLB has been flushed for `cycles`. */
  const send = (ctx: Context, cpu: number, cycles: number): void => {
    pay(ctx.cpu, CYC_IPI);
    add(wordOf(cpu) + WAITING, 1);
    add(wordOf(cpu) + OWED_CYCLES, cycles);
    irqChip.raise(cpu, IRQ_TLB_FLUSH);
  };

  /** The sender waits for the slowest handler. */
  const wait = (ctx: Context, cycles: number): void => {
    vmstat.countEvents(ctx, NR_TLB_REMOTE_FLUSH, 1);
    pay(ctx.cpu, CYC_IRQ + cycles);
  };

  const flushRange: Tlb["flushRange"] = (ctx, mm, start, end) => {
    let slowest = 0;
    for (let cpu = 0; cpu < nrCpus; cpu++) {
      if (!mustFlush(ctx, mm, cpu)) continue;
      const cycles = forget(cpu, mm, start, end);
      if (cpu === ctx.cpu) {
        pay(cpu, cycles);
        countLocal(ctx, end - start);
      } else {
        send(ctx, cpu, cycles);
        slowest = Math.max(slowest, cycles);
      }
    }
    if (slowest > 0) wait(ctx, slowest);
  };

  const flushBatch: Tlb["flushBatch"] = (ctx, batch) => {
    let slowest = 0;
    for (let cpu = 0; cpu < nrCpus && batch.nr > 0; cpu++) {
      let cycles = 0;
      for (let i = 0; i < batch.nr; i++) {
        const mm = asPhys(batch.mms[i] as number);
        const page = batch.pages[i] as number;
        if (mustFlush(ctx, mm, cpu)) cycles += forget(cpu, mm, page, page + 1);
      }
      if (cycles === 0) continue;
      if (cpu === ctx.cpu) {
        pay(cpu, cycles);
        countLocal(ctx, cycles / CYC_TLB_FLUSH);
      } else {
        send(ctx, cpu, cycles);
        slowest = Math.max(slowest, cycles);
      }
    }
    batch.nr = 0;
    if (slowest > 0) wait(ctx, slowest);
  };

  return {
    flushPage: (ctx, mm, page) => flushRange(ctx, mm, page, page + 1),
    flushRange,
    flushMm: (ctx, mm) => flushRange(ctx, mm, 0, Number.POSITIVE_INFINITY),
    collect(ctx, batch, mm, page) {
      if (batch.nr === BATCH_PAGES) flushBatch(ctx, batch);
      batch.mms[batch.nr] = mm;
      batch.pages[batch.nr++] = page;
    },
    flushBatch,
    begin(cpu, mm) {
      const asid = port.ld32(mm + MM_ASID);
      if (isInMask(mm, cpu) && asid !== SHARED_ASID) return;
      mmu.flushAsid(cpu, asid);
      pay(cpu, CYC_TLB_FLUSH);
      port.st32(maskOf(mm, cpu), (port.ld32(maskOf(mm, cpu)) | (1 << (cpu & 31))) >>> 0);
    },
    interrupted(ctx) {
      const words = wordOf(ctx.cpu);
      const nr = port.ld32(words + WAITING);
      if (nr === 0) return;
      // Each request is an interrupt of its own on hardware: the sender waits for it before it sends the next.
      pay(ctx.cpu, port.ld32(words + OWED_CYCLES) + CYC_IRQ * (nr - 1));
      port.st32(words + WAITING, 0);
      port.st32(words + OWED_CYCLES, 0);
      add(words + RECEIVED, nr);
      vmstat.countEvents(ctx, NR_TLB_REMOTE_FLUSH_RECEIVED, nr);
    },
    received: () => Array.from({ length: nrCpus }, (_, cpu) => port.ld32(wordOf(cpu) + RECEIVED)),
  };
}
