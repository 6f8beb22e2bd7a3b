/**
 * How much V8 may inline while a steady state is measured: a setting of the compiler, for all subjects alike.
 *
 * An allocation goes through a dozen small functions of five rooms, each with its own duty and its own page to read.
 * V8 makes one piece of code of them only within a budget: 460 bytecodes for a callee, 920 for all callees of a
 * function. Beyond it each function becomes a call of 2.4 ns, and `kmalloc`, `kfree` and their caller are 2,000.
 *
 * The larger budget is right for millions of equal operations and wrong for a run of seconds: compiling takes longer
 * than it saves (a replay of redis, 2.1 M operations: 1.6 times the time; 2026, Node 20). So `slabtown run` and the
 * figures of whole replays have V8's own budget. docs/performance.md has the figures with and without.
 */

import { setFlagsFromString } from "node:v8";

/** From here on this process compiles for a steady state. */
export function inlineForSteadyState(): void {
  setFlagsFromString("--max-inlined-bytecode-size=1500");
  setFlagsFromString("--max-inlined-bytecode-size-cumulative=4000");
}
