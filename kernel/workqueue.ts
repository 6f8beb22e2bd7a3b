/**
 * Work queues: functions that are run soon, by a thread, and may sleep.
 *
 * 1. A work item is 24 bytes of its owner's memory. Queueing puts it on the list of a pool; a worker thread of the pool
 *    takes it off and calls its function. There is a pool for each CPU, whose workers kworker/N:M run on that CPU only,
 *    and one unbound pool, whose workers kworker/uM run anywhere.
 *
 * 2. How many workers? One that runs is enough; one that sleeps inside a function must not hold up the works behind it.
 *    So a worker that finds works waiting when it is about to sleep wakes an idle worker, or asks for a new one
 *    (Linux's concurrency management). A pool has 16 workers at most; a worker that is idle beside an idle one ends.
 *
 * 3. An item that was queued and has not begun is *pending*: queueing it again has no effect. It stops being pending
 *    before its function is called, so the function may queue it again, or free it: it is not touched afterwards.
 *
 *      idle ──queueWork──▶ pending ──worker takes it──▶ running ──▶ idle
 *                                                         └──queueWork──▶ pending and running: begins after the end
 *
 *   offset  width  field    meaning
 *   +0      8      node     of a pool's list; points to itself when on none
 *   +8      u32    fn       number that registerWorkFn() gave
 *   +12     u32    state    PENDING 1, CANCELLING 2, DELAYED 4 (its timer waits)
 *   +16     u32    started  executions begun
 *   +20     u32    pool     where a delayed work goes: CPU, or nrCpus for the unbound pool
 *   +24     32     timer    of a delayed work only
 *
 *   WQ-2   queued once or more while pending, a work runs once
 *   WQ-3   one work never runs twice at the same time, on whichever pool it is queued
 *   WQ-4   a pool with works and none of its workers running has a worker on its way (or no memory for one)
 *   WQ-5   after flushWork the execution that was pending or running at the call is over
 *   WQ-6   after cancelWorkSync the work is neither pending nor running, even if it queues itself
 *   WQ-7   pools, lists and who runs what are in RAM; the host holds the functions and the threads' code
 *
 * Locks: none; lists are touched with interrupts off. Source: Linux `kernel/workqueue.c`.
 */

import type { Machine } from "./arch/machine.ts";
import { bugOn } from "./bug.ts";
import type { ContextTracking } from "./context.ts";
import type { KernelImage } from "./image.ts";
import type { Kthreads } from "./kthread.ts";
import { initListHead, listAddTail, listCount, listDel, listIsEmpty, listNext } from "./lib/list.ts";
import type { PerCpu } from "./percpu.ts";
import type { Scheduler } from "./sched.ts";
import type { Task, Tasks } from "./task.ts";
import { TIMER_BYTES, type Timers } from "./timer.ts";
import { asPhys, BLOCKED, type Context, fromGranule, NULL, type PhysAddr, type Sleeping, toGranule } from "./types.ts";
import type { WaitQueues } from "./wait.ts";

export type WorkFn = (task: Task, work: PhysAddr) => Sleeping<void>;

export const WORK_BYTES = 24;
const WORK_FN = 8;
const WORK_STATE = 12;
const WORK_STARTED = 16;
const WORK_POOL = 20;
const WORK_TIMER = 24;
export const DELAYED_WORK_BYTES = WORK_TIMER + TIMER_BYTES;

const PENDING = 1;
const CANCELLING = 2;
const DELAYED = 4;

export const MAX_WORKERS = 16;
/** A pool: list head, number of requested workers, next worker's number, then a slot for each worker. */
const POOL_LIST = 0;
const POOL_REQUESTED = 8;
const POOL_NEXT_ID = 12;
const POOL_SLOTS = 16;
/** A worker: granule of its task (0: no worker), state, granule of its work, number of that execution. */
const SLOT_TASK = 0;
const SLOT_STATE = 4;
const SLOT_WORK = 8;
const SLOT_STARTED = 12;
const SLOT_BYTES = 16;
const POOL_BYTES = POOL_SLOTS + MAX_WORKERS * SLOT_BYTES;

const WORKER_IDLE = 0;
const WORKER_RUNS = 1;
/** Asleep inside a function. */
const WORKER_SLEEPS = 2;

