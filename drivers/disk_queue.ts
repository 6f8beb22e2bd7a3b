/**
 * The disk driver's queue: tags, mapping, starting, ending, and what to do when nothing comes back.
 *
 *   request ─▶ tag ─▶ map ─▶ segment table, slot, doorbell ─▶ disk ─▶ DONE ─▶ unmap (copies back) ─▶ tag free, wake
 *
 * A request belongs to the disk until it is ended (REQ-1): a task that is killed meanwhile leaves it behind, and the
 * interrupt drops it. Unmapping happens at the end, in the interrupt: only then is the memory the CPU's again.
 *
 * When nothing comes back in time: DONE says so → the interrupt was lost, serve it now. Else the disk is reset, all
 * tags are ended as aborted, and their tasks try again. MAX_TRIES in all, then −EIO.
 *
 * struct disk, 192 bytes: 0 wait queue · 8 busy tags · 12 is gone · 16 counters · 64 granule of each tag's request.
 *
 *   DSKD-1  a tag is busy ⇔ its word names a request ⇔ that request is mapped
 *   DSKD-2  every request that was made is dropped exactly once, by its task or, abandoned, by its end
 *
 * Context: the interrupt handler and tasks share tags and busy word, with interrupts off. Real kernels: block/blk-mq.c
 * (tags, timeouts), drivers/ata/libata-eh.c.
 */

import type { Task } from "../kernel/task.ts";
import {
  asPhys,
  type Context,
  type DmaAddr,
  fromGranule,
  NULL,
  type PhysAddr,
  type Sleeping,
  toGranule,
} from "../kernel/types.ts";
import { EBUSY, EIO, ENODEV, ENOMEM } from "../kernel/uapi/errno.ts";
import {
  DMA_FROM_DEVICE,
  DMA_TO_DEVICE,
  type DmaDevice,
  type DmaMemory,
  type DmaPool,
  GFP_ATOMIC,
  type Mempool,
} from "../mm/index.ts";
import {
  DISK_CONTROL_IRQ,
  DISK_CONTROL_ON,
  DISK_CONTROL_RESET,
  DISK_ID,
  DISK_OP_READ,
  DISK_OP_WRITE,
  DISK_REG_CONTROL,
  DISK_REG_DONE,
  DISK_REG_DOORBELL,
  DISK_REG_ID,
  DISK_REG_TABLE,
  DISK_SLOT_BYTES,
  DISK_STATUS_BUS_ERROR,
  DISK_STATUS_NONE,
  DISK_STATUS_OK,
  NR_DISK_TAGS,
  SECTOR_BYTES,
  SEGMENT_BYTES,
  SLOT_LBA,
  SLOT_NR_SEGMENTS,
  SLOT_OPCODE,
  SLOT_SEGMENTS,
  SLOT_STATUS,
} from "./disk_device.ts";
import {
  type DiskRequests,
  RQ_ABANDONED,
  RQ_BYTES,
  RQ_COMPLETION,
  RQ_LBA,
  RQ_NR_PAGES,
  RQ_OPCODE,
  RQ_OWN,
  RQ_STATUS,
  RQ_TABLE,
  RQ_TABLE_DMA,
} from "./disk_request.ts";
import type { DeviceLog, Platform, StatRows } from "./driver.ts";
import { ALL_ONES, type Hardware } from "./hardware.ts";

// ── struct disk ────────────────────────────────────────────────────────────────────────────────────────────────────

const QUEUE = 0;
const BUSY = 8;
const IS_GONE = 12;
const COUNTERS = 16;
const TAGS = 64;
export const DISK_BYTES = TAGS + NR_DISK_TAGS * 4;

const COUNTER_NAMES = [
  "reads",
  "writes",
  "sectors",
  "segments",
  "retries",
  "timeouts",
  "lost_irqs",
  "spurious",
  "errors",
  "bus_errors",
  "congested",
] as const;
type CounterName = (typeof COUNTER_NAMES)[number];

/** Status of a request that a reset has ended. */
const REQUEST_ABORTED = 100;
export const TIMEOUT_CYCLES = 500_000_000;
const CONGESTION_CYCLES = 1_000_000;
export const MAX_TRIES = 4;

