/**
 * The DmaMapOps seam: one suite over direct mappings, bounce buffers and the IOMMU, with an oracle and a guard.
 *
 * Goal: OPS-1 … OPS-5, D3, DMA-1, GRD-1. Method: fast-check runs programs of map, sync, unmap, CPU stores and device
 * transfers, also wild ones, against a model: one array of bytes per buffer, and who owns it. The machine has a guard
 * port and dma-debug: a correct program must move the model's bytes and be silent on both.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { BusMaster } from "../../kernel/arch/dma_bus.ts";
import { asDma, asPhys, type PhysAddr } from "../../kernel/types.ts";
import type { DmaDevice } from "../../mm/dma_device.ts";
import {
  DMA_FROM_DEVICE,
  DMA_MAPPING_ERROR,
  DMA_TO_DEVICE,
  type DmaDirection,
  deviceReads,
  deviceWrites,
} from "../../mm/dma_ops.ts";
import { createDmaWorld, type DmaWorld } from "../support/dma_world.ts";

const BUFFER_BYTES = 6000;
const NR_BUFFERS = 3;

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

/** A buffer, what it should hold, and who may touch it. */
interface Buffer {
  readonly addr: PhysAddr;
  readonly model: Uint8Array;
  dma: number;
  direction: DmaDirection;
  owner: "cpu" | "device" | "cpu, mapped";
  hasCpuWritten: boolean;
}

interface Rig {
  readonly w: DmaWorld;
  readonly dev: DmaDevice;
  readonly master: BusMaster;
  readonly buffers: readonly Buffer[];
}

const createRig = ({ isIommu, maskBits }: Backend): Rig => {
  const w = createDmaWorld({ nrCpus: 1, ramBytes: 20 << 20, isIommu, port: "guard" });
  const { dev, master } = w.device({ maskBits });
  const buffers = Array.from({ length: NR_BUFFERS }, (_, i): Buffer => {
    // Starts and ends inside cache lines, and crosses a page.
    const addr = asPhys(w.highPages(1) + 72);
    const model = w.fill(addr, BUFFER_BYTES, i);
    return { addr, model, dma: 0, direction: DMA_TO_DEVICE, owner: "cpu", hasCpuWritten: false };
  });
  w.takeLog();
  return { w, dev, master, buffers };
};

type Step =
  | { readonly kind: "map"; readonly i: number; readonly direction: DmaDirection }
  | { readonly kind: "unmap" | "forCpu" | "forDevice" | "read" | "wild"; readonly i: number }
  | {
      readonly kind: "cpu" | "device";
      readonly i: number;
      readonly at: number;
      readonly length: number;
      readonly v: number;
    };

const index = fc.nat(NR_BUFFERS - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant("map" as const), i: index, direction: fc.constantFrom<DmaDirection>(0, 1, 2) }),
  fc.record({ kind: fc.constantFrom("unmap", "forCpu", "forDevice", "read", "wild" as const), i: index }),
  fc.record({
    kind: fc.constantFrom("cpu" as const, "device" as const),
    i: index,
    at: fc.nat(BUFFER_BYTES - 1),
    length: fc.integer({ min: 1, max: 300 }),
    v: fc.nat(255),
  }),
);

const cpuView = ({ w }: Rig, buffer: Buffer): Uint8Array => w.bytes(buffer.addr, BUFFER_BYTES);

const mapStep = ({ w, dev }: Rig, buffer: Buffer, direction: DmaDirection): void => {
  if (buffer.owner !== "cpu") return;
  buffer.dma = w.dma.mapSingle(w.ctx, dev, buffer.addr, BUFFER_BYTES, direction);
  if (w.dma.mappingError(dev, asDma(buffer.dma))) throw new Error("a mapping failed");
  Object.assign(buffer, { direction, owner: "device" });
};

const unmapStep = (rig: Rig, buffer: Buffer): void => {
  // What the CPU wrote after syncForCpu must go to the device before the end: D3.
  if (buffer.owner === "cpu" || (buffer.owner === "cpu, mapped" && buffer.hasCpuWritten)) return;
  rig.w.dma.unmapSingle(rig.w.ctx, rig.dev, asDma(buffer.dma), BUFFER_BYTES, buffer.direction);
  buffer.owner = "cpu";
  expect(cpuView(rig, buffer)).toEqual(buffer.model);
};

