/**
 * Events of an strace recording: whole calls become rows, pids become tasks.
 *
 * Owns who is who. A pid is a task from the call that made it until it has ended; used again it is another task. What
 * the recording leaves out is put in, and counted as implied:
 *
 *   a pid that nobody made (strace -p)       a fork by the oldest living process, when it is first heard of
 *   a process that ran on at the end         an exit after everything else, the youngest first
 *   `+++ exited` without a call of exit      the exit
 *
 * A child may be heard of before the call that made it (the tracer is told of both, in any order): its calls wait for
 * it. Calls of a task that has ended, and calls of our kind with arguments that cannot be, are dropped and reported.
 *
 *   SYR-1  every column has nrEvents rows, addresses and sizes are integers in [0, 2^53)
 *   SYR-2  task 0 makes the first call; every other task is the child of one earlier row, and calls only after it
 *   SYR-3  a task that has ended calls nothing more; every process ends, by one row of exit_group or a signal
 *   SYR-4  who is reaped has ended, and is reaped once
 */

import {
  type RecordedTask,
  SC_BRK,
  SC_EXECVE,
  SC_EXIT,
  SC_EXIT_GROUP,
  SC_FORK,
  SC_KILL,
  SC_KILLED,
  SC_MADVISE,
  SC_MLOCK,
  SC_MLOCKALL,
  SC_MMAP,
  SC_MPROTECT,
  SC_MREMAP,
  SC_MUNLOCK,
  SC_MUNLOCKALL,
  SC_MUNMAP,
  SC_NOBODY,
  SC_THREAD,
  SC_VFORK,
  SC_WAIT,
  type SyscallRecording,
} from "../../kernel/uapi/recording.ts";
import {
  flagsOf,
  MADV_WORDS,
  MAP_WORDS,
  MCL_WORDS,
  MREMAP_WORDS,
  numberOf,
  PROT_WORDS,
  signalOf,
  WAIT_WORDS,
} from "./strace_words.ts";

/** A whole call. */
export interface RecordedCall {
  /** Line at which it took effect. */
  readonly line: number;
  readonly pid: number;
  /** Name of the call; `+exited` and `+killed` for ends. */
  readonly name: string;
  readonly args: readonly string[];
  /** ≥ 0 or −errno; NaN where there is none (exit_group). */
  readonly result: number;
}

/** A row before it goes into the columns; what is left out is 0 or nobody. */
interface Row {
  readonly call: number;
  readonly addr?: number;
  readonly bytes?: number;
  readonly extra?: number;
  readonly arg?: number;
  readonly flags?: number;
  readonly fd?: number;
  readonly target?: number;
  readonly child?: number;
  readonly nameIndex?: number;
  readonly result?: number;
}

interface TaskState {
  readonly leader: number;
  hasEnded: boolean;
  isReaped: boolean;
}

const FORKS = /^(?:v?fork|clone3?)$/;
const MAX_TASKS = 65_536;
/** A command as the kernel keeps it. */
const MAX_COMM = 15;

/** Turns whole calls into the columns of a recording. */
export class EventBuilder {
  readonly #calls: readonly RecordedCall[];
  readonly #badOp: (line: number, what: string) => void;
  readonly #rows: (Row & { readonly task: number })[] = [];
  readonly #tasks: RecordedTask[] = [];
  readonly #states: TaskState[] = [];
  readonly #names: string[] = [];
  readonly #taskOf = new Map<number, number>();
  /** Pids that a later call will make: how many times. */
  readonly #toCome = new Map<number, number>();
  /** Calls of pids that are not made yet. */
  readonly #early = new Map<number, RecordedCall[]>();
  #nrImplied = 0;
  #nrAdopted = 0;
  #nrRanOn = 0;

  constructor(calls: readonly RecordedCall[], badOp: (line: number, what: string) => void) {
    this.#calls = calls;
    this.#badOp = badOp;
  }

