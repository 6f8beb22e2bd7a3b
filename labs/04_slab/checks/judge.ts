/**
 * The judge of lab 4: walks through claims and events in order and says which rule the first wrong one breaks.
 *
 * | kind         | the claim, or what the machine was asked for                                   |
 * |--------------|--------------------------------------------------------------------------------|
 * | bad-claim    | is no whole number                                                             |
 * | create       | createCache accepts, refuses or numbers wrongly                      (SLAB-29) |
 * | beyond       | an object behind the last one of its slab                             (SLAB-1) |
 * | outside, off-grid   | an object in no slab; between the objects of one               (SLAB-1) |
 * | misaligned   | an object at no multiple of the alignment                             (SLAB-1) |
 * | twice        | an object that is out already                                         (SLAB-5) |
 * | other-cache  | an object of another cache's slab, or its name                        (SLAB-2) |
 * | early        | frames asked for although an object is free                          (SLAB-23) |
 * | refused      | no object although there is one; an object for no cache              (SLAB-28) |
 * | not-partial  | an object of an empty slab although one is partly used               (SLAB-22) |
 * | unconstructed, reconstructed   | constructor not run; run again or for nothing       (SLAB-7) |
 * | colour       | objects of a slab begin at the place of another slab's               (SLAB-20) |
 * | order        | a slab of another order                                              (SLAB-21) |
 * | hoards, eager   | more empty slabs kept than keepEmpty; fewer                       (SLAB-24) |
 * | unshrunk, destroy   | see SLAB-25 and SLAB-26                                                 |
 * | put-live, put-wrong   | frames given back with objects; that are no slab           (SLAB-11) |
 * | kept, double, foreign, interior, wrong-errno   | of frees                          (SLAB-27) |
 * | count, slow  | inUse() is wrong; too many steps                            (SLAB-3, SLAB-30) |
 */

import type { Violation } from "../../kit/lab_code.ts";
import { namesOf } from "../../kit/names.ts";
import { type Json, type Observation, type Op, type Program, valueOfArg } from "../../kit/program.ts";
import { EBUSY, EINVAL, ENOMEM, FRAME_BYTES, MAX_CACHES, NO_FRAME, NO_OBJECT } from "../given/api.ts";
import {
  baseOf,
  type Cache,
  colourOf,
  emptySlabs,
  hasPartial,
  hasRoom,
  isValidRequest,
  Machine,
  nrOut,
  type Slab,
  type SlabConfig,
} from "./model.ts";

/** Caches and objects have letters. */
export const hasName = (op: Op): boolean => ["make", "take", "takeMany"].includes(op[0]);

/** Steps of an alloc or a free that makes or returns no slab. */
export const STEPS = 48;
/** More for each object and frame of a slab that is made or returned. */
export const STEPS_EACH = 8;

export type Verdict = { readonly kind: string; readonly message: string } | null;
type Event = readonly [what: string, a: Json, b: Json];
interface Seen {
  readonly value: Json;
  readonly events: readonly Event[];
}

const fail = (kind: string, message: string): Verdict => ({ kind, message });

/** A claim `[value, events]`; what is none is a value without events. */
export function seenOf(claim: Json | undefined): Seen {
  if (!Array.isArray(claim) || !Array.isArray(claim[1])) return { value: claim ?? null, events: [] };
  const events = claim[1].map((event: Json): Event => {
    const [what = "", a = null, b = null] = Array.isArray(event) ? (event as readonly Json[]) : [];
    return [String(what), a, b];
  });
  return { value: (claim[0] ?? null) as Json, events };
}

/** One walk through a program: the model as far as the claims were right. */
export class Walk {
  readonly machine: Machine;
  readonly #program: Program;
  readonly #observation: Observation;
  readonly #name: (index: number) => string;
  /** Objects and frames of slabs that the operation made or returned. */
  #bulk = 0;

  constructor(program: Program, observation: Observation) {
    this.machine = new Machine(program.config as unknown as SlabConfig);
    this.#program = program;
    this.#observation = observation;
    this.#name = namesOf(program, hasName);
  }

