/**
 * Field scanning: numbers and words inside a line of `key=value` text, without cutting it up.
 *
 * Owns the character loops of the ftrace reader. All functions take a line and an offset, allocate nothing, and answer
 * −1 for "not there" or "not readable"; a negative offset is passed through, so that a lookup and a parse compose:
 * `unsigned(text, findField(text, " order=", from), 31)`.
 */

const BLANK = 0x20;
const TAB = 0x09;
const DIGIT_0 = 0x30;
const DIGIT_9 = 0x39;
const SMALL_A = 0x61;
/** Hexadecimal digits of a key: 52 bits, which a double holds exactly. */
const KEY_DIGITS = 13;
const MAX_POINTER_DIGITS = 16;
const NULL_POINTERS = ["(nil)", "(null)", "NULL"] as const;

/** Offset behind ` key=`, searched from `from`; −1 if it does not occur. */
export function findField(text: string, key: string, from: number): number {
  const at = text.indexOf(key, from);
  return at < 0 ? -1 : at + key.length;
}

export function skipBlanks(text: string, from: number): number {
  let at = from;
  while (isBlank(text.charCodeAt(at))) at++;
  return at;
}

/** Where the word that begins at `from` ends. */
export function tokenEnd(text: string, from: number): number {
  let at = from;
  while (at < text.length && !isBlank(text.charCodeAt(at))) at++;
  return at;
}

/** Where the decimal digits that begin at `from` end. */
export function digitsEnd(text: string, from: number): number {
  let at = from;
  while (text.charCodeAt(at) >= DIGIT_0 && text.charCodeAt(at) <= DIGIT_9) at++;
  return at;
}

/** The decimal integer at `from`, if it is `≤ max` and a word's whole beginning; −1 otherwise. */
export function unsigned(text: string, from: number, max: number): number {
  if (from < 0) return -1;
  let value = 0;
  let at = from;
  for (;;) {
    const code = text.charCodeAt(at);
    if (!(code >= DIGIT_0 && code <= DIGIT_9)) break;
    value = value * 10 + (code - DIGIT_0);
    if (value > max) return -1;
    at++;
  }
  return at === from || isWordCode(text.charCodeAt(at)) ? -1 : value;
}

/** The low 52 bits of the pointer at `from` (hexadecimal, `0x` optional, or a spelt null); −1 if it is none. */
export function hexKey(text: string, from: number): number {
  if (from < 0) return -1;
  let start = from;
  if (text.startsWith("0x", start)) start += 2;
  let end = start;
  while (hexValue(text.charCodeAt(end)) >= 0) end++;
  if (end === start || end - start > MAX_POINTER_DIGITS || isWordCode(text.charCodeAt(end))) {
    return NULL_POINTERS.some((word) => text.startsWith(word, from)) ? 0 : -1;
  }
  let value = 0;
  for (let at = Math.max(start, end - KEY_DIGITS); at < end; at++) value = value * 16 + hexValue(text.charCodeAt(at));
  return value;
}

function hexValue(code: number): number {
  if (code >= DIGIT_0 && code <= DIGIT_9) return code - DIGIT_0;
  const letter = (code | 0x20) - SMALL_A;
  return letter >= 0 && letter < 6 ? letter + 10 : -1;
}

function isBlank(code: number): boolean {
  return code === BLANK || code === TAB;
}

/** Letters, digits and underscore: a number that runs into one is no number. */
function isWordCode(code: number): boolean {
  return (code >= DIGIT_0 && code <= DIGIT_9) || code === 0x5f || ((code | 0x20) >= SMALL_A && (code | 0x20) <= 0x7a);
}
