/**
 * dma_pool at its edges: geometry, names, reports in full, blocks at both ends of a page, a pool without debugging,
 * memory that is short at each step.
 *
 * Goal: POOL-2 … POOL-6, G2. Method: small pools whose pages can be counted; exact texts.
 */

import { describe, expect, it } from "vitest";
import { asDma, asPhys, type Sleeping } from "../../kernel/types.ts";
import type { DmaMemory } from "../../mm/dma_coherent.ts";
import { type DmaPool, dmaPoolGeometry, dmaPoolOffsets, NO_POOL } from "../../mm/dma_pool.ts";
import { __GFP_NOWARN, __GFP_ZERO, GFP_ATOMIC, GFP_KERNEL, gfpWith } from "../../mm/gfp.ts";
import { createDmaWorld, type DmaWorld, finishSleeping } from "../support/dma_world.ts";

const hex = (n: number): string => `0x${n.toString(16).padStart(16, "0")}`;
const take = (w: DmaWorld, pool: DmaPool): DmaMemory => {
  const block = finishSleeping(w.dma.poolAlloc(w.ctx, pool, GFP_KERNEL));
  if (block === null) throw new Error("the pool is empty");
  return block;
};
const rig = (size: number, align = 8, boundary = 0, isDebug = true) => {
  const w = createDmaWorld({ nrCpus: 1, ramBytes: 16 << 20, isDebug });
  const { dev } = w.device({ name: "eth0", driver: "e1000" });
  const pool = w.dma.poolCreate(w.ctx, "ring", dev, size, align, boundary);
  return { w, dev, pool, row: () => w.dma.poolsText(dev).split("\n")[1] };
};

describe("D2 geometry", () => {
  it("parameters at their limits", () => {
    expect(dmaPoolGeometry(2 ** 31 - 1, 1, 0)?.size).toBe(2 ** 31 - 1);
    expect(dmaPoolGeometry(1, 0, 0)).toEqual({ size: 8, allocation: 4096, boundary: 4096 });
    expect(dmaPoolGeometry(64, 64, 64)).toEqual({ size: 64, allocation: 4096, boundary: 64 });
    expect(dmaPoolGeometry(64, 64, 65_536)).toEqual({ size: 64, allocation: 4096, boundary: 4096 });
    expect(dmaPoolGeometry(5000, 8, 8192)).toEqual({ size: 5000, allocation: 5000, boundary: 5000 });
    expect(dmaPoolGeometry(17, 1, 0)?.size).toBe(17);
    expect(dmaPoolOffsets({ size: 48, allocation: 200, boundary: 64 })).toEqual([0, 64, 128]);
  });
});

