/**
 * A run: boots a machine, starts the workloads, lets them end, and collects what happened.
 *
 *   boot ── settle ── start those whose time has come ── run a slice ──┐ ── settle ── check ── collect
 *                     └────────────────────────────────────────────────┘ until all have ended
 *
 * Between two slices the host breathes: Ctrl-C arrives, progress is shown. Slices are measured in virtual time and
 * never in the host's, so that the same seed gives the same run on every computer.
 *
 * Where a scenario says so (RunRules), invariants and identities are looked at on the way, what runs too long is
 * killed, and programs put things in order at the very end (aftermath.ts).
 *
 *   RUN-1  A run ends when all workloads have ended, or at a stop (budget, Ctrl-C, power off, panic, nothing to do).
 *   RUN-2  Nothing of the host (speed, terminal, progress) reaches the machine.
 */

import { setImmediate } from "node:timers/promises";
import type { DeviceStats } from "../drivers/index.ts";
import { KernelBug } from "../kernel/bug.ts";
import { boot } from "../kernel/entry/boot.ts";
import type { BootOptions, Kernel, PageCensus, RunStop } from "../kernel/entry/kernel.ts";
import type { OffWindow } from "../kernel/irqsoff.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { formatLogLine, KERN_ERR } from "../kernel/printk.ts";
import type { CpuCacheStats } from "../mm/index.ts";
import type { SyscallReplayReport } from "../userland/index.ts";
import {
  createContentWatch,
  isDamaged,
  KILL_PATIENCE_CYCLES,
  killPrograms,
  NO_MEMORY,
  putInOrder,
  settle,
  settleAtEnd,
} from "./aftermath.ts";
import { BootPanic } from "./boot_panic.ts";
import { endState, heldPages, surplusText } from "./end_state.ts";
import { brokenIdentity } from "./identities.ts";
import { createLatencyObserver, type LatencyObserver, OBSERVED_KINDS } from "./observer.ts";
import type { MachineOptions } from "./options.ts";
import { type EndedProcess, processAtEnd } from "./process_table.ts";
import { NO_PROGRESS, type Progress } from "./progress.ts";
import { UsageError } from "./usage_error.ts";
import type { Workload, WorkloadSet } from "./workloads.ts";

/** Shared with the signal handlers: why the host wants the run to end. */
export interface StopRequest {
  reason: "none" | "interrupt" | "closed";
}

/**
 * Somebody who looks at the machine between two steps. The run does not notice: its slices and its schedule are what
 * they would be without.
 */
export interface RunWatch {
  /** Booted, no workload has started. */
  begin(kernel: Kernel): "go on" | "stop";
  /** Asked after every step, so cheap: is there something to look at? */
  isDue(kernel: Kernel): boolean;
  look(kernel: Kernel): "go on" | "stop";
  /** Where the watch will stop the run: a slice ends there, not behind it. What was before is what it always is. */
  readonly stopCycle?: number | undefined;
  /** The workloads have ended, or the run has been stopped by something else than this watch. */
  end(kernel: Kernel): void;
}

export interface RunRequest {
  readonly machine: MachineOptions;
  readonly set: WorkloadSet;
  /** Stop after so much virtual time; undefined: when all is done. */
  readonly cyclesLimit?: number | undefined;
  /** What programs write to the terminal, and the kernel's messages after boot. */
  readonly console?: ((text: string) => void) | undefined;
  /** The boot log. */
  readonly bootLog?: ((text: string) => void) | undefined;
  readonly progress?: Progress | undefined;
  readonly stop?: StopRequest | undefined;
  readonly watch?: RunWatch | undefined;
  /** Zeroed RAM of the machine's size, for who makes many runs; undefined: RAM of its own. */
  readonly ram?: BootOptions["ram"];
  readonly onAllocRequest?: BootOptions["onAllocRequest"];
}

