/**
 * An observer around the allocators that holds them to what they promise about each block: alignment, contiguity, zone,
 * and that no two live blocks overlap (S2, B2, W6, PGA-1, KMA-1, KMA-2).
 *
 * It wraps the doors, keeps the live blocks of the host's side, and throws at the first broken promise. A test runs
 * random programs through it; a mutant that breaks one promise shows that it would be noticed.
 */

import type { Context, Pfn, PhysAddr } from "../../kernel/types.ts";
import { __GFP_DMA, __GFP_DMA32, type Gfp } from "../../mm/gfp.ts";
import { kmallocBucket } from "../../mm/kmalloc.ts";
import { gfpZone, ZONE_DMA_LIMIT } from "../../mm/mmzone.ts";
import { PG_ALLOCATED, PG_STATE } from "../../mm/page.ts";
import type { KmemCache } from "../../mm/slab_descriptor.ts";
import { finish } from "./finish.ts";
import type { ObjectLevelMachine } from "./object_level.ts";

export interface Promises {
  kmalloc(ctx: Context, bytes: number, gfp: Gfp): PhysAddr;
  kfree(ctx: Context, addr: PhysAddr): void;
  cacheAlloc(ctx: Context, cache: KmemCache, gfp: Gfp): PhysAddr;
  cacheFree(ctx: Context, cache: KmemCache, addr: PhysAddr): void;
  pages(ctx: Context, order: number, gfp: Gfp): Pfn;
  freePages(ctx: Context, pfn: Pfn, order: number): void;
  nrLive(): number;
}

/** `shift` moves each address the observer sees: how a test plants a broken promise. */
export function watchPromises(m: ObjectLevelMachine, shift: (addr: number) => number = (addr) => addr): Promises {
  const live = new Map<number, number>();
  const { pages, zones, machine } = m;

  const demand = (condition: boolean, promise: string, addr: number, bytes: number): void => {
    if (!condition) throw new Error(`${promise} (0x${addr.toString(16)}, ${bytes} bytes)`);
  };

  const noteBlock = (addr: number, bytes: number): void => {
    for (const [start, length] of live) {
      demand(addr + bytes <= start || start + length <= addr, "KMA-1: two live blocks overlap", addr, bytes);
    }
    live.set(addr, bytes);
  };
  const forget = (addr: number): void => {
    if (!live.delete(addr)) throw new Error(`freed a block that the observer does not know: ${addr}`);
  };

  /** W6, PGA-1: every frame of the block lies in one zone that the mask allows. */
  const checkZone = (addr: number, bytes: number, gfp: Gfp): void => {
    const first = zones.zoneOfPfn((addr >>> 12) as Pfn);
    demand(first >= 0 && first <= gfpZone(gfp), "PGA-1: a zone that the mask does not allow", addr, bytes);
    demand(zones.zoneOfPfn(((addr + bytes - 1) >>> 12) as Pfn) === first, "B3: a block in two zones", addr, bytes);
    if ((gfp & __GFP_DMA) !== 0) demand(addr + bytes <= ZONE_DMA_LIMIT, "W6: not below 16 MiB", addr, bytes);
    demand(addr + bytes <= machine.config.ramBytes, "PGA-1: outside RAM", addr, bytes);
  };

  const alignmentOf = (bytes: number): number => {
    const bucket = kmallocBucket(bytes);
    return bucket & -bucket;
  };

  return {
    kmalloc(ctx, bytes, gfp) {
      const addr = shift(finish(m.slab.kmalloc.kmallocAny(ctx, bytes, gfp)));
      if (addr === 0) return addr as PhysAddr;
      demand(addr % Math.max(8, alignmentOf(bytes)) === 0, "S2: kmalloc alignment", addr, bytes);
      checkZone(addr, kmallocBucket(bytes), gfp & ~__GFP_DMA32);
      noteBlock(addr, kmallocBucket(bytes));
      return addr as PhysAddr;
    },
    kfree(ctx, addr) {
      forget(addr);
      m.slab.kmalloc.kfree(ctx, addr);
    },
    cacheAlloc(ctx, cache, gfp) {
      const addr = shift(finish(m.slab.layer.kmemCacheAllocAny(ctx, cache, gfp)));
      if (addr === 0) return addr as PhysAddr;
      const { align, size } = m.slab.slabInfo(cache);
      demand(addr % align === 0, "SLAB-1: alignment of an object", addr, size);
      noteBlock(addr, size);
      return addr as PhysAddr;
    },
    cacheFree(ctx, cache, addr) {
      forget(addr);
      m.slab.layer.kmemCacheFree(ctx, cache, addr);
    },
    pages(ctx, order, gfp) {
      const pfn = shift(m.pageAlloc.tryAllocPages(ctx, order, gfp) * 4096) / 4096;
      if (pfn === 0) return pfn as Pfn;
      const bytes = 4096 << order;
      demand(pfn % (1 << order) === 0, "B2: a block starts at a multiple of its size", pfn * 4096, bytes);
      checkZone(pfn * 4096, bytes, gfp);
      for (let i = 1; i < 1 << order; i++) {
        demand(
          (pages.flags((pfn + i) as Pfn) & PG_STATE) === 0,
          "PAGE-2: a second state in a block",
          pfn * 4096,
          bytes,
        );
      }
      demand((pages.flags(pfn as Pfn) & PG_STATE) === PG_ALLOCATED, "PAGE-1: not allocated", pfn * 4096, bytes);
      noteBlock(pfn * 4096, bytes);
      return pfn as Pfn;
    },
    freePages(ctx, pfn, order) {
      forget(pfn * 4096);
      m.pageAlloc.freePages(ctx, pfn, order);
    },
    nrLive: () => live.size,
  };
}
