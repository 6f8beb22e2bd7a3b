/**
 * The page allocator off its fast path: the walk over the zones, and what to do when none has pages to spare.
 *
 *   takeFromFreelist   one walk over the zones from `from` downwards, with one set of allocation flags (watermark.ts)
 *   takeSlow           wake kswapd; down to `min`, or deeper into the reserve for those entitled           (W4, W5)
 *                      drain all per-CPU lists, again
 *                      more than one page: compaction, again; who may not wait asks kcompactd             (G3)
 *                      then what object caches can spare, again
 *                      give up the high-order atomic reserve, again                                            (B10)
 *
 * Each step is tried once, in this order, and the walk is repeated after each that brought anything. Reclaim, which
 * may sleep, comes after all of this, in page_alloc.ts.
 *
 * Context: any. Locks: zone locks, for one block at a time. Source: mm/page_alloc.c (get_page_from_freelist,
 * __alloc_pages_slowpath, gfp_to_alloc_flags).
 */

import { CYC_BUDDY_FIND, CYC_SLOWPATH } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { asPhys, type Context, NO_PFN, type Pfn, type PhysAddr } from "../kernel/types.ts";
import { ALLOC_CMA, ALLOC_NOFRAGMENT, type FrameAllocator } from "./frame_allocator.ts";
import {
  __GFP_DIRECT_RECLAIM,
  __GFP_HIGH,
  __GFP_KSWAPD_RECLAIM,
  __GFP_MEMALLOC,
  __GFP_MOVABLE,
  __GFP_NOMEMALLOC,
  type Gfp,
  gfpMigratetype,
} from "./gfp.ts";
import { createHighAtomic } from "./highatomic.ts";
import { MIGRATE_HIGHATOMIC } from "./migratetype.ts";
import { gfpZone, WMARK_LOW, WMARK_MIN, Z_LOCK, Z_MANAGED, ZONE_BYTES_SHIFT, type Zones } from "./mmzone.ts";
import type { Pageblocks } from "./pageblock.ts";
import type { PerCpuPages } from "./pcp.ts";
import { pcpAllowedOrder } from "./pcp_layout.ts";
import { DRAIN_ALL_PAGES, type VmStat } from "./vmstat.ts";
import {
  ALLOC_HIGHATOMIC,
  ALLOC_MIN_RESERVE,
  ALLOC_NO_WATERMARKS,
  ALLOC_NON_BLOCK,
  ALLOC_OOM,
  type WatermarkChecks,
} from "./watermark.ts";

/** Copies for paths that are hot all the same: why, see slab_objects.ts. */
const STRUCT_SHIFT = ZONE_BYTES_SHIFT;
const LOCK = Z_LOCK;
const FIND_CYCLES = CYC_BUDDY_FIND;
const RESERVED = MIGRATE_HIGHATOMIC;
const HAS_RESERVE = ALLOC_HIGHATOMIC;
const MAY_USE_RESERVE = ALLOC_OOM | ALLOC_NON_BLOCK;
const NONE = NO_PFN;
const toPhys = asPhys;
const typeFor = gfpMigratetype;

/** Makes large blocks out of small ones; compaction.ts. */
export interface PageCompactor {
  /** Compacts for a request that may wait, if it is worth trying; then `retry`, and what that brought. */
  direct(ctx: Context, order: number, gfp: Gfp, retry: () => Pfn): Pfn;
  /** Asks kcompactd to do so later. Any context. */
  wakeDaemon(ctx: Context, order: number, gfp: Gfp): void;
}

export interface PageSlowPath {
  /** B9: what the mask adds to the flags of any walk: movable requests may borrow from the contiguous area. */
  cmaFlags(gfp: Gfp): number;
  /** Takes a block from the buddy of one zone, watermarks seen to; NO_PFN if it has none. */
  takeFromBuddy(ctx: Context, zone: number, order: number, gfp: Gfp, allocFlags: number): Pfn;
  /**
   * The fast path's flags for zones from `from` down, then the slow path; NO_PFN when nobody can spare a block.
   */
  takeFrom(ctx: Context, order: number, gfp: Gfp, from: number): Pfn;
  drainAllPages(ctx: Context): number;
  onPressure(giveBack: (ctx: Context, isAtomic: boolean) => number): void;
  onCompact(compactor: PageCompactor): void;
  onLow(wake: (ctx: Context, highest: number) => void): void;
}

