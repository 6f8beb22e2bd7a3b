/**
 * Bitmaps in RAM: one bit per thing, 32 to a word.
 *
 * Bit `i` is bit `i mod 32` of the word at `base + 4·⌊i / 32⌋`, so a bitmap of n bits occupies `4·⌈n / 32⌉` bytes
 * from a 4-aligned base. Searching looks at a word at a time: a full (or empty) word costs one load for 32 bits.
 *
 *   bit:    0   1   2  …  31 | 32  33 …
 *   word:   ─── base+0 ───── | ─ base+4 ─
 *
 *   BM-1  Bits at or above nbits in the last word are never reported, whatever they hold.
 *   BM-2  testAndSetBit is one step for other CPUs: of several callers exactly one is told "it was clear".
 *
 * setBit and clearBit read, change and write back: two CPUs on one word need a lock, as with Linux's `__set_bit`.
 * Bit numbers are u32. Preconditions are not checked here: a bit outside the map touches foreign memory.
 */

import type { MemoryPort } from "../arch/port.ts";

/** Bytes that a bitmap of `nbits` bits occupies. */
export const bitmapBytes = (nbits: number): number => ((nbits + 31) >>> 5) * 4;

const wordOf = (base: number, bit: number): number => base + (bit >>> 5) * 4;
const maskOf = (bit: number): number => 1 << (bit & 31);

/** Is `bit` set? Context: any. */
export function testBit(port: MemoryPort, base: number, bit: number): boolean {
  return (port.ld32(wordOf(base, bit)) & maskOf(bit)) !== 0;
}

/** Sets `bit`. Not atomic. Context: any, under the lock of the map. */
export function setBit(port: MemoryPort, base: number, bit: number): void {
  const word = wordOf(base, bit);
  port.st32(word, (port.ld32(word) | maskOf(bit)) >>> 0);
}

/** Clears `bit`. Not atomic. Context: any, under the lock of the map. */
export function clearBit(port: MemoryPort, base: number, bit: number): void {
  const word = wordOf(base, bit);
  port.st32(word, (port.ld32(word) & ~maskOf(bit)) >>> 0);
}

/** Sets `bit` and returns whether it was set before. Atomic (BM-2). Context: any; retries while others win. */
export function testAndSetBit(port: MemoryPort, base: number, bit: number): boolean {
  const word = wordOf(base, bit);
  const mask = maskOf(bit);
  let seen = port.ldAtomic(word);
  for (;;) {
    if ((seen & mask) !== 0) return true;
    const old = port.cas(word, seen, (seen | mask) >>> 0);
    if (old === seen) return false;
    seen = old;
  }
}

/** Lowest clear bit at or above `from`, or `nbits` when there is none. O(nbits / 32). Context: any. */
export function findNextZeroBit(port: MemoryPort, base: number, nbits: number, from: number): number {
  return findNext(port, base, nbits, from, -1);
}

/** Lowest set bit at or above `from`, or `nbits` when there is none. O(nbits / 32). Context: any. */
export function findNextBit(port: MemoryPort, base: number, nbits: number, from: number): number {
  return findNext(port, base, nbits, from, 0);
}

/** Number of set bits among the first `nbits`. O(nbits / 32). Context: any. */
export function bitmapWeight(port: MemoryPort, base: number, nbits: number): number {
  let weight = 0;
  const nrFull = nbits >>> 5;
  for (let i = 0; i < nrFull; i++) weight += popcount32(port.ld32(base + i * 4));
  const nrRest = nbits & 31;
  if (nrRest !== 0) weight += popcount32(port.ld32(base + nrFull * 4) & ((1 << nrRest) - 1));
  return weight;
}

/** First bit that differs from the bits of `background` (0: looks for ones, −1: looks for zeros). */
function findNext(port: MemoryPort, base: number, nbits: number, from: number, background: number): number {
  if (from >= nbits) return nbits;
  let first = from & ~31;
  // Bits below `from` in its word are made to look like the background.
  let found = (port.ld32(wordOf(base, from)) ^ background) & (-1 << (from & 31));
  while (found === 0) {
    first += 32;
    if (first >= nbits) return nbits;
    found = port.ld32(wordOf(base, first)) ^ background;
  }
  return Math.min(first + 31 - Math.clz32(found & -found), nbits);
}

/** Ones in a 32-bit word: sums of neighbours in fields of 2, 4 and 8 bits, then of the four bytes. */
function popcount32(word: number): number {
  const pairs = word - ((word >>> 1) & 0x5555_5555);
  const nibbles = (pairs & 0x3333_3333) + ((pairs >>> 2) & 0x3333_3333);
  const bytes = (nibbles + (nibbles >>> 4)) & 0x0f0f_0f0f;
  return Math.imul(bytes, 0x0101_0101) >>> 24;
}
