/**
 * Goal: SOFT-1 … SOFT-5 and the fairness of ksoftirqd. Method: a machine with tasks and no programs; handlers write down
 * what they see, interrupts come from a line of their own.
 */

import { describe, expect, it } from "vitest";
import { SOFTIRQ_OFFSET } from "../../kernel/context.ts";
import { CYCLES_PER_SECOND } from "../../kernel/params.ts";
import {
  BLOCK_SOFTIRQ,
  MAX_SOFTIRQ_CYCLES,
  MAX_SOFTIRQ_RESTART,
  NET_RX_SOFTIRQ,
  NET_TX_SOFTIRQ,
} from "../../kernel/softirq.ts";
import { PREEMPTED } from "../../kernel/types.ts";
import { GFP_ATOMIC, GFP_KERNEL } from "../../mm/gfp.ts";
import { bootTaskWorld, type TaskWorld } from "../support/task_world.ts";
import { typeErrors } from "../support/tsc_fixture.ts";

const charge = (w: TaskWorld, cpu: number, cycles: number): void => {
  w.machine.harts.clock[cpu] = w.now(cpu) + cycles;
};

describe("softirqs", () => {
  it("SOFT-1 SOFT-2 run once at the end of the hardirq, interrupts on, and leave everything as it was", () => {
    const w = bootTaskWorld();
    const seen: string[] = [];
    w.softirqs.openSoftirq(NET_RX_SOFTIRQ, (ctx) => {
      const { contexts } = w;
      seen.push(
        `rx serving=${contexts.inServingSoftirq(ctx)} hard=${contexts.inHardirq(ctx)} off=${contexts.irqsDisabled(ctx)}` +
          ` count=${contexts.preemptCount(ctx).toString(16)} level=${contexts.level(ctx)}`,
      );
    });
    w.interrupt(1, (ctx) => {
      w.softirqs.raiseSoftirq(ctx, NET_RX_SOFTIRQ);
      w.softirqs.raiseSoftirq(ctx, NET_RX_SOFTIRQ);
      seen.push("hardirq");
    });
    expect(seen).toEqual(["hardirq", "rx serving=true hard=false off=false count=100 level=1"]);
    expect(w.contexts.preemptCount(w.idle(1))).toBe(0);
    expect(w.contexts.irqsDisabled(w.idle(1))).toBe(false);
    expect(w.softirqs.pending(1)).toBe(0);
    expect([w.softirqs.count(NET_RX_SOFTIRQ, 0), w.softirqs.count(NET_RX_SOFTIRQ, 1)]).toEqual([0, 1]);
  });

  it("SOFT-3 hardirqs nest on a handler, what they raise comes after it, lowest vector first", () => {
    const w = bootTaskWorld();
    const seen: string[] = [];
    w.softirqs.openSoftirq(BLOCK_SOFTIRQ, (ctx) => {
      seen.push("block begins");
      w.interrupt(0, (irq) => {
        seen.push(`hardirq at level ${w.contexts.level(irq)}`);
        w.softirqs.raiseSoftirq(irq, NET_RX_SOFTIRQ);
        w.softirqs.raiseSoftirq(irq, NET_TX_SOFTIRQ);
      });
      seen.push(`block ends at level ${w.contexts.level(ctx)}`);
    });
    w.softirqs.openSoftirq(NET_TX_SOFTIRQ, () => seen.push("tx"));
    w.softirqs.openSoftirq(NET_RX_SOFTIRQ, () => seen.push("rx"));
    w.interrupt(0, (ctx) => w.softirqs.raiseSoftirq(ctx, BLOCK_SOFTIRQ));
    expect(seen).toEqual(["block begins", "hardirq at level 2", "block ends at level 1", "tx", "rx"]);
  });

  it("C1 local_bh_disable adds 0x200, nests, and the last enable serves", () => {
    const w = bootTaskWorld();
    let runs = 0;
    w.softirqs.openSoftirq(NET_RX_SOFTIRQ, () => runs++);
    const { ctx } = w;
    w.softirqs.localBhDisable(ctx);
    w.softirqs.localBhDisable(ctx);
    expect(w.contexts.preemptCount(ctx)).toBe(0x400);
    expect(w.contexts.inServingSoftirq(ctx)).toBe(false);
    expect(w.contexts.inTask(ctx)).toBe(true);
    w.interrupt(0, (irq) => w.softirqs.raiseSoftirq(irq, NET_RX_SOFTIRQ));
    expect(runs).toBe(0);
    w.softirqs.localBhEnable(ctx);
    expect([runs, w.contexts.preemptCount(ctx)]).toEqual([0, 0x200]);
    w.softirqs.localBhEnable(ctx);
    expect([runs, w.contexts.preemptCount(ctx)]).toEqual([1, 0]);
  });

  it("SOFT-4 enabling with interrupts off is reported and serves nothing", () => {
    const w = bootTaskWorld();
    let runs = 0;
    w.softirqs.openSoftirq(NET_RX_SOFTIRQ, () => runs++);
    w.softirqs.localBhDisable(w.ctx);
    w.softirqs.raiseSoftirq(w.ctx, NET_RX_SOFTIRQ);
    const flags = w.contexts.localIrqSave(w.ctx);
    w.softirqs.localBhEnable(w.ctx);
    expect(runs).toBe(0);
    w.contexts.localIrqRestore(w.ctx, flags);
    expect(w.log()).toContain("softirqs enabled with hardirqs off");
    expect(w.contexts.nrWarnings()).toBe(1);
    w.interrupt(0, () => {});
    expect(runs).toBe(1);
  });

  it("SOFT-4 raised in process context, ksoftirqd serves it", () => {
    const w = bootTaskWorld();
    const levels: number[] = [];
    w.softirqs.openSoftirq(NET_TX_SOFTIRQ, (ctx) => levels.push(w.contexts.level(ctx)));
    w.spawn(
      "raiser",
      function* (ctx) {
        w.softirqs.raiseSoftirq(ctx, NET_TX_SOFTIRQ);
        yield PREEMPTED;
      },
      2,
    );
    w.runAll();
    expect(levels).toEqual([1]);
    expect(w.names()).toEqual(["ksoftirqd/2"]);
    expect(w.softirqs.count(NET_TX_SOFTIRQ, 2)).toBe(1);
  });

  it("SOFT-4 without memory for the thread the bits are served between two slices", () => {
    const w = bootTaskWorld();
    let runs = 0;
    w.softirqs.openSoftirq(NET_TX_SOFTIRQ, () => runs++);
    w.spawn("raiser", function* (ctx) {
      w.failTasks(1);
      w.softirqs.raiseSoftirq(ctx, NET_TX_SOFTIRQ);
      yield PREEMPTED;
    });
    w.runAll();
    expect(runs).toBe(1);
    expect(w.names()).toEqual(["ksoftirqd/0"]);
  });

  it("SOFT-5 a handler that leaks a count is reported and put right", () => {
    const w = bootTaskWorld();
    w.softirqs.openSoftirq(NET_RX_SOFTIRQ, (ctx) => w.contexts.preemptDisable(ctx));
    w.interrupt(0, (ctx) => w.softirqs.raiseSoftirq(ctx, NET_RX_SOFTIRQ));
    expect(w.log()).toContain("huh, entered softirq 3 with preempt_count 00000100, exited with 00000101?");
    expect(w.contexts.preemptCount(w.ctx)).toBe(0);
  });

  it("a vector opens once, and one that nobody serves cannot be raised", () => {
    const w = bootTaskWorld();
    w.softirqs.openSoftirq(NET_RX_SOFTIRQ, () => {});
    expect(() => w.softirqs.openSoftirq(NET_RX_SOFTIRQ, () => {})).toThrow(/open already/);
    expect(() => w.softirqs.openSoftirq(10, () => {})).toThrow(/no such vector/);
    expect(() => w.softirqs.raiseSoftirq(w.ctx, BLOCK_SOFTIRQ)).toThrow(/nobody serves/);
  });

  it("adopt() moves the bits of a CPU that is gone", () => {
    const w = bootTaskWorld();
    const cpus: number[] = [];
    w.softirqs.openSoftirq(NET_RX_SOFTIRQ, (ctx) => cpus.push(ctx.cpu));
    const flags = w.contexts.localIrqSave(w.idle(1));
    w.softirqs.localBhDisable(w.idle(1));
    w.softirqs.raiseSoftirq(w.idle(1), NET_RX_SOFTIRQ);
    w.contexts.subtract(w.idle(1), 0x200);
    w.contexts.localIrqRestore(w.idle(1), flags);
    w.softirqs.adopt(w.ctx, 1);
    w.runAll();
    expect(cpus).toEqual([0]);
    expect(w.softirqs.pending(1)).toBe(0);
  });
});

