/**
 * `slabtown run`: workloads on a fresh machine, from start to end, and what came of it.
 */

import {
  type CommonOptions,
  machineRequest,
  paintFor,
  type RecordingOptions,
  type SnapshotOptions,
} from "./command_options.ts";
import { checkFaultOptions, type FaultOptions, sweepCommand } from "./fault_sweep_command.ts";
import { type HostOutput, stoppable } from "./host_output.ts";
import { judge } from "./metrics.ts";
import {
  failing,
  type MachineOptions,
  machineArgs,
  RUN_RAM_BYTES,
  resolveMachine,
  shellQuote,
  withoutTracers,
} from "./options.ts";
import { packageVersion } from "./package_files.ts";
import { createProgress, NO_PROGRESS } from "./progress.ts";
import type { InputFile } from "./readers/input.ts";
import { type RunWatch, runWorkloads } from "./run_workloads.ts";
import { seedsCommand } from "./seeds_command.ts";
import { createRecorder, MAX_MARKS, type Recorder, writeWhole } from "./snapshots/recorder.ts";
import { type FileSum, fileSum, type RunDefinition } from "./snapshots/run_definition.ts";
import { summaryDocument, summaryText } from "./summary.ts";
import { UsageError } from "./usage_error.ts";
import { loadWorkloads, type WorkloadSet, withoutStrayWrites } from "./workloads.ts";

export interface RunOptions extends CommonOptions, RecordingOptions, FaultOptions, SnapshotOptions {
  readonly seeds?: number;
}

const DEFAULT_SNAPSHOT = "slabtown.snap";

/** Runs `targets`; the exit code. */
export async function runCommand(targets: readonly string[], options: RunOptions, host: HostOutput): Promise<number> {
  checkFaultOptions(options);
  if (targets.length === 0 && options.ops === undefined) {
    throw new UsageError("run: nothing to run", "slabtown run scripts/samples/tar.rep.gz");
  }
  const isSweep = options.faultSweep === true;
  const isRecorded = options.snapshot !== undefined || options.snapshotEvery !== undefined;
  if (isRecorded) checkRecordable(targets, isSweep);
  if (options.seeds !== undefined && (isSweep || isRecorded)) {
    throw new UsageError("--seeds makes many runs and goes with no sweep or snapshot", "use one of them");
  }
  const files: FileSum[] = [];
  const onInput = (file: InputFile): void => {
    if (isRecorded) files.push(fileSum(file));
  };
  const loaded = await loadWorkloads(targets, { ...options, verify: isSweep || options.verify, onInput });
  const set = isSweep || options.failAlloc !== undefined ? withoutStrayWrites(loaded) : loaded;
  const resolved = resolveMachine(RUN_RAM_BYTES, machineRequest(options), set.machine);
  const asked = isSweep ? withoutTracers(resolved) : resolved;
  const replay = replayLine(targets, options, asked);
  if (isSweep) return sweepCommand({ set, machine: asked, replay, options, host });
  const machine = failing(asked, options.failAlloc);
  const { seeds } = options;
  if (seeds !== undefined) return seedsCommand({ set, machine, nrSeeds: seeds, replay, options, host });
  if (!isRecorded) return runAndReport({ set, machine, replay, options, host });
  const recorder = createRecorder(options.snapshotEvery);
  const exitCode = await runAndReport({ set, machine, replay, options, host, watch: recorder.watch });
  const run = { machine, targets: [...targets], options: recordedOptions(options), files };
  await saveSnapshots(options.snapshot ?? DEFAULT_SNAPSHOT, recorder, run, host);
  return exitCode;
}

function checkRecordable(targets: readonly string[], isSweep: boolean): void {
  if (isSweep) throw new UsageError("--fault-sweep makes many runs, a snapshot is of one", "use --fail-alloc N");
  if (targets.includes("-")) {
    throw new UsageError(
      "a run of standard input cannot be repeated from a snapshot",
      "save the input to a file first",
    );
  }
}

function recordedOptions({
  ops,
  touch,
  format,
  lenient,
  verify,
  failAlloc,
  cycles,
}: RunOptions): RunDefinition["options"] {
  return { ops, touch, format, lenient, verify, failAlloc, cycles };
}

async function saveSnapshots(path: string, recorder: Recorder, run: RunDefinition, host: HostOutput): Promise<void> {
  const bytes = recorder.finish(run, packageVersion());
  await writeWhole(path, bytes);
  const [nr, size] = [recorder.nrMarks(), (bytes.length / 1024 ** 2).toFixed(1)];
  const back = `to go back: slabtown replay ${shellQuote(path)} --to @1`;
  host.err(`slabtown: ${nr} snapshot${nr === 1 ? "" : "s"} in ${path} (${size} MiB); ${back}\n`);
  if (recorder.nrLeftOut() > 0) {
    host.err(
      `slabtown: ${recorder.nrLeftOut()} more were due; ${MAX_MARKS} are kept: take a larger --snapshot-every\n`,
    );
  }
}

export interface ReportedRun {
  readonly set: WorkloadSet;
  readonly machine: MachineOptions;
  readonly replay: string;
  readonly options: CommonOptions;
  readonly host: HostOutput;
  /** Show the boot log. */
  readonly showsBoot?: boolean;
  readonly watch?: RunWatch;
}

/** Runs, prints the summary and the failures; the exit code. */
export async function runAndReport(reported: ReportedRun): Promise<number> {
  const { set, machine, replay, options, host, showsBoot, watch } = reported;
  const isJson = options.json === true;
  const isQuiet = options.quiet === true;
  const messages = isQuiet ? () => {} : isJson ? host.err : host.out;
  const isShowingProgress = !isQuiet && options.json !== true;
  const progress = isShowingProgress ? createProgress(process.stderr) : NO_PROGRESS;
  let wrote = "\n";
  const { result } = await stoppable(host.stop, () =>
    runWorkloads({
      machine,
      set,
      cyclesLimit: options.cycles,
      progress,
      stop: host.stop,
      watch,
      bootLog: showsBoot === true ? messages : undefined,
      console: (text) => {
        wrote = text;
        messages(text);
      },
    }),
  );
  progress.end();
  if (!isQuiet && !wrote.endsWith("\n")) messages("\n");
  const verdict = judge(result, set.expectations);
  const summary = { result, verdict, replay };
  if (isJson) host.out(`${JSON.stringify(summaryDocument(summary, options.host === true), null, 2)}\n`);
  else host.out(summaryText(summary, paintFor(options)));
  if (isQuiet && result.panicReport !== null) host.err(`${result.panicReport}\n`);
  for (const failure of verdict.failures) host.err(`slabtown: ${failure}\n`);
  if (verdict.failures.length > 0) host.err(`slabtown: to see it again: ${replay}\n`);
  return host.stop.reason === "closed" ? 0 : verdict.exitCode;
}

/** The command that does the same run again. */
function replayLine(targets: readonly string[], options: RunOptions, machine: MachineOptions): string {
  const words = ["slabtown", "run", ...targets, ...machineArgs(machine)];
  if (options.ops !== undefined) words.push("--ops", options.ops);
  if (options.touch !== undefined) words.push("--touch", options.touch);
  if (options.format !== undefined) words.push("--format", options.format);
  if (options.lenient === true) words.push("--lenient");
  if (options.verify === true || options.faultSweep === true) words.push("--verify");
  if (options.failAlloc !== undefined) words.push("--fail-alloc", options.failAlloc);
  if (options.cycles !== undefined) words.push("--cycles", String(options.cycles));
  return words.map(shellQuote).join(" ");
}
