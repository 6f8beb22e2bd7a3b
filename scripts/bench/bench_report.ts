/**
 * What `bench` prints: a table for people, a document (`slabtown/bench/v1`) for records.
 */

import { cpus } from "node:os";
import type { Paint } from "../paint.ts";
import type { ParallelResult, StressResult } from "./parallel_suite.ts";
import type { SingleResult } from "./single_suite.ts";

export interface BenchReport {
  readonly seed: string;
  /** Threads of `--parallel`, or null. */
  readonly parallel: number | null;
  readonly nrOps: number;
  readonly nrSamples: number;
  readonly single: readonly SingleResult[];
  readonly threads: readonly ParallelResult[];
  readonly stress: StressResult | null;
  readonly isInterrupted: boolean;
  /** The command that measures the same again. */
  readonly replay: string;
}

/** Everything that was found wrong, a sentence each. */
export function benchFaults({ single, threads, stress }: BenchReport): string[] {
  const rows = [...single, ...threads, ...(stress === null ? [] : [{ ...stress, id: "stress" }])];
  const faults = rows.flatMap(({ id, fault }) => (fault === null ? [] : [`${id}: ${fault}`]));
  const failed = single.filter(({ failures }) => failures > 0);
  return [...faults, ...failed.map(({ id, failures }) => `${id}: ${failures} allocations failed with memory left`)];
}

function hostOf(): { readonly cpu: string; readonly processors: number; readonly node: string; readonly v8: string } {
  const processors = cpus();
  const cpu = processors[0]?.model.trim() ?? "unknown";
  return { cpu, processors: processors.length, node: process.version, v8: process.versions.v8 };
}

/** The document for `--json`. */
export function benchDocument(report: BenchReport): object {
  const { single, threads, ...rest } = report;
  return {
    schema: "slabtown/bench/v1",
    host: { ...hostOf(), platform: process.platform, arch: process.arch },
    ...rest,
    results: single,
    threads,
    faults: benchFaults(report),
  };
}

const number = (value: number, digits = 1): string => (Number.isFinite(value) ? value.toFixed(digits) : "-");

/** Columns of equal width; the first is text, the others numbers. */
function table(rows: readonly (readonly string[])[], paint: Paint): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join("  ")
      .trimEnd(),
  );
  return [paint.heading(lines[0] ?? ""), ...lines.slice(1)].join("\n");
}

function singleTable(results: readonly SingleResult[], paint: Paint): string {
  const rows = results
    .filter(({ subject }) => subject !== "none")
    .map((row) => {
      const none = results.find(({ id, subject }) => id === row.id && subject === "none");
      const spread = `${number(Math.min(...row.samples))}-${number(Math.max(...row.samples))}`;
      const cells = [row.nsPerOp, row.cpuNsPerOp].map((value) => number(value));
      const ofLoop = none === undefined ? "-" : number(none.nsPerOp);
      return [`${row.id.padEnd(3)} ${row.title}`, ...cells, spread, ofLoop, `≤ ${row.bar}`, String(row.failures)];
    });
  const head = ["nanoseconds per operation", "wall", "CPU", "spread", "loop alone", "bar", "failed"];
  return table([head, ...rows], paint);
}

function threadTable(results: readonly ParallelResult[], nrThreads: number, paint: Paint): string {
  const rows = results.map((row) => {
    const met = Object.entries(row.contention).filter(([, times]) => times > 0);
    const contention = met.map(([kind, times]) => `${kind} ${number(times, 0)}`).join(", ");
    return [
      `${row.id.padEnd(8)} ${row.title}`,
      number(row.one),
      number(row.all),
      `${number(row.speedup, 2)}×`,
      `${number(row.bestSpeedup, 2)}×`,
      `${number(row.cpuSpeedup, 2)}×`,
      contention === "" ? "none" : contention,
    ];
  });
  const all = `${nrThreads} thread${nrThreads === 1 ? "" : "s"}`;
  const head = ["million pairs per second", "1 thread", all, "speed-up", "best", "by CPU time", "contention/M pairs"];
  return table([head, ...rows], paint);
}

function stressLine(stress: StressResult): string {
  const { threads, operations, allocations, remoteFrees, verified, stops, drainedPages, drainedObjects } = stress;
  return (
    `stress: ${threads} threads, ${operations} operations, ${allocations} allocations, ${remoteFrees} remote frees, ` +
    `${verified} contents verified,\n  ${stops} stops with all invariants walked, ` +
    `${drainedPages} pages and ${drainedObjects} objects drained from a CPU that went offline`
  );
}

/** The table. */
export function benchText(report: BenchReport, paint: Paint): string {
  const { cpu, processors, node, v8 } = hostOf();
  const parts = [paint.dim(`${cpu}, ${processors} processors, Node ${node} (V8 ${v8}), seed ${report.seed}`)];
  if (report.single.length > 0) parts.push(singleTable(report.single, paint));
  if (report.threads.length > 0) parts.push(threadTable(report.threads, report.parallel ?? 1, paint));
  if (report.stress !== null) parts.push(stressLine(report.stress));
  const nothing = report.single.length + report.threads.length === 0 && report.stress === null;
  if (nothing) parts.push("nothing was measured");
  const faults = benchFaults(report);
  if (!nothing) parts.push(faults.length === 0 ? paint.good("all invariants hold") : paint.bad(faults.join("\n")));
  if (report.isInterrupted) parts.push("interrupted: what was measured until then");
  return `${parts.join("\n")}\n${paint.dim(`again: ${report.replay}`)}\n`;
}
