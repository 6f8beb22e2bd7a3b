/**
 * Machine mutants: small changes to a reference, made without knowing what it does. Checks that let one pass that
 * behaves otherwise have a hole.
 *
 *   a < b → a <= b      a && b → a || b      3 → 4      if (x) → if (!(x))      f(); → ;      …
 *
 * Each is run over the checks until one is not passed. What survives has to be listed in wrong.yaml under `equivalent`,
 * by its line before and after, with the reason why nobody could tell.
 *
 * Source: R. DeMillo, R. Lipton, F. Sayward, "Hints on test data selection", IEEE Computer 11(4), 1978.
 */

import ts from "typescript";
import type { Check, LabCode } from "../../labs/kit/lab_code.ts";
import { SourceError } from "./compile.ts";
import { type Lab, labCode, wrongSolutions } from "./lab_folder.ts";
import { ownOnly } from "./own_tests.ts";
import { runsOf, runUntil } from "./run_check.ts";
import type { Sandbox } from "./sandbox.ts";
import { referenceFiles } from "./skeleton.ts";
import { putUnderTest } from "./under_test.ts";

/** Of those that behave otherwise than the reference. */
const SHARE_KILLED = 0.95;

export interface Mutant {
  readonly file: string;
  /** `line before → line after`, both without indentation. */
  readonly change: string;
  readonly text: string;
}

const SWAPS: ReadonlyMap<ts.SyntaxKind, string> = new Map([
  [ts.SyntaxKind.LessThanToken, "<="],
  [ts.SyntaxKind.LessThanEqualsToken, "<"],
  [ts.SyntaxKind.GreaterThanToken, ">="],
  [ts.SyntaxKind.GreaterThanEqualsToken, ">"],
  [ts.SyntaxKind.EqualsEqualsEqualsToken, "!=="],
  [ts.SyntaxKind.ExclamationEqualsEqualsToken, "==="],
  [ts.SyntaxKind.PlusToken, "-"],
  [ts.SyntaxKind.MinusToken, "+"],
  [ts.SyntaxKind.AsteriskToken, "+"],
  [ts.SyntaxKind.SlashToken, "*"],
  [ts.SyntaxKind.PercentToken, "*"],
  [ts.SyntaxKind.AmpersandAmpersandToken, "||"],
  [ts.SyntaxKind.BarBarToken, "&&"],
  [ts.SyntaxKind.AmpersandToken, "|"],
  [ts.SyntaxKind.BarToken, "&"],
  [ts.SyntaxKind.CaretToken, "&"],
  [ts.SyntaxKind.LessThanLessThanToken, ">>>"],
  [ts.SyntaxKind.GreaterThanGreaterThanGreaterThanToken, "<<"],
]);

