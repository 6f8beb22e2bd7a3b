/**
 * `slabtown boot`: a machine to sit at. Without a terminal: a script to follow, or the demo workload.
 *
 *   --exec, --script        the commands, then the end of the input
 *   a terminal              the shell, with line editing
 *   something piped in      fed to the console as it is
 *   nothing                 the demo: scripts/scenarios/demo.yaml, its summary
 *
 * What reads scenarios and writes summaries is loaded for the demo only: a shell is there sooner without.
 */

import { fstatSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { KernelBug } from "../kernel/bug.ts";
import type { BootOptions, Kernel, RunStop } from "../kernel/entry/kernel.ts";
import { DEFAULT_RAM_BYTES } from "../kernel/params.ts";
import { builtinPrograms } from "../userland/index.ts";
import { type CommonOptions, machineRequest } from "./command_options.ts";
import { checkFaultOptions, type FaultOptions, sweepCommand } from "./fault_sweep_command.ts";
import { type HostOutput, stoppable } from "./host_output.ts";
import { EXIT_INTERRUPT, EXIT_OK, EXIT_PANIC } from "./metrics.ts";
import { failing, type MachineOptions, machineArgs, resolveMachine, shellQuote } from "./options.ts";
import { packageFile } from "./package_files.ts";
import { PROC_FILES } from "./proc_files.ts";
import { readInput } from "./readers/input.ts";
import { bootMachine } from "./run_workloads.ts";
import { createSession } from "./snapshots/session.ts";
import { createTerminal, type SessionEnd, shellCompleter } from "./terminal.ts";
import { UsageError } from "./usage_error.ts";
import type { WorkloadSet } from "./workloads.ts";

export interface BootCommandOptions extends CommonOptions, FaultOptions {
  readonly exec?: string;
  readonly script?: string;
  readonly lab?: string;
}

/** How long an open pipe on standard input may stay silent before it counts as nobody there. */
const PIPE_GRACE_MS = 1000;

/** Boots; the exit code. */
export async function bootCommand(options: BootCommandOptions, host: HostOutput): Promise<number> {
  checkFaultOptions(options);
  const input = await consoleInput(options);
  if (options.faultSweep === true) return sweepBoot(input, options, host);
  if (options.lab !== undefined && input === undefined && !(process.stdin.isTTY && process.stdout.isTTY)) {
    throw new UsageError("--lab needs a terminal or commands", 'slabtown boot --lab LAB=DIR --exec "free; usertests"');
  }
  if (input === undefined)
    return process.stdin.isTTY && process.stdout.isTTY
      ? orPanic(() => atTerminal(options, host), options, host)
      : demo(options, host);
  if (options.json === true) throw new UsageError("--json is for the demo, not for shell commands", "use `run --json`");
  const machine = failing(resolveMachine(DEFAULT_RAM_BYTES, machineRequest(options)), options.failAlloc);
  return stoppable(host.stop, () => orPanic(() => script(input, machine, options, host), options, host));
}

/** The sweep over a boot with shell commands, or over the demo. */
async function sweepBoot(input: string | undefined, options: BootCommandOptions, host: HostOutput): Promise<number> {
  if (input === undefined) {
    const { loadWorkloads } = await import("./workloads.ts");
    const set = await loadWorkloads([packageFile("scenarios/demo.yaml")], { verify: true });
    const machine = resolveMachine(DEFAULT_RAM_BYTES, machineRequest(options), set.machine);
    const words = ["slabtown", "run", "demo.yaml", "--verify", ...machineArgs(machine)];
    return sweepCommand({ set, machine, replay: words.map(shellQuote).join(" "), options, host });
  }
  const machine = resolveMachine(DEFAULT_RAM_BYTES, machineRequest(options));
  const words = ["slabtown", "boot", "--exec", input.trimEnd(), ...machineArgs(machine)];
  const set = initSet(input);
  return sweepCommand({ set, machine, replay: words.map(shellQuote).join(" "), options, host });
}

/** A workload that is init, with a shell that runs `commands`. */
export function initSet(commands: string): WorkloadSet {
  const init = { kind: "program", path: "/sbin/init", args: ["init", "-c", commands] } as const;
  const workload = { ...init, name: "init", atCycles: 0, nrOps: undefined, warnings: [] };
  return {
    workloads: [workload],
    programs: builtinPrograms(),
    machine: {},
    expectations: [],
    modules: [],
    devices: {},
    rules: {},
  };
}

/** The demo workload. */
export async function demoSet(): Promise<WorkloadSet> {
  const { loadWorkloads } = await import("./workloads.ts");
  return loadWorkloads([packageFile("scenarios/demo.yaml")]);
}

async function demo(options: BootCommandOptions, host: HostOutput): Promise<number> {
  const set = await demoSet();
  const asked = resolveMachine(DEFAULT_RAM_BYTES, machineRequest(options), set.machine);
  const machine = failing(asked, options.failAlloc);
  const replay = ["slabtown", "run", "scripts/scenarios/demo.yaml", ...machineArgs(machine)].map(shellQuote).join(" ");
  const { runAndReport } = await import("./run_command.ts");
  return runAndReport({ set, machine, replay, options, host, showsBoot: true });
}

/** What the console is to read, if it is known before. */
async function consoleInput(options: BootCommandOptions): Promise<string | undefined> {
  if (options.exec !== undefined && options.script !== undefined) {
    throw new UsageError("--exec and --script exclude each other", "give one of them");
  }
  if (options.exec !== undefined) return `${options.exec}\n`;
  if (options.script !== undefined) {
    const { bytes } = await readInput(options.script);
    const text = new TextDecoder().decode(bytes);
    return text.endsWith("\n") ? text : `${text}\n`;
  }
  return process.stdin.isTTY ? undefined : pipedInput();
}

/** All of standard input if something is piped in; undefined for /dev/null, an empty file, or a silent pipe. */
async function pipedInput(): Promise<string | undefined> {
  try {
    const info = fstatSync(0);
    if (!info.isFIFO() && !info.isFile() && !info.isSocket()) return undefined;
  } catch {
    return undefined;
  }
  const { stdin } = process;
  stdin.setEncoding("utf8");
  let text = "";
  const end = await new Promise<"end" | "silent">((resolve) => {
    const timer = setTimeout(() => resolve("silent"), PIPE_GRACE_MS);
    stdin.on("data", (chunk: string) => {
      clearTimeout(timer);
      text += chunk;
    });
    stdin.once("end", () => resolve("end"));
    stdin.once("error", () => resolve("end"));
  });
  if (end === "silent") stdin.destroy();
  return text === "" ? undefined : text;
}

/** What `--lab` puts into the kernel, made anew for each boot; loaded only then. */
async function labOf({ lab }: BootCommandOptions, { ramBytes }: MachineOptions): Promise<LabOfKernel> {
  if (lab === undefined) return () => ({});
  return (await import("./lab/boot_lab.ts")).labBootOptions(lab, ramBytes);
}
type LabOfKernel = () => Partial<BootOptions>;

/** Runs `work`. With a student's code in the kernel a bug that no task could take with it is a panic, and not ours. */
async function orPanic(work: () => Promise<number>, options: BootCommandOptions, host: HostOutput): Promise<number> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof KernelBug) || options.lab === undefined) throw error;
    host.out(`kernel BUG: ${error.message}\nKernel panic - not syncing: Fatal exception\n`);
    return EXIT_PANIC;
  }
}

