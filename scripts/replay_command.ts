/**
 * `slabtown replay`: goes back into a recorded run, to any moment, and shows the machine there.
 *
 * The run is done again from power-on; every snapshot on the way is compared (snapshots/replayer.ts). What is shown is
 * the machine of that moment, and with --diff what became of memory between two of them.
 */

import { type CommonOptions, paintFor } from "./command_options.ts";
import { type HostOutput, stoppable } from "./host_output.ts";
import { EXIT_FAILED, EXIT_INTERRUPT, EXIT_OK, judge } from "./metrics.ts";
import { formatSize, machineArgs, type Place, parsePlace, shellQuote } from "./options.ts";
import { packageVersion } from "./package_files.ts";
import type { Paint } from "./paint.ts";
import { createProgress, NO_PROGRESS } from "./progress.ts";
import { readInput } from "./readers/input.ts";
import { type RunResult, runWorkloads } from "./run_workloads.ts";
import { type Mark, markLabel, ramHex } from "./snapshots/mark.ts";
import { readMarks, type StoredMark } from "./snapshots/mark_chain.ts";
import { diffLines, memoryDiff, pagesByOwner } from "./snapshots/memory_diff.ts";
import { createReplayer, type Divergence, type Point, type Replayer } from "./snapshots/replayer.ts";
import { inputChecker } from "./snapshots/run_definition.ts";
import { decode, type Recording } from "./snapshots/snapshot_file.ts";
import { grouped, summaryText, titled } from "./summary.ts";
import { UsageError } from "./usage_error.ts";
import { loadWorkloads, type WorkloadSet, withoutStrayWrites } from "./workloads.ts";

export interface ReplayOptions extends Pick<CommonOptions, "json" | "quiet" | "color" | "debug"> {
  readonly to?: string;
  readonly diff?: string;
  readonly list?: boolean;
}

/** Replays the file at `path`; the exit code. */
export async function replayCommand(path: string, options: ReplayOptions, host: HostOutput): Promise<number> {
  const recording = await readRecording(path);
  const paint = paintFor(options);
  if (options.list === true) {
    host.out(options.json === true ? json(listDocument(recording)) : listText(path, recording, paint));
    return EXIT_OK;
  }
  const to = placeOf(recording, parsePlace(options.to ?? "+0", "--to"), "--to");
  const other = await otherSide(recording, options.diff);
  const isSilent = options.quiet === true || options.json === true;
  const reached = await stoppable(host.stop, async () => {
    const before = other !== undefined && !("mark" in other) ? await goTo(recording, other, host, isSilent) : undefined;
    const isOver = before?.replayer.divergence() != null || host.stop.reason !== "none";
    return { before, after: isOver && before !== undefined ? before : await goTo(recording, to, host, isSilent) };
  });
  if (host.stop.reason === "closed") return EXIT_OK;
  if (host.stop.reason === "interrupt") return EXIT_INTERRUPT;
  const { before, after } = reached;
  const base = other !== undefined && "mark" in other ? other.mark : (before?.replayer.view() ?? null);
  const report: Report = { path, recording, ...after, base };
  host.out(options.json === true ? json(replayDocument(report)) : replayText(report, paint));
  const divergence = after.replayer.divergence();
  if (divergence === null) return EXIT_OK;
  host.err(`slabtown: the run went another way than recorded: it differs at ${divergencePlace(divergence)}\n`);
  host.err(`slabtown: ${whyDiverged(divergence)}\n`);
  return EXIT_FAILED;
}

interface Reached {
  readonly replayer: Replayer;
  readonly result: RunResult;
}

interface Report extends Reached {
  readonly path: string;
  readonly recording: Recording;
  /** What --diff compares with. */
  readonly base: Mark | null;
}

/** Does the run again up to `target`. */
async function goTo(recording: Recording, target: Point, host: HostOutput, isSilent: boolean): Promise<Reached> {
  const set = await loadAgain(recording);
  const replayer = createReplayer(recording, target);
  const progress = isSilent ? NO_PROGRESS : createProgress(process.stderr);
  const { machine, options } = recording.run;
  const { stop } = host;
  const request = { machine, set, cyclesLimit: options.cycles, progress, stop, watch: replayer.watch };
  const { result } = await runWorkloads(request);
  progress.end();
  return { replayer, result };
}

async function readRecording(path: string): Promise<Recording> {
  const { path: label, bytes } = await readInput(path);
  return decode(label, bytes, packageVersion());
}

/** The workloads of the recorded run, from the same files with the same content. */
async function loadAgain({ run }: Recording): Promise<WorkloadSet> {
  const { targets, options, files } = run;
  const set = await loadWorkloads(targets, { ...options, onInput: inputChecker(files) });
  return options.failAlloc === undefined ? set : withoutStrayWrites(set);
}

function placeOf({ marks }: Recording, { from, cycles }: Place, label: string): Point {
  if (from === "start") return { cycle: cycles };
  const mark = from === "last" ? marks.at(-1) : marks.find(({ number }) => number === from);
  if (mark === undefined) {
    throw new UsageError(
      `${label}: there is no snapshot ${from}`,
      `they are 0 to ${marks.at(-1)?.number ?? 0}: see --list`,
    );
  }
  if (cycles === 0) return { step: mark.steps };
  const cycle = mark.cycle + cycles;
  if (cycle < 0)
    throw new UsageError(`${label} is ${-cycle} cycles before power-on`, `snapshot ${mark.number} is at ${mark.cycle}`);
  return { cycle };
}

