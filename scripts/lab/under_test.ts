/**
 * One implementation under test: compiled, in the child, ready for programs; places are those of its files.
 */

import { existsSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import type { Observation, Program, Stop } from "../../labs/kit/program.ts";
import { type Compiled, compileStudent, compileTrusted, type Module, SourceError } from "./compile.ts";
import { codeFile, codeRoot, kitFile, type Lab } from "./lab_folder.ts";
import type { RawObservation, RawStop, RunRequest, Sandbox } from "./sandbox.ts";
import { givenFiles } from "./skeleton.ts";

export interface UnderTest {
  run(programs: readonly Program[], stepLimit: number): Promise<readonly Observation[]>;
  /** Runs the student's own tests in file `tests` against this implementation; `files` of it were given at opening. */
  runTests(programs: readonly Program[], stepLimit: number): Promise<readonly Observation[]>;
}

let nextSet = 1;
const trusted = new Map<string, readonly Module[]>();

/**
 * Compiles `files` and loads them. `tests` are files of the student's with own tests, compiled beside. Throws
 * `SourceError` for what does not compile.
 */
export async function putUnderTest(
  lab: Lab,
  sandbox: Sandbox,
  files: ReadonlyMap<string, string>,
  tests?: { readonly file: string; readonly text: string },
): Promise<UnderTest> {
  const student = compileStudent(
    new Map([...files, ...(tests === undefined ? [] : [[tests.file, tests.text] as const])]),
  );
  const set = `s${nextSet++}`;
  const problem = await sandbox.load(set, [...student.modules, ...trustedModules(lab)]);
  if (problem !== null) {
    const line = lineIn(problem.stack, problem.module);
    throw new SourceError(problem.module, Math.max(1, student.originalLine(problem.module, line)), 1, problem.message);
  }
  const request: Omit<RunRequest, "stepLimit" | "tests"> = {
    set,
    entry: lab.manifest.files[0] ?? "",
    driver: trustedName(codeFile(lab, "driver")),
  };
  const harness = { module: tests?.file ?? "", harness: trustedName(kitFile("own_tests")) };
  const run = async (programs: readonly Program[], stepLimit: number, isTesting: boolean) => {
    const raw = await sandbox.run({ ...request, stepLimit, tests: isTesting ? harness : null }, programs);
    return raw.map((observation) => withPlaces(observation, student));
  };
  return {
    run: (programs, stepLimit) => run(programs, stepLimit, false),
    runTests: (programs, stepLimit) => run(programs, stepLimit, true),
  };
}

// ── The lab's own modules ──────────────────────────────────────────────────────────────────────────────────────────

function trustedName(path: string): string {
  return `!/${relative(codeRoot(), path).replaceAll(sep, "/")}`;
}

/** What students are given, the driver, the harness of own tests, and what these import: compiled once per lab. */
function trustedModules(lab: Lab): readonly Module[] {
  const known = trusted.get(lab.dir);
  if (known !== undefined) return known;
  const modules = new Map<string, Module>();
  const add = (path: string): void => {
    const name = trustedName(path);
    if (modules.has(name)) return;
    if (!existsSync(path)) throw new Error(`${lab.name}: ${path} is missing`);
    const [module] = compileTrusted(new Map([[name, readFileSync(path, "utf8")]])).modules;
    modules.set(name, module as Module);
    for (const [, specifier] of (module as Module).code.matchAll(/\brequire\("(\.[^"]+)"\)/g)) {
      add(join(path, "..", specifier as string));
    }
  };
  add(codeFile(lab, "driver"));
  add(kitFile("own_tests"));
  const all = [...compileTrusted(givenFiles(lab)).modules, ...modules.values()];
  trusted.set(lab.dir, all);
  return all;
}

// ── Places ─────────────────────────────────────────────────────────────────────────────────────────────────────────

function withPlaces(raw: RawObservation, compiled: Compiled): Observation {
  return { ...raw, stop: raw.stop === null ? null : stopWithPlace(raw.stop, compiled) };
}

function stopWithPlace({ kind, op, message, stack, site }: RawStop, compiled: Compiled): Stop {
  if (kind === "steps") {
    const at = compiled.sites[site];
    const what = at?.what === "loop" ? "the loop" : "the function";
    const where = at === undefined ? "" : `${at.file}:${at.line}`;
    return { kind, op, where, message: at === undefined ? "does not end" : `does not end: ${what} at ${where}` };
  }
  for (const [, module, line] of stack.matchAll(/\blab:([^\s():]+):(\d+)/g)) {
    const original = compiled.originalLine(module ?? "", Number(line));
    if (original > 0) return { kind, op, message, where: `${module}:${original}` };
  }
  return { kind, op, message, where: "" };
}

/** The line in `module` that V8's report of a syntax error names. */
function lineIn(stack: string, module: string): number {
  const [first = ""] = stack.split("\n");
  return first.startsWith(`lab:${module}:`) ? Number(first.slice(`lab:${module}:`.length)) : 1;
}
