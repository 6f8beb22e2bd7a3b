/**
 * The depot: a cache's stock of full and of empty magazines, shared by all CPUs.
 *
 *   struct kmem_cache, at CACHE_DEPOT:
 *
 *   | offset | field        | meaning                                               | written under |
 *   |--------|--------------|-------------------------------------------------------|---------------|
 *   | 0      | lock         | spinlock, interrupts off                              |               |
 *   | 4      | magsize      | rounds of this cache's magazines, 0: not cached       | attach        |
 *   | 8      | magazines    | granule of the cache that magazines come from         | attach        |
 *   | 12, 16 | full, nr     | granule of the first full magazine; how many          | depot lock    |
 *   | 20, 24 | empty, nr    | the same for empty ones                               | depot lock    |
 *
 *   full ─▶ magazine ─▶ magazine ─▶ 0        the link is word 0 of the magazine; round i is at 8·i, i = 1 … magsize
 *
 * A CPU that comes for a full magazine leaves an empty one and the other way round, so both steps happen under one
 * lock. The lock is taken at most once per magazine (M4). Both lists are stacks: the hottest magazine goes out first.
 *
 *   DEP-1  a full magazine holds magsize rounds, an empty one none that count
 *   DEP-2  the two counters are the lengths of the two lists
 *
 * Context: interrupts off on this CPU (the caller's cc is half-way between two states). Nothing is allocated here.
 * Source: illumos kmem.c (kmem_depot_alloc, kmem_depot_free).
 */

import { CYC_DEPOT } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { type Context, fromGranule, NULL, type PhysAddr, physAdd, toGranule } from "../kernel/types.ts";
import { asCache, CACHE_DEPOT, type KmemCache } from "./slab_descriptor.ts";

const DEPOT_LOCK = CACHE_DEPOT;
const DEPOT_MAGSIZE = CACHE_DEPOT + 4;
const DEPOT_MAGAZINES = CACHE_DEPOT + 8;
const DEPOT_FULL = CACHE_DEPOT + 12;
const DEPOT_EMPTY = CACHE_DEPOT + 20;
/** Of a list: where its counter is. */
const NR = 4;

/** What magazine.ts knows of a depot; another implementation may do without the lock. */
export interface Depot {
  /** Prepares the depot of a cache: `magsize` rounds, magazines from the cache `magazines`. */
  init(cache: KmemCache, magsize: number, magazines: KmemCache): void;
  /** Rounds of this cache's magazines; 0 if it has no depot. */
  magsize(cache: KmemCache): number;
  /** The cache that this cache's magazines come from. */
  magazines(cache: KmemCache): KmemCache;
  /** A full magazine, leaving `empty` (or nothing, NULL) in its place; NULL, and `empty` stays, if there is none. */
  takeFull(ctx: Context, cache: KmemCache, empty: PhysAddr): PhysAddr;
  /** An empty magazine, leaving `full` (or nothing, NULL) in its place; NULL, and `full` stays, if there is none. */
  takeEmpty(ctx: Context, cache: KmemCache, full: PhysAddr): PhysAddr;
  /** Adds a new empty magazine. */
  addEmpty(ctx: Context, cache: KmemCache, magazine: PhysAddr): void;
  nrFull(cache: KmemCache): number;
  nrEmpty(cache: KmemCache): number;
  /** Calls `visit` for each full, then each empty magazine; DEP-2: the first violation, or null. O(magazines). */
  walk(cache: KmemCache, visit: (magazine: PhysAddr, isFull: boolean) => void): string | null;
}

export function createDepot(machine: Machine, spinlocks: Spinlocks): Depot {
  const { port, harts } = machine;
  const { clock } = harts;
  const { spinLock, spinUnlock } = spinlocks;

  const pushLocked = (cache: KmemCache, list: number, magazine: PhysAddr): void => {
    port.st32(magazine, port.ld32(cache + list));
    port.st32(cache + list, toGranule(magazine));
    port.st32(cache + list + NR, port.ld32(cache + list + NR) + 1);
  };

  /** Takes a magazine from list `from`, and if there was one leaves `other` on list `to`. */
  const exchange = (ctx: Context, cache: KmemCache, from: number, to: number, other: PhysAddr): PhysAddr => {
    // A look without the lock: while a cache grows there is nothing to fetch, and nothing is lost by missing one.
    if (port.ldAtomic(cache + from) === 0) return NULL;
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_DEPOT;
    const lock = physAdd(cache, DEPOT_LOCK);
    spinLock(ctx, lock);
    const taken = fromGranule(port.ld32(cache + from));
    if (taken !== NULL) {
      port.st32(cache + from, port.ld32(taken));
      port.st32(cache + from + NR, port.ld32(cache + from + NR) - 1);
      if (other !== NULL) pushLocked(cache, to, other);
    }
    spinUnlock(ctx, lock);
    return taken;
  };

  const walkList = (cache: KmemCache, list: number, visit: (magazine: PhysAddr) => void): string | null => {
    const nr = port.ld32(cache + list + NR);
    let magazine = fromGranule(port.ld32(cache + list));
    for (let i = 0; i < nr; i++) {
      if (magazine === NULL) return "DEP-2: a list is shorter than its counter";
      visit(magazine);
      magazine = fromGranule(port.ld32(magazine));
    }
    return magazine === NULL ? null : "DEP-2: a list is longer than its counter";
  };

  return {
    init(cache, magsize, magazines) {
      port.fill(cache + CACHE_DEPOT, 0, 64);
      port.st32(cache + DEPOT_MAGSIZE, magsize);
      port.st32(cache + DEPOT_MAGAZINES, toGranule(magazines));
    },
    magsize: (cache) => port.ld32(cache + DEPOT_MAGSIZE),
    magazines: (cache) => asCache(fromGranule(port.ld32(cache + DEPOT_MAGAZINES))),
    takeFull: (ctx, cache, empty) => exchange(ctx, cache, DEPOT_FULL, DEPOT_EMPTY, empty),
    takeEmpty: (ctx, cache, full) => exchange(ctx, cache, DEPOT_EMPTY, DEPOT_FULL, full),
    addEmpty(ctx, cache, magazine) {
      const lock = physAdd(cache, DEPOT_LOCK);
      spinLock(ctx, lock);
      pushLocked(cache, DEPOT_EMPTY, magazine);
      spinUnlock(ctx, lock);
    },
    nrFull: (cache) => port.ld32(cache + DEPOT_FULL + NR),
    nrEmpty: (cache) => port.ld32(cache + DEPOT_EMPTY + NR),
    walk(cache, visit) {
      const fault = walkList(cache, DEPOT_FULL, (magazine) => visit(magazine, true));
      return fault ?? walkList(cache, DEPOT_EMPTY, (magazine) => visit(magazine, false));
    },
  };
}
