/**
 * The page allocator: which zone, which reserve, how hard to try, and what to say when there is nothing.
 *
 *   allocPages ─▶ fast path: zones from the highest allowed downwards, above their `low` mark        (W5, W6)
 *                   orders 0-3, 9 from the CPU's own list (pcp.ts), others from the buddy under the zone lock
 *              ─▶ slow path: again down to `min`, or deeper into the reserve for those entitled  (W4)
 *                   drain all per-CPU lists, again; then what object caches can spare, again
 *                   give up the high-order atomic reserve, again                                   (B10)
 *                   then whatever reclaim is registered                                            (G3)
 *              ─▶ failure: NO_PFN, and the splat of C4 unless __GFP_NOWARN
 *
 * Every block carries its state and order in the flags of its first frame (page.ts), so a free is checked in O(1): of a
 * frame that is not the start of an allocated block, of a free one, with another order, outside RAM, each is reported
 * and refused instead of corrupting a list.
 *
 *   PGA-1  a block lies in a zone that its mask allows, and is aligned to its size                           (W6, B2)
 *   PGA-2  an ordinary request is served from zones above min + lowmem_reserve; a refill may cost one batch more (W4)
 *   PGA-3  what may sleep says so first: mightSleep runs even when memory is plenty                          (G2)
 *   PGA-4  a failed or refused call changes nothing
 *   PGA-5  a request that may sleep does not fail while depots of magazines hold memory that it could have; one with
 *          __GFP_HIGH has a few magazines unloaded, GFP_NOWAIT none
 *
 * Context: any, as the mask says. Locks: none held by the caller that reclaim could want; takes pcp locks, zone locks.
 * There is no reclaim yet: `onReclaim` is where it will be registered. Source: mm/page_alloc.c.
 */

import { CYC_BUDDY_FIND, CYC_SLOWPATH, CYC_ZERO_PAGE } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { bug, bugOn } from "../kernel/bug.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { CYCLES_PER_SECOND, PAGE_SIZE } from "../kernel/params.ts";
import { KERN_ERR, KERN_WARNING, type Printk } from "../kernel/printk.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { TASK_PID, taskComm } from "../kernel/task_struct.ts";
import {
  asPfn,
  asPhys,
  type Context,
  type MaySleep,
  NO_PFN,
  NULL,
  type Pfn,
  type PhysAddr,
  pfnToPhys,
  type Sleeping,
  type TaskContext,
} from "../kernel/types.ts";
import { EINVAL } from "../kernel/uapi/errno.ts";
import { type ContigRanges, createContigRanges } from "./contig_range.ts";
import { ALLOC_CMA, ALLOC_NOFRAGMENT, type FrameAllocator } from "./frame_allocator.ts";
import {
  __GFP_COMP,
  __GFP_DIRECT_RECLAIM,
  __GFP_HIGH,
  __GFP_MEMALLOC,
  __GFP_MOVABLE,
  __GFP_NOMEMALLOC,
  __GFP_NOWARN,
  __GFP_ZERO,
  type AtomicGfp,
  type BlockingGfp,
  type Gfp,
  gfpMigratetype,
  gfpNames,
} from "./gfp.ts";
import { createHighAtomic } from "./highatomic.ts";
import {
  MIGRATE_CMA,
  MIGRATE_HIGHATOMIC,
  MIGRATE_ISOLATE,
  MIGRATE_MOVABLE,
  MIGRATE_PCPTYPES,
  NR_MIGRATETYPES,
} from "./migratetype.ts";
import {
  gfpZone,
  MAX_NR_ZONES,
  MAX_PAGE_ORDER,
  WMARK_LOW,
  WMARK_MIN,
  Z_BOOST,
  Z_FREE_COUNT,
  Z_LOCK,
  Z_LOWMEM_RESERVE,
  Z_MANAGED,
  Z_NR_FREE,
  Z_NR_FREE_CMA,
  Z_NR_FREE_HIGHATOMIC,
  Z_WMARK,
  ZONE_BYTES_SHIFT,
  type Zones,
} from "./mmzone.ts";
import {
  ORDER_MASK,
  ORDER_SHIFT,
  orderOfFlags,
  type Pages,
  PG_ALLOCATED,
  PG_HEAD,
  PG_OWNER_BITS,
  PG_STATE,
  ZONE_MASK,
  ZONE_SHIFT,
} from "./page.ts";
import type { Pageblocks } from "./pageblock.ts";
import { type PerCpuPages, pcpAllowedOrder } from "./pcp.ts";
import { formatMemInfo } from "./show_mem.ts";
import { ALLOCSTALL, DRAIN_ALL_PAGES, PAGE_ALLOC_FAILED, PGFREE, type VmStat } from "./vmstat.ts";

