/**
 * `lab init`: a student's folder, and which lab a folder belongs to.
 *
 * `.lab/lab` in the folder holds the lab's name. The folder has to be empty before: nothing of anybody's is written
 * over.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { UsageError } from "../usage_error.ts";
import { type Lab, openLab } from "./lab_folder.ts";
import { skeletonFiles } from "./skeleton.ts";

const MARK = join(".lab", "lab");

/** Writes the skeleton into `dir`; what to do next, as text. Throws `UsageError`. */
export function initFolder(lab: Lab, dir: string): string {
  const path = resolve(dir);
  try {
    if (existsSync(path) && readdirSync(path).length > 0) {
      throw new UsageError(`${dir}: is not empty`, "name a new folder; nothing of yours is written over");
    }
    for (const [name, text] of skeletonFiles(lab)) writeNew(join(path, name), text);
    writeNew(join(path, MARK), `${lab.name}\n`);
    writeNew(join(path, "handout.md"), readFileSync(join(lab.dir, "handout.md"), "utf8"));
  } catch (error) {
    if (!(error instanceof Error && "code" in error)) throw error;
    throw new UsageError(
      `${dir}: cannot be made: ${error.message.replace(/^\w+: /, "")}`,
      "name a folder that you may write to",
    );
  }
  const { files, predictions } = lab.manifest;
  const own = files.length > 0 ? files : [predictions?.file ?? ""];
  const edited = own.map((name) => join(dir, name)).join(", ");
  const then = files.length > 0 ? "check" : "grade";
  const next = `read ${join(dir, "handout.md")}, edit ${edited}, then: slabtown lab ${then} ${dir}`;
  return `${lab.name}: ${lab.manifest.title}\n${next}\n`;
}

function writeNew(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text, { flag: "wx" });
}

/** The lab that the folder `dir` was made for. Throws `UsageError`. */
export function labOfFolder(dir: string): Lab {
  const path = join(dir, MARK);
  if (!existsSync(path)) throw new UsageError(`${dir}: is no folder of a lab`, "slabtown lab init LAB DIR makes one");
  return openLab(readFileSync(path, "utf8").trim());
}
