/**
 * The page cache: pages of files and of shared memory, found by their place in the file.
 *
 *      file, open files, VMAs ──▶ address_space ── radix tree ──▶ index 0 ─▶ frame, index 7 ─▶ frame, …
 *                                       ▲                                      │
 *                                       └────────── mapping, index ────────────┘
 *
 * There is one frame for a page of a file, whoever looks: read() and write() copy from and to it, a shared mapping
 * shows it, a private mapping shows it until the first store (memory.ts). A ramfs has no other store: a page that was
 * never written reads as zeros and gets its frame at the first touch, and stays until the file is truncated or gone.
 * Shared anonymous memory is the same with no name.
 *
 *   FMAP-1  a frame in the tree at index i has mapping = the address_space, index = i, and the tree's reference; no
 *           other frame has mapping ≠ 0 without PG_ANON
 *   FMAP-2  nr pages = words in the tree; NR_FILE_PAGES counts those of all trees, NR_SHMEM those of shared memory
 *   FMAP-3  the last user frees the address_space with all its pages, none of which is mapped then
 *   FMAP-4  no page beyond the end of the file is mapped or in the tree after a truncation
 *
 * Context: process; plain functions. Source: mm/filemap.c, mm/shmem.c, mm/truncate.c.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import { initListHead, listAddTail, listDel } from "../kernel/lib/list.ts";
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
import { __GFP_ZERO, GFP_HIGHUSER_MOVABLE } from "./gfp.ts";
import {
  ADDRESS_SPACE_BYTES,
  AS_COMMITTED,
  AS_FLAGS,
  AS_LIST,
  AS_NR_PAGES,
  AS_RADIX,
  AS_SHMEM,
  AS_SIZE,
  AS_USERS,
  VMA_FILE_LINK,
  VMA_MAPPING,
} from "./mm_struct.ts";
import { type Pages, PG_SWAPBACKED, PG_UNEVICTABLE, PG_UPTODATE } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import type { LruLists, PageRefs } from "./page_ref.ts";
import type { RadixTree } from "./radix.ts";
import { NR_COMMITTED, NR_FILE_PAGES, NR_SHMEM, type VmStat } from "./vmstat.ts";

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
  /** The same, with a zeroed frame where there was none; NO_PFN without memory. */
  findOrCreate(ctx: Context, mapping: PhysAddr, index: number): Pfn;
  /** Removes every page from `index` on; they are mapped nowhere. */
  removeFrom(ctx: Context, mapping: PhysAddr, index: number): void;
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
  readonly allocMapping: (ctx: Context) => PhysAddr;
  readonly freeMapping: (ctx: Context, mapping: PhysAddr) => void;
  readonly interruptPoint: (ctx: Context) => void;
}

export function createFileMap(deps: FileMapDeps): FileMap {
  const { port, pages, pageAlloc, refs, lru, vmstat, radix } = deps;
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);
  const addField = (base: PhysAddr, offset: number, delta: number): void =>
    port.st32(base + offset, port.ld32(base + offset) + delta);
  const rootOf = (mapping: PhysAddr): PhysAddr => asPhys(mapping + AS_RADIX);
  const isShmem = (mapping: PhysAddr): boolean => (field(mapping, AS_FLAGS) & AS_SHMEM) !== 0;

  const find = (mapping: PhysAddr, index: number): Pfn => asPfn(radix.load(rootOf(mapping), index));

  const count = (mapping: PhysAddr, delta: number): void => {
    addField(mapping, AS_NR_PAGES, delta);
    vmstat.modItem(NR_FILE_PAGES, delta);
    if (isShmem(mapping)) vmstat.modItem(NR_SHMEM, delta);
  };

  const findOrCreate: FileMap["findOrCreate"] = (ctx, mapping, index) => {
    const old = find(mapping, index);
    if (old !== NO_PFN) return old;
    const pfn = pageAlloc.tryAllocPages(ctx, 0, GFP_HIGHUSER_MOVABLE | __GFP_ZERO);
    if (pfn === NO_PFN) return NO_PFN;
    if (!radix.store(ctx, rootOf(mapping), index, pfn)) {
      pageAlloc.freePages(ctx, pfn, 0);
      return NO_PFN;
    }
    pages.setMapping(pfn, toGranule(mapping));
    pages.setIndex(pfn, index);
    // Nobody could bring it back: neither the ramfs nor shared memory has a copy elsewhere.
    pages.addFlags(pfn, PG_UPTODATE | PG_UNEVICTABLE | (isShmem(mapping) ? PG_SWAPBACKED : 0));
    lru.add(ctx, pfn);
    count(mapping, 1);
    return pfn;
  };

  const removeFrom: FileMap["removeFrom"] = (ctx, mapping, index) => {
    for (let at = radix.next(rootOf(mapping), index); at >= 0; at = radix.next(rootOf(mapping), at + 1)) {
      const pfn = asPfn(radix.erase(ctx, rootOf(mapping), at));
      bugOn(pages.mapcount(pfn) !== 0, "FMAP-4: a mapped page leaves its file", pfn, at);
      pages.setMapping(pfn, 0);
      count(mapping, -1);
      refs.putPage(ctx, pfn);
      deps.interruptPoint(ctx);
    }
  };

  const put: FileMap["put"] = (ctx, mapping) => {
    bugOn(field(mapping, AS_USERS) === 0, "FMAP-3: address_space put once too often", mapping);
    addField(mapping, AS_USERS, -1);
    if (field(mapping, AS_USERS) > 0) return;
    removeFrom(ctx, mapping, 0);
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
      return mapping;
    },
    get: (mapping) => addField(mapping, AS_USERS, 1),
    put,
    sizeBytes: (mapping) => port.ldF64(mapping + AS_SIZE),
    setSize: (mapping, bytes) => port.stF64(mapping + AS_SIZE, bytes),
    nrPages: (mapping) => field(mapping, AS_NR_PAGES),
    find,
    findOrCreate,
    removeFrom,
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
