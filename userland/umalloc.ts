/**
 * umalloc: malloc, free and their family for programs, over brk and mmap.
 *
 *   malloc(n)          n ≤ 512             thread cache: pop               umalloc_cache.ts
 *                      n ≤ 64 KiB          best fit, else top, else brk    umalloc_bins.ts, umalloc_arena.ts
 *                      n > 64 KiB          a mapping of its own            umalloc_mapped.ts
 *
 * No chunk has a header; two bits per 16 bytes say where chunks start (umalloc_map.ts). umalloc_layout.ts draws the
 * heap and is the file to read first.
 *
 * Everything that changes lies in the process's memory; this file's closures hold addresses. Another thread of the
 * process attaches to the same heap with `createUmalloc(itsEnv, { attach: heap.base })` and gets a cache of its own; a
 * chunk may be freed by any thread. No locks: a thread is preempted at its own yields, and nothing here yields.
 *
 * Order of resort, when no free chunk fits: the top; empty all thread caches and look again; move the break; and for a
 * page or more, a mapping. Only then ENOMEM: the result is 0.
 *
 * Misuse is found at once and at constant cost, and changes nothing:
 *
 *   double free          the pointer is to a chunk that is free or cached, or lies inside a free chunk now
 *   interior pointer     it points into a chunk in use, not at its start
 *   misaligned pointer   no pointer of malloc's has these low bits
 *   foreign pointer      nothing was ever allocated there: stack, wild values, the allocator's own tables
 *   corrupted list       the caller wrote to a chunk after freeing it, and what it hit was a link
 *
 * Contract, as C's with what C leaves open: malloc(0) and realloc(p, 0) return a pointer of their own that may be
 * freed; a size that is no integer in [0, 2^35), and calloc's overflow, return 0; realloc returning 0 leaves p as it
 * was; memalign wants a power of two, else 0.
 *
 * Context: plain functions, they never sleep (brk and mmap do not). O(1), but for comparing up to 16 free chunks of
 * a bin, and emptying the caches before growing, which each cached chunk pays for once.
 */

import { PAGE_SIZE, TASK_SIZE } from "../kernel/params.ts";
import type { ProgramEnv, UserMemory } from "../kernel/uapi/program.ts";
import { SYS_brk } from "../kernel/uapi/syscall.ts";
import { type Arena, createArena, promptResult } from "./umalloc_arena.ts";
import { createBins } from "./umalloc_bins.ts";
import { BROKEN_LIST, CACHE_UNITS, createThreadCache } from "./umalloc_cache.ts";
import { createHeapWalker, type UmallocStats } from "./umalloc_check.ts";
import { createCounters } from "./umalloc_counters.ts";
import {
  CACHE_BYTES,
  CACHE_MAX_UNITS,
  FIRST_UNIT,
  HEAP_MAGIC,
  INITIAL_UNITS,
  ST_END,
  ST_MAGIC,
  ST_MAIN_CACHE,
  ST_TOP,
  STATE_OFFSET,
  UNIT_BYTES,
  unitsFor,
} from "./umalloc_layout.ts";
import { createUnitMap, UNIT_FREE, UNIT_USED, type UnitMap } from "./umalloc_map.ts";
import { createMappedBlocks } from "./umalloc_mapped.ts";
import { createMisuseDesk, type MisuseKind } from "./umalloc_misuse.ts";

/** Requests above this many bytes get a mapping of their own. */
export const MMAP_THRESHOLD = 64 * 1024;
const MAX_HEAP_ALIGN = 4096;
const CACHE_MAX_BYTES = CACHE_MAX_UNITS * UNIT_BYTES;

export interface UmallocOptions {
  /** `base` of a heap of this process to attach to, for a second thread. */
  readonly attach?: number;
  /** Told of each misuse instead of fd 2. `ptr` is what the caller passed (0 for a corrupted list). */
  readonly onMisuse?: (kind: MisuseKind, ptr: number) => void;
}

