/**
 * Goal: rules of real kernels that no other test names: B1, B7, S3, M5.
 * Method: a bare buddy over few frames; a machine with kmalloc; the table of magazine sizes against that of illumos.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asPfn, asPhys, NULL } from "../../kernel/types.ts";
import { createBuddy } from "../../mm/buddy.ts";
import type { FrameAllocator } from "../../mm/frame_allocator.ts";
import { __GFP_DMA, __GFP_RECLAIMABLE, GFP_KERNEL } from "../../mm/gfp.ts";
import { MAGAZINE_TYPES, magazineTypeFor } from "../../mm/magazine_stock.ts";
import { MIGRATE_MOVABLE } from "../../mm/migratetype.ts";
import { bareFrames } from "../support/bare_frames.ts";
import { finish } from "../support/finish.ts";
import { bootObjectLevel } from "../support/object_level.ts";

/** A buddy whose frames are all free. */
function buddyOver(start: number, end: number): FrameAllocator {
  const allocator = createBuddy(bareFrames(start, end));
  allocator.addFreeRange(asPfn(start), asPfn(end));
  return allocator;
}

describe("buddy", () => {
  it("B1 the buddy of a block is its number with one bit flipped, and the merged block begins at the lower", () => {
    fc.assert(
      fc.property(fc.nat(1023), fc.nat(8), (frame, order) => {
        const allocator = buddyOver(1024, 2048);
        const low = 1024 + frame - (frame % 2 ** (order + 1));
        const [block, buddy] = [low, low ^ (1 << order)];
        for (let i = 0; i < 1024; i++) expect(allocator.allocBlock(0, MIGRATE_MOVABLE, 0)).not.toBe(0);
        const free = (pfn: number): void => {
          for (let i = 0; i < 2 ** order; i++) allocator.freeBlock(asPfn(pfn + i), 0);
        };
        free(buddy);
        expect(allocator.allocBlock(order + 1, MIGRATE_MOVABLE, 0)).toBe(0);
        free(block);
        expect(allocator.allocBlock(order + 1, MIGRATE_MOVABLE, 0)).toBe(low);
      }),
      { numRuns: 60 },
    );
  });

  it("B7 a request takes the smallest block that is large enough", () => {
    const allocator = buddyOver(1024, 2048);
    const taken = Array.from({ length: 1024 }, () => allocator.allocBlock(0, MIGRATE_MOVABLE, 0));
    expect(taken).not.toContain(0);
    // Free blocks of orders 5, 0 and 3, the larger ones at lower addresses.
    const free = (first: number, order: number): void => {
      for (let pfn = first; pfn < first + 2 ** order; pfn++) allocator.freeBlock(asPfn(pfn), 0);
    };
    free(1024, 5);
    free(1088, 3);
    free(1200, 0);
    expect(allocator.allocBlock(0, MIGRATE_MOVABLE, 0)).toBe(1200);
    expect(allocator.allocBlock(2, MIGRATE_MOVABLE, 0)).toBe(1088);
    expect(allocator.allocBlock(4, MIGRATE_MOVABLE, 0)).toBe(1024);
    expect(allocator.check()).toBeNull();
  });
});

describe("kmalloc", () => {
  it("S3 memory comes from the caches of its kind, and DMA goes before reclaimable", () => {
    const m = bootObjectLevel();
    const kinds: [mask: number, cache: string][] = [
      [0, "kmalloc-64"],
      [__GFP_RECLAIMABLE, "kmalloc-rcl-64"],
      [__GFP_DMA, "dma-kmalloc-64"],
      [__GFP_DMA | __GFP_RECLAIMABLE, "dma-kmalloc-64"],
    ];
    for (const [mask, cache] of kinds) {
      const addr = finish(m.slab.kmalloc.kmallocAny(m.ctx, 50, GFP_KERNEL | mask));
      expect(addr).not.toBe(NULL);
      const owner = m.slab.objects.cacheOfSlab(m.slab.objects.slabOf(asPhys(addr)));
      expect(m.slab.slabInfo(owner).name).toBe(cache);
      expect(m.slab.kmalloc.kfree(m.ctx, addr)).toBe(0);
    }
    m.expectNoObjectLeak();
  });
});

describe("magazines", () => {
  it("M5 the sizes are those of illumos, and so is the first size of a cache", () => {
    expect(MAGAZINE_TYPES.map(({ magsize, minBuf, maxBuf }) => [magsize, minBuf, maxBuf])).toEqual([
      [1, 3200, 65_536],
      [3, 256, 32_768],
      [7, 64, 16_384],
      [15, 0, 8192],
      [31, 0, 4096],
      [47, 0, 2048],
      [63, 0, 1024],
      [95, 0, 512],
      [143, 0, 0],
    ]);
    const first = (bytes: number): number | undefined => MAGAZINE_TYPES[magazineTypeFor(bytes)]?.magsize;
    expect([8, 64, 65, 256, 257, 3200, 3201, 8192].map(first)).toEqual([15, 15, 7, 7, 3, 3, 1, 1]);
  });
});
