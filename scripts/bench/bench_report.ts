/**
 * What `bench` prints: tables for people, a document (`slabtown/bench/v1`) for records.
 */

import { cpus } from "node:os";
import type { Paint } from "../paint.ts";
import type { FigureResult, SkippedPeer, SubjectResult } from "./figures.ts";
import { type GrowthCurve, growthFactors } from "./growth.ts";
import type { ParallelResult, StressResult } from "./parallel_suite.ts";
import { plot } from "./plot.ts";

export interface BenchReport {
  readonly seed: string;
  /** Threads of `--parallel`, or null. */
  readonly parallel: number | null;
  readonly nrOps: number;
  readonly nrSamples: number;
  readonly figures: readonly FigureResult[];
  readonly growth: readonly GrowthCurve[];
  readonly skipped: readonly SkippedPeer[];
  readonly threads: readonly ParallelResult[];
  readonly stress: StressResult | null;
  readonly isInterrupted: boolean;
  /** The command that measures the same again. */
  readonly replay: string;
}

const ownOf = ({ subjects }: FigureResult): SubjectResult | undefined =>
  subjects.find(({ role }) => role === "slabtown");

/** Everything that was found wrong with Slabtown, a sentence each. */
export function benchFaults({ figures, growth, threads, stress }: BenchReport): string[] {
  const own = figures.flatMap((figure) => {
    const subject = ownOf(figure);
    return subject === undefined ? [] : [{ id: figure.id, fault: subject.fault, failures: subject.failures }];
  });
  const curves = growth.map(({ subject, fault, failures }) => ({ id: `growth of ${subject}`, fault, failures }));
  const parallel = [...threads, ...(stress === null ? [] : [{ ...stress, id: "stress" }])];
  const rows = [...own, ...curves, ...parallel.map(({ id, fault }) => ({ id, fault, failures: 0 }))];
  return rows.flatMap(({ id, fault, failures }) => [
    ...(fault === null ? [] : [`${id}: ${fault}`]),
    ...(failures === 0 ? [] : [`${id}: ${failures} allocations failed with memory left`]),
  ]);
}

function hostOf(): { readonly cpu: string; readonly processors: number; readonly node: string; readonly v8: string } {
  const processors = cpus();
  const cpu = processors[0]?.model.trim() ?? "unknown";
  return { cpu, processors: processors.length, node: process.version, v8: process.versions.v8 };
}

/** The document for `--json`. */
export function benchDocument(report: BenchReport): object {
  const { growth, ...rest } = report;
  return {
    schema: "slabtown/bench/v1",
    host: { ...hostOf(), platform: process.platform, arch: process.arch },
    ...rest,
    growth: growth.map((curve) => ({ ...curve, ...growthFactors(curve) })),
    faults: benchFaults(report),
  };
}

function number(value: number | null | undefined, digits?: number): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "-";
  return value.toFixed(digits ?? (value >= 1_000 ? 0 : value >= 10 || value === 0 ? 1 : 2));
}

/** Columns of equal width; those in `left` are text, the others numbers. */
function table(rows: readonly (readonly string[])[], paint: Paint, left: readonly number[] = [0]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return left.includes(column) ? cell.padEnd(width) : cell.padStart(width);
      })
      .join("  ")
      .trimEnd(),
  );
  return [paint.heading(lines[0] ?? ""), ...lines.slice(1)].join("\n");
}

function figureTable(figures: readonly FigureResult[], paint: Paint): string {
  const rows = figures.map((figure) => {
    const own = ownOf(figure);
    const loop = figure.subjects.find(({ role }) => role === "loop");
    const best = figure.subjects.find(({ name }) => name === figure.bestPeer);
    const verdict = figure.isReached === null ? "" : figure.isReached ? "reached" : "missed";
    return [
      `${figure.id.padEnd(4)} ${figure.title}`,
      figure.unit,
      number(own?.value),
      number(own?.cpu),
      number(loop?.cpu ?? loop?.value),
      number(own?.worst),
      own === undefined ? "-" : String(own.failures),
      `${figure.better === "lower" ? "≤" : "≥"} ${number(figure.bar, figure.bar % 1 === 0 ? 0 : 1)}`,
      verdict,
      best === undefined ? "" : `${best.name} ${number(best.cpu ?? best.value)} (${number(best.ratio)}×)`,
    ];
  });
  const head = ["figure", "", "wall", "CPU", "loop alone (CPU)", "worst", "failed", "bar", "", "best peer (ratio)"];
  return table([head, ...rows], paint, [0, 1, 8, 9]);
}

