/**
 * A machine up to tasks, scheduler and locks, and nothing above: for tests of kernel/.
 *
 * Everything is real (BoundsPort, runqueues, interrupts); task_structs come from a bump allocator. `run` executes until
 * nothing is runnable. A task that ends by a KernelBug or is killed is remembered in `ended`.
 */

import { expect } from "vitest";
import { createMachine, type Machine, type PortKind } from "../../kernel/arch/machine.ts";
import { type ContextTracking, createContextTracking, HARDIRQ_OFFSET, SYSTEM_RUNNING } from "../../kernel/context.ts";
import { createKernelImage } from "../../kernel/image.ts";
import { createIrqs } from "../../kernel/irq.ts";
import { createLockdep, LOCKDEP_BYTES, type Lockdep } from "../../kernel/lockdep.ts";
import { createLocks, type Locks } from "../../kernel/locks.ts";
import { MUTEX_STATIC_BYTES } from "../../kernel/mutex.ts";
import { createPerCpu } from "../../kernel/percpu.ts";
import { createPrintk } from "../../kernel/printk.ts";
import { proveContexts, proveSpinlocks } from "../../kernel/prove_locking.ts";
import { createScheduler, type Scheduler } from "../../kernel/sched.ts";
import { createSpinlocks } from "../../kernel/spinlock.ts";
import { createTasks, type Task, type Tasks } from "../../kernel/task.ts";
import { SCHED_FIFO, SCHED_NORMAL, TASK_STRUCT_BYTES } from "../../kernel/task_struct.ts";
import {
  alignUp,
  asPhys,
  type IrqContext,
  NULL,
  type PhysAddr,
  PREEMPTED,
  type Sleeping,
  type TaskContext,
} from "../../kernel/types.ts";
import { createWaitQueues, type WaitQueues } from "../../kernel/wait.ts";

/** Thrown into a task that was killed. */
export class Killed extends Error {}

export interface TaskLevel extends Locks {
  readonly lockdep: Lockdep | undefined;
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly scheduler: Scheduler;
  readonly tasks: Tasks;
  readonly waits: WaitQueues;
  readonly ctx: TaskContext;
  /** Zeroed RAM, 8-aligned. */
  alloc(bytes: number): PhysAddr;
  /** A runnable task; priority 0 is SCHED_NORMAL, 1-99 SCHED_FIFO. */
  start(comm: string, body: (task: Task) => Sleeping<unknown>, priority?: number): Task;
  /** Executes until nothing is runnable and nobody sleeps by the clock. */
  run(maxSteps?: number): void;
  /** A fatal signal. */
  kill(task: Task): void;
  /** Uses the CPU for `cycles`, taking interrupts and giving way as a program does. */
  work(task: Task, cycles: number): Sleeping<void>;
  /** Runs `handler` as a hard interrupt on top of what CPU `cpu` does. */
  interrupt(cpu: number, handler: (ctx: IrqContext) => void): void;
  clockOf(task: Task): number;
  /** How each task that is no more ended: its error, or undefined. */
  readonly ended: ReadonlyMap<string, unknown>;
  log(): string;
  /** No report, no live task, no broken runqueue. */
  expectClean(): void;
}

export interface TaskLevelOptions {
  readonly nrCpus?: number;
  readonly isInheriting?: boolean;
  readonly maxLockDepth?: number;
  readonly seed?: string;
  readonly port?: PortKind;
  /** prove_locking=on */
  readonly isProving?: boolean;
}

