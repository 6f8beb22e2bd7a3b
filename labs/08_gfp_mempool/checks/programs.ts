/**
 * Programs of lab 8: machines with few pages, and what is remembered while a program is made.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Op, Program } from "../../kit/program.ts";
import {
  __GFP_HIGH,
  __GFP_KSWAPD_RECLAIM,
  __GFP_MEMALLOC,
  __GFP_NOFAIL,
  __GFP_NOMEMALLOC,
  __GFP_NORETRY,
  __GFP_NOWARN,
  GFP_ATOMIC,
  GFP_KERNEL,
  GFP_NOFS,
  GFP_NOIO,
  GFP_NOWAIT,
} from "../given/api.ts";
import type { GfpConfig } from "./machine.ts";

/** Masks that never sleep, and masks that may. */
export const ATOMIC = [
  GFP_ATOMIC,
  GFP_NOWAIT,
  __GFP_HIGH,
  GFP_ATOMIC | __GFP_MEMALLOC,
  0,
  GFP_NOWAIT | __GFP_MEMALLOC | __GFP_NOMEMALLOC,
];
export const BLOCKING = [
  GFP_KERNEL,
  GFP_NOIO,
  GFP_NOFS | __GFP_HIGH,
  GFP_KERNEL | __GFP_NORETRY,
  (GFP_KERNEL & ~__GFP_KSWAPD_RECLAIM) | __GFP_NOWARN,
  GFP_NOIO | __GFP_MEMALLOC,
];
export const atomic = (nr: number): number => ATOMIC[nr % ATOMIC.length] as number;
export const blocking = (nr: number): number => BLOCKING[nr % BLOCKING.length] as number;
export const anyMask = (random: Prng): number =>
  random.below(2) === 0 ? atomic(random.below(6)) : blocking(random.below(6));

/** A program under construction. */
export class Builder {
  readonly config: GfpConfig;
  readonly #ops: Op[] = [];
  /** Operations that got a page of the pool, perhaps. */
  readonly taken: number[] = [];
  /** Operations that got a page of the machine, perhaps. */
  readonly pages: number[] = [];
  #nextObject = 101;

  constructor(pages: number, min: number, low: number, reclaim: readonly number[] = []) {
    this.config = { pages, min, low, reclaim };
  }

  op(...op: Op): number {
    this.#ops.push(op);
    return this.#ops.length - 1;
  }

  page(gfp: number, isIrq = false): number {
    const at = this.op("page", gfp, isIrq);
    this.pages.push(at);
    return at;
  }

  take(gfp: number, isIrq = false): number {
    const at = this.op("take", gfp, isIrq);
    this.taken.push(at);
    return at;
  }

  put(index: number, isIrq = false): void {
    const [ref] = this.taken.splice(index, 1);
    if (ref !== undefined) this.op("put", { ref }, isIrq);
  }

  back(index: number): void {
    const [ref] = this.pages.splice(index, 1);
    if (ref !== undefined) this.op("back", { ref });
  }

  /** Takes every page of the machine away, as those who free memory may. */
  exhaust(nr: number): void {
    for (let i = 0; i < nr; i++) this.page(__GFP_MEMALLOC);
  }

  /** The interrupt frees the page of operation `ref`. */
  armFree(at: number, ref: number): void {
    this.op("interrupt", at, "free", { ref });
  }

  armDefer(at: number): void {
    this.op("interrupt", at, "defer", this.#nextObject++);
  }

  defer(isIrq = false): void {
    this.op("defer", this.#nextObject++, isIrq);
  }

  build(): Program {
    return { config: { ...this.config }, ops: this.#ops };
  }
}

/** A mask that must not fail. */
export const NEVER_FAILS = GFP_KERNEL | __GFP_NOFAIL;
