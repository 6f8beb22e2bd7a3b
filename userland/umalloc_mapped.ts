/**
 * Mapped blocks: large allocations that are a mapping of their own, and the table that knows them.
 *
 * A large block is asked from mmap in whole pages and given back by munmap at once, so it leaves no hole behind. It
 * starts at the first byte of its mapping: a header would cost a block of 64 KiB another page. Which addresses are such
 * blocks is kept aside, in a hash table (in a chunk of the heap), open addressing, linear probing:
 *
 *     slot │ page number │ pages │        page number 0 = empty slot; at most 3/4 are in use
 *
 * so a pointer from anywhere can be checked without touching what it points at.
 *
 * Growing a block by copying would need the memory twice for a moment, and that moment is a program's peak. So resize
 * first tries to map the pages behind the block, then the pages below it (mmap places downwards, so these are mostly
 * free) and moves the content down.
 *
 *   MAPD-1  the table has exactly the blocks mapped; the room for an entry is made before the mapping is
 *
 * Where real allocators differ: glibc keeps a header in the mapping and grows by mremap.
 */

import { PAGE_SIZE } from "../kernel/params.ts";
import { MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PROT_READ, PROT_WRITE } from "../kernel/uapi/mman.ts";
import type { ProgramEnv } from "../kernel/uapi/program.ts";
import { SYS_mmap, SYS_munmap } from "../kernel/uapi/syscall.ts";
import { promptResult } from "./umalloc_arena.ts";
import type { Counters } from "./umalloc_counters.ts";
import {
  MAX_CHUNK_UNITS,
  ST_MAPPED_PAGES,
  ST_NR_MAPPED,
  ST_NR_UNMAPPED,
  ST_TABLE,
  ST_TABLE_SHIFT,
  ST_TABLE_USED,
  STATE_OFFSET,
  UNIT_BYTES,
} from "./umalloc_layout.ts";

const SLOT_BYTES = 8;
const FIRST_TABLE_SHIFT = 4;

export interface MappedBlocks {
  /** Maps a block of `pages` pages at a multiple of `align` (a power of two); 0 if that cannot be. */
  allocate(pages: number, align: number): number;
  /** Unmaps the block at `p`, which pagesOf() knows. */
  free(p: number): void;
  /** Pages of the block that starts at `p`; 0 if there is none. `p` is any number. */
  pagesOf(p: number): number;
  /**
   * Gives the block at `p` `pages` pages, maybe elsewhere, keeping its content; 0, and no change, if that cannot be.
   */
  resize(p: number, pages: number): number;
  /** First address of the block that has `p` in it, or 0. Looks at every block. */
  holderOf(p: number): number;
  /** The invariant that does not hold, or null. O(blocks). */
  check(): string | null;
}

/** Where the table gets its memory: units of the heap. */
export interface TableMemory {
  allocate(units: number): number;
  release(u: number, units: number): void;
}

