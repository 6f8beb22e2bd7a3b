/**
 * Reclaim and swap put together, in two steps: what page tables need comes before them, the rest after.
 *
 *   composeSwap ─▶ swap layer ─▶ createProcessMemory ─▶ rmap ─▶ bind ─▶ write-back, page cache of disks, vmscan,
 *                                                                       kswapd, direct reclaim, the swap area
 */

import type { Machine } from "../kernel/arch/machine.ts";
import type { Kthreads } from "../kernel/kthread.ts";
import type { Printk } from "../kernel/printk.ts";
import type { Scheduler } from "../kernel/sched.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { asPhys, type Context, type PhysAddr } from "../kernel/types.ts";
import type { WaitQueues } from "../kernel/wait.ts";
import { createDiskCache, type DiskCache } from "./disk_cache.ts";
import { __GFP_RETRY_MAYFAIL, GFP_HIGHUSER_MOVABLE, gfpWith } from "./gfp.ts";
import { LRU_UNEVICTABLE, type Lru, pairsOfLists } from "./lru.ts";
import { MAX_NR_ZONES, WMARK_LOW, type Zones } from "./mmzone.ts";
import type { Pages } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import type { PageRefs } from "./page_ref.ts";
import { createPageout } from "./pageout.ts";
import type { PageTables } from "./pgtable.ts";
import type { ProcessMemory } from "./process_memory.ts";
import { createReclaim, RECLAIM_BYTES, type Reclaim } from "./reclaim.ts";
import { createMultiGen, createTwoLists, type ReclaimPolicy } from "./reclaim_policy.ts";
import { createShrinkers, type Shrinker, type Shrinkers } from "./shrinker.ts";
import { createSwap, type Swap } from "./swap.ts";
import { createSwapArea, type SwapArea } from "./swap_area.ts";
import type { SwapLayer } from "./swap_entry.ts";
import { createSwapSpace, SWAP_SPACE_BYTES } from "./swap_space.ts";
import { createVmscan, VMSCAN_BYTES, type Vmscan } from "./vmscan.ts";
import type { VmStat } from "./vmstat.ts";
import { createWorkingSet, WORKINGSET_BYTES } from "./workingset.ts";
import { createWriteback, WRITEBACK_BYTES, type Writeback } from "./writeback.ts";

/** For swapoff: whom it would have to kill for does not die. */
const UNUSE_GFP = gfpWith(GFP_HIGHUSER_MOVABLE, __GFP_RETRY_MAYFAIL);
const SLOTS_AT = 0;
const VMSCAN_AT = SLOTS_AT + SWAP_SPACE_BYTES;
const RECLAIM_AT = VMSCAN_AT + VMSCAN_BYTES;
const WORKINGSET_AT = RECLAIM_AT + RECLAIM_BYTES;
const WRITEBACK_AT = WORKINGSET_AT + WORKINGSET_BYTES;
/** Zeroed static memory, on 8 bytes. */
export const RECLAIM_STATIC_BYTES = WRITEBACK_AT + WRITEBACK_BYTES;
/** Pages above the low marks that must be free before anything is read ahead. */
const SPARE_PAGES = 8;

export interface ReclaimParts {
  readonly machine: Machine;
  readonly printk: Printk;
  readonly spinlocks: Spinlocks;
  readonly pages: Pages;
  readonly zones: Zones;
  readonly pageAlloc: PageAllocator;
  readonly refs: PageRefs;
  readonly lru: Lru;
  readonly vmstat: VmStat;
  readonly statics: PhysAddr;
  readonly interruptPoint: (ctx: Context) => void;
}

export interface ReclaimServices {
  readonly processMemory: ProcessMemory;
  readonly pageTables: PageTables;
  readonly waits: WaitQueues;
  readonly scheduler: Scheduler;
  readonly kthreads: Kthreads;
  readonly canCompact: (order: number, highest: number) => boolean;
  readonly wakeCompactor: (ctx: Context, highest: number) => void;
}

