/**
 * `lab author new NAME`: a folder with a small lab that works, to be replaced piece by piece (labs/template/).
 */

import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { UsageError } from "../usage_error.ts";
import { labNames, labsFolder } from "./lab_folder.ts";

const NAME = /^(?:(\d\d)[-_])?([a-z][a-z0-9]*(?:[-_][a-z0-9]+)*)$/;

/** Makes the folder of lab `name`, `arena` or `09-arena`, under `folder`; its path. Throws `UsageError`. */
export function newLab(name: string, folder = labsFolder()): string {
  const [, given, word] = NAME.exec(name) ?? [];
  if (word === undefined) throw new UsageError(`"${name}" is no name for a lab`, "lower case, as in 09-arena or arena");
  const taken = labNames(folder);
  const short = word.replaceAll("_", "-");
  const clash = taken.find((label) => label.slice(3) === short || label.slice(0, 2) === given);
  if (clash !== undefined) throw new UsageError(`there is a lab ${clash}`, "another name, another number");
  const number = given ?? nextNumber(taken);
  const path = join(folder, `${number}_${short.replaceAll("-", "_")}`);
  if (existsSync(path)) throw new UsageError(`${path}: exists`, "another name");
  cpSync(join(labsFolder(), "template"), path, { recursive: true, errorOnExist: true });
  for (const [file, from, to] of [
    ["handout.md", "A new lab: tickets", `Lab ${Number(number)}: ${short}`],
    ["lab.yaml", "title: Tickets", `title: Tickets (${short})`],
    [join("skeleton", "predictions.yaml"), "quiz NAME", `quiz ${short}`],
  ] as const) {
    const text = readFileSync(join(path, file), "utf8");
    writeFileSync(join(path, file), text.replace(from, to));
  }
  return path;
}

function nextNumber(taken: readonly string[]): string {
  let number = 1;
  while (taken.some((label) => Number(label.slice(0, 2)) === number)) number++;
  return String(number).padStart(2, "0");
}
