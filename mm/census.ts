/**
 * The census: where every page of RAM is, counted frame by frame.
 *
 * An identity for tests and a table for people: the parts add up to all frames that the zones span, so a page that
 * nobody owns, or that two own, shows. O(frames); reads struct page only.
 */

import { asPfn } from "../kernel/types.ts";
import { PRIVATE_IS_BALLOON } from "./balloon_pages.ts";
import { MAX_NR_ZONES, Z_SPANNED, Z_START_PFN, type Zones } from "./mmzone.ts";
import {
  orderOfFlags,
  type Pages,
  PG_ALLOCATED,
  PG_ANON,
  PG_BUDDY,
  PG_LARGE_KMALLOC,
  PG_PCP,
  PG_SLAB,
  PG_SWAPCACHE,
  PG_TABLE,
} from "./page.ts";
import { NR_KERNEL_STACK_KB, type VmStat } from "./vmstat.ts";

export interface Census {
  readonly total: number;
  readonly reserved: number;
  readonly freeBuddy: number;
  readonly freePcp: number;
  readonly slab: number;
  readonly largeKmalloc: number;
  readonly anon: number;
  /** Page cache: files of the ramfs, of disks, shared memory. */
  readonly files: number;
  readonly pageTables: number;
  readonly kernelStacks: number;
  readonly dmaPools: number;
  /** The host has them. */
  readonly balloon: number;
  readonly other: number;
}

/** Counts every frame of every zone. `dmaPools` are the pages that DMA keeps: they carry no mark of their own. */
export function takeCensus(pages: Pages, zones: Zones, vmstat: VmStat, dmaPools: number): Census {
  let [total, reserved, freeBuddy, freePcp, slab, largeKmalloc, anon, pageTables] = [0, 0, 0, 0, 0, 0, 0, 0];
  let [files, balloon, other] = [0, 0, 0];
  for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
    const start = zones.field(zone, Z_START_PFN);
    const end = start + zones.field(zone, Z_SPANNED);
    total += end - start;
    for (let pfn = start; pfn < end; ) {
      const flags = pages.flags(asPfn(pfn));
      const isBlock = (flags & (PG_BUDDY | PG_PCP | PG_ALLOCATED)) !== 0;
      const nrPages = isBlock ? 1 << orderOfFlags(flags) : 1;
      if ((flags & PG_BUDDY) !== 0) freeBuddy += nrPages;
      else if ((flags & PG_PCP) !== 0) freePcp += nrPages;
      else if (!isBlock) reserved += nrPages;
      else if ((flags & PG_SLAB) !== 0) slab += nrPages;
      else if ((flags & PG_LARGE_KMALLOC) !== 0) largeKmalloc += nrPages;
      else if ((flags & (PG_ANON | PG_SWAPCACHE)) !== 0) anon += nrPages;
      else if ((flags & PG_TABLE) !== 0) pageTables += nrPages;
      else if (pages.mapping(asPfn(pfn)) !== 0) files += nrPages;
      else if (pages.private(asPfn(pfn)) === PRIVATE_IS_BALLOON) balloon += nrPages;
      else other += nrPages;
      pfn += nrPages;
    }
  }
  const kernelStacks = vmstat.item(NR_KERNEL_STACK_KB) / 4;
  other -= kernelStacks + dmaPools;
  const free = { freeBuddy, freePcp };
  const used = { slab, largeKmalloc, anon, files, pageTables, kernelStacks, dmaPools, balloon, other };
  return { total, reserved, ...free, ...used };
}
