/**
 * The lock-free depot: two stacks of magazines whose heads change by compare-and-swap.
 *
 * Theory.
 *
 * 1. R. K. Treiber's stack. To push, link the magazine to the head that was read and swap the head for it; to pop, read
 *    the head and its link and swap the head for the link. If another CPU was faster the swap fails, and one starts
 *    again: somebody has always made progress, and a CPU that is stopped half-way stops nobody.
 *
 * 2. *ABA.* The swap compares values, not histories. CPU 0 reads head A and its link B, and is held up. CPU 1 pops A,
 *    pops B, pushes A back. The head is A again and CPU 0's swap succeeds: it makes B the head, which CPU 1 is using.
 *
 *      CPU 0   read A → B ·································· swap A for B: succeeds, B is now in two places
 *      CPU 1               pop A   pop B   push A   (uses B)
 *      head    A                B       C        A
 *
 *    The cure is a *tag* beside the head that every pop increments: A with tag 7 is not A with tag 9.
 *
 * 3. Tag and head must fit the 32 bits that one swap can compare, and an address in granules needs 29. So a magazine
 *    goes by a number: a slot of its cache, which it has from its making to its end (word 1 of the magazine; a table
 *    leads from the slot to the address):
 *
 *      31 ─────────── 10 │ 9 ──── 0        22 bits of tag, 1023 slots: a cache with more magazines than that gives
 *             tag        │  slot, 0: none  its objects back to the slabs instead
 *
 * 4. *Is the tag wide enough?* Only pops need to count. A pop goes wrong if between its read and its swap, three port
 *    operations with interrupts off, the same slot comes to the top again with another link; for that it was popped, so
 *    the tag moved; it must have moved by a multiple of 2^22. A depot is visited once per magazine (M4): 4,194,304
 *    visits take all other CPUs together 0.4 s even if they do nothing else (100 ns for a visit and its objects; 2026,
 *    Node 20), while this one stands still, and then the number must fit exactly. In one thread nothing runs between
 *    the two; a host suspends one of several threads for milliseconds. A push needs no tag: its link is the head that
 *    it compares, whatever happened meanwhile.
 *
 * 5. What a pop reads before its swap may be stale: a slot that was freed (its entry then says so, or names the next
 *    magazine), a link in memory that is no magazine any more. RAM can always be read; the tag has moved; the swap
 *    fails.
 *
 *   slots: a table of 16 chunks of 64 words, each chunk made when it is needed
 *
 *   | entry         | meaning                                    |
 *   |---------------|--------------------------------------------|
 *   | 1 … 2^29 − 1  | granule of the magazine                    |
 *   | 2^31 + s      | free; s is the next free slot, 0: the last |
 *
 * The lengths are counted beside the lists, a push before it and a pop after it: nr ≥ length while CPUs are inside. The
 * least length is kept by plain compare and store; two CPUs may leave it one too high, and one magazine too many goes.
 *
 *   DEP-4  a magazine has the slot that its word 1 says, and no other has it
 *   DEP-5  no magazine is handed out twice, whatever CPUs do in between                                        (ABA)
 *
 * Context: as depot.ts. The lock guards the slots, not the lists: taken when a magazine is made or destroyed.
 * Source: R. K. Treiber, "Systems Programming: Coping with Parallelism", IBM RJ 5118, 1986; M. Michael, M. Scott, PODC
 * 1996 (counted pointers).
 */

import { CYC_DEPOT } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { bugOn } from "../kernel/bug.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { type Context, fromGranule, NULL, type PhysAddr, physAdd, toGranule } from "../kernel/types.ts";
import {
  createDepotRecord,
  DEPOT_CONTENTION,
  DEPOT_EMPTY,
  DEPOT_FREE_SLOT,
  DEPOT_FULL,
  DEPOT_LOCK,
  DEPOT_SLOTS,
  type Depot,
  EMPTY,
  FULL,
  LIST_MIN,
  LIST_NR,
  lengthViolation,
} from "./depot.ts";
import { GFP_NOWAIT } from "./gfp.ts";
import { asCache, type KmemCache, NO_CACHE } from "./slab_descriptor.ts";
import type { SlabLayer } from "./slab_layer.ts";
import { SLAB_INTERNAL } from "./slab_layout.ts";

