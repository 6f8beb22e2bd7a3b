/**
 * Files of /sys/kernel/debug/extfrag: is free memory scarce, or in pieces? (F1)
 *
 * Would a request fail for want of memory, or because what is free is in pieces? The numbers are mm/extfrag.ts's; here
 * they are printed as thousandths. Source: mm/vmstat.c.
 */

import { extfragIndex, unusableIndex } from "../../../mm/index.ts";
import type { ProcSources } from "../proc_sources.ts";
import { right } from "./columns.ts";
import { freeBlocks, populatedZones, zonePrefix } from "./zone_reader.ts";

/** `%*d.%03d` of thousandths; as in C, a negative index other than −1000 does not occur. */
const thousandths = (index: number, width: number): string =>
  `${right(Math.trunc(index / 1000), width)}.${String(Math.abs(index % 1000)).padStart(3, "0")} `;

function formatIndex(s: ProcSources, width: number, indexOf: (blocks: readonly number[], order: number) => number) {
  return populatedZones(s)
    .map((zone) => {
      const blocks = freeBlocks(s, zone);
      const cells = blocks.map((_, order) => thousandths(indexOf(blocks, order), width));
      return `${zonePrefix(s.zones.name(zone))} ${cells.join("")}\n`;
    })
    .join("");
}

export const formatExtfragIndex = (s: ProcSources): string => formatIndex(s, 2, extfragIndex);
export const formatUnusableIndex = (s: ProcSources): string => formatIndex(s, 1, unusableIndex);
