/**
 * Compaction: making large free blocks out of many small ones, by moving the pages of processes together.
 *
 * After a while of running free memory is in pieces: half of a zone may be free, and no two megabytes of it lie side by
 * side. Nothing is to be reclaimed then; what is there must be put in order. The scanners of compact_scan.ts do that;
 * this file decides when, for how long, and whether to bother.
 *
 *   who asks                        ends when                                 tried when
 *   ──────────────────────────────  ────────────────────────────────────────  ─────────────────────────────────────────
 *   direct: a request that failed   a block of the order is free              suitable and not deferred          (1, 2)
 *   kcompactd: the same request,    the same                                  the same
 *     from one who may not wait
 *   proactive: kcompactd, by time   score of the zone ≤ low mark              score of the node > high mark         (3)
 *   whole: compact_memory           the scanners have met                     always
 *
 * 1. *Suitable*: there is memory enough (the zone's mark, and twice the block above it), and for an order above 3 the
 *    extfrag index says that a failure is for want of order rather than of pages: above `extfrag_threshold` (500).
 *
 * 2. *Deferred*: a full scan that brought nothing is not repeated at once. The next 2, 4, … 64 requests of that order
 *    or a higher one do without (G4); a success clears it.
 *
 * 3. *Proactive*: the score is the share of free memory that is of no use for a huge page, zones weighted by size. With
 *    `compaction_proactiveness` p it is kept below max(100 − p, 5) + 10 percent. A round that brings nothing makes the
 *    next 64 wait.
 *
 * 4. Where the scanners were when a run ended is kept per zone, and the next run goes on there; one that began in the
 *    middle and met nothing is followed by one over the whole zone.
 *
 *   COMP-4  scanner positions, deferral and sysctls are in RAM; a cached position is inside its zone
 *   COMP-5  compaction allocates no memory: it cannot recurse into the allocator that called it
 *   COMP-6  a deferred zone is not scanned; after a success for an order, no request of it is deferred
 *   COMP-7  compact_stall = compact_success + compact_fail
 *
 * Context: process, sleeps nowhere. Source: mm/compaction.c. Linux has three priorities, of which the lower ones give
 * up at a lock or a page that is busy; nothing is busy here, so there is one.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import { asPhys, type Context, NO_PFN, type Pfn, type PhysAddr } from "../kernel/types.ts";
import { type CompactRun, type CompactScannersDeps, createCompactScanners } from "./compact_scan.ts";
import { extfragIndex, fragmentationScore } from "./extfrag.ts";
import { ALLOC_CMA } from "./frame_allocator.ts";
import { __GFP_MOVABLE, type Gfp, PAGE_ALLOC_COSTLY_ORDER } from "./gfp.ts";
import { NR_MIGRATETYPES } from "./migratetype.ts";
import {
  freeCountAddr,
  gfpZone,
  MAX_NR_ZONES,
  NR_PAGE_ORDERS,
  PAGEBLOCK_NR_PAGES,
  PAGEBLOCK_ORDER,
  WMARK_LOW,
  WMARK_MIN,
  Z_LOWMEM_RESERVE,
  Z_MANAGED,
  Z_NR_FREE,
  Z_PRESENT,
  Z_SPANNED,
  Z_START_PFN,
} from "./mmzone.ts";
import type { PageCompactor } from "./page_alloc_slow.ts";
import type { PerCpuPages } from "./pcp.ts";
import {
  COMPACT_FAIL,
  COMPACT_FREE_SCANNED,
  COMPACT_ISOLATED,
  COMPACT_MIGRATE_SCANNED,
  COMPACT_STALL,
  COMPACT_SUCCESS,
  KCOMPACTD_FREE_SCANNED,
  KCOMPACTD_MIGRATE_SCANNED,
  KCOMPACTD_WAKE,
  type VmStat,
} from "./vmstat.ts";
import { createWatermarks } from "./watermark.ts";

/** G4: at most 2^6 requests do without. */
const COMPACT_MAX_DEFER_SHIFT = 6;
const DEFAULT_EXTFRAG_THRESHOLD = 500;
const DEFAULT_PROACTIVENESS = 20;
const WHOLE_ZONE = -1;
const HUGE_ORDER = PAGEBLOCK_ORDER;

