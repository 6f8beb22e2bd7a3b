/**
 * struct page: seven words for every page frame, kept as columns in RAM.
 *
 * A column is an array with one u32 per frame; the frame number is the handle. Columns instead of 28-byte records,
 * because an allocator touches two or three words of many frames, never all words of one.
 *
 * | column   | meaning by state of the frame                                             | written under          |
 * |----------|---------------------------------------------------------------------------|------------------------|
 * | flags    | zone, state bits, order of the block that starts here (below)             | owner of the frame     |
 * | refcount | allocated: number of holders, ≥ 1; else 0                                 | atomic                 |
 * | next     | neighbour on the list that the block is on: buddy, per-CPU, slab, LRU     | the list's lock        |
 * | prev     | same, backwards                                                           | the list's lock        |
 * | private  | slab: granule of the slab descriptor; process page: owner's address space | owner of the frame     |
 * | mapcount | process page: number of page-table entries that map it                    | mmap lock of the owner |
 * | index    | process page: number of the virtual page that it backs                    | mmap lock of the owner |
 *
 * flags:
 *
 *   31 30-28 27-23 22-20  19-16  15…0
 *    – zone   –    mtype  order  PG_ bits        order and mtype are valid in the first frame of a block only
 *
 *   PAGE-1  a frame is exactly one of: reserved, in a free block, on a per-CPU list, allocated
 *   PAGE-2  in each of these the first frame of the block carries the state bit and the order, the others neither
 *   PAGE-3  the order in flags is what the block was allocated with: a free with another order is refused
 *
 *   PAGE-4  a process page's private and index name the one entry that maps it: the reverse mapping (migrate.ts)
 *
 * The link columns are longer than the others: rows from `nrFrames` on are list heads (page_list.ts), so that taking a
 * frame off a list needs neither a branch nor to know which list.
 *
 * Metadata: 28 bytes a frame, 0.68 % of RAM. Linux: 64 bytes, 1.56 %, with the same unions (include/linux/mm_types.h).
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { Pfn, PhysAddr } from "../kernel/types.ts";

// ── State bits: one of these in the first frame of a block ─────────────────────────────────────────────────────────

/** Never given to the allocator: holes, firmware, kernel image, boot allocations. */
export const PG_RESERVED = 1 << 0;
/** First frame of a free block of the buddy. */
export const PG_BUDDY = 1 << 1;
/** First frame of a free block on a per-CPU list. */
export const PG_PCP = 1 << 2;
/** First frame of an allocated block. */
export const PG_ALLOCATED = 1 << 3;
export const PG_STATE = PG_RESERVED | PG_BUDDY | PG_PCP | PG_ALLOCATED;

// ── What an allocated block is used for ────────────────────────────────────────────────────────────────────────────

/** Every frame of a slab. */
export const PG_SLAB = 1 << 4;
/** A page table. */
export const PG_TABLE = 1 << 5;
/** On the reclaim lists: a page of a process, movable. */
export const PG_LRU = 1 << 6;
/** First frame of a compound block (__GFP_COMP). */
export const PG_HEAD = 1 << 7;
/** First frame of a large kmalloc. */
export const PG_LARGE_KMALLOC = 1 << 8;
/** The page holds anonymous memory of a process. */
export const PG_ANON = 1 << 9;
/** Everything that an owner may set and that must be gone when the block is freed. */
export const PG_OWNER_BITS = PG_SLAB | PG_TABLE | PG_LRU | PG_HEAD | PG_LARGE_KMALLOC | PG_ANON;

export const ORDER_SHIFT = 16;
export const ORDER_MASK = 0xf << ORDER_SHIFT;
export const MT_SHIFT = 20;
export const MT_MASK = 0x7 << MT_SHIFT;
export const ZONE_SHIFT = 28;
export const ZONE_MASK = 0x7 << ZONE_SHIFT;

