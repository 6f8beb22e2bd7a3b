/**
 * What a run was: all that it takes to do it again.
 *
 * Recordings are not copied into a snapshot; they are named as the user named them, with a checksum of what was read.
 */

import { createHash } from "node:crypto";
import * as v from "valibot";
import type { InputFile } from "../readers/input.ts";
import { InputError } from "../readers/input_error.ts";
import { RECORDING_FORMATS, TOUCH_MODES } from "../recording_words.ts";

const text = v.pipe(v.string(), v.maxLength(65_536));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

export const RUN_SCHEMA = v.strictObject({
  machine: v.strictObject({
    nrCpus: count,
    ramBytes: count,
    seed: v.pipe(v.string(), v.maxLength(64)),
    cmdline: v.pipe(v.string(), v.maxLength(4096)),
  }),
  /** Arguments of `run`. */
  targets: v.pipe(v.array(text), v.maxLength(65_536)),
  options: v.strictObject({
    ops: v.optional(text),
    touch: v.optional(v.picklist(TOUCH_MODES)),
    format: v.optional(v.picklist(RECORDING_FORMATS)),
    lenient: v.optional(v.boolean()),
    verify: v.optional(v.boolean()),
    failAlloc: v.optional(v.string()),
    cycles: v.optional(count),
  }),
  /** Files that were read, in this order. */
  files: v.pipe(v.array(v.strictObject({ name: text, sha256: text })), v.maxLength(65_536)),
});

export type RunDefinition = v.InferOutput<typeof RUN_SCHEMA>;
export type FileSum = RunDefinition["files"][number];

/** Name and checksum of an input, as a snapshot keeps them. */
export function fileSum({ path, bytes }: InputFile): FileSum {
  const name = path.slice(path.lastIndexOf("/") + 1);
  return { name, sha256: createHash("sha256").update(bytes).digest("hex") };
}

/** Compares the inputs of a repetition, one after the other, with those of the run. Throws `InputError`. */
export function inputChecker(files: readonly FileSum[]): (file: InputFile) => void {
  let nrRead = 0;
  return (file) => {
    const expected = files[nrRead++];
    if (expected?.sha256 === fileSum(file).sha256) return;
    throw new InputError(file.path, "this file is not what it was when the snapshot was made", {
      hint: "put the old one back, or make the snapshot anew",
    });
  };
}
