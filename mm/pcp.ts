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
 *    lock per batch instead of one per page. How large the batches are, and where `high` is: pcp_batch.ts.
 *
 * 2. A CPU's lists of a zone are guarded by one word that is only ever *tried*: a conditional exchange puts the CPU's
 *    number where the stock was (pcp_layout.ts). An interrupt that finds its own CPU at work goes to the buddy
 *    instead, as does a CPU that finds another one draining. So nobody waits, and interrupts stay on.
 *
 *    Between the two stores of that word nothing can sleep or move the task to another CPU, as kernel code gives up
 *    its CPU where it sleeps and nowhere else. Linux, whose kernel code can be preempted anywhere, has to switch
 *    preemption off there (pcp_trylock_prepare).
 *
 * 3. What is served and taken back here is counted here, per order, under that word. The events of /proc/vmstat
 *    (PGALLOC, PGFREE, NUMA_HIT) are sums that are made when somebody reads them.
 *
 * 4. Pages on these lists are not free to the rest of the machine: they are not in NR_FREE_PAGES (W9) and do not merge.
 *    Before memory is declared exhausted, and before a large block is refused, all lists are drained.
 *
 *   PCP-1  stock = Σ over lists of blocks · 2^order, for every CPU and zone
 *   PCP-2  a block on list (type, order) has PG_PCP and that order, and belongs to the zone
 *   PCP-3  a free that finds stock ≥ high gives at least a batch back (a refill may go above high by itself)
 *   PCP-4  draining leaves stock = 0 and loses nothing
 *   PCP-5  outside an operation nobody holds the lists: nobody would wait for them, so nobody would notice
 *
 * Source: mm/page_alloc.c (rmqueue_pcplist, free_unref_page). Rules W7-W9. Linux also keeps an expiry for remote zones
 * (NUMA); there is one node here.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { CACHE_LINE } from "../kernel/params.ts";
import type { PerCpu } from "../kernel/percpu.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { asCpu, asPfn, asPhys, type Context, type PhysAddr } from "../kernel/types.ts";
import type { FrameAllocator } from "./frame_allocator.ts";
import { MAX_NR_ZONES, Z_PCP_BATCH, type Zones } from "./mmzone.ts";
import { orderOfFlags, type Pages, PG_PCP, PG_STATE, zoneOfFlags } from "./page.ts";
import type { PageLists } from "./page_list.ts";
import { createPcpBatches } from "./pcp_batch.ts";
import { createPcpHits, type PcpHits } from "./pcp_hit.ts";
import {
  NR_PCP_LISTS,
  orderOfPcpList,
  P_COUNTERS_SHIFT,
  P_HIGH,
  P_SERVED,
  P_STATE,
  P_TAKEN_BACK,
  PCP_BYTES,
  PCP_HELD,
  type PcpPlaces,
  pcpHeads,
  STOCK_MASK,
} from "./pcp_layout.ts";
import { NUMA_HIT, PCP_BUSY, PGALLOC_DMA, PGFREE, type VmStat } from "./vmstat.ts";

export interface PcpInfo {
  /** Pages in stock; 0 while another CPU is at work there. */
  readonly count: number;
  readonly high: number;
  readonly batch: number;
}

export interface PerCpuPages {
  /**
   * A block from this CPU's list, refilled if need be, with the flags of an allocated one; NO_PFN if the zone has none
   * or the lists are busy. The caller has looked at pcpAllowedOrder.
   */
  alloc: PcpHits["alloc"];
  /** Puts a block on this CPU's list; false, and nothing happens, if the lists are busy. */
  free: PcpHits["free"];
  /** Gives every block of one CPU's lists back to the buddies; returns the number of pages. */
  drainCpu(ctx: Context, cpu: number): number;
  info(cpu: number, zone: number): PcpInfo;
  /** The word that holds the lists: PCP_HELD + CPU while that CPU is at work. */
  lockAddr(cpu: number, zone: number): PhysAddr;
  /** PCP-1, PCP-2, PCP-5: the first violation, or null. */
  check(): string | null;
}

export interface PcpDeps {
  readonly machine: Machine;
  readonly percpu: PerCpu;
  readonly spinlocks: Spinlocks;
  readonly vmstat: VmStat;
  readonly interruptPoint: (ctx: Context) => void;
}

/** Defines the per-CPU variables; the lists themselves come with `bind` once there is a memmap. */
export function createPcp(
  deps: PcpDeps,
): (pages: Pages, lists: PageLists, zones: Zones, frames: readonly FrameAllocator[], firstHead: number) => PerCpuPages {
  const PCP = deps.percpu.define("pcp", MAX_NR_ZONES * PCP_BYTES, CACHE_LINE);
  return (pages, lists, zones, frames, firstHead) => bindPcp(deps, PCP, pages, lists, zones, frames, firstHead);
}

