/**
 * Is the search worth it? For each wrong solution that a search has to find: the least bound on preemptions with
 * which it is found, in how many executions, and how often one execution in random order meets it.
 *
 * A concurrency bug that needs more than BOUND preemptions is beyond what checks search, and is a finding.
 */

import type { Check, Exploration, LabCode } from "../../labs/kit/lab_code.ts";
import type { Observation, Program } from "../../labs/kit/program.ts";
import { type Lab, labCode, wrongSolutions } from "./lab_folder.ts";
import { wrongFiles } from "./own_tests.ts";
import { findingOf, programOf, runsOf, stepLimitOf } from "./run_check.ts";
import type { Sandbox } from "./sandbox.ts";
import { putUnderTest, type UnderTest } from "./under_test.ts";

const BOUND = 3;
/** Executions in random order for each wrong solution. */
const NR_RANDOM = 200;

export interface Adequacy {
  readonly wrong: string;
  readonly check: string;
  /** −1: not found with BOUND. */
  readonly bound: number;
  readonly executions: number;
  /** Of NR_RANDOM executions in random order. */
  readonly nrRandom: number;
}

export interface AdequacyRequest {
  readonly lab: Lab;
  readonly sandbox: Sandbox;
  readonly onProgress?: (text: string) => void;
}

/** Empty for a lab that does not explore. */
export async function adequacyOf({ lab, sandbox, onProgress }: AdequacyRequest): Promise<readonly Adequacy[]> {
  const code = await labCode(lab);
  const { exploration } = code;
  if (exploration === undefined) return [];
  const { wrong } = wrongSolutions(lab);
  const rows: Adequacy[] = [];
  for (const [name, entry] of Object.entries(wrong)) {
    const check = code.checks.find(({ id }) => id === entry.check);
    if (check === undefined) continue;
    onProgress?.(`adequacy: ${name}`);
    const target = await putUnderTest(lab, sandbox, wrongFiles(lab, name));
    const row = await measure(code, exploration, check, target, name);
    if (row !== null) rows.push(row);
  }
  return rows;
}

/** Null where it is no matter of order: found without any preemption, or by a check that does not search. */
async function measure(
  code: LabCode,
  exploration: Exploration,
  check: Check,
  target: UnderTest,
  wrong: string,
): Promise<Adequacy | null> {
  const fails = (program: Program, observation: Observation | undefined): boolean =>
    observation !== undefined && findingOf(code, check, program, observation).status === "failed";
  const seeds = Array.from({ length: runsOf(check, "full") }, (_, i) => i);
  const programs = seeds.map((seed) => programOf(check, seed));
  for (let bound = 0; bound <= BOUND; bound++) {
    const bounded = programs.flatMap((program) => exploration.withBound(program, bound) ?? []);
    if (bounded.length === 0) return null;
    const observations = await target.run(bounded, stepLimitOf(check));
    const at = bounded.findIndex((program, i) => fails(program, observations[i]));
    if (at < 0) continue;
    if (bound === 0) return null;
    const random = Array.from({ length: NR_RANDOM }, (_, seed) => exploration.atRandom(bounded[at] as Program, seed));
    const met = await target.run(random, stepLimitOf(check));
    return {
      wrong,
      check: check.id,
      bound,
      executions: exploration.executions(observations[at] as Observation),
      nrRandom: random.filter((program, i) => fails(program, met[i])).length,
    };
  }
  return { wrong, check: check.id, bound: -1, executions: 0, nrRandom: 0 };
}

/** What is not found in bounds. */
export function adequacyFindings(rows: readonly Adequacy[]): readonly string[] {
  return rows.filter(({ bound }) => bound < 0).map(({ wrong }) => `wrong/${wrong}: not found with bound ${BOUND}`);
}

export function adequacyText(rows: readonly Adequacy[]): string {
  const lines = rows.map(({ wrong, check, bound, executions, nrRandom }) => {
    const found = bound < 0 ? `not found with bound ${BOUND}` : `bound ${bound}, ${executions} executions`;
    const percent = ((100 * nrRandom) / NR_RANDOM).toFixed(1);
    return `${wrong.padEnd(24)} ${check.padEnd(16)} ${found.padEnd(28)} random: ${percent} % of executions`;
  });
  return `${lines.join("\n")}\n`;
}
