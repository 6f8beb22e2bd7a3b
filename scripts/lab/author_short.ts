/**
 * The gates in a form that is short enough for each run of the tests: every wrong solution, few programs of each.
 *
 *   right, skeleton   a few seeds
 *   wrong             only the named check, in programs 0, then 1 … 3, then the rest, until one kills; with the words
 *   messages, matrix  all of it for one row, drawn anew when wrong.yaml changes; the page of docs has that row
 *
 * What the short form leaves out (that a check is needed by some wrong solution, most messages) the full one judges:
 * author.ts.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { LabCode } from "../../labs/kit/lab_code.ts";
import {
  type AuthorOptions,
  manifestFindings,
  matrixHead,
  matrixRow,
  matrixRowText,
  rightFindings,
  skeletonFindings,
} from "./author.ts";
import { failureLines } from "./failure_text.ts";
import { hash32 } from "./grade.ts";
import { type Lab, labCode, type WrongSolutions, wrongSolutions } from "./lab_folder.ts";
import { wrongFiles } from "./own_tests.ts";
import { type CheckOutcome, minimise, runCheck, runsOf } from "./run_check.ts";
import { putUnderTest } from "./under_test.ts";

const NR_SAMPLES = 1;
/** Programs are tried up to these numbers, one group after the other. */
const GROUPS = [1, 4, Number.POSITIVE_INFINITY];

/** What does not hold; `page` is the text of docs/kill_matrix.md. */
export async function proveInShort(options: AuthorOptions, page: string): Promise<readonly string[]> {
  const { lab, onProgress } = options;
  const code = await labCode(lab);
  if (lab.manifest.files.length === 0) return manifestFindings(lab, code, { wrong: {}, reasons: {}, equivalent: {} });
  const wrong = wrongSolutions(lab);
  const findings = [...manifestFindings(lab, code, wrong), ...pageFindings(lab, code, wrong, page)];
  onProgress?.("right solutions");
  findings.push(...(await rightFindings(options, code)));
  onProgress?.("skeleton");
  findings.push(...(await skeletonFindings(options, code, "quick")));
  for (const name of Object.keys(wrong.wrong)) {
    onProgress?.(`wrong: ${name}`);
    findings.push(...(await killFindings(options, code, wrong, name)));
  }
  for (const name of sampleOf(lab, wrong)) {
    onProgress?.(`all checks: ${name}`);
    const row = await matrixRow(options, code, wrong, name);
    findings.push(...row.findings);
    if (!page.includes(matrixRowText(row))) findings.push(`docs/kill_matrix.md is old at ${name}: npm run labs:matrix`);
  }
  return findings;
}

function sampleOf(lab: Lab, wrong: WrongSolutions): readonly string[] {
  const text = readFileSync(join(lab.dir, "wrong.yaml"), "utf8");
  const rank = (name: string): number => hash32(`${name}:${text}`);
  return Object.keys(wrong.wrong)
    .sort((a, b) => rank(a) - rank(b))
    .slice(0, NR_SAMPLES);
}

/** The page has the lab's table: its checks, its wrong solutions in their order, each caught by the named check. */
function pageFindings(lab: Lab, code: LabCode, { wrong }: WrongSolutions, page: string): string[] {
  const ids = code.checks.map(({ id }) => id);
  const [, table = ""] = page.split(`## ${lab.name}\n\n${matrixHead(ids)}\n`);
  const rows = table.split("\n\n")[0]?.split("\n").filter(Boolean) ?? [];
  const caught = rows.map((row) => {
    const [name = "", ...cells] = row
      .slice(1)
      .split("|")
      .map((cell) => cell.trim());
    return `${name} ${ids[cells.indexOf("**✗**")]}`;
  });
  const named = Object.entries(wrong).map(([name, { check }]) => `${name} ${check}`);
  return caught.join() === named.join() ? [] : ["docs/kill_matrix.md is not of this lab as it is: npm run labs:matrix"];
}

async function killFindings(
  { lab, sandbox }: AuthorOptions,
  code: LabCode,
  wrong: WrongSolutions,
  name: string,
): Promise<string[]> {
  const entry = wrong.wrong[name] as WrongSolutions["wrong"][string];
  const check = code.checks.find(({ id }) => id === entry.check);
  if (check === undefined) return [`wrong/${name}: there is no check ${entry.check}`];
  const target = await putUnderTest(lab, sandbox, wrongFiles(lab, name, wrong));
  const nrRuns = runsOf(check, "full");
  let outcome: CheckOutcome | undefined;
  for (let from = 0, group = 0; from < nrRuns && outcome?.status !== "failed"; group++) {
    const end = Math.min(nrRuns, GROUPS[group] as number);
    const seeds = Array.from({ length: end - from }, (_, i) => from + i);
    outcome = await runCheck(code, check, target, seeds);
    from = end;
  }
  const failure = outcome?.failure ?? null;
  if (outcome?.status !== "failed" || failure === null)
    return [`wrong/${name}: ${check.id} says ${outcome?.status}, not failed`];
  const says = (shown: typeof failure): boolean => {
    const lines = failureLines({ code, lab: lab.short, check, failure: shown, score: "0/0", showsTrace: true });
    return lines.join(" ").replaceAll(/\s+/g, " ").includes(entry.words);
  };
  // Most messages have the words before they are shrunk.
  if (says(failure) || says(await minimise(code, check, target, failure))) return [];
  return [`wrong/${name}: the message does not say "${entry.words}"`];
}
