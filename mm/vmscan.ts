/**
 * Page reclaim: making pages free by taking them away from those who have not used them lately.
 *
 *   free pages   ── high ──  kswapd sleeps again
 *                ── low  ──  kswapd is woken; who allocates goes on
 *                ── min  ──  who allocates reclaims itself: direct reclaim, then the OOM killer
 *
 * 1. *Which zone.* A request that may use zones up to Z is helped by a free page in any of these. Each round visits all
 *    of them.
 *
 * 2. *How many.* Rounds have a priority from DEF_PRIORITY = 12 down to 0: a round looks at 1/2^priority of each list,
 *    at least at SWAP_CLUSTER_MAX = 32 pages. So a little pressure looks at the oldest pages only, and when that does
 *    not help, ever deeper, until everything was looked at.
 *
 * 3. *Of which kind.* Anonymous pages cost a write and a read, pages of files perhaps only a read: vm.swappiness
 *    (0-200) says what the user thinks of that. A kind that has nowhere to go (no swap) is not looked at.
 *
 * 4. *Which page.* Oldest first, with a second chance (the policy, reclaim_policy.ts). Whether a page was used, only
 *    the A bits of the entries know; the reverse mapping finds them.
 *
 * 5. *How.* An anonymous page gets a slot, all its entries become swap entries, it is written if it is newer than its
 *    slot, then it is in nobody's hands but the cache's and ours, and is freed. Each step can fail; the page then
 *    stays, with its content, on a list. Pages are written in runs of neighbouring slots.
 *
 *    Lazily freed pages are on the lists of files and need neither slot nor write (lazyfree.ts).
 *
 *        isolate ─▶ used? ─▶ slot ─▶ unmap ─┬─ clean ─────────────▶ free
 *                     │                     └─ dirty ─▶ write run ─▶ free
 *                     └─▶ keep, activate           error: stays, dirty
 *
 * 6. kswapd sleeps while its runs are written. Direct reclaim waits in place, for it may come from a page fault.
 *
 *   RCL-1  reclaim never allocates: it takes nothing but what was set aside (slots, I/O lanes); so it cannot recurse
 *   RCL-2  a page is freed only when nobody but the swap cache and the reclaimer holds it, and the slot has its content
 *   RCL-3  a page that cannot be written stays in RAM, dirty, on a list; its processes do not notice
 *   RCL-4  what is isolated is put back or freed: outside of reclaim NR_ISOLATED is 0
 *   RCL-5  kswapd goes on until a zone of the request is above its high mark, or gives up after 16 rounds without a
 *          page
 *
 * Context: process; direct reclaim with interrupts on and no lock held. Linux: mm/vmscan.c (shrink_node, shrink_lruvec,
 * shrink_folio_list, balance_pgdat). Not here: memory cgroups, writeback congestion, per-node cost balancing.
 */

import { CYC_RECLAIM_PAGE } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { bugOn } from "../kernel/bug.ts";
import { KERN_ALERT, type Printk } from "../kernel/printk.ts";
import type { Task } from "../kernel/task.ts";
import { asPfn, type Context, type Pfn, type PhysAddr, type Sleeping, type TaskContext } from "../kernel/types.ts";
import { isLazyFree, type LazyFree } from "./lazyfree.ts";
import type { Lru } from "./lru.ts";
import { MAX_NR_ZONES, Z_LOWMEM_RESERVE, Z_MANAGED, Z_NR_FREE, type Zones } from "./mmzone.ts";
import { type Pages, PG_ACTIVE, PG_ANON, PG_DIRTY, PG_SWAPCACHE, PG_WRITEBACK } from "./page.ts";
import type { PageRefs } from "./page_ref.ts";
import { PAGE_KEEP, PAGE_RECLAIM, type ReclaimPolicy } from "./reclaim_policy.ts";
import type { Rmap } from "./rmap.ts";
import type { Swap } from "./swap.ts";
import { swapPteOf } from "./swap_entry.ts";
import { createTlbBatch, type Tlb, type TlbBatch } from "./tlb.ts";
import {
  NR_SWAPCACHE,
  NR_VMSCAN_WRITE,
  NR_WRITEBACK,
  PGLAZYFREED,
  PGSCAN_ANON,
  PGSCAN_DIRECT,
  PGSCAN_FILE,
  PGSCAN_KSWAPD,
  PGSTEAL_ANON,
  PGSTEAL_DIRECT,
  PGSTEAL_FILE,
  PGSTEAL_KSWAPD,
  PSWPOUT,
  type VmStat,
} from "./vmstat.ts";
import type { WorkingSet } from "./workingset.ts";

