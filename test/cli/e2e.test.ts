/**
 * Goal: the program as it is installed keeps the contract: exit codes, streams, one-line errors, same seed same bytes.
 * Method: `node dist/scripts/slabtown.js` as a child process without a terminal. Skipped if it has not been built. What
 * is only said, and not done by a process, is asked of the command line in this process: a start takes half a second.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { commandLine, type Outcome } from "../support/command_line.ts";
import { runs } from "../support/runs.ts";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const PROGRAM = join(ROOT, "dist", "scripts", "slabtown.js");
const isBuilt = existsSync(PROGRAM);
const SAMPLE = "scripts/samples/tar.rep.gz";

if (!isBuilt) process.stderr.write("test/cli/e2e: skipped: dist/ is not built, `npm run build` first\n");

const scratch = mkdtempSync(join(tmpdir(), "slabtown-e2e-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

function slabtown(args: readonly string[], input?: string, env: Record<string, string> = {}): Outcome {
  return spawnSync(process.execPath, [PROGRAM, ...args], {
    cwd: ROOT,
    encoding: "utf8",
    timeout: 50_000,
    maxBuffer: 64 * 1024 * 1024,
    env: { ...process.env, ...env },
    stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    ...(input === undefined ? {} : { input }),
  });
}

function scratchFile(name: string, content: string | Uint8Array): string {
  const path = join(scratch, name);
  writeFileSync(path, content);
  return path;
}

function isRefused({ status, stdout, stderr }: Outcome, message: string): void {
  expect(stderr).toContain(message);
  expect(stderr).not.toMatch(/^\s+at /m);
  expect(stderr.trimEnd().split("\n").length).toBeLessThanOrEqual(2);
  expect(stdout).toBe("");
  expect(status).toBe(2);
}

describe("usage errors: exit 2, nothing on stdout, no stack trace", () => {
  it.skipIf(!isBuilt).each<readonly [readonly string[], string]>([
    [["rnu"], 'did you mean "run"?'],
    [["run", "no/such/file"], "no such file"],
  ])("%j, as a process", (args, message) => isRefused(slabtown(args), message));

  it.each<[readonly string[], string]>([
    [["top"], "unknown command"],
    [["--cpus", "4", "run", SAMPLE], "has to come first"],
    [["run", "--cpsu", "4", SAMPLE], "did you mean --cpus?"],
    [["run"], "nothing to run"],
    [["run", "stres"], 'did you mean "stress"?'],
    [["run", "scripts"], "is a directory"],
    [["run", "/dev/null"], "the file is empty"],
    [["run", "package.json"], "is JSON"],
    [["run", "README.nope.gz"], "no such file"],
    [["run", "-", "-"], "only once"],
    [["run", "--ops", "+3,-4"], "--ops:1:4:"],
    [["run", "--mem", "0", SAMPLE], "too small"],
    [["run", "--mem", "1K", SAMPLE], "too small"],
    [["run", "--mem", "3T", SAMPLE], "more than the machine can have"],
    [["run", "--cpus", "0", SAMPLE], "1 to 64"],
    [["run", "--cpus", "65", SAMPLE], "1 to 64"],
    [["run", "--cpus", "1.5", SAMPLE], "1 to 64"],
    [["run", "--seed", "", SAMPLE], "no seed"],
    [["run", "--format", "nope", SAMPLE], "Allowed choices"],
    [["run", "--touch", "some", SAMPLE], "Allowed choices"],
    [["boot", "--exec", "ps", "--script", "x"], "exclude each other"],
    [["procfs"], "missing required argument"],
    [["procfs", "/dev/null/x"], "cannot be written"],
    [["procfs", "/proc/x/y"], "cannot be written"],
    [["completion", "tcsh"], "bash, zsh, fish"],
  ])("%j", async (args, message) => isRefused(await commandLine(...args), message));

  it("files that are no recording or scenario", async () => {
    const gzip = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2);
    const files: readonly (readonly [string, string])[] = [
      [scratchFile("cut.rep.gz", gzip), "gzip"],
      [
        scratchFile(
          "noise.rep",
          Uint8Array.from({ length: 4096 }, (_, i) => (i * 7) % 32),
        ),
        "binary data",
      ],
      [scratchFile("bad.yaml", "machine:\n  cpu: 3\n"), "bad.yaml:2:3: unknown key"],
      [scratchFile("empty.yaml", ""), "the file is empty"],
      [scratchFile("none.yaml", "programs: [{ run: nosuch }]\n"), 'none.yaml:1:19: no built-in program "nosuch"'],
      [scratchFile("lost.yaml", "recordings: [{ file: lost.rep }]\n"), "no such file"],
    ];
    for (const [path, message] of files) {
      const { status, stderr } = await commandLine("run", path);
      expect(stderr).toContain(message);
      expect(status).toBe(2);
    }
  });
});

describe.skipIf(!isBuilt)("runs", () => {
  it("same seed, same bytes", () => {
    const args = ["run", SAMPLE, "stress --ops 200", "--cpus", "3", "--seed", "7", "--json"];
    const first = slabtown(args);
    expect(first.status).toBe(0);
    expect(slabtown(args).stdout).toBe(first.stdout);
    const document: unknown = JSON.parse(first.stdout);
    expect(document).toMatchObject({ schema: "slabtown/run/v1", end: "done", failures: [], leakedPages: 0 });
  });

  it("the census adds up, and the peak is no less than what is in use at the end", async () => {
    const { pages, peakMemoryBytes } = JSON.parse((await commandLine("run", SAMPLE, "--json", "--quiet")).stdout) as {
      pages: Record<string, number>;
      peakMemoryBytes: number;
    };
    const { total = 0, ...parts } = pages;
    expect(Object.values(parts).reduce((sum, part) => sum + part, 0)).toBe(total);
    // What tar holds at its worst, plus the kernel: sampling only between time slices once missed all of it.
    expect(peakMemoryBytes).toBeGreaterThan(((parts.reserved ?? 0) + (parts.slab ?? 0)) * 4096 + 400_000);
  });

  it("a recording on standard input, and an operation list", () => {
    const text = "0\n2\n4\n0\na 0 24\na 1 100\nf 0\nf 1\n";
    expect(slabtown(["run", "-"], text).status).toBe(0);
    expect(slabtown(["run", "--ops", "+3,+0,-1"]).stdout).toContain("3 operations");
  });

  it("an unmet expectation: exit 1, one line, the replay line", async () => {
    const path = scratchFile("unmet.yaml", 'programs: [{ run: free }]\nexpect: { virtual_time: "< 1 cycles" }\n');
    const { status, stderr } = await commandLine("run", path, "--quiet");
    expect(status).toBe(1);
    expect(stderr).toMatch(/^slabtown: expected virtual_time < 1, but it is \d+$/m);
    expect(stderr).toMatch(/^slabtown: to see it again: slabtown run .*unmet\.yaml --cpus/m);
  });

  it("without a terminal: boots, runs the demo, exit 0; the replay line gives the same run", () => {
    const demo = slabtown(["--json"]);
    expect(demo.status).toBe(0);
    const { replay } = JSON.parse(demo.stdout) as { replay: string };
    const again = slabtown([...replay.split(" ").slice(1), "--json"]);
    expect(again.stdout).toBe(demo.stdout);
  });

  it("--exec and piped commands reach the shell", () => {
    const exec = slabtown(["boot", "--quiet", "--exec", "echo one; echo two"]);
    expect([exec.status, exec.stdout]).toEqual([0, "one\ntwo\n"]);
    expect(slabtown(["boot", "--quiet"], "echo three\n").stdout).toContain("three");
  });

  it("procfs writes six files and nothing else", async () => {
    const dir = join(scratch, "proc", "deep");
    expect((await commandLine("procfs", dir, "--quiet")).status).toBe(0);
    expect(readdirSync(dir)).toEqual(["buddyinfo", "meminfo", "pagetypeinfo", "slabinfo", "vmstat", "zoneinfo"]);
    const taken = join(scratch, "taken");
    mkdirSync(join(taken, "buddyinfo"), { recursive: true });
    expect((await commandLine("procfs", taken, "--quiet")).status).toBe(2);
    expect(readdirSync(taken)).toEqual(["buddyinfo"]);
  });

  it("no colour in a pipe, colour when forced, none when refused", () => {
    const args = ["run", "free", "--quiet"];
    expect(slabtown(args).stdout).not.toContain("\u001b[");
    expect(slabtown(args, undefined, { FORCE_COLOR: "1", NO_COLOR: "" }).stdout).toContain("\u001b[");
    expect(slabtown([...args, "--no-color"], undefined, { FORCE_COLOR: "1" }).stdout).not.toContain("\u001b[");
  });
});

describe("shipped scenarios", () => {
  /** Each is run once, these once more and by the built program; all twice with SLABTOWN_SLOW=1. */
  const TWICE = ["determinism.yaml", "everything.yaml", "mixed.yaml", "writeback.yaml"];

  it.each(readdirSync(join(ROOT, "scripts", "scenarios")))(
    "%s meets its expectations, the same bytes again",
    async (name) => {
      const args = ["run", name, "--json", "--quiet"];
      const first = await commandLine(...args);
      expect(first.stderr).toBe("");
      expect(first.status).toBe(0);
      if (!isBuilt || (!TWICE.includes(name) && runs(0, 1) === 0)) return;
      expect(slabtown(args)).toMatchObject({ status: 0, stderr: "", stdout: first.stdout });
    },
  );
});

