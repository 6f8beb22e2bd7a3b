/**
 * Goal: the rooms are layered as .dependency-cruiser.cjs says, and the tool that says so is awake.
 * Method: cruise the real tree and compare the modules seen with the files on disk (a tool that reads nothing reports
 * success); then, for each rule, plant a tiny tree that breaks it and assert that this rule alone is reported; and a
 * tree that leans on every exception, in which nothing is. A rule without a planted violation fails the test.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { cruise, type IConfiguration, type ICruiseResult } from "dependency-cruiser";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");
const ROOMS = ["kernel", "mm", "drivers", "userland", "explore", "labs", "scripts"];
const config: IConfiguration = createRequire(import.meta.url)("../.dependency-cruiser.cjs");

type Tree = Readonly<Record<string, string>>;

async function cruiseTree(baseDir: string): Promise<ICruiseResult> {
  const rooms = ROOMS.filter((room) => existsSync(join(baseDir, room)));
  const ruleSet = { forbidden: config.forbidden ?? [] };
  const { output } = await cruise(rooms, { ...config.options, ruleSet, validate: true, baseDir });
  if (typeof output === "string") throw new Error(`expected a result, got text: ${output}`);
  return output;
}

function violations(result: ICruiseResult): string[] {
  return result.summary.violations.map(({ rule, from, to }) => `${rule.name}: ${from} -> ${to}`);
}

function ruleNames(result: ICruiseResult): string[] {
  return [...new Set(result.summary.violations.map((violation) => violation.rule.name))].sort();
}

describe("the real tree", () => {
  let result: ICruiseResult;

  beforeAll(async () => {
    result = await cruiseTree(ROOT);
  });

  it("has every source file of the rooms in the cruise", () => {
    const onDisk = ROOMS.filter((room) => existsSync(join(ROOT, room))).flatMap((room) =>
      readdirSync(join(ROOT, room), { recursive: true, encoding: "utf8" })
        .map((path) => `${room}/${path.replaceAll("\\", "/")}`)
        .filter((path) => path.endsWith(".ts") && !path.startsWith("scripts/samples/")),
    );
    const seen = new Set(result.modules.map((module) => module.source));
    expect(onDisk.length).toBeGreaterThan(0);
    expect(onDisk.filter((path) => !seen.has(path))).toEqual([]);
    expect(result.summary.totalCruised).toBeGreaterThanOrEqual(onDisk.length);
  });

  it("breaks no rule", () => {
    // Before the program at the top exists, everything is an orphan and the word means nothing.
    const hasTop = existsSync(join(ROOT, "scripts/slabtown.ts"));
    expect(violations(result).filter((line) => hasTop || !line.startsWith("no-orphans"))).toEqual([]);
  });
});

/** For each rule, trees that break this rule and no other. */
const PLANTED: Readonly<Record<string, readonly Tree[]>> = {
  "floor-looks-down": [
    { "kernel/uapi/a.ts": use("../lib/b.ts"), "kernel/lib/b.ts": leaf() },
    { "kernel/types.ts": use("./arch/b.ts"), "kernel/arch/b.ts": leaf() },
    { "kernel/params.ts": useType("./sched.ts"), "kernel/sched.ts": leaf() },
  ],
  "lib-looks-down": [
    { "kernel/lib/a.ts": use("../arch/mmu.ts"), "kernel/arch/mmu.ts": leaf() },
    { "kernel/lib/a.ts": useType("../bug.ts"), "kernel/bug.ts": leaf() },
  ],
  "lib-sees-port-as-type": [{ "kernel/lib/a.ts": use("../arch/port.ts"), "kernel/arch/port.ts": leaf() }],
  "arch-looks-down": [
    { "kernel/arch/a.ts": use("../irq.ts"), "kernel/irq.ts": leaf() },
    { "kernel/arch/a.ts": useType("../irq.ts"), "kernel/irq.ts": leaf() },
  ],
  "core-looks-down": [
    { "kernel/sched.ts": use("../mm/index.ts"), "mm/index.ts": leaf() },
    { "kernel/sched.ts": use("./entry/boot.ts"), "kernel/entry/boot.ts": leaf() },
  ],
  "mm-looks-down": [
    { "mm/a.ts": use("../drivers/index.ts"), "drivers/index.ts": leaf() },
    { "mm/a.ts": useType("../kernel/entry/boot.ts"), "kernel/entry/boot.ts": leaf() },
    { "mm/a.ts": use("../userland/index.ts"), "userland/index.ts": leaf() },
    { "mm/a.ts": use("../dist/b.js"), "dist/b.js": leaf() },
  ],
  "drivers-look-down": [{ "drivers/a.ts": use("../kernel/entry/boot.ts"), "kernel/entry/boot.ts": leaf() }],
  "entry-looks-down": [
    { "kernel/entry/boot.ts": use("../../userland/index.ts"), "userland/index.ts": leaf() },
    { "kernel/entry/boot.ts": use("../../scripts/a.ts"), "scripts/a.ts": leaf() },
  ],
  "userland-sees-floor": [
    { "userland/a.ts": use("../kernel/lib/b.ts"), "kernel/lib/b.ts": leaf() },
    { "userland/a.ts": useType("../mm/index.ts"), "mm/index.ts": leaf() },
  ],
  "explore-looks-down": [
    { "explore/a.ts": use("../drivers/index.ts"), "drivers/index.ts": leaf() },
    { "explore/a.ts": useType("../kernel/entry/boot.ts"), "kernel/entry/boot.ts": leaf() },
  ],
  "labs-and-tests-on-top": [
    { "mm/a.ts": use("../labs/02_buddy/b.ts"), "labs/02_buddy/b.ts": leaf() },
    { "kernel/bug.ts": use("../test/support/b.ts"), "test/support/b.ts": leaf() },
  ],
  "labs-look-down": [
    { "labs/kit/a.ts": use("../../scripts/b.ts"), "scripts/b.ts": leaf() },
    { "labs/02_buddy/a.ts": useType("../../scripts/lab/b.ts"), "scripts/lab/b.ts": leaf() },
  ],
  "labs-stand-alone": [
    { "labs/02_buddy/a.ts": use("../04_slab/b.ts"), "labs/04_slab/b.ts": leaf() },
    { "labs/kit/a.ts": use("../04_slab/b.ts"), "labs/04_slab/b.ts": leaf() },
  ],
  "mm-front-door": [
    { "drivers/a.ts": use("../mm/buddy.ts"), "mm/buddy.ts": leaf() },
    { "scripts/a.ts": useType("../mm/debug/kasan.ts"), "mm/debug/kasan.ts": leaf() },
    { "scripts/a.ts": use("../mm/debug/index.ts"), "mm/debug/index.ts": leaf() },
  ],
  "drivers-front-door": [{ "kernel/entry/boot.ts": use("../../drivers/nic.ts"), "drivers/nic.ts": leaf() }],
  "userland-front-door": [{ "scripts/a.ts": use("../userland/sh.ts"), "userland/sh.ts": leaf() }],
  "explore-front-door": [{ "scripts/a.ts": use("../explore/engine.ts"), "explore/engine.ts": leaf() }],
  "portable-no-npm": [
    {
      "mm/a.ts": use("leftpad"),
      "package.json": '{ "dependencies": { "leftpad": "1.0.0" } }',
      "node_modules/leftpad/package.json": '{ "name": "leftpad", "version": "1.0.0", "main": "index.js" }',
      "node_modules/leftpad/index.js": leaf(),
    },
    {
      "userland/a.ts": useType("leftpad"),
      "node_modules/leftpad/package.json": '{ "name": "leftpad", "version": "1.0.0", "main": "index.js" }',
      "node_modules/leftpad/index.js": leaf(),
    },
  ],
  "portable-no-node": [
    { "kernel/entry/boot.ts": use("node:fs") },
    { "drivers/a.ts": use("path") },
    { "mm/a.ts": 'export const load = () => import("node:os");\n' },
  ],
  "no-cycles": [
    { "mm/a.ts": use("./b.ts"), "mm/b.ts": use("./a.ts") },
    { "mm/a.ts": use("./b.ts"), "mm/b.ts": useType("./c.ts"), "mm/c.ts": useType("./a.ts") },
  ],
  "no-orphans": [{ "mm/a.ts": leaf() }, { "scripts/a.ts": leaf() }],
  "no-unresolved": [{ "mm/a.ts": use("./missing.ts") }],
};

