/**
 * Goal: WQ-2 … WQ-6 of work queues, and TSL-1 … TSL-4 of tasklets. Method: a machine with tasks; functions write down
 * when they begin and end.
 */

import { describe, expect, it } from "vitest";
import { CYCLES_PER_TICK } from "../../kernel/params.ts";
import { TASKLET_BYTES } from "../../kernel/tasklet.ts";
import { type PhysAddr, PREEMPTED } from "../../kernel/types.ts";
import { DELAYED_WORK_BYTES, MAX_WORKERS, WORK_BYTES, type WorkFn } from "../../kernel/workqueue.ts";
import { bootTaskWorld, type TaskWorld } from "../support/task_world.ts";

const createWork = (w: TaskWorld, fn: WorkFn): PhysAddr => {
  const work = w.memory(WORK_BYTES);
  w.workqueues.initWork(work, w.workqueues.registerWorkFn(fn));
  return work;
};

describe("work queues", () => {
  it("WQ-2 queued twice while pending, a work runs once, in a kworker of its CPU, and may sleep", () => {
    const w = bootTaskWorld();
    const seen: string[] = [];
    const work = createWork(w, function* (task) {
      seen.push(`begin cpu${task.ctx.cpu} count=${w.contexts.preemptCount(task.ctx)}`);
      yield* w.scheduler.sleepUntil(task, w.now(task.ctx.cpu) + 1_000_000);
      seen.push("end");
    });
    expect(w.workqueues.queueWork(w.idle(1), work)).toBe(true);
    expect(w.workqueues.queueWork(w.idle(1), work)).toBe(false);
    expect(w.workqueues.isPending(work)).toBe(true);
    w.runAll();
    expect(seen).toEqual(["begin cpu1 count=0", "end"]);
    expect(w.names()).toEqual(["kworker/1:0"]);
    expect([w.workqueues.nrPending(), w.workqueues.nrRunning()]).toEqual([0, 0]);
  });

  it("WQ-3 a work that is queued while it runs begins after its end, also from another CPU", () => {
    const w = bootTaskWorld();
    let running = 0;
    let runs = 0;
    let most = 0;
    const work = createWork(w, function* (task) {
      runs++;
      most = Math.max(most, ++running);
      if (runs === 1) {
        expect(w.workqueues.queueWork(w.idle(1), work)).toBe(true);
        expect(w.workqueues.queueWorkUnbound(w.idle(2), work)).toBe(false);
      }
      yield* w.scheduler.sleepUntil(task, w.now(task.ctx.cpu) + 1_000_000);
      running--;
    });
    w.workqueues.queueWork(w.ctx, work);
    w.runAll();
    expect([runs, most, running]).toEqual([2, 1, 0]);
  });

  it("WQ-4 a sleeping work does not hold up the next: another worker comes; surplus workers end", () => {
    const w = bootTaskWorld();
    const order: string[] = [];
    const sleeper = createWork(w, function* (task) {
      yield* w.scheduler.sleepUntil(task, w.now(task.ctx.cpu) + 50_000_000);
      order.push("sleeper");
    });
    const quick = createWork(w, function* () {
      order.push("quick");
      yield PREEMPTED;
    });
    w.workqueues.queueWork(w.ctx, sleeper);
    w.workqueues.queueWork(w.ctx, quick);
    w.runAll();
    expect(order).toEqual(["quick", "sleeper"]);
    expect(w.names().filter((name) => name.startsWith("kworker/0"))).toHaveLength(1);
  });

  it("WQ-4 a pool has at most MAX_WORKERS, and all works run in the end, also when memory for workers is short", () => {
    const w = bootTaskWorld();
    let [active, most, done] = [0, 0, 0];
    const nr = MAX_WORKERS * 2;
    for (let i = 0; i < nr; i++) {
      const work = createWork(w, function* (task) {
        most = Math.max(most, ++active);
        yield* w.scheduler.sleepUntil(task, w.now(task.ctx.cpu) + 100_000_000);
        active--;
        done++;
      });
      w.workqueues.queueWorkUnbound(w.ctx, work);
    }
    w.failTasks(3);
    for (let i = 0; i < 3; i++) w.step();
    w.runAll();
    expect([most, done]).toEqual([MAX_WORKERS, nr]);
  });

  it("WQ-5 flushWork waits for the execution it found, not for later ones", () => {
    const w = bootTaskWorld();
    let runs = 0;
    const work = createWork(w, function* (task) {
      yield* w.scheduler.sleepUntil(task, w.now(task.ctx.cpu) + 1_000_000);
      runs++;
      if (runs < 5) w.workqueues.queueWork(task.ctx, work);
    });
    const seen: number[] = [];
    w.spawn("flusher", function* (ctx, task) {
      yield* w.workqueues.flushWork(task, work);
      seen.push(runs);
      w.workqueues.queueWork(ctx, work);
      yield* w.workqueues.flushWork(task, work);
      seen.push(runs);
      yield* w.workqueues.drain(task);
      seen.push(runs);
    });
    w.runAll();
    expect(seen).toEqual([0, 1, 5]);
  });

  it("WQ-6 cancelWorkSync takes back what is pending, waits for what runs, and stops a work that queues itself", () => {
    const w = bootTaskWorld();
    let runs = 0;
    const never = createWork(w, function* () {
      throw new Error("ran");
    });
    const again = createWork(w, function* (task) {
      runs++;
      yield* w.scheduler.sleepUntil(task, w.now(task.ctx.cpu) + 1_000_000);
      w.workqueues.queueWork(task.ctx, again);
    });
    const seen: boolean[] = [];
    w.spawn("canceller", function* (ctx, task) {
      w.workqueues.queueWork(ctx, never);
      seen.push(yield* w.workqueues.cancelWorkSync(task, never));
      seen.push(yield* w.workqueues.cancelWorkSync(task, never));
      w.workqueues.queueWork(ctx, again);
      yield* w.scheduler.sleepUntil(task, w.now(ctx.cpu) + 2_500_000);
      seen.push(yield* w.workqueues.cancelWorkSync(task, again));
    });
    w.runAll();
    expect(seen).toEqual([true, false, false]);
    expect(runs).toBe(3);
    expect(w.workqueues.isPending(again)).toBe(false);
  });

  it("delayed: runs after its time, once; a cancel takes its timer back", () => {
    const w = bootTaskWorld();
    const times: number[] = [];
    const work = w.memory(DELAYED_WORK_BYTES);
    w.workqueues.initDelayedWork(
      work,
      w.workqueues.registerWorkFn(function* (task) {
        times.push(w.now(task.ctx.cpu));
        yield PREEMPTED;
      }),
    );
    const at = w.now(0) + 7 * CYCLES_PER_TICK;
    expect(w.workqueues.queueDelayedWork(w.ctx, work, 7 * CYCLES_PER_TICK)).toBe(true);
    expect(w.workqueues.queueDelayedWork(w.ctx, work, 1)).toBe(false);
    expect(w.workqueues.queueWork(w.ctx, work)).toBe(false);
    w.runAll();
    expect(times).toHaveLength(1);
    expect((times[0] as number) - at).toBeLessThan(10_000);
    w.workqueues.queueDelayedWork(w.ctx, work, 1_000);
    w.spawn("canceller", function* (_ctx, task) {
      expect(yield* w.workqueues.cancelWorkSync(task, work)).toBe(true);
    });
    w.runAll();
    expect(times).toHaveLength(1);
    expect(w.timers.nrPending(0)).toBe(0);
  });

  it("a work that waits for itself is reported and does not hang", () => {
    const w = bootTaskWorld();
    const work = createWork(w, function* (task) {
      yield* w.workqueues.flushWork(task, work);
      yield* w.workqueues.cancelWorkSync(task, work);
    });
    w.workqueues.queueWork(w.ctx, work);
    w.runAll();
    expect(w.contexts.nrWarnings()).toBe(2);
    expect(w.log()).toContain("workqueue: a work waits for itself");
  });

  it("WQ-7 a work may free itself: nothing of it is touched after its function began to return", () => {
    const w = bootTaskWorld();
    const work = createWork(w, function* () {
      w.machine.port.fill(work, 0xff, WORK_BYTES);
    });
    w.workqueues.queueWork(w.ctx, work);
    w.runAll();
    expect(w.machine.port.readBytes(work, WORK_BYTES).every((byte) => byte === 0xff)).toBe(true);
  });

  it("adopt() moves works of a CPU that is gone", () => {
    const w = bootTaskWorld();
    const cpus: number[] = [];
    const work = createWork(w, function* (task) {
      cpus.push(task.ctx.cpu);
    });
    w.workqueues.queueWork(w.idle(2), work);
    w.workqueues.adopt(w.ctx, 2);
    w.runAll();
    expect(cpus).toEqual([0]);
  });
});