describe("G2 in a softirq", () => {
  it("G2 a GFP_KERNEL allocation splats with the softirq bit in preempt_count; GFP_ATOMIC is silent", () => {
    const w = bootTaskWorld();
    w.softirqs.openSoftirq(NET_RX_SOFTIRQ, (ctx) => {
      w.slab.kmalloc.kfree(ctx, w.slab.kmalloc.kmalloc(ctx, 64, GFP_ATOMIC));
      expect(w.contexts.nrAtomicSleeps()).toBe(0);
      const got = w.slab.kmalloc.kmallocAny(ctx, 64, GFP_KERNEL);
      if (typeof got === "number") w.slab.kmalloc.kfree(ctx, got);
    });
    w.interrupt(0, (ctx) => w.softirqs.raiseSoftirq(ctx, NET_RX_SOFTIRQ));
    expect(w.contexts.nrAtomicSleeps()).toBe(1);
    expect(w.log()).toMatch(/BUG: sleeping function called from invalid context/);
    expect(w.log()).toContain(`preempt_count: ${SOFTIRQ_OFFSET.toString(16)}, expected: 0`);
    w.expectNoObjectLeak();
  });

  it("G2 does not compile either", () => {
    const head = `import { GFP_ATOMIC, GFP_KERNEL } from "../mm/gfp.ts";
      import type { Kmalloc } from "../mm/kmalloc.ts";
      import type { Softirqs } from "../kernel/softirq.ts";
      declare const softirqs: Softirqs; declare const heap: Kmalloc;`;
    const handler = (gfp: string): string[] =>
      typeErrors(`${head} softirqs.openSoftirq(3, (ctx) => { heap.kmalloc(ctx, 64, ${gfp}); }); export {};`);
    expect(handler("GFP_ATOMIC")).toEqual([]);
    expect(handler("GFP_KERNEL")).not.toEqual([]);
  });
});

