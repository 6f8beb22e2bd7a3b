/**
 * Goal: results for machines have the shape that their readers ask for, whatever the student's code printed.
 * Method: a grade with hostile text in it, in every format, against schemas written from the readers' documentation.
 */
import * as v from "valibot";
import { describe, expect, it } from "vitest";
import { formatGrade, submissionOf } from "../../scripts/lab/formats.ts";
import type { Grade, Row } from "../../scripts/lab/grade.ts";
import { GRADESCOPE } from "./support/schemas.ts";

const HOSTILE = 'not ok 1 - forged\n<![CDATA[ ]]> & "\u0000\u001b[2J\ud800 Score: 90/90';

function row(id: string, score: number, lines: readonly string[]): Row {
  const check = { id, group: "Behaviour <&>", points: 4, mode: "entire", visibility: "visible" } as const;
  const status = score === 4 ? "passed" : "failed";
  return { check, title: 'rule "x" & <y>', rule: "BUD-1", status, score, done: score, total: 4, lines };
}

const grade: Grade = {
  lab: "buddy",
  title: "The buddy allocator",
  depth: "full",
  score: 4,
  max: 8,
  hidden: 0,
  rows: [row("one", 4, []), row("two", 0, [HOSTILE.repeat(200)])],
  problem: null,
  typeErrors: ["buddy.ts:1:1: TS2322: not ok 3 - forged"],
};

const points = v.pipe(v.number(), v.integer(), v.minValue(0));
const text = v.pipe(v.string(), v.minLength(1));
const CLASSROOM = v.strictObject({
  schema: v.literal("classroom50/result/v1"),
  classroom: text,
  assignment: text,
  submission: text,
  commit: text,
  release: text,
  review: text,
  datetime: v.pipe(v.string(), v.regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)),
  score: points,
  "max-score": points,
  tests: v.array(
    v.strictObject({
      "test-name": text,
      passed: v.boolean(),
      score: points,
      "max-score": points,
      output: v.pipe(v.string(), v.maxLength(2000)),
    }),
  ),
});

describe("results", () => {
  it("for Gradescope", () => {
    expect(v.safeParse(GRADESCOPE, JSON.parse(formatGrade(grade, "gradescope"))).issues).toBeUndefined();
  });

  it("for Classroom 50: whole points, at most 2,000 characters", () => {
    const parse = (env: Record<string, string>): unknown =>
      JSON.parse(formatGrade(grade, "classroom50", submissionOf(env)));
    expect(v.safeParse(CLASSROOM, parse({})).issues).toBeUndefined();
    const env = { CLASSROOM: "os", ASSIGNMENT: "lab2", SUBMISSION_TAG: "submit/2026-06-01T14-32-05Z-a1b2c3d" };
    const full = parse({ ...env, COMMIT_URL: "c", RELEASE_URL: "r" });
    expect(v.safeParse(CLASSROOM, full).issues).toBeUndefined();
    expect(full).toMatchObject({ assignment: "lab2", review: "c", datetime: "2026-06-01T14:32:05Z", "max-score": 8 });
  });

  it("of our own name their schema", () => {
    expect(JSON.parse(formatGrade(grade, "json"))).toMatchObject({
      schema: "slabtown/lab-grade/v1",
      score: 4,
      max_score: 8,
    });
  });

  it("as TAP 13: one line per test, and none that the student wrote", () => {
    const lines = formatGrade(grade, "tap").trimEnd().split("\n");
    expect(lines.slice(0, 2)).toEqual(["TAP version 13", "1..2"]);
    expect(lines.filter((line) => !line.startsWith("#")).slice(2)).toEqual([
      "ok 1 - one (4/4)",
      "not ok 2 - two (0/4)",
    ]);
  });

  it("as JUnit XML: well-formed characters, nothing open, failures counted", () => {
    const text = formatGrade(grade, "junit");
    expect(text).toContain('tests="2" failures="1" errors="0"');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what XML 1.0 forbids
    expect(text).not.toMatch(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/);
    expect(Buffer.from(text).toString()).toBe(text);
    const body = text.replace(/<\?xml[^>]*>/, "");
    const tags = [...body.matchAll(/<(\/?)([\w-]+)(?:\s+\w+="[^"<]*")*(\/?)>/g)];
    expect(body.replaceAll(/<\/?[\w-]+(?:\s+\w+="[^"<]*")*\/?>/g, "")).not.toContain("<");
    const open: string[] = [];
    for (const [, close, name = "", self] of tags) {
      if (self === "/") continue;
      if (close === "") open.push(name);
      else expect(open.pop()).toBe(name);
    }
    expect(open).toEqual([]);
    // What Ant's schema asks for: attributes of each element, and parts of a suite in this order.
    const attributesOf = (name: string): string[] =>
      [...(new RegExp(`<${name}\\b([^>]*)>`).exec(body)?.[1] ?? "").matchAll(/(\w+)=/g)].map(([, key]) => key ?? "");
    expect(attributesOf("testsuites")).toEqual([]);
    expect(attributesOf("testsuite").sort()).toEqual(
      "errors failures hostname id name package skipped tests time timestamp".split(" "),
    );
    expect(attributesOf("testcase")).toEqual(["classname", "name", "time"]);
    expect(attributesOf("failure")).toEqual(["type", "message"]);
    expect(body.replaceAll(/<testcase.*?(?:\/>|<\/testcase>)\s*/gs, "")).toMatch(
      /<testsuite [^>]*>\s*<properties\/>\s*<system-out\/>\s*<system-err\/>\s*<\/testsuite>/,
    );
  });
});
