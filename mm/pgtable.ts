/**
 * Page tables of a process: making, finding, changing and tearing down Sv39 entries in RAM.
 *
 *   root (level 2) ─▶ level 1 ─▶ level 0 ─▶ page           one frame per table, PG_TABLE, counted in NR_PAGETABLE
 *
 * A level-1 entry may be a leaf: a huge page of 2 MiB of anonymous memory (thp.ts). Whoever edits an entry inside one
 * (walk, forEachEntry) splits it first: a table that was set aside when it was made, kept in `private` of its first
 * frame, gets 512 entries with the same frames and flags. So nobody else need know huge pages; who only looks uses
 * forEachPage or hugeSlot. No TLB need forget anything: each of its translations is still right.
 *
 * The format is the hardware's (kernel/arch/mmu.ts). This file only edits tables; whoever removes or restricts an entry
 * flushes the TLBs that may hold it.
 *
 * A table is freed when no VMA needs it any more: munmap detaches those that lie wholly in the hole it leaves, between
 * the end of the VMA below (floor) and the start of the one above (ceiling); a table at the edge that a neighbour needs
 * stays.
 *
 *   PGT-1  every table of an address space is reachable from its root, and from no other
 *   PGT-2  the private word of the root counts them, and the tables that are set aside (mm->pgtables_bytes)
 *   PGT-3  a table other than the root translates a page of some VMA
 *   PGT-4  (mmu_gather.ts)
 *   THP-2  splitting a huge page cannot fail, and changes no translation
 *
 * Context: process, with the address space's lock; allocation never sleeps here (GFP_KERNEL pages are tried first by
 * the caller). Linux: mm/memory.c, arch/riscv/include/asm/pgtable.h.
 */

import { PT_LEVELS, PTE_LEAF, PTE_R, PTE_U, PTE_V, PTE_W, PTE_X, PTES_PER_TABLE } from "../kernel/arch/mmu.ts";
import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { asPfn, asPhys, type Context, NO_PFN, NULL, type Pfn, type PhysAddr } from "../kernel/types.ts";
import { PROT_EXEC, PROT_READ, PROT_WRITE } from "../kernel/uapi/mman.ts";
import { __GFP_ZERO, GFP_KERNEL } from "./gfp.ts";
import { type Pages, PG_HEAD, PG_TABLE } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { NR_ANON_THPS, NR_PAGETABLE, THP_SPLIT, type VmStat } from "./vmstat.ts";

/** From the entry of one frame to that of the next. */
const FRAME_STEP = 1 << 10;

export type EntryVisitor = (pte: PhysAddr, vpn: number, word: number) => void;
/** `pte` is the entry that translates the page, `word` what a level-0 entry for it would be. */
export type PageVisitor = (pte: PhysAddr, vpn: number, word: number, isHuge: boolean) => void;

