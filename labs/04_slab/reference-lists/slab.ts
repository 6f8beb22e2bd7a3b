/**
 * Lab 4: the slab allocator, with lists of slabs in columns.
 *
 * A slab is known by its first frame. Each cache has three circular lists of slabs: empty, partly used, full. The free
 * objects of a slab are a singly linked list through the column `link`, of indices plus one; 0 ends it.
 */

import {
  EBUSY,
  EINVAL,
  ENOMEM,
  FRAME_BYTES,
  MAX_ALIGN,
  MAX_CACHES,
  MAX_SIZE,
  MIN_ALIGN,
  MIN_SIZE,
  NO_FRAME,
  NO_OBJECT,
  type SlabAllocator,
  type SlabMemory,
} from "../given/api.ts";

/** Lists of a cache. */
const EMPTY = 0;
const PARTIAL = 1;
const FULL = 2;

/** States of an object. */
const FREE = 0;
const OUT = 1;

interface Cache {
  /** Bytes from one object to the next. */
  readonly stride: number;
  readonly align: number;
  readonly hasConstructor: boolean;
  /** A slab has 2^order frames and nrObjects objects. */
  readonly order: number;
  readonly nrObjects: number;
  /** Different offsets that the first object of a slab can have. */
  readonly nrColours: number;
  nrMade: number;
  nrEmpty: number;
  nrOut: number;
}

