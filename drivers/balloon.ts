/**
 * The balloon driver: gives the host the memory that it asks for, and takes it back.
 *
 *   host changes its target ──irq──▶ handler queues the work ─▶ work: inflate or deflate, 256 pages at a time
 *                                                                     │ frame numbers in coherent memory
 *   host asks ──irq──▶ handler queues the other work ─▶ statistics in coherent memory ─▶ STATS register
 *   a request that may sleep would fail ─▶ giveBack: 256 pages        ▼
 *   compaction wants a balloon page away ─▶ move: another frame   INFLATE, DEFLATE registers
 *
 * Inflating is polite: it takes no reserve and gives up at once (NORETRY | NOMEMALLOC | NOWARN), then tries again after
 * 200 ms, 400 ms, … eight times, unless the host changes its mind meanwhile. The host is told before a page is used
 * again.
 *
 * `echo N > /sys/devices/balloon0/host_target` plays the host, `host_poll` makes it ask, `guest_stats` is what it
 * knows. struct balloon, in RAM: 0 work · 24 its retry, delayed · then u32s: is gone, is inflating, tries in a row,
 * target, pages and errors of the host, and counters · the work for statistics.
 *
 *   BLN-1  after each batch ACTUAL is what the host holds, and what the list of balloon pages has
 *   BLN-2  a page is freed only after the host was told
 *   BLN-3  without the driver, or once the device is gone, no page is kept
 *   BLN-4  what the host knows about memory was so when it was told, to the byte
 *
 * Source: drivers/virtio/virtio_balloon.c (VIRTIO_BALLOON_F_MUST_TELL_HOST, _F_DEFLATE_ON_OOM, _F_STATS_VQ).
 */

import { IRQ_HANDLED, IRQ_NONE, type IrqAction } from "../kernel/irq.ts";
import { CYCLES_PER_SECOND, PAGE_SIZE } from "../kernel/params.ts";
import type { Task } from "../kernel/task.ts";
import {
  alignUp,
  asPfn,
  asPhys,
  type Context,
  NO_PFN,
  NULL,
  type Pfn,
  type PhysAddr,
  PREEMPTED,
  physAdd,
  type Sleeping,
  type TaskContext,
} from "../kernel/types.ts";
import { EBUSY, EINVAL, ENODEV, ENOMEM } from "../kernel/uapi/errno.ts";
import { DELAYED_WORK_BYTES, WORK_BYTES } from "../kernel/workqueue.ts";
import { type DmaDevice, type DmaMemory, GFP_BALLOON, GFP_KERNEL } from "../mm/index.ts";
import {
  BALLOON_ACTUAL,
  BALLOON_ASKED,
  BALLOON_CHANGED,
  BALLOON_CONTROL,
  BALLOON_DEFLATE,
  BALLOON_DEFLATE_PFN,
  BALLOON_ERRORS,
  BALLOON_F_REPORTING,
  BALLOON_FEATURES,
  BALLOON_HELD,
  BALLOON_HOST_HIGH,
  BALLOON_HOST_POLL,
  BALLOON_HOST_RSS,
  BALLOON_HOST_SELECT,
  BALLOON_HOST_TARGET,
  BALLOON_ID,
  BALLOON_INFLATE,
  BALLOON_INFLATE_PFN,
  BALLOON_MAGIC,
  BALLOON_QUEUE,
  BALLOON_REPORT_QUEUE,
  BALLOON_STATS,
  BALLOON_STATS_QUEUE,
  BALLOON_STATUS,
  BALLOON_TARGET,
} from "./balloon_device.ts";
import { createFreeReporting, type FreeReporting, REPORT_BYTES } from "./balloon_reporting.ts";
import { GUEST_STATS, STATS_BYTES, writeStats } from "./balloon_stats.ts";
import { type DeviceLog, type Driver, type DriverType, deviceLog, type Platform } from "./driver.ts";
import { ALL_ONES, type Hardware } from "./hardware.ts";

