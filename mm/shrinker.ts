/**
 * Shrinkers: caches of the kernel that can give memory back when reclaim asks.
 *
 *   reclaim, priority p ─▶ each shrinker: about 1/2^p of what it could give, at least a little ─▶ pages freed
 *
 * Who has a cache registers it under a name; reclaim calls all of them, after the LRU lists, in the order of their
 * registration. What is given back is counted in pages.
 *
 *   SHR-1  a shrinker neither sleeps nor allocates
 *
 * Linux: mm/shrinker.c (do_shrink_slab).
 */

import type { Context } from "../kernel/types.ts";
import { SLABS_SCANNED, type VmStat } from "./vmstat.ts";

export interface Shrinker {
  readonly name: string;
  /** Objects or pages that could go now, roughly. */
  count(): number;
  /** Gives about `nr` of them back; the number of pages that came free. */
  scan(ctx: Context, nr: number): number;
}

export interface Shrinkers {
  register(shrinker: Shrinker): void;
  /** Calls every shrinker; pages freed. */
  shrink(ctx: Context, priority: number): number;
  names(): readonly string[];
}

export function createShrinkers(vmstat: VmStat): Shrinkers {
  const shrinkers: Shrinker[] = [];
  return {
    register(shrinker) {
      shrinkers.push(shrinker);
    },
    shrink(ctx, priority) {
      let nrFreed = 0;
      for (const shrinker of shrinkers) {
        const nr = shrinker.count();
        if (nr === 0) continue;
        const share = Math.max(1, nr >>> priority);
        vmstat.countEvents(ctx, SLABS_SCANNED, share);
        nrFreed += shrinker.scan(ctx, share);
      }
      return nrFreed;
    },
    names: () => shrinkers.map(({ name }) => name),
  };
}
