/**
 * What lab 2 gives to your own tests.
 *
 * Do not change this file: the grader uses its own copy.
 */

/** An allocator under test. */
export interface BuddyUnderTest {
  give(start: number, end: number): void;
  alloc(order: number): number;
  free(frame: number, order: number): number;
  nrFree(): number;
}

export interface Bench {
  create(config: { frames: number; maxOrder: number }): BuddyUnderTest;
  /** Complains unless `condition` is true. */
  check(condition: boolean, message?: string): void;
  /** Complains unless the two are the same. */
  equal(actual: unknown, expected: unknown, message?: string): void;
}

/** Tests by name. */
export type Tests = Record<string, (t: Bench) => void>;
