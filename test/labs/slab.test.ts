/**
 * Goal: lab 4 judges what it should, whatever a student's code returns, and says it in words that help.
 * Method: judge and picture over claims of any kind; the handout's numbers; the lab's references, one wrong solution and
 * a set of own tests through the real child process, skipped if that is not built.
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { judge } from "../../labs/04_slab/checks/judge.ts";
import { lab as code } from "../../labs/04_slab/checks/lab.ts";
import { colourOf, layoutOf } from "../../labs/04_slab/checks/model.ts";
import { NO_OBJECT } from "../../labs/04_slab/given/api.ts";
import type { Check } from "../../labs/kit/lab_code.ts";
import type { Json, Observation, Op, Program } from "../../labs/kit/program.ts";
import { failureLines } from "../../scripts/lab/failure_text.ts";
import { type Lab, openLab } from "../../scripts/lab/lab_folder.ts";
import { gradeOwnTests, ownOnly, wrongFiles } from "../../scripts/lab/own_tests.ts";
import { questionOf } from "../../scripts/lab/predictions.ts";
import { minimise, programOf, runCheck } from "../../scripts/lab/run_check.ts";
import { createSandbox, type Sandbox } from "../../scripts/lab/sandbox.ts";
import { referenceFiles } from "../../scripts/lab/skeleton.ts";
import { putUnderTest } from "../../scripts/lab/under_test.ts";

const isBuilt = existsSync(fileURLToPath(new URL("../../dist/scripts/lab/runner_child.js", import.meta.url)));

function observed(claims: readonly Json[]): Observation {
  return { claims, steps: claims.map(() => 1), stop: null, log: [] };
}
const checkOf = (id: string): Check => code.checks.find((check) => check.id === id) as Check;

describe("lab 4, the judge", () => {
  // Two objects of 2048 bytes in a slab of one frame.
  const program = (...ops: Op[]): Program => ({
    config: { frames: 8, keepEmpty: 0 },
    ops: [["make", 2048, 8, false], ["take", { ref: 0 }], ...ops],
  });
  const made: Json = [0, []];
  const first: Json = [4096, [["get", 0, 1]]];
  const free: Op = ["put", { ref: 1 }];

  it("accepts a cache with one slab that comes and goes", () => {
    const claims: Json[] = [made, first, [0, [["put", 1, 0]]], [-22, []]];
    expect(judge(program(free, free), observed(claims))).toBeNull();
  });

  it.each<[kind: string, claims: Json[], ops: Op[]]>([
    ["create", [[8, []]], []],
    ["bad-claim", [made, ["4096", []]], []],
    ["refused", [made, [NO_OBJECT, []]], []],
    ["outside", [made, [12_288, [["get", 0, 1]]]], []],
    ["misaligned", [made, [4097, [["get", 0, 1]]]], []],
    ["order", [made, [4096, [["get", 1, 1]]]], []],
    [
      "reconstructed",
      [
        made,
        [
          4096,
          [
            ["get", 0, 1],
            ["construct", 0, 4096],
          ],
        ],
      ],
      [],
    ],
    ["hoards", [made, first, [0, []]], [free]],
    ["kept", [made, first, [-22, []]], [free]],
    ["put-wrong", [made, first, [0, [["put", 1, 1]]]], [free]],
    ["double", [made, first, [4096 + 2048, []], [0, []], [0, []]], [["take", { ref: 0 }], free, free]],
    ["interior", [made, first, [0, []]], [["put", { ref: 1 }, 8]]],
    ["foreign", [made, first, [0, []]], [["put", -1]]],
    ["twice", [made, first, [4096, []]], [["take", { ref: 0 }]]],
    ["early", [made, first, [8192, [["get", 0, 2]]]], [["take", { ref: 0 }]]],
    ["other-cache", [made, first, [1, []]], [["whose", { ref: 1 }]]],
    ["count", [made, first, [2, []]], [["used", { ref: 0 }]]],
    ["destroy", [made, first, [0, []]], [["end", { ref: 0 }]]],
    ["put-live", [made, first, [1, [["put", 1, 0]]]], [["trim", { ref: 0 }]]],
  ])("says %s", (kind, claims, ops) => {
    expect(judge(program(...ops), observed(claims))?.kind).toBe(kind);
  });

  it("never throws and never says more than a line, whatever the claims are", () => {
    const number = fc.oneof(fc.integer(), fc.double(), fc.constantFrom(0, 1, 4096, NO_OBJECT, 2 ** 53));
    const leaf = fc.oneof(number, fc.string(), fc.constant(null), fc.boolean(), fc.constant({ not: "object" }));
    const event = fc.tuple(fc.constantFrom("get", "put", "construct", "?"), leaf, leaf);
    const seen = fc.oneof(fc.tuple(leaf, fc.oneof(fc.array(event, { maxLength: 3 }), leaf)), leaf);
    const claim = fc.oneof(seen, fc.array(seen, { maxLength: 4 })) as fc.Arbitrary<Json>;
    fc.assert(
      fc.property(fc.nat(60), fc.nat(code.checks.length - 1), fc.array(claim, { maxLength: 30 }), (nr, at, any) => {
        const made = programOf(code.checks[at] as Check, nr);
        const claims = any.slice(0, made.ops.length);
        const violation = judge(made, observed(claims));
        if (violation === null) return;
        expect(violation.message.length).toBeLessThan(200);
        expect(code.picture(made, observed(claims), violation).length).toBeLessThanOrEqual(8);
      }),
      { numRuns: 300 },
    );
  });
});

describe("lab 4, the handout", () => {
  it("SLAB-20, SLAB-21 the numbers of its examples", () => {
    const of = (size: number, align: number): readonly number[] => {
      const { order, nrObjects, bytes, stride } = layoutOf(size, align);
      return [order, nrObjects, bytes % stride];
    };
    expect(of(2104, 8)).toEqual([2, 7, 1656]);
    expect(of(1300, 8)).toEqual([0, 3, 184]);
    expect(of(700, 64)).toEqual([1, 11, 448]);
    expect(of(3584, 8)).toEqual([0, 1, 512]);
    const layout = layoutOf(4000, 32);
    expect([0, 1, 2, 3, 4, 5].map((nr) => colourOf(layout, nr))).toEqual([0, 32, 64, 96, 0, 32]);
  });

  it("SLAB-21 every size finds an order that exists", () => {
    for (let size = 1; size <= 4096; size += 5) {
      for (let align = 8; align <= 256; align *= 2) expect(layoutOf(size, align).order).toBeLessThanOrEqual(3);
    }
  });
});

/** What a good student hands in: one test for each wrong solution of the bank. */
const OWN_TESTS = `
export const tests = {
  "two objects of a slab": (t) => {
    const s = t.create({ frames: 8, keepEmpty: 1 });
    const c = s.createCache(2048, 8, false);
    const [a, b] = [s.alloc(c), s.alloc(c)];
    t.equal(s.framesHeld(), 1);
    s.alloc(c);
    t.equal(s.framesHeld(), 2);
    t.equal(s.free(a), 0);
    t.equal(s.free(a), -22);
    t.equal(s.free(b + 8), -22);
    t.equal(s.free(6 * 4096), -22);
    t.equal(s.destroyCache(c), -16);
  },
  "constructors": (t) => {
    const s = t.create({ frames: 8, keepEmpty: 1 });
    const c = s.createCache(1000, 8, true);
    s.alloc(c);
    s.alloc(c);
    t.equal(s.constructorCalls(), 4);
  },
  "slabs come and go": (t) => {
    const s = t.create({ frames: 8, keepEmpty: 1 });
    const c = s.createCache(4000, 32, false);
    const [a, b] = [s.alloc(c), s.alloc(c)];
    t.equal((b - a) % 4096, 32);
    s.free(a);
    t.equal(s.framesHeld(), 2);
    s.free(b);
    t.equal(s.framesHeld(), 1);
  },
};
`;

