/**
 * Non-maskable interrupts: what a CPU takes even with interrupts off, e.g. a watchdog that asks "where are you?".
 *
 * The handler runs on top of anything, also of a section that switched interrupts off in order to be alone: it may find
 * every structure half-changed and every lock taken, by the code that it interrupted. So it takes no lock, allocates
 * nothing and wakes nobody; it reads, and writes words of its own. Its NmiContext is not an IrqContext: what needs one
 * does not compile.
 *
 * preempt_count has NMI and HARDIRQ added, as in Linux. Interrupts stay off until the end, whatever the handler does;
 * then the flag is as it was, and what became pending is taken at the next checkpoint.
 *
 *   NMI-1  while a handler runs, in_nmi is true; afterwards preempt_count and the interrupt flag are as before
 *   NMI-2  no NMI on top of an NMI on the same CPU (CHIP-4), and no interrupt
 *
 * Source: Linux arch/x86/kernel/nmi.c, include/linux/hardirq.h (nmi_enter).
 */

import { CYC_IRQ } from "./arch/charges.ts";
import type { Machine } from "./arch/machine.ts";
import { type ContextTracking, HARDIRQ_OFFSET, NMI_OFFSET } from "./context.ts";
import type { Irqs } from "./irq.ts";
import type { PerCpu } from "./percpu.ts";
import { KERN_EMERG, type Printk } from "./printk.ts";
import type { NmiContext } from "./types.ts";
import { EEXIST } from "./uapi/errno.ts";

/** True if the NMI was for this handler. */
export type NmiHandler = (ctx: NmiContext) => boolean;

export interface Nmis {
  /** Adds a handler: 0, or −EEXIST if the name is taken. All are called at every NMI. */
  registerNmi(name: string, handler: NmiHandler): number;
  unregisterNmi(name: string): void;
  /** NMIs taken, per CPU. */
  counts(): readonly number[];
}

export interface NmiDeps {
  readonly machine: Machine;
  readonly percpu: PerCpu;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly irqs: Irqs;
}

export function createNmis({ machine, percpu, contexts, printk, irqs }: NmiDeps): Nmis {
  const { port, harts, irqChip } = machine;
  const { irqOn, clock, current, nrCpus } = harts;
  const COUNT = percpu.define("nmi_count", 4);
  const handlers = new Map<string, NmiHandler>();

  const callHandlers = (ctx: NmiContext): void => {
    let isKnown = false;
    for (const handler of handlers.values()) if (handler(ctx)) isKnown = true;
    if (isKnown) return;
    printk(KERN_EMERG, `Uhhuh. NMI received for unknown reason 00 on CPU ${ctx.cpu}.`);
    printk(KERN_EMERG, "Dazed and confused, but trying to continue");
  };

  const vector = (cpu: number): void => {
    const ctx = contexts.nmiContext(cpu);
    const wasOn = irqOn[cpu] === 1;
    const interrupted = current[0] as number;
    const count = contexts.preemptCount(ctx);
    contexts.hardirqsOff(cpu);
    current[0] = cpu;
    clock[cpu] = (clock[cpu] as number) + CYC_IRQ;
    port.st32(ctx.area + COUNT, port.ld32(ctx.area + COUNT) + 1);
    contexts.add(ctx, NMI_OFFSET + HARDIRQ_OFFSET);
    // Not to be unwound into the code that was interrupted: see kernel/irq.ts.
    try {
      callHandlers(ctx);
    } catch (error) {
      if (!irqs.die(contexts.irqContext(cpu), error)) throw error;
    }
    contexts.add(ctx, count - contexts.preemptCount(ctx));
    current[0] = interrupted;
    if (wasOn) contexts.hardirqsOn(cpu);
    else contexts.hardirqsOff(cpu);
  };
  irqChip.onNmi(vector);

  return {
    registerNmi(name, handler) {
      if (handlers.has(name)) return -EEXIST;
      handlers.set(name, handler);
      return 0;
    },
    unregisterNmi(name) {
      handlers.delete(name);
    },
    counts: () => Array.from({ length: nrCpus }, (_, cpu) => port.ld32(percpu.areaOf(cpu) + COUNT)),
  };
}
