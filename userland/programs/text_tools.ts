/**
 * head, tail, grep and wc: a look at a part of a text, for pipelines in the shell.
 *
 * grep takes a regular expression as the programs' host understands it; a pattern that is none is a usage error.
 */

import { PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import { O_RDONLY } from "../../kernel/uapi/mman.ts";
import { parseCount, parseOptions } from "./arguments.ts";
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, type Tool, type ToolDefinition } from "./tool.ts";

const STANDARD_INPUT = 0;
const DEFAULT_LINES = 10;
const CHUNK_BYTES = 4096;
const [TAB, NEWLINE, CARRIAGE_RETURN, SPACE] = [9, 10, 13, 32];

/** Opens the file at `path`, `-` for standard input, for the time of `use`: 0 or a status. */
function* withFile(tool: Tool, path: string, use: (fd: number) => Sleeping<void>): Sleeping<number> {
  const fd = path === "-" ? STANDARD_INPUT : yield* tool.libc.open(path, O_RDONLY);
  if (fd < 0) {
    yield* tool.complain(`${path}: ${strerror(fd)}`);
    return EXIT_FAILED;
  }
  yield* use(fd);
  if (fd !== STANDARD_INPUT) yield* tool.libc.close(fd);
  return EXIT_OK;
}

/** Calls `visit` for each line of a file until it says false: 0 or a status. */
const forEachLine = (tool: Tool, path: string, visit: (line: string) => Sleeping<boolean>): Sleeping<number> =>
  withFile(tool, path, function* (fd) {
    for (let line = yield* tool.libc.readLine(fd); line !== null; line = yield* tool.libc.readLine(fd)) {
      if (!(yield* visit(line))) break;
    }
  });

/** What head and tail take: how many lines of which file; null if it is not that. */
function parseLines(args: readonly string[]): { readonly nr: number; readonly path: string } | null {
  const spelled = args.flatMap((arg) => (/^-\d+$/.test(arg) ? ["--n", arg.slice(1)] : arg === "-n" ? ["--n"] : [arg]));
  const options = parseOptions(spelled, { values: { "--n": parseCount }, maxOperands: 1 });
  return options && { nr: options.values.get("--n") ?? DEFAULT_LINES, path: options.operands[0] ?? "-" };
}

const head: ToolDefinition = {
  name: "head",
  synopsis: "[-n LINES] [FILE]",
  summary: "the first lines of a file, or of standard input",
  *main(tool) {
    const wanted = parseLines(tool.args);
    if (wanted === null) return yield* tool.usage();
    let left = wanted.nr;
    return yield* forEachLine(tool, wanted.path, function* (line) {
      if (left-- <= 0) return false;
      yield* tool.out(`${line}\n`);
      return left > 0;
    });
  },
};

const tail: ToolDefinition = {
  name: "tail",
  synopsis: "[-n LINES] [FILE]",
  summary: "the last lines of a file, or of standard input",
  *main(tool) {
    const wanted = parseLines(tool.args);
    if (wanted === null) return yield* tool.usage();
    const last: string[] = [];
    const status = yield* forEachLine(tool, wanted.path, function* (line) {
      last.push(line);
      if (last.length > wanted.nr) last.shift();
      return true;
    });
    for (const line of last) yield* tool.out(`${line}\n`);
    return status;
  },
};

/** The expression, or null for a pattern that is none. */
function parsePattern(text: string, ignoreCase: boolean): RegExp | null {
  try {
    return new RegExp(text, ignoreCase ? "i" : "");
  } catch {
    return null;
  }
}

const grep: ToolDefinition = {
  name: "grep",
  synopsis: "[-ivcE] PATTERN [FILE...]",
  summary: "the lines in which PATTERN occurs; status 1 if there are none",
  *main(tool) {
    const flags = ["-i", "-v", "-c", "-E"];
    const options = parseOptions(tool.args, { flags, minOperands: 1, maxOperands: Number.POSITIVE_INFINITY });
    const pattern = parsePattern(options?.operands[0] ?? "", options?.flags.has("-i") === true);
    if (options === null || pattern === null) return yield* tool.usage();
    const paths = options.operands.length > 1 ? options.operands.slice(1) : ["-"];
    const isInverted = options.flags.has("-v");
    const isCounting = options.flags.has("-c");
    let nrFound = 0;
    let hasFailed = false;
    for (const path of paths) {
      const prefix = paths.length > 1 ? `${path}:` : "";
      let nrHere = 0;
      const status = yield* forEachLine(tool, path, function* (line) {
        if (pattern.test(line) === isInverted) return true;
        nrHere++;
        if (!isCounting) yield* tool.out(`${prefix}${line}\n`);
        return true;
      });
      if (isCounting && status === EXIT_OK) yield* tool.out(`${prefix}${nrHere}\n`);
      hasFailed ||= status !== EXIT_OK;
      nrFound += nrHere;
    }
    return hasFailed ? EXIT_USAGE : nrFound > 0 ? EXIT_OK : EXIT_FAILED;
  },
};

const wc: ToolDefinition = {
  name: "wc",
  synopsis: "[FILE]",
  summary: "lines, words and bytes of a file",
  *main(tool) {
    const options = parseOptions(tool.args, { flags: ["-l"], maxOperands: 1 });
    if (options === null) return yield* tool.usage();
    let [nrLines, nrWords, nrBytes] = [0, 0, 0];
    const status = yield* withFile(tool, options.operands[0] ?? "-", function* (fd) {
      let isInWord = false;
      for (;;) {
        const bytes = yield* tool.libc.read(fd, CHUNK_BYTES);
        if (typeof bytes === "number" || bytes.length === 0) return;
        nrBytes += bytes.length;
        for (const byte of bytes) {
          const isSpace = byte === SPACE || (byte >= TAB && byte <= CARRIAGE_RETURN);
          if (byte === NEWLINE) nrLines++;
          if (!isSpace && !isInWord) nrWords++;
          isInWord = !isSpace;
        }
        if (tool.env.timeIsUp()) yield PREEMPTED;
      }
    });
    if (status !== EXIT_OK) return status;
    yield* tool.out(options.flags.has("-l") ? `${nrLines}\n` : `${nrLines} ${nrWords} ${nrBytes}\n`);
    return EXIT_OK;
  },
};

export const TEXT_TOOLS: readonly ToolDefinition[] = [head, tail, grep, wc];
