/**
 * The summary of a run: as text for people, and as one JSON document (`slabtown/run/v1`) for programs.
 *
 * Both say the same. What depends on the host's speed is one line of the text, and in the document only with --host:
 * without it the document of the same run is the same bytes everywhere.
 */

import type { PageCensus } from "../kernel/entry/kernel.ts";
import { CYCLES_PER_SECOND, PAGE_SIZE } from "../kernel/params.ts";
import { describeStatus, hitRate, latencyStats, type Verdict } from "./metrics.ts";
import { mergeKinds } from "./observer.ts";
import { formatSize } from "./options.ts";
import type { Paint } from "./paint.ts";
import { faultTotals } from "./process_table.ts";
import { printable } from "./readers/input_error.ts";
import type { RunEnd, RunResult, WorkloadResult } from "./run_workloads.ts";

export interface SummaryInput {
  readonly result: RunResult;
  readonly verdict: Verdict;
  /** The command that does this run again. */
  readonly replay: string;
}

const CENSUS_ROWS: readonly (readonly [key: Exclude<keyof PageCensus, "total">, label: string])[] = [
  ["reserved", "reserved at boot"],
  ["freeBuddy", "free, buddy"],
  ["freePcp", "free, per-CPU"],
  ["slab", "slab"],
  ["largeKmalloc", "large kmalloc"],
  ["anon", "anonymous"],
  ["files", "files"],
  ["pageTables", "page tables"],
  ["kernelStacks", "kernel stacks"],
  ["dmaPools", "DMA pools"],
  ["balloon", "balloon"],
  ["other", "other"],
];

const END_TEXT: Readonly<Record<RunEnd, string>> = {
  done: "all workloads ended",
  cycles: "stopped at --cycles",
  interrupt: "interrupted",
  stuck: "stuck",
  poweroff: "powered off",
  panic: "the kernel panicked",
  watch: "stopped on the way",
  broken: "an invariant is broken",
};

const KIND_TEXT: Readonly<Record<WorkloadResult["kind"], string>> = {
  program: "program",
  heap: "heap replay",
  kernel: "kernel events",
  syscall: "system calls",
};
/** Processes shown one by one; of more, those that had most resident. */
const MAX_PROCESSES = 24;

/** The document for `--json`. */
export function summaryDocument({ result, verdict, replay }: SummaryInput, withHost: boolean): object {
  const { machine } = result;
  const nrOps = total(result, "nrOps");
  return {
    schema: "slabtown/run/v1",
    machine: { cpus: machine.nrCpus, memBytes: machine.ramBytes, seed: machine.seed, cmdline: machine.cmdline },
    end: result.end,
    exitCode: verdict.exitCode,
    failures: verdict.failures,
    workloads: result.workloads.map(
      ({ name, kind, pids, exitStatus, nrOps: ops, nrFailed, replay: played, processes }) => ({
        name,
        kind,
        pids,
        exitStatus: exitStatus ?? null,
        operations: ops,
        failed: nrFailed,
        ...(played === undefined ? {} : { replay: played, processes }),
      }),
    ),
    operations: nrOps,
    failed: total(result, "nrFailed"),
    virtualCycles: result.virtualCycles,
    peakMemoryBytes: result.peakBytes,
    leakedPages: result.end === "done" ? result.leakedPages : null,
    oomKills: result.oomKills,
    reports: result.nrReports,
    magazines: { hitRate: hitRate(result.magazines) ?? null, cpus: result.magazines },
    longestOff: result.offWindows,
    devices: Object.fromEntries(result.devices.map(({ device, rows }) => [device, Object.fromEntries(rows)])),
    invariants: result.violation,
    corrupt: result.nrCorrupt,
    leftBehind: result.leftBehind,
    warnings: result.warnings,
    pages: result.census,
    latencyCycles: Object.fromEntries(
      mergeKinds(result.observers).map(({ name, latency, nrFailed }) => [
        name,
        { ...latencyStats(latency), failed: nrFailed },
      ]),
    ),
    replay,
    ...(withHost ? { host: { seconds: result.hostSeconds, operationsPerSecond: rateOf(result) } } : {}),
  };
}

