/**
 * Swap: pages of processes on a disk, and the way back.
 *
 *   reclaim: addToCache ─▶ entries become swap entries ─▶ written ─▶ removeFromCache ─▶ frame free
 *   fault:   entry ─▶ slot ─▶ in the cache? ──yes── minor fault ──▶ entry for the frame, one name of the slot less
 *                               └──no── read in, with neighbours ── major fault ──┘
 *
 * 1. A page is *in the swap cache* from the moment it gets a slot until it has one home again: its frame names the slot
 *    (private), the slot names the frame (swap_slots.ts). Meanwhile nobody can see two versions: all entries of the
 *    page lead to this frame.
 *
 * 2. After a page was read in, its copy on the disk stays good until somebody writes to the page. It stays in the cache
 *    and clean: evicting it again costs no I/O. The hardware's D bit tells (the entry is writable and clean); reclaim
 *    looks at it when it unmaps.
 *
 * 3. Who writes first to a page that nobody else names gets it back for good: the slot is given up.
 *
 * 4. Readahead: pages that went out together lie together (swap_slots.ts). So a read fetches, with the page that is
 *    wanted, its neighbours in the same aligned window of 8 slots, as far as they are in use and memory is at hand.
 *
 *   SWAP-1  a page in the swap cache has PG_SWAPCACHE, its slot in private, and a reference of the cache
 *   SWAP-2  a fault brings the page back with the content it had, or fails; a slot that cannot be read stays named
 *   SWAP-3  a slot of a page that is being written (PG_WRITEBACK) is not given to another page
 *   SWAP-4  after a read error the frame is given back: no content is made up
 *
 * Context: process; faults wait in place (adr/0010-a-fault-waits-in-place.md). Linux: mm/memory.c (do_swap_page),
 * mm/swap_state.c.
 */

import { PTE_A, PTE_D, PTE_W } from "../kernel/arch/mmu.ts";
import type { MemoryPort } from "../kernel/arch/port.ts";
import { bug, bugOn } from "../kernel/bug.ts";
import type { PageIo } from "../kernel/file.ts";
import { asPfn, type Context, NO_PFN, type Pfn, type PhysAddr, type TaskContext } from "../kernel/types.ts";
import { EIO, ENOMEM } from "../kernel/uapi/errno.ts";
import { __GFP_NORETRY, __GFP_NOWARN, GFP_HIGHUSER_MOVABLE } from "./gfp.ts";
import type { Lru } from "./lru.ts";
import { MM_MAJ_FAULTS, MM_RSS_ANON, MM_SWAPENTS, VMA_PROT } from "./mm_struct.ts";
import { MAX_NR_ZONES, WMARK_LOW, type Zones } from "./mmzone.ts";
import {
  type Pages,
  PG_ACTIVE,
  PG_DIRTY,
  PG_LRU,
  PG_REFERENCED,
  PG_SWAPBACKED,
  PG_SWAPCACHE,
  PG_UPTODATE,
  PG_WORKINGSET,
  PG_WRITEBACK,
} from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import type { PageRefs } from "./page_ref.ts";
import { leafRights, type PageTables, pteOf } from "./pgtable.ts";
import type { Rmap } from "./rmap.ts";
import { type SwapLayer, slotOfPte } from "./swap_entry.ts";
import { areaOfSlot, firstSlotOf, MAX_SWAP_AREAS, type SwapSpace } from "./swap_space.ts";
import { NR_SWAPCACHE, PGMAJFAULT, PSWPIN, SWAP_RA, SWAP_RA_HIT, type VmStat } from "./vmstat.ts";
import type { WorkingSet } from "./workingset.ts";

/** Slots of a readahead window: 2^vm.page-cluster. */
const WINDOW = 8;

/** The swap area is in use by this much, in per cent, when pages give up their slots as soon as they are back. */
const SWAP_FULL_PERCENT = 50;

export interface Swap {
  /** What page tables call. */
  readonly layer: SwapLayer;
  /** Parts that are built on the layer and that it calls in turn. Boot, once. */
  connect(parts: Pick<SwapParts, "rmap" | "pageTables">): void;
  /** The device of an area, from swapon to swapoff. */
  setDevice(area: number, io: PageIo | null): void;
  hasDevice(): boolean;
  /** The device that a slot is on, if it is there, and which of its pages the slot is. */
  deviceOf(slot: number): PageIo | null;
  pageOf(slot: number): number;
  /** Gives an isolated page without one a slot: false if there is none. It is dirty then. */
  addToCache(ctx: Context, pfn: Pfn): boolean;
  /** May a page be unmapped for the slot that it has? Not while swapoff brings the pages of the area back (AREA-7). */
  takesBack(pfn: Pfn): boolean;
  /** Takes a page out of the cache, which holds a reference; its slot is free if nobody names it. */
  removeFromCache(ctx: Context, pfn: Pfn, shadow?: number): void;
  /** Slots that can still be had. */
  nrFree(): number;
}

