/**
 * The part of boot that is about memory of processes: who has pages, who moves them, who evicts them, who lends them.
 *
 *   references ─▶ swap layer ─▶ address spaces, rmap, page cache ─▶ migration ─▶ balloon pages ─▶ compaction
 *                    └──────────────────────────────────────────▶ reclaim, kswapd
 *
 * Each arrow is a "needs". What points the other way is a hook, registered here: the page allocator asks for large
 * blocks to be made (onCompact), frames to be emptied (onMigrate), memory to be given back (onPressure, reclaim).
 */

import {
  BALLOON_PAGES_BYTES,
  type BalloonPages,
  COMPACTION_BYTES,
  type Compaction,
  composeSwap,
  createBalloonPages,
  createCompaction,
  createHugePool,
  createMigration,
  createPageRefs,
  createPageReporting,
  createProcessMemory,
  HUGETLB_BYTES,
  type HugePool,
  type MmCaches,
  type PageAllocator,
  type PageLevel,
  type PageReporting,
  type PageTables,
  PROCESS_MEMORY_BYTES,
  type ProcessMemory,
  RECLAIM_STATIC_BYTES,
  type ReclaimSubsystem,
  type SlabSubsystem,
  type VmStat,
  type Zones,
} from "../../mm/index.ts";
import { IRQ_TLB_FLUSH } from "../arch/irqchip.ts";
import type { Machine } from "../arch/machine.ts";
import type { ContextTracking } from "../context.ts";
import type { KernelImage } from "../image.ts";
import { IRQ_HANDLED, type Irqs } from "../irq.ts";
import type { Kthreads } from "../kthread.ts";
import type { Printk } from "../printk.ts";
import type { Scheduler } from "../sched.ts";
import type { Spinlocks } from "../spinlock.ts";
import type { PhysAddr, TaskContext } from "../types.ts";
import type { WaitQueues } from "../wait.ts";
import { startKcompactd } from "./kcompactd.ts";
import { startKhugepaged } from "./khugepaged.ts";
import { hookReclaim, roomForFile } from "./reclaim_hooks.ts";
import type { MakeRoom } from "./user_mode.ts";

/** Static memory, taken before the image is sealed. */
export interface UserMemoryStatics {
  readonly processMemory: PhysAddr;
  readonly reclaim: PhysAddr;
  readonly compaction: PhysAddr;
  readonly balloon: PhysAddr;
  readonly hugePool: PhysAddr;
  readonly kcompactd: PhysAddr;
  readonly khugepaged: PhysAddr;
}

export const takeUserMemoryStatics = (image: KernelImage): UserMemoryStatics => ({
  processMemory: image.bss("process_memory", PROCESS_MEMORY_BYTES, 8),
  reclaim: image.bss("reclaim", RECLAIM_STATIC_BYTES, 8),
  compaction: image.bss("compaction", COMPACTION_BYTES, 8),
  balloon: image.bss("balloon", BALLOON_PAGES_BYTES, 8),
  hugePool: image.bss("hugetlb", HUGETLB_BYTES, 8),
  kcompactd: image.bss("kcompactd", 8, 8),
  khugepaged: image.bss("khugepaged", 8, 8),
});

export interface UserMemoryDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly spinlocks: Spinlocks;
  readonly irqs: Irqs;
  /** What struct page, lists and buddies are by now. */
  readonly level: PageLevel;
  readonly zones: Zones;
  readonly vmstat: VmStat;
  /** The page allocator as everybody is to see it: with faults injected, if asked for. */
  readonly pageAlloc: PageAllocator;
  readonly pageTables: PageTables;
  readonly slab: SlabSubsystem;
  readonly waits: WaitQueues;
  readonly scheduler: Scheduler;
  readonly kthreads: Kthreads;
  readonly caches: MmCaches;
  readonly statics: UserMemoryStatics;
  readonly isCompacting: boolean;
}

