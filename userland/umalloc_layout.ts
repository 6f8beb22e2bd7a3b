/**
 * Layout of the user heap: units, segments, chunks, and the one block of state.
 *
 * The heap is one range of addresses that grows by brk. It is counted in UNITS of 16 bytes, from its base: unit u is
 * at `base + 16 u`. Unit numbers are small integers wherever the heap lies, so everything below works on them with
 * `>>` and `&`, and links inside memory are unit numbers in 32-bit words. 0 means none: unit 0 is never a chunk.
 *
 * Every 512 KiB begin a SEGMENT, whose head describes the rest of it (1.6 % of the memory):
 *
 *     0                8192          8448                                                  512 KiB
 *     ┌─────────────────┬─────────────┬──────────────────────────────────────────────────────┐
 *     │ map: 2 bits/unit│ long flags  │ chunks …                                             │
 *     └─────────────────┴─────────────┴──────────────────────────────────────────────────────┘
 *       (segment 0 has the state block as the first thing behind the flags)
 *
 * A CHUNK is a run of units within one segment. A chunk in use carries no header: all 16 n bytes are the caller's,
 * which is what keeps small objects cheap. What would be in a header is in the map (umalloc_map.ts). A free chunk uses
 * its own bytes:
 *
 *     ┌──────┬──────┬─────────────┬──────┬ … ┬──────┐      (a chunk of one unit has size and foot in one word)
 *     │ next │ prev │             │ size │   │ foot │      size = foot = number of units
 *     └──────┴──────┴─────────────┴──────┴ … ┴──────┘
 *       0      4      8             12         end − 4
 *
 * The last segment ends in the TOP: memory got from the kernel and not yet cut into chunks, `[top, end)`.
 *
 * Where real allocators differ: dlmalloc and glibc keep the size in 8 bytes before each chunk (a 24-byte object costs
 * 32, a 32-byte object 48); tcmalloc, jemalloc and mimalloc have no headers either, but one page run per size class,
 * which wastes half a run per class on small heaps. Source for the shape: D. Lea, "A Memory Allocator"; P. Wilson et
 * al., "Dynamic Storage Allocation: A Survey and Critical Review" (1995), on best fit.
 */

import { PAGE_SIZE } from "../kernel/params.ts";

// ── Units and segments ─────────────────────────────────────────────────────────────────────────────────────────────

/** Bytes of a unit, and so the alignment of every pointer. */
export const UNIT_BYTES = 16;
export const SEGMENT_SHIFT = 15;
export const UNITS_PER_SEGMENT = 1 << SEGMENT_SHIFT;
export const SEGMENT_MASK = UNITS_PER_SEGMENT - 1;
export const SEGMENT_BYTES = UNITS_PER_SEGMENT * UNIT_BYTES;

/** A map word describes 16 units. */
export const UNITS_PER_WORD = 16;
const MAP_BYTES = (UNITS_PER_SEGMENT / UNITS_PER_WORD) * 4;
/** One flag for each map word. */
export const FLAGS_OFFSET = MAP_BYTES;
const FLAGS_BYTES = UNITS_PER_SEGMENT / UNITS_PER_WORD / 8;
/** Units of a segment that its own description takes. */
export const HEADER_UNITS = (MAP_BYTES + FLAGS_BYTES) / UNIT_BYTES;
/** Longest chunk: an empty segment other than the first. */
export const MAX_CHUNK_UNITS = UNITS_PER_SEGMENT - HEADER_UNITS;

export const UNITS_PER_PAGE = PAGE_SIZE / UNIT_BYTES;

// ── Free chunk ─────────────────────────────────────────────────────────────────────────────────────────────────────

export const CHUNK_NEXT = 0;
export const CHUNK_PREV = 4;
export const CHUNK_SIZE = 12;

// ── Bins: lists of free chunks by size ─────────────────────────────────────────────────────────────────────────────

/** Below this many units, each size has a bin of its own; above, 16 bins for each power of two. */
export const EXACT_BINS = 32;
export const NR_BINS = 192;
export const NR_BIN_WORDS = NR_BINS / 32;

// ── Thread caches ──────────────────────────────────────────────────────────────────────────────────────────────────

/** Longest chunk, in units, that a thread cache keeps: 256 bytes. */
export const CACHE_MAX_UNITS = 16;
/** Word 0 links the caches, word k heads the list of chunks of k units. */
export const CACHE_BYTES = 80;

