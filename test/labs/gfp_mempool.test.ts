/**
 * Goal: lab 8 judges what it should, whatever a student's code returns, and says it in words that help.
 * Method: judge and picture over claims of any kind; the machine by itself; the handout's numbers; the references, one
 * wrong solution and a set of own tests through the real child process, skipped if that is not built.
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { judge } from "../../labs/08_gfp_mempool/checks/judge.ts";
import { lab as code } from "../../labs/08_gfp_mempool/checks/lab.ts";
import { GfpMachine } from "../../labs/08_gfp_mempool/checks/machine.ts";
import { keepsOf, maskName } from "../../labs/08_gfp_mempool/checks/model.ts";
import {
  __GFP_HIGH,
  __GFP_NOFAIL,
  GFP_ATOMIC,
  GFP_KERNEL,
  GFP_NOIO,
  GFP_NOWAIT,
  type Machine,
  NO_PAGE,
} from "../../labs/08_gfp_mempool/given/api.ts";
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

describe("lab 8, the judge", () => {
  const program = (pages: number, ...ops: Op[]): Program => ({
    config: { pages, min: 2, low: 4, reclaim: [1, 3] },
    ops,
  });
  const page = (gfp: number): Op => ["page", gfp, false];
  const pool: Op = ["pool", 1];
  const made: Json = [0, [["might"], ["take", 0]]];
  const take = (gfp: number): Op => ["take", gfp, false];
  const put = (ref: number): Op => ["put", { ref }, false];

  it("accepts a task that sleeps and gets the page that an interrupt frees", () => {
    const mask = GFP_NOIO | 0x9_2000;
    const lock: Json[] = [["lock"], ["unlock"]];
    const claims: Json[] = [
      [0, [["might"], ["kswapd"], ["take", 0]]],
      [0, [["kswapd"], ...lock]],
      [null, [["might"], ["kswapd"], ...lock, ["might"], ["kswapd"], ["reclaim", mask, 0], ...lock, ["asleep", 2]]],
      [0, [...lock, ["wake", 2], ...lock, ["done", 2, 0]]],
    ];
    const config = { pages: 2, min: 1, low: 2, reclaim: [] };
    const ops = [pool, take(GFP_NOWAIT), take(GFP_NOIO), put(1)];
    expect(judge({ config, ops }, observed(claims))).toBeNull();
    claims[3] = [0, [...lock, ["wake", 2], ...lock, ["done", 2, NO_PAGE]]];
    expect(judge({ config, ops }, observed(claims))?.kind).toBe("gives-up");
  });

  it.each<[kind: string, pages: number, claims: Json[], ops: Op[]]>([
    ["may-block", 9, [[true, []]], [["may", GFP_ATOMIC]]],
    ["keeps", 9, [[2, []]], [["leaves", GFP_ATOMIC]]],
    ["might", 9, [[0, [["take", 0]]]], [page(GFP_KERNEL)]],
    ["might", 9, [[0, [["might"], ["take", 0]]]], [page(GFP_ATOMIC)]],
    ["early-work", 9, [[0, [["kswapd"], ["take", 0]]]], [page(GFP_ATOMIC)]],
    ["kswapd", 4, [[0, [["take", 0]]]], [page(GFP_ATOMIC)]],
    ["takes-reserve", 2, [[0, [["kswapd"], ["take", 0]]]], [page(GFP_NOWAIT)]],
    ["refused", 3, [[NO_PAGE, [["kswapd"]]]], [page(GFP_NOWAIT)]],
    ["reclaim", 2, [[NO_PAGE, [["might"], ["kswapd"]]]], [page(GFP_KERNEL)]],
    ["reclaim", 2, [[NO_PAGE, [["might"], ["kswapd"], ["reclaim", GFP_NOIO, 1]]]], [page(GFP_KERNEL)]],
    ["nofail", 2, [[NO_PAGE, [["kswapd"]]]], [page(GFP_ATOMIC | __GFP_NOFAIL)]],
    ["bad-claim", 9, [[7, [["take", 0]]]], [page(GFP_ATOMIC)]],
    ["sleep-irq", 2, [[null, [["bug", "sleep-irq", "reclaim() sleeps in an interrupt"]]]], [page(GFP_ATOMIC)]],
    ["pool-create", 9, [[0, [["might"]]]], [pool]],
    ["pool-order", 9, [made, [0, [["lock"], ["unlock"]]]], [pool, take(GFP_NOWAIT)]],
    ["reserve-unused", 3, [made, [NO_PAGE, [["kswapd"], ["lock"]]]], [pool, take(GFP_NOWAIT)]],
    ["no-lock", 3, [made, [0, [["kswapd"]]]], [pool, take(GFP_NOWAIT)]],
    ["gives-up", 9, [made, [NO_PAGE, [["might"]]]], [pool, take(GFP_KERNEL)]],
    ["bad-free", 9, [made, [0, []]], [pool, ["put", 0, false]]],
    ["twice", 9, [made, [1, [["take", 1]]], [1, [["take", 2]]]], [pool, take(GFP_NOWAIT), take(GFP_NOWAIT)]],
    ["overfull", 9, [made, [1, [["take", 1]]], [0, [["lock"]]]], [pool, take(GFP_NOWAIT), put(1)]],
    ["destroy", 9, [made, [1, [["take", 1]]], [0, []]], [pool, take(GFP_NOWAIT), ["end"]]],
    ["no-work", 9, [[null, [["lock"]]]], [["defer", 7, true]]],
    ["early-release", 9, [[null, [["lock"], ["release", 7]]]], [["defer", 7, true]]],
    [
      "lost-object",
      9,
      [
        [null, [["lock"], ["work"]]],
        [null, [["lock"]]],
      ],
      [["defer", 7, true], ["runWork"]],
    ],
  ])("says %s", (kind, pages, claims, ops) => {
    expect(judge(program(pages, ...ops), observed(claims))?.kind).toBe(kind);
  });

  it("MPL-4 says lost-wakeup when a task sleeps beside a page in reserve", () => {
    const config = { pages: 2, min: 1, low: 2, reclaim: [] };
    const mask = GFP_NOIO | 0x9_2000;
    const claims: Json[] = [
      [0, [["might"], ["kswapd"], ["take", 0]]],
      [0, [["kswapd"], ["lock"], ["unlock"]]],
      [null, [["might"], ["kswapd"], ["lock"], ["unlock"], ["might"], ["kswapd"], ["reclaim", mask, 0], ["asleep", 2]]],
      [0, [["lock"], ["unlock"], ["wake", null]]],
    ];
    const ops = [pool, take(GFP_NOWAIT), take(GFP_NOIO), put(1)];
    expect(judge({ config, ops }, observed(claims))?.kind).toBe("lost-wakeup");
  });

  it("never throws and never says more than a line, whatever the claims are", () => {
    const number = fc.oneof(fc.integer(), fc.double(), fc.constantFrom(0, 1, 2, NO_PAGE, 2 ** 53));
    const leaf = fc.oneof(number, fc.string(), fc.constant(null), fc.boolean(), fc.constant({ not: "object" }));
    const names = [
      "take",
      "give",
      "might",
      "kswapd",
      "reclaim",
      "lock",
      "irq",
      "iret",
      "handler",
      "done",
      "asleep",
      "bug",
    ];
    const event = fc.oneof(fc.tuple(fc.constantFrom(...names, "work", "release"), leaf, leaf, leaf), leaf);
    const seen = fc.oneof(fc.tuple(leaf, fc.oneof(fc.array(event, { maxLength: 6 }), leaf)), leaf);
    fc.assert(
      fc.property(fc.nat(60), fc.nat(code.checks.length - 1), fc.array(seen, { maxLength: 30 }), (nr, check, any) => {
        const made = programOf(code.checks[check] as Check, nr);
        const claims = any.slice(0, made.ops.length) as Json[];
        const violation = judge(made, observed(claims));
        if (violation === null) return;
        expect(violation.message.length).toBeLessThan(240);
        expect(code.picture(made, observed(claims), violation).length).toBeLessThanOrEqual(8);
      }),
      { numRuns: 300 },
    );
  });
});

describe("lab 8, the machine", () => {
  const machineOf = (): { machine: GfpMachine; port: Machine } => {
    const machine = new GfpMachine({ pages: 4, min: 1, low: 2, reclaim: [2] });
    return { machine, port: machine.port() as Machine };
  };

  it("CTX-3 an interrupt waits until interrupts are on, and finds a lock that was taken without", () => {
    const { machine, port } = machineOf();
    machine.armed = { at: 2, run: () => machine.note("here") };
    machine.call(0, false, () => {
      port.lockIrq();
      port.takePage();
      port.unlockIrq();
    });
    expect(machine.events.map((event) => (event as unknown[])[0])).toEqual([
      "lock",
      "take",
      "unlock",
      "irq",
      "here",
      "iret",
    ]);
    machine.armed = { at: 2, run: () => port.lock() };
    machine.events = [];
    machine.call(1, false, () => {
      port.lock();
      port.unlock();
    });
    expect(machine.bugs[0]).toMatch(/waits for ever/);
  });

  it("CTX-2, MPL-4 schedule() with a lock is a bug; a wake between prepareToWait and schedule is not lost", () => {
    const { machine, port } = machineOf();
    const sleeper = function* () {
      port.prepareToWait();
      port.wakeOne();
      yield* port.schedule();
      return 7;
    };
    expect(machine.call(0, false, sleeper)).toBe(7);
    const locked = function* () {
      port.prepareToWait();
      port.lock();
      yield* port.schedule();
    };
    machine.call(1, false, locked);
    expect(machine.bugs).toEqual(["schedule() sleeps while the spinlock is held"]);
  });

  it("frees as many pages as the list says, and no page of anybody's", () => {
    const { machine, port } = machineOf();
    for (let i = 0; i < 4; i++) port.takePage();
    expect(port.takePage()).toBe(NO_PAGE);
    machine.call(0, false, () => port.reclaim(GFP_KERNEL));
    expect([port.freePages(), port.takePage(), port.takePage(), port.takePage()]).toEqual([2, 4, 5, NO_PAGE]);
  });
});

describe("lab 8, the handout", () => {
  it("GFP-4 the numbers of its examples, and masks in words", () => {
    expect([keepsOf(GFP_ATOMIC, 7), keepsOf(GFP_KERNEL | __GFP_HIGH, 7), keepsOf(GFP_NOWAIT, 7)]).toEqual([3, 4, 7]);
    expect([maskName(GFP_ATOMIC), maskName(GFP_NOIO | __GFP_HIGH), maskName(0)]).toEqual([
      "GFP_ATOMIC",
      "GFP_NOIO|HIGH",
      "0",
    ]);
  });
});

/** What a good student hands in: the bank's wrong solutions are caught, and no right one is. */
const OWN_TESTS = `
const [ATOMIC, NOWAIT, NOIO, KERNEL, MEMALLOC] = [0x820, 0x2800, 0xc00, 0xcc0, 0x20000];
const starve = (t) => {
  const g = t.create({ pages: 3, min: 1, low: 2, reclaim: [] });
  g.createPool(1);
  for (let i = 0; i < 2; i++) g.allocPage(MEMALLOC);
  return g;
};
export const tests = {
  "masks": (t) => {
    const h = t.create({ pages: 2, min: 2, low: 4, reclaim: [1, 1, 1] });
    t.equal(h.allocPage(NOWAIT), 0xffffffff);
    t.equal(h.kswapdWakes(), 1);
    const i = t.create({ pages: 0, min: 2, low: 4, reclaim: [1, 1, 1] });
    t.check(i.allocPage(KERNEL) !== 0xffffffff);
  },
  "order and refill": (t) => {
    const g = t.create({ pages: 9, min: 1, low: 2, reclaim: [] });
    g.createPool(1);
    const before = g.freePages();
    const p = g.poolAlloc(NOWAIT);
    t.equal(g.freePages(), before - 1);
    t.equal(g.poolFree(p), 0);
    t.equal(g.poolFree(p), -22);
    const h = starve(t);
    const q = h.poolAlloc(NOWAIT);
    h.poolFree(q);
    t.equal(h.freePages(), 0);
  },
  "wake-ups": (t) => {
    for (let k = 1; k < 24; k++) {
      const g = starve(t);
      const p = g.poolAlloc(NOWAIT);
      g.arm(k, "free", p);
      const q = g.poolAlloc(NOIO);
      t.check(q !== null || g.slept().length === 1);
      t.equal(g.bugs().length, 0);
    }
  },
  "interrupts": (t) => {
    for (let k = 1; k < 6; k++) {
      const g = t.create({ pages: 9, min: 1, low: 2, reclaim: [] });
      g.createPool(2);
      const [p, q] = [g.poolAlloc(NOWAIT), g.poolAlloc(NOWAIT)];
      g.arm(k, "free", p);
      g.poolFree(q);
      t.equal(g.bugs().length, 0);
      g.deferFree(7);
      g.arm(k, "defer", 8);
      g.work();
      g.work();
      t.equal(g.released().length, 2);
    }
  },
  "says that it sleeps": (t) => {
    const g = t.create({ pages: 9, min: 2, low: 4, reclaim: [] });
    g.allocPage(ATOMIC, true);
    t.equal(g.bugs().length, 0);
    g.allocPage(KERNEL, true);
    t.equal(g.bugs().length, 1);
  },
};
`;

