/**
 * Lab 4, the student's side: a machine with frames, the student's allocator on it, and what it asked the machine for.
 *
 * Frames come lowest first, so a frame that was given back soon belongs to somebody else. Each operation returns
 * `[value, events]`: `["get", order, frame]`, `["put", frame, order]`, `["construct", cache, address]` in their order.
 */

import { type CreateInstance, exportedFunction, method } from "../kit/driver.ts";
import type { SlabConfig } from "./checks/model.ts";
import { FRAME_BYTES, MAX_CACHES, MAX_ORDER, MIN_SIZE, NO_FRAME, NO_OBJECT } from "./given/api.ts";

/** More is an allocator out of its mind, and a long message. */
const MAX_EVENTS = 5_000;

/** Frames of the machine: which are out, and with which order. */
function createFrames(nrFrames: number) {
  const isOut = new Uint8Array(nrFrames);
  const orderAt = new Int8Array(nrFrames).fill(-1);
  const isFree = (frame: number, size: number): boolean => {
    for (let i = frame; i < frame + size; i++) if (isOut[i] !== 0) return false;
    return true;
  };
  // No fill(): its elements would count as steps of the student's.
  const mark = (frame: number, size: number, value: number): void => {
    for (let i = frame; i < frame + size; i++) isOut[i] = value;
  };
  return {
    held: 0,
    get(order: number): number {
      if (!Number.isInteger(order) || order < 0 || order > MAX_ORDER) return NO_FRAME;
      const size = 1 << order;
      for (let frame = 0; frame + size <= nrFrames; frame += size) {
        if (!isFree(frame, size)) continue;
        mark(frame, size, 1);
        orderAt[frame] = order;
        this.held += size;
        return frame;
      }
      return NO_FRAME;
    },
    /** What is not out with that order stays as it is: the judge sees it among the events. */
    put(frame: number, order: number): void {
      if (orderAt[frame] !== order) return;
      mark(frame, 1 << order, 0);
      orderAt[frame] = -1;
      this.held -= 1 << order;
    },
  };
}

function createColumns(nrFrames: number) {
  const nrUnits = (nrFrames * FRAME_BYTES) / MIN_SIZE;
  return {
    owner: new Uint8Array(nrFrames),
    first: new Uint32Array(nrFrames),
    inUse: new Uint16Array(nrFrames),
    freeHead: new Uint16Array(nrFrames),
    colour: new Uint16Array(nrFrames),
    next: new Uint32Array(nrFrames + 3 * MAX_CACHES),
    prev: new Uint32Array(nrFrames + 3 * MAX_CACHES),
    state: new Uint8Array(nrUnits),
    link: new Uint16Array(nrUnits),
  };
}

/** The value of an operation's claim; of a list, that of its element `at`. */
function claimedBy(given: unknown, at = 0): unknown {
  if (!Array.isArray(given)) return given;
  return Array.isArray(given[0]) ? given[at]?.[0] : given[0];
}

export const create: CreateInstance = (student, config: SlabConfig) => {
  const { frames: nrFrames, keepEmpty } = config;
  const createSlab = exportedFunction(student, "createSlab", "slab.ts");
  const frames = createFrames(nrFrames);
  let events: unknown[] = [];
  let nrConstructed = 0;
  const note = (...event: unknown[]): void => {
    if (events.length < MAX_EVENTS) events[events.length] = event;
  };
  const slab = createSlab({
    nrFrames,
    keepEmpty,
    getFrames(order: number): number {
      const frame = frames.get(order);
      note("get", order, frame);
      return frame;
    },
    putFrames(frame: number, order: number): void {
      note("put", frame, order);
      frames.put(frame, order);
    },
    construct(cache: number, address: number): void {
      nrConstructed++;
      note("construct", cache, address);
    },
    ...createColumns(nrFrames),
  });
  const createCache = method(slab, "createCache", "createSlab");
  const alloc = method(slab, "alloc", "createSlab");
  const free = method(slab, "free", "createSlab");
  const cacheOf = method(slab, "cacheOf", "createSlab");
  const inUse = method(slab, "inUse", "createSlab");
  const shrink = method(slab, "shrink", "createSlab");
  const destroyCache = method(slab, "destroyCache", "createSlab");

  const seen = (call: (...args: unknown[]) => unknown, ...args: unknown[]): readonly [unknown, unknown] => {
    events = [];
    const value = call(...args);
    return [value, events];
  };
  const freeSeen = (address: unknown): readonly [unknown, unknown] =>
    typeof address !== "number" || address === NO_OBJECT ? [null, []] : seen(free, address);
  const addressOf = (given: unknown, delta: number, at: number): unknown => {
    const address = claimedBy(given, at);
    return typeof address === "number" && address !== NO_OBJECT ? address + delta : address;
  };

  return {
    make: (size: number, align: number, hasConstructor: boolean) => seen(createCache, size, align, hasConstructor),
    take: (cache: unknown) => seen(alloc, claimedBy(cache)),
    takeMany(cache: unknown, nr: number) {
      const list: unknown[] = [];
      for (let i = 0; i < nr; i++) list[i] = seen(alloc, claimedBy(cache));
      return list;
    },
    /** Frees the object at `delta` behind what `given` found, if it found any. */
    put: (given: unknown, delta = 0, at = 0) => freeSeen(addressOf(given, delta, at)),
    /** Frees elements from, from + stride, … of what takeMany returned. */
    putMany(given: readonly unknown[], from: number, stride: number) {
      const list: unknown[] = [];
      for (let i = from; i < given.length; i += stride) list[list.length] = freeSeen(claimedBy(given, i));
      return list;
    },
    whose: (given: unknown, delta = 0, at = 0) => seen(cacheOf, addressOf(given, delta, at)),
    used: (cache: unknown) => seen(inUse, claimedBy(cache)),
    trim: (cache: unknown) => seen(shrink, claimedBy(cache)),
    end: (cache: unknown) => seen(destroyCache, claimedBy(cache)),
    /** Somebody else takes frames: the address of the first. */
    others(order: number) {
      const frame = frames.get(order);
      return [frame === NO_FRAME ? NO_OBJECT : frame * FRAME_BYTES, []];
    },

    // For own tests.
    createCache,
    alloc,
    free,
    cacheOf,
    inUse,
    shrink,
    destroyCache,
    framesHeld: () => frames.held,
    constructorCalls: () => nrConstructed,
  };
};