/** Every downward import and every exception at once: none of this is a violation. */
const ALLOWED: Tree = {
  "kernel/uapi/errno.ts": leaf(),
  "kernel/types.ts": use("./uapi/errno.ts"),
  "kernel/params.ts": use("./types.ts"),
  "kernel/lib/a.ts": useType("../arch/port.ts"),
  "kernel/arch/port.ts": use("../types.ts"),
  "kernel/bug.ts": use("./lib/a.ts", "./arch/port.ts", "./params.ts"),
  "mm/index.ts": use("./buddy.ts"),
  "mm/buddy.ts": use("../kernel/bug.ts", "../kernel/arch/port.ts", "seedrandom"),
  "drivers/index.ts": use("../mm/index.ts", "../kernel/bug.ts"),
  "kernel/entry/boot.ts": use("../../mm/index.ts", "../../drivers/index.ts", "../bug.ts"),
  "userland/index.ts": use("./sh.ts"),
  "userland/sh.ts": use("../kernel/uapi/errno.ts", "../kernel/types.ts", "../kernel/params.ts"),
  "scripts/slabtown.ts": use("../kernel/entry/boot.ts", "../userland/index.ts", "../labs/01/a.ts", "node:fs"),
  "labs/01/a.ts": use("../../mm/index.ts"),
  "package.json": '{ "dependencies": { "seedrandom": "3.0.5" } }',
  "node_modules/seedrandom/package.json": '{ "name": "seedrandom", "version": "3.0.5", "main": "index.js" }',
  "node_modules/seedrandom/index.js": leaf(),
};

