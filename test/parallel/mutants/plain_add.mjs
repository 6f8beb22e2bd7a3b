/**
 * Mutant: fetchAdd as a load and a store. Of two CPUs that count at once one is lost.
 */

import { JitterPort, pause } from "./jitter.mjs";

class PlainAddPort extends JitterPort {
  fetchAdd(addr, delta) {
    const old = this.ld32(addr);
    pause();
    this.st32(addr, old + delta);
    return old;
  }
}

export const createPort = (ram) => new PlainAddPort(ram);
