/**
 * The YAML files of a lab, and of a student's folder, as checked values; complaints name file, line and column.
 */

import { readFileSync } from "node:fs";
import * as v from "valibot";
import { InputError } from "../readers/input_error.ts";
import { readYaml } from "../yaml_document.ts";

/** Reads the YAML file at `path` in the shape of `schema`. Throws `InputError`. */
export function readYamlAs<S extends v.GenericSchema>(path: string, schema: S): v.InferOutput<S> {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch {
    throw new InputError(path, "cannot be read", { hint: "the lab's folder is incomplete" });
  }
  return parseYamlAs(path, bytes, schema);
}

/** The same for text that is in memory. */
export function parseYamlAs<S extends v.GenericSchema>(path: string, bytes: Uint8Array, schema: S): v.InferOutput<S> {
  const document = readYaml({ path, name: path, bytes });
  const result = v.safeParse(schema, document.value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const keys = (issue.path ?? []).map(({ key }) => key as PropertyKey);
  const isUnknownKey = issue.type === "strict_object";
  throw document.errorAt(keys, issue.message, {}, isUnknownKey);
}
