/**
 * Everything that does work later, put together: softirqs, timers, tasklets, threads, work queues, RCU, counts.
 *
 *   composeDeferred   while the kernel is composed: static memory and per-CPU variables get their places
 *   bind              once there are tasks, a scheduler and kfree
 *
 *      hardirq ──▶ softirq ──▶ tasklet           runs in softirq context, may not sleep
 *                     ├──────▶ timer, RCU callback
 *                     └──────▶ ksoftirqd/N       when it is too much
 *      any     ──▶ work     ──▶ kworker/N:M      process context, may sleep
 */

import type { Machine } from "./arch/machine.ts";
import type { ContextTracking } from "./context.ts";
import type { KernelImage } from "./image.ts";
import type { Irqs } from "./irq.ts";
import { createKfreeRcu, type KfreeRcu } from "./kfree_rcu.ts";
import { createKthreads, type Kthreads } from "./kthread.ts";
import type { PerCpu } from "./percpu.ts";
import type { Printk } from "./printk.ts";
import { createRcu, type Rcu } from "./rcu.ts";
import { createRefcounts, type Refcounts } from "./refcount.ts";
import type { Scheduler } from "./sched.ts";
import { createSoftirqs, type Softirqs } from "./softirq.ts";
import type { Task, Tasks } from "./task.ts";
import { createTasklets, type Tasklets } from "./tasklet.ts";
import { bindTimers, createTimers, type Timers } from "./timer.ts";
import type { Context, PhysAddr, Sleeping } from "./types.ts";
import type { WaitQueues } from "./wait.ts";
import { createWorkqueues, type Workqueues } from "./workqueue.ts";

/** What others use: drivers are built from these. */
export interface DeferredServices {
  readonly softirqs: Softirqs;
  readonly timers: Timers;
  readonly tasklets: Tasklets;
  readonly kthreads: Kthreads;
  readonly workqueues: Workqueues;
  readonly rcu: Rcu;
  readonly kfreeRcu: KfreeRcu;
  readonly refcounts: Refcounts;
}

export interface Deferred extends DeferredServices {
  /** Takes over from a CPU that goes offline what it would have done later. On another CPU. */
  adopt(ctx: Context, cpu: number): void;
  /** Sleeps until works, callbacks and objects that wait are done; timers are left to themselves. */
  drain(task: Task): Sleeping<void>;
  /** Works, callbacks and objects that wait. */
  nrWaiting(): number;
  check(): string | null;
}

export interface DeferredDeps {
  readonly machine: Machine;
  readonly image: KernelImage;
  readonly percpu: PerCpu;
  readonly contexts: ContextTracking;
  readonly irqs: Irqs;
  readonly printk: Printk;
}

export interface DeferredBinding {
  readonly tasks: Tasks;
  readonly scheduler: Scheduler;
  readonly waits: WaitQueues;
  readonly kfree: (ctx: Context, obj: PhysAddr) => number;
}

export function composeDeferred(deps: DeferredDeps): (binding: DeferredBinding) => Deferred {
  const { machine, image, percpu, contexts } = deps;
  const softirqs = createSoftirqs(deps);
  const timers = createTimers({ ...deps, softirqs });
  const tasklets = createTasklets({ ...deps, softirqs });
  const refcounts = createRefcounts(machine.port, image, contexts);
  const bindWorkqueues = createWorkqueues(machine, image, percpu);
  const bindRcu = createRcu(image, percpu);
  const bindKfreeRcu = createKfreeRcu(percpu);

  return ({ tasks, scheduler, waits, kfree }) => {
    const { port } = machine;
    const { nrCpus } = machine.harts;
    const kthreads = createKthreads(machine, contexts, tasks, scheduler);
    softirqs.bindThreads(kthreads, scheduler);
    bindTimers(machine, timers, softirqs, scheduler);
    tasklets.init();
    const later = { ...deps, softirqs, timers, tasks, scheduler, waits, kthreads };
    const workqueues = bindWorkqueues(later);
    const rcu = bindRcu(later);
    const kfreeRcu = bindKfreeRcu({ port, nrCpus, contexts, rcu, kfree });
    return {
      softirqs,
      timers,
      tasklets,
      kthreads,
      workqueues,
      rcu,
      kfreeRcu,
      refcounts,
      adopt(ctx, cpu) {
        timers.migrate(ctx, cpu);
        softirqs.adopt(ctx, cpu);
        workqueues.adopt(ctx, cpu);
        kfreeRcu.adopt(ctx, cpu);
        rcu.adopt(ctx, cpu);
      },
      *drain(task) {
        yield* workqueues.drain(task);
        yield* kfreeRcu.kfreeRcuBarrier(task);
        yield* rcu.rcuBarrier(task);
      },
      nrWaiting() {
        let nr = workqueues.nrPending() + workqueues.nrRunning();
        for (let cpu = 0; cpu < nrCpus; cpu++) nr += rcu.nrCallbacks(cpu) + kfreeRcu.nrObjects(cpu);
        return nr;
      },
      check: () => timers.check() ?? rcu.check() ?? kfreeRcu.check(),
    };
  };
}
