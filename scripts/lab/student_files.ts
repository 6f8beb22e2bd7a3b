/**
 * Reading a student's folder: only the files that the lab asks for, and nothing that is not plain text in the folder.
 */

import { closeSync, constants, existsSync, fstatSync, openSync, readSync, realpathSync, statSync } from "node:fs";
import { dirname, join, resolve, sep } from "node:path";
import { UsageError } from "../usage_error.ts";
import { SourceError } from "./compile.ts";
import type { Lab } from "./lab_folder.ts";

/** No source file of a lab is near that. */
const MAX_BYTES = 512 * 1024;

/** The folder, as an absolute path. Throws `UsageError` if there is none. */
export function studentFolder(dir: string): string {
  const path = resolve(dir);
  if (!existsSync(path)) throw new UsageError(`${dir}: there is no such folder`, "slabtown lab init LAB DIR makes one");
  if (!statSync(path).isDirectory())
    throw new UsageError(`${dir}: is not a folder`, "name the folder, not a file in it");
  return path;
}

/**
 * The student's source files by name. A missing one throws `SourceError`, as does one that is too large, binary, or a
 * link that leads out of the folder. `extra` files may be missing.
 */
export function readStudentFiles(lab: Lab, dir: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const name of lab.manifest.files) files.set(name, readStudentFile(dir, name));
  return files;
}

/** Text of a file of the student's folder. Throws `SourceError`. */
export function readStudentFile(dir: string, name: string): string {
  const path = join(dir, name);
  let bytes: Buffer;
  try {
    const real = realpathSync(path);
    const home = realpathSync(dir);
    if (!real.startsWith(home + sep)) throw new SourceError(name, 1, 1, "is a link that leads out of the folder");
    bytes = readRegular(real, name);
  } catch (error) {
    if (error instanceof SourceError) throw error;
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    const reason =
      code === "ENOENT" ? "is missing" : code === "EACCES" ? "cannot be read (permission)" : "cannot be read";
    throw new SourceError(name, 1, 1, `${reason} in ${dirname(path)}`);
  }
  if (bytes.includes(0)) throw new SourceError(name, 1, 1, "is binary data, not TypeScript");
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new SourceError(name, 1, 1, "is not UTF-8 text");
  }
}

/** Bytes of a regular file; opened without waiting, so that a named pipe does not hang the grader. */
function readRegular(path: string, name: string): Buffer {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const info = fstatSync(fd);
    if (!info.isFile()) throw new SourceError(name, 1, 1, "is not a regular file");
    if (info.size > MAX_BYTES) throw new SourceError(name, 1, 1, `is larger than ${MAX_BYTES / 1024} KiB`);
    const bytes = Buffer.alloc(MAX_BYTES + 1);
    let nrRead = 0;
    for (let n = 1; n > 0 && nrRead <= MAX_BYTES; nrRead += n)
      n = readSync(fd, bytes, nrRead, bytes.length - nrRead, null);
    return bytes.subarray(0, nrRead);
  } finally {
    closeSync(fd);
  }
}
