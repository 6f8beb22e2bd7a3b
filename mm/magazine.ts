/**
 * Magazines: a few objects at hand on every CPU, so that most allocations take no lock and touch no shared line.
 *
 * Theory.
 *
 * 1. A *magazine* is a small array of free objects, its *rounds*. A CPU with a loaded magazine allocates by taking the
 *    last round and frees by adding one: a handful of loads and stores on lines that no other CPU writes. Interrupts
 *    are off meanwhile, nothing else is needed: the state belongs to the CPU.
 *
 *      CPU 0            CPU 1                         per CPU and cache, one line:
 *      ┌─ loaded   ▮▮▮▯▯   ┌─ loaded   ▮▯▯▯▯             loaded, rounds, previous, prounds, magsize, counters
 *      └─ previous ▮▮▮▮▮   └─ previous ▯▯▯▯▯
 *           │ ▲                 │ ▲
 *           ▼ │                 ▼ │        one exchange per magazine
 *      ┌─ depot ──────────────────────────┐
 *      │ full  ▮▮▮▮▮ ▮▮▮▮▮    empty ▯▯▯▯▯ │   depot.ts
 *      └──────────────────────────────────┘
 *           │ ▲ when the depot has none, object by object
 *           ▼ │
 *          slabs                              slab.ts
 *
 * 2. Why *two* magazines? With one, a CPU whose loaded magazine is full (or empty) and that alternates between one free
 *    and one allocation would visit the depot each time. The previous magazine is either full or empty. When the loaded
 *    one cannot serve, exchange the two if that helps; only if not, go to the depot: so after a visit, at least magsize
 *    allocations or magsize frees pass before the next one (M4). That is the whole point of `previous`, and the mutant
 *    that forgets the exchange is correct and slow, which is why MAG-5 is tested and not only the results.
 *
 * 3. Alloc (M2): a round in the loaded magazine → take it. Else a full previous → exchange. Else a full magazine from
 *    the depot: previous (empty) is left there, loaded becomes previous, the full one is loaded. Else the slab layer:
 *    one object, and *no* filling up. Magazines are filled by frees only, so a cache that is only allocated from costs
 *    no magazines, and constructed objects are not built before they are wanted.
 *
 * 4. Free (M3) is the mirror image, with an empty magazine. If the depot has none, one is made: from the internal
 *    caches `magazine-N`, which have no magazines themselves. If there is no memory for one, the object goes to its
 *    slab: a free never fails.
 *
 * 5. The size of a magazine comes with the size of the object (M5): many small objects, few large ones. It grows when
 *    CPUs meet at the depot too often (M6), and what is not needed there is given back (M7): magazine_stock.ts.
 *
 * 6. An object in a magazine is free to the user and in use to its slab. Its state byte says CACHED, so a second free
 *    of it is told at once: "Object already free". Only the owner of the object writes the byte: the caller before the
 *    free, this CPU between free and alloc, the next caller after it.
 *
 * 7. The per-CPU record is one cache line (magazine_cpu.ts). One word of it holds rounds, room and a count of
 *    operations, so that a hit moves the round and is counted by one load and one store.
 *
 *   MAG-1  rounds = −1 ⇔ no magazine, else 0 ≤ rounds ≤ magsize; the same for previous
 *   MAG-2  every round names an object of this cache in state CACHED; no object is a round twice, none is forgotten
 *   MAG-3  previous is full, or empty, or none
 *   MAG-4  depot: DEP-1, DEP-2, magazines of this cache's size
 *   MAG-5  between two visits of a CPU to the depot lie at least magsize allocations or magsize frees             (M4)
 *   MAG-6  allocs + slab allocs − frees − slab frees = live objects; cached = Σ rounds + full · magsize;
 *          live + cached = objects in use of the slab layer                                                      (M13)
 *   MAG-7  a free that is refused changes nothing
 *   MAG-8  rounds + room = magsize in the word of a loaded magazine
 *   MAG-9, MAG-10, MAG-11: magazine_stock.ts
 *   MAG-12 what the slabs handed out for this cache was a miss of some CPU: Σ alloc misses ≥ slab allocs
 *
 * M13 adds "full magazines loaded" to the allocations; ours counts an object taken from a loaded magazine where it is
 * taken, however the magazine got there, so that term is contained in `allocs`.
 *
 * Context: any; interrupt handlers and tasks use the same magazines. Locks: none on a hit, the depot's on an exchange.
 *
 * A round is two words, the object's granule and the address of its state byte: a free has computed the latter, and an
 * allocation need not look for it again.
 *
 * Differences from illumos: both halves of a depot exchange happen under one lock.
 * Source: J. Bonwick, J. Adams, "Magazines and Vmem", USENIX 2001; illumos kmem.c (kmem_cache_alloc, kmem_cache_free).
 */

