/**
 * Processes, memory and system calls, end to end inside the kernel.
 *
 * Goal: MMAP-1 … MMAP-4, PRC-1 … PRC-3, SYS-1 … SYS-3, SCH-*, and nothing leaked after each program. Method: small
 * programs on a booted kernel with BoundsPort; random system calls with random arguments.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PREEMPTED } from "../../kernel/types.ts";
import { EFAULT, EINVAL, ENAMETOOLONG, ENOENT, ENOMEM } from "../../kernel/uapi/errno.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { createLibc } from "../../userland/libc.ts";
import { bootKernel } from "../support/boot_kernel.ts";

/** A system call slept through. */
function* call(env: ProgramEnv, nr: number, ...args: number[]) {
  let result = env.syscall(nr, ...args);
  if (typeof result === "object") result = yield* result;
  return result;
}

const RW = 3;
const PRIVATE_ANON = 0x22;

describe("memory of a process", () => {
  it("MMAP-3 fresh memory reads as zero, even when another process wrote to the same frames", () => {
    const writer: Program = function* (env) {
      const p = yield* call(env, sys.SYS_mmap, 0, 1 << 20, RW, PRIVATE_ANON, -1, 0);
      env.mem.fill(p, 0xa5, 1 << 20);
      return 0;
    };
    const reader: Program = function* (env) {
      const p = yield* call(env, sys.SYS_mmap, 0, 1 << 20, RW, PRIVATE_ANON, -1, 0);
      return env.mem.read(p, 1 << 20).every((byte) => byte === 0) ? 0 : 1;
    };
    const t = bootKernel({ "/bin/writer": writer, "/bin/reader": reader });
    expect(t.run("/bin/writer")).toBe(0);
    expect(t.run("/bin/reader")).toBe(0);
    t.expectNoLeak();
  });

  it("munmap in the middle splits a mapping; the hole faults, the rest keeps its content", () => {
    const t = bootKernel({
      *"/bin/hole"(env) {
        const p = yield* call(env, sys.SYS_mmap, 0, 8 * 4096, RW, PRIVATE_ANON, -1, 0);
        for (let i = 0; i < 8; i++) env.mem.st32(p + i * 4096, i + 1);
        if ((yield* call(env, sys.SYS_munmap, p + 3 * 4096, 2 * 4096)) !== 0) return 1;
        if (env.mem.ld32(p + 2 * 4096) !== 3 || env.mem.ld32(p + 5 * 4096) !== 6) return 2;
        env.mem.ld32(p + 3 * 4096);
        return 3;
      },
    });
    expect(t.run("/bin/hole")).toBe(128 + 11);
    expect(t.kernel.printk.records().some((r) => r.text.startsWith("hole[1]: segfault at "))).toBe(true);
    t.expectNoLeak();
  });

  it("mprotect takes rights away and gives them back", () => {
    const t = bootKernel({
      *"/bin/protect"(env) {
        const p = yield* call(env, sys.SYS_mmap, 0, 4096, RW, PRIVATE_ANON, -1, 0);
        env.mem.st32(p, 7);
        yield* call(env, sys.SYS_mprotect, p, 4096, 1);
        if (env.mem.ld32(p) !== 7) return 1;
        yield* call(env, sys.SYS_mprotect, p, 4096, RW);
        env.mem.st32(p, 8);
        yield* call(env, sys.SYS_mprotect, p, 4096, 0);
        env.mem.st32(p, 9);
        return 0;
      },
    });
    expect(t.run("/bin/protect")).toBe(128 + 11);
    t.expectNoLeak();
  });

  it("a promise that memory could not keep is refused with ENOMEM, and nothing is lost", () => {
    const t = bootKernel(
      {
        *"/bin/greedy"(env) {
          if ((yield* call(env, sys.SYS_mmap, 0, 2 ** 34, RW, PRIVATE_ANON, -1, 0)) !== -ENOMEM) return 1;
          const start = yield* call(env, sys.SYS_brk, 0);
          let end = start;
          for (;;) {
            const next = yield* call(env, sys.SYS_brk, end + 2 ** 20);
            if (next === end) break;
            env.mem.fill(end, 1, 2 ** 20);
            end = next;
          }
          return end - start > 12 * 2 ** 20 ? 0 : 2;
        },
      },
      { cmdline: "quiet sysctl.vm.overcommit_memory=2" },
    );
    expect(t.run("/bin/greedy")).toBe(0);
    t.expectNoLeak();
  });
});

