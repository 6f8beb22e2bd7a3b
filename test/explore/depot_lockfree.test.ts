/**
 * Goal: the lock-free depot survives every schedule with two preemptions on two and three CPUs (DEP-4, DEP-5), and
 * random programs find the deep ABA whatever the seed.
 * Method: scenario depot-lockfree with programs of its own, also without a bound (DPR-1), and its two ABA mutants.
 */

import { expect, it } from "vitest";
import { type HuntOptions, hunt, SCENARIOS, type Scenario } from "../../explore/index.ts";
import { runs } from "../support/runs.ts";

const scenario = SCENARIOS.find(({ name }) => name === "depot-lockfree") as Scenario;
const DEFAULTS: HuntOptions = {
  nrCpus: 2,
  mutant: "",
  strategy: "dfs",
  seed: "1",
  maxRuns: 1_000_000,
  bound: 2,
  depth: 2,
  nrOperations: 40,
};

it.each([
  ["ppUU", "ppUU"],
  ["p", "ppU"],
  ["pu", "pu", "pu"],
])("DEP-5 DFS-2 every schedule of %s with at most two preemptions is fine", (...programs) => {
  const result = hunt(scenario, { ...DEFAULTS, nrCpus: programs.length, programs });
  expect(result).toMatchObject({ finding: null, isComplete: true, bound: 2 });
  expect(result.nrRuns).toBeGreaterThan(100);
});

it("DPR-1 every order of dependent accesses of a take and a take, give is fine", () => {
  const result = hunt(scenario, { ...DEFAULTS, strategy: "dpor", programs: ["p", "pu"] });
  expect(result).toMatchObject({ finding: null, isComplete: true });
  expect(result.nrRuns).toBeGreaterThan(10);
});

it.each(["untagged", "late-tag"])("random programs find %s, whatever the seed", (mutant) => {
  for (let seed = 1; seed <= runs(8, 20); seed++) {
    const options = { ...DEFAULTS, mutant, strategy: "random" as const, seed: String(seed), isShrinking: false };
    const { finding, nrRuns } = hunt(scenario, { ...options, maxRuns: 20_000 });
    expect(finding, `seed ${seed}`).not.toBeNull();
    expect(nrRuns).toBeLessThanOrEqual(20_000);
  }
});
