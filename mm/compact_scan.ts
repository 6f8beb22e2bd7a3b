/**
 * The two scanners of compaction: process pages go from the bottom of a zone to free frames at its top.
 *
 *      zone   |█·██·█··|·█·██···|··█···█·|·██··█··|·█······|
 *              migrate scanner ─▶                ◀─ free scanner
 *
 *      after  |········|········|··█···█·|███████·|████████|      the bottom is whole again
 *
 * 1. The *migrate scanner* climbs by spans: as many frames as the request wants, at most a pageblock. A span that holds
 *    a page which cannot move is left as it is: it could never become a free block. Otherwise each page in it moves,
 *    by migrate.ts, with every mapping and its content.
 *
 * 2. The *free scanner* comes down and takes free frames out of the buddy, a handful ahead of the need. It uses
 *    pageblocks of movable pages only, and not those that are free as a whole: breaking one up to fill another gains
 *    nothing. What it took and did not need goes back at the end.
 *
 * 3. They stop when they are in the same pageblock.
 *
 *   COMP-1  frames that the free scanner holds are allocated blocks of order 0, on a list through their `next` word;
 *           none is held after a run
 *   COMP-2  a run changes neither content, rights nor owner of any page, nor the number of free pages of the zone
 *   COMP-3  no page moves upwards past the free scanner: a run ends after at most one visit of each frame
 *
 * Locks: the zone's lock, for one step at a time. Between two pages interrupts may come; each step looks at the frames
 * again. Context: process; never sleeps, allocates nothing. Source: mm/compaction.c (isolate_migratepages,
 * isolate_freepages, compaction_alloc). Linux takes 32 pages off the LRU lists before it moves them, since its other
 * CPUs run on; here a call runs to its end and a page moves at once. There are no skip bits per pageblock.
 */

import { CYC_COMPACT_FRAME } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import type { ContextTracking } from "../kernel/context.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { alignDown, asPfn, asPhys, type Context, NO_PFN, type Pfn } from "../kernel/types.ts";
import type { PageMover } from "./contig_range.ts";
import type { FrameAllocator } from "./frame_allocator.ts";
import { MIGRATE_CMA, MIGRATE_ISOLATE, MIGRATE_MOVABLE } from "./migratetype.ts";
import { PAGEBLOCK_NR_PAGES, Z_LOCK, Z_START_PFN, type Zones } from "./mmzone.ts";
import { orderOfFlags, type Pages, PG_ALLOCATED, PG_ANON, PG_BUDDY, PG_HEAD, PG_PCP } from "./page.ts";
import type { Pageblocks } from "./pageblock.ts";

/** Free frames that are taken in one go (SWAP_CLUSTER_MAX). */
export const COMPACT_CLUSTER_MAX = 32;

/** One run over one zone: where the scanners are, what the free scanner holds, what has been done. */
export interface CompactRun {
  readonly zone: number;
  /** Frames that have to become free together. */
  readonly span: number;
  /** Leave spans alone that cannot become free as a whole. */
  readonly isPicky: boolean;
  migratePfn: number;
  freePfn: number;
  /** First frame that the free scanner holds, 0 for none, and how many it holds. */
  firstFree: number;
  nrFree: number;
  nrMigrateScanned: number;
  nrFreeScanned: number;
  nrMoved: number;
}

export interface CompactScanners {
  /** Are the scanners in the same pageblock, or past each other? */
  haveMet(run: CompactRun): boolean;
  /** Moves the pages of the next span up; false if the free scanner has nothing left to move them to. */
  evacuateSpan(ctx: Context, run: CompactRun): boolean;
  /** Gives back what the free scanner holds; the highest such frame, 0 if there was none. */
  releaseFree(ctx: Context, run: CompactRun): number;
}

export interface CompactScannersDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly spinlocks: Spinlocks;
  readonly pages: Pages;
  readonly pageblocks: Pageblocks;
  readonly zones: Zones;
  readonly frames: readonly FrameAllocator[];
  readonly mover: PageMover;
}

