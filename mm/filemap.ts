/**
 * The page cache: pages of files and of shared memory, found by their place in the file.
 *
 *      file, open files, VMAs ──▶ address_space ── radix tree ──▶ index 0 ─▶ frame, index 7 ─▶ frame, …
 *                                       ▲                                      │
 *                                       └────────── mapping, index ────────────┘
 *
 * There is one frame for a page of a file, whoever looks: read() and write() copy from and to it, a shared mapping
 * shows it, a private mapping shows it until the first store (memory.ts). Where a page is when it has no frame depends
 * on the file:
 *
 *   ramfs             nowhere: it was never written, and reads as zeros; its frames stay until truncation
 *   tmpfs, shared     the same, or in swap: the tree has the slot; frames go there under pressure (vmscan.ts)
 *   disk (AS_DISK)    on the disk (disk_cache.ts); a clean frame may go at any time, and leaves a shadow
 *                     (workingset.ts)
 *
 * Words of the tree: a frame number; or, with bit 31, no page: with bit 30 a swap slot, without it a shadow.
 *
 *   FMAP-1  a frame in the tree at index i has mapping = the address_space, index = i, and the tree's reference; no
 *           other frame has mapping ≠ 0 without PG_ANON
 *   FMAP-2  nr pages = frames in the tree; NR_FILE_PAGES counts those of all trees, NR_SHMEM those of shared memory and
 *           tmpfs, NR_BLOCKDEV_PAGES those of disks
 *   FMAP-3  the last user frees the address_space with all its pages, none of which is mapped then
 *   FMAP-4  no page beyond the end of the file is mapped or in the tree after a truncation
 *   FMAP-5  a page of a disk in the tree has its content: it is put there when it has been read, or is about to be
 *           written over as a whole
 *   FMAP-6  a slot in the tree is one name of it (SLOT-3); nr swapped = slots in the tree
 *
 * Context: process; plain functions. Source: mm/filemap.c, mm/shmem.c, mm/truncate.c.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bug, bugOn } from "../kernel/bug.ts";
import { initListHead, listAddTail, listDel, listFirst, listNext } from "../kernel/lib/list.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import {
  asPfn,
  asPhys,
  type Context,
  fromGranule,
  NO_PFN,
  NULL,
  type Pfn,
  type PhysAddr,
  pfnToPhys,
  toGranule,
} from "../kernel/types.ts";
import { ENOMEM } from "../kernel/uapi/errno.ts";
import { __GFP_ZERO, GFP_HIGHUSER_MOVABLE } from "./gfp.ts";
import {
  ADDRESS_SPACE_BYTES,
  AS_COMMITTED,
  AS_DISK,
  AS_FLAGS,
  AS_LIST,
  AS_NR_PAGES,
  AS_NR_SHADOWS,
  AS_NR_SWAPPED,
  AS_RADIX,
  AS_SHMEM,
  AS_SIZE,
  AS_SWAP_LINK,
  AS_TMPFS,
  AS_USERS,
  VMA_FILE_LINK,
  VMA_MAPPING,
} from "./mm_struct.ts";
import { type Pages, PG_SWAPBACKED, PG_SWAPCACHE, PG_UNEVICTABLE, PG_UPTODATE, PG_WRITEBACK } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import type { DirtyPages } from "./page_dirty.ts";
import type { LruLists, PageRefs } from "./page_ref.ts";
import type { RadixTree } from "./radix.ts";
import type { SwapLayer } from "./swap_entry.ts";
import { NR_BLOCKDEV_PAGES, NR_COMMITTED, NR_FILE_PAGES, NR_SHMEM, type VmStat } from "./vmstat.ts";

/** Words of the tree that are no frames. */
const NO_FRAME = 0x8000_0000;
const IN_SWAP = 0x4000_0000;
const VALUE_MASK = 0x3fff_ffff;

/** Files end here: 16 TiB, so that a page's index is below 2^32. */
export const MAX_FILE_BYTES = 2 ** 32 * PAGE_SIZE;

