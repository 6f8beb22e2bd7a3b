/**
 * Moving blocks between a CPU's lists and the buddy: a batch under one zone lock, and how large it is.
 *
 * W8, the sizes that follow the traffic:
 *
 *   refill   batch · 2^factor blocks of order 0. The factor goes up by one at each refill and is halved at each free
 *            between two refills: a CPU that only allocates fetches more and more, one that does both does not.
 *   high     between high_min and high_max: up when the lists run empty and when they overflow, down to high_min while
 *            the zone is short (below its high mark).
 *   spill    free_count blocks, at least a batch, and never more than leaves a batch below high. free_count grows with
 *            each free and is halved by each allocation: a CPU that only frees gives back more and more.
 *
 * Nobody halves the factor when a page is freed: the blocks taken back are counted anyway, so a refill knows how many
 * halvings it has missed.
 *
 * Context: the caller holds the state word of the lists (pcp_layout.ts); takes the zone's lock.
 * Source: mm/page_alloc.c (nr_pcp_alloc, nr_pcp_free, nr_pcp_high, rmqueue_bulk, free_pcppages_bulk).
 */

import { CYC_PCP_MOVE } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { bug } from "../kernel/bug.ts";
import { clamp } from "../kernel/lib/bits.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { asPfn, asPhys, type Context, NO_PFN, type PhysAddr } from "../kernel/types.ts";
import type { FrameAllocator } from "./frame_allocator.ts";
import type { Migratetype } from "./migratetype.ts";
import { WMARK_HIGH, Z_LOCK, Z_NR_FREE, Z_PCP_BATCH, Z_PCP_HIGH_MAX, Z_PCP_HIGH_MIN, type Zones } from "./mmzone.ts";
import { type Pages, PG_PCP, PG_STATE } from "./page.ts";
import type { PageLists } from "./page_list.ts";
import {
  FREE_COUNT_SHIFT,
  NR_PCP_LISTS,
  orderOfPcpList,
  P_ALLOC_FACTOR,
  P_COUNTERS_SHIFT,
  P_HIGH,
  P_TAKEN_BACK,
  P_TAKEN_BACK_THEN,
  PCP_BATCH_SCALE_MAX,
  type PcpPlaces,
  pcpListIndex,
  STOCK_MASK,
} from "./pcp_layout.ts";
import { PCP_REFILL, PCP_SPILL, type VmStat } from "./vmstat.ts";

export interface PcpBatches {
  /** Fetches a batch for an empty list; `word` is the state. Returns the state with what came; the same if nothing. */
  refill(ctx: Context, zone: number, order: number, type: Migratetype, allocFlags: number, word: number): number;
  /** After a free at or above `high`: moves `high`, gives back what is too much, returns the state. */
  spill(ctx: Context, zone: number, word: number): number;
  /** Gives everything back that CPU `cpu` has, a batch under each lock; returns the number of pages. */
  drain(ctx: Context, cpu: number, zone: number, word: number): number;
}

export interface PcpBatchDeps {
  readonly machine: Machine;
  readonly spinlocks: Spinlocks;
  readonly vmstat: VmStat;
  readonly pages: Pages;
  readonly lists: PageLists;
  readonly zones: Zones;
  readonly frames: readonly FrameAllocator[];
  readonly places: PcpPlaces;
  readonly interruptPoint: (ctx: Context) => void;
}

