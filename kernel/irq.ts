/**
 * Interrupts: who handles which line, and when a CPU takes one.
 *
 * 1. A device lifts its wire at the interrupt controller (arch/irqchip.ts); the CPU takes the interrupt at its next
 *    checkpoint with interrupts on. The handlers of the line run as plain calls on top of whatever was running there,
 *    in the CPU's IrqContext, with interrupts off and HARDIRQ in preempt_count: they cannot sleep, and the compiler
 *    knows.
 *
 *      device ─ setLevel ─▶ chip ─ pending ─▶ checkpoint ─ acknowledge ─▶ handler, handler, … ─ complete ─▶ exit hooks
 *
 * 2. Several actions may share a line if all of them say so. All are called; each answers IRQ_NONE (not mine),
 *    IRQ_HANDLED, or IRQ_WAKE_THREAD (the rest is for my thread: irq_thread.ts). Until the threads that were woken are
 *    through, the line stays masked (what Linux calls IRQF_ONESHOT; here always).
 *
 * 3. A handler may switch interrupts on (contexts.localIrqEnable). Then more urgent lines interrupt it, and only those,
 *    up to MAX_HARDIRQ_DEPTH deep: the field in preempt_count has four bits.
 *
 * 4. An interrupt costs CYC_IRQ beside the work of its handlers, and one checkpoint takes at most MAX_PER_CHECKPOINT:
 *    a storm makes the interrupted code slow, it does not stop it. irq_spurious.ts then switches the line off.
 *
 * 5. A handler that finds the kernel broken (KernelBug) cannot be killed like a task: nobody is left who would know
 *    what it had begun. It is the end: `onFatal` panics, and no interrupt is taken any more.
 *
 *   IRQ-1  while a handler runs, in_hardirq is true; afterwards preempt_count and the interrupt flag are as before
 *   IRQ-2  an interrupt on a line without a handler counts as an error and does nothing else but mask a level line
 *   IRQ-3  on one CPU, a handler is interrupted only by a more urgent line, or by an NMI
 *   IRQ-4  a line is masked while its depth is not 0 or a thread of it has still to run
 *   IRQ-5  exit hooks run once per interrupt that left HARDIRQ, with interrupts off
 *   IRQ-6  no handler of an action is called after freeIrq returned
 *   IRQ-7  a checkpoint takes at most MAX_PER_CHECKPOINT interrupts
 *
 * Source: Linux kernel/irq/{manage,handle,chip}.c.
 */

import { CYC_IRQ } from "./arch/charges.ts";
import { FIRST_DEVICE_LINE, IRQ_SPURIOUS, NR_IRQ_LINES } from "./arch/irqchip.ts";
import type { Machine } from "./arch/machine.ts";
import { BadAccess } from "./arch/port.ts";
import { KernelBug } from "./bug.ts";
import { type ContextTracking, HARDIRQ_MASK, HARDIRQ_OFFSET } from "./context.ts";
import type { KernelImage } from "./image.ts";
import {
  createIrqDescs,
  DESC_BUSY,
  DESC_COUNT,
  DESC_DEPTH,
  DESC_STATE,
  DESC_THREADS,
  DESC_UNHANDLED,
  DESC_WAITERS,
  DESC_WAKE,
  IRQ_DESC_BYTES,
  IRQS_SPURIOUS_DISABLED,
  MAX_ACTIONS,
} from "./irq_desc.ts";
import { createSpurious, DEFAULT_UNHANDLED_LIMIT } from "./irq_spurious.ts";
import type { PerCpu } from "./percpu.ts";
import { KERN_ERR, KERN_WARNING, type Printk } from "./printk.ts";
import type { Task } from "./task.ts";
import { asPhys, type IrqContext, type PhysAddr, type Sleeping } from "./types.ts";
import { EBUSY, EINVAL, ENOMEM } from "./uapi/errno.ts";

/** Not from my device. */
export const IRQ_NONE = 0;
export const IRQ_HANDLED = 1;
/** Handled as far as it may be here; the action's thread does the rest. */
export const IRQ_WAKE_THREAD = 2;

/** Interrupts taken at one checkpoint. */
export const MAX_PER_CHECKPOINT = 32;
/** Handlers on top of each other on one CPU; one more level of the field is an NMI's. */
export const MAX_HARDIRQ_DEPTH = 14;

