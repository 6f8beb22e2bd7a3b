/**
 * Commands that the shell runs itself: those that concern the shell, and a few that are cheaper so.
 *
 * A builtin writes to the two descriptors it is given, reads nothing, and returns its status.
 */

import type { Sleeping } from "../kernel/types.ts";
import { strerror } from "../kernel/uapi/errno.ts";
import { parseCount } from "./programs/arguments.ts";
import { echoText } from "./programs/files.ts";
import { snapshotBuiltins } from "./sh_snapshots.ts";
import { type Builtin, type BuiltinCall, type Job, noteEnded, reapJobs, type Shell } from "./sh_state.ts";
import { ULIMIT } from "./sh_ulimit.ts";

const GRAMMAR_HELP = "help NAME shows arguments. A | B, > FILE, >> FILE, < FILE, A && B, A || B, A; B, A &, $?";

/** Name, arguments and purpose of a program, for `help`. */
export interface ProgramHelp {
  readonly name: string;
  readonly synopsis: string;
  readonly summary: string;
}

function* complain({ shell, errFd }: BuiltinCall, message: string, status = 1): Sleeping<number> {
  yield* shell.libc.write(errFd, `sh: ${message}\n`);
  return status;
}

function* print(call: BuiltinCall, text: string): Sleeping<number> {
  const written = yield* call.shell.libc.write(call.outFd, text);
  return written < 0 ? yield* complain(call, `write error: ${strerror(written)}`) : 0;
}

function* cd(call: BuiltinCall): Sleeping<number> {
  const { shell, args } = call;
  if (args.length > 1) return yield* complain(call, "usage: cd [DIRECTORY]", 2);
  const path = args[0] ?? "/";
  const error = yield* shell.libc.chdir(path);
  return error === 0 ? 0 : yield* complain(call, `cd: ${path}: ${strerror(error)}`);
}

function* pwd(call: BuiltinCall): Sleeping<number> {
  const path = yield* call.shell.libc.getcwd();
  if (typeof path === "number") return yield* complain(call, `pwd: ${strerror(path)}`);
  return yield* print(call, `${path}\n`);
}

function* exit(call: BuiltinCall): Sleeping<number> {
  const { shell, args } = call;
  const status = args.length === 0 ? shell.status : parseCount(args[0] as string);
  if (status === null || args.length > 1) return yield* complain(call, "usage: exit [STATUS]", 2);
  shell.exiting = status % 256;
  return shell.exiting;
}

/** Waits until `isEnough`, or until there is no child. */
function* waitUntil(shell: Shell, isEnough: () => boolean): Sleeping<Job | undefined> {
  let last: Job | undefined;
  while (!isEnough()) {
    const { pid, status } = yield* shell.libc.wait(-1);
    if (pid <= 0) break;
    last = noteEnded(shell, pid, status) ?? last;
  }
  return last;
}

const jobOf = (shell: Shell, text: string): Job | undefined =>
  shell.jobs.find((job) => text === `%${job.id}` || job.pids.has(Number(text)));

function* wait(call: BuiltinCall): Sleeping<number> {
  const { shell, args } = call;
  let status = 0;
  if (args.length === 0) yield* waitUntil(shell, () => shell.jobs.length === 0);
  for (const arg of args) {
    const job = jobOf(shell, arg);
    if (job === undefined) return yield* complain(call, `wait: ${arg}: no child of this shell`, 127);
    yield* waitUntil(shell, () => job.pids.size === 0);
    status = job.status;
  }
  return status;
}

function* jobs(call: BuiltinCall): Sleeping<number> {
  const over = yield* reapJobs(call.shell);
  const lines = [
    ...over.map((job) => `[${job.id}] Done     ${job.text}\n`),
    ...call.shell.jobs.map((job) => `[${job.id}] Running  ${job.text}\n`),
  ];
  return yield* print(call, lines.join(""));
}

const history = (call: BuiltinCall): Sleeping<number> =>
  print(call, call.shell.history.map((line, i) => `${String(i + 1).padStart(5)}  ${line}\n`).join(""));

/** The builtins, with `programs` for what `help` prints. */
export function createBuiltins(programs: readonly ProgramHelp[]): ReadonlyMap<string, Builtin> {
  const builtins = new Map<string, Builtin>();
  const add = (name: string, synopsis: string, summary: string, run: Builtin["run"]): void => {
    builtins.set(name, { synopsis, summary, run });
  };
  add("cd", "[DIRECTORY]", "change the shell's directory", cd);
  add("pwd", "", "print the shell's directory", pwd);
  add("exit", "[STATUS]", "end the shell", exit);
  add("wait", "[PID|%JOB...]", "wait for background jobs", wait);
  add("jobs", "", "list background jobs", jobs);
  add("history", "", "list the lines typed so far", history);
  add("echo", "[-n] [TEXT...]", "print its arguments", (call) => print(call, echoText(call.args)));
  add("true", "", "do nothing, with success", (call) => print(call, ""));
  add("false", "", "do nothing, without success", function* (call) {
    yield* print(call, "");
    return 1;
  });
  builtins.set("ulimit", ULIMIT);
  for (const [name, builtin] of snapshotBuiltins) builtins.set(name, builtin);
  add("help", "[NAME]", "list the commands", (call) => help(call, [...namedBuiltins(builtins), ...programs]));
  return builtins;
}

const namedBuiltins = (builtins: ReadonlyMap<string, Builtin>): ProgramHelp[] =>
  [...builtins].map(([name, { synopsis, summary }]) => ({ name, synopsis, summary }));

function* help(call: BuiltinCall, entries: readonly ProgramHelp[]): Sleeping<number> {
  const usage = (entry: ProgramHelp): string => `${entry.name} ${entry.synopsis}`.trim();
  const [name] = call.args;
  if (name !== undefined) {
    const entry = entries.find((candidate) => candidate.name === name);
    if (entry === undefined) return yield* complain(call, `help: ${name}: no such command`);
    return yield* print(call, `usage: ${usage(entry)}\n${entry.summary}\n`);
  }
  return yield* print(call, helpText(entries));
}

/** One line per command, by name; of two with one name the first counts. */
export function helpText(entries: readonly ProgramHelp[]): string {
  const byName = new Map([...entries].reverse().map((entry) => [entry.name, entry] as const));
  const lines = [...byName.keys()].sort().map((name) => `  ${name.padEnd(11)} ${byName.get(name)?.summary}\n`);
  return `${lines.join("")}\n${GRAMMAR_HELP}\n`;
}
