/**
 * The walker of the user heap: statistics, the search for what a wrong pointer points at, and the invariants.
 *
 * It goes through every segment chunk by chunk, with the map alone. O(heap); for tests, reports and misuse only.
 */

import { PAGE_SIZE } from "../kernel/params.ts";
import type { UserMemory } from "../kernel/uapi/program.ts";
import { type Bins, binOf } from "./umalloc_bins.ts";
import type { Counters } from "./umalloc_counters.ts";
import {
  CACHE_MAX_UNITS,
  CHUNK_NEXT,
  CHUNK_PREV,
  CHUNK_SIZE,
  firstUnitOf,
  HEADER_UNITS,
  NR_BIN_WORDS,
  NR_BINS,
  SEGMENT_SHIFT,
  ST_BIN_HEADS,
  ST_BIN_SUMMARY,
  ST_BIN_WORDS,
  ST_CACHES,
  ST_END,
  ST_MAPPED_PAGES,
  ST_NR_FLUSHED,
  ST_NR_GROWN,
  ST_NR_MAPPED,
  ST_NR_MISUSES,
  ST_NR_TRIMMED,
  ST_NR_UNMAPPED,
  ST_PEAK_PAGES,
  ST_TOP,
  STATE_OFFSET,
  segmentEnd,
  UNIT_BYTES,
  UNITS_PER_PAGE,
  UNITS_PER_WORD,
} from "./umalloc_layout.ts";
import { isLong, UNIT_CACHED, UNIT_FREE, UNIT_INNER, UNIT_USED, type UnitMap } from "./umalloc_map.ts";

export interface UmallocStats {
  /** Bytes between the heap's base and the break. */
  readonly heapBytes: number;
  /** Bytes in mappings of their own. */
  readonly mappedBytes: number;
  /** Highest sum of the two so far. */
  readonly peakBytes: number;
  /** Chunks in use and their bytes (mapped blocks not counted; the allocator's own tables are). */
  readonly nrUsed: number;
  readonly usedBytes: number;
  /** Chunks that lie in thread caches. */
  readonly nrCached: number;
  readonly cachedBytes: number;
  /** Free chunks in bins, and the longest. */
  readonly nrFree: number;
  readonly freeBytes: number;
  readonly longestFreeBytes: number;
  /** Got from the kernel, not yet cut. */
  readonly topBytes: number;
  /** Segment heads and state block. */
  readonly metaBytes: number;
  readonly nrThreads: number;
  readonly nrGrown: number;
  readonly nrTrimmed: number;
  readonly nrMapped: number;
  readonly nrUnmapped: number;
  readonly nrFlushed: number;
  readonly nrMisuses: number;
}

/** Of a heap that nobody has used yet. */
export const EMPTY_STATS: UmallocStats = {
  heapBytes: 0,
  mappedBytes: 0,
  peakBytes: 0,
  nrUsed: 0,
  usedBytes: 0,
  nrCached: 0,
  cachedBytes: 0,
  nrFree: 0,
  freeBytes: 0,
  longestFreeBytes: 0,
  topBytes: 0,
  metaBytes: 0,
  nrThreads: 0,
  nrGrown: 0,
  nrTrimmed: 0,
  nrMapped: 0,
  nrUnmapped: 0,
  nrFlushed: 0,
  nrMisuses: 0,
};

export interface HeapWalker {
  /** Calls `visit` for each chunk in order of address; stops at its first result that is not null. */
  walk(visit: (u: number, units: number, code: number) => string | null): string | null;
  /** Code of the chunk that holds unit `u`; UNIT_INNER if none does (segment head, top, outside). */
  holderCode(u: number): number;
  stats(): UmallocStats;
  /** The first invariant found broken, with its id, or null. */
  check(): string | null;
}

const at = (rule: string, u: number): string => `${rule} at unit ${u}`;

