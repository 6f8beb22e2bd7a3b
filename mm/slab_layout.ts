/**
 * Slab layout: how big an object becomes, and how many share a slab.
 *
 * Pure arithmetic, no memory: what Linux computes when a cache is created. `slab` = 2^order pages.
 *
 *   |◀──────────────────────── size ────────────────────────▶|
 *   [left red zone] object ……… [right red zone] [free ptr] [2 tracks] [orig size] [pad] │ next object …
 *                   ▲ free pointer inside the object while it is free, unless its content must survive (S7)
 *
 *   S1  kmalloc size classes (kmalloc.ts)       S5  how many partial slabs and objects are kept
 *   S2  alignment at least 8                    S6  alignment to a cache line, halved for small objects
 *   S4  order of a slab                         S7  where the free pointer is        S8  bytes added for debugging
 *
 * Judged by the recorded tables of two real kernels: every cache of theirs must come out with the same numbers.
 * The debugging flags are computed here and not yet acted upon by slab.ts.
 * Source: mm/slub.c (calculate_sizes, calculate_order), mm/slab_common.c (calculate_alignment) of Linux 6.12.
 */

import { clamp, fls, getOrder, ilog2 } from "../kernel/lib/bits.ts";
import { CACHE_LINE, GRANULE, PAGE_SIZE } from "../kernel/params.ts";
import { alignDown, alignUp } from "../kernel/types.ts";

// ── Flags of a cache (our numbers; Linux's are not ABI) ────────────────────────────────────────────────────────────

/** Objects start on a cache line, as far as their size justifies it (S6). */
export const SLAB_HWCACHE_ALIGN = 0x1;
/** Objects can be reclaimed under memory pressure: pages are counted and grouped as reclaimable. */
export const SLAB_RECLAIM_ACCOUNT = 0x2;
/** Pages come from the zone that old DMA devices reach. */
export const SLAB_CACHE_DMA = 0x4;
/** Failing to create the cache is fatal. */
export const SLAB_PANIC = 0x8;
/** The memory of a freed object stays an object of its type for a grace period. */
export const SLAB_TYPESAFE_BY_RCU = 0x10;
export const SLAB_RED_ZONE = 0x20;
export const SLAB_POISON = 0x40;
export const SLAB_STORE_USER = 0x80;
/** A cache behind kmalloc(): debugging also stores the requested size. */
export const SLAB_KMALLOC = 0x100;

/** Objects are the allocator's own records: kfree() and kmem_cache_free() refuse them. Not in Linux. */
export const SLAB_INTERNAL = 0x200;

/** Largest order that S4 chooses freely; only an object that needs more gets more. */
export const SLAB_MAX_ORDER = 3;

const SIZEOF_TRACK = 32;
const SIZEOF_ORIG_SIZE = 4;

export interface LayoutInput {
  /** Bytes the caller asked for, ≥ 1. */
  readonly objectSize: number;
  /** Requested alignment, a power of two or 0. */
  readonly align: number;
  readonly flags: number;
  readonly hasCtor: boolean;
}

export interface LayoutOptions {
  /** CPUs present; S4 packs more objects into a slab on larger machines. */
  readonly nrCpus: number;
  readonly minOrder?: number;
  readonly maxOrder?: number;
  /** Overrides S4's number of objects that a slab should hold at least. */
  readonly minObjects?: number;
}

export interface SlabLayout {
  readonly objectSize: number;
  /** Effective alignment of objects. */
  readonly align: number;
  /** Distance from one object to the next, bytes. */
  readonly size: number;
  readonly order: number;
  /** Objects in a slab. */
  readonly objects: number;
  /** Where in a free object the link to the next one is. */
  readonly freePointerOffset: number;
  /** Bytes before the object proper: the left red zone. */
  readonly leftRedZone: number;
  readonly minPartial: number;
  /** Objects that Linux keeps in per-CPU partial slabs; magazines take their place here. Shown in sysfs only. */
  readonly cpuPartial: number;
}

/** S2, S6: the alignment that a cache really gets. `align` is a power of two or 0. Pure. */
export function calculateAlignment(objectSize: number, align: number, flags: number): number {
  let line = 0;
  if ((flags & SLAB_HWCACHE_ALIGN) !== 0) {
    line = CACHE_LINE;
    while (objectSize <= line / 2) line /= 2;
  }
  return alignUp(Math.max(align, line, GRANULE), GRANULE);
}

