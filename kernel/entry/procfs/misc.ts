/**
 * The small files of /proc: uptime, loadavg, version, mounts and their like.
 *
 * The load average is not kept (0.00); the counts behind it are real. Reading kmsg takes nothing out of the log.
 * Source: fs/proc/, fs/filesystems.c, mm/swapfile.c.
 */

import { CYCLES_PER_SECOND } from "../../params.ts";
import { formatLogLine } from "../../printk.ts";
import type { ProcSources } from "../proc_sources.ts";
import { cpuTimes, uptimeCycles } from "./cpu_time.ts";

/** Seconds with two decimals, cut off. */
function seconds(cycles: number): string {
  const hundredths = Math.floor((cycles * 100) / CYCLES_PER_SECOND);
  return `${Math.floor(hundredths / 100)}.${String(hundredths % 100).padStart(2, "0")}`;
}

/** Time since power-on, and the idle time of all CPUs together. */
export function formatUptime(s: ProcSources): string {
  const idle = cpuTimes(s).reduce((sum, time) => sum + time.idle, 0);
  return `${seconds(uptimeCycles(s))} ${seconds(idle)}\n`;
}

/** Runnable and all tasks, and the newest pid. */
export function formatLoadavg(s: ProcSources): string {
  const tasks = s.tasks();
  const nrRunnable = tasks.filter((task) => task.state === "R").length;
  const lastPid = tasks.reduce((most, task) => Math.max(most, task.pid), 0);
  return `0.00 0.00 0.00 ${nrRunnable}/${tasks.length} ${lastPid}\n`;
}

export const formatVersion = (): string =>
  "Linux version 6.12.0-slabtown (slabtown@slabtown) (TypeScript) #1 SMP PREEMPT_DYNAMIC\n";

export const formatCmdline = (s: ProcSources): string => `${s.cmdline}\n`;

export const formatKmsg = (s: ProcSources): string =>
  s.printk
    .records()
    .map((record) => `<${record.level}>${formatLogLine(record)}\n`)
    .join("");

/** The heading; with the areas below it: swap_area.ts, which registers the file. */
export const formatSwaps = (): string => "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

export const formatFilesystems = (): string =>
  "nodev\tsysfs\nnodev\tproc\nnodev\tdebugfs\nnodev\ttmpfs\nnodev\tramfs\n";

export const formatMounts = (): string =>
  "none / ramfs rw,relatime 0 0\n" +
  "tmpfs /tmp tmpfs rw,relatime 0 0\n" +
  "proc /proc proc rw,relatime 0 0\n" +
  "sysfs /sys sysfs rw,relatime 0 0\n" +
  "debugfs /sys/kernel/debug debugfs rw,relatime 0 0\n";

/** Loaded drivers, newest first: name, bytes, references, users, state, address. */
export const formatModules = (s: ProcSources): string => s.modules();

/** What there is before vm_files.ts registers the file that can be written. */
export const formatMinFreeKbytes = (s: ProcSources): string => `${s.zones.minFreeKbytes()}\n`;
