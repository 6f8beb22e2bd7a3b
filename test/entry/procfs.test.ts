/**
 * Goal: /proc prints what Linux prints, and its numbers agree with each other.
 * Method: zones over a checking port get the sizes and free lists of a recorded Linux 6.12 machine (128 MiB, 2 CPUs);
 * what is determined by them must come out byte for byte: marks, reserves, per-CPU lists, free blocks,
 * MemAvailable. Elsewhere digits are masked and names, order and widths compared. The identities between files need no
 * recording.
 */
import { describe, expect, it } from "vitest";
import { createHarts } from "../../kernel/arch/harts.ts";
import { BoundsPort, createRam } from "../../kernel/arch/port.ts";
import type { SlabInfoRow, TaskInfo } from "../../kernel/entry/kernel.ts";
import type { ProcSources } from "../../kernel/entry/proc_sources.ts";
import { createProcfs, PROCFS_FILES } from "../../kernel/entry/procfs/index.ts";
import { initialRlimits } from "../../kernel/entry/rlimit.ts";
import type { LogRecord, Printk } from "../../kernel/printk.ts";
import { asPhys, NULL } from "../../kernel/types.ts";
import { dirtyThresholds } from "../../mm/dirty_limits.ts";
import { extfragIndex, unusableIndex } from "../../mm/extfrag.ts";
import { MIGRATE_CMA, NR_MIGRATETYPES } from "../../mm/migratetype.ts";
import { VMA_ANON, VMA_HEAP, VMA_STACK } from "../../mm/mm_struct.ts";
import {
  createZones,
  freeCountAddr,
  NR_PAGE_ORDERS,
  Z_MANAGED,
  Z_NR_FREE,
  Z_PRESENT,
  Z_SPANNED,
  Z_START_PFN,
  ZONE_DMA,
  ZONE_DMA32,
  ZONE_NAMES,
} from "../../mm/mmzone.ts";
import { noPages, PSS_PER_PAGE, type VmaReport } from "../../mm/smaps.ts";
import { createVmAccount } from "../../mm/vm_account.ts";
import {
  NR_ANON_MAPPED,
  NR_FILE_PAGES,
  NR_KERNEL_STACK_KB,
  NR_PAGETABLE,
  NR_SLAB_RECLAIMABLE,
  NR_SLAB_UNRECLAIMABLE,
  NUMA_HIT,
  PGALLOC_DMA32,
  PGFAULT,
} from "../../mm/vmstat.ts";
import { recorded } from "../support/recorded.ts";

const sample = (name: string): string => recorded(`linux-6.12-128M/${name}`);

const ZONES_AT = 4096;
const STATE_AT = 8192;
const ACCOUNT_AT = 8704;
/** Follows from min_free_kbytes = 1137 (W1): 20200 to 20235 pages were managed when the marks were set. */
const BOOT_MANAGED_DMA32 = 20_220 - 3840;
const NR_CPUS = 2;

// ── A machine with numbers ─────────────────────────────────────────────────────────────────────────────────────────

interface ZoneFill {
  readonly startPfn: number;
  readonly spanned: number;
  readonly present: number;
  readonly managed: number;
  readonly free: number;
  /** Free blocks [type][order]. */
  readonly blocks: readonly (readonly number[])[];
}

const DMA_FILL: ZoneFill = { startPfn: 1, spanned: 4095, present: 3998, managed: 3840, free: 0, blocks: [] };
const DMA32_FILL: ZoneFill = { startPfn: 4096, spanned: 28640, present: 28640, managed: 18477, free: 0, blocks: [] };

interface Fake {
  readonly zones: readonly (readonly [zone: number, fill: ZoneFill])[];
  readonly items: Map<number, number>;
  readonly events: Map<number, number>;
  readonly pcp: (cpu: number, zone: number) => { count: number; high: number; batch: number };
  readonly caches: readonly SlabInfoRow[];
  readonly pageblocks: readonly (readonly number[])[];
  readonly tasks: readonly TaskInfo[];
  readonly vmas: readonly VmaReport[];
}

