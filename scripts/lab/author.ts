/**
 * Proving a grader: the gates of docs/labs.md over one lab, as findings.
 *
 *   manifest    points add up; each check is in the rubric once and the other way round; rules are in the handout
 *   right       every reference passes every check, over many seeds
 *   skeleton    it, an empty file, constants and a throw compile or fail cleanly and earn at most 5 %
 *   wrong       every wrong solution is killed by the check that is named, with the words that are named
 *   earned      every check has a wrong solution that only it kills, or a reason
 *   messages    at most 25 lines and 10 operations; the rule is named; the trace is red again when run again, and green
 *               on the reference
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Check, LabCode } from "../../labs/kit/lab_code.ts";
import type { Observation } from "../../labs/kit/program.ts";
import { type CheckStatus, pointsFor } from "../../labs/kit/scoring.ts";
import { SourceError } from "./compile.ts";
import { failureLines, MAX_LINES } from "./failure_text.ts";
import { hash32 } from "./grade.ts";
import { type Lab, labCode, OWN_TESTS, PREDICTIONS, type WrongSolutions, wrongSolutions } from "./lab_folder.ts";
import { ownOnly, wrongFiles } from "./own_tests.ts";
import {
  distinctOf,
  type Failure,
  findingOf,
  minimise,
  programOf,
  runCheck,
  runsOf,
  runUntil,
  stepLimitOf,
} from "./run_check.ts";
import type { Sandbox } from "./sandbox.ts";
import { referenceFiles, skeletonFiles } from "./skeleton.ts";
import { putUnderTest, type UnderTest } from "./under_test.ts";

const MAX_TRACE_OPS = 10;
const MIN_WRONG = 20;
const SKELETON_SHARE = 0.05;

export interface AuthorOptions {
  readonly lab: Lab;
  readonly sandbox: Sandbox;
  /** Seeds of right solutions per check; 1,000 in the full proof. */
  readonly nrSeeds: number;
  readonly onProgress?: (text: string) => void;
}

/** How one wrong solution fares. */
export interface MatrixRow {
  readonly wrong: string;
  readonly named: string;
  readonly status: ReadonlyMap<string, CheckStatus>;
  readonly findings: readonly string[];
}

export interface Proof {
  readonly lab: string;
  readonly nrChecks: number;
  readonly nrReferences: number;
  readonly nrSeeds: number;
  readonly matrix: readonly MatrixRow[];
  /** What does not hold: nothing in a lab that may be released. */
  readonly findings: readonly string[];
}

/** Runs all gates. */
export async function proveLab(options: AuthorOptions): Promise<Proof> {
  const { lab, onProgress } = options;
  const code = await labCode(lab);
  const { references, files } = lab.manifest;
  const hasCode = files.length > 0;
  if (hasCode && references.length === 0) throw new Error(`${lab.name}: lab.yaml names files and no reference`);
  const wrong = hasCode ? wrongSolutions(lab) : { wrong: {}, reasons: {}, equivalent: {} };
  const findings = manifestFindings(lab, code, wrong);
  const { nrSeeds } = options;
  const base = { lab: lab.name, nrChecks: code.checks.length, nrReferences: references.length, nrSeeds };
  // Questions only: there is no solution that could be wrong.
  if (!hasCode) return { ...base, matrix: [], findings };
  onProgress?.("right solutions");
  findings.push(...(await rightFindings(options, code)));
  onProgress?.("skeleton");
  findings.push(...(await skeletonFindings(options, code)));
  const matrix: MatrixRow[] = [];
  for (const name of Object.keys(wrong.wrong)) {
    onProgress?.(`wrong: ${name}`);
    const row = await matrixRow(options, code, wrong, name);
    matrix.push(row);
    findings.push(...row.findings);
  }
  findings.push(...earnedFindings(code, wrong, matrix));
  return { ...base, matrix, findings };
}

