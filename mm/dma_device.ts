/**
 * struct device, as far as DMA is concerned: who the device is, what it can address, how it is served. In RAM.
 *
 * | offset | field            | width | meaning, who writes it                                             |
 * |--------|------------------|-------|--------------------------------------------------------------------|
 * | 0      | node             | 8     | list of all devices; device lock                                   |
 * | 8      | pools            | 8     | list head of its dma_pools; device lock                            |
 * | 16     | magic            | u32   | a live device; cleared by release                                  |
 * | 20     | mask             | u32   | bits of streaming addresses; driver by setMask                     |
 * | 24     | coherent mask    | u32   | bits of coherent addresses; creation                               |
 * | 28     | max segment      | u32   | bytes of one segment; creation                                     |
 * | 32     | boundary         | u32   | bytes, a power of two, 0 for none; creation                        |
 * | 36     | min align mask   | u32   | low address bits that a bounce buffer must keep; driver            |
 * | 40     | master           | u32   | number of its bus master on the host; creation                     |
 * | 44     | ops              | u32   | index of its DmaMapOps; creation                                   |
 * | 48     | domain           | u32   | granule of its IOMMU domain, 0 for none; ops                       |
 * | 52     | nr mappings      | u32   | live streaming mappings; atomic                                    |
 * | 56     | nr coherent      | u32   | live coherent blocks; atomic                                       |
 * | 64     | name             | 32    | NUL-padded                                                         |
 * | 96     | driver           | 32    | NUL-padded                                                         |
 *
 * A mask is kept as its number of bits: `2^bits − 1` has no room in 32.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { PhysAddr } from "../kernel/types.ts";

declare const deviceBrand: unique symbol;
/** Address of a struct device. */
export type DmaDevice = PhysAddr & { readonly [deviceBrand]: true };

export const NO_DEVICE = 0 as DmaDevice;
export const asDevice = (addr: number): DmaDevice => addr as DmaDevice;

export const DEVICE_BYTES = 128;
export const DEV_NODE = 0;
export const DEV_POOLS = 8;
export const DEV_MAGIC = 16;
export const DEV_MASK = 20;
export const DEV_COHERENT_MASK = 24;
export const DEV_MAX_SEGMENT = 28;
export const DEV_BOUNDARY = 32;
export const DEV_MIN_ALIGN_MASK = 36;
export const DEV_MASTER = 40;
export const DEV_OPS = 44;
export const DEV_DOMAIN = 48;
export const DEV_NR_MAPPINGS = 52;
export const DEV_NR_COHERENT = 56;
const DEV_NAME = 64;
const DEV_DRIVER = 96;
const NAME_BYTES = 32;

export const DEVICE_MAGIC = 0x6465_7669;

const readName = (port: MemoryPort, addr: number): string => {
  let name = "";
  for (let i = 0; i < NAME_BYTES; i++) {
    const code = port.ld8(addr + i);
    if (code === 0) break;
    name += String.fromCharCode(code);
  }
  return name;
};

const writeName = (port: MemoryPort, addr: number, name: string): void => {
  for (let i = 0; i < NAME_BYTES; i++) port.st8(addr + i, i < NAME_BYTES - 1 ? name.charCodeAt(i) & 0x7f || 0 : 0);
};

export function setDeviceNames(port: MemoryPort, dev: DmaDevice, name: string, driver: string): void {
  writeName(port, dev + DEV_NAME, name);
  writeName(port, dev + DEV_DRIVER, driver);
}

export const deviceName = (port: MemoryPort, dev: DmaDevice): string => readName(port, dev + DEV_NAME);

/** `<driver> <device>`: what Linux puts before each message about a device. */
export const deviceLabel = (port: MemoryPort, dev: DmaDevice): string =>
  dev === NO_DEVICE ? "NULL NULL" : `${readName(port, dev + DEV_DRIVER)} ${deviceName(port, dev)}`;

/** Highest address of a mask, as far as this machine has addresses: 2^bits − 1. */
export const maskEnd = (bits: number): number => 2 ** bits - 1;

if (DEV_DRIVER + NAME_BYTES > DEVICE_BYTES) throw new Error("dma_device: struct device overflows");
