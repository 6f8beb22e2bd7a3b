/**
 * Running what was parsed: pipelines, redirections, programs and builtins.
 *
 *   for each command, left to right:  pipe, redirections, spawn      builtins are put off, for they might fill a pipe
 *   then the builtins                 all programs that could read from them run by now
 *   then wait                         for every process of the pipeline; the status is that of the last command
 *
 * The shell closes its own ends as soon as a child has them: a reader sees the end only when no writer is left. The
 * input end of a builtin is closed at once, since no builtin reads.
 */

import { PREEMPTED, type Sleeping } from "../kernel/types.ts";
import { ENOENT, strerror } from "../kernel/uapi/errno.ts";
import { O_APPEND, O_CREAT, O_RDONLY, O_TRUNC, O_WRONLY, SIGKILL, SIGSEGV, SIGTERM } from "../kernel/uapi/mman.ts";
import { directoryNames } from "./programs/directory.ts";
import { type Command, expandWord, nearestName, parseLine, type Redirect, type Step } from "./sh_parse.ts";
import { addJob, type Builtin, noteEnded, type Shell } from "./sh_state.ts";

const STATUS_NOT_FOUND = 127;
const STATUS_CANNOT_RUN = 126;
const STATUS_SYNTAX = 2;
/** Statuses above are 128 + a signal. */
const STATUS_SIGNAL = 128;
const BIN_DIRECTORIES = ["/bin", "/sbin"];
const OPEN_FLAGS = { "<": O_RDONLY, ">": O_WRONLY | O_CREAT | O_TRUNC, ">>": O_WRONLY | O_CREAT | O_APPEND };
const SIGNAL_TEXT: Readonly<Record<number, string>> = {
  [SIGKILL]: "Killed",
  [SIGSEGV]: "Segmentation fault",
  [SIGTERM]: "Terminated",
};

type Builtins = ReadonlyMap<string, Builtin>;

/** A command with its descriptors. */
interface Prepared {
  readonly argv: readonly string[];
  readonly fds: [number, number, number];
  /** Descriptors of the shell's to close once the command has them. */
  readonly toClose: Set<number>;
}

/** Runs a line, or several; the status is left in `shell.status`. */
export function* runText(shell: Shell, builtins: Builtins, text: string): Sleeping<void> {
  for (let next: string | undefined = text; next !== undefined; next = shell.instead) {
    shell.instead = undefined;
    yield* runSteps(shell, builtins, next);
  }
}

/** Runs the steps of `text`, until the end, `exit`, or `shell.instead`. */
function* runSteps(shell: Shell, builtins: Builtins, text: string): Sleeping<void> {
  const parsed = parseLine(text);
  if (parsed.steps === undefined) {
    yield* shell.libc.eprint(`sh: ${parsed.column}: ${parsed.error}\n`);
    shell.status = STATUS_SYNTAX;
    return;
  }
  for (const step of parsed.steps) {
    if (shell.exiting !== undefined || shell.instead !== undefined) return;
    const isDue = step.when === "always" || (step.when === "and") === (shell.status === 0);
    shell.rest = text.slice(step.end);
    if (isDue) shell.status = yield* runStep(shell, builtins, step);
    if (shell.env.timeIsUp()) yield PREEMPTED;
  }
}

// ── One pipeline ───────────────────────────────────────────────────────────────────────────────────────────────────

function* runStep(shell: Shell, builtins: Builtins, step: Step): Sleeping<number> {
  const pids: number[] = [];
  const putOff: { builtin: Builtin; prepared: Prepared; isLast: boolean }[] = [];
  const nothing = step.background ? yield* shell.libc.open("/dev/null", O_RDONLY) : 0;
  let input = Math.max(nothing, 0);
  let status = 0;
  for (const [i, command] of step.commands.entries()) {
    const isLast = i === step.commands.length - 1;
    const pipe = isLast ? ([0, 1] as const) : yield* shell.libc.pipe();
    if (typeof pipe === "number") {
      yield* closeAll(shell, new Set([input]));
      status = yield* complain(shell, `pipe: ${strerror(pipe)}`, STATUS_CANNOT_RUN);
      break;
    }
    const prepared = yield* prepare(shell, command, input, pipe[1]);
    input = pipe[0];
    const name = prepared?.argv[0];
    const builtin = name === undefined || step.background ? undefined : builtins.get(name);
    if (prepared === undefined) {
      status = 1;
    } else if (builtin !== undefined) {
      yield* closeInput(shell, prepared);
      putOff.push({ builtin, prepared, isLast });
    } else {
      const pid = name === undefined ? 0 : yield* start(shell, builtins, prepared);
      yield* closeAll(shell, prepared.toClose);
      if (pid > 0) pids.push(pid);
      status = pid < 0 ? -pid : 0;
    }
  }
  for (const { builtin, prepared, isLast } of putOff) {
    const [, outFd, errFd] = prepared.fds;
    const result = yield* builtin.run({ shell, args: prepared.argv.slice(1), outFd, errFd });
    yield* closeAll(shell, prepared.toClose);
    if (isLast) status = result;
  }
  const isLastProgram = status === 0 && !putOff.some(({ isLast }) => isLast);
  if (!step.background) {
    const waited = yield* waitFor(shell, pids);
    return isLastProgram && pids.length > 0 ? waited : status;
  }
  if (pids.length === 0) return status;
  const job = addJob(shell, step.text, pids);
  if (shell.isInteractive) yield* shell.libc.eprint(`[${job.id}] ${job.lastPid}\n`);
  return 0;
}

