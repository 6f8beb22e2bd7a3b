/**
 * Wait queues, completions, semaphores.
 *
 * Goal: WTQ-1 … WTQ-3, CMP-1 … CMP-3, SEM-1 … SEM-3 and C2, C3 for each of them. Method: tasks on a real scheduler; kills at
 * every moment that matters; random producers and consumers, some of which are killed, against a count.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { COMPLETION_BYTES } from "../../kernel/completion.ts";
import { SEMAPHORE_BYTES } from "../../kernel/semaphore.ts";
import type { Task } from "../../kernel/task.ts";
import type { PhysAddr, Sleeping } from "../../kernel/types.ts";
import { bootTaskLevel, Killed, type TaskLevel } from "../support/task_level.ts";

const TICK = 4_000_000;

const boot = (nrCpus = 1) => {
  const t = bootTaskLevel({ nrCpus });
  const queue = t.alloc(8);
  t.waits.init(queue);
  const completion = (): PhysAddr => {
    const c = t.alloc(COMPLETION_BYTES);
    t.completions.init(c);
    return c;
  };
  const semaphore = (count: number): PhysAddr => {
    const s = t.alloc(SEMAPHORE_BYTES);
    t.semaphores.init(s, count);
    return s;
  };
  /** Does `act` at virtual time `time`, as the most urgent task. */
  const at = (time: number, act: (task: Task) => void): void => {
    t.start(
      `at${time}`,
      function* (task) {
        yield* t.scheduler.sleepUntil(task, time);
        act(task);
      },
      99,
    );
  };
  return { ...t, queue, completion, semaphore, at };
};

describe("wait queues", () => {
  it("WTQ-3 waitOnTimeout: woken in time is true, too late or never is false", () => {
    const t = boot();
    const results: (readonly [string, boolean, number])[] = [];
    const waiter = (comm: string, until: number): Task =>
      t.start(comm, function* (task) {
        const isWoken = yield* t.waits.waitOnTimeout(t.queue, task, until);
        results.push([comm, isWoken, Math.floor(t.clockOf(task) / TICK)]);
      });
    waiter("early", 2 * TICK);
    waiter("patient", 9 * TICK);
    waiter("past", 0);
    t.at(4 * TICK, () => t.waits.wakeUp(t.queue));
    t.run();
    expect(results).toEqual([
      ["past", false, 0],
      ["early", false, 2],
      ["patient", true, 4],
    ]);
    expect(t.waits.isEmpty(t.queue)).toBe(true);
    t.expectClean();
  });

  it("a woken waiter leaves no alarm behind, and sleeps again as long as it says", () => {
    const t = boot();
    let times: number[] = [];
    t.start("waiter", function* (task) {
      yield* t.waits.waitOnTimeout(t.queue, task, 3 * TICK);
      const woken = t.clockOf(task);
      yield* t.scheduler.sleepUntil(task, 8 * TICK);
      times = [woken, t.clockOf(task)].map((time) => Math.floor(time / TICK));
    });
    t.at(TICK, () => t.waits.wakeUp(t.queue));
    t.run();
    expect(times).toEqual([1, 8]);
    t.expectClean();
  });

  it("wakeOne wakes in order of arrival, one each", () => {
    const t = boot();
    const order: string[] = [];
    for (const comm of ["a", "b", "c"]) {
      t.start(comm, function* (task) {
        yield* t.waits.waitOn(t.queue, task);
        order.push(comm);
      });
    }
    t.at(TICK, () => expect(t.waits.wakeOne(t.queue)).toBe(true));
    t.at(2 * TICK, () => order.push("|"));
    t.at(3 * TICK, () => {
      expect([t.waits.wakeOne(t.queue), t.waits.wakeOne(t.queue), t.waits.wakeOne(t.queue)]).toEqual([
        true,
        true,
        false,
      ]);
    });
    t.run();
    expect(order).toEqual(["a", "|", "b", "c"]);
    t.expectClean();
  });

  it("waitEvent loses no wake-up that comes between the test and the sleep", () => {
    const t = boot();
    let isReady = false;
    let wasSeen = false;
    t.start("waiter", function* (task) {
      yield* t.waits.waitEvent(t.queue, task, () => {
        // The interrupt is pending from now on: it can come as soon as interrupts are on again.
        if (!isReady && !wasSeen) t.machine.irqChip.raise(0, 20);
        wasSeen = true;
        return isReady;
      });
    });
    t.contexts.onInterruptible((cpu) => {
      t.machine.irqChip.acknowledge(cpu);
      isReady = true;
      t.waits.wakeUp(t.queue);
    });
    t.run();
    expect([wasSeen, isReady]).toEqual([true, true]);
    t.expectClean();
  });

  it("waitEventTimeout says whether it came true", () => {
    const t = boot();
    let isReady = false;
    const results: boolean[] = [];
    t.start("waiter", function* (task) {
      results.push(yield* t.waits.waitEventTimeout(t.queue, task, () => isReady, 2 * TICK));
      results.push(yield* t.waits.waitEventTimeout(t.queue, task, () => isReady, 9 * TICK));
      results.push(yield* t.waits.waitEventTimeout(t.queue, task, () => isReady, 0));
    });
    t.at(TICK, () => t.waits.wakeUp(t.queue));
    t.at(4 * TICK, () => {
      isReady = true;
      t.waits.wakeUp(t.queue);
    });
    t.run();
    expect(results).toEqual([false, true, true]);
    t.expectClean();
  });

  it("WTQ-1 a killed sleeper leaves the queue and the alarms", () => {
    const t = boot();
    const sleepers = [
      t.start("plain", (task) => t.waits.waitOn(t.queue, task)),
      t.start("timed", (task) => t.waits.waitOnTimeout(t.queue, task, 50 * TICK)),
    ];
    t.at(TICK, () => sleepers.forEach(t.kill));
    t.run();
    expect([...t.ended.values()].filter((error) => error instanceof Killed)).toHaveLength(2);
    expect(t.waits.isEmpty(t.queue)).toBe(true);
    expect(Math.max(...t.machine.harts.clock)).toBeLessThan(10 * TICK);
    t.expectClean();
  });
});

