/**
 * The per-CPU record of magazines, read: statistics, and the audit of MAG-1 … MAG-4 and MAG-6 (magazine.ts).
 *
 * Context: no CPU is inside the allocator. O(objects) per cache.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import type { MemoryPort } from "../kernel/arch/port.ts";
import { fromGranule, type PhysAddr } from "../kernel/types.ts";
import type { Depot } from "./depot.ts";
import type { ObjectCacheStats } from "./object_cache.ts";
import type { Pages } from "./page.ts";
import { createSlabCheck } from "./slab_check.ts";
import {
  CACHE_CC,
  CACHE_NR_INUSE,
  CACHE_SLAB_ALLOCS,
  CACHE_SLAB_FREES,
  CC_SHIFT,
  cacheName,
  type KmemCache,
  OBJECT_CACHED,
  OBJECT_INTERNAL,
  OBJECT_LIVE,
  OBJECT_POOLED,
} from "./slab_descriptor.ts";
import type { SlabLayer } from "./slab_layer.ts";
import type { SlabObjects } from "./slab_objects.ts";

export const CC_LOADED = 0;
export const CC_HAND = 4;
export const CC_PREVIOUS = 8;
export const CC_PROUNDS = 12;
export const CC_MAGSIZE = 16;
export const CC_FIRST_ROUNDS = 20;
export const CC_ALLOCS = 24;
export const CC_FREES = 32;
export const CC_FULL_LOADS = 40;
export const CC_EMPTY_LOADS = 48;

// ── The word CC_HAND (MAG-8) ───────────────────────────────────────────────────────────────────────────────────────

/** Fields: bits 0-7 rounds, 8-15 room, 16-30 operations; bit 31 sends the next operation to the slow path. */
export const HAND_ROUNDS = 0xff;
export const HAND_ROOM = 0xff00;
export const HAND_ROOM_ONE = 0x100;
export const HAND_ONE_OPERATION = 0x1_0000;
export const HAND_OPERATIONS_SHIFT = 16;
/** No magazine is loaded: negative, and so is a word whose operations have run over. */
export const HAND_NONE = -1;

/** Rounds of the loaded magazine of a per-CPU record; −1 when there is none. */
export const loadedRounds = (port: MemoryPort, cc: number): number =>
  port.ld32(cc + CC_LOADED) === 0 ? -1 : port.ld32(cc + CC_HAND) & HAND_ROUNDS;

/** Operations since the word was last folded into the counters: allocations (`isAlloc`) or frees. */
export function unfoldedOperations(port: MemoryPort, cc: number, isAlloc: boolean): number {
  if (port.ld32(cc + CC_LOADED) === 0) return 0;
  const hand = port.ld32(cc + CC_HAND);
  const gained = (hand & HAND_ROUNDS) - port.ld32(cc + CC_FIRST_ROUNDS);
  // frees + allocs = operations, frees − allocs = rounds gained
  return ((hand >>> HAND_OPERATIONS_SHIFT) + (isAlloc ? -gained : gained)) / 2;
}

/** Round i of a magazine is at i times this, i ≥ 1: granule of the object, address of its state byte. */
export const MAGAZINE_ROUND_BYTES = 8;

/** States of an object that neither slab nor magazine can hand out. */
const NOT_AT_HAND: readonly number[] = [OBJECT_LIVE, OBJECT_INTERNAL, OBJECT_POOLED];

export interface MagazineCheck {
  stats(cache: KmemCache): ObjectCacheStats;
  check(cache: KmemCache): string | null;
}

