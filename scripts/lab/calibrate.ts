/**
 * `lab author calibrate`: what the numbers of a rubric should be, measured.
 *
 *   steps    eight times what the hungriest reference takes for one operation, and twice what wrong solutions that end
 *            take: room for clumsy code, which is to be judged by its rule, and an end to loops
 *   runs     as many programs as there is time for: the visible checks 2 s together, everything 20 s
 *   points   each group keeps its sum; inside, a check weighs one, and one more for each wrong solution that it names
 *
 * Times are of this computer and only ever lead to suggestions; no verdict depends on them.
 */

import { performance } from "node:perf_hooks";
import type { Check, LabCode } from "../../labs/kit/lab_code.ts";
import { type Lab, labCode, OWN_TESTS, PREDICTIONS, type WrongSolutions, wrongSolutions } from "./lab_folder.ts";
import { ownOnly, wrongFiles } from "./own_tests.ts";
import { programOf, runsOf, stepLimitOf } from "./run_check.ts";
import type { Sandbox } from "./sandbox.ts";
import { referenceFiles } from "./skeleton.ts";
import { putUnderTest } from "./under_test.ts";

const HEADROOM = 8;
const MIN_STEPS = 1000;
const VISIBLE_MS = 2000;
const FULL_MS = 20_000;

export interface CheckMeasure {
  readonly id: string;
  /** Steps of the hungriest operation of the references, and of wrong solutions that were not stopped. */
  readonly maxSteps: number;
  readonly maxWrongSteps: number;
  /** Wrong solutions that the limit stopped. */
  readonly nrStopped: number;
  /** The slower reference, milliseconds for a full run. */
  readonly ms: number;
  /** Wrong solutions that wrong.yaml gives to this check. */
  readonly nrNamed: number;
  readonly limit: number;
  readonly runs: { readonly quick: number; readonly full: number };
}

export interface CalibrateRequest {
  readonly lab: Lab;
  readonly sandbox: Sandbox;
  readonly onProgress?: (text: string) => void;
}

/** Runs references and wrong solutions over all checks. */
export async function measureLab({ lab, sandbox, onProgress }: CalibrateRequest): Promise<readonly CheckMeasure[]> {
  const code = await labCode(lab);
  const wrong = wrongSolutions(lab);
  const right: (readonly Measured[])[] = [];
  for (const name of lab.manifest.references) {
    onProgress?.(name);
    right.push(await measure(lab, sandbox, code, ownOnly(lab, referenceFiles(lab, name))));
  }
  const others: (readonly Measured[])[] = [];
  for (const name of Object.keys(wrong.wrong)) {
    onProgress?.(name);
    others.push(await measure(lab, sandbox, code, wrongFiles(lab, name)));
  }
  return code.checks.map((check, i) => {
    const of = (rows: readonly (readonly Measured[])[]): Measured[] => rows.flatMap((row) => row[i] ?? []);
    return {
      id: check.id,
      maxSteps: Math.max(0, ...of(right).map(({ steps }) => steps)),
      maxWrongSteps: Math.max(0, ...of(others).map(({ steps }) => steps)),
      nrStopped: of(others).filter(({ isStopped }) => isStopped).length,
      ms: Math.max(0, ...of(right).map(({ ms }) => ms)),
      nrNamed: namedBy(wrong, check),
      limit: stepLimitOf(check),
      runs: { quick: runsOf(check, "quick"), full: runsOf(check, "full") },
    };
  });
}

function namedBy(wrong: WrongSolutions, { id }: Check): number {
  return Object.values(wrong.wrong).filter(({ check }) => check === id).length;
}

interface Measured {
  readonly steps: number;
  readonly isStopped: boolean;
  readonly ms: number;
}

async function measure(
  lab: Lab,
  sandbox: Sandbox,
  code: LabCode,
  files: ReadonlyMap<string, string>,
): Promise<readonly Measured[]> {
  const target = await putUnderTest(lab, sandbox, files);
  const rows: Measured[] = [];
  for (const check of code.checks) {
    const programs = Array.from({ length: runsOf(check, "full") }, (_, seed) => programOf(check, seed));
    const before = performance.now();
    const observations = await target.run(programs, stepLimitOf(check));
    rows.push({
      steps: observations.reduce((most, { steps }) => Math.max(most, ...steps), 0),
      isStopped: observations.some(({ stop }) => stop?.kind === "steps"),
      ms: performance.now() - before,
    });
  }
  return rows;
}

