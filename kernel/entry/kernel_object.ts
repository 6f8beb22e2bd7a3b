/**
 * The kernel as an object of its host: the implementation of kernel.ts over the booted subsystems.
 */

import type { DriverCore } from "../../drivers/index.ts";
import {
  type Census,
  type Dma,
  type FaultInjection,
  type Mempools,
  type ProcessMemory,
  pageOwners,
} from "../../mm/index.ts";
import type { Machine } from "../arch/machine.ts";
import type { ContextTracking } from "../context.ts";
import type { Deferred } from "../deferred.ts";
import type { FileRegistry } from "../file.ts";
import type { Lockdep } from "../lockdep.ts";
import type { Locks } from "../locks.ts";
import { KERN_INFO, type Printk } from "../printk.ts";
import type { Scheduler } from "../sched.ts";
import type { Task, Tasks } from "../task.ts";
import { PF_KTHREAD, TASK_FLAGS, TASK_RUN_CYCLES, TASK_STACK, taskComm } from "../task_struct.ts";
import { asPhys, NULL } from "../types.ts";
import { ENOMEM, ESRCH } from "../uapi/errno.ts";
import { SIGINT } from "../uapi/mman.ts";
import type { KernelFiles } from "./file_tree.ts";
import type { ConsoleDevice } from "./files.ts";
import type { Kernel, KernelInterrupts, KernelMemory, RunStop, SavedKernel } from "./kernel.ts";
import { kernelReplay } from "./kernel_replay.ts";
import type { ObjectUsers } from "./object_users.ts";
import type { Panic } from "./panic.ts";
import type { ProcSources } from "./proc_sources.ts";
import type { Processes } from "./process.ts";
import { createSnapshotDevice, type SnapshotDevice } from "./snapshot_device.ts";

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
  readonly registry: FileRegistry;
  readonly drivers: DriverCore;
  /** Drivers that misused DMA, by dma-debug and the guard port. */
  readonly dmaReports: () => number;
  readonly deferred: Deferred;
  readonly locks: Locks;
  readonly lockdep: Lockdep | undefined;
  readonly faults: FaultInjection | undefined;
  readonly panic: Panic;
  readonly sources: Pick<ProcSources, "tasks" | "task" | "vmas">;
  readonly checkRanges: () => string | null;
  readonly census: () => Census;
  readonly peakUsed: () => number;
}

/** Slices between two looks at what the host wants. */
const STEPS_PER_POLL = 16;

/** Why `image` cannot be put back into the machine of `tasks`; null if it can. Programs that go on have moved on. */
function whyNotRestore({ machine, tasks }: KernelObjectDeps, image: SavedKernel): string | null {
  const { port } = machine;
  const now = tasks.all();
  const name = (task: Task, struct: number): string => `task ${task.pid} (${taskComm(port, asPhys(struct))})`;
  const gone = image.tasks.find((task) => tasks.get(task.pid) !== task);
  if (gone !== undefined) return `task ${gone.pid} has ended since the image was saved`;
  const added = now.find((task) => !image.tasks.includes(task));
  if (added !== undefined) return `${name(added, added.struct)} has begun since the image was saved`;
  const saved = new DataView(image.ram.buffer, image.ram.byteOffset, image.ram.byteLength);
  const moved = now.find(({ struct }) => {
    const isKernelThread = (port.ld32(struct + TASK_FLAGS) & PF_KTHREAD) !== 0;
    const at = struct + TASK_RUN_CYCLES;
    return !isKernelThread && saved.getFloat64(at, true) !== port.ldF64(at);
  });
  return moved === undefined ? null : `${name(moved, moved.struct)} has run since the image was saved`;
}

