/**
 * The texts of free, vmstat, slabtop and buddyinfo, in the layouts of procps-ng 4.
 *
 * Pure functions from the text of /proc files to what the program prints, so that the tests can hold them against
 * what procps prints for the same files.
 */

import {
  parseBuddyinfo,
  parseMeminfo,
  parseNamedCounts,
  parseSlabinfo,
  parseSystemStat,
  parseUptime,
  type SlabLine,
  USER_HZ,
} from "./proc_text.ts";

const KIB_PER_PAGE = 4;

const right = (value: number | string, width: number): string => String(value).padStart(width);

/** As C's `%.2f`: a tie goes to the even digit, where toFixed() rounds up. */
export function twoDecimals(value: number): string {
  const hundredths = Math.floor(value * 100);
  const rest = value * 100 - hundredths;
  const up = rest > 0.5 || (rest === 0.5 && hundredths % 2 === 1);
  return ((hundredths + (up ? 1 : 0)) / 100).toFixed(2);
}

// ── free ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** `unitBytes`: 1, 1024 or 1048576. */
export function freeReport(meminfo: string, unitBytes: number): string {
  const fields = parseMeminfo(meminfo);
  const kib = (name: string): number => fields.get(name) ?? 0;
  const row = (label: string, values: readonly number[]): string =>
    label.padEnd(8) + values.map((v) => ` ${right(Math.floor((v * 1024) / unitBytes), 11)}`).join("");
  const cached = kib("Cached") + kib("Buffers") + kib("SReclaimable");
  const used = Math.max(kib("MemTotal") - kib("MemAvailable"), 0);
  const swapUsed = kib("SwapTotal") - kib("SwapFree");
  return `${[
    "               total        used        free      shared  buff/cache   available",
    row("Mem:", [kib("MemTotal"), used, kib("MemFree"), kib("Shmem"), cached, kib("MemAvailable")]),
    row("Swap:", [kib("SwapTotal"), swapUsed, kib("SwapFree")]),
  ].join("\n")}\n`;
}

// ── vmstat ─────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface VmstatFiles {
  readonly meminfo: string;
  readonly vmstat: string;
  readonly stat: string;
  readonly uptime: string;
}

/** Shares in whole per cent of the eight CPU columns, as us sy id wa st. */
function cpuShares(ticks: readonly number[]): number[] {
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] = ticks;
  const total = Math.max(
    ticks.reduce((sum, n) => sum + n, 0),
    1,
  );
  const share = (n: number): number => Math.floor((100 * n + total / 2) / total);
  return [user + nice, system + irq + softirq, idle, iowait, steal].map(share);
}

export const VMSTAT_HEAD =
  "procs -----------memory---------- ---swap-- -----io---- -system-- ------cpu-----\n" +
  " r  b   swpd   free   buff  cache   si   so    bi    bo   in   cs us sy id wa st\n";

/** A line of vmstat: rates between two looks, or, without an earlier one, averages since boot. */
export function vmstatLine(files: VmstatFiles, earlier?: VmstatFiles): string {
  const memory = parseMeminfo(files.meminfo);
  const events = parseNamedCounts(files.vmstat);
  const system = parseSystemStat(files.stat);
  const before = earlier === undefined ? undefined : parseSystemStat(earlier.stat);
  const eventsBefore = earlier === undefined ? undefined : parseNamedCounts(earlier.vmstat);
  const start = earlier === undefined ? 0 : parseUptime(earlier.uptime);
  const seconds = Math.max(parseUptime(files.uptime) - start, 1 / USER_HZ);
  const kib = (name: string): number => memory.get(name) ?? 0;
  const perSecond = (n: number): number => Math.round(n / seconds);
  const event = (name: string): number => (events.get(name) ?? 0) - (eventsBefore?.get(name) ?? 0);
  const values: (readonly [value: number, width: number])[] = [
    [system.nrRunning, 2],
    [system.nrBlocked, 2],
    [kib("SwapTotal") - kib("SwapFree"), 6],
    [kib("MemFree"), 6],
    [kib("Buffers"), 6],
    [kib("Cached") + kib("SReclaimable"), 6],
    [perSecond(event("pswpin") * KIB_PER_PAGE), 4],
    [perSecond(event("pswpout") * KIB_PER_PAGE), 4],
    [perSecond(event("pgpgin")), 5],
    [perSecond(event("pgpgout")), 5],
    [perSecond(system.nrInterrupts - (before?.nrInterrupts ?? 0)), 4],
    [perSecond(system.nrSwitches - (before?.nrSwitches ?? 0)), 4],
    ...cpuShares(system.cpuTicks.map((n, i) => n - (before?.cpuTicks[i] ?? 0))).map((n) => [n, 2] as const),
  ];
  return `${values.map(([value, width]) => right(value, width)).join(" ")}\n`;
}

/** `vmstat -m`: a line per slab cache. */
export function vmstatSlabReport(slabinfo: string): string {
  const lines = parseSlabinfo(slabinfo)
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((s) => [s.activeObjs, s.numObjs, s.objSize, s.objPerSlab].reduce(appendCount, s.name.slice(0, 24).padEnd(24)));
  return `${["Cache                       Num  Total   Size  Pages", ...lines].join("\n")}\n`;
}

