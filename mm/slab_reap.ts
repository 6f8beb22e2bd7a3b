/**
 * Giving back what caches hold: once per interval what was not needed, under pressure what can be had without sleeping.
 *
 *   reapTick      every 15 s at most: each depot's working set is measured, what two intervals did not need goes to the
 *                 slabs, and magazines of contended depots grow (M6, M7)
 *   reapForPages  the page allocator is about to fail: everything in the depots, then all empty slabs
 *
 * M8: a tick begins when the one before has ended *and* 15 s have passed since, so reaping slows itself down when it is
 * slow. Pressure does not wait for the 15 s, because what it prevents is a failed allocation; but who may not sleep
 * reaps only a few magazines at a time, since he may hold up interrupts.
 *
 *   state, 24 bytes: +0 u32 1 while reaping; +8 f64 when the next tick may begin; +16 f64 ticks so far
 *
 *   REAP-1  at most one reaping at a time: an interrupt on top of one, that wants pages itself, does without
 *   REAP-2  what CPUs have loaded is left alone
 *
 * Context: reapTick process context, no other CPU inside the layer (magazine_stock.ts). reapForPages any; no lock of a
 * cache is held. Source: illumos kmem.c (kmem_reap_common, kmem_update).
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import type { Context, PhysAddr, TaskContext } from "../kernel/types.ts";
import type { ObjectCacheLayer } from "./object_cache.ts";
import type { SlabLayer } from "./slab_layer.ts";

export const REAP_INTERVAL = 15 * CYCLES_PER_SECOND;
/** Magazines that one call in atomic context may unload: at most 8 · 143 objects. */
const ATOMIC_MAGAZINES = 8;

const REAPING = 0;
const NEXT_TICK = 8;
const NR_TICKS = 16;

export interface SlabReap {
  /** M6-M8: magazines destroyed; −1 if it is not yet time, or one is still going on. */
  reapTick(ctx: TaskContext): number;
  /** The first interval begins now. */
  startReaping(now: number): void;
  /** When the next reapTick will do something, in cycles. */
  nextReap(): number;
  nrReapTicks(): number;
  /** Returns what can be had without sleeping: magazines and pages that moved. `isAtomic`: only a few. */
  reapForPages(ctx: Context, isAtomic: boolean): number;
}

export interface SlabReapDeps {
  readonly machine: Machine;
  readonly spinlocks: Spinlocks;
  readonly slabs: SlabLayer;
  readonly layer: ObjectCacheLayer;
  /** The lock that makes creating and destroying a cache one step. */
  readonly mutex: PhysAddr;
  /** 24 bytes of zeroed static memory. */
  readonly state: PhysAddr;
}

export function createSlabReap({ machine, spinlocks, slabs, layer, mutex, state }: SlabReapDeps): SlabReap {
  const { port, harts } = machine;

  /** REAP-1, and the list of caches stands still meanwhile. False, and nothing to undo, if it cannot be now. */
  const begin = (ctx: Context): boolean => {
    if (port.cas(state + REAPING, 0, 1) !== 0) return false;
    if (spinlocks.spinTryLock(ctx, mutex)) return true;
    port.stAtomic(state + REAPING, 0);
    return false;
  };
  const end = (ctx: Context): void => {
    spinlocks.spinUnlock(ctx, mutex);
    port.stAtomic(state + REAPING, 0);
  };

  return {
    reapTick(ctx) {
      if ((harts.clock[ctx.cpu] as number) < port.ldF64(state + NEXT_TICK) || !begin(ctx)) return -1;
      let nr = 0;
      slabs.forEachCache((cache) => {
        nr += layer.tick(ctx, cache);
      });
      port.stF64(state + NEXT_TICK, (harts.clock[ctx.cpu] as number) + REAP_INTERVAL);
      port.stF64(state + NR_TICKS, port.ldF64(state + NR_TICKS) + 1);
      end(ctx);
      return nr;
    },
    startReaping: (now) => port.stF64(state + NEXT_TICK, now + REAP_INTERVAL),
    nextReap: () => port.ldF64(state + NEXT_TICK),
    nrReapTicks: () => port.ldF64(state + NR_TICKS),
    reapForPages(ctx, isAtomic) {
      if (!begin(ctx)) return 0;
      let left = isAtomic ? ATOMIC_MAGAZINES : Number.POSITIVE_INFINITY;
      let nr = 0;
      slabs.forEachCache((cache) => {
        const reaped = layer.reap(ctx, cache, left, true);
        left -= reaped;
        nr += reaped;
      });
      slabs.forEachCache((cache) => {
        nr += slabs.shrink(ctx, cache);
      });
      end(ctx);
      return nr;
    },
  };
}
