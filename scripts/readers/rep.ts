/**
 * Malloc-lab traces (.rep): the text format of the CS:APP malloc lab.
 *
 * Owns both header dialects in the wild, and MIT's `w` line.
 *
 *   classic            newer                 one operation a line afterwards
 *   suggested heap     weight                a <id> <bytes>   malloc
 *   number of ids      number of ids         r <id> <bytes>   realloc; the id keeps its identity
 *   number of ops      number of ops         f <id>           free; f -1 is free(NULL)
 *   weight             max live bytes or 0   w <id> <bytes>   write (MIT)
 *
 * Only header lines 2 and 3 mean the same in both, and real headers miscount: the counts are compared, never used.
 * Blank lines and lines that begin with `#` are skipped. Ids may be sparse or huge; they are renumbered 0, 1, 2, … in
 * order of first use.
 *
 * What a line may get wrong, and what happens (text_lines.ts has the 1 % rule):
 *   bad line        unknown letter, missing or extra field, a number that is negative, no integer or over 2^53 − 1
 *   bad operation   `a` of a live id, `f` or `w` of an id that is not live (never allocated, or freed already)
 *   fine            `r` of an id that is not live (it allocates); ids never freed; sizes no machine can serve
 *
 * Source: the malloc lab of Bryant and O'Hallaron's CS:APP; the dialects as found in public traces.
 */

import {
  HEAP_FREE,
  HEAP_MALLOC,
  HEAP_NULL_ID,
  HEAP_REALLOC,
  HEAP_WRITE,
  type HeapRecording,
} from "../../kernel/uapi/recording.ts";
import { HeapColumns } from "./heap_columns.ts";
import type { InputFile } from "./input.ts";
import { InputError, quoted } from "./input_error.ts";
import { LineCursor, LineTally } from "./text_lines.ts";

const NR_HEADER_NUMBERS = 4;
const HEADER_NAMES = ["heap size or weight", "number of ids", "number of operations", "weight or live bytes"] as const;
/** `a 12 4096`, with every field optional so that a miss tells where it is. */
const OPERATION = /^[ \t]*([arfw])[ \t]+(-?\d+)(?:[ \t]+(\d+))?[ \t]*$/;
const EXPECTED_OPERATION = "`a id bytes`, `r id bytes`, `f id` or `w id bytes`";

/** True if `line` looks like an operation of this format. */
export function isRepOperation(line: string): boolean {
  return OPERATION.test(line);
}

export interface TextReaderOptions {
  /** Drop bad lines however many they are. */
  readonly lenient: boolean;
}

/** The heap recording in a malloc-lab trace. Throws `InputError`. O(lines). */
export function readRep(input: InputFile, options: TextReaderOptions): HeapRecording {
  const lines = new LineCursor(input.bytes);
  const header = readHeader(input, lines);
  const tally = new LineTally(input.path, options.lenient);
  const columns = new HeapColumns();
  const denseIds = new Map<number, number>();
  while (lines.next()) {
    if (isBlank(lines.text)) continue;
    tally.nrLines++;
    readOperation(lines, tally, columns, denseIds);
  }
  const warnings = tally.finish();
  if (columns.nrOps === 0) {
    throw new InputError(input.path, "holds no operation", { line: lines.number, expected: EXPECTED_OPERATION });
  }
  const nrIds = denseIds.size;
  compare(warnings, "ids", header[1] ?? 0, nrIds);
  compare(warnings, "operations", header[2] ?? 0, tally.nrLines);
  if (columns.nrLive > 0) warnings.push(`${columns.nrLive} of ${nrIds} ids are never freed`);
  return columns.finish(input.name, nrIds, 1, warnings);
}

