/**
 * The framebuffer: a device that needs megabytes in one piece, its driver, and the program that looks at the screen.
 *
 * Goal: FB-1 … FB-3, DRV-1 … DRV-5, and the story of the contiguous area: memory is full of processes, the module is
 * loaded all the same, and the processes notice nothing. Method: whole kernels with the shell; every fault of the
 * device; every step of probe failing.
 */

import { describe, expect, it } from "vitest";
import { FB_HEIGHT } from "../../drivers/framebuffer_device.ts";
import { PREEMPTED } from "../../kernel/types.ts";
import { ENOMEM } from "../../kernel/uapi/errno.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { bootDrivers, type DriverKernel } from "../support/driver_kernel.ts";

const MIB = 2 ** 20;
const SMALL = "insmod framebuffer width=160 height=100 rate=120";

function* call(env: ProgramEnv, nr: number, ...args: number[]) {
  let result = env.syscall(nr, ...args);
  if (typeof result === "object") result = yield* result;
  return result;
}

/** Fills `nrPages` and looks at them again and again for some `rounds`. */
const keeper = (nrPages: number, rounds: number): Program =>
  function* (env) {
    const base = yield* call(env, sys.SYS_mmap, 0, nrPages * 4096, 3, 0x22, -1, 0);
    if (base < 0) return 100;
    const word = (page: number): number => Math.imul(page + 1, 0x9e37_79b1) >>> 0;
    for (let page = 0; page < nrPages; page++) env.mem.st32(base + page * 4096 + (page % 1000) * 4, word(page));
    for (let round = 0; round < rounds; round++) {
      yield PREEMPTED;
      for (let page = 0; page < nrPages; page++) {
        if (env.mem.ld32(base + page * 4096 + (page % 1000) * 4) !== word(page)) return 1;
      }
      yield* call(env, sys.SYS_nanosleep, 1_000_000);
    }
    return 0;
  };

const unload = (t: DriverKernel): void => {
  expect(t.sh("rmmod framebuffer")).toBe(0);
  t.expectUnloaded();
};

describe("a screen", () => {
  it("FB-2 fbtest draws, flips, and the display has shown what was drawn; nothing runs afterwards", () => {
    const t = bootDrivers();
    expect(t.sh(`${SMALL}; fbtest 6`)).toBe(0);
    expect(t.output()).toContain("fbtest: /dev/fb0: 6 pictures of 160x100 shown as drawn\n");
    expect(t.log()).toMatch(/framebuffer fb0: 160x100, 2 pictures, 125 KiB at 0x[0-9a-f]{16}/);
    expect(t.stat("fb0", "flips")).toBe(6);
    expect(t.stat("fb0", "vsyncs")).toBeGreaterThanOrEqual(12);
    expect(t.stat("fb0", "bus_errors")).toBe(0);
    const vsyncs = t.stat("fb0", "vsyncs");
    t.kernel.run();
    expect(t.stat("fb0", "vsyncs")).toBe(vsyncs);
    unload(t);
  });

  it("FB-3 the end of the block is the end of the file; nonsense is EINVAL", () => {
    const probe: Program = function* (env) {
      const at = yield* call(env, sys.SYS_mmap, 0, 8192, 3, 0x22, -1, 0);
      const path = (text: string): number => {
        env.mem.write(
          at,
          Uint8Array.from(`${text}\0`, (c) => c.charCodeAt(0)),
        );
        return at;
      };
      const put = (text: string): number => {
        env.mem.write(
          at + 4096,
          Uint8Array.from(text, (c) => c.charCodeAt(0)),
        );
        return text.length;
      };
      const size = 160 * 100 * 4 * 2;
      const fd = yield* call(env, sys.SYS_openat, -100, path("/dev/fb0"), 2);
      const ctl = yield* call(env, sys.SYS_openat, -100, path("/dev/fb0ctl"), 2);
      if (fd < 0 || ctl < 0) return 1;
      if ((yield* call(env, sys.SYS_lseek, fd, -2, 2)) !== size - 2) return 2;
      if ((yield* call(env, sys.SYS_write, fd, at + 4096, 10)) !== 2) return 3;
      if ((yield* call(env, sys.SYS_write, fd, at + 4096, 10)) !== -28) return 4;
      if ((yield* call(env, sys.SYS_read, fd, at + 4096, 10)) !== 0) return 5;
      if ((yield* call(env, sys.SYS_lseek, fd, -1, 0)) !== -22) return 6;
      if ((yield* call(env, sys.SYS_lseek, fd, size + 50, 0)) !== size + 50) return 7;
      if ((yield* call(env, sys.SYS_write, fd, at + 4096, 1)) !== -28) return 8;
      for (const text of ["pan 0,101\n", "pan 1,0\n", "pan 0,-1\n", "on\n", ""]) {
        if ((yield* call(env, sys.SYS_write, ctl, at + 4096, put(text))) !== -22 && text !== "") return 9;
      }
      if ((yield* call(env, sys.SYS_write, ctl, at + 4096, put("pan 0,100\n"))) !== 10) return 10;
      return 0;
    };
    const t = bootDrivers({}, { "/bin/probe": probe });
    t.sh(SMALL);
    expect(t.run("/bin/probe")).toBe(0);
    unload(t);
  });

  it.each([
    ["insmod framebuffer width=0", "framebuffer: parameter width=0: expected a whole number from 1 to 4096"],
    ["insmod framebuffer rate=1000", "framebuffer: parameter rate=1000: expected a whole number from 1 to 240"],
  ])("%s: EINVAL, and the log says why", (command, line) => {
    const t = bootDrivers();
    expect(t.sh(command)).toBe(1);
    expect(t.log()).toContain(line);
    t.expectUnloaded();
  });
});