/** What --diff compares with: another moment of this run, or the last mark of another file. */
async function otherSide(recording: Recording, diff: string | undefined): Promise<Point | { mark: Mark } | undefined> {
  if (diff === undefined) return undefined;
  if (/^(@\d+([+-].*)?|[+-]?\d+[kmg]?)$/i.test(diff)) return placeOf(recording, parsePlace(diff, "--diff"), "--diff");
  const other = await readRecording(diff);
  const { ramBytes } = recording.run.machine;
  if (other.run.machine.ramBytes !== ramBytes) {
    const [here, there] = [formatSize(ramBytes), formatSize(other.run.machine.ramBytes)];
    throw new UsageError(
      `--diff: ${diff} is of a machine with ${there} of RAM, not ${here}`,
      "compare runs with the same --mem",
    );
  }
  const [mark] = [...readMarks(other.marks, ramBytes / 4096)].slice(-1);
  if (mark === undefined) throw new UsageError(`--diff: ${diff} has no snapshot`);
  return { mark };
}

/** `3 "before" at cycle 150000000`, for messages. */
const divergencePlace = ({ mark }: Divergence): string => `snapshot ${markLabel(mark)} at cycle ${mark.cycle}`;

// ── What is printed ────────────────────────────────────────────────────────────────────────────────────────────────

const json = (document: object): string => `${JSON.stringify(document, null, 2)}\n`;

const markRow = ({ number, name, cycle, steps, freePages }: StoredMark): string[] => [
  markLabel({ number, name }),
  ...[cycle, steps, freePages].map(grouped),
];

function recordedLine(path: string, { run, slabtown, marks }: Recording): string {
  const what = [...run.targets, ...(run.options.ops === undefined ? [] : [`--ops ${run.options.ops}`])].map(shellQuote);
  const machine = machineArgs(run.machine).map(shellQuote);
  const made = `slabtown ${slabtown}, ${marks.length} snapshots`;
  return `${path}: run ${[...what, ...machine].join(" ")} (${made})`;
}

function listText(path: string, recording: Recording, paint: Paint): string {
  const head = ["snapshot", "cycle", "step", "free pages"];
  const rows = titled(head, recording.marks.map(markRow), [false, true, true, true], paint);
  return `${[paint.heading(recordedLine(path, recording)), ...rows].join("\n")}\n`;
}

const placeDocument = ({ cycle, steps, freePages }: StoredMark | Mark): object => ({ cycle, steps, freePages });
const markDocument = (mark: StoredMark): object => ({ number: mark.number, name: mark.name, ...placeDocument(mark) });

function listDocument({ slabtown, run, marks }: Recording): object {
  return { schema: "slabtown/snapshot-list/v1", slabtown, run, snapshots: marks.map(markDocument) };
}

function whyDiverged({ lastGood, differences }: Divergence): string {
  if (lastGood < 0) {
    return `it differs already after boot: another build of slabtown has made the snapshot (${differences.join("; ")})`;
  }
  return `snapshot ${lastGood} was still the same; now: ${differences.join("; ")}`;
}

function replayText({ path, recording, replayer, result, base }: Report, paint: Paint): string {
  const view = replayer.view();
  const lines = [paint.heading(recordedLine(path, recording))];
  if (view === null) return `${lines.join("\n")}\n`;
  const end = replayer.hasEnded() ? ", where the run ended" : "";
  lines.push(
    `at cycle ${grouped(view.cycle)}, step ${grouped(view.steps)}${end}; RAM ${ramHex(view)}`,
    paint.good(`${replayer.nrCompared()} of ${recording.marks.length} snapshots passed, each as recorded`),
    "",
  );
  const replay = `slabtown replay ${shellQuote(path)} --to ${view.cycle}`;
  lines.push(summaryText({ result, verdict: judge({ ...result, end: "interrupt" }, []), replay }, paint).trimEnd(), "");
  const cells = pagesByOwner(view).map(([owner, pages]) => [owner, grouped(pages)]);
  lines.push(...titled(["whose every page is", "pages"], cells, [false, true], paint));
  if (base !== null) {
    lines.push("", paint.heading(`from cycle ${grouped(base.cycle)} to cycle ${grouped(view.cycle)}`));
    lines.push(...diffLines(memoryDiff(base, view), paint));
  }
  return `${lines.join("\n")}\n`;
}

function replayDocument({ recording, replayer, base }: Report): object {
  const view = replayer.view();
  const at =
    view === null ? null : { ...placeDocument(view), ram: ramHex(view), pages: Object.fromEntries(pagesByOwner(view)) };
  const diff =
    base === null || view === null ? null : { from: base.cycle, to: view.cycle, owners: memoryDiff(base, view) };
  return {
    schema: "slabtown/replay/v1",
    run: recording.run,
    compared: replayer.nrCompared(),
    snapshots: recording.marks.length,
    divergence: replayer.divergence(),
    hasEnded: replayer.hasEnded(),
    at,
    diff,
  };
}
