/**
 * Signals with handlers, as a C programmer knows them.
 *
 * Goal: SIG-1 … SIG-7. Method: small programs on a booted kernel that signal themselves, each other, and fault; each
 * writes down what happened in the order in which it did. Nothing may be left, and the kernel reports nothing.
 */

import { describe, expect, it } from "vitest";
import { PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { ECHILD, EFAULT, EINTR, EINVAL, ENOMEM, ESRCH } from "../../kernel/uapi/errno.ts";
import { SIGBUS, SIGCHLD, SIGKILL, SIGSEGV, SIGTERM } from "../../kernel/uapi/mman.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import {
  CLD_EXITED,
  SA_NODEFER,
  SA_ONSTACK,
  SA_RESETHAND,
  SA_RESTART,
  SEGV_ACCERR,
  SEGV_MAPERR,
  SI_USER,
  SIG_BLOCK,
  SIG_DFL,
  SIG_IGN,
  SIG_SETMASK,
  SIG_UNBLOCK,
  SIGUSR1,
  SIGUSR2,
} from "../../kernel/uapi/signal.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { createLibc } from "../../userland/libc.ts";
import { sigaction, siginfoOf, sigprocmask, sigsuspend } from "../../userland/signals.ts";
import { bootKernel } from "../support/boot_kernel.ts";

/** What a test program has at hand. */
interface Tools {
  readonly env: ProgramEnv;
  readonly libc: ReturnType<typeof createLibc>;
  /** A page of memory; its first half is for structures. */
  readonly page: number;
  readonly log: (what: string) => void;
}

/** Runs the program, which must end with `status`, and gives what it wrote down. */
function play(main: (tools: Tools) => Sleeping<number>, status = 0, others: Record<string, Program> = {}): string[] {
  const lines: string[] = [];
  const t = bootKernel({
    ...others,
    *"/bin/main"(env) {
      const libc = createLibc(env);
      const page = yield* libc.call(sys.SYS_mmap, 0, 4096, 3, 0x22, -1, 0);
      return yield* main({ env, libc, page, log: (what) => void lines.push(what) });
    },
  });
  expect(t.run("/bin/main")).toBe(status);
  expect(t.kernel.nrReports()).toBe(0);
  t.expectNoLeak();
  return lines;
}

const logging = (log: Tools["log"], name = "handler"): Program =>
  function* (env) {
    const { signal, code, pid } = siginfoOf(env);
    log(`${name} ${env.argc} ${signal} ${code} ${pid}`);
    return 0;
  };

