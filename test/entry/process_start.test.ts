/**
 * Beginning processes and programs: execve, vfork, limits, eventcounts, signals that do nothing.
 *
 * Goal: PRC-4 … PRC-8, RLM-1, RLM-2, EVC-1, EVC-2, and nothing leaked. Method: small programs on a booted kernel; every
 * case again with each allocation failing once.
 */

import { describe, expect, it } from "vitest";
import { PREEMPTED } from "../../kernel/types.ts";
import { E2BIG, EACCES, EAGAIN, EBADF, EINVAL, ENOENT, ESRCH, ETIMEDOUT } from "../../kernel/uapi/errno.ts";
import { SIGCHLD, WNOHANG } from "../../kernel/uapi/mman.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { RLIM_INFINITY, RLIMIT_NPROC, RLIMIT_STACK } from "../../kernel/uapi/resource.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { createLibc } from "../../userland/libc.ts";
import { bootKernel } from "../support/boot_kernel.ts";
import { bootDrivers } from "../support/driver_kernel.ts";

/** Runs `programs["/bin/main"]`, which must end with `status`, and looks for leaks. */
function run(programs: Readonly<Record<string, Program>>, status = 0, nrCpus = 2) {
  const t = bootKernel(programs, { nrCpus });
  expect(t.run("/bin/main")).toBe(status);
  expect(t.kernel.nrReports()).toBe(0);
  t.expectNoLeak();
  return t;
}

const echo: Program = function* (env) {
  const libc = createLibc(env);
  yield* libc.print(`${libc.args().join("|")}\n`);
  return 5;
};

describe("execve", () => {
  it("PRC-6 replaces the program, keeps pid, files and parent, and gives the old memory back", () => {
    const t = run({
      "/bin/echo": function* (env) {
        const libc = createLibc(env);
        yield* libc.print(`${libc.args().join("|")} ${yield* libc.call(sys.SYS_getpid)}\n`);
        return 5;
      },
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const pid = yield* libc.spawn("/bin/become", ["become"]);
        return (yield* libc.wait(pid)).status === 5 && pid === 2 ? 0 : 1;
      },
      *"/bin/become"(env) {
        const libc = createLibc(env);
        const p = yield* libc.call(sys.SYS_mmap, 0, 1 << 20, 3, 0x22, -1, 0);
        env.mem.fill(p, 1, 1 << 20);
        return yield* libc.execve("/bin/echo", ["echo", "a b", ""]);
      },
    });
    expect(t.output()).toBe("echo|a b| 2\n");
  });

  it("PRC-5 what cannot be executed changes nothing", () => {
    run({
      "/bin/echo": echo,
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const p = yield* libc.call(sys.SYS_mmap, 0, 4096, 3, 0x22, -1, 0);
        env.mem.st32(p, 77);
        if ((yield* libc.execve("/bin/none", ["none"])) !== -ENOENT) return 1;
        if ((yield* libc.call(sys.SYS_execve, p, 0xdead_0000, 1)) !== -ENOENT && env.mem.ld32(p) !== 77) return 2;
        const huge = Array.from({ length: 10 }, () => "x".repeat(8000));
        if ((yield* libc.execve("/bin/echo", huge)) !== -E2BIG) return 3;
        return env.mem.ld32(p) === 77 ? 0 : 4;
      },
    });
  });

  // It was for the first thread only, with −EINVAL for others.
  it("PRC-6 from another thread: the first one ends, and its pid is the caller's", () => {
    const t = run({
      *"/bin/whoami"(env) {
        const libc = createLibc(env);
        const [pid, tid] = [yield* libc.getpid(), yield* libc.call(sys.SYS_gettid)];
        yield* libc.print(`pid ${pid} tid ${tid}\n`);
        const child = yield* libc.spawn("/bin/echo", ["echo", "child"]);
        return (yield* libc.wait(child)).status;
      },
      "/bin/echo": echo,
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const pid = yield* libc.spawn("/bin/many", ["many"]);
        if ((yield* libc.wait(pid)).status !== 5 || pid !== 2) return 1;
        // A zombie hears a signal and is dead all the same; who is not there is not.
        const dead = yield* libc.spawn("/bin/echo", ["echo"]);
        yield* libc.sleep(10_000_000);
        if ((yield* libc.kill(dead, 9)) !== 0 || (yield* libc.wait(dead)).status !== 5) return 2;
        return (yield* libc.kill(dead, 9)) === -ESRCH ? 0 : 3;
      },
      *"/bin/many"(env) {
        const libc = createLibc(env);
        const caller: Program = function* (thread) {
          return yield* createLibc(thread).execve("/bin/whoami", ["whoami"]);
        };
        const sleeper: Program = function* (thread) {
          yield* createLibc(thread).sleep(1e12);
          return 0;
        };
        yield* libc.startThread(sleeper);
        yield* libc.startThread(caller);
        yield* libc.sleep(1e12);
        return 1;
      },
    });
    expect(t.output()).toContain("pid 2 tid 2\n");
  });

  it("PRC-6 ends the other threads, also one that sleeps", () => {
    run(
      {
        "/bin/echo": echo,
        *"/bin/main"(env) {
          const libc = createLibc(env);
          const other: Program = function* (thread) {
            const own = createLibc(thread);
            yield* own.sleep(1e12);
            return 0;
          };
          const spinner: Program = function* () {
            for (;;) yield PREEMPTED;
          };
          yield* libc.startThread(other);
          yield* libc.startThread(spinner);
          yield* libc.sleep(100_000);
          yield* libc.execve("/bin/echo", ["echo", "alone"]);
          return 1;
        },
      },
      5,
    );
  });
});

