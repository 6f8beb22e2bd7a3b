/**
 * The kernel as one module sees it: the same services, each thing taken noted in the module's ledger.
 *
 * The view has the types of the real services; a driver does not notice. What fails on order (StepCounter) fails as the
 * service itself would: NULL, −ENOMEM, a mapping error.
 */

import type { Irqs } from "../kernel/irq.ts";
import type { KfreeRcu } from "../kernel/kfree_rcu.ts";
import { type Context, type MaySleep, NULL, type PhysAddr, type Sleeping } from "../kernel/types.ts";
import { ENOMEM } from "../kernel/uapi/errno.ts";
import {
  DMA_MAPPING_ERROR,
  type Dma,
  type DmaMemory,
  type Gfp,
  gfpAllowsBlocking,
  type KmemCache,
  NO_DEVICE,
  NO_POOL,
  type SlabSubsystem,
} from "../mm/index.ts";
import type { Platform } from "./driver.ts";
import type { DriverLedger } from "./driver_ledger.ts";

/** Passes a result that may have to be slept for on to `note`. */
function noted<T extends number>(result: MaySleep<T>, note: (value: T) => void): MaySleep<T> {
  if (typeof result === "object") return notedLater(result, note);
  note(result);
  return result;
}
function* notedLater<T extends number>(rest: Sleeping<T>, note: (value: T) => void): Sleeping<T> {
  const value = yield* rest;
  note(value);
  return value;
}

