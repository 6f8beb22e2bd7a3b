/**
 * The arena: cuts the user heap into chunks, joins freed chunks again, and moves the break.
 *
 *     base                                                top                 end
 *      │ used │ free │ used │ used │    free    │ used     │ not yet cut       │
 *      └──────────────── chunks ───────────────────────────┴───────────────────┘ ← brk
 *
 * take     best fit over the bins; what is left of the chunk stays a free chunk at its place, and the caller gets the
 *          upper end: mostly the rest stays in its bin, and then no list is touched. No fit: the bottom of the top.
 * grow     asks brk for what is missing, in steps of 1/512 of the heap, so that few calls are made and little is idle.
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

import type { MaySleep } from "../kernel/types.ts";
import type { ProgramEnv } from "../kernel/uapi/program.ts";
import { SYS_brk } from "../kernel/uapi/syscall.ts";
import type { Bins } from "./umalloc_bins.ts";
import type { Counters } from "./umalloc_counters.ts";
import {
  firstUnitOf,
  HEADER_UNITS,
  SEGMENT_MASK,
  SEGMENT_SHIFT,
  ST_END,
  ST_NR_GROWN,
  ST_NR_TRIMMED,
  ST_TOP,
  STATE_OFFSET,
  segmentEnd,
  UNIT_BYTES,
  UNITS_PER_PAGE,
  UNITS_PER_SEGMENT,
} from "./umalloc_layout.ts";
import { UNIT_FREE, UNIT_INNER, UNIT_USED, type UnitMap } from "./umalloc_map.ts";

/** The top is trimmed when it is longer than this: 128 KiB, as glibc's M_TRIM_THRESHOLD. */
const TRIM_UNITS = 16384;
/** What automatic trimming leaves: 32 KiB, so that a program at the edge does not call brk all the time. */
const TRIM_PAD_UNITS = 8192;
/** The heap grows by 1/512 of itself, but no more than 32 KiB, beyond what is needed. */
const GROWTH_SHIFT = 9;
const MAX_GROWTH_UNITS = 2048;

export interface Arena {
  /** A chunk of `units` units from the bins or the top, in use; 0 if neither has one. */
  take(units: number): number;
  /** A chunk at a multiple of `align` units (a power of two) from the bins, in use; 0 if they have none. */
  takeAligned(units: number, align: number): number;
  /** Gets memory from the kernel, then cuts the chunk from the top. 0 if the kernel refuses. */
  grow(units: number): number;
  /** Frees the chunk `[u, u + units)`, in use or cached. */
  release(u: number, units: number): void;
  /** Cuts the chunk in use at `u` from `from` to `to` < `from` units. */
  shrink(u: number, from: number, to: number): void;
  /** Lengthens the chunk in use at `u` from `from` to `to` units without moving it. False if that cannot be. */
  extend(u: number, from: number, to: number): boolean;
  /** Units of the free chunk that ends at `u`; 0 if there is none. */
  freeBefore(u: number): number;
  /** Makes one chunk in use of `[u − before, u + from)`, `before` being what freeBefore() said. Copies nothing. */
  joinBefore(u: number, before: number, from: number): void;
  /** Makes two chunks in use of the one at `u`: `[u, at)`, which is freed, and `[at, u + units)`. */
  dropFront(u: number, at: number, units: number): void;
  /** Gives the pages of the top beyond `pad` units back to the kernel. */
  trim(pad: number): void;
}

/**
 * Result of a system call that does not sleep, for plain functions. A call that may sleep is run up to its first
 * pause: what needs none gives its result, anything else is broken off and counts as failed.
 */
export function promptResult(result: MaySleep<number>): number {
  if (typeof result === "number") return result;
  const step = result.next();
  if (step.done) return step.value;
  result.return(-1);
  return -1;
}

const pagesUp = (units: number): number => Math.ceil(units / UNITS_PER_PAGE) * UNITS_PER_PAGE;