describe("vfork", () => {
  it("PRC-7 the child runs in the parent's memory, and the parent waits for its end", () => {
    run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const p = yield* libc.call(sys.SYS_mmap, 0, 4096, 3, 0x22, -1, 0);
        const pid = yield* libc.vfork(function* (child) {
          child.mem.st32(p, 1);
          yield* createLibc(child).sleep(1_000_000);
          child.mem.st32(p, 2);
          return 9;
        });
        if (pid <= 0 || env.mem.ld32(p) !== 2) return 1;
        return (yield* libc.wait(pid)).status === 9 ? 0 : 2;
      },
    });
  });

  it("PRC-7 … or until it has become another program, which has memory of its own", () => {
    const t = run({
      *"/bin/slow"(env) {
        const libc = createLibc(env);
        yield* libc.sleep(50_000_000);
        yield* libc.print("slow\n");
        return 3;
      },
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const pid = yield* libc.vfork(function* (child) {
          yield* createLibc(child).execve("/bin/slow", ["slow"]);
          return 127;
        });
        yield* libc.print("back\n");
        if ((yield* libc.wait(pid, WNOHANG)).pid !== 0) return 1;
        return (yield* libc.wait(-1)).status === 3 ? 0 : 2;
      },
    });
    expect(t.output()).toBe("back\nslow\n");
  });

  it("a signal ends a vforked child, and the parent goes on; also the other way round", () => {
    run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const pid = yield* libc.vfork(function* (child) {
          child.mem.ld8(1);
          yield PREEMPTED;
          return 0;
        });
        if ((yield* libc.wait(pid)).status !== 128 + 11) return 1;
        const parent = yield* libc.spawn("/bin/parent", ["parent"]);
        yield* libc.sleep(1_000_000);
        yield* libc.kill(parent, 9);
        return (yield* libc.wait(parent)).status === 128 + 9 ? 0 : 2;
      },
      *"/bin/parent"(env) {
        yield* createLibc(env).vfork(function* (child) {
          yield* createLibc(child).sleep(10_000_000);
          child.mem.st8(child.argv, 1);
          return 0;
        });
        return 0;
      },
    });
  });

  it("an entry that is no text address is refused", () => {
    run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        for (const nr of [sys.SYS_vfork, sys.SYS_fork]) if ((yield* libc.call(nr, 12345)) !== -ESRCH) return 1;
        return 0;
      },
    });
  });
});

