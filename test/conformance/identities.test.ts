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
import { alignUp, asPfn } from "../../kernel/types.ts";
import type { ProgramObserver } from "../../kernel/uapi/program.ts";
import { Z_NR_FREE, ZONE_DMA32 } from "../../mm/mmzone.ts";
import { orderOfFlags, PG_BUDDY, PG_PCP, zoneOfFlags } from "../../mm/page.ts";
import { CACHE_SLAB_ALLOCS, CACHE_SLAB_FREES, type KmemCache, slabBytes } from "../../mm/slab_descriptor.ts";
import { readRecording } from "../../scripts/readers/detect.ts";
import { readInput } from "../../scripts/readers/input.ts";
import { builtinPrograms, heapReplayProgram } from "../../userland/index.ts";
import { countCases } from "../support/cases.ts";

const NR_CPUS = 2;
const NR_STEPS = process.env.SLABTOWN_CONFORMANCE === "full" ? 400 : 40;
const PAGE_KIB = 4;

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

// ── Reading ────────────────────────────────────────────────────────────────────────────────────────────────────────

const numbersIn = (text: string): number[] => (text.match(/\d+/g) ?? []).map(Number);
const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0);
const inPages = (blocks: readonly number[]): number => sum(blocks.map((count, order) => count * 2 ** order));

/** The files at one moment, each read once. */
interface Moment {
  readonly kernel: Kernel;
  readonly zones: readonly { readonly name: string; readonly fields: ReadonlyMap<string, number> }[];
  readonly buddy: ReadonlyMap<string, readonly number[]>;
  /** Blocks by type and order, by zone. */
  readonly types: ReadonlyMap<string, readonly (readonly number[])[]>;
  readonly meminfo: ReadonlyMap<string, number>;
  readonly vmstat: ReadonlyMap<string, number>;
  readonly slabs: readonly SlabRow[];
}

interface SlabRow {
  readonly name: string;
  readonly active: number;
  readonly objects: number;
  readonly size: number;
  readonly perSlab: number;
  readonly pages: number;
  readonly slabs: number;
}

function readMoment(kernel: Kernel): Moment {
  const read = (path: string): string => kernel.readFile(path) ?? "";
  const table = (path: string, row: RegExp): Map<string, number> =>
    new Map([...read(path).matchAll(row)].map(([, name, value]) => [name as string, Number(value)]));
  const zones = read("/proc/zoneinfo")
    .split(/^Node 0, zone +/m)
    .slice(1)
    .map((text) => ({
      name: /^\S+/.exec(text)?.[0] as string,
      fields: new Map([...text.matchAll(/^ +(pages free|\w+) +(\d+)$/gm)].map(([, k, v]) => [k as string, Number(v)])),
    }));
  const buddy = [...read("/proc/buddyinfo").matchAll(/^Node 0, zone +(\S+) (.*)$/gm)].map(
    ([, name, row]) => [name as string, numbersIn(row as string)] as const,
  );
  const types = new Map<string, number[][]>();
  for (const [, name, row] of read("/proc/pagetypeinfo").matchAll(/^Node +0, zone +(\S+), type +\S+ (.*)$/gm)) {
    types.set(name as string, [...(types.get(name as string) ?? []), numbersIn(row as string)]);
  }
  const slabs = [...read("/proc/slabinfo").matchAll(/^(\S+) +(\d+ .*)$/gm)].map(([, name, row]): SlabRow => {
    const [active, objects, size, perSlab, pages, , , , , nrSlabs] = numbersIn(row as string) as number[];
    const numbers = { active, objects, size, perSlab, pages, slabs: nrSlabs } as Omit<SlabRow, "name">;
    return { name: name as string, ...numbers };
  });
  return {
    kernel,
    zones,
    buddy: new Map(buddy),
    types,
    meminfo: table("/proc/meminfo", /^(\S+): +(\d+) kB$/gm),
    vmstat: table("/proc/vmstat", /^(\S+) (\d+)$/gm),
    slabs,
  };
}

// ── The identities ─────────────────────────────────────────────────────────────────────────────────────────────────

/** [what, one side, the other side]. */
type Equation = readonly [what: string, left: number | undefined, right: number | undefined];

