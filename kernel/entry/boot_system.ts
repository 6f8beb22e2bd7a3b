/**
 * The part of boot above memory and tasks: what a program sees of the kernel.
 *
 *   panic, console ─▶ processes ─▶ OOM killer ─▶ drivers, devices ─▶ /proc, files ─▶ system calls
 *
 * Each arrow is a "needs"; files that describe what comes later ask it when they are read.
 */

import { createDriverCore, DEVICE_PLACES, DRIVER_TYPES, type DriverCore } from "../../drivers/index.ts";
import {
  createSmaps,
  formatMemoryMap,
  GFP_KERNEL,
  type Mempools,
  type PageLevelSetup,
  type PageTables,
  PGPGIN,
  PGPGOUT,
  registerDmaFiles,
} from "../../mm/index.ts";
import { IRQ_UART } from "../arch/irqchip.ts";
import type { Cpuhp } from "../cpuhp.ts";
import type { Deferred } from "../deferred.ts";
import { createFileRegistry, type FileRegistry } from "../file.ts";
import { IRQ_HANDLED, IRQ_NONE, type Irqs } from "../irq.ts";
import type { ThreadedIrqs } from "../irq_thread.ts";
import { lockdepStatsText } from "../lockdep_report.ts";
import type { Locks } from "../locks.ts";
import type { Nmis } from "../nmi.ts";
import { proveReturnToUser } from "../prove_locking.ts";
import type { Scheduler } from "../sched.ts";
import type { Tasks } from "../task.ts";
import { asPhys, type PhysAddr, type TaskContext } from "../types.ts";
import { decodeUtf8 } from "../uapi/utf8.ts";
import type { WaitQueues } from "../wait.ts";
import { createBlockFiles } from "./block_files.ts";
import type { Core } from "./boot_core.ts";
import { registerKernelFiles } from "./boot_files.ts";
import type { UserMemory } from "./boot_memory.ts";
import type { PhysicalMemory } from "./boot_physical.ts";
import { swapDiskMib, withSwapDisk } from "./boot_swap.ts";
import { createEventcounts } from "./eventcount.ts";
import { createFileTree, type KernelFiles } from "./file_tree.ts";
import { type ConsoleDevice, createConsole } from "./files.ts";
import { createPiFutexes } from "./futex_pi.ts";
import { guestMemory } from "./guest_memory.ts";
import type { BootOptions } from "./kernel.ts";
import type { ObjectUsers } from "./object_users.ts";
import { createOomKiller } from "./oom_kill.ts";
import { createPanic, type Panic } from "./panic.ts";
import type { ProcSources } from "./proc_sources.ts";
import { NR_OPEN, type Processes } from "./process.ts";
import { createProcesses } from "./processes.ts";
import { createProcfs } from "./procfs/index.ts";
import { availablePages } from "./procfs/meminfo.ts";
import { initialRlimits } from "./rlimit.ts";
import { createSyscalls } from "./syscall.ts";
import { createProcSources } from "./system_info.ts";

export interface SystemDeps {
  readonly options: BootOptions;
  readonly core: Core;
  readonly pageSetup: PageLevelSetup;
  readonly physical: PhysicalMemory;
  readonly userMemory: UserMemory;
  readonly irqs: Irqs;
  readonly nmis: Nmis;
  readonly threadedIrqs: ThreadedIrqs;
  readonly cpuhp: Cpuhp;
  readonly deferred: Deferred;
  readonly locks: Locks;
  readonly tasks: Tasks;
  readonly scheduler: Scheduler;
  readonly waits: WaitQueues;
  readonly mempools: Mempools;
  readonly pageTables: PageTables;
  readonly users: ObjectUsers;
  readonly isCompacting: boolean;
  readonly hostContext: () => TaskContext;
  /** Static memory: wait queues of processes and the console, drivers, the OOM killer. */
  readonly statics: PhysAddr;
  readonly driverStatics: PhysAddr;
  readonly oomStatics: PhysAddr;
}

export interface System {
  readonly panic: Panic;
  readonly consoleDevice: ConsoleDevice;
  readonly processes: Processes;
  readonly registry: FileRegistry;
  readonly drivers: DriverCore;
  readonly sources: ProcSources;
  readonly files: KernelFiles;
  /** Of the swap disk that was asked for at boot; 0 without. */
  readonly swapMib: number;
}

