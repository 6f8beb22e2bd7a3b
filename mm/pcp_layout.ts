/**
 * struct per_cpu_pages: 256 bytes per zone in every CPU's area, and where its lists begin.
 *
 * | offset | field                                                                     | written by                   |
 * |--------|---------------------------------------------------------------------------|------------------------------|
 * | 0      | state word: stock and free_count; or, while somebody is at work, who      | casBelow, compare-and-swap   |
 * | 4      | high: the stock above which a free spills                                 | the holder of the state word |
 * | 8      | alloc_factor, as it was at the last refill                                | the holder                   |
 * | 16…    | per list: blocks served, blocks taken back (f64 each)                     | the holder                   |
 * | 240    | blocks taken back, of all lists, at the last refill (f64)                 | the holder                   |
 *
 * The state word:
 *
 *      31                 20 19                                  0
 *      |  free_count        |  stock in pages                    |      at rest
 *      |  1111 1111 1111    |  CPU that is at work               |      held
 *
 * Lock and content are one word. Whoever takes it has read the stock by the same access, and
 * putting the new stock back is the unlock; a lock beside the numbers would cost four more accesses per page.
 */

import type { PhysAddr } from "../kernel/types.ts";
import { MIGRATE_MOVABLE, MIGRATE_PCPTYPES } from "./migratetype.ts";
import { MAX_NR_ZONES, PAGEBLOCK_ORDER } from "./mmzone.ts";

/** Orders above this one go to the buddy directly, except the huge-page order. */
const PAGE_ALLOC_COSTLY_ORDER = 3;
/** W7: 3 types × orders 0-3, and two lists for order 9 (movable, others). */
export const NR_PCP_LISTS = 14;
export const FIRST_HUGE_LIST = 12;
/** W8: how often a refill may double. */
export const PCP_BATCH_SCALE_MAX = 5;

// ── struct per_cpu_pages ───────────────────────────────────────────────────────────────────────────────────────────

export const PCP_BYTES_SHIFT = 8;
export const PCP_BYTES = 1 << PCP_BYTES_SHIFT;
export const P_STATE = 0;
export const P_HIGH = 4;
export const P_ALLOC_FACTOR = 8;
/** Blocks served from list i: at P_SERVED + 16 · i; taken back: 8 bytes further. */
export const P_SERVED = 16;
export const P_TAKEN_BACK = 24;
export const P_COUNTERS_SHIFT = 4;
export const P_TAKEN_BACK_THEN = 240;

if (P_SERVED + (NR_PCP_LISTS << P_COUNTERS_SHIFT) > P_TAKEN_BACK_THEN) throw new Error("pcp_layout: counters overlap");
if (P_TAKEN_BACK_THEN + 8 > PCP_BYTES) throw new Error("pcp_layout: struct per_cpu_pages overflows");

// ── The state word ─────────────────────────────────────────────────────────────────────────────────────────────────

export const FREE_COUNT_SHIFT = 20;
export const STOCK_MASK = (1 << FREE_COUNT_SHIFT) - 1;
/** free_count of a word that is held; below it is the CPU. */
export const FREE_COUNT_HELD = 0xfff;
/** Added to a CPU number: the state word while that CPU is at work. */
export const PCP_HELD = FREE_COUNT_HELD * 2 ** FREE_COUNT_SHIFT;

/** W7: the largest batch there is, so that free_count, which stops growing at batch · 2^5, never looks like HELD. */
const MAX_BATCH = 63;
if ((MAX_BATCH << PCP_BATCH_SCALE_MAX) + (1 << PAGEBLOCK_ORDER) >= FREE_COUNT_HELD) {
  throw new Error("pcp_layout: free_count overflows");
}

// ── Lists ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/** True if blocks of this order are kept per CPU. */
export const pcpAllowedOrder = (order: number): boolean =>
  order <= PAGE_ALLOC_COSTLY_ORDER || order === PAGEBLOCK_ORDER;

/** Number of the list of (order, migrate type) within a zone's 14. */
export const pcpListIndex = (order: number, migratetype: number): number =>
  order === PAGEBLOCK_ORDER
    ? FIRST_HUGE_LIST + (migratetype === MIGRATE_MOVABLE ? 1 : 0)
    : order * MIGRATE_PCPTYPES + migratetype;

/** log2 of pages of the blocks on list `index`. */
export const orderOfPcpList = (index: number): number =>
  index >= FIRST_HUGE_LIST ? PAGEBLOCK_ORDER : Math.floor(index / MIGRATE_PCPTYPES);

/** List-head rows that the lists of `nrCpus` CPUs take. */
export const pcpHeads = (nrCpus: number): number => nrCpus * MAX_NR_ZONES * NR_PCP_LISTS;

/** Where struct per_cpu_pages of a CPU and zone lies, and the row of list 0. */
export interface PcpPlaces {
  of(cpu: number, zone: number): PhysAddr;
  firstHead(cpu: number, zone: number): number;
}
