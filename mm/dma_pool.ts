/**
 * dma_pool: many small coherent blocks out of few coherent pages, none across a boundary (D2).
 *
 *   a page of allocation = max(size, PAGE_SIZE) bytes, boundary = 4096, size = 68, align = 32 → 96 a block:
 *
 *   0      96     192          3936   4032 4096
 *   ├──────┼──────┼── ─ ─ ─ ───┼──────┤....│     a block that would cross the boundary starts behind it
 *
 *   free block: | 0 address of the next free block | 4 its own bus address | poison 0xa7 … |     (u32 each)
 *
 *   POOL-1  a block is aligned to `align`, crosses no multiple of `boundary`, and overlaps no live block
 *   POOL-2  nr_active = blocks handed out; nr_blocks = those on the free list + nr_active
 *   POOL-3  pages go back at destroy only, and only if no block is live
 *   POOL-4  debug: a free block is 0xa7 behind its links, a handed out one 0xa9 unless zeroed; a change is reported
 *   POOL-5  a free of what is no live block of the pool is reported and changes nothing
 *   POOL-6  debug: links of a free block that lead out of the pool (a device wrote there) are reported and not followed
 *
 * struct dma_pool, a kmalloc block: | 0 pages, list | 8 node in its device's list | 16 lock | 20 size | 24 allocation
 * | 28 boundary | 32 blocks | 36 active | 40 pages | 44 first free block | 48 device | 52 magic | 56 align
 * | 64 name, 32 |. struct dma_page: | 0 node | 8 CPU address | 12 bus address |.
 *
 * Context: create and destroy may sleep; alloc as its mask says (G2); free any. Lock: the pool's, interrupts off.
 * Different from Linux: our links take 8 bytes, not 16, so that is the smallest block; of a bad free Linux sees less
 * (only `bad dma` without DMAPOOL_DEBUG, and never the middle of a block). Source: mm/dmapool.c.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { isPowerOfTwo } from "../kernel/lib/bits.ts";
import { initListHead, listAddTail, listDel, listIsEmpty, listNext } from "../kernel/lib/list.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { KERN_ERR, type Printk } from "../kernel/printk.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import {
  alignUp,
  asDma,
  asPhys,
  type Context,
  type DmaAddr,
  NULL,
  type PhysAddr,
  type Sleeping,
  type TaskContext,
} from "../kernel/types.ts";
import type { DmaAllocate, DmaMemory } from "./dma_coherent.ts";
import { asDevice, DEV_POOLS, type DmaDevice, deviceLabel } from "./dma_device.ts";
import {
  __GFP_NOWARN,
  __GFP_ZERO,
  type AtomicGfp,
  type BlockingGfp,
  GFP_NOWAIT,
  type Gfp,
  gfpAllowsBlocking,
} from "./gfp.ts";
import type { Kmalloc } from "./kmalloc.ts";

declare const poolBrand: unique symbol;
/** Address of a struct dma_pool. */
export type DmaPool = PhysAddr & { readonly [poolBrand]: true };
export const NO_POOL = 0 as DmaPool;

const POOL_PAGES = 0;
const POOL_NODE = 8;
const POOL_LOCK = 16;
const POOL_SIZE = 20;
const POOL_ALLOCATION = 24;
const POOL_BOUNDARY = 28;
const POOL_NR_BLOCKS = 32;
const POOL_NR_ACTIVE = 36;
const POOL_NR_PAGES = 40;
const POOL_NEXT_BLOCK = 44;
const POOL_DEVICE = 48;
const POOL_MAGIC = 52;
const POOL_ALIGN = 56;
const POOL_NAME = 64;
const POOL_BYTES = 96;
const NAME_BYTES = 32;
const MAGIC = 0x706f_6f6c;

const PAGE_VADDR = 8;
const PAGE_DMA = 12;
const PAGE_BYTES = 16;

