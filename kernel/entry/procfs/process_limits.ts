/**
 * What binds a process, and how gladly the OOM killer takes it: /proc/<pid>/limits, oom_score, oom_score_adj, oom_adj.
 *
 * The score is the OOM killer's points (mm/oom.ts), scaled as Linux does: 0 … 2000 means nothing … everything.
 * Source: fs/proc/base.c, mm/oom_kill.c.
 */

import { oomBadness } from "../../../mm/index.ts";
import type { TaskInfo } from "../kernel.ts";
import type { ProcessSettings } from "../proc_sources.ts";
import type { Rlimits } from "../rlimit.ts";
import { softLimit } from "../rlimit.ts";

export const OOM_SCORE_ADJ_MIN = -1000;
export const OOM_SCORE_ADJ_MAX = 1000;
/** The old scale, −17 … 15. */
const OOM_DISABLE = -17;
const OOM_ADJUST_MAX = 15;

const LIMITS: readonly (readonly [name: string, unit: string])[] = [
  ["Max cpu time", "seconds"],
  ["Max file size", "bytes"],
  ["Max data size", "bytes"],
  ["Max stack size", "bytes"],
  ["Max core file size", "bytes"],
  ["Max resident set", "bytes"],
  ["Max processes", "processes"],
  ["Max open files", "files"],
  ["Max locked memory", "bytes"],
  ["Max address space", "bytes"],
  ["Max file locks", "locks"],
  ["Max pending signals", "signals"],
  ["Max msgqueue size", "bytes"],
  ["Max nice priority", ""],
  ["Max realtime priority", ""],
  ["Max realtime timeout", "us"],
];

export function formatLimits(limits: Rlimits): string {
  const text = (value: number): string => (Number.isFinite(value) ? String(value) : "unlimited").padEnd(20);
  const rows = LIMITS.map(([name, unit], resource) => {
    const start = `${name.padEnd(25)} ${text(softLimit(limits, resource))} ${text(limits.hard[resource] ?? 0)} `;
    return `${start}${unit === "" ? "" : unit.padEnd(10)}\n`;
  });
  const head = `${"Limit".padEnd(25)} ${"Soft Limit".padEnd(20)} ${"Hard Limit".padEnd(20)} ${"Units".padEnd(10)}\n`;
  return head + rows.join("");
}

/** 0 for who is never killed; `totalPages` counts RAM and swap. The points are those of the OOM killer (mm/oom.ts). */
export function oomScore(task: TaskInfo, process: ProcessSettings | null, totalPages: number): number {
  if (process === null || task.isKernelThread || task.vmPages === 0) return 0;
  const { rssPages, vm, tablePages } = task;
  const badness = oomBadness(
    {
      pid: task.tgid,
      comm: task.comm,
      totalVm: task.vmPages,
      rssAnon: rssPages - vm.rssFilePages - vm.rssShmemPages,
      rssFile: vm.rssFilePages,
      rssShmem: vm.rssShmemPages,
      swapEnts: vm.swapPages,
      tablePages,
      adj: process.oomScoreAdj,
      isSpared: process.isInit || process.ending !== undefined,
    },
    totalPages,
  );
  if (badness === Number.NEGATIVE_INFINITY) return 0;
  return Math.trunc(((1000 + Math.trunc((badness * 1000) / totalPages)) * 2) / 3);
}

export const toOomAdj = (adj: number): number =>
  adj === OOM_SCORE_ADJ_MAX ? OOM_ADJUST_MAX : Math.trunc((adj * -OOM_DISABLE) / OOM_SCORE_ADJ_MAX);

/** The adjustment that was written to oom_score_adj, or to oom_adj in its old scale; null for nonsense. */
export function parseOomScoreAdj(text: string, isOldScale: boolean): number | null {
  if (!/^\s*-?\d+\s*$/.test(text)) return null;
  const value = Number(text);
  if (!isOldScale) return value >= OOM_SCORE_ADJ_MIN && value <= OOM_SCORE_ADJ_MAX ? value : null;
  if (value < OOM_DISABLE || value > OOM_ADJUST_MAX) return null;
  return value === OOM_ADJUST_MAX ? OOM_SCORE_ADJ_MAX : Math.trunc((value * OOM_SCORE_ADJ_MAX) / -OOM_DISABLE);
}
