/**
 * Page faults, copy-on-write, and taking pages away again.
 *
 * 1. *Demand zero.* A VMA promises memory; the promise is kept page by page. The first touch finds no entry: a zeroed
 *    frame is entered. munmap and exit take entries out, and a frame whose last holder that was is free.
 *
 * 2. *Copy-on-write.* fork copies page tables, not pages: both processes' entries lose W and the frame's counts go up.
 *    The first store of either faults on an entry that is there but not writable, in a VMA that is:
 *
 *        parent ─▶ frame A ◀─ child      store by child      parent ─▶ frame A     child ─▶ frame B (copy of A)
 *                  mapcount 2, no W     ───────────────▶               mapcount 1           mapcount 1, W
 *
 *    The parent's next store faults too, finds itself the only holder, and takes the frame without copying. "Only
 *    holder" is the whole question: one entry (mapcount) and no reference besides (refcount: a cache, I/O, a scanner),
 *    for what another holder could still read must not change under it.
 *
 * 3. Whatever else is in an entry: a page that is there, and readable, in a VMA that allows the access (a TLB that is
 *    behind, rights that were widened): the entry gets the rights of the VMA, W excepted. A swap entry: swap's
 *    business.
 *
 * 4. *Files.* A page of a mapped file is the page cache's frame (filemap.ts), shown to all who map it; a store to a
 *    private mapping is a copy-on-write of it. What is on a disk or in swap is read in place. A page of a disk is
 *    entered without W until the first store, so that the store is noticed (page_dirty.ts). Beyond the end of the file
 *    there is nothing: SIGBUS.
 *
 * 5. *Stack.* A touch below a VMA with VM_GROWSDOWN lets it grow down to there, up to RLIMIT_STACK, and never closer
 *    than 256 pages to the mapping below: an overflow meets nothing, rather than somebody's memory.
 *
 * The kernel's own copies to and from user memory come through the same faults, so that they break COW like a
 * program's.
 *
 *   COW-1  an entry of a private mapping is writable only if the frame is anonymous and has mapcount 1
 *   COW-2  a frame is reused in place only with mapcount 1 and no holder besides that entry (and a slot that is given
 *          up)
 *   COW-3  after fork, each process reads what was there at the fork, and afterwards its own stores only
 *   MMAP-2  rss anon + file + shmem = valid entries; swap ents = swap entries
 *   MMAP-3  a frame of a process is zeroed, or copied over, before the process can read it
 *   MMAP-4  an entry is gone from every TLB before its frame is freed or its content is no longer its own
 *   PFL-2  a page of a file beyond its end is −ENXIO, and nothing is entered
 *   STK-1  a stack grows only to pages that its limit allows and that leave the guard gap; it never joins another VMA
 *   LCK-1  a frame that a VMA with VM_LOCKED maps has PG_MLOCKED and PG_UNEVICTABLE, and no other has PG_MLOCKED
 *   PFL-1  a fault that fails changes nothing but page tables that are empty and an anon_vma without pages
 *
 * Context: process; a fault never sleeps. Differences from Linux: there is no shared zero page (a read gets a frame of
 * its own, which saves the second fault of memory that is read first and written later); no fault-around, no
 * PG_anon_exclusive (the counts are asked instead). Source: mm/memory.c.
 */

import { CYC_COPY_PAGE, CYC_FAULT } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { PTE_A, PTE_D, PTE_W } from "../kernel/arch/mmu.ts";
import { PAGE_SIZE, TASK_SIZE } from "../kernel/params.ts";
import { asPfn, type Context, fromGranule, NO_PFN, NULL, type Pfn, type PhysAddr, pfnToPhys } from "../kernel/types.ts";
import { EFAULT, ENOMEM, ENXIO } from "../kernel/uapi/errno.ts";
import { PROT_READ, PROT_WRITE } from "../kernel/uapi/mman.ts";
import type { FileMap } from "./filemap.ts";
import { __GFP_ZERO, GFP_HIGHUSER_MOVABLE } from "./gfp.ts";
import {
  MM_COW_FAULTS,
  MM_FAULTS,
  MM_LIM_MEMLOCK,
  MM_LIM_STACK,
  MM_LOCKED_VM,
  MM_MAJ_FAULTS,
  MM_PEAK_RSS,
  MM_PGD,
  MM_RSS_ANON,
  MM_RSS_FILE,
  MM_RSS_SHMEM,
  MM_SWAPENTS,
  STACK_GUARD_GAP,
  VM_GROWSDOWN,
  VM_LOCKED,
  VM_RAND_READ,
  VM_SHARED,
  VMA_END,
  VMA_FLAGS,
  VMA_MAPPING,
  VMA_PGOFF,
  VMA_PROT,
  VMA_START,
} from "./mm_struct.ts";
import type { MmuGather, MmuGathers } from "./mmu_gather.ts";
import { type Pages, PG_ANON, PG_DIRTY, PG_MLOCKED, PG_SWAPCACHE } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import type { DirtyPages } from "./page_dirty.ts";
import type { LruLists, PageRefs } from "./page_ref.ts";
import { leafRights, type PageTables, pfnOfPte, pteOf } from "./pgtable.ts";
import { type Rmap, rssFieldOf } from "./rmap.ts";
import { isSwapPte, type SwapLayer, slotOfPte } from "./swap_entry.ts";
import type { Thp } from "./thp.ts";
import type { Tlb } from "./tlb.ts";
import type { VmAccount } from "./vm_account.ts";
import type { Vmas } from "./vma.ts";
import { PGFAULT, PGMAJFAULT, UNEVICTABLE_PGMLOCKED, UNEVICTABLE_PGMUNLOCKED, type VmStat } from "./vmstat.ts";

