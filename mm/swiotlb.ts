/**
 * swiotlb: bounce buffers for devices that cannot reach all memory (D5).
 *
 *        driver's buffer, too high                       the pool, in ZONE_DMA
 *        ┌──────────────┐     map, syncForDevice  ───▶   ┌──┬──┬──┬──┬ ─ ─ ┬──┐   slots of 2 KiB
 *        │ what the CPU │                                │0 │1 │2 │3 │     │127│  128 of them: a segment
 *        │ works with   │   ◀───  unmap, syncForCpu      ├──┼──┼──┼──┼ ─ ─ ┼──┤
 *        └──────────────┘                                │  │  │  │  │     │  │  what the device works with
 *
 *   SWI-1  list[i] is the number of free slots from i to the next taken one or the end of the segment; 0 if i is taken
 *   SWI-2  a buffer never leaves its segment: one mapping is at most 256 KiB                                      (D5)
 *   SWI-3  the low bits of the original address that the device's min_align_mask names are kept                   (D5)
 *   SWI-4  map copies in, whatever the direction: a device that writes less than it said must not leak old bytes;
 *          unmap copies out if the device writes; syncForCpu and syncForDevice copy what their names say
 *   SWI-5  io_tlb_used = slots taken
 *   SWI-6  a refused mapping is counted, and said at most twice a second, under the lock
 *
 * struct io_tlb_slot, 16 bytes: | 0 orig: address of the memory behind the slot's first byte | 4 bytes of the mapping
 * from there on | 8 list | 12 first slot of the mapping + 1, 0 when free |.
 *
 * Context: map, unmap, sync any; ensure may not be called in interrupts. Lock: one word, interrupts off.
 * Different from Linux: no 64 MiB at boot. Nothing is allocated until a device attaches that needs it; then 1/64 of RAM
 * between 256 KiB and 4 MiB, one contiguous block, in ZONE_DMA so that every device reaches it. `swiotlb=SIZE` takes it
 * at boot. One area for all CPUs, no growing pools.
 * Source: kernel/dma/swiotlb.c, Documentation/core-api/swiotlb.rst.
 */

import { CYC_PER_LINE } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { clamp, getOrder, roundUpPow2 } from "../kernel/lib/bits.ts";
import { CACHE_LINE, CYCLES_PER_SECOND, PAGE_SIZE } from "../kernel/params.ts";
import { KERN_INFO, KERN_WARNING, type Printk } from "../kernel/printk.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import {
  alignUp,
  asDma,
  asPhys,
  type Context,
  type DmaAddr,
  NO_PFN,
  NULL,
  type PhysAddr,
  pfnToPhys,
  physToPfn,
} from "../kernel/types.ts";
import { DEV_BOUNDARY, DEV_MASK, DEV_MIN_ALIGN_MASK, type DmaDevice, deviceLabel, maskEnd } from "./dma_device.ts";
import { DMA_MAPPING_ERROR, type DmaDirection, deviceReads, deviceWrites } from "./dma_ops.ts";
import { __GFP_DMA, __GFP_NOWARN, GFP_NOWAIT } from "./gfp.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { crossesBoundary } from "./scatterlist.ts";

export const IO_TLB_SHIFT = 11;
export const IO_TLB_SIZE = 1 << IO_TLB_SHIFT;
export const IO_TLB_SEGSIZE = 128;
const MIN_POOL_BYTES = IO_TLB_SIZE * IO_TLB_SEGSIZE;
/** The largest block of the page allocator. */
const MAX_POOL_BYTES = 4 * 1024 * 1024;

const SLOT_BYTES = 16;
const SLOT_ORIG = 0;
const SLOT_SIZE = 4;
const SLOT_LIST = 8;
const SLOT_FIRST = 12;

const LOCK = 0;
const BASE = 4;
const NSLABS = 8;
const USED = 12;
const USED_HIWATER = 16;
const SLOTS = 20;
const INDEX = 24;
const NR_FULL = 28;
const NEXT_COMPLAINT = 32;
export const SWIOTLB_STATIC_BYTES = 40;

/** "swiotlb buffer is full" is printed at most so often. */
const COMPLAINT_INTERVAL = CYCLES_PER_SECOND / 2;