describe("tasklets", () => {
  const create = (w: TaskWorld, fn: Parameters<typeof w.tasklets.registerTaskletFn>[0]): PhysAddr => {
    const tasklet = w.memory(TASKLET_BYTES);
    w.tasklets.initTasklet(tasklet, w.tasklets.registerTaskletFn(fn));
    return tasklet;
  };

  it("TSL-1 scheduled twice, runs once, in a softirq; high ones first", () => {
    const w = bootTaskWorld();
    const seen: string[] = [];
    const normal = create(w, (ctx) => seen.push(`normal level ${w.contexts.level(ctx)}`));
    const high = create(w, () => seen.push("high"));
    w.interrupt(0, (ctx) => {
      expect(w.tasklets.schedule(ctx, normal)).toBe(true);
      expect(w.tasklets.schedule(ctx, normal)).toBe(false);
      expect(w.tasklets.scheduleHigh(ctx, high)).toBe(true);
    });
    expect(seen).toEqual(["high", "normal level 1"]);
  });

  it("TSL-2 scheduled on another CPU while it runs, it runs again afterwards, not at the same time", () => {
    const w = bootTaskWorld();
    let [active, most, runs] = [0, 0, 0];
    const tasklet = create(w, () => {
      most = Math.max(most, ++active);
      if (++runs === 1) {
        w.interrupt(1, (ctx) => {
          expect(w.tasklets.schedule(ctx, tasklet)).toBe(true);
        });
      }
      active--;
    });
    w.interrupt(0, (ctx) => w.tasklets.schedule(ctx, tasklet));
    w.runAll();
    expect([runs, most]).toEqual([2, 1]);
  });

  it("TSL-3 disabled, it waits without a sound, and runs when enabled as often", () => {
    const w = bootTaskWorld();
    let runs = 0;
    const tasklet = create(w, () => runs++);
    w.tasklets.disable(w.ctx, tasklet);
    w.tasklets.disable(w.ctx, tasklet);
    w.interrupt(0, (ctx) => w.tasklets.schedule(ctx, tasklet));
    w.tasklets.enable(w.ctx, tasklet);
    w.runAll();
    expect([runs, w.tasklets.isScheduled(tasklet)]).toEqual([0, true]);
    w.tasklets.enable(w.ctx, tasklet);
    w.runAll();
    expect([runs, w.tasklets.isScheduled(tasklet)]).toEqual([1, false]);
    expect(() => w.tasklets.enable(w.ctx, tasklet)).toThrow(/more often/);
  });

  it("TSL-4 kill lets it run, ends it, and does not wait for one that is disabled", () => {
    const w = bootTaskWorld();
    const runs: string[] = [];
    const one = create(w, () => runs.push("one"));
    const two = create(w, () => runs.push("two"));
    w.tasklets.disable(w.ctx, two);
    w.spawn("killer", function* (ctx, task) {
      w.tasklets.schedule(ctx, one);
      w.tasklets.schedule(ctx, two);
      yield* w.tasklets.kill(task, one);
      yield* w.tasklets.kill(task, two);
      expect(w.tasklets.schedule(ctx, one)).toBe(false);
    });
    w.runAll();
    expect(runs).toEqual(["one"]);
    expect(w.tasklets.isScheduled(two)).toBe(false);
  });
});
