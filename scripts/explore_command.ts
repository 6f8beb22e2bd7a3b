/**
 * `slabtown explore`: interleavings and interrupts over the kernel's own code, chosen instead of met.
 *
 *   explore --list                          what there is to explore
 *   explore SCENARIO                        search; exit 1 with the schedule if something fails
 *   explore SCENARIO --mutant NAME          the same with a bug planted
 *   explore SCENARIO --schedule "0:6>1"     one schedule again
 *   explore [SCENARIO] --adequacy           how soon each planted bug is found, and how likely stress meets it
 */

import {
  type Adequacy,
  createHunt,
  formatPrograms,
  type HuntOptions,
  irqsFor,
  measureAdequacy,
  mutantOf,
  parsePrograms,
  programsFor,
  replaySchedule,
  SCENARIOS,
  type Scenario,
  STRATEGIES,
  type StrategyName,
} from "../explore/index.ts";
import { DEFAULT_SEED } from "../kernel/params.ts";
import { paintFor } from "./command_options.ts";
import { adequacyDocument, adequacyText, listText, resultDocument, resultText } from "./explore_report.ts";
import { type HostOutput, stoppable } from "./host_output.ts";
import { EXIT_FAILED, EXIT_INTERRUPT, EXIT_OK } from "./metrics.ts";
import { didYouMean } from "./nearest.ts";
import { MAX_RUNS } from "./number_options.ts";
import { shellQuote } from "./options.ts";
import { createProgress, NO_PROGRESS } from "./progress.ts";
import { printable } from "./readers/input_error.ts";
import { UsageError } from "./usage_error.ts";

export interface ExploreCommandOptions {
  readonly list?: boolean;
  readonly adequacy?: boolean;
  readonly mutant?: string;
  readonly strategy?: string;
  readonly bound?: number;
  readonly depth?: number;
  readonly ops?: number;
  readonly runs?: number;
  readonly cpus?: number;
  readonly irqs?: number;
  readonly programs?: string;
  readonly schedule?: string;
  readonly seed?: string;
  readonly json?: boolean;
  readonly host?: boolean;
  readonly quiet?: boolean;
  readonly color: boolean;
}

const DEFAULT_BOUND = 2;
const DEFAULT_DEPTH = 3;
/** Random programs are long: two orderings are enough. */
const RANDOM_DEPTH = 2;
const DEFAULT_OPS = 40;
/** Runs, where the strategy does not end by itself. */
const DEFAULT_RUNS = 100_000;
/** Between two looks at the host: well below a tenth of a second. */
const RUNS_PER_STEP = 500;
const STRESS_RUNS = 10_000;
const MAX_COLUMNS = 200;
const COLUMNS_PER_CPU = 48;

function scenarioNamed(name: string): Scenario {
  const found = SCENARIOS.find((scenario) => scenario.name === name);
  if (found !== undefined) return found;
  const names = SCENARIOS.map((scenario) => scenario.name);
  throw new UsageError(`there is no scenario "${printable(name)}"`, didYouMean(name, names, names.join(", ")));
}

function strategyNamed(name: string | undefined, scenario: Scenario): StrategyName {
  const wanted = name ?? "dfs";
  const found = STRATEGIES.find((known) => known === wanted);
  if (found === undefined) {
    throw new UsageError(`there is no strategy "${printable(wanted)}"`, STRATEGIES.join(", "));
  }
  if (found === "dpor" && scenario.hasLocks) {
    throw new UsageError(`${scenario.name} takes locks, which dpor cannot judge`, "use --strategy dfs");
  }
  if (found === "random" && scenario.randomLetters === "") {
    throw new UsageError(`random programs of ${scenario.name} would wait for ever`, "use --strategy pct or dfs");
  }
  return found;
}

function checkMutant(scenario: Scenario, name: string | undefined): string {
  if (name === undefined) return "";
  if (mutantOf(scenario, name) !== undefined) return name;
  const names = scenario.mutants.map((mutant) => mutant.name);
  throw new UsageError(
    `${scenario.name} has no planted bug "${printable(name)}"`,
    didYouMean(name, names, `planted bugs: ${names.join(", ")}`),
  );
}

/** What is to be done, from the options; refuses what cannot be. */
function huntOptions(scenario: Scenario, options: ExploreCommandOptions): HuntOptions {
  const mutant = checkMutant(scenario, options.mutant);
  const strategy = strategyNamed(options.strategy, scenario);
  const given = options.programs === undefined ? undefined : programsOf(scenario, options.programs);
  const nrCpus = options.cpus ?? given?.length ?? programsFor(scenario, mutant, scenario.cpus).length;
  if (nrCpus > scenario.maxCpus) {
    throw new UsageError(`${scenario.name} has at most ${scenario.maxCpus} CPUs`, `--cpus ${scenario.maxCpus}`);
  }
  if (given !== undefined && given.length !== nrCpus) {
    throw new UsageError(`${given.length} programs for ${nrCpus} CPUs`, "one program for each CPU, with | between");
  }
  const isOwn = options.cpus === undefined || nrCpus === programsFor(scenario, mutant, scenario.cpus).length;
  return {
    nrCpus,
    mutant,
    strategy,
    seed: options.seed ?? DEFAULT_SEED,
    maxRuns: options.runs ?? (strategy === "dfs" || strategy === "dpor" ? MAX_RUNS : DEFAULT_RUNS),
    bound: options.bound ?? DEFAULT_BOUND,
    depth: options.depth ?? (strategy === "random" ? RANDOM_DEPTH : DEFAULT_DEPTH),
    nrOperations: options.ops ?? DEFAULT_OPS,
    programs: given ?? (isOwn ? programsFor(scenario, mutant, nrCpus) : scenario.programs(nrCpus)),
    irqs: strategy === "dpor" ? 0 : (options.irqs ?? irqsFor(scenario, mutant)),
    width: columnsFor(nrCpus),
  };
}

