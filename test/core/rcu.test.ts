/**
 * Goal: RCU-1 … RCU-8 and KFR-1 … KFR-3. Method: single cases on a machine with tasks; then random readers, in tasks and
 * in interrupts on several CPUs, against a model that knows which sections were open when an object was given away.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CYCLES_PER_TICK } from "../../kernel/params.ts";
import { RCU_HEAD_BYTES, RCU_STALL_CYCLES } from "../../kernel/rcu.ts";
import { RCU_SOFTIRQ } from "../../kernel/softirq.ts";
import { asPhys, type Context, type PhysAddr, PREEMPTED } from "../../kernel/types.ts";
import { GFP_ATOMIC } from "../../mm/gfp.ts";
import { bootTaskWorld, type TaskWorld } from "../support/task_world.ts";

const alloc = (w: TaskWorld, ctx: Context, bytes = 64): PhysAddr => w.slab.kmalloc.kmalloc(ctx, bytes, GFP_ATOMIC);

const charge = (w: TaskWorld, cpu: number, cycles: number): void => {
  w.machine.harts.clock[cpu] = w.now(cpu) + cycles;
};

/** Everything is done and every page is back. */
const expectDrained = (w: TaskWorld): void => {
  expect(w.check()).toBeNull();
  expect(w.nrWaiting()).toBe(0);
  expect(w.timers.time()).toBe(Number.POSITIVE_INFINITY);
  w.expectNoObjectLeak();
};

describe("read sections", () => {
  it("RCU-1 nest, switch preemption off, and their depth is in the splat", () => {
    const w = bootTaskWorld();
    w.rcu.rcuReadLock(w.ctx);
    w.rcu.rcuReadLock(w.ctx);
    expect([w.contexts.rcuDepth(w.ctx), w.contexts.preemptCount(w.ctx)]).toEqual([2, 2]);
    w.contexts.mightSleep(w.ctx, "test");
    expect(w.log()).toContain("RCU nest depth: 2, expected: 0");
    w.rcu.rcuReadUnlock(w.ctx);
    w.rcu.rcuReadUnlock(w.ctx);
    expect(w.contexts.preemptCount(w.ctx)).toBe(0);
    expect(() => w.rcu.rcuReadUnlock(w.ctx)).toThrow(/RCU-1/);
  });

  it("RCU-8 one that reaches the scheduler is reported in lockdep's words, and ended", () => {
    const w = bootTaskWorld();
    w.spawn("sleeper", function* (ctx) {
      w.rcu.rcuReadLock(ctx);
      yield PREEMPTED;
    });
    w.runAll();
    expect(w.log()).toContain("WARNING: suspicious RCU usage");
    expect(w.log()).toContain("Illegal context switch in RCU read-side critical section!");
    expect(w.log()).toContain("BUG: scheduling while atomic: sleeper/2/0x00000001");
    expect([w.contexts.rcuDepth(w.ctx), w.contexts.preemptCount(w.ctx)]).toEqual([0, 0]);
  });
});

describe("a section that its task does not end", () => {
  it("RCU-8 is ended by an oops, which says so; grace periods go on", () => {
    const w = bootTaskWorld();
    const fn = w.rcu.registerRcuFn(() => {});
    w.spawn("broken", function* (ctx) {
      w.rcu.rcuReadLock(ctx);
      w.rcu.callRcu(ctx, w.memory(RCU_HEAD_BYTES), fn);
      throw new Error("broken");
    });
    w.runAll();
    expect(w.takeErrors().map(String)).toEqual(["Error: broken"]);
    expect(w.log()).toContain("note: broken[2] exited with preempt_count 1");
    expectDrained(w);
  });

  it("RCU-8 is reported when the task returns inside it", () => {
    const w = bootTaskWorld();
    w.spawn("leaver", function* (ctx) {
      w.rcu.rcuReadLock(ctx);
    });
    w.runAll();
    expect(w.log()).toContain("Illegal context switch in RCU read-side critical section!");
    expect(w.contexts.preemptCount(w.ctx)).toBe(0);
  });
});

