/**
 * Generations: the pages of a zone cut by age into up to four lists, instead of into active and inactive ones.
 *
 *      seq    min ────────────────────────────── max
 *            [p]─[p]─[p]   [p]─[p]   [p]─[p]─[p]─[p]
 *             │ oldest: reclaim takes its tail      ▲ new pages, and those that were found used
 *             └───────── used: to the youngest ─────┘
 *
 * 1. Each zone and kind (anonymous, file) has a window of sequence numbers [min, max]. The list of generation `seq` is
 *    number seq mod 4; a page knows that number (one byte a frame), so it never moves when time passes: a new
 *    generation is begun by adding one to max.
 *
 * 2. Reclaim takes from the oldest generation. When that is empty, min goes up. The two youngest are not taken from: a
 *    page has the time of two generations to be used. So when only two are left, or the cut is very uneven, a new one
 *    is begun (Linux's should_run_aging).
 *
 * 3. What Linux counts as active are the two youngest generations: /proc/meminfo and the refault distance go on
 *    meaning something.
 *
 *   GEN-1  2 ≤ max − min + 1 ≤ 4, and every evictable page on a list is in a generation of its window
 *   GEN-2  the length of each generation in struct zone is the number of pages on its list
 *   GEN-3  max grows only with at most three generations in the window: the list that it takes is empty
 *
 * In struct zone, from Z_LRU_GEN, for each kind: max, min, four lengths. Context: the zone's LRU lock is held.
 *
 * Linux: mm/vmscan.c (CONFIG_LRU_GEN), Documentation/mm/multigen_lru.rst. There the generation is in the page's flags,
 * one window serves all zones of a node, and aging walks page tables; here the A bits are looked at through the reverse
 * mapping when a page comes to the end. Not here: tiers of files that are read through system calls.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import type { Pfn, PhysAddr } from "../kernel/types.ts";
import { isFilePage, LRU_ACTIVE_ANON, LRU_INACTIVE_ANON, LRU_UNEVICTABLE, type LruOrder } from "./lru.ts";
import { MAX_NR_ZONES, Z_LRU_GEN, type Zones } from "./mmzone.ts";
import { type Pages, PG_ACTIVE, PG_ANON, PG_SWAPBACKED, PG_SWAPCACHE, PG_UNEVICTABLE } from "./page.ts";

const MAX_NR_GENS = 4;
const MIN_NR_GENS = 2;
const NR_KINDS = 2;
const UNEVICTABLE = NR_KINDS * MAX_NR_GENS;

/** Bytes for each kind in struct zone: max, min, lengths. */
const KIND_BYTES = 8 + MAX_NR_GENS * 4;
const MAX_SEQ = 0;
const MIN_SEQ = 4;
const LENGTHS = 8;

export interface GenerationDeps {
  readonly port: MemoryPort;
  readonly pages: Pages;
  readonly zones: Zones;
  /** One byte of zeroed memory a frame: its generation. */
  readonly column: PhysAddr;
}

