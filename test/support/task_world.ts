/**
 * Object allocators, tasks and everything that defers work: softirqs, tasklets, timers, work queues, RCU.
 *
 * The machine is driven step by step, without programs or files. Tasks are kernel threads that a test spawns.
 */

import { expect, onTestFinished } from "vitest";
import { composeDeferred, type Deferred } from "../../kernel/deferred.ts";
import { createIrqs, IRQ_HANDLED, type Irqs } from "../../kernel/irq.ts";
import type { PerCpu } from "../../kernel/percpu.ts";
import { createScheduler, type Scheduler } from "../../kernel/sched.ts";
import { createTasks, type Task, type Tasks } from "../../kernel/task.ts";
import {
  PF_KTHREAD,
  PF_NO_SETAFFINITY,
  TASK_CPU,
  TASK_HOME,
  TASK_STRUCT_BYTES,
  taskComm,
} from "../../kernel/task_struct.ts";
import { asPhys, type IrqContext, NULL, type PhysAddr, type Sleeping, type TaskContext } from "../../kernel/types.ts";
import { createWaitQueues, type WaitQueues } from "../../kernel/wait.ts";
import { bootObjectLevel, type ObjectLevelMachine } from "./object_level.ts";
import type { PageLevelOptions } from "./page_level.ts";

type Bind = ReturnType<typeof composeDeferred>;

export interface TaskWorld extends ObjectLevelMachine, Deferred {
  readonly percpu: PerCpu;
  readonly irqs: Irqs;
  readonly tasks: Tasks;
  readonly scheduler: Scheduler;
  readonly waits: WaitQueues;
  /** Creating a task fails this often from now on. */
  failTasks(times: number): void;
  /** Zeroed memory that is never freed. */
  memory(bytes: number): PhysAddr;
  /** The context of an interrupt on a CPU. */
  irq(cpu: number): IrqContext;
  /** The context of the idle loop of a CPU: a task context without a task. */
  idle(cpu: number): TaskContext;
  /** Runs `handler` as the handler of an interrupt that CPU `cpu` takes now. */
  interrupt(cpu: number, handler: (ctx: IrqContext) => void): void;
  /** A kernel thread, on a runqueue; `cpu` binds it. */
  spawn(name: string, body: (ctx: TaskContext, task: Task) => Sleeping<void>, cpu?: number): Task;
  /** One step of the scheduler. */
  step(): string;
  /** Runs until nothing is left to do. */
  runAll(maxSteps?: number): void;
  /** Errors that ended tasks since the last call; none may be left at the end of a test. */
  takeErrors(): unknown[];
  /** Names of the living tasks, by pid. */
  names(): readonly string[];
  now(cpu: number): number;
}

/** The line that `interrupt` uses. */
const TEST_LINE = 30;

export function bootTaskWorld(options: PageLevelOptions = {}): TaskWorld {
  let composed:
    | { irqs: Irqs; percpu: PerCpu; bindScheduler: (tasks: Tasks) => Scheduler; bindDeferred: Bind }
    | undefined;
  const m = bootObjectLevel("magazine", {
    ...options,
    compose: (parts) => {
      const irqs = createIrqs(parts);
      composed = {
        irqs,
        percpu: parts.percpu,
        bindScheduler: createScheduler({ ...parts, irqs }),
        bindDeferred: composeDeferred({ ...parts, irqs }),
      };
    },
  });
  if (composed === undefined) throw new Error("task_world: not composed");
  const { irqs, percpu } = composed;
  const { machine, contexts } = m;
  const { port, harts } = machine;
  harts.online.fill(1);

  const structs = m.image.bss("test_tasks", 256 * TASK_STRUCT_BYTES, 8);
  let nrTasks = 0;
  let nrFailures = 0;
  const tasks = createTasks(machine, contexts, {
    alloc: () => (nrFailures > 0 && nrFailures-- > 0 ? NULL : asPhys(structs + nrTasks++ * TASK_STRUCT_BYTES)),
    free: () => {},
  });
  const scheduler = composed.bindScheduler(tasks);
  const waits = createWaitQueues(machine, contexts, tasks, scheduler);
  const { kfree } = m.slab.kmalloc;
  const deferred = composed.bindDeferred({ tasks, scheduler, waits, kfree });
  m.slab.deferFrees(deferred.rcu);

  let handler: (ctx: IrqContext) => void = () => {};
  const action = {
    name: "test",
    handler(ctx: IrqContext) {
      handler(ctx);
      return IRQ_HANDLED;
    },
  };
  expect(irqs.requestIrq(TEST_LINE, action)).toBe(0);

  const errors: unknown[] = [];
  onTestFinished(() => expect(errors).toEqual([]));
  scheduler.onEnd((task, _status, error) => {
    if (error !== undefined) errors.push(error);
    tasks.release(m.ctx, task);
  });
  const step = (): string => scheduler.step();

  return {
    ...m,
    ...deferred,
    percpu,
    irqs,
    tasks,
    scheduler,
    waits,
    failTasks(times) {
      nrFailures = times;
    },
    memory: (bytes) => m.image.bss("test", bytes, 8),
    irq: (cpu) => contexts.irqContext(cpu),
    idle: (cpu) => contexts.taskContext(cpu),
    interrupt(cpu, next) {
      handler = next;
      irqs.setAffinity(TEST_LINE, cpu);
      // An interrupt is not taken before the moment it was raised: the CPU must have come that far.
      harts.clock[cpu] = Math.max(harts.clock[cpu] as number, harts.clock[harts.current[0] as number] as number);
      machine.irqChip.raise(cpu, TEST_LINE);
      irqs.checkpoint(cpu);
    },
    spawn(name, body, cpu) {
      let task: Task | undefined;
      task = tasks.create(m.ctx, {
        comm: name,
        parent: NULL,
        flags: PF_KTHREAD | (cpu === undefined ? 0 : PF_NO_SETAFFINITY),
        *body(ctx) {
          yield* body(ctx, task as Task);
          return 0;
        },
      });
      if (task === undefined) throw new Error("task_world: no task");
      if (cpu !== undefined) {
        port.st32(task.struct + TASK_CPU, cpu);
        port.st32(task.struct + TASK_HOME, cpu);
      }
      scheduler.wake(task);
      return task;
    },
    step,
    runAll(maxSteps = 100_000) {
      for (let steps = 0; step() !== "nothing"; steps++) expect(steps).toBeLessThan(maxSteps);
    },
    takeErrors: () => errors.splice(0),
    names: () => tasks.all().map((task) => taskComm(port, task.struct)),
    now: (cpu) => harts.clock[cpu] as number,
  };
}