function bindPcp(
  { machine, percpu, spinlocks, vmstat, interruptPoint }: PcpDeps,
  PCP: number,
  pages: Pages,
  lists: PageLists,
  zones: Zones,
  frames: readonly FrameAllocator[],
  firstHead: number,
): PerCpuPages {
  const { port, harts } = machine;
  const { clock } = harts;
  const places: PcpPlaces = {
    of: (cpu, zone) => asPhys(percpu.areaOf(cpu) + PCP + zone * PCP_BYTES),
    firstHead: (cpu, zone) => firstHead + (cpu * MAX_NR_ZONES + zone) * NR_PCP_LISTS,
  };
  const batches = createPcpBatches({ machine, spinlocks, vmstat, pages, lists, zones, frames, places, interruptPoint });

  for (let head = firstHead; head < firstHead + pcpHeads(harts.nrCpus); head++) lists.init(head);

  const { alloc, free } = createPcpHits(
    port,
    clock,
    pages.rowWord(0),
    pages.rowMask,
    places.of(0, 0),
    percpu.unitBytes(),
    firstHead,
    zones.addr(0) >>> 2,
    batches.refill,
    batches.spill,
    vmstat.countEvents,
  );

  // ── Readers ──────────────────────────────────────────────────────────────────────────────────────────────────────

  const drainCpu = (ctx: Context, cpu: number): number => {
    let nrPages = 0;
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
      const pcp = places.of(cpu, zone);
      const word = port.ld32(pcp + P_STATE);
      if (word < PCP_HELD && (word & STOCK_MASK) === 0) continue;
      if (word >= PCP_HELD || port.cas(pcp, word, PCP_HELD + ctx.cpu) !== word) {
        vmstat.countEvents(ctx, PCP_BUSY, 1);
        continue;
      }
      const moved = batches.drain(ctx, cpu, zone, word);
      port.stAtomic(pcp, word - moved);
      nrPages += moved;
    }
    return nrPages;
  };

  /** Σ of one kind of counter over all CPUs, each block times `weigh` of its order. */
  const sumOf = (zone: number, counter: number, weigh: (order: number) => number): number => {
    let sum = 0;
    for (let cpu = 0; cpu < harts.nrCpus; cpu++) {
      for (let list = 0; list < NR_PCP_LISTS; list++) {
        sum += port.ldF64(places.of(cpu, zone) + counter + (list << P_COUNTERS_SHIFT)) * weigh(orderOfPcpList(list));
      }
    }
    return sum;
  };
  const inPages = (order: number): number => 2 ** order;
  const overZones = (sumOfZone: (zone: number) => number): number => {
    let sum = 0;
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) sum += sumOfZone(zone);
    return sum;
  };
  vmstat.onRead((event) => {
    if (event === PGFREE) return overZones((zone) => sumOf(zone, P_TAKEN_BACK, inPages));
    if (event === NUMA_HIT) return overZones((zone) => sumOf(zone, P_SERVED, () => 1));
    const zone = event - PGALLOC_DMA;
    return zone >= 0 && zone < MAX_NR_ZONES ? sumOf(zone, P_SERVED, inPages) : 0;
  });

  const checkList = (cpu: number, zone: number, index: number): string | number => {
    const head = places.firstHead(cpu, zone) + index;
    const length = lists.count(head);
    if (length < 0) return `PCP-1: list ${index} of CPU ${cpu} zone ${zone} has broken links`;
    for (let row = lists.first(head); row !== head; row = lists.next(row)) {
      const flags = pages.flags(asPfn(row));
      const isRight = (flags & PG_STATE) === PG_PCP && orderOfFlags(flags) === orderOfPcpList(index);
      if (!isRight || zoneOfFlags(flags) !== zone) return `PCP-2: frame ${row} has flags 0x${flags.toString(16)}`;
    }
    return length << orderOfPcpList(index);
  };

  const checkZone = (cpu: number, zone: number): string | null => {
    const word = port.ld32(places.of(asCpu(cpu), zone) + P_STATE);
    if (word >= PCP_HELD) return `PCP-5: the lists of CPU ${cpu} zone ${zone} are held by CPU ${word - PCP_HELD}`;
    let sum = 0;
    for (let index = 0; index < NR_PCP_LISTS; index++) {
      const result = checkList(cpu, zone, index);
      if (typeof result === "string") return result;
      sum += result;
    }
    const stock = word & STOCK_MASK;
    return sum === stock ? null : `PCP-1: CPU ${cpu} zone ${zone} holds ${sum} pages, its stock says ${stock}`;
  };

  return {
    alloc,
    free,
    drainCpu,
    info(cpu, zone) {
      const word = port.ld32(places.of(cpu, zone) + P_STATE);
      const count = word >= PCP_HELD ? 0 : word & STOCK_MASK;
      return { count, high: port.ld32(places.of(cpu, zone) + P_HIGH), batch: zones.field(zone, Z_PCP_BATCH) };
    },
    lockAddr: (cpu, zone) => asPhys(places.of(cpu, zone) + P_STATE),
    check() {
      for (let cpu = 0; cpu < harts.nrCpus; cpu++) {
        for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
          const problem = checkZone(cpu, zone);
          if (problem !== null) return problem;
        }
      }
      return null;
    },
  };
}
