/**
 * What lab 1 gives to your own tests.
 *
 * Do not change this file: the grader uses its own copy.
 */

/** A boot allocator under test. */
export interface BootmemUnderTest {
  alloc(size: number, align: number): number;
  /** The rows of the hand-over list, `[firstFrame, endFrame]` each. */
  handOver(): number[][];
  reservedBytes(): number;
  usedBytes(): number;
}

export interface Machine {
  /** Rows of the firmware map: `[start, end, type]`. */
  map: number[][];
  /** Rows of what is reserved: `[start, end]`. */
  reserved: number[][];
}

export interface Bench {
  create(machine: Machine): BootmemUnderTest;
  /** Complains unless `condition` is true. */
  check(condition: boolean, message?: string): void;
  /** Complains unless the two are the same. Compare lists as text: `t.equal(String(boot.handOver()), "1,4,6,8")`. */
  equal(actual: unknown, expected: unknown, message?: string): void;
}

/** Tests by name. */
export type Tests = Record<string, (t: Bench) => void>;
