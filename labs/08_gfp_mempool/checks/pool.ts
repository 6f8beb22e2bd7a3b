/**
 * The judge of lab 8 about the mempool, and about deferred frees.
 *
 * | kind          | the claim                                                                        |
 * |---------------|----------------------------------------------------------------------------------|
 * | pool-create   | too few or too many pages in reserve; a failure that keeps some          (MPL-1) |
 * | pool-order    | not asked in order: allocator without sleeping, reserve, full mask       (MPL-2) |
 * | reserve-unused, gives-up   | no page although the reserve has one; no page for who may sleep (MPL-3) |
 * | lost-wakeup   | a task sleeps while a page is in reserve                                 (MPL-4) |
 * | refill, overfull   | a freed page that leaves the reserve short; that is one too many    (MPL-5) |
 * | bad-free, free-kept, twice   | of frees; a page handed out that is out                   (MPL-6) |
 * | destroy       | with pages out, or without all of the reserve                            (MPL-7) |
 * | leak          | a page that nobody has                                                   (MPL-5) |
 * | no-work, early-release   | no run asked for, or once too often; released in deferFree    (DEF-1) |
 * | lost-object, release-twice   | an object that is never ended, or twice                   (DEF-2) |
 *
 * With an interrupt in the midst of a call the order of its requests is not judged, but where each page is.
 */

import type { Json } from "../../kit/program.ts";
import { EBUSY, EINVAL, ENOMEM, GFP_KERNEL, NO_PAGE } from "../given/api.ts";
import { Deferred } from "./deferred.ts";
import { judgeMight } from "./might.ts";
import { allocate, allocateFromPool, type Call, type Memory, maskName, mayBlock, type Source } from "./model.ts";
import { callsOf, count, type Event, fail, hadInterrupt, hasLock, type Seen, show, type Verdict } from "./verdict.ts";

export class Pool {
  readonly reserve = new Set<number>();
  /** Operation that got each page that is out. */
  readonly out = new Map<number, number>();
  /** Operations whose task sleeps. */
  readonly asleep = new Set<number>();
  readonly deferred = new Deferred();
  minNr = 0;
  readonly #memory: Memory;
  readonly #name: (op: number) => string;
  /** Pages taken in this operation that nobody has yet. */
  #fresh = new Set<number>();

  constructor(memory: Memory, name: (op: number) => string) {
    this.#memory = memory;
    this.#name = name;
  }