/** The text for a terminal or a log. Ends with a newline. */
export function summaryText(input: SummaryInput, paint: Paint): string {
  const { result, verdict, replay } = input;
  const { machine } = result;
  const lines = [
    paint.heading(
      `${machine.nrCpus} CPU${machine.nrCpus === 1 ? "" : "s"}, ${formatSize(machine.ramBytes)} of RAM, ` +
        `seed ${machine.seed}: ${END_TEXT[result.end]}`,
    ),
    ...workloadLines(result.workloads, paint),
    "",
    ...factLines(result),
    "",
    ...result.workloads.flatMap((workload) => replayLines(workload, paint)),
    ...censusLines(result.census, paint),
    "",
    ...deviceLines(result, paint),
    ...offLines(result, paint),
    ...magazineLines(result, paint),
    ...latencyLines(result, paint),
    ...verdict.failures.map((failure) => paint.bad(`FAILED: ${printable(failure)}`)),
    `replay: ${replay}`,
  ];
  return `${lines.join("\n")}\n`;
}

/** 1234567 → `1,234,567`, the same in every locale. */
export function grouped(value: number): string {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ",");
}

function workloadLines(workloads: readonly WorkloadResult[], paint: Paint): string[] {
  const shown = workloads.map((workload) => [
    printable(workload.name),
    KIND_TEXT[workload.kind],
    `${grouped(workload.nrOps)} operations`,
    statusText(workload),
  ]);
  const rows = table(shown, [false, false, true, false]);
  return rows.map((row, i) => ((workloads[i]?.exitStatus ?? 1) === 0 ? row : paint.bad(row)));
}

function statusText({ exitStatus }: WorkloadResult): string {
  if (exitStatus === undefined) return "not ended";
  return exitStatus < 0 ? `not started (error ${-exitStatus})` : `exit status ${describeStatus(exitStatus)}`;
}

function factLines(result: RunResult): string[] {
  const nrWarnings = result.warnings.length;
  const milliseconds = (result.virtualCycles / CYCLES_PER_SECOND) * 1000;
  const facts: readonly (readonly [string, string])[] = [
    ["operations", `${grouped(total(result, "nrOps"))} (${grouped(total(result, "nrFailed"))} failed)`],
    ["host speed", `${grouped(rateOf(result))} operations per second`],
    ["virtual time", `${milliseconds.toFixed(3)} ms (${grouped(result.virtualCycles)} cycles)`],
    ["peak memory", mebibytes(result.peakBytes)],
    ["left behind", result.end === "done" ? `${grouped(result.leakedPages)} pages` : "unknown: stopped before the end"],
    ["out of memory", `${grouped(result.oomKills)} processes killed`],
    ["reader warnings", grouped(nrWarnings)],
    ["kernel reports", grouped(result.nrReports)],
    ["invariants", result.violation === null ? "hold" : "broken"],
  ];
  return facts.map(([label, value]) => `  ${label.padEnd(16)} ${value}`);
}

/** What a replay of system calls came to, and its processes. */
function replayLines({ name, replay, processes = [] }: WorkloadResult, paint: Paint): string[] {
  if (replay === undefined) return [];
  const { nrDifferent, firstDifference, nrSkipped, nrFileMappings, nrFilesAnonymous, nrImpliedRanges, nrCorrupt } =
    replay;
  const facts: readonly (readonly [string, string])[] = [
    ["tasks", `${grouped(replay.nrProcesses)} processes, ${grouped(replay.nrThreads)} further threads`],
    ["calls played", `${grouped(replay.nrPlayed)} of ${grouped(replay.nrEvents)} (${grouped(nrSkipped)} passed over)`],
    ["differences", `${grouped(nrDifferent)}${firstDifference === null ? "" : `; first: ${firstDifference}`}`],
    ["page contents", `${grouped(replay.nrTouched)} written, ${grouped(replay.nrChecked)} checked, ${nrCorrupt} wrong`],
    ["mapped files", `${grouped(nrFileMappings)} (all zeros; ${grouped(nrFilesAnonymous)} as anonymous memory)`],
    ["program images", `${grouped(nrImpliedRanges)} ranges that no call has mapped`],
  ];
  const shown = [...processes].sort((a, b) => b.rssKib - a.rssKib).slice(0, MAX_PROCESSES);
  const cells = processes
    .filter((process) => shown.includes(process))
    .map((process) => [
      `${printable(process.command)}${process.isVforked ? " (vfork)" : ""}`,
      String(process.pid),
      ...[process.vszKib, process.rssKib, process.pssKib, process.peakRssKib, process.tablesKib].map(grouped),
      ...[process.minorFaults, process.majorFaults, process.cowFaults].map(grouped),
    ]);
  const { minorFaults, majorFaults, cowFaults } = faultTotals(processes);
  const totals = ["all images", "", "", "", "", "", "", ...[minorFaults, majorFaults, cowFaults].map(grouped)];
  const head = [printable(name), "pid", "VSZ KiB", "RSS", "PSS", "peak RSS", "tables", "minor faults", "major", "COW"];
  const right = [false, ...head.slice(1).map(() => true)];
  const rest = processes.length - cells.length;
  return [
    ...facts.map(([label, value]) => `  ${label.padEnd(16)} ${value}`),
    "",
    ...titled(head, [...cells, totals], right, paint),
    ...(rest > 0 ? [`  … and ${rest} smaller ones (all of them: --json)`] : []),
    "",
  ];
}

