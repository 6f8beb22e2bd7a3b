/**
 * The timed loops: a stream or pairs replayed on a subject, in chunks.
 *
 * A *subject* is an allocator under test: the kernel, a peer, or `none`, which takes the stream and allocates nothing
 * (what the loop itself costs; shown beside the others and subtracted nowhere). What a subject hands out is a number,
 * or, where V8's own heap is the allocator, an object.
 *
 * A chunk has at most 4,096 operations: a loop that runs for longer at a time is compiled while it runs, and badly.
 * The clock is read between chunks, which gives the worst one, and an end to subjects that take for ever.
 */

import type { Sample } from "./child_tasks.ts";
import type { OpStream } from "./streams.ts";

export type Block = number | object;

/** `free` is told the size that `alloc` was asked for. 0 is a failed allocation. */
export interface Subject {
  alloc(size: number): Block;
  free(block: Block, size: number): void;
}

export interface Replay {
  /** Runs about `nrOps` operations, or until the stream ends; how many. */
  run(nrOps: number): number;
  /** Allocations that failed so far. */
  nrFailed(): number;
}

export interface Timing {
  readonly nrOps: number;
  readonly nsPerOp: number;
  readonly cpuNsPerOp: number;
  /** Of the worst chunk. */
  readonly worstNsPerOp: number;
}

const CHUNK = 4_096;

/** Takes the stream, allocates nothing. */
export const NO_ALLOCATOR: Subject = { alloc: (size) => size + 1, free: () => {} };

/** Replays `stream`; the operations that fill it are not part of what `run` counts: `fill` does them. */
export function replayStream({ words, sizes, nrSlots }: OpStream, subject: Subject, holdsObjects = false): Replay {
  const { alloc, free } = subject;
  const blocks: Block[] = holdsObjects
    ? new Array<Block>(nrSlots).fill(0)
    : (new Float64Array(nrSlots) as unknown as number[]);
  let next = 0;
  let nrFailed = 0;
  const replayChunk = (from: number, to: number): void => {
    for (let i = from; i < to; i++) {
      const word = words[i] as number;
      const slot = word >>> 1;
      if ((word & 1) === 0) {
        const block = alloc(sizes[i] as number);
        blocks[slot] = block;
        if (block === 0) nrFailed++;
      } else if (blocks[slot] !== 0) {
        free(blocks[slot] as Block, sizes[i] as number);
        if (holdsObjects) blocks[slot] = 0;
      }
    }
  };
  return {
    run(nrOps) {
      const end = Math.min(next + nrOps, words.length);
      const done = end - next;
      replayChunk(next, end);
      next = end;
      return done;
    },
    nrFailed: () => nrFailed,
  };
}

/** `burst` allocations of `size`, then as many frees, again and again. */
export function replayPairs(size: number, burst: number, subject: Subject): Replay {
  const { alloc, free } = subject;
  const blocks = new Array<Block>(burst).fill(0);
  let nrFailed = 0;
  const pairs = (nr: number): void => {
    for (let i = 0; i < nr; i++) {
      const block = alloc(size);
      if (block === 0) nrFailed++;
      free(block, size);
    }
  };
  const bursts = (nr: number): void => {
    for (let i = 0; i < nr; i++) {
      for (let j = 0; j < burst; j++) {
        const block = alloc(size);
        if (block === 0) nrFailed++;
        blocks[j] = block;
      }
      for (let j = 0; j < burst; j++) free(blocks[j] as Block, size);
    }
  };
  return {
    run(nrOps) {
      const nr = Math.max(1, Math.floor(nrOps / (2 * burst)));
      if (burst === 1) pairs(nr);
      else bursts(nr);
      return 2 * burst * nr;
    },
    nrFailed: () => nrFailed,
  };
}

/** CPU time of this process so far, milliseconds. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/**
 * Runs `nrOps` operations of `replay`, or as many as `maxMs` of CPU time allow, and takes the time. The limit is not by
 * the clock: on a busy computer that would cut off warming up, and cold code would be timed.
 */
export function timeReplay(replay: Replay, nrOps: number, maxMs: number): Timing {
  const cpuStart = cpuMs();
  const start = performance.now();
  let [done, last, worst, cpu] = [0, start, 0, cpuStart];
  while (done < nrOps && cpu - cpuStart < maxMs) {
    const nr = replay.run(Math.min(CHUNK, nrOps - done));
    if (nr === 0) break;
    const now = performance.now();
    worst = Math.max(worst, (now - last) / nr);
    cpu = cpuMs();
    last = now;
    done += nr;
  }
  return {
    nrOps: done,
    nsPerOp: ((last - start) * 1e6) / done,
    cpuNsPerOp: ((cpu - cpuStart) * 1e6) / done,
    worstNsPerOp: worst * 1e6,
  };
}

/** What a timed replay says of a figure; `fault`: the invariant that was broken afterwards, or null. */
export function sampleOf(timing: Timing, replay: Replay, fault: string | null): Sample {
  return {
    value: timing.nsPerOp,
    cpu: timing.cpuNsPerOp,
    worst: timing.worstNsPerOp,
    nrOps: timing.nrOps,
    failures: replay.nrFailed(),
    fault,
  };
}
