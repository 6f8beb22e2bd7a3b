/**
 * Tests in Node's own modules: TypeScript is made JavaScript by a hook of Node's loader, and nothing else is changed.
 *
 * Vitest's own runner turns each use of an import into a property of an object, which costs a third of the speed of
 * code that is many small functions, as a kernel is. It is JavaScript, as what loads TypeScript has to be. Node loads
 * this file twice: as a setup file, which registers it, and in the thread of the hooks. Source maps keep the lines of
 * stack traces those of the sources.
 */
import { readFileSync } from "node:fs";
import { register } from "node:module";
import { fileURLToPath } from "node:url";
import { isMainThread } from "node:worker_threads";

if (isMainThread) {
  register(import.meta.url);
  process.setSourceMapsEnabled(true);
}

/** Node's `load` hook: the sources of this project as JavaScript, everything else as it is. */
export async function load(url, context, nextLoad) {
  const [plain] = url.split(/[?#]/);
  if (!plain.startsWith("file:") || !plain.endsWith(".ts") || plain.includes("/node_modules/")) {
    return nextLoad(url, context);
  }
  const { transformWithOxc } = await import("vite");
  const path = fileURLToPath(plain);
  const { code, map } = await transformWithOxc(readFileSync(path, "utf8"), path, { sourcemap: true });
  const inline = Buffer.from(JSON.stringify({ ...map, sourcesContent: undefined })).toString("base64");
  const source = `${code}\n//# sourceMappingURL=data:application/json;base64,${inline}`;
  return { format: "module", shortCircuit: true, source };
}
