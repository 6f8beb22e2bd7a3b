/**
 * The LRU lists: pages of processes and files in the order in which they are likely to be missed least.
 *
 *        add ──▶ head                                              tail ──▶ looked at first by reclaim
 *      active      [p]─[p]─[p]─[p]─[p]─[p] ── deactivate ──┐
 *                        ▲                                  ▼
 *      inactive     activate ──────── [p]─[p]─[p]─[p]─[p]─[p] ──▶ isolate ──▶ written out, freed
 *
 * 1. Two lists are a clock with two hands. A page starts on the inactive list; if it has been used when it comes to
 *    the tail, it goes to the active list (second chance), else it is reclaimed. Pages leave the active list by its
 *    tail again. One used once, by a scan over much memory, never pushes out what is used often.
 *
 * 2. Anonymous pages and pages of files have a pair each: what it costs to bring one back differs, and reclaim chooses
 *    how many to take of each (vmscan.ts). Pages that must not go, locked ones, stand on a list that nobody scans.
 *
 * 3. Each zone has its own five lists: reclaim for a zone that is short must find pages of that zone. The heads are
 *    rows of struct page (page_list.ts); lock and lengths are in struct zone.
 *
 * 4. How a zone's evictable pages are cut into lists is an LruOrder: the pairs above, or generations (lru_gen.ts). What
 *    is counted are five lists in any case.
 *
 *   LRU-1  PG_LRU ⇔ the page is on exactly one list, the one that its flags PG_UNEVICTABLE, PG_SWAPBACKED, PG_ACTIVE
 *          and its zone say; these flags of a page on a list change only here
 *   LRU-2  the length in struct zone is the number of pages on the list; the vmstat items are the sums over zones
 *   LRU-3  an isolated page is on no list, is counted as isolated, and has a holder more: whoever isolated it
 *   LRU-4  the number of locked pages in struct zone is the number of its frames with PG_MLOCKED; NR_MLOCK is the sum
 *
 * Context: any; takes the zone's LRU lock with interrupts off. The order between pages of different zones is not kept.
 * Linux keeps lists per node and memory cgroup (struct lruvec), and a counter per zone. Source: mm/swap.c, mm/vmscan.c,
 * include/linux/mm_inline.h.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bug, bugOn } from "../kernel/bug.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { asPfn, asPhys, type Context, type Pfn } from "../kernel/types.ts";
import { MAX_NR_ZONES, NR_LRU_LISTS, Z_LRU_LOCK, Z_NR_ISOLATED, Z_NR_LRU, Z_NR_MLOCK, type Zones } from "./mmzone.ts";
import {
  type Pages,
  PG_ACTIVE,
  PG_ALLOCATED,
  PG_LRU,
  PG_MLOCKED,
  PG_REFERENCED,
  PG_SWAPBACKED,
  PG_UNEVICTABLE,
  zoneOfFlags,
} from "./page.ts";
import type { PageLists } from "./page_list.ts";
import type { LruLists } from "./page_ref.ts";
import { NR_INACTIVE_ANON, NR_ISOLATED_ANON, NR_MLOCK, type VmStat } from "./vmstat.ts";

/** The lists of a zone, in the order of enum lru_list: a pair for anonymous memory, a pair for files, the rest. */
export const LRU_INACTIVE_ANON = 0;
export const LRU_ACTIVE_ANON = 1;
export const LRU_INACTIVE_FILE = 2;
export const LRU_ACTIVE_FILE = 3;
export const LRU_UNEVICTABLE = 4;
const LRU_ACTIVE = 1;

/** Most lists of a zone: two kinds in four generations, and the rest. */
const MAX_LISTS = 9;
/** Rows of struct page that the list heads take. */
export const NR_LRU_HEADS = MAX_NR_ZONES * MAX_LISTS;