export function manifestFindings(lab: Lab, code: LabCode, wrong: WrongSolutions): string[] {
  const findings: string[] = [];
  const total = lab.rubric.reduce((sum, row) => sum + row.points, 0);
  if (total !== lab.manifest.points)
    findings.push(`rubric.yaml adds up to ${total}, lab.yaml says ${lab.manifest.points}`);
  const ids = lab.rubric.map((row) => row.id);
  for (const id of new Set(ids)) {
    if (ids.filter((other) => other === id).length > 1) findings.push(`rubric.yaml names ${id} twice`);
    const isCheck = code.checks.some((check) => check.id === id);
    if (!isCheck && id !== OWN_TESTS && id !== PREDICTIONS) findings.push(`rubric.yaml names ${id}, which is no check`);
  }
  const handout = readFileSync(join(lab.dir, "handout.md"), "utf8");
  for (const check of code.checks) {
    if (!ids.includes(check.id)) findings.push(`the check ${check.id} is in no rubric`);
    for (const rule of check.rule.match(/[A-Z]\w*-\d+/g) ?? []) {
      if (!handout.includes(rule)) findings.push(`handout.md does not have ${rule}, which ${check.id} is about`);
    }
  }
  if (lab.manifest.files.length > 0 && Object.keys(wrong.wrong).length < MIN_WRONG)
    findings.push(`fewer than ${MIN_WRONG} wrong solutions`);
  for (const name of lab.manifest.own_tests?.bank ?? []) {
    if (wrong.wrong[name] === undefined) findings.push(`lab.yaml: the bank names ${name}, which is no wrong solution`);
  }
  return findings;
}

/** Seeds run between two lines of progress. */
const SLICE = 50;

export async function rightFindings(options: AuthorOptions, code: LabCode): Promise<string[]> {
  const { lab, sandbox, nrSeeds, onProgress } = options;
  const findings: string[] = [];
  for (const reference of lab.manifest.references) {
    const target = await putUnderTest(lab, sandbox, ownOnly(lab, referenceFiles(lab, reference)));
    for (const check of code.checks) {
      const seeds = distinctSeeds(check, nrSeeds);
      for (let from = 0; from < seeds.length; from += SLICE) {
        if (from > 0) onProgress?.(`right solutions: ${reference}, ${check.id}, ${from} of ${seeds.length} programs`);
        const { status, failure } = await runCheck(code, check, target, seeds.slice(from, from + SLICE));
        if (status === "passed") continue;
        const what = failure?.violation?.message ?? failure?.stop?.message ?? "";
        findings.push(`${reference} does not pass ${check.id} with seed ${failure?.seed}: ${what}`);
        break;
      }
    }
  }
  return findings;
}

/** Of `nrSeeds` seeds, half of them small, those whose programs are not that of an earlier one. */
function distinctSeeds(check: Check, nrSeeds: number): readonly number[] {
  const seeds = Array.from({ length: nrSeeds }, (_, i) => (i < nrSeeds / 2 ? i : hash32(`right:${check.id}:${i}`)));
  const { at } = distinctOf(seeds.map((seed) => programOf(check, seed)));
  return seeds.filter((_, i) => at.indexOf(at[i] as number) === i);
}

// ── Skeleton and other nothings ────────────────────────────────────────────────────────────────────────────────────

/** Files that do nothing: what they may earn is next to nothing. */
function nothings(lab: Lab): ReadonlyMap<string, ReadonlyMap<string, string>> {
  const [entry = ""] = lab.manifest.files;
  const factory = /export function (\w+)/.exec(
    referenceFiles(lab, lab.manifest.references[0] ?? "").get(entry) ?? "",
  )?.[1];
  const constant = (value: string): string =>
    `export const ${factory} = () => new Proxy({}, { get: () => () => ${value} });\n`;
  return new Map([
    ["the skeleton", ownOnly(lab, skeletonFiles(lab))],
    ["an empty file", new Map([[entry, ""]])],
    ["a constant", new Map([[entry, constant("0")]])],
    ["no number", new Map([[entry, constant("NaN")]])],
    ["a throw", new Map([[entry, 'throw new Error("no");\n']])],
  ]);
}

