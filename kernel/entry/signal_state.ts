/**
 * What the kernel keeps of the signals of a process and of each of its threads, and the masks that programs pass.
 *
 * Handlers belong to the process, masks to the thread; a signal waits with the process until a thread takes it that
 * does not block it, or with the one thread that it was sent to. The rules are in signals.ts. Host state, like the
 * process table: a handler is a text address, and the text of programs is on the host, too.
 */

import { SIGKILL } from "../uapi/mman.ts";
import { NR_SIGNALS, SIG_DFL, SIG_IGN, SIGSTOP } from "../uapi/signal.ts";

export interface SigAction {
  /** Text address, or SIG_IGN. */
  readonly handler: number;
  readonly flags: number;
  readonly mask: SigSet;
}

export type SigSet = ReadonlySet<number>;

/** Why a signal was sent. */
export interface SigInfo {
  readonly code: number;
  readonly addr?: number;
  readonly pid?: number;
  readonly status?: number;
}

export interface ProcessSignals {
  /** What is not in it has its default. */
  readonly actions: Map<number, SigAction>;
  readonly pending: Map<number, SigInfo>;
  /** A call about signals was made: until then system calls and faults have nothing to look for. */
  isUsed: boolean;
  /** The signal that has stopped the process; 0: it runs (job_control.ts). */
  stoppedBy: number;
  /** wait4's word for the last stop or continuation, until the parent has asked for it. */
  report: number | undefined;
  /** Below the arguments of the program: where the frames of its first thread go; and how many threads came after. */
  stackBase: number;
  nrThreads: number;
}

export interface ThreadSignals {
  blocked: SigSet;
  /** By rt_sigsuspend: the mask to go back to. */
  suspended: SigSet | undefined;
  readonly pending: Map<number, SigInfo>;
  /** In a system call that a signal may end early. */
  isInterruptible: boolean;
  /** The program is about to give up its CPU by itself: a handler may run when it has it again. */
  isAtYield: boolean;
  /** SIG-8: the error that ends it has been thrown into its program once. */
  isToldToEnd: boolean;
  /** The next frame goes below. */
  sp: number;
  altStack: { readonly sp: number; readonly size: number } | undefined;
  /** Handlers of faults that run in each other. */
  depth: number;
}

export const NO_SIGNALS: SigSet = new Set();

export const createProcessSignals = (): ProcessSignals => ({
  actions: new Map(),
  pending: new Map(),
  isUsed: false,
  stoppedBy: 0,
  report: undefined,
  stackBase: 0,
  nrThreads: 0,
});

/** SIG-6: handlers are copied, what waits is not. */
export const forkSignals = (parent: ProcessSignals): ProcessSignals => ({
  ...parent,
  actions: new Map(parent.actions),
  pending: new Map(),
  stoppedBy: 0,
  report: undefined,
});

/** SIG-6: handlers go with the program, what is ignored stays so. */
export function execSignals({ actions }: ProcessSignals): void {
  for (const [signal, { handler }] of actions) if (handler !== SIG_IGN) actions.delete(signal);
}

export const createThreadSignals = (blocked: SigSet): ThreadSignals => ({
  blocked,
  suspended: undefined,
  pending: new Map(),
  isInterruptible: false,
  isAtYield: false,
  isToldToEnd: false,
  sp: 0,
  altStack: undefined,
  depth: 0,
});

/** SIG-1: nobody blocks these. */
export const withoutFatal = (signals: Iterable<number>): SigSet =>
  new Set([...signals].filter((signal) => signal !== SIGKILL && signal !== SIGSTOP));

/** Bit n − 1 of the 64 stands for signal n. */
export function sigSetOf(bytes: Uint8Array, offset = 0): SigSet {
  const set = new Set<number>();
  for (let signal = 1; signal <= NR_SIGNALS; signal++) {
    const byte = bytes[offset + ((signal - 1) >>> 3)] as number;
    if (((byte >>> ((signal - 1) & 7)) & 1) === 1) set.add(signal);
  }
  return set;
}

/** The signals of a thread as /proc shows them: waiting for it, for its process; blocked; without effect; handled. */
export interface SignalSets {
  readonly pending: SigSet;
  readonly shared: SigSet;
  readonly blocked: SigSet;
  readonly ignored: SigSet;
  readonly caught: SigSet;
  /** Signals that wait in all processes, whose user is the same. */
  readonly nrQueued: number;
}

export function signalSetsOf({ actions, pending }: ProcessSignals, own: ThreadSignals, nrQueued: number): SignalSets {
  const handled = (isIgnored: boolean): SigSet =>
    new Set(
      [...actions]
        .filter(([, { handler }]) => handler !== SIG_DFL && isIgnored === (handler === SIG_IGN))
        .map(([nr]) => nr),
    );
  return {
    pending: new Set(own.pending.keys()),
    shared: new Set(pending.keys()),
    blocked: own.blocked,
    ignored: handled(true),
    caught: handled(false),
    nrQueued,
  };
}

export function bytesOfSigSet(set: SigSet): Uint8Array {
  const bytes = new Uint8Array(NR_SIGNALS / 8);
  for (const signal of set) {
    const at = (signal - 1) >>> 3;
    bytes[at] = (bytes[at] as number) | (1 << ((signal - 1) & 7));
  }
  return bytes;
}
