/**
 * What dma-debug remembers: one entry per live mapping, in RAM, found by bus address and by cache line.
 *
 * | offset | field       | width | meaning                                                                  |
 * |--------|-------------|-------|--------------------------------------------------------------------------|
 * | 0      | node        | 16    | tree of all entries by (device, bus address); link of the free list      |
 * | 16     | line node   | 16    | tree by first cache line, of the mappings that the device may write      |
 * | 32     | subtree end | u32   | largest last line below the line node                                    |
 * | 36     | device      | u32   | address of its struct device                                             |
 * | 40     | dma         | u32   | bus address                                                              |
 * | 44     | size        | u32   | bytes                                                                    |
 * | 48     | type        | u32   | DEBUG_SINGLE …                                                           |
 * | 52     | direction   | u32   |                                                                          |
 * | 56     | sg call     | u32   | entries that mapSg was given                                             |
 * | 60     | sg mapped   | u32   | segments that it made                                                    |
 * | 64     | phys        | u32   | memory behind the first byte                                             |
 * | 68     | map error   | u32   | MAP_ERR_…                                                                |
 * | 72, 76 | lines       | u32   | first and last cache line of the memory up to the first gap              |
 *
 *   DBE-1  an entry is in the address tree or on the free list; in the line tree iff the device may write the memory
 *   DBE-2  num_free + entries in the tree = nr_total
 *
 * Linux hashes by bits of the bus address and tracks the first cache line of a mapping only; trees find the neighbours
 * that a hash cannot. Entries come from whole pages; the pages go back when the last device is released.
 * Lock: the caller's. Context: any.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { createRbTree } from "../kernel/lib/rbtree.ts";
import { CACHE_LINE, PAGE_SIZE } from "../kernel/params.ts";
import { asPfn, asPhys, type Context, NO_PFN, NULL, type PhysAddr, pfnToPhys, physToPfn } from "../kernel/types.ts";
import type { DmaDevice } from "./dma_device.ts";
import { type DmaDirection, deviceWrites } from "./dma_ops.ts";
import { __GFP_NOWARN, GFP_ATOMIC } from "./gfp.ts";
import type { PageAllocator } from "./page_alloc.ts";

export const DEBUG_SINGLE = 0;
export const DEBUG_SG = 1;
export const DEBUG_COHERENT = 2;
export const DEBUG_NONCOHERENT = 3;
export const DEBUG_TYPE_NAMES: readonly string[] = ["single", "scatter-gather", "coherent", "noncoherent"];

export const MAP_ERR_CHECK_NOT_APPLICABLE = 0;
export const MAP_ERR_NOT_CHECKED = 1;
export const MAP_ERR_CHECKED = 2;

/** One mapping, as checks see it. */
export interface DebugEntry {
  readonly dev: DmaDevice;
  readonly dma: number;
  readonly size: number;
  readonly type: number;
  readonly direction: DmaDirection;
  readonly sgCallEnts: number;
  readonly sgMappedEnts: number;
  readonly phys: number;
  readonly mapErr: number;
}

const LINE_NODE = 16;
const SUBTREE_END = 32;
const FIELDS: readonly (readonly [keyof DebugEntry, number])[] = [
  ["dev", 36],
  ["dma", 40],
  ["size", 44],
  ["type", 48],
  ["direction", 52],
  ["sgCallEnts", 56],
  ["sgMappedEnts", 60],
  ["phys", 64],
  ["mapErr", 68],
];
const E_DEV = 36;
const E_DMA = 40;
const E_MAP_ERR = 68;
const E_FIRST_LINE = 72;
const E_LAST_LINE = 76;
const ENTRY_BYTES = 80;

// Static memory.
const ROOT = 0;
const LINE_ROOT = 4;
const FREE = 8;
const PAGES = 12;
const NUM_FREE = 16;
const MIN_FREE = 20;
const NR_TOTAL = 24;
export const DEBUG_ENTRIES_STATIC_BYTES = 32;

/** The first 16 bytes of a page of entries: the next page. */
const PAGE_HEADER = 16;
export const DEBUG_ENTRIES_PER_PAGE = Math.floor((PAGE_SIZE - PAGE_HEADER) / ENTRY_BYTES);

