/**
 * Per-CPU page lists: a small stock of free blocks for each CPU, so that most allocations take no shared lock.
 *
 *      CPU 0                CPU 1                 order 0  order 1  order 2  order 3   (×3 migrate types)  + order 9
 *      pcp per zone         pcp per zone          one list each
 *          │ batch              │ batch
 *          └──────── buddy of the zone (zone lock) ────────┘
 *
 * 1. A block is taken from, and returned to, the head of its list (the page freed last is warm in the cache). An empty
 *    list is refilled with a batch from the buddy; a stock above `high` gives a batch back, from the tails. One zone
 *    lock per batch instead of one per page.
 *
 * 2. The sizes adapt (W8): refills double while a CPU only allocates; a CPU that only frees spills more at a time; a
 *    free halves the refill again. `high` moves between high_min and high_max with the traffic, and back to high_min
 *    when the zone is short of memory (below its high mark).
 *
 * 3. The lists are guarded by a lock that is only ever *tried*, with preemption off: an interrupt that finds its own
 *    CPU in the middle of a list operation goes to the buddy instead. So interrupts stay on here.
 *
 * 4. Pages on these lists are not free to the rest of the machine: they are not in NR_FREE_PAGES (W9) and do not merge.
 *    Before memory is declared exhausted, and before a large block is refused, all lists are drained.
 *
 *   PCP-1  count = Σ over lists of blocks · 2^order, for every CPU and zone
 *   PCP-2  a block on list (type, order) has PG_PCP and that order, and belongs to the zone
 *   PCP-3  a free that finds count ≥ high gives at least a batch back (a refill may go above high by itself)
 *   PCP-4  draining leaves count = 0 and loses nothing
 *   PCP-5  outside an operation the lists' lock is free: nobody would wait for it, so nobody would notice
 *
 * struct per_cpu_pages, one cache line per zone in the per-CPU area: lock, count, high, alloc_factor, free_count.
 *
 * Source: mm/page_alloc.c (nr_pcp_alloc, nr_pcp_free, nr_pcp_high, free_pcppages_bulk). Rules W7-W9. Linux also keeps
 * an expiry for remote zones (NUMA); there is one node here.
 */

import { CYC_PCP_HIT, CYC_PCP_MOVE } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { bug } from "../kernel/bug.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { clamp } from "../kernel/lib/bits.ts";
import { CACHE_LINE, CACHE_LINE_SHIFT } from "../kernel/params.ts";
import type { PerCpu } from "../kernel/percpu.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { asCpu, asPfn, asPhys, type Context, NO_PFN, type Pfn, type PhysAddr } from "../kernel/types.ts";
import type { FrameAllocator } from "./frame_allocator.ts";
import { MIGRATE_MOVABLE, MIGRATE_PCPTYPES, type Migratetype } from "./migratetype.ts";
import {
  MAX_NR_ZONES,
  PAGEBLOCK_ORDER,
  WMARK_HIGH,
  Z_LOCK,
  Z_NR_FREE,
  Z_PCP_BATCH,
  Z_PCP_HIGH_MAX,
  Z_PCP_HIGH_MIN,
  ZONE_BYTES_SHIFT,
  type Zones,
} from "./mmzone.ts";
import {
  ORDER_SHIFT,
  orderOfFlags,
  type Pages,
  PG_ALLOCATED,
  PG_PCP,
  PG_STATE,
  ZONE_MASK,
  zoneOfFlags,
} from "./page.ts";
import type { PageLists } from "./page_list.ts";
import { PCP_BUSY, PCP_REFILL, PCP_SPILL, type VmStat } from "./vmstat.ts";

/** Orders above this one go to the buddy directly, except the huge-page order. */
const PAGE_ALLOC_COSTLY_ORDER = 3;
/** W7: 3 types × orders 0-3, and two lists for order 9 (movable, others). */
export const NR_PCP_LISTS = 14;
const FIRST_HUGE_LIST = 12;
const PCP_BATCH_SCALE_MAX = 5;

const P_LOCK = 0;
const P_COUNT = 4;
const P_HIGH = 8;
const P_ALLOC_FACTOR = 12;
const P_FREE_COUNT = 16;

