/**
 * Wait queues: where a task sleeps until a condition may have become true.
 *
 *   waiter:  yield* waitEvent(wq, task, () => condition)       waker:  make it true; wakeUp(wq)
 *
 * A queue is a list head in RAM; a task hangs on it by the node in its task_struct. The waiter tests with interrupts
 * off and is on the queue before they come on again, so no wake-up is lost in between; it tests again after each one,
 * since another waiter may have been faster. `while (!condition) yield* waitOn(wq, task)` is as good where only tasks
 * make the condition true: kernel code between two yields is not interleaved with other tasks.
 *
 *   WTQ-1  a task is on one queue at most, and not on one while it runs
 *   WTQ-2  a wake-up meant for one waiter is used by one: a waiter that a fatal signal unwinds after it was chosen
 *         passes it on
 *   WTQ-3  waitOnTimeout returns true if and only if somebody woke the task before it ran again
 */

import type { Machine } from "./arch/machine.ts";
import type { ContextTracking } from "./context.ts";
import { initListHead, listAddTail, listDel, listFirst, listIsEmpty } from "./lib/list.ts";
import type { Scheduler } from "./sched.ts";
import type { Task, Tasks } from "./task.ts";
import { TASK_WAIT_NODE } from "./task_struct.ts";
import { asPhys, BLOCKED, NULL, type PhysAddr, type Sleeping } from "./types.ts";

/** Ends a sleep for a signal: thrown into it instead of letting it go on. No Error: it happens all the time. */
export class Interrupted {}

export interface WaitQueues {
  /** Makes the 8 bytes at `queue` an empty queue. */
  init(queue: PhysAddr): void;
  /** Sleeps until woken: by wakeUp, or by a signal. Process context. */
  waitOn(queue: PhysAddr, task: Task): Sleeping<void>;
  /**
   * Sleeps until woken, at most until the CPU's clock says `untilCycles`: true if somebody woke it, false if its time
   * ran out (at once when that moment has passed). Process context.
   */
  waitOnTimeout(queue: PhysAddr, task: Task, untilCycles: number): Sleeping<boolean>;
  /** Sleeps until `condition`, which is called with interrupts off and must not sleep, is true. Process context. */
  waitEvent(queue: PhysAddr, task: Task, condition: () => boolean): Sleeping<void>;
  /** The same at most until `untilCycles`: false if it was not true by then. Process context. */
  waitEventTimeout(queue: PhysAddr, task: Task, condition: () => boolean, untilCycles: number): Sleeping<boolean>;
  /** Sleeps as one of several of whom wakeOne chooses. Process context. */
  waitExclusive(queue: PhysAddr, task: Task, turn: ExclusiveTurn): Sleeping<boolean>;
  /** Wakes every waiter. Any context. */
  wakeUp(queue: PhysAddr): void;
  /** Wakes the waiter that came first: false if there is none. Any context. */
  wakeOne(queue: PhysAddr): boolean;
  isEmpty(queue: PhysAddr): boolean;
}

/** What one of several waiters waits for: what wakeOne hands over is his, and nobody else is told. */
export interface ExclusiveTurn {
  /** Takes it without waiting, if it is there: called with interrupts off. */
  readonly take: () => boolean;
  /** Gives it to somebody else: a fatal signal came after the hand-over (WTQ-2). */
  readonly passOn: () => void;
  /** Clock value at which the waiter gives up. */
  readonly untilCycles?: number;
}

