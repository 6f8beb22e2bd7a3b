/**
 * Grading the students' own tests: do they accept right solutions, and how many wrong ones do they catch?
 *
 *   a right solution is accepted    if no test complains about it
 *   a wrong solution is caught      if some test complains about it
 *
 * Tests that reject a right solution are worth nothing: whoever complains about everything catches everything.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { LabCode } from "../../labs/kit/lab_code.ts";
import type { Op, Program } from "../../labs/kit/program.ts";
import { SourceError } from "./compile.ts";
import { type Lab, type WrongSolutions, wrongSolutions } from "./lab_folder.ts";
import { applyPatch } from "./patch.ts";
import type { Sandbox } from "./sandbox.ts";
import { referenceFiles } from "./skeleton.ts";
import { putUnderTest } from "./under_test.ts";

export interface PartialGrade {
  readonly done: number;
  readonly total: number;
  readonly lines: readonly string[];
}

const MAX_TESTS = 64;
const STEP_LIMIT = 200_000;

/** The files of a wrong solution: its reference with its patch. `all`: what wrong.yaml says, for who has read it. */
export function wrongFiles(lab: Lab, name: string, all: WrongSolutions = wrongSolutions(lab)): Map<string, string> {
  const wrong = all.wrong[name];
  if (wrong === undefined) throw new Error(`${lab.name}: wrong.yaml has no ${name}`);
  const patch = readFileSync(join(lab.dir, "wrong", `${name}.patch`), "utf8");
  return ownOnly(lab, applyPatch(referenceFiles(lab, wrong.reference), patch));
}

/** The files that are the student's. */
export function ownOnly(lab: Lab, files: ReadonlyMap<string, string>): Map<string, string> {
  const own = new Set<string>(lab.manifest.files);
  return new Map([...files].filter(([name]) => own.has(name)));
}

/** Names of the tests that complain, or a sentence about why they cannot be run. */
async function complaints(
  lab: Lab,
  sandbox: Sandbox,
  files: ReadonlyMap<string, string>,
  tests: { readonly file: string; readonly text: string },
): Promise<readonly string[] | string> {
  const target = await putUnderTest(lab, sandbox, files, tests);
  const ask = async (ops: readonly Op[]) => {
    const program: Program = { config: null, ops };
    const [observation] = await target.runTests([program], STEP_LIMIT);
    return observation;
  };
  const counted = await ask([["count"]]);
  const nrTests = counted?.claims[0];
  if (typeof nrTests !== "number") return counted?.stop?.message ?? "the tests cannot be loaded";
  const failing: string[] = [];
  // Each test is a program of its own: what one leaves behind does not reach the next.
  for (let i = 0; i < Math.min(nrTests, MAX_TESTS); i++) {
    const observation = await ask([
      ["name", i],
      ["complains", i],
    ]);
    // A test that does not end has not accepted the solution.
    if (observation?.claims[1] !== false) failing.push(String(observation?.claims[0] ?? i));
  }
  return nrTests === 0 ? `${tests.file} has no tests yet` : failing;
}

/** Runs the tests against every reference and every wrong solution of the bank. */
export async function gradeOwnTests(
  lab: Lab,
  _code: LabCode,
  sandbox: Sandbox,
  file: string,
  text: string,
): Promise<PartialGrade> {
  const bank = lab.manifest.own_tests?.bank ?? [];
  const { references } = lab.manifest;
  const lines: string[] = [];
  let nrAccepted = 0;
  const missed: string[] = [];
  try {
    for (const reference of references) {
      const failing = await complaints(lab, sandbox, ownOnly(lab, referenceFiles(lab, reference)), { file, text });
      if (typeof failing === "string") return { done: 0, total: bank.length, lines: [failing] };
      if (failing.length === 0) nrAccepted++;
      else lines.push(`complains about a right solution: ${failing.slice(0, 4).join(", ")}`);
    }
    const all = wrongSolutions(lab);
    for (const name of bank) {
      const failing = await complaints(lab, sandbox, wrongFiles(lab, name, all), { file, text });
      if (typeof failing === "string" || failing.length === 0) missed.push(name);
    }
  } catch (error) {
    if (!(error instanceof SourceError)) throw error;
    return { done: 0, total: bank.length, lines: [`${error.file}:${error.line}: ${error.message}`] };
  }
  const nrCaught = bank.length - missed.length;
  const isFair = nrAccepted === references.length;
  const accepted = `accepts ${nrAccepted}/${references.length} right solutions`;
  const verdict = `${accepted}, catches ${nrCaught}/${bank.length} wrong ones`;
  lines.unshift(verdict);
  // What is missed is told by the check that knows it, not by its code: enough to write the test, and no more.
  const { wrong } = wrongSolutions(lab);
  const checks = new Set(missed.flatMap((name) => wrong[name]?.check ?? []));
  if (missed.length > 0) lines.push(`not caught: solutions that fail ${[...checks].sort().join(", ")}`);
  return { done: isFair ? nrCaught : 0, total: bank.length, lines };
}
