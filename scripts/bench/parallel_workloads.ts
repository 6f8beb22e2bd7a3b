/**
 * The workloads of `bench --parallel`: what each thread does, and how its work is counted.
 *
 *   none    the loop of `churn` and a little arithmetic, and no allocator: what this computer can do with its threads
 *   churn   larson: an array of 1,000 objects per thread; replace a random one by a new one of random size. Every
 *           20,000 replacements the thread exchanges its array for another one, so that it frees what others allocated.
 *   pipe    thread 2k allocates and passes each object through a ring of 4,096 to thread 2k + 1, which frees it. A
 *           thread without a partner does both in turns of 64.
 *   pages   256 blocks per thread; replace a random one by a new one of order 0-5, P(order) = 2^-(order + 1).
 *
 * A *pair* is one allocation and one free. Loops run in chunks so that the compiler's first versions are left soon and
 * the host sees progress. The streams of random numbers are drawn before the clock starts.
 */

import { createRandomStreams, type Prng } from "../../kernel/lib/prng.ts";
import { asPfn, asPhys, NO_PFN, NULL } from "../../kernel/types.ts";
import { GFP_ATOMIC } from "../../mm/index.ts";
import { FREE_WORD } from "./control.ts";
import type { ThreadWorld } from "./thread_world.ts";

export type ParallelWorkload = "none" | "churn" | "pipe" | "pages";

export interface WorkloadRun {
  /** Before any thread starts; thread by thread. */
  prepare(): void;
  /** About `nrPairs` pairs, fewer if the host wants an end; how many. */
  run(nrPairs: number): number;
  /** After all threads have ended: gives everything back. */
  end(): void;
}

const CHUNK = 4_000;

// ── none ───────────────────────────────────────────────────────────────────────────────────────────────────────────

function createNone(world: ThreadWorld): WorkloadRun {
  const { control } = world;
  const prng = prngOf(world, "none");
  const stream = Int32Array.from({ length: STREAM_LENGTH }, () => prng.below(2 ** 31));
  let [position, mixed] = [0, 1];
  const mixChunk = (): void => {
    for (let i = 0; i < CHUNK; i++) {
      const word = stream[(position + i) & (STREAM_LENGTH - 1)] as number;
      for (let round = 0; round < 16; round++) mixed = Math.imul(mixed ^ word, 0x9e37_79b1) ^ (mixed >>> 15);
    }
    position = (position + CHUNK) & (STREAM_LENGTH - 1);
  };
  return {
    prepare() {},
    run(nrPairs) {
      let nrDone = 0;
      while (nrDone < nrPairs) {
        mixChunk();
        nrDone += CHUNK;
        if (!control.advance(CHUNK)) break;
      }
      if (mixed === 0.5) throw new Error("none: impossible");
      return nrDone;
    },
    end() {},
  };
}

// ── churn ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const SLOTS = 1_000;
const SWAP_CHUNKS = 20_000 / CHUNK;
const MIN_OBJECT = 16;
const MAX_OBJECT = 512;
const STREAM_LENGTH = 1 << 16;

const prngOf = (world: ThreadWorld, name: string): Prng =>
  createRandomStreams(world.seed).stream(`bench:${name}:${world.cpu}`);