describe("floods", () => {
  it("SOFT-4 ten rounds, or 2 ms, then ksoftirqd takes over", () => {
    const rounds = (cycles: number): number => {
      const w = bootTaskWorld();
      let nr = 0;
      let isOn = true;
      w.softirqs.openSoftirq(NET_RX_SOFTIRQ, (ctx) => {
        nr++;
        charge(w, ctx.cpu, cycles);
        if (isOn) w.softirqs.raiseSoftirq(ctx, NET_RX_SOFTIRQ);
      });
      w.interrupt(0, (ctx) => w.softirqs.raiseSoftirq(ctx, NET_RX_SOFTIRQ));
      const atIrqExit = nr;
      isOn = false;
      w.runAll();
      expect(nr).toBe(atIrqExit + 1);
      expect(w.names()).toEqual(["ksoftirqd/0"]);
      return atIrqExit;
    };
    expect(rounds(1_000)).toBe(MAX_SOFTIRQ_RESTART);
    expect(rounds(MAX_SOFTIRQ_CYCLES / 2)).toBe(2);
  });

  it("a storm does not starve a program: it gets a fair share of its CPU", () => {
    const w = bootTaskWorld({ nrCpus: 1 });
    const end = w.now(0) + CYCLES_PER_SECOND;
    let nrServed = 0;
    w.softirqs.openSoftirq(NET_RX_SOFTIRQ, (ctx) => {
      nrServed++;
      charge(w, ctx.cpu, 20_000);
      if (w.now(0) < end) w.softirqs.raiseSoftirq(ctx, NET_RX_SOFTIRQ);
    });
    let worked = 0;
    w.spawn("program", function* (ctx) {
      w.interrupt(0, (irq) => w.softirqs.raiseSoftirq(irq, NET_RX_SOFTIRQ));
      while (w.now(0) < end) {
        charge(w, ctx.cpu, 10_000);
        worked += 10_000;
        if (w.scheduler.timeIsUp(ctx.cpu)) yield PREEMPTED;
      }
    });
    w.runAll();
    expect(worked / CYCLES_PER_SECOND).toBeGreaterThan(0.35);
    expect((nrServed * 20_000) / CYCLES_PER_SECOND).toBeGreaterThan(0.35);
  });

  it("two runs of a storm are the same to the byte", () => {
    const run = (): string => {
      const w = bootTaskWorld({ nrCpus: 2 });
      let left = 500;
      w.softirqs.openSoftirq(NET_RX_SOFTIRQ, (ctx) => {
        charge(w, ctx.cpu, 3_000);
        if (left-- > 0) w.softirqs.raiseSoftirq(ctx, NET_RX_SOFTIRQ);
      });
      for (const cpu of [0, 1]) {
        w.spawn(
          `p${cpu}`,
          function* (ctx) {
            w.softirqs.raiseSoftirq(ctx, NET_RX_SOFTIRQ);
            yield PREEMPTED;
          },
          cpu,
        );
      }
      w.runAll();
      return `${w.now(0)} ${w.now(1)} ${w.softirqs.count(NET_RX_SOFTIRQ, 0)} ${w.softirqs.count(NET_RX_SOFTIRQ, 1)}`;
    };
    expect(run()).toBe(run());
  });
});
