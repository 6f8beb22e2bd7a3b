/**
 * The objects of one slab: from an address to its object, and the free list through the free objects.
 *
 *   addr ─▶ frame ─▶ private column ─▶ struct slab ─▶ (addr − base) / size = index ─▶ state byte
 *
 *   struct slab │ free list ─┐   states: L F L F F …          L live, F free, C in a magazine
 *               └────────────┼─────────────────────
 *   slab        │ live │ next ──▶│ live │ next ──▶│ 0 │      links are granules, inside the free objects (S7)
 *
 * A link lies where the object's owner wrote a moment ago, so a stray store after a free breaks it. The state bytes do
 * not lie there: each link is checked against them before it is followed, and a broken list is built anew from them.
 *
 * Context: slabOf, stateOf any; the others under the lock of the slab's cache. O(1), rebuilding O(objects).
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import { listAdd, listDel } from "../kernel/lib/list.ts";
import { asPhys, type Context, fromGranule, type PhysAddr, physAdd, toGranule } from "../kernel/types.ts";
import { EINVAL } from "../kernel/uapi/errno.ts";
import type { Pages } from "./page.ts";
import {
  asCache,
  asSlab,
  CACHE_FLAGS,
  CACHE_FREE_POINTER,
  CACHE_LISTS,
  CACHE_NR_INUSE,
  CACHE_NR_PARTIAL,
  cacheName,
  type KmemCache,
  LIST_FULL,
  liveState,
  NO_CACHE,
  NO_SLAB,
  OBJECT_FREE,
  OBJECT_INTERNAL,
  RAM_GRANULES,
  SLAB_BASE,
  SLAB_CACHE,
  SLAB_FREELIST,
  SLAB_GEOMETRY,
  SLAB_INUSE,
  SLAB_OBJECTS,
  SLAB_SIZE,
  SLAB_STATES,
  type Slab,
  slabListOf,
} from "./slab_descriptor.ts";
import { GEOMETRY_SIZE_SHIFT, objectIndex } from "./slab_layout.ts";
import { hexAddr, type SlabReports } from "./slab_report.ts";

/**
 * Copies for the fast path. V8 folds a constant of the same module into the code; an imported or exported one it loads
 * and checks on every use, and does not know to be an integer (one third of an allocation; 2026, Node 20).
 *
 * `>>> 0` on an address: arithmetic in 32 unsigned bits, as hardware does it, spares an overflow check at each step.
 */
const BASE = SLAB_BASE;
const GEOMETRY = SLAB_GEOMETRY;
const SIZE_AT = GEOMETRY_SIZE_SHIFT;
const STATES = SLAB_STATES;
const GRANULES = RAM_GRANULES;
const indexOfOffset = objectIndex;
const toSlab = asSlab;
const none = NO_SLAB;

export interface SlabObjects {
  /** The slab whose pages hold `addr`; NO_SLAB for any number that is not an address inside a slab. */
  slabOf(addr: number): Slab;
  /** The cache of a slab. */
  cacheOfSlab(slab: Slab): KmemCache;
  /**
   * Address of the state byte of the object that starts at `addr`; 0 when none does. `addr` lies in the slab's pages.
   * One past the last object there is a guard byte that is always OBJECT_FREE.
   */
  stateOf(slab: Slab, addr: number): number;
  /** Threads all objects whose state is OBJECT_FREE onto the free list, in address order. */
  threadFreeList(cache: KmemCache, slab: Slab): void;
  /** Takes the first free object of a slab that is not full; its state becomes OBJECT_LIVE (or _INTERNAL). */
  pop(ctx: Context, cache: KmemCache, slab: Slab): PhysAddr;
  /** Puts an object back; its state becomes OBJECT_FREE. */
  push(cache: KmemCache, slab: Slab, obj: PhysAddr): void;
  /** Head of one of the cache's lists. */
  listHead(cache: KmemCache, list: number): PhysAddr;
  /** Says why `addr` cannot be freed, to `cache` if one was named. −EINVAL. `addr` lies in a slab. */
  reportBadFree(ctx: Context, cache: KmemCache, slab: Slab, addr: number): number;
}

