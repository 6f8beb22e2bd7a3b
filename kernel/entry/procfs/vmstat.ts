/**
 * File /proc/vmstat: every counter, one `name value` a line.
 *
 * Allocation stalls are counted once here; they stand under `allocstall_normal`, where Linux puts those of GFP_KERNEL.
 * Source: mm/vmstat.c (vmstat_text), mm/page-writeback.c (global_dirty_limits).
 */

import {
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
  DROP_PAGECACHE,
  DROP_SLAB,
  KCOMPACTD_FREE_SCANNED,
  KCOMPACTD_MIGRATE_SCANNED,
  KCOMPACTD_WAKE,
  MAX_NR_ZONES,
  NR_INACTIVE_ANON,
  NR_MLOCK,
  NR_TLB_LOCAL_FLUSH_ALL,
  NR_TLB_LOCAL_FLUSH_ONE,
  NR_TLB_REMOTE_FLUSH,
  NR_TLB_REMOTE_FLUSH_RECEIVED,
  NUMA_HIT,
  OOM_KILL,
  PAGEOUTRUN,
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
} from "../../../mm/index.ts";
import type { ProcSources } from "../proc_sources.ts";
import { words } from "./columns.ts";
import { NODE_COUNTERS, NUMA_COUNTERS, nodeCounter, ZONE_COUNTERS, zoneCounter } from "./counters.ts";

/** Files that count allocations by zone have a column for devices' memory as well. */
const ZONE_SUFFIXES = ["dma", "dma32", "normal", "movable", "device"];
const perZone = (name: string): readonly string[] => ZONE_SUFFIXES.map((suffix) => `${name}_${suffix}`);

if (ZONE_SUFFIXES.length !== MAX_NR_ZONES + 1) throw new Error("vmstat: a zone has no name");

const EVENTS: readonly string[] = [
  ...words("pgpgin pgpgout pswpin pswpout"),
  ...perZone("pgalloc"),
  ...perZone("allocstall"),
  ...perZone("pgskip"),
  ...words(`
    pgfree pgactivate pgdeactivate pglazyfree pgfault pgmajfault pglazyfreed pgrefill pgreuse
    pgsteal_kswapd pgsteal_direct pgsteal_khugepaged pgscan_kswapd pgscan_direct pgscan_khugepaged
    pgscan_direct_throttle pgscan_anon pgscan_file pgsteal_anon pgsteal_file zone_reclaim_success zone_reclaim_failed
    pginodesteal slabs_scanned kswapd_inodesteal kswapd_low_wmark_hit_quickly kswapd_high_wmark_hit_quickly
    pageoutrun pgrotated drop_pagecache drop_slab oom_kill
    numa_pte_updates numa_huge_pte_updates numa_hint_faults numa_hint_faults_local numa_pages_migrated
    pgmigrate_success pgmigrate_fail thp_migration_success thp_migration_fail thp_migration_split
    compact_migrate_scanned compact_free_scanned compact_isolated compact_stall compact_fail compact_success
    compact_daemon_wake compact_daemon_migrate_scanned compact_daemon_free_scanned
    htlb_buddy_alloc_success htlb_buddy_alloc_fail
    unevictable_pgs_culled unevictable_pgs_scanned unevictable_pgs_rescued unevictable_pgs_mlocked
    unevictable_pgs_munlocked unevictable_pgs_cleared unevictable_pgs_stranded
    thp_fault_alloc thp_fault_fallback thp_fault_fallback_charge thp_collapse_alloc thp_collapse_alloc_failed
    thp_file_alloc thp_file_fallback thp_file_fallback_charge thp_file_mapped thp_split_page thp_split_page_failed
    thp_deferred_split_page thp_underused_split_page thp_split_pmd thp_scan_exceed_none_pte thp_scan_exceed_swap_pte
    thp_scan_exceed_share_pte thp_split_pud thp_zero_page_alloc thp_zero_page_alloc_failed thp_swpout
    thp_swpout_fallback balloon_inflate balloon_deflate balloon_migrate
    nr_tlb_remote_flush nr_tlb_remote_flush_received nr_tlb_local_flush_all nr_tlb_local_flush_one
    swap_ra swap_ra_hit swpin_zero swpout_zero ksm_swpin_copy cow_ksm direct_map_level2_splits direct_map_level3_splits
    nr_unstable
  `),
];