export interface DebugEntries {
  /** Remembers a mapping whose first `physBytes` are neighbours in memory; its address, NULL without memory. */
  add(ctx: Context, entry: DebugEntry, physBytes: number): PhysAddr;
  remove(addr: PhysAddr): void;
  read(addr: PhysAddr): DebugEntry;
  setMapErr(addr: PhysAddr, state: number): void;
  /** Entries of `dev` that start at bus address `dma`, in order of mapping. */
  at(dev: DmaDevice, dma: number): PhysAddr[];
  /** The entry of `dev` in which bus address `dma` lies, the one that reaches furthest; NULL if none. */
  containing(dev: DmaDevice, dma: number): PhysAddr;
  /** A mapping that the device may write on a cache line of `[phys, phys + bytes)`; NULL if none. */
  overlapping(phys: number, bytes: number): PhysAddr;
  forEach(visit: (entry: DebugEntry) => void): void;
  numFree(): number;
  minFree(): number;
  nrTotal(): number;
  /** Pages that hold entries: kept until drop(). */
  nrPages(): number;
  /** Removes every entry: nobody will ask for them again. */
  forget(): void;
  /** Gives the pages back if nothing is remembered. */
  drop(ctx: Context): void;
  check(): string | null;
}

export function createDebugEntries(port: MemoryPort, pageAlloc: PageAllocator, statics: PhysAddr): DebugEntries {
  const word = (offset: number): number => port.ld32(statics + offset);
  const setWord = (offset: number, value: number): void => port.st32(statics + offset, value);
  const root = asPhys(statics + ROOT);
  const lineRoot = asPhys(statics + LINE_ROOT);
  const lineEntry = (node: PhysAddr): number => node - LINE_NODE;

  const byAddress = createRbTree(port, {
    less: (a, b) => {
      const [devA, devB] = [port.ld32(a + E_DEV), port.ld32(b + E_DEV)];
      return devA === devB ? port.ld32(a + E_DMA) < port.ld32(b + E_DMA) : devA < devB;
    },
  });
  const subtreeEnd = (node: PhysAddr): number => (node === NULL ? 0 : port.ld32(lineEntry(node) + SUBTREE_END));
  const byLine = createRbTree(port, {
    less: (a, b) => port.ld32(lineEntry(a) + E_FIRST_LINE) < port.ld32(lineEntry(b) + E_FIRST_LINE),
    augment: (node) => {
      const own = port.ld32(lineEntry(node) + E_LAST_LINE);
      const end = Math.max(own, subtreeEnd(byLine.left(node)), subtreeEnd(byLine.right(node)));
      if (end === port.ld32(lineEntry(node) + SUBTREE_END)) return false;
      port.st32(lineEntry(node) + SUBTREE_END, end);
      return true;
    },
  });

  const grow = (ctx: Context): boolean => {
    const pfn = pageAlloc.tryAllocPages(ctx, 0, GFP_ATOMIC | __GFP_NOWARN);
    if (pfn === NO_PFN) return false;
    const page = pfnToPhys(pfn);
    port.st32(page, word(PAGES));
    setWord(PAGES, page);
    for (let at = page + PAGE_HEADER; at + ENTRY_BYTES <= page + PAGE_SIZE; at += ENTRY_BYTES) {
      port.st32(at, word(FREE));
      setWord(FREE, at);
      setWord(NUM_FREE, word(NUM_FREE) + 1);
      setWord(NR_TOTAL, word(NR_TOTAL) + 1);
    }
    if (port.ld32(page) === 0) setWord(MIN_FREE, word(NUM_FREE));
    return true;
  };

  const takeFree = (ctx: Context): PhysAddr => {
    if (word(FREE) === 0 && !grow(ctx)) return NULL;
    const addr = asPhys(word(FREE));
    setWord(FREE, port.ld32(addr));
    setWord(NUM_FREE, word(NUM_FREE) - 1);
    setWord(MIN_FREE, Math.min(word(MIN_FREE), word(NUM_FREE)));
    return addr;
  };

  const read = (addr: PhysAddr): DebugEntry => {
    const entry: Record<string, number> = {};
    for (const [name, offset] of FIELDS) entry[name] = port.ld32(addr + offset);
    return entry as unknown as DebugEntry;
  };

  /** First entry of the order at or above (dev, dma). */
  const lowerBound = (dev: DmaDevice, dma: number): PhysAddr =>
    byAddress.lowerBound(root, (node) => {
      const nodeDev = port.ld32(node + E_DEV);
      return nodeDev > dev || (nodeDev === dev && port.ld32(node + E_DMA) >= dma);
    });

  const lastLine = (phys: number, bytes: number): number => Math.floor((phys + bytes - 1) / CACHE_LINE);

  const remove = (addr: PhysAddr): void => {
    byAddress.erase(root, addr);
    if (deviceWrites(read(addr).direction)) byLine.erase(lineRoot, asPhys(addr + LINE_NODE));
    port.st32(addr, word(FREE));
    setWord(FREE, addr);
    setWord(NUM_FREE, word(NUM_FREE) + 1);
  };

  return {
    add(ctx, entry, physBytes) {
      const addr = takeFree(ctx);
      if (addr === NULL) return NULL;
      port.fill(addr, 0, ENTRY_BYTES);
      for (const [name, offset] of FIELDS) port.st32(addr + offset, entry[name]);
      port.st32(addr + E_FIRST_LINE, Math.floor(entry.phys / CACHE_LINE));
      port.st32(addr + E_LAST_LINE, lastLine(entry.phys, physBytes));
      byAddress.insert(root, addr);
      if (deviceWrites(entry.direction)) byLine.insert(lineRoot, asPhys(addr + LINE_NODE));
      return addr;
    },
    remove,
    forget() {
      for (let node = byAddress.first(root); node !== NULL; node = byAddress.first(root)) remove(node);
    },
    read,
    setMapErr: (addr, state) => port.st32(addr + E_MAP_ERR, state),
    at(dev, dma) {
      const found: PhysAddr[] = [];
      for (let node = lowerBound(dev, dma); node !== NULL; node = byAddress.next(node)) {
        if (port.ld32(node + E_DEV) !== dev || port.ld32(node + E_DMA) !== dma) break;
        found.push(node);
      }
      return found;
    },
    containing(dev, dma) {
      let best = NULL;
      let bestEnd = dma;
      const above = lowerBound(dev, dma + 1);
      for (
        let node = above === NULL ? byAddress.last(root) : byAddress.prev(above);
        node !== NULL && port.ld32(node + E_DEV) === dev;
        node = byAddress.prev(node)
      ) {
        const { dma: start, size } = read(node);
        if (start + size > bestEnd) [best, bestEnd] = [node, start + size];
        // Entries overlap only where memory is mapped twice: further down nothing reaches up here but those.
        if (best !== NULL && start < dma) break;
      }
      return best;
    },
    overlapping(phys, bytes) {
      const [first, last] = [Math.floor(phys / CACHE_LINE), lastLine(phys, bytes)];
      let node = byLine.top(lineRoot);
      while (node !== NULL) {
        const left = byLine.left(node);
        if (left !== NULL && subtreeEnd(left) >= first) {
          node = left;
          continue;
        }
        const entry = lineEntry(node);
        if (port.ld32(entry + E_FIRST_LINE) <= last && port.ld32(entry + E_LAST_LINE) >= first) return asPhys(entry);
        node = port.ld32(entry + E_FIRST_LINE) > last ? NULL : byLine.right(node);
      }
      return NULL;
    },
    forEach(visit) {
      for (let node = byAddress.first(root); node !== NULL; node = byAddress.next(node)) visit(read(node));
    },
    numFree: () => word(NUM_FREE),
    minFree: () => word(MIN_FREE),
    nrTotal: () => word(NR_TOTAL),
    nrPages() {
      let nr = 0;
      for (let page = word(PAGES); page !== 0; page = port.ld32(page)) nr++;
      return nr;
    },
    drop(ctx) {
      if (word(NUM_FREE) !== word(NR_TOTAL)) return;
      for (let page = word(PAGES); page !== 0; ) {
        const next = port.ld32(page);
        pageAlloc.freePages(ctx, asPfn(physToPfn(asPhys(page))), 0);
        page = next;
      }
      port.fill(statics, 0, DEBUG_ENTRIES_STATIC_BYTES);
    },
    check() {
      let nr = 0;
      for (let node = byAddress.first(root); node !== NULL; node = byAddress.next(node)) nr++;
      if (nr + word(NUM_FREE) !== word(NR_TOTAL)) return "DBE-2: entries are lost";
      return byAddress.check(root) ?? byLine.check(lineRoot);
    },
  };
}
