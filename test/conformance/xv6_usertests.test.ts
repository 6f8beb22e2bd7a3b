/**
 * Goal: programs that hand the kernel nonsense, or use all memory, get an error or die; the kernel stays whole and no
 * page is lost: SYS-1, SYS-2, MMAP-3.
 * Method: the memory cases of xv6's user/usertests.c under their names, written for our system calls. Where xv6 forks,
 * a second program is run; where it execs, one is spawned. After each case the kernel has as many free pages as before,
 * the rule by which xv6 judges the whole suite.
 *
 * Not here: cases about files and directories, fork and exec. Our user memory ends at TASK_SIZE (xv6: MAXVA), the
 * kernel lies where a process could have pages only in its own tables, and memory is given on the first touch, as by
 * xv6's sbrklazy().
 */

import { describe, expect, it } from "vitest";
import { KERNEL_IMAGE_BASE, PAGE_SIZE, TASK_SIZE, USER_STACK_TOP, USER_TEXT_BASE } from "../../kernel/params.ts";
import type { Sleeping } from "../../kernel/types.ts";
import { E2BIG, EFAULT, ENAMETOOLONG, ENOENT, ENOMEM } from "../../kernel/uapi/errno.ts";
import { O_CREAT, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY } from "../../kernel/uapi/mman.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { permanentStackPages } from "../../scripts/end_state.ts";
import { bootKernel, type TestKernel } from "../support/boot_kernel.ts";

/** xv6 has no overcommit: what it grants is there. */
/** The stack at its fixed place: its end is asked about to the byte. */
const STRICT = "quiet norandmaps sysctl.vm.overcommit_memory=2 sysctl.vm.overcommit_ratio=100";
/** The stack grows down to here, RLIMIT_STACK. */
const STACK_LIMIT = 8 * 2 ** 20;
const SEGFAULT = 128 + 11;
const GIB = 2 ** 30;
/** What no process can have: the kernel, the first page, the end of user memory and beyond, and worse. */
const NOWHERE = [0, KERNEL_IMAGE_BASE, TASK_SIZE - PAGE_SIZE, TASK_SIZE, 2 * TASK_SIZE, 2 ** 52, -1];

/** The libc of these cases: results are the kernel's own. */
function* call(env: ProgramEnv, nr: number, ...args: number[]): Sleeping<number> {
  const result = env.syscall(nr, ...args);
  return typeof result === "object" ? yield* result : result;
}

/** Grows the heap by `bytes`, which may be negative: the old break, or −1. */
function* sbrk(env: ProgramEnv, bytes: number): Sleeping<number> {
  const old = yield* call(env, sys.SYS_brk, 0);
  return (yield* call(env, sys.SYS_brk, old + bytes)) === old + bytes ? old : -1;
}

/** A page of heap with a string in it. */
function* string(env: ProgramEnv, text: string): Sleeping<number> {
  const page = yield* sbrk(env, PAGE_SIZE * Math.ceil((text.length + 1) / PAGE_SIZE));
  env.mem.write(page, new TextEncoder().encode(`${text}\0`));
  return page;
}

function* open(env: ProgramEnv, path: string, flags: number): Sleeping<number> {
  return yield* call(env, sys.SYS_openat, -100, yield* string(env, path), flags, 0);
}

function* pipe(env: ProgramEnv): Sleeping<{ readEnd: number; writeEnd: number }> {
  const fds = yield* sbrk(env, PAGE_SIZE);
  expect(yield* call(env, sys.SYS_pipe2, fds, 0)).toBe(0);
  return { readEnd: env.mem.ld32(fds), writeEnd: env.mem.ld32(fds + 4) };
}

/** Moves the break to the next page boundary; the boundary. */
function* pageBreak(env: ProgramEnv): Sleeping<number> {
  const top = yield* sbrk(env, 0);
  yield* sbrk(env, (PAGE_SIZE - (top % PAGE_SIZE)) % PAGE_SIZE);
  return yield* sbrk(env, 0);
}

