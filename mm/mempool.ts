/**
 * Mempools: objects set aside, so that work which must go on can go on when memory is gone.
 *
 * 1. A driver that writes pages to disk in order to free memory needs memory to do it. If that allocation can fail,
 *    the machine may stand still with everybody waiting for everybody. A mempool keeps `min_nr` elements for such work,
 *    taken from the allocator in good times.
 *
 * 2. The reserve is the *second* choice. First the allocator is asked, not hard: without sleeping, without the page
 *    allocator's own reserves, without complaint. Only when it has nothing is an element of the reserve taken; then the
 *    allocator is asked again with all that the mask allows; then the caller sleeps until an element is freed (D6):
 *
 *      alloc ─▶ allocator, not sleeping ─▶ reserve ─▶ allocator, full mask ─▶ sleep ≤ 5 s ─┐
 *                      ▲                                                                   │
 *                      └───────────────── only a mask that may sleep ──────────────────────┘
 *
 * 3. Each element out comes back to the reserve as long as that is short, before the allocator sees it again. So with
 *    `min_nr` elements for each piece of work, one piece at a time always makes progress.
 *
 * The record, and how elements in the reserve are marked: mempool_elements.ts.
 *
 *   MPL-1  0 ≤ curr ≤ min_nr, and the first curr words of the array name distinct elements, all marked
 *   MPL-2  alloc with a mask that may sleep does not fail                                                         (D6)
 *   MPL-3  when the allocator gives nothing, min_nr elements can be out at the same time
 *   MPL-4  a free while curr < min_nr goes to the reserve and wakes who sleeps
 *   MPL-5  a pool is destroyed when no element is out; then everything it had is back with the allocator
 *   MPL-6  a free that is refused changes nothing
 *
 * Context: alloc any, as the mask says (G2: mightSleep first); free any; but none of them from an NMI, which may have
 * interrupted the holder of the lock. Create, resize, destroy: process context.
 * An element from the reserve has old content: __GFP_ZERO is a caller's bug.
 *
 * Differences from Linux: elements out are counted, and destroying a pool that still has some is refused; so is the
 * free of what is no element. min_nr is at least 1. Source: mm/mempool.c.
 */

import { bugOn } from "../kernel/bug.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { getOrder } from "../kernel/lib/bits.ts";
import { initListHead, listAdd, listDel, listNext } from "../kernel/lib/list.ts";
import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import { KERN_ERR, type Printk } from "../kernel/printk.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import type { Tasks } from "../kernel/task.ts";
import {
  asPhys,
  type Context,
  fromGranule,
  type MaySleep,
  NULL,
  type PhysAddr,
  physAdd,
  type Sleeping,
  type TaskContext,
  toGranule,
} from "../kernel/types.ts";
import { EBUSY, EINVAL, ENOMEM } from "../kernel/uapi/errno.ts";
import type { WaitQueues } from "../kernel/wait.ts";
import {
  __GFP_DIRECT_RECLAIM,
  __GFP_DMA,
  __GFP_DMA32,
  __GFP_IO,
  __GFP_NOMEMALLOC,
  __GFP_NORETRY,
  __GFP_NOWARN,
  __GFP_ZERO,
  type AtomicGfp,
  type BlockingGfp,
  GFP_KERNEL,
  type Gfp,
} from "./gfp.ts";
import { KMALLOC_MAX_CACHE_SIZE, KMALLOC_MAX_SIZE } from "./kmalloc.ts";
import {
  asMempool,
  createMempoolElements,
  MEMPOOL_BYTES,
  MEMPOOL_MAGIC,
  type Mempool,
  type MempoolElementsDeps,
  NO_MEMPOOL,
  P_CURR,
  P_ELEMENTS,
  P_FROM_RESERVE,
  P_KIND,
  P_LOCK,
  P_MAGIC,
  P_MIN,
  P_NODE,
  P_OUT,
  P_SLEEPS,
  P_WAIT,
  P_WHAT,
  P_ZONE,
  POOL_CACHE,
  POOL_KMALLOC,
  POOL_PAGES,
} from "./mempool_elements.ts";
import { type KmemCache, NO_CACHE } from "./slab_descriptor.ts";
import { hexAddr } from "./slab_report.ts";

