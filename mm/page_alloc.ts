/**
 * The page allocator: which zone, which reserve, how hard to try, and what to say when there is nothing.
 *
 *   allocPages ─▶ fast path: zones from the highest allowed downwards, above their `low` mark        (W5, W6)
 *                   orders 0-3, 9 from the CPU's own list (pcp.ts), others from the buddy under the zone lock
 *              ─▶ slow path: again down to `min`, or deeper into the reserve for those entitled   (page_alloc_slow.ts)
 *                   drain all per-CPU lists, again; then what object caches can spare, again
 *                   give up the high-order atomic reserve, again                                   (B10)
 *                   then whatever reclaim is registered                                            (G3)
 *              ─▶ failure: NO_PFN, and the splat of C4 unless __GFP_NOWARN                           (page_report.ts)
 *
 * This file is the straight way through: one zone, one mark, one list. It looks at the first zone with memory from the
 * highest allowed down and at the sum that must stay free there, both kept ready in struct zone (mmzone.ts, ZONE-1).
 * Everything that a request meets once in a thousand times lives elsewhere, so that V8 can make one piece of code of
 * the rest.
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

import { CYC_ZERO_PAGE } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { bug, bugOn } from "../kernel/bug.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import type { Printk } from "../kernel/printk.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
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
import { type ContigRanges, createContigRanges } from "./contig_range.ts";
import { ALLOC_NOFRAGMENT, type FrameAllocator } from "./frame_allocator.ts";
import {
  __GFP_COMP,
  __GFP_DIRECT_RECLAIM,
  __GFP_ZERO,
  type AtomicGfp,
  type BlockingGfp,
  failsAtOnce,
  type Gfp,
  gfpMigratetype,
} from "./gfp.ts";
import { MIGRATE_ISOLATE, MIGRATE_MOVABLE, MIGRATE_PCPTYPES } from "./migratetype.ts";
import {
  gfpZone,
  MAX_NR_ZONES,
  MAX_PAGE_ORDER,
  WMARK_LOW,
  Z_FAST_MARK,
  Z_FIRST,
  Z_LOCK,
  Z_MANAGED,
  Z_NONEMPTY_ORDINARY,
  Z_NR_FREE,
  Z_NR_FREE_HIGHATOMIC,
  ZONE_BYTES_SHIFT,
  type Zones,
} from "./mmzone.ts";
import {
  ORDER_MASK,
  ORDER_SHIFT,
  PAGE_REFCOUNT,
  type Pages,
  PG_ALLOCATED,
  PG_HEAD,
  PG_OWNER_BITS,
  PG_STATE,
  ZONE_MASK,
  ZONE_SHIFT,
} from "./page.ts";
import { createPageSlowPath, type PageCompactor } from "./page_alloc_slow.ts";
import { createPageReports } from "./page_report.ts";
import type { Pageblocks } from "./pageblock.ts";
import type { PerCpuPages } from "./pcp.ts";
import { pcpAllowedOrder } from "./pcp_layout.ts";
import { ALLOCSTALL, PGFREE, type VmStat } from "./vmstat.ts";
import { createWatermarks } from "./watermark.ts";

/** Copies for the fast paths: why, see slab_objects.ts. */
const ZONES = MAX_NR_ZONES - 1;
/** Of struct zone, in words. */
const STRUCT_SHIFT = ZONE_BYTES_SHIFT - 2;
const FIRST = Z_FIRST >>> 2;
const FAST_MARK = Z_FAST_MARK >>> 2;
const NR_FREE = Z_NR_FREE >>> 2;
const NR_FREE_HIGHATOMIC = Z_NR_FREE_HIGHATOMIC >>> 2;
const ORDERS_WITH_BLOCK = Z_NONEMPTY_ORDINARY >>> 2;
/** Of struct page, in words; flags are the first. */
const REFCOUNT = PAGE_REFCOUNT >>> 2;
const FAST_PATH_FLAGS = WMARK_LOW | ALLOC_NOFRAGMENT;
const MAX_ORDER = MAX_PAGE_ORDER;
const MAY_RECLAIM = __GFP_DIRECT_RECLAIM;
const NEEDS_WORK = __GFP_ZERO | __GFP_COMP;
const OUT = PG_ALLOCATED;
const HEAD_OF_COMPOUND = PG_HEAD;
const ORDER_AT = ORDER_SHIFT;
const ZONE_AT = ZONE_SHIFT;
const ZONE_OF_SHIFTED = ZONE_MASK >>> ZONE_SHIFT;
/** What must be as it was when the block was handed out, and what then stays in its flags. */
const CHECKED_BITS = PG_STATE | PG_OWNER_BITS | ORDER_MASK;
const KEPT_BITS = ZONE_MASK | ORDER_MASK | PG_ALLOCATED;
const ISOLATED = MIGRATE_ISOLATE;
const MOVABLE = MIGRATE_MOVABLE;
const TYPES = MIGRATE_PCPTYPES;
const NONE = NO_PFN;
const zoneFor = gfpZone;
const typeFor = gfpMigratetype;
const hasList = pcpAllowedOrder;

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
  /** Would freePages take this block? O(1). */
  mayFree(pfn: Pfn, order: number): boolean;
  /** Zeroes a block that the caller has; interrupts are taken between its pages. Any context. */
  zeroPages(ctx: Context, pfn: Pfn, order: number): void;
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
  /** Registers who makes large blocks out of small ones (compaction.ts). */
  onCompact(compactor: PageCompactor): void;
  /** Registers who is told that a request up to zone `highest` found no zone above its low mark (W5). */
  onLow(wake: (ctx: Context, highest: number) => void): void;
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
  /** PAGE_REPORT_BYTES of zeroed static memory. */
  readonly state: PhysAddr;
}

