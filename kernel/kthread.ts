/**
 * Kernel threads: tasks without an address space, which run code of the kernel.
 *
 * A thread is made at once by who may sleep (`run`), or asked for by who may not (`request`): an interrupt that finds
 * no worker cannot wait for memory. What is asked for is made between two slices of the scheduler, where no task is
 * (Linux has kthreadd, pid 2, for that). If there is no memory the request stays and is tried again at the next one.
 *
 *   KTH-1  a thread with a CPU runs on that CPU only (PF_NO_SETAFFINITY), elsewhere only while that CPU is offline
 *   KTH-2  each request makes one thread
 *
 * A kernel thread takes a pid, a task_struct and a stack of four pages, like every task. So the threads of this kernel
 * are made when they are first needed, and a machine that uses no driver has none.
 *
 * Real kernels: Linux `kernel/kthread.c`.
 */

import type { Machine } from "./arch/machine.ts";
import type { ContextTracking } from "./context.ts";
import type { Scheduler } from "./sched.ts";
import type { Task, Tasks } from "./task.ts";
import { PF_KTHREAD, PF_NO_SETAFFINITY, TASK_CPU, TASK_HOME, TASK_ON_QUEUE } from "./task_struct.ts";
import { type Context, NULL, type Sleeping } from "./types.ts";

export interface KernelThread {
  /** At most 15 characters: `ksoftirqd/0`. */
  readonly comm: string;
  /** The only CPU where it may run; absent: any. */
  readonly cpu?: number;
  readonly body: (task: Task) => Sleeping<void>;
}

export interface Kthreads {
  /** A new thread, on a runqueue; undefined without memory. Process context, or between two slices. */
  run(ctx: Context, thread: KernelThread): Task | undefined;
  /**
   * The same later, from any context: `started` learns of it. Each time that memory is short, `withoutMemory` is
   * called instead, and the request stays.
   */
  request(thread: KernelThread, started: (task: Task) => void, withoutMemory?: () => void): void;
  /** Wakes a thread that belongs to `cpu`: it goes home if that CPU was offline meanwhile. Any context. */
  wake(task: Task, cpu: number): void;
  /** Requests that wait. */
  nrRequests(): number;
}

interface Request {
  readonly thread: KernelThread;
  readonly started: (task: Task) => void;
  readonly withoutMemory: () => void;
}

export function createKthreads(
  machine: Machine,
  contexts: ContextTracking,
  tasks: Tasks,
  scheduler: Scheduler,
): Kthreads {
  const { port, harts } = machine;
  let requests: Request[] = [];

  function* main(self: () => Task, body: KernelThread["body"]): Sleeping<number> {
    yield* body(self());
    return 0;
  }

  const run: Kthreads["run"] = (ctx, { comm, cpu, body }) => {
    let task: Task | undefined;
    const flags = PF_KTHREAD | (cpu === undefined ? 0 : PF_NO_SETAFFINITY);
    task = tasks.create(ctx, { comm, parent: NULL, flags, body: () => main(() => task as Task, body) });
    if (task === undefined) return undefined;
    if (cpu !== undefined) {
      port.st32(task.struct + TASK_CPU, cpu);
      port.st32(task.struct + TASK_HOME, cpu);
    }
    scheduler.wake(task);
    return task;
  };

  scheduler.onStep(() => {
    if (requests.length === 0) return;
    const waiting = requests;
    requests = [];
    for (const request of waiting) {
      const task = run(contexts.taskContext(harts.current[0] as number), request.thread);
      if (task !== undefined) {
        request.started(task);
        continue;
      }
      requests.push(request);
      request.withoutMemory();
    }
  });

  return {
    run,
    request(thread, started, withoutMemory = () => {}) {
      requests.push({ thread, started, withoutMemory });
    },
    wake(task, cpu) {
      const last = port.ld32(task.struct + TASK_CPU);
      const isAsleep = port.ld32(task.struct + TASK_ON_QUEUE) === 0 && scheduler.current(last) !== task;
      if (isAsleep && last !== cpu && harts.online[cpu] === 1) port.st32(task.struct + TASK_CPU, cpu);
      scheduler.wake(task);
    },
    nrRequests: () => requests.length,
  };
}
