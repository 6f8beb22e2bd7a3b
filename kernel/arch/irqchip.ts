/**
 * The interrupt controller: 32 lines per CPU, lowest number first.
 *
 * Raising a line sets its bit in the CPU's pending word; it stays set until the CPU, with interrupts on, acknowledges
 * it at a checkpoint (kernel/irq.ts). A raised line raised again is still one interrupt, as on level-triggered wires.
 */

import type { Harts } from "./harts.ts";

export const NR_IRQ_LINES = 32;

/** The CPU's own timer. */
export const IRQ_TIMER = 0;
/** Another CPU asks this one to look at its runqueue. */
export const IRQ_RESCHEDULE = 1;
/** Console receiver. */
export const IRQ_UART = 4;

export interface IrqChip {
  /** Sets line `line` of CPU `cpu`. Any context; a device may call it. */
  raise(cpu: number, line: number): void;
  /** Takes the pending line with the lowest number; −1 if none. The caller has interrupts off. */
  acknowledge(cpu: number): number;
  /** Raises the timer line of each CPU whose deadline has passed, and disarms that timer. */
  checkTimer(cpu: number): void;
}

export function createIrqChip(harts: Harts): IrqChip {
  const { pending, timerDeadline, clock } = harts;
  return {
    raise(cpu, line) {
      pending[cpu] = (pending[cpu] as number) | (1 << line);
    },
    acknowledge(cpu) {
      const word = pending[cpu] as number;
      if (word === 0) return -1;
      const line = 31 - Math.clz32(word & -word);
      pending[cpu] = word & ~(1 << line);
      return line;
    },
    checkTimer(cpu) {
      if ((clock[cpu] as number) < (timerDeadline[cpu] as number)) return;
      timerDeadline[cpu] = Number.POSITIVE_INFINITY;
      pending[cpu] = (pending[cpu] as number) | (1 << IRQ_TIMER);
    },
  };
}
