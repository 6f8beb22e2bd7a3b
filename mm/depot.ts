/**
 * The depot: a cache's stock of full and of empty magazines, shared by all CPUs.
 *
 *   struct kmem_cache, at CACHE_DEPOT:
 *
 *   | offset | field           | meaning                                                     | written under          |
 *   |--------|-----------------|-------------------------------------------------------------|------------------------|
 *   | 0      | lock            | spinlock, interrupts off                                    |                        |
 *   | 4      | magsize         | rounds of this cache's magazines, 0: not cached             | attach, resize         |
 *   | 8      | magazines       | granule of the cache that magazines come from               | attach, resize         |
 *   | 12     | full            | first full magazine, how many, min, reaplimit (M7)          | depot lock, or atomic  |
 *   | 28     | empty           | the same for empty ones                                     | depot lock, or atomic  |
 *   | 44     | contention      | times that a CPU found the depot in use (M6)                | depot lock, or atomic  |
 *   | 48     | at last tick    | contention at the last tick                                 | tick                   |
 *   | 52     | type            | row of MAGAZINE_TYPES                                       | attach, resize         |
 *   | 56, 60 | slots, free     | depot_lockfree.ts                                           | depot lock             |
 *
 *   full ─▶ magazine ─▶ magazine ─▶ 0        the link is word 0 of the magazine; round i is at 8·i, i = 1 … magsize
 *
 * 1. A CPU that comes for a full magazine leaves an empty one and the other way round. It comes at most once per
 *    magazine (M4). Both lists are stacks: the hottest magazine goes out first, and the coldest stay at the bottom.
 *
 * 2. So the *working set* can be read from the lengths (M7): the least length of a list since the last tick, `min`, is
 *    the number of magazines at its bottom that nobody needed. What was not needed in two intervals running may go:
 *    min(reaplimit, min), where reaplimit is the min of the interval before.
 *
 *      length  ▁▃▅▃▂▃▅▆│▅▃▂▂▃▅│          min of this interval 2, of the one before 1: one magazine may go
 *
 * 3. *Contention* tells that magazines are too small: CPUs meet here. It is counted where a CPU does not get through at
 *    its first try, and magazine_stock.ts makes magazines larger (M6).
 *
 * Two implementations: this file's takes the lock; depot_lockfree.ts swaps the heads by compare-and-swap. The kernel
 * parameter `depot` chooses. The locked one is the default: one atomic operation for an exchange instead of four, no
 * limit to the number of magazines, and nothing to argue about.
 *
 *   DEP-1  a full magazine holds magsize rounds, an empty one none that count
 *   DEP-2  the two counters are the lengths of the two lists, when no CPU is inside
 *   DEP-3  min ≤ length, when no CPU is inside
 *
 * Context: interrupts off on this CPU (the caller's cc is half-way between two states). Only hasRoom() takes memory.
 * Source: illumos kmem.c (kmem_depot_alloc, kmem_depot_free, kmem_depot_ws_update, kmem_depot_ws_reap).
 */

import { CYC_DEPOT } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import type { MemoryPort } from "../kernel/arch/port.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import {
  type Context,
  fromGranule,
  NULL,
  type PhysAddr,
  physAdd,
  type TaskContext,
  toGranule,
} from "../kernel/types.ts";
import { asCache, CACHE_DEPOT, type KmemCache, RAM_GRANULES } from "./slab_descriptor.ts";

export type DepotKind = "locked" | "lockfree";

export const DEPOT_LOCK = CACHE_DEPOT;
const DEPOT_MAGSIZE = CACHE_DEPOT + 4;
const DEPOT_MAGAZINES = CACHE_DEPOT + 8;
export const DEPOT_FULL = CACHE_DEPOT + 12;
export const DEPOT_EMPTY = CACHE_DEPOT + 28;
export const DEPOT_CONTENTION = CACHE_DEPOT + 44;
const DEPOT_CONTENTION_BEFORE = CACHE_DEPOT + 48;
const DEPOT_TYPE = CACHE_DEPOT + 52;
export const DEPOT_SLOTS = CACHE_DEPOT + 56;
export const DEPOT_FREE_SLOT = CACHE_DEPOT + 60;
/** Of a list: its length, the least length since the last tick, and that of the interval before. */
export const LIST_NR = 4;
export const LIST_MIN = 8;
const LIST_REAPLIMIT = 12;

/** Copies for the exchange of magazines: why, see slab_objects.ts. */
const LOCK = DEPOT_LOCK;
const CONTENTION = DEPOT_CONTENTION;
const FULL_LIST = DEPOT_FULL;
const EMPTY_LIST = DEPOT_EMPTY;
const NR = LIST_NR >>> 2;
const LEAST = LIST_MIN >>> 2;
const GRANULES = RAM_GRANULES;
const NOTHING = NULL;
const DEPOT_CYCLES = CYC_DEPOT;
const toLink = toGranule;
const addTo = physAdd;

