/**
 * Who reclaims when: kswapd in the background, direct reclaim by whoever needs a page now.
 *
 *   allocation below `low` ─▶ wakeKswapd ─▶ kswapd: rounds until `high`, sleeping while pages are written
 *   allocation fails       ─▶ makeRoom   ─▶ rounds in place until SWAP_CLUSTER_MAX pages are free
 *                                           nothing to be had ─▶ OOM killer ─▶ try again
 *
 * Where makeRoom is called, nothing is half done: at the fault handler, before it does the whole fault again, and in
 * allocations that may sleep (onReclaim). An allocation in the middle of a fault or a system call fails with −ENOMEM
 * instead, is unwound, and comes back here. So reclaim, which takes pages out of any address space, never meets one
 * that is being changed.
 *
 * A boost (B11): memory was just fragmented, and more of it is to be free, so that it happens less often. kswapd frees
 * as much as it can without writing, asks kcompactd to make pageblocks whole, and takes the boost back.
 *
 *   RCM-1  makeRoom() is true if there is reason to try again: pages were freed, or a process was killed for them
 *   RCM-2  no reclaim inside reclaim: PF_MEMALLOC is set in the task meanwhile, and asking again is refused
 *   RCM-4  for a block of an order above 3 reclaim stops as soon as compaction has memory enough to work with, or twice
 *          the block was freed; unless it has __GFP_RETRY_MAYFAIL it is tried once
 *   RCM-3  a request that found nothing for MAX_RECLAIM_RETRIES rounds, or for which nothing is left to reclaim, goes
 *          to the OOM killer, once; orders above 3, __GFP_NORETRY and requests for low zones do not
 *
 * Linux: mm/page_alloc.c (__alloc_pages_slowpath, should_reclaim_retry), mm/vmscan.c (kswapd).
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { Kthreads } from "../kernel/kthread.ts";
import type { Task } from "../kernel/task.ts";
import { PF_MEMALLOC, TASK_FLAGS } from "../kernel/task_struct.ts";
import { asPhys, type Context, type PhysAddr, type Sleeping, type TaskContext } from "../kernel/types.ts";
import type { WaitQueues } from "../kernel/wait.ts";
import { __GFP_FS, __GFP_RETRY_MAYFAIL, failsAtOnce, type Gfp, PAGE_ALLOC_COSTLY_ORDER } from "./gfp.ts";
import { gfpZone, MAX_NR_ZONES, WMARK_HIGH, WMARK_MIN, Z_BOOST, ZONE_NORMAL, type Zones } from "./mmzone.ts";
import { SWAP_CLUSTER_MAX } from "./pageout.ts";
import type { Shrinkers } from "./shrinker.ts";
import { DEF_PRIORITY, type Vmscan } from "./vmscan.ts";
import { PAGEOUTRUN, type VmStat } from "./vmstat.ts";

const MAX_RECLAIM_RETRIES = 16;

/** Bytes of zeroed static memory: 0 kswapd's wait queue · 8 highest zone asked for + 1, or 0 · 12 its failures. */
export const RECLAIM_BYTES = 16;
const QUEUE = 0;
const WANTED = 8;
const FAILURES = 12;

export interface Reclaim {
  /** Direct reclaim for a request that failed, RCM-1. Process context, interrupts on, nothing half done. */
  makeRoom(ctx: TaskContext, order: number, gfp: Gfp): boolean;
  /** A request found its zones below `low`. Any context. */
  wakeKswapd(ctx: Context, highest: number): void;
  /** kswapd exists from here on. Process context. */
  startKswapd(): void;
  /** Registers the OOM killer: true if a process dies, or has died, for memory. */
  onOutOfMemory(kill: (ctx: TaskContext, order: number, gfp: Gfp) => boolean): void;
}

