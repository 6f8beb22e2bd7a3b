/**
 * Goal: whatever the student's file does to the grader, it gets the points that its allocator deserves, or fewer.
 * Method: each attack is code put in front of an allocator that does nothing right (worth 0) or of a right one (worth all of
 * the quick run). The score must not be above, the run must end, and the grade must format. Skipped if dist/ is not built.
 * Here all attacks on lab 2, and some on labs whose driver searches through orders; `npm run labs:attack`: all on all labs.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FORMATS, formatGrade } from "../../scripts/lab/formats.ts";
import { type Grade, gradeFolder } from "../../scripts/lab/grade.ts";
import { initFolder } from "../../scripts/lab/init.ts";
import { type Lab, labNames, openLab } from "../../scripts/lab/lab_folder.ts";
import { createSandbox, type Sandbox } from "../../scripts/lab/sandbox.ts";
import { referenceFiles } from "../../scripts/lab/skeleton.ts";
import { descendants, eventually, isRunning } from "./support/program.ts";

const isBuilt = existsSync(fileURLToPath(new URL("../../dist/scripts/lab/runner_child.js", import.meta.url)));
const scratch = mkdtempSync(join(tmpdir(), "slabtown-tamper-"));
const isEverything = process.env.SLABTOWN_ATTACKS === "all";
const entryOf = ({ manifest }: Lab): string => manifest.files[0] ?? "";
const rightOf = (of: Lab): string => referenceFiles(of, of.manifest.references[0] ?? "").get(entryOf(of)) ?? "";
const lab = openLab("buddy");
const right = rightOf(lab);
let sandbox: Sandbox;
let nrFolders = 0;

beforeAll(() => {
  sandbox = createSandbox({ cpuSeconds: 20 });
});
afterAll(() => {
  sandbox.close();
  rmSync(scratch, { recursive: true, force: true });
});

function folder(text: string | Uint8Array, of: Lab = lab): string {
  const dir = join(scratch, `f${nrFolders++}`);
  initFolder(of, dir);
  writeFileSync(join(dir, entryOf(of)), text);
  return dir;
}

const grade = (dir: string, of: Lab = lab): Promise<Grade> => gradeFolder({ lab: of, dir, depth: "quick", sandbox });

/** Put in the place of the name of the lab's factory. */
const FACTORY = "createWhatIsAskedFor";
/** A factory with `body` before it, of something that does nothing and says 0. */
const nothing = (body: string): string => `${body}\n${returning("0")}`;
const returning = (value: string): string => `
export function ${FACTORY}(): any {
  return new Proxy({}, { get: () => () => (${value}) });
}
`;
const attackOn = (of: Lab, text: string): string =>
  text.replaceAll(FACTORY, /export function (create\w+)/.exec(rightOf(of))?.[1] ?? FACTORY);

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

/** Tried on every lab each time; the others on lab 2 only. */
const SOME = ["returns itself in itself", "loops and catches", "is empty", "returns NaN"];
const OTHERS = labNames()
  .map((name) => openLab(name))
  .filter(({ short, manifest }) => manifest.files.length > 0 && (isEverything || /^(magazines|lockfree)$/.test(short)));