  /** Judges operation `index`, and moves the model on if its claim is right. */
  step(index: number): Verdict {
    const op = this.#program.ops[index] as Op;
    const claim = this.#observation.claims[index] as Json;
    this.#bulk = 0;
    const verdict = this.#judge(op, index, claim);
    if (verdict !== null || !["take", "takeMany", "put", "putMany"].includes(op[0])) return verdict;
    const nrCalls = op[0].endsWith("Many") && Array.isArray(claim) ? Math.max(1, claim.length) : 1;
    const allowed = STEPS * nrCalls + STEPS_EACH * this.#bulk;
    const steps = this.#observation.steps[index] as number;
    const what = op[0].startsWith("take") ? "alloc" : "free";
    return steps <= allowed ? null : fail("slow", `${what} takes ${steps} steps; ${allowed} are allowed here`);
  }

  #judge(op: Op, index: number, claim: Json): Verdict {
    const seen = seenOf(claim);
    switch (op[0]) {
      case "make":
        return this.#judgeCreate(op, index, seen);
      case "take":
        return this.#judgeAlloc(this.#cacheArg(op), index, seen);
      case "takeMany":
        return this.#judgeMany(claim, Number(op[2]), (part) => this.#judgeAlloc(this.#cacheArg(op), index, part));
      case "put":
        return seen.value === null ? null : this.#judgeFree(this.#addressArg(op), seen);
      case "putMany": {
        const given = valueOfArg(op[1], this.#observation);
        const list = Array.isArray(given) ? given : [];
        let at = Number(op[2]);
        const nr = Math.max(0, Math.ceil((list.length - at) / Number(op[3])));
        return this.#judgeMany(claim, nr, (part) => {
          const address = seenOf(list[at]).value;
          at += Number(op[3]);
          return part.value === null ? null : this.#judgeFree(address, part);
        });
      }
      case "whose":
        return this.#judgeCacheOf(this.#addressArg(op), seen);
      case "used":
        return this.#judgeInUse(this.#cacheArg(op), seen);
      case "trim":
        return this.#judgeShrink(this.#cacheArg(op), seen);
      case "end":
        return this.#judgeDestroy(this.#cacheArg(op), seen);
      case "others":
        if (typeof seen.value === "number" && seen.value !== NO_OBJECT)
          this.machine.addOthers(seen.value / FRAME_BYTES, Number(op[1]));
        return null;
      default:
        return null;
    }
  }

  // ── Arguments ────────────────────────────────────────────────────────────────────────────────────────────────────

  #cacheArg(op: Op): Json {
    const given = valueOfArg(op[1], this.#observation);
    return Array.isArray(given) ? seenOf(given).value : (given ?? null);
  }

  /** The address that an operation is about, as the driver makes it. */
  #addressArg(op: Op): Json {
    const given = valueOfArg(op[1], this.#observation) ?? null;
    const isList = Array.isArray(given) && Array.isArray(given[0]);
    const value = Array.isArray(given) ? seenOf(isList ? given[Number(op[3] ?? 0)] : given).value : given;
    return typeof value === "number" && value !== NO_OBJECT ? value + Number(op[2] ?? 0) : value;
  }

  #known(id: Json): Cache | undefined {
    return typeof id === "number" ? this.machine.caches.get(id) : undefined;
  }

  #judgeMany(claim: Json, nr: number, judgeOne: (part: Seen) => Verdict): Verdict {
    if (!Array.isArray(claim) || claim.length !== nr) return fail("bad-claim", `${show(claim)} is no list`);
    for (const part of claim) {
      const verdict = judgeOne(seenOf(part));
      if (verdict !== null) return verdict;
    }
    return null;
  }

  /** Events of an operation that may have none. */
  #none({ events }: Seen, what: string): Verdict {
    const [event] = events;
    if (event === undefined) return null;
    if (event[0] === "get") return fail("early", `${what} asks for frames`);
    if (event[0] === "construct") return fail("reconstructed", `${what} runs the constructor at ${show(event[2])}`);
    const slab = typeof event[1] === "number" ? this.machine.slabAtFrame(event[1]) : undefined;
    if (slab !== undefined && slab.out.size > 0) return this.#putLive(slab);
    return fail("put-wrong", `${what} gives back frame ${show(event[1])}`);
  }

  // ── Caches ───────────────────────────────────────────────────────────────────────────────────────────────────────

  #judgeCreate(op: Op, index: number, seen: Seen): Verdict {
    const { caches } = this.machine;
    const [, size, align, hasConstructor] = op as unknown as [string, number, number, boolean];
    const { value } = seen;
    const call = `createCache(${size},${align})`;
    const expected = !isValidRequest(size, align) ? -EINVAL : caches.size >= MAX_CACHES ? -ENOMEM : 0;
    if (expected < 0) {
      if (value === expected) return this.#none(seen, call);
      return fail("create", `${call} returns ${show(value)}, and must return ${expected} here`);
    }
    const isNumber = typeof value === "number" && Number.isInteger(value) && value >= 0 && value < MAX_CACHES;
    if (!isNumber) return fail("create", `${call} returns ${show(value)}, which is no number of a cache`);
    if (caches.has(value)) return fail("create", `${call} returns ${value}, which is another cache's number`);
    this.machine.addCache(value, index, size, align, hasConstructor);
    return this.#none(seen, call);
  }

  #judgeInUse(id: Json, seen: Seen): Verdict {
    const cache = this.#known(id);
    const expected = cache === undefined ? -EINVAL : nrOut(cache);
    if (seen.value === expected) return this.#none(seen, "inUse");
    if (cache === undefined) return fail("count", `inUse(${show(id)}) returns ${show(seen.value)} for no cache`);
    return fail("count", `inUse() says ${show(seen.value)}, but ${expected} objects are out`);
  }

  #judgeShrink(id: Json, seen: Seen): Verdict {
    const cache = this.#known(id);
    const { value } = seen;
    if (cache === undefined) {
      if (value === -EINVAL) return this.#none(seen, "shrink");
      return fail("unshrunk", `shrink(${show(id)}) returns ${show(value)} for no cache`);
    }
    const expected = emptySlabs(cache).length << cache.order;
    const verdict = this.#puts(cache, seen, "shrink");
    if (verdict !== null) return verdict;
    const left = emptySlabs(cache).length;
    if (left > 0) return fail("unshrunk", `shrink leaves ${count(left, "empty slab")} in the cache`);
    if (value !== expected)
      return fail("unshrunk", `shrink returns ${show(value)}, but gave back ${count(expected, "frame")}`);
    return null;
  }

  #judgeDestroy(id: Json, seen: Seen): Verdict {
    const cache = this.#known(id);
    const { value } = seen;
    if (cache === undefined) {
      if (value === -EINVAL) return this.#none(seen, "destroyCache");
      return fail("destroy", `destroyCache(${show(id)}) returns ${show(value)} for no cache`);
    }
    const out = nrOut(cache);
    if (out > 0) {
      if (value === -EBUSY) return this.#none(seen, "destroyCache");
      return fail("destroy", `destroyCache returns ${show(value)} although ${count(out, "object")} of it are out`);
    }
    if (value !== 0) return fail("destroy", `destroyCache returns ${show(value)} although no object is out`);
    const verdict = this.#puts(cache, seen, "destroyCache");
    if (verdict !== null) return verdict;
    if (cache.slabs.size > 0) return fail("destroy", `destroyCache leaves ${count(cache.slabs.size, "slab")} behind`);
    this.machine.caches.delete(cache.id);
    return null;
  }

  /** Every event gives back an empty slab of `cache`. */
  #puts(cache: Cache, { events }: Seen, what: string): Verdict {
    for (const event of events) {
      const [kind, frame, order] = event;
      const slab = typeof frame === "number" ? this.machine.slabAtFrame(frame) : undefined;
      const isSlab = kind === "put" && slab !== undefined && slab.frame === frame && slab.cache.order === order;
      if (kind !== "put") return this.#none({ value: null, events: [event] }, what);
      if (!isSlab)
        return fail("put-wrong", `${what} gives back frame ${show(frame)} with order ${show(order)}: no slab`);
      if (slab.out.size > 0) return this.#putLive(slab);
      if (slab.cache !== cache) return fail("put-wrong", `${what} gives back frame ${show(frame)} of another cache`);
      this.machine.removeSlab(slab);
      this.#bulk += cache.nrObjects + (1 << cache.order);
    }
    return null;
  }

  #putLive(slab: Slab): Verdict {
    return fail("put-live", `the slab at frame ${slab.frame} is given back with ${count(slab.out.size, "object")} out`);
  }

  // ── Objects ──────────────────────────────────────────────────────────────────────────────────────────────────────

  #judgeAlloc(id: Json, index: number, seen: Seen): Verdict {
    const cache = this.#known(id);
    const { value } = seen;
    if (cache === undefined) {
      if (value === NO_OBJECT) return this.#none(seen, "alloc");
      return fail("refused", `alloc(${show(id)}) returns ${show(value)}, but there is no such cache`);
    }
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0)
      return fail("bad-claim", `alloc returns ${show(value)}, which is no address`);
    const couldAsk = !hasRoom(cache);
    for (const event of seen.events) {
      const verdict = this.#judgeGrowth(cache, event);
      if (verdict !== null) return verdict;
    }
    const verdict = this.#allConstructed(cache);
    if (verdict !== null) return verdict;
    if (value !== NO_OBJECT) return this.#judgeObject(cache, index, value);
    if (hasRoom(cache)) return fail("refused", "alloc finds nothing although a slab of the cache has room");
    const hasAsked = seen.events.some(([what]) => what === "get");
    if (couldAsk && !hasAsked) return fail("refused", "alloc finds nothing and has not asked for frames");
    return null;
  }

  #judgeGrowth(cache: Cache, event: Event): Verdict {
    const [what, a, b] = event;
    if (what === "construct") return this.#judgeConstruct(cache, a, b);
    if (what !== "get") return this.#none({ value: null, events: [event] }, "alloc");
    const isEmptyFree = [...cache.slabs].find(({ out }) => out.size < cache.nrObjects);
    if (isEmptyFree !== undefined) {
      const nr = cache.nrObjects - isEmptyFree.out.size;
      const free = `${nr} of ${cache.nrObjects} objects of the slab at frame ${isEmptyFree.frame} are free`;
      return fail("early", `alloc asks for frames although ${free}`);
    }
    if (a !== cache.order) {
      const { stride, order } = cache;
      return fail("order", `alloc asks for order ${show(a)}; for objects of ${stride} bytes it is ${order}`);
    }
    if (typeof b !== "number" || b === NO_FRAME) return null;
    this.machine.addSlab(cache, b);
    this.#bulk += cache.nrObjects + (1 << cache.order);
    return null;
  }

  #judgeConstruct(cache: Cache, id: Json, address: Json): Verdict {
    if (typeof address !== "number") return fail("bad-claim", `the constructor runs at ${show(address)}`);
    if (id !== cache.id) return fail("other-cache", `the constructor of ${show(id)} runs for cache ${cache.id}`);
    if (!cache.hasConstructor) return fail("reconstructed", "a constructor runs for a cache that has none");
    const place = this.machine.placeAt(address);
    if (place === undefined || place.slab.cache !== cache) return this.#misplaced(cache, address, "is constructed");
    const { slab, index } = place;
    slab.constructed[index]++;
    if (slab.constructed[index] === 1) return null;
    return fail("reconstructed", `the object at ${address} is constructed again, in the slab at frame ${slab.frame}`);
  }

  #allConstructed(cache: Cache): Verdict {
    if (!cache.hasConstructor) return null;
    for (const { constructed, frame } of cache.slabs) {
      const missing = constructed.reduce((nr, calls) => nr + (calls === 0 ? 1 : 0), 0);
      const what = `${missing} of ${cache.nrObjects} objects of the slab at frame ${frame} are not constructed`;
      if (missing > 0) return fail("unconstructed", what);
    }
    return null;
  }

  #judgeObject(cache: Cache, index: number, address: number): Verdict {
    const place = this.machine.placeAt(address);
    if (place === undefined || place.slab.cache !== cache) return this.#misplaced(cache, address, "was handed out");
    const { slab } = place;
    const other = slab.out.get(place.index);
    if (other !== undefined) {
      const owner = `${this.#name(other)} (op ${other + 1})`;
      return fail("twice", `the object at ${address} was handed out again; it belongs to ${owner}`);
    }
    if (slab.out.size === 0 && hasPartial(cache)) {
      return fail("not-partial", `the object at ${address} is from an empty slab although another is partly used`);
    }
    slab.out.set(place.index, index);
    return null;
  }

  /** Why there is no object of `cache` at `address`. */
  #misplaced(cache: Cache, address: number, what: string): Verdict {
    const slab = this.machine.slabAt(address);
    const { stride, bytes, nrObjects, nrColours, align } = cache;
    const before = [...cache.slabs].find((other) => address === baseOf(other) + nrObjects * stride);
    if (before !== undefined) {
      const end = `the slab has ${nrObjects} of ${stride} bytes and ends at ${before.frame * FRAME_BYTES + bytes}`;
      return fail("beyond", `object ${nrObjects} at ${address} ${what}; ${end}`);
    }
    if (slab === undefined) return fail("outside", `${address} ${what}, but frame ${frameOf(address)} is no slab's`);
    if (slab.cache !== cache)
      return fail("other-cache", `${address} ${what}, but it is in a slab of cache ${slab.cache.id}, not ${cache.id}`);
    const offset = address - slab.frame * FRAME_BYTES;
    if (offset % align !== 0) return fail("misaligned", `${address} ${what}, which is no multiple of ${align}`);
    for (let nr = 0; nr <= nrColours; nr++) {
      if ((offset - nr * align) % stride !== 0 || offset < nr * align) continue;
      const begin = `begins at offset ${nr * align}, not ${colourOf(cache, slab.nr)}`;
      return fail("colour", `slab ${slab.nr} of the cache, at frame ${slab.frame}, ${begin}`);
    }
    return fail("off-grid", `${address} ${what}; objects of that slab are ${stride} bytes apart from ${baseOf(slab)}`);
  }

  #judgeCacheOf(address: Json, seen: Seen): Verdict {
    const place = typeof address === "number" ? this.machine.outAt(address) : undefined;
    const expected = place === undefined ? -EINVAL : place.slab.cache.id;
    if (seen.value === expected) return this.#none(seen, "cacheOf");
    const is = place === undefined ? "no object that is out starts there" : `it is of cache ${expected}`;
    return fail("other-cache", `cacheOf(${show(address)}) returns ${show(seen.value)}, but ${is}`);
  }

  // ── Frees ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #judgeFree(address: Json, seen: Seen): Verdict {
    const { value } = seen;
    const place = typeof address === "number" ? this.machine.outAt(address) : undefined;
    if (place === undefined) return this.#judgeBadFree(Number(address), seen);
    if (value !== 0) return fail("kept", `free(${show(address)}) returns ${show(value)}, but that object is out`);
    const { slab } = place;
    const { cache } = slab;
    slab.out.delete(place.index);
    const nrEmpty = emptySlabs(cache).length;
    const verdict = this.#puts(cache, seen, "free");
    if (verdict !== null) return verdict;
    const left = emptySlabs(cache).length;
    const { keepEmpty } = this.machine;
    if (left > keepEmpty) return fail("hoards", `${count(left, "empty slab")} after free; keepEmpty is ${keepEmpty}`);
    if (left < Math.min(nrEmpty, keepEmpty))
      return fail("eager", `free leaves ${count(left, "empty slab")} of ${nrEmpty}; keepEmpty is ${keepEmpty}`);
    return null;
  }

  #judgeBadFree(address: number, seen: Seen): Verdict {
    const { value } = seen;
    if (value === -EINVAL) return this.#none(seen, "a refused free");
    const call = `free(${address}) returns ${show(value)}`;
    if (value === EINVAL || (typeof value === "number" && value < 0))
      return fail("wrong-errno", `${call} instead of −EINVAL (−22)`);
    const slab = this.machine.slabAt(address);
    if (slab === undefined) return fail("foreign", `${call}, but frame ${frameOf(address)} is no slab's`);
    if (this.machine.placeAt(address) !== undefined) return fail("double", `${call}, but that object is free already`);
    const { stride } = slab.cache;
    return fail("interior", `${call}, but objects there start at ${baseOf(slab)} and every ${stride} bytes`);
  }
}

function frameOf(address: number): number {
  return Math.floor(address / FRAME_BYTES);
}

function count(nr: number, what: string): string {
  return `${nr} ${what}${nr === 1 ? "" : "s"}`;
}

function show(claim: Json | undefined): string {
  if (typeof claim === "object" && claim !== null && "not" in claim) return String(claim.not);
  const text = JSON.stringify(claim) ?? "nothing";
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}

/** The first violation of a program, or null. */
export function judge(program: Program, observation: Observation): Violation | null {
  const walk = new Walk(program, observation);
  for (let op = 0; op < observation.claims.length; op++) {
    const verdict = walk.step(op);
    if (verdict !== null) return { ...verdict, op };
  }
  return null;
}
