/**
 * The clock driver: /dev/rtc0. A read sleeps until the next period and says how many have ended since the last read.
 *
 * The example to write a driver from: one allocation, one interrupt, one node.
 *
 *   open    switches the periods on; one program at a time (−EBUSY)        release   switches them off
 *   read    4 bytes, little-endian: number of periods << 8 | 0xc0          interrupt counts and wakes
 *
 * State, in RAM (struct rtc, 40 bytes); written by the interrupt handler (I) or by process context (P):
 *
 * | offset | field   | meaning                                                          |
 * |--------|---------|------------------------------------------------------------------|
 * | 0      | queue   | where the reader sleeps                                          |
 * | 8      | pending | I, P: periods not yet read                                       |
 * | 12     | count   | I: RTC_COUNT at the last interrupt                               |
 * | 16     | irqs    | I: interrupts that were ours                                     |
 * | 20     | lost    | I: periods whose interrupt never came, found by RTC_COUNT        |
 * | 24     | reads   | P                                                                |
 * | 28     | isOpen  | P                                                                |
 * | 32     | isGone  | P: remove has begun; I: the device reads as all ones             |
 *
 * `pending` is taken with interrupts off. Real kernels: drivers/char/rtc.c (until 5.x), drivers/rtc/dev.c.
 */

import type { OpenFile } from "../kernel/file.ts";
import { IRQ_HANDLED, IRQ_NONE, type IrqAction } from "../kernel/irq.ts";
import type { Task } from "../kernel/task.ts";
import { asPhys, NULL, type PhysAddr, type Sleeping } from "../kernel/types.ts";
import { EBUSY, EINVAL, ENODEV, ENOMEM } from "../kernel/uapi/errno.ts";
import { GFP_KERNEL } from "../mm/index.ts";
import { type Driver, type DriverType, deviceLog, numberParam, type Platform } from "./driver.ts";
import { ALL_ONES, type Hardware } from "./hardware.ts";
import {
  RTC_COUNT,
  RTC_COUNT_MASK,
  RTC_CTRL,
  RTC_ENABLE,
  RTC_MAX_RATE,
  RTC_PERIODIC,
  RTC_RATE,
  RTC_STATUS,
} from "./rtc_device.ts";

const QUEUE = 0;
const PENDING = 8;
const COUNT = 12;
const IRQS = 16;
const LOST = 20;
const READS = 24;
const IS_OPEN = 28;
const IS_GONE = 32;
const RTC_BYTES = 40;

/** RTC_IRQF | RTC_PF, as programs of a PC see them. */
const READ_FLAGS = 0xc0;

/** One bound device. */
interface Rtc {
  readonly struct: PhysAddr;
  readonly device: Hardware;
  readonly action: IrqAction;
}

