/**
 * Text lines: a cursor over the lines of a recording, and the tally of the bad ones.
 *
 * Owns the rule of every text format: a bad line is counted, the first few are shown with their numbers, and a file
 * with more than 1 % of bad lines is refused unless the user asked for leniency. The percentage is of the lines that
 * carry something: blank lines and comments count for neither side.
 *
 * A bad *line* does not say what the program did. A bad *operation* says it clearly, but it cannot be (a free of
 * something that is not allocated): real recorders lose events, so those are dropped and reported, and never refuse a
 * file.
 *
 * Lines end in `\n` or `\r\n`; the last one may lack it. Bytes become characters one to one (Latin-1): recorded names
 * are not always UTF-8, and a decoder must not fail on them. A line longer than `MAX_LINE_BYTES` is cut there: binary
 * noise has no line ends, and no format needs more.
 */

import { InputError } from "./input_error.ts";

const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const MAX_LINE_BYTES = 16_384;
const NR_SHOWN = 5;
/** A file is refused when more than one line in this many is bad. */
const BAD_LINE_DIVISOR = 100;

/** Steps over the lines of `bytes`: `while (lines.next()) use(lines.text, lines.number)`. */
export class LineCursor {
  /** The present line, without its end. */
  text = "";
  /** Its number, from 1; 0 before the first. */
  number = 0;
  readonly #buffer: Buffer;
  #offset: number;

  constructor(bytes: Uint8Array) {
    this.#buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const hasByteOrderMark = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
    this.#offset = hasByteOrderMark ? 3 : 0;
  }

  /** Moves to the next line; false at the end of the file. */
  next(): boolean {
    const start = this.#offset;
    if (start >= this.#buffer.length) return false;
    const newline = this.#buffer.indexOf(NEWLINE, start);
    let end = newline === -1 ? this.#buffer.length : newline;
    this.#offset = end + 1;
    if (end > start && this.#buffer[end - 1] === CARRIAGE_RETURN) end--;
    this.text = this.#buffer.toString("latin1", start, Math.min(end, start + MAX_LINE_BYTES));
    this.number++;
    return true;
  }
}

/** What a line has against it. */
export interface BadLine {
  readonly line: number;
  /** From 1; left out where the line as a whole is wrong. */
  readonly column?: number | undefined;
  readonly what: string;
  readonly expected?: string | undefined;
}

/** Counts good and bad lines and bad operations of one file, and passes the sentence at its end. */
export class LineTally {
  /** Lines that carried something, good or bad. */
  nrLines = 0;
  nrBadLines = 0;
  nrBadOps = 0;
  readonly #file: string;
  readonly #lenient: boolean;
  readonly #badLines: BadLine[] = [];
  readonly #badOps: string[] = [];

  constructor(file: string, lenient: boolean) {
    this.#file = file;
    this.#lenient = lenient;
  }

  /** Notes a line that cannot be read. It must have been counted in `nrLines`. */
  badLine(bad: BadLine): void {
    this.nrBadLines++;
    if (this.#badLines.length < NR_SHOWN) this.#badLines.push(bad);
  }

  /** Notes an operation that can be read but not be performed. */
  badOp(line: number, what: string): void {
    this.nrBadOps++;
    if (this.#badOps.length < NR_SHOWN) this.#badOps.push(`line ${line}: ${what}: dropped`);
  }

  /**
   * The warnings so far, one line each.
   *
   * Throws `InputError` with the place of the first bad line if there are too many.
   */
  finish(): string[] {
    const first = this.#badLines[0];
    const tooMany = this.nrBadLines * BAD_LINE_DIVISOR > this.nrLines;
    if (first !== undefined && tooMany && !this.#lenient) {
      const count = this.nrBadLines === 1 ? "" : `; ${this.nrBadLines} of ${this.nrLines} lines are bad`;
      throw new InputError(this.#file, first.what + count, {
        line: first.line,
        column: first.column,
        expected: first.expected,
        hint: "more than 1 % of the lines are bad; --lenient drops them and goes on",
      });
    }
    const warnings: string[] = [];
    for (const bad of this.#badLines) warnings.push(`line ${bad.line}: ${bad.what}: dropped`);
    addRest(warnings, this.nrBadLines, this.#badLines.length, "bad lines");
    warnings.push(...this.#badOps);
    addRest(warnings, this.nrBadOps, this.#badOps.length, "operations that cannot be");
    return warnings;
  }
}

function addRest(warnings: string[], nr: number, nrShown: number, noun: string): void {
  if (nr > nrShown) warnings.push(`${nr - nrShown} more ${noun} dropped, ${nr} in all`);
}
