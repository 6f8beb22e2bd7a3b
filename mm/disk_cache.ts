/**
 * The page cache of disks: reading ahead, reading in place, writing into it, and dropping what is clean.
 *
 *   read()   page there? ──yes──▶ copy                   write()  page there, or written over whole? ─▶ copy, dirty
 *              └─no─▶ frames ─▶ sleep while the disk reads ─▶ into the tree    └─no─▶ read it first
 *   fault    page there? ──yes──▶ entry
 *              └─no─▶ frames ─▶ read in place, with neighbours ─▶ into the tree (adr/0010-a-fault-waits-in-place.md)
 *
 * A page is put into the tree when it has its content, never before (FMAP-5). So nobody has to wait for a page that
 * somebody else is reading, which a fault could not do; two who miss the same page may both read it, and the second
 * finds the first's. But a sleeper may come back with old news: meanwhile the page was there, was written, reached the
 * disk, and was evicted. So whoever slept looks whether anything was written to it since (AS_WRITES), and reads again
 * if so; the third time in place, where nobody can come between.
 *
 * Readahead: the window doubles from 4 pages to 32 as long as reads follow each other; a fault reads up to 8 pages of
 * its aligned window, unless madvise said that the access is random. Pages read in addition are a gift: neither their
 * bad sectors nor their want of memory is the reader's.
 *
 *   DSC-1  what a reader gets is what was last written to the page, by anybody, through the cache
 *   DSC-2  a failed read puts nothing into the tree and keeps no frame
 *   DSC-3  dropping touches no page that is dirty, mapped, under writeback, or in somebody's hands
 *
 * Context: process. Linux: mm/filemap.c, mm/readahead.c, fs/drop_caches.c.
 */

import { CYC_PER_LINE } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import type { Task } from "../kernel/task.ts";
import {
  asPfn,
  type Context,
  NO_PFN,
  type Pfn,
  type PhysAddr,
  pfnToPhys,
  type Sleeping,
  type TaskContext,
} from "../kernel/types.ts";
import { EIO, ENODEV, ENOMEM } from "../kernel/uapi/errno.ts";
import { type FileMap, fileByte } from "./filemap.ts";
import { __GFP_NORETRY, __GFP_NOWARN, GFP_HIGHUSER_MOVABLE, type Gfp } from "./gfp.ts";
import type { Lru } from "./lru.ts";
import { AS_NR_SHADOWS, AS_WRITES } from "./mm_struct.ts";
import {
  type Pages,
  PG_ACTIVE,
  PG_DIRTY,
  PG_LRU,
  PG_REFERENCED,
  PG_UNEVICTABLE,
  PG_UPTODATE,
  PG_WORKINGSET,
  PG_WRITEBACK,
} from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import type { DirtyPages } from "./page_dirty.ts";
import { PGACTIVATE, type VmStat } from "./vmstat.ts";
import type { WorkingSet } from "./workingset.ts";
import type { Writeback } from "./writeback.ts";

const MIN_AHEAD = 4;
const MAX_AHEAD = 32;
/** Pages around a fault. */
const FAULT_WINDOW = 8;
/** Reads asleep that come too late, before one in place. */
const MAX_STALE_READS = 2;

/** How an open file is read: what readahead learns from. */
export interface ReadPattern {
  /** Page after the last read. */
  next: number;
  window: number;
}
export const newPattern = (): ReadPattern => ({ next: 0, window: 0 });

export interface DiskCache {
  /** Copies `[position, position + bytes)`, which lies in the file; what came before an error, or −errno. */
  read(
    task: Task,
    file: PhysAddr,
    position: number,
    bytes: number,
    pattern: ReadPattern,
  ): Sleeping<Uint8Array | number>;
  /** Writes into the cache: bytes, or −errno. */
  write(task: Task, file: PhysAddr, position: number, source: Uint8Array): Sleeping<number>;
  /** Pages `[first, end)` of the disk itself have changed: what the cache has of them goes, if it can (DSC-3). */
  invalidate(ctx: Context, file: PhysAddr, first: number, end: number): number;
  /** drop_caches: all clean pages of all disks; how many. */
  dropAll(ctx: Context): number;
  /** Evicted pages of which a shadow is kept. */
  nrShadows(): number;
  dropShadows(ctx: Context, nr: number): number;
}