describe("callbacks", () => {
  it("RCU-2 RCU-3 run once, in order, in RCU_SOFTIRQ, on an idle machine without further work", () => {
    const w = bootTaskWorld();
    const seen: string[] = [];
    const fn = w.rcu.registerRcuFn((ctx, head) => seen.push(`${head - heads} level ${w.contexts.level(ctx)}`));
    const heads = w.memory(25 * RCU_HEAD_BYTES);
    for (let i = 0; i < 25; i++) w.rcu.callRcu(w.ctx, asPhys(heads + i * RCU_HEAD_BYTES), fn);
    expect(w.rcu.nrCallbacks(0)).toBe(25);
    w.runAll();
    expect(seen).toEqual(Array.from({ length: 25 }, (_, i) => `${i * RCU_HEAD_BYTES} level 1`));
    expect(w.softirqs.count(RCU_SOFTIRQ, 0)).toBeGreaterThan(2);
    expectDrained(w);
  });

  it("RCU-2 a reader on another CPU holds them up until it ends", () => {
    const w = bootTaskWorld({ nrCpus: 2 });
    let nrCalled = 0;
    const fn = w.rcu.registerRcuFn(() => nrCalled++);
    const end = w.now(0) + 40 * CYCLES_PER_TICK;
    w.spawn(
      "reader",
      function* (ctx) {
        w.rcu.rcuReadLock(ctx);
        const head = w.memory(RCU_HEAD_BYTES);
        w.rcu.callRcu(w.idle(0), head, fn);
        // Kernel code of one CPU that takes long: its own ticks come, and so does everything on the other CPU.
        while (w.now(1) < end) {
          charge(w, 1, 100_000);
          charge(w, 0, 100_000);
          w.irqs.checkpoint(1);
          w.irqs.checkpoint(0);
          expect(nrCalled).toBe(0);
        }
        w.rcu.rcuReadUnlock(ctx);
        yield PREEMPTED;
      },
      1,
    );
    w.runAll();
    expect(nrCalled).toBe(1);
    expectDrained(w);
  });

  it("RCU-2 a callback may queue itself again", () => {
    const w = bootTaskWorld();
    let nr = 0;
    const fn = w.rcu.registerRcuFn((ctx, head) => {
      if (++nr < 5) w.rcu.callRcu(ctx, head, fn);
    });
    w.rcu.callRcu(w.ctx, w.memory(RCU_HEAD_BYTES), fn);
    w.runAll();
    expect([nr, w.rcu.nrGracePeriods() >= 5]).toEqual([5, true]);
  });

  it("RCU-5 those of a CPU that goes offline are adopted, in their order, and it owes nothing", () => {
    const w = bootTaskWorld();
    const seen: [number, number][] = [];
    const fn = w.rcu.registerRcuFn((ctx, head) => seen.push([head, ctx.cpu]));
    const heads = Array.from({ length: 6 }, () => w.memory(RCU_HEAD_BYTES));
    for (const head of heads.slice(0, 3)) w.rcu.callRcu(w.idle(1), head, fn);
    for (let i = 0; i < 1; i++) w.step();
    for (const head of heads.slice(3)) w.rcu.callRcu(w.idle(1), head, fn);
    w.adopt(w.ctx, 1);
    w.machine.harts.online[1] = 0;
    expect([w.rcu.nrCallbacks(1), w.rcu.nrCallbacks(0)]).toEqual([0, 6]);
    w.runAll();
    expect(seen).toEqual(heads.map((head) => [head, 0]));
    expectDrained(w);
  });

  it("bad heads and functions are refused", () => {
    const w = bootTaskWorld();
    const fn = w.rcu.registerRcuFn(() => {});
    expect(() => w.rcu.callRcu(w.ctx, asPhys(w.memory(16) + 4), fn)).toThrow(/aligned/);
    expect(() => w.rcu.callRcu(w.ctx, w.memory(8), 77)).toThrow(/no such function/);
  });
});