/** spawn(path, argv, standard files): pid or −errno. `argv` is a user pointer to `argc` pointers. */
function* spawn(env: ProgramEnv, path: string, argv = 0, argc = 0): Sleeping<number> {
  const fds = yield* string(env, "");
  [0, 1, 2].forEach((fd) => {
    env.mem.st32(fds + 4 * fd, fd);
  });
  return yield* call(env, sys.SYS_spawn, yield* string(env, path), argv, argc, fds);
}

// ── The harness ────────────────────────────────────────────────────────────────────────────────────────────────────

const okay: Program = function* () {
  return 0;
};

/** Free pages with nothing held back, and without the stacks of threads that the kernel keeps. */
function countFree({ kernel }: TestKernel): number {
  const ctx = kernel.contexts.taskContext(0);
  kernel.memory.slab.shrinkAll(ctx);
  kernel.memory.pageAlloc.drainAllPages(ctx);
  return kernel.memory.zones.totalFree() + permanentStackPages(kernel);
}

/** Boots, runs `body` over it, and compares the free pages. */
function usertest(programs: Readonly<Record<string, Program>>, body: (t: TestKernel) => void): void {
  const t = bootKernel({ "/bin/okay": okay, ...programs }, { nrCpus: 2, cmdline: STRICT });
  expect(t.run("/bin/okay")).toBe(0);
  const before = countFree(t);
  body(t);
  expect(t.kernel.nrReports()).toBe(0);
  t.expectNoLeak();
  expect(countFree(t)).toBe(before);
}

/** One program that ends well. */
const passes = (main: Program) => (): void =>
  usertest({ "/bin/main": main }, (t) => expect(t.run("/bin/main")).toBe(0));

/** A program that must die at each of these addresses. */
const dies = (addresses: readonly number[], touch: (env: ProgramEnv, address: number) => void) => (): void => {
  let address = 0;
  const victim: Program = function* (env) {
    touch(env, address);
    return 0;
  };
  usertest({ "/bin/victim": victim }, (t) => {
    for (address of addresses) expect([address, t.run("/bin/victim")]).toEqual([address, SEGFAULT]);
  });
};

const store = (env: ProgramEnv, address: number): void => env.mem.st8(address, 99);
const load = (env: ProgramEnv, address: number): void => void env.mem.ld8(address);

// ── The cases ──────────────────────────────────────────────────────────────────────────────────────────────────────

