/**
 * LEB128: unsigned integers, seven bits a byte, least significant first.
 *
 *   624485 = 0b100110_0001110_1100101  →  e5 8e 26        the top bit says "more follows"
 *
 * Owns decoding a column of a known number of integers from a known number of bytes, and saying what is wrong with it.
 * Values are doubles, exact to 2^53; beyond that they are clamped to 2^53 − 1 (a size that large only has to be
 * refused). Ten bytes (64 bits) is the longest form accepted; over-long zeros are legal, as in DWARF.
 *
 * The decoder returns where it stopped and why as numbers: it runs tens of millions of times and allocates nothing.
 *
 * Source: DWARF 5, section 7.6.
 */

const MAX_INTEGER_BYTES = 10;
const MORE_FOLLOWS = 0x80;

/** The bytes end inside an integer, or before the last one. */
export const LEB_CUT = -1;
/** An integer is longer than 64 bits. */
export const LEB_OVERFLOW = -2;

export interface LebOutput {
  readonly length: number;
  [index: number]: number;
}

/**
 * Decodes `values.length` integers from `bytes[start, end)` into `values`.
 *
 * Returns the offset behind the last one, or `LEB_CUT` or `LEB_OVERFLOW`. O(end − start).
 */
export function decodeLeb128(bytes: Uint8Array, start: number, end: number, values: LebOutput): number {
  const n = values.length;
  let offset = start;
  for (let i = 0; i < n; i++) {
    if (offset >= end) return LEB_CUT;
    let byte = bytes[offset++] as number;
    if (byte < MORE_FOLLOWS) {
      values[i] = byte;
      continue;
    }
    let value = byte - MORE_FOLLOWS;
    let scale = 128;
    const limit = Math.min(end, offset + MAX_INTEGER_BYTES - 1);
    do {
      if (offset >= limit) return limit === end ? LEB_CUT : LEB_OVERFLOW;
      byte = bytes[offset++] as number;
      value += (byte & 0x7f) * scale;
      scale *= 128;
    } while (byte >= MORE_FOLLOWS);
    values[i] = Math.min(value, Number.MAX_SAFE_INTEGER);
  }
  return offset;
}

/** Offset of integer `index` of the column that begins at `start`. For error messages; the column must be sound. */
export function lebOffset(bytes: Uint8Array, start: number, index: number): number {
  let offset = start;
  for (let i = 0; i < index; i++) {
    while ((bytes[offset] ?? 0) >= MORE_FOLLOWS) offset++;
    offset++;
  }
  return offset;
}
