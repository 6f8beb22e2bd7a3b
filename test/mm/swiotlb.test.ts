/**
 * swiotlb: bounce buffers.
 *
 * Goal: D5, SWI-1 … SWI-5, and GFP_DMA under pressure (W3). Method: a device of 24 bits and memory above 16 MiB, so
 * that every mapping bounces; random programs with the slot auditor after each step; a pool that runs full.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asDma, asPhys, type DmaAddr, type PhysAddr } from "../../kernel/types.ts";
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_MAPPING_ERROR, DMA_TO_DEVICE } from "../../mm/dma_ops.ts";
import { __GFP_DMA, GFP_KERNEL } from "../../mm/gfp.ts";
import { Z_LOWMEM_RESERVE, Z_NR_FREE, ZONE_DMA } from "../../mm/mmzone.ts";
import { swiotlbPoolBytes } from "../../mm/swiotlb.ts";
import { coherent, createDmaWorld, type DmaWorld, type DmaWorldOptions } from "../support/dma_world.ts";

const KIB = 1024;
const rig = (options: DmaWorldOptions = {}, spec = {}) => {
  const w = createDmaWorld({ nrCpus: 1, ramBytes: 32 << 20, ...options });
  const { dev, master } = w.device({ maskBits: 24, name: "hda", driver: "ide", ...spec });
  return { w, dev, master };
};

describe("the pool", () => {
  it("is allocated when the first device needs it, scaled to RAM, and given back after the last", () => {
    const w = createDmaWorld({ nrCpus: 1, ramBytes: 32 << 20 });
    const reaching = w.device();
    expect(w.system.swiotlb.nslabs()).toBe(0);
    const short = w.device({ maskBits: 24 });
    expect(w.system.swiotlb.nslabs()).toBe(256);
    expect(w.takeLog()).toMatch(/software IO TLB: mapped \[mem 0x\w{16}-0x\w{16}\] \(512kB\)/);
    w.dma.releaseDevice(w.ctx, short.dev);
    w.dma.releaseDevice(w.ctx, reaching.dev);
    expect(w.system.swiotlb.nslabs()).toBe(0);
    w.expectNoObjectLeak();
  });

  it("swiotlb=SIZE takes it at boot and keeps it", () => {
    const w = createDmaWorld({ nrCpus: 1, ramBytes: 32 << 20, swiotlbBytes: 1 << 20 });
    expect(w.system.swiotlb.nslabs()).toBe(512);
    w.dma.releaseDevice(w.ctx, w.device({ maskBits: 24 }).dev);
    expect(w.system.swiotlb.nslabs()).toBe(512);
  });

  it("sizes: 1/64 of RAM between 256 KiB and 4 MiB, powers of two", () => {
    const sizes = [8, 16, 64, 100, 256, 1024].map((mib) => swiotlbPoolBytes(0, mib << 20) / KIB);
    expect(sizes).toEqual([256, 256, 1024, 2048, 4096, 4096]);
    expect(swiotlbPoolBytes(300 * KIB, 64 << 20)).toBe(512 * KIB);
  });
});

describe("copies", () => {
  it("SWI-4 map copies in for every direction, unmap copies out what a device may have written", () => {
    for (const direction of [DMA_TO_DEVICE, DMA_FROM_DEVICE, DMA_BIDIRECTIONAL] as const) {
      const { w, dev, master } = rig();
      const buffer = w.highPages(0);
      const before = w.fill(buffer, 4096, 3);
      const dma = w.dma.mapSingle(w.ctx, dev, buffer, 4096, direction);
      expect(w.dma.mappingError(dev, dma)).toBe(false);
      expect(dma).toBeLessThan(2 ** 24);
      expect(w.bytes(asPhys(dma), 4096)).toEqual(before);
      const wrote = master.write(asDma(dma + 100), new Uint8Array(50).fill(7));
      w.dma.unmapSingle(w.ctx, dev, dma, 4096, direction);
      const after = before.slice();
      if (wrote) after.fill(7, 100, 150);
      expect(w.bytes(buffer, 4096)).toEqual(after);
      expect(wrote).toBe(direction !== DMA_TO_DEVICE);
    }
  });

  it("SWI-4 syncs copy a part of a mapping, at any offset", () => {
    const { w, dev, master } = rig();
    const buffer = w.highPages(2);
    const content = w.fill(buffer, 16_384, 1);
    const dma = w.dma.mapSingle(w.ctx, dev, buffer, 16_384, DMA_BIDIRECTIONAL);
    w.dma.mappingError(dev, dma);
    master.write(dma + 5000, new Uint8Array(3000).fill(9));
    w.dma.syncSingleForCpu(w.ctx, dev, asDma(dma + 5000), 1000, DMA_BIDIRECTIONAL);
    content.fill(9, 5000, 6000);
    expect(w.bytes(buffer, 16_384)).toEqual(content);
    w.machine.port.fill(buffer + 5100, 5, 10);
    w.dma.syncSingleForDevice(w.ctx, dev, asDma(dma + 5100), 10, DMA_BIDIRECTIONAL);
    expect(master.read(dma + 5098, 14)).toEqual(Uint8Array.from([9, 9, ...new Array(10).fill(5), 9, 9]));
    w.dma.unmapSingle(w.ctx, dev, dma, 16_384, DMA_BIDIRECTIONAL);
  });

  it("SWI-4 a sync beyond the mapping copies no foreign byte", () => {
    const { w, dev } = rig();
    const buffer = w.highPages(0);
    w.fill(buffer, 4096, 1);
    const dma = w.dma.mapSingle(w.ctx, dev, buffer, 100, DMA_BIDIRECTIONAL);
    const before = w.bytes(buffer, 4096);
    w.dma.syncSingleForCpu(w.ctx, dev, dma, 4000, DMA_BIDIRECTIONAL);
    expect(w.bytes(buffer, 4096)).toEqual(before);
    expect(w.takeLog()).toContain("Buffer overflow detected. Allocation size: 100. Mapping size: 4000.");
  });
});

describe("slots", () => {
  it("SWI-2 256 KiB can be mapped at once, one byte more cannot", () => {
    const { w, dev } = rig();
    const buffer = w.highPages(7);
    const dma = w.dma.mapSingle(w.ctx, dev, buffer, 256 * KIB, DMA_TO_DEVICE);
    expect(w.dma.mappingError(dev, dma)).toBe(false);
    expect(w.system.swiotlb.used()).toBe(128);
    w.dma.unmapSingle(w.ctx, dev, dma, 256 * KIB, DMA_TO_DEVICE);
    expect(w.dma.mapSingle(w.ctx, dev, buffer, 256 * KIB + 1, DMA_TO_DEVICE)).toBe(DMA_MAPPING_ERROR);
    expect(w.dma.maxMappingBytes(dev)).toBe(256 * KIB);
    expect([w.system.swiotlb.used(), w.dma.check()]).toEqual([0, null]);
  });

  it("SWI-3 min_align_mask keeps the low bits", () => {
    const { w, dev, master } = rig();
    w.dma.setMinAlignMask(dev, 4095);
    const buffer = w.highPages(1);
    const content = w.fill(buffer, 8192, 4);
    for (const at of [0, 1, 512, 2047, 2048, 3000, 4095]) {
      const dma = w.dma.mapSingle(w.ctx, dev, asPhys(buffer + at), 700, DMA_TO_DEVICE);
      expect(dma % 4096).toBe((buffer + at) % 4096);
      expect(master.read(dma, 700)).toEqual(content.slice(at, at + 700));
      w.dma.unmapSingle(w.ctx, dev, dma, 700, DMA_TO_DEVICE);
    }
    expect(w.dma.maxMappingBytes(dev)).toBe(252 * KIB);
    expect([w.system.swiotlb.used(), w.dma.check()]).toEqual([0, null]);
  });

  it("SWI-2 a buffer does not cross the device's boundary", () => {
    const { w, dev } = rig({}, { boundaryBytes: 8192 });
    const buffer = w.highPages(1);
    for (let i = 0; i < 40; i++) {
      const dma = w.dma.mapSingle(w.ctx, dev, buffer, 3000 + i * 100, DMA_TO_DEVICE);
      expect(Math.floor(dma / 8192)).toBe(Math.floor((dma + 2999 + i * 100) / 8192));
    }
  });

  it("D5 a full pool: DMA_MAPPING_ERROR, the warning, nothing left behind", () => {
    const { w, dev } = rig({ swiotlbBytes: 256 * KIB });
    const buffer = w.highPages(6);
    const maps: DmaAddr[] = [];
    w.takeLog();
    for (let i = 0; i < 17; i++)
      maps.push(w.dma.mapSingle(w.ctx, dev, asPhys(buffer + i * 4096), 16 * KIB, DMA_TO_DEVICE));
    expect(maps.filter((dma) => dma === DMA_MAPPING_ERROR)).toHaveLength(1);
    const full = "ide hda: swiotlb buffer is full (sz: 16384 bytes), total 128 (slots), used 128 (slots)";
    expect(w.takeLog()).toBe(full);
    expect([w.system.swiotlb.nrFull(), w.dma.nrLive()]).toEqual([1, 16]);
    for (const dma of maps.slice(0, 16)) {
      w.dma.mappingError(dev, dma);
      w.dma.unmapSingle(w.ctx, dev, dma, 16 * KIB, DMA_TO_DEVICE);
    }
    expect([w.system.swiotlb.used(), w.system.swiotlb.usedHiwater(), w.dma.check()]).toEqual([0, 128, null]);
  });

  it("SWI-1 SWI-5 random maps and unmaps keep the counts, and no two buffers share a slot", () => {
    const step = fc.record({ isMap: fc.boolean(), bytes: fc.integer({ min: 1, max: 100_000 }), pick: fc.nat(1000) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.constantFrom(0, 0xfff, 0x1ff), (steps, align) => {
        const { w, dev } = rig({ ramBytes: 24 << 20 });
        w.dma.setMinAlignMask(dev, align);
        const buffer = w.highPages(6);
        const live: { dma: DmaAddr; bytes: number }[] = [];
        for (const { isMap, bytes, pick } of steps) {
          if (isMap) {
            const dma = w.dma.mapSingle(w.ctx, dev, asPhys(buffer + pick), bytes, DMA_TO_DEVICE);
            if (!w.dma.mappingError(dev, dma)) live.push({ dma, bytes });
          } else if (live.length > 0) {
            const [gone] = live.splice(pick % live.length, 1);
            if (gone) w.dma.unmapSingle(w.ctx, dev, gone.dma, gone.bytes, DMA_TO_DEVICE);
          }
          expect(w.dma.check()).toBeNull();
          const slots = live.flatMap(({ dma, bytes: n }) => {
            const first = Math.floor(dma / 2048);
            return Array.from({ length: Math.floor((dma + n - 1) / 2048) - first + 1 }, (_, i) => first + i);
          });
          expect(new Set(slots).size).toBe(slots.length);
        }
      }),
      { numRuns: 30, seed: 11 },
    );
  });
});

describe("ZONE_DMA under pressure", () => {
  const exhaust = (w: DmaWorld, gfp: number): PhysAddr[] => {
    const got: PhysAddr[] = [];
    for (;;) {
      const pfn = w.pageAlloc.tryAllocPages(w.ctx, 0, gfp);
      if (pfn === 0) return got;
      got.push(asPhys(pfn * 4096));
    }
  };

  it("W3 others stop at the lowmem reserve; a device still gets ZONE_DMA, bounces, and reaches its data", () => {
    const { w, dev, master } = rig();
    const buffer = w.highPages(0);
    const others = exhaust(w, GFP_KERNEL);
    w.pageAlloc.drainAllPages(w.ctx);
    // Index 2: requests that could have used Normal. The reserve is what they left.
    expect(w.zones.field(ZONE_DMA, Z_NR_FREE)).toBeGreaterThanOrEqual(w.zones.field(ZONE_DMA, Z_LOWMEM_RESERVE + 8));
    const ring = coherent(w, dev, 4096);
    expect(ring?.dma).toBeLessThan(2 ** 24);
    const content = w.fill(buffer, 4096, 8);
    const dma = w.dma.mapSingle(w.ctx, dev, buffer, 4096, DMA_TO_DEVICE);
    expect(w.dma.mappingError(dev, dma)).toBe(false);
    expect(master.read(dma, 4096)).toEqual(content);
    for (const page of others) w.freePages(page, 0);
  });

  it("D5 with ZONE_DMA gone to its own users, mappings go on from the pool and coherent memory fails cleanly", () => {
    const { w, dev, master } = rig();
    const buffer = w.highPages(0);
    const users = exhaust(w, GFP_KERNEL | __GFP_DMA);
    expect(coherent(w, dev, 4096)).toBeNull();
    expect(w.takeLog()).toContain("page allocation failure");
    const content = w.fill(buffer, 2048, 2);
    const dma = w.dma.mapSingle(w.ctx, dev, buffer, 2048, DMA_TO_DEVICE);
    w.dma.mappingError(dev, dma);
    expect(master.read(dma, 2048)).toEqual(content);
    w.dma.unmapSingle(w.ctx, dev, dma, 2048, DMA_TO_DEVICE);
    for (const page of users) w.freePages(page, 0);
    expect(coherent(w, dev, 4096)).not.toBeNull();
  });
});
