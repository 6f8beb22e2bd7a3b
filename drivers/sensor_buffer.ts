/**
 * Where the sensor driver's handler puts a sample until somebody reads it: three ways, of which two may fail.
 *
 *   kmalloc   a record for each sample, allocated in the handler (GFP_ATOMIC)      slow or lost when memory is short
 *   mempool   the same with a reserve behind it                                    slow when memory is short, not lost
 *   ring      a ring of records made at probe; nothing is allocated later          neither
 *
 * The three are the same to the reader. What they differ in is what the handler may meet at its worst moment: an
 * allocation that walks zones, drains lists and finds nothing takes longer than all the rest of the handler.
 *
 *   record:  | 0 list node | 8 sample, 64 bytes |                       (kmalloc, mempool)
 *   buffer:  | 0 list head | 8 records in it | 12 first of the ring | 16 ring memory |
 *
 *   SBUF-1  samples come out in the order in which they went in; put() that says false has changed nothing
 *   SBUF-2  after drop() everything that was taken is given back
 *
 * Context: put in the interrupt handler, or with interrupts off; take with interrupts off; make and drop may sleep.
 */

import { initListHead, listAddTail, listDel, listFirst } from "../kernel/lib/list.ts";
import type { Task } from "../kernel/task.ts";
import {
  asPhys,
  type Context,
  fromGranule,
  NULL,
  type PhysAddr,
  physAdd,
  type Sleeping,
  type TaskContext,
  toGranule,
} from "../kernel/types.ts";
import { SENSOR_SAMPLE_BYTES } from "../kernel/uapi/sensor.ts";
import { GFP_ATOMIC, GFP_KERNEL, type Mempool, NO_MEMPOOL } from "../mm/index.ts";
import type { Platform } from "./driver.ts";

export const SENSOR_BUFFER_KINDS = ["kmalloc", "mempool", "ring"] as const;
export type SensorBufferKind = (typeof SENSOR_BUFFER_KINDS)[number];

/** Bytes of a buffer in RAM, 8-aligned. */
export const SENSOR_BUFFER_BYTES = 24;

const HEAD = 0;
const NR_RECORDS = 8;
const RING_FIRST = 12;
const RING_MEMORY = 16;

const RECORD_SAMPLE = 8;
const RECORD_BYTES = RECORD_SAMPLE + SENSOR_SAMPLE_BYTES;
/** Samples that may wait for a reader; more are lost whatever the buffer. */
const MAX_RECORDS = 256;
const RING_BYTES = MAX_RECORDS * SENSOR_SAMPLE_BYTES;

export interface SensorBuffer {
  /** Copies the sample at `sample` in; false if it is lost. */
  put(ctx: Context, sample: number): boolean;
  /** Copies the oldest sample out; undefined if there is none. */
  take(ctx: TaskContext): Uint8Array | undefined;
  isEmpty(): boolean;
  /** Gives everything back. */
  drop(ctx: TaskContext): void;
}

/** Makes the SENSOR_BUFFER_BYTES at `at` a buffer; undefined without memory. */
export function* makeSensorBuffer(
  platform: Platform,
  task: Task,
  kind: SensorBufferKind,
  at: PhysAddr,
): Sleeping<SensorBuffer | undefined> {
  initListHead(platform.machine.port, at);
  if (kind === "ring") return yield* makeRing(platform, task, at);
  if (kind === "kmalloc") return createRecordBuffer(platform, at, NO_MEMPOOL);
  const pool = yield* platform.mempools.create(task.ctx, { minNr: MAX_RECORDS, bytes: RECORD_BYTES });
  return pool === NO_MEMPOOL ? undefined : createRecordBuffer(platform, at, pool);
}

/** A record for each sample, from `pool` or, without one, from kmalloc. */
function createRecordBuffer({ machine, slab, mempools }: Platform, at: PhysAddr, pool: Mempool): SensorBuffer {
  const { port } = machine;
  const { kmalloc, kfree } = slab.kmalloc;
  const free = (ctx: TaskContext, record: PhysAddr): void => {
    if (pool === NO_MEMPOOL) kfree(ctx, record);
    else mempools.free(ctx, pool, record);
  };
  const pop = (): PhysAddr => {
    const record = listFirst(port, physAdd(at, HEAD));
    if (record === NULL) return NULL;
    listDel(port, record);
    port.st32(at + NR_RECORDS, port.ld32(at + NR_RECORDS) - 1);
    return record;
  };
  return {
    put(ctx, sample) {
      if (port.ld32(at + NR_RECORDS) >= MAX_RECORDS) return false;
      const record =
        pool === NO_MEMPOOL ? kmalloc(ctx, RECORD_BYTES, GFP_ATOMIC) : mempools.alloc(ctx, pool, GFP_ATOMIC);
      if (record === NULL) return false;
      port.copy(record + RECORD_SAMPLE, sample, SENSOR_SAMPLE_BYTES);
      listAddTail(port, record, physAdd(at, HEAD));
      port.st32(at + NR_RECORDS, port.ld32(at + NR_RECORDS) + 1);
      return true;
    },
    take(ctx) {
      const record = pop();
      if (record === NULL) return undefined;
      const bytes = port.readBytes(record + RECORD_SAMPLE, SENSOR_SAMPLE_BYTES);
      free(ctx, record);
      return bytes;
    },
    isEmpty: () => port.ld32(at + NR_RECORDS) === 0,
    drop(ctx) {
      for (let record = pop(); record !== NULL; record = pop()) free(ctx, record);
      if (pool !== NO_MEMPOOL) mempools.destroy(ctx, pool);
    },
  };
}

function* makeRing({ machine, slab }: Platform, task: Task, at: PhysAddr): Sleeping<SensorBuffer | undefined> {
  const { port } = machine;
  const { kmalloc, kfree } = slab.kmalloc;
  let memory = kmalloc(task.ctx, RING_BYTES, GFP_KERNEL);
  if (typeof memory === "object") memory = yield* memory;
  if (memory === NULL) return undefined;
  port.st32(at + RING_MEMORY, toGranule(memory));
  const slot = (i: number): number =>
    fromGranule(port.ld32(at + RING_MEMORY)) + (i % MAX_RECORDS) * SENSOR_SAMPLE_BYTES;
  return {
    put(_ctx, sample) {
      const nr = port.ld32(at + NR_RECORDS);
      if (nr >= MAX_RECORDS) return false;
      port.copy(slot(port.ld32(at + RING_FIRST) + nr), sample, SENSOR_SAMPLE_BYTES);
      port.st32(at + NR_RECORDS, nr + 1);
      return true;
    },
    take() {
      const nr = port.ld32(at + NR_RECORDS);
      if (nr === 0) return undefined;
      const first = port.ld32(at + RING_FIRST);
      port.st32(at + RING_FIRST, (first + 1) % MAX_RECORDS);
      port.st32(at + NR_RECORDS, nr - 1);
      return port.readBytes(asPhys(slot(first)), SENSOR_SAMPLE_BYTES);
    },
    isEmpty: () => port.ld32(at + NR_RECORDS) === 0,
    drop(ctx) {
      kfree(ctx, fromGranule(port.ld32(at + RING_MEMORY)));
      port.st32(at + NR_RECORDS, 0);
    },
  };
}

if (RECORD_BYTES % 8 !== 0 || RING_MEMORY + 4 > SENSOR_BUFFER_BYTES) throw new Error("sensor: the layout is broken");