function createRtc(platform: Platform, rate: number): Driver {
  const { printk, contexts, irqs, waits, slab, registry } = platform;
  const { port } = platform.machine;
  const bound = new Map<Hardware, Rtc>();

  const add = (addr: number, n: number): void => port.st32(addr, port.ld32(addr) + n);
  const queueOf = ({ struct }: Rtc): PhysAddr => asPhys(struct + QUEUE);

  const handler = ({ struct, device }: Rtc): number => {
    const status = device.registers.ld32(RTC_STATUS);
    if (status === ALL_ONES || (status & RTC_PERIODIC) === 0) return IRQ_NONE;
    const count = device.registers.ld32(RTC_COUNT);
    const nrEnded = (count - port.ld32(struct + COUNT)) & RTC_COUNT_MASK;
    port.st32(struct + COUNT, count);
    add(struct + PENDING, nrEnded);
    add(struct + LOST, Math.max(0, nrEnded - 1));
    add(struct + IRQS, 1);
    waits.wakeUp(asPhys(struct + QUEUE));
    return IRQ_HANDLED;
  };

  function* read(rtc: Rtc, task: Task, max: number): Sleeping<Uint8Array | number> {
    if (max < 4) return -EINVAL;
    const { struct } = rtc;
    while (port.ld32(struct + PENDING) === 0) {
      if (port.ld32(struct + IS_GONE) !== 0) return -ENODEV;
      yield* waits.waitOn(queueOf(rtc), task);
    }
    const flags = contexts.localIrqSave(task.ctx);
    const nrPeriods = Math.min(port.ld32(struct + PENDING), RTC_COUNT_MASK);
    port.st32(struct + PENDING, 0);
    contexts.localIrqRestore(task.ctx, flags);
    add(struct + READS, 1);
    return Uint8Array.of(READ_FLAGS, nrPeriods & 0xff, (nrPeriods >>> 8) & 0xff, (nrPeriods >>> 16) & 0xff);
  }

  const open = (rtc: Rtc): OpenFile | number => {
    const { struct, device } = rtc;
    if (port.ld32(struct + IS_OPEN) !== 0) return -EBUSY;
    port.st32(struct + IS_OPEN, 1);
    port.st32(struct + PENDING, 0);
    port.st32(struct + COUNT, 0);
    device.registers.st32(RTC_RATE, rate);
    device.registers.st32(RTC_CTRL, RTC_ENABLE);
    return {
      refs: 1,
      isConsole: false,
      read: (task, max) => read(rtc, task, max),
      *write() {
        return -EINVAL;
      },
      seek: () => -EINVAL,
      release() {
        device.registers.st32(RTC_CTRL, 0);
        port.st32(struct + IS_OPEN, 0);
      },
    };
  };

  return {
    *probe(task, device) {
      const log = deviceLog(printk, "rtc", device.name);
      if (device.registers.ld32(RTC_STATUS) === ALL_ONES) return -ENODEV;
      let struct = slab.kmalloc.kzalloc(task.ctx, RTC_BYTES, GFP_KERNEL);
      if (typeof struct === "object") struct = yield* struct;
      if (struct === NULL) return -ENOMEM;
      const rtc: Rtc = { struct, device, action: { name: device.name, handler: () => handler(rtc) } };
      waits.init(queueOf(rtc));
      const error = irqs.requestIrq(device.line, rtc.action);
      if (error !== 0) {
        log.err(`irq ${device.line} not available: ${error}`);
        slab.kmalloc.kfree(task.ctx, struct);
        return error;
      }
      bound.set(device, rtc);
      registry.registerDevice(device.name, () => open(rtc));
      log.info(`registered as ${device.name}, ${rate} Hz`);
      return 0;
    },
    *remove(task, device) {
      const rtc = bound.get(device);
      if (rtc === undefined) return;
      port.st32(rtc.struct + IS_GONE, 1);
      waits.wakeUp(queueOf(rtc));
      yield* registry.revokeDevice(task, device.name);
      device.registers.st32(RTC_CTRL, 0);
      irqs.freeIrq(device.line, rtc.action);
      bound.delete(device);
      slab.kmalloc.kfree(task.ctx, rtc.struct);
      deviceLog(printk, "rtc", device.name).info("unregistered");
    },
    stats(device) {
      const rtc = bound.get(device);
      if (rtc === undefined) return [];
      const field = (offset: number): number => port.ld32(rtc.struct + offset);
      return [
        ["irqs", field(IRQS)],
        ["reads", field(READS)],
        ["lost", field(LOST)],
      ];
    },
  };
}

export const RTC_DRIVER: DriverType = {
  name: "rtc",
  description: "real-time clock with periodic interrupt",
  params: { rate: `periods per second while open, 1-${RTC_MAX_RATE}, default 64` },
  create(platform, params) {
    const rate = numberParam(platform, "rtc", params, "rate", { min: 1, max: RTC_MAX_RATE, fallback: 64 });
    return rate === undefined ? -EINVAL : createRtc(platform, rate);
  },
};