describe("limits", () => {
  it("RLM-1, RLM-2 are read, set, checked and inherited", () => {
    run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const stack = yield* libc.prlimit(RLIMIT_STACK);
        if (typeof stack === "number" || stack.soft !== 8 * 2 ** 20 || stack.hard !== RLIM_INFINITY) return 1;
        if ((yield* libc.prlimit(RLIMIT_STACK, { soft: 2, hard: 1 })) !== -EINVAL) return 2;
        if ((yield* libc.prlimit(99)) !== -EINVAL) return 3;
        yield* libc.prlimit(RLIMIT_STACK, { soft: 4096, hard: 8192 });
        const pid = yield* libc.spawn("/bin/child", ["child"]);
        if ((yield* libc.wait(pid)).status !== 0) return 4;
        const after = yield* libc.prlimit(RLIMIT_STACK);
        return typeof after !== "number" && after.soft === 4096 && after.hard === 8192 ? 0 : 5;
      },
      *"/bin/child"(env) {
        const libc = createLibc(env);
        const got = yield* libc.prlimit(RLIMIT_STACK, { soft: 1, hard: RLIM_INFINITY });
        return typeof got !== "number" && got.soft === 4096 ? 0 : 1;
      },
    });
  });

  it("PRC-8 RLIMIT_NPROC stops spawn, vfork and threads with EAGAIN", () => {
    run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        yield* libc.prlimit(RLIMIT_NPROC, { soft: 2, hard: 2 });
        const sleeper: Program = function* (child) {
          yield* createLibc(child).sleep(1_000_000);
          return 0;
        };
        const first = yield* libc.startThread(sleeper);
        if (first <= 0) return 1;
        if ((yield* libc.startThread(sleeper)) !== -EAGAIN) return 2;
        if ((yield* libc.vfork(sleeper)) !== -EAGAIN) return 3;
        if ((yield* libc.spawn("/bin/main", ["main"])) !== -EAGAIN) return 4;
        yield* libc.joinThread(first);
        return (yield* libc.startThread(sleeper)) > 0 ? 0 : 5;
      },
    });
  });
});

describe("signals", () => {
  it("SIGCHLD does nothing to who has no handler (killed)", () => {
    run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        yield* libc.kill(yield* libc.getpid(), SIGCHLD);
        yield* libc.sleep(1000);
        return 0;
      },
    });
  });
});

describe("eventcounts", () => {
  it("EVC-1 put the steps of processes into one order, over vfork and execve", () => {
    const t = run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const fd = yield* libc.call(sys.SYS_eventcount);
        const pid = yield* libc.vfork(function* (child) {
          yield* createLibc(child).execve("/bin/odd", ["odd", String(fd)]);
          return 1;
        });
        for (let step = 0; step < 10; step += 2) {
          yield* libc.call(sys.SYS_eventcount_await, fd, step, 0);
          yield* libc.print(`${step} `);
          yield* libc.call(sys.SYS_eventcount_advance, fd, step + 1);
        }
        return (yield* libc.wait(pid)).status;
      },
      *"/bin/odd"(env) {
        const libc = createLibc(env);
        const fd = Number(libc.args()[1]);
        for (let step = 1; step < 10; step += 2) {
          yield* libc.call(sys.SYS_eventcount_await, fd, step, 0);
          yield* libc.print(`${step} `);
          yield* libc.call(sys.SYS_eventcount_advance, fd, step + 1);
        }
        return 0;
      },
    });
    expect(t.output()).toBe("0 1 2 3 4 5 6 7 8 9 ");
  });

  it("EVC-1 the count never falls, time runs out, other files are refused", () => {
    run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const fd = yield* libc.call(sys.SYS_eventcount);
        yield* libc.call(sys.SYS_eventcount_advance, fd, 7);
        yield* libc.call(sys.SYS_eventcount_advance, fd, 3);
        if ((yield* libc.call(sys.SYS_eventcount_await, fd, 7, 0)) !== 0) return 1;
        const before = env.now();
        if ((yield* libc.call(sys.SYS_eventcount_await, fd, 8, 5_000_000)) !== -ETIMEDOUT) return 2;
        if (env.now() - before < 5_000_000) return 3;
        if ((yield* libc.call(sys.SYS_eventcount_await, fd, 8, -1)) !== -EINVAL) return 4;
        for (const other of [1, 63, -1]) {
          if ((yield* libc.call(sys.SYS_eventcount_advance, other, 1)) !== -EBADF) return 5;
          if ((yield* libc.call(sys.SYS_eventcount_await, other, 0, 0)) !== -EBADF) return 6;
        }
        return (yield* libc.read(fd, 8)) === -EINVAL ? 0 : 7;
      },
    });
  });
});

