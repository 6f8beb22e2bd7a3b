/**
 * Counters: what the memory subsystem did, and where every page is.
 *
 * Two kinds. *Events* only count up; each CPU counts its own in its per-CPU area, and a reader adds the copies up, so
 * that a fast path never writes a line that another CPU writes. Interrupts are off between the load and the store, as
 * a handler on top counts too (x86 has one instruction for it). What the per-CPU page lists serve and take back they
 * count themselves, under their own guard (pcp.ts), and a reader asks them. *Items* are gauges (pages of slabs, of page
 * tables); they change on slow paths only and are one global word each, updated atomically. The free pages of a zone
 * are in the zone itself (mmzone.ts), under its lock.
 *
 *   VMS-1  an item never goes below zero
 *   VMS-2  the sum over CPUs of an event never decreases, and no count is lost to an interrupt in between
 *
 * Names are Linux's (mm/vmstat.c), so that /proc/vmstat reads alike.
 */

import type { Harts } from "../kernel/arch/harts.ts";
import type { MemoryPort } from "../kernel/arch/port.ts";
import type { KernelImage } from "../kernel/image.ts";
import type { PerCpu } from "../kernel/percpu.ts";
import type { Context, PhysAddr } from "../kernel/types.ts";

// ── Events ─────────────────────────────────────────────────────────────────────────────────────────────────────────

export const PGALLOC_DMA = 0;
export const PGALLOC_DMA32 = 1;
export const PGALLOC_NORMAL = 2;
export const PGALLOC_MOVABLE = 3;
export const PGFREE = 4;
export const PGFAULT = 5;
export const PCP_REFILL = 6;
export const PCP_SPILL = 7;
export const ALLOCSTALL = 8;
export const PAGE_ALLOC_FAILED = 9;
export const PAGE_ALLOC_EXTFRAG = 10;
export const NUMA_HIT = 11;
export const DRAIN_ALL_PAGES = 12;
export const KMALLOC_LARGE = 13;
/** Processes killed because a page fault found no memory. */
export const OOM_KILL = 14;
/** A CPU found its per-CPU list in other hands and went to the buddy. */
export const PCP_BUSY = 15;
export const PGMIGRATE_SUCCESS = 16;
export const PGMIGRATE_FAIL = 17;
export const CMA_ALLOC_SUCCESS = 18;
export const CMA_ALLOC_FAIL = 19;
/** Compaction: requests that waited for it and how they ended; what its scanners looked at and moved. */
export const COMPACT_STALL = 20;
export const COMPACT_FAIL = 21;
export const COMPACT_SUCCESS = 22;
export const COMPACT_MIGRATE_SCANNED = 23;
export const COMPACT_FREE_SCANNED = 24;
export const COMPACT_ISOLATED = 25;
export const KCOMPACTD_WAKE = 26;
export const KCOMPACTD_MIGRATE_SCANNED = 27;
export const KCOMPACTD_FREE_SCANNED = 28;
/** Faults that waited for a device; pages read from and written to swap. */
export const PGMAJFAULT = 29;
export const PSWPIN = 30;
export const PSWPOUT = 31;
/** Pages looked at and freed by reclaim, by who did it. */
export const PGSCAN_KSWAPD = 32;
export const PGSCAN_DIRECT = 33;
export const PGSTEAL_KSWAPD = 34;
export const PGSTEAL_DIRECT = 35;
/** The same by kind of page. */
export const PGSCAN_ANON = 36;
export const PGSCAN_FILE = 37;
export const PGSTEAL_ANON = 38;
export const PGSTEAL_FILE = 39;
/** Pages that went to the active list, that left it, that were looked at there. */
export const PGACTIVATE = 40;
export const PGDEACTIVATE = 41;
export const PGREFILL = 42;
/** Rounds of kswapd. */
export const PAGEOUTRUN = 43;
export const SLABS_SCANNED = 44;
/** Pages read ahead from swap, and those of them that were wanted. */
export const SWAP_RA = 45;
export const SWAP_RA_HIT = 46;
/** Pages given to the host, taken back, and given in exchange for others. */
export const BALLOON_INFLATE = 47;
export const BALLOON_DEFLATE = 48;
export const BALLOON_MIGRATE = 49;
/** Shoot-downs that interrupted other CPUs, the interrupts they took; own flushes, of address spaces and of pages. */
export const NR_TLB_REMOTE_FLUSH = 50;
export const NR_TLB_REMOTE_FLUSH_RECEIVED = 51;
export const NR_TLB_LOCAL_FLUSH_ALL = 52;
export const NR_TLB_LOCAL_FLUSH_ONE = 53;
/** Faults that got a huge page, and those that found none; collapses (thp.ts). */
export const THP_FAULT_ALLOC = 54;
export const THP_FAULT_FALLBACK = 55;
export const THP_COLLAPSE_ALLOC = 56;
export const THP_COLLAPSE_ALLOC_FAILED = 57;
/** Pages that MADV_FREE has marked, and those of them that reclaim has dropped (lazyfree.ts). */
export const PGLAZYFREE = 58;
export const PGLAZYFREED = 59;
/** KiB read from disks and written to them, whatever for. */
export const PGPGIN = 60;
export const PGPGOUT = 61;
/** Dirty pages that reclaim met and left to the flusher; dropped caches, by kind. */
export const NR_VMSCAN_IMMEDIATE = 62;
export const DROP_PAGECACHE = 63;
export const DROP_SLAB = 64;
/** Pages that became locked into memory, and that were so no more. */
export const UNEVICTABLE_PGMLOCKED = 65;
export const UNEVICTABLE_PGMUNLOCKED = 66;
export const NR_VM_EVENTS = 67;

