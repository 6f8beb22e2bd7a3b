/**
 * Goal: what kswapd does with a batch while others run: RCL-4, SWAP-3, SLOT-5. Method: createPageout over real pages and
 * lists; swap and its disk are played by the test, which takes pages back while "the disk works".
 */
import { expect, it } from "vitest";
import type { PageIo } from "../../kernel/file.ts";
import type { Task } from "../../kernel/task.ts";
import type { Pfn, Sleeping } from "../../kernel/types.ts";
import { GFP_HIGHUSER_MOVABLE } from "../../mm/gfp.ts";
import { PG_DIRTY, PG_SWAPBACKED, PG_SWAPCACHE } from "../../mm/page.ts";
import { createPageRefs } from "../../mm/page_ref.ts";
import { createBatch, createPageout, type PageoutDeps } from "../../mm/pageout.ts";
import { bootPageLevel } from "../support/page_level.ts";

// Regression: a page whose slot was given up while an earlier run of its batch was written had slot 0 then, and the
// header of the swap area was written over with its content.
it("SLOT-5 a page that is taken back while kswapd writes another is not written to slot 0", () => {
  const w = bootPageLevel();
  const refs = createPageRefs(w.pages, w.pageAlloc, w.lru);
  const newPage = (slot: number): Pfn => {
    const pfn = w.pageAlloc.tryAllocPages(w.ctx, 0, GFP_HIGHUSER_MOVABLE);
    w.pages.addFlags(pfn, PG_SWAPBACKED | PG_SWAPCACHE | PG_DIRTY);
    w.pages.setPrivate(pfn, slot);
    refs.getPage(pfn);
    w.lru.add(w.ctx, pfn);
    expect(w.lru.isolate(w.ctx, pfn)).toBe(true);
    return pfn;
  };
  const [first, second] = [newPage(5), newPage(9)];
  /** What a store by its process does: the slot goes, the page is nobody's but its own. */
  const takeBack = (pfn: Pfn): void => {
    w.pages.clearFlags(pfn, PG_SWAPCACHE);
    w.pages.setPrivate(pfn, 0);
    refs.putPage(w.ctx, pfn);
  };
  const written: number[] = [];
  const io: Partial<PageIo> = {
    maxPages: 32,
    *writeSleeping(_task, slot): Sleeping<number> {
      written.push(slot);
      takeBack(second);
      return 0;
    },
  };
  const pageout = createPageout({
    ...w,
    refs,
    swap: {
      deviceOf: () => io,
      pageOf: (slot: number) => slot,
      layer: { release: () => false },
      removeFromCache: (_ctx: unknown, pfn: Pfn) => takeBack(pfn),
    },
    workingSet: { noteCost() {}, evict: () => 0 },
    dirty: { isTracked: () => false },
    policy: { putBack: w.lru.putBack },
    interruptPoint() {},
  } as unknown as PageoutDeps);
  const batch = createBatch(true);
  batch.dirty.set([first, second]);
  batch.nrDirty = 2;
  const rest = pageout.writeAsleep({ ctx: w.ctx } as Task, batch);
  while (rest.next().done !== true);
  expect(written).toEqual([5]);
  expect(w.pages.flags(second) & PG_DIRTY).toBe(PG_DIRTY);
  expect(w.lru.check()).toBeNull();
});
