/**
 * `slabtown lab …`: the coursework commands as declared on the command line.
 *
 * What they do is loaded when one of them runs: it brings the TypeScript compiler with it, which the other commands
 * need not wait for.
 */

import { Argument, type Command } from "commander";
import type { HostOutput } from "../host_output.ts";
import { parseWhole } from "../options.ts";
import type { GradingOptions } from "./lab_options.ts";

type Done = (exitCode: number) => void;

/** Examples for the help of each command. */
export const LAB_EXAMPLES: readonly (readonly [string, readonly string[]])[] = [
  ["lab", ["slabtown lab list", "slabtown lab init 02-buddy mydir", "slabtown lab check mydir"]],
  ["lab list", ["slabtown lab list"]],
  ["lab init", ["slabtown lab init 02-buddy mydir"]],
  ["lab check", ["slabtown lab check mydir", "slabtown lab check mydir --case merge-order"]],
  ["lab grade", ["slabtown lab grade mydir"]],
  ["lab author", ["slabtown lab author check buddy", "slabtown lab author matrix"]],
  ["lab author check", ["slabtown lab author check buddy", "slabtown lab author check --seeds 1000"]],
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
      .option("--no-color", "no colour (also: NO_COLOR)")
      .action(async (dir: string, options: GradingOptions) => {
        done(await (await actions()).gradeLab(dir, depth, options, host));
      });
  }
  addAuthor(lab, host, done);
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
    .action(async (names: string[], { seeds }: { readonly seeds?: number }) => {
      done(await (await actions()).checkLabs(names, seeds ?? 32, host));
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
