/**
 * What lab 4 gives to your own tests.
 *
 * Do not change this file: the grader uses its own copy.
 */

/** An allocator under test, with two counters of what it asked the machine for. */
export interface SlabUnderTest {
  createCache(size: number, align: number, hasConstructor: boolean): number;
  alloc(cache: number): number;
  free(address: number): number;
  cacheOf(address: number): number;
  inUse(cache: number): number;
  shrink(cache: number): number;
  destroyCache(cache: number): number;
  /** Frames that the allocator has. */
  framesHeld(): number;
  /** Calls of construct so far. */
  constructorCalls(): number;
}

export interface Bench {
  create(config: { frames: number; keepEmpty: number }): SlabUnderTest;
  /** Complains unless `condition` is true. */
  check(condition: boolean, message?: string): void;
  /** Complains unless the two are the same. */
  equal(actual: unknown, expected: unknown, message?: string): void;
}

/** Tests by name. */
export type Tests = Record<string, (t: Bench) => void>;
