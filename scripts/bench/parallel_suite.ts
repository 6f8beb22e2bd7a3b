/**
 * The suite of several threads: each workload with one thread and with all, on the same machine, in turns.
 *
 * Fresh threads (and thus fresh compiled code) and fresh RAM for each sample. Within a sample the two kinds alternate,
 * and a speed-up is always that of two neighbours in time: a computer that is busy with other things is slower for
 * both. Besides the speed-up by the clock there is one by CPU time, N · (CPU per pair of one) / (CPU per pair of N):
 * what N processors of one's own would give. The row `none` has no allocator: it shows what this computer can do.
 */

import type { BenchRun } from "./bench_run.ts";
import type { RanReply } from "./messages.ts";
import { createParallelMachine, type ParallelMachine } from "./parallel_machine.ts";
import type { StressCounts } from "./parallel_stress.ts";
import type { ParallelWorkload } from "./parallel_workloads.ts";
import { median } from "./statistics.ts";

interface Row {
  readonly id: string;
  readonly title: string;
  readonly workload: ParallelWorkload;
  readonly cmdline: string;
}

const CHURN = "object churn: kmalloc 16-512 B, arrays exchanged";
const PIPE = "producer/consumer: remote free over a ring";
const ROWS: readonly Row[] = [
  { id: "none", title: "no allocator: what this computer can do", workload: "none", cmdline: "" },
  { id: "churn", title: CHURN, workload: "churn", cmdline: "" },
  { id: "churn-lf", title: "the same, lock-free depots", workload: "churn", cmdline: "depot=lockfree" },
  { id: "pipe", title: PIPE, workload: "pipe", cmdline: "" },
  { id: "pipe-lf", title: "the same, lock-free depots", workload: "pipe", cmdline: "depot=lockfree" },
  { id: "pages", title: "page churn, orders 0-5", workload: "pages", cmdline: "" },
];
const nameOf = ({ id, title }: Row): string => `${id} ${title}`;

export interface ParallelResult {
  readonly id: string;
  readonly title: string;
  readonly threads: number;
  /** Million pairs per second, medians: of one thread, of all together. */
  readonly one: number;
  readonly all: number;
  /** By the clock: median of neighbours, and the best. */
  readonly speedup: number;
  readonly bestSpeedup: number;
  /** By CPU time. */
  readonly cpuSpeedup: number;
  /** Nanoseconds of CPU per pair: one thread, all. */
  readonly cpuNsOne: number;
  readonly cpuNsAll: number;
  /** Of all threads, per million pairs: locks found taken, by kind, and per-CPU page lists found in other hands. */
  readonly contention: Readonly<Record<string, number>>;
  /** Per neighbours: the speed-up by the clock. */
  readonly samples: readonly number[];
  /** Violated invariant afterwards, or null. */
  readonly fault: string | null;
}

export interface ParallelSuite {
  readonly nrThreads: number;
  readonly ramBytes: number;
  readonly cmdline: string;
}

/** Pairs in turns within a sample. */
const TURNS = 3;
/** A thread without anything to do for so long is stuck. */
const PATIENCE_MS = 10_000;

const STRESS_NAME = "stress: everything at once, contents verified";
/** Operations of a stress thread for each million of `--ops`. */
const STRESS_SHARE = 0.01;

/** Names that `--filter` is compared with. */
export const PARALLEL_NAMES: readonly string[] = [...ROWS.map(nameOf), STRESS_NAME];

/** The stress of one machine: sums over its threads. */
export interface StressResult extends StressCounts {
  readonly threads: number;
  /** What was found wrong, or null. */
  readonly fault: string | null;
}

interface Turn {
  readonly one: Rate;
  readonly all: Rate;
}
interface Rate {
  readonly pairs: number;
  /** Million pairs per second. */
  readonly rate: number;
  readonly cpuNs: number;
  readonly contention: ReadonlyMap<string, number>;
}

function rateOf(replies: readonly RanReply[], machine: ParallelMachine): Rate {
  const pairs = replies.reduce((sum, reply) => sum + reply.pairs, 0);
  const start = Math.min(...replies.map((reply) => reply.startMs));
  const end = Math.max(...replies.map((reply) => reply.endMs));
  const contention = new Map<string, number>([
    ["depot", replies.reduce((sum, reply) => sum + reply.depotBusy, 0)],
    ["pcp", replies.reduce((sum, reply) => sum + reply.pcpBusy, 0)],
  ]);
  for (const [lock, times] of replies.flatMap((reply) => reply.contended)) {
    const kind = machine.nameOfLock(lock).split(" ")[0] ?? "other";
    // Depots count for themselves, also where they have no lock.
    if (kind === "depot") continue;
    contention.set(kind, (contention.get(kind) ?? 0) + times);
  }
  const cpuMs = replies.reduce((sum, reply) => sum + reply.cpuMs, 0);
  return { pairs, rate: pairs / (end - start) / 1000, cpuNs: (cpuMs * 1e6) / pairs, contention };
}

