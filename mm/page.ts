/**
 * struct page: eight words for every page frame.
 *
 * The frame number is the handle. The four words that every allocation and every free touch are together in one row of
 * 16 bytes, four rows to a cache line: taking a page that nobody has looked at for a while costs one cache miss
 * instead of four. The four words that only some owners need are columns of their own, arrays with one u32 per frame,
 * which an allocator does not drag through the cache.
 *
 *      rows      | flags refcount next prev | flags refcount next prev | …      frames, then list heads
 *      columns   | private | private | …   | mapcount | …   | index | …   | mapping | …
 *
 * | word     | meaning by state of the frame                                             | written under          |
 * |----------|---------------------------------------------------------------------------|------------------------|
 * | flags    | zone, state bits, order of the block that starts here (below)             | owner of the frame     |
 * | refcount | allocated: number of holders, ≥ 1; else 0                                 | atomic                 |
 * | next     | neighbour on the list that the block is on: buddy, per-CPU, slab, LRU     | the list's lock        |
 * | prev     | same, backwards                                                           | the list's lock        |
 * | private  | slab: granule of the slab descriptor; PG_SWAPCACHE: the swap slot; root   | owner of the frame     |
 * |          | of page tables: their number                                              |                        |
 * | mapcount | process page: number of page-table entries that map it                    | mmap lock of the owner |
 * | index    | process page: its number in the mapping (anonymous: pgoff of the VMA)     | mmap lock of the owner |
 * | mapping  | PG_ANON: granule of the anon_vma; page of a file: of its address_space    | owner of the frame     |
 *
 * flags:
 *
 *   31 30-28 27-23    22-20  19-16  15…0
 *    – zone  PG_ bits mtype  order  PG_ bits     order and mtype are valid in the first frame of a block only
 *
 *   PAGE-1  a frame is exactly one of: reserved, in a free block, on a per-CPU list, allocated
 *   PAGE-2  in each of these the first frame of the block carries the state bit and the order, the others neither
 *   PAGE-3  the order in flags is what the block was allocated with: a free with another order is refused
 *
 *   PAGE-4  a process page's mapping and index lead to the entries that map it: the reverse mapping (rmap.ts)
 *   PAGE-5  private and mapping are 0 in a frame that nobody owns: who sets them clears them before the free, so that
 *           the page allocator need not touch these columns
 *   PAGE-6  refcount = mapcount + 1 if in the page cache + 1 if in the swap cache + transient holders (page_ref.ts)
 *
 * There are more rows than frames: those from `nrFrames` on are list heads (page_list.ts), so that taking a frame off
 * a list needs neither a branch nor to know which list.
 *
 * Row numbers that come out of RAM are masked before they become addresses. It costs one instruction, and V8 then knows
 * that base + row · 16 neither overflows nor leaves RAM: an access is an addition and a move, without the three checks
 * and jumps that it needs for a number of unknown size.
 *
 * Metadata: 32 bytes a frame, 0.78 % of RAM. Linux: 64 bytes, 1.56 %, with the same unions (include/linux/mm_types.h).
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

/** Of a free block, where no owner's bits are: the host knows that it is free (page_reporting.ts). */
export const PG_REPORTED = 1 << 12;

// ── State of a page that processes map or that caches hold ─────────────────────────────────────────────────────────

/** Somebody has the page to itself for a moment: I/O, migration, truncation. */
export const PG_LOCKED = 1 << 10;
/** Used since the reclaim scanner last looked. */
export const PG_REFERENCED = 1 << 11;
/** The content is what it should be: read in, or zeroed. */
export const PG_UPTODATE = 1 << 12;
/** Newer than its copy in the file or the swap area. */
export const PG_DIRTY = 1 << 13;
/** On the active list, or to be put on it. */
export const PG_ACTIVE = 1 << 14;
/** Being written out. */
export const PG_WRITEBACK = 1 << 15;
/** In the swap cache: `private` holds its slot. */
export const PG_SWAPCACHE = 1 << 23;
/** Goes to swap when it is reclaimed, not to a file: anonymous memory (unless lazily freed) and shared memory. */
export const PG_SWAPBACKED = 1 << 24;
/** Not to be reclaimed: locked into memory. */
export const PG_UNEVICTABLE = 1 << 25;
/** A VMA with VM_LOCKED maps it. */
export const PG_MLOCKED = 1 << 26;
/** Was in the working set when it was evicted (workingset.ts). */
export const PG_WORKINGSET = 1 << 27;

const PG_CACHE_BITS =
  PG_LOCKED | PG_REFERENCED | PG_UPTODATE | PG_DIRTY | PG_ACTIVE | PG_WRITEBACK | PG_SWAPCACHE | PG_SWAPBACKED;
const PG_RECLAIM_BITS = PG_UNEVICTABLE | PG_MLOCKED | PG_WORKINGSET;
/** Everything that an owner may set and that must be gone when the block is freed. */
export const PG_OWNER_BITS =
  PG_SLAB | PG_TABLE | PG_LRU | PG_HEAD | PG_LARGE_KMALLOC | PG_ANON | PG_CACHE_BITS | PG_RECLAIM_BITS;

export const ORDER_SHIFT = 16;
export const ORDER_MASK = 0xf << ORDER_SHIFT;
export const MT_SHIFT = 20;
export const MT_MASK = 0x7 << MT_SHIFT;
export const ZONE_SHIFT = 28;
export const ZONE_MASK = 0x7 << ZONE_SHIFT;

export const orderOfFlags = (flags: number): number => (flags >>> ORDER_SHIFT) & 0xf;
export const migratetypeOfFlags = (flags: number): number => (flags >>> MT_SHIFT) & 0x7;
export const zoneOfFlags = (flags: number): number => (flags >>> ZONE_SHIFT) & 0x7;

