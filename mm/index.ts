/**
 * The front door of the memory subsystem: what other rooms may use.
 */

export { gfpNames, parseGfpNames } from "./gfp.ts";
export { MIGRATETYPE_NAMES, NR_MIGRATETYPES } from "./migratetype.ts";
export {
  freeCountAddr,
  MAX_NR_ZONES,
  NR_PAGE_ORDERS,
  WMARK_HIGH,
  WMARK_LOW,
  WMARK_MIN,
  WMARK_PROMO,
  Z_BOOST,
  Z_LOWMEM_RESERVE,
  Z_MANAGED,
  Z_NR_FREE,
  Z_PRESENT,
  Z_SPANNED,
  Z_START_PFN,
  ZONE_NAMES,
  type Zones,
} from "./mmzone.ts";
export type { PcpInfo, PerCpuPages } from "./pcp.ts";
export {
  ALLOCSTALL,
  DRAIN_ALL_PAGES,
  KMALLOC_LARGE,
  NR_ANON_MAPPED,
  NR_COMMITTED,
  NR_FILE_PAGES,
  NR_KERNEL_STACK_KB,
  NR_PAGETABLE,
  NR_PERCPU,
  NR_SLAB_RECLAIMABLE,
  NR_SLAB_UNRECLAIMABLE,
  NR_VMALLOC,
  NUMA_HIT,
  PAGE_ALLOC_EXTFRAG,
  PAGE_ALLOC_FAILED,
  PCP_REFILL,
  PCP_SPILL,
  PGALLOC_DMA,
  PGFAULT,
  PGFREE,
} from "./vmstat.ts";
export type { VmStat } from "./vmstat.ts";
