/**
 * Stopping and continuing processes.
 *
 * Goal: JOB-1 … JOB-4, and the signal lines of /proc/PID/status. Method: a parent and a child that counts in shared
 * memory as long as it runs; a machine short of memory, in which a stopped process is swapped out, or killed.
 */

import { describe, expect, it } from "vitest";
import { PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import {
  MAP_ANONYMOUS,
  MAP_SHARED,
  SIGCHLD,
  SIGCONT,
  SIGKILL,
  WCONTINUED,
  WNOHANG,
  WUNTRACED,
} from "../../kernel/uapi/mman.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import {
  CLD_CONTINUED,
  CLD_KILLED,
  CLD_STOPPED,
  SA_NOCLDSTOP,
  SIG_BLOCK,
  SIG_IGN,
  SIG_UNBLOCK,
  SIGSTOP,
  SIGTSTP,
  SIGTTIN,
  SIGUSR1,
} from "../../kernel/uapi/signal.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { createLibc, type Libc } from "../../userland/libc.ts";
import { sigaction, siginfoOf, sigprocmask } from "../../userland/signals.ts";
import { bootKernel } from "../support/boot_kernel.ts";

const RW = 3;
const TICK = 1_000_000;
const stopped = (signal: number): number => (signal << 8) | 0x7f;
const CONTINUED = 0xffff;

interface Tools {
  readonly env: ProgramEnv;
  readonly libc: Libc;
  /** A page that the child shares: word 0 is its counter. */
  readonly page: number;
  readonly log: (...what: unknown[]) => void;
  /** Of a process: letter of its state, or a mask of its signals. */
  status(pid: number, row: string): string;
  /** pid and word of a wait4 with these options, or 0. */
  wait(options: number): Sleeping<readonly number[]>;
}

