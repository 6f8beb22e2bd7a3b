/**
 * Lab 4: the slab allocator, with objects: a class for slabs, one for caches, and one table from frames to slabs.
 *
 * Nothing is linked: a slab has a stack of the indices that are free, a cache has a set of slabs for each use.
 */

import {
  EBUSY,
  EINVAL,
  ENOMEM,
  FRAME_BYTES,
  MAX_ALIGN,
  MAX_CACHES,
  MAX_ORDER,
  MAX_SIZE,
  MIN_ALIGN,
  MIN_SIZE,
  NO_FRAME,
  NO_OBJECT,
  type SlabAllocator,
  type SlabMemory,
} from "../given/api.ts";

class Slab {
  readonly cache: Cache;
  readonly frame: number;
  /** Address of the first object. */
  readonly base: number;
  readonly isOut: boolean[] = [];
  readonly free: number[] = [];

  constructor(cache: Cache, frame: number) {
    this.cache = cache;
    this.frame = frame;
    this.base = frame * FRAME_BYTES + cache.nextColour();
    for (let index = 0; index < cache.nrObjects; index++) {
      this.isOut.push(false);
      this.free.push(index);
    }
  }

  get isEmpty(): boolean {
    return this.free.length === this.cache.nrObjects;
  }

  /** Index of the object that is out and starts at `address`, or −1. */
  indexAt(address: number): number {
    const index = (address - this.base) / this.cache.stride;
    return this.isOut[index] === true ? index : -1;
  }
}

class Cache {
  readonly id: number;
  readonly stride: number;
  readonly align: number;
  readonly hasConstructor: boolean;
  readonly order: number;
  readonly nrObjects: number;
  readonly lastColour: number;
  readonly empty = new Set<Slab>();
  readonly partial = new Set<Slab>();
  nrOut = 0;
  #colour = 0;

  constructor(id: number, size: number, align: number, hasConstructor: boolean) {
    this.id = id;
    this.align = align;
    this.hasConstructor = hasConstructor;
    let stride = align;
    while (stride < size || stride < MIN_SIZE) stride += align;
    this.stride = stride;
    let order = 0;
    while (order < MAX_ORDER && (FRAME_BYTES << order) - this.#objectsIn(order) * stride > (FRAME_BYTES << order) >>> 3)
      order++;
    this.order = order;
    this.nrObjects = this.#objectsIn(order);
    this.lastColour = (FRAME_BYTES << order) - this.nrObjects * stride;
  }

  #objectsIn(order: number): number {
    return Math.floor((FRAME_BYTES << order) / this.stride);
  }

  /** Offset of the first object of the next slab. */
  nextColour(): number {
    const colour = this.#colour;
    this.#colour += this.align;
    if (this.#colour > this.lastColour) this.#colour = 0;
    return colour;
  }

  /** A slab with room: partly used rather than empty; undefined if all are full. */
  withRoom(): Slab | undefined {
    const [slab] = this.partial.size > 0 ? this.partial : this.empty;
    return slab;
  }
}

function isValid(size: number, align: number): boolean {
  if (!Number.isInteger(size) || size < 1 || size > MAX_SIZE) return false;
  for (let good = MIN_ALIGN; good <= MAX_ALIGN; good *= 2) if (align === good) return true;
  return false;
}

export function createSlab(memory: SlabMemory): SlabAllocator {
  const { nrFrames, keepEmpty } = memory;
  const caches = new Map<number, Cache>();
  /** Slab of each frame. */
  const slabOf: (Slab | null)[] = [];
  for (let frame = 0; frame < nrFrames; frame++) slabOf.push(null);

  function claimFrames(slab: Slab, of: Slab | null): void {
    for (let i = 0; i < 1 << slab.cache.order; i++) slabOf[slab.frame + i] = of;
  }

  function grow(cache: Cache): Slab | undefined {
    const frame = memory.getFrames(cache.order);
    if (frame === NO_FRAME) return undefined;
    const slab = new Slab(cache, frame);
    claimFrames(slab, slab);
    if (cache.hasConstructor) {
      for (let i = 0; i < cache.nrObjects; i++) memory.construct(cache.id, slab.base + i * cache.stride);
    }
    return slab;
  }

  function release(slab: Slab): void {
    slab.cache.empty.delete(slab);
    claimFrames(slab, null);
    memory.putFrames(slab.frame, slab.cache.order);
  }

  function releaseEmpty(cache: Cache): number {
    const nr = cache.empty.size << cache.order;
    for (const slab of [...cache.empty]) release(slab);
    return nr;
  }

  function slabAt(address: number): Slab | null {
    return slabOf[Math.floor(address / FRAME_BYTES)] ?? null;
  }

  return {
    createCache(size, align, hasConstructor) {
      if (!isValid(size, align)) return -EINVAL;
      for (let id = 0; id < MAX_CACHES; id++) {
        if (caches.has(id)) continue;
        caches.set(id, new Cache(id, size, align, hasConstructor));
        return id;
      }
      return -ENOMEM;
    },
    alloc(id) {
      const cache = caches.get(id);
      const slab = cache?.withRoom() ?? (cache === undefined ? undefined : grow(cache));
      if (cache === undefined || slab === undefined) return NO_OBJECT;
      const index = slab.free.pop() as number;
      slab.isOut[index] = true;
      cache.nrOut++;
      cache.empty.delete(slab);
      if (slab.free.length > 0) cache.partial.add(slab);
      else cache.partial.delete(slab);
      return slab.base + index * cache.stride;
    },
    free(address) {
      const slab = slabAt(address);
      const index = slab === null ? -1 : slab.indexAt(address);
      if (slab === null || index < 0) return -EINVAL;
      const { cache } = slab;
      slab.isOut[index] = false;
      slab.free.push(index);
      cache.nrOut--;
      if (!slab.isEmpty) {
        cache.partial.add(slab);
        return 0;
      }
      cache.partial.delete(slab);
      if (cache.empty.size >= keepEmpty) release(slab);
      else cache.empty.add(slab);
      return 0;
    },
    cacheOf(address) {
      const slab = slabAt(address);
      return slab !== null && slab.indexAt(address) >= 0 ? slab.cache.id : -EINVAL;
    },
    inUse(id) {
      return caches.get(id)?.nrOut ?? -EINVAL;
    },
    shrink(id) {
      const cache = caches.get(id);
      return cache === undefined ? -EINVAL : releaseEmpty(cache);
    },
    destroyCache(id) {
      const cache = caches.get(id);
      if (cache === undefined) return -EINVAL;
      if (cache.nrOut > 0) return -EBUSY;
      releaseEmpty(cache);
      caches.delete(id);
      return 0;
    },
  };
}
