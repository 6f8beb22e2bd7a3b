/**
 * A hunt: a scenario, perhaps with a planted bug, under a strategy by name. What the command line and graders share.
 */

import { createRandomStreams } from "../kernel/lib/prng.ts";
import { createDeepening } from "./dfs.ts";
import { createDpor } from "./dpor.ts";
import { createExploration, type Exploration, type Verdict } from "./exploration.ts";
import { createPct, createStress } from "./pct.ts";
import { randomPrograms } from "./programs.ts";
import { bindPrograms, type Mutant, type Scenario } from "./scenario.ts";
import { parseSchedule } from "./schedule.ts";
import type { Strategy } from "./strategy.ts";

export const STRATEGIES = ["dfs", "pct", "random", "dpor", "stress"] as const;
export type StrategyName = (typeof STRATEGIES)[number];

/** Length of a time slice of the stress strategy, in scheduling points. */
const STRESS_SLICE = 50;

export interface HuntOptions {
  readonly nrCpus: number;
  /** Name of a planted bug; "": none. */
  readonly mutant: string;
  readonly strategy: StrategyName;
  readonly seed: string;
  readonly maxRuns: number;
  /** Of dfs. */
  readonly bound: number;
  /** Of pct and random: orderings per run. */
  readonly depth: number;
  /** Of random: operations per CPU. */
  readonly nrOperations: number;
  /** Absent: those of the mutant or the scenario. */
  readonly programs?: readonly string[] | undefined;
  readonly irqs?: number | undefined;
  readonly width?: number | undefined;
  readonly isShrinking?: boolean | undefined;
  readonly isDetecting?: boolean | undefined;
}

export interface HuntResult extends Verdict {
  /** Of dfs: the bound that was reached. */
  readonly bound: number | null;
}

/** A hunt that can be made in pieces, so that somebody can look in between. */
export interface Hunt {
  /** At most so many runs more; false when there is nothing left to do. */
  step(nrRuns: number): boolean;
  /** As far as it is. */
  result(): HuntResult;
}

export const mutantOf = (scenario: Scenario, name: string): Mutant | undefined =>
  scenario.mutants.find((mutant) => mutant.name === name);

/** Programs, unless others are asked for. */
export function programsFor(scenario: Scenario, mutant: string, nrCpus: number): readonly string[] {
  return mutantOf(scenario, mutant)?.programs ?? scenario.programs(nrCpus);
}

/** Interrupts per CPU, unless asked otherwise. */
export function irqsFor(scenario: Scenario, mutant: string): number {
  return scenario.irqProgram === "" ? 0 : (mutantOf(scenario, mutant)?.irqs ?? scenario.irqs);
}

type Setup = Pick<HuntOptions, "nrCpus" | "mutant" | "programs" | "irqs" | "width" | "isShrinking" | "isDetecting">;

/** Builds the scenario's machine and an exploration over it. */
export function prepare(scenario: Scenario, options: Setup): Exploration {
  const { nrCpus, mutant, width, isShrinking, isDetecting } = options;
  const programs = options.programs ?? programsFor(scenario, mutant, nrCpus);
  const irqs = options.irqs ?? irqsFor(scenario, mutant);
  const built = scenario.build({ nrCpus, mutant });
  const explorable = bindPrograms(built, nrCpus, programs, scenario.irqProgram);
  return createExploration({
    explorable,
    irqs,
    ...(width === undefined ? {} : { width }),
    ...(isShrinking === undefined ? {} : { isShrinking }),
    ...(isDetecting === undefined ? {} : { isDetecting }),
  });
}

/** Builds the machine; nothing is run yet. */
export function createHunt(scenario: Scenario, options: HuntOptions): Hunt {
  const { strategy: name, seed, maxRuns, depth, nrCpus } = options;
  const exploration = prepare(scenario, options);
  const random = createRandomStreams(seed);
  const letters = [...scenario.randomLetters];
  const nextPrograms = (): string[] => randomPrograms(random.stream("programs"), letters, nrCpus, options.nrOperations);
  const deepening = createDeepening(options.bound);
  const make: Record<StrategyName, () => Strategy> = {
    dfs: () => deepening,
    pct: () => createPct(random.stream("pct"), depth),
    random: () => createPct(random.stream("pct"), depth),
    dpor: createDpor,
    stress: () => createStress(random.stream("stress"), STRESS_SLICE),
  };
  const strategy = make[name]();
  let sum: Verdict = { nrRuns: 0, nrSteps: 0, nrPruned: 0, isComplete: false, finding: null };
  return {
    step(nrRuns) {
      const { explore } = exploration;
      const piece = explore({
        strategy,
        maxRuns: Math.min(nrRuns, maxRuns - sum.nrRuns),
        nextPrograms: name === "random" ? nextPrograms : undefined,
      });
      const finding = piece.finding && { ...piece.finding, nrRuns: sum.nrRuns + piece.finding.nrRuns };
      sum = {
        nrRuns: sum.nrRuns + piece.nrRuns,
        nrSteps: sum.nrSteps + piece.nrSteps,
        nrPruned: sum.nrPruned + piece.nrPruned,
        isComplete: piece.isComplete,
        finding,
      };
      return finding === null && !sum.isComplete && sum.nrRuns < maxRuns;
    },
    result: () => ({ ...sum, bound: name === "dfs" ? deepening.bound() : null }),
  };
}

export function hunt(scenario: Scenario, options: HuntOptions): HuntResult {
  const whole = createHunt(scenario, options);
  whole.step(options.maxRuns);
  return whole.result();
}

/** One schedule, given as text; or what is wrong with the text. */
export function replaySchedule(scenario: Scenario, options: Setup, text: string): Verdict | string {
  const events = parseSchedule(text);
  return typeof events === "string" ? events : prepare(scenario, options).replay(events);
}

export interface Adequacy {
  readonly mutant: Mutant;
  /** Preemptions of the first failing schedule, and runs until then; null if there was none. */
  readonly bound: number | null;
  readonly nrRuns: number;
  readonly kind: string;
  /** Of so many stress runs, how many failed. */
  readonly nrStress: number;
  readonly nrStressFailed: number;
}

/** How soon a planted bug is found by bounded search, and how likely a stress run meets it. */
export function measureAdequacy(scenario: Scenario, mutant: Mutant, nrStress: number, seed: string): Adequacy {
  const nrCpus = scenario.cpus;
  const setup = { nrCpus, mutant: mutant.name, isShrinking: false };
  const deepening = createDeepening(mutant.bound);
  const { finding, nrRuns } = prepare(scenario, setup).explore({ strategy: deepening, maxRuns: 1_000_000 });
  const stress = createStress(createRandomStreams(seed).stream("stress"), STRESS_SLICE);
  // What a stress test on a real machine sees: outcomes.
  const nrStressFailed = prepare(scenario, { ...setup, isDetecting: false }).sample(stress, nrStress);
  const bound = finding === null ? null : deepening.bound();
  return { mutant, bound, nrRuns, kind: finding?.kind ?? "none", nrStress, nrStressFailed };
}
