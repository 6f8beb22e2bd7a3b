/**
 * Random numbers for programs: xorshift32, a few lines that a program can carry itself.
 *
 * George Marsaglia, "Xorshift RNGs" (2003): period 2^32 − 1, never 0. Good enough to choose sizes with; the kernel
 * and its devices draw from the run's seeded streams instead.
 */

export interface Random {
  /** Uniform integer in [0, n), for 1 ≤ n ≤ 2^32. */
  below(n: number): number;
  /** In [1, max], small ones more often: each power of two equally likely. */
  size(max: number): number;
}

export function createRandom(seed: number): Random {
  // Any seed will do but 0, from which xorshift does not move; the multiplication spreads neighbouring seeds.
  let state = Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) >>> 0 || 1;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  const below = (n: number): number => Math.floor((next() / 2 ** 32) * n);
  return {
    below,
    size(max) {
      const top = 2 ** below(Math.floor(Math.log2(max)) + 1);
      return Math.min(max, top + below(top));
    },
  };
}
