/**
 * Goal: SED-1: a seed gives the same machine twice, another seed another one, and what depends on anything else is found.
 * Method: the shipped scenario over a few seeds; a program that counts its runs in a variable of the host.
 */

import { expect, it } from "vitest";
import type { Program } from "../../kernel/uapi/program.ts";
import { packageFile } from "../../scripts/package_files.ts";
import { compareSeeds, type SeedsResult } from "../../scripts/seeds_command.ts";
import { loadWorkloads, type WorkloadSet } from "../../scripts/workloads.ts";

const MACHINE = { nrCpus: 3, ramBytes: 16 * 1024 * 1024, seed: "ci", cmdline: "" };

const compare = (set: WorkloadSet, nrSeeds: number): Promise<SeedsResult> =>
  compareSeeds({
    set,
    machine: MACHINE,
    nrSeeds,
    cycles: undefined,
    stop: { reason: "none" },
    onProgress: () => {},
  });

it("SED-1 determinism.yaml: six seeds, each twice the same, six different machines", async () => {
  const result = await compare(await loadWorkloads([packageFile("scenarios/determinism.yaml")]), 6);
  expect(result).toMatchObject({ nrSeeds: 6, nrMachines: 6, findings: [] });
  expect(result.nrCycles).toBeGreaterThan(12 * 5_000_000);
});

it("SED-1 a run that depends on the host is found, with the page and what was printed", async () => {
  let nrRuns = 0;
  const wayward: Program = function* (env) {
    env.mem.st32(0x7_ffff_e000, ++nrRuns);
    return 0;
  };
  const set = await loadWorkloads(["true"]);
  const result = await compare({ ...set, programs: new Map([...set.programs, ["/bin/true", wayward]]) }, 2);
  expect(result.findings.map(({ seed }) => seed)).toEqual(["ci.1", "ci.2"]);
  expect(result.findings[0]?.differences.join()).toMatch(/page.? of RAM, the first is frame \d+/);
});