const EVENT_IDS: ReadonlyMap<string, number> = new Map([
  ["oom_kill", OOM_KILL],
  ["pgpgin", PGPGIN],
  ["pgpgout", PGPGOUT],
  ["drop_pagecache", DROP_PAGECACHE],
  ["drop_slab", DROP_SLAB],
  ["pgalloc_dma", PGALLOC_DMA],
  ["pgalloc_dma32", PGALLOC_DMA + 1],
  ["pgalloc_normal", PGALLOC_DMA + 2],
  ["pgalloc_movable", PGALLOC_DMA + 3],
  ["allocstall_normal", ALLOCSTALL],
  ["pgfree", PGFREE],
  ["pgfault", PGFAULT],
  ["pgmajfault", PGMAJFAULT],
  ["pglazyfree", PGLAZYFREE],
  ["pglazyfreed", PGLAZYFREED],
  ["pswpin", PSWPIN],
  ["pswpout", PSWPOUT],
  ["pgscan_kswapd", PGSCAN_KSWAPD],
  ["pgscan_direct", PGSCAN_DIRECT],
  ["pgsteal_kswapd", PGSTEAL_KSWAPD],
  ["pgsteal_direct", PGSTEAL_DIRECT],
  ["pgscan_anon", PGSCAN_ANON],
  ["pgscan_file", PGSCAN_FILE],
  ["pgsteal_anon", PGSTEAL_ANON],
  ["pgsteal_file", PGSTEAL_FILE],
  ["pgactivate", PGACTIVATE],
  ["pgdeactivate", PGDEACTIVATE],
  ["pgrefill", PGREFILL],
  ["pageoutrun", PAGEOUTRUN],
  ["slabs_scanned", SLABS_SCANNED],
  ["swap_ra", SWAP_RA],
  ["swap_ra_hit", SWAP_RA_HIT],
  ["pgmigrate_success", PGMIGRATE_SUCCESS],
  ["pgmigrate_fail", PGMIGRATE_FAIL],
  ["balloon_inflate", BALLOON_INFLATE],
  ["balloon_deflate", BALLOON_DEFLATE],
  ["balloon_migrate", BALLOON_MIGRATE],
  ["compact_migrate_scanned", COMPACT_MIGRATE_SCANNED],
  ["compact_free_scanned", COMPACT_FREE_SCANNED],
  ["compact_isolated", COMPACT_ISOLATED],
  ["compact_stall", COMPACT_STALL],
  ["compact_fail", COMPACT_FAIL],
  ["compact_success", COMPACT_SUCCESS],
  ["compact_daemon_wake", KCOMPACTD_WAKE],
  ["compact_daemon_migrate_scanned", KCOMPACTD_MIGRATE_SCANNED],
  ["compact_daemon_free_scanned", KCOMPACTD_FREE_SCANNED],
  ["unevictable_pgs_mlocked", UNEVICTABLE_PGMLOCKED],
  ["unevictable_pgs_munlocked", UNEVICTABLE_PGMUNLOCKED],
  ["thp_fault_alloc", THP_FAULT_ALLOC],
  ["thp_fault_fallback", THP_FAULT_FALLBACK],
  ["thp_collapse_alloc", THP_COLLAPSE_ALLOC],
  ["thp_collapse_alloc_failed", THP_COLLAPSE_ALLOC_FAILED],
  ["nr_tlb_remote_flush", NR_TLB_REMOTE_FLUSH],
  ["nr_tlb_remote_flush_received", NR_TLB_REMOTE_FLUSH_RECEIVED],
  ["nr_tlb_local_flush_all", NR_TLB_LOCAL_FLUSH_ALL],
  ["nr_tlb_local_flush_one", NR_TLB_LOCAL_FLUSH_ONE],
]);

/** The counters of the contiguous area follow this one, on a machine that has one. */
const LAST_BEFORE_CMA = "htlb_buddy_alloc_fail";

export function formatVmstat(s: ProcSources): string {
  const { vmstat, zones } = s;
  const hits = vmstat.event(NUMA_HIT);
  const lruTotal = (list: number): number => vmstat.item(NR_INACTIVE_ANON + list);
  const rows: (readonly [name: string, value: number])[] = [];
  for (const name of ZONE_COUNTERS)
    rows.push([name, zoneCounter(name, zones.totalFree(), zones.totalFreeCma(), vmstat.item(NR_MLOCK), lruTotal)]);
  for (const name of NUMA_COUNTERS) rows.push([name, name === "numa_hit" || name === "numa_local" ? hits : 0]);
  for (const name of NODE_COUNTERS) rows.push([name, nodeCounter(vmstat, name)]);
  const { limit, background } = s.dirtyThresholds();
  rows.push(["nr_dirty_threshold", limit], ["nr_dirty_background_threshold", background]);
  rows.push(["nr_memmap_pages", 0], ["nr_memmap_boot_pages", 0]);
  for (const name of EVENTS) {
    const id = EVENT_IDS.get(name);
    const isSplit = name === "thp_split_page" || name === "thp_split_pmd";
    rows.push([name, isSplit ? vmstat.item(THP_SPLIT) : id === undefined ? 0 : vmstat.event(id)]);
    if (name !== LAST_BEFORE_CMA || zones.totalCma() === 0) continue;
    rows.push(["cma_alloc_success", vmstat.event(CMA_ALLOC_SUCCESS)], ["cma_alloc_fail", vmstat.event(CMA_ALLOC_FAIL)]);
  }
  return rows.map(([name, value]) => `${name} ${value}\n`).join("");
}