/** The arena of the heap that starts at `base`. */
export function createArena(env: ProgramEnv, base: number, map: UnitMap, bins: Bins, counters: Counters): Arena {
  const { mem } = env;
  const topWord = base + STATE_OFFSET + ST_TOP;
  const endWord = base + STATE_OFFSET + ST_END;

  const freeBefore = (u: number): number => (map.codeOf(u - 1) === UNIT_FREE ? mem.ld32(base + u * UNIT_BYTES - 4) : 0);

  const setTop = (top: number): void => {
    mem.st32(topWord, top);
    if ((top & SEGMENT_MASK) !== 0) map.setCode(top, UNIT_FREE);
  };

  /** Moves the break from unit `end` to unit `to`. False if the kernel refuses, or somebody else has moved it. */
  const moveBreak = (end: number, to: number): boolean => {
    if (promptResult(env.syscall(SYS_brk, 0)) !== base + end * UNIT_BYTES) return false;
    const wanted = base + to * UNIT_BYTES;
    if (promptResult(env.syscall(SYS_brk, wanted)) !== wanted) return false;
    mem.st32(endWord, to);
    return true;
  };

  /** Has the break at or above unit `needed`. */
  const ensureEnd = (needed: number): boolean => {
    const end = mem.ld32(endWord);
    if (needed <= end) return true;
    const least = pagesUp(needed);
    const wanted = pagesUp(needed + Math.min(end >> GROWTH_SHIFT, MAX_GROWTH_UNITS));
    if (!moveBreak(end, wanted) && (least === wanted || !moveBreak(end, least))) return false;
    counters.count(ST_NR_GROWN);
    counters.notePeak();
    return true;
  };

  const takeTop = (units: number): number => {
    const top = mem.ld32(topWord);
    if (top + units > mem.ld32(endWord) || (top & SEGMENT_MASK) === 0 || top + units > segmentEnd(top)) return 0;
    setTop(top + units);
    map.markUsed(top, units);
    return top;
  };

  /**
   * Makes `[at, at + units)` of the free chunk at `u`, of `size` units, a chunk in use; what is around it stays free.
   */
  const cut = (u: number, size: number, at: number, units: number): number => {
    const before = at - u;
    const after = size - before - units;
    if (before > 0) bins.resize(u, size, before);
    else bins.remove(u, size);
    if (before > 1) map.setCode(at - 1, UNIT_FREE);
    if (after > 0) {
      map.setCode(at + units, UNIT_FREE);
      bins.insert(at + units, after);
    } else if (units > 1) map.setCode(at + units - 1, UNIT_INNER);
    map.markUsed(at, units);
    return at;
  };

  const take = (units: number): number => {
    const u = bins.find(units);
    if (u === 0) return takeTop(units);
    const size = bins.sizeOf(u);
    return cut(u, size, u + size - units, units);
  };

  /** Like take(), from the bins only, at a multiple of `align` units. */
  const takeAligned = (units: number, align: number): number => {
    for (let wanted = units; ; wanted = units + align - 1) {
      const u = bins.find(wanted);
      if (u === 0) return 0;
      const size = bins.sizeOf(u);
      const last = u + size - units;
      const at = last - (last % align);
      if (at >= u) return cut(u, size, at, units);
    }
  };

  /** Opens the next segment; what is left of this one's top, `[top, limit)`, becomes a free chunk. */
  const openSegment = (top: number, limit: number): void => {
    setTop(limit + HEADER_UNITS);
    const rest = limit - top;
    if (rest === 0) return;
    if (rest > 1) map.setCode(limit - 1, UNIT_FREE);
    bins.insert(top, rest);
  };

  /** While the last segment is empty, the top moves back into the one before. */
  const stepBack = (): number => {
    let top = mem.ld32(topWord);
    while (top >= UNITS_PER_SEGMENT && top === firstUnitOf(top >> SEGMENT_SHIFT)) {
      map.setCode(top, UNIT_INNER);
      const limit = top - HEADER_UNITS;
      const rest = freeBefore(limit);
      top = limit - rest;
      if (rest > 1) map.setCode(limit - 1, UNIT_INNER);
      if (rest > 0) bins.remove(top, rest);
      mem.st32(topWord, top);
    }
    return top;
  };

  const trim = (pad: number): void => {
    const end = mem.ld32(endWord);
    const kept = pagesUp(stepBack() + pad);
    if (kept < end && moveBreak(end, kept)) counters.count(ST_NR_TRIMMED);
  };

  /** The chunk at `start` becomes part of the top, which began at `top`. */
  const joinTop = (start: number, top: number): void => {
    if ((top & SEGMENT_MASK) !== 0) map.setCode(top, UNIT_INNER);
    mem.st32(topWord, start);
    if (mem.ld32(endWord) - start > TRIM_UNITS) trim(TRIM_PAD_UNITS);
  };

  const release = (u: number, units: number): void => {
    map.clearSize(u, units);
    const next = u + units;
    const before = freeBefore(u);
    const start = u - before;
    map.setCode(u, before > 0 ? UNIT_INNER : UNIT_FREE);
    if (before > 1) map.setCode(u - 1, UNIT_INNER);
    const isLast = (next & SEGMENT_MASK) === 0;
    const isNextFree = !isLast && map.codeOf(next) === UNIT_FREE;
    if ((isLast || isNextFree) && next === mem.ld32(topWord)) {
      if (before > 0) bins.remove(start, before);
      joinTop(start, next);
      return;
    }
    let end = next;
    if (isNextFree) {
      const after = bins.sizeOf(next);
      bins.remove(next, after);
      if (after > 1) map.setCode(next, UNIT_INNER);
      end = next + after;
    } else if (next - start > 1) map.setCode(next - 1, UNIT_FREE);
    if (before > 0) bins.resize(start, before, end - start);
    else bins.insert(start, end - start);
  };

  /** extend() where the neighbour is the top. */
  const extendIntoTop = (u: number, from: number, to: number): boolean => {
    const top = u + from;
    if (u + to > segmentEnd(top) || !ensureEnd(u + to)) return false;
    map.clearSize(u, from);
    map.setCode(top, UNIT_INNER);
    setTop(u + to);
    map.markUsed(u, to);
    return true;
  };

  const extend = (u: number, from: number, to: number): boolean => {
    const next = u + from;
    if ((next & SEGMENT_MASK) === 0 || map.codeOf(next) !== UNIT_FREE) return false;
    if (next === mem.ld32(topWord)) return extendIntoTop(u, from, to);
    const size = bins.sizeOf(next);
    const rest = from + size - to;
    if (rest < 0) return false;
    bins.remove(next, size);
    map.clearSize(u, from);
    map.setCode(next, UNIT_INNER);
    if (rest > 0) {
      map.setCode(u + to, UNIT_FREE);
      bins.insert(u + to, rest);
    } else map.setCode(next + size - 1, UNIT_INNER);
    map.markUsed(u, to);
    return true;
  };

  return {
    take,
    takeAligned,
    grow(units) {
      const top = mem.ld32(topWord);
      const limit = segmentEnd(top - 1);
      if (top + units <= limit) return ensureEnd(top + units) ? takeTop(units) : 0;
      if (!ensureEnd(limit + HEADER_UNITS + units)) return 0;
      openSegment(top, limit);
      return takeTop(units);
    },
    release,
    shrink(u, from, to) {
      map.clearSize(u, from);
      map.markUsed(u, to);
      map.setCode(u + to, UNIT_USED);
      release(u + to, from - to);
    },
    extend,
    freeBefore,
    joinBefore(u, before, from) {
      bins.remove(u - before, before);
      map.clearSize(u, from);
      map.setCode(u - 1, UNIT_INNER);
      map.setCode(u, UNIT_INNER);
      map.markUsed(u - before, before + from);
    },
    dropFront(u, at, units) {
      map.clearSize(u, units);
      map.markUsed(u, at - u);
      map.markUsed(at, u + units - at);
      release(u, at - u);
    },
    trim,
  };
}
