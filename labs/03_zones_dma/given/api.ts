/**
 * What lab 3 gives you: zones with frames, a memory copy, columns to keep books in, and the functions that you write.
 *
 * Do not change this file: the grader uses its own copy.
 */

/** Bytes of a frame. Frame f is the addresses f · FRAME_BYTES … (f + 1) · FRAME_BYTES − 1. */
export const FRAME_BYTES = 4096;
/** What takeBlock and allocPages return when there are no frames. */
export const NO_FRAME = 0xffff_ffff;
/** What poolAlloc and map return when it cannot be done. */
export const NO_ADDRESS = 0xffff_ffff;

/** Zones, lowest addresses first. */
export const ZONE_DMA = 0;
export const ZONE_DMA32 = 1;
export const ZONE_NORMAL = 2;
/** A block has 2^0 … 2^MAX_ORDER frames. */
export const MAX_ORDER = 3;

/** Pools that can exist at a time: numbers 0 … MAX_POOLS − 1. */
export const MAX_POOLS = 4;
/** A block of a pool has at least so many bytes. */
export const MIN_BLOCK = 16;

/** The bounce area is cut into slots; one mapping has at most MAX_SLOTS of them, side by side. */
export const SLOT_BYTES = 2048;
export const MAX_SLOTS = 6;

/** Directions of a mapping: what the device does. */
export const TO_DEVICE = 1;
export const FROM_DEVICE = 2;
export const BIDIRECTIONAL = 3;

export const ENOMEM = 12;
export const EBUSY = 16;
export const EINVAL = 22;

export interface Zone {
  /** Frames start … end − 1; none if the two are the same. */
  readonly start: number;
  readonly end: number;
  /** Watermarks, in frames: min < low. */
  readonly min: number;
  readonly low: number;
  /** Divisor of the lowmem reserve; 0: none is kept. */
  readonly ratio: number;
}

/** The machine. Columns are zero at the start and yours alone; their names are a proposal. */
export interface DmaMemory {
  /** ZONE_DMA, ZONE_DMA32, ZONE_NORMAL. */
  readonly zones: readonly Zone[];
  /** Memory is the frames 0 … nrFrames − 1. */
  readonly nrFrames: number;
  /** Frames of `zone` that are free. */
  freeFrames(zone: number): number;
  /** First of 2^order free frames of `zone`, now taken; NO_FRAME if no such block is free. Looks at no watermark. */
  takeBlock(zone: number, order: number): number;
  /** Gives a block back to its zone. */
  returnBlock(zone: number, frame: number, order: number): void;
  /** Wakes the task that makes memory free. */
  wakeReclaim(): void;
  /** Copies memory: `bytes` bytes from address `from` to address `to`. */
  copy(to: number, from: number, bytes: number): void;

  /** The bounce area: slot s is the addresses bounceStart + s · SLOT_BYTES … Nothing else is ever there. */
  readonly bounceStart: number;
  readonly nrSlots: number;

  /** One row per frame. */
  readonly orderOf: Uint8Array;
  readonly poolOf: Uint8Array;
  /** One row for each MIN_BLOCK bytes: a block of a pool at `address` has row Math.floor(address / MIN_BLOCK). */
  readonly state: Uint8Array;
  /** One row per slot. */
  readonly slotUsed: Uint8Array;
}

export interface Dma {
  /** Frames that requests for zone `highest` leave in the lower zone `zone` (ZON-1). */
  reserveOf(zone: number, highest: number): number;
  /** First of 2^order frames of zone `highest` or a lower one, or NO_FRAME. */
  allocPages(highest: number, order: number, isUrgent: boolean): number;
  /** 0; −EINVAL if this is no block that allocPages gave; −EBUSY while a part of it is mapped. */
  freePages(frame: number, order: number): number;

  /** Number of a new pool for a device that reaches addresses up to `mask`; −EINVAL, −ENOMEM. */
  createPool(size: number, align: number, boundary: number, mask: number): number;
  /** Address of a block that is now out, or NO_ADDRESS. */
  poolAlloc(pool: number): number;
  /** 0, or −EINVAL if no block of that pool that is out starts at `address`. */
  poolFree(pool: number, address: number): number;
  /** 0 and the number is free again, −EBUSY if blocks are out, −EINVAL for no pool. */
  destroyPool(pool: number): number;

  /** Lends memory to a device that reaches addresses up to `mask`: the address for the device, or NO_ADDRESS. */
  map(address: number, size: number, direction: number, mask: number): number;
  /** 0, or −EINVAL if nothing is mapped at `bus` with that size and direction. */
  unmap(bus: number, size: number, direction: number): number;
  /** The CPU may look, the mapping stays: 0, or −EINVAL if nothing is mapped at `bus`. */
  syncForCpu(bus: number): number;
  /** The device may go on: 0, or −EINVAL if nothing is mapped at `bus`. */
  syncForDevice(bus: number): number;
  /** 1 if the byte at `address` belongs to a device now, else 0. */
  isDevices(address: number): number;
}
