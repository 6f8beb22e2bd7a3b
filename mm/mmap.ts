/**
 * Address spaces: made, copied, used by threads, and given up; and the system calls that change their ranges.
 *
 * A VMA promises memory (vma.ts); a page fault keeps the promise (memory.ts). munmap and exit take entries out of the
 * page tables and give back the frames that nobody else holds.
 *
 *   brk / mmap ─▶ VMA in the tree          load or store ─▶ no PTE ─▶ handleFault ─▶ VMA? frame, PTE : SIGSEGV
 *   fork ─▶ the same VMAs and frames (fork.ts)      store ─▶ PTE without W ─▶ handleFault ─▶ copy, or take over
 *
 * Memory is not overcommitted: there is no reclaim and no OOM killer yet, so a promise that the free pages could not
 * keep is refused with −ENOMEM when it is asked for (vm.overcommit_memory = 2 in Linux's words, with all free pages as
 * the limit). The account is NR_COMMITTED, pages promised; pages already present count on both sides. A fork promises
 * all of its parent's memory once more.
 *
 *   MMAP-1  NR_COMMITTED = Σ total vm of all address spaces
 *   MMAP-2 … MMAP-4, COW-1 … COW-3, FLT-1 (memory.ts), FRK-1, FRK-2 (fork.ts), RMAP-1 … RMAP-4 (rmap.ts)
 *   and VMA-1 … VMA-4 (mm_struct.ts, vma.ts)
 *
 * Context: process. Linux: mm/mmap.c, kernel/fork.c.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { bugOn } from "../kernel/bug.ts";
import { initListHead, listAddTail, listDel, listFirst, listNext } from "../kernel/lib/list.ts";
import { PAGE_SIZE, TASK_SIZE, USER_HEAP_BASE, USER_MMAP_TOP, USER_STACK_TOP } from "../kernel/params.ts";
import { asPfn, asPhys, type Context, NO_PFN, NULL, type PhysAddr } from "../kernel/types.ts";
import { EEXIST, EINVAL, ENOMEM } from "../kernel/uapi/errno.ts";
import {
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_FIXED_NOREPLACE,
  MAP_PRIVATE,
  PROT_EXEC,
  PROT_READ,
  PROT_WRITE,
} from "../kernel/uapi/mman.ts";
import { SHARED_ASID, takeAsid } from "./asid.ts";
import { createFork } from "./fork.ts";
import { createUserPages } from "./memory.ts";
import { createMmCheck } from "./mm_check.ts";
import {
  MM_ASID,
  MM_BRK,
  MM_CPUS,
  MM_LIST,
  MM_PGD,
  MM_STRUCT_BYTES,
  MM_SWAPENTS,
  MM_TOTAL_VM,
  MM_USERS,
  VMA_ANON,
  VMA_END,
  VMA_HEAP,
  VMA_KIND,
  VMA_PROT,
  VMA_STACK,
  VMA_START,
} from "./mm_struct.ts";
import { MAX_NR_ZONES, WMARK_HIGH, Z_LOWMEM_RESERVE, Z_NR_FREE, ZONE_MOVABLE, type Zones } from "./mmzone.ts";
import type { Pages } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import type { LruLists, PageRefs } from "./page_ref.ts";
import type { PageTables } from "./pgtable.ts";
import { createRmap, type Rmap } from "./rmap.ts";
import { isSwapPte, type SwapLayer } from "./swap_entry.ts";
import { createTlbFlush } from "./tlb.ts";
import { createVmas } from "./vma.ts";
import { NR_ANON_MAPPED, NR_CMA_USED, NR_COMMITTED, NR_PAGETABLE, type VmStat } from "./vmstat.ts";

const STACK_PAGES = 64;
/** One 64th of memory is not promised to processes. */
const KERNEL_SHARE_SHIFT = 6;
const PROT_ALL = PROT_READ | PROT_WRITE | PROT_EXEC;