/** Static memory of all mempools together, zeroed: lock, list head. */
export const MEMPOOL_STATIC_BYTES = 16;
/** What one pool can keep at most: its array is one kmalloc. */
export const MEMPOOL_MAX_NR = KMALLOC_MAX_SIZE / 4;

/** How long a sleeper waits at most before it asks the allocator again. */
const SLEEP_CYCLES = 5 * CYCLES_PER_SECOND;
/** What each attempt adds to the caller's mask. */
const ALWAYS = __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN;
/** What the first attempt leaves out. */
const NOT_AT_FIRST = __GFP_DIRECT_RECLAIM | __GFP_IO;

/** What a pool is to keep: objects of a cache, or blocks of so many bytes. */
export interface MempoolSpec {
  /** 1 … MEMPOOL_MAX_NR. */
  readonly minNr: number;
  readonly cache?: KmemCache;
  /** Instead of `cache`: 1 … 4 MiB. Above 8 KiB an element is a block of whole pages. */
  readonly bytes?: number;
  /** With `bytes`: __GFP_DMA or __GFP_DMA32, for elements that a device must reach. */
  readonly zone?: number;
}

export interface MempoolInfo {
  readonly minNr: number;
  readonly currNr: number;
  readonly nrOut: number;
  /** Elements that came from the reserve, and how often somebody slept, since creation. */
  readonly fromReserve: number;
  readonly sleeps: number;
}

/** mempool_alloc by kind of mask. */
export interface MempoolAlloc {
  (ctx: TaskContext, pool: Mempool, gfp: BlockingGfp): MaySleep<PhysAddr>;
  (ctx: Context, pool: Mempool, gfp: AtomicGfp): PhysAddr;
}

export interface Mempools {
  /** A pool with its reserve filled; NO_MEMPOOL, and nothing left behind, if memory is short or a parameter bad. */
  create(ctx: TaskContext, spec: MempoolSpec): Sleeping<Mempool>;
  /** An element. NULL only with a mask that may not sleep, when allocator and reserve have nothing. */
  readonly alloc: MempoolAlloc;
  /** The same for masks known at run time only. */
  allocAny(ctx: Context, pool: Mempool, gfp: Gfp): MaySleep<PhysAddr>;
  /** Gives an element back: 0, or −EINVAL after a report. Any context. NULL is nothing. */
  free(ctx: Context, pool: Mempool, element: PhysAddr): number;
  /** Another reserve: 0, −EINVAL, or −ENOMEM with the pool unchanged. A larger one may not be full at once. */
  resize(ctx: TaskContext, pool: Mempool, minNr: number): Sleeping<number>;
  /** Gives everything back: 0; −EBUSY while elements are out, −EINVAL if it is no pool (both printed). */
  destroy(ctx: TaskContext, pool: Mempool): number;
  info(pool: Mempool): MempoolInfo;
  forEach(visit: (pool: Mempool) => void): void;
  /** MPL-1 of every pool: the first violation, or null. O(elements in reserve). */
  check(): string | null;
}

export interface MempoolDeps extends MempoolElementsDeps {
  readonly contexts: ContextTracking;
  readonly spinlocks: Spinlocks;
  readonly printk: Printk;
  readonly tasks: Pick<Tasks, "at">;
  readonly waits: Pick<WaitQueues, "init" | "wakeUp" | "isEmpty" | "waitOnTimeout">;
  /** MEMPOOL_STATIC_BYTES of zeroed static memory. */
  readonly statics: PhysAddr;
}

