/**
 * The pool of huge pages: blocks of 2 MiB that an administrator takes out of the buddy while they can be had.
 *
 *      echo 8 > /proc/sys/vm/nr_hugepages ─▶ 8 blocks of order 9, one after the other ─▶ list through `next`
 *      echo 0 > …                         ─▶ back to the buddy
 *
 * A large block is what a machine that has been running for a while does not have; so asking for some is also how one
 * sees compaction at work (compaction.ts). Nobody maps these pages: the pool is what is here, and HugePages_Free is
 * HugePages_Total.
 *
 *   HTLB-1  the list is as long as the count says; each block on it is allocated, of order 9
 *   HTLB-2  a request that cannot be met in full takes what there is, as in Linux
 *
 * Context: process; may sleep in the allocator. One word of state and the list are in RAM. Source: mm/hugetlb.c.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { asPfn, NO_PFN, type PhysAddr, type Sleeping, type TaskContext } from "../kernel/types.ts";
import { __GFP_COMP, __GFP_NOWARN, __GFP_RETRY_MAYFAIL, GFP_HIGHUSER, gfpWith } from "./gfp.ts";
import { PAGEBLOCK_ORDER } from "./mmzone.ts";
import { orderOfFlags, type Pages, PG_ALLOCATED } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { NR_HUGETLB, type VmStat } from "./vmstat.ts";

const HUGE_GFP = gfpWith(GFP_HIGHUSER, __GFP_COMP | __GFP_NOWARN | __GFP_RETRY_MAYFAIL);
export const HUGETLB_BYTES = 8;

export interface HugePool {
  nrPages(): number;
  /** Grows or shrinks the pool to `wanted` huge pages, as far as there are blocks. */
  resize(ctx: TaskContext, wanted: number): Sleeping<void>;
  /** HTLB-1: a sentence, or null. */
  check(): string | null;
}

/** `head`: HUGETLB_BYTES of zeroed static memory. */
export function createHugePool(
  port: MemoryPort,
  pages: Pages,
  pageAlloc: PageAllocator,
  vmstat: VmStat,
  head: PhysAddr,
): HugePool {
  const nrPages = (): number => vmstat.item(NR_HUGETLB);
  const nextOf = (pfn: number): number => pages.nextAt(pages.rowAt(pfn));

  function* grow(ctx: TaskContext): Sleeping<boolean> {
    let pfn = pageAlloc.allocPages(ctx, PAGEBLOCK_ORDER, HUGE_GFP);
    if (typeof pfn === "object") pfn = yield* pfn;
    if (pfn === NO_PFN) return false;
    pages.setNextAt(pages.rowAt(pfn), port.ld32(head));
    port.st32(head, pfn);
    vmstat.modItem(NR_HUGETLB, 1);
    return true;
  }

  const shrink = (ctx: TaskContext): void => {
    const pfn = asPfn(port.ld32(head));
    port.st32(head, nextOf(pfn));
    vmstat.modItem(NR_HUGETLB, -1);
    pageAlloc.freePages(ctx, pfn, PAGEBLOCK_ORDER);
  };

  return {
    nrPages,
    *resize(ctx, wanted) {
      while (nrPages() < wanted) if (!(yield* grow(ctx))) return;
      while (nrPages() > wanted) shrink(ctx);
    },
    check() {
      let nr = 0;
      for (let pfn = port.ld32(head); pfn !== 0; pfn = nextOf(pfn)) {
        const flags = pages.flags(asPfn(pfn));
        const isHuge = (flags & PG_ALLOCATED) !== 0 && orderOfFlags(flags) === PAGEBLOCK_ORDER;
        if (!isHuge || ++nr > nrPages()) return `HTLB-1: frame ${pfn} does not belong to the pool`;
      }
      return nr === nrPages() ? null : `HTLB-1: ${nr} huge pages are on the list of ${nrPages()}`;
    },
  };
}
