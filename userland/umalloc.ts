/**
 * umalloc: malloc, free and their family for programs, over brk and mmap.
 *
 *   malloc(n)          n ≤ 256             thread cache: pop               umalloc_cache.ts
 *                      n ≤ threshold       best fit, else top, else brk    umalloc_bins.ts, umalloc_arena.ts
 *                      n > threshold       best fit, else a mapping        umalloc_mapped.ts
 *
 * The threshold is 48 KiB, and rises to the size of a mapped block that is freed, up to 96 KiB.
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
 *   foreign pointer      nothing is allocated there: stack, wild values, a mapped block that is gone
 *   corrupted heap       the caller wrote to a chunk after freeing it and hit a link, or to the map
 *
 * Contract, as C's with what C leaves open: malloc(0) and realloc(p, 0) return a pointer of their own that may be
 * freed; a size that is no integer in [0, 2^35), and calloc's overflow, return 0; realloc returning 0 leaves p as it
 * was; memalign wants a power of two, else 0.
 *
 * Context: plain functions, they never sleep (brk and mmap do not). O(1), but for comparing up to 8 free chunks of
 * a bin, and emptying the caches before growing, which each cached chunk pays for once.
 */

import { PAGE_SIZE, TASK_SIZE } from "../kernel/params.ts";
import type { ProgramEnv, UserMemory } from "../kernel/uapi/program.ts";
import { SYS_brk } from "../kernel/uapi/syscall.ts";
import { type Arena, createArena, promptResult } from "./umalloc_arena.ts";
import { createBins } from "./umalloc_bins.ts";
import { BROKEN_LIST, CACHE_UNITS, createThreadCache } from "./umalloc_cache.ts";
import { createHeapWalker, EMPTY_STATS, type UmallocStats } from "./umalloc_check.ts";
import { createCounters } from "./umalloc_counters.ts";
import {
  CACHE_BYTES,
  CACHE_MAX_UNITS,
  FIRST_UNIT,
  HEAP_MAGIC,
  INITIAL_UNITS,
  MAX_CHUNK_UNITS,
  ST_CACHES,
  ST_END,
  ST_MAGIC,
  ST_MAIN_CACHE,
  ST_THRESHOLD,
  ST_TOP,
  STATE_OFFSET,
  UNIT_BYTES,
  unitsFor,
} from "./umalloc_layout.ts";
import { createUnitMap, UNIT_FREE, UNIT_USED } from "./umalloc_map.ts";
import { createMappedBlocks } from "./umalloc_mapped.ts";
import { createMisuseDesk, type MisuseKind } from "./umalloc_misuse.ts";

/** Requests above this many bytes get a mapping of their own; at first, see adapt(). */
const FIRST_THRESHOLD = 48 * 1024;
const MAX_THRESHOLD = 96 * 1024;
const MAX_HEAP_ALIGN = 4096;
const CACHE_MAX_BYTES = CACHE_MAX_UNITS * UNIT_BYTES;

export interface UmallocOptions {
  /** `base` of a heap of this process to attach to, for a second thread. */
  readonly attach?: number;
  /** Told of each misuse instead of fd 2. `ptr` is what the caller passed (0 if malloc found the corruption). */
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
  const thresholdWord = base + STATE_OFFSET + ST_THRESHOLD;
  const endWord = base + STATE_OFFSET + ST_END;
  const counters = createCounters(mem, base);
  const map = createUnitMap(mem, base);
  const bins = createBins(mem, base);
  const arena = createArena(env, base, map, bins, counters);
  const walker = createHeapWalker(mem, base, map, bins, counters);
  const own = options.attach === undefined ? MAIN_CACHE : attachedCache(mem, base, arena);
  const cache = createThreadCache(mem, base, own, map, arena, counters);
  if (own !== MAIN_CACHE) cache.enlist();
  let isReady = options.attach !== undefined;
  /** The heap is set up at the first call that needs it, and again at the next if the kernel refused. */
  const ready = (): boolean => isReady || (isReady = setUp(env, base));

