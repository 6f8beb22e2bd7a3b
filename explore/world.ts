/**
 * Machines to explore: as kernel/entry/boot.ts builds one, over an ExplorePort, up to the pages or up to the objects.
 *
 * Everything is the kernel's own code. Two things differ: a spinlock that is taken makes its CPU wait in the engine
 * instead of reporting a lockup, and taking locks is told to the usage checker. A scenario may exchange parts before
 * the allocators are built over them: that is how bugs are planted.
 */

import { ExplorePort } from "../kernel/arch/explore_port.ts";
import { E820_RAM } from "../kernel/arch/firmware_map.ts";
import { createMachine, type Machine } from "../kernel/arch/machine.ts";
import { type ContextTracking, createContextTracking, HARDIRQ_OFFSET, SYSTEM_RUNNING } from "../kernel/context.ts";
import { createKernelImage, type KernelImage } from "../kernel/image.ts";
import { CACHE_LINE, MIN_RAM_BYTES, PAGE_SIZE } from "../kernel/params.ts";
import { createPerCpu, type PerCpu } from "../kernel/percpu.ts";
import { createPrintk, type Printk } from "../kernel/printk.ts";
import { createSpinlocks, type Spinlocks } from "../kernel/spinlock.ts";
import { asPhys, type Context, type IrqContext, type PhysAddr, type TaskContext } from "../kernel/types.ts";
import {
  composePages,
  createMemblock,
  createSlabSubsystem,
  type DepotKind,
  MAX_NR_ZONES,
  memblockTableBytes,
  type PageLevel,
  type PageLevelSetup,
  type SlabSubsystem,
  slabSubsystemStaticBytes,
  ZONE_BYTES,
  ZONE_NAMES,
} from "../mm/index.ts";
import type { Engine } from "./engine.ts";
import { createNames, type Names } from "./names.ts";

/** Low RAM of a machine that nobody runs programs on: the kernel image ends well below. */
const RESERVED_IMAGE_BYTES = 512 * 1024;

/** What a planted bug may exchange. */
export interface Parts {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly spinlocks: Spinlocks;
}

/** A planted bug: spinlocks whose irqsave forms switch interrupts off and take nothing. */
export function withoutLocks({ spinlocks, contexts, ...rest }: Parts): Parts {
  return {
    ...rest,
    contexts,
    spinlocks: {
      ...spinlocks,
      spinLockIrqsave: (ctx) => contexts.localIrqSave(ctx),
      spinUnlockIrqrestore: (ctx, _lock, flags) => contexts.localIrqRestore(ctx, flags),
    },
  };
}

export interface PageWorld extends Parts, PageLevel, Pick<PageLevelSetup, "vmstat" | "zones"> {
  readonly port: ExplorePort;
  readonly image: KernelImage;
  readonly printk: Printk;
  readonly names: Names;
  /** The boot CPU. */
  readonly ctx: TaskContext;
  /** The task of a CPU. */
  task(cpu: number): TaskContext;
  /** Runs `handler` as a hard interrupt of `cpu`, whose flag is off already. */
  inInterrupt(cpu: number, handler: (irq: IrqContext) => string | undefined): string | undefined;
  /** For Subject: words that are looked at without their lock, and words that a handler puts back. */
  readonly hints: readonly (readonly [number, number])[];
  readonly balanced: readonly (readonly [number, number])[];
  watchLocks(hook: Engine["lockUsed"]): void;
}

export interface WorldOptions {
  readonly nrCpus: number;
  readonly ramBytes?: number;
  /** Exchanges parts that the allocators are built from. */
  readonly plant?: ((parts: Parts) => Parts) | undefined;
}

/** Spinlocks that tell how they are taken. */
function watched(inner: Spinlocks, machine: Machine, told: { hook: Engine["lockUsed"] | null }): Spinlocks {
  const { irqOn } = machine.harts;
  const tell = (ctx: Context, lock: PhysAddr, isOn: boolean, isTry: boolean): void => {
    told.hook?.(ctx.cpu, lock, isOn, isTry);
  };
  return {
    ...inner,
    spinLock(ctx, lock) {
      tell(ctx, lock, irqOn[ctx.cpu] === 1, false);
      inner.spinLock(ctx, lock);
    },
    spinTryLock(ctx, lock) {
      const isTaken = inner.spinTryLock(ctx, lock);
      if (isTaken) tell(ctx, lock, irqOn[ctx.cpu] === 1, true);
      return isTaken;
    },
    spinLockIrqsave(ctx, lock) {
      tell(ctx, lock, false, false);
      return inner.spinLockIrqsave(ctx, lock);
    },
    spinLockIrq(ctx, lock) {
      tell(ctx, lock, false, false);
      inner.spinLockIrq(ctx, lock);
    },
    spinLockBh(ctx, lock) {
      tell(ctx, lock, irqOn[ctx.cpu] === 1, false);
      inner.spinLockBh(ctx, lock);
    },
  };
}