/** Free blocks by the page columns: [zone, pfn, order] of each block with this state bit. */
function blocksOf({ kernel }: Moment, state: number): [zone: number, pfn: number, order: number][] {
  const { pages } = kernel.memory;
  const blocks: [number, number, number][] = [];
  for (let pfn = 1; pfn < pages.nrFrames; pfn++) {
    const flags = pages.flags(asPfn(pfn));
    if ((flags & state) !== 0) blocks.push([zoneOfFlags(flags), pfn, orderOfFlags(flags)]);
  }
  return blocks;
}

function processEquations({ kernel }: Moment): Equation[] {
  return kernel
    .tasks()
    .filter((task) => !task.isKernelThread && task.pid === task.tgid)
    .flatMap(({ pid }): Equation[] => {
      const status = kernel.readFile(`/proc/${pid}/status`) ?? "";
      // Between its exit and its parent's wait a process has no memory, and no such lines.
      if (!status.includes("VmSize")) return [];
      const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1]);
      const [size, resident, shared] = numbersIn(kernel.readFile(`/proc/${pid}/statm`) ?? "") as number[];
      return [
        [`${pid} VmSize`, kib("VmSize"), PAGE_KIB * (size as number)],
        [`${pid} VmRSS`, kib("VmRSS"), PAGE_KIB * (resident as number)],
        [`${pid} shared`, kib("RssFile") + kib("RssShmem"), PAGE_KIB * (shared as number)],
        [`${pid} parts`, kib("RssAnon") + kib("RssFile") + kib("RssShmem"), kib("VmRSS")],
      ];
    });
}

function magazineEquations({ kernel }: Moment): Equation[] {
  const { slab } = kernel.memory;
  const { port } = kernel.machine;
  const caches: KmemCache[] = [];
  slab.forEachCache((cache) => caches.push(cache));
  return caches.flatMap((cache): Equation[] => {
    const stats = slab.layer.stats(cache);
    const { name, activeObjects, cached } = slab.slabInfo(cache);
    const perCpu = Array.from({ length: NR_CPUS }, (_, cpu) => slab.layer.cpuStats(cache, cpu));
    const allocs = sum(perCpu.map((cpu) => cpu.allocHits)) + port.ldF64(cache + CACHE_SLAB_ALLOCS);
    const frees = sum(perCpu.map((cpu) => cpu.freeHits)) + port.ldF64(cache + CACHE_SLAB_FREES);
    const rounds = sum(perCpu.map((cpu) => cpu.cached));
    return [
      [`${name} alloc − free`, allocs - frees, activeObjects],
      [`${name} available`, cached, rounds + stats.nrFull * stats.magazineSize],
    ];
  });
}

/** Slabs of the caches of slab descriptors hold their own descriptor, in whole cache lines, in front of the objects. */
const selfBytes = ({ name, perSlab }: SlabRow): number =>
  /^slab-\d+$/.test(name) ? alignUp(slabBytes(perSlab), 64) : 0;