describe("a second init", () => {
  // Found while fuzzing: it was immune to SIGKILL, and its end was a panic.
  it("is an ordinary process when a program starts it", () => {
    const t = bootKernel({
      *"/sbin/init"(env) {
        for (let i = 0; i < 9; i++) yield* call(env, sys.SYS_nanosleep, 1_000_000);
        return 0;
      },
      *"/bin/starter"(env) {
        const libc = createLibc(env);
        const pid = yield* libc.spawn("/sbin/init", ["init"]);
        yield* libc.kill(pid, 9);
        return (yield* libc.wait(pid)).status;
      },
    });
    expect(t.run("/bin/starter")).toBe(128 + 9);
    expect(t.kernel.panicReport).toBeNull();
    t.expectNoLeak();
  });
});

describe("threads and children", () => {
  it("threads share memory, have their own ids, and are joined", () => {
    const t = bootKernel({
      *"/bin/threads"(env) {
        const p = yield* call(env, sys.SYS_mmap, 0, 4096, RW, PRIVATE_ANON, -1, 0);
        const entry = env.entryOf(function* (child) {
          const tid = yield* call(child, sys.SYS_gettid);
          child.mem.st32(p + tid * 4, tid);
          yield PREEMPTED;
          return tid;
        });
        let sum = 0;
        const tids: number[] = [];
        for (let i = 0; i < 10; i++) tids.push(yield* call(env, sys.SYS_clone, 0, 0, entry, 0));
        for (const tid of tids) {
          if ((yield* call(env, sys.SYS_thread_join, tid)) !== tid) return 1;
          sum += env.mem.ld32(p + tid * 4) - tid;
        }
        return sum;
      },
    });
    expect(t.run("/bin/threads")).toBe(0);
    t.expectNoLeak();
  });

  it("a thread's argument leaves the arguments of its process alone (overwrote their strings)", () => {
    const t = bootKernel({
      *"/bin/threads"(env) {
        const libc = createLibc(env);
        const seen: number[] = [];
        const thread: Program = function* (own) {
          seen.push(own.argc, own.argv);
          yield* call(own, sys.SYS_gettid);
          return 0;
        };
        for (const arg of [7, 2 ** 40 + 1, -1]) yield* libc.joinThread(yield* libc.startThread(thread, arg));
        yield* libc.print(`${libc.args().join("|")} ${seen.join(" ")}\n`);
        return 0;
      },
    });
    expect(t.run("/bin/threads", "first", "second")).toBe(0);
    expect(t.output()).toBe(`/bin/threads|first|second 0 7 0 ${2 ** 40 + 1} 0 -1\n`);
    t.expectNoLeak();
  });

  it("a fatal signal ends sleeping threads, too", () => {
    const t = bootKernel({
      *"/bin/victim"(env) {
        const entry = env.entryOf(function* (child) {
          yield* call(child, sys.SYS_nanosleep, 1e12);
          return 0;
        });
        yield* call(env, sys.SYS_clone, 0, 0, entry, 0);
        yield* call(env, sys.SYS_nanosleep, 1000);
        env.mem.ld8(1);
        return 0;
      },
    });
    expect(t.run("/bin/victim")).toBe(128 + 11);
    t.expectNoLeak();
  });
});

