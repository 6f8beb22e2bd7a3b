/**
 * Softirqs: the second half of interrupt handling, with interrupts on.
 *
 * 1. A hardirq handler does what cannot wait and raises a softirq for the rest: it sets one of ten bits of its CPU. The
 *    bits are looked at when the outermost hardirq ends, and when softirqs are switched on again (localBhEnable).
 *
 *      task ────▶ hardirq: raiseSoftirq ──▶ irq exit: serve ──────────────▶ task goes on
 *                                             │ handlers, interrupts on;
 *                                             │ hardirqs nest on top, raise more
 *                                             ▼ still bits after 10 rounds or 2 ms
 *                                           ksoftirqd/N, a task like others
 *
 * 2. Handlers of one CPU never nest: SOFTIRQ_OFFSET is in preempt_count while they run, and who finds it set leaves the
 *    bits to those below. The same vector may run on two CPUs at once. Handlers may not sleep, and the compiler knows.
 *
 * 3. A flood. Bits that come back as fast as they are served would keep the interrupted task from ever going on. After
 *    MAX_SOFTIRQ_RESTART rounds or MAX_SOFTIRQ_CYCLES the rest is left to the thread ksoftirqd/N, which the scheduler
 *    treats as fairly as the programs that it competes with.
 *
 * 4. Raised in process context there is no interrupt at whose end the bits would be seen: ksoftirqd is woken at once.
 *
 *   SOFT-1  a vector raised once or more runs once, on the CPU that raised it, and not before it was raised
 *   SOFT-2  while handlers run, in_serving_softirq is true and interrupts are on; afterwards both are as before
 *   SOFT-3  handlers of one CPU run one after another, lowest vector first in each round
 *   SOFT-4  bits that are set while no handler runs are seen at the next irq exit, by localBhEnable, or by ksoftirqd
 *   SOFT-5  a handler leaves preempt_count as it was; else it is reported and put right
 *
 * Pending bits and counters are in the per-CPU area. Locks: none, a CPU touches its own bits with interrupts off.
 * The threads are made when first needed (kthread.ts); without memory for one, the bits are served between two slices.
 *
 * Different from Linux: need_resched does not end a round early, as a waking task never takes the CPU at once here.
 * Source: Linux `kernel/softirq.c`, `include/linux/interrupt.h`.
 */

import { CYC_SOFTIRQ } from "./arch/charges.ts";
import type { Machine } from "./arch/machine.ts";
import { bugOn } from "./bug.ts";
import { type ContextTracking, HARDIRQ_MASK, SOFTIRQ_DISABLE_OFFSET, SOFTIRQ_OFFSET } from "./context.ts";
import type { Irqs } from "./irq.ts";
import type { Kthreads } from "./kthread.ts";
import { CYCLES_PER_SECOND } from "./params.ts";
import type { PerCpu } from "./percpu.ts";
import { KERN_ERR, type Printk } from "./printk.ts";
import type { Scheduler } from "./sched.ts";
import type { Task } from "./task.ts";
import { BLOCKED, type Context, type IrqContext, PREEMPTED, type Sleeping } from "./types.ts";

export const HI_SOFTIRQ = 0;
export const TIMER_SOFTIRQ = 1;
export const NET_TX_SOFTIRQ = 2;
export const NET_RX_SOFTIRQ = 3;
export const BLOCK_SOFTIRQ = 4;
export const IRQ_POLL_SOFTIRQ = 5;
export const TASKLET_SOFTIRQ = 6;
export const SCHED_SOFTIRQ = 7;
export const HRTIMER_SOFTIRQ = 8;
export const RCU_SOFTIRQ = 9;
export const NR_SOFTIRQS = 10;

/** Rounds that are served before the rest is left to ksoftirqd. */
export const MAX_SOFTIRQ_RESTART = 10;
/** Virtual time after which no new round begins: 2 ms. */
export const MAX_SOFTIRQ_CYCLES = CYCLES_PER_SECOND / 500;

export interface Softirqs {
  /** Says what a vector does. Once each; composition and drivers that are loaded. */
  openSoftirq(nr: number, action: (ctx: IrqContext) => void): void;
  /** Marks a vector of this CPU. Any context. */
  raiseSoftirq(ctx: Context, nr: number): void;
  /** No softirq begins on this CPU until the matching localBhEnable. Nests. Task or softirq context. */
  localBhDisable(ctx: Context): void;
  /** Undoes one localBhDisable; the last one serves what became pending. */
  localBhEnable(ctx: Context): void;
  /** How often a vector was served on a CPU. */
  count(nr: number, cpu: number): number;
  /** Marked vectors of a CPU, one bit each. */
  pending(cpu: number): number;
  /** Moves the marked vectors of an offline CPU to this one. */
  adopt(ctx: Context, cpu: number): void;
  /** Gives softirqs their threads. Boot, once there are tasks. */
  bindThreads(kthreads: Kthreads, scheduler: Scheduler): void;
}

export interface SoftirqDeps {
  readonly machine: Machine;
  readonly percpu: PerCpu;
  readonly contexts: ContextTracking;
  readonly irqs: Irqs;
  readonly printk: Printk;
}

