/**
 * Transparent huge pages: 2 MiB of a process's memory by one entry, where it asks for that and a block is at hand.
 *
 *      level 1:  [ leaf ────────────────────────────▶ 512 frames side by side        one fault, one entry
 *                   └ set aside: an empty table ◀── private of the first frame
 *
 *      split:    [ table ─▶ 512 entries ─▶ the same frames, each for itself          munmap, fork, swap, migration …
 *      collapse: [ leaf ◀─ copies of 512 private pages                    MADV_COLLAPSE, khugepaged
 *
 * 1. *What it is.* The block is taken as one of order 9 and cut at once into 512 frames of order 0: each has its own
 *    counts, its own place on the LRU lists and its own `index`, as if 512 faults had happened. What is huge is only
 *    the entry. So the rules of counts need no exception (RMAP-1: a leaf of level 1 is one entry of each of its
 *    frames), and the pages go back one by one; the buddy joins them again.
 *
 * 2. *Split first.* Whoever edits an entry inside the leaf splits it (pgtable.ts), with the table that was set aside:
 *    unmapping, changing rights, moving, copying for fork, locking, swapping out, migrating. That cannot fail, so it
 *    may happen in reclaim and in the OOM reaper. Readers (smaps, mincore, checks) leave it.
 *
 * 3. *When.* `enabled` is always, madvise (default: where MADV_HUGEPAGE was said) or never; MADV_NOHUGEPAGE always
 *    wins. The fault must be the first in an aligned 2 MiB range that lies wholly in one private anonymous VMA.
 *
 *    How hard it tries to get a block says `defrag`; without one it is an ordinary fault, and khugepaged may mend it:
 *
 *      |               | advised            | not advised        |
 *      |---------------|--------------------|--------------------|
 *      | always        | compacts, reclaims | the same, less (*) |
 *      | defer         | wakes kcompactd    | wakes kcompactd    |
 *      | defer+madvise | compacts, reclaims | wakes kcompactd    |
 *      | madvise       | compacts, reclaims | takes what is free |       the default
 *      | never         | takes what is free | takes what is free |
 *
 *    Who compacts in vain reclaims in place, up to the memory that compaction needs, and compacts once more; nobody
 *    dies for it. (*) __GFP_NORETRY: it does not reclaim where compaction was not even tried, for want of memory or
 *    because it has failed lately; that would cost much and give little.
 *
 * 4. *Collapse.* MADV_COLLAPSE, and khugepaged in its time (thp_scan.ts), makes a huge page of 512 pages that are all
 *    there, private, and held by nobody else: content is copied, the old frames are freed after one flush. The emptied
 *    table is the one set aside.
 *
 *   THP-1  a leaf of level 1 maps 512 frames side by side from a multiple of 512, of one anon_vma; the first has
 *          PG_HEAD and, in private, a table that is empty and in no page table
 *   THP-2  (pgtable.ts)  THP-3  NR_ANON_THPS = leaves of level 1 in all page tables
 *   THP-6  a fault that may reclaims once for a huge page, with nothing half done, and never kills
 *   THP-5  a fault compacts, wakes kcompactd or does neither, as `defrag` and MADV_HUGEPAGE say
 *   THP-4  whatever happens to it, a process reads the same as with 512 small pages
 *
 * Context: process; plain functions. Linux: mm/huge_memory.c, mm/khugepaged.c. There the frames stay one compound page
 * with common counts, which is split only when it must; here reclaim that looks at a page of it splits it.
 */

import { CYC_COPY_PAGE, CYC_MEMMAP_ROW } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { PTE_A, PTE_D, PTE_LEAF, PTE_R, PTE_V, PTE_W, PTES_PER_TABLE } from "../kernel/arch/mmu.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import {
  asPfn,
  asPhys,
  type Context,
  NO_PFN,
  NULL,
  type Pfn,
  type PhysAddr,
  pfnToPhys,
  type TaskContext,
} from "../kernel/types.ts";
import { EAGAIN, EINVAL, ENOMEM } from "../kernel/uapi/errno.ts";
import {
  __GFP_DIRECT_RECLAIM,
  __GFP_KSWAPD_RECLAIM,
  __GFP_NOMEMALLOC,
  __GFP_NORETRY,
  __GFP_NOWARN,
  __GFP_ZERO,
  GFP_HIGHUSER_MOVABLE,
  type Gfp,
  gfpWith,
} from "./gfp.ts";
import {
  MM_PGD,
  VM_GROWSDOWN,
  VM_HUGEPAGE,
  VM_LOCKED,
  VM_NOHUGEPAGE,
  VM_SHARED,
  VMA_END,
  VMA_FLAGS,
  VMA_MAPPING,
  VMA_PROT,
  VMA_START,
} from "./mm_struct.ts";
import { PAGEBLOCK_ORDER } from "./mmzone.ts";
import { type Pages, PG_ANON, PG_HEAD, PG_LOCKED, PG_LRU, PG_SWAPCACHE, PG_UNEVICTABLE, PG_WRITEBACK } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import type { LruLists, PageRefs } from "./page_ref.ts";
import { leafRights, type PageTables, pfnOfPte, pteOf } from "./pgtable.ts";
import type { Rmap } from "./rmap.ts";
import { createThpScanner, THP_SCAN_BYTES, type ThpScanner } from "./thp_scan.ts";
import type { Tlb } from "./tlb.ts";
import type { Vmas } from "./vma.ts";
import {
  COMPACT_STALL,
  NR_ANON_THPS,
  THP_COLLAPSE_ALLOC,
  THP_COLLAPSE_ALLOC_FAILED,
  THP_FAULT_ALLOC,
  THP_FAULT_FALLBACK,
  type VmStat,
} from "./vmstat.ts";

