/**
 * Goal: SLOT-1 … SLOT-5: a slot is used for one page at a time, counts are right, bad slots are never given out.
 * Method: the slot map over a machine with its page allocator, random operations against a Map as the oracle.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asPhys, NO_PFN, type Pfn } from "../../kernel/types.ts";
import { ENOMEM } from "../../kernel/uapi/errno.ts";
import { GFP_HIGHUSER_MOVABLE } from "../../mm/gfp.ts";
import { PG_OWNER_BITS, PG_SWAPCACHE } from "../../mm/page.ts";
import { createSwapSlots, SWAPFILE_CLUSTER } from "../../mm/swap_slots.ts";
import { bootPageLevel } from "../support/page_level.ts";

const STATE = asPhys(0x9_0000);

function world(nrSlots: number, bad: readonly number[] = []) {
  const m = bootPageLevel();
  const slots = createSwapSlots({ ...m, port: m.machine.port, state: STATE });
  expect(slots.open(m.ctx, nrSlots, bad)).toBe(0);
  const { pages, pageAlloc, ctx } = m;
  return {
    ...m,
    slots,
    /** A page in the swap cache with its slot, as swap.ts makes one; −1 if no slot is left. */
    take(): readonly [slot: number, pfn: Pfn] {
      const pfn = pageAlloc.tryAllocPages(ctx, 0, GFP_HIGHUSER_MOVABLE);
      const slot = slots.alloc(ctx, pfn);
      if (slot < 0) pageAlloc.freePages(ctx, pfn, 0);
      else {
        pages.addFlags(pfn, PG_SWAPCACHE);
        pages.setPrivate(pfn, slot);
      }
      return [slot, pfn];
    },
    drop(slot: number, pfn: Pfn, shadow = -1): void {
      slots.forget(ctx, slot, shadow);
      pages.clearFlags(pfn, PG_OWNER_BITS);
      pages.setPrivate(pfn, 0);
      pageAlloc.freePages(ctx, pfn, 0);
    },
  };
}

describe("swap slots", () => {
  it("SLOT-5 the header and bad slots are never given out, and all others are, once", () => {
    const w = world(300, [7, 299]);
    const got = new Map<number, Pfn>();
    for (;;) {
      const [slot, pfn] = w.take();
      if (slot < 0) break;
      expect(got.has(slot)).toBe(false);
      got.set(slot, pfn);
    }
    expect(got.size).toBe(297);
    expect([0, 7, 299].some((bad) => got.has(bad))).toBe(false);
    expect(w.slots.nrUsable()).toBe(297);
    expect(w.slots.check()).toBeNull();
    for (const [slot, pfn] of got) w.drop(slot, pfn);
    expect(w.slots.nrInUse()).toBe(0);
    w.slots.close(w.ctx);
    w.expectNoLeak();
  });

  it("pages that go out together get neighbouring slots, and a new cluster is an empty one if there is any", () => {
    const w = world(3 * SWAPFILE_CLUSTER);
    const first = Array.from({ length: 10 }, () => w.take());
    expect(first.map(([slot]) => slot)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    const rest = Array.from({ length: SWAPFILE_CLUSTER - 11 }, () => w.take());
    const [slot, pfn] = first[3] as readonly [number, Pfn];
    w.drop(slot, pfn);
    // Slot 4 is free, but the cluster is used up: the next one is filled before holes are.
    expect(w.take()[0]).toBe(SWAPFILE_CLUSTER);
    expect(rest.length).toBe(SWAPFILE_CLUSTER - 11);
    expect(w.slots.check()).toBeNull();
  });

  it("SLOT-3 names are counted, a full count refuses, and the last one frees the slot", () => {
    const w = world(64);
    const [slot, pfn] = w.take();
    let nr = 0;
    while (w.slots.addName(w.ctx, slot) === 0) nr++;
    expect(nr).toBe(0x1fe);
    expect(w.slots.addName(w.ctx, slot)).toBe(-ENOMEM);
    w.drop(slot, pfn, 77);
    expect([w.slots.cached(slot), w.slots.shadow(slot), w.slots.nrInUse()]).toEqual([NO_PFN, 77, 1]);
    for (; nr > 0; nr--) w.slots.dropName(w.ctx, slot);
    expect(w.slots.nrInUse()).toBe(0);
    expect(() => w.slots.dropName(w.ctx, slot)).toThrow("SLOT-3");
  });

  it("SLOT-1 SLOT-2 SLOT-4 random operations agree with a map, and the auditor is content after each", () => {
    const step = fc.record({ kind: fc.constantFrom("take", "name", "unname", "forget"), which: fc.nat(100) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const w = world(40);
        const model = new Map<number, { names: number; pfn: Pfn | undefined }>();
        const settle = (slot: number): void => {
          const entry = model.get(slot);
          if (entry?.names === 0 && entry.pfn === undefined) model.delete(slot);
        };
        for (const { kind, which } of steps) {
          const slot = [...model.keys()][which % Math.max(1, model.size)] ?? -1;
          const entry = model.get(slot);
          if (kind === "take") {
            const [fresh, pfn] = w.take();
            if (fresh < 0) expect(model.size).toBe(39);
            else model.set(fresh, { names: 0, pfn });
          } else if (entry !== undefined && kind === "name") {
            expect(w.slots.addName(w.ctx, slot)).toBe(0);
            entry.names++;
          } else if (entry !== undefined && kind === "unname" && entry.names > 0) {
            expect(w.slots.dropName(w.ctx, slot)).toBe(--entry.names);
          } else if (entry?.pfn !== undefined && kind === "forget") {
            w.drop(slot, entry.pfn, which);
            entry.pfn = undefined;
            if (entry.names > 0) expect(w.slots.shadow(slot)).toBe(which);
          }
          settle(slot);
          expect(w.slots.check()).toBeNull();
          expect(w.slots.nrInUse()).toBe(model.size);
          for (const [at, { names, pfn }] of model) {
            expect([w.slots.names(at), w.slots.cached(at)]).toEqual([names, pfn ?? NO_PFN]);
          }
        }
      }),
      { numRuns: 30 },
    );
  });
});
