/**
 * Memory system calls as programs make them: files, forks, signals, copies by the kernel.
 *
 * Goal: SYS-1, LRU-4, COW-3, FMAP-1, PFL-2, RFS-1, UAC-1. Method: programs on a booted kernel; random calls with random arguments,
 * after which the machine must be whole.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Sleeping } from "../../kernel/types.ts";
import { EINVAL, EOVERFLOW } from "../../kernel/uapi/errno.ts";
import * as mman from "../../kernel/uapi/mman.ts";
import type { ProgramEnv } from "../../kernel/uapi/program.ts";
import { RLIMIT_MEMLOCK } from "../../kernel/uapi/resource.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { bootKernel } from "../support/boot_kernel.ts";

const RW = mman.PROT_READ | mman.PROT_WRITE;
const ANON = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS;
const PAGE = 4096;

function* call(env: ProgramEnv, nr: number, ...args: number[]): Sleeping<number> {
  const result = env.syscall(nr, ...args);
  return typeof result === "number" ? result : yield* result;
}

/** Opens /tmp/f for reading and writing; `scratch` is a writable page. */
function* openFile(env: ProgramEnv, scratch: number): Sleeping<number> {
  env.mem.write(scratch, new TextEncoder().encode("/tmp/f\0"));
  return yield* call(env, sys.SYS_openat, -100, scratch, mman.O_CREAT | mman.O_RDWR);
}

describe("files in memory", () => {
  it("FMAP-1 PFL-2 read, write and a shared mapping see one file; beyond its end is SIGBUS", () => {
    const t = bootKernel({
      *"/bin/mapped"(env) {
        const p = yield* call(env, sys.SYS_mmap, 0, PAGE, RW, ANON, -1, 0);
        const fd = yield* openFile(env, p);
        env.mem.st32(p, 0x1234);
        if ((yield* call(env, sys.SYS_write, fd, p, 4)) !== 4) return 1;
        const m = yield* call(env, sys.SYS_mmap, 0, 2 * PAGE, RW, mman.MAP_SHARED, fd, 0);
        if (env.mem.ld32(m) !== 0x1234) return 2;
        env.mem.st32(m, 0x5678);
        yield* call(env, sys.SYS_lseek, fd, 0, mman.SEEK_SET);
        if ((yield* call(env, sys.SYS_read, fd, p, 4)) !== 4 || env.mem.ld32(p) !== 0x5678) return 3;
        // The mapping is one more user of the file.
        yield* call(env, sys.SYS_close, fd);
        if (env.mem.ld32(m) !== 0x5678) return 4;
        env.mem.ld8(m + PAGE);
        return 5;
      },
    });
    expect(t.run("/bin/mapped")).toBe(128 + mman.SIGBUS);
    t.kernel.removeFiles();
    t.expectNoLeak();
  });
});

// Regression: rights above 32 bits passed the mask and were stored. Found by random system calls.
it("SYS-1 rights that no register of 32 bits holds are refused", () => {
  const results: number[] = [];
  const t = bootKernel({
    *"/bin/prot"(env) {
      const p = yield* call(env, sys.SYS_mmap, 0, PAGE, RW, ANON, -1, 0);
      for (const prot of [2 ** 52, 2 ** 32, -(2 ** 32), 8, -1]) {
        results.push(yield* call(env, sys.SYS_mprotect, p, PAGE, prot));
        results.push(yield* call(env, sys.SYS_mmap, 0, PAGE, prot, ANON, -1, 0));
      }
      return 0;
    },
  });
  expect(t.run("/bin/prot")).toBe(0);
  expect(results).toEqual(new Array(10).fill(-EINVAL));
  t.expectNoLeak();
});

describe("the kernel's own copies", () => {
  it("COW-3 UAC-1 read() into memory shared after a fork changes the child's only", () => {
    const t = bootKernel({
      *"/bin/parent"(env) {
        const p = yield* call(env, sys.SYS_mmap, 0, 2 * PAGE, RW, ANON, -1, 0);
        const fd = yield* openFile(env, p + PAGE);
        env.mem.st32(p, 0x1111);
        yield* call(env, sys.SYS_write, fd, p, 4);
        env.mem.st32(p, 0x2222);
        const entry = env.entryOf(function* (child) {
          yield* call(child, sys.SYS_lseek, fd, 0, mman.SEEK_SET);
          if ((yield* call(child, sys.SYS_read, fd, p, 4)) !== 4) return 1;
          return child.mem.ld32(p) === 0x1111 ? 0 : 2;
        });
        const pid = yield* call(env, sys.SYS_fork, entry, 0);
        yield* call(env, sys.SYS_wait4, pid, p + 8, 0);
        return env.mem.ld32(p) === 0x2222 ? env.mem.ld32(p + 8) : 3;
      },
    });
    expect(t.run("/bin/parent")).toBe(0);
    t.kernel.removeFiles();
    t.expectNoLeak();
  });
});

