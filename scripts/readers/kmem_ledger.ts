/**
 * Kmem ledger: which free gives back which allocation, in a stream of kernel allocation events.
 *
 * Owns the matching of addresses to slots, and what to do where the stream is incomplete. It always is: tracing begins
 * in the middle of a kernel's life, and bulk and RCU frees have no tracepoint.
 *
 *   seen                                          becomes
 *   alloc at a free address                       an allocation row
 *   alloc at an address still live                a free row for the old owner (implied), then the allocation row
 *   free of a live address                        the free row that fits how it was allocated: `kfree()` may give back
 *                                                 a cache's object, and a merged cache's name may not be its own
 *   page free of an unknown page                  a prelude allocation of that order, and the free row
 *   cache free of an unknown object               the same, if any allocation of the recording told the object's size
 *   other free of an unknown object               nothing; counted as unknown
 *
 * Two steps. While reading, every allocation gets a number of its own. At the end slots are handed out: the prelude
 * first (those objects live before row 0), then row by row with reuse of the last slot freed, so that `nrSlots` is the
 * peak of live allocations.
 *
 * Addresses: an address is known by its low 52 bits, which a double holds exactly. The 12 bits above are sign
 * extension, or a memory tag that the matching free may lack.
 *
 * Rows are kept interleaved in one Int32Array (one row, one cache line) and taken apart at the end.
 *
 * Source: Linux include/trace/events/kmem.h for the events.
 */

import {
  type KernelRecording,
  KMEM_CACHE_ALLOC,
  KMEM_CACHE_FREE,
  KMEM_KFREE,
  KMEM_KMALLOC,
  KMEM_PAGE_ALLOC,
  KMEM_PAGE_FREE,
  type RecordedCache,
} from "../../kernel/uapi/recording.ts";
import { AddressMap } from "./address_map.ts";

/** Who performed an event, and in what context. The reader reuses one. */
export interface EventContext {
  cpu: number;
  context: number;
  irqsOff: number;
  pid: number;
}

export const MAX_CACHES = 65_536;

const COL_EVENT = 0;
const COL_CPU = 1;
const COL_CONTEXT = 2;
const COL_IRQS_OFF = 3;
const COL_PID = 4;
/** The allocation's number while reading. */
const COL_OBJECT = 5;
const COL_ORDER = 6;
const COL_MIGRATETYPE = 7;
const COL_GFP = 8;
const COL_SIZE = 9;
const COL_ALLOC_SIZE = 10;
const COL_CACHE = 11;
const NR_COLUMNS = 12;

/** A free event is its allocation's number plus one, and frees are odd: `#append()` and `#assignSlots()` rely on it. */
if (KMEM_PAGE_FREE !== KMEM_PAGE_ALLOC + 1 || KMEM_KFREE !== KMEM_KMALLOC + 1) throw new Error("kmem_ledger: no pairs");
if (KMEM_CACHE_FREE !== KMEM_CACHE_ALLOC + 1 || KMEM_CACHE_FREE % 2 !== 1) throw new Error("kmem_ledger: no pairs");

const FIRST_ROWS = 4096;
/** In the slot table: the allocation is not part of the recording. */
const SLOT_DROPPED = -1;

interface CacheFacts {
  readonly name: string;
  maxRequested: number;
  slotSize: number;
}

/** Collects events and builds the `KernelRecording`. */
export class KmemLedger {
  nrRows = 0;
  #rows = new Int32Array(FIRST_ROWS * NR_COLUMNS);
  readonly #objectAt = new AddressMap();
  readonly #pageAt = new AddressMap();
  readonly #caches: CacheFacts[] = [];
  readonly #cacheByName = new Map<string, number>();
  /** Per allocation: `event`, `order`, `cache`. */
  readonly #events: number[] = [];
  readonly #orders: number[] = [];
  readonly #cacheOf: number[] = [];
  readonly #prelude: number[] = [];
  #nrImplied = 0;
  #nrUnknown = 0;
  /** Pages freed at another order than they were allocated at: `split_page()`. */
  #nrSplit = 0;
  #maxCpu = 0;

