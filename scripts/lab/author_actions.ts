/**
 * What `slabtown lab author …` does: for those who write labs and answer for their numbers.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { HostOutput } from "../host_output.ts";
import { EXIT_FAILED, EXIT_OK } from "../metrics.ts";
import { UsageError } from "../usage_error.ts";
import { adequacyFindings, adequacyOf, adequacyText } from "./adequacy.ts";
import { matrixPage, type Proof, proveLab } from "./author.ts";
import { newLab } from "./author_new.ts";
import { bundleGradescope } from "./bundle.ts";
import { measureLab, rubricText } from "./calibrate.ts";
import { determinismFindings } from "./determinism.ts";
import { type Lab, labNames, openLab } from "./lab_folder.ts";
import { mutantFindings, runMutants } from "./mutants.ts";
import { ownOnly } from "./own_tests.ts";
import { makePatch } from "./patch.ts";
import { asUsageError, createSandbox } from "./sandbox.ts";
import { readSecret } from "./secret.ts";
import { referenceFiles, skeletonFiles } from "./skeleton.ts";
import { typeErrors } from "./type_check.ts";

/** A new lab's folder. */
export function makeLab(name: string, host: HostOutput): number {
  const path = newLab(name);
  host.out(`${path}\nnow: npm run build, slabtown lab author check ${basename(path).slice(3).replaceAll("_", "-")}\n`);
  return EXIT_OK;
}

/** The rubric's numbers, measured. */
export async function calibrateLab(name: string, host: HostOutput): Promise<number> {
  const lab = openLab(name);
  if (lab.manifest.files.length === 0) {
    throw new UsageError(`${lab.name} has questions only`, "there is nothing to measure");
  }
  const sandbox = createSandbox();
  try {
    const onProgress = (text: string): void => host.err(`${lab.name}: ${text}\n`);
    host.out(rubricText(lab, await measureLab({ lab, sandbox, onProgress })));
    return EXIT_OK;
  } finally {
    sandbox.close();
  }
}

/** The archive or folder that Gradescope builds an autograder from. */
export function bundleLab(name: string, target: string, seedFile: string | undefined, host: HostOutput): number {
  const lab = openLab(name);
  const seeds = seedFile === undefined ? undefined : readSecret(seedFile);
  const nrFiles = bundleGradescope({ lab, target, seeds });
  host.out(`${target}: ${nrFiles} files\n`);
  if (seeds === undefined) {
    host.err("slabtown: the hidden seeds are the public ones; --seed-file FILE puts your own into the bundle\n");
  }
  return EXIT_OK;
}

/** Says what goes on: on a terminal in one line, elsewhere of the wrong solutions each tenth only. */
function progressOf(host: HostOutput): { say(text: string): void; end(): void } {
  const isTerminal = process.stderr.isTTY === true;
  let nrWrong = 0;
  return {
    say(text) {
      if (isTerminal) host.err(`\r${text.slice(0, 76)}\x1b[K`);
      else if (!text.includes("wrong: ") || nrWrong++ % 10 === 0) host.err(`${text}\n`);
    },
    end: () => (isTerminal ? host.err("\r\x1b[K") : undefined),
  };
}

async function prove(names: readonly string[], nrSeeds: number, host: HostOutput): Promise<Proof[]> {
  const progress = progressOf(host);
  const proofs: Proof[] = [];
  const sandbox = createSandbox();
  try {
    for (const name of names.length > 0 ? names : labNames()) {
      const lab = openLab(name);
      const onProgress = (text: string): void => progress.say(`${lab.name}: ${text}`);
      onProgress("manifest");
      proofs.push(await proveLab({ lab, sandbox, nrSeeds, onProgress }));
    }
  } catch (error) {
    throw asUsageError(error);
  } finally {
    progress.end();
    sandbox.close();
  }
  return proofs;
}

/**
 * All gates over `names`, or every lab; the exit code. `nrMutants` of each reference: 0 leaves that gate out, which
 * takes by far the longest.
 */
