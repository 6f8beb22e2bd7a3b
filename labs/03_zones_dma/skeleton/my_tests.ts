/**
 * Lab 3: tests of your own.
 *
 * Each test gets `t`: `t.create({ zones, slots })` makes a machine with your functions on it and
 *
 *     cpuWrite(address, value)  cpuRead(address)  deviceWrite(bus, value)  deviceRead(bus)
 *     freeFrames(zone) → frames that are free     wakes() → calls of wakeReclaim so far
 *
 * and `t.check(condition, message)`, `t.equal(actual, expected, message)` complain. A right solution may choose slots
 * and free blocks of a pool as it likes: do not expect a certain address where the rules leave a choice.
 */

import type { DmaConfig, Tests } from "../given/tests.ts";

/** DMA, DMA32, NORMAL: start, end, min, low, ratio. Slots are the frames 1 and 2. */
const SMALL: DmaConfig = {
  zones: [
    [3, 11, 1, 2, 4],
    [11, 17, 1, 2, 4],
    [17, 26, 1, 2, 0],
  ],
  slots: 4,
};

export const tests: Tests = {
  "a new machine gives frames of the zone that was asked for": (t) => {
    const dma = t.create(SMALL);
    t.equal(dma.allocPages(2, 0, false), 17);
    t.equal(dma.freeFrames(2), 8);
  },
};