function createChurn(world: ThreadWorld): WorkloadRun {
  const { ctx, data, control } = world;
  const { kmalloc, kfree } = world.kernel.memory.slab.kmalloc;
  const prng = prngOf(world, "churn");
  const stream = Int32Array.from({ length: STREAM_LENGTH }, () => {
    const size = MIN_OBJECT + prng.below(MAX_OBJECT - MIN_OBJECT + 1);
    return prng.below(SLOTS) * 0x1_0000 + size;
  });
  // Word FREE_WORD holds the number of the array that nobody works on: array 0. Thread t starts with array t + 1.
  let mine = world.cpu + 1;
  let position = 0;

  const fillArray = (array: number): void => {
    for (let i = 0; i < SLOTS; i++) {
      data[array * SLOTS + i] = kmalloc(ctx, MIN_OBJECT + prng.below(MAX_OBJECT - MIN_OBJECT + 1), GFP_ATOMIC);
    }
  };
  const emptyArray = (array: number): void => {
    for (let i = 0; i < SLOTS; i++) kfree(ctx, asPhys((data[array * SLOTS + i] as number) >>> 0));
  };

  /** Number of failed allocations. */
  const churnChunk = (base: number): number => {
    let nrFailed = 0;
    for (let i = 0; i < CHUNK; i++) {
      const word = stream[(position + i) & (STREAM_LENGTH - 1)] as number;
      const slot = base + (word >>> 16);
      kfree(ctx, asPhys((data[slot] as number) >>> 0));
      const obj = kmalloc(ctx, word & 0xffff, GFP_ATOMIC);
      data[slot] = obj as number;
      if (obj === NULL) nrFailed++;
    }
    position = (position + CHUNK) & (STREAM_LENGTH - 1);
    return nrFailed;
  };

  return {
    prepare() {
      if (world.cpu === 0) {
        Atomics.store(control.words, FREE_WORD, 0);
        fillArray(0);
      }
      fillArray(mine);
    },
    run(nrPairs) {
      let nrDone = 0;
      let chunks = 0;
      while (nrDone < nrPairs) {
        if (churnChunk(mine * SLOTS) !== 0) throw new Error("churn: no memory");
        nrDone += CHUNK;
        if (++chunks % SWAP_CHUNKS === 0) mine = Atomics.exchange(control.words, FREE_WORD, mine);
        if (!control.advance(CHUNK)) break;
      }
      return nrDone;
    },
    end() {
      emptyArray(mine);
      if (world.cpu === 0) emptyArray(Atomics.load(control.words, FREE_WORD));
    },
  };
}

// ── pipe ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const RING = 4_096;
const BATCH = 64;
const PIPE_OBJECT = 64;
/** Words of a ring: head and tail on lines of their own, then the slots. */
const RING_WORDS = 32 + RING;
const HEAD = 0;
const TAIL = 16;

function createPipe(world: ThreadWorld, nrActive: number): WorkloadRun {
  const { ctx, control, data, kernel } = world;
  const { port } = kernel.machine;
  const { kmalloc, kfree } = kernel.memory.slab.kmalloc;
  const ring = (world.cpu >>> 1) * RING_WORDS;
  const slots = ring + 32;
  const isAlone = (world.cpu ^ 1) >= nrActive;
  const isProducer = (world.cpu & 1) === 0;
  let sent = 0;
  let received = 0;

  const produce = (): void => {
    for (let i = 0; i < BATCH; i++) {
      const obj = kmalloc(ctx, PIPE_OBJECT, GFP_ATOMIC);
      if (obj === NULL) throw new Error("pipe: no memory");
      port.st32(obj, sent + i);
      data[slots + ((sent + i) & (RING - 1))] = obj as number;
    }
    sent = (sent + BATCH) | 0;
    Atomics.store(data, ring + HEAD, sent);
  };

  const consume = (): void => {
    for (let i = 0; i < BATCH; i++) {
      const obj = asPhys((data[slots + ((received + i) & (RING - 1))] as number) >>> 0);
      if ((port.ld32(obj) | 0) !== ((received + i) | 0)) throw new Error("pipe: an object does not hold what was sent");
      kfree(ctx, obj);
    }
    received = (received + BATCH) | 0;
    Atomics.store(data, ring + TAIL, received);
  };

  /** Waits until the other side's counter shows room or objects; false when the host wants an end. */
  const waitForPartner = (word: number, isReady: (value: number) => boolean): boolean => {
    for (let look = 0; !isReady(Atomics.load(data, word)); look++) {
      if (look % 64 === 63 && !control.advance(0)) return false;
      if (look > 2_000) Atomics.wait(data, word, Atomics.load(data, word), 0.05);
    }
    return true;
  };
  const hasRoom = (tail: number): boolean => ((sent - tail) | 0) <= RING - BATCH;
  const hasObjects = (head: number): boolean => ((head - received) | 0) >= BATCH;

  const step = (): boolean => {
    if (isAlone) {
      produce();
      consume();
    } else if (isProducer) {
      if (!waitForPartner(ring + TAIL, hasRoom)) return false;
      produce();
    } else {
      if (!waitForPartner(ring + HEAD, hasObjects)) return false;
      consume();
    }
    return true;
  };

  return {
    prepare() {
      if (isProducer) data.fill(0, ring, ring + RING_WORDS);
    },
    run(nrPairs) {
      let nrDone = 0;
      while (nrDone < nrPairs) {
        if (!step()) break;
        nrDone += BATCH;
        if (nrDone % (BATCH * 64) === 0 && !control.advance(BATCH * 64)) break;
      }
      // Both sides of a pipe do half of each pair.
      return isAlone ? nrDone : nrDone / 2;
    },
    end() {
      // What was sent and not received, when the host wanted an early end.
      if (isProducer) return;
      const head = Atomics.load(data, ring + HEAD);
      while (received !== head) consume();
    },
  };
}

