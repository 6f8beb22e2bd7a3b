/**
 * Linux's memory counters (6.12): their names in order, and the values we keep.
 *
 * zoneinfo and vmstat print the same names. A counter that we do not keep is 0. Not kept per zone: anonymous pages and
 * allocations (numa_hit); the numbers of the whole machine are in vmstat.
 * Source: mm/vmstat.c (vmstat_text).
 */

import {
  NR_ANON_MAPPED,
  NR_FILE_PAGES,
  NR_KERNEL_STACK_KB,
  NR_PAGETABLE,
  NR_SLAB_RECLAIMABLE,
  NR_SLAB_UNRECLAIMABLE,
  type VmStat,
} from "../../../mm/index.ts";
import { words } from "./columns.ts";

/** Counted per zone; the first is the pages free. */
export const ZONE_COUNTERS = words(`
  nr_free_pages nr_zone_inactive_anon nr_zone_active_anon nr_zone_inactive_file nr_zone_active_file
  nr_zone_unevictable nr_zone_write_pending nr_mlock nr_bounce nr_zspages nr_free_cma nr_unaccepted
`);

/** The zone counters that are kept. */
export function zoneCounter(name: string, nrFree: number, nrFreeCma: number): number {
  if (name === "nr_free_pages") return nrFree;
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

/** The node counters that are kept. Lists of aged pages do not exist: all anonymous pages count as active. */
const NODE_ITEMS: ReadonlyMap<string, number> = new Map([
  ["nr_active_anon", NR_ANON_MAPPED],
  ["nr_unevictable", NR_FILE_PAGES],
  ["nr_slab_reclaimable", NR_SLAB_RECLAIMABLE],
  ["nr_slab_unreclaimable", NR_SLAB_UNRECLAIMABLE],
  ["nr_anon_pages", NR_ANON_MAPPED],
  ["nr_file_pages", NR_FILE_PAGES],
  ["nr_kernel_stack", NR_KERNEL_STACK_KB],
  ["nr_page_table_pages", NR_PAGETABLE],
]);

export function nodeCounter(vmstat: VmStat, name: string): number {
  const item = NODE_ITEMS.get(name);
  return item === undefined ? 0 : vmstat.item(item);
}
