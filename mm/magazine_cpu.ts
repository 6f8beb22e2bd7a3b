/**
 * The per-CPU record of the magazines of one cache: its layout, and the steps that are not on the fast path.
 *
 *   per-CPU record, cache + CACHE_CC + 64 · cpu; written by that CPU with interrupts off:
 *
 *   | offset | field            | meaning                                                                       |
 *   |--------|------------------|-------------------------------------------------------------------------------|
 *   | 0, 4   | loaded, hand     | address of the magazine, its word (below); 0 and −1 when there is none  (M1)  |
 *   | 8, 12  | previous, prounds| address of the magazine, its rounds; the same                                 |
 *   | 16     | magsize          | rounds of a full magazine; 0 switches the layer off for this cache            |
 *   | 20     | first rounds     | rounds that there were when the word was last folded; see below               |
 *   | 24, 32 | allocs, frees    | f64: served here, up to when the word was last folded                         |
 *   | 40, 48 | loads            | f64: full, empty magazines fetched from the depot                             |
 *   | 56, 60 | misses           | u32: allocations and frees that went on to the slabs; they wrap               |
 *
 * The word `hand` of the loaded magazine holds its rounds, the room left, and the operations since the last folding:
 *
 *      31 │ 30 … 16     │ 15 … 8 │ 7 … 0       an allocation adds 0x10000 + 0x100 − 1, a free 0x10000 − 0x100 + 1:
 *         │ operations  │ room   │ rounds      one load and one store move the round and count it
 *
 * From operations = allocs + frees and the change of rounds = frees − allocs both numbers follow; *folding* adds them
 * to the two counters. It happens at the latest when the operations run over into bit 31: the word is negative then,
 * as it is when no magazine is loaded, and the fast path tests for that anyway. When magazines are exchanged the count
 * goes on in the new word, and `first rounds` moves by as much as the rounds do, below 0 too: the change stays.
 *
 * Context: the record's CPU with interrupts off, or any CPU when that one is offline.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";

export const CC_LOADED = 0;
export const CC_HAND = 4;
export const CC_PREVIOUS = 8;
export const CC_PROUNDS = 12;
export const CC_MAGSIZE = 16;
export const CC_FIRST_ROUNDS = 20;
export const CC_ALLOCS = 24;
export const CC_FREES = 32;
export const CC_FULL_LOADS = 40;
export const CC_EMPTY_LOADS = 48;
export const CC_ALLOC_MISSES = 56;
export const CC_FREE_MISSES = 60;

// ── The word CC_HAND (MAG-8) ───────────────────────────────────────────────────────────────────────────────────────

/** Fields: bits 0-7 rounds, 8-15 room, 16-30 operations; bit 31 sends the next operation to the slow path. */
export const HAND_ROUNDS = 0xff;
export const HAND_ROOM = 0xff00;
export const HAND_ROOM_ONE = 0x100;
const HAND_ROOM_SHIFT = 8;
export const HAND_ONE_OPERATION = 0x1_0000;
const HAND_OPERATIONS = 0x7fff_0000;
const HAND_OPERATIONS_SHIFT = 16;
/** Bit 31, as `&` sees it. */
export const HAND_SLOW = -0x8000_0000;
/** No magazine is loaded: negative, and so is a word whose operations have run over. */
export const HAND_NONE = -1;

/** Rounds of the loaded magazine of a per-CPU record; −1 when there is none. */
export const loadedRounds = (port: MemoryPort, cc: number): number =>
  port.ld32(cc + CC_LOADED) === 0 ? -1 : port.ld32(cc + CC_HAND) & HAND_ROUNDS;

/** Operations since the word was last folded into the counters: allocations (`isAlloc`) or frees. */
export function unfoldedOperations(port: MemoryPort, cc: number, isAlloc: boolean): number {
  if (port.ld32(cc + CC_LOADED) === 0) return 0;
  const hand = port.ld32(cc + CC_HAND);
  const gained = ((hand & HAND_ROUNDS) - port.ld32(cc + CC_FIRST_ROUNDS)) | 0;
  // frees + allocs = operations, frees − allocs = rounds gained
  return ((hand >>> HAND_OPERATIONS_SHIFT) + (isAlloc ? -gained : gained)) / 2;
}

