/**
 * The border of the command line: known commands and options with junk in them, each in a process of its own.
 *
 * It ends with 0, 1, 2, 3 and never with 70 or a signal; with 2 it has said why in a few lines on standard error and
 * nothing on standard output; with --json what it printed is JSON; there is no stack trace.
 */

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { EXIT_FAILED, EXIT_OK, EXIT_PANIC, EXIT_USAGE } from "../metrics.ts";
import { shellQuote } from "../options.ts";
import { createDraw, type Draw } from "./draw.ts";
import type { Border } from "./finding.ts";
import type { Failure } from "./run_case.ts";
import { shorter, shrink } from "./shrink.ts";

const INPUTS_PER_RUN = 2;
const SHRINK_BUDGET = 40;
const PATIENCE_MS = 120_000;
const GOOD_CODES: ReadonlySet<number | null> = new Set([EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_PANIC]);
const MAX_MESSAGE_LINES = 30;

const COMMANDS = ["boot", "run", "procfs", "bench", "fuzz", "completion", "help", "", "boto", "--version", "-x"];
const VALUES = [
  "0",
  "1",
  "-1",
  "2",
  "8M",
  "16M",
  "1K",
  "999999999999",
  "1e9",
  "abc",
  "",
  " ",
  "--",
  "-",
  "ä",
  "quiet",
  "17+",
  "none",
];
const OPTIONS = [
  ...[
    "--cpus",
    "--mem",
    "--seed",
    "--cmdline",
    "--cycles",
    "--exec",
    "--script",
    "--format",
    "--touch",
    "--ops",
    "--fail-alloc",
  ],
  ...["--json", "--host", "--quiet", "--no-color", "--debug", "--lenient", "--verify", "--fault-sweep", "--sweep-from"],
  ...[
    "--sweep-to",
    "--sweep-step",
    "--sweep-places",
    "--persistent",
    "--help",
    "--version",
    "--nope",
    "--seeds",
    "--mem=16M",
    "--color",
    "-h",
    "--what",
  ],
];
const TARGETS = [
  "true",
  "free",
  "stress --ops 20",
  "ps -e",
  "nope.yaml",
  "/",
  "",
  "-",
  "'open",
  "tar.rep.gz",
  "out",
  "/dev/null",
  "bash",
];
const SHORT: Readonly<Record<string, readonly string[]>> = {
  boot: ["--cycles", "2M"],
  run: ["--cycles", "2M"],
  procfs: ["--cycles", "2M"],
  bench: ["--ops", "1000", "--samples", "1", "--filter", "A1"],
  fuzz: ["--runs", "1", "--what", "scenarios"],
};

/** The words drawn, and those behind them that keep a command short that is right. */
function drawArgv(d: Draw): { readonly words: readonly string[]; readonly tail: readonly string[] } {
  const command = d.chance(60) ? d.of(["run", "boot", "procfs"]) : d.of(COMMANDS);
  const drawn = d.list(0, 6, () => d.of([d.of(OPTIONS), d.of(OPTIONS), d.of(VALUES), d.of(TARGETS)]));
  return { words: command === "" ? drawn : [command, ...drawn], tail: SHORT[command] ?? SHORT.boot ?? [] };
}

/** The program as it was built, from the build and from the sources. */
function programFile(): string {
  const paths = ["../slabtown.js", "../../dist/scripts/slabtown.js"].map((path) =>
    fileURLToPath(new URL(path, import.meta.url)),
  );
  const found = paths.find((path) => existsSync(path));
  if (found === undefined) throw new Error("slabtown is not built");
  return found;
}

interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function start(argv: readonly string[], cwd: string): Promise<Ended> {
  const child = spawn(process.execPath, [programFile(), ...argv], {
    cwd,
    stdio: ["ignore", "pipe", "pipe"],
    timeout: PATIENCE_MS,
  });
  const texts = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"] as const) {
    child[stream].setEncoding("utf8").on("data", (text: string) => {
      texts[stream] += text;
    });
  }
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal, ...texts }));
  });
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function judge(argv: readonly string[], { code, signal, stdout, stderr }: Ended): Failure | null {
  const complain = (kind: Failure["kind"], what: string): Failure => ({
    kind,
    what: `${what}: ${stderr.split("\n")[0]}`,
  });
  if (signal !== null) return complain("hang", `ended by ${signal}`);
  if (/^\s+at .*:\d+:\d+\)?$/m.test(stderr) && !argv.includes("--debug")) return complain("crash", "a stack trace");
  if (!GOOD_CODES.has(code)) return complain("crash", `exit code ${code}`);
  if (code === EXIT_USAGE && stdout !== "") return complain("other", "exit code 2 with output");
  if (code === EXIT_USAGE && stderr.trim() === "") return complain("other", "exit code 2 without a word");
  if (code === EXIT_USAGE && stderr.split("\n").length > MAX_MESSAGE_LINES) return complain("other", "a long message");
  const isHelp = argv.some((word) => /^(-h|--help|--version|help|completion)$/.test(word));
  const saysJson = argv.includes("--json") && !isHelp && stdout !== "" && code !== EXIT_USAGE;
  return saysJson && !isJson(stdout) ? complain("other", "--json printed something else") : null;
}

/** Runs slabtown with `argv` in a folder of its own; what went wrong, or null. */
export async function tryArguments(argv: readonly string[]): Promise<Failure | null> {
  const folder = mkdtempSync(join(tmpdir(), "slabtown-fuzz-"));
  try {
    return judge(argv, await start(argv, folder));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export const CLI_BORDER: Border = {
  async run(seed, run, note) {
    const d = createDraw(seed, run);
    for (let nrInputs = 1; nrInputs <= INPUTS_PER_RUN; nrInputs++) {
      const { words: drawn, tail } = drawArgv(d);
      note("command lines", drawn[0] ?? "(nothing)");
      const failure = await tryArguments([...drawn, ...tail]);
      if (failure === null) continue;
      const isAlike = async (words: readonly string[]): Promise<boolean> =>
        (await tryArguments([...words, ...tail]))?.what === failure.what;
      const { smallest, nrRuns } = await shrink(drawn, (words) => shorter(words), isAlike, SHRINK_BUDGET);
      const line = ["slabtown", ...smallest, ...tail].map(shellQuote).join(" ");
      const file = { ending: "sh", content: `${line}\n` };
      return { nrInputs, finding: { failure, file, replay: line, nrShrinkRuns: nrRuns } };
    }
    return { nrInputs: INPUTS_PER_RUN, finding: null };
  },
};
