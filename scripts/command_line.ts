/**
 * The command line: parses, dispatches, and turns every end into an exit code and at most a few lines.
 *
 *   0 fine   1 something did not hold   2 usage or input   3 the kernel panicked   70 a bug of ours   130 Ctrl-C
 *
 * Each command's code is loaded when it is wanted: a boot need not wait for YAML, recordings or benches.
 *
 * It is a function of the words and of where to write, so that tests can call it without a process for each.
 */

import { Argument, Command, CommanderError, Option } from "commander";
import type { BenchCommandOptions } from "./bench_command.ts";
import type { BootCommandOptions } from "./boot_command.ts";
import { BootPanic } from "./boot_panic.ts";
import {
  addCommonOptions,
  addFaultOptions,
  addRecordingOptions,
  addSnapshotOptions,
  type CommonOptions,
} from "./command_options.ts";
import { completionScript, SHELLS, type Shell } from "./completion.ts";
import type { ExploreCommandOptions } from "./explore_command.ts";
import { FUZZ_TARGETS } from "./fuzz/finding.ts";
import type { FuzzCommandOptions } from "./fuzz_command.ts";
import type { HostOutput } from "./host_output.ts";
import { addLab, LAB_EXAMPLES } from "./lab/lab_command.ts";
import { EXIT_BUG, EXIT_OK, EXIT_PANIC, EXIT_USAGE } from "./metrics.ts";
import { didYouMean } from "./nearest.ts";
import {
  parseBound,
  parseDepth,
  parseIrqs,
  parseOps,
  parseProgramLength,
  parseRuns,
  parseSamples,
  parseThreads,
} from "./number_options.ts";
import { parseCmdline, parseCpus, parseSeed, parseWhole, shellQuote } from "./options.ts";
import { packageVersion } from "./package_files.ts";
import { InputError, printable } from "./readers/input_error.ts";
import type { ReplayOptions } from "./replay_command.ts";
import type { RunOptions } from "./run_command.ts";
import { UsageError } from "./usage_error.ts";

const EXAMPLES: ReadonlyMap<string, readonly string[]> = new Map([
  ["slabtown", ["slabtown", "slabtown run scripts/samples/tar.rep.gz", "slabtown help run"]],
  ["boot", ["slabtown boot", 'slabtown boot --exec "free; cat /proc/buddyinfo"', "slabtown boot --cpus 8 --mem 1G"]],
  [
    "run",
    [
      "slabtown run scripts/samples/redis.rep.gz scripts/samples/redis-net.ftrace.gz --cpus 4",
      'slabtown run "stress --ops 1000" --seed 7 --json',
      'slabtown run --ops "+100,+24,-0,+80"',
      "slabtown run packets.yaml --fault-sweep --sweep-to 200",
    ],
  ],
  [
    "replay",
    [
      "slabtown run redis.rep.gz --snapshot-every 500k",
      "slabtown replay slabtown.snap --to 2M",
      "slabtown replay slabtown.snap --to @3 --diff @1",
    ],
  ],
  ["procfs", ["slabtown procfs out", "slabtown procfs out --mem 512M --seed 7"]],
  [
    "bench",
    [
      "slabtown bench",
      "slabtown bench --filter A3,A7 --json",
      "slabtown bench --no-peers",
      "slabtown bench --parallel 2",
    ],
  ],
  [
    "explore",
    [
      "slabtown explore --list",
      "slabtown explore depot-lockfree --bound 2",
      "slabtown explore depot-lockfree --mutant untagged --strategy random",
      "slabtown explore --adequacy",
    ],
  ],
  ["fuzz", ["slabtown fuzz --seconds 60", "slabtown fuzz --what machines --runs 100 --seed 7 --out findings"]],
  ["completion", ["source <(slabtown completion bash)", "slabtown completion fish > slabtown.fish"]],
  ...LAB_EXAMPLES,
]);

