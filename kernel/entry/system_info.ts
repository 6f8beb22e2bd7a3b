/**
 * What /proc is told about the system: the subsystems' answers, gathered into ProcSources.
 */

import {
  MAX_NR_ZONES,
  MM_COW_FAULTS,
  MM_DATA_VM,
  MM_FAULTS,
  MM_LOCKED_VM,
  MM_MAJ_FAULTS,
  MM_PEAK_RSS,
  MM_PEAK_VM,
  MM_RSS_FILE,
  MM_RSS_SHMEM,
  MM_STACK_VM,
  MM_SWAPENTS,
  MM_TOTAL_VM,
  NR_MIGRATETYPES,
  type Pageblocks,
  type PerCpuPages,
  type ProcessMemory,
  type SlabSubsystem,
  type Smaps,
  type VmStat,
  Z_SPANNED,
  Z_START_PFN,
  type Zones,
} from "../../mm/index.ts";
import { FIRST_DEVICE_LINE, IRQ_CALL_FUNCTION, IRQ_RESCHEDULE, IRQ_SPURIOUS, IRQ_TIMER } from "../arch/irqchip.ts";
import type { Machine } from "../arch/machine.ts";
import type { Irqs } from "../irq.ts";
import type { Nmis } from "../nmi.ts";
import type { Printk } from "../printk.ts";
import { NR_SOFTIRQS, type Softirqs } from "../softirq.ts";
import type { Task, Tasks } from "../task.ts";
import {
  PF_KTHREAD,
  TASK_CPU,
  TASK_DEAD,
  TASK_FLAGS,
  TASK_PARENT,
  TASK_PID,
  TASK_RUN_CYCLES,
  TASK_STATE,
  TASK_STATE_LETTERS,
  TASK_TGID,
  taskComm,
} from "../task_struct.ts";
import { asPfn, type PhysAddr } from "../types.ts";
import { isStopped } from "./job_control.ts";
import type { SlabInfoRow, TaskInfo, TaskVm } from "./kernel.ts";
import type { ProcSources } from "./proc_sources.ts";
import type { Processes } from "./process.ts";
import { signalSetsOf } from "./signal_state.ts";

export interface SystemInfoDeps {
  readonly machine: Machine;
  readonly printk: Printk;
  readonly zones: Zones;
  readonly vmstat: VmStat;
  readonly pcp: PerCpuPages;
  readonly pageblocks: Pageblocks;
  readonly slab: SlabSubsystem;
  readonly tasks: Tasks;
  readonly processes: Processes;
  readonly processMemory: ProcessMemory;
  readonly smaps: Smaps;
  readonly irqs: Irqs;
  readonly softirqs: Softirqs;
  readonly switches: ProcSources["switches"];
  readonly modules: () => string;
  readonly swapTotals: ProcSources["swapTotals"];
  readonly dirtyThresholds: ProcSources["dirtyThresholds"];
  readonly fileName: ProcSources["fileName"];
  readonly nmis: Nmis;
  readonly cmdline: string;
  readonly percpuBytes: number;
}

const PAGEBLOCK = 512;

const NO_VM: TaskVm = {
  rssFilePages: 0,
  rssShmemPages: 0,
  swapPages: 0,
  peakRssPages: 0,
  peakVmPages: 0,
  dataPages: 0,
  stackPages: 0,
  lockedPages: 0,
  majorFaults: 0,
  cowFaults: 0,
};

