/**
 * No mutant: the real port, with pauses around its atomic operations. Now and then the thread sleeps there, in the
 * middle of a critical section or just before it, and another thread runs: a window of a few nanoseconds becomes one
 * of a tenth of a millisecond, also on a computer with one processor.
 */

import { threadId } from "node:worker_threads";
import { ThreadPort } from "../../../dist/kernel/arch/thread_port.js";

let state = 0x2545_f491 + threadId * 0x9e37;
const bed = new Int32Array(new SharedArrayBuffer(4));

/** One call in 8 sleeps. */
export function pause() {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  if ((state & 7) === 0) Atomics.wait(bed, 0, 0, 0.05);
}

export class JitterPort extends ThreadPort {
  stAtomic(addr, value) {
    pause();
    super.stAtomic(addr, value);
  }
  cas(addr, expected, desired) {
    const old = super.cas(addr, expected, desired);
    pause();
    return old;
  }
  fetchAdd(addr, delta) {
    pause();
    return super.fetchAdd(addr, delta);
  }
}

export const createPort = (ram) => new JitterPort(ram);
