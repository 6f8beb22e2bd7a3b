/**
 * What a child process of the bench is asked to do, and what it answers: one line of JSON each.
 */

export interface StreamTask {
  readonly do: "stream";
  /** Workload, of single_workloads.ts. */
  readonly id: string;
  /** `slabtown`, `loop alone`, or a peer of js_peers.ts. */
  readonly subject: string;
  readonly seed: string;
  /** The stream, or null: pairs. */
  readonly file: string | null;
  readonly nrWarmup: number;
  readonly nrOps: number;
  /** CPU time for each of: filling, warming up, the timed operations. */
  readonly maxMs: number;
  /** AssemblyScript's allocator, compiled. */
  readonly compiled: string | null;
  /** Test only: every block is compared with all others that live. */
  readonly isChecking?: boolean;
}

export type GrowthSubject = "buddy" | "kmalloc" | "memory";

export type ChildTask =
  | StreamTask
  /** Draws the stream of workload `id` into `file`. */
  | { readonly do: "draw"; readonly id: string; readonly seed: string; readonly nrOps: number; readonly file: string }
  | { readonly do: "compile"; readonly file: string }
  | {
      readonly do: "draw-growth";
      readonly subject: GrowthSubject;
      readonly ramBytes: number;
      readonly seed: string;
      readonly nrOps: number;
      readonly file: string;
    }
  | {
      readonly do: "growth";
      readonly subject: GrowthSubject;
      readonly ramBytes: number;
      readonly seed: string;
      readonly file: string;
      readonly nrWarmup: number;
      readonly nrOps: number;
    }
  | { readonly do: "metadata"; readonly ramBytes: number; readonly seed: string }
  | { readonly do: "recording" | "syscalls"; readonly file: string; readonly seed: string }
  | { readonly do: "getpid"; readonly seed: string; readonly nrCalls: number }
  | { readonly do: "memory" | "save" | "restore" | "reclaim"; readonly seed: string }
  | { readonly do: "sweep"; readonly seed: string; readonly nrRuns: number };

/** One sample. */
export interface Sample {
  /** In the figure's unit, by the clock and (if it is a time) by CPU time. */
  readonly value: number;
  readonly cpu: number | null;
  /** The worst chunk of operations, in the same unit; null where there are no chunks. */
  readonly worst: number | null;
  /** Operations that were timed. */
  readonly nrOps: number;
  /** Allocations that failed although memory was there. */
  readonly failures: number;
  /** Violated invariant afterwards, or null. */
  readonly fault: string | null;
}
