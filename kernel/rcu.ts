/**
 * RCU, read-copy-update: readers that take no lock, and memory that is freed when no reader can still see it.
 *
 * 1. A reader marks its section by switching preemption off, nothing more: no store that another CPU would see. A
 *    writer unlinks an object, then waits for a *grace period*: until every CPU has once been in a state in which it
 *    cannot be inside a section that began before. Such a quiescent state is a pass through the scheduler, the idle
 *    loop, or a tick that finds preemption and softirqs on (a program, or kernel code that could be preempted).
 *
 *      CPU 0   ──[ reader ]────────────────◆──────────        ◆ quiescent state
 *      CPU 1   ────────◆───────[ a later reader ]─────
 *      CPU 2   (idle: cannot be a reader)
 *                  ▲ unlinked, callRcu       ▲ the last CPU has reported: callbacks may run
 *
 * 2. Grace periods are numbered by gp_seq: odd while one runs. `snap` is the value that gp_seq must reach so that a
 *    whole grace period lies after now: one that runs already does not count, it began before. A grace period begins by
 *    writing down which CPUs owe a quiescent state: those online that are not idle. Each strikes itself off; the last
 *    one ends it.
 *
 * 3. Callbacks wait on three lists of their CPU:
 *
 *      callRcu ─▶ next ──(no batch is waiting)──▶ wait, with its snap ──(gp_seq ≥ snap)──▶ done ─▶ called, 10 a softirq
 *
 *    A kernel timer of the CPU, armed by callRcu for the next tick, raises RCU_SOFTIRQ, which moves the lists on and
 *    starts a grace period if one is needed. The end of a grace period arms the timers of the CPUs that wait for it. So
 *    a machine without callbacks has no work from RCU, and one that is idle jumps from step to step.
 *
 *   offset  width  field    rcu_head, 8 bytes inside the object (8-aligned)
 *   +0      u32    next     granule of the next head
 *   +4      u32    fn       number that registerRcuFn() gave
 *
 *   RCU-1  depth = sections open on this CPU; while it is not 0, preempt_count is not 0
 *   RCU-2  a callback is called after every section that was open anywhere at its callRcu has ended, once
 *   RCU-3  callbacks of one CPU are called in the order of their callRcu, in RCU_SOFTIRQ
 *   RCU-4  a CPU is struck off only in a quiescent state: depth 0, preempt_count 0 below the interrupt
 *   RCU-5  count of a CPU = callbacks on its three lists; none is lost when the CPU goes offline
 *   RCU-6  rcuBarrier returns after every callback that was queued before it
 *   RCU-7  a grace period that takes 21 s is reported, with the CPUs that it waits for
 *   RCU-8  a section that reaches the scheduler is reported and ended (context.ts: scheduleDebug)
 *
 * Locks: none; lists are touched with interrupts off. Different from Linux: no tree of nodes and no kthread (64 CPUs
 * fit two words, whoever reports last ends the grace period); sections are those of a kernel without preemptible RCU,
 * but their depth is counted so that it can be shown.
 * Source: P. McKenney, "Is Parallel Programming Hard", ch. 9; Linux `kernel/rcu/tree.c`, `kernel/rcu/tree_stall.h`.
 */

import { CYC_SOFTIRQ } from "./arch/charges.ts";
import type { Machine } from "./arch/machine.ts";
import { bugOn } from "./bug.ts";
import {
  type ContextTracking,
  HARDIRQ_MASK,
  HARDIRQ_OFFSET,
  NMI_MASK,
  PREEMPT_MASK,
  PREEMPT_OFFSET,
  SOFTIRQ_MASK,
} from "./context.ts";
import type { KernelImage } from "./image.ts";
import { CYCLES_PER_SECOND, CYCLES_PER_TICK } from "./params.ts";
import type { PerCpu } from "./percpu.ts";
import { KERN_ERR, type Printk } from "./printk.ts";
import type { Scheduler } from "./sched.ts";
import { RCU_SOFTIRQ, type Softirqs } from "./softirq.ts";
import type { Task } from "./task.ts";
import { TIMER_BYTES, type Timers } from "./timer.ts";
import {
  asPhys,
  type Context,
  fromGranule,
  type IrqContext,
  NULL,
  type PhysAddr,
  type Sleeping,
  toGranule,
} from "./types.ts";
import type { WaitQueues } from "./wait.ts";

export type RcuFn = (ctx: IrqContext, head: PhysAddr) => void;

export const RCU_HEAD_BYTES = 8;
const HEAD_NEXT = 0;
const HEAD_FN = 4;

