/**
 * The beginning of threads and processes: spawn, fork, vfork, clone, and execve, which begins a program anew.
 *
 *   spawn    a child with a program, an address space and three files of its own choice (posix_spawn)
 *   fork     a child with a copy of everything: address space (copy on write), files, limits
 *   vfork    the same, but in its parent's address space; the parent sleeps until the child leaves it
 *   clone    a thread of the same process
 *   execve   the same process, with another program in a new address space
 *
 * A program is a generator, and a generator cannot be copied: the child of a fork goes on at a function, whose text
 * address the caller passes, instead of behind the call. The function sees the copied memory, and may use whatever the
 * program text around it could.
 *
 *   PRC-4  a start that fails leaves nothing behind: no page, no reference, no task
 *   PRC-5  an execve that fails leaves the old program and its memory as they were
 *   PRC-6  after execve the process has one thread, its pid, its files, its limits and its parent; that thread has the
 *          pid of the process, whichever called
 *   PRC-7  the parent of a vfork runs again when its child has ended or become another program, not before
 *   PRC-8  with RLIMIT_NPROC programs' threads or more there is no further one: −EAGAIN
 *
 * Where Linux differs: init cannot execve() (−EINVAL), and limits of processes bind root, too.
 */

import { MM_STACK_TOP } from "../../mm/index.ts";
import { PAGE_SIZE, USER_TEXT_BASE } from "../params.ts";
import type { Task } from "../task.ts";
import { PF_KTHREAD, setTaskComm, TASK_FLAGS, TASK_MM, taskComm } from "../task_struct.ts";
import { asPhys, asUser, type MaySleep, NULL, type PhysAddr, type Sleeping, type TaskContext } from "../types.ts";
import { E2BIG, EAGAIN, EINVAL, ENOENT, ENOMEM, ESRCH } from "../uapi/errno.ts";
import type { Program, ProgramEnv } from "../uapi/program.ts";
import { RLIMIT_NPROC } from "../uapi/resource.ts";
import { ADDR_NO_RANDOMIZE } from "../uapi/syscall.ts";
import { encodeUtf8 } from "../uapi/utf8.ts";
import { createJobControl } from "./job_control.ts";
import { type Caller, NR_OPEN, type Process, type Processes, type ProcessTable } from "./process.ts";
import { copyRlimits, softLimit } from "./rlimit.ts";
import { createProcessSignals, execSignals, forkSignals } from "./signal_state.ts";
import { createSignals, type Signals } from "./signals.ts";
import {
  createFaultHandler,
  createUserAccess,
  DyingSignal,
  FatalSignal,
  type MakeRoom,
  TaskMemory,
} from "./user_mode.ts";

/** Unwinds a thread whose process has become another program; like ExitRequest no Error. */
class NewProgram {
  readonly image: Image;
  constructor(image: Image) {
    this.image = image;
  }
}

/** What a thread runs, and the arguments that it finds on its stack. */
interface Image {
  readonly program: Program;
  readonly argc: number;
  readonly argv: number;
  /** Where frames of signals go, if not below argv; 0: a thread's. */
  readonly sp?: number;
}

/** A thread begins with an image, or with strings that have to be put on its stack first. */
type Beginning = Image | { readonly program: Program; readonly args: readonly string[] };

export interface ProcessStart extends Pick<Processes, "spawn" | "clone" | "fork" | "vfork" | "execve"> {
  readonly signals: Signals;
  /** NULL for a kernel thread. */
  addressSpaceOf(task: Task): PhysAddr;
}

/** Arguments may take a quarter of the stack that a new program has. */
const MAX_ARG_BYTES = 64 * 1024;

/** Writes the strings and the pointer array of argv below `stackTop`; returns the array's address. */
function pushArguments(memory: TaskMemory, stackTop: number, args: readonly string[]): number {
  let top = stackTop - 16;
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
}

const lastPart = (path: string): string => path.split("/").pop() as string;

