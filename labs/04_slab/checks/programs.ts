/**
 * Programs of lab 4: sizes worth asking for, and random walks over caches and objects.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Arg, Op, Program } from "../../kit/program.ts";
import { layoutOf } from "./model.ts";

export type Request = readonly [size: number, align: number];

/** Few objects in a slab first, so that the first programs can be read; then many, and slabs of several frames. */
const REQUESTS: readonly Request[] = [
  [2048, 8],
  [1300, 8],
  [1000, 8],
  [4000, 32],
  [1500, 8],
  [700, 64],
  [3000, 8],
  [100, 8],
  [3500, 8],
  [250, 256],
  [32, 8],
];

/** What program `nr` asks for. */
export function requestOf(nr: number): Request {
  return REQUESTS[nr % REQUESTS.length] as Request;
}

/** Any request that makes sense. */
export function anyRequest(random: Prng): Request {
  const size = random.below(3) === 0 ? 1 + random.below(4096) : 200 + random.below(1200);
  return [size, 8 << random.below(6)];
}

interface Live {
  readonly ref: number;
  readonly cache: number;
}

/** A program under construction; objects are remembered so that they can be freed. */
export class Builder {
  readonly #config: { readonly frames: number; readonly keepEmpty: number };
  readonly #ops: Op[] = [];
  /** Objects that were not freed yet. */
  readonly live: Live[] = [];
  /** Objects of a slab, by cache. */
  readonly #nrObjects = new Map<number, number>();

  constructor(frames: number, keepEmpty: number) {
    this.#config = { frames, keepEmpty };
  }

  op(...op: Op): number {
    this.#ops.push(op);
    return this.#ops.length - 1;
  }

  /** An operation on what operation `ref` found. */
  on(name: string, ref: number, ...args: Arg[]): number {
    return this.op(name, { ref }, ...args);
  }

  make([size, align]: Request, hasConstructor = false): number {
    const cache = this.op("make", size, align, hasConstructor);
    this.#nrObjects.set(cache, layoutOf(size, align).nrObjects);
    return cache;
  }

  /** Objects of a slab of `cache`. */
  perSlab(cache: number): number {
    return this.#nrObjects.get(cache) ?? 1;
  }

  take(cache: number): number {
    const ref = this.on("take", cache);
    this.live.push({ ref, cache });
    return ref;
  }

  takeSome(cache: number, nr: number): number[] {
    return Array.from({ length: nr }, () => this.take(cache));
  }

  /** Frees the `index`-th live object. */
  put(index: number): void {
    const [object] = this.live.splice(index, 1);
    if (object !== undefined) this.on("put", object.ref);
  }

  putRef(ref: number): void {
    this.put(this.live.findIndex((object) => object.ref === ref));
  }

  putAll(random: Prng): void {
    while (this.live.length > 0) this.put(random.below(this.live.length));
  }

  /** `n` random allocations and frees. */
  walk(random: Prng, caches: readonly number[], n: number): void {
    for (let i = 0; i < n; i++) {
      if (this.live.length > 0 && random.below(5) < 2) this.put(random.below(this.live.length));
      else this.take(caches[random.below(caches.length)] as number);
    }
  }

  build(): Program {
    return { config: { ...this.#config }, ops: this.#ops };
  }
}
