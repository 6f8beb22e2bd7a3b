/**
 * Boot: the composition root. It reads like a table of contents; every piece is built and wired here and nowhere else.
 *
 *   power on → static image → firmware map → memblock → per-CPU areas → zones and struct page → buddy (hand-over)
 *            → slabs, magazines, kmalloc → tasks, scheduler → files, system calls → programs
 */

import { createDriverCore, DEVICE_PLACES, DRIVER_TYPES, driverCoreStatics } from "../../drivers/index.ts";
import {
  CMA_BYTES,
  composePages,
  createCma,
  createDmaSubsystem,
  createFaultInjection,
  createMemblock,
  createMempools,
  createPageTables,
  createSlabSubsystem,
  createSmaps,
  DMA_STATIC_BYTES,
  FAULT_INJECT_BYTES,
  formatMemoryMap,
  GFP_KERNEL,
  initPages,
  MEMPOOL_STATIC_BYTES,
  memblockTableBytes,
  NR_PERCPU,
  PAGE_STRUCT_BYTES,
  PG_TABLE,
  PGPGIN,
  PGPGOUT,
  RANDOMIZE_ALL,
  RANDOMIZE_NONE,
  registerDmaFiles,
  slabSubsystemStaticBytes,
  THP_POLICIES,
  takeCensus,
  VMALLOC_STATIC_BYTES,
  Z_PRESENT,
  ZONE_DMA32_LIMIT,
  ZONE_NAMES,
} from "../../mm/index.ts";
import { CYC_CPU_UP } from "../arch/charges.ts";
import { E820_RAM } from "../arch/firmware_map.ts";
import { IRQ_UART } from "../arch/irqchip.ts";
import { SYSTEM_RUNNING } from "../context.ts";
import { createCpuhp } from "../cpuhp.ts";
import { composeDeferred } from "../deferred.ts";
import { createFileRegistry } from "../file.ts";
import { createIrqs, IRQ_HANDLED, IRQ_NONE } from "../irq.ts";
import { DEFAULT_UNHANDLED_LIMIT } from "../irq_spurious.ts";
import { createIrqThreads } from "../irq_thread.ts";
import { lockdepStatsText } from "../lockdep_report.ts";
import { createLocks } from "../locks.ts";
import { MUTEX_STATIC_BYTES } from "../mutex.ts";
import { createNmis } from "../nmi.ts";
import { CACHE_LINE, KERNEL_IMAGE_BASE, PAGE_SIZE } from "../params.ts";
import { KERN_INFO, KERN_WARNING } from "../printk.ts";
import { proveReturnToUser } from "../prove_locking.ts";
import { createScheduler } from "../sched.ts";
import { createSmp } from "../smp.ts";
import { createTasks } from "../task.ts";
import { alignDown, asPfn, asPhys, NULL } from "../types.ts";
import { decodeUtf8 } from "../uapi/utf8.ts";
import { createWaitQueues } from "../wait.ts";
import { WORK_BYTES } from "../workqueue.ts";
import { createBlockFiles } from "./block_files.ts";
import { readAutoInit } from "./boot_auto_init.ts";
import { composeCore } from "./boot_core.ts";
import { registerKernelFiles } from "./boot_files.ts";
import { logCma, logMemory, logZones } from "./boot_log.ts";
import { composeUserMemory, takeUserMemoryStatics } from "./boot_memory.ts";
import { swapAtBoot, swapDiskMib, withSwapDisk } from "./boot_swap.ts";
import { createEventcounts } from "./eventcount.ts";
import { createFileTree } from "./file_tree.ts";
import { createConsole } from "./files.ts";
import { createPiFutexes } from "./futex_pi.ts";
import { guestMemory } from "./guest_memory.ts";
import type { BootOptions, Kernel } from "./kernel.ts";
import { createKernelObject } from "./kernel_object.ts";
import { createObjectUsers } from "./object_users.ts";
import { createOomKiller, OOM_BYTES } from "./oom_kill.ts";
import { createPanic } from "./panic.ts";
import { NR_OPEN } from "./process.ts";
import { createProcesses } from "./processes.ts";
import { createProcfs } from "./procfs/index.ts";
import { availablePages } from "./procfs/meminfo.ts";
import { initialRlimits } from "./rlimit.ts";
import { scheduleReaping } from "./slab_reaping.ts";
import { createSyscalls } from "./syscall.ts";
import { createProcSources } from "./system_info.ts";

/** Messages of a lower level than this one go to the console once the system runs: warnings and worse. */
const RUNNING_LOGLEVEL = 5;

