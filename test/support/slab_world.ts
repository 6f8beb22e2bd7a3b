/**
 * A machine with a slab subsystem and a page allocator that can be told to fail.
 *
 * The page allocator is a first-fit bitmap over real frames and real struct pages: it refuses whatever the real one
 * refuses (wrong order, owner bits left), fills new pages with garbage, and counts calls so that a test can make the
 * n-th one fail. With `sleepyReclaim` on, a blocking request that failed gives up the CPU once and is then served.
 */

import type { PortKind } from "../../kernel/arch/machine.ts";
import { createMachine, type Machine } from "../../kernel/arch/machine.ts";
import { type ContextTracking, createContextTracking, SYSTEM_RUNNING } from "../../kernel/context.ts";
import { createKernelImage } from "../../kernel/image.ts";
import { PAGE_SIZE } from "../../kernel/params.ts";
import { createPerCpu } from "../../kernel/percpu.ts";
import { createPrintk, type Printk } from "../../kernel/printk.ts";
import { createSpinlocks } from "../../kernel/spinlock.ts";
import {
  asPfn,
  asPhys,
  type Context,
  type IrqContext,
  type MaySleep,
  NO_PFN,
  type Pfn,
  PREEMPTED,
  pfnToPhys,
  type Sleeping,
  type TaskContext,
} from "../../kernel/types.ts";
import { EINVAL } from "../../kernel/uapi/errno.ts";
import { __GFP_DIRECT_RECLAIM, __GFP_DMA, __GFP_ZERO, type Gfp } from "../../mm/gfp.ts";
import {
  createPages,
  memmapBytes,
  ORDER_MASK,
  ORDER_SHIFT,
  type Pages,
  PG_ALLOCATED,
  PG_OWNER_BITS,
} from "../../mm/page.ts";
import type { SlabPages } from "../../mm/slab_layer.ts";
import {
  createSlabSubsystem,
  type ObjectCacheKind,
  type SlabSubsystem,
  slabSubsystemStaticBytes,
} from "../../mm/slab_subsystem.ts";
import { createVmStat, type VmStat } from "../../mm/vmstat.ts";

const DMA_FRAMES = 4096;

export interface FakePages extends SlabPages {
  /** Calls that asked for pages so far. */
  nrCalls: number;
  /** Call number that fails, or −1. */
  failAt: number;
  /** All calls fail. */
  failAll: boolean;
  /** A failed blocking request sleeps once and is then served. */
  sleepyReclaim: boolean;
  /** Frees that the real allocator would have refused. */
  nrBadFrees: number;
  /** The mask of the last successful call. */
  lastGfp: Gfp;
  nrUsedFrames(): number;
}

export function createFakePages(machine: Machine, pages: Pages, firstFrame: number): FakePages {
  const { port } = machine;
  const nrFrames = machine.config.ramBytes / PAGE_SIZE;
  const used = new Uint8Array(nrFrames);
  let nrUsed = 0;

  const findBlock = (order: number, gfp: Gfp): number => {
    const nr = 2 ** order;
    const limit = (gfp & __GFP_DMA) !== 0 ? Math.min(nrFrames, DMA_FRAMES) : nrFrames;
    for (let pfn = Math.ceil(firstFrame / nr) * nr; pfn + nr <= limit; pfn += nr) {
      if (used.subarray(pfn, pfn + nr).every((flag) => flag === 0)) return pfn;
    }
    return 0;
  };

  const serve = (order: number, gfp: Gfp): Pfn => {
    const pfn = asPfn(findBlock(order, gfp));
    if (pfn === NO_PFN) return NO_PFN;
    used.fill(1, pfn, pfn + 2 ** order);
    nrUsed += 2 ** order;
    pages.setFlags(pfn, PG_ALLOCATED | (order << ORDER_SHIFT));
    pages.setRefcount(pfn, 1);
    pages.setPrivate(pfn, 0);
    port.fill(pfnToPhys(pfn), (gfp & __GFP_ZERO) !== 0 ? 0 : 0xa5, PAGE_SIZE * 2 ** order);
    fake.lastGfp = gfp;
    return pfn;
  };

  const tryAllocPages = (_ctx: Context, order: number, gfp: Gfp): Pfn => {
    const call = fake.nrCalls++;
    return fake.failAll || call === fake.failAt ? NO_PFN : serve(order, gfp);
  };

  function* sleepAndRetry(order: number, gfp: Gfp): Sleeping<Pfn> {
    yield PREEMPTED;
    return serve(order, gfp);
  }

  const fake: FakePages = {
    nrCalls: 0,
    failAt: -1,
    failAll: false,
    sleepyReclaim: false,
    nrBadFrees: 0,
    lastGfp: 0,
    nrUsedFrames: () => nrUsed,
    tryAllocPages,
    allocPagesAny(ctx: Context, order: number, gfp: Gfp): MaySleep<Pfn> {
      const pfn = tryAllocPages(ctx, order, gfp);
      if (pfn !== NO_PFN || !fake.sleepyReclaim || (gfp & __GFP_DIRECT_RECLAIM) === 0) return pfn;
      return sleepAndRetry(order, gfp);
    },
    freePages(_ctx, pfn, order) {
      const wanted = PG_ALLOCATED | (order << ORDER_SHIFT);
      const isOurs = Number.isInteger(pfn) && pfn > 0 && pfn < nrFrames;
      if (!isOurs || (pages.flags(pfn) & (PG_ALLOCATED | PG_OWNER_BITS | ORDER_MASK)) !== wanted) {
        fake.nrBadFrees++;
        return -EINVAL;
      }
      used.fill(0, pfn, pfn + 2 ** order);
      nrUsed -= 2 ** order;
      pages.setFlags(pfn, 0);
      pages.setRefcount(pfn, 0);
      return 0;
    },
  };
  return fake;
}