const SLOT_BITS = 10;
const SLOT_MASK = (1 << SLOT_BITS) - 1;
/** Bits of a head above the slot; one pop adds TAG_ONE, and the sum wraps. */
const TAG_ONE = 1 << SLOT_BITS;
/** Most magazines of one cache. */
export const MAX_SLOTS = SLOT_MASK;

const CHUNK_WORDS = 64;
const CHUNK_SHIFT = 6;
const CHUNK_BYTES = CHUNK_WORDS * 4;
const NR_CHUNKS = (MAX_SLOTS + 1) / CHUNK_WORDS;
const SLOT_IS_FREE = 0x8000_0000;
/** Of a magazine: its link, which is a slot, and its own slot. */
const LINK = 0;
const OWN_SLOT = 4;

/** `statics`: a zeroed word, where the cache of slot tables is kept. */
export function createLockfreeDepot(
  machine: Machine,
  spinlocks: Spinlocks,
  slabs: SlabLayer,
  statics: PhysAddr,
): Depot {
  const { port, harts } = machine;
  const { clock } = harts;

  // ── Slots ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Address of the entry of a slot whose chunk exists. */
  const entryOf = (cache: KmemCache, slot: number): number => {
    const table = fromGranule(port.ld32(cache + DEPOT_SLOTS));
    return fromGranule(port.ld32(table + (slot >>> CHUNK_SHIFT) * 4)) + (slot & (CHUNK_WORDS - 1)) * 4;
  };

  const tables = (): KmemCache => asCache(fromGranule(port.ld32(statics)));

  /** A zeroed table or chunk; NULL without memory. */
  const newTable = (ctx: Context): PhysAddr => {
    const cache = tables();
    const table = cache === NO_CACHE ? NULL : slabs.allocObject(ctx, cache, GFP_NOWAIT);
    if (table !== NULL) port.fill(table, 0, CHUNK_BYTES);
    return table;
  };

  /** Index of the first chunk that a table lacks; NR_CHUNKS when it has all. */
  const firstGap = (table: PhysAddr): number => {
    let i = 0;
    while (i < NR_CHUNKS && port.ld32(table + i * 4) !== 0) i++;
    return i;
  };

  /** Adds a chunk of free slots. Under the lock; true if it was used. */
  const addChunkLocked = (cache: KmemCache, chunk: PhysAddr): boolean => {
    const table = fromGranule(port.ld32(cache + DEPOT_SLOTS));
    const gap = firstGap(table);
    if (gap === NR_CHUNKS) return false;
    for (let i = 0; i < CHUNK_WORDS; i++) {
      const slot = gap * CHUNK_WORDS + i;
      // Slot 0 means none.
      if (slot === 0) continue;
      port.st32(chunk + i * 4, (SLOT_IS_FREE | port.ld32(cache + DEPOT_FREE_SLOT)) >>> 0);
      port.st32(cache + DEPOT_FREE_SLOT, slot);
    }
    port.stAtomic(table + gap * 4, toGranule(chunk));
    return true;
  };

  /** Makes room for another slot: false if there can be none. Nothing is held while memory is asked for. */
  const grow = (ctx: Context, cache: KmemCache): boolean => {
    const fresh = newTable(ctx);
    if (fresh === NULL) return false;
    const irq = spinlocks.spinLockIrqsave(ctx, physAdd(cache, DEPOT_LOCK));
    let isUsed = true;
    if (port.ld32(cache + DEPOT_SLOTS) === 0) port.st32(cache + DEPOT_SLOTS, toGranule(fresh));
    else isUsed = addChunkLocked(cache, fresh);
    spinlocks.spinUnlockIrqrestore(ctx, physAdd(cache, DEPOT_LOCK), irq);
    if (!isUsed) slabs.freeObject(ctx, tables(), fresh);
    return isUsed;
  };

  /** False if an interrupt, or another CPU, took the last slot. */
  const adopt = (ctx: Context, cache: KmemCache, magazine: PhysAddr): boolean => {
    const irq = spinlocks.spinLockIrqsave(ctx, physAdd(cache, DEPOT_LOCK));
    const slot = port.ld32(cache + DEPOT_FREE_SLOT);
    if (slot !== 0) {
      const entry = entryOf(cache, slot);
      port.st32(cache + DEPOT_FREE_SLOT, port.ld32(entry) & SLOT_MASK);
      port.stAtomic(entry, toGranule(magazine));
      port.st32(magazine + OWN_SLOT, slot);
    }
    spinlocks.spinUnlockIrqrestore(ctx, physAdd(cache, DEPOT_LOCK), irq);
    return slot !== 0;
  };

  const hasRoom = (ctx: Context, cache: KmemCache): boolean => {
    while (port.ldAtomic(cache + DEPOT_FREE_SLOT) === 0) {
      const table = fromGranule(port.ldAtomic(cache + DEPOT_SLOTS));
      if (table !== NULL && firstGap(table) === NR_CHUNKS) return false;
      if (!grow(ctx, cache)) return false;
    }
    return true;
  };

  const disown = (ctx: Context, cache: KmemCache, magazine: PhysAddr): void => {
    const irq = spinlocks.spinLockIrqsave(ctx, physAdd(cache, DEPOT_LOCK));
    const slot = port.ld32(magazine + OWN_SLOT);
    const entry = entryOf(cache, slot);
    bugOn(port.ld32(entry) !== toGranule(magazine), "DEP-4: a magazine is not in its slot", magazine, slot);
    port.stAtomic(entry, (SLOT_IS_FREE | port.ld32(cache + DEPOT_FREE_SLOT)) >>> 0);
    port.st32(cache + DEPOT_FREE_SLOT, slot);
    spinlocks.spinUnlockIrqrestore(ctx, physAdd(cache, DEPOT_LOCK), irq);
  };

  const isUnused = (table: PhysAddr): boolean => {
    for (let i = 0; i < NR_CHUNKS; i++) {
      const chunk = fromGranule(port.ld32(table + i * 4));
      if (chunk === NULL) continue;
      // Word 0 of chunk 0 is slot 0: nobody's.
      for (let word = i === 0 ? 1 : 0; word < CHUNK_WORDS; word++) {
        if (port.ld32(chunk + word * 4) < SLOT_IS_FREE) return false;
      }
    }
    return true;
  };

  /** Takes the slots from a cache that has no magazine; NULL if there are none, or an interrupt made one meanwhile. */
  const detachTable = (ctx: Context, cache: KmemCache): PhysAddr => {
    const irq = spinlocks.spinLockIrqsave(ctx, physAdd(cache, DEPOT_LOCK));
    const table = fromGranule(port.ld32(cache + DEPOT_SLOTS));
    const isDetached = table !== NULL && isUnused(table);
    if (isDetached) {
      port.st32(cache + DEPOT_SLOTS, 0);
      port.st32(cache + DEPOT_FREE_SLOT, 0);
    }
    spinlocks.spinUnlockIrqrestore(ctx, physAdd(cache, DEPOT_LOCK), irq);
    return isDetached ? table : NULL;
  };

  const release = (ctx: Context, cache: KmemCache): void => {
    const table = detachTable(ctx, cache);
    if (table === NULL) return;
    for (let i = 0; i < NR_CHUNKS; i++) {
      const chunk = fromGranule(port.ld32(table + i * 4));
      if (chunk !== NULL) slabs.freeObject(ctx, tables(), chunk);
    }
    slabs.freeObject(ctx, tables(), table);
  };

  // ── Stacks ───────────────────────────────────────────────────────────────────────────────────────────────────────

  const lostRace = (cache: KmemCache): void => {
    port.fetchAdd(cache + DEPOT_CONTENTION, 1);
  };

  const push = (cache: KmemCache, list: number, magazine: PhysAddr): void => {
    const slot = port.ld32(magazine + OWN_SLOT);
    port.fetchAdd(cache + list + LIST_NR, 1);
    for (;;) {
      const head = port.ldAtomic(cache + list);
      port.stAtomic(magazine + LINK, head & SLOT_MASK);
      if (port.cas(cache + list, head, ((head & ~SLOT_MASK) | slot) >>> 0) === head) return;
      lostRace(cache);
    }
  };

  const pop = (cache: KmemCache, list: number): PhysAddr => {
    for (;;) {
      const head = port.ldAtomic(cache + list);
      const slot = head & SLOT_MASK;
      if (slot === 0) return NULL;
      const granule = port.ldAtomic(entryOf(cache, slot));
      if (granule >= SLOT_IS_FREE) {
        bugOn(port.ldAtomic(cache + list) === head, "DEP-4: a free slot is on a list", cache, slot);
        continue;
      }
      const magazine = fromGranule(granule);
      const link = port.ldAtomic(magazine + LINK) & SLOT_MASK;
      if (port.cas(cache + list, head, (((head + TAG_ONE) & ~SLOT_MASK) | link) >>> 0) === head) {
        const nr = (port.fetchAdd(cache + list + LIST_NR, -1) - 1) | 0;
        if (nr < port.ldAtomic(cache + list + LIST_MIN)) port.stAtomic(cache + list + LIST_MIN, Math.max(nr, 0));
        return magazine;
      }
      lostRace(cache);
    }
  };

  const exchange = (ctx: Context, cache: KmemCache, from: number, to: number, other: PhysAddr): PhysAddr => {
    if ((port.ldAtomic(cache + from) & SLOT_MASK) === 0) return NULL;
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_DEPOT;
    const taken = pop(cache, from);
    if (taken !== NULL && other !== NULL) push(cache, to, other);
    return taken;
  };

  // ── Checking ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const walkList = (cache: KmemCache, list: number, visit: (magazine: PhysAddr) => void): string | null => {
    // Signed: what is below zero is a fault, and no reason to walk 2^32 links.
    const nr = port.ld32(cache + list + LIST_NR) | 0;
    let length = 0;
    let slot = port.ld32(cache + list) & SLOT_MASK;
    for (; slot !== 0 && length < nr; length++) {
      const magazine = fromGranule(port.ld32(entryOf(cache, slot)));
      if (port.ld32(magazine + OWN_SLOT) !== slot) return "DEP-4: a magazine is in another slot than it says";
      visit(magazine);
      slot = port.ld32(magazine + LINK) & SLOT_MASK;
    }
    return lengthViolation(port, cache, list, slot === 0 ? length : -1);
  };

  return {
    ...createDepotRecord(port),
    prepare(ctx) {
      if (tables() !== NO_CACHE) return;
      const cache = slabs.createCache(ctx, { name: "depot-slots", size: CHUNK_BYTES, flags: SLAB_INTERNAL });
      port.st32(statics, toGranule(cache));
    },
    hasRoom,
    adopt,
    disown,
    release,
    takeFull: (ctx, cache, empty) => exchange(ctx, cache, DEPOT_FULL, DEPOT_EMPTY, empty),
    takeEmpty: (ctx, cache, full) => exchange(ctx, cache, DEPOT_EMPTY, DEPOT_FULL, full),
    addEmpty: (_ctx, cache, magazine) => push(cache, DEPOT_EMPTY, magazine),
    walk(cache, visit) {
      const fault = walkList(cache, DEPOT_FULL, (magazine) => visit(magazine, FULL));
      return fault ?? walkList(cache, DEPOT_EMPTY, (magazine) => visit(magazine, EMPTY));
    },
  };
}
