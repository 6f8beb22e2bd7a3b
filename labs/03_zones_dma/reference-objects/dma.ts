/**
 * Lab 3: zones, a pool for devices, and mappings, with objects.
 *
 * A zone knows its reserves; a pool keeps a map from addresses to blocks; the bounce area has the mapping of each slot
 * and is searched from the top. Mappings are found by their address for the device, and by the frames that they touch.
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
  type Zone,
} from "../given/api.ts";

interface Tier {
  readonly id: number;
  readonly zone: Zone;
  /** Reserve against requests for zone 0, 1, 2. */
  readonly reserve: readonly number[];
}

function tiersOf(zones: readonly Zone[]): Tier[] {
  const tiers: Tier[] = [];
  for (const [id, zone] of zones.entries()) {
    const reserve: number[] = [];
    let above = 0;
    for (const [other, { start, end }] of zones.entries()) {
      if (other > id) above += end - start;
      reserve.push(zone.ratio === 0 ? 0 : Math.floor(above / zone.ratio));
    }
    tiers.push({ id, zone, reserve });
  }
  return tiers;
}

class Pool {
  readonly highest: number;
  readonly size: number;
  readonly boundary: number;
  readonly frames: number[] = [];
  readonly spare: number[] = [];
  /** Every block by its address: true if it is out. */
  readonly isOut = new Map<number, boolean>();
  nrOut = 0;

  constructor(highest: number, size: number, boundary: number) {
    this.highest = highest;
    this.size = size;
    this.boundary = boundary;
  }

  addFrame(frame: number): void {
    this.frames.push(frame);
    const end = (frame + 1) * FRAME_BYTES;
    let address = frame * FRAME_BYTES;
    let next = address + this.boundary;
    while (address + this.size <= end) {
      if (address + this.size > next) {
        address = next;
        next += this.boundary;
        continue;
      }
      this.isOut.set(address, false);
      this.spare.push(address);
      address += this.size;
    }
  }

  take(): number | undefined {
    const address = this.spare.pop();
    if (address === undefined) return undefined;
    this.isOut.set(address, true);
    this.nrOut++;
    return address;
  }

  put(address: number): boolean {
    if (this.isOut.get(address) !== true) return false;
    this.isOut.set(address, false);
    this.spare.push(address);
    this.nrOut--;
    return true;
  }
}

class Mapping {
  readonly address: number;
  readonly size: number;
  readonly direction: number;
  /** First slot, or −1 for a direct mapping. */
  readonly slot: number;
  owner: "device" | "cpu" = "device";

  constructor(address: number, size: number, direction: number, slot: number) {
    this.address = address;
    this.size = size;
    this.direction = direction;
    this.slot = slot;
  }

  get end(): number {
    return this.address + this.size;
  }

  has(address: number): boolean {
    return address >= this.address && address < this.end;
  }
}

