/**
 * The guard port: CPU accesses to memory that a device owns, BUGS row 23.
 *
 * Goal: GRD-1 … GRD-3, D3 for each direction. Method: small drivers on a guarded machine that touch what they gave
 * away, and their twins that sync first; the port alone under random marks against a byte-wise oracle.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DENY_LOAD, DENY_STORE, GuardPort } from "../../kernel/arch/guard_port.ts";
import { createRam, RawPort } from "../../kernel/arch/port.ts";
import { asPhys, type DmaAddr, type PhysAddr } from "../../kernel/types.ts";
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE, type DmaDirection } from "../../mm/dma_ops.ts";
import { bootKernel } from "../support/boot_kernel.ts";
import { createDmaWorld, type DmaWorld } from "../support/dma_world.ts";

const NAMES = ["DMA_BIDIRECTIONAL", "DMA_TO_DEVICE", "DMA_FROM_DEVICE"];

/** What the port says about a load and a store now. */
const probe = (w: DmaWorld, addr: PhysAddr): { load: boolean; store: boolean } => {
  const before = w.machine.guard?.nrViolations() ?? 0;
  const value = w.machine.port.ld32(addr);
  const afterLoad = w.machine.guard?.nrViolations() ?? 0;
  w.machine.port.st32(addr, value);
  return { load: afterLoad === before, store: (w.machine.guard?.nrViolations() ?? 0) === afterLoad };
};

const FREE = { load: true, store: true };
const READ_ONLY = { load: true, store: false };
const NOTHING = { load: false, store: false };

describe.each([
  { maskBits: 32, isIommu: false, what: "direct" },
  { maskBits: 24, isIommu: false, what: "bounced" },
  { maskBits: 32, isIommu: true, what: "IOMMU" },
])("D3 ownership, $what", ({ maskBits, isIommu }) => {
  const cases: readonly (readonly [DmaDirection, typeof FREE, typeof FREE])[] = [
    [DMA_TO_DEVICE, READ_ONLY, FREE],
    [DMA_FROM_DEVICE, NOTHING, READ_ONLY],
    [DMA_BIDIRECTIONAL, NOTHING, FREE],
  ];
  for (const [direction, mapped, synced] of cases) {
    it(`GRD-1 ${NAMES[direction]}: mapped, synced for the CPU, for the device, unmapped`, () => {
      const w = createDmaWorld({ nrCpus: 1, ramBytes: 20 << 20, port: "guard", isIommu });
      const { dev } = w.device({ maskBits, driver: "e1000", name: "eth0" });
      const buffer = w.highPages(1);
      w.takeLog();
      const dma = w.dma.mapSingle(w.ctx, dev, buffer, 6000, direction);
      w.dma.mappingError(dev, dma);
      const far = asPhys(buffer + 5000);
      expect([probe(w, buffer), probe(w, far)]).toEqual([mapped, mapped]);
      expect(w.takeLog()).toMatch(
        /^DMA-API: e1000 eth0: CPU store to memory while the device owns it \[address=0x\w{16}\] \[size=4 bytes\] \[mapped with DMA_\w+\]$/m,
      );
      w.dma.syncSingleForCpu(w.ctx, dev, dma, 6000, direction);
      w.dma.syncSingleForCpu(w.ctx, dev, dma, 6000, direction);
      expect([probe(w, buffer), probe(w, far)]).toEqual([synced, synced]);
      w.dma.syncSingleForDevice(w.ctx, dev, dma, 6000, direction);
      expect(probe(w, buffer)).toEqual(mapped);
      w.dma.syncSingleForCpu(w.ctx, dev, (dma + 4096) as DmaAddr, 1904, direction);
      expect([probe(w, buffer), probe(w, far)]).toEqual([mapped, synced]);
      w.dma.unmapSingle(w.ctx, dev, dma, 6000, direction);
      expect([probe(w, buffer), probe(w, far)]).toEqual([FREE, FREE]);
      expect(w.machine.guard?.nrOwnedBytes()).toBe(0);
    });
  }

  it("GRD-1 a block freed while the device owns it is seen when the allocator writes to it", () => {
    const w = createDmaWorld({ nrCpus: 1, ramBytes: 20 << 20, port: "guard", isIommu });
    const { dev } = w.device({ maskBits });
    const block = w.slab.kmalloc.kmallocAny(w.ctx, 2048, 0xcc0) as PhysAddr;
    w.dma.mappingError(dev, w.dma.mapSingle(w.ctx, dev, block, 2048, DMA_FROM_DEVICE));
    w.slab.kmalloc.kfree(w.ctx, block);
    w.slab.shrinkAll(w.ctx);
    w.slab.kmalloc.kmallocAny(w.ctx, 2048, 0xdc0);
    expect(w.machine.guard?.nrViolations()).toBeGreaterThan(0);
  });
});

