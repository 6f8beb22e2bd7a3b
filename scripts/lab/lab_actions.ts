/**
 * What `slabtown lab …` does for students.
 */

import { isUtf8Locale, toAscii } from "../ascii.ts";
import { type HostOutput, stoppable } from "../host_output.ts";
import { EXIT_FAILED, EXIT_INTERRUPT, EXIT_OK } from "../metrics.ts";
import { didYouMean } from "../nearest.ts";
import { colorLevel, createPaint, type Paint } from "../paint.ts";
import { InputError } from "../readers/input_error.ts";
import { UsageError } from "../usage_error.ts";
import { SourceError } from "./compile.ts";
import { formatGrade, submissionOf } from "./formats.ts";
import { type Depth, type Grade, gradeFolder, type Row } from "./grade.ts";
import { reset, restore, snapshots, tryToKeep } from "./history.ts";
import { humanGrade, rowLine } from "./human.ts";
import { initFolder, labOfFolder } from "./init.ts";
import { type Lab, labNames, OWN_TESTS, openLab, PREDICTIONS } from "./lab_folder.ts";
import type { GradingOptions, QuizOptions, ReplayOptions } from "./lab_options.ts";
import { activeLayers, asUsageError, createSandbox } from "./sandbox.ts";
import { readSecret } from "./secret.ts";
import { referenceFiles } from "./skeleton.ts";
import { studentFolder } from "./student_files.ts";
import { hintText, judgeAnswer, quizText, replayText } from "./study.ts";
import { watchFolder } from "./watch.ts";

export function listLabs(host: HostOutput): number {
  for (const name of labNames()) {
    const { manifest } = openLab(name);
    host.out(`${name.padEnd(20)} ${String(manifest.points).padStart(4)} points   ${manifest.title}\n`);
  }
  return EXIT_OK;
}

export function initLab(name: string, dir: string, host: HostOutput): number {
  host.out(initFolder(openLab(name), dir));
  return EXIT_OK;
}

/** Grades `dir` and prints the grade; the exit code. */
export async function gradeLab(dir: string, depth: Depth, options: GradingOptions, host: HostOutput): Promise<number> {
  const folder = studentFolder(dir);
  const lab = options.lab === undefined ? labOfFolder(folder) : openLab(options.lab);
  if (options.case !== undefined) checkCase(lab, options.case);
  const sandbox = createSandbox();
  const rows: Row[] = [];
  try {
    const isStopped = (): boolean => host.stop.reason !== "none";
    const secret = options.seedFile === undefined ? undefined : readSecret(options.seedFile);
    const onRow = (row: Row): unknown => rows.push(row);
    const request = { lab, dir: folder, depth, sandbox, only: options.case, isStopped, secret, onRow };
    const grade = await stoppable(host.stop, () => gradeFolder(request), sandbox.close);
    if (host.stop.reason === "interrupt") return interrupted(rows, options, host);
    const complaint = options.history === false ? null : tryToKeep(lab, folder, `${grade.score}/${grade.max}`);
    if (complaint !== null) host.err(`slabtown: ${complaint}\n`);
    const showsAll = options.all === true || options.case !== undefined;
    const { format } = options;
    if (format === undefined) screenOf(options, host)(humanGrade(grade, paintFor(options), showsAll));
    else host.out(formatGrade(grade, format, submissionOf(process.env)));
    if (depth === "full") host.err(`isolation: ${activeLayers().join(", ")}\n`);
    return isComplete(grade) ? EXIT_OK : EXIT_FAILED;
  } catch (error) {
    if (host.stop.reason === "interrupt") return interrupted(rows, options, host);
    throw asUsageError(error);
  } finally {
    sandbox.close();
  }
}

/** Full points and, for a lab that has none to give, right answers. */
function isComplete({ score, max, rows }: Grade): boolean {
  return score === max && rows.every(({ status }) => status === "passed");
}

/** What was judged before Ctrl-C, for people; half a results file is none, so machines get nothing. */
function interrupted(rows: readonly Row[], options: GradingOptions, host: HostOutput): number {
  const paint = paintFor(options);
  const say = screenOf(options, host);
  if (options.format === undefined) for (const row of rows) say(`  ${rowLine(row, paint)}\n`);
  host.err(`slabtown: interrupted after ${rows.length} checks: this is no grade, and nothing was kept\n`);
  return EXIT_INTERRUPT;
}

