/**
 * Workloads: what the arguments of `run` stand for, read and ready to be started.
 *
 *   redis.rep.gz, -              a recording: of a heap → a program that replays it; of a kernel → kernel threads; of
 *                                system calls → the processes that made them
 *   packets.yaml                 a scenario, which holds programs and recordings of its own
 *   stress, "stress --ops 1000"  a built-in program, with its arguments inside the same word
 *
 * A bare name is a built-in program if there is one; `./name` is always a file. A file name without a folder that is
 * not here is looked for among those that ship with the package (scripts/scenarios, scripts/samples).
 */

import { existsSync } from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import type { DeviceSettings } from "../drivers/index.ts";
import type { Program } from "../kernel/uapi/program.ts";
import type { HeapRecording, KernelRecording, Recording, SyscallRecording } from "../kernel/uapi/recording.ts";
import {
  builtinPrograms,
  type HeapReplayOptions,
  heapReplayProgram,
  type SyscallReplayReport,
  syscallReplay,
} from "../userland/index.ts";
import type { Expectation } from "./expectations.ts";
import { didYouMean } from "./nearest.ts";
import type { MachineRequest } from "./options.ts";
import { shippedFile } from "./package_files.ts";
import { type ReadRecordingOptions, readRecording } from "./readers/detect.ts";
import { type InputFile, readInput } from "./readers/input.ts";
import { InputError } from "./readers/input_error.ts";
import { readOps } from "./readers/ops.ts";
import type { TouchMode } from "./recording_words.ts";
import { readScenario, type Scenario, type ScenarioRecording } from "./scenario.ts";
import { UsageError } from "./usage_error.ts";
import { splitWords } from "./words.ts";

interface WorkloadBase {
  /** Short name, for the summary. */
  readonly name: string;
  /** When to start, cycles after the first. */
  readonly atCycles: number;
  /** Operations it will perform, if known before. */
  readonly nrOps: number | undefined;
  readonly warnings: readonly string[];
}

/** A process: a built-in program, or the replay of a recorded heap. */
export interface ProgramWorkload extends WorkloadBase {
  readonly kind: "program" | "heap";
  readonly path: string;
  readonly args: readonly string[];
}

export interface KernelWorkload extends WorkloadBase {
  readonly kind: "kernel";
  readonly recording: KernelRecording;
}

/** The processes of recorded system calls; the program plays the first one. */
export interface SyscallWorkload extends WorkloadBase {
  readonly kind: "syscall";
  readonly path: string;
  readonly args: readonly string[];
  report(): SyscallReplayReport;
}

export type Workload = ProgramWorkload | KernelWorkload | SyscallWorkload;

/** Everything that one run needs, besides the machine. */
export interface WorkloadSet {
  readonly workloads: readonly Workload[];
  /** Path → code, the built-in ones and one for each heap recording. */
  readonly programs: ReadonlyMap<string, Program>;
  /** What a scenario asks of the machine. */
  readonly machine: MachineRequest;
  readonly expectations: readonly Expectation[];
  /** Drivers to load, as lines for insmod, and the settings of devices. */
  readonly modules: readonly string[];
  readonly devices: Readonly<Record<string, DeviceSettings>>;
  readonly rules: RunRules;
}

/** How a run is watched and ended, beside its expectations. */
export interface RunRules {
  /** Cycles between two looks at invariants and identities; undefined: at the end only. */
  readonly checkCycles?: number | undefined;
  /** When what still runs is killed; undefined: never. */
  readonly killCycles?: number | undefined;
  /** Programs to run at the very end, as words, after which nothing may be left. */
  readonly finally?: readonly (readonly string[])[];
}

export interface WorkloadOptions extends ReadRecordingOptions {
  /** Which bytes a heap replay writes; undefined: what the scenario or the replayer says. */
  readonly touch?: TouchMode | undefined;
  /** Heap replays stamp their blocks and check the stamps. */
  readonly verify?: boolean | undefined;
  /** An operation list to run as well. */
  readonly ops?: string | undefined;
  /** Told of every file that is read, before anything is made of it. */
  readonly onInput?: ((file: InputFile) => void) | undefined;
  /** Recordings by path, for those who load the same ones again and again. */
  readonly cache?: Map<string, Recording> | undefined;
}

