/**
 * Goal: the table of conformance tells the truth: nothing that is wrong, missing or skipped without reason is green.
 * Method: suites and results made by hand; rule ids in made-up sources.
 */
import { existsSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type CaseResult, conformanceTable, isGreen, suiteResult, verdict } from "../support/conformance_reporter.ts";
import { ruleIdsIn, testNamesIn, unnamedRules } from "../support/rule_ids.ts";
import { SUITES, type Suite } from "./suites.ts";

const SUITE: Suite = { part: 1, name: "marks", origin: "a recording", file: "a.test.ts", tests: /> W/ };
const passed = (changes: Partial<CaseResult> = {}): CaseResult => ({
  file: "a.test.ts",
  name: "zones > W1 min",
  state: "passed",
  cases: { right: 1, all: 1 },
  needs: "",
  ...changes,
});
const shown = (tests: readonly CaseResult[], suite = SUITE): string => {
  const result = suiteResult(suite, tests);
  return `${isGreen(result) ? "green" : "red"} ${verdict(result)}`;
};

describe("a row of the table", () => {
  it("adds up cases of its own tests only", () => {
    const others = [passed({ file: "b.test.ts", state: "failed" }), passed({ name: "zones > F1", state: "failed" })];
    expect(shown([passed(), passed({ cases: { right: 40, all: 40 } }), ...others])).toBe("green 41/41");
  });

  it("is red for a wrong case, for a test that failed after counting, and for none at all", () => {
    expect(shown([passed({ state: "failed", cases: { right: 38, all: 40 } })])).toBe("red 38/40");
    expect(shown([passed({ state: "failed", cases: { right: 40, all: 40 } })])).toBe("red 39/40");
    expect(shown([])).toBe("red 0/0");
  });

  it("is red when cases are missing that the suite has", () => {
    expect(shown([passed()], { ...SUITE, cases: 2 })).toBe("red 1/2");
    expect(shown([passed(), passed()], { ...SUITE, cases: 2 })).toBe("green 2/2");
  });

  it("says what a skipped suite needs, and is red without a reason", () => {
    const skipped = passed({ state: "skipped", needs: "needs jc" });
    expect(shown([skipped])).toBe("green skipped: needs jc");
    expect(shown([skipped, passed()])).toBe("green 1/1, 1 skipped: needs jc");
    expect(shown([skipped, passed({ state: "failed" })])).toBe("red 0/1, 1 skipped: needs jc");
    expect(shown([passed({ state: "skipped" })])).toBe("red 0/0, 1 skipped: ");
    expect(shown([], { part: 3, name: "heap_4", origin: "FreeRTOS", needs: "needs heap_4" })).toBe(
      "green skipped: needs heap_4",
    );
  });

  it("is a line under the title of its part", () => {
    expect(conformanceTable([SUITE], [passed({ state: "failed" })]).slice(0, 2)).toEqual([
      "1. recorded tables of real kernels",
      "✗ marks  a recording  0/1",
    ]);
  });
});

describe("the suites", () => {
  it("have a file that exists, or say what they need", () => {
    for (const { name, file, needs } of SUITES) {
      expect([name, file === undefined ? needs !== undefined : existsSync(file)]).toEqual([name, true]);
    }
  });
});

describe("rule ids", () => {
  it("are found alone and in ranges, and not inside other words", () => {
    expect(ruleIdsIn("W1 … W3 and S4-S5, D3: B11")).toEqual(["W1", "W2", "W3", "S4", "S5", "D3", "B11"]);
    expect(ruleIdsIn("DMA-1 MAG-S3 W12 kmalloc-C1 M0 FM1 W4x")).toEqual([]);
  });

  it("are read from names of tests and keys of tables, not from comments and values", () => {
    const source =
      // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the text of a program
      '// W1\nconst a = "W2"; describe("W3", () => { it.skipIf(a)(`W4 ${a}`, () => f("W5")); it({ "W6 x": a }); });';
    expect(testNamesIn(source).flatMap(ruleIdsIn)).toEqual(["W3", "W4", "W6"]);
  });

  it("those that no test names are few and known to the list", () => {
    const unnamed = unnamedRules();
    expect(unnamed).not.toContain("W9");
    expect(unnamed.length).toBeLessThan(40);
  });
});
