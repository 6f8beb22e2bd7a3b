/**
 * Wait queues: where a task sleeps until a condition may have become true.
 *
 *   waiter:  while (!condition) yield* waitOn(wq, task)        waker:  make it true; wakeUp(wq)
 *
 * A queue is a list head in RAM; a task hangs on it by the node in its task_struct. Because kernel code between two
 * yields is not interleaved with other tasks, there is no lost wake-up between the test and the sleep; the waiter tests
 * again after each wake-up, since another one may have been faster.
 *
 *   WQ-1  a task is on one queue at most, and not on one while it runs
 */

import type { Machine } from "./arch/machine.ts";
import type { ContextTracking } from "./context.ts";
import { initListHead, listAddTail, listDel, listFirst } from "./lib/list.ts";
import type { Scheduler } from "./sched.ts";
import type { Task, Tasks } from "./task.ts";
import { TASK_WAIT_NODE } from "./task_struct.ts";
import { asPhys, BLOCKED, NULL, type PhysAddr, type Sleeping } from "./types.ts";

export interface WaitQueues {
  /** Makes the 8 bytes at `queue` an empty queue. */
  init(queue: PhysAddr): void;
  /** Sleeps until woken: by wakeUp, or by a signal. Process context. */
  waitOn(queue: PhysAddr, task: Task): Sleeping<void>;
  /** Wakes every waiter. Any context. */
  wakeUp(queue: PhysAddr): void;
  isEmpty(queue: PhysAddr): boolean;
}

export function createWaitQueues(
  machine: Machine,
  contexts: ContextTracking,
  tasks: Tasks,
  scheduler: Scheduler,
): WaitQueues {
  const { port } = machine;
  const nodeOf = (task: Task): PhysAddr => asPhys(task.struct + TASK_WAIT_NODE);
  function* sleepOn(queue: PhysAddr, task: Task): Sleeping<void> {
    listAddTail(port, nodeOf(task), queue);
    scheduler.prepareToBlock(task);
    // A fatal signal unwinds the sleeper: it must not stay on the queue.
    try {
      yield BLOCKED;
    } finally {
      listDel(port, nodeOf(task));
    }
  }
  return {
    init: (queue) => initListHead(port, queue),
    waitOn: (queue, task) => contexts.mustIterate(sleepOn(queue, task)),
    wakeUp(queue) {
      for (let node = listFirst(port, queue); node !== NULL; node = listFirst(port, queue)) {
        listDel(port, node);
        const task = tasks.at(asPhys(node - TASK_WAIT_NODE));
        if (task !== undefined) scheduler.wake(task);
      }
    },
    isEmpty: (queue) => listFirst(port, queue) === NULL,
  };
}