describe("PRC-4, PRC-5 with each allocation failing once", () => {
  /** Starts children in every way, goes on without those that could not be started. */
  const family: Readonly<Record<string, Program>> = {
    "/bin/echo": echo,
    *"/bin/main"(env) {
      const libc = createLibc(env);
      const becomes: Program = function* (child) {
        const own = createLibc(child);
        yield* own.call(sys.SYS_execve, child.mem.ld32(child.argv), child.argv, 1);
        return 6;
      };
      yield* libc.spawn("/bin/echo", ["echo", "x"]);
      yield* libc.vfork(becomes);
      yield* libc.fork(function* (child) {
        child.mem.st32(child.argv, 1);
        return yield* createLibc(child).execve("/bin/echo", ["echo", "z"]);
      });
      yield* libc.call(sys.SYS_eventcount);
      for (;;) {
        const { pid } = yield* libc.wait(-1);
        if (pid <= 0) break;
      }
      return yield* libc.execve("/bin/echo", ["echo", "y"]);
    },
  };
  it("no leak, no oops, no hang", () => {
    let nrRefused = 0;
    for (let nth = 1; nth < 200; nth++) {
      const t = bootKernel(family, { cmdline: `quiet fail_nth=${nth}` });
      const pid = t.kernel.spawn("/bin/main", ["/bin/main"]);
      t.kernel.run();
      if (pid > 0) expect([nth, typeof t.kernel.exitStatus(pid)]).toEqual([nth, "number"]);
      expect([nth, t.kernel.nrReports()]).toEqual([nth, 0]);
      t.expectNoLeak();
      if (t.kernel.faultStats()?.nrForced === 0) break;
      nrRefused++;
    }
    expect(nrRefused).toBeGreaterThan(20);
  });
});

