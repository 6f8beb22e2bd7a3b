/**
 * Mutexes: taking, waiting, handing over, misuse, unwinding.
 *
 * Goal: MTX-1 … MTX-6 and the wait contexts (C2, C3). Method: tasks on a real scheduler; the order in which they get
 * the mutex is written down and compared; a random walk with kills checks exclusion, order and leftovers.
 * Priority inheritance has a file of its own.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { KernelBug } from "../../kernel/bug.ts";
import { MAX_SPIN_CYCLES, MUTEX_BYTES } from "../../kernel/mutex.ts";
import type { Task } from "../../kernel/task.ts";
import { type PhysAddr, PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { bootTaskLevel, Killed, type TaskLevel, type TaskLevelOptions } from "../support/task_level.ts";

interface MutexLevel extends TaskLevel {
  readonly m: PhysAddr;
  mutex(): PhysAddr;
}

const boot = (options: TaskLevelOptions = {}): MutexLevel => {
  const t = bootTaskLevel(options);
  const mutex = (): PhysAddr => {
    const m = t.alloc(MUTEX_BYTES);
    t.mutexes.init(m, "m");
    return m;
  };
  return { ...t, m: mutex(), mutex };
};

/** Takes, works, gives back, as everybody should. */
function* hold(t: TaskLevel, task: Task, m: PhysAddr, cycles: number, inside: () => void = () => {}): Sleeping<void> {
  yield* t.mutexes.lock(task, m);
  try {
    inside();
    yield* t.work(task, cycles);
  } finally {
    t.mutexes.unlock(task, m);
  }
}

describe("taking and handing over", () => {
  it("MTX-1 the word names the owner, who may sleep with it", () => {
    const t = boot();
    t.start("a", function* (task) {
      yield* t.mutexes.lock(task, t.m);
      expect(t.mutexes.owner(t.m)).toBe(task);
      yield* t.scheduler.sleepUntil(task, t.clockOf(task) + 50_000_000);
      expect(t.mutexes.owner(t.m)).toBe(task);
      t.mutexes.unlock(task, t.m);
      expect(t.mutexes.isLocked(t.m)).toBe(false);
    });
    t.run();
    expect(t.ended.get("a")).toBeUndefined();
    expect(t.mutexes.stats()).toEqual({ fast: 1, spun: 0, slept: 0, boosts: 0, reports: 0 });
    t.expectClean();
  });

  it("MTX-2 waiters come in order of priority, equal ones in order of arrival", () => {
    const t = boot();
    const order: string[] = [];
    t.start("owner", (task) => hold(t, task, t.m, 10_000_000), 99);
    for (const [comm, priority] of [
      ["fair1", 0],
      ["p10", 10],
      ["p50a", 50],
      ["fair2", 0],
      ["p50b", 50],
    ] as const) {
      t.start(
        comm,
        function* (task) {
          yield* t.scheduler.sleepUntil(task, 1_000_000);
          yield* hold(t, task, t.m, 1000, () => order.push(comm));
        },
        priority,
      );
    }
    // The owner sleeps with the mutex, so that everybody gets as far as the queue.
    t.start(
      "holder",
      function* (task) {
        yield* t.mutexes.lock(task, t.m);
        yield* t.scheduler.sleepUntil(task, t.clockOf(task) + 40_000_000);
        t.mutexes.unlock(task, t.m);
      },
      98,
    );
    t.run();
    expect(order).toEqual(["p50a", "p50b", "p10", "fair1", "fair2"]);
    expect(t.mutexes.check(t.m)).toBeNull();
    t.expectClean();
  });

  it("MTX-2 an owner that unlocks and locks again does not overtake its waiter", () => {
    const t = boot();
    const order: string[] = [];
    t.start("greedy", function* (task) {
      for (let i = 0; i < 3; i++) yield* hold(t, task, t.m, 6_000_000, () => order.push("greedy"));
    });
    t.start("waiter", (task) => hold(t, task, t.m, 1000, () => order.push("waiter")));
    t.run();
    expect(order).toEqual(["greedy", "waiter", "greedy", "greedy"]);
    t.expectClean();
  });

  it("tryLock takes a free mutex, and never waits", () => {
    const t = boot();
    t.start("a", function* (task) {
      expect(t.mutexes.tryLock(task, t.m)).toBe(true);
      yield PREEMPTED;
      t.mutexes.unlock(task, t.m);
    });
    t.start("b", function* (task) {
      expect(t.mutexes.tryLock(task, t.m)).toBe(false);
      yield* t.scheduler.sleepUntil(task, t.clockOf(task) + 10_000_000);
      expect(t.mutexes.tryLock(task, t.m)).toBe(true);
      t.mutexes.unlock(task, t.m);
    });
    t.run();
    expect([t.ended.get("a"), t.ended.get("b")]).toEqual([undefined, undefined]);
    t.expectClean();
  });
});