export function createDma(memory: DmaMemory): Dma {
  const { nrFrames, bounceStart, nrSlots } = memory;
  const tiers = tiersOf(memory.zones);
  const orders = new Map<number, number>();
  const pools = new Map<number, Pool>();
  const byBus = new Map<number, Mapping>();
  const slots: (Mapping | null)[] = [];
  for (let slot = 0; slot < nrSlots; slot++) slots.push(null);

  function tryTier({ id, reserve }: Tier, mark: number, highest: number, order: number): number {
    const needed = 2 ** order + mark + (reserve[highest] as number);
    return memory.freeFrames(id) >= needed ? memory.takeBlock(id, order) : NO_FRAME;
  }

  function takeFrames(highest: number, order: number, isUrgent: boolean): number {
    for (const isLast of [false, true]) {
      if (isLast) memory.wakeReclaim();
      for (let id = highest; id >= 0; id--) {
        const tier = tiers[id] as Tier;
        const { low, min } = tier.zone;
        const last = isUrgent ? Math.ceil(min / 2) : min;
        const frame = tryTier(tier, isLast ? last : low, highest, order);
        if (frame !== NO_FRAME) return frame;
      }
    }
    return NO_FRAME;
  }

  function giveBack(frame: number, order: number): void {
    for (const { id, zone } of tiers) {
      if (frame < zone.start || frame >= zone.end) continue;
      memory.returnBlock(id, frame, order);
      return;
    }
  }

  function touches(start: number, end: number): boolean {
    for (const mapping of byBus.values()) {
      if (mapping.end > start && mapping.address < end) return true;
    }
    return false;
  }

  function reach(mask: number): number {
    let highest = -1;
    for (const { id, zone } of tiers) if (zone.end * FRAME_BYTES <= mask + 1) highest = id;
    return highest;
  }

  function powerOfTwo(value: number): boolean {
    for (let good = 1; good <= FRAME_BYTES; good *= 2) if (value === good) return true;
    return false;
  }

  /** The highest run of `nr` free slots that the device reaches, or −1. */
  function runOfSlots(nr: number, size: number, mask: number): number {
    let run = 0;
    for (let slot = nrSlots - 1; slot >= 0; slot--) {
      run = slots[slot] === null ? run + 1 : 0;
      if (run >= nr && bounceStart + slot * SLOT_BYTES + size - 1 <= mask) return slot;
    }
    return -1;
  }

  function busOf({ address, slot }: Mapping): number {
    return slot < 0 ? address : bounceStart + slot * SLOT_BYTES;
  }

  function markSlots({ slot, size }: Mapping, owner: Mapping | null): void {
    for (let i = 0; slot >= 0 && i * SLOT_BYTES < size; i++) slots[slot + i] = owner;
  }

  function toCpu(mapping: Mapping): void {
    if (mapping.slot < 0 || mapping.direction === TO_DEVICE) return;
    memory.copy(mapping.address, busOf(mapping), mapping.size);
  }

  function toDevice(mapping: Mapping): void {
    if (mapping.slot >= 0) memory.copy(busOf(mapping), mapping.address, mapping.size);
  }

  return {
    reserveOf(zone, highest) {
      return (tiers[zone] as Tier).reserve[highest] as number;
    },
    allocPages(highest, order, isUrgent) {
      const frame = takeFrames(highest, order, isUrgent);
      if (frame !== NO_FRAME) orders.set(frame, order);
      return frame;
    },
    freePages(frame, order) {
      if (orders.get(frame) !== order) return -EINVAL;
      if (touches(frame * FRAME_BYTES, (frame + 2 ** order) * FRAME_BYTES)) return -EBUSY;
      orders.delete(frame);
      giveBack(frame, order);
      return 0;
    },
    createPool(size, align, boundary, mask) {
      if (!Number.isInteger(size) || size < 1 || size > FRAME_BYTES || !powerOfTwo(align)) return -EINVAL;
      const limit = boundary === 0 ? FRAME_BYTES : boundary;
      let block = align;
      while (block < size || block < MIN_BLOCK) block += align;
      if (!powerOfTwo(limit) || block > limit || reach(mask) < 0) return -EINVAL;
      for (let id = 0; id < MAX_POOLS; id++) {
        if (pools.has(id)) continue;
        pools.set(id, new Pool(reach(mask), block, limit));
        return id;
      }
      return -ENOMEM;
    },
    poolAlloc(id) {
      const pool = pools.get(id);
      if (pool === undefined) return NO_ADDRESS;
      if (pool.spare.length === 0) {
        const frame = takeFrames(pool.highest, 0, false);
        if (frame !== NO_FRAME) pool.addFrame(frame);
      }
      return pool.take() ?? NO_ADDRESS;
    },
    poolFree(id, address) {
      return pools.get(id)?.put(address) === true ? 0 : -EINVAL;
    },
    destroyPool(id) {
      const pool = pools.get(id);
      if (pool === undefined) return -EINVAL;
      if (pool.nrOut > 0) return -EBUSY;
      for (const frame of pool.frames) giveBack(frame, 0);
      pools.delete(id);
      return 0;
    },
    map(address, size, direction, mask) {
      if (!Number.isInteger(address) || !Number.isInteger(size) || size < 1 || address < 0) return NO_ADDRESS;
      if (address + size > nrFrames * FRAME_BYTES || touches(address, address + size)) return NO_ADDRESS;
      if (![TO_DEVICE, FROM_DEVICE, BIDIRECTIONAL].includes(direction)) return NO_ADDRESS;
      const isDirect = address + size - 1 <= mask;
      const nr = Math.ceil(size / SLOT_BYTES);
      const slot = isDirect || nr > MAX_SLOTS ? -1 : runOfSlots(nr, size, mask);
      if (!isDirect && slot < 0) return NO_ADDRESS;
      const mapping = new Mapping(address, size, direction, slot);
      markSlots(mapping, mapping);
      toDevice(mapping);
      byBus.set(busOf(mapping), mapping);
      return busOf(mapping);
    },
    unmap(bus, size, direction) {
      const mapping = byBus.get(bus);
      if (mapping?.size !== size || mapping.direction !== direction) return -EINVAL;
      toCpu(mapping);
      markSlots(mapping, null);
      byBus.delete(bus);
      return 0;
    },
    syncForCpu(bus) {
      const mapping = byBus.get(bus);
      if (mapping === undefined) return -EINVAL;
      toCpu(mapping);
      mapping.owner = "cpu";
      return 0;
    },
    syncForDevice(bus) {
      const mapping = byBus.get(bus);
      if (mapping === undefined) return -EINVAL;
      toDevice(mapping);
      mapping.owner = "device";
      return 0;
    },
    isDevices(address) {
      for (const mapping of byBus.values()) if (mapping.has(address)) return mapping.owner === "device" ? 1 : 0;
      return 0;
    },
  };
}