describe("a signal with a handler", () => {
  it("runs it before kill() comes back, with number and siginfo, and the program goes on", () => {
    const lines = play(function* ({ env, libc, page, log }) {
      yield* sigaction(env, page, SIGUSR1, logging(log));
      const pid = yield* libc.getpid();
      log(`${yield* libc.kill(pid, SIGUSR1)}`);
      log("on");
      return 0;
    });
    expect(lines).toEqual([`handler ${SIGUSR1} ${SIGUSR1} ${SI_USER} 1`, "0", "on"]);
  });

  it("SIG-2 SIG-3 waits while it is blocked, once, and the lowest number goes first", () => {
    const lines = play(function* ({ env, libc, page, log }) {
      for (const signal of [SIGUSR2, SIGUSR1]) yield* sigaction(env, page, signal, logging(log));
      yield* sigprocmask(env, page, SIG_BLOCK, [SIGUSR1, SIGUSR2, SIGKILL]);
      const pid = yield* libc.getpid();
      for (const signal of [SIGUSR2, SIGUSR1, SIGUSR1]) yield* libc.kill(pid, signal);
      yield* libc.call(sys.SYS_rt_sigpending, page, 8);
      log(env.mem.ld32(page).toString(16));
      yield* sigprocmask(env, page, SIG_UNBLOCK, [SIGUSR1, SIGUSR2]);
      log("on");
      return 0;
    });
    expect(lines).toEqual(["a00", `handler 10 10 0 1`, `handler 12 12 0 1`, "on"]);
  });

  it("SIG-3 blocks itself and sa_mask while it runs, but for SA_NODEFER; SA_RESETHAND is for once", () => {
    const lines = play(function* ({ env, libc, page, log }) {
      const pid = yield* libc.getpid();
      let nr = 0;
      const again: Program = function* (own) {
        const mine = ++nr;
        log(`in ${mine}`);
        if (mine === 1 || mine === 3) yield* createLibc(own).kill(pid, SIGUSR1);
        if (mine === 1) yield* createLibc(own).kill(pid, SIGUSR2);
        log(`out ${mine}`);
        return 0;
      };
      yield* sigaction(
        env,
        page,
        SIGUSR2,
        logging(() => log("two")),
      );
      yield* sigaction(env, page, SIGUSR1, again, 0, [SIGUSR2]);
      yield* libc.kill(pid, SIGUSR1);
      log("--");
      yield* sigaction(env, page, SIGUSR1, again, SA_NODEFER);
      yield* libc.kill(pid, SIGUSR1);
      log("--");
      yield* sigaction(env, page, SIGUSR1, again, SA_RESETHAND);
      yield* libc.kill(pid, SIGUSR1);
      yield* libc.kill(pid, SIGUSR1);
      return 0;
    }, 128 + SIGUSR1);
    const nested = ["--", "in 3", "in 4", "out 4", "out 3"];
    expect(lines).toEqual(["in 1", "out 1", "in 2", "out 2", "two", ...nested, "--", "in 5", "out 5"]);
  });

  it("comes to a program that computes, when it has its CPU again", () => {
    const lines = play(function* ({ env, libc, page, log }) {
      let isOver = false;
      yield* sigaction(env, page, SIGUSR1, function* (own) {
        log("handler");
        yield* createLibc(own).sleep(1000);
        isOver = true;
        return 0;
      });
      const pid = yield* libc.getpid();
      yield* libc.fork(function* (child) {
        const own = createLibc(child);
        yield* own.sleep(1_000_000);
        return -(yield* own.kill(pid, SIGUSR1));
      });
      while (!isOver) {
        env.mem.fill(page + 2048, 1, 1024);
        if (env.timeIsUp()) yield PREEMPTED;
      }
      return (yield* libc.wait(-1)).status;
    });
    expect(lines).toEqual(["handler"]);
  });

  it("SIG-1 SIGKILL has none; SIG_IGN and SIG_DFL, and what is no signal", () => {
    play(function* ({ env, libc, page }) {
      expect(yield* sigaction(env, page, SIGKILL, SIG_IGN)).toBe(-EINVAL);
      expect(yield* sigaction(env, page, 65, SIG_IGN)).toBe(-EINVAL);
      expect(yield* libc.call(sys.SYS_rt_sigaction, SIGUSR1, 8, 0, 8)).toBe(-EFAULT);
      expect(yield* libc.call(sys.SYS_rt_sigaction, SIGUSR1, 0, 8, 8)).toBe(-EFAULT);
      expect(yield* libc.call(sys.SYS_rt_sigaction, SIGUSR1, page, 0, 4)).toBe(-EINVAL);
      expect(yield* libc.call(sys.SYS_rt_sigprocmask, 7, page, 0, 8)).toBe(-EINVAL);
      const [pid, tid] = [yield* libc.getpid(), yield* libc.call(sys.SYS_gettid)];
      expect(yield* libc.call(sys.SYS_tgkill, pid, tid + 50, SIGUSR1)).toBe(-ESRCH);
      yield* sigaction(env, page, SIGTERM, SIG_IGN);
      expect(yield* libc.call(sys.SYS_tgkill, pid, tid, SIGTERM)).toBe(0);
      yield* sigaction(env, page, SIGTERM, SIG_DFL);
      yield* libc.kill(pid, SIGTERM);
      return 0;
    }, 128 + SIGTERM);
  });
});

// Regression: who had sent himself a signal without a handler went on to the next sleep, and slept for ever.
it("SIG-8 a signal to oneself that kills does so before the call comes back", () => {
  const lines = play(function* ({ libc, log }) {
    yield* libc.kill(yield* libc.getpid(), 34);
    log("still here");
    yield* libc.sleep(1e12);
    return 0;
  }, 128 + 34);
  expect(lines).toEqual([]);
});

