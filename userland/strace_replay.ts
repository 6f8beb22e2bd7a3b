/**
 * Syscall replay: every process of a recording is a process here, and makes the recorded calls in recorded order.
 *
 *     process 0   rows 0 … 41, forks 1 ─┐ await(57)                 ┌─ rows 57 …
 *     process 1                         └─ rows 42 … 56, advance(57) ┘
 *
 * Whose turn it is says one cursor into the recording. Whoever has done a row and is not to do the next one advances an
 * eventcount to the number of that row; everybody else sleeps until it has reached a row of theirs. The eventcount is a
 * descriptor that the first process opens, fork hands on and execve keeps: the order costs system calls and context
 * switches of this kernel, and no more. (Where there is none, processes wait by yielding.)
 *
 * fork, vfork, threads, execve, exit, wait and signals are this kernel's own: a process image is really replaced, a
 * parent really reaps. A program that is executed is this one again, under the recorded name; which part it plays it
 * knows by its pid. Calls about memory are strace_memory.ts's.
 *
 * Each result is compared with the recorded one: both succeed, or both fail with the same errno; a wait reaps the same
 * child. Differences are counted and the first is kept. When a process is killed on the way, its rows and those of
 * processes that it would have made are passed over, and the others go on: who waits looks now and then whether the
 * one whose turn it is still lives.
 *
 * After a fork the child writes into a part of the pages that it shares with its parent. Both check all of theirs
 * before they end or become another program (copy on write keeps them apart, or a stamp is wrong).
 *
 * Exit status of a process: the recorded one.
 */

import { BLOCKED, PREEMPTED, type Sleeping } from "../kernel/types.ts";
import { errnoName } from "../kernel/uapi/errno.ts";
import { MAP_PRIVATE, O_CREAT, O_RDWR, O_TRUNC, PROT_READ, SEEK_SET, WNOHANG } from "../kernel/uapi/mman.ts";
import type { Program, ProgramEnv } from "../kernel/uapi/program.ts";
import {
  SC_BRK,
  SC_EXECVE,
  SC_EXIT,
  SC_EXIT_GROUP,
  SC_FORK,
  SC_KILL,
  SC_KILLED,
  SC_MLOCK,
  SC_MMAP,
  SC_MREMAP,
  SC_MUNLOCKALL,
  SC_NOBODY,
  SC_THREAD,
  SC_VFORK,
  SC_WAIT,
  type SyscallRecording,
} from "../kernel/uapi/recording.ts";
import {
  SYS_clone,
  SYS_eventcount,
  SYS_execve,
  SYS_exit,
  SYS_exit_group,
  SYS_fork,
  SYS_getpid,
  SYS_kill,
  SYS_lseek,
  SYS_mmap,
  SYS_munmap,
  SYS_vfork,
  SYS_wait4,
} from "../kernel/uapi/syscall.ts";
import { encodeUtf8 } from "../kernel/uapi/utf8.ts";
import type { TouchModel } from "./heap_replay.ts";
import { createLibc } from "./libc.ts";
import { copySpace, newSpace, type RecordedSpace } from "./recorded_space.ts";
import {
  type BackingFile,
  backingBytes,
  createMemoryPlayer,
  type MemoryCounters,
  type MemoryPlayer,
  NO_FILE,
  newMemoryCounters,
} from "./strace_memory.ts";
import { announce, awaitTurn, call, passOn, type Replay } from "./strace_turns.ts";

/** Names of the calls, by their code in a recording. */
export const SYSCALL_KINDS: readonly string[] = [
  "brk",
  "mmap",
  "munmap",
  "mprotect",
  "mremap",
  "madvise",
  "fork",
  "vfork",
  "thread",
  "execve",
  "exit",
  "exit_group",
  "wait",
  "killed",
  "mlock",
  "munlock",
  "mlockall",
  "munlockall",
  "kill",
];

/** Strings for execve lie that far below the arguments of the program. */
const SCRATCH_BYTES = 1024;

export interface SyscallReplayOptions {
  /** "all" by default. */
  readonly touch?: TouchModel;
}

/** What a replay has come to; valid at any time, of the run that began last. */
export interface SyscallReplayReport extends Readonly<MemoryCounters> {
  readonly nrEvents: number;
  readonly nrPlayed: number;
  /** Rows of processes that were not there. */
  readonly nrSkipped: number;
  readonly nrDifferent: number;
  readonly firstDifference: string | null;
  readonly nrProcesses: number;
  readonly nrThreads: number;
  /** What the first process of the recording ended with: a status as a shell counts. */
  readonly recordedStatus: number;
}

