/**
 * struct scatterlist in RAM: pieces of memory that together are one transfer, and the segments that a device sees.
 *
 *   entries  (CPU)   | A: 4 KiB | B: 4 KiB | C: 512 |  …      set by the driver
 *   segments (bus)   | A+B: 8 KiB      | C: 512 | end |       set by mapSg, from the start of the same array
 *
 * | offset | field       | width | meaning                                                              |
 * |--------|-------------|-------|----------------------------------------------------------------------|
 * | 0      | address     | u32   | physical address of the piece                                        |
 * | 4      | length      | u32   | its bytes                                                            |
 * | 8      | dma address | u32   | bus address of segment i                                             |
 * | 12     | dma length  | u32   | its bytes; 0 ends the segments                                       |
 *
 *   SGL-1  the segments carry the bytes of the entries, in order
 *   SGL-2  neighbours are merged while the segment stays within max_segment and inside a boundary
 *
 * As in Linux, entry i and segment i share a record but need not be the same memory once anything was merged.
 * Source: include/linux/scatterlist.h; merging as block/blk-merge.c does it before the list is made.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { asDma, asPhys, type DmaAddr, type PhysAddr } from "../kernel/types.ts";

export const SG_BYTES = 16;
const SG_ADDRESS = 0;
const SG_LENGTH = 4;
const SG_DMA_ADDRESS = 8;
const SG_DMA_LENGTH = 12;

export interface Scatterlists {
  /** Sets entry `i` and clears its segment. */
  sgSet(sgl: PhysAddr, i: number, addr: PhysAddr, bytes: number): void;
  sgAddress(sgl: PhysAddr, i: number): PhysAddr;
  sgLength(sgl: PhysAddr, i: number): number;
  sgDmaAddress(sgl: PhysAddr, i: number): DmaAddr;
  sgDmaLength(sgl: PhysAddr, i: number): number;
  setSegment(sgl: PhysAddr, i: number, dma: DmaAddr, bytes: number): void;
  /** Ends the segments of a list of `nents` entries after `nr`. */
  endSegments(sgl: PhysAddr, nr: number, nents: number): void;
}

/** Do `[start, start + bytes)` lie on both sides of a multiple of `boundary` (0: none)? */
export const crossesBoundary = (start: number, bytes: number, boundary: number): boolean =>
  boundary !== 0 && Math.floor(start / boundary) !== Math.floor((start + bytes - 1) / boundary);

export function createScatterlists(port: MemoryPort): Scatterlists {
  const at = (sgl: PhysAddr, i: number): number => sgl + i * SG_BYTES;
  return {
    sgSet(sgl, i, addr, bytes) {
      port.st32(at(sgl, i) + SG_ADDRESS, addr);
      port.st32(at(sgl, i) + SG_LENGTH, bytes);
      port.st32(at(sgl, i) + SG_DMA_ADDRESS, 0);
      port.st32(at(sgl, i) + SG_DMA_LENGTH, 0);
    },
    sgAddress: (sgl, i) => asPhys(port.ld32(at(sgl, i) + SG_ADDRESS)),
    sgLength: (sgl, i) => port.ld32(at(sgl, i) + SG_LENGTH),
    sgDmaAddress: (sgl, i) => asDma(port.ld32(at(sgl, i) + SG_DMA_ADDRESS)),
    sgDmaLength: (sgl, i) => port.ld32(at(sgl, i) + SG_DMA_LENGTH),
    setSegment(sgl, i, dma, bytes) {
      port.st32(at(sgl, i) + SG_DMA_ADDRESS, dma);
      port.st32(at(sgl, i) + SG_DMA_LENGTH, bytes);
    },
    endSegments(sgl, nr, nents) {
      if (nr < nents) port.st32(at(sgl, nr) + SG_DMA_LENGTH, 0);
    },
  };
}