  // ── Getting chunks and blocks ────────────────────────────────────────────────────────────────────────────────────

  /** A chunk in use, by all means but the caller's own cache. Unit, or 0. */
  const allocateUnits = (units: number): number => {
    if (!ready()) return 0;
    let u = arena.take(units);
    if (u === 0 && cache.flushAll()) u = arena.take(units);
    return u === 0 ? arena.grow(units) : u;
  };

  const blocks = createMappedBlocks(env, base, { allocate: allocateUnits, release: arena.release }, counters);
  const misuse = createMisuseDesk(env, base, walker, blocks, options.onMisuse);

  /** Before `pages` are mapped at the peak: pages idle in the top go back, so that the peak is not their sum. */
  const relieve = (pages: number): void => {
    if (counters.wouldPeak(pages)) arena.trim(0);
  };

  const allocateMapped = (bytes: number, align: number): number => {
    if (!ready()) return 0;
    const pages = pagesFor(bytes);
    relieve(pages);
    return blocks.allocate(pages, align);
  };

  /** A mapping, unless a hole of the heap takes it: holes are paid for already. */
  const mallocLarge = (bytes: number, units: number): number => {
    let u = units <= MAX_CHUNK_UNITS ? arena.take(units) : 0;
    const isWorthFlushing = u === 0 && units <= MAX_CHUNK_UNITS && counters.wouldPeak(pagesFor(bytes));
    if (isWorthFlushing && cache.flushAll()) u = arena.take(units);
    return u === 0 ? allocateMapped(bytes, PAGE_SIZE) : base + u * UNIT_BYTES;
  };

  const mallocSlow = (bytes: number): number => {
    if (!isSize(bytes) || !ready()) return 0;
    const units = unitsFor(bytes);
    if (bytes > mem.ld32(thresholdWord)) return mallocLarge(bytes, units);
    const u = allocateUnits(units);
    if (u !== 0) return base + u * UNIT_BYTES;
    return bytes < PAGE_SIZE ? 0 : allocateMapped(bytes, PAGE_SIZE);
  };

  const malloc = (bytes: number): number => {
    if (!isReady || (bytes | 0) !== bytes || bytes > CACHE_MAX_BYTES || bytes < 0) return mallocSlow(bytes);
    const p = cache.take(bytes === 0 ? 1 : (bytes + 15) >> 4);
    if (p > 0) return p;
    if (p === BROKEN_LIST) misuse.report("corrupted heap", 0, "malloc");
    return mallocSlow(bytes);
  };

  // ── Giving them back ─────────────────────────────────────────────────────────────────────────────────────────────

  /** Unit of `p`, if that lies between the first chunk and the break and is aligned; 0 if not. */
  const unitAt = (p: number): number => {
    const exact = (p - base) / UNIT_BYTES;
    const u = exact | 0;
    return u === exact && u >= FIRST_UNIT && isReady && u < mem.ld32(endWord) ? u : 0;
  };

  /** Units of the chunk in use at `u`; 0, and a report, if there is none. */
  const unitsOrReport = (u: number, p: number, caller: string): number => {
    const word = mem.ld32(map.wordAddress(u));
    if (((word >>> ((u & 15) << 1)) & 3) === UNIT_USED) {
      const units = map.usedUnits(u, word);
      if (units > 0) return units;
      misuse.report("corrupted heap", p, caller);
    } else misuse.reportPointer(p, caller);
    return 0;
  };

  /** Pages of the mapped block at `p`; 0, and a report, if there is none. */
  const pagesOrReport = (p: number, caller: string): number => {
    if (!ready()) return 0;
    const pages = blocks.pagesOf(p);
    if (pages === 0) misuse.reportPointer(p, caller);
    return pages;
  };