export interface PageTables {
  /** A new, empty root; NO_PFN without memory. */
  createRoot(ctx: Context): Pfn;
  /** Address of the level-0 entry for page `vpn`; makes the tables on the way if `make`. NULL: none, or no memory. */
  walk(ctx: Context, root: Pfn, vpn: number, make: boolean): PhysAddr;
  /** Address of the level-1 entry for page `vpn`, as it is; makes the table it is in if `make`. NULL as above. */
  hugeSlot(ctx: Context, root: Pfn, vpn: number, make: boolean): PhysAddr;
  /** A table for a new huge page: the empty one that `slot` points at, or a new one. NO_PFN: none to be had. */
  takeTable(ctx: Context, root: Pfn, slot: PhysAddr): Pfn;
  /** Gives back a table that takeTable made anew. */
  giveTable(ctx: Context, root: Pfn, table: Pfn): void;
  /** Frees a table that was detached. */
  freeTable(ctx: Context, table: Pfn): void;
  readPte(pte: PhysAddr): number;
  writePte(pte: PhysAddr, value: number): void;
  /** As forEachEntry, for readers: huge pages stay, and `visit` gets each of their pages. */
  forEachPage(root: Pfn, from: number, to: number, visit: PageVisitor): void;
  /** Calls `visit(pte, vpn, word)` for each level-0 entry in `[from, to)` that is not 0: pages, and what is in swap. */
  forEachEntry(root: Pfn, from: number, to: number, visit: EntryVisitor): void;
  /**
   * Takes the tables that translate pages of `[start, end)`, and none outside of `[floor, ceiling)`, out of those they
   * hang in, and gives them to `take`. Their entries are gone.
   */
  detach(root: Pfn, start: number, end: number, floor: number, ceiling: number, take: (table: Pfn) => void): void;
  /** Calls `visit` for every table but the root, with the pages `[base, end)` that it translates. */
  forEachTable(root: Pfn, visit: (table: Pfn, base: number, end: number) => void): void;
  /** Frees the tables below the root that are empty and translate nothing below page `from`. */
  pruneEmpty(ctx: Context, root: Pfn, from: number): void;
  /** Frees every table of an address space whose leaves are gone; returns their number. */
  destroy(ctx: Context, root: Pfn): number;
  /** Tables below and including the root, and those that are set aside (PGT-2). */
  count(root: Pfn): number;
  /** The same, counted anew: for the auditor. O(tables). */
  recount(root: Pfn): number;
}

