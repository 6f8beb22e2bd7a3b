/**
 * Whole pages to and from a disk, by memory that was set aside: how the swap area is read and written.
 *
 *                     lane "in place"                    ┌ polled: a fault waits, the CPU with it
 *   frames ◀──copy──▶ 32 pages the disk reaches ◀──DMA──▶ disk
 *                     lane "asleep"                      └ a thread sleeps until the interrupt
 *
 * To write pages out, one must not need pages. So each lane has its buffer, its request and its segment table from the
 * start, and an I/O allocates nothing: no request from the mempool, no bounce buffer, no table. It needs a tag only,
 * and those that have one end without us.
 *
 * Polling (adr/0010-a-fault-waits-in-place.md): user loads and stores are plain functions, so a fault cannot sleep. The
 * CPU looks at the device at each moment at which any device acts, and its clock goes there. Interrupts are taken
 * meanwhile as at any checkpoint; other CPUs catch up when they are next. Two polls at once cannot be: nothing that
 * runs inside one faults. Only one thread may use the sleeping lane.
 *
 *   DPG-1  an I/O touches the frames and the disk's pages that it was told, all of them or, with an error, any part
 *   DPG-2  no memory is allocated between openPages() and release()
 *   DPG-3  what a command says is OK, and only that, is copied to the frames
 *
 * Errors as in disk_queue.ts: lost interrupts are found, time-outs reset the device, MAX_TRIES, then −EIO.
 */

import { CYC_COPY_PAGE } from "../kernel/arch/charges.ts";
import type { PageIo } from "../kernel/file.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import type { Task } from "../kernel/task.ts";
import {
  asDma,
  asPfn,
  asPhys,
  type DmaAddr,
  type PhysAddr,
  pfnToPhys,
  type Sleeping,
  type TaskContext,
} from "../kernel/types.ts";
import { EBUSY, ENOMEM } from "../kernel/uapi/errno.ts";
import { type DmaMemory, GFP_KERNEL } from "../mm/index.ts";
import {
  DISK_MAX_SEGMENT_BYTES,
  DISK_OP_READ,
  DISK_OP_WRITE,
  DISK_REG_CAPACITY,
  SECTOR_BYTES,
  SEGMENT_BYTES,
} from "./disk_device.ts";
import { type Disk, type DiskQueue, MAX_TRIES, TIMEOUT_CYCLES } from "./disk_queue.ts";
import { REQUEST_BYTES, RQ_BYTES, RQ_COMPLETION, RQ_LBA, RQ_OPCODE, RQ_OWN } from "./disk_request.ts";
import type { Platform } from "./driver.ts";

const MAX_PAGES = 32;
const SECTORS_PER_PAGE = PAGE_SIZE / SECTOR_BYTES;
/** Request, then segment table, of each lane in the page that both share. */
const LANE_BYTES = 256;
const TABLE_AT = REQUEST_BYTES;
/** When no device has anything planned, and all tags are taken: look again. */
const IDLE_CYCLES = 1_000_000;

export interface DiskPages extends PageIo {
  /** Gives the memory back. No I/O is under way. */
  close(): void;
}

interface Lane {
  readonly buffer: DmaMemory;
  readonly request: PhysAddr;
  readonly table: PhysAddr;
  readonly tableDma: DmaAddr;
}

/** Sets the memory aside: −ENOMEM without a buffer below the disk's address limit. */
export function* openDiskPages(
  platform: Platform,
  queue: DiskQueue,
  disk: Disk,
  task: Task,
): Sleeping<DiskPages | number> {
  const { dma } = platform;
  const taken: [DmaMemory, number][] = [];
  const close = (ctx: TaskContext): void => {
    for (const [memory, bytes] of taken) dma.freeCoherent(ctx, disk.dev, bytes, memory.cpu, memory.dma);
    taken.length = 0;
  };
  for (const bytes of [PAGE_SIZE, MAX_PAGES * PAGE_SIZE, MAX_PAGES * PAGE_SIZE]) {
    const memory = yield* dma.allocCoherent(task.ctx, disk.dev, bytes, GFP_KERNEL);
    if (memory === null) {
      close(task.ctx);
      return -ENOMEM;
    }
    taken.push([memory, bytes]);
  }
  const [[control], ...buffers] = taken as [[DmaMemory, number], ...[DmaMemory, number][]];
  const lanes = buffers.map(([buffer], i): Lane => {
    const at = i * LANE_BYTES;
    return {
      buffer,
      request: asPhys(control.cpu + at),
      table: asPhys(control.cpu + at + TABLE_AT),
      tableDma: asDma(control.dma + at + TABLE_AT),
    };
  });
  return createDiskPages(platform, queue, disk, lanes, () =>
    close(platform.contexts.taskContext(currentCpu(platform))),
  );
}

const currentCpu = ({ machine }: Platform): number => machine.harts.current[0] as number;