async function script(
  input: string,
  machine: MachineOptions,
  options: BootCommandOptions,
  host: HostOutput,
): Promise<number> {
  const onLab = await labOf(options, machine);
  const session = createSession({
    boot(console) {
      const kernel = bootQuietly(machine, options, console, onLab);
      kernel.spawn("/sbin/init", ["init", "-c", input]);
      kernel.closeConsole();
      return kernel;
    },
    console: host.out,
    cycles: options.cycles,
  });
  let reason: RunStop = "budget";
  while (reason === "budget" && !session.isOver() && host.stop.reason === "none") {
    reason = await session.run();
    await setImmediate();
  }
  if (host.stop.reason === "interrupt") return EXIT_INTERRUPT;
  return endOfSession(reason, session.kernel(), machine, options, host);
}

/** Boots; the log of boot is left out with --quiet. */
function bootQuietly(
  machine: MachineOptions,
  options: BootCommandOptions,
  console: (text: string) => void,
  onLab: LabOfKernel,
): Kernel {
  let isBooting = true;
  const show = (text: string): void => {
    if (!(isBooting && options.quiet === true)) console(text);
  };
  const kernel = bootMachine(machine, builtinPrograms(), show, onLab());
  isBooting = false;
  return kernel;
}

async function atTerminal(options: BootCommandOptions, host: HostOutput): Promise<number> {
  const machine = failing(resolveMachine(DEFAULT_RAM_BYTES, machineRequest(options)), options.failAlloc);
  const complete = shellCompleter(
    builtinPrograms().keys(),
    PROC_FILES.map((name) => `/proc/${name}`),
  );
  const terminal = createTerminal({ keys: process.stdin, write: host.out, complete });
  const onLab = await labOf(options, machine);
  const session = createSession({
    boot(console) {
      const kernel = bootQuietly(machine, options, console, onLab);
      kernel.spawn("/sbin/init", ["init"]);
      return kernel;
    },
    console: terminal.console,
  });
  const end = await terminal.serve(session);
  return endOfSession(end, session.kernel(), machine, options, host);
}

function endOfSession(
  end: SessionEnd,
  kernel: Kernel,
  machine: MachineOptions,
  { lab }: BootCommandOptions,
  host: HostOutput,
): number {
  const labArgs = lab === undefined ? [] : ["--lab", lab];
  const replay = ["slabtown", "boot", ...machineArgs(machine), ...labArgs].map(shellQuote).join(" ");
  host.err(`slabtown: seed ${machine.seed}; the same machine again: ${replay}\n`);
  if (end === "quit") return EXIT_INTERRUPT;
  if (kernel.panicReport === null) return EXIT_OK;
  host.err("slabtown: the kernel panicked\n");
  return EXIT_PANIC;
}
