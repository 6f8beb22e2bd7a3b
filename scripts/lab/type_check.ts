/**
 * Types of a student's files: shown beside the grade, and no part of it unless the lab says so (`types: required`).
 *
 * They are checked on a thread, with bounds on its memory and time: types can be written that take for ever.
 */

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { printable } from "../readers/input_error.ts";
import type { Lab } from "./lab_folder.ts";
import { givenFiles } from "./skeleton.ts";
import type { TypeRequest } from "./type_worker.ts";

const MAX_SHOWN = 8;
/** CPU time of this process, which does little else meanwhile: a busy computer changes no grade. */
const MAX_CPU_MS = 30_000;
const LOOK_MS = 500;
const HEAP_MIB = 512;

/** What is wrong with the types of `files`, a line each; empty if nothing is. */
export async function typeErrors(lab: Lab, files: ReadonlyMap<string, string>): Promise<readonly string[]> {
  const request: TypeRequest = { files: [...givenFiles(lab), ...files], own: [...files.keys()] };
  const errors = await ask(request);
  const nrMore = errors.length - MAX_SHOWN;
  const shown = errors.slice(0, MAX_SHOWN).map((line) => printable(line));
  return nrMore > 0 ? [...shown, `${nrMore} more`] : shown;
}

function ask(request: TypeRequest): Promise<readonly string[]> {
  return new Promise((resolve) => {
    const worker = new Worker(workerFile(), {
      workerData: request,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
      stderr: true,
    });
    const end = (lines: readonly string[]): void => {
      clearInterval(timer);
      void worker.terminate();
      resolve(lines);
    };
    const giveUp = (): void => end(["types were not checked: that takes too much time or memory"]);
    const start = process.cpuUsage();
    const timer = setInterval(() => {
      const { user, system } = process.cpuUsage(start);
      if ((user + system) / 1000 > MAX_CPU_MS) giveUp();
    }, LOOK_MS);
    worker.once("message", end);
    worker.once("error", giveUp);
  });
}

function workerFile(): string {
  for (const path of ["./type_worker.js", "../../dist/scripts/lab/type_worker.js"]) {
    const file = fileURLToPath(new URL(path, import.meta.url));
    if (existsSync(file)) return file;
  }
  throw new Error("the package is incomplete: dist/scripts/lab/type_worker.js is missing (npm run build)");
}
