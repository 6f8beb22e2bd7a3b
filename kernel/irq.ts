/**
 * Interrupts: who handles which line, and when a CPU takes one.
 *
 * A device raises a line at the interrupt controller; the CPU takes it at its next checkpoint with interrupts on. The
 * handler runs as a plain call on top of whatever was running there, in the CPU's IrqContext, with interrupts off and
 * HARDIRQ in preempt_count: it cannot sleep, and the compiler knows it. Lines of one CPU are taken lowest first.
 *
 *   IRQ-1  while a handler runs, in_hardirq is true and interrupts are off; afterwards both are as before
 *   IRQ-2  a line without a handler is counted as spurious and does nothing else
 */

import { CYC_IRQ } from "./arch/charges.ts";
import { NR_IRQ_LINES } from "./arch/irqchip.ts";
import type { Machine } from "./arch/machine.ts";
import { type ContextTracking, HARDIRQ_OFFSET } from "./context.ts";
import type { PerCpu } from "./percpu.ts";
import type { IrqContext } from "./types.ts";
import { EBUSY } from "./uapi/errno.ts";

export type IrqHandler = (ctx: IrqContext) => void;

export interface Irqs {
  /** Registers the handler of a line: 0, or −EBUSY if it has one. */
  requestIrq(line: number, name: string, handler: IrqHandler): number;
  freeIrq(line: number): void;
  /** Checkpoint: fires device events that are due, looks at the timer, takes what is pending if interrupts are on. */
  checkpoint(cpu: number): void;
  lines(): readonly { readonly line: number; readonly name: string; readonly counts: readonly number[] }[];
  nrSpurious(): number;
}

export function createIrqs(machine: Machine, percpu: PerCpu, contexts: ContextTracking): Irqs {
  const { port, harts, irqChip, events } = machine;
  const { irqOn, pending, clock, current } = harts;
  const COUNTS = percpu.define("irq_counts", NR_IRQ_LINES * 4);
  const handlers: (IrqHandler | undefined)[] = new Array(NR_IRQ_LINES).fill(undefined);
  const names: string[] = new Array(NR_IRQ_LINES).fill("");
  let spurious = 0;

  const take = (cpu: number, line: number): void => {
    const ctx = contexts.irqContext(cpu);
    const handler = handlers[line];
    clock[cpu] = (clock[cpu] as number) + CYC_IRQ;
    const counter = ctx.area + COUNTS + line * 4;
    port.st32(counter, port.ld32(counter) + 1);
    if (handler === undefined) {
      spurious++;
      return;
    }
    const interrupted = current[0] as number;
    current[0] = cpu;
    contexts.add(ctx, HARDIRQ_OFFSET);
    handler(ctx);
    contexts.subtract(ctx, HARDIRQ_OFFSET);
    current[0] = interrupted;
  };

  const deliver = (cpu: number): void => {
    irqOn[cpu] = 0;
    for (let line = irqChip.acknowledge(cpu); line >= 0; line = irqChip.acknowledge(cpu)) take(cpu, line);
    irqOn[cpu] = 1;
  };
  contexts.onInterruptible(deliver);

  return {
    requestIrq(line, name, handler) {
      if (handlers[line] !== undefined) return -EBUSY;
      handlers[line] = handler;
      names[line] = name;
      return 0;
    },
    freeIrq(line) {
      handlers[line] = undefined;
    },
    checkpoint(cpu) {
      const now = clock[cpu] as number;
      if (events.nextTime() <= now) events.runDue(now);
      irqChip.checkTimer(cpu);
      if (pending[cpu] !== 0 && irqOn[cpu] === 1) deliver(cpu);
    },
    lines: () =>
      names.flatMap((name, line) =>
        name === ""
          ? []
          : [
              {
                line,
                name,
                counts: Array.from({ length: harts.nrCpus }, (_, cpu) =>
                  port.ld32(percpu.areaOf(cpu) + COUNTS + line * 4),
                ),
              },
            ],
      ),
    nrSpurious: () => spurious,
  };
}
