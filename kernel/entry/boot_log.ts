/**
 * The boot log: what dmesg shows of the machine, in the words of a PC's Linux.
 *
 * Only formatting: every number comes from the subsystem that it is about.
 */

import type { CmaArea } from "../../mm/index.ts";
import type { FirmwareRegion } from "../arch/firmware_map.ts";
import { E820_RAM } from "../arch/firmware_map.ts";
import type { KernelImage } from "../image.ts";
import { PAGE_SIZE } from "../params.ts";
import { KERN_ERR, KERN_INFO, KERN_NOTICE, type Printk } from "../printk.ts";
import { pfnToPhys } from "../types.ts";

const hex16 = (n: number): string => `0x${n.toString(16).padStart(16, "0")}`;
const kb = (bytes: number): string => `${Math.floor(bytes / 1024)}K`;

export function logFirmwareMap(printk: Printk, map: readonly FirmwareRegion[]): void {
  printk(KERN_INFO, "BIOS-provided physical RAM map:");
  for (const { start, end, type } of map) {
    const what = type === E820_RAM ? "usable" : "reserved";
    printk(KERN_INFO, `BIOS-e820: [mem ${hex16(start)}-${hex16(end - 1)}] ${what}`);
  }
}

export function logZones(
  printk: Printk,
  names: readonly string[],
  bounds: readonly (readonly [start: number, end: number])[],
): void {
  printk(KERN_INFO, "Zone ranges:");
  bounds.forEach(([start, end], zone) => {
    const range = end > start ? `[mem ${hex16(start * 4096)}-${hex16(end * 4096 - 1)}]` : "empty";
    printk(KERN_INFO, `  ${(names[zone] as string).padEnd(8)} ${range}`);
  });
}

/** What became of `cma=`: nothing to say when it was not given. */
export function logCma(printk: Printk, bytes: number, area: CmaArea | null): void {
  const mib = (size: number): string => `${Math.floor(size / 2 ** 20)} MiB`;
  if (area !== null) {
    printk(KERN_INFO, `cma: Reserved ${mib(area.nrPages * PAGE_SIZE)} at ${hex16(pfnToPhys(area.base))} on node -1`);
  } else if (bytes > 0) printk(KERN_ERR, `cma: Failed to reserve ${mib(bytes)}`);
}

export interface MemoryLine {
  readonly availableBytes: number;
  /** Of the contiguous area; not in `availableBytes`. */
  readonly cmaBytes: number;
  readonly ramBytes: number;
  readonly image: KernelImage;
  readonly memmapBytes: number;
  readonly percpuBytes: number;
}

/** `Memory: 62104K/65148K available (…)`: available pages are those that were handed to the buddies, no others. */
export function logMemory(printk: Printk, line: MemoryLine): void {
  const imageBytes = line.image.symbols.reduce((sum, symbol) => sum + symbol.end - symbol.start, 0);
  printk(
    KERN_NOTICE,
    `Memory: ${kb(line.availableBytes)}/${kb(line.ramBytes)} available (${kb(imageBytes)} kernel image, ` +
      `${kb(line.memmapBytes)} memmap, ${kb(line.percpuBytes)} percpu, ` +
      `${kb(line.ramBytes - line.availableBytes - line.cmaBytes)} reserved, ${kb(line.cmaBytes)} cma-reserved)`,
  );
}
