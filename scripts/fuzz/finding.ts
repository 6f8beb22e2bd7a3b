/**
 * Findings: what a run of the fuzzer found, in a form that can be written to a file and shown again.
 */

import type { Failure } from "./run_case.ts";

export const FUZZ_TARGETS = ["machines", "syscalls", "readers", "scenarios", "cli"] as const;
export type FuzzTarget = (typeof FUZZ_TARGETS)[number];
/** Those whose runs are machines. */
export type MachineTarget = "machines" | "syscalls";

export interface Finding {
  readonly run: number;
  readonly target: FuzzTarget;
  readonly failure: Failure;
  /** Ending of the file that shows it, and its content. */
  readonly file: { readonly ending: string; readonly content: string | Uint8Array };
  /** How to show it again, with FILE for the file's name. */
  readonly replay: string;
  readonly nrShrinkRuns: number;
}

/** What a border run found, if anything. */
export interface BorderFinding {
  readonly failure: Failure;
  readonly file: Finding["file"];
  readonly replay: string;
  readonly nrShrinkRuns: number;
}

/** Fuzzing one border of the program. */
export interface Border {
  /** A run: some inputs, the first bad one made small. `note` counts what was covered. */
  run(
    seed: string,
    run: number,
    note: (group: string, name: string) => void,
  ): Promise<{
    readonly nrInputs: number;
    readonly finding: BorderFinding | null;
  }>;
}