function createDiskPages(
  platform: Platform,
  queue: DiskQueue,
  disk: Disk,
  lanes: readonly Lane[],
  close: () => void,
): DiskPages {
  const { machine, contexts, irqs, completions, waits } = platform;
  const { port, harts, events } = machine;
  const { clock } = harts;
  const [inPlace, asleep] = lanes as [Lane, Lane];
  const completionOf = (lane: Lane): PhysAddr => asPhys(lane.request + RQ_COMPLETION);

  /** Request and segment table for pages `[first, first + nr)` of the disk; the number of segments. */
  const prepare = (lane: Lane, opcode: number, first: number, nr: number): number => {
    const { setField } = disk.requests;
    port.fill(lane.request, 0, REQUEST_BYTES);
    setField(lane.request, RQ_OPCODE, opcode);
    setField(lane.request, RQ_LBA, first * SECTORS_PER_PAGE);
    setField(lane.request, RQ_BYTES, nr * PAGE_SIZE);
    setField(lane.request, RQ_OWN, 1);
    let nrSegments = 0;
    for (let at = 0; at < nr * PAGE_SIZE; at += DISK_MAX_SEGMENT_BYTES) {
      const entry = lane.table + nrSegments++ * SEGMENT_BYTES;
      port.st32(entry, lane.buffer.dma + at);
      port.st32(entry + 4, Math.min(DISK_MAX_SEGMENT_BYTES, nr * PAGE_SIZE - at));
    }
    return nrSegments;
  };

  const copy = (ctx: TaskContext, lane: Lane, frames: Int32Array, nr: number, isOut: boolean): void => {
    for (let i = 0; i < nr; i++) {
      const frame = pfnToPhys(asPfn(frames[i] as number));
      const place = asPhys(lane.buffer.cpu + i * PAGE_SIZE);
      if (isOut) port.copy(place, frame, PAGE_SIZE);
      else port.copy(frame, place, PAGE_SIZE);
      clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_COPY_PAGE;
      contexts.interruptPoint(ctx);
    }
  };

  // ── In place ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The next moment at which something can have changed; interrupts and events of that moment happen. */
  const passTime = (ctx: TaskContext, until: number): void => {
    const now = clock[ctx.cpu] as number;
    clock[ctx.cpu] = Math.max(now, Math.min(events.nextTime(), until));
    irqs.checkpoint(ctx.cpu);
  };
  const withIrqsOff = (ctx: TaskContext, act: (ctx: TaskContext, disk: Disk) => void): void => {
    const flags = contexts.localIrqSave(ctx);
    act(ctx, disk);
    contexts.localIrqRestore(ctx, flags);
  };

  const issuePolling = (ctx: TaskContext, nrSegments: number): number => {
    for (;;) {
      const error = queue.issueOwn(ctx, disk, inPlace.request, nrSegments, inPlace.tableDma);
      if (error !== -EBUSY) return error;
      passTime(ctx, (clock[ctx.cpu] as number) + IDLE_CYCLES);
      withIrqsOff(ctx, queue.serve);
    }
  };

  const pollForEnd = (ctx: TaskContext): void => {
    let deadline = (clock[ctx.cpu] as number) + TIMEOUT_CYCLES;
    while (!completions.tryWait(ctx, completionOf(inPlace))) {
      passTime(ctx, deadline);
      withIrqsOff(ctx, queue.serve);
      if ((clock[ctx.cpu] as number) < deadline) continue;
      withIrqsOff(ctx, queue.recover);
      deadline = (clock[ctx.cpu] as number) + TIMEOUT_CYCLES;
    }
  };

  const transferInPlace = (ctx: TaskContext, opcode: number, first: number, nr: number): number => {
    const nrSegments = prepare(inPlace, opcode, first, nr);
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      if (tries > 0) queue.countRetry(disk);
      const error = issuePolling(ctx, nrSegments);
      if (error !== 0) return error;
      pollForEnd(ctx);
      const verdict = queue.judge(disk, inPlace.request);
      if (verdict < 0) return verdict;
      if (verdict > 0) continue;
      queue.countDone(ctx, disk, opcode, nr * PAGE_SIZE);
      return 0;
    }
    return queue.giveUp(disk, inPlace.request);
  };

  // ── Asleep ───────────────────────────────────────────────────────────────────────────────────────────────────────

  function* writeOnce(task: Task, nrSegments: number): Sleeping<number> {
    for (;;) {
      const error = queue.issueOwn(task.ctx, disk, asleep.request, nrSegments, asleep.tableDma);
      if (error === 0) break;
      if (error !== -EBUSY) return error;
      yield* waits.waitOnTimeout(queue.tagQueue(disk), task, (clock[task.ctx.cpu] as number) + IDLE_CYCLES);
    }
    while (!(yield* completions.waitTimeout(task, completionOf(asleep), TIMEOUT_CYCLES))) {
      withIrqsOff(task.ctx, queue.recover);
    }
    return queue.judge(disk, asleep.request);
  }

  return {
    nrPages: Math.floor(disk.device.registers.ld32(DISK_REG_CAPACITY) / SECTORS_PER_PAGE),
    maxPages: MAX_PAGES,
    read(ctx, first, frames, nr) {
      const error = transferInPlace(ctx, DISK_OP_READ, first, nr);
      if (error === 0) copy(ctx, inPlace, frames, nr, false);
      return error;
    },
    write(ctx, first, frames, nr) {
      copy(ctx, inPlace, frames, nr, true);
      return transferInPlace(ctx, DISK_OP_WRITE, first, nr);
    },
    *writeSleeping(task, first, frames, nr) {
      copy(task.ctx, asleep, frames, nr, true);
      const nrSegments = prepare(asleep, DISK_OP_WRITE, first, nr);
      for (let tries = 0; tries < MAX_TRIES; tries++) {
        if (tries > 0) queue.countRetry(disk);
        const verdict = yield* writeOnce(task, nrSegments);
        if (verdict < 0) return verdict;
        if (verdict > 0) continue;
        queue.countDone(task.ctx, disk, DISK_OP_WRITE, nr * PAGE_SIZE);
        return 0;
      }
      return queue.giveUp(disk, asleep.request);
    },
    // Not by a lane: the task may be killed while the disk works, and the request has to outlive it (REQ-1).
    readSleeping: (task, first, nr) => queue.transfer(task, disk, first * PAGE_SIZE, nr * PAGE_SIZE, undefined),
    close,
  };
}