/** S4: the order of a slab for objects `size` bytes apart; may exceed `maxOrder` for huge objects. Pure, O(orders). */
export function calculateOrder(size: number, options: LayoutOptions): number {
  const { nrCpus, minOrder = 0, maxOrder = SLAB_MAX_ORDER } = options;
  const objectsIn = (order: number): number => Math.floor((PAGE_SIZE * 2 ** order) / size);
  const wanted = options.minObjects ?? 4 * (fls(nrCpus) + 1);
  const minObjects = Math.min(wanted, Math.max(objectsIn(maxOrder), 1));
  const startOrder = Math.max(minOrder, getOrder(minObjects * size));
  for (let fraction = 16; fraction > 1; fraction /= 2) {
    for (let order = startOrder; order <= maxOrder; order++) {
      const slabBytes = PAGE_SIZE * 2 ** order;
      if (slabBytes % size <= slabBytes / fraction) return order;
    }
  }
  return getOrder(size);
}

/** S5: partial slabs that a cache keeps even when they are empty. Pure. */
export const minPartialOf = (size: number): number => clamp(Math.floor(ilog2(size) / 2), 5, 10);

/** S5: objects in per-CPU partial slabs, as Linux would have it. Pure. */
export function cpuPartialOf(size: number): number {
  if (size >= PAGE_SIZE) return 6;
  if (size >= 1024) return 24;
  return size >= 256 ? 52 : 120;
}

/** All numbers of a cache: S2, S4-S8. Pure, O(orders). */
export function calculateSizes(input: LayoutInput, options: LayoutOptions): SlabLayout {
  const { objectSize, flags } = input;
  const has = (flag: number): boolean => (flags & flag) !== 0;
  const align = calculateAlignment(objectSize, input.align, flags);

  const rounded = alignUp(objectSize, GRANULE);
  let size = rounded;
  // The bytes up to the word boundary serve as right red zone; if there are none, a word is added (S8).
  if (has(SLAB_RED_ZONE) && size === objectSize) size += GRANULE;
  let freePointerOffset = alignDown(Math.floor(rounded / 2), GRANULE);
  if (has(SLAB_TYPESAFE_BY_RCU | SLAB_POISON) || input.hasCtor || (has(SLAB_RED_ZONE) && objectSize < GRANULE)) {
    freePointerOffset = size;
    size += GRANULE;
  }
  if (has(SLAB_STORE_USER)) {
    size += 2 * SIZEOF_TRACK;
    if (has(SLAB_KMALLOC)) size += SIZEOF_ORIG_SIZE;
  }
  const leftRedZone = has(SLAB_RED_ZONE) ? alignUp(GRANULE, align) : 0;
  if (has(SLAB_RED_ZONE)) size += GRANULE + leftRedZone;
  size = alignUp(size, align);

  const order = calculateOrder(size, options);
  return {
    objectSize,
    align,
    size,
    order,
    objects: Math.floor((PAGE_SIZE * 2 ** order) / size),
    freePointerOffset: freePointerOffset + leftRedZone,
    leftRedZone,
    minPartial: minPartialOf(size),
    cpuPartial: cpuPartialOf(size),
  };
}

// ── Offset → index without a division ──────────────────────────────────────────────────────────────────────────────

const RECIPROCAL_SHIFT = 12;
const RECIPROCALS = 0x1fff;
const INDEXES = 0xfff;
/** Where in a geometry the size is, in bytes; below it is the reciprocal. */
export const GEOMETRY_SIZE_SHIFT = 13;

/**
 * What a free needs of a slab's objects in one word: their size, and the reciprocal ⌈2^12 / granules⌉. Pure.
 *
 * With g = size / 8 and m = ⌈2^12 / g⌉ = (2^12 + e) / g, e < g: at offset q·g granules, q·g·m = q·(2^12 + e). The
 * shift yields q as long as q·e < 2^12, and q·e < q·g < 2^12. Nothing overflows: q·(2^12 + e) < 2^25.
 * Exact for multiples of the size below 32 KiB; for other offsets, negative ones too, the result is some index below
 * 2^12, whose product with the size is a number from 0 to 2^27 and not the offset: so an interior pointer is told.
 */
export const slabGeometry = (size: number): number =>
  size * 2 ** GEOMETRY_SIZE_SHIFT + Math.ceil(2 ** RECIPROCAL_SHIFT / (size / GRANULE));

/** Index of the object that starts `offset` bytes after the first one. `geometry` 0 stands for a single object. */
export const objectIndex = (offset: number, geometry: number): number =>
  (Math.imul(offset >>> 3, geometry & RECIPROCALS) >>> RECIPROCAL_SHIFT) & INDEXES;

if (PAGE_SIZE * 2 ** SLAB_MAX_ORDER > GRANULE * 2 ** RECIPROCAL_SHIFT)
  throw new Error("slab_layout: objectIndex() is not exact");