  build(): Omit<SyscallRecording, "name" | "warnings"> {
    for (const { name, result } of this.#calls) {
      if (FORKS.test(name) && result > 0) this.#toCome.set(result, (this.#toCome.get(result) ?? 0) + 1);
    }
    for (const call of this.#calls) this.#take(call);
    // Whose maker never came after all: its calls are late, but they are not lost.
    for (const [pid, calls] of this.#early) {
      this.#toCome.delete(pid);
      for (const call of calls) this.#take(call);
    }
    for (let i = this.#tasks.length - 1; i >= 0; i--) {
      if (this.#tasks[i]?.leader !== i || this.#states[i]?.hasEnded === true) continue;
      this.#nrRanOn++;
      this.#nrImplied++;
      this.#end(i, { call: SC_EXIT_GROUP });
    }
    return this.#columns();
  }

  warnings(): string[] {
    const lines: string[] = [];
    const say = (nr: number, what: string): void => {
      if (nr > 0) lines.push(`${nr} ${what}`);
    };
    say(this.#nrAdopted, "processes that were running already: forked off the oldest one");
    say(this.#nrRanOn, "processes ran on at the end of the recording: they exit there");
    return lines;
  }

  #columns(): Omit<SyscallRecording, "name" | "warnings"> {
    const rows = this.#rows;
    const int32 = (of: (row: Row & { readonly task: number }) => number): Int32Array => Int32Array.from(rows, of);
    const float64 = (of: (row: Row) => number): Float64Array => Float64Array.from(rows, of);
    return {
      kind: "syscall",
      nrEvents: rows.length,
      tasks: this.#tasks,
      call: Uint8Array.from(rows, ({ call }) => call),
      task: int32(({ task }) => task),
      addr: float64(({ addr }) => addr ?? 0),
      bytes: float64(({ bytes }) => bytes ?? 0),
      extra: float64(({ extra }) => extra ?? 0),
      arg: int32(({ arg }) => arg ?? 0),
      flags: int32(({ flags }) => flags ?? 0),
      fd: int32(({ fd }) => fd ?? -1),
      target: int32(({ target }) => target ?? SC_NOBODY),
      child: int32(({ child }) => child ?? SC_NOBODY),
      nameIndex: int32(({ nameIndex }) => nameIndex ?? 0),
      names: this.#names,
      result: float64(({ result }) => result ?? 0),
      nrImplied: this.#nrImplied,
    };
  }

  // ── Tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #newTask(pid: number, leader?: number): number {
    const index = this.#tasks.length;
    this.#tasks.push({ pid, leader: leader ?? index });
    this.#states.push({ leader: leader ?? index, hasEnded: false, isReaped: false });
    this.#taskOf.set(pid, index);
    return index;
  }

  #isAlive(task: number): boolean {
    return this.#states[task]?.hasEnded === false;
  }

  #take(call: RecordedCall): void {
    const { pid, line } = call;
    let task = this.#taskOf.get(pid);
    if (task === undefined || (!this.#isAlive(task) && !call.name.startsWith("+"))) {
      if ((this.#toCome.get(pid) ?? 0) > 0 && this.#tasks.length > 0) {
        const waiting = this.#early.get(pid);
        if (waiting === undefined) this.#early.set(pid, [call]);
        else waiting.push(call);
        return;
      }
      if (task !== undefined) {
        this.#badOp(line, `process ${pid} has ended`);
        return;
      }
      task = this.#adopt(call);
      if (task === undefined) return;
    }
    this.#perform(call, task);
  }

  /** A pid that nobody made: the first of all, or one that ran already. */
  #adopt({ pid, line, name }: RecordedCall): number | undefined {
    // The end of somebody of whom nothing else is known.
    if (name.startsWith("+")) return undefined;
    if (this.#tasks.length === 0) return this.#newTask(pid);
    const parent = this.#states.findIndex(({ hasEnded, leader }, i) => !hasEnded && leader === i);
    if (parent < 0 || this.#tasks.length >= MAX_TASKS) {
      this.#badOp(line, `process ${pid} comes from nowhere`);
      return undefined;
    }
    const task = this.#newTask(pid);
    this.#rows.push({ task: parent, call: SC_FORK, child: task });
    this.#nrImplied++;
    this.#nrAdopted++;
    return task;
  }

  /** `task` ends by `row`; with it, for all but SC_EXIT, its whole process. */
  #end(task: number, row: Row): void {
    this.#rows.push({ ...row, task });
    const state = this.#states[task] as TaskState;
    state.hasEnded = true;
    if (row.call === SC_EXIT) return;
    for (const other of this.#states) if (other.leader === state.leader) other.hasEnded = true;
  }

  /** Threads of `task`'s process that live, itself not counted. */
  #nrOthers(task: number): number {
    const leader = this.#states[task]?.leader;
    return this.#states.filter((other, i) => other.leader === leader && i !== task && !other.hasEnded).length;
  }

  // ── Calls ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #perform(call: RecordedCall, task: number): void {
    const { name, args } = call;
    if (name === "+exited" || name === "+killed") this.#gone(call, task);
    else if (/^_?exit(?:_group)?$/.test(name)) this.#exit(task, name === "exit", numberOf(args[0]));
    else if (FORKS.test(name)) this.#fork(call, task);
    else this.#plain(call, task);
  }

