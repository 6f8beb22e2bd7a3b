/**
 * dma_pool: geometry, blocks, bad frees, poison, the `pools` file.
 *
 * Goal: D2 and POOL-1 … POOL-5. Method: upstream's six parameter sets; a naive oracle of the layout; random programs of
 * alloc and free with contents; every bad input.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asDma, asPhys } from "../../kernel/types.ts";
import type { DmaMemory } from "../../mm/dma_coherent.ts";
import { type DmaPool, dmaPoolGeometry, dmaPoolOffsets, NO_POOL, POOL_POISON_FREED } from "../../mm/dma_pool.ts";
import { __GFP_ZERO, GFP_ATOMIC, GFP_KERNEL, gfpWith } from "../../mm/gfp.ts";
import { createDmaWorld, type DmaWorld, finishSleeping } from "../support/dma_world.ts";

const UPSTREAM = [
  [16, 16, 0],
  [64, 64, 0],
  [256, 256, 0],
  [1024, 1024, 0],
  [4096, 4096, 0],
  [68, 32, 4096],
] as const;

const take = (w: DmaWorld, pool: DmaPool): DmaMemory => {
  const block = finishSleeping(w.dma.poolAlloc(w.ctx, pool, GFP_KERNEL));
  if (block === null) throw new Error("the pool is empty");
  return block;
};
const world = (): DmaWorld => createDmaWorld({ nrCpus: 1, ramBytes: 16 << 20 });

describe("D2 geometry", () => {
  it("upstream's parameter sets", () => {
    expect(UPSTREAM.map(([size, align, boundary]) => dmaPoolGeometry(size, align, boundary))).toEqual([
      { size: 16, allocation: 4096, boundary: 4096 },
      { size: 64, allocation: 4096, boundary: 4096 },
      { size: 256, allocation: 4096, boundary: 4096 },
      { size: 1024, allocation: 4096, boundary: 4096 },
      { size: 4096, allocation: 4096, boundary: 4096 },
      { size: 96, allocation: 4096, boundary: 4096 },
    ]);
    expect(dmaPoolOffsets({ size: 96, allocation: 4096, boundary: 4096 })).toHaveLength(42);
    expect(dmaPoolOffsets({ size: 96, allocation: 4096, boundary: 256 }).slice(0, 4)).toEqual([0, 96, 256, 352]);
  });

  it("bad parameters make no pool", () => {
    for (const [size, align, boundary] of [
      [0, 16, 0],
      [-1, 16, 0],
      [1.5, 16, 0],
      [2 ** 31, 16, 0],
      [64, 3, 0],
      [64, 64, 32],
      [64, 64, 96],
    ] as const) {
      expect(dmaPoolGeometry(size, align, boundary)).toBeNull();
    }
    const w = world();
    expect(w.dma.poolCreate(w.ctx, "bad", w.device().dev, 64, 3, 0)).toBe(NO_POOL);
  });

  it("POOL-1 no block is misaligned, crosses a boundary or overlaps another, for any parameters", () => {
    const power = (max: number): fc.Arbitrary<number> => fc.integer({ min: 0, max }).map((n) => 2 ** n);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9000 }), power(10), fc.option(power(14), { nil: 0 }), (size, align, b) => {
        const geometry = dmaPoolGeometry(size, align, b);
        if (geometry === null) {
          expect(b).toBeGreaterThan(0);
          expect(b).toBeLessThan(Math.ceil(Math.max(size, 8) / align) * align);
          return;
        }
        const offsets = dmaPoolOffsets(geometry);
        expect(offsets.length).toBeGreaterThan(0);
        offsets.forEach((offset, i) => {
          expect(offset % align).toBe(0);
          expect(offset + geometry.size).toBeLessThanOrEqual(offsets[i + 1] ?? geometry.allocation);
          if (b === 0) return;
          expect(Math.floor(offset / b)).toBe(Math.floor((offset + geometry.size - 1) / b));
        });
        // Maximal: no further block would fit behind the last one.
        const last = (offsets.at(-1) as number) + geometry.size;
        const next = b !== 0 && (last % b) + geometry.size > b && last % b !== 0 ? Math.ceil(last / b) * b : last;
        expect(next + geometry.size).toBeGreaterThan(geometry.allocation);
      }),
      { numRuns: 500, seed: 2 },
    );
  });
});

describe.each(UPSTREAM)("D2 pool of %i bytes, align %i, boundary %i", (size, align, boundary) => {
  it("blocks are on the bus, aligned, inside the boundary, all different; pages stay until destroy", () => {
    const w = world();
    const { dev, master } = w.device();
    const pool = w.dma.poolCreate(w.ctx, "test", dev, size, align, boundary);
    const blocks = Array.from({ length: 100 }, () => take(w, pool));
    const limit = boundary || 4096;
    expect(new Set(blocks.map(({ dma }) => dma)).size).toBe(100);
    blocks.forEach(({ cpu, dma }, i) => {
      expect([dma % align, cpu % align]).toEqual([0, 0]);
      expect(Math.floor(dma / limit)).toBe(Math.floor((dma + size - 1) / limit));
      w.fill(cpu, size, i);
    });
    blocks.forEach(({ cpu, dma }) => {
      expect(master.read(dma, size)).toEqual(w.bytes(cpu, size));
    });
    const pages = w.dma.poolsText(dev);
    for (const { cpu, dma } of blocks) w.dma.poolFree(w.ctx, pool, cpu, dma);
    expect(w.dma.poolsText(dev).split("\n")[1]?.slice(21)).toBe(pages.split("\n")[1]?.slice(21));
    w.dma.poolDestroy(w.ctx, pool);
    expect(w.dma.nrLive()).toBe(0);
    w.dma.releaseDevice(w.ctx, dev);
    w.expectNoObjectLeak();
    expect(w.takeLog()).toBe("");
  });
});

describe("misuse", () => {
  const rig = () => {
    const w = world();
    const { dev } = w.device({ name: "eth0", driver: "e1000" });
    const pool = w.dma.poolCreate(w.ctx, "ring", dev, 64, 64, 0);
    const block = take(w, pool);
    w.takeLog();
    return { w, dev, pool, block };
  };
  const hex = (n: number): string => `0x${n.toString(16).padStart(16, "0")}`;

  it("POOL-5 double free", () => {
    const { w, pool, block } = rig();
    w.dma.poolFree(w.ctx, pool, block.cpu, block.dma);
    w.dma.poolFree(w.ctx, pool, block.cpu, block.dma);
    expect(w.takeLog()).toBe(`e1000 eth0: dma_pool_free ring, dma ${hex(block.dma)} already free`);
  });

  it("POOL-5 foreign, interior, mismatched", () => {
    const { w, dev, pool, block } = rig();
    w.dma.poolFree(w.ctx, pool, block.cpu, asDma(0x10_0000));
    w.dma.poolFree(w.ctx, pool, asPhys(block.cpu + 8), asDma(block.dma + 8));
    w.dma.poolFree(w.ctx, pool, asPhys(block.cpu + 64), block.dma);
    expect(w.takeLog().split("\n")).toEqual([
      `e1000 eth0: dma_pool_free ring, ${hex(block.cpu)}/${hex(0x10_0000)} (bad dma)`,
      `e1000 eth0: dma_pool_free ring, ${hex(block.cpu + 8)}/${hex(block.dma + 8)} (bad dma)`,
      `e1000 eth0: dma_pool_free ring, ${hex(block.cpu + 64)} (bad vaddr)/${hex(block.dma)}`,
    ]);
    expect(w.dma.poolsText(dev)).toBe(`poolinfo - 0.1\nring${" ".repeat(12)}    1   64   64  1\n`);
  });

  // Regression: the fault sweep over isa-disk.yaml. A device wrote over a free block; its link was taken for a block, and
  // the driver was given the address 0xeeeeeeee.
  it("POOL-6 links that a device wrote over are reported and not followed", () => {
    const { w, dev, pool, block } = rig();
    const other = take(w, pool);
    w.dma.poolFree(w.ctx, pool, block.cpu, block.dma);
    w.machine.port.fill(block.cpu, 0xee, 64);
    w.dma.poolFree(w.ctx, pool, other.cpu, other.dma);
    expect(w.takeLog()).toBe("");
    expect(take(w, pool)).toEqual(other);
    const fresh = take(w, pool);
    expect(w.takeLog()).toContain(
      `e1000 eth0: pool_check_block ring, ${hex(block.cpu)} (corrupted links, free blocks are given up)`,
    );
    expect(fresh.cpu).not.toBe(block.cpu);
    expect(fresh.cpu).toBeLessThan(0xeee_eeee);
    expect(w.dma.check()).toBeNull();
    for (const { cpu, dma } of [other, fresh]) w.dma.poolFree(w.ctx, pool, cpu, dma);
    expect(w.takeLog()).toBe("");
    expect(w.dma.check()).toBeNull();
    expect(w.dma.poolsText(dev)).toContain("ring");
  });

  it("POOL-4 a free block that was written to is reported at its next allocation", () => {
    const { w, pool, block } = rig();
    w.dma.poolFree(w.ctx, pool, block.cpu, block.dma);
    expect(w.machine.port.ld8(block.cpu + 63)).toBe(POOL_POISON_FREED);
    w.machine.port.st8(block.cpu + 40, 0);
    expect(take(w, pool)).toEqual(block);
    expect(w.takeLog()).toContain(`e1000 eth0: pool_check_block ring, ${hex(block.cpu)} (corrupted)`);
    expect(w.bytes(block.cpu, 64)).toEqual(new Uint8Array(64).fill(0xa9));
  });

  it("POOL-3 destroy with a live block says busy", () => {
    const { w, pool } = rig();
    w.dma.poolDestroy(w.ctx, pool);
    expect(w.takeLog()).toBe("e1000 eth0: dma_pool_destroy ring busy");
  });

  it("G2 a sleeping allocation under a spinlock is reported", () => {
    const { w, pool } = rig();
    w.contexts.preemptDisable(w.ctx);
    finishSleeping(w.dma.poolAlloc(w.ctx, pool, GFP_KERNEL));
    w.contexts.preemptEnable(w.ctx);
    expect(w.takeLog()).toContain("sleeping function called from invalid context at mm/dma_pool.ts:alloc");
  });
});

describe("use", () => {
  it("atomic allocation grows the pool in an interrupt; __GFP_ZERO zeroes", () => {
    const w = world();
    const { dev } = w.device();
    const pool = w.dma.poolCreate(w.ctx, "ring", dev, 1024, 64, 0);
    w.contexts.add(w.irq, 0x1_0000);
    const blocks = Array.from({ length: 9 }, () => w.dma.poolAlloc(w.irq, pool, gfpWith(GFP_ATOMIC, __GFP_ZERO)));
    for (const block of blocks) {
      if (block === null) throw new Error("no block");
      expect(w.bytes(block.cpu, 1024)).toEqual(new Uint8Array(1024));
      w.dma.poolFree(w.irq, pool, block.cpu, block.dma);
    }
    w.contexts.subtract(w.irq, 0x1_0000);
    expect(w.contexts.nrAtomicSleeps()).toBe(0);
    w.dma.poolDestroy(w.ctx, pool);
    expect(w.dma.nrLive()).toBe(0);
  });

  it("POOL-2 random programs keep contents and counts", () => {
    const step = fc.record({ isAlloc: fc.boolean(), pick: fc.nat(1000) });
    fc.assert(
      fc.property(
        fc.constantFrom(...UPSTREAM, [17, 1, 64] as const, [5000, 8, 8192] as const),
        fc.array(step, { maxLength: 80 }),
        ([size, align, boundary], steps) => {
          const w = world();
          const { dev } = w.device();
          const pool = w.dma.poolCreate(w.ctx, "random", dev, size, align, boundary);
          const live: { block: DmaMemory; content: Uint8Array }[] = [];
          for (const { isAlloc, pick } of steps) {
            if (isAlloc) {
              const block = take(w, pool);
              live.push({ block, content: w.fill(block.cpu, size, pick) });
            } else if (live.length > 0) {
              const [gone] = live.splice(pick % live.length, 1);
              if (gone === undefined) continue;
              expect(w.bytes(gone.block.cpu, size)).toEqual(gone.content);
              w.dma.poolFree(w.ctx, pool, gone.block.cpu, gone.block.dma);
            }
            expect(Number(w.dma.poolsText(dev).split("\n")[1]?.slice(16, 21))).toBe(live.length);
            expect(w.dma.check()).toBeNull();
          }
          expect(w.takeLog()).toBe("");
        },
      ),
      { numRuns: 40, seed: 4 },
    );
  });
});
