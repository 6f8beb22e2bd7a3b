/**
 * The fault sweep: the same run again and again, and in each another allocation fails.
 *
 *   reference run: no failure, R requests             ──▶ what is normal: objects, pages, virtual time
 *   N = 1, 2, 3 … R: a fresh machine, `fail_nth=N`    ──▶ judged against it
 *   some N or all: `fail_nth=N+`, nothing from N on   ──▶ likewise
 *   or, of each place that allocates, only some N (sweep_places.ts)
 *
 * The machine is deterministic, so up to the N-th request each run is the reference run, and each N hits one place in
 * the kernel, a driver or a program's page fault. A program that ends with an error, a driver that does not load: fine.
 * What is not:
 *
 *   crash      slabtown itself threw an error          panic    the kernel is dead
 *   invariant  a walk finds something broken           report   an oops, a splat, a bad free, misuse of DMA
 *   hang       it does not end in its time budget      content  a program read other bytes than it had written
 *   leak       tasks, pages or objects that the reference run does not keep
 *
 *   SWP-1  a run depends on nothing but the machine, the workloads and N: runs may be made in any order, or at once
 *   SWP-2  the sweep of a range is the part of the whole sweep that lies in the range
 *   SWP-3  each N of the range is tried, or the result says which part was
 */

import { type EndState, endState, surplusText } from "./end_state.ts";
import { MAX_FAIL_NTH, type MachineOptions, withKernelParameter } from "./options.ts";
import { type RunResult, runWorkloads, type StopRequest } from "./run_workloads.ts";
import { createPlaceRecorder, type Place, type PlaceRecorder, placePlan } from "./sweep_places.ts";
import { UsageError } from "./usage_error.ts";
import type { WorkloadSet } from "./workloads.ts";

export type FindingKind = "crash" | "panic" | "invariant" | "report" | "hang" | "content" | "leak";

export interface SweepFinding {
  /** `17`, or `17+` where all later ones failed too. */
  readonly nth: string;
  readonly kind: FindingKind;
  readonly what: string;
  /** Where the allocation was asked for, if places were recorded. */
  readonly place?: string;
}

export interface SweptPlace {
  readonly place: string;
  readonly nrRequests: number;
  /** How many of its requests failed in a run each. */
  readonly nrTried: number;
}

export interface SweepRequest {
  readonly machine: MachineOptions;
  readonly set: WorkloadSet;
  readonly from: number;
  /** Last N; undefined: the number of requests of the reference run. */
  readonly to: number | undefined;
  readonly step: number;
  /** Only so many N of each place; undefined: by number. */
  readonly perPlace?: number | undefined;
  /** How many N are tried as N+, spread over the range, or of each place the first; Infinity: all. */
  readonly nrPersistent: number;
  readonly stop: StopRequest;
  /** Told before each run how many are done of how many. */
  readonly onProgress: (nrDone: number, nrTotal: number, cycles: number) => void;
  readonly onFinding: (finding: SweepFinding) => void;
}

export interface SweepResult {
  /** Requests of the reference run that could be refused. */
  readonly nrRequests: number;
  readonly from: number;
  readonly to: number;
  readonly step: number;
  /** With `perPlace`. */
  readonly places: readonly SweptPlace[] | null;
  readonly nrOnce: number;
  readonly nrPersistent: number;
  /** Runs in which a program ended with an error or could not start, and in which all went on as if nothing was. */
  readonly nrFailedPrograms: number;
  readonly nrUnharmed: number;
  readonly findings: readonly SweepFinding[];
  /** The run that took longest in virtual time, beside the reference run. */
  readonly worst: { readonly nth: string; readonly cycles: number } | null;
  readonly referenceCycles: number;
  readonly hostSeconds: number;
  readonly isInterrupted: boolean;
}

/** A run may take this many times as long as the reference, and so much more: mempools sleep for five seconds. */
const BUDGET_FACTOR = 3;
const BUDGET_EXTRA_CYCLES = 12_000_000_000;

