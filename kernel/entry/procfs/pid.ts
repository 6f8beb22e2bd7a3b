/**
 * Files of /proc/<pid>: status, stat, statm, comm, and the table of all of them.
 *
 * statm counts pages, status kilobytes, of the same numbers: VmSize = 4 · size, VmRSS = 4 · resident, RssFile +
 * RssShmem = 4 · shared. Everybody is root. A kernel thread has no memory of its own, and a zombie none any more: their
 * statm is 0, their status has no Vm lines, their maps are empty. Source: fs/proc/array.c, fs/proc/task_mmu.c.
 */

import type { VmaReport } from "../../../mm/index.ts";
import { PAGE_SIZE } from "../../params.ts";
import { PF_KTHREAD } from "../../task_struct.ts";
import { EINVAL } from "../../uapi/errno.ts";
import { PROT_EXEC, PROT_WRITE } from "../../uapi/mman.ts";
import { RLIMIT_SIGPENDING } from "../../uapi/resource.ts";
import type { TaskInfo } from "../kernel.ts";
import type { ProcSources } from "../proc_sources.ts";
import { softLimit } from "../rlimit.ts";
import { bytesOfSigSet, type SigSet } from "../signal_state.ts";
import { pagesToKib, right } from "./columns.ts";
import { CYCLES_PER_USER_HZ, onlineCpus } from "./cpu_time.ts";
import { formatMaps, formatSmaps, formatSmapsRollup } from "./maps.ts";
import { formatLimits, oomScore, parseOomScoreAdj, toOomAdj } from "./process_limits.ts";

const NO_LIMIT = "18446744073709551615";
const ALL_CAPABILITIES = "000001ffffffffff";
const NO_BITS = "0000000000000000";
const ALL_BITS = "ffffffffffffffff";

const STATE_NAMES: ReadonlyMap<string, string> = new Map([
  ["R", "running"],
  ["S", "sleeping"],
  ["D", "disk sleep"],
  ["T", "stopped"],
  ["Z", "zombie"],
  ["X", "dead"],
  ["I", "idle"],
]);

/** Pages of program text: executable, not writable. */
const textPages = (vmas: readonly VmaReport[]): number =>
  vmas.reduce(
    (sum, { start, end, prot }) => sum + ((prot & PROT_EXEC) !== 0 && (prot & PROT_WRITE) === 0 ? end - start : 0),
    0,
  );

/** size resident shared text lib data dirty, in pages. */
function formatStatm(s: ProcSources, task: TaskInfo): string {
  if (task.isKernelThread) return "0 0 0 0 0 0 0\n";
  const { rssFilePages, rssShmemPages, dataPages, stackPages } = task.vm;
  const text = textPages(s.vmas(task.tgid, false));
  return `${task.vmPages} ${task.rssPages} ${rssFilePages + rssShmemPages} ${text} 0 ${dataPages + stackPages} 0\n`;
}

function memoryLines(s: ProcSources, task: TaskInfo): string {
  const { vm } = task;
  const rows: readonly (readonly [name: string, pages: number])[] = [
    ["VmPeak", Math.max(vm.peakVmPages, task.vmPages)],
    ["VmSize", task.vmPages],
    ["VmLck", vm.lockedPages],
    ["VmPin", 0],
    ["VmHWM", Math.max(vm.peakRssPages, task.rssPages)],
    ["VmRSS", task.rssPages],
    ["RssAnon", task.rssPages - vm.rssFilePages - vm.rssShmemPages],
    ["RssFile", vm.rssFilePages],
    ["RssShmem", vm.rssShmemPages],
    ["VmData", vm.dataPages],
    ["VmStk", vm.stackPages],
    ["VmExe", textPages(s.vmas(task.tgid, false))],
    ["VmLib", 0],
    ["VmPTE", task.tablePages],
    ["VmSwap", vm.swapPages],
    ["HugetlbPages", 0],
  ];
  const lines = rows.map(([name, pages]) => `${name}:\t${right(pagesToKib(pages), 8)} kB\n`);
  return `${lines.join("")}CoreDumping:\t0\nTHP_enabled:\t0\n`;
}

/** 16 digits: bit n − 1 stands for signal n. */
const sigMask = (set: SigSet): string =>
  [...bytesOfSigSet(set)]
    .reverse()
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");

function signalLines(s: ProcSources, task: TaskInfo): string {
  const sets = s.signals(task.pid);
  const limits = s.process(task.tgid)?.rlimits;
  const limit = limits === undefined ? 0 : softLimit(limits, RLIMIT_SIGPENDING);
  const rows: readonly (readonly [name: string, mask: string])[] = [
    ["SigPnd", sets === null ? NO_BITS : sigMask(sets.pending)],
    ["ShdPnd", sets === null ? NO_BITS : sigMask(sets.shared)],
    ["SigBlk", sets === null ? NO_BITS : sigMask(sets.blocked)],
    // Nothing that is sent to a kernel thread does anything.
    ["SigIgn", sets === null ? ALL_BITS : sigMask(sets.ignored)],
    ["SigCgt", sets === null ? NO_BITS : sigMask(sets.caught)],
  ];
  const queued = `SigQ:\t${sets?.nrQueued ?? 0}/${Number.isFinite(limit) ? limit : NO_LIMIT}\n`;
  return queued + rows.map(([name, mask]) => `${name}:\t${mask}\n`).join("");
}

