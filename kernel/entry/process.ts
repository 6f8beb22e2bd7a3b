/**
 * Processes: an address space, open files and one or more threads, from spawn to wait.
 *
 *   spawn ─▶ [ threads run ] ─▶ last thread ends ─▶ zombie ─▶ parent waits ─▶ gone
 *              clone ↑ exit            memory and files go here      task_struct goes here
 *
 * There is no fork yet: a child starts with a program of its own (posix_spawn). A thread is a task with the same tgid
 * and address space. Exit status and fatal signal are encoded as wait4 reports them: `status << 8 | signal`.
 *
 *   PRC-1  an address space has as many users as its process has threads
 *   PRC-2  a process without threads is a zombie or has been waited for
 *   PRC-3  orphans are children of init; without an init they vanish at exit
 */

import { OOM_KILL, type ProcessMemory, type VmStat } from "../../mm/index.ts";
import type { Machine } from "../arch/machine.ts";
import { BadAccess } from "../arch/port.ts";
import { KernelBug } from "../bug.ts";
import type { ContextTracking } from "../context.ts";
import type { OpenFile } from "../file.ts";
import type { Mutexes } from "../mutex.ts";
import { USER_STACK_TOP, USER_TEXT_BASE } from "../params.ts";
import { KERN_ALERT, KERN_INFO, type Printk } from "../printk.ts";
import type { Scheduler } from "../sched.ts";
import type { Task, Tasks } from "../task.ts";
import { setTaskComm, TASK_DEAD, TASK_MM, TASK_STATE, TASK_TGID, taskComm } from "../task_struct.ts";
import { asUser, type MaySleep, NULL, type PhysAddr, type Sleeping, type TaskContext } from "../types.ts";
import { EAGAIN, ECHILD, ENOENT, ENOMEM, ESRCH } from "../uapi/errno.ts";
import { SIGKILL, WNOHANG } from "../uapi/mman.ts";
import type { Program, ProgramEnv, ProgramObserver } from "../uapi/program.ts";
import { encodeUtf8 } from "../uapi/utf8.ts";
import type { WaitQueues } from "../wait.ts";
import { createFaultHandler, createUserAccess, FatalSignal, TaskMemory, type UserAccess } from "./user_mode.ts";

export const NR_OPEN = 64;

export interface Process {
  readonly pid: number;
  readonly mm: PhysAddr;
  readonly fds: (OpenFile | undefined)[];
  parent: number;
  readonly observer: ProgramObserver | undefined;
  /** True for the process that must not end: pid 1 running /sbin/init. */
  readonly isInit: boolean;
  /** Live threads by tid. */
  readonly threads: Map<number, Task>;
  /** Exit statuses of threads that ended, until joined. */
  readonly joinable: Map<number, number>;
  /** Functions that were given a text address, by index. */
  readonly text: Program[];
  /** Set when exit_group or a fatal signal has decided how the process ends. */
  ending: number | undefined;
  /** wait4's word, once no thread is left. */
  status: number | undefined;
}

/** What a system call knows about its caller. */
export interface Caller {
  readonly task: Task;
  readonly process: Process;
  readonly memory: TaskMemory;
  readonly user: UserAccess;
}

/** Unwinds a thread that called exit. */
export class ExitRequest extends Error {
  readonly status: number;
  constructor(status: number) {
    super("exit");
    this.name = "ExitRequest";
    this.status = status;
  }
}

export type SyscallEntry = (caller: Caller, nr: number, args: readonly number[]) => MaySleep<number>;

export interface Processes {
  /** pid, or −errno. `args` is argv, the name first. Takes over one reference of each file. */
  spawn(parent: number, path: string, args: readonly string[], fds: readonly OpenFile[], more?: SpawnMore): number;
  /** tid, or −errno. */
  clone(caller: Caller, entry: number, arg: number): number;
  wait(caller: Caller, pid: number, options: number): Sleeping<{ pid: number; status: number }>;
  joinThread(caller: Caller, tid: number): Sleeping<number>;
  /** Sends a signal that kills: 0 or −ESRCH. */
  kill(pid: number, signal: number): number;
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
  readonly onPanic: (reason: string) => void;
}

const closeAll = (process: Process): void => {
  for (let fd = 0; fd < process.fds.length; fd++) {
    const file = process.fds[fd];
    if (file !== undefined && --file.refs === 0) file.release();
    process.fds[fd] = undefined;
  }
};

