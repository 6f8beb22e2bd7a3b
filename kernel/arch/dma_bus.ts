/**
 * The DMA bus: how devices reach RAM, and what stops them.
 *
 *    device model ──▶ BusMaster ──▶ limits ──▶ windows ──▶ [ IOMMU ] ──▶ RAM
 *                     bus address   mask,      granted      page table    behind the CPU's back:
 *                                   segment,   by the       of this       no memory port, no observer
 *                                   boundary   kernel       master        sees the bytes move
 *
 * A device knows bus addresses only. The kernel grants it windows: ranges of bus addresses and what may be done there.
 * Everything else is refused: nothing moves, the attempt is kept in `faults`, and the kernel is told. A PC without
 * IOMMU has no such windows, and the transfer would hit whatever lies there; here a wild transfer is always caught.
 *
 *   BUS-1  a transfer lies in one window that grants its direction, else not one byte of it happens
 *   BUS-2  no address beyond 2^maskBits appears on the bus, no transfer is longer than a segment or crosses a boundary
 *   BUS-3  a refused transfer is recorded with master, address, size and reason, and reported once
 *   BUS-4  with a translation set, bus addresses are the IOMMU's (iommu.ts); without, they are physical addresses
 *
 * Windows may overlap: memory may be mapped twice for reading. Host state, as the bus is hardware; windows are few
 * (one per live mapping), so a sorted array per master serves. Context: any.
 */

import type { RamBuffer } from "./port.ts";

/** What a device may do in a window. */
export const BUS_READ = 1;
export const BUS_WRITE = 2;
export type BusAccess = typeof BUS_READ | typeof BUS_WRITE;

/** How many faults are kept; the number of all is `nrFaults`. */
const MAX_FAULTS_KEPT = 1000;
const PAGE_BYTES = 4096;

/** One device's way to memory. null and false: refused, reported, nothing moved. */
export interface BusMaster {
  readonly name: string;
  /** `bytes` from bus address `bus`. */
  read(bus: number, bytes: number): Uint8Array | null;
  /** The same for one who takes at once what is there now: it may be RAM itself. */
  view(bus: number, bytes: number): Uint8Array | null;
  write(bus: number, source: Uint8Array): boolean;
  /** One aligned word, in one piece. */
  ld32(bus: number): number | null;
  st32(bus: number, value: number): boolean;
}

export interface BusFault {
  readonly master: string;
  readonly access: BusAccess;
  readonly address: number;
  readonly bytes: number;
  readonly reason: string;
  /** The code with which an IOMMU names its reason; 0 for a fault of the bus itself. */
  readonly iommuReason: number;
}

/** What the device can put on its wires, as its driver declared it. */
export interface BusLimits {
  /** Address lines: 12 … 64. */
  readonly maskBits: number;
  readonly maxSegmentBytes: number;
  /** No transfer crosses a multiple of this; 0 for none. */
  readonly boundaryBytes: number;
}

/** Physical address of a bus address, or −(reason code) after a fault. Never asked across a page. */
export type Translate = (bus: number, access: BusAccess) => number;

export interface DmaBus {
  /** Connects a device. Until the kernel grants a window it reaches nothing. */
  attach(name: string): BusMaster;
  /** Takes a device off the bus with all its windows: each later transfer is refused. */
  detach(master: BusMaster): void;
  /** Called for each refused transfer. */
  onFault(hook: (fault: BusFault) => void): void;
  readonly faults: readonly BusFault[];
  nrFaults(): number;
  /** Bytes moved since power-on, both directions. */
  nrBytes(): number;

  // What the kernel programs.
  setLimits(master: BusMaster, limits: BusLimits): void;
  /** Opens `[bus, bus + bytes)` for `access`: BUS_READ, BUS_WRITE or both. */
  grant(master: BusMaster, bus: number, bytes: number, access: number): void;
  /** Closes one window that starts at `bus`, of that size where there are several; false if there is none. */
  revoke(master: BusMaster, bus: number, bytes: number): boolean;
  /** Puts an IOMMU between this master and RAM, or takes it away. */
  setTranslation(master: BusMaster, translate: Translate | null): void;
  /** Closes all windows, takes limits and translation away: a device without driver. */
  reset(master: BusMaster): void;
  /** Windows that are open for this master. */
  nrWindows(master: BusMaster): number;
}

