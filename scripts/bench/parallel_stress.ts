/**
 * The stress of a parallel machine: every thread does everything at once, and every byte is looked at again.
 *
 * Each thread runs its own seeded program over 192 slots: kmalloc of 16 bytes to 40 KiB, krealloc, kzalloc, objects of
 * a shared cache, blocks of pages, caches made and destroyed, and remote frees: a block is left in one of 64 shared
 * words, and whatever lay there is taken and freed by this thread. A block describes itself, so that anybody can
 * verify it:
 *
 *   | word 0: kind, size | word 1: seed | pattern(seed, i) … | last word: pattern |
 *
 * Two owners of one block write two patterns; a block freed twice, or handed out twice, or written by the allocator
 * while it is live, is found when its content is verified. In the middle CPU `nrActive − 1` goes offline: its thread
 * parks, CPU 0 drains its page lists and magazines while the others go on, then it comes back. Some times the machine
 * is stopped and all invariants are walked.
 */

import { createRandomStreams, type Prng } from "../../kernel/lib/prng.ts";
import { asPfn, asPhys, NO_PFN, NULL, type PhysAddr, pfnToPhys, physToPfn } from "../../kernel/types.ts";
import { __GFP_NOWARN, GFP_ATOMIC, gfpWith, type KmemCache, MAX_NR_ZONES } from "../../mm/index.ts";
import { FREE_WORD, OFFLINE } from "./control.ts";
import type { ThreadWorld } from "./thread_world.ts";

export interface StressSpec {
  readonly nrActive: number;
  readonly seed: string;
  /** Operations of each thread. */
  readonly nrOperations: number;
  /** How often the machine is stopped and checked in the middle. */
  readonly nrStops: number;
}

export interface StressCounts {
  readonly operations: number;
  readonly allocations: number;
  readonly frees: number;
  readonly remoteFrees: number;
  readonly verified: number;
  readonly failures: number;
  readonly stops: number;
  /** Pages and objects that this thread drained from a CPU that was offline. */
  readonly drainedPages: number;
  readonly drainedObjects: number;
}

const SLOTS = 192;
const MAILBOXES = 64;
const CHUNK = 64;

const KIND_KMALLOC = 1;
const KIND_CACHE = 2;
const KIND_PAGES = 3;
const CACHE_SIZE = 256;
const PAGE = 4096;
/** 1 once the CPU that goes offline has been so. */
const WAS_OFFLINE = FREE_WORD + 1;
const ZONES = Array.from({ length: MAX_NR_ZONES }, (_, zone) => zone);
/** Running out of memory is part of the game. */
const ATOMIC = gfpWith(GFP_ATOMIC, __GFP_NOWARN);
/** Words of a large block that are verified at each end. */
const EDGE_WORDS = 16;

/** A corrupted block: who found it, and what it was. */
export class BadContent extends Error {
  override readonly name = "BadContent";
}

const patternOf = (seed: number, index: number): number =>
  (Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) + Math.imul(index + 1, 0xc2b2_ae35)) | 0;

interface Blocks {
  /** Writes the description and the pattern of a new block. */
  stamp(addr: PhysAddr, kind: number, size: number): PhysAddr;
  /** Verifies a block and gives it back. */
  verifyAndFree(addr: PhysAddr): void;
  /** Bytes of a block of `kmalloc`, after verifying it; 0 for another kind. */
  kmallocSize(addr: PhysAddr): number;
  readonly nrVerified: () => number;
}

function createBlocks(world: ThreadWorld, prng: Prng): Blocks {
  const { ctx, kernel, cache } = world;
  const { port } = kernel.machine;
  const { slab, pageAlloc } = kernel.memory;
  let nrVerified = 0;

  const eachWord = (size: number, visit: (index: number) => void): void => {
    const nrWords = size >>> 2;
    const front = Math.min(nrWords, EDGE_WORDS);
    for (let i = 2; i < front; i++) visit(i);
    for (let i = Math.max(front, nrWords - EDGE_WORDS); i < nrWords; i++) visit(i);
  };

  const bad = (addr: number, what: string): BadContent =>
    new BadContent(`block 0x${addr.toString(16)}: ${what}; its words: ${port.ld32(addr)} ${port.ld32(addr + 4)}`);

  const verify = (addr: PhysAddr): readonly [kind: number, size: number] => {
    const head = port.ld32(addr);
    const [kind, size] = [head & 3, head >>> 2];
    if (kind === 0 || size < 16 || size > 4 * PAGE * 4) throw bad(addr, "its description is gone");
    const seed = port.ld32(addr + 4);
    eachWord(size, (i) => {
      if ((port.ld32(addr + i * 4) | 0) !== patternOf(seed ^ addr, i)) throw bad(addr, `word ${i} of ${size / 4}`);
    });
    nrVerified++;
    return [kind, size];
  };

  return {
    stamp(addr, kind, size) {
      const seed = prng.below(2 ** 31);
      port.st32(addr, kind + size * 4);
      port.st32(addr + 4, seed);
      eachWord(size, (i) => port.st32(addr + i * 4, patternOf(seed ^ addr, i)));
      return addr;
    },
    verifyAndFree(addr) {
      const [kind, size] = verify(addr);
      port.st32(addr, 0);
      let result = 0;
      if (kind === KIND_KMALLOC) result = slab.kmalloc.kfree(ctx, addr);
      else if (kind === KIND_CACHE) result = slab.layer.kmemCacheFree(ctx, cache, addr);
      else result = pageAlloc.freePages(ctx, physToPfn(addr), Math.log2(size / PAGE));
      if (result !== 0) throw bad(addr, `the free says ${result}`);
    },
    kmallocSize(addr) {
      const [kind, size] = verify(addr);
      return kind === KIND_KMALLOC ? size : 0;
    },
    nrVerified: () => nrVerified,
  };
}