describe("SYS-1 no argument makes the kernel oops", () => {
  const argument = fc.oneof(
    fc.constantFrom(
      0,
      1,
      -1,
      4095,
      4096,
      0x1000_0000,
      0x7_f000_0000,
      0x8_0000_0000,
      2 ** 53,
      Number.NaN,
      0.5,
      -(2 ** 31),
    ),
    fc.integer({ min: -100, max: 100_000 }),
    fc.double(),
  );
  const numbers = Object.entries(sys)
    .filter(([name]) => name.startsWith("SYS_") && !/reboot|exit|kill|nanosleep|futex|await|read$|getdents/.test(name))
    .map(([, nr]) => nr as number);

  it("random calls with random arguments give errno or a result", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom(...numbers, 9999), fc.array(argument, { minLength: 6, maxLength: 6 })), {
          maxLength: 60,
        }),
        (calls) => {
          const t = bootKernel({
            *"/bin/fuzz"(env) {
              for (const [nr, args] of calls) {
                const result = yield* call(env, nr, ...args);
                if (!Number.isFinite(result)) return 1;
              }
              return 0;
            },
          });
          const status = t.run("/bin/fuzz");
          expect(t.kernel.nrReports()).toBe(0);
          expect([0, 128 + 9]).toContain(status);
          t.expectNoLeak();
        },
      ),
      { numRuns: 40 },
    );
  });

  it("a path without an end is too long, not a bad pointer (was EFAULT)", () => {
    const t = bootKernel({
      *"/bin/long"(env) {
        const path = yield* call(env, sys.SYS_mmap, 0, 4096, RW, PRIVATE_ANON, -1, 0);
        env.mem.fill(path, 0x78, 256);
        if ((yield* call(env, sys.SYS_openat, 0, path, 0)) !== -ENAMETOOLONG) return 1;
        if ((yield* call(env, sys.SYS_unlink, path)) !== -ENAMETOOLONG) return 2;
        if ((yield* call(env, sys.SYS_spawn, path, 0, 0, path)) !== -ENAMETOOLONG) return 3;
        env.mem.st8(path + 255, 0);
        return (yield* call(env, sys.SYS_openat, 0, path, 0)) === -ENOENT ? 0 : 4;
      },
    });
    expect(t.run("/bin/long")).toBe(0);
    t.expectNoLeak();
  });

  it("SYS-2 a read into a bad buffer takes nothing out of a text, a file or a pipe (was lost)", () => {
    const t = bootKernel({
      *"/bin/read"(env) {
        const p = yield* call(env, sys.SYS_mmap, 0, 4096, RW, PRIVATE_ANON, -1, 0);
        const open = function* (path: string, flags: number) {
          env.mem.write(p, new TextEncoder().encode(`${path}\0`));
          return yield* call(env, sys.SYS_openat, 0, p, flags);
        };
        yield* call(env, sys.SYS_pipe2, p, 0);
        const [readEnd, writeEnd] = [env.mem.ld32(p), env.mem.ld32(p + 4)];
        const text = yield* open("/proc/cmdline", 0);
        const file = yield* open("/tmp/f", 0o102);
        for (const fd of [writeEnd, file]) if ((yield* call(env, sys.SYS_write, fd, p, 5)) !== 5) return 1;
        yield* call(env, sys.SYS_lseek, file, 0, 0);
        for (const fd of [text, file, readEnd]) {
          if ((yield* call(env, sys.SYS_read, fd, 0xdead_beef, 5)) !== -EFAULT) return 2;
          if ((yield* call(env, sys.SYS_read, fd, p + 100, 5)) !== 5) return 3;
          if (fd !== text && env.mem.ld32(p + 100) !== env.mem.ld32(p)) return 4;
        }
        return 0;
      },
    });
    expect(t.run("/bin/read")).toBe(0);
  });

  it("bad pointers are EFAULT, misaligned ranges EINVAL", () => {
    const t = bootKernel({
      *"/bin/bad"(env) {
        if ((yield* call(env, sys.SYS_write, 1, 0xdead_beef, 10)) !== -EFAULT) return 1;
        if ((yield* call(env, sys.SYS_openat, 0, 0xdead_beef, 0)) !== -EFAULT) return 2;
        if ((yield* call(env, sys.SYS_munmap, 123, 4096)) !== -EINVAL) return 3;
        if ((yield* call(env, sys.SYS_mmap, 0, 4096, 99, PRIVATE_ANON)) !== -EINVAL) return 4;
        return 0;
      },
    });
    expect(t.run("/bin/bad")).toBe(0);
    t.expectNoLeak();
  });
});