  /**
   * A block that was mapped and is freed will come again: from now on the heap serves this size, without the kernel.
   */
  const adapt = (bytes: number): void => {
    if (bytes > mem.ld32(thresholdWord) && bytes <= MAX_THRESHOLD) mem.st32(thresholdWord, bytes);
  };

  const freeMapped = (p: number): void => {
    const pages = pagesOrReport(p, "free");
    if (pages === 0) return;
    adapt(pages * PAGE_SIZE);
    blocks.free(p);
  };

  const free = (p: number): void => {
    const u = unitAt(p);
    if (u === 0) {
      if (p !== 0) freeMapped(p);
      return;
    }
    const word = mem.ld32(map.wordAddress(u));
    const isUsed = ((word >>> ((u & 15) << 1)) & 3) === UNIT_USED;
    const units = isUsed ? map.usedUnits(u, word) : 0;
    if (units === 0) unitsOrReport(u, p, "free");
    else if (units <= CACHE_MAX_UNITS) cache.put(u, units, word);
    else arena.release(u, units);
  };

  // ── Changing their size ──────────────────────────────────────────────────────────────────────────────────────────

  const move = (p: number, oldBytes: number, bytes: number): number => {
    const q = malloc(bytes);
    if (q === 0) return 0;
    mem.copy(q, p, Math.min(oldBytes, bytes));
    free(p);
    return q;
  };

  const reallocMapped = (p: number, bytes: number): number => {
    const pages = pagesOrReport(p, "realloc");
    if (pages === 0) return 0;
    const moved = bytes > mem.ld32(thresholdWord) ? 0 : move(p, pages * PAGE_SIZE, bytes);
    if (moved !== 0) return moved;
    const wanted = pagesFor(bytes);
    relieve(wanted - pages);
    const resized = blocks.resize(p, wanted);
    return resized === 0 ? move(p, pages * PAGE_SIZE, bytes) : resized;
  };

  /** Lengthens a chunk: into what is free behind it, else down into what is free before it, else by moving. */
  const lengthen = (p: number, u: number, from: number, bytes: number): number => {
    const to = unitsFor(bytes);
    if (arena.extend(u, from, to)) return p;
    const before = arena.freeBefore(u);
    const joined = before + from;
    if (joined < to) return move(p, from * UNIT_BYTES, bytes);
    arena.joinBefore(u, before, from);
    const q = p - before * UNIT_BYTES;
    mem.copy(q, p, from * UNIT_BYTES);
    if (joined > to) arena.shrink(u - before, joined, to);
    return q;
  };

  const realloc = (p: number, bytes: number): number => {
    if (p === 0) return malloc(bytes);
    if (!isSize(bytes)) return 0;
    const u = unitAt(p);
    if (u === 0) return reallocMapped(p, bytes);
    const from = unitsOrReport(u, p, "realloc");
    if (from === 0) return 0;
    const to = unitsFor(bytes);
    if (to > MAX_CHUNK_UNITS) return move(p, from * UNIT_BYTES, bytes);
    if (to > from) return lengthen(p, u, from, bytes);
    if (to < from) arena.shrink(u, from, to);
    return p;
  };

  // ── The rest of the family ───────────────────────────────────────────────────────────────────────────────────────

  const calloc = (count: number, bytes: number): number => {
    const total = count * bytes;
    if (!isSize(count) || !isSize(bytes) || !isSize(total)) return 0;
    const p = malloc(total);
    // A fresh mapping is zero already.
    if (p !== 0 && unitAt(p) !== 0) mem.fill(p, 0, total);
    return p;
  };

  /** A chunk long enough to have an aligned one in it; what is around that is freed. Unit, or 0. */
  const allocateAndTrim = (units: number, align: number): number => {
    const taken = units + align - 1;
    const u = allocateUnits(taken);
    if (u === 0) return 0;
    const start = Math.ceil(u / align) * align;
    const kept = start + units - u;
    if (kept < taken) arena.shrink(u, taken, kept);
    if (start > u) arena.dropFront(u, start, kept);
    return start;
  };

