/**
 * The part of boot that is about the machine's own memory: from what the firmware says to caches of objects.
 *
 *   firmware map ─▶ memblock ─▶ per-CPU areas ─▶ zones and struct page ─▶ contiguous area ─▶ slabs, DMA ─▶ hand-over
 *
 * Until the hand-over memblock is the only allocator. The static image is sealed just before, and what was reserved for
 * it and not taken goes to the buddy with the rest: whoever wants static memory takes it before or here.
 */

import {
  type Cma,
  createCma,
  createDmaSubsystem,
  createFaultInjection,
  createSlabSubsystem,
  DMA_STATIC_BYTES,
  type DmaSubsystem,
  FAULT_INJECT_BYTES,
  type FaultInjection,
  initPages,
  MEMPOOL_STATIC_BYTES,
  type Memblock,
  NR_PERCPU,
  PAGE_STRUCT_BYTES,
  type PageAllocator,
  type PageLevel,
  type PageLevelSetup,
  PG_TABLE,
  type SlabSubsystem,
  slabSubsystemStaticBytes,
  Z_PRESENT,
  ZONE_DMA32_LIMIT,
  ZONE_NAMES,
} from "../../mm/index.ts";
import { E820_RAM } from "../arch/firmware_map.ts";
import { CACHE_LINE, KERNEL_IMAGE_BASE, PAGE_SIZE } from "../params.ts";
import { KERN_INFO } from "../printk.ts";
import { alignDown, asPfn, asPhys, type PhysAddr } from "../types.ts";
import { WORK_BYTES } from "../workqueue.ts";
import { readAutoInit } from "./boot_auto_init.ts";
import type { Core } from "./boot_core.ts";
import { logCma, logMemory, logZones } from "./boot_log.ts";
import type { BootOptions } from "./kernel.ts";

export interface PhysicalMemoryDeps {
  readonly options: BootOptions;
  readonly core: Core;
  readonly pageSetup: PageLevelSetup;
  /** Knows no memory yet. */
  readonly memblock: Memblock;
  readonly cmaState: PhysAddr;
}

export interface PhysicalMemory {
  readonly level: PageLevel;
  /** With zeroing and refusals around it, as asked for. */
  readonly pageAlloc: PageAllocator;
  /** With failslab, fail_page_alloc or fail_nth. */
  readonly faults: FaultInjection | undefined;
  readonly cma: Cma;
  readonly slab: SlabSubsystem;
  readonly dmaSystem: DmaSubsystem;
  readonly percpuBytes: number;
  /** init_on_free: free memory is zeros, and has to stay so. */
  readonly isFreeZeroed: boolean;
  /** Static memory of what is built on top. */
  readonly reapWork: PhysAddr;
  readonly mempoolStatics: PhysAddr;
}

/** How much the static image may grow before it is sealed. */
const IMAGE_ROOM = 512 * 1024;

