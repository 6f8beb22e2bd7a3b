/**
 * The options that several commands share, declared once, and their values once commander has parsed them.
 */

import { type Command, Option } from "commander";
import {
  type MachineRequest,
  parseCmdline,
  parseCpus,
  parseCycles,
  parseFailAlloc,
  parseMem,
  parseSeed,
  parseSwap,
  parseWhole,
} from "./options.ts";
import { colorLevel, createPaint, type Paint } from "./paint.ts";
import { RECORDING_FORMATS, type RecordingFormat, TOUCH_MODES, type TouchMode } from "./recording_words.ts";

/** Values as commander leaves them, by the long names of the options. */
export interface CommonOptions {
  readonly cpus?: number;
  readonly mem?: number;
  readonly seed?: string;
  readonly cmdline?: string;
  readonly swap?: number;
  readonly cycles?: number;
  readonly json?: boolean;
  readonly host?: boolean;
  readonly quiet?: boolean;
  readonly debug?: boolean;
  readonly color: boolean;
}

export interface RecordingOptions {
  readonly lenient?: boolean;
  readonly format?: RecordingFormat;
  readonly touch?: TouchMode;
  readonly verify?: boolean;
  readonly ops?: string;
}

/** Declares the machine and output options on `command`. */
export function addCommonOptions(command: Command, defaultMem: string): Command {
  return command
    .option("--cpus <N>", "processors, 1 to 64 (default: 2)", (text) => parseCpus(text))
    .option("--mem <SIZE>", `RAM, 8M to 4G (default: ${defaultMem})`, (text) => parseMem(text))
    .option("--seed <S>", "same seed, same run (default: 1)", (text) => parseSeed(text))
    .option("--cmdline <PARAMS>", "kernel parameters", (text) => parseCmdline(text))
    .option("--swap <SIZE>", "a disk of that size as swap area, 1M to 1G (default: none)", (text) => parseSwap(text))
    .option("--cycles <N>", "stop at the first task switch after so much virtual time, as in 50M", (text) =>
      parseCycles(text),
    )
    .option("--json", "the result as one JSON document")
    .option("--host", "with --json: also what depends on this computer's speed")
    .option("--quiet", "no boot log, no progress")
    .option("--no-color", "no colour (also: NO_COLOR)")
    .option("--debug", "stack traces for errors in slabtown itself");
}

/** Declares how recordings are read and replayed on `command`. */
export function addRecordingOptions(command: Command): Command {
  return command
    .option("--lenient", "go on where a recording has many bad lines")
    .addOption(new Option("--format <F>", "what the recordings are, if it cannot be told").choices(RECORDING_FORMATS))
    .addOption(new Option("--touch <MODE>", "what a replay writes into its memory").choices(TOUCH_MODES))
    .option("--verify", "heap replays stamp their blocks and check the stamps")
    .option("--ops <LIST>", 'a heap as a list: "+3,+0,-1" allocates 3 and 0 bytes, then frees the second');
}

/** How a run can be gone back into. */
export interface SnapshotOptions {
  readonly snapshotEvery?: number;
  readonly snapshot?: string;
}

/** Declares what is kept of a run to go back into it. */
export function addSnapshotOptions(command: Command): Command {
  return command
    .option("--snapshot-every <N>", "a snapshot every N cycles, as in 50M, for `slabtown replay`", (text) =>
      parseCycles(text, "--snapshot-every"),
    )
    .option("--snapshot <FILE>", "where to write them (default: slabtown.snap); alone: one at the end");
}

/** Declares what fails on purpose on `command`. */
export function addFaultOptions(command: Command): Command {
  const whole = (label: string) => (text: string) => parseWhole(text, label, 1, Number.MAX_SAFE_INTEGER);
  return command
    .option("--fail-alloc <N>", "the N-th allocation fails; with N+ all later ones too", (text) => parseFailAlloc(text))
    .option("--fault-sweep", "one run for each allocation, in which it fails: leaks, oopses, hangs, lost data")
    .option("--sweep-from <N>", "first allocation of the sweep (default: 1)", whole("--sweep-from"))
    .option("--sweep-to <N>", "last allocation of the sweep (default: the last of the run)", whole("--sweep-to"))
    .option("--sweep-step <K>", "only every K-th allocation", whole("--sweep-step"))
    .option(
      "--sweep-places <K>",
      "of each place in the kernel that allocates only K allocations",
      whole("--sweep-places"),
    )
    .option("--persistent", "sweep: for each N also with all later ones failing (default: for 50 of them)");
}

/** What the options ask of the machine. */
export function machineRequest(options: CommonOptions): MachineRequest {
  const { cpus, mem, seed, cmdline, swap } = options;
  return { nrCpus: cpus, ramBytes: mem, seed, cmdline, swapBytes: swap };
}

/** The styles for standard output. */
export function paintFor(options: CommonOptions): Paint {
  return createPaint(colorLevel({ color: options.color, env: process.env, isTty: process.stdout.isTTY === true }));
}
