/**
 * The DmaMapOps seam: how memory becomes reachable for a device, and the words that everything about DMA shares.
 *
 *   front (dma.ts)   context rules, debugging, windows of the bus, ownership      the same for every device
 *   ops              memory → bus address and back                               direct (dma_direct.ts) or through
 *                                                                                page tables (dma_iommu.ts)
 *
 * Which implementation serves a device is fixed when it is created. Duties of every implementation, checked by one
 * conformance suite (test/mm/dma_conformance.test.ts):
 *
 *   OPS-1  map gives a bus address below the device's mask whose bytes are those of the memory, or DMA_MAPPING_ERROR
 *          with nothing changed
 *   OPS-2  unmap undoes map; what a device wrote is in memory afterwards, unless the direction was to the device
 *   OPS-3  syncForCpu makes what the device wrote visible in memory, syncForDevice the reverse
 *   OPS-4  mapSg maps all entries or none; no segment is longer than the device allows or crosses its boundary,
 *          unless a single entry does
 *   OPS-5  map, unmap and sync take no context that can sleep: they work in interrupt handlers
 *
 * Source: include/linux/dma-map-ops.h, include/linux/dma-direction.h.
 */

import { BUS_READ, BUS_WRITE } from "../kernel/arch/dma_bus.ts";
import { asDma, type Context, type DmaAddr, type PhysAddr, type TaskContext } from "../kernel/types.ts";
import type { DmaDevice } from "./dma_device.ts";
import type { Gfp } from "./gfp.ts";

/** Who writes the memory while it is mapped (D3). */
export const DMA_BIDIRECTIONAL = 0;
export const DMA_TO_DEVICE = 1;
export const DMA_FROM_DEVICE = 2;
/** No direction: for debugging drivers; nothing can be mapped with it. */
export const DMA_NONE = 3;

export type DmaDirection = typeof DMA_BIDIRECTIONAL | typeof DMA_TO_DEVICE | typeof DMA_FROM_DEVICE | typeof DMA_NONE;

export const DMA_DIRECTION_NAMES: readonly string[] = [
  "DMA_BIDIRECTIONAL",
  "DMA_TO_DEVICE",
  "DMA_FROM_DEVICE",
  "DMA_NONE",
];

/** What a mapping returns when it cannot be made. 0 is a good bus address; this is none. */
export const DMA_MAPPING_ERROR = asDma(-1);

/** What the bus lets a device do with memory mapped in this direction. */
export const busAccessOf = (direction: DmaDirection): number => {
  if (direction === DMA_BIDIRECTIONAL) return BUS_READ | BUS_WRITE;
  return direction === DMA_TO_DEVICE ? BUS_READ : BUS_WRITE;
};

/** Does the device write memory mapped in this direction? */
export const deviceWrites = (direction: DmaDirection): boolean =>
  direction === DMA_FROM_DEVICE || direction === DMA_BIDIRECTIONAL;
/** Does the device read it? */
export const deviceReads = (direction: DmaDirection): boolean =>
  direction === DMA_TO_DEVICE || direction === DMA_BIDIRECTIONAL;

export interface DmaMapOps {
  readonly name: string;
  /** What a device needs before its first mapping: 0, or −ENOMEM with nothing left behind. */
  attach(ctx: TaskContext, dev: DmaDevice): number;
  /** Gives back what attach took. */
  detach(ctx: TaskContext, dev: DmaDevice): void;
  /** Can a device with so many address lines be served at all? */
  isMaskSupported(maskBits: number): boolean;

  map(ctx: Context, dev: DmaDevice, phys: PhysAddr, bytes: number, direction: DmaDirection): DmaAddr;
  unmap(ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection): void;
  syncForCpu(ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection): void;
  syncForDevice(ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection): void;
  /** Number of segments written to the list (scatterlist.ts), or −EIO, −ENOMEM with nothing mapped. */
  mapSg(ctx: Context, dev: DmaDevice, sgl: PhysAddr, nents: number, direction: DmaDirection): number;
  unmapSg(ctx: Context, dev: DmaDevice, sgl: PhysAddr, nents: number, direction: DmaDirection): void;

  /** Zone bits under which to look for coherent memory, the most permissive first. */
  coherentZones(dev: DmaDevice): readonly Gfp[];
  /** Bus address of pages for coherent memory, or DMA_MAPPING_ERROR if the device cannot reach them there. */
  mapCoherent(ctx: Context, dev: DmaDevice, phys: PhysAddr, bytes: number): DmaAddr;
  unmapCoherent(ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number): void;

  /** The driver's byte behind a mapped bus address (not the bounce buffer's), NULL if none: for the guard. */
  toMemory(dev: DmaDevice, dma: DmaAddr): PhysAddr;
  /** The first broken invariant, or null. */
  check(): string | null;
}
