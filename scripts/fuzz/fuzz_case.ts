/**
 * A case of the fuzzer: everything that one run is made of, as data that can be drawn, shrunk and written down.
 *
 * Its written form is a scenario. The fuzzer runs that text and nothing else, so what `slabtown run FILE` does with the
 * file is what the fuzzer has seen. What a run has to put in order at its end follows from the case: modules out, CPUs
 * back, contiguous memory back. Then nothing may be left.
 */

import { stringify } from "yaml";
import type { DeviceSettings } from "../../drivers/index.ts";
import { formatSize, shellQuote } from "../options.ts";

/** Words of a command; the shell's own signs stay as they are. */
export type Words = readonly string[];

export interface FuzzProgram {
  /** Commands of a shell script; one alone that is `isPlain` is started without a shell. */
  readonly steps: readonly Words[];
  readonly isPlain: boolean;
  readonly at: number;
  readonly count: number;
}

export interface FuzzRecording {
  readonly source: { readonly file: string } | { readonly ops: string };
  readonly at: number;
  readonly touch: string;
  readonly limit: number;
}

export interface FuzzCase {
  readonly cpus: number;
  readonly memBytes: number;
  readonly seed: string;
  readonly params: readonly string[];
  /** Lines for insmod. */
  readonly modules: readonly string[];
  readonly devices: Readonly<Record<string, DeviceSettings>>;
  readonly programs: readonly FuzzProgram[];
  readonly recordings: readonly FuzzRecording[];
  readonly checkCycles: number;
  readonly killCycles: number;
}

const OPERATORS: ReadonlySet<string> = new Set(["|", "&", "&&", "||", ">", ">>", "<", "2>&1"]);
/** Disks that may hold a swap area: the driver's first, and that of the kernel parameter swap=. */
const SWAP_NODES = ["/dev/sda", "/dev/sdb"];
const CMA_FREE = "/sys/kernel/debug/cma/reserved/free";

const wordText = (word: string): string => (OPERATORS.has(word) ? word : shellQuote(word));

/** The commands as a shell script: `a; b & c`. */
export function scriptText(steps: readonly Words[]): string {
  return steps
    .map((words, i) => words.map(wordText).join(" ") + (i < steps.length - 1 && words.at(-1) !== "&" ? ";" : ""))
    .join(" ");
}

/** What a scenario says behind `run:`. */
export function runText({ steps, isPlain }: FuzzProgram): string {
  const [first = []] = steps;
  return isPlain ? first.map(shellQuote).join(" ") : `sh -c ${shellQuote(scriptText(steps))}`;
}

/** Names of all drivers that the case may have loaded. */
function loadable(drivers: readonly string[], text: string): string[] {
  return drivers.filter((name) => text.includes(name));
}

/** Programs that put in order what the case has changed. Each by itself: a shell would need memory beside it. */
function finallyOf(fuzzCase: FuzzCase, drivers: readonly string[]): string[] {
  const text = [...fuzzCase.modules, ...fuzzCase.params, ...fuzzCase.programs.map(runText)].join(" ");
  const writes: string[] = [];
  if (text.includes("/online")) {
    for (let cpu = 1; cpu < fuzzCase.cpus; cpu++) writes.push(`echo 1 > /sys/devices/system/cpu/cpu${cpu}/online`);
  }
  if (text.includes("/debug/cma/")) writes.push(`echo 999999 > ${CMA_FREE}`);
  const script = writes.length === 0 ? [] : [`sh -c ${shellQuote(writes.join("; "))}`];
  // The driver of a swap disk keeps pools that have grown, until it goes.
  const hasSwap = fuzzCase.params.some((param) => param.startsWith("swap=")) || text.includes("swapon");
  const swap = hasSwap ? SWAP_NODES.map((node) => `swapoff ${node}`) : [];
  const modules = loadable(drivers, hasSwap ? `${text} disk` : text);
  const commands = [...script, ...swap, ...modules.map((name) => `rmmod ${name}`)];
  return commands.length === 0 ? ["true"] : commands;
}

/** What `sysfuzz` may write to (userland/programs/sysfuzz_calls.ts). */
const SYSFUZZ_FILES = /^\/(tmp\/[abcd]|dev\/sd[ab])$/;

/** True if contents may be wrong with no bug at all: devices that spoil them, or two programs that write one file. */
function mayBeWrong({ devices, programs }: FuzzCase): boolean {
  if (Object.values(devices).some((settings) => "corrupt" in settings || "stray_write" in settings)) return true;
  const words = programs.flatMap(({ count, steps }) => Array.from({ length: count }, () => steps.flat()).flat());
  const tested = words.flatMap((word, i) => (word === "iotest" ? [words[i + 1] ?? ""] : []));
  if (tested.some((file) => words.filter((word) => word.endsWith(file)).length > 1)) return true;
  // Random system calls write to files that no argument names.
  return words.includes("sysfuzz") && tested.some((file) => SYSFUZZ_FILES.test(file));
}

/** The case as a scenario; `comment` stands above it. `drivers`: the names of all modules. */
export function caseText(fuzzCase: FuzzCase, drivers: readonly string[], comment: readonly string[] = []): string {
  const { cpus, memBytes, seed, params, modules, devices, programs, recordings } = fuzzCase;
  const document = {
    machine: { cpus, mem: formatSize(memBytes), seed },
    ...(params.length > 0 ? { cmdline: params.join(" ") } : {}),
    ...(modules.length > 0 ? { modules } : {}),
    ...(Object.keys(devices).length > 0 ? { devices } : {}),
    ...(programs.length > 0 ? { programs: programs.map(programEntry) } : {}),
    ...(recordings.length > 0 ? { recordings: recordings.map(recordingEntry) } : {}),
    check: fuzzCase.checkCycles,
    kill: fuzzCase.killCycles,
    finally: finallyOf(fuzzCase, drivers),
    expect: {
      // Programs may fail; they may not lose what they wrote.
      exit_status: ">= 0",
      corrupt: mayBeWrong(fuzzCase) ? ">= 0" : 0,
    },
  };
  const head = comment.map((line) => `# ${line}\n`).join("");
  return head + stringify(document, { lineWidth: 0 });
}

function programEntry(program: FuzzProgram): object {
  const { at, count } = program;
  return { run: runText(program), ...(at > 0 ? { at } : {}), ...(count > 1 ? { count } : {}) };
}

function recordingEntry({ source, at, touch, limit }: FuzzRecording): object {
  return { ...source, ...(at > 0 ? { at } : {}), touch, verify: true, limit };
}
