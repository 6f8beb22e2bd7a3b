/**
 * Goal: `slabtown explore` keeps to the contract of the command line: exit codes, one JSON document, a line that shows
 * a finding again, hints for whatever is typed wrongly.
 * Method: the command line in this process; what ends with the exit code of a process, as the built program, which is
 * skipped without dist/.
 */

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { commandLine } from "../support/command_line.ts";

const PROGRAM = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "dist", "scripts", "slabtown.js");
const isBuilt = existsSync(PROGRAM);
if (!isBuilt) process.stderr.write("test/cli/explore: skipped: dist/ is not built, `npm run build` first\n");

const explore = (...args: readonly string[]) => commandLine("explore", ...args);

describe("slabtown explore", () => {
  it("says that nothing fails, and ends with 0", async () => {
    const { status, stdout } = await explore("depot-locked", "--bound", "1", "--quiet");
    expect([status, stdout]).toEqual([0, expect.stringContaining("nothing fails: every schedule with at most 1")]);
  });

  it.skipIf(!isBuilt)("XPL-2 prints a finding with the line that shows it again, which ends with 1", async () => {
    const { status, stdout } = await explore("depot-lockfree", "--mutant", "untagged", "--json", "--quiet");
    expect(status).toBe(1);
    const document = JSON.parse(stdout);
    expect(document).toMatchObject({
      schema: "slabtown/explore/v1",
      mutant: "untagged",
      finding: { kind: "invariant" },
    });
    const again = document.finding.replay.replace(/^slabtown /, `"${process.execPath}" "${PROGRAM}" `);
    const second = spawnSync("sh", ["-c", `${again} --json`], { encoding: "utf8" });
    expect(second.status).toBe(1);
    expect(JSON.parse(second.stdout).finding).toMatchObject({
      message: document.finding.message,
      lines: document.finding.lines,
    });
  });

  it("the same command prints the same document, byte for byte", async () => {
    const args = ["pcp", "--strategy", "pct", "--runs", "200", "--seed", "x", "--json", "--quiet"];
    expect(await explore(...args)).toEqual(await explore(...args));
  });

  it("--list names scenarios, operations and planted bugs", async () => {
    const { status, stdout } = await explore("--list");
    expect(status).toBe(0);
    for (const word of ["dma-map", "wait-queue", "untagged", "give back the one taken first"]) {
      expect(stdout).toContain(word);
    }
  });

  it("--adequacy is a table with a row for each planted bug of the scenario", async () => {
    const { status, stdout } = await explore("wait-queue", "--adequacy", "--runs", "50");
    expect(status).toBe(0);
    expect(stdout).toMatch(/test-then-wait +deadlock +1 /);
  });

  it.each([
    [[], "explore what?", "depot-lockfree"],
    [["depot-lockfre"], 'no scenario "depot-lockfre"', 'did you mean "depot-lockfree"?'],
    [["pcp", "--mutant", "nothing"], 'no planted bug "nothing"', "ab-ba-steal"],
    [["pcp", "--strategy", "dpro"], 'no strategy "dpro"', "dpor"],
    [["pcp", "--strategy", "dpor"], "dpor cannot judge", "dfs"],
    [["wait-queue", "--strategy", "random"], "would wait for ever", "pct"],
    [["pcp", "--programs", "ax | a"], '"x" is no operation', "allocate a page"],
    [["pcp", "--programs", "a|a|a|a|a"], "programs for 5 CPUs", "a: allocate"],
    [["pcp", "--programs", "a|a", "--cpus", "3"], "2 programs for 3 CPUs", "one program for each CPU"],
    [["pcp", "--cpus", "9"], "at most 4 CPUs", "--cpus 4"],
    [["pcp", "--schedule", "0:x"], '"0:x" is no event', "as printed by a search"],
    [["pcp", "--schedule", "-", "--bound", "1"], "--schedule is one run", "leave out"],
    [["pcp", "--bound", "11"], "--bound", "0 to 10"],
    [["pcp", "--runs", "-1"], "--runs", "whole number"],
    [["pcp", "magazine"], "too many arguments", "--help"],
  ])("%j is refused with exit code 2 and a hint", async (args, words, hint) => {
    const { status, stdout, stderr } = await explore(...args);
    expect([status, stdout]).toEqual([2, ""]);
    expect(stderr).toContain(words);
    expect(stderr).toContain(hint);
    expect(stderr).not.toContain("\n    at ");
  });
});
