/**
 * Programs of lab 2: how memory looks at the start, and random walks over it.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Op, Program } from "../../kit/program.ts";
import type { BuddyConfig } from "./model.ts";

type Range = readonly [start: number, end: number];

/** A program under construction; allocations are remembered so that they can be freed. */
export class Builder {
  readonly #config: BuddyConfig;
  readonly #ops: Op[] = [];
  /** Allocations that were not freed yet. */
  readonly live: { readonly ref: number; readonly order: number }[] = [];

  /** `neighbour`: behind the last frame lies another allocator; the operation `neighbour` frees a block there. */
  constructor(frames: number, maxOrder: number, ranges: readonly Range[] = [[0, frames]], neighbour?: number) {
    this.#config = { frames, maxOrder, ...(neighbour === undefined ? {} : { neighbour }) };
    for (const [start, end] of ranges) this.#ops.push(["give", start, end]);
  }

  get maxOrder(): number {
    return this.#config.maxOrder;
  }

  op(...op: Op): number {
    this.#ops.push(op);
    return this.#ops.length - 1;
  }

  alloc(order: number): number {
    const ref = this.op("alloc", order);
    this.live.push({ ref, order });
    return ref;
  }

  /** Frees the `index`-th live block. */
  free(index: number): void {
    const [block] = this.live.splice(index, 1);
    if (block !== undefined) this.op("free", { ref: block.ref }, block.order);
  }

  freeRef(ref: number): void {
    this.free(this.live.findIndex((block) => block.ref === ref));
  }

  freeAll(random: Prng): void {
    while (this.live.length > 0) this.free(random.below(this.live.length));
  }

  /** `n` random allocations and frees of orders up to `top`. */
  walk(random: Prng, n: number, top = this.maxOrder): void {
    for (let i = 0; i < n; i++) {
      if (this.live.length > 0 && random.below(5) < 2) this.free(random.below(this.live.length));
      else this.alloc(random.below(top + 1));
    }
  }

  build(): Program {
    return { config: { ...this.#config }, ops: this.#ops };
  }
}

/** Small memories first, then larger ones: the order of its largest block for program `nr`. */
export function sizeOf(nr: number): number {
  return 2 + (nr % 5);
}

/** A memory with holes: ranges that start and end anywhere. */
export function rangesWithHoles(random: Prng, frames: number): readonly Range[] {
  const ranges: Range[] = [];
  let at = random.below(3);
  while (at < frames) {
    const end = Math.min(frames, at + 1 + random.below(Math.max(2, frames >>> 1)));
    ranges.push([at, end]);
    at = end + 1 + random.below(4);
  }
  return ranges.length > 0 ? ranges : [[0, frames]];
}

/** A whole memory of 2^top frames. */
export function whole(top: number): Builder {
  return new Builder(1 << top, top);
}
