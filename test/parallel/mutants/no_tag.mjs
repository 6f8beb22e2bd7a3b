/**
 * Mutant: the lock-free depot without its tag. A head that was another one in between, and is the same magazine again,
 * passes for unchanged (ABA). Words with nothing above the slot number, such as locks, compare as they should.
 */

import { JitterPort, pause } from "./jitter.mjs";

const SLOT = 0x3ff;

class NoTagPort extends JitterPort {
  cas(addr, expected, desired) {
    pause();
    const old = this.ldAtomic(addr);
    const isHead = expected > SLOT && old > SLOT;
    const wanted = isHead && (old & SLOT) === (expected & SLOT) ? old : expected;
    const found = super.cas(addr, wanted, desired);
    return found === wanted ? expected : found;
  }
}

export const createPort = (ram) => new NoTagPort(ram);