describe("a pool", () => {
  it("POOL-1 knows its alignment; 0 stands for 1", () => {
    for (const align of [0, 1, 64]) {
      const { w, pool } = rig(64, align);
      expect(w.machine.port.ld32(pool + 56)).toBe(Math.max(align, 1));
    }
  });

  it("POOL-2 hands out ascending blocks of a new page, and the one freed last first; the `pools` file counts", () => {
    const { w, pool, row } = rig(1024);
    const blocks = Array.from({ length: 5 }, () => take(w, pool));
    const [a, , c, , e] = blocks as [DmaMemory, DmaMemory, DmaMemory, DmaMemory, DmaMemory];
    expect(blocks.slice(0, 4).map(({ cpu, dma }) => [cpu - a.cpu, dma - a.dma])).toEqual(
      [0, 1024, 2048, 3072].map((at) => [at, at]),
    );
    expect(row()).toBe("ring                5    8 1024  2");
    for (const block of [a, c, e]) w.dma.poolFree(w.ctx, pool, block.cpu, block.dma);
    expect(row()).toBe("ring                2    8 1024  2");
    expect([take(w, pool), take(w, pool), take(w, pool)]).toEqual([e, c, a]);
    expect(w.takeLog()).toBe("");
  });

  it("a name is cut at 31 characters, and is 7-bit", () => {
    const { w, dev } = rig(64);
    const name = "a-pool-whose-name-is-forty-characters-long";
    w.dma.poolCreate(w.ctx, name, dev, 64, 64, 0);
    w.dma.poolCreate(w.ctx, "p\u00e4", dev, 64, 64, 0);
    expect(w.dma.poolsText(dev).split("\n").slice(1, 4)).toEqual([
      `ring${" ".repeat(12)}    0    0   64  0`,
      `${name.slice(0, 31)}    0    0   64  0`,
      `pd${" ".repeat(14)}    0    0   64  0`,
    ]);
  });

  it("POOL-3 destroy gives all pages and descriptors back; with a live block it keeps the pages", () => {
    for (const isBusy of [false, true]) {
      const { w, dev, pool } = rig(2048);
      const free = (): number => {
        w.pageAlloc.drainAllPages(w.ctx);
        return w.zones.totalFree();
      };
      const blocks = Array.from({ length: 5 }, () => take(w, pool));
      for (const { cpu, dma } of blocks.slice(isBusy ? 1 : 0)) w.dma.poolFree(w.ctx, pool, cpu, dma);
      w.takeLog();
      const before = free();
      w.dma.poolDestroy(w.ctx, pool);
      expect(free() > before).toBe(!isBusy);
      expect(w.takeLog()).toBe(isBusy ? "e1000 eth0: dma_pool_destroy ring busy" : "");
      expect(w.dma.poolsText(dev)).toBe("poolinfo - 0.1\n");
      expect(w.machine.port.ld32(pool + 52)).not.toBe(0x706f_6f6c);
      if (isBusy) continue;
      w.dma.releaseDevice(w.ctx, dev);
      w.expectNoObjectLeak();
    }
    const { w } = rig(64);
    w.machine.port.fill(asPhys(0), 0xff, 256);
    w.dma.poolDestroy(w.ctx, NO_POOL);
    expect(w.takeLog()).toBe("");
    for (let addr = 0; addr < 256; addr += 4) expect(w.machine.port.ld32(addr)).toBe(0xffff_ffff);
  });

  it("G2 create and destroy under a spinlock are reported", () => {
    const { w, dev, pool } = rig(64);
    w.contexts.preemptDisable(w.ctx);
    w.dma.poolCreate(w.ctx, "other", dev, 64, 64, 0);
    expect(w.takeLog()).toContain("invalid context at mm/dma_pool.ts:create");
    // One report a second and place.
    w.machine.harts.clock[0] = (w.machine.harts.clock[0] as number) + 2e9;
    w.dma.poolDestroy(w.ctx, pool);
    w.contexts.preemptEnable(w.ctx);
    expect(w.takeLog()).toContain("invalid context at mm/dma_pool.ts:destroy");
  });

  it("without memory for its record there is no pool, without memory for a descriptor no block; address 0 is not touched", () => {
    const { w, dev, pool } = rig(64);
    const { port } = w.machine;
    port.fill(asPhys(0), 0xa5, 256);
    w.failSlabPages(1, true);
    const held: number[] = [];
    for (const bytes of [96, 16]) {
      for (;;) {
        const got = w.slab.kmalloc.kmalloc(w.ctx, bytes, gfpWith(GFP_ATOMIC, __GFP_NOWARN));
        if (got === 0) break;
        held.push(got);
      }
    }
    w.takeLog();
    expect(w.dma.poolCreate(w.ctx, "none", dev, 64, 64, 0)).toBe(NO_POOL);
    expect(w.dma.poolAlloc(w.ctx, pool, GFP_ATOMIC)).toBeNull();
    expect(finishSleeping(w.dma.poolAlloc(w.ctx, pool, GFP_KERNEL))).toBeNull();
    expect([w.dma.poolsText(dev).split("\n").length, w.dma.check()]).toEqual([3, null]);
    for (let addr = 0; addr < 256; addr += 4) expect(port.ld32(addr)).toBe(0xa5a5_a5a5);
    w.failSlabPages(0);
    for (const addr of held) w.slab.kmalloc.kfree(w.ctx, asPhys(addr));
    const { cpu, dma } = take(w, pool);
    w.dma.poolFree(w.ctx, pool, cpu, dma);
    w.dma.poolDestroy(w.ctx, pool);
    w.dma.releaseDevice(w.ctx, dev);
    w.expectNoObjectLeak();
  });

  it("without memory: no pool, no block, and nothing lost at any step", () => {
    for (const gfp of [GFP_ATOMIC, GFP_KERNEL] as const) {
      for (let nth = 1; nth <= 3; nth++) {
        const { w, dev, pool } = rig(4096);
        w.slab.shrinkAll(w.ctx);
        w.failPages(nth, true);
        const blocks: DmaMemory[] = [];
        for (;;) {
          const got = w.dma.poolAlloc(w.ctx, pool, (gfp | __GFP_NOWARN) as typeof GFP_ATOMIC) as unknown;
          const block = gfp === GFP_ATOMIC ? got : finishSleeping(got as Sleeping<DmaMemory | null>);
          if (block === null) break;
          blocks.push(block as DmaMemory);
          // From the reserve for atomic coherent memory, at last.
          expect(blocks.length).toBeLessThan(100);
        }
        w.failPages(0);
        expect(w.dma.check()).toBeNull();
        blocks.push(take(w, pool));
        for (const { cpu, dma } of blocks) w.dma.poolFree(w.ctx, pool, cpu, dma);
        w.dma.poolDestroy(w.ctx, pool);
        w.dma.releaseDevice(w.ctx, dev);
        w.expectNoObjectLeak();
      }
    }
  });
});

