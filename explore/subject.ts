/**
 * What is explored: a machine over an ExplorePort, a program for each CPU, what its interrupts do, and the verdict.
 *
 * The engine runs `body(cpu)` again and again from its start, so whatever a body keeps on the host must be made anew by
 * it (its locals are). All else is in RAM, and is put back between runs.
 */

import type { ExplorePort } from "../kernel/arch/explore_port.ts";
import type { Harts } from "../kernel/arch/harts.ts";

export interface Subject {
  readonly port: ExplorePort;
  readonly harts: Harts;
  /** CPUs that take part, from 0 up; at most the machine's. */
  readonly nrCpus: number;
  /** The program of one CPU, as plain code that may end by throwing. Text: what is wrong; else undefined. */
  body(cpu: number): string | undefined;
  /** What an interrupt on `cpu` does; flags and counts of interrupt entry included. Absent: there are none. */
  readonly interrupt?: ((cpu: number) => string | undefined) | undefined;
  /** Judges RAM when all programs have ended: what is wrong, or null. */
  check(): string | null;
  /** What lies at an address, for people. */
  nameOf(addr: number): string;
  /** The value of a word as people read it, or null for the number itself. */
  showValue?(addr: number, value: number): string | null;
  /** `[addr, bytes]`: words that are looked at without their lock on purpose, and words that handlers put back. */
  readonly hints?: readonly (readonly [number, number])[];
  readonly balanced?: readonly (readonly [number, number])[];
}

/** What a run can end by, besides well. */
export type FailureKind =
  | "race"
  | "interrupt race"
  | "lock usage"
  | "deadlock"
  | "livelock"
  | "oops"
  | "invariant"
  | "nondeterminism";

export interface Failure {
  readonly kind: FailureKind;
  readonly message: string;
  /** The address that it is about, if it is about one. */
  readonly addr?: number;
}

/** An access of a traced run. */
export interface TracedAccess {
  readonly cpu: number;
  readonly isInIrq: boolean;
  readonly kind: number;
  readonly addr: number;
  readonly bytes: number;
  /** The result, or what was stored. */
  readonly value: number;
  /** It stored; then `stored` is what is there now. */
  readonly isStored: boolean;
  readonly stored: number;
  /** It makes the race that ends the run: it was about to happen. */
  readonly isRacing: boolean;
  /** Position in its CPU's log. */
  readonly pos: number;
  /** Kernel functions, innermost first. */
  readonly site: readonly string[];
}
