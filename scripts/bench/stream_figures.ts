/**
 * A1-A5: nanoseconds per operation of the whole kernel and of its peers, on the same operations.
 *
 * The stream of a figure is drawn once, by a process of its own, into a temporary file that every subject replays.
 */

import { join } from "node:path";
import type { BenchRun } from "./bench_run.ts";
import { runTask } from "./child.ts";
import type { Sample, StreamTask } from "./child_tasks.ts";
import type { Figure, FigureSubject } from "./figures.ts";
import { sampleNative } from "./native_peers.ts";
import type { Peers } from "./peers.ts";
import { SINGLE_WORKLOADS, type SingleWorkload } from "./single_workloads.ts";

/** CPU time that a peer may take for each of: filling, warming up, the timed operations. Slabtown has no limit. */
const MAX_MS = 700;
const NO_LIMIT_MS = 600_000;
export const OWN_NAME = "slabtown";
export const LOOP_NAME = "loop alone";

function figureOf(workload: SingleWorkload, folder: string, peers: () => Promise<Peers>, run: BenchRun): Figure {
  const { id, title, bar, size, burst, shift, createStream } = workload;
  const { seed, nrOps } = run;
  const nrWarmup = Math.ceil(nrOps / 10);
  const file = createStream === null ? null : join(folder, `${id}.stream`);
  const task = (subject: string, compiled: string | null): StreamTask => ({
    do: "stream",
    id,
    subject,
    seed,
    file,
    nrWarmup,
    nrOps,
    maxMs: subject === OWN_NAME || subject === LOOP_NAME ? NO_LIMIT_MS : MAX_MS,
    compiled,
  });
  return {
    id,
    title,
    unit: "ns",
    bar,
    better: "lower",
    async prepare() {
      const { js, native, compiled } = await peers();
      if (file !== null) await runTask({ do: "draw", id, seed, nrOps: nrOps + nrWarmup, file }, run);
      const inChild = (name: string, role: FigureSubject["role"]): FigureSubject => ({
        name,
        role,
        measure: () => runTask<Sample>(task(name, compiled), run),
      });
      const timing = [String(nrWarmup), String(nrOps), String(MAX_MS), "0"];
      const bytes = shift === 0 ? size : 2 ** (shift + size);
      const args =
        file === null ? ["pairs", String(bytes), String(burst), ...timing] : ["stream", file, String(shift), ...timing];
      const { program } = native;
      return [
        inChild(OWN_NAME, "slabtown"),
        inChild(LOOP_NAME, "loop"),
        ...js.map(({ name }) => inChild(name, "peer")),
        ...native.peers.map(
          (peer): FigureSubject => ({
            name: peer.name,
            role: "peer",
            measure: async () => (program === null ? null : sampleNative(program, peer, args, run)),
          }),
        ),
      ];
    },
  };
}

/** A1-A5. `peers` are looked for when the first figure needs them. */
export const streamFigures = (folder: string, peers: () => Promise<Peers>, run: BenchRun): readonly Figure[] =>
  SINGLE_WORKLOADS.map((workload) => figureOf(workload, folder, peers, run));
