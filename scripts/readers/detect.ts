/**
 * Detection: which reader a file is for, judged by its content.
 *
 * Owns the front of scripts/readers/: one call turns an input file into a recording. Names and endings are not asked:
 * people rename, compress and pipe.
 *
 *   first bytes `MTC1`                       mtc.ts
 *   first bytes of another known format      refused, with what it is and what to do about it
 *   control characters                       refused as binary
 *   a line that is a kernel event            ftrace.ts
 *   a line that is a traced heap call        ltrace.ts
 *   four numbers, or lines like `a 0 24`     rep.ts
 *   a line that is a system call             strace.ts
 *   anything else                            refused, with what it looks like
 *
 * Only the first lines are looked at (`SNIFF_LINES`); the readers judge the rest. A damaged file should still reach
 * the reader of its format, whose message has a line number: so one convincing line is enough.
 *
 * Source: the magic numbers are those of file(1).
 */

import type { Recording } from "../../kernel/uapi/recording.ts";
import type { RecordingFormat } from "../recording_words.ts";
import { isFtraceEvent, readFtrace } from "./ftrace.ts";
import { type InputFile, isGzip } from "./input.ts";
import { InputError, quoted } from "./input_error.ts";
import { isLtraceCall, readLtrace } from "./ltrace.ts";
import { readMtc } from "./mtc.ts";
import { isMtc } from "./mtc_header.ts";
import { isRepOperation, readRep, type TextReaderOptions } from "./rep.ts";
import { isStraceCall, readStrace } from "./strace.ts";
import { LineCursor } from "./text_lines.ts";

export interface ReadRecordingOptions {
  /** Go on where a file has more than 1 % of bad lines, or small contradictions. */
  readonly lenient?: boolean | undefined;
  /** Do not judge by content: it is this. */
  readonly format?: RecordingFormat | undefined;
}

const SNIFF_LINES = 200;
const SNIFF_BYTES = 4096;
/** More control characters than one in this many: no text. */
const CONTROL_DIVISOR = 50;
const EXPECTED = "a .rep, MTC1, ftrace, ltrace or strace recording";

/** The recording in `input`, by the reader its content asks for. Throws `InputError`. O(bytes). */
export function readRecording(input: InputFile, options: ReadRecordingOptions = {}): Recording {
  const readerOptions = { lenient: options.lenient ?? false };
  return readAs(options.format ?? detectFormat(input), input, readerOptions);
}

function readAs(format: RecordingFormat, input: InputFile, options: TextReaderOptions): Recording {
  switch (format) {
    case "mtc":
      return readMtc(input, options);
    case "rep":
      return readRep(input, options);
    case "ftrace":
      return readFtrace(input, options);
    case "ltrace":
      return readLtrace(input, options);
    case "strace":
      return readStrace(input, options);
  }
}

/** The format of `input`. Throws `InputError` that says what the file is, where none fits. */
function detectFormat(input: InputFile): RecordingFormat {
  if (isMtc(input.bytes)) return "mtc";
  const binary = nameBinary(input.bytes);
  if (binary !== undefined) {
    throw new InputError(input.path, `is ${binary.what}, no recording`, { expected: EXPECTED, hint: binary.hint });
  }
  return detectText(input);
}

interface KnownBinary {
  /** The first bytes, in Latin-1. */
  readonly magic: string;
  readonly what: string;
  readonly hint?: string;
}

const UNPACK_HINT = "unpack it first: only gzip is read directly";
const KNOWN_BINARIES: readonly KnownBinary[] = [
  { magic: "MTC", what: "an MTC recording of a version we do not know", hint: "this version reads MTC1" },
  { magic: "\x89PNG", what: "a PNG image" },
  { magic: "\xff\xd8\xff", what: "a JPEG image" },
  { magic: "GIF8", what: "a GIF image" },
  { magic: "%PDF", what: "a PDF document" },
  { magic: "\x7fELF", what: "an ELF program", hint: "record it first: `ltrace -e malloc+free+realloc+calloc PROGRAM`" },
  { magic: "\xfd7zXZ", what: "xz-compressed", hint: "`xz -dc FILE`, piped in, with - as the file name" },
  { magic: "\x28\xb5\x2f\xfd", what: "zstd-compressed", hint: "`zstd -dc FILE`, piped in, with - as the file name" },
  { magic: "BZh", what: "bzip2-compressed", hint: "`bzip2 -dc FILE`, piped in, with - as the file name" },
  { magic: "PK\x03\x04", what: "a zip archive", hint: UNPACK_HINT },
  { magic: "7z\xbc\xaf", what: "a 7-Zip archive", hint: UNPACK_HINT },
  { magic: "SQLite format 3", what: "an SQLite database" },
  { magic: "PERFILE2", what: "perf's binary data", hint: "pass on what `perf script` prints" },
  { magic: "\x17\x08Dtracing", what: "trace-cmd's binary data", hint: "pass on what `trace-cmd report` prints" },
  { magic: "\xff\xfe", what: "UTF-16 text", hint: "convert it: `iconv -f UTF-16 -t UTF-8`" },
  { magic: "\xfe\xff", what: "UTF-16 text", hint: "convert it: `iconv -f UTF-16 -t UTF-8`" },
];

