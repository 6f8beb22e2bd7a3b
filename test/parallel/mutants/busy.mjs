/**
 * No mutant: every other compare-and-swap finds the word taken by a CPU that is gone at the next look, as if many CPUs
 * met at once. So magazines grow (M6).
 */

import { ThreadPort } from "../../../dist/kernel/arch/thread_port.js";

const SOMEBODY = 64;

class BusyPort extends ThreadPort {
  cas(addr, expected, desired) {
    this.wasRefused = !this.wasRefused;
    if (this.wasRefused && expected === 0) return SOMEBODY;
    return super.cas(addr, expected, desired);
  }
}

export const createPort = (ram) => new BusyPort(ram);
