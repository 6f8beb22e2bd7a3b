/**
 * Labs on disk: finding them, and reading their manifest, rubric and list of wrong solutions.
 *
 *   labs/02_buddy/lab.yaml  rubric.yaml  wrong.yaml  hints.md  handout.md  skeleton/  given/  reference-… /  wrong/
 *                 checks/lab.ts  driver.ts  seam.ts
 *
 * A lab is called `02-buddy`, `buddy` or `2`. Its code is compiled with the rest of the program; what students read is
 * read as it lies there.
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import * as v from "valibot";
import type { LabCode } from "../../labs/kit/lab_code.ts";
import { SCORE_MODES, type ScoreMode, VISIBILITIES, type Visibility } from "../../labs/kit/scoring.ts";
import { didYouMean } from "../nearest.ts";
import { UsageError } from "../usage_error.ts";
import { readYamlAs } from "./lab_yaml.ts";

const name = v.pipe(v.string(), v.regex(/^[a-z0-9]+(?:[-_][a-z0-9]+)*$/, "is no name: lower case, digits, dashes"));
const file = v.pipe(v.string(), v.regex(/^[a-z0-9_]+\.(?:ts|yaml)$/, "is no file name: snake_case.ts"));
const text = v.pipe(v.string(), v.minLength(1, "must not be empty"));
const points = v.pipe(v.number("points are a whole number"), v.integer("points are a whole number"), v.minValue(0));

const MANIFEST = v.strictObject({
  title: text,
  /** What the rubric adds up to; `lab author check` compares. */
  points,
  seam: v.optional(text),
  needs: v.optional(v.array(name), []),
  /** Files of the student's; the first is the entry. None in a lab that has only questions. */
  files: v.array(file),
  /** `required`: code with type errors is not run. Else they are only shown. */
  types: v.optional(v.picklist(["shown", "required"]), "shown"),
  references: v.array(name),
  /** File with the student's own tests, and the wrong solutions that they are to catch. */
  own_tests: v.optional(v.strictObject({ file, bank: v.array(name) })),
  /** File with the student's predictions, and the seeds of the questions. */
  predictions: v.optional(v.strictObject({ file, seeds: v.array(v.pipe(v.number(), v.integer())) })),
});

const count = v.pipe(v.number("is a whole number from 1"), v.integer("is a whole number"), v.minValue(1));

const SCORED = v.strictObject({
  points,
  mode: v.optional(v.picklist(SCORE_MODES), "entire"),
  visibility: v.optional(v.picklist(VISIBILITIES), "visible"),
  /** In the place of the check's own `stepLimit` and `runs`: what `lab author calibrate` prints. */
  steps: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1))),
  runs: v.optional(v.strictObject({ quick: count, full: count })),
});
const RUBRIC = v.strictObject({
  groups: v.array(v.strictObject({ title: text, checks: v.record(name, SCORED) })),
});

const WRONG = v.strictObject({
  wrong: v.record(
    name,
    v.strictObject({
      reference: name,
      /** What the student was thinking. */
      story: text,
      /** Where the mistake was seen, or how it comes about. */
      source: text,
      /** The check that is to catch it, and words of its message. */
      check: name,
      words: text,
    }),
  ),
  /** Why a check stays although no wrong solution is caught by it alone. */
  reasons: v.optional(v.record(name, text), {}),
  /** Mutants that behave as the reference does: `reference-list/buddy.ts: what was changed` → why. */
  equivalent: v.optional(v.record(v.string(), text), {}),
});

export type Manifest = v.InferOutput<typeof MANIFEST>;
export type WrongSolutions = v.InferOutput<typeof WRONG>;

export interface ScoredCheck {
  readonly id: string;
  readonly group: string;
  readonly points: number;
  readonly mode: ScoreMode;
  readonly visibility: Visibility;
  readonly steps?: number | undefined;
  readonly runs?: { readonly quick: number; readonly full: number } | undefined;
}

export interface Lab {
  /** `02-buddy`. */
  readonly name: string;
  /** `buddy`. */
  readonly short: string;
  /** Its folder. */
  readonly dir: string;
  readonly manifest: Manifest;
  readonly rubric: readonly ScoredCheck[];
}

