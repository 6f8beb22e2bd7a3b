/**
 * Alignment, contiguity and zone of every block, in random programs over all allocators at once.
 *
 * Goal: S2, B2, W6, PGA-1, KMA-1, KMA-2, SLAB-1 hold for each single allocation. Method: the observer of
 * test/support/promises.ts around kmalloc, caches and pages, on machines with and without a Normal and a Movable zone;
 * and observers with a planted fault, which must notice it.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Pfn, PhysAddr } from "../../kernel/types.ts";
import {
  __GFP_DMA,
  __GFP_DMA32,
  __GFP_NOWARN,
  __GFP_RECLAIMABLE,
  GFP_ATOMIC,
  GFP_HIGHUSER_MOVABLE,
  GFP_KERNEL,
} from "../../mm/gfp.ts";
import { bootObjectLevel } from "../support/object_level.ts";
import type { PageLevelOptions } from "../support/page_level.ts";
import { watchPromises } from "../support/promises.ts";

const MIB = 1024 * 1024;
const MACHINES: Readonly<Record<string, PageLevelOptions>> = {
  "two zones": { ramBytes: 20 * MIB },
  "four zones": { ramBytes: 40 * MIB, dma32LimitBytes: 24 * MIB, movableBytes: 8 * MIB },
};
const SIZES = [1, 7, 8, 24, 64, 96, 100, 192, 500, 1024, 3000, 4096, 5000, 8192, 8193, 20_000, 65_536];
const ZONES = [0, 0, 0, __GFP_DMA, __GFP_DMA32];
const step = fc.tuple(fc.nat(2), fc.nat(9), fc.nat(16), fc.nat(4));

for (const [name, options] of Object.entries(MACHINES)) {
  it(`S2 B2 W6 PGA-1 on a machine with ${name}`, () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 120 }), (steps) => {
        const m = bootObjectLevel("magazine", options);
        const watch = watchPromises(m);
        const aligns = [8, 16, 64, 256, 4096];
        const caches = aligns.map((align) =>
          m.slab.kmemCacheCreate(m.ctx, { name: `aligned-${align}`, size: 72, align, flags: 0 }),
        );
        const frees: (() => void)[] = [];
        for (const [cpu, action, what, zone] of steps) {
          const ctx = m.contexts.taskContext(cpu);
          const mask = GFP_ATOMIC | __GFP_NOWARN | (ZONES[zone] as number);
          if (action < 4) {
            const extra = what % 3 === 0 ? __GFP_RECLAIMABLE : 0;
            const addr = watch.kmalloc(ctx, SIZES[what] as number, mask | extra);
            if (addr !== 0) frees.push(() => watch.kfree(m.ctx, addr));
          } else if (action < 6) {
            const cache = caches[what % aligns.length] as (typeof caches)[number];
            const addr: PhysAddr = watch.cacheAlloc(ctx, cache, GFP_ATOMIC | __GFP_NOWARN);
            if (addr !== 0) frees.push(() => watch.cacheFree(ctx, cache, addr));
          } else if (action < 8) {
            const order = what % 11;
            const gfp = what % 2 === 0 ? GFP_HIGHUSER_MOVABLE : GFP_KERNEL | (ZONES[zone] as number);
            const pfn: Pfn = watch.pages(ctx, order, gfp | __GFP_NOWARN);
            if (pfn !== 0) frees.push(() => watch.freePages(ctx, pfn, order));
          } else if (frees.length > 0) frees.splice((what * 7) % frees.length, 1)[0]?.();
        }
        for (const free of frees) free();
        expect(watch.nrLive()).toBe(0);
        for (const cache of caches) expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(0);
        m.expectNoObjectLeak();
      }),
      { numRuns: 10 },
    );
  });
}

describe("the observer notices", () => {
  const boot = (shift: (addr: number) => number) => {
    const m = bootObjectLevel("magazine", MACHINES["two zones"]);
    return { m, watch: watchPromises(m, shift) };
  };

  it("kmalloc that is off by eight", () => {
    const { m, watch } = boot((addr) => addr + 8);
    expect(() => watch.kmalloc(m.ctx, 64, GFP_ATOMIC)).toThrow("S2");
  });
  it("an object that is off by its size's half", () => {
    const { m, watch } = boot((addr) => addr + 32);
    const cache = m.slab.kmemCacheCreate(m.ctx, { name: "c", size: 64, align: 64, flags: 0 });
    expect(() => watch.cacheAlloc(m.ctx, cache, GFP_ATOMIC)).toThrow("SLAB-1");
  });
  it("pages that start in the middle of a block", () => {
    const { m, watch } = boot((addr) => addr + 4096);
    expect(() => watch.pages(m.ctx, 2, GFP_KERNEL)).toThrow("B2");
  });
  it("a block handed out twice", () => {
    let first = 0;
    const { m, watch } = boot((addr) => {
      first = first === 0 ? addr : first;
      return first;
    });
    watch.kmalloc(m.ctx, 64, GFP_ATOMIC);
    expect(() => watch.kmalloc(m.ctx, 64, GFP_ATOMIC)).toThrow("KMA-1");
  });
  it("GFP_DMA served from above 16 MiB", () => {
    const { m, watch } = boot((addr) => addr + 16 * MIB);
    expect(() => watch.kmalloc(m.ctx, 64, GFP_ATOMIC | __GFP_DMA)).toThrow("PGA-1");
  });
});
