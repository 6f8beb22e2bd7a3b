/**
 * Goal: every command of lab 0's handout does what the handout says, and the answers to its questions are what the
 * program prints today.
 * Method: the blocks of the handout are run in this process, and so is the command of each question.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { lab as code } from "../../labs/00_tour/checks/lab.ts";
import { proveLab } from "../../scripts/lab/author.ts";
import { gradeFolder } from "../../scripts/lab/grade.ts";
import { initFolder } from "../../scripts/lab/init.ts";
import { gradeLab } from "../../scripts/lab/lab_actions.ts";
import { openLab } from "../../scripts/lab/lab_folder.ts";
import { isRight, questionOf } from "../../scripts/lab/predictions.ts";
import { createSandbox } from "../../scripts/lab/sandbox.ts";
import { EXIT_FAILED, EXIT_OK } from "../../scripts/metrics.ts";
import { commandLine, wordsOf } from "../support/command_line.ts";

const lab = openLab("tour");
const seeds = lab.manifest.predictions?.seeds ?? [];

const outputOf = async (command: string): Promise<string> => (await commandLine(...wordsOf(command))).stdout;

/** Where each answer stands in what the question's command prints. */
const PLACES: readonly ((printed: string) => string)[] = [
  (printed) => `0x${[...printed.matchAll(/-0x0*([0-9a-f]+)\] usable/g)].at(-1)?.[1]}`,
  (printed) => {
    const [, second, third] = [...printed.matchAll(/e820: \[mem (0x[0-9a-f]+)-(0x[0-9a-f]+)\]/g)];
    return `0x${(Number(third?.[1]) - Number(second?.[2]) - 1).toString(16)}`;
  },
  (printed) => /CPU (\w+) from memory/.exec(printed)?.[1] ?? "",
  (printed) => /\((\d+) bytes\)/.exec(printed)?.[1] ?? "",
  (printed) => /^status (\d+)$/m.exec(printed)?.[1] ?? "",
  (printed) => /✗ invariant: ([A-Z]+-\d+)/.exec(printed)?.[1] ?? "",
];

describe("lab 0", () => {
  const blocks = readFileSync(join(lab.dir, "handout.md"), "utf8")
    .split(/^```.*$/m)
    .filter((_, i) => i % 2 === 1)
    .map((block) => block.trim().split("\n"));
  const shown = blocks.flatMap(([command = "", ...rest], i) => {
    if (!command.startsWith("slabtown ")) return [];
    expect(rest).toEqual([]);
    const next = blocks[i + 1] ?? [];
    return [{ command, lines: next[0]?.startsWith("slabtown ") ? [] : next }];
  });

  it("the handout has its commands", () => expect(shown.length).toBe(11));

  it.each(shown)("$command", async ({ command, lines }) => {
    const printed = await outputOf(command);
    expect(lines.filter((line) => !printed.split("\n").includes(line.trimEnd()))).toEqual([]);
    expect(printed).not.toMatch(/unknown|command not found/);
    // Silence is what the handout promises for the driver that nobody watches, and for nothing else.
    expect(printed.trim() === "").toBe(command.endsWith('--quiet --exec "insmod buggy bug=touches"'));
  });

  it.each(seeds)("the answer to question %i is what the program prints", async (seed) => {
    const { text, answer } = questionOf(lab, code, seed);
    expect((PLACES[seed - 1] as (printed: string) => string)(await outputOf(text[0] ?? ""))).toBe(answer);
  });

  it("an answer in hex may be written without quotes (bug: YAML made a number of it, and it was not right)", () => {
    const question = { text: [], answer: "0x50000", explanation: [] };
    expect(["0X50000", "327680", " 0x50000 ", "0x5000", "", "x"].map((given) => isRight(question, given))).toEqual(
      [true, true, true, false, false, false], // biome-ignore format: one answer each
    );
  });

  it("answers are looked at without anything to compile, and there is nothing to prove", async () => {
    const scratch = mkdtempSync(join(tmpdir(), "slabtown-tour-"));
    const sandbox = createSandbox();
    try {
      const dir = join(scratch, "mine");
      expect(initFolder(lab, dir)).toContain("answers.yaml");
      const open = await gradeFolder({ lab, dir, depth: "full", sandbox });
      expect(open.rows.map(({ status, lines }) => [status, lines[1]?.trim()])).toEqual([
        ["failed", "not answered: 1, 2, 3, 4, 5, 6"],
      ]);
      const host = { out: () => {}, err: () => {}, stop: { reason: "none" as const } };
      const exitCode = () => gradeLab(dir, "full", { color: false, history: false }, host);
      expect(await exitCode(), "bug: no points to lose, so it exited 0 whatever the answers").toBe(EXIT_FAILED);
      const answers = seeds.map((seed) => `${seed}: ${questionOf(lab, code, seed).answer}`);
      writeFileSync(join(dir, "answers.yaml"), `${answers.join("\n")}\n`);
      const done = await gradeFolder({ lab, dir, depth: "full", sandbox });
      expect(done.rows.map(({ status }) => status)).toEqual(["passed"]);
      expect(await exitCode()).toBe(EXIT_OK);
      expect((await proveLab({ lab, sandbox, nrSeeds: 1 })).findings).toEqual([]);
    } finally {
      sandbox.close();
      rmSync(scratch, { recursive: true, force: true });
    }
  });
});
