/**
 * Address spaces: which ranges of a process's addresses mean something, and the pages behind them.
 *
 * A VMA promises memory; a page fault keeps the promise (demand zero): the first touch of a page finds no entry in
 * the page table, allocates a zeroed frame, and enters it. munmap and exit take entries out and give the frames back.
 *
 *   brk / mmap ─▶ VMA in the tree          load or store ─▶ no PTE ─▶ handleFault ─▶ VMA? frame, PTE : SIGSEGV
 *
 * Memory is not overcommitted: there is no reclaim and no OOM killer yet, so a promise that the free pages could not
 * keep is refused with −ENOMEM when it is asked for (vm.overcommit_memory = 2 in Linux's words, with all free pages as
 * the limit). The account is NR_COMMITTED, pages promised; pages already present count on both sides.
 *
 *   MMAP-1  NR_COMMITTED = Σ total vm of all address spaces
 *   MMAP-2  rss = number of valid user entries in the page tables = frames owned by the address space
 *   MMAP-3  a frame of a process is zeroed before the process can read it
 *   MMAP-4  an entry is gone from every TLB before its frame is freed
 *   and VMA-1 … VMA-3 (mm_struct.ts)
 *
 * Context: process. Linux: mm/mmap.c, mm/memory.c.
 */

import { CYC_FAULT } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { NR_ASIDS, PTE_A, PTE_D, PTE_R, PTE_U, PTE_V, PTE_W, PTE_X } from "../kernel/arch/mmu.ts";
import { bugOn } from "../kernel/bug.ts";
import { createRbTree, type RbTree } from "../kernel/lib/rbtree.ts";
import { PAGE_SIZE, TASK_SIZE, USER_HEAP_BASE, USER_MMAP_TOP, USER_STACK_TOP } from "../kernel/params.ts";
import { asPfn, asPhys, type Context, NO_PFN, NULL, type PhysAddr } from "../kernel/types.ts";
import { EEXIST, EFAULT, EINVAL, ENOMEM } from "../kernel/uapi/errno.ts";
import {
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_FIXED_NOREPLACE,
  MAP_PRIVATE,
  PROT_EXEC,
  PROT_READ,
  PROT_WRITE,
} from "../kernel/uapi/mman.ts";
import { __GFP_ZERO, GFP_HIGHUSER_MOVABLE } from "./gfp.ts";
import {
  MAX_MAP_COUNT,
  MM_ASID,
  MM_BRK,
  MM_CPUS,
  MM_FAULTS,
  MM_MAP_COUNT,
  MM_PGD,
  MM_RSS,
  MM_TOTAL_VM,
  MM_USERS,
  MM_VMA_ROOT,
  VMA_ANON,
  VMA_END,
  VMA_HEAP,
  VMA_KIND,
  VMA_PROT,
  VMA_STACK,
  VMA_START,
} from "./mm_struct.ts";
import { MAX_NR_ZONES, WMARK_HIGH, Z_LOWMEM_RESERVE, Z_NR_FREE, ZONE_MOVABLE, type Zones } from "./mmzone.ts";
import { type Pages, PG_ANON, PG_LRU } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { type PageTables, pfnOfPte, pteOf } from "./pgtable.ts";
import { createTlbFlush } from "./tlb.ts";
import { NR_ANON_MAPPED, NR_CMA_USED, NR_COMMITTED, NR_PAGETABLE, PGFAULT, type VmStat } from "./vmstat.ts";

const STACK_PAGES = 64;
/** One 64th of memory is not promised to processes. */
const KERNEL_SHARE_SHIFT = 6;

export interface ProcessMemory {
  /** A new address space with a stack and an empty heap; NULL without memory. */
  createMm(ctx: Context): PhysAddr;
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
  /** Serves a page fault: 0, −EFAULT (no such mapping or not allowed) or −ENOMEM. */
  handleFault(ctx: Context, mm: PhysAddr, va: number, isWrite: boolean): number;
  field(mm: PhysAddr, offset: number): number;
  /** Visits VMAs in order. */
  forEachVma(mm: PhysAddr, visit: (start: number, end: number, prot: number, kind: number) => void): void;
  nrTables(mm: PhysAddr): number;
  check(mm: PhysAddr): string | null;
}