/** The whole command line as a commander program; actions leave the exit code through `done`. */
function createProgram(host: HostOutput, done: (exitCode: number) => void): Command {
  const program = new Command("slabtown");
  program
    .description("A teaching operating-system kernel whose memory subsystem you can boot, watch, break and build.")
    .version(packageVersion(), "--version", "print the version")
    .helpCommand("help [command]", "show what a command does");

  const boot = program.command("boot", { isDefault: true }).argument("[none...]");
  addFaultOptions(addCommonOptions(boot, "64M"))
    .description("boot to the shell; without a terminal run the demo (this is the default)")
    .option("--exec <COMMANDS>", 'run shell commands, as in "free; ps", and power off')
    .option("--lab <LAB=DIR>", "put a student's code into the kernel, as in 02-buddy=mydir")
    .option("--script <FILE>", "run a file of shell commands (- for standard input) and power off")
    .usage("[options]")
    .action(async (extra: string[], options: BootCommandOptions) => {
      if (extra.length > 0) throw notACommand(program, extra);
      const { bootCommand } = await import("./boot_command.ts");
      done(await bootCommand(options, host));
    });

  const run = program.command("run").argument("[FILE|PROGRAM...]", "recordings, a YAML scenario, built-in programs");
  addSnapshotOptions(addFaultOptions(addRecordingOptions(addCommonOptions(run, "256M"))))
    .description("boot, run workloads all at once, check them, print a summary")
    .option("--seeds <N>", "N seeds, each run twice: is the machine the same at the end?", (text) =>
      parseWhole(text, "--seeds", 1, 1_000_000),
    )
    .action(async (targets: string[], options: RunOptions) => {
      const { runCommand } = await import("./run_command.ts");
      done(await runCommand(targets, options, host));
    });

  const procfs = program.command("procfs").argument("<DIR>", "where to write; made if missing");
  addCommonOptions(procfs, "64M")
    .description("run the demo, then write the machine's memory files under /proc as plain files")
    .action(async (dir: string, options: CommonOptions) => {
      const { procfsCommand } = await import("./procfs_command.ts");
      done(await procfsCommand(dir, options, host));
    });

  addReplay(program, host, done);
  addBench(program, host, done);
  addExplore(program, host, done);
  addLab(program, host, done);
  addFuzz(program, host, done);

  program
    .command("completion")
    .description("print the completion script of a shell")
    .addArgument(new Argument("<shell>").choices(SHELLS))
    .action((shell: Shell) => {
      host.out(completionScript(program, shell));
      done(EXIT_OK);
    });

  addManners(program, host);
  return program;
}

function addReplay(program: Command, host: HostOutput, done: (exitCode: number) => void): void {
  program
    .command("replay")
    .argument("<SNAP>", "a file made by `run --snapshot-every` or `--snapshot`")
    .description("go to any moment of a recorded run, comparing every snapshot on the way")
    .option("--to <PLACE>", "50M: cycles since power-on; +10M, -10M from the last snapshot; @3, @3+10M (default: +0)")
    .option("--diff <PLACE|SNAP>", "what changed in memory since another moment, or from another file's last snapshot")
    .option("--list", "only list the snapshots in the file")
    .option("--json", "the result as one JSON document")
    .option("--quiet", "no progress")
    .option("--no-color", "no colour (also: NO_COLOR)")
    .option("--debug", "stack traces for errors in slabtown itself")
    .allowExcessArguments(false)
    .action(async (path: string, options: ReplayOptions) => {
      const { replayCommand } = await import("./replay_command.ts");
      done(await replayCommand(path, options, host));
    });
}