/** Does the page go back to a file, rather than to swap? Lazily freed memory (lazyfree.ts) goes as easily. */
export const isFilePage = (flags: number): boolean => (flags & PG_SWAPBACKED) === 0;
/** The list that a page belongs on. */
export const lruListOf = (flags: number): number => {
  if ((flags & PG_UNEVICTABLE) !== 0) return LRU_UNEVICTABLE;
  const pair = isFilePage(flags) ? LRU_INACTIVE_FILE : LRU_INACTIVE_ANON;
  return (flags & PG_ACTIVE) !== 0 ? pair + LRU_ACTIVE : pair;
};

/** How pages are cut into lists. All is called under the zone's lock; lists are numbered from 0. */
export interface LruOrder {
  readonly nrLists: number;
  /** The list that a page is on. */
  listOf(pfn: Pfn, flags: number): number;
  /** The list that a page with `flags` belongs on now. `isBack`: it has been on one, and was not used meanwhile. */
  place(pfn: Pfn, zone: number, flags: number, isBack: boolean): number;
  /** Which of the five, LRU_INACTIVE_ANON to LRU_UNEVICTABLE, a list counts for. */
  counterOf(zone: number, list: number): number;
  /** A list has become longer by `delta`. */
  count(zone: number, list: number, delta: number): void;
  /** The list that reclaim takes from. */
  oldest(zone: number, isFile: boolean): number;
  /** Time passes for pages of a kind: what was the youngest may be it no more. `recount` corrects one of the five. */
  advance(zone: number, isFile: boolean, recount: (counter: number, delta: number) => void): void;
  /** A list of `nr` pages: a sentence about the first violation, or null. */
  check(zone: number, list: number, nr: number): string | null;
}

/** Active and inactive lists: the flags of a page say all. */
export const pairsOfLists: LruOrder = {
  nrLists: NR_LRU_LISTS,
  listOf: (_pfn, flags) => lruListOf(flags),
  place: (_pfn, _zone, flags) => lruListOf(flags),
  counterOf: (_zone, list) => list,
  count: () => {},
  oldest: (_zone, isFile) => (isFile ? LRU_INACTIVE_FILE : LRU_INACTIVE_ANON),
  advance: () => {},
  check: () => null,
};

export interface Lru extends LruLists {
  /** How the lists are cut. */
  readonly order: LruOrder;
  /** Time passes for pages of a kind (LruOrder). */
  advance(ctx: Context, zone: number, isFile: boolean): void;
  /** To the head of the active list of its kind. The page is on a list. */
  activate(ctx: Context, pfn: Pfn): void;
  /** To the head of the inactive list of its kind. The page is on a list. */
  deactivate(ctx: Context, pfn: Pfn): void;
  /** To the tail of its list: the next that reclaim looks at. The page is on a list. */
  rotate(ctx: Context, pfn: Pfn): void;
  /** To the list of pages that are not reclaimed, or back. On a list or not; sets or clears PG_UNEVICTABLE. */
  setUnevictable(ctx: Context, pfn: Pfn, isUnevictable: boolean): void;
  /** Its content is to be kept, in swap, or may be lost: its kind changes. On a list, or isolated. */
  setSwapBacked(ctx: Context, pfn: Pfn, isBacked: boolean): void;
  /** Takes the page off its list and a reference (LRU-3); false if it is on none. */
  isolate(ctx: Context, pfn: Pfn): boolean;
  /** Isolates at most `max` pages from the tail of a list into `out`, the tail first; their number. */
  isolateTail(ctx: Context, zone: number, list: number, max: number, out: Int32Array): number;
  /** An isolated page goes to the head of the list that its flags say. The reference is still the caller's. */
  putBack(ctx: Context, pfn: Pfn): void;
  /** An isolated page is about to be freed: it is counted no more. The reference is still the caller's. */
  forget(ctx: Context, pfn: Pfn): void;
  /** Pages on a list of a zone; on that list of all zones. */
  size(zone: number, list: number): number;
  total(list: number): number;
  /** LRU-1 to LRU-4: a sentence about the first violation, or null. O(frames). */
  check(): string | null;
}

