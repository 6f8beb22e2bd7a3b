/**
 * memblock: who owns which byte of RAM before there is an allocator.
 *
 * At power-on the kernel knows a firmware map and needs memory at once: for `struct page` itself, for page tables. The
 * buddy allocator cannot serve, since its own tables do not exist yet. memblock needs nothing but two sorted lists of
 * ranges, in static memory: what is RAM (`memory`) and what of the address space is taken (`reserved`).
 *
 *   memory     ██████████         ████████████████████████████      what the firmware calls usable
 *   reserved     ▒▒    ▒▒▒▒▒▒▒▒▒      ▒▒▒▒                 ▒▒▒      may cover holes and lie outside memory
 *   free       ▓▓  ▓▓▓▓                   ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓         memory − reserved: never stored, always derived
 *
 * To allocate is to find a free range and reserve it; to free is to take a range out of `reserved`; neither has to know
 * about the other's calls. Every operation costs O(n) in the number of regions, which is fine for some hundred calls.
 * In the end each whole free page goes to the buddy allocator, and memblock is over.
 *
 *   MB-1   Regions of a table are sorted, disjoint and not empty: start(i) < end(i) ≤ start(i+1).
 *   MB-2   Adjacent regions with the same flags are one: end(i) = start(i+1) only where flags differ.
 *   MB-3   alloc() returns free bytes only and reserves exactly these: never a hole, never what is taken.
 *   MB-4   A result is a multiple of `align`, ends at or below maxAddr, and starts at or above minAddr if that is
 *          possible at all: without room above it the lower limit is dropped (Linux too prefers memory to a hint).
 *   MB-5   Top-down the result is the highest that MB-3 and MB-4 allow, bottom-up the lowest.
 *   MB-6   Free bytes + reserved bytes of memory = memory. Freeing and removing what is absent changes nothing.
 *   MB-7   Page 0 is never given out, so that address 0 can mean "none".
 *   MB-8   A range that would pass 4 GiB is cut there.
 *   MB-9   A full array doubles, once allowResize() has said that everything taken is on record; before, and when no
 *          memory is left, the operation fails with −ENOMEM and has changed nothing. The new array is
 *          free memory outside the range in question, gets reserved, and an old one that was not static is freed.
 *   MB-10  The hand-over visits each page that is free as a whole once, and nothing else (ranges are rounded inwards).
 *          After discard() any call is a kernel bug: somebody else owns that memory now.
 *   MB-11  Memory from alloc() and allocExact() is zero; asked for as it is (`isRaw`), its bytes are left alone.
 *
 * In RAM, from `tableBase`:
 *
 *   offset  width  field                        a region, 16 bytes:
 *   0       u32    state bits                   0  u32  start
 *   8       12 B   memory:   array, cnt, max    4  u32  flags
 *   24      12 B   reserved: array, cnt, max    8  f64  end: one past the last byte; 2^32 does not fit a u32
 *   64      n·16   static array of memory, then that of reserved
 *
 * Reserve before you allocate: a range reserved over a region array would be lost when that array is outgrown.
 * Context: boot, one CPU, no locks. Nothing sleeps.
 * Differences: Linux stores sizes and totals (we derive them), has NUMA nodes, hotplug and mirror flags, and cuts at
 * 2^64 − 1. When it frees an outgrown array before the new one is reserved, or takes the new array from memory that is
 * just being removed, it relies on tables that seldom fill; ours may be any size, so the order here is the safe one.
 * Source: mm/memblock.c of Linux 6.12 for the behaviour.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import { isPowerOfTwo } from "../kernel/lib/bits.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { alignDown, alignUp, asPfn, asPhys, NULL, type Pfn, type PhysAddr } from "../kernel/types.ts";
import { ENOMEM } from "../kernel/uapi/errno.ts";
import {
  ADDR_LIMIT,
  createFreeWalk,
  createRegionTable,
  hex,
  MEMBLOCK_NONE,
  type MemblockRegion,
  REGION_BYTES,
  type RegionTable,
  range,
} from "./memblock_regions.ts";

/** Regions per table before it has to double, as in Linux. */
export const INIT_MEMBLOCK_REGIONS = 128;

const STATE = 0;
const STATE_BOTTOM_UP = 1;
const STATE_CAN_RESIZE = 2;
const STATE_DISCARDED = 4;

const MEMORY_TABLE = 8;
const RESERVED_TABLE = 24;
const STATIC_ARRAYS = 64;

/** Bytes of static memory at `tableBase`, 8-aligned, for tables of `nrRegions` regions each. */
export const memblockTableBytes = (nrRegions = INIT_MEMBLOCK_REGIONS): number =>
  STATIC_ARRAYS + 2 * nrRegions * REGION_BYTES;

