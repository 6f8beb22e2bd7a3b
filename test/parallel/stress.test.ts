/**
 * Goal: real threads over one RAM keep every invariant, lose nothing and mix nothing up; and the stress would notice.
 * Method: bounded, seeded programs on worker threads (scripts/bench/parallel_stress.ts): remote frees, contents stamped
 * and verified, a CPU that goes offline, stops with all auditors run. Then the same with broken ports
 * (test/parallel/mutants), each of which must be caught.
 *
 * Workers run the build, for they cannot run TypeScript; skipped without it or without shared memory.
 */

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import {
  createParallelMachine,
  ParallelFailure,
  type ParallelMachine,
  type ParallelOptions,
} from "../../scripts/bench/parallel_machine.ts";
import { sumCounts } from "../../scripts/bench/parallel_suite.ts";

const HERE = dirname(fileURLToPath(import.meta.url));
const isPossible =
  typeof SharedArrayBuffer === "function" &&
  existsSync(join(HERE, "..", "..", "dist", "scripts", "bench", "parallel_worker.js"));
if (!isPossible) {
  process.stderr.write("test/parallel/stress: skipped: needs SharedArrayBuffer and dist/, `npm run build` first\n");
}

const MIB = 1024 * 1024;
const mutant = (name: string): string => pathToFileURL(join(HERE, "mutants", `${name}.mjs`)).href;

async function withMachine<T>(
  options: Partial<ParallelOptions>,
  work: (machine: ParallelMachine) => Promise<T>,
): Promise<T> {
  const nrThreads = options.nrThreads ?? 2;
  const machine = createParallelMachine({
    nrThreads,
    nrCpus: nrThreads,
    ramBytes: 32 * MIB,
    seed: "1",
    cmdline: "",
    patienceMs: 10_000,
    ...options,
  });
  try {
    await machine.boot();
    return await work(machine);
  } finally {
    await machine.end();
  }
}

/** What the stress finds with a broken port, trying some seeds; null if it finds nothing. */
async function stressWith(name: string, nrThreads: number, patienceMs = 10_000): Promise<string | null> {
  for (let seed = 1; seed <= 6; seed++) {
    try {
      const fault = await withMachine({ nrThreads, patienceMs, portModule: mutant(name) }, async (machine) => {
        await machine.stress({ seed: String(seed), nrOperations: 12_000, nrStops: nrThreads });
        return machine.finish();
      });
      if (fault !== null) return fault;
    } catch (error) {
      if (!(error instanceof ParallelFailure)) throw error;
      return error.message;
    }
  }
  return null;
}

describe.skipIf(!isPossible)("threads over one RAM", () => {
  it.each([
    { nrThreads: 2, ramBytes: 64 * MIB, seed: "a", cmdline: "" },
    { nrThreads: 4, ramBytes: 32 * MIB, seed: "b", cmdline: "" },
    { nrThreads: 3, ramBytes: 16 * MIB, seed: "c", cmdline: "depot=lockfree" },
    { nrThreads: 2, ramBytes: 32 * MIB, seed: "d", cmdline: "object_cache=passthrough" },
  ])("SPL-1 SLAB-5 MAG-2 BUD-1: the stress leaves everything in order: %j", async (options) => {
    await withMachine(options, async (machine) => {
      const counts = sumCounts(await machine.stress({ seed: options.seed, nrOperations: 5_000, nrStops: 4 }));
      expect(await machine.finish()).toBeNull();
      expect(counts.operations).toBeGreaterThanOrEqual(5_000 * options.nrThreads);
      expect(counts.allocations).toBe(counts.frees);
      expect(counts.verified).toBeGreaterThanOrEqual(counts.frees);
      expect(counts.stops).toBeGreaterThanOrEqual(4);
      expect(counts.remoteFrees).toBeGreaterThan(0);
      expect(counts.drainedPages).toBeGreaterThan(0);
      if (!options.cmdline.includes("passthrough")) expect(counts.drainedObjects).toBeGreaterThan(0);
    });
  });

  it.each(["locked", "lockfree"])("also with pauses in the middle of critical sections, depot=%s", async (depot) => {
    await withMachine({ nrThreads: 3, portModule: mutant("jitter"), cmdline: `depot=${depot}` }, async (machine) => {
      await machine.stress({ seed: "f", nrOperations: 5_000, nrStops: 3 });
      expect(await machine.finish()).toBeNull();
    });
  });

  // The pages of the descriptors of those caches were once called lost, on computers where threads often meet.
  it("M6 caches of larger magazines, made meanwhile, are no loss", async () => {
    await withMachine({ nrThreads: 3, portModule: mutant("busy") }, async (machine) => {
      await machine.run({ workload: "churn", warmupPairs: 200_000, nrPairs: 10_000 }, 3);
      expect(await machine.finish()).toBeNull();
    });
  });

  it("the bench leaves everything in order, with an odd number of threads and an early end too", async () => {
    await withMachine({ nrThreads: 3 }, async (machine) => {
      for (const workload of ["churn", "pipe", "pages"] as const) {
        const replies = await machine.run({ workload, warmupPairs: 1_000, nrPairs: 30_000 }, 3);
        expect(replies.reduce((sum, reply) => sum + reply.pairs, 0)).toBeGreaterThanOrEqual(60_000);
      }
      setTimeout(machine.endSoon, 50);
      const replies = await machine.run({ workload: "pipe", warmupPairs: 0, nrPairs: 1e9 }, 2);
      expect(replies.every((reply) => reply.pairs < 1e9)).toBe(true);
      expect(await machine.finish()).toBeNull();
    });
  });
});

describe.skipIf(!isPossible)("the stress notices", () => {
  it("TPORT-1 a compare-and-swap that is a load and a store", async () => {
    expect(await stressWith("plain_cas", 3)).toMatch(/^CPU \d: |pages are lost|kernel log|-\d+:/);
  });

  it("TPORT-1 an addition that is a load and a store", async () => {
    expect(await stressWith("plain_add", 3)).toContain("NR_SLAB items differ");
  });

  it("DEP-5 a lock-free depot without its tag: objects that two threads have, or lists that are wrong", async () => {
    const options = { nrThreads: 4, portModule: mutant("no_tag"), cmdline: "depot=lockfree", patienceMs: 1_000 };
    const found: unknown[] = [];
    for (let attempt = 0; attempt < 4 && found.length === 0; attempt++) {
      const run = withMachine(options, async (machine) => {
        await machine.run({ workload: "pipe", warmupPairs: 0, nrPairs: 60_000 }, 4);
        return machine.finish();
      });
      const fault = await run.catch((error: unknown) => error);
      if (fault !== null) found.push(fault);
    }
    expect(found.map(String).join()).toMatch(/does not hold what was sent|DEP-|MAG-|no operation|CPU \d: |lost/);
  });

  it("SPIN-3 an unlock that is lost: no hang, but a report that names the lock or the recursion", async () => {
    expect(await stressWith("lost_unlock", 2, 1_000)).toMatch(
      /recursion|waits for the lock|no operation|lock is taken|PCP-5/,
    );
  });

  it("threads that did not boot to the same bytes do not start", async () => {
    await expect(withMachine({ portModule: mutant("other_boot") }, (machine) => machine.finish())).rejects.toThrow(
      "same bytes",
    );
  });
});
