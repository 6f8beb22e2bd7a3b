/**
 * Goal: a CPU leaves a running system and comes back (HP-1 … HP-3, SCH-6): nothing is lost, nothing stays behind.
 * Method: whole kernels with programs at work; a program switches CPUs off and on by the files of /sys, and after each
 * step the invariants are walked.
 */
import { describe, expect, it } from "vitest";
import type { Kernel } from "../../kernel/entry/kernel.ts";
import { PREEMPTED } from "../../kernel/types.ts";
import { EBUSY, EINVAL } from "../../kernel/uapi/errno.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel, type TestKernel } from "../support/boot_kernel.ts";

const CPU_DIR = "/sys/devices/system/cpu";

function* call(env: ProgramEnv, nr: number, ...args: number[]) {
  let result = env.syscall(nr, ...args);
  if (typeof result === "object") result = yield* result;
  return result;
}

/** Writes `text` to the file at `path`; what write() answered. Uses 4 KiB of fresh memory. */
function* writeFile(env: ProgramEnv, path: string, text: string) {
  const page = yield* call(env, sys.SYS_mmap, 0, 4096, 3, 0x22, -1, 0);
  const bytes = (s: string): Uint8Array => Uint8Array.from(`${s}\0`, (c) => c.charCodeAt(0));
  env.mem.write(page, bytes(path));
  env.mem.write(page + 1024, bytes(text));
  const fd = yield* call(env, sys.SYS_openat, 0, page, 1);
  if (fd < 0) return fd;
  const result = yield* call(env, sys.SYS_write, fd, page + 1024, text.length);
  yield* call(env, sys.SYS_close, fd);
  return result;
}

/** Adds up its own stores over and over: the exit status tells whether all were there. */
const worker: Program = function* (env) {
  const p = yield* call(env, sys.SYS_mmap, 0, 16 * 4096, 3, 0x22, -1, 0);
  for (let round = 0; round < 60; round++) {
    for (let i = 0; i < 16; i++) env.mem.st32(p + i * 4096, round * 16 + i);
    for (let i = 0; i < 16; i++) if (env.mem.ld32(p + i * 4096) !== round * 16 + i) return 1;
    if (round % 10 === 3) yield* call(env, sys.SYS_nanosleep, 30_000);
    if (env.timeIsUp()) yield PREEMPTED;
  }
  return 0;
};

const log = (kernel: Kernel): string =>
  kernel.printk
    .records()
    .map((record) => record.text)
    .join("\n");

/** Runs the shell with a script to its end. */
function sh(t: TestKernel, script: string): number | undefined {
  const pid = t.kernel.spawn("/bin/sh", ["sh", "-c", script]);
  t.kernel.run({ untilCycles: 20_000_000_000, shouldStop: () => t.kernel.exitStatus(pid) !== undefined });
  return t.kernel.exitStatus(pid);
}

describe("CPU hot-plug from the shell", () => {
  it("HP-1 echo 0 and echo 1 into cpu1/online", () => {
    const t = bootKernel(Object.fromEntries(builtinPrograms()), { cmdline: "quiet" });
    expect(sh(t, `echo 0 > ${CPU_DIR}/cpu1/online; cat ${CPU_DIR}/online ${CPU_DIR}/offline /proc/interrupts`)).toBe(0);
    expect(t.output()).toContain("0\n1\n");
    expect(t.output()).toContain("           CPU0       \n");
    expect(log(t.kernel)).toContain("smpboot: CPU 1 is now offline");
    expect(t.kernel.check()).toBeNull();
    expect(sh(t, `echo 1 > ${CPU_DIR}/cpu1/online; cat ${CPU_DIR}/online ${CPU_DIR}/cpu1/online`)).toBe(0);
    expect(t.output()).toContain("0-1\n1\n");
    expect(log(t.kernel)).toContain("smpboot: Booting Node 0 Processor 1 APIC 0x1");
    expect(t.kernel.readFile("/proc/stat")).toContain("cpu1 ");
    expect(t.kernel.check()).toBeNull();
  });

  it("CPU 0 says EBUSY, nonsense says EINVAL, and nothing happens", () => {
    const answers: number[] = [];
    const t = bootKernel({
      *"/bin/try"(env) {
        answers.push(yield* writeFile(env, `${CPU_DIR}/cpu0/online`, "0\n"));
        for (const word of ["2", "", "x", "-1"])
          answers.push(yield* writeFile(env, `${CPU_DIR}/cpu1/online`, `${word}\n`));
        answers.push(yield* writeFile(env, `${CPU_DIR}/cpu1/online`, "1\n"));
        return 0;
      },
    });
    expect(t.run("/bin/try")).toBe(0);
    expect(answers).toEqual([-EBUSY, -EINVAL, -EINVAL, -EINVAL, -EINVAL, 2]);
    expect(t.kernel.readFile(`${CPU_DIR}/online`)).toBe("0-1\n");
    t.expectNoLeak();
  });
});

describe("CPU hot-plug under load", () => {
  it("HP-1 SCH-6 programs go on while CPUs come and go; per-CPU pages are drained; same seed, same bytes", () => {
    const play = (seed: string) => {
      const problems: (string | null)[] = [];
      let t: TestKernel | undefined;
      const switcher: Program = function* (env) {
        for (let round = 0; round < 12; round++) {
          const cpu = 1 + (round % 3);
          if ((yield* writeFile(env, `${CPU_DIR}/cpu${cpu}/online`, "0\n")) !== 2) return 1;
          const { harts } = (t as TestKernel).kernel.machine;
          if (harts.online[cpu] !== 0 || harts.pending[cpu] !== 0) return 2;
          problems.push((t as TestKernel).kernel.check());
          yield* call(env, sys.SYS_nanosleep, 200_000);
          const clock = harts.clock[cpu];
          yield* call(env, sys.SYS_nanosleep, 400_000);
          if (harts.clock[cpu] !== clock) return 3;
          if ((yield* writeFile(env, `${CPU_DIR}/cpu${cpu}/online`, "1\n")) !== 2) return 4;
          problems.push((t as TestKernel).kernel.check());
        }
        return 0;
      };
      t = bootKernel({ "/bin/worker": worker, "/bin/switcher": switcher }, { nrCpus: 4, seed });
      const pids = Array.from({ length: 9 }, () => (t as TestKernel).kernel.spawn("/bin/worker", ["worker"]));
      pids.push(t.kernel.spawn("/bin/switcher", ["switcher"]));
      t.kernel.run();
      expect(pids.map((pid) => (t as TestKernel).kernel.exitStatus(pid))).toEqual(pids.map(() => 0));
      expect(problems.filter((problem) => problem !== null)).toEqual([]);
      t.expectNoLeak();
      return t;
    };
    const once = play("a");
    const again = play("a");
    expect(Buffer.compare(once.kernel.save().ram, again.kernel.save().ram)).toBe(0);
    expect(once.kernel.now()).toBe(again.kernel.now());
  });
});