export function createCompactScanners(deps: CompactScannersDeps): CompactScanners {
  const { machine, contexts, spinlocks, pages, pageblocks, zones, frames, mover } = deps;
  const { clock } = machine.harts;
  const { rowAt, flagsAt, nextAt, setNextAt, setRefcountAt } = pages;

  const flagsOf = (pfn: number): number => flagsAt(rowAt(pfn));
  const blockOf = (pfn: number): number => alignDown(pfn, PAGEBLOCK_NR_PAGES);
  const withZoneLock = (ctx: Context, zone: number, work: (buddy: FrameAllocator) => void): void => {
    const lock = asPhys(zones.addr(zone) + Z_LOCK);
    const irq = spinlocks.spinLockIrqsave(ctx, lock);
    work(frames[zone] as FrameAllocator);
    spinlocks.spinUnlockIrqrestore(ctx, lock, irq);
  };
  const charge = (ctx: Context, nrFrames: number): void => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + nrFrames * CYC_COMPACT_FRAME;
  };

  // ── The free scanner ─────────────────────────────────────────────────────────────────────────────────────────────

  /** The free scanner may not come down into the pageblock of the migrate scanner. */
  const floorOf = (run: CompactRun): number => blockOf(run.migratePfn) + PAGEBLOCK_NR_PAGES;
  const haveMet = (run: CompactRun): boolean => run.freePfn <= floorOf(run);

  /** COMP-1 */
  const push = (run: CompactRun, pfn: number): void => {
    setRefcountAt(rowAt(pfn), 0);
    setNextAt(rowAt(pfn), run.firstFree);
    run.firstFree = pfn;
    run.nrFree++;
  };
  const pop = (run: CompactRun): number => {
    const pfn = run.firstFree;
    run.firstFree = nextAt(rowAt(pfn));
    run.nrFree--;
    return pfn;
  };

  /** Theory 2: may free frames of this pageblock be filled? */
  const isTarget = (block: number): boolean => {
    const type = pageblocks.migratetype(asPfn(block));
    if (type !== MIGRATE_MOVABLE && type !== MIGRATE_CMA) return false;
    const flags = flagsOf(block);
    return (flags & PG_BUDDY) === 0 || 1 << orderOfFlags(flags) < PAGEBLOCK_NR_PAGES;
  };

  /** Takes free blocks from `run.freePfn` down, not below `bottom`, until there is a handful. */
  const takeFreeLocked = (run: CompactRun, buddy: FrameAllocator, bottom: number): void => {
    while (run.freePfn > bottom && run.nrFree < COMPACT_CLUSTER_MAX) {
      const pfn = --run.freePfn;
      const flags = flagsOf(pfn);
      const end = pfn + (1 << orderOfFlags(flags));
      if ((flags & PG_BUDDY) === 0 || buddy.takeRange(asPfn(pfn), asPfn(end)) !== 0) continue;
      for (let frame = end - 1; frame >= pfn; frame--) push(run, frame);
    }
  };

  const isolateFree = (ctx: Context, run: CompactRun): boolean => {
    while (run.nrFree === 0 && !haveMet(run)) {
      const from = run.freePfn;
      const block = blockOf(from - 1);
      const bottom = Math.max(block, floorOf(run), zones.field(run.zone, Z_START_PFN));
      if (isTarget(block)) withZoneLock(ctx, run.zone, (buddy) => takeFreeLocked(run, buddy, bottom));
      else run.freePfn = bottom;
      run.nrFreeScanned += from - run.freePfn;
      charge(ctx, from - run.freePfn);
      contexts.interruptPoint(ctx);
    }
    return run.nrFree > 0;
  };

  const releaseFree = (ctx: Context, run: CompactRun): number => {
    let highest = 0;
    withZoneLock(ctx, run.zone, (buddy) => {
      while (run.nrFree > 0) {
        const pfn = pop(run);
        highest = Math.max(highest, pfn);
        buddy.freeBlock(asPfn(pfn), 0);
      }
    });
    return highest;
  };

  // ── The migrate scanner ──────────────────────────────────────────────────────────────────────────────────────────

  const isMovable = (pfn: number, flags: number): boolean =>
    (flags & PG_ALLOCATED) !== 0 && mover.isMovable(asPfn(pfn));

  /** Theory 1: is each frame of `[start, end)` free, or one that can become free? */
  const canBecomeFree = (start: number, end: number): boolean => {
    for (let pfn = start; pfn < end; ) {
      const flags = flagsOf(pfn);
      if ((flags & (PG_BUDDY | PG_PCP)) !== 0) pfn += 1 << orderOfFlags(flags);
      else if (isMovable(pfn, flags)) pfn++;
      else return false;
    }
    return true;
  };

  /** Moves the page in `pfn` to a frame of the free scanner; false if that has none. */
  const moveUp = (ctx: Context, run: CompactRun, pfn: Pfn): boolean => {
    if (run.nrFree === 0 && !isolateFree(ctx, run)) return false;
    const target = pop(run);
    setRefcountAt(rowAt(target), 1);
    if (mover.migratePage(ctx, pfn, asPfn(target)) === 0) run.nrMoved++;
    else push(run, target);
    contexts.interruptPoint(ctx);
    return true;
  };

  const evacuateSpan = (ctx: Context, run: CompactRun): boolean => {
    const start = run.migratePfn;
    const end = alignDown(start, run.span) + run.span;
    run.nrMigrateScanned += end - start;
    charge(ctx, end - start);
    // A huge page is what others would be moved for; it is not taken apart (thp.ts).
    const isHuge = (flagsOf(blockOf(start)) & (PG_HEAD | PG_ANON)) === (PG_HEAD | PG_ANON);
    const isOff = isHuge || pageblocks.migratetype(asPfn(start)) === MIGRATE_ISOLATE;
    if (isOff || (run.isPicky && !canBecomeFree(start, end))) {
      run.migratePfn = end;
      return true;
    }
    for (let pfn = start; pfn < end; ) {
      const flags = flagsOf(pfn);
      const isFreePart = (flags & (PG_BUDDY | PG_PCP)) !== 0;
      if (isMovable(pfn, flags) && !moveUp(ctx, run, asPfn(pfn))) return false;
      pfn += isFreePart ? 1 << orderOfFlags(flags) : 1;
    }
    run.migratePfn = end;
    return true;
  };

  return { haveMet, evacuateSpan, releaseFree };
}

if (NO_PFN !== 0) throw new Error("compact_scan: frame 0 ends the list of free frames");
