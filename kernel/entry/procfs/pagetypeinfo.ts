/**
 * File /proc/pagetypeinfo: free blocks by migrate type; what pageblocks are for.
 *
 * The types of a zone add up to its line of buddyinfo. Linux walks the lists and stops counting at 100,000 blocks,
 * with a `>`; here the counts are kept, so they are exact. Source: mm/vmstat.c (pagetypeinfo_show).
 */

import { MIGRATETYPE_NAMES, NR_PAGE_ORDERS } from "../../../mm/index.ts";
import { PAGE_SIZE } from "../../params.ts";
import type { ProcSources } from "../proc_sources.ts";
import { left, right } from "./columns.ts";
import { freeBlocksOfType, populatedZones, zonePrefix } from "./zone_reader.ts";

/** A pageblock is as large as a huge page: 2 MiB. */
const PAGEBLOCK_ORDER = 9;
const PAGEBLOCK_NR_PAGES = (2 * 1024 * 1024) / PAGE_SIZE;

if (1 << PAGEBLOCK_ORDER !== PAGEBLOCK_NR_PAGES) throw new Error("pagetypeinfo: a pageblock is not a huge page");

function freeCounts(s: ProcSources): string {
  const orders = Array.from({ length: NR_PAGE_ORDERS }, (_, order) => `${right(order, 6)} `);
  let text = `${left("Free pages count per migrate type at order", 43)} ${orders.join("")}\n`;
  for (const zone of populatedZones(s)) {
    MIGRATETYPE_NAMES.forEach((name, type) => {
      const counts = freeBlocksOfType(s, zone, type).map((blocks) => `${right(blocks, 6)} `);
      text += `Node ${right(0, 4)}, zone ${right(s.zones.name(zone), 8)}, type ${right(name, 12)} ${counts.join("")}\n`;
    });
  }
  return text;
}

function pageblockCounts(s: ProcSources): string {
  let text = `${left("Number of blocks type", 23)}${MIGRATETYPE_NAMES.map((name) => `${right(name, 12)} `).join("")}\n`;
  for (const zone of populatedZones(s)) {
    const counts = s.pageblockCounts(zone);
    const cells = MIGRATETYPE_NAMES.map((_, type) => `${right(counts[type] ?? 0, 12)} `);
    text += `${zonePrefix(s.zones.name(zone))} ${cells.join("")}\n`;
  }
  return text;
}

export function formatPagetypeinfo(s: ProcSources): string {
  const head = `Page block order: ${PAGEBLOCK_ORDER}\nPages per block:  ${PAGEBLOCK_NR_PAGES}\n`;
  return `${head}\n${freeCounts(s)}\n${pageblockCounts(s)}`;
}