describe.skipIf(!isBuilt)("lab 4, solutions", () => {
  let sandbox: Sandbox;
  let lab: Lab;
  beforeAll(() => {
    sandbox = createSandbox();
    lab = openLab("slab");
  });
  afterAll(() => sandbox.close());

  it.each(["reference-lists", "reference-objects"])("%s passes every check", async (reference) => {
    const target = await putUnderTest(lab, sandbox, ownOnly(lab, referenceFiles(lab, reference)));
    for (const check of code.checks) {
      const { status, failure } = await runCheck(code, check, target, [0, 1, 4_000_000]);
      expect([check.id, status, failure?.violation ?? failure?.stop ?? null]).toEqual([check.id, "passed", null]);
    }
  });

  it("a constructor at each allocation: the message names rule, object and way to see it again", async () => {
    const target = await putUnderTest(lab, sandbox, wrongFiles(lab, "constructor-at-each-alloc"));
    const check = checkOf("constructor-once");
    const outcome = await runCheck(code, check, target, [0, 1]);
    const failure = outcome.failure === null ? null : await minimise(code, check, target, outcome.failure);
    if (failure === null) throw new Error("it passes");
    const text = failureLines({ code, lab: lab.short, check, failure, score: "0/3", showsTrace: true }).join("\n");
    expect(text).toContain("✗ slab.constructor-once  0/3   SLAB-7:");
    expect(text).toContain("constructed again");
    expect(text).toContain("A=createCache(2048,8,constructor) B=alloc(A)");
  });

  it("own tests can catch the whole bank and accept both references", async () => {
    const { done, total, lines } = await gradeOwnTests(lab, code, sandbox, "my_tests.ts", OWN_TESTS);
    expect([done, total, lines]).toEqual([10, 10, ["accepts 2/2 right solutions, catches 10/10 wrong ones"]]);
  });

  it("a question is the same each time, and the nine of the lab are of all four sorts", () => {
    const { seeds = [] } = lab.manifest.predictions ?? {};
    const questions = seeds.map((seed) => questionOf(lab, code, seed));
    expect(questions).toEqual(seeds.map((seed) => questionOf(lab, code, seed)));
    for (const sort of [/how many objects/, /At which offset/, /the index of the object/, /does the cache have now/]) {
      expect(questions.some(({ text }) => sort.test(text.join(" ")))).toBe(true);
    }
  });
});