export interface Workqueues {
  registerWorkFn(fn: WorkFn): number;
  /** Makes the WORK_BYTES at `work` (8-aligned) an idle work. */
  initWork(work: PhysAddr, fn: number): void;
  /** The same for DELAYED_WORK_BYTES: it may also be queued at once. */
  initDelayedWork(work: PhysAddr, fn: number): void;
  /** Queues on this CPU's pool; false if it is pending, or is being cancelled. Any context but NMI. */
  queueWork(ctx: Context, work: PhysAddr): boolean;
  /** Queues on the unbound pool: for long or parallel work. */
  queueWorkUnbound(ctx: Context, work: PhysAddr): boolean;
  /** Queues on this CPU's pool after a time; false if it is pending. */
  queueDelayedWork(ctx: Context, work: PhysAddr, delayCycles: number): boolean;
  /** Waits for the execution that is pending or running now; at once if there is none. Not from the work itself. */
  flushWork(task: Task, work: PhysAddr): Sleeping<void>;
  /** Takes back what is pending and waits for what runs; true if it was pending. Not from the work itself. */
  cancelWorkSync(task: Task, work: PhysAddr): Sleeping<boolean>;
  /** Waits until no work is pending or running anywhere, delayed ones left out. */
  drain(task: Task): Sleeping<void>;
  isPending(work: PhysAddr): boolean;
  /** Works pending in all pools, delayed ones left out; works running. */
  nrPending(): number;
  nrRunning(): number;
  /** Moves what waits on the pool of an offline CPU to this one's. */
  adopt(ctx: Context, cpu: number): void;
}

export interface WorkqueueDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly tasks: Tasks;
  readonly scheduler: Scheduler;
  readonly waits: WaitQueues;
  readonly kthreads: Kthreads;
  readonly timers: Timers;
}

/** Reserves the pools; the result makes the subsystem once there are tasks. */
export function createWorkqueues(
  machine: Machine,
  image: KernelImage,
  percpu: PerCpu,
): (deps: WorkqueueDeps) => Workqueues {
  const POOL = percpu.define("worker_pool", POOL_BYTES, 8);
  const unbound = image.bss("unbound_pool", POOL_BYTES + 8, 8);
  const { nrCpus } = machine.harts;
  const poolOf = (index: number): PhysAddr => (index === nrCpus ? unbound : asPhys(percpu.areaOf(index) + POOL));
  return (deps) => bindWorkqueues(deps, poolOf, asPhys(unbound + POOL_BYTES));
}

