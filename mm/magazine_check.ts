/**
 * The per-CPU record of magazines, read: statistics, and the audit of MAG-1 … MAG-4 and MAG-6 (magazine.ts).
 *
 * Context: no CPU is inside the allocator. O(objects) per cache.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { fromGranule, type PhysAddr } from "../kernel/types.ts";
import type { Depot } from "./depot.ts";
import {
  CC_ALLOC_MISSES,
  CC_ALLOCS,
  CC_EMPTY_LOADS,
  CC_FREE_MISSES,
  CC_FREES,
  CC_FULL_LOADS,
  CC_HAND,
  CC_LOADED,
  CC_MAGSIZE,
  CC_PREVIOUS,
  CC_PROUNDS,
  HAND_NONE,
  HAND_ROOM,
  loadedRounds,
  MAGAZINE_ROUND_BYTES,
  unfoldedOperations,
} from "./magazine_cpu.ts";
import type { CpuCacheStats, ObjectCacheStats } from "./object_cache.ts";
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

/** States of an object that neither slab nor magazine can hand out. */
const NOT_AT_HAND: readonly number[] = [OBJECT_LIVE, OBJECT_INTERNAL, OBJECT_POOLED];

export interface MagazineCheck {
  stats(cache: KmemCache): ObjectCacheStats;
  cpuStats(cache: KmemCache, cpu: number): CpuCacheStats;
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
      contention: depot.contention(cache),
    };
  };

  const cpuStats = (cache: KmemCache, cpu: number): CpuCacheStats => {
    const cc = ccOf(cache, cpu);
    return {
      allocHits: port.ldF64(cc + CC_ALLOCS) + unfoldedOperations(port, cc, true),
      allocMisses: port.ld32(cc + CC_ALLOC_MISSES),
      freeHits: port.ldF64(cc + CC_FREES) + unfoldedOperations(port, cc, false),
      freeMisses: port.ld32(cc + CC_FREE_MISSES),
      cached: roundsIn(cc),
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
    const nrMisses = sumOverCpus((cc) => port.ld32(cc + CC_ALLOC_MISSES), cache);
    if (depot.magsize(cache) !== 0 && nrMisses < port.ldF64(cache + CACHE_SLAB_ALLOCS)) return "MAG-12: misses";
    if (countStates(cache, OBJECT_CACHED) !== cached) return "MAG-6: objects are cached that are in no magazine";
    return live + cached === port.ld32(cache + CACHE_NR_INUSE) ? null : "MAG-6: live + cached";
  };

  return {
    stats,
    cpuStats,
    check(cache) {
      const seen = new Set<number>();
      const fault = checkMagazines(cache, seen) ?? checkIdentities(cache, seen.size);
      return fault === null ? slabs.check(cache) : `cache ${cacheName(port, cache)}: ${fault}`;
    },
  };
}
