/**
 * The text that hidden seeds come from, in a file of the instructor's.
 */

import { readFileSync } from "node:fs";
import { UsageError } from "../usage_error.ts";

/** Throws `UsageError` where there is none: a class must not be graded with public seeds by mistake. */
export function readSecret(path: string): string {
  let text = "";
  try {
    text = readFileSync(path, "utf8").trim();
  } catch {
    throw new UsageError(`${path}: cannot be read`, "a file with one line of text, which students do not know");
  }
  if (text === "") throw new UsageError(`${path}: is empty`, "a line of text, which students do not know");
  return text;
}
