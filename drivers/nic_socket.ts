/**
 * The receivers of /dev/nic0: a bounded queue of packets per open file.
 *
 *   softirq: deliver ─▶ the reader that the packet's flow belongs to ─▶ [ queue ≤ limit ] ─▶ read(): one packet a call
 *
 * Several readers share the traffic by flow, so that the packets of a flow stay in order. A packet that finds its
 * reader's queue full is dropped: a receiver that cannot keep up loses packets, not the kernel's memory.
 *
 *   SKT-1  nr = packets on the list; 0 ≤ nr ≤ the limit
 *   SKT-2  packets of one flow are read in the order in which they arrived
 *
 * Readers and queues are touched under the card's lock, with softirqs off in process context.
 */

import { initListHead, listAddTail, listDel, listFirst, listNext } from "../kernel/lib/list.ts";
import type { Task } from "../kernel/task.ts";
import {
  asPhys,
  type Context,
  fromGranule,
  type IrqContext,
  NULL,
  type PhysAddr,
  physAdd,
  type Sleeping,
  toGranule,
} from "../kernel/types.ts";
import { EINVAL, ENODEV } from "../kernel/uapi/errno.ts";
import { GFP_ATOMIC } from "../mm/index.ts";
import type { Platform } from "./driver.ts";
import type { NicCore } from "./nic_core.ts";
import {
  BUFFER_LENGTH,
  BUFFER_LINK,
  NIC_QUIET,
  NIC_READ_QUEUE,
  NIC_READERS,
  type Nic,
  READER_BYTES,
  READER_FIRST,
  READER_LAST,
  READER_NR,
  READER_QUIET,
  STATE_GONE,
  STATE_REMOVING,
} from "./nic_state.ts";

export interface NicSockets {
  /** Queues a packet for its reader, or drops it and says why in a counter. Takes the buffer over. */
  deliver(ctx: IrqContext, nic: Nic, buffer: PhysAddr, length: number, flow: number): void;
  /** A new reader; NULL without memory. Does not sleep. */
  open(ctx: Context, nic: Nic): PhysAddr;
  /** Ends a reader; what it has not read is freed. */
  close(ctx: Context, nic: Nic, reader: PhysAddr): void;
  /** The next packet, at most `max` bytes of it; nothing once the wire has fallen silent; −ENODEV when it is gone. */
  read(task: Task, nic: Nic, reader: PhysAddr, max: number): Sleeping<Uint8Array | number>;
  /** Wakes every reader. */
  wake(nic: Nic): void;
  check(nic: Nic): string | null;
}

