/**
 * Locks of user threads with priority inheritance.
 *
 * Goal: FPI-1, FPI-2, FPI-3. Method: threads on one CPU that lock through the system call only and look at the words;
 * afterwards nothing of it is left in the kernel, and it has reported nothing.
 */

import { describe, expect, it } from "vitest";
import type { Sleeping } from "../../kernel/types.ts";
import { EDEADLK, EFAULT, EINVAL, EPERM, ESRCH } from "../../kernel/uapi/errno.ts";
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from "../../kernel/uapi/mman.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import {
  FUTEX_LOCK_PI,
  FUTEX_OWNER_DIED,
  FUTEX_UNLOCK_PI,
  FUTEX_WAITERS,
  SYS_clone,
  SYS_futex,
  SYS_gettid,
  SYS_mmap,
  SYS_munmap,
  SYS_nanosleep,
  SYS_sched_setscheduler,
  SYS_thread_join,
} from "../../kernel/uapi/syscall.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel } from "../support/boot_kernel.ts";

function* call(env: ProgramEnv, nr: number, ...args: number[]): Sleeping<number> {
  const result = env.syscall(nr, ...args);
  return typeof result === "number" ? result : yield* result;
}
const page = (env: ProgramEnv): Sleeping<number> =>
  call(env, SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
const lock = (env: ProgramEnv, word: number): Sleeping<number> => call(env, SYS_futex, word, FUTEX_LOCK_PI, 0);
const unlock = (env: ProgramEnv, word: number): Sleeping<number> => call(env, SYS_futex, word, FUTEX_UNLOCK_PI, 0);
const sleep = (env: ProgramEnv, cycles: number): Sleeping<number> => call(env, SYS_nanosleep, cycles);
const thread = (env: ProgramEnv, body: Program, arg = 0): Sleeping<number> =>
  call(env, SYS_clone, 0, 0, env.entryOf(body), arg);

/** Runs `program`; nothing of it may be left behind. */
function play(program: Program, options: Parameters<typeof bootKernel>[1] = {}): void {
  const t = bootKernel({ "/bin/p": program }, { nrCpus: 1, ...options });
  expect(t.run("/bin/p")).toBe(0);
  expect(t.kernel.nrReports()).toBe(0);
  t.expectNoLeak();
}

describe("a lock with priority inheritance", () => {
  it.each(["", "prove_locking=on"])(
    "FPI-1 FPI-2 goes to the most urgent waiter, and its word says who has it (%s)",
    (parameter) => {
      const order: number[] = [];
      const words: number[] = [];
      play(
        function* (env) {
          const word = yield* page(env);
          const self = yield* call(env, SYS_gettid);
          const waiter: Program = function* (own) {
            const priority = Number(own.argv);
            yield* call(own, SYS_sched_setscheduler, yield* call(own, SYS_gettid), 1, priority);
            expect(yield* lock(own, word)).toBe(0);
            order.push(priority);
            words.push(own.mem.ld32(word) - (yield* call(own, SYS_gettid)));
            return yield* unlock(own, word);
          };
          expect(yield* lock(env, word)).toBe(0);
          expect(env.mem.ld32(word)).toBe(self);
          const tids: number[] = [];
          for (const priority of [5, 40, 20]) {
            tids.push(yield* thread(env, waiter, priority));
            yield* sleep(env, 1_000_000);
          }
          expect(env.mem.ld32(word)).toBe(FUTEX_WAITERS + self);
          expect(yield* unlock(env, word)).toBe(0);
          for (const tid of tids) expect(yield* call(env, SYS_thread_join, tid)).toBe(0);
          expect(env.mem.ld32(word)).toBe(0);
          return 0;
        },
        { cmdline: `quiet ${parameter}` },
      );
      expect(order).toEqual([40, 20, 5]);
      expect(words).toEqual([FUTEX_WAITERS, FUTEX_WAITERS, FUTEX_WAITERS]);
    },
  );

  it("FPI-3 refuses a wait that would never end, and nonsense, without a report", () => {
    play(function* (env) {
      const a = yield* page(env);
      const b = a + 8;
      const other: Program = function* (own) {
        expect(yield* lock(own, b)).toBe(0);
        expect(yield* lock(own, a)).toBe(0);
        expect(yield* unlock(own, a)).toBe(0);
        return yield* unlock(own, b);
      };
      expect(yield* lock(env, a)).toBe(0);
      expect(yield* lock(env, a)).toBe(-EDEADLK);
      const tid = yield* thread(env, other);
      yield* sleep(env, 1_000_000);
      expect(yield* lock(env, b)).toBe(-EDEADLK);
      expect(yield* unlock(env, b)).toBe(-EPERM);
      expect(yield* unlock(env, a)).toBe(0);
      expect(yield* call(env, SYS_thread_join, tid)).toBe(0);
      expect(yield* lock(env, a + 1)).toBe(-EINVAL);
      expect(yield* lock(env, 8)).toBe(-EFAULT);
      expect(yield* unlock(env, 8)).toBe(-EFAULT);
      env.mem.st32(a, 12345);
      expect(yield* lock(env, a)).toBe(-ESRCH);
      return 0;
    });
  });

  it("FPI-3 an owner that ends hands over, and says so in the word", () => {
    play(function* (env) {
      const word = yield* page(env);
      const owner: Program = function* (own) {
        yield* lock(own, word);
        yield* sleep(own, 5_000_000);
        return 0;
      };
      yield* thread(env, owner);
      yield* sleep(env, 1_000_000);
      expect(yield* lock(env, word)).toBe(0);
      expect(env.mem.ld32(word)).toBe(FUTEX_WAITERS + FUTEX_OWNER_DIED + (yield* call(env, SYS_gettid)));
      expect(yield* unlock(env, word)).toBe(0);
      return 0;
    });
  });

  it("FPI-2 a waiter that is killed, an owner that is killed, and a word that is unmapped leave nothing", () => {
    play(function* (env) {
      const word = yield* page(env);
      const waiter: Program = function* (own) {
        return -(yield* lock(own, word));
      };
      expect(yield* lock(env, word)).toBe(0);
      yield* thread(env, waiter);
      yield* thread(env, waiter);
      yield* sleep(env, 1_000_000);
      yield* call(env, SYS_munmap, word, 4096);
      expect(yield* unlock(env, word)).toBe(-EFAULT);
      // Its end takes the others with it: the lock goes from one to the next until nobody is left.
      return 0;
    });
  });

  it("inversion: what the urgent thread waits does not depend on the third one", () => {
    const t = bootKernel(Object.fromEntries(builtinPrograms()), { nrCpus: 1 });
    for (const kind of ["", "--plain"]) {
      const args = [...(kind === "" ? [] : [kind]), "--mem", "1M", "--busy", "20000000", "--medium", "2"];
      expect(t.run("/bin/inversion", ...args)).toBe(0);
    }
    const [pi, plain] = [...t.output().matchAll(/high waited (\d+)/g)].map(([, cycles]) => Number(cycles));
    expect(pi).toBeLessThan(2_000_000);
    expect(plain).toBeGreaterThan(15_000_000);
    t.expectNoLeak();
  });
});
