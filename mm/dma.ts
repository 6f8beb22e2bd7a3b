/**
 * DMA: what drivers call. Memory for devices, coherent or streaming, and who owns it when.
 *
 *   coherent    allocCoherent … freeCoherent        CPU and device share it all the time: rings, mailboxes
 *   streaming   mapSingle / mapSg … unmap           the driver lends memory that it already has, for one transfer
 *
 *                        mapSingle(…, TO_DEVICE)            unmapSingle
 *      CPU owns ─────────────────────────────▶ device owns ─────────────▶ CPU owns
 *                                                 │     ▲
 *                               syncSingleForCpu  ▼     │  syncSingleForDevice
 *                                               CPU owns, still mapped
 *
 *   DMA-1  between map and unmap, and only then, the bus lets the device touch the memory, in the mapping's direction
 *   DMA-2  a mapping that failed (DMA_MAPPING_ERROR) leaves nothing behind: no window, no slot, no entry         (D3)
 *   DMA-3  map, unmap, sync: any context. Coherent memory is freed in process context with interrupts on         (D1)
 *   DMA-4  a device is released without live mappings, else the driver has a bug: it is said, its windows close  (D4)
 *   DMA-5  no caller gets memory that its device cannot reach, misaligned or scattered: checked on each allocation
 *
 * This file is the front: it checks callers, opens and closes windows of the bus, tells the debugging layer. How memory
 * gets a bus address is behind the DmaMapOps seam.
 * Source: kernel/dma/mapping.c, Documentation/core-api/{dma-api,dma-api-howto}.rst. Rules D1-D5.
 */

import { CYC_DMA_MAP } from "../kernel/arch/charges.ts";
import type { BusMaster } from "../kernel/arch/dma_bus.ts";
import { E820_RAM } from "../kernel/arch/firmware_map.ts";
import { DENY_LOAD, DENY_STORE } from "../kernel/arch/guard_port.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { bugOn } from "../kernel/bug.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { KERN_WARNING, type Printk } from "../kernel/printk.ts";
import { TASK_PID } from "../kernel/task_struct.ts";
import {
  asDma,
  type Context,
  type DmaAddr,
  NULL,
  type PhysAddr,
  type Sleeping,
  type TaskContext,
} from "../kernel/types.ts";
import type { CoherentMemory, DmaAllocate, DmaMemory } from "./dma_coherent.ts";
import type { DmaDebug } from "./dma_debug.ts";
import { DEV_NR_COHERENT, DEV_NR_MAPPINGS, DEV_OPS, type DmaDevice } from "./dma_device.ts";
import type { DmaDeviceSpec, DmaDevices } from "./dma_devices.ts";
import {
  busAccessOf,
  DMA_BIDIRECTIONAL,
  DMA_DIRECTION_NAMES,
  DMA_FROM_DEVICE,
  DMA_MAPPING_ERROR,
  DMA_NONE,
  DMA_TO_DEVICE,
  type DmaDirection,
  type DmaMapOps,
} from "./dma_ops.ts";
import type { DmaPool, DmaPools } from "./dma_pool.ts";
import { type Gfp, gfpAllowsBlocking } from "./gfp.ts";
import type { Scatterlists } from "./scatterlist.ts";

export interface Dma {
  /** A struct device for a bus master; NO_DEVICE (0) without memory or with a mask that cannot be served. */
  createDevice(ctx: TaskContext, spec: DmaDeviceSpec): DmaDevice;
  /** The driver lets go: all windows close. Live mappings are a driver's bug and are reported. */
  releaseDevice(ctx: TaskContext, dev: DmaDevice): void;
  /** New number of address lines for streaming mappings: 0, −EIO if it cannot be served. */
  setMask(dev: DmaDevice, bits: number): number;
  setMinAlignMask(dev: DmaDevice, mask: number): void;
  /** Largest single mapping that can succeed: 256 KiB where memory may have to bounce. */
  maxMappingBytes(dev: DmaDevice): number;

