/**
 * What lab 8 gives you: GFP flags, a machine with pages, a lock and a wait queue, and the functions that you write.
 *
 * Do not change this file: the grader uses its own copy.
 */

/** What takePage, allocPage and poolAlloc return when there is no page. */
export const NO_PAGE = 0xffff_ffff;

// ── Flags: what an allocation may do ───────────────────────────────────────────────────────────────────────────────

/** May use half of the reserve. */
export const __GFP_HIGH = 0x20;
/** Reclaim may start I/O; may call into file systems. */
export const __GFP_IO = 0x40;
export const __GFP_FS = 0x80;
/** May sleep: reclaim memory itself. */
export const __GFP_DIRECT_RECLAIM = 0x400;
/** May wake the task that reclaims in the background. */
export const __GFP_KSWAPD_RECLAIM = 0x800;
/** No complaint when it fails. */
export const __GFP_NOWARN = 0x2000;
/** Must not fail; only with __GFP_DIRECT_RECLAIM. */
export const __GFP_NOFAIL = 0x8000;
/** Reclaims once and no more. */
export const __GFP_NORETRY = 0x1_0000;
/** For those who free memory: may use all of it. */
export const __GFP_MEMALLOC = 0x2_0000;
/** Not even with __GFP_MEMALLOC. */
export const __GFP_NOMEMALLOC = 0x8_0000;

export const GFP_ATOMIC = __GFP_HIGH | __GFP_KSWAPD_RECLAIM;
export const GFP_NOWAIT = __GFP_KSWAPD_RECLAIM | __GFP_NOWARN;
export const GFP_NOIO = __GFP_DIRECT_RECLAIM | __GFP_KSWAPD_RECLAIM;
export const GFP_NOFS = GFP_NOIO | __GFP_IO;
export const GFP_KERNEL = GFP_NOFS | __GFP_FS;

export const ENOMEM = 12;
export const EBUSY = 16;
export const EINVAL = 22;

/** What may sleep is a generator: `const n = yield* machine.reclaim(gfp)`. */
export type Sleeping<T> = Generator<undefined, T, undefined>;

export interface Machine {
  /** Watermarks, in pages: min < low. */
  readonly min: number;
  readonly low: number;
  freePages(): number;
  /** A page that is yours now, or NO_PAGE. Looks at no watermark. */
  takePage(): number;
  givePage(page: number): void;
  /** Wakes the task that reclaims in the background. */
  wakeKswapd(): void;
  /** Says "from here on I may sleep": finds callers that must not, even if nobody sleeps this time. */
  mightSleep(): void;
  /** Reclaims as the mask allows; how many pages became free. Sleeps. */
  reclaim(gfp: number): Sleeping<number>;

  /** The spinlock. Interrupts stay on with lock, and are off from lockIrq to unlockIrq. */
  lock(): void;
  unlock(): void;
  lockIrq(): void;
  unlockIrq(): void;

  /** Puts the running task on the wait queue. */
  prepareToWait(): void;
  /** Sleeps until the task is woken; returns at once if it has been woken since prepareToWait. */
  schedule(): Sleeping<void>;
  /** Takes the running task off the wait queue. */
  finishWait(): void;
  /** Wakes the task that has been on the wait queue longest. */
  wakeOne(): void;

  /** Asks for one run of runDeferred in a task, soon. */
  scheduleWork(): void;
  /** Ends an object: waits until its users are gone. Sleeps. */
  release(object: number): Sleeping<void>;
}

export interface Gfp {
  /** May an allocation with this mask sleep? */
  mayBlock(gfp: number): boolean;
  /** Pages that an allocation with this mask must leave when memory is short (GFP-4). */
  keeps(gfp: number): number;
  /** A page, or NO_PAGE. */
  allocPage(gfp: number): Sleeping<number>;

  /** Makes the pool with `minNr` pages in reserve: 0, or −ENOMEM and nothing is kept. In a task. */
  createPool(minNr: number): Sleeping<number>;
  /** A page; NO_PAGE only if the mask does not allow to sleep. In any context that the mask fits. */
  poolAlloc(gfp: number): Sleeping<number>;
  /** 0, or −EINVAL for a page that poolAlloc has not given. In any context. */
  poolFree(page: number): number;
  /** Gives the reserve back: 0, or −EBUSY while pages are out. In a task. */
  destroyPool(): number;

  /** The object is to be ended by `release`, by and by. In any context, an interrupt too. */
  deferFree(object: number): void;
  /** Ends the objects that wait for it. In a task. */
  runDeferred(): Sleeping<void>;
}
