/**
 * Replaying a recorded kernel: its page and slab calls, made again inside this one.
 *
 * One kernel thread walks the recording and makes each call on the CPU, at the interrupt level and with the order, GFP
 * mask and cache that were recorded. (All CPUs are executed by one host thread, so the replayer acts for the CPU of
 * the event: per-CPU lists and magazines are that CPU's, its clock pays.) What was live before the recording began is
 * allocated first, so that every recorded free frees something.
 *
 * Content is checked: the first word of each page and object is stamped with its slot and looked at before the free;
 * a stamp that changed means that two owners had the memory.
 *
 *   KRP-1  after the run everything the replay allocated is free again
 *   KRP-2  a free whose allocation failed here is skipped, and counted
 */

import { __GFP_NOWARN, GFP_KERNEL, type KmemCache, NO_CACHE, type PageAllocator } from "../../mm/index.ts";
import type { Machine } from "../arch/machine.ts";
import { type ContextTracking, HARDIRQ_OFFSET, SOFTIRQ_OFFSET } from "../context.ts";
import { PAGE_SIZE } from "../params.ts";
import { KERN_ERR, type Printk } from "../printk.ts";
import type { Scheduler } from "../sched.ts";
import { asPfn, asPhys, type Context, PREEMPTED, type Sleeping, type TaskContext } from "../types.ts";
import type { ProgramObserver } from "../uapi/program.ts";
import {
  type KernelRecording,
  KMEM_CACHE_FREE,
  KMEM_IN_HARDIRQ,
  KMEM_IN_TASK,
  KMEM_KFREE,
  KMEM_KMALLOC,
  KMEM_PAGE_ALLOC,
  KMEM_PAGE_FREE,
} from "../uapi/recording.ts";

/** The object allocators as the replayer uses them. */
export interface ReplayHeap {
  kmalloc(ctx: Context, bytes: number, gfp: number): number;
  kfree(ctx: Context, addr: number): number;
  cacheAlloc(ctx: Context, cache: KmemCache, gfp: number): number;
  cacheFree(ctx: Context, cache: KmemCache, addr: number): number;
  createCache(ctx: TaskContext, name: string, bytes: number): KmemCache;
  destroyCache(ctx: TaskContext, cache: KmemCache): number;
}

export interface ReplayDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly scheduler: Scheduler;
  readonly printk: Printk;
  readonly pageAlloc: PageAllocator;
  readonly heap: ReplayHeap;
  /** Replays that this kernel has begun before: no two caches may have one name. */
  readonly nrBefore: number;
}

const EVENTS_PER_POLL = 64;

/** The body of the replaying thread: exit status 0, or 1 if memory was lost or corrupted. */
export function* kernelReplay(
  deps: ReplayDeps,
  recording: KernelRecording,
  observer: ProgramObserver,
  taskCtx: TaskContext,
): Sleeping<number> {
  const replay = createReplay(deps, recording, taskCtx, observer);
  replay.prelude();
  yield PREEMPTED;
  for (let next = 0; next < recording.nrEvents; ) {
    const pollAt = Math.ceil(next / EVENTS_PER_POLL) * EVENTS_PER_POLL;
    next = replay.events(next, Math.min(pollAt + 1, recording.nrEvents));
    if (deps.scheduler.timeIsUp(taskCtx.cpu)) yield PREEMPTED;
  }
  return replay.finish();
}