export function createWaitQueues(
  machine: Machine,
  contexts: ContextTracking,
  tasks: Pick<Tasks, "at">,
  scheduler: Pick<Scheduler, "prepareToBlock" | "wake">,
): WaitQueues {
  const { port, harts } = machine;
  const { clock, irqOn, current } = harts;
  const nothing = (): void => {};
  const never = (): boolean => false;
  const nodeOf = (task: Task): PhysAddr => asPhys(task.struct + TASK_WAIT_NODE);
  const isTimeOver = (task: Task, until: number): boolean => (clock[task.ctx.cpu] as number) >= until;

  /** One sleep: true if `take` had it at once or a waker chose this task. */
  function* sleepOn(queue: PhysAddr, task: Task, until: number, take = never, passOn = nothing): Sleeping<boolean> {
    const node = nodeOf(task);
    const flags = contexts.localIrqSave(task.ctx);
    if (take()) {
      contexts.localIrqRestore(task.ctx, flags);
      return true;
    }
    listAddTail(port, node, queue);
    scheduler.prepareToBlock(task, until);
    contexts.localIrqRestore(task.ctx, flags);
    let isResumed = false;
    let isChosen = false;
    // A fatal signal unwinds the sleeper: it must not stay on the queue.
    try {
      yield BLOCKED;
      isResumed = true;
    } finally {
      const irq = contexts.localIrqSave(task.ctx);
      isChosen = listIsEmpty(port, node);
      listDel(port, node);
      if (isChosen && !isResumed) passOn();
      contexts.localIrqRestore(task.ctx, irq);
    }
    return isChosen;
  }

  function* sleepOnce(queue: PhysAddr, task: Task): Sleeping<void> {
    yield* sleepOn(queue, task, Number.POSITIVE_INFINITY);
  }
  function* sleepWithin(queue: PhysAddr, task: Task, until: number): Sleeping<boolean> {
    return !isTimeOver(task, until) && (yield* sleepOn(queue, task, until));
  }
  function* sleepForEvent(queue: PhysAddr, task: Task, condition: () => boolean, until: number): Sleeping<boolean> {
    let isTrue = false;
    const test = (): boolean => {
      isTrue = condition();
      return isTrue;
    };
    while (!isTimeOver(task, until)) {
      yield* sleepOn(queue, task, until, test);
      if (isTrue) return true;
    }
    return lastLook(task, condition);
  }
  function* sleepForTurn(queue: PhysAddr, task: Task, turn: ExclusiveTurn): Sleeping<boolean> {
    const until = turn.untilCycles ?? Number.POSITIVE_INFINITY;
    while (!isTimeOver(task, until)) {
      if (yield* sleepOn(queue, task, until, turn.take, turn.passOn)) return true;
    }
    return lastLook(task, turn.take);
  }
  const lastLook = (task: Task, take: () => boolean): boolean => {
    const flags = contexts.localIrqSave(task.ctx);
    const isTaken = take();
    contexts.localIrqRestore(task.ctx, flags);
    return isTaken;
  };
  function* sleepUntilEvent(queue: PhysAddr, task: Task, condition: () => boolean): Sleeping<void> {
    yield* sleepForEvent(queue, task, condition, Number.POSITIVE_INFINITY);
  }

  /** What every sleep passes through: may it, and is it iterated? */
  const sleeping = <T>(task: Task, where: string, rest: Sleeping<T>): Sleeping<T> => {
    contexts.mightSleep(task.ctx, where);
    return contexts.mustIterate(rest);
  };

  /** Interrupts are off meanwhile, and come back without a checkpoint: a handler may call this, and be on top of it. */
  const wakeFirst = (queue: PhysAddr): boolean => {
    const cpu = current[0] as number;
    const flags = irqOn[cpu] as number;
    irqOn[cpu] = 0;
    const node = listFirst(port, queue);
    if (node !== NULL) {
      listDel(port, node);
      const task = tasks.at(asPhys(node - TASK_WAIT_NODE));
      if (task !== undefined) scheduler.wake(task);
    }
    irqOn[cpu] = flags;
    return node !== NULL;
  };

  return {
    init: (queue) => initListHead(port, queue),
    waitOn: (queue, task) => sleeping(task, "kernel/wait.ts:waitOn", sleepOnce(queue, task)),
    waitOnTimeout: (queue, task, until) =>
      sleeping(task, "kernel/wait.ts:waitOnTimeout", sleepWithin(queue, task, until)),
    waitEvent: (queue, task, condition) =>
      sleeping(task, "kernel/wait.ts:waitEvent", sleepUntilEvent(queue, task, condition)),
    waitEventTimeout: (queue, task, condition, until) =>
      sleeping(task, "kernel/wait.ts:waitEvent", sleepForEvent(queue, task, condition, until)),
    waitExclusive: (queue, task, turn) =>
      sleeping(task, "kernel/wait.ts:waitExclusive", sleepForTurn(queue, task, turn)),
    wakeUp(queue) {
      while (wakeFirst(queue)) {
        // Until nobody is left: a woken task cannot come back before this call has ended.
      }
    },
    wakeOne: wakeFirst,
    isEmpty: (queue) => listFirst(port, queue) === NULL,
  };
}
