/**
 * What `slabtown explore` prints: a verdict, a finding as columns, the list of scenarios, the table of adequacy.
 */

import { type Adequacy, formatPrograms, type HuntOptions, type HuntResult, type Scenario } from "../explore/index.ts";
import type { Paint } from "./paint.ts";

export interface ExploreReport {
  readonly scenario: Scenario;
  readonly options: HuntOptions;
  readonly result: HuntResult;
  /** The line that shows the finding again. */
  readonly replay: string | null;
  readonly seconds: number;
  /** One given schedule, no search. */
  readonly isReplay: boolean;
}

const thousands = (n: number): string => Math.round(n).toLocaleString("en-US");

function searchedText({ result, seconds, isReplay }: ExploreReport): string {
  if (isReplay) return "one schedule, as given";
  const rate = thousands(result.nrRuns / Math.max(seconds, 0.001));
  const length = (result.nrSteps / Math.max(result.nrRuns, 1)).toFixed(0);
  return `${thousands(result.nrRuns)} schedules of about ${length} accesses, ${rate}/s`;
}

function verdictText({ options, result, isReplay }: ExploreReport): string {
  if (result.finding !== null) return result.finding.kind;
  if (isReplay) return "nothing fails";
  if (!result.isComplete) return "nothing found (the search is not complete)";
  if (options.strategy === "dpor") return "nothing fails: every order of dependent accesses was tried";
  const most = `${options.bound} preemption${options.bound === 1 ? "" : "s"} or interrupts`;
  return `nothing fails: every schedule with at most ${most} was tried`;
}

function findingLines(report: ExploreReport, paint: Paint): string[] {
  const { finding } = report.result;
  if (finding === null) return [];
  const events = finding.nrEvents === 1 ? "1 switch or interrupt" : `${finding.nrEvents} switches or interrupts`;
  const shrunk = finding.nrEventsFound === finding.nrEvents ? "" : `, shrunk from ${finding.nrEventsFound}`;
  return [
    paint.bad(`✗ ${finding.kind}: ${finding.message}`),
    `  found by schedule ${thousands(finding.nrRuns)}; ${events}${shrunk}`,
    `  programs ${formatPrograms(finding.programs)}   schedule ${finding.schedule}`,
    "",
    ...finding.lines.map((line) => `  ${line}`),
    "",
    `  again: ${report.replay}`,
  ];
}

/** The result for people. */
export function resultText(report: ExploreReport, paint: Paint): string {
  const { scenario, options } = report;
  const planted = options.mutant === "" ? "" : ` with the planted bug ${options.mutant}`;
  const interrupts = (options.irqs ?? 0) === 0 ? "" : `, up to ${options.irqs} interrupts on each`;
  const rows: [string, string][] = [
    ["scenario", `${scenario.name}${planted}: ${options.nrCpus} CPUs${interrupts}`],
    ["programs", options.strategy === "random" ? "drawn for each run" : formatPrograms(options.programs ?? [])],
    ["strategy", strategyText(options)],
    ["searched", searchedText(report)],
    ["verdict", verdictText(report)],
  ];
  const head = rows.map(([name, text]) => `${name.padEnd(10)} ${text}`);
  return `${[...head, ...findingLines(report, paint)].join("\n")}\n`;
}

function strategyText({ strategy, bound, depth, nrOperations, seed }: HuntOptions): string {
  if (strategy === "dfs") return `dfs, bound ${bound}`;
  if (strategy === "pct") return `pct, depth ${depth}, seed ${seed}`;
  if (strategy === "random")
    return `random programs of ${nrOperations} operations, pct of depth ${depth}, seed ${seed}`;
  return strategy === "stress" ? `stress, seed ${seed}` : strategy;
}

/** The JSON document. What depends on this computer only with `hasHost`. */
export function resultDocument(report: ExploreReport, hasHost: boolean): object {
  const { scenario, options, result, replay, seconds } = report;
  const { finding, ...counts } = result;
  return {
    schema: "slabtown/explore/v1",
    scenario: scenario.name,
    mutant: options.mutant === "" ? null : options.mutant,
    nrCpus: options.nrCpus,
    irqs: options.irqs ?? 0,
    strategy: options.strategy,
    seed: options.seed,
    programs: options.strategy === "random" ? null : options.programs,
    ...counts,
    finding: finding === null ? null : { ...finding, replay },
    ...(hasHost ? { host: { seconds, schedulesPerSecond: result.nrRuns / Math.max(seconds, 1e-6) } } : {}),
  };
}

/** `--list`. */
export function listText(scenarios: readonly Scenario[]): string {
  const lines = scenarios.flatMap((scenario) => [
    `${scenario.name}`,
    `  ${scenario.about}`,
    `  programs ${formatPrograms(scenario.programs(scenario.cpus))}; at most ${scenario.maxCpus} CPUs`,
    ...[...scenario.operations].map(([letter, does]) => `    ${letter}  ${does}`),
    ...(scenario.irqProgram === "" ? [] : [`  an interrupt does ${scenario.irqProgram}`]),
    "  planted bugs:",
    ...scenario.mutants.map(({ name, story }) => `    ${name.padEnd(18)} ${story}`),
    "",
  ]);
  return `${lines.join("\n")}\nslabtown explore SCENARIO [--mutant NAME]\n`;
}

type Row = { readonly scenario: Scenario; readonly found: Adequacy };

/** `--adequacy`: per planted bug, bounded search against stress. */
export function adequacyText(rows: readonly Row[]): string {
  const percent = ({ nrStress, nrStressFailed }: Adequacy): string =>
    nrStressFailed === 0 ? `< ${(100 / nrStress).toFixed(2)} %` : `${((100 * nrStressFailed) / nrStress).toFixed(2)} %`;
  const table = rows.map(({ scenario, found }) => [
    scenario.name,
    found.mutant.name,
    found.kind,
    found.bound === null ? "not found" : String(found.bound),
    thousands(found.nrRuns),
    percent(found),
  ]);
  const head = ["scenario", "planted bug", "reported as", "bound", "schedules", "a stress run fails"];
  const widths = head.map((title, i) => Math.max(title.length, ...table.map((row) => (row[i] as string).length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, i) => (i >= 3 ? cell.padStart(widths[i] as number) : cell.padEnd(widths[i] as number)))
      .join("  ")
      .trimEnd();
  return `${[head, ...table].map(line).join("\n")}\n`;
}

export function adequacyDocument(rows: readonly Row[]): object {
  return {
    schema: "slabtown/explore-adequacy/v1",
    rows: rows.map(({ scenario, found: { mutant, ...figures } }) => ({
      scenario: scenario.name,
      mutant: mutant.name,
      ...figures,
    })),
  };
}