describe("the contiguous area", () => {
  it("CMA-3 insmod in memory full of processes: they are moved, the screen works, they keep their contents", () => {
    const t = bootDrivers({ cmdline: "quiet cma=8M", ramBytes: 32 * MIB }, { "/bin/keeper": keeper(1600, 120) });
    const pids = [1, 2].map(() => t.start("/bin/keeper"));
    t.kernel.run({ untilCycles: t.kernel.now() + 20_000_000 });
    const inArea = Number(/CmaFree: +(\d+)/.exec(t.kernel.readFile("/proc/meminfo") ?? "")?.[1]);
    expect(inArea).toBeLessThan(7000);
    expect(t.sh("insmod framebuffer && fbtest 1")).toBe(0);
    expect(t.log()).toContain("framebuffer fb0: 1024x768, 2 pictures, 6144 KiB at");
    expect(t.kernel.readFile("/sys/kernel/debug/cma/reserved/used")).toBe("1536\n");
    expect(t.kernel.readFile("/proc/vmstat")).toMatch(/^pgmigrate_success [1-9]\d{2,}$/m);
    expect(t.kernel.check()).toBeNull();
    t.kernel.run();
    expect(pids.map((pid) => t.kernel.exitStatus(pid))).toEqual([0, 0]);
    unload(t);
    expect(t.kernel.readFile("/sys/kernel/debug/cma/reserved/used")).toBe("0\n");
  });

  it("without an area there is no block above 4 MiB: ENOMEM, and a smaller screen works", () => {
    const t = bootDrivers();
    expect(t.sh("insmod framebuffer")).toBe(1);
    expect(t.log()).toContain("framebuffer fb0: no 6144 KiB in one piece");
    expect(t.log()).toContain(`framebuffer fb0: probe with driver framebuffer failed with error ${-ENOMEM}`);
    t.expectUnloaded();
    expect(t.sh("insmod framebuffer width=320 height=200; fbtest 2")).toBe(0);
    unload(t);
  });
});