function viewOfSlab(slab: SlabSubsystem, ledger: DriverLedger): SlabSubsystem {
  const { kmalloc, layer } = slab;
  type Alloc = (ctx: Context, size: number, gfp: Gfp) => MaySleep<PhysAddr>;
  const allocWith =
    (alloc: Alloc): Alloc =>
    (ctx, size, gfp) => {
      if (ledger.steps.fails()) return NULL;
      return noted(alloc(ctx, size, gfp), (addr) => {
        if (addr !== NULL) ledger.take("kmalloc", addr, size);
      });
    };
  const objectWith =
    (alloc: (ctx: Context, cache: KmemCache, gfp: Gfp) => MaySleep<PhysAddr>) =>
    (ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<PhysAddr> => {
      if (ledger.steps.fails()) return NULL;
      return noted(alloc(ctx, cache, gfp), (addr) => {
        if (addr !== NULL) ledger.take("object", addr, slab.slabInfo(cache).objectSize);
      });
    };
  return {
    ...slab,
    kmalloc: {
      ...kmalloc,
      kmalloc: allocWith(kmalloc.kmalloc as Alloc) as typeof kmalloc.kmalloc,
      kzalloc: allocWith(kmalloc.kzalloc as Alloc) as typeof kmalloc.kzalloc,
      kmallocAny: allocWith(kmalloc.kmallocAny),
      kfree(ctx, addr) {
        ledger.give("kmalloc", addr);
        ledger.give("object", addr);
        return kmalloc.kfree(ctx, addr);
      },
    },
    layer: {
      ...layer,
      kmemCacheAlloc: objectWith(layer.kmemCacheAllocAny) as typeof layer.kmemCacheAlloc,
      kmemCacheAllocAny: objectWith(layer.kmemCacheAllocAny),
      kmemCacheFree(ctx, cache, obj) {
        ledger.give("object", obj);
        return layer.kmemCacheFree(ctx, cache, obj);
      },
    },
    kmemCacheCreate(ctx, params) {
      if (ledger.steps.fails()) return 0 as KmemCache;
      const cache = slab.kmemCacheCreate(ctx, params);
      if (cache !== 0) ledger.take("cache", cache, 0);
      return cache;
    },
    kmemCacheDestroy(ctx, cache) {
      const result = slab.kmemCacheDestroy(ctx, cache);
      if (result === 0) ledger.give("cache", cache);
      return result;
    },
  };
}

function viewOfIrqs(irqs: Irqs, ledger: DriverLedger): Irqs {
  return {
    ...irqs,
    requestIrq(line, action) {
      if (ledger.steps.fails()) return -ENOMEM;
      const result = irqs.requestIrq(line, action);
      if (result === 0) ledger.take("irq", action, 0);
      return result;
    },
    freeIrq(line, action) {
      ledger.give("irq", action);
      irqs.freeIrq(line, action);
    },
  };
}

function viewOfDma(dma: Dma, ledger: DriverLedger): Dma {
  type Allocate = (ctx: Context, ...rest: unknown[]) => Sleeping<DmaMemory | null> | DmaMemory | null;
  const allocWith =
    (kind: string, alloc: Allocate, bytesOf: (rest: readonly unknown[]) => number): Allocate =>
    (ctx, ...rest) => {
      const note = (memory: DmaMemory | null): DmaMemory | null => {
        if (memory !== null) ledger.take(kind, memory.cpu, bytesOf(rest));
        return memory;
      };
      const fails = ledger.steps.fails();
      const gfp = rest.at(-1) as Gfp;
      if (fails) return gfpAllowsBlocking(gfp) ? nothing() : null;
      const result = alloc(ctx, ...rest);
      return isGenerator(result) ? laterMemory(result, note) : note(result);
    };
  const second = (rest: readonly unknown[]): number => rest[1] as number;
  return {
    ...dma,
    createDevice(ctx, spec) {
      const dev = ledger.steps.fails() ? NO_DEVICE : dma.createDevice(ctx, spec);
      if (dev !== NO_DEVICE) ledger.take("dma device", dev, 0);
      return dev;
    },
    releaseDevice(ctx, dev) {
      ledger.give("dma device", dev);
      dma.releaseDevice(ctx, dev);
    },
    allocCoherent: allocWith("coherent", dma.allocCoherent as Allocate, second) as Dma["allocCoherent"],
    freeCoherent(ctx, dev, bytes, cpu, handle) {
      ledger.give("coherent", cpu);
      dma.freeCoherent(ctx, dev, bytes, cpu, handle);
    },
    allocPages: allocWith("dma pages", dma.allocPages as Allocate, second) as Dma["allocPages"],
    freePages(ctx, dev, bytes, memory, direction) {
      ledger.give("dma pages", memory.cpu);
      dma.freePages(ctx, dev, bytes, memory, direction);
    },
    mapSingle(ctx, dev, addr, bytes, direction) {
      if (ledger.steps.fails()) return DMA_MAPPING_ERROR;
      const handle = dma.mapSingle(ctx, dev, addr, bytes, direction);
      // Not by mappingError(): that is the driver's duty, and dma-debug sees whether it does it.
      if (handle !== DMA_MAPPING_ERROR) ledger.take("mapping", handle, 0);
      return handle;
    },
    unmapSingle(ctx, dev, handle, bytes, direction) {
      ledger.give("mapping", handle);
      dma.unmapSingle(ctx, dev, handle, bytes, direction);
    },
    mapSg(ctx, dev, sgl, nents, direction) {
      const nr = ledger.steps.fails() ? 0 : dma.mapSg(ctx, dev, sgl, nents, direction);
      if (nr > 0) ledger.take("scatterlist", sgl, 0);
      return nr;
    },
    unmapSg(ctx, dev, sgl, nents, direction) {
      ledger.give("scatterlist", sgl);
      dma.unmapSg(ctx, dev, sgl, nents, direction);
    },
    poolCreate(ctx, name, dev, size, align, boundary) {
      const pool = ledger.steps.fails() ? NO_POOL : dma.poolCreate(ctx, name, dev, size, align, boundary);
      if (pool !== NO_POOL) ledger.take("dma pool", pool, 0);
      return pool;
    },
    poolDestroy(ctx, pool) {
      ledger.give("dma pool", pool);
      dma.poolDestroy(ctx, pool);
    },
    poolAlloc: allocWith("pool block", dma.poolAlloc as Allocate, () => 0) as Dma["poolAlloc"],
    poolFree(ctx, pool, cpu, handle) {
      ledger.give("pool block", cpu);
      dma.poolFree(ctx, pool, cpu, handle);
    },
  };
}

const isGenerator = (result: Sleeping<DmaMemory | null> | DmaMemory | null): result is Sleeping<DmaMemory | null> =>
  result !== null && "next" in result;

function* laterMemory(
  rest: Sleeping<DmaMemory | null>,
  note: (memory: DmaMemory | null) => DmaMemory | null,
): Sleeping<DmaMemory | null> {
  return note(yield* rest);
}

function* nothing(): Sleeping<DmaMemory | null> {
  return null;
}

/** The platform of a module. */
/** What is given to kfreeRcu is the module's no longer: RCU frees it. */
function viewOfKfreeRcu(kfreeRcu: KfreeRcu, ledger: DriverLedger): KfreeRcu {
  return {
    ...kfreeRcu,
    kfreeRcu(ctx, obj, headOffset) {
      ledger.give("kmalloc", obj);
      ledger.give("object", obj);
      kfreeRcu.kfreeRcu(ctx, obj, headOffset);
    },
  };
}

export function createModuleView(platform: Platform, ledger: DriverLedger): Platform {
  return {
    ...platform,
    slab: viewOfSlab(platform.slab, ledger),
    irqs: viewOfIrqs(platform.irqs, ledger),
    dma: viewOfDma(platform.dma, ledger),
    kfreeRcu: viewOfKfreeRcu(platform.kfreeRcu, ledger),
  };
}
