/**
 * A failing check as the student reads it: at most 25 lines, and the message is the product.
 *
 *   ✗ buddy.merge-order  0/8   BUD-4: two blocks merge only if they are buddies of the same order
 *       pages 4..7 belong to two owners: A (op 2, order 2) and B (op 6, order 3)
 *       minimal trace (6 of 412 ops, 16 frames): X=alloc(2) A=alloc(2) …
 *       …the picture…
 *       usual cause: …
 *       replay: slabtown lab replay buddy --case merge-order --seed 0x2f      hint: slabtown lab hint buddy 1
 */

import type { Check, LabCode } from "../../labs/kit/lab_code.ts";
import { namesOf } from "../../labs/kit/names.ts";
import type { Program } from "../../labs/kit/program.ts";
import { printable } from "../readers/input_error.ts";
import type { Failure } from "./run_check.ts";

export const MAX_LINES = 25;
const WIDTH = 116;

/** The operations, one text each. */
export function describeOps(code: LabCode, program: Program): string[] {
  const name = namesOf(program, code.hasName);
  return program.ops.map((op, index) => code.describe(op, index, name));
}

export interface FailureTextRequest {
  readonly code: LabCode;
  /** Short name of the lab. */
  readonly lab: string;
  readonly check: Check;
  readonly failure: Failure;
  /** `0/8`. */
  readonly score: string;
  /** False for hidden checks: rule and message, no trace. */
  readonly showsTrace: boolean;
}

/** The lines under (and with) the headline of a failed check. */
export function failureLines(request: FailureTextRequest): string[] {
  const { code, lab, check, failure, score, showsTrace } = request;
  const { violation, stop, program, observation } = failure;
  const rule = violation?.rule ?? check.rule;
  const lines = [`✗ ${lab}.${check.id}  ${score}   ${rule}: ${check.title}`];
  const say = (text: string): void => {
    lines.push(...wrap(text, WIDTH - 4).map((line) => `    ${line}`));
  };
  if (violation !== null) say(printable(violation.message));
  else if (stop !== null) say(stopText(code, failure));
  if (showsTrace && program.ops.length > 0) {
    const config = code.describeConfig(program.config);
    say(
      `minimal trace (${program.ops.length} of ${failure.nrOps} ops, ${config}): ` +
        describeOps(code, program).join(" "),
    );
    if (violation !== null) lines.push(...code.picture(program, observation, violation).map((line) => `    ${line}`));
  }
  for (const line of observation.log.slice(0, 3)) say(`printed: ${printable(line)}`);
  if (violation !== null) say(`usual cause: ${check.cause}`);
  const replay = `slabtown lab replay ${lab} --case ${check.id} --seed 0x${failure.seed.toString(16)}`;
  const step = violation === null ? "" : ` --step ${violation.op + 1}`;
  if (showsTrace) say(`replay: ${replay}${step}`);
  say(`hint: slabtown lab hint ${lab} 1`);
  return lines.length <= MAX_LINES ? lines : [...lines.slice(0, MAX_LINES - 2), ...lines.slice(-2)];
}

function stopText(code: LabCode, { stop, program }: Failure): string {
  if (stop === null) return "";
  const at =
    stop.op < 0 || program.ops.length === 0
      ? "before the first operation"
      : `in ${describeOps(code, program)[stop.op] ?? "an operation"}`;
  const where = stop.where === "" ? "" : `${stop.where}: `;
  if (stop.kind === "steps") return `${at}: ${stop.message}`;
  return `${where}${printable(stop.message)} (${at})`;
}

/** Lines of at most `width` columns, cut at blanks. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = `  ${word}`;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  if (line !== "") lines.push(line);
  return lines;
}
