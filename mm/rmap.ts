/**
 * Reverse mapping: from a page frame to every page-table entry that maps it.
 *
 * Page tables lead from an address to a frame. Whoever takes a frame away from processes (migration, reclaim) has to go
 * the other way, and keeping a list of entries for each frame would cost more than the frames' own descriptions. So a
 * frame knows only what it is a page *of*, and which page of it (mapping, index); the VMAs that show this thing are on
 * a list; and each VMA says at which address page `index` would be:
 *
 *      frame ── mapping ─▶ anon_vma ─▶ VMA of the parent ─▶ VMA of the child ─▶ …
 *        └───── index                    │ address = start + index − pgoff, if inside [start, end)
 *                                        ▼
 *                                    entry in that VMA's page table; it counts if it holds this frame
 *
 * An anon_vma is made with the first anonymous page of a VMA. fork puts the child's VMA on the same list: pages that
 * were there before are shared copy-on-write, pages that either gets later have the same mapping and are found in one
 * of the two. A VMA that is split is on the list twice, with pgoff moved along; mremap moves start and leaves pgoff,
 * so that no page need be touched. A VMA on the list that does not map the page costs a walk, nothing else.
 *
 * Pages of files and of shared memory are found in the same way, by the list of their address_space (filemap.ts).
 *
 *   RMAP-1  mapcount of a frame = number of entries that map it = number of visits of forEachMapping
 *   RMAP-2  an anonymous frame with mapcount > 0 has mapping = the anon_vma of each VMA that maps it, and
 *           index = pgoff + page − start there
 *   RMAP-3  users of an anon_vma = VMAs on its list; the last one frees it
 *   RMAP-4  a frame that no entry maps has no mapping to an anon_vma: that may be gone
 *
 * Context: process; plain functions, nothing sleeps. Linux: mm/rmap.c. Since 2.6.34 each process of a family has an
 * anon_vma of its own and chains connect them, so that the pages of one child are not looked for in a thousand others;
 * here one list serves the family, as in 2.6.33.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { PTE_A, PTE_D, PTE_V, PTE_W } from "../kernel/arch/mmu.ts";
import { bugOn } from "../kernel/bug.ts";
import { initListHead, listAddTail, listDel, listFirst, listIsEmpty, listNext } from "../kernel/lib/list.ts";
import { asPfn, asPhys, type Context, fromGranule, NULL, type Pfn, type PhysAddr, toGranule } from "../kernel/types.ts";
import { EAGAIN, ENOMEM } from "../kernel/uapi/errno.ts";
import {
  AS_LIST,
  AV_LIST,
  AV_USERS,
  MM_PGD,
  MM_RSS_ANON,
  MM_RSS_FILE,
  MM_RSS_SHMEM,
  MM_SWAPENTS,
  VM_LOCKED,
  VMA_ANON_LINK,
  VMA_ANON_VMA,
  VMA_END,
  VMA_FILE_LINK,
  VMA_FLAGS,
  VMA_MM,
  VMA_PGOFF,
  VMA_START,
} from "./mm_struct.ts";
import { type Pages, PG_ANON, PG_DIRTY, PG_SWAPBACKED, PG_UPTODATE } from "./page.ts";
import type { PageRefs } from "./page_ref.ts";
import { type PageTables, pfnOfPte } from "./pgtable.ts";
import { type SwapLayer, slotOfPte } from "./swap_entry.ts";
import type { Tlb, TlbBatch } from "./tlb.ts";
import { NR_ANON_MAPPED, NR_FILE_MAPPED, type VmStat } from "./vmstat.ts";

/** `pte` is the address of the entry that maps the frame as virtual page `page` of `mm`, in `vma`. */
export type MappingVisitor = (mm: PhysAddr, vma: PhysAddr, page: number, pte: PhysAddr) => void;

export interface Rmap {
  /** Gives `vma` an anon_vma unless it has one; false without memory. */
  prepareAnonVma(ctx: Context, vma: PhysAddr): boolean;
  /** Puts `vma`, which is on no list, on the list of the anon_vma of `like`, if that has one. */
  shareAnonVma(vma: PhysAddr, like: PhysAddr): void;
  /** Takes `vma` off its anon_vma's list, before it is freed. */
  leaveAnonVma(ctx: Context, vma: PhysAddr): void;
  /** A new anonymous frame gets its first entry, as `page` of `vma`. The caller's reference becomes the entry's. */
  addNewAnon(pfn: Pfn, vma: PhysAddr, page: number): void;
  /** An anonymous frame gets one more entry, which holds a reference that the caller has taken. */
  addAnon(pfn: Pfn, vma: PhysAddr, page: number): void;
  /** A frame of a file gets one more entry, which holds a reference that the caller has taken. */
  addFile(pfn: Pfn): void;
  /** One entry less; its reference is still the caller's to put. */
  remove(pfn: Pfn): void;
  /** Every entry that maps the frame. `visit` may change the entry, not the VMAs. O(VMAs on the list). */
  forEachMapping(ctx: Context, pfn: Pfn, visit: MappingVisitor): void;
  /**
   * Takes all entries of a frame out and puts `entry` in their place: a swap entry of the slot that the frame has in
   * the swap cache, or 0. The caller holds a reference. PG_DIRTY says afterwards whether any entry was dirty. 0;
   * −EAGAIN if a VMA is locked, and nothing has changed; −ENOMEM if the slot takes no more users: some entries are
   * gone. With a batch the flushes are owed there: the page may neither be written out nor freed before them.
   */
  tryToUnmap(ctx: Context, pfn: Pfn, entry: number, batch?: TlbBatch): number;
  /** Takes W and D from every entry of a page of a file: the next store faults. The flushes are owed in `batch`. */
  clean(ctx: Context, pfn: Pfn, batch: TlbBatch): void;
  /** Does a VMA with VM_LOCKED map the frame? */
  isLocked(ctx: Context, pfn: Pfn): boolean;
  /**
   * Number of entries through which the frame was used since the last call, which it forgets. −1: a VMA is locked. With
   * a batch the flushes are owed there.
   */
  referenced(ctx: Context, pfn: Pfn, batch?: TlbBatch): number;
}

