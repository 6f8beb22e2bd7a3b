/**
 * The OOM killer: chooses a process (mm/oom.ts), reports, kills it, and frees its memory at once.
 *
 *   direct reclaim has found nothing ─▶ select ─▶ report ─▶ SIGKILL to all who share the address space ─▶ reap ─▶ true
 *
 * Linux hands the reaping to a thread, as the victim may hold locks that it needs. Here an address space has none, and
 * no task of the victim runs at this moment, unless it is the one that asked: it is told so, and unwound. So the memory
 * is there when the killer returns (OOM-3).
 *
 * Address spaces that init shares are spared. A victim that is dying already is not chosen again: its memory is gone.
 *
 * Context: process, by way of direct reclaim.
 */

import {
  formatMemInfo,
  type Gfp,
  MM_RSS_ANON,
  MM_RSS_FILE,
  MM_RSS_SHMEM,
  MM_SWAPENTS,
  MM_TOTAL_VM,
  NR_FILE_PAGES,
  NR_SWAPCACHE,
  OOM_KILL,
  type OomCandidate,
  oomHeader,
  oomMemoryText,
  oomReapedText,
  oomTasksText,
  oomVictimText,
  type PerCpuPages,
  type ProcessMemory,
  type SwapArea,
  selectVictim,
  type VmStat,
  Z_PRESENT,
  ZONE_NAMES,
  type Zones,
} from "../../mm/index.ts";
import type { Machine } from "../arch/machine.ts";
import type { ContextTracking } from "../context.ts";
import { PAGE_SIZE } from "../params.ts";
import { KERN_ERR, KERN_INFO, KERN_WARNING, type Printk } from "../printk.ts";
import type { Tasks } from "../task.ts";
import { TASK_TGID, taskComm } from "../task_struct.ts";
import { asPhys, type PhysAddr, type TaskContext } from "../types.ts";
import { SIGKILL } from "../uapi/mman.ts";
import type { Process, Processes } from "./process.ts";

export interface OomKillerDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly tasks: Tasks;
  readonly processes: Processes;
  readonly processMemory: ProcessMemory;
  readonly zones: Zones;
  readonly pcp: PerCpuPages;
  readonly vmstat: VmStat;
  readonly swapTotals: SwapArea["totals"];
}

/** True if a process was killed and its memory is free. */
export type OomKiller = (ctx: TaskContext, order: number, gfp: Gfp) => boolean;

export function createOomKiller(deps: OomKillerDeps): OomKiller {
  const { machine, contexts, printk, tasks, processes, processMemory, zones, pcp, vmstat, swapTotals } = deps;
  const { port, harts } = machine;
  let isAtWork = false;

  const living = (): Process[] =>
    processes
      .all()
      .filter((process) => process.threads.size > 0)
      .sort((a, b) => a.pid - b.pid);

  const candidateOf = (process: Process, spared: ReadonlySet<PhysAddr>): OomCandidate => {
    const field = (offset: number): number => processMemory.field(process.mm, offset);
    return {
      pid: process.pid,
      comm: taskComm(port, tasks.get(process.pid)?.struct ?? asPhys(0)),
      totalVm: field(MM_TOTAL_VM),
      rssAnon: field(MM_RSS_ANON),
      rssFile: field(MM_RSS_FILE),
      rssShmem: field(MM_RSS_SHMEM),
      swapEnts: field(MM_SWAPENTS),
      tablePages: processMemory.nrTables(process.mm),
      adj: process.oomScoreAdj,
      isSpared: process.isInit || process.ending !== undefined || spared.has(process.mm),
    };
  };

  const report = (ctx: TaskContext, order: number, gfp: Gfp, candidates: readonly OomCandidate[]): void => {
    const struct = contexts.currentTask(ctx);
    const self = processes.get(struct === 0 ? 0 : port.ld32(struct + TASK_TGID));
    const present = ZONE_NAMES.reduce((sum, _, zone) => sum + zones.field(zone, Z_PRESENT), 0);
    const swap = swapTotals();
    printk(KERN_WARNING, oomHeader(taskComm(port, asPhys(struct)), gfp, order, self?.oomScoreAdj ?? 0));
    printk(KERN_WARNING, contexts.stackDump(ctx));
    printk(KERN_WARNING, formatMemInfo({ port, zones, vmstat, pcp, nrCpus: harts.nrCpus }));
    printk(
      KERN_WARNING,
      oomMemoryText({
        pageCache: vmstat.item(NR_FILE_PAGES) + vmstat.item(NR_SWAPCACHE),
        swapCached: vmstat.item(NR_SWAPCACHE),
        swapFree: swap.free,
        swapTotal: swap.total,
        present,
        managed: zones.totalManaged(),
      }),
    );
    printk(KERN_INFO, oomTasksText(candidates));
  };

  /** OOM-3: every page of the address space, at once. */
  const reap = (ctx: TaskContext, mm: PhysAddr): void => {
    const ranges: [start: number, end: number][] = [];
    processMemory.forEachVma(mm, (start, end) => ranges.push([start, end]));
    for (const [start, end] of ranges) {
      processMemory.dropPages(ctx, mm, start * PAGE_SIZE, (end - start) * PAGE_SIZE);
    }
  };

  const kill = (ctx: TaskContext, victim: OomCandidate): void => {
    const { mm } = processes.get(victim.pid) as Process;
    const [constraint, killed] = oomVictimText(victim);
    printk(KERN_INFO, constraint);
    printk(KERN_ERR, killed);
    vmstat.countEvents(ctx, OOM_KILL, 1);
    for (const process of living()) if (process.mm === mm) processes.kill(process.pid, SIGKILL);
    reap(ctx, mm);
    printk(KERN_INFO, oomReapedText(victim));
  };

  return (ctx, order, gfp) => {
    if (isAtWork) return false;
    isAtWork = true;
    const all = living();
    const spared = new Set(all.filter((process) => process.isInit).map(({ mm }) => mm));
    const candidates = all.map((process) => candidateOf(process, spared));
    const victim = selectVictim(candidates, zones.totalManaged() + swapTotals().total);
    report(ctx, order, gfp, candidates);
    if (victim === undefined) printk(KERN_WARNING, "Out of memory and no killable processes...");
    else kill(ctx, victim);
    isAtWork = false;
    return victim !== undefined;
  };
}
