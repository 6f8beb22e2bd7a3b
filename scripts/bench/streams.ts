/**
 * Operation streams: what a bench replays, drawn before the clock starts, the same for every allocator.
 *
 * Operations come in bursts of 1-32 of one kind, so that the loop's own branch is predictable. The live weight is a
 * random walk that is pulled softly towards its target; what is freed is chosen uniformly among the living.
 *
 *   operation i:   words[i] = slot · 2 + (1 for a free)      sizes[i] = what the slot holds: an order, or bytes
 */

import { createRandomStreams, type Prng } from "../../kernel/lib/prng.ts";

export interface StreamSpec {
  readonly seed: string;
  readonly nrOps: number;
  /** Live weight that the walk stays around. */
  readonly target: number;
  /** Draws a size. */
  readonly drawSize: (prng: Prng) => number;
  /** What a block of `size` weighs. */
  readonly weigh: (size: number) => number;
}

export interface OpStream {
  readonly words: Int32Array;
  readonly sizes: Uint16Array | Int32Array;
  /** Slots that the stream uses: [0, nrSlots). */
  readonly nrSlots: number;
  /** Operations at the front that only fill up to the target. */
  readonly nrFill: number;
}

/** Pull towards the target: how strongly the next burst's kind depends on the distance. */
const PULL = 16;
const MAX_BURST = 32;

/** P(order) = 2^-(order + 1), 0 … `max`. */
export const drawOrder = (prng: Prng, max: number): number => Math.min(max, Math.clz32(prng.below(2 ** 32)));

/** Bounded Pareto, α = 1, whole bytes in [low, high]: small sizes are common, large ones take the memory. */
export const drawPareto = (prng: Prng, low: number, high: number): number =>
  Math.floor(low / (1 - prng.next() * (1 - low / high)));

/** Draws a stream of `nrOps` operations after those that fill up to the target. */
export function drawStream({ seed, nrOps, target, drawSize, weigh }: StreamSpec): OpStream {
  const prng = createRandomStreams(seed).stream("bench:stream");
  const words: number[] = [];
  const sizes: number[] = [];
  const living: number[] = [];
  const sizeOf: number[] = [];
  const unused: number[] = [];
  let weight = 0;

  const alloc = (): void => {
    const slot = unused.pop() ?? sizeOf.length;
    const size = drawSize(prng);
    sizeOf[slot] = size;
    weight += weigh(size);
    living.push(slot);
    words.push(slot * 2);
    sizes.push(size);
  };
  const free = (): void => {
    const index = prng.below(living.length);
    const slot = living[index] as number;
    const last = living.pop() as number;
    if (index < living.length) living[index] = last;
    weight -= weigh(sizeOf[slot] as number);
    unused.push(slot);
    words.push(slot * 2 + 1);
    sizes.push(sizeOf[slot] as number);
  };

  while (weight < target) alloc();
  const nrFill = words.length;
  while (words.length < nrFill + nrOps) {
    const isFree = prng.next() < 0.5 + (PULL * (weight - target)) / target;
    const burst = 1 + prng.below(MAX_BURST);
    for (let i = 0; i < burst; i++) {
      if (isFree && living.length > 0) free();
      else alloc();
    }
  }
  return { words: Int32Array.from(words), sizes: Uint16Array.from(sizes), nrSlots: sizeOf.length, nrFill };
}
