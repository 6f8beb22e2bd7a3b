/**
 * How the CPUs spent their virtual time, from what their tasks have used.
 *
 * There is no accounting per CPU: a CPU's busy time is that of the living tasks that ran on it last, the rest of its
 * clock is idle. Time of tasks that have ended thus counts as idle.
 */

import { CYCLES_PER_SECOND } from "../../params.ts";
import type { ProcSources } from "../proc_sources.ts";

/** /proc counts time in hundredths of a second. */
export const CYCLES_PER_USER_HZ = CYCLES_PER_SECOND / 100;

export interface CpuTime {
  readonly cpu: number;
  readonly user: number;
  readonly system: number;
  readonly idle: number;
}

/** Numbers of the CPUs that run. */
export function onlineCpus(s: ProcSources): readonly number[] {
  return Array.from(s.harts.online.keys()).filter((cpu) => s.harts.online[cpu] === 1);
}

/** Cycles since power-on: the clock that is furthest. */
export function uptimeCycles(s: ProcSources): number {
  return onlineCpus(s).reduce((most, cpu) => Math.max(most, s.harts.clock[cpu] as number), 0);
}

/** Cycles of each running CPU, by what they went to. */
export function cpuTimes(s: ProcSources): readonly CpuTime[] {
  const tasks = s.tasks();
  return onlineCpus(s).map((cpu) => {
    let user = 0;
    let system = 0;
    for (const task of tasks) {
      if (task.cpu !== cpu) continue;
      if (task.isKernelThread) system += task.runCycles;
      else user += task.runCycles;
    }
    return { cpu, user, system, idle: Math.max(0, (s.harts.clock[cpu] as number) - user - system) };
  });
}
