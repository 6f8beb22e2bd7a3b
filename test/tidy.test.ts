/**
 * Goal: the habits of the style guide that a machine can check, so that reviews are about the rest.
 * Method: each check is a pure function over (path, text) and returns findings, `line: message`. Its self-test plants
 * snippets that must be reported and look-alikes that must not; then it runs over every source file of the rooms.
 * Words are looked for in code only: comments and strings are blanked out first, so a comment may speak of `Date`.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { describe, expect, it } from "vitest";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");
const PORTABLE_ROOMS = ["kernel", "mm", "drivers", "userland", "explore"];
const ROOMS = [...PORTABLE_ROOMS, "scripts", "labs"];
const MAX_COLUMNS = 120;
const MAX_LINES = 600;

type Check = (path: string, text: string) => string[];

// ── Text and code ──────────────────────────────────────────────────────────────────────────────────────────────────

function isPortable(path: string): boolean {
  return PORTABLE_ROOMS.some((room) => path.startsWith(`${room}/`));
}

function isLiteralText(kind: ts.SyntaxKind): boolean {
  return kind > ts.SyntaxKind.NumericLiteral && kind <= ts.SyntaxKind.LastTemplateToken;
}

const codeOfText = new Map<string, string>();

/** The text with comments, strings, template text and regular expressions blanked; offsets and lines stay. */
function codeOnly(path: string, text: string): string {
  const known = codeOfText.get(text);
  if (known !== undefined) return known;
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.ES2023);
  let code = "";
  const blankTo = (end: number) => {
    code += text.slice(code.length, end).replace(/[^\n]/g, " ");
  };
  const visit = (node: ts.Node): void => {
    if (node.kind >= ts.SyntaxKind.FirstJSDocNode && node.kind <= ts.SyntaxKind.LastJSDocNode) return;
    if (!ts.isToken(node)) {
      for (const child of node.getChildren(file)) visit(child);
      return;
    }
    blankTo(node.getStart(file));
    if (isLiteralText(node.kind)) blankTo(node.getEnd());
    else code += text.slice(code.length, node.getEnd());
  };
  visit(file);
  blankTo(text.length);
  codeOfText.set(text, code);
  return code;
}

function lineOf(text: string, offset: number): number {
  return text.slice(0, offset).split("\n").length;
}

/** One finding for each match of `pattern`, which must be global. */
function findAll(text: string, pattern: RegExp, message: (found: string) => string): string[] {
  return [...text.matchAll(pattern)].map((m) => `${lineOf(text, m.index)}: ${message(m[0].trim())}`);
}

function importsOf(text: string): string[] {
  return ts.preProcessFile(text, true, true).importedFiles.map((file) => file.fileName);
}

