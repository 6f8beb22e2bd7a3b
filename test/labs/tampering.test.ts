/**
 * Goal: whatever the student's file does to the grader, it gets the points that its allocator deserves, or fewer.
 * Method: each attack is code put in front of an allocator that does nothing right (worth 0) or of a right one (worth all of
 * the quick run). The score must not be above, the run must end, and the grade must format. Skipped if dist/ is not built.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FORMATS, formatGrade } from "../../scripts/lab/formats.ts";
import { type Grade, gradeFolder } from "../../scripts/lab/grade.ts";
import { initFolder } from "../../scripts/lab/init.ts";
import { type Lab, openLab } from "../../scripts/lab/lab_folder.ts";
import { createSandbox, type Sandbox } from "../../scripts/lab/sandbox.ts";
import { referenceFiles } from "../../scripts/lab/skeleton.ts";

const isBuilt = existsSync(fileURLToPath(new URL("../../dist/scripts/lab/runner_child.js", import.meta.url)));
const scratch = mkdtempSync(join(tmpdir(), "slabtown-tamper-"));
let sandbox: Sandbox;
let lab: Lab;
let right: string;
let nrFolders = 0;

beforeAll(() => {
  lab = openLab("buddy");
  sandbox = createSandbox({ timeoutMs: 20_000 });
  right = referenceFiles(lab, "reference-list").get("buddy.ts") ?? "";
});
afterAll(() => {
  sandbox.close();
  rmSync(scratch, { recursive: true, force: true });
});

function folder(text: string): string {
  const dir = join(scratch, `f${nrFolders++}`);
  initFolder(lab, dir);
  writeFileSync(join(dir, "buddy.ts"), text);
  return dir;
}

const grade = (dir: string): Promise<Grade> => gradeFolder({ lab, dir, depth: "quick", sandbox });

/** An allocator with `body` before it, that hands out nothing. */
const nothing = (body: string): string => `${body}
export function createBuddy(memory: any): any {
  return { addFreeRange() {}, allocBlock() { return 0xffffffff; }, freeBlock() { return 0; }, nrFree() { return 0; } };
}
`;
const returning = (value: string): string => `
export function createBuddy(memory: any): any {
  return { addFreeRange() {}, allocBlock() { return ${value}; }, freeBlock() { return ${value}; }, nrFree() { return ${value}; } };
}
`;

const ESCAPE = 'const host: any = (globalThis as any).constructor.constructor("return process")();';

/** Attacks on their own: worth nothing. */
const ATTACKS: Readonly<Record<string, string>> = {
  "prints a perfect score": nothing('console.log("Score: 90/90"); console.log("ok 1 - merge-order");'),
  "prints the channel's reply": nothing(`console.log('{"id":1,"observations":[]}');`),
  "exits with 0": nothing("(globalThis as any).process?.exit(0);"),
  "gets at process by a constructor": nothing(ESCAPE),
  "gets at process by an error": nothing(
    'try { (null as any).x; } catch (e: any) { e.constructor.constructor("return process")().exit(0); }',
  ),
  "evaluates text": nothing("(0, eval)('1');"),
  "makes a function from text": nothing('new Function("return 1")();'),
  "imports node:fs": nothing('import { readFileSync } from "node:fs"; readFileSync("/etc/passwd");'),
  "imports the lab's driver": nothing('import { create } from "./!/labs/02_buddy/driver.ts"; (create as any).x = 1;'),
  "imports a file above": nothing('import * as up from "../../../labs/02_buddy/checks/lab.ts"; (up as any).lab;'),
  "imports later": nothing('import("node:fs").then((fs) => fs.readFileSync("/etc/passwd"));'),
  "patches Array.prototype.push": nothing("Array.prototype.push = () => 0;"),
  "patches Array.prototype.map": nothing("(Array.prototype as any).map = () => [];"),
  "patches JSON.stringify": nothing('JSON.stringify = () => \'{"claims":[],"steps":[],"stop":null,"log":[]}\';'),
  "patches Reflect.apply": nothing("(Reflect as any).apply = () => 0;"),
  "patches Object.prototype with toJSON": nothing("(Object.prototype as any).toJSON = () => 0;"),
  "patches Number.isInteger": nothing("Number.isInteger = () => true;"),
  "replaces Uint8Array": nothing("(globalThis as any).Uint8Array = class {};"),
  "adds a getter to Object.prototype": nothing(
    'Object.defineProperty(Object.prototype, "stop", { get: () => null, configurable: true });',
  ),
  "returns an object that equals everything": returning(
    "({ valueOf: () => 0, toString: () => '0', [Symbol.toPrimitive]: () => 0 })",
  ),
  "returns a proxy": returning("new Proxy({}, { get: () => 0 })"),
  "returns text that looks like a number": returning('"0"'),
  "returns NaN": returning("NaN"),
  "returns a huge list": returning("new Array(1e6).fill(0)"),
  "returns itself in itself": returning("(() => { const a: any[] = []; a[0] = a; return a; })()"),
  "returns a function": returning("() => 0"),
  "returns a big integer": returning("0n"),
  "knows a check's name": nothing('export const lab = { checks: [], id: "merge-order", passed: true };'),
  "counts backwards": nothing("$$tick(-1e9);"),
  "loops at import": nothing("for (;;);"),
  "loops and catches": nothing("for (;;) { try { for (;;); } catch {} }"),
  "recurses for ever": nothing("const f = (): number => f() + 1; f();"),
  "throws what cannot be shown": nothing("throw { get message() { throw 1; }, toString() { throw 2; } };"),
  "throws null": nothing("throw null;"),
  "is empty": "",
  "has no such export": "export const something = 1;\n",
  "does not parse": "export function createBuddy( {{{\n",
  "is nested very deep": `${"(".repeat(3000)}1${")".repeat(3000)};\n`,
  "fills memory": nothing(
    "const hoard: any[] = []; for (let i = 0; i < 9e4; i++) hoard.push(new Float64Array(1 << 16).fill(i));",
  ),
  "edits what is given": nothing('import * as api from "./given/api.ts"; try { (api as any).NO_FRAME = 0; } catch {}'),
};