describe("adaptive waiting", () => {
  const contend = (holdCycles: number, sleeps = false) => {
    const t = boot({ nrCpus: 2 });
    let waited = 0;
    const wait = function* (task: Task): Sleeping<void> {
      const start = t.clockOf(task);
      yield* hold(t, task, t.m, 100);
      waited = t.clockOf(task) - start;
    };
    t.start("owner", function* (task) {
      yield* t.mutexes.lock(task, t.m);
      t.start("waiter", wait);
      yield PREEMPTED;
      if (sleeps) yield* t.scheduler.sleepUntil(task, t.clockOf(task) + holdCycles);
      else yield* t.work(task, holdCycles);
      t.mutexes.unlock(task, t.m);
    });
    t.run();
    t.expectClean();
    return { ...t.mutexes.stats(), waited };
  };

  it("a short critical section on another CPU is waited for by polling", () => {
    const { spun, slept, waited } = contend(5000);
    expect({ spun, slept }).toEqual({ spun: 1, slept: 0 });
    expect(waited).toBeGreaterThan(3000);
    expect(waited).toBeLessThan(MAX_SPIN_CYCLES);
  });

  it("a long one is slept for, and so is an owner that sleeps", () => {
    expect(contend(5_000_000)).toMatchObject({ spun: 0, slept: 1 });
    expect(contend(5_000_000, true)).toMatchObject({ spun: 0, slept: 1 });
  });

  it("nobody takes a mutex before the moment at which it was released", () => {
    for (const holdCycles of [1000, 5000, 15_000, 30_000, 80_000, 1_000_000]) {
      const t = boot({ nrCpus: 3, seed: String(holdCycles) });
      let released = -1;
      for (const comm of ["a", "b", "c"]) {
        t.start(comm, function* (task) {
          for (let i = 0; i < 5; i++) {
            yield* t.mutexes.lock(task, t.m);
            expect(t.clockOf(task)).toBeGreaterThanOrEqual(released);
            yield* t.work(task, holdCycles);
            released = t.clockOf(task);
            t.mutexes.unlock(task, t.m);
            yield PREEMPTED;
          }
        });
      }
      t.run();
      expect([...t.ended.values()]).toEqual([undefined, undefined, undefined]);
      const { fast, spun, slept } = t.mutexes.stats();
      expect(fast + spun + slept).toBe(15);
      t.expectClean();
    }
  });
});

describe("MTX-4 waits that would never end", () => {
  it("a recursive lock is reported and refused; the finally of the caller releases it", () => {
    const t = boot();
    t.start("again", (task) =>
      (function* () {
        yield* t.mutexes.lock(task, t.m);
        try {
          yield* t.mutexes.lock(task, t.m);
        } finally {
          t.mutexes.unlock(task, t.m);
        }
      })(),
    );
    t.run();
    expect(t.ended.get("again")).toBeInstanceOf(KernelBug);
    expect(t.log()).toMatch(
      /rtmutex deadlock detected\nagain\/1 is trying to acquire mutex 0x\w+\n0x\w+ is held by again\/1/,
    );
    expect(t.mutexes.isLocked(t.m)).toBe(false);
  });

  it.each([2, 3, 5])("a ring of %i tasks: the last one is refused, the others go on", (n) => {
    const t = boot({ nrCpus: 2 });
    const ring = Array.from({ length: n }, () => t.mutex());
    for (let i = 0; i < n; i++) {
      t.start(`t${i}`, function* (task) {
        yield* t.mutexes.lock(task, ring[i] as PhysAddr);
        try {
          yield* t.scheduler.sleepUntil(task, 20_000_000);
          yield* hold(t, task, ring[(i + 1) % n] as PhysAddr, 100);
        } finally {
          t.mutexes.unlock(task, ring[i] as PhysAddr);
        }
      });
    }
    t.run();
    const errors = [...t.ended.values()].filter((error) => error !== undefined);
    expect(errors).toHaveLength(1);
    expect(errors[0]).toBeInstanceOf(KernelBug);
    expect(t.log().split("rtmutex deadlock detected")).toHaveLength(2);
    expect(t.log().match(/which is blocked on/g)).toHaveLength(n - 1);
    for (const m of ring) expect(t.mutexes.isLocked(m)).toBe(false);
    expect(t.tasks.all()).toEqual([]);
  });
});

