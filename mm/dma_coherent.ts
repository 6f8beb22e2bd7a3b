/**
 * Coherent memory: pages that CPU and device see alike, for descriptor rings and mailboxes (D1).
 *
 *   COH-1  CPU address and bus address are aligned to the smallest power-of-two number of pages that holds the size
 *   COH-2  the block is contiguous in RAM, below the device's coherent mask, and zero when handed out
 *   COH-3  a block is asked for in the highest zone that may do, and lower if the pages lie too high
 *   COH-4  it is not given back in interrupt context
 *
 * On a machine with a contiguous area, large blocks come from there, and may be larger than any block of the buddy.
 *
 * Atomic requests come from a pool first: 64 KiB of ZONE_DMA, reserved when the first device attaches, so that a driver
 * can have a little coherent memory in a handler even when ZONE_DMA is exhausted; after it from the page allocator's
 * reserve. The pool is a bitmap of pages; a run is aligned to its size.
 *
 * | statics | field    | meaning                                              |
 * |---------|----------|------------------------------------------------------|
 * | 0       | lock     | of the pool                                          |
 * | 4       | base     | physical address of the pool; 0 before there is one  |
 * | 8       | bitmap   | one bit per page, 1 while handed out                 |
 *
 * Different from Linux: there the pool serves devices that are not coherent, or memory that must be decrypted, and
 * grows by a work item. Source: kernel/dma/{direct,pool,mapping}.c, Documentation/core-api/dma-api.rst.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { bugOn } from "../kernel/bug.ts";
import { clearBit, setBit, testBit } from "../kernel/lib/bitmap.ts";
import { getOrder } from "../kernel/lib/bits.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import {
  asPhys,
  type Context,
  type DmaAddr,
  NO_PFN,
  type Pfn,
  type PhysAddr,
  pfnToPhys,
  physToPfn,
  type Sleeping,
  type TaskContext,
} from "../kernel/types.ts";
import { EINVAL } from "../kernel/uapi/errno.ts";
import type { DmaContiguous } from "./dma_contiguous.ts";
import type { DmaDevice } from "./dma_device.ts";
import { DMA_MAPPING_ERROR, type DmaMapOps } from "./dma_ops.ts";
import {
  __GFP_DMA,
  __GFP_DMA32,
  __GFP_HIGHMEM,
  __GFP_MOVABLE,
  __GFP_NOWARN,
  __GFP_ZERO,
  type AtomicGfp,
  type BlockingGfp,
  GFP_NOWAIT,
  type Gfp,
} from "./gfp.ts";
import { MAX_PAGE_ORDER } from "./mmzone.ts";
import type { PageAllocator } from "./page_alloc.ts";

/** Memory that a device shares: where the CPU finds it and where the device does. */
export interface DmaMemory {
  readonly cpu: PhysAddr;
  readonly dma: DmaAddr;
}

/** An allocation that sleeps if its mask does, and then takes the task that may. */
export interface DmaAllocate<Args extends readonly unknown[]> {
  (ctx: TaskContext, ...args: [...Args, gfp: BlockingGfp]): Sleeping<DmaMemory | null>;
  (ctx: Context, ...args: [...Args, gfp: AtomicGfp]): DmaMemory | null;
}

const POOL_ORDER = 4;
const POOL_PAGES = 1 << POOL_ORDER;
const LOCK = 0;
const BASE = 4;
const BITMAP = 8;
export const COHERENT_STATIC_BYTES = 16;

/** A caller's zone bits are ignored: the device decides. Coherent memory is never movable. */
const ZONE_BITS = __GFP_DMA | __GFP_DMA32 | __GFP_HIGHMEM | __GFP_MOVABLE;

