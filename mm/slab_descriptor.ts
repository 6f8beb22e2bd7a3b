/**
 * struct kmem_cache and struct slab: the two records of the object allocator, in RAM.
 *
 * struct kmem_cache, one per cache. "lock" is the word at +0, "irq-off" means: by its CPU with interrupts off.
 *
 * | offset | field          | width | meaning                                                     | written under |
 * |--------|----------------|-------|-------------------------------------------------------------|---------------|
 * | 0      | lock           | u32   | spinlock of the slab lists, irqsave                          |               |
 * | 4      | id             | u32   | number of the cache, never reused; finds its constructor     | creation      |
 * | 8      | flags          | u32   | SLAB_… of slab_layout.ts, CACHE_… below                      | creation      |
 * | 12     | object size    | u32   | bytes asked for                                              | creation      |
 * | 16     | size           | u32   | bytes from one object to the next                            | creation      |
 * | 20     | align          | u32   |                                                              | creation      |
 * | 24     | order          | u32   | log2 of the pages of a slab                                  | creation      |
 * | 28     | objects        | u32   | objects of a slab                                            | creation      |
 * | 32     | free pointer   | u32   | offset of the link in a free object                          | creation      |
 * | 36     | geometry       | u32   | for objectIndex(): size and reciprocal                       | creation      |
 * | 40, 44 | min, cpu part. | u32   | S5                                                           | creation      |
 * | 48, 52 | colour, max    | u32   | offset of the next slab's first object; the largest one      | lock          |
 * | 56     | nr slabs       | u32   |                                                              | lock          |
 * | 60     | nr partial     | u32   | slabs on lists 0-4                                           | lock          |
 * | 64     | nr in use      | u32   | objects taken from slabs, those in magazines included        | lock          |
 * | 68     | descriptors    | u32   | granule of the cache of its struct slabs; 0: they are on-slab| creation      |
 * | 72     | caches node    | 8     | list of all caches, newest first                             | cache list    |
 * | 80     | lists          | 6 × 8 | heads: empty, four quartiles of use, full                    | lock          |
 * | 128    | counters       | 5 f64 | slab allocs, slab frees, flushed, slabs created, destroyed   | lock          |
 * | 168    | nr ctor calls  | f64   | constructor calls                                            | creator       |
 * | 192    | depot          | 64    | depot.ts                                                     | depot lock    |
 * | 256    | name           | 32    | NUL-padded                                                   | creation      |
 * | 320    | cc             | 64 ×n | one cache line per CPU: magazine.ts                          | irq-off       |
 *
 * struct slab, one per slab; off-slab, so that an overrun of an object cannot reach it:
 *
 * | 0      | node           | 8     | one of the cache's lists                                     | lock          |
 * | 8      | cache          | u32   | granule of the cache                                         | creation      |
 * | 12     | base           | u32   | address of the first object: start of the slab + its colour  | creation      |
 * | 16, 20 | geometry, size | u32   | copies of the cache's, to spare a free the second line       | creation      |
 * | 24     | objects        | u32   |                                                              | creation      |
 * | 28     | in use         | u32   | objects that are not on the free list                        | lock          |
 * | 32     | free list      | u32   | granule of the first free object, 0 when there is none       | lock          |
 * | 36     | pages          | u32   | first frame of the slab                                      | creation      |
 * | 40     | states         | n + 1 | one byte per object, OBJECT_… below, and a guard of 0        | object's owner|
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { CACHE_LINE, GRANULE, MAX_CPUS, MAX_RAM_BYTES } from "../kernel/params.ts";
import type { PhysAddr } from "../kernel/types.ts";
import { SLAB_INTERNAL } from "./slab_layout.ts";

declare const cacheBrand: unique symbol;
declare const slabBrand: unique symbol;

/** Address of a struct kmem_cache. */
export type KmemCache = PhysAddr & { readonly [cacheBrand]: true };
/** Address of a struct slab. */
export type Slab = PhysAddr & { readonly [slabBrand]: true };

export const NO_CACHE = 0 as KmemCache;
export const NO_SLAB = 0 as Slab;

/** The casts into the two brands; the number is the address of such a record, or 0. */
export const asCache = (addr: number): KmemCache => addr as KmemCache;
export const asSlab = (addr: number): Slab => addr as Slab;

// ── Flags of a cache besides those of slab_layout.ts ───────────────────────────────────────────────────────────────

/** It has a constructor. */
export const CACHE_HAS_CTOR = 0x1_0000;

// ── struct kmem_cache ──────────────────────────────────────────────────────────────────────────────────────────────

export const CACHE_LOCK = 0;
export const CACHE_ID = 4;
export const CACHE_FLAGS = 8;
export const CACHE_OBJECT_SIZE = 12;
export const CACHE_SIZE = 16;
export const CACHE_ALIGN = 20;
export const CACHE_ORDER = 24;
export const CACHE_OBJECTS = 28;
export const CACHE_FREE_POINTER = 32;
export const CACHE_GEOMETRY = 36;
export const CACHE_MIN_PARTIAL = 40;
export const CACHE_CPU_PARTIAL = 44;
export const CACHE_COLOUR = 48;
export const CACHE_COLOUR_MAX = 52;
export const CACHE_NR_SLABS = 56;
export const CACHE_NR_PARTIAL = 60;
export const CACHE_NR_INUSE = 64;
export const CACHE_DESCRIPTORS = 68;
export const CACHE_NODE = 72;
export const CACHE_LISTS = 80;
export const CACHE_SLAB_ALLOCS = 128;
export const CACHE_SLAB_FREES = 136;
export const CACHE_FLUSHED = 144;
export const CACHE_SLABS_CREATED = 152;
export const CACHE_SLABS_DESTROYED = 160;
export const CACHE_CTOR_CALLS = 168;
export const CACHE_DEPOT = 192;
export const CACHE_NAME = 256;
export const CACHE_NAME_BYTES = 32;
export const CACHE_CC = 320;
export const CC_SHIFT = 6;

