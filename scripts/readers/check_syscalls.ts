/**
 * Check of a recording of system calls: the rules SYR-1 to SYR-4 of strace_events.ts, as a program.
 *
 * The replayer relies on them without looking; tests run this behind the reader.
 */

import {
  NR_RECORDED_CALLS,
  SC_EXECVE,
  SC_EXIT,
  SC_EXIT_GROUP,
  SC_FORK,
  SC_KILL,
  SC_KILLED,
  SC_NOBODY,
  SC_THREAD,
  SC_VFORK,
  SC_WAIT,
  type SyscallRecording,
} from "../../kernel/uapi/recording.ts";

/** Throws `Error` naming rule and row if `rec` breaks SYR-1 to SYR-4. */
export function checkSyscallRecording(rec: SyscallRecording): void {
  checkColumns(rec);
  const isBorn = rec.tasks.map((_, task) => task === 0);
  const hasEnded = rec.tasks.map(() => false);
  const isReaped = rec.tasks.map(() => false);
  for (let i = 0; i < rec.nrEvents; i++) {
    const [call, task, child] = [at(rec.call, i), at(rec.task, i), at(rec.child, i)];
    const leader = rec.tasks[task]?.leader;
    ensure(isBorn[task] === true, "SYR-2 caller", i);
    ensure(hasEnded[task] === false, "SYR-3 caller", i);
    if (call === SC_FORK || call === SC_VFORK || call === SC_THREAD) {
      if (child === SC_NOBODY) ensure(at(rec.result, i) < 0, "SYR-2 failed start", i);
      else {
        ensure(isBorn[child] === false, "SYR-2 child", i);
        ensure(rec.tasks[child]?.leader === (call === SC_THREAD ? leader : child), "SYR-2 leader", i);
        isBorn[child] = true;
      }
    } else if (call === SC_WAIT && child !== SC_NOBODY) {
      ensure(hasEnded[child] === true && isReaped[child] === false, "SYR-4 reaped", i);
      isReaped[child] = true;
    } else if (call === SC_KILL) {
      ensure(at(rec.target, i) !== SC_NOBODY && hasEnded[at(rec.target, i)] === false, "SYR-3 receiver", i);
    } else if (call === SC_EXIT) {
      ensure(leader !== task, "SYR-3 exit of a thread", i);
      hasEnded[task] = true;
    } else if (call === SC_EXIT_GROUP || call === SC_KILLED) {
      for (const [other, state] of rec.tasks.entries()) if (state.leader === leader) hasEnded[other] = true;
    }
  }
  ensure(isBorn.every(Boolean) && hasEnded.every(Boolean), "SYR-3 end", rec.nrEvents);
}

function checkColumns(rec: SyscallRecording): void {
  const { nrEvents, call, task, addr, bytes, extra, arg, flags, fd, target, child, nameIndex, result } = rec;
  for (const column of [call, task, addr, bytes, extra, arg, flags, fd, target, child, nameIndex, result]) {
    ensure(column.length === nrEvents, "SYR-1 column length", column.length);
  }
  ensure(rec.name !== "" && nrEvents > 0, "SYR-1 name", 0);
  for (let i = 0; i < nrEvents; i++) {
    ensure(at(call, i) < NR_RECORDED_CALLS, "SYR-1 call", i);
    for (const column of [addr, bytes, extra]) {
      ensure(Number.isSafeInteger(at(column, i)) && at(column, i) >= 0, "SYR-1 address or size", i);
    }
    ensure(Number.isSafeInteger(at(result, i)), "SYR-1 result", i);
    for (const column of [task, target, child]) ensure(at(column, i) < rec.tasks.length, "SYR-2 task", i);
    if (at(call, i) === SC_EXECVE) ensure(rec.names[at(nameIndex, i)] !== undefined, "SYR-1 name of a program", i);
  }
}

function at(column: ArrayLike<number>, i: number): number {
  return column[i] ?? Number.NaN;
}

function ensure(condition: boolean, rule: string, row: number): void {
  if (!condition) throw new Error(`recording breaks ${rule} at ${row}`);
}
