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
 * 5. The size of a magazine comes with the size of the object (M5): many small objects, few large ones.
 *
 * 6. An object in a magazine is free to the user and in use to its slab. Its state byte says CACHED, so a second free
 *    of it is told at once: "Object already free". Only the owner of the object writes the byte: the caller before the
 *    free, this CPU between free and alloc, the next caller after it.
 *
 *   per-CPU record, cache + CACHE_CC + 64 · cpu; written by that CPU with interrupts off:
 *
 *   | offset | field            | meaning                                                                       |
 *   |--------|------------------|-------------------------------------------------------------------------------|
 *   | 0, 4   | loaded, hand     | address of the magazine, its word (below); 0 and −1 when there is none  (M1)  |
 *   | 8, 12  | previous, prounds| address of the magazine, its rounds; the same                                 |
 *   | 16     | magsize          | rounds of a full magazine; 0 switches the layer off for this cache            |
 *   | 20     | first rounds     | rounds that were loaded when the word was last folded                         |
 *   | 24, 32 | allocs, frees    | f64: served here, up to when the word was last folded                         |
 *   | 40, 48 | loads            | f64: full, empty magazines fetched from the depot                             |
 *
 * 7. The word `hand` of the loaded magazine holds its rounds, the room left, and the operations since the last folding:
 *
 *      31 │ 30 … 16     │ 15 … 8 │ 7 … 0       an allocation adds 0x10000 + 0x100 − 1, a free 0x10000 − 0x100 + 1:
 *         │ operations  │ room   │ rounds      one load and one store move the round and count it
 *
 *    From operations = allocs + frees and the change of rounds = frees − allocs both numbers follow; *folding* adds
 *    them to the two counters. It happens on every slow path, and at the latest when the operations run over into bit
 *    31: the word is negative then, as it is when no magazine is loaded, and the fast path tests for that anyway.
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
 *
 * M13 adds "full magazines loaded" to the allocations; ours counts an object taken from a loaded magazine where it is
 * taken, however the magazine got there, so that term is contained in `allocs`.
 *
 * Context: any; interrupt handlers and tasks use the same magazines. Locks: none on a hit, the depot's on an exchange.
 *
 * A round is two words, the object's granule and the address of its state byte: a free has computed the latter, and an
 * allocation need not look for it again.
 *
 * Differences from illumos: both halves of a depot exchange happen under one lock; magazines never change size yet (M6)
 * and are not reaped by working set (M7).
 * Source: J. Bonwick, J. Adams, "Magazines and Vmem", USENIX 2001; illumos kmem.c (kmem_cache_alloc, kmem_cache_free).
 */

