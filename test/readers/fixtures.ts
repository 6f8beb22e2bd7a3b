/**
 * Reader fixtures: files in memory for the reader tests, and a writer of MTC1.
 *
 * Owns the other direction of the formats, written from their description and not from the readers, so that a
 * misunderstanding shows. Nothing here is used by the program.
 */

import { expect } from "vitest";
import type { HeapRecording, Recording } from "../../kernel/uapi/recording.ts";
import { checkHeapRecording, checkKernelRecording } from "../../scripts/readers/check.ts";
import { checkSyscallRecording } from "../../scripts/readers/check_syscalls.ts";
import type { InputFile } from "../../scripts/readers/input.ts";
import { InputError } from "../../scripts/readers/input_error.ts";

export function textFile(text: string, path = "t.rep"): InputFile {
  return { path, name: "t", bytes: new TextEncoder().encode(text) };
}

export function byteFile(bytes: Uint8Array, path = "t.mtc"): InputFile {
  return { path, name: "t", bytes };
}

/** Runs `read`, which must throw an `InputError`, and returns it. */
export function inputErrorOf(read: () => unknown): InputError {
  try {
    read();
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return error as InputError;
  }
  throw new Error("no InputError was thrown");
}

/** Either an `InputError` or a recording that obeys its rules; anything else fails the test. */
export function expectSoundOrRefused(read: () => Recording): "sound" | "refused" {
  let recording: Recording;
  try {
    recording = read();
  } catch (error) {
    if (error instanceof InputError) return "refused";
    throw error;
  }
  if (recording.kind === "heap") checkHeapRecording(recording);
  else if (recording.kind === "kernel") checkKernelRecording(recording);
  else checkSyscallRecording(recording);
  return "sound";
}

/** The rows of a heap recording as `op thread id size align`, one text each: easy to compare and to read. */
export function heapRows(rec: HeapRecording): string[] {
  checkHeapRecording(rec);
  return Array.from(rec.op, (op, i) => [op, rec.thread[i], rec.id[i], rec.size[i], rec.alignShift[i]].join(" "));
}

/** An operation as the recorder would have seen it. */
export interface MtcOp {
  readonly op: number;
  readonly tid?: number;
  readonly size?: number | bigint;
  readonly ref?: number;
  readonly align?: number;
}

export interface MtcOptions {
  /** Replaces header keys; `undefined` removes one. */
  readonly header?: Readonly<Record<string, unknown>>;
  /** Replaces columns by raw bytes; `undefined` removes one. */
  readonly columns?: Readonly<Record<string, { count: number; bytes: number[]; enc: string } | undefined>>;
  readonly trailing?: number[];
  readonly rawHeader?: string;
}

export function leb128(value: number | bigint): number[] {
  const bytes: number[] = [];
  let rest = BigInt(value);
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest === 0n ? low : low | 0x80);
  } while (rest !== 0n);
  return bytes;
}

/** The bytes of an MTC1 file. */
export function mtcBytes(ops: readonly MtcOp[], options: MtcOptions = {}): Uint8Array {
  const lebColumn = (values: readonly (number | bigint)[]) => ({
    enc: "uleb128",
    count: values.length,
    bytes: values.flatMap(leb128),
  });
  const u8Column = (bytes: number[]) => ({ enc: "u8", count: bytes.length, bytes });
  const nrIds = ops.filter(({ op }) => op !== 2 && op !== 3).length;
  const columns = {
    op: u8Column(ops.map(({ op }) => op)),
    tid: lebColumn(ops.map(({ tid }) => tid ?? 0)),
    size: lebColumn(ops.filter(({ op }) => op !== 3).map(({ size }) => size ?? 0)),
    ref: lebColumn(ops.filter(({ op }) => op === 2 || op === 3).map(({ ref }) => ref ?? 0)),
    align: u8Column(ops.filter(({ op }) => op === 4).map(({ align }) => align ?? 0)),
    dt: lebColumn(ops.map(() => 300)),
    site: lebColumn(Array.from({ length: Math.ceil(nrIds / 16) }, () => 0)),
    ...options.columns,
  };
  const present = Object.entries(columns).flatMap(([name, column]) =>
    column === undefined ? [] : [{ name, ...column }],
  );
  const nrThreads = Math.max(0, ...ops.map(({ tid }) => tid ?? 0)) + 1;
  const header = {
    format: "MTC1",
    name: "fixture",
    n_ops: ops.length,
    n_ids: nrIds,
    n_threads: nrThreads,
    time_unit_ns: 100,
    threads: Array.from({ length: nrThreads }, (_, i) => 100 + i),
    sites: ["a.out+0x10"],
    columns: present.map(({ name, enc, count, bytes }) => ({ name, enc, count, bytes: bytes.length })),
    ...options.header,
  };
  const json = [...new TextEncoder().encode(options.rawHeader ?? JSON.stringify(header))];
  const length = [json.length & 255, (json.length >> 8) & 255, (json.length >> 16) & 255, 0];
  const body = present.flatMap(({ bytes }) => bytes);
  return Uint8Array.from([0x4d, 0x54, 0x43, 0x31, ...length, ...json, ...body, ...(options.trailing ?? [])]);
}