export interface LruDeps {
  readonly port: MemoryPort;
  readonly spinlocks: Spinlocks;
  readonly pages: Pages;
  readonly lists: PageLists;
  readonly zones: Zones;
  readonly vmstat: VmStat;
  /** First of NR_LRU_HEADS rows. */
  readonly firstHead: number;
  readonly order: LruOrder;
}

export function createLru(deps: LruDeps): Lru {
  const { port, spinlocks, pages, lists, zones, vmstat, firstHead, order } = deps;
  const { nrLists } = order;
  const headOf = (zone: number, list: number): number => firstHead + zone * MAX_LISTS + list;
  const lockOf = (zone: number) => asPhys(zones.addr(zone) + Z_LRU_LOCK);
  const zoneOf = (pfn: Pfn): number => zoneOfFlags(pages.flags(pfn));
  for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
    spinlocks.init(lockOf(zone), "&lruvec->lru_lock");
    for (let list = 0; list < nrLists; list++) lists.init(headOf(zone, list));
  }

  // ── With the zone's lock held ────────────────────────────────────────────────────────────────────────────────────

  const addTo = (address: number, delta: number): void => port.st32(address, port.ld32(address) + delta);
  const recount = (zone: number, counter: number, delta: number): void => {
    addTo(zones.addr(zone) + Z_NR_LRU + counter * 4, delta);
    vmstat.modItem(NR_INACTIVE_ANON + counter, delta);
  };
  const count = (zone: number, list: number, delta: number): void => {
    order.count(zone, list, delta);
    recount(zone, order.counterOf(zone, list), delta);
  };
  /** Counted by kind, locked into memory or not. */
  const countIsolated = (pfn: Pfn, zone: number, delta: number): void => {
    const isFile = isFilePage(pages.flags(pfn)) ? 1 : 0;
    addTo(zones.addr(zone) + Z_NR_ISOLATED + isFile * 4, delta);
    vmstat.modItem(NR_ISOLATED_ANON + isFile, delta);
  };

  const link = (pfn: Pfn, zone: number, isBack: boolean, atTail: boolean): void => {
    const flags = pages.flags(pfn) | PG_LRU;
    pages.setFlags(pfn, flags);
    const list = order.place(pfn, zone, flags, isBack);
    if (atTail) lists.addTail(headOf(zone, list), pfn);
    else lists.addHead(headOf(zone, list), pfn);
    count(zone, list, 1);
  };
  const unlink = (pfn: Pfn, zone: number): void => {
    const flags = pages.flags(pfn);
    const list = order.listOf(pfn, flags);
    lists.remove(pfn);
    pages.setFlags(pfn, flags & ~PG_LRU);
    count(zone, list, -1);
  };
  const takeOff = (pfn: Pfn, zone: number): void => {
    unlink(pfn, zone);
    countIsolated(pfn, zone, 1);
    pages.setRefcount(pfn, pages.refcount(pfn) + 1);
  };

  /** Takes the page off, changes its flags, puts it on again. */
  const move = (ctx: Context, pfn: Pfn, clear: number, set: number, isBack: boolean, atTail = false): void => {
    const zone = zoneOf(pfn);
    const irq = spinlocks.spinLockIrqsave(ctx, lockOf(zone));
    const isOn = (pages.flags(pfn) & PG_LRU) !== 0;
    if (isOn) unlink(pfn, zone);
    pages.setFlags(pfn, (pages.flags(pfn) & ~clear) | set);
    if (isOn) link(pfn, zone, isBack, atTail);
    spinlocks.spinUnlockIrqrestore(ctx, lockOf(zone), irq);
  };

  // ── Checking ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const checkList = (zone: number, list: number, nr: number): string | null => {
    const name = `list ${list} of zone ${zones.name(zone)}`;
    if (nr < 0) return `LRU-1: the links of ${name} are broken`;
    for (let row = lists.first(headOf(zone, list)); row < pages.nrFrames; row = lists.next(row)) {
      const flags = pages.flags(asPfn(row));
      const isOn = (flags & (PG_LRU | PG_ALLOCATED)) === (PG_LRU | PG_ALLOCATED);
      const isRight = isOn && order.listOf(asPfn(row), flags) === list && zoneOfFlags(flags) === zone;
      if (!isRight) return `LRU-1: frame ${row} does not belong on ${name}`;
    }
    return order.check(zone, list, nr);
  };

  /** The pages of a zone, by counter, into `totals`. */
  const checkZone = (zone: number, totals: number[]): string | null => {
    const found = new Array<number>(NR_LRU_LISTS).fill(0);
    for (let list = 0; list < nrLists; list++) {
      const nr = lists.count(headOf(zone, list));
      const problem = checkList(zone, list, nr);
      if (problem !== null) return problem;
      const counter = order.counterOf(zone, list);
      found[counter] = (found[counter] as number) + nr;
    }
    for (let counter = 0; counter < NR_LRU_LISTS; counter++) {
      const [nr, counted] = [found[counter] as number, port.ld32(zones.addr(zone) + Z_NR_LRU + counter * 4)];
      if (nr !== counted) return `LRU-2: zone ${zones.name(zone)}: ${nr} pages, ${counted} are counted as ${counter}`;
      totals[counter] = (totals[counter] as number) + nr;
    }
    return null;
  };

  const check = (): string | null => {
    const totals = new Array<number>(NR_LRU_LISTS).fill(0);
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
      const problem = checkZone(zone, totals);
      if (problem !== null) return problem;
    }
    let nrListed = 0;
    for (let counter = 0; counter < NR_LRU_LISTS; counter++) {
      const nr = totals[counter] as number;
      if (nr !== vmstat.item(NR_INACTIVE_ANON + counter)) return `LRU-2: vmstat of list ${counter} is not ${nr}`;
      nrListed += nr;
    }
    let nrFlagged = 0;
    const locked = new Array<number>(MAX_NR_ZONES).fill(0);
    for (let pfn = 0; pfn < pages.nrFrames; pfn++) {
      const flags = pages.flags(asPfn(pfn));
      if ((flags & PG_LRU) !== 0) nrFlagged++;
      if ((flags & PG_MLOCKED) !== 0) locked[zoneOfFlags(flags)] = (locked[zoneOfFlags(flags)] as number) + 1;
    }
    if (nrFlagged !== nrListed) return `LRU-1: ${nrFlagged} pages with PG_LRU, ${nrListed} on lists`;
    return checkLocked(locked);
  };

  const checkLocked = (locked: readonly number[]): string | null => {
    const zone = locked.findIndex((nr, i) => nr !== zones.field(i, Z_NR_MLOCK));
    if (zone >= 0) return `LRU-4: ${locked[zone]} locked pages in zone ${zones.name(zone)}, not as counted`;
    const nr = locked.reduce((sum, n) => sum + n, 0);
    return nr === vmstat.item(NR_MLOCK) ? null : `LRU-4: ${nr} locked pages, ${vmstat.item(NR_MLOCK)} counted`;
  };

  return {
    order,
    advance(ctx, zone, isFile) {
      const irq = spinlocks.spinLockIrqsave(ctx, lockOf(zone));
      order.advance(zone, isFile, (counter, delta) => recount(zone, counter, delta));
      spinlocks.spinUnlockIrqrestore(ctx, lockOf(zone), irq);
    },
    add(ctx, pfn) {
      const zone = zoneOf(pfn);
      const irq = spinlocks.spinLockIrqsave(ctx, lockOf(zone));
      bugOn((pages.flags(pfn) & PG_LRU) !== 0, "LRU-1: page added twice", pfn);
      link(pfn, zone, false, false);
      spinlocks.spinUnlockIrqrestore(ctx, lockOf(zone), irq);
    },
    remove(ctx, pfn) {
      const zone = zoneOf(pfn);
      const irq = spinlocks.spinLockIrqsave(ctx, lockOf(zone));
      if ((pages.flags(pfn) & PG_LRU) === 0) bug("LRU-1: page removed that is on no list", pfn);
      unlink(pfn, zone);
      spinlocks.spinUnlockIrqrestore(ctx, lockOf(zone), irq);
    },
    activate: (ctx, pfn) => move(ctx, pfn, 0, PG_ACTIVE, false),
    deactivate: (ctx, pfn) => move(ctx, pfn, PG_ACTIVE, 0, true),
    rotate: (ctx, pfn) => move(ctx, pfn, 0, 0, true, true),
    setUnevictable(ctx, pfn, isUnevictable) {
      move(ctx, pfn, PG_UNEVICTABLE, isUnevictable ? PG_UNEVICTABLE : 0, false);
    },
    setSwapBacked(ctx, pfn, isBacked) {
      const zone = zoneOf(pfn);
      const irq = spinlocks.spinLockIrqsave(ctx, lockOf(zone));
      const isOn = (pages.flags(pfn) & PG_LRU) !== 0;
      if (isOn) unlink(pfn, zone);
      else countIsolated(pfn, zone, -1);
      if (isBacked) pages.addFlags(pfn, PG_SWAPBACKED);
      else pages.clearFlags(pfn, PG_SWAPBACKED | PG_ACTIVE | PG_REFERENCED);
      if (isOn) link(pfn, zone, true, false);
      else countIsolated(pfn, zone, 1);
      spinlocks.spinUnlockIrqrestore(ctx, lockOf(zone), irq);
    },
    countLocked(pfn, delta) {
      port.fetchAdd(asPhys(zones.addr(zoneOf(pfn)) + Z_NR_MLOCK), delta);
      vmstat.modItem(NR_MLOCK, delta);
    },
    isolate(ctx, pfn) {
      const zone = zoneOf(pfn);
      const irq = spinlocks.spinLockIrqsave(ctx, lockOf(zone));
      const isOn = (pages.flags(pfn) & PG_LRU) !== 0;
      if (isOn) takeOff(pfn, zone);
      spinlocks.spinUnlockIrqrestore(ctx, lockOf(zone), irq);
      return isOn;
    },
    isolateTail(ctx, zone, list, max, out) {
      const head = headOf(zone, list);
      const irq = spinlocks.spinLockIrqsave(ctx, lockOf(zone));
      let nr = 0;
      while (nr < max && !lists.isEmpty(head)) {
        const pfn = asPfn(lists.last(head));
        takeOff(pfn, zone);
        out[nr++] = pfn;
      }
      spinlocks.spinUnlockIrqrestore(ctx, lockOf(zone), irq);
      return nr;
    },
    putBack(ctx, pfn) {
      const zone = zoneOf(pfn);
      const irq = spinlocks.spinLockIrqsave(ctx, lockOf(zone));
      bugOn((pages.flags(pfn) & PG_LRU) !== 0, "LRU-3: page put back that is on a list", pfn);
      countIsolated(pfn, zone, -1);
      link(pfn, zone, true, false);
      spinlocks.spinUnlockIrqrestore(ctx, lockOf(zone), irq);
    },
    forget(ctx, pfn) {
      const zone = zoneOf(pfn);
      const irq = spinlocks.spinLockIrqsave(ctx, lockOf(zone));
      countIsolated(pfn, zone, -1);
      spinlocks.spinUnlockIrqrestore(ctx, lockOf(zone), irq);
    },
    size: (zone, list) => port.ld32(zones.addr(zone) + Z_NR_LRU + list * 4),
    total: (list) => vmstat.item(NR_INACTIVE_ANON + list),
    check,
  };
}