/** Four integers, usually on four lines; `fscanf` readers take them on one line as well, so we do. */
function readHeader(input: InputFile, lines: LineCursor): number[] {
  const numbers: number[] = [];
  while (numbers.length < NR_HEADER_NUMBERS && lines.next()) {
    if (isBlank(lines.text)) continue;
    for (const token of lines.text.matchAll(/\S+/g)) {
      const which = HEADER_NAMES[numbers.length];
      const value = Number(token[0]);
      if (which === undefined || !/^-?\d+$/.test(token[0]) || !Number.isSafeInteger(value)) {
        const what = which === undefined ? "a fifth header number" : `the header's ${which} is ${quoted(token[0])}`;
        throw new InputError(input.path, what, {
          line: lines.number,
          column: token.index + 1,
          expected: which === undefined ? "four" : "an integer",
          hint: "a .rep file begins with four numbers: heap size, ids, operations, weight",
        });
      }
      numbers.push(value);
    }
  }
  if (numbers.length < NR_HEADER_NUMBERS) {
    throw new InputError(input.path, `ends inside the header, after ${numbers.length} numbers`, {
      line: lines.number,
      expected: "four, then operations",
    });
  }
  return numbers;
}

function readOperation(lines: LineCursor, tally: LineTally, columns: HeapColumns, ids: Map<number, number>): void {
  const match = OPERATION.exec(lines.text);
  const letter = match?.[1];
  const fileId = Number(match?.[2]);
  const size = match?.[3] === undefined ? -1 : Number(match[3]);
  const isNull = letter === "f" && fileId === -1;
  const wellFormed =
    match !== null &&
    (isNull || fileId >= 0) &&
    fileId <= Number.MAX_SAFE_INTEGER &&
    size <= Number.MAX_SAFE_INTEGER &&
    (letter === "f") === (size === -1);
  if (!wellFormed) {
    tally.badLine({ line: lines.number, ...diagnose(lines.text) });
    return;
  }
  if (letter === "f") {
    const id = isNull ? HEAP_NULL_ID : ids.get(fileId);
    if (id === undefined) tally.badOp(lines.number, `free of id ${fileId}, which was never allocated`);
    else if (!columns.push(HEAP_FREE, 0, id, 0)) tally.badOp(lines.number, `id ${fileId} is freed already`);
    return;
  }
  if (letter === "w") {
    const id = ids.get(fileId);
    const isDone = id !== undefined && columns.push(HEAP_WRITE, 0, id, size);
    if (!isDone) tally.badOp(lines.number, `write to id ${fileId}, which is not allocated`);
    return;
  }
  let id = ids.get(fileId);
  if (id === undefined) ids.set(fileId, (id = ids.size));
  if (!columns.push(letter === "a" ? HEAP_MALLOC : HEAP_REALLOC, 0, id, size)) {
    tally.badOp(lines.number, `id ${fileId} is allocated already`);
  }
}

/** Why a line is no operation, and at which column. Off the fast path. */
function diagnose(text: string): { what: string; column: number; expected: string } {
  const tokens = [...text.matchAll(/\S+/g)];
  const [letter, id, size, extra] = tokens;
  if (letter === undefined || !/^[arfw]$/.test(letter[0])) {
    const what = `unknown operation ${quoted(letter?.[0] ?? "")}`;
    return { what, column: (letter?.index ?? 0) + 1, expected: "a, r, f or w" };
  }
  const atEnd = text.trimEnd().length + 1;
  if (id === undefined) return { what: "the id is missing", column: atEnd, expected: EXPECTED_OPERATION };
  if (!isCount(id[0])) {
    return { what: `the id is ${quoted(id[0])}`, column: id.index + 1, expected: "an integer from 0 to 2^53 - 1" };
  }
  const surplus = letter[0] === "f" ? size : extra;
  if (surplus !== undefined) {
    return {
      what: `${quoted(surplus[0])} is one field too many`,
      column: surplus.index + 1,
      expected: EXPECTED_OPERATION,
    };
  }
  if (size === undefined) return { what: "the size is missing", column: atEnd, expected: EXPECTED_OPERATION };
  return { what: `the size is ${quoted(size[0])}`, column: size.index + 1, expected: "an integer from 0 to 2^53 - 1" };
}

function isCount(text: string): boolean {
  return /^\d+$/.test(text) && Number.isSafeInteger(Number(text));
}

function isBlank(text: string): boolean {
  return text === "" || text.startsWith("#") || text.trim() === "";
}

function compare(warnings: string[], noun: string, announced: number, found: number): void {
  if (announced !== found) warnings.push(`the header announces ${announced} ${noun}, the file has ${found}`);
}