describe("a call that sleeps", () => {
  /** Sends SIGUSR1 to the program after a while. */
  const sendLater = function* ({ libc }: Tools): Sleeping<number> {
    const pid = yield* libc.getpid();
    return yield* libc.fork(function* (child) {
      const own = createLibc(child);
      yield* own.sleep(5_000_000);
      yield* own.kill(pid, SIGUSR1);
      yield* own.sleep(20_000_000);
      return 7;
    });
  };

  it("is ended by a handler, −EINTR, or goes on behind it with SA_RESTART, as the call is", () => {
    const lines = play(function* (tools) {
      const { env, libc, page, log } = tools;
      yield* sigaction(
        env,
        page,
        SIGUSR1,
        logging(() => log("handler")),
      );
      yield* sendLater(tools);
      log(`sleep ${yield* libc.call(sys.SYS_nanosleep, 1e12)}`);
      log(`wait ${(yield* libc.wait(-1)).status}`);
      yield* sigaction(
        env,
        page,
        SIGUSR1,
        logging(() => log("handler")),
        SA_RESTART,
      );
      yield* sendLater(tools);
      log(`wait ${(yield* libc.wait(-1)).status}`);
      yield* sendLater(tools);
      log(`sleep ${yield* libc.call(sys.SYS_nanosleep, 1e12)}`);
      yield* libc.wait(-1);
      yield* sigaction(
        env,
        page,
        SIGUSR1,
        logging(() => log("handler")),
      );
      yield* sendLater(tools);
      const pipe = yield* libc.pipe();
      if (typeof pipe === "number") return 1;
      log(`read ${yield* libc.call(sys.SYS_read, pipe[0], page + 1024, 10)}`);
      return 0;
    });
    const eintr = -EINTR;
    expect(lines).toEqual([
      ...["handler", `sleep ${eintr}`, "wait 7", "handler", "wait 7", "handler", `sleep ${eintr}`],
      ...["handler", `read ${eintr}`],
    ]);
  });

  it("sigsuspend waits with another mask, and the old one is back behind it", () => {
    const lines = play(function* (tools) {
      const { env, libc, page, log } = tools;
      yield* sigaction(
        env,
        page,
        SIGUSR1,
        logging(() => log("handler")),
      );
      yield* sigprocmask(env, page, SIG_SETMASK, [SIGUSR1]);
      yield* sendLater(tools);
      yield* libc.sleep(10_000_000);
      log(`suspend ${yield* sigsuspend(env, page, [])}`);
      yield* libc.kill(yield* libc.getpid(), SIGUSR1);
      log("blocked");
      yield* libc.wait(-1);
      return 0;
    });
    expect(lines).toEqual(["handler", `suspend ${-EINTR}`, "blocked"]);
  });

  it("SIG-7 SIGCHLD tells which child ended and how; a wait finds it all the same; ignored: no zombies", () => {
    const lines = play(function* ({ env, libc, page, log }) {
      const child: Program = function* (own) {
        yield* createLibc(own).sleep(1_000_000);
        return 3;
      };
      yield* sigaction(env, page, SIGCHLD, function* (own) {
        const { code, status } = siginfoOf(own);
        log(`child ${code === CLD_EXITED} ${status}`);
        return 0;
      });
      const pid = yield* libc.fork(child);
      const waited = yield* libc.wait(-1);
      log(`wait ${waited.pid === pid} ${waited.status}`);
      yield* sigaction(env, page, SIGCHLD, SIG_IGN);
      yield* libc.fork(child);
      return (yield* libc.wait(-1)).pid === -ECHILD ? 0 : 1;
    });
    expect(lines).toEqual(["child true 3", "wait true 3"]);
  });
});