export function createSlabObjects(port: MemoryPort, pages: Pages, reports: SlabReports): SlabObjects {
  const { nrFrames, privateBase } = pages;
  const owners = privateBase >>> 2;

  const slabOf = (addr: number): Slab => {
    const pfn = addr >>> 12;
    if (addr >>> 0 !== addr || pfn >= nrFrames) return none;
    const owner = port.ldWord(owners + pfn) | 0;
    // Negative: PRIVATE_IS_SLAB is set.
    return owner < 0 ? toSlab((owner & GRANULES) * 8) : none;
  };

  const stateOf = (slab: Slab, addr: number): number => {
    const offset = ((addr >>> 0) - port.ld32(slab + BASE)) | 0;
    const geometry = port.ld32(slab + GEOMETRY);
    const index = indexOfOffset(offset, geometry);
    return Math.imul(index, geometry >>> SIZE_AT) === offset ? slab + STATES + index : 0;
  };

  const cacheOfSlab = (slab: Slab): KmemCache => asCache(fromGranule(port.ld32(slab + SLAB_CACHE)));
  const listHead = (cache: KmemCache, list: number): PhysAddr => physAdd(cache, CACHE_LISTS + list * 8);

  /** SLAB-6: moves a slab whose count changed from `before` to `after` to the list where it now belongs. */
  const relist = (cache: KmemCache, slab: Slab, before: number, after: number): void => {
    const objects = port.ld32(slab + SLAB_OBJECTS);
    const from = slabListOf(before, objects);
    const to = slabListOf(after, objects);
    if (from === to) return;
    listDel(port, slab);
    listAdd(port, slab, listHead(cache, to));
    if (from === LIST_FULL) port.st32(cache + CACHE_NR_PARTIAL, port.ld32(cache + CACHE_NR_PARTIAL) + 1);
    else if (to === LIST_FULL) port.st32(cache + CACHE_NR_PARTIAL, port.ld32(cache + CACHE_NR_PARTIAL) - 1);
  };

  const threadFreeList = (cache: KmemCache, slab: Slab): void => {
    const link = port.ld32(cache + CACHE_FREE_POINTER);
    const size = port.ld32(slab + SLAB_SIZE);
    let next = 0;
    for (let index = port.ld32(slab + SLAB_OBJECTS) - 1; index >= 0; index--) {
      if (port.ld8(slab + SLAB_STATES + index) !== OBJECT_FREE) continue;
      const obj = asPhys(port.ld32(slab + SLAB_BASE) + index * size);
      port.st32(obj + link, next);
      next = toGranule(obj);
    }
    port.st32(slab + SLAB_FREELIST, next);
  };

  /** Does `next` end the list when it must (`isLast`), and else name a free object of this slab? */
  const isSound = (slab: Slab, next: number, isLast: boolean): boolean => {
    if (next === 0 || isLast) return next === 0 && isLast;
    const addr = fromGranule(next);
    if (slabOf(addr) !== slab) return false;
    const state = stateOf(slab, addr);
    const guard = slab + SLAB_STATES + port.ld32(slab + SLAB_OBJECTS);
    return state !== 0 && state < guard && port.ld8(state) === OBJECT_FREE;
  };

  const pop = (ctx: Context, cache: KmemCache, slab: Slab): PhysAddr => {
    const link = port.ld32(cache + CACHE_FREE_POINTER);
    const inuse = port.ld32(slab + SLAB_INUSE);
    const isLast = inuse + 1 === port.ld32(slab + SLAB_OBJECTS);
    let obj = fromGranule(port.ld32(slab + SLAB_FREELIST));
    if (!isSound(slab, port.ld32(obj + link), isLast)) {
      reports.objectBug(ctx, slab, obj, "Freechain corrupt", "Free list rebuilt from the object states");
      threadFreeList(cache, slab);
      obj = fromGranule(port.ld32(slab + SLAB_FREELIST));
    }
    bugOn(obj === 0, "SLAB-3: a slab with room has no free object", slab, inuse);
    port.st32(slab + SLAB_FREELIST, port.ld32(obj + link));
    port.st8(stateOf(slab, obj), liveState(port.ld32(cache + CACHE_FLAGS)));
    port.st32(slab + SLAB_INUSE, inuse + 1);
    port.st32(cache + CACHE_NR_INUSE, port.ld32(cache + CACHE_NR_INUSE) + 1);
    relist(cache, slab, inuse, inuse + 1);
    return obj;
  };

  const push = (cache: KmemCache, slab: Slab, obj: PhysAddr): void => {
    const inuse = port.ld32(slab + SLAB_INUSE);
    bugOn(inuse === 0, "SLAB-3: an object comes back to an empty slab", slab, obj);
    port.st32(obj + port.ld32(cache + CACHE_FREE_POINTER), port.ld32(slab + SLAB_FREELIST));
    port.st32(slab + SLAB_FREELIST, toGranule(obj));
    port.st8(stateOf(slab, obj), OBJECT_FREE);
    port.st32(slab + SLAB_INUSE, inuse - 1);
    port.st32(cache + CACHE_NR_INUSE, port.ld32(cache + CACHE_NR_INUSE) - 1);
    relist(cache, slab, inuse, inuse - 1);
  };

  const reportBadFree = (ctx: Context, cache: KmemCache, slab: Slab, addr: number): number => {
    const owner = cacheOfSlab(slab);
    const state = stateOf(slab, addr);
    const guard = slab + SLAB_STATES + port.ld32(slab + SLAB_OBJECTS);
    const fix = `Object at ${hexAddr(addr)} not freed`;
    if (cache !== NO_CACHE && cache !== owner) {
      const [wanted, found] = [cacheName(port, cache), cacheName(port, owner)];
      reports.warning(ctx, `cache_from_obj: Wrong slab cache. ${wanted} but object is from ${found}`);
    } else if (state === 0 || state >= guard || port.ld8(state) === OBJECT_INTERNAL) {
      reports.objectBug(ctx, slab, addr, `Invalid object pointer ${hexAddr(addr)}`, fix);
    } else {
      reports.objectBug(ctx, slab, addr, "Object already free", fix);
    }
    return -EINVAL;
  };

  return { slabOf, cacheOfSlab, stateOf, threadFreeList, pop, push, listHead, reportBadFree };
}
