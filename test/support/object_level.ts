/**
 * A machine up to its object allocators: page level, slabs, per-CPU layer, kmalloc. Real page allocator underneath.
 */

import { expect } from "vitest";
import { CACHE_LINE } from "../../kernel/params.ts";
import type { SlabPages } from "../../mm/slab_layer.ts";
import {
  createSlabSubsystem,
  type ObjectCacheKind,
  type SlabSubsystem,
  slabSubsystemStaticBytes,
} from "../../mm/slab_subsystem.ts";
import { bootPageLevel, type PageLevelMachine, type PageLevelOptions } from "./page_level.ts";

export interface ObjectLevelMachine extends PageLevelMachine {
  readonly slab: SlabSubsystem;
  /** Call number (from now, 1 = next) of a page allocation that fails; 0 = none. */
  failPageAllocation(nth: number): void;
  /** Shrinks everything and compares the free pages with those after init. */
  expectNoObjectLeak(): void;
}

export function bootObjectLevel(
  objectCache: ObjectCacheKind = "magazine",
  options: PageLevelOptions = {},
): ObjectLevelMachine {
  const m = bootPageLevel({ nrCpus: 3, ramBytes: 24 * 1024 * 1024, ...options });
  let untilFailure = 0;
  const fails = (): boolean => untilFailure > 0 && --untilFailure === 0;
  const pageAlloc: SlabPages = {
    tryAllocPages: (ctx, order, gfp) => (fails() ? (0 as never) : m.pageAlloc.tryAllocPages(ctx, order, gfp)),
    allocPagesAny: (ctx, order, gfp) => (fails() ? (0 as never) : m.pageAlloc.allocPagesAny(ctx, order, gfp)),
    freePages: m.pageAlloc.freePages,
  };
  const { machine, image, contexts, spinlocks, printk, pages, vmstat } = m;
  const statics = image.bss("slab", slabSubsystemStaticBytes(machine.config.nrCpus), CACHE_LINE);
  const slab = createSlabSubsystem({
    machine,
    contexts,
    spinlocks,
    printk,
    pages,
    pageAlloc,
    vmstat,
    statics,
    objectCache,
  });
  slab.init(m.ctx);
  slab.shrinkAll(m.ctx);
  m.pageAlloc.drainAllPages(m.ctx);
  const freeAfterInit = m.zones.totalFree();
  return {
    ...m,
    slab,
    failPageAllocation(nth) {
      untilFailure = nth;
    },
    expectNoObjectLeak() {
      untilFailure = 0;
      slab.shrinkAll(m.ctx);
      m.pageAlloc.drainAllPages(m.ctx);
      expect(slab.check()).toBeNull();
      expect(m.pageAlloc.check()).toBeNull();
      expect(m.zones.totalFree()).toBe(freeAfterInit);
    },
  };
}