// ── Items, in pages unless the name says otherwise ─────────────────────────────────────────────────────────────────

export const NR_ANON_MAPPED = 0;
export const NR_SLAB_RECLAIMABLE = 1;
export const NR_SLAB_UNRECLAIMABLE = 2;
/** In KiB, as in Linux. */
export const NR_KERNEL_STACK_KB = 3;
export const NR_PAGETABLE = 4;
/** Pages of files, of disks and of shared memory, and pipes. */
export const NR_FILE_PAGES = 5;
/** Pages promised to processes by brk and mmap, touched or not. */
export const NR_COMMITTED = 6;
export const NR_PERCPU = 7;
export const NR_VMALLOC = 8;
/** Pages of the contiguous area that are out to drivers. */
export const NR_CMA_USED = 9;
/** Pages on the LRU lists (lru.ts), in the order of its lists. */
export const NR_INACTIVE_ANON = 10;
export const NR_ACTIVE_ANON = 11;
export const NR_INACTIVE_FILE = 12;
export const NR_ACTIVE_FILE = 13;
export const NR_UNEVICTABLE = 14;
/** Pages taken off them for a while. */
export const NR_ISOLATED_ANON = 15;
export const NR_ISOLATED_FILE = 16;
/** Huge pages in the pool of hugetlb.ts, of 2 MiB each. */
export const NR_HUGETLB = 17;
export const NR_SWAPCACHE = 18;
export const NR_WRITEBACK = 19;
/** Pages that reclaim has written out, ever. */
export const NR_VMSCAN_WRITE = 20;
/** Pages that came back, ever; of these, to the active list; of these, who had been there before (workingset.ts). */
export const WORKINGSET_REFAULT_ANON = 21;
export const WORKINGSET_ACTIVATE_ANON = 22;
export const WORKINGSET_RESTORE_ANON = 23;
/** Pages of files, and of shared memory, that some page table maps; pages of shared memory. */
export const NR_FILE_MAPPED = 24;
export const NR_SHMEM = 25;
/** Huge pages that processes map, of 2 MiB each; those that were split, ever (pgtable.ts). */
export const NR_ANON_THPS = 26;
export const THP_SPLIT = 27;
/** Pages of files on a disk that are newer than it, and that are being written; page_dirty.ts. */
export const NR_FILE_DIRTY = 28;
export const NR_FILE_WRITEBACK = 29;
/** Pages of disks that became dirty, and that were written back, ever. */
export const NR_DIRTIED = 30;
export const NR_WRITTEN = 31;
/** Pages of disks in the page cache: they are in NR_FILE_PAGES, too. */
export const NR_BLOCKDEV_PAGES = 32;
export const WORKINGSET_REFAULT_FILE = 33;
export const WORKINGSET_ACTIVATE_FILE = 34;
export const WORKINGSET_RESTORE_FILE = 35;
/** Pages with PG_MLOCKED, of all zones. */
export const NR_MLOCK = 36;
export const NR_VM_ITEMS = 37;

/** Copies for the fast path: why, see slab_objects.ts. */
const FIRST_PGALLOC = PGALLOC_DMA;
const HITS = NUMA_HIT;

export interface VmStat {
  /** Adds `delta` ≥ 0 to an event of the context's CPU. Any context. */
  countEvents(ctx: Context, event: number, delta: number): void;
  /** The two events of a served page request, at once: PGALLOC of `zone` by `nrPages`, NUMA_HIT by 1. */
  countServed(ctx: Context, zone: number, nrPages: number): void;
  /** Sum over all CPUs, and what others have counted. */
  event(event: number): number;
  /** Registers who counts some events in its own words: the source returns its sum of an event, 0 if it counts none. */
  onRead(source: (event: number) => number): void;
  /** Moves a gauge by a signed number of pages. Any context; atomic. */
  modItem(item: number, delta: number): void;
  item(item: number): number;
}

export function createVmStat(port: MemoryPort, image: KernelImage, percpu: PerCpu, harts: Harts): VmStat {
  const { irqOn, nrCpus } = harts;
  const EVENTS = percpu.define("vm_events", NR_VM_EVENTS * 8, 8);
  let source: (event: number) => number = () => 0;
  const items: PhysAddr = image.bss("vm_stat", NR_VM_ITEMS * 4, 8);
  return {
    countEvents(ctx, event, delta) {
      const addr = (ctx.area + EVENTS + (event << 3)) >>> 0;
      const flags = irqOn[ctx.cpu] as number;
      irqOn[ctx.cpu] = 0;
      port.stF64(addr, port.ldF64(addr) + delta);
      irqOn[ctx.cpu] = flags;
    },
    countServed(ctx, zone, nrPages) {
      const addr = (ctx.area + EVENTS + ((FIRST_PGALLOC + zone) << 3)) >>> 0;
      const hits = (ctx.area + EVENTS + (HITS << 3)) >>> 0;
      const { cpu } = ctx;
      const flags = irqOn[cpu] as number;
      irqOn[cpu] = 0;
      port.stF64(addr, port.ldF64(addr) + nrPages);
      port.stF64(hits, port.ldF64(hits) + 1);
      irqOn[cpu] = flags;
    },
    event(event) {
      let sum = source(event);
      for (let cpu = 0; cpu < nrCpus; cpu++) sum += port.ldF64(percpu.areaOf(cpu) + EVENTS + event * 8);
      return sum;
    },
    onRead(hook) {
      source = hook;
    },
    modItem: (item, delta) => {
      port.fetchAdd(items + item * 4, delta);
    },
    item: (item) => port.ld32(items + item * 4) | 0,
  };
}
