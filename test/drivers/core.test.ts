/**
 * The driver core and its first driver, the clock.
 *
 * Goal: MOD-1 … MOD-3, DFL-1 … DFL-3, DBUS-1, HW-1. Method: a whole kernel with the shell's programs; after each test
 * the module is unloaded and nothing is left.
 */

import { describe, expect, it } from "vitest";
import { EBUSY, EINVAL, ENODEV, ENOENT, ENOMEM } from "../../kernel/uapi/errno.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { bootDrivers } from "../support/driver_kernel.ts";

function* call(env: ProgramEnv, nr: number, ...args: number[]) {
  let result = env.syscall(nr, ...args);
  if (typeof result === "object") result = yield* result;
  return result;
}

describe("modules", () => {
  it("MOD-1 insmod, lsmod, rmmod: a module comes, is listed and goes", () => {
    const t = bootDrivers();
    expect(t.sh("insmod rtc rate=128; cat /proc/modules; lsmod")).toBe(0);
    expect(t.output()).toMatch(/^rtc \d+ 0 - Live 0x[0-9a-f]{16}\nModule {18}Size {2}Used by\nrtc +\d+ {2}0\n/);
    expect(t.log()).toContain("rtc rtc0: registered as rtc0, 128 Hz");
    expect(t.kernel.readFile("/sys/bus/slab/devices")).toContain("rtc0 rtc rtc\n");
    expect(t.kernel.deviceStats()).toEqual([
      {
        device: "rtc0",
        driver: "rtc",
        rows: [
          ["irqs", 0],
          ["reads", 0],
          ["lost", 0],
        ],
      },
    ]);
    expect(t.sh("rmmod rtc; cat /proc/modules")).toBe(0);
    t.expectUnloaded();
  });

  it("MOD-3 a second insmod says EEXIST, an unknown name ENOENT, rmmod of an absent one ENOENT", () => {
    const t = bootDrivers();
    expect(t.sh("insmod rtc; insmod rtc; insmod rtx; rmmod rtx")).toBe(1);
    expect(t.output()).toContain("insmod: ERROR: could not insert module rtc: File exists\n");
    expect(t.output()).toContain("insmod: ERROR: could not insert module rtx: Unknown symbol or module\n");
    expect(t.output()).toContain("rmmod: ERROR: Module rtx is not currently loaded\n");
    t.sh("rmmod rtc");
    t.expectUnloaded();
  });

  it.each([
    ["insmod rtc raet=5", "rtc: unknown parameter 'raet'; did you mean 'rate'?"],
    ["insmod rtc rate=many", "rtc: parameter rate=many: expected a whole number from 1 to 8192"],
    ["insmod rtc rate=8193", "rtc: parameter rate=8193: expected a whole number from 1 to 8192"],
  ])("%s: EINVAL, and the log says why", (command, line) => {
    const t = bootDrivers();
    expect(t.sh(command)).toBe(1);
    expect(t.output()).toContain("Invalid argument");
    expect(t.log()).toContain(line);
    t.expectUnloaded();
  });

  it("modules= loads at boot; what cannot be loaded is named in the log", () => {
    const t = bootDrivers({ cmdline: "quiet modules=rtc,nothing" });
    expect(t.kernel.readFile("/proc/modules")).toMatch(/^rtc \d+ 0 - Live/);
    expect(t.log()).toContain("modprobe: module nothing not loaded: ENOENT");
    t.sh("rmmod rtc");
    t.expectUnloaded();
  });

  it("a machine without modules has no thread and no memory for drivers", () => {
    const t = bootDrivers();
    expect(t.kernel.tasks()).toEqual([]);
    expect(t.kernel.deviceStats()).toEqual([]);
  });

  it("settings of devices are checked at boot, by name and range", () => {
    expect(() => bootDrivers({ devices: { rtc7: {} } })).toThrow(/no device rtc7: known are rtc0/);
    expect(() => bootDrivers({ devices: { rtc0: { lots: 1 } } })).toThrow(/setting lots=1: known are lost_irq/);
    expect(() => bootDrivers({ devices: { rtc0: { lost_irq: "#0" } } })).toThrow(/expected a probability/);
    expect(() => bootDrivers({ devices: { rtc0: { late_cycles: 0 } } })).toThrow(/from 1 to 1000000000/);
  });
});

/** Opens the clock and reads `n` times; returns the number of periods, or 200 + errno of what failed. */
const reader = (n: number): Program =>
  function* (env) {
    const path = yield* call(env, sys.SYS_mmap, 0, 4096, 3, 0x22, -1, 0);
    env.mem.write(
      path,
      Uint8Array.from("/dev/rtc0\0", (c) => c.charCodeAt(0)),
    );
    const fd = yield* call(env, sys.SYS_openat, -100, path, 0);
    if (fd < 0) return 200 - fd;
    let nrPeriods = 0;
    for (let i = 0; i < n; i++) {
      const got = yield* call(env, sys.SYS_read, fd, path, 4);
      if (got !== 4) return 200 - got;
      nrPeriods += env.mem.ld32(path) >>> 8;
    }
    return nrPeriods;
  };