import { CYC_MAGAZINE_HIT, CYC_MAGAZINE_SWAP } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { bugOn } from "../kernel/bug.ts";
import type { ContextTracking } from "../kernel/context.ts";
import {
  asPhys,
  type Context,
  fromGranule,
  type MaySleep,
  NULL,
  type PhysAddr,
  type TaskContext,
  toGranule,
} from "../kernel/types.ts";
import { EINVAL } from "../kernel/uapi/errno.ts";
import type { Depot } from "./depot.ts";
import { __GFP_DIRECT_RECLAIM, __GFP_ZERO, GFP_NOWAIT, type Gfp } from "./gfp.ts";
import {
  CC_ALLOCS,
  CC_EMPTY_LOADS,
  CC_FIRST_ROUNDS,
  CC_FREES,
  CC_FULL_LOADS,
  CC_HAND,
  CC_LOADED,
  CC_MAGSIZE,
  CC_PREVIOUS,
  CC_PROUNDS,
  createMagazineCheck,
  HAND_NONE,
  HAND_ONE_OPERATION,
  HAND_OPERATIONS_SHIFT,
  HAND_ROOM,
  HAND_ROOM_ONE,
  HAND_ROUNDS,
  loadedRounds,
  MAGAZINE_ROUND_BYTES,
  unfoldedOperations,
} from "./magazine_check.ts";
import type { KmemCacheAlloc, MissPath, ObjectCacheLayer } from "./object_cache.ts";
import type { Pages } from "./page.ts";
import {
  asCache,
  CACHE_CC,
  CACHE_SIZE,
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
import { SLAB_INTERNAL } from "./slab_layout.ts";
import type { SlabObjects } from "./slab_objects.ts";
import { hexAddr, type SlabReports } from "./slab_report.ts";

/** M5. A cache uses the first row whose minBuf is smaller than its object; maxBuf bounds how far it may grow (M6). */
export interface MagazineType {
  readonly magsize: number;
  readonly minBuf: number;
  readonly maxBuf: number;
}

export const MAGAZINE_TYPES: readonly MagazineType[] = [
  { magsize: 1, minBuf: 3200, maxBuf: 65_536 },
  { magsize: 3, minBuf: 256, maxBuf: 32_768 },
  { magsize: 7, minBuf: 64, maxBuf: 16_384 },
  { magsize: 15, minBuf: 0, maxBuf: 8192 },
  { magsize: 31, minBuf: 0, maxBuf: 4096 },
  { magsize: 47, minBuf: 0, maxBuf: 2048 },
  { magsize: 63, minBuf: 0, maxBuf: 1024 },
  { magsize: 95, minBuf: 0, maxBuf: 512 },
  { magsize: 143, minBuf: 0, maxBuf: 0 },
];

/** Static memory of the layer, a multiple of 8. */
export const MAGAZINE_STATIC_BYTES = 40;

/** Row of MAGAZINE_TYPES that a cache of objects `size` bytes apart starts with (M5). Pure. */
export const magazineTypeFor = (size: number): number => MAGAZINE_TYPES.findIndex(({ minBuf }) => size > minBuf);

/** Bytes of a magazine: the depot's link, and the rounds, of two words each. */
export const magazineBytes = (magsize: number): number => MAGAZINE_ROUND_BYTES * (1 + magsize);

/** Copies for the fast path: why, see slab_objects.ts. */
const HAND = CC_HAND;
const ROUNDS = HAND_ROUNDS;
const ROOM = HAND_ROOM;
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
  const { machine, contexts, slabs, objects, miss, depot, statics } = deps;
  const { port, harts } = machine;
  const { clock, nrCpus } = harts;
  const { localIrqSave, localIrqRestore, mightSleep } = contexts;
  const { slabOf, stateOf, cacheOfSlab } = objects;

  const charge = (ctx: Context, cycles: number): void => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + cycles;
  };
  const count = (addr: number, n: number): void => port.stF64(addr, port.ldF64(addr) + n);
  const ccOf = (cache: KmemCache, cpu: number): number => (cache + CC_BASE + (cpu << SHIFT)) >>> 0;

  /** Loads `magazine` with `rounds`, or none (NULL, −1). The word before it must have been folded. */
  const setLoaded = (cc: number, magazine: number, rounds: number): void => {
    const room = port.ld32(cc + CC_MAGSIZE) - rounds;
    port.st32(cc + CC_LOADED, magazine);
    port.st32(cc + CC_HAND, magazine === NULL ? HAND_NONE : rounds + room * HAND_ROOM_ONE);
    port.st32(cc + CC_FIRST_ROUNDS, magazine === NULL ? 0 : rounds);
  };
  const setPrevious = (cc: number, magazine: number, rounds: number): void => {
    port.st32(cc + CC_PREVIOUS, magazine);
    port.st32(cc + CC_PROUNDS, rounds);
  };

  /** Moves the operations of the word into the counters. Interrupts are off. */
  const fold = (cc: number): void => {
    if (port.ld32(cc + CC_LOADED) === 0) return;
    count(cc + CC_ALLOCS, unfoldedOperations(port, cc, true));
    count(cc + CC_FREES, unfoldedOperations(port, cc, false));
    const hand = port.ld32(cc + CC_HAND);
    port.st32(cc + CC_HAND, hand & ((1 << HAND_OPERATIONS_SHIFT) - 1));
    port.st32(cc + CC_FIRST_ROUNDS, hand & HAND_ROUNDS);
  };

  const exchangePrevious = (ctx: Context, cc: number): void => {
    const loaded = port.ld32(cc + CC_LOADED);
    const rounds = loadedRounds(port, cc);
    setLoaded(cc, port.ld32(cc + CC_PREVIOUS), port.ld32(cc + CC_PROUNDS));
    setPrevious(cc, loaded, rounds);
    charge(ctx, CYC_MAGAZINE_SWAP);
  };

  // ── Alloc ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Takes the last round of the loaded magazine, whose word `hand` has one. Interrupts are off. */
  const takeRound = (ctx: Context, cc: number, hand: number): PhysAddr => {
    const round = (port.ld32(cc) + ((hand & ROUNDS) << ROUND_SHIFT)) >>> 0;
    port.st32((cc + HAND) >>> 0, (hand + AFTER_ALLOC) | 0);
    port.st8(port.ld32((round + 4) >>> 0), LIVE);
    charge(ctx, HIT_CYCLES);
    return ((port.ld32(round) << 3) >>> 0) as PhysAddr;
  };

  /** M2, after the fast path gave up: true when the loaded magazine has a round. Interrupts are off. */
  const reloadFull = (ctx: Context, cache: KmemCache, cc: number): boolean => {
    fold(cc);
    if (loadedRounds(port, cc) > 0) return true;
    const prounds = port.ld32(cc + CC_PROUNDS) | 0;
    if (prounds > 0) {
      exchangePrevious(ctx, cc);
      return true;
    }
    const magsize = port.ld32(cc + CC_MAGSIZE);
    if (magsize === 0) return false;
    const full = depot.takeFull(ctx, cache, asPhys(port.ld32(cc + CC_PREVIOUS)));
    if (full === NULL) return false;
    setPrevious(cc, port.ld32(cc + CC_LOADED), loadedRounds(port, cc));
    setLoaded(cc, full, magsize);
    count(cc + CC_FULL_LOADS, 1);
    return true;
  };

  const allocSlow = (ctx: Context, cache: KmemCache, gfp: Gfp, irq: number): MaySleep<PhysAddr> => {
    const cc = ccOf(cache, ctx.cpu);
    const isReloaded = reloadFull(ctx, cache, cc);
    const obj = isReloaded ? takeRound(ctx, cc, port.ld32(cc + CC_HAND)) : NULL;
    localIrqRestore(ctx, irq);
    return isReloaded ? obj : miss.allocMissed(ctx, cache, gfp);
  };

  const allocPlain = (ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<PhysAddr> => {
    const irq = localIrqSave(ctx);
    const cc = ccOf(cache, ctx.cpu);
    const hand = port.ld32((cc + HAND) >>> 0) | 0;
    if (hand < 0 || (hand & ROUNDS) === 0) return allocSlow(ctx, cache, gfp, irq);
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
    const round = (port.ld32(cc) + (((hand & ROUNDS) + 1) << ROUND_SHIFT)) >>> 0;
    port.st8(state, CACHED);
    port.st32(round, toLink(obj));
    port.st32((round + 4) >>> 0, state);
    port.st32((cc + HAND) >>> 0, (hand + AFTER_FREE) | 0);
    charge(ctx, HIT_CYCLES);
  };

  /** M3, after the fast path gave up: true when the loaded magazine has room. Interrupts are off. */
  const reloadEmpty = (ctx: Context, cache: KmemCache, cc: number): boolean => {
    const magsize = port.ld32(cc + CC_MAGSIZE);
    if (magsize === 0) return false;
    fold(cc);
    const rounds = loadedRounds(port, cc);
    if (rounds >= 0 && rounds < magsize) return true;
    if (port.ld32(cc + CC_PROUNDS) === 0) {
      exchangePrevious(ctx, cc);
      return true;
    }
    const empty = depot.takeEmpty(ctx, cache, asPhys(port.ld32(cc + CC_PREVIOUS)));
    if (empty === NULL) return false;
    setPrevious(cc, port.ld32(cc + CC_LOADED), rounds);
    setLoaded(cc, empty, 0);
    count(cc + CC_EMPTY_LOADS, 1);
    return true;
  };

  const freeSlow = (ctx: Context, cache: KmemCache, obj: PhysAddr, state: number, irqAtEntry: number): number => {
    let irq = irqAtEntry;
    for (;;) {
      const cc = ccOf(cache, ctx.cpu);
      if (reloadEmpty(ctx, cache, cc)) {
        addRound(ctx, cc, port.ld32(cc + CC_HAND), obj, state);
        localIrqRestore(ctx, irq);
        return 0;
      }
      const magsize = port.ld32(cc + CC_MAGSIZE);
      localIrqRestore(ctx, irq);
      // Nothing of ours is held while memory is asked for: an interrupt may free to this cache meanwhile.
      const magazine = magsize === 0 ? NULL : slabs.allocObject(ctx, depot.magazines(cache), GFP_NOWAIT);
      if (magazine === NULL) return slabs.freeObject(ctx, cache, obj);
      irq = localIrqSave(ctx);
      depot.addEmpty(ctx, cache, magazine);
    }
  };

  const freeFromSlab = (ctx: Context, slab: Slab, obj: PhysAddr): number => {
    const state = stateOf(slab, obj);
    if (state === 0 || port.ld8(state) !== LIVE) return objects.reportBadFree(ctx, NO_CACHE, slab, obj);
    const cache = toCache((port.ld32((slab + OWNER) >>> 0) << 3) >>> 0);
    const irq = localIrqSave(ctx);
    const cc = ccOf(cache, ctx.cpu);
    const hand = port.ld32((cc + HAND) >>> 0) | 0;
    if (hand < 0 || (hand & ROOM) === 0) return freeSlow(ctx, cache, obj, state, irq);
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

  // ── Attaching, draining ──────────────────────────────────────────────────────────────────────────────────────────

  /** The cache of magazines of one type, made when the first cache wants it. */
  const magazineCache = (ctx: TaskContext, type: number): KmemCache => {
    const known = port.ld32(statics + type * 4);
    if (known !== 0) return asCache(fromGranule(known));
    const { magsize } = MAGAZINE_TYPES[type] as MagazineType;
    const name = `magazine-${magsize}`;
    const cache = slabs.createCache(ctx, { name, size: magazineBytes(magsize), flags: SLAB_INTERNAL });
    port.st32(statics + type * 4, toGranule(cache));
    return cache;
  };

  const attach = (ctx: TaskContext, cache: KmemCache): void => {
    const type = magazineTypeFor(port.ld32(cache + CACHE_SIZE));
    const magazines = magazineCache(ctx, type);
    // Without memory for the magazines' own cache this cache stays uncached, and works.
    const magsize = magazines === NO_CACHE ? 0 : (MAGAZINE_TYPES[type] as MagazineType).magsize;
    depot.init(cache, magsize, magazines);
    for (let cpu = 0; cpu < nrCpus; cpu++) {
      const cc = ccOf(cache, cpu);
      port.st32(cc + CC_MAGSIZE, magsize);
      setLoaded(cc, NULL, -1);
      setPrevious(cc, NULL, -1);
    }
  };

  /** Returns the rounds of a magazine to their slabs and the magazine to its cache. Owned by the caller. */
  const unload = (ctx: Context, cache: KmemCache, magazine: PhysAddr, rounds: number): number => {
    for (let i = 1; i <= rounds; i++)
      slabs.flushObject(ctx, fromGranule(port.ld32(magazine + i * MAGAZINE_ROUND_BYTES)));
    bugOn(slabs.freeObject(ctx, depot.magazines(cache), magazine) !== 0, "MAG-4: a magazine is not ours", magazine);
    return rounds;
  };

  /** Empties one per-CPU slot. The magazine is taken out with interrupts off and unloaded with them on. */
  const drainCpu = (ctx: Context, cache: KmemCache, cpu: number): number => {
    const cc = ccOf(cache, cpu);
    const irq = localIrqSave(ctx);
    fold(cc);
    const [loaded, rounds] = [asPhys(port.ld32(cc + CC_LOADED)), loadedRounds(port, cc)];
    const [previous, prounds] = [asPhys(port.ld32(cc + CC_PREVIOUS)), port.ld32(cc + CC_PROUNDS)];
    setLoaded(cc, NULL, -1);
    setPrevious(cc, NULL, -1);
    localIrqRestore(ctx, irq);
    let nrObjects = 0;
    if (loaded !== NULL) nrObjects += unload(ctx, cache, loaded, rounds);
    if (previous !== NULL) nrObjects += unload(ctx, cache, previous, prounds);
    return nrObjects;
  };

  const drain = (ctx: Context, cache: KmemCache): number => {
    const magsize = depot.magsize(cache);
    if (magsize === 0) return 0;
    let nrObjects = 0;
    for (let cpu = 0; cpu < nrCpus; cpu++) nrObjects += drainCpu(ctx, cache, cpu);
    for (;;) {
      const irq = localIrqSave(ctx);
      const full = depot.takeFull(ctx, cache, NULL);
      const magazine = full === NULL ? depot.takeEmpty(ctx, cache, NULL) : full;
      localIrqRestore(ctx, irq);
      if (magazine === NULL) return nrObjects;
      nrObjects += unload(ctx, cache, magazine, full === NULL ? 0 : magsize);
    }
  };

  const detach = (ctx: TaskContext, cache: KmemCache): void => {
    for (let cpu = 0; cpu < nrCpus; cpu++) port.st32(ccOf(cache, cpu) + CC_MAGSIZE, 0);
    drain(ctx, cache);
    depot.init(cache, 0, NO_CACHE);
  };

  const { stats, check } = createMagazineCheck(machine, deps.pages, slabs, objects, depot);
  return {
    attach,
    detach,
    kmemCacheAlloc: kmemCacheAllocAny as KmemCacheAlloc,
    kmemCacheAllocAny,
    kmemCacheFree,
    freeFromSlab,
    drain,
    drainCpu: (ctx, cache, cpu) => (depot.magsize(cache) === 0 ? 0 : drainCpu(ctx, cache, cpu)),
    stats,
    check,
  };
}