export function createProcessStart(table: ProcessTable): ProcessStart {
  const { processes, hostContext, processOf, exitQueue } = table;
  const { machine, tasks, scheduler, waits, processMemory, programs } = table.deps;
  const { port, harts } = machine;

  const textAddress = (process: Process, fn: Program): number => {
    let index = process.text.indexOf(fn);
    if (index < 0) index = process.text.push(fn) - 1;
    return USER_TEXT_BASE + 16 * index;
  };
  const textAt = (process: Process, entry: number): Program | undefined => process.text[(entry - USER_TEXT_BASE) / 16];

  const makeRoom: MakeRoom = (ctx) => {
    const isRoom = table.deps.makeRoom(ctx);
    const task = scheduler.current(ctx.cpu);
    const ending = task === undefined ? undefined : processOf(task)?.ending;
    // Its memory is gone: it must not run on and find zeroes.
    if (ending !== undefined) throw new DyingSignal(ending & 0x7f);
    return isRoom;
  };
  const isFixed = ({ personality }: Pick<Process, "personality">): boolean => (personality & ADDR_NO_RANDOMIZE) !== 0;
  /** Where the arguments of a new program begin, downwards. */
  const argumentTop = (process: Pick<Process, "personality">, mm: PhysAddr): number =>
    processMemory.field(mm, MM_STACK_TOP) * PAGE_SIZE - processMemory.layout.drawStackOffset(isFixed(process));
  const faultDeps = { machine, processMemory, makeRoom, interruptPoint: table.deps.contexts.interruptPoint };
  const memoryOf = (ctx: TaskContext, mm: PhysAddr): TaskMemory =>
    new TaskMemory(machine, ctx, createFaultHandler(faultDeps, ctx, mm));

  const jobs = createJobControl(table);
  const signals = createSignals({
    machine,
    scheduler,
    jobs,
    doom: (process, status) => table.doom(process, status),
    enterSyscall: (caller, nr, args) => table.enterSyscall(caller, nr, args),
    codeOf(caller, handler, signal, frame) {
      const program = textAt(caller.process, handler);
      return program?.(environment({ ...caller, argc: signal, argv: frame }));
    },
    isMapped(process, va) {
      let isInside = false;
      processMemory.forEachVma(process.mm, (start, end) => {
        if (va >= start * PAGE_SIZE && va < end * PAGE_SIZE) isInside = true;
      });
      return isInside;
    },
  });

  /** The memory that a program sees: a fault may have a handler. What the kernel copies has none. */
  const programMemory = (ctx: TaskContext, mm: PhysAddr, caller: () => Caller): TaskMemory => {
    const fault = createFaultHandler(faultDeps, ctx, mm);
    return new TaskMemory(machine, ctx, (va, isWrite) => {
      for (let tries = 0; ; tries++) {
        try {
          return fault(va, isWrite);
        } catch (error) {
          if (!(error instanceof FatalSignal) || !signals.caught(caller(), error, va, tries)) throw error;
        }
      }
    });
  };

  // ── Threads ──────────────────────────────────────────────────────────────────────────────────────────────────────

  const environment = (caller: Caller): ProgramEnv => {
    const { process, memory, argc, argv } = caller;
    const { ctx } = caller.task;
    const { clock } = harts;
    const own = signals.of(caller.task);
    return {
      mem: memory,
      syscall(nr, a0 = 0, a1 = 0, a2 = 0, a3 = 0, a4 = 0, a5 = 0) {
        table.nrSyscalls++;
        own.isAtYield = false;
        const args = [a0, a1, a2, a3, a4, a5];
        return signals.afterCall(caller, nr, args, table.enterSyscall(caller, nr, args));
      },
      timeIsUp() {
        own.isAtYield = scheduler.timeIsUp(ctx.cpu);
        return own.isAtYield;
      },
      now: () => clock[ctx.cpu] as number,
      argc,
      argv: asUser(argv),
      entryOf: (fn) => asUser(textAddress(process, fn)),
      observer: process.observer,
    };
  };

  /** The code of one user thread: sets up its environment and runs the program in it, and the next after execve. */
  function* userThread(ctx: TaskContext, task: () => Task, beginning: Beginning): Sleeping<number> {
    const process = processOf(task()) as Process;
    let memory = memoryOf(ctx, process.mm);
    let image: Image =
      "argc" in beginning
        ? beginning
        : {
            program: beginning.program,
            argc: beginning.args.length,
            argv:
              beginning.args.length === 0 ? 0 : pushArguments(memory, argumentTop(process, process.mm), beginning.args),
          };
    for (;;) {
      const { program, argc, argv } = image;
      const own = task();
      const caller: Caller = {
        ...{ task: own, process, argc, argv, user: createUserAccess(memory) },
        memory: programMemory(ctx, process.mm, () => caller),
      };
      signals.useStack(process, own, image.sp ?? (argv || processMemory.field(process.mm, MM_STACK_TOP) * PAGE_SIZE));
      try {
        yield* jobs.park(caller);
        return yield* signals.drive(caller, program(environment(caller)));
      } catch (error) {
        if (!(error instanceof NewProgram)) throw error;
        image = error.image;
        memory = memoryOf(ctx, process.mm);
      }
    }
  }

  /** A task of `process`, which is a new one if it has no pid yet; not started. */
  const addThread = (process: Omit<Process, "pid"> & { pid: number }, comm: string, beginning: Beginning) => {
    let task: Task | undefined;
    task = tasks.create(hostContext(), {
      comm,
      ...(process.pid === 0 ? {} : { tgid: process.pid }),
      parent: tasks.get(process.parent)?.struct ?? NULL,
      flags: 0,
      body: (ctx) => userThread(ctx, () => task as Task, beginning),
    });
    if (task !== undefined) port.st32(task.struct + TASK_MM, process.mm / 8);
    return task;
  };

  /** PRC-8 */
  const mayAddThread = ({ rlimits }: Pick<Process, "rlimits">): boolean => {
    const limit = softLimit(rlimits, RLIMIT_NPROC);
    if (limit === Number.POSITIVE_INFINITY) return true;
    return tasks.all().filter(({ struct }) => (port.ld32(struct + TASK_FLAGS) & PF_KTHREAD) === 0).length < limit;
  };

  /** A process with one thread, running; undefined without memory for its task. */
  const begin = (shell: Omit<Process, "pid">, comm: string, beginning: Beginning): Process | undefined => {
    const task = addThread({ ...shell, pid: 0 }, comm, beginning);
    if (task === undefined) return undefined;
    const process: Process = { ...shell, pid: task.pid };
    process.threads.set(task.pid, task);
    processes.set(task.pid, process);
    scheduler.wake(task);
    return process;
  };

  const spawn: Processes["spawn"] = (parent, path, args, fds, more = {}) => {
    const program = programs.get(path);
    if (program === undefined) return -ENOENT;
    const rlimits = copyRlimits(more.rlimits ?? table.deps.rlimits);
    if (!mayAddThread({ rlimits })) return -EAGAIN;
    const ctx = hostContext();
    const personality = processes.get(parent)?.personality ?? 0;
    const mm = processMemory.createMm(ctx, isFixed({ personality }));
    if (mm === NULL) return -ENOMEM;
    const signalsOfChild = forkSignals(processes.get(parent)?.signals ?? createProcessSignals());
    execSignals(signalsOfChild);
    const shell: Omit<Process, "pid"> = {
      mm,
      fds: Array.from({ length: NR_OPEN }, (_, i) => fds[i]),
      parent,
      cwd: processes.get(parent)?.cwd ?? "/",
      // Started by nobody: a program that starts another one has made an ordinary process.
      isInit: path === "/sbin/init" && parent === 0,
      observer: more.observer,
      threads: new Map(),
      joinable: new Map(),
      text: [program],
      rlimits,
      oomScoreAdj: more.oomScoreAdj ?? 0,
      personality,
      signals: signalsOfChild,
      isVforked: false,
      survivor: undefined,
      ending: undefined,
      status: undefined,
    };
    const process = begin(shell, more.comm ?? lastPart(path), { program, args });
    if (process !== undefined) return process.pid;
    processMemory.mmPut(ctx, mm);
    return -ENOMEM;
  };

  const clone: Processes["clone"] = (caller, entry, arg) => {
    const { process } = caller;
    const program = textAt(process, entry);
    if (program === undefined) return -ESRCH;
    if (process.ending !== undefined || !mayAddThread(process)) return -EAGAIN;
    const comm = taskComm(port, caller.task.struct);
    // In the register in which a program finds its argv: below the stack's top lie the strings of the first thread.
    const task = addThread(process, comm, { program, argc: 0, argv: arg, sp: 0 });
    if (task === undefined) return -ENOMEM;
    signals.begin(task, signals.of(caller.task).blocked);
    processMemory.mmGet(process.mm);
    process.threads.set(task.pid, task);
    scheduler.wake(task);
    return task.pid;
  };

  // ── fork ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The child, running, or −errno. */
  const forkChild = (caller: Caller, entry: number, isVforked: boolean): Process | number => {
    const { process, argc, argv } = caller;
    const program = textAt(process, entry);
    if (program === undefined) return -ESRCH;
    if (process.ending !== undefined || !mayAddThread(process)) return -EAGAIN;
    const ctx = caller.task.ctx;
    const mm = isVforked ? process.mm : processMemory.fork(ctx, process.mm);
    if (mm === NULL) return -ENOMEM;
    if (isVforked) processMemory.mmGet(mm);
    const shell: Omit<Process, "pid"> = {
      ...process,
      mm,
      fds: [...process.fds],
      parent: process.pid,
      isInit: false,
      threads: new Map(),
      joinable: new Map(),
      // The same text: an address means the same function on both sides.
      text: isVforked ? process.text : [...process.text],
      rlimits: copyRlimits(process.rlimits),
      signals: forkSignals(process.signals),
      isVforked,
      survivor: undefined,
    };
    const { sp, blocked } = signals.of(caller.task);
    const child = begin(shell, taskComm(port, caller.task.struct), { program, argc, argv, sp });
    if (child === undefined) {
      processMemory.mmPut(ctx, mm);
      return -ENOMEM;
    }
    signals.begin(child.threads.get(child.pid) as Task, blocked);
    for (const file of child.fds) if (file !== undefined) file.refs++;
    return child;
  };

  /** PRC-7 */
  function* untilReleased(caller: Caller, child: Process): Sleeping<number> {
    while (child.isVforked && child.threads.size > 0) yield* waits.waitOn(exitQueue, caller.task);
    return child.pid;
  }

  const vfork: Processes["vfork"] = (caller, entry) => {
    const child = forkChild(caller, entry, true);
    return typeof child === "number" ? child : untilReleased(caller, child);
  };

  // ── execve ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A new address space with `args` on its stack, active on this CPU; −errno, and the old one is. */
  const newImage = (caller: Caller, program: Program, args: readonly string[]): (Image & { mm: PhysAddr }) | number => {
    const { ctx } = caller.task;
    const mm = processMemory.createMm(ctx, isFixed(caller.process));
    if (mm === NULL) return -ENOMEM;
    processMemory.activate(ctx.cpu, mm);
    try {
      const argv = args.length === 0 ? 0 : pushArguments(memoryOf(ctx, mm), argumentTop(caller.process, mm), args);
      return { program, argc: args.length, argv, mm };
    } catch (error) {
      // PRC-5: no page for the arguments.
      processMemory.activate(ctx.cpu, caller.process.mm);
      processMemory.mmPut(ctx, mm);
      if (error instanceof FatalSignal) return -ENOMEM;
      throw error;
    }
  };

  const becomeProgram = (caller: Caller, path: string, args: readonly string[]): number => {
    const { process, task } = caller;
    const program = programs.get(path);
    if (program === undefined) return -ENOENT;
    const image = newImage(caller, program, args);
    if (typeof image === "number") return image;
    const old = process.mm;
    process.mm = image.mm;
    process.text = [program];
    process.joinable.clear();
    process.survivor = undefined;
    execSignals(process.signals);
    port.st32(task.struct + TASK_MM, image.mm / 8);
    setTaskComm(port, task.struct, lastPart(path));
    processMemory.mmPut(task.ctx, old);
    if (process.isVforked) {
      process.isVforked = false;
      waits.wakeUp(exitQueue);
    }
    throw new NewProgram(image);
  };

  /** Ends all other threads, then goes on. */
  function* aloneThen(caller: Caller, path: string, args: readonly string[]): Sleeping<number> {
    const { process, task } = caller;
    process.survivor = task;
    for (const thread of process.threads.values()) if (thread !== task) scheduler.wake(thread);
    while (process.threads.size > 1) yield* waits.waitOn(exitQueue, task);
    const leader = tasks.get(process.pid) as Task;
    if (leader !== task) {
      process.threads.delete(task.pid);
      tasks.takePid(task.ctx, task, leader);
      process.threads.set(task.pid, task);
    }
    const result = becomeProgram(caller, path, args);
    process.survivor = undefined;
    return result;
  }

  const execve = (caller: Caller, path: string, args: readonly string[]): MaySleep<number> => {
    const { process } = caller;
    if (!programs.has(path)) return -ENOENT;
    if (args.reduce((sum, arg) => sum + encodeUtf8(arg).length + 9, 0) > MAX_ARG_BYTES) return -E2BIG;
    if (process.isInit) return -EINVAL;
    return process.threads.size > 1 ? aloneThen(caller, path, args) : becomeProgram(caller, path, args);
  };

  return {
    signals,
    spawn,
    clone,
    fork(caller, entry) {
      const child = forkChild(caller, entry, false);
      return typeof child === "number" ? child : child.pid;
    },
    vfork,
    execve,
    addressSpaceOf: (task) => asPhys(port.ld32(task.struct + TASK_MM) * 8),
  };
}