export interface ReclaimSubsystem {
  readonly writeback: Writeback;
  readonly diskCache: DiskCache;
  readonly reclaim: Reclaim;
  readonly vmscan: Vmscan;
  readonly area: SwapArea;
  readonly shrinkers: Shrinkers;
  readonly policy: ReclaimPolicy;
  /** Page-table entries that stand for a swap slot. */
  swapNames(slot: number): number;
  /** Invariants of lists, slots and cache: a sentence, or null. */
  check(): string | null;
}

export interface SwapParts {
  /** What page tables call. */
  readonly layer: SwapLayer;
  bind(services: ReclaimServices): ReclaimSubsystem;
}

/** Shadows of evicted pages cost nodes of trees: there are to be no more of them than pages that could be evicted. */
const shadowShrinker = (lru: Lru, diskCache: DiskCache): Shrinker => ({
  name: "shadow entries",
  count() {
    let nrPages = 0;
    for (let list = 0; list < LRU_UNEVICTABLE; list++) nrPages += lru.total(list);
    return Math.max(0, diskCache.nrShadows() - nrPages);
  },
  scan(ctx, nr) {
    diskCache.dropShadows(ctx, nr);
    return 0;
  },
});

export function composeSwap(parts: ReclaimParts): SwapParts {
  const { machine, pages, lru, vmstat, statics } = parts;
  const { port } = machine;
  const slots = createSwapSpace({ ...parts, port, state: asPhys(statics + SLOTS_AT) });
  const hasSwap = (): boolean => swap.hasDevice();
  const workingSet = createWorkingSet(port, pages, lru, vmstat, asPhys(statics + WORKINGSET_AT), hasSwap);
  const swap: Swap = createSwap({ ...parts, port, slots, workingSet });

  const bind = (services: ReclaimServices): ReclaimSubsystem => {
    const { processMemory, scheduler } = services;
    const { rmap, tlb, files, dirty, lazyFree } = processMemory;
    const { harts } = machine;
    swap.connect({ rmap, pageTables: services.pageTables });
    const shrinkers = createShrinkers(vmstat);
    const createPolicy = lru.order === pairsOfLists ? createTwoLists : createMultiGen;
    const policy = createPolicy({ ...parts, rmap });
    const cached = { ...parts, ...services, rmap, tlb, files, dirty, lazyFree, swap, workingSet, policy };
    const writeback = createWriteback({ ...cached, state: asPhys(statics + WRITEBACK_AT) });
    const hasSpare = (): boolean => {
      let low = SPARE_PAGES;
      for (let zone = 0; zone < MAX_NR_ZONES; zone++) low += parts.zones.wmark(zone, WMARK_LOW);
      return parts.zones.totalFree() > low;
    };
    const diskCache = createDiskCache({ ...cached, writeback, hasSpare });
    shrinkers.register(shadowShrinker(lru, diskCache));
    const pageout = createPageout({ ...cached, writeback });
    const vmscan = createVmscan({ ...cached, port, pageout, state: asPhys(statics + VMSCAN_AT) });
    const reclaim = createReclaim({
      ...parts,
      ...services,
      port,
      vmscan,
      shrinkers,
      taskOf: (ctx) => scheduler.current(ctx.cpu),
      drainAllPages: parts.pageAlloc.drainAllPages,
      state: asPhys(statics + RECLAIM_AT),
    });
    const area = createSwapArea({
      ...parts,
      scheduler,
      port,
      now: () => harts.clock[harts.current[0] as number] as number,
      slots,
      swap,
      bringAllIn: (task, isWanted) => processMemory.bringAllIn(task.ctx, isWanted),
      makeRoom: (task) => reclaim.makeRoom(task.ctx, 0, UNUSE_GFP),
      startKswapd: reclaim.startKswapd,
    });
    const swapNames = slots.names;
    const check = (): string | null => lru.check() ?? slots.check();
    return { writeback, diskCache, reclaim, vmscan, area, shrinkers, policy, swapNames, check };
  };
  return { layer: swap.layer, bind };
}