interface OneRun {
  readonly result: RunResult;
  readonly state: EndState | null;
  readonly nrRequests: number;
}

/** Sweeps. Throws `UsageError` if the range is empty or the reference run is not clean. */
export async function faultSweep(request: SweepRequest): Promise<SweepResult> {
  const start = performance.now();
  const recorder = request.perPlace === undefined ? null : createPlaceRecorder();
  const reference = await runOnce(request, String(MAX_FAIL_NTH), undefined, recorder?.onRequest);
  const isStopped = (): boolean => request.stop.reason !== "none";
  const to = Math.min(request.to ?? reference.nrRequests, reference.nrRequests);
  if (!isStopped()) checkReference(reference, request);
  const places = (recorder?.places() ?? [])
    .map((place) => within(place, request.from, to))
    .filter(({ requests }) => requests.length > 0);
  const placeOf = new Map(places.flatMap(({ name, requests }) => requests.map((nth) => [nth, name] as const)));
  const tried = new Set<number>();
  const tally = { nrOnce: 0, nrPersistent: 0, nrFailedPrograms: 0, nrUnharmed: 0 };
  const findings: SweepFinding[] = [];
  let worst: SweepResult["worst"] = null;
  const plan =
    request.perPlace === undefined
      ? sweepPlan(request.from, to, request.step, request.nrPersistent)
      : placePlan(places, request.perPlace, request.nrPersistent === Number.POSITIVE_INFINITY);
  for (const [i, nth] of plan.entries()) {
    if (isStopped()) break;
    request.onProgress(i, plan.length, worst?.cycles ?? 0);
    const outcome = await tryNth(request, nth, reference);
    if (isStopped()) break;
    if (nth.endsWith("+")) tally.nrPersistent++;
    else tally.nrOnce++;
    tried.add(Number.parseInt(nth, 10));
    const place = placeOf.get(Number.parseInt(nth, 10));
    for (const found of outcome.findings) {
      const finding = place === undefined ? found : { ...found, place };
      findings.push(finding);
      request.onFinding(finding);
    }
    if (outcome.hasFailed) tally.nrFailedPrograms++;
    else if (outcome.findings.length === 0) tally.nrUnharmed++;
    if (outcome.cycles > (worst?.cycles ?? -1)) worst = { nth, cycles: outcome.cycles };
  }
  return {
    ...tally,
    nrRequests: reference.nrRequests,
    from: request.from,
    to,
    step: request.step,
    places: recorder === null ? null : places.map((place) => sweptPlace(place, tried)),
    findings,
    worst,
    referenceCycles: reference.result.virtualCycles,
    hostSeconds: (performance.now() - start) / 1000,
    isInterrupted: isStopped(),
  };
}

const within = ({ name, requests }: Place, from: number, to: number): Place => ({
  name,
  requests: requests.filter((nth) => nth >= from && nth <= to),
});

const sweptPlace = ({ name, requests }: Place, tried: ReadonlySet<number>): SweptPlace => ({
  place: name,
  nrRequests: requests.length,
  nrTried: requests.filter((nth) => tried.has(nth)).length,
});

/** The runs of a sweep in their order: each N once, and `nrPersistent` of them, evenly spread, as `N+` behind it. */
export function sweepPlan(from: number, to: number, step: number, nrPersistent: number): readonly string[] {
  const plan: string[] = [];
  const nrSteps = Math.max(0, Math.floor((to - from) / step) + 1);
  const stride = Math.max(1, Math.ceil(nrSteps / nrPersistent));
  for (let i = 0; i < nrSteps; i++) {
    const nth = from + i * step;
    plan.push(String(nth));
    if (i % stride === 0) plan.push(`${nth}+`);
  }
  return plan;
}