const IDENTITIES: Readonly<Record<string, (m: Moment) => Equation[]>> = {
  "W9 Σ(buddyinfo << order) = pages free of zoneinfo": ({ zones, buddy }) =>
    zones.map(({ name, fields }) => [name, inPages(buddy.get(name) ?? []), fields.get("pages free")]),

  "Σ types of pagetypeinfo = buddyinfo": ({ buddy, types }) =>
    [...buddy].flatMap(([name, blocks]) =>
      blocks.map((count, order): Equation => {
        const rows = types.get(name) ?? [];
        return [`${name} ${order}`, sum(rows.map((row) => row[order] ?? Number.NaN)), count];
      }),
    ),

  "spanned ≥ present ≥ managed ≥ free": ({ zones }) =>
    zones.flatMap(({ name, fields }) => {
      const sizes = ["spanned", "present", "managed", "pages free"].map((field) => fields.get(field) ?? Number.NaN);
      return sizes.slice(1).map((size, i): Equation => [name, Math.max(size, sizes[i] as number), sizes[i]]);
    }),

  "MemTotal = 4 Σ managed, MemFree = 4 Σ free, nr_free_pages": ({ zones, meminfo, vmstat }) => {
    const total = (field: string): number => sum(zones.map(({ fields }) => fields.get(field) ?? Number.NaN));
    return [
      ["MemTotal", meminfo.get("MemTotal"), PAGE_KIB * total("managed")],
      ["MemFree", meminfo.get("MemFree"), PAGE_KIB * total("pages free")],
      ["nr_free_pages", vmstat.get("nr_free_pages"), total("pages free")],
    ];
  },

  "num_objs = num_slabs × objperslab, which is what fits": ({ slabs }) =>
    slabs.flatMap((row): Equation[] => {
      const { name, active, objects, size, perSlab, pages, slabs: nr } = row;
      return [
        [`${name} num_objs`, objects, nr * perSlab],
        [`${name} objperslab`, perSlab, Math.floor((pages * 4096 - selfBytes(row)) / size)],
        [`${name} active`, Math.max(active, objects), objects],
      ];
    }),

  "Slab = SReclaimable + SUnreclaim = Σ slabs of slabinfo": ({ slabs, meminfo, vmstat }) => [
    ["parts", meminfo.get("Slab"), (meminfo.get("SReclaimable") ?? 0) + (meminfo.get("SUnreclaim") ?? 0)],
    ["slabinfo", meminfo.get("Slab"), PAGE_KIB * sum(slabs.map(({ slabs: nr, pages }) => nr * pages))],
    ["vmstat", meminfo.get("SUnreclaim"), PAGE_KIB * (vmstat.get("nr_slab_unreclaimable") ?? Number.NaN)],
  ],

  "statm and status of every process": processEquations,

  "M13 allocations − frees = objects in use; available = rounds + full magazines": magazineEquations,

  "B2 a free block of order o starts at a multiple of 2^o": (moment) =>
    [...blocksOf(moment, PG_BUDDY), ...blocksOf(moment, PG_PCP)].map(([, pfn, order]) => [
      `${pfn} ${order}`,
      pfn % 2 ** order,
      0,
    ]),

  "B5 no two free buddies of one order": (moment) => {
    const free = new Map(blocksOf(moment, PG_BUDDY).map(([zone, pfn, order]) => [pfn, [zone, order] as const]));
    return [...free].map(([pfn, [zone, order]]) => {
      const buddy = order === 10 ? undefined : free.get(pfn ^ (1 << order));
      // Without isolated, CMA and high-atomic blocks in this machine every type merges with every other.
      return [`${pfn} ${order}`, buddy !== undefined && buddy[0] === zone && buddy[1] === order ? 1 : 0, 0];
    });
  },

  "W9 per-CPU pages are not in NR_FREE_PAGES; every page is somewhere": (moment) => {
    const { kernel, vmstat } = moment;
    const pagesIn = (state: number): number => sum(blocksOf(moment, state).map(([, , order]) => 2 ** order));
    const { total, ...parts } = kernel.census();
    return [
      ["buddy", pagesIn(PG_BUDDY), vmstat.get("nr_free_pages")],
      ["per-CPU", pagesIn(PG_PCP), parts.freePcp],
      ["census", sum(Object.values(parts)), total],
    ];
  },

  "every invariant walk is silent": ({ kernel }) => [[kernel.check() ?? "check", kernel.check() === null ? 0 : 1, 0]],
};

const holds = ([, left, right]: Equation): boolean => left !== undefined && left === right;

interface Tally {
  nrCompared: number;
  readonly wrong: string[];
}

/** One run; what each identity compared, and where it did not hold. */
async function observe(): Promise<Map<string, Tally>> {
  const kernel = await bootLoaded();
  const tallies = new Map(Object.keys(IDENTITIES).map((name): [string, Tally] => [name, { nrCompared: 0, wrong: [] }]));
  for (let step = 0; step < NR_STEPS; step++) {
    // A machine at rest is no test: when all have ended, they start again.
    if (kernel.tasks().every((task) => task.isKernelThread)) startPrograms(kernel);
    // Steps of uneven length, so that the stops do not keep time with anything.
    kernel.run({ untilCycles: kernel.now() + 20_000 + ((step * 7919) % 30_011) });
    const moment = readMoment(kernel);
    for (const [name, equationsOf] of Object.entries(IDENTITIES)) {
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
  for (const name of Object.keys(IDENTITIES)) {
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
    const broken = Object.keys(IDENTITIES).filter((name) => !IDENTITIES[name]?.(moment).every(holds));
    expect(broken).toContain("W9 Σ(buddyinfo << order) = pages free of zoneinfo");
    expect(broken).toContain("W9 per-CPU pages are not in NR_FREE_PAGES; every page is somewhere");
  });
});
