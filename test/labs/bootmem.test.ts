/**
 * Goal: lab 1 judges what it should, whatever a student's code returns, and says it in words that help.
 * Method: judge and picture over claims of any kind; solutions through the real child process, skipped if that is not
 * built; the example of the handout's page, claim by claim.
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { judge } from "../../labs/01_bootmem/checks/judge.ts";
import { lab as code } from "../../labs/01_bootmem/checks/lab.ts";
import { NO_MEMORY } from "../../labs/01_bootmem/given/api.ts";
import type { Check } from "../../labs/kit/lab_code.ts";
import type { Json, Observation, Op, Program } from "../../labs/kit/program.ts";
import { failureLines } from "../../scripts/lab/failure_text.ts";
import { type Lab, openLab } from "../../scripts/lab/lab_folder.ts";
import { ownOnly, wrongFiles } from "../../scripts/lab/own_tests.ts";
import { questionOf } from "../../scripts/lab/predictions.ts";
import { minimise, programOf, runCheck } from "../../scripts/lab/run_check.ts";
import { createSandbox, type Sandbox } from "../../scripts/lab/sandbox.ts";
import { referenceFiles } from "../../scripts/lab/skeleton.ts";
import { putUnderTest } from "../../scripts/lab/under_test.ts";

const isBuilt = existsSync(fileURLToPath(new URL("../../dist/scripts/lab/runner_child.js", import.meta.url)));

function observed(claims: readonly Json[]): Observation {
  return { claims, steps: claims.map(() => 1), stop: null, log: [] };
}

describe("lab 1, the judge", () => {
  // RAM [0x1000, 0x3000) and [0x4000, 0x5000), as in the handout.
  const program = (...ops: Op[]): Program => ({
    config: {
      map: [
        [0x1000, 0x3000, 1],
        [0x4000, 0x5000, 1],
      ],
      reserved: [],
    },
    ops,
  });
  const three: Op[] = [
    ["alloc", 0x300, 1],
    ["alloc", 0x100, 0x800],
    ["alloc", 0x1000, 0x1000],
  ];

  it("accepts the handout's example and its prediction", () => {
    const all = program(...three, ["alloc", 0x1001, 16], ["alloc", 16, 16], ["handOver"], ["usedBytes"]);
    const claims = [0x1000, 0x1800, 0x2000, NO_MEMORY, 0x4000, [], 0x3000];
    expect(judge(all, observed(claims))).toBeNull();
  });

  it.each([
    ["misaligned", [0x1000, 0x1300], 1],
    ["twice", [0x1000, 0x1000], 1],
    ["skips", [0x1000, 0x2000], 1],
    ["hole", [0x1000, 0x1800, 0x3000], 2],
    ["refused", [0x1000, 0x1800, NO_MEMORY], 2],
    ["bad-claim", ["0x1000"], 0],
  ])("says %s of %j", (kind, claims, op) => {
    expect(judge(program(...three), observed(claims as Json[]))).toMatchObject({ kind, op });
  });

  it.each([
    ["page-lost", []],
    ["page-used", [[1, 3]]],
    ["page-hole", [[2, 4]]],
    ["form", [[2, 3], [3, 3], [4, 5]]], // biome-ignore format: one row is one list
    ["form", [[4, 5], [2, 3]]], // biome-ignore format: one row is one list
  ])("says %s of the list %j", (kind, list) => {
    const found = judge(program(["alloc", 0x300, 1], ["handOver"]), observed([0x1000, list]));
    expect(found).toMatchObject({ kind, op: 1 });
  });

  it("never throws, nor does the picture, whatever the claims are", () => {
    const number = fc.oneof(fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true }), fc.constant(2 ** 32));
    const claim = fc.oneof(
      number,
      fc.string(),
      fc.constant({ not: "object" }),
      fc.constant(null),
      fc.array(fc.oneof(fc.array(number, { maxLength: 3 }), fc.constant("x")), { maxLength: 4 }),
    );
    fc.assert(
      fc.property(fc.nat(code.checks.length - 1), fc.nat(40), fc.array(claim, { maxLength: 12 }), (at, nr, claims) => {
        const made = programOf(code.checks[at] as Check, nr);
        const seen = observed(claims.slice(0, made.ops.length) as Json[]);
        const found = judge(made, seen);
        if (found !== null) expect(code.picture(made, seen, found).length).toBeLessThanOrEqual(4);
      }),
      { seed: 1, numRuns: 300 },
    );
  });

  it("a question has an answer that is no secret of this program", () => {
    const lab = openLab("bootmem");
    for (let seed = 0; seed < 100; seed++) {
      const { text, answer } = questionOf(lab, code, seed);
      expect(answer).toMatch(/^(0x[0-9a-f]+|\d+\.\.\d+( \d+\.\.\d+)*)$/);
      expect(text.join(" ")).toMatch(/^RAM \[0x/);
    }
  });
});

describe.skipIf(!isBuilt)("lab 1, solutions", () => {
  let sandbox: Sandbox;
  let lab: Lab;
  beforeAll(() => {
    sandbox = createSandbox();
    lab = openLab("bootmem");
  });
  afterAll(() => sandbox.close());

  it("both references pass every check", async () => {
    for (const reference of lab.manifest.references) {
      const target = await putUnderTest(lab, sandbox, ownOnly(lab, referenceFiles(lab, reference)));
      for (const check of code.checks) {
        expect([check.id, (await runCheck(code, check, target, [0, 1, 2, 3])).status]).toEqual([check.id, "passed"]);
      }
    }
  });

  it.each([
    ["aligns-size", "alignment", "no multiple of"],
    ["gaps-forgotten", "no-page-lost", "no row hands it over"],
    ["masks-address", "high", "which is no address"],
  ])("%s is told by %s in a short trace", async (wrong, id, words) => {
    const check = code.checks.find((one) => one.id === id) as Check;
    const target = await putUnderTest(lab, sandbox, wrongFiles(lab, wrong));
    const { failure, status } = await runCheck(code, check, target, [0, 1, 2, 3]);
    expect(status).toBe("failed");
    if (failure === null) return;
    const small = await minimise(code, check, target, failure);
    const lines = failureLines({ code, lab: "bootmem", check, failure: small, score: "0/1", showsTrace: true });
    expect(small.program.ops.length).toBeLessThanOrEqual(3);
    expect(lines.length).toBeLessThanOrEqual(25);
    expect(lines.join(" ").replaceAll(/\s+/g, " ")).toContain(words);
  });
});
