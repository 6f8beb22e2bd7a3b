/**
 * The judge of lab 8 about mightSleep(): whoever may sleep says so first, also if it does not sleep this time.
 */

import { maskName, mayBlock } from "./model.ts";
import { fail, ownEvents, type Seen, show, type Verdict } from "./verdict.ts";

/** GFP-2. */
export function judgeMight(name: string, gfp: number, seen: Seen): Verdict {
  const events = ownEvents(seen);
  const call = `${name}(${maskName(gfp)})`;
  const nr = events.filter(([what]) => what === "might").length;
  if (!mayBlock(gfp)) return nr === 0 ? null : fail("might", `${call} must not sleep and says that it might`);
  if (nr === 0) return fail("might", `${call} may sleep and does not say so: mightSleep() is not called`);
  return events[0]?.[0] === "might" ? null : fail("might", `${call} calls ${show(events[0]?.[0])} before mightSleep()`);
}