describe("reports in full", () => {
  it("POOL-4 the first 64 bytes of a block that was written to, in rows of 16", () => {
    for (const [size, at] of [
      [24, 8],
      [24, 23],
      [64, 40],
      [1024, 1023],
    ] as const) {
      const { w, pool } = rig(size);
      const block = take(w, pool);
      w.dma.poolFree(w.ctx, pool, block.cpu, block.dma);
      w.machine.port.st8(block.cpu + at, 0x5c);
      const bytes = w.bytes(block.cpu, Math.min(size, 64));
      const rows = [0, 16, 32, 48]
        .filter((row) => row < bytes.length)
        .map((row) => {
          const text = [...bytes.slice(row, row + 16)].map((byte) => byte.toString(16).padStart(2, "0"));
          return `${(block.cpu + row).toString(16).padStart(8, "0")}: ${text.join(" ")}`;
        });
      w.takeLog();
      expect(take(w, pool)).toEqual(block);
      const head = `e1000 eth0: pool_check_block ring, ${hex(block.cpu)} (corrupted)`;
      expect(w.takeLog().split("\n")).toEqual([head, ...rows]);
    }
  });

  it("POOL-5 addresses just outside of a page, and a block's own at its ends", () => {
    const { w, pool, row } = rig(2048);
    const [a, b, c] = [take(w, pool), take(w, pool), take(w, pool)];
    w.takeLog();
    for (const dma of [a.dma - 1, a.dma - 2048, Math.max(a.dma, c.dma) + 4096, 0, 2 ** 32 - 2048]) {
      if (dma >= c.dma && dma < c.dma + 4096) continue;
      w.dma.poolFree(w.ctx, pool, asPhys(dma), asDma(dma));
      expect(w.takeLog()).toBe(`e1000 eth0: dma_pool_free ring, ${hex(dma)}/${hex(dma)} (bad dma)`);
    }
    expect(row()).toBe("ring                3    4 2048  2");
    for (const { cpu, dma } of [b, a, c]) w.dma.poolFree(w.ctx, pool, cpu, dma);
    expect([row(), w.takeLog(), w.dma.check()]).toEqual(["ring                0    4 2048  2", "", null]);
  });

  it("POOL-5 with a boundary, what begins on no block", () => {
    // 96 and 96 of 256: offsets 0, 96, 256, 352, …; 192 is in the gap, 224 would be a block without boundaries.
    const { w, pool } = rig(96, 32, 256);
    const block = take(w, pool);
    w.takeLog();
    for (const at of [32, 95, 288, 320]) {
      w.dma.poolFree(w.ctx, pool, asPhys(block.cpu + at), asDma(block.dma + at));
      expect(w.takeLog()).toContain("(bad dma)");
    }
    expect(w.dma.check()).toBeNull();
  });

  it("POOL-6 each of the two links, leading to where no block begins or out of the pool", () => {
    for (const [word, value] of [
      [0, (own: number) => own + 8],
      [0, (own: number) => own - 4096 * 8],
      // Just behind the page, whose first block is the one before.
      [0, (own: number) => own - 64 + 4096],
      [0, (own: number) => own + 4096],
      [0, () => 0x10_0000],
      [4, () => 0xeeee_eeee],
      [4, () => 0],
    ] as const) {
      const { w, pool } = rig(64);
      const [block, other] = [take(w, pool), take(w, pool)];
      w.dma.poolFree(w.ctx, pool, other.cpu, other.dma);
      w.dma.poolFree(w.ctx, pool, block.cpu, block.dma);
      w.takeLog();
      w.machine.port.st32(block.cpu + word, value(other.cpu));
      const fresh = take(w, pool);
      expect(w.takeLog()).toBe(
        `e1000 eth0: pool_check_block ring, ${hex(block.cpu)} (corrupted links, free blocks are given up)`,
      );
      expect([block.cpu, other.cpu]).not.toContain(fresh.cpu);
      expect(w.dma.check()).toBeNull();
    }
  });
});

describe("without debugging", () => {
  it("blocks keep what is in them, a double free goes unnoticed, __GFP_ZERO still zeroes", () => {
    const { w, pool } = rig(64, 64, 0, false);
    const block = take(w, pool);
    expect(w.bytes(block.cpu, 64).slice(8)).toEqual(new Uint8Array(56));
    const content = w.fill(block.cpu, 64, 5);
    w.dma.poolFree(w.ctx, pool, block.cpu, block.dma);
    expect(take(w, pool)).toEqual(block);
    expect(w.bytes(block.cpu, 64).slice(8)).toEqual(content.slice(8));
    w.dma.poolFree(w.ctx, pool, block.cpu, block.dma);
    expect(w.dma.poolAlloc(w.ctx, pool, gfpWith(GFP_ATOMIC, __GFP_ZERO))).toEqual(block);
    expect(w.bytes(block.cpu, 64)).toEqual(new Uint8Array(64));
    w.dma.poolFree(w.ctx, pool, block.cpu, block.dma);
    w.dma.poolFree(w.ctx, pool, block.cpu, block.dma);
    expect(w.takeLog()).toBe("");
  });
});