export function createGenerations({ port, pages, zones, column }: GenerationDeps): LruOrder {
  const windowOf = (zone: number, kind: number): number => zones.addr(zone) + Z_LRU_GEN + kind * KIND_BYTES;
  const maxSeq = (zone: number, kind: number): number => port.ld32(windowOf(zone, kind) + MAX_SEQ);
  const minSeq = (zone: number, kind: number): number => port.ld32(windowOf(zone, kind) + MIN_SEQ);
  const lengthAt = (zone: number, list: number): number =>
    windowOf(zone, Math.floor(list / MAX_NR_GENS)) + LENGTHS + (list % MAX_NR_GENS) * 4;
  const lengthOf = (zone: number, kind: number, seq: number): number =>
    port.ld32(windowOf(zone, kind) + LENGTHS + (seq % MAX_NR_GENS) * 4);
  const listFor = (kind: number, seq: number): number => kind * MAX_NR_GENS + (seq % MAX_NR_GENS);
  for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
    for (let kind = 0; kind < NR_KINDS; kind++) port.st32(windowOf(zone, kind) + MAX_SEQ, MIN_NR_GENS - 1);
  }

  const kindOf = (flags: number): number => (isFilePage(flags) ? 1 : 0);

  /**
   * Used lately, or touched for the first time by the fault that brings it: the youngest. Read in because it may be
   * wanted: the one before. Back from reclaim, which did not get rid of it: the oldest.
   */
  const seqFor = (zone: number, kind: number, flags: number, isBack: boolean): number => {
    const max = maxSeq(zone, kind);
    if ((flags & PG_ACTIVE) !== 0) return max;
    if (isBack) return minSeq(zone, kind);
    return (flags & (PG_ANON | PG_SWAPBACKED | PG_SWAPCACHE)) === (PG_ANON | PG_SWAPBACKED) ? max : max - 1;
  };

  const totalOf = (zone: number, kind: number): number => {
    let nr = 0;
    for (let gen = 0; gen < MAX_NR_GENS; gen++) nr += lengthOf(zone, kind, gen);
    return nr;
  };

  /** Is it time for a new generation? With two of them it must be; else if most pages are young, or hardly any old. */
  const isDue = (zone: number, kind: number, total: number): boolean => {
    const [max, min] = [maxSeq(zone, kind), minSeq(zone, kind)];
    const nrGens = max - min + 1;
    if (nrGens <= MIN_NR_GENS) return true;
    if (nrGens === MAX_NR_GENS) return false;
    return lengthOf(zone, kind, max) * MIN_NR_GENS > total || lengthOf(zone, kind, min) * (MIN_NR_GENS + 2) < total;
  };

  const retireEmpty = (zone: number, kind: number): void => {
    while (minSeq(zone, kind) + MIN_NR_GENS <= maxSeq(zone, kind) && lengthOf(zone, kind, minSeq(zone, kind)) === 0) {
      port.st32(windowOf(zone, kind) + MIN_SEQ, minSeq(zone, kind) + 1);
    }
  };

  return {
    nrLists: UNEVICTABLE + 1,
    listOf: (pfn, flags) =>
      (flags & PG_UNEVICTABLE) !== 0 ? UNEVICTABLE : kindOf(flags) * MAX_NR_GENS + port.ld8(column + pfn),
    place(pfn: Pfn, zone, flags, isBack) {
      if ((flags & PG_UNEVICTABLE) !== 0) return UNEVICTABLE;
      const kind = kindOf(flags);
      const seq = seqFor(zone, kind, flags, isBack);
      if ((flags & PG_ACTIVE) !== 0) pages.clearFlags(pfn, PG_ACTIVE);
      port.st8(column + pfn, seq % MAX_NR_GENS);
      return listFor(kind, seq);
    },
    counterOf(zone, list) {
      if (list === UNEVICTABLE) return LRU_UNEVICTABLE;
      const kind = Math.floor(list / MAX_NR_GENS);
      const age = (maxSeq(zone, kind) - list + UNEVICTABLE) % MAX_NR_GENS;
      return kind * 2 + (age < MIN_NR_GENS ? LRU_ACTIVE_ANON : LRU_INACTIVE_ANON);
    },
    count(zone, list, delta) {
      if (list !== UNEVICTABLE) port.st32(lengthAt(zone, list), port.ld32(lengthAt(zone, list)) + delta);
    },
    oldest: (zone, isFile) => listFor(isFile ? 1 : 0, minSeq(zone, isFile ? 1 : 0)),
    advance(zone, isFile, recount) {
      const kind = isFile ? 1 : 0;
      const total = totalOf(zone, kind);
      if (total === 0) return;
      retireEmpty(zone, kind);
      // At most two: the youngest page is then in the third generation, and can be taken.
      for (let i = 0; i < MIN_NR_GENS && isDue(zone, kind, total); i++) {
        const max = maxSeq(zone, kind);
        bugOn(lengthOf(zone, kind, max + 1) !== 0, "GEN-3: a generation begins on a list with pages", zone, max);
        port.st32(windowOf(zone, kind) + MAX_SEQ, max + 1);
        // Active are the two youngest: the second of them is it no more.
        const nrPassive = lengthOf(zone, kind, max - 1);
        recount(kind * 2 + LRU_ACTIVE_ANON, -nrPassive);
        recount(kind * 2 + LRU_INACTIVE_ANON, nrPassive);
        retireEmpty(zone, kind);
      }
    },
    check(zone, list, nr) {
      if (list === UNEVICTABLE) return null;
      const kind = Math.floor(list / MAX_NR_GENS);
      const [max, min] = [maxSeq(zone, kind), minSeq(zone, kind)];
      const nrGens = max - min + 1;
      if (nrGens < MIN_NR_GENS || nrGens > MAX_NR_GENS) return `GEN-1: generations ${min} to ${max}`;
      const counted = port.ld32(lengthAt(zone, list));
      if (counted !== nr) return `GEN-2: generation list ${list} has ${nr} pages, ${counted} are counted`;
      const age = (max - list + UNEVICTABLE) % MAX_NR_GENS;
      return nr > 0 && age >= nrGens ? `GEN-1: ${nr} pages in a generation before ${min}` : null;
    },
  };
}
