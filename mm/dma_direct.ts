/**
 * Direct mappings: the bus address is the physical address. What nearly every PC without IOMMU does.
 *
 *   memory below the device's mask    →  its own address, nothing to do
 *   memory above                      →  a bounce buffer below the mask (swiotlb.ts), or DMA_MAPPING_ERROR
 *
 * Coherent memory cannot bounce, it has to lie right from the start: the zone is chosen by the coherent mask, and a
 * block that the page allocator gives too high is returned and asked for again one zone lower (D1).
 *
 * Context: map, unmap, sync any. Locks: none of its own. Source: kernel/dma/direct.c.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { asDma, asPhys, type Context, type DmaAddr, NULL, type PhysAddr } from "../kernel/types.ts";
import { EIO, ENOMEM } from "../kernel/uapi/errno.ts";
import { DEV_BOUNDARY, DEV_COHERENT_MASK, DEV_MASK, DEV_MAX_SEGMENT, type DmaDevice, maskEnd } from "./dma_device.ts";
import { DMA_MAPPING_ERROR, type DmaDirection, type DmaMapOps } from "./dma_ops.ts";
import { __GFP_DMA, __GFP_DMA32, type Gfp } from "./gfp.ts";
import { ZONE_DMA_LIMIT } from "./mmzone.ts";
import { crossesBoundary, type Scatterlists } from "./scatterlist.ts";
import type { Swiotlb } from "./swiotlb.ts";

export interface DirectOpsDeps {
  readonly machine: Machine;
  readonly sg: Scatterlists;
  readonly swiotlb: Swiotlb;
}

export function createDirectOps({ machine, sg, swiotlb }: DirectOpsDeps): DmaMapOps {
  const { port } = machine;
  const ramEnd = machine.config.ramBytes;

  const isReachable = (bits: number, phys: number, bytes: number): boolean => phys + bytes - 1 <= maskEnd(bits);

  const map = (ctx: Context, dev: DmaDevice, phys: PhysAddr, bytes: number, direction: DmaDirection): DmaAddr =>
    isReachable(port.ld32(dev + DEV_MASK), phys, bytes) ? asDma(phys) : swiotlb.map(ctx, dev, phys, bytes, direction);

  const unmap = (ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection): void => {
    if (swiotlb.contains(dma)) swiotlb.unmap(ctx, dev, dma, bytes, direction);
  };

  /** May entry memory at `dma` be appended to the segment `[start, start + length)`? SGL-2. */
  const canMerge = (dev: DmaDevice, start: number, length: number, dma: DmaAddr, bytes: number): boolean =>
    start + length === dma &&
    length + bytes <= port.ld32(dev + DEV_MAX_SEGMENT) &&
    !crossesBoundary(start, length + bytes, port.ld32(dev + DEV_BOUNDARY)) &&
    !swiotlb.contains(dma) &&
    !swiotlb.contains(asDma(start));

  const unmapSegments = (ctx: Context, dev: DmaDevice, sgl: PhysAddr, nents: number, direction: DmaDirection): void => {
    for (let i = 0; i < nents && sg.sgDmaLength(sgl, i) !== 0; i++) {
      unmap(ctx, dev, sg.sgDmaAddress(sgl, i), sg.sgDmaLength(sgl, i), direction);
    }
  };

  return {
    name: "direct",
    attach: (ctx, dev) => {
      if (maskEnd(port.ld32(dev + DEV_MASK)) < ramEnd - 1) swiotlb.ensure(ctx);
      return 0;
    },
    detach: () => {},
    // Bounce buffers and coherent memory come from ZONE_DMA at worst.
    isMaskSupported: (bits) => maskEnd(bits) >= Math.min(ZONE_DMA_LIMIT, ramEnd) - 1,

    map,
    unmap,
    syncForCpu(ctx, dev, dma, bytes, direction) {
      if (swiotlb.contains(dma)) swiotlb.syncForCpu(ctx, dev, dma, bytes, direction);
    },
    syncForDevice(ctx, dev, dma, bytes, direction) {
      if (swiotlb.contains(dma)) swiotlb.syncForDevice(ctx, dev, dma, bytes, direction);
    },

    mapSg(ctx, dev, sgl, nents, direction) {
      let nr = 0;
      for (let i = 0; i < nents; i++) {
        const bytes = sg.sgLength(sgl, i);
        const dma = map(ctx, dev, sg.sgAddress(sgl, i), bytes, direction);
        if (dma === DMA_MAPPING_ERROR) {
          sg.endSegments(sgl, nr, nents);
          unmapSegments(ctx, dev, sgl, nents, direction);
          sg.endSegments(sgl, 0, nents);
          return nr === 0 && i === 0 ? -EIO : -ENOMEM;
        }
        const last = nr - 1;
        if (nr > 0 && canMerge(dev, sg.sgDmaAddress(sgl, last), sg.sgDmaLength(sgl, last), dma, bytes)) {
          sg.setSegment(sgl, last, sg.sgDmaAddress(sgl, last), sg.sgDmaLength(sgl, last) + bytes);
        } else {
          sg.setSegment(sgl, nr++, dma, bytes);
        }
      }
      sg.endSegments(sgl, nr, nents);
      return nr;
    },
    unmapSg: unmapSegments,

    coherentZones(dev) {
      const limit = maskEnd(port.ld32(dev + DEV_COHERENT_MASK));
      const zones: Gfp[] = [];
      if (limit >= ramEnd - 1) zones.push(0);
      if (limit >= ZONE_DMA_LIMIT) zones.push(__GFP_DMA32);
      zones.push(__GFP_DMA);
      return zones;
    },
    mapCoherent: (_ctx, dev, phys, bytes) =>
      isReachable(port.ld32(dev + DEV_COHERENT_MASK), phys, bytes) ? asDma(phys) : DMA_MAPPING_ERROR,
    unmapCoherent: () => {},

    toMemory(_dev, dma) {
      if (swiotlb.contains(dma)) return swiotlb.origOf(dma);
      return dma >= 0 && dma < ramEnd ? asPhys(dma) : NULL;
    },
    check: () => swiotlb.check(),
  };
}
