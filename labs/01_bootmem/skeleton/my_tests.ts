/**
 * Lab 1: tests of your own.
 *
 * Each test gets `t`: `t.create({ map, reserved })` makes a boot allocator under test for a machine; `map` has rows
 * [start, end, type], `reserved` has rows [start, end]. Its operations are
 *
 *     alloc(size, align) → address or −1   handOver() → [[firstFrame, endFrame], …]   reservedBytes()   usedBytes()
 *
 * and `t.check(condition, message)`, `t.equal(actual, expected, message)` complain. Compare lists as text:
 * `t.equal(String(boot.handOver()), "1,4,6,8")`.
 */

import type { Tests } from "../given/tests.ts";

export const tests: Tests = {
  "the first allocation is the first byte of memory": (t) => {
    const boot = t.create({ map: [[0x1000, 0x9000, 1]], reserved: [] });
    t.equal(boot.alloc(16, 16), 0x1000);
  },
};
