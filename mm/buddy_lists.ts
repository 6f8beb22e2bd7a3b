/**
 * The free lists of one zone: a block on, or off, the list of its order and migrate type.
 *
 * What a list says is said in four places, which change together here and nowhere else: the links and the flags of the
 * block's first frame, the list's count, and the bit of its order in the word of its type (BUD-2, BUD-5, BUD-8). The
 * number of free frames (BUD-6) is moved apart from that, by `account`, as it changes once for a block that is cut in
 * ten pieces on the way out.
 *
 * Locks: the zone's. Cost: O(1).
 */

import type { FrameAllocatorDeps } from "./frame_allocator.ts";
import { MIGRATE_CMA, MIGRATE_ISOLATE, MIGRATE_PCPTYPES, NR_MIGRATETYPES } from "./migratetype.ts";
import {
  MAX_PAGE_ORDER,
  Z_FREE_COUNT,
  Z_NONEMPTY,
  Z_NONEMPTY_ORDINARY,
  Z_NR_FREE,
  Z_NR_FREE_CMA,
  Z_NR_FREE_HIGHATOMIC,
  Z_NR_FREE_LEAST,
  Z_SPANNED,
  Z_START_PFN,
} from "./mmzone.ts";
import { MT_SHIFT, ORDER_MASK, ORDER_SHIFT, orderOfFlags, PG_BUDDY, ZONE_MASK, ZONE_SHIFT } from "./page.ts";

/** Copies for the fast paths: why, see slab_objects.ts. */
const TYPES = NR_MIGRATETYPES;
const PCP_TYPES = MIGRATE_PCPTYPES;
const CMA = MIGRATE_CMA;
const ISOLATED = MIGRATE_ISOLATE;
const TOP_ORDER = MAX_PAGE_ORDER;
const NR_FREE = Z_NR_FREE;
const LEAST_FREE = Z_NR_FREE_LEAST;
const START_PFN = Z_START_PFN;
const SPANNED = Z_SPANNED;
const FREE = PG_BUDDY;
const ORDER_AT = ORDER_SHIFT;
const OF_ORDER = ORDER_MASK;
const TYPE_AT = MT_SHIFT;
const OF_ZONE = ZONE_MASK;

export interface FreeLists {
  /** Flags of a frame of this zone without state. */
  readonly zoneBits: number;
  /** First frame of the zone, and the one behind its last. */
  startPfn(): number;
  endPfn(): number;
  /** Puts a block on the list of (order, type): at the head, or the tail. */
  link(pfn: number, order: number, type: number, toTail: boolean): void;
  /** Takes it off; its flags then say nothing but the zone. */
  unlink(pfn: number, order: number, type: number): void;
  /** First block on a list; 0 if there is none. */
  firstOn(order: number, type: number): number;
  /** The smallest order from `order` up of which `type` has a block; −1 if there is none. */
  smallestOf(order: number, type: number): number;
  /** BUD-6: `nrPages` frames came to, or (negative) left, the lists of `type`. */
  account(nrPages: number, type: number): void;
  /** Remembers the worst moment. */
  noteLeastFree(): void;
  /** True if a free block of exactly `order` of this zone starts at `pfn` (B3): one masked compare. */
  isFreeBlock(pfn: number, order: number): boolean;
  /** First frame of the free block that covers `pfn`; 0 if the frame is not free. O(orders). */
  freeBlockAround(pfn: number): number;
}