describe("waiting", () => {
  it("synchronizeRcu waits for busy CPUs and returns at once on an idle machine", () => {
    const w = bootTaskWorld({ nrCpus: 2 });
    const took: number[] = [];
    w.spawn(
      "writer",
      function* (ctx, task) {
        for (let i = 0; i < 3; i++) {
          const before = w.now(ctx.cpu);
          yield* w.rcu.synchronizeRcu(task);
          took.push(w.now(ctx.cpu) - before);
        }
      },
      0,
    );
    w.runAll();
    expect(took).toHaveLength(3);
    for (const cycles of took) expect(cycles).toBeLessThan(10_000);
    expect(w.rcu.nrGracePeriods()).toBe(3);
    expectDrained(w);
  });

  it("synchronizeRcu does not return while a reader that began before is in its section", () => {
    const w = bootTaskWorld({ nrCpus: 2 });
    let isReading = false;
    let isSynchronized = false;
    w.spawn(
      "reader",
      function* (ctx) {
        w.rcu.rcuReadLock(ctx);
        isReading = true;
        // The other CPU works, and even its idle loop passes, inside one call of this one.
        for (let i = 0; i < 50; i++) {
          charge(w, 1, 200_000);
          w.irqs.checkpoint(1);
        }
        expect(isSynchronized).toBe(false);
        isReading = false;
        w.rcu.rcuReadUnlock(ctx);
        yield PREEMPTED;
      },
      1,
    );
    w.spawn(
      "writer",
      function* (_ctx, task) {
        yield* w.rcu.synchronizeRcu(task);
        expect(isReading).toBe(false);
        isSynchronized = true;
      },
      0,
    );
    w.runAll();
    expect(isSynchronized).toBe(true);
  });

  it("synchronizeRcu inside a read section splats", () => {
    const w = bootTaskWorld();
    w.spawn("wrong", function* (ctx, task) {
      w.rcu.rcuReadLock(ctx);
      yield* w.rcu.synchronizeRcu(task);
    });
    w.runAll();
    expect(w.log()).toMatch(/BUG: sleeping function called from invalid context at kernel\/rcu.ts:synchronizeRcu/);
  });

  it("RCU-6 rcuBarrier returns after every callback of every CPU, also two at once", () => {
    const w = bootTaskWorld();
    let nrCalled = 0;
    const fn = w.rcu.registerRcuFn(() => nrCalled++);
    const seen: number[] = [];
    for (const name of ["one", "two"]) {
      w.spawn(name, function* (_ctx, task) {
        for (let cpu = 0; cpu < 3; cpu++) {
          for (let i = 0; i < 20; i++) w.rcu.callRcu(w.idle(cpu), w.memory(RCU_HEAD_BYTES), fn);
        }
        yield* w.rcu.rcuBarrier(task);
        seen.push(nrCalled);
      });
    }
    w.runAll();
    expect(seen.every((nr) => nr >= 60)).toBe(true);
    expect(nrCalled).toBe(120);
    expectDrained(w);
  });
});

