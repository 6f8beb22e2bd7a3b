/**
 * Goal: lab 3 judges what it should, whatever a student's code returns, and says it in words that help.
 * Method: judge and picture over claims of any kind; the handout's numbers; the lab's references, one wrong solution and
 * a set of own tests through the real child process, skipped if that is not built.
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { judge } from "../../labs/03_zones_dma/checks/judge.ts";
import { lab as code } from "../../labs/03_zones_dma/checks/lab.ts";
import { layoutOf, nrSlotsOf, reserveOf } from "../../labs/03_zones_dma/checks/model.ts";
import { FRAME_BYTES, FROM_DEVICE, NO_ADDRESS, NO_FRAME, TO_DEVICE } from "../../labs/03_zones_dma/given/api.ts";
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
const checkOf = (id: string): Check => code.checks.find((check) => check.id === id) as Check;

function observed(claims: readonly Json[]): Observation {
  return { claims, steps: claims.map(() => 1), stop: null, log: [] };
}

describe("lab 3, the judge", () => {
  /** Slots in frames 1 and 2; 8 frames of DMA, 6 of DMA32, 9 of NORMAL. */
  const program = (...ops: Op[]): Program => ({
    config: {
      zones: [
        [3, 11, 1, 2, 4],
        [11, 17, 1, 2, 4],
        [17, 26, 1, 2, 0],
      ],
      slots: 4,
    },
    ops,
  });
  const pages: Op = ["pages", 2, 0, false];
  const given: Json = [17, [["take", 2, 0, 17]]];
  const at = 17 * FRAME_BYTES;
  const low = 11 * FRAME_BYTES - 1;
  const map = (direction: number): Op => ["mapPart", { ref: 0 }, 0, 100, direction, low];
  const bounced: Json = [FRAME_BYTES, [["copy", FRAME_BYTES, at, 100]]];
  const pool: Op = ["pool", 600, 64, 1024, 2 ** 32];
  const taken: Json = [at, [["take", 2, 0, 17]]];

  it("accepts a transfer by a bounce", () => {
    const claims: Json[] = [given, bounced, [null, []], [0, [["copy", at, FRAME_BYTES, 100]]], [7, []]];
    const ops: Op[] = [
      pages,
      map(FROM_DEVICE),
      ["deviceWrites", { ref: 1 }, 5, 7],
      ["unmapPart", { ref: 1 }, 100, FROM_DEVICE],
      ["read", { ref: 0 }, 5],
    ];
    expect(judge(program(...ops), observed(claims))).toBeNull();
    claims[4] = [0, []];
    expect(judge(program(...ops), observed(claims))?.kind).toBe("cpu-sees");
  });

  it.each<[kind: string, claims: Json[], ops: Op[]]>([
    ["reserve", [[4, []]], [["reserve", 0, 2]]],
    ["too-high", [[17, [["take", 2, 0, 17]]]], [["pages", 0, 0, false]]],
    ["zone-order", [[3, [["take", 0, 0, 3]]]], [pages]],
    ["refused", [[NO_FRAME, [["wake"]]]], [pages]],
    ["wake", [[17, [["wake"], ["take", 2, 0, 17]]]], [pages]],
    ["below-mark", [[3, [["take", 0, 3, 3]]]], [["pages", 0, 3, false]]],
    ["bad-claim", [[18, [["take", 2, 0, 17]]]], [pages]],
    ["bad-free", [given, [0, []]], [pages, ["back", { ref: 0 }, 1]]],
    ["return", [given, [0, [["return", 1, 17, 0]]]], [pages, ["back", { ref: 0 }, 0]]],
    ["busy", [given, bounced, [0, []]], [pages, map(TO_DEVICE), ["back", { ref: 0 }, 0]]],
    ["pool-create", [[-22, []]], [pool]],
    [
      "boundary",
      [
        [0, []],
        [at + 640, [["take", 2, 0, 17]]],
      ],
      [pool, ["take", { ref: 0 }]],
    ],
    [
      "misaligned",
      [
        [0, []],
        [at + 600, [["take", 2, 0, 17]]],
      ],
      [pool, ["take", { ref: 0 }]],
    ],
    ["twice", [[0, []], taken, [at, []]], [pool, ["take", { ref: 0 }], ["take", { ref: 0 }]]],
    ["early", [[0, []], taken, [at, [["take", 2, 0, 18]]]], [pool, ["take", { ref: 0 }], ["take", { ref: 0 }]]],
    ["above-mask", [given, [at, []]], [pages, map(TO_DEVICE)]],
    ["slots", [given, [3 * FRAME_BYTES, []]], [pages, map(TO_DEVICE)]],
    ["map-refused", [given, [NO_ADDRESS, []]], [pages, map(TO_DEVICE)]],
    ["map-bad", [given, bounced, [FRAME_BYTES + 2048, []]], [pages, map(TO_DEVICE), map(TO_DEVICE)]],
    ["copy-range", [given, [FRAME_BYTES, [["copy", FRAME_BYTES, at, 101]]]], [pages, map(TO_DEVICE)]],
    ["unmap", [given, bounced, [0, []]], [pages, map(TO_DEVICE), ["unmapPart", { ref: 1 }, 99, TO_DEVICE]]],
    ["owner", [given, bounced, [0, []]], [pages, map(TO_DEVICE), ["owner", { ref: 0 }, 99]]],
  ])("says %s", (kind, claims, ops) => {
    expect(judge(program(...ops), observed(claims))?.kind).toBe(kind);
  });

  it("MAP-10 does not judge bytes that a shrunk program touches without owning them", () => {
    const ops: Op[] = [pages, map(FROM_DEVICE), ["write", { ref: 0 }, 3, 9], ["read", { ref: 0 }, 3]];
    expect(judge(program(...ops), observed([given, bounced, [null, []], [0, []]]))).toBeNull();
  });

  it("never throws and never says more than a line, whatever the claims are", () => {
    const number = fc.oneof(fc.integer(), fc.double(), fc.constantFrom(0, 1, 3, 17, 4096, NO_FRAME, 2 ** 53));
    const leaf = fc.oneof(number, fc.string(), fc.constant(null), fc.boolean(), fc.constant({ not: "object" }));
    const event = fc.oneof(fc.tuple(fc.constantFrom("take", "return", "copy", "wake"), leaf, leaf, leaf), leaf);
    const seen = fc.oneof(fc.tuple(leaf, fc.oneof(fc.array(event, { maxLength: 3 }), leaf)), leaf);
    fc.assert(
      fc.property(fc.nat(60), fc.nat(code.checks.length - 1), fc.array(seen, { maxLength: 30 }), (nr, check, any) => {
        const made = programOf(code.checks[check] as Check, nr);
        const claims = any.slice(0, made.ops.length) as Json[];
        const violation = judge(made, observed(claims));
        if (violation === null) return;
        expect(violation.message.length).toBeLessThan(220);
        expect(code.picture(made, observed(claims), violation).length).toBeLessThanOrEqual(8);
      }),
      { numRuns: 300 },
    );
  });
});

