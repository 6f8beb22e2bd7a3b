/**
 * What lab 11 gives to your own tests.
 *
 * Do not change this file: the grader uses its own copy.
 */

/** How one interleaving ended. */
export interface Outcome {
  /** What each CPU took, in the order in which it did; 0 for a pop that found nothing. */
  readonly taken: readonly (readonly number[])[];
  /** What was free in the end, taken by pop until it said 0. */
  readonly left: readonly number[];
}

export interface FreelistUnderTest {
  /**
   * Runs programs on CPUs, `p|ppu` on two of them, in every order with at most two preemptions; the different ends.
   * `p` pop, `u` push what this CPU took first, `U` what it took last, `r` refill(2), `R` refill(3).
   */
  outcomes(programs: string): readonly Outcome[];
}

export interface Bench {
  /** Nodes 1 … free are free, 1 is taken first by most; `hold`: nodes behind, which each CPU holds from the start. */
  create(config: { free: number; hold?: readonly number[]; firstTag?: number }): FreelistUnderTest;
  /** Complains unless `condition` is true. */
  check(condition: boolean, message?: string): void;
  /** Complains unless the two are the same. */
  equal(actual: unknown, expected: unknown, message?: string): void;
}

/** Tests by name. */
export type Tests = Record<string, (t: Bench) => void>;
