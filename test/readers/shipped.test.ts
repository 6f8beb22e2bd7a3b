/**
 * Shipped recordings: what the readers make of real ones equals what is known about them.
 *
 * Goal: counts and peaks of the table that came with the recordings, found again from the columns alone.
 * Method: the project's own samples always; the whole set where it lies beside the checkout, else skipped.
 */

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import {
  HEAP_FREE,
  HEAP_REALLOC,
  type HeapRecording,
  type KernelRecording,
  KMEM_IN_SOFTIRQ,
} from "../../kernel/uapi/recording.ts";
import { checkHeapRecording, checkKernelRecording } from "../../scripts/readers/check.ts";
import { checkSyscallRecording } from "../../scripts/readers/check_syscalls.ts";
import { readRecording } from "../../scripts/readers/detect.ts";
import { readInput } from "../../scripts/readers/input.ts";

const SAMPLES = fileURLToPath(new URL("../../scripts/samples/", import.meta.url));
const TRACES = fileURLToPath(new URL("../../../shared/traces/", import.meta.url));

/** name, operations, allocations, peak live bytes, threads, frees by another thread than the allocating one. */
type HeapFacts = readonly [string, number, number, number, number, number];

const SAMPLE_HEAPS: readonly HeapFacts[] = [
  ["ffmpeg", 98_488, 48_900, 6_780_383, 3, 4_356],
  ["tar", 37_823, 18_602, 467_764, 1, 0],
  ["redis", 2_106_905, 1_047_126, 18_181_292, 3, 228_482],
];
const OTHER_HEAPS: readonly HeapFacts[] = [
  ["bash", 5_000_000, 2_497_312, 685_649, 1, 0],
  ["cc1-mimalloc", 2_000_000, 984_299, 5_551_179, 1, 0],
  ["gawk", 404_360, 200_542, 7_876_853, 1, 0],
  ["git-gc", 1_500_000, 755_563, 41_849_793, 3, 0],
  ["git-log", 1_000_000, 497_494, 44_592_745, 1, 0],
  ["perl", 334_885, 167_921, 4_449_068, 1, 0],
  ["php", 587_508, 211_781, 9_946_163, 1, 0],
  ["python-json", 682_195, 332_401, 7_305_685, 1, 0],
  ["python-pymalloc", 219_914, 101_673, 10_132_725, 1, 0],
  ["rocksdb", 2_000_000, 1_002_993, 5_587_522, 41, 24_480],
  ["sqlite3", 302_151, 150_852, 4_302_483, 1, 0],
  ["vim", 450_121, 253_907, 7_208_623, 1, 0],
];

async function readHeap(path: string): Promise<HeapRecording> {
  const recording = readRecording(await readInput(path));
  if (recording.kind !== "heap") throw new Error(`${path} is no heap recording`);
  checkHeapRecording(recording);
  return recording;
}

async function readKernel(path: string): Promise<KernelRecording> {
  const recording = readRecording(await readInput(path));
  if (recording.kind !== "kernel") throw new Error(`${path} is no kernel recording`);
  checkKernelRecording(recording);
  return recording;
}

/** Replays the columns over a table of sizes and owners. */
function measure(rec: HeapRecording): { nrAllocs: number; peakBytes: number; nrCrossFrees: number } {
  const sizes = new Float64Array(rec.nrIds);
  const owner = new Uint8Array(rec.nrIds);
  let nrAllocs = 0;
  let liveBytes = 0;
  let peakBytes = 0;
  let nrCrossFrees = 0;
  for (let i = 0; i < rec.nrOps; i++) {
    const op = rec.op[i];
    const id = rec.id[i] as number;
    liveBytes += (rec.size[i] as number) - (sizes[id] as number);
    sizes[id] = rec.size[i] as number;
    if (op === HEAP_FREE) {
      if (owner[id] !== rec.thread[i]) nrCrossFrees++;
    } else if (op !== HEAP_REALLOC) {
      nrAllocs++;
      owner[id] = rec.thread[i] as number;
    }
    if (liveBytes > peakBytes) peakBytes = liveBytes;
  }
  return { nrAllocs, peakBytes, nrCrossFrees };
}

async function expectHeapFacts(folder: string, facts: HeapFacts): Promise<void> {
  const [name, nrOps, nrIds, peakBytes, nrThreads, nrCrossFrees] = facts;
  const recording = await readHeap(`${folder}${name}.mtc.gz`);
  expect(recording).toMatchObject({ name, nrOps, nrIds, nrThreads, warnings: [] });
  expect(measure(recording)).toEqual({ nrAllocs: nrIds, peakBytes, nrCrossFrees });
}

