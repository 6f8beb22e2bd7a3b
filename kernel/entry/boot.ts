/**
 * Boot: the composition root. It reads like a table of contents; every piece is built and wired here, or in a chapter:
 *
 *   power on, static image, locks                              boot_core.ts
 *   → firmware map → memblock → per-CPU areas → zones and
 *     struct page → buddy (hand-over), slabs, kmalloc, DMA     boot_physical.ts
 *   → tasks, scheduler, locks that sleep → address spaces      boot_memory.ts
 *   → processes, drivers, files, system calls                  boot_system.ts
 *   → programs
 */

import { driverCoreStatics } from "../../drivers/index.ts";
import {
  CMA_BYTES,
  composePages,
  createMemblock,
  createMempools,
  createPageTables,
  memblockTableBytes,
  RANDOMIZE_ALL,
  RANDOMIZE_NONE,
  THP_POLICIES,
  takeCensus,
  VMALLOC_STATIC_BYTES,
} from "../../mm/index.ts";
import { CYC_CPU_UP } from "../arch/charges.ts";
import { SYSTEM_RUNNING } from "../context.ts";
import { createCpuhp } from "../cpuhp.ts";
import { composeDeferred } from "../deferred.ts";
import { createIrqs } from "../irq.ts";
import { DEFAULT_UNHANDLED_LIMIT } from "../irq_spurious.ts";
import { createIrqThreads } from "../irq_thread.ts";
import { createLocks } from "../locks.ts";
import { MUTEX_STATIC_BYTES } from "../mutex.ts";
import { createNmis } from "../nmi.ts";
import { CACHE_LINE } from "../params.ts";
import { KERN_INFO, KERN_WARNING } from "../printk.ts";
import { createScheduler } from "../sched.ts";
import { createSmp } from "../smp.ts";
import { createTasks } from "../task.ts";
import { NULL } from "../types.ts";
import { createWaitQueues } from "../wait.ts";
import { composeCore } from "./boot_core.ts";
import { composeUserMemory, takeUserMemoryStatics } from "./boot_memory.ts";
import { composePhysicalMemory } from "./boot_physical.ts";
import { swapAtBoot } from "./boot_swap.ts";
import { composeSystem } from "./boot_system.ts";
import type { BootOptions, Kernel } from "./kernel.ts";
import { createKernelObject } from "./kernel_object.ts";
import { createObjectUsers } from "./object_users.ts";
import { OOM_BYTES } from "./oom_kill.ts";
import { scheduleReaping } from "./slab_reaping.ts";

/** Messages of a lower level than this one go to the console once the system runs: warnings and worse. */
const RUNNING_LOGLEVEL = 5;