describe("completions", () => {
  it("CMP-1, CMP-3 each complete ends one wait, before or after it began", () => {
    const t = boot();
    const c = t.completion();
    let nr = 0;
    t.completions.complete(t.ctx, c);
    expect(t.completions.isDone(c)).toBe(true);
    for (const comm of ["a", "b", "c"]) {
      t.start(comm, function* (task) {
        yield* t.completions.wait(task, c);
        nr++;
      });
    }
    t.run();
    expect([nr, t.completions.isDone(c)]).toEqual([1, false]);
    t.interrupt(0, (irq) => t.completions.complete(irq, c));
    t.run();
    expect(nr).toBe(2);
    t.completions.complete(t.ctx, c);
    t.run();
    expect([nr, t.completions.isDone(c)]).toEqual([3, false]);
    t.expectClean();
  });

  it("CMP-1 completeAll ends every wait, also later ones, until reinit", () => {
    const t = boot();
    const c = t.completion();
    let nr = 0;
    const waiter = (comm: string): Task =>
      t.start(comm, function* (task) {
        yield* t.completions.wait(task, c);
        nr++;
      });
    waiter("a");
    waiter("b");
    t.run();
    t.completions.completeAll(t.ctx, c);
    waiter("late");
    t.run();
    t.completions.complete(t.ctx, c);
    expect([nr, t.completions.tryWait(t.ctx, c), t.completions.tryWait(t.ctx, c)]).toEqual([3, true, true]);
    t.completions.reinit(c);
    expect(t.completions.tryWait(t.ctx, c)).toBe(false);
    t.expectClean();
  });

  it("CMP-2 a wait whose time runs out uses nothing up", () => {
    const t = boot();
    const c = t.completion();
    const results: boolean[] = [];
    t.start("waiter", function* (task) {
      results.push(yield* t.completions.waitTimeout(task, c, TICK));
      yield* t.scheduler.sleepUntil(task, 9 * TICK);
      results.push(yield* t.completions.waitTimeout(task, c, TICK));
    });
    t.at(5 * TICK, (task) => t.completions.complete(task.ctx, c));
    t.run();
    expect([results, t.completions.isDone(c)]).toEqual([[false, true], false]);
    t.expectClean();
  });

  it("CMP-2 a waiter that is killed after it was chosen passes the completion on", () => {
    const t = boot();
    const c = t.completion();
    const first = t.start("first", (task) => t.completions.wait(task, c));
    t.start("second", (task) => t.completions.wait(task, c));
    t.at(TICK, (task) => {
      t.completions.complete(task.ctx, c);
      t.kill(first);
    });
    t.run();
    expect(t.ended.get("first")).toBeInstanceOf(Killed);
    expect([t.ended.has("second"), t.completions.isDone(c)]).toEqual([true, false]);
    t.expectClean();
  });
});

