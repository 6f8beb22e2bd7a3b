/**
 * A driver with one bug at a time, to see what the kernel says about it:
 * `insmod buggy bug=maps_twice; rmmod buggy; dmesg`.
 *
 * Its probe takes memory of its own, a struct device and coherent memory, lends the memory to the device once, and lets
 * one interrupt happen. Without a bug (bug=none, the default) it does so properly: the twin that must stay silent.
 *
 * | bug               | the mistake                                              | said by                            |
 * |-------------------|----------------------------------------------------------|------------------------------------|
 * | maps_twice        | maps memory that is mapped                               | dma-debug                          |
 * | wrong_size        | unmaps with another size                                 | dma-debug                          |
 * | wrong_direction   | unmaps with another direction                            | dma-debug                          |
 * | unmaps_twice      | unmaps what is not mapped any more                       | dma-debug                          |
 * | never_unmaps      | releases the device with a mapping                       | dma-debug                          |
 * | unchecked         | does not look whether mapping worked                     | dma-debug                          |
 * | touches           | reads memory that the device owns                        | `dma_guard=on`                     |
 * | sleeps_in_handler | allocates with GFP_KERNEL in its handler                 | might_sleep                        |
 * | lock_in_both      | takes a lock in its handler and, interrupts on, in probe | `prove_locking=on`                 |
 * | keeps_lock        | leaves its handler with a lock held                      | interrupt core: preempt leak       |
 * | frees_in_handler  | frees coherent memory in its handler                     | the DMA layer                      |
 * | never_answers     | does not quiet its device                                | interrupt core: line switched off  |
 * | forgets_memory    | is unloaded with memory in hand                          | the module's ledger                |
 * | forgets_node      | is unloaded with its /dev node in place                  | the module's ledger                |
 * | gives_away        | answers with memory that it has filled in part only      | nobody: look at its answer         |
 *
 * What the compiler refuses (a generator in a handler, a GFP_KERNEL that it can see) is written around with a cast, as
 * such bugs get into kernels that have no types.
 */

import { IRQ_HANDLED, IRQ_NONE, type IrqAction } from "../kernel/irq.ts";
import { KERN_ERR, KERN_INFO } from "../kernel/printk.ts";
import type { Task } from "../kernel/task.ts";
import { type IrqContext, NULL, type PhysAddr, physAdd, type Sleeping, type TaskContext } from "../kernel/types.ts";
import { EINVAL, ENODEV, ENOMEM } from "../kernel/uapi/errno.ts";
import { decodeUtf8, encodeUtf8 } from "../kernel/uapi/utf8.ts";
import { DMA_FROM_DEVICE, DMA_TO_DEVICE, type DmaDevice, type DmaMemory, GFP_KERNEL, GFP_NOWAIT } from "../mm/index.ts";
import { BUGGY_GO, BUGGY_STATUS } from "./buggy_device.ts";
import type { Driver, DriverType, Platform } from "./driver.ts";
import type { Hardware } from "./hardware.ts";

export const BUGS = [
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
  "gives_away",
] as const;
export type Bug = (typeof BUGS)[number];

/** struct buggy: what is lent to the device, then a lock. */
const BUFFER_BYTES = 64;
const STRUCT_BYTES = 128;
const COHERENT_BYTES = 4096;
const NODE = "buggy";
/** What somebody else keeps in memory for a while, and what is filled of an answer. */
const SECRET = encodeUtf8("password=sesame");
const ANSWER = encodeUtf8("ok: ");
/** From GO to the interrupt, and how long probe waits for it. */
const ANSWER_CYCLES = 10_000;
const PATIENCE_CYCLES = 1_000_000;

/** One bound device. */
interface Bound {
  readonly struct: PhysAddr;
  readonly dev: DmaDevice;
  readonly memory: DmaMemory;
  readonly action: IrqAction;
}