function censusLines(census: PageCensus, paint: Paint): string[] {
  const rows: [string, number][] = CENSUS_ROWS.map(([key, label]) => [label, census[key]]);
  rows.push(["total", census.total]);
  const cells = rows.map(([label, pages]) => [
    label,
    grouped(pages),
    mebibytes(pages * PAGE_SIZE),
    `${((100 * pages) / Math.max(census.total, 1)).toFixed(1)} %`,
  ]);
  return titled(["where every page is", "pages", "size", "share"], cells, [false, true, true, true], paint);
}

/** One block a device: what its driver counted, zeros left out, in columns. */
function deviceLines(result: RunResult, paint: Paint): string[] {
  return result.devices.flatMap(({ device, driver, rows }) => {
    const cells = rows.filter(([, value]) => value !== 0).map(([name, value]) => [name, grouped(value)]);
    const lines = cells.length === 0 ? ["  nothing happened"] : table(cells, [false, true]);
    return [paint.heading(`  ${device} (${driver})`), ...lines.map((line) => `  ${line}`), ""];
  });
}

/** Where interrupts or preemption were off longest, if the run watched. */
function offLines({ offWindows }: RunResult, paint: Paint): string[] {
  if (offWindows === null) return [];
  const rows = [
    ["interrupts", offWindows.irqs],
    ["preemption", offWindows.preempt],
  ] as const;
  const cells = rows.map(([what, window]) =>
    window === undefined
      ? [what, "0", "", "", ""]
      : [what, grouped(window.cycles), String(window.cpu), window.comm, `${window.startedAt} … ${window.endedAt}`],
  );
  return [
    ...titled(["longest off", "cycles", "CPU", "task", "where"], cells, [false, true, true, false, false], paint),
    "",
  ];
}

/** Object allocations and frees by CPU, and how many of them a magazine served. */
function magazineLines({ magazines }: RunResult, paint: Paint): string[] {
  const percent = (hits: number, misses: number): string =>
    hits + misses === 0 ? "-" : `${((100 * hits) / (hits + misses)).toFixed(1)} %`;
  const cells = magazines.map((cpu, nr) => [
    `CPU ${nr}`,
    grouped(cpu.allocHits + cpu.allocMisses),
    percent(cpu.allocHits, cpu.allocMisses),
    grouped(cpu.freeHits + cpu.freeMisses),
    percent(cpu.freeHits, cpu.freeMisses),
    grouped(cpu.cached),
  ]);
  const head = ["magazines", "allocs", "hits", "frees", "hits", "at hand"];
  return [...titled(head, cells, [false, true, true, true, true, true], paint), ""];
}

function latencyLines(result: RunResult, paint: Paint): string[] {
  const kinds = mergeKinds(result.observers);
  if (kinds.length === 0) return [];
  const cells = kinds.map(({ name, latency, nrFailed }) => {
    const { count, p50, p99, p999, max } = latencyStats(latency);
    return [name, ...[count, p50, p99, p999, max, nrFailed].map(grouped)];
  });
  const head = ["latency in cycles", "count", "p50", "p99", "p99.9", "worst", "failed"];
  return [...titled(head, cells, [false, true, true, true, true, true, true], paint), ""];
}

/** Rows in columns below a heading. */
export function titled(
  head: readonly string[],
  cells: readonly (readonly string[])[],
  alignRight: readonly boolean[],
  paint: Paint,
): string[] {
  const [first = "", ...rest] = table([head, ...cells], alignRight);
  return [paint.heading(first), ...rest];
}

/** Cells in columns, two blanks before and between, nothing behind. */
function table(cells: readonly (readonly string[])[], alignRight: readonly boolean[]): string[] {
  const widths = alignRight.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? "").length)));
  return cells.map((row) =>
    `  ${row
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return alignRight[column] === true ? cell.padStart(width) : cell.padEnd(width);
      })
      .join("  ")}`.trimEnd(),
  );
}

function mebibytes(bytes: number): string {
  return `${(bytes / 1024 ** 2).toFixed(2)} MiB`;
}

function rateOf(result: RunResult): number {
  return Math.round(total(result, "nrOps") / Math.max(result.hostSeconds, 0.001));
}

function total(result: RunResult, key: "nrOps" | "nrFailed"): number {
  return result.workloads.reduce((sum, workload) => sum + workload[key], 0);
}
