/**
 * DMA when memory fails, and when an interrupt comes at the worst moment.
 *
 * Goal: DMA-2, DEV-2, OPS-4, OPS-5. Method: a driver's whole life (probe, traffic, remove) with its n-th page
 * allocation failing, for every n, once and for ever: it must unwind to nothing. Then an interrupt before every single
 * access of map and unmap, whose handler maps, moves and unmaps itself.
 */

import { describe, expect, it } from "vitest";
import { InjectPort } from "../../kernel/arch/inject_port.ts";
import { HARDIRQ_OFFSET } from "../../kernel/context.ts";
import { asPhys } from "../../kernel/types.ts";
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from "../../mm/dma_ops.ts";
import { NO_POOL } from "../../mm/dma_pool.ts";
import { GFP_ATOMIC, GFP_KERNEL } from "../../mm/gfp.ts";
import { coherent, createDmaWorld, type DmaWorld, finishSleeping } from "../support/dma_world.ts";

interface Backend {
  readonly name: string;
  readonly isIommu: boolean;
  readonly maskBits: number;
}
const BACKENDS: readonly Backend[] = [
  { name: "direct", isIommu: false, maskBits: 32 },
  { name: "bounce buffers", isIommu: false, maskBits: 24 },
  { name: "IOMMU", isIommu: true, maskBits: 24 },
];

/** One driver from probe to remove; whatever fails, it undoes what it did. True if everything worked. */
function driverLife(w: DmaWorld, { maskBits }: Backend): boolean {
  const { dma, ctx } = w;
  const undo: (() => void)[] = [];
  const unwind = (result: boolean): boolean => {
    for (const step of undo.reverse()) step();
    return result;
  };
  const { dev, master } = w.device({ maskBits });
  if (dev === 0) return false;
  undo.push(() => dma.releaseDevice(ctx, dev));
  const ring = coherent(w, dev, 10_000);
  if (ring === null) return unwind(false);
  undo.push(() => dma.freeCoherent(ctx, dev, 10_000, ring.cpu, ring.dma));
  const pool = dma.poolCreate(ctx, "cmds", dev, 128, 64, 4096);
  if (pool === NO_POOL) return unwind(false);
  undo.push(() => dma.poolDestroy(ctx, pool));
  const command = finishSleeping(dma.poolAlloc(ctx, pool, GFP_KERNEL));
  if (command === null) return unwind(false);
  undo.push(() => dma.poolFree(ctx, pool, command.cpu, command.dma));
  const pages = dma.allocPages(ctx, dev, 5000, DMA_BIDIRECTIONAL, GFP_ATOMIC);
  if (pages === null) return unwind(false);
  undo.push(() => dma.freePages(ctx, dev, 5000, pages, DMA_BIDIRECTIONAL));
  const buffer = w.highPages(3);
  undo.push(() => w.freePages(buffer, 3));
  const mapping = dma.mapSingle(ctx, dev, buffer, 5000, DMA_FROM_DEVICE);
  if (dma.mappingError(dev, mapping)) return unwind(false);
  undo.push(() => dma.unmapSingle(ctx, dev, mapping, 5000, DMA_FROM_DEVICE));
  const sgl = ring.cpu;
  for (let i = 0; i < 3; i++) dma.sgSet(sgl, i, asPhys(buffer + 8192 + i * 8192), 4096);
  if (dma.mapSg(ctx, dev, sgl, 3, DMA_TO_DEVICE) === 0) return unwind(false);
  undo.push(() => dma.unmapSg(ctx, dev, sgl, 3, DMA_TO_DEVICE));
  expect(master.write(mapping, new Uint8Array(5000))).toBe(true);
  return unwind(true);
}