/**
 * `set` with devices that write nowhere they should not: what such a write hits by chance would be taken for the doing
 * of an injected allocation failure. All other faults stay.
 */
export function withoutStrayWrites(set: WorkloadSet): WorkloadSet {
  const devices = Object.entries(set.devices).map(
    ([name, { stray_write: _, ...settings }]) => [name, settings] as const,
  );
  return { ...set, devices: Object.fromEntries(devices) };
}

/** How a recording is replayed. */
interface ReplayManner {
  readonly touch?: TouchMode | undefined;
  readonly verify?: boolean | undefined;
  /** Only so many operations. */
  readonly limit?: number | undefined;
}

const SCENARIO_ENDING = /\.ya?ml$/i;

/** Reads all of `targets`. Throws `InputError` and `UsageError`. */
export async function loadWorkloads(targets: readonly string[], options: WorkloadOptions = {}): Promise<WorkloadSet> {
  const loader = new WorkloadLoader(options);
  if (targets.filter((target) => target === "-").length > 1) {
    throw new UsageError("standard input (-) can be read only once", "name it once");
  }
  for (const target of targets) await loader.add(target);
  if (options.ops !== undefined) loader.addHeap(readOps(options.ops), 0, { touch: options.touch });
  return loader.finish();
}

/** What the scenario in `input` says. Throws `InputError` and `UsageError`. */
export async function loadScenario(input: InputFile, options: WorkloadOptions = {}): Promise<WorkloadSet> {
  const loader = new WorkloadLoader(options);
  await loader.addScenario(input);
  return loader.finish();
}

class WorkloadLoader {
  readonly #options: WorkloadOptions;
  readonly #workloads: Workload[] = [];
  readonly #builtins = builtinPrograms();
  readonly #programs = new Map(this.#builtins);
  #scenario: Scenario | undefined;

  constructor(options: WorkloadOptions) {
    this.#options = options;
  }

  async add(target: string): Promise<void> {
    if (SCENARIO_ENDING.test(target)) return this.addScenario(await readInput(hereOrShipped(target)));
    const words = this.#programWords(target);
    if (words !== undefined) return this.#addProgram(words, 0);
    await this.#addRecording(target, 0, { touch: this.#options.touch });
  }

  addHeap(whole: HeapRecording, atCycles: number, how: ReplayManner): void {
    const recording = { ...whole, nrOps: Math.min(whole.nrOps, how.limit ?? whole.nrOps) };
    const path = this.#freePath(recording.name);
    this.#programs.set(path, heapReplayProgram(recording, this.#replayOptions(how)));
    const { name, nrOps, warnings } = recording;
    this.#workloads.push({ kind: "heap", name, atCycles, nrOps, warnings, path, args: [baseName(path)] });
  }

