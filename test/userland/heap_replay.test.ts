/**
 * Goal: a replay performs what was recorded, thread by thread and in order, notices damage, and ends tidily.
 * Method: recordings made by hand and at random, in a fake process with threads and pipes; every system call of the
 * fake says which thread made it. Then all recordings that are at hand, verified byte stamps on; their utilisation
 * (peak of live bytes requested / peak of memory got from the kernel) has a floor.
 */
import { describe, expect, it } from "vitest";
import { USER_HEAP_BASE } from "../../kernel/params.ts";
import { EMFILE } from "../../kernel/uapi/errno.ts";
import type { ProgramObserver } from "../../kernel/uapi/program.ts";
import {
  HEAP_CALLOC,
  HEAP_FREE,
  HEAP_MALLOC,
  HEAP_MEMALIGN,
  HEAP_NULL_ID,
  HEAP_REALLOC,
  HEAP_WRITE,
  type HeapRecording,
} from "../../kernel/uapi/recording.ts";
import { SYS_clone, SYS_pipe2 } from "../../kernel/uapi/syscall.ts";
import {
  type HeapReplayOptions,
  type HeapReplaySummary,
  heapReplayProgram,
  REPLAY_CORRUPTION,
  REPLAY_OK,
} from "../../userland/heap_replay.ts";
import { firstUnitOf, UNIT_BYTES } from "../../userland/umalloc_layout.ts";
import { createFakeProcess, type FakeOptions, type FakeProcess } from "../support/fake_env.ts";
import { randomRecording, readHeapRecording, recordingFiles, recordingOf } from "./recordings.ts";

interface Replayed {
  readonly status: number;
  readonly summary: HeapReplaySummary;
  readonly process: FakeProcess;
}

function replay(recording: HeapRecording, options: HeapReplayOptions = {}, fake: FakeOptions = {}): Replayed {
  const process = createFakeProcess({ limitBytes: 128 * 1024 * 1024, ...fake });
  let summary: HeapReplaySummary | undefined;
  const status = process.run(heapReplayProgram(recording, { ...options, onEnd: (s) => (summary = s) }));
  if (summary === undefined) throw new Error("the replay did not end");
  return { status, summary, process };
}

describe("replay of one thread", () => {
  const everyKind = recordingOf([
    { op: HEAP_MALLOC, id: 0, size: 100 },
    { op: HEAP_CALLOC, id: 1, size: 5000 },
    { op: HEAP_MEMALIGN, id: 2, size: 300, alignShift: 8 },
    { op: HEAP_REALLOC, id: 3, size: 70 },
    { op: HEAP_REALLOC, id: 0, size: 90_000 },
    { op: HEAP_WRITE, id: 0, size: 40 },
    { op: HEAP_REALLOC, id: 0, size: 0 },
    { op: HEAP_FREE, id: HEAP_NULL_ID },
    { op: HEAP_FREE, id: 0 },
    { op: HEAP_FREE, id: 2 },
  ]);

  it("performs every kind of operation and frees what the recording left", () => {
    for (const touch of ["none", "first", "all"] as const) {
      const { status, summary } = replay(everyKind, { touch, verify: true });
      expect(status).toBe(REPLAY_OK);
      expect(summary).toMatchObject({ nrOps: 10, nrFailed: 0, nrSkipped: 0, nrCorrupt: 0, nrThreads: 1, broken: null });
      expect(summary.peakLiveBytes).toBe(90_000 + 5000 + 300 + 70);
      expect(summary.stats.nrUsed).toBeGreaterThanOrEqual(2);
    }
  });

  it("tells the observer of each operation, with the code of the recording", () => {
    const seen: number[] = [];
    const observer: ProgramObserver = {
      operation(kind, cycles, failed) {
        expect(cycles).toBeGreaterThanOrEqual(0);
        expect(failed).toBe(false);
        seen.push(kind);
      },
    };
    replay(everyKind, {}, { observer });
    expect(seen).toEqual([...everyKind.op]);
  });

  it("counts what the heap refuses, and skips operations on what it never got", () => {
    const { status, summary } = replay(
      recordingOf([
        { op: HEAP_MALLOC, id: 0, size: 2 ** 50 },
        { op: HEAP_WRITE, id: 0, size: 8 },
        { op: HEAP_FREE, id: 0 },
        { op: HEAP_MALLOC, id: 1, size: 64 },
        { op: HEAP_REALLOC, id: 1, size: 2 ** 40 },
        { op: HEAP_FREE, id: 1 },
        { op: HEAP_MEMALIGN, id: 2, size: 64, alignShift: 52 },
      ]),
      { verify: true },
    );
    expect(status).toBe(REPLAY_OK);
    expect(summary).toMatchObject({ nrFailed: 3, nrSkipped: 2, nrCorrupt: 0, peakLiveBytes: 64 });
  });

  it("keepLive leaves blocks; without it the memory goes back", () => {
    const rows = Array.from({ length: 50 }, (_, id) => ({ op: HEAP_MALLOC, id, size: 100_000 }));
    const kept = replay(recordingOf(rows), { keepLive: true });
    const freed = replay(recordingOf(rows));
    expect(kept.process.nrMappedPages()).toBeGreaterThan(50 * 24);
    expect(freed.process.nrMappedPages()).toBeLessThan(100);
  });

  it("an empty recording is fine", () => {
    expect(replay(recordingOf([])).status).toBe(REPLAY_OK);
  });

  it("gives the CPU up when its time is up", () => {
    const { status, summary } = replay(randomRecording(3000, 1, 7), { verify: true }, { sliceCalls: 2 });
    expect(status).toBe(REPLAY_OK);
    expect(summary.nrOps).toBe(3000);
  });

  it("a damaged block is noticed: exit status 3", () => {
    const recording = recordingOf([
      { op: HEAP_MALLOC, id: 0, size: 100 },
      { op: HEAP_MALLOC, id: 1, size: 100 },
      { op: HEAP_FREE, id: 1 },
      { op: HEAP_FREE, id: 0 },
    ]);
    for (const offset of [0, 15, 92, 99]) {
      // The heap's first unit is taken by the allocation that lays it out; block 0 is next.
      const victim = USER_HEAP_BASE + (firstUnitOf(0) + 1) * UNIT_BYTES + offset;
      let damage = (): void => {};
      const observer: ProgramObserver = { operation: (kind) => (kind === HEAP_FREE ? damage() : undefined) };
      const process = createFakeProcess({ observer });
      damage = () => {
        process.env.mem.st8(victim, process.env.mem.ld8(victim) ^ 0x10);
        damage = () => {};
      };
      expect(process.run(heapReplayProgram(recording, { verify: true })), `byte ${offset}`).toBe(REPLAY_CORRUPTION);
    }
  });
});

