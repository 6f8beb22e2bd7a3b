/**
 * Mutant: every thread boots to one different byte.
 */

import { threadId } from "node:worker_threads";
import { ThreadPort } from "../../../dist/kernel/arch/thread_port.js";

class OtherPort extends ThreadPort {
  constructor(ram) {
    super(ram);
    this.st8(0x700, threadId);
  }
}

export const createPort = (ram) => new OtherPort(ram);