interface SwapParts {
  readonly port: MemoryPort;
  readonly slots: SwapSpace;
  readonly pages: Pages;
  readonly zones: Zones;
  readonly pageAlloc: PageAllocator;
  readonly refs: PageRefs;
  readonly lru: Lru;
  readonly vmstat: VmStat;
  readonly workingSet: WorkingSet;
  readonly rmap: Rmap;
  readonly pageTables: PageTables;
}

export type SwapDeps = Omit<SwapParts, "rmap" | "pageTables">;

export function createSwap(deps: SwapDeps): Swap {
  const { port, slots, pages, zones, pageAlloc, refs, lru, vmstat, workingSet } = deps;
  let parts: Pick<SwapParts, "rmap" | "pageTables"> | undefined;
  const devices: (PageIo | null)[] = new Array<PageIo | null>(MAX_SWAP_AREAS).fill(null);
  const deviceOf = (slot: number): PageIo | null => devices[areaOfSlot(slot)] ?? null;
  const pageOf = (slot: number): number => slot - firstSlotOf(areaOfSlot(slot));
  const connected = (): Pick<SwapParts, "rmap" | "pageTables"> => parts ?? bug("swap: used before it is connected");
  const slotOf = (pfn: Pfn): number => pages.private(pfn);
  const addField = (base: PhysAddr, offset: number, delta: number): void =>
    port.st32(base + offset, port.ld32(base + offset) + delta);

  // ── The swap cache ───────────────────────────────────────────────────────────────────────────────────────────────

  const enterCache = (pfn: Pfn, slot: number): void => {
    pages.setPrivate(pfn, slot);
    pages.addFlags(pfn, PG_SWAPCACHE | PG_SWAPBACKED | PG_UPTODATE);
    vmstat.modItem(NR_SWAPCACHE, 1);
  };

  const removeFromCache = (ctx: Context, pfn: Pfn, shadow = -1): void => {
    bugOn((pages.flags(pfn) & PG_SWAPCACHE) === 0, "SWAP-1: page is not in the swap cache", pfn);
    const slot = slotOf(pfn);
    pages.clearFlags(pfn, PG_SWAPCACHE);
    pages.setPrivate(pfn, 0);
    vmstat.modItem(NR_SWAPCACHE, -1);
    slots.forget(ctx, slot, shadow);
    refs.putPage(ctx, pfn);
  };

  /** Gives the slot up if no entry names it (SWAP-3). The page is dirty then: its only copy is this one. */
  const release = (ctx: Context, pfn: Pfn): boolean => {
    const isCached = (pages.flags(pfn) & PG_SWAPCACHE) !== 0;
    if (!isCached || (pages.flags(pfn) & PG_WRITEBACK) !== 0 || slots.names(slotOf(pfn)) > 0) return false;
    pages.addFlags(pfn, PG_DIRTY);
    removeFromCache(ctx, pfn);
    return true;
  };

  // ── Reading in ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** Is there memory for what nobody has asked for yet? */
  const hasSpare = (): boolean => {
    let low = 0;
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) low += zones.wmark(zone, WMARK_LOW);
    return zones.totalFree() > low + WINDOW;
  };
  const allocFrame = (ctx: Context, gfp: number): Pfn =>
    pageAlloc.tryAllocPages(ctx, 0, (GFP_HIGHUSER_MOVABLE | gfp) as typeof GFP_HIGHUSER_MOVABLE);
  const isReadable = (slot: number): boolean =>
    slots.isUsable(slot) && slots.names(slot) > 0 && slots.cached(slot) === NO_PFN;

  const frames = new Int32Array(WINDOW);

  /** First and last slot of the run around `slot`, inside its window, that is to be read. */
  const windowOf = (slot: number): readonly [first: number, end: number] => {
    if (!hasSpare()) return [slot, slot + 1];
    const start = slot - (slot % WINDOW);
    let [first, end] = [slot, slot + 1];
    while (first > start && isReadable(first - 1)) first--;
    while (end < start + WINDOW && isReadable(end)) end++;
    return [first, end];
  };

  /** Frames for slots `[first, end)` into `frames`; false if there are not so many, and then none. */
  const allocFrames = (ctx: Context, nr: number, gfp: number): boolean => {
    for (let i = 0; i < nr; i++) {
      frames[i] = allocFrame(ctx, gfp);
      if (frames[i] !== NO_PFN) continue;
      freeFrames(ctx, i);
      return false;
    }
    return true;
  };
  const freeFrames = (ctx: Context, nr: number): void => {
    for (let i = 0; i < nr; i++) pageAlloc.freePages(ctx, asPfn(frames[i] as number), 0);
  };

  /** Reads slots `[first, end)` into the cache: 0, −ENOMEM, −EIO. */
  const readRun = (ctx: Context, first: number, end: number, gfp: number): number => {
    const nr = end - first;
    if (!allocFrames(ctx, nr, gfp)) return -ENOMEM;
    const error = deviceOf(first)?.read(ctx as TaskContext, pageOf(first), frames, nr) ?? -EIO;
    if (error !== 0) {
      freeFrames(ctx, nr);
      return -EIO;
    }
    for (let i = 0; i < nr; i++) {
      const pfn = asPfn(frames[i] as number);
      const shadow = slots.shadow(first + i);
      slots.cache(ctx, first + i, pfn);
      enterCache(pfn, first + i);
      if (workingSet.refault(ctx, pfn, shadow)) pages.addFlags(pfn, PG_ACTIVE | PG_WORKINGSET);
      lru.add(ctx, pfn);
    }
    vmstat.countEvents(ctx, PSWPIN, nr);
    if (nr > 1) vmstat.countEvents(ctx, SWAP_RA, nr - 1);
    return 0;
  };

  const readIn = (ctx: Context, slot: number): number => {
    const [first, end] = windowOf(slot);
    // Neighbours are a gift: neither their bad sectors nor their want of memory is this fault's.
    if (end - first > 1 && readRun(ctx, first, end, __GFP_NORETRY | __GFP_NOWARN) === 0) return 0;
    return readRun(ctx, slot, slot + 1, __GFP_NOWARN);
  };

  // ── The fault ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** An entry that may be written, but has not been, keeps its D bit clear: the page is as in its slot. */
  const entryFlags = (prot: number, isOwn: boolean, isWrite: boolean): number => {
    const rights = leafRights(prot) | PTE_A;
    return isOwn ? rights | (isWrite ? PTE_D : 0) : rights & ~PTE_W;
  };

  const isSwapFull = (): boolean => slots.nrFree() * 100 <= slots.nrUsable() * (100 - SWAP_FULL_PERCENT);

  const count = (ctx: Context, mm: PhysAddr, pfn: Pfn, isMajor: boolean): void => {
    addField(mm, MM_RSS_ANON, 1);
    addField(mm, MM_SWAPENTS, -1);
    if (isMajor) {
      addField(mm, MM_MAJ_FAULTS, 1);
      vmstat.countEvents(ctx, PGMAJFAULT, 1);
    } else if ((pages.flags(pfn) & (PG_REFERENCED | PG_DIRTY | PG_WRITEBACK)) === 0) {
      vmstat.countEvents(ctx, SWAP_RA_HIT, 1);
    }
  };

  const bringIn = (ctx: Context, slot: number): number => {
    const error = slots.cached(slot) === NO_PFN ? readIn(ctx, slot) : 0;
    return error === 0 ? slots.cached(slot) : error;
  };

  const fault: SwapLayer["fault"] = (ctx, mm, vma, page, pte, isWrite) => {
    const { rmap, pageTables } = connected();
    const slot = slotOfPte(pageTables.readPte(pte));
    const isMajor = slots.cached(slot) === NO_PFN;
    const got = bringIn(ctx, slot);
    if (got < 0) return got;
    const pfn = asPfn(got);
    const isOwn = slots.names(slot) === 1 && pages.mapcount(pfn) === 0;
    count(ctx, mm, pfn, isMajor);
    refs.getPage(pfn);
    rmap.addAnon(pfn, vma, page);
    slots.dropName(ctx, slot);
    pageTables.writePte(pte, pteOf(pfn, entryFlags(port.ld32(vma + VMA_PROT), isOwn, isWrite)));
    pages.addFlags(pfn, PG_REFERENCED);
    if (isOwn && (isWrite || isSwapFull())) release(ctx, pfn);
    return 0;
  };

  return {
    layer: {
      free(ctx, slot) {
        const pfn = slots.cached(slot);
        const names = slots.dropName(ctx, slot);
        if (names === 0 && pfn !== NO_PFN && pages.mapcount(pfn) === 0) release(ctx, pfn);
      },
      dup: (ctx, slot) => slots.addName(ctx, slot),
      fault,
      bringIn,
      release: (ctx, pfn) => release(ctx, asPfn(pfn)),
      nrPages: slots.nrUsable,
    },
    connect(built) {
      parts = built;
    },
    setDevice(area, io) {
      devices[area] = io;
      slots.setWritable(area, io !== null);
    },
    hasDevice: () => devices.some((io) => io !== null),
    deviceOf,
    pageOf,
    addToCache(ctx, pfn) {
      bugOn((pages.flags(pfn) & (PG_SWAPCACHE | PG_LRU)) !== 0, "SWAP-1: page has a slot, or is not isolated", pfn);
      const slot = slots.alloc(ctx, pfn);
      if (slot < 0) return false;
      refs.getPage(pfn);
      enterCache(pfn, slot);
      pages.addFlags(pfn, PG_DIRTY);
      return true;
    },
    takesBack: (pfn) => slots.isWritable(slotOf(pfn)),
    removeFromCache,
    nrFree: slots.nrFree,
  };
}
