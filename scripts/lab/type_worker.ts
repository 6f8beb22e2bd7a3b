/**
 * The thread that looks at types (type_check.ts): a student's files in, what TypeScript says about them out.
 *
 * Files are in memory only; of the disk it reads TypeScript's own library. What code of labs may use of the world is
 * that library without the DOM, and `console.log`.
 */

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parentPort, workerData } from "node:worker_threads";
import ts from "typescript";

/** What the thread is given; names as the student's folder has them. */
export interface TypeRequest {
  readonly files: readonly (readonly [name: string, text: string])[];
  /** Those whose errors are of interest. */
  readonly own: readonly string[];
}

const ROOT = "/lab/";
const AMBIENT = `${ROOT}ambient.d.ts`;
const AMBIENT_TEXT = "declare const console: { log(...values: unknown[]): void };\n";
const LIBRARY = dirname(fileURLToPath(import.meta.resolve("typescript")));

const OPTIONS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  lib: ["lib.es2023.d.ts"],
  strict: true,
  noEmit: true,
  skipLibCheck: true,
  allowImportingTsExtensions: true,
  types: [],
};

function readText(files: ReadonlyMap<string, string>, path: string): string | undefined {
  const known = files.get(path);
  if (known !== undefined || !path.startsWith(`${LIBRARY}/`)) return known;
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

function check({ files, own }: TypeRequest): string[] {
  const texts = new Map(files.map(([name, text]) => [ROOT + name, text]));
  texts.set(AMBIENT, AMBIENT_TEXT);
  const host: ts.CompilerHost = {
    getSourceFile(path, version) {
      const text = readText(texts, path);
      return text === undefined ? undefined : ts.createSourceFile(path, text, version);
    },
    getDefaultLibFileName: () => join(LIBRARY, "lib.es2023.d.ts"),
    getDefaultLibLocation: () => LIBRARY,
    writeFile: () => {},
    getCurrentDirectory: () => ROOT,
    getCanonicalFileName: (name) => name,
    useCaseSensitiveFileNames: () => true,
    getNewLine: () => "\n",
    fileExists: (path) => readText(texts, path) !== undefined,
    readFile: (path) => readText(texts, path),
  };
  const program = ts.createProgram([...own.map((name) => ROOT + name), AMBIENT], OPTIONS, host);
  return own.flatMap((name) =>
    program.getSemanticDiagnostics(program.getSourceFile(ROOT + name)).map((diagnostic) => {
      const { line, character } = diagnostic.file?.getLineAndCharacterOfPosition(diagnostic.start ?? 0) ?? {
        line: 0,
        character: 0,
      };
      const text = ts.flattenDiagnosticMessageText(diagnostic.messageText, " ").replaceAll(/\s+/g, " ");
      return `${name}:${line + 1}:${character + 1}: TS${diagnostic.code}: ${text.slice(0, 200)}`;
    }),
  );
}

parentPort?.postMessage(check(workerData as TypeRequest));