export function createProcSources(deps: SystemInfoDeps): ProcSources {
  const { machine, printk, zones, vmstat, pcp, pageblocks, slab, tasks, processes, processMemory, irqs, nmis } = deps;
  const { port } = machine;

  const letterOf = (state: number): string => TASK_STATE_LETTERS[state] as string;
  const taskInfo = (task: Task): TaskInfo => {
    const field = (offset: number): number => port.ld32(task.struct + offset);
    const process = processes.get(field(TASK_TGID));
    const mm = process !== undefined && process.threads.size > 0 ? process.mm : undefined;
    const parent = field(TASK_PARENT) * 8;
    const isDead = field(TASK_STATE) === TASK_DEAD;
    return {
      pid: task.pid,
      tgid: field(TASK_TGID),
      ppid: process?.parent ?? (parent === 0 ? 0 : port.ld32(parent + TASK_PID)),
      comm: taskComm(port, task.struct),
      state: process !== undefined && isStopped(process) && !isDead ? "T" : letterOf(field(TASK_STATE)),
      cpu: field(TASK_CPU),
      runCycles: port.ldF64(task.struct + TASK_RUN_CYCLES),
      rssPages: mm === undefined ? 0 : processMemory.rss(mm),
      vmPages: mm === undefined ? 0 : processMemory.field(mm, MM_TOTAL_VM),
      // Counted when asked for: it walks the tables.
      get tablePages() {
        return mm === undefined ? 0 : processMemory.nrTables(mm);
      },
      minorFaults: mm === undefined ? 0 : processMemory.field(mm, MM_FAULTS),
      isKernelThread: (field(TASK_FLAGS) & PF_KTHREAD) !== 0,
      isVforked: process?.isVforked === true,
      vm: mm === undefined ? NO_VM : vmOf(mm),
    };
  };

  const vmOf = (mm: PhysAddr): TaskVm => {
    const field = (offset: number): number => processMemory.field(mm, offset);
    return {
      rssFilePages: field(MM_RSS_FILE),
      rssShmemPages: field(MM_RSS_SHMEM),
      swapPages: field(MM_SWAPENTS),
      peakRssPages: field(MM_PEAK_RSS),
      peakVmPages: field(MM_PEAK_VM),
      dataPages: field(MM_DATA_VM),
      stackPages: field(MM_STACK_VM),
      lockedPages: field(MM_LOCKED_VM),
      majorFaults: field(MM_MAJ_FAULTS),
      cowFaults: field(MM_COW_FAULTS),
    };
  };

  return {
    port,
    harts: machine.harts,
    zones,
    vmstat,
    pcp,
    printk,
    cmdline: deps.cmdline,
    percpuBytes: deps.percpuBytes,
    pageblockCounts(zone) {
      const counts = new Array<number>(NR_MIGRATETYPES).fill(0);
      if (zone >= MAX_NR_ZONES) return counts;
      const start = zones.field(zone, Z_START_PFN);
      const end = start + zones.field(zone, Z_SPANNED);
      for (let pfn = start - (start % PAGEBLOCK); pfn < end; pfn += PAGEBLOCK) {
        const type = pageblocks.migratetype(asPfn(pfn));
        counts[type] = (counts[type] as number) + 1;
      }
      return counts;
    },
    slabCaches() {
      const rows: SlabInfoRow[] = [];
      slab.forEachCache((cache) => {
        const info = slab.slabInfo(cache);
        rows.push({
          name: info.name,
          activeObjs: info.activeObjects,
          numObjs: info.nrObjects,
          objSize: info.size,
          objPerSlab: info.objectsPerSlab,
          pagesPerSlab: 1 << info.order,
          activeSlabs: info.nrSlabs,
          numSlabs: info.nrSlabs,
        });
      });
      return rows;
    },
    tasks: () => tasks.all().map(taskInfo),
    task(pid) {
      const task = tasks.get(pid);
      return task === undefined ? undefined : taskInfo(task);
    },
    // A zombie has none left, and is one.
    nrThreads: (tgid) => Math.max(1, processes.get(tgid)?.threads.size ?? 1),
    vmas(pid, withPages) {
      const process = processes.get(pid);
      return process === undefined || process.threads.size === 0 ? [] : deps.smaps(process.mm, withPages);
    },
    process: (pid) => processes.get(pid) ?? null,
    signals(pid) {
      const task = tasks.get(pid);
      const process = task === undefined ? undefined : processes.get(port.ld32(task.struct + TASK_TGID));
      if (task === undefined || process === undefined) return null;
      let nrQueued = 0;
      for (const { signals, threads } of processes.all()) {
        nrQueued += signals.pending.size;
        for (const thread of threads.values()) nrQueued += processes.signals.of(thread).pending.size;
      }
      return signalSetsOf(process.signals, processes.signals.of(task), nrQueued);
    },
    setOomScoreAdj(pid, adj) {
      const process = processes.get(pid);
      if (process !== undefined) process.oomScoreAdj = adj;
    },
    modules: deps.modules,
    interrupts: () => irqs.lines().filter(({ line }) => line >= FIRST_DEVICE_LINE),
    cpuInterrupts: () => [
      { label: "NMI", text: "Non-maskable interrupts", counts: nmis.counts() },
      { label: "LOC", text: "Local timer interrupts", counts: irqs.countsOf(IRQ_TIMER) },
      { label: "SPU", text: "Spurious interrupts", counts: irqs.countsOf(IRQ_SPURIOUS) },
      { label: "RES", text: "Rescheduling interrupts", counts: irqs.countsOf(IRQ_RESCHEDULE) },
      { label: "CAL", text: "Function call interrupts", counts: irqs.countsOf(IRQ_CALL_FUNCTION) },
      { label: "TLB", text: "TLB shootdowns", counts: processMemory.tlb.received() },
    ],
    interruptErrors: irqs.nrSpurious,
    switches: deps.switches,
    swapTotals: deps.swapTotals,
    dirtyThresholds: deps.dirtyThresholds,
    commitLimit: processMemory.account.commitLimit,
    fileName: deps.fileName,
    softirqs: () =>
      Array.from({ length: NR_SOFTIRQS }, (_, nr) =>
        Array.from({ length: machine.harts.nrCpus }, (_cpu, cpu) => deps.softirqs.count(nr, cpu)),
      ),
  };
}