/** Round i of a magazine is at i times this, i ≥ 1: granule of the object, address of its state byte. */
export const MAGAZINE_ROUND_BYTES = 8;

/** Copies for the exchange of magazines, one in ten operations of a mixed load: why, see slab_objects.ts. In words. */
const LOADED = CC_LOADED >>> 2;
const HAND = CC_HAND >>> 2;
const PREVIOUS = CC_PREVIOUS >>> 2;
const PROUNDS = CC_PROUNDS >>> 2;
const MAGSIZE = CC_MAGSIZE >>> 2;
const FIRST_ROUNDS = CC_FIRST_ROUNDS >>> 2;
const ALLOCS = CC_ALLOCS;
const FREES = CC_FREES;
const ROUNDS = HAND_ROUNDS;
const ROOM_AT = HAND_ROOM_SHIFT;
const OPERATIONS_AT = HAND_OPERATIONS_SHIFT;
const OPERATIONS = HAND_OPERATIONS;
const NONE = HAND_NONE;

/** `cc`: number of the first word of a per-CPU record. */
export interface MagazineCpu {
  /** Loads `magazine` with `rounds`, or none (NULL, −1). The word before it must have been folded. */
  setLoaded(cc: number, magazine: number, rounds: number): void;
  setPrevious(cc: number, magazine: number, rounds: number): void;
  /** Loads `magazine` with `rounds`; what was loaded becomes previous. Operations stay counted in the word. */
  exchange(cc: number, magazine: number, rounds: number): void;
  /** Moves the operations of the word into the counters. */
  fold(cc: number): void;
}

export function createMagazineCpu(port: MemoryPort): MagazineCpu {
  return {
    setLoaded(cc, magazine, rounds) {
      const room = port.ldWord(cc + MAGSIZE) - rounds;
      port.stWord(cc + LOADED, magazine);
      port.stWord(cc + HAND, magazine === 0 ? NONE : rounds + (room << ROOM_AT));
      port.stWord(cc + FIRST_ROUNDS, magazine === 0 ? 0 : rounds);
    },
    setPrevious(cc, magazine, rounds) {
      port.stWord(cc + PREVIOUS, magazine);
      port.stWord(cc + PROUNDS, rounds);
    },
    exchange(cc, magazine, rounds) {
      const loaded = port.ldWord(cc + LOADED);
      const hand = loaded === 0 ? 0 : port.ldWord(cc + HAND);
      const gained = (hand & ROUNDS) - port.ldWord(cc + FIRST_ROUNDS);
      const room = port.ldWord(cc + MAGSIZE) - rounds;
      port.stWord(cc + PREVIOUS, loaded);
      port.stWord(cc + PROUNDS, loaded === 0 ? -1 : hand & ROUNDS);
      port.stWord(cc + LOADED, magazine);
      port.stWord(cc + HAND, (hand & OPERATIONS) | (room << ROOM_AT) | rounds);
      port.stWord(cc + FIRST_ROUNDS, (rounds - gained) | 0);
    },
    fold(cc) {
      if (port.ldWord(cc + LOADED) === 0) return;
      const hand = port.ldWord(cc + HAND);
      const rounds = hand & ROUNDS;
      // unfoldedOperations() of both kinds: sum and difference of two whole numbers, so both halves are whole.
      const gained = (rounds - port.ldWord(cc + FIRST_ROUNDS)) | 0;
      const operations = hand >>> OPERATIONS_AT;
      const counters = cc * 4;
      port.stF64(counters + ALLOCS, port.ldF64(counters + ALLOCS) + ((operations - gained) >> 1));
      port.stF64(counters + FREES, port.ldF64(counters + FREES) + ((operations + gained) >> 1));
      port.stWord(cc + HAND, hand & ((1 << OPERATIONS_AT) - 1));
      port.stWord(cc + FIRST_ROUNDS, rounds);
    },
  };
}
