/**
 * The kernel as an object of its host: the implementation of kernel.ts over the booted subsystems.
 */

import type { DriverCore } from "../../drivers/index.ts";
import type { Census, Dma, FaultInjection, Mempools, ProcessMemory } from "../../mm/index.ts";
import type { Machine } from "../arch/machine.ts";
import type { ContextTracking } from "../context.ts";
import type { Deferred } from "../deferred.ts";
import type { Lockdep } from "../lockdep.ts";
import type { Locks } from "../locks.ts";
import { KERN_INFO, type Printk } from "../printk.ts";
import type { Scheduler } from "../sched.ts";
import type { Task, Tasks } from "../task.ts";
import { PF_KTHREAD } from "../task_struct.ts";
import { NULL } from "../types.ts";
import { ENOMEM } from "../uapi/errno.ts";
import { SIGINT } from "../uapi/mman.ts";
import type { KernelFiles } from "./file_tree.ts";
import type { ConsoleDevice } from "./files.ts";
import type { Kernel, KernelInterrupts, KernelMemory, RunStop, TaskInfo } from "./kernel.ts";
import { kernelReplay } from "./kernel_replay.ts";
import type { ObjectUsers } from "./object_users.ts";
import type { Processes } from "./process.ts";

export interface KernelObjectDeps {
  readonly machine: Machine;
  readonly printk: Printk;
  readonly contexts: ContextTracking;
  readonly scheduler: Scheduler;
  readonly tasks: Tasks;
  readonly processes: Processes;
  readonly processMemory: ProcessMemory;
  readonly memory: KernelMemory;
  readonly interrupts: KernelInterrupts;
  readonly mempools: Mempools;
  readonly dma: Dma;
  readonly users: ObjectUsers;
  readonly files: KernelFiles;
  readonly consoleDevice: ConsoleDevice;
  readonly drivers: DriverCore;
  /** Drivers that misused DMA, by dma-debug and the guard port. */
  readonly dmaReports: () => number;
  readonly deferred: Deferred;
  readonly locks: Locks;
  readonly lockdep: Lockdep | undefined;
  readonly faults: FaultInjection | undefined;
  readonly state: { powerOff: boolean; panicReport: string | null };
  readonly taskInfos: () => readonly TaskInfo[];
  readonly checkCma: () => string | null;
  readonly census: () => Census;
  readonly peakUsed: () => number;
}

/** Slices between two looks at what the host wants. */
const STEPS_PER_POLL = 16;

export function createKernelObject(deps: KernelObjectDeps): Kernel {
  const { machine, printk, contexts, scheduler, tasks, processes, processMemory, consoleDevice, state } = deps;
  const { memory } = deps;
  const { harts } = machine;
  const { clock } = harts;

  const now = (): number => clock.reduce((latest, time) => Math.max(latest, time), 0);

  const stopReason = (untilCycles: number, shouldStop: (() => boolean) | undefined): RunStop | undefined => {
    if (state.panicReport !== null) return "panic";
    if (state.powerOff) return "poweroff";
    if (now() >= untilCycles || shouldStop?.() === true) return "budget";
    return undefined;
  };

  const checkProcesses = (): string | null => {
    for (const process of processes.all()) {
      if (process.threads.size === 0) continue;
      const problem = processMemory.check(process.mm);
      if (problem !== null) return `process ${process.pid}: ${problem}`;
    }
    return null;
  };

  const checkCensus = (): string | null => {
    const { total, ...parts } = deps.census();
    const sum = Object.values(parts).reduce((all, part) => all + part, 0);
    return sum === total && parts.other >= 0 ? null : `census: the parts add up to ${sum} of ${total} pages`;
  };

  return {
    machine,
    memory,
    interrupts: deps.interrupts,
    printk,
    contexts,
    lockdep: deps.lockdep,
    run({ untilCycles = Number.POSITIVE_INFINITY, shouldStop } = {}) {
      scheduler.setDeadline(untilCycles);
      for (let steps = 0; ; steps++) {
        if (steps % STEPS_PER_POLL === 0 || now() >= untilCycles || state.powerOff || state.panicReport !== null) {
          const reason = stopReason(untilCycles, shouldStop);
          if (reason !== undefined) return reason;
        }
        if (scheduler.step() !== "nothing") continue;
        return stopReason(untilCycles, shouldStop) ?? (consoleDevice.hasReader() ? "input" : "idle");
      }
    },
    feedConsole: consoleDevice.feed,
    closeConsole: () => consoleDevice.close(),
    interruptConsole() {
      for (const process of processes.all()) {
        const isSession = process.isInit || process.parent === 1;
        if (!isSession && process.fds[0]?.isConsole === true) processes.kill(process.pid, SIGINT);
      }
    },
    spawn(path, args, options = {}) {
      const file = consoleDevice.open();
      file.refs += 2;
      const parent = processes.get(1)?.isInit === true ? 1 : 0;
      const start = (): number => processes.spawn(parent, path, args, [file, file, file], options);
      // FIN-1: without init there is no system.
      const pid = path === "/sbin/init" && deps.faults !== undefined ? deps.faults.mustNotFail(start) : start();
      if (pid < 0) file.refs -= 3;
      else if (path === "/sbin/init") printk(KERN_INFO, "Run /sbin/init as init process");
      return pid;
    },
    spawnKernelReplay(recording, observer) {
      const ctx = contexts.taskContext(0);
      const { pageAlloc } = memory;
      const replayDeps = { machine, contexts, scheduler, printk, pageAlloc, heap: deps.users.replayHeap };
      const task: Task | undefined = tasks.create(ctx, {
        comm: "kmem_replay",
        parent: NULL,
        flags: PF_KTHREAD,
        body: (taskCtx) => kernelReplay(replayDeps, recording, observer, taskCtx),
      });
      if (task === undefined) return [-ENOMEM];
      scheduler.wake(task);
      return [task.pid];
    },
    exitStatus: processes.exitStatus,
    readFile: deps.files.readText,
    now,
    tasks: deps.taskInfos,
    deviceStats: deps.drivers.deviceStats,
    drivers: deps.drivers,
    magazineStats: () => Array.from({ length: harts.nrCpus }, (_, cpu) => memory.slab.cpuStats(cpu)),
    census: deps.census,
    faultStats: () => deps.faults?.stats() ?? null,
    peakPages: () => deps.census().reserved + deps.peakUsed(),
    check: () =>
      memory.pageAlloc.check() ??
      deps.checkCma() ??
      memory.slab.check() ??
      deps.mempools.check() ??
      deps.dma.check() ??
      scheduler.check() ??
      deps.deferred.check() ??
      deps.interrupts.irqs.check() ??
      deps.drivers.check() ??
      printk.check() ??
      checkProcesses() ??
      checkCensus(),
    get panicReport() {
      return state.panicReport;
    },
    nrReports: () =>
      processes.nrOopses() +
      contexts.nrAtomicSleeps() +
      contexts.nrWarnings() +
      deps.deferred.rcu.nrStalls() +
      memory.pageAlloc.nrBadFrees() +
      deps.drivers.nrReports() +
      deps.dmaReports() +
      (deps.lockdep?.nrReports() ?? 0) +
      deps.locks.mutexes.stats().reports,
    save: () => machine.save(),
  };
}
