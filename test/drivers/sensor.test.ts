/**
 * The sensor and its driver: samples in order, deadlines, three ways to store a sample in an interrupt handler.
 *
 * Goal: SNS-1, SNS-2, SENS-1, SENS-2, SBUF-1, SBUF-2, D6 in use. Method: a whole kernel; sensord reads and checks;
 * memory is taken away by memhog; the device keeps the score of its deadlines.
 */

import { describe, expect, it } from "vitest";
import type { BootOptions } from "../../kernel/entry/kernel.ts";
import { bootDrivers, type DriverKernel } from "../support/driver_kernel.ts";

const KINDS = ["kmalloc", "mempool", "ring"] as const;

function bootSensor(
  settings: Readonly<Record<string, number | string>> = {},
  buffer = "ring",
  options: Partial<BootOptions> = {},
): DriverKernel {
  return bootDrivers({
    modules: [`sensor buffer=${buffer}`],
    devices: { sensor0: { period: 50_000, deadline: 20_000, ...settings } },
    ...options,
  });
}

function unload(t: DriverKernel): void {
  expect(t.sh("rmmod sensor")).toBe(0);
  t.expectUnloaded();
}

describe.each(KINDS)("a %s buffer", (kind) => {
  it("SENS-2 a real-time reader gets every sample, in order, undamaged, before the next", () => {
    const t = bootSensor({}, kind);
    expect(t.sh("sensord /dev/sensor0 200")).toBe(0);
    expect(t.output()).toMatch(/200 samples, 0 lost, 0 damaged/);
    expect(t.stat("sensor0", "missed")).toBe(0);
    expect(t.stat("sensor0", "worst_latency")).toBeLessThan(20_000);
    unload(t);
  });

  it("a reader that is killed, or closes early, leaves nothing", () => {
    const t = bootSensor({ period: 10_000 }, kind);
    const pid = t.start("/bin/sensord", "/dev/sensor0", "100000");
    t.sh(`kill -9 ${pid}`);
    expect(t.sh("sensord /dev/sensor0 3")).toBe(0);
    unload(t);
  });

  it("hot-unplug while it is read: ENODEV", () => {
    const t = bootSensor({}, kind);
    const pid = t.start("/bin/sensord", "/dev/sensor0", "100000");
    expect(t.sh("echo 1 > /sys/devices/sensor0/remove")).toBe(0);
    t.kernel.run();
    expect(t.kernel.exitStatus(pid)).toBe(1);
    unload(t);
  });

  it("every step of probe fails once: nothing is left, the next insmod works", () => {
    const t = bootDrivers();
    let nrFailed = 0;
    for (let n = 1; n < 60; n++) {
      t.kernel.drivers.failStep(n);
      if (t.sh(`insmod sensor buffer=${kind}`) === 0) break;
      nrFailed++;
      expect(t.kernel.readFile("/proc/modules")).toBe("");
    }
    t.kernel.drivers.failStep(0);
    expect(nrFailed).toBeGreaterThanOrEqual(4);
    unload(t);
  });
});

describe("when memory is short", () => {
  /** A machine that runs out of memory, so that a process is killed: samples missed and lost over 900 periods. */
  const underPressure = (kind: string): { missed: number; lost: number; worst: number } => {
    const t = bootSensor({ deadline: 4_000 }, kind, { ramBytes: 24 * 1024 * 1024, nrCpus: 1 });
    t.start("/bin/memhog", "14M", "--hold", "1000000000");
    t.sh("memhog 14M --hold 1000000000 & sensord /dev/sensor0 900");
    expect(t.kernel.readFile("/proc/vmstat")).toContain("\noom_kill 1\n");
    const score = {
      missed: t.stat("sensor0", "missed"),
      lost: t.stat("sensor0", "lost"),
      worst: t.stat("sensor0", "worst_latency"),
    };
    t.kernel.run();
    unload(t);
    return score;
  };

  it("a ring made before loses and misses nothing", () => {
    expect(underPressure("ring")).toMatchObject({ missed: 0, lost: 0 });
  });

  it("D6 a mempool loses nothing", () => {
    expect(underPressure("mempool").lost).toBe(0);
  });
});

describe("faults", () => {
  it.each([
    ["lost_irq", "#5"],
    ["twice", "#5"],
    ["late", "#5"],
    ["stray_write", "#5"],
  ])("%s: no sample is lost to the reader", (fault, rule) => {
    const t = bootSensor({ [fault]: rule, late_cycles: 10_000 });
    expect(t.sh("sensord /dev/sensor0 50")).toBe(0);
    expect(t.output()).toMatch(/, 0 lost, 0 damaged/);
    unload(t);
  });

  it("corrupt: the reader notices", () => {
    const t = bootSensor({ corrupt: "#5" });
    expect(t.sh("sensord /dev/sensor0 50")).toBe(1);
    expect(t.output()).toMatch(/1 damaged/);
    unload(t);
  });

  it("never: a gap in the sequence", () => {
    const t = bootSensor({ never: "#5" });
    expect(t.sh("sensord /dev/sensor0 50")).toBe(0);
    expect(t.output()).toMatch(/, 1 lost, 0 damaged/);
    unload(t);
  });

  it("vanish: the reader gets ENODEV", () => {
    const t = bootSensor({ vanish: "#5" });
    expect(t.sh("sensord /dev/sensor0 50")).toBe(1);
    expect(t.output()).toContain("No such device");
    unload(t);
  });
});

it("buffer= is checked, and a list gives each device its own kind", () => {
  const t = bootDrivers({ devices: { sensor0: {}, sensor1: {}, sensor2: {} } });
  expect(t.sh("insmod sensor buffer=heap")).toBe(1);
  expect(t.log()).toContain("sensor: parameter buffer=heap: expected kmalloc, mempool, ring");
  expect(t.sh("insmod sensor buffer=kmalloc,mempool,ring")).toBe(0);
  for (const [i, kind] of KINDS.entries())
    expect(t.log()).toContain(`sensor sensor${i}: samples go to a ${kind} buffer`);
  unload(t);
});

it("SNS-2 nobody takes the samples: each is missed once, the ring is never overrun", () => {
  const t = bootSensor({ period: 1_000, deadline: 100 });
  t.sh("sensord /dev/sensor0 500");
  expect(t.stat("sensor0", "missed")).toBeLessThanOrEqual(t.stat("sensor0", "samples") + t.stat("sensor0", "overrun"));
  unload(t);
});
