/**
 * Fault injection: allocations that fail because somebody wants to see what happens then.
 *
 * 1. Code for "no memory" runs almost never, so it is where bugs live longest. Two attributes say when an allocation is
 *    refused though there is memory: `failslab` for objects (kmem_cache_alloc, small kmalloc), `fail_page_alloc` for
 *    blocks of pages (also those that slabs, page tables and programs need). Each has Linux's four numbers
 *    `interval,probability,space,times`:
 *
 *      a request ─▶ probability 0, or times used up? ─▶ grant
 *                ─▶ space > size?  space −= size      ─▶ grant        so many bytes go through first
 *                ─▶ not the interval-th one?          ─▶ grant
 *                ─▶ dice above probability %?         ─▶ grant
 *                ─▶ say so, times −= 1                ─▶ refuse       times −1: without end
 *
 * 2. `fail_nth=N` refuses exactly the N-th request of either kind since the system runs, `fail_nth=N+` that one and all
 *    later ones. Requests are numbered in the order of virtual time, so N names the same place in each run with the
 *    same seed: that is what `slabtown run --fault-sweep` walks through.
 *
 * 3. It stands in front of the page allocator and of the per-CPU layer as a wrapper, put there by the composition when
 *    a parameter asks for it. Without one there is nothing on any path.
 *
 *   FIN-1  nothing is refused before arm() (boot), in mustNotFail(), to init, or with __GFP_NOFAIL
 *   FIN-2  a refused request has changed nothing but the counters here
 *   FIN-3  requests are counted whether refused or not; two runs with one seed count alike
 *   FIN-4  with fail_nth=N at most one request is refused, the N-th; with N+ all from the N-th on
 *
 * All state is in RAM; the dice are a random stream of their own, so that no other sequence moves.
 *
 * Differences from Linux: fail_nth belongs to the machine and not to a task (/proc/<pid>/fail-nth), and counts in
 * interrupts too; masks that may sleep are not spared (ignore-gfp-wait, min-order); the splat of C4 stays out.
 * Source: lib/fault-inject.c, mm/failslab.c, mm/fail_page_alloc.c, Documentation/fault-injection.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import type { ContextTracking } from "../kernel/context.ts";
import type { FileRegistry } from "../kernel/file.ts";
import { CYCLES_PER_SECOND, PAGE_SIZE } from "../kernel/params.ts";
import { KERN_NOTICE, KERN_WARNING, type Printk } from "../kernel/printk.ts";
import { TASK_PID, taskComm } from "../kernel/task_struct.ts";
import { type Context, NO_PFN, NULL, type PhysAddr, type Sleeping } from "../kernel/types.ts";
import { EINVAL } from "../kernel/uapi/errno.ts";
import { __GFP_DIRECT_RECLAIM, __GFP_NOFAIL, __GFP_NOWARN, type Gfp } from "./gfp.ts";
import type { KmemCacheAllocBulk } from "./object_bulk.ts";
import type { KmemCacheAlloc, ObjectCacheLayer } from "./object_cache.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { CACHE_OBJECT_SIZE } from "./slab_descriptor.ts";

// ── Layout ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** An attribute, 40 bytes: five u32 (space and times signed), its request count, its rate limit. */
const A_INTERVAL = 0;
const A_PROBABILITY = 4;
const A_SPACE = 8;
const A_TIMES = 12;
const A_VERBOSE = 16;
const A_COUNT = 20;
/** f64: until when reports are counted; u32: how many were printed since. */
const A_RATE_END = 24;
const A_RATE_PRINTED = 32;
const ATTRIBUTE_BYTES = 40;

/** Behind the two attributes. f64 counters: which request fails, requests seen; u32: the rest. */
const NTH = 2 * ATTRIBUTE_BYTES;
const SEEN = NTH + 8;
const FORCED = NTH + 16;
const IS_ARMED = NTH + 20;
const IS_PERSISTENT = NTH + 24;
/** Static memory, zeroed, on 8 bytes. */
export const FAULT_INJECT_BYTES = NTH + 32;

