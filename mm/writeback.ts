/**
 * Write-back: how pages that are newer than their disk get there.
 *
 *                        the flusher, a kernel thread, sleeps while the disk works
 *      dirty pages ────▶ old enough · too many · somebody waits (fsync, sync, close) · reclaim asks ───▶ disk
 *                        a fault over the limit, direct reclaim: in place
 *
 * 1. *When.* A page may stay dirty for vm.dirty_expire_centisecs; the flusher looks every vm.dirty_writeback_centisecs,
 *    and sleeps without a timer when nothing is dirty. Over vm.dirty_background_ratio of the memory that could hold
 *    such pages it writes at once. Half-way from there to vm.dirty_ratio writers sleep until enough has been written:
 *    who dirties memory faster than the disk takes it, goes on at the disk's pace.
 *
 * 2. *What.* Runs of neighbouring pages, one command each, from the file's cursor upwards, each page once in a pass:
 *    who dirties pages behind the cursor all the time does not keep a pass from ending.
 *
 * 3. *How.* The page loses W in every page table, is clean and under writeback, and its content goes to the lane before
 *    anybody else runs; a store meanwhile makes it dirty again, which the next pass sees (page_dirty.ts).
 *
 * 4. *Errors.* A page that the disk did not take stays dirty and is tried again after dirty_expire: nothing is lost
 *    while there is hope. A disk that is gone gives none: the page counts as lost, and the log says so. Either is
 *    counted in the file; each open file is told once, by fsync, msync or a write over the limit (errseq,
 *    block_files.ts).
 *
 *   WBK-1  after sync() each page that was dirty at the call has been written, or an error is counted that was not
 *          before
 *   WBK-2  a write-out ends: it looks at each page once
 *   WBK-3  writers sleep while there are more dirty pages than the limit, unless the disk fails: then they get −EIO
 *   WBK-4  a page under writeback has a reference of its writer, and stays in its file
 *   WBK-6  sync() of a range writes its dirty pages, and others only for somebody else who waits at the same time
 *   WBK-5  the flusher writes, and nobody else asleep: one thread uses the lane of a disk (disk_pages.ts)
 *
 * State: static memory (below), words of address_space. On the host: which PageIo belongs to which file.
 * Context: process. Linux: fs/fs-writeback.c, mm/page-writeback.c. Not here: bandwidth estimates, writeback per cgroup.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import type { PageIo } from "../kernel/file.ts";
import type { Kthreads } from "../kernel/kthread.ts";
import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import { KERN_ERR, type Printk } from "../kernel/printk.ts";
import type { Task } from "../kernel/task.ts";
import {
  asPfn,
  asPhys,
  type Context,
  fromGranule,
  NO_PFN,
  type PhysAddr,
  type Sleeping,
  type TaskContext,
} from "../kernel/types.ts";
import { EIO, ENODEV, ENOMEM } from "../kernel/uapi/errno.ts";
import type { WaitQueues } from "../kernel/wait.ts";
import {
  createDirtyLimits,
  DIRTY_EXPIRE_CENTISECS,
  DIRTY_LIMITS_BYTES,
  DIRTY_WRITEBACK_CENTISECS,
} from "./dirty_limits.ts";
import type { FileMap } from "./filemap.ts";
import type { Lru } from "./lru.ts";
import {
  AS_CURSOR,
  AS_ERRORS,
  AS_ERRORS_SEEN,
  AS_SYNC_DONE,
  AS_SYNC_FROM,
  AS_SYNC_TO,
  AS_SYNC_WANTED,
} from "./mm_struct.ts";
import type { Zones } from "./mmzone.ts";
import { type Pages, PG_WRITEBACK } from "./page.ts";
import type { DirtyPages } from "./page_dirty.ts";
import type { PageRefs } from "./page_ref.ts";
import type { Rmap } from "./rmap.ts";
import { createTlbBatch, type Tlb } from "./tlb.ts";
import { NR_FILE_DIRTY, type VmStat } from "./vmstat.ts";

/** Static memory, zeroed: two wait queues, what the flusher is to do, what can be tuned. */
const QUEUE = 0;
const PROGRESS = 8;
const WORK = 16;
const WANTED_PAGES = 20;
const TUNABLES = 24;
export const WRITEBACK_BYTES = TUNABLES + DIRTY_LIMITS_BYTES;

