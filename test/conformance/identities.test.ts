/**
 * Goal: the numbers of /proc, of the page columns and of the magazines agree with each other at every few steps of a
 * run, not only at its end: W9, B2, B5, M13 and the identities between files.
 * Method: a machine of two CPUs replays recorded kernel events, a recorded heap and memory-hungry programs together, and
 * is stopped at uneven moments. Each identity is one test and counts what it compared. `npm run conformance` stops more
 * often than `npm test`. A planted error shows that an identity can fail.
 */

import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { boot } from "../../kernel/entry/boot.ts";
import type { Kernel } from "../../kernel/entry/kernel.ts";
import type { ProgramObserver } from "../../kernel/uapi/program.ts";
import { Z_NR_FREE, ZONE_DMA32 } from "../../mm/mmzone.ts";
import { PG_BUDDY } from "../../mm/page.ts";
import { blocksOf, holds, IDENTITIES, readMoment } from "../../scripts/identities.ts";
import { readRecording } from "../../scripts/readers/detect.ts";
import { readInput } from "../../scripts/readers/input.ts";
import { builtinPrograms, heapReplayProgram } from "../../userland/index.ts";
import { countCases } from "../support/cases.ts";

const NR_CPUS = 2;
const NR_STEPS = process.env.SLABTOWN_CONFORMANCE === "full" ? 400 : 40;

// ── The machine and its load ───────────────────────────────────────────────────────────────────────────────────────

const sample = (name: string): string => fileURLToPath(new URL(`../../scripts/samples/${name}`, import.meta.url));
const SILENT: ProgramObserver = { operation: () => undefined };

async function bootLoaded(): Promise<Kernel> {
  const heap = readRecording(await readInput(sample("sqlite3.rep.gz")));
  const events = readRecording(await readInput(sample("gcc-compile.ftrace.gz")));
  if (heap.kind !== "heap" || events.kind !== "kernel") throw new Error("the samples are of other kinds");
  const programs = new Map(builtinPrograms());
  programs.set("/bin/replay", heapReplayProgram(heap, {}));
  const kernel = boot({
    nrCpus: NR_CPUS,
    ramBytes: 32 * 2 ** 20,
    seed: "identities",
    port: "bounds",
    cmdline: "quiet",
    console: () => undefined,
    programs,
  });
  kernel.spawnKernelReplay(events, SILENT);
  startPrograms(kernel);
  return kernel;
}

function startPrograms(kernel: Kernel): void {
  const started = [
    kernel.spawn("/bin/replay", ["replay"], { observer: SILENT }),
    kernel.spawn("/bin/memhog", ["memhog", "5M", "--hold", "3000000"]),
    kernel.spawn("/bin/stress", ["stress", "--ops", "3000", "--threads", "2"]),
  ];
  for (const pid of started) expect(pid).toBeGreaterThan(0);
}

// ── Identities of this machine ─────────────────────────────────────────────────────────────────────────────────────

/** Those of every machine, and what else holds here. */
const ALL_IDENTITIES: typeof IDENTITIES = {
  ...IDENTITIES,

  "B5 no two free buddies of one order": (moment) => {
    const free = new Map(blocksOf(moment, PG_BUDDY).map(([zone, pfn, order]) => [pfn, [zone, order] as const]));
    return [...free].map(([pfn, [zone, order]]) => {
      const buddy = order === 10 ? undefined : free.get(pfn ^ (1 << order));
      // Without isolated, CMA and high-atomic blocks in this machine every type merges with every other.
      return [`${pfn} ${order}`, buddy !== undefined && buddy[0] === zone && buddy[1] === order ? 1 : 0, 0];
    });
  },

  "every invariant walk is silent": ({ kernel }) => [[kernel.check() ?? "check", kernel.check() === null ? 0 : 1, 0]],
};

interface Tally {
  nrCompared: number;
  readonly wrong: string[];
}

/** One run; what each identity compared, and where it did not hold. */
async function observe(): Promise<Map<string, Tally>> {
  const kernel = await bootLoaded();
  const tallies = new Map(
    Object.keys(ALL_IDENTITIES).map((name): [string, Tally] => [name, { nrCompared: 0, wrong: [] }]),
  );
  for (let step = 0; step < NR_STEPS; step++) {
    // A machine at rest is no test: when all have ended, they start again.
    if (kernel.tasks().every((task) => task.isKernelThread)) startPrograms(kernel);
    // Steps of uneven length, so that the stops do not keep time with anything.
    kernel.run({ untilCycles: kernel.now() + 20_000 + ((step * 7919) % 30_011) });
    const moment = readMoment(kernel);
    for (const [name, equationsOf] of Object.entries(ALL_IDENTITIES)) {
      const tally = tallies.get(name) as Tally;
      const equations = equationsOf(moment);
      tally.nrCompared += equations.length;
      for (const equation of equations) {
        if (!holds(equation)) tally.wrong.push(`step ${step}: ${equation[0]}: ${equation[1]} is not ${equation[2]}`);
      }
    }
  }
  expect(kernel.nrReports()).toBe(0);
  return tallies;
}

describe("identities during a run", () => {
  let run: Promise<Map<string, Tally>> | undefined;
  for (const name of Object.keys(ALL_IDENTITIES)) {
    it(name, async (context) => {
      run ??= observe();
      const { nrCompared, wrong } = (await run).get(name) as Tally;
      countCases(context, nrCompared, wrong);
    });
  }
});

describe("the identities themselves", () => {
  it("notice a page that is counted twice", async () => {
    const kernel = await bootLoaded();
    kernel.run({ untilCycles: kernel.now() + 100_000 });
    const { zones } = kernel.memory;
    zones.setField(ZONE_DMA32, Z_NR_FREE, zones.field(ZONE_DMA32, Z_NR_FREE) + 1);
    const moment = readMoment(kernel);
    const broken = Object.keys(ALL_IDENTITIES).filter((name) => !ALL_IDENTITIES[name]?.(moment).every(holds));
    expect(broken).toContain("W9 Σ(buddyinfo << order) = pages free of zoneinfo");
    expect(broken).toContain("W9 per-CPU pages are not in NR_FREE_PAGES; every page is somewhere");
  });
});