// ── The checks ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** What portable rooms may not touch, and what to use. `(?<![.\w$])`: a member of that name is somebody else's. */
const BANNED: readonly (readonly [RegExp, string])[] = [
  [/(?<![.\w$])console\s*\??[.[]/g, "printk()"],
  [/(?<![.\w$])Date\b/g, "the machine's clock"],
  [/(?<![.\w$])performance\s*\??[.[]/g, "the machine's clock"],
  [/(?<![.\w$])Math\s*\.\s*random\b/g, "a named stream of the prng"],
  [/(?<![.\w$])crypto\s*\??[.[]/g, "a named stream of the prng"],
  [/(?<![.\w$])async\s*(?:function\b|\*|\(|[\w$]+\s*(?:=>|\())/g, "a softirq, or a generator and a wait queue"],
  [/(?<![.\w$])await\b(?!\s*[:=,)}?])/g, "a softirq, or a generator and a wait queue"],
  [/(?<![.\w$])Promise\b/g, "a softirq, or a generator and a wait queue"],
  [/(?<![.\w$])(?:setTimeout|setInterval|setImmediate|queueMicrotask)\b/g, "a kernel timer, a softirq or a wait queue"],
  [
    /(?<![.\w$])process\s*\.\s*(?:argv|cwd|env|exit|exitCode|hrtime|memoryUsage|nextTick|on|once|std\w+|version)\b/g,
    "what scripts/ hands in",
  ],
  [/(?<![.\w$])Buffer\b/g, "Uint8Array, or the memory port"],
];

const bannedIdentifiers: Check = (path, text) => {
  if (!isPortable(path)) return [];
  const code = codeOnly(path, text);
  return BANNED.flatMap(([pattern, use]) => findAll(code, pattern, (found) => `\`${found}\`: use ${use}`));
};

const nodeImports: Check = (path, text) =>
  isPortable(path)
    ? importsOf(text)
        .filter((name) => name.startsWith("node:"))
        .map((name) => `1: imports ${name}: this room is portable, let scripts/ hand in what touches the host`)
    : [];

const header: Check = (_path, text) =>
  /^(?:#![^\n]*\n)?\/\*\*[\s*]*[^\s*/]/.test(text)
    ? []
    : ["1: opens without a header comment: a /** tagline, then what the file owns"];

const lineLength: Check = (_path, text) =>
  text.split("\n").flatMap((line, i) => {
    const nrColumns = [...line].length;
    // A link is one word; breaking it would make it useless.
    return nrColumns <= MAX_COLUMNS || line.includes("://") ? [] : [`${i + 1}: ${nrColumns} columns of ${MAX_COLUMNS}`];
  });

const fileLength: Check = (_path, text) => {
  const nrLines = text.replace(/\n$/, "").split("\n").length;
  return nrLines <= MAX_LINES ? [] : [`${nrLines}: ${nrLines} lines of ${MAX_LINES}: this file holds two nouns`];
};

const namedExports: Check = (path, text) => {
  const code = codeOnly(path, text);
  return [
    ...findAll(code, /\bexport\s+default\b/g, () => "export default: name the export"),
    ...findAll(code, /\bas\s+default\b/g, () => "as default: name the export"),
    ...findAll(code, /\bexport\s+(?:type\s+)?\*/g, () => "export *: re-export by name"),
  ];
};

const erasable: Check = (path, text) => {
  const code = codeOnly(path, text);
  return [
    ...findAll(code, /(?<![.\w$])enum\s+[\w$]+\s*\{/g, (m) => `${m}: use constants, SCREAMING_SNAKE`),
    ...findAll(code, /(?<![.\w$])(?:namespace|module)\s+[\w$.]+\s*\{/g, (m) => `${m}: a file is a module`),
  ];
};

const asAny: Check = (path, text) => {
  const code = codeOnly(path, text);
  return findAll(code, /\bas\s+any\b/g, () => "as any: say what it is, or narrow from unknown");
};

const openEnds: Check = (_path, text) =>
  findAll(text, /\b(?:TODO|FIXME|XXX)\b/g, (m) => `${m}: do it, or say in one sentence why it is so`);

const fileName: Check = (path) =>
  /^[a-z0-9]+(?:_[a-z0-9]+)*(?:\.d)?\.ts$/.test(posix.basename(path)) ? [] : ["1: file name is not snake_case.ts"];

/** Written so that this file, which is tracked too, does not contain what it looks for. */
const MACHINE_PATH = new RegExp(
  `(?<![\\w.$~-])(?:/(?:${["root", "work"].join("|")}|(?:home|Users)/[A-Za-z][\\w.-]*)/|[A-Z]:\\\\Users\\\\)`,
  "g",
);

const machinePaths: Check = (_path, text) => findAll(text, MACHINE_PATH, (m) => `${m}: a path of one machine`);

/** Files of the portable rooms that no file imports. Front doors are imported by whoever comes. */
function orphans(files: ReadonlyMap<string, string>): string[] {
  const imported = new Set<string>();
  for (const [path, text] of files) {
    for (const name of importsOf(text)) imported.add(posix.join(posix.dirname(path), name));
  }
  return [...files.keys()].filter(
    (path) => isPortable(path) && !imported.has(path) && posix.basename(path) !== "index.ts",
  );
}

// ── Over the project ───────────────────────────────────────────────────────────────────────────────────────────────

function sourcesOf(rooms: readonly string[]): Map<string, string> {
  const paths = rooms
    .filter((room) => existsSync(join(ROOT, room)))
    .flatMap((room) =>
      readdirSync(join(ROOT, room), { recursive: true, encoding: "utf8" }).map((path) =>
        posix.join(room, path.replaceAll("\\", "/")),
      ),
    )
    .filter((path) => path.endsWith(".ts") && !path.startsWith("scripts/samples/"))
    .sort();
  return new Map(paths.map((path) => [path, readFileSync(join(ROOT, path), "utf8")]));
}

/** Everything git tracks or would track on `git add .`. */
function projectFiles(): string[] {
  const args = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
  const listed = execFileSync("git", args, { cwd: ROOT, encoding: "utf8", maxBuffer: 1 << 26 });
  return listed.split("\0").filter((path) => path !== "");
}

function findings(check: Check, files: ReadonlyMap<string, string>): string[] {
  return [...files].flatMap(([path, text]) => check(path, text).map((finding) => `${path}:${finding}`));
}

interface Tidy {
  readonly check: Check;
  /** A portable file unless the case is `[path, text]`. */
  readonly bad: readonly (string | readonly [string, string])[];
  readonly good: readonly (string | readonly [string, string])[];
}

const long = "x".repeat(MAX_COLUMNS);

const TIDY: Readonly<Record<string, Tidy>> = {
  "portable rooms do not use what belongs to the host": {
    check: bannedIdentifiers,
    bad: [
      'console.log("hi");',
      "const t = Date.now();",
      "const t = new Date();",
      "const t = performance.now();",
      "const r = Math.random();",
      "const r = crypto.getRandomValues(a);",
      "async function f() {}",
      "const f = async () => 1;",
      "const f = async x => 1;",
      "const o = { async read() {} };",
      "const x = await f();",
      "let p: Promise<void>;",
      "setTimeout(f, 1);",
      "queueMicrotask(f);",
      "const e = process.env.HOME;",
      "const b = Buffer.alloc(1);",
      // biome-ignore lint/suspicious/noTemplateCurlyInString: the snippet is a template with code inside
      "const s = `text ${Date.now()} text`;",
      "const isWord = /a/.test(s); console.log(isWord);",
    ],
    good: [
      "// console.log, Date.now(), await",
      "/** new Date() and Math.random() */",
      'const s = "console.log"; const t = `Promise`; const u = /Date.now()/;',
      // biome-ignore lint/suspicious/noTemplateCurlyInString: the snippet is a template with code inside
      "const s = `Date ${now} await`;",
      "machine.console.write(1); const o = { async: true, isAsync: opts.async };",
      "process.mm = 0; for (const process of processes) wake(process);",
      "const updated = lastUpdate; const BufferHead = 1; const asyncCompaction = 1;",
      ["scripts/a.ts", 'console.log(await f(), Date.now(), process.argv, Buffer.from("a"));'],
    ],
  },
  "portable rooms import nothing from node:": {
    check: nodeImports,
    bad: ['import { readFileSync } from "node:fs";', 'const m = import("node:os");', 'export { a } from "node:path";'],
    good: [
      '// import "node:fs";',
      'import { a } from "./node.ts";',
      ["scripts/a.ts", 'import { readFileSync } from "node:fs";'],
    ],
  },
  "every file opens with a header comment": {
    check: header,
    bad: ["", "export const a = 1;\n/** late */", "/* plain */", "/** */\nexport const a = 1;", "// line\n"],
    good: ["/** Tagline. */", "/**\n * Tagline.\n */", "#!/usr/bin/env node\n/** Tagline. */"],
  },
  [`lines have at most ${MAX_COLUMNS} columns`]: {
    check: lineLength,
    bad: [`${long}x`, `a\n${long}x\nb`],
    good: [long, "≤".repeat(MAX_COLUMNS), `${long}\n${long}`, ` * see https://example.org/${long}`],
  },
  [`files have at most ${MAX_LINES} lines`]: {
    check: fileLength,
    bad: ["a\n".repeat(MAX_LINES + 1)],
    good: ["a\n".repeat(MAX_LINES)],
  },
  "exports have names": {
    check: namedExports,
    bad: [
      "export default 1;",
      "export default function f() {}",
      "export { a as default, b };",
      "export { a as default };",
      'export * from "./a.ts";',
      'export * as a from "./a.ts";',
      'export type * from "./a.ts";',
    ],
    good: ["// export default", 'export { a } from "./a.ts";', "switch (a) { default: b(); }", 'const s = "export *";'],
  },
  "no enum, no namespace": {
    check: erasable,
    bad: ["enum Order { A }", "export const enum Order { A }", "namespace A { }", "declare module A.B { }"],
    good: ["// enum Order {", "const namespace = 1;", "loader.module = 2;", 'const s = "enum A {";'],
  },
  "no as any": {
    check: asAny,
    bad: ["const a = b as any;", "f((b as any).c);"],
    good: ["// as any", "const a = b as anyOf;", 'const s = "as any";'],
  },
  "nothing is left to do later": {
    check: openEnds,
    bad: ["// TODO: later", "/* FIXME */", " * XXX why?"],
    good: ["const path = '/tmp/aXXXXXX';", "// todo list of a task"],
  },
  "file names are snake_case": {
    check: fileName,
    bad: [
      ["mm/pageAlloc.ts", ""],
      ["mm/page-alloc.ts", ""],
      ["mm/Buddy.ts", ""],
      ["mm/buddy.impl.ts", ""],
    ],
    good: [
      ["mm/page_alloc.ts", ""],
      ["kernel/arch/sv39.ts", ""],
      ["scripts/seedrandom.d.ts", ""],
    ],
  },
};

function runCase(check: Check, planted: string | readonly [string, string]): string[] {
  return typeof planted === "string" ? check("mm/planted.ts", planted) : check(...planted);
}

describe("tidy", () => {
  const sources = sourcesOf(ROOMS);

  it("sees the sources of the project", () => {
    expect(sources.size).toBeGreaterThan(0);
  });

  for (const [name, { check, bad, good }] of Object.entries(TIDY)) {
    it(`${name} (self-test)`, () => {
      expect(bad.filter((planted) => runCase(check, planted).length === 0)).toEqual([]);
      expect(good.flatMap((planted) => runCase(check, planted))).toEqual([]);
    });

    it(name, () => {
      expect(findings(check, sources)).toEqual([]);
    });
  }

  it("codeOnly() keeps offsets and lines", () => {
    for (const [path, text] of sources) expect(codeOnly(path, text).length, path).toBe(text.length);
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the snippet is a template with code inside
    const text = 'f("a"); // b\n/** c */ g(`d${e}f`, /h/);\n';
    expect(codeOnly("a.ts", text)).toBe("f(   );     \n         g(    e   ,    );\n");
  });
});

describe("orphans", () => {
  it("a portable file that nobody imports is reported (self-test)", () => {
    const files = new Map([
      ["mm/index.ts", 'export { a } from "./buddy.ts";'],
      ["mm/buddy.ts", 'import type { Pfn } from "../kernel/types.ts";'],
      ["mm/lonely.ts", 'import { a } from "./buddy.ts"; // import "./lonely.ts"'],
      ["kernel/types.ts", ""],
      ["scripts/slabtown.ts", 'const load = () => import("../kernel/late.ts");'],
      ["kernel/late.ts", ""],
    ]);
    expect(orphans(files)).toEqual(["mm/lonely.ts"]);
  });

  // Before the program at the top exists, everything is an orphan and the word means nothing.
  it.skipIf(!existsSync(join(ROOT, "scripts/slabtown.ts")))("somebody imports every portable file", () => {
    expect(orphans(sourcesOf([...ROOMS, "test"]))).toEqual([]);
  });
});

describe("paths of one machine", () => {
  it("are reported (self-test)", () => {
    const places = ["root", "work", "home/ann", "Users/ann"];
    for (const place of places) expect(machinePaths("a.md", `see "/${place}/slabtown"`), place).toHaveLength(1);
    expect(machinePaths("a.md", ["C:", "Users", "ann"].join("\\"))).toHaveLength(1);
    expect(machinePaths("a.md", "docs/work/a.md ~/work/b https://example.org/home/ann/x /proc/meminfo")).toEqual([]);
  });

  // An unpacked archive is no repository, and has nothing tracked.
  it.skipIf(!existsSync(join(ROOT, ".git")))("are in no tracked file", () => {
    const paths = projectFiles().filter((path) => existsSync(join(ROOT, path)));
    expect(paths.length).toBeGreaterThan(0);
    const found = paths.flatMap((path) => {
      const text = readFileSync(join(ROOT, path), "utf8");
      // A NUL byte near the front: binary, as git itself judges.
      if (text.slice(0, 8000).includes("\0")) return [];
      return machinePaths(path, text).map((finding) => `${path}:${finding}`);
    });
    expect(found).toEqual([]);
  });
});
