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

interface NeighbourMemory {
  readonly nrFrames: number;
  readonly maxOrder: number;
  readonly state: Uint8Array;
  readonly order: Uint8Array;
}

export const create: CreateInstance = (student, config: BuddyConfig) => {
  const { frames: nrFrames, maxOrder } = config;
  const createBuddy: (memory: object) => unknown = exportedFunction(student, "createBuddy", "buddy.ts");
  const firstHead = nrFrames + FOREIGN_ROWS;
  const nrRows = firstHead + maxOrder + 1 + FOREIGN_ROWS;
  let nrLeaves = 1;
  while (nrLeaves < nrFrames) nrLeaves *= 2;
  const nrForeign = config.neighbour === undefined ? FOREIGN_ROWS : 1 << maxOrder;
  const memory = {
    nrFrames,
    maxOrder,
    next: new Uint32Array(nrRows).fill(PATTERN),
    prev: new Uint32Array(nrRows).fill(PATTERN),
    firstHead,
    state: new Uint8Array(nrFrames + nrForeign).fill(PATTERN),
    order: new Uint8Array(nrFrames + nrForeign).fill(PATTERN),
    spare: new Uint16Array(2 * nrLeaves),
  };
  const { next, prev, state, order } = memory;
  const columns = [next, prev, state, order];
  const isForeign = (row: number): boolean => row >= nrFrames && (row < firstHead || row > firstHead + maxOrder);
  for (const column of columns) {
    for (let row = 0; row < column.length; row++) if (!isForeign(row)) column[row] = 0;
  }
  const neighbour = config.neighbour === undefined ? null : createNeighbour(createBuddy, memory);
  const before = columns.map((column) => column.slice());

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
    /** The first frames behind the end become free, with the other allocator. */
    neighbour() {
      if (neighbour !== null) method(neighbour, "addFreeRange", "createBuddy")(0, 1 << (config.neighbour ?? 0));
      return null;
    },
    /** First row of others that was changed, or −1. */
    strayRow() {
      for (let i = 0; i < columns.length; i++) {
        const column = columns[i] as Uint32Array | Uint8Array;
        for (let row = nrFrames; row < column.length; row++) {
          if (isForeign(row) && column[row] !== before[i]?.[row]) return row;
        }
      }
      return -1;
    },
  };
};

/** The rows behind the last frame become those of another allocator of the same kind. */
function createNeighbour(createBuddy: (memory: object) => unknown, memory: NeighbourMemory): unknown {
  const { nrFrames, maxOrder } = memory;
  const size = 1 << maxOrder;
  return createBuddy({
    nrFrames: size,
    maxOrder,
    next: new Uint32Array(size + maxOrder + 1),
    prev: new Uint32Array(size + maxOrder + 1),
    firstHead: size,
    state: memory.state.fill(0, nrFrames).subarray(nrFrames),
    order: memory.order.fill(0, nrFrames).subarray(nrFrames),
    spare: new Uint16Array(2 * size),
  });
}
