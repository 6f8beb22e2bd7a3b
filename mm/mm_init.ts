/**
 * Bringing up the page level: from a memblock with free ranges to a page allocator.
 *
 * 1. `composePages` runs while the kernel is put together: static memory and per-CPU variables get their places.
 * 2. `bringUp` runs once memblock knows RAM: it cuts RAM into zones, allocates `struct page` and the pageblock types
 *    from memblock, and builds the allocators over them. Every frame is reserved at this point.
 * 3. `handOver` gives what memblock did not use to the buddies. From then on memblock is closed.
 *
 *   INIT-1  every frame of RAM is reserved or managed, and managed = handed over      (spanned ≥ present ≥ managed)
 */

import { CYC_MEMMAP_ROW } from "../kernel/arch/charges.ts";
import { E820_RAM } from "../kernel/arch/firmware_map.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import type { ContextTracking } from "../kernel/context.ts";
import type { KernelImage } from "../kernel/image.ts";
import { CACHE_LINE, PAGE_SIZE } from "../kernel/params.ts";
import type { PerCpu } from "../kernel/percpu.ts";
import type { Printk } from "../kernel/printk.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { alignUp, asPfn, NULL, type Pfn } from "../kernel/types.ts";
import { createBuddy } from "./buddy.ts";
import { type CmaArea, reserveCma } from "./cma.ts";
import type { FrameAllocator, FrameAllocatorFactory } from "./frame_allocator.ts";
import { createLru, type Lru, NR_LRU_HEADS, pairsOfLists } from "./lru.ts";
import { createGenerations } from "./lru_gen.ts";
import type { Memblock } from "./memblock.ts";
import { MIGRATE_CMA, MIGRATE_MOVABLE, NR_MIGRATETYPES } from "./migratetype.ts";
import {
  createZones,
  MAX_NR_ZONES,
  MAX_PAGE_ORDER,
  NR_PAGE_ORDERS,
  PAGEBLOCK_NR_PAGES,
  Z_CMA,
  Z_NR_FREE,
  Z_NR_FREE_LEAST,
  Z_PRESENT,
  Z_SPANNED,
  Z_START_PFN,
  ZONE_BYTES,
  ZONE_DMA_LIMIT,
  ZONE_STATE_BYTES,
  type Zones,
  zoneRanges,
} from "./mmzone.ts";
import { createPages, memmapBytes, type Pages, PG_RESERVED, ZONE_SHIFT } from "./page.ts";
import { createPageAllocator, type PageAllocator } from "./page_alloc.ts";
import { createPageLists, type PageLists } from "./page_list.ts";
import { PAGE_REPORT_BYTES } from "./page_report.ts";
import { createPageblocks, type Pageblocks, pageblockBytes } from "./pageblock.ts";
import { createPcp, type PerCpuPages } from "./pcp.ts";
import { pcpHeads } from "./pcp_layout.ts";
import { createVmStat, type VmStat } from "./vmstat.ts";

export interface PageLevel {
  readonly pages: Pages;
  readonly lists: PageLists;
  readonly pageblocks: Pageblocks;
  readonly frames: readonly FrameAllocator[];
  readonly pcp: PerCpuPages;
  readonly pageAlloc: PageAllocator;
  /** The lists that reclaim works on. */
  readonly lru: Lru;
  readonly zoneBounds: readonly (readonly [start: number, end: number])[];
  /** The contiguous area; null if none was asked for or there was no room. */
  readonly cmaArea: CmaArea | null;
  /** Registers who hears, under the zone's lock, of blocks of pageblock order and more that become free. */
  onLargeFree(hook: () => void): void;
}

export interface PageLevelSetup {
  readonly vmstat: VmStat;
  readonly zones: Zones;
  /** Step 2. `dma32LimitPfn` and `movablePages` as in zoneRanges; `cmaBytes` of a contiguous area (cma.ts). */
  bringUp(memblock: Memblock, dma32LimitPfn: number, movablePages: number, cmaBytes?: number): PageLevel;
  /** Step 3; `minFreeKbytes` overrides W1. Returns the number of pages handed over, the contiguous area apart. */
  handOver(level: PageLevel, memblock: Memblock, minFreeKbytes?: number): number;
}

