/**
 * What lab 2 gives you: the columns that your allocator works on, and the functions that it has to have.
 *
 * Do not change this file: the grader uses its own copy.
 */

/** What allocBlock returns when there is no block. */
export const NO_FRAME = 0xffff_ffff;
/** freeBlock returns −EINVAL for something that is not out. */
export const EINVAL = 22;

/**
 * The memory that the allocator keeps its books in. A column is an array with one row per frame; frames are numbered
 * from 0. All of it is yours from the start and zero, but only these rows: what lies behind belongs to others.
 */
export interface BuddyMemory {
  /** Frames are 0 … nrFrames − 1. None of them is free before addFreeRange has given it. */
  readonly nrFrames: number;
  /** The largest block has 2^maxOrder frames. */
  readonly maxOrder: number;
  /** Links: rows 0 … nrFrames − 1 are frames, rows firstHead … firstHead + maxOrder are heads of lists. */
  readonly next: Uint32Array;
  readonly prev: Uint32Array;
  readonly firstHead: number;
  /** One byte per frame each; the names are a proposal. */
  readonly state: Uint8Array;
  readonly order: Uint8Array;
  /** 2 · (the power of two that is at least nrFrames) numbers, for a design of your own. */
  readonly spare: Uint16Array;
}

export interface Buddy {
  /** Frames start … end − 1 become free. */
  addFreeRange(start: number, end: number): void;
  /** First frame of a block of 2^order frames that is now out, or NO_FRAME. */
  allocBlock(order: number): number;
  /** 0, or −EINVAL if no block of that order that is out starts at `frame`; then nothing has changed. */
  freeBlock(frame: number, order: number): number;
  /** Frames that are free. */
  nrFree(): number;
}
