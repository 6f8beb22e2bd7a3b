/**
 * What every part of the network driver needs: counters, buffers with their mappings, descriptors.
 *
 * A buffer is either the driver's own (not mapped), the device's (mapped, in a ring), or queued for a reader. It comes
 * from a cache of its own, whose magazines make the pair of alloc and free cheap on each CPU.
 *
 *   NIC-1  a descriptor that the device owns has a mapped buffer; one that it does not own has none
 *   NIC-2  every buffer is in exactly one place: a ring, a reader's queue, or in the hands of running code
 */

import {
  asDma,
  asPhys,
  type Context,
  type DmaAddr,
  fromGranule,
  NULL,
  type PhysAddr,
  physAdd,
  toGranule,
} from "../kernel/types.ts";
import { __GFP_NOWARN, DMA_MAPPING_ERROR, type DmaDirection, GFP_ATOMIC, gfpWith } from "../mm/index.ts";
import type { Platform } from "./driver.ts";
import * as reg from "./nic_registers.ts";
import {
  type Counter,
  counterAt,
  INFO_BUFFER,
  INFO_BYTES,
  INFO_COOKIE,
  INFO_DMA,
  INFO_LENGTH,
  NIC_COOKIE,
  NIC_LOCK,
  NIC_PROGRESS,
  NIC_STATE,
  type Nic,
} from "./nic_state.ts";

/** Allocations by the level they were made at: task, softirq, hardirq. */
const ALLOC_COUNTERS: readonly Counter[] = ["alloc_task", "alloc_softirq", "alloc_hardirq", "alloc_hardirq"];

export interface NicCore {
  count(nic: Nic, name: Counter, n?: number): void;
  get(nic: Nic, offset: number): number;
  set(nic: Nic, offset: number, value: number): void;
  hasState(nic: Nic, bit: number): boolean;
  setState(nic: Nic, bit: number): void;
  clearState(nic: Nic, bit: number): void;
  lock(nic: Nic): PhysAddr;
  /** One more descriptor is dealt with. */
  progress(nic: Nic): void;
  /** A buffer without waiting; NULL if memory is short. Any context. */
  allocBuffer(ctx: Context, nic: Nic): PhysAddr;
  countAlloc(ctx: Context, nic: Nic): void;
  freeBuffer(ctx: Context, nic: Nic, buffer: PhysAddr): void;
  /** Maps a buffer and puts it into descriptor `slot`; false if it cannot be mapped. */
  post(ctx: Context, nic: Nic, ring: RingView, slot: number, buffer: PhysAddr, bytes: number): boolean;
  /** Takes the buffer of a slot back and unmaps it; NULL if it has none. */
  unpost(ctx: Context, nic: Nic, ring: RingView, slot: number): PhysAddr;
  /** Status of a slot's descriptor: 0 while the device has it; a second report of an old act is undone and counted. */
  status(nic: Nic, ring: RingView, slot: number): number;
  descLength(ring: RingView, slot: number): number;
}

/** One of the two rings of a card. */
export interface RingView {
  readonly ring: PhysAddr;
  readonly info: PhysAddr;
  readonly direction: DmaDirection;
}