describe("MTX-5 misuse changes nothing", () => {
  it("unlock by another task, and of a free mutex", () => {
    const t = boot();
    t.start("owner", function* (task) {
      t.mutexes.unlock(task, t.m);
      yield* t.mutexes.lock(task, t.m);
      yield PREEMPTED;
      expect(t.mutexes.owner(t.m)).toBe(task);
      t.mutexes.unlock(task, t.m);
    });
    t.start("thief", function* (task) {
      t.mutexes.unlock(task, t.m);
      yield PREEMPTED;
    });
    t.run();
    const reports = t.log().match(/DEBUG_LOCKS_WARN_ON\(__owner_task\(owner\) != current\)\nWARNING: CPU: 0 PID: \d/g);
    expect(reports).toHaveLength(2);
    expect(t.contexts.taintText()).toBe("Tainted: W");
    expect(t.ended.get("owner")).toBeUndefined();
  });

  it("in an interrupt: tryLock and unlock are refused, lock says C2", () => {
    const t = boot();
    t.start("victim", function* (task) {
      yield* t.mutexes.lock(task, t.m);
      t.interrupt(0, () => {
        expect(t.mutexes.tryLock(task, t.m)).toBe(false);
        t.mutexes.unlock(task, t.m);
      });
      expect(t.mutexes.owner(t.m)).toBe(task);
      t.mutexes.unlock(task, t.m);
    });
    t.run();
    expect(t.log().match(/DEBUG_LOCKS_WARN_ON\(!in_task\(\)\)/g)).toHaveLength(2);
    expect(t.ended.get("victim")).toBeUndefined();
  });

  it("MTX-6 a task that ends as owner is reported in lockdep's words; its waiters can still be killed", () => {
    const t = boot();
    const second = t.mutex();
    t.start("leaver", function* (task) {
      yield* t.mutexes.lock(task, t.m);
      yield* t.mutexes.lock(task, second);
    });
    const waiter = t.start("waiter", (task) => hold(t, task, t.m, 100));
    t.run();
    expect(t.log()).toContain("WARNING: leaver/1 still has locks held!");
    expect(t.log()).toContain("2 locks held by leaver/1:");
    expect([t.mutexes.isLocked(t.m), t.mutexes.owner(t.m)]).toEqual([true, undefined]);
    t.kill(waiter);
    t.run();
    expect(t.ended.get("waiter")).toBeInstanceOf(Killed);
    expect(t.mutexes.check(t.m)).toBeNull();
  });
});