function bindWorkqueues(deps: WorkqueueDeps, poolOf: (index: number) => PhysAddr, finished: PhysAddr): Workqueues {
  const { machine, contexts, tasks, scheduler, waits, kthreads, timers } = deps;
  const { port, harts } = machine;
  const unboundIndex = harts.nrCpus;
  const fns: WorkFn[] = [];

  for (let index = 0; index <= unboundIndex; index++) initListHead(port, asPhys(poolOf(index) + POOL_LIST));
  waits.init(finished);

  const add = (addr: number, delta: number): void => port.st32(addr, port.ld32(addr) + delta);
  const state = (work: PhysAddr): number => port.ld32(work + WORK_STATE);
  const setState = (work: PhysAddr, bits: number): void => port.st32(work + WORK_STATE, bits);
  const slotOf = (pool: PhysAddr, i: number): PhysAddr => asPhys(pool + POOL_SLOTS + i * SLOT_BYTES);

  /** The first slot of a pool for which `matches`, or NULL. */
  const findSlot = (pool: PhysAddr, matches: (slot: PhysAddr) => boolean): PhysAddr => {
    for (let i = 0; i < MAX_WORKERS; i++) if (matches(slotOf(pool, i))) return slotOf(pool, i);
    return NULL;
  };
  const isWorker = (slot: PhysAddr, workerState: number): boolean =>
    port.ld32(slot + SLOT_TASK) !== 0 && port.ld32(slot + SLOT_STATE) === workerState;

  /** The slot that executes `work`, on whichever pool, and the index of that pool. */
  const executing = (work: PhysAddr): { slot: PhysAddr; index: number } | undefined => {
    const granule = toGranule(work);
    for (let index = 0; index <= unboundIndex; index++) {
      const slot = findSlot(
        poolOf(index),
        (at) => port.ld32(at + SLOT_TASK) !== 0 && port.ld32(at + SLOT_WORK) === granule,
      );
      if (slot !== NULL) return { slot, index };
    }
    return undefined;
  };

  /** The first work of a pool that is not executing elsewhere (WQ-3), or NULL. */
  const firstRunnable = (pool: PhysAddr): PhysAddr => {
    const head = asPhys(pool + POOL_LIST);
    for (let work = listNext(port, head); work !== head; work = listNext(port, work)) {
      if (executing(work) === undefined) return work;
    }
    return NULL;
  };

  // ── Workers ──────────────────────────────────────────────────────────────────────────────────────────────────────

  const run = function* (task: Task, slot: PhysAddr, index: number, work: PhysAddr): Sleeping<void> {
    const flags = contexts.localIrqSave(task.ctx);
    listDel(port, work);
    setState(work, state(work) & ~PENDING);
    add(work + WORK_STARTED, 1);
    port.st32(slot + SLOT_WORK, toGranule(work));
    port.st32(slot + SLOT_STARTED, port.ld32(work + WORK_STARTED));
    port.st32(slot + SLOT_STATE, WORKER_RUNS);
    contexts.localIrqRestore(task.ctx, flags);
    const rest = (fns[port.ld32(work + WORK_FN)] as WorkFn)(task, work);
    try {
      for (let step = rest.next(); step.done !== true; step = rest.next()) {
        if (step.value === BLOCKED) {
          port.st32(slot + SLOT_STATE, WORKER_SLEEPS);
          ensureWorker(index);
        }
        yield step.value;
        port.st32(slot + SLOT_STATE, WORKER_RUNS);
      }
    } finally {
      // The work may be freed by now, and an oops ends the worker: only the slot is touched.
      port.st32(slot + SLOT_WORK, 0);
      waits.wakeUp(finished);
    }
  };

  function* worker(task: Task, index: number): Sleeping<void> {
    const pool = poolOf(index);
    const slot = findSlot(pool, (at) => port.ld32(at + SLOT_TASK) === toGranule(task.struct));
    try {
      for (;;) {
        const work = firstRunnable(pool);
        if (work !== NULL) {
          yield* run(task, slot, index, work);
          continue;
        }
        // One idle worker stays for the next work; more are not worth their stacks.
        if (findSlot(pool, (at) => at !== slot && isWorker(at, WORKER_IDLE)) !== NULL) return;
        port.st32(slot + SLOT_STATE, WORKER_IDLE);
        scheduler.prepareToBlock(task);
        yield BLOCKED;
        port.st32(slot + SLOT_STATE, WORKER_RUNS);
      }
    } finally {
      port.st32(slot + SLOT_TASK, 0);
      ensureWorker(index);
    }
  }

  const requestWorker = (index: number): void => {
    const pool = poolOf(index);
    const id = port.ld32(pool + POOL_NEXT_ID);
    add(pool + POOL_REQUESTED, 1);
    add(pool + POOL_NEXT_ID, 1);
    const bound = index === unboundIndex ? {} : { cpu: index };
    const comm = index === unboundIndex ? `kworker/u${id}` : `kworker/${index}:${id}`;
    kthreads.request({ comm, ...bound, body: (task) => worker(task, index) }, (task) => {
      add(pool + POOL_REQUESTED, -1);
      const slot = findSlot(pool, (at) => port.ld32(at + SLOT_TASK) === 0);
      port.fill(slot, 0, SLOT_BYTES);
      port.st32(slot + SLOT_STATE, WORKER_RUNS);
      port.st32(slot + SLOT_TASK, toGranule(task.struct));
    });
  };

  /** WQ-4. */
  const ensureWorker = (index: number): void => {
    const pool = poolOf(index);
    if (port.ld32(pool + POOL_REQUESTED) !== 0 || firstRunnable(pool) === NULL) return;
    if (findSlot(pool, (slot) => isWorker(slot, WORKER_RUNS)) !== NULL) return;
    const idle = findSlot(pool, (slot) => isWorker(slot, WORKER_IDLE));
    if (idle !== NULL) {
      const task = tasks.at(fromGranule(port.ld32(idle + SLOT_TASK)));
      port.st32(idle + SLOT_STATE, WORKER_RUNS);
      if (task !== undefined && index === unboundIndex) scheduler.wake(task);
      else if (task !== undefined) kthreads.wake(task, index);
    } else if (findSlot(pool, (slot) => port.ld32(slot + SLOT_TASK) === 0) !== NULL) requestWorker(index);
  };

  // ── Queueing ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const insertLocked = (work: PhysAddr, index: number): void => {
    // WQ-3: a work that runs goes where it runs, so that only one pool has to look.
    const target = executing(work)?.index ?? index;
    listAddTail(port, work, asPhys(poolOf(target) + POOL_LIST));
    ensureWorker(target);
  };

  const queue = (ctx: Context, work: PhysAddr, index: number): boolean => {
    bugOn(contexts.inNmi(ctx), "workqueue: queued from an NMI", work);
    const flags = contexts.localIrqSave(ctx);
    const isNew = (state(work) & (PENDING | CANCELLING)) === 0;
    if (isNew) {
      setState(work, state(work) | PENDING);
      insertLocked(work, index);
    }
    contexts.localIrqRestore(ctx, flags);
    return isNew;
  };

  const timerFn = timers.registerTimerFn((_ctx, timer) => {
    const work = asPhys(timer - WORK_TIMER);
    setState(work, state(work) & ~DELAYED);
    insertLocked(work, port.ld32(work + WORK_POOL));
  });

  // ── Waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** True after a report: a task that waits for the work it executes would wait for ever. */
  const isItself = (task: Task, work: PhysAddr, where: string): boolean => {
    const found = executing(work);
    if (found === undefined || port.ld32(found.slot + SLOT_TASK) !== toGranule(task.struct)) return false;
    contexts.warn(task.ctx, where, "workqueue: a work waits for itself");
    return true;
  };

  function* flush(task: Task, work: PhysAddr): Sleeping<void> {
    if (isItself(task, work, "kernel/workqueue.ts:flushWork")) return;
    const isQueued = (state(work) & PENDING) !== 0;
    const target = (port.ld32(work + WORK_STARTED) + (isQueued ? 1 : 0)) | 0;
    for (;;) {
      const isWaiting =
        isQueued && ((port.ld32(work + WORK_STARTED) - target) | 0) < 0 && (state(work) & PENDING) !== 0;
      const found = executing(work);
      const isRunning = found !== undefined && ((port.ld32(found.slot + SLOT_STARTED) - target) | 0) <= 0;
      if (!isWaiting && !isRunning) return;
      yield* waits.waitOn(finished, task);
    }
  }

  function* cancel(task: Task, work: PhysAddr): Sleeping<boolean> {
    const flags = contexts.localIrqSave(task.ctx);
    const before = state(work);
    if ((before & DELAYED) !== 0) timers.delTimer(task.ctx, asPhys(work + WORK_TIMER));
    listDel(port, work);
    setState(work, CANCELLING);
    contexts.localIrqRestore(task.ctx, flags);
    const wasPending = (before & PENDING) !== 0;
    if (wasPending) waits.wakeUp(finished);
    if (!isItself(task, work, "kernel/workqueue.ts:cancelWorkSync")) {
      while (executing(work) !== undefined) yield* waits.waitOn(finished, task);
    }
    setState(work, state(work) & ~CANCELLING);
    return wasPending;
  }

  const sum = (of: (pool: PhysAddr) => number): number => {
    let total = 0;
    for (let index = 0; index <= unboundIndex; index++) total += of(poolOf(index));
    return total;
  };
  const nrPending = (): number => sum((pool) => listCount(port, asPhys(pool + POOL_LIST)));
  const nrRunning = (): number =>
    sum((pool) => {
      let nr = 0;
      for (let i = 0; i < MAX_WORKERS; i++) if (port.ld32(slotOf(pool, i) + SLOT_WORK) !== 0) nr++;
      return nr;
    });

  return {
    registerWorkFn: (fn) => fns.push(fn) - 1,
    initWork(work, fn) {
      bugOn(fns[fn] === undefined, "workqueue: no such function", work, fn);
      port.fill(work, 0, WORK_BYTES);
      initListHead(port, work);
      port.st32(work + WORK_FN, fn);
    },
    initDelayedWork(work, fn) {
      bugOn(fns[fn] === undefined, "workqueue: no such function", work, fn);
      port.fill(work, 0, WORK_BYTES);
      initListHead(port, work);
      port.st32(work + WORK_FN, fn);
      timers.init(asPhys(work + WORK_TIMER), timerFn);
    },
    queueWork: (ctx, work) => queue(ctx, work, ctx.cpu),
    queueWorkUnbound: (ctx, work) => queue(ctx, work, unboundIndex),
    queueDelayedWork(ctx, work, delayCycles) {
      const flags = contexts.localIrqSave(ctx);
      const isNew = (state(work) & (PENDING | CANCELLING)) === 0;
      if (isNew) {
        setState(work, state(work) | PENDING | DELAYED);
        port.st32(work + WORK_POOL, ctx.cpu);
        timers.modTimer(ctx, asPhys(work + WORK_TIMER), (harts.clock[ctx.cpu] as number) + delayCycles);
      }
      contexts.localIrqRestore(ctx, flags);
      return isNew;
    },
    flushWork(task, work) {
      contexts.mightSleep(task.ctx, "kernel/workqueue.ts:flushWork");
      return contexts.mustIterate(flush(task, work));
    },
    cancelWorkSync(task, work) {
      contexts.mightSleep(task.ctx, "kernel/workqueue.ts:cancelWorkSync");
      return contexts.mustIterate(cancel(task, work));
    },
    *drain(task) {
      while (nrPending() + nrRunning() !== 0) yield* waits.waitOn(finished, task);
    },
    isPending: (work) => (state(work) & PENDING) !== 0,
    nrPending,
    nrRunning,
    adopt(ctx, cpu) {
      const flags = contexts.localIrqSave(ctx);
      const head = asPhys(poolOf(cpu) + POOL_LIST);
      while (!listIsEmpty(port, head)) {
        const work = listNext(port, head);
        listDel(port, work);
        insertLocked(work, ctx.cpu);
      }
      contexts.localIrqRestore(ctx, flags);
    },
  };
}