interface Window {
  readonly start: number;
  readonly end: number;
  readonly access: number;
}

interface Port {
  readonly name: string;
  isAttached: boolean;
  limits: BusLimits;
  /** First address beyond its lines: 2^maskBits. */
  reach: number;
  /** Sorted by start. */
  readonly windows: Window[];
  /** Longest window ever: how far back a window that covers an address may start. */
  longest: number;
  translate: Translate | null;
}

const NO_LIMITS: BusLimits = { maskBits: 64, maxSegmentBytes: 2 ** 32, boundaryBytes: 0 };
const NO_REACH = 2 ** NO_LIMITS.maskBits;

/** Index of the first window that starts after `bus`. */
const upperBound = (windows: readonly Window[], bus: number): number => {
  let [low, high] = [0, windows.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((windows[middle] as Window).start <= bus) low = middle + 1;
    else high = middle;
  }
  return low;
};

/** BUS-2: what the wires forbid, or null. */
function limitBroken({ limits, reach }: Port, bus: number, bytes: number): string | null {
  if (!Number.isInteger(bus) || bus < 0 || bytes < 1) return "is no address or no size";
  if (bus + bytes > reach) return `is beyond its ${limits.maskBits} address lines`;
  if (bytes > limits.maxSegmentBytes) return `is longer than a segment of ${limits.maxSegmentBytes}`;
  const { boundaryBytes } = limits;
  if (boundaryBytes !== 0 && Math.floor(bus / boundaryBytes) !== Math.floor((bus + bytes - 1) / boundaryBytes)) {
    return `crosses a boundary of 0x${boundaryBytes.toString(16)}`;
  }
  return null;
}

/** BUS-1: why no window lets this pass, or null. */
function windowMissing(port: Port, bus: number, bytes: number, access: BusAccess): string | null {
  let isCovered = false;
  for (let i = upperBound(port.windows, bus) - 1; i >= 0; i--) {
    const window = port.windows[i] as Window;
    if (window.start + port.longest <= bus) break;
    if (window.end < bus + bytes) continue;
    if ((window.access & access) !== 0) return null;
    isCovered = true;
  }
  return isCovered ? "is against the direction of the mapping" : "is outside what is mapped for it";
}