/** What `enabled` says; the word of state. */
export const THP_POLICIES: readonly string[] = ["always", "madvise", "never"];
const ALWAYS = 0;
const MADVISE = 1;
/** What `defrag` says; the next word of state. */
export const THP_DEFRAG_MODES: readonly string[] = ["always", "defer", "defer+madvise", "madvise", "never"];
const DEFRAG_MADVISE = 3;
/** Per mode: what a fault may do in an advised VMA, and in another. */
const DIRECT = __GFP_DIRECT_RECLAIM;
const WAKE = __GFP_KSWAPD_RECLAIM;
const DEFRAG_BITS: readonly (readonly [advised: number, other: number])[] = [
  [DIRECT, DIRECT | __GFP_NORETRY],
  [WAKE, WAKE],
  [DIRECT, WAKE],
  [DIRECT, 0],
  [0, 0],
];
/** The policy, defrag, then the scanner. */
const DEFRAG = 4;
const SCAN = 8;
export const THP_BYTES = SCAN + THP_SCAN_BYTES;

const NR = PTES_PER_TABLE;
const HUGE_GFP = gfpWith(GFP_HIGHUSER_MOVABLE, __GFP_NOWARN | __GFP_NOMEMALLOC);
/** Without any effort: GFP_TRANSHUGE_LIGHT. */
const LIGHT_GFP = (HUGE_GFP & ~(DIRECT | WAKE)) as Gfp;

/** What became of a fault: served, not one of a range that can be huge, or there was no block. */
const SERVED = 0;
const UNFIT = 1;
const NO_BLOCK = 2;

/** A frame has got an entry in `vma`. */
type Entered = (ctx: Context, mm: PhysAddr, vma: PhysAddr, pfn: Pfn) => void;

/** What a fault wants: with how much effort, PTE_D for a store, who is told of each frame. */
interface Want {
  readonly gfp: Gfp;
  readonly dirty: number;
  readonly entered: Entered;
}

export interface Thp {
  /** Serves a fault in a range that is or can be huge: false if it is an ordinary one. */
  fault(ctx: Context, mm: PhysAddr, vma: PhysAddr, page: number, isWrite: boolean, entered: Entered): boolean;
  /**
   * Makes each aligned 2 MiB of `[start, end)` in `vma` huge: 0; −EINVAL (not that kind of VMA), −EAGAIN (a page is
   * missing or held), −ENOMEM.
   */
  collapse(ctx: Context, mm: PhysAddr, vma: PhysAddr, start: number, end: number): number;
  /** Registers direct reclaim: true from it means "try again". */
  onReclaim(makeRoom: (ctx: TaskContext, order: number, gfp: Gfp) => boolean): void;
  policy(): number;
  setPolicy(policy: number): void;
  /** Index of what `defrag` says in THP_DEFRAG_MODES. */
  defrag(): number;
  setDefrag(mode: number): void;
  readonly scanner: ThpScanner;
}

export interface ThpDeps {
  readonly machine: Machine;
  readonly pages: Pages;
  readonly pageAlloc: PageAllocator;
  readonly pageTables: PageTables;
  readonly refs: PageRefs;
  readonly lru: LruLists;
  readonly rmap: Rmap;
  readonly tlb: Tlb;
  readonly vmstat: VmStat;
  readonly vmas: Vmas;
  /** Head of the list of all address spaces. */
  readonly mms: PhysAddr;
  /** THP_BYTES of static memory. */
  readonly state: PhysAddr;
  readonly interruptPoint: (ctx: Context) => void;
}

