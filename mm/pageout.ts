/**
 * Page-out: what reclaim does with a page that it has in hand. Which page, and how many, vmscan.ts decides.
 *
 *                      anonymous                     shared, tmpfs                  of a disk
 *      isolated ─▶ used? ─▶ slot ─▶ entries become   used? ─▶ entries go, slot,     used? ─▶ clean? entries go
 *                     │     swap entries                tree gets the slot             │        │
 *                     └─▶ keep                                                         │        ▼
 *      then            dirty: written in runs of neighbouring slots, freed             │     freed, leaves a shadow
 *                      clean (as in its slot): freed                                   └ dirty: written in place by
 *                                                                                        direct reclaim; kswapd leaves
 *                                                                                        it to the flusher
 *
 * Once a page has a slot it is the swap cache's, whatever it was before: the rest is the same for both kinds.
 *
 *   RCL-2  a page is freed only when nobody but its cache and the reclaimer holds it, and slot or disk has its content
 *   RCL-3  a page that cannot be written stays in RAM, dirty, on a list; its processes do not notice
 *   RCL-4  what is isolated is put back or freed: outside of reclaim NR_ISOLATED is 0
 *
 * Context: process. Linux: mm/vmscan.c (shrink_folio_list, pageout, __remove_mapping), mm/shmem.c (shmem_writeout).
 */

import { CYC_RECLAIM_PAGE } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { bugOn } from "../kernel/bug.ts";
import { KERN_ALERT, type Printk } from "../kernel/printk.ts";
import type { Task } from "../kernel/task.ts";
import { asPfn, type Context, type Pfn, type Sleeping, type TaskContext } from "../kernel/types.ts";
import type { FileMap } from "./filemap.ts";
import { isLazyFree, type LazyFree } from "./lazyfree.ts";
import type { Lru } from "./lru.ts";
import { type Pages, PG_ACTIVE, PG_ANON, PG_DIRTY, PG_SWAPCACHE, PG_WRITEBACK } from "./page.ts";
import type { DirtyPages } from "./page_dirty.ts";
import type { PageRefs } from "./page_ref.ts";
import { PAGE_KEEP, PAGE_RECLAIM, type ReclaimPolicy } from "./reclaim_policy.ts";
import type { Rmap } from "./rmap.ts";
import type { Swap } from "./swap.ts";
import { swapPteOf } from "./swap_entry.ts";
import { createTlbBatch, type Tlb, type TlbBatch } from "./tlb.ts";
import { NR_VMSCAN_IMMEDIATE, NR_VMSCAN_WRITE, NR_WRITEBACK, PGLAZYFREED, PSWPOUT, type VmStat } from "./vmstat.ts";
import type { WorkingSet } from "./workingset.ts";
import type { Writeback } from "./writeback.ts";

export const SWAP_CLUSTER_MAX = 32;

/** The pages that one reclaimer has in hand: isolated ones, and those of them that must be written. */
export interface ReclaimBatch {
  readonly isKswapd: boolean;
  readonly isolated: Int32Array;
  /** With slots, newer than these. */
  readonly dirty: Int32Array;
  nrDirty: number;
  /** Of disks, newer than these. */
  readonly dirtyFiles: Int32Array;
  nrDirtyFiles: number;
  /** Unmapped, and as in their slots or on their disks: to be freed after the flush. */
  readonly clean: Int32Array;
  nrClean: number;
  readonly flushes: TlbBatch;
}

export const createBatch = (isKswapd: boolean): ReclaimBatch => ({
  isKswapd,
  isolated: new Int32Array(SWAP_CLUSTER_MAX),
  dirty: new Int32Array(SWAP_CLUSTER_MAX),
  nrDirty: 0,
  dirtyFiles: new Int32Array(SWAP_CLUSTER_MAX),
  nrDirtyFiles: 0,
  clean: new Int32Array(SWAP_CLUSTER_MAX),
  nrClean: 0,
  flushes: createTlbBatch(),
});

export interface Pageout {
  /** What becomes of an isolated page: freed (true), put back, or added to the batch's dirty or clean pages. */
  shrinkPage(ctx: Context, pfn: Pfn, batch: ReclaimBatch): boolean;
  /** One flush for all that were looked at and unmapped (TLB-2); then the clean ones go. The number freed. */
  freeClean(ctx: Context, batch: ReclaimBatch): number;
  /** Writes what is dirty, waiting in place, and frees it; the number freed. */
  writeInPlace(ctx: TaskContext, batch: ReclaimBatch): number;
  /** The same for a thread, which sleeps; dirty pages of disks it leaves to the flusher. */
  writeAsleep(task: Task, batch: ReclaimBatch): Sleeping<number>;
}

