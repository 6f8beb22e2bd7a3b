/**
 * Page migration: a page of a process moves to another frame, and the process does not notice.
 *
 *        before                    during                      after
 *   PTE ──▶ frame A           PTE: empty, TLBs flushed     PTE ──▶ frame B
 *           private: mm                A ══copy══▶ B               private: mm, index: page
 *           index: page                                    A: free
 *
 * 1. Who maps the frame? The reverse mapping answers: the frame's `private` column holds its owner's address space,
 *    `index` the number of the virtual page (page.ts, PAGE-4). Processes share no memory, so there is one entry.
 *
 * 2. The entry is taken out and every TLB is made to forget it before the copy: a store through a stale translation
 *    would land in the old frame after it was copied, and be lost. Then content, rights, and the A and D bits move.
 *
 * 3. What can move is a page of a process with one holder. A further reference pins it: somebody knows its frame (a
 *    device that writes to it, for example). Page tables, slabs and pages of the kernel are known by their physical
 *    address to whoever uses them, and stay.
 *
 *   MIG-1  a movable page's reverse mapping leads to a valid entry that points back at its frame
 *   MIG-2  content, rights, rss, mapcount, NR_ANON_MAPPED are the same after a migration
 *   MIG-3  no TLB holds the old translation when the content is copied
 *   MIG-4  a refused or failed migration changes nothing
 *
 * Context: process, never sleeps. No checkpoint between the removal of the entry and the new one, so that no fault can
 * find the gap; Linux, where other CPUs run on, leaves a migration entry that faulting threads wait for.
 * Source: mm/migrate.c (migrate_folio, try_to_migrate, remove_migration_ptes), mm/rmap.c.
 */

import { CYC_COPY_PAGE, CYC_TLB_FLUSH } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { PTE_V } from "../kernel/arch/mmu.ts";
import { bugOn } from "../kernel/bug.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { asPfn, type Context, fromGranule, NO_PFN, NULL, type Pfn, type PhysAddr, pfnToPhys } from "../kernel/types.ts";
import { EBUSY, ENOMEM } from "../kernel/uapi/errno.ts";
import type { PageMover } from "./contig_range.ts";
import { __GFP_NOWARN, GFP_HIGHUSER_MOVABLE } from "./gfp.ts";
import { MM_PGD } from "./mm_struct.ts";
import { ORDER_MASK, type Pages, PG_ALLOCATED, PG_ANON, PG_LRU, PG_STATE } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { type PageTables, pfnOfPte, pteOf } from "./pgtable.ts";
import type { FlushPage } from "./tlb.ts";
import { PGMIGRATE_FAIL, PGMIGRATE_SUCCESS, type VmStat } from "./vmstat.ts";

/** Flag bits of a page-table entry, below the frame number. */
const PTE_FLAG_BITS = 0x3ff;
const PG_MOVABLE = PG_ANON | PG_LRU;

export interface MigrationDeps {
  readonly machine: Machine;
  readonly pages: Pages;
  readonly pageAlloc: PageAllocator;
  readonly pageTables: PageTables;
  readonly vmstat: VmStat;
  readonly flushPage: FlushPage;
}

export function createMigration(deps: MigrationDeps): PageMover {
  const { machine, pages, pageAlloc, pageTables, vmstat, flushPage } = deps;
  const { port, harts } = machine;
  const { clock } = harts;

  const isMovable = (pfn: Pfn): boolean => {
    const flags = pages.flags(pfn);
    return (
      (flags & (PG_STATE | ORDER_MASK | PG_MOVABLE)) === (PG_ALLOCATED | PG_MOVABLE) &&
      pages.refcount(pfn) === 1 &&
      pages.mapcount(pfn) === 1
    );
  };

  const ownerOf = (pfn: Pfn): PhysAddr => fromGranule(pages.private(pfn));

  /** The one entry that maps the frame (MIG-1). */
  const findEntry = (ctx: Context, pfn: Pfn): PhysAddr => {
    const pte = pageTables.walk(ctx, asPfn(port.ld32(ownerOf(pfn) + MM_PGD)), pages.index(pfn), false);
    const value = pte === NULL ? 0 : pageTables.readPte(pte);
    bugOn((value & PTE_V) === 0 || pfnOfPte(value) !== pfn, "MIG-1: reverse mapping is wrong", pfn, value);
    return pte;
  };

  /** Moves the columns of a process page; the old frame is an ordinary allocated one afterwards. */
  const moveColumns = (from: Pfn, to: Pfn): void => {
    pages.addFlags(to, PG_MOVABLE);
    pages.setPrivate(to, pages.private(from));
    pages.setIndex(to, pages.index(from));
    pages.setMapcount(to, 1);
    pages.clearFlags(from, PG_MOVABLE);
    pages.setPrivate(from, 0);
    pages.setIndex(from, 0);
    pages.setMapcount(from, 0);
  };

  const migratePage = (ctx: Context, from: Pfn, target: Pfn = NO_PFN): number => {
    const isHeld = !isMovable(from);
    let to = isHeld ? NO_PFN : target;
    if (to === NO_PFN && !isHeld) to = pageAlloc.tryAllocPages(ctx, 0, GFP_HIGHUSER_MOVABLE | __GFP_NOWARN);
    if (to === NO_PFN) {
      vmstat.countEvents(ctx, PGMIGRATE_FAIL, 1);
      return isHeld ? -EBUSY : -ENOMEM;
    }
    const pte = findEntry(ctx, from);
    const rights = pageTables.readPte(pte) & PTE_FLAG_BITS;
    pageTables.writePte(pte, 0);
    flushPage(ownerOf(from), pages.index(from));
    port.copy(pfnToPhys(to), pfnToPhys(from), PAGE_SIZE);
    moveColumns(from, to);
    pageTables.writePte(pte, pteOf(to, rights));
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_COPY_PAGE + CYC_TLB_FLUSH;
    pageAlloc.freePages(ctx, from, 0);
    vmstat.countEvents(ctx, PGMIGRATE_SUCCESS, 1);
    return 0;
  };

  return { isMovable, migratePage };
}
