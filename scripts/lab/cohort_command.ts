/**
 * `slabtown lab cohort DIR`: options, progress on standard error, the table or JSON on standard output, CSV in a file.
 */

import { renameSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import { type HostOutput, stoppable } from "../host_output.ts";
import { EXIT_FAILED, EXIT_INTERRUPT, EXIT_OK } from "../metrics.ts";
import { createProgress, NO_PROGRESS } from "../progress.ts";
import { UsageError } from "../usage_error.ts";
import { gradeCohort, studentsOf } from "./cohort.ts";
import { cohortCsv, cohortJson, cohortText } from "./cohort_report.ts";
import { openLab } from "./lab_folder.ts";
import type { CohortOptions } from "./lab_options.ts";

/** Grades the class in `dir`; 0 if every folder has a grade, whatever it is. */
export async function gradeClass(dir: string, options: CohortOptions, host: HostOutput): Promise<number> {
  const { lab, jobs, seedFile, json, csv, quiet } = options;
  const args = lab === undefined ? [] : ["--lab", openLab(lab).name];
  if (seedFile !== undefined) args.push("--seed-file", resolve(seedFile));
  const path = resolve(dir);
  const nrAll = studentsOf(path).length;
  const progress = quiet === true ? NO_PROGRESS : createProgress(process.stderr, undefined, "folders");
  const results = await stoppable(host.stop, () =>
    gradeCohort({
      dir: path,
      args,
      nrJobs: jobs ?? availableParallelism(),
      isStopped: () => host.stop.reason !== "none",
      onResult: (nrDone) => progress.update(nrDone, nrAll, 0),
    }),
  );
  progress.end();
  const nrMissing = nrAll - results.length;
  if (csv !== undefined) writeWhole(csv, cohortCsv(results));
  host.out(json === true ? cohortJson(results, nrMissing) : cohortText(results, nrMissing));
  if (host.stop.reason === "interrupt") {
    host.err(`slabtown: interrupted: ${results.length} of ${nrAll} are graded, and shown\n`);
    return EXIT_INTERRUPT;
  }
  return results.every(({ grade }) => grade !== null) ? EXIT_OK : EXIT_FAILED;
}

/** Writes beside, then renames: never half a file. Throws `UsageError`. */
function writeWhole(path: string, text: string): void {
  try {
    writeFileSync(`${path}.part`, text);
    renameSync(`${path}.part`, path);
  } catch (error) {
    const why = error instanceof Error ? error.message.replace(/^\w+: /, "") : String(error);
    throw new UsageError(`${path}: cannot be written: ${why}`, "name a file in a folder that you may write to");
  }
}
