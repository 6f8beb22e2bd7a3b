/**
 * Goal: lab 7 accepts both right solutions and tells the signature mistakes apart; what the student reads shows the order.
 * Method: through the real child process (dist/); skipped if that is not built. The full proof: `slabtown lab author check`.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Check, LabCode } from "../../labs/kit/lab_code.ts";
import { adequacyFindings } from "../../scripts/lab/adequacy.ts";
import { failureLines, MAX_LINES } from "../../scripts/lab/failure_text.ts";
import { type Lab, labCode, openLab } from "../../scripts/lab/lab_folder.ts";
import { mutantFindings, mutantsOf } from "../../scripts/lab/mutants.ts";
import { gradeOwnTests, ownOnly, wrongFiles } from "../../scripts/lab/own_tests.ts";
import { type CheckOutcome, type Failure, minimise, runCheck } from "../../scripts/lab/run_check.ts";
import { createSandbox, type Sandbox } from "../../scripts/lab/sandbox.ts";
import { referenceFiles } from "../../scripts/lab/skeleton.ts";
import { putUnderTest, type UnderTest } from "../../scripts/lab/under_test.ts";
import { isBuilt } from "./support/program.ts";

let sandbox: Sandbox;
let lab: Lab;
let code: LabCode;

beforeAll(async () => {
  sandbox = createSandbox();
  lab = openLab("magazines");
  code = await labCode(lab);
});
afterAll(() => sandbox.close());

const checkOf = (id: string): Check => code.checks.find((check) => check.id === id) as Check;

async function outcomeOf(wrong: string, id: string): Promise<{ target: UnderTest; outcome: CheckOutcome }> {
  const target = await putUnderTest(lab, sandbox, wrongFiles(lab, wrong));
  return { target, outcome: await runCheck(code, checkOf(id), target, [0, 1, 2, 3]) };
}

async function messageOf(wrong: string, id: string): Promise<string> {
  const { target, outcome } = await outcomeOf(wrong, id);
  const check = checkOf(id);
  const failure = await minimise(code, check, target, outcome.failure as Failure);
  const lines = failureLines({ code, lab: lab.short, check, failure, score: "0/5", showsTrace: true });
  expect(lines.length).toBeLessThanOrEqual(MAX_LINES);
  return lines.join("\n");
}

describe.skipIf(!isBuilt)("lab 7", () => {
  it.each(["reference-magazines", "reference-batches"])(
    "PCM-1 … PCM-13 %s passes every check",
    async (reference) => {
      const target = await putUnderTest(lab, sandbox, ownOnly(lab, referenceFiles(lab, reference)));
      for (const check of code.checks) {
        if (check.isSweep === true) continue;
        const { status } = await runCheck(code, check, target, [0, 1]);
        expect([check.id, status]).toEqual([check.id, "passed"]);
      }
    },
    60_000,
  );

  it("PCM-10 AB-BA is told as a circle, in columns", async () => {
    const text = await messageOf("abba-steal", "no-deadlock");
    expect(text).toMatch(/CPU \d waits for lock \d, which CPU \d holds; CPU \d waits for lock \d, which CPU \d holds/);
    expect(text).toMatch(/CPU 0 +CPU 1/);
    expect(text).toMatch(/lock \d: CPU \d has it/);
  }, 60_000);

  it("PCM-11 an interrupt that wants what its own CPU holds is told", async () => {
    expect(await messageOf("gives-up-lock-late", "interrupts")).toContain("interrupt");
  }, 60_000);

  it("PCM-2 an object that moves behind a thief's back: 0 is no order's answer", async () => {
    expect(await messageOf("looks-in-turn", "honest-zero")).toContain("at each moment something was free");
  }, 60_000);

  it.each([
    ["cpu-too-early", "cpu-id"],
    ["global-lock", "fast-path"],
    ["one-magazine", "two-magazines"],
    ["depot-unlocked", "races"],
    ["always-on-again", "as-found"],
  ])(
    "the signature mistake %s is found by %s",
    async (wrong, id) => {
      expect((await outcomeOf(wrong, id)).outcome.status).toBe("failed");
    },
    60_000,
  );

  it("a loop without end is told with its line, and in time", async () => {
    // It was a verdict's 30 seconds: the limit of steps was that of the longest search, for each program.
    const text = (referenceFiles(lab, "reference-batches").get("magazines.ts") as string).replace(
      "for (let i = 0; i < nr && load(from) > 0; i++) push(to, pop(from));",
      "for (;;);",
    );
    const target = await putUnderTest(lab, sandbox, new Map([["magazines.ts", text]]));
    const { status, failure } = await runCheck(code, checkOf("one-owner"), target, [0, 1, 2, 3]);
    expect(status).toBe("crashed");
    expect(failure?.stop?.message).toMatch(/does not end: the loop at magazines\.ts:\d+/);
  }, 60_000);

  it("a search is replayed in words (bug: the first 40 characters of its JSON)", () => {
    expect(code.describeClaim?.(["explore", "p|p", 2], ["[]", 8, true, "a", "b"])).toBe(
      "8 orders tried, which are all; 2 different outcomes",
    );
    expect(code.describeClaim?.(["visits", "p", "p", "fast"], [0, "", ""])).toBe(null);
  });

  it("own tests: the one of the skeleton accepts right solutions, and one can catch a deadlock", async () => {
    const text = `export const tests = {
      "both steal": (t) => {
        for (const { taken } of t.create({ objects: 2, size: 2, before: "p|p" }).outcomes("p|p"))
          t.equal(taken.flat().filter((object) => object !== 0).length, 0);
      },
    };`;
    const { done, lines } = await gradeOwnTests(lab, code, sandbox, "my_tests.ts", text);
    expect(lines[0]).toContain("accepts 2/2 right solutions");
    expect(done).toBeGreaterThanOrEqual(1);
  }, 60_000);
});

describe("machine mutants", () => {
  it("change one thing each, and say which line", () => {
    const mutants = mutantsOf("f.ts", "const a = b < 3;\nif (a) f(!a);\n");
    expect(mutants.map(({ change }) => change)).toEqual([
      "const a = b < 3; → const a = b <= 3;",
      "const a = b < 3; → const a = b < 4;",
      "if (a) f(!a); → if (!(a)) f(!a);",
      "if (a) f(!a); → if (a) ;",
    ]);
    expect(new Set(mutants.map(({ text }) => text)).size).toBe(4);
  });

  it("types are left alone", () => {
    expect(mutantsOf("f.ts", "let a: 3 | 4;\ninterface B { c: true }\n")).toEqual([]);
  });

  it("survivors and low shares are findings; so are mistakes beyond the bound", () => {
    const result = { reference: "r", nrRun: 10, nrAll: 10, survivors: ["r/f.ts: a → b"], nrEquivalent: 0 };
    expect(mutantFindings([result])).toHaveLength(2);
    expect(mutantFindings([{ ...result, survivors: [] }])).toEqual([]);
    expect(adequacyFindings([{ wrong: "x", check: "c", bound: -1, executions: 0, nrRandom: 0 }])).toHaveLength(1);
  });
});
