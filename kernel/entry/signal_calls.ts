/**
 * System calls about signals: handlers, masks, waiting, the alternate stack (signals.ts has the rules).
 */

import type { Scheduler } from "../sched.ts";
import { BLOCKED, type MaySleep, type Sleeping } from "../types.ts";
import { EFAULT, EINVAL, ENOMEM, EPERM, ESRCH } from "../uapi/errno.ts";
import { SIGKILL, SIGSEGV } from "../uapi/mman.ts";
import {
  MINSIGSTKSZ,
  NR_SIGNALS,
  SI_USER,
  SIG_BLOCK,
  SIG_DFL,
  SIG_IGN,
  SIG_SETMASK,
  SIG_UNBLOCK,
  SIGACTION_BYTES,
  SIGSTOP,
  SS_DISABLE,
  STACK_T_BYTES,
} from "../uapi/signal.ts";
import * as sys from "../uapi/syscall.ts";
import type { Caller, Processes } from "./process.ts";
import { bytesOfSigSet, type SigSet, sigSetOf, type ThreadSignals, withoutFatal } from "./signal_state.ts";
import { FatalSignal } from "./user_mode.ts";

const SIGSET_BYTES = 8;

export interface SignalCallDeps {
  readonly scheduler: Scheduler;
  readonly processes: Processes;
}

export interface SignalCalls {
  has(nr: number): boolean;
  call(caller: Caller, nr: number, args: readonly number[]): MaySleep<number>;
}

const word64 = (bytes: Uint8Array, at: number): number => {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, 8);
  return view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
};
const put64 = (bytes: Uint8Array, at: number, value: number): void => {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, 8);
  view.setUint32(0, value % 2 ** 32, true);
  view.setUint32(4, Math.floor(value / 2 ** 32), true);
};

