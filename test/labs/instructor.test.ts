/**
 * Goal: what instructors are given works: a class with bad folders in it, a new lab, a bundle for Gradescope.
 * Method: the built program over small classes; the bundle's run_autograder in a fresh folder, as Gradescope runs it.
 */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as v from "valibot";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { proveLab } from "../../scripts/lab/author.ts";
import { newLab } from "../../scripts/lab/author_new.ts";
import { share } from "../../scripts/lab/calibrate.ts";
import { type Result, studentsOf } from "../../scripts/lab/cohort.ts";
import { cohortCsv, cohortText, figuresOf } from "../../scripts/lab/cohort_report.ts";
import { initFolder } from "../../scripts/lab/init.ts";
import { labsFolder, openLab, readLab } from "../../scripts/lab/lab_folder.ts";
import { wrongFiles } from "../../scripts/lab/own_tests.ts";
import { createSandbox } from "../../scripts/lab/sandbox.ts";
import { referenceFiles } from "../../scripts/lab/skeleton.ts";
import { descendants, eventually, isBuilt, isRunning, run, start } from "./support/program.ts";
import { GRADESCOPE } from "./support/schemas.ts";

const scratch = mkdtempSync(join(tmpdir(), "slabtown-class-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const lab = openLab("buddy");

function student(dir: string, name: string, files: ReadonlyMap<string, string>): void {
  initFolder(lab, join(dir, name));
  for (const [file, text] of files) writeFileSync(join(dir, name, file), text);
}

describe.skipIf(!isBuilt)("a class", () => {
  const dir = join(scratch, "class");
  const csv = join(scratch, "grades.csv");
  beforeAll(() => {
    student(dir, "ada", referenceFiles(lab, "reference-list"));
    student(dir, "bob", wrongFiles(lab, "merge-once"));
    student(dir, "cleo", wrongFiles(lab, "merge-once"));
    student(dir, "dan", new Map([["buddy.ts", "export const = 3;"]]));
    mkdirSync(join(dir, "eve"));
    symlinkSync("/nonexistent", join(dir, "fred"));
    writeFileSync(join(dir, "notes.txt"), "not a student");
  });

  it("is graded whatever is in it: figures, hardest checks, who is wrong alike, reasons", async () => {
    const { code, out } = await run("lab", "cohort", dir, "--json", "--csv", csv, "--quiet");
    expect(code).toBe(1);
    const { students, labs, missing } = JSON.parse(out) as {
      students: { student: string; score?: number; reason?: string; problem?: string }[];
      labs: { nrGraded: number; same: { students: string[] }[]; checks: { check: string; meanPercent: number }[] }[];
      missing: number;
    };
    expect(missing).toBe(0);
    expect(students.map(({ student: name, score, reason }) => [name, score ?? reason])).toEqual([
      ["ada", 72],
      ["bob", 35],
      ["cleo", 35],
      ["dan", 0],
      ["eve", "is no folder of a lab"],
      ["fred", "there is no such folder"],
    ]);
    expect(students[3]?.problem).toContain("buddy.ts:1:14");
    expect(labs[0]?.nrGraded).toBe(4);
    expect(labs[0]?.same.map((group) => group.students)).toEqual([["bob", "cleo"]]);
    expect(labs[0]?.checks.find(({ check }) => check === "merge-all")?.meanPercent).toBe(25);
    expect(readFileSync(csv, "utf8").split("\r\n")).toHaveLength(8);
    // The folders are the students': nothing was written into them.
    expect(readdirSync(join(dir, "ada", ".lab"))).toEqual(["lab"]);
  }, 120_000);

  it("Ctrl-C: what is done is shown, the rest is counted, nothing is left running", async () => {
    const { child, ended } = start(["lab", "cohort", dir, "--jobs", "1"]);
    const pid = child.pid as number;
    await eventually(() => descendants(pid).length > 2, 20_000);
    const below = descendants(pid);
    child.kill("SIGINT");
    const { code, out, err } = await ended;
    expect(code).toBe(130);
    expect(out).toMatch(/stopped: \d not graded/);
    expect(err).toContain("interrupted");
    expect(await eventually(() => !below.some(isRunning))).toBe(true);
  }, 60_000);

  it.each([
    ["/nonexistent", "cannot be read"],
    [join(dir, "eve"), "holds no folders"],
    [join(dir, "ada"), "is one student's folder"],
  ])("%s is no class", (path, words) => {
    expect(() => studentsOf(path)).toThrow(words);
  });
});

describe("figures of a class", () => {
  const result = (name: string, score: number, output: string): Result => ({
    student: name,
    reason: "",
    grade: {
      schema: "slabtown/lab-grade/v1",
      lab: "buddy",
      score,
      max_score: 10,
      problem: null,
      tests: [{ name: "one", status: score === 10 ? "passed" : "failed", score, max_score: 10, output }],
    },
  });

  it("quartiles as spreadsheets have them; line numbers do not make behaviours differ", () => {
    const results = [result("a", 10, ""), result("b", 4, "buddy.ts:3: x"), result("c", 1, "buddy.ts:9: x")];
    const [figures] = figuresOf(results);
    expect(figures?.quartiles).toEqual([1, 2.5, 4, 7, 10]);
    expect(figures?.mean).toBe(5);
    expect(figures?.bars).toEqual([0, 1, 0, 0, 1, 0, 0, 0, 0, 1]);
    expect(figures?.same).toEqual([{ students: ["b", "c"], failing: ["one"] }]);
    expect(cohortText(results, 2)).toContain("stopped: 2 not graded");
  });

  it("a name is no formula for a spreadsheet, and no second column", () => {
    const [, row] = cohortCsv([result('=cmd|"x",y', 1, "")]).split("\r\n");
    expect(row).toBe(`"'=cmd|""x"",y",buddy,1,10,,1`);
  });

  it("points are shared out by weight, and add up", () => {
    expect(share(10, [1, 1, 1])).toEqual([4, 3, 3]);
    expect(share(7, [5, 1, 1])).toEqual([5, 1, 1]);
  });
});

describe.skipIf(!isBuilt)("a new lab", () => {
  it("is a copy of a lab that passes every gate but the number of its wrong solutions", async () => {
    const folder = join(scratch, "labs");
    mkdirSync(folder);
    const path = newLab("arena", folder);
    expect(path).toBe(join(folder, "01_arena"));
    expect(readLab(path).manifest.title).toBe("Tickets (arena)");
    expect(() => newLab("arena", folder)).toThrow("there is a lab 01-arena");
    expect(() => newLab("Arena 2", folder)).toThrow("is no name for a lab");
    expect(newLab("zones", folder)).toBe(join(folder, "02_zones"));
    const sandbox = createSandbox();
    try {
      const proof = await proveLab({ lab: readLab(join(labsFolder(), "template")), sandbox, nrSeeds: 20 });
      expect(proof.findings).toEqual(["fewer than 20 wrong solutions"]);
    } finally {
      sandbox.close();
    }
  }, 60_000);
});

describe.skipIf(!isBuilt)("a bundle for Gradescope", () => {
  it("grades a submission in a fresh folder, and the results are what Gradescope reads", async () => {
    const root = join(scratch, "autograder");
    const archive = join(scratch, "buddy.zip");
    const secret = join(scratch, "secret");
    writeFileSync(secret, "of this class\n");
    expect((await run("lab", "author", "bundle", "gradescope", "buddy", archive, "--seed-file", secret)).code).toBe(0);
    expect((await run("lab", "author", "bundle", "gradescope", "buddy", archive)).err).toContain("exists");
    mkdirSync(root);
    expect(spawnSync("unzip", ["-q", archive, "-d", join(root, "source")]).status).toBe(0);
    // What `npm ci --omit=dev` of setup.sh brings.
    symlinkSync(
      fileURLToPath(new URL("../../node_modules", import.meta.url)),
      join(root, "source/slabtown/node_modules"),
    );
    mkdirSync(join(root, "submission"));
    const buddy = wrongFiles(lab, "merge-once").get("buddy.ts") as string;
    writeFileSync(join(root, "submission", "buddy.ts"), buddy);
    cpSync(join(root, "source", "run_autograder"), join(root, "run_autograder"));
    const env = { PATH: process.env.PATH, AUTOGRADER_ROOT: root };
    const graded = spawnSync(join(root, "run_autograder"), { env, encoding: "utf8", cwd: "/" });
    expect(graded.status).toBe(0);
    const results: unknown = JSON.parse(readFileSync(join(root, "results", "results.json"), "utf8"));
    expect(v.safeParse(GRADESCOPE, results).issues).toBeUndefined();
    expect(results).toMatchObject({ score: 35 });
    expect(readdirSync(join(root, "submission"))).toEqual(["buddy.ts"]);

    // Without a verdict there are no results: an old file must not stay either.
    rmSync(join(root, "source", "seeds"));
    expect(spawnSync(join(root, "run_autograder"), { env }).status).toBe(2);
    expect(readdirSync(join(root, "results"))).toEqual([]);
    expect(spawnSync("bash", ["-n", join(root, "source", "setup.sh")]).status).toBe(0);
  }, 120_000);
});
