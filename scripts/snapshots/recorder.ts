/**
 * The recorder: marks of a run while it runs, and the snapshot file when it has ended.
 *
 *   boot ─▶ mark 0 ─▶ mark 1 at the first step at or after N cycles ─▶ mark 2 … 2N ─▶ … ─▶ last mark at the end ─▶ file
 *
 * Mark 0 tells whether it is the same slabtown that repeats the run: up to there nothing but its code decides.
 */

import { rename, rm, writeFile } from "node:fs/promises";
import type { Kernel } from "../../kernel/entry/kernel.ts";
import type { RunWatch } from "../run_workloads.ts";
import { UsageError } from "../usage_error.ts";
import { takeMark } from "./mark.ts";
import { createMarkChain } from "./mark_chain.ts";
import type { RunDefinition } from "./run_definition.ts";
import { encode, imageOf, type RamImage } from "./snapshot_file.ts";

/** Marks of a run, besides the first and the last. */
export const MAX_MARKS = 1000;

export interface Recorder {
  readonly watch: RunWatch;
  /** Marks taken, without that of boot. */
  nrMarks(): number;
  /** Marks that were due beyond MAX_MARKS. */
  nrLeftOut(): number;
  /** The file, once the run has ended. */
  finish(run: RunDefinition, slabtown: string): Uint8Array;
}

/** A recorder with a mark every `everyCycles`; undefined: only at boot and at the end. */
export function createRecorder(everyCycles: number | undefined): Recorder {
  const chain = createMarkChain();
  const every = everyCycles ?? Number.POSITIVE_INFINITY;
  let image: RamImage = { frames: [], pieces: [] };
  let next = every;
  let nrLeftOut = 0;
  const mark = (kernel: Kernel, name: string): void =>
    chain.add(takeMark(kernel, { number: chain.stored.length, name }));
  const watch: RunWatch = {
    begin(kernel) {
      mark(kernel, "boot");
      next = (Math.floor(kernel.now() / every) + 1) * every;
      return "go on";
    },
    isDue: (kernel) => kernel.now() >= next,
    look(kernel) {
      next = (Math.floor(kernel.now() / every) + 1) * every;
      if (chain.stored.length <= MAX_MARKS) mark(kernel, "");
      else nrLeftOut++;
      return "go on";
    },
    end(kernel) {
      mark(kernel, "end");
      image = imageOf(kernel);
    },
  };
  return {
    watch,
    nrMarks: () => chain.stored.length - 1,
    nrLeftOut: () => nrLeftOut,
    finish: (run, slabtown) => encode({ slabtown, run, marks: chain.stored, image }),
  };
}

/** Writes a file in one step: never half of it. Throws `UsageError` if it cannot be written. */
export async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    await writeFile(temporary, bytes);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    const reason = error instanceof Error ? error.message.replace(/,.*/, "") : String(error);
    throw new UsageError(`${path} cannot be written: ${reason}`, "name a file in a directory that is yours");
  }
}
