/**
 * The auditor of process memory: every page table of every address space against every frame.
 *
 * Counts on frames (mapcount, refcount) are what copy-on-write and reclaim decide by, and they are kept up by
 * increments far apart. Here they are counted anew, from the entries that there are.
 *
 *   check(mm)   VMA-1 … VMA-3, MMAP-2, and of each entry: a VMA covers it; RMAP-2; COW-1
 *   checkAll()  that for all, and RMAP-1, RMAP-3, RMAP-4, PAGE-6, MMAP-1, NR_ANON_MAPPED
 *
 * Host memory only, nothing is changed. O(frames + entries).
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { PTE_W } from "../kernel/arch/mmu.ts";
import { listCount, listFirst, listNext } from "../kernel/lib/list.ts";
import { PAGE_SIZE, TASK_SIZE } from "../kernel/params.ts";
import { asPfn, asPhys, fromGranule, NULL, type Pfn, type PhysAddr } from "../kernel/types.ts";
import {
  AV_LIST,
  AV_USERS,
  MM_LIST,
  MM_PGD,
  MM_RSS_ANON,
  MM_RSS_FILE,
  MM_RSS_SHMEM,
  MM_SWAPENTS,
  MM_TOTAL_VM,
  VM_SHARED,
  VMA_ANON_VMA,
  VMA_END,
  VMA_FLAGS,
  VMA_PGOFF,
  VMA_START,
} from "./mm_struct.ts";
import { type Pages, PG_ALLOCATED, PG_ANON, PG_SWAPBACKED, PG_SWAPCACHE } from "./page.ts";
import { type PageTables, pfnOfPte } from "./pgtable.ts";
import { isSwapPte } from "./swap_entry.ts";
import type { Vmas } from "./vma.ts";
import { NR_ANON_MAPPED, NR_COMMITTED, type VmStat } from "./vmstat.ts";

export interface MmCheckDeps {
  readonly machine: Machine;
  readonly pages: Pages;
  readonly pageTables: PageTables;
  readonly vmas: Vmas;
  readonly vmstat: VmStat;
  /** Head of the list of all address spaces. */
  readonly state: PhysAddr;
}

