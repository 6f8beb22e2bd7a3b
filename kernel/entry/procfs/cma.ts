/**
 * Files of the contiguous area: /sys/kernel/mm/cma/reserved (counters) and /sys/kernel/debug/cma/reserved.
 *
 * Writing a number of pages to `alloc` takes them as a driver would and keeps them; writing to `free` gives as many of
 * the pages taken in this way back, the newest first. Source: mm/cma_sysfs.c, mm/cma_debug.c.
 *
 * Registered only on a machine that has an area. Context: process.
 */

import type { Cma, CmaStats } from "../../../mm/index.ts";
import type { FileRegistry } from "../../file.ts";
import type { Task } from "../../task.ts";
import { NO_PFN, type Pfn, pfnAdd, type Sleeping } from "../../types.ts";
import { EINVAL, ENOMEM } from "../../uapi/errno.ts";

const SYS = "/sys/kernel/mm/cma/reserved";
const DEBUG = "/sys/kernel/debug/cma/reserved";

const VALUES: readonly (readonly [path: string, value: (stats: CmaStats) => number])[] = [
  [`${SYS}/alloc_pages_success`, (stats) => stats.granted],
  [`${SYS}/alloc_pages_fail`, (stats) => stats.failed],
  [`${SYS}/release_pages_success`, (stats) => stats.released],
  [`${SYS}/total_pages`, (stats) => stats.nrPages],
  [`${SYS}/available_pages`, (stats) => stats.nrPages - stats.nrUsed],
  [`${DEBUG}/base_pfn`, (stats) => stats.base],
  [`${DEBUG}/count`, (stats) => stats.nrPages],
  [`${DEBUG}/order_per_bit`, () => 0],
  [`${DEBUG}/used`, (stats) => stats.nrUsed],
  [`${DEBUG}/maxchunk`, (stats) => stats.maxChunk],
];

/** A whole number of pages, or −1. */
function parsePages(text: string): number {
  const word = text.trim();
  return /^\d{1,9}$/.test(word) ? Number(word) : -1;
}

export function registerCmaFiles(registry: FileRegistry, cma: Cma): void {
  if (cma.stats().nrPages === 0) return;
  for (const [path, value] of VALUES) registry.registerText(path, { read: () => `${value(cma.stats())}\n` });

  /** What `alloc` has taken, the newest last. */
  const held: { pfn: Pfn; nrPages: number }[] = [];

  function* alloc(task: Task, text: string): Sleeping<number> {
    const nrPages = parsePages(text);
    if (nrPages <= 0) return -EINVAL;
    const pfn = cma.alloc(task.ctx, nrPages, 0);
    if (pfn === NO_PFN) return -ENOMEM;
    held.push({ pfn, nrPages });
    return 0;
  }

  function* free(task: Task, text: string): Sleeping<number> {
    let rest = parsePages(text);
    if (rest <= 0) return -EINVAL;
    for (let grant = held.pop(); grant !== undefined && rest > 0; grant = rest > 0 ? held.pop() : undefined) {
      const nr = Math.min(rest, grant.nrPages);
      cma.release(task.ctx, grant.pfn, nr);
      if (nr < grant.nrPages) held.push({ pfn: pfnAdd(grant.pfn, nr), nrPages: grant.nrPages - nr });
      rest -= nr;
    }
    return 0;
  }

  registry.registerText(`${DEBUG}/alloc`, { read: () => "", write: alloc });
  registry.registerText(`${DEBUG}/free`, { read: () => "", write: free });
}
