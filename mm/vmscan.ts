/**
 * Page reclaim: making pages free by taking them away from those who have not used them lately.
 *
 *   free pages   ── high ──  kswapd sleeps again
 *                ── low  ──  kswapd is woken; who allocates goes on
 *                ── min  ──  who allocates reclaims itself: direct reclaim, then the OOM killer
 *
 * 1. *Which zone.* A request that may use zones up to Z is helped by a free page in any of these. Each round visits all
 *    of them.
 *
 * 2. *How many.* Rounds have a priority from DEF_PRIORITY = 12 down to 0: a round looks at 1/2^priority of each list,
 *    at least at SWAP_CLUSTER_MAX = 32 pages. So a little pressure looks at the oldest pages only, and when that does
 *    not help, ever deeper, until everything was looked at.
 *
 * 3. *Of which kind.* Anonymous pages (and shared memory) cost a write and a read, pages of disks perhaps only a read:
 *    vm.swappiness (0-200) says what the user thinks of that, and what each kind has cost so far (workingset.ts) says
 *    what the machine thinks. With weights a = swappiness · (A + F + 1) / (A + 1) and f = (200 − swappiness) · (A + F +
 *    1) / (F + 1), A and F the costs, a round looks at a share a / (a + f) of the anonymous pages, and the rest of the
 *    pages of files. Swappiness 0 spares anonymous pages as long as there are files; a kind that has nowhere to go (no
 *    swap) or no pages is not looked at, and leaves the round to the other.
 *
 * 4. *Which page.* Oldest first, with a second chance (the policy, reclaim_policy.ts). Whether a page was used, only
 *    the A bits of the entries know; the reverse mapping finds them.
 *
 * 5. *How.* pageout.ts.
 *
 * 6. kswapd sleeps while its runs are written. Direct reclaim waits in place, for it may come from a page fault.
 *
 *   RCL-1  reclaim never allocates: it takes nothing but what was set aside (slots, I/O lanes); so it cannot recurse
 *   RCL-2 … RCL-4 (pageout.ts)
 *   RCL-5  kswapd goes on until a zone of the request is above its high mark, or gives up after 16 rounds without a
 *          page
 *   RCL-6  a round looks at each kind in proportion to its weight, both by chunks in turn
 *
 * Context: process; direct reclaim with interrupts on and no lock held. Linux: mm/vmscan.c (shrink_node, shrink_lruvec,
 * get_scan_count, balance_pgdat). Not here: memory cgroups, cache_trim_mode.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import type { Task } from "../kernel/task.ts";
import { asPfn, type Context, type PhysAddr, type Sleeping, type TaskContext } from "../kernel/types.ts";
import { MAX_NR_ZONES, WMARK_HIGH, Z_LOWMEM_RESERVE, Z_MANAGED, Z_NR_FREE, type Zones } from "./mmzone.ts";
import { createBatch, type Pageout, type ReclaimBatch, SWAP_CLUSTER_MAX } from "./pageout.ts";
import type { ReclaimPolicy } from "./reclaim_policy.ts";
import type { Swap } from "./swap.ts";
import {
  NR_SWAPCACHE,
  PGSCAN_ANON,
  PGSCAN_DIRECT,
  PGSCAN_FILE,
  PGSCAN_KSWAPD,
  PGSTEAL_ANON,
  PGSTEAL_DIRECT,
  PGSTEAL_FILE,
  PGSTEAL_KSWAPD,
  type VmStat,
} from "./vmstat.ts";
import type { WorkingSet } from "./workingset.ts";

export const DEF_PRIORITY = 12;
const DEFAULT_SWAPPINESS = 60;
export const MAX_SWAPPINESS = 200;

/** Bytes of zeroed static memory: 0 swappiness. */
export const VMSCAN_BYTES = 16;
const SWAPPINESS = 0;

/** One round over the zones. */
export interface Scan {
  /** Zones up to this one. */
  readonly highest: number;
  readonly isKswapd: boolean;
  readonly priority: number;
  /** For a boost (B11): nothing that would have to be written is worth it. */
  readonly isForBoost?: boolean;
}

