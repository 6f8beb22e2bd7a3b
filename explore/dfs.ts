/**
 * Bounded-preemption search: every schedule with at most so many preemptions and interrupts, none twice.
 *
 * Depth first over the tree of choices. The default choice comes first; after each run the deepest point that still has
 * an untried alternative takes it, and the run after it follows the defaults. Changing from a CPU that waits or has
 * ended is free. Most concurrency bugs need one or two preemptions (M. Musuvathi, S. Qadeer, PLDI 2007), and the number
 * of schedules with b of them grows only with the b-th power of the length.
 *
 *   point      0    1    2    3            tried ▪  untried ▫
 *   choices    ▪▫   ▪    ▪▫   ▪▪           next run: 0 1 2 as before, then the other choice at 2
 *
 *   DFS-1  no two runs make the same choices
 *   DFS-2  complete: each sequence of choices with at most `bound` preemptions was run
 */

import { defaultChoice, isPreemption, lowest, type Strategy } from "./strategy.ts";

export function createDfs(bound: number): Strategy {
  // One entry per point of the current run: what was taken, what is still to be tried, the preemptions before it.
  const taken: number[] = [];
  const untried: number[] = [];
  let depth = 0;
  let nrPreemptions = 0;
  let known = 0;
  let isOver = false;
  // What is needed to count a preemption when an alternative is taken again from the stack.
  const costs: number[] = [];

  return {
    name: `dfs, bound ${bound}`,
    begin() {
      known = taken.length;
      depth = 0;
      nrPreemptions = 0;
    },
    choose(choices, cpu) {
      const at = depth++;
      if (at >= known) {
        const first = defaultChoice(choices, cpu);
        let rest = choices & ~(1 << first);
        if (nrPreemptions >= bound && rest !== 0) {
          for (let left = rest; left !== 0; left &= left - 1) {
            if (isPreemption(choices, cpu, lowest(left))) rest &= ~(left & -left);
          }
        }
        taken[at] = first;
        untried[at] = rest;
        costs[at] = 0;
        return first;
      }
      const choice = taken[at] as number;
      if (at === known - 1) costs[at] = isPreemption(choices, cpu, choice) ? 1 : 0;
      nrPreemptions += costs[at] as number;
      return choice;
    },
    next() {
      taken.length = depth;
      untried.length = depth;
      costs.length = depth;
      while (untried.length > 0) {
        const rest = untried[untried.length - 1] as number;
        if (rest !== 0) {
          taken[taken.length - 1] = lowest(rest);
          untried[untried.length - 1] = rest & (rest - 1);
          return true;
        }
        untried.pop();
        taken.pop();
        costs.pop();
      }
      isOver = true;
      return false;
    },
    isComplete: () => isOver,
  };
}

/** All schedules with 0 preemptions, then with at most 1, …: what is found first has as few as any. */
export function createDeepening(maxBound: number): Strategy & { readonly bound: () => number } {
  let bound = 0;
  let inner = createDfs(0);
  return {
    name: `dfs, bounds 0 to ${maxBound}`,
    bound: () => bound,
    begin: (nrCpus) => inner.begin(nrCpus),
    choose: (choices, cpu, pos) => inner.choose(choices, cpu, pos),
    next() {
      if (inner.next()) return true;
      if (bound >= maxBound) return false;
      inner = createDfs(++bound);
      return true;
    },
    isComplete: () => bound >= maxBound && inner.isComplete(),
  };
}