export interface MemblockWindow {
  /** Lowest start, if possible (MB-4). Default 0. */
  readonly minAddr?: number;
  /** The result ends at or below. Default 4 GiB. */
  readonly maxAddr?: number;
  /** Default: what setBottomUp() said; top-down at first. */
  readonly topDown?: boolean;
  /** Not zeroed, for who overwrites it all anyway; Linux: memblock_alloc_raw. Default false. */
  readonly isRaw?: boolean;
}

export interface MemblockOptions {
  /** Regions in each static array, at least 2. */
  readonly nrRegions?: number;
  /** Receives what `memblock=debug` prints. */
  readonly log?: (line: string) => void;
}

/** Bases are addresses, sizes are bytes; a size of 0 changes nothing. Results: 0 or −ENOMEM (MB-9). */
export interface Memblock {
  /** Declares RAM. Where it is known already, the flags that it has stay. */
  add(base: PhysAddr, size: number, flags?: number): number;
  /** Takes a range out of `memory`. */
  remove(base: PhysAddr, size: number): number;
  /** Marks a range as taken. */
  reserve(base: PhysAddr, size: number): number;
  /** Takes a range out of `reserved`; Linux: memblock_phys_free. */
  free(base: PhysAddr, size: number): number;
  /** Reserves `size` ≥ 1 zeroed bytes; `align` is a power of two. NULL: no room, or no room in the table (MB-9). */
  alloc(size: number, align: number, window?: MemblockWindow): PhysAddr;
  /** Reserves just this range and zeroes it. NULL: it is not free memory as a whole, or it touches page 0. */
  allocExact(base: PhysAddr, size: number): PhysAddr;
  isMemory(addr: PhysAddr): boolean;
  isReserved(addr: PhysAddr): boolean;
  /** Does the range have a byte in `memory` / in `reserved`? */
  overlapsMemory(base: PhysAddr, size: number): boolean;
  isRegionReserved(base: PhysAddr, size: number): boolean;
  setBottomUp(isOn: boolean): void;
  isBottomUp(): boolean;
  /** From now on the arrays may grow: what must not be overwritten is reserved. */
  allowResize(): void;
  /** Rounds each memory region inwards to `align`, a power of two; drops those that vanish. */
  trim(align: number): void;
  /** Bytes in `memory`. O(n). */
  memorySize(): number;
  /** Bytes in `reserved`, including what lies outside memory. O(n). */
  reservedSize(): number;
  /** Lowest byte of memory, and one past the highest; 0 without memory. */
  startOfDram(): PhysAddr;
  endOfDram(): number;
  /** Visits the whole free pages, ascending (MB-10). `visit` must not call memblock. */
  forEachFreeRange(visit: (startPfn: Pfn, endPfn: Pfn) => void): void;
  /** Ends memblock. `visit` gets the pages of region arrays that had grown, for the buddy allocator to take over. */
  discard(visit: (startPfn: Pfn, endPfn: Pfn) => void): void;
  memoryRegions(): MemblockRegion[];
  reservedRegions(): MemblockRegion[];
  /** Lines as Linux prints them for `memblock=debug`. */
  dump(): string[];
  /** MB-1, MB-2, MB-9; a sentence about the first violation, or null. O(n). */
  check(): string | null;
}

/**
 * An empty memblock whose state lives at `tableBase` (8-aligned, `memblockTableBytes()` bytes). The memory of the
 * tables is not reserved by this: it is part of the kernel image.
 */