function checkReference({ result, nrRequests }: OneRun, { from, to }: SweepRequest): void {
  if (from > nrRequests) {
    throw new UsageError(`--sweep-from ${from}: the run makes ${nrRequests} allocations`, "start lower");
  }
  if (to !== undefined && to < from) throw new UsageError("--sweep-to lies before --sweep-from", "exchange them");
  const complaint = result.violation ?? result.panicReport ?? (result.nrReports > 0 ? "reports of the kernel" : null);
  if (complaint !== null || !isOver(result)) {
    throw new UsageError(`the run without a failure is not clean: ${complaint ?? result.end}`, "mend that first");
  }
}

interface Outcome {
  readonly findings: readonly SweepFinding[];
  readonly hasFailed: boolean;
  readonly cycles: number;
}

async function tryNth(request: SweepRequest, nth: string, reference: OneRun): Promise<Outcome> {
  const budget = reference.result.virtualCycles * BUDGET_FACTOR + BUDGET_EXTRA_CYCLES;
  try {
    const run = await runOnce(request, nth, budget);
    const findings = judgeRun(run, reference).map(([kind, what]) => ({ nth, kind, what }));
    const hasFailed = run.result.workloads.some(
      ({ exitStatus }, i) => exitStatus !== reference.result.workloads[i]?.exitStatus,
    );
    return { findings, hasFailed, cycles: run.result.virtualCycles };
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const what = error instanceof Error ? (error.stack ?? error.message).split("\n").slice(0, 3).join(" ") : `${error}`;
    return { findings: [{ nth, kind: "crash", what }], hasFailed: false, cycles: 0 };
  }
}

async function runOnce(
  { machine, set, stop }: SweepRequest,
  nth: string,
  cyclesLimit: number | undefined,
  onAllocRequest?: PlaceRecorder["onRequest"],
): Promise<OneRun> {
  const failing = withKernelParameter(machine, `fail_nth=${nth}`);
  const { result, kernel } = await runWorkloads({ machine: failing, set, cyclesLimit, stop, onAllocRequest });
  const isComparable = isOver(result) && result.violation === null;
  const nrRequests = kernel.faultStats()?.nrRequests ?? 0;
  if (isComparable) {
    // A file that nobody could remove any more, because there was no memory for the program that would, is no leak.
    kernel.stopFaults();
    kernel.removeFiles();
  }
  return { result, nrRequests, state: isComparable ? endState(kernel) : null };
}

const isOver = ({ end }: RunResult): boolean => end === "done" || end === "poweroff";

function judgeRun({ result, state }: OneRun, reference: OneRun): [FindingKind, string][] {
  const found: [FindingKind, string][] = [];
  if (result.panicReport !== null) found.push(["panic", result.panicReport]);
  if (result.violation !== null) found.push(["invariant", result.violation]);
  if (result.nrReports > 0) found.push(["report", `${result.nrReports} (BUG: and WARNING: lines in the log)`]);
  if (result.end === "stuck") found.push(["hang", `nothing will wake ${sleepersOf(result)}`]);
  if (result.end === "cycles") found.push(["hang", `still running after ${result.virtualCycles} cycles`]);
  if (result.nrCorrupt > reference.result.nrCorrupt) {
    found.push(["content", `${result.nrCorrupt} blocks, packets or stamps are not what was written`]);
  }
  const leak =
    state === null || reference.state === null ? null : leakText(state, reference.state, result.end === "poweroff");
  const left = reference.result.leftBehind === null ? result.leftBehind : null;
  if (leak !== null || left !== null) found.push(["leak", leak ?? `after \`finally\`: ${left}`]);
  return found;
}

function sleepersOf({ workloads }: RunResult): string {
  return workloads
    .filter(({ exitStatus }) => exitStatus === undefined)
    .map(({ name }) => name)
    .join(", ");
}

/**
 * What `now` has and the reference has not. At power-off, programs may be left and modules loaded because the shell
 * that should have waited for them or removed them died: what they hold is theirs, and nothing can be said.
 */
function leakText(now: EndState, reference: EndState, isPowerOff: boolean): string | null {
  if (now.modules > reference.modules || (isPowerOff && now.tasks > reference.tasks)) return null;
  return surplusText(now, reference);
}