export function createSlab(memory: SlabMemory): SlabAllocator {
  const { nrFrames, keepEmpty, owner, first, inUse, freeHead, colour, next, prev, state, link } = memory;
  const caches: (Cache | undefined)[] = new Array(MAX_CACHES).fill(undefined);

  for (let head = nrFrames; head < nrFrames + 3 * MAX_CACHES; head++) {
    next[head] = head;
    prev[head] = head;
  }

  /** Puts a slab on a list of `id`, at the front. */
  function insert(id: number, list: number, slab: number): void {
    const head = nrFrames + 3 * id + list;
    next[slab] = next[head];
    prev[slab] = head;
    prev[next[head]] = slab;
    next[head] = slab;
  }

  /** Takes a slab off the list that it is on. */
  function unlink(slab: number): void {
    next[prev[slab]] = next[slab];
    prev[next[slab]] = prev[slab];
  }

  /** First slab of a list, or NO_FRAME. */
  function firstOf(id: number, list: number): number {
    const head = nrFrames + 3 * id + list;
    return next[head] === head ? NO_FRAME : next[head];
  }

  // BLANK CUT
  function listOf(cache: Cache, slab: number): number {
    if (inUse[slab] === 0) return EMPTY;
    return inUse[slab] === cache.nrObjects ? FULL : PARTIAL;
  }

  /** The slab has `nr` objects out now: moves it to the list that this says. */
  function setUse(id: number, cache: Cache, slab: number, nr: number): void {
    if (inUse[slab] === 0) cache.nrEmpty--;
    inUse[slab] = nr;
    if (nr === 0) cache.nrEmpty++;
    unlink(slab);
    insert(id, listOf(cache, slab), slab);
  }

  function addressOf(cache: Cache, slab: number, index: number): number {
    return slab * FRAME_BYTES + colour[slab] + index * cache.stride;
  }

  function rowOf(address: number): number {
    return Math.floor(address / MIN_SIZE);
  }

  /** A new empty slab, or NO_FRAME. */
  function grow(id: number, cache: Cache): number {
    const slab = memory.getFrames(cache.order);
    if (slab === NO_FRAME) return NO_FRAME;
    for (let frame = slab; frame < slab + (1 << cache.order); frame++) {
      owner[frame] = id + 1;
      first[frame] = slab;
    }
    colour[slab] = (cache.nrMade % cache.nrColours) * cache.align;
    cache.nrMade++;
    freeHead[slab] = 0;
    for (let index = cache.nrObjects - 1; index >= 0; index--) {
      const address = addressOf(cache, slab, index);
      state[rowOf(address)] = FREE;
      link[rowOf(address)] = freeHead[slab];
      freeHead[slab] = index + 1;
      if (cache.hasConstructor) memory.construct(id, address);
    }
    inUse[slab] = 0;
    cache.nrEmpty++;
    insert(id, EMPTY, slab);
    return slab;
  }

  /** Gives an empty slab back. */
  function release(cache: Cache, slab: number): void {
    unlink(slab);
    cache.nrEmpty--;
    for (let frame = slab; frame < slab + (1 << cache.order); frame++) owner[frame] = 0;
    memory.putFrames(slab, cache.order);
  }

  /** Index of the object that is out and starts at `address`, or −1. */
  function indexAt(address: number): number {
    if (!Number.isInteger(address) || address < 0 || address >= nrFrames * FRAME_BYTES) return -1;
    const frame = Math.floor(address / FRAME_BYTES);
    if (owner[frame] === 0) return -1;
    const cache = caches[owner[frame] - 1] as Cache;
    const slab = first[frame];
    const offset = address - slab * FRAME_BYTES - colour[slab];
    if (offset < 0 || offset % cache.stride !== 0) return -1;
    const index = offset / cache.stride;
    return index < cache.nrObjects && state[rowOf(address)] === OUT ? index : -1;
  }

  function releaseAll(id: number, cache: Cache): number {
    let nr = 0;
    for (let slab = firstOf(id, EMPTY); slab !== NO_FRAME; slab = firstOf(id, EMPTY)) {
      release(cache, slab);
      nr += 1 << cache.order;
    }
    return nr;
  }

  // BLANK END
  function createCache(size: number, align: number, hasConstructor: boolean): number {
    // BLANK BEGIN check the arguments, find a number, work out stride, order, objects and colours (SLAB-20, SLAB-21)
    if (!Number.isInteger(size) || size < 1 || size > MAX_SIZE) return -EINVAL;
    if (!Number.isInteger(align) || align < MIN_ALIGN || align > MAX_ALIGN) return -EINVAL;
    if ((align & (align - 1)) !== 0) return -EINVAL;
    const id = caches.indexOf(undefined);
    if (id < 0) return -ENOMEM;
    const stride = Math.max(MIN_SIZE, Math.ceil(size / align) * align);
    let order = 0;
    while (((FRAME_BYTES << order) % stride) * 8 > FRAME_BYTES << order) order++;
    const bytes = FRAME_BYTES << order;
    const nrObjects = Math.floor(bytes / stride);
    const nrColours = Math.floor((bytes % stride) / align) + 1;
    caches[id] = { stride, align, hasConstructor, order, nrObjects, nrColours, nrMade: 0, nrEmpty: 0, nrOut: 0 };
    return id;
    // BLANK END
  }

  function alloc(id: number): number {
    // BLANK BEGIN take an object of a partly used slab, else of an empty one, else of a new one (SLAB-22, SLAB-23)
    const cache = caches[id];
    if (cache === undefined) return NO_OBJECT;
    let slab = firstOf(id, PARTIAL);
    if (slab === NO_FRAME) slab = firstOf(id, EMPTY);
    if (slab === NO_FRAME) slab = grow(id, cache);
    if (slab === NO_FRAME) return NO_OBJECT;
    const address = addressOf(cache, slab, freeHead[slab] - 1);
    freeHead[slab] = link[rowOf(address)];
    state[rowOf(address)] = OUT;
    cache.nrOut++;
    setUse(id, cache, slab, inUse[slab] + 1);
    return address;
    // BLANK END
  }

  function free(address: number): number {
    // BLANK BEGIN from the address to its object; refuse what is not out; keep keepEmpty slabs (SLAB-24, SLAB-27)
    const index = indexAt(address);
    if (index < 0) return -EINVAL;
    const frame = Math.floor(address / FRAME_BYTES);
    const id = owner[frame] - 1;
    const cache = caches[id] as Cache;
    const slab = first[frame];
    state[rowOf(address)] = FREE;
    link[rowOf(address)] = freeHead[slab];
    freeHead[slab] = index + 1;
    cache.nrOut--;
    setUse(id, cache, slab, inUse[slab] - 1);
    if (cache.nrEmpty > keepEmpty) release(cache, slab);
    return 0;
    // BLANK END
  }

  function cacheOf(address: number): number {
    // BLANK BEGIN the cache of the object that is out and starts at this address (SLAB-2)
    if (indexAt(address) < 0) return -EINVAL;
    return owner[Math.floor(address / FRAME_BYTES)] - 1;
    // BLANK END
  }

  function shrink(id: number): number {
    // BLANK BEGIN give back every empty slab; how many frames were those? (SLAB-25)
    const cache = caches[id];
    return cache === undefined ? -EINVAL : releaseAll(id, cache);
    // BLANK END
  }

  function destroyCache(id: number): number {
    // BLANK BEGIN refuse while objects are out, else give back all slabs and the number (SLAB-26)
    const cache = caches[id];
    if (cache === undefined) return -EINVAL;
    if (cache.nrOut > 0) return -EBUSY;
    releaseAll(id, cache);
    caches[id] = undefined;
    return 0;
    // BLANK END
  }

  return { createCache, alloc, free, cacheOf, inUse: (id) => caches[id]?.nrOut ?? -EINVAL, shrink, destroyCache };
}