export interface SyscallReplay {
  /** The program that plays the first process, and those that the recording executes, by their paths. */
  readonly programs: ReadonlyMap<string, Program>;
  report(): SyscallReplayReport;
}

/** The programs that replay `recording` under the path `base`. */
export function syscallReplay(
  recording: SyscallRecording,
  base: string,
  options: SyscallReplayOptions = {},
): SyscallReplay {
  const pathOf = (comm: string): string => `${base}/${comm}`;
  let current = newReplay(recording, options, pathOf);
  const first: Program = function* (env) {
    const replay = newReplay(recording, options, pathOf);
    current = replay;
    replay.eventcount = yield* call(env, SYS_eventcount);
    replay.file = yield* openBackingFile(env, `/tmp/${base.replace(/^.*\//, "")}.map`, backingBytes(recording));
    replay.spaces.set(0, newSpace(env.argv - SCRATCH_BYTES));
    return yield* playTask(env, replay, 0);
  };
  const executed: Program = function* (env) {
    const replay = current;
    const task = replay.taskOfPid.get(yield* call(env, SYS_getpid));
    // Somebody else has started it.
    if (task === undefined) return 1;
    replay.spaces.set(task, newSpace(env.argv - SCRATCH_BYTES));
    return yield* playTask(env, replay, task);
  };
  const programs = new Map([[base, first]]);
  for (const name of recording.names) programs.set(pathOf(name), executed);
  return { programs, report: () => reportOf(current) };
}

function newReplay(
  recording: SyscallRecording,
  { touch = "all" }: SyscallReplayOptions,
  pathOf: (comm: string) => string,
): Replay {
  const { nrEvents, task } = recording;
  const nrTasks = recording.tasks.length;
  const row = new Int32Array(nrTasks).fill(nrEvents);
  const nextRow = new Int32Array(nrEvents);
  for (let i = nrEvents - 1; i >= 0; i--) {
    nextRow[i] = row[task[i] as number] as number;
    row[task[i] as number] = i;
  }
  return {
    recording,
    touch,
    nextRow,
    row,
    pid: new Int32Array(nrTasks),
    isLost: new Uint8Array(nrTasks),
    taskOfPid: new Map(),
    spaces: new Map(),
    memory: newMemoryCounters(),
    pathOf,
    cursor: 0,
    eventcount: -1,
    file: NO_FILE,
    nrPlayed: 0,
    nrSkipped: 0,
    nrDifferent: 0,
    firstDifference: null,
  };
}

function reportOf({
  recording,
  memory,
  nrPlayed,
  nrSkipped,
  nrDifferent,
  firstDifference,
}: Replay): SyscallReplayReport {
  const { tasks, call: calls, task, arg, nrEvents } = recording;
  const isEnd = (code: number, i: number): boolean =>
    i < nrEvents && task[i] === 0 && (code === SC_EXIT_GROUP || code === SC_KILLED);
  const end = calls.findIndex(isEnd);
  const nrProcesses = tasks.filter(({ leader }, i) => leader === i).length;
  return {
    ...memory,
    nrEvents,
    nrPlayed,
    nrSkipped,
    nrDifferent,
    firstDifference,
    nrProcesses,
    nrThreads: tasks.length - nrProcesses,
    recordedStatus: (calls[end] === SC_KILLED ? 128 : 0) + (arg[end] ?? 0),
  };
}

/**
 * A file of `bytes` zeros without a name: it is gone when the last process has closed it. NO_FILE if nothing needs it,
 * or if this kernel cannot map one.
 */
function* openBackingFile(env: ProgramEnv, path: string, bytes: number): Sleeping<BackingFile> {
  if (bytes === 0) return NO_FILE;
  const libc = createLibc(env);
  const fd = yield* libc.open(path, O_RDWR | O_CREAT | O_TRUNC);
  if (fd < 0) return NO_FILE;
  yield* libc.unlink(path);
  yield* libc.writeAll(fd, new Uint8Array(1));
  const probe = yield* call(env, SYS_mmap, 0, 1, PROT_READ, MAP_PRIVATE, fd, 0);
  if (probe >= 0) {
    yield* call(env, SYS_munmap, probe, 1);
    yield* call(env, SYS_lseek, fd, bytes - 1, SEEK_SET);
    if ((yield* libc.writeAll(fd, new Uint8Array(1))) === 1) return { fd, bytes };
  }
  yield* libc.close(fd);
  return NO_FILE;
}

