/**
 * Context tracking: on which CPU, at which interrupt level, with what switched off.
 *
 * 1. Every kernel path carries a Context. Its type says what the compiler may allow (a TaskContext may sleep, an
 *    IrqContext may not); the per-CPU word `preempt_count` says what holds at run time:
 *
 *      bit  31         20-23   16-19     8-15      0-7
 *           NEED_RESCHED  NMI   hardirq   softirq   preempt depth                    (C1, the layout of Linux)
 *
 *    A spinlock adds 1, local_bh_disable 0x200, serving a softirq 0x100, a hardirq 0x10000, an NMI 0x100000.
 *
 * 2. Code may sleep iff the word (without bit 31) is 0 and the CPU accepts interrupts. `mightSleep` says so at the top
 *    of everything that could sleep, even when this call would not have (G2): a bug should show on every run, not on
 *    the one run in a thousand that finds the free list empty.
 *
 * 3. Interrupts arrive at checkpoints only: when they are switched on again with one pending. Code between
 *    localIrqSave and localIrqRestore is therefore atomic on its CPU, and nothing else is; a non-maskable interrupt
 *    alone comes in between.
 *
 *   CTX-1  preempt_count is 0 at every return to user mode
 *   CTX-2  level NMI > hardirq > softirq > task; a level is entered from a lower one only
 *   CTX-3  localIrqRestore puts back exactly what localIrqSave returned
 *   CTX-4  the depth never underflows
 *
 * Real kernels: Linux `include/linux/preempt.h`, `kernel/sched/core.c` (__might_resched).
 */

import type { Machine } from "./arch/machine.ts";
import { bug, bugOn, stackNames } from "./bug.ts";
import type { KernelImage } from "./image.ts";
import { CYCLES_PER_SECOND } from "./params.ts";
import type { PerCpu } from "./percpu.ts";
import { KERN_ERR, KERN_INFO, KERN_WARNING, type Printk } from "./printk.ts";
import { TASK_PID, taskComm } from "./task_struct.ts";
import { asCpu, type Context, type IrqContext, type NmiContext, type Sleeping, type TaskContext } from "./types.ts";

// ── preempt_count (C1) ─────────────────────────────────────────────────────────────────────────────────────────────

export const PREEMPT_OFFSET = 0x1;
export const SOFTIRQ_OFFSET = 0x100;
export const SOFTIRQ_DISABLE_OFFSET = 0x200;
export const HARDIRQ_OFFSET = 0x1_0000;
export const NMI_OFFSET = 0x10_0000;
export const PREEMPT_MASK = 0xff;
export const SOFTIRQ_MASK = 0xff00;
export const HARDIRQ_MASK = 0xf_0000;
export const NMI_MASK = 0xf0_0000;
export const NEED_RESCHED = 0x8000_0000;
const COUNT_MASK = 0x7fff_ffff;
/** A copy for the fast path: an exported constant is loaded and checked on every use. */
const ONE_LEVEL = PREEMPT_OFFSET;
const INTERRUPT_MASK = SOFTIRQ_MASK | HARDIRQ_MASK | NMI_MASK;

export const SYSTEM_BOOTING = 0;
export const SYSTEM_RUNNING = 1;

export interface ContextTracking {
  /** The idle task's context on `cpu`: what boot and kernel threads without a task use. */
  taskContext(cpu: number): TaskContext;
  /** The interrupt context of `cpu`; one per CPU, entered only by kernel/irq.ts. */
  irqContext(cpu: number): IrqContext;
  /** The same for non-maskable interrupts; entered only by kernel/nmi.ts. */
  nmiContext(cpu: number): NmiContext;
  /** A new context for a task, at first on `cpu`. */
  createTaskContext(cpu: number): TaskContext;
  /** Moves a task's context to `cpu`. Scheduler only. */
  migrate(ctx: TaskContext, cpu: number): void;

