/**
 * File /proc/zoneinfo: every zone with its marks, sizes, counters, CPU lists.
 *
 * Counters of the node stand in the first zone that has memory. A zone without memory ends after `protection`. The
 * last zone, Device, is memory that a device brings along: this machine has none, the lines are kept for readers that
 * count zones. Source: mm/vmstat.c (zoneinfo_show_print).
 */

import {
  MAX_NR_ZONES,
  WMARK_HIGH,
  WMARK_LOW,
  WMARK_MIN,
  WMARK_PROMO,
  Z_BOOST,
  Z_CMA,
  Z_MANAGED,
  Z_NR_FREE,
  Z_NR_FREE_CMA,
  Z_NR_LRU,
  Z_NR_MLOCK,
  Z_PRESENT,
  Z_SPANNED,
  Z_START_PFN,
} from "../../../mm/index.ts";
import { fls } from "../../lib/bits.ts";
import { PAGE_SIZE } from "../../params.ts";
import type { ProcSources } from "../proc_sources.ts";
import { left } from "./columns.ts";
import { NODE_COUNTERS, NUMA_COUNTERS, nodeCounter, ZONE_COUNTERS, zoneCounter } from "./counters.ts";
import { onlineCpus } from "./cpu_time.ts";
import { lowmemReserve, populatedZones, zonePrefix } from "./zone_reader.ts";

const PAGES_PER_128_MIB = (128 * 1024 * 1024) / PAGE_SIZE;
const MAX_STAT_THRESHOLD = 125;

interface ZoneSizes {
  readonly free: number;
  readonly boost: number;
  readonly marks: readonly [min: number, low: number, high: number, promo: number];
  readonly spanned: number;
  readonly present: number;
  readonly managed: number;
  readonly cma: number;
  readonly freeCma: number;
  readonly protection: readonly number[];
}

const NO_MEMORY: ZoneSizes = {
  free: 0,
  boost: 0,
  marks: [0, 0, 0, 0],
  spanned: 0,
  present: 0,
  managed: 0,
  cma: 0,
  freeCma: 0,
  protection: new Array<number>(MAX_NR_ZONES + 1).fill(0),
};

function zoneSizes({ zones }: ProcSources, zone: number, protection: readonly number[]): ZoneSizes {
  const mark = (which: number): number => zones.wmark(zone, which);
  return {
    free: zones.field(zone, Z_NR_FREE),
    boost: zones.field(zone, Z_BOOST),
    marks: [mark(WMARK_MIN), mark(WMARK_LOW), mark(WMARK_HIGH), mark(WMARK_PROMO)],
    spanned: zones.field(zone, Z_SPANNED),
    present: zones.field(zone, Z_PRESENT),
    managed: zones.field(zone, Z_MANAGED),
    cma: zones.field(zone, Z_CMA),
    freeCma: zones.field(zone, Z_NR_FREE_CMA),
    protection,
  };
}

function formatSizes(sizes: ZoneSizes): string {
  const [min, low, high, promo] = sizes.marks;
  return (
    `  pages free     ${sizes.free}\n` +
    `        boost    ${sizes.boost}\n` +
    `        min      ${min}\n` +
    `        low      ${low}\n` +
    `        high     ${high}\n` +
    `        promo    ${promo}\n` +
    `        spanned  ${sizes.spanned}\n` +
    `        present  ${sizes.present}\n` +
    `        managed  ${sizes.managed}\n` +
    `        cma      ${sizes.cma}\n` +
    `        protection: (${sizes.protection.join(", ")})\n`
  );
}

const formatCounter = (name: string, value: number): string => `      ${left(name, 12)} ${value}\n`;

/** How far a CPU's private copy of a counter may drift in Linux; ours are exact, the rule is printed all the same. */
function statThreshold(nrCpus: number, managed: number): number {
  return Math.min(MAX_STAT_THRESHOLD, 2 * fls(nrCpus) * (1 + fls(Math.floor(managed / PAGES_PER_128_MIB))));
}

function formatPagesets(s: ProcSources, zone: number): string {
  const cpus = onlineCpus(s);
  const threshold = statThreshold(cpus.length, s.zones.field(zone, Z_MANAGED));
  const sets = cpus.map((cpu) => {
    const { count, high, batch } = s.pcp.info(cpu, zone);
    return (
      `    cpu: ${cpu}\n` +
      `              count: ${count}\n` +
      `              high:  ${high}\n` +
      `              batch: ${batch}\n` +
      `  vm stats threshold: ${threshold}\n`
    );
  });
  return `  pagesets\n${sets.join("")}`;
}

function formatZone(s: ProcSources, zone: number, isFirst: boolean): string {
  const { zones, vmstat } = s;
  const protection = Array.from({ length: MAX_NR_ZONES + 1 }, (_, j) => lowmemReserve(s, zone, j));
  const sizes = zoneSizes(s, zone, protection);
  let text = `${zonePrefix(zones.name(zone))}\n`;
  if (isFirst) {
    text += "  per-node stats\n";
    text += NODE_COUNTERS.map((name) => formatCounter(name, nodeCounter(vmstat, name))).join("");
  }
  text += formatSizes(sizes);
  if (!zones.isPopulated(zone)) return text;
  const lruSize = (list: number): number => zones.field(zone, Z_NR_LRU + list * 4);
  const nrMlock = zones.field(zone, Z_NR_MLOCK);
  for (const name of ZONE_COUNTERS) {
    text += formatCounter(name, zoneCounter(name, sizes.free, sizes.freeCma, nrMlock, lruSize));
  }
  text += NUMA_COUNTERS.map((name) => formatCounter(name, 0)).join("");
  text += formatPagesets(s, zone);
  return `${text}  node_unreclaimable:  0\n  start_pfn:           ${zones.field(zone, Z_START_PFN)}\n`;
}

export function formatZoneinfo(s: ProcSources): string {
  const first = populatedZones(s)[0];
  let text = "";
  for (let zone = 0; zone < MAX_NR_ZONES; zone++) text += formatZone(s, zone, zone === first);
  return `${text}${zonePrefix("Device")}\n${formatSizes(NO_MEMORY)}`;
}