// ── Tasks ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Plays the rows of `task` in `env` until it ends or becomes another program. */
function* playTask(env: ProgramEnv, replay: Replay, task: number): Sleeping<number> {
  const { recording, row, nextRow } = replay;
  const memory = createMemoryPlayer(env, recording, replay.touch, replay.memory, replay.file);
  const pid = yield* call(env, SYS_getpid);
  replay.pid[task] = pid;
  const { leader = task } = recording.tasks[task] ?? {};
  if (leader === task) replay.taskOfPid.set(pid, task);
  while ((row[task] as number) < recording.nrEvents) {
    const i = row[task] as number;
    yield* awaitTurn(env, replay, i);
    if (env.timeIsUp()) yield PREEMPTED;
    row[task] = nextRow[i] as number;
    yield* playRow({ env, replay, memory, task, leader }, i);
  }
  return 0;
}

// ── Rows ───────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Player {
  readonly env: ProgramEnv;
  readonly replay: Replay;
  readonly memory: MemoryPlayer;
  readonly task: number;
  readonly leader: number;
}

const spaceOf = ({ replay, leader }: Player): RecordedSpace => replay.spaces.get(leader) as RecordedSpace;

function* playRow(player: Player, i: number): Sleeping<void> {
  const { env, replay, memory } = player;
  const { recording } = replay;
  const code = recording.call[i] as number;
  const start = env.now();
  if (code < SC_FORK || (code >= SC_MLOCK && code <= SC_MUNLOCKALL)) {
    const got = memory.play(spaceOf(player), i);
    env.observer?.operation(code, env.now() - start, got < 0);
    compare(replay, i, got);
    yield* passOn(env, replay, i);
    return;
  }
  if (code === SC_FORK || code === SC_VFORK || code === SC_THREAD) yield* startTask(player, i);
  else if (code === SC_WAIT) yield* waitForChild(player, i);
  else if (code === SC_KILL) yield* probe(player, i);
  else if (code === SC_EXECVE) yield* execute(player, i);
  else yield* end(player, i);
}

function differs(replay: Replay, i: number, recorded: string, got: string): void {
  replay.nrDifferent++;
  const code = replay.recording.call[i] as number;
  replay.firstDifference ??= `row ${i}, ${SYSCALL_KINDS[code]}: recorded ${recorded}, here ${got}`;
}

const outcome = (value: number): string => (value < 0 ? errnoName(value) : "success");

/** Success or the same errno; for addresses also the recorded one, which is what a carried-over one is named by. */
function compare(replay: Replay, i: number, got: number): void {
  const { recording } = replay;
  const recorded = recording.result[i] as number;
  const code = recording.call[i] as number;
  if (recorded < 0 || got < 0) {
    if (recorded !== got) differs(replay, i, outcome(recorded), outcome(got));
  } else if ((code === SC_BRK || code === SC_MMAP || code === SC_MREMAP) && recorded !== got) {
    differs(replay, i, `0x${recorded.toString(16)}`, `0x${got.toString(16)}`);
  }
}

/** fork, vfork, clone. The turn is passed on before a vfork: the child needs it while its parent sleeps. */
function* startTask(player: Player, i: number): Sleeping<void> {
  const { env, replay, leader } = player;
  const { recording } = replay;
  const code = recording.call[i] as number;
  const child = recording.child[i] as number;
  if (child === SC_NOBODY) {
    // It failed when it was recorded, for reasons of that machine.
    differs(replay, i, outcome(recording.result[i] as number), "not tried");
    yield* passOn(env, replay, i);
    return;
  }
  const entry = env.entryOf(function* (childEnv) {
    if (code !== SC_THREAD) yield* enterChild(childEnv, replay, child, code === SC_FORK);
    return yield* playTask(childEnv, replay, child);
  });
  if (code !== SC_THREAD) {
    const space = spaceOf(player);
    replay.spaces.set(child, code === SC_FORK ? copySpace(space) : space);
  }
  const start = env.now();
  if (code === SC_VFORK) yield* passOn(env, replay, i);
  const nr = code === SC_FORK ? SYS_fork : SYS_vfork;
  const got = code === SC_THREAD ? yield* call(env, SYS_clone, 0, 0, entry, 0) : yield* call(env, nr, entry);
  env.observer?.operation(code, env.now() - start, got < 0);
  if (got < 0) {
    replay.isLost[child] = 1;
    differs(replay, i, "success", outcome(got));
    if (code === SC_VFORK) yield* announce(env, replay);
  } else if (code !== SC_THREAD) {
    replay.pid[child] = got;
    replay.taskOfPid.set(got, child);
  } else replay.pid[child] = replay.pid[leader] as number;
  if (code !== SC_VFORK) yield* passOn(env, replay, i);
}