/** Which list. */
export const FULL = true;
export const EMPTY = false;

/** What of a depot does not depend on how its lists are guarded. */
export interface DepotRecord {
  /** Prepares the depot of a cache, with empty lists: row `type` of MAGAZINE_TYPES, magazines from `magazines`. */
  init(cache: KmemCache, type: number, magsize: number, magazines: KmemCache): void;
  type(cache: KmemCache): number;
  /** Rounds of this cache's magazines; 0 if it has no depot. */
  magsize(cache: KmemCache): number;
  /** The cache that this cache's magazines come from. */
  magazines(cache: KmemCache): KmemCache;
  nrFull(cache: KmemCache): number;
  nrEmpty(cache: KmemCache): number;
  /** M7: magazines of a list that may be destroyed. */
  nrReapable(cache: KmemCache, isFull: boolean): number;
  /** M7: ends an interval; all of both lists become reapable if `everything`. */
  updateWorkingSet(cache: KmemCache, everything: boolean): void;
  /** M6: how often a CPU found the depot in use since the last call, and since creation. */
  takeContention(cache: KmemCache): number;
  contention(cache: KmemCache): number;
}

/** What magazine.ts knows of a depot. */
export interface Depot extends DepotRecord {
  /** Makes what all depots need together. Before the first init(). */
  prepare(ctx: TaskContext): void;
  /** May the cache have another magazine? Interrupts as they are; may take memory, and does not sleep. */
  hasRoom(ctx: Context, cache: KmemCache): boolean;
  /** Makes a new magazine of the cache known; false, and it is to be given back, if the depot can have no more. */
  adopt(ctx: Context, cache: KmemCache, magazine: PhysAddr): boolean;
  /** Forgets a magazine that is on no list. */
  disown(ctx: Context, cache: KmemCache, magazine: PhysAddr): void;
  /** Gives back what a depot still has whose cache has no magazine. No other CPU is inside. */
  release(ctx: Context, cache: KmemCache): void;
  /** A full magazine, leaving `empty` (or nothing, NULL) in its place; NULL, and `empty` stays, if there is none. */
  takeFull(ctx: Context, cache: KmemCache, empty: PhysAddr): PhysAddr;
  /** An empty magazine, leaving `full` (or nothing, NULL) in its place; NULL, and `full` stays, if there is none. */
  takeEmpty(ctx: Context, cache: KmemCache, full: PhysAddr): PhysAddr;
  /** Adds a new empty magazine. */
  addEmpty(ctx: Context, cache: KmemCache, magazine: PhysAddr): void;
  /** Calls `visit` for each full, then each empty magazine; the first violation of DEP-2 … DEP-4, or null. */
  walk(cache: KmemCache, visit: (magazine: PhysAddr, isFull: boolean) => void): string | null;
}

const listOf = (isFull: boolean): number => (isFull ? DEPOT_FULL : DEPOT_EMPTY);

export function createDepotRecord(port: MemoryPort): DepotRecord {
  // Signed: a lock-free taker may be counted a moment before the giver.
  const nrOf = (cache: KmemCache, list: number): number => Math.max(port.ldAtomic(cache + list + LIST_NR) | 0, 0);
  const contention = (cache: KmemCache): number => port.ldAtomic(cache + DEPOT_CONTENTION);
  return {
    init(cache, type, magsize, magazines) {
      port.fill(cache + CACHE_DEPOT, 0, 64);
      port.st32(cache + DEPOT_TYPE, type);
      port.st32(cache + DEPOT_MAGSIZE, magsize);
      port.st32(cache + DEPOT_MAGAZINES, toGranule(magazines));
    },
    type: (cache) => port.ld32(cache + DEPOT_TYPE),
    magsize: (cache) => port.ld32(cache + DEPOT_MAGSIZE),
    magazines: (cache) => asCache(fromGranule(port.ld32(cache + DEPOT_MAGAZINES))),
    nrFull: (cache) => nrOf(cache, DEPOT_FULL),
    nrEmpty: (cache) => nrOf(cache, DEPOT_EMPTY),
    nrReapable(cache, isFull) {
      const list = cache + listOf(isFull);
      return Math.min(port.ldAtomic(list + LIST_REAPLIMIT), port.ldAtomic(list + LIST_MIN));
    },
    updateWorkingSet(cache, everything) {
      for (const list of [DEPOT_FULL, DEPOT_EMPTY]) {
        const nr = nrOf(cache, list);
        port.stAtomic(cache + list + LIST_REAPLIMIT, everything ? nr : port.ldAtomic(cache + list + LIST_MIN));
        port.stAtomic(cache + list + LIST_MIN, nr);
      }
    },
    takeContention(cache) {
      const rise = contention(cache) - port.ld32(cache + DEPOT_CONTENTION_BEFORE);
      port.st32(cache + DEPOT_CONTENTION_BEFORE, contention(cache));
      return rise;
    },
    contention,
  };
}