function play(main: (tools: Tools) => Sleeping<number>): unknown[] {
  const lines: unknown[] = [];
  const t = bootKernel({
    *"/bin/main"(env) {
      const libc = createLibc(env);
      const page = yield* libc.call(sys.SYS_mmap, 0, 4096, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
      return yield* main({
        ...{ env, libc, page, log: (...what) => void lines.push(what.length === 1 ? what[0] : what) },
        status: (pid, row) =>
          new RegExp(`^${row}:\\t(\\S+)`, "m").exec(t.kernel.readFile(`/proc/${pid}/status`) ?? "")?.[1] ?? "",
        *wait(options) {
          const pid = yield* libc.call(sys.SYS_wait4, -1, page + 2048, options);
          return pid > 0 ? [pid, env.mem.ld32(page + 2048)] : [pid];
        },
      });
    },
  });
  expect(t.run("/bin/main")).toBe(0);
  expect(t.kernel.nrReports()).toBe(0);
  t.expectNoLeak();
  return lines;
}

/** A child that counts, without a system call. */
const counting = (page: number, before: (env: ProgramEnv) => Sleeping<unknown> = function* () {}): Program =>
  function* (env) {
    yield* before(env);
    for (;;) {
      env.mem.st32(page, env.mem.ld32(page) + 1);
      if (env.timeIsUp()) yield PREEMPTED;
    }
  };

/** Does the counter move within a tick? */
function* moves({ env, libc, page }: Tools): Sleeping<boolean> {
  const before = env.mem.ld32(page);
  yield* libc.sleep(TICK);
  return env.mem.ld32(page) !== before;
}

describe("a stopped process", () => {
  it("JOB-1 JOB-3 JOB-4 executes nothing until SIGCONT; wait4 tells of either once; SIGKILL ends it", () => {
    const lines = play(function* (tools) {
      const { libc, log, status, wait, page } = tools;
      const pid = yield* libc.fork(counting(page));
      yield* libc.sleep(TICK);
      for (const signal of [SIGSTOP, SIGTSTP]) {
        yield* libc.kill(pid, signal);
        // Stopped already: nothing new.
        yield* libc.kill(pid, SIGTTIN);
        log(
          status(pid, "State"),
          (yield* wait(WUNTRACED)).slice(1),
          yield* wait(WUNTRACED | WNOHANG),
          yield* moves(tools),
        );
        yield* libc.kill(pid, SIGCONT);
        yield* libc.kill(pid, SIGCONT);
        log((yield* wait(WCONTINUED)).slice(1), yield* wait(WUNTRACED | WCONTINUED | WNOHANG), yield* moves(tools));
      }
      yield* libc.kill(pid, SIGSTOP);
      yield* libc.kill(pid, SIGKILL);
      log((yield* wait(0)).slice(1), yield* wait(0));
      return 0;
    });
    expect(lines).toEqual([
      ["T", [stopped(SIGSTOP)], [0], false],
      [[CONTINUED], [0], true],
      ["T", [stopped(SIGTSTP)], [0], false],
      [[CONTINUED], [0], true],
      [[SIGKILL], [-10]],
    ]);
  });

  it("JOB-1 stops by its own hand, before its first step, and behind the call in which it sleeps", () => {
    const lines = play(function* (tools) {
      const { env, libc, log, status, wait, page } = tools;
      const child: Program = function* (childEnv) {
        const own = createLibc(childEnv);
        env.mem.st32(page, 1);
        yield* own.kill(yield* own.call(sys.SYS_getpid), SIGSTOP);
        env.mem.st32(page, 2);
        yield* own.sleep(10 * TICK);
        env.mem.st32(page, 3);
        return 7;
      };
      const pid = yield* libc.fork(child);
      yield* libc.kill(pid, SIGSTOP);
      yield* libc.sleep(TICK);
      log(env.mem.ld32(page), status(pid, "State"));
      for (const wanted of [1, 2]) {
        yield* libc.kill(pid, SIGCONT);
        yield* libc.sleep(TICK);
        log(env.mem.ld32(page) === wanted, status(pid, "State"));
      }
      yield* libc.kill(pid, SIGSTOP);
      log(status(pid, "State"));
      yield* libc.sleep(20 * TICK);
      log(env.mem.ld32(page), status(pid, "State"));
      yield* libc.kill(pid, SIGCONT);
      log((yield* wait(0)).slice(1), env.mem.ld32(page));
      return 0;
    });
    expect(lines).toEqual([[0, "T"], [true, "T"], [true, "S"], "T", [2, "T"], [[7 << 8], 3]]);
  });

  it("JOB-2 SIGTSTP may be ignored, caught or blocked; SIGCONT takes away the stop that waits", () => {
    const lines = play(function* (tools) {
      const { env, libc, log, status, wait, page } = tools;
      const pid = yield* libc.fork(
        counting(page, function* (own) {
          yield* sigaction(own, page + 512, SIGTTIN, SIG_IGN);
          yield* sigaction(own, page + 512, SIGUSR1, function* (handler) {
            log("handler", siginfoOf(handler).signal);
            yield* sigprocmask(handler, page + 512, SIG_UNBLOCK, [SIGTSTP]);
            return 0;
          });
          yield* sigaction(own, page + 512, SIGCONT, function* () {
            log("continued");
            return 0;
          });
          yield* sigprocmask(own, page + 512, SIG_BLOCK, [SIGTSTP]);
          env.mem.st32(page + 4, 1);
        }),
      );
      while (env.mem.ld32(page + 4) === 0) yield* libc.sleep(TICK);
      const rows = (): string[] => ["SigQ", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"].map((row) => status(pid, row));
      for (const signal of [SIGTTIN, SIGTSTP]) yield* libc.kill(pid, signal);
      log(
        rows().map((row) => row.replace(/^0+(?=.)|\/.*/g, "")),
        yield* moves(tools),
      );
      yield* libc.kill(pid, SIGCONT);
      log(yield* moves(tools), status(pid, "ShdPnd"));
      yield* libc.kill(pid, SIGTSTP);
      yield* libc.kill(pid, SIGSTOP);
      // The handler runs when the process runs; it unblocks SIGTSTP, which SIGCONT has taken away.
      yield* libc.kill(pid, SIGUSR1);
      log(yield* moves(tools), status(pid, "State"));
      yield* libc.kill(pid, SIGCONT);
      log(yield* moves(tools), status(pid, "State"));
      yield* libc.kill(pid, SIGKILL);
      log((yield* wait(0)).slice(1));
      return 0;
    });
    const bit = (...signals: number[]): string => signals.reduce((sum, nr) => sum + 2 ** (nr - 1), 0).toString(16);
    expect(lines).toEqual([
      [["1", bit(SIGTSTP), bit(SIGTSTP), bit(SIGTTIN), bit(SIGUSR1, SIGCONT)], true],
      "continued",
      [true, "0".repeat(16)],
      [false, "T"],
      ["handler", SIGUSR1],
      "continued",
      [true, "R"],
      [SIGKILL],
    ]);
  });

  it("JOB-4 SIGCHLD tells the parent, but with SA_NOCLDSTOP only of the end", () => {
    for (const [flags, wanted] of [
      [0, [CLD_STOPPED, SIGSTOP, CLD_CONTINUED, SIGCONT, CLD_KILLED, SIGKILL]],
      [SA_NOCLDSTOP, [CLD_KILLED, SIGKILL]],
    ] as const) {
      const lines = play(function* ({ env, libc, log, page }) {
        yield* sigaction(
          env,
          page + 512,
          SIGCHLD,
          function* (handler) {
            const { code, status } = siginfoOf(handler);
            log(code);
            log(status);
            return 0;
          },
          flags,
        );
        const pid = yield* libc.fork(counting(page));
        for (const signal of [SIGSTOP, SIGCONT, SIGKILL]) {
          yield* libc.kill(pid, signal);
          yield* libc.sleep(TICK);
          yield* libc.sleep(TICK);
        }
        yield* libc.wait(pid, 0);
        return 0;
      });
      expect(lines).toEqual(wanted);
    }
  });
});

describe("memory of a stopped process", () => {
  const boot = (cmdline: string) =>
    bootKernel(Object.fromEntries(builtinPrograms()), {
      cmdline: `quiet ${cmdline}`,
      ramBytes: 16 * 2 ** 20,
      port: "raw",
    });

  it("JOB-3 goes to swap, and is as it was when it goes on", () => {
    const t = boot("swap=16M");
    const script =
      "memhog 8M --hold 300000000 & sleep 0.2; kill -STOP $!; memhog 9M > /tmp/out; cat /proc/$!/status; kill -CONT $!; wait";
    expect(t.run("/bin/sh", "-c", script)).toBe(0);
    expect(t.output()).toContain("State:\tT (stopped)");
    expect(Number(/VmSwap:\s+(\d+)/.exec(t.output())?.[1])).toBeGreaterThan(1000);
    expect(t.output()).toMatch(/memhog: 2048 pages verified, 0 wrong/);
    expect(t.kernel.check()).toBeNull();
  });

  it("JOB-3 is the OOM killer's when it is the largest: the process ends, stopped or not", () => {
    const t = boot("");
    const script = "memhog 8M --hold 300000000 & sleep 0.2; kill -STOP $!; memhog 7M";
    expect(t.run("/bin/sh", "-c", script)).toBe(0);
    expect(
      t.kernel.printk
        .records()
        .map(({ text }) => text)
        .join("\n"),
    ).toMatch(/Out of memory: Killed process \d+ \(memhog\)/);
    expect(t.output()).toMatch(/memhog: 1792 pages verified, 0 wrong/);
    t.kernel.removeFiles();
    t.expectNoLeak();
  });
});
