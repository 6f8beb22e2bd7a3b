/**
 * What each VMA has in memory: the numbers behind /proc/PID/maps, smaps and smaps_rollup.
 *
 * A page is shared if more entries than one map it, private if one does; each process is charged its share of a shared
 * page (PSS): over all processes the PSS adds up to the pages that are mapped.
 *
 *   SMAP-1  Σ rss over the VMAs of an address space = rss anon + rss file + rss shmem of its mm_struct
 *   SMAP-2  shared + private, clean + dirty = rss, for each VMA
 *
 * Reads only; O(VMAs), with pages O(VMAs + entries). Linux: fs/proc/task_mmu.c.
 */

import { PTE_A, PTE_D, PTE_V } from "../kernel/arch/mmu.ts";
import type { MemoryPort } from "../kernel/arch/port.ts";
import { asPfn, fromGranule, NULL, type PhysAddr } from "../kernel/types.ts";
import { isLazyFree } from "./lazyfree.ts";
import {
  AS_FLAGS,
  AS_NR_SWAPPED,
  AS_SHMEM,
  MM_PGD,
  VM_LOCKED,
  VMA_FLAGS,
  VMA_MAPPING,
  VMA_PGOFF,
} from "./mm_struct.ts";
import { type Pages, PG_ANON, PG_DIRTY, PG_REFERENCED, PG_SWAPBACKED } from "./page.ts";
import { type PageTables, pfnOfPte } from "./pgtable.ts";
import type { ProcessMemory } from "./process_memory.ts";
import { slotOfPte } from "./swap_entry.ts";

/** Pages of a VMA by what they are; `pss*` are in units of 2^-12 pages. */
export interface VmaPages {
  rss: number;
  pss: number;
  pssDirty: number;
  pssAnon: number;
  pssFile: number;
  pssShmem: number;
  sharedClean: number;
  sharedDirty: number;
  privateClean: number;
  privateDirty: number;
  referenced: number;
  anonymous: number;
  /** Of these: clean, and lazily freed (lazyfree.ts). */
  lazyFree: number;
  /** Of all: pages of huge pages. */
  huge: number;
  swap: number;
  /** Of them those of shared memory, which VmSwap does not count. */
  swapShared: number;
  /** Like `pss`, of the pages in swap. */
  swapPss: number;
  /** Like `pss`, of the pages of a locked VMA. */
  lockedPss: number;
}

export interface VmaReport {
  /** Virtual pages `[start, end)`. */
  readonly start: number;
  readonly end: number;
  readonly prot: number;
  /** VMA_ANON, VMA_HEAP, VMA_STACK, … */
  readonly kind: number;
  /** VM_ bits. */
  readonly flags: number;
  readonly pgoff: number;
  /** address_space that it shows, and whether that is shared memory without a file; NULL: private anonymous memory. */
  readonly mapping: PhysAddr;
  readonly isShmem: boolean;
  readonly pages: VmaPages;
}

/** One page, in the unit of PSS. */
export const PSS_PER_PAGE = 2 ** 12;

export const noPages = (): VmaPages => ({
  rss: 0,
  pss: 0,
  pssDirty: 0,
  pssAnon: 0,
  pssFile: 0,
  pssShmem: 0,
  sharedClean: 0,
  sharedDirty: 0,
  privateClean: 0,
  privateDirty: 0,
  referenced: 0,
  anonymous: 0,
  lazyFree: 0,
  huge: 0,
  swap: 0,
  swapShared: 0,
  swapPss: 0,
  lockedPss: 0,
});

export interface SmapsDeps {
  readonly port: MemoryPort;
  readonly pages: Pages;
  readonly pageTables: PageTables;
  readonly processMemory: Pick<ProcessMemory, "forEachVma" | "field" | "files">;
  /** Entries of all page tables that name a swap slot. */
  readonly swapNames: (slot: number) => number;
}

/** The VMAs of an address space, in order; without `withPages` their page counts stay 0. */
export type Smaps = (mm: PhysAddr, withPages: boolean) => VmaReport[];

export function createSmaps({ port, pages, pageTables, processMemory, swapNames }: SmapsDeps): Smaps {
  const countPage = (counts: VmaPages, word: number, isLocked: boolean): void => {
    const pfn = pfnOfPte(word);
    const flags = pages.flags(pfn);
    const mapcount = Math.max(1, pages.mapcount(pfn));
    const isAnon = (flags & PG_ANON) !== 0;
    const isDirty = (word & PTE_D) !== 0 || (flags & PG_DIRTY) !== 0;
    const share = Math.floor(PSS_PER_PAGE / mapcount);
    counts.rss++;
    counts.pss += share;
    if (isAnon) counts.pssAnon += share;
    else if ((flags & PG_SWAPBACKED) !== 0) counts.pssShmem += share;
    else counts.pssFile += share;
    if (isDirty) counts.pssDirty += share;
    if (isAnon) counts.anonymous++;
    if (isLazyFree(flags) && !isDirty) counts.lazyFree++;
    if (isLocked) counts.lockedPss += share;
    if ((word & PTE_A) !== 0 || (flags & PG_REFERENCED) !== 0) counts.referenced++;
    if (mapcount > 1) {
      if (isDirty) counts.sharedDirty++;
      else counts.sharedClean++;
    } else if (isDirty) counts.privateDirty++;
    else counts.privateClean++;
  };

  /** Pages of shared memory in swap that have no entry here: counted by whoever may see them (shmem_swap_usage). */
  const sharedInSwap = (mapping: PhysAddr, pgoff: number, nrPages: number): number => {
    if (mapping === NULL || port.ld32(mapping + AS_NR_SWAPPED) === 0) return 0;
    let nr = 0;
    for (let i = 0; i < nrPages; i++) if (processMemory.files.needsIo(mapping, pgoff + i)) nr++;
    return nr;
  };

  return (mm, withPages) => {
    const reports: VmaReport[] = [];
    const root = asPfn(processMemory.field(mm, MM_PGD));
    processMemory.forEachVma(mm, (start, end, prot, kind, vma) => {
      const flags = port.ld32(vma + VMA_FLAGS);
      const counts = noPages();
      if (withPages) {
        pageTables.forEachPage(root, start, end, (_pte, _page, word, isHuge) => {
          if (isHuge) counts.huge++;
          if ((word & PTE_V) === 0) {
            counts.swap++;
            counts.swapPss += Math.floor(PSS_PER_PAGE / Math.max(1, swapNames(slotOfPte(word))));
          } else countPage(counts, word, (flags & VM_LOCKED) !== 0);
        });
      }
      const mapping = fromGranule(port.ld32(vma + VMA_MAPPING));
      const isShmem = mapping !== NULL && (port.ld32(mapping + AS_FLAGS) & AS_SHMEM) !== 0;
      const pgoff = port.ld32(vma + VMA_PGOFF);
      if (withPages) counts.swapShared = sharedInSwap(mapping, pgoff, end - start);
      counts.swap += counts.swapShared;
      reports.push({ start, end, prot, kind, flags, pgoff, mapping, isShmem, pages: counts });
    });
    return reports;
  };
}