export function composePhysicalMemory(deps: PhysicalMemoryDeps): PhysicalMemory {
  const { options, core, pageSetup, memblock, cmaState } = deps;
  const { nrCpus, ramBytes } = options;
  const { parameters, machine, image, printk, percpu, contexts, spinlocks, staleTlb } = core;
  for (const region of machine.firmwareMap) {
    if (region.type === E820_RAM) memblock.add(asPhys(region.start), region.end - region.start);
  }
  memblock.reserve(asPhys(0), PAGE_SIZE); // frame 0 stays NULL
  // The image is reserved with room to grow: subsystems still take static memory until it is sealed.
  memblock.reserve(asPhys(KERNEL_IMAGE_BASE), IMAGE_ROOM);
  memblock.allowResize();
  const percpuBytes = percpu.unitBytes() * nrCpus;
  percpu.setup(memblock.alloc(percpuBytes, PAGE_SIZE, { minAddr: 16 * 1024 * 1024, topDown: false }), nrCpus);
  printk(KERN_INFO, `setup_percpu: nr_cpu_ids:${nrCpus}, ${percpu.unitBytes()} bytes/cpu`);

  const dma32Limit = alignDown(parameters.size("dma32_limit", ZONE_DMA32_LIMIT), 2 * 1024 * 1024);
  const movable = Math.min(parameters.size("movablecore", 0), ramBytes / 2);
  const cmaBytes = parameters.size("cma", 0);
  const level = pageSetup.bringUp(memblock, dma32Limit / PAGE_SIZE, Math.floor(movable / PAGE_SIZE), cmaBytes);
  const { pages, pageblocks } = level;
  staleTlb.knowTables((frame) => (pages.flags(asPfn(frame)) & PG_TABLE) !== 0);
  const faultTexts = {
    failslab: parameters.get("failslab"),
    failPageAlloc: parameters.get("fail_page_alloc"),
    failNth: parameters.get("fail_nth"),
  };
  const faultState = image.bss("fault_inject", FAULT_INJECT_BYTES, 8);
  const faultDeps = { machine, contexts, printk, state: faultState, onRequest: options.onAllocRequest };
  const faults = createFaultInjection(faultTexts, faultDeps); // refusals
  const autoInit = readAutoInit(parameters, printk);
  const initialised = autoInit === undefined ? level.pageAlloc : initPages(level.pageAlloc, autoInit);
  const pageAlloc = faults?.failPages(initialised) ?? initialised;
  const { vmstat, zones } = pageSetup;
  logCma(printk, cmaBytes, level.cmaArea);
  logZones(printk, ZONE_NAMES, level.zoneBounds);
  const cma = createCma({
    machine,
    contexts,
    spinlocks,
    printk,
    vmstat,
    pageblocks,
    pageAlloc,
    area: level.cmaArea,
    state: cmaState,
  }); // contiguous area

  const slab = createSlabSubsystem({
    machine,
    printk,
    contexts,
    spinlocks,
    pages,
    pageAlloc,
    vmstat,
    statics: image.bss("slab", slabSubsystemStaticBytes(nrCpus), CACHE_LINE),
    objectCache: options.objectCache ?? parameters.choice("object_cache", ["magazine", "passthrough"]),
    depot: parameters.choice("depot", ["locked", "lockfree"]),
    autoInit,
    wrapLayer: faults?.failObjects,
  });
  const reapWork = image.bss("slab_reap", WORK_BYTES, 8);
  const mempoolStatics = image.bss("mempools", MEMPOOL_STATIC_BYTES, 8);
  const dmaSystem = createDmaSubsystem({
    machine,
    contexts,
    spinlocks,
    printk,
    pageAlloc,
    kmalloc: slab.kmalloc,
    cma,
    image,
    pages,
    isDebug: parameters.choice("dma_debug", ["on", "off"]) === "on",
    isIommu: parameters.choice("iommu", ["off", "on"]) === "on",
    swiotlbBytes: parameters.size("swiotlb", 0),
    statics: image.bss("dma", DMA_STATIC_BYTES, 8),
  }); // what devices may touch
  const imageEnd = image.seal();
  if (imageEnd > KERNEL_IMAGE_BASE + IMAGE_ROOM) throw new Error("boot: the kernel image outgrew its room");
  memblock.free(imageEnd, KERNEL_IMAGE_BASE + IMAGE_ROOM - imageEnd);
  const nrHandedOver = pageSetup.handOver(level, memblock, parameters.number("min_free_kbytes", 0) || undefined);
  const presentPages = ZONE_NAMES.reduce((sum, _, zone) => sum + zones.field(zone, Z_PRESENT), 0);
  const cmaReserved = (level.cmaArea?.nrPages ?? 0) * PAGE_SIZE;
  const ram = { availableBytes: nrHandedOver * PAGE_SIZE, ramBytes: presentPages * PAGE_SIZE, cmaBytes: cmaReserved };
  logMemory(printk, { ...ram, image, memmapBytes: pages.nrFrames * PAGE_STRUCT_BYTES, percpuBytes });
  vmstat.modItem(NR_PERCPU, Math.ceil(percpuBytes / PAGE_SIZE));
  const isFreeZeroed = autoInit?.onFree === true;
  return { level, pageAlloc, faults, cma, slab, dmaSystem, percpuBytes, isFreeZeroed, reapWork, mempoolStatics };
}