describe("scatter-gather", () => {
  it("GRD-1 each entry is guarded, and free after unmapSg", () => {
    const w = createDmaWorld({ nrCpus: 1, ramBytes: 20 << 20, port: "guard" });
    const { dev } = w.device();
    const [buffer, sgl] = [w.highPages(1), w.lowPages(0)];
    w.dma.sgSet(sgl, 0, buffer, 512);
    w.dma.sgSet(sgl, 1, asPhys(buffer + 4096), 512);
    expect(w.dma.mapSg(w.ctx, dev, sgl, 2, DMA_FROM_DEVICE)).toBe(2);
    expect([0, 4096, 512].map((at) => probe(w, asPhys(buffer + at)))).toEqual([NOTHING, NOTHING, FREE]);
    w.dma.syncSgForCpu(w.ctx, dev, sgl, 2, DMA_FROM_DEVICE);
    expect(probe(w, asPhys(buffer + 4096))).toEqual(READ_ONLY);
    w.dma.syncSgForDevice(w.ctx, dev, sgl, 2, DMA_FROM_DEVICE);
    expect(probe(w, asPhys(buffer + 4096))).toEqual(NOTHING);
    w.dma.unmapSg(w.ctx, dev, sgl, 2, DMA_FROM_DEVICE);
    expect(probe(w, asPhys(buffer + 4096))).toEqual(FREE);
    expect(w.machine.guard?.nrOwnedBytes()).toBe(0);
  });
});

describe("the port alone", () => {
  it("GRD-1 GRD-2 reports exactly what the marks forbid, to the byte", () => {
    const mark = fc.record({
      isOwn: fc.boolean(),
      owner: fc.constantFrom(8, 16),
      start: fc.nat(9000),
      bytes: fc.integer({ min: 1, max: 5000 }),
      deny: fc.constantFrom(DENY_STORE, DENY_LOAD | DENY_STORE),
    });
    const access = fc.record({ at: fc.nat(3900), bytes: fc.integer({ min: 1, max: 200 }), isStore: fc.boolean() });
    fc.assert(
      fc.property(fc.array(mark, { maxLength: 10 }), fc.array(access, { maxLength: 30 }), (marks, accesses) => {
        const port = new GuardPort(new RawPort(createRam(16_384)));
        const oracle = new Map([8, 16].map((owner) => [owner, new Uint8Array(16_384)]));
        for (const { isOwn, owner, start, bytes, deny } of marks) {
          if (isOwn) port.guard.own(owner, start, bytes, deny, "");
          else port.guard.release(owner, start, bytes);
          oracle.get(owner)?.fill(isOwn ? deny : 0, start, start + bytes);
        }
        const owned = [...oracle.values()].reduce((sum, bytes) => sum + bytes.filter((deny) => deny !== 0).length, 0);
        expect(port.guard.nrOwnedBytes()).toBe(owned);
        for (const { at, bytes, isStore } of accesses) {
          const before = port.guard.nrViolations();
          if (isStore) port.fill(at * 3, 1, bytes);
          else port.readBytes(at * 3, bytes);
          const bit = isStore ? DENY_STORE : DENY_LOAD;
          const isForbidden = [...oracle.values()].some((map) =>
            map.subarray(at * 3, at * 3 + bytes).some((deny) => (deny & bit) !== 0),
          );
          expect(port.guard.nrViolations() - before).toBe(isForbidden ? 1 : 0);
        }
      }),
      { numRuns: 200, seed: 23 },
    );
  });

  it("GRD-3 dma_guard=on boots a kernel on it", () => {
    const t = bootKernel({}, { cmdline: "quiet dma_guard=on" });
    expect(t.kernel.check()).toBeNull();
  });
});
