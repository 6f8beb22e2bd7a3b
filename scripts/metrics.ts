/**
 * Metrics: a finished run as named numbers, and the verdict on it.
 *
 * The names are those of expectations.ts. The verdict decides the exit code: 3 for a panic that the scenario does not
 * expect, 1 for anything that went wrong, 130 for Ctrl-C.
 */

import type { CpuCacheStats } from "../mm/index.ts";
import { type Expectation, type Metrics, unmetExpectations } from "./expectations.ts";
import { type KindStats, mergeKinds } from "./observer.ts";
import type { RunResult, WorkloadResult } from "./run_workloads.ts";

export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;
export const EXIT_PANIC = 3;
export const EXIT_BUG = 70;
export const EXIT_INTERRUPT = 130;

export interface Verdict {
  readonly exitCode: number;
  /** What went wrong, one line each. */
  readonly failures: readonly string[];
}

/** All metrics that `result` has a value for. */
export function metricsOf(result: RunResult): Metrics {
  const { workloads } = result;
  const metrics = new Map<string, number>([
    ["failures", sumOf(workloads, "nrFailed")],
    ["reports", result.nrReports],
    ["oom_kills", result.oomKills],
    ["exit_status", workloads.reduce((worst, { exitStatus }) => Math.max(worst, Math.abs(exitStatus ?? 0)), 0)],
    ["corrupt", result.nrCorrupt],
    ["differences", workloads.reduce((sum, { replay }) => sum + (replay?.nrDifferent ?? 0), 0)],
    ["panic", result.end === "panic" ? 1 : 0],
    ["warnings", result.warnings.length],
    ["operations", sumOf(workloads, "nrOps")],
    ["virtual_time", result.virtualCycles],
    ["peak_memory", result.peakBytes],
  ]);
  if (result.end === "done") metrics.set("leaks", result.leakedPages);
  fragmentation(result.buddyinfo).forEach((value, order) => {
    metrics.set(`frag.order${order}`, value);
  });
  for (const line of result.vmstat.split("\n")) {
    const [name, value] = line.split(" ");
    if (value !== undefined) metrics.set(`vmstat.${name}`, Number(value));
  }
  if (result.offWindows !== null) {
    metrics.set("irqs_off", result.offWindows.irqs?.cycles ?? 0);
    metrics.set("preempt_off", result.offWindows.preempt?.cycles ?? 0);
  }
  const rate = hitRate(result.magazines);
  if (rate !== undefined) metrics.set("magazine.hit_rate", rate);
  for (const { device, rows } of result.devices) {
    for (const [name, value] of rows) metrics.set(`device.${device}.${name}`, value);
  }
  for (const { name, latency } of mergeKinds(result.observers)) {
    for (const [stat, value] of Object.entries(latencyStats(latency))) metrics.set(`latency.${name}.${stat}`, value);
  }
  return metrics;
}

/** Part of the object allocations that magazines served; undefined if there was none. */
export function hitRate(magazines: readonly CpuCacheStats[]): number | undefined {
  const hits = magazines.reduce((sum, { allocHits }) => sum + allocHits, 0);
  const all = magazines.reduce((sum, { allocMisses }) => sum + allocMisses, hits);
  return all === 0 ? undefined : hits / all;
}

/** The five numbers of a latency distribution. */
export function latencyStats(latency: KindStats["latency"]) {
  return {
    count: latency.count,
    p50: latency.percentile(50),
    p99: latency.percentile(99),
    p999: latency.percentile(99.9),
    max: latency.max,
  };
}

/** Did the run do what was asked of it? */
export function judge(result: RunResult, expectations: readonly Expectation[]): Verdict {
  const isExpected = (metric: string): boolean => expectations.some((expectation) => expectation.metric === metric);
  // What was expected of the whole run cannot be said of the beginning of one.
  const failures = result.end === "interrupt" ? [] : [...unmetExpectations(expectations, metricsOf(result))];
  if (result.violation !== null) failures.push(`a kernel invariant is broken: ${result.violation}`);
  if (result.leftBehind !== null) failures.push(`left behind at the end: ${result.leftBehind}`);
  if (result.nrReports > 0 && !isExpected("reports")) {
    const [nr, s] = [result.nrReports, result.nrReports === 1 ? "" : "s"];
    failures.push(`the kernel reported ${nr} problem${s} of its own (BUG: and WARNING: lines above)`);
  }
  if (result.end === "stuck") failures.push("the run is stuck: nothing is runnable and nothing will wake the sleepers");
  if (result.nrCorrupt > 0 && !isExpected("corrupt")) {
    failures.push(`${result.nrCorrupt} blocks, pages or packets are not what was written`);
  }
  for (const workload of result.workloads) {
    const complaint = complaintAbout(workload, result);
    if (complaint !== undefined && !isExpected("exit_status") && result.end !== "panic") failures.push(complaint);
  }
  if (result.end === "panic" && !isExpected("panic")) {
    return { exitCode: EXIT_PANIC, failures: ["the kernel panicked", ...failures] };
  }
  if (result.end === "interrupt") return { exitCode: EXIT_INTERRUPT, failures };
  return { exitCode: failures.length > 0 ? EXIT_FAILED : EXIT_OK, failures };
}

function complaintAbout({ name, exitStatus }: WorkloadResult, result: RunResult): string | undefined {
  if (exitStatus === undefined) {
    const isCut = result.end === "cycles" || result.end === "interrupt" || result.end === "watch";
    return isCut ? undefined : `${name}: did not end`;
  }
  if (exitStatus < 0) return `${name}: could not be started (error ${-exitStatus})`;
  return exitStatus === 0 ? undefined : `${name}: ended with exit status ${describeStatus(exitStatus)}`;
}

/** `1`, or `139 (signal 11)`. */
export function describeStatus(status: number): string {
  return status > 128 ? `${status} (signal ${status - 128})` : String(status);
}

/**
 * Unusable free space by order: the part of all free pages that lies in blocks too small for a block of the order, as
 * extfrag's unusable_index has it. Empty if nothing is free.
 */
function fragmentation(buddyinfo: string): number[] {
  const counts: number[] = [];
  for (const line of buddyinfo.split("\n")) {
    const numbers = /zone\s+\S+\s+([\d\s]+)$/.exec(line)?.[1]?.trim().split(/\s+/) ?? [];
    numbers.forEach((text, order) => {
      counts[order] = (counts[order] ?? 0) + Number(text);
    });
  }
  const pages = counts.map((count, order) => count * 2 ** order);
  const total = pages.reduce((sum, nr) => sum + nr, 0);
  if (total === 0) return [];
  let below = 0;
  return pages.map((nr) => {
    const unusable = below / total;
    below += nr;
    return Math.round(unusable * 1e6) / 1e6;
  });
}

function sumOf(workloads: readonly WorkloadResult[], key: "nrOps" | "nrFailed"): number {
  return workloads.reduce((sum, workload) => sum + workload[key], 0);
}
