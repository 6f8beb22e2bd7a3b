/**
 * The arena: cuts the user heap into chunks, joins freed chunks again, and moves the break.
 *
 *     base                                                top                 end
 *      │ used │ free │ used │ used │    free    │ used     │ not yet cut       │
 *      └──────────────── chunks ───────────────────────────┴───────────────────┘ ← brk
 *
 * take     best fit over the bins; what is left of the chunk stays a free chunk at its place, and the caller gets the
 *          upper end: mostly the rest stays in its bin, and then no list is touched. No fit: the bottom of the top.
 * grow     asks brk for what is missing, in steps of 1/128 of the heap, so that few calls are made and little is idle.
 *          A chunk never crosses a segment, so a chunk too long for the last segment opens the next one; what was left
 *          of the top becomes a free chunk.
 * release  joins a chunk with a free one before and behind it (the map tells) and files the result; next to the
 *          top it becomes top.
 * trim     gives the pages of the top back when there are many of them, and steps back over empty segments.
 *
 *   ARN-1  firstUnit(segment of top) ≤ top ≤ end; units of `end` are whole pages; the break is at `end`
 *   ARN-2  the chunk before the top is not free
 *
 * Somebody else in the process may move the break up (sbrk): then the arena stops growing, as its heap has to stay one
 * range. Source: as umalloc_layout.ts.
 */

import { PAGE_SIZE } from "../kernel/params.ts";
import type { ProgramEnv } from "../kernel/uapi/program.ts";
import { SYS_brk } from "../kernel/uapi/syscall.ts";
import type { Bins } from "./umalloc_bins.ts";
import {
  firstUnitOf,
  HEADER_UNITS,
  SEGMENT_MASK,
  SEGMENT_SHIFT,
  ST_END,
  ST_MAPPED_PAGES,
  ST_NR_GROWN,
  ST_NR_TRIMMED,
  ST_PEAK_PAGES,
  ST_TOP,
  STATE_OFFSET,
  segmentEnd,
  UNIT_BYTES,
  UNITS_PER_PAGE,
} from "./umalloc_layout.ts";
import { isLong, UNIT_FREE, UNIT_INNER, UNIT_USED, type UnitMap } from "./umalloc_map.ts";

/** The top is trimmed when it is longer than this: 128 KiB, as glibc's M_TRIM_THRESHOLD. */
const TRIM_UNITS = 8192;
/** What automatic trimming leaves: 32 KiB, so that a program at the edge does not call brk all the time. */
const TRIM_PAD_UNITS = 2048;
/** The heap grows by 1/128 of itself, but no more than 64 KiB, beyond what is needed. */
const GROWTH_SHIFT = 7;
const MAX_GROWTH_UNITS = 4096;

export interface Arena {
  /** A chunk of `units` units from the bins or the top, in use; 0 if neither has one. */
  take(units: number): number;
  /** Gets memory from the kernel, then as take(). 0 if the kernel refuses. */
  grow(units: number): number;
  /** Frees the chunk `[u, u + units)`, in use or cached. */
  release(u: number, units: number): void;
  /** Cuts the chunk in use at `u` from `from` to `to` < `from` units. */
  shrink(u: number, from: number, to: number): void;
  /** Lengthens the chunk in use at `u` from `from` to `to` units without moving it. False if its neighbour is in use. */
  extend(u: number, from: number, to: number): boolean;
  /** Units of the free chunk that ends at `u`; 0 if there is none. */
  freeBefore(u: number): number;
  /** Makes `[u − before, u + from)` one chunk in use; `before` is what freeBefore() said, and the content stays put. */
  joinBefore(u: number, before: number, from: number): void;
  /** Gives pages of the top beyond `pad` units back. True if any were. */
  trim(pad: number): boolean;
}

/** Result of a system call that never sleeps; an object would be one that does, and is a failure here. */
export const promptResult = (result: number | object): number => (typeof result === "number" ? result : -1);