/** Remembers where per-CPU variables lie. */
function named(inner: PerCpu): {
  readonly percpu: PerCpu;
  readonly offsets: ReadonlyMap<string, readonly [number, number]>;
} {
  const offsets = new Map<string, readonly [number, number]>();
  const define: PerCpu["define"] = (name, bytes, align) => {
    const offset = inner.define(name, bytes, align);
    offsets.set(name, [offset, bytes]);
    return offset;
  };
  return { percpu: { ...inner, define }, offsets };
}

/** A machine with a page allocator. */
export function createPageWorld(options: WorldOptions): PageWorld {
  const { nrCpus, ramBytes = MIN_RAM_BYTES } = options;
  const plain = createMachine({ nrCpus, ramBytes, seed: "explore", port: (ram) => new ExplorePort(ram) });
  const port = plain.port as ExplorePort;
  const image = createKernelImage();
  const printk = createPrintk(plain, image);
  const { percpu, offsets } = named(createPerCpu());
  const told: { hook: Engine["lockUsed"] | null } = { hook: null };
  const tracked = createContextTracking(plain, image, percpu, printk);
  const waiting = createSpinlocks(plain, tracked, (_ctx, lock) => port.waitUntil(lock, 0, true, true));
  const parts: Parts = { machine: plain, contexts: tracked, spinlocks: watched(waiting, plain, told) };
  const { machine, contexts, spinlocks } = options.plant === undefined ? parts : options.plant(parts);

  const setup = composePages({ machine, image, percpu, contexts, spinlocks, printk });
  const memblock = createMemblock(machine.port, image.bss("memblock", memblockTableBytes(), 8));
  for (const region of machine.firmwareMap) {
    if (region.type === E820_RAM) memblock.add(asPhys(region.start), region.end - region.start);
  }
  memblock.reserve(asPhys(0), PAGE_SIZE);
  memblock.reserve(asPhys(0x10_0000), RESERVED_IMAGE_BYTES);
  const areas = memblock.alloc(percpu.unitBytes() * nrCpus, PAGE_SIZE);
  percpu.setup(areas, nrCpus);
  const level = setup.bringUp(memblock, 2 ** 32 / PAGE_SIZE, 0);
  setup.handOver(level, memblock);
  machine.harts.irqOn.fill(1);
  contexts.setSystemState(SYSTEM_RUNNING);

  const names = createNames(image.symbols);
  const balanced: [number, number][] = [];
  const hints: [number, number][] = [];
  for (let cpu = 0; cpu < nrCpus; cpu++) {
    for (const [name, [offset, bytes]] of offsets) names.add(percpu.areaOf(cpu) + offset, bytes, `${name}[${cpu}]`);
    balanced.push([percpu.areaOf(cpu) + (offsets.get("preempt_count") ?? [0])[0], 4]);
  }
  for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
    names.add(setup.zones.addr(zone), ZONE_BYTES, `zone ${ZONE_NAMES[zone]}`, { 0: "lock" });
    // Watermark checks read the counters of a zone without its lock.
    hints.push([setup.zones.addr(zone) + 4, ZONE_BYTES - 4]);
  }
  // The buddy looks at the flags of a neighbour while its owner may be changing them: any state but PG_BUDDY will do,
  // and that one comes and goes under the lock of the zone.
  const { pages } = level;
  for (let pfn = 0; pfn < pages.nrFrames; pfn++) hints.push([pages.rowAt(pfn), 4]);
  names.add(pages.rowAt(0), pages.rowAt(pages.nrFrames) - pages.rowAt(0), "struct page");
  return {
    ...level,
    vmstat: setup.vmstat,
    zones: setup.zones,
    machine,
    contexts,
    spinlocks,
    port,
    image,
    printk,
    names,
    ctx: contexts.taskContext(0),
    task: tracked.taskContext,
    inInterrupt(cpu, handler) {
      const irq = tracked.irqContext(cpu);
      tracked.add(irq, HARDIRQ_OFFSET);
      const wrong = handler(irq);
      tracked.subtract(irq, HARDIRQ_OFFSET);
      return wrong;
    },
    hints,
    balanced,
    watchLocks(hook) {
      told.hook = hook;
    },
  };
}

export interface ObjectWorld extends PageWorld {
  readonly slab: SlabSubsystem;
}

/** A machine with slabs, magazines and kmalloc. */
export function createObjectWorld(options: WorldOptions & { readonly depot?: DepotKind }): ObjectWorld {
  const world = createPageWorld(options);
  const { machine, contexts, spinlocks, printk, pages, pageAlloc, vmstat, image } = world;
  const statics = image.bss("slab", slabSubsystemStaticBytes(machine.config.nrCpus), CACHE_LINE);
  const deps = { machine, contexts, spinlocks, printk, pages, pageAlloc, vmstat, statics };
  const slab = createSlabSubsystem({ ...deps, depot: options.depot ?? "locked" });
  world.pageAlloc.onPressure(slab.reapForPages);
  slab.init(world.ctx);
  return { ...world, slab };
}
