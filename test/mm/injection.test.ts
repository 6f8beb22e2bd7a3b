/**
 * Interrupts at every point of the allocators.
 *
 * Goal: CTX-2, PCP-*, MAG-*, DEP-2, SLAB-*, BUD-* and VMS-2 hold whatever interrupt comes between two accesses.
 * Method: for each operation (page and object, hit, refill, spill, exchange, grow, drain) an interrupt whose handler
 * itself allocates and frees is injected before every access with interrupts on, one run per access; after each run
 * all auditors run, everything is freed and the free pages are counted. Then random programs with many interrupts.
 * Three planted mutants show that the method finds what it looks for.
 */

import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { createRandomStreams } from "../../kernel/lib/prng.ts";
import { type Context, type IrqContext, NO_PFN, NULL, type Pfn, type PhysAddr } from "../../kernel/types.ts";
import { __GFP_NOWARN, __GFP_ZERO, GFP_ATOMIC } from "../../mm/gfp.ts";
import type { KmemCache } from "../../mm/slab_descriptor.ts";
import { PGALLOC_DMA, PGFREE } from "../../mm/vmstat.ts";
import { forEachInjection, injectAtRandom } from "../support/injection.ts";
import { bootObjectLevel, type MutableParts, type ObjectLevelMachine } from "../support/object_level.ts";

const ATOMIC = GFP_ATOMIC | __GFP_NOWARN;
let nrExhaustive = 0;
let nrRandom = 0;
afterAll(() => console.info(`interrupts injected: ${nrExhaustive} exhaustively, ${nrRandom} at random`));

interface World extends ObjectLevelMachine {
  /** Objects three to a magazine, so that exchanges with the depot are near. */
  readonly cache: KmemCache;
  /** What is allocated: pages by order, objects. Restored by hand before each run. */
  live: { pages: [Pfn, number][]; objects: PhysAddr[]; kmallocs: PhysAddr[] };
  /** Put aside for the interrupt to free. */
  readonly prepared: { pages: [Pfn, number][]; objects: PhysAddr[]; kmallocs: PhysAddr[] };
  freeAtStart: number;
  /** Pages that were in use before, less the events of then. */
  baseline: number;
}

const copyOf = (live: World["live"]): World["live"] => ({
  pages: [...live.pages],
  objects: [...live.objects],
  kmallocs: [...live.kmallocs],
});

const page = (w: World, ctx: Context, order: number, gfp = ATOMIC): void => {
  const pfn = w.pageAlloc.tryAllocPages(ctx, order, gfp);
  if (pfn === NO_PFN) throw new Error("no page");
  w.live.pages.push([pfn, order]);
};
const freePage = (w: World, ctx: Context): void => {
  const [pfn, order] = w.live.pages.shift() as [Pfn, number];
  if (w.pageAlloc.freePages(ctx, pfn, order) !== 0) throw new Error("a page cannot be freed");
};
const object = (w: World, ctx: Context): void => {
  const obj = w.slab.layer.kmemCacheAllocAny(ctx, w.cache, ATOMIC) as PhysAddr;
  if (obj === NULL) throw new Error("no object");
  w.live.objects.push(obj);
};
const freeObject = (w: World, ctx: Context): void => {
  const obj = w.live.objects.shift() as PhysAddr;
  if (w.slab.layer.kmemCacheFree(ctx, w.cache, obj) !== 0) throw new Error("an object cannot be freed");
};
const kmalloc = (w: World, ctx: Context, bytes: number): void => {
  const obj = w.slab.kmalloc.kmallocAny(ctx, bytes, ATOMIC) as PhysAddr;
  if (obj === NULL) throw new Error("kmalloc: no memory");
  w.live.kmallocs.push(obj);
};
const kfree = (w: World, ctx: Context): void => {
  if (w.slab.kmalloc.kfree(ctx, w.live.kmallocs.shift() as PhysAddr) !== 0) throw new Error("kfree refuses");
};
const freeAll = (w: World): void => {
  while (w.live.pages.length > 0) freePage(w, w.ctx);
  while (w.live.objects.length > 0) freeObject(w, w.ctx);
  while (w.live.kmallocs.length > 0) kfree(w, w.ctx);
};
const balanceOfEvents = (w: World): number =>
  [0, 1, 2, 3].reduce((sum, zone) => sum + w.vmstat.event(PGALLOC_DMA + zone), -w.vmstat.event(PGFREE));

/** Nothing lost, nothing broken; pages counted as allocated are counted as freed. */
function check(w: World): void {
  for (const fault of [w.slab.check(), w.pageAlloc.check()]) if (fault !== null) throw new Error(fault);
  freeAll(w);
  w.slab.shrinkAll(w.ctx);
  w.pageAlloc.drainAllPages(w.ctx);
  for (const fault of [w.slab.check(), w.pageAlloc.check()]) if (fault !== null) throw new Error(fault);
  const lost = w.freeAtStart - w.zones.totalFree();
  if (lost !== 0) throw new Error(`${lost} pages lost`);
  const events = balanceOfEvents(w) - (w.machine.config.ramBytes / 4096 - w.zones.totalFree() - w.baseline);
  if (events !== 0) throw new Error(`VMS-2: ${events} page events lost`);
}