export interface SlabWorld extends SlabSubsystem {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly pages: Pages;
  readonly vmstat: VmStat;
  readonly pageAlloc: FakePages;
  readonly ctx: TaskContext;
  readonly irq: IrqContext;
  /** The task context of a CPU. */
  onCpu(cpu: number): TaskContext;
  /** Everything printed since the last call. */
  takeLog(): string;
}

export interface SlabWorldOptions {
  readonly nrCpus?: number;
  readonly ramBytes?: number;
  readonly objectCache?: ObjectCacheKind;
  readonly port?: PortKind;
}

/** Boots a machine as far as a slab subsystem needs it; init() has run. */
export function createSlabWorld(options: SlabWorldOptions = {}): SlabWorld {
  const { nrCpus = 2, ramBytes = 8 << 20, objectCache = "magazine", port: portKind = "bounds" } = options;
  const machine = createMachine({ nrCpus, ramBytes, seed: "1", port: portKind });
  const image = createKernelImage();
  const percpu = createPerCpu();
  const printk = createPrintk(machine, image);
  const contexts = createContextTracking(machine, image, percpu, printk);
  const spinlocks = createSpinlocks(machine, contexts);
  const vmstat = createVmStat(machine.port, image, percpu, machine.harts);
  const statics = image.bss("slab", slabSubsystemStaticBytes(nrCpus), 64);
  const nrFrames = ramBytes / PAGE_SIZE;
  const memmap = image.bss("memmap", memmapBytes(nrFrames, 0), 64);
  percpu.setup(image.bss("percpu", percpu.unitBytes() * nrCpus, 64), nrCpus);
  const pages = createPages(machine.port, memmap, nrFrames, 0);
  const pageAlloc = createFakePages(machine, pages, asPhys(image.seal()) / PAGE_SIZE);
  machine.harts.irqOn.fill(1);
  contexts.setSystemState(SYSTEM_RUNNING);

  const system = createSlabSubsystem({
    machine,
    printk,
    contexts,
    spinlocks,
    pages,
    pageAlloc,
    vmstat,
    statics,
    objectCache,
  });
  const ctx = contexts.taskContext(0);
  system.init(ctx);
  let seen = printk.nextSeq();
  return {
    ...system,
    machine,
    contexts,
    printk,
    pages,
    vmstat,
    pageAlloc,
    ctx,
    irq: contexts.irqContext(0),
    onCpu: (cpu) => contexts.taskContext(cpu),
    takeLog() {
      const lines = printk.records(seen).map((record) => record.text);
      seen = printk.nextSeq();
      return lines.join("\n");
    },
  };
}

/** Runs what may sleep to its end, as a scheduler would. */
export function finish<T extends number>(result: MaySleep<T>): T {
  if (typeof result === "number") return result;
  for (;;) {
    const step = result.next();
    if (step.done === true) return step.value;
  }
}
