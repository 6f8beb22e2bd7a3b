/**
 * The workloads of one thread, A1-A5: the whole kernel (context, counters, statistics) as it is booted for a run, and
 * what peers are asked for when the kernel is asked for pages.
 */

import { boot } from "../../kernel/entry/boot.ts";
import type { Kernel } from "../../kernel/entry/kernel.ts";
import { PAGE_SHIFT } from "../../kernel/params.ts";
import type { Pfn, PhysAddr } from "../../kernel/types.ts";
import { GFP_KERNEL } from "../../mm/index.ts";
import type { Subject } from "./replay.ts";
import { drawOrder, drawPareto, drawStream, type OpStream } from "./streams.ts";

export interface SingleWorkload {
  readonly id: string;
  readonly title: string;
  /** Nanoseconds per operation that the project wants to stay within. */
  readonly bar: number;
  readonly createSubject: (kernel: Kernel) => Subject;
  /** Operations to replay; null: pairs. */
  readonly createStream: ((kernel: Kernel, seed: string, nrOps: number) => OpStream) | null;
  /** Without a stream: so many allocations, then as many frees, of what size. */
  readonly burst: number;
  readonly size: number;
  /** Sizes are orders: a peer is asked for `1 << (shift + size)` bytes. 0: sizes are bytes. */
  readonly shift: number;
  /** What a peer's arena has to hold. */
  readonly arenaBytes: number;
}

const MAX_ORDER = 5;
/** A copy for the loops: an imported constant is loaded and looked at on every use. */
const GFP = GFP_KERNEL;
export const BENCH_RAM_BYTES = 256 * 1024 * 1024;

/** A machine as `run` boots it; by default of 65,536 frames. */
export function bootForBench(seed: string, ramBytes = BENCH_RAM_BYTES): Kernel {
  return boot({ nrCpus: 2, ramBytes, seed, port: "raw", cmdline: "quiet", console: () => {}, programs: new Map() });
}

export const pageSubject = (kernel: Kernel): Subject => {
  const { pageAlloc } = kernel.memory;
  const ctx = kernel.contexts.taskContext(0);
  return {
    alloc: (order) => pageAlloc.allocPages(ctx, order, GFP) as number,
    free(pfn, order) {
      pageAlloc.freePages(ctx, pfn as Pfn, order);
    },
  };
};

export const kmallocSubject = (kernel: Kernel): Subject => {
  const { kmalloc, kfree } = kernel.memory.slab.kmalloc;
  const ctx = kernel.contexts.taskContext(0);
  return {
    alloc: (size) => kmalloc(ctx, size, GFP) as number,
    free(addr) {
      kfree(ctx, addr as PhysAddr);
    },
  };
};

const cacheSubject = (kernel: Kernel): Subject => {
  const { slab } = kernel.memory;
  const { kmemCacheAlloc, kmemCacheFree } = slab.layer;
  const ctx = kernel.contexts.taskContext(0);
  const cache = slab.kmemCacheCreate(ctx, { name: "bench-256", size: 256 });
  return {
    alloc: () => kmemCacheAlloc(ctx, cache, GFP) as number,
    free(addr) {
      kmemCacheFree(ctx, cache, addr as PhysAddr);
    },
  };
};

/** Pages of order 0-5 around `share` of what the machine has. */
export const pageChurn =
  (share: number) =>
  (kernel: Kernel, seed: string, nrOps: number): OpStream =>
    drawStream({
      seed,
      nrOps,
      target: Math.floor(kernel.memory.zones.totalManaged() * share),
      drawSize: (prng) => drawOrder(prng, MAX_ORDER),
      weigh: (order) => 2 ** order,
    });

/** Around `nrLive` objects of `low` to `high` bytes. */
export const objectChurn =
  (nrLive: number, low: number, high: number) =>
  (_kernel: Kernel, seed: string, nrOps: number): OpStream =>
    drawStream({
      seed,
      nrOps,
      target: nrLive,
      drawSize: (prng) => (low === high ? low : drawPareto(prng, low, high)),
      weigh: () => 1,
    });

const pages = {
  createSubject: pageSubject,
  createStream: null,
  burst: 1,
  size: 0,
  shift: PAGE_SHIFT,
  // Headers and what a first fit leaves unused come on top of the pages.
  arenaBytes: 2 * BENCH_RAM_BYTES,
};
const objects = {
  createSubject: kmallocSubject,
  createStream: null,
  burst: 1,
  size: 64,
  shift: 0,
  arenaBytes: 64 * 1024 * 1024,
};

export const SINGLE_WORKLOADS: readonly SingleWorkload[] = [
  { ...pages, id: "A1", title: "order-0 page pair, through pcp", bar: 6 },
  { ...pages, id: "A1b", title: "128 order-0 pages, then 128 frees", bar: 6, burst: 128 },
  { ...pages, id: "A2", title: "page churn, orders 0-5, 50 % full", bar: 15, createStream: pageChurn(0.5) },
  { ...pages, id: "A2b", title: "page churn, orders 0-5, 90 % full", bar: 16, createStream: pageChurn(0.9) },
  { ...objects, id: "A3", title: "kmalloc(64) pair", bar: 6 },
  {
    ...objects,
    id: "A4",
    title: "named cache, 256 B, 10,000 live",
    bar: 7,
    createSubject: cacheSubject,
    createStream: objectChurn(10_000, 256, 256),
  },
  {
    ...objects,
    id: "A5",
    title: "kmalloc 16-4096 B, power law, 20,000 live",
    bar: 9,
    createStream: objectChurn(20_000, 16, 4096),
  },
];