describe("MTX-3 a fatal signal", () => {
  it("unwinds a waiter: the next one in the queue gets the mutex", () => {
    const t = boot();
    const order: string[] = [];
    t.start("owner", function* (task) {
      yield* t.mutexes.lock(task, t.m);
      yield* t.scheduler.sleepUntil(task, 30_000_000);
      t.kill(first);
      yield* t.scheduler.sleepUntil(task, 60_000_000);
      t.mutexes.unlock(task, t.m);
    });
    const first = t.start("first", (task) => hold(t, task, t.m, 100, () => order.push("first")));
    t.start("second", (task) => hold(t, task, t.m, 100, () => order.push("second")));
    t.run();
    expect(t.ended.get("first")).toBeInstanceOf(Killed);
    expect(order).toEqual(["second"]);
    t.expectClean();
  });

  it("after the hand-over, before it ran: the mutex goes to the next", () => {
    const t = boot();
    const order: string[] = [];
    t.start(
      "owner",
      function* (task) {
        yield* t.mutexes.lock(task, t.m);
        yield* t.scheduler.sleepUntil(task, 30_000_000);
        t.mutexes.unlock(task, t.m);
        expect(t.mutexes.owner(t.m)).toBe(first);
        t.kill(first);
      },
      99,
    );
    const first = t.start("first", (task) => hold(t, task, t.m, 100, () => order.push("first")));
    t.start("second", (task) => hold(t, task, t.m, 100, () => order.push("second")));
    t.run();
    expect(t.ended.get("first")).toBeInstanceOf(Killed);
    expect(order).toEqual(["second"]);
    t.expectClean();
  });

  it("random tasks, sections, priorities, sleeps and kills: one owner at a time, nothing left behind", () => {
    const plan = fc.record({
      priority: fc.constantFrom(0, 0, 10, 50),
      first: fc.nat(2),
      second: fc.nat(2),
      cycles: fc.constantFrom(100, 8000, 200_000),
      sleeps: fc.boolean(),
      killedBy: fc.option(fc.nat(7)),
    });
    fc.assert(
      fc.property(fc.array(plan, { minLength: 2, maxLength: 8 }), fc.constantFrom(1, 2, 3), (plans, nrCpus) => {
        const t = boot({ nrCpus });
        const all = [t.m, t.mutex(), t.mutex()];
        const inside = [0, 0, 0];
        const tasks: Task[] = [];
        plans.forEach(({ priority, first, second, cycles, sleeps, killedBy }, i) => {
          // In ascending order, so that no cycle can come to be.
          const wanted = [...new Set([Math.min(first, second), Math.max(first, second)])];
          const nested = function* (task: Task, level: number): Sleeping<void> {
            const which = wanted[level];
            if (which === undefined) return;
            yield* t.mutexes.lock(task, all[which] as PhysAddr);
            try {
              expect(++inside[which]).toBe(1);
              if (sleeps) yield* t.scheduler.sleepUntil(task, t.clockOf(task) + cycles);
              else yield* t.work(task, cycles);
              yield* nested(task, level + 1);
            } finally {
              inside[which]--;
              t.mutexes.unlock(task, all[which] as PhysAddr);
            }
          };
          const body = function* (task: Task): Sleeping<void> {
            yield* nested(task, 0);
            const victim = killedBy === null ? undefined : tasks[killedBy];
            if (victim !== undefined && t.tasks.get(victim.pid) === victim && victim !== task) t.kill(victim);
            yield* nested(task, 0);
          };
          tasks.push(t.start(`t${i}`, body, priority));
        });
        t.run();
        for (const error of t.ended.values()) expect(error === undefined || error instanceof Killed).toBe(true);
        for (const m of all) expect([t.mutexes.isLocked(m), t.mutexes.check(m)]).toEqual([false, null]);
        t.expectClean();
      }),
      { numRuns: 150 },
    );
  });
});

describe("wait contexts", () => {
  const wrongContexts = {
    "with preemption off": (t: TaskLevel, task: Task) => t.contexts.preemptDisable(task.ctx),
    "with interrupts off": (t: TaskLevel, task: Task) => t.contexts.localIrqSave(task.ctx),
    "with softirqs off": (t: TaskLevel, task: Task) => t.spinlocks.bottomHalves.localBhDisable(task.ctx),
    "under a spinlock": (t: TaskLevel, task: Task) => t.spinlocks.spinLock(task.ctx, t.alloc(8)),
    "under a read lock": (t: TaskLevel, task: Task) => t.rwlocks.readLock(task.ctx, t.alloc(8)),
  };

  it.each(Object.entries(wrongContexts))("C2, C3 %s", (_name, enter) => {
    const t = boot();
    t.start(
      "owner",
      function* (task) {
        yield* t.mutexes.lock(task, t.m);
        yield* t.scheduler.sleepUntil(task, 20_000_000);
        t.mutexes.unlock(task, t.m);
      },
      50,
    );
    t.start("wrong", function* (task) {
      enter(t, task);
      yield* t.mutexes.lock(task, t.m);
      t.mutexes.unlock(task, t.m);
    });
    t.run();
    expect(t.log()).toContain("BUG: sleeping function called from invalid context at kernel/mutex.ts:lock");
    expect(t.log()).toMatch(/BUG: scheduling while atomic: wrong\/2\/0x0000/);
    expect(t.contexts.nrAtomicSleeps()).toBe(2);
  });

  it("C2 in the same place without contention: the bug shows on every run", () => {
    const t = boot();
    t.start("wrong", function* (task) {
      t.contexts.preemptDisable(task.ctx);
      yield* t.mutexes.lock(task, t.m);
      t.mutexes.unlock(task, t.m);
      t.contexts.preemptEnable(task.ctx);
    });
    t.run();
    expect(t.contexts.nrAtomicSleeps()).toBe(1);
  });

  it("a forgotten yield* is reported", () => {
    const t = boot();
    t.start("hasty", function* (task) {
      t.mutexes.lock(task, t.m);
      yield PREEMPTED;
    });
    t.run();
    expect(t.log()).toContain("1 sleeping call(s) of hasty never begun");
    expect(t.mutexes.isLocked(t.m)).toBe(false);
  });
});
