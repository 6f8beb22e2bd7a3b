/**
 * How much V8 may inline: settings of the host's compiler, for every entry file that runs a kernel.
 *
 * An allocation goes through a dozen small functions of five rooms, each with its own duty and its own page to read.
 * V8 makes one piece of code of them only within a budget: 460 bytecodes for a callee, 920 for all callees of a
 * function. Beyond it each function becomes a call, and `kmalloc`, `kfree` and their caller are 1,100. With a larger
 * budget a pair of them takes 11 instead of 18 ns (2026, Node 20; docs/performance.md). Nothing else depends on it.
 *
 * Imported for its effect, first: it holds for what is compiled afterwards.
 */

import { setFlagsFromString } from "node:v8";

setFlagsFromString("--max-inlined-bytecode-size=1500");
setFlagsFromString("--max-inlined-bytecode-size-cumulative=4000");
