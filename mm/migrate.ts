/**
 * Page migration: a page of processes moves to another frame, and no process notices.
 *
 *        before                    during                      after
 *   PTE ──▶ frame A           PTE: empty, TLBs flushed     PTE ──▶ frame B
 *   PTE ──▶                   PTE: empty                   PTE ──▶
 *           mapping, index             A ══copy══▶ B               mapping, index       A: free
 *
 * 1. Who maps the frame? The reverse mapping answers (rmap.ts). After a fork there may be many entries, in several
 *    address spaces; they are taken out together and come back together.
 *
 * 2. The entries are taken out and every TLB is made to forget them before the copy: a store through a stale
 *    translation would land in the old frame after it was copied, and be lost. Then content, rights, and the A and D
 *    bits move.
 *
 * 3. What can move is an anonymous page whose holders are its entries, and a page of a file whose holders are those and
 *    the page cache, which then has the new frame. A further reference pins it: somebody knows its
 *    frame (a device that writes to it, for example). Page tables, slabs and pages of the kernel are known by their
 *    physical address to whoever uses them, and stay.
 *
 *   MIG-1  a movable page's reverse mapping leads to as many valid entries that point at its frame as mapcount says
 *   MIG-2  content, rights, rss, mapcount, NR_ANON_MAPPED are the same after a migration
 *   MIG-3  no TLB holds the old translation when the content is copied
 *   MIG-4  a refused or failed migration changes nothing
 *
 * Context: process, never sleeps. No checkpoint between the removal of the entries and the new ones, so that no fault
 * can find the gap; Linux, where other CPUs run on, leaves migration entries that faulting threads wait for.
 * Source: mm/migrate.c (migrate_folio, try_to_migrate, remove_migration_ptes), mm/rmap.c.
 */

import { CYC_COPY_PAGE } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { bugOn } from "../kernel/bug.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { type Context, NO_PFN, type Pfn, type PhysAddr, pfnToPhys } from "../kernel/types.ts";
import { EBUSY, ENOMEM } from "../kernel/uapi/errno.ts";
import type { PageMover } from "./contig_range.ts";
import type { FileMap } from "./filemap.ts";
import { __GFP_NOWARN, GFP_HIGHUSER_MOVABLE } from "./gfp.ts";
import {
  ORDER_MASK,
  type Pages,
  PG_ALLOCATED,
  PG_ANON,
  PG_LOCKED,
  PG_LRU,
  PG_MLOCKED,
  PG_OWNER_BITS,
  PG_STATE,
  PG_SWAPCACHE,
  PG_WRITEBACK,
} from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import type { LruLists } from "./page_ref.ts";
import { type PageTables, pteOf } from "./pgtable.ts";
import type { Rmap } from "./rmap.ts";
import type { FlushPage } from "./tlb.ts";
import { PGMIGRATE_FAIL, PGMIGRATE_SUCCESS, type VmStat } from "./vmstat.ts";

/** Flag bits of a page-table entry, below the frame number. */
const PTE_FLAG_BITS = 0x3ff;
/** In other hands, or known elsewhere by its frame. */
const PG_STAYS = PG_LOCKED | PG_WRITEBACK | PG_SWAPCACHE;

export interface MigrationDeps {
  readonly machine: Machine;
  readonly pages: Pages;
  readonly pageAlloc: PageAllocator;
  readonly pageTables: PageTables;
  readonly vmstat: VmStat;
  readonly flushPage: FlushPage;
  readonly rmap: Rmap;
  readonly files: FileMap;
  readonly lru: LruLists;
}

/** An entry that mapped the page. */
interface Entry {
  readonly mm: PhysAddr;
  readonly page: number;
  readonly pte: PhysAddr;
  readonly rights: number;
}

export function createMigration(deps: MigrationDeps): PageMover {
  const { machine, pages, pageAlloc, pageTables, vmstat, flushPage, rmap, files, lru } = deps;
  const { port, harts } = machine;
  const { clock } = harts;

  const isMovable = (pfn: Pfn): boolean => {
    const flags = pages.flags(pfn);
    if ((flags & (PG_STATE | ORDER_MASK | PG_LRU | PG_STAYS)) !== (PG_ALLOCATED | PG_LRU)) return false;
    const mapcount = pages.mapcount(pfn);
    // A page of a file has the page cache as a holder, and need not be mapped.
    if ((flags & PG_ANON) === 0) return pages.mapping(pfn) !== 0 && pages.refcount(pfn) === mapcount + 1;
    return mapcount > 0 && pages.refcount(pfn) === mapcount;
  };

  /** Takes every entry that maps the frame out (MIG-1, MIG-3). */
  const takeEntries = (ctx: Context, pfn: Pfn): Entry[] => {
    const entries: Entry[] = [];
    rmap.forEachMapping(ctx, pfn, (mm, _vma, page, pte) => {
      entries.push({ mm, page, pte, rights: pageTables.readPte(pte) & PTE_FLAG_BITS });
    });
    bugOn(entries.length !== pages.mapcount(pfn), "MIG-1: reverse mapping is wrong", pfn, entries.length);
    for (const { mm, page, pte } of entries) {
      pageTables.writePte(pte, 0);
      flushPage(ctx, mm, page);
    }
    return entries;
  };

  /** Moves what the frame is; the old one is an ordinary allocated one afterwards. */
  const moveColumns = (ctx: Context, from: Pfn, to: Pfn): void => {
    lru.remove(ctx, from);
    pages.addFlags(to, pages.flags(from) & PG_OWNER_BITS);
    pages.setMapping(to, pages.mapping(from));
    pages.setIndex(to, pages.index(from));
    pages.setMapcount(to, pages.mapcount(from));
    pages.setRefcount(to, pages.refcount(from));
    if ((pages.flags(to) & PG_ANON) === 0) files.replace(ctx, from, to);
    pages.clearFlags(from, PG_OWNER_BITS);
    pages.setMapping(from, 0);
    pages.setIndex(from, 0);
    pages.setMapcount(from, 0);
    pages.setRefcount(from, 1);
    if ((pages.flags(to) & PG_MLOCKED) !== 0) {
      lru.countLocked(from, -1);
      lru.countLocked(to, 1);
    }
    lru.add(ctx, to);
  };

  const migratePage = (ctx: Context, from: Pfn, target: Pfn = NO_PFN): number => {
    const isHeld = !isMovable(from);
    let to = isHeld ? NO_PFN : target;
    if (to === NO_PFN && !isHeld) to = pageAlloc.tryAllocPages(ctx, 0, GFP_HIGHUSER_MOVABLE | __GFP_NOWARN);
    if (to === NO_PFN) {
      vmstat.countEvents(ctx, PGMIGRATE_FAIL, 1);
      return isHeld ? -EBUSY : -ENOMEM;
    }
    const entries = takeEntries(ctx, from);
    port.copy(pfnToPhys(to), pfnToPhys(from), PAGE_SIZE);
    moveColumns(ctx, from, to);
    for (const { pte, rights } of entries) pageTables.writePte(pte, pteOf(to, rights));
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_COPY_PAGE;
    pageAlloc.freePages(ctx, from, 0);
    vmstat.countEvents(ctx, PGMIGRATE_SUCCESS, 1);
    return 0;
  };

  return { isMovable, migratePage };
}
