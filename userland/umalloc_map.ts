/**
 * The unit map: two bits for each 16 bytes of heap, which stand for all headers.
 *
 *   UNIT_INNER  0   inside a chunk (or above the top, or in a segment's head)
 *   UNIT_USED   1   first unit of a chunk in use
 *   UNIT_FREE   2   first unit and last unit of a free chunk; first unit of the top
 *   UNIT_CACHED 3   first unit of a chunk that lies in a thread cache: free for the caller, in use for its neighbours
 *
 * So `free(p)` is right exactly if p's unit is UNIT_USED: a double free, an interior pointer and one that was never
 * allocated all read something else, with one load. The chunk before u is free exactly if unit u − 1 is UNIT_FREE; its
 * size is in its foot. (A chunk of one unit is its own last unit.)
 *
 * The size of a chunk in use is the distance to the next unit that is not UNIT_INNER. A LONG chunk, one that covers
 * the whole map word behind the word it starts in, would need a scan; there, that word holds the size instead:
 *
 *   map words   │ … 1 0 0 0 0 │ size, bits spread │ 0 0 0 0 … 0 │ 0 0 1 … │
 *                     └ long chunk starts here                         └ next chunk
 *
 * and the LONG flag of the first word says so. One flag a word is enough: of the chunks that start in a word only the
 * last can cover the next one. The bits of the size are spread over the upper bits of the 16 codes, so that each of
 * these codes reads 0 or 2: an interior pointer into a long chunk never looks like a chunk in use (MAP-3).
 *
 *   MAP-1  every unit of a segment's chunk area is in exactly one chunk or in the top
 *   MAP-2  no two free chunks are neighbours, and none is below the top
 *   MAP-3  a unit reads UNIT_USED if and only if a chunk in use starts there
 *   MAP-4  all codes from the top's second unit on are UNIT_INNER, so that a segment's map needs no set-up: the
 *          kernel gives zeroed pages
 *
 * Context: plain functions over the process's memory; no state of their own.
 */

import type { UserMemory } from "../kernel/uapi/program.ts";
import {
  FLAGS_OFFSET,
  lowestBit,
  SEGMENT_BYTES,
  SEGMENT_MASK,
  SEGMENT_SHIFT,
  UNIT_BYTES,
  UNITS_PER_WORD,
} from "./umalloc_layout.ts";

export const UNIT_INNER = 0;
export const UNIT_USED = 1;
export const UNIT_FREE = 2;
export const UNIT_CACHED = 3;

export interface UnitMap {
  /** Byte address of unit `u`. */
  addressOf(u: number): number;
  /** Byte address of the map word that describes unit `u`. */
  wordAddress(u: number): number;
  codeOf(u: number): number;
  setCode(u: number, code: number): void;
  /**
   * Size in units of the chunk in use or cached that starts at `u`, whose map word is `word`; 0 if the map is broken.
   */
  usedUnits(u: number, word: number): number;
  /** Makes `[u, u + units)` a chunk in use; the codes in between must be UNIT_INNER. */
  markUsed(u: number, units: number): void;
  /** Forgets the size of the chunk at `u` if it is stored in the map. Its first code is left for the caller. */
  clearSize(u: number, units: number): void;
  /** True if the map word of `u` carries the LONG flag. */
  isLongWord(u: number): boolean;
}

/** True if a chunk covers the whole map word behind its first: its size is stored there. */
export const isLong = (u: number, units: number): boolean => units >= 2 * UNITS_PER_WORD - (u & (UNITS_PER_WORD - 1));

/** Bit i of `n` (16 bits) to bit 2 i + 1. */
export function spreadBits(n: number): number {
  let x = n;
  x = (x | (x << 8)) & 0x00ff_00ff;
  x = (x | (x << 4)) & 0x0f0f_0f0f;
  x = (x | (x << 2)) & 0x3333_3333;
  x = (x | (x << 1)) & 0x5555_5555;
  return (x << 1) >>> 0;
}

/** The reverse of `spreadBits`. */
export function gatherBits(word: number): number {
  let x = (word >>> 1) & 0x5555_5555;
  x = (x | (x >>> 1)) & 0x3333_3333;
  x = (x | (x >>> 2)) & 0x0f0f_0f0f;
  x = (x | (x >>> 4)) & 0x00ff_00ff;
  return (x | (x >>> 8)) & 0xffff;
}

/** The map of the heap that starts at `base`. */
export function createUnitMap(mem: UserMemory, base: number): UnitMap {
  const wordAddress = (u: number): number =>
    base + (u >> SEGMENT_SHIFT) * SEGMENT_BYTES + (((u & SEGMENT_MASK) >> 4) << 2);

  /** Address of the word with the LONG flag of unit `u`'s map word; its bit is the map word's number modulo 32. */
  const flagAddress = (u: number): number =>
    base + (u >> SEGMENT_SHIFT) * SEGMENT_BYTES + FLAGS_OFFSET + (((u & SEGMENT_MASK) >> 9) << 2);
  const flagBit = (u: number): number => 1 << ((u >> 4) & 31);

  const isLongWord = (u: number): boolean => (mem.ld32(flagAddress(u)) & flagBit(u)) !== 0;

  const setCode = (u: number, code: number): void => {
    const address = wordAddress(u);
    const shift = (u & 15) << 1;
    mem.st32(address, ((mem.ld32(address) & ~(3 << shift)) | (code << shift)) >>> 0);
  };

  /** The part of usedUnits() for chunks that reach into another map word. */
  const usedUnitsSlow = (u: number): number => {
    const inFirst = UNITS_PER_WORD - (u & (UNITS_PER_WORD - 1));
    if (((u + inFirst) & SEGMENT_MASK) === 0) return inFirst;
    const next = mem.ld32(wordAddress(u) + 4);
    const bit = next === 0 ? 0 : lowestBit(next);
    // A size word has no 1 in the lower bit of a code: where the first code has, there is no need to ask the flag.
    if ((bit & 1) !== 0 && isLongWord(u)) return gatherBits(next);
    return next === 0 ? 0 : inFirst + (bit >> 1);
  };

  return {
    addressOf: (u) => base + u * UNIT_BYTES,
    wordAddress,
    codeOf: (u) => (mem.ld32(wordAddress(u)) >>> ((u & 15) << 1)) & 3,
    setCode,
    usedUnits(u, word) {
      // Two shifts: one by 32 would be one by 0.
      const rest = (word >>> ((u & 15) << 1)) >>> 2;
      return rest === 0 ? usedUnitsSlow(u) : 1 + (lowestBit(rest) >> 1);
    },
    markUsed(u, units) {
      setCode(u, UNIT_USED);
      if (!isLong(u, units)) return;
      const flags = flagAddress(u);
      mem.st32(flags, (mem.ld32(flags) | flagBit(u)) >>> 0);
      mem.st32(wordAddress(u) + 4, spreadBits(units));
    },
    clearSize(u, units) {
      if (!isLong(u, units)) return;
      const flags = flagAddress(u);
      mem.st32(flags, (mem.ld32(flags) & ~flagBit(u)) >>> 0);
      mem.st32(wordAddress(u) + 4, 0);
    },
    isLongWord,
  };
}
