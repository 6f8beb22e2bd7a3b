/**
 * inversion: three threads and a lock. How long the most urgent one waits while the owner of the lock needs memory.
 *
 *      low    (fair)      lock ── touches memory: faults, reclaim, swap ── unlock
 *      medium (FIFO 10)          ── computes for a long time ──
 *      high   (FIFO 50)          wants the lock ······ waits ······ has it
 *
 * On one CPU medium runs before low, so high waits for medium, which has nothing to do with the lock: an inversion.
 * With FUTEX_LOCK_PI low inherits the priority of high for as long as it owns the lock. With --plain the lock is made
 * of FUTEX_WAIT and FUTEX_WAKE, of which the kernel does not know the owner.
 *
 * What is measured goes to the observer of the run too: kinds lock_pi and lock_plain of its summary.
 */

import { PAGE_SIZE } from "../../kernel/params.ts";
import { PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from "../../kernel/uapi/mman.ts";
import { OBSERVED_LOCK_PI, OBSERVED_LOCK_PLAIN, type ProgramEnv } from "../../kernel/uapi/program.ts";
import {
  FUTEX_LOCK_PI,
  FUTEX_UNLOCK_PI,
  FUTEX_WAIT,
  FUTEX_WAKE,
  SYS_clone,
  SYS_futex,
  SYS_gettid,
  SYS_mmap,
  SYS_munmap,
  SYS_nanosleep,
  SYS_sched_setscheduler,
  SYS_thread_join,
} from "../../kernel/uapi/syscall.ts";
import { parseCount, parseOptions, parseSize } from "./arguments.ts";
import { EXIT_FAILED, EXIT_OK, type Tool, type ToolDefinition } from "./tool.ts";

const MIB = 1024 * 1024;
const POLICY_FIFO = 1;
const HIGH = 50;
const MEDIUM = 10;
const POLL_CYCLES = 100_000;
/** What a medium thread works on. */
const BLOCK_BYTES = 64 * 1024;

/** Shared words: the lock; does low have it, or never will; does a medium thread compute; may low go on? */
const LOCK = 0;
const IS_HELD = 4;
const IS_BUSY = 8;
const IS_HIGH_READY = 12;

type Call = (nr: number, ...args: number[]) => Sleeping<number>;
const callOf = (env: ProgramEnv): Call =>
  function* (nr, ...args) {
    const result = env.syscall(nr, ...args);
    return typeof result === "number" ? result : yield* result;
  };

interface Mutex {
  lock(env: ProgramEnv, word: number): Sleeping<number>;
  unlock(env: ProgramEnv, word: number): Sleeping<number>;
}

/** Between a load and the store behind it nothing comes in this machine: a compare-and-swap. */
const swap = ({ mem }: ProgramEnv, word: number, from: number, to: number): boolean => {
  if (mem.ld32(word) !== from) return false;
  mem.st32(word, to);
  return true;
};

const PI_MUTEX: Mutex = {
  *lock(env, word) {
    const tid = yield* callOf(env)(SYS_gettid);
    return swap(env, word, 0, tid) ? 0 : yield* callOf(env)(SYS_futex, word, FUTEX_LOCK_PI, 0);
  },
  *unlock(env, word) {
    const tid = yield* callOf(env)(SYS_gettid);
    return swap(env, word, tid, 0) ? 0 : yield* callOf(env)(SYS_futex, word, FUTEX_UNLOCK_PI, 0);
  },
};

/** 0 free, 1 taken, 2 taken and waited for. */
const PLAIN_MUTEX: Mutex = {
  *lock(env, word) {
    if (swap(env, word, 0, 1)) return 0;
    while (env.mem.ld32(word) !== 0) {
      env.mem.st32(word, 2);
      yield* callOf(env)(SYS_futex, word, FUTEX_WAIT, 2);
    }
    env.mem.st32(word, 2);
    return 0;
  },
  *unlock(env, word) {
    const wasWaitedFor = env.mem.ld32(word) === 2;
    env.mem.st32(word, 0);
    return wasWaitedFor ? yield* callOf(env)(SYS_futex, word, FUTEX_WAKE, 1) : 0;
  },
};

interface Plan {
  readonly mutex: Mutex;
  readonly bytes: number;
  readonly nrMedium: number;
  readonly mediumCycles: number;
  readonly shared: number;
}

/** Takes the lock, uses memory under it, gives both back. */
const low = ({ mutex, bytes, shared }: Plan) =>
  function* (env: ProgramEnv): Sleeping<number> {
    const isLocked = (yield* mutex.lock(env, shared + LOCK)) === 0;
    env.mem.st32(shared + IS_HELD, 1);
    if (!isLocked) return 1;
    const flags = MAP_PRIVATE | MAP_ANONYMOUS;
    const memory = yield* callOf(env)(SYS_mmap, 0, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    while (env.mem.ld32(shared + IS_HIGH_READY) === 0) yield* callOf(env)(SYS_nanosleep, POLL_CYCLES);
    for (let at = 0; memory > 0 && at < bytes; at += PAGE_SIZE) {
      env.mem.st32(memory + at, at);
      if (env.timeIsUp()) yield PREEMPTED;
    }
    const failed = yield* mutex.unlock(env, shared + LOCK);
    if (memory > 0) yield* callOf(env)(SYS_munmap, memory, bytes);
    return failed < 0 || memory < 0 ? 1 : 0;
  };

/** Computes, as a task that is more urgent than low. */
const medium = ({ mediumCycles, shared }: Plan) =>
  function* (env: ProgramEnv): Sleeping<number> {
    env.mem.st32(shared + IS_BUSY, 1);
    const flags = MAP_PRIVATE | MAP_ANONYMOUS;
    const block = yield* callOf(env)(SYS_mmap, 0, BLOCK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    for (const start = env.now(); block > 0 && env.now() - start < mediumCycles; ) {
      env.mem.fill(block, 1, BLOCK_BYTES);
      if (env.timeIsUp()) yield PREEMPTED;
    }
    return block > 0 ? 0 : 1;
  };

/** Looks now and then whether `isSo`, if all threads could be started. */
function* until(tool: Tool, tids: readonly number[], isSo: () => boolean): Sleeping<void> {
  while (tids.every((tid) => tid > 0) && !isSo()) yield* tool.sys(SYS_nanosleep, POLL_CYCLES);
}

/** One round: cycles that high waited, or −1 if something failed. */
function* round(tool: Tool, plan: Plan): Sleeping<number> {
  const { env } = tool;
  const { shared, mutex } = plan;
  for (const word of [IS_HELD, IS_BUSY, IS_HIGH_READY]) env.mem.st32(shared + word, 0);
  const tids = [yield* tool.sys(SYS_clone, 0, 0, env.entryOf(low(plan)), 0)];
  yield* until(tool, tids, () => env.mem.ld32(shared + IS_HELD) === 1);
  for (let i = 0; i < plan.nrMedium; i++) {
    const tid = yield* tool.sys(SYS_clone, 0, 0, env.entryOf(medium(plan)), 0);
    tids.push(tid);
    yield* tool.sys(SYS_sched_setscheduler, tid, POLICY_FIFO, MEDIUM);
  }
  yield* until(tool, tids, () => plan.nrMedium === 0 || env.mem.ld32(shared + IS_BUSY) === 1);
  env.mem.st32(shared + IS_HIGH_READY, 1);
  const start = env.now();
  let failed = yield* mutex.lock(env, shared + LOCK);
  const waited = env.now() - start;
  failed = Math.min(failed, yield* mutex.unlock(env, shared + LOCK));
  for (const tid of tids) failed = Math.min(failed, tid < 0 ? tid : -(yield* tool.sys(SYS_thread_join, tid)));
  return failed < 0 ? failed : waited;
}

export const INVERSION: ToolDefinition = {
  name: "inversion",
  synopsis: "[--plain] [--mem SIZE] [--medium N] [--busy CYCLES] [--rounds N]",
  summary: "how long an urgent thread waits for a lock, with priority inheritance or --plain",
  *main(tool) {
    const values = { "--mem": parseSize, "--medium": parseCount, "--busy": parseCount, "--rounds": parseCount };
    const options = parseOptions(tool.args, { values, flags: ["--plain"] });
    const nrRounds = options?.values.get("--rounds") ?? 1;
    const nrMedium = options?.values.get("--medium") ?? 1;
    const bytes = options?.values.get("--mem") ?? 4 * MIB;
    if (options === null || nrRounds > 1000 || nrMedium > 16 || bytes < PAGE_SIZE) return yield* tool.usage();
    const isPlain = options.flags.has("--plain");
    const flags = MAP_PRIVATE | MAP_ANONYMOUS;
    const shared = yield* tool.sys(SYS_mmap, 0, PAGE_SIZE, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (shared < 0) return yield* failedWith(tool, shared);
    const mediumCycles = options.values.get("--busy") ?? 50_000_000;
    const plan = { mutex: isPlain ? PLAIN_MUTEX : PI_MUTEX, bytes, nrMedium, mediumCycles, shared };
    yield* tool.sys(SYS_sched_setscheduler, yield* tool.sys(SYS_gettid), POLICY_FIFO, HIGH);
    let worst = 0;
    for (let nr = 0; nr < nrRounds; nr++) {
      const waited = yield* round(tool, plan);
      if (waited < 0) return yield* failedWith(tool, waited);
      tool.env.observer?.operation(isPlain ? OBSERVED_LOCK_PLAIN : OBSERVED_LOCK_PI, waited, false);
      worst = Math.max(worst, waited);
    }
    const kind = isPlain ? "without priority inheritance" : "with priority inheritance";
    yield* tool.out(`inversion: ${kind}: high waited ${worst} cycles at the longest of ${nrRounds}\n`);
    return EXIT_OK;
  },
};

function* failedWith(tool: Tool, error: number): Sleeping<number> {
  yield* tool.complain(error === -1 ? "a thread failed" : strerror(error));
  return EXIT_FAILED;
}
