/**
 * The slab auditor: walks every list, slab, free list and state of a cache and proves SLAB-1 … SLAB-10.
 *
 * Nothing here is believed because a counter says so: counters are compared with what the walk finds. A walk ends on
 * any content of memory (list.ts: checkList; free lists are followed at most as many steps as there are objects).
 * Context: no CPU is inside the allocator. O(objects) per cache, O(frames) for the frames.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { checkList, listNext } from "../kernel/lib/list.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { asPfn, fromGranule, pfnToPhys, toGranule } from "../kernel/types.ts";
import { type Pages, PG_SLAB } from "./page.ts";
import {
  asSlab,
  CACHE_ALIGN,
  CACHE_CTOR_CALLS,
  CACHE_FLAGS,
  CACHE_FLUSHED,
  CACHE_FREE_POINTER,
  CACHE_HAS_CTOR,
  CACHE_NR_INUSE,
  CACHE_NR_PARTIAL,
  CACHE_NR_SLABS,
  CACHE_OBJECTS,
  CACHE_ORDER,
  CACHE_SIZE,
  CACHE_SLAB_ALLOCS,
  CACHE_SLAB_FREES,
  CACHE_SLABS_CREATED,
  CACHE_SLABS_DESTROYED,
  cacheName,
  type KmemCache,
  LIST_EMPTY,
  LIST_FULL,
  NR_SLAB_LISTS,
  OBJECT_FREE,
  OBJECT_POOLED,
  PRIVATE_IS_SLAB,
  SLAB_BASE,
  SLAB_CACHE,
  SLAB_FREELIST,
  SLAB_INUSE,
  SLAB_OBJECTS,
  SLAB_PFN,
  SLAB_STATES,
  type Slab,
  slabListOf,
} from "./slab_descriptor.ts";
import type { SlabObjects } from "./slab_objects.ts";

export interface SlabCheck {
  /** The first violation of a rule by this cache, or null. */
  check(cache: KmemCache): string | null;
  /** Number of objects of the cache whose state is `state`. */
  countStates(cache: KmemCache, state: number): number;
  /** Number of frames that are marked as part of a slab. O(frames). */
  countSlabFrames(): number;
}

