/**
 * Option values: text from the command line or a scenario, into numbers within their limits.
 *
 * Every function takes the text and what to call it in the message, and throws `UsageError` with what would have been
 * right. Nothing is rounded, clamped or guessed: a course's script with a typo should stop, not run something else.
 */

import { DEFAULT_CPUS, DEFAULT_SEED, MAX_CPUS, MAX_RAM_BYTES, MIN_RAM_BYTES, PAGE_SIZE } from "../kernel/params.ts";
import { printable } from "./readers/input_error.ts";
import { UsageError } from "./usage_error.ts";

/** The machine to boot. */
export interface MachineOptions {
  readonly nrCpus: number;
  readonly ramBytes: number;
  readonly seed: string;
  readonly cmdline: string;
}

/** What was asked for explicitly; the rest comes from the scenario, then from the defaults. */
export interface MachineRequest {
  readonly nrCpus?: number | undefined;
  readonly ramBytes?: number | undefined;
  readonly seed?: string | undefined;
  readonly cmdline?: string | undefined;
  /** Size of a swap disk: one more kernel parameter. */
  readonly swapBytes?: number | undefined;
}

/** RAM of `run`, where whole programs are replayed. */
export const RUN_RAM_BYTES = 256 * 1024 * 1024;

const UNITS: ReadonlyMap<string, number> = new Map([
  ["", 1],
  ["b", 1],
  ["k", 1024],
  ["m", 1024 ** 2],
  ["g", 1024 ** 3],
  ["t", 1024 ** 4],
]);
const SIZE_PATTERN = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i;
const SIZE_HINT = "for example 64M, 512M or 2G";
const MAX_SEED_LENGTH = 64;
const MAX_CMDLINE_LENGTH = 2048;

/** `64M` → bytes: a whole number of bytes, units are powers of 1,024. */
export function parseSize(text: string, label: string): number {
  const match = SIZE_PATTERN.exec(text.trim());
  const unit = UNITS.get((match?.[2] ?? "").toLowerCase());
  if (match === null || unit === undefined) {
    throw new UsageError(`${label} ${shown(text)} is no size`, SIZE_HINT);
  }
  const bytes = Number(match[1]) * unit;
  if (!Number.isSafeInteger(bytes)) {
    throw new UsageError(`${label} ${shown(text)} is not a whole number of bytes`, SIZE_HINT);
  }
  return bytes;
}

/** RAM: 8M to 4G, whole pages. */
export function parseMem(text: string, label = "--mem"): number {
  const bytes = parseSize(text, label);
  const range = `expected ${formatSize(MIN_RAM_BYTES)} to ${formatSize(MAX_RAM_BYTES)}`;
  if (bytes < MIN_RAM_BYTES) {
    const hint = /^\d+$/.test(text.trim()) && bytes > 0 ? `a unit may be missing: ${text.trim()}M?` : SIZE_HINT;
    throw new UsageError(`${label} ${shown(text)} is too small to boot (${range})`, hint);
  }
  if (bytes > MAX_RAM_BYTES) {
    throw new UsageError(`${label} ${shown(text)} is more than the machine can have (${range})`, SIZE_HINT);
  }
  if (bytes % PAGE_SIZE !== 0) {
    throw new UsageError(`${label} ${shown(text)} is not a multiple of the page size, 4K`, SIZE_HINT);
  }
  return bytes;
}

/** A swap disk: 1M to 1G, whole MiB. */
export function parseSwap(text: string, label = "--swap"): number {
  const bytes = parseSize(text, label);
  if (bytes < 1024 ** 2 || bytes > 1024 ** 3 || bytes % 1024 ** 2 !== 0) {
    throw new UsageError(`${label} ${shown(text)} is no size of a swap disk`, "1M to 1G, whole megabytes: 256M");
  }
  return bytes;
}

/** Number of CPUs: 1 to 64. */
export function parseCpus(text: string, label = "--cpus"): number {
  return parseWhole(text, label, 1, MAX_CPUS);
}

/** A whole number in [min, max], decimal digits only. */
export function parseWhole(text: string, label: string, min: number, max: number): number {
  const value = /^\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
  if (!(value >= min && value <= max)) {
    throw new UsageError(`${label} ${shown(text)} is not possible`, `a whole number from ${min} to ${max}`);
  }
  return value;
}

/** Virtual time in cycles: `5000000`, `5M`, `2G`; here the units are powers of 1,000. */
export function parseCycles(text: string, label = "--cycles"): number {
  const match = /^(\d+)([kmg]?)$/i.exec(text.trim());
  const power = "kmg".indexOf((match?.[2] ?? "").toLowerCase() || "-") + 1;
  const cycles = Number(match?.[1]) * 1000 ** power;
  if (!Number.isSafeInteger(cycles) || cycles === 0) {
    throw new UsageError(`${label} ${shown(text)} is no number of cycles`, "for example 500000, 10M or 2G");
  }
  return cycles;
}