/** The walker of the heap that starts at `base`. */
export function createHeapWalker(
  mem: UserMemory,
  base: number,
  map: UnitMap,
  bins: Bins,
  counters: Counters,
): HeapWalker {
  const state = base + STATE_OFFSET;
  const load = (offset: number): number => mem.ld32(state + offset);

  const sizeAt = (u: number, code: number): number =>
    code === UNIT_FREE ? bins.sizeOf(u) : map.usedUnits(u, mem.ld32(map.wordAddress(u)));

  const walkSegment = (from: number, limit: number, visit: Parameters<HeapWalker["walk"]>[0]): string | null => {
    for (let u = from; u < limit; ) {
      const code = map.codeOf(u);
      if (code === UNIT_INNER) return at("MAP-1 no chunk", u);
      const units = sizeAt(u, code);
      if (units < 1 || u + units > limit) return at("MAP-1 chunk size", u);
      const result = visit(u, units, code);
      if (result !== null) return result;
      u += units;
    }
    return null;
  };

  const walk: HeapWalker["walk"] = (visit) => {
    const top = load(ST_TOP);
    const lastSegment = (top - 1) >> SEGMENT_SHIFT;
    for (let segment = 0; segment <= lastSegment; segment++) {
      const from = firstUnitOf(segment);
      const result = walkSegment(from, Math.min(segmentEnd(from), top), visit);
      if (result !== null) return result;
    }
    return null;
  };

  const nrCaches = (): number => {
    let nr = 0;
    for (let cache = load(ST_CACHES); cache !== 0; cache = mem.ld32(base + cache * UNIT_BYTES)) nr++;
    return nr;
  };

  /** Segment heads up to the top, and the state. */
  const metaUnits = (): number => ((load(ST_TOP) - 1) >> SEGMENT_SHIFT) * HEADER_UNITS + firstUnitOf(0);

  const stats = (): UmallocStats => {
    const nr = [0, 0, 0, 0];
    const units = [0, 0, 0, 0];
    let longestFree = 0;
    walk((_u, size, code) => {
      nr[code] = (nr[code] as number) + 1;
      units[code] = (units[code] as number) + size;
      if (code === UNIT_FREE) longestFree = Math.max(longestFree, size);
      return null;
    });
    const bytesOf = (code: number): number => (units[code] as number) * UNIT_BYTES;
    return {
      heapBytes: load(ST_END) * UNIT_BYTES,
      mappedBytes: load(ST_MAPPED_PAGES) * PAGE_SIZE,
      peakBytes: load(ST_PEAK_PAGES) * PAGE_SIZE,
      nrUsed: nr[UNIT_USED] as number,
      usedBytes: bytesOf(UNIT_USED),
      nrCached: nr[UNIT_CACHED] as number,
      cachedBytes: bytesOf(UNIT_CACHED),
      nrFree: nr[UNIT_FREE] as number,
      freeBytes: bytesOf(UNIT_FREE),
      longestFreeBytes: longestFree * UNIT_BYTES,
      topBytes: (load(ST_END) - load(ST_TOP)) * UNIT_BYTES,
      metaBytes: metaUnits() * UNIT_BYTES,
      nrThreads: nrCaches(),
      nrGrown: load(ST_NR_GROWN),
      nrTrimmed: load(ST_NR_TRIMMED),
      nrMapped: load(ST_NR_MAPPED),
      nrUnmapped: load(ST_NR_UNMAPPED),
      nrFlushed: load(ST_NR_FLUSHED),
      nrMisuses: load(ST_NR_MISUSES),
    };
  };

  // ── Invariants ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** First unit of `[u, limit)` that does not read UNIT_INNER, else `limit`. */
  const nextMarked = (u: number, limit: number): number => {
    let v = u;
    while (v < limit) {
      const isWholeWord = v % UNITS_PER_WORD === 0 && mem.ld32(map.wordAddress(v)) === 0;
      if (isWholeWord) v += UNITS_PER_WORD;
      else if (map.codeOf(v) !== UNIT_INNER) return v;
      else v++;
    }
    return limit;
  };

  const checkTop = (): string | null => {
    const top = load(ST_TOP);
    const end = load(ST_END);
    if (top < firstUnitOf((top - 1) >> SEGMENT_SHIFT) || top > end) return at("ARN-1 top", top);
    if (end % UNITS_PER_PAGE !== 0) return at("ARN-1 end", end);
    const limit = Math.min(segmentEnd(top - 1), end);
    if (top < limit && map.codeOf(top) !== UNIT_FREE) return at("MAP-1 top", top);
    const marked = nextMarked(top + 1, limit);
    if (marked < limit) return at("MAP-4", marked);
    if (map.codeOf(top - 1) === UNIT_FREE) return at("ARN-2", top);
    if (counters.totalBytes() > load(ST_PEAK_PAGES) * PAGE_SIZE) return "peak below the present";
    return null;
  };

  const checkChunk = (u: number, units: number, code: number, wasFree: boolean): string | null => {
    if (code === UNIT_FREE) {
      if (wasFree) return at("MAP-2", u);
      if (mem.ld32(base + (u + units) * UNIT_BYTES - 4) !== units) return at("foot", u);
      if (map.codeOf(u + units - 1) !== UNIT_FREE) return at("MAP-1 last unit", u);
    } else if (map.isLongWord(u) !== isLong(u, units) && lastInWord(u, units)) return at("LONG flag", u);
    const last = code === UNIT_FREE ? u + units - 1 : u + units;
    for (let inner = nextMarked(u + 1, last); inner < last; inner = nextMarked(inner + 1, last)) {
      const isSizeWord = map.codeOf(inner) === UNIT_FREE && code !== UNIT_FREE && isLong(u, units);
      if (!isSizeWord || inner >> 4 !== (u >> 4) + 1) return at("MAP-3", inner);
    }
    return null;
  };

  /** True if no other chunk starts in the map word of `u` behind it. */
  const lastInWord = (u: number, units: number): boolean => u + units >= (Math.floor(u / UNITS_PER_WORD) + 1) * 16;

  const checkBins = (nrFree: number): string | null => {
    let nrListed = 0;
    for (let bin = 0; bin < NR_BINS; bin++) {
      const head = load(ST_BIN_HEADS + bin * 4);
      const bit = (load(ST_BIN_WORDS + (bin >> 5) * 4) >>> (bin & 31)) & 1;
      if (bit !== (head === 0 ? 0 : 1)) return `BIN-2 bin ${bin}`;
      let prev = 0;
      for (let u = head; u !== 0; u = mem.ld32(base + u * UNIT_BYTES + CHUNK_NEXT)) {
        if (++nrListed > nrFree) return `BIN-1 bin ${bin} has a cycle or a stranger`;
        const address = base + u * UNIT_BYTES;
        if (map.codeOf(u) !== UNIT_FREE || binOf(mem.ld32(address + CHUNK_SIZE)) !== bin) return at("BIN-1", u);
        if (mem.ld32(address + CHUNK_PREV) !== prev) return at("BIN-3", u);
        prev = u;
      }
    }
    for (let w = 0; w < NR_BIN_WORDS; w++) {
      const bit = (load(ST_BIN_SUMMARY) >>> w) & 1;
      if (bit !== (load(ST_BIN_WORDS + w * 4) === 0 ? 0 : 1)) return `BIN-2 word ${w}`;
    }
    return nrListed === nrFree ? null : `BIN-1 ${nrFree - nrListed} free chunks are in no bin`;
  };

  const checkCaches = (nrCached: number): string | null => {
    let nrListed = 0;
    for (let cache = load(ST_CACHES); cache !== 0; cache = mem.ld32(base + cache * UNIT_BYTES)) {
      for (let units = 1; units <= CACHE_MAX_UNITS; units++) {
        let u = mem.ld32(base + cache * UNIT_BYTES + units * 4);
        for (; u !== 0; u = mem.ld32(base + u * UNIT_BYTES)) {
          if (++nrListed > nrCached || map.codeOf(u) !== UNIT_CACHED) return at("TC-1", u);
          if (sizeAt(u, UNIT_CACHED) !== units) return at("TC-1 size", u);
        }
      }
    }
    return nrListed === nrCached ? null : `TC-1 ${nrCached - nrListed} cached chunks are in no list`;
  };

  return {
    walk,
    holderCode(u) {
      let found = UNIT_INNER;
      walk((start, units, code) => {
        if (u >= start + units) return null;
        if (u >= start) found = code;
        return "done";
      });
      return found;
    },
    stats,
    check() {
      const nr = [0, 0, 0, 0];
      let freeEnd = 0;
      const broken =
        checkTop() ??
        walk((u, units, code) => {
          nr[code] = (nr[code] as number) + 1;
          const result = checkChunk(u, units, code, freeEnd === u);
          if (code === UNIT_FREE) freeEnd = u + units;
          return result;
        });
      return broken ?? checkBins(nr[UNIT_FREE] as number) ?? checkCaches(nr[UNIT_CACHED] as number);
    },
  };
}
