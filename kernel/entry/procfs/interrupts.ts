/**
 * Files /proc/interrupts, softirqs and stat: what happened on each CPU.
 *
 * Context switches are not counted: their line is there, with 0. Virtual time begins at 0, and so does
 * `btime`. Source: kernel/irq/proc.c, fs/proc/softirqs.c, fs/proc/stat.c.
 */

import type { ProcSources } from "../proc_sources.ts";
import { left, right, words } from "./columns.ts";
import { type CpuTime, CYCLES_PER_USER_HZ, cpuTimes, onlineCpus } from "./cpu_time.ts";

const SOFTIRQS = words("HI TIMER NET_TX NET_RX BLOCK IRQ_POLL TASKLET SCHED HRTIMER RCU");

const cpuHeader = (cpus: readonly number[]): string => cpus.map((cpu) => `CPU${left(cpu, 8)}`).join("");

export function formatInterrupts(s: ProcSources): string {
  const cpus = onlineCpus(s);
  const rows = s.interrupts().map(({ line, name, counts }) => {
    const cells = cpus.map((cpu) => `${right(counts[cpu] ?? 0, 10)} `).join("");
    return `${right(line, 3)}: ${cells}${right("INTC", 8)} ${right(line, 3)}-${left("level", 8)}  ${name}\n`;
  });
  const cpuRows = s.cpuInterrupts().map(({ label, text, counts }) => {
    return `${right(label, 3)}: ${cpus.map((cpu) => `${right(counts[cpu] ?? 0, 10)} `).join("")}  ${text}\n`;
  });
  const errors = `ERR:${right(s.interruptErrors(), 11)}\n`;
  return `${" ".repeat(11)}${cpuHeader(cpus)}\n${rows.join("")}${cpuRows.join("")}${errors}`;
}

export function formatSoftirqs(s: ProcSources): string {
  const cpus = onlineCpus(s);
  const counts = s.softirqs();
  const cells = (nr: number): string => cpus.map((cpu) => ` ${right(counts[nr]?.[cpu] ?? 0, 10)}`).join("");
  const rows = SOFTIRQS.map((name, nr) => `${right(name, 12)}:${cells(nr)}\n`);
  return `${" ".repeat(20)}${cpuHeader(cpus)}\n${rows.join("")}`;
}

const userHz = (cycles: number): number => Math.floor(cycles / CYCLES_PER_USER_HZ);

/** user nice system idle iowait irq softirq steal guest guest_nice */
const cpuFields = ({ user, system, idle }: Omit<CpuTime, "cpu">): string =>
  `${userHz(user)} 0 ${userHz(system)} ${userHz(idle)} 0 0 0 0 0 0\n`;

function interruptTotals(s: ProcSources): string {
  const perLine: number[] = [];
  for (const { line, counts } of s.interrupts()) perLine[line] = counts.reduce((sum, count) => sum + count, 0);
  const lines = Array.from(perLine, (count) => count ?? 0);
  const all = [...lines, ...s.cpuInterrupts().flatMap(({ counts }) => counts)];
  return ["intr", all.reduce((sum, count) => sum + count, 0), ...lines].join(" ");
}

function softirqTotals(s: ProcSources): string {
  const totals = s.softirqs().map((counts) => counts.reduce((sum, count) => sum + count, 0));
  return ["softirq", totals.reduce((sum, count) => sum + count, 0), ...totals].join(" ");
}

export function formatStat(s: ProcSources): string {
  const times = cpuTimes(s);
  const sum = (of: (time: CpuTime) => number): number => times.reduce((total, time) => total + of(time), 0);
  const all = { user: sum((t) => t.user), system: sum((t) => t.system), idle: sum((t) => t.idle) };
  const tasks = s.tasks();
  return (
    `cpu  ${cpuFields(all)}` +
    times.map((time) => `cpu${time.cpu} ${cpuFields(time)}`).join("") +
    `${interruptTotals(s)}\n` +
    `ctxt ${s.switches()}\n` +
    "btime 0\n" +
    `processes ${tasks.reduce((most, task) => Math.max(most, task.pid), 0)}\n` +
    `procs_running ${tasks.filter((task) => task.state === "R").length}\n` +
    "procs_blocked 0\n" +
    `${softirqTotals(s)}\n`
  );
}