export const DEF_PRIORITY = 12;
export const SWAP_CLUSTER_MAX = 32;
const DEFAULT_SWAPPINESS = 60;
export const MAX_SWAPPINESS = 200;

/** Bytes of zeroed static memory: 0 swappiness. */
export const VMSCAN_BYTES = 16;
const SWAPPINESS = 0;

/** One round over the zones. */
export interface Scan {
  /** Zones up to this one. */
  readonly highest: number;
  readonly isKswapd: boolean;
  readonly priority: number;
}

/** Pages of a kind in a zone. */
interface List {
  readonly zone: number;
  readonly isFile: boolean;
}

/** The pages that one reclaimer has in hand: isolated ones, and those of them that must be written. */
export interface ReclaimBatch {
  readonly isolated: Int32Array;
  readonly dirty: Int32Array;
  nrDirty: number;
  /** Unmapped, and as in their slots: to be freed after the flush. */
  readonly clean: Int32Array;
  nrClean: number;
  readonly flushes: TlbBatch;
}
export const createBatch = (): ReclaimBatch => ({
  isolated: new Int32Array(SWAP_CLUSTER_MAX),
  dirty: new Int32Array(SWAP_CLUSTER_MAX),
  nrDirty: 0,
  clean: new Int32Array(SWAP_CLUSTER_MAX),
  nrClean: 0,
  flushes: createTlbBatch(),
});

export interface Vmscan {
  /** One round that waits in place; the number of pages freed. */
  shrinkInPlace(ctx: TaskContext, scan: Scan): number;
  /** One round of a thread, which sleeps while pages are written. */
  shrink(task: Task, scan: Scan): Sleeping<number>;
  /** Pages that a round could free at best, in zones up to `highest`. */
  nrReclaimable(highest: number): number;
  /** Is a zone up to `highest` above `mark`, counting the reserve against such requests? */
  isAbove(highest: number, mark: number): boolean;
  swappiness(): number;
  setSwappiness(value: number): void;
}

export interface VmscanDeps {
  readonly machine: Machine;
  readonly printk: Printk;
  readonly pages: Pages;
  readonly zones: Zones;
  readonly lru: Lru;
  readonly rmap: Rmap;
  readonly lazyFree: LazyFree;
  readonly tlb: Tlb;
  readonly refs: PageRefs;
  readonly swap: Swap;
  readonly vmstat: VmStat;
  readonly workingSet: WorkingSet;
  readonly policy: ReclaimPolicy;
  readonly state: PhysAddr;
  /** Between two pages: kernel/context.ts. */
  readonly interruptPoint: (ctx: Context) => void;
}

