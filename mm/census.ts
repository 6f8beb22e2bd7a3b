/**
 * The census: where every page of RAM is, counted frame by frame.
 *
 * An identity for tests and a table for people: the parts add up to all frames that the zones span, so a page that
 * nobody owns, or that two own, shows. O(frames); reads struct page only.
 */

import {
  forEachBlock,
  KIND_ANON,
  KIND_BALLOON,
  KIND_FILE,
  KIND_FREE_BUDDY,
  KIND_FREE_PCP,
  KIND_LARGE_KMALLOC,
  KIND_OTHER,
  KIND_RESERVED,
  KIND_SLAB,
  KIND_TABLE,
  NR_KINDS,
} from "./frame_kind.ts";
import type { Zones } from "./mmzone.ts";
import type { Pages } from "./page.ts";
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
  const counts = new Uint32Array(NR_KINDS);
  let total = 0;
  forEachBlock(pages, zones, (kind, _pfn, nrPages) => {
    counts[kind] = (counts[kind] as number) + nrPages;
    total += nrPages;
  });
  const of = (kind: number): number => counts[kind] as number;
  const kernelStacks = vmstat.item(NR_KERNEL_STACK_KB) / 4;
  return {
    total,
    reserved: of(KIND_RESERVED),
    freeBuddy: of(KIND_FREE_BUDDY),
    freePcp: of(KIND_FREE_PCP),
    slab: of(KIND_SLAB),
    largeKmalloc: of(KIND_LARGE_KMALLOC),
    anon: of(KIND_ANON),
    files: of(KIND_FILE),
    pageTables: of(KIND_TABLE),
    kernelStacks,
    dmaPools,
    balloon: of(KIND_BALLOON),
    other: of(KIND_OTHER) - kernelStacks - dmaPools,
  };
}
