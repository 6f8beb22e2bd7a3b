/**
 * MTC1: columnar binary recordings of every malloc, calloc, realloc, free and memalign of a program.
 *
 * Owns the columns; mtc_header.ts owns what stands before them.
 *
 *   column     one entry per                     meaning
 *   op         operation                         0 malloc 1 calloc 2 realloc 3 free 4 memalign
 *   tid        operation                         index of the thread; may be missing if there is one thread
 *   size       operation other than free         bytes requested (calloc: the product)
 *   ref        realloc, free                     which allocation, counted backwards: next_id − 1 − id
 *   align      memalign                          log2 of the alignment; may be missing if there is none
 *   dt         operation, if timed               passed over, but must be sound; may be missing
 *   site       allocation with id % 16 = 0       passed over, but must be sound; may be missing
 *
 *   Integers are unsigned LEB128, or one byte each where the header says u8.
 *
 * Ids are implicit: allocation k of the file has id k, and a realloc keeps its block's id. Counting `ref` backwards
 * makes most of them small, since most blocks die young: that is where the format's compactness comes from.
 *
 * A binary file is right or damaged, so the first contradiction is an `InputError` with its byte offset. Under
 * `lenient` the ones that still leave a recording (bytes left over, a free or realloc of a block that is free) become
 * warnings, and the operation is dropped.
 *
 * Columns are decoded one after the other into typed arrays, then merged in one pass: 5,000,000 operations in about
 * 0.25 s (2025, Node 20).
 */

import {
  HEAP_CALLOC,
  HEAP_FREE,
  HEAP_MALLOC,
  HEAP_MEMALIGN,
  HEAP_REALLOC,
  type HeapRecording,
} from "../../kernel/uapi/recording.ts";
import { MAX_ALIGN_SHIFT } from "./check.ts";
import type { InputFile } from "./input.ts";
import { InputError, quoted } from "./input_error.ts";
import { decodeLeb128, LEB_OVERFLOW, lebOffset } from "./leb128.ts";
import { type MtcColumn, type MtcHeader, readMtcHeader } from "./mtc_header.ts";
import type { TextReaderOptions } from "./rep.ts";

/** Call sites are sampled: one allocation in this many. */
const SITE_SAMPLING = 16;
/** On disk as in kernel/uapi/recording.ts: MTC1's operation numbers are the HEAP_* constants. */
const LAST_OP = HEAP_MEMALIGN;
const MAX_WARNINGS = 5;

type Values = Uint8Array | Float64Array;

interface Columns {
  readonly op: Uint8Array;
  readonly tid: Values | undefined;
  readonly size: Values;
  readonly ref: Values;
  readonly align: Values;
}

/** The heap recording in an MTC1 file. Throws `InputError`. O(bytes). */
export function readMtc(input: InputFile, options: TextReaderOptions): HeapRecording {
  const header = readMtcHeader(input);
  const warnings: string[] = [];
  if (header.nrTrailingBytes > 0) {
    const what = `${header.nrTrailingBytes} bytes are left over behind the last column`;
    const byteOffset = input.bytes.length - header.nrTrailingBytes;
    if (!options.lenient) throw new InputError(input.path, what, { byteOffset, hint: "--lenient ignores them" });
    warnings.push(`byte ${byteOffset}: ${what}`);
  }
  if (header.nrOps === 0) throw new InputError(input.path, "holds no operation");
  const columns = decodeColumns(input, header);
  return merge(input, header, columns, options.lenient, warnings);
}

function decodeColumns(input: InputFile, header: MtcHeader): Columns {
  const nrOps = header.nrOps;
  const opColumn = header.columns.get("op");
  if (opColumn === undefined || opColumn.encoding !== "u8") {
    throw new InputError(input.path, "header: no column op of encoding u8", { byteOffset: 8 });
  }
  expectCount(input, opColumn, nrOps);
  const op = input.bytes.subarray(opColumn.start, opColumn.start + nrOps);
  const counts = countOps(input, op, opColumn.start);
  const nrFrees = counts[HEAP_FREE] ?? 0;
  const nrReallocs = counts[HEAP_REALLOC] ?? 0;
  const nrAllocs = nrOps - nrFrees - nrReallocs;
  if (nrAllocs !== header.nrIds) {
    const what = `header: n_ids is ${header.nrIds}, but ${nrAllocs} operations allocate`;
    throw new InputError(input.path, what, { byteOffset: 8 });
  }
  const site = decode(input, header, "site", Math.ceil(nrAllocs / SITE_SAMPLING), true);
  if (site !== undefined) checkBelow(input, header, "site", site, header.nrSites);
  decode(input, header, "dt", nrOps, true);
  const tid = decode(input, header, "tid", nrOps, header.nrThreads === 1);
  if (tid !== undefined) checkBelow(input, header, "tid", tid, header.nrThreads);
  const align = decode(input, header, "align", counts[HEAP_MEMALIGN] ?? 0, false);
  checkBelow(input, header, "align", align, MAX_ALIGN_SHIFT + 1);
  return {
    op,
    tid,
    size: decode(input, header, "size", nrOps - nrFrees, false),
    ref: decode(input, header, "ref", nrFrees + nrReallocs, false),
    align,
  };
}

function countOps(input: InputFile, op: Uint8Array, start: number): readonly number[] {
  const counts = [0, 0, 0, 0, 0];
  for (let i = 0; i < op.length; i++) {
    const kind = op[i] as number;
    if (kind > LAST_OP) {
      throw new InputError(input.path, `operation ${i} is of kind ${kind}`, {
        byteOffset: start + i,
        expected: `0 to ${LAST_OP}`,
      });
    }
    counts[kind] = (counts[kind] as number) + 1;
  }
  return counts;
}

