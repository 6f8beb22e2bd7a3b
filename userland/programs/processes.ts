/**
 * kill, sleep, uname, setarch, true, false, poweroff, reboot: small programs around one system call each.
 */

import { CYCLES_PER_SECOND } from "../../kernel/params.ts";
import type { Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import { SIGCHLD, SIGCONT, SIGINT, SIGKILL, SIGSEGV, SIGTERM } from "../../kernel/uapi/mman.ts";
import { SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2 } from "../../kernel/uapi/signal.ts";
import { ADDR_NO_RANDOMIZE, SYS_kill, SYS_nanosleep, SYS_personality, SYS_reboot } from "../../kernel/uapi/syscall.ts";
import { parseCount, parseOptions } from "./arguments.ts";
import { EXIT_FAILED, EXIT_OK, type Tool, type ToolDefinition } from "./tool.ts";

const SIGNALS: Readonly<Record<string, number>> = {
  ...{ INT: SIGINT, KILL: SIGKILL, USR1: SIGUSR1, SEGV: SIGSEGV, USR2: SIGUSR2, TERM: SIGTERM, CHLD: SIGCHLD },
  ...{ CONT: SIGCONT, STOP: SIGSTOP, TSTP: SIGTSTP, TTIN: SIGTTIN, TTOU: SIGTTOU },
};
const MAX_SIGNAL = 64;
/** How a shell says that a command could not be run. */
const EXIT_NOT_FOUND = 127;

/** Number of `9`, `KILL` or `SIGKILL`; null for no signal. */
export function parseSignal(text: string): number | null {
  const nr = parseCount(text) ?? SIGNALS[text.toUpperCase().replace(/^SIG/, "")];
  return nr === undefined || nr > MAX_SIGNAL ? null : nr;
}

const kill: ToolDefinition = {
  name: "kill",
  synopsis: "[-SIGNAL] PID...",
  summary: "send a signal (TERM, or -9, -INT, -STOP, -CONT, ...)",
  *main(tool) {
    const [first = ""] = tool.args;
    const signal = first.startsWith("-") ? parseSignal(first.slice(1)) : SIGTERM;
    const pids = (first.startsWith("-") ? tool.args.slice(1) : tool.args).map(parseCount);
    if (signal === null || pids.length === 0 || pids.includes(null)) return yield* tool.usage();
    let status = EXIT_OK;
    for (const pid of pids as number[]) {
      const result = yield* tool.sys(SYS_kill, pid, signal);
      if (result >= 0) continue;
      yield* tool.complain(`${pid}: ${strerror(result)}`);
      status = EXIT_FAILED;
    }
    return status;
  },
};

const sleep: ToolDefinition = {
  name: "sleep",
  synopsis: "SECONDS",
  summary: "sleep in virtual time (0.001 is a million cycles)",
  *main(tool) {
    const [text = ""] = tool.args;
    if (tool.args.length !== 1 || !/^\d+(\.\d+)?$/.test(text)) return yield* tool.usage();
    const result = yield* tool.sys(SYS_nanosleep, Math.round(Number(text) * CYCLES_PER_SECOND));
    return result < 0 ? EXIT_FAILED : EXIT_OK;
  },
};

const uname: ToolDefinition = {
  name: "uname",
  synopsis: "[-asnrvm]",
  summary: "name and version of the kernel",
  *main(tool) {
    const letters = ["-s", "-n", "-r", "-v", "-m"];
    const options = parseOptions(tool.args, { flags: ["-a", ...letters] });
    if (options === null) return yield* tool.usage();
    const fields = yield* tool.libc.uname();
    if (typeof fields === "number") {
      yield* tool.complain(strerror(fields));
      return EXIT_FAILED;
    }
    const wanted = letters.filter((letter) => options.flags.has("-a") || options.flags.has(letter));
    const shown = wanted.length === 0 ? ["-s"] : wanted;
    yield* tool.out(`${shown.map((letter) => fields[letters.indexOf(letter)]).join(" ")}\n`);
    return EXIT_OK;
  },
};

const NO_RANDOMIZE = ["-R", "--addr-no-randomize"];
const PERSONALITY_ASK = 0xffff_ffff;

const setarch: ToolDefinition = {
  name: "setarch",
  synopsis: "-R COMMAND [ARGUMENT...]",
  summary: "run a command at the fixed addresses, whatever kernel.randomize_va_space says",
  *main(tool) {
    const [option = "", command = "", ...rest] = tool.args;
    if (!NO_RANDOMIZE.includes(option) || command === "" || command.startsWith("-")) return yield* tool.usage();
    const old = yield* tool.sys(SYS_personality, PERSONALITY_ASK);
    yield* tool.sys(SYS_personality, (old | ADDR_NO_RANDOMIZE) >>> 0);
    const path = command.includes("/") ? command : `/bin/${command}`;
    const error = yield* tool.libc.execve(path, [command, ...rest]);
    yield* tool.complain(`${command}: ${strerror(error)}`);
    return EXIT_NOT_FOUND;
  },
};

function exitWith(name: string, status: number, summary: string): ToolDefinition {
  return {
    name,
    synopsis: "",
    summary,
    *main() {
      return status;
    },
  };
}

function* restart(tool: Tool, how: number): Sleeping<number> {
  if (tool.args.length > 0) return yield* tool.usage();
  const result = yield* tool.sys(SYS_reboot, how);
  if (result >= 0) return EXIT_OK;
  yield* tool.complain(strerror(result));
  return EXIT_FAILED;
}

const poweroff: ToolDefinition = {
  name: "poweroff",
  synopsis: "",
  summary: "stop the machine",
  main: (tool) => restart(tool, 0),
};

const reboot: ToolDefinition = {
  name: "reboot",
  synopsis: "",
  summary: "stop the machine and ask the host to start it again",
  main: (tool) => restart(tool, 1),
};

export const PROCESS_TOOLS: readonly ToolDefinition[] = [
  kill,
  sleep,
  uname,
  setarch,
  exitWith("true", EXIT_OK, "do nothing, with success"),
  exitWith("false", EXIT_FAILED, "do nothing, without success"),
  poweroff,
  reboot,
];
