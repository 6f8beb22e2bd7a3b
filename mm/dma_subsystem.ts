/**
 * The DMA subsystem, assembled: devices, direct mappings, bounce buffers, coherent memory, pools.
 *
 *   createDmaSubsystem(deps)     composition: wires the parts; touches static memory only
 *   init(ctx)                    boot, once pages can be had: a pool of bounce buffers if one was asked for
 *
 * Nothing is allocated before the first device, so a machine without drivers is the machine without this file.
 */

import { BUS_READ, type BusFault } from "../kernel/arch/dma_bus.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { KERN_ERR, type Printk } from "../kernel/printk.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { type PhysAddr, physAdd, type TaskContext } from "../kernel/types.ts";
import { createDma, type Dma } from "./dma.ts";
import { COHERENT_STATIC_BYTES, createCoherentMemory } from "./dma_coherent.ts";
import { createDmaDevices, DMA_DEVICES_STATIC_BYTES } from "./dma_devices.ts";
import { createDirectOps } from "./dma_direct.ts";
import { createDmaPools } from "./dma_pool.ts";
import type { Kmalloc } from "./kmalloc.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { createScatterlists } from "./scatterlist.ts";
import { createSwiotlb, SWIOTLB_STATIC_BYTES, type Swiotlb } from "./swiotlb.ts";

export interface DmaSubsystemDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly spinlocks: Spinlocks;
  readonly printk: Printk;
  readonly pageAlloc: PageAllocator;
  readonly kmalloc: Kmalloc;
  /** `swiotlb=`: bytes of bounce buffers to take at boot; 0: when a device needs them. */
  readonly swiotlbBytes: number;
  /** DMA_STATIC_BYTES of zeroed static memory, 8-aligned. */
  readonly statics: PhysAddr;
}

export interface DmaSubsystem {
  readonly dma: Dma;
  readonly swiotlb: Swiotlb;
  init(ctx: TaskContext): void;
}

const COHERENT_AT = DMA_DEVICES_STATIC_BYTES;
const SWIOTLB_AT = COHERENT_AT + COHERENT_STATIC_BYTES;
export const DMA_STATIC_BYTES = SWIOTLB_AT + SWIOTLB_STATIC_BYTES;

/** What the kernel log says of a refused transfer. */
const faultText = ({ master, access, address, bytes, reason }: BusFault): string => {
  const where =
    Number.isInteger(address) && address >= 0 ? `0x${address.toString(16).padStart(16, "0")}` : `${address}`;
  return `DMA bus fault: ${master}: ${access === BUS_READ ? "read" : "write"} of ${bytes} bytes at ${where} ${reason}`;
};

export function createDmaSubsystem(deps: DmaSubsystemDeps): DmaSubsystem {
  const { machine, contexts, spinlocks, printk, pageAlloc, kmalloc, statics } = deps;
  const sg = createScatterlists(machine.port);
  const swiotlb = createSwiotlb({
    machine,
    spinlocks,
    printk,
    pageAlloc,
    poolBytes: deps.swiotlbBytes,
    statics: physAdd(statics, SWIOTLB_AT),
  });
  const coherent = createCoherentMemory({
    machine,
    spinlocks,
    pageAlloc,
    statics: physAdd(statics, COHERENT_AT),
  });
  const direct = createDirectOps({ machine, sg, swiotlb });
  const devices = createDmaDevices({
    machine,
    contexts,
    spinlocks,
    kmalloc,
    swiotlb,
    coherent,
    opsTable: [direct, null],
    statics,
  });
  machine.dmaBus.onFault((fault) => printk(KERN_ERR, faultText(fault)));
  const dma = createDma({ machine, contexts, printk, devices, coherent, sg }, (front) =>
    createDmaPools({ machine, contexts, spinlocks, printk, kmalloc, isDebug: false, ...front }),
  );
  return {
    dma,
    swiotlb,
    init(ctx) {
      if (deps.swiotlbBytes > 0) swiotlb.ensure(ctx);
    },
  };
}