describe.skipIf(!isBuilt)("lab 8, solutions", () => {
  let sandbox: Sandbox;
  let lab: Lab;
  beforeAll(() => {
    sandbox = createSandbox();
    lab = openLab("gfp-mempool");
  });
  afterAll(() => sandbox.close());

  it.each(["reference-arrays", "reference-classes"])("%s passes every check", async (reference) => {
    const target = await putUnderTest(lab, sandbox, ownOnly(lab, referenceFiles(lab, reference)));
    for (const check of code.checks) {
      // 450, a storm: mightSleep() of a task that was woken behind the call was taken for the caller's.
      const { status, failure } = await runCheck(code, check, target, [0, 1, 450, 4_000_000]);
      expect([check.id, status, failure?.violation ?? failure?.stop ?? null]).toEqual([check.id, "passed", null]);
    }
  });

  it("the look before the queue: the message names rule, sleeper and the place of the interrupt", async () => {
    const target = await putUnderTest(lab, sandbox, wrongFiles(lab, "look-before-queue"));
    const check = checkOf("wakeup");
    const seeds = Array.from({ length: 24 }, (_, i) => i);
    const outcome = await runCheck(code, check, target, seeds);
    const failure = outcome.failure === null ? null : await minimise(code, check, target, outcome.failure);
    if (failure === null) throw new Error("it passes");
    const text = failureLines({ code, lab: lab.short, check, failure, score: "0/3", showsTrace: true }).join("\n");
    expect(text).toContain("✗ gfp-mempool.wakeup  0/3   MPL-4:");
    expect(text).toContain("sleeps although 1 page");
    expect(text).toContain("┤irq:");
  });

  it("own tests can catch the whole bank and accept both references", async () => {
    const { done, total, lines } = await gradeOwnTests(lab, code, sandbox, "my_tests.ts", OWN_TESTS);
    expect([done, total, lines]).toEqual([10, 10, ["accepts 2/2 right solutions, catches 10/10 wrong ones"]]);
  });

  it("a question is the same each time, and the seven of the lab are of all four sorts", () => {
    const { seeds = [] } = lab.manifest.predictions ?? {};
    const questions = seeds.map((seed) => questionOf(lab, code, seed));
    expect(questions).toEqual(seeds.map((seed) => questionOf(lab, code, seed)));
    for (const sort of [/must allocPage/, /poolAlloc\(.*"sleep"/, /timer interrupt/, /are in reserve\?/]) {
      expect(questions.some(({ text }) => sort.test(text.join(" ")))).toBe(true);
    }
  });
});