export interface CoherentMemory {
  /** Reserves the pool for atomic requests, if memory allows. */
  ensurePool(ctx: Context): void;
  /** Gives the pool back if none of it is handed out: the last device is gone. */
  dropPool(ctx: Context): void;
  /** Contiguous pages for `bytes`, zeroed, on the bus; null if memory is short. May sleep. */
  alloc(ctx: TaskContext, ops: DmaMapOps, dev: DmaDevice, bytes: number, gfp: Gfp): Sleeping<DmaMemory | null>;
  /** The same without sleeping: any context. */
  allocAtomic(ctx: Context, ops: DmaMapOps, dev: DmaDevice, bytes: number, gfp: Gfp): DmaMemory | null;
  /** 0, or −EINVAL after the page allocator's report: not a block of this size. */
  free(ctx: TaskContext, ops: DmaMapOps, dev: DmaDevice, bytes: number, memory: DmaMemory): number;
  /** Pages of the pool that are handed out. */
  nrPoolUsed(): number;
  /** Pages of the pool, which stays once it is made: 0 before. */
  nrPoolPages(): number;
}

export interface CoherentDeps {
  readonly machine: Machine;
  readonly spinlocks: Spinlocks;
  readonly pageAlloc: PageAllocator;
  /** Large blocks; dma_contiguous.ts. */
  readonly contiguous: DmaContiguous;
  /** COHERENT_STATIC_BYTES of zeroed static memory. */
  readonly statics: PhysAddr;
}