export interface WorkloadResult {
  readonly name: string;
  readonly kind: Workload["kind"];
  readonly pids: readonly number[];
  /** Greatest exit status of its tasks; undefined if it did not end. −errno if it could not be started. */
  readonly exitStatus: number | undefined;
  readonly nrOps: number;
  readonly nrFailed: number;
  /** Of a replay of system calls. */
  readonly replay?: SyscallReplayReport;
  /** Program images, in the order of their ends, of a replay of system calls. */
  readonly processes?: readonly EndedProcess[];
}

export type RunEnd = "done" | "cycles" | "interrupt" | "stuck" | "poweroff" | "panic" | "broken" | "watch";

export interface RunResult {
  readonly machine: MachineOptions;
  readonly end: RunEnd;
  readonly workloads: readonly WorkloadResult[];
  readonly observers: readonly LatencyObserver[];
  readonly virtualCycles: number;
  readonly hostSeconds: number;
  readonly peakBytes: number;
  readonly census: PageCensus;
  /** Pages that workloads left behind. */
  readonly leakedPages: number;
  readonly warnings: readonly string[];
  readonly nrReports: number;
  readonly oomKills: number;
  readonly buddyinfo: string;
  readonly vmstat: string;
  /** What the drivers of bound devices count. */
  readonly devices: readonly DeviceStats[];
  /** By CPU: what magazines served. */
  readonly magazines: readonly CpuCacheStats[];
  /** Longest windows with interrupts and with preemption off, of all CPUs; null when they were not watched. */
  readonly offWindows: { readonly irqs: OffWindow | undefined; readonly preempt: OffWindow | undefined } | null;
  /** Blocks, packets and stamps that are not what was written, as programs and replays said. */
  readonly nrCorrupt: number;
  /** What the `finally` of a scenario found, or null. */
  readonly leftBehind: string | null;
  /** First broken invariant or identity, or null. */
  readonly violation: string | null;
  readonly panicReport: string | null;
}

interface Started {
  readonly workload: Workload;
  readonly observer: LatencyObserver;
  pids: readonly number[];
  startError: number | undefined;
  readonly processes: readonly EndedProcess[];
}

/** Slices begin at a millisecond of virtual time and grow. The kernel ends one at the next task switch after it. */
const FIRST_SLICE_CYCLES = 1_000_000;
const LAST_SLICE_CYCLES = 32_000_000;
const SLICES_PER_SIZE = 64;

/** `make()`, with the host's lack of memory turned into a message. */
export function withHostMemory<T>(make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (error instanceof KernelBug) throw new BootPanic(error);
    if (!(error instanceof RangeError) || !/allocation failed|array length/i.test(error.message)) throw error;
    throw new UsageError("this computer has not enough memory for the machine's RAM", "ask for less with --mem");
  }
}

/** Boots. Throws `UsageError` if the host has not the memory. */
export function bootMachine(
  machine: MachineOptions,
  programs: WorkloadSet["programs"],
  console: (text: string) => void,
  hardware: Partial<BootOptions> = {},
): Kernel {
  return withHostMemory(() => boot({ ...machine, port: "raw", console, programs, ...hardware }));
}

/** Runs `request` and hands the kernel back as it stands afterwards. */
export async function runWorkloads(request: RunRequest): Promise<{ result: RunResult; kernel: Kernel }> {
  const sinks = { boot: request.bootLog ?? ignore, run: request.console ?? ignore };
  let sink = sinks.boot;
  const { programs, modules, devices } = request.set;
  const { ram, onAllocRequest } = request;
  const hardware = { modules, devices, ram, onAllocRequest };
  const kernel = bootMachine(request.machine, programs, (text) => sink(text), hardware);
  settle(kernel);
  if (request.bootLog === undefined) sinks.run(bootErrors(kernel));
  const content = createContentWatch();
  sink = (text) => {
    content.printed(text);
    sinks.run(text);
  };
  const run = new Run(kernel, request);
  const end = request.watch?.begin(kernel) === "stop" ? "watch" : await run.execute();
  run.stopClocks();
  if (end !== "watch") request.watch?.end(kernel);
  if (end === "done") settleAtEnd(kernel);
  const result = run.collect(end, content.nrWrong());
  const commands = request.set.rules.finally ?? [];
  if (end !== "done" || commands.length === 0) return { result, kernel };
  return { result: { ...result, leftBehind: leftBehind(kernel, request, commands) }, kernel };
}

