/**
 * irq_desc: what the kernel knows of an interrupt line, in RAM.
 *
 * | offset | field          | width | meaning, who writes it                                                        |
 * |--------|----------------|-------|-------------------------------------------------------------------------------|
 * | 0      | depth          | u32   | disableIrq calls not yet undone; the line is masked while it is not 0         |
 * | 4      | state          | u32   | IRQS_… bits                                                                   |
 * | 8      | irq_count      | u32   | interrupts since the line was last judged; irq_spurious.ts                    |
 * | 12     | irqs_unhandled | u32   | of these, those that nobody claimed                                           |
 * | 16     | last_unhandled | f64   | clock value of the latest of those                                            |
 * | 24     | threads        | u32   | slots whose thread must still run: the line stays masked until it is 0        |
 * | 28     | busy           | u32   | slots taken by an action, or by the thread of one that was freed              |
 * | 32     | wake[8]        | u32   | per slot: 1 when its thread is to run                                         |
 * | 64     | waiters        | 8     | wait queue of those who wait for threads of the line; irq_thread.ts           |
 *
 * An action sits in a slot; a line has 8. The functions of an action are on the host, like all code.
 * Lock: interrupts off on the CPU that writes (one CPU is executed at a time).
 */

import type { MemoryPort } from "./arch/port.ts";
import type { PhysAddr } from "./types.ts";

export const MAX_ACTIONS = 8;

export const DESC_DEPTH = 0;
export const DESC_STATE = 4;
export const DESC_COUNT = 8;
export const DESC_UNHANDLED = 12;
export const DESC_LAST_UNHANDLED = 16;
export const DESC_THREADS = 24;
export const DESC_BUSY = 28;
export const DESC_WAKE = 32;
export const DESC_WAITERS = DESC_WAKE + 4 * MAX_ACTIONS;
export const IRQ_DESC_BYTES = DESC_WAITERS + 8;

/** Switched off because nobody cared. */
export const IRQS_SPURIOUS_DISABLED = 1;

export interface IrqDescs {
  get(line: number, field: number): number;
  set(line: number, field: number, value: number): void;
  lastUnhandled(line: number): number;
  setLastUnhandled(line: number, cycles: number): void;
}

/** The table of descriptors at `base`, one behind the other. */
export function createIrqDescs(port: MemoryPort, base: PhysAddr): IrqDescs {
  return {
    get: (line, field) => port.ld32(base + line * IRQ_DESC_BYTES + field),
    set: (line, field, value) => port.st32(base + line * IRQ_DESC_BYTES + field, value),
    lastUnhandled: (line) => port.ldF64(base + line * IRQ_DESC_BYTES + DESC_LAST_UNHANDLED),
    setLastUnhandled: (line, cycles) => port.stF64(base + line * IRQ_DESC_BYTES + DESC_LAST_UNHANDLED, cycles),
  };
}

if (IRQ_DESC_BYTES % 8 !== 0) throw new Error("irq_desc: the f64 of the next descriptor would not be aligned");