describe("stalls", () => {
  it("RCU-7 the CPU that holds it up reports itself after 21 s", () => {
    const w = bootTaskWorld({ nrCpus: 1 });
    const fn = w.rcu.registerRcuFn(() => {});
    w.spawn("endless", function* (ctx) {
      w.rcu.callRcu(ctx, w.memory(RCU_HEAD_BYTES), fn);
      w.rcu.rcuReadLock(ctx);
      const end = w.now(0) + RCU_STALL_CYCLES + 20 * CYCLES_PER_TICK;
      while (w.now(0) < end) {
        charge(w, 0, CYCLES_PER_TICK);
        w.irqs.checkpoint(0);
        if (w.now(0) < end - 30 * CYCLES_PER_TICK) expect(w.rcu.nrStalls()).toBe(0);
      }
      w.rcu.rcuReadUnlock(ctx);
      yield PREEMPTED;
    });
    w.runAll();
    expect(w.rcu.nrStalls()).toBe(1);
    expect(w.log()).toMatch(
      /rcu: INFO: rcu_sched self-detected stall on CPU\nrcu: \t0-\.\.\.!: \(52\d\d ticks this GP\)/,
    );
    expect(w.log()).toMatch(/rcu: \t\(t=52\d\d jiffies, g=1, q=1 ncpus=1\)/);
    expectDrained(w);
  });

  it("RCU-7 a CPU that never comes back is named by another one, once, and the machine comes to rest", () => {
    const w = bootTaskWorld({ nrCpus: 2 });
    const fn = w.rcu.registerRcuFn(() => {});
    w.rcu.rcuReadLock(w.idle(1));
    w.rcu.callRcu(w.idle(0), w.memory(RCU_HEAD_BYTES), fn);
    w.runAll();
    expect(w.rcu.nrStalls()).toBe(1);
    expect(w.log()).toMatch(/rcu: INFO: rcu_sched detected stalls on CPUs\/tasks:\nrcu: \t1-/);
    expect(w.log()).toMatch(/\(detected by 0, t=52\d\d jiffies/);
    expect(w.rcu.nrCallbacks(0)).toBe(1);
  });
});

describe("kfree_rcu", () => {
  it("KFR-1 KFR-2 many objects cost few callbacks, and none leaks", () => {
    const w = bootTaskWorld();
    for (let i = 0; i < 300; i++) {
      const cpu = i % 3;
      w.kfreeRcu.kfreeRcu(w.idle(cpu), alloc(w, w.idle(cpu), 32 + (i % 5) * 40), 8 * (i % 4));
      expect(w.kfreeRcu.check()).toBeNull();
    }
    expect([0, 1, 2].map((cpu) => w.rcu.nrCallbacks(cpu))).toEqual([1, 1, 1]);
    w.runAll();
    expect([0, 1, 2].map((cpu) => w.kfreeRcu.nrObjects(cpu))).toEqual([0, 0, 0]);
    expectDrained(w);
  });

  it("KFR-1 the barrier waits for what is collected behind a batch", () => {
    const w = bootTaskWorld();
    let left = -1;
    w.spawn("owner", function* (ctx, task) {
      for (let i = 0; i < 50; i++) w.kfreeRcu.kfreeRcu(ctx, alloc(w, ctx), 0);
      yield* w.kfreeRcu.kfreeRcuBarrier(task);
      left = w.kfreeRcu.nrObjects(ctx.cpu);
    });
    w.runAll();
    expect(left).toBe(0);
    expectDrained(w);
  });

  it("KFR-1 objects of a CPU that goes offline are freed by another", () => {
    const w = bootTaskWorld();
    for (let i = 0; i < 20; i++) w.kfreeRcu.kfreeRcu(w.idle(2), alloc(w, w.idle(2)), 16);
    w.adopt(w.ctx, 2);
    w.machine.harts.online[2] = 0;
    w.runAll();
    expectDrained(w);
  });

  it("needs no memory: with every page allocation failing it frees all the same", () => {
    const w = bootTaskWorld();
    const objects = Array.from({ length: 100 }, () => alloc(w, w.ctx, 200));
    for (let nth = 1; nth < 4; nth++) {
      w.failPageAllocation(nth, true);
      for (const obj of objects.splice(0, 30)) w.kfreeRcu.kfreeRcu(w.ctx, obj, 0);
      w.runAll();
    }
    for (const obj of objects) w.kfreeRcu.kfreeRcu(w.ctx, obj, 0);
    w.runAll();
    expectDrained(w);
  });
});

describe("random readers", () => {
  const NR_CPUS = 3;
  const op = fc.record({
    kind: fc.constantFrom("lock", "unlock", "call", "kfree", "tick", "irqReader", "step", "step", "step"),
    cpu: fc.nat(NR_CPUS - 1),
  });

  interface Given {
    readonly obj: PhysAddr;
    /** Sections that were open, by number. */
    readonly readers: Set<number>;
  }

  const run = (ops: readonly { kind: string; cpu: number }[], endsGracePeriodEarly = false): string => {
    const w = bootTaskWorld({ nrCpus: NR_CPUS, ramBytes: 16 << 20 });
    const stacks: number[][] = Array.from({ length: NR_CPUS }, () => []);
    const given: Given[] = [];
    const problems: string[] = [];
    let nrSections = 0;
    const isOpen = (section: number): boolean => stacks.some((stack) => stack.includes(section));
    const take = (obj: PhysAddr): void => {
      const i = given.findIndex((entry) => entry.obj === obj);
      const entry = given.splice(i, 1)[0];
      if (i < 0) problems.push(`freed twice: ${obj}`);
      else
        for (const section of (entry as Given).readers)
          if (isOpen(section)) problems.push(`RCU-2: freed under ${section}`);
    };
    const fn = w.rcu.registerRcuFn((ctx, head) => {
      take(head);
      w.slab.kmalloc.kfree(ctx, head);
    });
    // What kfreeRcu frees is seen by its absence: each step asks the slab allocator who is still alive.
    const isAlive = (obj: PhysAddr): boolean => {
      const slab = w.slab.objects.slabOf(obj);
      if (slab === 0) return false;
      const state = w.slab.objects.stateOf(slab, obj);
      return state !== 0 && w.machine.port.ld8(state) === 1;
    };
    const byKfree: PhysAddr[] = [];
    const lookForFreed = (): void => {
      for (const obj of byKfree.filter((one) => !isAlive(one))) {
        byKfree.splice(byKfree.indexOf(obj), 1);
        take(obj);
      }
    };
    const readersNow = (): Set<number> => new Set(stacks.flat());
    const unlock = (cpu: number): void => {
      if (stacks[cpu]?.length === 0) return;
      stacks[cpu]?.pop();
      w.rcu.rcuReadUnlock(w.idle(cpu));
    };
    // A task that gets a CPU whose idle loop reads: the kernel ends the section, and has to say so (RCU-8).
    let nrEnded = 0;
    const step = (): void => {
      w.step();
      stacks.forEach((stack, cpu) => {
        if (stack.length === 0 || w.contexts.rcuDepth(w.idle(cpu)) !== 0) return;
        stack.length = 0;
        nrEnded++;
      });
      const nrReports = w.log().split("Illegal context switch in RCU read-side critical section!").length - 1;
      if (nrReports !== nrEnded) problems.push(`RCU-8: ${nrEnded} sections ended, ${nrReports} reported`);
    };
    for (const { kind, cpu } of ops) {
      const ctx = w.idle(cpu);
      const isReading = (stacks[cpu] as number[]).length > 0;
      if (kind === "lock") {
        w.rcu.rcuReadLock(ctx);
        stacks[cpu]?.push(++nrSections);
      } else if (kind === "unlock") unlock(cpu);
      else if (kind === "call" || kind === "kfree") {
        // Allocating and giving away in one go: nothing else may get the address in between.
        const obj = alloc(w, ctx);
        given.push({ obj, readers: readersNow() });
        if (kind === "call") w.rcu.callRcu(ctx, obj, fn);
        else {
          byKfree.push(obj);
          w.kfreeRcu.kfreeRcu(ctx, obj, 8);
        }
      } else if (kind === "tick") {
        charge(w, cpu, CYCLES_PER_TICK);
        w.irqs.checkpoint(cpu);
      } else if (kind === "irqReader") {
        w.interrupt(cpu, (irq) => {
          w.rcu.rcuReadLock(irq);
          stacks[cpu]?.push(++nrSections);
          const obj = alloc(w, irq);
          given.push({ obj, readers: readersNow() });
          w.rcu.callRcu(irq, obj, fn);
          // A tick on top of the reader must not count as a quiescent state.
          charge(w, cpu, CYCLES_PER_TICK);
          w.contexts.localIrqRestore(irq, 1);
          w.irqs.checkpoint(cpu);
          w.contexts.localIrqSave(irq);
          stacks[cpu]?.pop();
          w.rcu.rcuReadUnlock(irq);
        });
      } else if (!isReading || kind === "step") step();
      if (endsGracePeriodEarly)
        w.machine.port.fetchAdd(w.image.symbols.find((s) => s.name === "rcu_state")?.start ?? 0, 2);
      lookForFreed();
      const broken = w.check();
      if (broken !== null) problems.push(broken);
    }
    for (let cpu = 0; cpu < NR_CPUS; cpu++) while ((stacks[cpu] as number[]).length > 0) unlock(cpu);
    w.runAll();
    // Sections of this test are in no task, so nothing passes through the scheduler at their end.
    for (let cpu = 0; cpu < NR_CPUS; cpu++) w.spawn("pass", function* () {}, cpu);
    w.runAll();
    lookForFreed();
    if (given.length > 0) problems.push(`${given.length} objects were never freed`);
    if (problems.length === 0) expectDrained(w);
    return problems.join("; ");
  };

  it("RCU-2 KFR-1 nothing is freed under a reader that began before, and all is freed in the end", () => {
    fc.assert(
      fc.property(fc.array(op, { maxLength: 120 }), (ops) => {
        expect(run(ops)).toBe("");
      }),
      { numRuns: 60 },
    );
  });

  it("RCU-8 ksoftirqd on the CPU of an idle reader ends its section (a random run once took this for RCU-1)", () => {
    const ops = ["kfree 0", "lock 0", "step 0", "lock 1", "kfree 1", "irqReader 1", "step 0"].map((text) => {
      const [kind, cpu] = text.split(" ");
      return { kind: kind as string, cpu: Number(cpu) };
    });
    expect(run(ops)).toBe("");
  });

  it("a mutant whose grace periods end by themselves is caught", () => {
    const ops = ["lock", "call", "tick", "tick", "step", "step", "step", "step"].map((kind, i) => ({
      kind,
      cpu: i === 0 ? 1 : 0,
    }));
    expect(run(ops)).toBe("");
    expect(run(ops, true)).toMatch(/RCU-2: freed under 1/);
  });
});

describe("determinism", () => {
  it("two runs leave the same clocks, counts and RAM", () => {
    const run = (): string => {
      const w = bootTaskWorld({ nrCpus: 2 });
      for (let i = 0; i < 40; i++) w.kfreeRcu.kfreeRcu(w.idle(i & 1), alloc(w, w.idle(i & 1)), 0);
      w.spawn("writer", function* (_ctx, task) {
        yield* w.rcu.synchronizeRcu(task);
        yield* w.drain(task);
      });
      w.runAll();
      let sum = 0;
      for (const byte of w.machine.save().ram) sum = (sum * 31 + byte) >>> 0;
      return `${w.now(0)} ${w.now(1)} ${sum}`;
    };
    expect(run()).toBe(run());
  });
});
