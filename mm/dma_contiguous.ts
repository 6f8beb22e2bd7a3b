/**
 * Coherent memory from the contiguous area: what the page allocator cannot promise.
 *
 * Up to 32 KiB (order 3) the page allocator finds neighbouring pages practically always. Above, it depends on luck, and
 * above 4 MiB there is no such block at all. On a machine with an area (cma.ts) a large request that may sleep goes
 * there first; what lives there moves away. If there is no area, no room in it, or the device cannot reach it, the page
 * allocator is asked.
 *
 *   CON-1  a block is `⌈bytes / 4096⌉` neighbouring frames, zeroed, and no frame more
 *   CON-2  it is aligned to its size in power-of-two pages if such a place can be had, else to 1 MiB   (D1)
 *   CON-3  a block that the device cannot reach is given back at once
 *
 * Context: process, may sleep. Linux: kernel/dma/contiguous.c; there every request above one page goes to the area
 * first, and CONFIG_CMA_ALIGNMENT (8) is the largest alignment.
 */

import { CYC_ZERO_PAGE } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { getOrder } from "../kernel/lib/bits.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { type DmaAddr, NO_PFN, type PhysAddr, pfnToPhys, physToPfn, type TaskContext } from "../kernel/types.ts";
import type { Cma } from "./cma.ts";
import type { DmaDevice } from "./dma_device.ts";
import { DMA_MAPPING_ERROR, type DmaMapOps } from "./dma_ops.ts";

/** Requests of a larger order than this one are for the area. */
const PAGE_ALLOC_COSTLY_ORDER = 3;
/** log2 of pages: 1 MiB. */
const CMA_ALIGNMENT = 8;

/** What dma_coherent.ts hands on as DmaMemory. */
interface ContiguousBlock {
  readonly cpu: PhysAddr;
  readonly dma: DmaAddr;
}

export interface DmaContiguous {
  /** A block for `bytes`, zeroed, on the bus; null if the area is not for this request, or cannot serve it. Quiet. */
  alloc(ctx: TaskContext, ops: DmaMapOps, dev: DmaDevice, bytes: number): ContiguousBlock | null;
  /** Is this a block of the area? */
  owns(cpu: PhysAddr): boolean;
  /** 0, or −EINVAL after a message: no block of this size is out there. */
  free(ctx: TaskContext, ops: DmaMapOps, dev: DmaDevice, bytes: number, memory: ContiguousBlock): number;
}

export function createDmaContiguous({ port, harts }: Machine, cma: Cma): DmaContiguous {
  const pagesOf = (bytes: number): number => Math.ceil(bytes / PAGE_SIZE);
  return {
    alloc(ctx, ops, dev, bytes) {
      const order = getOrder(bytes);
      const nrPages = pagesOf(bytes);
      if (order <= PAGE_ALLOC_COSTLY_ORDER || nrPages > cma.stats().nrPages) return null;
      let pfn = cma.alloc(ctx, nrPages, order, true);
      if (pfn === NO_PFN && order > CMA_ALIGNMENT) pfn = cma.alloc(ctx, nrPages, CMA_ALIGNMENT, true);
      if (pfn === NO_PFN) return null;
      const cpu = pfnToPhys(pfn);
      const dma = ops.mapCoherent(ctx, dev, cpu, nrPages * PAGE_SIZE);
      if (dma === DMA_MAPPING_ERROR) {
        cma.release(ctx, pfn, nrPages);
        return null;
      }
      port.fill(cpu, 0, nrPages * PAGE_SIZE);
      harts.clock[ctx.cpu] = (harts.clock[ctx.cpu] as number) + CYC_ZERO_PAGE * nrPages;
      return { cpu, dma };
    },
    owns: (cpu) => cma.contains(physToPfn(cpu)),
    free(ctx, ops, dev, bytes, { cpu, dma }) {
      const result = cma.release(ctx, physToPfn(cpu), pagesOf(bytes));
      if (result === 0) ops.unmapCoherent(ctx, dev, dma, pagesOf(bytes) * PAGE_SIZE);
      return result;
    },
  };
}
