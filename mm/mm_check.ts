/**
 * The auditor of process memory: every page table of every address space against every frame.
 *
 * Counts on frames (mapcount, refcount) are what copy-on-write and reclaim decide by, and they are kept up by
 * increments far apart. Here they are counted anew, from the entries that there are.
 *
 *   check(mm)   PGT-1 … PGT-3, VMA-1 … VMA-5, ACC-2, MMAP-2, and of each entry: a VMA covers it; RMAP-2; COW-1
 *   checkAll()  that for all, and RMAP-1, RMAP-3, RMAP-4, PAGE-6, ACC-1, FMAP-1, FMAP-2, FMAP-5, FMAP-6, DTY-1 … DTY-3,
 *               LCK-1, the vmstat items
 *
 * Host memory only, nothing is changed. O(frames + entries).
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { PTE_D, PTE_W, PTES_PER_TABLE } from "../kernel/arch/mmu.ts";
import { listCount, listFirst, listNext } from "../kernel/lib/list.ts";
import { PAGE_SIZE, TASK_SIZE } from "../kernel/params.ts";
import { asPfn, asPhys, fromGranule, NULL, type Pfn, type PhysAddr } from "../kernel/types.ts";
import { PROT_WRITE } from "../kernel/uapi/mman.ts";
import type { FileMap } from "./filemap.ts";
import {
  AS_COMMITTED,
  AV_LIST,
  AV_USERS,
  MM_COMMITTED,
  MM_DATA_VM,
  MM_LIST,
  MM_LOCKED_VM,
  MM_PGD,
  MM_RSS_ANON,
  MM_RSS_FILE,
  MM_RSS_SHMEM,
  MM_STACK_VM,
  MM_SWAPENTS,
  MM_TOTAL_VM,
  VM_ACCOUNT,
  VM_LOCKED,
  VM_SHARED,
  VMA_ANON_VMA,
  VMA_END,
  VMA_FLAGS,
  VMA_MAPPING,
  VMA_PGOFF,
  VMA_STACK,
  VMA_START,
} from "./mm_struct.ts";
import {
  type Pages,
  PG_ALLOCATED,
  PG_ANON,
  PG_DIRTY,
  PG_HEAD,
  PG_MLOCKED,
  PG_SWAPBACKED,
  PG_SWAPCACHE,
  PG_TABLE,
  PG_UNEVICTABLE,
  PG_WRITEBACK,
} from "./page.ts";
import type { DirtyPages } from "./page_dirty.ts";
import { type PageTables, pfnOfPte } from "./pgtable.ts";
import { isSwapPte } from "./swap_entry.ts";
import type { Vmas } from "./vma.ts";
import {
  NR_ANON_MAPPED,
  NR_ANON_THPS,
  NR_BLOCKDEV_PAGES,
  NR_COMMITTED,
  NR_FILE_DIRTY,
  NR_FILE_MAPPED,
  NR_FILE_WRITEBACK,
  NR_SHMEM,
  type VmStat,
} from "./vmstat.ts";

/** The vmstat items that are counted anew, frame by frame. */
const COUNTED = [NR_ANON_MAPPED, NR_FILE_MAPPED, NR_SHMEM, NR_BLOCKDEV_PAGES, NR_FILE_DIRTY, NR_FILE_WRITEBACK];

export interface MmCheckDeps {
  readonly machine: Machine;
  readonly pages: Pages;
  readonly pageTables: PageTables;
  readonly vmas: Vmas;
  readonly files: FileMap;
  readonly dirty: DirtyPages;
  readonly vmstat: VmStat;
  /** Head of the list of all address spaces. */
  readonly state: PhysAddr;
}

