/**
 * How many pages of disks may be dirty: what can be tuned, and the limits that follow from it.
 *
 *   dirtyable memory = free pages above the reserves + pages on the lists of files
 *
 *   0 ─────────── background ───────── half-way ───────── limit          nr_dirty + pages under write-back
 *                  the flusher writes   writers sleep      nobody goes on
 *
 * State: five words of static memory, in the order of the numbers below. Linux: mm/page-writeback.c
 * (global_dirtyable_memory, domain_dirty_limits, dirty_freerun_ceiling).
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import type { PhysAddr } from "../kernel/types.ts";
import { LRU_ACTIVE_FILE, LRU_INACTIVE_FILE, type Lru } from "./lru.ts";
import type { Zones } from "./mmzone.ts";
import { NR_FILE_DIRTY, NR_FILE_WRITEBACK, type VmStat } from "./vmstat.ts";

/** Linux's defaults, in the order of the numbers below. */
const DEFAULTS = [20, 10, 3000, 500, 0] as const;
const DIRTY_RATIO = 0;
const DIRTY_BACKGROUND_RATIO = 1;
export const DIRTY_EXPIRE_CENTISECS = 2;
export const DIRTY_WRITEBACK_CENTISECS = 3;
/** What was last written to drop_caches. */
export const DROP_CACHES = 4;
/** Names below /proc/sys/vm, and the largest value of each. */
export const DIRTY_TUNABLES: readonly (readonly [name: string, max: number])[] = [
  ["dirty_ratio", 100],
  ["dirty_background_ratio", 100],
  ["dirty_expire_centisecs", 999_999_999],
  ["dirty_writeback_centisecs", 999_999_999],
];

/** Bytes of static memory. */
export const DIRTY_LIMITS_BYTES = 24;

/** Part of the memory that could hold dirty pages, in 1/4096 as Linux counts it; the background limit stays below. */
export function dirtyThresholds(dirtyable: number, ratio: number, backgroundRatio: number) {
  const part = (percent: number): number =>
    Math.floor((Math.floor((percent * PAGE_SIZE) / 100) * dirtyable) / PAGE_SIZE);
  const limit = part(ratio);
  const background = part(backgroundRatio);
  return { background: background >= limit ? Math.floor(limit / 2) : background, limit };
}

export interface DirtyLimits {
  tunable(nr: number): number;
  setTunable(nr: number, value: number): void;
  /** Pages that a disk is still to get. */
  nrUnwritten(): number;
  thresholds(): { readonly background: number; readonly limit: number };
  isOverBackground(): boolean;
  /** Up to half-way between the two nobody is held up. */
  isOverFreerun(): boolean;
}

export interface DirtyLimitsDeps {
  readonly port: MemoryPort;
  readonly zones: Zones;
  readonly lru: Lru;
  readonly vmstat: VmStat;
  readonly state: PhysAddr;
}

export function createDirtyLimits({ port, zones, lru, vmstat, state }: DirtyLimitsDeps): DirtyLimits {
  DEFAULTS.forEach((value, nr) => {
    port.st32(state + nr * 4, value);
  });
  const tunable = (nr: number): number => port.ld32(state + nr * 4);

  const nrUnwritten = (): number => vmstat.item(NR_FILE_DIRTY) + vmstat.item(NR_FILE_WRITEBACK);

  const thresholds = (): { background: number; limit: number } => {
    const nrFile = lru.total(LRU_INACTIVE_FILE) + lru.total(LRU_ACTIVE_FILE);
    const dirtyable = Math.max(0, zones.totalFree() - zones.totalReserve()) + nrFile + 1;
    return dirtyThresholds(dirtyable, tunable(DIRTY_RATIO), tunable(DIRTY_BACKGROUND_RATIO));
  };
  const isOverBackground = (): boolean => nrUnwritten() > thresholds().background;
  /** Up to half-way between the two nobody is held up. */
  const isOverFreerun = (): boolean => {
    const { background, limit } = thresholds();
    return nrUnwritten() > (background + limit) / 2;
  };

  return {
    tunable,
    setTunable: (nr, value) => port.st32(state + nr * 4, value),
    nrUnwritten,
    thresholds,
    isOverBackground,
    isOverFreerun,
  };
}
