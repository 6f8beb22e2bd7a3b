/**
 * Interrupts at every point of a wait.
 *
 * Goal: WTQ-2, CMP-1, SEM-1: no wake-up is lost, wherever it comes. Method: a task begins to wait; an interrupt that ends the
 * wait is injected before each access that the task makes with interrupts on, one fresh machine per point; afterwards
 * the task must have gone on. The plain loop of test and waitOn, which is not made for wake-ups by interrupts, is the
 * planted mistake.
 */

import { afterAll, describe, expect, it } from "vitest";
import { COMPLETION_BYTES } from "../../kernel/completion.ts";
import { SEMAPHORE_BYTES } from "../../kernel/semaphore.ts";
import type { Task } from "../../kernel/task.ts";
import { type Context, type PhysAddr, PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { forEachInjection } from "../support/injection.ts";
import { bootTaskLevel, type TaskLevel } from "../support/task_level.ts";

interface World extends TaskLevel {
  readonly it: PhysAddr;
  waiter: Task;
  hasWoken: boolean;
}

interface Primitive {
  readonly init: (w: World) => void;
  readonly wait: (w: World, task: Task) => Sleeping<unknown>;
  readonly wake: (w: World, ctx: Context) => void;
}

const FLAG = 8;
const raise = (w: World): void => {
  w.machine.port.st32(w.it + FLAG, 1);
  w.waits.wakeUp(w.it);
};
const isRaised = (w: World): boolean => w.machine.port.ld32(w.it + FLAG) === 1;

const primitives: Readonly<Record<string, Primitive>> = {
  completion: {
    init: (w) => w.completions.init(w.it),
    wait: (w, task) => w.completions.wait(task, w.it),
    wake: (w, ctx) => w.completions.complete(ctx, w.it),
  },
  "completion, for all": {
    init: (w) => w.completions.init(w.it),
    wait: (w, task) => w.completions.waitTimeout(task, w.it, Number.POSITIVE_INFINITY),
    wake: (w, ctx) => w.completions.completeAll(ctx, w.it),
  },
  semaphore: {
    init: (w) => w.semaphores.init(w.it, 0),
    wait: (w, task) => w.semaphores.down(task, w.it),
    wake: (w, ctx) => w.semaphores.up(ctx, w.it),
  },
  waitEvent: {
    init: (w) => w.waits.init(w.it),
    wait: (w, task) => w.waits.waitEvent(w.it, task, () => isRaised(w)),
    wake: raise,
  },
};

const mistake: Primitive = {
  init: (w) => w.waits.init(w.it),
  *wait(w, task) {
    while (!isRaised(w)) yield* w.waits.waitOn(w.it, task);
  },
  wake: raise,
};

let nrPoints = 0;
afterAll(() => console.info(`wake-ups injected into waits: ${nrPoints}`));

function exhaust({ init, wait, wake }: Primitive): void {
  const setup = (): World => {
    const t = bootTaskLevel({ port: "inject" });
    const w = { ...t, it: t.alloc(Math.max(COMPLETION_BYTES, SEMAPHORE_BYTES)), hasWoken: false } as World;
    init(w);
    w.waiter = t.start("waiter", function* (task) {
      yield PREEMPTED;
      yield* wait(w, task);
    });
    w.scheduler.step();
    return w;
  };
  const fire = (w: World, ctx: Context): void => {
    w.hasWoken = true;
    wake(w, ctx);
  };
  const { injected } = forEachInjection(
    setup,
    (w) => w.scheduler.step(),
    fire,
    (w) => {
      if (!w.hasWoken) w.interrupt(0, (irq) => fire(w, irq));
      w.run();
      if (!w.ended.has("waiter")) throw new Error("the wake-up is lost");
      w.expectClean();
    },
    { isFresh: true, isOpen: (w) => w.scheduler.current(0) === w.waiter },
  );
  nrPoints += injected;
  expect(injected).toBeGreaterThan(3);
}

describe("a wake-up at every point of", () => {
  it.each(Object.keys(primitives))("%s", (name) => exhaust(primitives[name] as Primitive));

  it("a test and a sleep that are two steps is lost at one of them", () => {
    expect(() => exhaust(mistake)).toThrow("the wake-up is lost");
  });
});