  preemptCount(ctx: Context): number;
  /** Adds an OFFSET above; `subtract` undoes it. */
  add(ctx: Context, offset: number): void;
  subtract(ctx: Context, offset: number): void;
  preemptDisable(ctx: Context): void;
  preemptEnable(ctx: Context): void;
  /** Switches interrupts off on this CPU; returns what to pass to localIrqRestore. */
  localIrqSave(ctx: Context): number;
  /** Puts the interrupt flag back; delivers what became pending meanwhile. */
  localIrqRestore(ctx: Context, flags: number): void;
  irqsDisabled(ctx: Context): boolean;
  /**
   * Switches interrupts on, whatever they were, and delivers what is pending. In a hardirq handler: only lines more
   * urgent than its own are taken on top of it.
   */
  localIrqEnable(ctx: Context): void;
  localIrqDisable(ctx: Context): void;
  /** What the hardware does at interrupt entry and return: the flag alone, nothing is delivered. kernel/irq.ts only. */
  hardirqsOff(cpu: number): void;
  hardirqsOn(cpu: number): void;

  inTask(ctx: Context): boolean;
  inServingSoftirq(ctx: Context): boolean;
  inHardirq(ctx: Context): boolean;
  inNmi(ctx: Context): boolean;
  inAtomic(ctx: Context): boolean;
  /** In a hardirq, an NMI or a softirq, or softirqs are switched off: no softirq may begin here. */
  inInterrupt(ctx: Context): boolean;
  /** 0 task, 1 softirq, 2 hardirq, 3 NMI. */
  level(ctx: Context): number;

  /** Prints C2's splat unless the caller could sleep here. `where` is `file:function`. At most one a second. */
  mightSleep(ctx: Context, where: string): void;
  /**
   * Watches the rest of a call that has to sleep: it must be iterated (`yield*`) before its task gives up the CPU.
   * Everything that hands out a Sleeping passes it through here.
   */
  mustIterate<T>(rest: Sleeping<T>): Sleeping<T>;
  /** Prints C3's line if a task gives up its CPU in atomic context, and puts the count right. Scheduler only. */
  scheduleDebug(ctx: Context): void;
  /** A task ends by an error: says what it had switched off, and switches it on again. Scheduler only. */
  exitDebug(ctx: Context): void;
  /** Number of splats since boot, printed or not. */
  nrAtomicSleeps(): number;

  /** How many RCU read sections are open on this CPU (kernel/rcu.ts), and one more or one less. */
  rcuDepth(ctx: Context): number;
  addRcuDepth(ctx: Context, delta: number): void;

  /** Linux's WARN(): a text, the place as `file:function`, the trace. Never stops anything. */
  warn(ctx: Context, where: string, text: string): void;
  /** Warnings since boot. */
  nrWarnings(): number;

  /** The running task's task_struct address; 0 while idle. */
  currentTask(ctx: Context): number;
  setCurrentTask(cpu: number, task: number): void;
  /** Bit 31: the running task is to make room soon. Set and cleared by the scheduler. */
  setNeedResched(cpu: number, isNeeded: boolean): void;
  needResched(cpu: number): boolean;

  setSystemState(state: number): void;
  /** kernel/irq.ts registers what to do with pending interrupts. */
  onInterruptible(deliver: (cpu: number) => void): void;
  /**
   * A place inside long kernel work, between two of its steps: devices act and interrupts are taken as if the CPU had
   * executed that many instructions, which it has. Whoever calls it must be able to stand an interrupt. Any context.
   */
  interruptPoint(ctx: Context): void;
  /** kernel/irq.ts registers what happens there. */
  onInterruptPoint(checkpoint: (cpu: number) => void): void;
  /** `CPU: 0 UID: 0 PID: 1 Comm: init Tainted: …` and `Call Trace:` lines: of `at`, or of here. */
  stackDump(ctx: Context, at?: Error): string;
  taint(flag: string): void;
  taintText(): string;
}

