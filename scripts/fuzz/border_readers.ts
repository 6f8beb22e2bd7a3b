/**
 * The border of recordings: shipped samples, damaged, handed to the readers.
 *
 * A reader answers with a recording whose columns obey its rules (readers/check.ts), or with an `InputError` of at most
 * two printable lines. Anything else is a finding.
 */

import { readFileSync } from "node:fs";
import { packageFile } from "../package_files.ts";
import { checkHeapRecording, checkKernelRecording } from "../readers/check.ts";
import { checkSyscallRecording } from "../readers/check_syscalls.ts";
import { readRecording } from "../readers/detect.ts";
import { inputFromBytes } from "../readers/input.ts";
import { InputError } from "../readers/input_error.ts";
import { createDraw, type Draw } from "./draw.ts";
import type { Border } from "./finding.ts";
import { mutate } from "./mutate.ts";
import { crashOf, type Failure } from "./run_case.ts";
import { shorter, shrink } from "./shrink.ts";

const SAMPLES = ["tar.rep.gz", "tar.mtc.gz", "python-json.rep.gz", "gcc-compile.ftrace.gz"];
/** A recording by ltrace ships nowhere; these lines are one. */
const LTRACE_LINES = [
  "12 malloc(24) = 0x55d0",
  "12 calloc(3, 8) = 0x56d0",
  "13 realloc(0x55d0, 4096) = 0x57d0",
  "12 free(0x56d0) = <void>",
];
const LTRACE = Buffer.from(`${LTRACE_LINES.join("\n")}\n`.repeat(20));
const INPUTS_PER_RUN = 40;
const WINDOW_BYTES = 12 * 1024;
/** Compressed bytes are damaged too: of samples no longer than this. */
const SMALL_BYTES = 64 * 1024;
const SHRINK_BUDGET = 400;

const files = new Map<string, { readonly packed: Uint8Array; readonly bytes: Uint8Array }>();

function sample(name: string) {
  const known = files.get(name);
  if (known !== undefined) return known;
  const packed = readFileSync(packageFile(`samples/${name}`));
  const made = { packed, bytes: inputFromBytes(name, packed).bytes };
  files.set(name, made);
  return made;
}

function drawInput(d: Draw): { readonly name: string; readonly bytes: Uint8Array } {
  if (d.chance(15)) return { name: "ltrace", bytes: mutate(d, LTRACE, LTRACE) };
  const name = d.of(SAMPLES);
  const { packed, bytes } = sample(name);
  if (d.chance(10) && packed.length <= SMALL_BYTES) return { name, bytes: mutate(d, packed, packed) };
  const from = d.chance(70) ? 0 : d.whole(0, bytes.length - 1);
  return {
    name,
    bytes: mutate(d, bytes.subarray(from, from + d.spread(1, WINDOW_BYTES)), sample(d.of(SAMPLES)).bytes),
  };
}

/** What is wrong with an error that is shown to the user; null if nothing. */
export function complaintAbout(text: string): Failure | null {
  const lines = text.split("\n");
  const isFine = lines.length <= 2 && lines.every((line) => !/^\s+at |\p{Cc}/u.test(line)) && text.trim() !== "";
  return isFine
    ? null
    : { kind: "other", what: `a message that nobody can read: ${JSON.stringify(text.slice(0, 80))}` };
}

/** Reads `bytes`; what went wrong, or null. */
export function tryReading(bytes: Uint8Array, lenient: boolean): Failure | null {
  try {
    const recording = readRecording(inputFromBytes("fuzz.txt", bytes), { lenient });
    if (recording.kind === "heap") checkHeapRecording(recording);
    else if (recording.kind === "kernel") checkKernelRecording(recording);
    else checkSyscallRecording(recording);
    return null;
  } catch (error) {
    return error instanceof InputError ? complaintAbout(error.format()) : crashOf(error);
  }
}

export const READER_BORDER: Border = {
  async run(seed, run, note) {
    const d = createDraw(seed, run);
    for (let nrInputs = 1; nrInputs <= INPUTS_PER_RUN; nrInputs++) {
      const { name, bytes } = drawInput(d);
      const lenient = d.chance(30);
      note("damaged recordings", name);
      const failure = tryReading(bytes, lenient);
      if (failure === null) continue;
      const isAlike = async (list: readonly number[]): Promise<boolean> =>
        list.length > 0 && tryReading(Uint8Array.from(list), lenient)?.what === failure.what;
      const { smallest, nrRuns } = await shrink(
        [...bytes] as readonly number[],
        (list) => shorter(list),
        isAlike,
        SHRINK_BUDGET,
      );
      const replay = `slabtown run FILE${lenient ? " --lenient" : ""}`;
      const file = { ending: "txt", content: Uint8Array.from(smallest) };
      return { nrInputs, finding: { failure, file, replay, nrShrinkRuns: nrRuns } };
    }
    return { nrInputs: INPUTS_PER_RUN, finding: null };
  },
};