/** The lists of the zone that `deps` describes, empty. */
export function createFreeLists(deps: FrameAllocatorDeps): FreeLists {
  const { port, pages, lists, zoneAddr, firstHead } = deps;
  const { rowAt, flagsAt, setFlagsAt } = pages;
  const counts = zoneAddr + Z_FREE_COUNT;
  const nonempty = zoneAddr + Z_NONEMPTY;
  const ordinary = zoneAddr + Z_NONEMPTY_ORDINARY;
  const zoneBits = deps.zone << ZONE_SHIFT;
  const headOf = (order: number, type: number): number => firstHead + order * TYPES + type;
  /** freeCountAddr() of this zone. */
  const countAddr = (order: number, type: number): number => counts + (order * TYPES + type) * 4;

  for (let head = firstHead; head < firstHead + (TOP_ORDER + 1) * TYPES; head++) lists.init(head);

  const markNonempty = (word: number, order: number): void => port.st32(word, port.ld32(word) | (1 << order));
  const markEmpty = (order: number, type: number): void => {
    const word = nonempty + type * 4;
    port.st32(word, port.ld32(word) & ~(1 << order));
    let orders = 0;
    for (let other = 0; other < PCP_TYPES; other++) orders |= port.ld32(nonempty + other * 4);
    port.st32(ordinary, orders);
  };

  const link = (pfn: number, order: number, type: number, toTail: boolean): void => {
    setFlagsAt(rowAt(pfn), zoneBits | FREE | (order << ORDER_AT) | (type << TYPE_AT));
    const count = countAddr(order, type);
    port.st32(count, port.ld32(count) + 1);
    markNonempty(nonempty + type * 4, order);
    if (type < PCP_TYPES) markNonempty(ordinary, order);
    if (toTail) lists.addTail(headOf(order, type), pfn);
    else lists.addHead(headOf(order, type), pfn);
  };

  const unlink = (pfn: number, order: number, type: number): void => {
    lists.remove(pfn);
    const count = countAddr(order, type);
    const left = port.ld32(count) - 1;
    port.st32(count, left);
    if (left === 0) markEmpty(order, type);
    setFlagsAt(rowAt(pfn), zoneBits);
  };

  const firstOn = (order: number, type: number): number => {
    const head = headOf(order, type);
    const row = lists.first(head);
    return row === head ? 0 : row;
  };

  const account = (nrPages: number, type: number): void => {
    if (type === ISOLATED) return;
    port.st32(zoneAddr + NR_FREE, port.ld32(zoneAddr + NR_FREE) + nrPages);
    if (type < PCP_TYPES) return;
    const counter = zoneAddr + (type === CMA ? Z_NR_FREE_CMA : Z_NR_FREE_HIGHATOMIC);
    port.st32(counter, port.ld32(counter) + nrPages);
  };

  const noteLeastFree = (): void => {
    const nrFree = port.ld32(zoneAddr + NR_FREE);
    if (nrFree < port.ld32(zoneAddr + LEAST_FREE)) port.st32(zoneAddr + LEAST_FREE, nrFree);
  };

  const isFreeBlock = (pfn: number, order: number): boolean =>
    (flagsAt(rowAt(pfn)) & (OF_ZONE | FREE | OF_ORDER)) === (zoneBits | FREE | (order << ORDER_AT));

  const smallestOf = (order: number, type: number): number => {
    const orders = port.ld32(nonempty + type * 4) >>> order;
    // The lowest bit that is set.
    return orders === 0 ? -1 : order + 31 - Math.clz32(orders & -orders);
  };

  const freeBlockAround = (pfn: number): number => {
    for (let order = 0; order <= TOP_ORDER; order++) {
      const start = pfn & ~((1 << order) - 1);
      if (start !== 0 && isFreeBlockAtLeast(start, order)) return start;
    }
    return 0;
  };
  const isFreeBlockAtLeast = (pfn: number, order: number): boolean => {
    const flags = flagsAt(rowAt(pfn));
    return (flags & (OF_ZONE | FREE)) === (zoneBits | FREE) && orderOfFlags(flags) >= order;
  };

  return {
    zoneBits,
    startPfn: () => port.ld32(zoneAddr + START_PFN),
    endPfn: () => port.ld32(zoneAddr + START_PFN) + port.ld32(zoneAddr + SPANNED),
    link,
    unlink,
    firstOn,
    smallestOf,
    account,
    noteLeastFree,
    isFreeBlock,
    freeBlockAround,
  };
}