/** A list of heads: granules of the first and the last, 0 when empty. */
const NEXT = 0;
const WAIT = 8;
const DONE = 16;
const WAIT_SNAP = 24;
const COUNT = 28;
const BARRIER_HEAD = 32;
const TIMER = 40;
const RCU_BYTES = TIMER + TIMER_BYTES;

const GP_SEQ = 0;
/** gp_seq that somebody sleeps for in synchronizeRcu. */
const WANTED = 4;
/** CPUs that still owe a quiescent state, one bit each. */
const OWING = 8;
const GP_START = 16;
const NEXT_STALL = 24;
const GP_QUEUE = 32;
const BARRIER_QUEUE = 40;
const BARRIER_COUNT = 48;
const NR_STALLS = 52;
const STATIC_BYTES = 56;

/** Callbacks called by one run of RCU_SOFTIRQ. */
const BATCH_LIMIT = 10;
export const RCU_STALL_CYCLES = 21 * CYCLES_PER_SECOND;

export interface Rcu {
  /** Begins a read section on this CPU; sections nest. Any context. */
  rcuReadLock(ctx: Context): void;
  rcuReadUnlock(ctx: Context): void;
  registerRcuFn(fn: RcuFn): number;
  /** Calls function `fn` with `head` after a grace period. `head`: RCU_HEAD_BYTES, 8-aligned, not queued. Not NMI. */
  callRcu(ctx: Context, head: PhysAddr, fn: number): void;
  /** Sleeps for a grace period. */
  synchronizeRcu(task: Task): Sleeping<void>;
  /** Sleeps until all callbacks queued before have been called. */
  rcuBarrier(task: Task): Sleeping<void>;
  /** gp_seq that makes a grace period from now on complete, and whether it has come. */
  snap(): number;
  isDone(snap: number): boolean;
  /** Callbacks of a CPU that wait. */
  nrCallbacks(cpu: number): number;
  /** Grace periods completed. */
  nrGracePeriods(): number;
  nrStalls(): number;
  /** A CPU goes offline: it owes nothing any more, its callbacks are this CPU's. */
  adopt(ctx: Context, cpu: number): void;
  check(): string | null;
}

export interface RcuDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly softirqs: Softirqs;
  readonly timers: Timers;
  readonly scheduler: Scheduler;
  readonly waits: WaitQueues;
}

/** Reserves what RCU keeps in RAM; the result makes it once there is a scheduler. */
export function createRcu(image: KernelImage, percpu: PerCpu): (deps: RcuDeps) => Rcu {
  const DATA = percpu.define("rcu_data", RCU_BYTES, 8);
  const statics = image.bss("rcu_state", STATIC_BYTES, 8);
  return (deps) => bindRcu(deps, statics, (cpu) => asPhys(percpu.areaOf(cpu) + DATA));
}

