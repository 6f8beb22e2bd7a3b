/**
 * Predictions: questions whose answers students write down before they look, compared with what the rules say.
 *
 * The file maps the number of a question to an answer, `3: 8`. Answers are compared without case and blanks.
 */

import * as v from "valibot";
import { createRandomStreams } from "../../kernel/lib/prng.ts";
import type { LabCode, Question } from "../../labs/kit/lab_code.ts";
import { InputError } from "../readers/input_error.ts";
import { SourceError } from "./compile.ts";
import type { Lab } from "./lab_folder.ts";
import { parseYamlAs } from "./lab_yaml.ts";
import type { PartialGrade } from "./own_tests.ts";
import { readStudentFile } from "./student_files.ts";

const ANSWERS = v.record(v.string(), v.nullable(v.union([v.string(), v.number(), v.boolean()])));

/** The question of `seed`. Throws if the lab has none. */
export function questionOf(lab: Lab, code: LabCode, seed: number): Question {
  if (code.question === undefined) throw new Error(`${lab.name} has no questions`);
  return code.question(createRandomStreams(String(seed)).stream(`${lab.name}:question`), seed);
}

/** True if `given` answers `question`. A number is itself in any base: YAML reads an unquoted 0x10 as 16. */
export function isRight(question: Question, given: string): boolean {
  const plain = (text: string): string => text.toLowerCase().replaceAll(/\s+/g, "");
  if (plain(given) === plain(question.answer)) return true;
  return plain(given) !== "" && Number(given) === Number(question.answer);
}

export function gradePredictions(lab: Lab, code: LabCode, dir: string): PartialGrade {
  const { predictions } = lab.manifest;
  if (predictions === undefined) throw new Error(`${lab.name}: lab.yaml has no predictions`);
  const { file, seeds } = predictions;
  let answers: Record<string, string | number | boolean | null>;
  try {
    answers = parseYamlAs(file, new TextEncoder().encode(readStudentFile(dir, file)), ANSWERS);
  } catch (error) {
    if (error instanceof SourceError) return { done: 0, total: seeds.length, lines: [`${file} ${error.message}`] };
    if (error instanceof InputError)
      return { done: 0, total: seeds.length, lines: [error.format().split("\n")[0] ?? ""] };
    throw error;
  }
  const open: number[] = [];
  const wrong: number[] = [];
  for (const seed of seeds) {
    const given = answers[String(seed)] ?? "";
    if (given === "") open.push(seed);
    else if (!isRight(questionOf(lab, code, seed), String(given))) wrong.push(seed);
  }
  const lines: string[] = [];
  if (wrong.length > 0) lines.push(`not right: ${wrong.join(", ")}`);
  if (open.length > 0) lines.push(`not answered: ${open.join(", ")}`);
  const first = wrong[0] ?? open[0];
  if (first !== undefined) lines.push(`the question: slabtown lab quiz ${lab.short} --seed ${first}`);
  return { done: seeds.length - open.length - wrong.length, total: seeds.length, lines };
}
