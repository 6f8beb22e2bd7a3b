/**
 * From TypeScript files to what the child runs: types away, imports as calls, lines remembered.
 *
 * TypeScript's own `transpileModule` does it on every version of Node, so that the code that runs, and with it every
 * count of virtual steps, is the same everywhere. Its source map is kept as one array, from lines of the output to
 * lines of the file. Types are not checked here (type_check.ts).
 */

import ts from "typescript";
import { instrument, type Site, TICK } from "./instrument.ts";

/** What travels to the child. */
export interface Module {
  readonly name: string;
  readonly code: string;
}

export interface Compiled {
  readonly modules: readonly Module[];
  readonly sites: readonly Site[];
  /** Line of the file for a line of a module's code, both from 1; 0 if unknown. */
  originalLine(module: string, line: number): number;
}

/** A file that cannot be compiled, with the place. */
export class SourceError extends Error {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  constructor(file: string, line: number, column: number, message: string) {
    super(message);
    this.name = "SourceError";
    this.file = file;
    this.line = line;
    this.column = column;
  }
}

const OPTIONS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.CommonJS,
  sourceMap: true,
  isolatedModules: true,
  allowJs: true,
};

/** Compiles the student's files, with counters. Throws `SourceError`. */
export function compileStudent(files: ReadonlyMap<string, string>): Compiled {
  const sites: Site[] = [];
  return compileAll(files, sites, (name, text) => {
    const at = text.indexOf(TICK);
    if (at >= 0) {
      const before = text.slice(0, at).split("\n");
      throw new SourceError(name, before.length, (before.at(-1) ?? "").length + 1, `the name ${TICK} is the grader's`);
    }
    return instrument(name, text, sites);
  });
}

/** Compiles the lab's own files as they are. */
export function compileTrusted(files: ReadonlyMap<string, string>): Compiled {
  return compileAll(files, [], (_name, text) => text);
}

function compileAll(
  files: ReadonlyMap<string, string>,
  sites: readonly Site[],
  prepare: (name: string, text: string) => string,
): Compiled {
  const modules: Module[] = [];
  const lines = new Map<string, Int32Array>();
  for (const [name, text] of files) {
    const { outputText, sourceMapText, diagnostics } = shallow(name, () => transpile(name, prepare(name, text)));
    // Places of the text without counters, where there is something to report.
    if ((diagnostics?.length ?? 0) > 0) throw syntaxError(name, text);
    modules.push({ name, code: outputText.replace(/\/\/# sourceMappingURL=.*\s*$/, "") });
    lines.set(name, lineMap(sourceMapText ?? ""));
  }
  return { modules, sites, originalLine: (module, line) => lines.get(module)?.[line - 1] ?? 0 };
}

function transpile(name: string, text: string): ts.TranspileOutput {
  return ts.transpileModule(text, { compilerOptions: OPTIONS, fileName: name, reportDiagnostics: true });
}

/** The compiler recurses: a file of three thousand brackets would take its stack, and ours. */
function shallow<T>(name: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new SourceError(name, 1, 1, "is nested too deep to be compiled");
  }
}

function syntaxError(name: string, text: string): SourceError {
  const [first] = transpile(name, text).diagnostics ?? [];
  if (first === undefined) return new SourceError(name, 1, 1, "cannot be compiled");
  const place = first.file?.getLineAndCharacterOfPosition(first.start ?? 0) ?? { line: 0, character: 0 };
  return new SourceError(
    name,
    place.line + 1,
    place.character + 1,
    ts.flattenDiagnosticMessageText(first.messageText, " "),
  );
}

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** Line of the source for each line of the output, from a source map (version 3). */
function lineMap(sourceMapText: string): Int32Array {
  const { mappings } = JSON.parse(sourceMapText) as { mappings: string };
  const rows = mappings.split(";");
  const map = new Int32Array(rows.length);
  let line = 0;
  rows.forEach((row, i) => {
    for (const segment of row.split(",")) {
      const fields = decodeVlq(segment);
      line += fields[2] ?? 0;
      if (map[i] === 0 && fields.length >= 4) map[i] = line + 1;
    }
  });
  return map;
}

/** Base-64 numbers of 5 bits a digit, least significant first, the sign in the lowest bit. */
function decodeVlq(text: string): number[] {
  const numbers: number[] = [];
  let [value, shift] = [0, 0];
  for (const ch of text) {
    const digit = BASE64.indexOf(ch);
    value += (digit & 31) << shift;
    if ((digit & 32) !== 0) {
      shift += 5;
      continue;
    }
    numbers.push((value & 1) === 1 ? -(value >>> 1) : value >>> 1);
    [value, shift] = [0, 0];
  }
  return numbers;
}
