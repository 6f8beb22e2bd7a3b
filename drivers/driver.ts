/**
 * What a driver is: the services it is built from, and what the driver core asks of it.
 *
 *   insmod ─▶ DriverType.create(platform, params) ─▶ probe(task, device) for each device that fits ─▶ bound
 *   rmmod, hot-unplug ─▶ remove(task, device) ─▶ unbound
 *
 * Duties of a driver:
 *
 *   DRV-1  probe that fails has given everything back, in reverse order of taking it, and returns −errno
 *   DRV-2  remove gives back everything that probe took and traffic added; it may sleep and cannot fail
 *   DRV-3  a driver works with a device that is gone: registers read all ones (ALL_ONES), interrupts stop
 *   DRV-4  state is in RAM (kmalloc); the host heap holds code and addresses only
 *   DRV-5  remove wakes its sleepers, then revokes its files (DriverFiles.revokeDevice), then frees
 *
 * The core runs probe and remove in a kernel thread, so that a fatal signal to the program that asked for it cannot
 * leave them half done. One driver may serve several devices: `device` says which.
 *
 * Real kernels: struct device_driver, include/linux/device/driver.h; drivers/base/dd.c.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import type { ContextTracking } from "../kernel/context.ts";
import type { DeferredServices } from "../kernel/deferred.ts";
import type { Irqs } from "../kernel/irq.ts";
import type { ThreadedIrqs } from "../kernel/irq_thread.ts";
import type { Locks } from "../kernel/locks.ts";
import { KERN_ERR, KERN_INFO, KERN_WARNING, type Printk } from "../kernel/printk.ts";
import type { Scheduler } from "../kernel/sched.ts";
import type { Task, Tasks } from "../kernel/task.ts";
import type { Context, Sleeping } from "../kernel/types.ts";
import type { WaitQueues } from "../kernel/wait.ts";
import type { BalloonPages, Dma, Mempools, PageAllocator, PageReporting, SlabSubsystem } from "../mm/index.ts";
import type { GuestMemory } from "./balloon_stats.ts";
import type { DriverFiles } from "./driver_files.ts";
import type { Hardware } from "./hardware.ts";
import type { Napi } from "./napi.ts";

/** The kernel as the driver core gets it from boot. A module gets a view of it: counted, and with files of its own. */
export interface KernelServices extends Locks, DeferredServices {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly irqs: Irqs;
  /** Waiting for the threads of interrupt lines, before what they use is freed. */
  readonly threadedIrqs: ThreadedIrqs;
  readonly waits: WaitQueues;
  readonly scheduler: Scheduler;
  readonly tasks: Tasks;
  readonly slab: SlabSubsystem;
  readonly pageAlloc: PageAllocator;
  readonly dma: Dma;
  readonly mempools: Mempools;
  readonly balloonPages: BalloonPages;
  /** Null if free memory has to keep its content. */
  readonly pageReporting: PageReporting | null;
  /** A disk has read or written so much: pgpgin, pgpgout. */
  readonly countIo: (ctx: Context, isWrite: boolean, bytes: number) => void;
  /** What a host may know about memory. */
  guestMemory(): GuestMemory;
}

/** What a driver is built from. Allocations through it are counted for lsmod and the leak check at unloading. */
export interface Platform extends KernelServices {
  /** Open files hold a reference to the module. */
  readonly registry: DriverFiles;
  readonly napi: Napi;
}

/** Rows of numbers for /sys/devices/<name>/stats and the summary of a run. */
export type StatRows = readonly (readonly [name: string, value: number])[];

export interface Driver {
  /** Takes a device into service: 0, or −errno with everything given back. */
  probe(task: Task, device: Hardware): Sleeping<number>;
  /** Lets go of a device, which may be gone already. */
  remove(task: Task, device: Hardware): Sleeping<void>;
  stats(device: Hardware): StatRows;
  /** The driver's own invariants: the first violation, or null. */
  check?(): string | null;
}

export interface DriverType {
  /** Name of the module; devices whose `compatible` says so fit. */
  readonly name: string;
  readonly description: string;
  /** Parameters of insmod: name → one line. Others are refused. */
  readonly params: Readonly<Record<string, string>>;
  /** A driver; −EINVAL for the value of a parameter, after a line in the log. */
  create(platform: Platform, params: ReadonlyMap<string, string>): Driver | number;
}

/** A parameter that is a whole number in [min, max]: `fallback` when not given, undefined after a line in the log. */
export function numberParam(
  { printk }: Pick<Platform, "printk">,
  driver: string,
  params: ReadonlyMap<string, string>,
  name: string,
  limits: { readonly min: number; readonly max: number; readonly fallback: number },
): number | undefined {
  const text = params.get(name);
  if (text === undefined) return limits.fallback;
  const value = /^\d{1,10}$/.test(text) ? Number(text) : -1;
  if (value >= limits.min && value <= limits.max) return value;
  printk(KERN_ERR, `${driver}: parameter ${name}=${text}: expected a whole number from ${limits.min} to ${limits.max}`);
  return undefined;
}

/** `rtc rtc0: text`, as dev_info, dev_warn and dev_err print it. Any context. */
export interface DeviceLog {
  info(text: string): void;
  warn(text: string): void;
  err(text: string): void;
}

export function deviceLog(printk: Printk, driver: string, device: string): DeviceLog {
  const line = (level: number) => (text: string) => printk(level, `${driver} ${device}: ${text}`);
  return { info: line(KERN_INFO), warn: line(KERN_WARNING), err: line(KERN_ERR) };
}