const EMPTY: Fake = {
  zones: [
    [ZONE_DMA, DMA_FILL],
    [ZONE_DMA32, DMA32_FILL],
  ],
  items: new Map(),
  events: new Map(),
  pcp: () => ({ count: 0, high: 0, batch: 1 }),
  caches: [],
  pageblocks: [],
  tasks: [],
  vmas: [],
};

function fakePrintk(records: readonly LogRecord[]): Printk {
  const members: Pick<Printk, "records" | "nextSeq" | "setConsole" | "silence" | "check"> = {
    records: () => [...records],
    nextSeq: () => records.length,
    setConsole: () => undefined,
    silence: () => undefined,
    check: () => null,
  };
  return Object.assign(() => undefined, members);
}

function fakeSources(changes: Partial<Fake>): ProcSources {
  const fake = { ...EMPTY, ...changes };
  const ram = createRam(128 * 1024 * 1024);
  const port = new BoundsPort(ram, new Uint8Array(ram.byteLength / 4096).fill(1));
  const zones = createZones(port, asPhys(ZONES_AT), asPhys(STATE_AT));
  for (const [zone, fill] of fake.zones) {
    zones.setField(zone, Z_START_PFN, fill.startPfn);
    zones.setField(zone, Z_SPANNED, fill.spanned);
    zones.setField(zone, Z_PRESENT, fill.present);
    zones.setField(zone, Z_MANAGED, fill.managed);
    zones.setField(zone, Z_NR_FREE, fill.free);
    fill.blocks.forEach((counts, type) => {
      counts.forEach((count, order) => {
        port.st32(freeCountAddr(zones.addr(zone), order, type), count);
      });
    });
  }
  // The recorded marks are from before the kernel gave its boot-time memory to DMA32.
  zones.setField(ZONE_DMA32, Z_MANAGED, BOOT_MANAGED_DMA32);
  zones.setupMarks(NR_CPUS);
  for (const [zone, fill] of fake.zones) zones.setField(zone, Z_MANAGED, fill.managed);
  const harts = createHarts(NR_CPUS);
  harts.online.fill(1);
  const unused = (): never => {
    throw new Error("a formatter must not change anything");
  };
  const vmstat: ProcSources["vmstat"] = {
    countEvents: unused,
    countServed: unused,
    onRead: unused,
    modItem: unused,
    event: (event) => fake.events.get(event) ?? 0,
    item: (item) => fake.items.get(item) ?? 0,
  };
  const account = createVmAccount({ port, zones, vmstat, state: asPhys(ACCOUNT_AT), swapPages: () => 0 });
  harts.clock.set([61_239_000_000, 61_000_000_000]);
  return {
    port,
    harts,
    zones,
    vmstat,
    pcp: { alloc: unused, free: unused, drainCpu: unused, check: () => null, info: fake.pcp, lockAddr: unused },
    printk: fakePrintk([{ seq: 0, level: 6, time: 1_500_000, text: "hello" }]),
    modules: () => "",
    cmdline: "quiet",
    percpuBytes: 552 * 1024,
    pageblockCounts: (zone) => fake.pageblocks[zone] ?? [],
    slabCaches: () => fake.caches,
    tasks: () => fake.tasks,
    task: (pid) => fake.tasks.find((task) => task.pid === pid),
    nrThreads: (tgid) => fake.tasks.filter((task) => task.tgid === tgid).length,
    vmas: (pid) => (pid === 7 ? fake.vmas : []),
    signals: () => null,
    process: () => ({
      rlimits: initialRlimits(128 * 1024 * 1024, 64),
      oomScoreAdj: 0,
      personality: 0,
      isInit: false,
      ending: undefined,
    }),
    fileName: () => "",
    setOomScoreAdj: unused,
    interrupts: () => [
      { line: 4, name: "ttyS0", counts: [0, 15] },
      { line: 9, name: "nic0", counts: [7, 1] },
    ],
    cpuInterrupts: () => [
      { label: "NMI", text: "Non-maskable interrupts", counts: [0, 0] },
      { label: "LOC", text: "Local timer interrupts", counts: [11_760, 14_042] },
    ],
    interruptErrors: () => 0,
    switches: () => 0,
    dirtyThresholds: () => dirtyThresholds(zones.totalFree() - zones.totalReserve() + 1, 20, 10),
    swapTotals: () => ({ total: 0, free: 0 }),
    commitLimit: account.commitLimit,
    softirqs: () => Array.from({ length: 10 }, (_, nr) => [nr, 10 * nr]),
  };
}