describe("/dev/rtc0", () => {
  it("a read sleeps until the next period", () => {
    const t = bootDrivers({ cmdline: "quiet modules=rtc" }, { "/bin/reader": reader(5) });
    const start = t.kernel.now();
    expect(t.run("/bin/reader")).toBe(5);
    const elapsed = t.kernel.now() - start;
    // The period that had begun when the program ended still ends.
    expect(elapsed).toBeGreaterThanOrEqual((5 * 1e9) / 64);
    expect(elapsed).toBeLessThan((6.5 * 1e9) / 64);
    t.sh("rmmod rtc");
    t.expectUnloaded();
  });

  it("MOD-1 rmmod says EBUSY while the node is open; a second open says EBUSY", () => {
    const t = bootDrivers({ cmdline: "quiet modules=rtc" }, { "/bin/reader": reader(3) });
    const first = t.start("/bin/reader");
    const second = t.start("/bin/reader");
    expect(t.sh("rmmod rtc")).toBe(1);
    expect(t.output()).toContain("rmmod: ERROR: Module rtc is in use\n");
    t.kernel.run();
    expect([t.kernel.exitStatus(first), t.kernel.exitStatus(second)].sort()).toEqual([200 + EBUSY, 3].sort());
    t.sh("rmmod rtc");
    t.expectUnloaded();
  });

  it("DFL-3 hot-unplug under a sleeping reader: ENODEV; the module stays until the file is closed; rescan brings it back", () => {
    const t = bootDrivers({ cmdline: "quiet modules=rtc" }, { "/bin/reader": reader(200) });
    const pid = t.start("/bin/reader");
    expect(t.sh("echo 1 > /sys/devices/rtc0/remove")).toBe(0);
    t.kernel.run();
    expect(t.kernel.exitStatus(pid)).toBe(200 + ENODEV);
    expect(t.log()).toContain("rtc rtc0: unregistered\nslab rtc0: removed");
    expect(t.kernel.readFile("/sys/devices/rtc0/stats")).toBeNull();
    expect(t.kernel.readFile("/proc/modules")).toMatch(/^rtc 80 0 - Live/);
    expect(t.sh("echo 1 > /sys/bus/slab/rescan; cat /sys/devices/rtc0/driver")).toBe(0);
    expect(t.output()).toContain("rtc\n");
    expect(t.sh("echo x > /sys/bus/slab/rescan")).not.toBe(0);
    t.sh("rmmod rtc");
    t.expectUnloaded();
  });

  it("a killed reader leaves nothing behind", () => {
    const t = bootDrivers({ cmdline: "quiet modules=rtc" }, { "/bin/reader": reader(200) });
    const pid = t.start("/bin/reader");
    expect(t.sh(`kill -9 ${pid}`)).toBe(0);
    t.kernel.run();
    expect(t.kernel.exitStatus(pid)).toBe(137);
    expect(t.sh("rmmod rtc")).toBe(0);
    t.expectUnloaded();
  });

  it("lost_irq: the period is counted at the next interrupt", () => {
    const t = bootDrivers(
      { cmdline: "quiet modules=rtc", devices: { rtc0: { lost_irq: "#2" } } },
      { "/bin/reader": reader(3) },
    );
    expect(t.run("/bin/reader")).toBe(4);
    expect(t.stat("rtc0", "lost")).toBe(1);
    t.sh("rmmod rtc");
    t.expectUnloaded();
  });

  it("HW-1 vanish: no more periods; remove and rescan repair it", () => {
    const t = bootDrivers(
      { cmdline: "quiet modules=rtc", devices: { rtc0: { vanish: "#2" } } },
      { "/bin/reader": reader(3) },
    );
    const pid = t.start("/bin/reader");
    t.kernel.run();
    expect(t.kernel.exitStatus(pid)).toBeUndefined();
    expect(t.sh("echo 1 > /sys/devices/rtc0/remove; echo 1 > /sys/bus/slab/rescan")).toBe(0);
    t.kernel.run();
    expect(t.kernel.exitStatus(pid)).toBe(200 + ENODEV);
    expect(t.run("/bin/reader")).toBe(3);
    t.sh("rmmod rtc");
    t.expectUnloaded();
  });
});

describe("a probe that fails", () => {
  it("DRV-1 at step N for every N: nothing is left, the log says so, and insmod works afterwards", () => {
    const t = bootDrivers();
    t.kernel.drivers.failStep(0);
    t.sh("insmod rtc; rmmod rtc");
    const nrSteps = t.kernel.drivers.nrSteps();
    expect(nrSteps).toBe(2);
    for (let nth = 1; nth <= nrSteps; nth++) {
      t.kernel.drivers.failStep(nth);
      expect(t.sh("insmod rtc"), `step ${nth}`).toBe(1);
      expect(t.log()).toContain(`rtc rtc0: probe with driver rtc failed with error ${-ENOMEM}`);
      t.expectUnloaded();
      expect(t.sh("insmod rtc && rmmod rtc"), `after step ${nth}`).toBe(0);
    }
    t.expectUnloaded();
  });
});

it("builtin programs hold the module tools", () => {
  for (const name of ["insmod", "rmmod", "lsmod"]) expect(builtinPrograms().has(`/bin/${name}`)).toBe(true);
  expect([EINVAL, ENOENT]).toEqual([22, 2]);
});