describe("faults", () => {
  it("DRV-1 probe fails at step N for every N: nothing is left, and insmod works afterwards", () => {
    const t = bootDrivers({ cmdline: "quiet cma=4M" });
    t.kernel.drivers.failStep(0);
    t.sh("insmod framebuffer width=640 height=400; rmmod framebuffer");
    const nrSteps = t.kernel.drivers.nrSteps();
    expect(nrSteps).toBeGreaterThanOrEqual(4);
    for (let nth = 1; nth <= nrSteps; nth++) {
      t.kernel.drivers.failStep(nth);
      expect(t.sh("insmod framebuffer width=640 height=400"), `step ${nth}`).toBe(1);
      expect(t.log()).toContain(`probe with driver framebuffer failed with error ${-ENOMEM}`);
      t.expectUnloaded();
      expect(t.kernel.readFile("/sys/kernel/debug/cma/reserved/used")).toBe("0\n");
      expect(t.sh("insmod framebuffer width=640 height=400 && rmmod framebuffer"), `after step ${nth}`).toBe(0);
    }
    t.expectUnloaded();
  });

  it("lost_irq: the flip is noticed at the next frame and counted", () => {
    const t = bootDrivers({ devices: { fb0: { lost_irq: "#2" } } });
    expect(t.sh(`${SMALL}; fbtest 2`)).toBe(0);
    expect(t.stat("fb0", "lost")).toBe(1);
    unload(t);
  });

  it("late: the flip comes late, and is right", () => {
    const t = bootDrivers({ devices: { fb0: { late: "#2", late_cycles: 20_000_000 } } });
    expect(t.sh(`${SMALL}; fbtest 2`)).toBe(0);
    unload(t);
  });

  it("corrupt: fbtest says which picture, and ends with 1", () => {
    const t = bootDrivers({ devices: { fb0: { corrupt: 1 } } });
    expect(t.sh(`${SMALL}; fbtest 2`)).toBe(1);
    expect(t.output()).toMatch(
      /fbtest: \/dev\/fb0: picture 0: the display has shown [0-9a-f]{8}, drawn was [0-9a-f]{8}\n/,
    );
    unload(t);
  });

  it("never: a pan gives up after eight periods with EIO", () => {
    const t = bootDrivers({ devices: { fb0: { never: "#1" } } });
    expect(t.sh(`${SMALL}; fbtest 2`)).toBe(1);
    expect(t.output()).toContain("fbtest: /dev/fb0: picture 0: pan: Input/output error\n");
    expect(t.stat("fb0", "timeouts")).toBe(1);
    unload(t);
  });

  it("DRV-3 vanish: the program is told, remove and rescan bring the screen back", () => {
    const t = bootDrivers({ devices: { fb0: { vanish: "#2" } } });
    expect(t.sh(`${SMALL}; fbtest 2`)).toBe(1);
    expect(t.output()).toContain("picture 0: pan: No such device\n");
    expect(t.sh("fbtest 1")).toBe(1);
    expect(t.sh("echo 1 > /sys/devices/fb0/remove; echo 1 > /sys/bus/slab/rescan; fbtest 2")).toBe(0);
    unload(t);
  });

  it("DRV-5 hot-unplug while a program waits for its picture: ENODEV, nothing leaks", () => {
    const t = bootDrivers({ devices: { fb0: { late: 1, late_cycles: 50_000_000 } } });
    t.sh(SMALL);
    const pid = t.kernel.spawn("/bin/fbtest", ["fbtest", "50"]);
    t.kernel.run({ untilCycles: t.kernel.now() + 30_000_000 });
    expect(t.sh("echo 1 > /sys/devices/fb0/remove")).toBe(0);
    t.kernel.run();
    expect(t.kernel.exitStatus(pid)).toBe(1);
    expect(t.output()).toContain("No such device");
    expect(t.kernel.readFile("/sys/bus/slab/devices")).not.toContain("fb0");
    unload(t);
  });

  it("rmmod while the screen is open: EBUSY; a killed program leaves nothing behind", () => {
    const t = bootDrivers();
    t.sh(SMALL);
    const pid = t.kernel.spawn("/bin/fbtest", ["fbtest", "5000"]);
    t.kernel.run({ untilCycles: t.kernel.now() + 30_000_000 });
    expect(t.sh("rmmod framebuffer")).toBe(1);
    expect(t.sh(`kill -9 ${pid}`)).toBe(0);
    t.kernel.run();
    unload(t);
  });

  it("BUS-1 a controller that is told of more lines than there are: the bus refuses, the driver counts it", () => {
    const t = bootDrivers();
    t.sh(SMALL);
    const pid = t.kernel.spawn("/bin/fbtest", ["fbtest", "2"]);
    t.kernel.run({ untilCycles: t.kernel.now() + 3_000_000 });
    t.kernel.drivers.device("fb0")?.registers.st32(FB_HEIGHT, 4000);
    t.kernel.run();
    expect(t.kernel.exitStatus(pid)).toBe(1);
    expect(t.log()).toMatch(/DMA bus fault: fb0: read of 640 bytes at 0x[0-9a-f]{16} is outside what is mapped for it/);
    expect(t.stat("fb0", "bus_errors")).toBeGreaterThan(0);
    unload(t);
  });
});
