/**
 * Goal: what the README and the tour show is what the program prints today, to the byte.
 * Method: each block that starts with a command is run in this process, its words taken apart by a shell; each line of
 * the block after it occurs in its output. The README's boot reads its commands from a pipe: the built program.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { commandLine, wordsOf } from "../support/command_line.ts";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const PROGRAM = join(ROOT, "dist", "scripts", "slabtown.js");
const isBuilt = existsSync(PROGRAM);

if (!isBuilt) process.stderr.write("test/cli/samples: skipped: dist/ is not built, `npm run build` first\n");

/** The fenced blocks of a page, each as its lines. */
const blocksOf = (page: string): string[][] =>
  readFileSync(join(ROOT, page), "utf8")
    .split(/^```.*$/m)
    .filter((_, i) => i % 2 === 1)
    .map((block) => block.replace(/^\n|\n$/g, "").split("\n"));

/** What a command prints, as lines. */
async function linesOf(command: string): Promise<Set<string>> {
  return new Set((await commandLine(...wordsOf(command))).stdout.split("\n"));
}

const missing = (shown: readonly string[], printed: ReadonlySet<string>): string[] =>
  shown.filter((line) => !printed.has(line));

describe("docs/tour.md", () => {
  const blocks = blocksOf("docs/tour.md");
  const shown = blocks.flatMap((block, i) => {
    const [command = ""] = block;
    const output = blocks[i + 1];
    const isPair = command.startsWith("slabtown ") && output !== undefined && !/^slabtown /.test(output[0] ?? "");
    return isPair && block.length === 1 ? [{ command, output }] : [];
  });

  it("shows the output of most of its commands", () => expect(shown.length).toBeGreaterThan(9));

  it.each(shown)("$command", async ({ command, output }) => {
    const printed = await linesOf(command);
    expect(missing(output, printed), `the output is\n${[...printed].join("\n")}`).toEqual([]);
  });
});

describe.skipIf(!isBuilt)("README.md", () => {
  it("shows the boot log and buddyinfo as they are", () => {
    const [log = []] = blocksOf("README.md").filter(([first = ""]) => first.startsWith("[    0.000000]"));
    expect(log.length).toBeGreaterThan(15);
    // The greeting and the echo of what is typed are for terminals.
    const shown = log.filter((line) => !/^(Welcome|# )/.test(line));
    const input = "cat /proc/buddyinfo\n";
    const { stdout } = spawnSync(process.execPath, [PROGRAM, "boot"], { encoding: "utf8", input, timeout: 50_000 });
    const printed = new Set(stdout.split("\n"));
    expect(missing(shown, printed), `the output is\n${[...printed].join("\n")}`).toEqual([]);
  });
});
