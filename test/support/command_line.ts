/**
 * A command of slabtown run in this process: no start of Node, no loading of 400 modules for each.
 *
 * For tests of what commands say and answer. What belongs to the process (exit codes, streams, pipes, signals,
 * terminals, colours) is tested with the built program.
 */
import { spawnSync } from "node:child_process";
import { runCommandLine } from "../../scripts/command_line.ts";

export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `args`; without colours. Not for commands that read standard input or want the process's Ctrl-C. */
export async function commandLine(...args: readonly string[]): Promise<Outcome> {
  let [stdout, stderr] = ["", ""];
  const before = process.env.NO_COLOR;
  process.env.NO_COLOR = "1";
  try {
    const status = await runCommandLine(args, {
      out(text) {
        stdout += text;
      },
      err(text) {
        stderr += text;
      },
      stop: { reason: "none" },
    });
    return { status, stdout, stderr };
  } finally {
    if (before === undefined) delete process.env.NO_COLOR;
    else process.env.NO_COLOR = before;
  }
}

/** The words of a line as it stands in a page, as a shell takes them apart: `slabtown boot --exec "free; ps"`. */
export function wordsOf(line: string): string[] {
  const { stdout } = spawnSync("sh", ["-c", line.replace(/^slabtown /, "printf '%s\\0' ")], { encoding: "utf8" });
  return stdout.split("\0").slice(0, -1);
}