/** Links of a free block: next, own bus address. */
export const DMA_BLOCK_BYTES = 8;
export const POOL_POISON_FREED = 0xa7;
export const POOL_POISON_ALLOCATED = 0xa9;

export interface DmaPoolGeometry {
  /** Bytes from one block to the next. */
  readonly size: number;
  /** Bytes of one coherent allocation. */
  readonly allocation: number;
  readonly boundary: number;
}

/** D2: the numbers of a pool, or null for parameters that make no pool. Pure. */
export function dmaPoolGeometry(size: number, align: number, boundary: number): DmaPoolGeometry | null {
  const step = align === 0 ? 1 : align;
  if (!isPowerOfTwo(step) || !Number.isInteger(size) || size < 1 || size > 2 ** 31 - 1) return null;
  const blockBytes = alignUp(Math.max(size, DMA_BLOCK_BYTES), step);
  const allocation = Math.max(blockBytes, PAGE_SIZE);
  if (boundary === 0) return { size: blockBytes, allocation, boundary: allocation };
  if (boundary < blockBytes || !isPowerOfTwo(boundary)) return null;
  return { size: blockBytes, allocation, boundary: Math.min(boundary, allocation) };
}

/** Offsets of the blocks of one allocation, ascending. Pure. */
export function dmaPoolOffsets({ size, allocation, boundary }: DmaPoolGeometry): number[] {
  const offsets: number[] = [];
  let nextBoundary = boundary;
  for (let offset = 0; offset + size <= allocation; ) {
    if (offset + size > nextBoundary) {
      offset = nextBoundary;
      nextBoundary += boundary;
      continue;
    }
    offsets.push(offset);
    offset += size;
  }
  return offsets;
}

export interface DmaPools {
  /** A pool of blocks of `size` bytes, or NO_POOL: bad parameters or no memory. */
  create(ctx: TaskContext, name: string, dev: DmaDevice, size: number, align: number, boundary: number): DmaPool;
  /** A block, or null if memory is short. */
  readonly alloc: DmaAllocate<[pool: DmaPool]>;
  free(ctx: Context, pool: DmaPool, cpu: PhysAddr, dma: DmaAddr): void;
  /** Gives all pages back; with live blocks it says `busy` and leaves the pages (leaked, as in Linux). */
  destroy(ctx: TaskContext, pool: DmaPool): void;
  /** Text of a device's `pools` file. */
  poolsText(dev: DmaDevice): string;
  /** POOL-1 … POOL-4 of a device's pools: the first violation, or null. O(blocks). */
  check(dev: DmaDevice): string | null;
}

export interface DmaPoolDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly spinlocks: Spinlocks;
  readonly printk: Printk;
  readonly kmalloc: Kmalloc;
  /** Poison and check blocks (POOL-4). */
  readonly isDebug: boolean;
  readonly allocCoherent: DmaAllocate<[dev: DmaDevice, bytes: number]>;
  readonly freeCoherent: (ctx: TaskContext, dev: DmaDevice, bytes: number, cpu: PhysAddr, dma: DmaAddr) => void;
}

