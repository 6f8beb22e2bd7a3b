/**
 * The processes of a syscall replay, each looked at when its program image ends: what it had of memory, and how much of
 * it was its own.
 *
 * The numbers are those that /proc/PID shows at that moment, read by the host: no virtual time passes.
 */

import type { Kernel } from "../kernel/entry/kernel.ts";

export interface EndedProcess {
  readonly pid: number;
  readonly command: string;
  /** Kilobytes: mapped, resident, proportional share, page tables, highest resident. */
  readonly vszKib: number;
  readonly rssKib: number;
  readonly pssKib: number;
  readonly tablesKib: number;
  readonly peakRssKib: number;
  /** Since the process began. */
  readonly minorFaults: number;
  readonly majorFaults: number;
}

/** Process `pid` as it stands now. */
export function processAtEnd(kernel: Kernel, pid: number): EndedProcess {
  const read = (name: string): string => kernel.readFile(`/proc/${pid}/${name}`) ?? "";
  const status = read("status");
  const kib = (text: string, name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? 0);
  // Behind the command in parentheses, which may hold blanks: state is field 3, faults are fields 10 and 12.
  const stat = read("stat")
    .replace(/^.*\) /s, "")
    .split(" ");
  return {
    pid,
    command: /^Name:\t(.*)$/m.exec(status)?.[1] ?? "",
    vszKib: kib(status, "VmSize"),
    rssKib: kib(status, "VmRSS"),
    pssKib: kib(read("smaps_rollup"), "Pss"),
    tablesKib: kib(status, "VmPTE"),
    peakRssKib: kib(status, "VmHWM"),
    minorFaults: Number(stat[7] ?? 0),
    majorFaults: Number(stat[9] ?? 0),
  };
}
