/**
 * Per-CPU page lists over a buddy that fails: every N-th block, once and for good.
 *
 * Goal: PCP-1, PCP-2, PCP-4, PGA-4: a refill that gets a part of its batch, or nothing, loses nothing. Method: the
 * FrameAllocator seam with an allocBlock that refuses on command; random orders and types on three CPUs.
 */

import { expect, it } from "vitest";
import { NO_PFN, type Pfn } from "../../kernel/types.ts";
import { createBuddy } from "../../mm/buddy.ts";
import { __GFP_NOWARN, GFP_ATOMIC, GFP_HIGHUSER_MOVABLE } from "../../mm/gfp.ts";
import { bootPageLevel } from "../support/page_level.ts";

for (const isPersistent of [false, true]) {
  it(`PCP-4 PGA-4 allocBlock fails at its N-th call, ${isPersistent ? "and from then on" : "once"}, for every N`, () => {
    let nrFailures = 0;
    for (let n = 1; n <= 60; n += 1 + (n >>> 3)) {
      let untilFailure = 0;
      const m = bootPageLevel({
        nrCpus: 3,
        ramBytes: 20 * 1024 * 1024,
        frameAllocator: (deps) => {
          const buddy = createBuddy(deps);
          return {
            ...buddy,
            allocBlock(order, type, flags) {
              if (untilFailure === 1) {
                nrFailures++;
                if (!isPersistent) untilFailure = 0;
                return NO_PFN;
              }
              if (untilFailure > 1) untilFailure--;
              return buddy.allocBlock(order, type, flags);
            },
          };
        },
      });
      untilFailure = n;
      const live: (readonly [Pfn, number])[] = [];
      for (let i = 0; i < 150; i++) {
        const ctx = m.contexts.taskContext(i % 3);
        const order = (i * 7) % 5;
        const gfp = (i % 2 === 0 ? GFP_ATOMIC : GFP_HIGHUSER_MOVABLE) | __GFP_NOWARN;
        const pfn = m.pageAlloc.tryAllocPages(ctx, order, gfp);
        if (pfn !== NO_PFN) live.push([pfn, order]);
        else if (!isPersistent) expect(untilFailure).toBe(0);
        if (i % 4 === 3 && live.length > 0) {
          const [freed, freedOrder] = live.splice((i * 5) % live.length, 1)[0] as readonly [Pfn, number];
          expect(m.pageAlloc.freePages(ctx, freed, freedOrder)).toBe(0);
        }
      }
      expect(m.pageAlloc.check()).toBeNull();
      for (const [pfn, order] of live) expect(m.pageAlloc.freePages(m.ctx, pfn, order)).toBe(0);
      m.expectNoLeak();
    }
    expect(nrFailures).toBeGreaterThan(10);
  });
}