export function createDmaPools(deps: DmaPoolDeps): DmaPools {
  const { machine, contexts, spinlocks, printk, kmalloc, isDebug } = deps;
  const { port } = machine;
  const field = (pool: number, offset: number): number => port.ld32(pool + offset);
  const setField = (pool: number, offset: number, value: number): void => port.st32(pool + offset, value);
  const deviceOf = (pool: DmaPool): DmaDevice => asDevice(field(pool, POOL_DEVICE));
  const pagesOf = (pool: DmaPool): PhysAddr => asPhys(pool + POOL_PAGES);
  const hex = (addr: number): string => `0x${addr.toString(16).padStart(16, "0")}`;

  const nameOf = (pool: DmaPool): string => {
    let name = "";
    for (let i = 0; i < NAME_BYTES; i++) {
      const code = port.ld8(pool + POOL_NAME + i);
      if (code === 0) break;
      name += String.fromCharCode(code);
    }
    return name;
  };
  const complain = (pool: DmaPool, text: string): void =>
    printk(KERN_ERR, `${deviceLabel(port, deviceOf(pool))}: ${text}`);

  // A block need not be 4-aligned (align 1, size 17), so its links are read and written by the byte.
  const loadWord = (addr: number): number =>
    (port.ld8(addr) | (port.ld8(addr + 1) << 8) | (port.ld8(addr + 2) << 16) | (port.ld8(addr + 3) << 24)) >>> 0;
  const storeWord = (addr: number, value: number): void => {
    for (let i = 0; i < 4; i++) port.st8(addr + i, (value >>> (8 * i)) & 0xff);
  };
  const nextOf = (block: number): PhysAddr => asPhys(loadWord(block));
  const link = (block: number, next: number, dma: number): void => {
    storeWord(block, next);
    storeWord(block + 4, dma);
  };

  const geometryOf = (pool: DmaPool): DmaPoolGeometry => ({
    size: field(pool, POOL_SIZE),
    allocation: field(pool, POOL_ALLOCATION),
    boundary: field(pool, POOL_BOUNDARY),
  });

  const forEachPage = (pool: DmaPool, visit: (page: PhysAddr) => void): void => {
    for (let page = listNext(port, pagesOf(pool)); page !== pagesOf(pool); ) {
      const next = listNext(port, page);
      visit(page);
      page = next;
    }
  };

  /** The page that a bus address lies in, or NULL. */
  const findPage = (pool: DmaPool, dma: DmaAddr): PhysAddr => {
    let found = NULL;
    forEachPage(pool, (page) => {
      const start = field(page, PAGE_DMA);
      if (dma >= start && dma < start + field(pool, POOL_ALLOCATION)) found = page;
    });
    return found;
  };

  // ── Growing ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A struct dma_page. Taken before the pages, which an interrupt handler could not give back. */
  const newDescriptor = (ctx: Context): PhysAddr => kmalloc.kmallocAny(ctx, PAGE_BYTES, GFP_NOWAIT) as PhysAddr;

  /** Lays blocks out over new pages and puts them on the free list, lowest first. */
  const growWith = (ctx: Context, pool: DmaPool, page: PhysAddr, { cpu, dma }: DmaMemory): void => {
    setField(page, PAGE_VADDR, cpu);
    setField(page, PAGE_DMA, dma);
    if (isDebug) port.fill(cpu, POOL_POISON_FREED, field(pool, POOL_ALLOCATION));
    const offsets = dmaPoolOffsets(geometryOf(pool));
    const flags = spinlocks.spinLockIrqsave(ctx, asPhys(pool + POOL_LOCK));
    for (let i = offsets.length - 1; i >= 0; i--) {
      const offset = offsets[i] as number;
      link(cpu + offset, field(pool, POOL_NEXT_BLOCK), dma + offset);
      setField(pool, POOL_NEXT_BLOCK, cpu + offset);
    }
    listAddTail(port, page, pagesOf(pool));
    setField(pool, POOL_NR_PAGES, field(pool, POOL_NR_PAGES) + 1);
    setField(pool, POOL_NR_BLOCKS, field(pool, POOL_NR_BLOCKS) + offsets.length);
    spinlocks.spinUnlockIrqrestore(ctx, asPhys(pool + POOL_LOCK), flags);
  };

  // ── Blocks ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** POOL-4: was a free block written to? */
  const checkPoison = (pool: DmaPool, block: PhysAddr): void => {
    const size = field(pool, POOL_SIZE);
    for (let i = DMA_BLOCK_BYTES; i < size; i++) {
      if (port.ld8(block + i) === POOL_POISON_FREED) continue;
      complain(pool, `pool_check_block ${nameOf(pool)}, ${hex(block)} (corrupted)`);
      const bytes = port.readBytes(block, Math.min(size, 64));
      for (let row = 0; row < bytes.length; row += 16) {
        const text = [...bytes.subarray(row, row + 16)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
        printk(KERN_ERR, `${(block + row).toString(16).padStart(8, "0")}: ${text}`);
      }
      return;
    }
  };

  /** Does a block of the pool begin at this CPU address? O(pages). */
  const isBlock = (pool: DmaPool, block: number): boolean => {
    let isFound = false;
    forEachPage(pool, (page) => {
      const offset = block - field(page, PAGE_VADDR);
      if (offset < 0 || offset >= field(pool, POOL_ALLOCATION)) return;
      isFound = (offset % field(pool, POOL_BOUNDARY)) % field(pool, POOL_SIZE) === 0;
    });
    return isFound;
  };

  const hasSoundLinks = (pool: DmaPool, block: PhysAddr): boolean => {
    const next = nextOf(block);
    return (next === NULL || isBlock(pool, next)) && findPage(pool, asDma(loadWord(block + 4))) !== NULL;
  };

  /** POOL-6: the blocks behind `block` cannot be found any more; those that are live come back by and by. */
  const dropFreeBlocks = (pool: DmaPool, block: PhysAddr): void => {
    complain(pool, `pool_check_block ${nameOf(pool)}, ${hex(block)} (corrupted links, free blocks are given up)`);
    setField(pool, POOL_NEXT_BLOCK, NULL);
    setField(pool, POOL_NR_BLOCKS, field(pool, POOL_NR_ACTIVE));
  };

  const pop = (ctx: Context, pool: DmaPool, gfp: Gfp): DmaMemory | null => {
    const flags = spinlocks.spinLockIrqsave(ctx, asPhys(pool + POOL_LOCK));
    let block = asPhys(field(pool, POOL_NEXT_BLOCK));
    if (isDebug && block !== NULL && !hasSoundLinks(pool, block)) {
      dropFreeBlocks(pool, block);
      block = NULL;
    }
    if (block !== NULL) {
      setField(pool, POOL_NEXT_BLOCK, nextOf(block));
      setField(pool, POOL_NR_ACTIVE, field(pool, POOL_NR_ACTIVE) + 1);
    }
    spinlocks.spinUnlockIrqrestore(ctx, asPhys(pool + POOL_LOCK), flags);
    if (block === NULL) return null;
    const dma = asDma(loadWord(block + 4));
    if (isDebug) checkPoison(pool, block);
    if ((gfp & __GFP_ZERO) !== 0) port.fill(block, 0, field(pool, POOL_SIZE));
    else if (isDebug) port.fill(block, POOL_POISON_ALLOCATED, field(pool, POOL_SIZE));
    return { cpu: block, dma };
  };

  function* allocBlocking(ctx: TaskContext, pool: DmaPool, gfp: BlockingGfp): Sleeping<DmaMemory | null> {
    for (let block = pop(ctx, pool, gfp); ; block = pop(ctx, pool, gfp)) {
      if (block !== null) return block;
      const page = newDescriptor(ctx);
      if (page === NULL) return null;
      const memory = yield* deps.allocCoherent(ctx, deviceOf(pool), field(pool, POOL_ALLOCATION), gfp);
      if (memory === null) {
        kmalloc.kfree(ctx, page);
        return null;
      }
      growWith(ctx, pool, page, memory);
    }
  }

  const allocAtomic = (ctx: Context, pool: DmaPool, gfp: AtomicGfp): DmaMemory | null => {
    const block = pop(ctx, pool, gfp);
    if (block !== null) return block;
    const page = newDescriptor(ctx);
    if (page === NULL) return null;
    const memory = deps.allocCoherent(ctx, deviceOf(pool), field(pool, POOL_ALLOCATION), gfp);
    if (memory === null) kmalloc.kfree(ctx, page);
    else growWith(ctx, pool, page, memory);
    return memory === null ? null : pop(ctx, pool, gfp);
  };

  /** POOL-5: why `cpu`, `dma` is no live block of this pool; null if it is. O(pages), in debug mode O(free blocks). */
  const whyBad = (pool: DmaPool, cpu: PhysAddr, dma: DmaAddr): string | null => {
    const page = findPage(pool, dma);
    const where = `${hex(cpu)}/${hex(dma)}`;
    if (page === NULL) return `dma_pool_free ${nameOf(pool)}, ${where} (bad dma)`;
    const offset = dma - field(page, PAGE_DMA);
    const inBoundary = offset % field(pool, POOL_BOUNDARY);
    if (inBoundary % field(pool, POOL_SIZE) !== 0) return `dma_pool_free ${nameOf(pool)}, ${where} (bad dma)`;
    if (cpu !== field(page, PAGE_VADDR) + offset) {
      return `dma_pool_free ${nameOf(pool)}, ${hex(cpu)} (bad vaddr)/${hex(dma)}`;
    }
    for (let block = isDebug ? field(pool, POOL_NEXT_BLOCK) : 0; block !== 0; block = nextOf(block)) {
      if (!isBlock(pool, block)) break; // POOL-6: the next allocation tells
      if (block === cpu) return `dma_pool_free ${nameOf(pool)}, dma ${hex(dma)} already free`;
    }
    return null;
  };

  const destroyPages = (ctx: TaskContext, pool: DmaPool, isBusy: boolean): void => {
    forEachPage(pool, (page) => {
      if (!isBusy) {
        const [cpu, dma] = [asPhys(field(page, PAGE_VADDR)), asDma(field(page, PAGE_DMA))];
        deps.freeCoherent(ctx, deviceOf(pool), field(pool, POOL_ALLOCATION), cpu, dma);
      }
      listDel(port, page);
      kmalloc.kfree(ctx, page);
    });
  };

  return {
    create(ctx, name, dev, size, align, boundary) {
      contexts.mightSleep(ctx, "mm/dma_pool.ts:create");
      const geometry = dmaPoolGeometry(size, align, boundary);
      if (geometry === null) return NO_POOL;
      const pool = kmalloc.kmallocAny(ctx, POOL_BYTES, GFP_NOWAIT | __GFP_NOWARN | __GFP_ZERO) as DmaPool;
      if (pool === NULL) return NO_POOL;
      initListHead(port, pagesOf(pool));
      initListHead(port, asPhys(pool + POOL_NODE));
      setField(pool, POOL_SIZE, geometry.size);
      setField(pool, POOL_ALLOCATION, geometry.allocation);
      setField(pool, POOL_BOUNDARY, geometry.boundary);
      setField(pool, POOL_DEVICE, dev);
      setField(pool, POOL_MAGIC, MAGIC);
      setField(pool, POOL_ALIGN, align || 1);
      for (let i = 0; i < NAME_BYTES - 1; i++) port.st8(pool + POOL_NAME + i, name.charCodeAt(i) & 0x7f || 0);
      listAddTail(port, asPhys(pool + POOL_NODE), asPhys(dev + DEV_POOLS));
      return pool;
    },
    alloc: ((ctx: Context, pool: DmaPool, gfp: Gfp) => {
      if (!gfpAllowsBlocking(gfp)) return allocAtomic(ctx, pool, gfp as AtomicGfp);
      contexts.mightSleep(ctx, "mm/dma_pool.ts:alloc");
      return contexts.mustIterate(allocBlocking(ctx as TaskContext, pool, gfp));
    }) as DmaPools["alloc"],
    free(ctx, pool, cpu, dma) {
      const flags = spinlocks.spinLockIrqsave(ctx, asPhys(pool + POOL_LOCK));
      const why = whyBad(pool, cpu, dma);
      if (why === null) {
        if (isDebug) port.fill(cpu, POOL_POISON_FREED, field(pool, POOL_SIZE));
        link(cpu, field(pool, POOL_NEXT_BLOCK), dma);
        setField(pool, POOL_NEXT_BLOCK, cpu);
        setField(pool, POOL_NR_ACTIVE, field(pool, POOL_NR_ACTIVE) - 1);
      }
      spinlocks.spinUnlockIrqrestore(ctx, asPhys(pool + POOL_LOCK), flags);
      if (why !== null) complain(pool, why);
    },
    destroy(ctx, pool) {
      contexts.mightSleep(ctx, "mm/dma_pool.ts:destroy");
      if (pool === NO_POOL) return;
      const isBusy = field(pool, POOL_NR_ACTIVE) !== 0;
      if (isBusy) complain(pool, `dma_pool_destroy ${nameOf(pool)} busy`);
      destroyPages(ctx, pool, isBusy);
      listDel(port, asPhys(pool + POOL_NODE));
      setField(pool, POOL_MAGIC, 0);
      kmalloc.kfree(ctx, pool);
    },
    poolsText(dev) {
      const rows = ["poolinfo - 0.1"];
      const head = asPhys(dev + DEV_POOLS);
      for (let node = listNext(port, head); node !== head; node = listNext(port, node)) {
        const pool = (node - POOL_NODE) as DmaPool;
        const columns = [
          nameOf(pool).padEnd(16),
          String(field(pool, POOL_NR_ACTIVE)).padStart(4),
          String(field(pool, POOL_NR_BLOCKS)).padStart(4),
          String(field(pool, POOL_SIZE)).padStart(4),
          String(field(pool, POOL_NR_PAGES)).padStart(2),
        ];
        rows.push(columns.join(" "));
      }
      return `${rows.join("\n")}\n`;
    },
    check(dev) {
      const head = asPhys(dev + DEV_POOLS);
      for (let node = listNext(port, head); node !== head; node = listNext(port, node)) {
        const fault = checkPool((node - POOL_NODE) as DmaPool);
        if (fault !== null) return fault;
      }
      return null;
    },
  };

  function checkPool(pool: DmaPool): string | null {
    if (field(pool, POOL_MAGIC) !== MAGIC) return "POOL: not a pool";
    let nrFree = 0;
    const nrBlocks = field(pool, POOL_NR_BLOCKS);
    for (let block = asPhys(field(pool, POOL_NEXT_BLOCK)); block !== NULL; block = nextOf(block)) {
      if (++nrFree > nrBlocks) return "POOL-2: the free list is longer than the pool";
      const fault = checkBlock(pool, block);
      if (fault !== null) return fault;
    }
    if (listIsEmpty(port, pagesOf(pool)) !== (nrBlocks === 0)) return "POOL-2: blocks without pages";
    return nrFree + field(pool, POOL_NR_ACTIVE) === nrBlocks ? null : "POOL-2: free + active is not all blocks";
  }

  function checkBlock(pool: DmaPool, block: PhysAddr): string | null {
    const dma = asDma(loadWord(block + 4));
    const page = findPage(pool, dma);
    if (page === NULL || field(page, PAGE_VADDR) - field(page, PAGE_DMA) !== block - dma) {
      return `POOL-1: free block ${hex(block)} is in no page of the pool`;
    }
    const [size, boundary] = [field(pool, POOL_SIZE), field(pool, POOL_BOUNDARY)];
    if (dma % field(pool, POOL_ALIGN) !== 0) return `POOL-1: block ${hex(dma)} is not aligned`;
    const crosses = Math.floor(dma / boundary) !== Math.floor((dma + size - 1) / boundary);
    if (crosses && boundary !== field(pool, POOL_ALLOCATION)) return `POOL-1: block ${hex(dma)} crosses a boundary`;
    for (let i = DMA_BLOCK_BYTES; isDebug && i < size; i++) {
      if (port.ld8(block + i) !== POOL_POISON_FREED) return `POOL-4: free block ${hex(block)} was written to`;
    }
    return null;
  }
}
