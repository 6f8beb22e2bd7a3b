/**
 * Signals for programs: what libc's sigaction, sigprocmask and sigsuspend do, and the siginfo of a handler.
 *
 * A handler is a function like the program itself. It finds its signal in argc and its siginfo by argv, and shares with
 * the program what functions of one text share. It may leave by throwing to who catches (siglongjmp).
 *
 * The structures lie in `buffer`, 64 bytes of the program's memory.
 */

import type { Sleeping } from "../kernel/types.ts";
import type { Program, ProgramEnv } from "../kernel/uapi/program.ts";
import { SI_ADDR, SI_CODE, SI_PID, SI_STATUS, SIGACTION_BYTES } from "../kernel/uapi/signal.ts";
import { SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigsuspend } from "../kernel/uapi/syscall.ts";

const SIGSET_BYTES = 8;

export interface SigInfo {
  readonly signal: number;
  readonly code: number;
  /** Of a fault: what was accessed. */
  readonly addr: number;
  /** Of SIGCHLD and kill(): whose. */
  readonly pid: number;
  readonly status: number;
}

function put64({ mem }: ProgramEnv, at: number, value: number): void {
  mem.st32(at, value % 2 ** 32);
  mem.st32(at + 4, Math.floor(value / 2 ** 32));
}

function putSet({ mem }: ProgramEnv, at: number, signals: readonly number[]): void {
  mem.st32(at, 0);
  mem.st32(at + 4, 0);
  for (const signal of signals) {
    const word = at + 4 * ((signal - 1) >>> 5);
    mem.st32(word, (mem.ld32(word) | (1 << ((signal - 1) & 31))) >>> 0);
  }
}

function* call(env: ProgramEnv, nr: number, ...args: number[]): Sleeping<number> {
  const result = env.syscall(nr, ...args);
  return typeof result === "number" ? result : yield* result;
}

/** `handler`: a function, SIG_DFL or SIG_IGN. `mask`: what else is blocked in it. 0, or −errno. */
export function* sigaction(
  env: ProgramEnv,
  buffer: number,
  signal: number,
  handler: Program | number,
  flags = 0,
  mask: readonly number[] = [],
): Sleeping<number> {
  put64(env, buffer, typeof handler === "number" ? handler : env.entryOf(handler));
  put64(env, buffer + 8, flags);
  putSet(env, buffer + 16, mask);
  return yield* call(env, SYS_rt_sigaction, signal, buffer, buffer + SIGACTION_BYTES, SIGSET_BYTES);
}

/** SIG_BLOCK, SIG_UNBLOCK or SIG_SETMASK: 0, or −errno. */
export function* sigprocmask(
  env: ProgramEnv,
  buffer: number,
  how: number,
  signals: readonly number[],
): Sleeping<number> {
  putSet(env, buffer, signals);
  return yield* call(env, SYS_rt_sigprocmask, how, buffer, 0, SIGSET_BYTES);
}

/** Sleeps with the mask `signals` until a handler has run: −EINTR. */
export function* sigsuspend(env: ProgramEnv, buffer: number, signals: readonly number[]): Sleeping<number> {
  putSet(env, buffer, signals);
  return yield* call(env, SYS_rt_sigsuspend, buffer, SIGSET_BYTES);
}

/** In a handler: why. */
export const siginfoOf = ({ mem, argv }: ProgramEnv): SigInfo => ({
  signal: mem.ld32(argv),
  code: mem.ld32(argv + SI_CODE),
  addr: mem.ld32(argv + SI_ADDR) + mem.ld32(argv + SI_ADDR + 4) * 2 ** 32,
  pid: mem.ld32(argv + SI_PID),
  status: mem.ld32(argv + SI_STATUS),
});
