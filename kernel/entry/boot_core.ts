/**
 * The first part of boot: the machine, and what must exist before anything else of the kernel can run on it.
 *
 *   command line ─▶ machine ─▶ static image ─▶ log ring ─▶ per-CPU layout ─▶ contexts ─▶ lock words
 *
 * What watches is put around what it watches here, by the command line: the longest windows with interrupts off around
 * the context tracking, lockdep around that and around the locks. Who uses them does not know.
 */

import { createMachine, type Machine } from "../arch/machine.ts";
import { type KernelParameters, parseCmdline } from "../cmdline.ts";
import { type ContextTracking, createContextTracking } from "../context.ts";
import { createKernelImage, type KernelImage } from "../image.ts";
import { type OffTracker, traceOff } from "../irqsoff.ts";
import { createLockdep, LOCKDEP_BYTES, type Lockdep } from "../lockdep.ts";
import { createPerCpu, type PerCpu } from "../percpu.ts";
import { createPrintk, KERN_INFO, type Printk } from "../printk.ts";
import { proveContexts, proveSpinlocks } from "../prove_locking.ts";
import { createSpinlocks, type Spinlocks } from "../spinlock.ts";
import { type StackTracer, traceStacks } from "../stack_trace.ts";
import { logFirmwareMap } from "./boot_log.ts";
import type { BootOptions } from "./kernel.ts";
import { reportStaleTlb, type StaleTlbReports } from "./stale_tlb.ts";

export interface Core {
  readonly parameters: KernelParameters;
  readonly machine: Machine;
  readonly image: KernelImage;
  readonly printk: Printk;
  readonly percpu: PerCpu;
  readonly contexts: ContextTracking;
  readonly spinlocks: Spinlocks;
  /** With prove_locking=on. */
  readonly lockdep: Lockdep | undefined;
  /** With irqsoff=on. */
  readonly offTracker: OffTracker | null;
  /** With stacktrace=on. */
  readonly stackTracer: StackTracer | null;
  readonly staleTlb: StaleTlbReports;
}

export function composeCore(options: BootOptions): Core {
  const { nrCpus, ramBytes, seed } = options;
  const parameters = parseCmdline(options.cmdline);
  const isGuarded = parameters.choice("dma_guard", ["off", "on"]) === "on";
  const portKind = isGuarded ? "guard" : options.port;
  const debugTlb = parameters.choice("debug_tlb", ["off", "on"]) === "on";
  const machine = createMachine({ nrCpus, ramBytes, seed, port: portKind, ram: options.ram, debugTlb });
  const image = createKernelImage();
  const printk = createPrintk(machine, image); // log ring
  const isQuiet = parameters.get("quiet") !== undefined;
  printk.setConsole((line) => options.console(`${line}\n`), isQuiet ? 4 : parameters.number("loglevel", 8));
  printk(KERN_INFO, `Linux version 6.12.0-slabtown (slabtown 0.1.0) #1 SMP PREEMPT_DYNAMIC, seed "${seed}"`);
  printk(KERN_INFO, `Command line: ${options.cmdline}`);
  logFirmwareMap(printk, machine.firmwareMap);
  const staleTlb = reportStaleTlb(machine, printk); // debug_tlb

  const percpu = createPerCpu(); // per-CPU layout
  const untraced = createContextTracking(machine, image, percpu, printk); // preempt_count, splats
  const isTracingOff = parameters.choice("irqsoff", ["off", "on"]) === "on";
  const offTracker = isTracingOff ? traceOff(machine, untraced) : null; // longest windows
  const watched = offTracker?.contexts ?? untraced;
  const isTracingStacks = parameters.choice("stacktrace", ["off", "on"]) === "on";
  const stackTracer = isTracingStacks ? traceStacks(watched) : null; // deepest calls
  const plain = stackTracer?.contexts ?? watched;
  const isProving = parameters.choice("prove_locking", ["off", "on"]) === "on";
  const lockdep = isProving
    ? createLockdep({ machine, contexts: plain, printk, statics: image.bss("lockdep", LOCKDEP_BYTES, 8) })
    : undefined;
  const contexts = lockdep === undefined ? plain : proveContexts(plain, lockdep);
  const plainLocks = createSpinlocks(machine, contexts, options.onContention); // lock words
  const spinlocks = lockdep === undefined ? plainLocks : proveSpinlocks(plainLocks, contexts, lockdep);
  return {
    parameters,
    machine,
    image,
    printk,
    percpu,
    contexts,
    spinlocks,
    lockdep,
    offTracker,
    stackTracer,
    staleTlb,
  };
}
