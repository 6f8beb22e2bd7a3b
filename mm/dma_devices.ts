/**
 * The devices that do DMA: making, finding and releasing struct device, and which DmaMapOps serves each.
 *
 *   DEV-1  a device is on the list exactly between create and release
 *   DEV-2  create takes: struct, ops, limits on the bus. It fails half-way with nothing taken
 *   DEV-3  after release the master has no window and no translation: whatever it tries is refused
 *   DEV-4  what the first device made everything take (pools, debug entries) goes back after the last
 *
 * Context: create, release, setMask in process context. Lock: one word around the list.
 */

import type { BusMaster } from "../kernel/arch/dma_bus.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { bug, bugOn } from "../kernel/bug.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { initListHead, listAddTail, listDel, listIsEmpty, listNext } from "../kernel/lib/list.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { asPhys, type Context, NULL, type PhysAddr, type TaskContext } from "../kernel/types.ts";
import { EIO } from "../kernel/uapi/errno.ts";
import type { CoherentMemory } from "./dma_coherent.ts";
import type { DmaDebug } from "./dma_debug.ts";
import {
  asDevice,
  DEV_BOUNDARY,
  DEV_COHERENT_MASK,
  DEV_MAGIC,
  DEV_MASK,
  DEV_MASTER,
  DEV_MAX_SEGMENT,
  DEV_MIN_ALIGN_MASK,
  DEV_NR_COHERENT,
  DEV_NR_MAPPINGS,
  DEV_OPS,
  DEV_POOLS,
  DEVICE_BYTES,
  DEVICE_MAGIC,
  type DmaDevice,
  maskEnd,
  NO_DEVICE,
  setDeviceNames,
} from "./dma_device.ts";
import type { DmaMapOps } from "./dma_ops.ts";
import { __GFP_NOWARN, __GFP_ZERO, GFP_NOWAIT } from "./gfp.ts";
import type { Kmalloc } from "./kmalloc.ts";
import type { Swiotlb } from "./swiotlb.ts";

export const DMA_DEVICES_STATIC_BYTES = 16;
const HEAD = 0;
const LOCK = 8;

export const OPS_DIRECT = 0;
export const OPS_IOMMU = 1;

/** What Linux assumes of a device whose driver says nothing: 64 KiB a segment. */
const DEFAULT_MAX_SEGMENT = 65_536;

export interface DmaDeviceSpec {
  readonly name: string;
  readonly driver: string;
  readonly master: BusMaster;
  /** Address lines for streaming mappings; default 32. */
  readonly maskBits?: number;
  /** For coherent memory; default as maskBits. */
  readonly coherentMaskBits?: number;
  /** Bytes of one segment; default 64 KiB. */
  readonly maxSegmentBytes?: number;
  /** No segment crosses a multiple of this power of two; default none. */
  readonly boundaryBytes?: number;
  /** Behind the IOMMU, if it is switched on; default true. */
  readonly useIommu?: boolean;
}

export interface DmaDevices {
  create(ctx: TaskContext, spec: DmaDeviceSpec): DmaDevice;
  release(ctx: TaskContext, dev: DmaDevice): void;
  setMask(dev: DmaDevice, bits: number): number;
  setMinAlignMask(dev: DmaDevice, mask: number): void;
  maxMappingBytes(dev: DmaDevice): number;
  ops(index: number): DmaMapOps;
  master(dev: DmaDevice): BusMaster;
  forEach(visit: (dev: DmaDevice) => void): void;
  /** Called when a device was made, and before one goes: for its files. */
  onDevice(hook: (dev: DmaDevice, isNew: boolean) => void): void;
  nrLive(): number;
  check(): string | null;
}

export interface DmaDevicesDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly spinlocks: Spinlocks;
  readonly kmalloc: Kmalloc;
  readonly swiotlb: Swiotlb;
  readonly coherent: CoherentMemory;
  /** null: switched off. */
  readonly debug: DmaDebug | null;
  /** By OPS_ number; the IOMMU's is null when it is switched off. */
  readonly opsTable: readonly [direct: DmaMapOps, iommu: DmaMapOps | null];
  /** DMA_DEVICES_STATIC_BYTES of zeroed static memory, 8-aligned. */
  readonly statics: PhysAddr;
}