describe.skipIf(!isBuilt)("attacks alone are worth nothing", () => {
  const cases = [lab, ...OTHERS.filter(({ name }) => name !== lab.name)].flatMap((of) =>
    Object.entries(ATTACKS)
      .filter(([name]) => of === lab || isEverything || SOME.includes(name))
      .map(([name, text]) => [of.short, name, of, text] as const),
  );
  it.each(cases)(
    "%s: %s",
    async (_lab, _name, of, text) => {
      const dir = folder(attackOn(of, text), of);
      const graded = await grade(dir, of);
      // Refusing everything is right where refusing is asked for: that much an honest nothing earns, too.
      expect(graded.score).toBeLessThanOrEqual(Math.max(2, Math.floor(of.manifest.points / 20)));
      for (const format of FORMATS) expect(formatGrade(graded, format).length).toBeGreaterThan(0);
      for (const row of graded.rows) expect(row.lines.length).toBeLessThanOrEqual(25);
      expect(readFileSync(join(dir, entryOf(of)), "utf8")).toBe(attackOn(of, text));
    },
    240_000,
  );
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
  const all = [lab, ...OTHERS.filter(({ name }) => name !== lab.name)].map((of) => [of.short, of] as const);

  it.each(all)("%s: a link out of the folder is not followed", async (_name, of) => {
    const secret = join(scratch, `secret-${of.short}.ts`);
    writeFileSync(secret, rightOf(of));
    const dir = folder("", of);
    rmSync(join(dir, entryOf(of)));
    symlinkSync(secret, join(dir, entryOf(of)));
    const graded = await grade(dir, of);
    expect(graded.problem).toContain("leads out of the folder");
    expect(graded.score).toBe(0);
    expect(readFileSync(secret, "utf8")).toBe(rightOf(of));
  });

  const files: readonly [string, string | Uint8Array, string][] = [
    ["binary", new Uint8Array([0, 1, 2, 255]), "binary data"],
    ["no UTF-8", new Uint8Array([0xc3, 0x28, 0x41]), "not UTF-8"],
    ["100 MB", new Uint8Array(100 * 1024 * 1024).fill(32), "larger than"],
  ];
  it.each(all.flatMap(([name, of]) => files.map((file) => [name, ...file, of] as const)))(
    "%s: %s",
    async (_lab, _name, bytes, problem, of) => {
      const graded = await grade(folder(bytes, of), of);
      expect([graded.problem, graded.score]).toEqual([expect.stringContaining(problem), 0]);
    },
  );

  it.each(all)("%s: a missing file, and a folder in its place, have their place in the message", async (_name, of) => {
    const dir = folder("", of);
    rmSync(join(dir, entryOf(of)));
    expect((await grade(dir, of)).problem).toContain("is missing");
    mkdirSync(join(dir, entryOf(of)));
    expect((await grade(dir, of)).problem).toContain(entryOf(of));
  });

  it("a folder that is not empty, or not a folder, is refused and left alone", () => {
    const dir = folder(right);
    expect(() => initFolder(lab, dir)).toThrow("is not empty");
    expect(() => initFolder(lab, join(dir, "buddy.ts"))).toThrow("cannot be made");
    expect(readFileSync(join(dir, "buddy.ts"), "utf8")).toBe(right);
  });
});

describe.skipIf(!isBuilt)("time", () => {
  const spinning = `${right}\nexport const slow = /^(a+)+$/.test("${"a".repeat(40)}b");\n`;

  it("a built-in without end is a crash, and the other students have theirs (bug: no verdict after 30 s)", async () => {
    const own = createSandbox({ cpuSeconds: 0.4 });
    try {
      const request = { lab, depth: "quick", sandbox: own, only: "merge-all" } as const;
      const [row] = (await gradeFolder({ ...request, dir: folder(spinning) })).rows;
      expect([row?.status, row?.score]).toEqual(["crashed", 0]);
      expect(row?.lines.join(" ")).toContain("has used up its CPU time");
      expect((await gradeFolder({ ...request, dir: folder(right) })).rows[0]?.status).toBe("passed");
    } finally {
      own.close();
    }
  }, 60_000);

  it("a child that rests gives no verdict", async () => {
    const own = createSandbox({ restMs: 700 });
    try {
      const dir = folder(spinning);
      const others = new Set(descendants(process.pid));
      const graded = gradeFolder({ lab, dir, depth: "quick", sandbox: own, only: "merge-all" });
      const failed = expect(graded).rejects.toThrow("rested for 0.7 s");
      // One that lists processes is no child of ours for long.
      const news = (): number[] => descendants(process.pid).filter((pid) => !others.has(pid) && isRunning(pid));
      expect(await eventually(() => news().length > 0, 30_000)).toBe(true);
      for (const pid of news()) process.kill(pid, "SIGSTOP");
      await failed;
    } finally {
      own.close();
    }
  }, 60_000);
});
