/**
 * The texts of ps, top and uptime, in the layouts of procps-ng 4.
 *
 * Pure functions from /proc texts; the programs collect the texts. There is no clock of the day: time starts at boot.
 */

import { type PidStat, parseLoadavg, parseMeminfo, parseSystemStat, parseUptime, USER_HZ } from "./proc_text.ts";

const KIB_PER_PAGE = 4;
const two = (n: number): string => String(n).padStart(2, "0");
const right = (value: number | string, width: number): string => String(value).padStart(width);

/** `hh:mm:ss`. */
export function clockText(seconds: number): string {
  const whole = Math.floor(seconds);
  return `${two(Math.floor(whole / 3600))}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

/** ` 00:02:17 up 2 min,  load average: 0.06, 0.03, 0.01` */
export function uptimeReport(uptime: string, loadavg: string): string {
  const seconds = parseUptime(uptime);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const since = hours > 0 ? `${right(hours, 2)}:${two(minutes % 60)}` : `${minutes} min`;
  return ` ${clockText(seconds)} up ${since},  load average: ${parseLoadavg(loadavg)}\n`;
}

/** `ps -e -o pid,ppid,s,vsz,rss,time,comm`. */
export function psReport(tasks: readonly PidStat[]): string {
  const rows = tasks.map((task) =>
    [
      right(task.pid, 5),
      right(task.ppid, 5),
      task.state,
      right(Math.floor(task.vsizeBytes / 1024), 6),
      right(task.rssPages * KIB_PER_PAGE, 5),
      right(clockText(task.ticks / USER_HZ), 8),
      task.vsizeBytes === 0 ? `[${task.comm}]` : task.comm,
    ].join(" "),
  );
  return `${["  PID  PPID S    VSZ   RSS     TIME COMMAND", ...rows].join("\n")}\n`;
}

export interface TopFiles {
  readonly uptime: string;
  readonly loadavg: string;
  readonly stat: string;
  readonly meminfo: string;
}

/** One screen of top: shares of CPU are averages since boot. */
export function topReport(files: TopFiles, tasks: readonly PidStat[]): string {
  const seconds = Math.max(parseUptime(files.uptime), 1 / USER_HZ);
  const memory = parseMeminfo(files.meminfo);
  const totalKib = Math.max(memory.get("MemTotal") ?? 0, 1);
  const inState = (states: string): number => tasks.filter((task) => states.includes(task.state)).length;
  const counts = [
    [inState("R"), "running"],
    [inState("SDI"), "sleeping"],
    [inState("T"), "stopped"],
    [inState("Z"), "zombie"],
  ].map(([nr = 0, name]) => `${right(nr, 3)} ${name}`);
  const rows = [...tasks]
    .sort((a, b) => b.ticks - a.ticks || b.rssPages - a.rssPages || a.pid - b.pid)
    .map((task) => topRow(task, seconds, totalKib));
  return `${[
    `top -${uptimeReport(files.uptime, files.loadavg).trimEnd()}`,
    `Tasks: ${right(tasks.length, 3)} total, ${counts.join(", ")}`,
    cpuLine(parseSystemStat(files.stat).cpuTicks),
    ...memoryLines(memory),
    "",
    "  PID USER      PR  NI    VIRT    RES S  %CPU  %MEM     TIME+ COMMAND",
    ...rows,
  ].join("\n")}\n`;
}

function topRow(task: PidStat, seconds: number, totalKib: number): string {
  const cpuSeconds = task.ticks / USER_HZ;
  const time = `${Math.floor(cpuSeconds / 60)}:${two(Math.floor(cpuSeconds) % 60)}.${two(task.ticks % USER_HZ)}`;
  const rssKib = task.rssPages * KIB_PER_PAGE;
  return [
    right(task.pid, 5),
    "root    ",
    right(task.priority < -99 ? "rt" : task.priority, 3),
    right(task.nice, 3),
    right(Math.floor(task.vsizeBytes / 1024), 7),
    right(rssKib, 6),
    task.state,
    right(((100 * cpuSeconds) / seconds).toFixed(1), 5),
    right(((100 * rssKib) / totalKib).toFixed(1), 5),
    right(time, 9),
    task.comm,
  ].join(" ");
}

function cpuLine(ticks: readonly number[]): string {
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] = ticks;
  const total = ticks.reduce((sum, n) => sum + n, 0);
  // Before the first tick the machine has been idle.
  const share = (n: number, none: number): string => right((total === 0 ? none : (100 * n) / total).toFixed(1), 5);
  const named = [
    [user, "us"],
    [system, "sy"],
    [nice, "ni"],
    [idle, "id"],
    [iowait, "wa"],
    [irq, "hi"],
    [softirq, "si"],
    [steal, "st"],
  ] as const;
  return `%Cpu(s):${named.map(([n, name]) => `${share(n, name === "id" ? 100 : 0)} ${name}`).join(",")}`;
}

function memoryLines(memory: ReadonlyMap<string, number>): string[] {
  const kib = (name: string): number => memory.get(name) ?? 0;
  const mib = (n: number): string => right((n / 1024).toFixed(1), 8);
  const cached = kib("Cached") + kib("Buffers") + kib("SReclaimable");
  const used = Math.max(kib("MemTotal") - kib("MemAvailable"), 0);
  const swapUsed = kib("SwapTotal") - kib("SwapFree");
  return [
    `MiB Mem :${mib(kib("MemTotal"))} total,${mib(kib("MemFree"))} free,${mib(used)} used,${mib(cached)} buff/cache`,
    `MiB Swap:${mib(kib("SwapTotal"))} total,${mib(kib("SwapFree"))} free,${mib(swapUsed)} used.${mib(
      kib("MemAvailable"),
    )} avail Mem`,
  ];
}
