/**
 * YAML documents: text into plain values, keeping where in the file each of them was.
 *
 * YAML 1.2 as the `yaml` package reads it, made narrow, for files that strangers hand us:
 *
 *   - one document; plain scalars as keys, each once, and none that is a name of Object.prototype (`__proto__`)
 *   - no tags, so no constructors; few aliases, so no anchor bombs; bounded size, so no nesting that eats the stack
 *
 * Every complaint is an `InputError` with line and column.
 */

import { isMap, isNode, isScalar, LineCounter, type Pair, parseDocument, visit } from "yaml";
import type { InputFile } from "./readers/input.ts";
import { InputError, type InputErrorDetails, quoted } from "./readers/input_error.ts";

export interface YamlDocument {
  /** Plain objects, arrays, strings, numbers, booleans and nulls. */
  readonly value: unknown;
  /** An error at the value that `path` leads to (at its key for `onKey`), or as near to it as the file goes. */
  errorAt(path: readonly PropertyKey[], what: string, details?: InputErrorDetails, onKey?: boolean): InputError;
}

const MAX_BYTES = 1024 * 1024;
/** Values that aliases may repeat, all together. */
const MAX_ALIASES = 32;
const MAX_DEPTH = 32;

/** The document in `input`. Throws `InputError`. */
export function readYaml(input: InputFile): YamlDocument {
  if (input.bytes.length > MAX_BYTES) {
    throw new InputError(input.path, `is larger than ${MAX_BYTES} bytes`, { expected: "a scenario" });
  }
  const text = decode(input);
  const lineCounter = new LineCounter();
  const fail = (offset: number, what: string, details: InputErrorDetails = {}): InputError => {
    const { line, col } = lineCounter.linePos(offset);
    return new InputError(input.path, what, { line: Math.max(line, 1), column: Math.max(col, 1), ...details });
  };
  const tooDeep = /[[{]{33}|(?:[-?] ){33}/.exec(text.replaceAll(/(?<=[[{])\s+/g, ""));
  if (tooDeep !== null) throw new InputError(input.path, `is nested more than ${MAX_DEPTH} deep`);

  const doc = parseDocument(text, { version: "1.2", lineCounter, prettyErrors: false, uniqueKeys: true });
  const problem = doc.errors[0] ?? doc.warnings[0];
  if (problem !== undefined) throw fail(problem.pos[0], `not valid YAML: ${tidyMessage(problem.message)}`);
  if (doc.contents === null) throw new InputError(input.path, "holds no scenario: nothing but comments or blanks");
  visit(doc, {
    Pair(_key, pair) {
      refuseKey(pair, fail);
    },
    Node(_key, node, path) {
      if (path.length > 2 * MAX_DEPTH) throw fail(node.range?.[0] ?? 0, `is nested more than ${MAX_DEPTH} deep`);
      if (node.tag !== undefined && node.range)
        throw fail(node.range[0], `the tag ${quoted(node.tag)} is not used here`);
    },
  });
  let value: unknown;
  try {
    value = doc.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (error) {
    const what = error instanceof Error ? tidyMessage(error.message) : String(error);
    const isBomb = /alias count/i.test(what);
    throw new InputError(input.path, isBomb ? "aliases repeat too much of the file" : `not valid YAML: ${what}`, {
      ...lineOfFirstAlias(text),
      expected: isBomb ? `at most ${MAX_ALIASES} repeated values` : undefined,
    });
  }
  const errorAt: YamlDocument["errorAt"] = (path, what, details, onKey = false) =>
    fail(offsetOf(doc.contents, path, onKey), what, details);
  return { value, errorAt };
}

function decode(input: InputFile): string {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(input.bytes);
  } catch {
    throw new InputError(input.path, "is not UTF-8 text", { expected: "a scenario in YAML" });
  }
  const control = [...text].findIndex((ch) => ch < " " && ch !== "\n" && ch !== "\r" && ch !== "\t");
  if (control >= 0) throw new InputError(input.path, "is binary data", { expected: "a scenario in YAML" });
  return text;
}

function refuseKey(pair: Pair, fail: (offset: number, what: string, details?: InputErrorDetails) => InputError): void {
  const { key } = pair;
  const offset = isNode(key) ? (key.range?.[0] ?? 0) : 0;
  if (!isScalar(key)) throw fail(offset, "a key has to be a word", { expected: "a plain name before the colon" });
  const name = String(key.value);
  if (name in Object.prototype) throw fail(offset, `${quoted(name)} is no key`, { expected: "a key of the scenario" });
}

function offsetOf(root: unknown, path: readonly PropertyKey[], onKey: boolean): number {
  let offset = startOf(root, 0);
  let node = root;
  path.forEach((step, depth) => {
    if (!isNode(node)) return;
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(step));
      const isLast = depth === path.length - 1;
      offset = startOf(pair?.key, offset);
      node = pair?.value;
      if (!(onKey && isLast)) offset = startOf(node, offset);
      return;
    }
    node = "get" in node && typeof node.get === "function" ? node.get(Number(step), true) : undefined;
    offset = startOf(node, offset);
  });
  return offset;
}

function startOf(node: unknown, otherwise: number): number {
  return isNode(node) ? (node.range?.[0] ?? otherwise) : otherwise;
}

function lineOfFirstAlias(text: string): InputErrorDetails {
  const index = text.search(/\*\w/);
  if (index < 0) return {};
  const before = text.slice(0, index).split("\n");
  return { line: before.length, column: (before.at(-1) ?? "").length + 1 };
}

/** The first sentence of a message of the `yaml` package. */
function tidyMessage(message: string): string {
  const sentence = message.split(/[;\n]/)[0] ?? message;
  return sentence.charAt(0).toLowerCase() + sentence.slice(1);
}
