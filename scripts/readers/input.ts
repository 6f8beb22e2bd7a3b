/**
 * Input files: bytes from a path or from standard input, decompressed.
 *
 * Owns the way from what the user typed to a `Uint8Array`, and every complaint on it: missing, unreadable, a
 * directory, empty, cut off, too large. What the bytes mean is detect.ts's business.
 *
 * Whether a file is gzip is decided by its first two bytes, never by its name:
 *
 *   0     2        10
 *   ┌─────┬────────┬───────────────┬───────┬────────┐
 *   │1f 8b│ header │ deflate data  │ crc32 │ length │   one member; several may follow one another
 *   └─────┴────────┴───────────────┴───────┴────────┘
 *
 * A gzip file of 1 MiB can hold 1 GiB of zeros, so the decompressed size is limited, and inflating stops at the limit.
 * A file that never ends (a device, a pipe) is held to the same limit.
 *
 * Source: RFC 1952 (gzip).
 */

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { gunzipSync } from "node:zlib";
import { InputError, printable } from "./input_error.ts";

/** A file of the user's, in memory. */
export interface InputFile {
  /** What messages call it: the path as given, `<stdin>` for standard input. */
  readonly path: string;
  /** Short name: the base name without `.gz` and the format's ending, as in `redis`. */
  readonly name: string;
  /** The content, decompressed. */
  readonly bytes: Uint8Array;
}

export interface ReadInputOptions {
  /** Limit on the size before and after decompression; 1 GiB by default. */
  readonly maxBytes?: number | undefined;
  /** Where `-` reads from; the process's standard input by default. */
  readonly stdin?: AsyncIterable<Uint8Array | string> | undefined;
}

const MAX_BYTES = 1024 * 1024 * 1024;
const STDIN_LABEL = "<stdin>";
const FORMAT_ENDINGS = /(\.(rep|mtc|ftrace|ltrace|strace|trace|txt|log))+$/i;
const INFLATE_CHUNK_BYTES = 1024 * 1024;

/**
 * The content of the file at `path`, or of standard input if it is `-`.
 *
 * Throws `InputError` when there is nothing usable there.
 */
export async function readInput(path: string, options: ReadInputOptions = {}): Promise<InputFile> {
  const maxBytes = options.maxBytes ?? MAX_BYTES;
  const label = path === "-" ? STDIN_LABEL : path;
  const source = path === "-" ? (options.stdin ?? process.stdin) : await openFile(path);
  const raw = await readAll(label, source, maxBytes);
  if (raw.length === 0) {
    throw new InputError(label, "the file is empty", {
      hint: path === "-" ? "nothing arrived on standard input" : undefined,
    });
  }
  const bytes = isGzip(raw) ? inflate(label, raw, maxBytes) : raw;
  return { path: label, name: shortName(path), bytes };
}

/** A file in memory, for content that comes from somewhere else than a path. Decompresses as `readInput()` does. */
export function inputFromBytes(path: string, content: Uint8Array | string, maxBytes = MAX_BYTES): InputFile {
  const raw = typeof content === "string" ? new TextEncoder().encode(content) : content;
  if (raw.length === 0) throw new InputError(path, "the file is empty");
  return { path, name: shortName(path), bytes: isGzip(raw) ? inflate(path, raw, maxBytes) : raw };
}

/** True if `bytes` begins as a gzip member does. */
export function isGzip(bytes: Uint8Array): boolean {
  return bytes.length >= 2 && bytes[0] === 0x1f && bytes[1] === 0x8b;
}

/** `/tmp/redis.mtc.gz` → `redis`. A name that is nothing but endings stays as it is. */
function shortName(path: string): string {
  if (path === "-" || path === STDIN_LABEL) return "stdin";
  const base = printable(basename(path));
  const short = base.replace(/\.gz$/i, "").replace(FORMAT_ENDINGS, "");
  return short === "" ? base : short;
}

async function openFile(path: string): Promise<AsyncIterable<Uint8Array | string>> {
  if (path === "") throw new InputError('""', "the file name is empty");
  if (path.includes("\0")) throw new InputError(printable(path), "the file name holds a NUL byte");
  try {
    const info = await stat(path);
    if (info.isDirectory()) {
      throw new InputError(path, "is a directory", { expected: "a file", hint: "name one recording inside it" });
    }
  } catch (error) {
    throw asInputError(path, error);
  }
  return createReadStream(path, { highWaterMark: INFLATE_CHUNK_BYTES });
}

async function readAll(
  label: string,
  source: AsyncIterable<Uint8Array | string>,
  maxBytes: number,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let nrBytes = 0;
  try {
    for await (const chunk of source) {
      const bytes = typeof chunk === "string" ? Buffer.from(chunk, "utf8") : chunk;
      nrBytes += bytes.length;
      if (nrBytes > maxBytes) throw tooLarge(label, maxBytes, "it");
      chunks.push(bytes);
    }
  } catch (error) {
    throw asInputError(label, error);
  }
  const only = chunks[0];
  return chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks, nrBytes);
}

function inflate(label: string, raw: Uint8Array, maxBytes: number): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = gunzipSync(raw, { maxOutputLength: maxBytes, chunkSize: INFLATE_CHUNK_BYTES });
  } catch (error) {
    if (errorCode(error) === "ERR_BUFFER_TOO_LARGE") throw tooLarge(label, maxBytes, "decompressed, it");
    const reason = error instanceof Error ? error.message : String(error);
    const isCut = errorCode(error) === "Z_BUF_ERROR";
    throw new InputError(label, isCut ? "the gzip data ends too early" : `the gzip data is damaged: ${reason}`, {
      hint: isCut ? "the file is cut off; copy or download it again" : "`gzip -t` on the file should complain as well",
    });
  }
  if (bytes.length === 0) throw new InputError(label, "the file is empty once decompressed");
  return bytes;
}

function tooLarge(label: string, maxBytes: number, subject: string): InputError {
  return new InputError(label, `${subject} is larger than ${maxBytes} bytes, the limit`, {
    hint: "a shorter recording shows the same behaviour: cut it with `head`",
  });
}

const SYSTEM_ERRORS: ReadonlyMap<string, string> = new Map([
  ["ENOENT", "no such file"],
  ["EACCES", "permission denied"],
  ["EPERM", "permission denied"],
  ["EISDIR", "is a directory"],
  ["ENOTDIR", "no such file: part of the path is not a directory"],
  ["ELOOP", "too many symbolic links"],
  ["ENAMETOOLONG", "the file name is too long"],
]);

function asInputError(label: string, error: unknown): InputError {
  if (error instanceof InputError) return error;
  const code = errorCode(error);
  const known = SYSTEM_ERRORS.get(code);
  const reason = error instanceof Error ? error.message : String(error);
  return new InputError(printable(label), known ?? `cannot be read: ${reason}`);
}

function errorCode(error: unknown): string {
  if (typeof error !== "object" || error === null || !("code" in error)) return "";
  return String(error.code);
}