export interface DiskCacheDeps {
  readonly machine: Machine;
  readonly pages: Pages;
  readonly pageAlloc: PageAllocator;
  readonly lru: Lru;
  readonly vmstat: VmStat;
  readonly files: FileMap;
  readonly dirty: DirtyPages;
  readonly workingSet: WorkingSet;
  readonly writeback: Writeback;
  /** Is there memory for what nobody has asked for yet? */
  readonly hasSpare: () => boolean;
  readonly interruptPoint: (ctx: Context) => void;
}

export function createDiskCache(deps: DiskCacheDeps): DiskCache {
  const { machine, pages, pageAlloc, lru, vmstat, files, dirty, workingSet, writeback, hasSpare } = deps;
  const { port, harts } = machine;
  const { clock } = harts;
  const nrWrites = (file: PhysAddr): number => port.ld32(file + AS_WRITES);
  const nrPagesOf = (file: PhysAddr): number => Math.ceil(files.sizeBytes(file) / PAGE_SIZE);
  const charge = (ctx: Context, bytes: number): void => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_PER_LINE * Math.ceil(bytes / 64);
  };

  /** Pages from `index` on that are not there, at most `max`. */
  const absentRun = (file: PhysAddr, index: number, max: number): number => {
    const end = Math.min(index + max, nrPagesOf(file));
    let nr = 1;
    while (index + nr < end && files.find(file, index + nr) === NO_PFN) nr++;
    return nr;
  };

  /** A frame with its content becomes page `index`; false without memory, and it is still the caller's. */
  const settle = (ctx: Context, file: PhysAddr, index: number, pfn: Pfn): boolean => {
    const shadow = files.shadow(file, index);
    if (!files.insert(ctx, file, index, pfn)) return false;
    pages.addFlags(pfn, PG_UPTODATE);
    if (workingSet.refault(ctx, pfn, shadow)) pages.addFlags(pfn, PG_ACTIVE | PG_WORKINGSET);
    lru.add(ctx, pfn);
    return true;
  };

  const spareGfp = (GFP_HIGHUSER_MOVABLE | __GFP_NORETRY | __GFP_NOWARN) as Gfp;
  const release = (ctx: Context, frames: readonly number[]): void => {
    for (const frame of frames) pageAlloc.freePages(ctx, asPfn(frame), 0);
  };

  /** Read a second time: active. The page is on a list or in reclaim's hands. */
  const markAccessed = (ctx: Context, pfn: Pfn): void => {
    const flags = pages.flags(pfn);
    if ((flags & (PG_UNEVICTABLE | PG_ACTIVE)) !== 0) return;
    if ((flags & PG_REFERENCED) === 0) pages.addFlags(pfn, PG_REFERENCED);
    else if ((flags & PG_LRU) !== 0) {
      pages.clearFlags(pfn, PG_REFERENCED);
      lru.activate(ctx, pfn);
      vmstat.countEvents(ctx, PGACTIVATE, 1);
    }
  };

  // ── In place ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Reads pages `[first, first + nr)`, none of which is there; 0 or −errno. */
  const readRun = (ctx: Context, file: PhysAddr, first: number, nr: number, gfp: Gfp): number => {
    const frames: number[] = [];
    while (frames.length < nr) {
      const pfn = pageAlloc.tryAllocPages(ctx, 0, gfp);
      if (pfn === NO_PFN) break;
      frames.push(pfn);
    }
    const io = writeback.backing(file)?.io;
    const isWhole = frames.length === nr;
    let error = isWhole ? (io === undefined ? -ENODEV : 0) : -ENOMEM;
    if (error === 0) error = io?.read(ctx as TaskContext, first, Int32Array.from(frames), nr) ?? -ENODEV;
    let nrSettled = 0;
    while (error === 0 && nrSettled < nr) {
      if (!settle(ctx, file, first + nrSettled, asPfn(frames[nrSettled] as number))) break;
      nrSettled++;
    }
    release(ctx, frames.slice(nrSettled));
    return error === 0 && nrSettled < nr ? -ENOMEM : error;
  };

  /** The run of absent pages around `index` in its aligned window. */
  const around = (file: PhysAddr, index: number): readonly [first: number, nr: number] => {
    if (!hasSpare()) return [index, 1];
    const start = index - (index % FAULT_WINDOW);
    let first = index;
    while (first > start && files.find(file, first - 1) === NO_PFN) first--;
    return [first, absentRun(file, first, start + FAULT_WINDOW - first)];
  };

  const readInPlace = (ctx: Context, file: PhysAddr, index: number, isAlone: boolean): number => {
    const [first, nr] = isAlone ? [index, 1] : around(file, index);
    if (nr > 1) readRun(ctx, file, first, nr, spareGfp);
    const found = files.find(file, index);
    if (found !== NO_PFN) return found;
    const error = readRun(ctx, file, index, 1, (GFP_HIGHUSER_MOVABLE | __GFP_NOWARN) as Gfp);
    if (error === 0) return files.find(file, index);
    // A page fault knows two reasons: no memory, and a page that cannot be had.
    return error === -ENOMEM ? error : -EIO;
  };
  files.onRead(readInPlace);

  // ── Asleep ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Frames for `nr` pages: the first may sleep, the others are taken if they are there. */
  function* takeFrames(task: Task, frames: number[], nr: number): Sleeping<void> {
    while (frames.length < nr) {
      let pfn = frames.length > 0 ? pageAlloc.tryAllocPages(task.ctx, 0, spareGfp) : NO_PFN;
      if (frames.length === 0) {
        const first = pageAlloc.allocPages(task.ctx, 0, GFP_HIGHUSER_MOVABLE);
        pfn = typeof first === "object" ? yield* first : first;
      }
      if (pfn === NO_PFN) return;
      frames.push(pfn);
    }
  }

  /** The frame of page `index`, read if it is not there, with up to `ahead` − 1 of those behind; −errno. */
  function* bringIn(task: Task, file: PhysAddr, index: number, ahead: number): Sleeping<number> {
    const { ctx } = task;
    const frames: number[] = [];
    let window = ahead;
    // A fatal signal may unwind it while it waits: the frames go back then, too.
    try {
      for (let nrStale = 0; nrStale < MAX_STALE_READS; ) {
        const found = files.find(file, index);
        if (found !== NO_PFN) return found;
        yield* takeFrames(task, frames, absentRun(file, index, window));
        if (frames.length === 0) return -ENOMEM;
        if (files.find(file, index) !== NO_PFN) continue;
        const nr = Math.min(frames.length, absentRun(file, index, window));
        const before = nrWrites(file);
        const got = yield* writeback.backing(file)?.io.readSleeping(task, index, nr) ?? noDevice();
        if (typeof got === "number") {
          if (nr === 1 || got === -ENODEV) return got;
          window = 1;
          continue;
        }
        if (nrWrites(file) !== before) nrStale++;
        else {
          for (let i = 0; i < nr; i++) {
            if (files.find(file, index + i) !== NO_PFN) continue;
            const pfn = asPfn(frames[frames.length - 1] as number);
            port.writeBytes(pfnToPhys(pfn), got.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE));
            if (!settle(ctx, file, index + i, pfn)) return -ENOMEM;
            frames.pop();
          }
        }
      }
      // The last read slept as well: who wrote meanwhile may have brought the page in.
      const found = files.find(file, index);
      return found !== NO_PFN ? found : readInPlace(ctx, file, index, false);
    } finally {
      release(ctx, frames);
    }
  }
  function* noDevice(): Sleeping<number> {
    return -ENODEV;
  }

  /** A page that is about to be written over as a whole. */
  function* fresh(task: Task, file: PhysAddr, index: number): Sleeping<number> {
    const frames: number[] = [];
    try {
      yield* takeFrames(task, frames, 1);
      const found = files.find(file, index);
      if (found !== NO_PFN) return found;
      if (frames.length === 0 || !settle(task.ctx, file, index, asPfn(frames[0] as number))) return -ENOMEM;
      return frames.pop() as number;
    } finally {
      release(task.ctx, frames);
    }
  }

  /** Pages to read at once when a read comes to `index`. */
  const windowFor = (pattern: ReadPattern, index: number, nrWanted: number): number => {
    const follows = index === pattern.next || index === pattern.next - 1;
    pattern.window = follows ? Math.min(MAX_AHEAD, Math.max(MIN_AHEAD, pattern.window * 2)) : 0;
    return Math.min(MAX_AHEAD, Math.max(pattern.window, nrWanted));
  };

  const dropPage = (ctx: Context, pfn: Pfn): boolean => {
    const isBusy = (pages.flags(pfn) & (PG_DIRTY | PG_WRITEBACK)) !== 0 || pages.refcount(pfn) !== 1;
    if (isBusy || pages.mapcount(pfn) !== 0) return false;
    files.evict(ctx, pfn, -1);
    return true;
  };
  const dropRange = (ctx: Context, file: PhysAddr, first: number, end: number): number => {
    let nr = 0;
    for (let index = first; index < end; index++) {
      const pfn = files.find(file, index);
      if (pfn !== NO_PFN && dropPage(ctx, pfn)) nr++;
      if (index % FAULT_WINDOW === 0) deps.interruptPoint(ctx);
    }
    return nr;
  };

  return {
    *read(task, file, position, bytes, pattern) {
      const out = new Uint8Array(bytes);
      const end = Math.ceil((position + bytes) / PAGE_SIZE);
      for (let done = 0; done < bytes; ) {
        const at = position + done;
        const index = Math.floor(at / PAGE_SIZE);
        const n = Math.min(bytes - done, PAGE_SIZE - (at % PAGE_SIZE));
        const there = files.find(file, index);
        const got =
          there === NO_PFN ? yield* bringIn(task, file, index, windowFor(pattern, index, end - index)) : there;
        if (got <= 0) return done > 0 ? out.subarray(0, done) : got;
        out.set(port.readBytes(fileByte(asPfn(got), at), n), done);
        markAccessed(task.ctx, asPfn(got));
        charge(task.ctx, n);
        pattern.next = index + 1;
        done += n;
        deps.interruptPoint(task.ctx);
      }
      return out;
    },
    *write(task, file, position, source) {
      for (let done = 0; done < source.length; ) {
        const at = position + done;
        const index = Math.floor(at / PAGE_SIZE);
        const n = Math.min(source.length - done, PAGE_SIZE - (at % PAGE_SIZE));
        const error = yield* writeback.balance(task, file);
        let got = error < 0 ? error : files.find(file, index);
        if (got === NO_PFN)
          got = n === PAGE_SIZE ? yield* fresh(task, file, index) : yield* bringIn(task, file, index, 1);
        if (got < 0) return done > 0 ? done : got;
        const pfn = asPfn(got);
        port.writeBytes(fileByte(pfn, at), source.subarray(done, done + n));
        dirty.mark(task.ctx, pfn);
        markAccessed(task.ctx, pfn);
        charge(task.ctx, n);
        done += n;
        deps.interruptPoint(task.ctx);
      }
      return source.length;
    },
    invalidate(ctx, file, first, end) {
      port.st32(file + AS_WRITES, (nrWrites(file) + 1) >>> 0);
      return dropRange(ctx, file, first, end);
    },
    dropAll(ctx) {
      let nr = 0;
      for (const file of writeback.mappings()) nr += dropRange(ctx, file, 0, nrPagesOf(file));
      return nr;
    },
    nrShadows: () => writeback.mappings().reduce((sum, file) => sum + port.ld32(file + AS_NR_SHADOWS), 0),
    dropShadows(ctx, nr) {
      let nrDropped = 0;
      for (const file of writeback.mappings()) nrDropped += files.dropShadows(ctx, file, nr - nrDropped);
      return nrDropped;
    },
  };
}
