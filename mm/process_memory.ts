/**
 * Address spaces: made, copied, used by threads, and given up. The parts of process memory are put together here.
 *
 *   createMm / fork ─▶ mm_struct, root table, VMAs ─▶ threads (users) ─▶ mmPut of the last ─▶ everything goes back
 *
 *   brk / mmap ─▶ VMA in the tree          load or store ─▶ no PTE ─▶ handleFault ─▶ VMA? frame, PTE : SIGSEGV
 *   fork ─▶ the same VMAs and frames (fork.ts)     store ─▶ PTE without W ─▶ handleFault ─▶ copy, or take over
 *
 *   MMAP-1  = ACC-1 (vm_account.ts)
 *   MMAP-2 … MMAP-4, COW-1 … COW-3, PFL, STK, LCK-1 (memory.ts) · FRK-1, FRK-2 (fork.ts) · RMAP-1 … RMAP-4 (rmap.ts)
 *   VMA-1 … VMA-5 (mm_struct.ts, vma.ts) · FMAP-1 … FMAP-4 (filemap.ts) · MAP-1 … MAP-3 (mmap.ts) · MRM-1, MRM-2
 *   ASID-1, ASID-2 (asid.ts) · ADV-1 (madvise.ts)
 *
 * Context: process. Linux: kernel/fork.c, mm/init-mm.c.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { bugOn } from "../kernel/bug.ts";
import { initListHead, listAddTail, listDel } from "../kernel/lib/list.ts";
import { PAGE_SIZE, TASK_SIZE } from "../kernel/params.ts";
import { asPfn, asPhys, type Context, NO_PFN, NULL, type PhysAddr } from "../kernel/types.ts";
import { MADV_DONTNEED, PROT_READ, PROT_WRITE } from "../kernel/uapi/mman.ts";
import { takeAsid } from "./asid.ts";
import { createFileMap, type FileMap } from "./filemap.ts";
import { createFork } from "./fork.ts";
import { createLayout, LAYOUT_BYTES, type Layout } from "./layout.ts";
import { createLazyFree, type LazyFree } from "./lazyfree.ts";
import { type AdviceCalls, createAdviceCalls } from "./madvise.ts";
import { createUserPages, type LruControl, type UserPages } from "./memory.ts";
import { createLockCalls, type LockCalls } from "./mlock.ts";
import { createMmCheck } from "./mm_check.ts";
import {
  MM_ASID,
  MM_BRK,
  MM_COMMITTED,
  MM_LIM_AS,
  MM_LIM_DATA,
  MM_LIM_MEMLOCK,
  MM_LIM_STACK,
  MM_LIST,
  MM_MMAP_TOP,
  MM_PGD,
  MM_STACK_TOP,
  MM_START_BRK,
  MM_STRUCT_BYTES,
  MM_SWAPENTS,
  MM_USERS,
  PAGES_UNLIMITED,
  VM_GROWSDOWN,
  VM_MAYWRITE,
  VMA_END,
  VMA_KIND,
  VMA_PROT,
  VMA_STACK,
  VMA_START,
} from "./mm_struct.ts";
import { createMmapCalls, type MmapCalls } from "./mmap.ts";
import { createMmuGathers } from "./mmu_gather.ts";
import type { Zones } from "./mmzone.ts";
import { createMremap, type Mremap } from "./mremap.ts";
import type { Pages } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { createDirtyPages, type DirtyPages } from "./page_dirty.ts";
import type { PageRefs } from "./page_ref.ts";
import type { PageTables } from "./pgtable.ts";
import { createRadixTree } from "./radix.ts";
import { createRmap, type Rmap } from "./rmap.ts";
import { isSwapPte, type SwapLayer, slotOfPte } from "./swap_entry.ts";
import { createThp, THP_BYTES, type Thp } from "./thp.ts";
import { createTlb, TLB_BYTES, type Tlb } from "./tlb.ts";
import { createTruncate } from "./truncate.ts";
import { createVmAccount, VM_ACCOUNT_BYTES, type VmAccount } from "./vm_account.ts";
import { createVmas, type Vmas } from "./vma.ts";
import type { VmStat } from "./vmstat.ts";

/** What a stack has before it grows: 132 KiB. */
const STACK_PAGES = 33;
const STACK_LIMIT_PAGES = 2048;

