/**
 * `lab author bundle gradescope`: the archive that Gradescope builds an autograder from.
 *
 *   setup.sh          once, with a network: Node, and the few packages that the grader needs
 *   run_autograder    for each submission: `lab grade`, results.json
 *   seeds             the instructor's text that hidden seeds come from, if there is one
 *   slabtown/         this program as it is: package.json, lock, dist/, labs/
 *
 * Source: gradescope-autograders.readthedocs.io, "Autograder specifications": the archive is unpacked to
 * /autograder/source, the submission is in /autograder/submission, results go to /autograder/results/results.json.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { UsageError } from "../usage_error.ts";
import type { Lab } from "./lab_folder.ts";
import { type ZipEntry, zip } from "./zip.ts";

const setup = (node: string): string => `#!/usr/bin/env bash
# Gradescope runs this once, as root, when it builds the image. There is a network now, and none is needed later.
set -euo pipefail
node="${node}"
apt-get update
apt-get install -y --no-install-recommends ca-certificates curl util-linux xz-utils
case "$(uname -m)" in
  aarch64) arch=arm64 ;;
  *) arch=x64 ;;
esac
file="node-$node-linux-$arch.tar.xz"
cd /tmp
curl -fsSLO "https://nodejs.org/dist/$node/$file"
curl -fsSL "https://nodejs.org/dist/$node/SHASUMS256.txt" | grep " $file\\$" | sha256sum --check -
tar -xJf "$file" -C /usr/local --strip-components=1
rm "$file"
cd /autograder/source/slabtown
npm LOCKED --omit=dev --ignore-scripts --no-audit --no-fund
`;

const run = (lab: Lab, hasSeeds: boolean): string => `#!/usr/bin/env bash
# Gradescope runs this for each submission. Without a verdict there is no results.json, so that nobody gets a score.
set -u
root="\${AUTOGRADER_ROOT:-/autograder}"
results="$root/results/results.json"
mkdir -p "$root/results"
rm -f "$results"
node "$root/source/slabtown/dist/scripts/slabtown.js" lab grade "$root/submission" --lab ${lab.name} \\
  --no-history --format gradescope${hasSeeds ? ' --seed-file "$root/source/seeds"' : ""} > "$results.part"
status=$?
if [ "$status" -gt 1 ]; then
  rm -f "$results.part"
  echo "no verdict (exit code $status): this is not the student's doing; run it again" >&2
  exit "$status"
fi
mv "$results.part" "$results"
`;

export interface BundleRequest {
  readonly lab: Lab;
  /** A new folder, or a file that ends in .zip. */
  readonly target: string;
  readonly seeds?: string | undefined;
}

/** Writes the archive, or the folder; how many files it has. Throws `UsageError`. */
export function bundleGradescope({ lab, target, seeds }: BundleRequest): number {
  const root = packageRoot();
  const isLocked = existsSync(join(root, "package-lock.json"));
  const text = (name: string, content: string, isExecutable = false): ZipEntry => ({
    name,
    bytes: Buffer.from(content),
    isExecutable,
  });
  const entries = [
    text("setup.sh", setup(process.version).replace("LOCKED", isLocked ? "ci" : "install"), true),
    text("run_autograder", run(lab, seeds !== undefined), true),
    ...(seeds === undefined ? [] : [text("seeds", `${seeds}\n`)]),
    ...programFiles(root, isLocked),
  ];
  try {
    if (target.endsWith(".zip")) writeArchive(target, entries);
    else writeFolder(target, entries);
  } catch (error) {
    if (!(error instanceof Error && "code" in error)) throw error;
    const why = error.code === "EEXIST" ? "exists" : error.message.replace(/^\w+: /, "");
    throw new UsageError(`${target}: cannot be made: ${why}`, "name a new folder, or a new file that ends in .zip");
  }
  return entries.length;
}

function writeArchive(path: string, entries: readonly ZipEntry[]): void {
  if (existsSync(path)) throw new UsageError(`${path}: exists`, "nothing is written over: name a new file");
  writeFileSync(`${path}.part`, zip(entries));
  renameSync(`${path}.part`, path);
}

function writeFolder(dir: string, entries: readonly ZipEntry[]): void {
  if (existsSync(dir) && readdirSync(dir).length > 0)
    throw new UsageError(`${dir}: is not empty`, "nothing is written over: name a new folder");
  for (const { name, bytes, isExecutable } of entries) {
    const path = join(dir, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, bytes, { flag: "wx", mode: isExecutable === true ? 0o755 : 0o644 });
  }
}

/** What the program needs to run: no declarations, no maps, no build marks. */
function programFiles(root: string, isLocked: boolean): ZipEntry[] {
  const files = ["package.json", ...(isLocked ? ["package-lock.json"] : [])];
  for (const folder of ["dist", "labs"]) {
    const names = readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && !/\.(?:d\.ts|map|tsbuildinfo)$/.test(entry.name))
      .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1));
    files.push(...names.sort());
  }
  return files.map((name) => ({
    name: `slabtown/${name.replaceAll("\\", "/")}`,
    bytes: readFileSync(join(root, name)),
  }));
}

/** The folder of this program's package.json, which is built. */
function packageRoot(): string {
  for (const path of ["../..", "../../.."]) {
    const root = resolve(fileURLToPath(new URL(path, import.meta.url)));
    if (existsSync(join(root, "package.json")) && existsSync(join(root, "dist/scripts/slabtown.js"))) return root;
  }
  throw new UsageError("the program is not built", "npm run build");
}