  /** D1: contiguous, zeroed, aligned to its size in power-of-two pages. null: no memory within the coherent mask. */
  readonly allocCoherent: DmaAllocate<[dev: DmaDevice, bytes: number]>;
  /** With exactly what allocCoherent gave. Not in interrupts (DMA-3): refused with a warning. */
  freeCoherent(ctx: TaskContext, dev: DmaDevice, bytes: number, cpu: PhysAddr, dma: DmaAddr): void;
  /** Pages within the mask, mapped for streaming from the start: sync before and after each transfer. */
  readonly allocPages: DmaAllocate<[dev: DmaDevice, bytes: number, direction: DmaDirection]>;
  freePages(ctx: TaskContext, dev: DmaDevice, bytes: number, memory: DmaMemory, direction: DmaDirection): void;

  /** Lends memory to the device. The result must be given to mappingError before use. */
  mapSingle(ctx: Context, dev: DmaDevice, addr: PhysAddr, bytes: number, direction: DmaDirection): DmaAddr;
  mappingError(dev: DmaDevice, dma: DmaAddr): boolean;
  unmapSingle(ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection): void;
  syncSingleForCpu(ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection): void;
  syncSingleForDevice(ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection): void;
  /** Number of segments, 0 if the list cannot be mapped. */
  mapSg(ctx: Context, dev: DmaDevice, sgl: PhysAddr, nents: number, direction: DmaDirection): number;
  /** With the number of entries that mapSg was given, not what it returned. */
  unmapSg(ctx: Context, dev: DmaDevice, sgl: PhysAddr, nents: number, direction: DmaDirection): void;
  syncSgForCpu(ctx: Context, dev: DmaDevice, sgl: PhysAddr, nents: number, direction: DmaDirection): void;
  syncSgForDevice(ctx: Context, dev: DmaDevice, sgl: PhysAddr, nents: number, direction: DmaDirection): void;
  readonly sgSet: Scatterlists["sgSet"];
  readonly sgDmaAddress: Scatterlists["sgDmaAddress"];
  readonly sgDmaLength: Scatterlists["sgDmaLength"];

  poolCreate(ctx: TaskContext, name: string, dev: DmaDevice, size: number, align: number, boundary: number): DmaPool;
  readonly poolAlloc: DmaPools["alloc"];
  poolFree(ctx: Context, pool: DmaPool, cpu: PhysAddr, dma: DmaAddr): void;
  poolDestroy(ctx: TaskContext, pool: DmaPool): void;
  /** Text of /sys/devices/<name>/pools. */
  poolsText(dev: DmaDevice): string;

  /** Live mappings and coherent blocks of all devices. */
  nrLive(): number;
  /** The first broken invariant, or null. */
  check(): string | null;
}

export interface DmaDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly devices: DmaDevices;
  readonly coherent: CoherentMemory;
  readonly sg: Scatterlists;
  /** null: switched off. */
  readonly debug: DmaDebug | null;
}