export async function skeletonFindings(
  { lab, sandbox }: AuthorOptions,
  code: LabCode,
  depth: "quick" | "full" = "full",
): Promise<string[]> {
  const findings: string[] = [];
  for (const [what, files] of nothings(lab)) {
    let score = 0;
    try {
      const target = await putUnderTest(lab, sandbox, files);
      for (const check of code.checks) {
        const seeds = Array.from({ length: runsOf(check, depth) }, (_, i) => i);
        const outcome = await runCheck(code, check, target, seeds);
        const row = lab.rubric.find(({ id }) => id === check.id);
        if (row !== undefined) score += pointsFor(row.mode, row.points, outcome.done, outcome.total);
      }
    } catch (error) {
      if (!(error instanceof SourceError)) throw error;
      findings.push(`${what} does not compile: ${error.file}:${error.line}: ${error.message}`);
    }
    const allowed = Math.floor(lab.manifest.points * SKELETON_SHARE);
    if (score > allowed) findings.push(`${what} earns ${score} points; at most ${allowed} are allowed`);
  }
  return findings;
}

// ── Wrong solutions ────────────────────────────────────────────────────────────────────────────────────────────────

/** Runs every check over the wrong solution `name`; the named one with its message. */
export async function matrixRow(
  { lab, sandbox }: AuthorOptions,
  code: LabCode,
  wrong: WrongSolutions,
  name: string,
): Promise<MatrixRow> {
  const entry = wrong.wrong[name] as WrongSolutions["wrong"][string];
  const findings: string[] = [];
  const status = new Map<string, CheckStatus>();
  let target: UnderTest;
  try {
    target = await putUnderTest(lab, sandbox, wrongFiles(lab, name, wrong));
  } catch (error) {
    const what = error instanceof SourceError ? `${error.file}:${error.line}: ${error.message}` : String(error);
    return { wrong: name, named: entry.check, status, findings: [`wrong/${name}: cannot be used: ${what}`] };
  }
  if (!code.checks.some(({ id }) => id === entry.check))
    findings.push(`wrong/${name}: there is no check ${entry.check}`);
  for (const check of code.checks) {
    const seeds = Array.from({ length: runsOf(check, "full") }, (_, i) => i);
    const outcome = await runUntil(code, check, target, seeds, (worst) => worst === "failed" || worst === "tampered");
    status.set(check.id, outcome.status);
    if (check.id !== entry.check) continue;
    if (outcome.status !== "failed" || outcome.failure === null) {
      const stop = outcome.failure?.stop?.message ?? outcome.failure?.violation?.kind ?? "";
      findings.push(`wrong/${name}: ${check.id} says ${outcome.status}${stop === "" ? "" : ` (${stop})`}, not failed`);
      continue;
    }
    const failure = await minimise(code, check, target, outcome.failure);
    const lines = failureLines({ code, lab: lab.short, check, failure, score: "0/0", showsTrace: true });
    findings.push(...messageFindings(name, entry.words, lines, failure.program.ops.length));
    findings.push(...(await replayFindings(lab, sandbox, code, check, target, name, entry.reference, failure)));
    // The sandbox holds one set at a time; the next run of `target` brings its own back.
  }
  return { wrong: name, named: entry.check, status, findings };
}

function messageFindings(name: string, words: string, lines: readonly string[], nrOps: number): string[] {
  const findings: string[] = [];
  const text = lines.join(" ").replaceAll(/\s+/g, " ");
  if (!text.includes(words)) findings.push(`wrong/${name}: the message does not say "${words}": ${lines[1]?.trim()}`);
  if (lines.length > MAX_LINES) findings.push(`wrong/${name}: the message has ${lines.length} lines`);
  if (nrOps > MAX_TRACE_OPS) findings.push(`wrong/${name}: the trace has ${nrOps} operations`);
  if (!/\b[A-Z]\w*-\d+/.test(lines[0] ?? "")) findings.push(`wrong/${name}: the message names no rule`);
  return findings;
}

