/**
 * Signals: to whom they go, when a handler runs, and on what stack.
 *
 *   kill, end of a child ─▶ send ─▶ ignored │ fatal: the process is doomed │ stops it │ waits
 *                                             waits ─▶ thread that does not block it ─▶ handler ─▶ goes on
 *   load or store that is not allowed ─▶ handler, at once ─▶ the access again
 *
 * 1. *When.* A handler runs where its thread comes back from the kernel: behind a system call, when the thread gets
 *    its CPU again that it gave up by itself, and behind a fault. A program is a generator, and so is a handler: it
 *    runs on top of it, and the program goes on when it is done (SIG-3).
 *
 * 2. *Blocking calls.* A signal wakes a thread that sleeps in a call of INTERRUPTIBLE. The call looks once more for
 *    what it waits for, since that goes first; if it would sleep on, it ends: −EINTR, or begins anew behind the
 *    handlers if all of them have SA_RESTART and the call is one of RESTARTABLE.
 *
 * 3. *Faults.* A load or store is a plain function and cannot give up the CPU (ADR 0010), so the handler of a fault
 *    runs to its end at once; calls in it that would sleep end with −EINTR. Then the access is tried again. A handler
 *    that leaves by throwing goes to who catches in the program: siglongjmp.
 *
 * 4. *The frame.* siginfo and the mask lie on the stack of the thread, or on the one of sigaltstack with
 *    SA_ONSTACK; the handler gets the number in its argc and the address of the siginfo in its argv. Its end is
 *    rt_sigreturn: the mask is what then stands in the frame.
 *
 *   SIG-1  SIGKILL and SIGSTOP are neither caught, blocked nor ignored; init is killed by nothing that it does not
 *          catch
 *   SIG-2  a signal waits at most once in a process and once in each thread; the lowest number goes first
 *   SIG-3  while a handler runs, its signal (but for SA_NODEFER) and those of sa_mask are blocked, afterwards as before
 *   SIG-4  a fault whose signal is blocked, or whose handler MAX_FAULTS times did not mend it, kills; so does one in
 *          the handler of a fault in the handler …, as deep
 *   SIG-5  no room for a frame, or a frame that has been written over: SIGSEGV kills
 *   SIG-6  a child of fork has its parent's handlers and mask, and nothing waits for it; execve keeps what is ignored
 *   SIG-7  with SIGCHLD ignored, or SA_NOCLDWAIT, children leave no zombies
 *   SIG-8  a thread whose process is doomed neither comes back from a call nor sleeps any more
 *
 * Stopping and continuing: job_control.ts. Context: process. Source: kernel/signal.c, arch/riscv/kernel/signal.c. Not
 * here: queued real-time signals, core files.
 */

import type { Machine } from "../arch/machine.ts";
import { CYCLES_PER_TICK } from "../params.ts";
import type { Scheduler } from "../sched.ts";
import type { Task } from "../task.ts";
import { BLOCKED, type MaySleep, PREEMPTED, type Sleeping } from "../types.ts";
import { EINTR } from "../uapi/errno.ts";
import { SIGBUS, SIGCHLD, SIGCONT, SIGKILL, SIGSEGV, SIGURG, SIGWINCH } from "../uapi/mman.ts";
import {
  BUS_ADRERR,
  SA_NODEFER,
  SA_ONSTACK,
  SA_RESETHAND,
  SA_RESTART,
  SEGV_ACCERR,
  SEGV_MAPERR,
  SI_ADDR,
  SI_CODE,
  SI_PID,
  SI_STATUS,
  SIG_DFL,
  SIG_IGN,
  SIGINFO_BYTES,
  SIGSTOP,
} from "../uapi/signal.ts";
import * as sys from "../uapi/syscall.ts";
import { Interrupted } from "../wait.ts";
import { isStopped, type JobControl, STOP_SIGNALS } from "./job_control.ts";
import type { Caller, Process } from "./process.ts";
import {
  bytesOfSigSet,
  createThreadSignals,
  NO_SIGNALS,
  type SigAction,
  type SigInfo,
  type SigSet,
  sigSetOf,
  type ThreadSignals,
} from "./signal_state.ts";
import { FatalSignal } from "./user_mode.ts";