export interface Swiotlb {
  /** Makes sure that there is a pool, if memory allows; true if there is. */
  ensure(ctx: Context): boolean;
  /** Is this bus address in the pool? */
  contains(dma: DmaAddr): boolean;
  /** A slot's bus address with the bytes of `phys` in it; DMA_MAPPING_ERROR when no slots are free, after a warning. */
  map(ctx: Context, dev: DmaDevice, phys: PhysAddr, bytes: number, direction: DmaDirection): DmaAddr;
  unmap(ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection): void;
  syncForCpu(ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection): void;
  syncForDevice(ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection): void;
  /** The memory behind a bus address in the pool; NULL for a free slot. */
  origOf(dma: DmaAddr): PhysAddr;
  /** Gives the pool back if no slot is taken and it was not asked for at boot: the last device is gone. */
  drop(ctx: Context): void;
  /** Largest mapping of a device: 256 KiB less what its alignment may cost. */
  maxMappingBytes(dev: DmaDevice): number;
  nslabs(): number;
  /** Pages of the pool and of its slot table, which stay once they are made: 0 before. */
  nrPages(): number;
  used(): number;
  usedHiwater(): number;
  /** Mappings refused because the pool was full. */
  nrFull(): number;
  /** SWI-1, SWI-2, SWI-5: the first violation, or null. O(slots). */
  check(): string | null;
}

export interface SwiotlbDeps {
  readonly machine: Machine;
  readonly spinlocks: Spinlocks;
  readonly printk: Printk;
  readonly pageAlloc: PageAllocator;
  /** Size of the pool; 0: scaled to RAM. */
  readonly poolBytes: number;
  /** SWIOTLB_STATIC_BYTES of zeroed static memory, 8-aligned. */
  readonly statics: PhysAddr;
}

/** Bytes of the pool for a parameter (0: none given) and a RAM size: a power of two, 256 KiB … 4 MiB. */
export const swiotlbPoolBytes = (asked: number, ramBytes: number): number =>
  clamp(roundUpPow2(asked || Math.floor(ramBytes / 64)), MIN_POOL_BYTES, MAX_POOL_BYTES);