/** Static memory, zeroed, on 8 bytes: the list of all address spaces, the last ASID given. */
export const PROCESS_MEMORY_BYTES = 16;
const LAST_ASID = 8;

export interface ProcessMemory {
  /** A new address space with a stack and an empty heap; NULL without memory. */
  createMm(ctx: Context): PhysAddr;
  /** A copy-on-write copy of `mm`; NULL without memory. O(VMAs + pages present). */
  fork(ctx: Context, mm: PhysAddr): PhysAddr;
  /** One user less; the last one frees everything. */
  mmPut(ctx: Context, mm: PhysAddr): void;
  mmGet(mm: PhysAddr): void;
  /** Makes `mm` the address space of a CPU (NULL: the kernel's). */
  activate(cpu: number, mm: PhysAddr): void;
  /** The break after the call; unchanged on failure. */
  brk(ctx: Context, mm: PhysAddr, addr: number): number;
  /** Address, or −errno. */
  mmap(ctx: Context, mm: PhysAddr, addr: number, bytes: number, prot: number, flags: number): number;
  munmap(ctx: Context, mm: PhysAddr, addr: number, bytes: number): number;
  mprotect(ctx: Context, mm: PhysAddr, addr: number, bytes: number, prot: number): number;
  /** MADV_DONTNEED: drops the pages, keeps the mapping. */
  dropPages(ctx: Context, mm: PhysAddr, addr: number, bytes: number): number;
  /** Serves a page fault: 0, −EFAULT (no such mapping or not allowed), −ENOMEM, or −EIO (SIGBUS). */
  handleFault(ctx: Context, mm: PhysAddr, va: number, isWrite: boolean): number;
  field(mm: PhysAddr, offset: number): number;
  /** Pages present. */
  rss(mm: PhysAddr): number;
  /** Visits VMAs in order. */
  forEachVma(
    mm: PhysAddr,
    visit: (start: number, end: number, prot: number, kind: number, vma: PhysAddr) => void,
  ): void;
  nrTables(mm: PhysAddr): number;
  /** Brings every page of every address space in that is in swap: 0 or −errno of the first that cannot come. */
  bringAllIn(ctx: Context): number;
  /** The first broken invariant of one address space, or null. O(VMAs + pages). */
  check(mm: PhysAddr): string | null;
  /** The same for all of them, and the counts of every frame against all page tables. O(frames + pages). */
  checkAll(): string | null;
  readonly rmap: Rmap;
}

/** Caches for the kinds of object, however they are allocated. */
export interface MmCaches {
  allocMm(ctx: Context): PhysAddr;
  freeMm(ctx: Context, mm: PhysAddr): void;
  allocVma(ctx: Context): PhysAddr;
  freeVma(ctx: Context, vma: PhysAddr): void;
  allocAnonVma(ctx: Context): PhysAddr;
  freeAnonVma(ctx: Context, anonVma: PhysAddr): void;
}

export interface ProcessMemoryDeps {
  readonly machine: Machine;
  readonly pages: Pages;
  readonly pageAlloc: PageAllocator;
  readonly pageTables: PageTables;
  readonly refs: PageRefs;
  readonly lru: LruLists;
  readonly swap: SwapLayer;
  readonly zones: Zones;
  readonly vmstat: VmStat;
  readonly caches: MmCaches;
  /** PROCESS_MEMORY_BYTES. */
  readonly state: PhysAddr;
  /** Between two pages of a long unmapping: interrupts may come. */
  readonly interruptPoint: (ctx: Context) => void;
}