/** Reports per interval: Linux's DEFAULT_RATELIMIT_BURST in DEFAULT_RATELIMIT_INTERVAL. */
const RATE_BURST = 10;
const RATE_CYCLES = 5 * CYCLES_PER_SECOND;

const NAMES = ["failslab", "fail_page_alloc"] as const;
const SLAB = 0;
const PAGES = 1;
type Kind = typeof SLAB | typeof PAGES;

/** Texts of the kernel parameters; undefined: not given. */
export interface FaultParameters {
  readonly failslab: string | undefined;
  readonly failPageAlloc: string | undefined;
  /** `N` or `N+`. */
  readonly failNth: string | undefined;
}

export interface FaultStats {
  /** Requests since arm() that could have been refused, and those that were. */
  readonly nrRequests: number;
  readonly nrForced: number;
}

export interface FaultInjection {
  /** From here on requests are counted and may be refused: the system runs. */
  arm(): void;
  /** Nothing is refused or counted any more. */
  disarm(): void;
  /** Runs `work`, in which nothing is refused or counted. */
  mustNotFail<T>(work: () => T): T;
  stats(): FaultStats;
  /** `pageAlloc` with requests that may be refused. */
  failPages(pageAlloc: PageAllocator): PageAllocator;
  /** `layer` with requests that may be refused. */
  failObjects(layer: ObjectCacheLayer): ObjectCacheLayer;
  /** /sys/kernel/debug/failslab and fail_page_alloc. */
  registerFiles(registry: FileRegistry): void;
}

/** Told of each request that may be refused, before it is: its number, and whom it is for. Changes nothing. */
export type RequestObserver = (nr: number, who: string) => void;

export interface FaultInjectionDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  /** FAULT_INJECT_BYTES. */
  readonly state: PhysAddr;
  readonly onRequest?: RequestObserver | undefined;
}

