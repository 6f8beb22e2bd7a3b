/**
 * The run that went wrong, access by access, one column for each CPU; interrupts with a bar.
 *
 *     CPU 0                       CPU 1
 *     lock 0
 *     load 3 = 1
 *     │ lock 0: CPU 0 has it
 */

import type { Violation } from "../../kit/lab_code.ts";
import type { Observation, Program } from "../../kit/program.ts";
import { LOAD, LOCK, STORE, UNLOCK } from "./history.ts";
import { firstWrong } from "./judge.ts";

const COLUMN = 30;
const MAX_ROWS = 12;
const NR_FIELDS = 5;

function accessText(kind: number, place: number, value: number): string {
  if (kind === LOAD) return `load ${place} = ${value}`;
  if (kind === STORE) return `store ${place} ← ${value}`;
  if (kind === LOCK) return `lock ${place}`;
  return kind === UNLOCK ? `unlock ${place}` : `lock ${place}: CPU ${value} has it`;
}

/** At most 13 lines: the last accesses, which are those that matter. */
export function picture(program: Program, observation: Observation, violation: Violation): readonly string[] {
  if (program.ops[violation.op]?.[0] !== "explore") return [];
  const found = firstWrong(program, observation.claims[violation.op]);
  if (found === null) return [];
  const { log, schedule } = found.run;
  const rows: string[] = [];
  let nrCpus = 1;
  for (let at = 0; at + NR_FIELDS <= log.length; at += NR_FIELDS) {
    const [cpu = 0, kind = 0, place = 0, value = 0, isInIrq = 0] = log.slice(at, at + NR_FIELDS);
    nrCpus = Math.max(nrCpus, cpu + 1);
    rows.push(`${" ".repeat(COLUMN * cpu)}${isInIrq === 1 ? "│ " : ""}${accessText(kind, place, value)}`);
  }
  if (rows.length === 0 || schedule === "") return [];
  const head = Array.from({ length: nrCpus }, (_, cpu) => `CPU ${cpu}`.padEnd(COLUMN)).join("");
  const shown = rows.length <= MAX_ROWS ? rows : ["⋮", ...rows.slice(1 - MAX_ROWS)];
  return [`${head.trimEnd()}${schedule === "-" ? "" : `    (schedule ${schedule})`}`, ...shown];
}
