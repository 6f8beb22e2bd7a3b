/**
 * The checks of dma_pool and swiotlb can fail: each record in RAM spoiled by hand, each violation by its name.
 *
 * Goal: POOL-1 … POOL-4, SWI-1, SWI-2, SWI-5. Method: a sound pool, one word or byte of it overwritten, check() read,
 * the word put back, check() silent again.
 */

import { describe, expect, it } from "vitest";
import { asDma, asPhys, type PhysAddr } from "../../kernel/types.ts";
import type { DmaMemory } from "../../mm/dma_coherent.ts";
import { DMA_TO_DEVICE } from "../../mm/dma_ops.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { createDmaWorld, type DmaWorld, finishSleeping } from "../support/dma_world.ts";

const world = (isDebug = true): DmaWorld => createDmaWorld({ nrCpus: 1, ramBytes: 32 << 20, isDebug });

/** What check() says with another value in a word; then the old one is put back. */
function withWord(w: DmaWorld, addr: number, value: number): string | null {
  const { port } = w.machine;
  const before = port.ld32(addr);
  port.st32(addr, value);
  const fault = w.dma.check();
  port.st32(addr, before);
  expect(w.dma.check()).toBeNull();
  return fault;
}

/** struct dma_pool, as its header says. */
const [PAGES, SIZE, BOUNDARY, BLOCKS, ACTIVE, NEXT, MAGIC, ALIGN] = [0, 20, 28, 32, 36, 44, 52, 56] as const;

describe("check() of a dma_pool", () => {
  /** A pool of 64-byte blocks with one page of them, one block out. */
  const rig = (isDebug = true) => {
    const w = world(isDebug);
    const { dev } = w.device();
    const pool = w.dma.poolCreate(w.ctx, "ring", dev, 64, 64, 0);
    const live = finishSleeping(w.dma.poolAlloc(w.ctx, pool, GFP_KERNEL)) as DmaMemory;
    const first = w.machine.port.ld32(pool + NEXT);
    expect(w.dma.check()).toBeNull();
    return { w, dev, pool, live, first, last: live.cpu + 63 * 64 };
  };

  it("POOL-2 counts: one too few, one too many, a free list that is too long or a ring", () => {
    const { w, pool, first, last } = rig();
    const WRONG = "POOL-2: free + active is not all blocks";
    const LONG = "POOL-2: the free list is longer than the pool";
    expect([62, 63, 65].map((blocks) => withWord(w, pool + BLOCKS, blocks))).toEqual([LONG, WRONG, WRONG]);
    expect([0, 2].map((active) => withWord(w, pool + ACTIVE, active))).toEqual([WRONG, WRONG]);
    expect(withWord(w, pool + NEXT, 0)).toBe(WRONG);
    expect(withWord(w, last, first)).toBe(LONG);
    expect(withWord(w, pool + MAGIC, 0)).toBe("POOL: not a pool");
  });

  it("POOL-2 blocks without pages, pages without blocks", () => {
    const { w, dev } = rig();
    const fresh = w.dma.poolCreate(w.ctx, "fresh", dev, 64, 64, 0);
    expect(w.dma.check()).toBeNull();
    expect(withWord(w, fresh + BLOCKS, 1)).toBe("POOL-2: blocks without pages");
    const full = w.dma.poolCreate(w.ctx, "full", dev, 4096, 64, 0);
    const block = finishSleeping(w.dma.poolAlloc(w.ctx, full, GFP_KERNEL));
    expect(block).not.toBeNull();
    expect(w.machine.port.ld32(full + NEXT)).toBe(0);
    expect(withWord(w, full + BLOCKS, 0)).toBe("POOL-2: blocks without pages");
    expect(withWord(w, full + PAGES, (full + PAGES) / 8)).toBe("POOL-2: blocks without pages");
  });

  it("POOL-1 a free block that is elsewhere on the bus or in memory, misaligned, or over a boundary", () => {
    const { w, pool, live, first } = rig();
    const hex = (n: number): string => `0x${n.toString(16).padStart(16, "0")}`;
    const nowhere = `POOL-1: free block ${hex(first)} is in no page of the pool`;
    const dma = live.dma + 64;
    for (const bad of [dma + 64, dma - 64, live.dma - 1, live.dma + 4096, 0, 0xffff_fff8]) {
      expect(withWord(w, first + 4, bad)).toBe(nowhere);
    }
    const other = w.dma.poolCreate(w.ctx, "other", w.device().dev, 64, 64, 0);
    const foreign = finishSleeping(w.dma.poolAlloc(w.ctx, other, GFP_KERNEL)) as DmaMemory;
    w.dma.poolFree(w.ctx, other, foreign.cpu, foreign.dma);
    expect(withWord(w, pool + NEXT, foreign.cpu)).toBe(
      `POOL-1: free block ${hex(foreign.cpu)} is in no page of the pool`,
    );
    expect(withWord(w, pool + ALIGN, 128)).toBe(`POOL-1: block ${hex(dma)} is not aligned`);
    // The block before ends where the first free one begins; with boundaries of 96 bytes this one would cross.
    const crossing = [0, 64, 128].map((at) => dma + at).find((at) => at % 96 > 32) as number;
    expect(withWord(w, pool + BOUNDARY, 96)).toBe(`POOL-1: block ${hex(crossing)} crosses a boundary`);
    expect(withWord(w, pool + BOUNDARY, 64)).toBeNull();
    expect(withWord(w, pool + SIZE, 65)).toMatch(/^POOL-[14]/);
  });

  it("POOL-4 any byte of a free block but its links, and not without debugging", () => {
    const { w, first } = rig();
    for (const at of [8, 12, 60]) expect(withWord(w, first + at, 0xa7a7_00a7)).toContain("was written to");
    expect(withWord(w, first + 60, 0x00a7_a7a7)).toContain(`POOL-4: free block 0x${first.toString(16)}`.slice(0, 20));
    const plain = rig(false);
    expect(withWord(plain.w, plain.first + 8, 1)).toBeNull();
  });
});

