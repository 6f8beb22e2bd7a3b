/**
 * Kernel timers: functions that are to be called at a moment of virtual time.
 *
 * 1. A timer is 32 bytes of its owner's memory. Each CPU has a red-black tree of its timers by expiry; the CPU's
 *    hardware timer is programmed for the first. Its interrupt raises TIMER_SOFTIRQ, which takes every timer that is
 *    due off the tree and calls its function.
 *
 * 2. Why a tree and not a wheel. Linux hashes these timers into a wheel of eight levels: adding is O(1), but a timer is
 *    only as exact as its level (4 ms near, minutes far away), which pays for the millions of timeouts that are taken
 *    back before they expire. Our machine has tens of timers and a hardware timer that is exact to the cycle, so we pay
 *    O(log n) and keep exact times, as Linux does in its hrtimers.
 *
 * 3. Precision: a function is never called before its time. On an idle CPU the clock jumps to exactly that time, so it
 *    is late by the entry of interrupt and softirq (700 cycles), more if others are due at the same moment. On a CPU
 *    that runs a program it is called at the next checkpoint: after at most 2,000 cycles of a program that asks
 *    whether its time is up, or after the longest kernel path without a checkpoint.
 *
 *   offset  width  field    meaning
 *   +0      16     node     of the CPU's tree, while it waits
 *   +16     f64    expires  virtual time in cycles
 *   +24     u32    fn       number that registerTimerFn() gave
 *   +28     u32    where    1 + the CPU on whose tree it is; 0: it is not waiting
 *
 *   TMR-1  a function runs once for each time its timer was armed, at or after the expiry, unless taken back before
 *   TMR-2  of one CPU's timers those due earlier run first; equal ones in the order of arming
 *   TMR-3  when a function is called its timer is no longer waiting: the function may arm it again, or free it
 *   TMR-4  the hardware timer of a CPU is never programmed later than its first kernel timer
 *   TMR-5  a timer that waits is on the tree of an online CPU
 *
 * The functions run in TIMER_SOFTIRQ with interrupts on. Locks: none; a tree is touched with interrupts off, and code
 * of another CPU never runs in between (spinlock.ts). Source: Linux `kernel/time/timer.c`, `kernel/time/hrtimer.c`.
 */

import { CYC_SOFTIRQ } from "./arch/charges.ts";
import type { Machine } from "./arch/machine.ts";
import { bugOn } from "./bug.ts";
import type { ContextTracking } from "./context.ts";
import type { KernelImage } from "./image.ts";
import { createRbTree } from "./lib/rbtree.ts";
import { KTIME_MAX } from "./params.ts";
import type { PerCpu } from "./percpu.ts";
import type { EarliestTimer, Scheduler } from "./sched.ts";
import { type Softirqs, TIMER_SOFTIRQ } from "./softirq.ts";
import { asPhys, type Context, type IrqContext, NULL, type PhysAddr } from "./types.ts";

export type TimerFn = (ctx: IrqContext, timer: PhysAddr) => void;

export const TIMER_BYTES = 32;
const TIMER_EXPIRES = 16;
const TIMER_FN = 24;
const TIMER_WHERE = 28;

const BASE_ROOT = 0;
const BASE_NR = 4;
/** Granule of the timer whose function runs now, 0 between them. */
const BASE_RUNNING = 8;
const BASE_BYTES = 16;

const NEVER = Number.POSITIVE_INFINITY;

export interface Timers extends EarliestTimer {
  /** Gives a function its number: code cannot live in RAM. Composition, or a driver that is loaded. */
  registerTimerFn(fn: TimerFn): number;
  /** Makes the TIMER_BYTES at `timer` (8-aligned) a timer that is not waiting. */
  init(timer: PhysAddr, fn: number): void;
  /** Arms a timer on this CPU, or moves one that waits; true if it was waiting. Any context but NMI. O(log n). */
  modTimer(ctx: Context, timer: PhysAddr, expiresCycles: number): boolean;
  /** The same on another CPU, which must be online. */
  modTimerOn(ctx: Context, timer: PhysAddr, expiresCycles: number, cpu: number): boolean;
  /** Takes a timer back; true if it was waiting. Its function may be running. Any context but NMI. */
  delTimer(ctx: Context, timer: PhysAddr): boolean;
  /** The same, and its function is not running either when this returns. Not from a hardirq, nor from that function. */
  delTimerSync(ctx: Context, timer: PhysAddr): boolean;
  isPending(timer: PhysAddr): boolean;
  expires(timer: PhysAddr): number;
  /** When the first timer of a CPU is due; Infinity if it has none. */
  firstOn(cpu: number): number;
  /** Timers that wait on a CPU. */
  nrPending(cpu: number): number;
  /** Moves all timers of a CPU that goes offline to this one. O(n log n). */
  migrate(ctx: Context, fromCpu: number): void;
  check(): string | null;
}

