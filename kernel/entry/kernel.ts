/**
 * The running kernel as its host sees it: run it, feed its console, read its files, ask where everything is.
 *
 * `boot()` (boot.ts) returns one. The host (scripts/, tests, a browser page) drives it: `run()` executes until there
 * is nothing left to do without new input, or until the power is off.
 */

import type { DevicePlace, DeviceSettings, DeviceStats, DriverCore, DriverType } from "../../drivers/index.ts";
import type {
  CpuCacheStats,
  FaultStats,
  FrameAllocatorFactory,
  ObjectCacheFactory,
  PageAllocator,
  PageOwners,
  Pages,
  PerCpuPages,
  ProcessMemory,
  RequestObserver,
  SlabSubsystem,
  VmaReport,
  VmStat,
  Zones,
} from "../../mm/index.ts";
import type { Machine, MachineConfig, MachineImage } from "../arch/machine.ts";
import type { RamBuffer } from "../arch/port.ts";
import type { ContextTracking } from "../context.ts";
import type { Cpuhp } from "../cpuhp.ts";
import type { Irqs } from "../irq.ts";
import type { ThreadedIrqs } from "../irq_thread.ts";
import type { OffTracker } from "../irqsoff.ts";
import type { Lockdep } from "../lockdep.ts";
import type { Nmis } from "../nmi.ts";
import type { Printk } from "../printk.ts";
import type { Smp } from "../smp.ts";
import type { OnContention } from "../spinlock.ts";
import type { Task } from "../task.ts";
import type { Program, ProgramObserver } from "../uapi/program.ts";
import type { KernelRecording } from "../uapi/recording.ts";
import type { SnapshotDevice } from "./snapshot_device.ts";

/** Why `run()` came back. */
export type RunStop =
  /** A program called reboot(): clean end. */
  | "poweroff"
  /** The kernel panicked; `panicReport` says how. */
  | "panic"
  /** Every task waits for console input. */
  | "input"
  /** The cycle budget is used up, or `shouldStop` said so. */
  | "budget"
  /** `pause` said so: the same call again goes on as if nothing had been. */
  | "pause"
  /** A program asks something of the host that serves snapshots: `snapshots.request()`. */
  | "snapshot"
  /** Nothing is runnable, no timer is armed and nobody waits for input: only sleepers that nothing will wake. */
  | "idle";

export interface BootOptions {
  readonly nrCpus: number;
  readonly ramBytes: number;
  readonly seed: string;
  /** "bounds" checks every access (tests), "raw" is fast, "threads" is for CPUs that are threads of the host. */
  readonly port: MachineConfig["port"];
  /** Zeroed RAM to boot on; default: RAM of its own. */
  readonly ram?: RamBuffer | undefined;
  /** What a CPU does about a taken spinlock; default: report a lockup, for nobody else runs (spinlock.ts). */
  readonly onContention?: OnContention | undefined;
  /** The kernel command line. */
  readonly cmdline: string;
  /** Receives console output: the log while booting, then what programs write to the terminal. */
  readonly console: (text: string) => void;
  /** Path → code, for spawn(): `/bin/sh`, `/bin/free`, … */
  readonly programs: ReadonlyMap<string, Program>;
  /** The FrameAllocator seam: another allocator of page frames than the buddy. */
  readonly frameAllocator?: FrameAllocatorFactory;
  /** The ObjectCacheLayer seam: other per-CPU caches than magazines; `object_cache=` is not asked then. */
  readonly objectCache?: ObjectCacheFactory;
  /** Device → settings (rates, sizes, faults), as DEVICE_SETTINGS lists them. Throws for what does not exist. */
  readonly devices?: Readonly<Record<string, DeviceSettings>>;
  /** With fault injection: told of each request that may be refused. */
  readonly onAllocRequest?: RequestObserver | undefined;
  /** Drivers to load once the system runs, with parameters, in this order: `nic ring=64`. */
  readonly modules?: readonly string[];
  /** Drivers and devices beside those that come with the kernel. */
  readonly extraDrivers?: readonly DriverType[];
  readonly extraDevices?: readonly DevicePlace[];
}

/** One line of ps. */
export interface TaskInfo {
  readonly pid: number;
  readonly tgid: number;
  readonly ppid: number;
  readonly comm: string;
  readonly state: string;
  readonly cpu: number;
  readonly runCycles: number;
  /** Pages resident, pages mapped, pages of page tables; 0 for kernel threads. */
  readonly rssPages: number;
  readonly vmPages: number;
  readonly tablePages: number;
  readonly minorFaults: number;
  readonly isKernelThread: boolean;
  /** Since vfork, in its parent's address space: the memory counted here is the parent's. */
  readonly isVforked: boolean;
  readonly vm: TaskVm;
}

/** The finer numbers of an address space, in pages but for the faults; all 0 without one. */
export interface TaskVm {
  readonly rssFilePages: number;
  readonly rssShmemPages: number;
  readonly swapPages: number;
  readonly peakRssPages: number;
  readonly peakVmPages: number;
  readonly dataPages: number;
  readonly stackPages: number;
  readonly lockedPages: number;
  readonly majorFaults: number;
  readonly cowFaults: number;
}

export interface SpawnOptions {
  readonly observer?: ProgramObserver;
  /** Name for ps; default: the last part of the path. */
  readonly comm?: string;
}

/** Where every page of RAM is. The parts add up to `total` (a checked identity). */
export interface PageCensus {
  readonly total: number;
  /** Holes and firmware, kernel image, struct page, other boot memory. */
  readonly reserved: number;
  readonly freeBuddy: number;
  readonly freePcp: number;
  readonly slab: number;
  readonly largeKmalloc: number;
  readonly anon: number;
  /** Page cache: files of the ramfs, of disks, shared memory. */
  readonly files: number;
  readonly pageTables: number;
  readonly kernelStacks: number;
  /** Bounce buffers and the pool for atomic coherent memory: kept once a device has needed them. */
  readonly dmaPools: number;
  /** The host has them. */
  readonly balloon: number;
  readonly other: number;
}