// ── State block: byte offsets from its start ───────────────────────────────────────────────────────────────────────

/** What is at offset 0 of a heap that has been set up: "umal". */
export const HEAP_MAGIC = 0x6c61_6d75;

export const ST_MAGIC = 0;
/** First unit of the top. */
export const ST_TOP = 4;
/** One past the last unit got from brk; a multiple of a page. */
export const ST_END = 8;
/** Bit w: word w of the bin bitmap is not zero. */
export const ST_BIN_SUMMARY = 12;
/** Bit b of word w: bin 32 w + b is not empty. */
export const ST_BIN_WORDS = 16;
/** Unit of the first thread cache; a list. */
export const ST_CACHES = ST_BIN_WORDS + NR_BIN_WORDS * 4;
/** Table of blocks with a mapping of their own: its unit, log2 of its slots, and slots in use. */
export const ST_TABLE = ST_CACHES + 4;
export const ST_TABLE_SHIFT = ST_TABLE + 4;
export const ST_TABLE_USED = ST_TABLE_SHIFT + 4;
/** Pages in such mappings. */
export const ST_MAPPED_PAGES = ST_TABLE_USED + 4;
/** Highest sum of brk and mapped pages so far. */
export const ST_PEAK_PAGES = ST_MAPPED_PAGES + 4;
/** Requests above this many bytes are mapped. */
export const ST_THRESHOLD = ST_PEAK_PAGES + 4;
/** Event counters. */
export const ST_NR_GROWN = ST_THRESHOLD + 4;
export const ST_NR_TRIMMED = ST_NR_GROWN + 4;
export const ST_NR_MAPPED = ST_NR_TRIMMED + 4;
export const ST_NR_UNMAPPED = ST_NR_MAPPED + 4;
export const ST_NR_FLUSHED = ST_NR_UNMAPPED + 4;
export const ST_NR_MISUSES = ST_NR_FLUSHED + 4;
/** Bytes of a message on its way to fd 2. */
export const ST_MESSAGE = ST_NR_MISUSES + 8;
export const MESSAGE_BYTES = 80;
/** Cache of the thread that set the heap up. */
export const ST_MAIN_CACHE = 176;
export const ST_BIN_HEADS = ST_MAIN_CACHE + CACHE_BYTES;
export const STATE_BYTES = ST_BIN_HEADS + NR_BINS * 4;

/** Where the state block is, relative to the heap's base. */
export const STATE_OFFSET = HEADER_UNITS * UNIT_BYTES;
/** First unit that can be a chunk. */
export const FIRST_UNIT = HEADER_UNITS + STATE_BYTES / UNIT_BYTES;
/** Units of the heap when it is set up: whole pages, and at least one unit of top. */
export const INITIAL_UNITS = Math.ceil((FIRST_UNIT + 1) / UNITS_PER_PAGE) * UNITS_PER_PAGE;

if (!Number.isInteger(HEADER_UNITS)) throw new Error("umalloc: a segment's head is not a whole number of units");
if (ST_MESSAGE + MESSAGE_BYTES > ST_MAIN_CACHE) throw new Error("umalloc: the message overlaps the main cache");
if (ST_MAIN_CACHE % UNIT_BYTES !== 0) throw new Error("umalloc: the main cache is not at a unit");
if (STATE_BYTES % UNIT_BYTES !== 0) throw new Error("umalloc: the state is not a whole number of units");
if ((CACHE_MAX_UNITS + 1) * 4 > CACHE_BYTES) throw new Error("umalloc: a thread cache is too short for its lists");

// ── Arithmetic ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** Units for `bytes` bytes, at least one. `bytes` may be any integer below 2^35. */
export const unitsFor = (bytes: number): number => (bytes <= UNIT_BYTES ? 1 : Math.ceil(bytes / UNIT_BYTES));

/** Number of zero bits below the lowest one; `word` is not zero. */
export const lowestBit = (word: number): number => 31 - Math.clz32(word & -word);

/** First unit of the segment after the one that holds unit `u`. */
export const segmentEnd = (u: number): number => (u | SEGMENT_MASK) + 1;

/** First unit that can be a chunk in segment number `segment`. */
export const firstUnitOf = (segment: number): number =>
  segment === 0 ? FIRST_UNIT : segment * UNITS_PER_SEGMENT + HEADER_UNITS;
