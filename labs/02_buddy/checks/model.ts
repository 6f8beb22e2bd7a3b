/**
 * The free space of a buddy allocator, kept naively: what the judge of lab 2 compares claims with.
 *
 * Which frames are free decides which blocks are: free buddies of equal order are one block, always. So whether a
 * request can be met, and from which order, does not depend on how an allocator chooses. `isMerged` remembers which
 * free blocks exist only because two halves came together.
 */

export interface BuddyConfig {
  readonly frames: number;
  readonly maxOrder: number;
  /** Another allocator lies behind the last frame, whose first block has that order; none if it is missing. */
  readonly neighbour?: number;
}

export interface Owner {
  /** Index of the operation that allocated it. */
  readonly op: number;
  readonly start: number;
  readonly order: number;
}

export class FreeSpace {
  readonly nrFrames: number;
  readonly maxOrder: number;
  nrFree = 0;
  /** Order of the free block that starts at a frame, or −1. */
  readonly #freeOrder: Int8Array;
  readonly #isMerged: Uint8Array;
  readonly #isGiven: Uint8Array;
  readonly #owners = new Map<number, Owner>();
  readonly #ownerOf: (Owner | undefined)[];

  constructor({ frames, maxOrder }: BuddyConfig) {
    this.nrFrames = frames;
    this.maxOrder = maxOrder;
    this.#freeOrder = new Int8Array(frames).fill(-1);
    this.#isMerged = new Uint8Array(frames);
    this.#isGiven = new Uint8Array(frames);
    this.#ownerOf = new Array(frames);
  }

  isGiven(frame: number): boolean {
    return this.#isGiven[frame] === 1;
  }

  ownerOf(frame: number): Owner | undefined {
    return this.#ownerOf[frame];
  }

  /** The block that is out and starts at `frame`. */
  ownerAt(frame: number): Owner | undefined {
    return this.#owners.get(frame);
  }

  get owners(): Iterable<Owner> {
    return this.#owners.values();
  }

  give(start: number, end: number): void {
    for (let frame = start; frame < end; ) {
      let order = 0;
      while (order < this.maxOrder && frame % (2 << order) === 0 && frame + (2 << order) <= end) order++;
      this.#isGiven.fill(1, frame, frame + (1 << order));
      this.#release(frame, order);
      frame += 1 << order;
    }
  }

  /** Smallest order ≥ `order` of which there is a free block, of any kind or not merged; −1 if there is none. */
  smallestFree(order: number, unmergedOnly = false): number {
    let best = -1;
    for (let frame = 0; frame < this.nrFrames; frame++) {
      const found = this.#freeOrder[frame] as number;
      if (found < order || (best >= 0 && found >= best)) continue;
      if (!unmergedOnly || this.#isMerged[frame] === 0) best = found;
    }
    return best;
  }

  /** The free block around `frame`, as [start, order], or null. */
  freeBlockAround(frame: number): readonly [start: number, order: number] | null {
    for (let order = 0; order <= this.maxOrder; order++) {
      const start = frame - (frame % (1 << order));
      if (this.#freeOrder[start] === order) return [start, order];
    }
    return null;
  }

  /** Takes `[start, start + 2^order)`, which is free, out of its block. */
  take(start: number, order: number, op: number): void {
    const [blockStart, blockOrder] = this.freeBlockAround(start) as readonly [number, number];
    this.#freeOrder[blockStart] = -1;
    let at = blockStart;
    for (let half = blockOrder - 1; half >= order; half--) {
      const isUpper = start >= at + (1 << half);
      const other = isUpper ? at : at + (1 << half);
      this.#freeOrder[other] = half;
      this.#isMerged[other] = 0;
      if (isUpper) at += 1 << half;
    }
    const owner = { op, start, order };
    this.#owners.set(start, owner);
    this.#ownerOf.fill(owner, start, start + (1 << order));
    this.nrFree -= 1 << order;
  }

  putBack({ start, order }: Owner): void {
    this.#owners.delete(start);
    this.#ownerOf.fill(undefined, start, start + (1 << order));
    this.#release(start, order);
  }

  #release(frame: number, order: number): void {
    this.nrFree += 1 << order;
    let [start, at] = [frame, order];
    for (; at < this.maxOrder; at++) {
      const buddy = start ^ (1 << at);
      if (this.#freeOrder[buddy] !== at) break;
      this.#freeOrder[buddy] = -1;
      start = Math.min(start, buddy);
    }
    this.#freeOrder[start] = at;
    this.#isMerged[start] = at === order ? 0 : 1;
  }
}
