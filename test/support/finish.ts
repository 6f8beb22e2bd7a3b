/**
 * What may sleep, run to its end where there is no scheduler.
 */

import type { MaySleep } from "../../kernel/types.ts";

/** Runs what may sleep to its end, as a scheduler would. */
export function finish<T extends number>(result: MaySleep<T>): T {
  if (typeof result === "number") return result;
  for (;;) {
    const step = result.next();
    if (step.done === true) return step.value;
  }
}
