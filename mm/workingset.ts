/**
 * Working set: was a page that comes back evicted too early?
 *
 *   eviction ─▶ shadow: the time of the eviction, left in the slot            time = evictions + activations so far
 *   refault  ─▶ distance = now − then ≤ size of the active list? it would have stayed, had the lists been cut otherwise
 *
 * Time is counted in evictions, not in cycles: between eviction and refault of a page `distance` other pages went out
 * or up. Had the inactive list been so much longer, the page would still be there; and so much longer it could be if
 * active pages gave way. So a refault at a distance below the number of active pages goes to the active list at once,
 * where it competes with those that are there. Others start on the inactive list as any new page.
 *
 *   WSET-1  a shadow is made of the clock at the eviction and of whether the page was in the working set then
 *   WSET-2  distances are right modulo 2^20 evictions: a shadow older than that may look young
 *
 * Linux: mm/workingset.c.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { Context, Pfn, PhysAddr } from "../kernel/types.ts";
import { LRU_ACTIVE_ANON, type Lru } from "./lru.ts";
import { type Pages, PG_WORKINGSET } from "./page.ts";
import {
  PGACTIVATE,
  type VmStat,
  WORKINGSET_ACTIVATE_ANON,
  WORKINGSET_REFAULT_ANON,
  WORKINGSET_RESTORE_ANON,
} from "./vmstat.ts";

const CLOCK_BITS = 20;
const CLOCK_MASK = (1 << CLOCK_BITS) - 1;
const WAS_WORKINGSET = 1 << CLOCK_BITS;
/** Bytes of zeroed static memory. */
export const WORKINGSET_BYTES = 8;

export interface WorkingSet {
  /** The page is about to leave RAM: its shadow. */
  evict(pfn: Pfn): number;
  /** A page is back that left `shadow` (−1: none): true if it belongs on the active list. */
  refault(ctx: Context, shadow: number): boolean;
}

export function createWorkingSet(
  port: MemoryPort,
  pages: Pages,
  lru: Lru,
  vmstat: VmStat,
  state: PhysAddr,
): WorkingSet {
  const clock = (): number => port.ld32(state);
  const tick = (): void => port.st32(state, (clock() + 1) >>> 0);
  return {
    evict(pfn) {
      const flag = (pages.flags(pfn) & PG_WORKINGSET) !== 0 ? WAS_WORKINGSET : 0;
      const shadow = (clock() & CLOCK_MASK) | flag;
      tick();
      return shadow;
    },
    refault(ctx, shadow) {
      if (shadow < 0) return false;
      vmstat.modItem(WORKINGSET_REFAULT_ANON, 1);
      const distance = (clock() - shadow) & CLOCK_MASK;
      if (distance > lru.total(LRU_ACTIVE_ANON)) return false;
      vmstat.modItem(WORKINGSET_ACTIVATE_ANON, 1);
      vmstat.countEvents(ctx, PGACTIVATE, 1);
      if ((shadow & WAS_WORKINGSET) !== 0) vmstat.modItem(WORKINGSET_RESTORE_ANON, 1);
      return true;
    },
  };
}