/** Watches `dir`; the exit code. */
export async function watchLab(dir: string, options: GradingOptions, host: HostOutput): Promise<number> {
  const folder = studentFolder(dir);
  const lab = labOfFolder(folder);
  const keys = process.stdin.isTTY ? process.stdin : undefined;
  const isStopped = (): boolean => host.stop.reason !== "none";
  const request = { lab, dir: folder, paint: paintFor(options), out: screenOf(options, host), keys, isStopped };
  const grade = await stoppable(host.stop, () => watchFolder(request));
  return grade !== null && isComplete(grade) ? EXIT_OK : EXIT_FAILED;
}

export function printHint(name: string, tier: number, host: HostOutput): number {
  screenOf({}, host)(hintText(openLab(name), tier));
  return EXIT_OK;
}

export async function quizLab(name: string, options: QuizOptions, host: HostOutput): Promise<number> {
  const lab = openLab(name);
  const seed = options.seed ?? 1;
  if (options.answer === undefined) {
    screenOf({}, host)(await quizText(lab, seed, options.solve === true));
    return EXIT_OK;
  }
  const { isRight, text } = await judgeAnswer(lab, seed, options.answer);
  screenOf({}, host)(text);
  return isRight ? EXIT_OK : EXIT_FAILED;
}

/** One failing trace again, step by step. */
export async function replayLab(name: string, dir: string, options: ReplayOptions, host: HostOutput): Promise<number> {
  const folder = studentFolder(dir);
  const sandbox = createSandbox();
  try {
    const { case: caseId, seed, step } = options;
    screenOf({}, host)(await replayText({ lab: openLab(name), dir: folder, sandbox, caseId, seed, step }));
    return EXIT_OK;
  } catch (error) {
    if (!(error instanceof SourceError)) throw asUsageError(error);
    throw new InputError(error.file, error.message, { line: error.line, column: error.column });
  } finally {
    sandbox.close();
  }
}

/** The first reference, once the visible checks pass. */
export async function printSolution(dir: string, host: HostOutput): Promise<number> {
  const folder = studentFolder(dir);
  const lab = labOfFolder(folder);
  const sandbox = createSandbox();
  try {
    const isStopped = (): boolean => host.stop.reason !== "none";
    const grade = await stoppable(host.stop, () =>
      gradeFolder({ lab, dir: folder, depth: "visible", sandbox, isStopped }),
    );
    const open = grade.rows.filter(({ status, check }) => status !== "passed" && isCheck(check.id));
    if (open.length > 0 || grade.problem !== null) {
      host.err(`slabtown: the solution is shown once the visible checks pass; ${open.length} do not yet\n`);
      return EXIT_FAILED;
    }
    for (const reference of lab.manifest.references) {
      for (const [file, text] of referenceFiles(lab, reference)) host.out(`// ${reference}/${file}\n${text}\n`);
    }
    return EXIT_OK;
  } catch (error) {
    throw asUsageError(error);
  } finally {
    sandbox.close();
  }
}

function isCheck(id: string): boolean {
  return id !== OWN_TESTS && id !== PREDICTIONS;
}

export interface HistoryOptions {
  readonly restore?: string;
  readonly reset?: boolean;
}

/** Lists what was kept, or puts a state back. */
export function historyOf(dir: string, options: HistoryOptions, host: HostOutput): number {
  const folder = studentFolder(dir);
  const lab = labOfFolder(folder);
  if (options.restore !== undefined) restore(lab, folder, options.restore);
  else if (options.reset === true) reset(lab, folder);
  for (const { name, scores } of snapshots(folder)) host.out(`${name}  ${scores.join("  ")}\n`);
  return EXIT_OK;
}

function checkCase(lab: Lab, id: string): void {
  const ids = lab.rubric.map((row) => row.id);
  if (ids.includes(id)) return;
  throw new UsageError(`${lab.name} has no check "${id}"`, didYouMean(id, ids, `checks: ${ids.join(", ")}`));
}

/** Where text for people goes: in ASCII if asked for, or if the terminal's locale has no more. */
function screenOf({ ascii }: { readonly ascii?: boolean }, { out }: HostOutput): (text: string) => void {
  const isPlain = ascii === true || (process.stdout.isTTY === true && !isUtf8Locale(process.env));
  return isPlain ? (text) => out(toAscii(text)) : out;
}

function paintFor({ color }: { readonly color: boolean }): Paint {
  return createPaint(colorLevel({ color, env: process.env, isTty: process.stdout.isTTY === true }));
}