describe("FIL-3 a file lives as long as a call on it sleeps", () => {
  // Regression: random system calls (SY3-168) never came back. The page of a pipe was freed under its sleeping reader.
  it("the pipe of a reader whose ends another thread closes", () => {
    const nrPages: number[] = [];
    const t = bootKernel({
      *"/bin/closer"(env) {
        const libc = createLibc(env);
        const count = (): number =>
          nrPages.push(Number(/^nr_file_pages (\d+)$/m.exec(t.kernel.readFile("/proc/vmstat") ?? "")?.[1]));
        const p = yield* call(env, sys.SYS_mmap, 0, 4096, RW, PRIVATE_ANON, -1, 0);
        yield* call(env, sys.SYS_pipe2, p);
        const [readEnd, writeEnd] = [env.mem.ld32(p), env.mem.ld32(p + 4)];
        const reader = yield* libc.startThread(function* (self) {
          return yield* call(self, sys.SYS_read, readEnd, p + 64, 8);
        });
        yield* libc.sleep(1_000_000);
        yield* call(env, sys.SYS_close, readEnd);
        yield* call(env, sys.SYS_close, writeEnd);
        // The reader is awake, and has not looked yet.
        count();
        const got = yield* libc.joinThread(reader);
        count();
        return got;
      },
    });
    expect(t.run("/bin/closer")).toBe(0);
    expect(nrPages).toEqual([1, 0]);
    t.expectNoLeak();
  });

  it("the eventcount of a waiter", () => {
    const t = bootKernel({
      *"/bin/closer"(env) {
        const libc = createLibc(env);
        const first = yield* call(env, sys.SYS_eventcount);
        const waiter = yield* libc.startThread(function* (self) {
          return (yield* call(self, sys.SYS_eventcount_await, first, 1, 5_000_000)) < 0 ? 7 : 8;
        });
        yield* libc.sleep(1_000_000);
        yield* call(env, sys.SYS_close, first);
        // In the same place, if that was free.
        const second = yield* call(env, sys.SYS_eventcount);
        const other = yield* libc.startThread(function* (self) {
          return (yield* call(self, sys.SYS_eventcount_await, second, 1, 0)) === 0 ? 9 : 10;
        });
        if ((yield* libc.joinThread(waiter)) !== 7) return 1;
        yield* call(env, sys.SYS_eventcount_advance, second, 1);
        return (yield* libc.joinThread(other)) === 9 ? 0 : 2;
      },
    });
    expect(t.run("/bin/closer")).toBe(0);
    t.expectNoLeak();
  });
});

describe("determinism", () => {
  const busy: Program = function* (env) {
    let state = 1;
    for (let i = 0; i < 300; i++) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      const p = yield* call(env, sys.SYS_mmap, 0, 4096 * (1 + (state % 9)), RW, PRIVATE_ANON, -1, 0);
      env.mem.st32(p, state);
      if (state % 3 !== 0) yield* call(env, sys.SYS_munmap, p, 4096);
      if (env.timeIsUp()) yield PREEMPTED;
    }
    return 0;
  };
  /** FNV-1a over all of RAM, and the clocks. */
  const fingerprint = (seed: string): string => {
    const t = bootKernel({ "/bin/busy": busy }, { seed, nrCpus: 3 });
    for (let i = 0; i < 4; i++) t.kernel.spawn("/bin/busy", ["busy"]);
    t.kernel.run();
    const { ram } = t.kernel.save();
    let hash = 0x811c_9dc5;
    for (const byte of ram) hash = Math.imul(hash ^ byte, 0x0100_0193);
    return `${hash >>> 0} ${t.kernel.now()} ${t.kernel.readFile("/proc/slabinfo")}`;
  };
  it("the same seed gives the same RAM, time and files, byte for byte", () => {
    expect(fingerprint("a")).toBe(fingerprint("a"));
  });
});

describe("save and restore", () => {
  it("a machine saved between two programs and restored continues with the same bytes", () => {
    const work: Program = function* (env) {
      for (let i = 0; i < 40; i++) {
        const p = yield* call(env, sys.SYS_mmap, 0, 4096 * (i + 1), RW, PRIVATE_ANON, -1, 0);
        env.mem.fill(p, i, 4096 * (i + 1));
        if (i % 2 === 0) yield* call(env, sys.SYS_munmap, p, 4096);
      }
      return 0;
    };
    const t = bootKernel({ "/bin/work": work });
    expect(t.run("/bin/work")).toBe(0);
    const middle = t.kernel.save();
    const churn = (): string => {
      const m = t.kernel.machine;
      const before = m.harts.clock.join();
      expect(t.kernel.check()).toBeNull();
      return `${before} ${t.kernel.readFile("/proc/buddyinfo")} ${t.kernel.readFile("/proc/slabinfo")}`;
    };
    const first = churn();
    expect(t.run("/bin/work")).toBe(0);
    t.kernel.machine.restore(middle);
    expect(churn()).toBe(first);
    t.expectNoLeak();
  });
});

