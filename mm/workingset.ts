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
 * What it costs to have evicted the wrong pages is remembered for each kind, anonymous or of files: pages written out,
 * pages looked at in vain, pages of the working set that had to come back. Reclaim takes more of the kind that costs
 * less (vmscan.ts). Old cost counts for ever less: both are halved when together they exceed a quarter of all pages.
 *
 *   WSET-1  a shadow is made of the clock at the eviction and of whether the page was in the working set then
 *   WSET-2  distances are right modulo 2^20 evictions: a shadow older than that may look young
 *
 * Linux: mm/workingset.c.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { Context, Pfn, PhysAddr } from "../kernel/types.ts";
import { isFilePage, LRU_ACTIVE_ANON, LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE, type Lru } from "./lru.ts";
import { type Pages, PG_WORKINGSET } from "./page.ts";
import {
  PGACTIVATE,
  type VmStat,
  WORKINGSET_ACTIVATE_ANON,
  WORKINGSET_ACTIVATE_FILE,
  WORKINGSET_REFAULT_ANON,
  WORKINGSET_REFAULT_FILE,
  WORKINGSET_RESTORE_ANON,
  WORKINGSET_RESTORE_FILE,
} from "./vmstat.ts";

/** What one read or write of a page counts, in pages looked at. */
const IO_COST = 32;

const CLOCK_BITS = 20;
const CLOCK_MASK = (1 << CLOCK_BITS) - 1;
const WAS_WORKINGSET = 1 << CLOCK_BITS;
/** Bytes of zeroed static memory: 0 clock · 4 cost of anonymous pages · 8 of pages of files. */
export const WORKINGSET_BYTES = 16;
const COST = 4;

export interface WorkingSet {
  /** The page is about to leave RAM: its shadow. */
  evict(pfn: Pfn): number;
  /** A page is back that left `shadow` (−1: none): true if it belongs on the active list. */
  refault(ctx: Context, pfn: Pfn, shadow: number): boolean;
  /** Reclaim of a kind has read or written `nrIo` pages, and looked at `nrRotated` in vain. */
  noteCost(isFile: boolean, nrIo: number, nrRotated: number): void;
  cost(isFile: boolean): number;
}

export function createWorkingSet(
  port: MemoryPort,
  pages: Pages,
  lru: Lru,
  vmstat: VmStat,
  state: PhysAddr,
  hasSwap: () => boolean = () => false,
): WorkingSet {
  const clock = (): number => port.ld32(state);
  const tick = (): void => port.st32(state, (clock() + 1) >>> 0);
  const costAt = (isFile: boolean): number => state + COST + (isFile ? 4 : 0);
  const cost = (isFile: boolean): number => port.ld32(costAt(isFile));
  const nrPages = (): number =>
    [LRU_ACTIVE_ANON, LRU_INACTIVE_ANON, LRU_ACTIVE_FILE, LRU_INACTIVE_FILE].reduce(
      (n, list) => n + lru.total(list),
      0,
    );

  const noteCost: WorkingSet["noteCost"] = (isFile, nrIo, nrRotated) => {
    port.st32(costAt(isFile), cost(isFile) + nrIo * IO_COST + nrRotated);
    if ((cost(false) + cost(true)) * 4 <= nrPages()) return;
    for (const kind of [false, true]) port.st32(costAt(kind), cost(kind) >>> 1);
  };

  /** Pages that a page of the kind could have pushed out instead. */
  const rivals = (isFile: boolean): number => {
    if (!isFile) return lru.total(LRU_ACTIVE_ANON);
    const nrAnon = hasSwap() ? lru.total(LRU_ACTIVE_ANON) + lru.total(LRU_INACTIVE_ANON) : 0;
    return lru.total(LRU_ACTIVE_FILE) + nrAnon;
  };

  return {
    evict(pfn) {
      const flag = (pages.flags(pfn) & PG_WORKINGSET) !== 0 ? WAS_WORKINGSET : 0;
      const shadow = (clock() & CLOCK_MASK) | flag;
      tick();
      return shadow;
    },
    refault(ctx, pfn, shadow) {
      if (shadow < 0) return false;
      const isFile = isFilePage(pages.flags(pfn));
      vmstat.modItem(isFile ? WORKINGSET_REFAULT_FILE : WORKINGSET_REFAULT_ANON, 1);
      const distance = (clock() - shadow) & CLOCK_MASK;
      if (distance > rivals(isFile)) return false;
      vmstat.modItem(isFile ? WORKINGSET_ACTIVATE_FILE : WORKINGSET_ACTIVATE_ANON, 1);
      vmstat.countEvents(ctx, PGACTIVATE, 1);
      if ((shadow & WAS_WORKINGSET) !== 0) {
        vmstat.modItem(isFile ? WORKINGSET_RESTORE_FILE : WORKINGSET_RESTORE_ANON, 1);
        noteCost(isFile, 1, 0);
      }
      return true;
    },
    noteCost,
    cost,
  };
}
