/**
 * `slabtown bench`: how fast the memory subsystem is, on this computer.
 *
 * Without `--parallel` the figures A1-A12 of the whole kernel beside its peers, each sample in a fresh process; with it
 * a machine whose CPUs are threads. There is no verdict about time: figures of one computer say nothing about another
 * one. The exit code is 1 when an invariant does not hold afterwards, or an allocation failed with memory left.
 */

import { availableParallelism } from "node:os";
import { DEFAULT_SEED } from "../kernel/params.ts";
import { isUtf8Locale } from "./ascii.ts";
import { type BenchReport, benchDocument, benchFaults, benchText } from "./bench/bench_report.ts";
import { type BenchRun, matchesFilter } from "./bench/bench_run.ts";
import { ParallelFailure } from "./bench/parallel_machine.ts";
import { PARALLEL_NAMES, runParallelSuite, runStressSuite } from "./bench/parallel_suite.ts";
import { FIGURE_NAMES, runSuite } from "./bench/suite.ts";
import { paintFor } from "./command_options.ts";
import { type HostOutput, stoppable } from "./host_output.ts";
import { EXIT_OK } from "./metrics.ts";
import { shellQuote } from "./options.ts";
import { UsageError } from "./usage_error.ts";

export interface BenchCommandOptions {
  readonly json?: boolean;
  readonly filter?: string;
  /** False for `--no-peers`. */
  readonly peers?: boolean;
  readonly parallel?: number;
  readonly seed?: string;
  readonly samples?: number;
  readonly ops?: number;
  readonly cmdline?: string;
  readonly quiet?: boolean;
  readonly debug?: boolean;
  readonly color: boolean;
}

const DEFAULT_SAMPLES = 5;
const DEFAULT_OPS = 5_000_000;
/** RAM of a machine of threads. */
const PARALLEL_RAM_BYTES = 128 * 1024 * 1024;
const EXIT_FAILED = 1;
const EXIT_INTERRUPTED = 130;

function checkFilter(options: BenchCommandOptions): (name: string) => boolean {
  const { filter } = options;
  if (filter === undefined) return () => true;
  const wants = (name: string): boolean => matchesFilter(filter, name);
  const names = options.parallel === undefined ? FIGURE_NAMES : PARALLEL_NAMES;
  if (!names.some(wants)) {
    throw new UsageError(`bench: --filter ${shellQuote(filter)} matches no figure`, names.join("; "));
  }
  return wants;
}

function replayLine(options: BenchCommandOptions, seed: string): string {
  const words = ["slabtown", "bench"];
  if (options.parallel !== undefined) words.push("--parallel", String(options.parallel));
  if (options.filter !== undefined) words.push("--filter", options.filter);
  if (options.peers === false) words.push("--no-peers");
  if (options.ops !== undefined) words.push("--ops", String(options.ops));
  if (options.samples !== undefined) words.push("--samples", String(options.samples));
  if (options.cmdline !== undefined) words.push("--cmdline", options.cmdline);
  return [...words, "--seed", seed].map(shellQuote).join(" ");
}

/** Measures, prints; the exit code. */
export async function benchCommand(options: BenchCommandOptions, host: HostOutput): Promise<number> {
  const wants = checkFilter(options);
  const seed = options.seed ?? DEFAULT_SEED;
  const replay = replayLine(options, seed);
  const isQuiet = options.quiet === true;
  if (options.parallel !== undefined) checkThreads(options.parallel, isQuiet ? () => {} : host.err);
  const showLine = process.stderr.isTTY === true;
  const run: BenchRun = {
    seed,
    nrSamples: options.samples ?? DEFAULT_SAMPLES,
    nrOps: options.ops ?? DEFAULT_OPS,
    wants,
    progress(figure) {
      if (!isQuiet) host.err(showLine ? `\r${clipped(figure)}\x1b[K` : `bench: ${figure}\n`);
    },
    detail(text) {
      if (!isQuiet && showLine) host.err(`\r${clipped(text)}\x1b[K`);
    },
    isStopped: () => host.stop.reason !== "none",
  };
  const measured = { seed, parallel: options.parallel ?? null, nrOps: run.nrOps, nrSamples: run.nrSamples, replay };
  let report: BenchReport;
  try {
    report = await stoppable(host.stop, async () => ({ ...(await measure(options, run)), ...measured }));
  } catch (error) {
    if (!(error instanceof ParallelFailure)) throw error;
    if (showLine && !isQuiet) host.err("\n");
    const details = options.debug === true || !error.details.startsWith("  ") ? "" : `${error.details}\n`;
    host.err(`slabtown: bench: ${error.message}\n${options.debug === true ? `${error.details}\n` : details}`);
    host.err(`slabtown: to see it again: ${replay}\n`);
    return EXIT_FAILED;
  }
  if (showLine && !isQuiet) host.err("\r\x1b[K");
  host.out(options.json === true ? `${JSON.stringify(benchDocument(report), null, 2)}\n` : text(report, options));
  const faults = benchFaults(report);
  for (const fault of faults) host.err(`slabtown: bench: ${fault}\n`);
  if (faults.length > 0) host.err(`slabtown: to see it again: ${replay}\n`);
  if (faults.length > 0) return EXIT_FAILED;
  return host.stop.reason === "interrupt" ? EXIT_INTERRUPTED : EXIT_OK;
}

const text = (report: BenchReport, options: BenchCommandOptions): string =>
  benchText(report, paintFor({ color: options.color }), isUtf8Locale(process.env));

/** A line that is rewritten must not be longer than the terminal is wide. */
const clipped = (line: string): string => line.slice(0, (process.stderr.columns ?? 80) - 1);

type Measured = Pick<BenchReport, "figures" | "growth" | "skipped" | "threads" | "stress" | "isInterrupted">;

async function measure(options: BenchCommandOptions, run: BenchRun): Promise<Measured> {
  if (options.parallel === undefined) {
    const result = await runSuite(run, options.peers !== false);
    return { ...result, threads: [], stress: null, isInterrupted: run.isStopped() };
  }
  const { parallel: nrThreads, cmdline = "" } = options;
  const suite = { nrThreads, ramBytes: PARALLEL_RAM_BYTES, cmdline };
  const threads = await runParallelSuite(suite, run);
  const stress = await runStressSuite(suite, run);
  const none = { figures: [], growth: [], skipped: [] };
  return { ...none, threads, stress, isInterrupted: run.isStopped() };
}

function checkThreads(nrThreads: number, warn: (text: string) => void): void {
  if (typeof SharedArrayBuffer !== "function") {
    throw new UsageError("bench: --parallel needs shared memory, which this Node lacks", "slabtown bench");
  }
  const processors = availableParallelism();
  if (nrThreads > processors) warn(`slabtown: bench: ${nrThreads} threads share ${processors} processors\n`);
}