/** CPUs as a mask in hexadecimal, groups of 32, and as a list. */
function cpuSet(cpus: readonly number[]): { readonly mask: string; readonly list: string } {
  const last = cpus[cpus.length - 1] ?? 0;
  const groups = new Array<number>(Math.floor(last / 32) + 1).fill(0);
  for (const cpu of cpus) {
    const group = groups.length - 1 - Math.floor(cpu / 32);
    groups[group] = (groups[group] as number) + 2 ** (cpu % 32);
  }
  const mask = groups.map((bits, i) => (i === 0 ? bits.toString(16) : bits.toString(16).padStart(8, "0"))).join(",");
  return { mask, list: cpus.length === last + 1 && last > 0 ? `0-${last}` : cpus.join(",") };
}

function formatStatus(s: ProcSources, task: TaskInfo): string {
  const { mask, list } = cpuSet(onlineCpus(s));
  return (
    `Name:\t${task.comm}\nUmask:\t0022\n` +
    `State:\t${task.state} (${STATE_NAMES.get(task.state) ?? "unknown"})\n` +
    `Tgid:\t${task.tgid}\nNgid:\t0\nPid:\t${task.pid}\nPPid:\t${task.ppid}\nTracerPid:\t0\n` +
    "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t0 \n" +
    `NStgid:\t${task.tgid}\nNSpid:\t${task.pid}\nNSpgid:\t0\nNSsid:\t0\n` +
    `Kthread:\t${task.isKernelThread ? 1 : 0}\n` +
    (task.vmPages === 0 ? "" : memoryLines(s, task)) +
    `Threads:\t${s.nrThreads(task.tgid)}\n${signalLines(s, task)}CapInh:\t${NO_BITS}\n` +
    ["CapPrm", "CapEff", "CapBnd"].map((name) => `${name}:\t${ALL_CAPABILITIES}\n`).join("") +
    `CapAmb:\t${NO_BITS}\nNoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\n` +
    `Cpus_allowed:\t${mask}\nCpus_allowed_list:\t${list}\nMems_allowed:\t1\nMems_allowed_list:\t0\n` +
    "voluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n"
  );
}

/** The 52 fields of proc_pid_stat(5), in their order. */
function formatPidStat(s: ProcSources, task: TaskInfo): string {
  const ticks = Math.floor(task.runCycles / CYCLES_PER_USER_HZ);
  const [utime, stime] = task.isKernelThread ? [0, ticks] : [ticks, 0];
  const flags = task.isKernelThread ? PF_KTHREAD : 0;
  const zeros = (count: number): string => new Array<number>(count).fill(0).join(" ");
  return [
    `${task.pid} (${task.comm}) ${task.state} ${task.ppid}`,
    // pgrp session tty_nr tpgid, flags, then faults
    `0 0 0 -1 ${flags} ${task.minorFaults} 0 ${task.vm.majorFaults} 0`,
    // times, priority, nice, threads, itrealvalue, starttime
    `${utime} ${stime} 0 0 20 0 ${s.nrThreads(task.tgid)} 0 0`,
    `${task.vmPages * PAGE_SIZE} ${task.rssPages} ${NO_LIMIT}`,
    // code and stack addresses, signals, wchan, nswap, cnswap; exit_signal is SIGCHLD
    `${zeros(12)} 17 ${task.cpu}`,
    // rt_priority, policy, delays, guest times, data and argument addresses, exit_code
    `${zeros(13)}\n`,
  ].join(" ");
}

const adjOf = (s: ProcSources, task: TaskInfo): number => s.process(task.tgid)?.oomScoreAdj ?? 0;

function limitsText(s: ProcSources, task: TaskInfo): string {
  const process = s.process(task.tgid);
  return process === null ? "" : formatLimits(process.rlimits);
}

const personalityText = (s: ProcSources, task: TaskInfo): string =>
  `${(s.process(task.tgid)?.personality ?? 0).toString(16).padStart(8, "0")}\n`;

/** RAM and swap, as the OOM killer counts. */
const memoryPages = (s: ProcSources): number => s.zones.totalManaged() + s.swapTotals().total;

/** Takes what was written to a file of /proc/<pid>: 0 or −errno; undefined for a file that is only read. */
export function pidFileWriter(s: ProcSources, task: TaskInfo, file: string): ((text: string) => number) | undefined {
  if (file !== "oom_score_adj" && file !== "oom_adj") return undefined;
  return (text) => {
    const adj = parseOomScoreAdj(text, file === "oom_adj");
    if (adj === null || task.isKernelThread) return -EINVAL;
    s.setOomScoreAdj(task.tgid, adj);
    return 0;
  };
}

/** Files of /proc/<pid>. */
export const PID_FILES: ReadonlyMap<string, (s: ProcSources, task: TaskInfo) => string> = new Map([
  ["comm", (_s: ProcSources, task: TaskInfo) => `${task.comm}\n`],
  ["limits", (s: ProcSources, task: TaskInfo) => limitsText(s, task)],
  ["maps", (s: ProcSources, task: TaskInfo) => formatMaps(s.vmas(task.tgid, false), s.fileName)],
  ["oom_adj", (s: ProcSources, task: TaskInfo) => `${toOomAdj(adjOf(s, task))}\n`],
  ["oom_score", (s: ProcSources, task: TaskInfo) => `${oomScore(task, s.process(task.tgid), memoryPages(s))}\n`],
  ["oom_score_adj", (s: ProcSources, task: TaskInfo) => `${adjOf(s, task)}\n`],
  ["personality", (s: ProcSources, task: TaskInfo) => personalityText(s, task)],
  ["smaps", (s: ProcSources, task: TaskInfo) => formatSmaps(s.vmas(task.tgid, true), s.fileName)],
  ["smaps_rollup", (s: ProcSources, task: TaskInfo) => formatSmapsRollup(s.vmas(task.tgid, true))],
  ["stat", formatPidStat],
  ["statm", formatStatm],
  ["status", formatStatus],
]);