describe("lab 3, the handout", () => {
  it("ZON-1, POOL-1, MAP-3 the numbers of its examples", () => {
    const zone = (start: number, end: number, ratio: number) => ({ start, end, min: 1, low: 2, ratio });
    const zones = [zone(3, 7, 8), zone(7, 18, 4), zone(18, 28, 0)];
    expect([2, 1, 0].map((highest) => reserveOf(zones, 0, highest))).toEqual([2, 1, 0]);
    expect(layoutOf(600, 64, 1024)?.offsets).toEqual([0, 1024, 2048, 3072]);
    expect([layoutOf(68, 32, 4096)?.offsets.length, layoutOf(340, 16, 1024)?.offsets.length]).toEqual([42, 8]);
    expect(nrSlotsOf(2049)).toBe(2);
  });
});

/** What a good student hands in: the bank's wrong solutions are caught, and no right one is. */
const OWN_TESTS = `
const SMALL = { zones: [[3, 11, 1, 2, 4], [11, 17, 1, 2, 4], [17, 26, 1, 2, 0]], slots: 4 };
const LOW = 11 * 4096 - 1;
export const tests = {
  "marks, reserves, reclaim": (t) => {
    const d = t.create(SMALL);
    let frames = 0;
    while (d.allocPages(2, 0, false) !== 0xffffffff && frames < 40) frames++;
    t.equal(d.freeFrames(0), 1 + Math.floor(15 / 4));
    t.check(d.wakes() > 0);
    const e = t.create({ zones: [[4, 12, 1, 2, 0], [12, 12, 1, 2, 0], [12, 18, 1, 2, 0]], slots: 4 });
    for (let i = 0; i < 6; i++) e.allocPages(0, 0, false);
    t.equal(e.allocPages(0, 1, false), 0xffffffff);
  },
  "pools": (t) => {
    const d = t.create(SMALL);
    const p = d.createPool(600, 64, 1024, 2 ** 32);
    const a = d.poolAlloc(p);
    for (let i = 0; i < 3; i++) t.check(d.poolAlloc(p) % 1024 === 0);
    t.equal(d.poolFree(p, a), 0);
    t.equal(d.poolFree(p, a), -22);
  },
  "mappings": (t) => {
    const d = t.create(SMALL);
    const f = d.allocPages(2, 0, false);
    const a = f * 4096;
    d.cpuWrite(a + 9, 5);
    t.check(d.map(a, 200, 1, a + 100) !== a);
    const b = d.map(a + 1000, 200, 2, LOW);
    t.equal(d.freePages(f, 0), -16);
    d.deviceWrite(b, 7);
    t.equal(d.unmap(b, 199, 2), -22);
    t.equal(d.unmap(b, 200, 2), 0);
    t.equal(d.cpuRead(a + 1000), 7);
  },
  "old bytes": (t) => {
    const e = t.create(SMALL);
    const c = e.allocPages(2, 0, false) * 4096;
    e.cpuWrite(c + 50, 9);
    const bus = e.map(c, 100, 2, LOW);
    e.unmap(bus, 100, 2);
    t.equal(e.cpuRead(c + 50), 9);
  },
};
`;

