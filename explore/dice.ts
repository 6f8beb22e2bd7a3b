/**
 * Random stress: at every point any of those that could go on, drawn from a seed. What a stress test amounts to.
 *
 * It is there to be compared with: how often does it meet what a bounded search is sure to find? Its numbers come
 * from a generator of its own (xorshift, 32 bits), so that drivers of labs need no npm package.
 *
 * Source: G. Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
 */

import { nrChoices, nthChoice, type Strategy } from "./strategy.ts";

/** One run for each call of next(), without end. */
export function createDice(seed: number): Strategy {
  // Zero stays zero; neighbouring seeds begin far apart.
  let state = (Math.imul(seed, 0x9e37_79b1) ^ 0x5bd1_e995) >>> 0 || 1;
  const draw = (end: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state = (state ^ (state << 5)) >>> 0;
    return state % end;
  };
  return {
    name: "dice",
    begin() {},
    choose: (choices) => nthChoice(choices, draw(nrChoices(choices))),
    next: () => true,
    isComplete: () => false,
  };
}