export interface IrqAction {
  readonly name: string;
  /** Plain function with interrupts off: IRQ_NONE, IRQ_HANDLED or IRQ_WAKE_THREAD. */
  readonly handler: (ctx: IrqContext) => number;
  readonly isShared?: boolean;
  /** What the kernel thread irq/<line>-<name> does each time it is woken; may sleep. */
  readonly thread?: (task: Task) => Sleeping<void>;
}

export interface IrqLine {
  readonly line: number;
  /** Names of its actions, separated by commas. */
  readonly name: string;
  /** Interrupts taken, per CPU. */
  readonly counts: readonly number[];
}

/** irq_thread.ts gives this; irq.ts stands below tasks and cannot start any itself. */
export interface IrqThreads {
  /** Starts the thread of an action in `slot`; false without memory. */
  start(line: number, slot: number, action: IrqAction): boolean;
  /** False if the thread is gone: a bug ended it. */
  wake(line: number, slot: number): boolean;
  /** The thread ends as soon as it is not in the middle of its work; it calls `threadEnded`. */
  stop(line: number, slot: number): void;
}

export interface Irqs {
  /**
   * Adds a handler to a line: 0; −EBUSY if the line is taken and not shared by both, or has MAX_ACTIONS; −EINVAL for a
   * line that does not exist, or an action that is there already; −ENOMEM without memory for its thread. Process
   * context.
   */
  requestIrq(line: number, action: IrqAction): number;
  /**
   * Takes an action away. Its handler is not called any more; its thread ends after what it is doing just now (wait for
   * that with irqThreads.synchronize). The last action leaves the line masked.
   */
  freeIrq(line: number, action: IrqAction): void;
  /** Masks a line until as many enableIrq calls. Any context; does not wait for threads. */
  disableIrq(line: number): void;
  enableIrq(line: number): void;
  /** Sends a device line to another CPU: 0, or −EINVAL for a line or CPU that cannot be. */
  setAffinity(line: number, cpu: number): number;
  /** Sends the lines of a CPU that goes offline to `target`: which ones. */
  moveLines(from: number, target: number): readonly number[];
  /** Fires device events that are due, looks at NMI and timer, takes what is pending if interrupts are on. */
  checkpoint(cpu: number): void;
  /**
   * Called after an interrupt, when no hardirq is left on that CPU: interrupts are off, and preempt_count is that of
   * the interrupted code (a softirq, or a section with softirqs off: the hook looks for itself).
   */
  onIrqExit(hook: (ctx: IrqContext) => void): void;
  /** What happens when a handler or exit hook is a kernel bug; without it the error goes on to the host. */
  onFatal(hook: (ctx: IrqContext, error: Error) => void): void;
  /** Goes the way of onFatal for a kernel bug in any interrupt; false if this error is none of the kernel's. */
  die(ctx: IrqContext, error: unknown): boolean;
  setThreads(threads: IrqThreads): void;
  /** For irq_thread.ts: whether a thread has been asked to run; takes the request. */
  takeWake(line: number, slot: number): boolean;
  /** For irq_thread.ts: one round of the thread is through; the line opens when all are. */
  threadDone(line: number, slot: number): void;
  /** For irq_thread.ts: the thread is gone, and its slot free unless its action is still there. */
  threadEnded(line: number, slot: number): void;
  /** Threads of the line are at work or asked to be, or of actions that were freed and not gone yet. */
  areThreadsActive(line: number): boolean;
  /** Wait queue of the line, for irq_thread.ts. */
  threadQueue(line: number): PhysAddr;
  /** Slot of an action, −1 if the line does not have it. */
  slotOf(line: number, action: IrqAction): number;
  lines(): readonly IrqLine[];
  /** Interrupts taken on a line, per CPU; of IRQ_SPURIOUS, how often each acknowledged nothing. */
  countsOf(line: number): readonly number[];
  /** Interrupts of lines without a handler (ERR). */
  nrSpurious(): number;
  /** IRQ-4 and the chip's own invariant: a sentence about the first violation, or null. */
  check(): string | null;
}

export interface IrqDeps {
  readonly machine: Machine;
  readonly image: KernelImage;
  readonly percpu: PerCpu;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  /** Interrupts per judgement of a line; default 100 000. */
  readonly unhandledLimit?: number;
}

