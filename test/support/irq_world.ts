/**
 * A machine up to its interrupts and no further: chip, contexts, handlers, NMI. No tasks, no allocator.
 */
import { createMachine, type Machine } from "../../kernel/arch/machine.ts";
import { type ContextTracking, createContextTracking, SYSTEM_RUNNING } from "../../kernel/context.ts";
import { createKernelImage } from "../../kernel/image.ts";
import { createIrqs, type IrqAction, type Irqs } from "../../kernel/irq.ts";
import { createNmis, type Nmis } from "../../kernel/nmi.ts";
import { createPerCpu } from "../../kernel/percpu.ts";
import { createPrintk, type Printk } from "../../kernel/printk.ts";
import type { IrqContext, TaskContext } from "../../kernel/types.ts";

export interface IrqWorld {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly irqs: Irqs;
  readonly nmis: Nmis;
  readonly printk: Printk;
  /** Task context of CPU 0. */
  readonly ctx: TaskContext;
  log(): string;
  /** CTX and IRQ invariants at rest: a sentence about the first violation, or null. */
  check(): string | null;
}

export interface IrqWorldOptions {
  readonly nrCpus?: number;
  readonly unhandledLimit?: number;
}

export function createIrqWorld({ nrCpus = 2, unhandledLimit }: IrqWorldOptions = {}): IrqWorld {
  const machine = createMachine({ nrCpus, ramBytes: 8 << 20, seed: "1", port: "bounds" });
  const image = createKernelImage();
  const percpu = createPerCpu();
  const printk = createPrintk(machine, image);
  const contexts = createContextTracking(machine, image, percpu, printk);
  const limit = unhandledLimit === undefined ? {} : { unhandledLimit };
  const irqs = createIrqs({ machine, image, percpu, contexts, printk, ...limit });
  const nmis = createNmis({ machine, percpu, contexts, printk, irqs });
  percpu.setup(image.bss("percpu", percpu.unitBytes() * nrCpus, 64), nrCpus);
  image.seal();
  machine.harts.irqOn.fill(1);
  machine.harts.online.fill(1);
  contexts.setSystemState(SYSTEM_RUNNING);
  return {
    machine,
    contexts,
    irqs,
    nmis,
    printk,
    ctx: contexts.taskContext(0),
    log: () =>
      printk
        .records()
        .map((record) => record.text)
        .join("\n"),
    check() {
      for (let cpu = 0; cpu < nrCpus; cpu++) {
        if (contexts.preemptCount(contexts.taskContext(cpu)) !== 0) return `CTX-1: CPU ${cpu} is not at task level`;
        if (machine.harts.irqOn[cpu] !== 1) return `IRQ-1: CPU ${cpu} has interrupts off`;
      }
      return irqs.check();
    },
  };
}

/** An action that records each call. */
export function recorder(name: string, handler: (ctx: IrqContext) => number, isShared = false): IrqAction {
  return { name, handler, isShared };
}