const readProc = (changes: Partial<Fake>, file: string): string => {
  const text = createProcfs(fakeSources(changes)).read(file.startsWith("/") ? file : `/proc/${file}`);
  expect(text, file).not.toBeNull();
  return text as string;
};

// ── Reading the recordings, and our own files ──────────────────────────────────────────────────────────────────────

const linesOf = (text: string): string[] => text.split("\n");
const numbersOf = (text: string): number[] => (text.match(/\d+/g) ?? []).map(Number);

/** `Node 0, zone NAME` → numbers behind it. */
function buddyRows(text: string): Map<string, number[]> {
  const rows = linesOf(text).flatMap((line) => {
    const match = /^Node 0, zone +(\S+) (.*)$/.exec(line);
    return match === null ? [] : [[match[1] as string, numbersOf(match[2] as string)] as const];
  });
  return new Map(rows);
}

/** Free blocks [type][order] of a zone in pagetypeinfo. */
const typeRows = (text: string, zone: string): number[][] =>
  linesOf(text).flatMap((line) => {
    const match = /^Node +0, zone +(\S+), type +\S+ (.*)$/.exec(line);
    return match?.[1] === zone ? [numbersOf(match[2] as string)] : [];
  });

/** The lines of one zone in zoneinfo. */
function zoneLines(text: string, zone: string): string[] {
  const lines = linesOf(text);
  const start = lines.findIndex((line) => new RegExp(`^Node 0, zone +${zone}$`).test(line));
  const length = lines.slice(start + 1).findIndex((line) => line.startsWith("Node 0,"));
  return length < 0 ? lines.slice(start) : lines.slice(start, start + 1 + length);
}

function zoneField(text: string, zone: string, name: string): number {
  const line = zoneLines(text, zone).find((candidate) => candidate.trim().startsWith(`${name} `)) as string;
  return numbersOf(line.slice(line.indexOf(name)))[0] as number;
}

const pagesOf = (blocks: readonly number[]): number =>
  blocks.reduce((sum, count, order) => sum + count * 2 ** order, 0);

function meminfoOf(text: string): Map<string, number> {
  const rows = linesOf(text).flatMap((line) => {
    const match = /^(\S+): +(\d+)/.exec(line);
    return match === null ? [] : [[match[1] as string, Number(match[2])] as const];
  });
  return new Map(rows);
}

/** Numbers, with the spaces that align them, become as many `#`. */
const masked = (line: string): string => line.replace(/ *\d+(?= kB$|$)/, (digits) => "#".repeat(digits.length));

// ── The recorded machine ───────────────────────────────────────────────────────────────────────────────────────────

const RECORDED_ITEMS = new Map([
  [NR_ANON_MAPPED, 25],
  [NR_SLAB_RECLAIMABLE, 158],
  [NR_SLAB_UNRECLAIMABLE, 1828],
  [NR_KERNEL_STACK_KB, 960],
  [NR_PAGETABLE, 84],
  [NR_FILE_PAGES, 485],
]);

/** Zones as zoneinfo recorded them, with these free lists. */
function recordedZones(blocksOf: (zone: string) => readonly (readonly number[])[]): Fake["zones"] {
  const text = sample("zoneinfo");
  return [ZONE_DMA, ZONE_DMA32].map((zone) => {
    const name = ZONE_NAMES[zone] as string;
    const startLine = zoneLines(text, name).find((line) => line.includes("start_pfn")) as string;
    const fill: ZoneFill = {
      startPfn: numbersOf(startLine)[0] as number,
      spanned: zoneField(text, name, "spanned"),
      present: zoneField(text, name, "present"),
      managed: zoneField(text, name, "managed"),
      free: zoneField(text, name, "pages free"),
      blocks: blocksOf(name),
    };
    return [zone, fill] as const;
  });
}

