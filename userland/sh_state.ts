/**
 * What a running shell knows: last status, history and jobs.
 */

import type { Sleeping } from "../kernel/types.ts";
import { WNOHANG } from "../kernel/uapi/mman.ts";
import type { ProgramEnv } from "../kernel/uapi/program.ts";
import type { Libc } from "./libc.ts";

const MAX_HISTORY = 500;

/** A pipeline in the background. */
export interface Job {
  readonly id: number;
  readonly text: string;
  /** Processes not waited for yet. */
  readonly pids: Set<number>;
  /** The last process of the pipeline: its status is the job's. */
  readonly lastPid: number;
  status: number;
}

export interface Shell {
  readonly env: ProgramEnv;
  readonly libc: Libc;
  readonly isInteractive: boolean;
  readonly history: string[];
  readonly jobs: Job[];
  /** `$?` */
  status: number;
  /** `$!`, 0 before the first. */
  lastBackgroundPid: number;
  /** Set by `exit`: the shell's own status. */
  exiting: number | undefined;
  /** What is behind the step that runs. */
  rest: string;
  /** Set when the machine has come back to the step that runs: what to do instead of the rest. */
  instead: string | undefined;
}

export interface BuiltinCall {
  readonly shell: Shell;
  /** Without the name. */
  readonly args: readonly string[];
  readonly outFd: number;
  readonly errFd: number;
}

export interface Builtin {
  readonly synopsis: string;
  readonly summary: string;
  readonly run: (call: BuiltinCall) => Sleeping<number>;
}

export function createShellState(env: ProgramEnv, libc: Libc, isInteractive: boolean): Shell {
  return {
    env,
    libc,
    isInteractive,
    history: [],
    jobs: [],
    status: 0,
    lastBackgroundPid: 0,
    exiting: undefined,
    rest: "",
    instead: undefined,
  };
}

export function remember(shell: Shell, line: string): void {
  const text = line.trim();
  if (text === "" || shell.history.at(-1) === text) return;
  shell.history.push(text);
  if (shell.history.length > MAX_HISTORY) shell.history.shift();
}

export function addJob(shell: Shell, text: string, pids: readonly number[]): Job {
  const lastPid = pids.at(-1) as number;
  const job = { id: (shell.jobs.at(-1)?.id ?? 0) + 1, text, pids: new Set(pids), lastPid, status: 0 };
  shell.jobs.push(job);
  shell.lastBackgroundPid = lastPid;
  return job;
}

/** A child has ended: strikes it off its job. The job if that was its last process. */
export function noteEnded(shell: Shell, pid: number, status: number): Job | undefined {
  const job = shell.jobs.find((candidate) => candidate.pids.has(pid));
  if (job === undefined) return undefined;
  job.pids.delete(pid);
  if (pid === job.lastPid) job.status = status;
  if (job.pids.size > 0) return undefined;
  shell.jobs.splice(shell.jobs.indexOf(job), 1);
  return job;
}

/** Collects background processes that have ended, without waiting; the jobs that are over. */
export function* reapJobs(shell: Shell): Sleeping<Job[]> {
  const over: Job[] = [];
  while (shell.jobs.length > 0) {
    const { pid, status } = yield* shell.libc.wait(-1, WNOHANG);
    if (pid <= 0) break;
    const job = noteEnded(shell, pid, status);
    if (job !== undefined) over.push(job);
  }
  return over;
}