/** The front over parts that dma_subsystem.ts assembled; `bindPools` makes the pools, which allocate through it. */
export function createDma(
  deps: DmaDeps,
  bindPools: (front: Pick<Dma, "allocCoherent" | "freeCoherent">) => DmaPools,
): Dma {
  const { machine, contexts, printk, devices, coherent, sg, debug } = deps;
  const { port, dmaBus, harts, firmwareMap } = machine;
  const opsOf = (dev: DmaDevice): DmaMapOps => devices.ops(port.ld32(dev + DEV_OPS));
  const masterOf = (dev: DmaDevice): BusMaster => devices.master(dev);
  const charge = (ctx: Context): void => {
    harts.clock[ctx.cpu] = (harts.clock[ctx.cpu] as number) + CYC_DMA_MAP;
  };
  const count = (dev: DmaDevice, offset: number, delta: number): void => {
    port.fetchAdd(dev + offset, delta);
  };
  const isRam = (addr: number, bytes: number): boolean =>
    Number.isInteger(addr) &&
    Number.isInteger(bytes) &&
    addr > 0 &&
    bytes > 0 &&
    firmwareMap.some((region) => region.type === E820_RAM && addr >= region.start && addr + bytes <= region.end);

  // ── Streaming ────────────────────────────────────────────────────────────────────────────────────────────────────

  const mapSingle: Dma["mapSingle"] = (ctx, dev, addr, bytes, direction) => {
    bugOn(direction === DMA_NONE, "dma: a mapping without direction", addr, bytes);
    charge(ctx);
    if (!isRam(addr, bytes)) {
      debug?.mapInvalid(ctx, dev, addr, bytes);
      return DMA_MAPPING_ERROR;
    }
    const dma = opsOf(dev).map(ctx, dev, addr, bytes, direction);
    if (dma === DMA_MAPPING_ERROR) return dma;
    dmaBus.grant(masterOf(dev), dma, bytes, busAccessOf(direction));
    count(dev, DEV_NR_MAPPINGS, 1);
    debug?.mapSingle(ctx, dev, addr, bytes, direction, dma);
    lend(dev, addr, bytes, direction);
    return dma;
  };

  const unmapSingle: Dma["unmapSingle"] = (ctx, dev, dma, bytes, direction) => {
    charge(ctx);
    debug?.unmapSingle(ctx, dev, dma, bytes, direction);
    forEachPiece(dev, dma, bytes, (addr, length) => machine.guard?.release(dev, addr, length));
    // DMA-1: first the window, so that the device cannot write what is being copied back.
    if (!dmaBus.revoke(masterOf(dev), dma, bytes)) return;
    count(dev, DEV_NR_MAPPINGS, -1);
    opsOf(dev).unmap(ctx, dev, dma, bytes, direction);
  };

  // ── Ownership, for a guard port if there is one ──────────────────────────────────────────────────────────────────

  /** The device owns `[addr, addr + bytes)` from now on. */
  const lend = (dev: DmaDevice, addr: number, bytes: number, direction: DmaDirection): void => {
    const deny = direction === DMA_TO_DEVICE ? DENY_STORE : DENY_LOAD | DENY_STORE;
    machine.guard?.own(dev, addr, bytes, deny, DMA_DIRECTION_NAMES[direction] as string);
  };

  /** The driver's memory behind a range of bus addresses, page by page: behind an IOMMU it need not be contiguous. */
  const forEachPiece = (
    dev: DmaDevice,
    dma: DmaAddr,
    bytes: number,
    visit: (addr: PhysAddr, bytes: number) => void,
  ): void => {
    if (machine.guard === null) return;
    for (let done = 0; done < bytes; ) {
      const at = asDma(dma + done);
      const length = Math.min(bytes - done, PAGE_SIZE - (at % PAGE_SIZE));
      const addr = opsOf(dev).toMemory(dev, at);
      if (addr !== NULL) visit(addr, length);
      done += length;
    }
  };

  const syncForCpu = (ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection): void => {
    forEachPiece(dev, dma, bytes, (addr, length) => machine.guard?.release(dev, addr, length));
    opsOf(dev).syncForCpu(ctx, dev, dma, bytes, direction);
    if (direction !== DMA_FROM_DEVICE) return;
    // D3: the CPU may look at what the device wrote, but not write where the device will.
    forEachPiece(dev, dma, bytes, (addr, length) =>
      machine.guard?.own(dev, addr, length, DENY_STORE, DMA_DIRECTION_NAMES[direction] as string),
    );
  };
  const syncForDevice = (ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection): void => {
    forEachPiece(dev, dma, bytes, (addr, length) => machine.guard?.release(dev, addr, length));
    opsOf(dev).syncForDevice(ctx, dev, dma, bytes, direction);
    forEachPiece(dev, dma, bytes, (addr, length) => lend(dev, addr, length, direction));
  };

  const forEachSegment = (sgl: PhysAddr, nents: number, visit: (dma: DmaAddr, bytes: number) => void): void => {
    for (let i = 0; i < nents && sg.sgDmaLength(sgl, i) !== 0; i++)
      visit(sg.sgDmaAddress(sgl, i), sg.sgDmaLength(sgl, i));
  };

  const mapSg: Dma["mapSg"] = (ctx, dev, sgl, nents, direction) => {
    bugOn(direction === DMA_NONE, "dma: a mapping without direction", sgl, nents);
    charge(ctx);
    for (let i = 0; i < nents; i++) {
      if (isRam(sg.sgAddress(sgl, i), sg.sgLength(sgl, i))) continue;
      debug?.mapInvalid(ctx, dev, sg.sgAddress(sgl, i), sg.sgLength(sgl, i));
      return 0;
    }
    const nr = nents < 1 ? 0 : opsOf(dev).mapSg(ctx, dev, sgl, nents, direction);
    if (nr <= 0) return 0;
    forEachSegment(sgl, nents, (dma, bytes) => dmaBus.grant(masterOf(dev), dma, bytes, busAccessOf(direction)));
    count(dev, DEV_NR_MAPPINGS, nr);
    debug?.mapSg(ctx, dev, sgl, nents, nr, direction);
    for (let i = 0; i < nents; i++) lend(dev, sg.sgAddress(sgl, i), sg.sgLength(sgl, i), direction);
    return nr;
  };

  const unmapSg: Dma["unmapSg"] = (ctx, dev, sgl, nents, direction) => {
    charge(ctx);
    debug?.unmapSg(ctx, dev, sgl, nents, direction);
    for (let i = 0; i < nents; i++) machine.guard?.release(dev, sg.sgAddress(sgl, i), sg.sgLength(sgl, i));
    let isMapped = true;
    forEachSegment(sgl, nents, (dma, bytes) => {
      if (dmaBus.revoke(masterOf(dev), dma, bytes)) count(dev, DEV_NR_MAPPINGS, -1);
      else isMapped = false;
    });
    if (isMapped) opsOf(dev).unmapSg(ctx, dev, sgl, nents, direction);
  };

  /** A bus address that means nothing is the driver's mistake, not a reason to copy. */
  const isMapped = (dev: DmaDevice, dma: DmaAddr): boolean =>
    dma !== DMA_MAPPING_ERROR && opsOf(dev).toMemory(dev, dma) !== NULL;

  // ── Coherent ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const opened = (
    ctx: Context,
    dev: DmaDevice,
    bytes: number,
    memory: DmaMemory | null,
    direction: DmaDirection,
    isCoherent: boolean,
  ): DmaMemory | null => {
    if (memory === null) return null;
    dmaBus.grant(masterOf(dev), memory.dma, bytes, busAccessOf(direction));
    count(dev, DEV_NR_COHERENT, 1);
    debug?.alloc(ctx, dev, bytes, memory, direction, isCoherent);
    return memory;
  };

  function* allocLater(
    ctx: TaskContext,
    dev: DmaDevice,
    bytes: number,
    direction: DmaDirection,
    gfp: Gfp,
    isCoherent: boolean,
  ): Sleeping<DmaMemory | null> {
    const memory = yield* coherent.alloc(ctx, opsOf(dev), dev, bytes, gfp);
    return opened(ctx, dev, bytes, memory, direction, isCoherent);
  }

  const allocAny = (
    ctx: Context,
    dev: DmaDevice,
    bytes: number,
    direction: DmaDirection,
    gfp: Gfp,
    isCoherent: boolean,
  ): Sleeping<DmaMemory | null> | DmaMemory | null => {
    bugOn(direction === DMA_NONE, "dma: pages without direction", bytes);
    if (gfpAllowsBlocking(gfp)) {
      contexts.mightSleep(ctx, "mm/dma.ts:allocCoherent");
      return contexts.mustIterate(allocLater(ctx as TaskContext, dev, bytes, direction, gfp, isCoherent));
    }
    const memory = coherent.allocAtomic(ctx, opsOf(dev), dev, bytes, gfp);
    return opened(ctx, dev, bytes, memory, direction, isCoherent);
  };

  /** DMA-3: true, after a splat, where coherent memory may not be freed. */
  const isFreeRefused = (ctx: Context): boolean => {
    if (!contexts.irqsDisabled(ctx) && contexts.inTask(ctx)) return false;
    const task = contexts.currentTask(ctx);
    const pid = task === 0 ? 0 : port.ld32(task + TASK_PID);
    const line = `WARNING: CPU: ${ctx.cpu} PID: ${pid} at mm/dma.ts:freeCoherent: coherent memory freed in interrupt`;
    printk(KERN_WARNING, `${line} context\n${contexts.stackDump(ctx)}`);
    return true;
  };

  const free = (
    ctx: TaskContext,
    dev: DmaDevice,
    bytes: number,
    memory: DmaMemory,
    direction: DmaDirection,
    isCoherent: boolean,
  ): void => {
    if (isFreeRefused(ctx)) return;
    debug?.free(ctx, dev, bytes, memory, direction, isCoherent);
    machine.guard?.release(dev, memory.cpu, bytes);
    if (!dmaBus.revoke(masterOf(dev), memory.dma, bytes)) return;
    count(dev, DEV_NR_COHERENT, -1);
    coherent.free(ctx, opsOf(dev), dev, bytes, memory);
  };

  const allocCoherent = ((ctx: Context, dev: DmaDevice, bytes: number, gfp: Gfp) =>
    allocAny(ctx, dev, bytes, DMA_BIDIRECTIONAL, gfp, true)) as Dma["allocCoherent"];
  const freeCoherent: Dma["freeCoherent"] = (ctx, dev, bytes, cpu, dma) =>
    free(ctx, dev, bytes, { cpu, dma }, DMA_BIDIRECTIONAL, true);
  const pools = bindPools({ allocCoherent, freeCoherent });

  return {
    createDevice: devices.create,
    releaseDevice: devices.release,
    setMask: devices.setMask,
    setMinAlignMask: devices.setMinAlignMask,
    maxMappingBytes: devices.maxMappingBytes,

    allocCoherent,
    freeCoherent,
    allocPages: ((ctx: Context, dev: DmaDevice, bytes: number, direction: DmaDirection, gfp: Gfp) =>
      allocAny(ctx, dev, bytes, direction, gfp, false)) as Dma["allocPages"],
    freePages: (ctx, dev, bytes, memory, direction) => free(ctx, dev, bytes, memory, direction, false),

    mapSingle,
    mappingError(dev, dma) {
      debug?.mappingError(dev, dma);
      return dma === DMA_MAPPING_ERROR;
    },
    unmapSingle,
    syncSingleForCpu(ctx, dev, dma, bytes, direction) {
      debug?.sync(ctx, dev, dma, bytes, direction, true);
      if (isMapped(dev, dma)) syncForCpu(ctx, dev, dma, bytes, direction);
    },
    syncSingleForDevice(ctx, dev, dma, bytes, direction) {
      debug?.sync(ctx, dev, dma, bytes, direction, false);
      if (isMapped(dev, dma)) syncForDevice(ctx, dev, dma, bytes, direction);
    },
    mapSg,
    unmapSg,
    syncSgForCpu(ctx, dev, sgl, nents, direction) {
      debug?.syncSg(ctx, dev, sgl, nents, direction, true);
      forEachSegment(sgl, nents, (dma, bytes) => syncForCpu(ctx, dev, dma, bytes, direction));
    },
    syncSgForDevice(ctx, dev, sgl, nents, direction) {
      debug?.syncSg(ctx, dev, sgl, nents, direction, false);
      forEachSegment(sgl, nents, (dma, bytes) => syncForDevice(ctx, dev, dma, bytes, direction));
    },
    sgSet: sg.sgSet,
    sgDmaAddress: sg.sgDmaAddress,
    sgDmaLength: sg.sgDmaLength,

    poolCreate: pools.create,
    poolAlloc: pools.alloc,
    poolFree: pools.free,
    poolDestroy: pools.destroy,
    poolsText: pools.poolsText,

    nrLive: devices.nrLive,
    check() {
      let fault = devices.check();
      devices.forEach((dev) => {
        fault ??= pools.check(dev);
      });
      return fault;
    },
  };
}