  /** A call that makes and ends nobody. */
  #plain(call: RecordedCall, task: number): void {
    const { name, args, line, result } = call;
    const row = /^wait/.test(name)
      ? this.#waitRow(call)
      : name === "execve"
        ? this.#execRow(call)
        : name === "kill"
          ? this.#killRow(call)
          : memoryRow(name, args);
    if (row === undefined) return;
    const numbers = [row.addr, row.bytes, row.extra].filter((value) => value !== undefined);
    if (!numbers.every((value) => Number.isSafeInteger(value) && value >= 0) || Number.isNaN(row.arg)) {
      this.#badOp(line, `${name}(${args.join(", ").slice(0, 60)}) cannot be`);
      return;
    }
    // Without an answer nobody knows whether it was performed.
    if (Number.isNaN(result)) return;
    this.#rows.push({ ...row, task, result: name.startsWith("wait") && result > 0 ? 0 : result });
  }

  #exit(task: number, isThread: boolean, status: number): void {
    const arg = Number.isNaN(status) ? 0 : status & 0xff;
    // The first thread ends with the last one: here a process ends with its first.
    const isFirst = this.#states[task]?.leader === task;
    if (isThread && isFirst && this.#nrOthers(task) > 0) return;
    this.#end(task, { call: isThread && !isFirst ? SC_EXIT : SC_EXIT_GROUP, arg });
  }

  /** The tracer says that `task` is gone. */
  #gone({ name, pid, args }: RecordedCall, task: number): void {
    if (this.#isAlive(task)) {
      if (name === "+killed") this.#end(task, { call: SC_KILLED, arg: numberOf(args[0]) });
      else {
        this.#nrImplied++;
        this.#exit(task, this.#states[task]?.leader !== task, numberOf(args[0]));
      }
    }
    if (!this.#isAlive(task) && (this.#toCome.get(pid) ?? 0) > 0) this.#taskOf.delete(pid);
  }

  #fork({ name, args, result, line }: RecordedCall, task: number): void {
    const text = args.join(" ");
    const isThread = text.includes("CLONE_THREAD");
    const isVfork = name === "vfork" || text.includes("CLONE_VFORK");
    const call = isThread ? SC_THREAD : isVfork ? SC_VFORK : SC_FORK;
    if (!(result > 0)) {
      if (result < 0) this.#rows.push({ task, call, result });
      return;
    }
    const old = this.#taskOf.get(result);
    if ((old !== undefined && this.#isAlive(old)) || this.#tasks.length >= MAX_TASKS) {
      this.#badOp(line, `${name} makes process ${result}, which is there`);
      return;
    }
    this.#toCome.set(result, (this.#toCome.get(result) ?? 1) - 1);
    const child = this.#newTask(result, isThread ? this.#states[task]?.leader : undefined);
    this.#rows.push({ task, call, child });
    const early = this.#early.get(result) ?? [];
    this.#early.delete(result);
    for (const waiting of early) this.#take(waiting);
  }

  #waitRow(call: RecordedCall): Row | undefined {
    const wait = call.name === "waitid" ? waitidOf(call) : waitOf(call);
    if (wait === undefined) return undefined;
    const { asked, reaped, options } = wait;
    const target = asked > 0 ? (this.#taskOf.get(asked) ?? SC_NOBODY) : SC_NOBODY;
    const child = reaped > 0 ? this.#taskOf.get(reaped) : undefined;
    const state = child === undefined ? undefined : this.#states[child];
    if (reaped > 0 && (state === undefined || !state.hasEnded || state.isReaped)) return undefined;
    if (state !== undefined) state.isReaped = true;
    const arg = flagsOf(options, WAIT_WORDS);
    return { call: SC_WAIT, target, arg: Number.isNaN(arg) ? 0 : arg, ...(child === undefined ? {} : { child }) };
  }

  /** A signal to one process that is there; groups, and who is not recorded, are passed over. */
  #killRow({ args }: RecordedCall): Row | undefined {
    const target = this.#taskOf.get(numberOf(args[0]));
    if (target === undefined || !this.#isAlive(target) || this.#states[target]?.leader !== target) return undefined;
    const signal = args[1] ?? "";
    return { call: SC_KILL, target, arg: /^\d/.test(signal) ? numberOf(signal) : signalOf(signal) };
  }

  #execRow({ args }: RecordedCall): Row {
    const path = args[0] ?? "";
    const base =
      path
        .replace(/^"|"(?:\.\.\.)?$/g, "")
        .split("/")
        .pop() ?? "";
    const comm = base.replace(/[^\w.+-]/g, "_").slice(0, MAX_COMM) || "program";
    const known = this.#names.indexOf(comm);
    return { call: SC_EXECVE, nameIndex: known >= 0 ? known : this.#names.push(comm) - 1 };
  }
}

