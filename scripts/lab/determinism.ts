/**
 * The same bytes everywhere: a folder graded again, with its checks in another order, and by a process in another time
 * zone and locale that gets little of the processor.
 */

import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { formatGrade } from "./formats.ts";
import { type GradeRequest, gradeFolder } from "./grade.ts";
import { initFolder } from "./init.ts";
import { type Lab, wrongSolutions } from "./lab_folder.ts";
import { wrongFiles } from "./own_tests.ts";
import { createSandbox } from "./sandbox.ts";

const ELSEWHERE = { TZ: "Pacific/Apia", LANG: "tr_TR.UTF-8", LC_ALL: "tr_TR.UTF-8" };

/** Differences between grades of one wrong solution, as findings. */
export async function determinismFindings(lab: Lab): Promise<readonly string[]> {
  const names = Object.keys(wrongSolutions(lab).wrong);
  const name = names[names.length >>> 1];
  if (name === undefined) return [];
  const scratch = mkdtempSync(join(tmpdir(), "slabtown-same-"));
  const dir = join(scratch, "folder");
  try {
    initFolder(lab, dir);
    for (const [file, text] of wrongFiles(lab, name)) writeFileSync(join(dir, file), text);
    const first = await gradeHere(lab, dir);
    const findings: string[] = [];
    if ((await gradeHere(lab, dir, (checks) => checks.toReversed())) !== first)
      findings.push(`wrong/${name}: checks in another order give other results`);
    const elsewhere = await gradeElsewhere(lab, dir);
    if (elsewhere !== null && elsewhere.out !== first)
      findings.push(
        `wrong/${name}: another time zone, locale and a slow processor give other results` +
          differenceOf(first, elsewhere),
      );
    return findings;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

interface Elsewhere {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Where the two differ first; or how the other grade ended if it has no results. */
function differenceOf(first: string, { code, out, err }: Elsewhere): string {
  if (out === "") return `: none, exit code ${code}: ${err.trim().split("\n").at(-1) ?? ""}`;
  const [here, there] = [first.split("\n"), out.split("\n")];
  const at = here.findIndex((line, i) => line !== there[i]);
  return `: line ${at + 1}: ${here[at]?.trim()} ≠ ${there[at]?.trim()}`.slice(0, 300);
}

async function gradeHere(lab: Lab, dir: string, order?: GradeRequest["order"]): Promise<string> {
  const sandbox = createSandbox();
  try {
    const request: GradeRequest = { lab, dir, depth: "full", sandbox, ...(order === undefined ? {} : { order }) };
    return formatGrade(await gradeFolder(request), "json");
  } finally {
    sandbox.close();
  }
}

/** By the built program on one processor, with a loop beside it that wants all of that; null if it is not built. */
async function gradeElsewhere(lab: Lab, dir: string): Promise<Elsewhere | null> {
  const program = ["../slabtown.js", "../../dist/scripts/slabtown.js"]
    .map((path) => fileURLToPath(new URL(path, import.meta.url)))
    .find((path) => existsSync(path));
  if (program === undefined) return null;
  const pinned = spawnSync("taskset", ["--version"]).status === 0 ? ["taskset", "--cpu-list", "0"] : [];
  const [command = "", ...rest] = [...pinned, process.execPath];
  const loop = spawn(command, [...rest, "-e", "for (;;);"], { stdio: "ignore" });
  try {
    const args = [...rest, program, "lab", "grade", dir, "--lab", lab.name, "--no-history", "--format", "json"];
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...ELSEWHERE } });
    let [out, err] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      out += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      err += text;
    });
    const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
    return { code, out, err };
  } finally {
    loop.kill("SIGKILL");
  }
}