export function createSlabCheck(port: MemoryPort, pages: Pages, objects: SlabObjects): SlabCheck {
  const { listHead, stateOf } = objects;

  const checkGeometry = (cache: KmemCache, slab: Slab): string | null => {
    const start = pfnToPhys(asPfn(port.ld32(slab + SLAB_PFN)));
    const nrPages = 2 ** port.ld32(cache + CACHE_ORDER);
    const base = port.ld32(slab + SLAB_BASE);
    const end = base + port.ld32(slab + SLAB_OBJECTS) * port.ld32(cache + CACHE_SIZE);
    if (port.ld32(slab + SLAB_CACHE) !== toGranule(cache)) return "SLAB-2: the slab names another cache";
    if (port.ld32(slab + SLAB_OBJECTS) !== port.ld32(cache + CACHE_OBJECTS)) return "SLAB-1: wrong number of objects";
    if (base < start || end > start + nrPages * PAGE_SIZE) return "SLAB-1: objects outside the slab";
    if (base % port.ld32(cache + CACHE_ALIGN) !== 0) return "SLAB-1: objects are misaligned";
    for (let pfn = start / PAGE_SIZE; pfn < start / PAGE_SIZE + nrPages; pfn++) {
      if ((pages.flags(asPfn(pfn)) & PG_SLAB) === 0) return "SLAB-2: a frame of a slab is not marked";
      if (pages.private(asPfn(pfn)) !== (toGranule(slab) | PRIVATE_IS_SLAB) >>> 0)
        return "SLAB-2: a frame names another slab";
    }
    return null;
  };

  const countInSlab = (slab: Slab, state: number): number => {
    let n = 0;
    const nrObjects = port.ld32(slab + SLAB_OBJECTS);
    for (let i = 0; i < nrObjects; i++) if (port.ld8(slab + SLAB_STATES + i) === state) n++;
    return n;
  };

  const checkStates = (cache: KmemCache, slab: Slab): string | null => {
    const nrObjects = port.ld32(slab + SLAB_OBJECTS);
    const nrFree = countInSlab(slab, OBJECT_FREE);
    for (let i = 0; i < nrObjects; i++) {
      if (port.ld8(slab + SLAB_STATES + i) > OBJECT_POOLED) return "SLAB-3: a state that does not exist";
    }
    if (port.ld8(slab + SLAB_STATES + nrObjects) !== 0) return "SLAB-10: the guard behind the states is set";
    if (nrFree !== nrObjects - port.ld32(slab + SLAB_INUSE)) return "SLAB-3: in use differs from the states";
    let granule = port.ld32(slab + SLAB_FREELIST);
    for (let n = 0; n < nrFree; n++) {
      const addr = fromGranule(granule);
      const state = objects.slabOf(addr) === slab ? stateOf(slab, addr) : 0;
      if (state === 0) return "SLAB-4: the free list leaves the slab's objects";
      if (port.ld8(state) !== OBJECT_FREE) return "SLAB-4: the free list visits an object that is not free";
      granule = port.ld32(addr + port.ld32(cache + CACHE_FREE_POINTER));
    }
    return granule === 0 ? null : "SLAB-4: the free list is longer than the number of free objects";
  };

  const forEachSlab = (cache: KmemCache, visit: (slab: Slab, list: number) => string | null): string | null => {
    for (let list = LIST_EMPTY; list < NR_SLAB_LISTS; list++) {
      const head = listHead(cache, list);
      const broken = checkList(port, head);
      if (broken !== null) return broken;
      for (let node = listNext(port, head); node !== head; node = listNext(port, node)) {
        const fault = visit(asSlab(node), list);
        if (fault !== null) return fault;
      }
    }
    return null;
  };

  const checkCounters = (cache: KmemCache, nrSlabs: number, nrPartial: number, inuse: number): string | null => {
    const counter = (offset: number): number => port.ldF64(cache + offset);
    if (port.ld32(cache + CACHE_NR_SLABS) !== nrSlabs) return "SLAB-8: nr_slabs";
    if (port.ld32(cache + CACHE_NR_PARTIAL) !== nrPartial) return "SLAB-6: nr_partial";
    if (port.ld32(cache + CACHE_NR_INUSE) !== inuse) return "SLAB-8: objects in use";
    if (counter(CACHE_SLAB_ALLOCS) - counter(CACHE_SLAB_FREES) - counter(CACHE_FLUSHED) !== inuse) {
      return "SLAB-8: allocs − frees − flushed";
    }
    if (counter(CACHE_SLABS_CREATED) - counter(CACHE_SLABS_DESTROYED) !== nrSlabs) return "SLAB-8: created − destroyed";
    const hasCtor = (port.ld32(cache + CACHE_FLAGS) & CACHE_HAS_CTOR) !== 0;
    const nrCalls = hasCtor ? counter(CACHE_SLABS_CREATED) * port.ld32(cache + CACHE_OBJECTS) : 0;
    return counter(CACHE_CTOR_CALLS) === nrCalls ? null : "SLAB-7: constructor calls";
  };

  const checkCache = (cache: KmemCache): string | null => {
    let [nrSlabs, nrPartial, inuse] = [0, 0, 0];
    const fault = forEachSlab(cache, (slab, list) => {
      const used = port.ld32(slab + SLAB_INUSE);
      nrSlabs++;
      if (list !== LIST_FULL) nrPartial++;
      inuse += used;
      if (slabListOf(used, port.ld32(slab + SLAB_OBJECTS)) !== list) return "SLAB-6: a slab is on the wrong list";
      return checkGeometry(cache, slab) ?? checkStates(cache, slab);
    });
    if (port.ld32(cache) !== 0) return "the lock is taken";
    return fault ?? checkCounters(cache, nrSlabs, nrPartial, inuse);
  };

  return {
    check(cache) {
      const fault = checkCache(cache);
      return fault === null ? null : `cache ${cacheName(port, cache)}: ${fault}`;
    },
    countStates(cache, state) {
      let n = 0;
      forEachSlab(cache, (slab) => {
        n += countInSlab(slab, state);
        return null;
      });
      return n;
    },
    countSlabFrames() {
      let n = 0;
      for (let pfn = 0; pfn < pages.nrFrames; pfn++) if ((pages.flags(asPfn(pfn)) & PG_SLAB) !== 0) n++;
      return n;
    },
  };
}
