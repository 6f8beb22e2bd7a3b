/**
 * The front door of the memory subsystem: what other rooms may use.
 */

export { type AutoInit, initPages } from "./auto_init.ts";
export { BALLOON_PAGES_BYTES, type BalloonPages, createBalloonPages } from "./balloon_pages.ts";
export { type Census, takeCensus } from "./census.ts";
export { CMA_BYTES, type Cma, type CmaArea, type CmaStats, createCma } from "./cma.ts";
export { COMPACTION_BYTES, type Compaction, createCompaction } from "./compaction.ts";
export { createLockedDepot, DEPOT_EMPTY, DEPOT_FULL, type Depot, type DepotKind } from "./depot.ts";
export { createLockfreeDepot } from "./depot_lockfree.ts";
export { DIRTY_TUNABLES, DROP_CACHES } from "./dirty_limits.ts";
export { type DiskCache, newPattern } from "./disk_cache.ts";
export type { Dma } from "./dma.ts";
export type { DmaMemory } from "./dma_coherent.ts";
export { DEBUG_ENTRIES_PER_PAGE } from "./dma_debug_entries.ts";
export { type DmaDevice, NO_DEVICE } from "./dma_device.ts";
export type { DmaDeviceSpec } from "./dma_devices.ts";
export { registerDmaFiles } from "./dma_files.ts";
export {
  DMA_BIDIRECTIONAL,
  DMA_FROM_DEVICE,
  DMA_MAPPING_ERROR,
  DMA_NONE,
  DMA_TO_DEVICE,
  type DmaDirection,
} from "./dma_ops.ts";
export { type DmaPool, NO_POOL } from "./dma_pool.ts";
export { createDmaSubsystem, DMA_STATIC_BYTES, type DmaSubsystem } from "./dma_subsystem.ts";
export { extfragIndex, unusableIndex } from "./extfrag.ts";
export {
  createFaultInjection,
  FAULT_INJECT_BYTES,
  type FaultInjection,
  type FaultStats,
  type RequestObserver,
} from "./fault_inject.ts";
export { type FileMap, fileByte, MAX_FILE_BYTES } from "./filemap.ts";
export type { FrameAllocator, FrameAllocatorDeps, FrameAllocatorFactory } from "./frame_allocator.ts";
export {
  __GFP_NOWARN,
  __GFP_RETRY_MAYFAIL,
  __GFP_ZERO,
  type BlockingGfp,
  GFP_ATOMIC,
  GFP_BALLOON,
  GFP_HIGHUSER_MOVABLE,
  GFP_KERNEL,
  GFP_NOIO,
  GFP_NOWAIT,
  type Gfp,
  gfpAllowsBlocking,
  gfpMigratetype,
  gfpNames,
  gfpWith,
  parseGfpNames,
} from "./gfp.ts";
export { createHugePool, HUGETLB_BYTES, type HugePool } from "./hugetlb.ts";
export { createKernelStacks, type KernelStacks } from "./kernel_stack.ts";
export { createKernelVirtual, type KernelVirtual } from "./kernel_virtual.ts";
export { type Layout, MAX_MMAP_RND_BITS, MIN_MMAP_RND_BITS, RANDOMIZE_ALL, RANDOMIZE_NONE } from "./layout.ts";
export type { FilePart } from "./madvise.ts";
export { createMemblock, type Memblock, memblockTableBytes } from "./memblock.ts";
export { formatMemoryMap } from "./memory_map.ts";
export { createMempools, MEMPOOL_STATIC_BYTES, type MempoolInfo, type MempoolSpec, type Mempools } from "./mempool.ts";
export { type Mempool, NO_MEMPOOL } from "./mempool_elements.ts";
export { createMigration } from "./migrate.ts";
export { MIGRATE_CMA, MIGRATETYPE_NAMES, NR_MIGRATETYPES } from "./migratetype.ts";
export { composePages, type PageLevel, type PageLevelSetup } from "./mm_init.ts";
export {
  ADDRESS_SPACE_BYTES,
  ANON_VMA_BYTES,
  AS_DISK,
  AS_TMPFS,
  AS_USERS,
  MM_ASID,
  MM_COW_FAULTS,
  MM_DATA_VM,
  MM_FAULTS,
  MM_LOCKED_VM,
  MM_MAJ_FAULTS,
  MM_PEAK_RSS,
  MM_PEAK_VM,
  MM_PGD,
  MM_RSS_ANON,
  MM_RSS_FILE,
  MM_RSS_SHMEM,
  MM_STACK_TOP,
  MM_STACK_VM,
  MM_STRUCT_BYTES,
  MM_SWAPENTS,
  MM_TOTAL_VM,
  MM_USERS,
  VM_LOCKED,
  VM_SHARED,
  VMA_ANON,
  VMA_BYTES,
  VMA_HEAP,
  VMA_STACK,
} from "./mm_struct.ts";
export type { MappedFile } from "./mmap.ts";
export {
  freeCountAddr,
  MAX_NR_ZONES,
  NR_LRU_LISTS,
  NR_PAGE_ORDERS,
  WMARK_HIGH,
  WMARK_LOW,
  WMARK_MIN,
  WMARK_PROMO,
  Z_BOOST,
  Z_CMA,
  Z_LOWMEM_RESERVE,
  Z_MANAGED,
  Z_NR_FREE,
  Z_NR_FREE_CMA,
  Z_NR_LRU,
  Z_NR_MLOCK,
  Z_PRESENT,
  Z_SPANNED,
  Z_START_PFN,
  ZONE_BYTES,
  ZONE_DMA32_LIMIT,
  ZONE_NAMES,
  type Zones,
} from "./mmzone.ts";
export type { CpuCacheStats } from "./object_cache.ts";
export {
  OOM_DEADLOCK,
  OOM_KILLED,
  OOM_KILLED_ALLOCATING,
  OOM_NOBODY,
  OOM_PANIC_ASKED,
  type OomCandidate,
  oomBadness,
  oomHeader,
  oomMemoryText,
  oomPanicText,
  oomReapedText,
  oomTasksText,
  oomVictimText,
  selectVictim,
} from "./oom.ts";
export {
  orderOfFlags,
  PAGE_STRUCT_BYTES,
  type Pages,
  PG_ALLOCATED,
  PG_ANON,
  PG_BUDDY,
  PG_LARGE_KMALLOC,
  PG_PCP,
  PG_RESERVED,
  PG_SLAB,
  PG_STATE,
  PG_TABLE,
  zoneOfFlags,
} from "./page.ts";
export type { PageAllocator } from "./page_alloc.ts";
export { type PageOwners, pageOwners } from "./page_owners.ts";
export { createPageRefs } from "./page_ref.ts";
export {
  createPageReporting,
  PAGE_REPORTING_CAPACITY,
  type PageReporting,
  type ReportBlocks,
} from "./page_reporting.ts";
export type { Pageblocks } from "./pageblock.ts";
export type { PcpInfo, PerCpuPages } from "./pcp.ts";
export { createPageTables, type PageTables } from "./pgtable.ts";
export {
  createProcessMemory,
  type MmCaches,
  PROCESS_MEMORY_BYTES,
  type ProcessMemory,
} from "./process_memory.ts";
export { RADIX_NODE_BYTES } from "./radix.ts";
export type { Reclaim } from "./reclaim.ts";
export { MULTI_GEN } from "./reclaim_policy.ts";
export { composeSwap, RECLAIM_STATIC_BYTES, type ReclaimSubsystem } from "./reclaim_subsystem.ts";
export { SG_BYTES } from "./scatterlist.ts";
export { formatMemInfo } from "./show_mem.ts";
export { createSimpleFrames, type SimpleFrames } from "./simple_frames.ts";
export { createSimpleObjectCache } from "./simple_object_cache.ts";
export {
  CACHE_CC,
  CACHE_DEPOT,
  CACHE_SLAB_ALLOCS,
  CACHE_SLAB_FREES,
  cacheName,
  type KmemCache,
  NO_CACHE,
  slabBytes,
} from "./slab_descriptor.ts";
export { SLAB_HWCACHE_ALIGN } from "./slab_layout.ts";
export {
  createSlabSubsystem,
  type ObjectCacheFactory,
  type SlabSubsystem,
  slabSubsystemStaticBytes,
} from "./slab_subsystem.ts";
export { createSmaps, noPages, PSS_PER_PAGE, type Smaps, type VmaPages, type VmaReport } from "./smaps.ts";
export type { SwapArea } from "./swap_area.ts";
export type { Swiotlb } from "./swiotlb.ts";
export { THP_DEFRAG_MODES, THP_POLICIES, type Thp } from "./thp.ts";
export { createVmalloc, VMALLOC_STATIC_BYTES, VMAP_AREA_BYTES, type Vmalloc } from "./vmalloc.ts";
export { MAX_SWAPPINESS, type Vmscan } from "./vmscan.ts";
export type { VmStat } from "./vmstat.ts";
export {
  ALLOCSTALL,
  BALLOON_DEFLATE,
  BALLOON_INFLATE,
  BALLOON_MIGRATE,
  CMA_ALLOC_FAIL,
  CMA_ALLOC_SUCCESS,
  COMPACT_FAIL,
  COMPACT_FREE_SCANNED,
  COMPACT_ISOLATED,
  COMPACT_MIGRATE_SCANNED,
  COMPACT_STALL,
  COMPACT_SUCCESS,
  DRAIN_ALL_PAGES,
  DROP_PAGECACHE,
  DROP_SLAB,
  KCOMPACTD_FREE_SCANNED,
  KCOMPACTD_MIGRATE_SCANNED,
  KCOMPACTD_WAKE,
  KMALLOC_LARGE,
  NR_ACTIVE_ANON,
  NR_ACTIVE_FILE,
  NR_ANON_MAPPED,
  NR_ANON_THPS,
  NR_BLOCKDEV_PAGES,
  NR_COMMITTED,
  NR_DIRTIED,
  NR_FILE_DIRTY,
  NR_FILE_MAPPED,
  NR_FILE_PAGES,
  NR_HUGETLB,
  NR_INACTIVE_ANON,
  NR_INACTIVE_FILE,
  NR_ISOLATED_ANON,
  NR_ISOLATED_FILE,
  NR_KERNEL_STACK_KB,
  NR_MLOCK,
  NR_PAGETABLE,
  NR_PERCPU,
  NR_SHMEM,
  NR_SLAB_RECLAIMABLE,
  NR_SLAB_UNRECLAIMABLE,
  NR_SWAPCACHE,
  NR_TLB_LOCAL_FLUSH_ALL,
  NR_TLB_LOCAL_FLUSH_ONE,
  NR_TLB_REMOTE_FLUSH,
  NR_TLB_REMOTE_FLUSH_RECEIVED,
  NR_UNEVICTABLE,
  NR_VMALLOC,
  NR_VMSCAN_IMMEDIATE,
  NR_VMSCAN_WRITE,
  NR_WRITEBACK,
  NR_WRITTEN,
  NUMA_HIT,
  OOM_KILL,
  PAGE_ALLOC_EXTFRAG,
  PAGE_ALLOC_FAILED,
  PAGEOUTRUN,
  PCP_BUSY,
  PCP_REFILL,
  PCP_SPILL,
  PGACTIVATE,
  PGALLOC_DMA,
  PGDEACTIVATE,
  PGFAULT,
  PGFREE,
  PGLAZYFREE,
  PGLAZYFREED,
  PGMAJFAULT,
  PGMIGRATE_FAIL,
  PGMIGRATE_SUCCESS,
  PGPGIN,
  PGPGOUT,
  PGREFILL,
  PGSCAN_ANON,
  PGSCAN_DIRECT,
  PGSCAN_FILE,
  PGSCAN_KSWAPD,
  PGSTEAL_ANON,
  PGSTEAL_DIRECT,
  PGSTEAL_FILE,
  PGSTEAL_KSWAPD,
  PSWPIN,
  PSWPOUT,
  SLABS_SCANNED,
  SWAP_RA,
  SWAP_RA_HIT,
  THP_COLLAPSE_ALLOC,
  THP_COLLAPSE_ALLOC_FAILED,
  THP_FAULT_ALLOC,
  THP_FAULT_FALLBACK,
  THP_SPLIT,
  UNEVICTABLE_PGMLOCKED,
  UNEVICTABLE_PGMUNLOCKED,
  WORKINGSET_ACTIVATE_ANON,
  WORKINGSET_ACTIVATE_FILE,
  WORKINGSET_REFAULT_ANON,
  WORKINGSET_REFAULT_FILE,
  WORKINGSET_RESTORE_ANON,
  WORKINGSET_RESTORE_FILE,
} from "./vmstat.ts";
export type { Writeback } from "./writeback.ts";
