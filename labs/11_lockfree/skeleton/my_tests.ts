/**
 * Lab 11: tests of your own.
 *
 * Each test gets `t`: `t.create({ free: 3 }).outcomes("p|ppu")` runs the two programs in every order with at most two
 * preemptions, and returns the different ends (given/tests.ts). A right solution may take any node that is free.
 */

import type { Tests } from "../given/tests.ts";

export const tests: Tests = {
  "one CPU takes both nodes": (t) => {
    for (const { taken, left } of t.create({ free: 2 }).outcomes("pp")) {
      t.equal([...(taken[0] ?? [])].sort().join(), "1,2");
      t.equal(left.length, 0);
    }
  },
};
