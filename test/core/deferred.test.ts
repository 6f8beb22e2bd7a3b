/**
 * Goal: what defers work, in a whole kernel: nothing of it costs a boot that does not use it, threads are in ps, counts
 * in /proc, work outlives a CPU that goes offline, and is done before the power goes off. Method: a module hands its
 * platform to the test.
 */

import { describe, expect, it } from "vitest";
import type { DriverType, Platform } from "../../drivers/driver.ts";
import { createDriverLedger, createStepCounter } from "../../drivers/driver_ledger.ts";
import { createModuleView } from "../../drivers/module_view.ts";
import { RCU_HEAD_BYTES } from "../../kernel/rcu.ts";
import { NET_RX_SOFTIRQ } from "../../kernel/softirq.ts";
import { type Context, NULL, type PhysAddr, PREEMPTED, type TaskContext } from "../../kernel/types.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { WORK_BYTES } from "../../kernel/workqueue.ts";
import { GFP_ATOMIC } from "../../mm/gfp.ts";
import { permanentStackPages } from "../../scripts/end_state.ts";
import { bootKernel, type TestKernel } from "../support/boot_kernel.ts";
import { bootDrivers, type DriverKernel } from "../support/driver_kernel.ts";

const later: Program = function* (env) {
  let result = env.syscall(sys.SYS_nanosleep, 50_000_000);
  if (typeof result === "object") result = yield* result;
  return 0;
};

/** Powers off at once. */
const off: Program = function* (env) {
  const result = env.syscall(sys.SYS_reboot, 0);
  return typeof result === "object" ? yield* result : result;
};

const bootWithPlatform = (): DriverKernel & { platform: Platform } => {
  let platform: Platform | undefined;
  const spy: DriverType = {
    name: "spy",
    description: "shows its platform to a test",
    params: {},
    create(given) {
      platform = given;
      return {
        *probe() {
          return 0;
        },
        *remove() {},
        stats: () => [],
      };
    },
  };
  const t = bootDrivers({ extraDrivers: [spy], modules: ["spy"] }, { "/bin/off": off });
  t.kernel.run();
  if (platform === undefined) throw new Error("the module was not loaded");
  return { ...t, platform };
};

const alloc = (p: Platform, ctx: Context, bytes: number): PhysAddr => {
  const addr = p.slab.kmalloc.kmalloc(ctx, bytes, GFP_ATOMIC);
  expect(addr).not.toBe(NULL);
  return addr;
};

/** No page is used but for the threads that stay. */
const expectRest = (t: TestKernel): void => {
  expect(t.kernel.check()).toBeNull();
  const { anon, pageTables, kernelStacks, largeKmalloc, other } = t.kernel.census();
  expect({ anon, pageTables: pageTables - t.kernel.nrKernelTables(), kernelStacks, largeKmalloc, other }).toEqual({
    anon: 0,
    pageTables: 0,
    kernelStacks: permanentStackPages(t.kernel),
    largeKmalloc: 0,
    other: 0,
  });
};

const here = (t: TestKernel): TaskContext => t.kernel.contexts.taskContext(0);

describe("a boot that defers nothing", () => {
  it("has no threads of the kernel, no timer and no callback, and comes to rest", () => {
    const t = bootKernel({ "/bin/later": later });
    expect(t.kernel.tasks()).toEqual([]);
    expect(t.run("/bin/later")).toBe(0);
    expect(t.kernel.tasks()).toEqual([]);
    expect(t.kernel.run()).toBe("idle");
    t.expectNoLeak();
  });
});

