/**
 * What an instructor learns from the results of a class: the table, how points are distributed, which checks are
 * hard, and who is wrong in exactly the same way. Pure functions of the results.
 */

import type { Result } from "./cohort.ts";
import { OWN_TESTS, PREDICTIONS } from "./lab_folder.ts";

const NR_BARS = 10;
const NR_HARDEST = 8;
const BAR_WIDTH = 40;

export interface CheckFigures {
  readonly check: string;
  readonly nrPassed: number;
  readonly nrStudents: number;
  /** Mean share of its points, in percent. */
  readonly meanPercent: number;
}

/** Students whose failing checks, and what those say, are the same. */
export interface SameBehaviour {
  readonly students: readonly string[];
  readonly failing: readonly string[];
}

export interface CohortFigures {
  readonly lab: string;
  readonly nrGraded: number;
  readonly max: number;
  readonly mean: number;
  /** Least, lower quartile, median, upper quartile, most. */
  readonly quartiles: readonly number[];
  /** Students by tenths of the full points; the last bar has those with all of them too. */
  readonly bars: readonly number[];
  readonly checks: readonly CheckFigures[];
  readonly same: readonly SameBehaviour[];
}

type Graded = Result & { readonly grade: NonNullable<Result["grade"]> };

const isGraded = (result: Result): result is Graded => result.grade !== null;
const rounded = (value: number): number => Math.round(value * 10) / 10;

/** Figures for each lab that was graded. */
export function figuresOf(results: readonly Result[]): readonly CohortFigures[] {
  const graded = results.filter(isGraded);
  const labs = [...new Set(graded.map(({ grade }) => grade.lab))].sort();
  return labs.map((lab) =>
    figuresOfLab(
      lab,
      graded.filter(({ grade }) => grade.lab === lab),
    ),
  );
}

function figuresOfLab(lab: string, graded: readonly Graded[]): CohortFigures {
  const scores = graded.map(({ grade }) => grade.score).sort((a, b) => a - b);
  const max = graded[0]?.grade.max_score ?? 0;
  const bars = new Array<number>(NR_BARS).fill(0);
  for (const score of scores) {
    const bar = max === 0 ? 0 : Math.min(NR_BARS - 1, Math.floor((score * NR_BARS) / max));
    bars[bar] = (bars[bar] as number) + 1;
  }
  return {
    lab,
    nrGraded: graded.length,
    max,
    mean: rounded(scores.reduce((sum, score) => sum + score, 0) / graded.length),
    quartiles: [0, 0.25, 0.5, 0.75, 1].map((q) => quantile(scores, q)),
    bars,
    checks: checkFigures(graded),
    same: sameBehaviours(graded),
  };
}

/** Between two values in proportion, as spreadsheets do it. */
function quantile(sorted: readonly number[], q: number): number {
  const at = q * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(at)] ?? 0, sorted[Math.ceil(at)] ?? 0];
  return rounded(low + (high - low) * (at - Math.floor(at)));
}

/** All checks, the hardest first. */
function checkFigures(graded: readonly Graded[]): readonly CheckFigures[] {
  const names = graded[0]?.grade.tests.map(({ name }) => name) ?? [];
  const figures = names.map((check) => {
    const tests = graded.flatMap(({ grade }) => grade.tests.filter(({ name }) => name === check));
    const share = tests.reduce((sum, { score, max_score }) => sum + (max_score === 0 ? 1 : score / max_score), 0);
    return {
      check,
      nrPassed: tests.filter(({ status }) => status === "passed").length,
      nrStudents: tests.length,
      meanPercent: rounded((100 * share) / Math.max(1, tests.length)),
    };
  });
  return figures.sort((a, b) => a.meanPercent - b.meanPercent || (a.check < b.check ? -1 : 1));
}

/** Places in files differ between students who think alike; what they break does not. */
function behaviourOf({ grade }: Graded): string {
  const failing = grade.tests.filter(
    ({ name, status }) => status !== "passed" && name !== OWN_TESTS && name !== PREDICTIONS,
  );
  return JSON.stringify(
    failing.map(({ name, status, output }) => [name, status, output.replaceAll(/\.ts:\d+/g, ".ts")]),
  );
}

function sameBehaviours(graded: readonly Graded[]): readonly SameBehaviour[] {
  const groups = new Map<string, Graded[]>();
  for (const result of graded) {
    if (result.grade.problem !== null) continue;
    const key = behaviourOf(result);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [result]);
    else group.push(result);
  }
  return [...groups]
    .filter(([key, group]) => key !== "[]" && group.length > 1)
    .map(([key, group]) => ({
      students: group.map(({ student }) => student),
      failing: (JSON.parse(key) as readonly (readonly [string])[]).map(([name]) => name),
    }))
    .sort((a, b) => b.students.length - a.students.length);
}

