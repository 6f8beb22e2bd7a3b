/**
 * Identities: numbers of /proc, of the page columns and of the magazines that have to agree at any moment.
 *
 *   W9   Σ(buddyinfo << order) = pages free of zoneinfo; per-CPU pages are not in NR_FREE_PAGES
 *   B2   a free block of order o starts at a multiple of 2^o
 *   M13  allocations − frees = objects in use; available = rounds + full magazines
 *
 * A moment is one reading of the files; an identity makes equations of it. They hold whenever the kernel is between two
 * steps. `run` looks at them where a scenario says `check:`, the conformance suite at each of them by name.
 *
 * Source: how Linux makes the same files (mm/vmstat.c, fs/proc/meminfo.c, fs/proc/task_mmu.c).
 */

import type { Kernel } from "../kernel/entry/kernel.ts";
import { alignUp, asPfn } from "../kernel/types.ts";
import {
  CACHE_SLAB_ALLOCS,
  CACHE_SLAB_FREES,
  type KmemCache,
  orderOfFlags,
  PG_BUDDY,
  PG_PCP,
  slabBytes,
  zoneOfFlags,
} from "../mm/index.ts";

const PAGE_KIB = 4;

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

/** Reads the files of `kernel` as they are now. */
export function readMoment(kernel: Kernel): Moment {
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
export function blocksOf({ kernel }: Moment, state: number): [zone: number, pfn: number, order: number][] {
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
        ...smapsEquations(kernel, pid, kib),
      ];
    });
}

/**
 * Σ smaps Rss = VmRSS, Σ Size = VmSize, Σ Swap = VmSwap and what shared memory has in swap; the pages of a mapping are
 * shared or private.
 */
function smapsEquations(kernel: Kernel, pid: number, status: (name: string) => number): Equation[] {
  const text = kernel.readFile(`/proc/${pid}/smaps`) ?? "";
  const sumOf = (name: string): number =>
    sum([...text.matchAll(new RegExp(`^${name}:\\s+(\\d+) kB$`, "gm"))].map(([, kib]) => Number(kib)));
  const sharedInSwap = sum(kernel.mappings(pid).map(({ pages }) => pages.swapShared));
  const rollup = numbersIn(/^Rss:.*$/m.exec(kernel.readFile(`/proc/${pid}/smaps_rollup`) ?? "")?.[0] ?? "");
  return [
    [`${pid} Σ smaps Rss`, sumOf("Rss"), status("VmRSS")],
    [`${pid} Σ smaps Size`, sumOf("Size"), status("VmSize")],
    [`${pid} Σ smaps Swap`, sumOf("Swap"), status("VmSwap") + PAGE_KIB * sharedInSwap],
    [`${pid} smaps_rollup Rss`, rollup[0] ?? Number.NaN, status("VmRSS")],
    [
      `${pid} smaps parts`,
      sum(["Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty"].map(sumOf)),
      sumOf("Rss"),
    ],
  ];
}

function magazineEquations({ kernel }: Moment): Equation[] {
  const { slab } = kernel.memory;
  const { port } = kernel.machine;
  const caches: KmemCache[] = [];
  slab.forEachCache((cache) => caches.push(cache));
  return caches.flatMap((cache): Equation[] => {
    const stats = slab.layer.stats(cache);
    const { name, activeObjects, cached } = slab.slabInfo(cache);
    const perCpu = Array.from({ length: kernel.machine.harts.nrCpus }, (_, cpu) => slab.layer.cpuStats(cache, cpu));
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

/** What holds of every machine at every moment. */
export const IDENTITIES: Readonly<Record<string, (m: Moment) => Equation[]>> = {
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

  "Slab = SReclaimable + SUnreclaim = Σ slabs of slabinfo + large kmallocs": ({ kernel, slabs, meminfo, vmstat }) => [
    ["parts", meminfo.get("Slab"), (meminfo.get("SReclaimable") ?? 0) + (meminfo.get("SUnreclaim") ?? 0)],
    [
      "slabinfo",
      meminfo.get("Slab"),
      PAGE_KIB * (kernel.census().largeKmalloc + sum(slabs.map(({ slabs: nr, pages }) => nr * pages))),
    ],
    ["vmstat", meminfo.get("SUnreclaim"), PAGE_KIB * (vmstat.get("nr_slab_unreclaimable") ?? Number.NaN)],
  ],

  "statm, status and smaps of every process": processEquations,

  "M13 allocations − frees = objects in use; available = rounds + full magazines": magazineEquations,

  "B2 a free block of order o starts at a multiple of 2^o": (moment) =>
    [...blocksOf(moment, PG_BUDDY), ...blocksOf(moment, PG_PCP)].map(([, pfn, order]) => [
      `${pfn} ${order}`,
      pfn % 2 ** order,
      0,
    ]),

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
};

export const holds = ([, left, right]: Equation): boolean => left !== undefined && left === right;

/** The first identity that does not hold of `kernel` now, with its numbers; null if all do. */
export function brokenIdentity(kernel: Kernel): string | null {
  const moment = readMoment(kernel);
  for (const [name, equationsOf] of Object.entries(IDENTITIES)) {
    const wrong = equationsOf(moment).find((equation) => !holds(equation));
    if (wrong !== undefined) return `${name}: ${wrong[0]}: ${wrong[1]} is not ${wrong[2]}`;
  }
  return null;
}
