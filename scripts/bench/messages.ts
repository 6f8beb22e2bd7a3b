/**
 * What the host of a parallel machine and its threads say to each other.
 */

import type { StressCounts, StressSpec } from "./parallel_stress.ts";
import type { ParallelWorkload } from "./parallel_workloads.ts";

export type Request =
  /** Wipe RAM and boot on it: one thread at a time. */
  | { readonly do: "boot" }
  /** Thread 0: bring the machine to rest and note what is free. */
  | { readonly do: "settle" }
  | {
      readonly do: "run";
      readonly workload: ParallelWorkload;
      readonly nrActive: number;
      readonly warmupPairs: number;
      readonly nrPairs: number;
    }
  | { readonly do: "stress"; readonly spec: StressSpec }
  /** Thread 0, when all others rest: walk every invariant, and compare with what was free. */
  | { readonly do: "finish" };

export interface RanReply {
  readonly kind: "ran";
  readonly pairs: number;
  /** The host's monotonic clock, milliseconds. */
  readonly startMs: number;
  readonly endMs: number;
  /** CPU time of the whole process between the two, milliseconds; of thread 0, else 0. */
  readonly cpuMs: number;
  /** Lock address, and how often this thread found it taken. */
  readonly contended: readonly (readonly [lock: number, times: number])[];
  /** Times that this thread slept on a lock. */
  readonly sleeps: number;
  /** Times that CPUs met at a depot; of thread 0, else 0. */
  readonly depotBusy: number;
  /** Times that a per-CPU page list was in other hands. */
  readonly pcpBusy: number;
}

export type Reply =
  | { readonly kind: "booted"; readonly checksum: number; readonly ms: number }
  | { readonly kind: "settled"; readonly names: readonly (readonly [lock: number, name: string])[] }
  | RanReply
  | { readonly kind: "stressed"; readonly counts: StressCounts }
  /** What is wrong with the machine, or null. */
  | { readonly kind: "finished"; readonly fault: string | null }
  | { readonly kind: "failed"; readonly message: string; readonly stack: string };
