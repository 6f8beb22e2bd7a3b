/**
 * Priority inheritance.
 *
 * Goal: PI-1 … PI-3, SCH-5. Method: the classic low, medium and high task on one CPU, with inheritance and without: without
 * it the delay of `high` grows with the work of the tasks between, with it the critical section is the bound; then chains,
 * several mutexes, priorities that change while tasks wait, and an auditor that looks after every step of random runs.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MUTEX_BYTES, MUTEX_NO_PI } from "../../kernel/mutex.ts";
import type { Task } from "../../kernel/task.ts";
import { SCHED_FIFO, TASK_POLICY, TASK_PRIORITY } from "../../kernel/task_struct.ts";
import type { PhysAddr, Sleeping } from "../../kernel/types.ts";
import { runs } from "../support/runs.ts";
import { bootTaskLevel, type TaskLevel, type TaskLevelOptions } from "../support/task_level.ts";

const boot = (options: TaskLevelOptions = {}) => {
  const t = bootTaskLevel(options);
  const mutex = (flags = 0): PhysAddr => {
    const m = t.alloc(MUTEX_BYTES);
    t.mutexes.init(m, "m", flags);
    return m;
  };
  const priority = (task: Task): number => t.tasks.field(task, TASK_PRIORITY);
  return { ...t, mutex, priority };
};

function* hold(t: TaskLevel, task: Task, m: PhysAddr, inside: Sleeping<unknown>): Sleeping<void> {
  yield* t.mutexes.lock(task, m);
  try {
    yield* inside;
  } finally {
    t.mutexes.unlock(task, m);
  }
}

/** The same as a waiter that comes at `time`. */
function* later(t: TaskLevel, task: Task, m: PhysAddr, time: number, inside: () => void = () => {}): Sleeping<void> {
  yield* t.scheduler.sleepUntil(task, time);
  yield* t.mutexes.lock(task, m);
  inside();
  t.mutexes.unlock(task, m);
}

const SECTION = 3_000_000;
const MEDIUM_WORK = 40_000_000;
const TICK = 4_000_000;

/** `low` is in its critical section when `high` and the medium tasks wake up: how long does `high` wait? */
function inversion(nrMedium: number, options: TaskLevelOptions, flags = 0): number {
  const t = boot(options);
  const m = t.mutex(flags);
  let latency = -1;
  t.start("low", (task) => hold(t, task, m, t.work(task, SECTION + TICK)), 10);
  t.start(
    "high",
    function* (task) {
      yield* t.scheduler.sleepUntil(task, TICK / 2);
      const start = t.clockOf(task);
      yield* t.mutexes.lock(task, m);
      latency = t.clockOf(task) - start;
      t.mutexes.unlock(task, m);
    },
    90,
  );
  for (let i = 0; i < nrMedium; i++) {
    t.start(
      `medium${i}`,
      function* (task) {
        yield* t.scheduler.sleepUntil(task, TICK / 2);
        yield* t.work(task, MEDIUM_WORK);
      },
      50,
    );
  }
  t.run();
  t.expectClean();
  return latency;
}

