/**
 * The two tables of memblock, and what is free between them.
 *
 * A table is a growable sorted array of regions in RAM; free memory is never stored: a walk over both tables finds it.
 * Rules (MB-1, MB-2, MB-9) and layout: memblock.ts.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import { MAX_RAM_BYTES } from "../kernel/params.ts";

export const MEMBLOCK_NONE = 0;
/** Memory that exists, but is not for the kernel to map, allocate or hand over. */
export const MEMBLOCK_NOMAP = 4;

const T_ARRAY = 0;
const T_CNT = 4;
const T_MAX = 8;

export const REGION_BYTES = 16;
const R_START = 0;
const R_FLAGS = 4;
const R_END = 8;

/** MB-8 */
export const ADDR_LIMIT = MAX_RAM_BYTES;

export interface MemblockRegion {
  readonly start: number;
  /** One past the last byte, at most 2^32. */
  readonly end: number;
  readonly flags: number;
}

// ── Free memory: what is in `memory` and not in `reserved` ─────────────────────────────────────────────────────────

interface FreeWalk {
  /** Lowest free byte at or above `addr`; 4 GiB when there is none. */
  nextFree(addr: number): number;
  /** End of the free range that starts at, or contains, free byte `start`. */
  freeEnd(start: number): number;
  /** End of the highest free range that has a byte below `addr`, cut to `addr`; 0 when there is none. */
  prevFree(addr: number): number;
  /** Start of the free range that contains free byte `end − 1`. */
  freeStart(end: number): number;
}

/** Walks both tables at once. A free range ends where its memory region ends, even if another follows (flags). */
export function createFreeWalk(memory: RegionTable, reserved: RegionTable): FreeWalk {
  const isNomap = (i: number): boolean => (memory.flags(i) & MEMBLOCK_NOMAP) !== 0;
  return {
    nextFree: (from) => {
      let addr = from;
      for (;;) {
        const i = memory.firstEndingAbove(addr);
        if (i === memory.cnt()) return ADDR_LIMIT;
        addr = Math.max(addr, memory.start(i));
        const j = reserved.firstEndingAbove(addr);
        const isTaken = j < reserved.cnt() && reserved.start(j) <= addr;
        if (!isTaken && !isNomap(i)) return addr;
        addr = isTaken ? reserved.end(j) : memory.end(i);
      }
    },
    freeEnd: (start) => {
      const end = memory.end(memory.firstEndingAbove(start));
      const j = reserved.firstEndingAbove(start);
      return j < reserved.cnt() ? Math.min(end, reserved.start(j)) : end;
    },
    prevFree: (to) => {
      let addr = to;
      for (;;) {
        const i = memory.lastStartingBelow(addr);
        if (i < 0) return 0;
        addr = Math.min(addr, memory.end(i));
        const j = reserved.lastStartingBelow(addr);
        const isTaken = j >= 0 && reserved.end(j) >= addr;
        if (!isTaken && !isNomap(i)) return addr;
        addr = isTaken ? reserved.start(j) : memory.start(i);
      }
    },
    freeStart: (end) => {
      const start = memory.start(memory.lastStartingBelow(end));
      const j = reserved.lastStartingBelow(end);
      return j >= 0 ? Math.max(start, reserved.end(j)) : start;
    },
  };
}

// ── A table: a growable sorted array of regions ────────────────────────────────────────────────────────────────────

export type RegionTable = ReturnType<typeof createRegionTable>;