  /** The index of cache `name`; −1 if there are too many. */
  cacheIndex(name: string): number {
    const known = this.#cacheByName.get(name);
    if (known !== undefined) return known;
    const index = this.#caches.length;
    if (index >= MAX_CACHES) return -1;
    this.#caches.push({ name, maxRequested: 0, slotSize: 0 });
    this.#cacheByName.set(name, index);
    return index;
  }

  allocPages(by: EventContext, pfn: number, order: number, migratetype: number, gfp: number): void {
    const object = this.#define(by, this.#pageAt, pfn, KMEM_PAGE_ALLOC, order, 0);
    const row = this.#append(by, KMEM_PAGE_ALLOC, object);
    this.#rows[row + COL_MIGRATETYPE] = migratetype;
    this.#rows[row + COL_GFP] = gfp;
  }

  freePages(by: EventContext, pfn: number, order: number): void {
    let object = this.#pageAt.get(pfn);
    if (object < 0) object = this.#addPrelude(KMEM_PAGE_ALLOC, order, 0);
    else if (this.#orders[object] !== order) this.#nrSplit++;
    this.#pageAt.delete(pfn);
    this.#append(by, KMEM_PAGE_FREE, object);
  }

  /** `cache` is −1 for kmalloc. */
  allocObject(by: EventContext, ptr: number, cache: number, requested: number, slotSize: number, gfp: number): void {
    const event = cache < 0 ? KMEM_KMALLOC : KMEM_CACHE_ALLOC;
    const facts = this.#caches[cache];
    if (facts !== undefined) {
      if (requested > facts.maxRequested) facts.maxRequested = requested;
      if (slotSize > facts.slotSize) facts.slotSize = slotSize;
    }
    const object = this.#define(by, this.#objectAt, ptr, event, 0, Math.max(cache, 0));
    const row = this.#append(by, event, object);
    this.#rows[row + COL_GFP] = gfp;
    this.#rows[row + COL_SIZE] = requested;
    this.#rows[row + COL_ALLOC_SIZE] = slotSize;
  }

  /** `cache` is −1 for kfree and for a free that does not name its cache. */
  freeObject(by: EventContext, ptr: number, cache: number): void {
    let object = this.#objectAt.get(ptr);
    if (object < 0) {
      if (cache < 0) {
        this.#nrUnknown++;
        return;
      }
      object = this.#addPrelude(KMEM_CACHE_ALLOC, 0, cache);
    }
    this.#objectAt.delete(ptr);
    this.#append(by, (this.#events[object] as number) + 1, object);
  }

  /** The finished recording. This ledger is not to be used again. */
  finish(name: string, warnings: readonly string[]): KernelRecording {
    const caches = this.#caches.map(recordedCache);
    const slotOf = new Int32Array(this.#events.length);
    const prelude = this.#keepKnown(caches, slotOf);
    const { nrSlots, nrRows } = this.#assignSlots(slotOf, prelude.length);
    const notes = [...warnings];
    if (this.#nrSplit > 0) notes.push(`${this.#nrSplit} pages freed at another order than allocated: freed whole`);
    return {
      kind: "kernel",
      name,
      nrEvents: nrRows,
      nrSlots,
      nrCpus: this.#maxCpu + 1,
      ...this.#columns(nrRows),
      caches,
      preludeEvent: Uint8Array.from(prelude, (object) => this.#events[object] as number),
      preludeSlot: Int32Array.from(prelude, (object) => slotOf[object] as number),
      preludeOrder: Uint8Array.from(prelude, (object) => this.#orders[object] as number),
      preludeCache: Uint16Array.from(prelude, (object) => this.#cacheOf[object] as number),
      nrUnknownFrees: this.#nrUnknown,
      nrImpliedFrees: this.#nrImplied,
      warnings: notes,
    };
  }

  #define(by: EventContext, ownerAt: AddressMap, address: number, event: number, order: number, cache: number): number {
    const owner = ownerAt.get(address);
    if (owner >= 0) {
      this.#append(by, (this.#events[owner] as number) + 1, owner);
      this.#nrImplied++;
    }
    const object = this.#newObject(event, order, cache);
    ownerAt.set(address, object);
    return object;
  }

  #addPrelude(event: number, order: number, cache: number): number {
    const object = this.#newObject(event, order, cache);
    this.#prelude.push(object);
    return object;
  }

  #newObject(event: number, order: number, cache: number): number {
    this.#orders.push(order);
    this.#cacheOf.push(cache);
    return this.#events.push(event) - 1;
  }

  /** Appends a row and returns where it begins in `#rows`. */
  #append(by: EventContext, event: number, object: number): number {
    const row = this.nrRows++ * NR_COLUMNS;
    if (row === this.#rows.length) {
      const grown = new Int32Array(row * 2);
      grown.set(this.#rows);
      this.#rows = grown;
    }
    const rows = this.#rows;
    rows[row + COL_EVENT] = event;
    rows[row + COL_CPU] = by.cpu;
    rows[row + COL_CONTEXT] = by.context;
    rows[row + COL_IRQS_OFF] = by.irqsOff;
    rows[row + COL_PID] = by.pid;
    rows[row + COL_OBJECT] = object;
    rows[row + COL_ORDER] = this.#orders[object] as number;
    rows[row + COL_CACHE] = this.#cacheOf[object] as number;
    if (by.cpu > this.#maxCpu) this.#maxCpu = by.cpu;
    return row;
  }

  /** The prelude without the objects whose size nobody told; those are marked as dropped. */
  #keepKnown(caches: readonly RecordedCache[], slotOf: Int32Array): number[] {
    const kept: number[] = [];
    for (const object of this.#prelude) {
      const cache = caches[this.#cacheOf[object] as number];
      const isKnown = this.#events[object] === KMEM_PAGE_ALLOC || (cache !== undefined && cache.objectSizeBytes > 0);
      slotOf[object] = isKnown ? kept.length : SLOT_DROPPED;
      if (isKnown) kept.push(object);
      else this.#nrUnknown++;
    }
    return kept;
  }

  /** Turns allocation numbers into slots, in place, and closes the gaps that dropped rows leave. */
  #assignSlots(slotOf: Int32Array, nrPrelude: number): { nrSlots: number; nrRows: number } {
    const rows = this.#rows;
    const freeSlots: number[] = [];
    const end = this.nrRows * NR_COLUMNS;
    let nrSlots = nrPrelude;
    let target = 0;
    for (let row = 0; row < end; row += NR_COLUMNS) {
      const object = rows[row + COL_OBJECT] as number;
      const isAlloc = (rows[row + COL_EVENT] as number) % 2 === 0;
      if (isAlloc) slotOf[object] = freeSlots.pop() ?? nrSlots++;
      const slot = slotOf[object] as number;
      if (slot === SLOT_DROPPED) continue;
      if (!isAlloc) freeSlots.push(slot);
      if (target !== row) rows.copyWithin(target, row, row + NR_COLUMNS);
      rows[target + COL_OBJECT] = slot;
      target += NR_COLUMNS;
    }
    return { nrSlots, nrRows: target / NR_COLUMNS };
  }

  #columns(n: number) {
    return {
      event: this.#take(new Uint8Array(n), COL_EVENT),
      cpu: this.#take(new Uint8Array(n), COL_CPU),
      context: this.#take(new Uint8Array(n), COL_CONTEXT),
      irqsOff: this.#take(new Uint8Array(n), COL_IRQS_OFF),
      pid: this.#take(new Int32Array(n), COL_PID),
      slot: this.#take(new Int32Array(n), COL_OBJECT),
      order: this.#take(new Uint8Array(n), COL_ORDER),
      migratetype: this.#take(new Uint8Array(n), COL_MIGRATETYPE),
      gfp: this.#take(new Uint32Array(n), COL_GFP),
      sizeBytes: this.#take(new Uint32Array(n), COL_SIZE),
      allocBytes: this.#take(new Uint32Array(n), COL_ALLOC_SIZE),
      cache: this.#take(new Uint16Array(n), COL_CACHE),
    };
  }

  #take<T extends { readonly length: number; [index: number]: number }>(column: T, which: number): T {
    for (let i = 0; i < column.length; i++) column[i] = this.#rows[i * NR_COLUMNS + which] as number;
    return column;
  }
}

function recordedCache(facts: CacheFacts): RecordedCache {
  const objectSizeBytes = facts.maxRequested > 0 ? facts.maxRequested : facts.slotSize;
  return { name: facts.name, objectSizeBytes, slotSizeBytes: facts.slotSize };
}