/** Copies for the fast paths: why, see slab_objects.ts. */
const TYPES = MIGRATE_PCPTYPES;
const MOVABLE = MIGRATE_MOVABLE;
const HUGE_ORDER = PAGEBLOCK_ORDER;
const ZONES = MAX_NR_ZONES;
const LISTS = NR_PCP_LISTS;
const LINE_SHIFT = CACHE_LINE_SHIFT;
const ORDER_AT = ORDER_SHIFT;
const OF_ZONE = ZONE_MASK;
const OUT = PG_ALLOCATED;
const ON_LIST = PG_PCP;
const OF_STATE = PG_STATE;
const BATCH = Z_PCP_BATCH;
const STRUCT_SHIFT = ZONE_BYTES_SHIFT;
const HIT_CYCLES = CYC_PCP_HIT;
const MOVE_CYCLES = CYC_PCP_MOVE;
const NONE = NO_PFN;
const toPfn = asPfn;
const toPhys = asPhys;

export interface PcpInfo {
  readonly count: number;
  readonly high: number;
  readonly batch: number;
}

export interface PerCpuPages {
  /** A block from this CPU's list, refilled if need be; NO_PFN if the zone has none or the lists are busy. */
  alloc(ctx: Context, zone: number, order: number, migratetype: Migratetype, allocFlags: number): Pfn;
  /** Puts a block on this CPU's list; false if the lists are busy (the caller frees to the buddy). */
  free(ctx: Context, zone: number, pfn: Pfn, order: number, migratetype: Migratetype): boolean;
  /** Gives every block of one CPU's lists back to the buddies; returns the number of pages. */
  drainCpu(ctx: Context, cpu: number): number;
  info(cpu: number, zone: number): PcpInfo;
  /** The lists' lock word. */
  lockAddr(cpu: number, zone: number): PhysAddr;
  /** PCP-1, PCP-2: the first violation, or null. */
  check(): string | null;
}

/** True if blocks of this order are kept per CPU. */
export const pcpAllowedOrder = (order: number): boolean => order <= PAGE_ALLOC_COSTLY_ORDER || order === HUGE_ORDER;

const listIndex = (order: number, migratetype: number): number =>
  order === HUGE_ORDER ? FIRST_HUGE_LIST + (migratetype === MOVABLE ? 1 : 0) : Math.imul(TYPES, order) + migratetype;

/** log2 of pages of the blocks on list `index`. */
const orderOfList = (index: number): number => (index >= FIRST_HUGE_LIST ? HUGE_ORDER : Math.floor(index / TYPES));

/** List-head rows that the lists of `nrCpus` CPUs take. */
export const pcpHeads = (nrCpus: number): number => nrCpus * MAX_NR_ZONES * NR_PCP_LISTS;

export interface PcpDeps {
  readonly machine: Machine;
  readonly percpu: PerCpu;
  readonly contexts: ContextTracking;
  readonly spinlocks: Spinlocks;
  readonly vmstat: VmStat;
}

/** Defines the per-CPU variables; the lists themselves come with `bind` once there is a memmap. */
export function createPcp(
  deps: PcpDeps,
): (pages: Pages, lists: PageLists, zones: Zones, frames: readonly FrameAllocator[], firstHead: number) => PerCpuPages {
  const PCP = deps.percpu.define("pcp", MAX_NR_ZONES * CACHE_LINE, CACHE_LINE);
  return (pages, lists, zones, frames, firstHead) => bindPcp(deps, PCP, pages, lists, zones, frames, firstHead);
}