export interface ReclaimDeps {
  readonly port: MemoryPort;
  readonly vmscan: Vmscan;
  readonly shrinkers: Shrinkers;
  readonly zones: Pick<Zones, "field" | "unboost" | "onBoost">;
  readonly vmstat: VmStat;
  readonly waits: WaitQueues;
  readonly kthreads: Kthreads;
  /** The task of a context; undefined where there is none. */
  readonly taskOf: (ctx: TaskContext) => Task | undefined;
  /** Pages on per-CPU lists help nobody else. */
  readonly drainAllPages: (ctx: Context) => number;
  /** Has compaction memory enough to make such a block (theory 1 of compaction.ts)? */
  readonly canCompact: (order: number, highest: number) => boolean;
  /** Asks kcompactd to make pageblocks whole, in zones up to `highest`. */
  readonly wakeCompactor: (ctx: Context, highest: number) => void;
  readonly state: PhysAddr;
}

export function createReclaim(deps: ReclaimDeps): Reclaim {
  const { port, vmscan, shrinkers, zones, vmstat, waits, kthreads, state } = deps;
  const queue = asPhys(state + QUEUE);
  waits.init(queue);
  let kswapd: Task | undefined;
  let isAsked = false;
  let killForMemory: (ctx: TaskContext, order: number, gfp: Gfp) => boolean = () => false;

  // ── Direct reclaim ───────────────────────────────────────────────────────────────────────────────────────────────

  /** Rounds of rising urgency until enough is free (RCM-4); the number of pages freed. */
  const tryToFreePages = (ctx: TaskContext, order: number, highest: number): number => {
    const isLarge = order > PAGE_ALLOC_COSTLY_ORDER;
    const wanted = isLarge ? 2 << order : SWAP_CLUSTER_MAX;
    let nrFreed = 0;
    for (let priority = DEF_PRIORITY; priority >= 0 && nrFreed < wanted; ) {
      const freed = vmscan.shrinkInPlace(ctx, { highest, isKswapd: false, priority });
      const got = freed + shrinkers.shrink(ctx, priority);
      nrFreed += got;
      if (isLarge && nrFreed > 0 && deps.canCompact(order, highest)) break;
      // As long as pages come for a large block there is no need to look deeper.
      if (!isLarge || got < SWAP_CLUSTER_MAX) priority--;
    }
    if (nrFreed > 0) {
      deps.drainAllPages(ctx);
      port.st32(state + FAILURES, 0);
    }
    return nrFreed;
  };

  /** Is there so little that no retry can help (should_reclaim_retry)? */
  const isHopeless = (highest: number): boolean =>
    vmscan.nrReclaimable(highest) === 0 && !vmscan.isAbove(highest, WMARK_MIN);

  /**
   * A large block, one that can do without, or one of a low zone, which processes have little of: nobody dies for it.
   * Without __GFP_FS reclaim was half-hearted.
   */
  const mayKill = (order: number, gfp: Gfp): boolean =>
    order <= PAGE_ALLOC_COSTLY_ORDER &&
    (gfp & __GFP_RETRY_MAYFAIL) === 0 &&
    (gfp & __GFP_FS) !== 0 &&
    gfpZone(gfp) >= ZONE_NORMAL;

  const reclaimOrKill = (ctx: TaskContext, order: number, gfp: Gfp): boolean => {
    const highest = gfpZone(gfp);
    // Memory is there, and the request failed all the same (fault injection): nobody else's end would help it.
    const wasThere = vmscan.isAbove(highest, WMARK_MIN);
    for (let tries = 0; tries < MAX_RECLAIM_RETRIES; tries++) {
      if (tryToFreePages(ctx, order, highest) > 0) return true;
      if (failsAtOnce(order, gfp)) return false;
      if (isHopeless(highest)) break;
    }
    return !wasThere && mayKill(order, gfp) && killForMemory(ctx, order, gfp);
  };

  // ── Boosts (B11) ─────────────────────────────────────────────────────────────────────────────────────────────────

  const boosts = (highest: number): number[] =>
    Array.from({ length: highest + 1 }, (_, zone) => zones.field(zone, Z_BOOST));
  /** Takes as much back of each; true if there was any. A boost that came meanwhile stays. */
  const dropBoosts = (pages: readonly number[]): boolean => {
    for (const [zone, nr] of pages.entries()) zones.unboost(zone, nr);
    return pages.some((nr) => nr > 0);
  };

  // ── kswapd ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Rounds until the zones up to `highest` are balanced; true if any page was freed, or none was needed. */
  function* balance(task: Task, highest: number): Sleeping<boolean> {
    vmstat.countEvents(task.ctx, PAGEOUTRUN, 1);
    const boosted = boosts(highest);
    yield* reclaimForBoost(task, highest, boosted);
    const isFine = yield* reclaimUntilHigh(task, highest);
    if (dropBoosts(boosted)) deps.wakeCompactor(task.ctx, highest);
    return isFine;
  }

  /** B11: as many pages as the boosts are, of those that need not be written, while the zones are balanced anyway. */
  function* reclaimForBoost(task: Task, highest: number, boosted: readonly number[]): Sleeping<void> {
    let nrWanted = boosted.reduce((sum, nr) => sum + nr, 0);
    let priority = DEF_PRIORITY;
    while (nrWanted > 0 && vmscan.isAbove(highest, WMARK_HIGH)) {
      const freed = yield* vmscan.shrink(task, { highest, isKswapd: true, priority, isForBoost: true });
      const got = freed + shrinkers.shrink(task.ctx, priority);
      if (got === 0) return;
      nrWanted -= got;
      if (got < SWAP_CLUSTER_MAX && priority > DEF_PRIORITY - 2) priority--;
    }
  }

  function* reclaimUntilHigh(task: Task, highest: number): Sleeping<boolean> {
    let nrFreed = 0;
    for (let priority = DEF_PRIORITY; priority > 0; ) {
      if (vmscan.isAbove(highest, WMARK_HIGH)) return true;
      const freed = yield* vmscan.shrink(task, { highest, isKswapd: true, priority });
      const got = freed + shrinkers.shrink(task.ctx, priority);
      nrFreed += got;
      // As long as pages come at this depth there is no need to look deeper.
      if (got < SWAP_CLUSTER_MAX) priority--;
    }
    return nrFreed > 0;
  }

  function* kswapdMain(task: Task): Sleeping<void> {
    setMemalloc(task, true);
    for (;;) {
      while (port.ld32(state + WANTED) === 0) yield* waits.waitOn(queue, task);
      const highest = port.ld32(state + WANTED) - 1;
      port.st32(state + WANTED, 0);
      const isFine = yield* balance(task, highest);
      port.st32(state + FAILURES, isFine ? 0 : port.ld32(state + FAILURES) + 1);
    }
  }

  const setMemalloc = (task: Task, isOn: boolean): void => {
    const flags = port.ld32(task.struct + TASK_FLAGS);
    port.st32(task.struct + TASK_FLAGS, (isOn ? flags | PF_MEMALLOC : flags & ~PF_MEMALLOC) >>> 0);
  };

  const wakeKswapd: Reclaim["wakeKswapd"] = (_ctx, highest) => {
    if (kswapd === undefined || port.ld32(state + FAILURES) >= MAX_RECLAIM_RETRIES) return;
    if (vmscan.isAbove(highest, WMARK_HIGH) && !boosts(highest).some((nr) => nr > 0)) return;
    port.st32(state + WANTED, Math.max(port.ld32(state + WANTED), Math.min(highest, MAX_NR_ZONES - 1) + 1));
    waits.wakeUp(queue);
  };

  return {
    makeRoom(ctx, order, gfp) {
      const task = deps.taskOf(ctx);
      if (task === undefined || (port.ld32(task.struct + TASK_FLAGS) & PF_MEMALLOC) !== 0) return false;
      setMemalloc(task, true);
      const isRoom = reclaimOrKill(ctx, order, gfp);
      setMemalloc(task, false);
      return isRoom;
    },
    wakeKswapd,
    startKswapd() {
      if (isAsked) return;
      isAsked = true;
      kthreads.request({ comm: "kswapd0", body: kswapdMain }, (task) => {
        kswapd = task;
        zones.onBoost(wakeKswapd);
      });
    },
    onOutOfMemory(kill) {
      killForMemory = kill;
    },
  };
}
