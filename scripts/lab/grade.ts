/**
 * A grade: every row of a lab's rubric, run over a student's folder. The same folder and seeds give the same bytes.
 *
 *   quick    a few programs of each visible check: for `lab watch`
 *   visible  all programs of the visible checks: `lab check`
 *   full     the hidden ones, the student's own tests and predictions too: `lab grade`
 *
 * Programs of visible checks have the seeds 0, 1, 2, …; those of hidden ones are derived from a text that the
 * instructor may keep secret.
 */

import { join } from "node:path";
import type { Check, LabCode } from "../../labs/kit/lab_code.ts";
import { type CheckStatus, pointsFor } from "../../labs/kit/scoring.ts";
import { SourceError } from "./compile.ts";
import { failureLines } from "./failure_text.ts";
import { type Lab, labCode, OWN_TESTS, PREDICTIONS, type ScoredCheck } from "./lab_folder.ts";
import { gradeOwnTests } from "./own_tests.ts";
import { gradePredictions } from "./predictions.ts";
import { type CheckOutcome, minimise, runCheck, runsOf } from "./run_check.ts";
import type { Sandbox } from "./sandbox.ts";
import { readStudentFile, readStudentFiles } from "./student_files.ts";
import { typeErrors } from "./type_check.ts";
import { putUnderTest, type UnderTest } from "./under_test.ts";

export type Depth = "quick" | "visible" | "full";

export interface Row {
  readonly check: ScoredCheck;
  readonly title: string;
  readonly rule: string;
  readonly status: CheckStatus;
  readonly score: number;
  /** Parts that passed, of how many. */
  readonly done: number;
  readonly total: number;
  /** What the student reads about it, the headline first; none for what passed. */
  readonly lines: readonly string[];
}

export interface Grade {
  readonly lab: string;
  readonly title: string;
  readonly depth: Depth;
  readonly score: number;
  /** Points of the rows that were run. */
  readonly max: number;
  /** Points of the checks that only a full grade runs. */
  readonly hidden: number;
  readonly rows: readonly Row[];
  /** Why nothing could be run: a file that does not compile. */
  readonly problem: string | null;
  /** What TypeScript says about the student's files: `buddy.ts:3:7: …`. It costs nothing unless the lab says so. */
  readonly typeErrors: readonly string[];
}

export interface GradeRequest {
  readonly lab: Lab;
  readonly dir: string;
  readonly depth: Depth;
  readonly sandbox: Sandbox;
  /** Text that the seeds of hidden checks come from. */
  readonly secret?: string | undefined;
  /** Only the check of this id. */
  readonly only?: string | undefined;
  /** Called after each row. */
  readonly onRow?: (row: Row) => void;
  /** Asked before each row; true stops. */
  readonly isStopped?: () => boolean;
  /** The order in which rows are run; results do not depend on it. */
  readonly order?: (checks: readonly ScoredCheck[]) => readonly ScoredCheck[];
}

/** What hidden seeds come from where the instructor gives nothing. */
export const PUBLIC_SECRET = "slabtown";

/** Grades the student's folder. Throws `InfrastructureError` where no verdict can be made. */
export async function gradeFolder(request: GradeRequest): Promise<Grade> {
  const { lab, dir, sandbox } = request;
  const code = await labCode(lab);
  const wanted = lab.rubric.filter((row) => isWanted(row, request));
  const refused = (problem: string, typeErrors: readonly string[] = []): Grade =>
    gradeOf(
      request,
      wanted.map((row) => notRun(row, code)),
      problem,
      typeErrors,
    );
  let target: UnderTest | null = null;
  let types: Promise<readonly string[]> = Promise.resolve([]);
  try {
    // A lab without files of the student's has questions only.
    if (lab.manifest.files.length > 0) {
      const files = readStudentFiles(lab, dir);
      target = await putUnderTest(lab, sandbox, files);
      // On a thread of its own, beside the checks; a verdict after a save does without, unless types are part of it.
      if (request.depth !== "quick" || lab.manifest.types === "required")
        types = typeErrors(lab, withOwnTests(lab, dir, files));
    }
  } catch (error) {
    if (!(error instanceof SourceError)) throw error;
    return refused(`${join(dir, error.file)}:${error.line}:${error.column}: ${error.message}`);
  }
  if (lab.manifest.types === "required") {
    const [first, ...more] = await types;
    if (first !== undefined) return refused(`${first} (this lab asks for code without type errors)`, [first, ...more]);
  }
  const rows = new Map<string, Row>();
  const ordered = request.order?.(wanted) ?? wanted;
  const checks = ordered.filter(({ id }) => id !== OWN_TESTS && id !== PREDICTIONS);
  for (const row of [...checks, ...ordered.filter((other) => !checks.includes(other))]) {
    if (request.isStopped?.() === true) break;
    const graded = await gradeRow(request, code, target, row);
    rows.set(row.id, graded);
    request.onRow?.(graded);
  }
  return gradeOf(
    request,
    wanted.flatMap(({ id }) => rows.get(id) ?? []),
    null,
    await types,
  );
}

/** The student's files, with the own tests if they can be read: what is wrong with those is told elsewhere. */
function withOwnTests(lab: Lab, dir: string, files: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  const name = lab.manifest.own_tests?.file;
  try {
    return name === undefined ? files : new Map([...files, [name, readStudentFile(dir, name)]]);
  } catch {
    return files;
  }
}