// ── State in RAM ───────────────────────────────────────────────────────────────────────────────────────────────────

/** Per zone: scanner positions, then the deferral: requests since, log2 of how many to skip, lowest order concerned. */
const CZ_MIGRATE_PFN = 0;
const CZ_FREE_PFN = 4;
const CZ_CONSIDERED = 8;
const CZ_DEFER_SHIFT = 12;
const CZ_ORDER_FAILED = 16;
const CZ_BYTES = 32;
/**
 * Behind the zones: sysctls; what kcompactd has been asked for (order + 1, highest zone); for proactive compaction 1 if
 * it is due, looks to sit out, and the time of the next look (f64).
 */
const C_THRESHOLD = MAX_NR_ZONES * CZ_BYTES;
const C_PROACTIVENESS = C_THRESHOLD + 4;
const C_WANTED = C_THRESHOLD + 8;
const C_HIGHEST = C_THRESHOLD + 12;
const C_DUE = C_THRESHOLD + 16;
const C_SIT_OUT = C_THRESHOLD + 20;
const C_NEXT_LOOK = C_THRESHOLD + 24;
export const COMPACTION_BYTES = C_THRESHOLD + 32;

/** HPAGE_FRAG_CHECK_INTERVAL_MSEC is 500. */
const LOOK_CYCLES = CYCLES_PER_SECOND / 2;

/** What a run over a zone is for. */
interface Goal {
  /** WHOLE_ZONE: until the scanners meet. */
  readonly order: number;
  readonly allocFlags: number;
  readonly isProactive: boolean;
  readonly isDaemon: boolean;
}

export interface Compaction extends PageCompactor {
  /** Every zone, from end to end: compact_memory. O(frames). */
  compactAll(ctx: Context): void;
  /** Has a zone up to `highest` memory enough for a run (theory 1)? */
  canCompact(order: number, highest: number): boolean;
  /** Asks kcompactd for whole pageblocks in zones up to `highest`. */
  wakeForBlocks(ctx: Context, highest: number): void;
  /** Registers who wakes kcompactd. */
  onWanted(wake: () => void): void;
  /** Is there work for kcompactd? */
  hasWork(): boolean;
  /** What kcompactd does: for the order that it has been asked for, else proactively. */
  serveDaemon(ctx: Context): void;
  /** Theory 3, every half second of a machine that is awake: wakes kcompactd if it is time. Any context. */
  lookAround(now: number): void;
  /** F1, 0 … 100: of all zones, weighted by their size. */
  score(): number;
  extfragThreshold(): number;
  setExtfragThreshold(value: number): void;
  proactiveness(): number;
  setProactiveness(percent: number): void;
  /** COMP-4, COMP-7: a sentence, or null. */
  check(): string | null;
}

export interface CompactionDeps extends CompactScannersDeps {
  readonly machine: Machine;
  readonly vmstat: VmStat;
  readonly pcp: PerCpuPages;
  readonly hasCma: boolean;
  readonly drainAllPages: (ctx: Context) => number;
  /** COMPACTION_BYTES of zeroed static memory. */
  readonly state: PhysAddr;
}

