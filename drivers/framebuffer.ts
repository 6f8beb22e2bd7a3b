/**
 * Driver of the display controller: the memory of the screen as /dev/fb0, and its control as /dev/fb0ctl.
 *
 *      picture 0 │ lines 0 … H−1      ◀── shown        one coherent block: 1024 × 768 × 4 × 2 = 6 MiB
 *      picture 1 │ lines H … 2H−1     ◀── drawn now
 *
 * The controller reads one run of bus addresses, so the block is contiguous whatever its size. Above 4 MiB the page
 * allocator has no such block, and it need not have one below; with an area (`cma=16M`) the block comes from there, and
 * processes that live in it are moved (mm/cma.ts). Without either, probe fails with −ENOMEM.
 *
 * A program draws the picture that is not shown, pans to it, and is told when a whole frame of it has been on the
 * screen; so nobody sees a half drawn picture. Scan-out runs while one of the nodes is open.
 *
 *   FB-1  scan-out is on exactly while a node is open and the device is there
 *   FB-2  pan returns 0 only after a frame that began after the call was shown from the new place
 *   FB-3  read and write touch the block only; a write at its end says −ENOSPC
 *
 * struct fb_info, kmalloc, 56 bytes. P: process context, I: interrupt.
 *
 * | offset | field   | who: meaning                                    | offset | field  |                          |
 * |--------|---------|-------------------------------------------------|--------|--------|--------------------------|
 * | 0      | queue   | who waits for the end of a frame                | 32     | lost   | I: frames without vsync  |
 * | 8      | block   | P: physical address of the block                | 36     | flips  | P: pans that took effect |
 * | 12     | bus     | P: its bus address                              | 40     | opens  | P: open files            |
 * | 16     | dev     | P: struct device                                | 44     | gone   | P: remove has begun      |
 * | 20     | line    | P: line that is to be shown                     | 48     | errors | I: frames the bus refused |
 * | 24     | frames  | I: FB_FRAMES at the last interrupt              | 52     | late   | P: pans that gave up     |
 * | 28     | vsyncs  | I: interrupts that were ours                    |        |        |                          |
 *
 * Real kernels: drivers/video/fbdev/core/fb_io_fops.c, fbmem.c; include/uapi/linux/fb.h.
 */

import { CYC_PER_LINE } from "../kernel/arch/charges.ts";
import { type OpenFile, seekFrom } from "../kernel/file.ts";
import { IRQ_HANDLED, IRQ_NONE, type IrqAction } from "../kernel/irq.ts";
import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import type { Task } from "../kernel/task.ts";
import { asDma, asPhys, NULL, type PhysAddr, type Sleeping } from "../kernel/types.ts";
import { EINVAL, EIO, ENODEV, ENOMEM, ENOSPC } from "../kernel/uapi/errno.ts";
import { FB_BYTES_PER_PIXEL } from "../kernel/uapi/framebuffer.ts";
import { decodeUtf8, encodeUtf8 } from "../kernel/uapi/utf8.ts";
import { type DmaDevice, GFP_KERNEL, NO_DEVICE } from "../mm/index.ts";
import { type Driver, type DriverType, deviceLog, numberParam, type Platform } from "./driver.ts";
import {
  FB_BASE,
  FB_BUS_ERROR,
  FB_CHECKSUM,
  FB_CTRL,
  FB_ENABLE,
  FB_FRAMES,
  FB_FRAMES_MASK,
  FB_HEIGHT,
  FB_MAX_RATE,
  FB_MAX_SIDE,
  FB_RATE,
  FB_SHOWN,
  FB_STATUS,
  FB_VSYNC,
  FB_WIDTH,
} from "./framebuffer_device.ts";
import { ALL_ONES, type Hardware } from "./hardware.ts";