export function createContextTracking(
  machine: Machine,
  image: KernelImage,
  percpu: PerCpu,
  printk: Printk,
): ContextTracking {
  const { port, harts } = machine;
  const { irqOn, pending, clock } = harts;
  const PREEMPT_COUNT = percpu.define("preempt_count", 4);
  const CURRENT = percpu.define("current_task", 4);
  const RCU_DEPTH = percpu.define("rcu_nesting", 4);
  const statics = image.bss("context_state", 24, 8);
  const SYSTEM_STATE = statics;
  const NR_SPLATS = statics + 4;
  const NEXT_SPLAT = statics + 8;
  const NR_WARNINGS = statics + 20;
  /** One bit per taint letter. */
  const TAINT = statics + 16;
  let deliver: (cpu: number) => void = () => {};
  let checkpoint: (cpu: number) => void = () => {};

  const newContext = (cpu: number): Context => ({ cpu: asCpu(cpu), area: percpu.areaOf(cpu) });
  const taskContexts: TaskContext[] = [];
  const irqContexts: IrqContext[] = [];
  const nmiContexts: NmiContext[] = [];

  const preemptCount = (ctx: Context): number => port.ld32(ctx.area + PREEMPT_COUNT) & COUNT_MASK;
  const add = (ctx: Context, offset: number): void => {
    const addr = ctx.area + PREEMPT_COUNT;
    port.st32(addr, port.ld32(addr) + offset);
  };
  const subtract = (ctx: Context, offset: number): void => {
    const addr = (ctx.area + PREEMPT_COUNT) >>> 0;
    const count = port.ld32(addr);
    if ((count & COUNT_MASK) < offset) bug("CTX-4: preempt_count underflow", count, offset);
    port.st32(addr, count - offset);
  };

  const rcuDepth = (ctx: Context): number => port.ld32(ctx.area + RCU_DEPTH);

  const level = (ctx: Context): number => {
    const count = preemptCount(ctx);
    if ((count & NMI_MASK) !== 0) return 3;
    if ((count & HARDIRQ_MASK) !== 0) return 2;
    return (count & SOFTIRQ_OFFSET) !== 0 ? 1 : 0;
  };

  const TAINT_LETTERS = "PFSRMBUDAWCIOELKXTN";
  const taintText = (): string => {
    const bits = port.ld32(TAINT);
    const letters = [...TAINT_LETTERS].filter((_, i) => (bits >>> i) & 1);
    return letters.length === 0 ? "Not tainted" : `Tainted: ${letters.join(" ")}`;
  };

  const setTaint = (flag: string): void => {
    const bit = TAINT_LETTERS.indexOf(flag);
    if (bit < 0) bug("context: unknown taint letter");
    const mask = 1 << bit;
    for (let word = port.ld32(TAINT); (word & mask) === 0; word = port.ld32(TAINT)) {
      if (port.cas(TAINT, word, (word | mask) >>> 0) === word) break;
    }
  };

  const stackDump = (ctx: Context, at = new Error()): string => {
    const task = port.ld32(ctx.area + CURRENT) * 8;
    const pid = task === 0 ? 0 : port.ld32(task + TASK_PID);
    const who = `CPU: ${ctx.cpu} UID: 0 PID: ${pid} Comm: ${taskComm(port, task)} ${taintText()} 6.12.0-slabtown #1`;
    const trace = stackNames(at).map((name) => ` ${name}`);
    return [who, "Call Trace:", " <TASK>", ...trace, " </TASK>"].join("\n");
  };

  const splat = (ctx: Context, where: string): void => {
    if (port.ld32(SYSTEM_STATE) === SYSTEM_BOOTING) return;
    port.fetchAdd(NR_SPLATS, 1);
    const now = clock[ctx.cpu] as number;
    if (now < port.ldF64(NEXT_SPLAT)) return;
    port.stF64(NEXT_SPLAT, now + CYCLES_PER_SECOND);
    const task = port.ld32(ctx.area + CURRENT) * 8;
    const pid = task === 0 ? 0 : port.ld32(task + TASK_PID);
    const count = preemptCount(ctx);
    printk(
      KERN_ERR,
      [
        `BUG: sleeping function called from invalid context at ${where}`,
        `in_atomic(): ${count !== 0 ? 1 : 0}, irqs_disabled(): ${irqOn[ctx.cpu] === 0 ? 1 : 0}, non_block: 0, ` +
          `pid: ${pid}, name: ${taskComm(port, task)}`,
        `preempt_count: ${count.toString(16)}, expected: 0`,
        `RCU nest depth: ${rcuDepth(ctx)}, expected: 0`,
        stackDump(ctx),
      ].join("\n"),
    );
  };

  const warn = (ctx: Context, where: string, text: string): void => {
    port.st32(NR_WARNINGS, port.ld32(NR_WARNINGS) + 1);
    setTaint("W");
    const task = port.ld32(ctx.area + CURRENT) * 8;
    const pid = task === 0 ? 0 : port.ld32(task + TASK_PID);
    printk(
      KERN_WARNING,
      [
        "------------[ cut here ]------------",
        text,
        `WARNING: CPU: ${ctx.cpu} PID: ${pid} at ${where}`,
        stackDump(ctx),
        "---[ end trace 0000000000000000 ]---",
      ].join("\n"),
    );
  };

  /** A read section went to sleep: said in lockdep's words, and ended, as the count of preemption is below. */
  const reportReader = (ctx: Context): void => {
    port.st32(NR_SPLATS, port.ld32(NR_SPLATS) + 1);
    port.st32(ctx.area + RCU_DEPTH, 0);
    const bar = "=============================";
    printk(
      KERN_WARNING,
      [
        bar,
        "WARNING: suspicious RCU usage",
        `6.12.0-slabtown #1 ${taintText()}`,
        "-----------------------------",
        "kernel/sched.ts:resume Illegal context switch in RCU read-side critical section!",
        stackDump(ctx),
      ].join("\n"),
    );
  };

  // Calls that were made and not yet begun. A host counter: it is 0 whenever a machine can be saved.
  let nrUnstarted = 0;
  function* startOf<T>(rest: Sleeping<T>): Sleeping<T> {
    nrUnstarted--;
    return yield* rest;
  }
  const reportForgotten = (ctx: Context): void => {
    port.fetchAdd(NR_SPLATS, nrUnstarted);
    const who = taskComm(port, port.ld32(ctx.area + CURRENT) * 8);
    printk(KERN_ERR, `BUG: ${nrUnstarted} sleeping call(s) of ${who} never begun: forgotten yield*`);
    nrUnstarted = 0;
  };

  return {
    taskContext(cpu) {
      taskContexts[cpu] ??= newContext(cpu) as TaskContext;
      return taskContexts[cpu];
    },
    irqContext(cpu) {
      irqContexts[cpu] ??= newContext(cpu) as IrqContext;
      return irqContexts[cpu];
    },
    nmiContext(cpu) {
      nmiContexts[cpu] ??= newContext(cpu) as NmiContext;
      return nmiContexts[cpu];
    },
    createTaskContext: (cpu) => newContext(cpu) as TaskContext,
    migrate(ctx, cpu) {
      ctx.cpu = asCpu(cpu);
      ctx.area = percpu.areaOf(cpu);
    },

    preemptCount,
    add,
    subtract,
    preemptDisable(ctx) {
      const addr = (ctx.area + PREEMPT_COUNT) >>> 0;
      port.st32(addr, port.ld32(addr) + ONE_LEVEL);
    },
    preemptEnable: (ctx) => subtract(ctx, ONE_LEVEL),
    localIrqSave(ctx) {
      const flags = irqOn[ctx.cpu] as number;
      irqOn[ctx.cpu] = 0;
      return flags;
    },
    localIrqRestore(ctx, flags) {
      irqOn[ctx.cpu] = flags;
      if (flags !== 0 && pending[ctx.cpu] !== 0) deliver(ctx.cpu);
    },
    irqsDisabled: (ctx) => irqOn[ctx.cpu] === 0,
    localIrqEnable(ctx) {
      irqOn[ctx.cpu] = 1;
      if (pending[ctx.cpu] !== 0) deliver(ctx.cpu);
    },
    localIrqDisable(ctx) {
      irqOn[ctx.cpu] = 0;
    },
    hardirqsOff(cpu) {
      irqOn[cpu] = 0;
    },
    hardirqsOn(cpu) {
      irqOn[cpu] = 1;
    },

    inTask: (ctx) => level(ctx) === 0,
    inServingSoftirq: (ctx) => (preemptCount(ctx) & SOFTIRQ_OFFSET) !== 0,
    inHardirq: (ctx) => (preemptCount(ctx) & HARDIRQ_MASK) !== 0,
    inNmi: (ctx) => (preemptCount(ctx) & NMI_MASK) !== 0,
    inAtomic: (ctx) => preemptCount(ctx) !== 0,
    inInterrupt: (ctx) => (preemptCount(ctx) & INTERRUPT_MASK) !== 0,
    level,

    mightSleep(ctx, where) {
      if ((port.ld32(ctx.area + PREEMPT_COUNT) & COUNT_MASK) !== 0 || irqOn[ctx.cpu] === 0) splat(ctx, where);
    },
    mustIterate(rest) {
      nrUnstarted++;
      return startOf(rest);
    },
    scheduleDebug(ctx) {
      if (nrUnstarted !== 0) reportForgotten(ctx);
      if (rcuDepth(ctx) !== 0) reportReader(ctx);
      const count = preemptCount(ctx);
      if (count === 0 && irqOn[ctx.cpu] === 1) return;
      port.fetchAdd(NR_SPLATS, 1);
      const task = port.ld32(ctx.area + CURRENT) * 8;
      const pid = task === 0 ? 0 : port.ld32(task + TASK_PID);
      const hex = count.toString(16).padStart(8, "0");
      printk(KERN_ERR, `BUG: scheduling while atomic: ${taskComm(port, task)}/${pid}/0x${hex}`);
      port.st32(ctx.area + PREEMPT_COUNT, 0);
      irqOn[ctx.cpu] = 1;
    },
    exitDebug(ctx) {
      const task = port.ld32(ctx.area + CURRENT) * 8;
      const who = `${taskComm(port, task)}[${task === 0 ? 0 : port.ld32(task + TASK_PID)}]`;
      const count = preemptCount(ctx);
      if (irqOn[ctx.cpu] === 0) printk(KERN_INFO, `note: ${who} exited with irqs disabled`);
      if (count !== 0) printk(KERN_INFO, `note: ${who} exited with preempt_count ${count}`);
      port.st32(ctx.area + PREEMPT_COUNT, 0);
      port.st32(ctx.area + RCU_DEPTH, 0);
      irqOn[ctx.cpu] = 1;
    },
    nrAtomicSleeps: () => port.ld32(NR_SPLATS),

    rcuDepth,
    addRcuDepth(ctx, delta) {
      const depth = rcuDepth(ctx) + delta;
      bugOn(depth < 0, "RCU-1: a read section ends that was not begun", ctx.cpu);
      port.st32(ctx.area + RCU_DEPTH, depth);
    },

    warn,
    nrWarnings: () => port.ld32(NR_WARNINGS),

    currentTask: (ctx) => port.ld32(ctx.area + CURRENT) * 8,
    setCurrentTask: (cpu, task) => port.st32(percpu.areaOf(cpu) + CURRENT, task / 8),

    setNeedResched(cpu, isNeeded) {
      const addr = percpu.areaOf(cpu) + PREEMPT_COUNT;
      port.st32(addr, (port.ld32(addr) & COUNT_MASK) + (isNeeded ? NEED_RESCHED : 0));
    },
    needResched: (cpu) => port.ld32(percpu.areaOf(cpu) + PREEMPT_COUNT) >= NEED_RESCHED,

    setSystemState: (state) => port.st32(SYSTEM_STATE, state),
    onInterruptible(hook) {
      deliver = hook;
    },
    interruptPoint: (ctx) => checkpoint(ctx.cpu),
    onInterruptPoint(hook) {
      checkpoint = hook;
    },
    stackDump,
    taint: setTaint,
    taintText,
  };
}
