/**
 * The kernel as one module sees it: the same services, each thing taken noted in the module's ledger.
 *
 * The view has the types of the real services; a driver does not notice. What fails on order (StepCounter) fails as the
 * service itself would: NULL, −ENOMEM, a mapping error.
 */

import type { Irqs } from "../kernel/irq.ts";
import { type Context, type MaySleep, NULL, type PhysAddr, type Sleeping } from "../kernel/types.ts";
import { ENOMEM } from "../kernel/uapi/errno.ts";
import type { Gfp, KmemCache, SlabSubsystem } from "../mm/index.ts";
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

/** The platform of a module. */
export function createModuleView(platform: Platform, ledger: DriverLedger): Platform {
  return {
    ...platform,
    slab: viewOfSlab(platform.slab, ledger),
    irqs: viewOfIrqs(platform.irqs, ledger),
  };
}
