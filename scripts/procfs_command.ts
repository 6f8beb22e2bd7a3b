/**
 * `slabtown procfs DIR`: the machine's memory files under /proc, after the demo workload, as plain files.
 *
 * Each file is written beside its place and renamed, and nothing is written before the run has ended well: DIR never
 * holds half a file.
 */

import { mkdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { DEFAULT_RAM_BYTES } from "../kernel/params.ts";
import { demoSet } from "./boot_command.ts";
import { type CommonOptions, machineRequest } from "./command_options.ts";
import { type HostOutput, stoppable } from "./host_output.ts";
import { EXIT_OK, judge } from "./metrics.ts";
import { machineArgs, resolveMachine, shellQuote } from "./options.ts";
import { MEMORY_PROC_FILES } from "./proc_files.ts";
import { createProgress, NO_PROGRESS } from "./progress.ts";
import { runWorkloads } from "./run_workloads.ts";
import { UsageError } from "./usage_error.ts";

/** Boots, runs the demo, writes the files into `dir`; the exit code. */
export async function procfsCommand(dir: string, options: CommonOptions, host: HostOutput): Promise<number> {
  if (dir === "") throw new UsageError("procfs: the directory's name is empty", "slabtown procfs out/");
  await makeDirectory(dir);
  const set = await demoSet();
  const machine = resolveMachine(DEFAULT_RAM_BYTES, machineRequest(options), set.machine);
  const progress = options.quiet === true ? NO_PROGRESS : createProgress(process.stderr);
  const request = { machine, set, progress, cyclesLimit: options.cycles, stop: host.stop };
  const { result, kernel } = await stoppable(host.stop, () => runWorkloads(request));
  progress.end();
  const verdict = judge(result, set.expectations);
  const replay = ["slabtown", "procfs", dir, ...machineArgs(machine)].map(shellQuote).join(" ");
  for (const failure of verdict.failures) host.err(`slabtown: ${failure}\n`);
  if (verdict.exitCode !== EXIT_OK) {
    host.err(`slabtown: nothing written; to see it again: ${replay}\n`);
    return verdict.exitCode;
  }
  const texts = MEMORY_PROC_FILES.map((name) => [name, kernel.readFile(`/proc/${name}`)] as const);
  const written: string[] = [];
  for (const [name, text] of texts) {
    if (text === null) throw new Error(`/proc/${name} does not exist`);
  }
  for (const [name, text] of texts) {
    await writeAtomically(join(dir, name), text ?? "");
    written.push(join(dir, name));
  }
  if (options.json === true) {
    host.out(
      `${JSON.stringify({ schema: "slabtown/procfs/v1", seed: machine.seed, files: written, replay }, null, 2)}\n`,
    );
  } else {
    host.out(`${written.join("\n")}\n`);
    if (options.quiet !== true) host.err(`slabtown: seed ${machine.seed}; again: ${replay}\n`);
  }
  return EXIT_OK;
}

/** As `mkdir -p`. Not with mkdir's own `recursive`, which never returns below /proc (Node 20, 2026). */
async function makeDirectory(dir: string): Promise<void> {
  try {
    await makePath(resolve(dir), true);
  } catch (error) {
    throw asUsageError(dir, error);
  }
}

async function makePath(path: string, mayClimb: boolean): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "EEXIST" && (await stat(path)).isDirectory()) return;
    const parent = dirname(path);
    if (code !== "ENOENT" || !mayClimb || parent === path) throw error;
    await makePath(parent, true);
    await makePath(path, false);
  }
}

async function writeAtomically(path: string, text: string): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    await writeFile(temporary, text, { flag: "wx" });
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw asUsageError(path, error);
  }
}

function asUsageError(path: string, error: unknown): UsageError {
  const reason = error instanceof Error ? error.message.replace(/^(\w+): (.*?), .*$/, "$2 ($1)") : String(error);
  return new UsageError(`${path}: cannot be written: ${reason}`, "name a directory that you may write to");
}
