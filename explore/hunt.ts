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
  readonly shouldStop?: ((nrRuns: number) => boolean) | undefined;
  /** The machine is built, the search begins. */
  readonly onReady?: (() => void) | undefined;
}

export interface HuntResult extends Verdict {
  /** Of dfs: the bound that was reached. */
  readonly bound: number | null;
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

type Setup = Pick<HuntOptions, "nrCpus" | "mutant" | "programs" | "irqs" | "width" | "isShrinking">;

/** Builds the scenario's machine and an exploration over it. */
export function prepare(scenario: Scenario, options: Setup): Exploration {
  const { nrCpus, mutant, width, isShrinking } = options;
  const programs = options.programs ?? programsFor(scenario, mutant, nrCpus);
  const irqs = options.irqs ?? irqsFor(scenario, mutant);
  const built = scenario.build({ nrCpus, mutant });
  const explorable = bindPrograms(built, nrCpus, programs, scenario.irqProgram);
  return createExploration({
    explorable,
    irqs,
    ...(width === undefined ? {} : { width }),
    ...(isShrinking === undefined ? {} : { isShrinking }),
  });
}

export function hunt(scenario: Scenario, options: HuntOptions): HuntResult {
  const { strategy: name, seed, maxRuns, depth, nrCpus, shouldStop } = options;
  const exploration = prepare(scenario, options);
  const random = createRandomStreams(seed);
  const letters = [...scenario.operations.keys()];
  const nextPrograms = (): string[] => randomPrograms(random.stream("programs"), letters, nrCpus, options.nrOperations);
  const deepening = createDeepening(options.bound);
  const make: Record<StrategyName, () => Strategy> = {
    dfs: () => deepening,
    pct: () => createPct(random.stream("pct"), depth),
    random: () => createPct(random.stream("pct"), depth),
    dpor: createDpor,
    stress: () => createStress(random.stream("stress"), STRESS_SLICE),
  };
  options.onReady?.();
  const verdict = exploration.explore({
    strategy: make[name](),
    maxRuns,
    nextPrograms: name === "random" ? nextPrograms : undefined,
    shouldStop,
  });
  return { ...verdict, bound: name === "dfs" ? deepening.bound() : null };
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
  const exploration = prepare(scenario, setup);
  const stress = createStress(createRandomStreams(seed).stream("stress"), STRESS_SLICE);
  let left = nrStress;
  let nrStressFailed = 0;
  while (left > 0) {
    const verdict = exploration.explore({ strategy: stress, maxRuns: left });
    left -= verdict.nrRuns;
    if (verdict.finding !== null) nrStressFailed++;
  }
  const bound = finding === null ? null : deepening.bound();
  return { mutant, bound, nrRuns, kind: finding?.kind ?? "none", nrStress, nrStressFailed };
}