function nameBinary(bytes: Uint8Array): { what: string; hint?: string | undefined } | undefined {
  if (isGzip(bytes)) return { what: "compressed twice", hint: "`gzip -d` it once" };
  for (const { magic, what, hint } of KNOWN_BINARIES) {
    if ([...magic].every((ch, i) => bytes[i] === ch.charCodeAt(0))) return { what, hint };
  }
  if (bytes[257] === 0x75 && String.fromCharCode(...bytes.subarray(257, 262)) === "ustar") {
    return { what: "a tar archive", hint: UNPACK_HINT };
  }
  return looksBinary(bytes) ? { what: "binary data of no known kind", hint: undefined } : undefined;
}

function looksBinary(bytes: Uint8Array): boolean {
  const end = Math.min(bytes.length, SNIFF_BYTES);
  let nrControls = 0;
  for (let i = 0; i < end; i++) {
    const byte = bytes[i] as number;
    if ((byte < 0x20 && (byte < 0x09 || byte > 0x0d) && byte !== 0x1b) || byte === 0x7f) nrControls++;
  }
  return nrControls * CONTROL_DIVISOR > end;
}

/** What a text that no reader wants may be, tested on its first line that is not blank. */
const KNOWN_TEXTS: readonly { readonly pattern: RegExp; readonly what: string; readonly hint: string }[] = [
  { pattern: /^[[{]/, what: "JSON", hint: "scenarios are YAML, recordings are not JSON" },
  { pattern: /^<(?:!doctype|html|\?xml)/i, what: "a web page or XML", hint: "the download may have gone wrong" },
  { pattern: /^#!/, what: "a script", hint: "record what it does: `ltrace`, or `trace-cmd record -e kmem`" },
  { pattern: /^version https:\/\/git-lfs/, what: "a Git LFS pointer", hint: "`git lfs pull` fetches the file" },
  { pattern: /^==\d+==/, what: "valgrind's output", hint: "record with ltrace instead" },
  { pattern: /^(?:desc|cmd): /, what: "a massif profile", hint: "that is something we write, not read" },
  { pattern: /^[A-Za-z_][\w-]*:(?:\s|$)/, what: "YAML", hint: "a scenario is run by `slabtown run FILE.yaml`" },
];

function detectText(input: InputFile): RecordingFormat {
  const lines = new LineCursor(input.bytes);
  let first = "";
  let firstNumber = 1;
  let nrNumbers = 0;
  let isKernelTrace = false;
  while (lines.next() && lines.number <= SNIFF_LINES) {
    const text = lines.text.trim();
    if (text === "") continue;
    if (isFtraceEvent(lines.text)) return "ftrace";
    if (isLtraceCall(text)) return "ltrace";
    if (isRepOperation(text)) return "rep";
    if (isStraceCall(text)) return "strace";
    if (text.startsWith("# tracer:") || /^CPU:\d+ \[LOST/.test(text)) isKernelTrace = true;
    if (first === "") {
      first = text;
      firstNumber = lines.number;
    }
    if (/^-?\d+(?:\s+-?\d+)*$/.test(text)) nrNumbers += text.split(/\s+/).length;
  }
  if (isKernelTrace) return "ftrace";
  if (nrNumbers >= 4) return "rep";
  throw describeText(input, first, firstNumber);
}

function describeText(input: InputFile, first: string, line: number): InputError {
  if (first === "") return new InputError(input.path, "holds nothing but blank lines", { expected: EXPECTED });
  const known = KNOWN_TEXTS.find(({ pattern }) => pattern.test(first));
  const what = known === undefined ? `is a text of no known kind: it begins with ${quoted(first)}` : `is ${known.what}`;
  const hint = known === undefined ? "scripts/samples has one recording of each kind to compare with" : known.hint;
  return new InputError(input.path, what, { line, expected: EXPECTED, hint });
}
