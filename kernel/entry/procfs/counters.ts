/**
 * Linux's memory counters (6.12): their names in order, and the values we keep.
 *
 * zoneinfo and vmstat print the same names. A counter that we do not keep is 0. Not kept per zone: allocations
 * (numa_hit); the number of the whole machine is in vmstat.
 * Source: mm/vmstat.c (vmstat_text).
 */

import {
  NR_ACTIVE_ANON,
  NR_ACTIVE_FILE,
  NR_ANON_MAPPED,
  NR_ANON_THPS,
  NR_DIRTIED,
  NR_FILE_DIRTY,
  NR_FILE_MAPPED,
  NR_FILE_PAGES,
  NR_INACTIVE_ANON,
  NR_INACTIVE_FILE,
  NR_ISOLATED_ANON,
  NR_ISOLATED_FILE,
  NR_KERNEL_STACK_KB,
  NR_LRU_LISTS,
  NR_PAGETABLE,
  NR_SHMEM,
  NR_SLAB_RECLAIMABLE,
  NR_SLAB_UNRECLAIMABLE,
  NR_SWAPCACHE,
  NR_UNEVICTABLE,
  NR_VMSCAN_IMMEDIATE,
  NR_VMSCAN_WRITE,
  NR_WRITEBACK,
  NR_WRITTEN,
  type VmStat,
  WORKINGSET_ACTIVATE_ANON,
  WORKINGSET_ACTIVATE_FILE,
  WORKINGSET_REFAULT_ANON,
  WORKINGSET_REFAULT_FILE,
  WORKINGSET_RESTORE_ANON,
  WORKINGSET_RESTORE_FILE,
} from "../../../mm/index.ts";
import { words } from "./columns.ts";

/** Counted per zone; the first is the pages free. */
export const ZONE_COUNTERS = words(`
  nr_free_pages nr_zone_inactive_anon nr_zone_active_anon nr_zone_inactive_file nr_zone_active_file
  nr_zone_unevictable nr_zone_write_pending nr_mlock nr_bounce nr_zspages nr_free_cma nr_unaccepted
`);

/** The first of the counters of LRU lists, which follow in the order of the lists. */
const FIRST_LRU = ZONE_COUNTERS.indexOf("nr_zone_inactive_anon");

/** The zone counters that are kept; `lruSize` is the length of an LRU list. */
export function zoneCounter(
  name: string,
  nrFree: number,
  nrFreeCma: number,
  nrMlock: number,
  lruSize: (list: number) => number,
): number {
  if (name === "nr_free_pages") return nrFree;
  if (name === "nr_mlock") return nrMlock;
  const list = ZONE_COUNTERS.indexOf(name) - FIRST_LRU;
  if (list >= 0 && list < NR_LRU_LISTS) return lruSize(list);
  return name === "nr_free_cma" ? nrFreeCma : 0;
}

/** Allocations by the node that served them. */
export const NUMA_COUNTERS = words("numa_hit numa_miss numa_foreign numa_interleave numa_local numa_other");

/** Counted per node; the machine has one. */
export const NODE_COUNTERS = words(`
  nr_inactive_anon nr_active_anon nr_inactive_file nr_active_file nr_unevictable
  nr_slab_reclaimable nr_slab_unreclaimable nr_isolated_anon nr_isolated_file
  workingset_nodes workingset_refault_anon workingset_refault_file workingset_activate_anon workingset_activate_file
  workingset_restore_anon workingset_restore_file workingset_nodereclaim
  nr_anon_pages nr_mapped nr_file_pages nr_dirty nr_writeback nr_writeback_temp
  nr_shmem nr_shmem_hugepages nr_shmem_pmdmapped nr_file_hugepages nr_file_pmdmapped nr_anon_transparent_hugepages
  nr_vmscan_write nr_vmscan_immediate_reclaim nr_dirtied nr_written nr_throttled_written nr_kernel_misc_reclaimable
  nr_foll_pin_acquired nr_foll_pin_released nr_kernel_stack nr_page_table_pages nr_sec_page_table_pages
  nr_iommu_pages nr_swapcached
  pgpromote_success pgpromote_candidate pgdemote_kswapd pgdemote_direct pgdemote_khugepaged
`);

/** The node counters that are kept. */
const NODE_ITEMS: ReadonlyMap<string, number> = new Map([
  ["nr_inactive_anon", NR_INACTIVE_ANON],
  ["nr_active_anon", NR_ACTIVE_ANON],
  ["nr_inactive_file", NR_INACTIVE_FILE],
  ["nr_active_file", NR_ACTIVE_FILE],
  ["nr_unevictable", NR_UNEVICTABLE],
  ["nr_isolated_anon", NR_ISOLATED_ANON],
  ["nr_isolated_file", NR_ISOLATED_FILE],
  ["nr_swapcached", NR_SWAPCACHE],
  ["nr_writeback", NR_WRITEBACK],
  ["nr_vmscan_write", NR_VMSCAN_WRITE],
  ["nr_dirty", NR_FILE_DIRTY],
  ["nr_dirtied", NR_DIRTIED],
  ["nr_written", NR_WRITTEN],
  ["workingset_refault_file", WORKINGSET_REFAULT_FILE],
  ["workingset_activate_file", WORKINGSET_ACTIVATE_FILE],
  ["workingset_restore_file", WORKINGSET_RESTORE_FILE],
  ["workingset_refault_anon", WORKINGSET_REFAULT_ANON],
  ["workingset_activate_anon", WORKINGSET_ACTIVATE_ANON],
  ["workingset_restore_anon", WORKINGSET_RESTORE_ANON],
  ["nr_slab_reclaimable", NR_SLAB_RECLAIMABLE],
  ["nr_slab_unreclaimable", NR_SLAB_UNRECLAIMABLE],
  ["nr_anon_pages", NR_ANON_MAPPED],
  ["nr_mapped", NR_FILE_MAPPED],
  ["nr_file_pages", NR_FILE_PAGES],
  ["nr_shmem", NR_SHMEM],
  ["nr_kernel_stack", NR_KERNEL_STACK_KB],
  ["nr_page_table_pages", NR_PAGETABLE],
  ["nr_anon_transparent_hugepages", NR_ANON_THPS],
]);

export function nodeCounter(vmstat: VmStat, name: string): number {
  if (name === "nr_vmscan_immediate_reclaim") return vmstat.event(NR_VMSCAN_IMMEDIATE);
  const item = NODE_ITEMS.get(name);
  return item === undefined ? 0 : vmstat.item(item);
}
