/**
 * Tasklets: deferred functions that never run on two CPUs at once.
 *
 * A softirq vector may run on several CPUs together, and there are ten of them. A tasklet is a small record that is
 * queued on its CPU and run from TASKLET_SOFTIRQ (or HI_SOFTIRQ, before timers and network). Scheduling it again before
 * it ran changes nothing; while it runs it may be scheduled again, also on another CPU, and runs once more afterwards.
 *
 *   offset  width  field    meaning
 *   +0      8      node     of a CPU's queue; points to itself when on none
 *   +8      u32    state    SCHED 1: will run; RUN 2: runs now; HI 4: in HI_SOFTIRQ; KILLED 8: cannot be scheduled
 *   +12     u32    count    how often it is disabled
 *   +16     u32    fn       number that registerTaskletFn() gave
 *   +20     u32    data     the owner's
 *
 *   TSL-1  a tasklet that is scheduled once or more runs once
 *   TSL-2  the function of one tasklet never runs twice at the same time
 *   TSL-3  while count > 0 it does not run; enabled again, it runs if it was scheduled meanwhile
 *   TSL-4  after kill() it is not scheduled and does not run, until init()
 *
 * Different from Linux: a disabled tasklet that is scheduled waits off the queue for its enable; there the softirq
 * raises itself over and over until it is enabled. Source: Linux `kernel/softirq.c`.
 */

import { CYC_SOFTIRQ } from "./arch/charges.ts";
import type { Machine } from "./arch/machine.ts";
import { bugOn } from "./bug.ts";
import type { ContextTracking } from "./context.ts";
import { initListHead, listAddTail, listDel, listFirst, listIsEmpty } from "./lib/list.ts";
import type { PerCpu } from "./percpu.ts";
import { HI_SOFTIRQ, type Softirqs, TASKLET_SOFTIRQ } from "./softirq.ts";
import type { Task } from "./task.ts";
import { asPhys, type Context, type IrqContext, NULL, type PhysAddr, PREEMPTED, type Sleeping } from "./types.ts";

export type TaskletFn = (ctx: IrqContext, tasklet: PhysAddr) => void;

export const TASKLET_BYTES = 24;
const STATE = 8;
const COUNT = 12;
const FN = 16;
/** Offset of the word that belongs to the owner. */
export const TASKLET_DATA = 20;

const SCHED = 1;
const RUN = 2;
const HI = 4;
const KILLED = 8;

export interface Tasklets {
  /** Empties the queues of all CPUs. Boot, once per-CPU areas exist. */
  init(): void;
  registerTaskletFn(fn: TaskletFn): number;
  /** Makes the TASKLET_BYTES at `tasklet` (8-aligned) an enabled tasklet that is not scheduled. */
  initTasklet(tasklet: PhysAddr, fn: number): void;
  /** Runs it soon on this CPU; false if it was scheduled already, or is killed. Any context. */
  schedule(ctx: Context, tasklet: PhysAddr): boolean;
  /** The same before all other softirqs. */
  scheduleHigh(ctx: Context, tasklet: PhysAddr): boolean;
  /** It does not run until it is enabled as often. Any context but its own function. */
  disable(ctx: Context, tasklet: PhysAddr): void;
  enable(ctx: Context, tasklet: PhysAddr): void;
  /** Lets it run if it is scheduled and enabled, and ends it. */
  kill(task: Task, tasklet: PhysAddr): Sleeping<void>;
  isScheduled(tasklet: PhysAddr): boolean;
}

export interface TaskletDeps {
  readonly machine: Machine;
  readonly percpu: PerCpu;
  readonly contexts: ContextTracking;
  readonly softirqs: Softirqs;
}