/** The bus of a machine with this RAM; `ramPages[pfn]` is 1 where there is RAM. */
export function createDmaBus(ram: RamBuffer, ramPages: Uint8Array): DmaBus {
  const u8 = new Uint8Array(ram);
  const u32 = new Uint32Array(ram);
  const faults: BusFault[] = [];
  const ports = new Map<BusMaster, Port>();
  let nrFaults = 0;
  let nrBytes = 0;
  let report: (fault: BusFault) => void = () => {};

  const refuse = (port: Port, access: BusAccess, bus: number, bytes: number, why: string, iommuReason = 0): void => {
    const fault = { master: port.name, access, address: bus, bytes, reason: why, iommuReason };
    nrFaults++;
    if (faults.length < MAX_FAULTS_KEPT) faults.push(fault);
    report(fault);
  };

  /** Splits a transfer into runs of RAM that are one behind the other; null once any part was refused. */
  const route = (port: Port, bus: number, bytes: number, access: BusAccess): readonly [number, number][] | null => {
    const why = port.isAttached ? limitBroken(port, bus, bytes) : "comes from a device that is gone";
    if (why !== null) {
      refuse(port, access, bus, bytes, why);
      return null;
    }
    const parts: [number, number][] = [];
    let isRam = true;
    let end = -1;
    for (let done = 0; done < bytes; ) {
      const at = bus + done;
      const length = Math.min(bytes - done, PAGE_BYTES - (at % PAGE_BYTES));
      const phys = port.translate === null ? at : port.translate(at, access);
      if (phys < 0) {
        refuse(port, access, at, bytes, "has no translation", -phys);
        return null;
      }
      if (ramPages[Math.floor(phys / PAGE_BYTES)] !== 1) isRam = false;
      const last = parts.length - 1;
      if (phys === end) (parts[last] as [number, number])[1] += length;
      else parts.push([phys, length]);
      end = phys + length;
      done += length;
    }
    const missing = windowMissing(port, bus, bytes, access);
    if (missing === null && isRam) return parts;
    refuse(port, access, bus, bytes, missing ?? "reaches no RAM");
    return null;
  };

  const word = (port: Port, bus: number, access: BusAccess): number => {
    if (bus % 4 !== 0) {
      refuse(port, access, bus, 4, "is a misaligned word");
      return -1;
    }
    const parts = route(port, bus, 4, access);
    if (parts === null) return -1;
    nrBytes += 4;
    return (parts[0] as [number, number])[0] >>> 2;
  };

  /** What is there: one run of RAM as it is, several put together in an array of their own. */
  const view = (port: Port, bus: number, bytes: number): Uint8Array | null => {
    const parts = route(port, bus, bytes, BUS_READ);
    if (parts === null) return null;
    nrBytes += bytes;
    const [first] = parts as [[number, number]];
    if (parts.length === 1) return u8.subarray(first[0], first[0] + bytes);
    const out = new Uint8Array(bytes);
    let done = 0;
    for (const [phys, length] of parts) {
      out.set(u8.subarray(phys, phys + length), done);
      done += length;
    }
    return out;
  };

  const masterOf = (port: Port): BusMaster => ({
    name: port.name,
    read: (bus, bytes) => view(port, bus, bytes)?.slice() ?? null,
    view: (bus, bytes) => view(port, bus, bytes),
    write(bus, source) {
      const parts = route(port, bus, source.length, BUS_WRITE);
      if (parts === null) return false;
      let done = 0;
      for (const [phys, length] of parts) {
        u8.set(parts.length === 1 ? source : source.subarray(done, done + length), phys);
        done += length;
      }
      nrBytes += source.length;
      return true;
    },
    ld32(bus) {
      const index = word(port, bus, BUS_READ);
      return index < 0 ? null : (u32[index] as number);
    },
    st32(bus, value) {
      const index = word(port, bus, BUS_WRITE);
      if (index >= 0) u32[index] = value;
      return index >= 0;
    },
  });

  const portOf = (master: BusMaster): Port => {
    const port = ports.get(master);
    if (port === undefined) throw new Error(`dma bus: ${master.name} was never attached`);
    return port;
  };

  return {
    attach(name) {
      const port: Port = {
        name,
        isAttached: true,
        limits: NO_LIMITS,
        reach: NO_REACH,
        windows: [],
        longest: 0,
        translate: null,
      };
      const master = masterOf(port);
      ports.set(master, port);
      return master;
    },
    detach(master) {
      const port = portOf(master);
      port.isAttached = false;
      port.windows.length = 0;
      port.translate = null;
    },
    onFault(hook) {
      report = hook;
    },
    faults,
    nrFaults: () => nrFaults,
    nrBytes: () => nrBytes,
    setLimits(master, limits) {
      const port = portOf(master);
      port.limits = limits;
      port.reach = 2 ** limits.maskBits;
    },
    grant(master, bus, bytes, access) {
      const port = portOf(master);
      port.windows.splice(upperBound(port.windows, bus), 0, { start: bus, end: bus + bytes, access });
      port.longest = Math.max(port.longest, bytes);
    },
    revoke(master, bus, bytes) {
      const { windows } = portOf(master);
      let found = -1;
      for (let i = upperBound(windows, bus) - 1; i >= 0 && (windows[i] as Window).start === bus; i--) {
        if (found < 0 || (windows[i] as Window).end === bus + bytes) found = i;
      }
      if (found >= 0) windows.splice(found, 1);
      return found >= 0;
    },
    setTranslation(master, translate) {
      portOf(master).translate = translate;
    },
    reset(master) {
      const port = portOf(master);
      port.windows.length = 0;
      port.limits = NO_LIMITS;
      port.reach = NO_REACH;
      port.translate = null;
    },
    nrWindows: (master) => portOf(master).windows.length,
  };
}
