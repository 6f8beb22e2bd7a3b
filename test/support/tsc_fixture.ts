/**
 * Compiles a snippet against the project and returns what the compiler says.
 *
 * For tests whose subject is a type: that a wrong context, a mixed-up address or a forgotten `yield*` does not
 * compile. The snippet is a virtual file beside the other tests, so it imports modules as they do
 * (`../kernel/types.ts`). One language service lives for the whole test file: the first call loads the standard
 * library and the modules imported, later calls check the snippet only. Options are those of tsconfig.test.json, less
 * the two about unused names, which a snippet cannot help having.
 */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const SNIPPET = join(ROOT, "test", "__snippet.ts").replaceAll("\\", "/");

function readOptions(): ts.CompilerOptions {
  const configPath = join(ROOT, "tsconfig.test.json");
  const { config, error } = ts.readConfigFile(configPath, ts.sys.readFile);
  if (error !== undefined) throw new Error(ts.flattenDiagnosticMessageText(error.messageText, "\n"));
  // No files wanted: the snippet alone is the root, and what it imports follows.
  const parsed = ts.parseJsonConfigFileContent({ ...config, include: [], files: [SNIPPET] }, ts.sys, ROOT);
  return { ...parsed.options, noUnusedLocals: false, noUnusedParameters: false };
}

function createSnippetService(): (source: string) => ts.Diagnostic[] {
  const options = readOptions();
  let text = "";
  let version = 0;
  const host: ts.LanguageServiceHost = {
    getCompilationSettings: () => options,
    getScriptFileNames: () => [SNIPPET],
    getCurrentDirectory: () => ROOT,
    getDefaultLibFileName: ts.getDefaultLibFilePath,
    // Files on disk do not change while a test runs, so only the snippet has more than one version.
    getScriptVersion: (path) => (path === SNIPPET ? String(version) : "0"),
    getScriptSnapshot(path) {
      const content = path === SNIPPET ? text : ts.sys.readFile(path);
      return content === undefined ? undefined : ts.ScriptSnapshot.fromString(content);
    },
    fileExists: (path) => path === SNIPPET || ts.sys.fileExists(path),
    readFile: (path) => (path === SNIPPET ? text : ts.sys.readFile(path)),
    directoryExists: ts.sys.directoryExists,
    getDirectories: ts.sys.getDirectories,
    readDirectory: ts.sys.readDirectory,
    useCaseSensitiveFileNames: () => ts.sys.useCaseSensitiveFileNames,
  };
  const service = ts.createLanguageService(host);
  return (source) => {
    text = source;
    version++;
    return [...service.getSyntacticDiagnostics(SNIPPET), ...service.getSemanticDiagnostics(SNIPPET)];
  };
}

let service: ((source: string) => ts.Diagnostic[]) | undefined;

/** Compiles `source` as test/__snippet.ts; returns the messages reported for it, none for code that compiles. */
export function typeErrors(source: string): string[] {
  service ??= createSnippetService();
  return service(source).map((diagnostic) => ts.flattenDiagnosticMessageText(diagnostic.messageText, "\n"));
}
