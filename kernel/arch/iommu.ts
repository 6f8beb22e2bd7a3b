/**
 * The IOMMU: translates a device's bus addresses by page tables of its own, which lie in RAM.
 *
 *    31        22 21        12 11         0
 *    │  index 1  │  index 0   │  offset   │      bus address (IOVA), 32 bits: 2 levels of 1024 entries
 *          │           │
 *          ▼           ▼
 *    root: entry ──▶ table: entry ──▶ page        entry, u32:  31…12 frame │ 1 write │ 0 read;  0: not present
 *
 * Each device has a root of its own, so it reaches what its driver mapped and nothing else. Walks are remembered in an
 * IOTLB of 64 entries per device; whoever takes an entry out of the tables must flush, else the device goes on reaching
 * the page: the hardware does not look again.
 *
 *   IMU-1  a transfer is translated by the tables at the time of the walk, or by an unflushed memory of it
 *   IMU-2  no entry, or one without the permission: no translation, and the reason in the words of VT-d
 *
 * The walker reads RAM as devices do, not through the memory port. Host state: IOTLBs and counters.
 * Source: the VT-d specification in outline; reasons from drivers/iommu/intel/dmar.c.
 */

import { BUS_READ, type BusAccess } from "./dma_bus.ts";
import type { RamBuffer } from "./port.ts";

export const IOMMU_PTE_READ = 1;
export const IOMMU_PTE_WRITE = 2;
export const IOMMU_TABLE_ENTRIES = 1024;
/** Bus addresses end here. */
export const IOVA_END = 2 ** 32;

const IOTLB_ENTRIES = 64;
const PAGE_BYTES = 4096;

/** Why a transfer was not translated. */
export const DMAR_NO_WRITE = 5;
export const DMAR_NO_READ = 6;
const DMAR_BEYOND_WIDTH = 4;
export const DMAR_REASONS: Readonly<Record<number, string>> = {
  [DMAR_BEYOND_WIDTH]: "Access beyond MGAW",
  [DMAR_NO_WRITE]: "PTE Write access is not set",
  [DMAR_NO_READ]: "PTE Read access is not set",
};

/** The translation of one device. */
export interface IommuDomain {
  /** Physical address, or −(reason). */
  translate(bus: number, access: BusAccess): number;
  /** Forgets walks of `nrPages` pages from bus address `bus` on. */
  flush(bus: number, nrPages: number): void;
  readonly walks: () => number;
  readonly flushes: () => number;
}

export interface Iommu {
  /** A domain whose root table is the page at `root`. */
  createDomain(root: number): IommuDomain;
}

export function createIommu(ram: RamBuffer): Iommu {
  const u32 = new Uint32Array(ram);
  return {
    createDomain(root) {
      const tags = new Int32Array(IOTLB_ENTRIES).fill(-1);
      const ptes = new Uint32Array(IOTLB_ENTRIES);
      let [walks, flushes] = [0, 0];

      const walk = (page: number): number => {
        walks++;
        const upper = u32[(root >>> 2) + (page >>> 10)] as number;
        return upper === 0 ? 0 : (u32[((upper & ~0xfff) >>> 2) + (page & 1023)] as number);
      };

      return {
        translate(bus, access) {
          if (bus >= IOVA_END) return -DMAR_BEYOND_WIDTH;
          const page = bus >>> 12;
          const way = page % IOTLB_ENTRIES;
          if (tags[way] !== page) {
            ptes[way] = walk(page);
            // What is not present is not remembered.
            tags[way] = ptes[way] === 0 ? -1 : page;
          }
          const pte = ptes[way] as number;
          const needed = access === BUS_READ ? IOMMU_PTE_READ : IOMMU_PTE_WRITE;
          if ((pte & needed) === 0) return access === BUS_READ ? -DMAR_NO_READ : -DMAR_NO_WRITE;
          return ((pte & ~0xfff) >>> 0) + (bus % PAGE_BYTES);
        },
        flush(bus, nrPages) {
          flushes++;
          const first = bus >>> 12;
          for (let way = 0; way < IOTLB_ENTRIES; way++) {
            const page = tags[way] as number;
            if (page >= first && page < first + nrPages) tags[way] = -1;
          }
        },
        walks: () => walks,
        flushes: () => flushes,
      };
    },
  };
}