function addBench(program: Command, host: HostOutput, done: (exitCode: number) => void): void {
  program
    .command("bench")
    .description("measure the memory subsystem on this computer")
    .option("--parallel <N>", "CPUs that are threads over one RAM, 1 to 64", (text) => parseThreads(text))
    .option("--filter <LIST>", "only these figures: ids or parts of names, as in A3,A7,churn")
    .option("--no-peers", "only Slabtown, no other allocators")
    .option("--ops <N>", "timed operations per sample, as in 500k (default: 5M)", (text) => parseOps(text))
    .option("--samples <N>", "samples per figure, of which the median counts (default: 5)", (text) =>
      parseSamples(text),
    )
    .option("--seed <S>", "same seed, same operations (default: 1)", (text) => parseSeed(text))
    .option("--cmdline <PARAMS>", "kernel parameters, with --parallel", (text) => parseCmdline(text))
    .option("--json", "the result as one JSON document")
    .option("--quiet", "no progress")
    .option("--no-color", "no colour (also: NO_COLOR)")
    .option("--debug", "stack traces for errors in slabtown itself")
    .allowExcessArguments(false)
    .action(async (options: BenchCommandOptions) => {
      const { benchCommand } = await import("./bench_command.ts");
      done(await benchCommand(options, host));
    });
}

function addFuzz(program: Command, host: HostOutput, done: (exitCode: number) => void): void {
  const whole = (label: string, min: number, max: number) => (text: string) => parseWhole(text, label, min, max);
  program
    .command("fuzz")
    .description("random machines, programs and inputs; what fails is made small and written as a file that shows it")
    .option(
      "--seconds <N>",
      "begin no run after so much time (default: 60, without --runs)",
      whole("--seconds", 1, 604_800),
    )
    .option("--runs <N>", "how many runs", whole("--runs", 1, 1_000_000_000))
    .option("--first <K>", "number of the first run (default: 0)", whole("--first", 0, 1_000_000_000))
    .option("--seed <S>", "run K of a seed is always the same (default: 1)", (text) => parseSeed(text))
    .addOption(new Option("--what <W>", "what to fuzz (default: all)").choices([...FUZZ_TARGETS, "all"]))
    .option("--out <DIR>", "where to write what was found (default: here)")
    .option("--json", "the result as one JSON document")
    .option("--host", "with --json: also what depends on this computer's speed")
    .option("--quiet", "no progress")
    .option("--no-color", "no colour (also: NO_COLOR)")
    .option("--debug", "stack traces for errors in slabtown itself")
    .allowExcessArguments(false)
    .action(async (options: FuzzCommandOptions) => {
      const { fuzzCommand } = await import("./fuzz_command.ts");
      done(await fuzzCommand(options, host));
    });
}

function addExplore(program: Command, host: HostOutput, done: (exitCode: number) => void): void {
  program
    .command("explore")
    .argument("[SCENARIO]", "what to explore; --list names them")
    .description("search the interleavings of CPUs and interrupts over the kernel's own code")
    .option("--list", "the scenarios, their operations, the bugs that can be planted")
    .option("--strategy <NAME>", "dfs, pct, random, dpor or stress (default: dfs)")
    .option("--bound <N>", "dfs: most preemptions and interrupts (default: 2)", parseBound)
    .option("--depth <N>", "pct, random: orderings per schedule (default: 3, 2)", parseDepth)
    .option("--ops <N>", "random: operations per CPU (default: 40)", parseProgramLength)
    .option("--runs <N>", "most schedules (default: all, or 100000 of pct, random, stress)", parseRuns)
    .option("--seed <S>", "same seed, same schedules (default: 1)", (text) => parseSeed(text))
    .option("--cpus <N>", "CPUs that take part", (text) => parseCpus(text))
    .option("--irqs <N>", "most interrupts per CPU", parseIrqs)
    .option("--programs <TEXT>", 'what each CPU does, as in "ppU | pU"')
    .option("--mutant <NAME>", "plant a bug")
    .option("--schedule <TEXT>", "one schedule, as printed by a search")
    .option("--adequacy", "how soon each planted bug is found, against stress")
    .option("--json", "the result as one JSON document")
    .option("--host", "with --json: also what depends on the speed of this computer")
    .option("--quiet", "no progress")
    .option("--no-color", "no colour (also: NO_COLOR)")
    .option("--debug", "stack traces for errors in slabtown itself")
    .allowExcessArguments(false)
    .action(async (name: string | undefined, options: ExploreCommandOptions) => {
      const { exploreCommand } = await import("./explore_command.ts");
      done(await exploreCommand(name, options, host));
    });
}

