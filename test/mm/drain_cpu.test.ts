/**
 * Goal: what an offline CPU keeps in its magazines and page lists can be taken by another one, and nothing else is.
 * Method: a machine of three CPUs; CPU 1 works and stops, CPU 0 drains it; the auditors walk everything.
 */

import { describe, expect, it } from "vitest";
import { GFP_ATOMIC } from "../../mm/gfp.ts";
import { bootObjectLevel } from "../support/object_level.ts";

describe("drainCpu", () => {
  it("MAG-2 slab.drainCpu() empties one CPU's magazines and leaves the others alone", () => {
    const m = bootObjectLevel();
    const { slab } = m;
    const [ctx0, ctx1, ctx2] = [0, 1, 2].map((cpu) => m.contexts.taskContext(cpu));
    const cache = slab.kmemCacheCreate(m.ctx, { name: "drained", size: 100 });
    for (const ctx of [ctx1, ctx2]) {
      const objects = Array.from({ length: 20 }, () => slab.layer.kmemCacheAlloc(ctx as never, cache, GFP_ATOMIC));
      for (const obj of objects) slab.layer.kmemCacheFree(ctx as never, cache, obj);
    }
    const before = slab.layer.stats(cache).cached;
    const nrDrained = slab.drainCpu(ctx0 as never, 1);
    const after = slab.layer.stats(cache).cached;
    expect(nrDrained).toBeGreaterThan(0);
    expect(before - after).toBe(nrDrained);
    expect(after).toBeGreaterThan(0);
    expect(slab.check()).toBeNull();
    expect(slab.drainCpu(ctx0 as never, 1)).toBe(0);
    expect(slab.kmemCacheDestroy(m.ctx, cache)).toBe(0);
    m.expectNoObjectLeak();
  });

  it("is 0 for a CPU that has nothing, and without magazines", () => {
    const m = bootObjectLevel("passthrough");
    expect(m.slab.drainCpu(m.ctx, 1)).toBe(0);
    const cached = bootObjectLevel();
    cached.slab.shrinkAll(cached.ctx);
    expect(cached.slab.drainCpu(cached.ctx, 2)).toBe(0);
    cached.expectNoObjectLeak();
  });
});
