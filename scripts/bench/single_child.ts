/**
 * One figure in a process of its own: boots, warms up, measures, prints one line of JSON.
 *
 * Entry file of a child process; its only argument is a ChildRequest as JSON. A fresh process for each figure, because
 * what the compiler learnt from one workload changes the code of the next.
 */

import "../v8_settings.ts";
import type { ChildReply, ChildRequest } from "./single_suite.ts";
import { bootForBench, pairSize, SINGLE_WORKLOADS, type SingleWorkload, type Subject } from "./single_workloads.ts";
import type { OpStream } from "./streams.ts";

/** A loop that runs for longer than this at a time is compiled while it runs, and badly. */
const CHUNK = 4_096;

/** Takes the stream, allocates nothing. */
const NONE: Subject = { alloc: (size) => size + 1, free: () => {} };

interface Replay {
  /** Runs about `nrOps` operations; how many. */
  run(nrOps: number): number;
  readonly nrFailed: () => number;
}

function replayStream({ words, sizes, nrSlots, nrFill }: OpStream, subject: Subject): Replay {
  const { alloc, free } = subject;
  const addresses = new Float64Array(nrSlots);
  let next = 0;
  let nrFailed = 0;
  const replayChunk = (from: number, to: number): void => {
    for (let i = from; i < to; i++) {
      const word = words[i] as number;
      const slot = word >>> 1;
      if ((word & 1) === 0) {
        const addr = alloc(sizes[i] as number);
        addresses[slot] = addr;
        if (addr === 0) nrFailed++;
      } else if (addresses[slot] !== 0) {
        free(addresses[slot] as number, sizes[i] as number);
      }
    }
  };
  const run = (nrOps: number): number => {
    const end = Math.min(next + nrOps, words.length);
    const done = end - next;
    for (; next < end; next = Math.min(next + CHUNK, end)) replayChunk(next, Math.min(next + CHUNK, end));
    return done;
  };
  run(nrFill);
  return { run, nrFailed: () => nrFailed };
}

function replayPairs({ id, burst }: SingleWorkload, subject: Subject): Replay {
  const { alloc, free } = subject;
  const size = pairSize(id);
  const addresses = new Float64Array(burst);
  let nrFailed = 0;
  const pairs = (nr: number): void => {
    for (let i = 0; i < nr; i++) {
      const addr = alloc(size);
      if (addr === 0) nrFailed++;
      free(addr, size);
    }
  };
  const bursts = (nr: number): void => {
    for (let i = 0; i < nr; i++) {
      for (let j = 0; j < burst; j++) addresses[j] = alloc(size);
      for (let j = 0; j < burst; j++) free(addresses[j] as number, size);
    }
  };
  return {
    run(nrOps) {
      const perChunk = Math.max(1, Math.floor(CHUNK / (2 * burst)));
      let done = 0;
      while (done < nrOps) {
        if (burst === 1) pairs(perChunk);
        else bursts(perChunk);
        done += 2 * burst * perChunk;
      }
      return done;
    },
    nrFailed: () => nrFailed,
  };
}

function measure(request: ChildRequest): ChildReply {
  const workload = SINGLE_WORKLOADS.find(({ id }) => id === request.id);
  if (workload === undefined) throw new Error(`bench: no workload ${request.id}`);
  const kernel = bootForBench(request.seed);
  const subject = request.subject === "none" ? NONE : workload.createSubject(kernel);
  const nrAll = request.nrWarmup + request.nrOps;
  const stream = workload.createStream?.(kernel, request.seed, nrAll);
  const replay = stream === undefined ? replayPairs(workload, subject) : replayStream(stream, subject);
  replay.run(request.nrWarmup);
  const cpuBefore = process.cpuUsage();
  const start = process.hrtime.bigint();
  const nrOps = replay.run(request.nrOps);
  const wallNs = Number(process.hrtime.bigint() - start);
  const { user, system } = process.cpuUsage(cpuBefore);
  return {
    nsPerOp: wallNs / nrOps,
    cpuNsPerOp: ((user + system) * 1000) / nrOps,
    nrFailed: replay.nrFailed(),
    fault: kernel.check(),
  };
}

process.stdout.write(`${JSON.stringify(measure(JSON.parse(process.argv[2] ?? "{}") as ChildRequest))}\n`);
