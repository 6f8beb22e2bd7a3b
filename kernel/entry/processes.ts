/**
 * The processes of a machine: who there is, who waits for whom, signals (process.ts says what a process is).
 */

import { TASK_TGID } from "../task_struct.ts";
import { ECHILD, ESRCH } from "../uapi/errno.ts";
import { WNOHANG } from "../uapi/mman.ts";
import { SI_USER } from "../uapi/signal.ts";
import { takeReport } from "./job_control.ts";
import { ExitRequest, type Process, type ProcessDeps, type Processes, type ProcessTable } from "./process.ts";
import { createProcessEnd } from "./process_end.ts";
import { createProcessStart } from "./process_start.ts";
import { FatalSignal } from "./user_mode.ts";

export function createProcesses(deps: ProcessDeps): Processes {
  const { machine, contexts, scheduler, waits, processMemory } = deps;
  const { port, harts } = machine;
  const processes = new Map<number, Process>();
  const table: ProcessTable = {
    deps,
    processes,
    finalStatus: new Map(),
    exitQueue: deps.queues,
    hostContext: () => contexts.taskContext(harts.current[0] as number),
    processOf: (task) => processes.get(port.ld32(task.struct + TASK_TGID)),
    enterSyscall: () => -ESRCH,
    doom: () => {},
    sendSignal: () => {},
    nrSyscalls: 0,
    nrOopses: 0,
  };
  const { exitQueue } = table;
  waits.init(exitQueue);
  const start = createProcessStart(table);
  const end = createProcessEnd(table);
  table.doom = end.doom;
  table.sendSignal = start.signals.send;

  scheduler.onEnd(end.threadEnded);
  scheduler.onResume((task) => {
    const process = table.processOf(task);
    if (process === undefined) return undefined;
    const { ending, survivor } = process;
    if (ending !== undefined) return new FatalSignal(ending & 0x7f, "");
    return survivor === undefined || survivor === task ? undefined : new ExitRequest(0);
  });
  scheduler.onSwitch((task, cpu) => {
    processMemory.activate(cpu, start.addressSpaceOf(task));
  });

  return {
    ...start,
    *wait(caller, pid, options) {
      for (;;) {
        let hasChild = false;
        for (const child of processes.values()) {
          if (child.parent !== caller.process.pid || (pid > 0 && child.pid !== pid)) continue;
          hasChild = true;
          const { status = takeReport(child, options) } = child;
          if (status === undefined) continue;
          if (child.status !== undefined) end.reap(child);
          return { pid: child.pid, status };
        }
        if (!hasChild) return { pid: -ECHILD, status: 0 };
        if ((options & WNOHANG) !== 0) return { pid: 0, status: 0 };
        yield* waits.waitOn(exitQueue, caller.task);
      }
    },
    *joinThread(caller, tid) {
      const { process } = caller;
      while (process.threads.has(tid) && tid !== caller.task.pid) yield* waits.waitOn(exitQueue, caller.task);
      const status = process.joinable.get(tid);
      process.joinable.delete(tid);
      return status ?? -ESRCH;
    },
    kill(pid, signal, sender = 0) {
      const process = processes.get(pid);
      if (process === undefined) return -ESRCH;
      // A zombie is there, and hears nothing any more.
      if (process.status !== undefined) return 0;
      if (signal !== 0) start.signals.send(process, signal, { code: SI_USER, pid: sender });
      return 0;
    },
    get: (pid) => processes.get(pid),
    all: () => [...processes.values()],
    exitStatus(pid) {
      const status = table.finalStatus.get(pid);
      if (status === undefined) return undefined;
      return (status & 0x7f) !== 0 ? 128 + (status & 0x7f) : status >>> 8;
    },
    setSyscallEntry(entry) {
      table.enterSyscall = entry;
    },
    nrOopses: () => table.nrOopses,
    nrSyscalls: () => table.nrSyscalls,
  };
}