function isWanted(row: ScoredCheck, { depth, only }: GradeRequest): boolean {
  if (only !== undefined) return row.id === only;
  if (depth === "full") return true;
  const isExtra = row.id === OWN_TESTS || row.id === PREDICTIONS;
  return row.visibility === "visible" && !(depth === "quick" && isExtra);
}

function gradeOf(
  { lab, depth }: GradeRequest,
  rows: readonly Row[],
  problem: string | null,
  typeErrors: readonly string[],
): Grade {
  const score = rows.reduce((sum, row) => sum + row.score, 0);
  const max = rows.reduce((sum, row) => sum + row.check.points, 0);
  const isHidden = ({ visibility }: ScoredCheck): boolean => depth !== "full" && visibility !== "visible";
  const hidden = lab.rubric.filter(isHidden).reduce((sum, { points }) => sum + points, 0);
  return { lab: lab.short, title: lab.manifest.title, depth, score, max, hidden, rows, problem, typeErrors };
}

function ruleOf(code: LabCode, id: string): { readonly title: string; readonly rule: string } {
  const check = code.checks.find((other) => other.id === id);
  if (check !== undefined) return { title: check.title, rule: check.rule };
  if (id === OWN_TESTS) return { title: "your tests accept right solutions and catch wrong ones", rule: "TESTS" };
  return { title: "your predictions are right", rule: "PREDICT" };
}

function notRun(row: ScoredCheck, code: LabCode): Row {
  return { check: row, ...ruleOf(code, row.id), status: "crashed", score: 0, done: 0, total: 1, lines: [] };
}

async function gradeRow(
  request: GradeRequest,
  code: LabCode,
  target: UnderTest | null,
  row: ScoredCheck,
): Promise<Row> {
  const rule = ruleOf(code, row.id);
  const base = { check: row, ...rule };
  if (row.id === PREDICTIONS || row.id === OWN_TESTS) {
    const graded =
      row.id === PREDICTIONS ? gradePredictions(request.lab, code, request.dir) : await ownTests(request, code);
    const score = pointsFor(row.mode, row.points, graded.done, graded.total);
    const isFull = graded.done >= graded.total;
    const headline = `${isFull ? "✓" : "✗"} ${request.lab.short}.${row.id}  ${score}/${row.points}   ${rule.title}`;
    const lines = isFull ? [] : [headline, ...graded.lines.map((line) => `    ${line}`)];
    return { ...base, status: isFull ? "passed" : "failed", score, done: graded.done, total: graded.total, lines };
  }
  const check = code.checks.find(({ id }) => id === row.id);
  if (check === undefined) throw new Error(`${request.lab.name}: rubric.yaml names ${row.id}, which is no check`);
  if (target === null) throw new Error(`${request.lab.name}: lab.yaml names no file for ${row.id} to look at`);
  const outcome = await runCheck(code, check, target, seedsOf(request, row, check));
  const score = outcome.status === "passed" ? row.points : pointsFor(row.mode, row.points, outcome.done, outcome.total);
  const lines = await linesOf(request, code, target, row, check, outcome, score);
  return { ...base, status: outcome.status, score, done: outcome.done, total: outcome.total, lines };
}

async function linesOf(
  { lab }: GradeRequest,
  code: LabCode,
  target: UnderTest,
  row: ScoredCheck,
  check: Check,
  outcome: CheckOutcome,
  score: number,
): Promise<readonly string[]> {
  if (outcome.failure === null) return [];
  const points = `${score}/${row.points}`;
  if (outcome.status === "blocked") {
    const kind = outcome.failure.violation?.kind ?? "";
    const other = code.checks.find(({ kinds }) => kinds.includes(kind));
    const { title, rule, id } = check;
    return [
      `· ${lab.short}.${id}  ${points}   ${rule}: ${title}`,
      `    not judged: ${lab.short}.${other?.id ?? kind} comes first`,
    ];
  }
  const failure = await minimise(code, check, target, outcome.failure);
  const showsTrace = row.visibility === "visible";
  return failureLines({ code, lab: lab.short, check, failure, score: points, showsTrace });
}

/** Seeds of a row's programs. */
function seedsOf({ depth, secret }: GradeRequest, row: ScoredCheck, check: Check): number[] {
  const nrRuns = runsOf(check, depth === "quick" ? "quick" : "full");
  const text = secret ?? PUBLIC_SECRET;
  return Array.from({ length: nrRuns }, (_, i) =>
    row.visibility === "visible" ? i : hash32(`${text}:${row.id}:${i}`),
  );
}

/** FNV-1a, 32 bits. */
export function hash32(text: string): number {
  let hash = 0x811c_9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x0100_0193) >>> 0;
  return hash;
}

async function ownTests({ lab, dir, sandbox }: GradeRequest, code: LabCode): ReturnType<typeof gradeOwnTests> {
  const { own_tests } = lab.manifest;
  if (own_tests === undefined) throw new Error(`${lab.name}: rubric.yaml has ${OWN_TESTS}, lab.yaml has not`);
  let text: string;
  try {
    text = readStudentFile(dir, own_tests.file);
  } catch (error) {
    if (!(error instanceof SourceError)) throw error;
    return { done: 0, total: 1, lines: [`${own_tests.file} ${error.message}`] };
  }
  return gradeOwnTests(lab, code, sandbox, own_tests.file, text);
}