export async function checkLabs(
  names: readonly string[],
  nrSeeds: number,
  nrMutants: number,
  host: HostOutput,
): Promise<number> {
  let nrFindings = 0;
  for (const proof of await prove(names, nrSeeds, host)) {
    const more = await otherGates(openLab(proof.lab), nrMutants, host);
    const findings = [...proof.findings, ...more.findings];
    for (const finding of findings) host.out(`${proof.lab}: ${finding}\n`);
    nrFindings += findings.length;
    const nrSurvivors = proof.matrix.filter(({ named, status }) => status.get(named) !== "failed").length;
    host.out(
      `${proof.lab}: ${proof.nrChecks} checks, ${proof.nrReferences} references × ${nrSeeds} seeds, ` +
        `${proof.matrix.length} wrong solutions, ${nrSurvivors} survive, ${more.text}${findings.length} findings\n`,
    );
  }
  return nrFindings === 0 ? EXIT_OK : EXIT_FAILED;
}

/** Types, determinism, adequacy of the search, machine mutants. */
async function otherGates(
  lab: Lab,
  nrMutants: number,
  host: HostOutput,
): Promise<{ readonly findings: readonly string[]; readonly text: string }> {
  if (lab.manifest.files.length === 0) return { findings: [], text: "" };
  const findings = [...(await typeFindings(lab)), ...(await determinismFindings(lab))];
  const sandbox = createSandbox();
  let text = "";
  try {
    const rows = await adequacyOf({ lab, sandbox });
    findings.push(...adequacyFindings(rows));
    if (rows.length > 0) text += `${rows.length} found by searching orders, `;
    if (nrMutants === 0) return { findings, text };
    const onProgress = (line: string): void => host.err(`${lab.name}: ${line}\n`);
    const results = await runMutants({ lab, sandbox, nrMutants, onProgress });
    findings.push(...mutantFindings(results));
    for (const { nrRun, survivors, nrEquivalent } of results) {
      text += `${nrRun - survivors.length - nrEquivalent} of ${nrRun} mutants killed (${nrEquivalent} equivalent), `;
    }
    return { findings, text };
  } finally {
    sandbox.close();
  }
}

/** What students see first must have no type errors: references and the skeleton. */
async function typeFindings(lab: Lab): Promise<string[]> {
  const findings: string[] = [];
  const folders = new Map(lab.manifest.references.map((name) => [name, ownOnly(lab, referenceFiles(lab, name))]));
  folders.set("the skeleton", new Map([...skeletonFiles(lab)].filter(([name]) => /^\w+\.ts$/.test(name))));
  for (const [what, files] of folders) {
    for (const line of await typeErrors(lab, files)) findings.push(`${what} has a type error: ${line}`);
  }
  return findings;
}

/** How wrong solutions of concurrent code are found: bound, executions, and random stress to compare with. */
export async function printAdequacy(names: readonly string[], host: HostOutput): Promise<number> {
  const sandbox = createSandbox();
  try {
    let nrFindings = 0;
    for (const name of names.length > 0 ? names : labNames()) {
      const lab = openLab(name);
      if (lab.manifest.files.length === 0) continue;
      const rows = await adequacyOf({ lab, sandbox });
      if (rows.length === 0) continue;
      host.out(`${lab.name}\n${adequacyText(rows)}`);
      nrFindings += adequacyFindings(rows).length;
    }
    return nrFindings === 0 ? EXIT_OK : EXIT_FAILED;
  } finally {
    sandbox.close();
  }
}

/** The kill matrix as markdown. */
export async function printMatrix(names: readonly string[], host: HostOutput): Promise<number> {
  host.out(matrixPage(await prove(names, 1, host)));
  return EXIT_OK;
}

/** Writes `wrong/BUG.patch` from `file`, a broken copy of a reference's file of that name. */
export function writeWrong(
  name: string,
  bug: string,
  file: string,
  reference: string | undefined,
  host: HostOutput,
): number {
  const lab = openLab(name);
  const from = reference ?? lab.manifest.references[0] ?? "";
  const before = referenceFiles(lab, from).get(basename(file));
  if (before === undefined) throw new UsageError(`${from} has no file ${basename(file)}`, "the copy keeps its name");
  const patch = makePatch(basename(file), before, readFileSync(file, "utf8"));
  if (patch === "") throw new UsageError(`${file} does not differ from ${from}`, "break it first");
  const path = join(lab.dir, "wrong", `${bug}.patch`);
  writeFileSync(path, patch, { flag: "wx" });
  host.out(`${path}\nnow add to wrong.yaml: ${bug}: { reference: ${from}, story, source, check, words }\n`);
  return EXIT_OK;
}
