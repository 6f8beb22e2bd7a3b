/**
 * Page references: who holds a page, and its end when nobody does.
 *
 *   refcount = mapcount (entries of page tables)
 *            + 1 if the page cache has it  + 1 if the swap cache has it
 *            + whoever works with it at the moment: isolated from the LRU lists, under I/O, being copied     (PAGE-6)
 *
 * A page of a process or of a file is never freed by name: each holder puts its reference, and the last put frees. A
 * page with an expected count is therefore known to be in nobody else's hands, which is what copy-on-write, migration
 * and reclaim ask before they act.
 *
 *   REF-5  the put that takes refcount to 0 frees the page; it is mapped nowhere and in no cache by then
 *
 * Context: any; plain functions. Linux: include/linux/mm.h (get_page, put_page), mm/swap.c.
 */

import { bugOn } from "../kernel/bug.ts";
import { type Context, NO_PFN, type Pfn } from "../kernel/types.ts";
import { type Pages, PG_LRU, PG_OWNER_BITS, PG_SWAPCACHE } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";

/** The lists that reclaim works on. */
export interface LruLists {
  /** Puts a page of a process or a file on the list that its flags say, and sets PG_LRU. */
  add(ctx: Context, pfn: Pfn): void;
  /** Takes it off and clears PG_LRU. */
  remove(ctx: Context, pfn: Pfn): void;
  /** A page has got PG_MLOCKED (1) or lost it (−1): it is counted, or no more (LRU-4). */
  countLocked(pfn: Pfn, delta: 1 | -1): void;
}

export interface PageRefs {
  /** One holder more; the caller is one, or knows one. */
  getPage(pfn: Pfn): void;
  /** One holder less; the last one frees the page (REF-5). */
  putPage(ctx: Context, pfn: Pfn): void;
}

export function createPageRefs(pages: Pages, pageAlloc: PageAllocator, lru: LruLists): PageRefs {
  return {
    getPage(pfn) {
      bugOn(pages.refcount(pfn) === 0, "REF-5: a reference to a free page", pfn);
      pages.setRefcount(pfn, pages.refcount(pfn) + 1);
    },
    putPage(ctx, pfn) {
      const count = pages.refcount(pfn);
      bugOn(pfn === NO_PFN || count === 0, "REF-5: page put once too often", pfn);
      if (count > 1) {
        pages.setRefcount(pfn, count - 1);
        return;
      }
      bugOn(pages.mapcount(pfn) !== 0, "REF-5: the last holder leaves a mapped page", pfn, pages.mapcount(pfn));
      bugOn((pages.flags(pfn) & PG_SWAPCACHE) !== 0, "REF-5: the last holder leaves a page in the swap cache", pfn);
      if ((pages.flags(pfn) & PG_LRU) !== 0) lru.remove(ctx, pfn);
      pages.clearFlags(pfn, PG_OWNER_BITS);
      pages.setMapping(pfn, 0);
      pages.setPrivate(pfn, 0);
      pages.setIndex(pfn, 0);
      pageAlloc.freePages(ctx, pfn, 0);
    },
  };
}