export interface RmapDeps {
  readonly machine: Machine;
  readonly pages: Pages;
  readonly refs: PageRefs;
  readonly pageTables: PageTables;
  readonly vmstat: VmStat;
  readonly swap: SwapLayer;
  readonly tlb: Tlb;
  readonly allocAnonVma: (ctx: Context) => PhysAddr;
  readonly freeAnonVma: (ctx: Context, anonVma: PhysAddr) => void;
}

/** The rss counter of an entry that maps a frame with these flags. */
export const rssFieldOf = (flags: number): number => {
  if ((flags & PG_ANON) !== 0) return MM_RSS_ANON;
  return (flags & PG_SWAPBACKED) !== 0 ? MM_RSS_SHMEM : MM_RSS_FILE;
};

export function createRmap(deps: RmapDeps): Rmap {
  const { machine, pages, refs, pageTables, vmstat, swap, tlb } = deps;
  const { port } = machine;
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);
  const addField = (base: PhysAddr, offset: number, delta: number): void =>
    port.st32(base + offset, port.ld32(base + offset) + delta);
  const anonVmaOf = (vma: PhysAddr): PhysAddr => fromGranule(field(vma, VMA_ANON_VMA));
  const indexOf = (vma: PhysAddr, page: number): number => field(vma, VMA_PGOFF) + page - field(vma, VMA_START);

  const join = (vma: PhysAddr, anonVma: PhysAddr): void => {
    port.st32(vma + VMA_ANON_VMA, toGranule(anonVma));
    initListHead(port, asPhys(vma + VMA_ANON_LINK));
    listAddTail(port, asPhys(vma + VMA_ANON_LINK), asPhys(anonVma + AV_LIST));
    addField(anonVma, AV_USERS, 1);
  };

  const visitVma = (ctx: Context, pfn: Pfn, index: number, vma: PhysAddr, visit: MappingVisitor): void => {
    const page = field(vma, VMA_START) + index - field(vma, VMA_PGOFF);
    if (page < field(vma, VMA_START) || page >= field(vma, VMA_END)) return;
    const mm = fromGranule(field(vma, VMA_MM));
    const pte = pageTables.walk(ctx, asPfn(field(mm, MM_PGD)), page, false);
    if (pte === NULL) return;
    const value = pageTables.readPte(pte);
    if ((value & PTE_V) !== 0 && pfnOfPte(value) === pfn) visit(mm, vma, page, pte);
  };

  const forEachMapping = (ctx: Context, pfn: Pfn, visit: MappingVisitor): void => {
    const mapping = fromGranule(pages.mapping(pfn));
    if (mapping === NULL || pages.mapcount(pfn) === 0) return;
    const isAnon = (pages.flags(pfn) & PG_ANON) !== 0;
    const index = pages.index(pfn);
    const head = asPhys(mapping + (isAnon ? AV_LIST : AS_LIST));
    const linkOffset = isAnon ? VMA_ANON_LINK : VMA_FILE_LINK;
    for (let link = listFirst(port, head); link !== NULL && link !== head; link = listNext(port, link)) {
      visitVma(ctx, pfn, index, asPhys(link - linkOffset), visit);
    }
  };

  const isLockedVma = (vma: PhysAddr): boolean => (field(vma, VMA_FLAGS) & VM_LOCKED) !== 0;
  const isLocked = (ctx: Context, pfn: Pfn): boolean => {
    let found = false;
    forEachMapping(ctx, pfn, (_mm, vma) => {
      found ||= isLockedVma(vma);
    });
    return found;
  };

  const remove = (pfn: Pfn): void => {
    const count = pages.mapcount(pfn);
    bugOn(count === 0, "RMAP-1: one entry less than none", pfn);
    pages.setMapcount(pfn, count - 1);
    if (count > 1) return;
    const isAnon = (pages.flags(pfn) & PG_ANON) !== 0;
    if (isAnon) pages.setMapping(pfn, 0);
    vmstat.modItem(isAnon ? NR_ANON_MAPPED : NR_FILE_MAPPED, -1);
  };

  const setAnon = (pfn: Pfn, vma: PhysAddr, page: number): void => {
    pages.addFlags(pfn, PG_ANON | PG_SWAPBACKED | PG_UPTODATE);
    pages.setMapping(pfn, field(vma, VMA_ANON_VMA));
    pages.setIndex(pfn, indexOf(vma, page));
    pages.setMapcount(pfn, 1);
    vmstat.modItem(NR_ANON_MAPPED, 1);
  };

  const flush = (ctx: Context, mm: PhysAddr, page: number, batch: TlbBatch | undefined): void => {
    if (batch === undefined) tlb.flushPage(ctx, mm, page);
    else tlb.collect(ctx, batch, mm, page);
  };

  /** Replaces one entry of a frame, which has been flushed or will be; 0 or −ENOMEM. */
  const unmapOne = (ctx: Context, pfn: Pfn, entry: number, mm: PhysAddr, pte: PhysAddr): number => {
    if (entry !== 0 && swap.dup(ctx, slotOfPte(entry)) !== 0) return -ENOMEM;
    const old = pageTables.readPte(pte);
    pageTables.writePte(pte, entry);
    if ((old & PTE_D) !== 0) pages.addFlags(pfn, PG_DIRTY);
    addField(mm, rssFieldOf(pages.flags(pfn)), -1);
    if (entry !== 0) addField(mm, MM_SWAPENTS, 1);
    remove(pfn);
    refs.putPage(ctx, pfn);
    return 0;
  };

  return {
    prepareAnonVma(ctx, vma) {
      if (field(vma, VMA_ANON_VMA) !== 0) return true;
      const anonVma = deps.allocAnonVma(ctx);
      if (anonVma === NULL) return false;
      initListHead(port, asPhys(anonVma + AV_LIST));
      port.st32(anonVma + AV_USERS, 0);
      join(vma, anonVma);
      return true;
    },
    shareAnonVma(vma, like) {
      const anonVma = anonVmaOf(like);
      if (anonVma !== NULL) join(vma, anonVma);
    },
    leaveAnonVma(ctx, vma) {
      const anonVma = anonVmaOf(vma);
      if (anonVma === NULL) return;
      listDel(port, asPhys(vma + VMA_ANON_LINK));
      port.st32(vma + VMA_ANON_VMA, 0);
      addField(anonVma, AV_USERS, -1);
      if (field(anonVma, AV_USERS) > 0) return;
      bugOn(!listIsEmpty(port, asPhys(anonVma + AV_LIST)), "RMAP-3: VMAs left on the list", anonVma);
      deps.freeAnonVma(ctx, anonVma);
    },
    addNewAnon: setAnon,
    addAnon(pfn, vma, page) {
      const count = pages.mapcount(pfn);
      if (count === 0) setAnon(pfn, vma, page);
      else pages.setMapcount(pfn, count + 1);
    },
    addFile(pfn) {
      const count = pages.mapcount(pfn);
      if (count === 0) vmstat.modItem(NR_FILE_MAPPED, 1);
      pages.setMapcount(pfn, count + 1);
    },
    remove,
    isLocked,
    forEachMapping,
    tryToUnmap(ctx, pfn, entry, batch) {
      // With one entry one look is enough: it is locked, or it goes.
      const isOnly = pages.mapcount(pfn) === 1;
      if (!isOnly && isLocked(ctx, pfn)) return -EAGAIN;
      let result = 0;
      forEachMapping(ctx, pfn, (mm, vma, page, pte) => {
        if (isOnly && isLockedVma(vma)) result = -EAGAIN;
        if (result !== 0) return;
        result = unmapOne(ctx, pfn, entry, mm, pte);
        if (result === 0) flush(ctx, mm, page, batch);
      });
      bugOn(result === 0 && pages.mapcount(pfn) !== 0, "RMAP-1: entries that nobody finds", pfn, pages.mapcount(pfn));
      return result;
    },
    clean(ctx, pfn, batch) {
      forEachMapping(ctx, pfn, (mm, _vma, page, pte) => {
        const value = pageTables.readPte(pte);
        if ((value & (PTE_W | PTE_D)) === 0) return;
        pageTables.writePte(pte, (value & ~(PTE_W | PTE_D)) >>> 0);
        tlb.collect(ctx, batch, mm, page);
      });
    },
    referenced(ctx, pfn, batch) {
      let nr = 0;
      forEachMapping(ctx, pfn, (mm, vma, page, pte) => {
        if (isLockedVma(vma)) nr = -1;
        if (nr < 0) return;
        const value = pageTables.readPte(pte);
        if ((value & PTE_A) === 0) return;
        nr++;
        pageTables.writePte(pte, value & ~PTE_A);
        // A TLB that still knows the page would use it without telling.
        flush(ctx, mm, page, batch);
      });
      return nr;
    },
  };
}
