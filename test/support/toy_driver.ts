/**
 * A toy device and its driver, which can be told to have one bug: for tests of what the kernel says about bad drivers.
 *
 * The device raises its line so many cycles after a store to GO; loading STATUS releases it. The driver's probe takes a
 * device, a buffer of 64 bytes and coherent memory, lets one interrupt happen, and does its bug on the way. Without a
 * bug it does the same things properly.
 */

import type { DeviceKind, DevicePlace, DriverType, Platform } from "../../drivers/index.ts";
import { IRQ_HANDLED, IRQ_NONE } from "../../kernel/irq.ts";
import type { Task } from "../../kernel/task.ts";
import { type IrqContext, NULL, type PhysAddr, physAdd, type Sleeping, type TaskContext } from "../../kernel/types.ts";
import { ENOMEM } from "../../kernel/uapi/errno.ts";
import { DMA_FROM_DEVICE, GFP_KERNEL } from "../../mm/index.ts";

export const TOY_BUGS = [
  "none",
  "maps_twice",
  "wrong_size",
  "wrong_direction",
  "unmaps_twice",
  "never_unmaps",
  "unchecked",
  "touches",
  "sleeps_in_handler",
  "lock_in_both",
  "keeps_lock",
  "frees_in_handler",
  "never_answers",
  "forgets_memory",
  "forgets_node",
] as const;
export type ToyBug = (typeof TOY_BUGS)[number];

const GO = 0;
const STATUS = 4;
const BUFFER_BYTES = 64;
const PAGE = 4096;

const TOY_KIND: DeviceKind = {
  compatible: "toy",
  settings: {},
  faults: [],
  create(env) {
    let status = 0;
    return {
      ld32(register) {
        const value = register === STATUS ? status : 0;
        if (register === STATUS) status = 0;
        if (register === STATUS) env.setIrq(false);
        return value;
      },
      st32(register, value) {
        if (register !== GO) return;
        env.after(value, () => {
          status = 1;
          env.setIrq(true);
        });
      },
      reset() {
        status = 0;
      },
    };
  },
};

export const TOY_PLACE: DevicePlace = { name: "toy0", line: 20, kind: TOY_KIND, isStandard: true };

/** What the handler does beside its work. */
function misbehave(platform: Platform, bug: ToyBug, ctx: IrqContext, struct: PhysAddr, free: () => void): void {
  const { slab, spinlocks } = platform;
  const lock = physAdd(struct, BUFFER_BYTES);
  if (bug === "lock_in_both" || bug === "keeps_lock") spinlocks.spinLock(ctx, lock);
  if (bug === "lock_in_both") spinlocks.spinUnlock(ctx, lock);
  if (bug === "sleeps_in_handler") {
    const got = slab.kmalloc.kmallocAny(ctx, 32, GFP_KERNEL);
    if (typeof got === "number") slab.kmalloc.kfree(ctx, got);
  }
  if (bug === "frees_in_handler") free();
}

function* transfer(platform: Platform, bug: ToyBug, task: Task, dev: never, buffer: PhysAddr): Sleeping<void> {
  const { dma, machine } = platform;
  const { ctx } = task;
  const handle = dma.mapSingle(ctx, dev, buffer, BUFFER_BYTES, DMA_FROM_DEVICE);
  if (bug !== "unchecked" && dma.mappingError(dev, handle)) return;
  if (bug === "maps_twice") {
    const again = dma.mapSingle(ctx, dev, buffer, BUFFER_BYTES, DMA_FROM_DEVICE);
    if (!dma.mappingError(dev, again)) dma.unmapSingle(ctx, dev, again, BUFFER_BYTES, DMA_FROM_DEVICE);
  }
  if (bug === "touches") machine.port.ld32(buffer);
  if (bug === "never_unmaps") return;
  const bytes = bug === "wrong_size" ? BUFFER_BYTES / 2 : BUFFER_BYTES;
  dma.unmapSingle(ctx, dev, handle, bytes, bug === "wrong_direction" ? 1 : DMA_FROM_DEVICE);
  if (bug === "unmaps_twice") dma.unmapSingle(ctx, dev, handle, bytes, DMA_FROM_DEVICE);
}

/** The driver, with its bug as a parameter: `insmod toy bug=maps_twice`. */
export const TOY_DRIVER: DriverType = {
  name: "toy",
  description: "a driver with a bug, for tests",
  params: { bug: TOY_BUGS.join(", ") },
  create(platform, params) {
    const bug = (params.get("bug") ?? "none") as ToyBug;
    const { slab, dma, irqs, scheduler, machine, spinlocks, registry } = platform;
    let release: (ctx: TaskContext) => void = () => {};
    return {
      *probe(task, device) {
        let struct = slab.kmalloc.kzalloc(task.ctx, 128, GFP_KERNEL);
        if (typeof struct === "object") struct = yield* struct;
        if (struct === NULL) return -ENOMEM;
        const dev = dma.createDevice(task.ctx, { name: device.name, driver: "toy", master: device.master });
        const memory = yield* dma.allocCoherent(task.ctx, dev, PAGE, GFP_KERNEL);
        if (memory === null) return -ENOMEM;
        const lock = physAdd(struct, BUFFER_BYTES);
        const freeCoherent = (ctx: TaskContext): void => dma.freeCoherent(ctx, dev, PAGE, memory.cpu, memory.dma);
        const action = {
          name: device.name,
          handler(ctx: IrqContext): number {
            // Not looked at, the device holds its line up: a storm.
            if (bug === "never_answers" || device.registers.ld32(STATUS) !== 1) return IRQ_NONE;
            // The cast is what the compiler makes a driver write that wants to free coherent memory here.
            misbehave(platform, bug, ctx, struct, () => freeCoherent(ctx as never));
            return IRQ_HANDLED;
          },
        };
        irqs.requestIrq(device.line, action);
        if (bug === "lock_in_both") {
          spinlocks.spinLock(task.ctx, lock);
          spinlocks.spinUnlock(task.ctx, lock);
        }
        yield* transfer(platform, bug, task, dev as never, struct);
        device.registers.st32(GO, 10_000);
        yield* scheduler.sleepUntil(task, (machine.harts.clock[task.ctx.cpu] as number) + 1_000_000);
        if (bug === "forgets_node") registry.registerDevice("toy", () => -ENOMEM);
        release = (ctx) => {
          irqs.freeIrq(device.line, action);
          if (bug !== "frees_in_handler") freeCoherent(ctx);
          dma.releaseDevice(ctx, dev);
          if (bug !== "forgets_memory") slab.kmalloc.kfree(ctx, struct);
        };
        return 0;
      },
      *remove(task) {
        release(task.ctx);
      },
      stats: () => [],
    };
  },
};