const WORK_BACKGROUND = 1 << 0;
const WORK_SYNC = 1 << 1;
const WORK_RECLAIM = 1 << 2;
const WORK_TIMER = 1 << 3;
const WORK_CLOSE = 1 << 4;

const CYCLES_PER_CENTISEC = CYCLES_PER_SECOND / 100;
/** Longest that a writer sleeps before it looks again. */
const MAX_PAUSE_CYCLES = CYCLES_PER_SECOND / 5;
/** Runs in place, by which a fault over the limit brings the number down. */
const MAX_RUNS_IN_PLACE = 4;
const MAX_RUN = 32;
const ALL_PAGES = 0xffff_ffff;

/** A disk behind a file. */
export interface Backing {
  readonly name: string;
  readonly io: PageIo;
  /** It has said −ENODEV, which it does not take back. */
  isGone: boolean;
}

export interface Writeback {
  /** The pages of `mapping` go to `backing` from now on. */
  attach(mapping: PhysAddr, backing: Backing): void;
  /** No page of it is dirty or under writeback. */
  detach(mapping: PhysAddr): void;
  backing(mapping: PhysAddr): Backing | undefined;
  mappings(): readonly PhysAddr[];
  /** The flusher exists from here on: 0 or −ENOMEM. */
  start(ctx: Context): number;
  /** Registers what the flusher does with files that nobody uses any more. */
  onClose(close: (task: Task) => Sleeping<void>): void;
  /** There may be such a file. Any context. */
  wakeToClose(): void;
  /** Sleeps until `condition`; who changes it calls announce(). */
  waitFor(task: Task, condition: () => boolean): Sleeping<void>;
  announce(): void;
  /** Sleeps until something has been written, or a moment has passed. */
  waitProgress(task: Task): Sleeping<unknown>;
  /** Writes the dirty pages of a file, by the thread `task`, which is the flusher. */
  writeOut(task: Task, mapping: PhysAddr): Sleeping<void>;
  /** Waits until the flusher has written what is dirty now (WBK-1): of all pages, or of `[from, to)`. */
  sync(task: Task, mapping: PhysAddr, from?: number, to?: number): Sleeping<void>;
  /** The same for all files. */
  syncAll(task: Task): Sleeping<void>;
  /** Before a page is made dirty by a writer: sleeps while there are too many (WBK-3); 0 or −EIO. */
  balance(task: Task, mapping: PhysAddr): Sleeping<number>;
  /** Writes dirty pages of one file that lie side by side, in place: 0 or −errno. */
  writeInPlace(ctx: TaskContext, run: Int32Array): number;
  /** Reclaim has met dirty pages, and leaves them to the flusher. */
  wakeForReclaim(nrPages: number): void;
  /** A write error that somebody who knew of `seen` has not been told of: the new number; else `seen`. */
  errorsSince(mapping: PhysAddr, seen: number): number;
  /** What somebody knows who asks now for the first time. */
  errorsSeen(mapping: PhysAddr): number;
  /** Pages from which the flusher writes at once, and that writers may not exceed. */
  thresholds(): { readonly background: number; readonly limit: number };
  tunable(nr: number): number;
  setTunable(nr: number, value: number): void;
}

export interface WritebackDeps {
  readonly machine: Machine;
  readonly printk: Printk;
  readonly pages: Pages;
  readonly zones: Zones;
  readonly lru: Lru;
  readonly refs: PageRefs;
  readonly vmstat: VmStat;
  readonly rmap: Rmap;
  readonly tlb: Tlb;
  readonly files: FileMap;
  readonly dirty: DirtyPages;
  readonly waits: WaitQueues;
  readonly kthreads: Kthreads;
  readonly state: PhysAddr;
}

