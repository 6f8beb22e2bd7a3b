/**
 * What `slabtown lab author …` does: for those who write labs and answer for their numbers.
 */

import type { HostOutput } from "../host_output.ts";
import { EXIT_FAILED, EXIT_OK } from "../metrics.ts";
import { matrixTable, type Proof, proveLab } from "./author.ts";
import { labNames, openLab } from "./lab_folder.ts";
import { createSandbox } from "./sandbox.ts";

async function prove(names: readonly string[], nrSeeds: number): Promise<Proof[]> {
  const proofs: Proof[] = [];
  const sandbox = createSandbox();
  try {
    for (const name of names.length > 0 ? names : labNames()) {
      proofs.push(await proveLab({ lab: openLab(name), sandbox, nrSeeds }));
    }
  } finally {
    sandbox.close();
  }
  return proofs;
}

/** All gates over `names`, or every lab; the exit code. */
export async function checkLabs(names: readonly string[], nrSeeds: number, host: HostOutput): Promise<number> {
  let nrFindings = 0;
  for (const proof of await prove(names, nrSeeds)) {
    for (const finding of proof.findings) host.out(`${proof.lab}: ${finding}\n`);
    nrFindings += proof.findings.length;
    const nrSurvivors = proof.matrix.filter(({ named, status }) => status.get(named) !== "failed").length;
    host.out(
      `${proof.lab}: ${proof.nrChecks} checks, ${proof.nrReferences} references × ${nrSeeds} seeds, ` +
        `${proof.matrix.length} wrong solutions, ${nrSurvivors} survive, ${proof.findings.length} findings\n`,
    );
  }
  return nrFindings === 0 ? EXIT_OK : EXIT_FAILED;
}

/** The kill matrix as markdown. */
export async function printMatrix(names: readonly string[], host: HostOutput): Promise<number> {
  for (const proof of await prove(names, 1)) host.out(`## ${proof.lab}\n\n${matrixTable(proof)}\n\n`);
  return EXIT_OK;
}