export function createSignalCalls({ scheduler, processes }: SignalCallDeps): SignalCalls {
  const signalsOf = ({ task }: Caller): ThreadSignals => processes.signals.of(task);

  const sigaction = (caller: Caller, signal: number, act: number, oldAct: number, size: number): number => {
    const { actions } = caller.process.signals;
    const isFixed = signal === SIGKILL || signal === SIGSTOP;
    if (!(signal >= 1 && signal <= NR_SIGNALS) || size !== SIGSET_BYTES || (isFixed && act !== 0)) return -EINVAL;
    const bytes = act === 0 ? undefined : caller.user.copyFrom(act, SIGACTION_BYTES);
    if (act !== 0 && bytes === undefined) return -EFAULT;
    const old = new Uint8Array(SIGACTION_BYTES);
    const before = actions.get(signal);
    put64(old, 0, before?.handler ?? SIG_DFL);
    put64(old, 8, before?.flags ?? 0);
    old.set(bytesOfSigSet(before?.mask ?? new Set()), 16);
    if (oldAct !== 0 && caller.user.copyTo(oldAct, old) !== 0) return -EFAULT;
    if (bytes === undefined) return 0;
    const handler = word64(bytes, 0);
    const flags = word64(bytes, 8) % 2 ** 32;
    if (handler === SIG_DFL && flags === 0) actions.delete(signal);
    else actions.set(signal, { handler, flags, mask: withoutFatal(sigSetOf(bytes, 16)) });
    // What is ignored from now on is not waiting any more.
    if (handler === SIG_IGN) caller.process.signals.pending.delete(signal);
    return 0;
  };

  const sigprocmask = (caller: Caller, how: number, set: number, oldSet: number, size: number): number => {
    const own = signalsOf(caller);
    if (size !== SIGSET_BYTES || (set !== 0 && !(how >= SIG_BLOCK && how <= SIG_SETMASK))) return -EINVAL;
    const bytes = set === 0 ? undefined : caller.user.copyFrom(set, SIGSET_BYTES);
    if (set !== 0 && bytes === undefined) return -EFAULT;
    if (oldSet !== 0 && caller.user.copyTo(oldSet, bytesOfSigSet(own.blocked)) !== 0) return -EFAULT;
    if (bytes !== undefined) own.blocked = withoutFatal(combined(own.blocked, how, sigSetOf(bytes)));
    return 0;
  };
  const combined = (blocked: SigSet, how: number, set: SigSet): Iterable<number> => {
    if (how === SIG_BLOCK) return [...blocked, ...set];
    return how === SIG_UNBLOCK ? [...blocked].filter((signal) => !set.has(signal)) : set;
  };

  const sigpending = (caller: Caller, set: number, size: number): number => {
    if (size !== SIGSET_BYTES) return -EINVAL;
    const { blocked, pending } = signalsOf(caller);
    const all = [...caller.process.signals.pending.keys(), ...pending.keys()];
    return caller.user.copyTo(set, bytesOfSigSet(new Set(all.filter((signal) => blocked.has(signal)))));
  };

  /** Sleeps with another mask until a handler has run: −EINTR (signals.ts goes back to the mask). */
  function* sleepForSignal(caller: Caller): Sleeping<number> {
    for (;;) {
      scheduler.prepareToBlock(caller.task);
      yield BLOCKED;
    }
  }
  const sigsuspend = (caller: Caller, set: number, size: number): MaySleep<number> => {
    const own = signalsOf(caller);
    if (size !== SIGSET_BYTES) return -EINVAL;
    const bytes = caller.user.copyFrom(set, SIGSET_BYTES);
    if (bytes === undefined) return -EFAULT;
    own.suspended = own.blocked;
    own.blocked = withoutFatal(sigSetOf(bytes));
    return sleepForSignal(caller);
  };

  const sigaltstack = (caller: Caller, stack: number, oldStack: number): number => {
    const own = signalsOf(caller);
    const { altStack: before } = own;
    const bytes = stack === 0 ? undefined : caller.user.copyFrom(stack, STACK_T_BYTES);
    if (stack !== 0 && bytes === undefined) return -EFAULT;
    const old = new Uint8Array(STACK_T_BYTES);
    put64(old, 0, before?.sp ?? 0);
    put64(old, 8, before === undefined ? SS_DISABLE : 0);
    put64(old, 16, before?.size ?? 0);
    if (oldStack !== 0 && caller.user.copyTo(oldStack, old) !== 0) return -EFAULT;
    if (bytes === undefined) return 0;
    const [sp, flags, size] = [word64(bytes, 0), word64(bytes, 8) % 2 ** 32, word64(bytes, 16)];
    if (before !== undefined && own.sp > before.sp && own.sp <= before.sp + before.size) return -EPERM;
    if (flags !== 0 && flags !== SS_DISABLE) return -EINVAL;
    if (flags === 0 && size < MINSIGSTKSZ) return -ENOMEM;
    own.altStack = flags === SS_DISABLE ? undefined : { sp, size };
    return 0;
  };

  const tgkill = (caller: Caller, tgid: number, tid: number, signal: number): number => {
    if (!(signal >= 0 && signal <= NR_SIGNALS) || tgid <= 0 || tid <= 0) return -EINVAL;
    const target = processes.get(tgid);
    const thread = target?.threads.get(tid);
    if (target === undefined || thread === undefined) return -ESRCH;
    if (signal > 0) processes.signals.send(target, signal, { code: SI_USER, pid: caller.process.pid }, thread);
    return 0;
  };

  const CALLS = new Set<number>([
    ...[sys.SYS_tgkill, sys.SYS_sigaltstack, sys.SYS_rt_sigsuspend, sys.SYS_rt_sigaction, sys.SYS_rt_sigprocmask],
    ...[sys.SYS_rt_sigpending, sys.SYS_rt_sigreturn],
  ]);

  return {
    has: (nr) => CALLS.has(nr),
    call(caller, nr, args) {
      const [a0, a1, a2, a3] = args as [number, number, number, number];
      caller.process.signals.isUsed = true;
      switch (nr) {
        case sys.SYS_rt_sigaction:
          return sigaction(caller, a0, a1, a2, a3);
        case sys.SYS_rt_sigprocmask:
          return sigprocmask(caller, a0, a1, a2, a3);
        case sys.SYS_rt_sigpending:
          return sigpending(caller, a0, a1);
        case sys.SYS_rt_sigsuspend:
          return sigsuspend(caller, a0, a1);
        case sys.SYS_sigaltstack:
          return sigaltstack(caller, a0, a1);
        case sys.SYS_tgkill:
          return tgkill(caller, a0, a1, a2);
        default:
          // The end of a handler is its return: nobody else has a frame to go back to.
          throw new FatalSignal(SIGSEGV, "rt_sigreturn without a signal frame");
      }
    },
  };
}