export function createCoherentMemory(deps: CoherentDeps): CoherentMemory {
  const { machine, spinlocks, pageAlloc, contiguous, statics } = deps;
  const { port } = machine;
  const lock = asPhys(statics + LOCK);
  const poolBase = (): number => port.ld32(statics + BASE);

  /** Whether a block of that size exists at all. */
  const isSize = (bytes: number): boolean =>
    Number.isInteger(bytes) && bytes > 0 && bytes <= PAGE_SIZE * 2 ** MAX_PAGE_ORDER;

  /** COH-1, COH-2: puts pages on the bus; null after giving them back if the device cannot reach them. */
  const publish = (ctx: Context, ops: DmaMapOps, dev: DmaDevice, pfn: Pfn, bytes: number): DmaMemory | null => {
    const order = getOrder(bytes);
    const cpu = pfnToPhys(pfn);
    const dma = ops.mapCoherent(ctx, dev, cpu, PAGE_SIZE * 2 ** order);
    if (dma === DMA_MAPPING_ERROR) {
      pageAlloc.freePages(ctx, pfn, order);
      return null;
    }
    bugOn(cpu % (PAGE_SIZE * 2 ** order) !== 0, "COH-1: CPU address is not aligned", cpu, order);
    bugOn(dma % (PAGE_SIZE * 2 ** order) !== 0, "COH-1: bus address is not aligned", dma, order);
    return { cpu, dma };
  };

  // ── Pool for atomic requests ─────────────────────────────────────────────────────────────────────────────────────

  const isRunFree = (first: number, nrPages: number): boolean => {
    for (let i = first; i < first + nrPages; i++) if (testBit(port, statics + BITMAP, i)) return false;
    return true;
  };

  const takeFromPool = (ctx: Context, order: number): PhysAddr => {
    const nrPages = 1 << order;
    if (poolBase() === 0) return asPhys(0);
    const flags = spinlocks.spinLockIrqsave(ctx, lock);
    let first = 0;
    while (first < POOL_PAGES && !(first + nrPages <= POOL_PAGES && isRunFree(first, nrPages))) first += nrPages;
    const isFound = first < POOL_PAGES;
    for (let i = first; isFound && i < first + nrPages; i++) setBit(port, statics + BITMAP, i);
    spinlocks.spinUnlockIrqrestore(ctx, lock, flags);
    return asPhys(isFound ? poolBase() + first * PAGE_SIZE : 0);
  };

  const isInPool = (cpu: PhysAddr): boolean =>
    poolBase() !== 0 && cpu >= poolBase() && cpu < poolBase() + POOL_PAGES * PAGE_SIZE;

  const giveToPool = (ctx: Context, cpu: PhysAddr, order: number): number => {
    const first = (cpu - poolBase()) / PAGE_SIZE;
    if (!Number.isInteger(first) || first % (1 << order) !== 0) return -EINVAL;
    const flags = spinlocks.spinLockIrqsave(ctx, lock);
    let isTaken = true;
    for (let i = first; i < first + (1 << order); i++) isTaken &&= testBit(port, statics + BITMAP, i);
    for (let i = first; isTaken && i < first + (1 << order); i++) clearBit(port, statics + BITMAP, i);
    spinlocks.spinUnlockIrqrestore(ctx, lock, flags);
    return isTaken ? 0 : -EINVAL;
  };

  function* alloc(
    ctx: TaskContext,
    ops: DmaMapOps,
    dev: DmaDevice,
    bytes: number,
    gfp: Gfp,
  ): Sleeping<DmaMemory | null> {
    const large = Number.isInteger(bytes) && bytes > 0 ? contiguous.alloc(ctx, ops, dev, bytes) : null;
    if (large !== null || !isSize(bytes)) return large;
    for (const zone of ops.coherentZones(dev)) {
      const got = pageAlloc.allocPagesAny(ctx, getOrder(bytes), (gfp & ~ZONE_BITS) | __GFP_ZERO | zone);
      const pfn = typeof got === "object" ? yield* got : got;
      if (pfn === NO_PFN) return null;
      const memory = publish(ctx, ops, dev, pfn, bytes);
      if (memory !== null) return memory;
    }
    return null;
  }

  const allocFromPages = (ctx: Context, ops: DmaMapOps, dev: DmaDevice, bytes: number, gfp: Gfp): DmaMemory | null => {
    for (const zone of ops.coherentZones(dev)) {
      const pfn = pageAlloc.allocPagesAny(ctx, getOrder(bytes), (gfp & ~ZONE_BITS) | __GFP_ZERO | zone) as Pfn;
      if (pfn === NO_PFN) return null;
      const memory = publish(ctx, ops, dev, pfn, bytes);
      if (memory !== null) return memory;
    }
    return null;
  };

  return {
    ensurePool(ctx) {
      if (poolBase() !== 0) return;
      const pfn = pageAlloc.tryAllocPages(ctx, POOL_ORDER, GFP_NOWAIT | __GFP_NOWARN | __GFP_DMA);
      if (pfn !== NO_PFN) port.st32(statics + BASE, pfnToPhys(pfn));
    },
    dropPool(ctx) {
      if (poolBase() === 0 || port.ld32(statics + BITMAP) !== 0) return;
      pageAlloc.freePages(ctx, physToPfn(asPhys(poolBase())), POOL_ORDER);
      port.st32(statics + BASE, 0);
    },
    alloc,
    allocAtomic(ctx, ops, dev, bytes, gfp) {
      if (!isSize(bytes)) return null;
      const order = getOrder(bytes);
      const cpu = takeFromPool(ctx, order);
      if (cpu === 0) return allocFromPages(ctx, ops, dev, bytes, gfp);
      const dma = ops.mapCoherent(ctx, dev, cpu, PAGE_SIZE * 2 ** order);
      if (dma === DMA_MAPPING_ERROR) {
        giveToPool(ctx, cpu, order);
        return null;
      }
      port.fill(cpu, 0, PAGE_SIZE * 2 ** order);
      return { cpu, dma };
    },
    free(ctx, ops, dev, bytes, { cpu, dma }) {
      if (contiguous.owns(cpu)) return contiguous.free(ctx, ops, dev, bytes, { cpu, dma });
      if (!isSize(bytes)) return -EINVAL;
      const order = getOrder(bytes);
      const result = isInPool(cpu) ? giveToPool(ctx, cpu, order) : pageAlloc.freePages(ctx, physToPfn(cpu), order);
      if (result === 0) ops.unmapCoherent(ctx, dev, dma, PAGE_SIZE * 2 ** order);
      return result;
    },
    nrPoolPages: () => (poolBase() === 0 ? 0 : POOL_PAGES),
    nrPoolUsed() {
      let nr = 0;
      for (let i = 0; i < POOL_PAGES; i++) if (testBit(port, statics + BITMAP, i)) nr++;
      return nr;
    },
  };
}