export function createKernelObject(deps: KernelObjectDeps): Kernel {
  const { machine, printk, contexts, scheduler, tasks, processes, processMemory, consoleDevice } = deps;
  const { memory } = deps;
  const { state, orDie } = deps.panic;
  const { harts } = machine;
  const { clock } = harts;

  let nrSteps = 0;
  let snapshots: SnapshotDevice | undefined;
  const isAsked = (): boolean => snapshots !== undefined && snapshots.request() !== null;
  let nrReplays = 0;

  const now = (): number => clock.reduce((latest, time) => Math.max(latest, time), 0);

  const stopReason = (untilCycles: number, shouldStop: (() => boolean) | undefined): RunStop | undefined => {
    if (state.panicReport !== null) return "panic";
    if (state.powerOff) return "poweroff";
    if (isAsked()) return "snapshot";
    if (now() >= untilCycles || shouldStop?.() === true) return "budget";
    return undefined;
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
    run({ untilCycles = Number.POSITIVE_INFINITY, shouldStop, pause } = {}) {
      scheduler.setDeadline(untilCycles);
      for (let turns = 0; ; turns++) {
        if (
          turns % STEPS_PER_POLL === 0 ||
          now() >= untilCycles ||
          state.powerOff ||
          state.panicReport !== null ||
          isAsked()
        ) {
          const reason = stopReason(untilCycles, shouldStop);
          if (reason !== undefined) return reason;
        }
        if (orDie(scheduler.step) !== "nothing") {
          nrSteps++;
          if (pause?.() === true) return "pause";
          continue;
        }
        return stopReason(untilCycles, shouldStop) ?? (consoleDevice.hasReader() ? "input" : "idle");
      }
    },
    quietUntil: scheduler.quietUntil,
    passTime: scheduler.passTime,
    steps: () => nrSteps,
    feedConsole: (text) => orDie(() => consoleDevice.feed(text)),
    closeConsole: () => orDie(consoleDevice.close),
    serveSnapshots() {
      const device = createSnapshotDevice();
      deps.registry.registerDevice("snapshot", () => device.open());
      snapshots = device;
      return device;
    },
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
      const begin = path === "/sbin/init" && deps.faults !== undefined ? () => deps.faults?.mustNotFail(start) : start;
      const pid = orDie(begin) ?? -ENOMEM;
      if (pid < 0) file.refs -= 3;
      else if (path === "/sbin/init") printk(KERN_INFO, "Run /sbin/init as init process");
      return pid;
    },
    spawnKernelReplay(recording, observer) {
      const ctx = contexts.taskContext(0);
      const { pageAlloc } = memory;
      const nrBefore = nrReplays++;
      const replayDeps = { nrBefore, machine, contexts, scheduler, printk, pageAlloc, heap: deps.users.replayHeap };
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
    kill: (pid, signal) => orDie(() => processes.kill(pid, signal)) ?? -ESRCH,
    stopFaults: () => deps.faults?.disarm(),
    nrSyscalls: processes.nrSyscalls,
    exitStatus: processes.exitStatus,
    readFile: deps.files.readText,
    removeFiles: deps.files.removeAll,
    now,
    tasks: deps.sources.tasks,
    task: deps.sources.task,
    mappings: (pid) => deps.sources.vmas(pid, true),
    deviceStats: deps.drivers.deviceStats,
    drivers: deps.drivers,
    magazineStats: () => Array.from({ length: harts.nrCpus }, (_, cpu) => memory.slab.cpuStats(cpu)),
    census: deps.census,
    nrKernelTables: deps.users.vmalloc.nrTables,
    faultStats: () => deps.faults?.stats() ?? null,
    peakPages: () => deps.census().reserved + deps.peakUsed(),
    check: () =>
      memory.pageAlloc.check() ??
      deps.checkRanges() ??
      memory.slab.check() ??
      deps.mempools.check() ??
      deps.dma.check() ??
      scheduler.check() ??
      deps.deferred.check() ??
      deps.interrupts.irqs.check() ??
      deps.drivers.check() ??
      printk.check() ??
      processMemory.checkAll() ??
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
    owners: () =>
      pageOwners({
        port: machine.port,
        pages: memory.pages,
        zones: memory.zones,
        programs: processes.all().flatMap(({ pid, mm, threads }) => {
          const [first] = threads.values();
          return first === undefined ? [] : [{ mm, name: `${taskComm(machine.port, first.struct)} (${pid})` }];
        }),
        stacks: tasks.all().map(({ struct }) => machine.port.ld32(struct + TASK_STACK)),
      }),
    save: (into) => ({ ...machine.save(into), tasks: tasks.all() }),
    restore(image) {
      const reason = whyNotRestore(deps, image);
      if (reason !== null) throw new Error(`kernel: ${reason}: its code is no part of the image; run again instead`);
      machine.restore(image);
    },
  };
}