/** Signals that do nothing to a process without a handler. */
const IGNORED_BY_DEFAULT: readonly number[] = [SIGCHLD, SIGCONT, SIGURG, SIGWINCH];

/** Calls that a signal ends early. Reads and writes: of files that say so (pipes, the console). */
const INTERRUPTIBLE: ReadonlySet<number> = new Set([
  ...[sys.SYS_nanosleep, sys.SYS_wait4, sys.SYS_futex, sys.SYS_eventcount_await, sys.SYS_rt_sigsuspend],
]);
const RESTARTABLE: ReadonlySet<number> = new Set([sys.SYS_read, sys.SYS_write, sys.SYS_wait4, sys.SYS_futex]);

/** SIG-4 */
const MAX_FAULTS = 16;
/** siginfo, mask, magic; what a leaf function may use below its stack pointer; frames of other threads lie apart. */
const FRAME_MASK = SIGINFO_BYTES;
const FRAME_MAGIC = FRAME_MASK + 8;
const FRAME_BYTES = FRAME_MAGIC + 8;
const RED_ZONE = 128;
const THREAD_STRIDE = 4096;
const NR_STRIDES = 16;
const MAGIC = Uint8Array.of(0x53, 0x49, 0x47, 0x46, 0x52, 0x41, 0x4d, 0x45);

type Disposition = "ignore" | "kill" | "stop" | "catch";

export interface Signals {
  /** A thread begins, which has not run yet. */
  begin(task: Task, blocked: SigSet): void;
  /** Its program begins. `sp`: below it frames go; 0 for a thread that came later, and has a stack of nobody's. */
  useStack(process: Process, task: Task, sp: number): void;
  of(task: Task): ThreadSignals;
  /** To the process, or to one of its threads. */
  send(process: Process, signal: number, info: SigInfo, thread?: Task): void;
  /** What a system call comes back with: its result, or the rest of it with the handlers behind it. */
  afterCall(caller: Caller, nr: number, args: readonly number[], result: MaySleep<number>): MaySleep<number>;
  /** Runs a thread's code, with handlers where it may have them. */
  drive(caller: Caller, code: Sleeping<number>): Sleeping<number>;
  /**
   * The handler of a fault has run, and the access is to be tried again; false if there is none that may. `tries`:
   * handlers that have run for this access.
   */
  caught(caller: Caller, error: FatalSignal, va: number, tries: number): boolean;
}

export interface SignalDeps {
  readonly machine: Machine;
  readonly scheduler: Scheduler;
  readonly jobs: JobControl;
  readonly doom: (process: Process, status: number) => void;
  readonly enterSyscall: (caller: Caller, nr: number, args: readonly number[]) => MaySleep<number>;
  /** The code of a handler with its two arguments; undefined if there is no such text. */
  readonly codeOf: (caller: Caller, handler: number, signal: number, frame: number) => Sleeping<number> | undefined;
  readonly isMapped: (process: Process, va: number) => boolean;
}

