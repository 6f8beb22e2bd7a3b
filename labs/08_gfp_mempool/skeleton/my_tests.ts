/**
 * Lab 8: tests of your own.
 *
 * Each test gets `t`: `t.create({ pages, min, low, reclaim })` makes a machine with your functions on it, of which
 * given/tests.ts says what it can do (interrupts, tasks that sleep, what the machine complains about); and
 * `t.check(condition, message)`, `t.equal(actual, expected, message)` complain. Which page a call gets is open.
 */

import { GFP_ATOMIC } from "../given/api.ts";
import type { Tests } from "../given/tests.ts";

export const tests: Tests = {
  "with enough memory a page is taken and kswapd sleeps on": (t) => {
    const gfp = t.create({ pages: 9, min: 2, low: 4, reclaim: [] });
    gfp.allocPage(GFP_ATOMIC, true);
    t.equal(gfp.freePages(), 8);
    t.equal(gfp.kswapdWakes(), 0);
  },
};