// ── For people ─────────────────────────────────────────────────────────────────────────────────────────────────────

export function cohortText(results: readonly Result[], nrMissing: number): string {
  const width = Math.min(40, Math.max(7, ...results.map(({ student }) => student.length)));
  const lines = [`${"student".padEnd(width)}  lab            points   failing`];
  for (const { student, grade, reason } of results) {
    if (grade === null) lines.push(`${student.padEnd(width)}  no grade: ${reason}`);
    else {
      const failing = grade.tests.filter(({ status }) => status !== "passed").map(({ name }) => name);
      const shown = failing.length <= 4 ? failing.join(" ") : `${failing.slice(0, 4).join(" ")} +${failing.length - 4}`;
      const points = `${grade.score}/${grade.max_score}`.padStart(8);
      lines.push(`${student.padEnd(width)}  ${grade.lab.padEnd(12)} ${points}   ${grade.problem ?? shown}`.trimEnd());
    }
  }
  for (const figures of figuresOf(results)) lines.push("", ...figuresText(figures));
  const nrBad = results.filter(({ grade }) => grade === null).length;
  if (nrBad > 0) lines.push("", `${nrBad} ${nrBad === 1 ? "folder has" : "folders have"} no grade: see the table`);
  if (nrMissing > 0) lines.push("", `stopped: ${nrMissing} not graded`);
  return `${lines.join("\n")}\n`;
}

function figuresText({ lab, nrGraded, max, mean, quartiles, bars, checks, same }: CohortFigures): string[] {
  const [least, lower, median, upper, most] = quartiles;
  const highest = Math.max(...bars);
  const lines = [
    `${lab}: ${nrGraded} graded, mean ${mean} of ${max}, median ${median} (${lower} to ${upper}), ` +
      `least ${least}, most ${most}`,
    ...bars.map((nr, i) => {
      const range = `${String(i * 10).padStart(3)}–${i === NR_BARS - 1 ? "100" : String(i * 10 + 9).padStart(3)} %`;
      return `  ${range}  ${"#".repeat(Math.ceil((nr * BAR_WIDTH) / highest))} ${nr}`.trimEnd();
    }),
    "hardest checks",
    ...checks
      .slice(0, NR_HARDEST)
      .map(
        ({ check, nrPassed, nrStudents, meanPercent }) =>
          `  ${check.padEnd(18)} ${`${nrPassed}/${nrStudents}`.padStart(8)} pass, ${meanPercent} % of its points`,
      ),
  ];
  if (same.length > 0) lines.push("wrong in the same way, word for word (a common mistake, or a common source)");
  for (const { students, failing } of same) {
    lines.push(`  ${students.join(", ")}: ${failing.slice(0, 6).join(" ")}${failing.length > 6 ? " …" : ""}`);
  }
  return lines;
}

// ── For machines ───────────────────────────────────────────────────────────────────────────────────────────────────

export function cohortJson(results: readonly Result[], nrMissing: number): string {
  const students = results.map(({ student, grade, reason }) =>
    grade === null
      ? { student, reason }
      : {
          student,
          lab: grade.lab,
          score: grade.score,
          max_score: grade.max_score,
          problem: grade.problem,
          tests: grade.tests,
        },
  );
  const document = { schema: "slabtown/lab-cohort/v1", missing: nrMissing, students, labs: figuresOf(results) };
  return `${JSON.stringify(document, null, 2)}\n`;
}

/** A cell: quoted where it has to be, and never a formula for the spreadsheet that opens it. */
function cell(value: string | number): string {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** RFC 4180; a column per check, in the order of the first lab that has it. */
export function cohortCsv(results: readonly Result[]): string {
  const names = [...new Set(results.flatMap(({ grade }) => grade?.tests.map(({ name }) => name) ?? []))];
  const rows: (string | number)[][] = [["student", "lab", "score", "max_score", "problem", ...names]];
  for (const { student, grade, reason } of results) {
    const scores = names.map((name) => grade?.tests.find((test) => test.name === name)?.score ?? "");
    rows.push([
      student,
      grade?.lab ?? "",
      grade?.score ?? "",
      grade?.max_score ?? "",
      grade?.problem ?? reason,
      ...scores,
    ]);
  }
  return `${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}