const CASES: Readonly<Record<string, () => void>> = {
  copyin: passes(function* (env) {
    for (const address of NOWHERE) {
      const fd = yield* open(env, "/copyin1", O_CREAT | O_WRONLY);
      expect([address, yield* call(env, sys.SYS_write, fd, address, 8192)]).toEqual([address, -EFAULT]);
      yield* call(env, sys.SYS_close, fd);
      expect(yield* call(env, sys.SYS_unlink, yield* string(env, "/copyin1"))).toBe(0);
      expect(yield* call(env, sys.SYS_write, 1, address, 8192)).toBe(-EFAULT);
      const { readEnd, writeEnd } = yield* pipe(env);
      expect(yield* call(env, sys.SYS_write, writeEnd, address, 8192)).toBe(-EFAULT);
      yield* call(env, sys.SYS_close, readEnd);
      yield* call(env, sys.SYS_close, writeEnd);
    }
    return 0;
  }),

  copyout: passes(function* (env) {
    const letter = yield* string(env, "x");
    for (const address of NOWHERE) {
      const fd = yield* open(env, "/proc/meminfo", O_RDONLY);
      expect([address, yield* call(env, sys.SYS_read, fd, address, 8192)]).toEqual([address, -EFAULT]);
      yield* call(env, sys.SYS_close, fd);
      const { readEnd, writeEnd } = yield* pipe(env);
      expect(yield* call(env, sys.SYS_write, writeEnd, letter, 1)).toBe(1);
      expect(yield* call(env, sys.SYS_read, readEnd, address, 8192)).toBe(-EFAULT);
      yield* call(env, sys.SYS_close, readEnd);
      yield* call(env, sys.SYS_close, writeEnd);
    }
    return 0;
  }),

  copyinstr1: passes(function* (env) {
    for (const address of NOWHERE) {
      const result = yield* call(env, sys.SYS_openat, -100, address, O_CREAT | O_WRONLY, 0);
      expect([address, result]).toEqual([address, -EFAULT]);
    }
    return 0;
  }),

  copyinstr2: passes(function* (env) {
    // As long as the kernel's buffer for paths, and longer than that of an argument.
    const path = yield* string(env, "/".padEnd(256, "x"));
    expect(yield* call(env, sys.SYS_unlink, path)).toBe(-ENAMETOOLONG);
    expect(yield* call(env, sys.SYS_openat, -100, path, O_CREAT | O_WRONLY, 0)).toBe(-ENAMETOOLONG);
    expect(yield* spawn(env, "/".padEnd(256, "x"))).toBe(-ENAMETOOLONG);
    const big = yield* string(env, "x".repeat(PAGE_SIZE));
    const argv = yield* sbrk(env, PAGE_SIZE);
    for (let i = 0; i < 3; i++) env.mem.st32(argv + 8 * i, big);
    expect(yield* spawn(env, "/bin/okay", argv, 3)).toBe(-E2BIG);
    return 0;
  }),

  copyinstr3: passes(function* (env) {
    yield* sbrk(env, 2 * PAGE_SIZE);
    // The last byte of the heap begins a string that has no end.
    const last = (yield* pageBreak(env)) - 1;
    env.mem.st8(last, 0x78);
    expect(yield* call(env, sys.SYS_unlink, last)).toBe(-EFAULT);
    expect(yield* call(env, sys.SYS_openat, -100, last, O_CREAT | O_WRONLY, 0)).toBe(-EFAULT);
    expect(yield* call(env, sys.SYS_spawn, last, 0, 0, 0)).toBe(-EFAULT);
    return 0;
  }),

  rwsbrk: passes(function* (env) {
    const fd = yield* open(env, "/rwsbrk", O_CREAT | O_WRONLY);
    const info = yield* open(env, "/proc/meminfo", O_RDONLY);
    const gone = (yield* sbrk(env, 2 * PAGE_SIZE)) + PAGE_SIZE;
    env.mem.st8(gone, 1);
    yield* sbrk(env, -2 * PAGE_SIZE);
    expect(yield* call(env, sys.SYS_write, fd, gone, 1024)).toBe(-EFAULT);
    expect(yield* call(env, sys.SYS_read, info, gone, 10)).toBe(-EFAULT);
    return yield* call(env, sys.SYS_unlink, yield* string(env, "/rwsbrk"));
  }),

  sbrkbasic: passes(function* (env) {
    expect(yield* sbrk(env, GIB)).toBe(-1);
    let end = yield* sbrk(env, 0);
    for (let i = 0; i < 5000; i++) {
      expect(yield* sbrk(env, 1)).toBe(end);
      env.mem.st8(end, 1);
      end++;
    }
    return 0;
  }),

  sbrkmuch: passes(function* (env) {
    const start = yield* sbrk(env, 0);
    const bytes = 8 * 2 ** 20;
    expect(yield* sbrk(env, bytes)).toBe(start);
    const last = start + bytes - 1;
    env.mem.st8(last, 99);
    expect(yield* sbrk(env, -PAGE_SIZE)).toBe(start + bytes);
    expect(yield* sbrk(env, 0)).toBe(start + bytes - PAGE_SIZE);
    expect(yield* sbrk(env, PAGE_SIZE)).toBe(start + bytes - PAGE_SIZE);
    // Given back and taken again, the page is a new one.
    expect(env.mem.ld8(last)).toBe(0);
    expect(yield* sbrk(env, -bytes)).toBe(start + bytes);
    return 0;
  }),

  kernmem: dies(
    Array.from({ length: 40 }, (_, i) => KERNEL_IMAGE_BASE + 50_000 * i),
    load,
  ),

  MAXVAplus: dies(
    Array.from({ length: 20 }, (_, i) => TASK_SIZE * 2 ** i),
    store,
  ),

  sbrkfail: (): void => {
    let nrFailed = 0;
    const greedy: Program = function* (env) {
      const start = yield* sbrk(env, 24 * 2 ** 20);
      if (start < 0) nrFailed++;
      else for (let at = start; at < start + 24 * 2 ** 20; at += PAGE_SIZE) env.mem.st8(at, 1);
      yield* call(env, sys.SYS_nanosleep, 1e9);
      return 0;
    };
    const modest: Program = function* (env) {
      yield* call(env, sys.SYS_nanosleep, 1e7);
      if ((yield* sbrk(env, PAGE_SIZE)) < 0) return 1;
      return (yield* sbrk(env, GIB)) < 0 ? 0 : 2;
    };
    usertest({ "/bin/greedy": greedy, "/bin/modest": modest }, ({ kernel }) => {
      for (let i = 0; i < 10; i++) kernel.spawn("/bin/greedy", ["greedy"]);
      const pid = kernel.spawn("/bin/modest", ["modest"]);
      kernel.run();
      expect(nrFailed).toBeGreaterThan(0);
      expect(kernel.exitStatus(pid)).toBe(0);
    });
  },

  sbrkarg: passes(function* (env) {
    const page = yield* sbrk(env, PAGE_SIZE);
    const fd = yield* open(env, "/sbrk", O_CREAT | O_WRONLY);
    expect(yield* call(env, sys.SYS_write, fd, page, PAGE_SIZE)).toBe(PAGE_SIZE);
    yield* call(env, sys.SYS_unlink, yield* string(env, "/sbrk"));
    // The kernel writes into memory that nobody has touched.
    yield* pipe(env);
    return 0;
  }),

  validatetest: passes(function* (env) {
    for (let address = 0; address <= 1100 * 1024; address += PAGE_SIZE) {
      const result = yield* call(env, sys.SYS_unlink, address);
      expect([address, [-EFAULT, -ENOENT].includes(result)]).toEqual([address, true]);
    }
    return 0;
  }),

  bsstest: passes(function* (env) {
    const start = yield* sbrk(env, 10_000);
    expect(env.mem.read(start, 10_000)).toEqual(new Uint8Array(10_000));
    return 0;
  }),

  bigargtest: passes(function* (env) {
    const argv = yield* sbrk(env, PAGE_SIZE);
    const arg = yield* string(env, " ".repeat(399));
    for (let i = 0; i < 200; i++) env.mem.st32(argv + 8 * i, arg);
    expect(yield* spawn(env, "/bin/okay", argv, 200)).toBe(-E2BIG);
    return 0;
  }),

  argptest: passes(function* (env) {
    const fd = yield* open(env, "/proc/meminfo", O_RDONLY);
    // From the last byte of the heap on, for as long as it can be.
    const last = (yield* pageBreak(env)) - 1;
    expect(yield* call(env, sys.SYS_read, fd, last, -1)).toBeLessThan(0);
    expect(yield* call(env, sys.SYS_read, fd, last, 2 ** 64)).toBeLessThan(0);
    return 0;
  }),

  stacktest: dies([USER_STACK_TOP - STACK_LIMIT - 1, USER_STACK_TOP - STACK_LIMIT - PAGE_SIZE], load),

  nowrite: dies([...NOWHERE, USER_TEXT_BASE], store),

  pgbug: passes(function* (env) {
    const wild = 0x1a_eb0b_5b00_2f5e;
    expect(yield* call(env, sys.SYS_spawn, wild, wild, 1, wild)).toBe(-EFAULT);
    expect(yield* call(env, sys.SYS_pipe2, wild, 0)).toBe(-EFAULT);
    return 0;
  }),

  sbrkbugs: passes(function* (env) {
    const start = yield* sbrk(env, 10 * PAGE_SIZE);
    // To nothing, into the first page, below the heap, and by too little to free a page.
    yield* sbrk(env, -10 * PAGE_SIZE);
    expect(yield* sbrk(env, 0)).toBe(start);
    yield* sbrk(env, 3500);
    expect(yield* sbrk(env, -(start + 3500))).toBe(-1);
    yield* sbrk(env, 10 * PAGE_SIZE + 2048 - 3500);
    env.mem.st8((yield* sbrk(env, 0)) - 1, 1);
    yield* sbrk(env, -10);
    expect(yield* sbrk(env, 0)).toBe(start + 10 * PAGE_SIZE + 2038);
    return 0;
  }),

  sbrklast: passes(function* (env) {
    yield* pageBreak(env);
    yield* sbrk(env, PAGE_SIZE);
    yield* sbrk(env, 10);
    const top = (yield* sbrk(env, -20)) - 20;
    const name = top - 64;
    env.mem.write(name, Uint8Array.of(0x2f, 0x78, 0));
    const fd = yield* call(env, sys.SYS_openat, -100, name, O_RDWR | O_CREAT, 0);
    expect(yield* call(env, sys.SYS_write, fd, name + 1, 1)).toBe(1);
    const again = yield* call(env, sys.SYS_openat, -100, name, O_RDWR, 0);
    env.mem.st8(name + 1, 0);
    expect(yield* call(env, sys.SYS_read, again, name + 1, 1)).toBe(1);
    expect(env.mem.ld8(name + 1)).toBe(0x78);
    return yield* call(env, sys.SYS_unlink, name);
  }),

  sbrk8000: passes(function* (env) {
    yield* sbrk(env, PAGE_SIZE);
    yield* sbrk(env, 0x8000_0004 - 2 ** 32);
    yield* sbrk(env, 0x8000_0004);
    const top = yield* sbrk(env, 0);
    env.mem.st8(top - 1, env.mem.ld8(top - 1) + 1);
    return 0;
  }),

  badarg: passes(function* (env) {
    const argv = yield* sbrk(env, PAGE_SIZE);
    env.mem.st32(argv, 0xffff_ffff);
    const [path, fds] = [yield* string(env, "/bin/okay"), yield* string(env, "")];
    for (let i = 0; i < 2000; i++) expect(yield* call(env, sys.SYS_spawn, path, argv, 1, fds)).toBe(-EFAULT);
    return 0;
  }),

  lazy_alloc: passes(function* (env) {
    const bytes = 16 * 2 ** 20;
    const start = yield* sbrk(env, bytes);
    for (let at = start; at < start + bytes; at += 64 * PAGE_SIZE) env.mem.st32(at, at);
    for (let at = start; at < start + bytes; at += 64 * PAGE_SIZE) expect(env.mem.ld32(at)).toBe(at);
    return 0;
  }),

  lazy_unmap: (): void => {
    const start = 0x1000_0000;
    dies([0, 1, 200, 4095], (env, page) => {
      const brk = (address: number): number => env.syscall(sys.SYS_brk, address) as number;
      expect(brk(start + 16 * 2 ** 20)).toBe(start + 16 * 2 ** 20);
      env.mem.st32(start + page * PAGE_SIZE, 1);
      expect(brk(start)).toBe(start);
      env.mem.st32(start + page * PAGE_SIZE, 2);
    })();
  },

  lazy_copy: passes(function* (env) {
    // A path in memory that nobody has touched is an empty one.
    const untouched = yield* sbrk(env, 4 * PAGE_SIZE);
    expect(yield* call(env, sys.SYS_openat, -100, untouched + 2 * PAGE_SIZE, O_RDONLY, 0)).toBeLessThan(0);
    const end = yield* sbrk(env, 0);
    expect(yield* sbrk(env, -(end + 1))).toBe(-1);
    const info = yield* open(env, "/proc/meminfo", O_RDONLY);
    const fd = yield* open(env, "/junk", O_CREAT | O_RDWR | O_TRUNC);
    for (const address of [TASK_SIZE - PAGE_SIZE, TASK_SIZE, 2 * TASK_SIZE, 2 ** 39]) {
      expect(yield* call(env, sys.SYS_read, info, address, 512)).toBe(-EFAULT);
      expect(yield* call(env, sys.SYS_write, fd, address, 512)).toBe(-EFAULT);
    }
    return yield* call(env, sys.SYS_unlink, yield* string(env, "/junk"));
  }),

  lazy_copyinstr: passes(function* (env) {
    // The end of the string is in a page that nobody has touched.
    const start = yield* pageBreak(env);
    yield* sbrk(env, 2 * PAGE_SIZE);
    env.mem.st8(start + PAGE_SIZE - 1, 0x2f);
    const fd = yield* call(env, sys.SYS_openat, -100, start + PAGE_SIZE - 1, O_RDONLY, 0);
    expect(fd).toBeGreaterThan(0);
    return 0;
  }),

  lazy_sbrk: passes(function* (env) {
    const start = yield* pageBreak(env);
    let nrBytes = 0;
    while ((yield* sbrk(env, 2 ** 20)) >= 0) nrBytes += 2 ** 20;
    while ((yield* sbrk(env, PAGE_SIZE)) >= 0) nrBytes += PAGE_SIZE;
    expect(yield* sbrk(env, 0)).toBe(start + nrBytes);
    // The last page that was promised is there, and zero.
    env.mem.st8(start + nrBytes - PAGE_SIZE, 1);
    expect(env.mem.ld8(start + nrBytes - PAGE_SIZE + 1)).toBe(0);
    expect(yield* sbrk(env, 2 ** 20)).toBe(-1);
    return 0;
  }),

  partial_write: passes(function* (env) {
    const fd = yield* open(env, "/testfile", O_CREAT | O_RDWR);
    const letter = yield* string(env, "A");
    expect(yield* call(env, sys.SYS_write, fd, letter, 1)).toBe(1);
    const end = yield* pageBreak(env);
    env.mem.st8(end - 1, 0x58);
    const again = yield* call(env, sys.SYS_openat, -100, yield* string(env, "/testfile"), O_RDWR, 0);
    const last = (yield* pageBreak(env)) - 1;
    env.mem.st8(last, 0x58);
    expect(yield* call(env, sys.SYS_write, again, last, 2)).toBe(-EFAULT);
    // A write that fails has no effect (SYS-2); in xv6 the first byte arrives.
    expect(yield* call(env, sys.SYS_lseek, again, 0, 0)).toBe(0);
    expect(yield* call(env, sys.SYS_read, again, letter, 2)).toBe(1);
    expect(env.mem.ld8(letter)).toBe(0x41);
    return yield* call(env, sys.SYS_unlink, yield* string(env, "/testfile"));
  }),

  badwrite: passes(function* (env) {
    const path = yield* string(env, "/junk");
    for (let i = 0; i < 600; i++) {
      const fd = yield* call(env, sys.SYS_openat, -100, path, O_CREAT | O_WRONLY, 0);
      expect(yield* call(env, sys.SYS_write, fd, 0xff_ffff_ffff, 1)).toBe(-EFAULT);
      yield* call(env, sys.SYS_close, fd);
      expect(yield* call(env, sys.SYS_unlink, path)).toBe(0);
    }
    return 0;
  }),

  execout: (): void => {
    let nrSpares = 0;
    const main: Program = function* (env) {
      const [path, fds] = [yield* string(env, "/bin/okay"), yield* string(env, "")];
      [0, 1, 2].forEach((fd) => {
        env.mem.st32(fds + 4 * fd, fd);
      });
      for (let page = yield* sbrk(env, PAGE_SIZE); page >= 0; page = yield* sbrk(env, PAGE_SIZE)) env.mem.st8(page, 1);
      for (let i = 0; i < nrSpares; i++) yield* sbrk(env, -PAGE_SIZE);
      const pid = yield* call(env, sys.SYS_spawn, path, 0, 0, fds);
      if (pid === -ENOMEM) return 0;
      return (yield* call(env, sys.SYS_wait4, pid, 0, 0)) === pid ? 0 : 1;
    };
    usertest({ "/bin/main": main }, (t) => {
      for (nrSpares = 0; nrSpares < 15; nrSpares++) expect([nrSpares, t.run("/bin/main")]).toEqual([nrSpares, 0]);
    });
  },
};

describe("xv6 usertests: memory", () => {
  for (const [name, run] of Object.entries(CASES)) it(name, run);
});