export interface UserMemory {
  readonly processMemory: ProcessMemory;
  readonly balloonPages: BalloonPages;
  readonly pageReporting: PageReporting;
  readonly compaction: Compaction;
  readonly hugePool: HugePool;
  readonly reclaim: ReclaimSubsystem;
  /** What a page fault calls that found no memory. */
  readonly makeRoom: MakeRoom;
  /** Frees pages for a file, if there are any to free, at nobody's life. */
  makeRoomForFile(ctx: TaskContext): boolean;
  /** Invariants of what is not walked with the address spaces. */
  check(): string | null;
}

/** Builds and wires all of it. */
export function composeUserMemory(deps: UserMemoryDeps): UserMemory {
  const { machine, contexts, printk, spinlocks, irqs, level, zones, vmstat, pageAlloc, pageTables, slab } = deps;
  const { waits, scheduler, kthreads, statics } = deps;
  const { port } = machine;
  const { pages, pcp, pageblocks, lru } = level;
  const refs = createPageRefs(pages, pageAlloc, lru); // who holds a page
  const swap = composeSwap({
    machine,
    printk,
    spinlocks,
    pages,
    zones,
    pageAlloc,
    refs,
    lru,
    vmstat,
    statics: statics.reclaim,
    interruptPoint: contexts.interruptPoint,
  }); // pages on a disk
  const processMemory = createProcessMemory({
    machine,
    pages,
    pageAlloc,
    pageTables,
    zones,
    vmstat,
    caches: deps.caches,
    refs,
    lru,
    swap: swap.layer,
    state: statics.processMemory,
    interruptPoint: contexts.interruptPoint,
    isIdle: (cpu) => !scheduler.hasOtherWork(cpu),
  });
  const { rmap, files: pageCache, tlb } = processMemory;
  irqs.requestIrq(IRQ_TLB_FLUSH, {
    name: "TLB shootdown",
    handler(ctx) {
      tlb.interrupted(ctx);
      return IRQ_HANDLED;
    },
  });
  const migration = createMigration({
    machine,
    pages,
    pageAlloc,
    pageTables,
    vmstat,
    flushPage: tlb.flushPage,
    rmap,
    files: pageCache,
    lru,
  });
  const balloonPages = createBalloonPages({ port, pages, pageAlloc, vmstat, migration, statics: statics.balloon });
  const pageReporting = createPageReporting({ spinlocks, pages, zones, onLargeFree: level.onLargeFree });
  const { mover } = balloonPages;
  pageAlloc.onMigrate(mover); // moving pages
  pageAlloc.onPressure(
    (ctx, isAtomic) => slab.reapForPages(ctx, isAtomic) + (isAtomic ? 0 : balloonPages.giveBack(ctx)),
  );
  const compaction = createCompaction({
    machine,
    contexts,
    spinlocks,
    pages,
    pageblocks,
    zones,
    frames: level.frames,
    mover,
    vmstat,
    pcp,
    hasCma: level.cmaArea !== null,
    drainAllPages: pageAlloc.drainAllPages,
    state: statics.compaction,
  }); // large blocks out of small ones
  if (deps.isCompacting) {
    pageAlloc.onCompact(compaction);
    startKcompactd({ machine, compaction, irqs, waits, kthreads, queue: statics.kcompactd });
  }
  startKhugepaged({ machine, thp: processMemory.thp, irqs, waits, kthreads, queue: statics.khugepaged });
  const hugePool = createHugePool(port, pages, pageAlloc, vmstat, statics.hugePool); // nr_hugepages
  const reclaim = swap.bind({
    ...{ processMemory, pageTables, waits, scheduler, kthreads },
    canCompact: compaction.canCompact,
    wakeCompactor: deps.isCompacting ? compaction.wakeForBlocks : () => {},
  }); // kswapd, direct reclaim
  const makeRoom = hookReclaim({ pageAlloc, slab, thp: processMemory.thp, reclaim, vmstat });
  return {
    processMemory,
    balloonPages,
    pageReporting,
    compaction,
    hugePool,
    reclaim,
    makeRoom,
    makeRoomForFile: (ctx) => roomForFile(reclaim, ctx),
    check: () => compaction.check() ?? hugePool.check() ?? balloonPages.check(),
  };
}
