/**
 * Lab 2: tests of your own.
 *
 * Each test gets `t`: `t.create({ frames, maxOrder })` makes an allocator under test with the operations
 *
 *     give(start, end)   alloc(order) → frame   free(frame, order) → 0 or −22   nrFree() → number
 *
 * and `t.check(condition, message)`, `t.equal(actual, expected, message)` complain. A right solution may choose any
 * block that the rules allow: do not expect a certain frame where the rules leave a choice.
 */

import type { Tests } from "../given/tests.ts";

export const tests: Tests = {
  "a new allocator has nothing": (t) => {
    const buddy = t.create({ frames: 8, maxOrder: 3 });
    t.equal(buddy.nrFree(), 0);
  },
};
