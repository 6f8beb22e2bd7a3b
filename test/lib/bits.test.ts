/**
 * Goal: each function of bits.ts is right on its whole stated domain, most of all at powers of two and at its ends.
 * Method: every power of two, one below and one above, plus random numbers, against definitions by plain arithmetic
 * (loops, multiplication, BigInt), which share nothing with the bit tricks.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  clamp,
  divRoundUp,
  fls,
  getOrder,
  ilog2,
  intSqrt,
  isPowerOfTwo,
  roundDownPow2,
  roundUpPow2,
} from "../../kernel/lib/bits.ts";

const U32_MAX = 2 ** 32 - 1;

/** 2^k − 1, 2^k and 2^k + 1 for each k, within [low, high]. */
function edges(low: number, high: number): number[] {
  return Array.from({ length: 54 }, (_, k) => [2 ** k - 1, 2 ** k, 2 ** k + 1])
    .flat()
    .filter((n) => n >= low && n <= high);
}

/** Runs `check` on the edges and on random numbers of the domain. */
function overDomain(low: number, high: number, check: (n: number) => void): void {
  for (const n of edges(low, high)) check(n);
  fc.assert(
    fc.property(fc.integer({ min: low, max: high }), (n) => {
      check(n);
    }),
  );
}

const naiveFls = (n: number): number => (n === 0 ? 0 : n.toString(2).length);

describe("bits", () => {
  it("fls() is the number of binary digits", () => {
    expect(fls(0)).toBe(0);
    overDomain(0, U32_MAX, (n) => expect(fls(n), String(n)).toBe(naiveFls(n)));
  });

  it("ilog2() brackets n between two powers", () => {
    overDomain(1, U32_MAX, (n) => {
      expect(2 ** ilog2(n)).toBeLessThanOrEqual(n);
      expect(2 ** (ilog2(n) + 1)).toBeGreaterThan(n);
    });
  });

  it("isPowerOfTwo() is true of 2^0 … 2^31 only", () => {
    const powers = new Set(Array.from({ length: 32 }, (_, k) => 2 ** k));
    overDomain(0, U32_MAX, (n) => expect(isPowerOfTwo(n), String(n)).toBe(powers.has(n)));
  });

  it("roundUpPow2() is the least power of two that is at least n", () => {
    overDomain(1, 2 ** 32, (n) => {
      const up = roundUpPow2(n);
      expect(Number.isInteger(Math.log2(up)), String(n)).toBe(true);
      expect(up).toBeGreaterThanOrEqual(n);
      expect(up / 2).toBeLessThan(n);
    });
  });

  it("roundDownPow2() is the greatest power of two that is at most n", () => {
    overDomain(1, U32_MAX, (n) => {
      const down = roundDownPow2(n);
      expect(Number.isInteger(Math.log2(down)), String(n)).toBe(true);
      expect(down).toBeLessThanOrEqual(n);
      expect(down * 2).toBeGreaterThan(n);
    });
  });

  it("getOrder() is the least order whose block holds the bytes", () => {
    expect([1, 4096, 4097, 8192, 8193, 2 ** 32].map(getOrder)).toEqual([0, 0, 1, 1, 2, 20]);
    overDomain(1, 2 ** 32, (bytes) => {
      const order = getOrder(bytes);
      expect(4096 * 2 ** order, String(bytes)).toBeGreaterThanOrEqual(bytes);
      if (order > 0) expect(4096 * 2 ** (order - 1)).toBeLessThan(bytes);
    });
  });

  it("intSqrt() is the floor of the root up to 2^53", () => {
    const check = (n: number) => {
      const root = intSqrt(n);
      expect(BigInt(root) ** 2n <= BigInt(n), String(n)).toBe(true);
      expect(BigInt(root + 1) ** 2n > BigInt(n), String(n)).toBe(true);
    };
    overDomain(0, Number.MAX_SAFE_INTEGER, check);
    check(2 ** 53);
  });

  it("intSqrt() is not fooled by the number below a square, where Math.sqrt rounds up", () => {
    const fooled = 94_906_265;
    expect(Math.sqrt(fooled ** 2 - 1)).toBe(fooled);
    expect(intSqrt(fooled ** 2 - 1)).toBe(fooled - 1);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 94_906_265 }), (k) => intSqrt(k * k - 1) === k - 1 && intSqrt(k * k) === k),
    );
  });

  it("clamp() keeps what is inside and cuts to the nearer end", () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer(), fc.integer(), (n, a, b) => {
        const [low, high] = a < b ? [a, b] : [b, a];
        return clamp(n, low, high) === [low, n, high].sort((x, y) => x - y)[1];
      }),
    );
  });

  it("divRoundUp() is the exact ceiling up to 2^53", () => {
    const ceiling = (n: number, d: number) => Number((BigInt(n) + BigInt(d) - 1n) / BigInt(d));
    expect(divRoundUp(2 ** 53, 2 ** 53 - 1)).toBe(2);
    expect(divRoundUp(0, 7)).toBe(0);
    fc.assert(fc.property(fc.maxSafeNat(), fc.maxSafeNat(), (n, d) => divRoundUp(n, d + 1) === ceiling(n, d + 1)));
  });
});
