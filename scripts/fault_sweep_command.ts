/**
 * `--fault-sweep` of run and boot: options, progress, and the result as text or as one JSON document.
 */

import type { CommonOptions } from "./command_options.ts";
import { type FindingKind, faultSweep, type SweepFinding, type SweepResult, type SweptPlace } from "./fault_sweep.ts";
import { type HostOutput, stoppable } from "./host_output.ts";
import { EXIT_FAILED, EXIT_INTERRUPT, EXIT_OK } from "./metrics.ts";
import { type MachineOptions, shellQuote } from "./options.ts";
import { createProgress, NO_PROGRESS } from "./progress.ts";
import { UsageError } from "./usage_error.ts";
import type { WorkloadSet } from "./workloads.ts";

/** How many N are also tried as N+ when not all are. */
const SOME_PERSISTENT = 50;
/** Findings that are printed as they come; the JSON document has all. */
const MAX_SHOWN = 20;

export interface FaultOptions {
  readonly failAlloc?: string;
  readonly faultSweep?: boolean;
  readonly sweepFrom?: number;
  readonly sweepTo?: number;
  readonly sweepStep?: number;
  readonly sweepPlaces?: number;
  readonly persistent?: boolean;
}

/** Refuses options that mean nothing together. */
export function checkFaultOptions(options: FaultOptions): void {
  const { sweepFrom, sweepTo, sweepStep, sweepPlaces, persistent } = options;
  if (options.faultSweep !== true) {
    const hows = [sweepFrom, sweepTo, sweepStep, sweepPlaces];
    if (hows.every((how) => how === undefined) && persistent !== true) return;
    throw new UsageError("--sweep-… and --persistent say how to sweep", "add --fault-sweep");
  }
  if (options.failAlloc !== undefined) {
    throw new UsageError("--fault-sweep chooses the allocation itself", "leave out --fail-alloc");
  }
  if (sweepStep !== undefined && sweepPlaces !== undefined) {
    throw new UsageError("--sweep-step counts allocations, --sweep-places places", "use one of them");
  }
  if (sweepTo !== undefined && sweepTo < (sweepFrom ?? 1)) {
    throw new UsageError(`--sweep-to ${sweepTo} lies before --sweep-from ${sweepFrom ?? 1}`, "exchange them");
  }
}

export interface SweepCommand {
  readonly set: WorkloadSet;
  readonly machine: MachineOptions;
  /** The command line of one such run, to which `--fail-alloc N` is added. */
  readonly replay: string;
  readonly options: CommonOptions & FaultOptions;
  readonly host: HostOutput;
}

/** Sweeps and reports; the exit code. */
export async function sweepCommand({ set, machine, replay, options, host }: SweepCommand): Promise<number> {
  const progress = options.quiet === true ? NO_PROGRESS : createProgress(process.stderr, undefined, "runs");
  let nrShown = 0;
  const result = await stoppable(host.stop, () =>
    faultSweep({
      machine,
      set,
      from: options.sweepFrom ?? 1,
      to: options.sweepTo,
      step: options.sweepStep ?? 1,
      perPlace: options.sweepPlaces,
      nrPersistent: options.persistent === true ? Number.POSITIVE_INFINITY : SOME_PERSISTENT,
      stop: host.stop,
      onProgress: progress.update,
      onFinding: (finding) => {
        if (++nrShown > MAX_SHOWN) return;
        progress.end();
        host.err(`slabtown: ${findingText(finding)}\n  to see it again: ${replayOf(replay, finding)}\n`);
      },
    }),
  );
  progress.end();
  if (nrShown > MAX_SHOWN) host.err(`slabtown: and ${nrShown - MAX_SHOWN} more\n`);
  const document = sweepDocument(result, machine, replay, options.host === true);
  host.out(options.json === true ? `${JSON.stringify(document, null, 2)}\n` : sweepText(result, replay));
  if (host.stop.reason === "closed") return EXIT_OK;
  if (result.isInterrupted) return EXIT_INTERRUPT;
  return result.findings.length > 0 ? EXIT_FAILED : EXIT_OK;
}

const replayOf = (replay: string, { nth }: SweepFinding): string => `${replay} --fail-alloc ${shellQuote(nth)}`;

const findingText = ({ nth, kind, what, place }: SweepFinding): string =>
  `allocation ${nth}: ${kind}: ${what}${place === undefined ? "" : `\n  asked for by ${place}`}`;

/** How many places there are and whether a request of each has failed. */
function placesText(places: readonly SweptPlace[]): string {
  const nrTried = places.filter((place) => place.nrTried > 0).length;
  const most = Math.max(0, ...places.map((place) => place.nrTried));
  const verdict = nrTried === places.length ? "each was tried" : `${nrTried} were tried`;
  return `${places.length} that allocate; ${verdict}, with up to ${most} of its allocations`;
}

/** The summary: what was tried, what came of it, the first finding. */
export function sweepText(result: SweepResult, replay: string): string {
  const { nrOnce, nrPersistent, findings, worst } = result;
  const nrRuns = nrOnce + nrPersistent;
  const range = `${result.from} to ${result.to}${result.step === 1 ? "" : `, every ${result.step}th`}`;
  const rows: [string, string][] = [
    ["allocations", `${result.nrRequests} that can fail; swept: ${range}`],
    ["tried", `${nrOnce} once, ${nrPersistent} with all later ones${result.isInterrupted ? ", then interrupted" : ""}`],
    ["fine", `${result.nrUnharmed} unharmed, ${result.nrFailedPrograms} with programs that failed`],
    ["speed", `${(nrRuns / Math.max(result.hostSeconds, 0.001)).toFixed(1)} runs/s`],
  ];
  if (result.places !== null) rows.splice(1, 0, ["places", placesText(result.places)]);
  if (worst !== null) {
    const ms = (cycles: number): string => `${(cycles / 1e6).toFixed(1)} ms`;
    rows.push(["longest", `${ms(worst.cycles)} at ${worst.nth}; without a failure ${ms(result.referenceCycles)}`]);
  }
  rows.push(["findings", findings.length === 0 ? "none" : `${findings.length}: ${kindsText(findings)}`]);
  const [first] = findings;
  if (first !== undefined) {
    rows.push(["first", findingText(first)], ["again", replayOf(replay, first)]);
  }
  return `Fault sweep\n${rows.map(([name, text]) => `  ${name.padEnd(12)} ${text}\n`).join("")}`;
}

function kindsText(findings: readonly SweepFinding[]): string {
  const counts = new Map<FindingKind, number>();
  for (const { kind } of findings) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return [...counts].map(([kind, nr]) => `${nr} ${kind}`).join(", ");
}

/** The JSON document. What depends on this computer only with `hasHost`. */
export function sweepDocument(result: SweepResult, machine: MachineOptions, replay: string, hasHost: boolean): object {
  const { hostSeconds, findings, ...rest } = result;
  return {
    schema: "slabtown/fault-sweep/v1",
    machine,
    ...rest,
    findings: findings.map((finding) => ({ ...finding, replay: replayOf(replay, finding) })),
    ...(hasHost
      ? { host: { seconds: hostSeconds, runsPerSecond: (rest.nrOnce + rest.nrPersistent) / hostSeconds } }
      : {}),
  };
}
