/**
 * The processes of a syscall replay, each looked at when its program image ends: what it had of memory, and how much of
 * it was its own.
 *
 * The numbers are those that /proc/PID shows at that moment, without the text: no virtual time passes.
 */

import type { Kernel } from "../kernel/entry/kernel.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { PSS_PER_PAGE } from "../mm/index.ts";

export interface EndedProcess {
  readonly pid: number;
  readonly command: string;
  /** Kilobytes: mapped, resident, proportional share, page tables, highest resident. */
  readonly vszKib: number;
  readonly rssKib: number;
  readonly pssKib: number;
  readonly tablesKib: number;
  readonly peakRssKib: number;
  /** Of its address space since that began; `cowFaults` are those of the minor ones that copied a page. */
  readonly minorFaults: number;
  readonly majorFaults: number;
  readonly cowFaults: number;
  /** It ran in its parent's address space, whose numbers these are. */
  readonly isVforked: boolean;
}

export interface FaultTotals {
  readonly minorFaults: number;
  readonly majorFaults: number;
  readonly cowFaults: number;
}

const KIB_PER_PAGE = PAGE_SIZE / 1024;

/** Process `pid` as it stands now. */
export function processAtEnd(kernel: Kernel, pid: number): EndedProcess {
  const task = kernel.task(pid);
  let pss = 0;
  for (const { pages } of kernel.mappings(pid)) pss += pages.pss;
  const { rssPages = 0, vm } = task ?? {};
  return {
    pid,
    command: task?.comm ?? "",
    vszKib: (task?.vmPages ?? 0) * KIB_PER_PAGE,
    rssKib: rssPages * KIB_PER_PAGE,
    pssKib: Math.floor((pss * KIB_PER_PAGE) / PSS_PER_PAGE),
    tablesKib: (task?.tablePages ?? 0) * KIB_PER_PAGE,
    peakRssKib: Math.max(vm?.peakRssPages ?? 0, rssPages) * KIB_PER_PAGE,
    minorFaults: task?.minorFaults ?? 0,
    majorFaults: vm?.majorFaults ?? 0,
    cowFaults: vm?.cowFaults ?? 0,
    isVforked: task?.isVforked === true,
  };
}

/** Faults of all address spaces that ended: those that were only borrowed are counted with their owners. */
export function faultTotals(processes: readonly EndedProcess[]): FaultTotals {
  const owners = processes.filter(({ isVforked }) => !isVforked);
  const sum = (of: (process: EndedProcess) => number): number => owners.reduce((all, one) => all + of(one), 0);
  return {
    minorFaults: sum(({ minorFaults }) => minorFaults),
    majorFaults: sum(({ majorFaults }) => majorFaults),
    cowFaults: sum(({ cowFaults }) => cowFaults),
  };
}
