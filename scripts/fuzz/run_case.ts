/**
 * Running a case: its scenario as `slabtown run` would run it, and what is to be said against the result.
 *
 *   crash      slabtown itself threw an error            panic      the kernel is dead
 *   invariant  a walk or an identity finds an error      report     an oops, a splat, misuse of DMA, a lock
 *   hang       nothing wakes it, or SIGKILL does not     content    what was read is not what was written
 *   left       tasks, modules, pages, objects at the end that an idle machine does not have
 *
 *   FUZ-1  a case passes here exactly if `slabtown run` of its text ends with 0, or if memory runs out while booting,
 *          or later for the kernel itself, so that no process could be killed for it
 */

import type { Kernel } from "../../kernel/entry/kernel.ts";
import type { Recording } from "../../kernel/uapi/recording.ts";
import { NUMA_HIT, OOM_DEADLOCK, OOM_PANIC_ASKED } from "../../mm/index.ts";
import { BootPanic } from "../boot_panic.ts";
import { EXIT_INTERRUPT, EXIT_OK, judge } from "../metrics.ts";
import { RUN_RAM_BYTES, resolveMachine } from "../options.ts";
import { inputFromBytes } from "../readers/input.ts";
import { type RunResult, runWorkloads, type StopRequest } from "../run_workloads.ts";
import { UsageError } from "../usage_error.ts";
import { loadScenario } from "../workloads.ts";

export type FailureKind = "crash" | "panic" | "invariant" | "report" | "hang" | "content" | "left" | "other";

export interface Failure {
  readonly kind: FailureKind;
  readonly what: string;
}

/** What the machine did, as it counts itself. */
export interface Activity {
  readonly allocations: number;
  readonly syscalls: number;
  readonly interrupts: number;
  readonly cycles: number;
  /** Allocations that failed on purpose. */
  readonly refused: number;
}

export interface Outcome {
  /** Null: all is well. */
  readonly failure: Failure | null;
  readonly activity: Activity;
  readonly isInterrupted: boolean;
}

export const NO_ACTIVITY: Activity = { allocations: 0, syscalls: 0, interrupts: 0, cycles: 0, refused: 0 };

const recordings = new Map<string, Recording>();

/** Runs the scenario in `text`. */
export async function runCase(text: string, stop: StopRequest): Promise<Outcome> {
  try {
    const set = await loadScenario(inputFromBytes("fuzz.yaml", text), { cache: recordings });
    const machine = resolveMachine(RUN_RAM_BYTES, set.machine);
    const { result, kernel } = await runWorkloads({ machine, set, stop });
    const { exitCode, failures } = judge(result, set.expectations);
    const failure = exitCode === EXIT_OK || exitCode === EXIT_INTERRUPT ? null : describe(result, kernel, failures);
    return { failure, activity: activityOf(kernel, result), isInterrupted: exitCode === EXIT_INTERRUPT };
  } catch (error) {
    if (error instanceof UsageError) throw error;
    // Kernel parameters that leave no memory to boot with: what the kernel has to do then.
    if (error instanceof BootPanic && error.isOutOfMemory) {
      return { failure: null, activity: NO_ACTIVITY, isInterrupted: false };
    }
    if (error instanceof BootPanic) {
      return { failure: { kind: "panic", what: error.message }, activity: NO_ACTIVITY, isInterrupted: false };
    }
    return { failure: crashOf(error), activity: NO_ACTIVITY, isInterrupted: false };
  }
}

/** An error of slabtown's own, with the innermost function it came from. */
export function crashOf(error: unknown): Failure {
  if (!(error instanceof Error)) return { kind: "crash", what: String(error) };
  const place = /^ +at (?:async )?(?:new )?([\w.#<>$]+) /m.exec(error.stack ?? "")?.[1];
  const [message = ""] = error.message.split("\n");
  return { kind: "crash", what: `${error.name}: ${message}${place === undefined ? "" : ` in ${place}`}` };
}

/** OOM-5: the kernel wanted memory, and nobody was left who could be killed for it; or the case asked for a panic. */
const isDeadlocked = ({ panicReport }: RunResult): boolean =>
  panicReport !== null && (panicReport.includes(OOM_DEADLOCK) || panicReport.includes(OOM_PANIC_ASKED));

function describe(result: RunResult, kernel: Kernel, failures: readonly string[]): Failure | null {
  const violation = result.violation ?? (isDeadlocked(result) ? kernel.check() : null);
  if (violation !== null) return { kind: "invariant", what: violation };
  if (result.panicReport !== null && !isDeadlocked(result))
    return { kind: "panic", what: panicLine(result.panicReport) };
  if (result.nrReports > 0) return { kind: "report", what: reportLine(kernel) };
  if (isDeadlocked(result)) return null;
  if (result.end === "stuck") return { kind: "hang", what: failures[0] ?? "stuck" };
  if (result.leftBehind !== null) return { kind: "left", what: result.leftBehind };
  if (result.nrCorrupt > 0) return { kind: "content", what: `${result.nrCorrupt} blocks, packets or stamps` };
  return { kind: "other", what: failures.join("; ") };
}

const panicLine = (report: string): string => /Kernel panic[^\n]*/.exec(report)?.[0] ?? report.split("\n")[0] ?? "";

const REPORT =
  /^(?:kernel )?BUG\b|^WARNING\b|^INFO: (?:task|rcu)|DMA-API:|possible |nobody cared|left behind|Oops|bad |leak/i;

/** The first line of the log that complains. */
function reportLine({ printk }: Kernel): string {
  const lines = printk.records().flatMap(({ text }) => text.split("\n"));
  return lines.find((line) => REPORT.test(line.trim())) ?? "a report that is no longer in the log";
}

function activityOf(kernel: Kernel, { virtualCycles }: RunResult): Activity {
  const objects = kernel.magazineStats().reduce((sum, cpu) => sum + cpu.allocHits + cpu.allocMisses, 0);
  const interrupts = Number(/^intr (\d+)/m.exec(kernel.readFile("/proc/stat") ?? "")?.[1] ?? 0);
  return {
    allocations: objects + kernel.memory.vmstat.event(NUMA_HIT),
    syscalls: kernel.nrSyscalls(),
    interrupts,
    cycles: virtualCycles,
    refused: kernel.faultStats()?.nrForced ?? 0,
  };
}
