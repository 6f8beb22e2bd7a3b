/**
 * Lab 1: the boot allocator without a list of what is free.
 *
 * It asks the tables themselves. A place is tried; whatever is in its way says where to try next: the end of a reserved
 * range, the start of the next memory. The hand-over asks the same question for one page, again and again.
 */

import { type BootMemory, type Bootmem, NO_MEMORY, PAGE_SIZE, RAM } from "../given/api.ts";

const NOWHERE = Number.POSITIVE_INFINITY;

export function createBootmem(memory: BootMemory): Bootmem {
  const { nrRows, start, end, type, nrReserved, reservedStart, reservedEnd, firstFrame, endFrame } = memory;
  const { spareStart: usedStart, spareEnd: usedEnd } = memory;
  let nrUsed = 0;
  let cursor = 0;
  let used = 0;
  let isOver = false;

  /** Row of memory that has the byte at `address`, or −1. */
  function ramRow(address: number): number {
    for (let row = 0; row < nrRows; row++) {
      if (type[row] === RAM && start[row] <= address && address < end[row]) return row;
    }
    return -1;
  }

  /** Where the memory that begins at `address` ends, touching rows included. */
  function ramEnd(address: number): number {
    let at = address;
    for (let row = ramRow(at); row >= 0; row = ramRow(at)) at = end[row];
    return at;
  }

  /** First byte of memory at or behind `address`. */
  function nextRam(address: number): number {
    if (ramRow(address) >= 0) return address;
    let next = NOWHERE;
    for (let row = 0; row < nrRows; row++) {
      if (type[row] === RAM && start[row] > address) next = Math.min(next, start[row]);
    }
    return next;
  }

  /** End of something in a table that lies in [from, to), or −1. */
  function inTheWay(starts: Float64Array, ends: Float64Array, nr: number, from: number, to: number): number {
    for (let row = 0; row < nr; row++) if (starts[row] < to && from < ends[row]) return ends[row];
    return -1;
  }

  /** Lowest multiple of `align` from `from` on with `size` free bytes, or NOWHERE. */
  function place(from: number, size: number, align: number): number {
    let address = nextRam(from);
    while (address < NOWHERE) {
      address = Math.ceil(address / align) * align;
      const to = address + size;
      const taken = Math.max(
        inTheWay(reservedStart, reservedEnd, nrReserved, address, to),
        inTheWay(usedStart, usedEnd, nrUsed, address, to),
      );
      if (taken >= 0) address = nextRam(taken);
      else if (ramEnd(address) >= to) return address;
      else address = nextRam(ramEnd(address));
    }
    return NOWHERE;
  }

  function alloc(size: number, align: number): number {
    const isPowerOfTwo = align >= 1 && align <= 2 ** 52 && Number.isInteger(Math.log2(align));
    if (isOver || !isPowerOfTwo || !Number.isInteger(size) || size < 1) return NO_MEMORY;
    const address = place(cursor, size, align);
    if (address === NOWHERE) return NO_MEMORY;
    cursor = address + size;
    used += size;
    if (nrUsed > 0 && usedEnd[nrUsed - 1] === address) usedEnd[nrUsed - 1] = cursor;
    else {
      usedStart[nrUsed] = address;
      usedEnd[nrUsed] = cursor;
      nrUsed++;
    }
    return address;
  }

  /** Where the free memory that begins at `address` ends. */
  function freeEnd(address: number): number {
    let to = ramEnd(address);
    for (let row = 0; row < nrReserved; row++) if (reservedStart[row] > address) to = Math.min(to, reservedStart[row]);
    for (let row = 0; row < nrUsed; row++) if (usedStart[row] > address) to = Math.min(to, usedStart[row]);
    return to;
  }

  function handOver(): number {
    if (isOver) return 0;
    let nr = 0;
    let pages = 0;
    for (let at = place(0, PAGE_SIZE, PAGE_SIZE); at < NOWHERE; at = place(at, PAGE_SIZE, PAGE_SIZE)) {
      firstFrame[nr] = at / PAGE_SIZE;
      endFrame[nr] = Math.floor(freeEnd(at) / PAGE_SIZE);
      pages += endFrame[nr] - firstFrame[nr];
      at = endFrame[nr] * PAGE_SIZE;
      nr++;
    }
    isOver = true;
    used = ramBytes() - reservedBytes() - pages * PAGE_SIZE;
    return nr;
  }

  function ramBytes(): number {
    let bytes = 0;
    for (let row = 0; row < nrRows; row++) if (type[row] === RAM) bytes += end[row] - start[row];
    return bytes;
  }

  /** Goes through each row of memory from one reserved range to the next. */
  function reservedBytes(): number {
    let bytes = 0;
    for (let row = 0; row < nrRows; row++) {
      if (type[row] !== RAM) continue;
      let at = start[row];
      while (at < end[row]) {
        const to = inTheWay(reservedStart, reservedEnd, nrReserved, at, at + 1);
        if (to >= 0) {
          bytes += Math.min(to, end[row]) - at;
          at = to;
        } else {
          let next = end[row];
          for (let i = 0; i < nrReserved; i++) if (reservedStart[i] > at) next = Math.min(next, reservedStart[i]);
          at = next;
        }
      }
    }
    return bytes;
  }

  return { alloc, handOver, reservedBytes, usedBytes: () => used };
}