/** What went wrong before the first workload, a driver or a swap disk: nobody sees the boot log of a run. */
const bootErrors = ({ printk }: Kernel): string =>
  printk
    .records()
    .filter(({ level }) => level <= KERN_ERR)
    .map((record) => `${formatLogLine(record)}\n`)
    .join("");

/** Runs `commands`; what `kernel` then holds that a machine does not have that ran nothing but them, or null. */
function leftBehind(kernel: Kernel, request: RunRequest, commands: readonly (readonly string[])[]): string | null {
  const { programs, modules, devices } = request.set;
  // Off at the same moment as the last program ended.
  if (kernel.run({ untilCycles: kernel.now() }) === "poweroff") return null;
  const problem = putInOrder(kernel, commands);
  if (problem === NO_MEMORY) return null;
  const reference = bootMachine(request.machine, programs, ignore, { modules, devices });
  // A machine with too little memory for the commands says nothing.
  if (putInOrder(reference, commands) !== null) return null;
  return problem ?? surplusText(endState(kernel), endState(reference));
}

class Run {
  readonly #kernel: Kernel;
  readonly #request: RunRequest;
  readonly #started: Started[] = [];
  readonly #waiting: Workload[];
  readonly #basePages: number;
  readonly #startCycles: number;
  readonly #startHostMs = performance.now();
  readonly #nrOpsTotal: number;
  readonly #baseMagazines: readonly CpuCacheStats[];
  #virtualCycles = 0;
  #hostSeconds = 0;
  #violation: string | null = null;
  /** Absolute moments. */
  #killAt: number;
  #nextCheck: number;
  /** By when what was killed has to be gone. */
  #lastMoment: number | undefined;

  constructor(kernel: Kernel, request: RunRequest) {
    this.#kernel = kernel;
    this.#request = request;
    this.#waiting = [...request.set.workloads].sort((a, b) => a.atCycles - b.atCycles);
    this.#basePages = heldPages(kernel);
    this.#baseMagazines = kernel.magazineStats();
    kernel.interrupts.offTracker?.reset();
    this.#startCycles = kernel.now();
    const { killCycles = Number.POSITIVE_INFINITY, checkCycles = Number.POSITIVE_INFINITY } = request.set.rules;
    this.#killAt = this.#startCycles + killCycles;
    this.#nextCheck = this.#startCycles + checkCycles;
    this.#nrOpsTotal = request.set.workloads.reduce((sum, { nrOps }) => sum + (nrOps ?? 0), 0);
  }

