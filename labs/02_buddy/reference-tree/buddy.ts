/**
 * Lab 2: the buddy allocator without lists: a tree of bitmaps.
 *
 * The tree lies in `spare` as a heap does: node 1 is the root, the children of i are 2i and 2i + 1, and the leaves
 * stand for the frames. A node holds one bit per order: is there a free block of that order below (or here)? A block
 * that is free as a whole has the bit of its own order and nothing below, so
 *
 *        the smallest sufficient order is the lowest bit of the root that is high enough,
 *        and the way down follows that bit.
 */

import { type Buddy, type BuddyMemory, EINVAL, NO_FRAME } from "../given/api.ts";

const OUT = 1;

export function createBuddy(memory: BuddyMemory): Buddy {
  const { nrFrames, maxOrder, state, order, spare: bits } = memory;
  const nrLeaves = bits.length / 2;
  const rootOrder = Math.log2(nrLeaves);
  let nrFree = 0;

  /** Bits of `node`, of order `nodeOrder`, from those of its children; two whole halves become one. */
  function combine(node: number, nodeOrder: number): void {
    const left = bits[2 * node];
    const right = bits[2 * node + 1];
    const whole = 1 << (nodeOrder - 1);
    if (nodeOrder <= maxOrder && left === whole && right === whole) {
      bits[2 * node] = 0;
      bits[2 * node + 1] = 0;
      bits[node] = 1 << nodeOrder;
    } else bits[node] = left | right;
  }

  /** `node`, of order `nodeOrder`, has changed: so do all above it. */
  function combineUpwards(node: number, nodeOrder: number): void {
    let at = node;
    for (let level = nodeOrder + 1; level <= rootOrder; level++) {
      at >>>= 1;
      combine(at, level);
    }
  }

  function release(frame: number, blockOrder: number): void {
    const node = (nrLeaves + frame) >>> blockOrder;
    bits[node] = 1 << blockOrder;
    nrFree += 1 << blockOrder;
    combineUpwards(node, blockOrder);
  }

  function addFreeRange(start: number, end: number): void {
    for (let frame = start; frame < end; ) {
      let blockOrder = maxOrder;
      while (frame % (1 << blockOrder) !== 0 || frame + (1 << blockOrder) > end) blockOrder--;
      release(frame, blockOrder);
      frame += 1 << blockOrder;
    }
  }

  function allocBlock(wanted: number): number {
    if (!Number.isInteger(wanted) || wanted < 0 || wanted > maxOrder) return NO_FRAME;
    const enough = (bits[1] >>> wanted) << wanted;
    if (enough === 0) return NO_FRAME;
    const bit = enough & -enough;
    let node = 1;
    let nodeOrder = rootOrder;
    // Down to the block, then further down through its first halves, each of which leaves its second half free.
    while (1 << nodeOrder !== bit) {
      node = (bits[2 * node] & bit) !== 0 ? 2 * node : 2 * node + 1;
      nodeOrder--;
    }
    while (nodeOrder > wanted) {
      nodeOrder--;
      bits[2 * node + 1] = 1 << nodeOrder;
      node = 2 * node;
    }
    bits[node] = 0;
    combineUpwards(node, wanted);
    const frame = (node << wanted) - nrLeaves;
    state[frame] = OUT;
    order[frame] = wanted;
    nrFree -= 1 << wanted;
    return frame;
  }

  function freeBlock(frame: number, blockOrder: number): number {
    const isFrame = Number.isInteger(frame) && frame >= 0 && frame < nrFrames;
    if (!isFrame || state[frame] !== OUT || order[frame] !== blockOrder) return -EINVAL;
    state[frame] = 0;
    release(frame, blockOrder);
    return 0;
  }

  return { addFreeRange, allocBlock, freeBlock, nrFree: () => nrFree };
}
