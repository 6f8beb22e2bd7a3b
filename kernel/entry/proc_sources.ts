/**
 * What the files of /proc and /sys are made from: read-only access to the subsystems, gathered by boot.ts.
 */

import type { PerCpuPages, VmaReport, VmStat, Zones } from "../../mm/index.ts";
import type { Harts } from "../arch/harts.ts";
import type { MemoryPort } from "../arch/port.ts";
import type { Printk } from "../printk.ts";
import type { PhysAddr } from "../types.ts";
import type { SlabInfoRow, TaskInfo } from "./kernel.ts";
import type { Rlimits } from "./rlimit.ts";
import type { SignalSets } from "./signal_state.ts";

export interface ProcessSettings {
  readonly rlimits: Rlimits;
  readonly oomScoreAdj: number;
  readonly personality: number;
  readonly isInit: boolean;
  /** Set when it is decided how it ends. */
  readonly ending: number | undefined;
}

export interface ProcSources {
  readonly port: MemoryPort;
  readonly harts: Harts;
  readonly zones: Zones;
  readonly vmstat: VmStat;
  readonly pcp: PerCpuPages;
  readonly printk: Printk;
  readonly cmdline: string;
  /** Bytes of all per-CPU areas. */
  readonly percpuBytes: number;
  /** Number of pageblocks of each migrate type in a zone. */
  pageblockCounts(zone: number): readonly number[];
  /** Pages of the swap area, and how many of them are free. */
  swapTotals(): { readonly total: number; readonly free: number };
  /** Dirty pages from which the flusher writes at once, and that writers may not exceed. */
  dirtyThresholds(): { readonly background: number; readonly limit: number };
  /** Pages that overcommit_memory=2 would promise at most. */
  commitLimit(): number;
  /** Newest cache first, as Linux lists them. */
  slabCaches(): readonly SlabInfoRow[];
  tasks(): readonly TaskInfo[];
  task(pid: number): TaskInfo | undefined;
  /** Threads of a process. */
  nrThreads(tgid: number): number;
  /** The mappings of a process; none without an address space. With their pages it takes longer. */
  vmas(pid: number, withPages: boolean): readonly VmaReport[];
  /** Resource limits, and the OOM killer's adjustment, of a process; null if there is none of this number. */
  process(pid: number): ProcessSettings | null;
  /** The signals of a thread and of its process; null if there is none of this number, or it is a kernel thread. */
  signals(pid: number): SignalSets | null;
  /** Path of the file whose pages a mapping shows; with ` (deleted)` behind if that is gone. */
  fileName(mapping: PhysAddr): string;
  setOomScoreAdj(pid: number, adj: number): void;
  /** Text of /proc/modules. */
  modules(): string;
  /** Interrupts taken on the lines of devices, per CPU; name of the line. */
  interrupts(): readonly { readonly line: number; readonly name: string; readonly counts: readonly number[] }[];
  /** The same for what CPUs do among themselves and with their own timer; the label is Linux's. */
  cpuInterrupts(): readonly { readonly label: string; readonly text: string; readonly counts: readonly number[] }[];
  /** Interrupts that no handler was there for. */
  interruptErrors(): number;
  /** Times that a CPU went on with another task. */
  switches(): number;
  /** Softirqs served, per vector and CPU. */
  softirqs(): readonly (readonly number[])[];
}
