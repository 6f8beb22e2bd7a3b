/**
 * Swap slots: who names each page of the swap area, and where its copy in RAM is.
 *
 *      slot      0          1         2         3         4       …        one page of the device each
 *      word   │ header │ 2 names │  free  │ 1 name  │ 1 name │
 *                         cached              shadow
 *
 * 1. One word of RAM per slot says everything:
 *
 *      31      23    22      21      20……0
 *      | names | shadow | cached | frame, or eviction clock |          0: the slot is free
 *
 *    *names* is the number of page-table entries (of any process) that stand for this slot; *cached*: the page is in
 *    RAM as well, in that frame (the swap cache); *shadow*: it is not, and the word remembers when it went
 *    (workingset.ts).
 *
 * 2. The swap cache is what makes the two copies one page. While a page is on its way out or in, or clean after having
 *    come back, whoever meets one of its entries finds the frame here instead of reading the device a second time.
 *
 * 3. Slots come from clusters of 256. One cluster is filled from its start to its end; the next one is an empty cluster
 *    if there is any. So pages that go out together lie together, one command writes them, and one reads them back.
 *
 *   SLOT-1  slots in use = words that are not 0 and not bad = Σ counts of the clusters
 *   SLOT-2  cached ⇔ the frame has PG_SWAPCACHE, and its private word is the slot
 *   SLOT-3  names = page-table entries that stand for the slot
 *   SLOT-4  a word with neither names nor a cached page is 0
 *   SLOT-5  a bad slot is never given out; slot 0, the header, is one
 *
 * struct swap_info, 64 bytes: 0 lock · 4 number of slots · 8 in use · 12 first frame of the map · 16 its order · 20
 * cluster being filled · 24 next slot to look at · 28 bad slots · 32, 36 of swap_space.ts.
 *
 * Context: any; the lock is held with interrupts off. Linux: mm/swapfile.c keeps counts (swap_map) and cache apart
 * until 6.17; since 6.18 its swap table has one word a slot, as here.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import { getOrder } from "../kernel/lib/bits.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { asPfn, asPhys, type Context, NO_PFN, type Pfn, type PhysAddr, pfnToPhys } from "../kernel/types.ts";
import { ENOMEM } from "../kernel/uapi/errno.ts";
import { __GFP_NOWARN, __GFP_ZERO, GFP_KERNEL } from "./gfp.ts";
import { MAX_PAGE_ORDER } from "./mmzone.ts";
import { type Pages, PG_SWAPCACHE } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";

export const SWAPFILE_CLUSTER = 256;
/** What one block of the page allocator has room for, with the clusters' counts behind. */
export const MAX_AREA_SLOTS = (PAGE_SIZE << MAX_PAGE_ORDER) / 4 - 4096;

const VALUE_MASK = 0x1f_ffff;
const CACHED = 1 << 21;
const SHADOW = 1 << 22;
const NAME_SHIFT = 23;
const ONE_NAME = 1 << NAME_SHIFT;
const MAX_NAMES = 0x1fe;
const BAD_NAMES = 0x1ff;
const BAD = (BAD_NAMES << NAME_SHIFT) >>> 0;

const LOCK = 0;
const NR_SLOTS = 4;
const IN_USE = 8;
const MAP_PFN = 12;
const MAP_ORDER = 16;
const CLUSTER = 20;
const NEXT = 24;
const NR_BAD = 28;
export const SWAP_INFO_BYTES = 64;

export interface SwapSlots {
  /** Memory for an area of `nrSlots`; 0 or −ENOMEM. `bad` are slots that are not to be used. Process context. */
  open(ctx: Context, nrSlots: number, bad: readonly number[]): number;
  /** Gives the map back. No slot is in use. */
  close(ctx: Context): void;
  nrSlots(): number;
  nrInUse(): number;
  /** Pages that the area can hold: without header and bad slots. 0 if there is none. */
  nrUsable(): number;
  /** A free slot, cached in `pfn` and without names; −1 if none is left. */
  alloc(ctx: Context, pfn: Pfn): number;
  isUsable(slot: number): boolean;
  names(slot: number): number;
  /** Frame of the swap cache, NO_PFN if the page is not in RAM. */
  cached(slot: number): Pfn;
  /** What forget() left behind; −1 if nothing. */
  shadow(slot: number): number;
  /** One name more: 0, or −ENOMEM when the count is full. */
  addName(ctx: Context, slot: number): number;
  /** One name less; a slot without names and cached page is free afterwards. The names left. */
  dropName(ctx: Context, slot: number): number;
  /** The page of the slot is in RAM at `pfn`; it was not before. */
  cache(ctx: Context, slot: number, pfn: Pfn): void;
  /** It is no more; `shadow` ≥ 0 is remembered if the slot has names. Without names the slot is free. */
  forget(ctx: Context, slot: number, shadow: number): void;
  /** SLOT-1, SLOT-2, SLOT-4: a sentence, or null. O(slots). */
  check(): string | null;
}

