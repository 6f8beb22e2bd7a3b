/**
 * Paths: what a program names, seen from the directory that it works in.
 *
 * Each process has a current directory, a copy of its parent's when it begins; all its threads share it, and execve
 * keeps it. The file tree itself knows absolute paths only.
 *
 *   cwd /proc   ·   "self/maps" → /proc/self/maps   ·   "../tmp" → /tmp   ·   "/dev/null" → /dev/null
 */

import { ENOENT } from "../uapi/errno.ts";
import type { Caller } from "./process.ts";

/** Longest string that a call takes for a path or a name, with its NUL. */
export const MAX_PATH = 256;

/** `path` seen from `cwd`, without `.`, `..` and doubled slashes. `..` of the root is the root. Pure. */
export function resolvePath(cwd: string, path: string): string {
  const parts: string[] = [];
  for (const part of (path.startsWith("/") ? path : `${cwd}/${path}`).split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}

/** The absolute path that the caller's string at `pathPtr` means; −EFAULT, −ENAMETOOLONG, −ENOENT for the empty one. */
export function userPath(caller: Caller, pathPtr: number): string | number {
  const text = caller.user.string(pathPtr, MAX_PATH);
  if (text === "") return -ENOENT;
  return typeof text === "number" ? text : resolvePath(caller.process.cwd, text);
}