describe.skipIf(!isBuilt)("attacks alone are worth nothing", () => {
  for (const [name, text] of Object.entries(ATTACKS)) {
    it(name, async () => {
      const graded = await grade(folder(text));
      // Refusing everything is right where refusing is asked for: that much an honest nothing earns, too.
      expect(graded.score).toBeLessThanOrEqual(2);
      for (const format of FORMATS) expect(formatGrade(graded, format).length).toBeGreaterThan(0);
      for (const row of graded.rows) expect(row.lines.length).toBeLessThanOrEqual(25);
    });
  }
});

describe.skipIf(!isBuilt)("a right allocator keeps its points, whatever else the file does", () => {
  it.each([
    ["prints", 'console.log("\\u001b[2J", { a: 1 }, null);'],
    ["leaves something in the global object", "(globalThis as any).left = 1;"],
    ["throws and catches", "try { throw new Error('x'); } catch {}"],
    [
      "uses types that only TypeScript has",
      "enum Colour { Red } interface A { b: Colour } const a: A = { b: Colour.Red }; void a;",
    ],
  ])("%s", async (_name, line) => {
    const graded = await grade(folder(`${line}\n${right}`));
    expect(graded.score).toBe(graded.max);
  });

  it("renamed, reformatted and with types that do not fit, it has the same grade", async () => {
    const plain = await grade(folder(right));
    const changed = right
      .replaceAll("blockOrder", "rank")
      .replaceAll("  ", "\t")
      .replace("let nrFree = 0;", 'let nrFree: string = 0; const unused: number = "x";');
    expect(await grade(folder(changed))).toEqual(plain);
  });

  it("rows in another order, and once more: the same bytes", async () => {
    const dir = folder(right.replace("order[buddy] !== blockOrder", "false"));
    const order: Parameters<typeof gradeFolder>[0]["order"] = (checks) => [...checks].reverse();
    const first = await grade(dir);
    const second = await gradeFolder({ lab, dir, depth: "quick", sandbox, order });
    for (const format of FORMATS) expect(formatGrade(second, format)).toBe(formatGrade(first, format));
  });

  it("mending one of two bugs never lowers the score", async () => {
    const bugs: readonly (readonly [string, string])[] = [
      ["order[buddy] !== blockOrder", "false"],
      ["nrFree -= 1 << wanted", "nrFree -= 1"],
    ];
    const withBugs = (nr: number): string =>
      bugs.slice(0, nr).reduce((text, [good, bad]) => text.replace(good, bad), right);
    const both = await grade(folder(withBugs(2)));
    const one = await grade(folder(withBugs(1)));
    expect(one.score).toBeGreaterThanOrEqual(both.score);
  });
});

describe.skipIf(!isBuilt)("files that are none", () => {
  it("a link out of the folder is not followed", async () => {
    const secret = join(scratch, "secret.ts");
    writeFileSync(secret, right);
    const dir = folder("");
    rmSync(join(dir, "buddy.ts"));
    symlinkSync(secret, join(dir, "buddy.ts"));
    const graded = await grade(dir);
    expect(graded.problem).toContain("leads out of the folder");
    expect(graded.score).toBe(0);
  });

  it.each<[string, string | Uint8Array, string]>([
    ["binary", new Uint8Array([0, 1, 2, 255]), "binary data"],
    ["no UTF-8", new Uint8Array([0xc3, 0x28, 0x41]), "not UTF-8"],
    ["100 MB", new Uint8Array(100 * 1024 * 1024).fill(32), "larger than"],
  ])("%s", async (_name, bytes, problem) => {
    const dir = folder("");
    writeFileSync(join(dir, "buddy.ts"), bytes);
    expect((await grade(dir)).problem).toContain(problem);
  });

  it("a missing file has its place in the message", async () => {
    const dir = folder("");
    rmSync(join(dir, "buddy.ts"));
    expect((await grade(dir)).problem).toContain("is missing");
  });

  it("a folder that is not empty, or not a folder, is refused and left alone", () => {
    const dir = folder(right);
    expect(() => initFolder(lab, dir)).toThrow("is not empty");
    expect(() => initFolder(lab, join(dir, "buddy.ts"))).toThrow("cannot be made");
    expect(readFileSync(join(dir, "buddy.ts"), "utf8")).toBe(right);
  });
});
