/**
 * sh: the shell. Reads lines, from the terminal with a prompt, and runs them.
 *
 *   sh                 lines of standard input; prompt and history if that is the terminal
 *   sh -c "CMD; CMD"   the text
 *   sh FILE            the lines of a file
 *
 * Ends with the status of the last command, or that of `exit`. sh_parse.ts has the grammar, sh_run.ts runs it.
 */

import { PREEMPTED, type Sleeping } from "../kernel/types.ts";
import { strerror } from "../kernel/uapi/errno.ts";
import { SEEK_CUR } from "../kernel/uapi/mman.ts";
import type { Program } from "../kernel/uapi/program.ts";
import { SYS_lseek } from "../kernel/uapi/syscall.ts";
import { decodeUtf8 } from "../kernel/uapi/utf8.ts";
import { createLibc } from "./libc.ts";
import { createBuiltins, type ProgramHelp } from "./sh_builtins.ts";
import { runText } from "./sh_run.ts";
import { type Builtin, createShellState, reapJobs, remember, type Shell } from "./sh_state.ts";

const PROMPT = "# ";
const LINE_BYTES = 4096;
const STATUS_USAGE = 2;
const STATUS_NO_FILE = 127;

/** The shell, with the programs that its `help` shall know. */
export function createShell(programs: readonly ProgramHelp[]): Program {
  const builtins = createBuiltins(programs);
  return function* (env) {
    const libc = createLibc(env);
    const [, first, second] = libc.args();
    // Files can be positioned, a terminal cannot. (Neither can a pipe: there the prompts are harmless, on fd 2.)
    const isTerminal = first === undefined && (yield* libc.call(SYS_lseek, 0, 0, SEEK_CUR)) < 0;
    const shell = createShellState(env, libc, isTerminal || first === "-i");
    if (first === undefined || first === "-i") return yield* readAndRun(shell, builtins);
    if (first === "-c" && second !== undefined) return yield* runAll(shell, builtins, second);
    if (first.startsWith("-")) {
      yield* libc.eprint("usage: sh [-c COMMANDS | FILE]\n");
      return STATUS_USAGE;
    }
    const text = yield* libc.readFile(first);
    if (typeof text === "string") return yield* runAll(shell, builtins, text);
    yield* libc.eprint(`sh: ${first}: ${strerror(text)}\n`);
    return STATUS_NO_FILE;
  };
}

function* runAll(shell: Shell, builtins: ReadonlyMap<string, Builtin>, text: string): Sleeping<number> {
  yield* runText(shell, builtins, text);
  return shell.exiting ?? shell.status;
}

/** Line by line until the end of input or `exit`. */
function* readAndRun(shell: Shell, builtins: ReadonlyMap<string, Builtin>): Sleeping<number> {
  const { libc } = shell;
  let pending = "";
  while (shell.exiting === undefined) {
    if (shell.isInteractive && pending === "") yield* prompt(shell);
    const bytes = yield* libc.read(0, LINE_BYTES);
    const isEnd = typeof bytes === "number" || bytes.length === 0;
    pending += isEnd ? "\n" : decodeUtf8(bytes);
    for (let end = pending.indexOf("\n"); end >= 0 && shell.exiting === undefined; end = pending.indexOf("\n")) {
      const line = pending.slice(0, end);
      pending = pending.slice(end + 1);
      remember(shell, line);
      yield* runText(shell, builtins, line);
      if (shell.env.timeIsUp()) yield PREEMPTED;
    }
    if (!isEnd) continue;
    if (shell.isInteractive) yield* libc.eprint("\n");
    break;
  }
  return shell.exiting ?? shell.status;
}

/** News of background jobs, then the prompt. */
function* prompt(shell: Shell): Sleeping<void> {
  for (const job of yield* reapJobs(shell)) {
    const how = job.status === 0 ? "Done" : `Exit ${job.status}`;
    yield* shell.libc.eprint(`[${job.id}] ${how.padEnd(8)} ${job.text}\n`);
  }
  yield* shell.libc.eprint(PROMPT);
}