export function composeSystem(deps: SystemDeps): System {
  const { options, core, pageSetup, physical, userMemory, irqs, nmis, threadedIrqs, cpuhp, deferred } = deps;
  const { locks, tasks, scheduler, waits, mempools, pageTables, users, isCompacting, hostContext } = deps;
  const { statics, driverStatics, oomStatics } = deps;
  const { nrCpus, ramBytes } = options;
  const { parameters, machine, printk, contexts, lockdep, offTracker, stackTracer } = core;
  const { port } = machine;
  const { level, pageAlloc, faults, cma, slab, dmaSystem, percpuBytes } = physical;
  const { pages, pcp, pageblocks } = level;
  const { vmstat, zones } = pageSetup;
  const { dma } = dmaSystem;
  const { processMemory, reclaim, balloonPages, pageReporting } = userMemory;
  const memoryMap = (): string => formatMemoryMap(pages, zones);
  const panic = createPanic({ machine, contexts, printk, memoryMap });
  const { state } = panic;
  irqs.onFatal((ctx, error) => panic.die(ctx, error, "in interrupt"));
  const consoleDevice = createConsole(
    waits,
    asPhys(statics + 8),
    (bytes) => options.console(decodeUtf8(bytes)),
    (isUp) => machine.irqChip.setLevel(IRQ_UART, isUp),
  );
  irqs.requestIrq(IRQ_UART, { name: "ttyS0", handler: () => (consoleDevice.receive() ? IRQ_HANDLED : IRQ_NONE) });
  const heap = users.replayHeap;
  const piFutexes = createPiFutexes({ mutexes: locks.userMutexes, heap, gfp: GFP_KERNEL }); // locks of user threads
  const processes = createProcesses({
    machine,
    contexts,
    printk,
    tasks,
    scheduler,
    waits,
    processMemory,
    vmstat,
    programs: options.programs,
    queues: statics,
    mutexes: locks.mutexes,
    piFutexes,
    makeRoom: userMemory.makeRoom,
    onPanic: panic.panic,
    rlimits: initialRlimits(ramBytes, NR_OPEN),
  });
  const oom = createOomKiller({
    machine,
    contexts,
    printk,
    tasks,
    processes,
    processMemory,
    zones,
    pcp,
    vmstat,
    swapTotals: reclaim.area.totals,
    panic,
    parameters,
    statics: oomStatics,
  }); // who dies when nothing is left
  reclaim.reclaim.onOutOfMemory(oom.kill);
  const swapMib = swapDiskMib(parameters.size("swap", 0));
  const registry = createFileRegistry(); // what drivers add
  if (lockdep !== undefined) registry.registerText("/proc/lockdep_stats", { read: () => lockdepStatsText(lockdep) });
  registerDmaFiles(registry, dmaSystem);
  const drivers = createDriverCore({
    services: {
      machine,
      contexts,
      printk,
      irqs,
      threadedIrqs,
      ...locks,
      waits,
      scheduler,
      tasks,
      slab,
      pageAlloc,
      dma,
      mempools,
      balloonPages,
      pageReporting: physical.isFreeZeroed ? null : pageReporting,
      countIo: (ctx, isWrite, bytes) => vmstat.countEvents(ctx, isWrite ? PGPGOUT : PGPGIN, bytes / 1024),
      guestMemory: () => guestMemory(vmstat, zones, availablePages(sources)),
      ...deferred,
    },
    registry,
    places: [...DEVICE_PLACES, ...(options.extraDevices ?? [])],
    types: [...DRIVER_TYPES, ...(options.extraDrivers ?? [])],
    settings: swapMib === 0 ? (options.devices ?? {}) : withSwapDisk(options.devices ?? {}, swapMib),
    statics: driverStatics,
  }); // devices, modules
  cpuhp.registerCpuhp({ name: "drivers/napi:dead", offline: drivers.adopt });
  const sources = createProcSources({
    machine,
    printk,
    zones,
    vmstat,
    pcp,
    pageblocks,
    slab,
    tasks,
    processes,
    processMemory,
    smaps: createSmaps({ port, pages, pageTables, processMemory, swapNames: reclaim.swapNames }),
    fileName: (mapping) => files.nameOf(mapping),
    irqs,
    nmis,
    softirqs: deferred.softirqs,
    switches: scheduler.nrSwitches,
    modules: drivers.modulesText,
    swapTotals: reclaim.area.totals,
    dirtyThresholds: reclaim.writeback.thresholds,
    cmdline: options.cmdline,
    percpuBytes,
  });
  registerKernelFiles(registry, {
    port,
    cma,
    userMemory,
    isCompacting,
    users,
    zones,
    slab,
    pageAlloc,
    vmstat,
    printk,
    nrCpus,
    oomSettings: oom.settings,
    memoryMap,
    panic: panic.panic,
  }); // what is not in procfs
  cpuhp.registerFiles(registry);
  offTracker?.registerFiles(registry);
  stackTracer?.registerFiles(registry);
  faults?.registerFiles(registry);
  const blockFiles = createBlockFiles({
    port,
    printk,
    processMemory,
    writeback: reclaim.writeback,
    diskCache: reclaim.diskCache,
    startKswapd: reclaim.reclaim.startKswapd,
    context: hostContext,
  }); // disks through the page cache
  const files = createFileTree({
    blockFiles,
    memory: {
      port,
      pageAlloc,
      vmstat,
      processMemory,
      context: hostContext,
      makeRoom: () => userMemory.makeRoomForFile(hostContext()),
      interruptPoint: contexts.interruptPoint,
    },
    waits,
    procfs: createProcfs(sources, registry),
    consoleDevice,
    registry,
    printk,
    programPaths: [...options.programs.keys()],
  });
  const enterSyscall = createSyscalls({
    machine,
    eventcounts: createEventcounts({ machine, waits, heap, gfp: GFP_KERNEL, context: hostContext }),
    contexts,
    irqs,
    scheduler,
    processes,
    piFutexes,
    processMemory,
    files,
    blockFiles,
    drivers,
    swapArea: reclaim.area,
    writeback: reclaim.writeback,
    deferred,
    powerOff: () => {
      state.powerOff = true;
    },
  });
  processes.setSyscallEntry(lockdep === undefined ? enterSyscall : proveReturnToUser(enterSyscall, lockdep));
  return { panic, consoleDevice, processes, registry, drivers, sources, files, swapMib };
}
