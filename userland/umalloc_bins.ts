/**
 * Bins: the free chunks of the user heap, listed by size, for best fit.
 *
 *   bin 1 … 31     chunks of exactly that many units (16 … 496 bytes)
 *   bin 32 …       16 bins for each power of two: a bin's sizes lie within 6 % of one another
 *
 * A bitmap says which bins are not empty, and a summary word which words of the bitmap are not zero, so that the
 * smallest bin with a chunk long enough is found in three loads however many bins are empty. Below 32 units this is
 * exact best fit; above, the first few chunks of the bin are compared.
 *
 * The lists are doubly linked through the free chunks (umalloc_layout.ts). A new chunk is put at the front.
 *
 *   BIN-1  every free chunk is in the bin of its size and in no other; the top is in none
 *   BIN-2  a bit of the bitmap is set if and only if its bin is not empty, likewise the summary
 *   BIN-3  `prev` of the first chunk is 0; `next.prev` is the chunk itself
 */

import type { UserMemory } from "../kernel/uapi/program.ts";
import {
  CHUNK_NEXT,
  CHUNK_PREV,
  CHUNK_SIZE,
  EXACT_BINS,
  lowestBit,
  ST_BIN_HEADS,
  ST_BIN_SUMMARY,
  ST_BIN_WORDS,
  STATE_OFFSET,
  UNIT_BYTES,
} from "./umalloc_layout.ts";

/** How many chunks of a bin of mixed sizes are compared before the best of them is taken. */
const MAX_COMPARED = 8;

export interface Bins {
  insert(u: number, units: number): void;
  remove(u: number, units: number): void;
  /** The free chunk at `u` of `from` units now has `to`; what was cut off or joined is the caller's business. */
  resize(u: number, from: number, to: number): void;
  /** The best chunk of at least `units` units found, still listed; 0 if there is none. */
  find(units: number): number;
  sizeOf(u: number): number;
}

/** Bin of free chunks of `units` units, `1 ≤ units < 2^15`. */
export function binOf(units: number): number {
  if (units < EXACT_BINS) return units;
  const log2 = 31 - Math.clz32(units);
  return EXACT_BINS + (log2 - 5) * 16 + ((units >> (log2 - 4)) & 15);
}

/** The bins of the heap that starts at `base`. */
export function createBins(mem: UserMemory, base: number): Bins {
  const heads = base + STATE_OFFSET + ST_BIN_HEADS;
  const words = base + STATE_OFFSET + ST_BIN_WORDS;
  const summary = base + STATE_OFFSET + ST_BIN_SUMMARY;

  const setBit = (bin: number): void => {
    const address = words + (bin >> 5) * 4;
    const word = mem.ld32(address);
    mem.st32(address, (word | (1 << (bin & 31))) >>> 0);
    if (word === 0) mem.st32(summary, mem.ld32(summary) | (1 << (bin >> 5)));
  };

  const clearBit = (bin: number): void => {
    const address = words + (bin >> 5) * 4;
    const word = (mem.ld32(address) & ~(1 << (bin & 31))) >>> 0;
    mem.st32(address, word);
    if (word === 0) mem.st32(summary, mem.ld32(summary) & ~(1 << (bin >> 5)));
  };

  const writeSize = (address: number, units: number): void => {
    mem.st32(address + CHUNK_SIZE, units);
    if (units > 1) mem.st32(address + units * UNIT_BYTES - 4, units);
  };

  const insert = (u: number, units: number): void => {
    const bin = binOf(units);
    const address = base + u * UNIT_BYTES;
    const first = mem.ld32(heads + bin * 4);
    mem.st32(address + CHUNK_NEXT, first);
    mem.st32(address + CHUNK_PREV, 0);
    writeSize(address, units);
    mem.st32(heads + bin * 4, u);
    if (first === 0) setBit(bin);
    else mem.st32(base + first * UNIT_BYTES + CHUNK_PREV, u);
  };

  const remove = (u: number, units: number): void => {
    const address = base + u * UNIT_BYTES;
    const next = mem.ld32(address + CHUNK_NEXT);
    const prev = mem.ld32(address + CHUNK_PREV);
    if (next !== 0) mem.st32(base + next * UNIT_BYTES + CHUNK_PREV, prev);
    if (prev !== 0) {
      mem.st32(base + prev * UNIT_BYTES + CHUNK_NEXT, next);
      return;
    }
    const bin = binOf(units);
    mem.st32(heads + bin * 4, next);
    if (next === 0) clearBit(bin);
  };

  /** Shortest of the first chunks of `bin` that has `units` units; 0 if none of those looked at has. */
  const bestOf = (bin: number, units: number): number => {
    let best = 0;
    let bestUnits = 0x7fff_ffff;
    let u = mem.ld32(heads + bin * 4);
    for (let i = 0; u !== 0 && i < MAX_COMPARED; i++) {
      const address = base + u * UNIT_BYTES;
      const size = mem.ld32(address + CHUNK_SIZE);
      if (size >= units && size < bestUnits) {
        best = u;
        bestUnits = size;
        if (size === units) break;
      }
      u = mem.ld32(address + CHUNK_NEXT);
    }
    return best;
  };

  return {
    insert,
    remove,
    resize(u, from, to) {
      if (binOf(from) === binOf(to)) {
        writeSize(base + u * UNIT_BYTES, to);
        return;
      }
      remove(u, from);
      insert(u, to);
    },
    find(units) {
      const used = mem.ld32(summary);
      if (used === 0) return 0;
      let bin = binOf(units);
      if (bin >= EXACT_BINS) {
        const inOwn = bestOf(bin, units);
        if (inOwn !== 0) return inOwn;
        bin++;
      }
      // Two shifts, as a shift by 32 would be one by 0: keep the bits from `bin` on, then whole words.
      let w = bin >> 5;
      let word = (mem.ld32(words + w * 4) >>> (bin & 31)) << (bin & 31);
      if (word === 0) {
        const longer = (used >>> (w + 1)) << (w + 1);
        if (longer === 0) return 0;
        w = lowestBit(longer);
        word = mem.ld32(words + w * 4);
      }
      const found = w * 32 + lowestBit(word);
      return found < EXACT_BINS ? mem.ld32(heads + found * 4) : bestOf(found, units);
    },
    sizeOf: (u) => mem.ld32(base + u * UNIT_BYTES + CHUNK_SIZE),
  };
}
