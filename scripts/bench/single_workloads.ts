/**
 * The workloads of one thread, A1-A5: the whole kernel (context, counters, statistics) as it is booted for a run.
 *
 * A *subject* is an allocator that a stream is replayed on. `none` takes the stream and allocates nothing: what the
 * loop itself costs, shown beside the others and subtracted nowhere. Other subjects (peers) join here.
 */

import { boot } from "../../kernel/entry/boot.ts";
import type { Kernel } from "../../kernel/entry/kernel.ts";
import { asPfn, asPhys } from "../../kernel/types.ts";
import { GFP_KERNEL } from "../../mm/index.ts";
import { drawOrder, drawPareto, drawStream, type OpStream } from "./streams.ts";

export const SUBJECTS = ["slabtown", "none"] as const;
export type SubjectName = (typeof SUBJECTS)[number];

/** An allocator under test; `free` is told the size that `alloc` was asked for. 0 is a failed allocation. */
export interface Subject {
  alloc(size: number): number;
  free(addr: number, size: number): void;
}

export interface SingleWorkload {
  readonly id: string;
  readonly title: string;
  /** Nanoseconds per operation that the project wants to stay within. */
  readonly bar: number;
  readonly createSubject: (kernel: Kernel) => Subject;
  /** Operations to replay; null: pairs of one allocation and one free. */
  readonly createStream: ((kernel: Kernel, seed: string, nrOps: number) => OpStream) | null;
  /** Allocations, then as many frees, of a workload without a stream. */
  readonly burst: number;
}

const MAX_ORDER = 5;
const RAM_BYTES = 256 * 1024 * 1024;

/** A machine of 65,536 frames, as `run` boots it. */
export function bootForBench(seed: string): Kernel {
  return boot({
    nrCpus: 2,
    ramBytes: RAM_BYTES,
    seed,
    port: "raw",
    cmdline: "quiet",
    console: () => {},
    programs: new Map(),
  });
}

const pageSubject = (kernel: Kernel): Subject => {
  const { pageAlloc } = kernel.memory;
  const ctx = kernel.contexts.taskContext(0);
  return {
    alloc: (order) => pageAlloc.allocPages(ctx, order, GFP_KERNEL) as number,
    free(pfn, order) {
      pageAlloc.freePages(ctx, asPfn(pfn), order);
    },
  };
};

const kmallocSubject = (kernel: Kernel): Subject => {
  const { kmalloc, kfree } = kernel.memory.slab.kmalloc;
  const ctx = kernel.contexts.taskContext(0);
  return {
    alloc: (size) => kmalloc(ctx, size, GFP_KERNEL) as number,
    free(addr) {
      kfree(ctx, asPhys(addr));
    },
  };
};

const cacheSubject = (kernel: Kernel): Subject => {
  const { slab } = kernel.memory;
  const { kmemCacheAlloc, kmemCacheFree } = slab.layer;
  const ctx = kernel.contexts.taskContext(0);
  const cache = slab.kmemCacheCreate(ctx, { name: "bench-256", size: 256 });
  return {
    alloc: () => kmemCacheAlloc(ctx, cache, GFP_KERNEL) as number,
    free(addr) {
      kmemCacheFree(ctx, cache, asPhys(addr));
    },
  };
};

const pageChurn =
  (share: number) =>
  (kernel: Kernel, seed: string, nrOps: number): OpStream =>
    drawStream({
      seed,
      nrOps,
      target: Math.floor(kernel.memory.zones.totalManaged() * share),
      drawSize: (prng) => drawOrder(prng, MAX_ORDER),
      weigh: (order) => 2 ** order,
    });

const objectChurn =
  (nrLive: number, low: number, high: number) =>
  (_kernel: Kernel, seed: string, nrOps: number): OpStream =>
    drawStream({
      seed,
      nrOps,
      target: nrLive,
      drawSize: (prng) => (low === high ? low : drawPareto(prng, low, high)),
      weigh: () => 1,
    });

const pages = { createSubject: pageSubject, burst: 0 };
const objects = { createSubject: kmallocSubject, burst: 0 };

export const SINGLE_WORKLOADS: readonly SingleWorkload[] = [
  { ...pages, id: "A1", title: "order-0 page pair, through pcp", bar: 6, createStream: null, burst: 1 },
  { ...pages, id: "A1b", title: "128 order-0 pages, then 128 frees", bar: 6, createStream: null, burst: 128 },
  { ...pages, id: "A2", title: "page churn, orders 0-5, 50 % full", bar: 15, createStream: pageChurn(0.5) },
  { ...pages, id: "A2b", title: "page churn, orders 0-5, 90 % full", bar: 16, createStream: pageChurn(0.9) },
  { ...objects, id: "A3", title: "kmalloc(64) pair", bar: 6, createStream: null, burst: 1 },
  {
    id: "A4",
    title: "named cache, 256 B, 10,000 live",
    bar: 7,
    createSubject: cacheSubject,
    createStream: objectChurn(10_000, 256, 256),
    burst: 0,
  },
  {
    ...objects,
    id: "A5",
    title: "kmalloc 16-4096 B, power law, 20,000 live",
    bar: 9,
    createStream: objectChurn(20_000, 16, 4096),
  },
];

/** What a pair without a stream asks for. */
const PAIR_SIZE: Readonly<Record<string, number>> = { A3: 64 };
export const pairSize = (id: string): number => PAIR_SIZE[id] ?? 0;