describe.each(BACKENDS)("N-th allocation fails: $name", (backend) => {
  it.each([false, true])("DMA-2 nothing leaks, no window stays (for ever: %s)", (isForever) => {
    const w = createDmaWorld({ nrCpus: 1, ramBytes: 24 << 20, isIommu: backend.isIommu });
    let nrFailed = 0;
    for (let n = 1; n < 100; n++) {
      w.slab.shrinkAll(w.ctx);
      w.takeLog();
      w.failPages(n, isForever);
      const isDone = driverLife(w, backend);
      const nrCalls = w.nrPageCalls();
      w.failPages(0);
      expect([w.dma.nrLive(), w.dma.check(), w.system.swiotlb.used()]).toEqual([0, null, 0]);
      expect(w.machine.dmaBus.nrFaults()).toBe(0);
      const log = w.takeLog();
      expect(log).not.toMatch(/DMA-API: \w+ \w+:|BUG/);
      w.expectNoObjectLeak();
      if (!isDone) nrFailed++;
      if (nrCalls < n) {
        expect(isDone).toBe(true);
        expect(nrFailed).toBeGreaterThan(0);
        return;
      }
    }
    throw new Error("the driver never came to its end");
  });
});

describe.each(BACKENDS)("an interrupt before every access: $name", (backend) => {
  it("OPS-5 map, sync and unmap, interrupted by a handler that does the same", () => {
    const w = createDmaWorld({ nrCpus: 1, ramBytes: 24 << 20, isIommu: backend.isIommu, port: "inject" });
    const port = w.machine.port as InjectPort;
    expect(port).toBeInstanceOf(InjectPort);
    const { dev, master } = w.device({ maskBits: backend.maskBits });
    const [mine, theirs] = [w.highPages(0), w.highPages(0)];
    const content = w.fill(mine, 3000, 1);

    const handler = (): void => {
      w.contexts.add(w.irq, HARDIRQ_OFFSET);
      const dma = w.dma.mapSingle(w.irq, dev, theirs, 3000, DMA_FROM_DEVICE);
      expect(w.dma.mappingError(dev, dma)).toBe(false);
      expect(master.write(dma, new Uint8Array(3000).fill(0x5a))).toBe(true);
      w.dma.unmapSingle(w.irq, dev, dma, 3000, DMA_FROM_DEVICE);
      w.contexts.subtract(w.irq, HARDIRQ_OFFSET);
    };
    const scenario = (): void => {
      const dma = w.dma.mapSingle(w.ctx, dev, mine, 3000, DMA_BIDIRECTIONAL);
      expect(w.dma.mappingError(dev, dma)).toBe(false);
      expect(master.read(dma, 3000)).toEqual(content);
      w.dma.syncSingleForCpu(w.ctx, dev, dma, 3000, DMA_BIDIRECTIONAL);
      w.dma.syncSingleForDevice(w.ctx, dev, dma, 3000, DMA_BIDIRECTIONAL);
      w.dma.unmapSingle(w.ctx, dev, dma, 3000, DMA_BIDIRECTIONAL);
    };

    /** Runs the scenario; before the n-th access at which an interrupt could come, it does. Number of such accesses. */
    const interruptAt = (point: number): number => {
      let nrOpen = 0;
      port.setHook(() => {
        if (!w.contexts.irqsDisabled(w.ctx) && nrOpen++ === point) handler();
      });
      scenario();
      port.setHook(undefined);
      return nrOpen;
    };

    // Once dry, so that magazines and tables are warm.
    scenario();
    const nrPoints = interruptAt(-1);
    for (let point = 0; point < nrPoints; point++) {
      expect(interruptAt(point)).toBeGreaterThan(point);
      expect([w.dma.nrLive(), w.system.swiotlb.used(), w.dma.check()]).toEqual([0, 0, null]);
      expect(w.bytes(mine, 3000)).toEqual(content);
    }
    expect(nrPoints).toBeGreaterThan(10);
    expect(w.bytes(theirs, 3000)).toEqual(new Uint8Array(3000).fill(0x5a));
    expect(w.takeLog()).not.toContain("DMA-API:");
  });
});