describe("replay of several threads", () => {
  const SEEDS = [1, 2, 3, 4, 5];

  it("each operation is performed by its thread, all in recorded order", () => {
    for (const seed of SEEDS) {
      const recording = randomRecording(2000, 5, seed);
      const { status, summary } = replay(recording, { verify: true }, { sliceCalls: 3 });
      expect(status).toBe(REPLAY_OK);
      expect(summary).toMatchObject({
        nrOps: 2000,
        nrCorrupt: 0,
        broken: null,
        nrThreads: new Set(recording.thread).size,
      });
      expect(summary.nrCrossThread).toBeGreaterThan(100);
      expect(summary.stats.nrMisuses).toBe(0);
    }
  });

  it("threads attach with caches of their own and take them along when they end", () => {
    const { summary } = replay(randomRecording(2000, 5, 9), { verify: true });
    expect(summary.stats.nrThreads).toBe(1);
  });

  it("waits by yielding where there are no pipes", () => {
    const hook = (nr: number): number | undefined => (nr === SYS_pipe2 ? -EMFILE : undefined);
    for (const seed of SEEDS) {
      const { status, summary } = replay(randomRecording(1500, 4, seed), { verify: true }, { hook });
      expect(status).toBe(REPLAY_OK);
      expect(summary.nrOps).toBe(1500);
    }
  });

  it("performs the operations of threads that cannot be started", () => {
    let nrClones = 0;
    const hook = (nr: number): number | undefined => (nr === SYS_clone && ++nrClones % 2 === 0 ? -EMFILE : undefined);
    for (const seed of SEEDS) {
      const { status, summary } = replay(randomRecording(1500, 6, seed), { verify: true }, { hook });
      expect(status).toBe(REPLAY_OK);
      expect(summary.nrOps).toBe(1500);
      expect(summary.nrThreads).toBeLessThan(6);
    }
  });
});

describe("recordings of real programs", () => {
  const paths = recordingFiles(".rep.gz");

  it.skipIf(paths.length === 0)("replay without damage, at 90 % utilisation or more on average", async () => {
    let sum = 0;
    for (const path of paths) {
      const recording = await readHeapRecording(path);
      const { status, summary } = replay(recording, { verify: true });
      expect(status, path).toBe(REPLAY_OK);
      expect(summary, path).toMatchObject({ nrFailed: 0, nrSkipped: 0, nrCorrupt: 0, broken: null });
      sum += summary.peakLiveBytes / summary.stats.peakBytes;
    }
    expect(sum / paths.length).toBeGreaterThanOrEqual(0.9);
  });
});
