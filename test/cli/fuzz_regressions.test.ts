/**
 * Goal: what the fuzzer found stays mended. Method: each bug is the shrunk scenario that showed it; it has to pass.
 */

import { describe, expect, it } from "vitest";
import { runCase } from "../../scripts/fuzz/run_case.ts";

const END = 'kill: 5M\nfinally: ["true"]\nexpect: { exit_status: ">= 0", corrupt: 0 }\n';

const failureOf = async (text: string): Promise<unknown> => (await runCase(text + END, { reason: "none" })).failure;

const SMALL = "machine: { cpus: 1, mem: 16M, seed: 1 }\ncmdline: quiet\n";

describe("found by the fuzzer", () => {
  it("two replays of one recording at once had caches of one name: an oops and a corrupt free list", async () => {
    const replay = "  - { file: gcc-compile.ftrace.gz, limit: 200 }\n";
    expect(await failureOf(`${SMALL}check: 20k\nrecordings:\n${replay}${replay}`)).toBeNull();
  });

  it.each(["tail -n 1 /dev/zero", "head /dev/zero", "wc /dev/zero", "grep x /dev/zero"])(
    "%s kept its CPU for ever and the host's memory with it",
    async (program) => {
      expect(await failureOf(`${SMALL}programs: [{ run: ${program} }]\n`)).toBeNull();
    },
  );
});