/** The first thing a new process does: it writes into what it shares. */
function* enterChild(env: ProgramEnv, replay: Replay, child: number, isCopy: boolean): Sleeping<void> {
  if (!isCopy || replay.touch === "none") return;
  yield* awaitTurn(env, replay, replay.row[child] as number);
  const memory = createMemoryPlayer(env, replay.recording, replay.touch, replay.memory, replay.file);
  memory.rewrite(replay.spaces.get(child) as RecordedSpace);
}

function* waitForChild(player: Player, i: number): Sleeping<void> {
  const { env, replay } = player;
  const { recording } = replay;
  const [target, child] = [recording.target[i] as number, recording.child[i] as number];
  const isExpected = child !== SC_NOBODY && replay.isLost[child] === 0;
  // Nobody is waited for who will not come.
  const options = (recording.arg[i] as number) | (isExpected ? 0 : WNOHANG);
  const pid = target === SC_NOBODY ? -1 : (replay.pid[target] as number) || -1;
  const start = env.now();
  const got = yield* call(env, SYS_wait4, pid, 0, options);
  env.observer?.operation(SC_WAIT, env.now() - start, got < 0);
  if (child === SC_NOBODY) {
    const recorded = recording.result[i] as number;
    if (recorded !== got) differs(replay, i, recorded === 0 ? "nobody" : outcome(recorded), outcome(got));
  } else if (got !== replay.pid[child]) {
    const reaped = got > 0 ? `process ${replay.taskOfPid.get(got)}` : got === 0 ? "nobody" : outcome(got);
    differs(replay, i, `process ${child}`, reaped);
  }
  yield* passOn(env, replay, i);
}

/** A signal sent: is its receiver there? If it dies of it, it does so in a row of its own. */
function* probe({ env, replay }: Player, i: number): Sleeping<void> {
  const receiver = replay.recording.target[i] as number;
  const start = env.now();
  if (replay.isLost[receiver] === 0) {
    const got = yield* call(env, SYS_kill, replay.pid[receiver] as number, 0);
    env.observer?.operation(SC_KILL, env.now() - start, got < 0);
    compare(replay, i, got);
  }
  yield* passOn(env, replay, i);
}

function* execute(player: Player, i: number): Sleeping<void> {
  const { env, replay, memory } = player;
  const { recording } = replay;
  const comm = recording.names[recording.nameIndex[i] as number] as string;
  const space = spaceOf(player);
  const willFail = (recording.result[i] as number) < 0;
  if (!willFail) {
    if (replay.touch !== "none") memory.checkAll(space);
    env.observer?.beforeEnd?.(yield* call(env, SYS_getpid));
  }
  // path NUL comm NUL, then argv with one pointer.
  const path = willFail ? `${replay.pathOf(comm)}/missing` : replay.pathOf(comm);
  const bytes = encodeUtf8(`${path}\0${comm}\0`);
  const at = space.scratch;
  const argv = at + Math.ceil(bytes.length / 8) * 8;
  env.mem.write(at, bytes);
  const commAt = at + encodeUtf8(path).length + 1;
  env.mem.st32(argv, commAt % 2 ** 32);
  env.mem.st32(argv + 4, Math.floor(commAt / 2 ** 32));
  const start = env.now();
  if (!willFail) env.observer?.operation(SC_EXECVE, 0, false);
  yield* passOn(env, replay, i);
  const got = yield* call(env, SYS_execve, at, argv, 1);
  if (!willFail || got !== recording.result[i])
    differs(replay, i, outcome(recording.result[i] as number), outcome(got));
  if (willFail) env.observer?.operation(SC_EXECVE, env.now() - start, true);
}

/** exit, exit_group, death by a signal. */
function* end(player: Player, i: number): Sleeping<void> {
  const { env, replay, memory } = player;
  const { recording } = replay;
  const code = recording.call[i] as number;
  const arg = recording.arg[i] as number;
  if (code !== SC_EXIT) {
    if (replay.touch !== "none") memory.checkAll(spaceOf(player));
    env.observer?.beforeEnd?.(yield* call(env, SYS_getpid));
  }
  env.observer?.operation(code, 0, false);
  yield* passOn(env, replay, i);
  if (code === SC_KILLED) {
    yield* call(env, SYS_kill, yield* call(env, SYS_getpid), arg);
    yield PREEMPTED;
    // A signal that does not kill here.
    yield* call(env, SYS_exit_group, 128 + arg);
  }
  yield* call(env, code === SC_EXIT ? SYS_exit : SYS_exit_group, arg);
  for (;;) yield BLOCKED;
}