/** Examples first in the help; errors are thrown and printed in one place. For `command` and all below it. */
function addManners(command: Command, host: HostOutput, above = ""): void {
  const name = `${above}${command.name()}`;
  const examples = EXAMPLES.get(name) ?? [];
  for (const below of command.commands) addManners(below, host, name === "slabtown" ? "" : `${name} `);
  if (examples.length > 0) {
    command.addHelpText("before", `Examples:\n${examples.map((line) => `  ${line}\n`).join("")}`);
  }
  command.exitOverride().configureOutput({ writeOut: host.out, writeErr: host.err, outputError: () => {} });
}

function notACommand(program: Command, words: readonly string[]): UsageError {
  const names = [...program.commands.map((command) => command.name()), "help"];
  const known = words.find((word) => names.includes(word));
  if (known !== undefined) {
    return new UsageError(`the command ${known} has to come first`, `slabtown ${known} …, options behind it`);
  }
  const word = words[0] ?? "";
  const hint = didYouMean(word, names, `commands: ${names.join(", ")}; a file is run by \`slabtown run FILE\``);
  return new UsageError(`unknown command "${printable(word)}"`, hint);
}

/** Prints what stopped us; the exit code. */
function reportError(error: unknown, argv: readonly string[], host: HostOutput): number {
  if (error instanceof UsageError) {
    host.err(`slabtown: ${error.message}\n${error.hint === undefined ? "" : `  hint: ${error.hint}\n`}`);
    return EXIT_USAGE;
  }
  if (error instanceof InputError) {
    host.err(`${error.format()}\n`);
    return EXIT_USAGE;
  }
  if (error instanceof CommanderError) return reportCommanderError(error, argv, host);
  const replay = ["slabtown", ...argv].map(shellQuote).join(" ");
  if (error instanceof BootPanic) {
    const hint = error.isOutOfMemory ? "  hint: more --mem, or kernel parameters that take less of it\n" : "";
    host.err(`${error.screen()}slabtown: the kernel panicked while booting\n${hint}  to see it again: ${replay}\n`);
    return EXIT_PANIC;
  }
  const message = error instanceof Error ? error.message : String(error);
  host.err(`slabtown: a bug in slabtown itself: ${printable(message)}\n`);
  host.err(`  please report it with this line: ${replay}\n`);
  if (argv.includes("--debug") && error instanceof Error) host.err(`${error.stack ?? ""}\n`);
  else host.err("  --debug adds the stack trace\n");
  return EXIT_BUG;
}

function reportCommanderError(error: CommanderError, argv: readonly string[], host: HostOutput): number {
  if (error.exitCode === 0 || error.code === "commander.help") return EXIT_OK;
  const [message = "", suggestion = ""] = error.message.replace(/^error: /, "").split("\n");
  const meant = /\(Did you mean (.*)\?\)/.exec(suggestion)?.[1];
  const command = argv.find((word) => EXAMPLES.has(word));
  const help = `slabtown ${command === undefined ? "" : `${command} `}--help`;
  host.err(`slabtown: ${printable(message)}\n  hint: ${meant === undefined ? help : `did you mean ${meant}?`}\n`);
  return EXIT_USAGE;
}

/** Runs the command that `argv` names (without node and the program); the exit code. */
export async function runCommandLine(argv: readonly string[], host: HostOutput): Promise<number> {
  let exitCode: number = EXIT_OK;
  try {
    const program = createProgram(host, (code) => {
      exitCode = code;
    });
    await program.parseAsync(argv, { from: "user" });
  } catch (error) {
    exitCode = reportError(error, argv, host);
  }
  return exitCode;
}
