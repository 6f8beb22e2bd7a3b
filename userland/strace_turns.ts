/**
 * Whose turn it is in a replay of system calls: one cursor into the recording, and an eventcount to sleep on.
 *
 *     awaitTurn(row) ─▶ sleep until the cursor is there ─▶ the row is done ─▶ passOn ─▶ the others look
 *
 * Rows of processes that were killed on the way, and of those that they would have made, are nobody's: they are passed
 * over by whoever waits and finds, now and then, that the one whose turn it is has gone. What a row does is
 * strace_replay.ts's.
 */

import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import { PREEMPTED, type Sleeping } from "../kernel/types.ts";
import { ESRCH } from "../kernel/uapi/errno.ts";
import type { ProgramEnv } from "../kernel/uapi/program.ts";
import { SC_NOBODY, SC_WAIT, type SyscallRecording } from "../kernel/uapi/recording.ts";
import { RLIMIT_AS } from "../kernel/uapi/resource.ts";
import { SYS_eventcount_advance, SYS_eventcount_await, SYS_prlimit64 } from "../kernel/uapi/syscall.ts";
import type { TouchModel } from "./heap_replay.ts";
import type { RecordedSpace } from "./recorded_space.ts";
import type { BackingFile, MemoryCounters } from "./strace_memory.ts";

/** How long somebody waits for its turn before it looks whether the one before it still lives. */
const PATIENCE_CYCLES = CYCLES_PER_SECOND;

/** A replay as all its processes see it. */
export interface Replay {
  readonly recording: SyscallRecording;
  readonly touch: TouchModel;
  /** By row: the next row of the same task, or the number of rows. */
  readonly nextRow: Int32Array;
  /** By task: the row it is to do next, its pid (0: not there yet), whether its rows are passed over. */
  readonly row: Int32Array;
  readonly pid: Int32Array;
  readonly isLost: Uint8Array;
  readonly taskOfPid: Map<number, number>;
  /** By leader: its address space. */
  readonly spaces: Map<number, RecordedSpace>;
  readonly memory: MemoryCounters;
  readonly pathOf: (comm: string) => string;
  cursor: number;
  eventcount: number;
  file: BackingFile;
  nrPlayed: number;
  nrSkipped: number;
  nrDifferent: number;
  firstDifference: string | null;
}

/** A system call, slept through. */
export function* call(env: ProgramEnv, nr: number, a0 = 0, a1 = 0, a2 = 0, a3 = 0, a4 = 0, a5 = 0): Sleeping<number> {
  const result = env.syscall(nr, a0, a1, a2, a3, a4, a5);
  return typeof result === "object" ? yield* result : result;
}

/** Sleeps until row `i` is the one to be done. */
export function* awaitTurn(env: ProgramEnv, replay: Replay, i: number): Sleeping<void> {
  while (replay.cursor < i) {
    if (replay.eventcount < 0) yield PREEMPTED;
    else yield* call(env, SYS_eventcount_await, replay.eventcount, i, PATIENCE_CYCLES);
    if (replay.cursor < i) yield* passOverTheDead(env, replay);
  }
}

/** Row `i` is done, or as good as done: whoever has the next one may go on. */
export function* passOn(env: ProgramEnv, replay: Replay, i: number): Sleeping<void> {
  replay.cursor = i + 1;
  replay.nrPlayed++;
  const { task } = replay.recording;
  if (task[i + 1] !== task[i]) yield* announce(env, replay);
}

/** Leaves out the rows of those who are not there, then tells the others where the cursor is. */
export function* announce(env: ProgramEnv, replay: Replay): Sleeping<void> {
  const { task, nrEvents } = replay.recording;
  while (replay.cursor < nrEvents && replay.isLost[task[replay.cursor] as number] === 1) skipRow(replay);
  if (replay.eventcount >= 0) yield* call(env, SYS_eventcount_advance, replay.eventcount, replay.cursor);
}

/** The row at the cursor is one of nobody: nor will it make anybody. */
function skipRow(replay: Replay): void {
  const child = replay.recording.child[replay.cursor] as number;
  const code = replay.recording.call[replay.cursor];
  if (child !== SC_NOBODY && code !== SC_WAIT) replay.isLost[child] = 1;
  replay.nrSkipped++;
  replay.cursor++;
}

/** If whoever has the turn has been killed: its rows, and those of its threads, are passed over. */
function* passOverTheDead(env: ProgramEnv, replay: Replay): Sleeping<void> {
  const { task, tasks } = replay.recording;
  const leader = tasks[task[replay.cursor] as number]?.leader ?? 0;
  const pid = replay.pid[leader] as number;
  // kill(pid, 0) finds a zombie, too; the limits of one that has ended cannot be asked for.
  if (pid === 0 || (yield* call(env, SYS_prlimit64, pid, RLIMIT_AS, 0, 0)) !== -ESRCH) return;
  for (const [other, state] of tasks.entries()) if (state.leader === leader) replay.isLost[other] = 1;
  yield* announce(env, replay);
}