/** Static memory, zeroed: all address spaces; last ASID; overcommit; shoot-downs; huge pages; ASLR; files for swap. */
const LAST_ASID = 8;
const ACCOUNT = 16;
const TLB = ACCOUNT + VM_ACCOUNT_BYTES;
const THP = TLB + TLB_BYTES;
const LAYOUT = THP + THP_BYTES;
const SWAP_LIST = LAYOUT + LAYOUT_BYTES;
export const PROCESS_MEMORY_BYTES = SWAP_LIST + 8;

/** Soft limits in bytes; Infinity: none. */
export interface MemoryLimits {
  readonly as: number;
  readonly data: number;
  readonly stack: number;
  readonly memlock: number;
}

export interface ProcessMemory
  extends Omit<MmapCalls, "unmapPages" | "freeTables" | "mapAt" | "populate">,
    AdviceCalls,
    LockCalls,
    Pick<UserPages, "handleFault" | "rss"> {
  /** A new address space with a stack and an empty heap; NULL without memory. `isFixed`: at the fixed places. */
  createMm(ctx: Context, isFixed?: boolean): PhysAddr;
  /** A copy-on-write copy of `mm`; NULL without memory. O(VMAs + pages present). */
  fork(ctx: Context, mm: PhysAddr): PhysAddr;
  /** One user less; the last one frees everything. */
  mmPut(ctx: Context, mm: PhysAddr): void;
  mmGet(mm: PhysAddr): void;
  /** Makes `mm` the address space of a CPU (NULL: the kernel's). */
  activate(cpu: number, mm: PhysAddr): void;
  /** RLIMIT_AS, DATA, STACK, MEMLOCK, for calls and faults from now on; fork copies them. */
  setLimits(mm: PhysAddr, limits: MemoryLimits): void;
  readonly mremap: Mremap;
  /** MADV_DONTNEED: drops the pages, keeps the mapping. */
  dropPages(ctx: Context, mm: PhysAddr, addr: number, bytes: number): number;
  field(mm: PhysAddr, offset: number): number;
  /** Visits VMAs in order. */
  forEachVma(
    mm: PhysAddr,
    visit: (start: number, end: number, prot: number, kind: number, vma: PhysAddr) => void,
  ): void;
  nrTables(mm: PhysAddr): number;
  /** Brings every page of every address space in that is in swap: 0 or −errno of the first that cannot come. */
  bringAllIn(ctx: Context, isWanted: (slot: number) => boolean): number;
  /** Calls `visit` for every address space. */
  forEachMm(visit: (mm: PhysAddr) => void): void;
  /** Sets the size of a file; pages beyond it go from every mapping (FMAP-4). 0 or −EFBIG. */
  truncate(ctx: Context, mapping: PhysAddr, bytes: number): number;
  /** The first broken invariant of one address space, or null. O(VMAs + pages). */
  check(mm: PhysAddr): string | null;
  /** The same for all of them, and the counts of every frame against all page tables. O(frames + pages). */
  checkAll(): string | null;
  readonly rmap: Rmap;
  readonly vmas: Vmas;
  readonly files: FileMap;
  readonly dirty: DirtyPages;
  readonly account: VmAccount;
  readonly userPages: UserPages;
  readonly tlb: Tlb;
  readonly thp: Thp;
  readonly lazyFree: LazyFree;
  readonly layout: Layout;
}

/** Caches for the kinds of object, however they are allocated. */
export interface MmCaches {
  allocMm(ctx: Context): PhysAddr;
  freeMm(ctx: Context, mm: PhysAddr): void;
  allocVma(ctx: Context): PhysAddr;
  freeVma(ctx: Context, vma: PhysAddr): void;
  allocAnonVma(ctx: Context): PhysAddr;
  freeAnonVma(ctx: Context, anonVma: PhysAddr): void;
  allocMapping(ctx: Context): PhysAddr;
  freeMapping(ctx: Context, mapping: PhysAddr): void;
  allocNode(ctx: Context): PhysAddr;
  freeNode(ctx: Context, node: PhysAddr): void;
}

