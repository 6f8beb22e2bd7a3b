/**
 * The judge of lab 8 about deferred frees: which objects wait for their end.
 */

import { fail, hasLock, type Seen, show, type Verdict } from "./verdict.ts";

export class Deferred {
  readonly pending: number[] = [];
  isScheduled = false;

  /** An interrupt has deferred `object`. */
  note(object: number): void {
    this.pending.push(object);
  }

  defer(object: number, seen: Seen): Verdict {
    const { events } = seen;
    if (events.some(([what]) => what === "release"))
      return fail("early-release", `deferFree(${object}) releases, which may sleep, in the context of its caller`);
    if (!hasLock(seen)) return fail("no-lock", "deferFree changes the list of objects without the lock");
    const wasEmpty = this.pending.length === 0;
    const nrBefore = this.pending.length;
    for (const [what, handler, arg] of events) if (what === "handler" && handler === "defer") this.note(Number(arg));
    const nrWorks = events.filter(([what]) => what === "work").length;
    this.pending.push(object);
    if (nrWorks > 0) this.isScheduled = true;
    if (wasEmpty && nrWorks === 0) return fail("no-work", `nobody is asked to run: ${object} is the first on the list`);
    if (nrWorks > (wasEmpty ? 1 : 0))
      return fail("no-work", `a run is asked for again; ${nrBefore} objects are on the list already`);
    return null;
  }

  run(seen: Seen): Verdict {
    const { events } = seen;
    if (!this.isScheduled && events.length === 0) return null;
    this.isScheduled = false;
    for (const [what, a, b] of events) {
      if (what === "handler" && a === "defer") this.note(Number(b));
      if (what === "work") this.isScheduled = true;
      if (what !== "release") continue;
      const at = this.pending.indexOf(Number(a));
      if (at < 0) return fail("release-twice", `object ${show(a)} is released, but does not wait for it (any more)`);
      this.pending.splice(at, 1);
    }
    if (!hasLock(seen)) return fail("no-lock", "runDeferred takes the list of objects without the lock");
    const [left] = this.pending;
    if (left === undefined || this.isScheduled) return null;
    return fail("lost-object", `object ${left} is not released, and no other run is asked for`);
  }
}