function createReplay(deps: ReplayDeps, recording: KernelRecording, taskCtx: TaskContext, observer: ProgramObserver) {
  const { machine, contexts, pageAlloc, heap, printk } = deps;
  const { port, harts } = machine;
  const { irqOn, clock } = harts;
  const addrOf = new Float64Array(recording.nrSlots);
  const kindOf = new Uint8Array(recording.nrSlots);
  const orderOf = new Uint8Array(recording.nrSlots);
  const cacheOf = new Uint16Array(recording.nrSlots);
  let nrCorrupted = 0;

  const prefix = deps.nrBefore === 0 ? "rec" : `rec${deps.nrBefore}.`;
  const caches = recording.caches.map((cache, i) => {
    if (cache.objectSizeBytes === 0) return undefined;
    const made = heap.createCache(taskCtx, `${prefix}${i}:${cache.name}`.slice(0, 31), cache.objectSizeBytes);
    // For want of memory: its allocations fail.
    return made === NO_CACHE ? undefined : made;
  });

  const stamp = (slot: number): number => (slot ^ 0x51ab_7040) >>> 0;

  const remember = (slot: number, addr: number, kind: number, order: number, cache: number): boolean => {
    addrOf[slot] = addr;
    kindOf[slot] = kind;
    orderOf[slot] = order;
    cacheOf[slot] = cache;
    // 16 is what kmalloc(0) returns: an address without memory behind it.
    if (addr > 16) port.st32(addr, stamp(slot));
    return addr !== 0;
  };

  const allocate = (ctx: Context, kind: number, order: number, bytes: number, cache: number, gfp: number): number => {
    // The replay never sleeps: a mask that would may still use what it entitles to.
    const mask = gfp | __GFP_NOWARN;
    if (kind === KMEM_PAGE_ALLOC) return pageAlloc.tryAllocPages(ctx, order, mask) * PAGE_SIZE;
    if (kind === KMEM_KMALLOC) return heap.kmalloc(ctx, bytes, mask);
    const target = caches[cache];
    return target === undefined ? 0 : heap.cacheAlloc(ctx, target, mask);
  };

  const release = (ctx: Context, slot: number): boolean => {
    const addr = addrOf[slot] as number;
    if (addr === 0) return false;
    addrOf[slot] = 0;
    if (addr > 16 && port.ld32(addr) !== stamp(slot)) {
      nrCorrupted++;
      printk(KERN_ERR, `kmem_replay: memory at 0x${addr.toString(16)} changed while slot ${slot} owned it`);
    }
    const kind = kindOf[slot] as number;
    if (kind === KMEM_PAGE_ALLOC)
      return pageAlloc.freePages(ctx, asPfn(addr / PAGE_SIZE), orderOf[slot] as number) === 0;
    if (kind === KMEM_KMALLOC) return heap.kfree(ctx, asPhys(addr)) === 0;
    return heap.cacheFree(ctx, caches[cacheOf[slot] as number] as KmemCache, addr) === 0;
  };

  /** Puts the event's CPU into its recorded context. */
  const enter = (i: number): Context => {
    const cpu = (recording.cpu[i] as number) % harts.nrCpus;
    const level = recording.context[i] as number;
    if (level === KMEM_IN_TASK) {
      const ctx = cpu === taskCtx.cpu ? taskCtx : contexts.taskContext(cpu);
      if (recording.irqsOff[i] === 1) irqOn[cpu] = 0;
      return ctx;
    }
    const ctx = contexts.irqContext(cpu);
    contexts.add(ctx, level === KMEM_IN_HARDIRQ ? HARDIRQ_OFFSET : SOFTIRQ_OFFSET);
    if (level === KMEM_IN_HARDIRQ || recording.irqsOff[i] === 1) irqOn[cpu] = 0;
    return ctx;
  };

  const leave = (i: number, ctx: Context): void => {
    const level = recording.context[i] as number;
    if (level !== KMEM_IN_TASK) contexts.subtract(ctx, level === KMEM_IN_HARDIRQ ? HARDIRQ_OFFSET : SOFTIRQ_OFFSET);
    irqOn[ctx.cpu] = 1;
  };

  /** Makes one recorded call; false if it failed. */
  const perform = (i: number, kind: number, ctx: Context): boolean => {
    const slot = recording.slot[i] as number;
    if (kind === KMEM_PAGE_FREE || kind === KMEM_KFREE || kind === KMEM_CACHE_FREE) return release(ctx, slot);
    const order = recording.order[i] as number;
    const cache = recording.cache[i] as number;
    const gfp = recording.gfp[i] as number;
    const addr = allocate(ctx, kind, order, recording.sizeBytes[i] as number, cache, gfp);
    return remember(slot, addr, kind, order, cache);
  };

  return {
    prelude() {
      for (let i = 0; i < recording.preludeSlot.length; i++) {
        const kind = recording.preludeEvent[i] as number;
        const order = recording.preludeOrder[i] as number;
        const cache = recording.preludeCache[i] as number;
        const addr = allocate(taskCtx, kind, order, 8, cache, GFP_KERNEL);
        remember(recording.preludeSlot[i] as number, addr, kind, order, cache);
      }
    },
    /** Makes the calls [from, to); `to`. A plain function: V8 compiles it while the replay's generator still runs. */
    events(from: number, to: number): number {
      for (let i = from; i < to; i++) {
        const kind = recording.event[i] as number;
        const ctx = enter(i);
        const before = clock[ctx.cpu] as number;
        const isGood = perform(i, kind, ctx);
        observer.operation(kind, (clock[ctx.cpu] as number) - before, !isGood);
        leave(i, ctx);
      }
      return to;
    },
    /** Frees what is left; destroying the caches proves that nothing is missing (KRP-1). */
    finish(): number {
      for (let slot = 0; slot < recording.nrSlots; slot++) if (addrOf[slot] !== 0) release(taskCtx, slot);
      let nrLost = 0;
      for (const cache of caches) if (cache !== undefined && heap.destroyCache(taskCtx, cache) !== 0) nrLost++;
      return nrLost + nrCorrupted === 0 ? 0 : 1;
    },
  };
}
