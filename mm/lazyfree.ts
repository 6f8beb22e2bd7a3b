/**
 * Lazily freed memory: MADV_FREE says that nobody minds if the content is lost; nothing happens until memory is short.
 *
 *   MADV_FREE ─▶ D, A and PG_SWAPBACKED cleared: an inactive page of files ─┬─ reclaim: clean ─▶ dropped, no I/O
 *                                                                          ├─ written to: D ─▶ ordinary again
 *                                                                          └─ munmap, exit ─▶ freed as ever
 *
 * A heap that gives a page back today and wants it tomorrow saves a fault and a zeroed frame if nobody needed the frame
 * meanwhile. If somebody did, the page goes like a clean page of a file: without a slot and without a write. So that is
 * what it is to reclaim: anonymous (PG_ANON), but not backed by swap (PG_SWAPBACKED), on the lists of files.
 *
 * Whether it was written to since is told by the hardware: the D bit of the entry is cleared, and TLBs forget the page,
 * so that a store walks again and sets it. Reclaim looks at D when it takes the entries out: one that has it keeps the
 * page, which gets PG_SWAPBACKED back.
 *
 * A page with a copy in swap gives up its slot at once; one that others map as well, or whose slot others name, is left
 * as it is: their content is not ours to give away.
 *
 *   LZF-1  a lazily freed page reads as what it had, or as zeros once it was dropped; never as anything else
 *   LZF-2  a page written to after MADV_FREE is not dropped
 *   LZF-3  dropping takes no slot and does no I/O
 *
 * Context: process; plain functions. Linux: mm/madvise.c (madvise_free_pte_range), mm/swap.c (lru_lazyfree), mm/rmap.c
 * (try_to_unmap_one).
 */

import { PTE_A, PTE_D } from "../kernel/arch/mmu.ts";
import type { MemoryPort } from "../kernel/arch/port.ts";
import { asPfn, type Context, type Pfn, type PhysAddr } from "../kernel/types.ts";
import type { LruControl } from "./memory.ts";
import { MM_PGD, MM_RSS_ANON, MM_SWAPENTS } from "./mm_struct.ts";
import { type Pages, PG_ANON, PG_DIRTY, PG_LRU, PG_SWAPBACKED, PG_SWAPCACHE, PG_UNEVICTABLE } from "./page.ts";
import type { PageRefs } from "./page_ref.ts";
import { type PageTables, pfnOfPte } from "./pgtable.ts";
import type { Rmap } from "./rmap.ts";
import { isSwapPte, type SwapLayer, slotOfPte } from "./swap_entry.ts";
import type { Tlb, TlbBatch } from "./tlb.ts";
import { PGLAZYFREE, type VmStat } from "./vmstat.ts";

export interface LazyFree {
  /** MADV_FREE for the pages `[start, end)` of private anonymous memory. */
  mark(ctx: Context, mm: PhysAddr, start: number, end: number): void;
  /**
   * Takes all entries of an isolated page out, if nobody has written to it: true, and it may be freed after the flushes
   * that are owed in `flushes`. False: somebody has, or it is locked; entries may be gone that had nothing to lose.
   */
  drop(ctx: Context, pfn: Pfn, flushes: TlbBatch): boolean;
}

export interface LazyFreeDeps {
  readonly port: MemoryPort;
  readonly pages: Pages;
  readonly pageTables: PageTables;
  readonly refs: PageRefs;
  readonly rmap: Rmap;
  readonly lru: LruControl;
  readonly swap: SwapLayer;
  readonly tlb: Tlb;
  readonly vmstat: VmStat;
  readonly interruptPoint: (ctx: Context) => void;
}

/** May its content be lost? */
export const isLazyFree = (flags: number): boolean => (flags & (PG_ANON | PG_SWAPBACKED)) === PG_ANON;

export function createLazyFree(deps: LazyFreeDeps): LazyFree {
  const { port, pages, pageTables, refs, rmap, lru, swap, tlb, vmstat } = deps;
  const addField = (base: PhysAddr, offset: number, delta: number): void =>
    port.st32(base + offset, port.ld32(base + offset) + delta);

  /** Makes the frame the only copy of its content; false if others have a say. */
  const isOwnCopy = (ctx: Context, pfn: Pfn): boolean => {
    const flags = pages.flags(pfn);
    if ((flags & (PG_SWAPCACHE | PG_DIRTY)) === 0) return true;
    if (pages.mapcount(pfn) !== 1) return false;
    if ((flags & PG_SWAPCACHE) !== 0 && !swap.release(ctx, pfn)) return false;
    pages.clearFlags(pfn, PG_DIRTY);
    return true;
  };

  const markPage = (ctx: Context, pfn: Pfn): void => {
    const wanted = PG_LRU | PG_SWAPBACKED;
    if ((pages.flags(pfn) & (wanted | PG_UNEVICTABLE)) !== wanted) return;
    lru.setSwapBacked(ctx, pfn, false);
    vmstat.countEvents(ctx, PGLAZYFREE, 1);
  };

  return {
    mark(ctx, mm, start, end) {
      let first = end;
      let last = -1;
      pageTables.forEachEntry(asPfn(port.ld32(mm + MM_PGD)), start, end, (pte, page, word) => {
        if (isSwapPte(word)) {
          pageTables.writePte(pte, 0);
          addField(mm, MM_SWAPENTS, -1);
          swap.free(ctx, slotOfPte(word));
          return;
        }
        const pfn = pfnOfPte(word);
        if (!isOwnCopy(ctx, pfn)) return;
        if ((word & (PTE_A | PTE_D)) !== 0) {
          pageTables.writePte(pte, word & ~(PTE_A | PTE_D));
          first = Math.min(first, page);
          last = page;
        }
        markPage(ctx, pfn);
        deps.interruptPoint(ctx);
      });
      if (last >= first) tlb.flushRange(ctx, mm, first, last + 1);
    },
    drop(ctx, pfn, flushes) {
      if ((pages.flags(pfn) & PG_DIRTY) !== 0 || rmap.isLocked(ctx, pfn)) return false;
      // Whoever isolated it, and the entries: another holder may be writing.
      let isUnused = pages.refcount(pfn) === pages.mapcount(pfn) + 1;
      rmap.forEachMapping(ctx, pfn, (mm, _vma, page, pte) => {
        isUnused &&= (pageTables.readPte(pte) & PTE_D) === 0;
        if (!isUnused) return;
        pageTables.writePte(pte, 0);
        tlb.collect(ctx, flushes, mm, page);
        addField(mm, MM_RSS_ANON, -1);
        rmap.remove(pfn);
        refs.putPage(ctx, pfn);
      });
      return isUnused;
    },
  };
}