// ── pages ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const BLOCKS = 256;
const MAX_ORDER = 5;

function createPageChurn(world: ThreadWorld): WorkloadRun {
  const { ctx, control } = world;
  const { pageAlloc } = world.kernel.memory;
  const prng = prngOf(world, "pages");
  const stream = Int32Array.from({ length: STREAM_LENGTH }, () => {
    const order = Math.min(MAX_ORDER, Math.clz32(prng.below(2 ** 32)));
    return prng.below(BLOCKS) * 0x1_0000 + order;
  });
  const pfns = new Int32Array(BLOCKS);
  const orders = new Int32Array(BLOCKS);
  let position = 0;

  const replaceChunk = (): number => {
    let nrFailed = 0;
    for (let i = 0; i < CHUNK; i++) {
      const word = stream[(position + i) & (STREAM_LENGTH - 1)] as number;
      const block = word >>> 16;
      pageAlloc.freePages(ctx, asPfn(pfns[block] as number), orders[block] as number);
      const order = word & 0xffff;
      const pfn = pageAlloc.tryAllocPages(ctx, order, GFP_ATOMIC);
      pfns[block] = pfn;
      orders[block] = order;
      if (pfn === NO_PFN) nrFailed++;
    }
    position = (position + CHUNK) & (STREAM_LENGTH - 1);
    return nrFailed;
  };

  return {
    prepare() {
      for (let i = 0; i < BLOCKS; i++) pfns[i] = pageAlloc.tryAllocPages(ctx, 0, GFP_ATOMIC);
    },
    run(nrPairs) {
      let nrDone = 0;
      while (nrDone < nrPairs) {
        if (replaceChunk() !== 0) throw new Error("pages: no memory");
        nrDone += CHUNK;
        if (!control.advance(CHUNK)) break;
      }
      return nrDone;
    },
    end() {
      for (let i = 0; i < BLOCKS; i++) pageAlloc.freePages(ctx, asPfn(pfns[i] as number), orders[i] as number);
    },
  };
}

/** Words of shared memory that the workloads of `nrThreads` threads need. */
export const workloadWords = (nrThreads: number): number =>
  Math.max((nrThreads + 1) * SLOTS, Math.ceil(nrThreads / 2) * RING_WORDS);

/** Workload `name` in one thread, of `nrActive` that take part. */
export function createWorkload(name: ParallelWorkload, world: ThreadWorld, nrActive: number): WorkloadRun {
  if (name === "none") return createNone(world);
  if (name === "churn") return createChurn(world);
  return name === "pipe" ? createPipe(world, nrActive) : createPageChurn(world);
}
