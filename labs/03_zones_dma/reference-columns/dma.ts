/**
 * Lab 3: zones, a pool for devices, and mappings, with columns.
 *
 * The free blocks of a pool are a stack of addresses; `state` says of each block whether it is out. Mappings are rows
 * of a list. Slots are searched from the lowest.
 */

import {
  BIDIRECTIONAL,
  type Dma,
  type DmaMemory,
  EBUSY,
  EINVAL,
  ENOMEM,
  FRAME_BYTES,
  FROM_DEVICE,
  MAX_POOLS,
  MAX_SLOTS,
  MIN_BLOCK,
  NO_ADDRESS,
  NO_FRAME,
  SLOT_BYTES,
  TO_DEVICE,
} from "../given/api.ts";

/** States of a block of a pool. */
const FREE = 1;
const OUT = 2;

interface Pool {
  /** Highest zone that the device reaches. */
  readonly highest: number;
  /** Bytes of a block, and what none of them crosses a multiple of. */
  readonly size: number;
  readonly boundary: number;
  readonly frames: number[];
  /** Addresses of free blocks. */
  readonly free: number[];
  nrOut: number;
}

interface Mapping {
  readonly address: number;
  readonly bus: number;
  readonly size: number;
  readonly direction: number;
  isDevices: boolean;
}

