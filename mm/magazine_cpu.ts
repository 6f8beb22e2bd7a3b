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
 *   | 20     | first rounds     | rounds that were loaded when the word was last folded                         |
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
 * to the two counters. It happens on every slow path, and at the latest when the operations run over into bit 31: the
 * word is negative then, as it is when no magazine is loaded, and the fast path tests for that anyway.
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
export const HAND_ONE_OPERATION = 0x1_0000;
export const HAND_OPERATIONS_SHIFT = 16;
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
  const gained = (hand & HAND_ROUNDS) - port.ld32(cc + CC_FIRST_ROUNDS);
  // frees + allocs = operations, frees − allocs = rounds gained
  return ((hand >>> HAND_OPERATIONS_SHIFT) + (isAlloc ? -gained : gained)) / 2;
}

/** Round i of a magazine is at i times this, i ≥ 1: granule of the object, address of its state byte. */
export const MAGAZINE_ROUND_BYTES = 8;

/** Copies for the exchange of magazines, one in ten operations of a mixed load: why, see slab_objects.ts. */
const LOADED = CC_LOADED;
const HAND = CC_HAND;
const PREVIOUS = CC_PREVIOUS;
const PROUNDS = CC_PROUNDS;
const MAGSIZE = CC_MAGSIZE;
const FIRST_ROUNDS = CC_FIRST_ROUNDS;
const ALLOCS = CC_ALLOCS;
const FREES = CC_FREES;
const ROUNDS = HAND_ROUNDS;
const ROOM_ONE = HAND_ROOM_ONE;
const OPERATIONS_AT = HAND_OPERATIONS_SHIFT;
const NONE = HAND_NONE;

export interface MagazineCpu {
  /** Loads `magazine` with `rounds`, or none (NULL, −1). The word before it must have been folded. */
  setLoaded(cc: number, magazine: number, rounds: number): void;
  setPrevious(cc: number, magazine: number, rounds: number): void;
  /** Moves the operations of the word into the counters. */
  fold(cc: number): void;
}

export function createMagazineCpu(port: MemoryPort): MagazineCpu {
  return {
    setLoaded(cc, magazine, rounds) {
      const room = port.ld32(cc + MAGSIZE) - rounds;
      port.st32(cc + LOADED, magazine);
      port.st32(cc + HAND, magazine === 0 ? NONE : rounds + room * ROOM_ONE);
      port.st32(cc + FIRST_ROUNDS, magazine === 0 ? 0 : rounds);
    },
    setPrevious(cc, magazine, rounds) {
      port.st32(cc + PREVIOUS, magazine);
      port.st32(cc + PROUNDS, rounds);
    },
    fold(cc) {
      if (port.ld32(cc + LOADED) === 0) return;
      const hand = port.ld32(cc + HAND);
      const rounds = hand & ROUNDS;
      // unfoldedOperations() of both kinds: sum and difference of two whole numbers, so both halves are whole.
      const gained = rounds - port.ld32(cc + FIRST_ROUNDS);
      const operations = hand >>> OPERATIONS_AT;
      port.stF64(cc + ALLOCS, port.ldF64(cc + ALLOCS) + ((operations - gained) >> 1));
      port.stF64(cc + FREES, port.ldF64(cc + FREES) + ((operations + gained) >> 1));
      port.st32(cc + HAND, hand & ((1 << OPERATIONS_AT) - 1));
      port.st32(cc + FIRST_ROUNDS, rounds);
    },
  };
}