export interface Vmscan {
  /** One round that waits in place; the number of pages freed. */
  shrinkInPlace(ctx: TaskContext, scan: Scan): number;
  /** One round of a thread, which sleeps while pages are written. */
  shrink(task: Task, scan: Scan): Sleeping<number>;
  /** Pages that a round could free at best, in zones up to `highest`. */
  nrReclaimable(highest: number): number;
  /** Is a zone up to `highest` above `mark`, counting the reserve against such requests? */
  isAbove(highest: number, mark: number): boolean;
  swappiness(): number;
  setSwappiness(value: number): void;
}

export interface VmscanDeps {
  readonly port: MemoryPort;
  readonly zones: Zones;
  readonly swap: Swap;
  readonly vmstat: VmStat;
  readonly workingSet: WorkingSet;
  readonly policy: ReclaimPolicy;
  readonly pageout: Pageout;
  readonly state: PhysAddr;
  /** Between two pages: kernel/context.ts. */
  readonly interruptPoint: (ctx: Context) => void;
}

export function createVmscan(deps: VmscanDeps): Vmscan {
  const { port, zones, swap, vmstat, workingSet, policy, pageout, state } = deps;
  port.st32(state + SWAPPINESS, DEFAULT_SWAPPINESS);
  const swappiness = (): number => port.ld32(state + SWAPPINESS);
  // Nobody reclaims twice at once: kswapd is one thread, and who reclaims in place does not sleep.
  const [kswapdBatch, directBatch] = [createBatch(true), createBatch(false)];

  // ── How many of which kind ───────────────────────────────────────────────────────────────────────────────────────

  /** Can an anonymous page go? Without a free slot only those that still have one. */
  const canSwap = (): boolean => swap.hasDevice() && (swap.nrFree() > 0 || vmstat.item(NR_SWAPCACHE) > 0);

  /** So few pages of files that free memory could not reach the high marks by them (file_is_tiny). */
  const isFileTiny = (): boolean => {
    let nr = zones.totalFree();
    let high = 0;
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
      nr += policy.nrCandidates(zone, true);
      high += zones.wmark(zone, WMARK_HIGH);
    }
    return nr <= high;
  };

  /** Weights of anonymous pages and of files (get_scan_count). */
  const weights = (zone: number, { priority, isForBoost }: Scan): readonly [anon: number, file: number] => {
    const maySwap = isForBoost !== true && canSwap();
    const [nrAnon, nrFile] = [maySwap ? policy.nrCandidates(zone, false) : 0, policy.nrCandidates(zone, true)];
    if (nrAnon === 0 || nrFile === 0) return [nrAnon > 0 ? 1 : 0, nrFile > 0 ? 1 : 0];
    if (nrAnon >>> priority > 0 && isFileTiny()) return [1, 0];
    if (swappiness() === 0) return [0, 1];
    if (priority === 0) return [1, 1];
    const [anonCost, fileCost] = [workingSet.cost(false), workingSet.cost(true)];
    const total = anonCost + fileCost + 1;
    return [(swappiness() * total) / (anonCost + 1), ((MAX_SWAPPINESS - swappiness()) * total) / (fileCost + 1)];
  };

  /** Pages of each kind that a round looks at in a zone. */
  const nrToScan = (zone: number, scan: Scan): readonly [anon: number, file: number] => {
    const { priority } = scan;
    const share = weights(zone, scan);
    const sum = priority === 0 && share[0] === share[1] ? 1 : share[0] + share[1];
    const count = (kind: 0 | 1): number => {
      const nr = policy.nrCandidates(zone, kind === 1);
      const all = Math.min(nr, Math.max(nr >>> priority, SWAP_CLUSTER_MAX));
      return share[kind] === 0 ? 0 : Math.ceil((all * share[kind]) / sum);
    };
    return [count(0), count(1)];
  };

  const countScan = (ctx: Context, scan: Scan, isFile: boolean, nrScanned: number): void => {
    vmstat.countEvents(ctx, scan.isKswapd ? PGSCAN_KSWAPD : PGSCAN_DIRECT, nrScanned);
    vmstat.countEvents(ctx, isFile ? PGSCAN_FILE : PGSCAN_ANON, nrScanned);
  };
  const countSteal = (ctx: Context, scan: Scan, isFile: boolean, nrFreed: number): void => {
    vmstat.countEvents(ctx, scan.isKswapd ? PGSTEAL_KSWAPD : PGSTEAL_DIRECT, nrFreed);
    vmstat.countEvents(ctx, isFile ? PGSTEAL_FILE : PGSTEAL_ANON, nrFreed);
  };

  // ── One round ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Isolates and judges one batch of a zone; what is dirty waits in the batch. Pages looked at, pages freed. */
  const shrinkBatch = (
    ctx: Context,
    zone: number,
    isFile: boolean,
    batch: ReclaimBatch,
    max: number,
  ): readonly [nr: number, nrFreed: number] => {
    policy.age(ctx, zone, isFile, max, batch.flushes);
    const nr = policy.isolate(ctx, zone, isFile, Math.min(max, SWAP_CLUSTER_MAX), batch.isolated);
    let nrFreed = 0;
    for (let i = 0; i < nr; i++) {
      if (pageout.shrinkPage(ctx, asPfn(batch.isolated[i] as number), batch)) nrFreed++;
      deps.interruptPoint(ctx);
    }
    return [nr, nrFreed + pageout.freeClean(ctx, batch)];
  };

  /** Accounts for one batch; how many are left to look at. */
  const account = (ctx: Context, scan: Scan, isFile: boolean, nr: number, nrFreed: number, left: number): number => {
    countScan(ctx, scan, isFile, nr);
    countSteal(ctx, scan, isFile, nrFreed);
    workingSet.noteCost(isFile, 0, Math.max(0, nr - nrFreed));
    return nr === 0 ? 0 : left - nr;
  };

  return {
    shrinkInPlace(ctx, scan) {
      const batch = directBatch;
      let nrFreed = 0;
      for (let zone = scan.highest; zone >= 0; zone--) {
        const left = [...nrToScan(zone, scan)];
        // A turn of each kind at least, in each zone; no more than needed after that.
        for (let turn = 0; left.some((nr) => nr > 0) && (turn === 0 || nrFreed < SWAP_CLUSTER_MAX); turn++) {
          for (let kind = 0; kind < 2; kind++) {
            const max = left[kind] as number;
            if (max <= 0) continue;
            const [nr, freed] = shrinkBatch(ctx, zone, kind === 1, batch, max);
            const all = freed + pageout.writeInPlace(ctx, batch);
            left[kind] = account(ctx, scan, kind === 1, nr, all, max);
            nrFreed += all;
          }
        }
      }
      return nrFreed;
    },
    *shrink(task, scan) {
      const batch = kswapdBatch;
      let nrFreed = 0;
      for (let zone = scan.highest; zone >= 0; zone--) {
        const left = [...nrToScan(zone, scan)];
        while (left.some((nr) => nr > 0)) {
          for (let kind = 0; kind < 2; kind++) {
            const max = left[kind] as number;
            if (max <= 0) continue;
            const [nr, freed] = shrinkBatch(task.ctx, zone, kind === 1, batch, max);
            const all = freed + (yield* pageout.writeAsleep(task, batch));
            left[kind] = account(task.ctx, scan, kind === 1, nr, all, max);
            nrFreed += all;
          }
        }
      }
      return nrFreed;
    },
    nrReclaimable(highest) {
      let [nrAnon, nrFile] = [0, 0];
      for (let zone = 0; zone <= highest; zone++) {
        nrAnon += policy.nrCandidates(zone, false);
        nrFile += policy.nrCandidates(zone, true);
      }
      return nrFile + (canSwap() ? Math.min(nrAnon, swap.nrFree() + vmstat.item(NR_SWAPCACHE)) : 0);
    },
    isAbove(highest, mark) {
      for (let zone = 0; zone <= highest && zone < MAX_NR_ZONES; zone++) {
        if (zones.field(zone, Z_MANAGED) === 0) continue;
        const kept = zones.wmark(zone, mark) + zones.field(zone, Z_LOWMEM_RESERVE + highest * 4);
        if (zones.field(zone, Z_NR_FREE) > kept) return true;
      }
      return false;
    },
    swappiness,
    setSwappiness(value) {
      bugOn(!(value >= 0 && value <= MAX_SWAPPINESS), "vmscan: swappiness out of range", value);
      port.st32(state + SWAPPINESS, value);
    },
  };
}