/** DEP-2 and DEP-3 of one list whose links lead to `length` magazines (−1: to more than are counted). */
export function lengthViolation(port: MemoryPort, cache: KmemCache, list: number, length: number): string | null {
  const nr = port.ld32(cache + list + LIST_NR);
  if (length !== nr) return `DEP-2: a list is ${length >= 0 ? "shorter" : "longer"} than its counter`;
  return port.ld32(cache + list + LIST_MIN) <= nr ? null : "DEP-3: the least length is above the length";
}

/** The depot whose lists are guarded by a lock. */
export function createLockedDepot(machine: Machine, spinlocks: Spinlocks): Depot {
  const { port, harts } = machine;
  const { clock } = harts;
  const { spinLock, spinTryLock, spinUnlock } = spinlocks;

  /** M6: a lock that is not free at the first try counts. */
  const lockDepot = (ctx: Context, cache: KmemCache): PhysAddr => {
    const lock = addTo(cache, LOCK);
    if (spinTryLock(ctx, lock)) return lock;
    spinLock(ctx, lock);
    port.st32(cache + CONTENTION, port.ld32(cache + CONTENTION) + 1);
    return lock;
  };

  /** `list`: number of the first word of a list. */
  const pushLocked = (list: number, magazine: PhysAddr): void => {
    port.stWord(magazine >>> 2, port.ldWord(list));
    port.stWord(list, toLink(magazine));
    port.stWord(list + NR, port.ldWord(list + NR) + 1);
  };

  const popLocked = (list: number): PhysAddr => {
    const first = port.ldWord(list) & GRANULES;
    if (first === 0) return NOTHING;
    const nr = port.ldWord(list + NR) - 1;
    port.stWord(list, port.ldWord(first * 2));
    port.stWord(list + NR, nr);
    if (nr < port.ldWord(list + LEAST)) port.stWord(list + LEAST, nr);
    return (first * 8) as PhysAddr;
  };

  /** Takes a magazine from list `from`, and if there was one leaves `other` on list `to`. */
  const exchange = (ctx: Context, cache: KmemCache, from: number, to: number, other: PhysAddr): PhysAddr => {
    // A look without the lock: while a cache grows there is nothing to fetch, and nothing is lost by missing one.
    if (port.ldAtomic(cache + from) === 0) return NOTHING;
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + DEPOT_CYCLES;
    const lock = lockDepot(ctx, cache);
    const taken = popLocked((cache + from) >>> 2);
    if (taken !== NOTHING && other !== NOTHING) pushLocked((cache + to) >>> 2, other);
    spinUnlock(ctx, lock);
    return taken;
  };

  const walkList = (cache: KmemCache, list: number, visit: (magazine: PhysAddr) => void): string | null => {
    const nr = port.ld32(cache + list + LIST_NR) | 0;
    let length = 0;
    let magazine = fromGranule(port.ld32(cache + list));
    for (; magazine !== NOTHING && length < nr; length++) {
      visit(magazine);
      magazine = fromGranule(port.ld32(magazine));
    }
    return lengthViolation(port, cache, list, magazine === NOTHING ? length : -1);
  };

  return {
    ...createDepotRecord(port),
    prepare: () => {},
    hasRoom: () => true,
    adopt: () => true,
    disown: () => {},
    release: () => {},
    takeFull: (ctx, cache, empty) => exchange(ctx, cache, FULL_LIST, EMPTY_LIST, empty),
    takeEmpty: (ctx, cache, full) => exchange(ctx, cache, EMPTY_LIST, FULL_LIST, full),
    addEmpty(ctx, cache, magazine) {
      const lock = addTo(cache, LOCK);
      spinLock(ctx, lock);
      pushLocked((cache + DEPOT_EMPTY) >>> 2, magazine);
      spinUnlock(ctx, lock);
    },
    walk(cache, visit) {
      const fault = walkList(cache, DEPOT_FULL, (magazine) => visit(magazine, FULL));
      return fault ?? walkList(cache, DEPOT_EMPTY, (magazine) => visit(magazine, EMPTY));
    },
  };
}

if (DEPOT_FREE_SLOT + 4 > CACHE_DEPOT + 64) throw new Error("depot: the record is too long");