export const orderOfFlags = (flags: number): number => (flags >>> ORDER_SHIFT) & 0xf;
export const migratetypeOfFlags = (flags: number): number => (flags >>> MT_SHIFT) & 0x7;
export const zoneOfFlags = (flags: number): number => (flags >>> ZONE_SHIFT) & 0x7;

/** Bytes of metadata per frame. */
export const PAGE_STRUCT_BYTES = 28;

export interface Pages {
  /** Frames `0 ≤ pfn < nrFrames` have rows; a multiple of the largest block, so that a buddy always has one. */
  readonly nrFrames: number;
  /** Rows at and after this one of the link columns are list heads. */
  readonly firstHead: number;
  readonly nrHeads: number;
  /** Bases of the columns, for the allocators' inner loops. */
  readonly flagsBase: PhysAddr;
  readonly refcountBase: PhysAddr;
  readonly nextBase: PhysAddr;
  readonly prevBase: PhysAddr;
  readonly privateBase: PhysAddr;
  readonly mapcountBase: PhysAddr;
  readonly indexBase: PhysAddr;
  /** Bytes of all columns. */
  readonly bytes: number;

  flags(pfn: Pfn): number;
  setFlags(pfn: Pfn, flags: number): void;
  addFlags(pfn: Pfn, bits: number): void;
  clearFlags(pfn: Pfn, bits: number): void;
  refcount(pfn: Pfn): number;
  setRefcount(pfn: Pfn, count: number): void;
  private(pfn: Pfn): number;
  setPrivate(pfn: Pfn, value: number): void;
  mapcount(pfn: Pfn): number;
  setMapcount(pfn: Pfn, count: number): void;
  index(pfn: Pfn): number;
  setIndex(pfn: Pfn, page: number): void;
}

/** Bytes that the columns take for `nrFrames` frames and `nrHeads` list heads. */
export const memmapBytes = (nrFrames: number, nrHeads: number): number => nrFrames * PAGE_STRUCT_BYTES + nrHeads * 8;

/** Views over columns that start at `base` (8-aligned, zeroed, `memmapBytes` long). */
export function createPages(port: MemoryPort, base: PhysAddr, nrFrames: number, nrHeads: number): Pages {
  const column = nrFrames * 4;
  const links = (nrFrames + nrHeads) * 4;
  const flagsBase = base as PhysAddr;
  const refcountBase = (flagsBase + column) as PhysAddr;
  const nextBase = (refcountBase + column) as PhysAddr;
  const prevBase = (nextBase + links) as PhysAddr;
  const privateBase = (prevBase + links) as PhysAddr;
  const mapcountBase = (privateBase + column) as PhysAddr;
  const indexBase = (mapcountBase + column) as PhysAddr;

  return {
    nrFrames,
    firstHead: nrFrames,
    nrHeads,
    flagsBase,
    refcountBase,
    nextBase,
    prevBase,
    privateBase,
    mapcountBase,
    indexBase,
    bytes: memmapBytes(nrFrames, nrHeads),
    flags: (pfn) => port.ld32(flagsBase + pfn * 4),
    setFlags: (pfn, flags) => port.st32(flagsBase + pfn * 4, flags),
    addFlags: (pfn, bits) => port.st32(flagsBase + pfn * 4, port.ld32(flagsBase + pfn * 4) | bits),
    clearFlags: (pfn, bits) => port.st32(flagsBase + pfn * 4, port.ld32(flagsBase + pfn * 4) & ~bits),
    refcount: (pfn) => port.ld32(refcountBase + pfn * 4),
    setRefcount: (pfn, count) => port.st32(refcountBase + pfn * 4, count),
    private: (pfn) => port.ld32(privateBase + pfn * 4),
    setPrivate: (pfn, value) => port.st32(privateBase + pfn * 4, value),
    mapcount: (pfn) => port.ld32(mapcountBase + pfn * 4),
    setMapcount: (pfn, count) => port.st32(mapcountBase + pfn * 4, count),
    index: (pfn) => port.ld32(indexBase + pfn * 4),
    setIndex: (pfn, page) => port.st32(indexBase + pfn * 4, page),
  };
}