export function createWriteback(deps: WritebackDeps): Writeback {
  const { machine, printk, pages, zones, lru, refs, vmstat, rmap, tlb, files, dirty, waits, state } = deps;
  const { port, harts } = machine;
  const queue = asPhys(state + QUEUE);
  const progress = asPhys(state + PROGRESS);
  waits.init(queue);
  waits.init(progress);
  const limits = createDirtyLimits({ port, zones, lru, vmstat, state: asPhys(state + TUNABLES) });
  const { tunable, nrUnwritten, thresholds, isOverBackground, isOverFreerun } = limits;
  const backings = new Map<PhysAddr, Backing>();
  let flusher: Task | undefined;
  let closeFiles = function* (_task: Task): Sleeping<void> {};

  const field = (mapping: PhysAddr, offset: number): number => port.ld32(mapping + offset);
  const setField = (mapping: PhysAddr, offset: number, value: number): void => port.st32(mapping + offset, value >>> 0);
  const now = (ctx: Context): number => harts.clock[ctx.cpu] as number;
  const wake = (work: number): void => {
    port.st32(state + WORK, port.ld32(state + WORK) | work);
    waits.wakeUp(queue);
  };

  // ── A run of pages ───────────────────────────────────────────────────────────────────────────────────────────────

  const isReady = (mapping: PhysAddr, index: number): boolean => {
    const pfn = dirty.isDirty(mapping, index) ? files.find(mapping, index) : NO_PFN;
    return pfn !== NO_PFN && (pages.flags(pfn) & PG_WRITEBACK) === 0;
  };
  /** First page from `from` on that can be written now; −1. */
  const firstReady = (mapping: PhysAddr, from: number): number => {
    let index = dirty.next(mapping, from);
    while (index >= 0 && !isReady(mapping, index)) index = dirty.next(mapping, index + 1);
    return index;
  };
  /** The run that starts at page `first`, which is ready. */
  const runFrom = (mapping: PhysAddr, first: number, out: Int32Array): Int32Array => {
    let nr = 0;
    while (nr < out.length && isReady(mapping, first + nr)) {
      out[nr] = files.find(mapping, first + nr);
      nr++;
    }
    return out.subarray(0, nr);
  };

  const begin = (ctx: Context, run: Int32Array): void => {
    const flushes = createTlbBatch();
    for (const frame of run) {
      const pfn = asPfn(frame);
      refs.getPage(pfn);
      rmap.clean(ctx, pfn, flushes);
      dirty.begin(pfn);
    }
    tlb.flushBatch(ctx, flushes);
  };

  const end = (ctx: Context, mapping: PhysAddr, first: number, run: Int32Array, error: number): void => {
    const outcome = error === 0 ? "written" : error === -ENODEV ? "lost" : "again";
    for (const frame of run) {
      dirty.end(ctx, asPfn(frame), outcome);
      refs.putPage(ctx, asPfn(frame));
    }
    const backing = backings.get(mapping);
    if (error === -ENODEV && backing !== undefined) backing.isGone = true;
    if (error !== 0) {
      setField(mapping, AS_ERRORS, field(mapping, AS_ERRORS) + 1);
      const what = outcome === "lost" ? "lost async page write" : "async page write, will be tried again";
      printk(KERN_ERR, `Buffer I/O error on dev ${backing?.name}, logical block ${first}, ${what}`);
    }
    waits.wakeUp(progress);
  };

  const writeInPlace: Writeback["writeInPlace"] = (ctx, run) => {
    const pfn = asPfn(run[0] as number);
    const mapping = fromGranule(pages.mapping(pfn));
    const first = pages.index(pfn);
    const io = backings.get(mapping)?.io;
    begin(ctx, run);
    const error = io === undefined ? -ENODEV : io.write(ctx, first, run, run.length);
    end(ctx, mapping, first, run, error);
    return error;
  };

  /** One run of any file, from its cursor on: false if there is none, or the disk fails. */
  const writeSomeInPlace = (ctx: TaskContext): boolean => {
    for (const mapping of backings.keys()) {
      let first = firstReady(mapping, field(mapping, AS_CURSOR));
      if (first < 0) first = firstReady(mapping, 0);
      if (first < 0) continue;
      const run = runFrom(mapping, first, new Int32Array(MAX_RUN));
      setField(mapping, AS_CURSOR, first + run.length);
      return writeInPlace(ctx, run) === 0;
    }
    return false;
  };

  // ── The flusher ──────────────────────────────────────────────────────────────────────────────────────────────────

  /** Writes dirty pages of `[from, end)`, each once, at most `max`, as long as `goesOn`; the number written. */
  function* writeRange(
    task: Task,
    mapping: PhysAddr,
    [from, to]: readonly [number, number],
    max: number,
    goesOn: () => boolean,
  ): Sleeping<number> {
    const { io } = backings.get(mapping) as Backing;
    const frames = new Int32Array(Math.min(MAX_RUN, io.maxPages));
    let nr = 0;
    for (let first = firstReady(mapping, from); first >= 0 && first < to && nr < max && goesOn(); ) {
      const run = runFrom(mapping, first, frames.subarray(0, Math.min(frames.length, to - first)));
      begin(task.ctx, run);
      const error = yield* io.writeSleeping(task, first, run, run.length);
      end(task.ctx, mapping, first, run, error);
      if (error === 0) nr += run.length;
      setField(mapping, AS_CURSOR, first + run.length);
      first = firstReady(mapping, first + run.length);
    }
    return nr;
  }

  /** From the cursor to the end, and from the start to the cursor: each page once. */
  function* writeAround(task: Task, mapping: PhysAddr, max: number, goesOn: () => boolean): Sleeping<number> {
    const cursor = field(mapping, AS_CURSOR);
    dirty.restart(task.ctx, mapping);
    const nr = yield* writeRange(task, mapping, [cursor, Number.POSITIVE_INFINITY], max, goesOn);
    return nr + (yield* writeRange(task, mapping, [0, cursor], max - nr, goesOn));
  }
  const always = (): boolean => true;
  function* writeOut(task: Task, mapping: PhysAddr): Sleeping<void> {
    yield* writeAround(task, mapping, Number.POSITIVE_INFINITY, always);
  }

  function* serveSyncs(task: Task): Sleeping<void> {
    for (const mapping of [...backings.keys()]) {
      const target = field(mapping, AS_SYNC_WANTED);
      if (target === field(mapping, AS_SYNC_DONE)) continue;
      const [from, to] = [field(mapping, AS_SYNC_FROM), field(mapping, AS_SYNC_TO)];
      // Who comes from here on is not served by this pass, and begins a range of his own.
      setField(mapping, AS_SYNC_TO, 0);
      if (from === 0 && to === ALL_PAGES) yield* writeOut(task, mapping);
      else yield* writeRange(task, mapping, [from, to], Number.POSITIVE_INFINITY, always);
      setField(mapping, AS_SYNC_DONE, target);
      waits.wakeUp(progress);
    }
  }

  /** A pass over all files: as long as `goesOn`, at most `max` pages; the number written. */
  function* writeAll(task: Task, max: number, goesOn: () => boolean): Sleeping<number> {
    let nr = 0;
    for (const mapping of [...backings.keys()]) nr += yield* writeAround(task, mapping, max - nr, goesOn);
    return nr;
  }

  function* writeExpired(task: Task): Sleeping<void> {
    for (const mapping of [...backings.keys()]) {
      const age = now(task.ctx) - dirty.since(mapping);
      const isOld = dirty.since(mapping) !== 0 && age >= tunable(DIRTY_EXPIRE_CENTISECS) * CYCLES_PER_CENTISEC;
      if (isOld) yield* writeOut(task, mapping);
    }
  }

  /** When to look for old pages: never, if there are no dirty ones. */
  const deadline = (ctx: Context): number => {
    const interval = tunable(DIRTY_WRITEBACK_CENTISECS) * CYCLES_PER_CENTISEC;
    return vmstat.item(NR_FILE_DIRTY) === 0 || interval === 0 ? Number.POSITIVE_INFINITY : now(ctx) + interval;
  };

  function* flusherMain(task: Task): Sleeping<void> {
    const hasWork = (): boolean => port.ld32(state + WORK) !== 0;
    for (;;) {
      yield* waits.waitEventTimeout(queue, task, hasWork, deadline(task.ctx));
      const work = port.ld32(state + WORK);
      const nrWanted = port.ld32(state + WANTED_PAGES);
      port.st32(state + WORK, 0);
      port.st32(state + WANTED_PAGES, 0);
      yield* serveSyncs(task);
      if ((work & WORK_RECLAIM) !== 0) yield* writeAll(task, nrWanted, always);
      while (isOverBackground() && (yield* writeAll(task, Number.POSITIVE_INFINITY, isOverBackground)) > 0);
      yield* writeExpired(task);
      if ((work & WORK_CLOSE) !== 0) yield* closeFiles(task);
    }
  }

  dirty.connect(
    () => wake(WORK_TIMER),
    (ctx) => {
      if (isOverBackground()) wake(WORK_BACKGROUND);
      for (let i = 0; i < MAX_RUNS_IN_PLACE && nrUnwritten() > thresholds().limit; i++) {
        if (!writeSomeInPlace(ctx as TaskContext)) return;
      }
    },
  );

  /** Whoever waits for the file waits for these pages as well. */
  const widen = (mapping: PhysAddr, from: number, to: number): void => {
    const isFirst = field(mapping, AS_SYNC_TO) === 0;
    setField(mapping, AS_SYNC_FROM, isFirst ? from : Math.min(from, field(mapping, AS_SYNC_FROM)));
    setField(mapping, AS_SYNC_TO, isFirst ? to : Math.max(to, field(mapping, AS_SYNC_TO)));
  };

  function* syncFiles(task: Task, mappings: readonly PhysAddr[], from = 0, to = ALL_PAGES): Sleeping<void> {
    const tickets = mappings
      .filter((mapping) => backings.has(mapping) && (dirty.hasDirty(mapping) || dirty.hasWriteback(mapping)))
      .map((mapping) => {
        widen(mapping, from, to);
        setField(mapping, AS_SYNC_WANTED, field(mapping, AS_SYNC_WANTED) + 1);
        return [mapping, field(mapping, AS_SYNC_WANTED)] as const;
      });
    if (tickets.length === 0) return;
    // They must not end, and another file come to lie at their place: whoever asked may close them meanwhile.
    for (const [mapping] of tickets) files.get(mapping);
    wake(WORK_SYNC);
    const isDone = ([mapping, ticket]: readonly [PhysAddr, number]): boolean =>
      ((field(mapping, AS_SYNC_DONE) - ticket) | 0) >= 0;
    try {
      yield* waits.waitEvent(progress, task, () => tickets.every(isDone));
    } finally {
      for (const [mapping] of tickets) files.put(task.ctx, mapping);
    }
  }

  return {
    attach: (mapping, backing) => {
      backings.set(mapping, backing);
    },
    detach(mapping) {
      backings.delete(mapping);
      waits.wakeUp(progress);
    },
    backing: (mapping) => backings.get(mapping),
    mappings: () => [...backings.keys()],
    start(ctx) {
      flusher ??= deps.kthreads.run(ctx, { comm: "writeback", body: flusherMain });
      return flusher === undefined ? -ENOMEM : 0;
    },
    onClose(close) {
      closeFiles = close;
    },
    wakeToClose: () => wake(WORK_CLOSE),
    waitFor: (task, condition) => waits.waitEvent(progress, task, condition),
    announce: () => waits.wakeUp(progress),
    waitProgress: (task) => waits.waitOnTimeout(progress, task, now(task.ctx) + MAX_PAUSE_CYCLES / 2),
    writeOut,
    sync: (task, mapping, from, to) => syncFiles(task, [mapping], from, to),
    syncAll: (task) => syncFiles(task, [...backings.keys()]),
    *balance(task, mapping) {
      if (!isOverBackground()) return 0;
      wake(WORK_BACKGROUND);
      const errors = field(mapping, AS_ERRORS);
      while (isOverFreerun()) {
        if (field(mapping, AS_ERRORS) !== errors) return -EIO;
        // What is too much belongs to others, whose disk may fail: that is not this writer's fault.
        if (!dirty.hasDirty(mapping) && !dirty.hasWriteback(mapping)) return 0;
        yield* waits.waitOnTimeout(progress, task, now(task.ctx) + MAX_PAUSE_CYCLES);
        wake(WORK_BACKGROUND);
      }
      return 0;
    },
    writeInPlace,
    wakeForReclaim(nrPages) {
      port.st32(state + WANTED_PAGES, port.ld32(state + WANTED_PAGES) + nrPages);
      wake(WORK_RECLAIM);
    },
    errorsSince(mapping, seen) {
      const errors = field(mapping, AS_ERRORS);
      if (errors !== seen) setField(mapping, AS_ERRORS_SEEN, errors);
      return errors;
    },
    errorsSeen: (mapping) => field(mapping, AS_ERRORS_SEEN),
    thresholds,
    tunable,
    setTunable(nr, value) {
      limits.setTunable(nr, value);
      wake(WORK_TIMER);
    },
  };
}