export function createIrqs(deps: IrqDeps): Irqs {
  const { machine, percpu, contexts, printk } = deps;
  const { port, harts, irqChip, events } = machine;
  const { irqOn, pending, clock, current, online, nrCpus } = harts;
  const COUNTS = percpu.define("irq_counts", NR_IRQ_LINES * 4);
  const statics = deps.image.bss("irq_desc", NR_IRQ_LINES * IRQ_DESC_BYTES + 8, 8);
  const descs = createIrqDescs(port, statics);
  const NR_ERRORS = statics + NR_IRQ_LINES * IRQ_DESC_BYTES;
  const actions: (IrqAction | undefined)[][] = Array.from({ length: NR_IRQ_LINES }, () => []);
  const exitHooks: ((ctx: IrqContext) => void)[] = [];
  let threads: IrqThreads | undefined;
  let fatal: ((ctx: IrqContext, error: Error) => void) | undefined;
  let isHalted = false;

  const actionsOf = (line: number): IrqAction[] =>
    (actions[line] as (IrqAction | undefined)[]).filter((action) => action !== undefined);
  const note = createSpurious({
    irqChip,
    clock,
    descs,
    contexts,
    printk,
    limit: deps.unhandledLimit ?? DEFAULT_UNHANDLED_LIMIT,
    handlers: (line) => actionsOf(line).map((action) => action.name),
  });

  // ── Taking interrupts ────────────────────────────────────────────────────────────────────────────────────────────

  const wakeThread = (line: number, slot: number, action: IrqAction): void => {
    if (action.thread === undefined) {
      printk(
        KERN_WARNING,
        `IRQ ${line} device ${action.name} returned IRQ_WAKE_THREAD but no thread function available.`,
      );
      return;
    }
    if (threads?.wake(line, slot) !== true) return;
    descs.set(line, DESC_THREADS, descs.get(line, DESC_THREADS) | (1 << slot));
    descs.set(line, DESC_WAKE + 4 * slot, 1);
    irqChip.mask(line);
  };

  /** A handler that took a lock and kept it would make everything after it atomic: reported, and put right. */
  const restoreCount = (ctx: IrqContext, line: number, action: IrqAction, before: number): void => {
    const after = contexts.preemptCount(ctx);
    if (after === before) return;
    const hex = (count: number): string => count.toString(16).padStart(8, "0");
    const text = `irq ${line}: ${action.name} preempt leak: ${hex(before)} -> ${hex(after)}?`;
    contexts.warn(ctx, "kernel/irq.ts:runActions", text);
    contexts.add(ctx, before - after);
  };

  const runActions = (ctx: IrqContext, line: number): void => {
    const slots = actions[line] as (IrqAction | undefined)[];
    const before = contexts.preemptCount(ctx);
    let all = IRQ_NONE;
    for (let slot = 0; slot < slots.length; slot++) {
      const action = slots[slot];
      if (action === undefined) continue;
      const answer = action.handler(ctx);
      contexts.hardirqsOff(ctx.cpu);
      restoreCount(ctx, line, action, before);
      if (answer === IRQ_WAKE_THREAD) wakeThread(line, slot, action);
      if (answer !== IRQ_NONE && answer !== IRQ_HANDLED && answer !== IRQ_WAKE_THREAD) {
        printk(KERN_ERR, `irq event ${line}: bogus return value ${Number(answer).toString(16)}`);
      } else all |= answer;
    }
    if (line >= FIRST_DEVICE_LINE) note(ctx, line, all !== IRQ_NONE);
  };

  const runExitHooks = (ctx: IrqContext): void => {
    for (let i = 0; i < exitHooks.length; i++) {
      (exitHooks[i] as (ctx: IrqContext) => void)(ctx);
      contexts.hardirqsOff(ctx.cpu);
    }
  };

  const take = (ctx: IrqContext, line: number): void => {
    const { cpu } = ctx;
    clock[cpu] = (clock[cpu] as number) + CYC_IRQ;
    const counter = ctx.area + COUNTS + line * 4;
    port.st32(counter, port.ld32(counter) + 1);
    if (line === IRQ_SPURIOUS) return;
    const interrupted = current[0] as number;
    current[0] = cpu;
    contexts.add(ctx, HARDIRQ_OFFSET);
    if ((actions[line] as unknown[]).length > 0) runActions(ctx, line);
    else {
      port.st32(NR_ERRORS, port.ld32(NR_ERRORS) + 1);
      if (irqChip.isAsserted(line)) irqChip.mask(line);
    }
    contexts.subtract(ctx, HARDIRQ_OFFSET);
    irqChip.complete(cpu, line);
    if (!contexts.inHardirq(ctx)) runExitHooks(ctx);
    current[0] = interrupted;
  };

  const die = (ctx: IrqContext, error: unknown): boolean => {
    if (fatal === undefined || !(error instanceof KernelBug || error instanceof BadAccess)) return false;
    isHalted = true;
    fatal(ctx, error);
    return true;
  };

  // `try`, against the rule of fast paths: what a handler throws must not unwind the code that it interrupted.
  const takeSafely = (ctx: IrqContext, line: number): void => {
    const count = contexts.preemptCount(ctx);
    const interrupted = current[0] as number;
    try {
      take(ctx, line);
    } catch (error) {
      if (!die(ctx, error)) throw error;
      contexts.add(ctx, count - contexts.preemptCount(ctx));
      irqChip.complete(ctx.cpu, line);
      current[0] = interrupted;
    }
  };

  const deliver = (cpu: number): void => {
    if (isHalted) return;
    const ctx = contexts.irqContext(cpu);
    if (contexts.inNmi(ctx)) return;
    contexts.hardirqsOff(cpu);
    for (let taken = 0; taken < MAX_PER_CHECKPOINT && !isHalted; taken++) {
      if ((contexts.preemptCount(ctx) & HARDIRQ_MASK) >= MAX_HARDIRQ_DEPTH * HARDIRQ_OFFSET) break;
      const line = irqChip.acknowledge(cpu);
      if (line < 0) break;
      takeSafely(ctx, line);
    }
    contexts.hardirqsOn(cpu);
  };
  const checkpoint = (cpu: number): void => {
    const now = clock[cpu] as number;
    if (events.nextTime() <= now) events.runDue(now);
    irqChip.pollNmi(cpu);
    irqChip.checkTimer(cpu);
    if (pending[cpu] !== 0 && irqOn[cpu] === 1) deliver(cpu);
  };
  contexts.onInterruptPoint(checkpoint);
  contexts.onInterruptible(deliver);

  // ── Requesting, disabling ────────────────────────────────────────────────────────────────────────────────────────

  const isLine = (line: number): boolean => Number.isInteger(line) && line >= 0 && line < IRQ_SPURIOUS;

  const updateMask = (line: number): void => {
    if (descs.get(line, DESC_DEPTH) !== 0 || descs.get(line, DESC_THREADS) !== 0) irqChip.mask(line);
    else irqChip.unmask(line);
    if (pending[current[0] as number] !== 0 && irqOn[current[0] as number] === 1) deliver(current[0] as number);
  };

  const mayShare = (line: number, action: IrqAction): boolean => {
    const first = actionsOf(line)[0];
    if (first === undefined || (first.isShared === true && action.isShared === true)) return true;
    const flags = (one: IrqAction): string => (one.isShared === true ? "00000080" : "00000000");
    printk(
      KERN_ERR,
      `genirq: Flags mismatch irq ${line}. ${flags(action)} (${action.name}) vs. ${flags(first)} (${first.name})`,
    );
    return false;
  };

  const freeSlot = (line: number): number => {
    const busy = descs.get(line, DESC_BUSY);
    for (let slot = 0; slot < MAX_ACTIONS; slot++) if ((busy & (1 << slot)) === 0) return slot;
    return -1;
  };

  /** The first action opens the line; one more on a line that was given up gives it another chance. */
  const openLine = (line: number, isFirst: boolean): void => {
    const wasGivenUp = (descs.get(line, DESC_STATE) & IRQS_SPURIOUS_DISABLED) !== 0;
    if (isFirst) descs.set(line, DESC_DEPTH, 0);
    else if (wasGivenUp) descs.set(line, DESC_DEPTH, Math.max(0, descs.get(line, DESC_DEPTH) - 1));
    descs.set(line, DESC_STATE, 0);
    descs.set(line, DESC_COUNT, 0);
    descs.set(line, DESC_UNHANDLED, 0);
    updateMask(line);
  };

  const requestIrq = (line: number, action: IrqAction): number => {
    if (!isLine(line) || slotOf(line, action) >= 0) return -EINVAL;
    if (!mayShare(line, action)) return -EBUSY;
    const slot = freeSlot(line);
    if (slot < 0) return -EBUSY;
    if (action.thread !== undefined && threads?.start(line, slot, action) !== true) return -ENOMEM;
    const isFirst = actionsOf(line).length === 0;
    descs.set(line, DESC_BUSY, descs.get(line, DESC_BUSY) | (1 << slot));
    descs.set(line, DESC_WAKE + 4 * slot, 0);
    (actions[line] as (IrqAction | undefined)[])[slot] = action;
    openLine(line, isFirst);
    return 0;
  };

  const slotOf = (line: number, action: IrqAction): number => (actions[line] ?? []).indexOf(action);

  const releaseSlot = (line: number, slot: number): void => {
    descs.set(line, DESC_BUSY, descs.get(line, DESC_BUSY) & ~(1 << slot));
  };

  const freeIrq = (line: number, action: IrqAction): void => {
    const slot = slotOf(line, action);
    if (slot < 0) {
      printk(KERN_WARNING, `Trying to free already-free IRQ ${line}`);
      return;
    }
    const slots = actions[line] as (IrqAction | undefined)[];
    slots[slot] = undefined;
    while (slots.length > 0 && slots[slots.length - 1] === undefined) slots.pop();
    if (slots.length === 0) {
      descs.set(line, DESC_DEPTH, 1);
      irqChip.mask(line);
    }
    if (action.thread === undefined) releaseSlot(line, slot);
    else threads?.stop(line, slot);
  };

  const threadDone = (line: number, slot: number): void => {
    descs.set(line, DESC_THREADS, descs.get(line, DESC_THREADS) & ~(1 << slot));
    updateMask(line);
  };

  return {
    requestIrq,
    freeIrq,
    disableIrq(line) {
      descs.set(line, DESC_DEPTH, descs.get(line, DESC_DEPTH) + 1);
      irqChip.mask(line);
    },
    enableIrq(line) {
      const depth = descs.get(line, DESC_DEPTH);
      if (depth === 0) {
        printk(KERN_WARNING, `Unbalanced enable for IRQ ${line}`);
        return;
      }
      descs.set(line, DESC_DEPTH, depth - 1);
      updateMask(line);
    },
    setAffinity(line, cpu) {
      if (!isLine(line) || line < FIRST_DEVICE_LINE || online[cpu] !== 1) return -EINVAL;
      irqChip.route(line, cpu);
      return 0;
    },
    moveLines(from, target) {
      const moved = Array.from({ length: NR_IRQ_LINES }, (_, line) => line).filter(
        (line) => irqChip.routeOf(line) === from,
      );
      for (const line of moved) irqChip.route(line, target);
      return moved;
    },
    checkpoint,
    onIrqExit: (hook) => {
      exitHooks.push(hook);
    },
    onFatal(hook) {
      fatal = hook;
    },
    setThreads(ops) {
      threads = ops;
    },
    takeWake(line, slot) {
      const isAsked = descs.get(line, DESC_WAKE + 4 * slot) === 1;
      descs.set(line, DESC_WAKE + 4 * slot, 0);
      return isAsked;
    },
    threadDone,
    threadEnded(line, slot) {
      threadDone(line, slot);
      if (actions[line]?.[slot] === undefined) releaseSlot(line, slot);
    },
    areThreadsActive(line) {
      const busy = descs.get(line, DESC_BUSY);
      const present = (actions[line] ?? []).reduce((mask, action, slot) => (action ? mask | (1 << slot) : mask), 0);
      return descs.get(line, DESC_THREADS) !== 0 || (busy & ~present) !== 0;
    },
    threadQueue: (line) => asPhys(statics + line * IRQ_DESC_BYTES + DESC_WAITERS),
    die,
    slotOf,
    lines: () =>
      Array.from({ length: IRQ_SPURIOUS }, (_, line) => ({
        line,
        name: actionsOf(line)
          .map((action) => action.name)
          .join(", "),
        counts: countsOf(line),
      })).filter(({ name }) => name !== ""),
    countsOf,
    nrSpurious: () => port.ld32(NR_ERRORS),
    check() {
      const cpu = irqChip.checkPending();
      if (cpu >= 0) return `CHIP-1: pending lines of CPU ${cpu} are not what wires and latches say`;
      for (let line = 0; line < NR_IRQ_LINES; line++) {
        const isHeld = descs.get(line, DESC_DEPTH) !== 0 || descs.get(line, DESC_THREADS) !== 0;
        if (actionsOf(line).length > 0 && isHeld !== irqChip.isMasked(line)) return `IRQ-4: mask of line ${line}`;
      }
      return null;
    },
  };

  function countsOf(line: number): number[] {
    return Array.from({ length: nrCpus }, (_, cpu) => port.ld32(percpu.areaOf(cpu) + COUNTS + line * 4));
  }
}