/** Caches for the two kinds of object, however they are allocated. */
export interface MmCaches {
  allocMm(ctx: Context): PhysAddr;
  freeMm(ctx: Context, mm: PhysAddr): void;
  allocVma(ctx: Context): PhysAddr;
  freeVma(ctx: Context, vma: PhysAddr): void;
}

export interface ProcessMemoryDeps {
  readonly machine: Machine;
  readonly pages: Pages;
  readonly pageAlloc: PageAllocator;
  readonly pageTables: PageTables;
  readonly zones: Zones;
  readonly vmstat: VmStat;
  readonly caches: MmCaches;
  /** One u32 of zeroed static memory: the last ASID given. */
  readonly asidWord: PhysAddr;
  /** Between two pages of a long unmapping: interrupts may come. */
  readonly interruptPoint: (ctx: Context) => void;
}

export function createProcessMemory(deps: ProcessMemoryDeps): ProcessMemory {
  const { machine, pages, pageAlloc, pageTables, zones, vmstat, caches, asidWord } = deps;
  const { port, mmu, harts } = machine;
  const { clock } = harts;
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);
  const setField = (base: PhysAddr, offset: number, value: number): void => port.st32(base + offset, value);
  const addField = (base: PhysAddr, offset: number, delta: number): void =>
    port.st32(base + offset, port.ld32(base + offset) + delta);

  const tree: RbTree = createRbTree(port, { less: (a, b) => field(a, VMA_START) < field(b, VMA_START) });
  const rootOf = (mm: PhysAddr): PhysAddr => asPhys(mm + MM_VMA_ROOT);
  const pgdOf = (mm: PhysAddr) => asPfn(field(mm, MM_PGD));

  /** First VMA that ends above page `page`, or NULL. */
  const findVma = (mm: PhysAddr, page: number): PhysAddr =>
    tree.lowerBound(rootOf(mm), (vma) => field(vma, VMA_END) > page);

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
    // Page tables for every promise, as far as they are not there yet, and a share for the kernel's own objects.
    const tables = Math.max(0, Math.ceil(committed / 512) + 3 - vmstat.item(NR_PAGETABLE));
    return committed + tables + (zones.totalManaged() >>> KERNEL_SHARE_SHIFT) <= available;
  };
  const account = (mm: PhysAddr, nrPages: number): void => {
    vmstat.modItem(NR_COMMITTED, nrPages);
    addField(mm, MM_TOTAL_VM, nrPages);
  };

  // ── VMAs ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  const insertVma = (ctx: Context, mm: PhysAddr, start: number, end: number, prot: number, kind: number): boolean => {
    const below = start === 0 ? NULL : findVma(mm, start - 1);
    const joinsBelow =
      below !== NULL &&
      field(below, VMA_END) === start &&
      field(below, VMA_PROT) === prot &&
      field(below, VMA_KIND) === kind;
    const above = findVma(mm, end);
    const joinsAbove =
      above !== NULL &&
      field(above, VMA_START) === end &&
      field(above, VMA_PROT) === prot &&
      field(above, VMA_KIND) === kind;
    if (joinsBelow && joinsAbove) {
      setField(below, VMA_END, field(above, VMA_END));
      removeVma(ctx, mm, above);
    } else if (joinsBelow) setField(below, VMA_END, end);
    else if (joinsAbove) setField(above, VMA_START, start);
    else return newVma(ctx, mm, start, end, prot, kind) !== NULL;
    return true;
  };

  const newVma = (ctx: Context, mm: PhysAddr, start: number, end: number, prot: number, kind: number): PhysAddr => {
    if (field(mm, MM_MAP_COUNT) >= MAX_MAP_COUNT) return NULL;
    const vma = caches.allocVma(ctx);
    if (vma === NULL) return NULL;
    setField(vma, VMA_START, start);
    setField(vma, VMA_END, end);
    setField(vma, VMA_PROT, prot);
    setField(vma, VMA_KIND, kind);
    tree.insert(rootOf(mm), vma);
    addField(mm, MM_MAP_COUNT, 1);
    return vma;
  };

  const removeVma = (ctx: Context, mm: PhysAddr, vma: PhysAddr): void => {
    tree.erase(rootOf(mm), vma);
    addField(mm, MM_MAP_COUNT, -1);
    caches.freeVma(ctx, vma);
  };

  /** Cuts the VMA that covers both sides of `page` in two; false without memory. */
  const splitAt = (ctx: Context, mm: PhysAddr, page: number): boolean => {
    const vma = findVma(mm, page);
    if (vma === NULL || field(vma, VMA_START) >= page) return true;
    const end = field(vma, VMA_END);
    setField(vma, VMA_END, page);
    if (newVma(ctx, mm, page, end, field(vma, VMA_PROT), field(vma, VMA_KIND)) !== NULL) return true;
    setField(vma, VMA_END, end);
    return false;
  };

  // ── Pages ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** MMAP-4 */
  const flushPage = createTlbFlush(machine);

  /** Takes every present page of `[start, end)` out and frees it. */
  const zap = (ctx: Context, mm: PhysAddr, start: number, end: number): void => {
    pageTables.forEachLeaf(pgdOf(mm), start, end, (pte, page) => {
      const pfn = pfnOfPte(pageTables.readPte(pte));
      pageTables.writePte(pte, 0);
      flushPage(mm, page);
      pages.clearFlags(pfn, PG_ANON | PG_LRU);
      pages.setMapcount(pfn, 0);
      pages.setPrivate(pfn, 0);
      addField(mm, MM_RSS, -1);
      vmstat.modItem(NR_ANON_MAPPED, -1);
      pageAlloc.freePages(ctx, pfn, 0);
      // Tens of thousands of pages at the end of a large process: no device is to wait for that.
      deps.interruptPoint(ctx);
    });
  };

  const unmapPages = (ctx: Context, mm: PhysAddr, start: number, end: number): number => {
    if (!splitAt(ctx, mm, start) || !splitAt(ctx, mm, end)) return -ENOMEM;
    for (let vma = findVma(mm, start); vma !== NULL && field(vma, VMA_START) < end; ) {
      const next = tree.next(vma);
      zap(ctx, mm, field(vma, VMA_START), field(vma, VMA_END));
      account(mm, field(vma, VMA_START) - field(vma, VMA_END));
      removeVma(ctx, mm, vma);
      vma = next;
    }
    return 0;
  };

  /** Highest gap of `nrPages` below the mmap top; −1 if none. */
  const findGap = (mm: PhysAddr, nrPages: number): number => {
    let top = USER_MMAP_TOP / PAGE_SIZE;
    let vma = tree.last(rootOf(mm));
    while (vma !== NULL && field(vma, VMA_START) >= top) vma = tree.prev(vma);
    while (vma !== NULL) {
      if (top - field(vma, VMA_END) >= nrPages) return top - nrPages;
      top = Math.min(top, field(vma, VMA_START));
      vma = tree.prev(vma);
    }
    return top - nrPages >= USER_HEAP_BASE / PAGE_SIZE ? top - nrPages : -1;
  };

  /** Page range of a user request, or null if it is not one. */
  const rangeOf = (addr: number, bytes: number): readonly [number, number] | null => {
    if (!Number.isInteger(addr) || !Number.isInteger(bytes) || addr < 0 || bytes <= 0) return null;
    if (addr % PAGE_SIZE !== 0 || addr + bytes > TASK_SIZE) return null;
    return [addr / PAGE_SIZE, Math.ceil((addr + bytes) / PAGE_SIZE)];
  };

  const pteFlags = (prot: number): number =>
    PTE_V |
    PTE_U |
    PTE_A |
    ((prot & (PROT_READ | PROT_WRITE)) !== 0 ? PTE_R : 0) |
    ((prot & PROT_WRITE) !== 0 ? PTE_W | PTE_D : 0) |
    ((prot & PROT_EXEC) !== 0 ? PTE_X : 0);

  const handleFault = (ctx: Context, mm: PhysAddr, va: number, isWrite: boolean): number => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_FAULT;
    if (!(va >= 0 && va < TASK_SIZE)) return -EFAULT;
    const page = Math.floor(va / PAGE_SIZE);
    const vma = findVma(mm, page);
    if (vma === NULL || field(vma, VMA_START) > page) return -EFAULT;
    const prot = field(vma, VMA_PROT);
    if ((prot & (isWrite ? PROT_WRITE : PROT_READ | PROT_WRITE)) === 0) return -EFAULT;
    const pte = pageTables.walk(ctx, pgdOf(mm), page, true);
    if (pte === NULL) return -ENOMEM;
    const old = pageTables.readPte(pte);
    if ((old & PTE_V) !== 0) {
      // The entry is there: a stale TLB, or protection that the VMA has widened since.
      pageTables.writePte(pte, pteOf(pfnOfPte(old), pteFlags(prot)));
      flushPage(mm, page);
      return 0;
    }
    const pfn = pageAlloc.tryAllocPages(ctx, 0, GFP_HIGHUSER_MOVABLE | __GFP_ZERO);
    if (pfn === NO_PFN) return -ENOMEM;
    pages.addFlags(pfn, PG_ANON | PG_LRU);
    pages.setPrivate(pfn, mm / 8);
    pages.setIndex(pfn, page);
    pages.setMapcount(pfn, 1);
    pageTables.writePte(pte, pteOf(pfn, pteFlags(prot)));
    addField(mm, MM_RSS, 1);
    addField(mm, MM_FAULTS, 1);
    vmstat.modItem(NR_ANON_MAPPED, 1);
    vmstat.countEvents(ctx, PGFAULT, 1);
    return 0;
  };

  // ── System calls ─────────────────────────────────────────────────────────────────────────────────────────────────

  const mapAt = (ctx: Context, mm: PhysAddr, start: number, end: number, prot: number, kind: number): number => {
    if (!mayCommit(end - start)) return -ENOMEM;
    if (!insertVma(ctx, mm, start, end, prot, kind)) return -ENOMEM;
    account(mm, end - start);
    return 0;
  };

  const mmap = (ctx: Context, mm: PhysAddr, addr: number, bytes: number, prot: number, flags: number): number => {
    if ((flags & MAP_ANONYMOUS) === 0 || (flags & MAP_PRIVATE) === 0) return -EINVAL;
    if ((prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC)) !== 0 || !Number.isInteger(bytes) || bytes <= 0) return -EINVAL;
    if (bytes > TASK_SIZE) return -ENOMEM;
    const nrPages = Math.ceil(bytes / PAGE_SIZE);
    if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) !== 0) {
      const range = rangeOf(addr, bytes);
      if (range === null || range[0] === 0) return -EINVAL;
      const hit = findVma(mm, range[0]);
      const isTaken = hit !== NULL && field(hit, VMA_START) < range[1];
      if (isTaken && (flags & MAP_FIXED_NOREPLACE) !== 0) return -EEXIST;
      // SYS-2: what can be refused is refused before the old mapping goes.
      if (!mayCommit(nrPages)) return -ENOMEM;
      if (isTaken && unmapPages(ctx, mm, range[0], range[1]) !== 0) return -ENOMEM;
      const result = mapAt(ctx, mm, range[0], range[1], prot, VMA_ANON);
      return result === 0 ? addr : result;
    }
    const start = findGap(mm, nrPages);
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
      const hit = findVma(mm, oldEnd);
      if (hit !== NULL && field(hit, VMA_START) < newEnd) return old;
      if (mapAt(ctx, mm, oldEnd, newEnd, PROT_READ | PROT_WRITE, VMA_HEAP) !== 0) return old;
    }
    port.stF64(mm + MM_BRK, addr);
    return addr;
  };

  /** True if VMAs cover all of `[start, end)`. */
  const isCovered = (mm: PhysAddr, start: number, end: number): boolean => {
    let covered = start;
    for (let vma = findVma(mm, covered); vma !== NULL && covered < end; vma = tree.next(vma)) {
      if (field(vma, VMA_START) > covered) break;
      covered = field(vma, VMA_END);
    }
    return covered >= end;
  };

  const mprotect = (ctx: Context, mm: PhysAddr, addr: number, bytes: number, prot: number): number => {
    const range = rangeOf(addr, bytes);
    if (range === null || (prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC)) !== 0) return -EINVAL;
    if (!isCovered(mm, range[0], range[1]) || !splitAt(ctx, mm, range[0]) || !splitAt(ctx, mm, range[1]))
      return -ENOMEM;
    for (let vma = findVma(mm, range[0]); vma !== NULL && field(vma, VMA_START) < range[1]; vma = tree.next(vma)) {
      setField(vma, VMA_PROT, prot);
    }
    pageTables.forEachLeaf(pgdOf(mm), range[0], range[1], (pte, page) => {
      const pfn = pfnOfPte(pageTables.readPte(pte));
      // Without any right an entry would look like a table: V alone. PTE_X keeps it a leaf, U is dropped instead.
      const flags = prot === 0 ? PTE_V | PTE_X : pteFlags(prot);
      pageTables.writePte(pte, pteOf(pfn, flags));
      flushPage(mm, page);
    });
    return 0;
  };

  const createMm = (ctx: Context): PhysAddr => {
    const mm = caches.allocMm(ctx);
    if (mm === NULL) return NULL;
    port.fill(mm, 0, 64);
    const pgd = pageTables.createRoot(ctx);
    if (pgd === NO_PFN) {
      caches.freeMm(ctx, mm);
      return NULL;
    }
    setField(mm, MM_PGD, pgd);
    setField(mm, MM_USERS, 1);
    setField(mm, MM_ASID, nextAsid());
    port.stF64(mm + MM_BRK, USER_HEAP_BASE);
    const top = USER_STACK_TOP / PAGE_SIZE;
    if (mapAt(ctx, mm, top - STACK_PAGES, top, PROT_READ | PROT_WRITE, VMA_STACK) !== 0) {
      pageTables.destroy(ctx, pgd);
      caches.freeMm(ctx, mm);
      return NULL;
    }
    return mm;
  };

  /** ASIDs go round; when they have gone round once, the new owner's stale entries are flushed everywhere. */
  const nextAsid = (): number => {
    const last = field(asidWord, 0);
    const asid = 1 + (last % (NR_ASIDS - 1));
    setField(asidWord, 0, last + 1);
    if (last >= NR_ASIDS - 1) for (let cpu = 0; cpu < harts.nrCpus; cpu++) mmu.flushAsid(cpu, asid);
    return asid;
  };

  const mmPut = (ctx: Context, mm: PhysAddr): void => {
    const users = field(mm, MM_USERS);
    bugOn(users === 0, "mmap: address space put once too often", mm);
    setField(mm, MM_USERS, users - 1);
    if (users > 1) return;
    unmapPages(ctx, mm, 0, TASK_SIZE / PAGE_SIZE);
    bugOn(field(mm, MM_RSS) !== 0, "MMAP-2: pages left in a dead address space", mm, field(mm, MM_RSS));
    for (let cpu = 0; cpu < harts.nrCpus; cpu++) mmu.flushAsid(cpu, field(mm, MM_ASID));
    pageTables.destroy(ctx, pgdOf(mm));
    caches.freeMm(ctx, mm);
  };

  const check = (mm: PhysAddr): string | null => {
    const broken = tree.check(rootOf(mm));
    if (broken !== null) return broken;
    let total = 0;
    let last = 0;
    for (let vma = tree.first(rootOf(mm)); vma !== NULL; vma = tree.next(vma)) {
      const [start, end] = [field(vma, VMA_START), field(vma, VMA_END)];
      if (start < last || end <= start) return `VMA-1: [${start}, ${end}) after ${last}`;
      last = end;
      total += end - start;
    }
    let rss = 0;
    let strayPage = -1;
    pageTables.forEachLeaf(pgdOf(mm), 0, TASK_SIZE / PAGE_SIZE, (pte, page) => {
      rss++;
      const pfn = pfnOfPte(pageTables.readPte(pte));
      if (pages.private(pfn) !== mm / 8 || pages.index(pfn) !== page) strayPage = page;
    });
    if (strayPage >= 0) return `PAGE-4: the frame of page ${strayPage} does not lead back to it`;
    if (total !== field(mm, MM_TOTAL_VM)) return `VMA-3: VMAs cover ${total} pages, total_vm ${field(mm, MM_TOTAL_VM)}`;
    return rss === field(mm, MM_RSS) ? null : `MMAP-2: ${rss} entries, rss ${field(mm, MM_RSS)}`;
  };

  return {
    createMm,
    mmPut,
    mmGet: (mm) => addField(mm, MM_USERS, 1),
    activate(cpu, mm) {
      harts.satpRoot[cpu] = mm === NULL ? 0 : field(mm, MM_PGD);
      harts.satpAsid[cpu] = mm === NULL ? 0 : field(mm, MM_ASID);
      if (mm === NULL) return;
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
      if (!isCovered(mm, range[0], range[1])) return -ENOMEM;
      zap(ctx, mm, range[0], range[1]);
      return 0;
    },
    handleFault,
    field,
    forEachVma(mm, visit) {
      for (let vma = tree.first(rootOf(mm)); vma !== NULL; vma = tree.next(vma)) {
        visit(field(vma, VMA_START), field(vma, VMA_END), field(vma, VMA_PROT), field(vma, VMA_KIND));
      }
    },
    nrTables: (mm) => pageTables.count(pgdOf(mm)),
    check,
  };
}