/** One bound disk: addresses and handles, fixed at probe. */
export interface Disk {
  readonly device: Hardware;
  readonly struct: PhysAddr;
  readonly dev: DmaDevice;
  readonly slots: DmaMemory;
  readonly tables: DmaPool;
  readonly pool: Mempool;
  readonly requests: DiskRequests;
  readonly log: DeviceLog;
}

export interface DiskQueue {
  /** Makes the zeroed DISK_BYTES at `struct` a queue without requests. */
  init(struct: PhysAddr): void;
  /** Switches the device on, after forgetting what it was told before if `isReset`. */
  start(disk: Pick<Disk, "device" | "slots">, isReset: boolean): void;
  /** Ends what the device says is done; the number of tags. Interrupts off, or in the handler. */
  serve(ctx: Context, disk: Disk): number;
  /** The device is gone, or the driver goes: ends everything, and lets nothing in any more. */
  shutDown(ctx: Context, disk: Disk): void;
  isGone(disk: Disk): boolean;
  /**
   * One transfer of `bytes` (whole sectors) at byte `position`: the bytes read, or 0 for a write of `source`; −errno
   * (−ENOMEM, −EIO, −ENODEV). Process context.
   */
  transfer(
    task: Task,
    disk: Disk,
    position: number,
    bytes: number,
    source: Uint8Array | undefined,
  ): Sleeping<Uint8Array | number>;
  /**
   * For requests in memory of their own (RQ_OWN), with a segment table at `table` that is written already: 0, −EBUSY
   * without a tag, −ENODEV. The request's completion is new.
   */
  issueOwn(ctx: Context, disk: Disk, request: PhysAddr, nrSegments: number, table: DmaAddr): number;
  /** Nothing came back in time: finds out why, and ends what has to end. Interrupts off. */
  recover(ctx: Context, disk: Disk): void;
  /** What to do about the status of an ended request: 0 fine, −errno for good, 1 try again. */
  judge(disk: Disk, request: PhysAddr): number;
  /** It was tried MAX_TRIES times: −EIO, and a line in the log. */
  giveUp(disk: Disk, request: PhysAddr): number;
  countDone(ctx: Context, disk: Disk, opcode: number, bytes: number): void;
  countRetry(disk: Disk): void;
  /** Wait queue that is woken whenever a tag becomes free. */
  tagQueue(disk: Disk): PhysAddr;
  stats(disk: Disk): StatRows;
  /** DSKD-1: the first violation, or null. */
  check(disk: Disk): string | null;
}

const directionOf = (opcode: number): typeof DMA_TO_DEVICE | typeof DMA_FROM_DEVICE =>
  opcode === DISK_OP_WRITE ? DMA_TO_DEVICE : DMA_FROM_DEVICE;