function decode(input: InputFile, header: MtcHeader, name: string, count: number, optional: false): Values;
function decode(
  input: InputFile,
  header: MtcHeader,
  name: string,
  count: number,
  optional: boolean,
): Values | undefined;
function decode(
  input: InputFile,
  header: MtcHeader,
  name: string,
  count: number,
  optional: boolean,
): Values | undefined {
  const column = header.columns.get(name);
  if (column === undefined) {
    if (optional) return undefined;
    if (count === 0) return new Uint8Array(0);
    throw new InputError(input.path, `header: column ${quoted(name)} is missing`, { byteOffset: 8 });
  }
  expectCount(input, column, count);
  const end = column.start + column.bytes;
  if (column.encoding === "u8") return input.bytes.subarray(column.start, end);
  const values = new Float64Array(count);
  const stop = decodeLeb128(input.bytes, column.start, end, values);
  if (stop !== end) {
    const reason =
      stop === LEB_OVERFLOW ? "holds an integer longer than 64 bits" : `does not hold ${count} integers exactly`;
    throw new InputError(input.path, `column ${quoted(name)} ${reason}`, {
      byteOffset: stop < 0 ? column.start : stop,
      expected: `${count} unsigned LEB128 integers in ${column.bytes} bytes`,
    });
  }
  return values;
}

function expectCount(input: InputFile, column: MtcColumn, count: number): void {
  if (column.count === count) return;
  throw new InputError(input.path, `header: column ${quoted(column.name)} has ${column.count} entries`, {
    byteOffset: 8,
    expected: `${count}, to fit the operations`,
  });
}

function checkBelow(input: InputFile, header: MtcHeader, name: string, values: Values, limit: number): void {
  for (let i = 0; i < values.length; i++) {
    if ((values[i] as number) >= limit) {
      throw new InputError(input.path, `entry ${i} of column ${quoted(name)} is ${values[i]}`, {
        byteOffset: offsetOf(input, header, name, i),
        expected: limit === 0 ? "an empty column" : `0 to ${limit - 1}`,
      });
    }
  }
}

/** Where entry `index` of a column lies in the file. For messages. */
function offsetOf(input: InputFile, header: MtcHeader, name: string, index: number): number {
  const column = header.columns.get(name);
  if (column === undefined) return 0;
  return column.encoding === "u8" ? column.start + index : lebOffset(input.bytes, column.start, index);
}

/** One pass over the operations, taking the next entry of each column as the operation needs it. */
function merge(
  input: InputFile,
  header: MtcHeader,
  columns: Columns,
  lenient: boolean,
  warnings: string[],
): HeapRecording {
  const { nrOps, nrIds } = header;
  const out = {
    op: new Uint8Array(nrOps),
    thread: new Uint8Array(nrOps),
    id: new Int32Array(nrOps),
    size: new Float64Array(nrOps),
    alignShift: new Uint8Array(nrOps),
  };
  const live = new Uint8Array(nrIds);
  let row = 0;
  let nextId = 0;
  let nextSize = 0;
  let nextRef = 0;
  let nextAlign = 0;
  for (let i = 0; i < nrOps; i++) {
    const op = columns.op[i] as number;
    const size = op === HEAP_FREE ? 0 : (columns.size[nextSize++] as number);
    const shift = op === HEAP_MEMALIGN ? (columns.align[nextAlign++] as number) : 0;
    let id = nextId;
    if (op === HEAP_MALLOC || op === HEAP_CALLOC || op === HEAP_MEMALIGN) {
      live[nextId++] = 1;
    } else {
      id = nextId - 1 - (columns.ref[nextRef++] as number);
      if (id < 0 || live[id] === 0) {
        if (lenient && warnings.length >= MAX_WARNINGS) continue;
        const what = `operation ${i} ${op === HEAP_FREE ? "frees" : "reallocates"} ${describeDead(id)}`;
        const byteOffset = offsetOf(input, header, "ref", nextRef - 1);
        if (!lenient) throw new InputError(input.path, what, { byteOffset, hint: "--lenient drops such operations" });
        warnings.push(`byte ${byteOffset}: ${what}: dropped`);
        continue;
      }
      if (op === HEAP_FREE) live[id] = 0;
    }
    out.op[row] = op;
    out.thread[row] = columns.tid === undefined ? 0 : (columns.tid[i] as number);
    out.id[row] = id;
    out.size[row] = size;
    out.alignShift[row] = shift;
    row++;
  }
  if (row === 0) throw new InputError(input.path, "holds no operation that can be performed");
  if (row < nrOps) warnings.push(`${nrOps - row} operations dropped`);
  compareLive(header, live, warnings);
  const name = header.name ?? input.name;
  const shape = { kind: "heap", name, nrOps: row, nrIds, nrThreads: header.nrThreads, warnings } as const;
  if (row === nrOps) return { ...shape, ...out };
  const { op, thread, id, size, alignShift } = out;
  return {
    ...shape,
    op: op.slice(0, row),
    thread: thread.slice(0, row),
    id: id.slice(0, row),
    size: size.slice(0, row),
    alignShift: alignShift.slice(0, row),
  };
}

function describeDead(id: number): string {
  return id < 0 ? "an allocation before the first" : `allocation ${id}, which is free`;
}

function compareLive(header: MtcHeader, live: Uint8Array, warnings: string[]): void {
  let nrLive = 0;
  for (let i = 0; i < live.length; i++) nrLive += live[i] as number;
  if (header.liveAtEnd !== undefined && header.liveAtEnd !== nrLive) {
    warnings.push(`the header announces ${header.liveAtEnd} live blocks at the end, the operations leave ${nrLive}`);
  }
}