export function bootTaskLevel(options: TaskLevelOptions = {}): TaskLevel {
  const { nrCpus = 1, seed = "test", port: portKind = "bounds", isProving = false, ...lockOptions } = options;
  const machine = createMachine({ nrCpus, ramBytes: 8 << 20, seed, port: portKind });
  const { port, harts } = machine;
  const image = createKernelImage();
  const percpu = createPerCpu();
  const printk = createPrintk(machine, image);
  const plain = createContextTracking(machine, image, percpu, printk);
  const proof = { machine, contexts: plain, printk, statics: image.bss("lockdep", LOCKDEP_BYTES, 8) };
  const lockdep = isProving ? createLockdep(proof) : undefined;
  const contexts = lockdep === undefined ? plain : proveContexts(plain, lockdep);
  const plainLocks = createSpinlocks(machine, contexts);
  const spinlocks = lockdep === undefined ? plainLocks : proveSpinlocks(plainLocks, contexts, lockdep);
  const irqs = createIrqs({ machine, image, percpu, contexts, printk });
  const bindScheduler = createScheduler({ machine, image, percpu, contexts, irqs });
  const mutexStatics = image.bss("mutex", MUTEX_STATIC_BYTES, 8);
  percpu.setup(image.bss("percpu", percpu.unitBytes() * nrCpus, 64), nrCpus);
  let next: number = image.seal();
  const alloc = (bytes: number): PhysAddr => {
    const at = next;
    next = alignUp(next + bytes, 8);
    return asPhys(at);
  };
  harts.irqOn.fill(1);
  harts.online.fill(1);
  contexts.setSystemState(SYSTEM_RUNNING);

  const tasks = createTasks(machine, contexts, { alloc: () => alloc(TASK_STRUCT_BYTES), free: () => {} });
  const scheduler = bindScheduler(tasks);
  const waits = createWaitQueues(machine, contexts, tasks, scheduler);
  const locks = createLocks({
    machine,
    contexts,
    printk,
    spinlocks,
    tasks,
    scheduler,
    waits,
    mutexStatics,
    lockdep,
    ...lockOptions,
  });
  const doomed = new Set<Task>();
  const ended = new Map<string, unknown>();
  const comms = new Map<Task, string>();
  scheduler.onResume((task) => (doomed.has(task) ? new Killed() : undefined));
  scheduler.onEnd((task, _status, error) => {
    ended.set(comms.get(task) as string, error);
    locks.mutexes.taskEnds(task);
    tasks.release(contexts.taskContext(harts.current[0] as number), task);
  });
  const ctx = contexts.taskContext(0);
  const log = (): string =>
    printk
      .records()
      .map((record) => record.text)
      .join("\n");

  function* bodyOf(task: () => Task, body: (task: Task) => Sleeping<unknown>): Sleeping<number> {
    yield* body(task());
    return 0;
  }

  return {
    ...locks,
    lockdep,
    machine,
    contexts,
    scheduler,
    tasks,
    waits,
    ctx,
    alloc,
    start(comm, body, priority = 0) {
      let task: Task | undefined;
      task = tasks.create(contexts.taskContext(harts.current[0] as number), {
        comm,
        parent: NULL,
        flags: 0,
        body: () => bodyOf(() => task as Task, body),
      });
      if (task === undefined) throw new Error("task_level: no task");
      comms.set(task, comm);
      scheduler.setPolicy(task, priority === 0 ? SCHED_NORMAL : SCHED_FIFO, priority);
      scheduler.wake(task);
      return task;
    },
    run(maxSteps = 100_000) {
      for (let step = 0; scheduler.step() !== "nothing"; step++) {
        if (step >= maxSteps) throw new Error(`task_level: not at rest after ${maxSteps} steps\n${log()}`);
      }
    },
    kill(task) {
      doomed.add(task);
      scheduler.wake(task);
    },
    *work(task, cycles) {
      for (let left = cycles; left > 0; left -= 1000) {
        harts.clock[task.ctx.cpu] = (harts.clock[task.ctx.cpu] as number) + Math.min(left, 1000);
        irqs.checkpoint(task.ctx.cpu);
        if (scheduler.timeIsUp(task.ctx.cpu)) yield PREEMPTED;
      }
    },
    interrupt(cpu, handler) {
      const irq = contexts.irqContext(cpu);
      const [flags, executing] = [harts.irqOn[cpu] as number, harts.current[0] as number];
      harts.irqOn[cpu] = 0;
      harts.current[0] = cpu;
      contexts.add(irq, HARDIRQ_OFFSET);
      handler(irq);
      contexts.subtract(irq, HARDIRQ_OFFSET);
      harts.current[0] = executing;
      harts.irqOn[cpu] = flags;
    },
    clockOf: (task) => harts.clock[task.ctx.cpu] as number,
    ended,
    log,
    expectClean() {
      expect(log()).toBe("");
      expect(tasks.all()).toEqual([]);
      expect(scheduler.check()).toBeNull();
      for (let cpu = 0; cpu < nrCpus; cpu++) {
        expect(contexts.preemptCount(contexts.taskContext(cpu))).toBe(0);
        expect(harts.irqOn[cpu]).toBe(1);
      }
      expect(port.sizeBytes).toBe(8 << 20);
    },
  };
}
