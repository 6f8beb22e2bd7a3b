/**
 * Watermarks: may this request take pages from that zone (W4)?
 *
 *      free pages of a zone
 *      ────────────────────── high     where reclaim stops
 *      ────────────────────── low      down to here anybody, at once                       fast path
 *      ────────────────────── min      down to here anybody, after the slow path
 *      ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─           __GFP_HIGH: half of min; atomic as well: three eighths
 *      ────────────────────── 0        __GFP_MEMALLOC
 *
 * Each mark counts from the top of the zone's reserve against requests that could have been served by a higher zone
 * (W3). Pages of the high-order atomic reserve and of the contiguous area count for those only who may use them. A
 * block of order > 0 needs, besides, one free block of that size (W4, second half): pages are there, but are they
 * side by side?
 *
 * The checks look without a lock at numbers that change under the zone's lock: what they say is a hint, and may be old
 * by a batch. Source: mm/page_alloc.c (__zone_watermark_ok, zone_watermark_fast).
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { PhysAddr } from "../kernel/types.ts";
import { ALLOC_CMA } from "./frame_allocator.ts";
import { MIGRATE_CMA, MIGRATE_HIGHATOMIC } from "./migratetype.ts";
import {
  WMARK_MIN,
  Z_BOOST,
  Z_LOWMEM_RESERVE,
  Z_NONEMPTY,
  Z_NONEMPTY_ORDINARY,
  Z_NR_FREE,
  Z_NR_FREE_CMA,
  Z_NR_FREE_HIGHATOMIC,
  Z_WMARK,
} from "./mmzone.ts";

// ── Allocation flags (W4); the two lowest bits are the number of the mark ──────────────────────────────────────────

const ALLOC_WMARK_MASK = 0x3;
export const ALLOC_NO_WATERMARKS = 0x4;
export const ALLOC_OOM = 0x8;
export const ALLOC_NON_BLOCK = 0x10;
export const ALLOC_MIN_RESERVE = 0x20;
export const ALLOC_HIGHATOMIC = 0x200;
const ALLOC_RESERVES = ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE | ALLOC_HIGHATOMIC | ALLOC_OOM;

/** Copies for the fast path: why, see slab_objects.ts. */
const OF_ORDINARY = Z_NONEMPTY_ORDINARY;
const OF_CMA = Z_NONEMPTY + MIGRATE_CMA * 4;
const OF_HIGHATOMIC = Z_NONEMPTY + MIGRATE_HIGHATOMIC * 4;
const BORROWS = ALLOC_CMA;
const USES_HIGHATOMIC = ALLOC_HIGHATOMIC | ALLOC_OOM;

export interface WatermarkChecks {
  /** W4: may a request of `order`, whose highest zone is `highest`, take from the zone at `zoneAddr`? */
  isOk(zoneAddr: PhysAddr, order: number, highest: number, allocFlags: number): boolean;
  /** W4, second half: is there one free block of at least `order` that this request may use? Without a jump. */
  hasBlock(zoneAddr: number, order: number, allocFlags: number): boolean;
}

export function createWatermarks(port: MemoryPort, hasCma: boolean): WatermarkChecks {
  const hasBlock = (zoneAddr: number, order: number, allocFlags: number): boolean => {
    let orders = port.ld32(zoneAddr + OF_ORDINARY);
    if ((allocFlags & BORROWS) !== 0) orders |= port.ld32(zoneAddr + OF_CMA);
    if ((allocFlags & USES_HIGHATOMIC) !== 0) orders |= port.ld32(zoneAddr + OF_HIGHATOMIC);
    return orders >>> order !== 0;
  };

  /** The mark, after what the request is entitled to. A boost does not raise the lowest one (B11). */
  const markFor = (zoneAddr: PhysAddr, allocFlags: number): number => {
    let mark = port.ld32(zoneAddr + Z_WMARK + ((allocFlags & ALLOC_WMARK_MASK) << 2));
    if ((allocFlags & ALLOC_WMARK_MASK) !== WMARK_MIN) mark += port.ld32(zoneAddr + Z_BOOST);
    if ((allocFlags & ALLOC_MIN_RESERVE) !== 0) {
      mark -= mark >>> 1;
      if ((allocFlags & ALLOC_NON_BLOCK) !== 0) mark -= mark >>> 2;
    }
    if ((allocFlags & ALLOC_OOM) !== 0) mark -= mark >>> 1;
    return mark;
  };

  const isOk = (zoneAddr: PhysAddr, order: number, highest: number, allocFlags: number): boolean => {
    let free = port.ld32(zoneAddr + Z_NR_FREE) - ((1 << order) - 1);
    if ((allocFlags & ALLOC_RESERVES) === 0) free -= port.ld32(zoneAddr + Z_NR_FREE_HIGHATOMIC);
    if (hasCma && (allocFlags & ALLOC_CMA) === 0) free -= port.ld32(zoneAddr + Z_NR_FREE_CMA);
    if (free <= markFor(zoneAddr, allocFlags) + port.ld32(zoneAddr + Z_LOWMEM_RESERVE + (highest << 2))) return false;
    return order === 0 || hasBlock(zoneAddr, order, allocFlags);
  };

  return { isOk, hasBlock };
}