export interface UserPages {
  /**
   * Serves a page fault: 0, −EFAULT (no such mapping or not allowed), −ENOMEM, −EIO (nothing there, or a device
   * failed).
   */
  handleFault(ctx: Context, mm: PhysAddr, va: number, isWrite: boolean): number;
  /** Takes every entry of `[start, end)` out; frames and slots without another holder are freed. */
  zap(ctx: Context, mm: PhysAddr, start: number, end: number): void;
  /** The same, but the frames are freed when the gather is finished. */
  zapInto(ctx: Context, gather: MmuGather, start: number, end: number): void;
  /** Gives the entries of `[start, end)` the rights `prot`; W comes back by faults only (COW-1). */
  protect(ctx: Context, mm: PhysAddr, start: number, end: number, prot: number): void;
  /** Pages present. */
  rss(mm: PhysAddr): number;
  /** A frame has got an entry in `vma`, and its counts: rss follows, VM_LOCKED locks it. */
  entered(ctx: Context, mm: PhysAddr, vma: PhysAddr, pfn: Pfn): void;
  /** Keeps a page from being reclaimed; lets go of it if no mapping that maps it is locked any more. */
  lockPage(ctx: Context, pfn: Pfn): void;
  /** Serves the swap entry at `pte`, for a fault or swapoff: 0, −ENOMEM, −EIO. */
  bringBack(ctx: Context, mm: PhysAddr, vma: PhysAddr, page: number, pte: PhysAddr, isWrite: boolean): number;
  unlockPage(ctx: Context, pfn: Pfn): void;
}

/** The LRU lists, and the one for pages that stay. */
export interface LruControl extends LruLists {
  setUnevictable(ctx: Context, pfn: Pfn, isUnevictable: boolean): void;
  /** Its content is to be kept, or may be lost (lazyfree.ts). */
  setSwapBacked(ctx: Context, pfn: Pfn, isBacked: boolean): void;
}

export interface UserPagesDeps {
  readonly machine: Machine;
  readonly pages: Pages;
  readonly pageAlloc: PageAllocator;
  readonly pageTables: PageTables;
  readonly refs: PageRefs;
  readonly lru: LruControl;
  readonly vmas: Vmas;
  readonly rmap: Rmap;
  readonly files: FileMap;
  readonly dirty: DirtyPages;
  readonly account: VmAccount;
  readonly swap: SwapLayer;
  readonly vmstat: VmStat;
  readonly tlb: Tlb;
  readonly thp: Thp;
  readonly gathers: MmuGathers;
}