import { CYC_MAGAZINE_SWAP } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { GRANULE_SHIFT, MAX_CPUS } from "../kernel/params.ts";
import { asPhys, type Context, type MaySleep, NULL, type PhysAddr } from "../kernel/types.ts";
import { EINVAL } from "../kernel/uapi/errno.ts";
import type { Depot } from "./depot.ts";
import { __GFP_DIRECT_RECLAIM, __GFP_ZERO, type Gfp } from "./gfp.ts";
import { createMagazineCheck } from "./magazine_check.ts";
import {
  CC_ALLOC_MISSES,
  CC_EMPTY_LOADS,
  CC_FREE_MISSES,
  CC_FULL_LOADS,
  CC_HAND,
  CC_LOADED,
  CC_MAGSIZE,
  CC_PREVIOUS,
  CC_PROUNDS,
  createMagazineCpu,
  HAND_ROUNDS,
} from "./magazine_cpu.ts";
import { createMagazineHits } from "./magazine_hit.ts";
import { createMagazineStock } from "./magazine_stock.ts";
import { createObjectBulk } from "./object_bulk.ts";
import type { KmemCacheAlloc, MissPath, ObjectCacheLayer } from "./object_cache.ts";
import type { Pages } from "./page.ts";
import {
  CACHE_CC,
  CC_SHIFT,
  type KmemCache,
  NO_SLAB,
  OBJECT_LIVE,
  RAM_GRANULES,
  SLAB_CACHE,
} from "./slab_descriptor.ts";
import type { SlabLayer } from "./slab_layer.ts";
import type { SlabObjects } from "./slab_objects.ts";
import { hexAddr, type SlabReports } from "./slab_report.ts";

/** Copies for the exchange of magazines: why, see slab_objects.ts. In words, but for the counters. */
const HAND = CC_HAND >>> 2;
const LOADED = CC_LOADED >>> 2;
const PREVIOUS = CC_PREVIOUS >>> 2;
const PREVIOUS_ROUNDS = CC_PROUNDS >>> 2;
const MAGSIZE = CC_MAGSIZE >>> 2;
const ROUNDS = HAND_ROUNDS;
const FULL_LOADS = CC_FULL_LOADS;
const EMPTY_LOADS = CC_EMPTY_LOADS;
const ALLOC_MISSES = CC_ALLOC_MISSES;
const FREE_MISSES = CC_FREE_MISSES;
const SWAP_CYCLES = CYC_MAGAZINE_SWAP;
const NOTHING = NULL;
const toPhys = asPhys;
const CC = CACHE_CC >>> 2;
const CC_AT = CC_SHIFT - 2;
const CPUS = MAX_CPUS - 1;
const MAY_SLEEP = __GFP_DIRECT_RECLAIM;
const WANTS_ZEROES = __GFP_ZERO;
const none = NO_SLAB;
const OWNER = SLAB_CACHE >>> 2;
const GRANULES = RAM_GRANULES;
const GRANULE_AT = GRANULE_SHIFT;

export interface MagazineDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly pages: Pages;
  readonly slabs: SlabLayer;
  readonly objects: SlabObjects;
  readonly reports: SlabReports;
  readonly miss: MissPath;
  readonly depot: Depot;
  /** MAGAZINE_STATIC_BYTES of zeroed static memory: granules of the caches of magazines, by type. */
  readonly statics: PhysAddr;
}