describe("semaphores", () => {
  it("SEM-1, SEM-2 so many pass, the others in order of arrival", () => {
    const t = boot();
    const s = t.semaphore(2);
    const order: string[] = [];
    let inside = 0;
    for (const comm of ["a", "b", "c", "d", "e"]) {
      t.start(comm, function* (task) {
        yield* t.semaphores.down(task, s);
        order.push(comm);
        expect(++inside).toBeLessThanOrEqual(2);
        yield* t.scheduler.sleepUntil(task, t.clockOf(task) + TICK);
        inside--;
        t.semaphores.up(task.ctx, s);
      });
    }
    t.run();
    expect(order).toEqual(["a", "b", "c", "d", "e"]);
    expect(t.semaphores.count(s)).toBe(2);
    t.expectClean();
  });

  it("tryDown never waits, up comes from an interrupt, downTimeout gives up", () => {
    const t = boot();
    const s = t.semaphore(0);
    expect(t.semaphores.tryDown(t.ctx, s)).toBe(false);
    t.interrupt(0, (irq) => t.semaphores.up(irq, s));
    expect(t.semaphores.tryDown(t.ctx, s)).toBe(true);
    const results: boolean[] = [];
    t.start("waiter", function* (task) {
      results.push(yield* t.semaphores.downTimeout(task, s, TICK));
      results.push(yield* t.semaphores.downTimeout(task, s, 9 * TICK));
    });
    t.at(5 * TICK, (task) => t.semaphores.up(task.ctx, s));
    t.run();
    expect([results, t.semaphores.count(s)]).toEqual([[false, true], 0]);
    t.expectClean();
  });

  it("SEM-3 random tasks with kills and timeouts: the permits add up", () => {
    const plan = fc.record({
      cycles: fc.constantFrom(100, TICK / 2, 3 * TICK),
      timeout: fc.option(fc.constantFrom(TICK, 4 * TICK)),
      killedAt: fc.option(fc.nat(12)),
    });
    fc.assert(
      fc.property(
        fc.array(plan, { minLength: 1, maxLength: 8 }),
        fc.nat(3),
        fc.constantFrom(1, 2),
        (plans, n, cpus) => {
          const t = boot(cpus);
          const s = t.semaphore(n + 1);
          let inside = 0;
          plans.forEach(({ cycles, timeout, killedAt }, i) => {
            const task = t.start(`t${i}`, function* (self): Sleeping<void> {
              for (let round = 0; round < 3; round++) {
                if (timeout === null) yield* t.semaphores.down(self, s);
                else if (!(yield* t.semaphores.downTimeout(self, s, timeout))) continue;
                try {
                  expect(++inside).toBeLessThanOrEqual(n + 1);
                  yield* t.scheduler.sleepUntil(self, t.clockOf(self) + cycles);
                } finally {
                  inside--;
                  t.semaphores.up(self.ctx, s);
                }
              }
            });
            if (killedAt !== null) {
              t.at(killedAt * TICK + i, () => {
                if (t.tasks.get(task.pid) === task) t.kill(task);
              });
            }
          });
          t.run();
          for (const error of t.ended.values()) expect(error === undefined || error instanceof Killed).toBe(true);
          expect(t.semaphores.count(s)).toBe(n + 1);
          t.expectClean();
        },
      ),
      { numRuns: 100 },
    );
  });
});

describe("wait contexts", () => {
  type Enter = (t: TaskLevel, task: Task) => void;
  const contexts: Record<string, Enter> = {
    "preemption off": (t, task) => t.contexts.preemptDisable(task.ctx),
    "interrupts off": (t, task) => t.contexts.localIrqSave(task.ctx),
    "softirqs off": (t, task) => t.spinlocks.bottomHalves.localBhDisable(task.ctx),
    "a spinlock": (t, task) => t.spinlocks.spinLock(task.ctx, t.alloc(8)),
    "a write lock": (t, task) => t.rwlocks.writeLock(task.ctx, t.alloc(8)),
  };
  type Level = ReturnType<typeof boot>;
  const sleeps: Record<string, (t: Level, task: Task) => Sleeping<unknown>> = {
    "kernel/wait.ts:waitOn": (t, task) => t.waits.waitOn(t.queue, task),
    "kernel/wait.ts:waitOnTimeout": (t, task) => t.waits.waitOnTimeout(t.queue, task, TICK),
    "kernel/wait.ts:waitEvent": (t, task) => t.waits.waitEvent(t.queue, task, () => false),
    "kernel/completion.ts:wait": (t, task) => t.completions.wait(task, t.completion()),
    "kernel/semaphore.ts:down": (t, task) => t.semaphores.down(task, t.semaphore(0)),
  };
  const cases = Object.keys(sleeps).flatMap((where) =>
    Object.keys(contexts).map((context) => [where, context] as const),
  );

  it.each(cases)("C2, C3 %s with %s", (where, context) => {
    const t = boot();
    const wrong = t.start("wrong", function* (task) {
      (contexts[context] as Enter)(t, task);
      yield* (sleeps[where] as (t: Level, task: Task) => Sleeping<unknown>)(t, task);
    });
    t.run();
    if (t.tasks.get(wrong.pid) === wrong) t.kill(wrong);
    t.run();
    expect(t.log()).toContain(`BUG: sleeping function called from invalid context at ${where}`);
    expect(t.log()).toMatch(/BUG: scheduling while atomic: wrong\/1\/0x/);
  });

  it.each(Object.keys(sleeps))("the clean twin of %s is silent", (where) => {
    const t = boot();
    const right = t.start("right", (task) => (sleeps[where] as (t: Level, task: Task) => Sleeping<unknown>)(t, task));
    t.run();
    if (t.tasks.get(right.pid) === right) t.kill(right);
    t.run();
    t.expectClean();
  });
});
