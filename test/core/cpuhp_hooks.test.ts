/**
 * Goal: hooks of CPU hot-plug run in order (HP-2), and a hook that refuses leaves everything as it was (HP-3).
 * Method: hooks that record themselves on a whole kernel; the CPU is switched in the thread of an interrupt line.
 */
import { describe, expect, it } from "vitest";
import { formatCpuList } from "../../kernel/cpuhp.ts";
import { IRQ_HANDLED, IRQ_WAKE_THREAD } from "../../kernel/irq.ts";
import type { Task } from "../../kernel/task.ts";
import type { Sleeping } from "../../kernel/types.ts";
import { EBUSY, EINVAL, ENOMEM } from "../../kernel/uapi/errno.ts";
import { bootKernel, type TestKernel } from "../support/boot_kernel.ts";

/** Runs `body` in a kernel thread to its end. */
function inThread(t: TestKernel, body: (task: Task) => Sleeping<void>): void {
  const { irqs } = t.kernel.interrupts;
  let isDone = false;
  const action = {
    name: "test",
    handler: () => {
      t.kernel.machine.irqChip.setLevel(20, false);
      return IRQ_WAKE_THREAD;
    },
    *thread(task: Task): Sleeping<void> {
      yield* body(task);
      isDone = true;
    },
  };
  expect(irqs.requestIrq(20, action)).toBe(0);
  t.kernel.machine.irqChip.setLevel(20, true);
  t.kernel.run();
  expect(isDone).toBe(true);
  irqs.freeIrq(20, action);
  t.kernel.run();
}

function bootWithHooks(refuse: { name: string; when: "online" | "offline" } | null) {
  const t = bootKernel({}, { nrCpus: 3 });
  const calls: string[] = [];
  for (const name of ["a", "b", "c"]) {
    const hook = (when: "online" | "offline") => (_ctx: unknown, cpu: number) => {
      calls.push(`${when} ${name} ${cpu}`);
      return refuse?.name === name && refuse.when === when ? -ENOMEM : 0;
    };
    t.kernel.interrupts.cpuhp.registerCpuhp({ name, online: hook("online"), offline: hook("offline") });
  }
  return { t, calls, ...t.kernel.interrupts };
}

describe("hooks", () => {
  it("HP-2 online hooks run in order of registration, offline hooks in reverse; twice is once", () => {
    const { t, calls, cpuhp } = bootWithHooks(null);
    inThread(t, function* (task) {
      expect(yield* cpuhp.cpuDown(task, 2)).toBe(0);
      expect(yield* cpuhp.cpuDown(task, 2)).toBe(0);
      expect(yield* cpuhp.cpuUp(task, 2)).toBe(0);
      expect(yield* cpuhp.cpuUp(task, 2)).toBe(0);
    });
    expect(calls).toEqual([
      ...["c", "b", "a"].map((name) => `offline ${name} 2`),
      ...["a", "b", "c"].map((name) => `online ${name} 2`),
    ]);
    t.expectNoLeak();
  });

  it("HP-3 a refused cpuDown undoes the hooks that had run, and the lines are back", () => {
    const { t, calls, cpuhp, irqs } = bootWithHooks({ name: "a", when: "offline" });
    const taken: number[] = [];
    const action = {
      name: "dev9",
      handler: (ctx: { cpu: number }) => {
        taken.push(ctx.cpu);
        t.kernel.machine.irqChip.setLevel(9, false);
        return IRQ_HANDLED;
      },
    };
    irqs.requestIrq(9, action);
    irqs.setAffinity(9, 1);
    inThread(t, function* (task) {
      expect(yield* cpuhp.cpuDown(task, 1)).toBe(-ENOMEM);
    });
    expect(calls).toEqual(["offline c 1", "offline b 1", "offline a 1", "online b 1", "online c 1"]);
    expect(t.kernel.readFile("/sys/devices/system/cpu/online")).toBe("0-2\n");
    t.kernel.machine.irqChip.setLevel(9, true);
    t.kernel.run();
    expect(taken).toEqual([1]);
    irqs.freeIrq(9, action);
    t.expectNoLeak();
  });

  it("HP-3 a refused cpuUp leaves the CPU offline; its lines stay where they went", () => {
    const { t, calls, cpuhp, irqs } = bootWithHooks({ name: "c", when: "online" });
    const action = { name: "dev9", handler: () => IRQ_HANDLED };
    irqs.requestIrq(9, action);
    irqs.setAffinity(9, 2);
    inThread(t, function* (task) {
      expect(yield* cpuhp.cpuDown(task, 2)).toBe(0);
      expect(yield* cpuhp.cpuUp(task, 2)).toBe(-ENOMEM);
    });
    expect(calls.slice(3)).toEqual(["online a 2", "online b 2", "online c 2", "offline b 2", "offline a 2"]);
    expect(t.kernel.readFile("/sys/devices/system/cpu/online")).toBe("0-1\n");
    expect(t.kernel.readFile("/sys/devices/system/cpu/offline")).toBe("2\n");
    expect(t.kernel.machine.irqChip.routeOf(9)).toBe(0);
    irqs.freeIrq(9, action);
    t.expectNoLeak();
  });

  it("CPU 0 and CPUs that are not there", () => {
    const { t, calls, cpuhp } = bootWithHooks(null);
    inThread(t, function* (task) {
      expect(yield* cpuhp.cpuDown(task, 0)).toBe(-EBUSY);
      for (const cpu of [-1, 3, 1.5, Number.NaN]) {
        expect(yield* cpuhp.cpuDown(task, cpu)).toBe(-EINVAL);
        expect(yield* cpuhp.cpuUp(task, cpu)).toBe(-EINVAL);
      }
    });
    expect(calls).toEqual([]);
    t.expectNoLeak();
  });
});

it("sets of CPUs are printed as Linux prints them", () => {
  expect([[], [0], [0, 1], [0, 2], [0, 1, 2, 5, 7, 8]].map(formatCpuList)).toEqual([
    "",
    "0",
    "0-1",
    "0,2",
    "0-2,5,7-8",
  ]);
});