const forCpuStep = (rig: Rig, buffer: Buffer): void => {
  if (buffer.owner !== "device") return;
  rig.w.dma.syncSingleForCpu(rig.w.ctx, rig.dev, asDma(buffer.dma), BUFFER_BYTES, buffer.direction);
  Object.assign(buffer, { owner: "cpu, mapped", hasCpuWritten: false });
  expect(cpuView(rig, buffer)).toEqual(buffer.model);
};

const forDeviceStep = ({ w, dev }: Rig, buffer: Buffer): void => {
  if (buffer.owner !== "cpu, mapped") return;
  w.dma.syncSingleForDevice(w.ctx, dev, asDma(buffer.dma), BUFFER_BYTES, buffer.direction);
  buffer.owner = "device";
};

const cpuStep = ({ w }: Rig, buffer: Buffer, at: number, bytes: Uint8Array): void => {
  const isAllowed = buffer.owner === "cpu" || (buffer.owner === "cpu, mapped" && buffer.direction !== DMA_FROM_DEVICE);
  if (!isAllowed) return;
  w.machine.port.writeBytes(buffer.addr + at, bytes);
  buffer.model.set(bytes, at);
  buffer.hasCpuWritten = true;
};

const deviceStep = ({ master }: Rig, buffer: Buffer, at: number, bytes: Uint8Array): void => {
  if (buffer.owner === "cpu, mapped") return;
  const isAllowed = buffer.owner === "device" && deviceWrites(buffer.direction);
  if (buffer.owner === "cpu" && buffer.dma === 0) return;
  expect(master.write(buffer.dma + at, bytes)).toBe(isAllowed);
  if (isAllowed) buffer.model.set(bytes, at);
};

const readStep = ({ master }: Rig, buffer: Buffer): void => {
  if (buffer.owner !== "device") return;
  const got = master.read(buffer.dma, BUFFER_BYTES);
  expect(got).toEqual(deviceReads(buffer.direction) ? buffer.model : null);
};

/** A transfer that starts inside the mapping and ends outside moves nothing. */
const wildStep = ({ master }: Rig, buffer: Buffer): void => {
  if (buffer.owner !== "device") return;
  expect(master.write(buffer.dma + BUFFER_BYTES - 4, new Uint8Array(8).fill(0xee))).toBe(false);
  expect(master.write(buffer.dma - 4, new Uint8Array(8).fill(0xee))).toBe(false);
};

const bytesOf = ({ at, length, v }: { at: number; length: number; v: number }): Uint8Array =>
  new Uint8Array(Math.min(length, BUFFER_BYTES - at)).fill(v);

const play = (rig: Rig, s: Step): void => {
  const buffer = rig.buffers[s.i] as Buffer;
  if (s.kind === "map") mapStep(rig, buffer, s.direction);
  else if (s.kind === "unmap") unmapStep(rig, buffer);
  else if (s.kind === "forCpu") forCpuStep(rig, buffer);
  else if (s.kind === "forDevice") forDeviceStep(rig, buffer);
  else if (s.kind === "read") readStep(rig, buffer);
  else if (s.kind === "wild") wildStep(rig, buffer);
  else if (s.kind === "cpu") cpuStep(rig, buffer, s.at, bytesOf(s));
  else if (s.kind === "device") deviceStep(rig, buffer, s.at, bytesOf(s));
};

/** Ends every mapping as a driver would, and looks whether anything is left. */
const finish = (rig: Rig): void => {
  const { w, dev, buffers } = rig;
  for (const buffer of buffers) {
    forDeviceStep(rig, buffer);
    unmapStep(rig, buffer);
  }
  expect(w.dma.check()).toBeNull();
  expect([w.dma.nrLive(), w.system.swiotlb.used(), w.machine.guard?.nrOwnedBytes()]).toEqual([0, 0, 0]);
  for (const buffer of buffers) w.freePages(asPhys(buffer.addr - 72), 1);
  w.dma.releaseDevice(w.ctx, dev);
  w.expectNoObjectLeak();
};