  #addSyscalls(whole: SyscallRecording, atCycles: number, { touch, limit }: ReplayManner): void {
    const recording = { ...whole, nrEvents: Math.min(whole.nrEvents, limit ?? whole.nrEvents) };
    const path = this.#freePath(recording.name);
    const { programs, report } = syscallReplay(recording, path, touch === undefined ? {} : { touch });
    for (const [name, program] of programs) this.#programs.set(name, program);
    const { name, nrEvents, warnings } = recording;
    const args = [baseName(path)];
    this.#workloads.push({ kind: "syscall", name, atCycles, nrOps: nrEvents, warnings, path, args, report });
  }

  #replayOptions({ touch, verify }: ReplayManner): HeapReplayOptions {
    return { ...(touch === undefined ? {} : { touch }), verify: verify === true || this.#options.verify === true };
  }

  finish(): WorkloadSet {
    return {
      workloads: this.#workloads,
      programs: this.#programs,
      machine: this.#scenario?.machine ?? {},
      expectations: this.#scenario?.expectations ?? [],
      modules: this.#scenario?.modules ?? [],
      devices: this.#scenario?.devices ?? {},
      rules: this.#rulesOf(this.#scenario),
    };
  }

  async addScenario(input: InputFile): Promise<void> {
    const { path } = input;
    if (this.#scenario !== undefined) {
      throw new UsageError(`${path}: there is one scenario already`, "a scenario can name several programs itself");
    }
    this.#options.onInput?.(input);
    const scenario = readScenario(input);
    this.#scenario = scenario;
    for (const { words, error } of [...scenario.programs, ...scenario.rules.finally]) {
      const name = words[0] ?? "";
      if (!this.#builtins.has(binPath(name))) throw error(`no built-in program "${name}"`, this.#programHint(name));
    }
    for (const { words, atCycles, count } of scenario.programs) {
      for (let i = 0; i < count; i++) this.#addProgram(words, atCycles);
    }
    for (const recording of scenario.recordings) await this.#addScenarioRecording(path, recording);
  }

  #rulesOf(scenario: Scenario | undefined): RunRules {
    if (scenario === undefined) return {};
    return { ...scenario.rules, finally: scenario.rules.finally.map(({ words }) => words) };
  }

  async #addScenarioRecording(path: string, recording: ScenarioRecording): Promise<void> {
    const { source, atCycles, limit } = recording;
    const how = { touch: this.#options.touch ?? recording.touch, verify: recording.verify, limit };
    if ("ops" in source) return this.addHeap(readOps(source.ops), atCycles, how);
    const { file } = source;
    if (file === "-") throw new InputError(path, "a scenario cannot read standard input");
    // A bare name may also be one that ships, wherever the scenario is.
    const beside = isAbsolute(file) ? file : join(dirname(path), file);
    await this.#addRecording(existsSync(beside) ? beside : (shippedFile(file) ?? beside), atCycles, how);
  }

  /** The words of `target` if it names a built-in program; undefined if it has to be a file. */
  #programWords(target: string): string[] | undefined {
    const first = /^\S+/.exec(target)?.[0] ?? "";
    const isProgram = this.#builtins.has(binPath(first)) && (!first.includes("/") || first.startsWith("/bin/"));
    return isProgram ? splitWords(target) : undefined;
  }

  #addProgram(words: readonly string[], atCycles: number): void {
    const path = binPath(words[0] ?? "");
    const args = [baseName(path), ...words.slice(1)];
    const name = args.join(" ");
    this.#workloads.push({ kind: "program", name, atCycles, nrOps: undefined, warnings: [], path, args });
  }

  async #addRecording(target: string, atCycles: number, how: ReplayManner): Promise<void> {
    const whole = await this.#read(target);
    if (whole.kind === "heap") return this.addHeap(whole, atCycles, how);
    if (whole.kind === "syscall") return this.#addSyscalls(whole, atCycles, how);
    const recording = { ...whole, nrEvents: Math.min(whole.nrEvents, how.limit ?? whole.nrEvents) };
    const { name, nrEvents, warnings } = recording;
    this.#workloads.push({ kind: "kernel", name, atCycles, nrOps: nrEvents, warnings, recording });
  }

  async #read(target: string): Promise<Recording> {
    const { lenient, format, cache } = this.#options;
    const known = cache?.get(target);
    if (known !== undefined) return known;
    const input = await this.#open(target);
    this.#options.onInput?.(input);
    const recording = readRecording(input, { lenient, format });
    cache?.set(target, recording);
    return recording;
  }

  async #open(target: string): Promise<InputFile> {
    try {
      return await readInput(hereOrShipped(target));
    } catch (error) {
      const isBareName = error instanceof InputError && error.message === "no such file" && /^[\w -]+$/.test(target);
      if (!isBareName) throw error;
      throw new InputError(target, "no such file, and no built-in program of this name", {
        hint: this.#programHint(target.split(" ")[0] ?? target),
      });
    }
  }

  #programHint(name: string): string {
    const names = [...this.#builtins.keys()].map(baseName).sort();
    return didYouMean(name, names) ?? `built-in programs: ${names.join(" ")}`;
  }

  #freePath(name: string): string {
    const base = `/bin/${name.replace(/[^\w.-]/g, "_").slice(0, 40) || "replay"}`;
    let path = base;
    for (let i = 2; this.#programs.has(path); i++) path = `${base}.${i}`;
    return path;
  }
}

/** The path to read: `target` as it is, or the shipped file of that name when there is none here. */
function hereOrShipped(target: string): string {
  return target === "-" || existsSync(target) ? target : (shippedFile(target) ?? target);
}

function binPath(name: string): string {
  return name.startsWith("/") ? name : `/bin/${name}`;
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