export function createCompaction(deps: CompactionDeps): Compaction {
  const { machine, contexts, zones, vmstat, pcp, drainAllPages, state } = deps;
  const { port } = machine;
  const watermarks = createWatermarks(port, deps.hasCma);
  const scanners = createCompactScanners(deps);
  const at = (zone: number, field: number): PhysAddr => asPhys(state + zone * CZ_BYTES + field);
  const field = (zone: number, offset: number): number => port.ld32(at(zone, offset));
  const setField = (zone: number, offset: number, value: number): void => port.st32(at(zone, offset), value);
  let wake: () => void = () => {};

  port.st32(state + C_THRESHOLD, DEFAULT_EXTFRAG_THRESHOLD);
  port.st32(state + C_PROACTIVENESS, DEFAULT_PROACTIVENESS);

  const startOf = (zone: number): number => zones.field(zone, Z_START_PFN);
  const endOf = (zone: number): number => startOf(zone) + zones.field(zone, Z_SPANNED);
  const isManaged = (zone: number): boolean => zones.field(zone, Z_MANAGED) !== 0;

  const freeBlocks = (zone: number): readonly number[] =>
    Array.from({ length: NR_PAGE_ORDERS }, (_, order) => {
      let blocks = 0;
      for (let type = 0; type < NR_MIGRATETYPES; type++) {
        blocks += port.ld32(freeCountAddr(zones.addr(zone), order, type));
      }
      return blocks;
    });

  // ── Scores (theory 3) ────────────────────────────────────────────────────────────────────────────────────────────

  const zoneScore = (zone: number): number => fragmentationScore(freeBlocks(zone), HUGE_ORDER);
  const score = (): number => {
    let [sum, present] = [0, 1];
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) present += zones.field(zone, Z_PRESENT);
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
      if (isManaged(zone)) sum += Math.floor((zones.field(zone, Z_PRESENT) * zoneScore(zone)) / present);
    }
    return sum;
  };
  const lowScore = (): number => Math.max(100 - port.ld32(state + C_PROACTIVENESS), 5);

  // ── Whether to bother (theory 1, 2) ──────────────────────────────────────────────────────────────────────────────

  const isSuitable = (zone: number, order: number, highest: number): boolean => {
    const mark = zones.wmark(zone, order > PAGE_ALLOC_COSTLY_ORDER ? WMARK_LOW : WMARK_MIN);
    const kept = mark + (2 << order) + zones.field(zone, Z_LOWMEM_RESERVE + highest * 4);
    if (zones.field(zone, Z_NR_FREE) <= kept) return false;
    if (order <= PAGE_ALLOC_COSTLY_ORDER) return true;
    const index = extfragIndex(freeBlocks(zone), order);
    return index < 0 || index > port.ld32(state + C_THRESHOLD);
  };

  const isDeferred = (zone: number, order: number): boolean => {
    if (order < field(zone, CZ_ORDER_FAILED)) return false;
    const limit = 2 ** field(zone, CZ_DEFER_SHIFT);
    const considered = Math.min(field(zone, CZ_CONSIDERED) + 1, limit);
    setField(zone, CZ_CONSIDERED, considered);
    return considered < limit;
  };
  const defer = (zone: number, order: number): void => {
    setField(zone, CZ_CONSIDERED, 0);
    setField(zone, CZ_DEFER_SHIFT, Math.min(field(zone, CZ_DEFER_SHIFT) + 1, COMPACT_MAX_DEFER_SHIFT));
    setField(zone, CZ_ORDER_FAILED, Math.min(field(zone, CZ_ORDER_FAILED), order));
  };
  /** COMP-6: `isServed`: a page has been had, not only a block seen. */
  const deferReset = (zone: number, order: number, isServed: boolean): void => {
    if (isServed) setField(zone, CZ_CONSIDERED, 0);
    if (isServed) setField(zone, CZ_DEFER_SHIFT, 0);
    setField(zone, CZ_ORDER_FAILED, Math.max(field(zone, CZ_ORDER_FAILED), order + 1));
  };

  // ── One run over a zone (theory 4) ───────────────────────────────────────────────────────────────────────────────

  const resetPositions = (zone: number): void => {
    setField(zone, CZ_MIGRATE_PFN, startOf(zone));
    setField(zone, CZ_FREE_PFN, endOf(zone));
  };

  const startRun = (zone: number, { order, isProactive }: Goal): CompactRun => {
    if (order === WHOLE_ZONE || field(zone, CZ_FREE_PFN) === 0) resetPositions(zone);
    const isForBlock = order !== WHOLE_ZONE && !isProactive;
    return {
      zone,
      span: isForBlock ? Math.min(1 << order, PAGEBLOCK_NR_PAGES) : PAGEBLOCK_NR_PAGES,
      isPicky: order !== WHOLE_ZONE,
      migratePfn: field(zone, CZ_MIGRATE_PFN),
      freePfn: field(zone, CZ_FREE_PFN),
      firstFree: 0,
      nrFree: 0,
      nrMigrateScanned: 0,
      nrFreeScanned: 0,
      nrMoved: 0,
    };
  };

  const isDone = (zone: number, goal: Goal): boolean => {
    if (goal.order === WHOLE_ZONE) return false;
    if (goal.isProactive) return zoneScore(zone) <= lowScore();
    return watermarks.hasBlock(zones.addr(zone), goal.order, goal.allocFlags);
  };

  const endRun = (ctx: Context, run: CompactRun, hasMet: boolean, isDaemon: boolean): void => {
    const highest = scanners.releaseFree(ctx, run);
    if (hasMet) resetPositions(run.zone);
    else {
      setField(run.zone, CZ_MIGRATE_PFN, run.migratePfn);
      setField(run.zone, CZ_FREE_PFN, Math.max(run.freePfn, highest === 0 ? 0 : highest + 1));
    }
    vmstat.countEvents(ctx, COMPACT_MIGRATE_SCANNED, run.nrMigrateScanned);
    vmstat.countEvents(ctx, COMPACT_FREE_SCANNED, run.nrFreeScanned);
    vmstat.countEvents(ctx, COMPACT_ISOLATED, 2 * run.nrMoved);
    if (!isDaemon) return;
    vmstat.countEvents(ctx, KCOMPACTD_MIGRATE_SCANNED, run.nrMigrateScanned);
    vmstat.countEvents(ctx, KCOMPACTD_FREE_SCANNED, run.nrFreeScanned);
  };

  /** One run from the cached positions: is the goal reached? */
  const runOnce = (ctx: Context, zone: number, goal: Goal): { isReached: boolean; wasWhole: boolean } => {
    const run = startRun(zone, goal);
    const wasWhole = run.migratePfn === startOf(zone);
    let isReached = isDone(zone, goal);
    let hasMet = false;
    while (!isReached && !hasMet) {
      const nrMoved = run.nrMoved;
      hasMet = scanners.haveMet(run) || !scanners.evacuateSpan(ctx, run);
      // What has become free is on this CPU's list, and no block yet.
      if (run.nrMoved !== nrMoved) pcp.drainCpu(ctx, ctx.cpu);
      isReached = isDone(zone, goal);
      contexts.interruptPoint(ctx);
    }
    endRun(ctx, run, hasMet, goal.isDaemon);
    return { isReached, wasWhole };
  };

  const compactZone = (ctx: Context, zone: number, goal: Goal): boolean => {
    const first = runOnce(ctx, zone, goal);
    if (first.isReached || first.wasWhole) return first.isReached;
    return runOnce(ctx, zone, goal).isReached;
  };

  /** Zones up to `highest` for a block of `order`; how many were tried, and the one that has it now, or −1. */
  const compactForOrder = (ctx: Context, goal: Goal, highest: number): { nrTried: number; zone: number } => {
    let nrTried = 0;
    for (let zone = highest; zone >= 0; zone--) {
      if (!isManaged(zone) || isDeferred(zone, goal.order) || !isSuitable(zone, goal.order, highest)) continue;
      nrTried++;
      if (compactZone(ctx, zone, goal)) {
        deferReset(zone, goal.order, false);
        return { nrTried, zone };
      }
      defer(zone, goal.order);
    }
    return { nrTried, zone: -1 };
  };

  const flagsFor = (gfp: Gfp): number => ((gfp & __GFP_MOVABLE) !== 0 ? ALLOC_CMA : 0);

  // ── kcompactd ────────────────────────────────────────────────────────────────────────────────────────────────────

  const serveWanted = (ctx: Context): void => {
    const order = port.ld32(state + C_WANTED) - 1;
    const highest = port.ld32(state + C_HIGHEST);
    port.st32(state + C_WANTED, 0);
    port.st32(state + C_HIGHEST, 0);
    vmstat.countEvents(ctx, KCOMPACTD_WAKE, 1);
    drainAllPages(ctx);
    compactForOrder(ctx, { order, allocFlags: 0, isProactive: false, isDaemon: true }, highest);
  };

  const want = (order: number, highest: number): void => {
    if (port.ld32(state + C_WANTED) < order + 1) port.st32(state + C_WANTED, order + 1);
    port.st32(state + C_HIGHEST, Math.max(port.ld32(state + C_HIGHEST), highest));
    wake();
  };

  const wantsProactive = (): boolean => {
    const left = port.ld32(state + C_SIT_OUT);
    if (left > 0) port.st32(state + C_SIT_OUT, left - 1);
    return left === 0 && port.ld32(state + C_PROACTIVENESS) > 0 && score() > Math.min(lowScore() + 10, 100);
  };

  const compactProactively = (ctx: Context): void => {
    port.st32(state + C_DUE, 0);
    const before = score();
    drainAllPages(ctx);
    const goal: Goal = { order: HUGE_ORDER, allocFlags: 0, isProactive: true, isDaemon: true };
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) if (isManaged(zone)) compactZone(ctx, zone, goal);
    if (score() >= before) port.st32(state + C_SIT_OUT, 2 ** COMPACT_MAX_DEFER_SHIFT);
  };

  return {
    direct(ctx: Context, order: number, gfp: Gfp, retry: () => Pfn): Pfn {
      const goal: Goal = { order, allocFlags: flagsFor(gfp), isProactive: false, isDaemon: false };
      const { nrTried, zone } = compactForOrder(ctx, goal, gfpZone(gfp));
      if (nrTried === 0) return NO_PFN;
      vmstat.countEvents(ctx, COMPACT_STALL, 1);
      const pfn = retry();
      if (pfn !== NO_PFN && zone >= 0) deferReset(zone, order, true);
      vmstat.countEvents(ctx, pfn === NO_PFN ? COMPACT_FAIL : COMPACT_SUCCESS, 1);
      return pfn;
    },
    wakeDaemon: (_ctx, order, gfp) => want(order, gfpZone(gfp)),
    wakeForBlocks: (_ctx, highest) => want(HUGE_ORDER, highest),
    compactAll(ctx) {
      drainAllPages(ctx);
      const goal: Goal = { order: WHOLE_ZONE, allocFlags: 0, isProactive: false, isDaemon: false };
      for (let zone = 0; zone < MAX_NR_ZONES; zone++) if (isManaged(zone)) compactZone(ctx, zone, goal);
    },
    canCompact(order, highest) {
      for (let zone = highest; zone >= 0; zone--) if (isManaged(zone) && isSuitable(zone, order, highest)) return true;
      return false;
    },
    onWanted(hook) {
      wake = hook;
    },
    hasWork: () => (port.ld32(state + C_WANTED) | port.ld32(state + C_DUE)) !== 0,
    serveDaemon(ctx) {
      if (port.ld32(state + C_WANTED) !== 0) serveWanted(ctx);
      else if (port.ld32(state + C_DUE) !== 0) compactProactively(ctx);
    },
    lookAround(now) {
      if (now < port.ldF64(state + C_NEXT_LOOK)) return;
      port.stF64(state + C_NEXT_LOOK, now + LOOK_CYCLES);
      if (!wantsProactive()) return;
      port.st32(state + C_DUE, 1);
      wake();
    },
    score,
    extfragThreshold: () => port.ld32(state + C_THRESHOLD),
    setExtfragThreshold: (value) => port.st32(state + C_THRESHOLD, value),
    proactiveness: () => port.ld32(state + C_PROACTIVENESS),
    setProactiveness(percent) {
      port.st32(state + C_PROACTIVENESS, percent);
      port.st32(state + C_SIT_OUT, 0);
      port.stF64(state + C_NEXT_LOOK, 0);
    },
    check() {
      for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
        const [migrate, free] = [field(zone, CZ_MIGRATE_PFN), field(zone, CZ_FREE_PFN)];
        if (free === 0) continue;
        // A span may reach over the end of a zone that is not whole pageblocks.
        const isInside = migrate >= startOf(zone) && migrate < endOf(zone) + PAGEBLOCK_NR_PAGES && free <= endOf(zone);
        if (!isInside || free < startOf(zone)) return `COMP-4: scanners of zone ${zone} are at ${migrate} and ${free}`;
      }
      const ended = vmstat.event(COMPACT_SUCCESS) + vmstat.event(COMPACT_FAIL);
      return vmstat.event(COMPACT_STALL) === ended ? null : `COMP-7: ${ended} of the stalls have ended`;
    },
  };
}