export function createPcpBatches(deps: PcpBatchDeps): PcpBatches {
  const { machine, spinlocks, vmstat, pages, lists, zones, frames, places } = deps;
  const { port, harts } = machine;
  const { clock } = harts;
  const { spinLockIrqsave, spinUnlockIrqrestore } = spinlocks;

  const zoneIsShort = (zone: number): boolean => zones.field(zone, Z_NR_FREE) <= zones.wmark(zone, WMARK_HIGH);
  const lockOf = (zone: number): PhysAddr => asPhys(zones.addr(zone) + Z_LOCK);

  const nrTakenBack = (pcp: PhysAddr): number => {
    let sum = 0;
    for (let i = 0; i < NR_PCP_LISTS; i++) sum += port.ldF64(pcp + P_TAKEN_BACK + (i << P_COUNTERS_SHIFT));
    return sum;
  };

  /** alloc_factor now: halved once for every block taken back since the last refill. */
  const factorNow = (pcp: PhysAddr, takenBack: number): number =>
    port.ld32(pcp + P_ALLOC_FACTOR) >>> Math.min(takenBack - port.ldF64(pcp + P_TAKEN_BACK_THEN), 31);

  /** Blocks to fetch for a list of `order` that ran empty. */
  const nrToRefill = (pcp: PhysAddr, zone: number, order: number, stock: number): number => {
    const baseBatch = zones.field(zone, Z_PCP_BATCH);
    const highMin = zones.field(zone, Z_PCP_HIGH_MIN);
    const highMax = zones.field(zone, Z_PCP_HIGH_MAX);
    let high = clamp(port.ld32(pcp + P_HIGH), highMin, highMax);
    const takenBack = nrTakenBack(pcp);
    const factor = factorNow(pcp, takenBack);
    let batch = order > 0 ? baseBatch : baseBatch << factor;
    if (highMin !== highMax && !zoneIsShort(zone)) high = Math.min(high + batch, highMax);
    port.st32(pcp + P_HIGH, high);
    if (order === 0) {
      const most = Math.max(high - stock - baseBatch, baseBatch);
      const grows = batch <= most && factor < PCP_BATCH_SCALE_MAX;
      port.st32(pcp + P_ALLOC_FACTOR, grows ? factor + 1 : factor);
      port.stF64(pcp + P_TAKEN_BACK_THEN, takenBack);
      batch = Math.min(batch, most);
    }
    return batch > 1 ? Math.max(batch >>> order, 2) : batch;
  };

  /** Fetches up to `nr` blocks under one zone lock; how many came. */
  const fetch = (ctx: Context, zone: number, order: number, type: Migratetype, flags: number, nr: number): number => {
    const head = places.firstHead(ctx.cpu, zone) + pcpListIndex(order, type);
    const frameAllocator = frames[zone] as FrameAllocator;
    const irq = spinLockIrqsave(ctx, lockOf(zone));
    let got = 0;
    for (; got < nr; got++) {
      const pfn = frameAllocator.allocBlock(order, type, flags);
      if (pfn === NO_PFN) break;
      pages.setFlags(pfn, (pages.flags(pfn) & ~PG_STATE) | PG_PCP);
      lists.addTail(head, pfn);
    }
    spinUnlockIrqrestore(ctx, lockOf(zone), irq);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_PCP_MOVE * got;
    vmstat.countEvents(ctx, PCP_REFILL, 1);
    zones.tellBoost(ctx, zone);
    return got;
  };

  /** The stock above which a free spills, after moving it with the traffic. */
  const highForFree = (pcp: PhysAddr, zone: number, batch: number, word: number): number => {
    const highMin = zones.field(zone, Z_PCP_HIGH_MIN);
    const highMax = zones.field(zone, Z_PCP_HIGH_MAX);
    const freeCount = word >>> FREE_COUNT_SHIFT;
    const stock = word & STOCK_MASK;
    let high = clamp(port.ld32(pcp + P_HIGH), highMin, highMax);
    if (highMin !== highMax) {
      if (zoneIsShort(zone)) high = Math.max(high - Math.max(freeCount, batch), highMin);
      else if (stock >= high) high = clamp(stock + freeCount, highMin, highMax);
    }
    port.st32(pcp + P_HIGH, high);
    return high;
  };

  /** Gives back blocks of `wanted` pages or a little more from the tails, round robin over the lists of `cpu`. */
  const giveBack = (ctx: Context, cpu: number, zone: number, wanted: number): number => {
    const firstHead = places.firstHead(cpu, zone);
    const frameAllocator = frames[zone] as FrameAllocator;
    const irq = spinLockIrqsave(ctx, lockOf(zone));
    let moved = 0;
    let index = 0;
    let nrEmpty = 0;
    while (moved < wanted) {
      const head = firstHead + index;
      const row = lists.last(head);
      if (++nrEmpty > NR_PCP_LISTS) bug("PCP-1: the lists are empty, the stock is not", cpu, zone);
      if (row !== head) {
        nrEmpty = 0;
        const order = orderOfPcpList(index);
        lists.remove(row);
        const failed = frameAllocator.freeBlock(asPfn(row), order);
        if (failed !== 0) bug("PCP-2: the buddy refuses a block from a per-CPU list", row, order);
        moved += 1 << order;
        clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_PCP_MOVE;
      }
      index = index + 1 === NR_PCP_LISTS ? 0 : index + 1;
    }
    spinUnlockIrqrestore(ctx, lockOf(zone), irq);
    return moved;
  };

  return {
    refill(ctx, zone, order, type, allocFlags, word) {
      const nr = nrToRefill(places.of(ctx.cpu, zone), zone, order, word & STOCK_MASK);
      return word + (fetch(ctx, zone, order, type, allocFlags, nr) << order);
    },
    spill(ctx, zone, word) {
      const batch = zones.field(zone, Z_PCP_BATCH);
      const high = highForFree(places.of(ctx.cpu, zone), zone, batch, word);
      const stock = word & STOCK_MASK;
      if (stock < high) return word;
      const nr = clamp(word >>> FREE_COUNT_SHIFT, batch, Math.max(high - batch, batch));
      const moved = giveBack(ctx, ctx.cpu, zone, Math.min(nr, stock));
      vmstat.countEvents(ctx, PCP_SPILL, 1);
      return word - moved;
    },
    drain(ctx, cpu, zone, word) {
      const batch = Math.max(zones.field(zone, Z_PCP_BATCH), 1);
      let moved = 0;
      for (const stock = word & STOCK_MASK; moved < stock; deps.interruptPoint(ctx)) {
        moved += giveBack(ctx, cpu, zone, Math.min(batch, stock - moved));
      }
      return moved;
    },
  };
}
