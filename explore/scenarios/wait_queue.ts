/**
 * Scenario: a wait queue (kernel/wait.ts) whose condition is made true by interrupts, at every possible moment.
 *
 * A task waits for items, one at a time; each interrupt puts one down and wakes. Kernel code between two sleeps is not
 * interleaved with other tasks in this kernel, so interrupts are the whole of the concurrency: one CPU. The scheduler
 * of this scenario is the state word of the task: whoever is not TASK_RUNNING waits in the engine until it is.
 */

import type { Task } from "../../kernel/task.ts";
import { TASK_INTERRUPTIBLE, TASK_RUNNING, TASK_STATE, TASK_STRUCT_BYTES } from "../../kernel/task_struct.ts";
import { asPhys, type PhysAddr, type Sleeping } from "../../kernel/types.ts";
import { createWaitQueues, type WaitQueues } from "../../kernel/wait.ts";
import type { BuildOptions, Mutant, Operation, Scenario, ScenarioWorld } from "../scenario.ts";
import { createPageWorld } from "../world.ts";

const MUTANTS: readonly Mutant[] = [
  {
    name: "test-then-wait",
    story: "while (!condition) yield* waitOn(): an interrupt between test and sleep wakes nobody (lost wake-up)",
    kinds: ["deadlock"],
    bound: 1,
    programs: ["w"],
    irqs: 1,
  },
  {
    name: "sleep-first",
    story: "the task sleeps before it looks: what was there already wakes nobody",
    kinds: ["deadlock"],
    bound: 1,
    programs: ["w"],
    irqs: 1,
  },
  {
    name: "take-irqs-on",
    story: "an item is taken with interrupts on: a handler that puts one down in between is forgotten",
    kinds: ["interrupt race", "invariant", "deadlock"],
    bound: 1,
  },
];

/** What hands remember. */
const TAKEN = 1;
const PUT = 2;

function* no(): Sleeping<number> {
  return 0;
}

function build({ nrCpus, mutant }: BuildOptions): ScenarioWorld {
  const world = createPageWorld({ nrCpus });
  const { machine, contexts, port, image, names } = world;
  const queue = image.bss("explore_queue", 8, 8);
  const items = image.bss("explore_items", 8, 8);
  const struct = image.bss("explore_task", TASK_STRUCT_BYTES, 8);
  names.add(queue, 8, "queue", { 0: "next", 4: "prev" });
  names.add(items, 4, "items");
  names.add(struct, TASK_STRUCT_BYTES, "task", { [TASK_STATE]: "state" });
  const task: Task = { pid: 1, struct, ctx: world.task(0), code: no() };
  const scheduler = {
    prepareToBlock: (blocked: Task) => port.st32(blocked.struct + TASK_STATE, TASK_INTERRUPTIBLE),
    wake: (woken: Task) => port.st32(woken.struct + TASK_STATE, TASK_RUNNING),
  };
  const tasks = { at: (addr: PhysAddr) => (addr === struct ? task : undefined) };
  const waits: WaitQueues = createWaitQueues(machine, contexts, tasks, scheduler);
  waits.init(queue);
  waits.init(asPhys(struct + 0));

  const isThere = (): boolean => port.ld32(items) > 0;
  const finish = (sleeping: Sleeping<void>): void => {
    // Blocked: the CPU is idle, with interrupts on, until somebody makes the task runnable.
    while (sleeping.next().done !== true) port.waitUntil(struct + TASK_STATE, TASK_RUNNING, true);
  };
  const look = (): boolean => {
    const flags = contexts.localIrqSave(task.ctx);
    const isSeen = isThere();
    contexts.localIrqRestore(task.ctx, flags);
    return isSeen;
  };
  function* naive(): Sleeping<void> {
    if (mutant === "sleep-first") yield* waits.waitOn(queue, task);
    while (!look()) yield* waits.waitOn(queue, task);
  }
  const isNaive = mutant === "test-then-wait" || mutant === "sleep-first";
  const take = (): void => {
    const flags = mutant === "take-irqs-on" ? 1 : contexts.localIrqSave(task.ctx);
    port.st32(items, port.ld32(items) - 1);
    if (mutant !== "take-irqs-on") contexts.localIrqRestore(task.ctx, flags);
  };
  const wait: Operation = (_ctx, held) => {
    finish(isNaive ? naive() : waits.waitEvent(queue, task, isThere));
    take();
    held.push(TAKEN);
    return undefined;
  };
  const put: Operation = (_ctx, held) => {
    port.st32(items, port.ld32(items) + 1);
    waits.wakeUp(queue);
    held.push(PUT);
    return undefined;
  };
  return {
    world,
    operations: new Map([
      ["w", wait],
      ["p", put],
    ]),
    check(held) {
      const done = held.flat();
      const left = done.filter((what) => what === PUT).length - done.filter((what) => what === TAKEN).length;
      if (!waits.isEmpty(queue)) return "WTQ-1: a task that has ended is on the queue";
      return port.ld32(items) === left ? null : `${port.ld32(items)} items are there, ${left} should be`;
    },
  };
}

export const waitQueue: Scenario = {
  name: "wait-queue",
  about: "a task that waits for what interrupts bring",
  cpus: 1,
  maxCpus: 1,
  operations: new Map([
    ["w", "wait for an item and take it"],
    ["p", "put an item down and wake"],
  ]),
  programs: () => ["ww"],
  randomLetters: "",
  irqProgram: "p",
  irqs: 2,
  hasLocks: true,
  mutants: MUTANTS,
  build,
};
