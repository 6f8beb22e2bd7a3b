/**
 * checkBuddy: walks every frame and every list of a zone and compares them with BUD-1 … BUD-7.
 *
 * The walk over frames is authoritative (page flags), the walk over lists must find the same blocks. O(frames), for
 * tests and `slabtown` consistency checks; allocates nothing in the machine and changes nothing.
 */

import { asPfn } from "../kernel/types.ts";
import type { FrameAllocatorDeps } from "./frame_allocator.ts";
import {
  MIGRATE_CMA,
  MIGRATE_HIGHATOMIC,
  MIGRATE_ISOLATE,
  MIGRATE_PCPTYPES,
  migratetypeIsMergeable,
  NR_MIGRATETYPES,
} from "./migratetype.ts";
import {
  freeCountAddr,
  MAX_PAGE_ORDER,
  NR_PAGE_ORDERS,
  PAGEBLOCK_ORDER,
  Z_NONEMPTY,
  Z_NONEMPTY_ORDINARY,
  Z_NR_FREE,
  Z_NR_FREE_CMA,
  Z_NR_FREE_HIGHATOMIC,
  Z_SPANNED,
  Z_START_PFN,
} from "./mmzone.ts";
import { migratetypeOfFlags, orderOfFlags, PG_ALLOCATED, PG_BUDDY, PG_PCP, PG_STATE, zoneOfFlags } from "./page.ts";

/** The first violated invariant of the zone's buddy as a sentence, or null. */
export function checkBuddy(deps: FrameAllocatorDeps): string | null {
  const counts = new Int32Array(NR_PAGE_ORDERS * NR_MIGRATETYPES);
  return checkFrames(deps, counts) ?? checkLists(deps, counts);
}

/** BUD-1 … BUD-4, BUD-7 by a walk over the frames; fills the block counts per list. */
function checkFrames(deps: FrameAllocatorDeps, counts: Int32Array): string | null {
  const { port, pages, pageblocks, zoneAddr } = deps;
  const start = port.ld32(zoneAddr + Z_START_PFN);
  const end = start + port.ld32(zoneAddr + Z_SPANNED);
  let nrFree = 0;
  let nrFreeCma = 0;
  let nrFreeHighatomic = 0;
  for (let pfn = start; pfn < end; ) {
    const flags = pages.flags(asPfn(pfn));
    if (zoneOfFlags(flags) !== deps.zone) return `BUD-3: frame ${pfn} says zone ${zoneOfFlags(flags)}`;
    const order = orderOfFlags(flags);
    const state = flags & PG_STATE;
    if (state === 0) return `PAGE-1: frame ${pfn} is in no block`;
    if ((state & (state - 1)) !== 0) return `PAGE-1: frame ${pfn} has the states 0x${state.toString(16)}`;
    if (state !== PG_BUDDY && state !== PG_ALLOCATED && state !== PG_PCP) {
      pfn++;
      continue;
    }
    if (order > MAX_PAGE_ORDER || pfn + (1 << order) > end) return `BUD-3: block ${pfn} order ${order} leaves the zone`;
    if (state === PG_BUDDY || state === PG_PCP) {
      if (pfn % (1 << order) !== 0) return `BUD-1: block ${pfn} order ${order} is misaligned`;
    }
    if (state !== PG_ALLOCATED) {
      for (let i = pfn; i < pfn + (1 << order); i++) {
        if (pages.private(asPfn(i)) !== 0) return `PAGE-5: frame ${i} is free and still has a private word`;
        if (pages.mapping(asPfn(i)) !== 0) return `PAGE-5: frame ${i} is free and still has a mapping`;
      }
    }
    for (let i = pfn + 1; i < pfn + (1 << order); i++) {
      if ((pages.flags(asPfn(i)) & PG_STATE) !== 0) return `PAGE-2: frame ${i} inside block ${pfn} has a state`;
    }
    if (state === PG_BUDDY) {
      const type = migratetypeOfFlags(flags);
      const problem = checkFreeBlock(deps, pfn, order, type);
      if (problem !== null) return problem;
      if (order < PAGEBLOCK_ORDER && type !== pageblocks.migratetype(asPfn(pfn))) {
        return `BUD-7: block ${pfn} order ${order} is on list ${type}, its pageblock has another type`;
      }
      counts[order * NR_MIGRATETYPES + type] = (counts[order * NR_MIGRATETYPES + type] as number) + 1;
      if (type !== MIGRATE_ISOLATE) nrFree += 1 << order;
      if (type === MIGRATE_CMA) nrFreeCma += 1 << order;
      if (type === MIGRATE_HIGHATOMIC) nrFreeHighatomic += 1 << order;
    }
    pfn += 1 << order;
  }
  const recordedCma = port.ld32(zoneAddr + Z_NR_FREE_CMA);
  if (nrFreeCma !== recordedCma) return `BUD-6: ${nrFreeCma} CMA frames are free, nr_free_cma says ${recordedCma}`;
  if (nrFreeHighatomic !== port.ld32(zoneAddr + Z_NR_FREE_HIGHATOMIC)) return "BUD-6: nr_free_highatomic";
  const recorded = port.ld32(zoneAddr + Z_NR_FREE);
  return nrFree === recorded ? null : `BUD-6: ${nrFree} frames are free, nr_free says ${recorded}`;
}

