/**
 * Mappings through the IOMMU: bus addresses are handed out, and page tables say what memory they mean.
 *
 *   map      find a free range of bus pages below the mask, top-down ─▶ write the tables ─▶ IOVA + offset in page
 *   unmap    clear the tables ─▶ flush the IOTLB at once (strict) ─▶ free the range
 *
 *   IOM-1  ranges of one device are disjoint, page 0 is never given out, a range starts at a multiple of its size
 *   IOM-2  the tables map exactly the pages of live ranges
 *   IOM-3  after unmap returns no walk is remembered: the device cannot reach the page again
 *   IOM-4  memory anywhere in RAM serves every device: nothing bounces, coherent memory needs no low zone
 *
 * struct domain, a kmalloc block: | 0 lock | 4 root of the range tree | 8 root table, address | 12 tables | 16 pages
 * mapped |. struct iova, one per mapping: | 0 tree node, 16 | 16 first page | 20 last page |. A table stays until the
 * device is released. The search for a free range walks the live ranges: O(mappings of the device).
 *
 * Protection is by page, as on real hardware: within the first and last page of a mapping a device could reach further;
 * here the windows of the bus catch that as well. Context: map, unmap any (tables come with GFP_ATOMIC).
 * Source: drivers/iommu/{dma-iommu,iova}.c.
 */

import { CYC_IOTLB_FLUSH } from "../kernel/arch/charges.ts";
import type { BusMaster } from "../kernel/arch/dma_bus.ts";
import {
  IOMMU_PTE_READ,
  IOMMU_PTE_WRITE,
  IOMMU_TABLE_ENTRIES,
  IOVA_END,
  type IommuDomain,
} from "../kernel/arch/iommu.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { roundUpPow2 } from "../kernel/lib/bits.ts";
import { createRbTree } from "../kernel/lib/rbtree.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import {
  alignDown,
  alignUp,
  asDma,
  asPhys,
  type Context,
  type DmaAddr,
  fromGranule,
  NO_PFN,
  NULL,
  type PhysAddr,
  pfnToPhys,
  physToPfn,
  type TaskContext,
  toGranule,
} from "../kernel/types.ts";
import { EIO, ENOMEM } from "../kernel/uapi/errno.ts";
import {
  DEV_BOUNDARY,
  DEV_COHERENT_MASK,
  DEV_DOMAIN,
  DEV_MASK,
  DEV_MAX_SEGMENT,
  type DmaDevice,
} from "./dma_device.ts";
import {
  DMA_BIDIRECTIONAL,
  DMA_MAPPING_ERROR,
  type DmaDirection,
  type DmaMapOps,
  deviceReads,
  deviceWrites,
} from "./dma_ops.ts";
import { __GFP_NOWARN, __GFP_ZERO, GFP_ATOMIC, GFP_NOWAIT } from "./gfp.ts";
import type { Kmalloc } from "./kmalloc.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { crossesBoundary, type Scatterlists } from "./scatterlist.ts";

const D_LOCK = 0;
const D_TREE = 4;
const D_ROOT = 8;
const D_NR_TABLES = 12;
const D_NR_PAGES = 16;
const DOMAIN_BYTES = 24;

const V_FIRST = 16;
const V_LAST = 20;
const IOVA_BYTES = 24;

export interface IommuOpsDeps {
  readonly machine: Machine;
  readonly spinlocks: Spinlocks;
  readonly pageAlloc: PageAllocator;
  readonly kmalloc: Kmalloc;
  readonly sg: Scatterlists;
  readonly masterOf: (dev: DmaDevice) => BusMaster;
}

const pagesOf = (phys: number, bytes: number): number => Math.ceil(((phys % PAGE_SIZE) + bytes) / PAGE_SIZE);
const permissionsOf = (direction: DmaDirection): number =>
  (deviceReads(direction) ? IOMMU_PTE_READ : 0) | (deviceWrites(direction) ? IOMMU_PTE_WRITE : 0);