function bindPcp(
  { machine, percpu, contexts, spinlocks, vmstat }: PcpDeps,
  PCP: number,
  pages: Pages,
  lists: PageLists,
  zones: Zones,
  frames: readonly FrameAllocator[],
  firstHead: number,
): PerCpuPages {
  const { port, harts } = machine;
  const { clock } = harts;
  const { flagsBase, nextBase, prevBase } = pages;
  const zonesBase = zones.addr(0);
  const { preemptDisable, preemptEnable } = contexts;
  const { spinLockIrqsave, spinUnlockIrqrestore } = spinlocks;

  const pcpOf = (ctx: Context, zone: number): PhysAddr => toPhys((ctx.area + PCP + (zone << LINE_SHIFT)) >>> 0);
  const headOf = (cpu: number, zone: number, index: number): number =>
    (firstHead + Math.imul(Math.imul(cpu, ZONES) + zone, LISTS) + index) >>> 0;

  for (let head = firstHead; head < firstHead + pcpHeads(harts.nrCpus); head++) lists.init(head);

  /** Takes the lists' lock if it is free. Interrupts may stay on: they find it taken and go elsewhere. */
  const tryLock = (ctx: Context, pcp: PhysAddr): boolean => {
    preemptDisable(ctx);
    if (port.ld32(pcp + P_LOCK) === 0 && port.cas(pcp + P_LOCK, 0, ctx.cpu + 1) === 0) return true;
    preemptEnable(ctx);
    vmstat.countEvents(ctx, PCP_BUSY, 1);
    return false;
  };
  const unlock = (ctx: Context, pcp: PhysAddr): void => {
    port.stAtomic(pcp + P_LOCK, 0);
    preemptEnable(ctx);
  };

  const addCount = (pcp: PhysAddr, nrPages: number): void => {
    port.st32(pcp + P_COUNT, port.ld32(pcp + P_COUNT) + nrPages);
  };

  // ── W8: how much to move ─────────────────────────────────────────────────────────────────────────────────────────

  const zoneIsShort = (zone: number): boolean => zones.field(zone, Z_NR_FREE) <= zones.wmark(zone, WMARK_HIGH);

  /** Blocks to fetch for a list of `order` that ran empty. */
  const nrToRefill = (pcp: PhysAddr, zone: number, order: number): number => {
    const baseBatch = zones.field(zone, Z_PCP_BATCH);
    const highMin = zones.field(zone, Z_PCP_HIGH_MIN);
    const highMax = zones.field(zone, Z_PCP_HIGH_MAX);
    let high = clamp(port.ld32(pcp + P_HIGH), highMin, highMax);
    const factor = port.ld32(pcp + P_ALLOC_FACTOR);
    let batch = order > 0 ? baseBatch : baseBatch << factor;
    if (highMin !== highMax && !zoneIsShort(zone)) high = Math.min(high + batch, highMax);
    port.st32(pcp + P_HIGH, high);
    if (order === 0) {
      const most = Math.max(high - port.ld32(pcp + P_COUNT) - baseBatch, baseBatch);
      if (batch <= most && factor < PCP_BATCH_SCALE_MAX) port.st32(pcp + P_ALLOC_FACTOR, factor + 1);
      batch = Math.min(batch, most);
    }
    return batch > 1 ? Math.max(batch >>> order, 2) : batch;
  };

  /** The stock above which a free spills, after moving it with the traffic. */
  const highForFree = (pcp: PhysAddr, zone: number, batch: number): number => {
    const highMin = zones.field(zone, Z_PCP_HIGH_MIN);
    const highMax = zones.field(zone, Z_PCP_HIGH_MAX);
    let high = clamp(port.ld32(pcp + P_HIGH), highMin, highMax);
    const freeCount = port.ld32(pcp + P_FREE_COUNT);
    if (highMin !== highMax) {
      if (zoneIsShort(zone)) high = Math.max(high - Math.max(freeCount, batch), highMin);
      else if (port.ld32(pcp + P_COUNT) >= high) high = clamp(port.ld32(pcp + P_COUNT) + freeCount, highMin, highMax);
    }
    port.st32(pcp + P_HIGH, high);
    return high;
  };

  // ── Moving blocks between lists and buddy ────────────────────────────────────────────────────────────────────────

  /** Fetches up to `nr` blocks under one zone lock. */
  const refill = (ctx: Context, zone: number, order: number, type: Migratetype, flags: number, nr: number): number => {
    const pcp = pcpOf(ctx, zone);
    const head = headOf(ctx.cpu, zone, listIndex(order, type));
    const zoneLock = asPhys(zones.addr(zone) + Z_LOCK);
    const frameAllocator = frames[zone] as FrameAllocator;
    const irq = spinLockIrqsave(ctx, zoneLock);
    let got = 0;
    while (got < nr) {
      const pfn = frameAllocator.allocBlock(order, type, flags);
      if (pfn === NONE) break;
      const addr = flagsBase + pfn * 4;
      port.st32(addr, (port.ld32(addr) & ~OF_STATE) | ON_LIST);
      lists.addTail(head, pfn);
      got++;
    }
    spinUnlockIrqrestore(ctx, zoneLock, irq);
    addCount(pcp, got << order);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + MOVE_CYCLES * got;
    vmstat.countEvents(ctx, PCP_REFILL, 1);
    return got;
  };

  /** Gives back blocks of about `nrPages` pages from the tails, round robin over the lists. `cpu` owns the lists. */
  const spill = (ctx: Context, cpu: number, zone: number, nrPages: number): number => {
    const pcp = asPhys(percpu.areaOf(cpu) + PCP + zone * CACHE_LINE);
    const frameAllocator = frames[zone] as FrameAllocator;
    const zoneLock = asPhys(zones.addr(zone) + Z_LOCK);
    const wanted = Math.min(nrPages, port.ld32(pcp + P_COUNT));
    const irq = spinLockIrqsave(ctx, zoneLock);
    let moved = 0;
    let index = 0;
    let nrEmpty = 0;
    while (moved < wanted) {
      const head = headOf(cpu, zone, index);
      const row = lists.last(head);
      if (++nrEmpty > LISTS) bug("PCP-1: the lists are empty, the count is not", cpu, zone);
      if (row !== head) {
        nrEmpty = 0;
        const order = orderOfList(index);
        lists.remove(row);
        const failed = frameAllocator.freeBlock(toPfn(row), order);
        if (failed !== 0) bug("PCP-2: the buddy refuses a block from a per-CPU list", row, order);
        moved += 1 << order;
        clock[ctx.cpu] = (clock[ctx.cpu] as number) + MOVE_CYCLES;
      }
      index = index + 1 === LISTS ? 0 : index + 1;
    }
    spinUnlockIrqrestore(ctx, zoneLock, irq);
    addCount(pcp, -moved);
    return moved;
  };

  const spillAfterFree = (ctx: Context, zone: number, pcp: PhysAddr): void => {
    const batch = zones.field(zone, Z_PCP_BATCH);
    const high = highForFree(pcp, zone, batch);
    const count = port.ld32(pcp + P_COUNT);
    if (count < high) return;
    const nr = clamp(port.ld32(pcp + P_FREE_COUNT), batch, Math.max(high - batch, batch));
    spill(ctx, ctx.cpu, zone, nr);
    vmstat.countEvents(ctx, PCP_SPILL, 1);
  };

  // ── The two fast paths ───────────────────────────────────────────────────────────────────────────────────────────
  //
  // Written out: a port access is inlined whatever the size, but counts against what else may be (920 bytecodes), and a
  // call that is not inlined costs as much as ten accesses (2026, Node 20). The links are those of page_list.ts.

  // `>>> 0` and shifts instead of products: see slab_objects.ts.

  const alloc = (ctx: Context, zone: number, order: number, type: Migratetype, allocFlags: number): Pfn => {
    const pcp = pcpOf(ctx, zone);
    if (!tryLock(ctx, pcp)) return NONE;
    const freeCount = (pcp + P_FREE_COUNT) >>> 0;
    port.st32(freeCount, port.ld32(freeCount) >>> 1);
    const head = headOf(ctx.cpu, zone, listIndex(order, type));
    const headNext = (nextBase + (head << 2)) >>> 0;
    let pfn = port.ld32(headNext);
    if (pfn === head) {
      if (refill(ctx, zone, order, type, allocFlags, nrToRefill(pcp, zone, order)) === 0) {
        unlock(ctx, pcp);
        return NONE;
      }
      pfn = port.ld32(headNext);
    }
    // lists.remove() of a first row: its predecessor is the head.
    const next = port.ld32((nextBase + (pfn << 2)) >>> 0);
    port.st32(headNext, next);
    port.st32((prevBase + (next << 2)) >>> 0, head);
    const addr = (flagsBase + (pfn << 2)) >>> 0;
    // Zone, order and state in one store; the list type is of no use to an owner.
    port.st32(addr, (port.ld32(addr) & OF_ZONE) | (order << ORDER_AT) | OUT);
    const count = (pcp + P_COUNT) >>> 0;
    port.st32(count, (port.ld32(count) - (1 << order)) >>> 0);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + HIT_CYCLES;
    unlock(ctx, pcp);
    return toPfn(pfn);
  };

  const free = (ctx: Context, zone: number, pfn: Pfn, order: number, type: Migratetype): boolean => {
    const pcp = pcpOf(ctx, zone);
    if (!tryLock(ctx, pcp)) return false;
    const addr = (flagsBase + (pfn << 2)) >>> 0;
    port.st32(addr, (port.ld32(addr) & OF_ZONE) | (order << ORDER_AT) | ON_LIST);
    // lists.addHead()
    const head = headOf(ctx.cpu, zone, listIndex(order, type));
    const headNext = (nextBase + (head << 2)) >>> 0;
    const next = port.ld32(headNext);
    port.st32((nextBase + (pfn << 2)) >>> 0, next);
    port.st32((prevBase + (pfn << 2)) >>> 0, head);
    port.st32(headNext, pfn);
    port.st32((prevBase + (next << 2)) >>> 0, pfn);
    const count = (port.ld32((pcp + P_COUNT) >>> 0) + (1 << order)) >>> 0;
    port.st32((pcp + P_COUNT) >>> 0, count);
    const factor = (pcp + P_ALLOC_FACTOR) >>> 0;
    port.st32(factor, port.ld32(factor) >>> 1);
    const freeCount = port.ld32((pcp + P_FREE_COUNT) >>> 0);
    const batch = port.ld32((zonesBase + (zone << STRUCT_SHIFT) + BATCH) >>> 0);
    if (freeCount < batch << PCP_BATCH_SCALE_MAX) {
      port.st32((pcp + P_FREE_COUNT) >>> 0, (freeCount + (1 << order)) >>> 0);
    }
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + HIT_CYCLES;
    if (count >= port.ld32((pcp + P_HIGH) >>> 0)) spillAfterFree(ctx, zone, pcp);
    unlock(ctx, pcp);
    return true;
  };

  const drainCpu = (ctx: Context, cpu: number): number => {
    let nrPages = 0;
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
      const pcp = asPhys(percpu.areaOf(cpu) + PCP + zone * CACHE_LINE);
      if (port.ld32(pcp + P_COUNT) === 0 || !tryLock(ctx, pcp)) continue;
      nrPages += spill(ctx, cpu, zone, port.ld32(pcp + P_COUNT));
      unlock(ctx, pcp);
    }
    return nrPages;
  };

  const checkList = (cpu: number, zone: number, index: number): string | number => {
    const head = headOf(cpu, zone, index);
    const length = lists.count(head);
    if (length < 0) return `PCP-1: list ${index} of CPU ${cpu} zone ${zone} has broken links`;
    for (let row = lists.first(head); row !== head; row = lists.next(row)) {
      const flags = pages.flags(asPfn(row));
      const isRight = (flags & PG_STATE) === PG_PCP && orderOfFlags(flags) === orderOfList(index);
      if (!isRight || zoneOfFlags(flags) !== zone) return `PCP-2: frame ${row} has flags 0x${flags.toString(16)}`;
    }
    return length << orderOfList(index);
  };

  const check = (): string | null => {
    for (let cpu = 0; cpu < harts.nrCpus; cpu++) {
      for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
        let sum = 0;
        for (let index = 0; index < NR_PCP_LISTS; index++) {
          const result = checkList(cpu, zone, index);
          if (typeof result === "string") return result;
          sum += result;
        }
        const count = port.ld32(percpu.areaOf(asCpu(cpu)) + PCP + zone * CACHE_LINE + P_COUNT);
        const holder = port.ld32(percpu.areaOf(asCpu(cpu)) + PCP + zone * CACHE_LINE + P_LOCK);
        if (holder !== 0) return `PCP-5: the lists of CPU ${cpu} zone ${zone} are locked by CPU ${holder - 1}`;
        if (sum !== count) return `PCP-1: CPU ${cpu} zone ${zone} holds ${sum} pages, count says ${count}`;
      }
    }
    return null;
  };

  return {
    alloc,
    free,
    drainCpu,
    info(cpu, zone) {
      const pcp = percpu.areaOf(cpu) + PCP + zone * CACHE_LINE;
      const count = port.ld32(pcp + P_COUNT);
      return { count, high: port.ld32(pcp + P_HIGH), batch: zones.field(zone, Z_PCP_BATCH) };
    },
    lockAddr: (cpu, zone) => asPhys(percpu.areaOf(cpu) + PCP + zone * CACHE_LINE + P_LOCK),
    check,
  };
}
