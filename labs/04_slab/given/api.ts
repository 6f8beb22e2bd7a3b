/**
 * What lab 4 gives you: frames, columns to keep books in, and the functions that your allocator has to have.
 *
 * Do not change this file: the grader uses its own copy.
 */

/** Bytes of a frame. Frame f is the addresses f · FRAME_BYTES … (f + 1) · FRAME_BYTES − 1. */
export const FRAME_BYTES = 4096;
/** What alloc returns when there is no object. */
export const NO_OBJECT = 0xffff_ffff;
/** What getFrames returns when there are no frames. */
export const NO_FRAME = 0xffff_ffff;

/** A cache is for objects of 1 … MAX_SIZE bytes; a smaller object takes MIN_SIZE. */
export const MIN_SIZE = 32;
export const MAX_SIZE = 4096;
/** An alignment is a power of two from MIN_ALIGN to MAX_ALIGN. */
export const MIN_ALIGN = 8;
export const MAX_ALIGN = 256;
/** A slab has 2^0 … 2^MAX_ORDER frames. */
export const MAX_ORDER = 3;
/** Caches that can exist at a time: numbers 0 … MAX_CACHES − 1. */
export const MAX_CACHES = 8;

/** No room in the table of caches. */
export const ENOMEM = 12;
/** The cache has objects that are out. */
export const EBUSY = 16;
/** An argument that makes no sense. */
export const EINVAL = 22;

/** The machine. All columns are zero at the start and yours alone; their names are a proposal. */
export interface SlabMemory {
  /** Frames are 0 … nrFrames − 1. None is yours before getFrames has returned it. */
  readonly nrFrames: number;
  /** Empty slabs that a cache keeps when objects are freed. */
  readonly keepEmpty: number;
  /** First of 2^order frames that are yours now, or NO_FRAME. */
  getFrames(order: number): number;
  /** Gives back what getFrames(order) returned. */
  putFrames(frame: number, order: number): void;
  /** Runs the constructor of `cache` on the object at `address`. */
  construct(cache: number, address: number): void;

  /** One row per frame. */
  readonly owner: Uint8Array;
  readonly first: Uint32Array;
  readonly inUse: Uint16Array;
  readonly freeHead: Uint16Array;
  readonly colour: Uint16Array;
  /** Links: rows 0 … nrFrames − 1 are frames, the 3 · MAX_CACHES rows behind are heads of lists. */
  readonly next: Uint32Array;
  readonly prev: Uint32Array;
  /** One row for each MIN_SIZE bytes of memory: the object at `address` has row Math.floor(address / MIN_SIZE). */
  readonly state: Uint8Array;
  readonly link: Uint16Array;
}

export interface SlabAllocator {
  /** Number of a new cache, −EINVAL for a bad size or alignment, −ENOMEM if there are MAX_CACHES. */
  createCache(size: number, align: number, hasConstructor: boolean): number;
  /** Address of an object of `cache` that is now out, or NO_OBJECT. */
  alloc(cache: number): number;
  /** 0, or −EINVAL if no object that is out starts at `address`; then nothing has changed. */
  free(address: number): number;
  /** The cache of the object that is out and starts at `address`, or −EINVAL. */
  cacheOf(address: number): number;
  /** Objects of `cache` that are out, or −EINVAL for no cache. */
  inUse(cache: number): number;
  /** Gives back every empty slab of `cache`: how many frames those were, or −EINVAL. */
  shrink(cache: number): number;
  /** 0 and the number is free again, −EBUSY if objects are out, −EINVAL for no cache. */
  destroyCache(cache: number): number;
}
