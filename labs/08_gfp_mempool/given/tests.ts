/**
 * What lab 8 gives to your own tests.
 *
 * Do not change this file: the grader uses its own copy.
 */

/** Your functions on a machine of the test's. Calls run to their end; `null` is the answer of one that sleeps. */
export interface GfpUnderTest {
  mayBlock(gfp: number): boolean;
  keeps(gfp: number): number;
  /** `isIrq`: in an interrupt. */
  allocPage(gfp: number, isIrq?: boolean): number | null;
  createPool(minNr: number): number | null;
  /** null: the task sleeps; `slept()` says what it gets later. */
  poolAlloc(gfp: number, isIrq?: boolean): number | null;
  poolFree(page: number, isIrq?: boolean): number;
  destroyPool(): number;
  deferFree(object: number, isIrq?: boolean): void;
  /** Runs runDeferred if work was scheduled. */
  work(): void;
  /** An interrupt calls poolFree(page), or deferFree(object), at the k-th call to the machine from now on. */
  arm(k: number, what: "free" | "defer", value: number): void;

  freePages(): number;
  /** Pages that tasks got after they had slept, in their order. */
  slept(): readonly number[];
  /** Objects that were released, in their order. */
  released(): readonly number[];
  /** What the machine complains about: sleeping where it is forbidden, a lock that is waited for for ever. */
  bugs(): readonly string[];
  kswapdWakes(): number;
}

export interface GfpConfig {
  /** Pages that are free at the start, and the marks. */
  pages: number;
  min: number;
  low: number;
  /** Pages that each call of reclaim frees; 0 when the list is at its end. */
  reclaim: readonly number[];
}

export interface Bench {
  create(config: GfpConfig): GfpUnderTest;
  /** Complains unless `condition` is true. */
  check(condition: boolean, message?: string): void;
  /** Complains unless the two are the same. */
  equal(actual: unknown, expected: unknown, message?: string): void;
}

/** Tests by name. */
export type Tests = Record<string, (t: Bench) => void>;
