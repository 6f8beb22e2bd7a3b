/**
 * The serial port and its driver: bytes come back as they were sent, also when interrupts are lost or the port goes.
 */

import { describe, expect, it } from "vitest";
import type { DeviceSettings } from "../../drivers/index.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { bootDrivers, type DriverKernel } from "../support/driver_kernel.ts";

function* call(env: ProgramEnv, nr: number, ...args: number[]) {
  let result = env.syscall(nr, ...args);
  if (typeof result === "object") result = yield* result;
  return result;
}

function* openPort(env: ProgramEnv) {
  const memory = yield* call(env, sys.SYS_mmap, 0, 8192, 3, 0x22, -1, 0);
  env.mem.write(
    memory,
    Uint8Array.from("/dev/ttyS1\0", (c) => c.charCodeAt(0)),
  );
  return { memory, fd: yield* call(env, sys.SYS_openat, -100, memory, 2) };
}

/** Sends `nr` bytes in pieces of `piece` and reads each piece back: 0, 1 for a wrong byte, 2 for an error. */
const echo = (nr: number, piece: number): Program =>
  function* (env) {
    const { memory, fd } = yield* openPort(env);
    if (fd < 0) return 2;
    for (let sent = 0; sent < nr; sent += piece) {
      for (let i = 0; i < piece; i++) env.mem.st8(memory + i, (sent + i) & 0xff);
      if ((yield* call(env, sys.SYS_write, fd, memory, piece)) !== piece) return 2;
      for (let got = 0; got < piece; ) {
        const n = yield* call(env, sys.SYS_read, fd, memory + 4096, piece - got);
        if (n <= 0) return 2;
        for (let i = 0; i < n; i++) if (env.mem.ld8(memory + 4096 + i) !== ((sent + got + i) & 0xff)) return 1;
        got += n;
      }
    }
    return 0;
  };

const bootUart = (ttyS1: DeviceSettings, program: Program, nrCpus = 2): DriverKernel =>
  bootDrivers({ nrCpus, modules: ["uart"], devices: { ttyS1 } }, { "/bin/echo": program });

function finish(t: DriverKernel): void {
  expect(t.sh("rmmod uart")).toBe(0);
  t.expectUnloaded();
}

describe("/dev/ttyS1", () => {
  for (const nrCpus of [1, 4]) {
    it(`bytes come back as they were sent, at the speed of the line, ${nrCpus} CPU(s)`, () => {
      const t = bootUart({}, echo(600, 100), nrCpus);
      const start = t.kernel.now();
      expect(t.run("/bin/echo")).toBe(0);
      expect(t.kernel.now() - start).toBeGreaterThan(600 * (1e10 / 115_200));
      expect([t.stat("ttyS1", "tx_bytes"), t.stat("ttyS1", "rx_bytes")]).toEqual([600, 600]);
      finish(t);
    });
  }

  it("a write of more than the ring waits for the line", () => {
    const t = bootUart({ loopback: 0 }, function* (env) {
      const { memory, fd } = yield* openPort(env);
      return (yield* call(env, sys.SYS_write, fd, memory, 1000)) === 1000 ? 0 : 1;
    });
    expect(t.run("/bin/echo")).toBe(0);
    t.kernel.run();
    expect(t.stat("ttyS1", "tx_bytes")).toBe(1000);
    finish(t);
  });

  it("bytes that nobody fetches are lost and counted, the port goes on", () => {
    const t = bootUart({ baud: 4_000_000 }, function* (env) {
      const { memory, fd } = yield* openPort(env);
      if ((yield* call(env, sys.SYS_write, fd, memory, 600)) !== 600) return 1;
      yield* call(env, sys.SYS_nanosleep, 10_000_000);
      return (yield* call(env, sys.SYS_read, fd, memory, 600)) === 256 ? 0 : 2;
    });
    expect(t.run("/bin/echo")).toBe(0);
    expect(t.stat("ttyS1", "overruns")).toBe(600 - 256);
    finish(t);
  });

  it("lost_irq: the timer does the interrupt's work", () => {
    const t = bootUart({ lost_irq: 0.2 }, echo(300, 60));
    expect(t.run("/bin/echo")).toBe(0);
    expect(t.kernel.drivers.device("ttyS1")?.faults.nrStruck("lost_irq")).toBeGreaterThan(0);
    finish(t);
  });

  it("corrupt: the damaged byte arrives damaged", () => {
    const t = bootUart({ corrupt: "#5" }, echo(20, 10));
    expect(t.run("/bin/echo")).toBe(1);
    finish(t);
  });

  it("vanish, and hot-unplug under load: the program is told, nothing leaks", () => {
    const t = bootUart({ vanish: "#40" }, echo(100, 10));
    expect(t.run("/bin/echo")).toBe(2);
    expect(t.log()).toContain("uart ttyS1: device is gone");
    expect(t.sh("echo 1 > /sys/devices/ttyS1/remove && echo 1 > /sys/bus/slab/rescan")).toBe(0);
    const pid = t.start("/bin/echo");
    expect(t.sh("echo 1 > /sys/devices/ttyS1/remove")).toBe(0);
    t.kernel.run();
    expect(t.kernel.exitStatus(pid)).toBe(2);
    finish(t);
  });

  it("DRV-1 probe fails at step N for every N", () => {
    const t = bootDrivers();
    for (let nth = 1; nth <= 2; nth++) {
      t.kernel.drivers.failStep(nth);
      expect(t.sh("insmod uart")).toBe(1);
      t.expectUnloaded();
    }
    expect(t.sh("insmod uart && rmmod uart")).toBe(0);
    t.expectUnloaded();
  });
});
