/**
 * Goal: what the fuzzer found stays mended. Method: each bug is the shrunk scenario that showed it; it has to pass.
 */

import { describe, expect, it } from "vitest";
import { BootPanic } from "../../scripts/boot_panic.ts";
import { runCase } from "../../scripts/fuzz/run_case.ts";
import { resolveMachine } from "../../scripts/options.ts";
import { inputFromBytes } from "../../scripts/readers/input.ts";
import { runWorkloads } from "../../scripts/run_workloads.ts";
import { loadScenario } from "../../scripts/workloads.ts";

const END = 'kill: 5M\nfinally: ["true"]\nexpect: { exit_status: ">= 0", corrupt: 0 }\n';

const failureOf = async (text: string): Promise<unknown> => (await runCase(text + END, { reason: "none" })).failure;

const SMALL = "machine: { cpus: 1, mem: 16M, seed: 1 }\ncmdline: quiet\n";

describe("found by the fuzzer", () => {
  it("two replays of one recording at once had caches of one name: an oops and a corrupt free list", async () => {
    const replay = "  - { file: gcc-compile.ftrace.gz, limit: 200 }\n";
    expect(await failureOf(`${SMALL}check: 20k\nrecordings:\n${replay}${replay}`)).toBeNull();
  });

  it("kernel parameters that leave no memory to boot with were a bug of slabtown, not a panic", async () => {
    const machine = "machine: { cpus: 1, mem: 8M }\ncmdline: cma=5M min_free_kbytes=1425\nprograms: [{ run: dmesg }]\n";
    const set = await loadScenario(inputFromBytes("case.yaml", machine));
    const run = runWorkloads({ machine: resolveMachine(0, set.machine), set });
    await expect(run).rejects.toThrow(BootPanic);
    expect(await failureOf(machine)).toBeNull();
  });

  it.each(["tail -n 1 /dev/zero", "head /dev/zero", "wc /dev/zero", "grep x /dev/zero"])(
    "%s kept its CPU for ever and the host's memory with it",
    async (program) => {
      expect(await failureOf(`${SMALL}programs: [{ run: ${program} }]\n`)).toBeNull();
    },
  );

  it("OOM-5 a machine that is deadlocked on memory is no failure, and one that says so in a run is a panic", async () => {
    const hog = 'sh -c "echo -1000 > /proc/self/oom_score_adj; memhog 15M"';
    const text = `machine: { cpus: 1, mem: 16M, seed: 1 }\ncmdline: quiet\nprograms:\n  - run: ${hog}\n`;
    const set = await loadScenario(inputFromBytes("case.yaml", text));
    const { result } = await runWorkloads({ machine: resolveMachine(0, set.machine), set });
    expect([result.end, result.panicReport]).toEqual(["panic", expect.stringContaining("deadlocked on memory")]);
    expect((await runCase(text, { reason: "none" })).failure).toBeNull();
  });
});