describe("deferred work in a kernel", () => {
  it("SOFT-1 WQ-2 is counted in /proc, its threads are tasks, nothing leaks", () => {
    const t = bootWithPlatform();
    const p = t.platform;
    let [served, worked] = [0, 0];
    p.softirqs.openSoftirq(NET_RX_SOFTIRQ, () => served++);
    const work = alloc(p, here(t), WORK_BYTES);
    p.workqueues.initWork(
      work,
      p.workqueues.registerWorkFn(function* (task, self) {
        worked++;
        yield PREEMPTED;
        // The work frees itself.
        expect(p.slab.kmalloc.kfree(task.ctx, self)).toBe(0);
      }),
    );
    p.softirqs.raiseSoftirq(here(t), NET_RX_SOFTIRQ);
    p.workqueues.queueWork(here(t), work);
    for (let i = 0; i < 30; i++) p.kfreeRcu.kfreeRcu(here(t), alloc(p, here(t), 96), 8);
    expect(t.kernel.run()).toBe("idle");
    expect([served, worked]).toEqual([1, 1]);
    const threads = t.kernel.tasks().map(({ comm, isKernelThread, state }) => `${comm} ${isKernelThread} ${state}`);
    expect(threads).toEqual(["ksoftirqd/0 true S", "kworker/0:0 true S"]);
    expect(t.kernel.readFile("/proc/softirqs")).toMatch(/NET_RX:\s+1\s+0\n/);
    expect(t.kernel.readFile("/proc/softirqs")).toMatch(/ RCU:\s+[1-9]\d*\s+\d+\n/);
    const [, total = 0, ...rows] = (/softirq (.*)/.exec(t.kernel.readFile("/proc/stat") ?? "")?.[0] ?? "")
      .split(" ")
      .map(Number);
    expect(rows.reduce((sum, count) => sum + count, 0)).toBe(total);
    expect(t.kernel.nrReports()).toBe(0);
    expectRest(t);
  });

  it("RCU-5 TMR-5 survives its CPU going offline and coming back", () => {
    const t = bootWithPlatform();
    const p = t.platform;
    const cpu1 = t.kernel.contexts.taskContext(1);
    let nrCalled = 0;
    const fn = p.rcu.registerRcuFn((ctx, head) => {
      nrCalled++;
      p.slab.kmalloc.kfree(ctx, head);
    });
    const give = (): void => {
      p.rcu.callRcu(cpu1, alloc(p, cpu1, RCU_HEAD_BYTES), fn);
      p.kfreeRcu.kfreeRcu(cpu1, alloc(p, cpu1, 64), 0);
    };
    give();
    expect(t.sh("echo 0 > /sys/devices/system/cpu/cpu1/online")).toBe(0);
    expect(t.kernel.machine.harts.online[1]).toBe(0);
    t.kernel.run();
    expect(nrCalled).toBe(1);
    expect(t.sh("echo 1 > /sys/devices/system/cpu/cpu1/online")).toBe(0);
    give();
    t.kernel.run();
    expect(nrCalled).toBe(2);
    expectRest(t);
  });

  it("KFR-1 what a module gave to kfreeRcu is not missed when it is unloaded", () => {
    const t = bootWithPlatform();
    const ledger = createDriverLedger(createStepCounter());
    const p = createModuleView(t.platform, ledger);
    const objects = [0, 1, 2].map(() => alloc(p, here(t), 96));
    expect(ledger.leftovers()).toBe("3 kmalloc (288 bytes)");
    for (const obj of objects) p.kfreeRcu.kfreeRcu(here(t), obj, 8);
    expect(ledger.leftovers()).toBeNull();
    t.kernel.run();
    expectRest(t);
  });

  it("is done before the power goes off", () => {
    const t = bootWithPlatform();
    const p = t.platform;
    let nrWorked = 0;
    const work = alloc(p, here(t), WORK_BYTES);
    p.workqueues.initWork(
      work,
      p.workqueues.registerWorkFn(function* (task) {
        yield* p.scheduler.sleepUntil(task, t.kernel.now() + 20_000_000);
        nrWorked++;
      }),
    );
    const pid = t.kernel.spawn("/bin/off", ["off"]);
    expect(pid).toBeGreaterThan(0);
    p.workqueues.queueWork(here(t), work);
    for (let i = 0; i < 10; i++) p.kfreeRcu.kfreeRcu(here(t), alloc(p, here(t), 96), 8);
    expect(t.kernel.run()).toBe("poweroff");
    expect(nrWorked).toBe(1);
    expect([p.kfreeRcu.nrObjects(0), p.rcu.nrCallbacks(0), p.workqueues.nrPending()]).toEqual([0, 0, 0]);
    expect(t.kernel.check()).toBeNull();
  });

  it("a work that queues itself for ever does not keep the power on", () => {
    const t = bootWithPlatform();
    const p = t.platform;
    const work = alloc(p, here(t), WORK_BYTES);
    p.workqueues.initWork(
      work,
      p.workqueues.registerWorkFn(function* (task, self) {
        yield* p.scheduler.sleepUntil(task, t.kernel.now() + 1_000_000);
        p.workqueues.queueWork(task.ctx, self);
      }),
    );
    t.kernel.spawn("/bin/off", ["off"]);
    p.workqueues.queueWork(here(t), work);
    expect(t.kernel.run()).toBe("poweroff");
  });
});
