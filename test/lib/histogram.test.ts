/**
 * Goal: the histogram keeps its promises about error, exactness and merging for any values up to 2^53.
 * Method: random values of all magnitudes against the sorted list of them (nearest-rank percentiles), and the bucket
 * scheme walked from end to end at each power of two.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createHistogram, type Histogram } from "../../kernel/lib/histogram.ts";

const MAX_VALUE = 2 ** 53;

/** Values of all magnitudes: a mantissa and a number of bits. */
const value = fc
  .tuple(fc.integer({ min: 0, max: 53 }), fc.double({ min: 0, max: 1, noNaN: true }))
  .map(([bits, part]) => Math.floor(part * 2 ** bits));

function histogramOf(values: readonly number[]): Histogram {
  const histogram = createHistogram();
  for (const v of values) histogram.record(v);
  return histogram;
}

/** Nearest rank, in whole per mille so that the oracle has no rounding of its own. */
function exactPercentile(sorted: readonly number[], perMille: number): number {
  const rank = Math.max(1, Number((BigInt(perMille) * BigInt(sorted.length) + 999n) / 1000n));
  return sorted[rank - 1] as number;
}

describe("histogram", () => {
  it("is 0 everywhere when empty", () => {
    const { count, sum, min, max, percentile, buckets } = createHistogram();
    expect([count, sum, min, max, percentile(50), percentile(100)]).toEqual([0, 0, 0, 0, 0, 0]);
    expect(buckets()).toEqual([]);
  });

  it("HIST-1 puts each value into one bucket that holds it and is at most 1/32 wide", () => {
    const check = (v: number) => {
      const [bucket, ...others] = histogramOf([v]).buckets();
      const [from, to, count] = bucket as readonly [number, number, number];
      expect(others).toEqual([]);
      expect(count).toBe(1);
      expect(from <= v && v < to, `${from} ≤ ${v} < ${to}`).toBe(true);
      expect(to - from).toBeLessThanOrEqual(Math.max(1, from / 32));
    };
    for (let bits = 0; bits <= 53; bits++) for (const v of [2 ** bits - 1, 2 ** bits]) check(v);
    fc.assert(fc.property(value, check));
  });

  it("HIST-1 buckets are adjacent around each power of two", () => {
    for (let bits = 5; bits < 53; bits++) {
      const step = Math.max(1, 2 ** (bits - 5));
      const values = Array.from({ length: 64 }, (_, i) => 2 ** bits + i * step);
      const starts = histogramOf([...values.map((v) => v - 1), ...values]).buckets();
      starts.slice(1).forEach(([from], i) => {
        expect(from, `bits ${bits}`).toBe(starts[i]?.[1]);
      });
    }
  });

  it("is exact below 64", () => {
    const values = Array.from({ length: 64 }, (_, i) => i);
    expect(histogramOf(values).buckets()).toEqual(values.map((v) => [v, v + 1, 1]));
  });

  it("HIST-2 percentiles never understate and overstate by at most 1/32", () => {
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 200 }), fc.integer({ min: 0, max: 1000 }), (values, p) => {
        const histogram = histogramOf(values);
        const sorted = [...values].sort((a, b) => a - b);
        const exact = exactPercentile(sorted, p);
        const got = histogram.percentile(p / 10);
        expect(got).toBeGreaterThanOrEqual(exact);
        expect(got).toBeLessThanOrEqual(Math.min(exact * (1 + 1 / 32), histogram.max));
        expect([histogram.min, histogram.max]).toEqual([sorted[0], sorted.at(-1)]);
        expect(histogram.count).toBe(values.length);
      }),
    );
  });

  it("HIST-2 a rank that is a whole number is not rounded up", () => {
    // In floating point, 99.9 · 41,000 / 100 is a little more than 40,959.
    const histogram = histogramOf(Array.from({ length: 41_000 }, (_, i) => (i < 40_959 ? 1 : 50)));
    expect([99.9, 99.91, 100].map(histogram.percentile)).toEqual([1, 50, 50]);
  });

  it("HIST-3 merging equals recording everything in one", () => {
    fc.assert(
      fc.property(fc.array(value), fc.array(value), (some, more) => {
        const merged = histogramOf(some);
        const other = histogramOf(more);
        merged.merge(other);
        const whole = histogramOf([...some, ...more]);
        expect(merged.buckets()).toEqual(whole.buckets());
        expect([merged.count, merged.min, merged.max]).toEqual([whole.count, whole.min, whole.max]);
        expect(merged.sum).toBeCloseTo(whole.sum, -4);
        expect(other.count).toBe(more.length);
      }),
    );
  });

  it("ignores what is no latency", () => {
    const histogram = histogramOf([-1, Number.NaN, Number.POSITIVE_INFINITY, MAX_VALUE * 2]);
    expect(histogram.count).toBe(0);
    expect(histogram.buckets()).toEqual([]);
    histogram.record(MAX_VALUE);
    expect([histogram.count, histogram.percentile(50), histogram.max]).toEqual([1, MAX_VALUE, MAX_VALUE]);
  });

  it("survives JSON", () => {
    const histogram = histogramOf([3, 70, 70, 2 ** 40]);
    expect(JSON.parse(JSON.stringify(histogram.buckets()))).toEqual([
      [3, 4, 1],
      [70, 72, 2],
      [2 ** 40, 2 ** 40 + 2 ** 35, 1],
    ]);
  });
});
