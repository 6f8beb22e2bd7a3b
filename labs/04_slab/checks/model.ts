/**
 * The naive model of lab 4: which frames each cache has, and which objects of them are out.
 *
 * Frames are what the machine said that it gave; where objects lie follows from the rules about layout and colour.
 */

import { FRAME_BYTES, MAX_ALIGN, MAX_SIZE, MIN_ALIGN, MIN_SIZE } from "../given/api.ts";

export interface SlabConfig {
  readonly frames: number;
  readonly keepEmpty: number;
}

/** What follows from size and alignment alone. */
export interface Layout {
  readonly stride: number;
  readonly align: number;
  readonly order: number;
  readonly bytes: number;
  readonly nrObjects: number;
  readonly nrColours: number;
}

export function isValidRequest(size: number, align: number): boolean {
  const isSize = Number.isInteger(size) && size >= 1 && size <= MAX_SIZE;
  const isAlign = Number.isInteger(align) && align >= MIN_ALIGN && align <= MAX_ALIGN && (align & (align - 1)) === 0;
  return isSize && isAlign;
}

/** The smallest slab of which at most an eighth is left over. */
export function layoutOf(size: number, align: number): Layout {
  const stride = Math.max(MIN_SIZE, Math.ceil(size / align) * align);
  for (let order = 0; ; order++) {
    const bytes = FRAME_BYTES << order;
    const rest = bytes % stride;
    if (rest > bytes / 8) continue;
    const nrObjects = (bytes - rest) / stride;
    return { stride, align, order, bytes, nrObjects, nrColours: Math.floor(rest / align) + 1 };
  }
}

export interface Slab {
  readonly cache: Cache;
  readonly frame: number;
  /** Place in the row of slabs that the cache ever made; says the colour. */
  readonly nr: number;
  /** Operation that took each object which is out. */
  readonly out: Map<number, number>;
  /** Calls of the constructor for each object. */
  readonly constructed: Uint16Array;
}

export interface Cache extends Layout {
  readonly id: number;
  readonly op: number;
  readonly hasConstructor: boolean;
  readonly slabs: Set<Slab>;
  nrMade: number;
}

/** Where an address lies in a slab. */
export interface Place {
  readonly slab: Slab;
  readonly index: number;
}

export class Machine {
  readonly nrFrames: number;
  readonly keepEmpty: number;
  readonly caches = new Map<number, Cache>();
  readonly #slabOf = new Map<number, Slab>();
  readonly #others = new Set<number>();

  constructor({ frames, keepEmpty }: SlabConfig) {
    this.nrFrames = frames;
    this.keepEmpty = keepEmpty;
  }

  addCache(id: number, op: number, size: number, align: number, hasConstructor: boolean): void {
    this.caches.set(id, { ...layoutOf(size, align), id, op, hasConstructor, slabs: new Set(), nrMade: 0 });
  }

  addOthers(frame: number, order: number): void {
    for (let i = frame; i < frame + (1 << order); i++) this.#others.add(i);
  }

  isOthers(frame: number): boolean {
    return this.#others.has(frame);
  }

  addSlab(cache: Cache, frame: number): Slab {
    const nr = cache.nrMade++;
    const slab: Slab = { cache, frame, nr, out: new Map(), constructed: new Uint16Array(cache.nrObjects) };
    cache.slabs.add(slab);
    for (let i = frame; i < frame + (1 << cache.order); i++) this.#slabOf.set(i, slab);
    return slab;
  }

  removeSlab(slab: Slab): void {
    slab.cache.slabs.delete(slab);
    for (let i = slab.frame; i < slab.frame + (1 << slab.cache.order); i++) this.#slabOf.delete(i);
  }

  slabAtFrame(frame: number): Slab | undefined {
    return this.#slabOf.get(frame);
  }

  slabAt(address: number): Slab | undefined {
    return this.#slabOf.get(Math.floor(address / FRAME_BYTES));
  }

  /** The object that starts at `address`, out or not. */
  placeAt(address: number): Place | undefined {
    const slab = this.slabAt(address);
    if (slab === undefined) return undefined;
    const index = (address - baseOf(slab)) / slab.cache.stride;
    const isObject = Number.isInteger(index) && index >= 0 && index < slab.cache.nrObjects;
    return isObject ? { slab, index } : undefined;
  }

  /** The object that is out and starts at `address`. */
  outAt(address: number): Place | undefined {
    const place = this.placeAt(address);
    return place?.slab.out.has(place.index) ? place : undefined;
  }
}

/** Address of the first object of a slab. */
export function baseOf({ cache, frame, nr }: Slab): number {
  return frame * FRAME_BYTES + colourOf(cache, nr);
}

/** Offset of the first object of the cache's slab number `nr`. */
export function colourOf({ nrColours, align }: Layout, nr: number): number {
  return (nr % nrColours) * align;
}

export function emptySlabs(cache: Cache): Slab[] {
  return [...cache.slabs].filter(({ out }) => out.size === 0);
}

export function hasPartial(cache: Cache): boolean {
  return [...cache.slabs].some(({ out }) => out.size > 0 && out.size < cache.nrObjects);
}

export function hasRoom(cache: Cache): boolean {
  return [...cache.slabs].some(({ out }) => out.size < cache.nrObjects);
}

export function nrOut(cache: Cache): number {
  let nr = 0;
  for (const { out } of cache.slabs) nr += out.size;
  return nr;
}
