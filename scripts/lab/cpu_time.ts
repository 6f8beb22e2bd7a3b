/**
 * CPU time of other processes, as far as the system tells it (Linux: /proc).
 */

import { readFileSync } from "node:fs";
import { availableParallelism, loadavg } from "node:os";

/** Of /proc/PID/stat, on every Linux that Node runs on. */
const TICKS_A_SECOND = 100;

/** Seconds of CPU time that process `pid` and those below it have used; null where nobody says so. */
export function cpuSeconds(pid: number): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // After the name, which may hold anything: state is field 3, user and system time are 14 and 15.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    let seconds = (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND;
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
    for (const child of children.match(/\d+/g) ?? []) seconds += cpuSeconds(Number(child)) ?? 0;
    return seconds;
  } catch {
    return null;
  }
}

/** How many times longer work takes here than on a computer that does nothing else; at least 1. */
export function loadFactor(): number {
  return Math.max(1, 1 + (loadavg()[0] ?? 0) / availableParallelism());
}