describe("samples of the project", () => {
  test.each(SAMPLE_HEAPS)("%s.mtc.gz: operations, allocations, peak, threads, cross-thread frees", async (...facts) => {
    await expectHeapFacts(SAMPLES, facts);
  });

  test.each([
    ["redis", 50_499, 24_631],
    ["python-json", 40_219, 19_812],
    ["sqlite3", 30_360, 15_166],
    ["tar", 32_542, 14_786],
  ])("%s.rep.gz: its header counts right, and all is freed", async (name, nrOps, nrIds) => {
    const recording = await readHeap(`${SAMPLES}${name}.rep.gz`);
    expect(recording).toMatchObject({ name, nrOps, nrIds, nrThreads: 1, warnings: [] });
  });

  test("gcc-compile.ftrace.gz: one CPU, few implied and unknown frees", async () => {
    const recording = await readKernel(`${SAMPLES}gcc-compile.ftrace.gz`);
    expect(recording).toMatchObject({
      name: "gcc-compile",
      nrCpus: 1,
      nrImpliedFrees: 75,
      nrUnknownFrees: 13,
      warnings: [],
    });
    // 17,363 lines − 401 kfree(NULL) − 13 unknown + 75 implied
    expect(recording.nrEvents).toBe(17_363 - 401 - 13 + 75);
    expect(recording.preludeSlot).toHaveLength(109 + 98);
  });

  test("redis-net.ftrace.gz: two CPUs, a fifth of the events in softirq context", async () => {
    const recording = await readKernel(`${SAMPLES}redis-net.ftrace.gz`);
    expect(recording).toMatchObject({ nrCpus: 2, nrImpliedFrees: 11_356, nrUnknownFrees: 13, warnings: [] });
    expect(recording.nrEvents).toBe(164_664 - 1_879 - 13 + 11_356);
    const nrSoftirq = recording.context.reduce((nr, context) => nr + (context === KMEM_IN_SOFTIRQ ? 1 : 0), 0);
    // 33,984 lines, less kfree(NULL) and unknown frees, more implied ones: counted by another program
    expect(nrSoftirq).toBe(33_768);
  });
});

const isHere = existsSync(TRACES);
if (!isHere) console.warn("skipped: needs recordings");

describe.skipIf(!isHere)("the whole set (skipped: needs recordings)", () => {
  test.each(OTHER_HEAPS)(
    "%s.mtc.gz: operations, allocations, peak, threads, cross-thread frees",
    async (...facts) => {
      await expectHeapFacts(`${TRACES}malloc/`, facts);
    },
    20_000,
  );

  test.each(["gawk", "perl", "vim"])("%s.rep.gz is read without a warning", async (name) => {
    expect((await readHeap(`${TRACES}malloc/${name}.rep.gz`)).warnings).toEqual([]);
  });

  test.each([
    ["shell-forks", 104_184 - 11_192 - 4 + 5_822, 5_822, 4],
    ["tar-include", 98_230 - 8_668 - 19 + 367, 367, 19],
  ])("%s.ftrace.gz: rows, implied and unknown frees", async (name, nrEvents, nrImpliedFrees, nrUnknownFrees) => {
    const recording = await readKernel(`${TRACES}kernel/${name}.ftrace.gz`);
    expect(recording).toMatchObject({ name, nrEvents, nrImpliedFrees, nrUnknownFrees });
  });

  test.each([
    ["awk-words", 546, 1],
    ["bash-forks", 1602, 82],
    ["gcc-O2", 276, 5],
    ["perl-hash", 187, 1],
    ["qsort-realloc", 23, 1],
    ["sort-parallel", 28, 2],
    ["sqlite-bulk", 346, 1],
    ["xz-compress", 48, 3],
  ])("%s.strace.gz: rows and tasks, nothing implied, no warning", async (name, nrEvents, nrTasks) => {
    const recording = readRecording(await readInput(`${TRACES}syscall/${name}.strace.gz`));
    if (recording.kind !== "syscall") throw new Error("no recording of system calls");
    checkSyscallRecording(recording);
    expect(recording).toMatchObject({ name, nrEvents, nrImplied: 0, warnings: [] });
    expect(recording.tasks.length).toBe(nrTasks);
  });
});