export interface PageLevelDeps {
  readonly machine: Machine;
  readonly image: KernelImage;
  readonly percpu: PerCpu;
  readonly contexts: ContextTracking;
  readonly spinlocks: Spinlocks;
  readonly printk: Printk;
  /** The FrameAllocator seam: default is the buddy. */
  readonly frameAllocator?: FrameAllocatorFactory | undefined;
  /** Pages in generations instead of active and inactive lists. */
  readonly isMultiGen?: boolean | undefined;
}

export function composePages(deps: PageLevelDeps): PageLevelSetup {
  const { machine, image, percpu, contexts, spinlocks, printk } = deps;
  const { port, harts } = machine;
  const { clock } = harts;
  const vmstat = createVmStat(port, image, percpu, harts);
  const zonesBase = image.bss("contig_page_data", MAX_NR_ZONES * ZONE_BYTES, CACHE_LINE);
  const zoneState = image.bss("min_free_kbytes", ZONE_STATE_BYTES, 8);
  const allocState = image.bss("page_alloc_state", PAGE_REPORT_BYTES, 8);
  const bindPcp = createPcp({ machine, percpu, spinlocks, vmstat, interruptPoint: contexts.interruptPoint });
  const zones = createZones(port, zonesBase, zoneState);
  const bootClock = (cycles: number): void => {
    const cpu = harts.current[0] as number;
    clock[cpu] = (clock[cpu] as number) + cycles;
  };

  const isRam = (pfn: number): boolean =>
    machine.firmwareMap.some(
      (region) => region.type === E820_RAM && pfn * PAGE_SIZE >= region.start && (pfn + 1) * PAGE_SIZE <= region.end,
    );

  /** All frames reserved, with their zone; all pageblocks movable. */
  const initMemmap = (pages: Pages, pageblocks: Pageblocks, bounds: PageLevel["zoneBounds"], endPfn: number): void => {
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
      const [start, end] = bounds[zone] as readonly [number, number];
      let present = 0;
      for (let pfn = start; pfn < end; pfn++) {
        pages.setFlags(asPfn(pfn), (zone << ZONE_SHIFT) | PG_RESERVED);
        if (pfn * PAGE_SIZE >= 0x10_0000 || isRam(pfn)) present++;
      }
      zones.setField(zone, Z_START_PFN, end > start ? start : 0);
      zones.setField(zone, Z_SPANNED, Math.max(0, end - start));
      zones.setField(zone, Z_PRESENT, present);
      bootClock(CYC_MEMMAP_ROW * Math.max(0, end - start));
    }
    // Frame 0, and the rows beyond RAM that exist so that every frame has a buddy.
    pages.setFlags(asPfn(0), PG_RESERVED);
    for (let pfn = endPfn; pfn < pages.nrFrames; pfn++) pages.setFlags(asPfn(pfn), PG_RESERVED);
    for (let pfn = 0; pfn < pages.nrFrames; pfn += PAGEBLOCK_NR_PAGES) {
      pageblocks.setMigratetype(asPfn(pfn), MIGRATE_MOVABLE);
    }
  };

  /** Hands the contiguous area to its zone's buddy, under its own type. */
  const activateCma = ({ pageblocks, pageAlloc }: PageLevel, { base, nrPages }: CmaArea): void => {
    const end = asPfn(base + nrPages);
    for (let pfn = base as number; pfn < end; pfn += PAGEBLOCK_NR_PAGES) {
      pageblocks.setMigratetype(asPfn(pfn), MIGRATE_CMA);
    }
    pageAlloc.addManagedRange(base, end);
    zones.setField(zones.zoneOfPfn(base), Z_CMA, nrPages);
  };

  return {
    vmstat,
    zones,
    bringUp(memblock, dma32LimitPfn, movablePages, cmaBytes = 0) {
      const endPfn = Math.floor(memblock.endOfDram() / PAGE_SIZE);
      const nrFrames = alignUp(endPfn, 1 << MAX_PAGE_ORDER);
      const nrZoneHeads = NR_PAGE_ORDERS * NR_MIGRATETYPES;
      const nrPcpHeads = pcpHeads(harts.nrCpus);
      const nrHeads = MAX_NR_ZONES * nrZoneHeads + nrPcpHeads + NR_LRU_HEADS;
      // Above ZONE_DMA where there is such memory: the first 16 MiB are for devices.
      const window = { minAddr: ZONE_DMA_LIMIT, topDown: false };
      const memmap = memblock.alloc(memmapBytes(nrFrames, nrHeads), PAGE_SIZE, window);
      const blocks = memblock.alloc(pageblockBytes(nrFrames), CACHE_LINE, window);
      const isMultiGen = deps.isMultiGen === true;
      const column = isMultiGen ? memblock.alloc(nrFrames, CACHE_LINE, window) : NULL;
      if (memmap === 0 || blocks === 0 || (isMultiGen && column === NULL))
        throw new Error("mm_init: no room for struct page");

      const pages = createPages(port, memmap, nrFrames, nrHeads);
      const pageblocks = createPageblocks(port, blocks, nrFrames);
      const lists = createPageLists(pages);
      const zoneBounds = zoneRanges(endPfn, dma32LimitPfn, movablePages);
      const cmaArea = cmaBytes === 0 ? null : reserveCma(memblock, zoneBounds, cmaBytes);
      initMemmap(pages, pageblocks, zoneBounds, endPfn);

      let largeFreed = (): void => {};
      const createFrames = deps.frameAllocator ?? createBuddy;
      const frames = Array.from({ length: MAX_NR_ZONES }, (_, zone) =>
        createFrames({
          port,
          pages,
          lists,
          pageblocks,
          zone,
          zoneAddr: zones.addr(zone),
          firstHead: pages.firstHead + zone * nrZoneHeads,
          charge: bootClock,
          boost: () => zones.boost(zone),
          largeFreed: () => largeFreed(),
        }),
      );
      const pcp = bindPcp(pages, lists, zones, frames, pages.firstHead + MAX_NR_ZONES * nrZoneHeads);
      const pageAlloc = createPageAllocator({
        machine,
        contexts,
        spinlocks,
        printk,
        vmstat,
        pages,
        pageblocks,
        zones,
        frames,
        pcp,
        hasCma: cmaArea !== null,
        state: allocState,
      });
      const firstLruHead = pages.firstHead + MAX_NR_ZONES * nrZoneHeads + nrPcpHeads;
      const order = isMultiGen ? createGenerations({ port, pages, zones, column }) : pairsOfLists;
      const lru = createLru({ port, spinlocks, pages, lists, zones, vmstat, firstHead: firstLruHead, order });
      const onLargeFree = (hook: () => void): void => {
        largeFreed = hook;
      };
      return { pages, lists, pageblocks, frames, pcp, pageAlloc, lru, zoneBounds, cmaArea, onLargeFree };
    },
    handOver(level, memblock, minFreeKbytes) {
      let nrPages = 0;
      const give = (start: Pfn, end: Pfn): void => {
        level.pageAlloc.addManagedRange(start, end);
        nrPages += end - start;
      };
      const ranges: [Pfn, Pfn][] = [];
      memblock.forEachFreeRange((start, end) => {
        ranges.push([start, end]);
      });
      for (const [start, end] of ranges) give(start, end);
      memblock.discard(give);
      if (level.cmaArea !== null) activateCma(level, level.cmaArea);
      for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
        zones.setField(zone, Z_NR_FREE_LEAST, zones.field(zone, Z_NR_FREE));
      }
      zones.setupMarks(harts.nrCpus, minFreeKbytes);
      return nrPages;
    },
  };
}