/** Waits for the processes of a pipeline; the status of the last. */
function* waitFor(shell: Shell, pids: readonly number[]): Sleeping<number> {
  let status = 0;
  for (const pid of pids) {
    const ended = yield* shell.libc.wait(pid);
    status = ended.pid < 0 ? STATUS_NOT_FOUND : ended.status;
    noteEnded(shell, pid, status);
    const text = status > STATUS_SIGNAL ? (SIGNAL_TEXT[status - STATUS_SIGNAL] ?? "") : "";
    if (text !== "") yield* shell.libc.eprint(`${text}\n`);
  }
  return status;
}

function* complain(shell: Shell, message: string, status: number): Sleeping<number> {
  yield* shell.libc.eprint(`sh: ${message}\n`);
  return status;
}

// ── Words and descriptors ──────────────────────────────────────────────────────────────────────────────────────────

function* closeAll(shell: Shell, fds: Set<number>): Sleeping<void> {
  for (const fd of fds) if (fd > 2) yield* shell.libc.close(fd);
  fds.clear();
}

function* closeInput(shell: Shell, prepared: Prepared): Sleeping<void> {
  const [input, ...outputs] = prepared.fds;
  if (input <= 2 || outputs.includes(input)) return;
  prepared.toClose.delete(input);
  yield* shell.libc.close(input);
}

/** Expands words and opens redirections; undefined, after a complaint and with all closed, if one cannot be opened. */
function* prepare(shell: Shell, command: Command, input: number, output: number): Sleeping<Prepared | undefined> {
  const pid = yield* shell.libc.getpid();
  const values = { "?": shell.status, "!": shell.lastBackgroundPid, $: pid };
  const expand = (word: Command["words"][number]): string =>
    expandWord(word, (variable) => String(values[variable as keyof typeof values]));
  const prepared: Prepared = {
    argv: command.words.map(expand),
    fds: [input, output, 2],
    toClose: new Set([input, output]),
  };
  for (const redirect of command.redirects) {
    const target = expand(redirect.target);
    const fd = yield* openRedirect(shell, redirect, target, prepared.fds);
    if (fd < 0) {
      yield* complain(shell, `${target}: ${strerror(fd)}`, 1);
      yield* closeAll(shell, prepared.toClose);
      return undefined;
    }
    prepared.fds[redirect.fd] = fd;
    prepared.toClose.add(fd);
  }
  return prepared;
}

function* openRedirect(shell: Shell, redirect: Redirect, target: string, fds: readonly number[]): Sleeping<number> {
  if (redirect.kind === ">&") return fds[Number(target)] as number;
  return yield* shell.libc.open(target, OPEN_FLAGS[redirect.kind]);
}

// ── Programs ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** Starts a program: pid, or −status after a complaint. */
function* start(shell: Shell, builtins: Builtins, { argv, fds }: Prepared): Sleeping<number> {
  const [name = "", ...args] = argv;
  const candidates = name.includes("/") ? [name] : BIN_DIRECTORIES.map((directory) => `${directory}/${name}`);
  const placed = name === "kill" ? killArguments(shell, args) : args;
  let result = -ENOENT;
  for (const path of candidates) {
    result = yield* shell.libc.spawn(path, [path, ...placed], fds);
    if (result !== -ENOENT) break;
  }
  if (result >= 0) return result;
  if (result !== -ENOENT) return -(yield* complain(shell, `${name}: ${strerror(result)}`, STATUS_CANNOT_RUN));
  const names = [...builtins.keys()];
  for (const directory of BIN_DIRECTORIES) {
    const found = yield* directoryNames(shell.libc, directory);
    if (typeof found !== "number") names.push(...found);
  }
  const nearest = nearestName(name, names.sort());
  const hint = nearest === undefined ? "" : ` (did you mean ${nearest}?)`;
  return -(yield* complain(shell, `${name}: not found${hint}`, STATUS_NOT_FOUND));
}

/** `%1` of kill becomes the job's pids. */
function killArguments(shell: Shell, args: readonly string[]): string[] {
  return args.flatMap((arg) => {
    const job = shell.jobs.find(({ id }) => arg === `%${id}`);
    return job === undefined ? [arg] : [...job.pids].map(String);
  });
}