  const memalign = (align: number, bytes: number): number => {
    if (!isSize(bytes) || !isPowerOfTwo(align)) return 0;
    if (align <= UNIT_BYTES) return malloc(bytes);
    if (!ready()) return 0;
    const isForMapping = align > MAX_HEAP_ALIGN || bytes > mem.ld32(thresholdWord);
    if (isForMapping) return allocateMapped(bytes, Math.max(align, PAGE_SIZE));
    // The base is at a page, so unit numbers are aligned as addresses are.
    const units = unitsFor(bytes);
    const alignUnits = align / UNIT_BYTES;
    const u = arena.takeAligned(units, alignUnits) || allocateAndTrim(units, alignUnits);
    return u === 0 ? 0 : base + u * UNIT_BYTES;
  };

  const usableSize = (p: number): number => {
    const u = unitAt(p);
    if (u === 0) return isReady ? blocks.pagesOf(p) * PAGE_SIZE : 0;
    return map.codeOf(u) === UNIT_USED ? map.usedUnits(u, mem.ld32(map.wordAddress(u))) * UNIT_BYTES : 0;
  };

  return {
    base,
    malloc,
    calloc,
    realloc,
    free,
    memalign,
    usableSize,
    trim() {
      if (!isReady) return;
      cache.flushAll();
      arena.trim(0);
    },
    stats: () => (isReady ? walker.stats() : EMPTY_STATS),
    check: () => (isReady ? (walker.check() ?? blocks.check()) : null),
    detach() {
      if (own === MAIN_CACHE) return;
      cache.retire();
      arena.release(own, CACHE_UNITS);
    },
  };
}

const MAIN_CACHE = (STATE_OFFSET + ST_MAIN_CACHE) / UNIT_BYTES;

const pagesFor = (bytes: number): number => Math.max(1, Math.ceil(bytes / PAGE_SIZE));

const isSize = (bytes: number): boolean => Number.isInteger(bytes) && bytes >= 0 && bytes < TASK_SIZE;

const isPowerOfTwo = (n: number): boolean => isSize(n) && n > 0 && 2 ** Math.round(Math.log2(n)) === n;

/** Gets the first pages of the heap and writes its state. False if the kernel refuses. */
function setUp(env: ProgramEnv, base: number): boolean {
  const { mem } = env;
  const wanted = base + INITIAL_UNITS * UNIT_BYTES;
  // Somebody who has moved the break since `base` was chosen owns what is there now.
  if (promptResult(env.syscall(SYS_brk, 0)) > base) return false;
  if (promptResult(env.syscall(SYS_brk, wanted)) !== wanted) return false;
  const state = base + STATE_OFFSET;
  mem.st32(state + ST_TOP, FIRST_UNIT);
  mem.st32(state + ST_END, INITIAL_UNITS);
  mem.st32(state + ST_CACHES, MAIN_CACHE);
  mem.st32(state + ST_THRESHOLD, FIRST_THRESHOLD);
  createUnitMap(mem, base).setCode(FIRST_UNIT, UNIT_FREE);
  createCounters(mem, base).notePeak();
  mem.st32(state + ST_MAGIC, HEAP_MAGIC);
  return true;
}

/** The unit of a new cache for a thread that attaches; if there is no memory for it, it shares the main thread's. */
function attachedCache(mem: UserMemory, base: number, arena: Arena): number {
  if (mem.ld32(base + STATE_OFFSET + ST_MAGIC) !== HEAP_MAGIC) throw new Error("umalloc: no heap to attach to");
  const u = arena.take(CACHE_UNITS) || arena.grow(CACHE_UNITS);
  if (u === 0) return MAIN_CACHE;
  mem.fill(base + u * UNIT_BYTES, 0, CACHE_BYTES);
  return u;
}