type Act = (w: World, ctx: Context) => void;

/** A world at rest in which `prepare` has been at work; `put` objects and pages are kept for the interrupt to free. */
function worldOf(prepare: Act, mutate?: (parts: MutableParts) => MutableParts): World {
  const options = { ramBytes: 8 << 20, nrCpus: 2, port: "inject" } as const;
  const m = bootObjectLevel("magazine", mutate === undefined ? options : { ...options, mutate });
  const cache = m.slab.kmemCacheCreate(m.ctx, { name: "injected", size: 600 });
  const none = (): World["live"] => ({ pages: [], objects: [], kmallocs: [] });
  const w: World = { ...m, cache, live: none(), prepared: none(), freeAtStart: 0, baseline: 0 };
  m.slab.shrinkAll(m.ctx);
  m.pageAlloc.drainAllPages(m.ctx);
  w.freeAtStart = m.zones.totalFree();
  w.baseline = m.machine.config.ramBytes / 4096 - w.freeAtStart - balanceOfEvents(w);
  prepare(w, m.ctx);
  Object.assign(w.prepared, copyOf(w.live));
  return w;
}

const times = (n: number, act: Act): Act => {
  return (w, ctx) => {
    for (let i = 0; i < n; i++) act(w, ctx);
  };
};
const inOrder = (...acts: Act[]): Act => {
  return (w, ctx) => {
    for (const act of acts) act(w, ctx);
  };
};
const pageOf =
  (order: number, gfp = ATOMIC): Act =>
  (w, ctx) =>
    page(w, ctx, order, gfp);
const kmallocOf =
  (bytes: number): Act =>
  (w, ctx) =>
    kmalloc(w, ctx, bytes);
const nothing: Act = () => {};
const drainPages: Act = (w, ctx) => w.pageAlloc.drainAllPages(ctx);

/** What the interrupt does: takes and gives back; or gives back what it finds and keeps something else. */
const handlers: Readonly<Record<string, (w: World, irq: IrqContext) => void>> = {
  "takes and frees"(w, irq) {
    const mine = copyOf(w.live);
    w.live = { pages: [], objects: [], kmallocs: [] };
    inOrder(pageOf(0), pageOf(2), object, object, kmallocOf(64))(w, irq);
    inOrder(freePage, freePage, freeObject, freeObject, kfree)(w, irq);
    w.live = mine;
  },
  "frees and keeps"(w, irq) {
    // From the end: the operation itself frees from the start.
    const last = <T>(list: T[]): T[] => list.splice(-1);
    const mine = w.live;
    const theirs = { pages: last(mine.pages), objects: last(mine.objects), kmallocs: last(mine.kmallocs) };
    w.live = theirs;
    const nr = [theirs.pages.length, theirs.objects.length, theirs.kmallocs.length] as const;
    inOrder(pageOf(0), object, object, kmallocOf(64))(w, irq);
    times(nr[0], freePage)(w, irq);
    times(nr[1], freeObject)(w, irq);
    times(nr[2], kfree)(w, irq);
    w.live = {
      pages: [...mine.pages, ...theirs.pages],
      objects: [...mine.objects, ...theirs.objects],
      kmallocs: [...mine.kmallocs, ...theirs.kmallocs],
    };
  },
};

const operations: readonly (readonly [name: string, prepare: Act, operation: Act])[] = [
  ["page: from the per-CPU list", inOrder(times(4, pageOf(0)), times(2, freePage)), pageOf(0)],
  ["page: refill of the per-CPU list", inOrder(times(2, pageOf(0)), drainPages), pageOf(0)],
  ["page: to the per-CPU list", times(3, pageOf(0)), freePage],
  ["page: frees until a spill", times(14, pageOf(0)), times(12, freePage)],
  ["page: order 3, zeroed, and back", times(2, pageOf(3)), inOrder(pageOf(3, ATOMIC | __GFP_ZERO), freePage)],
  ["page: order 5, past the per-CPU lists, and back", times(2, pageOf(5)), inOrder(pageOf(5), freePage)],
  ["page: order 9 and back", nothing, inOrder(pageOf(9), freePage)],
  ["page: drain of all lists", inOrder(times(6, pageOf(0)), times(5, freePage)), drainPages],
  ["object: hit", inOrder(times(4, object), times(2, freeObject)), object],
  ["object: miss, from a slab", times(2, object), object],
  ["object: miss, a new slab", nothing, object],
  ["object: free, a hit", inOrder(times(4, object), freeObject), freeObject],
  ["object: free, a new magazine", times(3, object), freeObject],
  ["object: frees through the depot", times(14, object), times(12, freeObject)],
  ["object: allocations through the depot", inOrder(times(14, object), times(13, freeObject)), times(12, object)],
  [
    "object: up and down over a magazine's edge",
    times(5, object),
    times(3, inOrder(object, object, freeObject, freeObject)),
  ],
  [
    "object: drain of the magazines and the empty slabs",
    inOrder(times(20, object), times(18, freeObject)),
    (w, ctx) => {
      w.slab.layer.drain(ctx, w.cache);
      w.slab.slabs.shrink(ctx, w.cache);
    },
  ],
  ["kmalloc 64 and back", times(2, kmallocOf(64)), inOrder(kmallocOf(64), kfree)],
  ["kmalloc 8192: a slab of several pages", nothing, kmallocOf(8192)],
  ["kmalloc 20000: pages, and back", nothing, inOrder(kmallocOf(20_000), kfree)],
];

