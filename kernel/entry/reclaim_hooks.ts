/**
 * Where reclaim meets those who want memory, and those who have some to spare.
 *
 *   allocation below low ─▶ kswapd        allocation that may sleep and fails ─▶ direct reclaim
 *   slab caches ─▶ a shrinker             page fault that finds nothing ─▶ makeRoom (user_mode.ts)
 *                                         page fault without a huge page ─▶ direct reclaim, once (thp.ts)
 */

import {
  __GFP_RETRY_MAYFAIL,
  ALLOCSTALL,
  GFP_HIGHUSER_MOVABLE,
  MAX_NR_ZONES,
  type PageAllocator,
  type ReclaimSubsystem,
  type SlabSubsystem,
  type Thp,
  type VmStat,
} from "../../mm/index.ts";
import type { TaskContext } from "../types.ts";
import type { MakeRoom } from "./user_mode.ts";

export interface ReclaimHooks {
  readonly pageAlloc: PageAllocator;
  readonly slab: SlabSubsystem;
  readonly thp: Thp;
  readonly reclaim: ReclaimSubsystem;
  readonly vmstat: VmStat;
}

/** Direct reclaim for a page of a file in RAM: nobody dies for it, and without anything to reclaim nothing is tried. */
export function roomForFile({ vmscan, reclaim }: ReclaimSubsystem, ctx: TaskContext): boolean {
  const gfp = (GFP_HIGHUSER_MOVABLE | __GFP_RETRY_MAYFAIL) as typeof GFP_HIGHUSER_MOVABLE;
  return vmscan.nrReclaimable(MAX_NR_ZONES - 1) > 0 && reclaim.makeRoom(ctx, 0, gfp);
}

/** Registers reclaim where it is needed; what a page fault calls. */
export function hookReclaim({ pageAlloc, slab, thp, reclaim, vmstat }: ReclaimHooks): MakeRoom {
  pageAlloc.onLow(reclaim.reclaim.wakeKswapd);
  pageAlloc.onReclaim(function* (ctx, order, gfp) {
    return reclaim.reclaim.makeRoom(ctx, order, gfp);
  });
  thp.onReclaim((ctx, order, gfp) => {
    vmstat.countEvents(ctx, ALLOCSTALL, 1);
    return reclaim.reclaim.makeRoom(ctx, order, gfp);
  });
  reclaim.shrinkers.register({
    name: "slab caches",
    count: () => 1,
    scan: (ctx) => slab.reapForPages(ctx, false),
  });
  return (ctx) => {
    vmstat.countEvents(ctx, ALLOCSTALL, 1);
    return reclaim.reclaim.makeRoom(ctx, 0, GFP_HIGHUSER_MOVABLE);
  };
}
