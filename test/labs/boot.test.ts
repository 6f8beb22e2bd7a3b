/**
 * Goal: the whole kernel runs on a student's allocator, and oopses with the student's file and line when that is wrong.
 * Method: boot() with the options of `--lab`, a workload, the kernel's own walk of every invariant.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { KernelBug } from "../../kernel/bug.ts";
import { labBootOptions } from "../../scripts/lab/boot_lab.ts";
import { initFolder } from "../../scripts/lab/init.ts";
import { openLab } from "../../scripts/lab/lab_folder.ts";
import { referenceFiles } from "../../scripts/lab/skeleton.ts";
import { bootMachine } from "../../scripts/run_workloads.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { isBuilt, run as program } from "./support/program.ts";

const RAM_BYTES = 32 * 1024 * 1024;
const scratch = mkdtempSync(join(tmpdir(), "slabtown-labboot-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
let nrFolders = 0;

async function run(text: string, commands: string, name = "buddy"): Promise<{ log: string; violation: string | null }> {
  const lab = openLab(name);
  const dir = join(scratch, `f${nrFolders++}`);
  initFolder(lab, dir);
  writeFileSync(join(dir, lab.manifest.files[0] ?? ""), text);
  let log = "";
  const machine = { nrCpus: 2, ramBytes: RAM_BYTES, seed: "1", cmdline: "" };
  const console = (part: string): void => {
    log += part;
  };
  const onLab = await labBootOptions(`${name}=${dir}`, RAM_BYTES);
  const kernel = bootMachine(machine, builtinPrograms(), console, onLab());
  kernel.spawn("/sbin/init", ["init", "-c", commands]);
  kernel.closeConsole();
  try {
    for (let i = 0; i < 400 && kernel.run({ untilCycles: kernel.now() + 10_000_000 }) === "budget"; i++);
  } catch (error) {
    // The oops held the zone's lock, on which the dying task locks up: `slabtown boot` panics.
    if (!(error instanceof KernelBug)) throw error;
    return { log, violation: error.message };
  }
  return { log, violation: kernel.check() };
}

describe("the kernel on lab 2", () => {
  const [list, tree] = ["reference-list", "reference-tree"].map(
    (name) => referenceFiles(openLab("buddy"), name).get("buddy.ts") ?? "",
  );

  it.each([
    ["lists", list],
    ["a tree", tree],
  ])("runs on the reference with %s", async (_name, text) => {
    const { log, violation } = await run(text ?? "", "memhog 4M; stress --ops 300; cat /proc/buddyinfo\n");
    expect(log).toContain("memhog: 4096 KiB touched");
    expect(log).toContain("contents good");
    expect(log).not.toContain("Oops");
    expect(violation).toBe(null);
  });

  it("a throw in the student's code is an oops with file and line", async () => {
    const line = (list ?? "").split("\n").findIndex((row) => row.includes("nrFree -= 1 << wanted")) + 1;
    const bad = (list ?? "").replace(
      "nrFree -= 1 << wanted",
      'if (nrFree < 3000) throw new Error("mine"); nrFree -= 1 << wanted',
    );
    const { log } = await run(bad, "memhog 16M\n");
    expect(log).toMatch(new RegExp(`kernel BUG.*buddy\\.ts:${line}: mine`));
    expect(log).toContain("Oops");
  });

  it("a block that is handed out twice is an oops that names allocBlock", async () => {
    const bad = (list ?? "").replace(
      "    unlink(frame);\n    while (found > wanted)",
      "    if (nrFree > 3000) unlink(frame);\n    while (found > wanted)",
    );
    const { log } = await run(bad, "memhog 16M\n");
    expect(log).toMatch(/buddy\.ts:\d+: allocBlock hands out frames that are not free/);
  });
});

describe("the kernel on lab 7", () => {
  const [magazines, batches] = ["reference-magazines", "reference-batches"].map(
    (name) => referenceFiles(openLab("magazines"), name).get("magazines.ts") ?? "",
  );

  it.each([
    ["magazines", magazines],
    ["batches", batches],
  ])("SOC-1 runs on the reference with %s", async (_name, text) => {
    const { log, violation } = await run(text ?? "", "memhog 4M; stress --ops 300; cat /proc/slabinfo\n", "magazines");
    expect(log).toContain("contents good");
    expect(log).toContain("kmalloc-64");
    expect(log).not.toContain("Oops");
    expect(violation).toBe(null);
  });

  it.each([
    [
      "an object twice",
      "store(roundsOf(magazine), rounds - 1);",
      ";",
      /magazines\.ts:\d+: alloc hands out object \d+, which is/,
    ],
    [
      "a lock that is kept",
      "if (object === 0) object = steal();",
      "lock(me);",
      /magazines\.ts:\d+: \w+ returns and keeps lock/,
    ],
    [
      "a word beyond the end",
      "store(roundsOf(magazine), rounds + 1);",
      "store(1e6, 1);",
      /magazines\.ts:\d+: there is no word 1000000/,
    ],
  ])("%s is an oops with file and line", async (_name, good, bad, words) => {
    expect(magazines).toContain(good);
    let said: string;
    try {
      said = (await run((magazines ?? "").replace(good, bad), "memhog 4M; stress --ops 50\n", "magazines")).log;
    } catch (error) {
      // Caches are made before there is a console.
      if (!(error instanceof KernelBug)) throw error;
      said = error.message;
    }
    expect(said).toMatch(words);
  });

  it.skipIf(!isBuilt)(
    "by the program, which says how to get the same again (bug: without --lab)",
    async () => {
      const dir = join(scratch, "booted");
      initFolder(openLab("magazines"), dir);
      writeFileSync(join(dir, "magazines.ts"), batches ?? "");
      const { out, err, code } = await program("boot", "--lab", `07=${dir}`, "--exec", "free");
      expect([code, out.includes("Mem:")]).toEqual([0, true]);
      expect(err).toContain(`--lab 07=${dir}`);
    },
    30_000,
  );

  it("a lab without a place in the kernel says so (bug: a module that is not found)", async () => {
    const dir = join(scratch, "lockfree");
    initFolder(openLab("lockfree"), dir);
    await expect(labBootOptions(`lockfree=${dir}`, RAM_BYTES)).rejects.toThrow("has no place in the kernel");
  });
});