/** A place in a recorded run: at a cycle, at snapshot `from`, or so many cycles from it. */
export interface Place {
  readonly from: number | "last" | "start";
  readonly cycles: number;
}

/** `50M`, `+10M` and `-10M` from the last snapshot, `@3`, `@3+10M`. Cycles count from power-on, as in the log. */
export function parsePlace(text: string, label: string): Place {
  const match = /^(@\d{1,6})?(?:(^|[+-])(\d+[kmg]?))?$/i.exec(text.trim());
  const [, mark, sign, amount] = match ?? [];
  if (match === null || (mark === undefined && amount === undefined)) {
    throw new UsageError(`${label} ${shown(text)} is no place`, "for example 50M, +10M, -10M, @3 or @3+500k");
  }
  const size = amount === undefined || /^0+$/.test(amount) ? 0 : parseCycles(amount, label);
  const cycles = sign === "-" ? -size : size;
  if (mark !== undefined) return { from: Number(mark.slice(1)), cycles };
  return { from: sign === "" ? "start" : "last", cycles };
}

/** A seed is any short text; the same text gives the same run. */
export function parseSeed(text: string, label = "--seed"): string {
  if (text === "" || text.length > MAX_SEED_LENGTH || printable(text) !== text) {
    throw new UsageError(`${label} ${shown(text)} is no seed`, `1 to ${MAX_SEED_LENGTH} printable characters`);
  }
  return text;
}

/** Kernel parameters: one line. */
export function parseCmdline(text: string, label = "--cmdline"): string {
  if (text.length > MAX_CMDLINE_LENGTH || printable(text) !== text) {
    throw new UsageError(`${label} is no kernel command line`, `one line of at most ${MAX_CMDLINE_LENGTH} characters`);
  }
  return text;
}

/** The largest N that fail_nth takes: a run never gets there. */
export const MAX_FAIL_NTH = 999_999_999_999_999;

/** `17` or `17+`: the allocation that is to fail, for the kernel parameter fail_nth. */
export function parseFailAlloc(text: string, label = "--fail-alloc"): string {
  if (!/^[1-9]\d{0,14}\+?$/.test(text)) {
    throw new UsageError(`${label} ${shown(text)} is no allocation`, "17: only the 17th fails; 17+: all from it on");
  }
  return text;
}

/** `machine` with one more kernel parameter. */
export function withKernelParameter(machine: MachineOptions, parameter: string): MachineOptions {
  return { ...machine, cmdline: `${machine.cmdline} ${parameter}`.trim() };
}

/** `machine` without tracers that look at the host's stack all the time: what runs is the same (IOF-2, STT-1). */
export function withoutTracers(machine: MachineOptions): MachineOptions {
  const words = machine.cmdline.split(" ").filter((word) => word !== "irqsoff=on" && word !== "stacktrace=on");
  return { ...machine, cmdline: words.join(" ") };
}

/** `machine` on which allocation `failAlloc` fails, if one is to. */
export function failing(machine: MachineOptions, failAlloc: string | undefined): MachineOptions {
  return failAlloc === undefined ? machine : withKernelParameter(machine, `fail_nth=${failAlloc}`);
}

/** The first of `requests` that asks for something decides; then the defaults. */
export function resolveMachine(defaultRamBytes: number, ...requests: readonly MachineRequest[]): MachineOptions {
  const pick = <K extends keyof MachineRequest>(key: K): MachineRequest[K] =>
    requests.find((request) => request[key] !== undefined)?.[key];
  const swapBytes = pick("swapBytes");
  const machine = {
    nrCpus: pick("nrCpus") ?? DEFAULT_CPUS,
    ramBytes: pick("ramBytes") ?? defaultRamBytes,
    seed: pick("seed") ?? DEFAULT_SEED,
    cmdline: pick("cmdline") ?? "",
  };
  return swapBytes === undefined ? machine : withKernelParameter(machine, `swap=${formatSize(swapBytes)}`);
}

/** The options that boot this machine again. */
export function machineArgs(machine: MachineOptions): string[] {
  const args = ["--cpus", String(machine.nrCpus), "--mem", formatSize(machine.ramBytes), "--seed", machine.seed];
  if (machine.cmdline !== "") args.push("--cmdline", machine.cmdline);
  return args;
}

/** Bytes in the largest unit that divides them: `64M`, `65540K`; `parseSize()` takes it back. */
export function formatSize(bytes: number): string {
  for (const unit of ["G", "M", "K"]) {
    const size = UNITS.get(unit.toLowerCase()) ?? 1;
    if (bytes !== 0 && bytes % size === 0) return `${bytes / size}${unit}`;
  }
  return String(bytes);
}

/** A word as a POSIX shell wants it typed. */
export function shellQuote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

function shown(text: string): string {
  return text === "" ? '""' : printable(text.length > 40 ? `${text.slice(0, 40)}…` : text);
}
