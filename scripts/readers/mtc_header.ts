/**
 * MTC1 headers: what the front of a columnar heap recording promises, checked against the bytes behind it.
 *
 *   0      4        8          8+n
 *   ┌──────┬────────┬──────────┬──────────┬──────────┬───
 *   │"MTC1"│ u32 LE │ JSON     │ column 0 │ column 1 │ …      n = the u32, bytes of JSON
 *   └──────┴────────┴──────────┴──────────┴──────────┴───
 *
 *   JSON: n_ops, n_ids, n_threads, time_unit_ns (unused here), live_at_end, threads, sites,
 *         columns: [{ name, enc: "u8" | "uleb128", count, bytes }], in file order
 *
 * Owns every judgement that needs no column content. Nothing in the JSON is trusted: own properties only, integers
 * where integers belong, and no count may exceed the bytes that carry it (so a header cannot make us allocate more
 * than eight times the file). After this, `start + bytes` of each column lies inside the file.
 *
 * Source: the format of our own recorder.
 */

import type { InputFile } from "./input.ts";
import { InputError, type InputErrorDetails, quoted } from "./input_error.ts";

const MAGIC = "MTC1";
const PREFIX_BYTES = 8;
const MAX_THREADS = 256;

export interface MtcColumn {
  readonly name: string;
  readonly encoding: "u8" | "uleb128";
  /** Entries. */
  readonly count: number;
  /** Where it lies in the file: `[start, start + bytes)`. */
  readonly start: number;
  readonly bytes: number;
}

export interface MtcHeader {
  /** Undefined where the file does not say. */
  readonly name: string | undefined;
  readonly nrOps: number;
  readonly nrIds: number;
  readonly nrThreads: number;
  readonly nrSites: number;
  readonly liveAtEnd: number | undefined;
  readonly columns: ReadonlyMap<string, MtcColumn>;
  /** Bytes behind the last column. */
  readonly nrTrailingBytes: number;
}

type Json = Readonly<Record<string, unknown>>;

/** True if `bytes` begins with `MTC1`. */
export function isMtc(bytes: Uint8Array): boolean {
  return bytes.length >= MAGIC.length && [...MAGIC].every((ch, i) => bytes[i] === ch.charCodeAt(0));
}

/** The checked header. Throws `InputError` with a byte offset. */
export function readMtcHeader(input: InputFile): MtcHeader {
  const { bytes } = input;
  const fail = (what: string, details: InputErrorDetails): InputError => new InputError(input.path, what, details);
  if (!isMtc(bytes)) throw fail("does not begin with MTC1", { byteOffset: 0, expected: "an MTC1 recording" });
  if (bytes.length < PREFIX_BYTES) {
    throw fail("ends inside the prefix", { byteOffset: bytes.length, expected: "8 bytes: MTC1 and a length" });
  }
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(4, true);
  const columnsStart = PREFIX_BYTES + length;
  if (columnsStart > bytes.length) {
    throw fail(`the header is ${length} bytes long, but the file ends after ${bytes.length}`, {
      byteOffset: bytes.length,
      hint: "the file is cut off or damaged",
    });
  }
  const json = parseJson(bytes.subarray(PREFIX_BYTES, columnsStart));
  if (json === undefined) {
    throw fail("the header is not a JSON object", { byteOffset: PREFIX_BYTES, hint: "the file is damaged" });
  }
  const reader = new HeaderReader(input.path, json);
  const nrOps = reader.integer("n_ops", bytes.length);
  const nrIds = reader.integer("n_ids", nrOps);
  const nrThreads = reader.integer("n_threads", MAX_THREADS);
  if (nrThreads === 0) throw fail("n_threads is 0", { byteOffset: PREFIX_BYTES, expected: `1 to ${MAX_THREADS}` });
  const nrNamed = reader.listLength("threads");
  if (nrNamed !== undefined && nrNamed !== nrThreads) {
    const what = `n_threads is ${nrThreads}, but ${nrNamed} threads are listed`;
    throw fail(what, { byteOffset: PREFIX_BYTES });
  }
  const { columns, end } = readColumns(reader, columnsStart, bytes.length);
  return {
    name: reader.name(),
    nrOps,
    nrIds,
    nrThreads,
    nrSites: reader.listLength("sites") ?? 0,
    liveAtEnd: reader.has("live_at_end") ? reader.integer("live_at_end", Number.MAX_SAFE_INTEGER) : undefined,
    columns,
    nrTrailingBytes: bytes.length - end,
  };
}

