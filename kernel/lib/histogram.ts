/**
 * Latency histogram: any integer up to 2^53 in 1,600 counters, with at most 3.2 % error.
 *
 * Latencies spread over many powers of ten and their tail matters, so neither equal buckets nor a mean will do. Here a
 * power of two is cut into 32 equal buckets: a bucket is at most 1/32 of its lowest value wide, wherever it lies.
 *
 *   value    0 … 63        64 … 127    128 … 255    256 … 511   …   2^52 … 2^53 − 1
 *   width    1 (exact)     2           4            8               2^47
 *   index    0 … 63        64 … 95     96 … 127     128 … 159       1,536 … 1,567
 *
 * For a value at or above 64 with highest bit e, drop the lowest `e − 5` bits: what is left is 32 … 63, and the index
 * is `32·(e − 5)` plus that. Below 64 the same formula with nothing dropped gives the value itself.
 *
 *   HIST-1  Buckets are half-open, adjacent, and (to − from) ≤ max(1, from / 32).
 *   HIST-2  percentile(p) is the upper end of the bucket that holds the exact percentile (nearest rank), never above
 *           max: it may overstate a latency by up to 1/32 and never understates it.
 *   HIST-3  Merging two histograms gives the same buckets, count, sum, min and max as recording all values in one.
 *
 * The counters are host memory, not RAM of the machine: this is an observer, and watching must not change what the
 * kernel does. Source: the bucket scheme of HdrHistogram (Gil Tene) with 5 bits of precision.
 */

/** Below 2^6 = 64 each value has its own bucket; the halves of each further power of two have 2^5 buckets together. */
const SUB_BITS = 5;
const NR_SUB = 1 << SUB_BITS;
const EXACT_BELOW = 2 * NR_SUB;
const MAX_VALUE = 2 ** 53;
/** Largest shift is that of 2^53 itself. */
const MAX_SHIFT = 53 - SUB_BITS;
const NR_BUCKETS = (MAX_SHIFT + 2) * NR_SUB;
const TWO_TO_32 = 4_294_967_296;

/** [from, to, count] with from ≤ value < to. */
export type HistogramBucket = readonly [from: number, to: number, count: number];

export interface Histogram {
  /** Counts a value, 0 ≤ value ≤ 2^53; a number outside is ignored. O(1). Context: any. */
  record(value: number): void;
  /** Number of values recorded. */
  readonly count: number;
  /** Their sum; exact as long as it stays below 2^53. */
  readonly sum: number;
  /** Least and greatest value, exact; 0 when nothing was recorded. */
  readonly min: number;
  readonly max: number;
  /** Value that `p` percent (0 … 100) of the values do not exceed (HIST-2); 0 when nothing was recorded. O(buckets). */
  percentile(p: number): number;
  /** Adds what `other` has recorded (HIST-3). `other` stays as it is. */
  merge(other: Histogram): void;
  /** The buckets that are not empty, in order, ready for JSON. */
  buckets(): HistogramBucket[];
}

const NO_COUNTS = new Float64Array(0);

/** An empty histogram: 12.5 KiB of host memory from the first value on. */
export function createHistogram(): Histogram {
  let counts = NO_COUNTS;
  let nrValues = 0;
  let sum = 0;
  let min = 0;
  let max = 0;

  const record = (value: number): void => {
    if (!(value >= 0 && value <= MAX_VALUE)) return;
    if (counts === NO_COUNTS) counts = new Float64Array(NR_BUCKETS);
    const index = indexOf(value);
    counts[index] = (counts[index] as number) + 1;
    if (nrValues === 0 || value < min) min = value;
    if (value > max) max = value;
    nrValues++;
    sum += value;
  };

  const percentile = (p: number): number => {
    if (nrValues === 0) return 0;
    // 99.9 % of 1000 must be rank 999, not the ceiling of 999.0000000000001: four rounding steps of slack.
    const rank = Math.max(1, Math.ceil(((p * nrValues) / 100) * (1 - 2 ** -50)));
    if (rank >= nrValues) return max;
    let seen = 0;
    for (let index = 0; index < NR_BUCKETS; index++) {
      seen += counts[index] as number;
      if (seen >= rank) return Math.min(bucketStart(index + 1) - 1, max);
    }
    return max;
  };

  const merge = (other: Histogram): void => {
    if (other.count === 0) return;
    if (counts === NO_COUNTS) counts = new Float64Array(NR_BUCKETS);
    if (nrValues === 0 || other.min < min) min = other.min;
    if (other.max > max) max = other.max;
    nrValues += other.count;
    sum += other.sum;
    for (const [from, , count] of other.buckets()) {
      const index = indexOf(from);
      counts[index] = (counts[index] as number) + count;
    }
  };

  const buckets = (): HistogramBucket[] => {
    const filled: HistogramBucket[] = [];
    counts.forEach((count, index) => {
      if (count !== 0) filled.push([bucketStart(index), bucketStart(index + 1), count]);
    });
    return filled;
  };

  return {
    record,
    percentile,
    merge,
    buckets,
    get count() {
      return nrValues;
    },
    get sum() {
      return sum;
    },
    get min() {
      return min;
    },
    get max() {
      return max;
    },
  };
}

/** Bucket of `value`, 0 ≤ value ≤ 2^53. A fraction falls into the bucket of its floor. */
function indexOf(value: number): number {
  if (value < EXACT_BELOW) return value | 0;
  if (value < TWO_TO_32) {
    const shift = 31 - SUB_BITS - Math.clz32(value);
    return shift * NR_SUB + (value >>> shift);
  }
  const shift = 63 - SUB_BITS - Math.clz32(value / TWO_TO_32);
  return shift * NR_SUB + Math.floor(value / 2 ** shift);
}

/** Lowest value of a bucket. */
function bucketStart(index: number): number {
  if (index < EXACT_BELOW) return index;
  const shift = Math.floor(index / NR_SUB) - 1;
  return (NR_SUB + (index % NR_SUB)) * 2 ** shift;
}

if (indexOf(MAX_VALUE) >= NR_BUCKETS) throw new Error("histogram: the greatest value has no bucket");
if (indexOf(EXACT_BELOW) !== EXACT_BELOW) throw new Error("histogram: the exact buckets and the others do not meet");