export interface TimerDeps {
  readonly machine: Machine;
  readonly image: KernelImage;
  readonly percpu: PerCpu;
  readonly contexts: ContextTracking;
  readonly softirqs: Softirqs;
}

export function createTimers({ machine, image, percpu, contexts, softirqs }: TimerDeps): Timers {
  const { port, harts } = machine;
  const { clock, timerDeadline, nrCpus } = harts;
  const BASE = percpu.define("timer_base", BASE_BYTES, 8);
  /** The earliest expiry of all CPUs (f64, 0: no timer anywhere), its CPU, and how many timers have fired. */
  const EARLIEST = image.bss("earliest_timer", 16, 8);
  const fns: TimerFn[] = [];

  const expires = (timer: PhysAddr): number => port.ldF64(timer + TIMER_EXPIRES);
  const byExpiry = createRbTree(port, { less: (a, b) => expires(a) < expires(b) });
  const baseOf = (cpu: number): PhysAddr => asPhys(percpu.areaOf(cpu) + BASE);
  const first = (cpu: number): PhysAddr => byExpiry.first(asPhys(baseOf(cpu) + BASE_ROOT));
  const nrPending = (cpu: number): number => port.ld32(baseOf(cpu) + BASE_NR);

  const setEarliest = (time: number, cpu: number): void => {
    port.stF64(EARLIEST, time);
    port.st32(EARLIEST + 8, cpu);
  };
  const findEarliest = (): void => {
    let [time, owner] = [0, 0];
    for (let cpu = 0; cpu < nrCpus; cpu++) {
      const timer = nrPending(cpu) === 0 ? NULL : first(cpu);
      if (timer !== NULL && (time === 0 || expires(timer) < time)) [time, owner] = [expires(timer), cpu];
    }
    setEarliest(time, owner);
  };

  const program = (cpu: number, time: number): void => {
    if (time < (timerDeadline[cpu] as number)) timerDeadline[cpu] = time;
  };

  const insert = (timer: PhysAddr, cpu: number): void => {
    const base = baseOf(cpu);
    byExpiry.insert(asPhys(base + BASE_ROOT), timer);
    port.st32(timer + TIMER_WHERE, cpu + 1);
    port.st32(base + BASE_NR, port.ld32(base + BASE_NR) + 1);
    const time = expires(timer);
    program(cpu, time);
    if (port.ldF64(EARLIEST) === 0 || time < port.ldF64(EARLIEST)) setEarliest(time, cpu);
  };

  const remove = (timer: PhysAddr): void => {
    const cpu = port.ld32(timer + TIMER_WHERE) - 1;
    const base = baseOf(cpu);
    byExpiry.erase(asPhys(base + BASE_ROOT), timer);
    port.st32(timer + TIMER_WHERE, 0);
    port.st32(base + BASE_NR, port.ld32(base + BASE_NR) - 1);
    if (expires(timer) === port.ldF64(EARLIEST)) findEarliest();
  };

  const isPending = (timer: PhysAddr): boolean => port.ld32(timer + TIMER_WHERE) !== 0;

  const delTimer = (ctx: Context, timer: PhysAddr): boolean => {
    const flags = contexts.localIrqSave(ctx);
    const wasPending = isPending(timer);
    if (wasPending) remove(timer);
    contexts.localIrqRestore(ctx, flags);
    return wasPending;
  };

  const modTimerOn = (ctx: Context, timer: PhysAddr, time: number, cpu: number): boolean => {
    bugOn(!(time >= 0) || time === NEVER, "timer: the expiry is no time", timer);
    bugOn(harts.online[cpu] !== 1, "TMR-5: a timer for a CPU that is offline", timer, cpu);
    const flags = contexts.localIrqSave(ctx);
    const wasPending = isPending(timer);
    if (wasPending) remove(timer);
    // 0 stands for "no timer"; nothing can be due before the first cycle anyway.
    port.stF64(timer + TIMER_EXPIRES, Math.max(time, 1));
    insert(timer, cpu);
    contexts.localIrqRestore(ctx, flags);
    return wasPending;
  };

  /** TIMER_SOFTIRQ: all that is due, also what becomes due meanwhile. */
  const runExpired = (ctx: IrqContext): void => {
    const base = baseOf(ctx.cpu);
    for (;;) {
      const flags = contexts.localIrqSave(ctx);
      const timer = first(ctx.cpu);
      const isDue = timer !== NULL && expires(timer) <= (clock[ctx.cpu] as number);
      if (isDue) remove(timer);
      else if (timer !== NULL) program(ctx.cpu, expires(timer));
      contexts.localIrqRestore(ctx, flags);
      if (!isDue) return;
      port.st32(base + BASE_RUNNING, timer / 8);
      port.fetchAdd(EARLIEST + 12, 1);
      clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_SOFTIRQ;
      (fns[port.ld32(timer + TIMER_FN)] as TimerFn)(ctx, timer);
      port.st32(base + BASE_RUNNING, 0);
    }
  };
  softirqs.openSoftirq(TIMER_SOFTIRQ, runExpired);

  const isRunning = (timer: PhysAddr): boolean => {
    for (let cpu = 0; cpu < nrCpus; cpu++) if (port.ld32(baseOf(cpu) + BASE_RUNNING) === timer / 8) return true;
    return false;
  };

  return {
    registerTimerFn: (fn) => fns.push(fn) - 1,
    init(timer, fn) {
      bugOn(fns[fn] === undefined, "timer: no such function", timer, fn);
      port.fill(timer, 0, TIMER_BYTES);
      port.st32(timer + TIMER_FN, fn);
    },
    modTimer: (ctx, timer, time) => modTimerOn(ctx, timer, time, ctx.cpu),
    modTimerOn,
    delTimer,
    delTimerSync(ctx, timer) {
      if (contexts.inHardirq(ctx)) {
        contexts.warn(ctx, "kernel/timer.ts:delTimerSync", "delTimerSync may wait for a softirq, from a hardirq");
      }
      const wasPending = delTimer(ctx, timer);
      // Functions of other CPUs run to completion: one that runs now is below us, and would be waited for for ever.
      bugOn(isRunning(timer), "timer: delTimerSync of the timer whose function runs below", timer);
      return wasPending;
    },
    isPending,
    expires,
    firstOn: (cpu) => (nrPending(cpu) === 0 ? NEVER : expires(first(cpu))),
    nrPending,
    migrate(ctx, fromCpu) {
      const flags = contexts.localIrqSave(ctx);
      for (let timer = first(fromCpu); timer !== NULL; timer = first(fromCpu)) {
        remove(timer);
        insert(timer, ctx.cpu);
      }
      contexts.localIrqRestore(ctx, flags);
    },
    time() {
      const time = port.ldF64(EARLIEST);
      return time === 0 || time >= KTIME_MAX ? NEVER : time;
    },
    cpu: () => port.ld32(EARLIEST + 8),
    nrFired: () => port.ld32(EARLIEST + 12),
    check() {
      let least = 0;
      for (let cpu = 0; cpu < nrCpus; cpu++) {
        const root = asPhys(baseOf(cpu) + BASE_ROOT);
        const broken = byExpiry.check(root);
        if (broken !== null) return `timers of CPU ${cpu}: ${broken}`;
        let nr = 0;
        for (let timer = byExpiry.first(root); timer !== NULL; timer = byExpiry.next(timer), nr++) {
          if (port.ld32(timer + TIMER_WHERE) !== cpu + 1) return `TMR-5: timer ${timer} is not where it says`;
          if (least === 0 || expires(timer) < least) least = expires(timer);
        }
        if (nr !== nrPending(cpu)) return `timers of CPU ${cpu}: ${nr} on the tree, ${nrPending(cpu)} counted`;
      }
      return least === port.ldF64(EARLIEST) ? null : `timers: the earliest is at ${least}, not as noted`;
    },
  };
}

/** Connects timers and scheduler: the tick looks for due timers, and idle time ends at the earliest. */
export function bindTimers(machine: Machine, timers: Timers, softirqs: Softirqs, scheduler: Scheduler): void {
  const { clock, timerDeadline } = machine.harts;
  scheduler.setTimers(timers);
  scheduler.onTick((ctx) => {
    const time = timers.firstOn(ctx.cpu);
    if (time <= (clock[ctx.cpu] as number)) softirqs.raiseSoftirq(ctx, TIMER_SOFTIRQ);
    else if (time < (timerDeadline[ctx.cpu] as number)) timerDeadline[ctx.cpu] = time;
  });
}
