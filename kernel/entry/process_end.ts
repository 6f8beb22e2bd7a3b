/**
 * The end of threads and processes: exit, fatal signals, oopses, zombies.
 *
 * A thread ends when its code returns or is unwound: by exit, by a signal, or by a bug of the kernel on its behalf. The
 * first thread takes all others with it, unless another one calls execve and takes its place; a signal does, always.
 * The last one gives back memory and files; what stays is the zombie, until its parent has asked (PRC-2, PRC-3).
 *
 * Context: called by the scheduler, on the CPU that ran the thread; nothing sleeps.
 */

import { OOM_KILL } from "../../mm/index.ts";
import { BadAccess } from "../arch/port.ts";
import { KernelBug } from "../bug.ts";
import { KERN_ALERT, KERN_INFO } from "../printk.ts";
import type { Task } from "../task.ts";
import { TASK_DEAD, TASK_MM, TASK_STATE, taskComm } from "../task_struct.ts";
import { NULL } from "../types.ts";
import { SIGCHLD, SIGKILL } from "../uapi/mman.ts";
import { CLD_EXITED, CLD_KILLED, SA_NOCLDWAIT, SIG_IGN } from "../uapi/signal.ts";
import { ExitRequest, type Process, type ProcessTable } from "./process.ts";
import { FatalSignal } from "./user_mode.ts";

export interface ProcessEnd {
  /** A thread's code has returned `code`, or was unwound by `error`. */
  threadEnded(task: Task, code: number, error: unknown): void;
  /** Decides how `process` ends, if nothing has before, and wakes it to do so. */
  doom(process: Process, status: number): void;
  /** Forgets a zombie. */
  reap(process: Process): void;
}

const closeAll = (process: Process): void => {
  for (let fd = 0; fd < process.fds.length; fd++) {
    const file = process.fds[fd];
    if (file !== undefined && --file.refs === 0) file.release();
    process.fds[fd] = undefined;
  }
};

export function createProcessEnd(table: ProcessTable): ProcessEnd {
  const { processes, hostContext, processOf, finalStatus, exitQueue } = table;
  const { machine, contexts, printk, tasks, scheduler, waits, processMemory, vmstat, mutexes, piFutexes, onPanic } =
    table.deps;
  const { port } = machine;

  const oops = (task: Task, error: Error): void => {
    table.nrOopses++;
    const ctx = hostContext();
    contexts.taint("D");
    printk(KERN_ALERT, `kernel BUG: ${error.message}`);
    printk(KERN_ALERT, `Oops: invalid opcode: 0000 [#${table.nrOopses}] in ${taskComm(port, task.struct)}/${task.pid}`);
    printk(KERN_ALERT, contexts.stackDump(ctx, error));
    printk(KERN_ALERT, `---[ end trace 0000000000000000 ]---`);
  };

  /** wait4's word for how a thread's code ended; anything that is not of this machine is thrown on to the host. */
  const statusOf = (task: Task, status: number, error: unknown): number => {
    if (error === undefined) return (status & 0xff) << 8;
    if (error instanceof ExitRequest) return (error.status & 0xff) << 8;
    if (error instanceof FatalSignal) {
      if (error.isOutOfMemory) vmstat.countEvents(hostContext(), OOM_KILL, 1);
      // Init's end is the system's: its cause goes to the console.
      const level = processOf(task)?.isInit === true ? KERN_ALERT : KERN_INFO;
      if (error.message !== "") printk(level, `${taskComm(port, task.struct)}[${task.pid}]: ${error.message}`);
      return error.signal;
    }
    if (error instanceof KernelBug || error instanceof BadAccess) {
      oops(task, error);
      return SIGKILL;
    }
    throw error;
  };

  const doom = (process: Process, status: number): void => {
    process.ending ??= status;
    for (const thread of process.threads.values()) scheduler.wake(thread);
  };

  const reap = (process: Process): void => {
    const task = tasks.get(process.pid);
    if (task !== undefined) tasks.release(hostContext(), task);
    processes.delete(process.pid);
  };

  /** SIG-7 */
  const tellParent = (process: Process, parent: Process): void => {
    const status = process.status as number;
    const killedBy = status & 0x7f;
    const info = { pid: process.pid, status: killedBy === 0 ? status >>> 8 : killedBy };
    table.sendSignal(parent, SIGCHLD, { ...info, code: killedBy === 0 ? CLD_EXITED : CLD_KILLED });
    const action = parent.signals.actions.get(SIGCHLD);
    if (action !== undefined && (action.handler === SIG_IGN || (action.flags & SA_NOCLDWAIT) !== 0)) reap(process);
  };

  const becomeZombie = (process: Process): void => {
    process.status = process.ending as number;
    finalStatus.set(process.pid, process.status);
    closeAll(process);
    for (const child of processes.values()) {
      if (child.parent !== process.pid) continue;
      child.parent = !process.isInit && processes.get(1)?.isInit === true ? 1 : 0;
      if (child.parent === 0 && child.status !== undefined) reap(child);
    }
    const word = process.status.toString(16).padStart(8, "0");
    const parent = processes.get(process.parent);
    if (parent !== undefined) tellParent(process, parent);
    if (process.isInit) onPanic(`Attempted to kill init! exitcode=0x${word}`);
    if (process.parent === 0) reap(process);
    waits.wakeUp(exitQueue);
  };

  const threadEnded: ProcessEnd["threadEnded"] = (task, code, error) => {
    const status = statusOf(task, code, error);
    const process = processOf(task);
    const ctx = hostContext();
    piFutexes.taskEnds(task);
    mutexes.taskEnds(task);
    processMemory.activate(ctx.cpu, NULL);
    port.st32(task.struct + TASK_STATE, TASK_DEAD);
    if (process === undefined) {
      finalStatus.set(task.pid, status);
      tasks.release(ctx, task);
      return;
    }
    const isMain = task.pid === process.pid;
    process.threads.delete(task.pid);
    // The first thread takes all with it, unless another one is about to take its place (execve).
    const endsAll = (isMain && process.survivor === undefined) || error instanceof FatalSignal || (status & 0x7f) !== 0;
    if (endsAll) doom(process, status);
    port.st32(task.struct + TASK_MM, 0);
    processMemory.mmPut(ctx, process.mm);
    if (!isMain) {
      process.joinable.set(task.pid, status >>> 8);
      tasks.release(ctx, task);
      waits.wakeUp(exitQueue);
    }
    if (process.threads.size === 0) {
      process.ending ??= status;
      becomeZombie(process);
    }
  };

  return { threadEnded, doom, reap };
}
