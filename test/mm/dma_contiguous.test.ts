/**
 * Coherent memory from the contiguous area.
 *
 * Goal: CON-1 … CON-3, D1 for large blocks. Method: the test is driver and device over a machine with an area; the
 * bus is the judge of what the device can reach.
 */

import { describe, expect, it } from "vitest";
import { GFP_ATOMIC, GFP_KERNEL } from "../../mm/gfp.ts";
import { createDmaWorld, finishSleeping } from "../support/dma_world.ts";

const MIB = 2 ** 20;

describe("coherent memory from the area", () => {
  it("CON-1 D1 a block beyond the buddy's largest: contiguous, zeroed, reachable from end to end, given back", () => {
    const w = createDmaWorld({ cmaBytes: 8 * MIB });
    const { dev, master } = w.device();
    const bytes = 6 * MIB - 100;
    const memory = finishSleeping(w.dma.allocCoherent(w.ctx, dev, bytes, GFP_KERNEL));
    if (memory === null) throw new Error("no memory");
    expect(w.cma.stats().nrUsed).toBe(1536);
    expect(memory.cpu % MIB).toBe(0);
    expect(w.machine.port.readBytes(memory.cpu, bytes).every((byte) => byte === 0)).toBe(true);
    w.machine.port.st32(memory.cpu + bytes - 4 - (bytes % 4), 0x1234_5678);
    expect(master.ld32(memory.dma + bytes - 4 - (bytes % 4))).toBe(0x1234_5678);
    expect(master.write(memory.dma, new Uint8Array(64).fill(7))).toBe(true);
    expect(w.machine.port.ld8(memory.cpu + 63)).toBe(7);
    expect(master.read(memory.dma + bytes - 1, 2)).toBeNull();
    w.dma.freeCoherent(w.ctx, dev, bytes, memory.cpu, memory.dma);
    expect(master.read(memory.dma, 1)).toBeNull();
    expect(w.cma.stats().nrUsed).toBe(0);
    expect(w.cma.check()).toBeNull();
    w.dma.releaseDevice(w.ctx, dev);
  });

  it("CON-2 is aligned to its size if it can be; small and atomic requests leave the area alone", () => {
    const w = createDmaWorld({ cmaBytes: 8 * MIB });
    const { dev } = w.device();
    const take = (bytes: number) => finishSleeping(w.dma.allocCoherent(w.ctx, dev, bytes, GFP_KERNEL));
    const big = take(MIB);
    expect(big !== null && big.cpu % MIB).toBe(0);
    const used = w.cma.stats().nrUsed;
    const small = take(32 * 1024);
    const atomic = w.dma.allocCoherent(w.ctx, dev, 128 * 1024, GFP_ATOMIC);
    expect([small, atomic].every((memory) => memory !== null)).toBe(true);
    expect(w.cma.stats().nrUsed).toBe(used);
    for (const [memory, bytes] of [
      [big, MIB],
      [small, 32 * 1024],
      [atomic, 128 * 1024],
    ] as const) {
      if (memory !== null) w.dma.freeCoherent(w.ctx, dev, bytes, memory.cpu, memory.dma);
    }
    expect(w.cma.stats().nrUsed).toBe(0);
    w.dma.releaseDevice(w.ctx, dev);
  });

  it("CON-3 a device with 24 address lines gets memory below 16 MiB, and the area stays whole", () => {
    const w = createDmaWorld({ cmaBytes: 4 * MIB });
    const { dev } = w.device({ maskBits: 24, coherentMaskBits: 24 });
    const memory = finishSleeping(w.dma.allocCoherent(w.ctx, dev, 64 * 1024, GFP_KERNEL));
    expect(memory !== null && memory.cpu + 64 * 1024 <= 16 * MIB).toBe(true);
    expect(w.cma.stats().nrUsed).toBe(0);
    if (memory !== null) w.dma.freeCoherent(w.ctx, dev, 64 * 1024, memory.cpu, memory.dma);
    w.dma.releaseDevice(w.ctx, dev);
  });

  it("without an area, or when it is full, large blocks come from the page allocator, and none above 4 MiB", () => {
    for (const cmaBytes of [0, 2 * MIB]) {
      const w = createDmaWorld({ cmaBytes });
      const { dev } = w.device();
      const held = cmaBytes > 0 ? w.cma.alloc(w.ctx, 300, 0) : 0;
      const memory = finishSleeping(w.dma.allocCoherent(w.ctx, dev, MIB, GFP_KERNEL));
      expect(memory !== null && memory.cpu % MIB).toBe(0);
      expect(finishSleeping(w.dma.allocCoherent(w.ctx, dev, 5 * MIB, GFP_KERNEL))).toBeNull();
      if (memory !== null) w.dma.freeCoherent(w.ctx, dev, MIB, memory.cpu, memory.dma);
      if (held !== 0) w.cma.release(w.ctx, held, 300);
      w.dma.releaseDevice(w.ctx, dev);
    }
  });
});