export function createThp(deps: ThpDeps): Thp {
  const { machine, pages, pageAlloc, pageTables, refs, lru, rmap, tlb, vmstat, state } = deps;
  const { port, harts } = machine;
  const { clock } = harts;
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);
  const pgdOf = (mm: PhysAddr): Pfn => asPfn(field(mm, MM_PGD));
  const pay = (ctx: Context, cycles: number): void => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + cycles;
  };
  let makeRoom: (ctx: TaskContext, order: number, gfp: Gfp) => boolean = () => false;
  port.st32(state, MADVISE);
  port.st32(state + DEFRAG, DEFRAG_MADVISE);

  /** vma_thp_gfp_mask */
  const faultGfp = (vma: PhysAddr): Gfp => {
    const isAdvised = (field(vma, VMA_FLAGS) & VM_HUGEPAGE) !== 0;
    const bits = DEFRAG_BITS[field(state, DEFRAG)] as readonly [number, number];
    return (LIGHT_GFP | __GFP_ZERO | bits[isAdvised ? 0 : 1]) as Gfp;
  };

  /** Can the 2 MiB from page `base` on be huge, in this VMA? */
  const fits = (vma: PhysAddr, base: number): boolean => {
    if ((field(vma, VMA_FLAGS) & (VM_SHARED | VM_GROWSDOWN | VM_NOHUGEPAGE)) !== 0) return false;
    return field(vma, VMA_MAPPING) === 0 && base >= field(vma, VMA_START) && base + NR <= field(vma, VMA_END);
  };
  const isWanted = (vma: PhysAddr): boolean => {
    const policy = field(state, 0);
    return policy === ALWAYS || (policy === MADVISE && (field(vma, VMA_FLAGS) & VM_HUGEPAGE) !== 0);
  };
  const isLeaf = (word: number): boolean => (word & PTE_V) !== 0 && (word & PTE_LEAF) !== 0;

  /** A block of 512 frames, each for itself; NO_PFN without one. */
  const allocBlock = (ctx: Context, gfp: Gfp): Pfn => {
    const pfn = pageAlloc.tryAllocPages(ctx, PAGEBLOCK_ORDER, gfp);
    if (pfn !== NO_PFN) {
      pageAlloc.splitPage(pfn, PAGEBLOCK_ORDER);
      pay(ctx, CYC_MEMMAP_ROW * NR);
    }
    return pfn;
  };

  /** Enters the block as a huge page at `slot`, with `table` set aside. */
  const enter = (slot: PhysAddr, pfn: Pfn, table: Pfn, flags: number): void => {
    pages.addFlags(pfn, PG_HEAD);
    pages.setPrivate(pfn, table);
    pageTables.writePte(slot, pteOf(pfn, flags));
    vmstat.modItem(NR_ANON_THPS, 1);
  };

  const faultNew = (ctx: Context, mm: PhysAddr, vma: PhysAddr, base: number, { gfp, dirty, entered }: Want): number => {
    const root = pgdOf(mm);
    const slot = pageTables.hugeSlot(ctx, root, base, true);
    if (slot === NULL) return UNFIT;
    const isNewTable = pageTables.readPte(slot) === 0;
    const table = pageTables.takeTable(ctx, root, slot);
    if (table === NO_PFN) return UNFIT;
    const pfn = rmap.prepareAnonVma(ctx, vma) ? allocBlock(ctx, gfp) : NO_PFN;
    if (pfn === NO_PFN) {
      if (isNewTable) pageTables.giveTable(ctx, root, table);
      return NO_BLOCK;
    }
    for (let i = 0; i < NR; i++) {
      const frame = asPfn(pfn + i);
      rmap.addNewAnon(frame, vma, base + i);
      lru.add(ctx, frame);
      entered(ctx, mm, vma, frame);
    }
    enter(slot, pfn, table, leafRights(field(vma, VMA_PROT)) | PTE_A | dirty);
    // A CPU may still know the table that hung there.
    if (!isNewTable) tlb.flushMm(ctx, mm);
    vmstat.countEvents(ctx, THP_FAULT_ALLOC, 1);
    return SERVED;
  };

  /** THP-6: what was begun for the first try is undone when reclaim begins. */
  const serve = (ctx: Context, mm: PhysAddr, vma: PhysAddr, base: number, want: Want): boolean => {
    const { gfp } = want;
    const nrTried = vmstat.event(COMPACT_STALL);
    let result = faultNew(ctx, mm, vma, base, want);
    const isWorthIt = (gfp & __GFP_NORETRY) === 0 || vmstat.event(COMPACT_STALL) > nrTried;
    if (
      result === NO_BLOCK &&
      (gfp & DIRECT) !== 0 &&
      isWorthIt &&
      makeRoom(ctx as TaskContext, PAGEBLOCK_ORDER, gfp)
    ) {
      result = faultNew(ctx, mm, vma, base, want);
    }
    if (result === NO_BLOCK) vmstat.countEvents(ctx, THP_FAULT_FALLBACK, 1);
    return result === SERVED;
  };

  /** Is every page of the table the process's own, and in no other hands? */
  const canCollapse = (table: Pfn): boolean => {
    for (let i = 0; i < NR; i++) {
      const word = port.ld32(pfnToPhys(table) + i * 8);
      if ((word & PTE_V) === 0) return false;
      const pfn = pfnOfPte(word);
      const held = PG_SWAPCACHE | PG_LOCKED | PG_WRITEBACK | PG_UNEVICTABLE;
      if ((pages.flags(pfn) & (PG_ANON | PG_LRU | held)) !== (PG_ANON | PG_LRU)) return false;
      if (pages.mapcount(pfn) !== 1 || pages.refcount(pfn) !== 1) return false;
    }
    return true;
  };

  const collapseAt = (ctx: Context, mm: PhysAddr, vma: PhysAddr, base: number): number => {
    const slot = pageTables.hugeSlot(ctx, pgdOf(mm), base, false);
    const word = slot === NULL ? 0 : pageTables.readPte(slot);
    if (isLeaf(word)) return 0;
    const table = asPfn(word >>> 10);
    if (word === 0 || !canCollapse(table)) return -EAGAIN;
    const pfn = allocBlock(ctx, HUGE_GFP);
    if (pfn === NO_PFN) {
      vmstat.countEvents(ctx, THP_COLLAPSE_ALLOC_FAILED, 1);
      return -ENOMEM;
    }
    const old = new Int32Array(NR);
    let used = 0;
    for (let i = 0; i < NR; i++) {
      const entry = pfnToPhys(table) + i * 8;
      used |= port.ld32(entry) & (PTE_A | PTE_D);
      old[i] = pfnOfPte(port.ld32(entry));
      port.st32(entry, 0);
    }
    tlb.flushRange(ctx, mm, base, base + NR);
    for (let i = 0; i < NR; i++) {
      const from = asPfn(old[i] as number);
      const to = asPfn(pfn + i);
      port.copy(pfnToPhys(to), pfnToPhys(from), PAGE_SIZE);
      rmap.remove(from);
      refs.putPage(ctx, from);
      rmap.addNewAnon(to, vma, base + i);
      lru.add(ctx, to);
      pay(ctx, CYC_COPY_PAGE);
      deps.interruptPoint(ctx);
    }
    enter(slot, pfn, table, leafRights(field(vma, VMA_PROT)) | used);
    vmstat.countEvents(ctx, THP_COLLAPSE_ALLOC, 1);
    return 0;
  };

  const scanner = createThpScanner({
    ...deps,
    port,
    state: asPhys(state + SCAN),
    isWanted: (vma) => isWanted(vma) && (field(vma, VMA_FLAGS) & VM_LOCKED) === 0,
    collapseAt(ctx, mm, vma, base) {
      const before = vmstat.item(NR_ANON_THPS);
      return fits(vma, base) && collapseAt(ctx, mm, vma, base) === 0 && vmstat.item(NR_ANON_THPS) > before;
    },
  });

  return {
    scanner,
    fault(ctx, mm, vma, page, isWrite, entered) {
      const base = page - (page % NR);
      if (vmstat.item(NR_ANON_THPS) > 0) {
        const slot = pageTables.hugeSlot(ctx, pgdOf(mm), page, false);
        const word = slot === NULL ? 0 : pageTables.readPte(slot);
        // There and allowed: a TLB that is behind, or a call that touches every page.
        const isServed = isLeaf(word) && (word & (isWrite ? PTE_W : PTE_R)) !== 0;
        if (isServed) tlb.flushPage(ctx, mm, page);
        if (isServed) return true;
      }
      if (!isWanted(vma) || !fits(vma, base)) return false;
      if (serve(ctx, mm, vma, base, { gfp: faultGfp(vma), dirty: isWrite ? PTE_D : 0, entered })) return true;
      scanner.wanted();
      return false;
    },
    collapse(ctx, mm, vma, start, end) {
      const isLocked = (field(vma, VMA_FLAGS) & VM_LOCKED) !== 0;
      let result = 0;
      for (let base = Math.ceil(start / NR) * NR; base + NR <= end; base += NR) {
        if (isLocked || !fits(vma, base)) return -EINVAL;
        result ||= collapseAt(ctx, mm, vma, base);
      }
      return result;
    },
    onReclaim(hook) {
      makeRoom = hook;
    },
    policy: () => field(state, 0),
    setPolicy: (policy) => port.st32(state, policy),
    defrag: () => field(state, DEFRAG),
    setDefrag: (mode) => port.st32(state + DEFRAG, mode),
  };
}