export function createTasklets({ machine, percpu, contexts, softirqs }: TaskletDeps): Tasklets {
  const { port, harts } = machine;
  const { clock } = harts;
  /** Two list heads: TASKLET_SOFTIRQ, HI_SOFTIRQ. */
  const QUEUES = percpu.define("tasklet_vec", 16, 8);
  const fns: TaskletFn[] = [];

  const state = (tasklet: PhysAddr): number => port.ld32(tasklet + STATE);
  const set = (tasklet: PhysAddr, bits: number): void => port.st32(tasklet + STATE, state(tasklet) | bits);
  const clear = (tasklet: PhysAddr, bits: number): void => port.st32(tasklet + STATE, state(tasklet) & ~bits);
  const queueOf = (ctx: Context, isHigh: boolean): PhysAddr => asPhys(ctx.area + QUEUES + (isHigh ? 8 : 0));

  const enqueueLocked = (ctx: Context, tasklet: PhysAddr): void => {
    const isHigh = (state(tasklet) & HI) !== 0;
    listAddTail(port, tasklet, queueOf(ctx, isHigh));
    softirqs.raiseSoftirq(ctx, isHigh ? HI_SOFTIRQ : TASKLET_SOFTIRQ);
  };

  const schedule = (ctx: Context, tasklet: PhysAddr, isHigh: boolean): boolean => {
    const flags = contexts.localIrqSave(ctx);
    const isNew = (state(tasklet) & (SCHED | KILLED)) === 0;
    if (isNew) {
      clear(tasklet, HI);
      set(tasklet, SCHED | (isHigh ? HI : 0));
      if (port.ld32(tasklet + COUNT) === 0) enqueueLocked(ctx, tasklet);
    }
    contexts.localIrqRestore(ctx, flags);
    return isNew;
  };

  /** Takes the first of a queue that may run now and marks it; NULL when there is none. */
  const takeFirst = (ctx: IrqContext, isHigh: boolean): PhysAddr => {
    const flags = contexts.localIrqSave(ctx);
    const tasklet = listFirst(port, queueOf(ctx, isHigh));
    if (tasklet !== NULL) {
      listDel(port, tasklet);
      // TSL-2: it runs below us, on another CPU. It will be queued again when it ends.
      if ((state(tasklet) & RUN) === 0) {
        clear(tasklet, SCHED);
        set(tasklet, RUN);
      }
    }
    contexts.localIrqRestore(ctx, flags);
    return tasklet;
  };

  const runQueue = (ctx: IrqContext, isHigh: boolean): void => {
    for (let tasklet = takeFirst(ctx, isHigh); tasklet !== NULL; tasklet = takeFirst(ctx, isHigh)) {
      // Still SCHED: not taken, see takeFirst.
      if ((state(tasklet) & SCHED) !== 0) continue;
      clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_SOFTIRQ;
      (fns[port.ld32(tasklet + FN)] as TaskletFn)(ctx, tasklet);
      const flags = contexts.localIrqSave(ctx);
      clear(tasklet, RUN);
      const isWaiting = (state(tasklet) & SCHED) !== 0 && port.ld32(tasklet + COUNT) === 0;
      if (isWaiting && listIsEmpty(port, tasklet)) enqueueLocked(ctx, tasklet);
      contexts.localIrqRestore(ctx, flags);
    }
  };
  softirqs.openSoftirq(TASKLET_SOFTIRQ, (ctx) => runQueue(ctx, false));
  softirqs.openSoftirq(HI_SOFTIRQ, (ctx) => runQueue(ctx, true));

  return {
    init() {
      for (let cpu = 0; cpu < harts.nrCpus; cpu++) {
        initListHead(port, asPhys(percpu.areaOf(cpu) + QUEUES));
        initListHead(port, asPhys(percpu.areaOf(cpu) + QUEUES + 8));
      }
    },
    registerTaskletFn: (fn) => fns.push(fn) - 1,
    initTasklet(tasklet, fn) {
      bugOn(fns[fn] === undefined, "tasklet: no such function", tasklet, fn);
      port.fill(tasklet, 0, TASKLET_BYTES);
      initListHead(port, tasklet);
      port.st32(tasklet + FN, fn);
    },
    schedule: (ctx, tasklet) => schedule(ctx, tasklet, false),
    scheduleHigh: (ctx, tasklet) => schedule(ctx, tasklet, true),
    disable(ctx, tasklet) {
      const flags = contexts.localIrqSave(ctx);
      bugOn((state(tasklet) & RUN) !== 0, "tasklet: disabled by its own function, or on top of it", tasklet);
      port.st32(tasklet + COUNT, port.ld32(tasklet + COUNT) + 1);
      listDel(port, tasklet);
      contexts.localIrqRestore(ctx, flags);
    },
    enable(ctx, tasklet) {
      const flags = contexts.localIrqSave(ctx);
      const count = port.ld32(tasklet + COUNT);
      bugOn(count === 0, "tasklet: enabled more often than disabled", tasklet);
      port.st32(tasklet + COUNT, count - 1);
      if (count === 1 && (state(tasklet) & SCHED) !== 0) enqueueLocked(ctx, tasklet);
      contexts.localIrqRestore(ctx, flags);
    },
    kill(task, tasklet) {
      contexts.mightSleep(task.ctx, "kernel/tasklet.ts:kill");
      return contexts.mustIterate(
        (function* wait(): Sleeping<void> {
          // ksoftirqd or the next irq exit runs it; each look costs a turn on the CPU, so time goes on.
          while (!listIsEmpty(port, tasklet) || (state(tasklet) & RUN) !== 0) yield PREEMPTED;
          clear(tasklet, SCHED);
          set(tasklet, KILLED);
        })(),
      );
    },
    isScheduled: (tasklet) => (state(tasklet) & SCHED) !== 0,
  };
}