export function createSwiotlb(deps: SwiotlbDeps): Swiotlb {
  const { machine, spinlocks, printk, pageAlloc, poolBytes, statics } = deps;
  const { port, harts } = machine;
  const lock = asPhys(statics + LOCK);
  const word = (offset: number): number => port.ld32(statics + offset);
  const setWord = (offset: number, value: number): void => port.st32(statics + offset, value);
  const slot = (i: number): number => word(SLOTS) + i * SLOT_BYTES;
  const listOf = (i: number): number => port.ld32(slot(i) + SLOT_LIST);
  const slotAddr = (i: number): number => word(BASE) + i * IO_TLB_SIZE;
  const segmentStart = (i: number): number => i - (i % IO_TLB_SEGSIZE);

  // ── The pool ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const layOut = (base: PhysAddr, slots: PhysAddr, nslabs: number): void => {
    setWord(BASE, base);
    setWord(SLOTS, slots);
    setWord(NSLABS, nslabs);
    for (let i = 0; i < nslabs; i++) {
      port.fill(slots + i * SLOT_BYTES, 0, SLOT_BYTES);
      port.st32(slots + i * SLOT_BYTES + SLOT_LIST, IO_TLB_SEGSIZE - (i % IO_TLB_SEGSIZE));
    }
    const end = base + nslabs * IO_TLB_SIZE;
    const range = `0x${base.toString(16).padStart(16, "0")}-0x${end.toString(16).padStart(16, "0")}`;
    printk(KERN_INFO, `software IO TLB: mapped [mem ${range}] (${(end - base) / 1024}kB)`);
  };

  const ensure = (ctx: Context): boolean => {
    if (word(NSLABS) !== 0) return true;
    const gfp = GFP_NOWAIT | __GFP_NOWARN;
    for (let bytes = swiotlbPoolBytes(poolBytes, machine.config.ramBytes); bytes >= MIN_POOL_BYTES; bytes /= 2) {
      const pfn = pageAlloc.tryAllocPages(ctx, getOrder(bytes), gfp | __GFP_DMA);
      if (pfn === NO_PFN) continue;
      const nslabs = bytes / IO_TLB_SIZE;
      const slots = pageAlloc.tryAllocPages(ctx, getOrder(nslabs * SLOT_BYTES), gfp);
      if (slots !== NO_PFN) {
        layOut(pfnToPhys(pfn), pfnToPhys(slots), nslabs);
        return true;
      }
      pageAlloc.freePages(ctx, pfn, getOrder(bytes));
    }
    printk(KERN_WARNING, "software IO TLB: Cannot allocate buffer");
    return false;
  };

  // ── Slots (under the lock) ───────────────────────────────────────────────────────────────────────────────────────

  /** Recounts the free slots before `i` in its segment, where `count` slots are free from `i` on. SWI-1. */
  const recountBefore = (i: number, count: number): void => {
    let free = count;
    for (let j = i - 1; j >= segmentStart(i) && listOf(j) !== 0; j--) {
      port.st32(slot(j) + SLOT_LIST, ++free);
    }
  };

  /** First of `nslots` free slots for `bytes` that begin `offset` into it; −1 if there are none. */
  const findSlots = (dev: DmaDevice, phys: number, offset: number, bytes: number, nslots: number): number => {
    const nslabs = word(NSLABS);
    const alignMask = port.ld32(dev + DEV_MIN_ALIGN_MASK) & ~(IO_TLB_SIZE - 1);
    const wanted = phys & alignMask;
    // A page or more starts on a page, as drivers of such devices expect, unless the device says what it needs.
    const pageMask = bytes >= PAGE_SIZE && port.ld32(dev + DEV_MIN_ALIGN_MASK) === 0 ? PAGE_SIZE - 1 : 0;
    const limit = maskEnd(port.ld32(dev + DEV_MASK));
    const boundary = port.ld32(dev + DEV_BOUNDARY);
    for (let n = 0; n < nslabs; n++) {
      const i = (word(INDEX) + n) % nslabs;
      const addr = slotAddr(i);
      if (listOf(i) < nslots || (addr & alignMask) !== wanted || (addr & pageMask) !== 0) continue;
      const end = addr + nslots * IO_TLB_SIZE - 1;
      if (end <= limit && !crossesBoundary(addr + offset, bytes, boundary)) return i;
    }
    return -1;
  };

  /** SWI-1, SWI-5: takes `nslots` from `first` for memory whose byte `offset` into the first slot is `phys`. */
  const takeSlots = (first: number, nslots: number, origStart: number, bytes: number): void => {
    for (let k = 0; k < nslots; k++) {
      const record = slot(first + k);
      port.st32(record + SLOT_ORIG, origStart + k * IO_TLB_SIZE);
      port.st32(record + SLOT_SIZE, bytes - k * IO_TLB_SIZE);
      port.st32(record + SLOT_LIST, 0);
      port.st32(record + SLOT_FIRST, first + 1);
    }
    recountBefore(first, 0);
    setWord(INDEX, (first + nslots) % word(NSLABS));
    setWord(USED, word(USED) + nslots);
    setWord(USED_HIWATER, Math.max(word(USED_HIWATER), word(USED)));
  };

  const freeSlots = (first: number, nslots: number): void => {
    const end = first + nslots;
    let free = end % IO_TLB_SEGSIZE === 0 ? 0 : listOf(end);
    for (let i = end - 1; i >= first; i--) {
      port.fill(slot(i), 0, SLOT_BYTES);
      port.st32(slot(i) + SLOT_LIST, ++free);
    }
    recountBefore(first, free);
    setWord(USED, word(USED) - nslots);
  };

  /** Counts a refused mapping; true if it is time to say so. */
  const noteFull = (ctx: Context): boolean => {
    setWord(NR_FULL, word(NR_FULL) + 1);
    const now = harts.clock[ctx.cpu] as number;
    if (now < port.ldF64(statics + NEXT_COMPLAINT)) return false;
    port.stF64(statics + NEXT_COMPLAINT, now + COMPLAINT_INTERVAL);
    return true;
  };

  const complain = (dev: DmaDevice, bytes: number, used: number): void => {
    const what = `sz: ${bytes} bytes), total ${word(NSLABS)} (slots), used ${used} (slots)`;
    printk(KERN_WARNING, `${deviceLabel(port, dev)}: swiotlb buffer is full (${what}`);
  };

  // ── Copying ──────────────────────────────────────────────────────────────────────────────────────────────────────

  const charge = (ctx: Context, bytes: number): void => {
    harts.clock[ctx.cpu] = (harts.clock[ctx.cpu] as number) + CYC_PER_LINE * Math.ceil(bytes / CACHE_LINE);
  };

  /** Copies `bytes` at bus address `dma` from the memory behind them, or back; never more than was mapped. */
  const bounce = (ctx: Context, dev: DmaDevice, dma: number, bytes: number, isToDevice: boolean): void => {
    const record = slot(Math.floor((dma - word(BASE)) / IO_TLB_SIZE));
    if (port.ld32(record + SLOT_FIRST) === 0) return;
    const inSlot = dma % IO_TLB_SIZE;
    const room = port.ld32(record + SLOT_SIZE) - inSlot;
    if (bytes > room) {
      const sizes = `Allocation size: ${room}. Mapping size: ${bytes}.`;
      printk(KERN_WARNING, `${deviceLabel(port, dev)}: Buffer overflow detected. ${sizes}`);
    }
    const length = Math.max(0, Math.min(bytes, room));
    const orig = port.ld32(record + SLOT_ORIG) + inSlot;
    if (isToDevice) port.copy(dma, orig, length);
    else port.copy(orig, dma, length);
    charge(ctx, length);
  };

  const map = (ctx: Context, dev: DmaDevice, phys: PhysAddr, bytes: number, _direction: DmaDirection): DmaAddr => {
    const offset = phys & port.ld32(dev + DEV_MIN_ALIGN_MASK) & (IO_TLB_SIZE - 1);
    const nslots = Math.ceil((offset + bytes) / IO_TLB_SIZE);
    const flags = spinlocks.spinLockIrqsave(ctx, lock);
    const first = nslots > IO_TLB_SEGSIZE ? -1 : findSlots(dev, phys, offset, bytes, nslots);
    if (first >= 0) takeSlots(first, nslots, phys - offset, offset + bytes);
    const isTold = first < 0 && noteFull(ctx);
    const used = word(USED);
    spinlocks.spinUnlockIrqrestore(ctx, lock, flags);
    if (first < 0) {
      if (isTold) complain(dev, bytes, used);
      return DMA_MAPPING_ERROR;
    }
    const dma = slotAddr(first) + offset;
    bounce(ctx, dev, dma, bytes, true);
    return asDma(dma);
  };

  const unmap = (ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection): void => {
    const first = Math.floor((dma - word(BASE)) / IO_TLB_SIZE);
    // Not the start of a mapping: freeing from here would tear it. The debugging layer says who did it.
    if (port.ld32(slot(first) + SLOT_FIRST) !== first + 1) return;
    if (deviceWrites(direction)) bounce(ctx, dev, dma, bytes, false);
    const flags = spinlocks.spinLockIrqsave(ctx, lock);
    freeSlots(first, Math.ceil(port.ld32(slot(first) + SLOT_SIZE) / IO_TLB_SIZE));
    spinlocks.spinUnlockIrqrestore(ctx, lock, flags);
  };

  const checkSlot = (i: number): string | null => {
    const isFree = port.ld32(slot(i) + SLOT_FIRST) === 0;
    const isLast = (i + 1) % IO_TLB_SEGSIZE === 0;
    const wanted = isFree ? 1 + (isLast ? 0 : listOf(i + 1)) : 0;
    if (listOf(i) !== wanted) return `SWI-1: slot ${i} counts ${listOf(i)} free, ${wanted} are`;
    const first = port.ld32(slot(i) + SLOT_FIRST) - 1;
    return isFree || segmentStart(first) === segmentStart(i) ? null : `SWI-2: slot ${i} is of another segment`;
  };

  return {
    ensure,
    contains: (dma) => dma >= word(BASE) && dma < word(BASE) + word(NSLABS) * IO_TLB_SIZE,
    map,
    unmap,
    syncForCpu(ctx, dev, dma, bytes, direction) {
      if (deviceWrites(direction)) bounce(ctx, dev, dma, bytes, false);
    },
    syncForDevice(ctx, dev, dma, bytes, direction) {
      if (deviceReads(direction)) bounce(ctx, dev, dma, bytes, true);
    },
    origOf(dma) {
      const record = slot(Math.floor((dma - word(BASE)) / IO_TLB_SIZE));
      return port.ld32(record + SLOT_FIRST) === 0 ? NULL : asPhys(port.ld32(record + SLOT_ORIG) + (dma % IO_TLB_SIZE));
    },
    drop(ctx) {
      if (word(NSLABS) === 0 || word(USED) !== 0 || poolBytes !== 0) return;
      pageAlloc.freePages(ctx, physToPfn(asPhys(word(BASE))), getOrder(word(NSLABS) * IO_TLB_SIZE));
      pageAlloc.freePages(ctx, physToPfn(asPhys(word(SLOTS))), getOrder(word(NSLABS) * SLOT_BYTES));
      for (const offset of [BASE, NSLABS, SLOTS, INDEX]) setWord(offset, 0);
    },
    maxMappingBytes(dev) {
      // A buffer may have to start as far behind the start of a segment as the mask says.
      const align = alignUp(port.ld32(dev + DEV_MIN_ALIGN_MASK), IO_TLB_SIZE);
      return Math.max(IO_TLB_SIZE * IO_TLB_SEGSIZE - align, 0);
    },
    nrPages() {
      const nslabs = word(NSLABS);
      return nslabs === 0 ? 0 : 2 ** getOrder(nslabs * IO_TLB_SIZE) + 2 ** getOrder(nslabs * SLOT_BYTES);
    },
    nslabs: () => word(NSLABS),
    used: () => word(USED),
    usedHiwater: () => word(USED_HIWATER),
    nrFull: () => word(NR_FULL),
    check() {
      let used = 0;
      for (let i = word(NSLABS) - 1; i >= 0; i--) {
        const fault = checkSlot(i);
        if (fault !== null) return fault;
        if (listOf(i) === 0) used++;
      }
      return used === word(USED) ? null : `SWI-5: io_tlb_used is ${word(USED)}, ${used} slots are taken`;
    },
  };
}
