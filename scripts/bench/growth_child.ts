/**
 * A6: what an operation costs as RAM grows from 64 MiB to 4 GiB.
 *
 *   buddy     page churn of orders 0-5 with half of RAM in use, through allocPages
 *   kmalloc   16-4096 bytes, power law; 80 objects live for each MiB of RAM (20,000 at 256 MiB)
 *   memory    no allocator: the stream of `buddy`, and one read and write of a word at a random place of a table as
 *             large as struct page: the curve of this computer's caches, that nobody gets below
 */

import type { ChildTask, GrowthSubject, Sample } from "./child_tasks.ts";
import { replayStream, type Subject, sampleOf, timeReplay } from "./replay.ts";
import { bootForBench, kmallocSubject, objectChurn, pageChurn, pageSubject } from "./single_workloads.ts";
import { readStream, writeStream } from "./stream_file.ts";

type Draw = Extract<ChildTask, { readonly do: "draw-growth" }>;
type Measure = Extract<ChildTask, { readonly do: "growth" }>;

const MIB = 2 ** 20;
const LIVE_PER_MIB = 80;
const NO_LIMIT_MS = 60_000;
const FRAME_BYTES = 4096;
const WORDS_PER_FRAME = 7;

export function drawGrowth({ subject, ramBytes, seed, nrOps, file }: Draw): void {
  const kernel = bootForBench(seed, ramBytes);
  const draw = subject === "kmalloc" ? objectChurn((ramBytes / MIB) * LIVE_PER_MIB, 16, 4096) : pageChurn(0.5);
  writeStream(file, draw(kernel, seed, nrOps));
}

function memorySubject(ramBytes: number): Subject {
  const nrFrames = ramBytes / FRAME_BYTES;
  const table = new Int32Array(nrFrames * WORDS_PER_FRAME);
  let random = 1;
  const touch = (): number => {
    random = Math.imul(random, 1_664_525) + 1_013_904_223;
    // The high bits are the good ones; nrFrames is a power of two.
    const at = ((random >>> 8) & (nrFrames - 1)) * WORDS_PER_FRAME;
    table[at] = (table[at] as number) + 1;
    return at + 1;
  };
  return { alloc: touch, free: () => void touch() };
}

function createSubject(
  subject: GrowthSubject,
  { ramBytes, seed }: Measure,
): { subject: Subject; check(): string | null } {
  if (subject === "memory") return { subject: memorySubject(ramBytes), check: () => null };
  const kernel = bootForBench(seed, ramBytes);
  const create = subject === "buddy" ? pageSubject : kmallocSubject;
  return { subject: create(kernel), check: () => kernel.check() };
}

export function sampleGrowth(task: Measure): Sample {
  const { subject, check } = createSubject(task.subject, task);
  const stream = readStream(task.file);
  const replay = replayStream(stream, subject);
  timeReplay(replay, stream.nrFill, NO_LIMIT_MS);
  timeReplay(replay, task.nrWarmup, NO_LIMIT_MS);
  const timing = timeReplay(replay, task.nrOps, NO_LIMIT_MS);
  return sampleOf(timing, replay, check());
}
