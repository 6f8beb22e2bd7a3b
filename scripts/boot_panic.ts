/**
 * A kernel that panicked before it ran: with kernel parameters that leave it no memory, for example.
 *
 * A bug before the first task has no task to take with it, so it is the end of the machine, as on a real kernel; it is
 * not the end of slabtown, which says so and exits with 3.
 */

import { KernelBug } from "../kernel/bug.ts";

export class BootPanic extends KernelBug {
  constructor(cause: KernelBug) {
    super(cause.message, []);
    this.name = "BootPanic";
  }

  /** Did memory run out? Then the machine is too small for what it was asked for. */
  get isOutOfMemory(): boolean {
    return /memory|\(-12\)/.test(this.message);
  }

  /** The last lines of the console. */
  screen(): string {
    return `kernel BUG: ${this.message}\nKernel panic - not syncing: ${this.message}\n`;
  }
}