export function boot(options: BootOptions): Kernel {
  // ── The machine, and what must exist before any memory can be allocated ────────────────────────────────────────
  const { nrCpus, ramBytes } = options;
  const core = composeCore(options); // RAM and CPUs, log ring, preempt_count, lock words
  const {
    parameters,
    machine,
    image,
    printk,
    percpu,
    contexts,
    spinlocks,
    lockdep,
    offTracker,
    stackTracer,
    staleTlb,
  } = core;
  const { port, harts, firmwareMap } = machine;
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
  for (const region of firmwareMap) {
    if (region.type === E820_RAM) memblock.add(asPhys(region.start), region.end - region.start);
  }
  memblock.reserve(asPhys(0), PAGE_SIZE); // frame 0 stays NULL
  // The image is reserved with room to grow: subsystems still take static memory until it is sealed.
  const imageRoom = 512 * 1024;
  memblock.reserve(asPhys(KERNEL_IMAGE_BASE), imageRoom);
  memblock.allowResize();
  const percpuBytes = percpu.unitBytes() * nrCpus;
  percpu.setup(memblock.alloc(percpuBytes, PAGE_SIZE, { minAddr: 16 * 1024 * 1024, topDown: false }), nrCpus);
  printk(KERN_INFO, `setup_percpu: nr_cpu_ids:${nrCpus}, ${percpu.unitBytes()} bytes/cpu`);

  const dma32Limit = alignDown(parameters.size("dma32_limit", ZONE_DMA32_LIMIT), 2 * 1024 * 1024);
  const movable = Math.min(parameters.size("movablecore", 0), ramBytes / 2);
  const cmaBytes = parameters.size("cma", 0);
  const level = pageSetup.bringUp(memblock, dma32Limit / PAGE_SIZE, Math.floor(movable / PAGE_SIZE), cmaBytes);
  const { pages, pcp, pageblocks } = level;
  staleTlb.knowTables((frame) => (pages.flags(asPfn(frame)) & PG_TABLE) !== 0);
  const faultTexts = {
    failslab: parameters.get("failslab"),
    failPageAlloc: parameters.get("fail_page_alloc"),
    failNth: parameters.get("fail_nth"),
  };
  const faultState = image.bss("fault_inject", FAULT_INJECT_BYTES, 8);
  const faultDeps = { machine, contexts, printk, state: faultState, onRequest: options.onAllocRequest };
  const faults = createFaultInjection(faultTexts, faultDeps); // refusals
  const autoInit = readAutoInit(parameters, printk);
  const initialised = autoInit === undefined ? level.pageAlloc : initPages(level.pageAlloc, autoInit);
  const pageAlloc = faults?.failPages(initialised) ?? initialised;
  const { vmstat, zones } = pageSetup;
  logCma(printk, cmaBytes, level.cmaArea);
  logZones(printk, ZONE_NAMES, level.zoneBounds);
  const cma = createCma({
    machine,
    contexts,
    spinlocks,
    printk,
    vmstat,
    pageblocks,
    pageAlloc,
    area: level.cmaArea,
    state: cmaState,
  }); // contiguous area

  const slab = createSlabSubsystem({
    machine,
    printk,
    contexts,
    spinlocks,
    pages,
    pageAlloc,
    vmstat,
    statics: image.bss("slab", slabSubsystemStaticBytes(nrCpus), CACHE_LINE),
    objectCache: options.objectCache ?? parameters.choice("object_cache", ["magazine", "passthrough"]),
    depot: parameters.choice("depot", ["locked", "lockfree"]),
    autoInit,
    wrapLayer: faults?.failObjects,
  });
  const reapWork = image.bss("slab_reap", WORK_BYTES, 8);
  const mempoolStatics = image.bss("mempools", MEMPOOL_STATIC_BYTES, 8);
  const dmaSystem = createDmaSubsystem({
    machine,
    contexts,
    spinlocks,
    printk,
    pageAlloc,
    kmalloc: slab.kmalloc,
    cma,
    image,
    pages,
    isDebug: parameters.choice("dma_debug", ["on", "off"]) === "on",
    isIommu: parameters.choice("iommu", ["off", "on"]) === "on",
    swiotlbBytes: parameters.size("swiotlb", 0),
    statics: image.bss("dma", DMA_STATIC_BYTES, 8),
  }); // what devices may touch
  const { dma } = dmaSystem;
  const imageEnd = image.seal();
  if (imageEnd > KERNEL_IMAGE_BASE + imageRoom) throw new Error("boot: the kernel image outgrew its room");
  memblock.free(imageEnd, KERNEL_IMAGE_BASE + imageRoom - imageEnd);
  const nrHandedOver = pageSetup.handOver(level, memblock, parameters.number("min_free_kbytes", 0) || undefined);
  const presentPages = ZONE_NAMES.reduce((sum, _, zone) => sum + zones.field(zone, Z_PRESENT), 0);
  const cmaReserved = (level.cmaArea?.nrPages ?? 0) * PAGE_SIZE;
  const ram = { availableBytes: nrHandedOver * PAGE_SIZE, ramBytes: presentPages * PAGE_SIZE, cmaBytes: cmaReserved };
  logMemory(printk, { ...ram, image, memmapBytes: pages.nrFrames * PAGE_STRUCT_BYTES, percpuBytes });
  vmstat.modItem(NR_PERCPU, Math.ceil(percpuBytes / PAGE_SIZE));

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
    statics: mempoolStatics,
  }); // reserves
  const { kfree } = slab.kmalloc;
  const deferred = bindDeferred({ tasks, scheduler, waits, kfree }); // ksoftirqd, kworkers, callbacks
  spinlocks.bottomHalves.connect(deferred.softirqs);
  slab.deferFrees(deferred.rcu); // SLAB_TYPESAFE_BY_RCU
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
  const { processMemory, reclaim, balloonPages } = userMemory;
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
    drivers,
    swapArea: reclaim.area,
    writeback: reclaim.writeback,
    deferred,
    powerOff: () => {
      state.powerOff = true;
    },
  });
  processes.setSyscallEntry(lockdep === undefined ? enterSyscall : proveReturnToUser(enterSyscall, lockdep));

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
    dma,
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