/** 1, 2 or 5 times a power of ten, not below `value`. */
function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= value) ?? value;
}

/** `total` shared out by weight, in whole points: largest remainders get the rest. */
export function share(total: number, weights: readonly number[]): readonly number[] {
  const sum = weights.reduce((all, weight) => all + weight, 0);
  const exact = weights.map((weight) => (total * weight) / sum);
  const points = exact.map(Math.floor);
  const order = exact
    .map((value, i) => [value - Math.floor(value), i] as const)
    .sort((a, b) => b[0] - a[0] || a[1] - b[1]);
  const rest = total - points.reduce((all, value) => all + value, 0);
  for (const [, i] of order.slice(0, rest)) points[i] = (points[i] as number) + 1;
  return points;
}

/** The rubric as measured, for pasting, and what is out of bounds now. */
export function rubricText(lab: Lab, measures: readonly CheckMeasure[]): string {
  const total = (rows: readonly CheckMeasure[]): number => rows.reduce((sum, { ms }) => sum + ms, 0);
  const isVisible = (id: string): boolean => lab.rubric.some((row) => row.id === id && row.visibility === "visible");
  const visible = measures.filter(({ id }) => isVisible(id));
  const [fullMs, visibleMs] = [total(measures), total(visible)];
  const lines = [
    `# rubric.yaml of ${lab.name} as measured: all checks ${fullMs.toFixed(0)} ms (at most ${FULL_MS}),`,
    `# the visible ones ${visibleMs.toFixed(0)} ms (at most ${VISIBLE_MS})`,
    "groups:",
  ];
  for (const group of new Set(lab.rubric.map((row) => row.group))) {
    const rows = lab.rubric.filter((row) => row.group === group);
    const weights = rows.map(({ id }) => 1 + (measures.find((measured) => measured.id === id)?.nrNamed ?? 0));
    const points = share(
      rows.reduce((sum, row) => sum + row.points, 0),
      weights,
    );
    lines.push(`  - title: ${group}`, "    checks:");
    rows.forEach((row, i) => {
      const measured = measures.find(({ id }) => id === row.id);
      const mode = row.mode === "entire" ? "" : `, mode: ${row.mode}`;
      const visibility = row.visibility === "visible" ? "" : `, visibility: ${row.visibility}`;
      const limits = measured === undefined ? "" : limitsText(measured, fullMs);
      lines.push(`      ${row.id}: { points: ${points[i]}${mode}${visibility}${limits} }${note(row.points, measured)}`);
    });
  }
  const extra = lab.rubric.filter(({ id }) => id === OWN_TESTS || id === PREDICTIONS).length;
  if (extra > 0) lines.push("# own tests and predictions are not measured: their points are shared out alike");
  return `${lines.join("\n")}\n`;
}

function limitsText({ maxSteps, maxWrongSteps, runs, ms }: CheckMeasure, fullMs: number): string {
  const steps = roundUp(Math.max(MIN_STEPS, HEADROOM * maxSteps, 2 * maxWrongSteps));
  // Checks that take more than their part give programs away, one is always left.
  const scale = fullMs <= FULL_MS ? 1 : Math.min(1, FULL_MS / fullMs);
  const full = ms === 0 ? runs.full : Math.max(1, Math.floor(runs.full * scale));
  return `, steps: ${steps}, runs: { quick: ${Math.min(runs.quick, full)}, full: ${full} }`;
}

function note(points: number, measured: CheckMeasure | undefined): string {
  if (measured === undefined) return "";
  const { maxSteps, maxWrongSteps, nrStopped, ms, nrNamed, limit } = measured;
  const tight = limit < 2 * maxSteps ? "; the limit is tight" : "";
  return (
    `   # ${points} now; ${maxSteps} steps (wrong: ${maxWrongSteps}, ${nrStopped} stopped), limit ${limit}${tight}; ` +
    `${ms.toFixed(0)} ms; ${nrNamed} named`
  );
}