export function createNicSockets(platform: Platform, core: NicCore, queueLimit: number): NicSockets {
  const { slab, spinlocks, waits } = platform;
  const { port } = platform.machine;

  const readersOf = (nic: Nic): PhysAddr => physAdd(nic.struct, NIC_READERS);
  const nrOf = (reader: PhysAddr): number => port.ld32(reader + READER_NR);

  /** The reader that serves `flow`; NULL when nobody reads. O(readers). */
  const readerOf = (nic: Nic, flow: number): PhysAddr => {
    const head = readersOf(nic);
    let nr = 0;
    for (let reader = listNext(port, head); reader !== head; reader = listNext(port, reader)) nr++;
    if (nr === 0) return NULL;
    let reader = listNext(port, head);
    for (let i = flow % nr; i > 0; i--) reader = listNext(port, reader);
    return reader;
  };

  const append = (reader: PhysAddr, buffer: PhysAddr, length: number): void => {
    port.st32(buffer + BUFFER_LINK, 0);
    port.st32(buffer + BUFFER_LENGTH, length);
    const last = asPhys(fromGranule(port.ld32(reader + READER_LAST)));
    if (last === NULL) port.st32(reader + READER_FIRST, toGranule(buffer));
    else port.st32(last + BUFFER_LINK, toGranule(buffer));
    port.st32(reader + READER_LAST, toGranule(buffer));
    port.st32(reader + READER_NR, nrOf(reader) + 1);
  };

  /** Takes the first packet; NULL when there is none. */
  const takeFirst = (reader: PhysAddr): PhysAddr => {
    const buffer = fromGranule(port.ld32(reader + READER_FIRST));
    if (buffer === NULL) return NULL;
    const next = port.ld32(buffer + BUFFER_LINK);
    port.st32(reader + READER_FIRST, next);
    if (next === 0) port.st32(reader + READER_LAST, 0);
    port.st32(reader + READER_NR, nrOf(reader) - 1);
    return buffer;
  };

  const wake = (nic: Nic): void => waits.wakeUp(physAdd(nic.struct, NIC_READ_QUEUE));

  return {
    deliver(ctx, nic, buffer, length, flow) {
      spinlocks.spinLock(ctx, core.lock(nic));
      const reader = readerOf(nic, flow);
      const isFull = reader !== NULL && nrOf(reader) >= queueLimit;
      if (reader !== NULL && !isFull) append(reader, buffer, length);
      spinlocks.spinUnlock(ctx, core.lock(nic));
      if (reader !== NULL && !isFull) {
        core.count(nic, "rx_delivered");
        wake(nic);
        return;
      }
      core.count(nic, isFull ? "drop_queue_full" : "drop_no_reader");
      core.freeBuffer(ctx, nic, buffer);
    },
    open(ctx, nic) {
      const reader = slab.kmalloc.kzalloc(ctx, READER_BYTES, GFP_ATOMIC);
      if (reader === NULL) return NULL;
      core.countAlloc(ctx, nic);
      port.st32(reader + READER_QUIET, core.get(nic, NIC_QUIET));
      initListHead(port, reader);
      spinlocks.spinLockBh(ctx, core.lock(nic));
      listAddTail(port, reader, readersOf(nic));
      spinlocks.spinUnlockBh(ctx, core.lock(nic));
      return reader;
    },
    close(ctx, nic, reader) {
      spinlocks.spinLockBh(ctx, core.lock(nic));
      listDel(port, reader);
      spinlocks.spinUnlockBh(ctx, core.lock(nic));
      for (let buffer = takeFirst(reader); buffer !== NULL; buffer = takeFirst(reader))
        core.freeBuffer(ctx, nic, buffer);
      slab.kmalloc.kfree(ctx, reader);
    },
    *read(task, nic, reader, max) {
      if (max < 1) return -EINVAL;
      while (nrOf(reader) === 0) {
        if (core.hasState(nic, STATE_GONE | STATE_REMOVING)) return -ENODEV;
        const quiet = core.get(nic, NIC_QUIET);
        if (quiet !== port.ld32(reader + READER_QUIET)) {
          port.st32(reader + READER_QUIET, quiet);
          return new Uint8Array(0);
        }
        yield* waits.waitOn(physAdd(nic.struct, NIC_READ_QUEUE), task);
      }
      spinlocks.spinLockBh(task.ctx, core.lock(nic));
      const buffer = takeFirst(reader);
      spinlocks.spinUnlockBh(task.ctx, core.lock(nic));
      const bytes = port.readBytes(buffer, Math.min(max, port.ld32(buffer + BUFFER_LENGTH)));
      core.freeBuffer(task.ctx, nic, buffer);
      return bytes;
    },
    wake,
    check(nic) {
      const head = readersOf(nic);
      for (let reader = listFirst(port, head); reader !== NULL && reader !== head; reader = listNext(port, reader)) {
        let nr = 0;
        for (let buffer = port.ld32(reader + READER_FIRST); buffer !== 0 && nr <= queueLimit; nr++) {
          buffer = port.ld32(fromGranule(buffer) + BUFFER_LINK);
        }
        if (nr !== nrOf(reader) || nr > queueLimit)
          return `SKT-1: reader has ${nrOf(reader)} packets, ${nr} on its list`;
      }
      return null;
    },
  };
}