export function createSoftirqs({ machine, percpu, contexts, irqs, printk }: SoftirqDeps): Softirqs {
  const { port, harts } = machine;
  const { clock } = harts;
  const PENDING = percpu.define("softirq_pending", 4);
  const COUNTS = percpu.define("softirq_counts", NR_SOFTIRQS * 4);
  const actions: ((ctx: IrqContext) => void)[] = new Array(NR_SOFTIRQS).fill(() => {});
  const isOpen: boolean[] = new Array(NR_SOFTIRQS).fill(false);
  const threads: (Task | undefined)[] = new Array(harts.nrCpus).fill(undefined);
  const isRequested: boolean[] = new Array(harts.nrCpus).fill(false);
  let threading: { readonly kthreads: Kthreads; readonly scheduler: Scheduler } | undefined;

  const pendingOf = (ctx: Context): number => port.ld32(ctx.area + PENDING);

  const runVector = (ctx: IrqContext, nr: number): void => {
    const counter = ctx.area + COUNTS + nr * 4;
    port.st32(counter, port.ld32(counter) + 1);
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_SOFTIRQ;
    const before = contexts.preemptCount(ctx);
    (actions[nr] as (ctx: IrqContext) => void)(ctx);
    const after = contexts.preemptCount(ctx);
    if (after !== before) {
      const [was, is] = [before.toString(16).padStart(8, "0"), after.toString(16).padStart(8, "0")];
      printk(KERN_ERR, `huh, entered softirq ${nr} with preempt_count ${was}, exited with ${is}?`);
      if (after > before) contexts.subtract(ctx, after - before);
      else contexts.add(ctx, before - after);
    }
    irqs.checkpoint(ctx.cpu);
  };

  /** Serves rounds until nothing is marked or it has taken too long. Not from an interrupt (the caller looked). */
  const serve = (cpu: number): void => {
    const ctx = contexts.irqContext(cpu);
    const flags = contexts.localIrqSave(ctx);
    const end = (clock[cpu] as number) + MAX_SOFTIRQ_CYCLES;
    contexts.add(ctx, SOFTIRQ_OFFSET);
    for (let round = 0; pendingOf(ctx) !== 0; round++) {
      if (round === MAX_SOFTIRQ_RESTART || (clock[cpu] as number) >= end) {
        wakeThread(cpu);
        break;
      }
      const bits = pendingOf(ctx);
      port.st32(ctx.area + PENDING, 0);
      contexts.localIrqRestore(ctx, 1);
      for (let nr = 0; nr < NR_SOFTIRQS; nr++) if (((bits >>> nr) & 1) !== 0) runVector(ctx, nr);
      contexts.localIrqSave(ctx);
    }
    contexts.subtract(ctx, SOFTIRQ_OFFSET);
    contexts.localIrqRestore(ctx, flags);
  };

  // ── ksoftirqd ────────────────────────────────────────────────────────────────────────────────────────────────────

  function* ksoftirqd(task: Task): Sleeping<void> {
    const { scheduler } = threading as { scheduler: Scheduler };
    try {
      for (;;) {
        if (pendingOf(task.ctx) === 0) {
          scheduler.prepareToBlock(task);
          yield BLOCKED;
          continue;
        }
        serve(task.ctx.cpu);
        // Between two batches others get their turn, or a flood would hold the CPU as surely as at irq exit.
        yield PREEMPTED;
      }
    } finally {
      // A handler was a kernel bug and ends this thread: the next wake-up makes another one.
      const home = threads.indexOf(task);
      threads[home] = undefined;
      isRequested[home] = false;
    }
  }

  const wakeThread = (cpu: number): void => {
    const thread = threads[cpu];
    if (thread !== undefined) threading?.kthreads.wake(thread, cpu);
    else if (threading !== undefined && isRequested[cpu] === false) {
      isRequested[cpu] = true;
      threading.kthreads.request(
        { comm: `ksoftirqd/${cpu}`, cpu, body: ksoftirqd },
        (task) => {
          threads[cpu] = task;
        },
        () => {
          if (pendingOf(contexts.irqContext(cpu)) !== 0) serve(cpu);
        },
      );
    }
  };

  irqs.onIrqExit((ctx) => {
    if (pendingOf(ctx) !== 0 && !contexts.inInterrupt(ctx)) serve(ctx.cpu);
  });

  const mark = (ctx: Context, bits: number): void => {
    const flags = contexts.localIrqSave(ctx);
    port.st32(ctx.area + PENDING, pendingOf(ctx) | bits);
    if (!contexts.inInterrupt(ctx)) wakeThread(ctx.cpu);
    contexts.localIrqRestore(ctx, flags);
  };

  return {
    openSoftirq(nr, action) {
      bugOn(isOpen[nr] !== false, "softirq: no such vector, or it is open already", nr);
      isOpen[nr] = true;
      actions[nr] = action;
    },
    raiseSoftirq(ctx, nr) {
      bugOn(isOpen[nr] !== true, "softirq: raised a vector that nobody serves", nr);
      mark(ctx, 1 << nr);
    },
    localBhDisable: (ctx) => contexts.add(ctx, SOFTIRQ_DISABLE_OFFSET),
    localBhEnable(ctx) {
      const isWrong = (contexts.preemptCount(ctx) & HARDIRQ_MASK) !== 0 || contexts.irqsDisabled(ctx);
      if (isWrong) contexts.warn(ctx, "kernel/softirq.ts:localBhEnable", "softirqs enabled with hardirqs off");
      contexts.subtract(ctx, SOFTIRQ_DISABLE_OFFSET);
      if (!isWrong && pendingOf(ctx) !== 0 && !contexts.inInterrupt(ctx)) serve(ctx.cpu);
    },
    count: (nr, cpu) => port.ld32(percpu.areaOf(cpu) + COUNTS + nr * 4),
    pending: (cpu) => port.ld32(percpu.areaOf(cpu) + PENDING),
    adopt(ctx, cpu) {
      const word = percpu.areaOf(cpu) + PENDING;
      const bits = port.ld32(word);
      port.st32(word, 0);
      if (bits !== 0) mark(ctx, bits);
    },
    bindThreads(kthreads, scheduler) {
      threading = { kthreads, scheduler };
    },
  };
}