export function createIommuOps(deps: IommuOpsDeps): DmaMapOps {
  const { machine, spinlocks, pageAlloc, kmalloc, sg, masterOf } = deps;
  const { port, harts, dmaBus, iommu } = machine;
  // The hardware's side of each domain, by address of the domain.
  const hardware = new Map<number, IommuDomain>();
  const first = (iova: number): number => port.ld32(iova + V_FIRST);
  const last = (iova: number): number => port.ld32(iova + V_LAST);
  const tree = createRbTree(port, { less: (a, b) => first(a) < first(b) });
  const domainOf = (dev: DmaDevice): PhysAddr => fromGranule(port.ld32(dev + DEV_DOMAIN));
  const treeOf = (domain: PhysAddr): PhysAddr => asPhys(domain + D_TREE);
  const add = (domain: PhysAddr, offset: number, delta: number): void =>
    port.st32(domain + offset, port.ld32(domain + offset) + delta);

  const locked = <T>(ctx: Context, domain: PhysAddr, work: () => T): T => {
    const lock = asPhys(domain + D_LOCK);
    const flags = spinlocks.spinLockIrqsave(ctx, lock);
    const result = work();
    spinlocks.spinUnlockIrqrestore(ctx, lock, flags);
    return result;
  };

  // ── Ranges of bus pages (IOM-1) ──────────────────────────────────────────────────────────────────────────────────

  /** Highest free range of `nrPages` below `maskBits`, a multiple of `alignPages`; 0 if there is none. */
  const findRange = (domain: PhysAddr, nrPages: number, alignPages: number, maskBits: number): number => {
    let high = Math.floor(Math.min(2 ** maskBits, IOVA_END) / PAGE_SIZE) - 1;
    for (let node = tree.last(treeOf(domain)); node !== NULL; node = tree.prev(node)) {
      const candidate = alignDown(Math.max(0, high - nrPages + 1), alignPages);
      if (candidate > last(node)) return candidate;
      high = Math.min(high, first(node) - 1);
    }
    const candidate = high - nrPages + 1 < 1 ? 0 : alignDown(high - nrPages + 1, alignPages);
    return candidate;
  };

  const findIova = (domain: PhysAddr, dma: number): PhysAddr => {
    const page = Math.floor(dma / PAGE_SIZE);
    const node = tree.lowerBound(treeOf(domain), (each) => last(each) >= page);
    return node !== NULL && first(node) <= page ? node : NULL;
  };

  // ── Tables (IOM-2) ───────────────────────────────────────────────────────────────────────────────────────────────

  /** Address of the entry of a bus page; makes its table if asked to. NULL if there is none. */
  const entryOf = (ctx: Context, domain: PhysAddr, page: number, isNew: boolean): PhysAddr => {
    const upper = port.ld32(domain + D_ROOT) + Math.floor(page / IOMMU_TABLE_ENTRIES) * 4;
    if (port.ld32(upper) === 0) {
      const pfn = isNew ? pageAlloc.tryAllocPages(ctx, 0, GFP_ATOMIC | __GFP_NOWARN | __GFP_ZERO) : NO_PFN;
      if (pfn === NO_PFN) return NULL;
      port.st32(upper, pfnToPhys(pfn) + IOMMU_PTE_READ + IOMMU_PTE_WRITE);
      add(domain, D_NR_TABLES, 1);
    }
    return asPhys(alignDown(port.ld32(upper), PAGE_SIZE) + (page % IOMMU_TABLE_ENTRIES) * 4);
  };

  const mapPages = (
    ctx: Context,
    domain: PhysAddr,
    page: number,
    phys: number,
    nrPages: number,
    permissions: number,
  ): boolean => {
    for (let i = 0; i < nrPages; i++) {
      const entry = entryOf(ctx, domain, page + i, true);
      if (entry === NULL) return false;
      port.st32(entry, alignDown(phys, PAGE_SIZE) + i * PAGE_SIZE + permissions);
      add(domain, D_NR_PAGES, 1);
    }
    return true;
  };

  /** IOM-3: clears a range, flushes, frees it. */
  const release = (ctx: Context, domain: PhysAddr, iova: PhysAddr): void => {
    for (let page = first(iova); page <= last(iova); page++) {
      const entry = entryOf(ctx, domain, page, false);
      if (entry === NULL || port.ld32(entry) === 0) continue;
      port.st32(entry, 0);
      add(domain, D_NR_PAGES, -1);
    }
    hardware.get(domain)?.flush(first(iova) * PAGE_SIZE, last(iova) - first(iova) + 1);
    harts.clock[ctx.cpu] = (harts.clock[ctx.cpu] as number) + CYC_IOTLB_FLUSH;
    tree.erase(treeOf(domain), iova);
  };

  /** A range in the tree; NULL without memory or room. */
  const takeRange = (ctx: Context, domain: PhysAddr, nrPages: number, align: number, maskBits: number): PhysAddr => {
    const iova = kmalloc.kmallocAny(ctx, IOVA_BYTES, GFP_ATOMIC | __GFP_NOWARN) as PhysAddr;
    if (iova === NULL) return NULL;
    const page = locked(ctx, domain, () => {
      const found = findRange(domain, nrPages, align, maskBits);
      if (found === 0) return 0;
      port.st32(iova + V_FIRST, found);
      port.st32(iova + V_LAST, found + nrPages - 1);
      tree.insert(treeOf(domain), iova);
      return found;
    });
    if (page !== 0) return iova;
    kmalloc.kfree(ctx, iova);
    return NULL;
  };

  const giveRange = (ctx: Context, domain: PhysAddr, iova: PhysAddr): void => {
    locked(ctx, domain, () => release(ctx, domain, iova));
    kmalloc.kfree(ctx, iova);
  };

  const mapAt = (
    ctx: Context,
    dev: DmaDevice,
    phys: number,
    bytes: number,
    permissions: number,
    maskBits: number,
  ): DmaAddr => {
    const domain = domainOf(dev);
    const nrPages = pagesOf(phys, bytes);
    const iova = takeRange(ctx, domain, nrPages, roundUpPow2(nrPages), maskBits);
    if (iova === NULL) return DMA_MAPPING_ERROR;
    if (locked(ctx, domain, () => mapPages(ctx, domain, first(iova), phys, nrPages, permissions))) {
      return asDma(first(iova) * PAGE_SIZE + (phys % PAGE_SIZE));
    }
    giveRange(ctx, domain, iova);
    return DMA_MAPPING_ERROR;
  };

  const unmapAt = (ctx: Context, dev: DmaDevice, dma: number): void => {
    const domain = domainOf(dev);
    const iova = findIova(domain, dma);
    if (iova !== NULL && first(iova) === Math.floor(dma / PAGE_SIZE)) giveRange(ctx, domain, iova);
  };

  // ── Scatter-gather: one range for the whole list ─────────────────────────────────────────────────────────────────

  /** Bus page of each entry relative to the range's start, and the pages of all: entries do not straddle boundaries. */
  const layOut = (dev: DmaDevice, sgl: PhysAddr, nents: number): { offsets: number[]; nrPages: number } => {
    const boundaryPages = Math.max(1, port.ld32(dev + DEV_BOUNDARY) / PAGE_SIZE);
    const offsets: number[] = [];
    let nrPages = 0;
    for (let i = 0; i < nents; i++) {
      const start = nrPages * PAGE_SIZE + (sg.sgAddress(sgl, i) % PAGE_SIZE);
      const length = sg.sgLength(sgl, i);
      if (crossesBoundary(start, length, port.ld32(dev + DEV_BOUNDARY))) nrPages = alignUp(nrPages, boundaryPages);
      offsets.push(nrPages);
      nrPages += pagesOf(sg.sgAddress(sgl, i), length);
    }
    return { offsets, nrPages };
  };

  const writeSegments = (dev: DmaDevice, sgl: PhysAddr, base: number, offsets: readonly number[]): number => {
    let nr = 0;
    offsets.forEach((offset, i) => {
      const dma = (base + offset) * PAGE_SIZE + (sg.sgAddress(sgl, i) % PAGE_SIZE);
      const bytes = sg.sgLength(sgl, i);
      const start = nr === 0 ? 0 : sg.sgDmaAddress(sgl, nr - 1);
      const length = nr === 0 ? 0 : sg.sgDmaLength(sgl, nr - 1);
      const fits = length + bytes <= port.ld32(dev + DEV_MAX_SEGMENT);
      if (start + length === dma && fits && !crossesBoundary(start, length + bytes, port.ld32(dev + DEV_BOUNDARY))) {
        sg.setSegment(sgl, nr - 1, asDma(start), length + bytes);
      } else {
        sg.setSegment(sgl, nr++, asDma(dma), bytes);
      }
    });
    sg.endSegments(sgl, nr, offsets.length);
    return nr;
  };

  const mapSg: DmaMapOps["mapSg"] = (ctx, dev, sgl, nents, direction) => {
    const domain = domainOf(dev);
    const { offsets, nrPages } = layOut(dev, sgl, nents);
    const boundaryPages = Math.max(1, port.ld32(dev + DEV_BOUNDARY) / PAGE_SIZE);
    const align = Math.max(roundUpPow2(nrPages), boundaryPages);
    const iova = takeRange(ctx, domain, nrPages, align, port.ld32(dev + DEV_MASK));
    if (iova === NULL) return -ENOMEM;
    const permissions = permissionsOf(direction);
    const isMapped = locked(ctx, domain, () =>
      offsets.every((offset, i) => {
        const phys = sg.sgAddress(sgl, i);
        return mapPages(ctx, domain, first(iova) + offset, phys, pagesOf(phys, sg.sgLength(sgl, i)), permissions);
      }),
    );
    if (isMapped) return writeSegments(dev, sgl, first(iova), offsets);
    giveRange(ctx, domain, iova);
    sg.endSegments(sgl, 0, nents);
    return -EIO;
  };

  const attach = (ctx: TaskContext, dev: DmaDevice): number => {
    const gfp = GFP_NOWAIT | __GFP_NOWARN | __GFP_ZERO;
    const domain = kmalloc.kmallocAny(ctx, DOMAIN_BYTES, gfp) as PhysAddr;
    if (domain === NULL) return -ENOMEM;
    const root = pageAlloc.tryAllocPages(ctx, 0, gfp);
    if (root === NO_PFN) {
      kmalloc.kfree(ctx, domain);
      return -ENOMEM;
    }
    port.st32(domain + D_ROOT, pfnToPhys(root));
    port.st32(dev + DEV_DOMAIN, toGranule(domain));
    const unit = iommu.createDomain(pfnToPhys(root));
    hardware.set(domain, unit);
    dmaBus.setTranslation(masterOf(dev), unit.translate);
    return 0;
  };

  const detach = (ctx: TaskContext, dev: DmaDevice): void => {
    const domain = domainOf(dev);
    for (let iova = tree.first(treeOf(domain)); iova !== NULL; iova = tree.first(treeOf(domain))) {
      giveRange(ctx, domain, iova);
    }
    const root = port.ld32(domain + D_ROOT);
    for (let i = 0; i < IOMMU_TABLE_ENTRIES; i++) {
      const upper = port.ld32(root + i * 4);
      if (upper !== 0) pageAlloc.freePages(ctx, physToPfn(asPhys(alignDown(upper, PAGE_SIZE))), 0);
    }
    pageAlloc.freePages(ctx, physToPfn(asPhys(root)), 0);
    hardware.delete(domain);
    port.st32(dev + DEV_DOMAIN, 0);
    kmalloc.kfree(ctx, domain);
  };

  const checkDomain = (domain: PhysAddr): string | null => {
    let nrPages = 0;
    for (let iova = tree.first(treeOf(domain)); iova !== NULL; iova = tree.next(iova)) {
      const next = tree.next(iova);
      if (next !== NULL && first(next) <= last(iova)) return "IOM-1: ranges overlap";
      nrPages += last(iova) - first(iova) + 1;
    }
    const root = port.ld32(domain + D_ROOT);
    let nrMapped = 0;
    for (let i = 0; i < IOMMU_TABLE_ENTRIES; i++) {
      const table = alignDown(port.ld32(root + i * 4), PAGE_SIZE);
      for (let j = 0; table !== 0 && j < IOMMU_TABLE_ENTRIES; j++) if (port.ld32(table + j * 4) !== 0) nrMapped++;
    }
    if (nrMapped !== port.ld32(domain + D_NR_PAGES)) return "IOM-2: the tables map other pages than were counted";
    return nrMapped <= nrPages ? tree.check(treeOf(domain)) : "IOM-2: pages are mapped outside of ranges";
  };

  return {
    name: "iommu",
    attach,
    detach,
    isMaskSupported: (bits) => bits >= 16,
    map: (ctx, dev, phys, bytes, direction) =>
      mapAt(ctx, dev, phys, bytes, permissionsOf(direction), port.ld32(dev + DEV_MASK)),
    unmap: (ctx, dev, dma) => unmapAt(ctx, dev, dma),
    syncForCpu: () => {},
    syncForDevice: () => {},
    mapSg,
    unmapSg: (ctx, dev, sgl) => unmapAt(ctx, dev, sg.sgDmaAddress(sgl, 0)),
    coherentZones: () => [0],
    mapCoherent: (ctx, dev, phys, bytes) =>
      mapAt(ctx, dev, phys, bytes, permissionsOf(DMA_BIDIRECTIONAL), port.ld32(dev + DEV_COHERENT_MASK)),
    unmapCoherent: (ctx, dev, dma) => unmapAt(ctx, dev, dma),
    toMemory(dev, dma) {
      const domain = domainOf(dev);
      const page = Math.floor(dma / PAGE_SIZE);
      const upper = port.ld32(port.ld32(domain + D_ROOT) + Math.floor(page / IOMMU_TABLE_ENTRIES) * 4);
      if (dma < 0 || upper === 0) return NULL;
      const entry = port.ld32(alignDown(upper, PAGE_SIZE) + (page % IOMMU_TABLE_ENTRIES) * 4);
      return entry === 0 ? NULL : asPhys(alignDown(entry, PAGE_SIZE) + (dma % PAGE_SIZE));
    },
    check() {
      for (const domain of hardware.keys()) {
        const fault = checkDomain(asPhys(domain));
        if (fault !== null) return fault;
      }
      return null;
    },
  };
}
