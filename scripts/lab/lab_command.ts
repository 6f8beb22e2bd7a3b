/**
 * `slabtown lab …`: the coursework commands as declared on the command line.
 *
 * What they do is loaded when one of them runs: it brings the TypeScript compiler with it, which the other commands
 * need not wait for.
 */

import { Argument, type Command, Option } from "commander";
import type { HostOutput } from "../host_output.ts";
import { parseWhole } from "../options.ts";
import { UsageError } from "../usage_error.ts";
import { FORMATS } from "./formats.ts";
import type { CohortOptions, GradingOptions, QuizOptions, ReplayOptions } from "./lab_options.ts";

type Done = (exitCode: number) => void;

/** Examples for the help of each command. */
export const LAB_EXAMPLES: readonly (readonly [string, readonly string[]])[] = [
  ["lab", ["slabtown lab list", "slabtown lab init 02-buddy mydir", "slabtown lab check mydir"]],
  ["lab list", ["slabtown lab list"]],
  ["lab init", ["slabtown lab init 02-buddy mydir"]],
  ["lab check", ["slabtown lab check mydir", "slabtown lab check mydir --case merge-order"]],
  ["lab grade", ["slabtown lab grade mydir", "slabtown lab grade mydir --format gradescope --seed-file secret"]],
  ["lab cohort", ["slabtown lab cohort submissions --lab buddy --csv grades.csv", "slabtown lab cohort class --json"]],
  ["lab watch", ["slabtown lab watch mydir"]],
  ["lab hint", ["slabtown lab hint buddy 2"]],
  ["lab replay", ["slabtown lab replay buddy mydir --case merge-order --seed 0x2f --step 5"]],
  ["lab quiz", ["slabtown lab quiz buddy --seed 7", "slabtown lab quiz buddy --seed 7 --solve"]],
  ["lab solution", ["slabtown lab solution mydir"]],
  ["lab history", ["slabtown lab history mydir", "slabtown lab history mydir --restore 3"]],
  ["lab author", ["slabtown lab author check buddy", "slabtown lab author matrix"]],
  ["lab author check", ["slabtown lab author check buddy", "slabtown lab author check --seeds 1000 --mutants 100"]],
  ["lab author adequacy", ["slabtown lab author adequacy magazines"]],
  ["lab author new", ["slabtown lab author new 09-arena"]],
  ["lab author calibrate", ["slabtown lab author calibrate buddy"]],
  [
    "lab author bundle",
    [
      "slabtown lab author bundle gradescope buddy",
      "slabtown lab author bundle gradescope buddy folder --seed-file secret",
    ],
  ],
  ["lab author wrong", ["slabtown lab author wrong buddy merges-anything broken/buddy.ts"]],
  ["lab author matrix", ["slabtown lab author matrix buddy"]],
];

/** Declares `lab` and what belongs to it on `program`. */
export function addLab(program: Command, host: HostOutput, done: Done): void {
  const lab = program.command("lab").description("coursework: labs with a grader that is proven");
  const actions = () => import("./lab_actions.ts");
  const directory = () => new Argument("[DIR]", "the student's folder").default(".");

  lab
    .command("list")
    .description("the labs and their points")
    .action(async () => done((await actions()).listLabs(host)));
  lab
    .command("init")
    .description("make a folder with the lab's skeleton")
    .argument("<LAB>", "name or number")
    .argument("<DIR>", "folder to make; has to be empty if it exists")
    .action(async (name: string, dir: string) => done((await actions()).initLab(name, dir, host)));
  for (const [name, depth, about] of [
    ["check", "visible", "run the visible checks"],
    ["grade", "full", "run everything and give points"],
  ] as const) {
    lab
      .command(name)
      .description(about)
      .addArgument(directory())
      .option("--case <CHECK>", "only this check")
      .option("--all", "show every failure")
      .addOption(new Option("--format <F>", "for machines").choices(FORMATS))
      .option("--seed-file <FILE>", "text that hidden seeds come from")
      .option("--lab <LAB>", "the lab, whatever the folder says")
      .option("--no-history", "keep nothing under .lab/history")
      .option("--no-color", "no colour (also: NO_COLOR)")
      .option("--ascii", "nothing but ASCII (also: a locale without UTF-8)")
      .action(async (dir: string, options: GradingOptions) => {
        done(await (await actions()).gradeLab(dir, depth, options, host));
      });
  }
  lab
    .command("cohort")
    .description("grade a class: a folder for each student, several at a time, with statistics")
    .argument("<DIR>", "the folder that holds the students' folders")
    .option("--lab <LAB>", "the lab, whatever the folders say")
    .option("--seed-file <FILE>", "text that hidden seeds come from")
    .option("--jobs <N>", "how many at a time (default: one for each CPU)", (text) => parseWhole(text, "--jobs", 1, 64))
    .option("--csv <FILE>", "write a table for spreadsheets too")
    .option("--json", "everything as one JSON document instead of the table")
    .option("--quiet", "no progress")
    .action(async (dir: string, options: CohortOptions) => {
      const { gradeClass } = await import("./cohort_command.ts");
      done(await gradeClass(dir, options, host));
    });
  addStudy(lab, host, done);
  addAuthor(lab, host, done);
}

