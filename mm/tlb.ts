/**
 * TLB shoot-down: making every CPU forget the translation of one page of an address space.
 *
 * An address space remembers on which CPUs it has run (mm_struct, `cpus`); only their TLBs can hold its entries. One
 * host thread executes all CPUs, so the kernel reaches into the other TLBs directly; real kernels send an interrupt.
 *
 *   TLB-1  after flushPage no CPU translates the page by an entry that was read before the call
 *
 * Context: any. Linux: flush_tlb_page.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import type { PhysAddr } from "../kernel/types.ts";
import { MM_ASID, MM_CPUS } from "./mm_struct.ts";

/** Forgets virtual page number `page` of address space `mm` on every CPU. */
export type FlushPage = (mm: PhysAddr, page: number) => void;

export function createTlbFlush({ port, mmu, harts }: Machine): FlushPage {
  return (mm, page) => {
    const asid = port.ld32(mm + MM_ASID);
    for (let cpu = 0; cpu < harts.nrCpus; cpu++) {
      const isUsed = ((port.ld32(mm + MM_CPUS + (cpu >>> 5) * 4) >>> (cpu & 31)) & 1) !== 0;
      if (isUsed) mmu.flushPage(cpu, asid, page * PAGE_SIZE);
    }
  };
}
