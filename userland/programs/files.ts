/**
 * cat, ls, echo, hexdump, dmesg, mount and sysctl: files as text.
 */

import { PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import { O_RDONLY } from "../../kernel/uapi/mman.ts";
import { parseOptions } from "./arguments.ts";
import { listDirectory, listDirectoryOrError } from "./directory.ts";
import { EXIT_FAILED, EXIT_OK, type Tool, type ToolDefinition } from "./tool.ts";

const CHUNK_BYTES = 4096;
const LINE_COLUMNS = 80;

/** Copies what is read from `fd` to fd 1: 0 or −errno. */
function* copyOut(tool: Tool, fd: number): Sleeping<number> {
  for (;;) {
    const bytes = yield* tool.libc.read(fd, CHUNK_BYTES);
    if (typeof bytes === "number") return bytes;
    if (bytes.length === 0) return 0;
    const written = yield* tool.libc.writeAll(1, bytes);
    if (written < 0) return written;
    if (tool.env.timeIsUp()) yield PREEMPTED;
  }
}

const cat: ToolDefinition = {
  name: "cat",
  synopsis: "[FILE...]",
  summary: "print files, or standard input",
  *main(tool) {
    const options = parseOptions(tool.args, { maxOperands: Number.POSITIVE_INFINITY });
    if (options === null) return yield* tool.usage();
    let status = EXIT_OK;
    for (const path of options.operands.length === 0 ? ["-"] : options.operands) {
      const fd = path === "-" ? 0 : yield* tool.libc.open(path, O_RDONLY);
      const result = fd < 0 ? fd : yield* copyOut(tool, fd);
      if (fd > 0) yield* tool.libc.close(fd);
      if (result >= 0) continue;
      yield* tool.complain(`${path}: ${strerror(result)}`);
      status = EXIT_FAILED;
    }
    return status;
  },
};

const rm: ToolDefinition = {
  name: "rm",
  synopsis: "FILE...",
  summary: "remove files of the ramfs",
  *main(tool) {
    const options = parseOptions(tool.args, { minOperands: 1, maxOperands: Number.POSITIVE_INFINITY });
    if (options === null) return yield* tool.usage();
    let status = EXIT_OK;
    for (const path of options.operands) {
      const result = yield* tool.libc.unlink(path);
      if (result >= 0) continue;
      yield* tool.complain(`cannot remove '${path}': ${strerror(result)}`);
      status = EXIT_FAILED;
    }
    return status;
  },
};

/** Names in columns from top to bottom, as ls prints them on a terminal. */
export function inColumns(names: readonly string[], lineColumns: number): string {
  const width = Math.max(0, ...names.map((name) => name.length)) + 2;
  const nrColumns = Math.max(1, Math.floor((lineColumns + 1) / width));
  const nrRows = Math.ceil(names.length / nrColumns);
  let text = "";
  for (let row = 0; row < nrRows; row++) {
    let line = "";
    for (let i = row; i < names.length; i += nrRows) line += (names[i] as string).padEnd(width);
    text += `${line.trimEnd()}\n`;
  }
  return text;
}

/** Numbers by value (pids), the rest by character. */
function byName(a: string, b: string): number {
  const difference = Number.parseInt(a, 10) - Number.parseInt(b, 10);
  if (/^\d+\/?$/.test(a) && /^\d+\/?$/.test(b) && difference !== 0) return difference;
  return a < b ? -1 : a > b ? 1 : 0;
}

const ls: ToolDefinition = {
  name: "ls",
  synopsis: "[-1al] [PATH...]",
  summary: "list directories (names are all that there is: -a adds nothing, -l is -1)",
  *main(tool) {
    const options = parseOptions(tool.args, { flags: ["-1", "-a", "-l"], maxOperands: Number.POSITIVE_INFINITY });
    if (options === null) return yield* tool.usage();
    const paths = options.operands.length === 0 ? ["."] : options.operands;
    const width = options.flags.has("-1") || options.flags.has("-l") ? 1 : LINE_COLUMNS;
    let status = EXIT_OK;
    for (const path of paths) {
      const names = yield* namesAt(tool, path);
      if (typeof names === "number") {
        yield* tool.complain(`${path}: ${strerror(names)}`);
        status = EXIT_FAILED;
        continue;
      }
      const title = paths.length > 1 ? `${path}:\n` : "";
      yield* tool.out(title + inColumns(names.sort(byName), width));
    }
    return status;
  },
};

/** Names in a directory, the path itself for a file, or −errno. */
function* namesAt(tool: Tool, path: string): Sleeping<string[] | number> {
  const names = yield* listDirectoryOrError(tool, path);
  if (typeof names !== "number") return names;
  const fd = yield* tool.libc.open(path, O_RDONLY);
  if (fd < 0) return names;
  yield* tool.libc.close(fd);
  return [path];
}

const echo: ToolDefinition = {
  name: "echo",
  synopsis: "[-n] [TEXT...]",
  summary: "print its arguments",
  *main(tool) {
    yield* tool.out(echoText(tool.args));
    return EXIT_OK;
  },
};

/** What echo prints for its arguments; the shell's own echo does the same. */
export function echoText(args: readonly string[]): string {
  return args[0] === "-n" ? args.slice(1).join(" ") : `${args.join(" ")}\n`;
}

/** `hexdump -C`: 16 bytes a line, repeated lines as `*`. */
export function hexdumpText(bytes: Uint8Array): string {
  const hex = (n: number, width: number): string => n.toString(16).padStart(width, "0");
  let text = "";
  let before = "";
  let isStarred = false;
  for (let at = 0; at < bytes.length; at += 16) {
    const row = [...bytes.subarray(at, at + 16)];
    const cells = Array.from({ length: 16 }, (_, i) => (i < row.length ? hex(row[i] as number, 2) : "  "));
    const shown = row.map((b) => (b >= 32 && b < 127 ? String.fromCharCode(b) : ".")).join("");
    const line = `${cells.slice(0, 8).join(" ")}  ${cells.slice(8).join(" ")}  |${shown}|`;
    if (line !== before) text += `${hex(at, 8)}  ${line}\n`;
    else if (!isStarred) text += "*\n";
    isStarred = line === before;
    before = line;
  }
  return bytes.length === 0 ? "" : `${text}${hex(bytes.length, 8)}\n`;
}

const hexdump: ToolDefinition = {
  name: "hexdump",
  synopsis: "[-C] FILE",
  summary: "bytes of a file in hexadecimal",
  *main(tool) {
    const options = parseOptions(tool.args, { flags: ["-C"], minOperands: 1, maxOperands: 1 });
    if (options === null) return yield* tool.usage();
    const path = options.operands[0] as string;
    const bytes = yield* tool.libc.readFileBytes(path);
    if (typeof bytes === "number") {
      yield* tool.complain(`${path}: ${strerror(bytes)}`);
      return EXIT_FAILED;
    }
    yield* tool.out(hexdumpText(bytes));
    return EXIT_OK;
  },
};

const dmesg: ToolDefinition = {
  name: "dmesg",
  synopsis: "",
  summary: "the kernel's messages",
  *main(tool) {
    if (tool.args.length > 0) return yield* tool.usage();
    const text = (yield* tool.textOrNull("/dev/kmsg")) ?? (yield* tool.text("/proc/kmsg"));
    if (text === null) return EXIT_FAILED;
    // `<6>` before a line is its level.
    yield* tool.out(text.replace(/^<\d+>/gm, ""));
    return EXIT_OK;
  },
};

const mount: ToolDefinition = {
  name: "mount",
  synopsis: "",
  summary: "file systems and where they are",
  *main(tool) {
    if (tool.args.length > 0) return yield* tool.usage();
    const text = yield* tool.text("/proc/mounts");
    if (text === null) return EXIT_FAILED;
    for (const line of text.split("\n")) {
      const [device, path, type, flags] = line.split(" ");
      if (flags !== undefined) yield* tool.out(`${device} on ${path} type ${type} (${flags})\n`);
    }
    return EXIT_OK;
  },
};

const sysctl: ToolDefinition = {
  name: "sysctl",
  synopsis: "-a | NAME[=VALUE]...",
  summary: "read and set the values of /proc/sys",
  *main(tool) {
    const options = parseOptions(tool.args, { flags: ["-a", "-w"], maxOperands: Number.POSITIVE_INFINITY });
    const all = options?.flags.has("-a") ?? false;
    if (options === null || all === options.operands.length > 0) return yield* tool.usage();
    const names: string[] = all ? [] : [...options.operands];
    for (const group of all ? ["kernel", "vm"] : []) {
      const files = yield* listDirectory(tool, `/proc/sys/${group}`);
      if (files === null) return EXIT_FAILED;
      names.push(...[...files].sort().map((file) => `${group}.${file}`));
    }
    let status = EXIT_OK;
    for (const name of names) {
      if (!(yield* oneSysctl(tool, name))) status = EXIT_FAILED;
    }
    return status;
  },
};

function* oneSysctl(tool: Tool, setting: string): Sleeping<boolean> {
  const [name = "", value] = setting.split("=");
  const path = `/proc/sys/${name.replaceAll(".", "/")}`;
  const fd = yield* tool.libc.open(path, O_RDONLY);
  if (fd < 0) {
    yield* tool.complain(`cannot stat ${path}: ${strerror(fd)}`);
    return false;
  }
  yield* tool.libc.close(fd);
  if (value !== undefined) {
    const written = yield* tool.libc.writeFile(path, `${value}\n`);
    if (written < 0) {
      yield* tool.complain(`${path}: ${strerror(written)}`);
      return false;
    }
  }
  const text = yield* tool.text(path);
  if (text !== null) yield* tool.out(`${name} = ${text.trimEnd()}\n`);
  return text !== null;
}

export const FILE_TOOLS: readonly ToolDefinition[] = [cat, rm, ls, echo, hexdump, dmesg, mount, sysctl];