describe.skipIf(!isBuilt)("lab 3, solutions", () => {
  let sandbox: Sandbox;
  let lab: Lab;
  beforeAll(() => {
    sandbox = createSandbox();
    lab = openLab("zones-dma");
  });
  afterAll(() => sandbox.close());

  it.each(["reference-columns", "reference-objects"])("%s passes every check", async (reference) => {
    const target = await putUnderTest(lab, sandbox, ownOnly(lab, referenceFiles(lab, reference)));
    for (const check of code.checks) {
      const { status, failure } = await runCheck(code, check, target, [0, 1, 4_000_000]);
      expect([check.id, status, failure?.violation ?? failure?.stop ?? null]).toEqual([check.id, "passed", null]);
    }
  });

  it("the start compared with the mask: the message names rule, bytes and way to see it again", async () => {
    const target = await putUnderTest(lab, sandbox, wrongFiles(lab, "mask-of-start"));
    const check = checkOf("mask");
    const outcome = await runCheck(code, check, target, [0, 1, 2, 3]);
    const failure = outcome.failure === null ? null : await minimise(code, check, target, outcome.failure);
    if (failure === null) throw new Error("it passes");
    const text = failureLines({ code, lab: lab.short, check, failure, score: "0/2", showsTrace: true }).join("\n");
    expect(text).toContain("✗ zones-dma.mask  0/2   MAP-1:");
    expect(text).toContain("is above the mask");
    expect(text).toContain("A=allocPages(NORMAL,0) B=map(A");
  });

  it("own tests can catch the whole bank and accept both references", async () => {
    const { done, total, lines } = await gradeOwnTests(lab, code, sandbox, "my_tests.ts", OWN_TESTS);
    expect([done, total, lines]).toEqual([10, 10, ["accepts 2/2 right solutions, catches 10/10 wrong ones"]]);
  });

  it("a question is the same each time, and the eight of the lab are of all four sorts", () => {
    const { seeds = [] } = lab.manifest.predictions ?? {};
    const questions = seeds.map((seed) => questionOf(lab, code, seed));
    expect(questions).toEqual(seeds.map((seed) => questionOf(lab, code, seed)));
    for (const sort of [/reserveOf/, /which zone/, /how many blocks/, /how many slots/]) {
      expect(questions.some(({ text }) => sort.test(text.join(" ")))).toBe(true);
    }
  });
});
