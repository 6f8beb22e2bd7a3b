/**
 * What `slabtown lab …` does for students.
 */

import { type HostOutput, stoppable } from "../host_output.ts";
import { EXIT_FAILED, EXIT_INTERRUPT, EXIT_OK } from "../metrics.ts";
import { didYouMean } from "../nearest.ts";
import { colorLevel, createPaint, type Paint } from "../paint.ts";
import { UsageError } from "../usage_error.ts";
import { type Depth, gradeFolder } from "./grade.ts";
import { humanGrade } from "./human.ts";
import { initFolder, labOfFolder } from "./init.ts";
import { type Lab, labNames, openLab } from "./lab_folder.ts";
import type { GradingOptions } from "./lab_options.ts";
import { activeLayers, createSandbox, InfrastructureError } from "./sandbox.ts";
import { studentFolder } from "./student_files.ts";

export function listLabs(host: HostOutput): number {
  for (const name of labNames()) {
    const { manifest } = openLab(name);
    host.out(`${name.padEnd(20)} ${String(manifest.points).padStart(4)} points   ${manifest.title}\n`);
  }
  return EXIT_OK;
}

export function initLab(name: string, dir: string, host: HostOutput): number {
  host.out(initFolder(openLab(name), dir));
  return EXIT_OK;
}

/** Grades `dir` and prints the grade; the exit code. */
export async function gradeLab(dir: string, depth: Depth, options: GradingOptions, host: HostOutput): Promise<number> {
  const folder = studentFolder(dir);
  const lab = labOfFolder(folder);
  if (options.case !== undefined) checkCase(lab, options.case);
  const sandbox = createSandbox();
  try {
    const isStopped = (): boolean => host.stop.reason !== "none";
    const request = { lab, dir: folder, depth, sandbox, only: options.case, isStopped };
    const grade = await stoppable(host.stop, () => gradeFolder(request));
    host.out(humanGrade(grade, paintFor(options), options.all === true || options.case !== undefined));
    if (depth === "full") host.err(`isolation: ${activeLayers().join(", ")}\n`);
    if (host.stop.reason === "interrupt") return EXIT_INTERRUPT;
    return grade.score === grade.max ? EXIT_OK : EXIT_FAILED;
  } catch (error) {
    throw asUsageError(error);
  } finally {
    sandbox.close();
  }
}

function checkCase(lab: Lab, id: string): void {
  const ids = lab.rubric.map((row) => row.id);
  if (ids.includes(id)) return;
  throw new UsageError(`${lab.name} has no check "${id}"`, didYouMean(id, ids, `checks: ${ids.join(", ")}`));
}

/** An environment that gives no verdict is no grade: exit code 2, as for everything that is not the student's doing. */
function asUsageError(error: unknown): unknown {
  if (!(error instanceof InfrastructureError)) return error;
  return new UsageError(`no verdict: ${error.message}`, "this is no grade; run it again, or on a quieter computer");
}

function paintFor({ color }: { readonly color: boolean }): Paint {
  return createPaint(colorLevel({ color, env: process.env, isTty: process.stdout.isTTY === true }));
}