export function createRegionTable(
  port: MemoryPort,
  name: string,
  header: number,
  staticArray: number,
  nrStatic: number,
) {
  const array = (): number => port.ld32(header + T_ARRAY);
  const cnt = (): number => port.ld32(header + T_CNT);
  const max = (): number => port.ld32(header + T_MAX);
  const at = (i: number): number => array() + i * REGION_BYTES;
  const start = (i: number): number => port.ld32(at(i) + R_START);
  const end = (i: number): number => port.ldF64(at(i) + R_END);
  const flags = (i: number): number => port.ld32(at(i) + R_FLAGS);
  port.st32(header + T_ARRAY, staticArray);
  port.st32(header + T_CNT, 0);
  port.st32(header + T_MAX, nrStatic);

  const setRange = (i: number, newStart: number, newEnd: number): void => {
    port.st32(at(i) + R_START, newStart);
    port.stF64(at(i) + R_END, newEnd);
  };
  const insertAt = (i: number, newStart: number, newEnd: number, newFlags: number): void => {
    const count = cnt();
    bugOn(count >= max(), "memblock: region array overflows", count);
    port.copy(at(i + 1), at(i), (count - i) * REGION_BYTES);
    setRange(i, newStart, newEnd);
    port.st32(at(i) + R_FLAGS, newFlags);
    port.st32(header + T_CNT, count + 1);
  };
  const removeAt = (i: number): void => {
    const count = cnt();
    port.copy(at(i), at(i + 1), (count - i - 1) * REGION_BYTES);
    port.st32(header + T_CNT, count - 1);
  };

  /** Index of the first region that ends above `addr`: the one that contains it, or the next. O(log n). */
  const firstEndingAbove = (addr: number): number => {
    let low = 0;
    let high = cnt();
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (end(middle) > addr) high = middle;
      else low = middle + 1;
    }
    return low;
  };
  /** Index of the last region that starts below `addr`, or −1. */
  const lastStartingBelow = (addr: number): number => {
    const i = firstEndingAbove(addr - 1);
    return i < cnt() && start(i) < addr ? i : i - 1;
  };

  /** Number of gaps that [from, to) has in the table. With `fill`, each becomes a region; there is room for all. */
  const walkGaps = (from: number, to: number, fill: boolean, newFlags: number): number => {
    let nrGaps = 0;
    let next = from;
    for (let i = firstEndingAbove(from); next < to; i++) {
      const gapEnd = i < cnt() ? Math.min(start(i), to) : to;
      if (next < gapEnd) {
        nrGaps++;
        if (fill) insertAt(i++, next, gapEnd, newFlags);
      }
      next = i < cnt() ? end(i) : to;
    }
    return nrGaps;
  };
  /** Makes one of each run of adjacent regions with the same flags (MB-2). */
  const merge = (): void => {
    const count = cnt();
    let last = 0;
    for (let i = 1; i < count; i++) {
      if (end(last) === start(i) && flags(last) === flags(i)) port.stF64(at(last) + R_END, end(i));
      else if (++last !== i) port.copy(at(last), at(i), REGION_BYTES);
    }
    if (count > 0) port.st32(header + T_CNT, last + 1);
  };

  return {
    name,
    array,
    cnt,
    max,
    start,
    end,
    flags,
    setRange,
    removeAt,
    firstEndingAbove,
    lastStartingBelow,
    isStatic: (anArray: number): boolean => anArray === staticArray,
    countGaps: (from: number, to: number): number => walkGaps(from, to, false, 0),
    /** Adds what [from, to) does not yet cover. Needs room for countGaps() regions. */
    cover: (from: number, to: number, newFlags: number): void => {
      walkGaps(from, to, true, newFlags);
      merge();
    },
    /** Removes what [from, to) covers. Needs room for one region if the range is strictly inside one. */
    uncover: (from: number, to: number): void => {
      let i = firstEndingAbove(from);
      while (i < cnt() && start(i) < to) {
        const [oldStart, oldEnd] = [start(i), end(i)];
        if (oldStart >= from && oldEnd <= to) {
          removeAt(i);
          continue;
        }
        if (oldStart < from && oldEnd > to) {
          insertAt(i, oldStart, from, flags(i));
          i++;
        }
        if (oldEnd > to) setRange(i, to, oldEnd);
        else setRange(i, oldStart, from);
        i++;
      }
    },
    isStrictlyInside: (from: number, to: number): boolean => {
      const i = firstEndingAbove(from);
      return i < cnt() && start(i) < from && end(i) > to;
    },
    contains: (from: number, to: number): boolean => {
      const i = firstEndingAbove(from);
      return i < cnt() && start(i) <= from && end(i) >= to;
    },
    overlaps: (from: number, to: number): boolean => {
      const i = firstEndingAbove(from);
      return i < cnt() && start(i) < to;
    },
    moveTo: (newArray: number, newMax: number): void => {
      const bytes = cnt() * REGION_BYTES;
      port.copy(newArray, array(), bytes);
      port.fill(newArray + bytes, 0, newMax * REGION_BYTES - bytes);
      port.st32(header + T_ARRAY, newArray);
      port.st32(header + T_MAX, newMax);
    },
    total: (): number => {
      let bytes = 0;
      for (let i = 0; i < cnt(); i++) bytes += end(i) - start(i);
      return bytes;
    },
    list: (): MemblockRegion[] =>
      Array.from({ length: cnt() }, (_, i) => ({ start: start(i), end: end(i), flags: flags(i) })),
    dump: (): string[] => [
      ` ${name}.cnt  = 0x${cnt().toString(16)}`,
      ...Array.from({ length: cnt() }, (_, i) => {
        const [index, size, bits] = [i.toString(16), hex(end(i) - start(i)), flags(i).toString(16)];
        return ` ${name}[0x${index}]\t${range(start(i), end(i))}, ${size} bytes flags: 0x${bits}`;
      }),
    ],
    check: (): string | null => {
      if (cnt() > max()) return `MB-9 ${name}: ${cnt()} regions in an array of ${max()}`;
      for (let i = 0; i < cnt(); i++) {
        const where = `${name}[${i}]`;
        if (!(start(i) < end(i)) || end(i) > ADDR_LIMIT) return `MB-1 ${where} is empty or too long`;
        if (i === 0) continue;
        if (end(i - 1) > start(i)) return `MB-1 ${where} overlaps the region before it`;
        if (end(i - 1) === start(i) && flags(i - 1) === flags(i)) return `MB-2 ${where} is not merged`;
      }
      return null;
    },
  };
}

/** As Linux prints a physical address. */
export const hex = (n: number): string => `0x${n.toString(16).padStart(16, "0")}`;
export const range = (start: number, end: number): string => `[${hex(start)}-${hex(end - 1)}]`;
