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

import { CYC_MAGAZINE_HIT, CYC_MAGAZINE_SWAP } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { asPhys, type Context, type MaySleep, NULL, type PhysAddr, toGranule } from "../kernel/types.ts";
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
  HAND_ONE_OPERATION,
  HAND_ROOM,
  HAND_ROOM_ONE,
  HAND_ROUNDS,
  HAND_SLOW,
  loadedRounds,
} from "./magazine_cpu.ts";
import { createMagazineStock } from "./magazine_stock.ts";
import type { KmemCacheAlloc, MissPath, ObjectCacheLayer } from "./object_cache.ts";
import type { Pages } from "./page.ts";
import {
  asCache,
  CACHE_CC,
  CC_SHIFT,
  type KmemCache,
  NO_CACHE,
  NO_SLAB,
  OBJECT_CACHED,
  OBJECT_LIVE,
  SLAB_CACHE,
  type Slab,
} from "./slab_descriptor.ts";
import type { SlabLayer } from "./slab_layer.ts";
import type { SlabObjects } from "./slab_objects.ts";
import { hexAddr, type SlabReports } from "./slab_report.ts";

/** Copies for the fast path: why, see slab_objects.ts. */
const HAND = CC_HAND;
const LOADED = CC_LOADED;
const PREVIOUS = CC_PREVIOUS;
const PREVIOUS_ROUNDS = CC_PROUNDS;
const MAGSIZE = CC_MAGSIZE;
const FULL_LOADS = CC_FULL_LOADS;
const EMPTY_LOADS = CC_EMPTY_LOADS;
const ALLOC_MISSES = CC_ALLOC_MISSES;
const FREE_MISSES = CC_FREE_MISSES;
const SWAP_CYCLES = CYC_MAGAZINE_SWAP;
const NOTHING = NULL;
const toPhys = asPhys;
const roundsOf = loadedRounds;
const ROUNDS = HAND_ROUNDS;
/** Parts of the word that are positive together iff the fast path may alloc, or free: the rest, and bit 31. */
const CAN_ALLOC = HAND_ROUNDS | HAND_SLOW;
const CAN_FREE = HAND_ROOM | HAND_SLOW;
/** What an allocation and a free add to the word: an operation, and a round becomes room or room a round. */
const AFTER_ALLOC = HAND_ONE_OPERATION + HAND_ROOM_ONE - 1;
const AFTER_FREE = HAND_ONE_OPERATION - HAND_ROOM_ONE + 1;
const CC_BASE = CACHE_CC;
const SHIFT = CC_SHIFT;
const ROUND_SHIFT = 3;
const LIVE = OBJECT_LIVE;
const CACHED = OBJECT_CACHED;
const OWNER = SLAB_CACHE;
const HIT_CYCLES = CYC_MAGAZINE_HIT;
const MAY_SLEEP = __GFP_DIRECT_RECLAIM;
const WANTS_ZEROES = __GFP_ZERO;
const toLink = toGranule;
const toCache = asCache;
const none = NO_SLAB;

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
  const { slabOf, stateOf, cacheOfSlab } = objects;
  const stock = createMagazineStock(deps);

  const charge = (ctx: Context, cycles: number): void => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + cycles;
  };
  const count = (addr: number, n: number): void => port.stF64(addr, port.ldF64(addr) + n);
  const ccOf = (cache: KmemCache, cpu: number): number => (cache + CC_BASE + (cpu << SHIFT)) >>> 0;
  const { setLoaded, setPrevious, fold } = createMagazineCpu(port);

  const exchangePrevious = (ctx: Context, cc: number): void => {
    const loaded = port.ld32(cc + LOADED);
    const rounds = roundsOf(port, cc);
    setLoaded(cc, port.ld32(cc + PREVIOUS), port.ld32(cc + PREVIOUS_ROUNDS));
    setPrevious(cc, loaded, rounds);
    charge(ctx, SWAP_CYCLES);
  };

  // ── Alloc ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Takes the last round of the loaded magazine, whose word `hand` has one. Interrupts are off. */
  const takeRound = (ctx: Context, cc: number, hand: number): PhysAddr => {
    const round = port.ld32(cc) + ((hand & ROUNDS) << ROUND_SHIFT);
    port.st8(port.ld32(round + 4), LIVE);
    port.st32(cc + HAND, (hand + AFTER_ALLOC) | 0);
    charge(ctx, HIT_CYCLES);
    return ((port.ld32(round) << 3) >>> 0) as PhysAddr;
  };

  /** M2, after the fast path gave up: true when the loaded magazine has a round. Interrupts are off. */
  const reloadFull = (ctx: Context, cache: KmemCache, cc: number): boolean => {
    fold(cc);
    if (roundsOf(port, cc) > 0) return true;
    const prounds = port.ld32(cc + PREVIOUS_ROUNDS) | 0;
    if (prounds > 0) {
      exchangePrevious(ctx, cc);
      return true;
    }
    const magsize = port.ld32(cc + MAGSIZE);
    if (magsize === 0) return false;
    const full = depot.takeFull(ctx, cache, toPhys(port.ld32(cc + PREVIOUS)));
    if (full === NOTHING) return false;
    setPrevious(cc, port.ld32(cc + LOADED), roundsOf(port, cc));
    setLoaded(cc, full, magsize);
    count(cc + FULL_LOADS, 1);
    return true;
  };

  const allocSlow = (ctx: Context, cache: KmemCache, gfp: Gfp, irq: number): MaySleep<PhysAddr> => {
    const cc = ccOf(cache, ctx.cpu);
    const isReloaded = reloadFull(ctx, cache, cc);
    if (!isReloaded) port.fetchAdd(cc + ALLOC_MISSES, 1);
    const obj = isReloaded ? takeRound(ctx, cc, port.ld32(cc + HAND)) : NOTHING;
    localIrqRestore(ctx, irq);
    return isReloaded ? obj : miss.allocMissed(ctx, cache, gfp);
  };

  const allocPlain = (ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<PhysAddr> => {
    const irq = localIrqSave(ctx);
    const cc = ccOf(cache, ctx.cpu);
    const hand = port.ld32(cc + HAND);
    if ((hand & CAN_ALLOC) <= 0) return allocSlow(ctx, cache, gfp, irq);
    const obj = takeRound(ctx, cc, hand);
    localIrqRestore(ctx, irq);
    return obj;
  };

  const kmemCacheAllocAny = (ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<PhysAddr> => {
    if ((gfp & MAY_SLEEP) !== 0) mightSleep(ctx, "mm/magazine.ts:kmemCacheAlloc");
    if ((gfp & WANTS_ZEROES) !== 0) return miss.allocZeroed(ctx, cache, gfp, allocPlain);
    return allocPlain(ctx, cache, gfp);
  };

  // ── Free ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Adds a round to the loaded magazine, whose word `hand` has room. Interrupts are off. */
  const addRound = (ctx: Context, cc: number, hand: number, obj: PhysAddr, state: number): void => {
    const round = port.ld32(cc) + ((hand & ROUNDS) << ROUND_SHIFT);
    port.st8(state, CACHED);
    port.st32(round + 8, toLink(obj));
    port.st32(round + 12, state);
    port.st32(cc + HAND, (hand + AFTER_FREE) | 0);
    charge(ctx, HIT_CYCLES);
  };

  /** M3, after the fast path gave up: true when the loaded magazine has room. Interrupts are off. */
  const reloadEmpty = (ctx: Context, cache: KmemCache, cc: number): boolean => {
    const magsize = port.ld32(cc + MAGSIZE);
    if (magsize === 0) return false;
    fold(cc);
    const rounds = roundsOf(port, cc);
    if (rounds >= 0 && rounds < magsize) return true;
    if (port.ld32(cc + PREVIOUS_ROUNDS) === 0) {
      exchangePrevious(ctx, cc);
      return true;
    }
    const empty = depot.takeEmpty(ctx, cache, toPhys(port.ld32(cc + PREVIOUS)));
    if (empty === NOTHING) return false;
    setPrevious(cc, port.ld32(cc + LOADED), rounds);
    setLoaded(cc, empty, 0);
    count(cc + EMPTY_LOADS, 1);
    return true;
  };

  const freeSlow = (ctx: Context, cache: KmemCache, obj: PhysAddr, state: number, irqAtEntry: number): number => {
    let irq = irqAtEntry;
    for (;;) {
      const cc = ccOf(cache, ctx.cpu);
      if (reloadEmpty(ctx, cache, cc)) {
        addRound(ctx, cc, port.ld32(cc + HAND), obj, state);
        localIrqRestore(ctx, irq);
        return 0;
      }
      const isCached = port.ld32(cc + MAGSIZE) !== 0;
      localIrqRestore(ctx, irq);
      // Nothing of ours is held while memory is asked for: an interrupt may free to this cache meanwhile.
      if (!isCached || !stock.makeEmpty(ctx, cache)) {
        port.fetchAdd(cc + FREE_MISSES, 1);
        return slabs.freeObject(ctx, cache, obj);
      }
      irq = localIrqSave(ctx);
    }
  };

  const freeFromSlab = (ctx: Context, slab: Slab, obj: PhysAddr): number => {
    const state = stateOf(slab, obj);
    if (state === 0 || port.ld8(state) !== LIVE) return objects.reportBadFree(ctx, NO_CACHE, slab, obj);
    const cache = toCache((port.ld32(slab + OWNER) << 3) >>> 0);
    const irq = localIrqSave(ctx);
    const cc = ccOf(cache, ctx.cpu);
    const hand = port.ld32(cc + HAND);
    if ((hand & CAN_FREE) <= 0) return freeSlow(ctx, cache, obj, state, irq);
    addRound(ctx, cc, hand, obj, state);
    localIrqRestore(ctx, irq);
    return 0;
  };

  const kmemCacheFree = (ctx: Context, cache: KmemCache, obj: PhysAddr): number => {
    const slab = slabOf(obj);
    if (slab === none) {
      deps.reports.addressBug(ctx, `Attempt to free object(${hexAddr(obj)}) outside of slab`);
      return -EINVAL;
    }
    if (cacheOfSlab(slab) !== cache) return objects.reportBadFree(ctx, cache, slab, obj);
    return freeFromSlab(ctx, slab, obj);
  };

  return {
    attach: stock.attach,
    detach: stock.detach,
    kmemCacheAlloc: kmemCacheAllocAny as KmemCacheAlloc,
    kmemCacheAllocAny,
    kmemCacheFree,
    freeFromSlab,
    drain: stock.drain,
    drainCpu: stock.drainCpu,
    reap: stock.reap,
    tick: stock.tick,
    ...createMagazineCheck(machine, deps.pages, slabs, objects, depot),
  };
}
