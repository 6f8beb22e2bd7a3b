/**
 * Processes: an address space, open files and one or more threads, from spawn or fork to wait.
 *
 *   spawn, fork ─▶ [ threads run ] ─▶ last thread ends ─▶ zombie ─▶ parent waits ─▶ gone
 *                    clone ↑ exit            memory and files go here      task_struct goes here
 *
 * A thread is a task with the same tgid and address space. Exit status and fatal signal are encoded as wait4 reports
 * them: `status << 8 | signal`. This file has what a process is and what others may ask of all of them; processes.ts
 * puts it together: process_start.ts begins processes and threads and replaces programs, process_end.ts ends them.
 *
 *   PRC-1  an address space has as many users as all processes that have it have threads
 *   PRC-2  a process without threads is a zombie or has been waited for
 *   PRC-3  orphans are children of init; without an init they vanish at exit
 *   PRC-4  to PRC-7: process_start.ts
 */

import type { ProcessMemory, VmStat } from "../../mm/index.ts";
import type { Machine } from "../arch/machine.ts";
import type { ContextTracking } from "../context.ts";
import type { OpenFile } from "../file.ts";
import type { Mutexes } from "../mutex.ts";
import type { Printk } from "../printk.ts";
import type { Scheduler } from "../sched.ts";
import type { Task, Tasks } from "../task.ts";
import type { MaySleep, PhysAddr, Sleeping, TaskContext } from "../types.ts";
import type { Program, ProgramObserver } from "../uapi/program.ts";
import type { WaitQueues } from "../wait.ts";
import type { Rlimits } from "./rlimit.ts";
import type { ProcessSignals, SigInfo, ThreadSignals } from "./signal_state.ts";
import type { MakeRoom, TaskMemory, UserAccess } from "./user_mode.ts";

export const NR_OPEN = 64;

export interface Process {
  readonly pid: number;
  mm: PhysAddr;
  readonly fds: (OpenFile | undefined)[];
  parent: number;
  /** Absolute path of the directory that relative paths start at. */
  cwd: string;
  readonly observer: ProgramObserver | undefined;
  /** True for the process that must not end: pid 1 running /sbin/init. */
  readonly isInit: boolean;
  /** Live threads by tid. */
  readonly threads: Map<number, Task>;
  /** Exit statuses of threads that ended, until joined. */
  readonly joinable: Map<number, number>;
  /** Functions that were given a text address, by index. */
  text: Program[];
  readonly rlimits: Rlimits;
  /** −1000 (never) … 1000: how gladly the OOM killer takes it. */
  oomScoreAdj: number;
  /** personality(2): ADDR_NO_RANDOMIZE, and bits that mean nothing here. Children and execve keep it. */
  personality: number;
  /** It runs in its parent's address space, and the parent waits for the end of that. */
  isVforked: boolean;
  /** The thread that is replacing the program: all others have to end. */
  survivor: Task | undefined;
  /** Set when exit_group or a fatal signal has decided how the process ends. */
  ending: number | undefined;
  readonly signals: ProcessSignals;
  /** wait4's word, once no thread is left. */
  status: number | undefined;
}

/** What a system call knows about its caller. */
export interface Caller {
  readonly task: Task;
  readonly process: Process;
  readonly memory: TaskMemory;
  readonly user: UserAccess;
  /** The arguments of its program, as the kernel left them on the stack. */
  readonly argc: number;
  readonly argv: number;
}

/** Unwinds a thread that called exit. No Error: nothing is wrong, and a stack trace costs more than the exit. */
export class ExitRequest {
  readonly status: number;
  constructor(status: number) {
    this.status = status;
  }
}

export type SyscallEntry = (caller: Caller, nr: number, args: readonly number[]) => MaySleep<number>;

export interface Processes {
  /** pid, or −errno. `args` is argv, the name first. Takes over one reference of each file. */
  spawn(parent: number, path: string, args: readonly string[], fds: readonly OpenFile[], more?: SpawnMore): number;
  /** tid, or −errno. */
  clone(caller: Caller, entry: number, arg: number): number;
  /** A child that goes on at `entry` with a copy of everything: pid, or −errno. */
  fork(caller: Caller, entry: number): number;
  /** The same in the caller's own address space; comes back when the child has ended or become another program. */
  vfork(caller: Caller, entry: number): MaySleep<number>;
  /** Replaces the caller's program: −errno, or it does not come back. */
  execve(caller: Caller, path: string, args: readonly string[]): MaySleep<number>;
  wait(caller: Caller, pid: number, options: number): Sleeping<{ pid: number; status: number }>;
  joinThread(caller: Caller, tid: number): Sleeping<number>;
  /** Sends a signal, which kills unless it is one that does nothing by default: 0, also to a zombie, or −ESRCH. */
  kill(pid: number, signal: number, sender?: number): number;
  readonly signals: {
    of(task: Task): ThreadSignals;
    send(process: Process, signal: number, info: SigInfo, thread?: Task): void;
  };
  get(pid: number): Process | undefined;
  all(): readonly Process[];
  exitStatus(pid: number): number | undefined;
  setSyscallEntry(entry: SyscallEntry): void;
  nrOopses(): number;
  /** System calls of all programs since boot. */
  nrSyscalls(): number;
}

export interface SpawnMore {
  readonly observer?: ProgramObserver | undefined;
  readonly comm?: string | undefined;
  /** Whose limits the child has; default: the first ones. */
  readonly rlimits?: Rlimits | undefined;
  /** As in Linux, a child has its parent's. */
  readonly oomScoreAdj?: number | undefined;
}

export interface ProcessDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly tasks: Tasks;
  readonly scheduler: Scheduler;
  readonly waits: WaitQueues;
  readonly processMemory: ProcessMemory;
  readonly vmstat: VmStat;
  readonly programs: ReadonlyMap<string, Program>;
  /** Two wait queues of 8 bytes each: child exits, thread exits. */
  readonly queues: PhysAddr;
  readonly mutexes: Mutexes;
  /** Locks of user threads (futex_pi.ts): what a thread owns that ends. */
  readonly piFutexes: { taskEnds(task: Task): void };
  /** Frees memory for a page fault (mm/reclaim.ts). */
  readonly makeRoom: MakeRoom;
  readonly onPanic: (reason: string) => void;
  /** Limits of the first process. */
  readonly rlimits: Rlimits;
}

/** What starting and ending have in common. */
export interface ProcessTable {
  readonly deps: ProcessDeps;
  readonly processes: Map<number, Process>;
  readonly finalStatus: Map<number, number>;
  readonly exitQueue: PhysAddr;
  /** Context of whoever runs at this moment. */
  readonly hostContext: () => TaskContext;
  readonly processOf: (task: Task) => Process | undefined;
  /** Decides how a process ends (process_end.ts). */
  doom: (process: Process, status: number) => void;
  /** signals.ts */
  sendSignal: (process: Process, signal: number, info: SigInfo) => void;
  enterSyscall: SyscallEntry;
  nrSyscalls: number;
  nrOopses: number;
}