export function boot(options: BootOptions): Kernel {
  // ── The machine, and what must exist before any memory can be allocated ────────────────────────────────────────
  const { nrCpus } = options;
  const core = composeCore(options); // RAM and CPUs, log ring, preempt_count, lock words
  const { parameters, machine, image, printk, percpu, contexts, spinlocks, lockdep, offTracker, staleTlb } = core;
  const { port, harts } = machine;
  const unhandledLimit = parameters.number("irq_unhandled_limit", DEFAULT_UNHANDLED_LIMIT);
  const irqs = createIrqs({ machine, image, percpu, contexts, printk, unhandledLimit }); // handlers, checkpoints
  const bindDeferred = composeDeferred({ machine, image, percpu, contexts, irqs, printk }); // softirqs, timers, RCU
  const nmis = createNmis({ machine, percpu, contexts, printk, irqs }); // what nothing holds back
  const smp = createSmp(machine, percpu, contexts, irqs); // CPUs ask CPUs
  const isMultiGen = parameters.choice("reclaim", ["lists", "mglru"]) === "mglru";
  const pageSetup = composePages({
    machine,
    image,
    percpu,
    contexts,
    spinlocks,
    printk,
    frameAllocator: options.frameAllocator,
    isMultiGen,
  }); // zones, counters
  const bindScheduler = createScheduler({ machine, image, percpu, contexts, irqs }); // runqueues
  const statics = image.bss("kernel_entry", 64, 8);
  const driverStatics = driverCoreStatics(image, nrCpus);
  const mutexStatics = image.bss("mutex", MUTEX_STATIC_BYTES, 8);
  const userMemoryStatics = takeUserMemoryStatics(image);
  const oomStatics = image.bss("oom", OOM_BYTES, 8);
  const cmaState = image.bss("cma", CMA_BYTES, 8);
  const vmallocStatics = image.bss("vmalloc", VMALLOC_STATIC_BYTES, 8);
  const memblock = createMemblock(
    port,
    image.bss("memblock", memblockTableBytes(), 8),
    parameters.get("memblock") === "debug" ? { log: (line) => printk(KERN_INFO, line) } : {},
  );

  // ── Memory ───────────────────────────────────────────────────────────────────────────────────────────────────────
  const physical = composePhysicalMemory({ options, core, pageSetup, memblock, cmaState }); // firmware map to slabs
  const { level, pageAlloc, faults, cma, slab, dmaSystem } = physical;
  const { pages, pcp } = level;
  const { vmstat, zones } = pageSetup;
  harts.irqOn.fill(1);
  const bootCtx = contexts.taskContext(0);
  slab.init(bootCtx); // kmem_cache, kmalloc
  dmaSystem.init(bootCtx); // bounce buffers, if asked for
  printk(KERN_INFO, `SLUB: HWalign=${CACHE_LINE}, Order=0-3, MinObjects=0, CPUs=${nrCpus}, Nodes=1`);
  const pageTables = createPageTables(port, pages, pageAlloc, vmstat); // Sv39
  const users = createObjectUsers({
    machine,
    contexts,
    printk,
    slab,
    pages,
    pageAlloc,
    pageTables,
    vmstat,
    vmallocStatics,
    bootCtx,
  }); // caches, vmalloc, kernel stacks

  // ── Tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────
  const tasks = createTasks(machine, contexts, users.taskMemory); // task_struct
  const scheduler = bindScheduler(tasks); // who runs next
  const waits = createWaitQueues(machine, contexts, tasks, scheduler); // who sleeps where
  const mempools = createMempools({
    machine,
    contexts,
    spinlocks,
    printk,
    pages,
    pageAlloc,
    slab,
    tasks,
    waits,
    statics: physical.mempoolStatics,
  }); // reserves
  const { kfree } = slab.kmalloc;
  const deferred = bindDeferred({ tasks, scheduler, waits, kfree }); // ksoftirqd, kworkers, callbacks
  spinlocks.bottomHalves.connect(deferred.softirqs);
  slab.deferFrees(deferred.rcu); // SLAB_TYPESAFE_BY_RCU
  const { reapWork } = physical;
  scheduleReaping({ machine, slab, irqs, workqueues: deferred.workqueues, work: reapWork }); // caches give back
  const locks = createLocks({
    machine,
    contexts,
    printk,
    spinlocks,
    tasks,
    scheduler,
    waits,
    mutexStatics,
    lockdep,
    isInheriting: parameters.choice("pi", ["on", "off"]) === "on",
  }); // mutexes, semaphores, completions, …
  const cpuhp = createCpuhp({ machine, printk, irqs, scheduler }); // CPUs come and go
  cpuhp.registerCpuhp({ name: "kernel/deferred:dead", offline: (ctx, cpu) => deferred.adopt(ctx, cpu) });
  cpuhp.registerCpuhp({ name: "mm/page_alloc:dead", offline: (ctx, cpu) => pcp.drainCpu(ctx, cpu) });
  cpuhp.registerCpuhp({ name: "mm/slab:dead", offline: (ctx, cpu) => slab.drainCpu(ctx, cpu) });
  const hostContext = () => contexts.taskContext(harts.current[0] as number);
  const threadDeps = { contexts, printk, tasks, scheduler, waits, irqs, hostContext };
  const threadedIrqs = createIrqThreads(threadDeps); // handlers that sleep
  const isCompacting = parameters.choice("compaction", ["on", "off"]) === "on" && options.port !== "threads";
  const userMemory = composeUserMemory({
    machine,
    contexts,
    printk,
    spinlocks,
    irqs,
    level,
    zones,
    vmstat,
    pageAlloc,
    pageTables,
    slab,
    waits,
    scheduler,
    kthreads: deferred.kthreads,
    caches: users.mmCaches,
    statics: userMemoryStatics,
    isCompacting,
  }); // address spaces, and what moves and evicts pages
  const { processMemory, reclaim } = userMemory;
  processMemory.account.setMode(Number(parameters.choice("sysctl.vm.overcommit_memory", ["0", "1", "2"])));
  const policy = parameters.choice("transparent_hugepage", ["madvise", "always", "never"]);
  processMemory.thp.setPolicy(THP_POLICIES.indexOf(policy));
  processMemory.layout.setMode(parameters.get("norandmaps") === undefined ? RANDOMIZE_ALL : RANDOMIZE_NONE);
  processMemory.account.setRatio(parameters.number("sysctl.vm.overcommit_ratio", processMemory.account.ratio()));
  cpuhp.registerCpuhp({ name: "mm/mmu:dying", offline: (_ctx, cpu) => processMemory.activate(cpu, NULL) });
  for (let cpu = 1; cpu < nrCpus; cpu++) {
    harts.clock[0] = (harts.clock[0] as number) + CYC_CPU_UP;
    harts.clock[cpu] = harts.clock[0] as number;
    harts.online[cpu] = 1;
  }
  printk(KERN_INFO, `smp: Brought up 1 node, ${nrCpus} CPU${nrCpus === 1 ? "" : "s"}`);

  // ── Files, processes, system calls ───────────────────────────────────────────────────────────────────────────────
  const system = composeSystem({
    options,
    core,
    pageSetup,
    physical,
    userMemory,
    irqs,
    nmis,
    threadedIrqs,
    cpuhp,
    deferred,
    locks,
    tasks,
    scheduler,
    waits,
    mempools,
    pageTables,
    users,
    isCompacting,
    hostContext,
    statics,
    driverStatics,
    oomStatics,
  }); // what programs see
  const { panic, consoleDevice, processes, registry, drivers, sources, files, swapMib } = system;

  contexts.setSystemState(SYSTEM_RUNNING);
  for (const complaint of parameters.complaints) printk(KERN_WARNING, complaint);

  printk.setConsole((line) => options.console(`${line}\n`), parameters.number("loglevel", RUNNING_LOGLEVEL));

  const modules = (parameters.get("modules") ?? "").split(",").filter((name) => name !== "");
  const asked = [...modules, ...(options.modules ?? [])];
  if (swapMib === 0) drivers.loadAtBoot(asked);
  else {
    const swapDeps = { printk, kthreads: deferred.kthreads, registry, area: reclaim.area };
    const hasDisk = asked.some((line) => /^\s*disk\b/.test(line));
    drivers.loadAtBoot(hasDisk ? asked : [...asked, "disk"], () => swapAtBoot(swapDeps));
  }
  faults?.arm();

  return createKernelObject({
    machine,
    printk,
    contexts,
    scheduler,
    tasks,
    processes,
    processMemory,
    memory: { processMemory, pages, zones, pcp, pageAlloc, slab, vmstat },
    interrupts: { irqs, threadedIrqs, nmis, smp, cpuhp, offTracker },
    mempools,
    dma: dmaSystem.dma,
    users,
    files,
    consoleDevice,
    registry,
    drivers,
    dmaReports: () =>
      staleTlb.nrReports() + (dmaSystem.debug?.errorCount() ?? 0) + (machine.guard?.nrViolations() ?? 0),
    deferred,
    panic,
    locks,
    lockdep,
    faults,
    sources,
    peakUsed: zones.peakUsed,
    checkRanges: () => cma.check() ?? userMemory.check() ?? users.vmalloc.check(),
    census: () => takeCensus(pages, zones, vmstat, dmaSystem.standingPages()),
  });
}