// Regression: /proc/vmstat and zoneinfo said that no page was locked, whatever was; smaps counted shared pages as wholes.
it("LRU-4 nr_mlock, Mlocked and Locked are the pages that are locked, wherever they move", () => {
  const seen: unknown[] = [];
  const t = bootKernel({
    *"/bin/locker"(env) {
      const pid = yield* call(env, sys.SYS_getpid);
      const number = (path: string, row: string): number =>
        [...(t.kernel.readFile(path) ?? "").matchAll(new RegExp(`^ *${row}:? +(\\d+)`, "gm"))]
          .map(([, n]) => Number(n))
          .reduce((sum, n) => sum + n, 0);
      const look = (): void => {
        const places = ["/proc/vmstat", "/proc/zoneinfo"].map((path) => number(path, "nr_mlock"));
        seen.push([...places, number("/proc/meminfo", "Mlocked"), number(`/proc/${pid}/smaps`, "Locked")]);
        seen.push(t.kernel.check());
      };
      const va = yield* call(env, sys.SYS_mmap, 0, 40 * PAGE, RW, ANON, -1, 0);
      for (let i = 0; i < 30; i++) env.mem.st32(va + i * PAGE, i + 1);
      yield* call(env, sys.SYS_mlock, va, 16 * PAGE);
      look();
      env.mem.write(va + 30 * PAGE, new TextEncoder().encode("/proc/sys/vm/compact_memory\0"));
      const fd = yield* call(env, sys.SYS_openat, -100, va + 30 * PAGE, mman.O_WRONLY);
      env.mem.write(va + 31 * PAGE, new TextEncoder().encode("1"));
      if ((yield* call(env, sys.SYS_write, fd, va + 31 * PAGE, 1)) !== 1) return 2;
      look();
      // The child's mappings are not locked: the pages are still, for the parent.
      const entry = env.entryOf(function* () {
        look();
        yield* [];
        return 0;
      });
      yield* call(env, sys.SYS_fork, entry);
      yield* call(env, sys.SYS_wait4, -1, 0, 0);
      yield* call(env, sys.SYS_munlock, va + 4 * PAGE, 4 * PAGE);
      look();
      for (let i = 0; i < 30; i++) if (env.mem.ld32(va + i * PAGE) !== i + 1) return 1;
      yield* call(env, sys.SYS_munmap, va, 8 * PAGE);
      look();
      return 0;
    },
  });
  expect(t.run("/bin/locker")).toBe(0);
  const rows = [
    [16, 16, 64, 64],
    [16, 16, 64, 64],
    [16, 16, 64, 32],
    [12, 12, 48, 48],
    [8, 8, 32, 32],
  ];
  expect(seen).toEqual(rows.flatMap((row) => [row, null]));
  expect(t.kernel.readFile("/proc/vmstat")).toMatch(/^nr_mlock 0$/m);
  expect(t.kernel.readFile("/proc/vmstat")).toMatch(/_mlocked 16\nunevictable_pgs_munlocked 16$/m);
  t.expectNoLeak();
});