/** Runs the stress in this thread; all `spec.nrActive` threads must do so. Throws at the first thing that is wrong. */
export function runStress(world: ThreadWorld, spec: StressSpec): StressCounts {
  const { cpu, ctx, control, data, kernel, cache } = world;
  const { nrActive, nrOperations } = spec;
  const { port } = kernel.machine;
  const { slab, pageAlloc, pcp } = kernel.memory;
  const prng = createRandomStreams(spec.seed).stream(`stress:${cpu}`);
  const blocks = createBlocks(world, prng);
  const slots: PhysAddr[] = new Array(SLOTS).fill(NULL);
  const counts = {
    allocations: 0,
    frees: 0,
    remoteFrees: 0,
    failures: 0,
    stops: 0,
    drainedPages: 0,
    drainedObjects: 0,
  };

  // ── One operation ────────────────────────────────────────────────────────────────────────────────────────────────

  const free = (addr: PhysAddr): void => {
    blocks.verifyAndFree(addr);
    counts.frees++;
  };

  const keep = (slot: number, addr: PhysAddr, kind: number, size: number): void => {
    if (addr === NULL) {
      counts.failures++;
      return;
    }
    counts.allocations++;
    slots[slot] = blocks.stamp(addr, kind, size);
  };

  const allocKmalloc = (slot: number): void => {
    // Few are large: a size of 2^4 … 2^15 and something, the small powers more often.
    const power = 4 + Math.floor(prng.next() ** 2 * 12);
    const size = (2 ** power + prng.below(2 ** power)) & ~3;
    const wantsZeroes = prng.below(8) === 0;
    const got = slab.kmalloc[wantsZeroes ? "kzalloc" : "kmalloc"](ctx, size, ATOMIC);
    if (wantsZeroes && got !== NULL) {
      for (let i = 0; i < size; i += 64) if (port.ld32(got + i) !== 0) throw new BadContent(`kzalloc: byte ${i}`);
    }
    keep(slot, got, KIND_KMALLOC, size);
  };

  const allocBlock = (slot: number): void => {
    const choice = prng.below(8);
    if (choice < 4) {
      allocKmalloc(slot);
    } else if (choice < 6) {
      keep(slot, slab.layer.kmemCacheAlloc(ctx, cache, ATOMIC), KIND_CACHE, CACHE_SIZE);
    } else {
      const order = Math.min(4, Math.clz32(prng.below(2 ** 32)));
      const pfn = pageAlloc.tryAllocPages(ctx, order, ATOMIC);
      keep(slot, pfn === NO_PFN ? NULL : pfnToPhys(asPfn(pfn)), KIND_PAGES, PAGE << order);
    }
  };

  const resize = (slot: number, addr: PhysAddr): void => {
    const oldSize = blocks.kmallocSize(addr);
    if (oldSize === 0) return;
    const size = oldSize * 2;
    if (size > 2 * PAGE) return;
    const head = port.ld32(addr);
    const moved = slab.kmalloc.krealloc(ctx, addr, size, ATOMIC);
    if (moved === NULL || typeof moved === "object") {
      counts.failures++;
      return;
    }
    if (port.ld32(moved) !== head) throw new BadContent("krealloc: the content did not come along");
    slots[slot] = blocks.stamp(moved, KIND_KMALLOC, size);
  };

  /** Leaves a block (or nothing) in a shared word; what was there is ours to free. */
  const exchange = (slot: number): void => {
    const word = prng.below(MAILBOXES);
    const theirs = Atomics.exchange(data, word, (slots[slot] as number) | 0) >>> 0;
    slots[slot] = NULL;
    if (theirs === 0) return;
    free(asPhys(theirs));
    counts.remoteFrees++;
  };

  /** A cache of its own, used and destroyed. */
  const tryCache = (): void => {
    const own: KmemCache = slab.kmemCacheCreate(kernel.contexts.taskContext(cpu), {
      name: `stress-${cpu}`,
      size: 16 + 8 * prng.below(100),
    });
    if (own === NULL) {
      counts.failures++;
      return;
    }
    const objects = Array.from({ length: 40 }, () => slab.layer.kmemCacheAlloc(ctx, own, ATOMIC));
    for (const obj of objects) if (obj !== NULL) slab.layer.kmemCacheFree(ctx, own, obj);
    const result = slab.kmemCacheDestroy(kernel.contexts.taskContext(cpu), own);
    if (result !== 0) throw new BadContent(`kmem_cache_destroy says ${result}`);
  };

  const operate = (): void => {
    const slot = prng.below(SLOTS);
    const addr = slots[slot] as PhysAddr;
    const choice = prng.below(64);
    if (choice === 0 && prng.below(16) === 0) tryCache();
    else if (choice < 12) exchange(slot);
    else if (addr === NULL) allocBlock(slot);
    else if (choice < 16) resize(slot, addr);
    else {
      slots[slot] = NULL;
      free(addr);
    }
  };

  // ── Offline and stopped ──────────────────────────────────────────────────────────────────────────────────────────

  const victim = nrActive - 1;
  const goOffline = (): void => {
    // Something is at hand here when the others come to take it.
    const objects = Array.from({ length: 24 }, () => slab.layer.kmemCacheAlloc(ctx, cache, ATOMIC));
    for (const obj of objects) if (obj !== NULL) slab.layer.kmemCacheFree(ctx, cache, obj);
    control.set(OFFLINE, victim + 1);
    control.waitFor(OFFLINE, (value) => value === 0);
  };

  const isEmpty = (): boolean => ZONES.every((zone) => pcp.info(victim, zone).count === 0);

  /** Whoever comes first claims the CPU that went offline, and takes everything that it has. */
  const drainOffline = (): void => {
    if (control.words[OFFLINE] !== victim + 1) return;
    if (Atomics.compareExchange(control.words, OFFLINE, victim + 1, -1) !== victim + 1) return;
    // A list that somebody else is draining at this moment is busy: once more.
    do counts.drainedPages += pcp.drainCpu(ctx, victim);
    while (!isEmpty());
    counts.drainedObjects += slab.drainCpu(ctx, victim);
    control.set(OFFLINE, 0);
  };

  const checkStopped = (): void => {
    control.whileStopped(nrActive, () => {
      const fault = slab.check() ?? pageAlloc.check() ?? kernel.printk.check();
      if (fault !== null) throw new BadContent(fault);
      if (control.words[OFFLINE] === 0) slab.shrinkAll(ctx);
      counts.stops++;
    });
  };

  // ── The program ──────────────────────────────────────────────────────────────────────────────────────────────────

  const nrChunks = Math.ceil(nrOperations / CHUNK);
  const stopEvery = Math.ceil(nrChunks / (spec.nrStops + 1));
  const isVictim = nrActive > 1 && cpu === victim;
  let operations = 0;
  if (cpu === 0) {
    data.fill(0, 0, MAILBOXES);
    control.set(OFFLINE, 0);
    control.set(WAS_OFFLINE, nrActive > 1 ? 0 : 1);
  }
  control.barrier(nrActive);
  for (let chunk = 1; chunk <= nrChunks; chunk++) {
    for (let i = 0; i < CHUNK; i++) operate();
    operations += CHUNK;
    if (!control.advance(CHUNK)) break;
    drainOffline();
    if (isVictim && chunk === nrChunks >>> 1) goOffline();
    // Every thread stops the machine in turn.
    if (chunk % stopEvery === 0 && (chunk / stopEvery) % nrActive === cpu) checkStopped();
  }

  if (isVictim) control.set(WAS_OFFLINE, 1);
  // A CPU that goes offline late must still find somebody to drain it.
  control.waitFor(WAS_OFFLINE, (value) => {
    drainOffline();
    return value === 1;
  });
  control.barrier(nrActive);
  for (const addr of slots) if (addr !== NULL) free(addr);
  control.barrier(nrActive);
  for (let word = 0; cpu === 0 && word < MAILBOXES; word++) {
    const addr = Atomics.exchange(data, word, 0) >>> 0;
    if (addr !== 0) free(asPhys(addr));
  }
  control.barrier(nrActive);
  return { operations, verified: blocks.nrVerified(), ...counts };
}