/** What students need besides grades. */
function addStudy(lab: Command, host: HostOutput, done: Done): void {
  const actions = () => import("./lab_actions.ts");
  const directory = () => new Argument("[DIR]", "the student's folder").default(".");
  const whole = (label: string, min: number) => (text: string) => parseWhole(text, label, min, 0xffff_ffff);
  lab
    .command("watch")
    .description("a verdict after every save; keys: n r h l c x q v t p d")
    .addArgument(directory())
    .option("--no-color", "no colour (also: NO_COLOR)")
    .option("--ascii", "nothing but ASCII (also: a locale without UTF-8)")
    .action(async (dir: string, options: GradingOptions) => done(await (await actions()).watchLab(dir, options, host)));
  lab
    .command("hint")
    .description("a nudge (1), where to look (2), pseudo-code (3)")
    .argument("<LAB>", "name or number")
    .argument("[TIER]", "1, 2 or 3", whole("the tier", 1), 1)
    .action(async (name: string, tier: number) => done((await actions()).printHint(name, tier, host)));
  lab
    .command("replay")
    .description("a failing trace again, step by step")
    .argument("<LAB>", "name or number")
    .addArgument(directory())
    .requiredOption("--case <CHECK>", "which check")
    .requiredOption("--seed <N>", "which program of it, as printed: 0x2f", parseSeedNumber)
    .option("--step <N>", "stop after this operation and show memory", whole("--step", 1))
    .action(async (name: string, dir: string, options: ReplayOptions) => {
      done(await (await actions()).replayLab(name, dir, options, host));
    });
  lab
    .command("quiz")
    .description("a question to predict")
    .argument("<LAB>", "name or number")
    .option("--seed <N>", "which question (default: 1)", whole("--seed", 0))
    .option("--answer <TEXT>", "your answer")
    .option("--solve", "the answer, and why")
    .action(async (name: string, options: QuizOptions) => done(await (await actions()).quizLab(name, options, host)));
  lab
    .command("solution")
    .description("the references, once the visible checks pass")
    .addArgument(directory())
    .action(async (dir: string) => done(await (await actions()).printSolution(dir, host)));
  lab
    .command("history")
    .description("what every grade has kept of your files")
    .addArgument(directory())
    .option("--restore <N>", "put that state back")
    .option("--reset", "put the skeleton back")
    .action(async (dir: string, options: { restore?: string; reset?: boolean }) => {
      done((await actions()).historyOf(dir, options, host));
    });
}

/** A seed as failures print it, `0x2f`, or in decimal. */
function parseSeedNumber(text: string): number {
  const value = /^(?:0x[0-9a-f]{1,8}|\d{1,10})$/i.test(text) ? Number(text) : Number.NaN;
  if (value <= 0xffff_ffff) return value;
  throw new UsageError(`--seed ${text} is not possible`, "a number, as a failure prints it: 0x2f");
}

function addAuthor(lab: Command, host: HostOutput, done: Done): void {
  const author = lab.command("author").description("write labs, and prove their graders");
  const actions = () => import("./author_actions.ts");
  author
    .command("check")
    .description("all gates that a lab has to pass")
    .argument("[LAB...]", "default: every lab")
    .option("--seeds <N>", "seeds of right solutions (default: 32; the full proof: 1000)", (text) =>
      parseWhole(text, "--seeds", 1, 100_000),
    )
    .option("--mutants <N>", "machine mutants of each reference, too (default: none; there are some hundred)", (text) =>
      parseWhole(text, "--mutants", 1, 100_000),
    )
    .action(async (names: string[], options: { readonly seeds?: number; readonly mutants?: number }) => {
      done(await (await actions()).checkLabs(names, options.seeds ?? 32, options.mutants ?? 0, host));
    });
  author
    .command("adequacy")
    .description("how mistakes of concurrent code are found: bound, executions, and random stress to compare with")
    .argument("[LAB...]", "default: every lab")
    .action(async (names: string[]) => done(await (await actions()).printAdequacy(names, host)));
  author
    .command("new")
    .description("a new lab: a small one that works, to be replaced piece by piece")
    .argument("<NAME>", "as in arena or 09-arena")
    .action(async (name: string) => done((await actions()).makeLab(name, host)));
  author
    .command("calibrate")
    .description("step limits, runs and points of the rubric, measured over references and wrong solutions")
    .argument("<LAB>", "name or number")
    .action(async (name: string) => done(await (await actions()).calibrateLab(name, host)));
  author
    .command("bundle")
    .description("what a grading service builds an autograder from")
    .addArgument(new Argument("<SERVICE>").choices(["gradescope"]))
    .argument("<LAB>", "name or number")
    .argument("[TARGET]", "a new folder, or a new file that ends in .zip (default: LAB-gradescope.zip)")
    .option("--seed-file <FILE>", "text that hidden seeds come from, put into the bundle")
    .action(async (_service: string, name: string, target: string | undefined, options: { seedFile?: string }) => {
      const path = target ?? `${name.toLowerCase()}-gradescope.zip`;
      done((await actions()).bundleLab(name, path, options.seedFile, host));
    });
  author
    .command("wrong")
    .description("write a wrong solution's patch from a broken copy of a reference")
    .argument("<LAB>", "name or number")
    .argument("<BUG>", "its name: what is wrong, with dashes")
    .argument("<FILE>", "the broken copy, with the reference's file name")
    .option("--reference <NAME>", "which reference it is a copy of (default: the first)")
    .action(async (name: string, bug: string, file: string, { reference }: { readonly reference?: string }) => {
      done((await actions()).writeWrong(name, bug, file, reference, host));
    });
  author
    .command("matrix")
    .description("which check kills which wrong solution, as a table")
    .argument("[LAB...]", "default: every lab")
    .action(async (names: string[]) => done(await (await actions()).printMatrix(names, host)));
}