export function createDiskQueue(platform: Platform): DiskQueue {
  const { machine, contexts, waits, completions, dma } = platform;
  const { port, harts } = machine;

  const word = (disk: Pick<Disk, "struct">, offset: number): number => port.ld32(disk.struct + offset);
  const setWord = (disk: Pick<Disk, "struct">, offset: number, value: number): void =>
    port.st32(disk.struct + offset, value);
  const count = (disk: Pick<Disk, "struct">, name: CounterName, n = 1): void => {
    const offset = COUNTERS + COUNTER_NAMES.indexOf(name) * 4;
    setWord(disk, offset, word(disk, offset) + n);
  };
  const queueOf = (disk: Disk): PhysAddr => asPhys(disk.struct + QUEUE);
  const completionOf = (request: PhysAddr): PhysAddr => asPhys(request + RQ_COMPLETION);
  const now = (ctx: Context): number => harts.clock[ctx.cpu] as number;
  const isGone = (disk: Disk): boolean => word(disk, IS_GONE) !== 0;

  // ── Tags ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A free tag, now busy with `request`; −1 if all are busy. */
  const takeTag = (ctx: Context, disk: Disk, request: PhysAddr): number => {
    const flags = contexts.localIrqSave(ctx);
    const free = ~word(disk, BUSY);
    const tag = free === 0 ? -1 : 31 - Math.clz32(free & -free);
    if (tag >= 0) {
      setWord(disk, BUSY, (word(disk, BUSY) | (1 << tag)) >>> 0);
      setWord(disk, TAGS + tag * 4, toGranule(request));
      // The disk may report the tag's last command once more before this one is rung: the slot must not say OK then.
      port.st32(disk.slots.cpu + tag * DISK_SLOT_BYTES + SLOT_STATUS, DISK_STATUS_NONE);
    }
    contexts.localIrqRestore(ctx, flags);
    return tag;
  };
  const putTag = (ctx: Context, disk: Disk, tag: number): void => {
    const flags = contexts.localIrqSave(ctx);
    setWord(disk, BUSY, (word(disk, BUSY) & ~(1 << tag)) >>> 0);
    setWord(disk, TAGS + tag * 4, 0);
    contexts.localIrqRestore(ctx, flags);
    waits.wakeUp(queueOf(disk));
  };

  // ── Ending ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Takes a request back from the device: its memory is the CPU's, its tag free. Interrupts off, or in the handler. */
  const unmap = (ctx: Context, disk: Disk, request: PhysAddr): void => {
    const { field, setField, sgl } = disk.requests;
    const direction = directionOf(field(request, RQ_OPCODE));
    dma.unmapSg(ctx, disk.dev, sgl(request), field(request, RQ_NR_PAGES), direction);
    const table = fromGranule(field(request, RQ_TABLE));
    dma.poolFree(ctx, disk.tables, table, field(request, RQ_TABLE_DMA) as DmaMemory["dma"]);
    setField(request, RQ_TABLE, 0);
  };

  const endTag = (ctx: Context, disk: Disk, tag: number, status: number): void => {
    const request = fromGranule(word(disk, TAGS + tag * 4));
    if (request === NULL) {
      count(disk, "spurious");
      return;
    }
    if (disk.requests.field(request, RQ_OWN) === 0) unmap(ctx, disk, request);
    putTag(ctx, disk, tag);
    disk.requests.setField(request, RQ_STATUS, status);
    if (disk.requests.field(request, RQ_ABANDONED) !== 0) disk.requests.drop(ctx, request);
    else completions.complete(ctx, completionOf(request));
  };

  const endAll = (ctx: Context, disk: Disk): void => {
    for (let tag = 0; tag < NR_DISK_TAGS; tag++) {
      if ((word(disk, BUSY) & (1 << tag)) !== 0) endTag(ctx, disk, tag, REQUEST_ABORTED);
    }
  };

  /** Ends what the disk says is done: number of tags. The disk may turn out to be gone. */
  const serve = (ctx: Context, disk: Disk): number => {
    const done = disk.device.registers.ld32(DISK_REG_DONE);
    if (done === ALL_ONES && disk.device.registers.ld32(DISK_REG_ID) !== DISK_ID) {
      setWord(disk, IS_GONE, 1);
      endAll(ctx, disk);
      return 0;
    }
    disk.device.registers.st32(DISK_REG_DONE, done);
    let nr = 0;
    for (let tag = 0; tag < NR_DISK_TAGS; tag++) {
      if ((done & (1 << tag)) === 0) continue;
      const status = port.ld32(disk.slots.cpu + tag * DISK_SLOT_BYTES + SLOT_STATUS);
      nr++;
      // Reported a second time after the tag has gone to another request: that one is not done.
      if (status === DISK_STATUS_NONE) count(disk, "spurious");
      else endTag(ctx, disk, tag, status);
    }
    return nr;
  };

  /** Nothing came back in time. Interrupts off. */
  const recover = (ctx: Context, disk: Disk): void => {
    const nrServed = serve(ctx, disk);
    if (nrServed > 0) {
      count(disk, "lost_irqs", nrServed);
      disk.log.warn(`lost interrupt, ${nrServed} command${nrServed === 1 ? "" : "s"} found done`);
      return;
    }
    if (isGone(disk)) return;
    count(disk, "timeouts");
    disk.log.err("command timed out, resetting the device");
    start(disk, true);
    endAll(ctx, disk);
  };

  const start = ({ device, slots }: Pick<Disk, "device" | "slots">, isReset: boolean): void => {
    if (isReset) device.registers.st32(DISK_REG_CONTROL, DISK_CONTROL_RESET);
    device.registers.st32(DISK_REG_TABLE, slots.dma);
    device.registers.st32(DISK_REG_CONTROL, DISK_CONTROL_ON | DISK_CONTROL_IRQ);
  };

  // ── Issuing ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Writes the segment table of a mapped request. */
  const writeTable = (disk: Disk, request: PhysAddr, nrSegments: number, table: DmaMemory): void => {
    const { sgl } = disk.requests;
    for (let i = 0; i < nrSegments; i++) {
      port.st32(table.cpu + i * SEGMENT_BYTES, dma.sgDmaAddress(sgl(request), i));
      port.st32(table.cpu + i * SEGMENT_BYTES + 4, dma.sgDmaLength(sgl(request), i));
    }
  };

  /** Writes the slot of a request and rings the doorbell. */
  const ring = (disk: Disk, request: PhysAddr, tag: number, nrSegments: number, table: DmaAddr): void => {
    const { field } = disk.requests;
    const slot = disk.slots.cpu + tag * DISK_SLOT_BYTES;
    port.st32(slot + SLOT_OPCODE, field(request, RQ_OPCODE));
    port.st32(slot + SLOT_LBA, field(request, RQ_LBA));
    port.st32(slot + SLOT_NR_SEGMENTS, nrSegments);
    port.st32(slot + SLOT_SEGMENTS, table);
    port.st32(slot + SLOT_STATUS, DISK_STATUS_NONE);
    disk.device.registers.st32(DISK_REG_DOORBELL, tag);
  };

  /** Maps and starts a request: 0, or −EBUSY when tag, bounce space or table memory is wanting. */
  const issue = (ctx: Context, disk: Disk, request: PhysAddr): number => {
    const { field, setField, sgl } = disk.requests;
    const tag = takeTag(ctx, disk, request);
    if (tag < 0) return -EBUSY;
    const nrPages = field(request, RQ_NR_PAGES);
    const direction = directionOf(field(request, RQ_OPCODE));
    const table = dma.poolAlloc(ctx, disk.tables, GFP_ATOMIC);
    const nrSegments = table === null ? 0 : dma.mapSg(ctx, disk.dev, sgl(request), nrPages, direction);
    if (table === null || nrSegments === 0) {
      if (table !== null) dma.poolFree(ctx, disk.tables, table.cpu, table.dma);
      putTag(ctx, disk, tag);
      return -EBUSY;
    }
    setField(request, RQ_TABLE, toGranule(table.cpu));
    setField(request, RQ_TABLE_DMA, table.dma);
    completions.init(completionOf(request));
    count(disk, "segments", nrSegments);
    writeTable(disk, request, nrSegments, table);
    ring(disk, request, tag, nrSegments, table.dma);
    return 0;
  };

  const issueOwn: DiskQueue["issueOwn"] = (ctx, disk, request, nrSegments, table) => {
    if (isGone(disk)) return -ENODEV;
    const tag = takeTag(ctx, disk, request);
    if (tag < 0) return -EBUSY;
    completions.init(completionOf(request));
    count(disk, "segments", nrSegments);
    ring(disk, request, tag, nrSegments, table);
    return 0;
  };

  /** Issues a request as soon as there is room for it: 0, −EIO if there will be none, −ENODEV. */
  function* issueWhenPossible(task: Task, disk: Disk, request: PhysAddr): Sleeping<number> {
    for (let nrIdle = 0; nrIdle < MAX_TRIES; ) {
      if (isGone(disk)) return -ENODEV;
      if (issue(task.ctx, disk, request) === 0) return 0;
      count(disk, "congested");
      // While others are at the disk, one of them will end and make room; alone, memory has to come from elsewhere.
      if (word(disk, BUSY) === 0) nrIdle++;
      yield* waits.waitOnTimeout(queueOf(disk), task, now(task.ctx) + CONGESTION_CYCLES);
    }
    return -EIO;
  }

  /** Waits for the end of an issued request. */
  function* waitForEnd(task: Task, disk: Disk, request: PhysAddr): Sleeping<void> {
    let isEnded = false;
    // A fatal signal unwinds the task, not the device: it still owns the memory.
    try {
      while (!isEnded) {
        isEnded = yield* completions.waitTimeout(task, completionOf(request), TIMEOUT_CYCLES);
        if (isEnded) continue;
        const flags = contexts.localIrqSave(task.ctx);
        recover(task.ctx, disk);
        contexts.localIrqRestore(task.ctx, flags);
      }
    } finally {
      // Ended but not yet noticed is ended: its table is gone.
      if (!isEnded && disk.requests.field(request, RQ_TABLE) !== 0) disk.requests.setField(request, RQ_ABANDONED, 1);
    }
  }

  /** What to do about a status: 0 fine, −errno for good, 1 try again. */
  const judge = (disk: Disk, request: PhysAddr): number => {
    if (isGone(disk)) return -ENODEV;
    const status = disk.requests.field(request, RQ_STATUS);
    if (status === DISK_STATUS_OK) return 0;
    count(disk, status === DISK_STATUS_BUS_ERROR ? "bus_errors" : "errors");
    return 1;
  };

  /** Carries a request through, again where that may help: 0 or −errno. */
  function* perform(task: Task, disk: Disk, request: PhysAddr): Sleeping<number> {
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      if (tries > 0) count(disk, "retries");
      const error = yield* issueWhenPossible(task, disk, request);
      if (error !== 0) return error;
      yield* waitForEnd(task, disk, request);
      const verdict = judge(disk, request);
      if (verdict <= 0) return verdict;
    }
    return giveUp(disk, request);
  }

  const giveUp = (disk: Disk, request: PhysAddr): number => {
    const sector = disk.requests.field(request, RQ_LBA);
    disk.log.err(`I/O error, sector ${sector}, ${disk.requests.field(request, RQ_BYTES) / SECTOR_BYTES} sectors`);
    return -EIO;
  };

  const countDone: DiskQueue["countDone"] = (ctx, disk, opcode, bytes) => {
    platform.countIo(ctx, opcode === DISK_OP_WRITE, bytes);
    count(disk, opcode === DISK_OP_READ ? "reads" : "writes");
    count(disk, "sectors", bytes / SECTOR_BYTES);
  };

  /** Has the task dropped the request itself, or does the device still have it? */
  const isAbandoned = (disk: Disk, request: PhysAddr): boolean => disk.requests.field(request, RQ_ABANDONED) !== 0;

  /** One transfer of whole sectors: bytes read, or 0 for a write; −errno. `source` is what a write carries. */
  function* transfer(
    task: Task,
    disk: Disk,
    position: number,
    bytes: number,
    source: Uint8Array | undefined,
  ): Sleeping<Uint8Array | number> {
    const opcode = source === undefined ? DISK_OP_READ : DISK_OP_WRITE;
    const request = yield* disk.requests.make(task, opcode, position / SECTOR_BYTES, bytes);
    if (request === NULL) return -ENOMEM;
    try {
      if (source !== undefined) disk.requests.write(request, 0, source);
      const error = yield* perform(task, disk, request);
      if (error !== 0) return error;
      countDone(task.ctx, disk, opcode, bytes);
      return source === undefined ? disk.requests.read(request, 0, bytes) : 0;
    } finally {
      if (!isAbandoned(disk, request)) disk.requests.drop(task.ctx, request);
    }
  }

  return {
    init: (struct) => waits.init(asPhys(struct + QUEUE)),
    start,
    serve,
    shutDown(ctx, disk) {
      setWord(disk, IS_GONE, 1);
      disk.device.registers.st32(DISK_REG_CONTROL, DISK_CONTROL_RESET);
      const flags = contexts.localIrqSave(ctx);
      endAll(ctx, disk);
      contexts.localIrqRestore(ctx, flags);
      waits.wakeUp(queueOf(disk));
    },
    isGone,
    transfer,
    issueOwn,
    recover,
    judge,
    giveUp,
    countDone,
    countRetry: (disk) => count(disk, "retries"),
    tagQueue: queueOf,
    stats: (disk) => COUNTER_NAMES.map((name, i) => [name, word(disk, COUNTERS + i * 4)] as const),
    check(disk) {
      for (let tag = 0; tag < NR_DISK_TAGS; tag++) {
        const isBusy = (word(disk, BUSY) & (1 << tag)) !== 0;
        if (isBusy !== (word(disk, TAGS + tag * 4) !== 0)) return `DSKD-1: tag ${tag} of ${disk.device.name}`;
      }
      return null;
    },
  };
}

if (COUNTERS + COUNTER_NAMES.length * 4 > TAGS) throw new Error("disk: the counters overlap the tags");