const WORK = 0;
const RETRY = 24;
const IS_GONE = RETRY + DELAYED_WORK_BYTES;
const IS_INFLATING = IS_GONE + 4;
const TRIES = IS_GONE + 8;
const TARGET = IS_GONE + 12;
/** What the host said last: pages that it has, mistakes that it saw. */
const HELD = IS_GONE + 16;
const ERRORS = IS_GONE + 20;
const COUNTERS = IS_GONE + 24;
const COUNTER_NAMES = ["inflated", "deflated", "given_back", "moved", "refused", "reports", "reported"] as const;
if (WORK_BYTES > RETRY) throw new Error("balloon: a work does not fit");
const REPORT = alignUp(COUNTERS + COUNTER_NAMES.length * 4, 8);
/** The delayed work of free page reporting. */
const REPORTING = alignUp(REPORT + WORK_BYTES, 8);
const STRUCT_BYTES = REPORTING + DELAYED_WORK_BYTES;

const BATCH = 256;
const QUEUE_BYTES = BATCH * 4;
/** Behind the frame numbers are the statistics, and free blocks. */
const BLOCKS_AT = alignUp(QUEUE_BYTES + STATS_BYTES, 4);
const MEMORY_BYTES = BLOCKS_AT + REPORT_BYTES;
const RETRY_CYCLES = CYCLES_PER_SECOND / 5;
const MAX_TRIES = 8;
const KIB_PER_PAGE = PAGE_SIZE / 1024;

/** What plays the host, below /sys/devices/balloon0. */
const HOST_FILES = ["host_target", "host_poll", "host_rss", "guest_stats"] as const;
type HostFile = (typeof HOST_FILES)[number];

interface Balloon {
  readonly device: Hardware;
  readonly struct: PhysAddr;
  readonly dev: DmaDevice;
  readonly queue: DmaMemory;
  readonly action: IrqAction;
  readonly log: DeviceLog;
  /** Null: the host does not want it, or free memory has to keep its content. */
  readonly reporting: FreeReporting | null;
}

