/**
 * The serial driver: /dev/ttyS1, bytes in and out, with a ring of 256 bytes in each direction.
 *
 *   write ─▶ tx ring ─▶ FIFO ─▶ line          interrupt, all sent: more from the ring; writers that wait go on
 *   read  ◀─ rx ring ◀─ FIFO ◀─ line          interrupt, received: into the ring; what does not fit is lost and counted
 *
 * The transmit interrupt is enabled only while the ring has bytes, else it would never end. A timer looks whether
 * sending goes on and does the interrupt's work if it was lost.
 *
 * struct uart, in RAM; the rings and their counts are written under the lock, which the interrupt takes too:
 *
 * | offset | field              |  | offset | field                              |
 * |--------|--------------------|--|--------|------------------------------------|
 * | 0      | timer 32           |  | 64     | counters: irqs, lost irqs, rx, tx, overruns |
 * | 32     | read queue 8       |  | 96     | rx ring 256                        |
 * | 40     | write queue 8      |  | 352    | tx ring 256                        |
 * | 48     | lock, state        |  |        | rings count bytes in and out       |
 * | 56     | nr open            |  | 608    | rx in, rx out, tx in, tx out, seen |
 *
 * Source: Linux drivers/tty/serial/8250/8250_port.c (the interrupt's order of work, the backup timer).
 */

import type { OpenFile } from "../kernel/file.ts";
import { IRQ_HANDLED, IRQ_NONE, type IrqAction } from "../kernel/irq.ts";
import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import type { Task } from "../kernel/task.ts";
import { type Context, NULL, type PhysAddr, physAdd, type Sleeping } from "../kernel/types.ts";
import { EINVAL, ENODEV, ENOMEM } from "../kernel/uapi/errno.ts";
import { GFP_KERNEL } from "../mm/index.ts";
import { type DeviceLog, type Driver, type DriverType, deviceLog, type Platform } from "./driver.ts";
import { ALL_ONES, type Hardware } from "./hardware.ts";
import {
  LSR_OVERRUN,
  LSR_READY,
  LSR_ROOM,
  UART_DATA,
  UART_IER,
  UART_IIR,
  UART_LSR,
  UART_RX,
  UART_TX,
} from "./uart_device.ts";

const TIMER = 0;
const READ_QUEUE = 32;
const WRITE_QUEUE = 40;
const LOCK = 48;
const STATE = 52;
const NR_OPEN = 56;
const COUNTERS = 64;
const COUNTER_NAMES = ["irqs", "irqs_lost", "rx_bytes", "tx_bytes", "overruns"] as const;
const RX_RING = 96;
const TX_RING = 352;
const RX_IN = 608;
const RX_OUT = 612;
const TX_IN = 616;
const TX_OUT = 620;
const TX_SEEN = 624;
const UART_BYTES = 632;
const RING_BYTES = 256;

const GONE = 1;
const REMOVING = 2;
/** How often the timer looks while bytes wait to be sent. */
const WATCH_CYCLES = CYCLES_PER_SECOND / 20;

interface Uart {
  readonly struct: PhysAddr;
  readonly device: Hardware;
  readonly log: DeviceLog;
  readonly action: IrqAction;
}