/** The mapped blocks of the heap that starts at `base`. */
export function createMappedBlocks(env: ProgramEnv, base: number, heap: TableMemory, counters: Counters): MappedBlocks {
  const { mem } = env;
  const state = base + STATE_OFFSET;

  const slotAddress = (table: number, slot: number): number => base + table * UNIT_BYTES + slot * SLOT_BYTES;
  const tableUnits = (shift: number): number => (SLOT_BYTES << shift) / UNIT_BYTES;
  /** Fibonacci hashing: consecutive pages fall far apart. */
  const hash = (page: number, shift: number): number => Math.imul(page, 0x9e37_79b1) >>> (32 - shift);

  /** Slot of `page`, or the empty one where it would go. */
  const probe = (table: number, shift: number, page: number): number => {
    const mask = (1 << shift) - 1;
    let slot = hash(page, shift);
    for (;;) {
      const found = mem.ld32(slotAddress(table, slot));
      if (found === page || found === 0) return slot;
      slot = (slot + 1) & mask;
    }
  };

  const put = (table: number, shift: number, page: number, pages: number): void => {
    const address = slotAddress(table, probe(table, shift, page));
    mem.st32(address, page);
    mem.st32(address + 4, pages);
  };

  /** Notes the length of the block at `p`, new or not. */
  const setPages = (p: number, pages: number): void =>
    put(mem.ld32(state + ST_TABLE), mem.ld32(state + ST_TABLE_SHIFT), p / PAGE_SIZE, pages);

  const insert = (p: number, pages: number): void => {
    setPages(p, pages);
    mem.st32(state + ST_TABLE_USED, mem.ld32(state + ST_TABLE_USED) + 1);
  };

  /** Empties a slot; entries behind it that could have stood there move up, so that no probe is cut off. */
  const remove = (page: number): void => {
    const table = mem.ld32(state + ST_TABLE);
    const shift = mem.ld32(state + ST_TABLE_SHIFT);
    const mask = (1 << shift) - 1;
    let hole = probe(table, shift, page);
    for (let slot = (hole + 1) & mask; ; slot = (slot + 1) & mask) {
      const other = mem.ld32(slotAddress(table, slot));
      if (other === 0) break;
      const home = hash(other, shift);
      if (((slot - home) & mask) < ((slot - hole) & mask)) continue;
      mem.st32(slotAddress(table, hole), other);
      mem.st32(slotAddress(table, hole) + 4, mem.ld32(slotAddress(table, slot) + 4));
      hole = slot;
    }
    mem.st32(slotAddress(table, hole), 0);
    mem.st32(state + ST_TABLE_USED, mem.ld32(state + ST_TABLE_USED) - 1);
  };

  /** Calls `visit` for each block; stops at and returns its first result that is not 0. */
  const each = (visit: (p: number, pages: number) => number): number => {
    const table = mem.ld32(state + ST_TABLE);
    if (table === 0) return 0;
    const nrSlots = 1 << mem.ld32(state + ST_TABLE_SHIFT);
    for (let slot = 0; slot < nrSlots; slot++) {
      const address = slotAddress(table, slot);
      const page = mem.ld32(address);
      const result = page === 0 ? 0 : visit(page * PAGE_SIZE, mem.ld32(address + 4));
      if (result !== 0) return result;
    }
    return 0;
  };

  /** Room for one more entry, in a table twice as long if need be. */
  const reserve = (): boolean => {
    const table = mem.ld32(state + ST_TABLE);
    const shift = mem.ld32(state + ST_TABLE_SHIFT);
    if (table !== 0 && (mem.ld32(state + ST_TABLE_USED) + 1) * 4 <= 3 << shift) return true;
    const newShift = table === 0 ? FIRST_TABLE_SHIFT : shift + 1;
    const units = tableUnits(newShift);
    const newTable = units > MAX_CHUNK_UNITS ? 0 : heap.allocate(units);
    if (newTable === 0) return false;
    mem.fill(slotAddress(newTable, 0), 0, units * UNIT_BYTES);
    each((p, pages) => {
      put(newTable, newShift, p / PAGE_SIZE, pages);
      return 0;
    });
    mem.st32(state + ST_TABLE, newTable);
    mem.st32(state + ST_TABLE_SHIFT, newShift);
    if (table !== 0) heap.release(table, tableUnits(shift));
    return true;
  };

  const mapAt = (address: number, pages: number, flags: number): number => {
    const bytes = pages * PAGE_SIZE;
    const prot = PROT_READ | PROT_WRITE;
    return promptResult(env.syscall(SYS_mmap, address, bytes, prot, flags | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  };

  const unmap = (p: number, pages: number): boolean =>
    pages === 0 || promptResult(env.syscall(SYS_munmap, p, pages * PAGE_SIZE)) === 0;

  /** Maps exactly `[address, address + pages)`, if nothing is there. */
  const mapExactly = (address: number, pages: number): boolean => {
    if (address < PAGE_SIZE) return false;
    const got = mapAt(address, pages, MAP_FIXED_NOREPLACE);
    // A kernel that does not know the flag takes the address for a hint.
    if (got > 0 && got !== address) unmap(got, pages);
    return got === address;
  };

  const account = (pages: number): void => {
    mem.st32(state + ST_MAPPED_PAGES, mem.ld32(state + ST_MAPPED_PAGES) + pages);
    if (pages > 0) counters.notePeak();
  };

  const pagesOf = (p: number): number => {
    const page = p / PAGE_SIZE;
    const table = mem.ld32(state + ST_TABLE);
    if (table === 0 || !Number.isInteger(page) || page <= 0 || page >= 2 ** 23) return 0;
    const address = slotAddress(table, probe(table, mem.ld32(state + ST_TABLE_SHIFT), page));
    return mem.ld32(address) === page ? mem.ld32(address + 4) : 0;
  };

  const grow = (p: number, from: number, to: number): number => {
    const more = to - from;
    const below = p - more * PAGE_SIZE;
    if (mapExactly(p + from * PAGE_SIZE, more)) {
      setPages(p, to);
      account(more);
      return p;
    }
    if (!mapExactly(below, more)) return 0;
    mem.copy(below, p, from * PAGE_SIZE);
    remove(p / PAGE_SIZE);
    insert(below, to);
    account(more);
    return below;
  };

  return {
    allocate(pages, align) {
      if (!reserve()) return 0;
      const extra = align > PAGE_SIZE ? align / PAGE_SIZE - 1 : 0;
      const start = mapAt(0, pages + extra, 0);
      if (start <= 0) return 0;
      const p = Math.ceil(start / align) * align;
      const before = extra === 0 ? 0 : (p - start) / PAGE_SIZE;
      unmap(start, before);
      unmap((extra === 0 ? start : p) + pages * PAGE_SIZE, extra - before);
      insert(extra === 0 ? start : p, pages);
      counters.count(ST_NR_MAPPED);
      account(pages);
      return extra === 0 ? start : p;
    },
    free(p) {
      const pages = pagesOf(p);
      if (!unmap(p, pages)) return;
      remove(p / PAGE_SIZE);
      counters.count(ST_NR_UNMAPPED);
      account(-pages);
    },
    pagesOf,
    resize(p, pages) {
      const old = pagesOf(p);
      if (pages > old) return grow(p, old, pages);
      if (pages === old) return p;
      if (!unmap(p + pages * PAGE_SIZE, old - pages)) return 0;
      setPages(p, pages);
      account(pages - old);
      return p;
    },
    holderOf: (p) => each((start, pages) => (p >= start && p < start + pages * PAGE_SIZE ? start : 0)),
    check() {
      let nrBlocks = 0;
      let nrPages = 0;
      const lost = each((p, pages) => {
        nrBlocks++;
        nrPages += pages;
        return pagesOf(p) === pages ? 0 : p;
      });
      if (lost !== 0) return `MAPD-1 block 0x${lost.toString(16)} is not found`;
      if (nrBlocks !== mem.ld32(state + ST_TABLE_USED)) return "MAPD-1 number of blocks";
      return nrPages === mem.ld32(state + ST_MAPPED_PAGES) ? null : "MAPD-1 number of pages";
    },
  };
}
