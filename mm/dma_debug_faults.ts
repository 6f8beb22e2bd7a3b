/**
 * What dma-debug says: a call of a driver beside the entry of its mapping, and each difference in the words of Linux.
 *
 *   unmap   another size, function, CPU address, direction, number of entries; a map error that nobody checked
 *   sync    beyond the end, another direction, the wrong way round, another number of entries
 *
 * Plain functions of two entries: dma_debug.ts finds the entry, and says what is found. Source: check_unmap and
 * check_sync of Linux kernel/dma/debug.c.
 */

import {
  DEBUG_COHERENT,
  DEBUG_SG,
  DEBUG_TYPE_NAMES,
  type DebugEntry,
  MAP_ERR_NOT_CHECKED,
} from "./dma_debug_entries.ts";
import { DMA_BIDIRECTIONAL, DMA_DIRECTION_NAMES, DMA_FROM_DEVICE, DMA_TO_DEVICE } from "./dma_ops.ts";

export const hex = (n: number): string => `0x${n.toString(16).padStart(16, "0")}`;
export const dirName = (direction: number): string => DMA_DIRECTION_NAMES[direction] ?? String(direction);
export const typeName = (type: number): string => DEBUG_TYPE_NAMES[type] as string;

/** Where, as every sentence ends. */
export const at = (dma: number, size: number): string => `[device address=${hex(dma)}] [size=${size} bytes]`;

/** What is wrong with an unmap, described by `ref`, of the mapping `entry`. */
export function unmapFaults(ref: DebugEntry, entry: DebugEntry): string[] {
  const faults: string[] = [];
  const where = at(ref.dma, ref.size);
  const frees = "device driver frees DMA memory with";
  if (ref.size !== entry.size) {
    const sizes = `[map size=${entry.size} bytes] [unmap size=${ref.size} bytes]`;
    faults.push(`${frees} different size [device address=${hex(ref.dma)}] ${sizes}`);
  }
  if (ref.type !== entry.type) {
    const types = `[mapped as ${typeName(entry.type)}] [unmapped as ${typeName(ref.type)}]`;
    faults.push(`${frees} wrong function ${where} ${types}`);
  } else if (entry.type >= DEBUG_COHERENT && ref.phys !== entry.phys) {
    const cpu = `[cpu alloc address=${hex(entry.phys)}] [cpu free address=${hex(ref.phys)}]`;
    faults.push(`${frees} different CPU address ${where} ${cpu}`);
  }
  if (ref.type === DEBUG_SG && ref.sgCallEnts !== entry.sgCallEnts) {
    const counts = `[map count=${entry.sgCallEnts}] [unmap count=${ref.sgCallEnts}]`;
    faults.push(`device driver frees DMA sg list with different entry count ${counts}`);
  }
  if (ref.direction !== entry.direction) {
    const dirs = `[mapped with ${dirName(entry.direction)}] [unmapped with ${dirName(ref.direction)}]`;
    faults.push(`${frees} different direction ${where} ${dirs}`);
  }
  if (entry.mapErr === MAP_ERR_NOT_CHECKED) {
    faults.push(`device driver failed to check map error${where} [mapped as ${typeName(entry.type)}]`);
  }
  return faults;
}

/** Nothing is mapped there. */
export const syncOfNothing = (ref: DebugEntry): string =>
  `device driver tries to sync DMA memory it has not allocated ${at(ref.dma, ref.size)}`;

/** What is wrong with a sync of part of the mapping `entry`. */
export function syncFaults(ref: DebugEntry, entry: DebugEntry, toCpu: boolean): string[] {
  const faults: string[] = [];
  const end = ref.dma + ref.size - entry.dma;
  if (end > entry.size) {
    const sizes = `[allocation size=${entry.size} bytes] [sync offset+size=${end}]`;
    faults.push(`device driver syncs DMA memory outside allocated range [device address=${hex(entry.dma)}] ${sizes}`);
  }
  if (entry.direction === DMA_BIDIRECTIONAL) return faults;
  const names = `[mapped with ${dirName(entry.direction)}] [synced with ${dirName(ref.direction)}]`;
  const dirs = `${at(ref.dma, entry.size)} ${names}`;
  if (ref.direction !== entry.direction) {
    faults.push(`device driver syncs DMA memory with different direction ${dirs}`);
  }
  if (toCpu && entry.direction !== DMA_FROM_DEVICE && ref.direction !== DMA_TO_DEVICE) {
    faults.push(`device driver syncs device read-only DMA memory for cpu ${dirs}`);
  }
  if (!toCpu && entry.direction !== DMA_TO_DEVICE && ref.direction !== DMA_FROM_DEVICE) {
    faults.push(`device driver syncs device write-only DMA memory to device ${dirs}`);
  }
  if (ref.type === DEBUG_SG && entry.type === DEBUG_SG && ref.sgCallEnts !== entry.sgCallEnts) {
    const counts = `[map count=${entry.sgCallEnts}] [sync count=${ref.sgCallEnts}]`;
    faults.push(`device driver syncs DMA sg list with different entry count ${counts}`);
  }
  return faults;
}
