/**
 * Goal: a folder is graded as it deserves, and what the student reads is the message that LABS promises.
 * Method: lab 2 through the real child process (dist/scripts/lab/runner_child.js); skipped if that is not built.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Grade, gradeFolder } from "../../scripts/lab/grade.ts";
import { initFolder } from "../../scripts/lab/init.ts";
import { type Lab, openLab } from "../../scripts/lab/lab_folder.ts";
import { wrongFiles } from "../../scripts/lab/own_tests.ts";
import { createSandbox, type Sandbox } from "../../scripts/lab/sandbox.ts";
import { referenceFiles } from "../../scripts/lab/skeleton.ts";

const isBuilt = existsSync(fileURLToPath(new URL("../../dist/scripts/lab/runner_child.js", import.meta.url)));
if (!isBuilt) process.stderr.write("test/labs: skipped: dist/ is not built, `npm run build` first\n");

const scratch = mkdtempSync(join(tmpdir(), "slabtown-lab-"));
let sandbox: Sandbox;
let lab: Lab;
let nrFolders = 0;

beforeAll(() => {
  sandbox = createSandbox();
  lab = openLab("buddy");
});
afterAll(() => {
  sandbox.close();
  rmSync(scratch, { recursive: true, force: true });
});

/** A student's folder with `text` as its buddy.ts; the skeleton's if there is none. */
function folder(text?: string): string {
  const dir = join(scratch, `f${nrFolders++}`);
  initFolder(lab, dir);
  if (text !== undefined) writeFileSync(join(dir, "buddy.ts"), text);
  return dir;
}

function grade(dir: string, depth: "quick" | "visible" | "full" = "visible"): Promise<Grade> {
  return gradeFolder({ lab, dir, depth, sandbox });
}

function rowOf(graded: Grade, id: string): Grade["rows"][number] {
  const row = graded.rows.find(({ check }) => check.id === id);
  if (row === undefined) throw new Error(`no row ${id}`);
  return row;
}

describe.skipIf(!isBuilt)("lab 2", () => {
  it("a reference has all points for the checks; own tests and predictions are still to do", async () => {
    const graded = await grade(folder(referenceFiles(lab, "reference-list").get("buddy.ts")), "full");
    expect(graded.rows.filter(({ status }) => status !== "passed").map(({ check }) => check.id)).toEqual([
      "own-tests",
      "predictions",
    ]);
    expect(graded.score).toBe(72);
  });

  it("the skeleton earns nothing, and says what is not written yet", async () => {
    const graded = await grade(folder(), "full");
    expect(graded.score).toBe(0);
    expect(rowOf(graded, "alignment").lines.join("\n")).toMatch(/buddy\.ts:\d+: not written yet: cut/);
  });

  it("a wrong merge is reported by its rule, with owners, trace, picture and replay", async () => {
    const graded = await grade(folder(wrongFiles(lab, "merge-ignores-order").get("buddy.ts")));
    const { lines, status } = rowOf(graded, "merge-order");
    expect(status).toBe("failed");
    const text = lines.join("\n");
    expect(lines.length).toBeLessThanOrEqual(25);
    expect(text).toContain("BUD-4: two blocks merge only if");
    expect(text).toMatch(/belongs? to two owners: \w+ \(op \d+, order \d\) and \w+ \(op \d+, order \d\)/);
    expect(text).toMatch(/minimal trace \(\d ops? of \d+|minimal trace \((\d|10) of \d+ ops/);
    expect(text).toContain("replay: slabtown lab replay buddy --case merge-order --seed 0x");
  });

  it("an endless loop is named by file and line", async () => {
    const text = readFileSync(join(lab.dir, "reference-list/buddy.ts"), "utf8").replace("../given", "./given");
    const graded = await grade(folder(text.replace("found++;", "found += 0;")), "quick");
    const line = text.split("\n").findIndex((row) => row.includes("found++;")) + 1;
    expect(graded.rows.flatMap(({ lines }) => lines).join("\n")).toContain(
      `does not end: the loop at buddy.ts:${line}`,
    );
  });

  it("types: required: code with a type error is not run, in the quick run either (bug: that ran it)", async () => {
    const text = referenceFiles(lab, "reference-list").get("buddy.ts") as string;
    const dir = folder(`${text}export const wrong: number = "text";\n`);
    const strict: Lab = { ...lab, manifest: { ...lab.manifest, types: "required" } };
    const refused = await gradeFolder({ lab: strict, dir, depth: "quick", sandbox });
    expect(refused.problem).toMatch(/buddy\.ts.*not assignable.*asks for code without type errors/);
    expect(refused.rows.map(({ status }) => status)).not.toContain("passed");
    expect(refused.score).toBe(0);
    const shown = await grade(dir);
    expect([shown.problem, shown.typeErrors.length]).toEqual([null, 1]);
    expect(shown.rows.map(({ status }) => status)).toContain("passed");
    const clean = await gradeFolder({ lab: strict, dir: folder(text), depth: "quick", sandbox });
    expect(clean.problem).toBeNull();
    expect(clean.rows.map(({ status }) => status)).toContain("passed");
  });

  it("a syntax error has its place and no points", async () => {
    const dir = folder("export function createBuddy( {\n");
    const graded = await grade(dir);
    expect(graded.score).toBe(0);
    expect(graded.problem).toMatch(/buddy\.ts:\d+:\d+: /);
  });
});
