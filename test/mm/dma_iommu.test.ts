/**
 * The IOMMU: bus addresses of its own, page tables, strict flushing, faults in DMAR's words.
 *
 * Goal: IMU-1, IMU-2, IOM-1 … IOM-4. Method: a machine with iommu=on; the device tries what it was not given; random
 * programs with the auditor of ranges and tables after each step.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asPhys, type DmaAddr } from "../../kernel/types.ts";
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE, type DmaDirection } from "../../mm/dma_ops.ts";
import { bootKernel } from "../support/boot_kernel.ts";
import { coherent, createDmaWorld, type DmaWorldOptions } from "../support/dma_world.ts";
import { runs } from "../support/runs.ts";

const rig = (options: DmaWorldOptions = {}, spec = {}) => {
  const w = createDmaWorld({ nrCpus: 1, ramBytes: 32 << 20, isIommu: true, ...options });
  const { dev, master } = w.device({ name: "nic0", ...spec });
  w.takeLog();
  return { w, dev, master };
};

describe("addresses", () => {
  it("IOM-1 come from the top of the mask, never page 0, and are not the memory's", () => {
    const { w, dev, master } = rig({}, { maskBits: 24 });
    const buffer = w.highPages(0);
    const content = w.fill(buffer, 4096, 1);
    const dma = w.dma.mapSingle(w.ctx, dev, asPhys(buffer + 100), 1000, DMA_TO_DEVICE);
    expect(dma).toBe(0xff_f000 + 100);
    expect(w.dma.mappingError(dev, dma)).toBe(false);
    expect(master.read(dma, 1000)).toEqual(content.slice(100, 1100));
    w.dma.unmapSingle(w.ctx, dev, dma, 1000, DMA_TO_DEVICE);
  });

  it("IOM-4 coherent memory of a 24-bit device lies anywhere in RAM, and nothing bounces", () => {
    const { w, dev, master } = rig({}, { maskBits: 24 });
    const ring = coherent(w, dev, 16_384);
    if (ring === null) throw new Error("no memory");
    expect(ring.cpu).toBeGreaterThan(2 ** 24);
    expect([ring.dma % 16_384, ring.cpu % 16_384]).toEqual([0, 0]);
    const content = w.fill(ring.cpu, 16_384, 4);
    expect(master.read(ring.dma, 16_384)).toEqual(content);
    expect(w.system.swiotlb.nslabs()).toBe(0);
  });

  it("useIommu: false leaves a device on physical addresses", () => {
    const { w, dev } = rig({}, { useIommu: false });
    const buffer = w.highPages(0);
    expect(w.dma.mapSingle(w.ctx, dev, buffer, 64, DMA_TO_DEVICE)).toBe(buffer);
  });

  it("iommu=off, the default, allocates nothing and translates nothing", () => {
    const { w, dev } = rig({ isIommu: false });
    const buffer = w.highPages(0);
    expect(w.dma.mapSingle(w.ctx, dev, buffer, 64, DMA_TO_DEVICE)).toBe(buffer);
    expect(bootKernel({}, { cmdline: "quiet iommu=on" }).kernel.check()).toBeNull();
  });
});

describe("what a device reads", () => {
  it("BUS-1 read() gives a copy, view() what is there now; pages that lie apart are put together in either", () => {
    for (const isIommu of [false, true]) {
      const { w, dev, master } = rig({ isIommu });
      const ring = coherent(w, dev, 8192);
      if (ring === null) throw new Error("no memory");
      const content = w.fill(ring.cpu, 8192, 2);
      const [copy, view] = [master.read(ring.dma, 8192), master.view(ring.dma, 8192)];
      expect([copy, view]).toEqual([content, content]);
      w.fill(ring.cpu, 8192, 3);
      expect(copy).toEqual(content);
      expect([master.view(ring.dma + 8192, 8), master.view(0, 8)]).toEqual([null, null]);
    }
  });
});

describe("faults", () => {
  it("IMU-2 no entry, wrong direction: the words of VT-d, and nothing moves", () => {
    const { w, dev, master } = rig();
    const buffer = w.highPages(0);
    expect(master.write(0x1234, new Uint8Array(4))).toBe(false);
    expect(master.read(0x1234, 4)).toBeNull();
    expect(w.takeLog().split("\n")).toEqual(
      [
        "DMAR: DRHD: handling fault status reg 2",
        "DMAR: [DMA Write NO_PASID] Request device [nic0] fault addr 0x1234 [fault reason 0x05] PTE Write access is not set",
        "DMAR: DRHD: handling fault status reg 2",
        "DMAR: [DMA Read NO_PASID] Request device [nic0] fault addr 0x1234 [fault reason 0x06] PTE Read access is not set",
      ].map((line) => line.replaceAll("nic0", master.name)),
    );
    const before = w.fill(buffer, 64, 1);
    const dma = w.dma.mapSingle(w.ctx, dev, buffer, 64, DMA_TO_DEVICE);
    expect(master.write(dma, new Uint8Array(64))).toBe(false);
    expect(w.takeLog()).toContain("[fault reason 0x05]");
    expect(w.bytes(buffer, 64)).toEqual(before);
  });

  it("DMA-1 within a mapped page, beyond the mapping: the bus refuses what the tables would allow", () => {
    const { w, dev, master } = rig();
    const buffer = w.highPages(0);
    const dma = w.dma.mapSingle(w.ctx, dev, buffer, 64, DMA_BIDIRECTIONAL);
    expect(master.read(dma + 64, 4)).toBeNull();
    expect(w.takeLog()).toContain("DMA bus fault: dev0: read of 4 bytes at");
  });

  it("IOM-3 a device that reached a page before cannot after unmap, although the IOTLB knew it", () => {
    const { w, dev, master } = rig();
    const buffer = w.highPages(0);
    const dma = w.dma.mapSingle(w.ctx, dev, buffer, 4096, DMA_FROM_DEVICE);
    w.dma.mappingError(dev, dma);
    expect(master.write(dma, new Uint8Array(4096))).toBe(true);
    w.dma.unmapSingle(w.ctx, dev, dma, 4096, DMA_FROM_DEVICE);
    expect(master.write(dma, new Uint8Array(4))).toBe(false);
    expect(w.takeLog()).toContain("DMAR: [DMA Write NO_PASID]");
  });

  it("IMU-1 an entry taken out without a flush is still reached: what strict mode is for", () => {
    const { w } = rig();
    const unit = w.machine.iommu.createDomain(0x40_0000);
    w.machine.port.fill(0x40_0000, 0, 8192);
    w.machine.port.st32(0x40_0000, 0x40_1003);
    w.machine.port.st32(0x40_1000 + 5 * 4, 0x50_0003);
    expect(unit.translate(0x5010, 1)).toBe(0x50_0010);
    w.machine.port.st32(0x40_1000 + 5 * 4, 0);
    expect(unit.translate(0x5010, 1)).toBe(0x50_0010);
    unit.flush(0x5000, 1);
    expect(unit.translate(0x5010, 1)).toBe(-6);
    expect(unit.translate(2 ** 32, 1)).toBe(-4);
    expect(unit.walks()).toBe(2);
  });
});

describe("programs", () => {
  it("IOM-1 IOM-2 random maps and unmaps in a small address space", () => {
    const step = fc.record({
      isMap: fc.boolean(),
      bytes: fc.integer({ min: 1, max: 40_000 }),
      at: fc.nat(60_000),
      pick: fc.nat(1000),
      direction: fc.constantFrom<DmaDirection>(DMA_TO_DEVICE, DMA_TO_DEVICE),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        // 20 bits: 255 pages of bus addresses, so that the space runs out.
        const { w, dev, master } = rig({}, { maskBits: 20 });
        const memory = w.highPages(5);
        const content = w.fill(memory, 131_072, 1);
        const live: { dma: DmaAddr; bytes: number; at: number }[] = [];
        for (const { isMap, bytes, at, pick, direction } of steps) {
          if (isMap) {
            const dma = w.dma.mapSingle(w.ctx, dev, asPhys(memory + at), bytes, direction);
            if (!w.dma.mappingError(dev, dma)) live.push({ dma, bytes, at });
          } else if (live.length > 0) {
            const [gone] = live.splice(pick % live.length, 1);
            if (gone) w.dma.unmapSingle(w.ctx, dev, gone.dma, gone.bytes, direction);
          }
          expect(w.dma.check()).toBeNull();
        }
        for (const { dma, bytes, at } of live) {
          expect(master.read(dma, bytes)).toEqual(content.slice(at, at + bytes));
          w.dma.unmapSingle(w.ctx, dev, dma, bytes, DMA_TO_DEVICE);
        }
        w.freePages(memory, 5);
        w.dma.releaseDevice(w.ctx, dev);
        w.expectNoObjectLeak();
      }),
      { numRuns: runs(12, 30), seed: 3 },
    );
  });
});