describe("files of a process", () => {
  it("oom_score_adj is read, written, checked, inherited; oom_adj is its old scale", () => {
    const t = run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const file = `/proc/${yield* libc.getpid()}/oom_score_adj`;
        const old = file.replace("score_", "");
        if ((yield* libc.writeFile(file, "-500\n")) !== 5) return 1;
        if ((yield* libc.readFile(old)) !== "-8\n") return 2;
        for (const bad of ["1001", "-1001", "x", "", "0.5"]) {
          if (bad !== "" && (yield* libc.writeFile(file, bad)) !== -EINVAL) return 3;
        }
        if ((yield* libc.writeFile(old, "15")) !== 2 || (yield* libc.readFile(file)) !== "1000\n") return 4;
        const score = file.replace("_adj", "");
        if (Number(yield* libc.readFile(score)) < 1200) return 5;
        if ((yield* libc.writeFile(score, "1")) !== -EACCES) return 6;
        const pid = yield* libc.fork(function* (child) {
          const own = createLibc(child);
          yield* own.print((yield* own.readFile(`/proc/${yield* own.getpid()}/oom_score_adj`)) as string);
          return 0;
        });
        return (yield* libc.wait(pid)).status;
      },
    });
    expect(t.output()).toBe("1000\n");
  });

  it("/proc/self is the directory of whoever opens it", () => {
    run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const pid = yield* libc.getpid();
        const self = (file: string): string => `/proc/self/${file}`;
        if (!((yield* libc.readFile(self("status"))) as string).includes(`\nPid:\t${pid}\n`)) return 1;
        if ((yield* libc.readFile(self("maps"))) !== (yield* libc.readFile(`/proc/${pid}/maps`))) return 2;
        if ((yield* libc.writeFile(self("oom_score_adj"), "7")) !== 1) return 3;
        if ((yield* libc.readFile("/proc/selfish/maps")) !== -ENOENT) return 4;
        const child = yield* libc.fork(function* (own) {
          const theirs = createLibc(own);
          const status = (yield* theirs.readFile("//proc/./self/status")) as string;
          return status.includes(`\nPid:\t${yield* theirs.getpid()}\n`) ? 0 : 1;
        });
        if ((yield* libc.wait(child)).status !== 0) return 5;
        const names = ((yield* libc.readFile("/proc")) as string).split("\0");
        return names.includes("self") && ((yield* libc.readFile("/proc/self")) as string).includes("smaps\0") ? 0 : 6;
      },
    });
  });

  it("maps and smaps name files, with offset and inode; deleted files and shared memory as Linux does", () => {
    run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        yield* libc.writeFile("/tmp/data", "x".repeat(3 * 4096));
        const fd = yield* libc.open("/tmp/data", 0);
        const at = yield* libc.call(sys.SYS_mmap, 0, 4096, 1, 2, fd, 8192);
        const shared = yield* libc.call(sys.SYS_mmap, 0, 4096, 3, 0x21, -1, 0);
        const lineOf = function* (file: string, start: number) {
          const text = (yield* libc.readFile(`/proc/self/${file}`)) as string;
          return text.split("\n").find((line) => line.startsWith(`${start.toString(16).padStart(8, "0")}-`)) ?? "";
        };
        const line = yield* lineOf("maps", at);
        if (!/ r--p 00002000 00:02 [1-9]\d* +\/tmp\/data$/.test(line)) return 1;
        if (line.indexOf("/tmp") !== 73 || (yield* lineOf("smaps", at)) !== line) return 2;
        if (!/ rw-s 00000000 00:01 [1-9]\d* +\/dev\/zero \(deleted\)$/.test(yield* lineOf("maps", shared))) return 3;
        yield* libc.unlink("/tmp/data");
        return (yield* lineOf("maps", at)) === `${line} (deleted)` ? 0 : 4;
      },
    });
  });

  it("SwapPss shares a page in swap among those that have it (was all of it)", () => {
    const programs: Record<string, Program> = {
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const bytes = 40 << 20;
        const p = yield* libc.call(sys.SYS_mmap, 0, bytes, 3, 0x22, -1, 0);
        for (let at = 0; at < bytes; at += 4096) {
          env.mem.st32(p + at, at + 1);
          if (env.timeIsUp()) yield PREEMPTED;
        }
        const report = function* (own: typeof libc) {
          const text = (yield* own.readFile("/proc/self/smaps_rollup")) as string;
          const kib = (name: string): number => Number(new RegExp(`^${name}: +(\\d+)`, "m").exec(text)?.[1]);
          yield* own.print(`${kib("Swap")} ${kib("SwapPss")}\n`);
        };
        yield* report(libc);
        const child = yield* libc.fork(function* (own) {
          yield* report(createLibc(own));
          return 0;
        });
        return (yield* libc.wait(child)).status;
      },
    };
    const options = { ramBytes: 32 << 20, cmdline: "quiet modules=disk swiotlb=256K" };
    const t = bootDrivers({ ...options, devices: { disk0: { seek_cycles: 2_000, kib_cycles: 200 } } }, programs);
    expect(t.sh("mkswap /dev/sda; swapon /dev/sda")).toBe(0);
    const nrBefore = t.output().length;
    expect(t.run("/bin/main")).toBe(0);
    const [alone, shared] = t
      .output()
      .slice(nrBefore)
      .trim()
      .split("\n")
      .map((line) => line.split(" ").map(Number) as [number, number]);
    expect(alone?.[0]).toBeGreaterThan(8 << 10);
    expect(alone?.[1]).toBe(alone?.[0]);
    expect(shared?.[0]).toBeGreaterThan(8 << 10);
    expect(shared?.[1]).toBeLessThanOrEqual((shared?.[0] ?? 0) / 2);
    expect(shared?.[1]).toBeGreaterThan((shared?.[0] ?? 0) / 2 - 1024);
  });

  it("oom_score is made of the OOM killer's points; 0 for who is never killed", () => {
    const t = run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const score = function* () {
          return Number(yield* libc.readFile("/proc/self/oom_score"));
        };
        const before = yield* score();
        // A thousandth of all memory is two thirds of a point.
        const p = yield* libc.call(sys.SYS_mmap, 0, 8 << 20, 3, 0x22, -1, 0);
        env.mem.fill(p, 1, 8 << 20);
        const more = (yield* score()) - before;
        yield* libc.writeFile("/proc/self/oom_score_adj", "-1000");
        yield* libc.print(`${before} ${more} ${yield* score()}`);
        return 0;
      },
    });
    const managed = t.kernel.memory.zones.totalManaged();
    const [before = 0, more = 0, never] = t.output().split(" ").map(Number);
    expect(before).toBeGreaterThan(600);
    expect(more).toBeGreaterThanOrEqual(Math.floor((2048 * 2000) / managed / 3) - 1);
    expect(more).toBeLessThanOrEqual(Math.ceil((2056 * 2000) / managed / 3) + 1);
    expect(never).toBe(0);
  });

  it("a zombie has no memory lines (had them, all 0)", () => {
    run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const pid = yield* libc.fork(function* () {
          return 0;
        });
        yield* libc.sleep(1_000_000);
        const status = (yield* libc.readFile(`/proc/${pid}/status`)) as string;
        return status.includes("State:\tZ (zombie)") && !status.includes("Vm") ? 0 : 1;
      },
    });
  });
});