/** One sample: a fresh machine, TURNS turns, the walk over all invariants. */
async function runSample(
  row: Row,
  { nrThreads, ramBytes, cmdline: common }: ParallelSuite,
  run: BenchRun,
): Promise<{ turns: Turn[]; fault: string | null }> {
  const { workload } = row;
  const cmdline = `${row.cmdline} ${common}`.trim();
  const options = { nrThreads, nrCpus: nrThreads, ramBytes, seed: run.seed, cmdline, patienceMs: PATIENCE_MS };
  const machine = createParallelMachine(options);
  const onStop = setInterval(() => {
    if (run.isStopped()) machine.endSoon();
  }, 50);
  try {
    await machine.boot();
    const turns: Turn[] = [];
    for (let turn = 0; turn < TURNS && !run.isStopped(); turn++) {
      const nrPairs = Math.ceil(run.nrOps / 2);
      const spec = { workload, nrPairs, warmupPairs: Math.ceil(nrPairs / (turn === 0 ? 2 : 10)) };
      const one = rateOf(await machine.run(spec, 1), machine);
      if (run.isStopped()) break;
      const all = rateOf(await machine.run(spec, nrThreads), machine);
      if (!run.isStopped()) turns.push({ one, all });
    }
    return { turns, fault: await machine.finish() };
  } finally {
    clearInterval(onStop);
    await machine.end();
  }
}

function summarize({ id, title }: Row, threads: number, turns: readonly Turn[], fault: string | null) {
  const samples = turns.map(({ one, all }) => all.rate / one.rate);
  const pairs = turns.reduce((sum, { all }) => sum + all.pairs, 0);
  const contention: Record<string, number> = {};
  for (const { all } of turns) {
    for (const [kind, times] of all.contention) contention[kind] = (contention[kind] ?? 0) + (times * 1e6) / pairs;
  }
  const result: ParallelResult = {
    id,
    title,
    threads,
    one: median(turns.map(({ one }) => one.rate)),
    all: median(turns.map(({ all }) => all.rate)),
    speedup: median(samples),
    bestSpeedup: Math.max(...samples),
    cpuSpeedup: median(turns.map(({ one, all }) => (threads * one.cpuNs) / all.cpuNs)),
    cpuNsOne: median(turns.map(({ one }) => one.cpuNs)),
    cpuNsAll: median(turns.map(({ all }) => all.cpuNs)),
    contention,
    samples,
    fault,
  };
  return result;
}

/** All workloads that the run wants. Fewer when the run is stopped. */
export async function runParallelSuite(suite: ParallelSuite, run: BenchRun): Promise<readonly ParallelResult[]> {
  const results: ParallelResult[] = [];
  for (const row of ROWS) {
    const { id } = row;
    if (!run.wants(nameOf(row))) continue;
    const turns: Turn[] = [];
    let fault: string | null = null;
    for (let sample = 0; sample < run.nrSamples && fault === null && !run.isStopped(); sample++) {
      run.progress(`${id}, ${suite.nrThreads} threads: sample ${sample + 1} of ${run.nrSamples}`);
      const result = await runSample(row, suite, run);
      turns.push(...result.turns);
      fault = result.fault;
    }
    if (turns.length > 0 || fault !== null) results.push(summarize(row, suite.nrThreads, turns, fault));
  }
  return results;
}

/** Everything at once with contents verified, if the run wants it: null otherwise, or when the run was stopped. */
export async function runStressSuite(suite: ParallelSuite, run: BenchRun): Promise<StressResult | null> {
  if (!run.wants(STRESS_NAME) || run.isStopped()) return null;
  run.progress(`stress, ${suite.nrThreads} threads`);
  const { nrThreads, ramBytes, cmdline } = suite;
  const options = { nrThreads, nrCpus: nrThreads, ramBytes, seed: run.seed, cmdline, patienceMs: PATIENCE_MS };
  const machine = createParallelMachine(options);
  const onStop = setInterval(() => {
    if (run.isStopped()) machine.endSoon();
  }, 50);
  try {
    await machine.boot();
    const nrOperations = Math.ceil(run.nrOps * STRESS_SHARE);
    const counts = await machine.stress({ seed: run.seed, nrOperations, nrStops: nrThreads });
    return { threads: nrThreads, ...sumCounts(counts), fault: await machine.finish() };
  } finally {
    clearInterval(onStop);
    await machine.end();
  }
}

/** Counts of all threads together. */
export function sumCounts(counts: readonly StressCounts[]): StressCounts {
  const add = (a: StressCounts, b: StressCounts): StressCounts => ({
    operations: a.operations + b.operations,
    allocations: a.allocations + b.allocations,
    frees: a.frees + b.frees,
    remoteFrees: a.remoteFrees + b.remoteFrees,
    verified: a.verified + b.verified,
    failures: a.failures + b.failures,
    stops: a.stops + b.stops,
    drainedPages: a.drainedPages + b.drainedPages,
    drainedObjects: a.drainedObjects + b.drainedObjects,
  });
  return counts.reduce(add);
}
