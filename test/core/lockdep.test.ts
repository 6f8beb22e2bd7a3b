/**
 * lockdep.
 *
 * Goal: LDP-1 … LDP-9. Method: the cases of Linux's lib/locking-selftest by name, over spinlocks, reader-writer locks
 * and mutexes, with their events in every order; each has a clean twin that must stay silent. Random nested sections
 * are compared with an oracle that knows the order graph. Last, a whole kernel runs programs under prove_locking=on.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { KernelBug } from "../../kernel/bug.ts";
import { SOFTIRQ_OFFSET } from "../../kernel/context.ts";
import type { Lockdep } from "../../kernel/lockdep.ts";
import { MUTEX_BYTES } from "../../kernel/mutex.ts";
import type { Task } from "../../kernel/task.ts";
import { type Context, type PhysAddr, PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { bootKernel } from "../support/boot_kernel.ts";
import { bootTaskLevel, type TaskLevel } from "../support/task_level.ts";

interface Level extends TaskLevel {
  readonly lockdep: Lockdep;
  /** Named spinlocks, rwlocks, mutexes. */
  readonly spin: Readonly<Record<"A" | "B" | "C" | "D", PhysAddr>>;
  readonly rw: Readonly<Record<"A" | "B" | "C" | "D", PhysAddr>>;
  readonly mutex: Readonly<Record<"A" | "B" | "C" | "D", PhysAddr>>;
}
type Name = "A" | "B" | "C" | "D";
const NAMES: readonly Name[] = ["A", "B", "C", "D"];

const boot = (): Level => {
  const t = bootTaskLevel({ isProving: true });
  type Init = (lock: PhysAddr, name: string) => void;
  const make = (bytes: number, kind: string, init: Init): Record<Name, PhysAddr> =>
    Object.fromEntries(
      NAMES.map((name) => {
        const lock = t.alloc(bytes);
        init(lock, kind + name);
        return [name, lock];
      }),
    ) as Record<Name, PhysAddr>;
  if (t.lockdep === undefined) throw new Error("no lockdep");
  return {
    ...t,
    lockdep: t.lockdep,
    spin: make(8, "", t.spinlocks.init),
    rw: make(8, "rw", t.rwlocks.init),
    mutex: make(MUTEX_BYTES, "m", t.mutexes.init),
  };
};

/** Does something that ends in a kernel bug after lockdep has spoken (a real AA). */
const survive = (act: () => void): void => {
  try {
    act();
  } catch (error) {
    if (!(error instanceof KernelBug)) throw error;
  }
};

