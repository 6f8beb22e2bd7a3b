/**
 * Swap entries and page references.
 *
 * Goal: SWE-1, SWE-2, REF-5, PAGE-5, PAGE-6. Method: every power of two and the edges as slots; references are taken
 * and put in turn over a real page allocator, and every misuse must be a kernel bug.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PTE_V } from "../../kernel/arch/mmu.ts";
import { asPfn } from "../../kernel/types.ts";
import { GFP_HIGHUSER_MOVABLE } from "../../mm/gfp.ts";
import { PG_ANON, PG_DIRTY, PG_OWNER_BITS, PG_SWAPCACHE } from "../../mm/page.ts";
import { createPageRefs } from "../../mm/page_ref.ts";
import { isSwapPte, MAX_SWAP_SLOTS, noSwap, slotOfPte, swapPteOf } from "../../mm/swap_entry.ts";
import { bootPageLevel } from "../support/page_level.ts";

describe("swap entries", () => {
  it("SWE-1 a slot comes back out of its entry, for every slot", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: MAX_SWAP_SLOTS - 1 }), (slot) => {
        const pte = swapPteOf(slot);
        expect([isSwapPte(pte), slotOfPte(pte), pte >= 0 && pte < 2 ** 32]).toEqual([true, slot, true]);
      }),
      { examples: [[0], [1], [MAX_SWAP_SLOTS - 1]] },
    );
  });

  it("SWE-2 neither the empty word nor a valid entry is one", () => {
    expect(isSwapPte(0)).toBe(false);
    fc.assert(fc.property(fc.nat(2 ** 31 - 1), (word) => !isSwapPte((word | PTE_V) >>> 0)));
  });

  it("SWE-1 an entry without a swap area is a kernel bug", () => {
    const ctx = bootPageLevel().ctx;
    expect(() => noSwap.free(ctx, 0)).toThrow(/without a swap area/);
  });
});

describe("page references", () => {
  const rig = () => {
    const m = bootPageLevel();
    const pfn = m.pageAlloc.tryAllocPages(m.ctx, 0, GFP_HIGHUSER_MOVABLE);
    return { ...m, pfn, refs: createPageRefs(m.pages, m.pageAlloc, m.lru) };
  };

  it("REF-5 PAGE-5 the last put frees the page and leaves nothing in its columns", () => {
    const { refs, pages, pfn, ctx, lru, pageAlloc, expectNoLeak } = rig();
    pages.addFlags(pfn, PG_ANON | PG_DIRTY);
    lru.add(ctx, pfn);
    pages.setMapping(pfn, 77);
    pages.setPrivate(pfn, 5);
    refs.getPage(pfn);
    refs.putPage(ctx, pfn);
    expect([pages.refcount(pfn), pages.mapping(pfn)]).toEqual([1, 77]);
    refs.putPage(ctx, pfn);
    expect([pages.refcount(pfn), pages.flags(pfn) & PG_OWNER_BITS]).toEqual([0, 0]);
    expect(pageAlloc.check()).toBeNull();
    expectNoLeak();
  });

  it("REF-5 a put too often, a mapped page and a page in the swap cache are kernel bugs", () => {
    const { refs, pages, pfn, ctx } = rig();
    pages.setMapcount(pfn, 1);
    expect(() => refs.putPage(ctx, pfn)).toThrow(/REF-5: the last holder leaves a mapped page/);
    pages.setMapcount(pfn, 0);
    pages.addFlags(pfn, PG_SWAPCACHE);
    expect(() => refs.putPage(ctx, pfn)).toThrow(/REF-5: the last holder leaves a page in the swap cache/);
    pages.clearFlags(pfn, PG_SWAPCACHE);
    refs.putPage(ctx, pfn);
    expect(() => refs.putPage(ctx, pfn)).toThrow(/REF-5: page put once too often/);
    expect(() => refs.getPage(pfn)).toThrow(/REF-5: a reference to a free page/);
  });

  it("PAGE-5 a frame that is freed with a mapping is found", () => {
    const { pages, pfn, ctx, pageAlloc } = rig();
    pages.setMapping(asPfn(pfn), 9);
    pageAlloc.freePages(ctx, pfn, 0);
    expect(pageAlloc.check()).toMatch(/PAGE-5: frame \d+ is free and still has a mapping/);
  });
});
