/**
 * Goal: the real code of every scenario passes, the search finds every bug that is planted in it within its bound,
 * makes it small and shows it again; nothing is ever reported about correct code (DEP-5, MAG-2, PCP-1, SWI-5, SWI-6, WTQ-1).
 * Method: every scenario with its own programs and bound 2; every mutant; random programs under random schedules.
 */

import { describe, expect, it } from "vitest";
import { type HuntOptions, hunt, replaySchedule, SCENARIOS, type Scenario } from "../../explore/index.ts";

const DEFAULTS: HuntOptions = {
  nrCpus: 2,
  mutant: "",
  strategy: "dfs",
  seed: "1",
  maxRuns: 1_000_000,
  bound: 2,
  depth: 3,
  nrOperations: 8,
};
/** Searched to the end elsewhere: `slabtown explore dma-map`, 45,768 schedules. */
const BOUND_ONE = new Set(["dma-map"]);
const find = (name: string): Scenario => SCENARIOS.find((scenario) => scenario.name === name) as Scenario;

describe.each(SCENARIOS)("$name", (scenario) => {
  const bound = BOUND_ONE.has(scenario.name) ? 1 : 2;

  it(`XPL-1 every schedule with at most ${bound} preemptions and interrupts is fine`, () => {
    const result = hunt(scenario, { ...DEFAULTS, nrCpus: scenario.cpus, bound });
    expect(result).toMatchObject({ finding: null, isComplete: true });
    expect(result.nrRuns).toBeGreaterThan(bound * 5);
  });

  it.each(scenario.mutants)("XPL-2 finds $name, small and replayable", (mutant) => {
    const nrCpus = mutant.programs?.length ?? scenario.cpus;
    const options: HuntOptions = { ...DEFAULTS, nrCpus, mutant: mutant.name, bound: mutant.bound };
    const { finding } = hunt(scenario, options);
    expect(mutant.kinds).toContain(finding?.kind);
    expect(finding?.nrEvents).toBeLessThanOrEqual(mutant.bound);
    expect(finding?.lines.length).toBeLessThanOrEqual(25);
    const again = replaySchedule(scenario, { ...options, programs: finding?.programs }, finding?.schedule ?? "");
    expect(again).toMatchObject({ finding: { kind: finding?.kind, message: finding?.message } });
  });

  it("random programs under random schedules: nothing is reported", () => {
    const strategy = scenario.randomLetters === "" ? "pct" : "random";
    const result = hunt(scenario, { ...DEFAULTS, nrCpus: scenario.cpus, strategy, maxRuns: 1_500 });
    expect(result).toMatchObject({ finding: null, nrRuns: 1_500 });
  });
});

it("PCP-4 a CPU that drains the lists of another one, which allocates: every schedule without interrupts", () => {
  const result = hunt(find("pcp"), { ...DEFAULTS, programs: ["a", "s"], irqs: 0 });
  expect(result).toMatchObject({ finding: null, isComplete: true });
});

it("SWI-6 regression: mappings refused at once on two CPUs and in a handler are counted under the lock", () => {
  const result = hunt(find("dma-map"), { ...DEFAULTS, programs: ["mm", "mu"], bound: 2, irqs: 1 });
  expect(result).toMatchObject({ finding: null, isComplete: true });
});

it("a race is shown up to the access that makes it, which has not happened", () => {
  const { finding } = hunt(find("dma-map"), { ...DEFAULTS, nrCpus: 3, mutant: "unmap-early", bound: 0 });
  expect(finding?.lines.at(-1)).toMatch(/program: st slot 0 ✗$/);
});

it("DEP-2 regression: the auditor of a depot whose counter is below zero comes to an end", () => {
  // Found by random programs over the planted late tag: the walk went round for 2^32 steps.
  for (let seed = 1; seed <= 3; seed++) {
    const options = { ...DEFAULTS, mutant: "late-tag", strategy: "random", nrOperations: 40, depth: 2 } as const;
    const { finding } = hunt(find("depot-lockfree"), { ...options, seed: String(seed), isShrinking: false });
    expect(finding).not.toBeNull();
  }
});