export function createDmaDevices(deps: DmaDevicesDeps): DmaDevices {
  const { machine, contexts, spinlocks, kmalloc, swiotlb, coherent, debug, opsTable, statics } = deps;
  const { port, dmaBus } = machine;
  const head = asPhys(statics + HEAD);
  const lock = asPhys(statics + LOCK);
  // Bus masters are hardware: the struct device holds their number.
  const masters: BusMaster[] = [];
  let announce: (dev: DmaDevice, isNew: boolean) => void = () => {};
  initListHead(port, head);

  const ops = (index: number): DmaMapOps => opsTable[index] ?? bug("dma: a device with unknown map ops", index);
  const opsFor = (dev: DmaDevice): DmaMapOps => ops(port.ld32(dev + DEV_OPS));
  const master = (dev: DmaDevice): BusMaster => {
    bugOn(port.ld32(dev + DEV_MAGIC) !== DEVICE_MAGIC, "dma: not a device, or one that was released", dev);
    return masters[port.ld32(dev + DEV_MASTER)] as BusMaster;
  };

  const numberOf = (busMaster: BusMaster): number => {
    const known = masters.indexOf(busMaster);
    return known >= 0 ? known : masters.push(busMaster) - 1;
  };

  const fill = (dev: DmaDevice, spec: DmaDeviceSpec, opsIndex: number): void => {
    const maskBits = spec.maskBits ?? 32;
    port.fill(dev, 0, DEVICE_BYTES);
    initListHead(port, dev);
    initListHead(port, asPhys(dev + DEV_POOLS));
    port.st32(dev + DEV_MAGIC, DEVICE_MAGIC);
    port.st32(dev + DEV_MASK, maskBits);
    port.st32(dev + DEV_COHERENT_MASK, spec.coherentMaskBits ?? maskBits);
    port.st32(dev + DEV_MAX_SEGMENT, spec.maxSegmentBytes ?? DEFAULT_MAX_SEGMENT);
    port.st32(dev + DEV_BOUNDARY, spec.boundaryBytes ?? 0);
    port.st32(dev + DEV_MASTER, numberOf(spec.master));
    port.st32(dev + DEV_OPS, opsIndex);
    setDeviceNames(port, dev, spec.name, spec.driver);
  };

  const limit = (dev: DmaDevice): void => {
    // Coherent memory may lie beyond the streaming mask, so the wires are as many as the larger of the two.
    dmaBus.setLimits(master(dev), {
      maskBits: Math.max(port.ld32(dev + DEV_MASK), port.ld32(dev + DEV_COHERENT_MASK)),
      maxSegmentBytes: port.ld32(dev + DEV_MAX_SEGMENT),
      boundaryBytes: port.ld32(dev + DEV_BOUNDARY),
    });
  };

  /** A block that was freed by the wrong function is missing in one count and too many in the other. */
  const liveOf = (dev: DmaDevice): number =>
    (port.ld32(dev + DEV_NR_MAPPINGS) + port.ld32(dev + DEV_NR_COHERENT)) >>> 0;

  const forEach = (visit: (dev: DmaDevice) => void): void => {
    for (let node = listNext(port, head); node !== head; ) {
      const next = listNext(port, node);
      visit(asDevice(node));
      node = next;
    }
  };
  const listed = (ctx: Context, change: () => void): void => {
    const flags = spinlocks.spinLockIrqsave(ctx, lock);
    change();
    spinlocks.spinUnlockIrqrestore(ctx, lock, flags);
  };

  return {
    create(ctx, spec) {
      contexts.mightSleep(ctx, "mm/dma_devices.ts:createDevice");
      const opsIndex = (spec.useIommu ?? true) && opsTable[OPS_IOMMU] !== null ? OPS_IOMMU : OPS_DIRECT;
      const maskBits = spec.maskBits ?? 32;
      if (!ops(opsIndex).isMaskSupported(Math.min(maskBits, spec.coherentMaskBits ?? maskBits))) return NO_DEVICE;
      const gfp = GFP_NOWAIT | __GFP_NOWARN | __GFP_ZERO;
      const dev = asDevice(kmalloc.kmallocAny(ctx, DEVICE_BYTES, gfp) as PhysAddr);
      if (dev === NULL) return NO_DEVICE;
      fill(dev, spec, opsIndex);
      if (opsFor(dev).attach(ctx, dev) !== 0) {
        kmalloc.kfree(ctx, dev);
        return NO_DEVICE;
      }
      coherent.ensurePool(ctx);
      limit(dev);
      listed(ctx, () => listAddTail(port, dev, head));
      announce(dev, true);
      return dev;
    },
    release(ctx, dev) {
      contexts.mightSleep(ctx, "mm/dma_devices.ts:releaseDevice");
      announce(dev, false);
      debug?.release(ctx, dev);
      machine.guard?.releaseAll(dev);
      dmaBus.reset(master(dev));
      opsFor(dev).detach(ctx, dev);
      listed(ctx, () => listDel(port, dev));
      port.st32(dev + DEV_MAGIC, 0);
      kmalloc.kfree(ctx, dev);
      if (!listIsEmpty(port, head)) return;
      coherent.dropPool(ctx);
      swiotlb.drop(ctx);
      debug?.drop(ctx);
    },
    setMask(dev, bits) {
      if (!Number.isInteger(bits) || bits < 1 || bits > 64 || !opsFor(dev).isMaskSupported(bits)) return -EIO;
      port.st32(dev + DEV_MASK, bits);
      limit(dev);
      const ctx = contexts.taskContext(machine.harts.current[0] as number);
      if (opsFor(dev) === opsTable[OPS_DIRECT] && maskEnd(bits) < machine.config.ramBytes - 1) swiotlb.ensure(ctx);
      return 0;
    },
    setMinAlignMask(dev, mask) {
      port.st32(dev + DEV_MIN_ALIGN_MASK, mask);
    },
    maxMappingBytes(dev) {
      const isBouncing =
        opsFor(dev) === opsTable[OPS_DIRECT] && maskEnd(port.ld32(dev + DEV_MASK)) < machine.config.ramBytes - 1;
      return isBouncing ? swiotlb.maxMappingBytes(dev) : 2 ** 32;
    },
    ops,
    master,
    forEach,
    onDevice(hook) {
      announce = hook;
    },
    nrLive() {
      let nr = 0;
      forEach((dev) => {
        nr += liveOf(dev);
      });
      return nr;
    },
    check() {
      let fault: string | null = debug?.check() ?? null;
      for (const each of opsTable) fault ??= each?.check() ?? null;
      forEach((dev) => {
        if (dmaBus.nrWindows(master(dev)) !== liveOf(dev))
          fault ??= "DMA-1: windows of the bus differ from live mappings";
      });
      return fault;
    },
  };
}
