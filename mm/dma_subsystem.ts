/**
 * The DMA subsystem, assembled: devices, direct mappings, bounce buffers, coherent memory, pools.
 *
 *   createDmaSubsystem(deps)     composition: wires the parts; touches static memory only
 *   init(ctx)                    boot, once pages can be had: a pool of bounce buffers if one was asked for
 *
 * Nothing is allocated before the first device, so a machine without drivers is the machine without this file.
 */

import { BUS_READ, type BusFault } from "../kernel/arch/dma_bus.ts";
import { DMAR_REASONS } from "../kernel/arch/iommu.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import type { ContextTracking } from "../kernel/context.ts";
import type { KernelImage } from "../kernel/image.ts";
import { KERN_ERR, KERN_WARNING, type Printk } from "../kernel/printk.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { type PhysAddr, physAdd, type TaskContext } from "../kernel/types.ts";
import type { Cma } from "./cma.ts";
import { createDma, type Dma } from "./dma.ts";
import { COHERENT_STATIC_BYTES, createCoherentMemory } from "./dma_coherent.ts";
import { createDmaContiguous } from "./dma_contiguous.ts";
import { createDmaDebug, DMA_DEBUG_STATIC_BYTES, type DmaDebug } from "./dma_debug.ts";
import { asDevice, type DmaDevice, deviceLabel, deviceName } from "./dma_device.ts";
import { createDmaDevices, DMA_DEVICES_STATIC_BYTES } from "./dma_devices.ts";
import { createDirectOps } from "./dma_direct.ts";
import { createIommuOps } from "./dma_iommu.ts";
import { createDmaPools } from "./dma_pool.ts";
import type { Kmalloc } from "./kmalloc.ts";
import type { Pages } from "./page.ts";
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
  readonly cma: Cma;
  readonly image: KernelImage;
  readonly pages: Pages;
  /** `dma_debug=`: watch the drivers. */
  readonly isDebug: boolean;
  /** `iommu=`: devices go through page tables. */
  readonly isIommu: boolean;
  /** `swiotlb=`: bytes of bounce buffers to take at boot; 0: when a device needs them. */
  readonly swiotlbBytes: number;
  /** DMA_STATIC_BYTES of zeroed static memory, 8-aligned. */
  readonly statics: PhysAddr;
}

export interface DmaSubsystem {
  readonly dma: Dma;
  readonly swiotlb: Swiotlb;
  /** null: switched off. */
  readonly debug: DmaDebug | null;
  /** Called with the name of each device that is made, and of each that goes. */
  onDevice(hook: (dev: DmaDevice, name: string, isNew: boolean) => void): void;
  init(ctx: TaskContext): void;
  /** Pages that stay with DMA once a device has needed them: atomic pool, bounce buffers, entries of dma-debug. */
  standingPages(): number;
}

const COHERENT_AT = DMA_DEVICES_STATIC_BYTES;
const SWIOTLB_AT = COHERENT_AT + COHERENT_STATIC_BYTES;
const DEBUG_AT = SWIOTLB_AT + SWIOTLB_STATIC_BYTES;
export const DMA_STATIC_BYTES = DEBUG_AT + DMA_DEBUG_STATIC_BYTES;

/** What the kernel log says of a refused transfer. */
const faultText = ({ master, access, address, bytes, reason, iommuReason }: BusFault): string => {
  const where =
    Number.isInteger(address) && address >= 0 ? `0x${address.toString(16).padStart(16, "0")}` : `${address}`;
  if (iommuReason !== 0) {
    const code = `0x${iommuReason.toString(16).padStart(2, "0")}`;
    const what = `DMA ${access === BUS_READ ? "Read" : "Write"} NO_PASID`;
    return (
      "DMAR: DRHD: handling fault status reg 2\n" +
      `DMAR: [${what}] Request device [${master}] fault addr ${where.replace(/^0x0+(?=.)/, "0x")} ` +
      `[fault reason ${code}] ${DMAR_REASONS[iommuReason]}`
    );
  }
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
    contiguous: createDmaContiguous(machine, deps.cma),
    statics: physAdd(statics, COHERENT_AT),
  });
  const direct = createDirectOps({ machine, sg, swiotlb });
  const debug = deps.isDebug
    ? createDmaDebug({
        machine,
        image: deps.image,
        contexts,
        spinlocks,
        printk,
        pages: deps.pages,
        pageAlloc,
        sg,
        statics: physAdd(statics, DEBUG_AT),
      })
    : null;
  const iommu = deps.isIommu
    ? createIommuOps({ machine, spinlocks, pageAlloc, kmalloc, sg, masterOf: (dev) => devices.master(dev) })
    : null;
  const devices = createDmaDevices({
    machine,
    contexts,
    spinlocks,
    kmalloc,
    swiotlb,
    coherent,
    debug,
    opsTable: [direct, iommu],
    statics,
  });
  machine.dmaBus.onFault((fault) => printk(KERN_ERR, faultText(fault)));
  machine.guard?.onViolation(({ owner, addr, bytes, isStore, note }) => {
    const ctx = contexts.taskContext(machine.harts.current[0] as number);
    const dev = asDevice(owner);
    const text = `CPU ${isStore ? "store to" : "load from"} memory while the device owns it`;
    const where = `[address=0x${addr.toString(16).padStart(16, "0")}] [size=${bytes} bytes] [mapped with ${note}]`;
    if (debug !== null) debug.cpuAccess(ctx, dev, `${text} ${where}`);
    else printk(KERN_WARNING, `WARNING: DMA-API: ${deviceLabel(machine.port, dev)}: ${text} ${where}`);
  });
  const dma = createDma({ machine, contexts, printk, devices, coherent, sg, debug }, (front) =>
    createDmaPools({ machine, contexts, spinlocks, printk, kmalloc, isDebug: deps.isDebug, ...front }),
  );
  return {
    dma,
    swiotlb,
    debug,
    standingPages: () => coherent.nrPoolPages() + swiotlb.nrPages() + (debug?.entries.nrPages() ?? 0),
    onDevice: (hook) => devices.onDevice((dev, isNew) => hook(dev, deviceName(machine.port, dev), isNew)),
    init(ctx) {
      if (deps.swiotlbBytes > 0) swiotlb.ensure(ctx);
    },
  };
}
