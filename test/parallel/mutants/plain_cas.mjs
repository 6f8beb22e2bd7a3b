/**
 * Mutant: compare-and-swap as a load and a store. Two CPUs can both find a lock free and both take it.
 */

import { JitterPort, pause } from "./jitter.mjs";

class PlainCasPort extends JitterPort {
  cas(addr, expected, desired) {
    const old = this.ld32(addr);
    pause();
    if (old === expected) this.st32(addr, desired);
    return old;
  }
}

export const createPort = (ram) => new PlainCasPort(ram);