export function createNicCore(platform: Platform): NicCore {
  const { contexts, dma, slab } = platform;
  const { port } = platform.machine;
  const { kmemCacheAlloc, kmemCacheFree } = slab.layer;
  const atomic = gfpWith(GFP_ATOMIC, __GFP_NOWARN);

  const get = (nic: Nic, offset: number): number => port.ld32(nic.struct + offset);
  const set = (nic: Nic, offset: number, value: number): void => port.st32(nic.struct + offset, value);
  const count = (nic: Nic, name: Counter, n = 1): void => {
    const addr = nic.struct + counterAt(name);
    port.st32(addr, (port.ld32(addr) + n) >>> 0);
  };
  const descAt = (ring: RingView, slot: number): number => ring.ring + slot * reg.DESC_BYTES;
  const infoAt = (ring: RingView, slot: number): number => ring.info + slot * INFO_BYTES;

  const countAlloc = (ctx: Context, nic: Nic): void => count(nic, ALLOC_COUNTERS[contexts.level(ctx)] as Counter);

  /** Gives the descriptor to the device: address, length, cookie, no status. */
  const writeDescriptor = (ring: RingView, slot: number): void => {
    const [desc, info] = [descAt(ring, slot), infoAt(ring, slot)];
    port.st32(desc + reg.DESC_ADDR, port.ld32(info + INFO_DMA));
    port.st32(desc + reg.DESC_ADDR + 4, 0);
    port.st16(desc + reg.DESC_LENGTH, port.ld32(info + INFO_LENGTH));
    port.st16(desc + reg.DESC_COOKIE, port.ld32(info + INFO_COOKIE));
    port.st32(desc + reg.DESC_STATUS, 0);
  };

  return {
    count,
    get,
    set,
    hasState: (nic, bit) => (get(nic, NIC_STATE) & bit) !== 0,
    setState: (nic, bit) => set(nic, NIC_STATE, get(nic, NIC_STATE) | bit),
    clearState: (nic, bit) => set(nic, NIC_STATE, get(nic, NIC_STATE) & ~bit),
    lock: (nic) => physAdd(nic.struct, NIC_LOCK),
    progress: (nic) => set(nic, NIC_PROGRESS, (get(nic, NIC_PROGRESS) + 1) >>> 0),
    countAlloc,
    allocBuffer(ctx, nic) {
      const buffer = kmemCacheAlloc(ctx, nic.cache, atomic);
      if (buffer !== NULL) countAlloc(ctx, nic);
      return buffer;
    },
    freeBuffer(ctx, nic, buffer) {
      kmemCacheFree(ctx, nic.cache, buffer);
    },
    post(ctx, nic, ring, slot, buffer, bytes) {
      const handle = dma.mapSingle(ctx, nic.dev, buffer, bytes, ring.direction);
      if (dma.mappingError(nic.dev, handle) || handle === DMA_MAPPING_ERROR) return false;
      const cookie = (get(nic, NIC_COOKIE) + 1) & 0xffff;
      set(nic, NIC_COOKIE, cookie);
      const info = infoAt(ring, slot);
      port.st32(info + INFO_BUFFER, toGranule(buffer));
      port.st32(info + INFO_DMA, handle);
      port.st32(info + INFO_COOKIE, cookie);
      port.st32(info + INFO_LENGTH, bytes);
      writeDescriptor(ring, slot);
      return true;
    },
    unpost(ctx, nic, ring, slot) {
      const info = infoAt(ring, slot);
      const bytes = port.ld32(info + INFO_LENGTH);
      if (bytes === 0) return NULL;
      const handle: DmaAddr = asDma(port.ld32(info + INFO_DMA));
      dma.unmapSingle(ctx, nic.dev, handle, bytes, ring.direction);
      port.st32(info + INFO_LENGTH, 0);
      port.st32(descAt(ring, slot) + reg.DESC_STATUS, 0);
      return asPhys(fromGranule(port.ld32(info + INFO_BUFFER)));
    },
    status(nic, ring, slot) {
      const desc = descAt(ring, slot);
      const status = port.ld16(desc + reg.DESC_STATUS);
      if (status === 0) return 0;
      const info = infoAt(ring, slot);
      if (port.ld32(info + INFO_LENGTH) !== 0 && port.ld16(desc + reg.DESC_COOKIE) === port.ld32(info + INFO_COOKIE)) {
        return status;
      }
      count(nic, "bad_completions");
      if (port.ld32(info + INFO_LENGTH) !== 0) writeDescriptor(ring, slot);
      else port.st32(desc + reg.DESC_STATUS, 0);
      return 0;
    },
    descLength: (ring, slot) => port.ld16(descAt(ring, slot) + reg.DESC_LENGTH),
  };
}
