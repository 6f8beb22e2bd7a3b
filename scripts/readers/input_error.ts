/**
 * Input errors: what is wrong with a file the user gave us, and where.
 *
 * A reader throws nothing else. The command line prints `format()` and exits with 2; a stack trace would only hide
 * the place in the file, which is what the user can mend.
 *
 *   trace.rep:17:3: unknown operation "q" (expected a, r, f or w)        text: line and column, both from 1
 *   redis.mtc.gz: byte 1042: the size column is cut short (expected …)   binary: offset from 0, after decompression
 *     hint: the download may be incomplete
 *
 * Source: the shape of the first line is the one of the GNU coding standards ("Formatting Error Messages"), which
 * editors know how to jump to.
 */

export interface InputErrorDetails {
  /** Line, from 1. */
  readonly line?: number | undefined;
  /** Column, from 1; only with a line. */
  readonly column?: number | undefined;
  /** Offset into the decompressed bytes, from 0. */
  readonly byteOffset?: number | undefined;
  /** What would have been right: `a, r, f or w`. */
  readonly expected?: string | undefined;
  /** What the user can do about it: one sentence. */
  readonly hint?: string | undefined;
}

/** Longest piece of the user's file that a message quotes. */
const QUOTE_LIMIT = 40;

/** A file of the user's cannot be used. `message` says why, without the place; `format()` says it all. */
export class InputError extends Error {
  override readonly name = "InputError";
  readonly file: string;
  readonly line: number | undefined;
  readonly column: number | undefined;
  readonly byteOffset: number | undefined;
  readonly expected: string | undefined;
  readonly hint: string | undefined;

  constructor(file: string, what: string, details: InputErrorDetails = {}) {
    super(what);
    this.file = file;
    this.line = details.line;
    this.column = details.column;
    this.byteOffset = details.byteOffset;
    this.expected = details.expected;
    this.hint = details.hint;
  }

  /** `file:line:col: what is wrong (expected …)`, and a second line with the hint if there is one. */
  format(): string {
    let text = `${this.file}: `;
    if (this.line !== undefined) {
      text = `${this.file}:${this.line}:${this.column === undefined ? "" : `${this.column}:`} `;
    } else if (this.byteOffset !== undefined) {
      text += `byte ${this.byteOffset}: `;
    }
    text += this.message;
    if (this.expected !== undefined) text += ` (expected ${this.expected})`;
    if (this.hint !== undefined) text += `\n  hint: ${this.hint}`;
    return text;
  }

  override toString(): string {
    return this.format();
  }
}

/** A piece of the user's file in double quotes, cut short, and safe to print on a terminal. */
export function quoted(text: string): string {
  const cut = text.length > QUOTE_LIMIT ? `${text.slice(0, QUOTE_LIMIT)}…` : text;
  return `"${printable(cut)}"`;
}

/** `text` with `?` for every control character, so that a file cannot drive the terminal. */
export function printable(text: string): string {
  let out = "";
  for (const ch of text) {
    const code = ch.codePointAt(0) ?? 0;
    out += code < 0x20 || (code >= 0x7f && code < 0xa0) ? "?" : ch;
  }
  return out;
}
