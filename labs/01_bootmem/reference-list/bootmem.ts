/**
 * Lab 1: the boot allocator, with a list of what is free.
 *
 * The list is made once: memory, sorted and joined, without what is reserved. The rows `spareStart`, `spareEnd` hold it
 * by address. The row `at` is the first that the next allocation may come from; rows before it are only remembered, for
 * the hand-over.
 */

import { type BootMemory, type Bootmem, NO_MEMORY, PAGE_SIZE, RAM } from "../given/api.ts";

export function createBootmem(memory: BootMemory): Bootmem {
  const { nrRows, start, end, type, nrReserved, reservedStart, reservedEnd, firstFrame, endFrame } = memory;
  const { spareStart: freeStart, spareEnd: freeEnd } = memory;
  let nrFree = 0;
  let at = 0;
  let used = 0;
  let reserved = 0;
  let isOver = false;

  // BLANK CUT
  /** Puts [from, to) in front of row `index` of the list. */
  function insert(index: number, from: number, to: number): void {
    for (let row = nrFree; row > index; row--) {
      freeStart[row] = freeStart[row - 1];
      freeEnd[row] = freeEnd[row - 1];
    }
    freeStart[index] = from;
    freeEnd[index] = to;
    nrFree++;
  }

  /** Memory in the order of addresses; rows that touch become one. */
  function addMemory(): void {
    const rows: number[] = [];
    for (let row = 0; row < nrRows; row++) if (type[row] === RAM) rows.push(row);
    rows.sort((a, b) => start[a] - start[b]);
    for (const row of rows) {
      if (nrFree > 0 && freeEnd[nrFree - 1] === start[row]) freeEnd[nrFree - 1] = end[row];
      else insert(nrFree, start[row], end[row]);
    }
  }

  /** Takes [from, to) out of the list; returns how many bytes of it were there. */
  function cut(from: number, to: number): number {
    let bytes = 0;
    for (let row = nrFree - 1; row >= 0; row--) {
      const left = freeStart[row];
      const right = freeEnd[row];
      const first = Math.max(left, from);
      const last = Math.min(right, to);
      if (first >= last) continue;
      bytes += last - first;
      freeEnd[row] = first;
      if (last < right) insert(row + 1, last, right);
    }
    return bytes;
  }

  // BLANK END
  // BLANK BEGIN what is free: rows of type RAM, in order, without what is reserved (BOOT-1, BOOT-2); count what is
  addMemory();
  for (let row = 0; row < nrReserved; row++) reserved += cut(reservedStart[row], reservedEnd[row]);
  // BLANK END

  function alloc(size: number, align: number): number {
    // BLANK BEGIN refuse what cannot be; else the lowest place that fits, behind the last one (BOOT-3 … BOOT-7)
    if (isOver || !Number.isInteger(size) || size <= 0) return NO_MEMORY;
    if (!Number.isInteger(Math.log2(align)) || align < 1) return NO_MEMORY;
    for (let row = at; row < nrFree; row++) {
      const address = Math.ceil(freeStart[row] / align) * align;
      if (address + size > freeEnd[row]) continue;
      at = row;
      if (address > freeStart[row]) {
        // The gap in front stays on the list, for the hand-over.
        insert(row, freeStart[row], address);
        at = row + 1;
      }
      freeStart[at] = address + size;
      used += size;
      return address;
    }
    return NO_MEMORY;
    // BLANK END
  }

  function handOver(): number {
    // BLANK BEGIN round each free range inwards to whole pages, and write what is left to the list (BOOT-8, BOOT-9)
    if (isOver) return 0;
    isOver = true;
    let nr = 0;
    for (let row = 0; row < nrFree; row++) {
      const first = Math.ceil(freeStart[row] / PAGE_SIZE);
      const last = Math.floor(freeEnd[row] / PAGE_SIZE);
      const isWhole = first < last;
      used += freeEnd[row] - freeStart[row] - (isWhole ? (last - first) * PAGE_SIZE : 0);
      if (!isWhole) continue;
      firstFrame[nr] = first;
      endFrame[nr] = last;
      nr++;
    }
    return nr;
    // BLANK END
  }

  return { alloc, handOver, reservedBytes: () => reserved, usedBytes: () => used };
}