export function createVmscan(deps: VmscanDeps): Vmscan {
  const { machine, printk, pages, zones, lru, rmap, tlb, refs, swap, vmstat, workingSet, policy, state } = deps;
  const { interruptPoint, lazyFree } = deps;
  const { port, harts } = machine;
  const { clock } = harts;
  port.st32(state + SWAPPINESS, DEFAULT_SWAPPINESS);
  /** Pages that swap can take. Shared memory is on the anonymous lists too, but its page cache has it: it stays. */
  const SWAPPABLE = PG_ANON | PG_SWAPCACHE;

  // ── One page ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const putBack = (ctx: Context, pfn: Pfn): void => {
    policy.putBack(ctx, pfn);
    refs.putPage(ctx, pfn);
  };

  /** RCL-2: nobody but the cache and we hold it, and the slot has what it has. */
  const tryToFree = (ctx: Context, pfn: Pfn): boolean => {
    if (isLazyFree(pages.flags(pfn))) {
      bugOn(pages.refcount(pfn) !== 1, "LZF-1: a dropped page has holders", pfn, pages.refcount(pfn));
      lru.forget(ctx, pfn);
      refs.putPage(ctx, pfn);
      vmstat.countEvents(ctx, PGLAZYFREED, 1);
      return true;
    }
    const isReady = pages.refcount(pfn) === 2 && pages.mapcount(pfn) === 0 && (pages.flags(pfn) & PG_DIRTY) === 0;
    if (!isReady || (pages.flags(pfn) & PG_SWAPCACHE) === 0) return false;
    lru.forget(ctx, pfn);
    swap.removeFromCache(ctx, pfn, workingSet.evict(pfn));
    refs.putPage(ctx, pfn);
    return true;
  };

  /** All entries become entries of the page's slot; false if it must stay. */
  const unmap = (ctx: Context, pfn: Pfn, flushes: TlbBatch): boolean => {
    if ((pages.flags(pfn) & PG_SWAPCACHE) === 0 && !swap.addToCache(ctx, pfn)) return false;
    if (pages.mapcount(pfn) === 0) return true;
    if (rmap.tryToUnmap(ctx, pfn, swapPteOf(pages.private(pfn)), flushes) === 0) return true;
    // Locked, or a slot with too many names: what names it has keep it; without any the page has no use for it.
    swap.layer.release(ctx, pfn);
    return false;
  };

  /** A lazily freed page is dropped, or kept because somebody has written to it (LZF-2). */
  const dropLazily = (ctx: Context, pfn: Pfn, batch: ReclaimBatch): void => {
    if (lazyFree.drop(ctx, pfn, batch.flushes)) batch.clean[batch.nrClean++] = pfn;
    else {
      lru.setSwapBacked(ctx, pfn, true);
      pages.addFlags(pfn, PG_ACTIVE);
      putBack(ctx, pfn);
    }
  };

  /** What becomes of an isolated page: freed (true), put back, or added to the batch's dirty or clean pages. */
  const shrinkPage = (ctx: Context, pfn: Pfn, batch: ReclaimBatch): boolean => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_RECLAIM_PAGE;
    const flags = pages.flags(pfn);
    if ((flags & SWAPPABLE) === 0) {
      putBack(ctx, pfn);
      return false;
    }
    if (pages.refcount(pfn) === 1) {
      // Its last owner went while we had it.
      lru.forget(ctx, pfn);
      refs.putPage(ctx, pfn);
      return true;
    }
    const verdict = policy.judge(ctx, pfn, pages.mapcount(pfn) === 0 ? 0 : rmap.referenced(ctx, pfn, batch.flushes));
    if (verdict === PAGE_RECLAIM && isLazyFree(flags)) {
      dropLazily(ctx, pfn, batch);
      return false;
    }
    if (verdict === PAGE_KEEP || !unmap(ctx, pfn, batch.flushes)) {
      if (verdict === PAGE_RECLAIM) pages.addFlags(pfn, PG_ACTIVE);
      putBack(ctx, pfn);
      return false;
    }
    if ((pages.flags(pfn) & PG_DIRTY) !== 0) batch.dirty[batch.nrDirty++] = pfn;
    else batch.clean[batch.nrClean++] = pfn;
    return false;
  };

  /** One flush for all that were looked at and unmapped (TLB-2); then the clean ones go. The number freed. */
  const freeClean = (ctx: Context, batch: ReclaimBatch): number => {
    tlb.flushBatch(ctx, batch.flushes);
    let nrFreed = 0;
    for (let i = 0; i < batch.nrClean; i++) {
      if (tryToFree(ctx, asPfn(batch.clean[i] as number))) nrFreed++;
      else putBack(ctx, asPfn(batch.clean[i] as number));
      interruptPoint(ctx);
    }
    batch.nrClean = 0;
    return nrFreed;
  };

  // ── Writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

  const slotOf = (pfn: number): number => pages.private(asPfn(pfn));

  /** Length of the run of neighbouring slots that starts at dirty page `from` of the batch, sorted. */
  const runFrom = (batch: ReclaimBatch, from: number, max: number): number => {
    let nr = 1;
    while (nr < max && from + nr < batch.nrDirty) {
      if (slotOf(batch.dirty[from + nr] as number) !== slotOf(batch.dirty[from] as number) + nr) break;
      nr++;
    }
    return nr;
  };
  const sortBySlot = (batch: ReclaimBatch): void => {
    batch.dirty.subarray(0, batch.nrDirty).sort((a, b) => slotOf(a) - slotOf(b));
  };

  const beginWrite = (batch: ReclaimBatch, from: number, nr: number): Int32Array => {
    const run = batch.dirty.subarray(from, from + nr);
    for (const pfn of run) {
      pages.setFlags(asPfn(pfn), (pages.flags(asPfn(pfn)) & ~PG_DIRTY) | PG_WRITEBACK);
    }
    vmstat.modItem(NR_WRITEBACK, nr);
    return run;
  };

  /** The run is written, or not: frees its pages or puts them back (RCL-3). The number freed. */
  const endWrite = (ctx: Context, run: Int32Array, error: number): number => {
    vmstat.modItem(NR_WRITEBACK, -run.length);
    if (error === 0) {
      vmstat.countEvents(ctx, PSWPOUT, run.length);
      vmstat.modItem(NR_VMSCAN_WRITE, run.length);
    } else printk(KERN_ALERT, `Write-error on swap-device (${slotOf(run[0] as number) * 8})`);
    let nrFreed = 0;
    for (const frame of run) {
      const pfn = asPfn(frame);
      interruptPoint(ctx);
      pages.clearFlags(pfn, PG_WRITEBACK);
      if (error !== 0) pages.addFlags(pfn, PG_DIRTY | PG_ACTIVE);
      // All who named it have ended meanwhile.
      const isOrphan = pages.mapcount(pfn) === 0 && swap.layer.release(ctx, pfn);
      if (isOrphan) lru.forget(ctx, pfn);
      if (isOrphan) refs.putPage(ctx, pfn);
      else if (error !== 0 || !tryToFree(ctx, pfn)) {
        putBack(ctx, pfn);
        continue;
      }
      nrFreed++;
    }
    return nrFreed;
  };

  const writeInPlace = (ctx: TaskContext, batch: ReclaimBatch): number => {
    const io = swap.device();
    let nrFreed = 0;
    sortBySlot(batch);
    for (let from = 0; from < batch.nrDirty; ) {
      const nr = runFrom(batch, from, io?.maxPages ?? 1);
      const run = beginWrite(batch, from, nr);
      const error = io === null ? -1 : io.write(ctx, slotOf(run[0] as number), run, nr);
      nrFreed += endWrite(ctx, run, error);
      from += nr;
    }
    batch.nrDirty = 0;
    return nrFreed;
  };

  function* writeAsleep(task: Task, batch: ReclaimBatch): Sleeping<number> {
    const io = swap.device();
    let nrFreed = 0;
    sortBySlot(batch);
    for (let from = 0; from < batch.nrDirty; ) {
      const nr = runFrom(batch, from, io?.maxPages ?? 1);
      const run = beginWrite(batch, from, nr);
      const error = io === null ? -1 : yield* io.writeSleeping(task, slotOf(run[0] as number), run, nr);
      nrFreed += endWrite(task.ctx, run, error);
      from += nr;
    }
    batch.nrDirty = 0;
    return nrFreed;
  }

  // ── One round ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Can an anonymous page go? Without a free slot only those that still have one. */
  const canSwap = (): boolean => swap.device() !== null && (swap.nrFree() > 0 || vmstat.item(NR_SWAPCACHE) > 0);

  /** Pages of a kind that a round looks at. */
  const nrToScan = (zone: number, isFile: boolean, scan: Scan): number => {
    if (!isFile && !canSwap()) return 0;
    const nr = policy.nrCandidates(zone, isFile);
    return Math.min(nr, Math.max(nr >>> scan.priority, SWAP_CLUSTER_MAX));
  };

  const countScan = (ctx: Context, scan: Scan, isFile: boolean, nrScanned: number): void => {
    vmstat.countEvents(ctx, scan.isKswapd ? PGSCAN_KSWAPD : PGSCAN_DIRECT, nrScanned);
    vmstat.countEvents(ctx, isFile ? PGSCAN_FILE : PGSCAN_ANON, nrScanned);
  };
  const countSteal = (ctx: Context, scan: Scan, isFile: boolean, nrFreed: number): void => {
    vmstat.countEvents(ctx, scan.isKswapd ? PGSTEAL_KSWAPD : PGSTEAL_DIRECT, nrFreed);
    vmstat.countEvents(ctx, isFile ? PGSTEAL_FILE : PGSTEAL_ANON, nrFreed);
  };

  /** Isolates and judges one batch of a zone; what is dirty waits in the batch. Pages looked at, pages freed. */
  const shrinkBatch = (ctx: Context, list: List, scan: Scan, batch: ReclaimBatch, max: number): readonly number[] => {
    const { zone, isFile } = list;
    policy.age(ctx, zone, isFile, max, batch.flushes);
    const nr = policy.isolate(ctx, zone, isFile, Math.min(max, SWAP_CLUSTER_MAX), batch.isolated);
    let nrFreed = 0;
    for (let i = 0; i < nr; i++) {
      if (shrinkPage(ctx, asPfn(batch.isolated[i] as number), batch)) nrFreed++;
      interruptPoint(ctx);
    }
    nrFreed += freeClean(ctx, batch);
    countScan(ctx, scan, isFile, nr);
    return [nr, nrFreed];
  };

  /** What a round visits: of each zone first what may go without I/O. */
  const listsUpTo = (highest: number): List[] =>
    Array.from({ length: 2 * (highest + 1) }, (_, i) => ({ zone: highest - (i >>> 1), isFile: i % 2 === 0 }));

  return {
    shrinkInPlace(ctx, scan) {
      const batch = createBatch();
      let nrFreed = 0;
      for (const list of listsUpTo(scan.highest)) {
        const before = nrFreed;
        for (let left = nrToScan(list.zone, list.isFile, scan); left > 0; ) {
          const [nr, freed] = shrinkBatch(ctx, list, scan, batch, left) as [number, number];
          nrFreed += freed + writeInPlace(ctx, batch);
          left -= nr;
          if (nr === 0 || nrFreed >= SWAP_CLUSTER_MAX) break;
        }
        countSteal(ctx, scan, list.isFile, nrFreed - before);
      }
      return nrFreed;
    },
    *shrink(task, scan) {
      const batch = createBatch();
      let nrFreed = 0;
      for (const list of listsUpTo(scan.highest)) {
        const before = nrFreed;
        for (let left = nrToScan(list.zone, list.isFile, scan); left > 0; ) {
          const [nr, freed] = shrinkBatch(task.ctx, list, scan, batch, left) as [number, number];
          nrFreed += freed + (yield* writeAsleep(task, batch));
          left -= nr;
          if (nr === 0) break;
        }
        countSteal(task.ctx, scan, list.isFile, nrFreed - before);
      }
      return nrFreed;
    },
    nrReclaimable(highest) {
      let [nrAnon, nrFile] = [0, 0];
      for (let zone = 0; zone <= highest; zone++) {
        nrAnon += policy.nrCandidates(zone, false);
        nrFile += policy.nrCandidates(zone, true);
      }
      return nrFile + (canSwap() ? Math.min(nrAnon, swap.nrFree() + vmstat.item(NR_SWAPCACHE)) : 0);
    },
    isAbove(highest, mark) {
      for (let zone = 0; zone <= highest && zone < MAX_NR_ZONES; zone++) {
        if (zones.field(zone, Z_MANAGED) === 0) continue;
        const kept = zones.wmark(zone, mark) + zones.field(zone, Z_LOWMEM_RESERVE + highest * 4);
        if (zones.field(zone, Z_NR_FREE) > kept) return true;
      }
      return false;
    },
    swappiness: () => port.ld32(state + SWAPPINESS),
    setSwappiness(value) {
      bugOn(!(value >= 0 && value <= MAX_SWAPPINESS), "vmscan: swappiness out of range", value);
      port.st32(state + SWAPPINESS, value);
    },
  };
}
