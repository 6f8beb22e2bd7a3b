/**
 * What several files say of zones: which are listed, free blocks, reserves.
 */

import {
  freeCountAddr,
  MAX_NR_ZONES,
  NR_MIGRATETYPES,
  NR_PAGE_ORDERS,
  WMARK_LOW,
  Z_LOWMEM_RESERVE,
} from "../../../mm/index.ts";
import type { ProcSources } from "../proc_sources.ts";
import { right } from "./columns.ts";

/** Numbers of the zones that have memory. */
export function populatedZones(s: ProcSources): readonly number[] {
  return Array.from({ length: MAX_NR_ZONES }, (_, zone) => zone).filter((zone) => s.zones.isPopulated(zone));
}

/** `Node 0, zone      DMA`: how every line about a zone begins; the machine has one node. */
export const zonePrefix = (name: string): string => `Node 0, zone ${right(name, 8)}`;

/** Free blocks of one migrate type, by order. */
export function freeBlocksOfType(s: ProcSources, zone: number, migratetype: number): readonly number[] {
  const addr = s.zones.addr(zone);
  return Array.from({ length: NR_PAGE_ORDERS }, (_, order) => s.port.ld32(freeCountAddr(addr, order, migratetype)));
}

/** Free blocks of all types, by order. */
export function freeBlocks(s: ProcSources, zone: number): readonly number[] {
  const total = new Array<number>(NR_PAGE_ORDERS).fill(0);
  for (let type = 0; type < NR_MIGRATETYPES; type++) {
    freeBlocksOfType(s, zone, type).forEach((blocks, order) => {
      total[order] = (total[order] as number) + blocks;
    });
  }
  return total;
}

/** Pages that zone `zone` keeps from requests that may use zone `j` as well (W3). */
export const lowmemReserve = (s: ProcSources, zone: number, j: number): number =>
  s.zones.field(zone, Z_LOWMEM_RESERVE + j * 4);

/** Σ of the low marks. */
export function totalLowWmark(s: ProcSources): number {
  let pages = 0;
  for (let zone = 0; zone < MAX_NR_ZONES; zone++) pages += s.zones.wmark(zone, WMARK_LOW);
  return pages;
}
