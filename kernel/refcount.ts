/**
 * Reference counts that cannot be made to free an object twice.
 *
 * A plain counter that overflows comes round to 0, and its object is freed while there are users. A refcount_t is one
 * word in RAM that, once wrong in whatever way, goes to the middle of the forbidden half and stays there: the object is
 * never freed. A leak is a smaller evil than memory that two owners write to.
 *
 *      0 ────────────── 2^31 − 1 | 2^31 ──── 0xc0000000 ──── 2^32 − 1
 *      free   counts             |         saturated
 *
 *   REF-1  the count never goes from 0 to a number of users: adding to 0 saturates, incNotZero refuses
 *   REF-2  a count that would leave [0, 2^31) saturates at 0xc0000000, and any operation leaves it saturated
 *   REF-3  exactly one decAndTest of a count is true: the one that takes it from 1 to 0
 *   REF-4  each kind of misuse is reported once per machine; all of them are counted
 *
 * Operations are atomic ones of the port; any context. The word is left near 0xc0000000 by operations that race with a
 * saturation, far from both ends: it takes 2^30 of them to leave the forbidden half.
 * Source: Linux `include/linux/refcount.h`, `lib/refcount.c`.
 */

import type { MemoryPort } from "./arch/port.ts";
import type { ContextTracking } from "./context.ts";
import type { KernelImage } from "./image.ts";
import type { Context, PhysAddr } from "./types.ts";

export const REFCOUNT_SATURATED = 0xc000_0000;

const ADD_NOT_ZERO_OVF = 0;
const ADD_OVF = 1;
const ADD_UAF = 2;
const SUB_UAF = 3;
const DEC_LEAK = 4;

const TEXTS: readonly string[] = [
  "refcount_t: saturated; leaking memory.",
  "refcount_t: saturated; leaking memory.",
  "refcount_t: addition on 0; use-after-free.",
  "refcount_t: underflow; use-after-free.",
  "refcount_t: decrement hit 0; leaking memory.",
];

export interface Refcounts {
  set(count: PhysAddr, value: number): void;
  read(count: PhysAddr): number;
  /** One user more; the caller is one itself (REF-1). */
  inc(ctx: Context, count: PhysAddr): void;
  add(ctx: Context, count: PhysAddr, nr: number): void;
  /** One user more unless there is none: false. For who found the object without being a user. */
  incNotZero(ctx: Context, count: PhysAddr): boolean;
  addNotZero(ctx: Context, count: PhysAddr, nr: number): boolean;
  /** One user less; true for the last: it frees the object. */
  decAndTest(ctx: Context, count: PhysAddr): boolean;
  subAndTest(ctx: Context, count: PhysAddr, nr: number): boolean;
  /** One user less, who knows that it is not the last. */
  dec(ctx: Context, count: PhysAddr): void;
  /** One user less unless it is the last: false. */
  decNotOne(ctx: Context, count: PhysAddr): boolean;
  /** Misuses since boot. */
  nrMisuses(): number;
}

export function createRefcounts(port: MemoryPort, image: KernelImage, contexts: ContextTracking): Refcounts {
  /** Kinds that were reported, one bit each; then the number of misuses. */
  const REPORTED = image.bss("refcount_warned", 8, 8);

  const misuse = (ctx: Context, count: PhysAddr, kind: number): void => {
    port.stAtomic(count, REFCOUNT_SATURATED);
    port.fetchAdd(REPORTED + 4, 1);
    const reported = port.ld32(REPORTED);
    if (((reported >>> kind) & 1) === 1) return;
    port.st32(REPORTED, reported | (1 << kind));
    contexts.warn(ctx, "kernel/refcount.ts:misuse", TEXTS[kind] as string);
  };

  /** The word as Linux sees it, an int: negative is the forbidden half. */
  const signed = (word: number): number => word | 0;

  const add = (ctx: Context, count: PhysAddr, nr: number): void => {
    const old = signed(port.fetchAdd(count, nr));
    if (old === 0) misuse(ctx, count, ADD_UAF);
    else if (old < 0 || signed(old + nr) < 0) misuse(ctx, count, ADD_OVF);
  };

  const addNotZero = (ctx: Context, count: PhysAddr, nr: number): boolean => {
    let word = port.ldAtomic(count);
    for (;;) {
      if (word === 0) return false;
      const found = port.cas(count, word, (word + nr) >>> 0);
      if (found === word) break;
      word = found;
    }
    if (signed(word) < 0 || signed(word + nr) < 0) misuse(ctx, count, ADD_NOT_ZERO_OVF);
    return true;
  };

  const subAndTest = (ctx: Context, count: PhysAddr, nr: number): boolean => {
    const old = signed(port.fetchAdd(count, -nr));
    if (old > 0 && old === nr) return true;
    if (old <= 0 || old - nr < 0) misuse(ctx, count, SUB_UAF);
    return false;
  };

  return {
    set: (count, value) => port.stAtomic(count, value),
    read: (count) => port.ldAtomic(count),
    inc: (ctx, count) => add(ctx, count, 1),
    add,
    incNotZero: (ctx, count) => addNotZero(ctx, count, 1),
    addNotZero,
    decAndTest: (ctx, count) => subAndTest(ctx, count, 1),
    subAndTest,
    dec(ctx, count) {
      if (signed(port.fetchAdd(count, -1)) <= 1) misuse(ctx, count, DEC_LEAK);
    },
    decNotOne(ctx, count) {
      let word = port.ldAtomic(count);
      for (;;) {
        if (word === 1) return false;
        if (signed(word) < 0) return true;
        if (word === 0) {
          misuse(ctx, count, SUB_UAF);
          return true;
        }
        const found = port.cas(count, word, word - 1);
        if (found === word) return true;
        word = found;
      }
    },
    nrMisuses: () => port.ld32(REPORTED + 4),
  };
}