// ── Allocation flags (W4) ──────────────────────────────────────────────────────────────────────────────────────────

const ALLOC_WMARK_MASK = 0x3;
const ALLOC_NO_WATERMARKS = 0x4;
const ALLOC_OOM = 0x8;
const ALLOC_NON_BLOCK = 0x10;
const ALLOC_MIN_RESERVE = 0x20;
const ALLOC_HIGHATOMIC = 0x200;
const ALLOC_RESERVES = ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE | ALLOC_HIGHATOMIC | ALLOC_OOM;

/** Copies for the fast paths: why, see slab_objects.ts. */
const STRUCT_SHIFT = ZONE_BYTES_SHIFT;
const LOCK = Z_LOCK;
const MANAGED = Z_MANAGED;
const NR_FREE = Z_NR_FREE;
const NR_FREE_HIGHATOMIC = Z_NR_FREE_HIGHATOMIC;
const NR_FREE_CMA = Z_NR_FREE_CMA;
const MARKS = Z_WMARK;
const BOOST = Z_BOOST;
const RESERVES = Z_LOWMEM_RESERVE;
const FAST_PATH_FLAGS = WMARK_LOW | ALLOC_NOFRAGMENT;
const MAX_ORDER = MAX_PAGE_ORDER;
const FREE_COUNTS = Z_FREE_COUNT;
const ROW_OF_COUNTS = NR_MIGRATETYPES * 4;
const FIND_CYCLES = CYC_BUDDY_FIND;
const MAY_RECLAIM = __GFP_DIRECT_RECLAIM;
const MAY_MOVE = __GFP_MOVABLE;
const BORROWS = ALLOC_CMA;
const NEEDS_WORK = __GFP_ZERO | __GFP_COMP;
const OUT = PG_ALLOCATED;
const HEAD_OF_COMPOUND = PG_HEAD;
const ORDER_AT = ORDER_SHIFT;
const ZONE_AT = ZONE_SHIFT;
const ZONE_OF_SHIFTED = ZONE_MASK >>> ZONE_SHIFT;
/** What must be as it was when the block was handed out, and what then stays in its flags. */
const CHECKED_BITS = PG_STATE | PG_OWNER_BITS | ORDER_MASK;
const KEPT_BITS = ZONE_MASK | ORDER_MASK | PG_ALLOCATED;
const FREED = PGFREE;
const ISOLATED = MIGRATE_ISOLATE;
const MOVABLE = MIGRATE_MOVABLE;
const TYPES = MIGRATE_PCPTYPES;
const NONE = NO_PFN;
const toPhys = asPhys;
const zoneFor = gfpZone;
const typeFor = gfpMigratetype;
const hasList = pcpAllowedOrder;

/** How often a failed allocation may print: one per 10 seconds of virtual time (C4). */
const SPLAT_INTERVAL = 10 * CYCLES_PER_SECOND;