export function createSignals(deps: SignalDeps): Signals {
  const { scheduler, doom, jobs } = deps;
  const { clock } = deps.machine.harts;
  const states = new WeakMap<Task, ThreadSignals>();

  const of = (task: Task): ThreadSignals => {
    let state = states.get(task);
    if (state === undefined) {
      state = createThreadSignals(NO_SIGNALS);
      states.set(task, state);
    }
    return state;
  };

  const dispositionOf = ({ signals, isInit }: Process, signal: number): Disposition => {
    const action = signal === SIGKILL || signal === SIGSTOP ? undefined : signals.actions.get(signal);
    if (action?.handler === SIG_IGN) return "ignore";
    if (action !== undefined && action.handler !== SIG_DFL) return "catch";
    if (isInit || IGNORED_BY_DEFAULT.includes(signal)) return "ignore";
    return STOP_SIGNALS.includes(signal) ? "stop" : "kill";
  };

  // ── Sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

  const send: Signals["send"] = (process, signal, info, thread) => {
    if (process.status !== undefined) return;
    if (process.ending !== undefined) {
      if (signal === SIGKILL) doom(process, signal);
      return;
    }
    jobs.prepare(process, signal, of);
    const what = dispositionOf(process, signal);
    const candidates = thread === undefined ? [...process.threads.values()] : [thread];
    const taker = candidates.find((task) => signal === SIGKILL || !of(task).blocked.has(signal));
    if (taker !== undefined && what === "ignore") return;
    if (taker !== undefined && what === "stop") {
      jobs.stop(process, signal);
      return;
    }
    if (taker !== undefined && what === "kill") {
      doom(process, signal);
      return;
    }
    const { pending } = thread === undefined ? process.signals : of(thread);
    if (!pending.has(signal)) pending.set(signal, info);
    if (taker !== undefined && of(taker).isInterruptible) scheduler.wake(taker);
  };

  // ── Taking ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The lowest signal of `pending` that the thread does not block, and that does something. */
  const lowest = (process: Process, pending: ReadonlyMap<number, SigInfo>, blocked: SigSet): number => {
    let least = 0;
    for (const signal of pending.keys()) {
      if (blocked.has(signal) || (least !== 0 && signal > least)) continue;
      if (dispositionOf(process, signal) !== "ignore") least = signal;
    }
    return least;
  };
  const isDue = ({ process, task }: Caller): boolean => {
    const own = of(task);
    if (own.pending.size === 0 && process.signals.pending.size === 0) return false;
    return (
      lowest(process, own.pending, own.blocked) !== 0 || lowest(process, process.signals.pending, own.blocked) !== 0
    );
  };

  /** JOB-1; but a handler of a fault has to come to its end, and stops behind it. */
  function* park(caller: Caller): Sleeping<void> {
    if (of(caller.task).depth === 0) yield* jobs.park(caller);
  }

  /**
   * Runs the handlers of all that is due, while the process runs; true if all of them want the call that they ended to
   * begin anew.
   */
  function* deliver(caller: Caller): Sleeping<boolean> {
    const { process, task } = caller;
    const own = of(task);
    let isRestarting = true;
    for (;;) {
      yield* park(caller);
      const pending = lowest(process, own.pending, own.blocked) !== 0 ? own.pending : process.signals.pending;
      const signal = lowest(process, pending, own.blocked);
      if (signal === 0) return isRestarting;
      const info = pending.get(signal) as SigInfo;
      pending.delete(signal);
      const what = dispositionOf(process, signal);
      if (what === "kill") throw fatal(process, signal, "");
      if (what === "stop") {
        jobs.stop(process, signal);
        continue;
      }
      const action = process.signals.actions.get(signal) as SigAction;
      if ((action.flags & SA_RESTART) === 0) isRestarting = false;
      yield* handle(caller, signal, info, action);
    }
  }

  const fatal = (process: Process, signal: number, message: string): FatalSignal => {
    doom(process, signal);
    return new FatalSignal(signal, message);
  };

  // ── A handler ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** SIG-5: the address of the frame. */
  const push = (caller: Caller, signal: number, info: SigInfo, { flags }: SigAction): number => {
    const { altStack, sp, blocked, suspended } = of(caller.task);
    const isOnAlt = altStack !== undefined && sp > altStack.sp && sp <= altStack.sp + altStack.size;
    const switches = (flags & SA_ONSTACK) !== 0 && altStack !== undefined && !isOnAlt;
    const top = switches ? altStack.sp + altStack.size : sp - RED_ZONE;
    const frame = Math.floor((top - FRAME_BYTES) / 16) * 16;
    const bytes = new Uint8Array(FRAME_BYTES);
    const view = new DataView(bytes.buffer);
    view.setInt32(0, signal, true);
    view.setInt32(SI_CODE, info.code, true);
    if (info.addr !== undefined) {
      view.setUint32(SI_ADDR, info.addr % 2 ** 32, true);
      view.setUint32(SI_ADDR + 4, Math.floor(info.addr / 2 ** 32), true);
    }
    if (info.pid !== undefined) view.setInt32(SI_PID, info.pid, true);
    if (info.status !== undefined) view.setInt32(SI_STATUS, info.status, true);
    bytes.set(bytesOfSigSet(suspended ?? blocked), FRAME_MASK);
    bytes.set(MAGIC, FRAME_MAGIC);
    if (frame < 0 || caller.user.copyTo(frame, bytes) !== 0) {
      throw fatal(caller.process, SIGSEGV, `no room for a signal frame at ${frame.toString(16)}`);
    }
    return frame;
  };

  /** rt_sigreturn: the mask in the frame. */
  const pop = (caller: Caller, frame: number): SigSet => {
    const bytes = caller.user.copyFrom(frame, FRAME_BYTES);
    if (bytes === undefined || MAGIC.some((byte, i) => bytes[FRAME_MAGIC + i] !== byte)) {
      throw fatal(caller.process, SIGSEGV, `bad frame in rt_sigreturn at ${frame.toString(16)}`);
    }
    return sigSetOf(bytes, FRAME_MASK);
  };

  function* handle(caller: Caller, signal: number, info: SigInfo, action: SigAction): Sleeping<void> {
    const own = of(caller.task);
    const { sp } = own;
    const before = own.suspended ?? own.blocked;
    const frame = push(caller, signal, info, action);
    const code = deps.codeOf(caller, action.handler, signal, frame);
    if (code === undefined) throw fatal(caller.process, SIGSEGV, `segfault at ${action.handler.toString(16)}`);
    own.sp = frame;
    own.suspended = undefined;
    own.blocked = new Set([...own.blocked, ...action.mask, ...((action.flags & SA_NODEFER) !== 0 ? [] : [signal])]);
    if ((action.flags & SA_RESETHAND) !== 0) caller.process.signals.actions.delete(signal);
    let mask = before;
    try {
      yield* code;
      mask = pop(caller, frame);
    } finally {
      own.sp = sp;
      own.blocked = mask;
    }
  }

  // ── Where handlers run ───────────────────────────────────────────────────────────────────────────────────────────

  const mayInterrupt = ({ process }: Caller, nr: number, fd: number): boolean =>
    nr === sys.SYS_read || nr === sys.SYS_write ? process.fds[fd]?.isInterruptible === true : INTERRUPTIBLE.has(nr);

  /** The rest of a call that sleeps; −EINTR if a signal has ended it. */
  function* sleepThrough(caller: Caller, nr: number, fd: number, rest: Sleeping<number>): Sleeping<number> {
    const own = of(caller.task);
    own.isInterruptible = mayInterrupt(caller, nr, fd);
    try {
      return yield* rest;
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error;
      return -EINTR;
    } finally {
      own.isInterruptible = false;
    }
  }

  function* finish(caller: Caller, nr: number, args: readonly number[], first: MaySleep<number>): Sleeping<number> {
    const own = of(caller.task);
    for (let result = first; ; result = deps.enterSyscall(caller, nr, args)) {
      const value = typeof result === "number" ? result : yield* sleepThrough(caller, nr, args[0] as number, result);
      const wasSuspended = own.suspended;
      const isRestarting = yield* deliver(caller);
      if (wasSuspended !== undefined && own.suspended === wasSuspended) {
        own.blocked = wasSuspended;
        own.suspended = undefined;
      }
      const mayRestart = RESTARTABLE.has(nr) || (nr === sys.SYS_eventcount_await && args[2] === 0);
      if (value !== -EINTR || !isRestarting || !mayRestart) return value;
    }
  }

  /** A call of a process that has no handlers, which was stopped meanwhile or is. */
  function* finishStopped(caller: Caller, result: MaySleep<number>): Sleeping<number> {
    const value = typeof result === "number" ? result : yield* result;
    yield* park(caller);
    return value;
  }

  /** A program that has caught its end, and calls again, must not keep the machine: it does so once a tick. */
  function* untilNextTick({ task }: Caller): Sleeping<void> {
    const own = of(task);
    if (!own.isToldToEnd) own.isToldToEnd = true;
    else {
      try {
        yield* scheduler.sleepUntil(task, (clock[task.ctx.cpu] as number) + CYCLES_PER_TICK);
      } catch {
        // It ends anyway.
      }
    }
  }

  function* drive<T>(caller: Caller, code: Sleeping<T>): Sleeping<T> {
    const own = of(caller.task);
    let step = code.next();
    while (step.done !== true) {
      const { ending } = caller.process;
      // SIG-8: the process was doomed by what this thread has just done, or while it ran.
      const isDoomed = step.value === BLOCKED && ending !== undefined;
      if (isDoomed || (step.value === BLOCKED && own.isInterruptible && isDue(caller))) {
        scheduler.wake(caller.task);
        if (isDoomed) yield* untilNextTick(caller);
        step = code.throw(isDoomed ? new FatalSignal(ending & 0x7f, "") : new Interrupted());
        continue;
      }
      try {
        yield step.value;
        if (own.isAtYield && isStopped(caller.process)) yield* park(caller);
        if (own.isAtYield && isDue(caller)) yield* drive(caller, deliver(caller));
      } catch (error) {
        step = code.throw(error);
        continue;
      }
      own.isAtYield = false;
      step = code.next();
    }
    return step.value;
  }

  /** Runs to the end without giving up the CPU: a sleep ends with −EINTR. */
  const runAtOnce = (task: Task, code: Sleeping<void>): void => {
    for (let step = code.next(); step.done !== true; ) {
      if (step.value === PREEMPTED) step = code.next();
      else {
        scheduler.wake(task);
        step = code.throw(new Interrupted());
      }
    }
  };

  return {
    begin: (task, blocked) => void states.set(task, createThreadSignals(blocked)),
    useStack({ signals }, task, sp) {
      const own = of(task);
      if (sp !== 0) signals.stackBase = sp;
      const apart = sp !== 0 ? 0 : THREAD_STRIDE * (1 + (signals.nrThreads++ % NR_STRIDES));
      own.sp = signals.stackBase - apart;
      own.altStack = undefined;
    },
    of,
    send,
    afterCall(caller, nr, args, result) {
      const { ending, signals } = caller.process;
      if (ending !== undefined && typeof result === "number") throw new FatalSignal(ending & 0x7f, "");
      const mayGoOn = signals.stoppedBy === 0 && !(signals.isUsed && isDue(caller));
      if (mayGoOn && typeof result === "number") return result;
      return signals.isUsed ? finish(caller, nr, args, result) : finishStopped(caller, result);
    },
    drive,
    caught(caller, { signal }, va, tries) {
      const { process, task } = caller;
      const own = of(task);
      const isFault = signal === SIGSEGV || signal === SIGBUS;
      const action = isFault ? process.signals.actions.get(signal) : undefined;
      if (action === undefined || action.handler <= SIG_IGN || own.blocked.has(signal)) return false;
      if (process.ending !== undefined || tries >= MAX_FAULTS || own.depth >= MAX_FAULTS) return false;
      const code = signal === SIGBUS ? BUS_ADRERR : deps.isMapped(process, va) ? SEGV_ACCERR : SEGV_MAPERR;
      own.depth++;
      try {
        runAtOnce(task, handle(caller, signal, { code, addr: va }, action));
      } finally {
        own.depth--;
      }
      return true;
    },
  };
}
