/**
 * Files of /sys/kernel/debug/extfrag: is free memory scarce, or in pieces? (F1)
 *
 * Would a request fail for want of memory, or because what is free is in pieces?
 *
 *   extfrag_index   −1.000 the request would succeed; → 0 lack of memory; → 1 fragmentation
 *   unusable_index  the share of free memory that is in blocks too small for the order
 *
 * Both are in thousandths, with integer divisions nested as in Linux. Source: mm/vmstat.c (fragmentation_index,
 * unusable_free_index).
 */

import type { ProcSources } from "../proc_sources.ts";
import { right } from "./columns.ts";
import { freeBlocks, populatedZones, zonePrefix } from "./zone_reader.ts";

/** Blocks of order `order` that the free blocks of that order and above contain. */
function suitableBlocks(blocks: readonly number[], order: number): number {
  return blocks.reduce((sum, count, i) => (i < order ? sum : sum + count * 2 ** (i - order)), 0);
}

const freePages = (blocks: readonly number[]): number => suitableBlocks(blocks, 0);

/** F1: −1000 … 1000; `blocks` are the free blocks of a zone, by order. */
export function extfragIndex(blocks: readonly number[], order: number): number {
  const total = blocks.reduce((sum, count) => sum + count, 0);
  if (total === 0) return 0;
  if (suitableBlocks(blocks, order) > 0) return -1000;
  const needed = Math.floor((freePages(blocks) * 1000) / 2 ** order);
  return 1000 - Math.floor((1000 + needed) / total);
}

/** F1: 0 … 1000. */
export function unusableIndex(blocks: readonly number[], order: number): number {
  const free = freePages(blocks);
  if (free === 0) return 1000;
  return Math.floor(((free - suitableBlocks(blocks, order) * 2 ** order) * 1000) / free);
}

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
