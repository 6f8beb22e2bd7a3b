/**
 * Files that ship with the package: found from the sources (scripts/) and from the build (dist/scripts/) alike.
 */

import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** Path of `name` inside scripts/, as in `samples/tar.rep.gz`. Throws if the package lacks it. */
export function packageFile(name: string): string {
  for (const base of ["./", "../../scripts/"]) {
    const path = fileURLToPath(new URL(`${base}${name}`, import.meta.url));
    if (existsSync(path)) return path;
  }
  throw new Error(`the package is incomplete: scripts/${name} is missing`);
}

/** Path of the shipped scenario or recording that a bare file name means, as in `packets.yaml`; undefined if none. */
export function shippedFile(name: string): string | undefined {
  if (!/^\w[\w.-]*$/.test(name)) return undefined;
  for (const folder of ["scenarios", "samples"]) {
    for (const base of ["./", "../../scripts/"]) {
      const path = fileURLToPath(new URL(`${base}${folder}/${name}`, import.meta.url));
      if (existsSync(path)) return path;
    }
  }
  return undefined;
}

/** Version of the package. */
export function packageVersion(): string {
  const parsed: unknown = JSON.parse(readFileSync(packageFile("../package.json"), "utf8"));
  const isPackage = typeof parsed === "object" && parsed !== null && "version" in parsed;
  return isPackage ? String(parsed.version) : "unknown";
}