export interface PageoutDeps {
  readonly machine: Machine;
  readonly printk: Printk;
  readonly pages: Pages;
  readonly lru: Lru;
  readonly rmap: Rmap;
  readonly tlb: Tlb;
  readonly refs: PageRefs;
  readonly swap: Swap;
  readonly files: FileMap;
  readonly dirty: DirtyPages;
  readonly lazyFree: LazyFree;
  readonly writeback: Writeback;
  readonly vmstat: VmStat;
  readonly workingSet: WorkingSet;
  readonly policy: ReclaimPolicy;
  /** Between two pages: kernel/context.ts. */
  readonly interruptPoint: (ctx: Context) => void;
}

export function createPageout(deps: PageoutDeps): Pageout {
  const { machine, printk, pages, lru, rmap, tlb, refs, swap, files, dirty, writeback, vmstat } = deps;
  const { workingSet, policy, lazyFree } = deps;
  const { clock } = machine.harts;

  // ── One page ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const putBack = (ctx: Context, pfn: Pfn): void => {
    policy.putBack(ctx, pfn);
    refs.putPage(ctx, pfn);
  };

  /** RCL-2: nobody but its cache and we hold it, and slot or disk has what it has. */
  const tryToFree = (ctx: Context, pfn: Pfn): boolean => {
    const flags = pages.flags(pfn);
    if (isLazyFree(flags)) {
      bugOn(pages.refcount(pfn) !== 1, "LZF-1: a dropped page has holders", pfn, pages.refcount(pfn));
      lru.forget(ctx, pfn);
      refs.putPage(ctx, pfn);
      vmstat.countEvents(ctx, PGLAZYFREED, 1);
      return true;
    }
    const isReady = pages.refcount(pfn) === 2 && pages.mapcount(pfn) === 0;
    if (!isReady || (flags & (PG_DIRTY | PG_WRITEBACK)) !== 0) return false;
    const isCached = (flags & PG_SWAPCACHE) !== 0;
    if (!isCached && !dirty.isTracked(pfn)) return false;
    lru.forget(ctx, pfn);
    if (isCached) swap.removeFromCache(ctx, pfn, workingSet.evict(pfn));
    else files.evict(ctx, pfn, workingSet.evict(pfn));
    refs.putPage(ctx, pfn);
    return true;
  };

  /** Shared memory: its entries go, and its place in its file names the slot; false if it must stay. */
  const unmapShared = (ctx: Context, pfn: Pfn, flushes: TlbBatch): boolean => {
    // Its slot from before is not given up as long as it is being written.
    if ((pages.flags(pfn) & PG_SWAPCACHE) !== 0) return false;
    if (!swap.addToCache(ctx, pfn)) return false;
    const isUnmapped = pages.mapcount(pfn) === 0 || rmap.tryToUnmap(ctx, pfn, 0, flushes) === 0;
    if (isUnmapped && files.moveToSwap(ctx, pfn)) return true;
    swap.layer.release(ctx, pfn);
    return false;
  };

  /** Nothing but the page's slot, or its disk, has it afterwards; false if it must stay. */
  const unmap = (ctx: Context, pfn: Pfn, flushes: TlbBatch): boolean => {
    if (dirty.isTracked(pfn)) return pages.mapcount(pfn) === 0 || rmap.tryToUnmap(ctx, pfn, 0, flushes) === 0;
    if (files.isSwappable(pfn) && (pages.flags(pfn) & PG_ANON) === 0) return unmapShared(ctx, pfn, flushes);
    if ((pages.flags(pfn) & PG_SWAPCACHE) === 0 && !swap.addToCache(ctx, pfn)) return false;
    if (pages.mapcount(pfn) === 0) return true;
    if (!swap.takesBack(pfn)) return false;
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

  /** Anonymous, in the swap cache, or of a file that has another place for it. */
  const hasHome = (pfn: Pfn): boolean =>
    (pages.flags(pfn) & (PG_ANON | PG_SWAPCACHE)) !== 0 || files.isSwappable(pfn) || dirty.isTracked(pfn);

  /** A dirty page of a disk. */
  const leaveDirty = (ctx: Context, pfn: Pfn, batch: ReclaimBatch): void => {
    if (!batch.isKswapd) batch.dirtyFiles[batch.nrDirtyFiles++] = pfn;
    else {
      // Written soon, and then near the end of its list: the flusher is faster than another round (writeAsleep).
      batch.nrDirtyFiles++;
      vmstat.countEvents(ctx, NR_VMSCAN_IMMEDIATE, 1);
      putBack(ctx, pfn);
    }
  };

  const shrinkPage: Pageout["shrinkPage"] = (ctx, pfn, batch) => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_RECLAIM_PAGE;
    const isBusy = (pages.flags(pfn) & PG_WRITEBACK) !== 0;
    if (pages.refcount(pfn) > 1 && (isBusy || !hasHome(pfn))) {
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
    if (verdict === PAGE_RECLAIM && isLazyFree(pages.flags(pfn))) {
      dropLazily(ctx, pfn, batch);
      return false;
    }
    if (verdict === PAGE_RECLAIM && (pages.flags(pfn) & PG_DIRTY) !== 0 && dirty.isTracked(pfn)) {
      leaveDirty(ctx, pfn, batch);
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

  const freeClean: Pageout["freeClean"] = (ctx, batch) => {
    tlb.flushBatch(ctx, batch.flushes);
    let nrFreed = 0;
    for (let i = 0; i < batch.nrClean; i++) {
      if (tryToFree(ctx, asPfn(batch.clean[i] as number))) nrFreed++;
      else putBack(ctx, asPfn(batch.clean[i] as number));
      deps.interruptPoint(ctx);
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
      workingSet.noteCost(false, run.length, 0);
      vmstat.modItem(NR_VMSCAN_WRITE, run.length);
    } else printk(KERN_ALERT, `Write-error on swap-device (${swap.pageOf(slotOf(run[0] as number)) * 8})`);
    let nrFreed = 0;
    for (const frame of run) {
      const pfn = asPfn(frame);
      deps.interruptPoint(ctx);
      pages.clearFlags(pfn, PG_WRITEBACK);
      if (error !== 0) pages.addFlags(pfn, PG_DIRTY | PG_ACTIVE);
      // All who named it have ended meanwhile, or it is back in its file.
      const isReleased = pages.mapcount(pfn) === 0 && swap.layer.release(ctx, pfn);
      const isOrphan = isReleased && pages.refcount(pfn) === 1;
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

  /** Dirty pages of disks in the batch, in runs, in place; the number freed. */
  const writeFiles = (ctx: TaskContext, batch: ReclaimBatch): number => {
    const all = batch.dirtyFiles.subarray(0, batch.nrDirtyFiles);
    all.sort(
      (a, b) => pages.mapping(asPfn(a)) - pages.mapping(asPfn(b)) || pages.index(asPfn(a)) - pages.index(asPfn(b)),
    );
    const follows = (a: number, b: number): boolean =>
      pages.mapping(asPfn(a)) === pages.mapping(asPfn(b)) && pages.index(asPfn(b)) === pages.index(asPfn(a)) + 1;
    let nrFreed = 0;
    for (let from = 0; from < all.length; ) {
      let end = from + 1;
      while (end < all.length && follows(all[end - 1] as number, all[end] as number)) end++;
      const run = all.subarray(from, end);
      writeback.writeInPlace(ctx, run);
      vmstat.modItem(NR_VMSCAN_WRITE, run.length);
      workingSet.noteCost(true, run.length, 0);
      for (const frame of run) {
        const pfn = asPfn(frame);
        const canGo = (pages.flags(pfn) & PG_DIRTY) === 0 && unmap(ctx, pfn, batch.flushes);
        if (canGo) tlb.flushBatch(ctx, batch.flushes);
        if (canGo && tryToFree(ctx, pfn)) nrFreed++;
        else putBack(ctx, pfn);
      }
      from = end;
    }
    batch.nrDirtyFiles = 0;
    return nrFreed;
  };

  const writeInPlace: Pageout["writeInPlace"] = (ctx, batch) => {
    let nrFreed = writeFiles(ctx, batch);
    sortBySlot(batch);
    for (let from = 0; from < batch.nrDirty; ) {
      const slot = slotOf(batch.dirty[from] as number);
      const io = swap.deviceOf(slot);
      const nr = runFrom(batch, from, io?.maxPages ?? 1);
      const run = beginWrite(batch, from, nr);
      const error = io === null ? -1 : io.write(ctx, swap.pageOf(slot), run, nr);
      nrFreed += endWrite(ctx, run, error);
      from += nr;
    }
    batch.nrDirty = 0;
    return nrFreed;
  };

  function* writeAsleep(task: Task, batch: ReclaimBatch): Sleeping<number> {
    let nrFreed = 0;
    sortBySlot(batch);
    for (let from = 0; from < batch.nrDirty; ) {
      // While the last run was written, somebody may have taken the page back, and the slot is gone.
      if ((pages.flags(asPfn(batch.dirty[from] as number)) & PG_SWAPCACHE) === 0) {
        putBack(task.ctx, asPfn(batch.dirty[from++] as number));
        continue;
      }
      const slot = slotOf(batch.dirty[from] as number);
      const io = swap.deviceOf(slot);
      const nr = runFrom(batch, from, io?.maxPages ?? 1);
      const run = beginWrite(batch, from, nr);
      const error = io === null ? -1 : yield* io.writeSleeping(task, swap.pageOf(slot), run, nr);
      nrFreed += endWrite(task.ctx, run, error);
      from += nr;
    }
    batch.nrDirty = 0;
    const nrLeft = batch.nrDirtyFiles;
    batch.nrDirtyFiles = 0;
    if (nrLeft > 0) writeback.wakeForReclaim(nrLeft);
    // Nothing but dirty pages: the next look makes sense when some have been written.
    if (nrLeft > 0 && nrFreed === 0) yield* writeback.waitProgress(task);
    return nrFreed;
  }

  return { shrinkPage, freeClean, writeInPlace, writeAsleep };
}
