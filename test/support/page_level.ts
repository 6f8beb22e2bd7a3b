/**
 * A machine up to its page allocator and no further, for tests of mm/.
 *
 * Everything is real (BoundsPort, memblock, zones, per-CPU areas); `expectNoLeak` compares the free pages with those
 * after boot once the per-CPU lists are drained.
 */

import { expect } from "vitest";
import { E820_RAM } from "../../kernel/arch/firmware_map.ts";
import { createMachine, type Machine } from "../../kernel/arch/machine.ts";
import { type ContextTracking, createContextTracking, SYSTEM_RUNNING } from "../../kernel/context.ts";
import { createKernelImage, type KernelImage } from "../../kernel/image.ts";
import { createPerCpu, type PerCpu } from "../../kernel/percpu.ts";
import { createPrintk, type Printk } from "../../kernel/printk.ts";
import { createSpinlocks, type Spinlocks } from "../../kernel/spinlock.ts";
import { asPhys, type TaskContext } from "../../kernel/types.ts";
import { type AutoInit, initPages } from "../../mm/auto_init.ts";
import type { FrameAllocatorFactory } from "../../mm/frame_allocator.ts";
import { createMemblock, memblockTableBytes } from "../../mm/memblock.ts";
import { composePages, type PageLevel, type PageLevelSetup } from "../../mm/mm_init.ts";

export interface PageLevelMachine extends PageLevel, Pick<PageLevelSetup, "vmstat" | "zones"> {
  readonly machine: Machine;
  readonly image: KernelImage;
  readonly contexts: ContextTracking;
  readonly spinlocks: Spinlocks;
  readonly printk: Printk;
  readonly ctx: TaskContext;
  /** Text of the log so far. */
  log(): string;
  /** Drains the per-CPU lists and fails unless every page is back. */
  expectNoLeak(): void;
}

export interface PageLevelOptions {
  readonly ramBytes?: number;
  readonly nrCpus?: number;
  readonly dma32LimitBytes?: number;
  readonly movableBytes?: number;
  readonly cmaBytes?: number;
  readonly frameAllocator?: FrameAllocatorFactory;
  readonly debugTlb?: boolean;
  readonly isMultiGen?: boolean;
  readonly autoInit?: AutoInit;
  readonly port?: "raw" | "bounds" | "inject" | "guard";
  /** Runs before the per-CPU areas are laid out: for parts that define per-CPU variables. */
  readonly compose?: (parts: ComposedParts) => void;
}

export interface ComposedParts {
  readonly machine: Machine;
  readonly image: KernelImage;
  readonly percpu: PerCpu;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
}

const MIB = 1024 * 1024;

/** Boots as kernel/entry/boot.ts does, as far as the hand-over to the buddies. */
export function bootPageLevel(options: PageLevelOptions = {}): PageLevelMachine {
  const nrCpus = options.nrCpus ?? 2;
  const ramBytes = options.ramBytes ?? 32 * MIB;
  const machine = createMachine({
    nrCpus,
    ramBytes,
    seed: "test",
    port: options.port ?? "bounds",
    debugTlb: options.debugTlb ?? false,
  });
  const image = createKernelImage();
  const printk = createPrintk(machine, image);
  const percpu = createPerCpu();
  const contexts = createContextTracking(machine, image, percpu, printk);
  const spinlocks = createSpinlocks(machine, contexts);
  const { frameAllocator, isMultiGen } = options;
  const setup = composePages({ machine, image, percpu, contexts, spinlocks, printk, frameAllocator, isMultiGen });
  options.compose?.({ machine, image, percpu, contexts, printk });
  const memblock = createMemblock(machine.port, image.bss("memblock", memblockTableBytes(), 8));
  for (const region of machine.firmwareMap) {
    if (region.type === E820_RAM) memblock.add(asPhys(region.start), region.end - region.start);
  }
  memblock.reserve(asPhys(0), 4096);
  memblock.reserve(asPhys(0x10_0000), 512 * 1024);
  percpu.setup(memblock.alloc(percpu.unitBytes() * nrCpus, 4096), nrCpus);
  const plain = setup.bringUp(
    memblock,
    (options.dma32LimitBytes ?? 2 ** 32) / 4096,
    (options.movableBytes ?? 0) / 4096,
    options.cmaBytes,
  );
  setup.handOver(plain, memblock);
  const { autoInit } = options;
  const level = autoInit === undefined ? plain : { ...plain, pageAlloc: initPages(plain.pageAlloc, autoInit) };
  machine.harts.irqOn.fill(1);
  contexts.setSystemState(SYSTEM_RUNNING);
  const ctx = contexts.taskContext(0);
  const freeAtBoot = setup.zones.totalFree();
  return {
    ...level,
    vmstat: setup.vmstat,
    zones: setup.zones,
    machine,
    image,
    contexts,
    spinlocks,
    printk,
    ctx,
    log: () =>
      printk
        .records()
        .map((record) => record.text)
        .join("\n"),
    expectNoLeak() {
      level.pageAlloc.drainAllPages(ctx);
      expect(level.pageAlloc.check()).toBeNull();
      expect(setup.zones.totalFree()).toBe(freeAtBoot);
    },
  };
}
