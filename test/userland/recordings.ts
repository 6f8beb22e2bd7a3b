/**
 * Heap recordings for tests: made up by hand or at random, and those of the project's own samples.
 */
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
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
import { readRecording } from "../../scripts/readers/detect.ts";
import { readInput } from "../../scripts/readers/input.ts";

export interface Row {
  readonly op: number;
  readonly id: number;
  readonly size?: number;
  readonly thread?: number;
  readonly alignShift?: number;
}

/** A recording of `rows`. */
export function recordingOf(rows: readonly Row[], nrThreads = 1): HeapRecording {
  return {
    kind: "heap",
    name: "made up",
    nrOps: rows.length,
    nrIds: Math.max(0, ...rows.map((row) => row.id + 1)),
    nrThreads,
    op: Uint8Array.from(rows, (row) => row.op),
    thread: Uint8Array.from(rows, (row) => row.thread ?? 0),
    id: Int32Array.from(rows, (row) => row.id),
    size: Float64Array.from(rows, (row) => row.size ?? 0),
    alignShift: Uint8Array.from(rows, (row) => row.alignShift ?? 0),
    warnings: [],
  };
}

/** A recording of `nrOps` random operations of `nrThreads` threads; the same for the same arguments. */
export function randomRecording(nrOps: number, nrThreads: number, seed: number): HeapRecording {
  let state = seed;
  const random = (n: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  const rows: Row[] = [];
  const live: number[] = [];
  let nrIds = 0;
  let thread = 0;
  while (rows.length < nrOps) {
    if (random(8) === 0) thread = random(nrThreads);
    const size = random(40) === 0 ? random(100_000) : random(600);
    const what = random(20);
    if (live.length === 0 || what < 9) {
      const op = [HEAP_MALLOC, HEAP_MALLOC, HEAP_CALLOC, HEAP_MEMALIGN][random(4)] as number;
      rows.push({ op, id: nrIds, size, thread, alignShift: op === HEAP_MEMALIGN ? random(8) : 0 });
      live.push(nrIds++);
      continue;
    }
    const at = random(live.length);
    const id = live[at] as number;
    if (what < 17) {
      rows.push({ op: HEAP_FREE, id, thread });
      live.splice(at, 1);
    } else if (what < 19) rows.push({ op: HEAP_REALLOC, id, size, thread });
    else
      rows.push({
        op: random(2) === 0 ? HEAP_WRITE : HEAP_FREE,
        id: random(2) === 0 ? id : HEAP_NULL_ID,
        size,
        thread,
      });
    const last = rows.at(-1) as Row;
    if (last.op === HEAP_WRITE && last.id === HEAP_NULL_ID) rows.pop();
    if (last.op === HEAP_FREE && last.id === id && live[at] === id) live.splice(at, 1);
  }
  return recordingOf(rows, nrThreads);
}

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

/** Heap recordings shipped with the project, and those of the development set where it is present. */
export function recordingFiles(ending: string): string[] {
  const folders = [join(ROOT, "scripts", "samples"), join(ROOT, "..", "shared", "traces", "malloc")];
  return folders
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => join(folder, name)))
    .filter((path) => path.endsWith(ending))
    .sort();
}

export async function readHeapRecording(path: string): Promise<HeapRecording> {
  const recording = readRecording(await readInput(path));
  if (recording.kind !== "heap") throw new Error(`${path} is no heap recording`);
  return recording;
}
