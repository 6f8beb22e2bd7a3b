/**
 * The two hits of the per-CPU lists: a block from the head of its list, a block back to it.
 *
 * Everything a page costs when nothing special happens is here, written out, so that V8 makes one piece of code of an
 * allocation. Three habits make that code short (2026, Node 20; measured in docs/performance.md):
 *
 * 1. The state word is taken and read by the same accesses (pcp_layout.ts).
 *
 * 2. What goes into an address is masked first, and struct page is reached by word numbers (port.ts). It costs one
 *    instruction, and V8 then knows that the sum neither overflows nor becomes negative; of a number of unknown size it
 *    has to find out, with two checks per access.
 *
 * 3. What the functions know comes as parameters of the function around them. Constants of an enclosing block would
 *    do as well for the machine code, but cost two bytecodes more on every use, to see whether they have a value yet,
 *    and how many bytecodes a function has decides what it is joined with.
 *
 * The links are those of page_list.ts, the flags those of page.ts. Invariants and locks: pcp.ts.
 */

import { CYC_PCP_HIT } from "../kernel/arch/charges.ts";
import type { MemoryPort } from "../kernel/arch/port.ts";
import { MAX_CPUS } from "../kernel/params.ts";
import { type Context, NO_PFN, type Pfn } from "../kernel/types.ts";
import { MIGRATE_MOVABLE, MIGRATE_PCPTYPES, type Migratetype } from "./migratetype.ts";
import { MAX_NR_ZONES, PAGEBLOCK_ORDER, Z_PCP_BATCH, ZONE_BYTES_SHIFT } from "./mmzone.ts";
import {
  ORDER_MASK,
  ORDER_SHIFT,
  PAGE_NEXT,
  PAGE_PREV,
  PAGE_ROW_SHIFT,
  PG_ALLOCATED,
  PG_PCP,
  ZONE_SHIFT,
} from "./page.ts";
import type { PcpBatches } from "./pcp_batch.ts";
import {
  FIRST_HUGE_LIST,
  FREE_COUNT_SHIFT,
  NR_PCP_LISTS,
  P_COUNTERS_SHIFT,
  P_HIGH,
  P_SERVED,
  P_TAKEN_BACK,
  PCP_BATCH_SCALE_MAX,
  PCP_BYTES_SHIFT,
  PCP_HELD,
  STOCK_MASK,
} from "./pcp_layout.ts";
import { PCP_BUSY, type VmStat } from "./vmstat.ts";

/** Copies for the fast paths: why, see slab_objects.ts. */
const TYPES = MIGRATE_PCPTYPES;
const MOVABLE = MIGRATE_MOVABLE;
const HUGE_ORDER = PAGEBLOCK_ORDER;
const HUGE_LIST = FIRST_HUGE_LIST;
const LISTS = NR_PCP_LISTS;
const NR_ZONES = MAX_NR_ZONES;
const STRUCT_SHIFT = PCP_BYTES_SHIFT;
/** Of struct zone, in words. */
const ZONE_STRUCT_SHIFT = ZONE_BYTES_SHIFT - 2;
const BATCH = Z_PCP_BATCH >>> 2;
const HIGH = P_HIGH;
const SERVED = P_SERVED;
const TAKEN_BACK = P_TAKEN_BACK;
const COUNTERS_SHIFT = P_COUNTERS_SHIFT;
const STOCK = STOCK_MASK;
const FREES_AT = FREE_COUNT_SHIFT;
const HALVED_FREES_AT = FREE_COUNT_SHIFT + 1;
const HELD_BY = PCP_HELD;
const SCALE_MAX = PCP_BATCH_SCALE_MAX;
/** Of struct page, in words. */
const ROW = PAGE_ROW_SHIFT - 2;
const NEXT = PAGE_NEXT >>> 2;
const PREV = PAGE_PREV >>> 2;
const ORDER_AT = ORDER_SHIFT;
const ZONE_AT = ZONE_SHIFT;
const OUT = PG_ALLOCATED;
const ON_LIST = PG_PCP;
const HIT_CYCLES = CYC_PCP_HIT;
const NONE = NO_PFN;
/** Masks of what goes into an address. */
const ZONES = MAX_NR_ZONES - 1;
const CPUS = MAX_CPUS - 1;
const ORDERS = ORDER_MASK >>> ORDER_SHIFT;
const SMALL = 0x3;

export interface PcpHits {
  /** PerCpuPages.alloc() */
  alloc(ctx: Context, zone: number, order: number, migratetype: Migratetype, allocFlags: number): Pfn;
  /** PerCpuPages.free() */
  free(ctx: Context, zone: number, pfn: Pfn, order: number, migratetype: Migratetype): boolean;
}

/** The list of a block of order 9 (pcp_layout.ts). */
const hugeList = (type: number): number => HUGE_LIST + (type === MOVABLE ? 1 : 0);