export function createPageAllocator(deps: PageAllocatorDeps): PageAllocator {
  const { machine, contexts, spinlocks, printk, vmstat, pages, pageblocks, zones, frames, pcp, hasCma, state } = deps;
  const { port, harts } = machine;
  const { clock } = harts;
  const { rowAt, rowWord, flagsAt, refcountAt, nrFrames } = pages;
  const { mightSleep } = contexts;
  const { migratetype } = pageblocks;
  const { spinLockIrqsave, spinUnlockIrqrestore } = spinlocks;
  const watermarks = createWatermarks(port, hasCma);
  const slow = createPageSlowPath({ machine, spinlocks, vmstat, pageblocks, zones, frames, pcp, watermarks, hasCma });
  const { drainAllPages } = slow;
  const reports = createPageReports({ machine, contexts, printk, vmstat, pages, zones, pcp, state });
  const { badFree } = reports;
  const zonesWord = zones.addr(0) >>> 2;
  for (let zone = 0; zone < MAX_NR_ZONES; zone++) spinlocks.init(asPhys(zones.addr(zone) + Z_LOCK), "&zone->lock");
  let reclaim: ((ctx: TaskContext, order: number, gfp: BlockingGfp) => Sleeping<boolean>) | undefined;

  // ── Allocating ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** W4 for the fast path: after this request, is the zone still above its fast mark? `free`, `mark` < 2^30. */
  const isAboveLow = (zone: number, order: number, mark: number): boolean => {
    const words = zonesWord + (zone << STRUCT_SHIFT);
    const free = (port.ldWord(words + NR_FREE) - port.ldWord(words + NR_FREE_HIGHATOMIC)) | 0;
    // One jump for both, which always goes the same way; one for `order` alone would be guessed wrong every other time.
    return free >= ((mark + (1 << order)) | 0) && port.ldWord(words + ORDERS_WITH_BLOCK) >>> order !== 0;
  };

  /** Not served by a CPU's own list: the buddy of that zone, the zones below, the slow path. */
  const takeMissed = (ctx: Context, order: number, gfp: Gfp, zone: number, isAbove: boolean): Pfn => {
    const pfn = isAbove ? slow.takeFromBuddy(ctx, zone, order, gfp, FAST_PATH_FLAGS) : NONE;
    return pfn === NONE ? slow.takeFrom(ctx, order, gfp, isAbove ? zone - 1 : zone) : pfn;
  };

  const prepOnRequest = (ctx: Context, pfn: Pfn, order: number, gfp: Gfp): void => {
    if ((gfp & __GFP_COMP) !== 0 && order > 0) pages.addFlags(pfn, PG_HEAD);
    if ((gfp & __GFP_ZERO) !== 0) zeroPages(ctx, pfn, order);
  };
  const zeroPages = (ctx: Context, pfn: Pfn, order: number): void => {
    if (order === 0) zeroPage(ctx, pfn);
    else for (let i = 0; i < 1 << order; i++) zeroPageOf(ctx, pfn + i);
  };
  const zeroPage = (ctx: Context, pfn: Pfn): void => {
    port.fill(pfnToPhys(pfn), 0, PAGE_SIZE);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_ZERO_PAGE;
  };
  /** A large block takes as long as many interrupts can wait. */
  const zeroPageOf = (ctx: Context, pfn: number): void => {
    zeroPage(ctx, asPfn(pfn));
    contexts.interruptPoint(ctx);
  };

  const tryAllocPages = (ctx: Context, order: number, gfp: Gfp): Pfn => {
    if (!(order >= 0 && order <= MAX_ORDER)) return NONE;
    const highest = zoneFor(gfp);
    if (highest < 0) bug("page_alloc: contradicting zone modifiers in gfp mask", gfp);
    const request = zonesWord + ((highest & ZONES) << STRUCT_SHIFT);
    const zone = port.ldWord(request + FIRST) & ZONES;
    // With a contiguous area what counts as free depends on the mask: the slow path's walk knows.
    const isAbove = !hasCma && isAboveLow(zone, order, port.ldWord(request + FAST_MARK));
    let pfn = NONE;
    if (isAbove && hasList(order)) pfn = pcp.alloc(ctx, zone, order, typeFor(gfp), FAST_PATH_FLAGS);
    if (pfn === NONE) {
      pfn = takeMissed(ctx, order, gfp, zone, isAbove);
      if (pfn === NONE) return NONE;
    }
    port.stWord(rowWord(pfn) + REFCOUNT, 1);
    if ((gfp & NEEDS_WORK) !== 0) prepOnRequest(ctx, pfn, order, gfp);
    return pfn;
  };

  function* reclaimAndRetry(ctx: TaskContext, order: number, gfp: BlockingGfp): Sleeping<Pfn> {
    vmstat.countEvents(ctx, ALLOCSTALL, 1);
    while (reclaim && (yield* reclaim(ctx, order, gfp))) {
      const pfn = tryAllocPages(ctx, order, gfp);
      if (pfn !== NO_PFN) return pfn;
      if (failsAtOnce(order, gfp)) break;
    }
    reports.allocFailed(ctx, order, gfp);
    return NO_PFN;
  }

  const allocFailed = (ctx: Context, order: number, gfp: Gfp): MaySleep<Pfn> => {
    if ((gfp & __GFP_DIRECT_RECLAIM) !== 0 && reclaim !== undefined) {
      return reclaimAndRetry(ctx as TaskContext, order, gfp as BlockingGfp);
    }
    reports.allocFailed(ctx, order, gfp);
    return NO_PFN;
  };

  const allocPagesAny = (ctx: Context, order: number, gfp: Gfp): MaySleep<Pfn> => {
    if ((gfp & MAY_RECLAIM) !== 0) mightSleep(ctx, "mm/page_alloc.ts:allocPages");
    const pfn = tryAllocPages(ctx, order, gfp);
    return pfn !== NONE ? pfn : allocFailed(ctx, order, gfp);
  };

  // ── Freeing ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A block of a large order, of an isolated pageblock, or one that found the lists busy. */
  const freeToBuddy = (ctx: Context, zone: number, pfn: Pfn, order: number): void => {
    const lock = asPhys(zones.addr(zone) + Z_LOCK);
    const irq = spinLockIrqsave(ctx, lock);
    const failed = (frames[zone] as FrameAllocator).freeBlock(pfn, order);
    spinUnlockIrqrestore(ctx, lock, irq);
    if (failed !== 0) bug("page_alloc: the buddy refuses a block that passed the checks", pfn, order);
    vmstat.countEvents(ctx, PGFREE, 1 << order);
  };

  /** The test of freePages, which has it written out. */
  const mayFree = (pfn: Pfn, order: number): boolean => {
    if (pfn >>> 0 !== pfn || pfn === 0 || pfn >= nrFrames) return false;
    const at = rowAt(pfn);
    const flags = flagsAt(at) & ~HEAD_OF_COMPOUND;
    return (flags & CHECKED_BITS) === (OUT | (order << ORDER_AT)) && refcountAt(at) === 1;
  };

  const freePages = (ctx: Context, pfn: Pfn, order: number): number => {
    // One masked compare: allocated, of this order, nothing of its owner left. Then one holder. No frame is a number
    // that is not its own 32 unsigned bits.
    if (pfn >>> 0 !== pfn || pfn === 0 || pfn >= nrFrames) return badFree(ctx, pfn, order);
    const at = rowWord(pfn);
    const flags = port.ldWord(at) & ~HEAD_OF_COMPOUND;
    if ((flags & CHECKED_BITS) !== (OUT | (order << ORDER_AT))) return badFree(ctx, pfn, order);
    if (port.ldWord(at + REFCOUNT) !== 1) return badFree(ctx, pfn, order);
    port.stWord(at + REFCOUNT, 0);
    const zone = (flags >>> ZONE_AT) & ZONE_OF_SHIFTED;
    if (hasList(order)) {
      const type = migratetype(pfn);
      if (type !== ISOLATED && pcp.free(ctx, zone, pfn, order, type < TYPES ? type : MOVABLE)) return 0;
    }
    port.stWord(at, flags & KEPT_BITS);
    freeToBuddy(ctx, zone, pfn, order);
    return 0;
  };

  const contigRanges = createContigRanges({ spinlocks, pages, pageblocks, zones, frames, drainAllPages });

  return {
    allocPages: allocPagesAny as PageAllocator["allocPages"],
    allocPagesAny,
    tryAllocPages,
    freePages,
    mayFree,
    zeroPages,
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
    onPressure: slow.onPressure,
    onCompact: slow.onCompact,
    onLow: slow.onLow,
    onReclaim(hook) {
      reclaim = hook;
    },
    nrBadFrees: reports.nrBadFrees,
    check() {
      for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
        const problem = zones.field(zone, Z_MANAGED) === 0 ? null : (frames[zone] as FrameAllocator).check();
        if (problem !== null) return `zone ${zones.name(zone)}: ${problem}`;
      }
      return zones.check() ?? pcp.check();
    },
  };
}