describe("like Linux 6.12, 128 MiB", () => {
  it("buddyinfo and both fragmentation indices equal the recording", () => {
    const rows = buddyRows(sample("buddyinfo"));
    // The file does not tell types apart: half of the blocks go to another list.
    const split = (counts: readonly number[]): number[][] => [
      counts.map((count) => Math.floor(count / 2)),
      counts.map((count) => Math.ceil(count / 2)),
    ];
    const zones = recordedZones((name) => split(rows.get(name) as number[]));
    expect(readProc({ zones }, "buddyinfo")).toBe(sample("buddyinfo"));
    expect(readProc({ zones }, "/sys/kernel/debug/extfrag/extfrag_index")).toBe(sample("extfrag_index"));
    // The files were read one after another: by then a block of order 5 and one of order 6 had been taken.
    const earlier = rows.get("DMA32") as number[];
    rows.set(
      "DMA32",
      earlier.map((count, order) => (order === 5 || order === 6 ? count - 1 : count)),
    );
    const later = recordedZones((name) => split(rows.get(name) as number[]));
    expect(readProc({ zones: later }, "/sys/kernel/debug/extfrag/extfrag_index")).toBe(sample("extfrag_index"));
    expect(readProc({ zones: later }, "/sys/kernel/debug/extfrag/unusable_index")).toBe(sample("unusable_index"));
  });

  it("pagetypeinfo equals the recording", () => {
    const text = sample("pagetypeinfo");
    const zones = recordedZones((name) => typeRows(text, name));
    const pageblocks = Array.from(buddyRows(text.slice(text.indexOf("Number of blocks"))).values());
    expect(pageblocks).toEqual([
      [1, 7, 0, 0, 0],
      [8, 46, 2, 0, 0],
    ]);
    expect(readProc({ zones, pageblocks }, "pagetypeinfo")).toBe(text);
  });

  it("zoneinfo equals the recording in every line that the zones determine", () => {
    const theirs = linesOf(sample("zoneinfo"));
    const sets = Array.from(sample("zoneinfo").matchAll(/count: (\d+)\n +high: +(\d+)\n +batch: (\d+)/g));
    const pcp: Fake["pcp"] = (cpu, zone) => {
      const [, count, high, batch] = (sets[zone * NR_CPUS + cpu] as RegExpMatchArray).map(Number);
      return { count: count as number, high: high as number, batch: batch as number };
    };
    const ours = linesOf(readProc({ zones: recordedZones(() => []), items: RECORDED_ITEMS, pcp }, "zoneinfo"));
    // Linux ages anonymous pages, maps files, counts allocations per zone and keeps its root in shmem.
    const OWN = /^ +(nr_(active_anon|zone_active_anon|unevictable|mapped|shmem)|numa_(hit|interleave|local)) /;
    const shown = (line: string): string => (OWN.test(line) ? line.replace(/\d+$/, "#") : line);
    expect(ours.map(shown)).toEqual(theirs.map(shown));
    expect(ours).toContain("        protection: (0, 63, 63, 63, 63)");
    expect(theirs.filter((line) => OWN.test(line)).length).toBe(12);
  });

  it("min_free_kbytes equals the recording", () => {
    expect(readProc({}, "/proc/sys/vm/min_free_kbytes")).toBe(sample("min_free_kbytes"));
  });

  it("meminfo has the names and widths of the recording, and its derived numbers", () => {
    const theirs = sample("meminfo");
    // MemFree of that moment, split somehow over the zones.
    const zones = recordedZones(() => []).map(
      ([zone, fill]) => [zone, { ...fill, free: zone === ZONE_DMA ? 3808 : 70_880 / 4 - 3808 }] as const,
    );
    const ours = readProc({ zones, items: RECORDED_ITEMS }, "meminfo");
    // A 39-bit address space has a smaller vmalloc area: the number there overflows its column in Linux.
    const shape = (text: string): string[] =>
      linesOf(text).map((line) => masked(line.replace("34359738367", "67108864")));
    expect(shape(ours)).toEqual(shape(theirs));
    const [our, their] = [meminfoOf(ours), meminfoOf(theirs)];
    const DERIVED = [
      "MemTotal",
      "MemFree",
      "MemAvailable",
      "Cached",
      "AnonPages",
      "KReclaimable",
      "Slab",
      "SReclaimable",
    ];
    for (const name of [...DERIVED, "SUnreclaim", "KernelStack", "PageTables", "CommitLimit", "Percpu"]) {
      expect([name, our.get(name)]).toEqual([name, their.get(name)]);
    }
  });

  it("vmstat has the names and order of the recording, and the dirty thresholds", () => {
    const theirs = linesOf(sample("vmstat"));
    const zones = recordedZones(() => []).map(
      ([zone, fill]) => [zone, { ...fill, free: zone === ZONE_DMA ? 3808 : 17_720 - 3808 }] as const,
    );
    const events = new Map([
      [NUMA_HIT, 4299],
      [PGALLOC_DMA32, 7431],
      [PGFAULT, 772],
    ]);
    const ours = linesOf(readProc({ zones, items: RECORDED_ITEMS, events }, "vmstat"));
    const names = (lines: readonly string[]): string[] => lines.map((line) => line.replace(/ \d+$/, " #"));
    // The recorded kernel was built without CONFIG_DEBUG_TLBFLUSH.
    expect(names(ours).filter((line) => !line.startsWith("nr_tlb_"))).toEqual(names(theirs));
    const EXACT = /^(nr_(free_pages|slab_|dirty_|file_pages|kernel_stack)|numa_(hit|local)|pgalloc_dma32|pgfault) ?/;
    const exact = theirs.filter((line) => EXACT.test(line));
    expect(exact.length).toBe(11);
    expect(ours.filter((line) => EXACT.test(line))).toEqual(exact);
  });

  it("slabinfo equals the recording, row by row", () => {
    const caches = linesOf(sample("slabinfo")).flatMap((line): SlabInfoRow[] => {
      const match = /^(\S+) +(\d.*)$/.exec(line);
      if (match === null || line.startsWith("slabinfo")) return [];
      const [activeObjs, numObjs, objSize, objPerSlab, pagesPerSlab, , , , activeSlabs, numSlabs] = numbersOf(
        match[2] as string,
      ) as [number, number, number, number, number, number, number, number, number, number];
      const name = match[1] as string;
      return [{ name, activeObjs, numObjs, objSize, objPerSlab, pagesPerSlab, activeSlabs, numSlabs }];
    });
    expect(caches.length).toBe(248);
    expect(readProc({ caches }, "slabinfo")).toBe(sample("slabinfo"));
  });

  it("softirqs and the softirq line of stat count per vector and CPU", () => {
    const text = readProc({}, "softirqs");
    expect(text.split("\n")[0]).toBe(`${" ".repeat(20)}CPU0       CPU1       `);
    expect(text).toContain("\n       TIMER:          1         10\n");
    expect(text).toContain("\n         RCU:          9         90\n");
    expect(readProc({}, "stat")).toContain("\nsoftirq 495 0 11 22 33 44 55 66 77 88 99\n");
  });

  it("pid/status, stat, interrupts, softirqs and swaps have the layout of Linux 6.18", () => {
    const other = (name: string): string => recorded(`linux-6.18/${name}`);
    const firstLine = (text: string): string => linesOf(text)[0] as string;
    const labels = (text: string): string[] => linesOf(text).map((line) => line.slice(0, line.indexOf(":") + 1));
    const procfs = createProcfs(fakeSources({ tasks: [SHELL], vmas: SHELL_VMAS }));
    const read = (path: string): string => procfs.read(path) as string;
    // Only an x86 machine has these.
    const x86 = ["untag_mask:", "Speculation_Store_Bypass:", "SpeculationIndirectBranch:"];
    expect(labels(read("/proc/7/status"))).toEqual(labels(other("pid/status")).filter((label) => !x86.includes(label)));
    // One mapping: names, order, widths; the line of the mapping itself has other columns behind the name of a file.
    const masked = (text: string): string[] =>
      linesOf(text)
        .slice(1)
        .map((line) => line.replace(/\d+ kB$/, "#"));
    const oneMapping = (text: string): string => text.slice(0, text.indexOf("VmFlags"));
    expect(masked(oneMapping(read("/proc/7/smaps"))).map((line) => line.replace(/ +#/, " #"))).toEqual(
      masked(oneMapping(other("pid/smaps"))).map((line) => line.replace(/ +#/, " #")),
    );
    expect(linesOf(read("/proc/7/smaps_rollup")).map((line) => line.replace(/\d/g, "#").length)).toEqual(
      linesOf(other("pid/smaps_rollup")).map((line, i) =>
        i === 0 ? read("/proc/7/smaps_rollup").indexOf("\n") : line.length,
      ),
    );
    expect(labels(read("/proc/7/smaps_rollup")).slice(1)).toEqual(labels(other("pid/smaps_rollup")).slice(1));
    expect(read("/proc/7/limits")).toContain(
      "Max stack size            8388608              unlimited            bytes     \n",
    );
    expect(read("/proc/7/stat").split(" ").length).toBe(other("pid/stat").split(" ").length);
    expect(read("/proc/swaps")).toBe(other("swaps"));
    expect(firstLine(read("/proc/interrupts"))).toBe(firstLine(other("interrupts")));
    for (const line of ["NMI:", "LOC:", "ERR:"]) {
      const find = (text: string): string | undefined => linesOf(text).find((row) => row.startsWith(line));
      expect(find(read("/proc/interrupts"))).toBe(find(other("interrupts")));
    }
    expect(linesOf(read("/proc/interrupts"))[1]?.indexOf("ttyS0")).toBe(
      linesOf(other("interrupts"))[3]?.indexOf("ttyS0"),
    );
    const columns = (text: string): string[] => linesOf(text).map((line) => `${line.slice(0, 13)} ${line.length}`);
    expect(columns(read("/proc/softirqs"))).toEqual(columns(other("softirqs")));
    const statNames = (text: string): string[] => linesOf(text).map((line) => line.split(" ")[0] as string);
    expect(statNames(read("/proc/stat"))).toEqual(statNames(other("stat")));
  });
});

// ── Identities ─────────────────────────────────────────────────────────────────────────────────────────────────────

const KTHREAD: TaskInfo = {
  pid: 2,
  tgid: 2,
  ppid: 0,
  comm: "kswapd0",
  state: "S",
  cpu: 1,
  runCycles: 40_000_000,
  rssPages: 0,
  vmPages: 0,
  tablePages: 0,
  minorFaults: 0,
  isKernelThread: true,
  isVforked: false,
  vm: {
    rssFilePages: 0,
    rssShmemPages: 0,
    swapPages: 0,
    peakRssPages: 0,
    peakVmPages: 0,
    dataPages: 0,
    stackPages: 0,
    lockedPages: 0,
    majorFaults: 0,
    cowFaults: 0,
  },
};

const SHELL: TaskInfo = {
  pid: 7,
  tgid: 7,
  ppid: 1,
  comm: "sh",
  state: "R",
  cpu: 0,
  runCycles: 1_230_000_000,
  rssPages: 11,
  vmPages: 41,
  tablePages: 3,
  minorFaults: 11,
  isKernelThread: false,
  isVforked: false,
  vm: {
    rssFilePages: 0,
    rssShmemPages: 0,
    swapPages: 0,
    peakRssPages: 12,
    peakVmPages: 45,
    dataPages: 32,
    stackPages: 8,
    lockedPages: 0,
    majorFaults: 0,
    cowFaults: 0,
  },
};

const vma = (start: number, end: number, prot: number, kind: number, rss: number): VmaReport => {
  const pages = { ...noPages(), rss, pss: rss * PSS_PER_PAGE, privateDirty: rss, anonymous: rss };
  return { start: start / 4096, end: end / 4096, prot, kind, flags: 0, pgoff: 0, mapping: NULL, isShmem: false, pages };
};
const SHELL_VMAS = [
  vma(0x10000, 0x11000, 5, VMA_ANON, 0),
  vma(0x1000_0000, 0x1002_0000, 3, VMA_HEAP, 9),
  vma(0x7_ffff_7000, 0x7_ffff_f000, 3, VMA_STACK, 2),
];

describe("identities between files", () => {
  const blocks = (seed: number): number[][] =>
    Array.from({ length: NR_MIGRATETYPES }, (_, type) =>
      Array.from({ length: NR_PAGE_ORDERS }, (_, order) => (type === MIGRATE_CMA ? 0 : (seed + 3 * type + order) % 4)),
    );
  const freeOf = (types: readonly (readonly number[])[]): number => types.reduce((sum, row) => sum + pagesOf(row), 0);
  const fill = (base: ZoneFill, seed: number): ZoneFill => ({
    ...base,
    blocks: blocks(seed),
    free: freeOf(blocks(seed)),
  });
  const fake: Partial<Fake> = {
    zones: [
      [ZONE_DMA, fill(DMA_FILL, 1)],
      [ZONE_DMA32, fill(DMA32_FILL, 2)],
    ],
    items: RECORDED_ITEMS,
    tasks: [KTHREAD, SHELL],
    vmas: SHELL_VMAS,
    caches: [
      {
        name: "kmalloc-64",
        activeObjs: 100,
        numObjs: 128,
        objSize: 64,
        objPerSlab: 64,
        pagesPerSlab: 1,
        activeSlabs: 2,
        numSlabs: 2,
      },
      {
        name: "task_struct",
        activeObjs: 0,
        numObjs: 0,
        objSize: 136,
        objPerSlab: 60,
        pagesPerSlab: 2,
        activeSlabs: 0,
        numSlabs: 0,
      },
    ],
  };
  const procfs = createProcfs(fakeSources(fake));
  const read = (path: string): string => procfs.read(path) as string;

  it("W9 Σ(buddyinfo << order) is zoneinfo's pages free; the types of pagetypeinfo add up to buddyinfo", () => {
    const buddy = buddyRows(read("/proc/buddyinfo"));
    expect(Array.from(buddy.keys())).toEqual(["DMA", "DMA32"]);
    for (const [zone, counts] of buddy) {
      expect(pagesOf(counts)).toBe(zoneField(read("/proc/zoneinfo"), zone, "pages free"));
      const types = typeRows(read("/proc/pagetypeinfo"), zone);
      expect(types.length).toBe(5);
      expect(counts).toEqual(counts.map((_, order) => types.reduce((sum, row) => sum + (row[order] as number), 0)));
    }
  });

  it("meminfo: MemTotal = 4 Σ managed, MemFree = 4 Σ free, Slab is the sum of its parts", () => {
    const meminfo = meminfoOf(read("/proc/meminfo"));
    const sum = (name: string): number =>
      [...ZONE_NAMES, "Device"].reduce((total, zone) => total + zoneField(read("/proc/zoneinfo"), zone, name), 0);
    expect(meminfo.get("MemTotal")).toBe(4 * sum("managed"));
    expect(meminfo.get("MemFree")).toBe(4 * sum("pages free"));
    expect(meminfo.get("Slab")).toBe((meminfo.get("SReclaimable") as number) + (meminfo.get("SUnreclaim") as number));
  });

  it("statm and status agree", () => {
    const [size, resident, shared, text, , data] = numbersOf(read("/proc/7/statm"));
    const kib = (name: string): number =>
      Number(new RegExp(`^${name}:\\t +(\\d+) kB$`, "m").exec(read("/proc/7/status"))?.[1]);
    expect([size, resident]).toEqual([41, 11]);
    expect(kib("VmSize")).toBe(4 * (size as number));
    expect(kib("VmRSS")).toBe(4 * (resident as number));
    expect(kib("RssAnon") + kib("RssFile") + kib("RssShmem")).toBe(kib("VmRSS"));
    expect(kib("RssFile") + kib("RssShmem")).toBe(4 * (shared as number));
    expect(kib("VmExe")).toBe(4 * (text as number));
    expect(kib("VmData") + kib("VmStk")).toBe(4 * (data as number));
    expect([kib("VmExe"), kib("VmStk"), kib("VmPTE")]).toEqual([4, 32, 12]);
  });

  it("a kernel thread has no memory lines", () => {
    expect(read("/proc/2/statm")).toBe("0 0 0 0 0 0 0\n");
    expect(read("/proc/2/status")).not.toContain("Vm");
    expect(read("/proc/2/maps")).toBe("");
    expect(read("/proc/2/stat").trim().split(" ").length).toBe(52);
  });

  it("F1 the indices tell lack of memory from fragmentation", () => {
    expect(extfragIndex([0, 0, 0], 1)).toBe(0);
    expect(unusableIndex([0, 0, 0], 1)).toBe(1000);
    expect(extfragIndex([4, 2, 0], 1)).toBe(-1000);
    // 100 single pages; order 2 wants 4: 1000 − (1000 + 25000) / 100
    expect(extfragIndex([100, 0, 0], 2)).toBe(740);
    expect(unusableIndex([6, 1, 0], 1)).toBe(750);
    const zones: Fake["zones"] = [[ZONE_DMA, { ...DMA_FILL, free: 100, blocks: [[100]] }]];
    const cells = readProc({ zones }, "/sys/kernel/debug/extfrag/extfrag_index").slice(22);
    expect(cells.startsWith("-1.000  0.490  0.740 ")).toBe(true);
  });

  it("uptime, loadavg, stat and kmsg count virtual time and tasks", () => {
    expect(read("/proc/uptime")).toBe("61.23 120.96\n");
    expect(read("/proc/loadavg")).toBe("0.00 0.00 0.00 1/2 7\n");
    const [all, cpu0, cpu1, intr] = linesOf(read("/proc/stat"));
    expect(all).toBe("cpu  123 0 4 12096 0 0 0 0 0 0");
    expect([cpu0, cpu1]).toEqual(["cpu0 123 0 0 6000 0 0 0 0 0 0", "cpu1 0 0 4 6096 0 0 0 0 0 0"]);
    expect(intr).toBe("intr 25825 0 0 0 0 15 0 0 0 0 8");
    expect(read("/proc/kmsg")).toBe("<6>[    0.001500] hello\n");
  });
});

describe("the tree", () => {
  const procfs = createProcfs(fakeSources({ tasks: [SHELL, KTHREAD, { ...SHELL, pid: 10 }] }));

  it("every listed name can be read or listed", () => {
    const walk = (dir: string): string[] =>
      (procfs.list(dir) as readonly string[]).flatMap((name) => {
        const path = `${dir}/${name}`;
        if (procfs.list(path) !== null) return walk(path);
        expect(typeof procfs.read(path), path).toBe("string");
        return [path];
      });
    const files = [...walk("/proc"), ...walk("/sys")];
    expect(new Set(files).size).toBe(files.length);
    for (const name of PROCFS_FILES) expect(files).toContain(`/proc/${name}`);
    expect(files).toContain("/proc/sys/vm/min_free_kbytes");
  });

  it("lists processes by number before words, and threads not at all", () => {
    expect(procfs.list("/proc")?.slice(0, 3)).toEqual(["2", "7", "buddyinfo"]);
    expect(procfs.read("/proc/10/comm")).toBe("sh\n");
    expect(procfs.list("/")).toEqual(["proc", "sys"]);
    expect(procfs.list("/sys/kernel/slab")).toEqual([]);
  });

  it("shows a cache as a directory", () => {
    const row = { name: "big", activeObjs: 5, numObjs: 16, objSize: 4096, objPerSlab: 8, pagesPerSlab: 8 };
    const slab = createProcfs(fakeSources({ caches: [{ ...row, activeSlabs: 2, numSlabs: 2 }] }));
    expect(slab.list("/sys/kernel/slab/")).toEqual(["big"]);
    const value = (name: string): string | null => slab.read(`/sys/kernel/slab/big/${name}`);
    expect([value("order"), value("slabs"), value("total_objects")]).toEqual(["3\n", "2 N0=2\n", "16 N0=16\n"]);
    expect([value("objects"), value("objs_per_slab"), value("object_size")]).toEqual(["5 N0=5\n", "8\n", "4096\n"]);
  });

  it("has nothing at paths that do not exist", () => {
    for (const path of ["/proc", "/proc/", "/proc/99/stat", "/proc/7/nothing", "/etc/passwd", "/proc/7", ""]) {
      expect(procfs.read(path), path).toBeNull();
    }
    for (const dir of ["/etc", "/proc/99", "/proc/meminfo", "/sys/kernel/slab/none", ""]) {
      expect(procfs.list(dir), dir).toBeNull();
    }
  });
});