const QUEUE = 0;
const BLOCK = 8;
const BUS = 12;
const DEV = 16;
const LINE = 20;
const FRAMES = 24;
const VSYNCS = 28;
const LOST = 32;
const FLIPS = 36;
const OPENS = 40;
const GONE = 44;
const ERRORS = 48;
const LATE = 52;
const FB_INFO_BYTES = 56;

const NR_PICTURES = 2;
const ADDRESS_LINES = 32;
/** Periods after which a pan gives up. */
const PAN_PERIODS = 8;

interface Mode {
  readonly width: number;
  readonly height: number;
  readonly rate: number;
}

/** One bound device. */
interface Framebuffer {
  readonly info: PhysAddr;
  readonly device: Hardware;
  readonly action: IrqAction;
}

function createFramebuffer(platform: Platform, mode: Mode): Driver {
  const { printk, irqs, waits, slab, dma, registry, machine } = platform;
  const { port, harts } = machine;
  const bound = new Map<Hardware, Framebuffer>();
  const stride = mode.width * FB_BYTES_PER_PIXEL;
  const nrLines = mode.height * NR_PICTURES;
  const blockBytes = stride * nrLines;

  const field = (fb: Framebuffer, offset: number): number => port.ld32(fb.info + offset);
  const setField = (fb: Framebuffer, offset: number, value: number): void => port.st32(fb.info + offset, value);
  const add = (fb: Framebuffer, offset: number, n: number): void => setField(fb, offset, field(fb, offset) + n);
  const queueOf = ({ info }: Framebuffer): PhysAddr => asPhys(info + QUEUE);
  const ctlName = (device: Hardware): string => `${device.name}ctl`;

  // ── Interrupt ────────────────────────────────────────────────────────────────────────────────────────────────────

  const handler = (fb: Framebuffer): number => {
    const { registers } = fb.device;
    const status = registers.ld32(FB_STATUS);
    if (status === ALL_ONES || (status & FB_VSYNC) === 0) return IRQ_NONE;
    const frames = registers.ld32(FB_FRAMES);
    const nrEnded = (frames - field(fb, FRAMES)) & FB_FRAMES_MASK;
    setField(fb, FRAMES, frames);
    add(fb, LOST, Math.max(0, nrEnded - 1));
    add(fb, VSYNCS, 1);
    if ((status & FB_BUS_ERROR) !== 0) add(fb, ERRORS, 1);
    waits.wakeUp(queueOf(fb));
    return IRQ_HANDLED;
  };

  // ── Scan-out ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const setBase = (fb: Framebuffer): void => {
    fb.device.registers.st32(FB_BASE, field(fb, BUS) + field(fb, LINE) * stride);
  };

  const switchOn = (fb: Framebuffer): void => {
    const { registers } = fb.device;
    setField(fb, FRAMES, 0);
    registers.st32(FB_WIDTH, mode.width);
    registers.st32(FB_HEIGHT, mode.height);
    registers.st32(FB_RATE, mode.rate);
    setBase(fb);
    registers.st32(FB_CTRL, FB_ENABLE);
  };

  /** FB-2 */
  function* pan(fb: Framebuffer, task: Task, line: number): Sleeping<number> {
    const { registers } = fb.device;
    if (line < 0 || line > nrLines - mode.height) return -EINVAL;
    setField(fb, LINE, line);
    setBase(fb);
    const base = field(fb, BUS) + line * stride;
    // The frame that is under way took its base before this call.
    const first = (registers.ld32(FB_FRAMES) + 2) & FB_FRAMES_MASK;
    const isShown = (): boolean =>
      ((registers.ld32(FB_FRAMES) - first) & FB_FRAMES_MASK) <= FB_FRAMES_MASK >>> 1 &&
      registers.ld32(FB_SHOWN) === base;
    const deadline = (harts.clock[task.ctx.cpu] as number) + (PAN_PERIODS * CYCLES_PER_SECOND) / mode.rate;
    const isOver = (): boolean => field(fb, GONE) !== 0 || !fb.device.isPresent() || isShown();
    const isInTime = yield* waits.waitEventTimeout(queueOf(fb), task, isOver, deadline);
    if (field(fb, GONE) !== 0 || !fb.device.isPresent()) return -ENODEV;
    add(fb, isInTime ? FLIPS : LATE, 1);
    return isInTime ? 0 : -EIO;
  }

  // ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────

  const charge = (task: Task, bytes: number): void => {
    const cpu = task.ctx.cpu;
    harts.clock[cpu] = (harts.clock[cpu] as number) + CYC_PER_LINE * Math.ceil(bytes / 64);
  };

  const release = (fb: Framebuffer): void => {
    add(fb, OPENS, -1);
    if (field(fb, OPENS) === 0) fb.device.registers.st32(FB_CTRL, 0);
  };

  /** FB-1; −ENODEV if the device is gone. */
  const take = (fb: Framebuffer): number => {
    if (!fb.device.isPresent()) return -ENODEV;
    add(fb, OPENS, 1);
    if (field(fb, OPENS) === 1) switchOn(fb);
    return 0;
  };

  const openScreen = (fb: Framebuffer): OpenFile | number => {
    const error = take(fb);
    if (error !== 0) return error;
    let position = 0;
    return {
      refs: 1,
      isConsole: false,
      *read(task, max) {
        const nr = Math.max(0, Math.min(max, blockBytes - position));
        const bytes = port.readBytes(field(fb, BLOCK) + position, nr).slice();
        charge(task, nr);
        position += nr;
        return bytes;
      },
      *write(task, bytes) {
        const nr = Math.max(0, Math.min(bytes.length, blockBytes - position));
        if (nr === 0 && bytes.length > 0) return -ENOSPC;
        port.writeBytes(field(fb, BLOCK) + position, bytes.subarray(0, nr));
        charge(task, nr);
        position += nr;
        return nr;
      },
      seek(offset, whence) {
        const to = seekFrom(position, blockBytes, offset, whence);
        if (to >= 0) position = to;
        return to;
      },
      release: () => release(fb),
    };
  };

  const controlText = (fb: Framebuffer): string => {
    const { registers } = fb.device;
    const line = (registers.ld32(FB_SHOWN) - field(fb, BUS)) / stride;
    const checksum = registers.ld32(FB_CHECKSUM).toString(16).padStart(8, "0");
    return (
      `size ${mode.width} ${mode.height}\nlines ${nrLines}\nstride ${stride}\n` +
      `frame ${registers.ld32(FB_FRAMES)}\nline ${line}\nchecksum ${checksum}\n`
    );
  };

  const openControl = (fb: Framebuffer): OpenFile | number => {
    const error = take(fb);
    if (error !== 0) return error;
    let isRead = false;
    return {
      refs: 1,
      isConsole: false,
      *read(_task, max) {
        const text = isRead ? new Uint8Array(0) : encodeUtf8(controlText(fb)).subarray(0, max);
        isRead = !isRead;
        return text;
      },
      *write(task, bytes) {
        const line = /^pan 0,(\d{1,6})\n?$/.exec(decodeUtf8(bytes))?.[1];
        if (line === undefined) return -EINVAL;
        const result = yield* pan(fb, task, Number(line));
        return result === 0 ? bytes.length : result;
      },
      seek: () => {
        isRead = false;
        return 0;
      },
      release: () => release(fb),
    };
  };

  // ── Probe and remove ─────────────────────────────────────────────────────────────────────────────────────────────

  const freeAll = (task: Task, fb: Framebuffer): void => {
    const dev = field(fb, DEV) as DmaDevice;
    const block = field(fb, BLOCK);
    if (block !== 0) dma.freeCoherent(task.ctx, dev, blockBytes, asPhys(block), asDma(field(fb, BUS)));
    if (dev !== NO_DEVICE) dma.releaseDevice(task.ctx, dev);
    slab.kmalloc.kfree(task.ctx, fb.info);
  };

  /** Memory and interrupt: 0, or −errno; what was taken is noted in `info`. */
  function* takeAll(task: Task, fb: Framebuffer): Sleeping<number> {
    const { name, master } = fb.device;
    const dev = dma.createDevice(task.ctx, { name, driver: "framebuffer", master, maskBits: ADDRESS_LINES });
    setField(fb, DEV, dev);
    if (dev === NO_DEVICE) return -ENOMEM;
    const memory = yield* dma.allocCoherent(task.ctx, dev, blockBytes, GFP_KERNEL);
    if (memory === null) {
      deviceLog(printk, "framebuffer", name).err(`no ${Math.ceil(blockBytes / 1024)} KiB in one piece`);
      return -ENOMEM;
    }
    setField(fb, BLOCK, memory.cpu);
    setField(fb, BUS, memory.dma);
    return irqs.requestIrq(fb.device.line, fb.action);
  }

  return {
    *probe(task, device) {
      const log = deviceLog(printk, "framebuffer", device.name);
      if (device.registers.ld32(FB_STATUS) === ALL_ONES) return -ENODEV;
      let info = slab.kmalloc.kzalloc(task.ctx, FB_INFO_BYTES, GFP_KERNEL);
      if (typeof info === "object") info = yield* info;
      if (info === NULL) return -ENOMEM;
      const fb: Framebuffer = { info, device, action: { name: device.name, handler: () => handler(fb) } };
      waits.init(queueOf(fb));
      const error = yield* takeAll(task, fb);
      if (error !== 0) {
        freeAll(task, fb);
        return error;
      }
      bound.set(device, fb);
      registry.registerDevice(device.name, () => openScreen(fb));
      registry.registerDevice(ctlName(device), () => openControl(fb));
      const at = field(fb, BUS).toString(16).padStart(16, "0");
      log.info(`${mode.width}x${mode.height}, ${NR_PICTURES} pictures, ${blockBytes / 1024} KiB at 0x${at}`);
      return 0;
    },
    *remove(task, device) {
      const fb = bound.get(device);
      if (fb === undefined) return;
      setField(fb, GONE, 1);
      waits.wakeUp(queueOf(fb));
      yield* registry.revokeDevice(task, device.name);
      yield* registry.revokeDevice(task, ctlName(device));
      device.registers.st32(FB_CTRL, 0);
      irqs.freeIrq(device.line, fb.action);
      bound.delete(device);
      freeAll(task, fb);
      deviceLog(printk, "framebuffer", device.name).info("unregistered");
    },
    stats(device) {
      const fb = bound.get(device);
      if (fb === undefined) return [];
      return [
        ["vsyncs", field(fb, VSYNCS)],
        ["lost", field(fb, LOST)],
        ["flips", field(fb, FLIPS)],
        ["timeouts", field(fb, LATE)],
        ["bus_errors", field(fb, ERRORS)],
        ["bytes", blockBytes],
      ];
    },
  };
}

export const FRAMEBUFFER_DRIVER: DriverType = {
  name: "framebuffer",
  description: "display controller with two pictures in one contiguous block",
  params: {
    width: `pixels in a line, 1-${FB_MAX_SIDE}, default 1024`,
    height: `lines, 1-${FB_MAX_SIDE}, default 768`,
    rate: `frames per second, 1-${FB_MAX_RATE}, default 60`,
  },
  create(platform, params) {
    const number = (name: string, max: number, fallback: number): number | undefined =>
      numberParam(platform, "framebuffer", params, name, { min: 1, max, fallback });
    const width = number("width", FB_MAX_SIDE, 1024);
    const height = number("height", FB_MAX_SIDE, 768);
    const rate = number("rate", FB_MAX_RATE, 60);
    if (width === undefined || height === undefined || rate === undefined) return -EINVAL;
    return createFramebuffer(platform, { width, height, rate });
  },
};