export interface ProcessMemoryDeps {
  readonly machine: Machine;
  readonly pages: Pages;
  readonly pageAlloc: PageAllocator;
  readonly pageTables: PageTables;
  readonly refs: PageRefs;
  readonly lru: LruControl;
  readonly swap: SwapLayer;
  readonly zones: Zones;
  readonly vmstat: VmStat;
  readonly caches: MmCaches;
  /** PROCESS_MEMORY_BYTES. */
  readonly state: PhysAddr;
  /** Between two pages of a long unmapping: interrupts may come. */
  readonly interruptPoint: (ctx: Context) => void;
  /** Has a CPU nothing to execute? */
  readonly isIdle?: (cpu: number) => boolean;
}

const toPages = (bytes: number): number =>
  bytes === Number.POSITIVE_INFINITY ? PAGES_UNLIMITED : Math.min(Math.floor(bytes / PAGE_SIZE), PAGES_UNLIMITED);

export function createProcessMemory(deps: ProcessMemoryDeps): ProcessMemory {
  const { machine, pageTables, caches, state } = deps;
  const { port, harts } = machine;
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);
  const setField = (base: PhysAddr, offset: number, value: number): void => port.st32(base + offset, value);
  const pgdOf = (mm: PhysAddr) => asPfn(field(mm, MM_PGD));

  initListHead(port, state);
  const tlb = createTlb({ ...deps, state: asPhys(state + TLB) });
  const radix = createRadixTree({ port, ...caches });
  const now = (ctx: Context): number => harts.clock[ctx.cpu] as number;
  const dirty = createDirtyPages({ ...deps, port, radix, now });
  const files = createFileMap({ ...deps, ...caches, port, radix, dirty, swapList: asPhys(state + SWAP_LIST) });
  const rmap = createRmap({ ...deps, ...caches, tlb });
  const vmas = createVmas({ port, rmap, files, ...caches });
  const account = createVmAccount({ ...deps, port, swapPages: deps.swap.nrPages, state: asPhys(state + ACCOUNT) });
  const thp = createThp({ ...deps, rmap, vmas, tlb, mms: state, state: asPhys(state + THP) });
  const layout = createLayout({ port, random: machine.random.stream("aslr"), state: asPhys(state + LAYOUT) });
  const gathers = createMmuGathers({ ...deps, tlb });
  const userPages = createUserPages({ ...deps, vmas, rmap, files, dirty, account, tlb, thp, gathers });
  const copyMappings = createFork({ ...deps, vmas, account, tlb });
  const calls = createMmapCalls({ ...deps, port, vmas, files, userPages, account, gathers });
  const lazyFree = createLazyFree({ ...deps, port, rmap, tlb });
  const parts = { port, pageTables, vmas, files, userPages, calls, account, tlb, thp, lazyFree };

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
    for (const limit of [MM_LIM_AS, MM_LIM_DATA, MM_LIM_MEMLOCK]) setField(mm, limit, PAGES_UNLIMITED);
    setField(mm, MM_LIM_STACK, STACK_LIMIT_PAGES);
    initListHead(port, asPhys(mm + MM_LIST));
    listAddTail(port, asPhys(mm + MM_LIST), state);
    return mm;
  };

  const mmPut = (ctx: Context, mm: PhysAddr): void => {
    const users = field(mm, MM_USERS);
    bugOn(users === 0, "mmap: address space put once too often", mm);
    setField(mm, MM_USERS, users - 1);
    if (users > 1) return;
    calls.unmapPages(ctx, mm, 0, TASK_SIZE / PAGE_SIZE);
    const nrLeft = userPages.rss(mm) + field(mm, MM_SWAPENTS);
    bugOn(nrLeft !== 0, "MMAP-2: pages left in a dead address space", mm, nrLeft);
    pageTables.destroy(ctx, pgdOf(mm));
    listDel(port, asPhys(mm + MM_LIST));
    caches.freeMm(ctx, mm);
  };

  const createMm = (ctx: Context, isFixed = false): PhysAddr => {
    const mm = emptyMm(ctx);
    if (mm === NULL) return NULL;
    const { stackTop: top, mmapTop, heapStart } = layout.draw(isFixed);
    setField(mm, MM_STACK_TOP, top);
    setField(mm, MM_MMAP_TOP, mmapTop);
    for (const offset of [MM_BRK, MM_START_BRK]) port.stF64(mm + offset, heapStart * PAGE_SIZE);
    const spec = {
      prot: PROT_READ | PROT_WRITE,
      kind: VMA_STACK,
      flags: VM_GROWSDOWN | VM_MAYWRITE,
      pgoff: top - STACK_PAGES,
      mapping: NULL,
    };
    if (calls.mapAt(ctx, mm, top - STACK_PAGES, top, spec) === 0) return mm;
    mmPut(ctx, mm);
    return NULL;
  };

  const fork = (ctx: Context, parent: PhysAddr): PhysAddr => {
    if (!account.mayCommit(field(parent, MM_COMMITTED))) return NULL;
    const mm = emptyMm(ctx);
    if (mm === NULL) return NULL;
    for (const offset of [MM_LIM_AS, MM_LIM_DATA, MM_LIM_STACK, MM_LIM_MEMLOCK, MM_MMAP_TOP, MM_STACK_TOP]) {
      setField(mm, offset, field(parent, offset));
    }
    for (const offset of [MM_BRK, MM_START_BRK]) port.stF64(mm + offset, port.ldF64(parent + offset));
    if (copyMappings(ctx, parent, mm)) return mm;
    mmPut(ctx, mm);
    return NULL;
  };

  const { check, checkAll, forEachMm } = createMmCheck({ ...deps, vmas, files, dirty });
  const advice = createAdviceCalls(parts);

  return {
    ...advice,
    ...createLockCalls(parts),
    mmap: calls.mmap,
    munmap: calls.munmap,
    mprotect: calls.mprotect,
    brk: calls.brk,
    mremap: createMremap(parts),
    createMm,
    fork,
    mmPut,
    mmGet: (mm) => setField(mm, MM_USERS, field(mm, MM_USERS) + 1),
    activate(cpu, mm) {
      harts.satpRoot[cpu] = mm === NULL ? 0 : field(mm, MM_PGD);
      harts.satpAsid[cpu] = mm === NULL ? 0 : field(mm, MM_ASID);
      if (mm !== NULL) tlb.begin(cpu, mm);
    },
    setLimits(mm, limits) {
      setField(mm, MM_LIM_AS, toPages(limits.as));
      setField(mm, MM_LIM_DATA, toPages(limits.data));
      setField(mm, MM_LIM_STACK, toPages(limits.stack));
      setField(mm, MM_LIM_MEMLOCK, toPages(limits.memlock));
    },
    dropPages: (ctx, mm, addr, bytes) => advice.madvise(ctx, mm, addr, bytes, MADV_DONTNEED),
    handleFault: userPages.handleFault,
    field,
    rss: userPages.rss,
    forEachVma(mm, visit) {
      for (let vma = vmas.first(mm); vma !== NULL; vma = vmas.next(vma)) {
        visit(field(vma, VMA_START), field(vma, VMA_END), field(vma, VMA_PROT), field(vma, VMA_KIND), vma);
      }
    },
    nrTables: (mm) => pageTables.count(pgdOf(mm)),
    bringAllIn(ctx, isWanted) {
      let error = 0;
      forEachMm((mm) => {
        if (field(mm, MM_SWAPENTS) === 0) return;
        pageTables.forEachPage(pgdOf(mm), 0, TASK_SIZE / PAGE_SIZE, (pte, page, word) => {
          if (error !== 0 || !isSwapPte(word) || !isWanted(slotOfPte(word))) return;
          error = userPages.bringBack(ctx, mm, vmas.at(mm, page), page, pte, false);
        });
      });
      return error === 0 ? files.bringAllIn(ctx, isWanted) : error;
    },
    forEachMm,
    truncate: createTruncate(parts),
    check,
    checkAll,
    rmap,
    vmas,
    files,
    dirty,
    account,
    userPages,
    tlb,
    thp,
    lazyFree,
    layout,
  };
}