/** Of a terminal what it has; elsewhere what a column for each CPU needs. */
function columnsFor(nrCpus: number): number {
  const columns = process.stdout.columns ?? 0;
  return columns > 0 ? Math.min(columns, MAX_COLUMNS) : Math.max(100, nrCpus * COLUMNS_PER_CPU);
}

function programsOf(scenario: Scenario, text: string): readonly string[] {
  const programs = parsePrograms(text, scenario.operations, scenario.maxCpus);
  if (typeof programs !== "string") return programs;
  const known = [...scenario.operations].map(([letter, does]) => `${letter}: ${does}`).join("; ");
  throw new UsageError(`--programs: ${printable(programs)}`, known);
}

/** The line that shows a finding again: schedule and programs say everything. */
function replayLine(scenario: Scenario, options: HuntOptions, programs: readonly string[], schedule: string): string {
  const words = ["slabtown", "explore", scenario.name];
  if (options.mutant !== "") words.push("--mutant", options.mutant);
  words.push("--programs", formatPrograms(programs));
  const irqs = options.irqs ?? 0;
  if (irqs !== irqsFor(scenario, options.mutant)) words.push("--irqs", String(irqs));
  return [...words, "--schedule", schedule].map(shellQuote).join(" ");
}

function checkAlone(options: ExploreCommandOptions): void {
  const { schedule, strategy, bound, runs } = options;
  if (schedule === undefined) return;
  if (strategy === undefined && bound === undefined && runs === undefined) return;
  throw new UsageError("--schedule is one run: there is nothing to search", "leave out --strategy, --bound, --runs");
}

/** Searches piece by piece: between two of them Ctrl-C and progress have their turn. */
async function search(scenario: Scenario, what: HuntOptions, options: ExploreCommandOptions, host: HostOutput) {
  const progress = options.quiet === true ? NO_PROGRESS : createProgress(process.stderr, undefined, "schedules");
  const total = what.maxRuns === MAX_RUNS ? 0 : what.maxRuns;
  const hunt = createHunt(scenario, what);
  const start = performance.now();
  await stoppable(host.stop, async () => {
    while (host.stop.reason === "none" && hunt.step(RUNS_PER_STEP)) {
      progress.update(hunt.result().nrRuns, total, 0);
      await new Promise((resolve) => setImmediate(resolve));
    }
  });
  progress.end();
  return { result: hunt.result(), seconds: (performance.now() - start) / 1000 };
}

async function searchCommand(scenario: Scenario, options: ExploreCommandOptions, host: HostOutput): Promise<number> {
  checkAlone(options);
  const what = huntOptions(scenario, options);
  const start = performance.now();
  const { result, seconds } =
    options.schedule === undefined
      ? await search(scenario, what, options, host)
      : { result: replayOf(scenario, what, options.schedule), seconds: (performance.now() - start) / 1000 };
  const { finding } = result;
  const replay = finding === null ? null : replayLine(scenario, what, finding.programs, finding.schedule);
  const report = { scenario, options: what, result, replay, seconds, isReplay: options.schedule !== undefined };
  if (options.json === true) {
    host.out(`${JSON.stringify(resultDocument(report, options.host === true), null, 2)}\n`);
  } else host.out(resultText(report, paintFor(options)));
  if (host.stop.reason === "interrupt") return EXIT_INTERRUPT;
  return finding === null ? EXIT_OK : EXIT_FAILED;
}

function replayOf(scenario: Scenario, options: HuntOptions, text: string) {
  const verdict = replaySchedule(scenario, options, text);
  if (typeof verdict === "string") throw new UsageError(`--schedule: ${printable(verdict)}`, "as printed by a search");
  return { ...verdict, bound: null };
}

function adequacyCommand(scenarios: readonly Scenario[], options: ExploreCommandOptions, host: HostOutput): number {
  const rows: { readonly scenario: Scenario; readonly found: Adequacy }[] = [];
  for (const scenario of scenarios) {
    for (const mutant of scenario.mutants) {
      const nrStress = options.runs ?? STRESS_RUNS;
      const found = measureAdequacy(scenario, mutant, nrStress, options.seed ?? DEFAULT_SEED);
      rows.push({ scenario, found });
    }
  }
  host.out(options.json === true ? `${JSON.stringify(adequacyDocument(rows), null, 2)}\n` : adequacyText(rows));
  return rows.every(({ found }) => found.bound !== null) ? EXIT_OK : EXIT_FAILED;
}

/** The command; its exit code. */
export async function exploreCommand(
  name: string | undefined,
  options: ExploreCommandOptions,
  host: HostOutput,
): Promise<number> {
  if (options.list === true) {
    host.out(listText(SCENARIOS));
    return EXIT_OK;
  }
  if (options.adequacy === true) {
    return adequacyCommand(name === undefined ? SCENARIOS : [scenarioNamed(name)], options, host);
  }
  if (name === undefined) {
    throw new UsageError("explore what?", `one of ${SCENARIOS.map((scenario) => scenario.name).join(", ")}; or --list`);
  }
  return await searchCommand(scenarioNamed(name), options, host);
}