describe("fork", () => {
  it("the child has a copy of memory, arguments, files and limits; what either writes is its own", () => {
    run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        const p = yield* libc.call(sys.SYS_mmap, 0, 1 << 16, 3, 0x22, -1, 0);
        for (let i = 0; i < 16; i++) env.mem.st32(p + i * 4096, i + 1);
        yield* libc.prlimit(RLIMIT_STACK, { soft: 4096, hard: 8192 });
        const fd = yield* libc.open("/tmp/f", 0o102);
        const pid = yield* libc.fork(function* (child) {
          const own = createLibc(child);
          if (own.args().join() !== "/bin/main" || child.mem.ld32(p + 4096) !== 2) return 1;
          for (let i = 0; i < 16; i += 2) child.mem.st32(p + i * 4096, 100 + i);
          yield* own.sleep(1_000_000);
          for (let i = 0; i < 16; i++) if (child.mem.ld32(p + i * 4096) !== (i % 2 === 0 ? 100 + i : i + 1)) return 2;
          const stack = yield* own.prlimit(RLIMIT_STACK);
          if (typeof stack === "number" || stack.soft !== 4096) return 3;
          yield* own.write(fd, "child");
          return 42;
        });
        for (let i = 1; i < 16; i += 2) env.mem.st32(p + i * 4096, 200 + i);
        const { status } = yield* libc.wait(pid);
        if (status !== 42) return status;
        for (let i = 0; i < 16; i++) if (env.mem.ld32(p + i * 4096) !== (i % 2 === 0 ? i + 1 : 200 + i)) return 4;
        yield* libc.write(fd, " and parent");
        const text = yield* libc.readFile("/tmp/f");
        yield* libc.unlink("/tmp/f");
        return text === "child and parent" ? 0 : 5;
      },
    });
  });

  it("a child of a child outlives its parent and is reaped by nobody", () => {
    run({
      *"/bin/main"(env) {
        const libc = createLibc(env);
        yield* libc.fork(function* (child) {
          yield* createLibc(child).fork(function* (grandchild) {
            yield* createLibc(grandchild).sleep(5_000_000);
            return 1;
          });
          return 0;
        });
        yield* libc.wait(-1);
        return (yield* libc.wait(-1)).pid === -10 ? 0 : 1;
      },
    });
  });
});
