/**
 * What the driver of lab 7 is given and hands out.
 */

import type { RunHistory } from "../../kit/history.ts";

export interface MagazinesConfig {
  readonly objects: number;
  /** Of a magazine. */
  readonly size: number;
  /** Programs that run before, one CPU after the other, as in `ppp|p`: what they hold at the end they keep. */
  readonly before?: string;
  /** What an interrupt does; none if absent. */
  readonly interrupt?: string;
  readonly nrCpus?: number;
}

/** Operations are `alloc`, `free`, `drain`; those of interrupts have 8 + their CPU as CPU. */
export interface History extends RunHistory {
  /** What each CPU's alloc gave when all had ended, up to its first 0. */
  readonly left: readonly (readonly (number | string)[])[];
  /** Accesses by five numbers: CPU, kind, word or lock, value, 1 in an interrupt. */
  readonly log: readonly number[];
}

/** Kinds of accesses in a log. */
export const LOAD = 0;
export const STORE = 1;
export const LOCK = 2;
export const UNLOCK = 3;
export const WAIT = 4;

/** Threads of interrupts are those of their CPUs, and this. */
export const IRQ_THREAD = 8;
