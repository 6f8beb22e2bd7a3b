/**
 * File /proc/buddyinfo: free blocks of each zone, by order.
 *
 * Σ blocks · 2^order of a zone is its `pages free` in zoneinfo; pages on per-CPU lists are in neither (W9).
 * Source: mm/vmstat.c (frag_show_print).
 */

import type { ProcSources } from "../proc_sources.ts";
import { right } from "./columns.ts";
import { freeBlocks, populatedZones, zonePrefix } from "./zone_reader.ts";

export function formatBuddyinfo(s: ProcSources): string {
  return populatedZones(s)
    .map((zone) => {
      const counts = freeBlocks(s, zone).map((blocks) => `${right(blocks, 6)} `);
      return `${zonePrefix(s.zones.name(zone))} ${counts.join("")}\n`;
    })
    .join("");
}