function bindRcu(deps: RcuDeps, statics: PhysAddr, dataOf: (cpu: number) => PhysAddr): Rcu {
  const { machine, contexts, printk, softirqs, timers, scheduler, waits } = deps;
  const { port, harts } = machine;
  const { clock, online, nrCpus } = harts;
  const fns: RcuFn[] = [];
  const gpQueue = asPhys(statics + GP_QUEUE);
  const barrierQueue = asPhys(statics + BARRIER_QUEUE);
  waits.init(gpQueue);
  waits.init(barrierQueue);

  const timerOf = (cpu: number): PhysAddr => asPhys(dataOf(cpu) + TIMER);
  const add = (addr: number, delta: number): void => port.st32(addr, port.ld32(addr) + delta);

  // ── Grace periods ────────────────────────────────────────────────────────────────────────────────────────────────

  const gpSeq = (): number => port.ld32(statics + GP_SEQ);
  const isRunning = (): boolean => (gpSeq() & 1) === 1;
  const snap = (): number => ((gpSeq() + 3) & ~1) >>> 0;
  const isDone = (target: number): boolean => ((gpSeq() - target) | 0) >= 0;

  const owingWord = (cpu: number): number => statics + OWING + 4 * (cpu >>> 5);
  const owes = (cpu: number): boolean => ((port.ld32(owingWord(cpu)) >>> (cpu & 31)) & 1) === 1;
  const isNoneOwing = (): boolean => port.ld32(statics + OWING) === 0 && port.ld32(statics + OWING + 4) === 0;

  /** RCU-4, as the scheduler sees it: nothing of this CPU is under way. */
  const isQuiet = (cpu: number): boolean => {
    const ctx = contexts.taskContext(cpu);
    return contexts.rcuDepth(ctx) === 0 && contexts.preemptCount(ctx) === 0;
  };
  const isIdle = (cpu: number): boolean => scheduler.isIdle(cpu) && isQuiet(cpu);

  const armLocked = (ctx: Context, cpu: number, time: number): void => {
    const timer = timerOf(cpu);
    if (!timers.isPending(timer) || timers.expires(timer) > time) timers.modTimerOn(ctx, timer, time, cpu);
  };

  const endGracePeriod = (ctx: Context): void => {
    add(statics + GP_SEQ, 1);
    const now = clock[ctx.cpu] as number;
    for (let cpu = 0; cpu < nrCpus; cpu++) {
      const isWanted = cpu === ctx.cpu && !isDone(port.ld32(statics + WANTED));
      if (online[cpu] === 1 && (port.ld32(dataOf(cpu) + COUNT) !== 0 || isWanted)) armLocked(ctx, cpu, now);
      else if (online[cpu] === 1) timers.delTimer(ctx, timerOf(cpu));
    }
    if (!waits.isEmpty(gpQueue)) waits.wakeUp(gpQueue);
  };

  /** `cpu` was seen in a quiescent state. */
  const strikeOff = (ctx: Context, cpu: number): void => {
    const flags = contexts.localIrqSave(ctx);
    if (owes(cpu)) {
      port.st32(owingWord(cpu), (port.ld32(owingWord(cpu)) & ~(1 << (cpu & 31))) >>> 0);
      if (isNoneOwing() && isRunning()) endGracePeriod(ctx);
    }
    contexts.localIrqRestore(ctx, flags);
  };

  const startGracePeriod = (ctx: IrqContext): void => {
    add(statics + GP_SEQ, 1);
    const now = clock[ctx.cpu] as number;
    port.stF64(statics + GP_START, now);
    port.stF64(statics + NEXT_STALL, now + RCU_STALL_CYCLES);
    // The CPU that starts it is in a softirq, which may stand on a reader: it owes like the others.
    for (let cpu = 0; cpu < nrCpus; cpu++) {
      const isOwing = online[cpu] === 1 && (cpu === ctx.cpu || !isIdle(cpu));
      if (isOwing) port.st32(owingWord(cpu), (port.ld32(owingWord(cpu)) | (1 << (cpu & 31))) >>> 0);
    }
  };

  scheduler.onPass((cpu) => {
    if (owes(cpu) && isQuiet(cpu)) strikeOff(contexts.taskContext(cpu), cpu);
  });

  scheduler.onTick((ctx) => {
    if (!isRunning()) return;
    if (owes(ctx.cpu) && contexts.rcuDepth(ctx) === 0) {
      const count = contexts.preemptCount(ctx);
      const isBelowQuiet = (count & (PREEMPT_MASK | SOFTIRQ_MASK)) === 0;
      const isOnly = (count & (HARDIRQ_MASK | NMI_MASK)) === HARDIRQ_OFFSET;
      if (isBelowQuiet && isOnly) strikeOff(ctx, ctx.cpu);
    }
    if (isRunning() && (clock[ctx.cpu] as number) >= port.ldF64(statics + NEXT_STALL)) reportStall(ctx);
  });

  /** RCU-7, in Linux's words. */
  const reportStall = (ctx: Context): void => {
    const now = clock[ctx.cpu] as number;
    const ticks = Math.floor((now - port.ldF64(statics + GP_START)) / CYCLES_PER_TICK);
    port.stF64(statics + NEXT_STALL, now + 3 * RCU_STALL_CYCLES);
    add(statics + NR_STALLS, 1);
    const guilty = Array.from({ length: nrCpus }, (_, cpu) => cpu).filter(owes);
    const queued = Array.from({ length: nrCpus }, (_, cpu) => nrCallbacks(cpu)).reduce((sum, nr) => sum + nr, 0);
    const isSelf = guilty.includes(ctx.cpu);
    const numbers = `t=${ticks} jiffies, g=${gpSeq()}, q=${queued} ncpus=${nrCpus}`;
    const lines = guilty.map((cpu) => {
      const idle = scheduler.isIdle(cpu) ? "." : "!";
      return `rcu: \t${cpu}-...${idle}: (${ticks} ticks this GP) softirq=${softirqs.count(RCU_SOFTIRQ, cpu)}`;
    });
    printk(
      KERN_ERR,
      [
        `rcu: INFO: rcu_sched ${isSelf ? "self-detected stall on CPU" : "detected stalls on CPUs/tasks:"}`,
        ...lines,
        isSelf ? `rcu: \t(${numbers})` : `rcu: \t(detected by ${ctx.cpu}, ${numbers})`,
        contexts.stackDump(ctx),
      ].join("\n"),
    );
  };

  // ── Callbacks ────────────────────────────────────────────────────────────────────────────────────────────────────

  const isEmpty = (data: PhysAddr, list: number): boolean => port.ld32(data + list) === 0;
  const nrCallbacks = (cpu: number): number => port.ld32(dataOf(cpu) + COUNT);

  const append = (data: PhysAddr, list: number, head: PhysAddr): void => {
    port.st32(head + HEAD_NEXT, 0);
    const tail = port.ld32(data + list + 4);
    if (isEmpty(data, list)) port.st32(data + list, toGranule(head));
    else port.st32(fromGranule(tail) + HEAD_NEXT, toGranule(head));
    port.st32(data + list + 4, toGranule(head));
  };

  /** Puts all of one list behind another. */
  const splice = (from: PhysAddr, fromList: number, to: PhysAddr, toList: number): void => {
    if (isEmpty(from, fromList)) return;
    if (isEmpty(to, toList)) port.st32(to + toList, port.ld32(from + fromList));
    else port.st32(fromGranule(port.ld32(to + toList + 4)) + HEAD_NEXT, port.ld32(from + fromList));
    port.st32(to + toList + 4, port.ld32(from + fromList + 4));
    port.st32(from + fromList, 0);
  };

  const moveOn = (data: PhysAddr): void => {
    if (!isEmpty(data, WAIT) && isDone(port.ld32(data + WAIT_SNAP))) splice(data, WAIT, data, DONE);
    if (!isEmpty(data, WAIT) || isEmpty(data, NEXT)) return;
    splice(data, NEXT, data, WAIT);
    port.st32(data + WAIT_SNAP, snap());
  };

  /** Calls what is done, BATCH_LIMIT at most. */
  const callDone = (ctx: IrqContext, data: PhysAddr): void => {
    for (let nr = 0; nr < BATCH_LIMIT; nr++) {
      const flags = contexts.localIrqSave(ctx);
      const head = fromGranule(port.ld32(data + DONE));
      if (head !== NULL) {
        port.st32(data + DONE, port.ld32(head + HEAD_NEXT));
        add(data + COUNT, -1);
      }
      contexts.localIrqRestore(ctx, flags);
      if (head === NULL) return;
      clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_SOFTIRQ;
      (fns[port.ld32(head + HEAD_FN)] as RcuFn)(ctx, head);
    }
  };

  softirqs.openSoftirq(RCU_SOFTIRQ, (ctx) => {
    const data = dataOf(ctx.cpu);
    const flags = contexts.localIrqSave(ctx);
    moveOn(data);
    const isNeeded = !isEmpty(data, WAIT) || !isDone(port.ld32(statics + WANTED));
    if (isNeeded && !isRunning()) startGracePeriod(ctx);
    // A CPU that was busy at the start may have become idle since: it need not be waited for.
    for (let cpu = 0; cpu < nrCpus; cpu++) if (owes(cpu) && cpu !== ctx.cpu && isIdle(cpu)) strikeOff(ctx, cpu);
    // The end of the grace period wakes this CPU; this is for one that does not end. Once: a machine must come to rest.
    const stallAt = port.ldF64(statics + GP_START) + RCU_STALL_CYCLES;
    if (isRunning() && port.ldF64(statics + NEXT_STALL) === stallAt) armLocked(ctx, ctx.cpu, stallAt);
    contexts.localIrqRestore(ctx, flags);
    callDone(ctx, data);
    if (!isEmpty(data, DONE)) softirqs.raiseSoftirq(ctx, RCU_SOFTIRQ);
  });

  const timerFn = timers.registerTimerFn((ctx) => softirqs.raiseSoftirq(ctx, RCU_SOFTIRQ));
  for (let cpu = 0; cpu < nrCpus; cpu++) timers.init(timerOf(cpu), timerFn);

  // ── Waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────

  function* synchronize(task: Task): Sleeping<void> {
    const { ctx } = task;
    const target = snap();
    const flags = contexts.localIrqSave(ctx);
    if (((port.ld32(statics + WANTED) - target) | 0) < 0) port.st32(statics + WANTED, target);
    if (!isRunning()) armLocked(ctx, ctx.cpu, clock[ctx.cpu] as number);
    contexts.localIrqRestore(ctx, flags);
    while (!isDone(target)) yield* waits.waitOn(gpQueue, task);
  }

  const barrierFn =
    fns.push(() => {
      add(statics + BARRIER_COUNT, -1);
      if (port.ld32(statics + BARRIER_COUNT) === 0) waits.wakeUp(barrierQueue);
    }) - 1;

  /** Behind all callbacks of a CPU; it needs no grace period of its own. */
  const entrain = (ctx: Context, cpu: number): void => {
    const data = dataOf(cpu);
    const head = asPhys(data + BARRIER_HEAD);
    const flags = contexts.localIrqSave(ctx);
    if (port.ld32(data + COUNT) !== 0) {
      const list = !isEmpty(data, NEXT) ? NEXT : !isEmpty(data, WAIT) ? WAIT : DONE;
      port.st32(head + HEAD_FN, barrierFn);
      append(data, list, head);
      add(data + COUNT, 1);
      add(statics + BARRIER_COUNT, 1);
    }
    contexts.localIrqRestore(ctx, flags);
  };

  function* barrier(task: Task): Sleeping<void> {
    const word = statics + BARRIER_COUNT;
    while (port.ld32(word) !== 0) yield* waits.waitOn(barrierQueue, task);
    port.st32(word, 1);
    for (let cpu = 0; cpu < nrCpus; cpu++) entrain(task.ctx, cpu);
    add(word, -1);
    if (port.ld32(word) === 0) waits.wakeUp(barrierQueue);
    while (port.ld32(word) !== 0) yield* waits.waitOn(barrierQueue, task);
  }

  const checkCpu = (cpu: number): string | null => {
    let nr = 0;
    for (const list of [NEXT, WAIT, DONE]) {
      let last = 0;
      for (let at = port.ld32(dataOf(cpu) + list); at !== 0; at = port.ld32(fromGranule(at) + HEAD_NEXT)) {
        last = at;
        if (++nr > nrCallbacks(cpu)) break;
      }
      if (last !== 0 && last !== port.ld32(dataOf(cpu) + list + 4))
        return `RCU-5: a list of CPU ${cpu} has lost its end`;
    }
    return nr === nrCallbacks(cpu) ? null : `RCU-5: CPU ${cpu} has ${nr} callbacks, ${nrCallbacks(cpu)} counted`;
  };

  return {
    rcuReadLock(ctx) {
      contexts.add(ctx, PREEMPT_OFFSET);
      contexts.addRcuDepth(ctx, 1);
    },
    rcuReadUnlock(ctx) {
      contexts.addRcuDepth(ctx, -1);
      contexts.preemptEnable(ctx);
    },
    registerRcuFn: (fn) => fns.push(fn) - 1,
    callRcu(ctx, head, fn) {
      bugOn(fns[fn] === undefined || head % 8 !== 0, "rcu: no such function, or the head is not aligned", head, fn);
      const flags = contexts.localIrqSave(ctx);
      port.st32(head + HEAD_FN, fn);
      append(dataOf(ctx.cpu), NEXT, head);
      add(dataOf(ctx.cpu) + COUNT, 1);
      armLocked(ctx, ctx.cpu, (clock[ctx.cpu] as number) + CYCLES_PER_TICK);
      contexts.localIrqRestore(ctx, flags);
    },
    synchronizeRcu(task) {
      contexts.mightSleep(task.ctx, "kernel/rcu.ts:synchronizeRcu");
      return contexts.mustIterate(synchronize(task));
    },
    rcuBarrier(task) {
      contexts.mightSleep(task.ctx, "kernel/rcu.ts:rcuBarrier");
      return contexts.mustIterate(barrier(task));
    },
    snap,
    isDone,
    nrCallbacks,
    nrGracePeriods: () => gpSeq() >>> 1,
    nrStalls: () => port.ld32(statics + NR_STALLS),
    adopt(ctx, cpu) {
      const flags = contexts.localIrqSave(ctx);
      const [from, to] = [dataOf(cpu), dataOf(ctx.cpu)];
      timers.delTimer(ctx, timerOf(cpu));
      // In their order, and all of them wait for a grace period again: that is never too short.
      for (const list of [DONE, WAIT, NEXT]) splice(from, list, to, NEXT);
      add(to + COUNT, port.ld32(from + COUNT));
      port.st32(from + COUNT, 0);
      if (port.ld32(to + COUNT) !== 0) armLocked(ctx, ctx.cpu, (clock[ctx.cpu] as number) + CYCLES_PER_TICK);
      strikeOff(ctx, cpu);
      contexts.localIrqRestore(ctx, flags);
    },
    check() {
      for (let cpu = 0; cpu < nrCpus; cpu++) {
        const broken = checkCpu(cpu);
        if (broken !== null) return broken;
      }
      return isRunning() || isNoneOwing() ? null : "RCU-4: a CPU owes a quiescent state, and no grace period runs";
    },
  };
}