function createUart(platform: Platform): Driver {
  const { machine, printk, irqs, waits, slab, registry, spinlocks, timers } = platform;
  const { port } = machine;
  const { clock } = machine.harts;
  const bound = new Map<Hardware, Uart>();

  const get = (uart: Uart, offset: number): number => port.ld32(uart.struct + offset);
  const set = (uart: Uart, offset: number, value: number): void => port.st32(uart.struct + offset, value >>> 0);
  const count = (uart: Uart, name: (typeof COUNTER_NAMES)[number], n = 1): void => {
    const offset = COUNTERS + COUNTER_NAMES.indexOf(name) * 4;
    set(uart, offset, get(uart, offset) + n);
  };
  const nrWaiting = (uart: Uart, inAt: number, outAt: number): number => (get(uart, inAt) - get(uart, outAt)) >>> 0;
  const push = (uart: Uart, ring: number, inAt: number, byte: number): void => {
    port.st8(uart.struct + ring + (get(uart, inAt) % RING_BYTES), byte);
    set(uart, inAt, get(uart, inAt) + 1);
  };
  const shift = (uart: Uart, ring: number, outAt: number): number => {
    const byte = port.ld8(uart.struct + ring + (get(uart, outAt) % RING_BYTES));
    set(uart, outAt, get(uart, outAt) + 1);
    return byte;
  };

  const markGone = (uart: Uart): void => {
    if ((get(uart, STATE) & GONE) !== 0) return;
    set(uart, STATE, get(uart, STATE) | GONE);
    uart.log.err("device is gone: its registers read as all ones");
    waits.wakeUp(physAdd(uart.struct, READ_QUEUE));
    waits.wakeUp(physAdd(uart.struct, WRITE_QUEUE));
  };

  const setInterrupts = (uart: Uart): void => {
    const receives = get(uart, NR_OPEN) > 0 ? UART_RX : 0;
    uart.device.registers.st32(UART_IER, receives | (nrWaiting(uart, TX_IN, TX_OUT) > 0 ? UART_TX : 0));
  };

  /** The lock is held, interrupts are off: empties the receive FIFO, fills the transmit FIFO. False: it is gone. */
  const serveLocked = (uart: Uart): boolean => {
    const { registers } = uart.device;
    for (;;) {
      const status = registers.ld32(UART_LSR);
      if (status === ALL_ONES) return false;
      if ((status & LSR_OVERRUN) !== 0) count(uart, "overruns");
      const isReady = (status & LSR_READY) !== 0;
      if (isReady) {
        const byte = registers.ld32(UART_DATA);
        count(uart, "rx_bytes");
        if (nrWaiting(uart, RX_IN, RX_OUT) < RING_BYTES) push(uart, RX_RING, RX_IN, byte);
        else count(uart, "overruns");
      }
      const sends = (status & LSR_ROOM) !== 0 && nrWaiting(uart, TX_IN, TX_OUT) > 0;
      if (sends) {
        registers.st32(UART_DATA, shift(uart, TX_RING, TX_OUT));
        count(uart, "tx_bytes");
      }
      if (!isReady && !sends) break;
    }
    setInterrupts(uart);
    return true;
  };

  const wakeAll = (uart: Uart): void => {
    if (nrWaiting(uart, RX_IN, RX_OUT) > 0) waits.wakeUp(physAdd(uart.struct, READ_QUEUE));
    if (nrWaiting(uart, TX_IN, TX_OUT) < RING_BYTES) waits.wakeUp(physAdd(uart.struct, WRITE_QUEUE));
  };

  /** The interrupt's work, from wherever it is done. */
  const serve = (ctx: Context, uart: Uart): void => {
    const lock = physAdd(uart.struct, LOCK);
    const flags = spinlocks.spinLockIrqsave(ctx, lock);
    const isThere = serveLocked(uart);
    spinlocks.spinUnlockIrqrestore(ctx, lock, flags);
    if (isThere) wakeAll(uart);
    else markGone(uart);
  };

  const watch = (ctx: Context, uart: Uart): void => {
    const timer = physAdd(uart.struct, TIMER);
    if ((get(uart, STATE) & (GONE | REMOVING)) !== 0 || timers.isPending(timer)) return;
    set(uart, TX_SEEN, get(uart, TX_OUT));
    timers.modTimer(ctx, timer, (clock[ctx.cpu] as number) + WATCH_CYCLES);
  };
  const timerFn = timers.registerTimerFn((ctx, timer) => {
    const uart = [...bound.values()].find(({ struct }) => struct + TIMER === timer);
    if (uart === undefined || (get(uart, STATE) & (GONE | REMOVING)) !== 0) return;
    const isStill = get(uart, TX_OUT) === get(uart, TX_SEEN);
    if (isStill && nrWaiting(uart, TX_IN, TX_OUT) > 0) count(uart, "irqs_lost");
    serve(ctx, uart);
    if (nrWaiting(uart, TX_IN, TX_OUT) > 0 || !isStill) watch(ctx, uart);
  });

  const handler = (ctx: Context, uart: Uart): number => {
    const causes = uart.device.registers.ld32(UART_IIR);
    if (causes === ALL_ONES) markGone(uart);
    if (causes === ALL_ONES || causes === 0) return IRQ_NONE;
    count(uart, "irqs");
    serve(ctx, uart);
    return IRQ_HANDLED;
  };

  // ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────

  function* read(uart: Uart, task: Task, max: number): Sleeping<Uint8Array | number> {
    while (nrWaiting(uart, RX_IN, RX_OUT) === 0) {
      if (get(uart, STATE) !== 0) return -ENODEV;
      yield* waits.waitOn(physAdd(uart.struct, READ_QUEUE), task);
    }
    const lock = physAdd(uart.struct, LOCK);
    const flags = spinlocks.spinLockIrqsave(task.ctx, lock);
    const bytes = new Uint8Array(Math.min(max, nrWaiting(uart, RX_IN, RX_OUT)));
    for (let i = 0; i < bytes.length; i++) bytes[i] = shift(uart, RX_RING, RX_OUT);
    spinlocks.spinUnlockIrqrestore(task.ctx, lock, flags);
    return bytes;
  }

  function* write(uart: Uart, task: Task, bytes: Uint8Array): Sleeping<number> {
    const lock = physAdd(uart.struct, LOCK);
    for (let done = 0; done < bytes.length; ) {
      while (nrWaiting(uart, TX_IN, TX_OUT) === RING_BYTES && get(uart, STATE) === 0) {
        yield* waits.waitOn(physAdd(uart.struct, WRITE_QUEUE), task);
      }
      if (get(uart, STATE) !== 0) return done > 0 ? done : -ENODEV;
      const flags = spinlocks.spinLockIrqsave(task.ctx, lock);
      while (done < bytes.length && nrWaiting(uart, TX_IN, TX_OUT) < RING_BYTES) {
        push(uart, TX_RING, TX_IN, bytes[done++] as number);
      }
      const isThere = serveLocked(uart);
      spinlocks.spinUnlockIrqrestore(task.ctx, lock, flags);
      if (!isThere) markGone(uart);
      watch(task.ctx, uart);
    }
    return bytes.length;
  }

  const open = (uart: Uart): OpenFile | number => {
    if (get(uart, STATE) !== 0) return -ENODEV;
    set(uart, NR_OPEN, get(uart, NR_OPEN) + 1);
    setInterrupts(uart);
    return {
      refs: 1,
      isConsole: false,
      read: (task, max) => read(uart, task, max),
      write: (task, bytes) => write(uart, task, bytes),
      seek: () => -EINVAL,
      release() {
        set(uart, NR_OPEN, get(uart, NR_OPEN) - 1);
        setInterrupts(uart);
      },
    };
  };

  return {
    *probe(task, device) {
      if (device.registers.ld32(UART_LSR) === ALL_ONES) return -ENODEV;
      let struct = slab.kmalloc.kzalloc(task.ctx, UART_BYTES, GFP_KERNEL);
      if (typeof struct === "object") struct = yield* struct;
      if (struct === NULL) return -ENOMEM;
      const log = deviceLog(printk, "uart", device.name);
      const action: IrqAction = { name: device.name, isShared: true, handler: (ctx) => handler(ctx, uart) };
      const uart: Uart = { struct, device, log, action };
      waits.init(physAdd(struct, READ_QUEUE));
      waits.init(physAdd(struct, WRITE_QUEUE));
      timers.init(physAdd(struct, TIMER), timerFn);
      const error = irqs.requestIrq(device.line, action);
      if (error !== 0) {
        log.err(`irq ${device.line} not available: ${error}`);
        slab.kmalloc.kfree(task.ctx, struct);
        return error;
      }
      bound.set(device, uart);
      registry.registerDevice(device.name, () => open(uart));
      log.info(`irq ${device.line} is a 16550A`);
      return 0;
    },
    *remove(task, device) {
      const uart = bound.get(device);
      if (uart === undefined) return;
      set(uart, STATE, get(uart, STATE) | REMOVING);
      waits.wakeUp(physAdd(uart.struct, READ_QUEUE));
      waits.wakeUp(physAdd(uart.struct, WRITE_QUEUE));
      yield* registry.revokeDevice(task, device.name);
      device.registers.st32(UART_IER, 0);
      irqs.freeIrq(device.line, uart.action);
      timers.delTimerSync(task.ctx, physAdd(uart.struct, TIMER));
      bound.delete(device);
      slab.kmalloc.kfree(task.ctx, uart.struct);
      uart.log.info("unregistered");
    },
    stats(device) {
      const uart = bound.get(device);
      return uart === undefined ? [] : COUNTER_NAMES.map((name, i) => [name, get(uart, COUNTERS + i * 4)] as const);
    },
  };
}

export const UART_DRIVER: DriverType = {
  name: "uart",
  description: "serial port with FIFOs",
  params: {},
  create: (platform) => createUart(platform),
};