/** All mutants of a file, in the order of their places. */
export function mutantsOf(file: string, text: string): readonly Mutant[] {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true);
  const mutants: Mutant[] = [];
  const replace = (start: number, end: number, by: string): void => {
    const mutated = text.slice(0, start) + by + text.slice(end);
    const { line } = source.getLineAndCharacterOfPosition(start);
    const change = `${lineOf(text, line)} → ${lineOf(mutated, line)}`;
    mutants.push({ file, change, text: mutated });
  };
  const visit = (node: ts.Node): void => {
    // Types do not run.
    if (ts.isTypeNode(node) || ts.isImportDeclaration(node) || ts.isInterfaceDeclaration(node)) return;
    if (ts.isBinaryExpression(node)) {
      const by = SWAPS.get(node.operatorToken.kind);
      const token = node.operatorToken;
      if (by !== undefined) replace(token.getStart(source), token.getEnd(), by);
    } else if (ts.isNumericLiteral(node)) {
      replace(node.getStart(source), node.getEnd(), String(Number(node.text.replaceAll("_", "")) + 1));
    } else if (node.kind === ts.SyntaxKind.TrueKeyword) replace(node.getStart(source), node.getEnd(), "false");
    else if (node.kind === ts.SyntaxKind.FalseKeyword) replace(node.getStart(source), node.getEnd(), "true");
    else if (ts.isExpressionStatement(node)) replace(node.getStart(source), node.getEnd(), ";");
    else if (ts.isIfStatement(node)) {
      const condition = node.expression;
      replace(condition.getStart(source), condition.getEnd(), `!(${condition.getText(source)})`);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return mutants;
}

function lineOf(text: string, line: number): string {
  return (text.split("\n")[line] ?? "").trim();
}

export interface MutantRequest {
  readonly lab: Lab;
  readonly sandbox: Sandbox;
  /** So many of each reference, spread evenly. */
  readonly nrMutants: number;
  readonly onProgress?: (text: string) => void;
}

export interface MutantResult {
  readonly reference: string;
  readonly nrRun: number;
  readonly nrAll: number;
  /** Not killed and not listed: `reference/file: change`. */
  readonly survivors: readonly string[];
  readonly nrEquivalent: number;
}

/** Runs mutants of every reference. */
export async function runMutants(request: MutantRequest): Promise<readonly MutantResult[]> {
  const { lab, onProgress } = request;
  const code = await labCode(lab);
  const { equivalent } = wrongSolutions(lab);
  const results: MutantResult[] = [];
  for (const reference of lab.manifest.references) {
    const files = ownOnly(lab, referenceFiles(lab, reference));
    const all = [...files].flatMap(([file, text]) => mutantsOf(file, text));
    const chosen = spread(all, request.nrMutants);
    const survivors: string[] = [];
    let nrEquivalent = 0;
    // What has killed lately kills again: the checks in that order.
    const checks = [...code.checks];
    for (const [i, mutant] of chosen.entries()) {
      onProgress?.(`${reference}: mutant ${i + 1} of ${chosen.length}`);
      if (await isKilled(request, code, new Map([...files, [mutant.file, mutant.text]]), checks)) continue;
      const key = `${reference}/${mutant.file}: ${mutant.change}`;
      if (equivalent[key] === undefined) survivors.push(key);
      else nrEquivalent++;
    }
    results.push({ reference, nrRun: chosen.length, nrAll: all.length, survivors, nrEquivalent });
  }
  return results;
}

function spread<T>(all: readonly T[], nr: number): readonly T[] {
  if (nr >= all.length) return all;
  return Array.from({ length: nr }, (_, i) => all[Math.floor((i * all.length) / nr)] as T);
}

/** Runs checks, one program at a time, until one is not passed; that one goes to the front. */
async function isKilled(
  { lab, sandbox }: MutantRequest,
  code: LabCode,
  files: ReadonlyMap<string, string>,
  checks: Check[],
): Promise<boolean> {
  try {
    const target = await putUnderTest(lab, sandbox, files);
    for (const depth of ["quick", "full"] as const) {
      for (const [i, check] of [...checks].entries()) {
        const from = depth === "quick" ? 0 : runsOf(check, "quick");
        const seeds = Array.from({ length: Math.max(0, runsOf(check, depth) - from) }, (_, k) => from + k);
        if ((await runUntil(code, check, target, seeds, (status) => status !== "passed")).status === "passed") continue;
        checks.unshift(...checks.splice(i, 1));
        return true;
      }
    }
    return false;
  } catch (error) {
    if (error instanceof SourceError) return true;
    throw error;
  }
}

/** Survivors that nobody has explained, and references of which too many are not killed. */
export function mutantFindings(results: readonly MutantResult[]): readonly string[] {
  return results.flatMap(({ reference, nrRun, survivors, nrEquivalent }) => {
    const nrKilled = nrRun - survivors.length - nrEquivalent;
    const nrDifferent = nrRun - nrEquivalent;
    const findings = survivors.map((key) => `a mutant survives, and wrong.yaml does not say why: ${key}`);
    if (nrKilled < SHARE_KILLED * nrDifferent)
      findings.push(`${reference}: ${nrKilled} of ${nrDifferent} mutants that behave otherwise are killed`);
    return findings;
  });
}
