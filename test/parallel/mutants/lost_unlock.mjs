/**
 * Mutant: one store that releases a lock is lost.
 */

import { threadId } from "node:worker_threads";
import { ThreadPort } from "../../../dist/kernel/arch/thread_port.js";

let calls = threadId;

class LostUnlockPort extends ThreadPort {
  stAtomic(addr, value) {
    if (value === 0 && ++calls === 2_500) return;
    super.stAtomic(addr, value);
  }
}

export const createPort = (ram) => new LostUnlockPort(ram);