export function createMagazineCheck(
  machine: Machine,
  pages: Pages,
  slabs: SlabLayer,
  objects: SlabObjects,
  depot: Depot,
): MagazineCheck {
  const { port } = machine;
  const { nrCpus } = machine.config;
  const { countStates } = createSlabCheck(port, pages, objects);
  const ccOf = (cache: KmemCache, cpu: number): number => cache + CACHE_CC + (cpu << CC_SHIFT);

  const sumOverCpus = (read: (cc: number) => number, cache: KmemCache): number => {
    let sum = 0;
    for (let cpu = 0; cpu < nrCpus; cpu++) sum += read(ccOf(cache, cpu));
    return sum;
  };
  const roundsIn = (cc: number): number =>
    Math.max(loadedRounds(port, cc), 0) + Math.max(port.ld32(cc + CC_PROUNDS) | 0, 0);

  const magazinesIn = (cc: number): number =>
    (port.ld32(cc + CC_LOADED) === 0 ? 0 : 1) + (port.ld32(cc + CC_PREVIOUS) === 0 ? 0 : 1);

  const stats = (cache: KmemCache): ObjectCacheStats => {
    const magazineSize = depot.magsize(cache);
    const nrFull = depot.nrFull(cache);
    return {
      cached: sumOverCpus(roundsIn, cache) + nrFull * magazineSize,
      cpuAllocs: sumOverCpus((cc) => port.ldF64(cc + CC_ALLOCS) + unfoldedOperations(port, cc, true), cache),
      cpuFrees: sumOverCpus((cc) => port.ldF64(cc + CC_FREES) + unfoldedOperations(port, cc, false), cache),
      fullLoads: sumOverCpus((cc) => port.ldF64(cc + CC_FULL_LOADS), cache),
      emptyLoads: sumOverCpus((cc) => port.ldF64(cc + CC_EMPTY_LOADS), cache),
      nrFull,
      nrEmpty: depot.nrEmpty(cache),
      magazineSize,
      magazines: sumOverCpus(magazinesIn, cache) + nrFull + depot.nrEmpty(cache),
    };
  };

  /** MAG-1, MAG-3 for one CPU. */
  const checkCpu = (cc: number, magsize: number): string | null => {
    const [rounds, prounds] = [loadedRounds(port, cc), port.ld32(cc + CC_PROUNDS) | 0];
    const hand = port.ld32(cc + CC_HAND);
    if (port.ld32(cc + CC_MAGSIZE) !== magsize) return "MAG-1: a CPU has another magazine size";
    if (magsize === 0) return null;
    if (rounds < 0 && (hand | 0) !== HAND_NONE) return "MAG-1: rounds without a magazine";
    if (rounds >= 0 && rounds + ((hand & HAND_ROOM) >>> 8) !== magsize) return "MAG-8: rounds + room";
    if (prounds < 0 !== (port.ld32(cc + CC_PREVIOUS) === 0)) return "MAG-1: previous rounds without a magazine";
    if (rounds > magsize || prounds > magsize || rounds < -1 || prounds < -1) return "MAG-1: too many rounds";
    return prounds > 0 && prounds < magsize ? "MAG-3: previous is neither full nor empty" : null;
  };

  /** MAG-2: the rounds of one magazine are distinct cached objects of `cache`; they are added to `seen`. */
  const checkRounds = (cache: KmemCache, magazine: PhysAddr, rounds: number, seen: Set<number>): string | null => {
    if (slabs.cacheOf(magazine) !== depot.magazines(cache)) return "MAG-4: a magazine of another cache";
    for (let i = 1; i <= rounds; i++) {
      const obj = fromGranule(port.ld32(magazine + i * MAGAZINE_ROUND_BYTES));
      const slab = objects.slabOf(obj);
      if (slab === 0 || objects.cacheOfSlab(slab) !== cache) return "MAG-2: a round is no object of this cache";
      const state = objects.stateOf(slab, obj);
      if (state === 0 || port.ld8(state) !== OBJECT_CACHED) return "MAG-2: a round is not in state CACHED";
      if (port.ld32(magazine + i * MAGAZINE_ROUND_BYTES + 4) !== state) return "MAG-2: a round names another state";
      if (seen.has(obj)) return "MAG-2: an object is a round twice";
      seen.add(obj);
    }
    return null;
  };

  const checkMagazines = (cache: KmemCache, seen: Set<number>): string | null => {
    const magsize = depot.magsize(cache);
    let fault: string | null = null;
    const look = (magazine: number, rounds: number): void => {
      if (magazine !== 0) fault ??= checkRounds(cache, magazine as PhysAddr, rounds, seen);
    };
    for (let cpu = 0; cpu < nrCpus; cpu++) {
      const cc = ccOf(cache, cpu);
      fault ??= checkCpu(cc, magsize);
      look(port.ld32(cc + CC_LOADED), loadedRounds(port, cc));
      look(port.ld32(cc + CC_PREVIOUS), port.ld32(cc + CC_PROUNDS) | 0);
    }
    const broken = depot.walk(cache, (magazine, isFull) => look(magazine, isFull ? magsize : 0));
    return fault ?? broken;
  };

  const checkIdentities = (cache: KmemCache, nrRounds: number): string | null => {
    const { cached, cpuAllocs, cpuFrees } = stats(cache);
    const live = NOT_AT_HAND.reduce((sum, state) => sum + countStates(cache, state), 0);
    const nrAllocs = cpuAllocs + port.ldF64(cache + CACHE_SLAB_ALLOCS);
    if (nrAllocs - cpuFrees - port.ldF64(cache + CACHE_SLAB_FREES) !== live) return "MAG-6: allocs − frees";
    if (cached !== nrRounds) return "MAG-6: cached";
    if (countStates(cache, OBJECT_CACHED) !== cached) return "MAG-6: objects are cached that are in no magazine";
    return live + cached === port.ld32(cache + CACHE_NR_INUSE) ? null : "MAG-6: live + cached";
  };

  return {
    stats,
    check(cache) {
      const seen = new Set<number>();
      const fault = checkMagazines(cache, seen) ?? checkIdentities(cache, seen.size);
      return fault === null ? slabs.check(cache) : `cache ${cacheName(port, cache)}: ${fault}`;
    },
  };
}
