/**
 * Lab 7: tests of your own.
 *
 * Each test gets `t`: `t.create({ objects: 4, size: 2 }).outcomes("p|pu")` runs the programs of two CPUs in every order
 * with at most two preemptions, and returns the different ends (given/tests.ts). A right solution may give any object
 * that is free.
 */

import type { Tests } from "../given/tests.ts";

export const tests: Tests = {
  "two CPUs get two objects": (t) => {
    for (const { taken, left } of t.create({ objects: 2, size: 1 }).outcomes("p|p")) {
      t.equal([...taken.flat()].sort().join(), "1,2");
      t.equal(left.flat().length, 0);
    }
  },
};