describe("the inversion", () => {
  it("PI-1 without inheritance it has no bound, with it the critical section is the bound", () => {
    const load = [0, 1, 2, 4, 8];
    const without = load.map((n) => inversion(n, { isInheriting: false }));
    const withPi = load.map((n) => inversion(n, {}));
    const perMutex = load.map((n) => inversion(n, {}, MUTEX_NO_PI));
    console.info(
      ["cycles that high waits, by number of medium tasks", `  medium  ${load.join("  ")}`]
        .concat([`  pi=off  ${without.join("  ")}`, `  pi=on   ${withPi.join("  ")}`])
        .join("\n"),
    );
    load.forEach((n, i) => {
      expect(without[i]).toBeGreaterThanOrEqual(n * MEDIUM_WORK);
      expect(withPi[i]).toBeLessThan(SECTION + 2 * TICK);
    });
    expect(perMutex).toEqual(without);
    // What is left is when `low` got in: the others start first.
    expect(Math.max(...withPi) - Math.min(...withPi)).toBeLessThan(10_000);
  });

  it("SCH-5 the end of the loan gives the CPU to the lender at once", () => {
    const t = boot();
    const m = t.mutex();
    const order: string[] = [];
    t.start(
      "low",
      function* (task) {
        yield* hold(t, task, m, t.work(task, SECTION + TICK));
        order.push(`low unlocked at ${t.priority(task)}`);
        yield* t.work(task, TICK);
        order.push("low done");
      },
      10,
    );
    t.start(
      "high",
      function* (task) {
        yield* t.scheduler.sleepUntil(task, TICK / 2);
        yield* hold(t, task, m, t.work(task, 1000));
        order.push("high done");
      },
      90,
    );
    t.run();
    expect(order).toEqual(["low unlocked at 10", "high done", "low done"]);
    t.expectClean();
  });

  it("a fair owner is lent a real-time policy and gives it back", () => {
    const t = boot();
    const m = t.mutex();
    const seen: (readonly [number, number])[] = [];
    const look = (task: Task): number =>
      seen.push([t.tasks.field(task, TASK_POLICY), t.tasks.field(task, TASK_PRIORITY)]);
    t.start("low", function* (task) {
      yield* hold(t, task, m, t.scheduler.sleepUntil(task, 3 * TICK));
      look(task);
    });
    t.start("high", (task) => later(t, task, m, TICK), 90);
    t.start("spy", function* (task) {
      yield* t.scheduler.sleepUntil(task, 2 * TICK);
      look(t.mutexes.owner(m) as Task);
    });
    t.run();
    expect(seen).toEqual([
      [SCHED_FIFO, 90],
      [0, 0],
    ]);
    t.expectClean();
  });
});

describe("chains", () => {
  /** t0 holds m0; ti holds mi and waits for m(i−1): the last one is the most urgent. */
  const chainOf = (n: number, options: TaskLevelOptions = {}) => {
    const t = boot(options);
    const mutexes = Array.from({ length: n }, () => t.mutex());
    const tasks: Task[] = [];
    for (let i = 0; i < n; i++) {
      tasks.push(
        t.start(
          `t${i}`,
          function* (task) {
            yield* t.scheduler.sleepUntil(task, (i + 1) * TICK);
            const inner =
              i === 0
                ? t.scheduler.sleepUntil(task, (n + 3) * TICK)
                : hold(t, task, mutexes[i - 1] as PhysAddr, t.work(task, 10));
            yield* hold(t, task, mutexes[i] as PhysAddr, inner);
          },
          10 + i,
        ),
      );
    }
    return { ...t, chain: mutexes, members: tasks };
  };

  it("PI-1 a loan goes all the way down, and every link gives it back", () => {
    const n = 12;
    const t = chainOf(n);
    let during: number[] = [];
    t.start(
      "spy",
      function* (task) {
        yield* t.scheduler.sleepUntil(task, (n + 2) * TICK);
        during = t.members.map(t.priority);
        for (const m of t.chain) expect(t.mutexes.check(m)).toBeNull();
      },
      99,
    );
    t.run();
    expect(during).toEqual(Array.from({ length: n }, () => 10 + n - 1));
    t.expectClean();
  });

  it("PI-1 when the most urgent waiter is killed, its loan is taken back along the chain", () => {
    const n = 6;
    const t = chainOf(n);
    let after: number[] = [];
    t.start(
      "spy",
      function* (task) {
        yield* t.scheduler.sleepUntil(task, (n + 1) * TICK);
        t.kill(t.members[n - 1] as Task);
        yield* t.scheduler.sleepUntil(task, (n + 2) * TICK);
        after = t.members.slice(0, n - 1).map(t.priority);
      },
      99,
    );
    t.run();
    expect(after).toEqual(Array.from({ length: n - 1 }, () => 10 + n - 2));
    t.expectClean();
  });

  it("PI-2 a priority that is set while a task waits moves it in the queue and counts for the owner", () => {
    const t = boot();
    const m = t.mutex();
    const order: string[] = [];
    let lent = 0;
    t.start("owner", (task) => hold(t, task, m, t.scheduler.sleepUntil(task, 5 * TICK)));
    const late = t.start("late", (task) => later(t, task, m, TICK, () => order.push("late")), 20);
    t.start("soon", (task) => later(t, task, m, TICK, () => order.push("soon")), 30);
    t.start(
      "spy",
      function* (task) {
        yield* t.scheduler.sleepUntil(task, 3 * TICK);
        t.scheduler.setPolicy(late, SCHED_FIFO, 40);
        lent = t.priority(t.mutexes.owner(m) as Task);
        expect(t.mutexes.check(m)).toBeNull();
      },
      99,
    );
    t.run();
    expect(lent).toBe(40);
    expect(order).toEqual(["late", "soon"]);
    t.expectClean();
  });

  it("a chain longer than maxLockDepth is reported in Linux's words and followed no further", () => {
    const t = chainOf(8, { maxLockDepth: 3 });
    t.run();
    expect(t.log()).toMatch(/Maximum lock depth 3 reached task: t\d \(\d\)/);
    expect(t.tasks.all()).toEqual([]);
  });

  it("with several mutexes the greatest loan counts, and each unlock gives back its own", () => {
    const t = boot();
    const [a, b] = [t.mutex(), t.mutex()];
    const seen: number[] = [];
    t.start(
      "owner",
      function* (task) {
        yield* t.mutexes.lock(task, a);
        yield* t.mutexes.lock(task, b);
        yield* t.scheduler.sleepUntil(task, 4 * TICK);
        seen.push(t.priority(task));
        t.mutexes.unlock(task, a);
        seen.push(t.priority(task));
        t.mutexes.unlock(task, b);
        seen.push(t.priority(task));
      },
      5,
    );
    t.start("wa", (task) => later(t, task, a, TICK), 80);
    t.start("wb", (task) => later(t, task, b, TICK), 60);
    t.run();
    expect(seen).toEqual([80, 60, 5]);
    t.expectClean();
  });
});