describe("a fault with a handler", () => {
  it("tells the address and why, and the access is tried again", () => {
    const lines = play(function* ({ env, libc, page, log }) {
      const hole = yield* libc.call(sys.SYS_mmap, 0, 8192, 0, 0x22, -1, 0);
      yield* sigaction(env, page, SIGSEGV, function* (own) {
        const { addr, code } = siginfoOf(own);
        log(`${addr - hole} ${code === SEGV_ACCERR ? "ACCERR" : code === SEGV_MAPERR ? "MAPERR" : code}`);
        const at = Math.floor(addr / 4096) * 4096;
        own.syscall(sys.SYS_mmap, at, 4096, 3, 0x32, -1, 0);
        own.mem.st32(addr, 77);
        return 0;
      });
      expect(env.mem.ld32(hole + 12)).toBe(77);
      yield* libc.call(sys.SYS_munmap, hole + 4096, 4096);
      env.mem.st32(hole + 4100, 5);
      expect(env.mem.ld32(hole + 4100)).toBe(5);
      // The kernel's own copies have no handler: they fail.
      yield* libc.call(sys.SYS_munmap, hole, 4096);
      expect(yield* libc.call(sys.SYS_uname, hole)).toBe(-EFAULT);
      return 0;
    });
    expect(lines).toEqual(["12 ACCERR", "4100 MAPERR"]);
  });

  it("SIG-4 kills when the handler does not mend it, when it is blocked, and when the handler itself faults", () => {
    let nr = 0;
    play(function* ({ env, page }) {
      yield* sigaction(env, page, SIGSEGV, function* () {
        nr++;
        return 0;
      });
      return env.mem.ld32(64);
    }, 128 + SIGSEGV);
    expect(nr).toBe(16);
    play(function* ({ env, page }) {
      yield* sigaction(
        env,
        page,
        SIGSEGV,
        logging(() => {}),
      );
      yield* sigprocmask(env, page, SIG_BLOCK, [SIGSEGV]);
      return env.mem.ld32(64);
    }, 128 + SIGSEGV);
    for (const flags of [0, SA_NODEFER]) {
      play(function* ({ env, page }) {
        yield* sigaction(env, page, SIGSEGV, (own) => own.mem.ld32(32) as never, flags);
        return env.mem.ld32(64);
      }, 128 + SIGSEGV);
    }
  });

  it("may leave by throwing to the program, as siglongjmp does: mask and stack are as before", () => {
    const lines = play(function* ({ env, page, log }) {
      class Jump {}
      yield* sigaction(env, page, SIGSEGV, function* () {
        throw new Jump();
      });
      for (let i = 0; i < 40; i++) {
        try {
          env.mem.ld32(64);
        } catch (error) {
          if (!(error instanceof Jump)) throw error;
        }
      }
      log("here");
      return 0;
    });
    expect(lines).toEqual(["here"]);
  });

  it("SIG-5 runs on the alternate stack, and without room for a frame it kills", () => {
    play(function* ({ env, libc, page }) {
      const stack = yield* libc.call(sys.SYS_mmap, 0, 8192, 3, 0x22, -1, 0);
      env.mem.st32(page + 64, stack);
      env.mem.st32(page + 68, Math.floor(stack / 2 ** 32));
      env.mem.st32(page + 80, 8192);
      expect(yield* libc.call(sys.SYS_sigaltstack, page + 64, 0)).toBe(0);
      let frame = 0;
      yield* sigaction(
        env,
        page,
        SIGUSR1,
        function* (own) {
          frame = own.argv;
          return 0;
        },
        SA_ONSTACK,
      );
      yield* libc.kill(yield* libc.getpid(), SIGUSR1);
      expect(frame).toBeGreaterThan(stack);
      expect(frame).toBeLessThan(stack + 8192);
      env.mem.st32(page + 80, 100);
      expect(yield* libc.call(sys.SYS_sigaltstack, page + 64, 0)).toBe(-ENOMEM);
      yield* libc.call(sys.SYS_munmap, stack, 8192);
      yield* libc.kill(yield* libc.getpid(), SIGUSR1);
      return 0;
    }, 128 + SIGSEGV);
  });

  it("SIG-5 a frame that was written over kills; so does rt_sigreturn by anybody", () => {
    play(function* ({ env, libc, page }) {
      yield* sigaction(env, page, SIGUSR1, function* (own) {
        own.mem.fill(own.argv, 0xff, 144);
        return 0;
      });
      yield* libc.kill(yield* libc.getpid(), SIGUSR1);
      return 0;
    }, 128 + SIGSEGV);
    play(({ libc }) => libc.call(sys.SYS_rt_sigreturn), 128 + SIGSEGV);
  });

  it("a call that would sleep in it ends with −EINTR", () => {
    const lines = play(function* ({ env, page, log }) {
      yield* sigaction(env, page, SIGSEGV, function* (own) {
        log(`${yield* createLibc(own).call(sys.SYS_nanosleep, 1e9)}`);
        return yield* sigaction(own, page, SIGSEGV, SIG_DFL);
      });
      return env.mem.ld32(64);
    }, 128 + SIGSEGV);
    expect(lines).toEqual([String(-EINTR)]);
  });
});

