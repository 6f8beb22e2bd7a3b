/**
 * Thread caches: chunks of up to 256 bytes that were just freed, kept as they are for the next malloc of that size.
 *
 * Each thread has one last-in-first-out list for each number of units. A chunk in a list is not joined with its
 * neighbours (UNIT_CACHED in the map), so malloc and free of a small object are a pop and a push:
 *
 *     cache │ link to next cache │ head 1 │ head 2 │ … │ head 16 │
 *                                              └→ chunk → chunk → 0        link in a chunk's first word
 *
 * What keeps such a cache small in real allocators is a limit per list. Here it is pressure: before the heap asks
 * the kernel for memory, all caches of all threads are emptied and their chunks joined. So caching costs time at
 * most, never a page. Another thread's list may be touched because a thread of this machine is preempted at its own
 * yields only, and nothing in the allocator yields; elsewhere this would take a lock per cache.
 *
 * A chunk goes to the cache of the thread that frees it, whoever allocated it, and leaves with that thread's next
 * malloc or the next flush: a producer's chunks do not pile up unseen at a consumer.
 *
 *   TC-1  a chunk is UNIT_CACHED if and only if it is in exactly one list, the list of its size
 *
 * Source: glibc malloc's tcache and fastbins; J. Bonwick & J. Adams, "Magazines and Vmem" (2001), for the idea.
 */

import type { UserMemory } from "../kernel/uapi/program.ts";
import type { Arena } from "./umalloc_arena.ts";
import type { Counters } from "./umalloc_counters.ts";
import {
  CACHE_BYTES,
  CACHE_MAX_UNITS,
  ST_CACHES,
  ST_END,
  ST_NR_FLUSHED,
  STATE_OFFSET,
  UNIT_BYTES,
} from "./umalloc_layout.ts";
import { UNIT_CACHED, type UnitMap } from "./umalloc_map.ts";

/** Units of the chunk that a thread's cache lives in. */
export const CACHE_UNITS = CACHE_BYTES / UNIT_BYTES;

/** What take() returns when a link was overwritten. */
export const BROKEN_LIST = -1;

export interface ThreadCache {
  /** Address of a chunk of `units` ≤ CACHE_MAX_UNITS units, in use; 0 if the list is empty; BROKEN_LIST. */
  take(units: number): number;
  /** Caches the chunk in use at `u` of `units` ≤ CACHE_MAX_UNITS units; `word` is its map word. */
  put(u: number, units: number, word: number): void;
  /** Puts this cache, which is at unit `own`, on the list of caches. Its memory is zero. */
  enlist(): void;
  /** Empties this cache and takes it off the list. */
  retire(): void;
  /** Empties the caches of all threads into the arena. False if all were empty. */
  flushAll(): boolean;
}

/** The cache at unit `own` of the heap that starts at `base`. */
export function createThreadCache(
  mem: UserMemory,
  base: number,
  own: number,
  map: UnitMap,
  arena: Arena,
  counters: Counters,
): ThreadCache {
  const lists = base + own * UNIT_BYTES;
  const firstCache = base + STATE_OFFSET + ST_CACHES;
  const endWord = base + STATE_OFFSET + ST_END;

  const flush = (cache: number): boolean => {
    let isEmpty = true;
    for (let units = 1; units <= CACHE_MAX_UNITS; units++) {
      const list = base + cache * UNIT_BYTES + units * 4;
      let u = mem.ld32(list);
      if (u === 0) continue;
      isEmpty = false;
      mem.st32(list, 0);
      const end = mem.ld32(endWord);
      // A link that leads astray ends the list: what hung behind it is lost, but nothing else.
      while (u !== 0 && u < end && map.codeOf(u) === UNIT_CACHED) {
        const next = mem.ld32(base + u * UNIT_BYTES);
        arena.release(u, units);
        u = next;
      }
    }
    return !isEmpty;
  };

  return {
    take(units) {
      const list = lists + units * 4;
      const u = mem.ld32(list);
      if (u === 0) return 0;
      const address = base + u * UNIT_BYTES;
      const wordAddress = map.wordAddress(u);
      const word = mem.ld32(wordAddress);
      const shift = (u & 15) << 1;
      const next = mem.ld32(address);
      if (((word >>> shift) & 3) !== UNIT_CACHED || next >= mem.ld32(endWord)) {
        mem.st32(list, 0);
        return BROKEN_LIST;
      }
      // UNIT_CACHED (3) to UNIT_USED (1), and back in put(): the upper bit of the code.
      mem.st32(wordAddress, (word & ~(2 << shift)) >>> 0);
      mem.st32(list, next);
      return address;
    },
    put(u, units, word) {
      const list = lists + units * 4;
      mem.st32(map.wordAddress(u), (word | (2 << ((u & 15) << 1))) >>> 0);
      mem.st32(base + u * UNIT_BYTES, mem.ld32(list));
      mem.st32(list, u);
    },
    enlist() {
      mem.st32(lists, mem.ld32(firstCache));
      mem.st32(firstCache, own);
    },
    retire() {
      flush(own);
      let link = firstCache;
      while (mem.ld32(link) !== own) link = base + mem.ld32(link) * UNIT_BYTES;
      mem.st32(link, mem.ld32(lists));
    },
    flushAll() {
      let isEmpty = true;
      for (let cache = mem.ld32(firstCache); cache !== 0; cache = mem.ld32(base + cache * UNIT_BYTES)) {
        if (flush(cache)) isEmpty = false;
      }
      if (!isEmpty) counters.count(ST_NR_FLUSHED);
      return !isEmpty;
    },
  };
}