/** The arena of the heap that starts at `base`. */
export function createArena(env: ProgramEnv, base: number, map: UnitMap, bins: Bins): Arena {
  const { mem } = env;
  const state = base + STATE_OFFSET;
  const topWord = state + ST_TOP;
  const endWord = state + ST_END;

  const count = (counter: number): void => mem.st32(state + counter, mem.ld32(state + counter) + 1);

  /** Moves the break to unit `end`. */
  const moveBreak = (from: number, end: number): boolean => {
    if (promptResult(env.syscall(SYS_brk, 0)) !== base + from * UNIT_BYTES) return false;
    const want = base + end * UNIT_BYTES;
    if (promptResult(env.syscall(SYS_brk, want)) !== want) return false;
    mem.st32(endWord, end);
    return true;
  };

  const notePeak = (end: number): void => {
    const pages = (end * UNIT_BYTES) / PAGE_SIZE + mem.ld32(state + ST_MAPPED_PAGES);
    if (pages > mem.ld32(state + ST_PEAK_PAGES)) mem.st32(state + ST_PEAK_PAGES, pages);
  };

  /** Units that the top can give before its segment or the break ends. */
  const roomAt = (top: number, end: number): number => {
    if ((top & SEGMENT_MASK) === 0) return 0;
    const limit = segmentEnd(top);
    return (end < limit ? end : limit) - top;
  };

  const setTop = (top: number): void => {
    mem.st32(topWord, top);
    if ((top & SEGMENT_MASK) !== 0) map.setCode(top, UNIT_FREE);
  };

  const takeTop = (units: number): number => {
    const top = mem.ld32(topWord);
    if (units > roomAt(top, mem.ld32(endWord))) return 0;
    setTop(top + units);
    map.markUsed(top, units);
    return top;
  };

  /** Cuts `units` units from the upper end of free chunk `u`. */
  const cut = (u: number, units: number): number => {
    const size = bins.sizeOf(u);
    const rest = size - units;
    if (rest === 0) bins.remove(u, size);
    else {
      bins.resize(u, size, rest);
      if (rest > 1) map.setCode(u + rest - 1, UNIT_FREE);
    }
    if (units > 1) map.setCode(u + size - 1, UNIT_INNER);
    map.markUsed(u + rest, units);
    return u + rest;
  };

  const take = (units: number): number => {
    const u = bins.find(units);
    return u === 0 ? takeTop(units) : cut(u, units);
  };

  const ensureEnd = (needed: number): boolean => {
    const end = mem.ld32(endWord);
    if (needed <= end) return true;
    const step = Math.min(end >> GROWTH_SHIFT, MAX_GROWTH_UNITS);
    const wanted = Math.ceil((needed + step) / UNITS_PER_PAGE) * UNITS_PER_PAGE;
    const least = Math.ceil(needed / UNITS_PER_PAGE) * UNITS_PER_PAGE;
    if (!moveBreak(end, wanted) && (least === wanted || !moveBreak(end, least))) return false;
    count(ST_NR_GROWN);
    notePeak(mem.ld32(endWord));
    return true;
  };

  /** Opens the next segment; what is left of this one's top, `[top, limit)`, becomes a free chunk. */
  const openSegment = (top: number, limit: number): void => {
    const rest = limit - top;
    setTop(limit + HEADER_UNITS);
    if (rest === 0) return;
    if (rest > 1) map.setCode(limit - 1, UNIT_FREE);
    bins.insert(top, rest);
  };

  const release = (u: number, units: number): void => {
    map.clearSize(u, units);
    let start = u;
    const next = u + units;
    const before = map.codeOf(u - 1) === UNIT_FREE ? mem.ld32(base + u * UNIT_BYTES - 4) : 0;
    if (before > 0) {
      start = u - before;
      if (before > 1) map.setCode(u - 1, UNIT_INNER);
      map.setCode(u, UNIT_INNER);
    } else map.setCode(u, UNIT_FREE);
    const isAtSegmentEnd = (next & SEGMENT_MASK) === 0;
    if (isAtSegmentEnd || map.codeOf(next) === UNIT_FREE) {
      if (next === mem.ld32(topWord)) {
        if (before > 0) bins.remove(start, before);
        if (!isAtSegmentEnd) map.setCode(next, UNIT_INNER);
        mem.st32(topWord, start);
        if (mem.ld32(endWord) - start > TRIM_UNITS) trim(TRIM_PAD_UNITS);
        return;
      }
    }
    let after = 0;
    if (!isAtSegmentEnd && map.codeOf(next) === UNIT_FREE) {
      after = bins.sizeOf(next);
      bins.remove(next, after);
      if (after > 1) map.setCode(next, UNIT_INNER);
    } else if (next - start > 1) map.setCode(next - 1, UNIT_FREE);
    const size = next + after - start;
    if (before > 0) bins.resize(start, before, size);
    else bins.insert(start, size);
  };

  /** The top of an empty last segment moves back into the segment before, if the break will be at or below it. */
  const stepBack = (): number => {
    let top = mem.ld32(topWord);
    while (top >> SEGMENT_SHIFT > 0 && top === firstUnitOf(top >> SEGMENT_SHIFT)) {
      const limit = top - HEADER_UNITS;
      const rest = map.codeOf(limit - 1) === UNIT_FREE ? mem.ld32(base + limit * UNIT_BYTES - 4) : 0;
      top = limit - rest;
      if (rest > 1) map.setCode(limit - 1, UNIT_INNER);
      if (rest > 0) bins.remove(top, rest);
      mem.st32(topWord, top);
    }
    return top;
  };

  const trim = (pad: number): boolean => {
    const end = mem.ld32(endWord);
    const oldTop = mem.ld32(topWord);
    const kept = Math.ceil((stepBack() + pad) / UNITS_PER_PAGE) * UNITS_PER_PAGE;
    void oldTop;
    if (kept >= end) return false;
    if (!moveBreak(end, kept)) return false;
    count(ST_NR_TRIMMED);
    return true;
  };

  return { take, release, trim, grow: () => 0, shrink() {}, extend: () => false, freeBefore: () => 0, joinBefore() {} };
}
