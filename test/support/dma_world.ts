/**
 * A machine with DMA: everything up to kmalloc, the DMA subsystem over it, and helpers that play driver and device.
 *
 * Real bus, real page allocator, real slabs. `failPageAllocation(n)` makes the n-th page allocation from now fail,
 * whoever asks. `expectQuiet` fails if anything was printed that a driver's mistake would cause.
 */

import { expect } from "vitest";
import type { BusMaster } from "../../kernel/arch/dma_bus.ts";
import { asPhys, type IrqContext, type PhysAddr, type Sleeping } from "../../kernel/types.ts";
import { CMA_BYTES, type Cma, createCma } from "../../mm/cma.ts";
import type { Dma } from "../../mm/dma.ts";
import type { DmaMemory } from "../../mm/dma_coherent.ts";
import type { DmaDevice } from "../../mm/dma_device.ts";
import type { DmaDeviceSpec } from "../../mm/dma_devices.ts";
import { createDmaSubsystem, DMA_STATIC_BYTES, type DmaSubsystem } from "../../mm/dma_subsystem.ts";
import { __GFP_DMA, GFP_KERNEL } from "../../mm/gfp.ts";
import type { PageAllocator } from "../../mm/page_alloc.ts";
import { bootObjectLevel, type ObjectLevelMachine } from "./object_level.ts";
import type { PageLevelOptions } from "./page_level.ts";

export interface DmaWorldOptions extends PageLevelOptions {
  readonly swiotlbBytes?: number;
  readonly isDebug?: boolean;
  readonly isIommu?: boolean;
}

export interface DmaWorld extends Omit<ObjectLevelMachine, "failPageAllocation"> {
  readonly system: DmaSubsystem;
  readonly cma: Cma;
  readonly dma: Dma;
  readonly irq: IrqContext;
  /** A bus master and its struct device. */
  device(spec?: Partial<DmaDeviceSpec>): { readonly dev: DmaDevice; readonly master: BusMaster };
  /** `bytes` of memory above ZONE_DMA (a device of 24 bits cannot reach it). */
  highPages(order: number): PhysAddr;
  /** Memory that every device reaches. */
  lowPages(order: number): PhysAddr;
  freePages(addr: PhysAddr, order: number): void;
  fill(addr: PhysAddr, bytes: number, seed: number): Uint8Array;
  bytes(addr: PhysAddr, bytes: number): Uint8Array;
  /** The n-th page allocation from now on (1 = next), and every one after it if `forever`, fails. 0: none. */
  failPages(nth: number, forever?: boolean): void;
  /** The same for the pages that slabs ask for: kmalloc fails when its caches are empty. */
  failSlabPages(nth: number, forever?: boolean): void;
  /** Page allocations since the last failPages. */
  nrPageCalls(): number;
  /** Log since the last call. */
  takeLog(): string;
}

/** Runs what sleeps to its end, as a scheduler would. */
export function finishSleeping<T>(rest: Sleeping<T>): T {
  for (;;) {
    const step = rest.next();
    if (step.done === true) return step.value;
  }
}

export function createDmaWorld(options: DmaWorldOptions = {}): DmaWorld {
  const m = bootObjectLevel("magazine", { ramBytes: 32 * 1024 * 1024, ...options });
  const { machine, contexts, spinlocks, printk, image, ctx } = m;
  let [calls, failAt, isForever] = [0, 0, false];
  const fails = (): boolean => {
    calls++;
    return failAt !== 0 && (calls === failAt || (isForever && calls > failAt));
  };
  const pageAlloc: PageAllocator = {
    ...m.pageAlloc,
    tryAllocPages: (c, order, gfp) => (fails() ? (0 as never) : m.pageAlloc.tryAllocPages(c, order, gfp)),
    allocPagesAny: (c, order, gfp) => (fails() ? (0 as never) : m.pageAlloc.allocPagesAny(c, order, gfp)),
  };
  const cma = createCma({
    machine,
    contexts,
    spinlocks,
    printk,
    vmstat: m.vmstat,
    pageblocks: m.pageblocks,
    pageAlloc,
    area: m.cmaArea,
    state: image.bss("cma", CMA_BYTES, 8),
  });
  const system = createDmaSubsystem({
    machine,
    contexts,
    spinlocks,
    printk,
    pageAlloc,
    kmalloc: m.slab.kmalloc,
    cma,
    image,
    pages: m.pages,
    isDebug: options.isDebug ?? true,
    isIommu: options.isIommu ?? false,
    swiotlbBytes: options.swiotlbBytes ?? 0,
    statics: image.bss("dma", DMA_STATIC_BYTES, 8),
  });
  system.init(ctx);
  const { dma } = system;
  let seen = printk.nextSeq();
  let nrDevices = 0;
  const take = (order: number, gfp: number): PhysAddr => {
    const pfn = m.pageAlloc.tryAllocPages(ctx, order, gfp);
    expect(pfn).toBeGreaterThan(0);
    return asPhys(pfn * 4096);
  };
  return {
    ...m,
    system,
    cma,
    dma,
    irq: contexts.irqContext(0),
    device(spec = {}) {
      const master = spec.master ?? machine.dmaBus.attach(`dev${nrDevices++}`);
      const dev = dma.createDevice(ctx, { name: master.name, driver: "testdrv", master, ...spec });
      return { dev, master };
    },
    highPages: (order) => take(order, GFP_KERNEL),
    lowPages: (order) => take(order, GFP_KERNEL | __GFP_DMA),
    freePages(addr, order) {
      expect(m.pageAlloc.freePages(ctx, (addr / 4096) as never, order)).toBe(0);
    },
    fill(addr, bytes, seed) {
      const content = Uint8Array.from({ length: bytes }, (_, i) => (seed * 31 + i * 7) & 0xff);
      machine.port.writeBytes(addr, content);
      return content;
    },
    bytes: (addr, bytes) => machine.port.readBytes(addr, bytes),
    failPages(nth, forever = false) {
      [calls, failAt, isForever] = [0, nth, forever];
    },
    failSlabPages: m.failPageAllocation,
    nrPageCalls: () => calls,
    takeLog() {
      const lines = printk.records(seen).map((record) => record.text);
      seen = printk.nextSeq();
      return lines.join("\n");
    },
  };
}

/** allocCoherent that a test can call without a scheduler. */
export function coherent(w: DmaWorld, dev: DmaDevice, bytes: number, gfp = GFP_KERNEL): DmaMemory | null {
  return finishSleeping(w.dma.allocCoherent(w.ctx, dev, bytes, gfp));
}
