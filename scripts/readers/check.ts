/**
 * Recording checks: the rules every reader's columns obey, as a program.
 *
 * Owns the invariants that the replayers rely on without looking. Tests run both checkers behind every reader; they
 * throw a plain `Error`, because a violation is our bug and not the file's.
 *
 *   REC-1  every column has as many rows as the recording says
 *   REC-2  op, thread, id, size and alignment are in range; sizes are integers 0 ≤ size ≤ 2^53 − 1
 *   REC-3  malloc, calloc and memalign name a dead id, free and write a live one (or free the null id)
 *   REC-4  event, cpu, context, slot, order and cache are in range
 *   REC-5  an allocation defines a dead slot, a free names a live slot of its own kind, order and cache
 *   REC-6  the prelude holds allocations only, each of a slot of its own; its caches have a known object size
 *   REC-7  nrSlots is the peak of live allocations, the prelude included
 */

import {
  HEAP_CALLOC,
  HEAP_FREE,
  HEAP_MALLOC,
  HEAP_MEMALIGN,
  HEAP_NULL_ID,
  HEAP_REALLOC,
  HEAP_WRITE,
  type HeapRecording,
  type KernelRecording,
  KMEM_CACHE_ALLOC,
  KMEM_CACHE_FREE,
  KMEM_IN_HARDIRQ,
  KMEM_KMALLOC,
  KMEM_PAGE_ALLOC,
  KMEM_PAGE_FREE,
} from "../../kernel/uapi/recording.ts";

/** Largest `order` a recording may carry: an allocator has to refuse what is over its own limit. */
export const MAX_RECORDED_ORDER = 31;
/** Largest log2 of an alignment. */
export const MAX_ALIGN_SHIFT = 52;

/** Throws `Error` naming rule and row if `rec` breaks REC-1 to REC-3. */
export function checkHeapRecording(rec: HeapRecording): void {
  const n = rec.nrOps;
  for (const column of [rec.op, rec.thread, rec.id, rec.size, rec.alignShift]) {
    ensure(column.length === n, "REC-1 column length", column.length);
  }
  ensure(rec.nrThreads >= 1 && rec.nrThreads <= 256, "REC-2 nrThreads", rec.nrThreads);
  ensure(rec.name !== "", "REC-2 name", 0);
  const live = new Uint8Array(rec.nrIds);
  for (let i = 0; i < n; i++) {
    const op = at(rec.op, i);
    const id = at(rec.id, i);
    const size = at(rec.size, i);
    ensure(op <= HEAP_WRITE, "REC-2 op", i);
    ensure(at(rec.thread, i) < rec.nrThreads, "REC-2 thread", i);
    ensure(Number.isSafeInteger(size) && size >= 0, "REC-2 size", i);
    ensure(op !== HEAP_FREE || size === 0, "REC-2 size of a free", i);
    const shift = at(rec.alignShift, i);
    ensure(op === HEAP_MEMALIGN ? shift <= MAX_ALIGN_SHIFT : shift === 0, "REC-2 alignment", i);
    if (id === HEAP_NULL_ID) {
      ensure(op === HEAP_FREE, "REC-2 null id", i);
      continue;
    }
    ensure(id >= 0 && id < rec.nrIds, "REC-2 id", i);
    const isLive = live[id] === 1;
    if (op === HEAP_MALLOC || op === HEAP_CALLOC || op === HEAP_MEMALIGN)
      ensure(!isLive, "REC-3 alloc of a live id", i);
    else if (op !== HEAP_REALLOC) ensure(isLive, "REC-3 use of a dead id", i);
    live[id] = op === HEAP_FREE ? 0 : 1;
  }
}

