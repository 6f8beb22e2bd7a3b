/**
 * A11: two threads over one RAM, beside one thread of the same machine and beside the allocators of C programs.
 *
 * The rates come from the suite of `--parallel` (parallel_suite.ts). Two threads are to do 1.7 times what one does, so
 * the bar is in the measurement itself.
 */

import type { BenchRun } from "./bench_run.ts";
import type { Sample } from "./child_tasks.ts";
import { type Figure, type FigureResult, figureName, figureResult, measureFigure } from "./figures.ts";
import { sampleNativeThreads } from "./native_peers.ts";
import { type ParallelResult, type ParallelSuite, runParallelSuite } from "./parallel_suite.ts";
import type { Peers } from "./peers.ts";
import { OWN_NAME } from "./stream_figures.ts";

const NR_THREADS = 2;
const WANTED_SPEEDUP = 1.7;
const RAM_BYTES = 128 * 1024 * 1024;

interface ThreadFigure {
  readonly id: string;
  readonly title: string;
  readonly workload: "churn" | "pipe";
}
const FIGURES: readonly ThreadFigure[] = [
  { id: "A11", title: "two threads: object churn, arrays exchanged", workload: "churn" },
  { id: "A11b", title: "two threads: one allocates, the other frees", workload: "pipe" },
];
export const THREAD_FIGURE_NAMES: readonly string[] = FIGURES.map(figureName);

/** The figures that the run wants. Fewer when it is stopped. */
export async function measureThreads(peers: () => Promise<Peers>, run: BenchRun): Promise<readonly FigureResult[]> {
  const results: FigureResult[] = [];
  for (const figure of FIGURES) {
    if (!run.wants(figureName(figure)) || run.isStopped()) continue;
    const suite: ParallelSuite = { nrThreads: NR_THREADS, ramBytes: RAM_BYTES, cmdline: "" };
    run.progress(figureName(figure));
    const quiet = { ...run, progress: run.detail, wants: (name: string) => name.startsWith(`${figure.workload} `) };
    const [own] = await runParallelSuite(suite, quiet);
    if (own !== undefined) results.push(await besidePeers(figure, own, peers, run));
  }
  return results;
}

async function besidePeers(
  { id, title, workload }: ThreadFigure,
  own: ParallelResult,
  peers: () => Promise<Peers>,
  run: BenchRun,
): Promise<FigureResult> {
  const bar = WANTED_SPEEDUP * own.one;
  const [usual, best, cpu] = [own.speedup, own.bestSpeedup, own.cpuSpeedup].map((speedup) => speedup.toFixed(2));
  const note = `two threads do ${usual} times what one does (best ${best}, by CPU time ${cpu})`;
  const shared = { id, title, unit: "M/s", bar, better: "higher", note } as const;
  const measured: Figure = {
    ...shared,
    async prepare() {
      const { program, peers: natives } = (await peers()).native;
      const spec = { nrThreads: NR_THREADS, nrPairs: Math.ceil(run.nrOps / 2) };
      return natives.map((peer) => ({
        name: peer.name,
        role: "peer",
        measure: async (): Promise<Sample | null> =>
          program === null ? null : sampleNativeThreads(program, peer, workload, spec, run),
      }));
    },
  };
  const beside = run.isStopped() ? null : await measureFigure(measured, { ...run, progress: run.detail });
  const subject = {
    name: OWN_NAME,
    role: "slabtown",
    value: own.all,
    cpu: null,
    worst: null,
    failures: 0,
    fault: own.fault,
    nrOps: run.nrOps,
    samples: own.samples.map((speedup) => speedup * own.one),
  } as const;
  return figureResult(shared, [subject, ...(beside?.subjects ?? [])]);
}