describe.skipIf(!isBuilt)("a report of the kernel", () => {
  const scenario = (expected: string): string =>
    `modules: [buggy bug=sleeps_in_handler]\nprograms: [{ run: "true" }]\n${expected}`;

  it("makes a run exit with 1 and prints Linux's splat", async () => {
    const { status, stderr } = slabtown(["run", scratchFile("splat.yaml", scenario(""))]);
    expect(status).toBe(1);
    expect(stderr).toContain("slabtown: the kernel reported 1 problem of its own");
    const commands = "insmod buggy bug=sleeps_in_handler; dmesg";
    const { stdout } = await commandLine("boot", "--quiet", "--exec", commands);
    expect(stdout).toContain("BUG: sleeping function called from invalid context at");
    expect(stdout).toMatch(/preempt_count: 10000, expected: 0/);
  });

  it("is fine when the scenario expects it", async () => {
    const path = scratchFile("splat.yaml", scenario("expect: { reports: 1 }\n"));
    expect((await commandLine("run", path)).status).toBe(0);
  });
});

describe.skipIf(!isBuilt)("pipes, signals, help", () => {
  it("a closed pipe ends quietly", async () => {
    const child = spawn(process.execPath, [PROGRAM, "run", SAMPLE, SAMPLE], { cwd: ROOT });
    child.stdout.destroy();
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const status = await new Promise((resolve) => child.on("close", resolve));
    expect([status, stderr]).toEqual([0, ""]);
  });

  it("Ctrl-C prints the summary so far and exits 130", async () => {
    const long = scratchFile(
      "long.yaml",
      "programs: [{ run: sleep 100000, count: 1 }, { run: stress --ops 50000000 }]\n",
    );
    const child = spawn(process.execPath, [PROGRAM, "run", long], { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    const timer = setTimeout(() => child.kill("SIGINT"), 3000);
    const status = await new Promise((resolve) => child.on("close", resolve));
    clearTimeout(timer);
    expect(stdout).toContain("interrupted");
    expect(stdout).toContain("replay: slabtown run");
    expect(status).toBe(130);
  });

  it("help begins with examples and lists only what exists", async () => {
    for (const command of ["boot", "run", "procfs", "replay", "bench", "explore", "fuzz", "completion"]) {
      const { status, stdout } = await commandLine(command, "--help");
      expect(status).toBe(0);
      expect(stdout).toMatch(/^Examples:\n( {2}.*slabtown.*\n){2,3}/);
    }
    const { stdout } = await commandLine("--help");
    expect(stdout).not.toMatch(/^\s+(top|compare|audit|zoo|diff)\b/m);
  });

  it.each(["bash", "zsh", "fish"])("completion for %s names the commands", async (shell) => {
    const { status, stdout } = await commandLine("completion", shell);
    expect(status).toBe(0);
    expect(stdout).toContain("procfs");
    if (shell === "bash") expect(spawnSync("bash", ["-n"], { input: stdout }).status).toBe(0);
  });
});