  create(minNr: number, seen: Seen): Verdict {
    const { value } = seen;
    const calls = callsOf(seen);
    const expected: Call[] = [];
    let nr = 0;
    while (nr < minNr && allocate(this.#memory, GFP_KERNEL, expected)) nr++;
    const isComplete = nr === minNr;
    const taken = new Set(calls.filter(([what]) => what === "take").map(([, page]) => Number(page)));
    for (const [what, page] of calls) {
      if (what === "give" && !taken.delete(Number(page)))
        return fail("pool-create", `createPool gives page ${show(page)}`);
    }
    const isRight = value === (isComplete ? 0 : -ENOMEM);
    if (!isRight) return fail("pool-create", `createPool(${minNr}) returns ${show(value)} with ${nr} pages to be had`);
    if (taken.size !== (isComplete ? minNr : 0))
      return fail("pool-create", `createPool(${minNr}) returns ${value} and keeps ${count(taken.size, "page")}`);
    if (!isComplete) this.#memory.free += nr;
    else for (const page of taken) this.reserve.add(page);
    this.minNr = isComplete ? minNr : 0;
    return null;
  }

  take(gfp: number, op: number, seen: Seen): Verdict {
    const call = `poolAlloc(${maskName(gfp)})`;
    const might = judgeMight("poolAlloc", gfp, seen);
    if (might !== null) return might;
    if (seen.value === NO_PAGE && mayBlock(gfp)) return fail("gives-up", `${call} fails; who may sleep gets a page`);
    let source: Source | null = null;
    if (!hadInterrupt(seen)) {
      const expected: Call[] = [];
      source = allocateFromPool({ ...this.#memory }, gfp, this.reserve.size, expected);
      const verdict = this.#judgeOrder(call, expected, seen);
      if (verdict !== null) return verdict;
      if (source === "reserve" && seen.value === NO_PAGE)
        return fail(
          "reserve-unused",
          `${call} finds nothing although ${count(this.reserve.size, "page")} are in reserve`,
        );
    }
    if (
      seen.value === null &&
      !seen.events.some(([what, task]) => (what === "asleep" || what === "done") && task === op)
    )
      return fail("gives-up", `${call} neither returns a page nor sleeps on the wait queue`);
    if (source !== null && source !== "machine" && !hasLock(seen))
      return fail("no-lock", `${call} looks at the reserve without the lock`);
    return this.#account(seen, op);
  }

  #judgeOrder(call: string, expected: readonly Call[], seen: Seen): Verdict {
    const actual = callsOf(seen).filter(([what]) => what !== "give");
    for (let i = 0; i < Math.max(expected.length, actual.length); i++) {
      const [want, mask] = expected[i] ?? ["end"];
      const [what, given] = actual[i] ?? ["end"];
      if (want === what && (want !== "reclaim" || mask === given)) continue;
      const free = `${this.#memory.free} pages free, ${this.reserve.size} in reserve`;
      const text = (name: Json, bits: unknown): string =>
        name === "end" ? "return" : name === "reclaim" ? `reclaim(${maskName(Number(bits))})` : String(name);
      return fail(
        "pool-order",
        `${call}, call ${i + 1}: ${text(want, mask)} is due, not ${text(what ?? null, given)}; ${free}`,
      );
    }
    return null;
  }

  put(page: number, seen: Seen): Verdict {
    const { value } = seen;
    const call = `poolFree(${page}) returns ${show(value)}`;
    const gave = callsOf(seen).some(([what]) => what === "give");
    if (!this.out.has(page)) {
      if (value === -EINVAL && !gave) return null;
      return fail("bad-free", `${call}, but that page is not out${gave ? ", and is given back" : ""}`);
    }
    if (value !== 0) return fail("free-kept", `${call}, but ${this.#name(this.out.get(page) ?? 0)} is out`);
    if (!hasLock(seen)) return fail("no-lock", "poolFree changes the reserve without the lock");
    const state = `${this.reserve.size} of ${this.minNr} are in reserve`;
    const isShort = this.reserve.size < this.minNr;
    if (!hadInterrupt(seen) && gave && isShort)
      return fail("refill", `poolFree gives the page to the machine; ${state}`);
    if (!hadInterrupt(seen) && !gave && !isShort) return fail("overfull", `poolFree keeps the page; ${state}`);
    this.out.delete(page);
    this.#fresh.add(page);
    return this.#account({ ...seen, value: null }, -1);
  }

  end(seen: Seen): Verdict {
    const { value } = seen;
    const expected = this.out.size > 0 || this.asleep.size > 0 ? -EBUSY : 0;
    if (value !== expected)
      return fail("destroy", `destroyPool returns ${show(value)} with ${count(this.out.size, "page")} out`);
    const gone = callsOf(seen).map(([what, page]) => (what === "give" ? Number(page) : -1));
    if (expected === 0) {
      for (const page of gone)
        if (!this.reserve.delete(page)) return fail("destroy", `destroyPool gives page ${page} back`);
      if (this.reserve.size > 0) return fail("destroy", `destroyPool keeps ${count(this.reserve.size, "page")}`);
      this.#memory.free += gone.length;
      this.minNr = 0;
    } else if (gone.length > 0) return fail("destroy", "destroyPool is refused and gives pages back");
    return null;
  }

  // ── Where each page is ───────────────────────────────────────────────────────────────────────────────────────────

  /** Moves pages as events and value say; `op` is the operation that gets the value. */
  #account(seen: Seen, op: number): Verdict {
    const memory = this.#memory;
    // What an interrupt frees: in order, before anybody can get it.
    for (const event of seen.events) {
      const [what, a, b, c] = event;
      if (what === "take" && a !== NO_PAGE) {
        memory.free--;
        this.#fresh.add(Number(a));
      } else if (what === "reclaim") {
        memory.nrReclaims++;
        memory.free += Number(b);
      } else if (what === "give") {
        if (!this.#fresh.delete(Number(a))) return fail("bad-free", `page ${show(a)} is given back, but is not spare`);
        memory.free++;
      } else if (what === "irq") this.#freedInIrq(seen.events, event);
      else if (what === "asleep") this.asleep.add(Number(a));
      else if (what === "handler" && a === "defer") this.deferred.note(Number(b));
      else if (what === "handler" && a === "free" && c !== 0)
        return fail("free-kept", `poolFree(${show(b)}) in an interrupt returns ${show(c)}, but that page is out`);
      else if (what === "work") this.deferred.isScheduled = true;
    }
    const got: [op: number, page: Json][] = seen.value === null ? [] : [[op, seen.value]];
    for (const [what, a, b] of seen.events) {
      if (what === "done" && b === NO_PAGE)
        return fail("gives-up", `the task of ${this.#name(Number(a))} wakes and fails; who may sleep gets a page`);
      if (what === "done") got.push([Number(a), b ?? null]);
    }
    for (const [to, page] of got) {
      this.asleep.delete(to);
      const verdict = this.#gets(to, page);
      if (verdict !== null) return verdict;
    }
    // Spare pages that were not handed out: to the reserve, as far as it is short.
    for (const page of this.#fresh) {
      if (this.reserve.size >= this.minNr) return fail("leak", `page ${page} was taken or freed, and nobody has it`);
      this.#fresh.delete(page);
      this.reserve.add(page);
    }
    const [sleeper] = this.asleep;
    if (sleeper === undefined || this.reserve.size === 0) return null;
    const nr = count(this.reserve.size, "page");
    return fail("lost-wakeup", `the task of ${this.#name(sleeper)} sleeps although ${nr} are in reserve`);
  }

  /** The pages that the interrupt beginning with `start` frees are spare from then on. */
  #freedInIrq(events: readonly Event[], start: Event): void {
    for (const [what, handler, page, result] of events.slice(events.indexOf(start))) {
      if (what !== "handler") continue;
      if (handler === "free" && result === 0 && this.out.delete(Number(page))) this.#fresh.add(Number(page));
      return;
    }
  }

  #gets(op: number, page: Json): Verdict {
    if (page === NO_PAGE) return null;
    if (typeof page !== "number") return fail("bad-claim", `poolAlloc returns ${show(page)}, which is no page`);
    const owner = this.out.get(page);
    if (owner !== undefined)
      return fail("twice", `page ${page} was handed out again; it belongs to ${this.#name(owner)}`);
    if (!this.#fresh.delete(page) && !this.reserve.delete(page))
      return fail("bad-claim", `poolAlloc returns page ${page}, which the pool has not`);
    this.out.set(page, op);
    return null;
  }
}
