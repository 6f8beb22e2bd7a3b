/**
 * `slabtown fuzz`: options, progress, files of findings, and the summary as text or as one JSON document.
 */

import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Finding, FUZZ_TARGETS, type FuzzTarget } from "./fuzz/finding.ts";
import { type FuzzResult, fuzz } from "./fuzz/fuzz.ts";
import { type HostOutput, stoppable } from "./host_output.ts";
import { EXIT_FAILED, EXIT_INTERRUPT, EXIT_OK } from "./metrics.ts";
import { shellQuote } from "./options.ts";
import { createProgress, NO_PROGRESS } from "./progress.ts";
import { printable } from "./readers/input_error.ts";
import { grouped } from "./summary.ts";
import { UsageError } from "./usage_error.ts";

export interface FuzzCommandOptions {
  readonly seconds?: number;
  readonly runs?: number;
  readonly first?: number;
  readonly seed?: string;
  readonly what?: FuzzTarget | "all";
  readonly out?: string;
  readonly json?: boolean;
  readonly host?: boolean;
  readonly quiet?: boolean;
}

const DEFAULT_SECONDS = 60;
const SHRINK_BUDGET = 400;

/** Fuzzes; the exit code. */
export async function fuzzCommand(options: FuzzCommandOptions, host: HostOutput): Promise<number> {
  const { seed = "1", what = "all", first = 0, out = "." } = options;
  const seconds = options.seconds ?? (options.runs === undefined ? DEFAULT_SECONDS : Number.POSITIVE_INFINITY);
  const start = performance.now();
  const elapsed = (): number => (performance.now() - start) / 1000;
  const progress = options.quiet === true ? NO_PROGRESS : createProgress(process.stderr, undefined, "runs");
  const written: string[] = [];
  const result = await stoppable(host.stop, () =>
    fuzz({
      seed,
      targets: what === "all" ? FUZZ_TARGETS : [what],
      first,
      nrRuns: options.runs ?? Number.POSITIVE_INFINITY,
      isTimeUp: () => elapsed() >= seconds,
      stop: host.stop,
      shrinkBudget: SHRINK_BUDGET,
      onProgress: (nrRuns, { cycles }) => progress.update(nrRuns, options.runs ?? 0, cycles),
      onFinding: (finding) => {
        const file = writeFinding(out, seed, finding);
        written.push(file);
        progress.end();
        host.err(findingText(finding, file, seed));
      },
    }),
  );
  progress.end();
  const nrRuns = Object.values(result.nrRuns).reduce((sum, nr) => sum + nr, 0);
  const again = againLine({ seed, what, first, nrRuns });
  const summary = { result, seed, again, files: written, hostSeconds: elapsed() };
  const document = fuzzDocument(summary, options.host === true);
  host.out(options.json === true ? `${JSON.stringify(document, null, 2)}\n` : fuzzText(summary));
  if (host.stop.reason === "closed") return EXIT_OK;
  if (result.isInterrupted) return EXIT_INTERRUPT;
  return result.findings.length > 0 ? EXIT_FAILED : EXIT_OK;
}

/** Writes what shows the finding; its path. */
function writeFinding(folder: string, seed: string, { run, file }: Finding): string {
  const path = join(folder, `fuzz-${seed.replaceAll(/[^\w-]/g, "_")}-${run}.${file.ending}`);
  try {
    mkdirSync(folder, { recursive: true });
    writeFileSync(`${path}.part`, file.content);
    renameSync(`${path}.part`, path);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new UsageError(`${path} cannot be written: ${printable(why)}`, "name another folder with --out");
  }
  return path;
}

const replayOf = ({ replay }: Finding, file: string): string => replay.replace("FILE", shellQuote(file));

function findingText(finding: Finding, file: string, seed: string): string {
  const { run, target, failure, nrShrinkRuns } = finding;
  const again = `slabtown fuzz --what ${target} --seed ${shellQuote(seed)} --first ${run} --runs 1`;
  const head = `slabtown: run ${run} (${target}): ${failure.kind}: ${printable(failure.what.split("\n")[0] ?? "")}\n`;
  const content = typeof finding.file.content === "string" ? indented(finding.file.content) : "";
  const replay = `  to see it again: ${replayOf(finding, file)}\n  unshrunk: ${again}\n`;
  return `${head}  shrunk in ${nrShrinkRuns} runs: ${file}\n${content}${replay}`;
}

