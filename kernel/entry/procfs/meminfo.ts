/**
 * File /proc/meminfo: where the memory is, in kilobytes.
 *
 *   MemTotal      4 · Σ managed pages of the zones
 *   MemFree       4 · Σ pages free in the buddies; pages on per-CPU lists are used memory here (W9)
 *   MemAvailable  what a new program could get without swapping: free, less what zones keep back, plus the part of the
 *                 reclaimable slabs above the low marks
 *   Slab          SReclaimable + SUnreclaim
 *   Cached        pages of files. A ramfs has no other copy of them, so they are also Unevictable, as in Linux
 *   Active, Inactive, their (anon) and (file) parts: pages on the LRU lists (mm/lru.ts)
 *   SwapCached    pages that are in RAM and still have a slot in swap
 *   CommitLimit   what overcommit_memory=2 would promise: vm.overcommit_ratio percent of RAM, and all of swap
 *   DirectMap2M   the identity map of all RAM
 *
 * What this kernel has not (buffers, dirty pages of files) is 0, never absent: programs look for the names.
 * Source: fs/proc/meminfo.c, mm/show_mem.c (si_mem_available).
 */

import {
  NR_ACTIVE_ANON,
  NR_ACTIVE_FILE,
  NR_ANON_MAPPED,
  NR_ANON_THPS,
  NR_BLOCKDEV_PAGES,
  NR_COMMITTED,
  NR_FILE_DIRTY,
  NR_FILE_MAPPED,
  NR_FILE_PAGES,
  NR_HUGETLB,
  NR_INACTIVE_ANON,
  NR_INACTIVE_FILE,
  NR_KERNEL_STACK_KB,
  NR_MLOCK,
  NR_PAGETABLE,
  NR_SHMEM,
  NR_SLAB_RECLAIMABLE,
  NR_SLAB_UNRECLAIMABLE,
  NR_SWAPCACHE,
  NR_UNEVICTABLE,
  NR_VMALLOC,
  NR_WRITEBACK,
} from "../../../mm/index.ts";
import { PAGE_SIZE, VMALLOC_BYTES } from "../../params.ts";
import type { ProcSources } from "../proc_sources.ts";
import { left, pagesToKib, right } from "./columns.ts";
import { totalLowWmark } from "./zone_reader.ts";

const KIB = 1024;
const HUGE_PAGE_KIB = 2048;
const VMALLOC_TOTAL_KIB = VMALLOC_BYTES / KIB;

/** si_mem_available(), pages. Pages of a ramfs cannot be reclaimed and are on no list of files. */
export function availablePages(s: ProcSources): number {
  const reclaimable = [
    s.vmstat.item(NR_SLAB_RECLAIMABLE),
    s.vmstat.item(NR_ACTIVE_FILE) + s.vmstat.item(NR_INACTIVE_FILE),
  ];
  const usable = reclaimable.reduce((sum, nr) => sum + nr - Math.min(Math.floor(nr / 2), totalLowWmark(s)), 0);
  return Math.max(0, s.zones.totalFree() - s.zones.totalReserve() + usable);
}

type Row = readonly [name: string, kib: number];

function memoryRows(s: ProcSources): readonly Row[] {
  const { zones, vmstat } = s;
  const kib = (item: number): number => pagesToKib(vmstat.item(item));
  const anon = kib(NR_ANON_MAPPED);
  const swap = s.swapTotals();
  const buffers = kib(NR_BLOCKDEV_PAGES);
  const cached = kib(NR_FILE_PAGES) - buffers;
  return [
    ["MemTotal", pagesToKib(zones.totalManaged())],
    ["MemFree", pagesToKib(zones.totalFree())],
    ["MemAvailable", pagesToKib(availablePages(s))],
    ["Buffers", buffers],
    ["Cached", cached],
    ["SwapCached", kib(NR_SWAPCACHE)],
    ["Active", kib(NR_ACTIVE_ANON) + kib(NR_ACTIVE_FILE)],
    ["Inactive", kib(NR_INACTIVE_ANON) + kib(NR_INACTIVE_FILE)],
    ["Active(anon)", kib(NR_ACTIVE_ANON)],
    ["Inactive(anon)", kib(NR_INACTIVE_ANON)],
    ["Active(file)", kib(NR_ACTIVE_FILE)],
    ["Inactive(file)", kib(NR_INACTIVE_FILE)],
    ["Unevictable", kib(NR_UNEVICTABLE)],
    ["Mlocked", kib(NR_MLOCK)],
    ["SwapTotal", pagesToKib(swap.total)],
    ["SwapFree", pagesToKib(swap.free)],
    ["Dirty", kib(NR_FILE_DIRTY)],
    ["Writeback", kib(NR_WRITEBACK)],
    ["AnonPages", anon],
    ["Mapped", pagesToKib(vmstat.item(NR_FILE_MAPPED))],
    ["Shmem", pagesToKib(vmstat.item(NR_SHMEM))],
  ];
}