const LEAF_BITS = 0x3ff;
export function createUserPages(deps: UserPagesDeps): UserPages {
  const { machine, pages, pageAlloc, pageTables, refs, lru, vmas, rmap, files, dirty, account, swap } = deps;
  const { vmstat, tlb, thp, gathers } = deps;
  const { port, harts } = machine;
  const { clock } = harts;
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);
  const addField = (base: PhysAddr, offset: number, delta: number): void =>
    port.st32(base + offset, port.ld32(base + offset) + delta);
  const pgdOf = (mm: PhysAddr): Pfn => asPfn(field(mm, MM_PGD));
  const rss = (mm: PhysAddr): number => field(mm, MM_RSS_ANON) + field(mm, MM_RSS_FILE) + field(mm, MM_RSS_SHMEM);

  const rssField = (pfn: Pfn): number => rssFieldOf(pages.flags(pfn));
  const allocFrame = (ctx: Context, modifiers: number): Pfn =>
    pageAlloc.tryAllocPages(ctx, 0, GFP_HIGHUSER_MOVABLE | modifiers);

  /** A frame has got an entry in `vma`. */
  const entered = (ctx: Context, mm: PhysAddr, vma: PhysAddr, pfn: Pfn): void => {
    addField(mm, rssField(pfn), 1);
    if (rss(mm) > field(mm, MM_PEAK_RSS)) port.st32(mm + MM_PEAK_RSS, rss(mm));
    if ((field(vma, VMA_FLAGS) & VM_LOCKED) !== 0) lockPage(ctx, pfn);
  };

  const lockPage = (ctx: Context, pfn: Pfn): void => {
    if ((pages.flags(pfn) & PG_MLOCKED) === 0) {
      pages.addFlags(pfn, PG_MLOCKED);
      lru.countLocked(pfn, 1);
      vmstat.countEvents(ctx, UNEVICTABLE_PGMLOCKED, 1);
    }
    lru.setUnevictable(ctx, pfn, true);
  };

  /** After an entry of a locked mapping is gone, or a mapping is locked no more. */
  const unlockPage = (ctx: Context, pfn: Pfn): void => {
    if ((pages.flags(pfn) & PG_MLOCKED) === 0 || rmap.isLocked(ctx, pfn)) return;
    pages.clearFlags(pfn, PG_MLOCKED);
    lru.countLocked(pfn, -1);
    vmstat.countEvents(ctx, UNEVICTABLE_PGMUNLOCKED, 1);
    // Pages of a ramfs have nowhere to go, locked or not (filemap.ts).
    const canGo = (pages.flags(pfn) & PG_ANON) !== 0 || files.isSwappable(pfn) || dirty.isTracked(pfn);
    if (canGo) lru.setUnevictable(ctx, pfn, false);
  };

  const bringBack: UserPages["bringBack"] = (ctx, mm, vma, page, pte, isWrite) => {
    const result = swap.fault(ctx, mm, vma, page, pte, isWrite);
    if (result === 0 && (field(vma, VMA_FLAGS) & VM_LOCKED) !== 0) lockPage(ctx, pfnOfPte(pageTables.readPte(pte)));
    return result;
  };

  // ── Faults ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** First touch of an anonymous page. */
  const faultAnon = (ctx: Context, mm: PhysAddr, vma: PhysAddr, page: number, pte: PhysAddr, isWrite: boolean) => {
    if (!rmap.prepareAnonVma(ctx, vma)) return -ENOMEM;
    const pfn = allocFrame(ctx, __GFP_ZERO);
    if (pfn === NO_PFN) return -ENOMEM;
    rmap.addNewAnon(pfn, vma, page);
    lru.add(ctx, pfn);
    pageTables.writePte(pte, pteOf(pfn, leafRights(field(vma, VMA_PROT)) | PTE_A | (isWrite ? PTE_D : 0)));
    entered(ctx, mm, vma, pfn);
    return 0;
  };

  /** First touch of a page of a file. A store to a private mapping gets its own copy at once. */
  const faultFile = (ctx: Context, mm: PhysAddr, vma: PhysAddr, page: number, pte: PhysAddr, isWrite: boolean) => {
    const mapping = fromGranule(field(vma, VMA_MAPPING));
    const index = field(vma, VMA_PGOFF) + page - field(vma, VMA_START);
    if (index * PAGE_SIZE >= files.sizeBytes(mapping)) return -ENXIO;
    const isShared = (field(vma, VMA_FLAGS) & VM_SHARED) !== 0;
    if (isWrite && !isShared && !rmap.prepareAnonVma(ctx, vma)) return -ENOMEM;
    const isMajor = files.needsIo(mapping, index);
    if (isWrite && isShared && files.isDisk(mapping)) dirty.limit(ctx);
    const isRandom = (field(vma, VMA_FLAGS) & VM_RAND_READ) !== 0;
    const got = files.obtain(ctx, mapping, index, isRandom);
    if (got < 0) return got;
    const pfn = asPfn(got);
    if (isMajor) {
      addField(mm, MM_MAJ_FAULTS, 1);
      vmstat.countEvents(ctx, PGMAJFAULT, 1);
    }
    if (isWrite && !isShared) return copyTo(ctx, mm, vma, page, pte, pfn);
    const isNoticed = dirty.isTracked(pfn) && !isWrite;
    if (dirty.isTracked(pfn) && isWrite) dirty.mark(ctx, pfn);
    refs.getPage(pfn);
    rmap.addFile(pfn);
    const rights = leafRights(field(vma, VMA_PROT)) & (isShared && !isNoticed ? LEAF_BITS : ~PTE_W);
    pageTables.writePte(pte, pteOf(pfn, rights | PTE_A | (isWrite ? PTE_D : 0)));
    entered(ctx, mm, vma, pfn);
    return 0;
  };

  /** Enters a new anonymous frame with the content of `from`; `vma` has an anon_vma. */
  const copyTo = (ctx: Context, mm: PhysAddr, vma: PhysAddr, page: number, pte: PhysAddr, from: Pfn): number => {
    const to = allocFrame(ctx, 0);
    if (to === NO_PFN) return -ENOMEM;
    port.copy(pfnToPhys(to), pfnToPhys(from), PAGE_SIZE);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_COPY_PAGE;
    rmap.addNewAnon(to, vma, page);
    lru.add(ctx, to);
    pageTables.writePte(pte, pteOf(to, leafRights(field(vma, VMA_PROT)) | PTE_A | PTE_D));
    tlb.flushPage(ctx, mm, page);
    addField(mm, MM_COW_FAULTS, 1);
    entered(ctx, mm, vma, to);
    return 0;
  };

  /** An entry that mapped the frame is gone; its reference is still the caller's to put. */
  const left = (ctx: Context, mm: PhysAddr, pfn: Pfn): void => {
    addField(mm, rssField(pfn), -1);
    rmap.remove(pfn);
    unlockPage(ctx, pfn);
    // A page that nobody maps or names leaves the swap cache.
    if ((pages.flags(pfn) & PG_SWAPCACHE) !== 0 && pages.mapcount(pfn) === 0) swap.release(ctx, pfn);
  };

  /** COW-2 */
  const isOnlyHolder = (ctx: Context, pfn: Pfn): boolean => {
    const flags = pages.flags(pfn);
    if ((flags & PG_ANON) === 0 || pages.mapcount(pfn) !== 1) return false;
    const isCached = (flags & PG_SWAPCACHE) !== 0;
    if (pages.refcount(pfn) !== (isCached ? 2 : 1)) return false;
    return !isCached || swap.release(ctx, pfn);
  };

  /** A store to a private page that is there without W. */
  const breakCow = (ctx: Context, mm: PhysAddr, vma: PhysAddr, page: number, pte: PhysAddr): number => {
    const old = pageTables.readPte(pte);
    const from = pfnOfPte(old);
    if (isOnlyHolder(ctx, from)) {
      pageTables.writePte(pte, pteOf(from, leafRights(field(vma, VMA_PROT)) | PTE_A | PTE_D));
      tlb.flushPage(ctx, mm, page);
      return 0;
    }
    if (!rmap.prepareAnonVma(ctx, vma)) return -ENOMEM;
    const result = copyTo(ctx, mm, vma, page, pte, from);
    if (result !== 0) return result;
    left(ctx, mm, from);
    refs.putPage(ctx, from);
    return 0;
  };

  /** The page is there. */
  const faultPresent = (ctx: Context, mm: PhysAddr, vma: PhysAddr, page: number, pte: PhysAddr, isWrite: boolean) => {
    const old = pageTables.readPte(pte);
    const isShared = (field(vma, VMA_FLAGS) & VM_SHARED) !== 0;
    if (isWrite && (old & PTE_W) === 0 && !isShared) return breakCow(ctx, mm, vma, page, pte);
    const pfn = pfnOfPte(old);
    if (isWrite && isShared && dirty.isTracked(pfn)) {
      refs.getPage(pfn);
      dirty.limit(ctx);
      dirty.mark(ctx, pfn);
      refs.putPage(ctx, pfn);
    }
    const rights = leafRights(field(vma, VMA_PROT)) & (isWrite ? LEAF_BITS : (old & PTE_W) | ~PTE_W);
    pageTables.writePte(pte, pteOf(pfn, rights | (old & PTE_D) | PTE_A | (isWrite ? PTE_D : 0)));
    tlb.flushPage(ctx, mm, page);
    return 0;
  };

  const handleFault: UserPages["handleFault"] = (ctx, mm, va, isWrite) => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_FAULT;
    vmstat.countEvents(ctx, PGFAULT, 1);
    if (!(va >= 0 && va < TASK_SIZE)) return -EFAULT;
    const page = Math.floor(va / PAGE_SIZE);
    let vma = vmas.at(mm, page);
    if (vma === NULL) vma = growStack(ctx, mm, page);
    if (vma === NULL) return -EFAULT;
    if ((field(vma, VMA_PROT) & (isWrite ? PROT_WRITE : PROT_READ | PROT_WRITE)) === 0) return -EFAULT;
    if (thp.fault(ctx, mm, vma, page, isWrite, entered)) {
      addField(mm, MM_FAULTS, 1);
      return 0;
    }
    const pte = pageTables.walk(ctx, pgdOf(mm), page, true);
    if (pte === NULL) return -ENOMEM;
    const old = pageTables.readPte(pte);
    let result: number;
    if (old === 0 && field(vma, VMA_MAPPING) !== 0) result = faultFile(ctx, mm, vma, page, pte, isWrite);
    else if (old === 0) result = faultAnon(ctx, mm, vma, page, pte, isWrite);
    else if (isSwapPte(old)) result = bringBack(ctx, mm, vma, page, pte, isWrite);
    else result = faultPresent(ctx, mm, vma, page, pte, isWrite);
    if (result === 0) addField(mm, MM_FAULTS, 1);
    return result;
  };

  // ── Taking pages away ────────────────────────────────────────────────────────────────────────────────────────────

  const zapPage = (ctx: Context, mm: PhysAddr, pte: PhysAddr, word: number): Pfn => {
    const pfn = pfnOfPte(word);
    pageTables.writePte(pte, 0);
    if ((word & PTE_D) !== 0 && (pages.flags(pfn) & PG_ANON) === 0) pages.addFlags(pfn, PG_DIRTY);
    left(ctx, mm, pfn);
    return pfn;
  };

  /** Their frames are held until one flush for all of them (TLB-2). */
  const zapInto: UserPages["zapInto"] = (ctx, gather, start, end) => {
    const { mm } = gather;
    pageTables.forEachEntry(pgdOf(mm), start, end, (pte, page, word) => {
      if (isSwapPte(word)) {
        pageTables.writePte(pte, 0);
        addField(mm, MM_SWAPENTS, -1);
        swap.free(ctx, slotOfPte(word));
        return;
      }
      gathers.addFrame(ctx, gather, page, zapPage(ctx, mm, pte, word));
    });
  };

  /** A touch below a growing stack: the VMA, grown to `page`; NULL if it may not (STK-1). */
  const growStack = (ctx: Context, mm: PhysAddr, page: number): PhysAddr => {
    const vma = vmas.find(mm, page);
    if (vma === NULL || (field(vma, VMA_FLAGS) & VM_GROWSDOWN) === 0) return NULL;
    const below = vmas.prev(vma);
    const isNextToStack = below !== NULL && (field(below, VMA_FLAGS) & VM_GROWSDOWN) !== 0;
    const floor = below === NULL ? 0 : field(below, VMA_END) + (isNextToStack ? 0 : STACK_GUARD_GAP);
    const nrPages = field(vma, VMA_START) - page;
    const spec = vmas.specOf(vma);
    if (page < floor || field(vma, VMA_END) - page > field(mm, MM_LIM_STACK)) return NULL;
    const isLocked = (spec.flags & VM_LOCKED) !== 0;
    if (isLocked && field(mm, MM_LOCKED_VM) + nrPages > field(mm, MM_LIM_MEMLOCK)) return NULL;
    if (!account.mayExpand(mm, spec, nrPages) || !account.mayCommit(nrPages)) return NULL;
    vmas.resize(vma, page, field(vma, VMA_END));
    account.account(mm, spec, nrPages);
    if (isLocked) addField(mm, MM_LOCKED_VM, nrPages);
    vmas.joinAround(ctx, mm, page, page);
    return vmas.at(mm, page);
  };

  return {
    handleFault,
    zap(ctx, mm, start, end) {
      const gather = gathers.begin(mm, end - start);
      zapInto(ctx, gather, start, end);
      gathers.finish(ctx, gather);
    },
    zapInto,
    protect(ctx, mm, start, end, prot) {
      const rights = leafRights(prot);
      let first = start;
      let last = -1;
      pageTables.forEachEntry(pgdOf(mm), start, end, (pte, page, word) => {
        if (isSwapPte(word)) return;
        const kept = rights & ((word & PTE_W) | ~PTE_W);
        pageTables.writePte(pte, pteOf(pfnOfPte(word), kept | (word & (PTE_A | PTE_D))));
        if (last < start) first = page;
        last = page;
      });
      if (last >= start) tlb.flushRange(ctx, mm, first, last + 1);
    },
    rss,
    entered,
    bringBack,
    lockPage,
    unlockPage,
  };
}
