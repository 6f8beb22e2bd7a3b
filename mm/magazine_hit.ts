/**
 * The two hits of the magazines: the last round of the loaded one is handed out, an object becomes a round.
 *
 * Everything an object costs when nothing special happens is here, written out for the reasons that pcp_hit.ts gives.
 * Records are named by the number of their first word (port.ts) and come out of RAM as granules, of which there are
 * 29 bits: so V8 knows that word number and field offset add up to something that fits, and asks nobody.
 *
 *   alloc   cache ─▶ cc: word, magazine ─▶ round: object, its state byte          stored: state, word
 *   free    slab: base, geometry ─▶ state; cache ─▶ cc: word, magazine           stored: state, round (2), word
 *
 * Invariants and context: magazine.ts; the word: magazine_cpu.ts; from an address to its object: slab_objects.ts.
 */

import { CYC_MAGAZINE_HIT } from "../kernel/arch/charges.ts";
import type { MemoryPort } from "../kernel/arch/port.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { MAX_CPUS } from "../kernel/params.ts";
import { type Context, type MaySleep, type PhysAddr, toGranule } from "../kernel/types.ts";
import type { Gfp } from "./gfp.ts";
import {
  CC_HAND,
  CC_LOADED,
  HAND_ONE_OPERATION,
  HAND_ROOM,
  HAND_ROOM_ONE,
  HAND_ROUNDS,
  HAND_SLOW,
  MAGAZINE_ROUND_BYTES,
} from "./magazine_cpu.ts";
import {
  asCache,
  CACHE_CC,
  CC_SHIFT,
  type KmemCache,
  NO_CACHE,
  OBJECT_CACHED,
  OBJECT_LIVE,
  RAM_GRANULES,
  SLAB_BASE,
  SLAB_CACHE,
  SLAB_GEOMETRY,
  SLAB_STATES,
  type Slab,
} from "./slab_descriptor.ts";
import { GEOMETRY_SIZE_SHIFT, objectIndex } from "./slab_layout.ts";
import type { SlabObjects } from "./slab_objects.ts";

/** Copies for the fast paths: why, see slab_objects.ts. Offsets and shifts are in words. */
const CC = CACHE_CC >>> 2;
const CC_AT = CC_SHIFT - 2;
const LOADED = CC_LOADED >>> 2;
const HAND = CC_HAND >>> 2;
const OBJECT = 0;
const STATE = 1;
const ROUND = MAGAZINE_ROUND_BYTES >>> 2;
const BASE = SLAB_BASE >>> 2;
const GEOMETRY = SLAB_GEOMETRY >>> 2;
const OWNER = SLAB_CACHE >>> 2;
const STATES = SLAB_STATES >>> 2;
const GRANULES = RAM_GRANULES;
const CPUS = MAX_CPUS - 1;
const ROUNDS = HAND_ROUNDS;
/** Parts of the word that are positive together iff the fast path may alloc, or free: the rest, and bit 31. */
const CAN_ALLOC = HAND_ROUNDS | HAND_SLOW;
const CAN_FREE = HAND_ROOM | HAND_SLOW;
/** What an allocation and a free add to the word: an operation, and a round becomes room or room a round. */
const AFTER_ALLOC = HAND_ONE_OPERATION + HAND_ROOM_ONE - 1;
const AFTER_FREE = HAND_ONE_OPERATION - HAND_ROOM_ONE + 1;
const LIVE = OBJECT_LIVE;
const CACHED = OBJECT_CACHED;
const HIT_CYCLES = CYC_MAGAZINE_HIT;
const SIZE_AT = GEOMETRY_SIZE_SHIFT;
const indexOf = objectIndex;
const toLink = toGranule;
const toCache = asCache;
const none = NO_CACHE;