export interface SwapSlotsDeps {
  readonly port: MemoryPort;
  readonly spinlocks: Spinlocks;
  readonly pages: Pages;
  readonly pageAlloc: Pick<PageAllocator, "tryAllocPages" | "freePages">;
  /** What the number of slot 0 is to the pages that are cached (swap_space.ts). */
  readonly firstSlot?: number;
  /** SWAP_INFO_BYTES of zeroed static memory. */
  readonly state: PhysAddr;
}

export function createSwapSlots(deps: SwapSlotsDeps): SwapSlots {
  const { port, spinlocks, pages, pageAlloc, state, firstSlot = 0 } = deps;
  const lock = asPhys(state + LOCK);
  spinlocks.init(lock, "&si->lock");
  const field = (offset: number): number => port.ld32(state + offset);
  const setField = (offset: number, value: number): void => port.st32(state + offset, value);
  const mapBase = (): PhysAddr => pfnToPhys(asPfn(field(MAP_PFN)));
  const wordAt = (slot: number): number => mapBase() + slot * 4;
  const read = (slot: number): number => {
    bugOn(!(slot >= 0 && slot < field(NR_SLOTS)), "swap: slot outside of the area", slot);
    return port.ld32(wordAt(slot));
  };
  const nrClusters = (): number => Math.ceil(field(NR_SLOTS) / SWAPFILE_CLUSTER);
  const clusterAt = (cluster: number): number => mapBase() + (field(NR_SLOTS) + cluster) * 4;
  const namesOf = (word: number): number => word >>> NAME_SHIFT;

  /** Writes a slot's word and keeps the two counts (SLOT-1). Lock held. */
  const write = (slot: number, old: number, word: number): void => {
    port.st32(wordAt(slot), word >>> 0);
    const delta = (word === 0 ? 0 : 1) - (old === 0 ? 0 : 1);
    if (delta === 0) return;
    setField(IN_USE, field(IN_USE) + delta);
    const count = clusterAt(Math.floor(slot / SWAPFILE_CLUSTER));
    port.st32(count, port.ld32(count) + delta);
  };
  /** What is left of a word once it names nothing and caches nothing (SLOT-4). */
  const settled = (word: number): number => (namesOf(word) === 0 && (word & CACHED) === 0 ? 0 : word);

  const update = (ctx: Context, slot: number, change: (word: number) => number): number => {
    const irq = spinlocks.spinLockIrqsave(ctx, lock);
    const old = read(slot);
    const word = settled(change(old) >>> 0);
    write(slot, old, word);
    spinlocks.spinUnlockIrqrestore(ctx, lock, irq);
    return word;
  };

  // ── Finding a free slot ──────────────────────────────────────────────────────────────────────────────────────────

  const isFull = (cluster: number): boolean => {
    const size = Math.min(SWAPFILE_CLUSTER, field(NR_SLOTS) - cluster * SWAPFILE_CLUSTER);
    return port.ld32(clusterAt(cluster)) >= size;
  };

  /** The next cluster to fill, after `from`: an empty one, else one with room; −1. */
  const nextCluster = (from: number): number => {
    const nr = nrClusters();
    let withRoom = -1;
    for (let i = 1; i <= nr; i++) {
      const cluster = (from + i) % nr;
      if (port.ld32(clusterAt(cluster)) === 0) return cluster;
      if (withRoom < 0 && !isFull(cluster)) withRoom = cluster;
    }
    return withRoom;
  };

  const freeFrom = (slot: number, end: number): number => {
    let at = slot;
    while (at < end && port.ld32(wordAt(at)) !== 0) at++;
    return at;
  };

  const findFree = (): number => {
    if (field(NR_SLOTS) === 0) return -1;
    let cluster = field(CLUSTER);
    for (let tries = 0; tries < 2; tries++) {
      const end = Math.min((cluster + 1) * SWAPFILE_CLUSTER, field(NR_SLOTS));
      const slot = isFull(cluster) ? end : freeFrom(Math.max(field(NEXT), cluster * SWAPFILE_CLUSTER), end);
      if (slot < end) {
        setField(NEXT, slot + 1);
        return slot;
      }
      cluster = nextCluster(cluster);
      if (cluster < 0) return -1;
      setField(CLUSTER, cluster);
      setField(NEXT, cluster * SWAPFILE_CLUSTER);
    }
    return -1;
  };

  // ── Checking ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const checkSlot = (slot: number, word: number): string | null => {
    if (word === BAD) return null;
    if (word !== 0 && settled(word) === 0) return `SLOT-4: slot ${slot} has neither names nor a page`;
    if ((word & CACHED) === 0) return null;
    const pfn = asPfn(word & VALUE_MASK);
    const isIn =
      pfn < pages.nrFrames && (pages.flags(pfn) & PG_SWAPCACHE) !== 0 && pages.private(pfn) === firstSlot + slot;
    return isIn ? null : `SLOT-2: frame ${pfn} does not know that it is cached for slot ${slot}`;
  };

  return {
    open(ctx, nrSlots, bad) {
      bugOn(field(NR_SLOTS) !== 0, "swap: the area is open");
      const nrUsed = Math.min(nrSlots, MAX_AREA_SLOTS);
      const order = getOrder((nrUsed + Math.ceil(nrUsed / SWAPFILE_CLUSTER)) * 4);
      const map = pageAlloc.tryAllocPages(ctx, order, GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN);
      if (map === NO_PFN) return -ENOMEM;
      for (const [offset, value] of [
        [NR_SLOTS, nrUsed],
        [IN_USE, 0],
        [MAP_PFN, map],
        [MAP_ORDER, order],
        [CLUSTER, 0],
        [NEXT, 0],
        [NR_BAD, 0],
      ] as const) {
        setField(offset, value);
      }
      for (const slot of [0, ...bad]) {
        if (slot >= nrUsed || port.ld32(wordAt(slot)) !== 0) continue;
        port.st32(wordAt(slot), BAD);
        const count = clusterAt(Math.floor(slot / SWAPFILE_CLUSTER));
        port.st32(count, port.ld32(count) + 1);
        setField(NR_BAD, field(NR_BAD) + 1);
      }
      return 0;
    },
    close(ctx) {
      bugOn(field(IN_USE) !== 0, "swap: the area is in use", field(IN_USE));
      pageAlloc.freePages(ctx, asPfn(field(MAP_PFN)), field(MAP_ORDER));
      setField(NR_SLOTS, 0);
      setField(NR_BAD, 0);
    },
    nrSlots: () => field(NR_SLOTS),
    nrInUse: () => field(IN_USE),
    nrUsable: () => field(NR_SLOTS) - field(NR_BAD),
    alloc(ctx, pfn) {
      const irq = spinlocks.spinLockIrqsave(ctx, lock);
      const slot = findFree();
      if (slot >= 0) write(slot, 0, CACHED | pfn);
      spinlocks.spinUnlockIrqrestore(ctx, lock, irq);
      return slot;
    },
    isUsable: (slot) => slot >= 0 && slot < field(NR_SLOTS) && read(slot) !== BAD,
    names: (slot) => namesOf(read(slot)),
    cached(slot) {
      const word = read(slot);
      return (word & CACHED) !== 0 && word !== BAD ? asPfn(word & VALUE_MASK) : NO_PFN;
    },
    shadow(slot) {
      const word = read(slot);
      return (word & (CACHED | SHADOW)) === SHADOW && word !== BAD ? word & VALUE_MASK : -1;
    },
    addName(ctx, slot) {
      if (namesOf(read(slot)) >= MAX_NAMES) return -ENOMEM;
      update(ctx, slot, (word) => word + ONE_NAME);
      return 0;
    },
    dropName(ctx, slot) {
      const nr = namesOf(read(slot));
      bugOn(nr === 0 || nr === BAD_NAMES, "SLOT-3: a name dropped that the slot does not have", slot, nr);
      return namesOf(update(ctx, slot, (word) => word - ONE_NAME));
    },
    cache(ctx, slot, pfn) {
      const old = read(slot);
      bugOn((old & CACHED) !== 0 || namesOf(old) === 0, "SLOT-2: slot cannot take a page", slot, old);
      update(ctx, slot, (word) => (word & ~(VALUE_MASK | SHADOW)) | CACHED | pfn);
    },
    forget(ctx, slot, shadow) {
      bugOn((read(slot) & CACHED) === 0, "SLOT-2: slot has no page to forget", slot);
      const rest = shadow < 0 ? 0 : SHADOW | (shadow & VALUE_MASK);
      update(ctx, slot, (word) => (word & ~(VALUE_MASK | CACHED | SHADOW)) | rest);
    },
    check() {
      let nrInUse = 0;
      let nrCounted = 0;
      for (let slot = 0; slot < field(NR_SLOTS); slot++) {
        const word = port.ld32(wordAt(slot));
        if (word !== 0 && word !== BAD) nrInUse++;
        const problem = checkSlot(slot, word);
        if (problem !== null) return problem;
      }
      for (let cluster = 0; cluster < nrClusters(); cluster++) nrCounted += port.ld32(clusterAt(cluster));
      if (nrInUse !== field(IN_USE)) return `SLOT-1: ${nrInUse} slots in use, ${field(IN_USE)} are counted`;
      const expected = nrInUse + field(NR_BAD);
      return nrCounted === expected ? null : `SLOT-1: clusters count ${nrCounted} slots, ${expected} are taken`;
    },
  };
}
