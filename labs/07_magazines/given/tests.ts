/**
 * What lab 7 gives to your own tests.
 *
 * Do not change this file: the grader uses its own copy.
 */

/** How one interleaving ended. */
export interface Outcome {
  /** What each CPU got, in the order in which it did; 0 for an alloc that found nothing. */
  readonly taken: readonly (readonly number[])[];
  /** What was free in the end: what each CPU, one after the other and alone, gets until alloc says 0. */
  readonly left: readonly (readonly number[])[];
}

export interface MagazinesUnderTest {
  /**
   * Runs programs on CPUs, `p|pu` on two of them, in every order with at most two preemptions; the different ends.
   * `p` alloc, `u` free what this CPU got first, `U` what it got last, `d` drain. Throws if a run is stopped: a
   * deadlock, two CPUs at one word without a lock between them, a lock that is kept.
   */
  outcomes(programs: string): readonly Outcome[];
}

export interface Setup {
  readonly objects: number;
  /** Of a magazine. */
  readonly size: number;
  /** Programs of the CPUs that run before, one after the other; what they hold at the end they still hold. */
  readonly before?: string;
  /** What an interrupt does, once at most on each CPU, wherever interrupts are on; `pu` if it comes at all. */
  readonly interrupt?: string;
}

export interface Bench {
  create(setup: Setup): MagazinesUnderTest;
  /** Complains unless `condition` is true. */
  check(condition: boolean, message?: string): void;
  /** Complains unless the two are the same. */
  equal(actual: unknown, expected: unknown, message?: string): void;
}

/** Tests by name. */
export type Tests = Record<string, (t: Bench) => void>;
