/**
 * The OOM killer: chooses a process (mm/oom.ts), reports, kills it, and frees its memory at once.
 *
 *   direct reclaim has found nothing ─▶ select ─▶ report ─▶ SIGKILL to all who share the address space ─▶ reap ─▶ true
 *                                        └ nobody ─▶ report ─▶ panic (OOM-5)
 *
 * Linux hands the reaping to a thread, as the victim may hold locks that it needs. Here an address space has none, and
 * no task of the victim runs at this moment, unless it is the one that asked: it is told so, and unwound. So the memory
 * is there when the killer returns (OOM-3).
 *
 * Address spaces that init shares are spared. A process that is dying for another reason has its memory reaped without
 * a report (OOM-6); one that was reaped has nothing more to give and is not chosen again.
 *
 * The report is long, and so is the end of a large process: interrupts are taken between any two lines, processes and
 * pages.
 *
 *   vm.panic_on_oom 1, 2             panics instead of killing (one node: both mean always)
 *   vm.oom_kill_allocating_task 1    who asked dies, without a look at the others
 *   vm.oom_dump_tasks 0              the report has no table of processes
 *
 * Context: process, by way of direct reclaim. Linux: mm/oom_kill.c (out_of_memory, oom_kill_process).
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
  OOM_DEADLOCK,
  OOM_KILL,
  OOM_KILLED,
  OOM_KILLED_ALLOCATING,
  OOM_NOBODY,
  type OomCandidate,
  oomBadness,
  oomHeader,
  oomMemoryText,
  oomPanicText,
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
import type { KernelParameters } from "../cmdline.ts";
import type { ContextTracking } from "../context.ts";
import { PAGE_SIZE } from "../params.ts";
import { KERN_ERR, KERN_INFO, KERN_WARNING, type Printk } from "../printk.ts";
import { createRatelimit, DEFAULT_RATELIMIT, RATELIMIT_BYTES } from "../ratelimit.ts";
import type { Tasks } from "../task.ts";
import { TASK_TGID, taskComm } from "../task_struct.ts";
import { asPhys, type PhysAddr, type TaskContext } from "../types.ts";
import { SIGKILL } from "../uapi/mman.ts";
import type { Panic } from "./panic.ts";
import type { Process, Processes } from "./process.ts";

/** Static memory, zeroed: the rate limit of the reports, the settings. */
const PANIC_ON_OOM = RATELIMIT_BYTES;
const KILL_ALLOCATING = PANIC_ON_OOM + 4;
const DUMP_TASKS = KILL_ALLOCATING + 4;
export const OOM_BYTES = DUMP_TASKS + 8;

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
  readonly panic: Panic;
  readonly parameters: KernelParameters;
  /** OOM_BYTES. */
  readonly statics: PhysAddr;
}

/** A number below /proc/sys/vm, from 0 to `max`. */
export interface OomSetting {
  readonly name: "panic_on_oom" | "oom_kill_allocating_task" | "oom_dump_tasks";
  readonly max: number;
  get(): number;
  set(value: number): void;
}

export interface OomKiller {
  /** True if there is memory now: a process was killed for it, or died anyway. After a panic false. */
  readonly kill: (ctx: TaskContext, order: number, gfp: Gfp) => boolean;
  readonly settings: readonly OomSetting[];
}