export function createMmCheck({ machine, pages, pageTables, vmas, files, dirty, vmstat, state }: MmCheckDeps): {
  readonly check: (mm: PhysAddr) => string | null;
  readonly checkAll: () => string | null;
  readonly forEachMm: (visit: (mm: PhysAddr) => void) => void;
} {
  const { port } = machine;
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);

  let nrHuge = 0;
  const indexIn = (vma: PhysAddr, page: number): number => field(vma, VMA_PGOFF) + page - field(vma, VMA_START);

  const isNoticed = (pfn: Pfn, word: number): boolean =>
    (word & (PTE_W | PTE_D)) === 0 || (pages.flags(pfn) & PG_DIRTY) !== 0 || !dirty.isTracked(pfn);

  /** What is wrong with the entry that maps `pfn` as `page` of `vma`, or null. */
  const entryProblem = (pfn: Pfn, word: number, vma: PhysAddr, page: number): string | null => {
    const flags = pages.flags(pfn);
    if ((flags & PG_ALLOCATED) === 0) return `PAGE-1: page ${page} maps frame ${pfn}, which is free`;
    if ((flags & PG_ANON) !== 0) {
      const leadsBack = pages.mapping(pfn) === field(vma, VMA_ANON_VMA) && pages.index(pfn) === indexIn(vma, page);
      if (!leadsBack || pages.mapping(pfn) === 0) return `RMAP-2: the frame of page ${page} does not lead back to it`;
    } else if (pages.mapping(pfn) !== field(vma, VMA_MAPPING) || pages.index(pfn) !== indexIn(vma, page)) {
      return `FMAP-1: page ${page} shows frame ${pfn}, which is another page or file`;
    }
    const isLocked = (field(vma, VMA_FLAGS) & VM_LOCKED) !== 0;
    if (isLocked && (flags & (PG_MLOCKED | PG_UNEVICTABLE)) !== (PG_MLOCKED | PG_UNEVICTABLE)) {
      return `LCK-1: page ${page} of a locked mapping is not locked`;
    }
    if (!isNoticed(pfn, word)) return `DTY-3: page ${page} of a disk can be changed and is not dirty`;
    const isPrivate = (field(vma, VMA_FLAGS) & VM_SHARED) === 0;
    if (isPrivate && (word & PTE_W) !== 0 && ((flags & PG_ANON) === 0 || pages.mapcount(pfn) !== 1)) {
      return `COW-1: page ${page} is writable and its frame has ${pages.mapcount(pfn)} entries`;
    }
    return null;
  };

  /** THP-1 of a huge page that begins in `pfn`, in the VMA of its first page. */
  const hugeProblem = (pfn: Pfn, vma: PhysAddr): string | null => {
    nrHuge++;
    const table = asPfn(pages.private(pfn));
    const isHead = pfn % PTES_PER_TABLE === 0 && (pages.flags(pfn) & PG_HEAD) !== 0;
    if (!isHead || table === 0 || (pages.flags(table) & PG_TABLE) === 0) return `THP-1: frame ${pfn} has no table`;
    if (vma !== NULL && field(vma, VMA_MAPPING) !== 0) return `THP-1: frame ${pfn} is a huge page of a file`;
    return null;
  };

  /** Walks the entries of `mm`; counts them per frame in `counts`. */
  const checkEntries = (mm: PhysAddr, counts: Uint32Array): string | null => {
    const nr = { anon: 0, file: 0, shmem: 0, swap: 0 };
    let problem: string | null = null;
    pageTables.forEachPage(asPfn(field(mm, MM_PGD)), 0, TASK_SIZE / PAGE_SIZE, (_pte, page, word, isHuge) => {
      if (isHuge && page % PTES_PER_TABLE === 0) problem ??= hugeProblem(asPfn(pfnOfPte(word)), vmas.at(mm, page));
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

  /** PGT-1 … PGT-3 */
  const tableProblem = (mm: PhysAddr): string | null => {
    const root = asPfn(field(mm, MM_PGD));
    const [nr, counted] = [pageTables.recount(root), pageTables.count(root)];
    let problem = nr === counted ? null : `PGT-2: the address space has ${nr} tables and counts ${counted}`;
    pageTables.forEachTable(root, (table, base, end) => {
      if (!vmas.isTaken(mm, base, end)) problem ??= `PGT-3: table ${table} translates no page of a VMA from ${base} on`;
      if ((pages.flags(table) & PG_TABLE) === 0) problem ??= `PGT-1: frame ${table} hangs as a table from ${base} on`;
    });
    return problem;
  };

  const checkMm = (mm: PhysAddr, counts: Uint32Array): string | null => {
    const broken = vmas.check(mm);
    if (broken !== null) return broken;
    const sum = { total: 0, data: 0, stack: 0, locked: 0, committed: 0 };
    for (let vma = vmas.first(mm); vma !== NULL; vma = vmas.next(vma)) {
      const { prot, kind, flags } = vmas.specOf(vma);
      const nr = field(vma, VMA_END) - field(vma, VMA_START);
      sum.total += nr;
      if (kind === VMA_STACK) sum.stack += nr;
      else if ((prot & PROT_WRITE) !== 0 && (flags & VM_SHARED) === 0) sum.data += nr;
      if ((flags & VM_LOCKED) !== 0) sum.locked += nr;
      if ((flags & VM_ACCOUNT) !== 0) sum.committed += nr;
      const anonVma = fromGranule(field(vma, VMA_ANON_VMA));
      if (anonVma !== NULL && listCount(port, asPhys(anonVma + AV_LIST)) !== field(anonVma, AV_USERS)) {
        return `RMAP-3: the anon_vma of the VMA at ${field(vma, VMA_START)} miscounts its users`;
      }
    }
    const offsets = [MM_TOTAL_VM, MM_DATA_VM, MM_STACK_VM, MM_LOCKED_VM, MM_COMMITTED];
    const counters = offsets.map((offset) => field(mm, offset));
    if (!Object.values(sum).every((n, i) => n === counters[i])) {
      return `VMA-3 ACC-2: VMAs have total, data, stack, locked, committed ${Object.values(sum)}, counters ${counters}`;
    }
    return tableProblem(mm) ?? checkEntries(mm, counts);
  };

  const frameProblem = (pfn: Pfn, nrEntries: number): string | null => {
    const mapcount = pages.mapcount(pfn);
    if (mapcount !== nrEntries) return `RMAP-1: frame ${pfn} has mapcount ${mapcount} and ${nrEntries} entries`;
    const flags = pages.flags(pfn);
    const isAnon = (flags & PG_ANON) !== 0;
    const least = mapcount + ((flags & PG_SWAPCACHE) !== 0 ? 1 : 0) + (!isAnon && pages.mapping(pfn) !== 0 ? 1 : 0);
    if (pages.refcount(pfn) < least) return `PAGE-6: frame ${pfn} has refcount ${pages.refcount(pfn)} of ${least}`;
    if (!isAnon && pages.mapping(pfn) !== 0 && files.find(fromGranule(pages.mapping(pfn)), pages.index(pfn)) !== pfn) {
      return `FMAP-1: frame ${pfn} is not in its file`;
    }
    if (dirty.isTracked(pfn)) {
      const problem = dirty.problem(pfn);
      if (problem !== null) return problem;
    }
    if ((flags & PG_MLOCKED) !== 0 && mapcount === 0) return `LCK-1: frame ${pfn} is locked and mapped nowhere`;
    if (isAnon && mapcount === 0 && pages.mapping(pfn) !== 0) return `RMAP-4: frame ${pfn} is mapped nowhere`;
    return null;
  };

  const forEachMm = (visit: (mm: PhysAddr) => void): void => {
    for (let link = listFirst(port, state); link !== NULL && link !== state; ) {
      const next = listNext(port, link);
      visit(asPhys(link - MM_LIST));
      link = next;
    }
  };

  /** ACC-1: address spaces, and each piece of shared memory once. */
  const checkPromises = (): string | null => {
    let committed = 0;
    const shared = new Set<PhysAddr>();
    forEachMm((mm) => {
      committed += field(mm, MM_COMMITTED);
      for (let vma = vmas.first(mm); vma !== NULL; vma = vmas.next(vma)) shared.add(vmas.specOf(vma).mapping);
    });
    for (const mapping of shared) committed += mapping === NULL ? 0 : field(mapping, AS_COMMITTED);
    const promised = vmstat.item(NR_COMMITTED);
    return committed === promised ? null : `ACC-1: address spaces hold ${committed} pages, ${promised} are promised`;
  };

  const checkAll = (): string | null => {
    const counts = new Uint32Array(pages.nrFrames);
    let problem: string | null = null;
    nrHuge = 0;
    forEachMm((mm) => {
      problem ??= checkMm(mm, counts);
    });
    if (problem === null && nrHuge !== vmstat.item(NR_ANON_THPS)) {
      problem = `THP-3: ${nrHuge} huge pages, ${vmstat.item(NR_ANON_THPS)} counted`;
    }
    const nr = { anon: 0, file: 0, shmem: 0, disk: 0, dirty: 0, writeback: 0 };
    const trees = new Set<number>();
    for (let pfn = 1; pfn < pages.nrFrames && problem === null; pfn++) {
      problem = frameProblem(asPfn(pfn), counts[pfn] as number);
      const flags = pages.flags(asPfn(pfn));
      if ((flags & PG_ANON) !== 0) nr.anon += (counts[pfn] as number) > 0 ? 1 : 0;
      else if (pages.mapping(asPfn(pfn)) !== 0) {
        nr.file += (counts[pfn] as number) > 0 ? 1 : 0;
        nr.shmem += (flags & PG_SWAPBACKED) !== 0 ? 1 : 0;
        trees.add(pages.mapping(asPfn(pfn)));
        if (dirty.isTracked(asPfn(pfn))) {
          nr.disk++;
          nr.dirty += (flags & PG_DIRTY) !== 0 ? 1 : 0;
          nr.writeback += (flags & PG_WRITEBACK) !== 0 ? 1 : 0;
        }
      }
    }
    if (problem !== null) return problem;
    for (const tree of trees) problem ??= files.check(fromGranule(tree));
    if (problem !== null) return problem;
    const items = COUNTED.map((item) => vmstat.item(item));
    const counted = Object.values(nr);
    if (!counted.every((n, i) => n === items[i])) {
      return `RMAP-1 DTY-2: mapped anonymous, mapped file, shared, disk, dirty, writeback ${counted}, vmstat ${items}`;
    }
    return checkPromises();
  };

  return { check: (mm) => checkMm(mm, new Uint32Array(pages.nrFrames)), checkAll, forEachMm };
}