export interface Umalloc {
  /** Where the heap starts, for threads to attach. */
  readonly base: number;
  malloc(bytes: number): number;
  /** Zeroed memory for `count` objects of `bytes` bytes. */
  calloc(count: number, bytes: number): number;
  /** A block of `bytes` bytes with the content of `p`, as far as it fits; `p` is gone unless the result is 0. */
  realloc(p: number, bytes: number): number;
  free(p: number): void;
  /** A block at a multiple of `align`, a power of two. */
  memalign(align: number, bytes: number): number;
  /** Bytes that the block at `p` really has; 0 if `p` is no block. */
  usableSize(p: number): number;
  /** Empties all thread caches and gives idle pages back to the kernel. */
  trim(): void;
  /** Walks the heap. O(heap). */
  stats(): UmallocStats;
  /** The first invariant found broken, or null. O(heap). */
  check(): string | null;
  /** The thread is about to end: its cache is emptied. This record is not to be used any more. */
  detach(): void;
}

/** The malloc of a process, or with `attach` of one more of its threads. Context: any program. */
export function createUmalloc(env: ProgramEnv, options: UmallocOptions = {}): Umalloc {
  const { mem } = env;
  const base = options.attach ?? Math.ceil(promptResult(env.syscall(SYS_brk, 0)) / PAGE_SIZE) * PAGE_SIZE;
  const endWord = base + STATE_OFFSET + ST_END;
  const counters = createCounters(mem, base);
  const map = createUnitMap(mem, base);
  const bins = createBins(mem, base);
  const arena = createArena(env, base, map, bins, counters);
  const walker = createHeapWalker(mem, base, map, bins, counters);
  const own = options.attach === undefined ? mainCache : attachedCache(mem, base, arena);
  const cache = createThreadCache(mem, base, own, map, arena, counters);
  if (own !== mainCache) cache.enlist();
  let isReady = options.attach !== undefined;

  // ── Getting chunks and blocks ────────────────────────────────────────────────────────────────────────────────────

  /** A chunk in use, by all means but the caller's own cache. Unit, or 0. */
  const allocateUnits = (units: number): number => {
    if (!isReady && !(isReady = setUp(env, base, map))) return 0;
    let u = arena.take(units);
    if (u === 0 && cache.flushAll()) u = arena.take(units);
    return u === 0 ? arena.grow(units) : u;
  };

  const blocks = createMappedBlocks(env, base, { allocate: allocateUnits, release: arena.release }, counters);
  const misuse = createMisuseDesk(env, base, walker, blocks, options.onMisuse);

  const allocateMapped = (bytes: number, align: number): number => {
    if (!isReady && !(isReady = setUp(env, base, map))) return 0;
    return blocks.allocate(Math.ceil(bytes / PAGE_SIZE), align);
  };

  const mallocSlow = (bytes: number): number => {
    if (!isSize(bytes)) return 0;
    if (bytes > MMAP_THRESHOLD) return allocateMapped(bytes, PAGE_SIZE);
    const u = allocateUnits(unitsFor(bytes));
    if (u !== 0) return base + u * UNIT_BYTES;
    return bytes < PAGE_SIZE ? 0 : allocateMapped(bytes, PAGE_SIZE);
  };

  const malloc = (bytes: number): number => {
    if (!(bytes <= CACHE_MAX_BYTES && bytes >= 0)) return mallocSlow(bytes);
    const p = cache.take(bytes <= UNIT_BYTES ? 1 : (bytes + 15) >> 4);
    if (p > 0 && Number.isInteger(bytes)) return p;
    if (p === BROKEN_LIST) misuse.report("corrupted list", 0, "malloc");
    return mallocSlow(bytes);
  };

  // ── Giving them back ─────────────────────────────────────────────────────────────────────────────────────────────

  /** Unit at `p`, if `p` could be a chunk of the heap; 0 if not. */
  const unitAt = (p: number): number => {
    const exact = (p - base) / UNIT_BYTES;
    const u = exact | 0;
    return u === exact && u >= FIRST_UNIT && isReady && u < mem.ld32(endWord) ? u : 0;
  };

  const freeElsewhere = (p: number): void => {
    if (p === 0) return;
    if (isReady && blocks.pagesOf(p) !== 0) blocks.free(p);
    else misuse.reportPointer(p, isReady, "free");
  };

  const free = (p: number): void => {
    const u = unitAt(p);
    if (u === 0) {
      freeElsewhere(p);
      return;
    }
    const word = mem.ld32(map.wordAddress(u));
    if (((word >>> ((u & 15) << 1)) & 3) !== UNIT_USED) {
      misuse.reportPointer(p, true, "free");
      return;
    }
    const units = map.usedUnits(u, word);
    if (units <= CACHE_MAX_UNITS) cache.put(u, units, word);
    else arena.release(u, units);
  };
  return {} as Umalloc;
}