function createBalloonDriver(platform: Platform): Driver {
  const { machine, printk, irqs, slab, dma, pageAlloc, workqueues, registry, balloonPages, pageReporting } = platform;
  const { port } = machine;
  let bound: Balloon | undefined;

  const word = ({ struct }: Pick<Balloon, "struct">, offset: number): number => port.ld32(struct + offset);
  const setWord = ({ struct }: Pick<Balloon, "struct">, offset: number, value: number): void =>
    port.st32(struct + offset, value);
  const count = (balloon: Pick<Balloon, "struct">, name: (typeof COUNTER_NAMES)[number], n = 1): void => {
    const offset = COUNTERS + COUNTER_NAMES.indexOf(name) * 4;
    setWord(balloon, offset, word(balloon, offset) + n);
  };
  const workOf = ({ struct }: Pick<Balloon, "struct">): PhysAddr => asPhys(struct + WORK);
  const reportOf = ({ struct }: Pick<Balloon, "struct">): PhysAddr => asPhys(struct + REPORT);
  const retryOf = ({ struct }: Pick<Balloon, "struct">): PhysAddr => asPhys(struct + RETRY);
  const hostFile = ({ device }: Pick<Balloon, "device">, name: HostFile): string =>
    `/sys/devices/${device.name}/${name}`;

  // ── Inflating and deflating ──────────────────────────────────────────────────────────────────────────────────────

  /** Takes up to `wanted` pages and gives them to the host: how many. */
  function* inflate(balloon: Balloon, ctx: TaskContext, wanted: number): Sleeping<number> {
    const { queue, device } = balloon;
    let nr = 0;
    setWord(balloon, IS_INFLATING, 1);
    for (; nr < Math.min(wanted, BATCH); nr++) {
      let pfn = pageAlloc.allocPages(ctx, 0, GFP_BALLOON);
      if (typeof pfn === "object") pfn = yield* pfn;
      if (pfn === NO_PFN) break;
      balloonPages.enqueue(ctx, pfn);
      port.st32(queue.cpu + nr * 4, pfn);
    }
    setWord(balloon, IS_INFLATING, 0);
    if (nr > 0) device.registers.st32(BALLOON_INFLATE, nr);
    count(balloon, "inflated", nr);
    return nr;
  }

  /** BLN-2: takes up to `wanted` pages back. */
  const deflate = (balloon: Balloon, ctx: Context, wanted: number): void => {
    const { queue, device } = balloon;
    let nr = 0;
    for (; nr < Math.min(wanted, BATCH); nr++) {
      const pfn = balloonPages.dequeue(ctx);
      if (pfn === NO_PFN) break;
      port.st32(queue.cpu + nr * 4, pfn);
    }
    if (nr > 0) device.registers.st32(BALLOON_DEFLATE, nr);
    for (let i = 0; i < nr; i++) pageAlloc.freePages(ctx, asPfn(port.ld32(queue.cpu + i * 4)), 0);
    count(balloon, "deflated", nr);
  };

  /** BLN-1. Copies for who wants to look: a look at a register would cost time. */
  const tellActual = (balloon: Balloon, ctx: Context): void => {
    const { registers } = balloon.device;
    registers.st32(BALLOON_ACTUAL, balloonPages.nrPages());
    const errors = registers.ld32(BALLOON_ERRORS);
    if (errors === ALL_ONES) {
      // The host has gone, which the work finds out in its own time.
      if (word(balloon, IS_GONE) === 0) workqueues.queueWork(ctx, workOf(balloon));
      return;
    }
    setWord(balloon, HELD, registers.ld32(BALLOON_HELD));
    setWord(balloon, ERRORS, errors);
  };

  /** The work: one batch after the other until the host has what it wants. */
  function* resize({ ctx }: Task): Sleeping<void> {
    const balloon = bound;
    while (balloon !== undefined && word(balloon, IS_GONE) === 0) {
      const target = balloon.device.registers.ld32(BALLOON_TARGET);
      if (target === ALL_ONES) return lose(balloon, ctx);
      setWord(balloon, TARGET, target);
      const missing = target - balloonPages.nrPages();
      if (missing === 0) return;
      const got = missing > 0 ? yield* inflate(balloon, ctx, missing) : 0;
      if (missing < 0) deflate(balloon, ctx, -missing);
      tellActual(balloon, ctx);
      if (missing > 0 && got < Math.min(missing, BATCH)) return retry(balloon, ctx);
      yield PREEMPTED;
    }
  }

  /** A work of its own, so that a change of mind need not wait for it. */
  function* again({ ctx }: Task): Sleeping<void> {
    if (bound !== undefined) workqueues.queueWork(ctx, workOf(bound));
  }

  const retry = (balloon: Balloon, ctx: Context): void => {
    const tries = word(balloon, TRIES);
    count(balloon, "refused");
    if (tries === 0) balloon.log.info("Out of puff! Can't get 1 pages");
    if (tries >= MAX_TRIES) return;
    setWord(balloon, TRIES, tries + 1);
    workqueues.queueDelayedWork(ctx, retryOf(balloon), RETRY_CYCLES * 2 ** tries);
  };

  /** BLN-3: the device is gone, and with it whoever had the pages. */
  const lose = (balloon: Balloon, ctx: Context): void => {
    setWord(balloon, IS_GONE, 1);
    balloon.log.err("the host is gone, its pages are ours again");
    while (balloonPages.nrPages() > 0) deflate(balloon, ctx, BATCH);
  };

  // ── What others ask for ──────────────────────────────────────────────────────────────────────────────────────────

  const handler = (ctx: Context, balloon: Balloon): number => {
    const status = balloon.device.registers.ld32(BALLOON_STATUS);
    if (status === ALL_ONES || (status & (BALLOON_CHANGED | BALLOON_ASKED)) === 0) return IRQ_NONE;
    if ((status & BALLOON_CHANGED) !== 0) {
      setWord(balloon, TRIES, 0);
      workqueues.queueWork(ctx, workOf(balloon));
    }
    if ((status & BALLOON_ASKED) !== 0) workqueues.queueWork(ctx, reportOf(balloon));
    return IRQ_HANDLED;
  };

  /** BLN-4: the work for statistics. Counting takes locks and time: not in the handler. */
  function* report(): Sleeping<void> {
    if (bound === undefined || word(bound, IS_GONE) !== 0) return;
    writeStats(port, physAdd(bound.queue.cpu, QUEUE_BYTES), platform.guestMemory());
    count(bound, "reports");
    bound.device.registers.st32(BALLOON_STATS, STATS_BYTES);
  }

  const move = (balloon: Balloon, from: Pfn, to: Pfn): boolean => {
    if (word(balloon, IS_GONE) !== 0 || word(balloon, IS_INFLATING) !== 0) return false;
    balloon.device.registers.st32(BALLOON_INFLATE_PFN, to);
    balloon.device.registers.st32(BALLOON_DEFLATE_PFN, from);
    count(balloon, "moved");
    return true;
  };

  /** One frame at a time by register: the array may be in use under this call. */
  const giveBack = (balloon: Balloon, ctx: Context): number => {
    if (word(balloon, IS_INFLATING) !== 0) return 0;
    let nr = 0;
    for (; nr < BATCH; nr++) {
      const pfn = balloonPages.dequeue(ctx);
      if (pfn === NO_PFN) break;
      balloon.device.registers.st32(BALLOON_DEFLATE_PFN, pfn);
      pageAlloc.freePages(ctx, pfn, 0);
    }
    if (nr > 0) tellActual(balloon, ctx);
    count(balloon, "given_back", nr);
    return nr;
  };

  /** The host's knobs, and its book: QEMU's guest-stats, in its words. */
  const registerHostFiles = (balloon: Balloon): void => {
    const { registers } = balloon.device;
    const knob = (name: HostFile, register: number, read: () => number): void =>
      registry.registerText(hostFile(balloon, name), {
        read: () => `${read()}\n`,
        *write(_task, text) {
          if (!/^\d{1,10}\s*$/.test(text) || Number(text) > ALL_ONES) return -EINVAL;
          registers.st32(register, Number(text));
          return 0;
        },
      });
    knob("host_target", BALLOON_HOST_TARGET, () => word(balloon, TARGET));
    registry.registerText(hostFile(balloon, "host_rss"), {
      read: () => `${registers.ld32(BALLOON_HOST_RSS) * KIB_PER_PAGE} kB\n`,
    });
    knob("host_poll", BALLOON_HOST_POLL, () => registers.ld32(BALLOON_HOST_POLL));
    registry.registerText(hostFile(balloon, "guest_stats"), {
      read: () =>
        GUEST_STATS.map(([tag, name]) => {
          registers.st32(BALLOON_HOST_SELECT, tag);
          const value = registers.ld32(BALLOON_HOST_HIGH) * 2 ** 32 + registers.ld32(BALLOON_HOST_SELECT);
          return `stat-${name.padEnd(17)} ${value}\n`;
        }).join(""),
    });
  };

  // ── Probe and remove ─────────────────────────────────────────────────────────────────────────────────────────────

  const reportingOf = (device: Hardware, struct: PhysAddr, queue: DmaMemory): FreeReporting | null => {
    if ((device.registers.ld32(BALLOON_FEATURES) & BALLOON_F_REPORTING) === 0) return null;
    if (pageReporting === null) {
      deviceLog(printk, "balloon", device.name).info("free memory keeps its content (init_on_free): not reported");
      return null;
    }
    return createFreeReporting(platform, {
      ...{ device, pageReporting, work: asPhys(struct + REPORTING), array: physAdd(queue.cpu, BLOCKS_AT) },
      count: (nrFrames) => count({ struct }, "reported", nrFrames),
    });
  };

  function* bring(task: Task, device: Hardware, undo: (() => void)[]): Sleeping<Balloon | number> {
    const { ctx } = task;
    if (device.registers.ld32(BALLOON_ID) !== BALLOON_MAGIC) return -ENODEV;
    let struct = slab.kmalloc.kzalloc(ctx, STRUCT_BYTES, GFP_KERNEL);
    if (typeof struct === "object") struct = yield* struct;
    if (struct === NULL) return -ENOMEM;
    const memory = struct;
    undo.push(() => slab.kmalloc.kfree(ctx, memory));
    workqueues.initWork(asPhys(struct + WORK), workqueues.registerWorkFn(resize));
    workqueues.initWork(asPhys(struct + REPORT), workqueues.registerWorkFn(report));
    workqueues.initDelayedWork(asPhys(struct + RETRY), workqueues.registerWorkFn(again));
    const dev = dma.createDevice(ctx, { name: device.name, driver: "balloon", master: device.master });
    if (dev === 0) return -ENOMEM;
    undo.push(() => dma.releaseDevice(ctx, dev));
    const queue = yield* dma.allocCoherent(ctx, dev, MEMORY_BYTES, GFP_KERNEL);
    if (queue === null) return -ENOMEM;
    undo.push(() => dma.freeCoherent(ctx, dev, MEMORY_BYTES, queue.cpu, queue.dma));
    const action: IrqAction = { name: device.name, handler: (irq) => handler(irq, balloon) };
    const log = deviceLog(printk, "balloon", device.name);
    const reporting = reportingOf(device, memory, queue);
    const balloon: Balloon = { device, struct, dev, queue, action, log, reporting };
    const error = irqs.requestIrq(device.line, action);
    if (error !== 0) return error;
    undo.push(() => irqs.freeIrq(device.line, action));
    const owner = {
      move: (_ctx: Context, from: Pfn, to: Pfn) => move(balloon, from, to),
      giveBack: (c: Context) => giveBack(balloon, c),
    };
    return balloonPages.setOwner(owner) ? balloon : -EBUSY;
  }

  return {
    *probe(task, device) {
      const undo: (() => void)[] = [];
      const balloon = yield* bring(task, device, undo);
      if (typeof balloon === "number") {
        deviceLog(printk, "balloon", device.name).err(`probe failed: ${balloon}`);
        for (const step of undo.reverse()) step();
        return balloon;
      }
      bound = balloon;
      registerHostFiles(balloon);
      device.registers.st32(BALLOON_QUEUE, balloon.queue.dma);
      device.registers.st32(BALLOON_STATS_QUEUE, balloon.queue.dma + QUEUE_BYTES);
      device.registers.st32(BALLOON_REPORT_QUEUE, balloon.queue.dma + BLOCKS_AT);
      device.registers.st32(BALLOON_CONTROL, 1);
      balloon.reporting?.start(task.ctx);
      return 0;
    },
    *remove(task, device) {
      const balloon = bound;
      if (balloon === undefined || balloon.device !== device) return;
      const { ctx } = task;
      setWord(balloon, IS_GONE, 1);
      for (const name of HOST_FILES) registry.unregisterText(hostFile(balloon, name));
      irqs.freeIrq(device.line, balloon.action);
      if (balloon.reporting !== null) yield* balloon.reporting.stop(task);
      yield* workqueues.cancelWorkSync(task, retryOf(balloon));
      yield* workqueues.cancelWorkSync(task, workOf(balloon));
      yield* workqueues.cancelWorkSync(task, reportOf(balloon));
      while (balloonPages.nrPages() > 0) deflate(balloon, ctx, BATCH);
      tellActual(balloon, ctx);
      device.registers.st32(BALLOON_CONTROL, 0);
      balloonPages.setOwner(null);
      dma.freeCoherent(ctx, balloon.dev, MEMORY_BYTES, balloon.queue.cpu, balloon.queue.dma);
      dma.releaseDevice(ctx, balloon.dev);
      bound = undefined;
      slab.kmalloc.kfree(ctx, balloon.struct);
    },
    stats(device) {
      const balloon = bound;
      if (balloon === undefined || balloon.device !== device) return [];
      const counters = COUNTER_NAMES.map((name, i) => [name, word(balloon, COUNTERS + i * 4)] as const);
      const host = [["held", word(balloon, HELD)] as const, ["errors", word(balloon, ERRORS)] as const];
      return [...counters, ...host, ["pages", balloonPages.nrPages()]];
    },
    check() {
      const balloon = bound;
      if (balloon === undefined || word(balloon, IS_GONE) !== 0) return null;
      return word(balloon, ERRORS) === 0 ? null : `BLN-1: the host saw ${word(balloon, ERRORS)} mistakes`;
    },
  };
}

export const BALLOON_DRIVER: DriverType = {
  name: "balloon",
  description: "memory that the host may use meanwhile",
  params: {},
  create: createBalloonDriver,
};
