/**
 * Strategies that draw: PCT, and plain stress to compare with.
 *
 * *PCT* (probabilistic concurrency testing). CPUs get random priorities, the highest that can run runs; at d − 1 random
 * points of the run the one that is running falls below all others (or takes an interrupt). A bug of d orderings
 * is found by a run of n CPUs and k points with probability ≥ 1 / (n · k^(d−1)), whatever the program: no other
 * strategy promises that. k is learnt from the runs so far.
 *
 * *Stress* is what running the program on a real machine amounts to: time slices of random length, on average
 * `slice` points long, and an interrupt now and then. It is here so that the others can be measured against it.
 *
 * Source: S. Burckhardt, P. Kothari, M. Musuvathi, S. Nagarakatte, ASPLOS 2010.
 */

import type { Prng } from "../kernel/lib/prng.ts";
import { defaultChoice, IRQ, MAX_EXPLORED_CPUS, nrChoices, nthChoice, type Strategy } from "./strategy.ts";

const CPUS = (1 << MAX_EXPLORED_CPUS) - 1;
/** Until a run has told the length. */
const FIRST_GUESS = 64;

/** `depth` ≥ 1: orderings per run. */
export function createPct(prng: Prng, depth: number): Strategy {
  let priorities: number[] = [];
  let changes: number[] = [];
  let length = FIRST_GUESS;
  let point = 0;
  let fallen = 0;

  const highest = (choices: number): number => {
    let best = -1;
    for (let c = 0; c < priorities.length; c++) {
      const isBetter = best < 0 || (priorities[c] as number) > (priorities[best] as number);
      if (((choices >>> c) & 1) !== 0 && isBetter) best = c;
    }
    return best < 0 ? defaultChoice(choices, -1) : best;
  };

  return {
    name: `pct, depth ${depth}`,
    begin(nrCpus) {
      priorities = [];
      for (let c = 0; c < nrCpus; c++) priorities.splice(prng.below(c + 1), 0, c);
      // A permutation of 0 … n − 1; fallen ones go below.
      changes = [];
      for (let i = 1; i < depth; i++) changes.push(prng.below(Math.max(length, 1)));
      point = 0;
      fallen = 0;
    },
    choose(choices, cpu) {
      const interrupt = choices & ~CPUS;
      for (const change of changes) {
        if (change !== point) continue;
        if (interrupt !== 0 && prng.below(2) === 0) {
          point++;
          return nthChoice(interrupt, 0);
        }
        const top = cpu >= 0 ? cpu : highest(choices);
        priorities[top] = --fallen;
      }
      point++;
      return highest(choices & CPUS || choices);
    },
    next() {
      // Slowly forgets a run that was longer than the others.
      length = Math.max(point, Math.ceil(length * 0.9));
      return true;
    },
    isComplete: () => false,
  };
}

/** Time slices of `slice` points on average. */
export function createStress(prng: Prng, slice: number): Strategy {
  return {
    name: `stress, slices of ${slice}`,
    begin() {},
    choose(choices, cpu) {
      const interrupt = choices & ~CPUS;
      if (interrupt !== 0 && prng.below(slice * 4) === 0) return nthChoice(interrupt, 0);
      const cpus = choices & CPUS;
      if (cpus === 0) return nthChoice(choices, 0);
      const canGoOn = cpu >= 0 && ((choices >>> cpu) & 1) !== 0;
      if (canGoOn && prng.below(slice) !== 0) return cpu;
      return nthChoice(cpus, prng.below(nrChoices(cpus)));
    },
    next: () => true,
    isComplete: () => false,
  };
}

if (IRQ !== MAX_EXPLORED_CPUS) throw new Error("pct: choices changed");