/** BUD-4: the buddy of a free block is not free with the same order, unless the two may not merge. */
function checkFreeBlock(deps: FrameAllocatorDeps, pfn: number, order: number, type: number): string | null {
  if (order === MAX_PAGE_ORDER) return null;
  const buddy = pfn ^ (1 << order);
  const flags = deps.pages.flags(asPfn(buddy));
  if ((flags & PG_BUDDY) === 0 || orderOfFlags(flags) !== order || zoneOfFlags(flags) !== deps.zone) return null;
  const other = migratetypeOfFlags(flags);
  const mustMerge =
    order < PAGEBLOCK_ORDER || type === other || (migratetypeIsMergeable(type) && migratetypeIsMergeable(other));
  return mustMerge ? `BUD-4: blocks ${pfn} and ${buddy} of order ${order} are both free` : null;
}

/** BUD-2, BUD-5 by a walk over the lists. */
function checkLists(deps: FrameAllocatorDeps, counts: Int32Array): string | null {
  const { port, pages, lists, zoneAddr, firstHead } = deps;
  let ordinary = 0;
  for (let type = 0; type < MIGRATE_PCPTYPES; type++) ordinary |= port.ld32(zoneAddr + Z_NONEMPTY + type * 4);
  if (ordinary !== port.ld32(zoneAddr + Z_NONEMPTY_ORDINARY)) return "BUD-8: the word of the ordinary types";
  for (let order = 0; order < NR_PAGE_ORDERS; order++) {
    for (let type = 0; type < NR_MIGRATETYPES; type++) {
      const head = firstHead + order * NR_MIGRATETYPES + type;
      const length = lists.count(head);
      const found = counts[order * NR_MIGRATETYPES + type];
      const recorded = port.ld32(freeCountAddr(zoneAddr, order, type));
      if (length !== found || length !== recorded) {
        return `BUD-5: order ${order} type ${type}: list ${length}, frames ${found}, count ${recorded}`;
      }
      const isMarked = ((port.ld32(zoneAddr + Z_NONEMPTY + type * 4) >>> order) & 1) !== 0;
      if (isMarked !== length > 0)
        return `BUD-8: order ${order} type ${type}: ${length} blocks, the bit says otherwise`;
      for (let row = lists.first(head); row !== head; row = lists.next(row)) {
        const flags = pages.flags(asPfn(row));
        if ((flags & PG_BUDDY) === 0 || orderOfFlags(flags) !== order || migratetypeOfFlags(flags) !== type) {
          return `BUD-2: frame ${row} on the list of order ${order} type ${type} has flags 0x${flags.toString(16)}`;
        }
      }
    }
  }
  return null;
}