/** Fault injection as `parameters` ask for it; undefined if they do not. Malformed ones are reported and ignored. */
export function createFaultInjection(
  parameters: FaultParameters,
  deps: FaultInjectionDeps,
): FaultInjection | undefined {
  const { failslab, failPageAlloc, failNth } = parameters;
  if (failslab === undefined && failPageAlloc === undefined && failNth === undefined) return undefined;
  const { machine, contexts, printk, state, onRequest } = deps;
  const { port, harts } = machine;
  const dice = machine.random.stream("fault_inject");
  const attribute = (kind: Kind): number => state + kind * ATTRIBUTE_BYTES;
  const signed = (addr: number): number => port.ld32(addr) | 0;

  // ── Parameters ───────────────────────────────────────────────────────────────────────────────────────────────────

  const complain = (name: string, text: string): void =>
    printk(KERN_WARNING, `FAULT_INJECTION: failed to parse arguments\nFAULT_INJECTION: ${name}=${text} is ignored`);

  const storeNumbers = (at: number, match: readonly string[]): void => {
    [A_INTERVAL, A_PROBABILITY, A_SPACE, A_TIMES].forEach((field, i) => {
      port.st32(at + field, Number(match[i + 1]) >>> 0);
    });
  };

  const setUp = (kind: Kind, text: string | undefined): void => {
    const at = attribute(kind);
    port.st32(at + A_INTERVAL, 1);
    port.st32(at + A_TIMES, 1);
    port.st32(at + A_VERBOSE, 2);
    if (text === undefined) return;
    const match = /^(\d{1,9}),(\d{1,9}),(-?\d{1,9}),(-?\d{1,9})$/.exec(text);
    if (match === null) complain(NAMES[kind], text);
    else storeNumbers(at, match);
  };

  setUp(SLAB, failslab);
  setUp(PAGES, failPageAlloc);
  const nth = /^(\d{1,15})(\+?)$/.exec(failNth ?? "");
  if (nth !== null) {
    port.stF64(state + NTH, Number(nth[1]));
    port.st32(state + IS_PERSISTENT, nth[2] === "+" ? 1 : 0);
  } else if (failNth !== undefined) complain("fail_nth", failNth);

  // ── The decision ─────────────────────────────────────────────────────────────────────────────────────────────────

  /** FIN-1: who loses init loses the system, on a real kernel too. */
  const isInit = (ctx: Context): boolean => {
    const task = contexts.currentTask(ctx);
    return task !== 0 && port.ld32(task + TASK_PID) === 1 && taskComm(port, task) === "init" && contexts.inTask(ctx);
  };

  const whoAsks = (ctx: Context): string =>
    contexts.inTask(ctx) ? taskComm(port, contexts.currentTask(ctx)) : "interrupt";

  const isPrintable = (ctx: Context, at: number): boolean => {
    const now = harts.clock[ctx.cpu] as number;
    if (now >= port.ldF64(at + A_RATE_END)) {
      port.stF64(at + A_RATE_END, now + RATE_CYCLES);
      port.st32(at + A_RATE_PRINTED, 0);
    }
    const nrPrinted = port.ld32(at + A_RATE_PRINTED);
    if (nrPrinted >= RATE_BURST) return false;
    port.st32(at + A_RATE_PRINTED, nrPrinted + 1);
    return true;
  };

  const report = (ctx: Context, kind: Kind, gfp: Gfp): void => {
    const at = attribute(kind);
    const verbose = port.ld32(at + A_VERBOSE);
    if (verbose === 0 || (gfp & __GFP_NOWARN) !== 0 || !isPrintable(ctx, at)) return;
    const numbers =
      `interval ${port.ld32(at + A_INTERVAL)}, probability ${port.ld32(at + A_PROBABILITY)}, ` +
      `space ${signed(at + A_SPACE)}, times ${signed(at + A_TIMES)}`;
    const lines = ["FAULT_INJECTION: forcing a failure.", `name ${NAMES[kind]}, ${numbers}`];
    if (verbose > 1) lines.push(contexts.stackDump(ctx));
    printk(KERN_NOTICE, lines.join("\n"));
  };

  const refuse = (ctx: Context, kind: Kind, gfp: Gfp): boolean => {
    const at = attribute(kind);
    report(ctx, kind, gfp);
    port.fetchAdd(state + FORCED, 1);
    if (signed(at + A_TIMES) > 0) port.st32(at + A_TIMES, signed(at + A_TIMES) - 1);
    return true;
  };

  const isByAttribute = (kind: Kind, bytes: number): boolean => {
    const at = attribute(kind);
    const probability = port.ld32(at + A_PROBABILITY);
    if (probability === 0 || signed(at + A_TIMES) === 0) return false;
    if (signed(at + A_SPACE) > bytes) {
      port.st32(at + A_SPACE, signed(at + A_SPACE) - bytes);
      return false;
    }
    if (port.ld32(at + A_INTERVAL) > 1) {
      const nr = port.ld32(at + A_COUNT) + 1;
      port.st32(at + A_COUNT, nr);
      if (nr % port.ld32(at + A_INTERVAL) !== 0) return false;
    }
    return dice.below(100) < probability;
  };

  const shouldFail = (ctx: Context, kind: Kind, bytes: number, gfp: Gfp): boolean => {
    if (port.ld32(state + IS_ARMED) === 0 || (gfp & __GFP_NOFAIL) !== 0 || isInit(ctx)) return false;
    const seen = port.ldF64(state + SEEN) + 1;
    port.stF64(state + SEEN, seen);
    onRequest?.(seen, whoAsks(ctx));
    const target = port.ldF64(state + NTH);
    const isNth = target !== 0 && (seen === target || (seen > target && port.ld32(state + IS_PERSISTENT) !== 0));
    return (isNth || isByAttribute(kind, bytes)) && refuse(ctx, kind, gfp);
  };

  // ── The wrappers ─────────────────────────────────────────────────────────────────────────────────────────────────

  /** G2 holds for a refused request as well: a mask that may sleep says so in the wrong context. */
  const mayFail = (ctx: Context, kind: Kind, bytes: number, gfp: Gfp, place: string): boolean => {
    if (!shouldFail(ctx, kind, bytes, gfp)) return false;
    if ((gfp & __GFP_DIRECT_RECLAIM) !== 0) contexts.mightSleep(ctx, place);
    return true;
  };

  const failPages = (inner: PageAllocator): PageAllocator => {
    const place = "mm/page_alloc.ts:allocPages";
    const allocPagesAny: PageAllocator["allocPagesAny"] = (ctx, order, gfp) =>
      mayFail(ctx, PAGES, PAGE_SIZE << order, gfp, place) ? NO_PFN : inner.allocPagesAny(ctx, order, gfp);
    return {
      ...inner,
      allocPages: allocPagesAny as PageAllocator["allocPages"],
      allocPagesAny,
      tryAllocPages: (ctx, order, gfp) =>
        shouldFail(ctx, PAGES, PAGE_SIZE << order, gfp) ? NO_PFN : inner.tryAllocPages(ctx, order, gfp),
      getFreePages: (ctx, order, gfp) =>
        mayFail(ctx, PAGES, PAGE_SIZE << order, gfp, place) ? NULL : inner.getFreePages(ctx, order, gfp),
    };
  };

  const failObjects = (inner: ObjectCacheLayer): ObjectCacheLayer => {
    const kmemCacheAllocAny: ObjectCacheLayer["kmemCacheAllocAny"] = (ctx, cache, gfp) =>
      mayFail(ctx, SLAB, port.ld32(cache + CACHE_OBJECT_SIZE), gfp, "mm/object_cache.ts:kmemCacheAlloc")
        ? NULL
        : inner.kmemCacheAllocAny(ctx, cache, gfp);
    const kmemCacheAllocBulkAny: ObjectCacheLayer["kmemCacheAllocBulkAny"] = (ctx, cache, gfp, nr, into) =>
      mayFail(ctx, SLAB, port.ld32(cache + CACHE_OBJECT_SIZE), gfp, "mm/object_bulk.ts:kmemCacheAllocBulk")
        ? 0
        : inner.kmemCacheAllocBulkAny(ctx, cache, gfp, nr, into);
    return {
      ...inner,
      kmemCacheAlloc: kmemCacheAllocAny as KmemCacheAlloc,
      kmemCacheAllocAny,
      kmemCacheAllocBulk: kmemCacheAllocBulkAny as KmemCacheAllocBulk,
      kmemCacheAllocBulkAny,
    };
  };

  // ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────

  const FILES: readonly (readonly [name: string, field: number, isSigned: boolean])[] = [
    ["interval", A_INTERVAL, false],
    ["probability", A_PROBABILITY, false],
    ["space", A_SPACE, true],
    ["times", A_TIMES, true],
    ["verbose", A_VERBOSE, false],
  ];

  function* write(addr: number, isSigned: boolean, text: string): Sleeping<number> {
    const word = text.trim();
    if (!(isSigned ? /^-?\d{1,9}$/ : /^\d{1,9}$/).test(word)) return -EINVAL;
    port.st32(addr, Number(word) >>> 0);
    return 0;
  }

  const registerFiles = (registry: FileRegistry): void => {
    for (const kind of [SLAB, PAGES] as const) {
      for (const [name, field, isSigned] of FILES) {
        const addr = attribute(kind) + field;
        registry.registerText(`/sys/kernel/debug/${NAMES[kind]}/${name}`, {
          read: () => `${isSigned ? signed(addr) : port.ld32(addr)}\n`,
          write: (_task, text) => write(addr, isSigned, text),
        });
      }
    }
  };

  return {
    arm: () => port.st32(state + IS_ARMED, 1),
    disarm: () => port.st32(state + IS_ARMED, 0),
    mustNotFail(work) {
      const wasArmed = port.ld32(state + IS_ARMED);
      port.st32(state + IS_ARMED, 0);
      const result = work();
      port.st32(state + IS_ARMED, wasArmed);
      return result;
    },
    stats: () => ({ nrRequests: port.ldF64(state + SEEN), nrForced: port.ld32(state + FORCED) }),
    failPages,
    failObjects,
    registerFiles,
  };
}