export interface PageAllocator {
  /**
   * Allocates 2^order contiguous, naturally aligned frames; order 0-10. NO_PFN if memory is short (after a splat).
   * With a blocking mask the result may be the rest of the work (`Sleeping`). O(orders), plus zeroing.
   */
  allocPages(ctx: TaskContext, order: number, gfp: BlockingGfp): MaySleep<Pfn>;
  allocPages(ctx: Context, order: number, gfp: AtomicGfp): Pfn;
  /** The same for masks known at run time only; a blocking mask in the wrong context is reported (PGA-3). */
  allocPagesAny(ctx: Context, order: number, gfp: Gfp): MaySleep<Pfn>;
  /** One attempt that never sleeps, whatever the mask says: fast path, then the reserve it entitles to. No splat. */
  tryAllocPages(ctx: Context, order: number, gfp: Gfp): Pfn;
  /** Frees a block: 0, or −EINVAL after a report (double, foreign, interior, wrong order). Any context. */
  freePages(ctx: Context, pfn: Pfn, order: number): number;
  /** As allocPagesAny; the physical address of the first byte, NULL on failure. */
  getFreePages(ctx: Context, order: number, gfp: Gfp): MaySleep<PhysAddr>;
  /** Turns an allocated block of order n into 2^n blocks of order 0 that are freed one by one. */
  splitPage(pfn: Pfn, order: number): void;
  /** Takes exactly the frames `[start, end)`, moving process pages out of them (contig_range.ts). */
  readonly allocContigRange: ContigRanges["alloc"];
  /** Registers who moves pages for it. */
  readonly onMigrate: ContigRanges["onMigrate"];
  /** Gives every per-CPU list back to the buddies; returns the number of pages. */
  drainAllPages(ctx: Context): number;
  /** Frees boot memory `[start, end)` into the allocator: managed grows. Boot only. */
  addManagedRange(start: Pfn, end: Pfn): void;
  /** Registers reclaim: true from it means "try again". */
  onReclaim(reclaim: (ctx: TaskContext, order: number, gfp: BlockingGfp) => Sleeping<boolean>): void;
  /**
   * Registers who gives pages back without sleeping, before an allocation fails; `isAtomic`: only a little, at once.
   * What it returns is 0 if nothing came.
   */
  onPressure(giveBack: (ctx: Context, isAtomic: boolean) => number): void;
  /** Number of reports about bad frees. */
  nrBadFrees(): number;
  /** Invariants of every zone's buddy and of the per-CPU lists: the first violation, or null. O(frames). */
  check(): string | null;
}

export interface PageAllocatorDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly spinlocks: Spinlocks;
  readonly printk: Printk;
  readonly vmstat: VmStat;
  readonly pages: Pages;
  readonly pageblocks: Pageblocks;
  readonly zones: Zones;
  readonly frames: readonly FrameAllocator[];
  readonly pcp: PerCpuPages;
  /** Is there a contiguous area (cma.ts)? Without one no path looks at it. */
  readonly hasCma: boolean;
  /** 16 bytes of zeroed static memory: next splat time, number of bad frees. */
  readonly state: PhysAddr;
}

