/**
 * Which rules of real kernels the tests name: ids like W4 in the names of tests and describe blocks.
 *
 * A name may cite a range: `W1 … W9`, `S4-S8`. Names are read from the source, so that a list can be made without a run.
 */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import ts from "typescript";

/** Families of rules, and how many each has. */
const FAMILIES: Readonly<Record<string, number>> = { B: 11, W: 9, G: 5, S: 11, M: 13, D: 6, C: 4, K: 4, F: 1 };

const ALL = Object.entries(FAMILIES).flatMap(([family, nr]) =>
  Array.from({ length: nr }, (_, i) => `${family}${i + 1}`),
);

/** The ids in one text. Longer words that only begin like an id (`M61`, `D3x`, `DMA-1`) are none. */
export function ruleIdsIn(text: string): string[] {
  const ids = [...text.matchAll(/(?<![\w-])([BWGSMDCKF])(\d{1,2})(?![\w])(?:\s*(?:-|–|…)\s*\1(\d{1,2})(?!\w))?/g)];
  return ids.flatMap(([, family, first, last]) => {
    const [from, to] = [Number(first), Number(last ?? first)];
    const all = Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => `${family}${from + i}`);
    return all.filter((id) => ALL.includes(id));
  });
}

/**
 * First arguments of `it…(…)`, `test…(…)` and `describe…(…)` in a source text, as far as they are written out, and the
 * quoted keys of objects: tables of cases by name.
 */
export function testNamesIn(source: string): string[] {
  const names: string[] = [];
  const rootOf = (node: ts.Expression): string => {
    if (ts.isIdentifier(node)) return node.text;
    return ts.isCallExpression(node) || ts.isPropertyAccessExpression(node) ? rootOf(node.expression) : "";
  };
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) && ["it", "test", "describe"].includes(rootOf(node.expression))) {
      const [name] = node.arguments;
      if (name !== undefined && (ts.isStringLiteralLike(name) || ts.isTemplateExpression(name)))
        names.push(name.getText());
    }
    if (ts.isPropertyAssignment(node) && ts.isStringLiteral(node.name)) names.push(node.name.text);
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile("a.ts", source, ts.ScriptTarget.ES2023, true));
  return names;
}

/** Rules about what this kernel does otherwise or does not have, and why no test can name them. */
export const NOT_APPLICABLE: Readonly<Record<string, string>> = {
  M10: "slabs are sized as SLUB does (S4)",
  M12: "debug patterns are Linux's (S8)",
  S11: "sheaves are magazines by another name (M1-M9)",
  K1: "no shadow memory checker",
  K2: "no sampling checker",
  K3: "no kmemleak",
  K4: "no page_owner",
};

/** Rules that apply and that the name of no test in test/ cites, in order. */
export function unnamedRules(): string[] {
  const root = fileURLToPath(new URL("..", import.meta.url));
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".test.ts"));
  const named = new Set(
    files.flatMap((name) => testNamesIn(readFileSync(`${root}/${name}`, "utf8")).flatMap(ruleIdsIn)),
  );
  return ALL.filter((id) => !named.has(id) && !(id in NOT_APPLICABLE));
}