export function createProcessMemory(deps: ProcessMemoryDeps): ProcessMemory {
  const { machine, pageTables, zones, vmstat, caches, state } = deps;
  const { port, mmu, harts } = machine;
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);
  const setField = (base: PhysAddr, offset: number, value: number): void => port.st32(base + offset, value);
  const addField = (base: PhysAddr, offset: number, delta: number): void =>
    port.st32(base + offset, port.ld32(base + offset) + delta);
  const pgdOf = (mm: PhysAddr) => asPfn(field(mm, MM_PGD));

  const flushPage = createTlbFlush(machine);
  const { allocAnonVma, freeAnonVma, allocVma, freeVma } = caches;
  const rmap = createRmap({ ...deps, flushPage, allocAnonVma, freeAnonVma });
  const vmas = createVmas({ port, rmap, allocVma, freeVma });
  const userPages = createUserPages({ ...deps, vmas, rmap, flushPage });
  const copyMappings = createFork({ ...deps, vmas });
  initListHead(port, state);

  // ── The account of promised pages ────────────────────────────────────────────────────────────────────────────────

  /** Can `nrPages` more be promised, with page tables for them, above the high marks? */
  const mayCommit = (nrPages: number): boolean => {
    let available = vmstat.item(NR_ANON_MAPPED);
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
      const kept = zones.wmark(zone, WMARK_HIGH) + zones.field(zone, Z_LOWMEM_RESERVE + ZONE_MOVABLE * 4);
      available += Math.max(0, zones.field(zone, Z_NR_FREE) - kept);
    }
    const committed = vmstat.item(NR_COMMITTED) + nrPages;
    // The contiguous area is lent, not given: what a driver takes back must not break a promise.
    available -= zones.totalCma() - vmstat.item(NR_CMA_USED);
    available += deps.swap.nrPages();
    // Page tables for every promise, as far as they are not there yet, and a share for the kernel's own objects.
    const tables = Math.max(0, Math.ceil(committed / 512) + 3 - vmstat.item(NR_PAGETABLE));
    return committed + tables + (zones.totalManaged() >>> KERNEL_SHARE_SHIFT) <= available;
  };
  const account = (mm: PhysAddr, nrPages: number): void => {
    vmstat.modItem(NR_COMMITTED, nrPages);
    addField(mm, MM_TOTAL_VM, nrPages);
  };

  const unmapPages = (ctx: Context, mm: PhysAddr, start: number, end: number): number => {
    if (!vmas.splitAt(ctx, mm, start) || !vmas.splitAt(ctx, mm, end)) return -ENOMEM;
    for (let vma = vmas.find(mm, start); vma !== NULL && field(vma, VMA_START) < end; ) {
      const next = vmas.next(vma);
      userPages.zap(ctx, mm, field(vma, VMA_START), field(vma, VMA_END));
      account(mm, field(vma, VMA_START) - field(vma, VMA_END));
      vmas.remove(ctx, mm, vma);
      vma = next;
    }
    return 0;
  };

  /** Page range of a user request, or null if it is not one. */
  const rangeOf = (addr: number, bytes: number): readonly [number, number] | null => {
    if (!Number.isInteger(addr) || !Number.isInteger(bytes) || addr < 0 || bytes <= 0) return null;
    if (addr % PAGE_SIZE !== 0 || addr + bytes > TASK_SIZE) return null;
    return [addr / PAGE_SIZE, Math.ceil((addr + bytes) / PAGE_SIZE)];
  };

  // ── System calls ─────────────────────────────────────────────────────────────────────────────────────────────────

  const mapAt = (ctx: Context, mm: PhysAddr, start: number, end: number, prot: number, kind: number): number => {
    if (!mayCommit(end - start)) return -ENOMEM;
    if (!vmas.insert(ctx, mm, start, end, { prot, kind, flags: 0, pgoff: start })) return -ENOMEM;
    account(mm, end - start);
    return 0;
  };

  const mmap = (ctx: Context, mm: PhysAddr, addr: number, bytes: number, prot: number, flags: number): number => {
    if ((flags & MAP_ANONYMOUS) === 0 || (flags & MAP_PRIVATE) === 0) return -EINVAL;
    if ((prot & ~PROT_ALL) !== 0 || !Number.isInteger(bytes) || bytes <= 0) return -EINVAL;
    if (bytes > TASK_SIZE) return -ENOMEM;
    const nrPages = Math.ceil(bytes / PAGE_SIZE);
    if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) !== 0) {
      const range = rangeOf(addr, bytes);
      if (range === null || range[0] === 0) return -EINVAL;
      const isTaken = vmas.isTaken(mm, range[0], range[1]);
      if (isTaken && (flags & MAP_FIXED_NOREPLACE) !== 0) return -EEXIST;
      // SYS-2: what can be refused is refused before the old mapping goes.
      if (!mayCommit(nrPages)) return -ENOMEM;
      if (isTaken && unmapPages(ctx, mm, range[0], range[1]) !== 0) return -ENOMEM;
      const result = mapAt(ctx, mm, range[0], range[1], prot, VMA_ANON);
      return result === 0 ? addr : result;
    }
    const start = vmas.findGap(mm, nrPages);
    if (start < 0) return -ENOMEM;
    const result = mapAt(ctx, mm, start, start + nrPages, prot, VMA_ANON);
    return result === 0 ? start * PAGE_SIZE : result;
  };

  const brk = (ctx: Context, mm: PhysAddr, addr: number): number => {
    const old = port.ldF64(mm + MM_BRK);
    if (!Number.isInteger(addr) || addr < USER_HEAP_BASE || addr >= USER_MMAP_TOP) return old;
    const oldEnd = Math.ceil(old / PAGE_SIZE);
    const newEnd = Math.ceil(addr / PAGE_SIZE);
    if (newEnd < oldEnd && unmapPages(ctx, mm, newEnd, oldEnd) !== 0) return old;
    if (newEnd > oldEnd) {
      if (vmas.isTaken(mm, oldEnd, newEnd)) return old;
      if (mapAt(ctx, mm, oldEnd, newEnd, PROT_READ | PROT_WRITE, VMA_HEAP) !== 0) return old;
    }
    port.stF64(mm + MM_BRK, addr);
    return addr;
  };

  const mprotect = (ctx: Context, mm: PhysAddr, addr: number, bytes: number, prot: number): number => {
    const range = rangeOf(addr, bytes);
    if (range === null || (prot & ~PROT_ALL) !== 0) return -EINVAL;
    const [start, end] = range;
    if (!vmas.isCovered(mm, start, end) || !vmas.splitAt(ctx, mm, start) || !vmas.splitAt(ctx, mm, end)) return -ENOMEM;
    for (let vma = vmas.find(mm, start); vma !== NULL && field(vma, VMA_START) < end; vma = vmas.next(vma)) {
      setField(vma, VMA_PROT, prot);
    }
    userPages.protect(mm, start, end, prot);
    return 0;
  };

  // ── Whole address spaces ─────────────────────────────────────────────────────────────────────────────────────────

  /** An address space without VMAs; NULL without memory. */
  const emptyMm = (ctx: Context): PhysAddr => {
    const mm = caches.allocMm(ctx);
    if (mm === NULL) return NULL;
    port.fill(mm, 0, MM_STRUCT_BYTES);
    const pgd = pageTables.createRoot(ctx);
    if (pgd === NO_PFN) {
      caches.freeMm(ctx, mm);
      return NULL;
    }
    setField(mm, MM_PGD, pgd);
    setField(mm, MM_USERS, 1);
    setField(mm, MM_ASID, takeAsid(port, state, asPhys(state + LAST_ASID)));
    port.stF64(mm + MM_BRK, USER_HEAP_BASE);
    initListHead(port, asPhys(mm + MM_LIST));
    listAddTail(port, asPhys(mm + MM_LIST), state);
    return mm;
  };

  const createMm = (ctx: Context): PhysAddr => {
    const mm = emptyMm(ctx);
    const top = USER_STACK_TOP / PAGE_SIZE;
    if (mm !== NULL && mapAt(ctx, mm, top - STACK_PAGES, top, PROT_READ | PROT_WRITE, VMA_STACK) !== 0) {
      mmPut(ctx, mm);
      return NULL;
    }
    return mm;
  };

  const fork = (ctx: Context, parent: PhysAddr): PhysAddr => {
    const nrPages = field(parent, MM_TOTAL_VM);
    if (!mayCommit(nrPages)) return NULL;
    const mm = emptyMm(ctx);
    if (mm === NULL) return NULL;
    port.stF64(mm + MM_BRK, port.ldF64(parent + MM_BRK));
    const isWhole = copyMappings(ctx, parent, mm);
    // What is mapped is accounted, also when it is about to be undone.
    for (let vma = vmas.first(mm); vma !== NULL; vma = vmas.next(vma)) {
      account(mm, field(vma, VMA_END) - field(vma, VMA_START));
    }
    if (isWhole) return mm;
    mmPut(ctx, mm);
    return NULL;
  };

  const mmPut = (ctx: Context, mm: PhysAddr): void => {
    const users = field(mm, MM_USERS);
    bugOn(users === 0, "mmap: address space put once too often", mm);
    setField(mm, MM_USERS, users - 1);
    if (users > 1) return;
    unmapPages(ctx, mm, 0, TASK_SIZE / PAGE_SIZE);
    const nrLeft = userPages.rss(mm) + field(mm, MM_SWAPENTS);
    bugOn(nrLeft !== 0, "MMAP-2: pages left in a dead address space", mm, nrLeft);
    for (let cpu = 0; cpu < harts.nrCpus; cpu++) mmu.flushAsid(cpu, field(mm, MM_ASID));
    pageTables.destroy(ctx, pgdOf(mm));
    listDel(port, asPhys(mm + MM_LIST));
    caches.freeMm(ctx, mm);
  };

  const { check, checkAll } = createMmCheck({ ...deps, vmas });

  return {
    createMm,
    fork,
    mmPut,
    mmGet: (mm) => addField(mm, MM_USERS, 1),
    activate(cpu, mm) {
      harts.satpRoot[cpu] = mm === NULL ? 0 : field(mm, MM_PGD);
      harts.satpAsid[cpu] = mm === NULL ? 0 : field(mm, MM_ASID);
      if (mm === NULL) return;
      if (harts.satpAsid[cpu] === SHARED_ASID) mmu.flushAsid(cpu, SHARED_ASID);
      const word = asPhys(mm + MM_CPUS + (cpu >>> 5) * 4);
      port.st32(word, (port.ld32(word) | (1 << (cpu & 31))) >>> 0);
    },
    brk,
    mmap,
    munmap(ctx, mm, addr, bytes) {
      const range = rangeOf(addr, bytes);
      return range === null ? -EINVAL : unmapPages(ctx, mm, range[0], range[1]);
    },
    mprotect,
    dropPages(ctx, mm, addr, bytes) {
      const range = rangeOf(addr, bytes);
      if (range === null) return -EINVAL;
      if (!vmas.isCovered(mm, range[0], range[1])) return -ENOMEM;
      userPages.zap(ctx, mm, range[0], range[1]);
      return 0;
    },
    handleFault: userPages.handleFault,
    field,
    rss: userPages.rss,
    forEachVma(mm, visit) {
      for (let vma = vmas.first(mm); vma !== NULL; vma = vmas.next(vma)) {
        visit(field(vma, VMA_START), field(vma, VMA_END), field(vma, VMA_PROT), field(vma, VMA_KIND), vma);
      }
    },
    nrTables: (mm) => pageTables.count(pgdOf(mm)),
    bringAllIn(ctx) {
      let error = 0;
      for (let link = listFirst(port, state); link !== NULL && link !== state; link = listNext(port, link)) {
        const mm = asPhys(link - MM_LIST);
        if (field(mm, MM_SWAPENTS) === 0) continue;
        pageTables.forEachEntry(pgdOf(mm), 0, TASK_SIZE / PAGE_SIZE, (pte, page, word) => {
          if (error === 0 && isSwapPte(word)) error = deps.swap.fault(ctx, mm, vmas.at(mm, page), page, pte, false);
        });
      }
      return error;
    },
    check,
    checkAll,
    rmap,
  };
}