describe("contexts", () => {
  it("a sleeping call that was not iterated is reported: forgotten yield*", () => {
    const t = bootKernel({
      *"/bin/forgetful"(env) {
        env.syscall(sys.SYS_nanosleep, 1000);
        yield PREEMPTED;
        return 0;
      },
    });
    expect(t.run("/bin/forgetful")).toBe(0);
    const log = t.kernel.printk.records().map((record) => record.text);
    expect(log).toContain("BUG: 1 sleeping call(s) of forgetful never begun: forgotten yield*");
    expect(t.kernel.nrReports()).toBe(1);
  });

  it("C3 giving up the CPU with preemption off is `scheduling while atomic`, and the count is put right", () => {
    const t = bootKernel({
      *"/bin/atomic"() {
        t.kernel.contexts.preemptDisable(t.kernel.contexts.taskContext(0));
        yield PREEMPTED;
        return 0;
      },
    });
    expect(t.run("/bin/atomic")).toBe(0);
    const log = t.kernel.printk.records().map((record) => record.text);
    expect(log).toContain("BUG: scheduling while atomic: atomic/1/0x00000001");
    t.expectNoLeak();
  });

  it("IRQ-1 the timer's handler runs in hardirq context and the count is back afterwards", () => {
    const seen: boolean[] = [];
    const t = bootKernel({
      *"/bin/spin"(env) {
        const p = yield* call(env, sys.SYS_mmap, 0, 4096, RW, PRIVATE_ANON, -1, 0);
        for (let i = 0; i < 200; i++) {
          env.mem.fill(p, 1, 4096);
          env.mem.fill(p, 2, 4096);
          for (let k = 0; k < 40; k++) env.mem.read(p, 4096);
          seen.push(t.kernel.contexts.inTask(t.kernel.contexts.taskContext(0)));
          if (env.timeIsUp()) yield PREEMPTED;
        }
        return 0;
      },
    });
    expect(t.run("/bin/spin")).toBe(0);
    expect(seen.every((inTask) => inTask)).toBe(true);
    expect(Number(/timer/.exec(t.kernel.readFile("/proc/interrupts") ?? "")?.length ?? 0)).toBe(1);
    t.expectNoLeak();
  });
});

describe("scheduling", () => {
  it("SYS_sched_setscheduler: FIFO tasks go first, by priority; bad policies are EINVAL", () => {
    const order: string[] = [];
    const t = bootKernel(
      {
        *"/bin/boss"(env) {
          const pid = yield* call(env, sys.SYS_getpid);
          if ((yield* call(env, sys.SYS_sched_setscheduler, pid, 7, 1)) !== -EINVAL) return 1;
          if ((yield* call(env, sys.SYS_sched_setscheduler, pid, 1, 50)) !== 0) return 2;
          for (let i = 0; i < 4; i++) {
            order.push("boss");
            yield* call(env, sys.SYS_sched_yield);
          }
          return 0;
        },
        *"/bin/worker"(env) {
          for (let i = 0; i < 4; i++) {
            order.push("worker");
            yield* call(env, sys.SYS_sched_yield);
          }
          return 0;
        },
      },
      { nrCpus: 1 },
    );
    const boss = t.kernel.spawn("/bin/boss", ["boss"]);
    t.kernel.spawn("/bin/worker", ["worker"]);
    t.kernel.run();
    expect(t.kernel.exitStatus(boss)).toBe(0);
    const firstBoss = order.indexOf("boss");
    expect(order.slice(firstBoss, firstBoss + 4)).toEqual(["boss", "boss", "boss", "boss"]);
    t.expectNoLeak();
  });
});