export function createMempools(deps: MempoolDeps): Mempools {
  const { machine, contexts, spinlocks, printk, tasks, waits, statics } = deps;
  const { port, harts } = machine;
  const { kmalloc } = deps.slab;
  const { spinLockIrqsave, spinUnlockIrqrestore } = spinlocks;
  const LIST = physAdd(statics, 8);
  initListHead(port, LIST);

  const count = (addr: number): void => port.stF64(addr, port.ldF64(addr) + 1);
  const elementsOf = createMempoolElements(deps);
  const { allocElement, freeElement, isElement, setMark, isMarked } = elementsOf;
  const slotOf = (pool: Mempool, i: number): number => fromGranule(port.ld32(pool + P_ELEMENTS)) + i * 4;

  // ── The reserve ──────────────────────────────────────────────────────────────────────────────────────────────────

  const pushLocked = (pool: Mempool, element: PhysAddr): void => {
    const curr = port.ld32(pool + P_CURR);
    setMark(pool, element, true);
    port.st32(slotOf(pool, curr), toGranule(element));
    port.st32(pool + P_CURR, curr + 1);
  };
  const popLocked = (pool: Mempool): PhysAddr => {
    const curr = port.ld32(pool + P_CURR) - 1;
    const element = fromGranule(port.ld32(slotOf(pool, curr)));
    setMark(pool, element, false);
    port.st32(pool + P_CURR, curr);
    return element;
  };

  const takeReserve = (ctx: Context, pool: Mempool): PhysAddr => {
    const irq = spinLockIrqsave(ctx, pool);
    let element = NULL;
    if (port.ld32(pool + P_CURR) > 0) {
      element = popLocked(pool);
      count(pool + P_FROM_RESERVE);
    }
    spinUnlockIrqrestore(ctx, pool, irq);
    return element;
  };

  /** Puts an element into the reserve if that is short. */
  const refill = (ctx: Context, pool: Mempool, element: PhysAddr): boolean => {
    const irq = spinLockIrqsave(ctx, pool);
    const isShort = port.ld32(pool + P_CURR) < port.ld32(pool + P_MIN);
    if (isShort) pushLocked(pool, element);
    spinUnlockIrqrestore(ctx, pool, irq);
    return isShort;
  };

  // ── Alloc and free ───────────────────────────────────────────────────────────────────────────────────────────────

  const handOut = (pool: Mempool, element: PhysAddr): PhysAddr => {
    port.fetchAdd(pool + P_OUT, 1);
    return element;
  };

  function* waitForElement(ctx: TaskContext, pool: Mempool): Sleeping<void> {
    const task = tasks.at(asPhys(contexts.currentTask(ctx)));
    if (task === undefined) return bugOn(true, "mempool: the idle task has to sleep for an element", pool);
    count(pool + P_SLEEPS);
    yield* waits.waitOnTimeout(asPhys(pool + P_WAIT), task, (harts.clock[ctx.cpu] as number) + SLEEP_CYCLES);
  }

  /** D6 from the second attempt on: the full mask, then the reserve, then sleep, until there is one. */
  function* allocSleeping(ctx: TaskContext, pool: Mempool, gfp: Gfp): Sleeping<PhysAddr> {
    for (;;) {
      const got = allocElement(ctx, pool, gfp);
      const element = typeof got === "object" ? yield* got : got;
      if (element !== NULL) return handOut(pool, element);
      const reserved = takeReserve(ctx, pool);
      if (reserved !== NULL) return handOut(pool, reserved);
      // An interrupt at the unlock may have freed one: its wake-up is over, so look again before sleeping.
      if (port.ldAtomic(pool + P_CURR) === 0) yield* waitForElement(ctx, pool);
    }
  }

  const allocAny = (ctx: Context, pool: Mempool, gfp: Gfp): MaySleep<PhysAddr> => {
    bugOn((gfp & __GFP_ZERO) !== 0, "mempool: __GFP_ZERO, but elements of a reserve keep their content", gfp);
    if ((gfp & __GFP_DIRECT_RECLAIM) !== 0) contexts.mightSleep(ctx, "mm/mempool.ts:mempoolAlloc");
    const mask = gfp | ALWAYS;
    const first = allocElement(ctx, pool, mask & ~NOT_AT_FIRST) as PhysAddr;
    if (first !== NULL) return handOut(pool, first);
    const reserved = takeReserve(ctx, pool);
    if (reserved !== NULL) return handOut(pool, reserved);
    if ((gfp & __GFP_DIRECT_RECLAIM) === 0) return NULL;
    return contexts.mustIterate(allocSleeping(ctx as TaskContext, pool, mask));
  };

  const refuse = (ctx: Context, what: string, pool: Mempool, error: number): number => {
    contexts.taint("B");
    printk(KERN_ERR, `BUG: ${what} [pool ${hexAddr(pool)}]\n${contexts.stackDump(ctx)}`);
    return error;
  };

  const free = (ctx: Context, pool: Mempool, element: PhysAddr): number => {
    if (element === NULL) return 0;
    if (!isElement(pool, element)) {
      return refuse(ctx, `mempool_free of invalid pointer ${hexAddr(element)}`, pool, -EINVAL);
    }
    port.fetchAdd(pool + P_OUT, -1);
    // A look without the lock: the reserve is full nearly always.
    if (port.ldAtomic(pool + P_CURR) < port.ldAtomic(pool + P_MIN) && refill(ctx, pool, element)) {
      waits.wakeUp(asPhys(pool + P_WAIT));
      return 0;
    }
    freeElement(ctx, pool, element);
    return 0;
  };

  // ── Creating, resizing, destroying ───────────────────────────────────────────────────────────────────────────────

  const isPossible = ({ minNr, cache = NO_CACHE, bytes = 0, zone = 0 }: MempoolSpec): boolean => {
    if (!Number.isInteger(minNr) || minNr < 1 || minNr > MEMPOOL_MAX_NR) return false;
    if (cache !== NO_CACHE) return bytes === 0 && zone === 0;
    if (zone !== 0 && zone !== __GFP_DMA && zone !== __GFP_DMA32) return false;
    return Number.isInteger(bytes) && bytes >= 1 && bytes <= KMALLOC_MAX_SIZE;
  };

  const writePool = (pool: Mempool, elements: PhysAddr, spec: MempoolSpec): void => {
    const { minNr, cache = NO_CACHE, bytes = 0, zone = 0 } = spec;
    port.fill(pool, 0, MEMPOOL_BYTES);
    port.st32(pool + P_MIN, minNr);
    port.st32(pool + P_ELEMENTS, toGranule(elements));
    const isSmall = bytes <= KMALLOC_MAX_CACHE_SIZE;
    port.st32(pool + P_KIND, cache !== NO_CACHE ? POOL_CACHE : isSmall ? POOL_KMALLOC : POOL_PAGES);
    port.st32(pool + P_WHAT, cache !== NO_CACHE ? toGranule(cache) : isSmall ? bytes : getOrder(bytes));
    port.st32(pool + P_ZONE, zone);
    port.st32(pool + P_MAGIC, MEMPOOL_MAGIC);
    waits.init(asPhys(pool + P_WAIT));
  };

  const setListed = (ctx: Context, pool: Mempool, isListed: boolean): void => {
    const irq = spinLockIrqsave(ctx, statics);
    if (isListed) listAdd(port, asPhys(pool + P_NODE), LIST);
    else listDel(port, asPhys(pool + P_NODE));
    spinUnlockIrqrestore(ctx, statics, irq);
  };

  /** Gives back the elements above `keep`. */
  const trim = (ctx: Context, pool: Mempool, keep: number): void => {
    for (;;) {
      const irq = spinLockIrqsave(ctx, pool);
      const element = port.ld32(pool + P_CURR) > keep ? popLocked(pool) : NULL;
      spinUnlockIrqrestore(ctx, pool, irq);
      if (element === NULL) return;
      freeElement(ctx, pool, element);
    }
  };

  const release = (ctx: Context, pool: Mempool): void => {
    trim(ctx, pool, 0);
    kmalloc.kfree(ctx, fromGranule(port.ld32(pool + P_ELEMENTS)));
    port.st32(pool + P_MAGIC, 0);
    kmalloc.kfree(ctx, pool);
  };

  function* kmallocNow(ctx: TaskContext, bytes: number): Sleeping<PhysAddr> {
    const got = kmalloc.kmalloc(ctx, bytes, GFP_KERNEL);
    return typeof got === "object" ? yield* got : got;
  }

  /** Fills the reserve up to min_nr; false when memory ran out first. */
  function* fillReserve(ctx: TaskContext, pool: Mempool): Sleeping<boolean> {
    while (port.ld32(pool + P_CURR) < port.ld32(pool + P_MIN)) {
      const got = allocElement(ctx, pool, GFP_KERNEL);
      const element = typeof got === "object" ? yield* got : got;
      if (element === NULL) return false;
      // A free may have been faster.
      if (!refill(ctx, pool, element)) freeElement(ctx, pool, element);
    }
    return true;
  }

  function* create(ctx: TaskContext, spec: MempoolSpec): Sleeping<Mempool> {
    if (!isPossible(spec)) return NO_MEMPOOL;
    const pool = asMempool(yield* kmallocNow(ctx, MEMPOOL_BYTES));
    if (pool === NO_MEMPOOL) return NO_MEMPOOL;
    const elements = yield* kmallocNow(ctx, spec.minNr * 4);
    if (elements === NULL) {
      kmalloc.kfree(ctx, pool);
      return NO_MEMPOOL;
    }
    writePool(pool, elements, spec);
    if (!(yield* fillReserve(ctx, pool))) {
      release(ctx, pool);
      return NO_MEMPOOL;
    }
    setListed(ctx, pool, true);
    return pool;
  }

  /** Moves the reserve into a larger array. */
  const adoptArray = (ctx: Context, pool: Mempool, elements: PhysAddr, minNr: number): void => {
    const irq = spinLockIrqsave(ctx, pool);
    const old = fromGranule(port.ld32(pool + P_ELEMENTS));
    port.copy(elements, old, port.ld32(pool + P_CURR) * 4);
    port.st32(pool + P_ELEMENTS, toGranule(elements));
    port.st32(pool + P_MIN, minNr);
    spinUnlockIrqrestore(ctx, pool, irq);
    kmalloc.kfree(ctx, old);
  };

  function* resize(ctx: TaskContext, pool: Mempool, minNr: number): Sleeping<number> {
    if (!Number.isInteger(minNr) || minNr < 1 || minNr > MEMPOOL_MAX_NR) return -EINVAL;
    if (minNr <= port.ld32(pool + P_MIN)) {
      port.st32(pool + P_MIN, minNr);
      trim(ctx, pool, minNr);
      return 0;
    }
    const elements = yield* kmallocNow(ctx, minNr * 4);
    if (elements === NULL) return -ENOMEM;
    adoptArray(ctx, pool, elements, minNr);
    // What is missing comes with the next frees (MPL-4).
    yield* fillReserve(ctx, pool);
    return 0;
  }

  const forEach = (visit: (pool: Mempool) => void): void => {
    for (let node = listNext(port, LIST); node !== LIST; ) {
      const next = listNext(port, node);
      visit(asMempool(node - P_NODE));
      node = next;
    }
  };

  const destroy = (ctx: TaskContext, pool: Mempool): number => {
    if (!elementsOf.isPool(pool)) return refuse(ctx, "mempool_destroy of what is no mempool", pool, -EINVAL);
    const nrOut = port.ldAtomic(pool + P_OUT);
    if (nrOut !== 0 || !waits.isEmpty(asPhys(pool + P_WAIT))) {
      return refuse(ctx, `mempool_destroy with ${nrOut} element(s) out`, pool, -EBUSY);
    }
    setListed(ctx, pool, false);
    release(ctx, pool);
    return 0;
  };

  // ── Checking ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const checkPool = (pool: Mempool): string | null => {
    const [curr, minNr] = [port.ld32(pool + P_CURR), port.ld32(pool + P_MIN)];
    if (curr > minNr) return "MPL-1: more elements in reserve than min_nr";
    const seen = new Set<number>();
    for (let i = 0; i < curr; i++) {
      const element = fromGranule(port.ld32(slotOf(pool, i)));
      if (seen.has(element)) return "MPL-1: an element is in the reserve twice";
      seen.add(element);
      if (!isMarked(pool, element)) return "MPL-1: an element in the reserve is not marked";
    }
    return port.ld32(pool + P_LOCK) === 0 ? null : "mempool: the lock is taken";
  };

  return {
    create: (ctx, spec) => contexts.mustIterate(create(ctx, spec)),
    alloc: allocAny as MempoolAlloc,
    allocAny,
    free,
    resize: (ctx, pool, minNr) => contexts.mustIterate(resize(ctx, pool, minNr)),
    destroy,
    info: (pool) => ({
      minNr: port.ld32(pool + P_MIN),
      currNr: port.ld32(pool + P_CURR),
      nrOut: port.ld32(pool + P_OUT),
      fromReserve: port.ldF64(pool + P_FROM_RESERVE),
      sleeps: port.ldF64(pool + P_SLEEPS),
    }),
    forEach,
    check() {
      let fault: string | null = null;
      forEach((pool) => {
        fault ??= checkPool(pool);
      });
      return fault;
    },
  };
}
