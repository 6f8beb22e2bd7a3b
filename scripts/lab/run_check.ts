/**
 * Running one check over one implementation, and shrinking what fails.
 */

import { createRandomStreams } from "../../kernel/lib/prng.ts";
import type { Check, LabCode, Violation } from "../../labs/kit/lab_code.ts";
import type { Observation, Program, Stop } from "../../labs/kit/program.ts";
import type { CheckStatus } from "../../labs/kit/scoring.ts";
import { shrink } from "../../labs/kit/shrink.ts";
import type { UnderTest } from "./under_test.ts";

const DEFAULT_RUNS = { quick: 4, full: 16 };
const DEFAULT_STEP_LIMIT = 100_000;
const SHRINK_RUNS = 1500;

/** What broke, in one program. */
export interface Failure {
  readonly seed: number;
  readonly nrOps: number;
  readonly program: Program;
  readonly observation: Observation;
  /** What the judge said, or how the program stopped. */
  readonly violation: Violation | null;
  readonly stop: Stop | null;
}

export interface CheckOutcome {
  readonly status: CheckStatus;
  /** Programs that passed, of how many. */
  readonly done: number;
  readonly total: number;
  /** The first failure; of a kind that the check is about, if there is one. */
  readonly failure: Failure | null;
}

/** The program that `check` runs for `seed`. */
export function programOf(check: Check, seed: number): Program {
  return check.program(createRandomStreams(String(seed)).stream(check.id), seed);
}

export function runsOf(check: Check, depth: "quick" | "full"): number {
  return (check.runs ?? DEFAULT_RUNS)[depth];
}

export function stepLimitOf(check: Check): number {
  return check.stepLimit ?? DEFAULT_STEP_LIMIT;
}

interface Finding {
  readonly status: Exclude<CheckStatus, "skipped">;
  readonly violation: Violation | null;
  readonly stop: Stop | null;
}

/** What one observation means for `check`. */
export function findingOf(code: LabCode, check: Check, program: Program, observation: Observation): Finding {
  const violation = code.judge(program, observation);
  if (violation !== null) {
    return { status: check.kinds.includes(violation.kind) ? "failed" : "blocked", violation, stop: null };
  }
  const { stop } = observation;
  if (stop === null) return { status: "passed", violation: null, stop: null };
  const status = check.kinds.includes(stop.kind) ? "failed" : stop.kind === "forged" ? "tampered" : "crashed";
  return { status, violation: null, stop };
}

/** How bad a status is: the worst program decides. */
const RANK: readonly CheckStatus[] = ["passed", "blocked", "crashed", "failed", "tampered"];

/** Runs `check` for `seeds`; programs that are the same are run once. */
export async function runCheck(
  code: LabCode,
  check: Check,
  target: UnderTest,
  seeds: readonly number[],
): Promise<CheckOutcome> {
  const programs = seeds.map((seed) => programOf(check, seed));
  const { distinct, at } = distinctOf(programs);
  const seen = await target.run(distinct, stepLimitOf(check));
  const observations = at.map((i) => seen[i]);
  let status: CheckStatus = "passed";
  let failure: Failure | null = null;
  let done = 0;
  programs.forEach((program, i) => {
    const observation = observations[i] as Observation;
    const finding = findingOf(code, check, program, observation);
    if (finding.status === "passed") done++;
    if (RANK.indexOf(finding.status) <= RANK.indexOf(status)) return;
    status = finding.status;
    const { violation, stop } = finding;
    failure = { seed: seeds[i] as number, nrOps: program.ops.length, program, observation, violation, stop };
  });
  return { status, done, total: seeds.length, failure };
}

/** The programs without repetitions, and where each is among them. */
export function distinctOf(programs: readonly Program[]): {
  readonly distinct: readonly Program[];
  readonly at: readonly number[];
} {
  const distinct: Program[] = [];
  const known = new Map<string, number>();
  const at = programs.map((program) => {
    const key = JSON.stringify(program);
    const index = known.get(key) ?? distinct.push(program) - 1;
    known.set(key, index);
    return index;
  });
  return { distinct, at };
}

/**
 * What is worst about `check`, found with as few programs as possible: seeds one after the other, the first that is
 * `enough` ends it. The status is that of runCheck if `enough` says "failed" or worse.
 */
export async function runUntil(
  code: LabCode,
  check: Check,
  target: UnderTest,
  seeds: readonly number[],
  enough: (status: CheckStatus) => boolean,
): Promise<CheckOutcome> {
  let worst: CheckOutcome = { status: "passed", done: 0, total: seeds.length, failure: null };
  // A check with one fast program after the other should not wait for each.
  for (let from = 0, size = 1; from < seeds.length; from += size, size *= 2) {
    const outcome = await runCheck(code, check, target, seeds.slice(from, from + size));
    const done = worst.done + outcome.done;
    worst = {
      ...(RANK.indexOf(outcome.status) > RANK.indexOf(worst.status) ? outcome : worst),
      done,
      total: seeds.length,
    };
    if (enough(worst.status)) break;
  }
  return worst;
}

/** The failure with the shortest program that still shows it. */
export async function minimise(code: LabCode, check: Check, target: UnderTest, failure: Failure): Promise<Failure> {
  const { violation, stop } = failure;
  if (stop !== null && (stop.kind === "died" || stop.kind === "forged" || stop.op < 0)) {
    return { ...failure, program: { ...failure.program, ops: [] }, nrOps: 0 };
  }
  const isSame = (other: Finding): boolean =>
    violation !== null
      ? other.violation?.kind === violation.kind
      : other.stop !== null && other.stop.kind === stop?.kind && other.stop.where === stop.where;
  const best = await shrink<Finding>(
    { program: failure.program, observation: failure.observation, violation: { status: "failed", violation, stop } },
    {
      run: (programs) => target.run(programs, stepLimitOf(check)),
      fails(program, observation) {
        const finding = findingOf(code, check, program, observation);
        return isSame(finding) ? finding : null;
      },
      simpler: (program) => code.simpler?.(program) ?? [],
      lastOp: (finding) => finding.violation?.op ?? finding.stop?.op ?? 0,
      maxRuns: SHRINK_RUNS,
    },
  );
  const { program, observation } = best;
  return { ...failure, program, observation, violation: best.violation.violation, stop: best.violation.stop };
}
