/**
 * The disk driver: /dev/sda, blocks by scatter-gather from memory that the disk may not reach.
 *
 *   read, write ─▶ request of ≤ 128 KiB ─▶ tag ─▶ map ─▶ segment table, slot, doorbell ─▶ sleep
 *                                                  │ above 16 MiB: bounce buffers            │
 *                  interrupt: unmap (copies back), tag free, wake  ◀─── DONE ◀─── disk ──────┘
 *
 * Pages come from anywhere (GFP_NOIO: to write pages out, one must not need to write pages out). The disk has 24
 * address lines, so most mappings bounce, and the bounce pool is small: when mapping fails while others are at the
 * disk, a request waits for one of them to end. Records come from a mempool, so that the last request can be made.
 *
 * How requests reach the disk and come back, and what happens when they do not: disk_queue.ts.
 *
 * State: struct disk in RAM; on the host the addresses that probe got.
 * Context: process context; the interrupt handler is the queue's serve().
 */

import { type OpenFile, seekFrom } from "../kernel/file.ts";
import { IRQ_HANDLED, IRQ_NONE, type IrqAction } from "../kernel/irq.ts";
import type { Task } from "../kernel/task.ts";
import { NULL, type Sleeping } from "../kernel/types.ts";
import { ENODEV, ENOMEM, ENOSPC } from "../kernel/uapi/errno.ts";
import { GFP_KERNEL, NO_MEMPOOL } from "../mm/index.ts";
import {
  DISK_BOUNDARY_BYTES,
  DISK_ID,
  DISK_MASK_BITS,
  DISK_MAX_SEGMENT_BYTES,
  DISK_REG_CAPACITY,
  DISK_REG_ID,
  DISK_SLOT_BYTES,
  MAX_DISK_SEGMENTS,
  NR_DISK_TAGS,
  SECTOR_BYTES,
  SEGMENT_BYTES,
} from "./disk_device.ts";
import { type DiskPages, openDiskPages } from "./disk_pages.ts";
import { createDiskQueue, DISK_BYTES, type Disk } from "./disk_queue.ts";
import { createDiskRequests, MAX_REQUEST_BYTES, REQUEST_BYTES } from "./disk_request.ts";
import { type Driver, type DriverType, deviceLog, type Platform } from "./driver.ts";
import type { Hardware } from "./hardware.ts";

const NR_RESERVED_REQUESTS = 4;
/** A full list of segments; one never crosses a page. */
const TABLE_BYTES = MAX_DISK_SEGMENTS * SEGMENT_BYTES;
const COMMAND_TABLE_BYTES = NR_DISK_TAGS * DISK_SLOT_BYTES;

interface BoundDisk extends Disk {
  readonly action: IrqAction;
  /** Name below /dev. */
  readonly node: string;
}