const exhaust = (setup: () => World, operation: Act, handler: (w: World, irq: IrqContext) => void) =>
  forEachInjection(
    setup,
    (w) => {
      w.live = copyOf(w.prepared);
      operation(w, w.ctx);
    },
    handler,
    check,
  );

describe.each(Object.keys(handlers))("an interrupt that %s", (name) => {
  const handler = handlers[name] as (w: World, irq: IrqContext) => void;

  it.each(operations)("%s", (_name, prepare, operation) => {
    const { accesses, injected } = exhaust(() => worldOf(prepare), operation, handler);
    expect(accesses).toBeGreaterThan(4);
    nrExhaustive += injected;
  });
});

describe("random programs", () => {
  it("many interrupts in a program of all operations: everything is there at the end", () => {
    const acts: Readonly<Record<string, Act>> = {
      page: pageOf(0),
      pages: pageOf(2),
      block: pageOf(5),
      freePage: (w, ctx) => w.live.pages.length > 0 && freePage(w, ctx),
      object,
      freeObject: (w, ctx) => w.live.objects.length > 0 && freeObject(w, ctx),
      small: kmallocOf(64),
      large: kmallocOf(20_000),
      kfree: (w, ctx) => w.live.kmallocs.length > 0 && kfree(w, ctx),
      drain: drainPages,
      shrink: (w, ctx) => w.slab.shrinkAll(ctx),
    };
    const names = fc.constantFrom(...Object.keys(acts), "freePage", "freeObject", "kfree");
    const program = fc.array(names, { minLength: 20, maxLength: 80 });
    const w = worldOf(nothing);
    const start = w.machine.save();
    fc.assert(
      fc.property(program, fc.string({ maxLength: 4 }), fc.constantFrom(0.005, 0.03), (names, seed, rate) => {
        w.machine.restore(start);
        w.live = copyOf(w.prepared);
        const draw = createRandomStreams(seed).stream("inject");
        nrRandom += injectAtRandom(
          w,
          () => {
            for (const name of names) (acts[name] as Act)(w, w.ctx);
          },
          (world, irq) => (handlers[draw.next() < 0.5 ? "takes and frees" : "frees and keeps"] as Act)(world, irq),
          () => draw.next() < rate,
        );
        check(w);
      }),
      { numRuns: 40 },
    );
  });
});

describe("planted mistakes are found", () => {
  const balanced = handlers["takes and frees"] as (w: World, irq: IrqContext) => void;
  const upAndDown = inOrder(object, object, freeObject, freeObject);

  it("MAG-1, MAG-2 a magazine layer that leaves interrupts on", () => {
    const forgets = (parts: MutableParts): MutableParts => ({
      ...parts,
      contexts: { ...parts.contexts, localIrqSave: () => 1, localIrqRestore: () => {} },
    });
    expect(() => exhaust(() => worldOf(times(5, object), forgets), upAndDown, balanced)).toThrow(
      /before access \d+ of/,
    );
  });

  it("SPL-2 slabs that take their list lock without switching interrupts off", () => {
    const forgets = (parts: MutableParts): MutableParts => ({
      ...parts,
      spinlocks: {
        ...parts.spinlocks,
        spinLockIrqsave(ctx, lock) {
          parts.spinlocks.spinLock(ctx, lock);
          return 1;
        },
        spinUnlockIrqrestore: (ctx, lock) => parts.spinlocks.spinUnlock(ctx, lock),
      },
    });
    expect(() => exhaust(() => worldOf(nothing, forgets), object, balanced)).toThrow("spinlock: recursion");
  });

  it("VMS-2 a count that is loaded and stored with interrupts on, as vmstat once did", () => {
    // The second half of the null page, which nobody uses: the task counts in one word, the interrupt in both.
    const COUNT = 2048;
    const INTERRUPTS = 2052;
    const add = (w: World, word: number): void => {
      w.machine.port.st32(word, w.machine.port.ld32(word) + 1);
    };
    const handler = (w: World): void => {
      add(w, COUNT);
      add(w, INTERRUPTS);
    };
    const isComplete = (w: World): void => {
      if (w.machine.port.ld32(COUNT) !== 1 + w.machine.port.ld32(INTERRUPTS)) throw new Error("a count is lost");
    };
    const run = () =>
      forEachInjection(
        () => worldOf(nothing),
        (w) => add(w, COUNT),
        handler,
        isComplete,
      );
    expect(run).toThrow("before access 1 of 2: a count is lost");
  });
});
