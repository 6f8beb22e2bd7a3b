/**
 * The run that went wrong, access by access, one column for each CPU.
 *
 *     CPU 0                    CPU 1
 *     load 0 = 0x101
 *                              cas 0: 0x101 → 0x202
 *     cas 0: 0x101 refused, is 0x202
 */

import type { Violation } from "../../kit/lab_code.ts";
import type { Observation, Program } from "../../kit/program.ts";
import { firstWrong } from "./judge.ts";

const COLUMN = 34;
const MAX_ROWS = 13;

const show = (value: number): string => (value > 255 ? `0x${value.toString(16)}` : String(value));

function accessText([, kind, word, a, b, result]: readonly number[]): string {
  if (kind === 0) return `load ${word} = ${show(result as number)}`;
  if (kind === 1) return `store ${word} ← ${show(a as number)}`;
  if (result === a) return `cas ${word}: ${show(a as number)} → ${show(b as number)}`;
  return `cas ${word}: ${show(a as number)} refused, is ${show(result as number)}`;
}

/** At most 15 lines. */
export function picture(program: Program, observation: Observation, violation: Violation): readonly string[] {
  const found = firstWrong(program, observation.claims[violation.op]);
  if (found === null) return [];
  const { log, schedule } = found.run;
  const rows: string[] = [];
  let nrCpus = 1;
  for (let at = 0; at + 6 <= log.length; at += 6) {
    const access = log.slice(at, at + 6);
    const cpu = access[0] as number;
    nrCpus = Math.max(nrCpus, cpu + 1);
    rows.push(`${" ".repeat(COLUMN * cpu)}${accessText(access)}`);
  }
  if (rows.length === 0 || nrCpus === 1) return [];
  const head = Array.from({ length: nrCpus }, (_, cpu) => `CPU ${cpu}`.padEnd(COLUMN)).join("");
  const shown = rows.length <= MAX_ROWS ? rows : [...rows.slice(0, MAX_ROWS - 1), "⋮"];
  return [`${head.trimEnd()}${schedule === "-" ? "" : `    (schedule ${schedule})`}`, ...shown];
}