function createBuggy(platform: Platform, bug: Bug): Driver {
  const { slab, dma, irqs, scheduler, machine, spinlocks, registry } = platform;
  const bound = new Map<Hardware, Bound>();
  const lockOf = (struct: PhysAddr): PhysAddr => physAdd(struct, BUFFER_BYTES);
  const freeCoherent = (ctx: TaskContext, { dev, memory }: Pick<Bound, "dev" | "memory">): void =>
    dma.freeCoherent(ctx, dev, COHERENT_BYTES, memory.cpu, memory.dma);

  /** What the handler does beside its work. */
  const misbehave = (ctx: IrqContext, struct: PhysAddr, coherent: Pick<Bound, "dev" | "memory">): void => {
    if (bug === "lock_in_both" || bug === "keeps_lock") spinlocks.spinLock(ctx, lockOf(struct));
    if (bug === "lock_in_both") spinlocks.spinUnlock(ctx, lockOf(struct));
    if (bug === "sleeps_in_handler") {
      const got = slab.kmalloc.kmallocAny(ctx, 32, GFP_KERNEL);
      if (typeof got === "number") slab.kmalloc.kfree(ctx, got);
    }
    if (bug === "frees_in_handler") freeCoherent(ctx as never, coherent);
  };

  /** Lends the buffer to the device, and takes it back. */
  const lend = (ctx: TaskContext, dev: DmaDevice, buffer: PhysAddr): void => {
    const handle = dma.mapSingle(ctx, dev, buffer, BUFFER_BYTES, DMA_FROM_DEVICE);
    if (bug !== "unchecked" && dma.mappingError(dev, handle)) return;
    if (bug === "maps_twice") {
      const again = dma.mapSingle(ctx, dev, buffer, BUFFER_BYTES, DMA_FROM_DEVICE);
      if (!dma.mappingError(dev, again)) dma.unmapSingle(ctx, dev, again, BUFFER_BYTES, DMA_FROM_DEVICE);
    }
    if (bug === "touches") machine.port.ld32(buffer);
    if (bug === "never_unmaps") return;
    const bytes = bug === "wrong_size" ? BUFFER_BYTES / 2 : BUFFER_BYTES;
    dma.unmapSingle(ctx, dev, handle, bytes, bug === "wrong_direction" ? DMA_TO_DEVICE : DMA_FROM_DEVICE);
    if (bug === "unmaps_twice") dma.unmapSingle(ctx, dev, handle, bytes, DMA_FROM_DEVICE);
  };

  /** An answer that is as long as its memory, of which only the start is written (INI-1, INI-2). */
  const answer = (ctx: TaskContext): void => {
    const { kmallocAny, kfree } = slab.kmalloc;
    const take = (): PhysAddr => {
      const got = kmallocAny(ctx, BUFFER_BYTES, GFP_NOWAIT);
      return typeof got === "number" ? got : NULL;
    };
    const secret = take();
    if (secret === NULL) return;
    machine.port.writeBytes(secret, SECRET);
    kfree(ctx, secret);
    const reply = take();
    if (reply === NULL) return;
    machine.port.writeBytes(reply, ANSWER);
    const text = decodeUtf8(machine.port.readBytes(reply, SECRET.length)).replaceAll("\0", ".");
    platform.printk(KERN_INFO, `buggy: answers "${text}"`);
    kfree(ctx, reply);
  };

  /** Takes what the device needs; what was taken is given back by `undo` when a step fails. */
  function* bring(task: Task, device: Hardware, undo: (() => void)[]): Sleeping<Bound | number> {
    const { ctx } = task;
    let got = slab.kmalloc.kzalloc(ctx, STRUCT_BYTES, GFP_KERNEL);
    if (typeof got === "object") got = yield* got;
    if (got === NULL) return -ENOMEM;
    const struct = got;
    undo.push(() => slab.kmalloc.kfree(ctx, struct));
    const dev = dma.createDevice(ctx, { name: device.name, driver: "buggy", master: device.master });
    if (dev === 0) return -ENOMEM;
    undo.push(() => dma.releaseDevice(ctx, dev));
    const memory = yield* dma.allocCoherent(ctx, dev, COHERENT_BYTES, GFP_KERNEL);
    if (memory === null) return -ENOMEM;
    undo.push(() => freeCoherent(ctx, { dev, memory }));
    const handler = (irq: IrqContext): number => {
      // Not looked at, the device holds its line up: a storm.
      if (bug === "never_answers" || device.registers.ld32(BUGGY_STATUS) !== 1) return IRQ_NONE;
      misbehave(irq, struct, { dev, memory });
      return IRQ_HANDLED;
    };
    const action = { name: device.name, handler };
    const error = irqs.requestIrq(device.line, action);
    return error === 0 ? { struct, dev, memory, action } : error;
  }

  return {
    *probe(task, device) {
      const { ctx } = task;
      if (!device.isPresent()) return -ENODEV;
      const undo: (() => void)[] = [];
      const made = yield* bring(task, device, undo);
      if (typeof made === "number") {
        for (const step of undo.reverse()) step();
        return made;
      }
      if (bug === "lock_in_both") {
        spinlocks.spinLock(ctx, lockOf(made.struct));
        spinlocks.spinUnlock(ctx, lockOf(made.struct));
      }
      if (bug === "gives_away") answer(ctx);
      lend(ctx, made.dev, made.struct);
      device.registers.st32(BUGGY_GO, ANSWER_CYCLES);
      yield* scheduler.sleepUntil(task, (machine.harts.clock[ctx.cpu] as number) + PATIENCE_CYCLES);
      if (bug === "forgets_node") registry.registerDevice(NODE, () => -ENODEV);
      bound.set(device, made);
      return 0;
    },
    *remove({ ctx }, device) {
      const made = bound.get(device);
      if (made === undefined) return;
      irqs.freeIrq(device.line, made.action);
      if (bug !== "frees_in_handler") freeCoherent(ctx, made);
      dma.releaseDevice(ctx, made.dev);
      if (bug !== "forgets_memory") slab.kmalloc.kfree(ctx, made.struct);
      bound.delete(device);
    },
    stats: () => [],
  };
}

export const BUGGY_DRIVER: DriverType = {
  name: "buggy",
  description: "a driver with one bug, to see what the kernel says",
  params: { bug: BUGS.join(", ") },
  create(platform, params) {
    const text = params.get("bug") ?? "none";
    const bug = BUGS.find((known) => known === text);
    if (bug !== undefined) return createBuggy(platform, bug);
    platform.printk(KERN_ERR, `buggy: parameter bug=${text}: expected one of ${BUGS.join(", ")}`);
    return -EINVAL;
  },
};