const titleOf = (t: Level): string => /(WARNING|\[ BUG): [^\n]*/.exec(t.log())?.[0] ?? "";
const REPORTS = {
  recursion: "WARNING: possible recursive locking detected",
  circular: "WARNING: possible circular locking dependency detected",
  inconsistent: "WARNING: inconsistent lock state",
  inversion: "WARNING: possible irq lock inversion dependency detected",
  hardOrder: "WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected",
  softOrder: "WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected",
  wait: "[ BUG: Invalid wait context ]",
  unlock: "WARNING: bad unlock balance detected!",
  freed: "WARNING: held lock freed!",
} as const;

// ── Order ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/** "AB BC": nested sections, one word each. */
type Sections = (t: Level, task: Task, word: string) => Sleeping<void>;

const spinSections: Sections = function* (t, task, word) {
  const locks = [...word].map((name) => t.spin[name as Name]);
  survive(() => {
    for (const lock of locks) t.spinlocks.spinLock(task.ctx, lock);
    for (const lock of locks.reverse()) t.spinlocks.spinUnlock(task.ctx, lock);
  });
};
const writeSections: Sections = function* (t, task, word) {
  const locks = [...word].map((name) => t.rw[name as Name]);
  survive(() => {
    for (const lock of locks) t.rwlocks.writeLock(task.ctx, lock);
    for (const lock of locks.reverse()) t.rwlocks.writeUnlock(task.ctx, lock);
  });
};
const mutexSections: Sections = function* (t, task, word) {
  const locks = [...word].map((name) => t.mutex[name as Name]);
  for (const lock of locks) yield* t.mutexes.lock(task, lock);
  for (const lock of locks.reverse()) t.mutexes.unlock(task, lock);
};

const runSections = (kind: Sections, words: string): Level => {
  const t = boot();
  t.start("order", function* (task) {
    for (const word of words.split(" ")) yield* kind(t, task, word);
  });
  t.run();
  return t;
};

const orders: readonly (readonly [name: string, bad: string, twin: string])[] = [
  ["ABBA", "AB BA", "AB AB A B"],
  ["ABBCCA", "AB BC CA", "AB BC AC"],
  ["ABCABC", "AB CA BC", "AB AC BC"],
  ["ABBCCDDA", "AB BC CD DA", "AB BC CD AD"],
  ["ABCDBDDA", "AB CD BD DA", "AB CD BD AD"],
  ["ABCDBCDA", "AB CD BC DA", "AB CD BC AD"],
];

describe.each([
  ["spinlock", spinSections],
  ["write lock", writeSections],
  ["mutex", mutexSections],
] as const)("LDP-2 order: %s", (_kind, sections) => {
  it.each(orders)("%s", (_name, bad, twin) => {
    const t = runSections(sections, bad);
    expect(titleOf(t)).toBe(REPORTS.circular);
    expect(t.lockdep.nrReports()).toBe(1);
    expect(t.log()).toContain("which lock already depends on the new lock.");
    runSections(sections, twin).expectClean();
  });

  it("AA", () => {
    expect(titleOf(runSections(sections, "AA"))).toBe(REPORTS.recursion);
    runSections(sections, "A A").expectClean();
  });
});

describe("LDP-2 order, more", () => {
  it("the parts of a ring may come from different tasks, spinlocks and mutexes mixed", () => {
    const t = boot();
    t.start("one", function* (task) {
      yield* t.mutexes.lock(task, t.mutex.A);
      t.spinlocks.spinLock(task.ctx, t.spin.B);
      t.spinlocks.spinUnlock(task.ctx, t.spin.B);
      yield* t.mutexes.lock(task, t.mutex.C);
      t.mutexes.unlock(task, t.mutex.C);
      t.mutexes.unlock(task, t.mutex.A);
    });
    t.start("two", function* (task) {
      yield* t.mutexes.lock(task, t.mutex.C);
      yield* t.scheduler.sleepUntil(task, 10_000_000);
      expect(t.lockdep.nrReports()).toBe(0);
      yield* t.mutexes.lock(task, t.mutex.A);
      t.mutexes.unlock(task, t.mutex.A);
      t.mutexes.unlock(task, t.mutex.C);
    });
    t.run();
    expect(titleOf(t)).toBe(REPORTS.circular);
    expect(t.log()).toContain("two/2 is trying to acquire lock:");
    expect(t.log()).toMatch(/-> #1 \(mC\).*\n-> #0 \(mA\)/);
  });

  it("a trylock that succeeds adds no edge towards it, but edges from it", () => {
    const t = boot();
    const { spinlocks, spin, ctx } = t;
    const both = (first: PhysAddr, second: PhysAddr, isTried: boolean): void => {
      spinlocks.spinLock(ctx, first);
      if (isTried) expect(spinlocks.spinTryLock(ctx, second)).toBe(true);
      else spinlocks.spinLock(ctx, second);
      spinlocks.spinUnlock(ctx, second);
      spinlocks.spinUnlock(ctx, first);
    };
    both(spin.A, spin.B, false);
    both(spin.B, spin.A, true);
    t.expectClean();
    both(spin.B, spin.A, false);
    expect(titleOf(t)).toBe(REPORTS.circular);
  });

  it("recursive readers: reader after reader is no cycle, a writer between makes one", () => {
    const sections = (acts: string): Level => {
      const t = boot();
      for (const word of acts.split(" ")) {
        const taken: (() => void)[] = [];
        for (let i = 0; i < word.length; i += 2) {
          const lock = t.rw[word[i] as Name];
          if (word[i + 1] === "r") t.rwlocks.readLock(t.ctx, lock);
          else t.rwlocks.writeLock(t.ctx, lock);
          taken.unshift(() => (word[i + 1] === "r" ? t.rwlocks.readUnlock : t.rwlocks.writeUnlock)(t.ctx, lock));
        }
        for (const give of taken) give();
      }
      return t;
    };
    sections("ArBr BrAr").expectClean();
    sections("ArArBr").expectClean();
    sections("AwBr BrAr").expectClean();
    expect(titleOf(sections("AwBr BwAr"))).toBe(REPORTS.circular);
    expect(titleOf(sections("ArBw BrAw"))).toBe(REPORTS.circular);
    // Who holds B and wants to read A gets it from the reader of A.
    sections("ArBw BwAr").expectClean();
  });

  it("random nested sections: the first report comes exactly when the order graph would get a cycle", () => {
    const word = fc.uniqueArray(fc.constantFrom(...NAMES), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(fc.array(word, { maxLength: 8 }), (words) => {
        const t = boot();
        const edges = new Map<Name, Set<Name>>();
        const reaches = (from: Name, to: Name, seen = new Set<Name>()): boolean => {
          if (from === to) return true;
          seen.add(from);
          return [...(edges.get(from) ?? [])].some((next) => !seen.has(next) && reaches(next, to, seen));
        };
        let isCyclic = false;
        for (const names of words) {
          for (let i = 1; i < names.length; i++) {
            const [held, next] = [names[i - 1] as Name, names[i] as Name];
            isCyclic ||= reaches(next, held);
            edges.set(held, (edges.get(held) ?? new Set()).add(next));
          }
          for (const name of names) t.spinlocks.spinLock(t.ctx, t.spin[name]);
          for (const name of [...names].reverse()) t.spinlocks.spinUnlock(t.ctx, t.spin[name]);
          expect(t.lockdep.nrReports()).toBe(isCyclic ? 1 : 0);
        }
      }),
      { numRuns: 150 },
    );
  });
});

// ── Interrupts ─────────────────────────────────────────────────────────────────────────────────────────────────────

const inHardirq = (t: Level, act: (ctx: Context) => void): void => t.interrupt(0, act);
const inSoftirq = (t: Level, act: (ctx: Context) => void): void => {
  const irq = t.contexts.irqContext(0);
  t.contexts.add(irq, SOFTIRQ_OFFSET);
  act(irq);
  t.contexts.subtract(irq, SOFTIRQ_OFFSET);
};
const withoutHardirq = (t: Level, act: (ctx: Context) => void): void => {
  const flags = t.contexts.localIrqSave(t.ctx);
  act(t.ctx);
  t.contexts.localIrqRestore(t.ctx, flags);
};
const withoutSoftirq = (t: Level, act: (ctx: Context) => void): void => {
  t.spinlocks.bottomHalves.localBhDisable(t.ctx);
  act(t.ctx);
  t.spinlocks.bottomHalves.localBhEnable(t.ctx);
};

type LockKind = (t: Level) => {
  take(ctx: Context, name: Name): void;
  give(ctx: Context, name: Name): void;
};
const kinds: Readonly<Record<string, LockKind>> = {
  spin: (t) => ({
    take: (ctx, name) => t.spinlocks.spinLock(ctx, t.spin[name]),
    give: (ctx, name) => t.spinlocks.spinUnlock(ctx, t.spin[name]),
  }),
  write: (t) => ({
    take: (ctx, name) => t.rwlocks.writeLock(ctx, t.rw[name]),
    give: (ctx, name) => t.rwlocks.writeUnlock(ctx, t.rw[name]),
  }),
  read: (t) => ({
    take: (ctx, name) => t.rwlocks.readLock(ctx, t.rw[name]),
    give: (ctx, name) => t.rwlocks.readUnlock(ctx, t.rw[name]),
  }),
};

/** All orders of a few things. */
const permutations = <T>(items: readonly T[]): readonly (readonly T[])[] =>
  items.length <= 1
    ? [items]
    : items.flatMap((item, i) => permutations(items.filter((_, j) => j !== i)).map((rest) => [item, ...rest]));

const levels = [
  ["hard", "HARDIRQ", inHardirq, withoutHardirq],
  ["soft", "SOFTIRQ", inSoftirq, withoutSoftirq],
] as const;

describe.each(levels)("LDP-1, LDP-3 %sirq", (_level, irq, inIrq, without) => {
  const section = (t: Level, kind: string, ctx: Context, ...names: Name[]): void => {
    const { take, give } = (kinds[kind] as LockKind)(t);
    for (const name of names) take(ctx, name);
    for (const name of [...names].reverse()) give(ctx, name);
  };

  it.each(["spin", "write"])("irqs-on + irq-safe-A (%s), in both orders", (kind) => {
    const safe = (t: Level): void => inIrq(t, (ctx) => section(t, kind, ctx, "A"));
    const on = (t: Level): void => section(t, kind, t.ctx, "A");
    for (const [first, second, text] of [
      [on, safe, `inconsistent {${irq}-ON-W} -> {IN-${irq}-W} usage.`],
      [safe, on, `inconsistent {IN-${irq}-W} -> {${irq}-ON-W} usage.`],
    ] as const) {
      const t = boot();
      first(t);
      expect(t.log()).toBe("");
      second(t);
      expect(titleOf(t)).toBe(REPORTS.inconsistent);
      expect(t.log()).toContain(text);
      expect(t.log()).toContain("  <Interrupt>");
    }
    const twin = boot();
    safe(twin);
    without(twin, (ctx) => section(twin, kind, ctx, "A"));
    safe(twin);
    twin.expectClean();
  });

  it("a lock that is held when interrupts come on was taken with them off, and is unsafe all the same", () => {
    const t = boot();
    inIrq(t, (ctx) => section(t, "spin", ctx, "A"));
    const enable = (): void => {
      if (irq === "HARDIRQ") t.contexts.localIrqEnable(t.ctx);
      else t.spinlocks.bottomHalves.localBhEnable(t.ctx);
    };
    if (irq === "HARDIRQ") t.contexts.localIrqDisable(t.ctx);
    else t.spinlocks.bottomHalves.localBhDisable(t.ctx);
    t.spinlocks.spinLock(t.ctx, t.spin.A);
    expect(t.log()).toBe("");
    enable();
    expect(titleOf(t)).toBe(REPORTS.inconsistent);
  });

  it("safe-A + unsafe-B #1, #2: A → B, B with interrupts on, A in an interrupt: in every order", () => {
    const events: readonly ((t: Level) => void)[] = [
      (t) => without(t, (ctx) => section(t, "spin", ctx, "A", "B")),
      (t) => section(t, "spin", t.ctx, "B"),
      (t) => inIrq(t, (ctx) => section(t, "spin", ctx, "A")),
    ];
    const order = irq === "HARDIRQ" ? REPORTS.hardOrder : REPORTS.softOrder;
    for (const sequence of permutations(events)) {
      const t = boot();
      sequence.forEach((event, i) => {
        if (i < 2) expect(t.log()).toBe("");
        event(t);
      });
      expect(titleOf(t)).toBe(sequence[2] === events[0] ? order : REPORTS.inversion);
      expect(t.log()).toContain(" Possible interrupt unsafe locking scenario:");
    }
    const twin = boot();
    (events[0] as (t: Level) => void)(twin);
    (events[2] as (t: Level) => void)(twin);
    without(twin, (ctx) => section(twin, "spin", ctx, "B"));
    twin.expectClean();
  });

  it("irq lock inversion: over a third lock, in every order", () => {
    const events: readonly ((t: Level) => void)[] = [
      (t) => without(t, (ctx) => section(t, "spin", ctx, "A", "C")),
      (t) => without(t, (ctx) => section(t, "spin", ctx, "C", "B")),
      (t) => section(t, "spin", t.ctx, "B"),
      (t) => inIrq(t, (ctx) => section(t, "spin", ctx, "A")),
    ];
    for (const sequence of permutations(events)) {
      const t = boot();
      sequence.forEach((event, i) => {
        if (i < 3) expect(t.log()).toBe("");
        event(t);
      });
      expect(titleOf(t)).toMatch(/irq lock inversion dependency|-unsafe lock order detected/);
    }
  });

  it("irq read recursion #1: readers in both places, writer with interrupts off: silent", () => {
    const events: readonly ((t: Level) => void)[] = [
      (t) => inIrq(t, (ctx) => section(t, "read", ctx, "A")),
      (t) => section(t, "read", t.ctx, "A"),
      (t) => without(t, (ctx) => section(t, "write", ctx, "A")),
    ];
    for (const sequence of permutations(events)) {
      const t = boot();
      for (const event of sequence) event(t);
      t.expectClean();
    }
  });

  it("irq read recursion #2: a reader in an interrupt, a writer with interrupts on", () => {
    const t = boot();
    inIrq(t, (ctx) => section(t, "read", ctx, "A"));
    section(t, "write", t.ctx, "A");
    expect(t.log()).toContain(`inconsistent {IN-${irq}-R} -> {${irq}-ON-W} usage.`);
  });

  it("irq read recursion #3: A read, then B, with interrupts on; A read in an interrupt", () => {
    const events: readonly ((t: Level) => void)[] = [
      (t) => inIrq(t, (ctx) => section(t, "read", ctx, "A")),
      (t) => {
        t.rwlocks.readLock(t.ctx, t.rw.A);
        t.spinlocks.spinLock(t.ctx, t.spin.B);
        t.spinlocks.spinUnlock(t.ctx, t.spin.B);
        t.rwlocks.readUnlock(t.ctx, t.rw.A);
      },
    ];
    // Nobody ever writes A: a reader in the interrupt waits for nobody.
    for (const sequence of permutations(events)) {
      const t = boot();
      for (const event of sequence) event(t);
      t.expectClean();
    }
  });
});

// ── Wait context, balance, memory ──────────────────────────────────────────────────────────────────────────────────

describe("LDP-4 wait context", () => {
  const takes = (enter: (t: Level, task: Task) => void): Level => {
    const t = boot();
    t.start("waits", function* (task) {
      enter(t, task);
      yield* t.mutexes.lock(task, t.mutex.A);
      t.mutexes.unlock(task, t.mutex.A);
    });
    t.run();
    return t;
  };

  it.each([
    ["a spinlock", (t: Level, task: Task) => t.spinlocks.spinLock(task.ctx, t.spin.A)],
    ["a read lock", (t: Level, task: Task) => t.rwlocks.readLock(task.ctx, t.rw.A)],
    ["a write lock, softirqs off", (t: Level, task: Task) => t.rwlocks.writeLockBh(task.ctx, t.rw.A)],
  ] as const)("a mutex under %s", (_name, enter) => {
    const t = takes(enter);
    expect(t.log()).toContain(REPORTS.wait);
    expect(t.log()).toContain("context-{4:4}");
    // C2 speaks as well: it sees the count, lockdep sees the lock.
    expect(t.contexts.nrAtomicSleeps()).toBeGreaterThan(0);
  });

  it("a mutex in a softirq", () => {
    const t = boot();
    const task = t.start("victim", function* () {});
    inSoftirq(t, () => t.mutexes.lock(task, t.mutex.A).next());
    expect(t.log()).toContain(REPORTS.wait);
    expect(t.log()).toContain("context-{2:2}");
  });

  it("clean twins: mutexes nested, a spinlock under them, a trylock", () => {
    const t = boot();
    t.start("right", function* (task) {
      yield* t.mutexes.lock(task, t.mutex.A);
      yield* t.mutexes.lock(task, t.mutex.B);
      t.spinlocks.spinLock(task.ctx, t.spin.A);
      t.spinlocks.spinUnlock(task.ctx, t.spin.A);
      yield* t.scheduler.sleepUntil(task, 10_000_000);
      t.mutexes.unlock(task, t.mutex.A);
      t.mutexes.unlock(task, t.mutex.B);
      expect(t.mutexes.tryLock(task, t.mutex.B)).toBe(true);
      t.mutexes.unlock(task, t.mutex.B);
    });
    t.run();
    t.expectClean();
  });
});

describe("LDP-5, LDP-6, LDP-7", () => {
  it("double unlock", () => {
    const t = boot();
    t.spinlocks.spinLock(t.ctx, t.spin.A);
    t.spinlocks.spinUnlock(t.ctx, t.spin.A);
    t.expectClean();
    survive(() => t.spinlocks.spinUnlock(t.ctx, t.spin.A));
    expect(titleOf(t)).toBe(REPORTS.unlock);
    expect(t.log()).toContain("but there are no more locks to release!");
  });

  it("unlocks out of order are fine", () => {
    const t = boot();
    for (const name of NAMES) t.spinlocks.spinLock(t.ctx, t.spin[name]);
    for (const name of ["B", "D", "A", "C"] as const) t.spinlocks.spinUnlock(t.ctx, t.spin[name]);
    expect(t.lockdep.nrHeld(t.ctx)).toBe(0);
    t.expectClean();
  });

  it("init held", () => {
    const t = boot();
    t.spinlocks.spinLock(t.ctx, t.spin.A);
    t.spinlocks.init(t.spin.A, "A");
    expect(titleOf(t)).toBe(REPORTS.freed);
    const twin = boot();
    twin.spinlocks.spinLock(twin.ctx, twin.spin.A);
    twin.spinlocks.spinUnlock(twin.ctx, twin.spin.A);
    twin.spinlocks.init(twin.spin.A, "A");
    twin.expectClean();
  });

  it("memory that holds a held lock is freed; memory around it is not", () => {
    const t = boot();
    t.spinlocks.spinLock(t.ctx, t.spin.B);
    t.lockdep.memoryFreed(t.ctx, t.spin.A, 8);
    t.lockdep.memoryFreed(t.ctx, t.spin.C, 64);
    expect(t.log()).toBe("");
    t.lockdep.memoryFreed(t.ctx, t.spin.A, 64);
    expect(titleOf(t)).toBe(REPORTS.freed);
    expect(t.log()).toContain("with a lock still held there!");
  });

  it("memory that is used again for another lock has no past", () => {
    const t = boot();
    const { spinlocks, spin, ctx } = t;
    spinlocks.spinLock(ctx, spin.A);
    spinlocks.spinUnlock(ctx, spin.A);
    t.lockdep.memoryFreed(ctx, spin.A, 8);
    inHardirq(t, (irq) => {
      spinlocks.spinLock(irq, spin.A);
      spinlocks.spinUnlock(irq, spin.A);
    });
    t.expectClean();
  });

  it("a lock held at the return to user space, and at exit", () => {
    const t = boot();
    t.lockdep.returnToUser(t.ctx);
    expect(t.log()).toBe("");
    t.start("leaver", function* (task) {
      yield* t.mutexes.lock(task, t.mutex.A);
      t.lockdep.returnToUser(task.ctx);
    });
    t.run();
    expect(titleOf(t)).toBe("WARNING: lock held when returning to user space!");
    expect(t.log()).toContain("leaver/1 is leaving the kernel with locks still held!");
    expect(t.log()).toContain("WARNING: leaver/1 still has locks held!");
  });
});

describe("LDP-9 unwinding", () => {
  it("a task that is killed while it waits holds nothing afterwards", () => {
    const t = boot();
    t.start("owner", function* (task) {
      yield* t.mutexes.lock(task, t.mutex.A);
      yield* t.scheduler.sleepUntil(task, 20_000_000);
      t.kill(waiter);
      yield* t.scheduler.sleepUntil(task, 40_000_000);
      t.mutexes.unlock(task, t.mutex.A);
    });
    const waiter = t.start("waiter", function* (task) {
      yield* t.mutexes.lock(task, t.mutex.A);
    });
    t.run();
    t.expectClean();
    expect(t.lockdep.stats().classes).toBeGreaterThan(0);
  });

  it("usage is written as Linux writes it", () => {
    const t = boot();
    t.spinlocks.spinLock(t.ctx, t.spin.A);
    t.spinlocks.spinUnlock(t.ctx, t.spin.A);
    inHardirq(t, (irq) => {
      t.spinlocks.spinLock(irq, t.spin.B);
      t.spinlocks.spinUnlock(irq, t.spin.B);
      t.rwlocks.readLock(irq, t.rw.C);
      t.rwlocks.readUnlock(irq, t.rw.C);
    });
    expect(t.lockdep.usageOf(t.spin.A)).toBe("+.+.");
    expect(t.lockdep.usageOf(t.spin.B)).toBe("-...");
    expect(t.lockdep.usageOf(t.rw.C)).toBe(".-..");
  });
});

describe("a whole kernel under prove_locking=on", () => {
  const worker: Program = function* (env) {
    for (let round = 0; round < 20; round++) {
      let p = env.syscall(sys.SYS_mmap, 0, 1 << 18, 3, 0x22, -1, 0);
      if (typeof p === "object") p = yield* p;
      for (let i = 0; i < 64; i++) env.mem.st32(p + i * 4096, i);
      let done = env.syscall(sys.SYS_munmap, p, 1 << 18);
      if (typeof done === "object") done = yield* done;
      if (env.timeIsUp()) yield PREEMPTED;
    }
    return 0;
  };

  it("LDP-8 programs and allocators run without a report", () => {
    const t = bootKernel({ "/bin/worker": worker }, { cmdline: "quiet prove_locking=on" });
    for (let i = 0; i < 4; i++) t.kernel.spawn("/bin/worker", ["worker"]);
    t.kernel.run();
    const lockdep = t.kernel.lockdep as Lockdep;
    expect(
      t.kernel.printk
        .records()
        .map((r) => r.text)
        .filter((line) => /WARNING|BUG/.test(line)),
    ).toEqual([]);
    expect(lockdep.nrReports()).toBe(0);
    expect(lockdep.stats().classes).toBeGreaterThan(3);
    expect(t.kernel.readFile("/proc/lockdep_stats")).toMatch(/^ lock-classes: +\d+ \[max: 128\]\n/);
    t.expectNoLeak();
  });

  it("without the parameter there is no lockdep", () => {
    expect(bootKernel({}).kernel.lockdep).toBeUndefined();
  });
});
