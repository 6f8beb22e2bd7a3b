/**
 * Mem-Info: the state of memory as Linux prints it under an allocation failure or an OOM kill.
 *
 * Read-only; builds strings, so slow paths only. Source of the layout: mm/show_mem.c, and a recorded report.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { MIGRATE_PCPTYPES, NR_MIGRATETYPES } from "./migratetype.ts";
import {
  freeCountAddr,
  MAX_NR_ZONES,
  NR_PAGE_ORDERS,
  WMARK_HIGH,
  WMARK_LOW,
  WMARK_MIN,
  Z_BOOST,
  Z_LOWMEM_RESERVE,
  Z_MANAGED,
  Z_NR_FREE,
  Z_NR_FREE_CMA,
  Z_NR_RESERVED_HIGHATOMIC,
  Z_PRESENT,
  type Zones,
} from "./mmzone.ts";
import type { PerCpuPages } from "./pcp.ts";
import {
  NR_ACTIVE_ANON,
  NR_ACTIVE_FILE,
  NR_FILE_DIRTY,
  NR_INACTIVE_ANON,
  NR_INACTIVE_FILE,
  NR_ISOLATED_ANON,
  NR_ISOLATED_FILE,
  NR_KERNEL_STACK_KB,
  NR_PAGETABLE,
  NR_SLAB_RECLAIMABLE,
  NR_SLAB_UNRECLAIMABLE,
  NR_UNEVICTABLE,
  NR_WRITEBACK,
  type VmStat,
} from "./vmstat.ts";

export interface MemInfoSources {
  readonly port: MemoryPort;
  readonly zones: Zones;
  readonly vmstat: VmStat;
  readonly pcp: PerCpuPages;
  readonly nrCpus: number;
}

const TYPE_LETTERS = "UMEHCI";
const kb = (pages: number): string => `${pages * 4}kB`;

/** Pages of a zone on all CPUs' lists. */
const pcpPages = ({ pcp, nrCpus }: MemInfoSources, zone: number): number => {
  let sum = 0;
  for (let cpu = 0; cpu < nrCpus; cpu++) sum += pcp.info(cpu, zone).count;
  return sum;
};

/** `Node 0 DMA: 1*4kB (U) 0*8kB … = 388kB`: free blocks by order, with the types that have some. */
function blocksLine({ port, zones }: MemInfoSources, zone: number): string {
  const parts: string[] = [];
  let total = 0;
  for (let order = 0; order < NR_PAGE_ORDERS; order++) {
    let count = 0;
    let letters = "";
    for (let type = 0; type < NR_MIGRATETYPES; type++) {
      const blocks = port.ld32(freeCountAddr(zones.addr(zone), order, type));
      if (blocks > 0) letters += TYPE_LETTERS[type];
      count += blocks;
    }
    total += count << order;
    parts.push(`${count}*${4 << order}kB${letters === "" ? "" : ` (${letters})`}`);
  }
  return `Node 0 ${zones.name(zone)}: ${parts.join(" ")} = ${kb(total)}`;
}

function zoneLines(sources: MemInfoSources, zone: number): string[] {
  const { zones } = sources;
  const field = (offset: number): number => zones.field(zone, offset);
  const reserve = Array.from({ length: MAX_NR_ZONES + 1 }, (_, j) => field(Z_LOWMEM_RESERVE + j * 4));
  return [
    `Node 0 ${zones.name(zone)} free:${kb(field(Z_NR_FREE))} boost:${kb(field(Z_BOOST))} ` +
      `min:${kb(zones.wmark(zone, WMARK_MIN))} low:${kb(zones.wmark(zone, WMARK_LOW))} ` +
      `high:${kb(zones.wmark(zone, WMARK_HIGH))} reserved_highatomic:${field(Z_NR_RESERVED_HIGHATOMIC) * 4}KB ` +
      `present:${kb(field(Z_PRESENT))} ` +
      `managed:${kb(field(Z_MANAGED))} free_pcp:${kb(pcpPages(sources, zone))} ` +
      `free_cma:${kb(field(Z_NR_FREE_CMA))}`,
    `lowmem_reserve[]: ${reserve.join(" ")}`,
  ];
}

/** The Mem-Info block, without a final newline. */
export function formatMemInfo(sources: MemInfoSources): string {
  const { zones, vmstat } = sources;
  const populated = Array.from({ length: MAX_NR_ZONES }, (_, zone) => zone).filter((zone) => zones.isPopulated(zone));
  const freePcp = populated.reduce((sum, zone) => sum + pcpPages(sources, zone), 0);
  const item = (nr: number): number => vmstat.item(nr);
  const line = (...words: readonly (string | number)[]): string =>
    words
      .map((word) => (typeof word === "number" ? `:${item(word)} ` : word))
      .join("")
      .trimEnd();
  return [
    "Mem-Info:",
    line("active_anon", NR_ACTIVE_ANON, "inactive_anon", NR_INACTIVE_ANON, "isolated_anon", NR_ISOLATED_ANON),
    ` ${line("active_file", NR_ACTIVE_FILE, "inactive_file", NR_INACTIVE_FILE, "isolated_file", NR_ISOLATED_FILE)}`,
    ` unevictable:${item(NR_UNEVICTABLE)} dirty:${item(NR_FILE_DIRTY)} writeback:${item(NR_WRITEBACK)}`,
    ` slab_reclaimable:${item(NR_SLAB_RECLAIMABLE)} slab_unreclaimable:${item(NR_SLAB_UNRECLAIMABLE)}`,
    ` mapped:0 shmem:0 pagetables:${item(NR_PAGETABLE)}`,
    ` free:${zones.totalFree()} free_pcp:${freePcp} free_cma:${zones.totalFreeCma()}`,
    `Node 0 active_anon:${kb(item(NR_ACTIVE_ANON))} inactive_anon:${kb(item(NR_INACTIVE_ANON))} ` +
      `unevictable:${kb(item(NR_UNEVICTABLE))} writeback:${kb(item(NR_WRITEBACK))} ` +
      `kernel_stack:${item(NR_KERNEL_STACK_KB)}kB pagetables:${kb(item(NR_PAGETABLE))}`,
    ...populated.flatMap((zone) => zoneLines(sources, zone)),
    ...populated.map((zone) => blocksLine(sources, zone)),
  ].join("\n");
}

if (TYPE_LETTERS.length !== NR_MIGRATETYPES || MIGRATE_PCPTYPES !== 3)
  throw new Error("show_mem: migrate types changed");
