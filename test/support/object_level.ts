/**
 * A machine up to its object allocators: page level, slabs, per-CPU layer, kmalloc. Real page allocator underneath.
 */

import { expect } from "vitest";
import { CACHE_LINE } from "../../kernel/params.ts";
import { NO_PFN, NULL } from "../../kernel/types.ts";
import type { DepotKind } from "../../mm/depot.ts";
import type { PageAllocator } from "../../mm/page_alloc.ts";
import {
  createSlabSubsystem,
  type ObjectCacheKind,
  type SlabSubsystem,
  slabSubsystemStaticBytes,
} from "../../mm/slab_subsystem.ts";
import { bootPageLevel, type PageLevelMachine, type PageLevelOptions } from "./page_level.ts";

export interface ObjectLevelMachine extends PageLevelMachine {
  readonly slab: SlabSubsystem;
  /** Call number (from now, 1 = next) of a page allocation that fails, once or from then on; 0 = none. */
  failPageAllocation(nth: number, isPersistent?: boolean): void;
  /** Masks of all page allocations so far, failed ones too; a test may empty it. */
  readonly pageMasks: number[];
  /** The page allocator as the slabs see it: fails when told to. */
  readonly failingPages: FailingPages;
  /** Shrinks everything and compares the free pages with those after init. */
  expectNoObjectLeak(): void;
}

export type FailingPages = Pick<PageAllocator, "allocPagesAny" | "tryAllocPages" | "freePages" | "getFreePages">;

/** What a test may plant a mistake in, as the slabs and magazines see it. */
export type MutableParts = Pick<PageLevelMachine, "contexts" | "spinlocks">;

export function bootObjectLevel(
  objectCache: ObjectCacheKind = "magazine",
  options: PageLevelOptions & {
    readonly depot?: DepotKind;
    readonly mutate?: (parts: MutableParts) => MutableParts;
  } = {},
): ObjectLevelMachine {
  const { mutate, depot, ...pageOptions } = options;
  const { autoInit } = options;
  const m = bootPageLevel({ nrCpus: 3, ramBytes: 24 * 1024 * 1024, ...pageOptions });
  let untilFailure = 0;
  let staysBroken = false;
  const fails = (): boolean => {
    if (untilFailure === 0) return false;
    if (untilFailure > 1) {
      untilFailure--;
      return false;
    }
    if (!staysBroken) untilFailure = 0;
    return true;
  };
  const pageMasks: number[] = [];
  const refuses = (gfp: number): boolean => {
    pageMasks.push(gfp);
    return fails();
  };
  const pageAlloc: FailingPages = {
    tryAllocPages: (ctx, order, gfp) => (refuses(gfp) ? NO_PFN : m.pageAlloc.tryAllocPages(ctx, order, gfp)),
    allocPagesAny: (ctx, order, gfp) => (refuses(gfp) ? NO_PFN : m.pageAlloc.allocPagesAny(ctx, order, gfp)),
    getFreePages: (ctx, order, gfp) => (refuses(gfp) ? NULL : m.pageAlloc.getFreePages(ctx, order, gfp)),
    freePages: m.pageAlloc.freePages,
  };
  const { machine, image, printk, pages, vmstat } = m;
  const { contexts, spinlocks } = mutate?.(m) ?? m;
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
    depot: depot ?? "locked",
    autoInit,
  });
  m.pageAlloc.onPressure(slab.reapForPages);
  slab.init(m.ctx);
  slab.shrinkAll(m.ctx);
  m.pageAlloc.drainAllPages(m.ctx);
  const freeAfterInit = m.zones.totalFree();
  return {
    ...m,
    slab,
    pageMasks,
    failingPages: pageAlloc,
    failPageAllocation(nth, isPersistent = false) {
      untilFailure = nth;
      staysBroken = isPersistent;
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