/** Throws `Error` naming rule and row if `rec` breaks REC-1 or REC-4 to REC-7. */
export function checkKernelRecording(rec: KernelRecording): void {
  checkKernelLengths(rec);
  const owner = new Int32Array(rec.nrSlots).fill(-1);
  const preludeLength = rec.preludeSlot.length;
  let nrLive = preludeLength;
  for (let i = 0; i < preludeLength; i++) {
    const slot = at(rec.preludeSlot, i);
    const event = at(rec.preludeEvent, i);
    ensure(event === KMEM_PAGE_ALLOC || event === KMEM_CACHE_ALLOC, "REC-6 event", i);
    ensure(slot >= 0 && slot < rec.nrSlots && owner[slot] === -1, "REC-6 slot", i);
    ensure(at(rec.preludeOrder, i) <= MAX_RECORDED_ORDER, "REC-6 order", i);
    const cache = rec.caches[at(rec.preludeCache, i)];
    if (event === KMEM_CACHE_ALLOC) ensure(cache !== undefined && cache.objectSizeBytes > 0, "REC-6 cache", i);
    owner[slot] = kindOf(event, at(rec.preludeOrder, i), at(rec.preludeCache, i));
  }
  let peak = nrLive;
  for (let i = 0; i < rec.nrEvents; i++) {
    const event = at(rec.event, i);
    const slot = at(rec.slot, i);
    checkKernelRow(rec, i);
    const isAlloc = event % 2 === 0;
    const kind = kindOf(isAlloc ? event : event - 1, at(rec.order, i), at(rec.cache, i));
    ensure(owner[slot] === (isAlloc ? -1 : kind), "REC-5 slot", i);
    owner[slot] = isAlloc ? kind : -1;
    nrLive += isAlloc ? 1 : -1;
    peak = Math.max(peak, nrLive);
  }
  ensure(peak === rec.nrSlots, "REC-7 nrSlots", peak);
}

function checkKernelLengths(rec: KernelRecording): void {
  const columns = [rec.event, rec.cpu, rec.context, rec.irqsOff, rec.pid, rec.slot, rec.order, rec.migratetype];
  for (const column of [...columns, rec.gfp, rec.sizeBytes, rec.allocBytes, rec.cache]) {
    ensure(column.length === rec.nrEvents, "REC-1 column length", column.length);
  }
  for (const column of [rec.preludeEvent, rec.preludeOrder, rec.preludeCache]) {
    ensure(column.length === rec.preludeSlot.length, "REC-1 prelude length", column.length);
  }
  ensure(rec.nrCpus >= 1 && rec.nrCpus <= 256, "REC-4 nrCpus", rec.nrCpus);
  for (const [i, cache] of rec.caches.entries()) {
    ensure(cache.name !== "" && cache.objectSizeBytes >= 0 && cache.slotSizeBytes >= 0, "REC-4 cache", i);
  }
}

function checkKernelRow(rec: KernelRecording, i: number): void {
  const event = at(rec.event, i);
  const slot = at(rec.slot, i);
  const isObject = event === KMEM_KMALLOC || event === KMEM_CACHE_ALLOC;
  ensure(event <= KMEM_CACHE_FREE, "REC-4 event", i);
  ensure(at(rec.cpu, i) < rec.nrCpus, "REC-4 cpu", i);
  ensure(at(rec.context, i) <= KMEM_IN_HARDIRQ && at(rec.irqsOff, i) <= 1, "REC-4 context", i);
  ensure(at(rec.pid, i) >= 0, "REC-4 pid", i);
  ensure(slot >= 0 && slot < rec.nrSlots, "REC-4 slot", i);
  ensure(event <= KMEM_PAGE_FREE ? at(rec.order, i) <= MAX_RECORDED_ORDER : at(rec.order, i) === 0, "REC-4 order", i);
  ensure(event >= KMEM_CACHE_ALLOC ? at(rec.cache, i) < rec.caches.length : at(rec.cache, i) === 0, "REC-4 cache", i);
  ensure(isObject || (at(rec.sizeBytes, i) === 0 && at(rec.allocBytes, i) === 0), "REC-4 sizes", i);
}

/** One number per (kind of allocation, order, cache). */
function kindOf(allocEvent: number, order: number, cache: number): number {
  return (allocEvent * (MAX_RECORDED_ORDER + 1) + order) * 65536 + cache;
}

function at(column: ArrayLike<number>, i: number): number {
  return column[i] ?? Number.NaN;
}

function ensure(condition: boolean, rule: string, row: number): void {
  if (!condition) throw new Error(`recording breaks ${rule} at ${row}`);
}
