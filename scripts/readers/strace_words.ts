/**
 * Words of strace: its argument lists, and the names in them as numbers.
 *
 * Owns the cutting of `f(a, {b, c}, "d)")` into arguments, and the tables of flag names with Linux's values. A name
 * that is not in a table counts as 0: it is a flag that this kernel does not know.
 */

/** Largest integer that a column holds exactly; what is larger is cut to it. */
const MAX_VALUE = Number.MAX_SAFE_INTEGER;

export interface ArgumentList {
  readonly args: readonly string[];
  /** Offset behind the closing parenthesis; −1 if the text ends before it. */
  readonly end: number;
}

const OPENING = "([{";
const CLOSING = ")]}";

/** Cuts the argument list that begins at `from`, behind its opening parenthesis. O(characters). */
export function splitArguments(text: string, from: number): ArgumentList {
  const args: string[] = [];
  let start = from;
  let depth = 0;
  const push = (end: number): void => {
    const word = text.slice(start, end).trim();
    if (word !== "" || args.length > 0) args.push(word);
    start = end + 1;
  };
  for (let at = from; at < text.length; at++) {
    const ch = text[at] as string;
    if (ch === '"') {
      at = stringEnd(text, at);
      if (at < 0) return { args, end: -1 };
    } else if (ch === "," && depth === 0) push(at);
    else if (OPENING.includes(ch)) depth++;
    else if (CLOSING.includes(ch)) {
      if (depth === 0) {
        push(at);
        return { args, end: ch === ")" ? at + 1 : -1 };
      }
      depth--;
    }
  }
  return { args, end: -1 };
}

/** Offset of the quote that ends the string at `from`; −1 if there is none. */
function stringEnd(text: string, from: number): number {
  for (let at = from + 1; at < text.length; at++) {
    if (text[at] === "\\") at++;
    else if (text[at] === '"') return at;
  }
  return -1;
}

/** `123`, `-1`, `0x7f…`, `NULL`, `0600`; NaN if it is no number. */
export function numberOf(word: string | undefined): number {
  if (word === "NULL") return 0;
  if (word === undefined || !/^(?:-?\d+|0x[0-9a-f]+)$/i.test(word)) return Number.NaN;
  return Math.max(-MAX_VALUE, Math.min(Number(word), MAX_VALUE));
}

/** `A|B|0x40` by a table of names; NaN if there is nothing. */
export function flagsOf(word: string | undefined, table: ReadonlyMap<string, number>): number {
  if (word === undefined || word === "") return Number.NaN;
  let value = 0;
  for (const part of word.replace(/\/\*.*?\*\//g, "").split("|")) {
    const name = part.trim();
    const known = table.get(name) ?? numberOf(name);
    if (!Number.isNaN(known)) value |= known;
  }
  return value;
}

export const PROT_WORDS: ReadonlyMap<string, number> = new Map([
  ["PROT_NONE", 0],
  ["PROT_READ", 1],
  ["PROT_WRITE", 2],
  ["PROT_EXEC", 4],
]);

export const MAP_WORDS: ReadonlyMap<string, number> = new Map([
  ["MAP_SHARED", 0x01],
  ["MAP_PRIVATE", 0x02],
  ["MAP_SHARED_VALIDATE", 0x03],
  ["MAP_FIXED", 0x10],
  ["MAP_ANONYMOUS", 0x20],
  ["MAP_ANON", 0x20],
  ["MAP_FIXED_NOREPLACE", 0x10_0000],
]);

export const MREMAP_WORDS: ReadonlyMap<string, number> = new Map([
  ["MREMAP_MAYMOVE", 1],
  ["MREMAP_FIXED", 2],
  ["MREMAP_DONTUNMAP", 4],
]);

/** Advices; one that is not here is not replayed. */
export const MADV_WORDS: ReadonlyMap<string, number> = new Map([
  ["MADV_NORMAL", 0],
  ["MADV_RANDOM", 1],
  ["MADV_SEQUENTIAL", 2],
  ["MADV_WILLNEED", 3],
  ["MADV_DONTNEED", 4],
  ["MADV_FREE", 8],
  ["MADV_HUGEPAGE", 14],
  ["MADV_NOHUGEPAGE", 15],
]);

export const MCL_WORDS: ReadonlyMap<string, number> = new Map([
  ["MCL_CURRENT", 1],
  ["MCL_FUTURE", 2],
]);

export const WAIT_WORDS: ReadonlyMap<string, number> = new Map([["WNOHANG", 1]]);

const SIGNAL_NAMES =
  "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG " +
  "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS";
const SIGNALS: ReadonlyMap<string, number> = new Map(SIGNAL_NAMES.split(" ").map((name, i) => [`SIG${name}`, i + 1]));

/** 11 for `SIGSEGV`; SIGKILL for a signal that has no name here. */
export const signalOf = (name: string): number => SIGNALS.get(name) ?? 9;
