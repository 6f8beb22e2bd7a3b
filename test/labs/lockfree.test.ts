/**
 * Goal: lab 11 accepts both right solutions and tells the signature mistakes apart; what the student reads shows the order.
 * Method: through the real child process (dist/); skipped if that is not built. The full proof: `slabtown lab author check`.
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Check, LabCode } from "../../labs/kit/lab_code.ts";
import { failureLines, MAX_LINES } from "../../scripts/lab/failure_text.ts";
import { type Lab, labCode, openLab } from "../../scripts/lab/lab_folder.ts";
import { ownOnly, wrongFiles } from "../../scripts/lab/own_tests.ts";
import { type CheckOutcome, type Failure, minimise, runCheck } from "../../scripts/lab/run_check.ts";
import { createSandbox, type Sandbox } from "../../scripts/lab/sandbox.ts";
import { referenceFiles } from "../../scripts/lab/skeleton.ts";
import { putUnderTest, type UnderTest } from "../../scripts/lab/under_test.ts";

const isBuilt = existsSync(fileURLToPath(new URL("../../dist/scripts/lab/runner_child.js", import.meta.url)));

let sandbox: Sandbox;
let lab: Lab;
let code: LabCode;

beforeAll(async () => {
  sandbox = createSandbox();
  lab = openLab("lockfree");
  code = await labCode(lab);
});
afterAll(() => sandbox.close());

const checkOf = (id: string): Check => code.checks.find((check) => check.id === id) as Check;
const put = (files: ReadonlyMap<string, string>): Promise<UnderTest> => putUnderTest(lab, sandbox, files);

async function outcomeOf(wrong: string, id: string): Promise<{ target: UnderTest; outcome: CheckOutcome }> {
  const target = await put(wrongFiles(lab, wrong));
  return { target, outcome: await runCheck(code, checkOf(id), target, [0]) };
}

describe.skipIf(!isBuilt)("lab 11", () => {
  it.each(["reference-links", "reference-array"])("LFS-1 … LFS-9 %s passes every check", async (reference) => {
    const target = await put(ownOnly(lab, referenceFiles(lab, reference)));
    for (const check of code.checks) {
      if (check.isSweep === true) continue;
      const { status } = await runCheck(code, check, target, [0]);
      expect([check.id, status]).toEqual([check.id, "passed"]);
    }
  });

  it.each([
    ["no-tag", "aba"],
    ["late-tag", "aba"],
    ["retry-stale-link", "push-pop"],
    ["gives-up", "honest-zero"],
    ["lock", "no-lock"],
  ])("the signature mistake %s is found by %s", async (wrong, id) => {
    const { outcome } = await outcomeOf(wrong, id);
    expect(outcome.status).toBe("failed");
  });

  it("LFS-4 ABA is shown as columns, with its owners", async () => {
    const { target, outcome } = await outcomeOf("no-tag", "aba");
    const failure = await minimise(code, checkOf("aba"), target, outcome.failure as Failure);
    const lines = failureLines({
      code,
      lab: lab.short,
      check: checkOf("aba"),
      failure,
      score: "0/6",
      showsTrace: true,
    });
    expect(lines.length).toBeLessThanOrEqual(MAX_LINES);
    const text = lines.join("\n");
    expect(text).toContain("is in two hands");
    expect(text).toMatch(/CPU 0 +CPU 1/);
    expect(text).toMatch(/cas 0: \S+ → /);
  });
});
