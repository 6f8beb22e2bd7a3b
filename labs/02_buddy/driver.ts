/**
 * Lab 2, the student's side: columns for one allocator, and its functions as operations.
 *
 * Behind the allocator's rows lie rows of others, filled with a pattern; `strayRow` says whether one was changed.
 */

import { type CreateInstance, exportedFunction, method } from "../kit/driver.ts";
import type { BuddyConfig } from "./checks/model.ts";
import { NO_FRAME } from "./given/api.ts";

const FOREIGN_ROWS = 4;
const PATTERN = 0xaa;

export const create: CreateInstance = (student, config: BuddyConfig) => {
  const { frames: nrFrames, maxOrder } = config;
  const createBuddy = exportedFunction(student, "createBuddy", "buddy.ts");
  const firstHead = nrFrames + FOREIGN_ROWS;
  const nrRows = firstHead + maxOrder + 1 + FOREIGN_ROWS;
  let nrLeaves = 1;
  while (nrLeaves < nrFrames) nrLeaves *= 2;
  const memory = {
    nrFrames,
    maxOrder,
    next: new Uint32Array(nrRows),
    prev: new Uint32Array(nrRows),
    firstHead,
    state: new Uint8Array(nrFrames + FOREIGN_ROWS),
    order: new Uint8Array(nrFrames + FOREIGN_ROWS),
    spare: new Uint16Array(2 * nrLeaves),
  };
  const { next, prev, state, order } = memory;
  const columns = [next, prev, state, order];
  const isForeign = (row: number): boolean => row >= nrFrames && (row < firstHead || row > firstHead + maxOrder);
  for (const column of columns) {
    for (let row = nrFrames; row < column.length; row++) if (isForeign(row)) column[row] = PATTERN;
  }

  const buddy = createBuddy(memory);
  const addFreeRange = method(buddy, "addFreeRange", "createBuddy");
  const allocBlock = method(buddy, "allocBlock", "createBuddy");
  const freeBlock = method(buddy, "freeBlock", "createBuddy");
  const nrFree = method(buddy, "nrFree", "createBuddy");

  return {
    give(start: number, end: number) {
      addFreeRange(start, end);
      return null;
    },
    alloc: (blockOrder: number) => allocBlock(blockOrder),
    /** `nr` allocations. */
    allocMany(blockOrder: number, nr: number) {
      const frames: unknown[] = [];
      for (let i = 0; i < nr; i++) frames[i] = allocBlock(blockOrder);
      return frames;
    },
    /** Frees elements from, from + stride, … of what allocMany returned. */
    freeMany(frames: readonly number[], blockOrder: number, from: number, stride: number) {
      const results: unknown[] = [];
      for (let i = from; i < frames.length; i += stride) results[results.length] = freeBlock(frames[i], blockOrder);
      return results;
    },
    /**
     * Frees the block at `frame + delta`; nothing if the allocation that it comes from found none. Of a list, the block
     * that is its element `at`.
     */
    free(given: unknown, blockOrder: number, delta = 0, at = 0) {
      const frame: unknown = Array.isArray(given) ? given[at] : given;
      if (typeof frame !== "number" || frame === NO_FRAME) return null;
      return freeBlock(frame + delta, blockOrder);
    },
    nrFree: () => nrFree(),
    /** First row of others that was changed, or −1. */
    strayRow() {
      for (const column of columns) {
        for (let row = nrFrames; row < column.length; row++) {
          if (isForeign(row) && column[row] !== PATTERN) return row;
        }
      }
      return -1;
    },
  };
};