describe("planted trees", () => {
  let workDir: string;

  beforeAll(() => {
    // The real path: a temporary directory may be a link, and the rules match paths relative to the base.
    workDir = realpathSync(mkdtempSync(join(tmpdir(), "slabtown-layers-")));
  });

  afterAll(() => {
    rmSync(workDir, { recursive: true, force: true });
  });

  async function plant(tree: Tree): Promise<ICruiseResult> {
    const baseDir = mkdtempSync(join(workDir, "tree-"));
    for (const [path, text] of Object.entries(tree)) {
      mkdirSync(dirname(join(baseDir, path)), { recursive: true });
      writeFileSync(join(baseDir, path), text);
    }
    return cruiseTree(baseDir);
  }

  it("cover each rule of the configuration, and no rule that is gone", () => {
    const configured = (config.forbidden ?? []).map((rule) => rule.name);
    expect(Object.keys(PLANTED).sort()).toEqual(configured.sort());
  });

  for (const [name, trees] of Object.entries(PLANTED)) {
    it(`${name} is reported, alone`, async () => {
      for (const tree of trees) {
        const result = await plant(tree);
        expect(ruleNames(result), Object.keys(tree).join(" + ")).toEqual([name]);
      }
    });
  }

  it("that keep every rule are accepted", async () => {
    const result = await plant(ALLOWED);
    expect(violations(result)).toEqual([]);
    expect(result.summary.totalDependenciesCruised).toBeGreaterThan(20);
  });
});

function use(...specifiers: string[]): string {
  return `${specifiers.map((specifier, i) => `import * as x${i} from "${specifier}";`).join("\n")}
export const used = [${specifiers.map((_, i) => `x${i}`).join(", ")}];\n`;
}

function useType(specifier: string): string {
  return `import type { leaf } from "${specifier}";\nexport type Used = typeof leaf;\n`;
}

function leaf(): string {
  return "export const leaf = 1;\n";
}
