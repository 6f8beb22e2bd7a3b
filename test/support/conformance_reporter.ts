/**
 * The table of `npm run conformance`: one line a suite, and the rules that no test names.
 *
 * A suite is green when all of its cases are right and none is missing, yellow when it was skipped as a whole for want
 * of something; anything else is red and makes the exit code 1. So does a failure outside of the suites.
 */
import type { Reporter, TestCase, TestModule } from "vitest/node";
import { PARTS, SUITES, type Suite } from "../conformance/suites.ts";
import { NOT_APPLICABLE, unnamedRules } from "./rule_ids.ts";

/** What one suite came to. */
export interface SuiteResult {
  readonly right: number;
  readonly all: number;
  readonly nrSkipped: number;
  /** Why the skipped were skipped. */
  readonly needs: string;
}

/** A test as far as the table needs it. */
export interface CaseResult {
  readonly file: string;
  /** Describe blocks and test, joined by " > ". */
  readonly name: string;
  readonly state: "passed" | "failed" | "skipped";
  readonly cases: { readonly right: number; readonly all: number };
  readonly needs: string;
}

/** Adds up the tests of a suite. A failed test has at least one wrong case, whatever it counted. */
export function suiteResult(suite: Suite, tests: readonly CaseResult[]): SuiteResult {
  let [right, all, nrSkipped, needs] = [0, 0, 0, suite.needs ?? ""];
  for (const test of tests) {
    if (test.file !== suite.file || suite.tests?.test(test.name) === false) continue;
    if (test.state === "skipped") {
      nrSkipped++;
      needs = test.needs;
    } else {
      all += test.cases.all;
      right += test.state === "passed" ? test.cases.all : Math.max(0, Math.min(test.cases.right, test.cases.all - 1));
    }
  }
  return { right, all: Math.max(all, nrSkipped === 0 ? (suite.cases ?? 0) : 0), nrSkipped, needs };
}

/** Skipped as a whole, with a reason. */
const isSkipped = ({ all, needs }: SuiteResult): boolean => all === 0 && needs !== "";
export const isGreen = (result: SuiteResult): boolean =>
  isSkipped(result) || (result.all > 0 && result.right === result.all);

/** `181/181`, `90/111, 3 skipped: needs X`, `skipped: needs X`. */
export function verdict(result: SuiteResult): string {
  const { right, all, nrSkipped, needs } = result;
  if (isSkipped(result)) return `skipped: ${needs}`;
  return `${right}/${all}${nrSkipped > 0 ? `, ${nrSkipped} skipped: ${needs}` : ""}`;
}

/** The lines of the table. */
export function conformanceTable(suites: readonly Suite[], tests: readonly CaseResult[]): string[] {
  const width = Math.max(...suites.map(({ name }) => name.length));
  const originWidth = Math.max(...suites.map(({ origin }) => origin.length));
  return ([1, 2, 3, 4] as const).flatMap((part) => {
    const rows = suites
      .filter((suite) => suite.part === part)
      .map((suite) => {
        const result = suiteResult(suite, tests);
        const mark = isGreen(result) ? " " : "✗";
        return `${mark} ${suite.name.padEnd(width)}  ${suite.origin.padEnd(originWidth)}  ${verdict(result)}`;
      });
    return [`${part}. ${PARTS[part]}`, ...rows, ""];
  });
}

function caseResult(test: TestCase): CaseResult {
  const result = test.result();
  const note = result.state === "skipped" ? result.note : undefined;
  return {
    file: test.module.relativeModuleId,
    name: test.fullName,
    state: result.state === "pending" ? "failed" : result.state,
    cases: test.meta().cases ?? { right: result.state === "passed" ? 1 : 0, all: 1 },
    needs: note ?? "",
  };
}

/** Prints failures as they come to light, and the table at the end. */
export class ConformanceReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly { readonly message: string }[]): void {
    const errors = [...unhandledErrors, ...modules.flatMap((module) => module.errors())];
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    for (const test of tests) {
      for (const error of test.result().errors ?? []) {
        process.stdout.write(`✗ ${test.module.relativeModuleId}: ${test.fullName}\n  ${error.message}\n`);
      }
    }
    for (const error of errors) process.stdout.write(`✗ ${error.message}\n`);
    const results = tests.map(caseResult);
    const rules = unnamedRules();
    const lines = conformanceTable(SUITES, results);
    const others = Object.entries(NOT_APPLICABLE).map(([id, why]) => `${id} (${why})`);
    lines.push(`rules that do not apply: ${others.join(", ")}`);
    lines.push(`rules that no test names: ${rules.length === 0 ? "none" : rules.join(" ")}`);
    process.stdout.write(`${lines.join("\n")}\n`);
    const isAllGreen = SUITES.every((suite) => isGreen(suiteResult(suite, results)));
    if (!isAllGreen || errors.length > 0 || results.some(({ state }) => state === "failed")) process.exitCode = 1;
  }
}
