/**
 * What a program sees of the machine: its memory, its registers, and the door into the kernel.
 *
 * A program is a generator. Between two `yield`s it is user code running on one CPU; it gives the CPU up by yielding
 * PREEMPTED when `timeIsUp()`, or inside a system call that sleeps. Its memory is really its own: every load and store
 * goes through the page tables of its process, and one that is not allowed kills it (SIGSEGV), unwinding the generator.
 *
 * System calls take integers only, as on hardware: strings and buffers are passed as user pointers, functions as
 * text addresses (`entryOf`). `userland/libc.ts` makes that comfortable.
 */

import type { MaySleep, Sleeping, UserPtr } from "../types.ts";

/** Loads and stores in user mode. Values are unsigned; addresses need the natural alignment of the access. */
export interface UserMemory {
  ld8(va: number): number;
  ld32(va: number): number;
  st8(va: number, value: number): void;
  st32(va: number, value: number): void;
  /** memset. */
  fill(va: number, byte: number, bytes: number): void;
  /** memmove. */
  copy(dst: number, src: number, bytes: number): void;
  read(va: number, bytes: number): Uint8Array;
  write(va: number, source: Uint8Array): void;
}

export interface ProgramEnv {
  readonly mem: UserMemory;
  /** Enters the kernel: result ≥ 0, or −errno. Iterate the result when it is an object (it has to sleep). */
  syscall(nr: number, a0?: number, a1?: number, a2?: number, a3?: number, a4?: number, a5?: number): MaySleep<number>;
  /** True when the program should `yield PREEMPTED` soon: its time slice is over or another CPU is behind. */
  timeIsUp(): boolean;
  /** rdcycle: the local clock of the CPU it runs on. */
  now(): number;
  /**
   * Number of arguments, and address of the array of 64-bit pointers to them, as the kernel left them on the stack. A
   * thread has none: its `argv` is the number that whoever started it passed.
   */
  readonly argc: number;
  readonly argv: UserPtr;
  /** The text address of a function, to be the entry of a thread (SYS_clone). */
  entryOf(fn: Program): UserPtr;
  /** A device of the host for measurements and checks: costs no virtual time and is no part of the simulation. */
  readonly observer: ProgramObserver | undefined;
}

/** Kinds that programs report beside those of heap recordings: waits for locks, with priority inheritance and not. */
export const OBSERVED_LOCK_PI = 6;
export const OBSERVED_LOCK_PLAIN = 7;

/** Receives what a replayer measures. Lives on the host. */
export interface ProgramObserver {
  /** One operation of kind `kind` (an index of the observer's own) took `cycles`; `failed` if it returned an error. */
  operation(kind: number, cycles: number, failed: boolean): void;
  /** Process `pid` is about to end or to become another program: the last moment to look at it. */
  beforeEnd?(pid: number): void;
}

/** The code of a program or thread; what it returns is its exit status (0-255). */
export type Program = (env: ProgramEnv) => Sleeping<number>;