export function createProcesses(deps: ProcessDeps): Processes {
  const { machine, contexts, printk, tasks, scheduler, waits, processMemory, programs, queues } = deps;
  const { port, harts } = machine;
  const exitQueue = queues;
  waits.init(exitQueue);
  const processes = new Map<number, Process>();
  const finalStatus = new Map<number, number>();
  let enterSyscall: SyscallEntry = () => -ENOMEM;
  let nrOopses = 0;
  let nrSyscalls = 0;

  const hostContext = (): TaskContext => contexts.taskContext(harts.current[0] as number);
  const processOf = (task: Task): Process | undefined => processes.get(port.ld32(task.struct + TASK_TGID));

  // ── Starting ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Writes the strings and the pointer array of argv below the stack top; returns the array's address. */
  const pushArguments = (memory: TaskMemory, args: readonly string[]): number => {
    let top = USER_STACK_TOP - 16;
    const pointers = args.map((arg) => {
      const bytes = encodeUtf8(`${arg}\0`);
      top -= bytes.length;
      memory.write(top, bytes);
      return top;
    });
    const array = Math.floor((top - (pointers.length + 1) * 8) / 16) * 16;
    pointers.forEach((pointer, i) => {
      memory.st32(array + i * 8, pointer % 2 ** 32);
      memory.st32(array + i * 8 + 4, Math.floor(pointer / 2 ** 32));
    });
    return array;
  };

  const textAddress = (process: Process, fn: Program): number => {
    let index = process.text.indexOf(fn);
    if (index < 0) index = process.text.push(fn) - 1;
    return USER_TEXT_BASE + 16 * index;
  };

  /** The code of one user thread: sets up its environment, then runs the program in it. */
  function* userThread(
    ctx: TaskContext,
    pid: () => number,
    process: () => Process,
    program: Program,
    args: readonly string[],
  ): Sleeping<number> {
    const owner = process();
    const memory = new TaskMemory(machine, ctx, createFaultHandler(machine, processMemory, ctx, owner.mm));
    const task = tasks.get(pid()) as Task;
    const caller: Caller = { task, process: owner, memory, user: createUserAccess(memory) };
    const argv = args.length === 0 ? 0 : pushArguments(memory, args);
    const { clock } = harts;
    const env: ProgramEnv = {
      mem: memory,
      syscall(nr, a0 = 0, a1 = 0, a2 = 0, a3 = 0, a4 = 0, a5 = 0) {
        nrSyscalls++;
        return enterSyscall(caller, nr, [a0, a1, a2, a3, a4, a5]);
      },
      timeIsUp: () => scheduler.timeIsUp(ctx.cpu),
      now: () => clock[ctx.cpu] as number,
      argc: args.length,
      argv: asUser(argv),
      entryOf: (fn) => asUser(textAddress(owner, fn)),
      observer: owner.observer,
    };
    return yield* program(env);
  }

  const addThread = (process: Process, comm: string, program: Program, args: readonly string[]): Task | undefined => {
    const ctx = hostContext();
    let task: Task | undefined;
    task = tasks.create(ctx, {
      comm,
      ...(process.pid === 0 ? {} : { tgid: process.pid }),
      parent: tasks.get(process.parent)?.struct ?? NULL,
      flags: 0,
      body: (taskCtx) =>
        userThread(
          taskCtx,
          () => (task as Task).pid,
          () => processOf(task as Task) as Process,
          program,
          args,
        ),
    });
    if (task === undefined) return undefined;
    port.st32(task.struct + TASK_MM, process.mm / 8);
    return task;
  };

  const spawn: Processes["spawn"] = (parent, path, args, fds, more = {}) => {
    const program = programs.get(path);
    if (program === undefined) return -ENOENT;
    const ctx = hostContext();
    const mm = processMemory.createMm(ctx);
    if (mm === NULL) return -ENOMEM;
    const shell: Omit<Process, "pid"> = {
      mm,
      fds: Array.from({ length: NR_OPEN }, (_, i) => fds[i]),
      parent,
      // Started by nobody: a program that starts another one has made an ordinary process.
      isInit: path === "/sbin/init" && parent === 0,
      observer: more.observer,
      threads: new Map(),
      joinable: new Map(),
      text: [program],
      ending: undefined,
      status: undefined,
    };
    const comm = more.comm ?? (path.split("/").pop() as string);
    const task = addThread({ ...shell, pid: 0 }, comm, program, args);
    if (task === undefined) {
      processMemory.mmPut(ctx, mm);
      return -ENOMEM;
    }
    const process: Process = { ...shell, pid: task.pid };
    process.threads.set(task.pid, task);
    processes.set(task.pid, process);
    scheduler.wake(task);
    return task.pid;
  };

  // ── Ending ───────────────────────────────────────────────────────────────────────────────────────────────────────

  const oops = (task: Task, error: Error): void => {
    nrOopses++;
    const ctx = hostContext();
    contexts.taint("D");
    printk(KERN_ALERT, `kernel BUG: ${error.message}`);
    printk(KERN_ALERT, `Oops: invalid opcode: 0000 [#${nrOopses}] in ${taskComm(port, task.struct)}/${task.pid}`);
    printk(KERN_ALERT, contexts.stackDump(ctx, error));
    printk(KERN_ALERT, `---[ end trace 0000000000000000 ]---`);
  };

  /** wait4's word for how a thread's code ended; anything that is not of this machine is thrown on to the host. */
  const statusOf = (task: Task, status: number, error: unknown): number => {
    if (error === undefined) return (status & 0xff) << 8;
    if (error instanceof ExitRequest) return (error.status & 0xff) << 8;
    if (error instanceof FatalSignal) {
      if (error.isOutOfMemory) deps.vmstat.countEvents(hostContext(), OOM_KILL, 1);
      if (error.message !== "") printk(KERN_INFO, `${taskComm(port, task.struct)}[${task.pid}]: ${error.message}`);
      return error.signal;
    }
    if (error instanceof KernelBug || error instanceof BadAccess) {
      oops(task, error);
      return SIGKILL;
    }
    throw error;
  };

  const doom = (process: Process, status: number): void => {
    process.ending ??= status;
    for (const thread of process.threads.values()) scheduler.wake(thread);
  };

  const becomeZombie = (process: Process): void => {
    process.status = process.ending as number;
    finalStatus.set(process.pid, process.status);
    closeAll(process);
    for (const child of processes.values()) {
      if (child.parent !== process.pid) continue;
      child.parent = !process.isInit && processes.get(1)?.isInit === true ? 1 : 0;
      if (child.parent === 0 && child.status !== undefined) reap(child);
    }
    if (process.isInit) deps.onPanic("Attempted to kill init!");
    if (process.parent === 0) reap(process);
    waits.wakeUp(exitQueue);
  };

  const reap = (process: Process): void => {
    const task = tasks.get(process.pid);
    if (task !== undefined) tasks.release(hostContext(), task);
    processes.delete(process.pid);
  };

  const threadEnded = (task: Task, code: number, error: unknown): void => {
    const status = statusOf(task, code, error);
    const process = processOf(task);
    const ctx = hostContext();
    deps.mutexes.taskEnds(task);
    processMemory.activate(ctx.cpu, NULL);
    port.st32(task.struct + TASK_STATE, TASK_DEAD);
    if (process === undefined) {
      finalStatus.set(task.pid, status);
      tasks.release(ctx, task);
      return;
    }
    const isMain = task.pid === process.pid;
    process.threads.delete(task.pid);
    const endsAll = isMain || error instanceof FatalSignal || (status & 0x7f) !== 0;
    if (endsAll) doom(process, status);
    port.st32(task.struct + TASK_MM, 0);
    processMemory.mmPut(ctx, process.mm);
    if (!isMain) {
      process.joinable.set(task.pid, status >>> 8);
      tasks.release(ctx, task);
      waits.wakeUp(exitQueue);
    }
    if (process.threads.size === 0) {
      process.ending ??= status;
      becomeZombie(process);
    }
  };

  scheduler.onEnd(threadEnded);
  scheduler.onResume((task) => {
    const ending = processOf(task)?.ending;
    return ending === undefined ? undefined : new FatalSignal(ending & 0x7f, "");
  });
  scheduler.onSwitch((task, cpu) => {
    processMemory.activate(cpu, (port.ld32(task.struct + TASK_MM) * 8) as PhysAddr);
  });

  return {
    spawn,
    clone(caller, entry, arg) {
      const { process } = caller;
      const index = (entry - USER_TEXT_BASE) / 16;
      const program = process.text[index];
      if (program === undefined) return -ESRCH;
      if (process.ending !== undefined) return -EAGAIN;
      const comm = taskComm(port, caller.task.struct);
      const task = addThread(process, comm, program, arg === 0 ? [] : [String(arg)]);
      if (task === undefined) return -ENOMEM;
      setTaskComm(port, task.struct, comm);
      processMemory.mmGet(process.mm);
      process.threads.set(task.pid, task);
      scheduler.wake(task);
      return task.pid;
    },
    *wait(caller, pid, options) {
      for (;;) {
        let hasChild = false;
        for (const child of processes.values()) {
          if (child.parent !== caller.process.pid || (pid > 0 && child.pid !== pid)) continue;
          hasChild = true;
          if (child.status === undefined) continue;
          const result = { pid: child.pid, status: child.status };
          reap(child);
          return result;
        }
        if (!hasChild) return { pid: -ECHILD, status: 0 };
        if ((options & WNOHANG) !== 0) return { pid: 0, status: 0 };
        yield* waits.waitOn(exitQueue, caller.task);
      }
    },
    *joinThread(caller, tid) {
      const { process } = caller;
      while (process.threads.has(tid) && tid !== caller.task.pid) yield* waits.waitOn(exitQueue, caller.task);
      const status = process.joinable.get(tid);
      process.joinable.delete(tid);
      return status ?? -ESRCH;
    },
    kill(pid, signal) {
      const process = processes.get(pid);
      if (process === undefined || process.status !== undefined) return -ESRCH;
      // init takes no signal that it has no handler for, and it has none.
      if (signal !== 0 && !process.isInit) doom(process, signal);
      return 0;
    },
    get: (pid) => processes.get(pid),
    all: () => [...processes.values()],
    exitStatus(pid) {
      const status = finalStatus.get(pid);
      if (status === undefined) return undefined;
      return (status & 0x7f) !== 0 ? 128 + (status & 0x7f) : status >>> 8;
    },
    setSyscallEntry(entry) {
      enterSyscall = entry;
    },
    nrOopses: () => nrOopses,
    nrSyscalls: () => nrSyscalls,
  };
}