describe("found by sysfuzz", () => {
  it("LCK-2 a locked stack that grows counts as locked, and not beyond RLIMIT_MEMLOCK", () => {
    const t = bootKernel({
      *"/bin/grower"(env) {
        const top = 0x3010_0000;
        const flags = ANON | mman.MAP_FIXED | mman.MAP_GROWSDOWN | mman.MAP_LOCKED;
        if ((yield* call(env, sys.SYS_mmap, top, PAGE, RW, flags, -1, 0)) !== top) return 1;
        env.mem.st32(top - 3 * PAGE, 1);
        if (t.kernel.check() !== null) return 2;
        // Four pages are locked. The limit becomes five: two more are too many.
        env.mem.st32(top, 5 * PAGE);
        env.mem.st32(top + 4, 0);
        env.mem.st32(top + 8, 5 * PAGE);
        env.mem.st32(top + 12, 0);
        if ((yield* call(env, sys.SYS_prlimit64, 0, RLIMIT_MEMLOCK, top, 0)) !== 0) return 3;
        // Limits reach the address space at the next call about memory.
        if ((yield* call(env, sys.SYS_brk, 0)) < 0) return 4;
        env.mem.st32(top - 4 * PAGE, 1);
        if (t.kernel.check() !== null) return 6;
        env.mem.st32(top - 5 * PAGE, 1);
        return 7;
      },
    });
    expect(t.run("/bin/grower")).toBe(128 + mman.SIGSEGV);
    t.expectNoLeak();
  });

  it("SYS-1 SYS-2 lseek to where no register points is EOVERFLOW, and the position stays", () => {
    const t = bootKernel({
      *"/bin/seeker"(env) {
        const p = yield* call(env, sys.SYS_mmap, 0, PAGE, RW, ANON, -1, 0);
        const fd = yield* openFile(env, p);
        if ((yield* call(env, sys.SYS_lseek, fd, 5, mman.SEEK_SET)) !== 5) return 1;
        if ((yield* call(env, sys.SYS_lseek, fd, Number.MAX_SAFE_INTEGER, mman.SEEK_CUR)) !== -EOVERFLOW) return 2;
        if ((yield* call(env, sys.SYS_lseek, fd, -6, mman.SEEK_CUR)) !== -EINVAL) return 3;
        if ((yield* call(env, sys.SYS_lseek, fd, 0, 3)) !== -EINVAL) return 4;
        env.mem.write(p, new TextEncoder().encode("/proc/uptime\0"));
        const text = yield* call(env, sys.SYS_openat, -100, p, 0);
        if ((yield* call(env, sys.SYS_lseek, text, -1, mman.SEEK_SET)) !== -EINVAL) return 5;
        return (yield* call(env, sys.SYS_lseek, fd, 0, mman.SEEK_CUR)) === 5 ? 0 : 6;
      },
    });
    expect(t.run("/bin/seeker")).toBe(0);
    t.kernel.removeFiles();
    t.expectNoLeak();
  });
});

describe("SYS-1 random memory calls", () => {
  const CALLS = [
    sys.SYS_mmap,
    sys.SYS_munmap,
    sys.SYS_mprotect,
    sys.SYS_mremap,
    sys.SYS_madvise,
    sys.SYS_mlock,
    sys.SYS_munlock,
    sys.SYS_mlockall,
    sys.SYS_munlockall,
    sys.SYS_mincore,
    sys.SYS_msync,
    sys.SYS_brk,
    sys.SYS_ftruncate,
  ];
  const place = fc.integer({ min: 0, max: 24 }).map((page) => 0x3000_0000 + page * PAGE);
  const argument = fc.oneof(
    { weight: 5, arbitrary: place },
    { weight: 4, arbitrary: fc.integer({ min: 0, max: 9 }).map((nr) => nr * PAGE) },
    { weight: 4, arbitrary: fc.nat(63) },
    { weight: 2, arbitrary: fc.constantFrom(ANON | mman.MAP_FIXED, mman.MAP_SHARED | mman.MAP_ANONYMOUS, 3, 0x12) },
    { weight: 1, arbitrary: fc.constantFrom(-1, 2 ** 35, 2 ** 52, -PAGE, 1, 0x7_ffff_0000, 2 ** 31, 2 ** 32 - 1) },
  );

  it("only results and errnos; the machine is whole afterwards", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom(...CALLS), fc.array(argument, { minLength: 6, maxLength: 6 })), {
          minLength: 50,
          maxLength: 300,
        }),
        (calls) => {
          const t = bootKernel({
            *"/bin/fuzz"(env) {
              const p = yield* call(env, sys.SYS_mmap, 0, PAGE, RW, ANON, -1, 0);
              yield* openFile(env, p);
              for (const [nr, args] of calls) {
                if (!Number.isSafeInteger(yield* call(env, nr, ...args))) return 1;
              }
              return 0;
            },
          });
          const status = t.run("/bin/fuzz");
          expect(t.kernel.nrReports()).toBe(0);
          expect([0, 128 + mman.SIGKILL]).toContain(status);
          t.kernel.removeFiles();
          t.expectNoLeak();
        },
      ),
      { numRuns: 25 },
    );
  });
});
