/**
 * Child processes of the bench: each sample in a fresh one, because what the compiler learnt from one workload changes
 * the code of the next. A child answers with one line of JSON.
 */

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { BenchRun } from "./bench_run.ts";
import type { ChildTask } from "./child_tasks.ts";

/** Built file `name` of the package, from the sources and from the build alike. */
export function builtFile(name: string): string {
  for (const base of ["../", "../../dist/scripts/"]) {
    const file = fileURLToPath(new URL(`${base}${name}`, import.meta.url));
    if (file.endsWith(".js") && existsSync(file)) return file;
  }
  throw new Error(`the package is incomplete: dist/scripts/${name} is missing; npm run build`);
}

export interface ChildCommand {
  readonly file: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** What `command` prints on standard output; null if the bench was stopped meanwhile. Throws if it fails. */
export function runCommand({ file, args, env }: ChildCommand, run: BenchRun): Promise<string | null> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
    let [output, errors] = ["", ""];
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      errors += chunk.toString();
    });
    const timer = setInterval(() => {
      if (run.isStopped()) child.kill("SIGKILL");
    }, 50);
    child.on("error", (error) => {
      clearInterval(timer);
      reject(error);
    });
    child.on("close", (code, signal) => {
      clearInterval(timer);
      // A terminal sends Ctrl-C to the children as well, and they may be faster.
      if (run.isStopped() || signal === "SIGINT") resolve(null);
      else if (code === 0) resolve(output);
      else reject(new Error(`bench: ${args.join(" ")} ended with ${code ?? signal}: ${lastLine(errors)}`));
    });
  });
}

const lastLine = (text: string): string => {
  const lines = text.trim().split("\n");
  return lines.find((line) => /Error:/.test(line)) ?? lines.at(-1) ?? "";
};

/** The answer to `task`, of a fresh process of the bench; null if the bench was stopped. */
export async function runTask<Reply>(task: ChildTask, run: BenchRun): Promise<Reply | null> {
  const args = [builtFile("bench/bench_child.js"), JSON.stringify(task)];
  const output = await runCommand({ file: process.execPath, args }, run);
  return output === null ? null : (JSON.parse(output) as Reply);
}