describe("check() of swiotlb", () => {
  /** A device whose mappings bounce; one mapping of three slots. */
  const rig = () => {
    const w = world();
    const { dev } = w.device({ maskBits: 24 });
    const buffer = w.highPages(2);
    const dma = w.dma.mapSingle(w.ctx, dev, buffer, 5000, DMA_TO_DEVICE);
    expect(w.dma.mappingError(dev, dma)).toBe(false);
    expect(w.system.swiotlb.used()).toBe(3);
    return { w, dev, dma };
  };
  /** The slot table: found by its first record, which says where the mapped memory is. */
  const slotsOf = (w: DmaWorld, buffer: PhysAddr): number => {
    for (let addr = 0x10_0000; addr < w.machine.port.sizeBytes; addr += 4096) {
      const { port } = w.machine;
      if (port.ld32(addr) === buffer && port.ld32(addr + 4) === 5000 && port.ld32(addr + 12) === 1) return addr;
    }
    throw new Error("dma_checks: no slot table");
  };

  it("SWI-1 SWI-2 SWI-5 a count, an owner, the number in use", () => {
    const { w, dma } = rig();
    const { swiotlb } = w.system;
    const slots = slotsOf(w, swiotlb.origOf(asDma(dma)));
    expect(swiotlb.nslabs()).toBe(256);
    const list = (i: number): number => slots + i * 16 + 8;
    const first = (i: number): number => slots + i * 16 + 12;
    expect([0, 2, 3, 127, 128, 255].map((i) => w.machine.port.ld32(list(i)))).toEqual([0, 0, 125, 1, 128, 1]);
    expect(withWord(w, list(2), 1)).toBe("SWI-1: slot 2 counts 1 free, 0 are");
    expect(withWord(w, list(127), 2)).toBe("SWI-1: slot 127 counts 2 free, 1 are");
    expect(withWord(w, list(255), 0)).toBe("SWI-1: slot 255 counts 0 free, 1 are");
    expect(withWord(w, list(3), 124)).toBe("SWI-1: slot 3 counts 124 free, 125 are");
    expect(withWord(w, first(0), 0)).toBe("SWI-1: slot 0 counts 0 free, 1 are");
    expect(withWord(w, first(2), 129)).toBe("SWI-2: slot 2 is of another segment");
    expect(withWord(w, first(2), 128)).toBeNull();
  });

  it("SWI-5 io_tlb_used that is off by one", () => {
    const { w, dev, dma } = rig();
    const { port } = w.machine;
    const { swiotlb } = w.system;
    // The word of the statics that follows the number of slots.
    let statics = 0;
    for (let addr = 0x10_0000; statics === 0; addr += 4) {
      if (port.ld32(addr) === 256 && port.ld32(addr + 4) === 3 && port.ld32(addr + 8) === 3) statics = addr;
    }
    expect(withWord(w, statics + 4, 4)).toBe("SWI-5: io_tlb_used is 4, 3 slots are taken");
    expect(withWord(w, statics + 4, 2)).toBe("SWI-5: io_tlb_used is 2, 3 slots are taken");
    w.dma.unmapSingle(w.ctx, dev, dma, 5000, DMA_TO_DEVICE);
    expect([swiotlb.used(), w.dma.check()]).toEqual([0, null]);
  });

  it("SWI-1 an unmap from the middle of a mapping frees nothing", () => {
    const { w, dev, dma } = rig();
    w.system.swiotlb.unmap(w.ctx, dev, asDma(dma + 2048), 100, DMA_TO_DEVICE);
    expect([w.system.swiotlb.used(), w.dma.check()]).toEqual([3, null]);
    expect(w.system.swiotlb.origOf(asDma(dma + 3 * 2048))).toBe(asPhys(0));
  });
});
