/**
 * Object allocators with tasks, a scheduler and mempools on top: what is needed to see somebody sleep for memory.
 */

import { expect } from "vitest";
import { createIrqs } from "../../kernel/irq.ts";
import { createScheduler, type Scheduler } from "../../kernel/sched.ts";
import { createTasks, type Task, type Tasks } from "../../kernel/task.ts";
import { PF_KTHREAD, TASK_STRUCT_BYTES } from "../../kernel/task_struct.ts";
import { asPhys, NULL, type PhysAddr, type Sleeping, type TaskContext } from "../../kernel/types.ts";
import { createWaitQueues, type WaitQueues } from "../../kernel/wait.ts";
import { createMempools, MEMPOOL_STATIC_BYTES, type Mempools } from "../../mm/mempool.ts";
import { bootObjectLevel, type ObjectLevelMachine } from "./object_level.ts";
import type { PageLevelOptions } from "./page_level.ts";

export interface MempoolWorld extends ObjectLevelMachine {
  readonly mempools: Mempools;
  readonly tasks: Tasks;
  readonly waits: WaitQueues;
  readonly scheduler: Scheduler;
  /** A kernel thread that runs once `runAll` is called. */
  spawn(name: string, body: (ctx: TaskContext) => Sleeping<number>): Task;
  /** Runs until nothing is left to do; results of ended tasks by pid. An error that ended a task is thrown. */
  runAll(): ReadonlyMap<number, number>;
}

export function bootMempoolWorld(options: PageLevelOptions = {}): MempoolWorld {
  let bind: ((tasks: Tasks) => Scheduler) | undefined;
  const m = bootObjectLevel("magazine", {
    ...options,
    compose: (parts) => {
      bind = createScheduler({ ...parts, irqs: createIrqs(parts) });
    },
  });
  const { machine, contexts, spinlocks, printk, pages, slab } = m;
  // task_structs from static memory: they are no part of what is tested.
  const structs = m.image.bss("test_tasks", 64 * TASK_STRUCT_BYTES, 8);
  let nrTasks = 0;
  const tasks = createTasks(machine, contexts, {
    alloc: () => asPhys(structs + nrTasks++ * TASK_STRUCT_BYTES),
    free: () => {},
  });
  const scheduler = (bind as (tasks: Tasks) => Scheduler)(tasks);
  const waits = createWaitQueues(machine, contexts, tasks, scheduler);
  const statics: PhysAddr = m.image.bss("mempools", MEMPOOL_STATIC_BYTES, 8);
  machine.harts.online.fill(1);
  const pageAlloc = m.failingPages;
  const mempools = createMempools({
    machine,
    contexts,
    spinlocks,
    printk,
    pages,
    pageAlloc,
    slab,
    tasks,
    waits,
    statics,
  });
  const results = new Map<number, number>();
  const errors: unknown[] = [];
  scheduler.onEnd((task, status, error) => {
    if (error !== undefined) errors.push(error);
    results.set(task.pid, status);
    tasks.release(m.ctx, task);
  });
  return {
    ...m,
    mempools,
    tasks,
    waits,
    scheduler,
    spawn(name, body) {
      const task = tasks.create(m.ctx, { comm: name, parent: NULL, flags: PF_KTHREAD, body });
      if (task === undefined) throw new Error("mempool_world: no task");
      scheduler.wake(task);
      return task;
    },
    runAll() {
      for (let steps = 0; scheduler.step() !== "nothing"; steps++) expect(steps).toBeLessThan(100_000);
      if (errors.length > 0) throw errors[0];
      return results;
    },
  };
}
