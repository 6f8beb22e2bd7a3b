/**
 * A grade for machines: Gradescope, Classroom 50, JUnit XML, TAP 13, and our own JSON. Pure functions of the grade: no
 * time, no host, so the same grade has the same bytes everywhere.
 *
 * Sources: gradescope-autograders.readthedocs.io (results.json), the JUnit XML that Jenkins reads, testanything.org
 * (version 13). `Classroom 50` takes whole points and at most 2,000 characters of output a test.
 */

import type { Grade, Row } from "./grade.ts";

export const FORMATS = ["json", "gradescope", "classroom50", "junit", "tap"] as const;
export type Format = (typeof FORMATS)[number];

const CLASSROOM_OUTPUT = 2000;

export function formatGrade(grade: Grade, format: Format): string {
  switch (format) {
    case "json":
      return json(ownResult(grade));
    case "gradescope":
      return json(gradescopeResult(grade));
    case "classroom50":
      return json(classroomResult(grade));
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

function classroomResult(grade: Grade): unknown {
  return {
    schema: "result/v1",
    score: Math.trunc(grade.score),
    max_score: Math.trunc(grade.max),
    tests: grade.rows.map((row) => ({
      name: row.check.id,
      status: row.status === "passed" ? "pass" : "fail",
      score: Math.trunc(row.score),
      max_score: Math.trunc(row.check.points),
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
    const head = `    <testcase classname="${xml(`${grade.lab}.${row.check.group}`)}" name="${xml(row.check.id)}"`;
    if (row.status === "passed") return `${head}/>`;
    const message = xml(`${row.score}/${row.check.points} ${row.rule}: ${row.title}`);
    return `${head}>\n      <failure message="${message}">${xml(outputOf(grade, row))}</failure>\n    </testcase>`;
  });
  const counts = `tests="${grade.rows.length}" failures="${nrFailed}"`;
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites ${counts}>`,
    `  <testsuite name="${xml(grade.lab)}" ${counts} errors="0" skipped="0">`,
    ...cases,
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
