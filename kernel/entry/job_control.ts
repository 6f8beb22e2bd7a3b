/**
 * Job control: stopping a process, letting it go on, and what its parent is told.
 *
 *   SIGSTOP, or SIGTSTP, SIGTTIN, SIGTTOU without a handler ─▶ stop ─▶ each thread parks on its way to its program
 *   SIGCONT ─▶ resume ─▶ they go on                         SIGKILL, the OOM killer, exit_group ─▶ they end
 *
 * A thread parks where it would execute its program next: behind a system call, when it gets its CPU again, before its
 * first step. Never inside the kernel, where others may wait for what it holds. One that sleeps in a call sleeps on,
 * with its process stopped all the same, and parks behind the call. (In Linux it leaves the call, which begins anew.)
 *
 *   JOB-1  no thread of a stopped process executes its program; its state is T
 *   JOB-2  a stop takes away a SIGCONT that waits, SIGCONT the stops that wait; SIGCONT continues its process also
 *          where it is blocked, ignored or has a handler, which runs then
 *   JOB-3  a stopped process can be killed and swapped out like any other
 *   JOB-4  the parent hears of each stop and of each continuation once: by wait4 with WUNTRACED or WCONTINUED, and by
 *          SIGCHLD unless it has SA_NOCLDSTOP. A stop while it is stopped, and SIGCONT while it runs, are nothing new
 *
 * Context: process; nothing here sleeps but park(). Source: kernel/signal.c (prepare_signal, do_signal_stop),
 * kernel/exit.c (wait_task_stopped). Not here: process groups, sessions and terminals, so that nobody but kill() stops
 * anybody.
 */

import { TASK_STATE, TASK_STOPPED } from "../task_struct.ts";
import { BLOCKED, type Sleeping } from "../types.ts";
import { SIGCHLD, SIGCONT, WCONTINUED, WUNTRACED } from "../uapi/mman.ts";
import {
  CLD_CONTINUED,
  CLD_STOPPED,
  SA_NOCLDSTOP,
  SIGSTOP,
  SIGTSTP,
  SIGTTIN,
  SIGTTOU,
  STATUS_CONTINUED,
  STATUS_STOPPED,
} from "../uapi/signal.ts";
import type { Caller, Process, ProcessTable } from "./process.ts";
import type { SigInfo, ThreadSignals } from "./signal_state.ts";

/** Signals that stop a process by default. */
export const STOP_SIGNALS: readonly number[] = [SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU];

export interface JobControl {
  /** Stops the process by `signal`, if it is not stopped. */
  stop(process: Process, signal: number): void;
  /** JOB-2: what a signal does by being sent, whatever becomes of it. `of`: the state of a thread. */
  prepare(process: Process, signal: number, of: (thread: Caller["task"]) => ThreadSignals): void;
  /** Sleeps for as long as the process is stopped. To be called where the thread comes back to its program. */
  park(caller: Caller): Sleeping<void>;
}

export const isStopped = ({ signals, ending }: Process): boolean => signals.stoppedBy !== 0 && ending === undefined;

/** JOB-4: what wait4 with `options` says of a child that has not ended, once; undefined: nothing. */
export function takeReport({ signals }: Process, options: number): number | undefined {
  const { report } = signals;
  if (report === undefined) return undefined;
  if ((options & (report === STATUS_CONTINUED ? WCONTINUED : WUNTRACED)) === 0) return undefined;
  signals.report = undefined;
  return report;
}

export function createJobControl(table: ProcessTable): JobControl {
  const { processes, exitQueue } = table;
  const { machine, scheduler, waits } = table.deps;
  const { port } = machine;

  const tellParent = ({ parent: pid, pid: child }: Process, info: SigInfo): void => {
    const parent = processes.get(pid);
    if (parent === undefined) return;
    const action = parent.signals.actions.get(SIGCHLD);
    const isWanted = action === undefined || (action.flags & SA_NOCLDSTOP) === 0;
    if (isWanted) table.sendSignal(parent, SIGCHLD, { ...info, pid: child });
    waits.wakeUp(exitQueue);
  };

  const resume = (process: Process): void => {
    const { signals, threads } = process;
    if (signals.stoppedBy === 0) return;
    signals.stoppedBy = 0;
    signals.report = STATUS_CONTINUED;
    for (const thread of threads.values()) {
      if (port.ld32(thread.struct + TASK_STATE) === TASK_STOPPED) scheduler.wake(thread);
    }
    tellParent(process, { code: CLD_CONTINUED, status: SIGCONT });
  };

  return {
    stop(process, signal) {
      const { signals } = process;
      if (signals.stoppedBy !== 0 || process.ending !== undefined) return;
      signals.stoppedBy = signal;
      signals.report = (signal << 8) | STATUS_STOPPED;
      tellParent(process, { code: CLD_STOPPED, status: signal });
    },
    prepare(process, signal, of) {
      const isContinue = signal === SIGCONT;
      if (!isContinue && !STOP_SIGNALS.includes(signal)) return;
      const waiting = [process.signals.pending, ...[...process.threads.values()].map((thread) => of(thread).pending)];
      for (const pending of waiting) for (const old of isContinue ? STOP_SIGNALS : [SIGCONT]) pending.delete(old);
      if (isContinue) resume(process);
    },
    *park({ process, task }) {
      while (isStopped(process)) {
        scheduler.prepareToBlock(task);
        port.st32(task.struct + TASK_STATE, TASK_STOPPED);
        yield BLOCKED;
      }
    },
  };
}