describe.each(BACKENDS)("DmaMapOps: $name", (backend) => {
  it("OPS-1 … OPS-3 D3 random programs move the oracle's bytes; guard and dma-debug are silent", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const rig = createRig(backend);
        for (const each of steps) {
          play(rig, each);
          expect(rig.w.dma.check()).toBeNull();
        }
        finish(rig);
        expect(rig.w.takeLog()).not.toContain("DMA-API");
        expect(rig.w.machine.guard?.nrViolations()).toBe(0);
      }),
      { numRuns: 40, seed: 20_261_126 },
    );
  });

  it("OPS-4 scatter-gather carries the entries' bytes within segment and boundary, all or nothing", () => {
    const entry = fc.record({ at: fc.nat(30_000), bytes: fc.integer({ min: 1, max: 4096 }) });
    fc.assert(
      fc.property(fc.array(entry, { minLength: 1, maxLength: 12 }), fc.boolean(), (entries, isAdjacent) => {
        const { isIommu, maskBits } = backend;
        const w = createDmaWorld({ nrCpus: 1, ramBytes: 20 << 20, isIommu });
        const { dev, master } = w.device({ maskBits, maxSegmentBytes: 8192, boundaryBytes: 16_384 });
        const [memory, sgl] = [w.highPages(4), w.lowPages(0)];
        const content = w.fill(memory, 65_536, 9);
        let next = 0;
        const placed = entries.map(({ at, bytes }) => {
          const start = isAdjacent ? next : at;
          // An entry of the driver's must not itself cross the boundary.
          const room = 16_384 - ((memory + start) % 16_384);
          next = start + Math.min(bytes, room);
          return { start, bytes: Math.min(bytes, room) };
        });
        for (const [i, { start, bytes }] of placed.entries()) w.dma.sgSet(sgl, i, asPhys(memory + start), bytes);
        const nr = w.dma.mapSg(w.ctx, dev, sgl, placed.length, DMA_TO_DEVICE);
        expect(nr).toBeGreaterThan(0);
        const got: number[] = [];
        for (let i = 0; i < nr; i++) {
          // BUS-2 refuses what is too long or crosses.
          got.push(...(master.read(w.dma.sgDmaAddress(sgl, i), w.dma.sgDmaLength(sgl, i)) ?? [-1]));
        }
        expect(got).toEqual(placed.flatMap(({ start, bytes }) => [...content.subarray(start, start + bytes)]));
        w.dma.unmapSg(w.ctx, dev, sgl, placed.length, DMA_TO_DEVICE);
        expect([w.dma.nrLive(), w.system.swiotlb.used(), w.dma.check()]).toEqual([0, 0, null]);
      }),
      { numRuns: 40, seed: 5 },
    );
  });

  it("OPS-5 map, sync and unmap work in an interrupt handler", () => {
    const rig = createRig(backend);
    const { w, dev, master } = rig;
    const buffer = rig.buffers[0] as Buffer;
    w.contexts.add(w.irq, 0x1_0000);
    const dma = w.dma.mapSingle(w.irq, dev, buffer.addr, 1500, DMA_FROM_DEVICE);
    expect(w.dma.mappingError(dev, dma)).toBe(false);
    expect(master.write(dma, new Uint8Array(1500).fill(1))).toBe(true);
    w.dma.syncSingleForCpu(w.irq, dev, dma, 1500, DMA_FROM_DEVICE);
    w.dma.syncSingleForDevice(w.irq, dev, dma, 1500, DMA_FROM_DEVICE);
    w.dma.unmapSingle(w.irq, dev, dma, 1500, DMA_FROM_DEVICE);
    w.contexts.subtract(w.irq, 0x1_0000);
    expect(w.bytes(buffer.addr, 1500)).toEqual(new Uint8Array(1500).fill(1));
    expect(w.contexts.nrAtomicSleeps()).toBe(0);
    expect(dma).not.toBe(DMA_MAPPING_ERROR);
  });
});
