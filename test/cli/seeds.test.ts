/**
 * Goal: SED-1: a seed gives the same machine twice, another seed another one, and what depends on anything else is found.
 * Method: the shipped scenario over a few seeds; a program that counts its runs in a variable of the host.
 */

import { expect, it } from "vitest";
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from "../../kernel/uapi/mman.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { SYS_mmap } from "../../kernel/uapi/syscall.ts";
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
    const at = env.syscall(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    env.mem.st32(at as number, ++nrRuns);
    return 0;
  };
  const set = await loadWorkloads(["true"]);
  const result = await compare({ ...set, programs: new Map([...set.programs, ["/bin/true", wayward]]) }, 2);
  expect(result.findings.map(({ seed }) => seed)).toEqual(["ci.1", "ci.2"]);
  expect(result.findings[0]?.differences.join()).toMatch(/page.? of RAM, the first is frame \d+/);
});
