/**
 * DMA without mistakes: coherent memory, streaming mappings, scatter-gather, over the direct ops.
 *
 * Goal: D1, D3 and DMA-1 … DMA-5. Method: a machine up to kmalloc on BoundsPort; the test is driver and device in one:
 * it maps, moves bytes over the bus as the device would, and looks at memory as the driver would.
 */

import { describe, expect, it } from "vitest";
import { asPhys } from "../../kernel/types.ts";
import {
  DMA_BIDIRECTIONAL,
  DMA_FROM_DEVICE,
  DMA_MAPPING_ERROR,
  DMA_TO_DEVICE,
  type DmaDirection,
} from "../../mm/dma_ops.ts";
import { GFP_ATOMIC } from "../../mm/gfp.ts";
import { SG_BYTES } from "../../mm/scatterlist.ts";
import { coherent, createDmaWorld } from "../support/dma_world.ts";

describe("coherent memory", () => {
  it("D1 is aligned to the smallest power of two of pages, zeroed, contiguous, and shared at once", () => {
    const w = createDmaWorld();
    const { dev, master } = w.device();
    for (const bytes of [1, 100, 4096, 4097, 12_288, 65_536, 100_000]) {
      const memory = coherent(w, dev, bytes);
      if (memory === null) throw new Error("no memory");
      const block = 4096 * 2 ** Math.ceil(Math.log2(Math.max(1, Math.ceil(bytes / 4096))));
      expect([memory.cpu % block, memory.dma % block]).toEqual([0, 0]);
      expect(w.bytes(memory.cpu, bytes).every((byte) => byte === 0)).toBe(true);
      const sent = w.fill(memory.cpu, bytes, 3);
      expect(master.read(memory.dma, Math.min(bytes, 65_536))).toEqual(sent.slice(0, 65_536));
      expect(master.write(memory.dma, new Uint8Array([9]))).toBe(true);
      expect(w.machine.port.ld8(memory.cpu)).toBe(9);
      w.dma.freeCoherent(w.ctx, dev, bytes, memory.cpu, memory.dma);
      expect(master.read(memory.dma, 1)).toBeNull();
    }
    w.dma.releaseDevice(w.ctx, dev);
    expect(w.dma.check()).toBeNull();
  });

  it("D1 lies below the coherent mask: 24 bits come from ZONE_DMA", () => {
    const w = createDmaWorld();
    const low = coherent(w, w.device({ maskBits: 24 }).dev, 8192);
    const high = coherent(w, w.device().dev, 8192);
    expect((low?.dma ?? 0) + 8192).toBeLessThanOrEqual(2 ** 24);
    expect(high?.dma).toBeGreaterThan(2 ** 24);
  });

  it("D1 GFP_ATOMIC works in an interrupt, freeing there is refused with a splat", () => {
    const w = createDmaWorld();
    const { dev } = w.device();
    w.contexts.add(w.irq, 0x1_0000);
    const memory = w.dma.allocCoherent(w.irq, dev, 4096, GFP_ATOMIC);
    if (memory === null) throw new Error("no memory");
    w.dma.freeCoherent(w.ctx, dev, 4096, memory.cpu, memory.dma);
    expect(w.takeLog()).toContain("coherent memory freed in interrupt context");
    expect(w.dma.nrLive()).toBe(1);
    w.contexts.subtract(w.irq, 0x1_0000);
    w.dma.freeCoherent(w.ctx, dev, 4096, memory.cpu, memory.dma);
    expect(w.dma.nrLive()).toBe(0);
  });
});

describe("streaming mappings", () => {
  const cases: readonly (readonly [name: string, direction: DmaDirection, reads: boolean, writes: boolean])[] = [
    ["DMA_TO_DEVICE", DMA_TO_DEVICE, true, false],
    ["DMA_FROM_DEVICE", DMA_FROM_DEVICE, false, true],
    ["DMA_BIDIRECTIONAL", DMA_BIDIRECTIONAL, true, true],
  ];
  for (const [name, direction, reads, writes] of cases) {
    it(`D3 DMA-1 ${name}: the device does what the direction says, while mapped only`, () => {
      const w = createDmaWorld();
      const { dev, master } = w.device();
      const buffer = w.highPages(0);
      const sent = w.fill(buffer, 1500, 5);
      const dma = w.dma.mapSingle(w.ctx, dev, buffer, 1500, direction);
      expect(w.dma.mappingError(dev, dma)).toBe(false);
      expect(master.read(dma, 1500)).toEqual(reads ? sent : null);
      expect(master.write(dma, new Uint8Array(1500))).toBe(writes);
      expect(master.write(dma + 1, new Uint8Array(1500))).toBe(false);
      w.dma.unmapSingle(w.ctx, dev, dma, 1500, direction);
      expect(master.read(dma, 1)).toBeNull();
      expect(w.bytes(buffer, 1500)).toEqual(writes ? new Uint8Array(1500) : sent);
      w.freePages(buffer, 0);
      w.dma.releaseDevice(w.ctx, dev);
    });
  }

  it("DMA-2 what is not RAM cannot be mapped", () => {
    const w = createDmaWorld();
    const { dev } = w.device();
    for (const [addr, bytes] of [
      [0, 64],
      [0xa_0000, 64],
      [32 << 20, 64],
      [(32 << 20) - 64, 128],
      [0x20_0000, 0],
      [(0x20_0000).valueOf() + 0.5, 8],
    ] as const) {
      expect(w.dma.mapSingle(w.ctx, dev, asPhys(addr), bytes, DMA_TO_DEVICE)).toBe(DMA_MAPPING_ERROR);
    }
    expect(w.dma.nrLive()).toBe(0);
    expect(w.dma.check()).toBeNull();
  });
});

describe("scatter-gather", () => {
  it("SGL-2 neighbours merge up to the segment size and the boundary", () => {
    const w = createDmaWorld();
    const { dev, master } = w.device({ maxSegmentBytes: 12_288, boundaryBytes: 65_536 });
    const block = w.highPages(5);
    const sgl = w.lowPages(0);
    const content = w.fill(block, 32 * 4096, 1);
    for (let i = 0; i < 8; i++) w.dma.sgSet(sgl, i, asPhys(block + i * 4096), 4096);
    expect(w.dma.mapSg(w.ctx, dev, sgl, 8, DMA_TO_DEVICE)).toBe(3);
    expect([0, 1, 2].map((i) => w.dma.sgDmaLength(sgl, i))).toEqual([12_288, 12_288, 8192]);
    const got = [0, 1, 2].flatMap((i) => [
      ...(master.read(w.dma.sgDmaAddress(sgl, i), w.dma.sgDmaLength(sgl, i)) as Uint8Array),
    ]);
    expect(Uint8Array.from(got)).toEqual(content.slice(0, 8 * 4096));
    w.dma.unmapSg(w.ctx, dev, sgl, 8, DMA_TO_DEVICE);
    // Entries 14 … 17 lie around the boundary at 64 KiB of the block.
    for (let i = 0; i < 4; i++) w.dma.sgSet(sgl, i, asPhys(block + (15 + i) * 4096), 4096);
    expect(w.dma.mapSg(w.ctx, dev, sgl, 4, DMA_TO_DEVICE)).toBe(2);
    expect([0, 1].map((i) => w.dma.sgDmaLength(sgl, i))).toEqual([4096, 12_288]);
    w.dma.unmapSg(w.ctx, dev, sgl, 4, DMA_TO_DEVICE);
    expect(w.dma.nrLive()).toBe(0);
    expect(SG_BYTES).toBe(16);
  });
});
