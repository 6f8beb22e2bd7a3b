/**
 * The suite of `slabtown bench`: figures A1-A12 in their order, with a temporary folder for streams and programs.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BenchRun } from "./bench_run.ts";
import { type Figure, type FigureResult, figureName, measureFigure, type SkippedPeer } from "./figures.ts";
import { GROWTH_NAMES, type GrowthCurve, measureGrowth } from "./growth.ts";
import { bootAndReplayFigures, callFigures } from "./kernel_figures.ts";
import { findPeers, type Peers } from "./peers.ts";
import { streamFigures } from "./stream_figures.ts";
import { measureThreads, THREAD_FIGURE_NAMES } from "./threads_figures.ts";

export interface SuiteResult {
  readonly figures: readonly FigureResult[];
  readonly growth: readonly GrowthCurve[];
  readonly skipped: readonly SkippedPeer[];
}

const NO_RUN: BenchRun = {
  seed: "",
  nrSamples: 0,
  nrOps: 0,
  wants: () => false,
  progress: () => {},
  detail: () => {},
  isStopped: () => true,
};
const NO_PEERS: Peers = {
  js: [],
  compiled: null,
  native: { program: null, peers: [], skipped: [] },
  skipped: [],
};
const noPeers = async (): Promise<Peers> => NO_PEERS;

/** Names that `--filter` is compared with. */
export const FIGURE_NAMES: readonly string[] = [
  ...streamFigures("", noPeers, NO_RUN).map(figureName),
  ...GROWTH_NAMES,
  ...bootAndReplayFigures(NO_RUN).map(figureName),
  ...THREAD_FIGURE_NAMES,
  ...callFigures(NO_RUN).map(figureName),
];

/** All figures that the run wants, beside peers if `hasPeers`. Fewer when the run is stopped. */
export async function runSuite(run: BenchRun, hasPeers: boolean): Promise<SuiteResult> {
  const folder = mkdtempSync(join(tmpdir(), "slabtown-bench-"));
  let found: Promise<Peers> | undefined;
  const peers = (): Promise<Peers> => (found ??= hasPeers ? findPeers(folder, run) : noPeers());
  const measureAll = async (figures: readonly Figure[]): Promise<FigureResult[]> => {
    const results: FigureResult[] = [];
    for (const figure of figures) {
      if (!run.wants(figureName(figure)) || run.isStopped()) continue;
      const result = await measureFigure(figure, run);
      if (result !== null) results.push(result);
    }
    return results;
  };
  try {
    const streams = await measureAll(streamFigures(folder, peers, run));
    const growth = await measureGrowth(folder, run);
    const boots = await measureAll(bootAndReplayFigures(run));
    const threads = await measureThreads(peers, run);
    const calls = await measureAll(callFigures(run));
    const skipped = found === undefined ? [] : (await found).skipped;
    return { figures: [...streams, ...boots, ...threads, ...calls], growth, skipped };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