/**
 * `rows`: first word of row 0 of struct page; `firstPcp`: struct per_cpu_pages of CPU 0 and zone 0, the next CPU's is
 * `unit` bytes further; `firstHead`: row of its first list; `zonesBase`: first word of struct zone 0.
 */
export function createPcpHits(
  port: MemoryPort,
  clock: Float64Array,
  rows: number,
  rowMask: number,
  firstPcp: number,
  unit: number,
  firstHead: number,
  zonesBase: number,
  refill: PcpBatches["refill"],
  spill: PcpBatches["spill"],
  countEvents: VmStat["countEvents"],
): PcpHits {
  const busy = (ctx: Context): Pfn => {
    countEvents(ctx, PCP_BUSY, 1);
    return NONE;
  };

  /** The list ran empty. */
  const refillAndTake = (ctx: Context, zone: number, order: number, type: Migratetype, flags: number, word: number) => {
    const pcp = firstPcp + ctx.cpu * unit + (zone << STRUCT_SHIFT);
    const state = refill(ctx, zone, order, type, flags, word);
    port.stAtomic(pcp, state);
    return state === word ? NONE : alloc(ctx, zone, order, type, flags);
  };

  const alloc = (ctx: Context, zone: number, order: number, type: Migratetype, allocFlags: number): Pfn => {
    const cpu = ctx.cpu & CPUS;
    const pcp = firstPcp + cpu * unit + ((zone & ZONES) << STRUCT_SHIFT);
    const word = port.casBelow(pcp, HELD_BY, HELD_BY + cpu);
    if (word >= HELD_BY) return busy(ctx);
    const list = order === HUGE_ORDER ? hugeList(type) : (order & SMALL) * TYPES + (type & SMALL);
    const head = (firstHead + (cpu * NR_ZONES + (zone & ZONES)) * LISTS + list) & rowMask;
    const headAt = (head << ROW) + rows;
    const pfn = port.ldWord(headAt + NEXT) & rowMask;
    if (pfn === head) return refillAndTake(ctx, zone, order, type, allocFlags, word);
    const at = (pfn << ROW) + rows;
    const next = port.ldWord(at + NEXT) & rowMask;
    port.stWord(headAt + NEXT, next);
    port.stWord((next << ROW) + rows + PREV, head);
    // Zone, order and state in one store; the list type is of no use to an owner.
    port.stWord(at, ((zone & ZONES) << ZONE_AT) | ((order & ORDERS) << ORDER_AT) | OUT);
    const served = pcp + SERVED + (list << COUNTERS_SHIFT);
    port.stF64(served, port.ldF64(served) + 1);
    clock[cpu] = (clock[cpu] as number) + HIT_CYCLES;
    // free_count is halved.
    port.stAtomic(pcp, (((word >>> HALVED_FREES_AT) << FREES_AT) | (word & STOCK)) - (1 << (order & ORDERS)));
    return pfn as Pfn;
  };

  const free = (ctx: Context, zone: number, pfn: Pfn, order: number, type: Migratetype): boolean => {
    const cpu = ctx.cpu & CPUS;
    const pcp = firstPcp + cpu * unit + ((zone & ZONES) << STRUCT_SHIFT);
    const word = port.casBelow(pcp, HELD_BY, HELD_BY + cpu);
    if (word >= HELD_BY) return busy(ctx) !== NONE;
    const row = pfn & rowMask;
    const at = (row << ROW) + rows;
    const list = order === HUGE_ORDER ? hugeList(type) : (order & SMALL) * TYPES + (type & SMALL);
    const head = (firstHead + (cpu * NR_ZONES + (zone & ZONES)) * LISTS + list) & rowMask;
    const headAt = (head << ROW) + rows;
    const next = port.ldWord(headAt + NEXT) & rowMask;
    port.stWord(at, ((zone & ZONES) << ZONE_AT) | ((order & ORDERS) << ORDER_AT) | ON_LIST);
    port.stWord(at + NEXT, next);
    port.stWord(at + PREV, head);
    port.stWord(headAt + NEXT, row);
    port.stWord((next << ROW) + rows + PREV, row);
    const takenBack = pcp + TAKEN_BACK + (list << COUNTERS_SHIFT);
    port.stF64(takenBack, port.ldF64(takenBack) + 1);
    clock[cpu] = (clock[cpu] as number) + HIT_CYCLES;
    // The stock grows by the block, and free_count by as much up to its limit.
    const nrPages = 1 << (order & ORDERS);
    const stock = (word & STOCK) + nrPages;
    const limit = port.ldWord(zonesBase + ((zone & ZONES) << ZONE_STRUCT_SHIFT) + BATCH) << SCALE_MAX;
    const freeCount = (word >>> FREES_AT) + (word >>> FREES_AT < limit ? nrPages : 0);
    const state = stock | (freeCount << FREES_AT);
    port.stAtomic(pcp, stock >= port.ld32(pcp + HIGH) ? spill(ctx, zone, state >>> 0) : state);
    return true;
  };

  return { alloc, free };
}
