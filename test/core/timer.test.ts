/**
 * Goal: TMR-1 … TMR-5. Method: single cases on a machine with tasks, then random arming, moving and taking back against
 * a sorted list.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CYC_IRQ, CYC_SOFTIRQ } from "../../kernel/arch/charges.ts";
import { CYCLES_PER_TICK } from "../../kernel/params.ts";
import { TIMER_BYTES } from "../../kernel/timer.ts";
import { asPhys, type PhysAddr, PREEMPTED } from "../../kernel/types.ts";
import { bootTaskWorld, type TaskWorld } from "../support/task_world.ts";

interface Fired {
  readonly timer: number;
  readonly at: number;
  readonly cpu: number;
}

const createBench = (options: Parameters<typeof bootTaskWorld>[0] = {}) => {
  const w = bootTaskWorld(options);
  const fired: Fired[] = [];
  const note = w.timers.registerTimerFn((ctx, timer) => {
    fired.push({ timer, at: w.now(ctx.cpu), cpu: ctx.cpu });
  });
  const create = (fn = note): PhysAddr => {
    const timer = w.memory(TIMER_BYTES);
    w.timers.init(timer, fn);
    return timer;
  };
  return { w, fired, create };
};

/** The clock at which no CPU has been yet. */
const later = (w: TaskWorld, cycles: number): number => Math.max(...w.machine.harts.clock) + cycles;