export function createPageAllocator(deps: PageAllocatorDeps): PageAllocator {
  const { machine, contexts, spinlocks, printk, vmstat, pages, pageblocks, zones, frames, pcp, hasCma, state } = deps;
  const { port, harts } = machine;
  const { clock } = harts;
  const { flagsBase, refcountBase, privateBase } = pages;
  const { mightSleep } = contexts;
  const { countEvents, countServed } = vmstat;
  const { migratetype } = pageblocks;
  const { spinLockIrqsave, spinUnlockIrqrestore } = spinlocks;
  const highatomic = createHighAtomic(spinlocks, zones, pageblocks, frames);
  const zonesBase = zones.addr(0);
  const { nrFrames } = pages;
  const NR_BAD_FREES = state + 8;
  let giveBack: (ctx: Context, isAtomic: boolean) => number = () => 0;
  for (let zone = 0; zone < MAX_NR_ZONES; zone++) spinlocks.init(asPhys(zones.addr(zone) + Z_LOCK), "&zone->lock");
  let reclaim: ((ctx: TaskContext, order: number, gfp: BlockingGfp) => Sleeping<boolean>) | undefined;

  // ── Watermarks (W4) ──────────────────────────────────────────────────────────────────────────────────────────────

  /** W4: may a request of `order` take from a zone without going below its mark and reserve? */
  const watermarkOk = (zoneAddr: PhysAddr, order: number, highestZone: number, allocFlags: number): boolean => {
    if (hasCma || (allocFlags & ALLOC_RESERVES) !== 0) return watermarkOkSlow(zoneAddr, order, highestZone, allocFlags);
    const free = port.ld32((zoneAddr + NR_FREE) >>> 0) - port.ld32((zoneAddr + NR_FREE_HIGHATOMIC) >>> 0);
    const mark = port.ld32((zoneAddr + MARKS + ((allocFlags & ALLOC_WMARK_MASK) << 2)) >>> 0);
    const most = mark + port.ld32((zoneAddr + BOOST) >>> 0) + (1 << order) - 1;
    if (free <= most + port.ld32((zoneAddr + RESERVES + (highestZone << 2)) >>> 0)) return false;
    return order === 0 || hasBlock(zoneAddr, order, allocFlags);
  };

  /** The same for a request that is entitled to reserves, or on a machine with a contiguous area. */
  const watermarkOkSlow = (zoneAddr: PhysAddr, order: number, highestZone: number, allocFlags: number): boolean => {
    let free = port.ld32(zoneAddr + NR_FREE) - ((1 << order) - 1);
    if ((allocFlags & ALLOC_RESERVES) === 0) free -= port.ld32(zoneAddr + NR_FREE_HIGHATOMIC);
    if (hasCma && (allocFlags & BORROWS) === 0) free -= port.ld32(zoneAddr + NR_FREE_CMA);
    let min = port.ld32(zoneAddr + MARKS + ((allocFlags & ALLOC_WMARK_MASK) << 2)) + port.ld32(zoneAddr + BOOST);
    if ((allocFlags & ALLOC_RESERVES) !== 0) {
      if ((allocFlags & ALLOC_MIN_RESERVE) !== 0) {
        min -= min >>> 1;
        if ((allocFlags & ALLOC_NON_BLOCK) !== 0) min -= min >>> 2;
      }
      if ((allocFlags & ALLOC_OOM) !== 0) min -= min >>> 1;
    }
    if (free <= min + port.ld32(zoneAddr + RESERVES + (highestZone << 2))) return false;
    return order === 0 || hasBlock(zoneAddr, order, allocFlags);
  };

  /** W4, second half: is there one free block of at least `order` that this request may use? */
  const hasBlock = (zoneAddr: PhysAddr, order: number, allocFlags: number): boolean => {
    for (let current = order; current <= MAX_ORDER; current++) {
      const counts = zoneAddr + FREE_COUNTS + current * ROW_OF_COUNTS;
      for (let type = 0; type < TYPES; type++) {
        if (port.ld32(counts + (type << 2)) !== 0) return true;
      }
      if ((allocFlags & BORROWS) !== 0 && port.ld32(counts + MIGRATE_CMA * 4) !== 0) return true;
      const mayUseHighatomic = (allocFlags & (ALLOC_HIGHATOMIC | ALLOC_OOM)) !== 0;
      if (mayUseHighatomic && port.ld32(counts + MIGRATE_HIGHATOMIC * 4) !== 0) return true;
    }
    return false;
  };

  // ── Taking a block from one zone ─────────────────────────────────────────────────────────────────────────────────

  const takeFromBuddy = (ctx: Context, zone: number, order: number, gfp: Gfp, allocFlags: number): Pfn => {
    const lock = toPhys(zonesBase + (zone << STRUCT_SHIFT) + LOCK);
    const irq = spinLockIrqsave(ctx, lock);
    let pfn = NONE;
    if ((allocFlags & ALLOC_HIGHATOMIC) !== 0) {
      pfn = (frames[zone] as FrameAllocator).allocBlock(order, MIGRATE_HIGHATOMIC, allocFlags);
    }
    if (pfn === NONE) pfn = (frames[zone] as FrameAllocator).allocBlock(order, typeFor(gfp), allocFlags);
    // A request that may use the high-order atomic reserve does so before it fails.
    if (pfn === NONE && (allocFlags & (ALLOC_OOM | ALLOC_NON_BLOCK)) !== 0) {
      pfn = (frames[zone] as FrameAllocator).allocBlock(order, MIGRATE_HIGHATOMIC, allocFlags);
    }
    spinUnlockIrqrestore(ctx, lock, irq);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + FIND_CYCLES;
    return pfn;
  };

  /** Walks the zonelist once; NO_PFN if no zone can serve the request above its mark. */
  const takeFromFreelist = (ctx: Context, order: number, gfp: Gfp, allocFlags: number): Pfn => {
    const highest = zoneFor(gfp);
    for (let zone = highest; zone >= 0; zone--) {
      const zoneAddr = toPhys((zonesBase + (zone << STRUCT_SHIFT)) >>> 0);
      if (port.ld32((zoneAddr + MANAGED) >>> 0) === 0) continue;
      if ((allocFlags & ALLOC_NO_WATERMARKS) === 0 && !watermarkOk(zoneAddr, order, highest, allocFlags)) continue;
      let pfn = NONE;
      if (hasList(order)) pfn = pcp.alloc(ctx, zone, order, typeFor(gfp), allocFlags);
      if (pfn === NONE) pfn = takeFromBuddy(ctx, zone, order, gfp, allocFlags);
      if (pfn === NONE) continue;
      if ((allocFlags & ALLOC_HIGHATOMIC) !== 0) highatomic.reserve(ctx, zone, pfn, order);
      countServed(ctx, zone, 1 << order);
      return pfn;
    }
    return NONE;
  };

  /** Makes a taken block ready for its owner: one holder, no leftovers, zeroed on request. */
  const prepNewPage = (ctx: Context, pfn: Pfn, order: number, gfp: Gfp): void => {
    port.st32((refcountBase + (pfn << 2)) >>> 0, 1);
    port.st32((privateBase + (pfn << 2)) >>> 0, 0);
    if ((gfp & NEEDS_WORK) !== 0) prepOnRequest(ctx, pfn, order, gfp);
  };
  const prepOnRequest = (ctx: Context, pfn: Pfn, order: number, gfp: Gfp): void => {
    if ((gfp & __GFP_COMP) !== 0 && order > 0) pages.addFlags(pfn, PG_HEAD);
    if ((gfp & __GFP_ZERO) !== 0) {
      port.fill(pfnToPhys(pfn), 0, PAGE_SIZE << order);
      clock[ctx.cpu] = (clock[ctx.cpu] as number) + (CYC_ZERO_PAGE << order);
    }
  };

  // ── Fast and slow path ───────────────────────────────────────────────────────────────────────────────────────────

  /** B9: movable requests may borrow from the contiguous area. */
  const cmaFlags = (gfp: Gfp): number => (hasCma && (gfp & MAY_MOVE) !== 0 ? BORROWS : 0);

  /** Flags of the slow path: what the mask entitles to below `low` (W4, G3). */
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

  const takeSlow = (ctx: Context, order: number, gfp: Gfp): Pfn => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_SLOWPATH;
    const flags = slowpathFlags(gfp, order);
    let pfn = takeFromFreelist(ctx, order, gfp, flags);
    if (pfn !== NO_PFN) return pfn;
    // PCP-4: pages on other CPUs' lists may be all that is left, or what a large block is missing.
    if (drainAllPages(ctx) !== 0) pfn = takeFromFreelist(ctx, order, gfp, flags);
    if (pfn !== NO_PFN || (gfp & (__GFP_HIGH | __GFP_DIRECT_RECLAIM)) === 0) return pfn;
    // PGA-5: what object caches hold without need. It comes back by way of the per-CPU lists.
    if (giveBack(ctx, (gfp & __GFP_DIRECT_RECLAIM) === 0) !== 0) {
      drainAllPages(ctx);
      pfn = takeFromFreelist(ctx, order, gfp, flags);
    }
    return pfn === NO_PFN && (gfp & __GFP_DIRECT_RECLAIM) !== 0 ? takeFromReserve(ctx, order, gfp, flags) : pfn;
  };

  /** B10, G3: before a request that may sleep fails, the high-order atomic reserve is given up, at last all of it. */
  const takeFromReserve = (ctx: Context, order: number, gfp: Gfp, flags: number): Pfn => {
    for (const force of [false, true]) {
      while (highatomic.unreserve(ctx, gfpZone(gfp), gfpMigratetype(gfp), force)) {
        const pfn = takeFromFreelist(ctx, order, gfp, flags);
        if (pfn !== NO_PFN) return pfn;
      }
    }
    return NO_PFN;
  };

  const tryAllocPages = (ctx: Context, order: number, gfp: Gfp): Pfn => {
    if (!(order >= 0 && order <= MAX_ORDER)) return NONE;
    if (zoneFor(gfp) < 0) bug("page_alloc: contradicting zone modifiers in gfp mask", gfp);
    let pfn = takeFromFreelist(ctx, order, gfp, FAST_PATH_FLAGS | cmaFlags(gfp));
    if (pfn === NONE) pfn = takeSlow(ctx, order, gfp);
    if (pfn !== NONE) prepNewPage(ctx, pfn, order, gfp);
    return pfn;
  };

  function* reclaimAndRetry(ctx: TaskContext, order: number, gfp: BlockingGfp): Sleeping<Pfn> {
    vmstat.countEvents(ctx, ALLOCSTALL, 1);
    while (reclaim && (yield* reclaim(ctx, order, gfp))) {
      const pfn = tryAllocPages(ctx, order, gfp);
      if (pfn !== NO_PFN) return pfn;
    }
    warnAllocFailed(ctx, order, gfp);
    return NO_PFN;
  }

  const allocPagesAny = (ctx: Context, order: number, gfp: Gfp): MaySleep<Pfn> => {
    if ((gfp & MAY_RECLAIM) !== 0) mightSleep(ctx, "mm/page_alloc.ts:allocPages");
    const pfn = tryAllocPages(ctx, order, gfp);
    if (pfn !== NONE) return pfn;
    if ((gfp & __GFP_DIRECT_RECLAIM) !== 0 && reclaim !== undefined) {
      return reclaimAndRetry(ctx as TaskContext, order, gfp as BlockingGfp);
    }
    warnAllocFailed(ctx, order, gfp);
    return NO_PFN;
  };

  /** C4: `comm: page allocation failure: …` with the state of memory; at most one per ten seconds. */
  const warnAllocFailed = (ctx: Context, order: number, gfp: Gfp): void => {
    vmstat.countEvents(ctx, PAGE_ALLOC_FAILED, 1);
    const now = clock[ctx.cpu] as number;
    if ((gfp & __GFP_NOWARN) !== 0 || now < port.ldF64(state)) return;
    port.stF64(state, now + SPLAT_INTERVAL);
    const task = contexts.currentTask(ctx);
    const mode = `0x${gfp.toString(16)}(${gfpNames(gfp)})`;
    printk(
      KERN_WARNING,
      [
        `${taskComm(port, task)}: page allocation failure: order:${order}, mode:${mode}, ` +
          "nodemask=(null),cpuset=/,mems_allowed=0",
        contexts.stackDump(ctx),
        formatMemInfo({ port, zones, vmstat, pcp, nrCpus: harts.nrCpus }),
      ].join("\n"),
    );
  };

  // ── Freeing ──────────────────────────────────────────────────────────────────────────────────────────────────────

  const reportBadFree = (ctx: Context, pfn: number, order: number, why: string): number => {
    port.fetchAdd(NR_BAD_FREES, 1);
    contexts.taint("B");
    const task = contexts.currentTask(ctx);
    const pid = task === 0 ? 0 : port.ld32(task + TASK_PID);
    printk(
      KERN_ERR,
      [
        `BUG: Bad page state in process ${taskComm(port, task)}  pfn:${pfn.toString(16).padStart(5, "0")}`,
        `page dumped because: ${why} (free of order ${order}, pid ${pid})`,
        contexts.stackDump(ctx),
      ].join("\n"),
    );
    return -EINVAL;
  };

  /** Says why a frame is not what freePages was told it is. Slow on purpose: only after the O(1) test has failed. */
  const explainBadFree = (ctx: Context, pfn: Pfn, order: number): number => {
    if (!Number.isInteger(pfn) || pfn <= 0 || pfn >= pages.nrFrames) {
      return reportBadFree(ctx, pfn, order, "frame outside of memory");
    }
    const flags = pages.flags(pfn);
    if ((flags & PG_ALLOCATED) !== 0) {
      if (orderOfFlags(flags) !== order) {
        return reportBadFree(ctx, pfn, order, `wrong order, the block was allocated with order ${orderOfFlags(flags)}`);
      }
      return reportBadFree(
        ctx,
        pfn,
        order,
        `owner flags or references left: 0x${(flags & PG_OWNER_BITS).toString(16)}`,
      );
    }
    if ((flags & PG_STATE) === 0) return reportBadFree(ctx, pfn, order, "inside a block, not at its start, or freed");
    return reportBadFree(ctx, pfn, order, "already free, or never allocated");
  };

  const freeToBuddy = (ctx: Context, zone: number, pfn: Pfn, order: number): void => {
    const lock = toPhys(zonesBase + (zone << STRUCT_SHIFT) + LOCK);
    const irq = spinLockIrqsave(ctx, lock);
    const failed = (frames[zone] as FrameAllocator).freeBlock(pfn, order);
    spinUnlockIrqrestore(ctx, lock, irq);
    if (failed !== 0) bug("page_alloc: the buddy refuses a block that passed the checks", pfn, order);
  };

  const freePages = (ctx: Context, pfn: Pfn, order: number): number => {
    // One masked compare: allocated, of this order, nothing of its owner left. Then one holder. No frame is a number
    // that is not its own 32 unsigned bits.
    if (pfn >>> 0 !== pfn || pfn === 0 || pfn >= nrFrames) return explainBadFree(ctx, pfn, order);
    const addr = (flagsBase + (pfn << 2)) >>> 0;
    const holders = (refcountBase + (pfn << 2)) >>> 0;
    const flags = port.ld32(addr) & ~HEAD_OF_COMPOUND;
    if ((flags & CHECKED_BITS) !== (OUT | (order << ORDER_AT)) || port.ld32(holders) !== 1) {
      return explainBadFree(ctx, pfn, order);
    }
    port.st32(addr, flags & KEPT_BITS);
    port.st32(holders, 0);
    countEvents(ctx, FREED, 1 << order);
    const zone = (flags >>> ZONE_AT) & ZONE_OF_SHIFTED;
    if (hasList(order)) {
      const type = migratetype(pfn);
      if (type !== ISOLATED) {
        if (pcp.free(ctx, zone, pfn, order, type < TYPES ? type : MOVABLE)) return 0;
      }
    }
    freeToBuddy(ctx, zone, pfn, order);
    return 0;
  };

  const drainAllPages = (ctx: Context): number => {
    vmstat.countEvents(ctx, DRAIN_ALL_PAGES, 1);
    let nrPages = 0;
    for (let cpu = 0; cpu < harts.nrCpus; cpu++) nrPages += pcp.drainCpu(ctx, cpu);
    return nrPages;
  };

  const contigRanges = createContigRanges({ port, spinlocks, pages, pageblocks, zones, frames, drainAllPages });

  return {
    allocPages: allocPagesAny as PageAllocator["allocPages"],
    allocPagesAny,
    tryAllocPages,
    freePages,
    getFreePages(ctx, order, gfp) {
      const pfn = allocPagesAny(ctx, order, gfp);
      if (typeof pfn === "number") return pfnToPhys(pfn);
      return (function* () {
        const late = yield* pfn;
        return late === NO_PFN ? NULL : pfnToPhys(late);
      })();
    },
    splitPage(pfn, order) {
      const flags = pages.flags(pfn) & ~(ORDER_MASK | PG_HEAD);
      for (let i = 0; i < 1 << order; i++) {
        pages.setFlags(asPfn(pfn + i), flags);
        pages.setRefcount(asPfn(pfn + i), 1);
      }
    },
    allocContigRange: contigRanges.alloc,
    onMigrate: contigRanges.onMigrate,
    drainAllPages,
    addManagedRange(start, end) {
      for (let pfn = start as number; pfn < end; ) {
        const zone = zones.zoneOfPfn(asPfn(pfn));
        bugOn(zone < 0, "page_alloc: managed range outside of every zone", pfn);
        let last = pfn;
        while (last < end && zones.zoneOfPfn(asPfn(last)) === zone) last++;
        (frames[zone] as FrameAllocator).addFreeRange(asPfn(pfn), asPfn(last));
        zones.setField(zone, Z_MANAGED, zones.field(zone, Z_MANAGED) + last - pfn);
        pfn = last;
      }
    },
    onPressure(hook) {
      giveBack = hook;
    },
    onReclaim(hook) {
      reclaim = hook;
    },
    nrBadFrees: () => port.ld32(NR_BAD_FREES),
    check() {
      for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
        const problem = zones.field(zone, Z_MANAGED) === 0 ? null : (frames[zone] as FrameAllocator).check();
        if (problem !== null) return `zone ${zones.name(zone)}: ${problem}`;
      }
      return pcp.check();
    },
  };
}
