/**
 * Lines that are not what they should be: nobody claims their interrupts, or the wire is never let go.
 *
 * 1. "Nobody cared" (Linux's rule). An interrupt that every handler of its line answered with IRQ_NONE is unhandled.
 *    One now and then is nothing: another device on the line was served a moment ago. Each run of `limit` interrupts is
 *    judged at its end: if more than 999 in 1000 were unhandled, the line is reported and disabled. More than a tenth
 *    of a second between two unhandled ones starts the run afresh. `limit` is 100 000 as in Linux; the kernel parameter
 *    irq_unhandled_limit lowers it.
 *
 * 2. A stuck wire. A handler that claims an interrupt and does not quiet its device is called again at once, for ever.
 *    Linux has no remedy and hangs; here the line is disabled when it has been served `limit` times without the wire
 *    having been down in between.
 *
 *   IRQ-8  a line whose wire never falls is disabled after at most `limit` services
 *
 * Source: Linux kernel/irq/spurious.c.
 */

import type { IrqChip } from "./arch/irqchip.ts";
import type { ContextTracking } from "./context.ts";
import {
  DESC_COUNT,
  DESC_DEPTH,
  DESC_STATE,
  DESC_UNHANDLED,
  IRQS_SPURIOUS_DISABLED,
  type IrqDescs,
} from "./irq_desc.ts";
import { CYCLES_PER_SECOND } from "./params.ts";
import { KERN_EMERG, KERN_ERR, type Printk } from "./printk.ts";
import type { IrqContext } from "./types.ts";

export const DEFAULT_UNHANDLED_LIMIT = 100_000;
const FORGET_AFTER = CYCLES_PER_SECOND / 10;

export interface SpuriousDeps {
  readonly irqChip: IrqChip;
  readonly clock: Float64Array;
  readonly descs: IrqDescs;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly limit: number;
  /** Names of a line's handlers, for the report. */
  readonly handlers: (line: number) => readonly string[];
}

/** Judges one interrupt of a device line; `wasHandled`: some handler claimed it. The line may then be disabled. */
export type NoteInterrupt = (ctx: IrqContext, line: number, wasHandled: boolean) => void;

export function createSpurious(deps: SpuriousDeps): NoteInterrupt {
  const { irqChip, clock, descs, contexts, printk, limit } = deps;
  const tolerated = limit - Math.ceil(limit / 1000);

  const disable = (ctx: IrqContext, line: number, reason: string): void => {
    const handlers = deps.handlers(line).map((name) => `[<${name}>]`);
    printk(KERN_ERR, [`irq ${line}: ${reason}`, contexts.stackDump(ctx), "handlers:", ...handlers].join("\n"));
    printk(KERN_EMERG, `Disabling IRQ #${line}`);
    descs.set(line, DESC_STATE, descs.get(line, DESC_STATE) | IRQS_SPURIOUS_DISABLED);
    descs.set(line, DESC_DEPTH, descs.get(line, DESC_DEPTH) + 1);
    irqChip.mask(line);
  };

  const countUnhandled = (ctx: IrqContext, line: number): void => {
    const now = clock[ctx.cpu] as number;
    const isStale = now > descs.lastUnhandled(line) + FORGET_AFTER;
    descs.set(line, DESC_UNHANDLED, isStale ? 1 : descs.get(line, DESC_UNHANDLED) + 1);
    descs.setLastUnhandled(line, now);
  };

  return (ctx, line, wasHandled) => {
    if (irqChip.servicesSinceLow(line) >= limit) {
      if (!irqChip.isMasked(line)) disable(ctx, line, `${limit} interrupts and the line is still asserted`);
      return;
    }
    if (!wasHandled) countUnhandled(ctx, line);
    const unhandled = descs.get(line, DESC_UNHANDLED);
    if (unhandled === 0) return;
    const count = descs.get(line, DESC_COUNT) + 1;
    descs.set(line, DESC_COUNT, count < limit ? count : 0);
    if (count < limit) return;
    descs.set(line, DESC_UNHANDLED, 0);
    if (unhandled > tolerated) disable(ctx, line, 'nobody cared (try booting with the "irqpoll" option)');
  };
}