export function createMemblock(port: MemoryPort, tableBase: PhysAddr, options: MemblockOptions = {}): Memblock {
  const { nrRegions = INIT_MEMBLOCK_REGIONS, log } = options;
  bugOn(nrRegions < 2, "memblock: tables too small to grow", nrRegions);
  const staticArray = tableBase + STATIC_ARRAYS;
  const memory = createRegionTable(port, "memory", tableBase + MEMORY_TABLE, staticArray, nrRegions);
  const reserved = createRegionTable(
    port,
    "reserved",
    tableBase + RESERVED_TABLE,
    staticArray + nrRegions * REGION_BYTES,
    nrRegions,
  );
  const { nextFree, freeEnd, prevFree, freeStart } = createFreeWalk(memory, reserved);
  port.st32(tableBase + STATE, 0);

  const hasState = (bit: number): boolean => (port.ld32(tableBase + STATE) & bit) !== 0;
  /** Every way in passes here, with the table that it is about (MB-10). */
  const live = (table: RegionTable): RegionTable => {
    bugOn(hasState(STATE_DISCARDED), "memblock: used after the hand-over");
    return table;
  };
  const setState = (bit: number, isOn: boolean): void => {
    live(memory);
    const others = port.ld32(tableBase + STATE) & ~bit;
    port.st32(tableBase + STATE, isOn ? others | bit : others);
  };
  const debug = (name: string, base: number, size: number): void => log?.(`${name}: ${range(base, base + size)}`);

  /** Lowest or highest fit within [min, max), or 0. */
  const find = (size: number, align: number, min: number, max: number, topDown: boolean): number => {
    const low = Math.max(min, PAGE_SIZE);
    const high = Math.min(max, ADDR_LIMIT);
    if (topDown) {
      for (let end = prevFree(high); end > low; end = prevFree(freeStart(end))) {
        const start = Math.max(freeStart(end), low);
        const addr = end < size ? 0 : alignDown(end - size, align);
        if (addr >= start) return addr;
      }
    } else {
      for (let start = nextFree(low); start < high; start = nextFree(freeEnd(start))) {
        const addr = alignUp(start, align);
        if (addr + size <= Math.min(freeEnd(start), high)) return addr;
      }
    }
    return 0;
  };

  /** Doubles the array of `table`, clear of the range that the caller is about to add or remove (MB-9). */
  const grow = (table: RegionTable, start: number, end: number): number => {
    if (!hasState(STATE_CAN_RESIZE)) return -ENOMEM;
    if (table === memory) {
      // The new array becomes a reserved region and the old one may leave a hole in one: make room for both first.
      while (reserved.cnt() + 2 > reserved.max()) {
        const error = grow(reserved, start, end);
        if (error !== 0) return error;
      }
    }
    const topDown = !hasState(STATE_BOTTOM_UP);
    const [oldArray, oldMax] = [table.array(), table.max()];
    const bytes = alignUp(2 * oldMax * REGION_BYTES, PAGE_SIZE);
    const array = find(bytes, PAGE_SIZE, end, ADDR_LIMIT, topDown) || find(bytes, PAGE_SIZE, 0, start, topDown);
    if (array === 0) {
      log?.(`memblock: Failed to double ${table.name} array from ${oldMax} to ${2 * oldMax} entries !`);
      return -ENOMEM;
    }
    log?.(`memblock: ${table.name} is doubled to ${2 * oldMax} at ${range(array, array + bytes)}`);
    table.moveTo(array, 2 * oldMax);
    reserved.cover(array, array + bytes, MEMBLOCK_NONE);
    if (!table.isStatic(oldArray)) {
      reserved.uncover(oldArray, oldArray + alignUp(oldMax * REGION_BYTES, PAGE_SIZE));
    }
    return 0;
  };

  const addRange = (table: RegionTable, start: number, size: number, flags: number): number => {
    const end = Math.min(start + size, ADDR_LIMIT);
    if (start >= end) return 0;
    // Growing may change the table, by the arrays that come and go: count anew each time. As in Linux, each gap needs
    // a free record, even one that merges with its neighbours right away.
    while (table.cnt() + table.countGaps(start, end) > table.max()) {
      const error = grow(table, start, end);
      if (error !== 0) return error;
    }
    table.cover(start, end, flags);
    return 0;
  };

  const removeRange = (table: RegionTable, start: number, size: number): number => {
    const end = Math.min(start + size, ADDR_LIMIT);
    if (start >= end) return 0;
    while (table.cnt() === table.max() && table.isStrictlyInside(start, end)) {
      const error = grow(table, start, end);
      if (error !== 0) return error;
    }
    table.uncover(start, end);
    return 0;
  };

  const reserve = (base: number, size: number): number => {
    debug("memblock_reserve", base, size);
    return addRange(live(reserved), base, size, MEMBLOCK_NONE);
  };

  /** Reserves what was found, and zeroes it; NULL if nothing was. */
  const take = (addr: number, size: number, isRaw: boolean): PhysAddr => {
    if (addr === 0 || reserve(addr, size) !== 0) return NULL;
    if (!isRaw) port.fill(addr, 0, size);
    return asPhys(addr);
  };

  const alloc = (size: number, align: number, window: MemblockWindow = {}): PhysAddr => {
    live(memory);
    bugOn(!(size >= 1), "memblock: allocation of no bytes", size);
    bugOn(!isPowerOfTwo(align), "memblock: alignment is not a power of two", align);
    const { minAddr = 0, maxAddr = ADDR_LIMIT, topDown = !hasState(STATE_BOTTOM_UP), isRaw = false } = window;
    const limit = maxAddr === ADDR_LIMIT ? 0 : maxAddr;
    const where = `from=${hex(minAddr)} max_addr=${hex(limit)}`;
    log?.(`memblock_alloc_try_nid: ${size} bytes align=0x${align.toString(16)} nid=-1 ${where}`);
    const addr = find(size, align, minAddr, maxAddr, topDown);
    return take(addr !== 0 || minAddr === 0 ? addr : find(size, align, 0, maxAddr, topDown), size, isRaw);
  };

  const allocExact = (base: PhysAddr, size: number): PhysAddr => {
    live(memory);
    bugOn(!(size >= 1), "memblock: allocation of no bytes", size);
    const isFree = base >= PAGE_SIZE && nextFree(base) === base && freeEnd(base) >= base + size;
    return take(isFree ? base : 0, size, false);
  };

  const trim = (align: number): void => {
    live(memory);
    bugOn(!isPowerOfTwo(align), "memblock: alignment is not a power of two", align);
    for (let i = memory.cnt() - 1; i >= 0; i--) {
      const start = alignUp(memory.start(i), align);
      const end = alignDown(memory.end(i), align);
      if (start < end) memory.setRange(i, start, end);
      else memory.removeAt(i);
    }
  };

  const forEachFreeRange = (visit: (startPfn: Pfn, endPfn: Pfn) => void): void => {
    live(memory);
    for (let start = nextFree(PAGE_SIZE); start < ADDR_LIMIT; start = nextFree(freeEnd(start))) {
      const startPfn = Math.ceil(start / PAGE_SIZE);
      const endPfn = Math.floor(freeEnd(start) / PAGE_SIZE);
      if (startPfn < endPfn) visit(asPfn(startPfn), asPfn(endPfn));
    }
  };

  const discard = (visit: (startPfn: Pfn, endPfn: Pfn) => void): void => {
    for (const table of [live(memory), reserved]) {
      if (table.isStatic(table.array())) continue;
      const startPfn = table.array() / PAGE_SIZE;
      visit(asPfn(startPfn), asPfn(startPfn + Math.ceil((table.max() * REGION_BYTES) / PAGE_SIZE)));
    }
    setState(STATE_DISCARDED, true);
  };

  const dump = (): string[] => {
    const sizes = ` memory size = ${hex(live(memory).total())} reserved size = ${hex(reserved.total())}`;
    return ["MEMBLOCK configuration:", sizes, ...memory.dump(), ...reserved.dump()];
  };

  const check = (): string | null => {
    for (const table of [live(memory), reserved]) {
      const array = table.array();
      const isKept = table.isStatic(array) || reserved.contains(array, array + table.max() * REGION_BYTES);
      if (!isKept) return `MB-9 the ${table.name} array is not reserved`;
    }
    return memory.check() ?? reserved.check();
  };

  return {
    add: (base, size, flags = MEMBLOCK_NONE) => {
      debug("memblock_add", base, size);
      return addRange(live(memory), base, size, flags);
    },
    remove: (base, size) => {
      debug("memblock_remove", base, size);
      return removeRange(live(memory), base, size);
    },
    reserve,
    free: (base, size) => {
      debug("memblock_phys_free", base, size);
      return removeRange(live(reserved), base, size);
    },
    alloc,
    allocExact,
    isMemory: (addr) => live(memory).overlaps(addr, addr + 1),
    isReserved: (addr) => live(reserved).overlaps(addr, addr + 1),
    overlapsMemory: (base, size) => live(memory).overlaps(base, base + size),
    isRegionReserved: (base, size) => live(reserved).overlaps(base, base + size),
    setBottomUp: (isOn) => setState(STATE_BOTTOM_UP, isOn),
    isBottomUp: () => {
      live(memory);
      return hasState(STATE_BOTTOM_UP);
    },
    allowResize: () => setState(STATE_CAN_RESIZE, true),
    trim,
    memorySize: () => live(memory).total(),
    reservedSize: () => live(reserved).total(),
    startOfDram: () => asPhys(live(memory).cnt() === 0 ? 0 : memory.start(0)),
    endOfDram: () => (live(memory).cnt() === 0 ? 0 : memory.end(memory.cnt() - 1)),
    forEachFreeRange,
    discard,
    memoryRegions: () => live(memory).list(),
    reservedRegions: () => live(reserved).list(),
    dump,
    check,
  };
}

if (RESERVED_TABLE < MEMORY_TABLE + 12 || STATIC_ARRAYS < RESERVED_TABLE + 12) {
  throw new Error("memblock: the table headers overlap");
}