/** The trace is red when it is run again, and green on the reference: fixtures of the check. */
async function replayFindings(
  lab: Lab,
  sandbox: Sandbox,
  code: LabCode,
  check: Check,
  target: UnderTest,
  name: string,
  reference: string,
  { program, violation }: Failure,
): Promise<string[]> {
  const findings: string[] = [];
  const [again] = await target.run([program], stepLimitOf(check));
  const finding = findingOf(code, check, program, again as Observation);
  if (finding.violation?.kind !== violation?.kind) findings.push(`wrong/${name}: its trace is not red when run again`);
  const right = await putUnderTest(lab, sandbox, ownOnly(lab, referenceFiles(lab, reference)));
  const [control] = await right.run([program], stepLimitOf(check));
  if (findingOf(code, check, program, control as Observation).status !== "passed") {
    findings.push(`wrong/${name}: its trace is not green on ${reference}`);
  }
  return findings;
}

/** Checks that no wrong solution needs. */
function earnedFindings(code: LabCode, wrong: WrongSolutions, matrix: readonly MatrixRow[]): string[] {
  const sweeps = new Set(code.checks.filter(({ isSweep }) => isSweep === true).map(({ id }) => id));
  return code.checks.flatMap((check) => {
    const kills = matrix.filter(({ status }) => status.get(check.id) === "failed");
    const isOnly = kills.some(
      ({ status }) => [...status].filter(([id, value]) => value === "failed" && !sweeps.has(id)).length === 1,
    );
    if ((isOnly && !sweeps.has(check.id)) || wrong.reasons[check.id] !== undefined) return [];
    const seen = kills.length === 0 ? "no wrong solution is killed by it" : "none is killed by it alone";
    return [`the check ${check.id}: ${seen}, and wrong.yaml gives no reason`];
  });
}

/** The page of docs: every lab's table. */
export function matrixPage(proofs: readonly Proof[]): string {
  const nrWrong = proofs.reduce((sum, { matrix }) => sum + matrix.length, 0);
  const survivors = proofs.flatMap(({ matrix }) =>
    matrix.filter(({ named, status }) => status.get(named) !== "failed"),
  );
  const nrLabs = `${proofs.length} ${proofs.length === 1 ? "lab" : "labs"}`;
  return [
    "# Kill matrix",
    "",
    `${nrLabs} · ${nrWrong} wrong solutions · ${survivors.length} survive. Made by \`slabtown lab author matrix\`.`,
    "",
    "✗ the check fails (bold: the one that is to catch it) · `·` stopped by another rule first · ! crashed",
    "",
    ...proofs.flatMap((proof) => [`## ${proof.lab}`, "", matrixTable(proof), ""]),
  ].join("\n");
}

/** The matrix as a table of markdown: rows are wrong solutions, columns are checks. */
function matrixTable({ matrix }: Proof): string {
  if (matrix.length === 0) return "Questions only: nothing to get wrong but the answers.";
  return [matrixHead([...(matrix[0]?.status.keys() ?? [])]), ...matrix.map(matrixRowText)].join("\n");
}

/** The first two lines of a table of the checks `ids`. */
export function matrixHead(ids: readonly string[]): string {
  return `| wrong solution | ${ids.join(" | ")} |\n|---|${ids.map(() => "---|").join("")}`;
}

export function matrixRowText({ wrong, named, status }: MatrixRow): string {
  const letter = { failed: "✗", blocked: "·", crashed: "!", passed: "", tampered: "!", skipped: "" } as const;
  const cells = [...status].map(([id, value]) => (id === named && value === "failed" ? "**✗**" : letter[value]));
  return `| ${wrong} | ${cells.join(" | ")} |`;
}
