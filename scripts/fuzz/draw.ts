/**
 * Drawing: random choices from a named stream, so that a run of the fuzzer is a pure function of its seed and number.
 */

import { createRandomStreams } from "../../kernel/lib/prng.ts";

export interface Draw {
  /** A whole number in [min, max]. */
  whole(min: number, max: number): number;
  /** A whole number in [min, max]: each power of two is as likely as the next. */
  spread(min: number, max: number): number;
  /** True in `percent` of 100. */
  chance(percent: number): boolean;
  /** One of `choices`, of which there is at least one. */
  of<const T>(choices: readonly T[]): T;
  /** `min` to `max` results of `make`. */
  list<T>(min: number, max: number, make: () => T): T[];
}

/** The choices of run number `run` of the fuzzer with `seed`. */
export function createDraw(seed: string, run: number): Draw {
  const random = createRandomStreams(`${seed}:${run}`).stream("fuzz");
  const whole = (min: number, max: number): number => min + Math.floor(random.next() * (max - min + 1));
  return {
    whole,
    spread(min, max) {
      const low = Math.log2(min + 1);
      const high = Math.log2(max + 2);
      return Math.min(max, Math.max(min, Math.floor(2 ** (low + random.next() * (high - low))) - 1));
    },
    chance: (percent) => random.next() * 100 < percent,
    of: (choices) => choices[Math.floor(random.next() * choices.length)] as (typeof choices)[number],
    list: (min, max, make) => Array.from({ length: whole(min, max) }, make),
  };
}