export interface PageSlowPathDeps {
  readonly machine: Machine;
  readonly spinlocks: Spinlocks;
  readonly vmstat: VmStat;
  readonly pageblocks: Pageblocks;
  readonly zones: Zones;
  readonly frames: readonly FrameAllocator[];
  readonly pcp: PerCpuPages;
  readonly watermarks: WatermarkChecks;
  readonly hasCma: boolean;
}

export function createPageSlowPath(deps: PageSlowPathDeps): PageSlowPath {
  const { machine, spinlocks, vmstat, pageblocks, zones, frames, pcp, watermarks, hasCma } = deps;
  const { port, harts } = machine;
  const { clock } = harts;
  const { spinLockIrqsave, spinUnlockIrqrestore } = spinlocks;
  const { countServed } = vmstat;
  const highatomic = createHighAtomic(spinlocks, zones, pageblocks, frames);
  const zonesBase = zones.addr(0);
  let wakeKswapd: (ctx: Context, highest: number) => void = () => {};
  let giveBack: (ctx: Context, isAtomic: boolean) => number = () => 0;
  let compactor: PageCompactor | undefined;

  // ── Taking a block from one zone ─────────────────────────────────────────────────────────────────────────────────

  const takeFromBuddy = (ctx: Context, zone: number, order: number, gfp: Gfp, allocFlags: number): Pfn => {
    const buddy = frames[zone] as FrameAllocator;
    const lock = toPhys((zonesBase + (zone << STRUCT_SHIFT) + LOCK) >>> 0);
    const irq = spinLockIrqsave(ctx, lock);
    let pfn = NONE;
    if ((allocFlags & HAS_RESERVE) !== 0) pfn = buddy.allocBlock(order, RESERVED, allocFlags);
    if (pfn === NONE) pfn = buddy.allocBlock(order, typeFor(gfp), allocFlags);
    // A request that may use the high-order atomic reserve does so before it fails.
    if (pfn === NONE && (allocFlags & MAY_USE_RESERVE) !== 0) pfn = buddy.allocBlock(order, RESERVED, allocFlags);
    spinUnlockIrqrestore(ctx, lock, irq);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + FIND_CYCLES;
    zones.tellBoost(ctx, zone);
    if (pfn !== NONE) countServed(ctx, zone, 1 << order);
    return pfn;
  };

  /** Walks the zones of `gfp` from `from` down once; NO_PFN if none can serve the request above its mark. */
  const takeFromFreelist = (ctx: Context, order: number, gfp: Gfp, allocFlags: number, from: number): Pfn => {
    const highest = gfpZone(gfp);
    for (let zone = from; zone >= 0; zone--) {
      const zoneAddr: PhysAddr = zones.addr(zone);
      if (port.ld32(zoneAddr + Z_MANAGED) === 0) continue;
      const isUnbounded = (allocFlags & ALLOC_NO_WATERMARKS) !== 0;
      if (!isUnbounded && !watermarks.isOk(zoneAddr, order, highest, allocFlags)) continue;
      let pfn = NONE;
      if (pcpAllowedOrder(order)) pfn = pcp.alloc(ctx, zone, order, typeFor(gfp), allocFlags);
      if (pfn === NONE) pfn = takeFromBuddy(ctx, zone, order, gfp, allocFlags);
      if (pfn === NONE) continue;
      if ((allocFlags & ALLOC_HIGHATOMIC) !== 0) highatomic.reserve(ctx, zone, pfn, order);
      return pfn;
    }
    return NONE;
  };

  // ── The slow path ────────────────────────────────────────────────────────────────────────────────────────────────

  const cmaFlags = (gfp: Gfp): number => (hasCma && (gfp & __GFP_MOVABLE) !== 0 ? ALLOC_CMA : 0);

  /** What the mask entitles to below `low` (W4, G3). */
  const slowpathFlags = (gfp: Gfp, order: number): number => {
    let flags = WMARK_MIN | cmaFlags(gfp);
    if ((gfp & __GFP_HIGH) !== 0) flags |= ALLOC_MIN_RESERVE;
    if ((gfp & __GFP_DIRECT_RECLAIM) === 0 && (gfp & __GFP_NOMEMALLOC) === 0) {
      flags |= ALLOC_NON_BLOCK;
      if (order > 0 && (gfp & __GFP_HIGH) !== 0) flags |= ALLOC_HIGHATOMIC;
    }
    if ((gfp & __GFP_MEMALLOC) !== 0 && (gfp & __GFP_NOMEMALLOC) === 0) flags |= ALLOC_NO_WATERMARKS;
    return flags;
  };

  const drainAllPages = (ctx: Context): number => {
    vmstat.countEvents(ctx, DRAIN_ALL_PAGES, 1);
    let nrPages = 0;
    for (let cpu = 0; cpu < harts.nrCpus; cpu++) nrPages += pcp.drainCpu(ctx, cpu);
    return nrPages;
  };

  /** B10, G3: before a request that may sleep fails, the high-order atomic reserve is given up, at last all of it. */
  const takeFromReserve = (ctx: Context, order: number, gfp: Gfp, flags: number): Pfn => {
    for (const force of [false, true]) {
      while (highatomic.unreserve(ctx, gfpZone(gfp), gfpMigratetype(gfp), force)) {
        const pfn = takeFromFreelist(ctx, order, gfp, flags, gfpZone(gfp));
        if (pfn !== NO_PFN) return pfn;
      }
    }
    return NO_PFN;
  };

  /** G3: pages are there but not side by side. Reclaim, which comes later, brings requests back here. */
  const takeCompacted = (ctx: Context, order: number, gfp: Gfp, flags: number): Pfn => {
    if (compactor === undefined) return NO_PFN;
    if ((gfp & __GFP_DIRECT_RECLAIM) === 0) {
      if ((gfp & __GFP_KSWAPD_RECLAIM) !== 0) compactor.wakeDaemon(ctx, order, gfp);
      return NO_PFN;
    }
    return compactor.direct(ctx, order, gfp, () => takeFromFreelist(ctx, order, gfp, flags, gfpZone(gfp)));
  };

  const takeSlow = (ctx: Context, order: number, gfp: Gfp): Pfn => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_SLOWPATH;
    const flags = slowpathFlags(gfp, order);
    const highest = gfpZone(gfp);
    if ((gfp & __GFP_KSWAPD_RECLAIM) !== 0) wakeKswapd(ctx, highest);
    let pfn = takeFromFreelist(ctx, order, gfp, flags, highest);
    if (pfn !== NO_PFN) return pfn;
    // PCP-4: pages on other CPUs' lists may be all that is left, or what a large block is missing.
    if (drainAllPages(ctx) !== 0) pfn = takeFromFreelist(ctx, order, gfp, flags, highest);
    if (pfn === NO_PFN && order > 0) pfn = takeCompacted(ctx, order, gfp, flags);
    if (pfn !== NO_PFN || (gfp & (__GFP_HIGH | __GFP_DIRECT_RECLAIM)) === 0) return pfn;
    // PGA-5: what object caches hold without need. It comes back by way of the per-CPU lists.
    if (giveBack(ctx, (gfp & __GFP_DIRECT_RECLAIM) === 0) !== 0) {
      drainAllPages(ctx);
      pfn = takeFromFreelist(ctx, order, gfp, flags, highest);
    }
    return pfn === NO_PFN && (gfp & __GFP_DIRECT_RECLAIM) !== 0 ? takeFromReserve(ctx, order, gfp, flags) : pfn;
  };

  return {
    cmaFlags,
    takeFromBuddy,
    takeFrom(ctx, order, gfp, from) {
      const pfn = takeFromFreelist(ctx, order, gfp, WMARK_LOW | ALLOC_NOFRAGMENT | cmaFlags(gfp), from);
      return pfn === NO_PFN ? takeSlow(ctx, order, gfp) : pfn;
    },
    drainAllPages,
    onPressure(hook) {
      giveBack = hook;
    },
    onCompact(hook) {
      compactor = hook;
    },
    onLow(hook) {
      wakeKswapd = hook;
    },
  };
}
