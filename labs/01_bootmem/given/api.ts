/**
 * What lab 1 gives you: the tables that the firmware leaves behind, and the functions that your allocator has to have.
 *
 * Do not change this file: the grader uses its own copy.
 */

/** What alloc returns when there is no room. Address 0 is an address like any other. */
export const NO_MEMORY = -1;
export const PAGE_SIZE = 4096;
/** The only type of row in the firmware map that is memory. */
export const RAM = 1;

/**
 * Addresses are numbers of bytes from 0 to 2^32, which is why columns of addresses hold doubles. A range has its start
 * and not its end: [start, end). No range is empty.
 */
export interface BootMemory {
  /** The firmware map: rows 0 … nrRows − 1, in any order. Rows do not overlap; they may touch. Do not change it. */
  readonly nrRows: number;
  readonly start: Float64Array;
  readonly end: Float64Array;
  /** `RAM`, or 2, 3, 4 … for what is none. Between rows there is nothing. */
  readonly type: Uint8Array;

  /** What is taken already: the kernel's image, tables. Any order; may overlap and lie over holes. Only to be read. */
  readonly nrReserved: number;
  readonly reservedStart: Float64Array;
  readonly reservedEnd: Float64Array;

  /** The hand-over list, for handOver to fill: numbers of page frames, [firstFrame, endFrame). */
  readonly firstFrame: Uint32Array;
  readonly endFrame: Uint32Array;

  /** 256 rows for a table of your own. */
  readonly spareStart: Float64Array;
  readonly spareEnd: Float64Array;
}

export interface Bootmem {
  /**
   * Lowest address that is a multiple of `align`, behind everything that was allocated before, from which `size` bytes
   * are free memory; they are used from now on. NO_MEMORY if there is none.
   */
  alloc(size: number, align: number): number;
  /** Writes every page frame that is free as a whole to the hand-over list; the number of rows. Once. */
  handOver(): number;
  /** Bytes of RAM that are reserved. */
  reservedBytes(): number;
  /** Bytes that were allocated; after the hand-over also what is left in pages that could not be handed over. */
  usedBytes(): number;
}
