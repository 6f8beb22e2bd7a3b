/**
 * The fuzzer: runs numbered 0, 1, 2 … of a seed, until the time or their number is up.
 *
 *   number and seed ──▶ draw ──▶ run ──▶ fine ──────────────▶ count
 *                                  └──▶ failed ──▶ shrink ──▶ a finding: a file, and the line that shows it again
 *
 * Five kinds of runs: machines (fuzz_case.ts), machines whose programs make random system calls (draw_syscalls.ts), and
 * the borders of the program: recordings that are damaged, scenarios that are, command lines that make no sense
 * (border_*.ts).
 *
 *   FUZ-2  run k of a seed is the same run whenever and wherever it is made; the clock decides only when to stop
 *   FUZ-3  a finding's file fails in the same way when `slabtown run` is given it
 */

import type { StopRequest } from "../run_workloads.ts";
import { CLI_BORDER } from "./border_cli.ts";
import { READER_BORDER } from "./border_readers.ts";
import { SCENARIO_BORDER } from "./border_scenarios.ts";
import { createDraw } from "./draw.ts";
import { drawCase, FUZZ_DRIVERS } from "./draw_machine.ts";
import { drawSyscallCase } from "./draw_syscalls.ts";
import type { Border, BorderFinding, Finding, FuzzTarget, MachineTarget } from "./finding.ts";
import { caseText, type FuzzCase, runText } from "./fuzz_case.ts";
import { type Activity, type Failure, NO_ACTIVITY, runCase } from "./run_case.ts";
import { shrink, smallerCases } from "./shrink.ts";

/** Names of programs, modules, parameters and so on → number of runs that had them. */
export type Coverage = ReadonlyMap<string, ReadonlyMap<string, number>>;

export interface FuzzRequest {
  readonly seed: string;
  readonly targets: readonly FuzzTarget[];
  /** Number of the first run, and how many. */
  readonly first: number;
  readonly nrRuns: number;
  /** True when no further run is to be begun. */
  readonly isTimeUp: () => boolean;
  readonly stop: StopRequest;
  /** Runs that shrinking a finding may take. */
  readonly shrinkBudget: number;
  readonly draw?: (seed: string, run: number) => FuzzCase;
  readonly onProgress: (nrRuns: number, activity: Activity) => void;
  readonly onFinding: (finding: Finding) => void;
}

export interface FuzzResult {
  readonly nrRuns: Readonly<Record<FuzzTarget, number>>;
  /** Inputs that border runs tried. */
  readonly nrInputs: number;
  readonly activity: Activity;
  readonly nrRunsRefused: number;
  readonly coverage: Coverage;
  readonly findings: readonly Finding[];
  readonly isInterrupted: boolean;
}

const BORDERS: Readonly<Record<Exclude<FuzzTarget, MachineTarget>, Border>> = {
  readers: READER_BORDER,
  scenarios: SCENARIO_BORDER,
  cli: CLI_BORDER,
};

/** Which target run `run` is for: machines more often than the rest. */
export function targetOf(run: number, targets: readonly FuzzTarget[]): FuzzTarget {
  const others = targets.filter((target) => target !== "machines");
  if (others.length === targets.length || others.length === 0) return targets[run % targets.length] as FuzzTarget;
  const turn = run % (others.length + 6);
  return others[turn] ?? "machines";
}

/** The failure without its numbers: what has to stay while a case is shrunk. */
export const signatureOf = ({ kind, what }: Failure): string =>
  kind === "left" || kind === "content" || kind === "hang"
    ? kind
    : `${kind}: ${what.replaceAll(/0x[\da-f]+|\d+/gi, "N")}`;

class Tally {
  readonly coverage = new Map<string, Map<string, number>>();
  readonly nrRuns: Record<FuzzTarget, number> = { machines: 0, syscalls: 0, readers: 0, scenarios: 0, cli: 0 };
  activity = NO_ACTIVITY;
  nrInputs = 0;
  nrRunsRefused = 0;

  note = (group: string, name: string): void => {
    const counts = this.coverage.get(group) ?? new Map<string, number>();
    counts.set(name, (counts.get(name) ?? 0) + 1);
    this.coverage.set(group, counts);
  };

  add(more: Activity): void {
    const { allocations, syscalls, interrupts, cycles, refused } = this.activity;
    if (more.refused > 0) this.nrRunsRefused++;
    this.activity = {
      allocations: allocations + more.allocations,
      syscalls: syscalls + more.syscalls,
      interrupts: interrupts + more.interrupts,
      cycles: cycles + more.cycles,
      refused: refused + more.refused,
    };
  }
}

