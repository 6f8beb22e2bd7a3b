/**
 * Threaded interrupts: the part of an action that may sleep, in a kernel thread `irq/<line>-<name>`.
 *
 *   hardirq: handler answers IRQ_WAKE_THREAD ─▶ line masked, thread woken
 *   thread:                                       action.thread(task) ─▶ line opened ─▶ sleeps
 *
 * The thread has the real-time policy SCHED_FIFO at priority 50, as in Linux: above all programs, below what asks for
 * more. A wake-up while it works makes it work once more.
 *
 * freeIrq cannot wait, so it leaves the thread to end by itself: first it does what it was still asked for. A driver
 * that goes on to free what the thread uses calls freeIrqSync, which comes back when the thread is gone.
 *
 *   IRT-1  each wake-up is followed by a whole run of action.thread, also when the action is freed in between
 *   IRT-2  when freeIrqSync returns, neither handler nor thread of the action runs or will run
 *   IRT-3  a thread that dies in its work opens its line: the others on it go on
 *
 * Source: Linux kernel/irq/manage.c (irq_thread, irq_finalize_oneshot, __free_irq).
 */

import { NR_IRQ_LINES } from "./arch/irqchip.ts";
import { bugOn } from "./bug.ts";
import type { ContextTracking } from "./context.ts";
import type { IrqAction, Irqs, IrqThreads } from "./irq.ts";
import { KERN_ERR, type Printk } from "./printk.ts";
import type { Scheduler } from "./sched.ts";
import type { Task, Tasks } from "./task.ts";
import { PF_KTHREAD, SCHED_FIFO } from "./task_struct.ts";
import { BLOCKED, NULL, type Sleeping, type TaskContext } from "./types.ts";
import type { WaitQueues } from "./wait.ts";

export const IRQ_THREAD_PRIORITY = 50;

export interface ThreadedIrqs {
  /**
   * Waits until no thread of the line is at work or asked to be, nor one of a freed action still there. Process
   * context, none of those threads.
   */
  synchronizeIrq(task: Task, line: number): Sleeping<void>;
  /** freeIrq, and waits until the thread of the action is gone (IRT-2). Process context, not that thread. */
  freeIrqSync(task: Task, line: number, action: IrqAction): Sleeping<void>;
}

interface IrqThread {
  readonly line: number;
  readonly slot: number;
  readonly action: IrqAction;
  task: Task | undefined;
  shouldStop: boolean;
  hasEnded: boolean;
}

export interface IrqThreadDeps {
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly tasks: Tasks;
  readonly scheduler: Scheduler;
  readonly waits: WaitQueues;
  readonly irqs: Irqs;
  /** Where new threads begin: the CPU that the host executes. */
  readonly hostContext: () => TaskContext;
}

export function createIrqThreads(deps: IrqThreadDeps): ThreadedIrqs {
  const { contexts, printk, tasks, scheduler, waits, irqs } = deps;
  /** The thread in each slot; gone ones stay until the slot is used again. */
  const threads: IrqThread[][] = Array.from({ length: NR_IRQ_LINES }, () => []);
  for (let line = 0; line < NR_IRQ_LINES; line++) waits.init(irqs.threadQueue(line));

  function* work(thread: IrqThread): Sleeping<number> {
    const { line, slot, action } = thread;
    const task = thread.task as Task;
    let isAtWork = false;
    // The end is reached by return, or by a bug in the action that unwinds this task.
    try {
      for (;;) {
        while (!irqs.takeWake(line, slot)) {
          if (thread.shouldStop) return 0;
          scheduler.prepareToBlock(task);
          yield BLOCKED;
        }
        isAtWork = true;
        yield* (action.thread as (task: Task) => Sleeping<void>)(task);
        isAtWork = false;
        irqs.threadDone(line, slot);
        waits.wakeUp(irqs.threadQueue(line));
      }
    } finally {
      if (isAtWork) {
        printk(
          KERN_ERR,
          `exiting task "irq/${line}-${action.name}" (${task.pid}) is an active IRQ thread (irq ${line})`,
        );
      }
      thread.hasEnded = true;
      irqs.threadEnded(line, slot);
      waits.wakeUp(irqs.threadQueue(line));
    }
  }

  const ops: IrqThreads = {
    start(line, slot, action) {
      const thread: IrqThread = { line, slot, action, task: undefined, shouldStop: false, hasEnded: false };
      const comm = `irq/${line}-${action.name}`;
      const task = tasks.create(deps.hostContext(), {
        comm,
        parent: NULL,
        flags: PF_KTHREAD,
        body: () => work(thread),
      });
      if (task === undefined) return false;
      thread.task = task;
      (threads[line] as IrqThread[])[slot] = thread;
      scheduler.setPolicy(task, SCHED_FIFO, IRQ_THREAD_PRIORITY);
      scheduler.wake(task);
      return true;
    },
    wake(line, slot) {
      const thread = threads[line]?.[slot];
      if (thread === undefined || thread.hasEnded) return false;
      scheduler.wake(thread.task as Task);
      return true;
    },
    stop(line, slot) {
      const thread = threads[line]?.[slot];
      bugOn(thread === undefined, "irq_thread: no thread in this slot", line, slot);
      thread.shouldStop = true;
      if (thread.hasEnded) irqs.threadEnded(line, slot);
      else scheduler.wake(thread.task as Task);
    },
  };
  irqs.setThreads(ops);

  function* untilEnded(task: Task, thread: IrqThread): Sleeping<void> {
    while (!thread.hasEnded) yield* waits.waitOn(irqs.threadQueue(thread.line), task);
  }
  function* untilQuiet(task: Task, line: number): Sleeping<void> {
    while (irqs.areThreadsActive(line)) yield* waits.waitOn(irqs.threadQueue(line), task);
  }
  function* nothing(): Sleeping<void> {}

  return {
    synchronizeIrq(task, line) {
      contexts.mightSleep(task.ctx, "kernel/irq_thread.ts:synchronizeIrq");
      return contexts.mustIterate(untilQuiet(task, line));
    },
    freeIrqSync(task, line, action) {
      contexts.mightSleep(task.ctx, "kernel/irq_thread.ts:freeIrqSync");
      const slot = irqs.slotOf(line, action);
      irqs.freeIrq(line, action);
      const thread = slot < 0 ? undefined : threads[line]?.[slot];
      const isOurs = thread !== undefined && thread.action === action;
      return contexts.mustIterate(isOurs ? untilEnded(task, thread) : nothing());
    },
  };
}