export function createPageTables(port: MemoryPort, pages: Pages, pageAlloc: PageAllocator, vmstat: VmStat): PageTables {
  const allocTable = (ctx: Context): Pfn => {
    const pfn = pageAlloc.tryAllocPages(ctx, 0, GFP_KERNEL | __GFP_ZERO);
    if (pfn !== NO_PFN) {
      pages.addFlags(pfn, PG_TABLE);
      vmstat.modItem(NR_PAGETABLE, 1);
    }
    return pfn;
  };
  /** PGT-2: the private word of a root has their number. */
  const account = (root: Pfn, delta: number): void => pages.setPrivate(root, pages.private(root) + delta);
  const allocBelow = (ctx: Context, root: Pfn): Pfn => {
    const pfn = allocTable(ctx);
    if (pfn !== NO_PFN) account(root, 1);
    return pfn;
  };
  const freeTable = (ctx: Context, pfn: Pfn): void => {
    pages.clearFlags(pfn, PG_TABLE);
    vmstat.modItem(NR_PAGETABLE, -1);
    pageAlloc.freePages(ctx, pfn, 0);
  };
  const entryAt = (table: number, level: number, vpn: number): PhysAddr =>
    asPhys(table * PAGE_SIZE + ((vpn >>> (9 * level)) & (PTES_PER_TABLE - 1)) * 8);
  const isTable = (pte: number): boolean => (pte & PTE_V) !== 0 && (pte & PTE_LEAF) === 0;

  /** THP-2: the leaf `word` of level 1 at `entry` becomes a table; the entry's new word. */
  const split = (entry: PhysAddr, word: number): number => {
    const first = asPfn(word >>> 10);
    const table = pages.private(first);
    pages.setPrivate(first, 0);
    pages.clearFlags(first, PG_HEAD);
    for (let i = 0; i < PTES_PER_TABLE; i++) port.st32(table * PAGE_SIZE + i * 8, (word + i * FRAME_STEP) >>> 0);
    const pointer = ((table << 10) | PTE_V) >>> 0;
    port.st32(entry, pointer);
    vmstat.modItem(NR_ANON_THPS, -1);
    vmstat.modItem(THP_SPLIT, 1);
    return pointer;
  };

  const walk = (ctx: Context, root: Pfn, vpn: number, make: boolean): PhysAddr => {
    let table: number = root;
    for (let level = PT_LEVELS - 1; level > 0; level--) {
      const entry = entryAt(table, level, vpn);
      const pte = port.ld32(entry);
      if ((pte & PTE_V) !== 0) {
        table = (isTable(pte) ? pte : split(entry, pte)) >>> 10;
        continue;
      }
      if (!make) return NULL;
      const fresh = allocBelow(ctx, root);
      if (fresh === NO_PFN) return NULL;
      port.st32(entry, ((fresh << 10) | PTE_V) >>> 0);
      table = fresh;
    }
    return entryAt(table, 0, vpn);
  };

  const visitTable = (
    table: number,
    level: number,
    base: number,
    from: number,
    to: number,
    visit: PageVisitor,
    isReader: boolean,
  ): void => {
    const span = 2 ** (9 * level);
    const first = Math.max(0, Math.floor((from - base) / span));
    const last = Math.min(PTES_PER_TABLE, Math.ceil((to - base) / span));
    for (let index = first; index < last; index++) {
      const entry = asPhys(table * PAGE_SIZE + index * 8);
      const pte = port.ld32(entry);
      if (pte === 0) continue;
      const vpn = base + index * span;
      if (level === 0) visit(entry, vpn, pte, false);
      else if (isTable(pte)) visitTable(pte >>> 10, level - 1, vpn, from, to, visit, isReader);
      else if (!isReader) visitTable(split(entry, pte) >>> 10, level - 1, vpn, from, to, visit, isReader);
      else {
        const end = Math.min(to, vpn + span);
        for (let page = Math.max(from, vpn); page < end; page++) {
          visit(entry, page, (pte + (page - vpn) * FRAME_STEP) >>> 0, true);
        }
      }
    }
  };

  const detachIn = (
    table: number,
    level: number,
    base: number,
    range: readonly [start: number, end: number, floor: number, ceiling: number],
    take: (table: Pfn) => void,
  ): void => {
    const [start, end, floor, ceiling] = range;
    const span = 2 ** (9 * level);
    const last = Math.min(PTES_PER_TABLE, Math.ceil((end - base) / span));
    for (let index = Math.max(0, Math.floor((start - base) / span)); index < last; index++) {
      const entry = table * PAGE_SIZE + index * 8;
      const pte = port.ld32(entry);
      if (!isTable(pte)) continue;
      const [child, childBase] = [pte >>> 10, base + index * span];
      if (level > 1) detachIn(child, level - 1, childBase, range, take);
      if (childBase < floor || childBase + span > ceiling) continue;
      bugOn(!isEmpty(child), "PGT-3: a table goes with entries in it", child, childBase);
      port.st32(entry, 0);
      take(asPfn(child));
    }
  };

  const visitTables = (
    table: number,
    level: number,
    base: number,
    visit: (table: Pfn, base: number, end: number) => void,
  ): void => {
    const span = 2 ** (9 * level);
    for (let index = 0; index < PTES_PER_TABLE; index++) {
      const pte = port.ld32(table * PAGE_SIZE + index * 8);
      if (!isTable(pte)) continue;
      const childBase = base + index * span;
      visit(asPfn(pte >>> 10), childBase, childBase + span);
      if (level > 1) visitTables(pte >>> 10, level - 1, childBase, visit);
    }
  };

  const destroyTable = (ctx: Context, table: Pfn, level: number): number => {
    let nr = 1;
    if (level > 0) {
      for (let index = 0; index < PTES_PER_TABLE; index++) {
        const pte = port.ld32(table * PAGE_SIZE + index * 8);
        if (isTable(pte)) nr += destroyTable(ctx, asPfn(pte >>> 10), level - 1);
      }
    }
    freeTable(ctx, table);
    return nr;
  };

  const isEmpty = (table: number): boolean => {
    for (let index = 0; index < PTES_PER_TABLE; index++)
      if (port.ld32(table * PAGE_SIZE + index * 8) !== 0) return false;
    return true;
  };

  const pruneTable = (ctx: Context, root: Pfn, table: number, level: number, base: number, from: number): void => {
    for (let index = 0; index < PTES_PER_TABLE; index++) {
      const entry = table * PAGE_SIZE + index * 8;
      const pte = port.ld32(entry);
      if (!isTable(pte)) continue;
      const [child, childBase] = [pte >>> 10, base + index * 2 ** (9 * level)];
      if (level > 1) pruneTable(ctx, root, child, level - 1, childBase, from);
      if (childBase < from || !isEmpty(child)) continue;
      port.st32(entry, 0);
      account(root, -1);
      freeTable(ctx, asPfn(child));
    }
  };

  const countTables = (table: number, level: number): number => {
    let nr = 1;
    if (level === 0) return nr;
    for (let index = 0; index < PTES_PER_TABLE; index++) {
      const pte = port.ld32(table * PAGE_SIZE + index * 8);
      if (isTable(pte)) nr += countTables(pte >>> 10, level - 1);
      else if ((pte & PTE_V) !== 0) nr++;
    }
    return nr;
  };

  return {
    createRoot(ctx) {
      const pfn = allocTable(ctx);
      if (pfn !== NO_PFN) account(pfn, 1);
      return pfn;
    },
    walk,
    hugeSlot(ctx, root, vpn, make) {
      const entry = entryAt(root, 2, vpn);
      const pte = port.ld32(entry);
      if ((pte & PTE_V) !== 0) return entryAt(pte >>> 10, 1, vpn);
      const fresh = make ? allocBelow(ctx, root) : NO_PFN;
      if (fresh === NO_PFN) return NULL;
      port.st32(entry, ((fresh << 10) | PTE_V) >>> 0);
      return entryAt(fresh, 1, vpn);
    },
    takeTable(ctx, root, slot) {
      const pte = port.ld32(slot);
      if (pte === 0) return allocBelow(ctx, root);
      return isTable(pte) && isEmpty(pte >>> 10) ? asPfn(pte >>> 10) : NO_PFN;
    },
    giveTable(ctx, root, table) {
      account(root, -1);
      freeTable(ctx, table);
    },
    freeTable,
    readPte: (pte) => port.ld32(pte),
    writePte(pte, value) {
      port.st32(pte, value >>> 0);
      port.st32(pte + 4, 0);
    },
    forEachPage: (root, from, to, visit) => visitTable(root, PT_LEVELS - 1, 0, from, to, visit, true),
    forEachEntry: (root, from, to, visit) => visitTable(root, PT_LEVELS - 1, 0, from, to, visit, false),
    detach: (root, start, end, floor, ceiling, take) =>
      detachIn(root, PT_LEVELS - 1, 0, [start, end, floor, ceiling], (table) => {
        account(root, -1);
        take(table);
      }),
    forEachTable: (root, visit) => visitTables(root, PT_LEVELS - 1, 0, visit),
    pruneEmpty: (ctx, root, from) => pruneTable(ctx, root, root, PT_LEVELS - 1, 0, from),
    destroy(ctx, root) {
      const nr = pages.private(root);
      pages.setPrivate(root, 0);
      const freed = destroyTable(ctx, root, PT_LEVELS - 1);
      bugOn(freed !== nr, "PGT-2: an address space had other tables than it counted", freed, nr);
      return freed;
    },
    count: (root) => pages.private(root),
    recount: (root) => countTables(root, PT_LEVELS - 1),
  };
}

/** The frame a leaf entry points at, and back. */
export const pfnOfPte = (pte: number): Pfn => asPfn(pte >>> 10);
export const pteOf = (pfn: Pfn, flags: number): number => ((pfn << 10) | flags) >>> 0;

/** Rights of an entry for `prot`. One without R and W would look like a table: X keeps it a leaf, U is missing. */
export const leafRights = (prot: number): number =>
  (prot & (PROT_READ | PROT_WRITE)) === 0
    ? PTE_V | PTE_X
    : PTE_V | PTE_U | PTE_R | ((prot & PROT_WRITE) !== 0 ? PTE_W : 0) | ((prot & PROT_EXEC) !== 0 ? PTE_X : 0);