interface RecordedWait {
  /** Pids: the child that was asked for (not positive: any), and the one that was reaped (or not positive). */
  readonly asked: number;
  readonly reaped: number;
  readonly options: string | undefined;
}

const waitOf = ({ args, result }: RecordedCall): RecordedWait => ({
  asked: numberOf(args[0]),
  reaped: result,
  options: args[2],
});

/** `waitid(P_ALL, 0, {si_signo=SIGCHLD, …, si_pid=5, …}, WEXITED, NULL) = 0`; undefined if nobody's end is taken. */
function waitidOf({ args, result }: RecordedCall): RecordedWait | undefined {
  const [kind, id, info = "", options = ""] = args;
  if (!/\bWEXITED\b/.test(options) || /\bWNOWAIT\b/.test(options)) return undefined;
  const found = Number(/\bsi_pid=(\d+)/.exec(info)?.[1] ?? 0);
  const reaped = result === 0 ? found : result;
  const asked = kind === "P_PID" ? numberOf(id) : kind === "P_PIDFD" ? found : -1;
  return { asked, reaped, options };
}

/** The row of a call about memory; undefined for one that is not replayed. */
function memoryRow(name: string, args: readonly string[]): Row | undefined {
  const addr = numberOf(args[0]);
  const bytes = numberOf(args[1]);
  switch (name) {
    case "brk":
      return { call: SC_BRK, addr };
    case "mmap":
    case "mmap2": {
      const [, , prot, flags, fd, offset] = args;
      // The descriptor may have a path behind it: 3</lib/libc.so.6>.
      const nr = numberOf(fd?.replace(/<.*/, ""));
      const at = numberOf(offset);
      return {
        call: SC_MMAP,
        addr,
        bytes,
        extra: Number.isNaN(at) || at < 0 ? 0 : at,
        arg: flagsOf(prot, PROT_WORDS),
        flags: flagsOf(flags, MAP_WORDS),
        fd: Number.isNaN(nr) || nr < 0 ? -1 : Math.min(nr, 0xffff),
      };
    }
    case "munmap":
      return { call: SC_MUNMAP, addr, bytes };
    case "mprotect":
      return { call: SC_MPROTECT, addr, bytes, arg: flagsOf(args[2], PROT_WORDS) };
    case "mremap":
      return { call: SC_MREMAP, addr, bytes, extra: numberOf(args[2]), flags: flagsOf(args[3], MREMAP_WORDS) };
    case "madvise": {
      const advice = MADV_WORDS.get(args[2] ?? "");
      return advice === undefined ? undefined : { call: SC_MADVISE, addr, bytes, arg: advice };
    }
    case "mlock":
      return { call: SC_MLOCK, addr, bytes };
    case "mlock2":
      // Locked when touched: nothing that this kernel could do.
      return args[2] === "0" ? { call: SC_MLOCK, addr, bytes } : undefined;
    case "munlock":
      return { call: SC_MUNLOCK, addr, bytes };
    case "mlockall":
      return args[0]?.includes("MCL_ONFAULT") ? undefined : { call: SC_MLOCKALL, arg: flagsOf(args[0], MCL_WORDS) };
    case "munlockall":
      return { call: SC_MUNLOCKALL };
    default:
      return undefined;
  }
}