  async execute(): Promise<RunEnd> {
    const { cyclesLimit, stop, progress = NO_PROGRESS } = this.#request;
    const limit = cyclesLimit === undefined ? Number.POSITIVE_INFINITY : this.#startCycles + cyclesLimit;
    for (let nrSlices = 0; ; nrSlices++) {
      this.#startDue();
      if (this.#isDone()) return "done";
      const now = this.#kernel.now();
      if (now >= limit) return "cycles";
      if (now >= this.#killAt && !this.#kill(now)) return "stuck";
      const slice = Math.min(FIRST_SLICE_CYCLES * 2 ** Math.floor(nrSlices / SLICES_PER_SIZE), LAST_SLICE_CYCLES);
      const next = Math.min(this.#nextStart(), this.#killAt > now ? this.#killAt : limit);
      const quiet = this.#kernel.quietUntil();
      // An idle machine's slice ends where it wakes up, and there is nothing new to check before.
      const wake = quiet === Number.POSITIVE_INFINITY ? now : quiet;
      const sliceEnd = Math.max(Math.min(now + slice, this.#nextCheck), wake);
      const reason = this.#runSlice(Math.min(sliceEnd, limit, next));
      if (!this.#check()) return "broken";
      const end = reason === "pause" ? "watch" : this.#endOf(reason, limit);
      if (end !== null) return end;
      progress.update(this.#nrOps(), this.#nrOpsTotal, this.#kernel.now() - this.#startCycles);
      await setImmediate();
      if (stop !== undefined && stop.reason !== "none") return "interrupt";
    }
  }

  /** Runs until `untilCycles` or an end; "pause" when the watch has seen enough. */
  #runSlice(untilCycles: number): RunStop {
    const { watch } = this.#request;
    const pause = watch === undefined ? undefined : (): boolean => watch.isDue(this.#kernel);
    const until = Math.min(untilCycles, watch?.stopCycle ?? Number.POSITIVE_INFINITY);
    for (;;) {
      const reason = this.#kernel.run({ untilCycles: until, pause });
      if (reason !== "pause" || watch?.look(this.#kernel) !== "go on") return reason;
    }
  }

  /** What comes after is no part of the measurements. */
  stopClocks(): void {
    this.#virtualCycles = this.#kernel.now() - this.#startCycles;
    this.#hostSeconds = (performance.now() - this.#startHostMs) / 1000;
  }

  collect(end: RunEnd, nrWrong: number): RunResult {
    const kernel = this.#kernel;
    const census = kernel.census();
    return {
      machine: this.#request.machine,
      end,
      workloads: this.#started.map((started) => this.#resultOf(started)),
      observers: this.#started.map(({ observer }) => observer),
      virtualCycles: this.#virtualCycles,
      hostSeconds: this.#hostSeconds,
      peakBytes: this.#kernel.peakPages() * PAGE_SIZE,
      census,
      leakedPages: Math.max(0, heldPages(kernel) - this.#basePages),
      warnings: this.#started.flatMap(({ workload }) => workload.warnings.map((text) => `${workload.name}: ${text}`)),
      nrReports: kernel.nrReports(),
      oomKills: vmstatCounter(kernel, "oom_kill"),
      buddyinfo: kernel.readFile("/proc/buddyinfo") ?? "",
      vmstat: kernel.readFile("/proc/vmstat") ?? "",
      devices: kernel.deviceStats(),
      magazines: kernel.magazineStats().map((now, cpu) => sinceThen(now, this.#baseMagazines[cpu])),
      offWindows: offWindowsOf(kernel),
      nrCorrupt: nrWrong + this.#nrDamaged(),
      leftBehind: null,
      violation: end === "panic" ? null : (this.#violation ?? kernel.check()),
      panicReport: kernel.panicReport,
    };
  }

  #nrDamaged(): number {
    const results = this.#started.map((started) => this.#resultOf(started));
    return results.reduce((sum, result) => sum + (isDamaged(result) ? 1 : 0) + (result.replay?.nrCorrupt ?? 0), 0);
  }

  /** Looks at everything that has to hold, if it is time to; false if something does not. */
  #check(): boolean {
    const { checkCycles } = this.#request.set.rules;
    if (checkCycles === undefined || this.#kernel.panicReport !== null || this.#kernel.now() < this.#nextCheck)
      return true;
    this.#violation = this.#kernel.check() ?? brokenIdentity(this.#kernel);
    this.#nextCheck = this.#kernel.now() + checkCycles;
    return this.#violation === null;
  }

  /** Kills what runs, starts nothing more; false if it has lived on for too long. */
  #kill(now: number): boolean {
    this.#waiting.length = 0;
    this.#lastMoment ??= now + KILL_PATIENCE_CYCLES;
    killPrograms(this.#kernel);
    return now < this.#lastMoment;
  }

  #startDue(): void {
    const now = this.#kernel.now() - this.#startCycles;
    while ((this.#waiting[0]?.atCycles ?? Number.POSITIVE_INFINITY) <= now) {
      const workload = this.#waiting.shift();
      if (workload !== undefined) this.#started.push(this.#start(workload));
    }
  }

  #start(workload: Workload): Started {
    const observer = createLatencyObserver(OBSERVED_KINDS[workload.kind]);
    if (workload.kind === "kernel") {
      const pids = this.#kernel.spawnKernelReplay(workload.recording, observer);
      const startError = pids.find((pid) => pid < 0);
      return { workload, observer, pids: pids.filter((pid) => pid >= 0), startError, processes: [] };
    }
    const processes: EndedProcess[] = [];
    const beforeEnd = (pid: number): void => void processes.push(processAtEnd(this.#kernel, pid));
    const watched = workload.kind === "syscall" ? { operation: observer.operation, beforeEnd } : observer;
    const pid = this.#kernel.spawn(workload.path, workload.args, { observer: watched });
    return { workload, observer, pids: pid < 0 ? [] : [pid], startError: pid < 0 ? pid : undefined, processes };
  }

  #nextStart(): number {
    const next = this.#waiting[0];
    return next === undefined ? Number.POSITIVE_INFINITY : this.#startCycles + next.atCycles;
  }

  #isDone(): boolean {
    if (this.#waiting.length > 0) return false;
    return this.#started.every(({ pids }) => pids.every((pid) => this.#kernel.exitStatus(pid) !== undefined));
  }

  #endOf(reason: RunStop, limit: number): RunEnd | null {
    if (reason === "panic") return "panic";
    if (reason === "budget") return null;
    if (this.#isDone()) return "done";
    if (reason === "poweroff") return "poweroff";
    const now = this.#kernel.now();
    if (this.#waiting.length === 0) {
      if (this.#request.set.rules.killCycles === undefined || now >= this.#killAt) return "stuck";
      // They wait for what never comes: their time is over early.
      this.#killAt = now;
      return null;
    }
    // Nothing happens until the next start.
    this.#kernel.passTime(Math.min(this.#nextStart(), limit));
    return null;
  }

  #nrOps(): number {
    return this.#started.reduce((sum, { observer }) => sum + observer.nrOps, 0);
  }

  #resultOf({ workload, observer, pids, startError, processes }: Started): WorkloadResult {
    const statuses = pids.map((pid) => this.#kernel.exitStatus(pid));
    const exitStatus = statuses.includes(undefined) ? undefined : Math.max(0, ...statuses.map((status) => status ?? 0));
    const { nrOps, nrFailed } = observer;
    const result = { name: workload.name, kind: workload.kind, pids, nrOps, nrFailed };
    if (workload.kind !== "syscall") return { ...result, exitStatus: startError ?? exitStatus };
    const replay = workload.report();
    // As recorded is as it should be.
    const status = exitStatus === replay.recordedStatus ? 0 : exitStatus;
    return { ...result, exitStatus: startError ?? status, replay, processes };
  }
}

function offWindowsOf({ interrupts: { offTracker }, machine }: Kernel): RunResult["offWindows"] {
  if (offTracker === null) return null;
  const longest = (of: (cpu: number) => OffWindow | undefined): OffWindow | undefined =>
    Array.from({ length: machine.harts.nrCpus }, (_, cpu) => of(cpu))
      .filter((window) => window !== undefined)
      .sort((a, b) => b.cycles - a.cycles)[0];
  return { irqs: longest(offTracker.maxIrqsOff), preempt: longest(offTracker.maxPreemptOff) };
}

/** What happened between two readings of a CPU's counters; `cached` is what is there now. */
function sinceThen(now: CpuCacheStats, before: CpuCacheStats | undefined): CpuCacheStats {
  if (before === undefined) return now;
  return {
    allocHits: now.allocHits - before.allocHits,
    allocMisses: now.allocMisses - before.allocMisses,
    freeHits: now.freeHits - before.freeHits,
    freeMisses: now.freeMisses - before.freeMisses,
    cached: now.cached,
  };
}

function vmstatCounter(kernel: Kernel, name: string): number {
  const match = new RegExp(`^${name} (\\d+)$`, "m").exec(kernel.readFile("/proc/vmstat") ?? "");
  return Number(match?.[1] ?? 0);
}

function ignore(): void {}
