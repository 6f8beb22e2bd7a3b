/**
 * File /proc/pagetypeinfo: free blocks by migrate type; what pageblocks are for.
 *
 * The types of a zone add up to its line of buddyinfo. Linux walks the lists and stops counting at 100,000 blocks,
 * with a `>`; here the counts are kept, so they are exact. Source: mm/vmstat.c (pagetypeinfo_show).
 */

import { MIGRATE_CMA, MIGRATETYPE_NAMES, NR_PAGE_ORDERS } from "../../../mm/index.ts";
import { PAGE_SIZE } from "../../params.ts";
import type { ProcSources } from "../proc_sources.ts";
import { left, right } from "./columns.ts";
import { freeBlocksOfType, populatedZones, zonePrefix } from "./zone_reader.ts";

/** A pageblock is as large as a huge page: 2 MiB. */
const PAGEBLOCK_ORDER = 9;
const PAGEBLOCK_NR_PAGES = (2 * 1024 * 1024) / PAGE_SIZE;

if (1 << PAGEBLOCK_ORDER !== PAGEBLOCK_NR_PAGES) throw new Error("pagetypeinfo: a pageblock is not a huge page");

/** The types that are shown, in order: CMA only on a machine that has an area, as in a kernel built without it. */
const shownTypes = (s: ProcSources): readonly number[] =>
  MIGRATETYPE_NAMES.map((_, type) => type).filter((type) => type !== MIGRATE_CMA || s.zones.totalCma() > 0);

const nameOf = (type: number): string => MIGRATETYPE_NAMES[type] as string;

function freeCounts(s: ProcSources): string {
  const orders = Array.from({ length: NR_PAGE_ORDERS }, (_, order) => `${right(order, 6)} `);
  let text = `${left("Free pages count per migrate type at order", 43)} ${orders.join("")}\n`;
  for (const zone of populatedZones(s)) {
    for (const type of shownTypes(s)) {
      const counts = freeBlocksOfType(s, zone, type).map((blocks) => `${right(blocks, 6)} `);
      const where = `Node ${right(0, 4)}, zone ${right(s.zones.name(zone), 8)}`;
      text += `${where}, type ${right(nameOf(type), 12)} ${counts.join("")}\n`;
    }
  }
  return text;
}

function pageblockCounts(s: ProcSources): string {
  const types = shownTypes(s);
  const names = types.map((type) => `${right(nameOf(type), 12)} `);
  let text = `${left("Number of blocks type", 23)}${names.join("")}\n`;
  for (const zone of populatedZones(s)) {
    const counts = s.pageblockCounts(zone);
    const cells = types.map((type) => `${right(counts[type] ?? 0, 12)} `);
    text += `${zonePrefix(s.zones.name(zone))} ${cells.join("")}\n`;
  }
  return text;
}

export function formatPagetypeinfo(s: ProcSources): string {
  const head = `Page block order: ${PAGEBLOCK_ORDER}\nPages per block:  ${PAGEBLOCK_NR_PAGES}\n`;
  return `${head}\n${freeCounts(s)}\n${pageblockCounts(s)}`;
}
