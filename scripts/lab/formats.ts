/**
 * A grade for machines: Gradescope, Classroom 50, JUnit XML, TAP 13, and our own JSON. Pure functions of the grade: no
 * time, no host, so the same grade has the same bytes everywhere.
 *
 * Sources: gradescope-autograders.readthedocs.io (results.json); JUnit XML as both Ant's schema and that of Jenkins
 * take it (the former asks for times and a host: zeroes and `localhost`); testanything.org (version 13); result.json of
 * Classroom 50 (its wiki, "Advanced Autograding"): whole points, and who submitted what, as its runner says.
 */

import type { Grade, Row } from "./grade.ts";

export const FORMATS = ["json", "gradescope", "classroom50", "junit", "tap"] as const;
export type Format = (typeof FORMATS)[number];

const CLASSROOM_OUTPUT = 2000;

/** What Classroom 50 wants to know of a submission; all of it text. */
export interface Submission {
  readonly classroom: string;
  readonly assignment: string;
  readonly submission: string;
  readonly commit: string;
  readonly release: string;
  readonly review: string;
  readonly datetime: string;
}

/** As the runner of Classroom 50 puts it into the environment; `local`, and 1970, where it did not run. */
export function submissionOf(env: Readonly<Record<string, string | undefined>>): Submission {
  const of = (name: string, otherwise = "local"): string => (env[name] ?? "") || otherwise;
  const submission = of("SUBMISSION_TAG");
  const commit = of("COMMIT_URL");
  // The tag says when it was made, submit/2026-06-01T14-32-05Z-a1b2c3d: the same at each run.
  const [, day, hour, minute, second] = /(\d{4}-\d\d-\d\d)T(\d\d)-?(\d\d)-?(\d\d)Z/.exec(submission) ?? [];
  return {
    classroom: of("CLASSROOM"),
    assignment: of("ASSIGNMENT"),
    submission,
    commit,
    release: of("RELEASE_URL"),
    review: of("REVIEW_URL", commit),
    datetime: day === undefined ? "1970-01-01T00:00:00Z" : `${day}T${hour}:${minute}:${second}Z`,
  };
}

export function formatGrade(grade: Grade, format: Format, submission = submissionOf({})): string {
  switch (format) {
    case "json":
      return json(ownResult(grade));
    case "gradescope":
      return json(gradescopeResult(grade));
    case "classroom50":
      return json(classroomResult(grade, submission));
    case "junit":
      return junit(grade);
    case "tap":
      return tap(grade);
  }
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

function outputOf(grade: Grade, row: Row): string {
  if (row.status === "passed") return "";
  return row.lines.length > 0 ? row.lines.join("\n") : (grade.problem ?? row.status);
}

function ownResult(grade: Grade): unknown {
  return {
    schema: "slabtown/lab-grade/v1",
    lab: grade.lab,
    depth: grade.depth,
    score: grade.score,
    max_score: grade.max,
    problem: grade.problem,
    type_errors: grade.typeErrors,
    tests: grade.rows.map((row) => ({
      name: row.check.id,
      group: row.check.group,
      rule: row.rule,
      status: row.status,
      score: row.score,
      max_score: row.check.points,
      done: row.done,
      total: row.total,
      visibility: row.check.visibility,
      output: outputOf(grade, row),
    })),
  };
}

function gradescopeResult(grade: Grade): unknown {
  return {
    score: grade.score,
    visibility: "visible",
    stdout_visibility: "hidden",
    output: [grade.problem ?? [], grade.typeErrors].flat().join("\n"),
    tests: grade.rows.map((row, i) => ({
      name: `${row.check.id}: ${row.title}`,
      number: String(i + 1),
      score: row.score,
      max_score: row.check.points,
      status: row.status === "passed" ? "passed" : "failed",
      output: outputOf(grade, row),
      visibility: row.check.visibility,
      tags: [row.check.group, row.rule],
    })),
    leaderboard: [{ name: "points", value: grade.score }],
  };
}

function classroomResult(grade: Grade, submission: Submission): unknown {
  return {
    schema: "classroom50/result/v1",
    ...submission,
    score: Math.trunc(grade.score),
    "max-score": Math.trunc(grade.max),
    tests: grade.rows.map((row) => ({
      "test-name": row.check.id,
      passed: row.status === "passed",
      score: Math.trunc(row.score),
      "max-score": Math.trunc(row.check.points),
      output: outputOf(grade, row).slice(0, CLASSROOM_OUTPUT),
    })),
  };
}

const XML: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

/** Text as XML 1.0 takes it: control characters have no place in it. */
function xml(text: string): string {
  return [...text]
    .map((ch) =>
      (ch < " " && ch !== "\n" && ch !== "\t") || ch === "\ufffe" || ch === "\uffff" ? "?" : (XML[ch] ?? ch),
    )
    .join("")
    .replaceAll(/[\ud800-\udfff](?![\udc00-\udfff])/g, (ch) => (ch < "\udc00" ? "?" : ch));
}

function junit(grade: Grade): string {
  const nrFailed = grade.rows.filter(({ status }) => status !== "passed").length;
  const cases = grade.rows.map((row) => {
    const place = xml(`${grade.lab}.${row.check.group}`);
    const head = `    <testcase classname="${place}" name="${xml(row.check.id)}" time="0"`;
    if (row.status === "passed") return `${head}/>`;
    const message = xml(`${row.score}/${row.check.points} ${row.rule}: ${row.title}`);
    const failure = `<failure type="${row.status}" message="${message}">${xml(outputOf(grade, row))}</failure>`;
    return `${head}>\n      ${failure}\n    </testcase>`;
  });
  const counts = `tests="${grade.rows.length}" failures="${nrFailed}" errors="0" skipped="0"`;
  const when = 'id="0" package="slabtown" hostname="localhost" timestamp="1970-01-01T00:00:00" time="0"';
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    "<testsuites>",
    `  <testsuite name="${xml(grade.lab)}" ${counts} ${when}>`,
    "    <properties/>",
    ...cases,
    "    <system-out/>",
    "    <system-err/>",
    "  </testsuite>",
    "</testsuites>",
    "",
  ].join("\n");
}

function tap(grade: Grade): string {
  const lines = ["TAP version 13", `1..${grade.rows.length}`];
  grade.rows.forEach((row, i) => {
    const isOk = row.status === "passed";
    lines.push(`${isOk ? "ok" : "not ok"} ${i + 1} - ${row.check.id} (${row.score}/${row.check.points})`);
    for (const line of isOk ? [] : outputOf(grade, row).split("\n")) lines.push(`# ${line}`);
  });
  for (const line of grade.typeErrors) lines.push(`# type error: ${line}`);
  lines.push(`# Score: ${grade.score}/${grade.max}`);
  return `${lines.join("\n")}\n`;
}