/** Rows of a rubric that are no checks of the lab's. */
export const OWN_TESTS = "own-tests";
export const PREDICTIONS = "predictions";

/** The folder that holds all labs, and the one that holds their code (the same from the sources). */
function roots(): { readonly texts: string; readonly code: string; readonly ending: string } {
  const code = fileURLToPath(new URL("../../labs", import.meta.url));
  const isSource = import.meta.url.endsWith(".ts");
  return isSource
    ? { texts: code, code, ending: ".ts" }
    : { texts: fileURLToPath(new URL("../../../labs", import.meta.url)), code, ending: ".js" };
}

/** The folder that holds all labs. */
export function labsFolder(): string {
  return roots().texts;
}

/** Names of all labs, in order. */
export function labNames(folder = labsFolder()): readonly string[] {
  return readdirSync(folder)
    .filter((entry) => /^\d\d_[a-z0-9_]+$/.test(entry))
    .filter((entry) => existsSync(join(folder, entry, "lab.yaml")))
    .sort()
    .map((entry) => entry.replaceAll("_", "-"));
}

/** The lab that `word` means. Throws `UsageError` for an unknown one and `InputError` for a broken one. */
export function openLab(word: string): Lab {
  const names = labNames();
  const wanted = word.toLowerCase().replaceAll("_", "-");
  const found = names.find((label) =>
    [label, label.slice(3), label.slice(0, 2), String(Number(label.slice(0, 2)))].includes(wanted),
  );
  if (found === undefined) {
    const candidates = names.flatMap((label) => [label, label.slice(3)]);
    throw new UsageError(`there is no lab "${word}"`, didYouMean(word, candidates, `labs: ${names.join(", ")}`));
  }
  return readLab(join(roots().texts, found.replaceAll("-", "_")));
}

/** Reads the lab in folder `dir`. */
export function readLab(dir: string): Lab {
  const label = basename(dir).replaceAll("_", "-");
  const manifest = readYamlAs(join(dir, "lab.yaml"), MANIFEST);
  const { groups } = readYamlAs(join(dir, "rubric.yaml"), RUBRIC);
  const rubric = groups.flatMap(({ title, checks }) =>
    Object.entries(checks).map(([id, scored]) => ({ id, group: title, ...scored })),
  );
  return { name: label, short: label.slice(3), dir, manifest, rubric };
}

export function wrongSolutions(lab: Lab): WrongSolutions {
  return readYamlAs(join(lab.dir, "wrong.yaml"), WRONG);
}

/** The lab's checks and judge. */
export async function labCode(lab: Lab): Promise<LabCode> {
  const loaded = (await import(pathToFileURL(codeFile(lab, "checks/lab")).href)) as { lab?: LabCode };
  if (loaded.lab === undefined) throw new Error(`${lab.name}: checks/lab.ts exports no "lab"`);
  const checks = loaded.lab.checks.map((check) => {
    const { steps = check.stepLimit, runs = check.runs } = lab.rubric.find(({ id }) => id === check.id) ?? {};
    return { ...check, ...(steps === undefined ? {} : { stepLimit: steps }), ...(runs === undefined ? {} : { runs }) };
  });
  return { ...loaded.lab, checks };
}

/** Path of a code file of the lab, named without ending, as this program can load it. */
export function codeFile(lab: Lab, stem: string): string {
  const { code, ending } = roots();
  return join(code, basename(lab.dir), `${stem}${ending}`);
}

/** Path of a code file of the kit. */
export function kitFile(stem: string): string {
  const { code, ending } = roots();
  return join(code, "kit", `${stem}${ending}`);
}

/** The folder that code of labs may import from: the program's own root. */
export function codeRoot(): string {
  return join(roots().code, "..");
}

/** Text files of folder `sub` of the lab, by name; empty if there is no such folder. */
export function labTexts(lab: Lab, sub: string): Map<string, string> {
  const dir = join(lab.dir, sub);
  if (!existsSync(dir)) return new Map();
  return new Map(
    readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => entry.name)
      .sort()
      .map((entry) => [entry, readFileSync(join(dir, entry), "utf8")]),
  );
}