export interface FileMap {
  /** A new address_space with one user; `flags` AS_. NULL without memory. */
  create(ctx: Context, flags: number): PhysAddr;
  get(mapping: PhysAddr): void;
  /** One user less; the last one frees everything (FMAP-3). */
  put(ctx: Context, mapping: PhysAddr): void;
  sizeBytes(mapping: PhysAddr): number;
  setSize(mapping: PhysAddr, bytes: number): void;
  /** Pages that the file has, with holes. */
  nrPages(mapping: PhysAddr): number;
  /** Frame of page `index`; NO_PFN if it has none. The caller takes a reference if it keeps it. */
  find(mapping: PhysAddr, index: number): Pfn;
  /**
   * The frame of page `index`, whatever that takes: a zeroed one where there is nothing, what is in swap or on the disk
   * read in place, with neighbours unless `isAlone`. −ENOMEM, −EIO.
   */
  obtain(ctx: Context, mapping: PhysAddr, index: number, isAlone?: boolean): number;
  /** Must obtain() read something? */
  needsIo(mapping: PhysAddr, index: number): boolean;
  /** Is there neither a frame nor a copy elsewhere: does it read as zeros? */
  isHole(mapping: PhysAddr, index: number): boolean;
  isDisk(mapping: PhysAddr): boolean;
  /** A page of a disk, where none is; the caller's reference becomes the tree's. False without memory. */
  insert(ctx: Context, mapping: PhysAddr, index: number, pfn: Pfn): boolean;
  /** What a page of a disk left behind when it was evicted; −1: nothing. */
  shadow(mapping: PhysAddr, index: number): number;
  /** An unmapped, clean page of a disk leaves the tree, which gives up its reference; `shadow` < 0: nothing stays. */
  evict(ctx: Context, pfn: Pfn, shadow: number): void;
  /** Forgets at most `nr` shadows of a disk; how many. */
  dropShadows(ctx: Context, mapping: PhysAddr, nr: number): number;
  /** Does the page belong to shared memory or a tmpfs? */
  isSwappable(pfn: Pfn): boolean;
  /** An unmapped page of these leaves the tree for the slot that it has in the swap cache; false: no name to be had. */
  moveToSwap(ctx: Context, pfn: Pfn): boolean;
  /** Brings all pages of shared memory and tmpfs back from swap: 0 or −errno. */
  bringAllIn(ctx: Context, isWanted: (slot: number) => boolean): number;
  /** Removes every page from `index` on; they are mapped nowhere. */
  removeFrom(ctx: Context, mapping: PhysAddr, index: number): void;
  /** Registers who reads pages of disks in place: the frame, now in the tree, or −errno. */
  onRead(read: (ctx: Context, mapping: PhysAddr, index: number, isAlone: boolean) => number): void;
  /** Registers who learns that a disk's file has no user left but one. */
  onIdle(hook: () => void): void;
  /** FMAP-2, FMAP-6 of one: a sentence, or null. */
  check(mapping: PhysAddr): string | null;
  /** `to` takes the place of `from`, whose columns it has already got (migration). */
  replace(ctx: Context, from: Pfn, to: Pfn): void;
  /** `vma` shows `mapping`: on its list, and a user. */
  join(vma: PhysAddr, mapping: PhysAddr): void;
  /** The reverse, before `vma` is freed. */
  leave(ctx: Context, vma: PhysAddr): void;
}

export interface FileMapDeps {
  readonly port: MemoryPort;
  readonly pages: Pages;
  readonly pageAlloc: PageAllocator;
  readonly refs: PageRefs;
  readonly lru: LruLists;
  readonly vmstat: VmStat;
  readonly radix: RadixTree;
  readonly dirty: DirtyPages;
  readonly swap: SwapLayer;
  /** Head of the list of those whose pages swap can take. */
  readonly swapList: PhysAddr;
  readonly allocMapping: (ctx: Context) => PhysAddr;
  readonly freeMapping: (ctx: Context, mapping: PhysAddr) => void;
  readonly interruptPoint: (ctx: Context) => void;
}

