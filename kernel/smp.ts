/**
 * What CPUs ask of each other: "look at your runqueue", "call this function".
 *
 * Both are edge interrupts between CPUs. A call is queued at the target, which takes the interrupt at its next
 * checkpoint and runs everything queued, in order, in its IrqContext. The function is code and stays on the host; the
 * count of waiting calls is in the per-CPU area.
 *
 * The waiting form takes the interrupt on the target at once: all CPUs are executed by one host thread, and a CPU that
 * is not executed stands between two instructions with interrupts on. Both clocks then agree on a moment: the target
 * cannot answer before it was asked, and the caller not go on before it has the answer.
 *
 *   SMP-1  a call runs once, on the CPU that was asked, and not before it was asked
 *   SMP-2  nothing is sent to an offline CPU
 *
 * Source: Linux kernel/smp.c.
 */

import { CYC_IPI } from "./arch/charges.ts";
import { IRQ_CALL_FUNCTION, IRQ_RESCHEDULE } from "./arch/irqchip.ts";
import type { Machine } from "./arch/machine.ts";
import { bugOn } from "./bug.ts";
import type { ContextTracking } from "./context.ts";
import { IRQ_HANDLED, type Irqs } from "./irq.ts";
import type { PerCpu } from "./percpu.ts";
import type { Context, IrqContext } from "./types.ts";
import { ENXIO } from "./uapi/errno.ts";

export type SmpFunction = (ctx: IrqContext) => void;

export interface Smp {
  /**
   * `fn` is to run on `cpu`, in its IrqContext with interrupts off; on the own CPU at once. Does not wait. 0, or −ENXIO
   * for an offline CPU. Any context but NMI.
   */
  smpCallFunction(ctx: Context, cpu: number, fn: SmpFunction): number;
  /** The same, and returns when it has run. Interrupts must be on: two CPUs that wait for each other would deadlock. */
  smpCallFunctionWait(ctx: Context, cpu: number, fn: SmpFunction): number;
  /** On every online CPU, this one included, and waits. */
  onEachCpu(ctx: Context, fn: SmpFunction): void;
  /** Makes another CPU look at its runqueue. */
  sendReschedule(cpu: number): void;
}

export function createSmp(machine: Machine, percpu: PerCpu, contexts: ContextTracking, irqs: Irqs): Smp {
  const { port, harts, irqChip } = machine;
  const { clock, current, online, nrCpus } = harts;
  const NR_CALLS = percpu.define("call_single_queue", 4);
  const queues: SmpFunction[][] = Array.from({ length: nrCpus }, () => []);

  irqs.requestIrq(IRQ_CALL_FUNCTION, {
    name: "call function",
    handler(ctx) {
      const queue = queues[ctx.cpu] as SmpFunction[];
      // A function may queue another for this CPU: that one has its own interrupt.
      const due = queue.splice(0);
      port.st32(ctx.area + NR_CALLS, 0);
      for (const fn of due) fn(ctx);
      return IRQ_HANDLED;
    },
  });

  const isOnline = (cpu: number): boolean => online[cpu] === 1;
  const payForIpi = (): void => {
    const self = current[0] as number;
    clock[self] = (clock[self] as number) + CYC_IPI;
  };

  const callHere = (ctx: Context, fn: SmpFunction): void => {
    const flags = contexts.localIrqSave(ctx);
    fn(contexts.irqContext(ctx.cpu));
    contexts.localIrqRestore(ctx, flags);
  };

  const send = (ctx: Context, cpu: number, fn: SmpFunction): number => {
    if (!isOnline(cpu)) return -ENXIO;
    if (cpu === ctx.cpu) {
      callHere(ctx, fn);
      return 0;
    }
    payForIpi();
    const waiting = percpu.areaOf(cpu) + NR_CALLS;
    (queues[cpu] as SmpFunction[]).push(fn);
    port.st32(waiting, port.ld32(waiting) + 1);
    irqChip.raise(cpu, IRQ_CALL_FUNCTION);
    return 0;
  };

  const sendAndWait = (ctx: Context, cpu: number, fn: SmpFunction): number => {
    bugOn(contexts.irqsDisabled(ctx), "smp: waits for another CPU with interrupts off", ctx.cpu, cpu);
    let isDone = cpu === ctx.cpu;
    const result = send(ctx, cpu, (irq) => {
      fn(irq);
      isDone = true;
    });
    if (result !== 0 || isDone) return result;
    const self = current[0] as number;
    clock[cpu] = Math.max(clock[cpu] as number, clock[self] as number);
    current[0] = cpu;
    irqs.checkpoint(cpu);
    current[0] = self;
    clock[self] = Math.max(clock[self] as number, clock[cpu] as number);
    bugOn(!isDone, "SMP-1: the other CPU did not take the call", cpu);
    return 0;
  };

  return {
    smpCallFunction: send,
    smpCallFunctionWait: sendAndWait,
    onEachCpu(ctx, fn) {
      for (let cpu = 0; cpu < nrCpus; cpu++) if (isOnline(cpu)) sendAndWait(ctx, cpu, fn);
    },
    sendReschedule(cpu) {
      if (!isOnline(cpu)) return;
      payForIpi();
      irqChip.raise(cpu, IRQ_RESCHEDULE);
    },
  };
}