describe("random runs", () => {
  interface Plan {
    readonly wanted: readonly number[];
    readonly cycles: number;
  }
  /**
   * More steps than this and nobody gets on. `work` can give way each 1,000 cycles, and does when another CPU is behind;
   * all that is done beside the work (sleeps, wake-ups, loans) takes a handful of steps a task and mutex.
   */
  const stepsAtMost = (plans: readonly Plan[]): number =>
    plans.reduce((sum, { wanted, cycles }) => sum + wanted.length * (Math.ceil(cycles / 1000) + 100), 100);

  it("PI-1, PI-2 hold after every step, with nesting, sleeps, kills and priority changes", () => {
    const plan = fc.record({
      priority: fc.constantFrom(0, 10, 20, 30, 40),
      wanted: fc.subarray([0, 1, 2, 3], { minLength: 1 }),
      at: fc.nat(20),
      cycles: fc.constantFrom(1000, 300_000, 6_000_000),
      changes: fc.option(fc.record({ victim: fc.nat(9), priority: fc.constantFrom(1, 15, 50), kills: fc.boolean() })),
    });
    fc.assert(
      fc.property(fc.array(plan, { minLength: 3, maxLength: 10 }), fc.constantFrom(1, 2), (plans, nrCpus) => {
        const t = boot({ nrCpus });
        const all = Array.from({ length: 4 }, () => t.mutex());
        const tasks: Task[] = [];
        plans.forEach(({ priority, wanted, at, cycles, changes }, i) => {
          const nested = function* (task: Task, level: number): Sleeping<void> {
            const which = wanted[level];
            if (which === undefined) {
              const victim = changes === null ? undefined : tasks[changes.victim];
              if (victim !== undefined && t.tasks.get(victim.pid) === victim && victim !== task) {
                if (changes?.kills === true) t.kill(victim);
                else t.scheduler.setPolicy(victim, SCHED_FIFO, changes?.priority ?? 1);
              }
              return;
            }
            const inner = function* (): Sleeping<void> {
              yield* t.work(task, cycles);
              yield* nested(task, level + 1);
            };
            yield* hold(t, task, all[which] as PhysAddr, inner());
          };
          const body = function* (task: Task): Sleeping<void> {
            yield* t.scheduler.sleepUntil(task, at * 1_000_000);
            yield* nested(task, 0);
          };
          tasks.push(t.start(`t${i}`, body, priority));
        });
        const bound = stepsAtMost(plans);
        for (let steps = 0; t.scheduler.step() !== "nothing"; steps++) {
          expect(steps).toBeLessThan(bound);
          for (const m of all) expect(t.mutexes.check(m)).toBeNull();
          expect(t.scheduler.check()).toBeNull();
        }
        t.expectClean();
      }),
      { numRuns: runs(35, 100) },
    );
  });
});