/** Peers down, figures across: what each takes, and how often Slabtown's time contains that. */
function peerTable({ figures, nrOps }: BenchReport, paint: Paint): string | null {
  const beside = figures.filter(({ bestPeer }) => bestPeer !== null);
  const names = new Set(beside.flatMap(({ subjects }) => subjects.map(({ name }) => name)));
  if (beside.length === 0) return null;
  const rows = [...names].map((name) => [
    name,
    ...beside.map((figure) => {
      const subject = figure.subjects.find((candidate) => candidate.name === name);
      if (subject === undefined) return "";
      const isCut = subject.role === "peer" && subject.nrOps < nrOps;
      const failed = `${isCut ? "*" : ""}${subject.role === "peer" && subject.failures > 0 ? "!" : ""}`;
      const ratio = subject.ratio === null ? "" : ` (${number(subject.ratio, subject.ratio < 0.01 ? 4 : 2)}×)`;
      return `${number(subject.cpu ?? subject.value)}${failed}${ratio}`;
    }),
  ]);
  const head = ["beside peers", ...beside.map(({ id, unit }) => `${id} ${unit}`)];
  const has = (mark: string): boolean => rows.some((row) => row.slice(1).some((cell) => cell.includes(mark)));
  const legend = [
    "by CPU time where there is one (A11: pairs a second, by the clock); in brackets Slabtown's time as a multiple of",
    "it: below 1 Slabtown is ahead",
    ...(has("*") ? ["*: too slow for the whole stream; over the part that it did in time"] : []),
    ...(has("!") ? ["!: allocations failed"] : []),
  ];
  return `${table([head, ...rows], paint)}\n${legend.map((line) => paint.dim(line)).join("\n")}`;
}

function notes(figures: readonly FigureResult[], skipped: readonly SkippedPeer[], paint: Paint): string[] {
  const own = figures.flatMap(({ id, note }) => (note === null ? [] : [`${id}: ${note}`]));
  const missing = skipped.map(({ name, needs, install }) => `${name}: skipped: needs ${needs} (${install})`);
  return [...new Set(own), ...missing].map((line) => paint.dim(line));
}

const MIB = 2 ** 20;
const MARKS: Readonly<Record<string, string>> = { buddy: "b", kmalloc: "k", memory: "m" };

function growthPart(growth: readonly GrowthCurve[], paint: Paint, isUnicode: boolean): string {
  const sizes = growth[0]?.points.map(({ ramBytes }) => ramBytes) ?? [];
  const labels = sizes.map((bytes) => (bytes < 1024 * MIB ? `${bytes / MIB}M` : `${bytes / 1024 / MIB}G`));
  const rows = growth.map((curve) => {
    const { toLargest, to256MiB } = growthFactors(curve);
    const values = labels.map((_, i) => number(curve.points[i]?.cpuNs));
    return [`${MARKS[curve.subject]}  ${curve.title}`, ...values, `${number(to256MiB)}×`, `${number(toLargest)}×`];
  });
  const head = ["ns of CPU by RAM", ...labels, "to 256M", `to ${labels.at(-1) ?? ""}`];
  const curves = growth.map(({ subject, points }) => ({
    mark: MARKS[subject] ?? "?",
    values: points.map(({ cpuNs }) => cpuNs / (points[0]?.cpuNs ?? Number.NaN)),
  }));
  const bars = paint.dim("bars of A6: at most 1.15× up to 256M, at most 2× at 4G, or the curve of memory itself");
  return `${table([head, ...rows], paint)}\n${plot(labels, curves, isUnicode)}\n${bars}`;
}

function threadTable(results: readonly ParallelResult[], nrThreads: number, paint: Paint): string {
  const rows = results.map((row) => {
    const met = Object.entries(row.contention).filter(([, times]) => times > 0);
    const contention = met.map(([kind, times]) => `${kind} ${number(times, 0)}`).join(", ");
    return [
      `${row.id.padEnd(8)} ${row.title}`,
      number(row.one, 1),
      number(row.all, 1),
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

/** The tables. Without `isUnicode` in plain ASCII. */
export function benchText(report: BenchReport, paint: Paint, isUnicode: boolean): string {
  const { figures, growth, skipped, threads, stress } = report;
  const { cpu, processors, node, v8 } = hostOf();
  const parts = [paint.dim(`${cpu}, ${processors} processors, Node ${node} (V8 ${v8}), seed ${report.seed}`)];
  if (figures.length > 0) parts.push(figureTable(figures, paint));
  const beside = peerTable(report, paint);
  if (beside !== null) parts.push(beside);
  parts.push(...notes(figures, skipped, paint));
  if (growth.length > 0) parts.push(growthPart(growth, paint, isUnicode));
  if (threads.length > 0) parts.push(threadTable(threads, report.parallel ?? 1, paint));
  if (stress !== null) parts.push(stressLine(stress));
  const nothing = figures.length + growth.length + threads.length === 0 && stress === null;
  if (nothing) parts.push("nothing was measured");
  const faults = benchFaults(report);
  if (!nothing) parts.push(faults.length === 0 ? paint.good("all invariants hold") : paint.bad(faults.join("\n")));
  if (report.isInterrupted) parts.push("interrupted: what was measured until then");
  const text = `${parts.join("\n")}\n${paint.dim(`again: ${report.replay}`)}\n`;
  return isUnicode ? text : text.replaceAll("≤", "<=").replaceAll("≥", ">=").replaceAll("×", "x");
}