export interface MagazineHits {
  /** An object from the loaded magazine, or what the slow path makes of it. */
  alloc(ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<PhysAddr>;
  /** ObjectCacheLayer.freeFromSlab() */
  freeFromSlab(ctx: Context, slab: Slab, obj: PhysAddr): number;
  /** Takes the last round of the magazine in the record at word `cc`, whose word `hand` has one. Interrupts are off. */
  takeRound(ctx: Context, cc: number, hand: number): PhysAddr;
  /** Adds a round to it: `hand` has room. Interrupts are off. `state`: address of the object's state byte. */
  addRound(ctx: Context, cc: number, hand: number, obj: PhysAddr, state: number): void;
}

/** What a hit turns to otherwise; both restore `irq`. */
export interface MagazineMisses {
  allocSlow(ctx: Context, cache: KmemCache, gfp: Gfp, irq: number): MaySleep<PhysAddr>;
  freeSlow(ctx: Context, cache: KmemCache, obj: PhysAddr, state: number, irq: number): number;
}

export function createMagazineHits(
  port: MemoryPort,
  clock: Float64Array,
  localIrqSave: ContextTracking["localIrqSave"],
  localIrqRestore: ContextTracking["localIrqRestore"],
  allocSlow: MagazineMisses["allocSlow"],
  freeSlow: MagazineMisses["freeSlow"],
  reportBadFree: SlabObjects["reportBadFree"],
): MagazineHits {
  const takeRound = (ctx: Context, cc: number, hand: number): PhysAddr => {
    const round = (port.ldWord(cc + LOADED) >>> 2) + (hand & ROUNDS) * ROUND;
    port.st8(port.ldWord(round + STATE), LIVE);
    port.stWord(cc + HAND, (hand + AFTER_ALLOC) | 0);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + HIT_CYCLES;
    return ((port.ldWord(round + OBJECT) & GRANULES) * 8) as PhysAddr;
  };

  const addRound = (ctx: Context, cc: number, hand: number, obj: PhysAddr, state: number): void => {
    const round = (port.ldWord(cc + LOADED) >>> 2) + (hand & ROUNDS) * ROUND + ROUND;
    port.st8(state, CACHED);
    port.stWord(round + OBJECT, toLink(obj));
    port.stWord(round + STATE, state);
    port.stWord(cc + HAND, (hand + AFTER_FREE) | 0);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + HIT_CYCLES;
  };

  const alloc = (ctx: Context, cache: KmemCache, gfp: Gfp): MaySleep<PhysAddr> => {
    const irq = localIrqSave(ctx);
    const cc = (cache >>> 2) + CC + ((ctx.cpu & CPUS) << CC_AT);
    const hand = port.ldWord(cc + HAND);
    if ((hand & CAN_ALLOC) <= 0) return allocSlow(ctx, cache, gfp, irq);
    const obj = takeRound(ctx, cc, hand);
    localIrqRestore(ctx, irq);
    return obj;
  };

  const freeFromSlab = (ctx: Context, slab: Slab, obj: PhysAddr): number => {
    // The test of SlabObjects.stateOf, which has the reasons.
    const words = slab >>> 2;
    const offset = ((obj >>> 0) - port.ldWord(words + BASE)) | 0;
    const geometry = port.ldWord(words + GEOMETRY);
    const index = indexOf(offset, geometry);
    const state = (((words + STATES) << 2) + index) >>> 0;
    if (Math.imul(index, geometry >>> SIZE_AT) !== offset || port.ld8(state) !== LIVE) {
      return reportBadFree(ctx, none, slab, obj);
    }
    const cache = (port.ldWord(words + OWNER) & GRANULES) * 2;
    const irq = localIrqSave(ctx);
    const cc = cache + CC + ((ctx.cpu & CPUS) << CC_AT);
    const hand = port.ldWord(cc + HAND);
    if ((hand & CAN_FREE) <= 0) return freeSlow(ctx, toCache(cache * 4), obj, state, irq);
    addRound(ctx, cc, hand, obj, state);
    localIrqRestore(ctx, irq);
    return 0;
  };

  return { alloc, freeFromSlab, takeRound, addRound };
}