export function createMmCheck({ machine, pages, pageTables, vmas, vmstat, state }: MmCheckDeps): {
  readonly check: (mm: PhysAddr) => string | null;
  readonly checkAll: () => string | null;
} {
  const { port } = machine;
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);

  /** What is wrong with the entry that maps `pfn` as `page` of `vma`, or null. */
  const entryProblem = (pfn: Pfn, word: number, vma: PhysAddr, page: number): string | null => {
    const flags = pages.flags(pfn);
    if ((flags & PG_ALLOCATED) === 0) return `PAGE-1: page ${page} maps frame ${pfn}, which is free`;
    if ((flags & PG_ANON) !== 0) {
      const index = field(vma, VMA_PGOFF) + page - field(vma, VMA_START);
      const leadsBack = pages.mapping(pfn) === field(vma, VMA_ANON_VMA) && pages.index(pfn) === index;
      if (!leadsBack || pages.mapping(pfn) === 0) return `RMAP-2: the frame of page ${page} does not lead back to it`;
    }
    const isPrivate = (field(vma, VMA_FLAGS) & VM_SHARED) === 0;
    if (isPrivate && (word & PTE_W) !== 0 && ((flags & PG_ANON) === 0 || pages.mapcount(pfn) !== 1)) {
      return `COW-1: page ${page} is writable and its frame has ${pages.mapcount(pfn)} entries`;
    }
    return null;
  };

  /** Walks the entries of `mm`; counts them per frame in `counts`. */
  const checkEntries = (mm: PhysAddr, counts: Uint32Array): string | null => {
    const nr = { anon: 0, file: 0, shmem: 0, swap: 0 };
    let problem: string | null = null;
    pageTables.forEachEntry(asPfn(field(mm, MM_PGD)), 0, TASK_SIZE / PAGE_SIZE, (_pte, page, word) => {
      const vma = vmas.at(mm, page);
      if (vma === NULL) problem ??= `VMA-1: page ${page} has an entry and no VMA`;
      if (isSwapPte(word)) nr.swap++;
      if (vma === NULL || isSwapPte(word)) return;
      const pfn = pfnOfPte(word);
      counts[pfn] = (counts[pfn] as number) + 1;
      const flags = pages.flags(pfn);
      if ((flags & PG_ANON) !== 0) nr.anon++;
      else if ((flags & PG_SWAPBACKED) !== 0) nr.shmem++;
      else nr.file++;
      problem ??= entryProblem(pfn, word, vma, page);
    });
    if (problem !== null) return problem;
    const fields = [MM_RSS_ANON, MM_RSS_FILE, MM_RSS_SHMEM, MM_SWAPENTS].map((offset) => field(mm, offset));
    const counted = [nr.anon, nr.file, nr.shmem, nr.swap];
    return counted.every((n, i) => n === fields[i]) ? null : `MMAP-2: entries ${counted}, counters ${fields}`;
  };

  const checkMm = (mm: PhysAddr, counts: Uint32Array): string | null => {
    const broken = vmas.check(mm);
    if (broken !== null) return broken;
    let total = 0;
    for (let vma = vmas.first(mm); vma !== NULL; vma = vmas.next(vma)) {
      total += field(vma, VMA_END) - field(vma, VMA_START);
      const anonVma = fromGranule(field(vma, VMA_ANON_VMA));
      if (anonVma !== NULL && listCount(port, asPhys(anonVma + AV_LIST)) !== field(anonVma, AV_USERS)) {
        return `RMAP-3: the anon_vma of the VMA at ${field(vma, VMA_START)} miscounts its users`;
      }
    }
    if (total !== field(mm, MM_TOTAL_VM)) return `VMA-3: VMAs cover ${total} pages, total_vm ${field(mm, MM_TOTAL_VM)}`;
    return checkEntries(mm, counts);
  };

  const frameProblem = (pfn: Pfn, nrEntries: number): string | null => {
    const mapcount = pages.mapcount(pfn);
    if (mapcount !== nrEntries) return `RMAP-1: frame ${pfn} has mapcount ${mapcount} and ${nrEntries} entries`;
    const flags = pages.flags(pfn);
    const isAnon = (flags & PG_ANON) !== 0;
    const least = mapcount + ((flags & PG_SWAPCACHE) !== 0 ? 1 : 0) + (!isAnon && pages.mapping(pfn) !== 0 ? 1 : 0);
    if (pages.refcount(pfn) < least) return `PAGE-6: frame ${pfn} has refcount ${pages.refcount(pfn)} of ${least}`;
    if (isAnon && mapcount === 0 && pages.mapping(pfn) !== 0) return `RMAP-4: frame ${pfn} is mapped nowhere`;
    return null;
  };

  const checkAll = (): string | null => {
    const counts = new Uint32Array(pages.nrFrames);
    let committed = 0;
    for (let link = listFirst(port, state); link !== NULL && link !== state; link = listNext(port, link)) {
      const mm = asPhys(link - MM_LIST);
      const problem = checkMm(mm, counts);
      if (problem !== null) return problem;
      committed += field(mm, MM_TOTAL_VM);
    }
    let nrAnon = 0;
    for (let pfn = 1; pfn < pages.nrFrames; pfn++) {
      const problem = frameProblem(asPfn(pfn), counts[pfn] as number);
      if (problem !== null) return problem;
      if ((counts[pfn] as number) > 0 && (pages.flags(asPfn(pfn)) & PG_ANON) !== 0) nrAnon++;
    }
    if (nrAnon !== vmstat.item(NR_ANON_MAPPED)) {
      return `RMAP-1: ${nrAnon} anonymous frames are mapped, nr_anon_pages ${vmstat.item(NR_ANON_MAPPED)}`;
    }
    const promised = vmstat.item(NR_COMMITTED);
    return committed === promised ? null : `MMAP-1: address spaces hold ${committed} pages, ${promised} are promised`;
  };

  return { check: (mm) => checkMm(mm, new Uint32Array(pages.nrFrames)), checkAll };
}
