/**
 * Goal: what ships with the package can be named without its folder, and a file of one's own goes first.
 * Method: names are looked up from the project's folder and from an empty one.
 */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { shippedFile } from "../../scripts/package_files.ts";
import { loadWorkloads } from "../../scripts/workloads.ts";

const HOME = process.cwd();
let folder = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "slabtown-shipped-"));
  process.chdir(folder);
});
afterEach(() => {
  process.chdir(HOME);
  rmSync(folder, { recursive: true, force: true });
});

it("every shipped scenario and recording is found by its name from any folder", () => {
  const names = ["scenarios", "samples"].flatMap((sub) => readdirSync(join(HOME, "scripts", sub)));
  expect(names.length).toBeGreaterThan(5);
  for (const name of names) expect(shippedFile(name)).toContain(name);
});

it("a name with a folder, or one that climbs, is no shipped file", () => {
  for (const name of ["../slabtown.ts", "scenarios/demo.yaml", "..", "", "demo.yaml\0"]) {
    expect(shippedFile(name)).toBeUndefined();
  }
});

it("a scenario and a recording run by their bare names", async () => {
  const set = await loadWorkloads(["tar.rep.gz"]);
  expect(set.workloads.map(({ name }) => name)).toEqual(["tar"]);
  expect((await loadWorkloads(["demo.yaml"])).workloads).toHaveLength(2);
});

it("a file here goes before the shipped one", async () => {
  writeFileSync(join(folder, "demo.yaml"), "programs:\n  - run: stress --ops 10\n");
  expect((await loadWorkloads(["demo.yaml"])).workloads.map(({ name }) => name)).toEqual(["stress --ops 10"]);
});
