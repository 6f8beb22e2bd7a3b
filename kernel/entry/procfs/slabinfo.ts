/**
 * File /proc/slabinfo: objects and slabs of each cache; and /sys/kernel/slab.
 *
 * `tunables` and `sharedavail` belong to an allocator that Linux no longer has and are 0 there too. `objsize` is the
 * distance between objects, metadata included, so that objperslab = ⌊pagesperslab · 4096 / objsize⌋.
 * Source: mm/slab_common.c (cache_show), mm/slub.c (show_slab_objects).
 */

import { ilog2 } from "../../lib/bits.ts";
import type { SlabInfoRow } from "../kernel.ts";
import type { ProcSources } from "../proc_sources.ts";
import { left, right } from "./columns.ts";

const HEADER =
  "slabinfo - version: 2.1\n" +
  "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> " +
  ": tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n";

const TUNABLES = ` : tunables ${right(0, 4)} ${right(0, 4)} ${right(0, 4)}`;

function formatRow(row: SlabInfoRow): string {
  const objects = `${right(row.activeObjs, 6)} ${right(row.numObjs, 6)} ${right(row.objSize, 6)}`;
  const layout = `${right(row.objPerSlab, 4)} ${right(row.pagesPerSlab, 4)}`;
  const slabs = `${right(row.activeSlabs, 6)} ${right(row.numSlabs, 6)} ${right(0, 6)}`;
  return `${left(row.name, 17)} ${objects} ${layout}${TUNABLES} : slabdata ${slabs}\n`;
}

export function formatSlabinfo(s: ProcSources): string {
  return HEADER + s.slabCaches().map(formatRow).join("");
}

/** A count of objects or slabs, then the share of each node that has any. */
const perNode = (count: number): string => (count === 0 ? "0\n" : `${count} N0=${count}\n`);

/** Files of /sys/kernel/slab/<cache>. */
export const SLAB_ATTRIBUTES: ReadonlyMap<string, (row: SlabInfoRow) => string> = new Map([
  ["object_size", (row: SlabInfoRow) => `${row.objSize}\n`],
  ["objects", (row: SlabInfoRow) => perNode(row.activeObjs)],
  ["objs_per_slab", (row: SlabInfoRow) => `${row.objPerSlab}\n`],
  ["order", (row: SlabInfoRow) => `${ilog2(row.pagesPerSlab)}\n`],
  ["slab_size", (row: SlabInfoRow) => `${row.objSize}\n`],
  ["slabs", (row: SlabInfoRow) => perNode(row.numSlabs)],
  ["total_objects", (row: SlabInfoRow) => perNode(row.numObjs)],
]);
