/**
 * `lab cohort`: a class, one folder per student, each graded by a process of its own, several at a time.
 *
 *   DIR/ada/buddy.ts …      ──▶  slabtown lab grade DIR/ada --format json --no-history     ┐
 *   DIR/grace/buddy.ts …    ──▶  …                                                         ├─▶ Result per folder
 *   DIR/notes.txt                (not a folder: left out)                                  ┘
 *
 * A folder that cannot be graded is a result too, with the reason; the others go on. The folders are left as they are.
 * When it is stopped, what has been graded stays, and the rest is said to be missing.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as v from "valibot";
import { UsageError } from "../usage_error.ts";

const TEST = v.object({
  name: v.string(),
  status: v.string(),
  score: v.number(),
  max_score: v.number(),
  output: v.string(),
});
const GRADE = v.object({
  schema: v.literal("slabtown/lab-grade/v1"),
  lab: v.string(),
  score: v.number(),
  max_score: v.number(),
  problem: v.nullable(v.string()),
  tests: v.array(TEST),
});

type CohortGrade = v.InferOutput<typeof GRADE>;

export interface Result {
  /** The folder's name. */
  readonly student: string;
  readonly grade: CohortGrade | null;
  /** Why there is no grade. */
  readonly reason: string;
}

export interface CohortRequest {
  readonly dir: string;
  /** Arguments for each `lab grade`, besides the folder. */
  readonly args: readonly string[];
  readonly nrJobs: number;
  readonly isStopped: () => boolean;
  readonly onResult?: (nrDone: number, nrAll: number) => void;
}

/** Results are of this size at most: a few kilobytes per check. */
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024;
const POLL_MS = 100;
/** What a process that was asked to end has for that. */
const GRACE_MS = 3000;

/** Names of the folders in `dir`, sorted. Throws `UsageError`. */
export function studentsOf(dir: string): readonly string[] {
  let names: string[];
  try {
    names = readdirSync(dir, { withFileTypes: true })
      .filter((entry) => (entry.isDirectory() || entry.isSymbolicLink()) && !entry.name.startsWith("."))
      .map((entry) => entry.name);
  } catch {
    throw new UsageError(`${dir}: cannot be read`, "name a folder that holds one folder for each student");
  }
  if (existsSync(join(dir, ".lab"))) {
    throw new UsageError(`${dir}: is one student's folder`, "name the folder above; or: slabtown lab grade");
  }
  if (names.length === 0) throw new UsageError(`${dir}: holds no folders`, "one folder for each student, as DIR/ada");
  return names.sort();
}

/** Grades all; in the order of names, those that were not reached left out. */
export async function gradeCohort(request: CohortRequest): Promise<readonly Result[]> {
  const { dir, nrJobs, isStopped, onResult } = request;
  const students = studentsOf(dir);
  const results = new Map<string, Result>();
  const running = new Set<ChildProcess>();
  const watch = setInterval(() => {
    if (isStopped()) for (const child of running) stop(child);
  }, POLL_MS);
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < students.length && !isStopped()) {
      const student = students[next++] as string;
      const result = await gradeOne(request, student, running);
      if (isStopped() && result.grade === null) return;
      results.set(student, result);
      onResult?.(results.size, students.length);
    }
  };
  try {
    await Promise.all(Array.from({ length: nrJobs }, work));
  } finally {
    clearInterval(watch);
  }
  return students.flatMap((student) => results.get(student) ?? []);
}

const asked = new WeakSet<ChildProcess>();

/** Asks once, then makes it end. Its own child ends with it (sandbox.ts). */
function stop(child: ChildProcess): void {
  if (asked.has(child)) return;
  asked.add(child);
  child.kill("SIGINT");
  setTimeout(() => child.kill("SIGKILL"), GRACE_MS).unref();
}

function gradeOne({ dir, args }: CohortRequest, student: string, running: Set<ChildProcess>): Promise<Result> {
  const folder = join(dir, student);
  const argv = [programFile(), "lab", "grade", folder, "--format", "json", "--no-history", ...args];
  return new Promise((resolve) => {
    const child = spawn(process.execPath, argv, { stdio: ["ignore", "pipe", "pipe"], detached: true });
    running.add(child);
    let [out, err] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      out += text;
      if (out.length > MAX_OUTPUT_BYTES) child.kill("SIGKILL");
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      if (err.length < 4000) err += text;
    });
    child.on("error", (error) => {
      err += error.message;
    });
    child.on("close", (code) => {
      running.delete(child);
      const grade = parseGrade(out);
      resolve({ student, grade, reason: grade === null ? reasonOf(err, folder, code) : "" });
    });
  });
}

function parseGrade(text: string): CohortGrade | null {
  try {
    return v.parse(GRADE, JSON.parse(text));
  } catch {
    return null;
  }
}

/** The first complaint, without our own name and the folder's. */
function reasonOf(err: string, folder: string, code: number | null): string {
  const line = err.split("\n").find((text) => text.trim() !== "" && !text.startsWith("isolation:")) ?? "";
  const text = line
    .replace(/^slabtown: /, "")
    .replace(`${folder}: `, "")
    .replace(/ \(.*\)$/, "");
  return text === "" ? `the grader ended with ${code ?? "a signal"}` : text;
}

/** The compiled program, also from the sources. */
function programFile(): string {
  for (const path of ["../slabtown.js", "../../dist/scripts/slabtown.js"]) {
    const file = fileURLToPath(new URL(path, import.meta.url));
    if (existsSync(file)) return file;
  }
  throw new Error("the package is incomplete: dist/scripts/slabtown.js is missing (npm run build)");
}
