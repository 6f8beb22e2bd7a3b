/**
 * Help beside the grade: hints in three tiers, questions to predict, a failing trace step by step, the solution.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Check, LabCode } from "../../labs/kit/lab_code.ts";
import type { Json, Observation, Op, Program } from "../../labs/kit/program.ts";
import { didYouMean } from "../nearest.ts";
import { UsageError } from "../usage_error.ts";
import { describeOps } from "./failure_text.ts";
import { type Lab, labCode } from "./lab_folder.ts";
import { isRight, questionOf } from "./predictions.ts";
import { minimise, programOf, runCheck, stepLimitOf } from "./run_check.ts";
import type { Sandbox } from "./sandbox.ts";
import { readStudentFiles } from "./student_files.ts";
import { putUnderTest } from "./under_test.ts";

/** Tier `tier` of the lab's hints, from 1. */
export function hintText(lab: Lab, tier: number): string {
  const tiers = readFileSync(join(lab.dir, "hints.md"), "utf8").split(/^# /m).slice(1);
  const text = tiers[tier - 1];
  if (text === undefined) throw new UsageError(`there is no hint ${tier}`, `hints are 1 to ${tiers.length}`);
  const more = tier < tiers.length ? `\n(more: slabtown lab hint ${lab.short} ${tier + 1})\n` : "";
  return `${text.trimEnd()}\n${more}`;
}

/** The question of `seed`; with its answer and why if `isSolved`. */
export async function quizText(lab: Lab, seed: number, isSolved: boolean): Promise<string> {
  const question = questionOf(lab, await labCode(lab), seed);
  const lines = [...question.text];
  if (isSolved) lines.push("", `answer: ${question.answer}`, ...question.explanation);
  else lines.push("", `(answer: slabtown lab quiz ${lab.short} --seed ${seed} --answer "…", or --solve)`);
  return `${lines.join("\n")}\n`;
}

/** Whether `given` is right, and why; nothing more than that it is wrong if it is. */
export async function judgeAnswer(lab: Lab, seed: number, given: string): Promise<{ isRight: boolean; text: string }> {
  const question = questionOf(lab, await labCode(lab), seed);
  if (!isRight(question, given)) return { isRight: false, text: "not right; think again, or --solve\n" };
  return { isRight: true, text: `right. ${question.explanation.join(" ")}\n` };
}

export function findCheck(checks: readonly Check[], id: string): Check {
  const found = checks.find((check) => check.id === id);
  if (found !== undefined) return found;
  const ids = checks.map((check) => check.id);
  throw new UsageError(`there is no check "${id}"`, didYouMean(id, ids, `checks: ${ids.join(", ")}`));
}

export interface ReplayRequest {
  readonly lab: Lab;
  readonly dir: string;
  readonly sandbox: Sandbox;
  readonly caseId: string;
  readonly seed: number;
  /** Number of the operation to look at, from 1; undefined shows all. */
  readonly step: number | undefined;
}

/** The shrunk trace of a case, with what each operation returned. Throws `SourceError`, `UsageError`. */
export async function replayText(request: ReplayRequest): Promise<string> {
  const { lab, dir, sandbox, caseId, seed } = request;
  const code = await labCode(lab);
  const check = findCheck(code.checks, caseId);
  const target = await putUnderTest(lab, sandbox, readStudentFiles(lab, dir));
  const outcome = await runCheck(code, check, target, [seed]);
  const failure = outcome.failure === null ? null : await minimise(code, check, target, outcome.failure);
  const program = failure?.program ?? programOf(check, seed);
  const [observation] = failure === null ? await target.run([program], stepLimitOf(check)) : [failure.observation];
  if (observation === undefined) return "";
  const ops = describeOps(code, program);
  const last = Math.min(ops.length, request.step ?? ops.length);
  if (request.step !== undefined && request.step > ops.length) {
    throw new UsageError(`--step ${request.step}: the trace has ${ops.length} operations`, "from 1");
  }
  const lines = [
    `${lab.short}.${check.id}, seed 0x${seed.toString(16)}: ${outcome.status} (${code.describeConfig(program.config)})`,
  ];
  for (let i = 0; i < last; i++)
    lines.push(`${String(i + 1).padStart(4)}  ${ops[i]} → ${claimText(code, program, observation, i)}`);
  if (failure?.violation != null && last > failure.violation.op) lines.push(`      ${failure.violation.message}`);
  if (request.step !== undefined) {
    const at = { kind: "", op: last - 1, message: "" };
    lines.push(...code.picture(program, observation, at));
  }
  return `${lines.join("\n")}\n`;
}

function claimText(code: LabCode, program: Program, observation: Observation, op: number): string {
  const { stop, claims, steps } = observation;
  if (op >= claims.length) return stop === null ? "-" : `${stop.kind}: ${stop.message}`;
  const claim = claims[op] as Json;
  const described = code.describeClaim?.(program.ops[op] as Op, claim) ?? null;
  if (described !== null) return described;
  const text = JSON.stringify(claim);
  return `${text.length > 40 ? `${text.slice(0, 40)}…` : text}   (${steps[op]} steps)`;
}
