/**
 * Goal: whatever state a student's folder is in, and however a grade is interrupted: no crash, no lost work, nothing left
 * running, no half results. Type errors are shown and cost nothing.
 * Method: the built program over folders of lab 2 and of the template, with signals, two at a time, read-only.
 */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { afterAll, describe, expect, it } from "vitest";
import { toAscii } from "../../scripts/ascii.ts";
import { initFolder } from "../../scripts/lab/init.ts";
import { openLab } from "../../scripts/lab/lab_folder.ts";
import { wrongFiles } from "../../scripts/lab/own_tests.ts";
import { referenceFiles } from "../../scripts/lab/skeleton.ts";
import { watchFolder } from "../../scripts/lab/watch.ts";
import { createPaint } from "../../scripts/paint.ts";
import { descendants, eventually, isBuilt, isRunning, run, start } from "./support/program.ts";

const scratch = mkdtempSync(join(tmpdir(), "slabtown-folders-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const lab = openLab("buddy");
const right = referenceFiles(lab, "reference-list").get("buddy.ts") as string;
let nr = 0;

function folder(text = right): string {
  const dir = join(scratch, `f${nr++}`);
  initFolder(lab, dir);
  writeFileSync(join(dir, "buddy.ts"), text);
  return dir;
}

/** A loop that no step of ours counts: one call of the regular expression engine, for minutes. */
const SPINNING = `${right}\nexport const slow = /^(a+)+$/.test("${"a".repeat(40)}b");\n`;
const isRoot = process.getuid?.() === 0;
/** As another user where we are root, who may write anywhere. */
const asNobody = isRoot ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"] : [];
const program = new URL("../../dist/scripts/slabtown.js", import.meta.url).pathname;
/** That user needs setpriv, and a way to the program: root may have cloned into a folder that is closed to others. */
const canBeNobody = !isRoot || spawnSync("setpriv", [...asNobody.slice(1), "test", "-r", program]).status === 0;

describe.skipIf(!isBuilt)("a grade that is interrupted", () => {
  it.each(["SIGINT", "SIGKILL"] as const)(
    "%s: no child is left, no results, nothing is kept",
    async (signal) => {
      const dir = folder(SPINNING);
      const { child, ended } = start(["lab", "grade", dir, "--format", "json"]);
      const pid = child.pid as number;
      expect(await eventually(() => descendants(pid).length > 0, 30_000)).toBe(true);
      await new Promise((resolve) => setTimeout(resolve, 300));
      const below = descendants(pid);
      child.kill(signal);
      const { code, out, err } = await ended;
      expect(out).toBe("");
      if (signal === "SIGINT") {
        expect(code).toBe(130);
        expect(err).toContain("this is no grade");
      }
      expect(existsSync(join(dir, ".lab", "history"))).toBe(false);
      expect(await eventually(() => !below.some(isRunning), 30_000)).toBe(true);
    },
    90_000,
  );
});

describe.skipIf(!isBuilt)("two graders in one folder", () => {
  it("both judge it, and the history has whole snapshots only", async () => {
    const dir = folder(wrongFiles(lab, "merge-once").get("buddy.ts"));
    const grades = await Promise.all([run("lab", "check", dir), run("lab", "check", dir)]);
    expect(grades.map(({ code }) => code)).toEqual([1, 1]);
    expect(grades[0]?.out).toBe(grades[1]?.out);
    wholeSnapshots(dir);
  }, 60_000);

  it("two watches: each save is judged by both, nothing is lost", async () => {
    const dir = folder();
    const watches = [watchOf(dir), watchOf(dir)];
    const hasVerdicts = (n: number) => (): boolean =>
      watches.every(({ shown }) => shown().split("of the quick run").length > n);
    expect(await eventually(hasVerdicts(1), 30_000)).toBe(true);
    writeFileSync(join(dir, "buddy.ts"), wrongFiles(lab, "merge-once").get("buddy.ts") as string);
    expect(await eventually(hasVerdicts(2), 30_000)).toBe(true);
    for (const { keys } of watches) keys.push("q");
    await Promise.all(watches.map(({ done }) => done));
    for (const { shown } of watches) expect(shown()).toContain("merge-all");
    const kept = wholeSnapshots(dir);
    expect(kept.map((name) => readFileSync(join(dir, ".lab/history", name, "buddy.ts"), "utf8"))).toContain(right);
  }, 90_000);

  /** A watch over `dir` with keys that the test types. */
  function watchOf(dir: string) {
    const keys = new PassThrough() as unknown as NodeJS.ReadStream;
    let shown = "";
    const out = (text: string): void => {
      shown += text;
    };
    const done = watchFolder({ lab, dir, paint: createPaint(0), out, keys, isStopped: () => false });
    return { keys, done, shown: () => shown, says: (text: string) => eventually(() => shown.includes(text), 30_000) };
  }

  it("keys about a file that is gone, or another one by now, say so (bug: the watch ended with an error)", async () => {
    const dir = folder(wrongFiles(lab, "merge-once").get("buddy.ts") as string);
    const watch = watchOf(dir);
    expect(await watch.says("of the quick run")).toBe(true);
    rmSync(join(dir, "buddy.ts"));
    watch.keys.push("vtdp");
    expect(await watch.says("is missing in")).toBe(true);
    writeFileSync(join(dir, "buddy.ts"), right);
    expect(await watch.says("all that was run passes")).toBe(true);
    watch.keys.push("q");
    await watch.done;
  }, 90_000);

  it("q and Ctrl-C end a run after the check at hand (bug: not before its last), and it is not kept", async () => {
    const dir = folder();
    const watch = watchOf(dir);
    expect(await watch.says("of the quick run")).toBe(true);
    watch.keys.push("c\u0003");
    expect((await watch.done)?.rows.every(({ status }) => status === "passed")).toBe(true);
    expect(watch.shown()).not.toContain("of the visible checks");
  }, 90_000);

  it("d compares with the best state of an equal run (bug: points of the quick run with those of all checks)", async () => {
    const dir = folder(wrongFiles(lab, "merge-once").get("buddy.ts") as string);
    // More points than any quick run can give, of a state that is worse.
    const old = join(dir, ".lab", "history", "0001");
    mkdirSync(old, { recursive: true });
    writeFileSync(join(old, "score"), "40/90\n");
    writeFileSync(join(old, "buddy.ts"), "export const nothing = 1;\n");
    const watch = watchOf(dir);
    expect(await watch.says("of the quick run")).toBe(true);
    writeFileSync(join(dir, "buddy.ts"), right);
    expect(await watch.says("all that was run passes")).toBe(true);
    watch.keys.push("d");
    expect(await watch.says("buddy.ts is as in 0003")).toBe(true);
    watch.keys.push("c");
    expect(await watch.says("of the visible checks")).toBe(true);
    watch.keys.push("q");
    await watch.done;
    // The same files, judged twice: one state with both points.
    expect(readFileSync(join(dir, ".lab", "history", "0003", "score"), "utf8")).toMatch(/^(\d+)\/\1\n\d+\/\d+\n$/);
    expect(readdirSync(join(dir, ".lab", "history")).sort()).toEqual(["0001", "0002", "0003"]);
  }, 90_000);

  it("--ascii, and a terminal that shows no more: nothing else is printed", async () => {
    const dir = folder(wrongFiles(lab, "merge-once").get("buddy.ts"));
    const { out, code } = await run("lab", "check", dir, "--ascii", "--case", "merge-all");
    expect(code).toBe(1);
    expect(out).toContain("x buddy.merge-all");
    // biome-ignore lint/suspicious/noControlCharactersInRegex: all of ASCII
    expect(out).toMatch(/^[\u0000-\u007f]*$/);
    expect(toAscii("✓ a → b … ≤ █ ñ 😀")).toBe("+ a -> b ... <= # ? ?");
  }, 60_000);

  function wholeSnapshots(dir: string): string[] {
    const names = readdirSync(join(dir, ".lab", "history"));
    expect(names.length).toBeGreaterThan(0);
    for (const name of names) {
      expect(name).toMatch(/^\d{4}$/);
      expect(readdirSync(join(dir, ".lab", "history", name)).sort()).toEqual(
        ["buddy.ts", "my_tests.ts", "predictions.yaml", "score"].sort(),
      );
    }
    return names;
  }
});

describe.skipIf(!isBuilt || !canBeNobody)("folders that cannot be written", () => {
  const asUser = (...args: readonly string[]) => {
    const [command = "", ...rest] = [...asNobody, process.execPath, program, ...args];
    return spawnSync(command, rest, { encoding: "utf8", env: { PATH: process.env.PATH, NO_COLOR: "1" } });
  };

  it("a grade of one is the same; that nothing is kept is said", () => {
    chmodSync(scratch, 0o755);
    const dir = folder();
    chmodSync(dir, 0o555);
    chmodSync(join(dir, ".lab"), 0o555);
    const { status, stdout, stderr } = asUser("lab", "check", dir, "--case", "merge-once");
    expect(stderr).not.toContain("at ");
    expect(status).toBe(2);
    const graded = asUser("lab", "check", dir, "--case", "merge-all");
    chmodSync(dir, 0o755);
    expect(stdout).toBe("");
    expect(graded.stdout).toContain("Score: 4/4");
    expect(graded.stderr).toContain("the history cannot be kept");
    expect(graded.status).toBe(0);
  }, 30_000);

  it("init into one is refused, and makes nothing", () => {
    const parent = join(scratch, "readonly");
    mkdirSync(parent, { mode: 0o555 });
    const { status, stderr } = asUser("lab", "init", "buddy", join(parent, "mine"));
    expect(status).toBe(2);
    expect(stderr).toContain("cannot be made");
    expect(readdirSync(parent)).toEqual([]);
  });
});

describe.skipIf(!isBuilt)("type errors", () => {
  it("are shown with their place, and cost nothing", async () => {
    const dir = folder(`${right}\nexport const wrong: number = "text";\n`);
    const { code, out } = await run("lab", "check", dir, "--case", "merge-all");
    expect(out).toContain(`buddy.ts:${right.split("\n").length + 1}:14: TS2322`);
    expect(out).toContain("Score: 4/4");
    expect(code).toBe(0);
  }, 30_000);
});
