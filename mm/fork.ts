/**
 * fork's half of copy-on-write: an address space like another one, whose pages are shared until somebody stores.
 *
 *   for each VMA:  a copy, on the same anon_vma's list
 *     for each level-0 table of it:  a table of the child's, entry by entry
 *        page of a private mapping:  both entries without W, refcount + 1, mapcount + 1
 *        swap entry:                 one more user of the slot
 *        page of a shared mapping:   nothing; the child faults it in from where the parent did
 *
 * The parent's TLB entries still say W for what is shared from now on: they go, all at once, before anybody runs.
 *
 *   FRK-1  a fork that fails leaves the parent as it was, but for rights that its next store gets back
 *   FRK-2  no TLB lets the parent store to a shared frame after the fork
 *   and COW-1 … COW-3 (memory.ts)
 *
 * Context: process. O(VMAs + entries). Linux: kernel/fork.c (dup_mmap), mm/memory.c (copy_page_range).
 */

import { CYC_PER_LINE } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { PTE_W, PTES_PER_TABLE } from "../kernel/arch/mmu.ts";
import { PAGE_SIZE, TASK_SIZE } from "../kernel/params.ts";
import { asPfn, asPhys, type Context, NULL, type PhysAddr } from "../kernel/types.ts";
import {
  MM_PGD,
  MM_RSS_ANON,
  MM_RSS_FILE,
  MM_RSS_SHMEM,
  MM_SWAPENTS,
  VM_DONTCOPY,
  VM_LOCKED,
  VM_SHARED,
  VMA_END,
  VMA_START,
} from "./mm_struct.ts";
import type { Pages } from "./page.ts";
import { type PageTables, pfnOfPte } from "./pgtable.ts";
import { rssFieldOf } from "./rmap.ts";
import { isSwapPte, type SwapLayer, slotOfPte } from "./swap_entry.ts";
import type { Tlb } from "./tlb.ts";
import type { VmAccount } from "./vm_account.ts";
import type { Vmas } from "./vma.ts";

export interface ForkDeps {
  readonly machine: Machine;
  readonly pages: Pages;
  readonly pageTables: PageTables;
  readonly vmas: Vmas;
  readonly account: VmAccount;
  readonly swap: SwapLayer;
  readonly tlb: Tlb;
  readonly interruptPoint: (ctx: Context) => void;
}

/** Copies the mappings of `parent` into `child`, which is empty; false without memory: the child is then to be put. */
export type CopyMappings = (ctx: Context, parent: PhysAddr, child: PhysAddr) => boolean;

export function createFork(deps: ForkDeps): CopyMappings {
  const { machine, pages, pageTables, vmas, account, swap } = deps;
  const { port, harts } = machine;
  const { clock } = harts;
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);
  const addField = (base: PhysAddr, offset: number, delta: number): void =>
    port.st32(base + offset, port.ld32(base + offset) + delta);

  /** Copies the entries `[page, end)`, which lie in one table at `from`; false without memory. */
  const copyTable = (ctx: Context, from: PhysAddr, child: PhysAddr, page: number, end: number): boolean => {
    let to: PhysAddr = NULL;
    let nrAnon = 0;
    let nrFile = 0;
    let nrShmem = 0;
    let isWhole = true;
    for (let i = 0; i < end - page; i++) {
      const word = port.ld32(from + i * 8);
      if (word === 0) continue;
      if (to === NULL) to = pageTables.walk(ctx, asPfn(field(child, MM_PGD)), page, true);
      if (to === NULL || (isSwapPte(word) && swap.dup(ctx, slotOfPte(word)) !== 0)) {
        isWhole = false;
        break;
      }
      if (isSwapPte(word)) {
        port.st32(to + i * 8, word);
        addField(child, MM_SWAPENTS, 1);
        continue;
      }
      const pfn = pfnOfPte(word);
      const shared = (word & ~PTE_W) >>> 0;
      if (shared !== word) port.st32(from + i * 8, shared);
      port.st32(to + i * 8, shared);
      const row = pages.rowAt(pfn);
      pages.setRefcountAt(row, pages.refcountAt(row) + 1);
      pages.setMapcount(pfn, pages.mapcount(pfn) + 1);
      const kind = rssFieldOf(pages.flagsAt(row));
      if (kind === MM_RSS_ANON) nrAnon++;
      else if (kind === MM_RSS_FILE) nrFile++;
      else nrShmem++;
    }
    addField(child, MM_RSS_ANON, nrAnon);
    addField(child, MM_RSS_FILE, nrFile);
    addField(child, MM_RSS_SHMEM, nrShmem);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_PER_LINE * (nrAnon + nrFile + nrShmem);
    return isWhole;
  };

  const copyPages = (ctx: Context, parent: PhysAddr, child: PhysAddr, start: number, end: number): boolean => {
    for (let page = start; page < end; ) {
      const stop = Math.min(end, page - (page % PTES_PER_TABLE) + PTES_PER_TABLE);
      const from = pageTables.walk(ctx, asPfn(field(parent, MM_PGD)), page, false);
      if (from !== NULL && !copyTable(ctx, asPhys(from), child, page, stop)) return false;
      page = stop;
      deps.interruptPoint(ctx);
    }
    return true;
  };

  const copyVmas: CopyMappings = (ctx, parent, child) => {
    for (let vma = vmas.first(parent); vma !== NULL; vma = vmas.next(vma)) {
      const spec = vmas.specOf(vma);
      if ((spec.flags & VM_DONTCOPY) !== 0) continue;
      const [start, end] = [field(vma, VMA_START), field(vma, VMA_END)];
      const copied = { ...spec, flags: (spec.flags & ~VM_LOCKED) >>> 0 };
      if (vmas.addLike(ctx, child, start, end, copied, vma) === NULL) return false;
      account.account(child, copied, end - start);
      if ((spec.flags & VM_SHARED) === 0 && !copyPages(ctx, parent, child, start, end)) return false;
    }
    return true;
  };

  return (ctx, parent, child) => {
    const isWhole = copyVmas(ctx, parent, child);
    // Without VM_LOCKED there may be neighbours that nothing sets apart.
    if (isWhole) vmas.joinAround(ctx, child, 0, TASK_SIZE / PAGE_SIZE);
    deps.tlb.flushMm(ctx, parent);
    return isWhole;
  };
}
