/**
 * Integer tricks: logarithms, powers of two, square root, rounding division.
 *
 * JavaScript has one number type, a 64-bit float, and bit operators that work on 32 bits of it. So each function
 * states its domain; outside it the result is meaningless, and no check is made (these run on allocation paths).
 *
 *   "u32"   an integer 0 ≤ n < 2^32. `n | 0` of 2^31 and above is negative, hence the `>>> 0` at the end of some.
 *   "exact" every integer up to 2^53 is a float without rounding; products and powers of two beyond 32 bits are made
 *           by arithmetic, never by shifts.
 *
 * `Math.clz32` is one machine instruction in V8; everything about logarithms is built on it.
 * Context: any. All are O(1) and touch no memory.
 * Source: the names are those of Linux, include/linux/{bitops,log2,math}.h.
 */

import { PAGE_SHIFT } from "../params.ts";

const TWO_TO_32 = 4_294_967_296;

/** Position of the highest set bit, counted from 1; `fls(0) = 0`. Domain: u32. */
export function fls(n: number): number {
  return 32 - Math.clz32(n);
}

/** Floor of the logarithm to base 2: `2^ilog2(n) ≤ n < 2^(ilog2(n) + 1)`. Domain: 1 ≤ n < 2^32; `ilog2(0) = −1`. */
export function ilog2(n: number): number {
  return 31 - Math.clz32(n);
}

/** Is `n` one of 1, 2, 4 … 2^31? Zero is not. Domain: u32. */
export function isPowerOfTwo(n: number): boolean {
  return n !== 0 && (n & (n - 1)) === 0;
}

/** Smallest power of two that is at least `n`. Domain: 1 ≤ n ≤ 2^32; the result can be 2^32, which is not a u32. */
export function roundUpPow2(n: number): number {
  const shift = 32 - Math.clz32(n - 1);
  return shift === 32 ? TWO_TO_32 : (1 << shift) >>> 0;
}

/** Largest power of two that is at most `n`. Domain: 1 ≤ n < 2^32. */
export function roundDownPow2(n: number): number {
  return (1 << (31 - Math.clz32(n))) >>> 0;
}

/**
 * Smallest order whose block holds `bytes`: `bytes ≤ 4096 · 2^order`. Domain: 1 ≤ bytes ≤ 2^32; result 0 … 20.
 * The result can exceed what the page allocator has; comparing it is the caller's business.
 */
export function getOrder(bytes: number): number {
  return 32 - Math.clz32((bytes - 1) >>> PAGE_SHIFT);
}

/** Floor of the square root. Domain: integers 0 ≤ n ≤ 2^53. */
export function intSqrt(n: number): number {
  const root = Math.floor(Math.sqrt(n));
  // Above 2^52, the root of k² − 1 lies within half a rounding step of k, and comes out as k.
  return root * root > n ? root - 1 : root;
}

/** `n`, or the nearer end of `[low, high]` when it lies outside. Domain: low ≤ high, no NaN. */
export function clamp(n: number, low: number, high: number): number {
  return Math.min(Math.max(n, low), high);
}

/** Ceiling of `n / divisor`. Domain: integers 0 ≤ n ≤ 2^53, 1 ≤ divisor ≤ 2^53. Exact: divides only multiples. */
export function divRoundUp(n: number, divisor: number): number {
  const rest = n % divisor;
  return (n - rest) / divisor + (rest === 0 ? 0 : 1);
}
