/**
 * Lab 2: the buddy allocator, with one free list per order.
 *
 * The lists are circular and doubly linked through the columns `next` and `prev`; the row `firstHead + order` is the
 * head of the list of that order. A frame says in `state` and `order` what block starts there, if one does.
 */

import { type Buddy, type BuddyMemory, EINVAL, NO_FRAME } from "../given/api.ts";

/** No block starts at this frame. */
const INSIDE = 0;
/** A free block starts here; it is on the list of its order. */
const FREE = 1;
/** A block that is out starts here. */
const OUT = 2;

export function createBuddy(memory: BuddyMemory): Buddy {
  const { nrFrames, maxOrder, next, prev, firstHead, state, order } = memory;
  let nrFree = 0;

  for (let head = firstHead; head <= firstHead + maxOrder; head++) {
    next[head] = head;
    prev[head] = head;
  }

  /** Puts a block on the list of its order, at the front. */
  function push(frame: number, blockOrder: number): void {
    const head = firstHead + blockOrder;
    const first = next[head];
    next[frame] = first;
    prev[frame] = head;
    prev[first] = frame;
    next[head] = frame;
    state[frame] = FREE;
    order[frame] = blockOrder;
  }

  /** Takes a free block off the list that it is on. */
  function unlink(frame: number): void {
    next[prev[frame]] = next[frame];
    prev[next[frame]] = prev[frame];
    state[frame] = INSIDE;
  }

  // BLANK CUT
  /** A block that is on no list becomes free: merges it with its buddies as far as it goes. */
  function release(start: number, startOrder: number): void {
    let frame = start;
    let blockOrder = startOrder;
    while (blockOrder < maxOrder) {
      const buddy = frame ^ (1 << blockOrder);
      if (buddy >= nrFrames || state[buddy] !== FREE || order[buddy] !== blockOrder) break;
      unlink(buddy);
      frame = Math.min(frame, buddy);
      blockOrder++;
    }
    push(frame, blockOrder);
  }

  // BLANK END
  function addFreeRange(start: number, end: number): void {
    // BLANK BEGIN cut [start, end) into the largest blocks that are aligned and fit, and let each become free (BUD-8)
    let frame = start;
    while (frame < end) {
      let blockOrder = 0;
      while (blockOrder < maxOrder && frame % (2 << blockOrder) === 0 && frame + (2 << blockOrder) <= end) blockOrder++;
      release(frame, blockOrder);
      nrFree += 1 << blockOrder;
      frame += 1 << blockOrder;
    }
    // BLANK END
  }

  function allocBlock(wanted: number): number {
    // BLANK BEGIN take the smallest block that is large enough, and split it until it fits (BUD-5)
    if (!Number.isInteger(wanted) || wanted < 0 || wanted > maxOrder) return NO_FRAME;
    let found = wanted;
    while (found <= maxOrder && next[firstHead + found] === firstHead + found) found++;
    if (found > maxOrder) return NO_FRAME;
    const frame = next[firstHead + found];
    unlink(frame);
    while (found > wanted) {
      found--;
      push(frame + (1 << found), found);
    }
    state[frame] = OUT;
    order[frame] = wanted;
    nrFree -= 1 << wanted;
    return frame;
    // BLANK END
  }

  function freeBlock(frame: number, blockOrder: number): number {
    // BLANK BEGIN refuse what is not out with that order; else merge with free buddies of the same order (BUD-4, BUD-6)
    if (!Number.isInteger(frame) || frame < 0 || frame >= nrFrames) return -EINVAL;
    if (state[frame] !== OUT || order[frame] !== blockOrder) return -EINVAL;
    state[frame] = INSIDE;
    nrFree += 1 << blockOrder;
    release(frame, blockOrder);
    return 0;
    // BLANK END
  }

  return { addFreeRange, allocBlock, freeBlock, nrFree: () => nrFree };
}
