/**
 * The shell's ulimit: limits of the shell itself, which its children inherit.
 *
 *   ulimit -u 30         at most 30 processes         ulimit -v       the limit of address space
 *   ulimit -a            all of them                  -S, -H          only the soft, only the hard limit
 *
 * Units are bash's: sizes in kilobytes, everything else counted.
 */

import type { Sleeping } from "../kernel/types.ts";
import { strerror } from "../kernel/uapi/errno.ts";
import {
  RLIM_INFINITY,
  RLIMIT_AS,
  RLIMIT_CORE,
  RLIMIT_CPU,
  RLIMIT_DATA,
  RLIMIT_FSIZE,
  RLIMIT_MEMLOCK,
  RLIMIT_NOFILE,
  RLIMIT_NPROC,
  RLIMIT_RSS,
  RLIMIT_STACK,
} from "../kernel/uapi/resource.ts";
import { parseCount } from "./programs/arguments.ts";
import type { BuiltinCall } from "./sh_state.ts";

interface Resource {
  readonly letter: string;
  readonly number: number;
  readonly name: string;
  /** Bytes in a unit, 1 where nothing is measured in bytes. */
  readonly unit: number;
}

const RESOURCES: readonly Resource[] = [
  { letter: "c", number: RLIMIT_CORE, name: "core file size", unit: 1024 },
  { letter: "d", number: RLIMIT_DATA, name: "data seg size", unit: 1024 },
  { letter: "f", number: RLIMIT_FSIZE, name: "file size", unit: 1024 },
  { letter: "l", number: RLIMIT_MEMLOCK, name: "max locked memory", unit: 1024 },
  { letter: "m", number: RLIMIT_RSS, name: "max memory size", unit: 1024 },
  { letter: "n", number: RLIMIT_NOFILE, name: "open files", unit: 1 },
  { letter: "s", number: RLIMIT_STACK, name: "stack size", unit: 1024 },
  { letter: "t", number: RLIMIT_CPU, name: "cpu time", unit: 1 },
  { letter: "u", number: RLIMIT_NPROC, name: "max user processes", unit: 1 },
  { letter: "v", number: RLIMIT_AS, name: "virtual memory", unit: 1024 },
];

const USAGE = `[-SH] [-a | -${RESOURCES.map(({ letter }) => letter).join("|-")} [LIMIT]]`;
const COMPLAINT = `sh: usage: ulimit ${USAGE}\n`;

export const ULIMIT = { synopsis: USAGE, summary: "show or set limits of the shell and its children", run: ulimit };

interface Request {
  readonly resource: Resource | "all";
  readonly which: "soft" | "hard" | "both";
  /** Undefined: show. */
  readonly value: number | undefined;
}

/** What the arguments ask for; null for nonsense. */
function requestOf(args: readonly string[]): Request | null {
  let which: Request["which"] = "both";
  let resource: Resource | "all" | undefined;
  let text: string | undefined;
  for (const arg of args) {
    if (!/^-[a-zA-Z]+$/.test(arg)) {
      if (text !== undefined) return null;
      text = arg;
      continue;
    }
    for (const letter of arg.slice(1)) {
      const found = RESOURCES.find((known) => known.letter === letter);
      if (letter === "S" || letter === "H") which = letter === "S" ? "soft" : "hard";
      else if (resource !== undefined) return null;
      else if (letter === "a") resource = "all";
      else if (found === undefined) return null;
      else resource = found;
    }
  }
  const chosen = resource ?? RESOURCES.find(({ letter }) => letter === "f");
  if (chosen === undefined || (chosen === "all" && text !== undefined)) return null;
  if (text === undefined || chosen === "all") return { resource: chosen, which, value: undefined };
  const value = text === "unlimited" ? RLIM_INFINITY : parseCount(text);
  return value === null ? null : { resource: chosen, which, value: value * chosen.unit };
}

const shown = (limit: number, unit: number): string => (Number.isFinite(limit) ? String(limit / unit) : "unlimited");

function* ulimit({ shell, args, outFd, errFd }: BuiltinCall): Sleeping<number> {
  const request = requestOf(args);
  if (request === null) {
    yield* shell.libc.write(errFd, COMPLAINT);
    return 2;
  }
  const { resource, which, value } = request;
  let text = "";
  for (const each of resource === "all" ? RESOURCES : [resource]) {
    const old = yield* shell.libc.prlimit(each.number);
    if (typeof old === "number") return yield* refused(each, old);
    if (value !== undefined) {
      const next = { soft: which === "hard" ? old.soft : value, hard: which === "soft" ? old.hard : value };
      const result = yield* shell.libc.prlimit(each.number, next);
      if (typeof result === "number") return yield* refused(each, result);
      continue;
    }
    const limit = shown(which === "hard" ? old.hard : old.soft, each.unit);
    const label = `(${each.unit === 1 ? "" : "kbytes, "}-${each.letter})`;
    text += resource === "all" ? `${each.name.padEnd(20)} ${label.padStart(14)} ${limit}\n` : `${limit}\n`;
  }
  if (text !== "") yield* shell.libc.write(outFd, text);
  return 0;

  function* refused({ name }: Resource, errno: number): Sleeping<number> {
    yield* shell.libc.write(errFd, `sh: ulimit: ${name}: ${strerror(errno)}\n`);
    return 1;
  }
}