export function createMagazineLayer(deps: MagazineDeps): ObjectCacheLayer {
  const { machine, contexts, slabs, objects, miss, depot } = deps;
  const { port, harts } = machine;
  const { clock } = harts;
  const { localIrqSave, localIrqRestore, mightSleep } = contexts;
  const { slabOf, reportBadFree } = objects;
  const stock = createMagazineStock(deps);

  const charge = (ctx: Context, cycles: number): void => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + cycles;
  };
  const count = (addr: number, n: number): void => port.stF64(addr, port.ldF64(addr) + n);
  /** Word number of the per-CPU record of `cache`. */
  const ccOf = (cache: KmemCache, cpu: number): number => (cache >>> 2) + CC + ((cpu & CPUS) << CC_AT);
  const { exchange, fold } = createMagazineCpu(port);

  /** The word of the loaded magazine, folded if its operations have run over; negative when there is none. */
  const handOf = (cc: number): number => {
    if ((port.ldWord(cc + HAND) | 0) < 0) fold(cc);
    return port.ldWord(cc + LOADED) === 0 ? -1 : port.ldWord(cc + HAND);
  };

  const exchangePrevious = (ctx: Context, cc: number): void => {
    exchange(cc, port.ldWord(cc + PREVIOUS), port.ldWord(cc + PREVIOUS_ROUNDS));
    charge(ctx, SWAP_CYCLES);
  };

  // ── Alloc ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** M2, after the fast path gave up: true when the loaded magazine has a round. Interrupts are off. */
  const reloadFull = (ctx: Context, cache: KmemCache, cc: number): boolean => {
    const hand = handOf(cc);
    if (hand >= 0 && (hand & ROUNDS) !== 0) return true;
    if ((port.ldWord(cc + PREVIOUS_ROUNDS) | 0) > 0) {
      exchangePrevious(ctx, cc);
      return true;
    }
    const magsize = port.ldWord(cc + MAGSIZE);
    if (magsize === 0) return false;
    const full = depot.takeFull(ctx, cache, toPhys(port.ldWord(cc + PREVIOUS)));
    if (full === NOTHING) return false;
    exchange(cc, full, magsize);
    count(cc * 4 + FULL_LOADS, 1);
    return true;
  };

  const allocSlow = (ctx: Context, cache: KmemCache, gfp: Gfp, irq: number): MaySleep<PhysAddr> => {
    const cc = ccOf(cache, ctx.cpu);
    const isReloaded = reloadFull(ctx, cache, cc);
    if (!isReloaded) port.fetchAdd(cc * 4 + ALLOC_MISSES, 1);
    const obj = isReloaded ? takeRound(ctx, cc, port.ldWord(cc + HAND)) : NOTHING;
    localIrqRestore(ctx, irq);
    return isReloaded ? obj : miss.allocMissed(ctx, cache, gfp);
  };

  const kmemCacheAllocAny = (ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<PhysAddr> => {
    if ((gfp & MAY_SLEEP) !== 0) mightSleep(ctx, "mm/magazine.ts:kmemCacheAlloc");
    if ((gfp & WANTS_ZEROES) !== 0) return miss.allocZeroed(ctx, cache, gfp, alloc);
    return alloc(ctx, cache, gfp);
  };

  // ── Free ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** M3, after the fast path gave up: true when the loaded magazine has room. Interrupts are off. */
  const reloadEmpty = (ctx: Context, cache: KmemCache, cc: number): boolean => {
    const magsize = port.ldWord(cc + MAGSIZE);
    if (magsize === 0) return false;
    const hand = handOf(cc);
    if (hand >= 0 && (hand & ROUNDS) < magsize) return true;
    if (port.ldWord(cc + PREVIOUS_ROUNDS) === 0) {
      exchangePrevious(ctx, cc);
      return true;
    }
    const empty = depot.takeEmpty(ctx, cache, toPhys(port.ldWord(cc + PREVIOUS)));
    if (empty === NOTHING) return false;
    exchange(cc, empty, 0);
    count(cc * 4 + EMPTY_LOADS, 1);
    return true;
  };

  const freeSlow = (ctx: Context, cache: KmemCache, obj: PhysAddr, state: number, irqAtEntry: number): number => {
    let irq = irqAtEntry;
    for (;;) {
      const cc = ccOf(cache, ctx.cpu);
      if (reloadEmpty(ctx, cache, cc)) {
        addRound(ctx, cc, port.ldWord(cc + HAND), obj, state);
        localIrqRestore(ctx, irq);
        return 0;
      }
      const isCached = port.ldWord(cc + MAGSIZE) !== 0;
      localIrqRestore(ctx, irq);
      // Nothing of ours is held while memory is asked for: an interrupt may free to this cache meanwhile.
      if (!isCached || !stock.makeEmpty(ctx, cache)) {
        port.fetchAdd(cc * 4 + FREE_MISSES, 1);
        return slabs.freeObject(ctx, cache, obj);
      }
      irq = localIrqSave(ctx);
    }
  };

  const { alloc, freeFromSlab, takeRound, addRound } = createMagazineHits(
    port,
    clock,
    localIrqSave,
    localIrqRestore,
    allocSlow,
    freeSlow,
    reportBadFree,
  );

  const freeForeign = (ctx: Context, obj: PhysAddr): number => {
    deps.reports.addressBug(ctx, `Attempt to free object(${hexAddr(obj)}) outside of slab`);
    return -EINVAL;
  };

  const kmemCacheFree = (ctx: Context, cache: KmemCache, obj: PhysAddr): number => {
    const slab = slabOf(obj);
    if (slab === none) return freeForeign(ctx, obj);
    if ((port.ldWord((slab >>> 2) + OWNER) & GRANULES) !== cache >>> GRANULE_AT) {
      return reportBadFree(ctx, cache, slab, obj);
    }
    return freeFromSlab(ctx, slab, obj);
  };

  // ── Many at once (object_bulk.ts) ────────────────────────────────────────────────────────────────────────────────

  /** BULK-3: a magazine's rounds, then interrupts may come. */
  const takeMany = (ctx: Context, cache: KmemCache, nr: number, into: PhysAddr[]): number => {
    let done = 0;
    for (let isOver = false; !isOver && done < nr; ) {
      const irq = localIrqSave(ctx);
      const cc = ccOf(cache, ctx.cpu);
      const end = Math.min(nr, done + port.ldWord(cc + MAGSIZE));
      isOver = done === end;
      while (done < end && !isOver) {
        isOver = !reloadFull(ctx, cache, cc);
        if (!isOver) into[done++] = takeRound(ctx, cc, port.ldWord(cc + HAND));
      }
      localIrqRestore(ctx, irq);
    }
    return done;
  };

  /** The state byte of `obj` if it is a live object of `cache`, else 0: whoever frees it then reports it. */
  const liveStateOf = (cache: KmemCache, obj: PhysAddr): number => {
    const slab = slabOf(obj);
    if (slab === none || objects.cacheOfSlab(slab) !== cache) return 0;
    const state = objects.stateOf(slab, obj);
    return state !== 0 && port.ld8(state) === OBJECT_LIVE ? state : 0;
  };

  const keepMany = (ctx: Context, cache: KmemCache, freed: readonly PhysAddr[], from: number): number => {
    const irq = localIrqSave(ctx);
    const cc = ccOf(cache, ctx.cpu);
    const end = Math.min(freed.length, from + port.ldWord(cc + MAGSIZE));
    let i = from;
    for (; i < end; i++) {
      const obj = freed[i] as PhysAddr;
      const state = liveStateOf(cache, obj);
      if (state === 0 || !reloadEmpty(ctx, cache, cc)) break;
      addRound(ctx, cc, port.ldWord(cc + HAND), obj, state);
    }
    localIrqRestore(ctx, irq);
    return i;
  };

  return {
    attach: stock.attach,
    detach: stock.detach,
    kmemCacheAlloc: kmemCacheAllocAny as KmemCacheAlloc,
    kmemCacheAllocAny,
    kmemCacheFree,
    freeFromSlab,
    ...createObjectBulk(deps, { takeMany, keepMany, allocOne: alloc, freeOne: kmemCacheFree }),
    drain: stock.drain,
    drainCpu: stock.drainCpu,
    reap: stock.reap,
    tick: stock.tick,
    ...createMagazineCheck(machine, deps.pages, slabs, objects, depot),
  };
}