/** Only on a machine that has an area: readers of the usual layout see nothing new. */
function cmaRows({ zones }: ProcSources): readonly Row[] {
  if (zones.totalCma() === 0) return [];
  return [
    ["CmaTotal", pagesToKib(zones.totalCma())],
    ["CmaFree", pagesToKib(zones.totalFreeCma())],
  ];
}

function kernelRows(s: ProcSources): readonly Row[] {
  const { vmstat } = s;
  const reclaimable = pagesToKib(vmstat.item(NR_SLAB_RECLAIMABLE));
  const unreclaimable = pagesToKib(vmstat.item(NR_SLAB_UNRECLAIMABLE));
  return [
    ["KReclaimable", reclaimable],
    ["Slab", reclaimable + unreclaimable],
    ["SReclaimable", reclaimable],
    ["SUnreclaim", unreclaimable],
    ["KernelStack", vmstat.item(NR_KERNEL_STACK_KB)],
    ["PageTables", pagesToKib(vmstat.item(NR_PAGETABLE))],
    ["SecPageTables", 0],
    ["NFS_Unstable", 0],
    ["Bounce", 0],
    ["WritebackTmp", 0],
    ["CommitLimit", pagesToKib(s.commitLimit())],
    ["Committed_AS", pagesToKib(vmstat.item(NR_COMMITTED))],
    ["VmallocTotal", VMALLOC_TOTAL_KIB],
    ["VmallocUsed", pagesToKib(vmstat.item(NR_VMALLOC))],
    ["VmallocChunk", 0],
    ["Percpu", pagesToKib(Math.ceil(s.percpuBytes / PAGE_SIZE))],
    ["HardwareCorrupted", 0],
    ["AnonHugePages", pagesToKib(s.vmstat.item(NR_ANON_THPS) * 512)],
    ["ShmemHugePages", 0],
    ["ShmemPmdMapped", 0],
    ["FileHugePages", 0],
    ["FilePmdMapped", 0],
    ...cmaRows(s),
    ["Unaccepted", 0],
  ];
}

/** Numbers of huge pages; these lines have no unit. Nobody maps pages of the pool: all of them are free. */
const hugePageRows = (nr: number): readonly Row[] => [
  ["HugePages_Total", nr],
  ["HugePages_Free", nr],
  ["HugePages_Rsvd", 0],
  ["HugePages_Surp", 0],
];

/** Numbers end in one column, also behind a name that is longer than its own. */
function formatNumber(name: string, value: number): string {
  const label = left(`${name}:`, 16);
  return label + right(value, 24 - label.length);
}

const formatKib = ([name, kib]: Row): string => `${formatNumber(name, kib)} kB\n`;

export function formatMeminfo(s: ProcSources): string {
  const ramKib = Math.floor(s.port.sizeBytes / KIB);
  const nrHuge = s.vmstat.item(NR_HUGETLB);
  const tail: readonly Row[] = [
    ["Hugepagesize", HUGE_PAGE_KIB],
    ["Hugetlb", nrHuge * HUGE_PAGE_KIB],
    ["DirectMap4k", ramKib % HUGE_PAGE_KIB],
    ["DirectMap2M", ramKib - (ramKib % HUGE_PAGE_KIB)],
  ];
  const counts = hugePageRows(nrHuge).map(([name, nr]) => `${formatNumber(name, nr)}\n`);
  return [...memoryRows(s), ...kernelRows(s)].map(formatKib).join("") + counts.join("") + tail.map(formatKib).join("");
}