/** Longest name of a cache, characters. */
export const MAX_CACHE_NAME = CACHE_NAME_BYTES - 1;

/** Bytes of a struct kmem_cache on a machine of `nrCpus`. */
export const cacheBytes = (nrCpus: number): number => CACHE_CC + (nrCpus << CC_SHIFT);

/** Lists of slabs: LIST_EMPTY, then the quartiles 1-4 of partly used ones, then LIST_FULL. */
export const LIST_EMPTY = 0;
export const LIST_FULLEST = 4;
export const LIST_FULL = 5;
export const NR_SLAB_LISTS = 6;

/** The list on which a slab with `inuse` of `objects` belongs (SLAB-6). */
export function slabListOf(inuse: number, objects: number): number {
  if (inuse === 0) return LIST_EMPTY;
  if (inuse === objects) return LIST_FULL;
  const half = objects >>> 1;
  if (inuse > half) return inuse > half + (half >>> 1) ? LIST_FULLEST : 3;
  return inuse > half >>> 1 ? 2 : 1;
}

// ── struct slab ────────────────────────────────────────────────────────────────────────────────────────────────────

export const SLAB_NODE = 0;
export const SLAB_CACHE = 8;
export const SLAB_BASE = 12;
export const SLAB_GEOMETRY = 16;
export const SLAB_SIZE = 20;
export const SLAB_OBJECTS = 24;
export const SLAB_INUSE = 28;
export const SLAB_FREELIST = 32;
export const SLAB_PFN = 36;
export const SLAB_STATES = 40;

/** On its slab's free list. */
export const OBJECT_FREE = 0;
/** Handed out to a caller. */
export const OBJECT_LIVE = 1;
/** In a magazine, or on its way into or out of one. */
export const OBJECT_CACHED = 2;
/** In use by the allocator itself: a struct slab, a kmem_cache, a magazine. */
export const OBJECT_INTERNAL = 3;
/** Handed out to a mempool, which keeps it in its reserve. */
export const OBJECT_POOLED = 4;

/** State of a handed-out object of a cache with these flags. */
export const liveState = (flags: number): number => ((flags & SLAB_INTERNAL) !== 0 ? OBJECT_INTERNAL : OBJECT_LIVE);

/** Bytes of a struct slab for `objects` objects. */
export const slabBytes = (objects: number): number => SLAB_STATES + objects + 1;

/**
 * In the private column of a slab's frames beside the granule of its struct slab, which has 29 bits: one load tells
 * that a frame belongs to a slab, and to which. Nobody else sets this bit of the column.
 */
export const PRIVATE_IS_SLAB = 0x8000_0000;
/** The bits of a granule of RAM. */
export const RAM_GRANULES = 0x1fff_ffff;

/** Sizes in which struct slabs come; the largest holds the 512 objects of kmalloc-8. */
export const SLAB_DESCRIPTOR_SIZES: readonly number[] = [64, 128, 192, 320, 576];
export const MAX_SLAB_OBJECTS = 512;

// ── Reading ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Name of a cache. Any context; O(length). */
export function cacheName(port: MemoryPort, cache: KmemCache): string {
  let name = "";
  for (let i = 0; i < MAX_CACHE_NAME; i++) {
    const code = port.ld8(cache + CACHE_NAME + i);
    if (code === 0) break;
    name += String.fromCharCode(code);
  }
  return name;
}

/** What a cache is asked to be. */
export interface CacheParams {
  /** 1-31 printable ASCII characters without space, unique. */
  readonly name: string;
  /** Bytes of an object: an integer, 1 … 4 MiB. */
  readonly size: number;
  /** A power of two up to 32 KiB; default 8. */
  readonly align?: number;
  /** SLAB_HWCACHE_ALIGN, SLAB_RECLAIM_ACCOUNT, SLAB_CACHE_DMA, SLAB_PANIC, SLAB_KMALLOC, SLAB_INTERNAL. */
  readonly flags?: number;
  /** Puts an object into its constructed state, once, when its slab is made. Must not allocate or sleep. */
  readonly ctor?: (object: PhysAddr) => void;
}

if (CACHE_DEPOT + 64 > CACHE_NAME || CACHE_NAME + CACHE_NAME_BYTES > CACHE_CC) throw new Error("kmem_cache: overlap");
if (CACHE_CC % CACHE_LINE !== 0 || 1 << CC_SHIFT !== CACHE_LINE) throw new Error("kmem_cache: cc is not on a line");
if (CACHE_LISTS + NR_SLAB_LISTS * 8 > CACHE_SLAB_ALLOCS) throw new Error("kmem_cache: lists overlap the counters");
if (cacheBytes(MAX_CPUS) > 8192) throw new Error("kmem_cache: larger than two pages");
if (MAX_RAM_BYTES / GRANULE > RAM_GRANULES + 1) throw new Error("slab_descriptor: granules of RAM have more bits");
if (slabBytes(MAX_SLAB_OBJECTS) > 576) throw new Error("struct slab: the largest size is too small");