export function createOomKiller(deps: OomKillerDeps): OomKiller {
  const { machine, contexts, printk, tasks, processes, processMemory, zones, pcp, vmstat, swapTotals, statics } = deps;
  const { panic, state } = deps.panic;
  const { port, harts } = machine;
  const mayReport = createRatelimit(port, printk, statics, { name: "oom_kill_process", ...DEFAULT_RATELIMIT });
  const reaped = new WeakSet<Process>();
  let isAtWork = false;
  const { choice } = deps.parameters;
  port.st32(statics + PANIC_ON_OOM, Number(choice("sysctl.vm.panic_on_oom", ["0", "1", "2"])));
  port.st32(statics + KILL_ALLOCATING, Number(choice("sysctl.vm.oom_kill_allocating_task", ["0", "1"])));
  port.st32(statics + DUMP_TASKS, Number(choice("sysctl.vm.oom_dump_tasks", ["1", "0"])));

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
      isSpared: process.isInit || process.isVforked || reaped.has(process) || spared.has(process.mm),
    };
  };

  /** Every process as the killer sees it. */
  const survey = (ctx: TaskContext): OomCandidate[] => {
    const all = living();
    const spared = new Set(all.filter((process) => process.isInit).map(({ mm }) => mm));
    return all.map((process) => {
      contexts.interruptPoint(ctx);
      return candidateOf(process, spared);
    });
  };

  /** The process that asked; undefined for a kernel thread. */
  const asking = (ctx: TaskContext): Process | undefined => {
    const struct = contexts.currentTask(ctx);
    return struct === 0 ? undefined : processes.get(port.ld32(struct + TASK_TGID));
  };

  // ── The report ───────────────────────────────────────────────────────────────────────────────────────────────────

  const say = (ctx: TaskContext, level: number, text: string): void => {
    for (const line of text.split("\n")) {
      printk(level, line);
      contexts.interruptPoint(ctx);
    }
  };

  const report = (ctx: TaskContext, order: number, gfp: Gfp, candidates: readonly OomCandidate[]): void => {
    const comm = taskComm(port, contexts.currentTask(ctx));
    const present = ZONE_NAMES.reduce((sum, _, zone) => sum + zones.field(zone, Z_PRESENT), 0);
    const swap = swapTotals();
    say(ctx, KERN_WARNING, oomHeader(comm, gfp, order, asking(ctx)?.oomScoreAdj ?? 0));
    say(ctx, KERN_WARNING, contexts.stackDump(ctx));
    say(ctx, KERN_WARNING, formatMemInfo({ port, zones, vmstat, pcp, nrCpus: harts.nrCpus }));
    const totals = {
      pageCache: vmstat.item(NR_FILE_PAGES) + vmstat.item(NR_SWAPCACHE),
      swapCached: vmstat.item(NR_SWAPCACHE),
      swapFree: swap.free,
      swapTotal: swap.total,
      present,
      managed: zones.totalManaged(),
    };
    say(ctx, KERN_WARNING, oomMemoryText(totals));
    if (port.ld32(statics + DUMP_TASKS) !== 0) say(ctx, KERN_INFO, oomTasksText(candidates));
  };

  // ── Killing ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** OOM-3: every page of the address space, at once. */
  const reap = (ctx: TaskContext, mm: PhysAddr): void => {
    const ranges: [start: number, end: number][] = [];
    processMemory.forEachVma(mm, (start, end) => ranges.push([start, end]));
    for (const [start, end] of ranges) {
      processMemory.dropPages(ctx, mm, start * PAGE_SIZE, (end - start) * PAGE_SIZE);
      contexts.interruptPoint(ctx);
    }
    for (const process of living()) if (process.mm === mm) reaped.add(process);
  };

  /** OOM-6: `process` and all who share its memory are on their way out, and it has something left. */
  const isDying = (process: Process): boolean =>
    !reaped.has(process) && living().every(({ mm, ending }) => mm !== process.mm || ending !== undefined);

  const kill = (ctx: TaskContext, victim: OomCandidate, message: string, describe: () => void): void => {
    const process = processes.get(victim.pid) as Process;
    const { mm } = process;
    if (isDying(process)) {
      reap(ctx, mm);
      return;
    }
    const [constraint, killed] = oomVictimText(victim, message);
    if (mayReport(harts.clock[ctx.cpu] as number)) {
      describe();
      say(ctx, KERN_INFO, constraint);
    }
    say(ctx, KERN_ERR, killed);
    vmstat.countEvents(ctx, OOM_KILL, 1);
    for (const sharer of living()) if (sharer.mm === mm) processes.kill(sharer.pid, SIGKILL);
    reap(ctx, mm);
    say(ctx, KERN_INFO, oomReapedText(victim));
  };

  const outOfMemory = (ctx: TaskContext, order: number, gfp: Gfp): boolean => {
    const self = asking(ctx);
    if (self !== undefined && !self.isInit && isDying(self)) {
      reap(ctx, self.mm);
      return true;
    }
    const candidates = survey(ctx);
    const describe = (): void => report(ctx, order, gfp, candidates);
    const panicOnOom = port.ld32(statics + PANIC_ON_OOM);
    if (panicOnOom !== 0) {
      describe();
      panic(oomPanicText(panicOnOom));
      return false;
    }
    const isSelfFirst = port.ld32(statics + KILL_ALLOCATING) !== 0;
    const own = isSelfFirst ? candidates.find(({ pid }) => pid === self?.pid) : undefined;
    if (own !== undefined && oomBadness(own, 0) !== Number.NEGATIVE_INFINITY) {
      kill(ctx, own, OOM_KILLED_ALLOCATING, describe);
      return true;
    }
    const victim = selectVictim(candidates, zones.totalManaged() + swapTotals().total);
    if (victim !== undefined) {
      kill(ctx, victim, OOM_KILLED, describe);
      return true;
    }
    describe();
    say(ctx, KERN_WARNING, OOM_NOBODY);
    panic(OOM_DEADLOCK);
    return false;
  };

  const setting = (name: OomSetting["name"], max: number, offset: number): OomSetting => ({
    name,
    max,
    get: () => port.ld32(statics + offset),
    set: (value) => port.st32(statics + offset, value),
  });

  return {
    kill(ctx, order, gfp) {
      if (isAtWork || state.panicReport !== null) return false;
      isAtWork = true;
      const isRoom = outOfMemory(ctx, order, gfp);
      isAtWork = false;
      return isRoom;
    },
    settings: [
      setting("panic_on_oom", 2, PANIC_ON_OOM),
      setting("oom_kill_allocating_task", 1, KILL_ALLOCATING),
      setting("oom_dump_tasks", 1, DUMP_TASKS),
    ],
  };
}