const appendCount = (line: string, value: number): string => `${line} ${right(value, 6)}`;

// ── slabtop ────────────────────────────────────────────────────────────────────────────────────────────────────────

const cacheKib = (slab: SlabLine): number => slab.numSlabs * slab.pagesPerSlab * KIB_PER_PAGE;
const usePercent = (slab: SlabLine): number =>
  slab.numObjs === 0 ? 0 : Math.floor((100 * slab.activeObjs) / slab.numObjs);

/** slabtop's letters for its sort criteria. */
export const SLABTOP_SORTS: ReadonlyMap<string, (slab: SlabLine) => number> = new Map([
  ["a", (slab) => slab.activeObjs],
  ["b", (slab) => slab.objPerSlab],
  ["c", cacheKib],
  ["l", (slab) => slab.numSlabs],
  ["o", (slab) => slab.numObjs],
  ["p", (slab) => slab.pagesPerSlab],
  ["s", (slab) => slab.objSize],
  ["u", usePercent],
]);

const sum = (slabs: readonly SlabLine[], of: (slab: SlabLine) => number): number =>
  slabs.reduce((total, slab) => total + of(slab), 0);

/** The summary over all caches. */
function slabtopHead(slabs: readonly SlabLine[]): string[] {
  const kib = (bytes: number): string => `${twoDecimals(bytes / 1024)}K`;
  const ratio = (label: string, active: number, total: number, unit: (n: number) => string = String): string => {
    const percent = ((100 * active) / Math.max(total, 1)).toFixed(1);
    return ` ${`Active / Total ${label} (% used)`.padEnd(35)}: ${unit(active)} / ${unit(total)} (${percent}%)`;
  };
  const nrObjs = sum(slabs, (s) => s.numObjs);
  const totalBytes = sum(slabs, (s) => s.numObjs * s.objSize);
  const sizes = slabs.map((s) => s.objSize);
  return [
    ratio(
      "Objects",
      sum(slabs, (s) => s.activeObjs),
      nrObjs,
    ),
    ratio(
      "Slabs",
      sum(slabs, (s) => s.activeSlabs),
      sum(slabs, (s) => s.numSlabs),
    ),
    ratio("Caches", slabs.filter((s) => s.numObjs > 0).length, slabs.length),
    ratio(
      "Size",
      sum(slabs, (s) => s.activeObjs * s.objSize),
      totalBytes,
      kib,
    ),
    ` ${"Minimum / Average / Maximum Object".padEnd(35)}: ${kib(slabs.length === 0 ? 0 : Math.min(...sizes))} / ${kib(
      nrObjs === 0 ? 0 : totalBytes / nrObjs,
    )} / ${kib(Math.max(0, ...sizes))}`,
  ];
}

/** `slabtop -o`. `sort` is a key of SLABTOP_SORTS, or `n` for names. */
export function slabtopReport(slabinfo: string, sort: string): string {
  const slabs = parseSlabinfo(slabinfo);
  const key = SLABTOP_SORTS.get(sort);
  const byName = (a: SlabLine, b: SlabLine): number => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
  const sorted = [...slabs].sort(key === undefined ? byName : (a, b) => key(b) - key(a) || byName(a, b));
  const rows = sorted.map((s) =>
    [
      right(s.numObjs, 6),
      right(s.activeObjs, 6),
      `${right(usePercent(s), 3)}%`,
      `${right(twoDecimals(s.objSize / 1024), 7)}K`,
      right(s.numSlabs, 6),
      right(s.objPerSlab, 8),
      `${right(cacheKib(s), 9)}K`,
      s.name.slice(0, 23).padEnd(23),
    ].join(" "),
  );
  const title = "  OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE NAME                   ";
  return `${[...slabtopHead(slabs), "", title, ...rows].join("\n")}\n`;
}

// ── buddyinfo ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** Free blocks per order and zone, with sums; procps has no such program. */
export function buddyinfoReport(buddyinfo: string): string {
  const zones = parseBuddyinfo(buddyinfo);
  const nrOrders = Math.max(0, ...zones.map((zone) => zone.nrFree.length));
  const orders = Array.from({ length: nrOrders }, (_, order) => right(order, 6)).join("");
  const sizes = Array.from({ length: nrOrders }, (_, order) => right(blockSize(order), 6)).join("");
  const rows = zones.map((zone) => {
    const kib = zone.nrFree.reduce((total, nr, order) => total + nr * 2 ** order * KIB_PER_PAGE, 0);
    const largest = zone.nrFree.findLastIndex((nr) => nr > 0);
    const counts = zone.nrFree.map((nr) => right(nr, 6)).join("");
    const name = `${zone.node} ${zone.zone}`.padEnd(12);
    return `${name}${counts}${right(`${kib}K`, 11)}${right(largest < 0 ? "-" : blockSize(largest), 9)}`;
  });
  const head = [`${"order".padEnd(12)}${orders}`, `${"NODE ZONE".padEnd(12)}${sizes}       FREE  LARGEST`];
  return `${[...head, ...rows].join("\n")}\n`;
}

function blockSize(order: number): string {
  const kib = 2 ** order * KIB_PER_PAGE;
  return kib < 1024 ? `${kib}K` : `${kib / 1024}M`;
}