function createDiskDriver(platform: Platform): Driver {
  const { printk, irqs, slab, mempools, dma, registry } = platform;
  const queue = createDiskQueue(platform);
  const bound = new Map<Hardware, BoundDisk>();

  // ── The file ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const capacity = (disk: Disk): number => disk.device.registers.ld32(DISK_REG_CAPACITY) * SECTOR_BYTES;

  /** The sectors around `[position, position + bytes)`, at most one request. */
  const around = (position: number, bytes: number): { start: number; length: number } => {
    const start = position - (position % SECTOR_BYTES);
    const end = Math.min(Math.ceil((position + bytes) / SECTOR_BYTES) * SECTOR_BYTES, start + MAX_REQUEST_BYTES);
    return { start, length: end - start };
  };

  function* readAt(task: Task, disk: Disk, position: number, max: number): Sleeping<Uint8Array | number> {
    if (queue.isGone(disk)) return -ENODEV;
    const bytes = Math.min(max, capacity(disk) - position);
    if (bytes <= 0) return new Uint8Array(0);
    const { start, length } = around(position, bytes);
    const got = yield* queue.transfer(task, disk, start, length, undefined);
    return typeof got === "number" ? got : got.subarray(position - start, Math.min(position - start + bytes, length));
  }

  function* writeAt(task: Task, disk: Disk, position: number, source: Uint8Array): Sleeping<number> {
    if (queue.isGone(disk)) return -ENODEV;
    if (position >= capacity(disk)) return -ENOSPC;
    const { start, length } = around(position, Math.min(source.length, capacity(disk) - position));
    const offset = position - start;
    const part = source.subarray(0, Math.min(source.length, length - offset));
    if (part.length === length) {
      const error = yield* queue.transfer(task, disk, start, length, part);
      return typeof error === "number" && error < 0 ? error : length;
    }
    // Parts of sectors: the rest of them has to be read first.
    const old = yield* queue.transfer(task, disk, start, length, undefined);
    if (typeof old === "number") return old;
    old.set(part, offset);
    const error = yield* queue.transfer(task, disk, start, length, old);
    return typeof error === "number" && error < 0 ? error : part.length;
  }

  const open = (disk: Disk): OpenFile | number => {
    if (queue.isGone(disk)) return -ENODEV;
    let position = 0;
    let pages: DiskPages | undefined;
    return {
      refs: 1,
      isConsole: false,
      *openPages(task) {
        const opened = yield* openDiskPages(platform, queue, disk, task);
        if (typeof opened === "number") return opened;
        pages = opened;
        return opened;
      },
      *read(task, max) {
        const got = yield* readAt(task, disk, position, max);
        if (typeof got !== "number") position += got.length;
        return got;
      },
      *write(task, source) {
        let done = 0;
        while (done < source.length) {
          const n = yield* writeAt(task, disk, position, source.subarray(done));
          if (n < 0) return done > 0 ? done : n;
          position += n;
          done += n;
        }
        return done;
      },
      seek(offset, whence) {
        const to = seekFrom(position, capacity(disk), offset, whence);
        if (to >= 0) position = to;
        return to;
      },
      release() {
        pages?.close();
      },
    };
  };

  // ── Probe and remove ─────────────────────────────────────────────────────────────────────────────────────────────

  /** Takes everything that a disk needs, in order; whatever was taken is given back by `undo` when a step fails. */
  function* bring(task: Task, device: Hardware, undo: (() => void)[]): Sleeping<BoundDisk | number> {
    const { ctx } = task;
    const log = deviceLog(printk, "disk", device.name);
    if (device.registers.ld32(DISK_REG_ID) !== DISK_ID) return -ENODEV;
    let struct = slab.kmalloc.kzalloc(ctx, DISK_BYTES, GFP_KERNEL);
    if (typeof struct === "object") struct = yield* struct;
    if (struct === NULL) return -ENOMEM;
    const memory = struct;
    undo.push(() => slab.kmalloc.kfree(ctx, memory));
    queue.init(struct);
    const dev = dma.createDevice(ctx, {
      name: device.name,
      driver: "disk",
      master: device.master,
      maskBits: DISK_MASK_BITS,
      maxSegmentBytes: DISK_MAX_SEGMENT_BYTES,
      boundaryBytes: DISK_BOUNDARY_BYTES,
    });
    if (dev === 0) return -ENOMEM;
    undo.push(() => dma.releaseDevice(ctx, dev));
    const slots = yield* dma.allocCoherent(ctx, dev, COMMAND_TABLE_BYTES, GFP_KERNEL);
    if (slots === null) return -ENOMEM;
    undo.push(() => dma.freeCoherent(ctx, dev, COMMAND_TABLE_BYTES, slots.cpu, slots.dma));
    const tables = dma.poolCreate(ctx, `${device.name}_segments`, dev, TABLE_BYTES, 16, 4096);
    if (tables === 0) return -ENOMEM;
    undo.push(() => dma.poolDestroy(ctx, tables));
    const pool = yield* mempools.create(ctx, { minNr: NR_RESERVED_REQUESTS, bytes: REQUEST_BYTES });
    if (pool === NO_MEMPOOL) return -ENOMEM;
    undo.push(() => mempools.destroy(ctx, pool));
    const requests = createDiskRequests(platform, pool);
    const action: IrqAction = {
      name: device.name,
      handler: (irq) => (queue.serve(irq, disk) > 0 ? IRQ_HANDLED : IRQ_NONE),
    };
    const disk: BoundDisk = { device, struct, dev, slots, tables, pool, requests, log, action, node: nodeName() };
    const error = irqs.requestIrq(device.line, action);
    if (error !== 0) return error;
    undo.push(() => irqs.freeIrq(device.line, action));
    return disk;
  }

  /** sda, sdb, …: the first that is free. */
  const nodeName = (): string => {
    const taken = [...bound.values()].map(({ node }) => node);
    for (let letter = 0; ; letter++) {
      const name = `sd${String.fromCharCode(97 + letter)}`;
      if (!taken.includes(name)) return name;
    }
  };

  return {
    *probe(task, device) {
      const undo: (() => void)[] = [];
      const disk = yield* bring(task, device, undo);
      if (typeof disk === "number") {
        deviceLog(printk, "disk", device.name).err(`probe failed: ${disk}`);
        for (const step of undo.reverse()) step();
        return disk;
      }
      bound.set(device, disk);
      queue.start(disk, true);
      registry.registerDevice(disk.node, () => open(disk));
      disk.log.info(`${disk.node}: ${capacity(disk) / 2 ** 20} MiB, ${NR_DISK_TAGS} tags, ${DISK_MASK_BITS}-bit DMA`);
      return 0;
    },
    *remove(task, device) {
      const disk = bound.get(device);
      if (disk === undefined) return;
      const { ctx } = task;
      queue.shutDown(ctx, disk);
      yield* registry.revokeDevice(task, disk.node);
      irqs.freeIrq(device.line, disk.action);
      mempools.destroy(ctx, disk.pool);
      dma.poolDestroy(ctx, disk.tables);
      dma.freeCoherent(ctx, disk.dev, COMMAND_TABLE_BYTES, disk.slots.cpu, disk.slots.dma);
      dma.releaseDevice(ctx, disk.dev);
      bound.delete(device);
      slab.kmalloc.kfree(ctx, disk.struct);
      disk.log.info(`${disk.node} removed`);
    },
    stats(device) {
      const disk = bound.get(device);
      return disk === undefined ? [] : queue.stats(disk);
    },
    check() {
      for (const disk of bound.values()) {
        const problem = queue.check(disk);
        if (problem !== null) return problem;
      }
      return null;
    },
  };
}

export const DISK_DRIVER: DriverType = {
  name: "disk",
  description: "disk with tagged commands, scatter-gather and 24-bit DMA",
  params: {},
  create: (platform) => createDiskDriver(platform),
};