export function createDma(memory: DmaMemory): Dma {
  const { zones, nrFrames, bounceStart, nrSlots, orderOf, poolOf, state, slotUsed } = memory;
  const pools: (Pool | undefined)[] = [];
  let mappings: Mapping[] = [];

  function reserveOf(zone: number, highest: number): number {
    // BLANK BEGIN frames of the zones above, up to `highest`, divided by the ratio of `zone` (ZON-1)
    const { ratio } = zones[zone];
    if (ratio === 0) return 0;
    let above = 0;
    for (let i = zone + 1; i <= highest; i++) above += zones[i].end - zones[i].start;
    return Math.floor(above / ratio);
    // BLANK END
  }

  // BLANK CUT
  /** A block of the first zone from `highest` down that stays above its mark. */
  function walk(highest: number, order: number, markOf: (zone: number) => number): number {
    for (let zone = highest; zone >= 0; zone--) {
      const left = memory.freeFrames(zone) - ((1 << order) - 1);
      if (left <= markOf(zone) + reserveOf(zone, highest)) continue;
      const frame = memory.takeBlock(zone, order);
      if (frame !== NO_FRAME) return frame;
    }
    return NO_FRAME;
  }

  function takePages(highest: number, order: number, isUrgent: boolean): number {
    const frame = walk(highest, order, (zone) => zones[zone].low);
    if (frame !== NO_FRAME) return frame;
    memory.wakeReclaim();
    return walk(highest, order, (zone) => {
      const { min } = zones[zone];
      return isUrgent ? min - Math.floor(min / 2) : min;
    });
  }

  function zoneOf(frame: number): number {
    return zones.findIndex(({ start, end }) => frame >= start && frame < end);
  }

  function isMapped(start: number, end: number): boolean {
    return mappings.some(({ address, size }) => address < end && start < address + size);
  }

  // BLANK END
  function allocPages(highest: number, order: number, isUrgent: boolean): number {
    // BLANK BEGIN walk down the zones at the low marks; else wake reclaim and walk at the min marks (ZON-2 … ZON-5)
    const frame = takePages(highest, order, isUrgent);
    if (frame !== NO_FRAME) orderOf[frame] = order + 1;
    return frame;
    // BLANK END
  }

  function freePages(frame: number, order: number): number {
    // BLANK BEGIN refuse what is no block of that order, or is mapped; give the block back to its zone (ZON-6, MAP-9)
    if (!Number.isInteger(frame) || frame < 0 || frame >= nrFrames) return -EINVAL;
    if (orderOf[frame] !== order + 1) return -EINVAL;
    const start = frame * FRAME_BYTES;
    if (isMapped(start, start + (FRAME_BYTES << order))) return -EBUSY;
    orderOf[frame] = 0;
    memory.returnBlock(zoneOf(frame), frame, order);
    return 0;
    // BLANK END
  }

  // BLANK CUT
  function isPowerOfTwo(value: number): boolean {
    return Number.isInteger(value) && value > 0 && value <= FRAME_BYTES && (value & (value - 1)) === 0;
  }

  /** The highest zone of which the device reaches the last byte, or −1. */
  function highestFor(mask: number): number {
    let zone = zones.length - 1;
    while (zone >= 0 && zones[zone].end * FRAME_BYTES - 1 > mask) zone--;
    return zone;
  }

  /** True if a block of the pool starts at `offset` of a frame: they lie side by side behind each boundary. */
  function isStart({ size, boundary }: Pool, offset: number): boolean {
    const within = offset % boundary;
    return within % size === 0 && within + size <= boundary;
  }

  function rowOf(address: number): number {
    return Math.floor(address / MIN_BLOCK);
  }

  /** One more frame for a pool: false if there is none. */
  function grow(id: number, pool: Pool): boolean {
    const frame = takePages(pool.highest, 0, false);
    if (frame === NO_FRAME) return false;
    poolOf[frame] = id + 1;
    pool.frames.push(frame);
    for (let offset = 0; offset + pool.size <= FRAME_BYTES; ) {
      if (!isStart(pool, offset)) {
        offset = (Math.floor(offset / pool.boundary) + 1) * pool.boundary;
        continue;
      }
      const address = frame * FRAME_BYTES + offset;
      state[rowOf(address)] = FREE;
      pool.free.push(address);
      offset += pool.size;
    }
    return true;
  }

  // BLANK END
  function createPool(size: number, align: number, boundary: number, mask: number): number {
    // BLANK BEGIN check the arguments, find a number, work out where blocks start in a frame (POOL-1, POOL-4, POOL-7)
    if (!Number.isInteger(size) || size < 1 || size > FRAME_BYTES || !isPowerOfTwo(align)) return -EINVAL;
    const rounded = Math.ceil(Math.max(size, MIN_BLOCK) / align) * align;
    const limit = boundary === 0 ? FRAME_BYTES : boundary;
    if (!isPowerOfTwo(limit) || rounded > limit) return -EINVAL;
    const highest = highestFor(mask);
    if (highest < 0) return -EINVAL;
    for (let id = 0; id < MAX_POOLS; id++) {
      if (pools[id] !== undefined) continue;
      pools[id] = { highest, size: rounded, boundary: limit, frames: [], free: [], nrOut: 0 };
      return id;
    }
    return -ENOMEM;
    // BLANK END
  }

  function poolAlloc(id: number): number {
    // BLANK BEGIN take a free block; only if there is none, one more frame (POOL-2, POOL-6)
    const pool = pools[id];
    if (pool === undefined) return NO_ADDRESS;
    if (pool.free.length === 0 && !grow(id, pool)) return NO_ADDRESS;
    const address = pool.free.pop() as number;
    state[rowOf(address)] = OUT;
    pool.nrOut++;
    return address;
    // BLANK END
  }

  function poolFree(id: number, address: number): number {
    // BLANK BEGIN refuse what is no block of this pool that is out; its frame stays with the pool (POOL-3, POOL-5)
    const pool = pools[id];
    if (pool === undefined || !Number.isInteger(address) || address < 0) return -EINVAL;
    const frame = Math.floor(address / FRAME_BYTES);
    if (frame >= nrFrames || poolOf[frame] !== id + 1) return -EINVAL;
    if (!isStart(pool, address % FRAME_BYTES) || state[rowOf(address)] !== OUT) return -EINVAL;
    state[rowOf(address)] = FREE;
    pool.free.push(address);
    pool.nrOut--;
    return 0;
    // BLANK END
  }

  function destroyPool(id: number): number {
    // BLANK BEGIN refuse while blocks are out; give every frame back (POOL-3)
    const pool = pools[id];
    if (pool === undefined) return -EINVAL;
    if (pool.nrOut > 0) return -EBUSY;
    for (const frame of pool.frames) {
      poolOf[frame] = 0;
      memory.returnBlock(zoneOf(frame), frame, 0);
    }
    for (const address of pool.free) state[rowOf(address)] = 0;
    pools[id] = undefined;
    return 0;
    // BLANK END
  }

  // BLANK CUT
  /** Takes slots for `size` bytes whose last byte the device reaches: the address of the first, or NO_ADDRESS. */
  function takeSlots(size: number, mask: number): number {
    const nr = Math.ceil(size / SLOT_BYTES);
    if (nr > MAX_SLOTS) return NO_ADDRESS;
    for (let first = 0; first + nr <= nrSlots; first++) {
      const bus = bounceStart + first * SLOT_BYTES;
      if (bus + size - 1 > mask) return NO_ADDRESS;
      let nrFree = 0;
      while (nrFree < nr && slotUsed[first + nrFree] === 0) nrFree++;
      if (nrFree < nr) continue;
      for (let slot = first; slot < first + nr; slot++) slotUsed[slot] = 1;
      return bus;
    }
    return NO_ADDRESS;
  }

  function find(bus: number): Mapping | undefined {
    return mappings.find((mapping) => mapping.bus === bus);
  }

  /** What the device wrote, into the CPU's buffer. */
  function copyBack({ address, bus, size, direction }: Mapping): void {
    if (bus !== address && direction !== TO_DEVICE) memory.copy(address, bus, size);
  }

  // BLANK END
  function map(address: number, size: number, direction: number, mask: number): number {
    // BLANK BEGIN refuse bad and overlapping ranges; directly if the device reaches the last byte, else by a bounce
    if (!Number.isInteger(address) || address < 0 || !Number.isInteger(size) || size < 1) return NO_ADDRESS;
    if (address + size > nrFrames * FRAME_BYTES || isMapped(address, address + size)) return NO_ADDRESS;
    if (direction !== TO_DEVICE && direction !== FROM_DEVICE && direction !== BIDIRECTIONAL) return NO_ADDRESS;
    let bus = address;
    if (address + size - 1 > mask) {
      bus = takeSlots(size, mask);
      if (bus === NO_ADDRESS) return NO_ADDRESS;
      // In every direction: what the device does not write is copied back, too.
      memory.copy(bus, address, size);
    }
    mappings.push({ address, bus, size, direction, isDevices: true });
    return bus;
    // BLANK END
  }

  function unmap(bus: number, size: number, direction: number): number {
    // BLANK BEGIN refuse what is not mapped like that; copy back; give the slots back (MAP-5, MAP-7, MAP-8)
    const mapping = find(bus);
    if (mapping === undefined || mapping.size !== size || mapping.direction !== direction) return -EINVAL;
    if (mapping.isDevices) copyBack(mapping);
    if (bus !== mapping.address) {
      const first = (bus - bounceStart) / SLOT_BYTES;
      for (let slot = first; slot < first + Math.ceil(size / SLOT_BYTES); slot++) slotUsed[slot] = 0;
    }
    mappings = mappings.filter((other) => other !== mapping);
    return 0;
    // BLANK END
  }

  function syncForCpu(bus: number): number {
    // BLANK BEGIN the CPU sees what the device wrote, and may look and write (MAP-6)
    const mapping = find(bus);
    if (mapping === undefined) return -EINVAL;
    if (mapping.isDevices) copyBack(mapping);
    mapping.isDevices = false;
    return 0;
    // BLANK END
  }

  function syncForDevice(bus: number): number {
    // BLANK BEGIN the device sees what the CPU wrote, and owns the memory again (MAP-6)
    const mapping = find(bus);
    if (mapping === undefined) return -EINVAL;
    if (mapping.bus !== mapping.address) memory.copy(mapping.bus, mapping.address, mapping.size);
    mapping.isDevices = true;
    return 0;
    // BLANK END
  }

  function isDevices(address: number): number {
    // BLANK BEGIN is this byte in a mapping that the device owns? (MAP-10)
    const owner = mappings.find((mapping) => address >= mapping.address && address < mapping.address + mapping.size);
    return owner?.isDevices === true ? 1 : 0;
    // BLANK END
  }

  return {
    reserveOf,
    allocPages,
    freePages,
    createPool,
    poolAlloc,
    poolFree,
    destroyPool,
    map,
    unmap,
    syncForCpu,
    syncForDevice,
    isDevices,
  };
}