const indented = (text: string): string =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => `    ${printable(line)}\n`)
    .join("");

interface Again {
  readonly seed: string;
  readonly what: string;
  readonly first: number;
  readonly nrRuns: number;
}

function againLine({ seed, what, first, nrRuns }: Again): string {
  const words = [
    "slabtown",
    "fuzz",
    "--what",
    what,
    "--seed",
    seed,
    "--first",
    String(first),
    "--runs",
    String(nrRuns),
  ];
  return words.map(shellQuote).join(" ");
}

interface FuzzSummary {
  readonly result: FuzzResult;
  readonly seed: string;
  readonly again: string;
  readonly files: readonly string[];
  readonly hostSeconds: number;
}

/** Operations of all machines: allocations, system calls, interrupts. */
const operationsOf = ({ activity }: FuzzResult): number =>
  activity.allocations + activity.syscalls + activity.interrupts;

/** The summary: what was tried, what it came upon, what was covered. */
export function fuzzText({ result, seed, again, files, hostSeconds }: FuzzSummary): string {
  const { nrRuns, activity, findings } = result;
  const runs = Object.entries(nrRuns).filter(([, nr]) => nr > 0);
  const rows: [string, string][] = [
    ["runs", runs.map(([target, nr]) => `${grouped(nr)} ${target}`).join(", ") || "none"],
    ["operations", `${grouped(operationsOf(result))}: ${activityText(result)}`],
    ["virtual time", `${(activity.cycles / 1e9).toFixed(3)} s`],
    ["refused", `${grouped(activity.refused)} allocations in ${grouped(result.nrRunsRefused)} runs, on purpose`],
    ["inputs", `${grouped(result.nrInputs)} damaged files and command lines`],
    ["speed", `${grouped(operationsOf(result) / Math.max(hostSeconds, 0.001))} operations per second`],
    ["findings", findings.length === 0 ? "none" : `${findings.length}: ${files.join(" ")}`],
    ["again", again],
  ];
  const interrupted = result.isInterrupted ? ", interrupted" : "";
  const head = `Fuzzing, seed ${printable(seed)}${interrupted}\n`;
  return head + rows.map(([name, text]) => `  ${name.padEnd(12)} ${text}\n`).join("") + coverageText(result);
}

function activityText({ activity }: FuzzResult): string {
  const { allocations, syscalls, interrupts } = activity;
  return `${grouped(allocations)} allocations, ${grouped(syscalls)} system calls, ${grouped(interrupts)} interrupts`;
}

/** In how many runs each thing was. */
function coverageText({ coverage }: FuzzResult): string {
  return [...coverage]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([group, counts]) => {
      const names = [...counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, nr]) => `${printable(name)} ${nr}`);
      return `\n  runs with ${group}\n${wrapped(names)}`;
    })
    .join("");
}

const LINE_WIDTH = 100;

function wrapped(words: readonly string[]): string {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length + 2 <= LINE_WIDTH) lines[lines.length - 1] = `${last}, ${word}`;
    else lines.push(`    ${word}`);
  }
  return lines.map((line) => `${line}\n`).join("");
}

/** The JSON document. What depends on this computer only with `hasHost`. */
export function fuzzDocument({ result, seed, again, files, hostSeconds }: FuzzSummary, hasHost: boolean): object {
  const { coverage, findings, ...rest } = result;
  return {
    schema: "slabtown/fuzz/v1",
    seed,
    ...rest,
    operations: operationsOf(result),
    findings: findings.map((finding, i) => ({
      run: finding.run,
      target: finding.target,
      ...finding.failure,
      file: files[i],
      replay: replayOf(finding, files[i] ?? ""),
    })),
    coverage: Object.fromEntries([...coverage].map(([group, counts]) => [group, Object.fromEntries(counts)])),
    again,
    ...(hasHost ? { host: { seconds: hostSeconds, operationsPerSecond: operationsOf(result) / hostSeconds } } : {}),
  };
}