/** Fuzzes as `request` says. */
export async function fuzz(request: FuzzRequest): Promise<FuzzResult> {
  const { seed, targets, first, nrRuns, stop } = request;
  const tally = new Tally();
  const findings: Finding[] = [];
  const isStopped = (): boolean => stop.reason !== "none";
  for (let run = first; run < first + nrRuns && !isStopped() && !request.isTimeUp(); run++) {
    const target = targetOf(run, targets);
    const found =
      target === "machines" || target === "syscalls"
        ? await machineRun(request, target, run, tally)
        : await borderRun(target, seed, run, tally);
    if (found === "interrupted") break;
    tally.nrRuns[target]++;
    if (found !== null) {
      const finding = { run, target, ...found };
      findings.push(finding);
      request.onFinding(finding);
    }
    const done = Object.values(tally.nrRuns).reduce((sum, nr) => sum + nr, 0);
    request.onProgress(done, tally.activity);
  }
  const { activity, nrInputs, nrRunsRefused, coverage } = tally;
  return { nrRuns: tally.nrRuns, nrInputs, activity, nrRunsRefused, coverage, findings, isInterrupted: isStopped() };
}

async function borderRun(
  target: Exclude<FuzzTarget, MachineTarget>,
  seed: string,
  run: number,
  tally: Tally,
): Promise<BorderFinding | null> {
  const { nrInputs, finding } = await BORDERS[target].run(seed, run, tally.note);
  tally.nrInputs += nrInputs;
  return finding;
}

async function machineRun(
  request: FuzzRequest,
  target: MachineTarget,
  run: number,
  tally: Tally,
): Promise<BorderFinding | null | "interrupted"> {
  const drawOf = target === "machines" ? drawCase : drawSyscallCase;
  const { seed, stop, draw = (from, nr) => drawOf(createDraw(from, nr)) } = request;
  const fuzzCase = draw(seed, run);
  const { failure, activity, isInterrupted } = await runCase(caseText(fuzzCase, FUZZ_DRIVERS), stop);
  if (isInterrupted) return "interrupted";
  tally.add(activity);
  noteCase(fuzzCase, tally.note);
  if (failure === null) return null;
  const signature = signatureOf(failure);
  let last = failure;
  const isAlike = async (candidate: FuzzCase): Promise<boolean> => {
    if (stop.reason !== "none") return false;
    const { failure: again } = await runCase(caseText(candidate, FUZZ_DRIVERS), stop);
    if (again === null || signatureOf(again) !== signature) return false;
    last = again;
    return true;
  };
  const { smallest, nrRuns: nrShrinkRuns } = await shrink(fuzzCase, smallerCases, isAlike, request.shrinkBudget);
  const comment = [`slabtown fuzz --seed ${seed}, run ${run}: ${last.kind}: ${last.what.replaceAll(/\s+/g, " ")}`];
  const content = caseText(smallest, FUZZ_DRIVERS, comment);
  return { failure: last, file: { ending: "yaml", content }, replay: "slabtown run FILE", nrShrinkRuns };
}

/** What a case has, each once. */
function noteCase(fuzzCase: FuzzCase, note: Tally["note"]): void {
  const firstWords = (lines: readonly string[], end: RegExp): Set<string> =>
    new Set(lines.map((line) => line.split(end)[0] as string));
  for (const name of firstWords(fuzzCase.params, /=/)) note("parameters", name);
  for (const name of firstWords(fuzzCase.modules, / /)) note("modules", name);
  for (const name of Object.keys(fuzzCase.devices)) note("devices", name);
  const faults = Object.values(fuzzCase.devices).flatMap((settings) =>
    Object.keys(settings).filter((name) => FAULTS.has(name)),
  );
  for (const name of new Set(faults)) note("faults of devices", name);
  const words = fuzzCase.programs.flatMap(({ steps }) => steps.map((step) => step[0] as string));
  for (const name of new Set(words)) note("programs", name);
  const files = fuzzCase.recordings.map(({ source }) => ("file" in source ? source.file : "a list of operations"));
  for (const name of new Set(files)) note("recordings", name);
  const text = fuzzCase.programs.map(runText).join(" ");
  for (const [what, pattern] of DISTURBANCES) if (pattern.test(text)) note("disturbances", what);
}

const FAULTS: ReadonlySet<string> = new Set(["lost_irq", "late", "corrupt", "twice", "never", "vanish", "stray_write"]);
const DISTURBANCES: readonly (readonly [string, RegExp])[] = [
  ["a CPU goes or comes", /\/online/],
  ["a device is pulled out", /\/remove/],
  ["devices are looked for", /\/rescan/],
  ["contiguous memory is taken", /\/debug\/cma\//],
  ["failures are switched", /\/debug\/fail/],
];