/** Bytes of metadata per frame: a row and four columns. */
export const PAGE_STRUCT_BYTES = 32;

// ── A row ──────────────────────────────────────────────────────────────────────────────────────────────────────────

export const PAGE_ROW_SHIFT = 4;
export const PAGE_REFCOUNT = 4;
export const PAGE_NEXT = 8;
export const PAGE_PREV = 12;
/** Copies for the fast paths: why, see slab_objects.ts. */
const ROW_SHIFT = PAGE_ROW_SHIFT;
const ROW_BYTES = 1 << PAGE_ROW_SHIFT;
const REFCOUNT = PAGE_REFCOUNT;
const NEXT = PAGE_NEXT;
const PREV = PAGE_PREV;
const COLUMN_BYTES = 4;
if (ROW_BYTES + 4 * COLUMN_BYTES !== PAGE_STRUCT_BYTES) throw new Error("page: rows and columns do not add up");

export interface Pages {
  /** Frames `0 ≤ pfn < nrFrames` have rows; a multiple of the largest block, so that a buddy always has one. */
  readonly nrFrames: number;
  /** Rows at and after this one are list heads. */
  readonly firstHead: number;
  readonly nrHeads: number;
  /** Base of a column, for inner loops. */
  readonly privateBase: PhysAddr;
  /** Row numbers are masked by this (2^n − 1) before they become addresses. */
  readonly rowMask: number;
  /** Bytes of rows and columns. */
  readonly bytes: number;

  /** Address of a row, of a frame or a list head; the words of a row by its address, for inner loops. */
  rowAt(row: number): number;
  /** Number of the first word of a row (port.ts), for hits. */
  rowWord(row: number): number;
  flagsAt(at: number): number;
  setFlagsAt(at: number, flags: number): void;
  refcountAt(at: number): number;
  setRefcountAt(at: number, count: number): void;
  nextAt(at: number): number;
  setNextAt(at: number, row: number): void;
  prevAt(at: number): number;
  setPrevAt(at: number, row: number): void;

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
  mapping(pfn: Pfn): number;
  setMapping(pfn: Pfn, granule: number): void;
}

/** Bytes that rows and columns take for `nrFrames` frames and `nrHeads` list heads. */
export const memmapBytes = (nrFrames: number, nrHeads: number): number =>
  nrFrames * PAGE_STRUCT_BYTES + nrHeads * ROW_BYTES;

/** Views over rows and columns that start at `base` (16-aligned, zeroed, `memmapBytes` long). */
export function createPages(port: MemoryPort, base: PhysAddr, nrFrames: number, nrHeads: number): Pages {
  const column = nrFrames * COLUMN_BYTES;
  const privateBase = (base + (nrFrames + nrHeads) * ROW_BYTES) as PhysAddr;
  const mapcountBase = (privateBase + column) as PhysAddr;
  const indexBase = (mapcountBase + column) as PhysAddr;
  const mappingBase = (indexBase + column) as PhysAddr;
  const rowMask = 2 ** Math.ceil(Math.log2(nrFrames + nrHeads)) - 1;

  // Each of these is smaller than 27 bytecodes, which V8 inlines without counting them.
  const rowAt = (row: number): number => ((row & rowMask) << ROW_SHIFT) + base;
  const words = base >>> 2;
  const flagsAt = (at: number): number => port.ld32(at);
  const setFlagsAt = (at: number, flags: number): void => port.st32(at, flags);

  return {
    nrFrames,
    firstHead: nrFrames,
    nrHeads,
    privateBase,
    rowMask,
    bytes: memmapBytes(nrFrames, nrHeads),
    rowAt,
    rowWord: (row) => ((row & rowMask) << (ROW_SHIFT - 2)) + words,
    flagsAt,
    setFlagsAt,
    refcountAt: (at) => port.ld32(at + REFCOUNT),
    setRefcountAt: (at, count) => port.st32(at + REFCOUNT, count),
    nextAt: (at) => port.ld32(at + NEXT),
    setNextAt: (at, row) => port.st32(at + NEXT, row),
    prevAt: (at) => port.ld32(at + PREV),
    setPrevAt: (at, row) => port.st32(at + PREV, row),
    flags: (pfn) => flagsAt(rowAt(pfn)),
    setFlags: (pfn, flags) => setFlagsAt(rowAt(pfn), flags),
    addFlags: (pfn, bits) => setFlagsAt(rowAt(pfn), flagsAt(rowAt(pfn)) | bits),
    clearFlags: (pfn, bits) => setFlagsAt(rowAt(pfn), flagsAt(rowAt(pfn)) & ~bits),
    refcount: (pfn) => port.ld32(rowAt(pfn) + REFCOUNT),
    setRefcount: (pfn, count) => port.st32(rowAt(pfn) + REFCOUNT, count),
    private: (pfn) => port.ld32(privateBase + pfn * COLUMN_BYTES),
    setPrivate: (pfn, value) => port.st32(privateBase + pfn * COLUMN_BYTES, value),
    mapcount: (pfn) => port.ld32(mapcountBase + pfn * COLUMN_BYTES),
    setMapcount: (pfn, count) => port.st32(mapcountBase + pfn * COLUMN_BYTES, count),
    index: (pfn) => port.ld32(indexBase + pfn * COLUMN_BYTES),
    setIndex: (pfn, page) => port.st32(indexBase + pfn * COLUMN_BYTES, page),
    mapping: (pfn) => port.ld32(mappingBase + pfn * COLUMN_BYTES),
    setMapping: (pfn, granule) => port.st32(mappingBase + pfn * COLUMN_BYTES, granule),
  };
}
