/**
 * Names in a directory, as getdents gives them: a directory's name ends in `/`.
 */

import type { Sleeping } from "../../kernel/types.ts";
import { ENOTDIR, strerror } from "../../kernel/uapi/errno.ts";
import { O_DIRECTORY, O_RDONLY } from "../../kernel/uapi/mman.ts";
import type { Libc } from "../libc.ts";
import type { Tool } from "./tool.ts";

/** The names, in the kernel's order, or −errno. */
export function* directoryNames(libc: Libc, path: string): Sleeping<string[] | number> {
  const fd = yield* libc.open(path, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return fd;
  const names = yield* libc.getdents(fd);
  yield* libc.close(fd);
  // The kernel reads plain files through getdents too; no name of a directory looks like a text.
  const isText = typeof names !== "number" && names.some((name) => /\n|\/./.test(name));
  return isText ? -ENOTDIR : names;
}

export function* listDirectoryOrError(tool: Tool, path: string): Sleeping<string[] | number> {
  return yield* directoryNames(tool.libc, path);
}

/** The names, or null after a complaint. */
export function* listDirectory(tool: Tool, path: string): Sleeping<string[] | null> {
  const names = yield* directoryNames(tool.libc, path);
  if (typeof names !== "number") return names;
  yield* tool.complain(`${path}: ${strerror(names)}`);
  return null;
}
