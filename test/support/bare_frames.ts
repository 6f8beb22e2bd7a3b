/**
 * One zone of frames without the rest of a kernel: struct page, pageblocks and lists over a small machine.
 */

import { createMachine } from "../../kernel/arch/machine.ts";
import { asPfn, asPhys } from "../../kernel/types.ts";
import type { FrameAllocatorDeps } from "../../mm/frame_allocator.ts";
import { MIGRATE_MOVABLE, NR_MIGRATETYPES } from "../../mm/migratetype.ts";
import { NR_PAGE_ORDERS, PAGEBLOCK_NR_PAGES, Z_SPANNED, Z_START_PFN } from "../../mm/mmzone.ts";
import { createPages, memmapBytes, PG_RESERVED, ZONE_SHIFT } from "../../mm/page.ts";
import { createPageLists } from "../../mm/page_list.ts";
import { createPageblocks } from "../../mm/pageblock.ts";

const ZONE = 1;
const MEMMAP = asPhys(0x10_0000);

/** Deps for a FrameAllocator over frames `[start, end)` of zone DMA32; nothing is given to it yet. */
export function bareFrames(start: number, end: number): FrameAllocatorDeps {
  const { port } = createMachine({ nrCpus: 1, ramBytes: 16 * 1024 * 1024, seed: "bare", port: "bounds" });
  const nrFrames = Math.ceil(end / 1024) * 1024;
  const nrHeads = NR_PAGE_ORDERS * NR_MIGRATETYPES;
  const pages = createPages(port, MEMMAP, nrFrames, nrHeads);
  const after = MEMMAP + memmapBytes(nrFrames, nrHeads);
  const zoneAddr = asPhys(after);
  const pageblocks = createPageblocks(port, asPhys(after + 512), nrFrames);
  port.st32(zoneAddr + Z_START_PFN, start);
  port.st32(zoneAddr + Z_SPANNED, end - start);
  for (let pfn = 0; pfn < nrFrames; pfn++) {
    const isInZone = pfn >= start && pfn < end;
    pages.setFlags(asPfn(pfn), PG_RESERVED | ((isInZone ? ZONE : 0) << ZONE_SHIFT));
  }
  for (let pfn = 0; pfn < nrFrames; pfn += PAGEBLOCK_NR_PAGES) pageblocks.setMigratetype(asPfn(pfn), MIGRATE_MOVABLE);
  return {
    port,
    pages,
    lists: createPageLists(pages),
    pageblocks,
    zone: ZONE,
    zoneAddr,
    firstHead: pages.firstHead,
    charge: () => {},
  };
}