export function createFileMap(deps: FileMapDeps): FileMap {
  const { port, pages, pageAlloc, refs, lru, vmstat, radix, dirty, swap, swapList } = deps;
  let idle = (): void => {};
  let readPage = (_ctx: Context, _mapping: PhysAddr, _index: number, _isAlone: boolean): number =>
    bug("FMAP-5: nobody reads pages");
  initListHead(port, swapList);
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);
  const addField = (base: PhysAddr, offset: number, delta: number): void =>
    port.st32(base + offset, port.ld32(base + offset) + delta);
  const rootOf = (mapping: PhysAddr): PhysAddr => asPhys(mapping + AS_RADIX);
  const mappingOf = (pfn: Pfn): PhysAddr => fromGranule(pages.mapping(pfn));
  const hasFlag = (mapping: PhysAddr, flags: number): boolean => (field(mapping, AS_FLAGS) & flags) !== 0;
  const isSwapBacked = (mapping: PhysAddr): boolean => hasFlag(mapping, AS_SHMEM | AS_TMPFS);
  const isDisk = (mapping: PhysAddr): boolean => hasFlag(mapping, AS_DISK);

  const wordOf = (mapping: PhysAddr, index: number): number => radix.load(rootOf(mapping), index);
  const isFrame = (word: number): boolean => word !== 0 && word < NO_FRAME;
  const isSlot = (word: number): boolean => word >= NO_FRAME + IN_SWAP;
  const frameOf = (word: number): Pfn => (isFrame(word) ? asPfn(word) : NO_PFN);
  const find = (mapping: PhysAddr, index: number): Pfn => frameOf(wordOf(mapping, index));

  const count = (mapping: PhysAddr, delta: number): void => {
    addField(mapping, AS_NR_PAGES, delta);
    vmstat.modItem(NR_FILE_PAGES, delta);
    if (isSwapBacked(mapping)) vmstat.modItem(NR_SHMEM, delta);
    else if (isDisk(mapping)) vmstat.modItem(NR_BLOCKDEV_PAGES, delta);
  };

  // ── Coming ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Puts a frame into the tree, over a word that is no frame or nothing; false without memory. */
  const enter = (ctx: Context, mapping: PhysAddr, index: number, pfn: Pfn): boolean => {
    const old = wordOf(mapping, index);
    bugOn(isFrame(old), "FMAP-1: two frames for one page", old, pfn);
    if (!radix.store(ctx, rootOf(mapping), index, pfn)) return false;
    if (isSlot(old)) addField(mapping, AS_NR_SWAPPED, -1);
    else if (old !== 0) addField(mapping, AS_NR_SHADOWS, -1);
    pages.setMapping(pfn, toGranule(mapping));
    pages.setIndex(pfn, index);
    count(mapping, 1);
    return true;
  };

  /** A page of zeros, where nothing is. */
  const create = (ctx: Context, mapping: PhysAddr, index: number): number => {
    const pfn = pageAlloc.tryAllocPages(ctx, 0, GFP_HIGHUSER_MOVABLE | __GFP_ZERO);
    if (pfn === NO_PFN) return -ENOMEM;
    if (!enter(ctx, mapping, index, pfn)) {
      pageAlloc.freePages(ctx, pfn, 0);
      return -ENOMEM;
    }
    // A page of a ramfs could not be brought back: there is no copy elsewhere.
    pages.addFlags(pfn, PG_UPTODATE | (isSwapBacked(mapping) ? PG_SWAPBACKED : PG_UNEVICTABLE));
    lru.add(ctx, pfn);
    return pfn;
  };

  /** From swap: the tree's name of the slot ends, and with it the slot, as soon as its page is not being written. */
  const bringBack = (ctx: Context, mapping: PhysAddr, index: number, slot: number): number => {
    const got = swap.bringIn(ctx, slot);
    if (got < 0) return got;
    const pfn = asPfn(got);
    refs.getPage(pfn);
    if (!enter(ctx, mapping, index, pfn)) bug("RDX-2: no room where a word was", index);
    swap.free(ctx, slot);
    return pfn;
  };

  const obtain: FileMap["obtain"] = (ctx, mapping, index, isAlone = false) => {
    const word = wordOf(mapping, index);
    if (isFrame(word)) return word;
    if (isSlot(word)) return bringBack(ctx, mapping, index, word & VALUE_MASK);
    return isDisk(mapping) ? readPage(ctx, mapping, index, isAlone) : create(ctx, mapping, index);
  };

  // ── Going ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A frame has left the tree: it belongs to no file, and the tree's reference goes. */
  const part = (ctx: Context, mapping: PhysAddr, pfn: Pfn): void => {
    bugOn(pages.mapcount(pfn) !== 0, "FMAP-4: a mapped page leaves its file", pfn, pages.index(pfn));
    pages.setMapping(pfn, 0);
    count(mapping, -1);
    if ((pages.flags(pfn) & PG_SWAPCACHE) !== 0) swap.release(ctx, pfn);
    refs.putPage(ctx, pfn);
  };

  const removeFrom: FileMap["removeFrom"] = (ctx, mapping, index) => {
    for (let at = radix.next(rootOf(mapping), index); at >= 0; at = radix.next(rootOf(mapping), at + 1)) {
      const pfn = find(mapping, at);
      if (pfn !== NO_PFN && isDisk(mapping)) {
        bugOn((pages.flags(pfn) & PG_WRITEBACK) !== 0, "DTY-1: a page under writeback leaves its file", pfn);
        dirty.cancel(pfn);
      }
      const word = radix.erase(ctx, rootOf(mapping), at);
      if (isFrame(word)) part(ctx, mapping, asPfn(word));
      else if (isSlot(word)) {
        addField(mapping, AS_NR_SWAPPED, -1);
        swap.free(ctx, word & VALUE_MASK);
      } else addField(mapping, AS_NR_SHADOWS, -1);
      deps.interruptPoint(ctx);
    }
  };

  /** Puts a word that is no frame in the place of a frame. */
  const displace = (ctx: Context, pfn: Pfn, word: number): PhysAddr => {
    const mapping = mappingOf(pfn);
    if (!radix.store(ctx, rootOf(mapping), pages.index(pfn), (NO_FRAME | word) >>> 0)) bug("RDX-2: no room", pfn);
    return mapping;
  };

  const put: FileMap["put"] = (ctx, mapping) => {
    bugOn(field(mapping, AS_USERS) === 0, "FMAP-3: address_space put once too often", mapping);
    addField(mapping, AS_USERS, -1);
    if (field(mapping, AS_USERS) === 1 && isDisk(mapping)) idle();
    if (field(mapping, AS_USERS) > 0) return;
    removeFrom(ctx, mapping, 0);
    if (isSwapBacked(mapping)) listDel(port, asPhys(mapping + AS_SWAP_LINK));
    vmstat.modItem(NR_COMMITTED, -field(mapping, AS_COMMITTED));
    deps.freeMapping(ctx, mapping);
  };

  return {
    create(ctx, flags) {
      const mapping = deps.allocMapping(ctx);
      if (mapping === NULL) return NULL;
      port.fill(mapping, 0, ADDRESS_SPACE_BYTES);
      initListHead(port, asPhys(mapping + AS_LIST));
      port.st32(mapping + AS_FLAGS, flags);
      port.st32(mapping + AS_USERS, 1);
      if (isSwapBacked(mapping)) {
        initListHead(port, asPhys(mapping + AS_SWAP_LINK));
        listAddTail(port, asPhys(mapping + AS_SWAP_LINK), swapList);
      }
      return mapping;
    },
    get: (mapping) => addField(mapping, AS_USERS, 1),
    put,
    sizeBytes: (mapping) => port.ldF64(mapping + AS_SIZE),
    setSize: (mapping, bytes) => port.stF64(mapping + AS_SIZE, bytes),
    nrPages: (mapping) => field(mapping, AS_NR_PAGES),
    find,
    obtain,
    needsIo(mapping, index) {
      const word = wordOf(mapping, index);
      return !isFrame(word) && (isSlot(word) || isDisk(mapping));
    },
    isHole: (mapping, index) => wordOf(mapping, index) === 0 && !isDisk(mapping),
    isDisk,
    insert: enter,
    shadow(mapping, index) {
      const word = wordOf(mapping, index);
      return word >= NO_FRAME && !isSlot(word) ? word & VALUE_MASK : -1;
    },
    evict(ctx, pfn, shadow) {
      const mapping = mappingOf(pfn);
      if (shadow < 0) radix.erase(ctx, rootOf(mapping), pages.index(pfn));
      else {
        displace(ctx, pfn, shadow);
        addField(mapping, AS_NR_SHADOWS, 1);
      }
      part(ctx, mapping, pfn);
    },
    dropShadows(ctx, mapping, nr) {
      const root = rootOf(mapping);
      let nrDropped = 0;
      for (let at = radix.next(root, 0); at >= 0 && nrDropped < nr; at = radix.next(root, at + 1)) {
        if (isFrame(wordOf(mapping, at))) continue;
        radix.erase(ctx, root, at);
        addField(mapping, AS_NR_SHADOWS, -1);
        nrDropped++;
      }
      return nrDropped;
    },
    isSwappable: (pfn) => pages.mapping(pfn) !== 0 && isSwapBacked(mappingOf(pfn)),
    moveToSwap(ctx, pfn) {
      const slot = pages.private(pfn);
      if (swap.dup(ctx, slot) !== 0) return false;
      const mapping = displace(ctx, pfn, IN_SWAP | slot);
      addField(mapping, AS_NR_SWAPPED, 1);
      part(ctx, mapping, pfn);
      return true;
    },
    bringAllIn(ctx, isWanted) {
      for (let link = listFirst(port, swapList); link !== NULL && link !== swapList; link = listNext(port, link)) {
        const mapping = asPhys(link - AS_SWAP_LINK);
        for (let at = 0; at >= 0 && field(mapping, AS_NR_SWAPPED) > 0; at = radix.next(rootOf(mapping), at + 1)) {
          const word = wordOf(mapping, at);
          const got = isSlot(word) && isWanted(word & VALUE_MASK) ? obtain(ctx, mapping, at) : 0;
          if (got < 0) return got;
        }
      }
      return 0;
    },
    removeFrom,
    onIdle(hook) {
      idle = hook;
    },
    onRead(read) {
      readPage = read;
    },
    check(mapping) {
      const nr = { frames: 0, slots: 0, shadows: 0 };
      for (let at = radix.next(rootOf(mapping), 0); at >= 0; at = radix.next(rootOf(mapping), at + 1)) {
        const word = wordOf(mapping, at);
        if (isFrame(word)) nr.frames++;
        else if (isSlot(word)) nr.slots++;
        else nr.shadows++;
      }
      const counted = [AS_NR_PAGES, AS_NR_SWAPPED, AS_NR_SHADOWS].map((offset) => field(mapping, offset));
      const isRight = Object.values(nr).every((n, i) => n === counted[i]);
      return isRight ? null : `FMAP-2: a file with ${Object.values(nr)} frames, slots, shadows has counted ${counted}`;
    },
    replace(ctx, from, to) {
      const mapping = fromGranule(pages.mapping(to));
      const isThere = find(mapping, pages.index(to)) === from;
      bugOn(!isThere || !radix.store(ctx, rootOf(mapping), pages.index(to), to), "FMAP-1: not in its file", from, to);
    },
    join(vma, mapping) {
      port.st32(vma + VMA_MAPPING, toGranule(mapping));
      initListHead(port, asPhys(vma + VMA_FILE_LINK));
      listAddTail(port, asPhys(vma + VMA_FILE_LINK), asPhys(mapping + AS_LIST));
      addField(mapping, AS_USERS, 1);
    },
    leave(ctx, vma) {
      const mapping = fromGranule(field(vma, VMA_MAPPING));
      if (mapping === NULL) return;
      listDel(port, asPhys(vma + VMA_FILE_LINK));
      port.st32(vma + VMA_MAPPING, 0);
      put(ctx, mapping);
    },
  };
}

/** Physical address of byte `at` of a file whose frame is `pfn`. */
export const fileByte = (pfn: Pfn, at: number): PhysAddr => asPhys(pfnToPhys(pfn) + (at % PAGE_SIZE));