describe("handlers and processes", () => {
  it("SIG-6 fork hands them on, execve keeps what is ignored", () => {
    const lines = play(
      function* ({ env, libc, page, log }) {
        yield* sigaction(
          env,
          page,
          SIGUSR1,
          logging(() => log("handler")),
        );
        yield* sigaction(env, page, SIGTERM, SIG_IGN);
        yield* libc.fork(function* (child) {
          const own = createLibc(child);
          yield* own.kill(yield* own.getpid(), SIGUSR1);
          yield* own.execve("/bin/next", ["next"]);
          return 1;
        });
        return (yield* libc.wait(-1)).status === 128 + SIGUSR1 ? 0 : 1;
      },
      0,
      {
        *"/bin/next"(env) {
          const libc = createLibc(env);
          const pid = yield* libc.getpid();
          yield* libc.kill(pid, SIGTERM);
          yield* libc.kill(pid, SIGUSR1);
          return 0;
        },
      },
    );
    expect(lines).toEqual(["handler"]);
  });

  it("a thread that does not block it takes a signal of the process; tgkill is for one", () => {
    const lines = play(function* ({ env, libc, page, log }) {
      const names = new Map<number, string>([[yield* libc.call(sys.SYS_gettid), "first"]]);
      for (const signal of [SIGUSR1, SIGUSR2]) {
        yield* sigaction(env, page, signal, function* (own) {
          log(`${names.get(yield* createLibc(own).call(sys.SYS_gettid))} ${own.argc}`);
          return 0;
        });
      }
      const second = yield* libc.startThread(function* (own) {
        names.set(yield* createLibc(own).call(sys.SYS_gettid), "second");
        yield* createLibc(own).call(sys.SYS_nanosleep, 1e9);
        yield* createLibc(own).call(sys.SYS_nanosleep, 1e9);
        return 0;
      });
      yield* libc.sleep(1_000_000);
      yield* sigprocmask(env, page, SIG_BLOCK, [SIGUSR1]);
      const pid = yield* libc.getpid();
      yield* libc.kill(pid, SIGUSR1);
      yield* libc.sleep(1_000_000);
      yield* libc.call(sys.SYS_tgkill, pid, second, SIGUSR2);
      yield* libc.call(sys.SYS_thread_join, second);
      return 0;
    });
    expect(lines).toEqual(["second 10", "second 12"]);
  });

  it("userpager: each page is brought by the handler, once; SIGBUS has handlers as well", () => {
    const t = bootKernel({
      ...Object.fromEntries(builtinPrograms()),
      *"/bin/beyond"(env) {
        const libc = createLibc(env);
        const page = yield* libc.call(sys.SYS_mmap, 0, 4096, 3, 0x22, -1, 0);
        yield* libc.writeFile("/tmp/short", "x");
        const fd = yield* libc.open("/tmp/short");
        const map = yield* libc.call(sys.SYS_mmap, 0, 8192, 1, 2, fd, 0);
        yield* sigaction(env, page, SIGBUS, function* (own) {
          own.syscall(sys.SYS_mmap, map + 4096, 4096, 3, 0x32, -1, 0);
          return 0;
        });
        return env.mem.ld32(map + 4096);
      },
    });
    expect(t.run("/bin/userpager", "200")).toBe(0);
    expect(t.output()).toMatch(/200 pages, 200 faults served by the handler, \d+ cycles each, 0 wrong/);
    expect(t.run("/bin/beyond")).toBe(0);
    t.kernel.removeFiles();
    t.expectNoLeak();
  });
});