/** The memory subsystem, for a host that calls it directly: benches, threads. */
export interface KernelMemory {
  readonly processMemory: ProcessMemory;
  readonly pages: Pages;
  readonly zones: Zones;
  readonly pcp: PerCpuPages;
  readonly pageAlloc: PageAllocator;
  readonly slab: SlabSubsystem;
  readonly vmstat: VmStat;
}

/** Interrupts and CPUs, for a host that measures or disturbs them. */
export interface KernelInterrupts {
  readonly irqs: Irqs;
  readonly threadedIrqs: ThreadedIrqs;
  readonly nmis: Nmis;
  readonly smp: Smp;
  readonly cpuhp: Cpuhp;
  /** Longest windows with interrupts or preemption off; null without the parameter irqsoff=on. */
  readonly offTracker: OffTracker | null;
}

/** A saved kernel: the machine, and which tasks there were. Their code is not in it. */
export interface SavedKernel extends MachineImage {
  readonly tasks: readonly Task[];
}

export interface Kernel {
  readonly machine: Machine;
  readonly memory: KernelMemory;
  readonly interrupts: KernelInterrupts;
  readonly printk: Printk;
  readonly contexts: ContextTracking;
  /** With prove_locking=on. */
  readonly lockdep: Lockdep | undefined;
  /**
   * Executes until one of the reasons above. `untilCycles` is an absolute virtual time; a task's slice ends there, so
   * it is part of what the run is. `pause` is asked after each step and changes nothing of the run.
   */
  run(options?: { untilCycles?: number; shouldStop?: () => boolean; pause?: (() => boolean) | undefined }): RunStop;
  /** Until when an idle machine sleeps: 0 while something runs, Infinity if nothing will ever wake it. */
  quietUntil(): number;
  /** The same machine, idle until `cycles`, at that moment. For who waits for a moment when nothing happens. */
  passTime(cycles: number): void;
  /** Steps of the scheduler since boot: names a point of a run exactly. */
  steps(): number;
  /** Types bytes on the console. */
  feedConsole(text: string): void;
  /** End of file on the console (Ctrl-D, or the host's input ended). */
  closeConsole(): void;
  /** Sends SIGINT to the foreground program (Ctrl-C). */
  interruptConsole(): void;
  /** Makes /dev/snapshot appear; `run()` comes back for each request, which has to be answered. */
  serveSnapshots(): SnapshotDevice;
  /** Starts a program as a child of init: pid, or −errno. `args` is argv, the name first. Host side of spawn(). */
  spawn(path: string, args: readonly string[], options?: SpawnOptions): number;
  /** Starts kernel threads (one per recorded CPU) that replay kernel events; exits are seen with exitStatus(). */
  spawnKernelReplay(recording: KernelRecording, observer: ProgramObserver): readonly number[];
  /** Sends a signal that kills: 0 or −ESRCH; init takes none. Host side of kill(). */
  kill(pid: number, signal: number): number;
  /** From here on no allocation fails on purpose. */
  stopFaults(): void;
  /** Exit status of a process that has ended; undefined while it runs. Signals are 128 + number. */
  exitStatus(pid: number): number | undefined;
  /** Text of a file of /proc, /sys or the ramfs; null if there is none. Same bytes as `cat` in the shell. */
  readFile(path: string): string | null;
  /** Removes every file of the ramfs; nobody should have one open. */
  removeFiles(): void;
  /** Virtual time: the largest local clock, cycles. */
  now(): number;
  tasks(): readonly TaskInfo[];
  task(pid: number): TaskInfo | undefined;
  /** The mappings of a process and their pages; none without an address space. */
  mappings(pid: number): readonly VmaReport[];
  /** Numbers that the drivers of bound devices keep. */
  deviceStats(): readonly DeviceStats[];
  readonly drivers: DriverCore;
  /** What each CPU's magazines served and what they did not, over all caches; by CPU number. */
  magazineStats(): readonly CpuCacheStats[];
  census(): PageCensus;
  /** Page tables of the kernel's own window, where stacks are: among those of the census, and of no process. */
  nrKernelTables(): number;
  /** Whose every page frame is, in words. */
  owners(): PageOwners;
  /** Requests that fault injection has seen and refused; null without one of its parameters. */
  faultStats(): FaultStats | null;
  /** System calls of all programs since boot. */
  nrSyscalls(): number;
  /** Pages reserved at boot and pages that had left the free lists at the worst moment since. */
  peakPages(): number;
  /** Every invariant walk of the memory subsystem: the first violation, or null. */
  check(): string | null;
  /** Set after a panic: the screen, without ANSI codes. */
  readonly panicReport: string | null;
  /** Oopses, splats and bad frees since boot. */
  nrReports(): number;
  /**
   * A copy of RAM, registers and random streams: for comparison, and to restore where no program is running. `into`: an
   * image that is needed no more, whose buffers are used again.
   */
  save(into?: SavedKernel): SavedKernel;
  /** Puts an image back, in place. Throws if a task has begun or ended since, or a device is acting (adr/0003). */
  restore(image: SavedKernel): void;
}

/** One row of /proc/slabinfo. */
export interface SlabInfoRow {
  readonly name: string;
  readonly activeObjs: number;
  readonly numObjs: number;
  readonly objSize: number;
  readonly objPerSlab: number;
  readonly pagesPerSlab: number;
  readonly activeSlabs: number;
  readonly numSlabs: number;
}
