/**
 * Lab 4: tests of your own.
 *
 * Each test gets `t`: `t.create({ frames, keepEmpty })` makes an allocator under test with your functions and
 *
 *     framesHeld() → frames that it has   constructorCalls() → calls of construct so far
 *
 * and `t.check(condition, message)`, `t.equal(actual, expected, message)` complain. A right solution may hand
 * out the objects of a slab in any order: do not expect a certain address where the rules leave a choice.
 */

import type { Tests } from "../given/tests.ts";

export const tests: Tests = {
  "a new cache holds no frame": (t) => {
    const slab = t.create({ frames: 8, keepEmpty: 1 });
    slab.createCache(100, 8, false);
    t.equal(slab.framesHeld(), 0);
  },
};
