/**
 * Mutations: a file made wrong, as disks, editors, downloads and attackers make files wrong.
 */

import type { Draw } from "./draw.ts";

const HUGE = [
  "0",
  "-1",
  "4294967295",
  "4294967296",
  "9007199254740991",
  "9007199254740993",
  "1e308",
  "99999999999999999999",
];

const concat = (...parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));

/** Offset of a digit at or behind `from`; −1 if there is none. */
function digitFrom(bytes: Uint8Array, from: number): number {
  return bytes.findIndex((byte, i) => i >= from && byte >= 0x30 && byte <= 0x39);
}

function replaceNumber(d: Draw, bytes: Uint8Array): Uint8Array {
  const start = digitFrom(bytes, d.whole(0, bytes.length - 1));
  if (start < 0) return bytes;
  let end = start;
  while ((bytes[end] ?? 0) >= 0x30 && (bytes[end] ?? 0) <= 0x39) end++;
  return concat(bytes.subarray(0, start), Buffer.from(d.of(HUGE)), bytes.subarray(end));
}

function flipBits(d: Draw, bytes: Uint8Array): Uint8Array {
  // Not slice(): that of a Buffer is a view.
  const copy = Uint8Array.from(bytes);
  for (let i = d.whole(1, 8); i > 0; i--) {
    const at = d.whole(0, copy.length - 1);
    copy[at] = (copy[at] as number) ^ (1 << d.whole(0, 7));
  }
  return copy;
}

/** One mutation of `bytes`, which has at least one; `other` is a second file for splices. */
function mutateOnce(d: Draw, bytes: Uint8Array, other: Uint8Array): Uint8Array {
  const at = d.whole(0, bytes.length - 1);
  const end = Math.min(bytes.length, at + d.spread(1, 4096));
  switch (d.whole(0, 7)) {
    case 0:
    case 1:
      return flipBits(d, bytes);
    case 2:
      return bytes.subarray(0, Math.max(1, at));
    case 3:
      return concat(bytes.subarray(0, at), other.subarray(d.whole(0, other.length - 1)).subarray(0, 4096));
    case 4:
      return concat(bytes.subarray(0, end), bytes.subarray(at));
    case 5:
      return concat(bytes.subarray(0, at), bytes.subarray(end));
    case 6:
      return concat(
        bytes.subarray(0, at),
        Uint8Array.from({ length: d.whole(1, 16) }, () => d.of([0, 10, 32, 127, 255, d.whole(0, 255)])),
        bytes.subarray(at),
      );
    default:
      return replaceNumber(d, bytes);
  }
}

/** `bytes` after one to four mutations; never empty. */
export function mutate(d: Draw, bytes: Uint8Array, other: Uint8Array): Uint8Array {
  let now = bytes;
  for (let i = d.whole(1, 4); i > 0; i--) {
    const next = mutateOnce(d, now, other);
    if (next.length > 0) now = next;
  }
  return now;
}