describe("kernel timers", () => {
  it("TMR-1 an idle machine jumps to the expiry: late by the entry of interrupt and softirq only", () => {
    const { w, fired, create } = createBench();
    const timer = create();
    const at = later(w, 1_234_567);
    expect(w.timers.modTimer(w.ctx, timer, at)).toBe(false);
    expect(w.timers.isPending(timer)).toBe(true);
    w.runAll();
    expect(fired).toEqual([{ timer, at: at + CYC_IRQ + 2 * CYC_SOFTIRQ, cpu: 0 }]);
    expect(w.timers.isPending(timer)).toBe(false);
    expect(w.step()).toBe("nothing");
  });

  it("TMR-1 on a busy CPU a timer is never early, and late by a slice end at most", () => {
    const { w, fired, create } = createBench({ nrCpus: 1 });
    const timer = create();
    const at = later(w, 3_333_333);
    w.timers.modTimer(w.ctx, timer, at);
    w.spawn("busy", function* (ctx) {
      for (let i = 0; i < 20_000; i++) {
        w.machine.harts.clock[ctx.cpu] = w.now(ctx.cpu) + 500;
        if (w.scheduler.timeIsUp(ctx.cpu)) yield PREEMPTED;
      }
    });
    w.runAll();
    const late = (fired[0] as Fired).at - at;
    expect(late).toBeGreaterThanOrEqual(0);
    expect(late).toBeLessThan(4_000);
  });

  it("TMR-1 a timer of an idle CPU fires while another CPU is busy, in the order of time", () => {
    const { w, fired, create } = createBench({ nrCpus: 2 });
    const timer = create();
    const at = later(w, CYCLES_PER_TICK * 3);
    w.timers.modTimer(w.idle(1), timer, at);
    let seenBy = 0;
    w.spawn(
      "busy",
      function* (ctx) {
        while (w.now(0) < at + CYCLES_PER_TICK * 5) {
          w.machine.harts.clock[ctx.cpu] = w.now(ctx.cpu) + 500;
          if (seenBy === 0 && fired.length > 0) seenBy = w.now(0);
          if (w.scheduler.timeIsUp(ctx.cpu)) yield PREEMPTED;
        }
      },
      0,
    );
    w.runAll();
    expect(fired.map(({ cpu }) => cpu)).toEqual([1]);
    expect((fired[0] as Fired).at - at).toBeLessThan(1_000);
    expect(seenBy - at).toBeLessThan(10_000);
  });

  it("TMR-3 a function may arm its timer again", () => {
    const { w, create } = createBench();
    const times: number[] = [];
    const again = w.timers.registerTimerFn((ctx, timer) => {
      expect(w.timers.isPending(timer)).toBe(false);
      times.push(w.timers.expires(timer));
      if (times.length < 4) w.timers.modTimer(ctx, timer, w.timers.expires(timer) + 1_000_000);
    });
    const start = later(w, 10);
    w.timers.modTimer(w.ctx, create(again), start);
    w.runAll();
    expect(times).toEqual([0, 1, 2, 3].map((i) => start + i * 1_000_000));
  });

  it("timers of several CPUs for one moment all fire (regression: an idle machine stopped after the first)", () => {
    const { w, fired, create } = createBench();
    const at = later(w, 1_000_000);
    for (const cpu of [0, 1, 2]) w.timers.modTimer(w.idle(cpu), create(), at);
    w.runAll();
    expect(fired.map(({ cpu }) => cpu)).toEqual([0, 1, 2]);
  });

  it("delTimer takes back once; delTimerSync from below its own function is a bug, from a hardirq a warning", () => {
    const { w, fired, create } = createBench();
    const timer = create();
    w.timers.modTimer(w.ctx, timer, later(w, 1_000));
    expect(w.timers.delTimer(w.ctx, timer)).toBe(true);
    expect(w.timers.delTimer(w.ctx, timer)).toBe(false);
    w.interrupt(0, (ctx) => {
      expect(w.timers.delTimerSync(ctx, timer)).toBe(false);
    });
    expect(w.contexts.nrWarnings()).toBe(1);
    let caught = "";
    const suicide = w.timers.registerTimerFn((ctx, self) => {
      try {
        w.timers.delTimerSync(ctx, self);
      } catch (error) {
        caught = String(error);
      }
    });
    w.timers.modTimer(w.ctx, create(suicide), later(w, 1_000));
    w.runAll();
    expect(caught).toMatch(/function runs below/);
    expect(fired).toEqual([]);
  });

  it("TMR-5 migrate() moves every timer of a CPU, and they keep their times", () => {
    const { w, fired, create } = createBench();
    const at = later(w, 5_000_000);
    const timers = [3, 1, 2].map((i) => {
      const timer = create();
      w.timers.modTimer(w.idle(2), timer, at + i * 10_000);
      return timer;
    });
    w.timers.migrate(w.ctx, 2);
    w.machine.harts.online[2] = 0;
    expect([w.timers.nrPending(2), w.timers.nrPending(0)]).toEqual([0, 3]);
    expect(() => w.timers.modTimerOn(w.ctx, create(), at, 2)).toThrow(/TMR-5/);
    w.runAll();
    expect(fired.map(({ timer, cpu }) => [timer, cpu])).toEqual([1, 2, 0].map((i) => [timers[i], 0]));
  });

  it("what is no time and what is no function is refused", () => {
    const { w, create } = createBench();
    for (const time of [Number.NaN, -1, Number.POSITIVE_INFINITY]) {
      expect(() => w.timers.modTimer(w.ctx, create(), time)).toThrow(/no time/);
    }
    expect(() => w.timers.init(asPhys(8), 99)).toThrow(/no such function/);
  });

  it("TMR-1 TMR-2 TMR-4 random operations agree with a sorted list", () => {
    const op = fc.oneof(
      {
        weight: 5,
        arbitrary: fc.record({ kind: fc.constant("mod"), i: fc.nat(7), cpu: fc.nat(2), delay: fc.nat(9_000_000) }),
      },
      {
        weight: 2,
        arbitrary: fc.record({ kind: fc.constant("del"), i: fc.nat(7), cpu: fc.nat(2), delay: fc.constant(0) }),
      },
      {
        weight: 3,
        arbitrary: fc.record({
          kind: fc.constant("step"),
          i: fc.constant(0),
          cpu: fc.constant(0),
          delay: fc.constant(0),
        }),
      },
    );
    fc.assert(
      fc.property(fc.array(op, { maxLength: 60 }), (ops) => {
        const { w, fired, create } = createBench({ nrCpus: 3, ramBytes: 16 << 20 });
        const timers = Array.from({ length: 8 }, () => create());
        const model: { timer: number; at: number; cpu: number; order: number }[] = [];
        const forget = (timer: number): boolean => {
          const i = model.findIndex((entry) => entry.timer === timer);
          if (i >= 0) model.splice(i, 1);
          return i >= 0;
        };
        const step = (): boolean => {
          const before = fired.length;
          const result = w.step();
          for (const { timer, at, cpu } of fired.slice(before)) {
            const mine = model.filter((entry) => entry.cpu === cpu);
            mine.sort((a, b) => a.at - b.at || a.order - b.order);
            expect(mine[0]?.timer).toBe(timer);
            expect(at).toBeGreaterThanOrEqual(mine[0]?.at ?? 0);
            forget(timer);
          }
          expect(w.timers.check()).toBeNull();
          return result !== "nothing";
        };
        ops.forEach(({ kind, i, cpu, delay }, order) => {
          const timer = timers[i] as PhysAddr;
          if (kind === "step") step();
          else if (kind === "del") expect(w.timers.delTimer(w.idle(cpu), timer)).toBe(forget(timer));
          else {
            const at = w.now(cpu) + delay;
            expect(w.timers.modTimer(w.idle(cpu), timer, at)).toBe(forget(timer));
            model.push({ timer, at, cpu, order });
          }
          expect(w.timers.check()).toBeNull();
        });
        while (step());
        expect(model).toEqual([]);
      }),
      { numRuns: 60 },
    );
  });
});
