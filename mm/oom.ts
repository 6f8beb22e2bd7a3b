/**
 * Out of memory: who is to die, and what is said about it.
 *
 * When reclaim finds nothing more, somebody has to give memory back who does not want to. The process whose end frees
 * most is asked first: its pages in RAM, those in swap, its page tables (G5). What the administrator knows better goes
 * into oom_score_adj: each unit is a thousandth of all memory, −1000 means never.
 *
 *      points = rss + swapents + pages of page tables + oom_score_adj · (total pages / 1000)
 *
 * The killer itself stands in kernel/entry/oom_kill.ts, as it deals with processes; here are the arithmetic and the
 * texts, which are Linux's.
 *
 *   OOM-1  the victim has the most points of those that may be killed; the first of equals
 *   OOM-2  never: init, kernel threads, adjustment −1000, who has been reaped, the child of a vfork
 *   OOM-3  a victim's memory is free when the killer returns, not when the victim gets a CPU again
 *   OOM-4  the killer neither allocates nor sleeps, and is not called inside itself
 *   OOM-5  nobody may be killed: nothing can help any more, and the kernel panics
 *   OOM-6  who is dying anyway gives what it has without a report
 *   OOM-7  ten reports in five seconds at most; who was killed is always said
 *
 * Source: mm/oom_kill.c (oom_badness, dump_header, dump_tasks, __oom_kill_process). Not here: cpusets, cgroups.
 */

import { type Gfp, gfpNames } from "./gfp.ts";

/** The adjustment of who is never killed. */
const OOM_NEVER = -1000;

/** A process as the killer sees it; memory in pages. */
export interface OomCandidate {
  readonly pid: number;
  readonly comm: string;
  readonly totalVm: number;
  readonly rssAnon: number;
  readonly rssFile: number;
  readonly rssShmem: number;
  readonly swapEnts: number;
  readonly tablePages: number;
  readonly adj: number;
  /** Init, reaped already, or in its parent's memory: OOM-2. */
  readonly isSpared: boolean;
}

const rssOf = (p: OomCandidate): number => p.rssAnon + p.rssFile + p.rssShmem;

/** G5. `totalPages` counts RAM and swap. −∞ for who must not be chosen. */
export function oomBadness(p: OomCandidate, totalPages: number): number {
  if (p.isSpared || p.adj === OOM_NEVER) return Number.NEGATIVE_INFINITY;
  return rssOf(p) + p.swapEnts + p.tablePages + p.adj * Math.floor(totalPages / 1000);
}

/** OOM-1; undefined if nobody may be killed. */
export function selectVictim(candidates: readonly OomCandidate[], totalPages: number): OomCandidate | undefined {
  let chosen: OomCandidate | undefined;
  let most = Number.NEGATIVE_INFINITY;
  for (const candidate of candidates) {
    const points = oomBadness(candidate, totalPages);
    if (points <= most) continue;
    chosen = candidate;
    most = points;
  }
  return chosen;
}

// ── The report ─────────────────────────────────────────────────────────────────────────────────────────────────────

const right = (value: number | string, width: number): string => String(value).padStart(width);
const kb = (pages: number): string => `${pages * 4}kB`;

/** First line: who asked for what. */
export const oomHeader = (comm: string, gfp: Gfp, order: number, adj: number): string =>
  `${comm} invoked oom-killer: gfp_mask=0x${gfp.toString(16)}(${gfpNames(gfp)}), order=${order}, oom_score_adj=${adj}`;

export interface OomMemory {
  readonly pageCache: number;
  readonly swapCached: number;
  readonly swapFree: number;
  readonly swapTotal: number;
  readonly present: number;
  readonly managed: number;
}

/** The lines behind Mem-Info. */
export const oomMemoryText = (m: OomMemory): string =>
  [
    `${m.pageCache} total pagecache pages`,
    `${m.swapCached} pages in swap cache`,
    `Free swap  = ${kb(m.swapFree)}`,
    `Total swap = ${kb(m.swapTotal)}`,
    `${m.present} pages RAM`,
    "0 pages HighMem/MovableOnly",
    `${m.present - m.managed} pages reserved`,
    "0 pages hwpoisoned",
  ].join("\n");

const taskRow = (p: OomCandidate): string =>
  `[${right(p.pid, 7)}] ${right(0, 5)} ${right(p.pid, 5)} ${right(p.totalVm, 8)} ${right(rssOf(p), 8)} ` +
  `${right(p.rssAnon, 8)} ${right(p.rssFile, 8)} ${right(p.rssShmem, 9)} ${right(p.tablePages * 4096, 8)} ` +
  `${right(p.swapEnts, 8)}         ${right(p.adj, 5)} ${p.comm}`;

/** All processes, and what they have. */
export const oomTasksText = (candidates: readonly OomCandidate[]): string =>
  [
    "Tasks state (memory values in pages):",
    "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name",
    ...candidates.map(taskRow),
  ].join("\n");

export const OOM_KILLED = "Out of memory";
export const OOM_KILLED_ALLOCATING = "Out of memory (oom_kill_allocating_task)";
export const OOM_NOBODY = "Out of memory and no killable processes...";
/** What the kernel panics with when that is so, and when vm.panic_on_oom asks for it. */
export const OOM_DEADLOCK = "System is deadlocked on memory";
export const OOM_PANIC_ASKED = "panic_on_oom is enabled";
export const oomPanicText = (panicOnOom: number): string =>
  `Out of memory: ${panicOnOom === 2 ? "compulsory" : "system-wide"} ${OOM_PANIC_ASKED}`;

/** The last two lines: why this one, and what it had. */
export const oomVictimText = (p: OomCandidate, message = OOM_KILLED): readonly [constraint: string, killed: string] => [
  `oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/,` +
    `task=${p.comm},pid=${p.pid},uid=0`,
  `${message}: Killed process ${p.pid} (${p.comm}) total-vm:${kb(p.totalVm)}, anon-rss:${kb(p.rssAnon)}, ` +
    `file-rss:${kb(p.rssFile)}, shmem-rss:${kb(p.rssShmem)}, UID:0 pgtables:${kb(p.tablePages)} oom_score_adj:${p.adj}`,
];

/** What the reaper says when the victim's memory is free. */
export const oomReapedText = ({ pid, comm }: OomCandidate): string =>
  `oom_reaper: reaped process ${pid} (${comm}), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB`;