function readColumns(
  reader: HeaderReader,
  columnsStart: number,
  fileBytes: number,
): { columns: Map<string, MtcColumn>; end: number } {
  const columns = new Map<string, MtcColumn>();
  let end = columnsStart;
  for (const entry of reader.list("columns")) {
    const column = reader.nested(entry, "a column").column(end, fileBytes);
    if (columns.has(column.name)) throw reader.fail(`column ${quoted(column.name)} occurs twice`);
    columns.set(column.name, column);
    end += column.bytes;
  }
  return { columns, end };
}

/** Typed access to one JSON object nobody vouches for. */
class HeaderReader {
  readonly #file: string;
  readonly #json: Json;

  constructor(file: string, json: Json) {
    this.#file = file;
    this.#json = json;
  }

  fail(what: string, expected?: string): InputError {
    return new InputError(this.#file, `header: ${what}`, { byteOffset: PREFIX_BYTES, expected });
  }

  has(key: string): boolean {
    return Object.hasOwn(this.#json, key);
  }

  /** Own properties only: a key of the JSON may be `__proto__`. */
  value(key: string): unknown {
    return this.has(key) ? this.#json[key] : undefined;
  }

  integer(key: string, max: number): number {
    const value = this.value(key);
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0 || value > max) {
      throw this.fail(`${key} is ${describe(value)}`, `an integer from 0 to ${max}`);
    }
    return value;
  }

  list(key: string): readonly unknown[] {
    const value = this.value(key);
    if (!Array.isArray(value)) throw this.fail(`${key} is ${describe(value)}`, "a list");
    return value;
  }

  listLength(key: string): number | undefined {
    return this.has(key) ? this.list(key).length : undefined;
  }

  nested(value: unknown, what: string): HeaderReader {
    if (!isObject(value)) throw this.fail(`${what} is ${describe(value)}`, "an object");
    return new HeaderReader(this.#file, value);
  }

  /** A short printable name, or undefined: a header without one is no error. */
  name(): string | undefined {
    const value = this.value("name");
    return typeof value === "string" && /^[\x21-\x7e]{1,64}$/.test(value) ? value : undefined;
  }

  column(start: number, fileBytes: number): MtcColumn {
    const name = this.value("name");
    const encoding = this.value("enc");
    if (typeof name !== "string" || name === "") throw this.fail(`a column's name is ${describe(name)}`, "a text");
    if (encoding !== "u8" && encoding !== "uleb128") {
      throw this.fail(`the encoding of column ${quoted(name)} is ${describe(encoding)}`, "u8 or uleb128");
    }
    const bytes = this.integer("bytes", Number.MAX_SAFE_INTEGER);
    const count = this.integer("count", bytes);
    if (encoding === "u8" && count !== bytes) {
      throw this.fail(`column ${quoted(name)} has ${count} entries in ${bytes} bytes`, "one byte each");
    }
    if (bytes > fileBytes - start) {
      const what = `column ${quoted(name)} needs ${bytes} bytes from byte ${start} on, but the file ends`;
      throw new InputError(this.#file, what, { byteOffset: fileBytes, hint: "the file is cut off or damaged" });
    }
    return { name, encoding, count, start, bytes };
  }
}

function parseJson(bytes: Uint8Array): Json | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function describe(value: unknown): string {
  if (value === undefined) return "missing";
  if (typeof value === "string") return quoted(value);
  if (typeof value === "number" || typeof value === "boolean" || value === null) return String(value);
  return Array.isArray(value) ? "a list" : "an object";
}
