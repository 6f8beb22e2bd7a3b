/**
 * What a page frame is used for, as far as struct page alone says.
 *
 *   struct page ── state bit ──▶ reserved, free          ── owner bits, mapping, private ──▶ what for
 *
 * The census counts by it and the memory map draws by it; page_owners.ts finds out whose a frame is, by itself, and the
 * tests hold one against the other. O(frames), reads only struct page, and believes nothing that it reads, because a
 * panic may have come of a damaged row.
 *
 *   KND-1  every frame that a zone spans is of exactly one kind
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

export const KIND_RESERVED = 0;
export const KIND_FREE_BUDDY = 1;
export const KIND_FREE_PCP = 2;
export const KIND_SLAB = 3;
export const KIND_LARGE_KMALLOC = 4;
export const KIND_ANON = 5;
export const KIND_TABLE = 6;
/** Page cache: files of the ramfs, of disks, shared memory. */
export const KIND_FILE = 7;
/** The host has it. */
export const KIND_BALLOON = 8;
/** Stacks, vmalloc, DMA, and whoever else took whole pages: they carry no mark. */
export const KIND_OTHER = 9;
export const NR_KINDS = 10;

const PG_BLOCK = PG_BUDDY | PG_PCP | PG_ALLOCATED;

/** The kind of the block, or of the reserved frame, that starts at `pfn`. */
function kindOf(pages: Pages, pfn: number, flags: number): number {
  if ((flags & PG_BUDDY) !== 0) return KIND_FREE_BUDDY;
  if ((flags & PG_PCP) !== 0) return KIND_FREE_PCP;
  if ((flags & PG_ALLOCATED) === 0) return KIND_RESERVED;
  if ((flags & PG_SLAB) !== 0) return KIND_SLAB;
  if ((flags & PG_LARGE_KMALLOC) !== 0) return KIND_LARGE_KMALLOC;
  if ((flags & (PG_ANON | PG_SWAPCACHE)) !== 0) return KIND_ANON;
  if ((flags & PG_TABLE) !== 0) return KIND_TABLE;
  if (pages.mapping(asPfn(pfn)) !== 0) return KIND_FILE;
  return pages.private(asPfn(pfn)) === PRIVATE_IS_BALLOON ? KIND_BALLOON : KIND_OTHER;
}

/** Calls `visit` for each run of frames of one kind, zone by zone, in the order of addresses within a zone. */
export function forEachBlock(
  pages: Pages,
  zones: Zones,
  visit: (kind: number, pfn: number, nrPages: number) => void,
): void {
  for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
    const start = zones.field(zone, Z_START_PFN);
    const end = Math.min(start + zones.field(zone, Z_SPANNED), pages.nrFrames);
    for (let pfn = start; pfn < end; ) {
      const flags = pages.flags(asPfn(pfn));
      const nrPages = (flags & PG_BLOCK) === 0 ? 1 : Math.min(1 << orderOfFlags(flags), end - pfn);
      visit(kindOf(pages, pfn, flags), pfn, nrPages);
      pfn += nrPages;
    }
  }
}
