/**
 * What all small programs share: name, usage line, arguments, and messages in the usual form.
 *
 * A tool is a definition of which `programOf()` makes the program that the kernel runs. Bad arguments end in the usage
 * line on fd 2 and status 2; a file that cannot be read in `NAME: PATH: why` and status 1.
 *
 * Context: as any program; everything that calls the kernel may sleep.
 */

import type { Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import { createLibc, type Libc } from "../libc.ts";

export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

export interface ToolDefinition {
  readonly name: string;
  /** Arguments as the usage line shows them. */
  readonly synopsis: string;
  /** One line for `help`. */
  readonly summary: string;
  readonly main: (tool: Tool) => Sleeping<number>;
}

export interface Tool {
  readonly env: ProgramEnv;
  readonly libc: Libc;
  /** Arguments without the name. */
  readonly args: readonly string[];
  /** Writes to fd 1. */
  out(text: string): Sleeping<void>;
  /** Writes `NAME: message` to fd 2. */
  complain(message: string): Sleeping<void>;
  /** Prints the usage line; returns EXIT_USAGE. */
  usage(): Sleeping<number>;
  /** Text of a file, or null after a complaint. */
  text(path: string): Sleeping<string | null>;
  /** Text of a file, or null if it cannot be read. */
  textOrNull(path: string): Sleeping<string | null>;
  /** A system call, slept through. */
  sys(nr: number, ...args: readonly number[]): Sleeping<number>;
}

/** The program of a definition. */
export function programOf(definition: ToolDefinition): Program {
  return function* (env) {
    const tool = createTool(env, definition);
    yield* tool.libc.reserve();
    return yield* definition.main(tool);
  };
}

function createTool(env: ProgramEnv, { name, synopsis }: ToolDefinition): Tool {
  const libc = createLibc(env);
  const tool: Tool = {
    env,
    libc,
    args: libc.args().slice(1),
    *out(text) {
      yield* libc.print(text);
    },
    *complain(message) {
      yield* libc.eprint(`${name}: ${message}\n`);
    },
    *usage() {
      yield* libc.eprint(`usage: ${`${name} ${synopsis}`.trim()}\n`);
      return EXIT_USAGE;
    },
    *text(path) {
      const text = yield* libc.readFile(path);
      if (typeof text === "string") return text;
      yield* tool.complain(`${path}: ${strerror(text)}`);
      return null;
    },
    *textOrNull(path) {
      const text = yield* libc.readFile(path);
      return typeof text === "string" ? text : null;
    },
    sys: libc.call,
  };
  return tool;
}
