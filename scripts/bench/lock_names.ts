/**
 * Names for lock words, for people: which lock was contended, or which one a thread is stuck on.
 */

import type { Kernel } from "../../kernel/entry/kernel.ts";
import { CACHE_DEPOT, cacheName, MAX_NR_ZONES, ZONE_NAMES } from "../../mm/index.ts";

/** Address → name of the locks of zones, caches, depots and per-CPU page lists. */
export function lockNames(kernel: Kernel): (readonly [lock: number, name: string])[] {
  const { zones, slab, pcp } = kernel.memory;
  const names: (readonly [number, string])[] = [];
  for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
    names.push([zones.addr(zone), `zone ${ZONE_NAMES[zone] ?? zone}`]);
    for (let cpu = 0; cpu < kernel.machine.config.nrCpus; cpu++) {
      names.push([pcp.lockAddr(cpu, zone), `pcp of CPU ${cpu}, zone ${ZONE_NAMES[zone] ?? zone}`]);
    }
  }
  slab.forEachCache((cache) => {
    const name = cacheName(kernel.machine.port, cache);
    names.push([cache, `cache ${name}`], [cache + CACHE_DEPOT, `depot ${name}`]);
  });
  return names;
}
